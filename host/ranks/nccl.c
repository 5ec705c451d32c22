/* nccl.c -- bytes from GPU to GPU between the ranks of a team, by NCCL.
 *
 * The few functions that are used are declared here as in nccl.h of version 2.17 and later, so that
 * neither building nor running needs NCCL.  Communicators do not block: whoever waits looks at the
 * clock, for signals, and for members that have failed, as for every other operation of ranks
 * (kac_ranks_wait), and can abort what the others will never complete.
 */
#include "nccl.h"

#include <dlfcn.h>
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* ---- the library ---------------------------------------------------------------------------- */

enum { SUCCESS = 0, IN_PROGRESS = 7 }; /* ncclResult_t */
enum { BYTE = 1 };                     /* ncclUint8 of ncclDataType_t */
enum { OLDEST = 21700 };               /* version 2.17 */
#define MAGIC 0xcafebeefu

typedef struct communicator communicator;
typedef struct unique_id {
    char bytes[128];
} unique_id;

/* ncclConfig_t of version OLDEST; later libraries fill in what it lacks. */
typedef struct settings {
    size_t size;
    uint32_t magic, version;
    int blocking, cluster, least_blocks, most_blocks;
    const char *network;
} settings;

/* Their order is that of `names`. */
typedef struct library {
    int (*version)(int *version);
    int (*unique_id)(unique_id *id);
    int (*init)(communicator **comm, int size, unique_id id, int rank, settings *config);
    int (*async_error)(communicator *comm, int *error);
    int (*finalize)(communicator *comm);
    int (*destroy)(communicator *comm);
    int (*abort)(communicator *comm);
    int (*group_start)(void);
    int (*group_end)(void);
    int (*send)(const void *from, size_t count, int type, int to, communicator *comm,
                void *stream);
    int (*receive)(void *into, size_t count, int type, int from, communicator *comm,
                   void *stream);
    int (*all_gather)(const void *mine, void *all, size_t count, int type, communicator *comm,
                      void *stream);
    const char *(*error_string)(int error);
    const char *(*last_error)(communicator *comm);
} library;

static const char *const names[] = {"ncclGetVersion",
                                    "ncclGetUniqueId",
                                    "ncclCommInitRankConfig",
                                    "ncclCommGetAsyncError",
                                    "ncclCommFinalize",
                                    "ncclCommDestroy",
                                    "ncclCommAbort",
                                    "ncclGroupStart",
                                    "ncclGroupEnd",
                                    "ncclSend",
                                    "ncclRecv",
                                    "ncclAllGather",
                                    "ncclGetErrorString",
                                    "ncclGetLastError"};

/* It stays open, as what it has started may.  Errors: UNSUPPORTED. */
static kac_status open_library(library *out, int *version)
{
    const char *given = getenv("KAC_NCCL");
    const char *path = given != NULL && *given != '\0' ? given : "libnccl.so.2";
    void *file = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (file == NULL) return KAC_FAIL(KAC_ERR_UNSUPPORTED, "nccl: %s", dlerror());
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        void *symbol = dlsym(file, names[i]);
        if (symbol == NULL)
            return KAC_FAIL(KAC_ERR_UNSUPPORTED, "nccl: %s has no %s; 2.17 or newer is needed",
                            path, names[i]);
        memcpy((char *)out + i * sizeof symbol, (const void *)&symbol, sizeof symbol);
    }
    if (out->version(version) == SUCCESS && *version >= OLDEST) return KAC_OK;
    return KAC_FAIL(KAC_ERR_UNSUPPORTED, "nccl: %s is version %d.%d; 2.17 or newer is needed",
                    path, *version / 10000, *version / 100 % 100);
}

kac_status kac_nccl_version(char *text, size_t size)
{
    library nccl;
    int version = 0;
    KAC_TRY(open_library(&nccl, &version));
    (void)snprintf(text, size, "%d.%d.%d", version / 10000, version / 100 % 100, version % 100);
    return KAC_OK;
}

/* ---- a team's communicator ------------------------------------------------------------------ */

struct kac_nccl {
    library nccl;
    kac_ranks *ranks;
    kac_device *dev;
    communicator *comm; /* NULL once it is gone */
    int rank, size;     /* in the team */
    kac_status failed;  /* why it is gone */
    char text[512];
    char *stage; /* device memory */
    size_t stage_bytes;
};

/* What an answer of NCCL means.  Errors: DEVICE. */
static kac_status answer(const kac_nccl *n, int result)
{
    if (result == SUCCESS || result == IN_PROGRESS) return KAC_OK;
    const char *more = n->nccl.last_error(n->comm);
    bool says = more != NULL && *more != '\0';
    return KAC_FAIL(KAC_ERR_DEVICE, "nccl: %s%s%s", n->nccl.error_string(result),
                    says ? ": " : "", says ? more : "");
}

