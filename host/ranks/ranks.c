/* ranks.c -- the processes that share a run: agreeing, sending, waiting, and naming who is lost.
 *
 * Who waits looks at the clock.  After a while it tells rank 0 (and 1, should rank 0 be the one
 * who is missing) in which call it waits; so when patience has run out, those two know who never
 * came.
 */
#include "ranks.h"

#include <dlfcn.h>
#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "beside.h"
#include "nccl.h"
#include "transport.h"

enum { VOTES = 2, TEXT = 4096 };

/* Calls are numbered by those of all ranks and, below that, by those of a team since the latest of
 * them. */
enum { TEAM_CALLS = 1 << 20 };

/* What a rank that fails in its team tells the others, instead of a number. */
#define FALLEN INT64_MAX

/* What ends the work of all ranks. */
typedef struct failure {
    int32_t status; /* kac_status */
    char text[TEXT];
} failure;

struct kac_ranks {
    kac_transport transport;
    double patience;    /* seconds */
    int64_t number;     /* calls so far */
    int64_t *waits;     /* [size] the call in which each rank was last known to wait */
    void **into;        /* [size] scratch of a round */
    size_t *sizes;      /* [size] */
    int first, members; /* of the team */
    char *stage[2];     /* [KAC_RANKS_STAGE] for what devices send and get, once in a team */
    failure failed;     /* once its status is not KAC_OK, nothing is sent any more */
    bool lost;          /* a rank is missing */
    int fallen;         /* rank that has said that it failed in its team, or -1 */
    kac_nccl *nccl;     /* of the team's GPUs, or NULL */
    char link[32];      /* what carries bytes between the team's devices */
};

static kac_ranks alone = {
    .transport = {.name = "self", .size = 1}, .members = 1, .fallen = -1, .link = "none"};

static kac_ranks *of(kac_ranks *ranks)
{
    return ranks != NULL ? ranks : &alone;
}

int kac_ranks_rank(const kac_ranks *ranks)
{
    return ranks != NULL ? ranks->transport.rank : 0;
}

int kac_ranks_size(const kac_ranks *ranks)
{
    return ranks != NULL ? ranks->transport.size : 1;
}

int kac_ranks_local(const kac_ranks *ranks)
{
    return ranks != NULL ? ranks->transport.local : 0;
}

void kac_ranks_set_patience(kac_ranks *ranks, double seconds)
{
    if (ranks != NULL) ranks->patience = seconds;
}

/* ---- waiting ------------------------------------------------------------------------------ */

/* A short wait spins, a long one sleeps: other ranks may need this core. */
static void pause_after(double waited)
{
    const struct timespec nap = {.tv_nsec = waited < 0.02 ? 50000 : 1000000};
    if (waited < 0.0005)
        (void)sched_yield();
    else
        (void)nanosleep(&nap, NULL);
}

static void hear(kac_ranks *r)
{
    const kac_transport *t = &r->transport;
    int from = 0;
    int64_t number = 0;
    while (t->told(t->state, &from, &number)) {
        if (number == FALLEN)
            r->fallen = from;
        else if (r->waits != NULL)
            r->waits[from] = number;
    }
}

/* Rank 0 gives up first, then rank 1, because they know most; then all others. */
static double patience_of(const kac_ranks *r)
{
    int rank = r->transport.rank;
    return r->patience * (rank == 0 ? 1 : rank == 1 ? 1.1 : 1.2);
}

/* Whether rank q has not come to where this one waits, as far as it knows.  In a call of all ranks
 * those that wait for their teams are not missing: another is. */
static bool is_missing(const kac_ranks *r, int q)
{
    int64_t behind = r->number - r->waits[q];
    bool is_of_team = q >= r->first && q < r->first + r->members;
    if (q == r->transport.rank) return false;
    return r->number % TEAM_CALLS > 0 ? is_of_team && behind > 0 : behind >= TEAM_CALLS;
}

/* Names the ranks that are missing. */
static kac_status name_missing(kac_ranks *r)
{
    const kac_transport *t = &r->transport;
    char names[TEXT / 2] = "";
    size_t length = 0;
    int missing = 0;
    for (int q = 0; q < t->size && t->rank < 2; q++) {
        if (!is_missing(r, q) || length + 16 > sizeof names) continue;
        length += (size_t)snprintf(names + length, sizeof names - length, "%s%d",
                                   missing++ > 0 ? ", " : "", q);
    }
    (void)snprintf(r->failed.text, sizeof r->failed.text,
                   "%s%s %s not answered for %g s (job.patience): lost, or hanging",
                   missing > 1   ? "ranks "
                   : missing > 0 ? "rank "
                                 : "another rank",
                   names, missing > 1 ? "have" : "has", r->patience);
    r->lost = true;
    r->failed.status = KAC_ERR_RANK;
    return KAC_FAIL(KAC_ERR_RANK, "%s", r->failed.text);
}

