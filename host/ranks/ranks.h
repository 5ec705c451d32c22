/* ranks.h -- the processes that share a run: what the engine asks of them beside kac.h.
 *
 * `ranks` NULL is this process alone, everywhere.  All ranks make the same calls in the same order.
 * What may fail on one rank alone is followed by kac_ranks_agree before the next call that moves
 * data, so that nobody waits for a rank that has given up.  Once ranks have agreed on a failure,
 * every call returns it at once.
 */
#ifndef KAC_RANKS_H
#define KAC_RANKS_H

#include "ops.h"
#include "transport.h"

/* Ranks that speak by this transport, which is closed with them.  Errors: NOMEM. */
kac_status kac_ranks_over(const kac_transport *transport, kac_ranks **out);

/* Which of the ranks on its machine this is, from 0. */
int kac_ranks_local(const kac_ranks *ranks);

/* Seconds after which a rank that others wait for counts as lost. */
void kac_ranks_set_patience(kac_ranks *ranks, double seconds);

/* Each of `count` numbers becomes its sum over the ranks.  Errors: RANK. */
kac_status kac_ranks_sum(kac_ranks *ranks, int64_t *x, int count);

/* kac_ranks_agree without votes, of what may fail and be gone on from: later calls work.
 * Errors: any, and RANK, after which none does. */
kac_status kac_ranks_confer(kac_ranks *ranks, kac_status status);

/* What rank 0 has in `bytes`, on all ranks.  Errors: RANK. */
kac_status kac_ranks_broadcast(kac_ranks *ranks, void *bytes, size_t size);

/* The `size` bytes that each rank has at `mine`: at rank 0 into[q] gets the sizes[q] bytes of rank q,
 * in rounds of a gigabyte at most; the others read neither.  Errors: RANK. */
kac_status kac_ranks_gather(kac_ranks *ranks, const void *mine, size_t size, void *const *into,
                            const size_t *sizes);

/* ---- teams ---------------------------------------------------------------------------------
 *
 * Members of a team call all_gather and exchange alike and in the same order, whatever other teams
 * do, between two calls of all ranks.  A member whose device fails still takes part, and returns
 * its failure after that, so the others need not wait for it.
 */

/* Most bytes that a member sends, or gets, in one exchange. */
enum { KAC_RANKS_STAGE = 16 << 20 };

/* Divides the ranks into teams: this one is of first .. first + size - 1.  All ranks call it, for each
 * run that they open; a failure is agreed upon, for good.  Errors: NOMEM, RANK. */
kac_status kac_ranks_team(kac_ranks *ranks, int first, int size);

/* Which member of its team this rank is, and how many there are. */
void kac_ranks_of_team(const kac_ranks *ranks, int *member, int *size);

/* Whether an operation has ended, at once.  Errors: its own. */
typedef kac_status kac_done_fn(void *state, bool *done);

/* Waits, in a call that all members make, for an operation of theirs that this one has begun with the
 * status `begun`, as ranks wait: patiently, and named if they do not come.  Where it fails on
 * one member, the others hear of it.  Errors: `begun`, those of `done`, RANK. */
kac_status kac_ranks_wait(kac_ranks *ranks, kac_status begun, kac_done_fn *done, void *state);

/* How the members' devices reach each other from now on; all of them call it.  KAC_LINK_AUTO is
 * NCCL where all have GPUs of their own and it, KAC_LINK_MPI goes through the host.
 * Errors: UNSUPPORTED (KAC_LINK_NCCL that cannot be had), RANK, DEVICE, NOMEM. */
typedef enum kac_link { KAC_LINK_AUTO, KAC_LINK_MPI, KAC_LINK_NCCL } kac_link;
kac_status kac_ranks_connect(kac_ranks *ranks, kac_device *dev, kac_link link);

bool kac_ranks_are_connected(const kac_ranks *ranks); /* by NCCL */

/* Where they are connected, before the device is closed: all members together, unless they have
 * failed. */
void kac_ranks_disconnect(kac_ranks *ranks);

/* "nccl 2.28.9" or "mpi": what carries bytes between the members' devices; "none": nothing has to. */
const char *kac_ranks_link(const kac_ranks *ranks);

/* The sizes[q] bytes of each member q, one after the other, in `all` on every member.  Memory of
 * `dev`.  Errors: RANK, DEVICE. */
kac_status kac_ranks_all_gather(kac_ranks *ranks, kac_device *dev, const void *mine, void *all,
                                const size_t *sizes);

/* The out_sizes[q] bytes for each member q lie one after the other in `out`, and the in_sizes[q]
 * bytes that come from it will in `in`.  Memory of `dev`.  Errors: RANK, DEVICE. */
kac_status kac_ranks_exchange(kac_ranks *ranks, kac_device *dev, const void *out,
                              const size_t *out_sizes, void *in, const size_t *in_sizes);

#endif /* KAC_RANKS_H */
