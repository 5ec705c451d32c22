/* ranks.h -- the processes that share a run: what the engine asks of them beside kac.h.
 *
 * `ranks` NULL is this process alone, everywhere.  All ranks make the same calls in the same order.
 * What may fail on one rank alone is followed by kac_ranks_agree before the next call that moves
 * data, so that nobody waits for a rank that has given up.  Once ranks have agreed on a failure,
 * every call returns it at once.
 */
#ifndef KAC_RANKS_H
#define KAC_RANKS_H

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

#endif /* KAC_RANKS_H */
