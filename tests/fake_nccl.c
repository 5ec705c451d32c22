/* fake_nccl.c -- the part of NCCL that kac uses, between processes or threads of one machine, on
 * host memory: for tests of kac's side without GPUs.
 *
 * Communicators share a file in /dev/shm with a small box for each pair of ranks; bytes move when
 * somebody asks how things are (ncclCommGetAsyncError), so nothing ever blocks.  What NCCL forbids
 * is an error here that says what was wrong: another size or kind than the peer's, messages outside
 * of a group, another stream or none, a rank out of range, work after ncclCommFinalize, and
 * ncclCommDestroy before it has ended.  A communicator that a process leaves behind ends it with
 * exit code 86.
 *
 *   FAKE_NCCL_FAIL=R:N      on rank R the Nth group of a communicator, from 1, fails with a system error
 *   FAKE_NCCL_VERSION=CODE  what ncclGetVersion says
 *   FAKE_NCCL_LOG=FILE      gets a line a communicator: its rank, groups, and bytes that it received
 */
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PUBLIC __attribute__((visibility("default")))

enum result {
    SUCCESS = 0,
    SYSTEM_ERROR = 2,
    INTERNAL_ERROR = 3,
    INVALID_ARGUMENT = 4,
    INVALID_USAGE = 5,
    IN_PROGRESS = 7,
};
enum { CHUNK = 4096, MOST_WORKS = 512, MOST_RANKS = 64 };

/* From one rank to another. */
typedef struct box {
    atomic_int full;
    int gathers;
    size_t total; /* of the whole message */
    size_t bytes; /* here */
    char data[CHUNK];
} box;

typedef struct shared {
    atomic_int joined, finished;
    box box[]; /* [size][size]: from, to */
} shared;

/* A message on its way. */
typedef struct work {
    bool sends, gathers, begun;
    int peer;
    const char *from; /* who sends */
    char *into;       /* who receives */
    size_t size, moved;
} work;

typedef struct communicator {
    uint64_t magic;
    int rank, size;
    char path[64];
    shared *all;
    size_t bytes;
    void *stream; /* of its first group */
    work work[MOST_WORKS];
    int works;   /* asked for */
    int running; /* of them queued by a group that has ended */
    int groups;
    size_t received;
    enum result failed;
    bool finalizes;
    char text[256]; /* of its latest error */
} communicator;

typedef struct unique_id {
    char path[128];
} unique_id;

/* ncclConfig_t of 2.17 */
typedef struct settings {
    size_t size;
    unsigned magic, version;
    int blocking, cluster, least, most;
    const char *network;
} settings;

static const uint64_t comm_magic = 0x6b6163666163656bu;
static atomic_int alive; /* communicators */
static _Thread_local int depth;
static _Thread_local communicator *grouped; /* whose messages the group has */
static _Thread_local char said[256];        /* where there is no communicator */

__attribute__((format(printf, 3, 4))) static int fail(communicator *comm, enum result result,
                                                      const char *format, ...)
{
    char *text = comm != NULL ? comm->text : said;
    va_list list;
    va_start(list, format);
    (void)vsnprintf(text, sizeof said, format, list);
    va_end(list);
    if (comm != NULL) comm->failed = result;
    return (int)result;
}

__attribute__((destructor)) static void look_back(void)
{
    if (alive == 0) return;
    (void)fprintf(stderr, "fake nccl: %d communicators were not destroyed\n", alive);
    _exit(86);
}

static box *box_of(const communicator *comm, int from, int to)
{
    return &comm->all->box[from * comm->size + to];
}

/* ---- moving --------------------------------------------------------------------------------- */

/* What can leave. */
static bool push(communicator *comm, work *w)
{
    box *b = box_of(comm, comm->rank, w->peer);
    if (atomic_load(&b->full) != 0) return false;
    size_t left = w->size - w->moved;
    b->bytes = left < CHUNK ? left : CHUNK;
    b->total = w->size;
    b->gathers = w->gathers;
    memcpy(b->data, w->from + w->moved, b->bytes);
    w->moved += b->bytes;
    w->begun = true;
    atomic_store(&b->full, 1);
    return true;
}

