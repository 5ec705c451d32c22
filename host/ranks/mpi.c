/* mpi.c -- the transport over MPI, in a shared object of its own, so that one program serves
 * machines with and without MPI. */
#include <mpi.h>
#include <stdlib.h>
#include <string.h>

#include "transport.h"

enum { BYTES, TEAM, NOTE }; /* tags */

/* One job a process. */
static struct {
    MPI_Comm work, notes; /* what is told never meets what is gathered */
    int rank, size;
    int first, members;   /* of the team */
    MPI_Request *request; /* [2 size] of the operation in progress */
    int requests;
    struct {
        int64_t number;
        MPI_Request request;
    } * note; /* [size] to each rank */
} job;

static void begin_max(void *state, int64_t *x, int count)
{
    (void)state;
    job.requests = 1;
    MPI_Iallreduce(MPI_IN_PLACE, x, count, MPI_INT64_T, MPI_MAX, job.work, job.request);
}

static void begin_sum(void *state, int64_t *x, int count)
{
    (void)state;
    job.requests = 1;
    MPI_Iallreduce(MPI_IN_PLACE, x, count, MPI_INT64_T, MPI_SUM, job.work, job.request);
}

static void begin_broadcast(void *state, void *bytes, size_t size, int from)
{
    (void)state;
    job.requests = 1;
    MPI_Ibcast(bytes, (int)size, MPI_BYTE, from, job.work, job.request);
}

static void begin_gather(void *state, const void *mine, size_t size, void *const *into,
                         const size_t *sizes)
{
    (void)state;
    job.requests = 0;
    if (job.rank > 0) {
        if (size > 0)
            MPI_Isend(mine, (int)size, MPI_BYTE, 0, BYTES, job.work,
                      &job.request[job.requests++]);
        return;
    }
    for (int q = 1; q < job.size; q++)
        if (sizes[q] > 0)
            MPI_Irecv(into[q], (int)sizes[q], MPI_BYTE, q, BYTES, job.work,
                      &job.request[job.requests++]);
    if (size > 0) memmove(into[0], mine, size);
}

/* Whatever is sent within a team comes in the order in which it was sent, so one tag will do. */
static void make_team(void *state, int first, int size)
{
    (void)state;
    job.first = first;
    job.members = size;
}

static void begin_exchange(void *state, const void *out, const size_t *out_sizes, void *in,
                           const size_t *in_sizes)
{
    const char *from = out;
    char *to = in;
    (void)state;
    job.requests = 0;
    for (int q = 0; q < job.members; q++) {
        int rank = job.first + q;
        if (rank != job.rank && in_sizes[q] > 0)
            MPI_Irecv(to, (int)in_sizes[q], MPI_BYTE, rank, TEAM, job.work,
                      &job.request[job.requests++]);
        to += in_sizes[q];
    }
    to = in;
    for (int q = 0; q < job.members; q++) {
        int rank = job.first + q;
        if (rank != job.rank && out_sizes[q] > 0)
            MPI_Isend(from, (int)out_sizes[q], MPI_BYTE, rank, TEAM, job.work,
                      &job.request[job.requests++]);
        if (rank == job.rank && out_sizes[q] > 0) memmove(to, from, out_sizes[q]);
        from += out_sizes[q];
        to += in_sizes[q];
    }
}

static void begin_all_gather(void *state, const void *mine, void *all, const size_t *sizes)
{
    char *to = all;
    size_t own = sizes[job.rank - job.first];
    (void)state;
    job.requests = 0;
    for (int q = 0; q < job.members; q++) {
        int rank = job.first + q;
        if (rank != job.rank && sizes[q] > 0)
            MPI_Irecv(to, (int)sizes[q], MPI_BYTE, rank, TEAM, job.work,
                      &job.request[job.requests++]);
        if (rank != job.rank && own > 0)
            MPI_Isend(mine, (int)own, MPI_BYTE, rank, TEAM, job.work,
                      &job.request[job.requests++]);
        if (rank == job.rank && own > 0) memmove(to, mine, own);
        to += sizes[q];
    }
}

static bool done(void *state)
{
    int all = 0;
    (void)state;
    MPI_Testall(job.requests, job.request, &all, MPI_STATUSES_IGNORE);
    return all != 0;
}

/* Nothing where the note before has not left yet. */
static void tell(void *state, int to, int64_t number)
{
    int left = 1;
    (void)state;
    MPI_Test(&job.note[to].request, &left, MPI_STATUS_IGNORE);
    if (!left) return;
    job.note[to].number = number;
    MPI_Isend(&job.note[to].number, 1, MPI_INT64_T, to, NOTE, job.notes, &job.note[to].request);
}

static bool told(void *state, int *from, int64_t *number)
{
    int there = 0;
    MPI_Status of;
    (void)state;
    MPI_Iprobe(MPI_ANY_SOURCE, NOTE, job.notes, &there, &of);
    if (!there) return false;
    MPI_Recv(number, 1, MPI_INT64_T, of.MPI_SOURCE, NOTE, job.notes, MPI_STATUS_IGNORE);
    *from = of.MPI_SOURCE;
    return true;
}

static void close_job(void *state)
{
    (void)state;
    free(job.request);
    MPI_Finalize();
    free(job.note);
}

static void abort_job(void *state, int code)
{
    (void)state;
    MPI_Abort(MPI_COMM_WORLD, code);
}

kac_status kac_mpi_transport(uint64_t version, kac_transport *out)
{
    int provided = 0, local = 0;
    MPI_Comm here = MPI_COMM_NULL;
    if (version != KAC_MPI_VERSION) return KAC_ERR_UNSUPPORTED;
    MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided);
    MPI_Comm_dup(MPI_COMM_WORLD, &job.work);
    MPI_Comm_dup(MPI_COMM_WORLD, &job.notes);
    MPI_Comm_rank(job.work, &job.rank);
    MPI_Comm_size(job.work, &job.size);
    MPI_Comm_split_type(job.work, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &here);
    MPI_Comm_rank(here, &local);
    MPI_Comm_free(&here);
    job.first = job.rank;
    job.members = 1;
    job.request = calloc(2 * (size_t)job.size, sizeof(MPI_Request));
    job.note = calloc((size_t)job.size, sizeof *job.note);
    if (job.request == NULL || job.note == NULL) {
        MPI_Abort(MPI_COMM_WORLD, 3);
        return KAC_ERR_NOMEM;
    }
    for (int q = 0; q < job.size; q++)
        job.note[q].request = MPI_REQUEST_NULL;
    *out = (kac_transport){.name = "mpi",
                           .rank = job.rank,
                           .size = job.size,
                           .local = local,
                           .max = begin_max,
                           .sum = begin_sum,
                           .broadcast = begin_broadcast,
                           .gather = begin_gather,
                           .team = make_team,
                           .all_gather = begin_all_gather,
                           .exchange = begin_exchange,
                           .done = done,
                           .tell = tell,
                           .told = told,
                           .close = close_job,
                           .abort = abort_job};
    return KAC_OK;
}