/* Whether what was begun is queued on the device, or has failed. */
static kac_status is_settled(void *state, bool *done)
{
    const kac_nccl *n = state;
    int result = SUCCESS;
    KAC_TRY(answer(n, n->nccl.async_error(n->comm, &result)));
    *done = result != IN_PROGRESS;
    return answer(n, result);
}

/* Whether the device has done it too. */
static kac_status is_done(void *state, bool *done)
{
    const kac_nccl *n = state;
    KAC_TRY(is_settled(state, done));
    return *done ? n->dev->ops->memory.ready(n->dev, done) : KAC_OK;
}

/* The communicator ends, and what the device still works at for it. */
static void give_up(kac_nccl *n, kac_status why)
{
    n->failed = why;
    (void)snprintf(n->text, sizeof n->text, "%s", kac_last_error());
    if (n->comm != NULL) (void)n->nccl.abort(n->comm);
    n->comm = NULL;
}

/* Until what was begun, with this status, is done.  A failure is the communicator's end. */
static kac_status complete(kac_nccl *n, kac_status begun)
{
    n->dev->waits++;
    kac_status status = kac_ranks_wait(n->ranks, begun, is_done, n);
    if (status == KAC_OK) return KAC_OK;
    give_up(n, status);
    return KAC_FAIL(status, "%s", n->text);
}

/* Once it has failed, every operation fails as the first did. */
static kac_status require_open(const kac_nccl *n)
{
    return n->comm != NULL ? KAC_OK : KAC_FAIL(n->failed, "%s", n->text);
}

/* ---- opening and closing -------------------------------------------------------------------- */

/* What each member tells the others before they connect. */
typedef struct card {
    uint8_t gpu[16];
    int32_t version;
    char trouble[236]; /* why this member cannot; "" */
    unique_id id;      /* of the first member */
} card;

static void write_card(kac_nccl *n, card *own)
{
    kac_status status = n->dev->ops->memory.identify(n->dev, own->gpu);
    if (status == KAC_OK) status = open_library(&n->nccl, &own->version);
    if (status == KAC_OK && n->rank == 0) status = answer(n, n->nccl.unique_id(&own->id));
    if (status != KAC_OK)
        (void)snprintf(own->trouble, sizeof own->trouble, "%s", kac_last_error());
}

/* Whether all can, by the cards of all, and so with one answer.  Errors: UNSUPPORTED. */
static kac_status check_cards(const kac_nccl *n, const card *cards)
{
    int first = kac_ranks_rank(n->ranks) - n->rank;
    for (int q = 0; q < n->size; q++)
        if (cards[q].trouble[0] != '\0')
            return KAC_FAIL(KAC_ERR_UNSUPPORTED, "rank %d: %s", first + q, cards[q].trouble);
    for (int q = 1; q < n->size; q++) {
        if (cards[q].version != cards[0].version)
            return KAC_FAIL(KAC_ERR_UNSUPPORTED,
                            "nccl: its version code is %d on rank %d and %d on rank %d",
                            cards[0].version, first, cards[q].version, first + q);
        for (int p = 0; p < q; p++)
            if (memcmp(cards[p].gpu, cards[q].gpu, sizeof cards[p].gpu) == 0)
                return KAC_FAIL(KAC_ERR_UNSUPPORTED,
                                "nccl: ranks %d and %d share a GPU, and it wants one for each",
                                first + p, first + q);
    }
    return KAC_OK;
}

/* The cards of the team, in its order.  Errors: RANK, NOMEM. */
static kac_status exchange_cards(const kac_nccl *n, const card *own, card *cards, size_t *sizes)
{
    kac_device host = {.ops = &kac_cpu_ops};
    for (int q = 0; q < n->size; q++)
        sizes[q] = sizeof *cards;
    return kac_ranks_all_gather(n->ranks, &host, own, cards, sizes);
}

static kac_status connect(kac_nccl *n)
{
    settings config = {.size = sizeof config,
                       .magic = MAGIC,
                       .version = OLDEST,
                       .cluster = INT_MIN,
                       .least_blocks = INT_MIN,
                       .most_blocks = INT_MIN};
    card own = {0};
    card *cards = calloc((size_t)n->size, sizeof *cards);
    size_t *sizes = calloc((size_t)n->size, sizeof *sizes);
    kac_status status = KAC_OK;
    if (cards == NULL || sizes == NULL) {
        status = KAC_FAIL(KAC_ERR_NOMEM, "nccl: no memory");
        goto done;
    }
    write_card(n, &own);
    KAC_TRY_DONE(exchange_cards(n, &own, cards, sizes));
    KAC_TRY_DONE(check_cards(n, cards));
    status = answer(n, n->nccl.init(&n->comm, n->size, cards[0].id, n->rank, &config));
    status = complete(n, status);
done:
    free(cards);
    free(sizes);
    return status;
}