/* What has come. */
static bool pull(communicator *comm, work *w)
{
    box *b = box_of(comm, w->peer, comm->rank);
    if (atomic_load(&b->full) == 0) return false;
    if (b->total != w->size || b->gathers != w->gathers) {
        (void)fail(comm, INVALID_USAGE, "rank %d %s %zu bytes and rank %d wants %zu%s", w->peer,
                   b->gathers ? "gathers" : "sends", b->total, comm->rank, w->size,
                   w->gathers ? " gathered" : "");
        return false;
    }
    memcpy(w->into + w->moved, b->data, b->bytes);
    w->moved += b->bytes;
    comm->received += b->bytes;
    w->begun = true;
    atomic_store(&b->full, 0);
    return true;
}

static bool is_over(const work *w)
{
    return w->begun && w->moved == w->size;
}

/* Messages between two ranks keep their order. */
static bool waits_for_another(const communicator *comm, int i)
{
    const work *w = &comm->work[i];
    for (int k = 0; k < i; k++)
        if (comm->work[k].peer == w->peer && comm->work[k].sends == w->sends &&
            !is_over(&comm->work[k]))
            return true;
    return false;
}

static void move(communicator *comm)
{
    int left = 0;
    for (int i = 0; i < comm->running && comm->failed == SUCCESS; i++) {
        work *w = &comm->work[i];
        while (!is_over(w) && !waits_for_another(comm, i) && comm->failed == SUCCESS)
            if (!(w->sends ? push(comm, w) : pull(comm, w))) break;
        left += !is_over(w);
    }
    if (left == 0 && comm->running > 0) comm->running = comm->works = 0;
}

/* Whether the test wishes that this group of this rank fails. */
static bool is_to_fail(const communicator *comm)
{
    const char *wish = getenv("FAKE_NCCL_FAIL");
    char *colon = NULL;
    if (wish == NULL || strtol(wish, &colon, 10) != comm->rank || *colon != ':') return false;
    return strtol(colon + 1, NULL, 10) == comm->groups;
}

/* What the communicator has to do begins. */
static int start(communicator *comm)
{
    comm->running = comm->works;
    comm->groups++;
    if (is_to_fail(comm)) (void)fail(comm, SYSTEM_ERROR, "the network is down, says the test");
    return comm->failed != SUCCESS ? (int)comm->failed : IN_PROGRESS;
}

static int check(communicator *comm, void *stream, int peer, int type)
{
    if (comm == NULL || comm->magic != comm_magic)
        return fail(NULL, INVALID_ARGUMENT, "not a communicator");
    if (comm->failed != SUCCESS) return (int)comm->failed;
    if (comm->finalizes) return fail(comm, INVALID_USAGE, "work after ncclCommFinalize");
    if (comm->running > 0)
        return fail(comm, INVALID_USAGE, "work before the last group has been queued");
    if (peer < 0 || peer >= comm->size)
        return fail(comm, INVALID_ARGUMENT, "rank %d of %d", peer, comm->size);
    if (type != 1) return fail(comm, INVALID_ARGUMENT, "the type is %d, not bytes", type);
    if (comm->stream == NULL) comm->stream = stream;
    if (stream == NULL || stream != comm->stream)
        return fail(comm, INVALID_USAGE, "another stream than before, or none");
    if (comm->works + 2 * comm->size > MOST_WORKS)
        return fail(comm, INTERNAL_ERROR, "more than %d messages", MOST_WORKS);
    return SUCCESS;
}

static void add(communicator *comm, work w)
{
    comm->work[comm->works++] = w;
}

/* ---- the functions -------------------------------------------------------------------------- */