/* Until `is_done` says that the operation in progress has ended, or fails.  Errors: RANK. */
static kac_status wait_for(kac_ranks *r, kac_done_fn *is_done, void *state)
{
    const kac_transport *t = &r->transport;
    double soon = r->patience / 2 < 1 ? r->patience / 2 : 1;
    double began = kac_now();
    bool told = false, done = false;
    for (;;) {
        KAC_TRY(is_done(state, &done));
        if (done) return KAC_OK;
        double waited = kac_now() - began;
        if (waited > soon && !told) {
            for (int to = 0; to < 2; to++)
                if (to != t->rank) t->tell(t->state, to, r->number);
            told = true;
        }
        if (told) hear(r);
        if (waited > patience_of(r)) return name_missing(r);
        pause_after(waited);
    }
}

static kac_status is_done(void *state, bool *done)
{
    const kac_transport *t = state;
    *done = t->done(t->state);
    return KAC_OK;
}

/* Until the transport's operation has ended. */
static kac_status wait(kac_ranks *r)
{
    return wait_for(r, is_done, &r->transport);
}

/* The failure that ranks have agreed on, or KAC_OK. */
static kac_status agreed(const kac_ranks *r)
{
    if (r->failed.status == KAC_OK) return KAC_OK;
    return KAC_FAIL((kac_status)r->failed.status, "%s", r->failed.text);
}

/* A call that all ranks make. */
static kac_status begin(kac_ranks *r)
{
    r->number += TEAM_CALLS - r->number % TEAM_CALLS;
    return agreed(r);
}

/* ---- operations --------------------------------------------------------------------------- */

/* All ranks take over the failure of rank `from`; `all`: every one has failed, and so alike. */
static kac_status adopt(kac_ranks *r, kac_status status, int from, bool all)
{
    const kac_transport *t = &r->transport;
    failure *f = &r->failed;
    if (t->rank == from) {
        const char *text = kac_last_error();
        if (*text == '\0') text = kac_status_string(status);
        f->status = (int32_t)status;
        if (all)
            (void)snprintf(f->text, sizeof f->text, "%s", text);
        else
            (void)snprintf(f->text, sizeof f->text, "rank %d: %s", from, text);
    }
    t->broadcast(t->state, f, sizeof *f, from);
    KAC_TRY(wait(r));
    return agreed(r);
}

/* Larger for lower ranks, and for what a rank has met itself than for what it knows of another. */
static int rank_of_failure(const kac_transport *t, kac_status status)
{
    if (status == KAC_OK) return 0;
    return t->size - t->rank + (status != KAC_ERR_RANK ? t->size : 0);
}

kac_status kac_ranks_agree(kac_ranks *ranks, kac_status status, int64_t *votes, int count)
{
    KAC_REQUIRE(count >= 0 && count <= VOTES);
    kac_ranks *r = of(ranks);
    const kac_transport *t = &r->transport;
    int64_t word[2 + VOTES] = {rank_of_failure(t, status),
                               status == KAC_OK || status == KAC_ERR_RANK};
    if (t->size == 1) return status;
    KAC_TRY(begin(r));
    for (int i = 0; i < count; i++)
        word[2 + i] = votes[i];
    t->max(t->state, word, 2 + VOTES);
    KAC_TRY(wait(r));
    if (word[0] > 0)
        return adopt(r, status, (2 * t->size - (int)word[0]) % t->size, word[1] == 0);
    for (int i = 0; i < count; i++)
        votes[i] = word[2 + i];
    return KAC_OK;
}

kac_status kac_ranks_sum(kac_ranks *ranks, int64_t *x, int count)
{
    kac_ranks *r = of(ranks);
    const kac_transport *t = &r->transport;
    if (t->size == 1) return KAC_OK;
    KAC_TRY(begin(r));
    t->sum(t->state, x, count);
    return wait(r);
}

kac_status kac_ranks_confer(kac_ranks *ranks, kac_status status)
{
    kac_ranks *r = of(ranks);
    bool failed_before = r->failed.status != KAC_OK;
    kac_status all = kac_ranks_agree(ranks, status, NULL, 0);
    if (!failed_before && !r->lost) r->failed.status = KAC_OK;
    return all;
}

