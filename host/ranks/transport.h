/* transport.h -- how the processes of one run speak to each other: a table, which MPI fills. */
#ifndef KAC_TRANSPORT_H
#define KAC_TRANSPORT_H

#include "base.h"

/* Most bytes that one rank sends to another in one operation. */
enum { KAC_TRANSPORT_MOST = 1 << 30 };

/* Every rank calls max, sum, broadcast, gather and team alike and in the same order, and the members of
 * a team all_gather and exchange.  Each of them but team begins an operation, which `done` carries
 * on; until it has ended here its memory is in use, and no other begins.  So whoever waits can
 * look at the clock and for signals.  A failure of the network ends the process: there is nobody
 * left to tell. */
typedef struct kac_transport {
    const char *name; /* "self", "mpi" */
    int rank, size;
    int local; /* which of the ranks on this machine */
    void *state;
    /* Of each number over the ranks, on all of them. */
    void (*max)(void *state, int64_t *x, int count);
    void (*sum)(void *state, int64_t *x, int count);
    void (*broadcast)(void *state, void *bytes, size_t size, int from);
    /* Rank 0 gets sizes[q] bytes of rank q at into[q]; the others read neither.  Who sends nothing
     * takes no part. */
    void (*gather)(void *state, const void *mine, size_t size, void *const *into,
                   const size_t *sizes);
    /* From now on this rank is of the team of ranks first .. first + size - 1.  Until then its team
     * is itself. */
    void (*team)(void *state, int first, int size);
    /* The sizes[q] bytes of member q, one after the other, in `all` on every member. */
    void (*all_gather)(void *state, const void *mine, void *all, const size_t *sizes);
    /* out_sizes[q] bytes for member q, one after the other; in_sizes[q] come from it. */
    void (*exchange)(void *state, const void *out, const size_t *out_sizes, void *in,
                     const size_t *in_sizes);
    bool (*done)(void *state);
    /* A number for rank `to`, which it hears when it asks, or never. */
    void (*tell)(void *state, int to, int64_t number);
    bool (*told)(void *state, int *from, int64_t *number);
    void (*close)(void *state);           /* all ranks together */
    void (*abort)(void *state, int code); /* ends all ranks, whatever they are at */
} kac_transport;

/* ---- the door of libkac_mpi.so ------------------------------------------------------------ */

#define KAC_MPI_VERSION ((uint64_t)1 << 32 | (uint64_t)sizeof(kac_transport))
#define KAC_MPI_SYMBOL  "kac_mpi_transport"

/* Joins the MPI job that this process was started in, or is alone.  Errors: UNSUPPORTED (another
 * version). */
typedef kac_status kac_mpi_transport_fn(uint64_t version, kac_transport *out);
__attribute__((visibility("default"))) kac_mpi_transport_fn kac_mpi_transport;

#endif /* KAC_TRANSPORT_H */