kac_status kac_nccl_open(kac_ranks *ranks, kac_device *dev, kac_nccl **out)
{
    kac_nccl *n = calloc(1, sizeof *n);
    if (n == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "nccl: no memory");
    *n = (kac_nccl){.ranks = ranks, .dev = dev};
    kac_ranks_of_team(ranks, &n->rank, &n->size);
    kac_status status = connect(n);
    if (status == KAC_OK)
        *out = n;
    else
        kac_nccl_close(n);
    return status;
}

void kac_nccl_close(kac_nccl *n)
{
    if (n == NULL) return;
    if (n->comm != NULL) {
        kac_status status = answer(n, n->nccl.finalize(n->comm));
        status = kac_ranks_wait(n->ranks, status, is_settled, n);
        if (status != KAC_OK) give_up(n, status);
        if (n->comm != NULL) (void)n->nccl.destroy(n->comm);
    }
    n->dev->ops->memory.release(n->dev, n->stage);
    free(n);
}

bool kac_nccl_serves(const kac_nccl *n, const kac_device *dev)
{
    return n != NULL && n->dev == dev;
}

/* ---- operations ----------------------------------------------------------------------------- */

/* At least so many bytes at n->stage. */
static kac_status reserve(kac_nccl *n, size_t bytes)
{
    const kac_memory_ops *op = &n->dev->ops->memory;
    if (bytes <= n->stage_bytes) return KAC_OK;
    op->release(n->dev, n->stage);
    n->stage_bytes = 0;
    n->stage = op->alloc(n->dev, bytes);
    if (n->stage == NULL) return KAC_ERR_NOMEM;
    n->stage_bytes = bytes;
    return KAC_OK;
}

/* Queues the parts of all, `each` bytes of the stage, after this member's own part at its end. */
static kac_status gather_padded(kac_nccl *n, const void *mine, size_t size, size_t each)
{
    size_t all = (size_t)n->size * each;
    KAC_TRY(reserve(n, all + each));
    KAC_TRY(n->dev->ops->memory.copy(n->dev, n->stage + all, mine, size));
    return answer(
        n, n->nccl.all_gather(n->stage + all, n->stage, each, BYTE, n->comm, n->dev->stream));
}

/* Members have as many rows as others or one more, so where sizes differ little is padded; a
 * broadcast by each, or messages between every two, would be slower on many ranks. */
kac_status kac_nccl_all_gather(kac_nccl *n, const void *mine, void *all, const size_t *sizes)
{
    const size_t line = 16;
    size_t most = 0;
    bool even = true;
    for (int q = 0; q < n->size; q++) {
        most = sizes[q] > most ? sizes[q] : most;
        even = even && sizes[q] == sizes[0];
    }
    if (most == 0) return KAC_OK;
    KAC_TRY(require_open(n));
    if (even)
        return complete(
            n, answer(n, n->nccl.all_gather(mine, all, most, BYTE, n->comm, n->dev->stream)));
    size_t each = (most + line - 1) / line * line;
    KAC_TRY(complete(n, gather_padded(n, mine, sizes[n->rank], each)));
    char *to = all;
    for (int q = 0; q < n->size; q++) {
        KAC_TRY(n->dev->ops->memory.copy(n->dev, to, n->stage + (size_t)q * each, sizes[q]));
        to += sizes[q];
    }
    return KAC_OK;
}

/* Queues what goes to and comes from each other member, as one group. */
static kac_status send_and_receive(kac_nccl *n, const char *out, const size_t *out_sizes,
                                   char *in, const size_t *in_sizes)
{
    kac_status status = answer(n, n->nccl.group_start());
    if (status != KAC_OK) return status;
    for (int q = 0; q < n->size; q++) {
        bool other = q != n->rank;
        if (other && out_sizes[q] > 0 && status == KAC_OK)
            status =
                answer(n, n->nccl.send(out, out_sizes[q], BYTE, q, n->comm, n->dev->stream));
        if (other && in_sizes[q] > 0 && status == KAC_OK)
            status =
                answer(n, n->nccl.receive(in, in_sizes[q], BYTE, q, n->comm, n->dev->stream));
        if (!other && status == KAC_OK)
            status = n->dev->ops->memory.copy(n->dev, in, out, out_sizes[q]);
        out += out_sizes[q];
        in += in_sizes[q];
    }
    kac_status ended = answer(n, n->nccl.group_end());
    return status != KAC_OK ? status : ended;
}

kac_status kac_nccl_exchange(kac_nccl *n, const void *out, const size_t *out_sizes, void *in,
                             const size_t *in_sizes)
{
    KAC_TRY(require_open(n));
    return complete(n, send_and_receive(n, out, out_sizes, in, in_sizes));
}