kac_status kac_ranks_broadcast(kac_ranks *ranks, void *bytes, size_t size)
{
    kac_ranks *r = of(ranks);
    const kac_transport *t = &r->transport;
    if (t->size == 1) return KAC_OK;
    KAC_TRY(begin(r));
    for (size_t at = 0; at < size; at += KAC_TRANSPORT_MOST) {
        size_t some = size - at < KAC_TRANSPORT_MOST ? size - at : KAC_TRANSPORT_MOST;
        t->broadcast(t->state, (char *)bytes + at, some, 0);
        KAC_TRY(wait(r));
    }
    return KAC_OK;
}

/* The part of `size` bytes that goes in the round which begins at byte `at`. */
static size_t part_of(size_t size, size_t at)
{
    size_t left = size > at ? size - at : 0;
    return left < KAC_TRANSPORT_MOST ? left : KAC_TRANSPORT_MOST;
}

kac_status kac_ranks_gather(kac_ranks *ranks, const void *mine, size_t size, void *const *into,
                            const size_t *sizes)
{
    kac_ranks *r = of(ranks);
    const kac_transport *t = &r->transport;
    size_t most = size;
    if (t->size == 1) {
        if (size > 0) memmove(into[0], mine, size);
        return KAC_OK;
    }
    KAC_TRY(begin(r));
    for (int q = 0; q < t->size && t->rank == 0; q++)
        most = sizes[q] > most ? sizes[q] : most;
    for (size_t from = 0; from < most; from += KAC_TRANSPORT_MOST) {
        for (int q = 0; q < t->size && t->rank == 0; q++) {
            r->sizes[q] = part_of(sizes[q], from);
            r->into[q] = r->sizes[q] > 0 ? (char *)into[q] + from : NULL;
        }
        size_t own = part_of(size, from);
        t->gather(t->state, own > 0 ? (const char *)mine + from : NULL, own, r->into, r->sizes);
        KAC_TRY(wait(r));
    }
    return KAC_OK;
}

/* ---- teams -------------------------------------------------------------------------------- */

kac_status kac_ranks_team(kac_ranks *ranks, int first, int size)
{
    kac_ranks *r = of(ranks);
    const kac_transport *t = &r->transport;
    kac_status status = KAC_OK;
    KAC_REQUIRE(first >= 0 && first <= t->rank && t->rank < first + size &&
                first + size <= t->size);
    if (t->size == 1) return KAC_OK;
    for (int k = 0; k < 2; k++) {
        if (r->stage[k] == NULL) r->stage[k] = malloc(KAC_RANKS_STAGE);
        if (r->stage[k] == NULL) status = KAC_FAIL(KAC_ERR_NOMEM, "ranks: no memory");
    }
    KAC_TRY(kac_ranks_agree(ranks, status, NULL, 0));
    t->team(t->state, first, size);
    r->first = first;
    r->members = size;
    return KAC_OK;
}

/* A call that the members of the team make. */
static kac_status begin_in_team(kac_ranks *r)
{
    if (r->number % TEAM_CALLS < TEAM_CALLS - 1) r->number++;
    return agreed(r);
}

void kac_ranks_of_team(const kac_ranks *ranks, int *member, int *size)
{
    *member = ranks != NULL ? ranks->transport.rank - ranks->first : 0;
    *size = ranks != NULL ? ranks->members : 1;
}

/* Tells the team that this rank has failed. */
static void fall(const kac_ranks *r)
{
    const kac_transport *t = &r->transport;
    for (int q = r->first; q < r->first + r->members; q++)
        if (q != t->rank) t->tell(t->state, q, FALLEN);
}

/* What a wait in the team looks at beside its own operation. */
typedef struct watch {
    kac_ranks *ranks;
    kac_done_fn *is_done;
    void *state;
} watch;

static kac_status is_done_by_all(void *state, bool *done)
{
    const watch *w = state;
    kac_status status = w->is_done(w->state, done);
    if (status != KAC_OK) fall(w->ranks);
    if (status != KAC_OK || *done) return status;
    hear(w->ranks);
    if (w->ranks->fallen < 0) return KAC_OK;
    return KAC_FAIL(KAC_ERR_RANK, "rank %d has failed, and its team with it", w->ranks->fallen);
}

