/* nccl.h -- bytes from GPU to GPU between the ranks of a team, by NCCL.
 *
 * NCCL is a library of the machine, opened when it is wanted: libnccl.so.2 where the loader finds it,
 * or the file that KAC_NCCL names.
 */
#ifndef KAC_NCCL_H
#define KAC_NCCL_H

#include "ranks.h"

typedef struct kac_nccl kac_nccl;

/* "2.28.9": the version that is here, at most size - 1 letters.
 * Errors: UNSUPPORTED (there is none, or it is too old). */
kac_status kac_nccl_version(char *text, size_t size);

/* Connects `dev` of this rank with those of the others of its team; all of them call it.
 * Errors: UNSUPPORTED, the same on all of them, which may then go on without (one of them has no GPU,
 * no NCCL or another version, or two share a GPU); RANK, DEVICE, NOMEM. */
kac_status kac_nccl_open(kac_ranks *ranks, kac_device *dev, kac_nccl **out);

/* All members together, before the device is closed; after a failure, each when it likes.  Accepts
 * NULL. */
void kac_nccl_close(kac_nccl *n);

bool kac_nccl_serves(const kac_nccl *n, const kac_device *dev); /* accepts NULL */

/* As kac_ranks_all_gather and kac_ranks_exchange on the memory and the stream of the device.  They
 * return when the bytes are there.  Where one member fails, the others hear of it and fail too
 * (RANK).  Errors: RANK, DEVICE, NOMEM. */
kac_status kac_nccl_all_gather(kac_nccl *n, const void *mine, void *all, const size_t *sizes);
kac_status kac_nccl_exchange(kac_nccl *n, const void *out, const size_t *out_sizes, void *in,
                             const size_t *in_sizes);

#endif /* KAC_NCCL_H */