/* NOLINTBEGIN(readability-identifier-naming): these are NCCL's */
PUBLIC int ncclGetVersion(int *version);
PUBLIC int ncclGetUniqueId(unique_id *id);
PUBLIC int ncclCommInitRankConfig(communicator **comm, int size, unique_id id, int rank,
                                  settings *config);
PUBLIC int ncclCommGetAsyncError(communicator *comm, int *error);
PUBLIC int ncclCommFinalize(communicator *comm);
PUBLIC int ncclCommDestroy(communicator *comm);
PUBLIC int ncclCommAbort(communicator *comm);
PUBLIC int ncclGroupStart(void);
PUBLIC int ncclGroupEnd(void);
PUBLIC int ncclSend(const void *from, size_t count, int type, int peer, communicator *comm,
                    void *stream);
PUBLIC int ncclRecv(void *into, size_t count, int type, int peer, communicator *comm,
                    void *stream);
PUBLIC int ncclAllGather(const void *mine, void *all, size_t count, int type,
                         communicator *comm, void *stream);
PUBLIC const char *ncclGetErrorString(int error);
PUBLIC const char *ncclGetLastError(communicator *comm);
/* NOLINTEND(readability-identifier-naming) */

int ncclGetVersion(int *version)
{
    const char *wish = getenv("FAKE_NCCL_VERSION");
    *version = wish != NULL ? (int)strtol(wish, NULL, 10) : 22809;
    return SUCCESS;
}

int ncclGetUniqueId(unique_id *id)
{
    static atomic_int number;
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    (void)snprintf(id->path, sizeof id->path, "/dev/shm/kac-fake-nccl-%d-%d-%lld",
                   (int)getpid(), atomic_fetch_add(&number, 1),
                   (long long)now.tv_sec * 1000000000 + now.tv_nsec);
    return SUCCESS;
}