kac_status kac_ranks_wait(kac_ranks *ranks, kac_status begun, kac_done_fn *done, void *state)
{
    kac_ranks *r = of(ranks);
    watch w = {.ranks = r, .is_done = done, .state = state};
    if (begun != KAC_OK) fall(r);
    KAC_TRY(begun);
    KAC_TRY(begin_in_team(r));
    return wait_for(r, is_done_by_all, &w);
}

/* ---- devices of a team -------------------------------------------------------------------- */

kac_status kac_ranks_connect(kac_ranks *ranks, kac_device *dev, kac_link link)
{
    kac_ranks *r = of(ranks);
    char version[16];
    if (r->members == 1) return KAC_OK;
    (void)snprintf(r->link, sizeof r->link, "%s", r->transport.name);
    if (link == KAC_LINK_MPI) return KAC_OK;
    kac_status status = kac_nccl_open(r, dev, &r->nccl);
    if (status == KAC_ERR_UNSUPPORTED && link == KAC_LINK_AUTO) return KAC_OK;
    KAC_TRY(status);
    KAC_TRY(kac_nccl_version(version, sizeof version));
    (void)snprintf(r->link, sizeof r->link, "nccl %s", version);
    return KAC_OK;
}

bool kac_ranks_are_connected(const kac_ranks *ranks)
{
    return ranks != NULL && ranks->nccl != NULL;
}

void kac_ranks_disconnect(kac_ranks *ranks)
{
    kac_ranks *r = of(ranks);
    kac_nccl_close(r->nccl);
    r->nccl = NULL;
}

const char *kac_ranks_link(const kac_ranks *ranks)
{
    return ranks != NULL ? ranks->link : alone.link;
}

static bool is_on_host(const kac_device *dev)
{
    return dev->ops == &kac_cpu_ops;
}

/* Host memory. */
static kac_status all_gather(kac_ranks *r, const void *mine, void *all, const size_t *sizes)
{
    const kac_transport *t = &r->transport;
    KAC_TRY(begin_in_team(r));
    t->all_gather(t->state, mine, all, sizes);
    return wait(r);
}

static kac_status exchange(kac_ranks *r, const void *out, const size_t *out_sizes, void *in,
                           const size_t *in_sizes)
{
    const kac_transport *t = &r->transport;
    KAC_TRY(begin_in_team(r));
    t->exchange(t->state, out, out_sizes, in, in_sizes);
    return wait(r);
}

/* The parts of all members that begin at byte `at` of each, through the host; *failed is this
 * device's first failure. */
static kac_status gather_staged(kac_ranks *r, kac_device *dev, const char *mine, char *all,
                                const size_t *sizes, size_t at, size_t most, kac_status *failed)
{
    const kac_memory_ops *op = &dev->ops->memory;
    const char *next = r->stage[1];
    for (int q = 0; q < r->members; q++) {
        size_t left = sizes[q] > at ? sizes[q] - at : 0;
        r->sizes[q] = left < most ? left : most;
    }
    size_t own = r->sizes[r->transport.rank - r->first];
    if (own > 0 && *failed == KAC_OK) *failed = op->download(dev, r->stage[0], mine + at, own);
    KAC_TRY(all_gather(r, r->stage[0], r->stage[1], r->sizes));
    for (int q = 0; q < r->members; q++) {
        size_t some = r->sizes[q];
        if (some > 0 && *failed == KAC_OK) *failed = op->upload(dev, all + at, next, some);
        next += some;
        all += sizes[q];
    }
    return KAC_OK;
}

kac_status kac_ranks_all_gather(kac_ranks *ranks, kac_device *dev, const void *mine, void *all,
                                const size_t *sizes)
{
    kac_ranks *r = of(ranks);
    kac_status failed = KAC_OK;
    size_t most = KAC_RANKS_STAGE / (size_t)r->members, largest = 0;
    if (r->members == 1) return dev->ops->memory.copy(dev, all, mine, sizes[0]);
    if (kac_nccl_serves(r->nccl, dev)) return kac_nccl_all_gather(r->nccl, mine, all, sizes);
    for (int q = 0; q < r->members; q++)
        largest = sizes[q] > largest ? sizes[q] : largest;
    if (is_on_host(dev) && largest <= KAC_TRANSPORT_MOST)
        return all_gather(r, mine, all, sizes);
    for (size_t at = 0; at < largest; at += most)
        KAC_TRY(gather_staged(r, dev, mine, all, sizes, at, most, &failed));
    return failed;
}

kac_status kac_ranks_exchange(kac_ranks *ranks, kac_device *dev, const void *out,
                              const size_t *out_sizes, void *in, const size_t *in_sizes)
{
    kac_ranks *r = of(ranks);
    const kac_memory_ops *op = &dev->ops->memory;
    kac_status failed = KAC_OK;
    size_t leaving = 0, coming = 0;
    for (int q = 0; q < r->members; q++) {
        leaving += out_sizes[q];
        coming += in_sizes[q];
    }
    KAC_REQUIRE(leaving <= KAC_RANKS_STAGE && coming <= KAC_RANKS_STAGE);
    if (r->members == 1) return op->copy(dev, in, out, out_sizes[0]);
    if (kac_nccl_serves(r->nccl, dev))
        return kac_nccl_exchange(r->nccl, out, out_sizes, in, in_sizes);
    if (is_on_host(dev)) return exchange(r, out, out_sizes, in, in_sizes);
    if (leaving > 0) failed = op->download(dev, r->stage[0], out, leaving);
    KAC_TRY(exchange(r, r->stage[0], out_sizes, r->stage[1], in_sizes));
    if (coming > 0 && failed == KAC_OK) failed = op->upload(dev, in, r->stage[1], coming);
    return failed;
}

/* ---- opening and closing ------------------------------------------------------------------ */

static kac_status join_mpi(kac_transport *out)
{
    char path[PATH_MAX];
    kac_mpi_transport_fn *join = NULL;
    if (!kac_find_beside("libkac_mpi.so", path))
        return KAC_FAIL(
            KAC_ERR_UNSUPPORTED,
            "ranks: this build has no libkac_mpi.so beside it; make it where mpicc is");
    /* Parts of MPI that are opened later look for its symbols. */
    void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (library == NULL) return KAC_FAIL(KAC_ERR_UNSUPPORTED, "ranks: %s", dlerror());
    *(void **)&join = dlsym(library, KAC_MPI_SYMBOL);
    if (join == NULL || join(KAC_MPI_VERSION, out) != KAC_OK)
        return KAC_FAIL(KAC_ERR_UNSUPPORTED, "ranks: %s is of another version of kac", path);
    return KAC_OK;
}

kac_status kac_ranks_over(const kac_transport *transport, kac_ranks **out)
{
    size_t size = (size_t)transport->size;
    kac_ranks *r = calloc(1, sizeof *r);
    if (r == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "ranks: no memory");
    *r = (kac_ranks){.transport = *transport,
                     .patience = 1800,
                     .first = transport->rank,
                     .members = 1,
                     .fallen = -1,
                     .link = "none",
                     .waits = calloc(size, sizeof *r->waits),
                     .into = calloc(size, sizeof *r->into),
                     .sizes = calloc(size, sizeof *r->sizes)};
    if (r->waits == NULL || r->into == NULL || r->sizes == NULL) {
        kac_ranks_close(r);
        return KAC_FAIL(KAC_ERR_NOMEM, "ranks: no memory");
    }
    *out = r;
    return KAC_OK;
}

kac_status kac_ranks_open(const char *kind, int expected, kac_ranks **out)
{
    KAC_REQUIRE(kind != NULL && out != NULL);
    kac_transport transport = alone.transport;
    bool mpi = strcmp(kind, "mpi") == 0;
    if (!mpi && strcmp(kind, "self") != 0)
        return KAC_FAIL(KAC_ERR_INVALID, "ranks \"%s\": there are \"self\" and \"mpi\"", kind);
    if (mpi) KAC_TRY(join_mpi(&transport));
    if (expected > 0 && expected != transport.size) {
        if (mpi) transport.close(transport.state);
        return KAC_FAIL(
            KAC_ERR_INVALID,
            "ranks: the launcher has started %d, and MPI knows of %d; with Slurm, srun "
            "--mpi=pmix, or else --ranks self",
            expected, transport.size);
    }
    return kac_ranks_over(&transport, out);
}

void kac_ranks_close(kac_ranks *ranks)
{
    enum { LOST = 3 }; /* exit code */
    if (ranks == NULL) return;
    const kac_transport *t = &ranks->transport;
    if (ranks->lost) t->abort(t->state, LOST);
    if (t->size > 1) hear(ranks);
    if (t->close != NULL) t->close(t->state);
    free(ranks->waits);
    free(ranks->into);
    free(ranks->sizes);
    free(ranks->stage[0]);
    free(ranks->stage[1]);
    free(ranks);
}