int ncclCommInitRankConfig(communicator **comm, int size, unique_id id, int rank,
                           settings *config)
{
    if (config->magic != 0xcafebeef || config->size < sizeof *config ||
        config->version < 21700 || config->blocking != 0 || config->cluster != INT_MIN ||
        config->network != NULL)
        return fail(NULL, INVALID_ARGUMENT, "the configuration");
    if (rank < 0 || rank >= size || size > MOST_RANKS)
        return fail(NULL, INVALID_ARGUMENT, "rank %d of %d", rank, size);
    communicator *c = calloc(1, sizeof *c);
    int file = open(id.path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    if (c == NULL || file < 0) {
        free(c);
        return fail(NULL, SYSTEM_ERROR, "%.100s: cannot be opened", id.path);
    }
    c->bytes = sizeof(shared) + (size_t)size * (size_t)size * sizeof(box);
    if (ftruncate(file, (off_t)c->bytes) == 0)
        c->all = mmap(NULL, c->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    (void)close(file);
    if (c->all == NULL || c->all == MAP_FAILED) {
        free(c);
        return fail(NULL, SYSTEM_ERROR, "%.100s: no room", id.path);
    }
    c->magic = comm_magic;
    c->rank = rank;
    c->size = size;
    (void)snprintf(c->path, sizeof c->path, "%.60s", id.path);
    atomic_fetch_add(&c->all->joined, 1);
    atomic_fetch_add(&alive, 1);
    *comm = c;
    return IN_PROGRESS;
}

int ncclCommGetAsyncError(communicator *comm, int *error)
{
    if (comm == NULL || comm->magic != comm_magic)
        return fail(NULL, INVALID_ARGUMENT, "not a communicator");
    bool waits = atomic_load(&comm->all->joined) < comm->size ||
                 (comm->finalizes && atomic_load(&comm->all->finished) < comm->size);
    move(comm);
    *error = comm->failed != SUCCESS      ? (int)comm->failed
             : waits || comm->running > 0 ? IN_PROGRESS
                                          : SUCCESS;
    return SUCCESS;
}

int ncclCommFinalize(communicator *comm)
{
    if (comm->failed != SUCCESS) return (int)comm->failed;
    if (comm->works > 0) return fail(comm, INVALID_USAGE, "ncclCommFinalize amid work");
    if (comm->finalizes) return fail(comm, INVALID_USAGE, "ncclCommFinalize twice");
    comm->finalizes = true;
    atomic_fetch_add(&comm->all->finished, 1);
    return IN_PROGRESS;
}

static void leave(communicator *comm)
{
    const char *path = getenv("FAKE_NCCL_LOG");
    FILE *log = path != NULL ? fopen(path, "ae") : NULL;
    if (log != NULL) {
        (void)fprintf(log, "rank %d: %d groups, %zu bytes\n", comm->rank, comm->groups,
                      comm->received);
        (void)fclose(log);
    }
    (void)munmap(comm->all, comm->bytes);
    (void)unlink(comm->path);
    atomic_fetch_sub(&alive, 1);
    comm->magic = 0;
    free(comm);
}

int ncclCommDestroy(communicator *comm)
{
    if (!comm->finalizes || atomic_load(&comm->all->finished) < comm->size) {
        (void)fprintf(stderr, "fake nccl: ncclCommDestroy before ncclCommFinalize has ended\n");
        _exit(86);
    }
    leave(comm);
    return SUCCESS;
}

int ncclCommAbort(communicator *comm)
{
    leave(comm);
    return SUCCESS;
}

int ncclGroupStart(void)
{
    depth++;
    return SUCCESS;
}

int ncclGroupEnd(void)
{
    communicator *comm = grouped;
    if (depth == 0) return fail(NULL, INVALID_USAGE, "ncclGroupEnd without ncclGroupStart");
    if (--depth > 0 || comm == NULL) return SUCCESS;
    grouped = NULL;
    return start(comm);
}

int ncclSend(const void *from, size_t count, int type, int peer, communicator *comm,
             void *stream)
{
    int result = check(comm, stream, peer, type);
    if (result != SUCCESS) return result;
    if (depth == 0) return fail(comm, INVALID_USAGE, "ncclSend outside of a group");
    grouped = comm;
    add(comm, (work){.sends = true, .peer = peer, .from = from, .size = count});
    return SUCCESS;
}

int ncclRecv(void *into, size_t count, int type, int peer, communicator *comm, void *stream)
{
    int result = check(comm, stream, peer, type);
    if (result != SUCCESS) return result;
    if (depth == 0) return fail(comm, INVALID_USAGE, "ncclRecv outside of a group");
    grouped = comm;
    add(comm, (work){.peer = peer, .into = into, .size = count});
    return SUCCESS;
}

int ncclAllGather(const void *mine, void *all, size_t count, int type, communicator *comm,
                  void *stream)
{
    int result = check(comm, stream, 0, type);
    if (result != SUCCESS) return result;
    const char *from = mine;
    char *into = (char *)all, *own = into + (size_t)comm->rank * count;
    if (from != own && from + count > into && from < into + (size_t)comm->size * count)
        return fail(comm, INVALID_USAGE, "ncclAllGather from amid where it goes");
    memmove(own, from, count);
    for (int q = 0; q < comm->size; q++) {
        if (q == comm->rank) continue;
        add(comm,
            (work){.sends = true, .gathers = true, .peer = q, .from = own, .size = count});
        add(comm,
            (work){
                .gathers = true, .peer = q, .into = into + (size_t)q * count, .size = count});
    }
    if (depth > 0) {
        grouped = comm;
        return SUCCESS;
    }
    return start(comm);
}

const char *ncclGetErrorString(int error)
{
    return error == SYSTEM_ERROR       ? "unhandled system error"
           : error == INVALID_ARGUMENT ? "invalid argument"
           : error == INVALID_USAGE    ? "invalid usage"
                                       : "internal error";
}

const char *ncclGetLastError(communicator *comm)
{
    return comm != NULL ? comm->text : said;
}
