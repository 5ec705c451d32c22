/* team.h -- the threads that answer one row together: one on the CPU, up to a warp on a GPU.
 *
 * They share out the parts of a row that do not depend on each other, with KAC_PARTS, and meet
 * where one reads what another has written.  What must be summed in order each sums for itself,
 * so the result does not depend on how many they are.
 */
#ifndef KAC_TEAM_H
#define KAC_TEAM_H

#include "hd.h"
#include "types.h"

#ifdef __cplusplus
#include "primitives.cuh"
#endif
#if defined(__CUDA_ARCH__) || defined(KAC_EMU_H)
#define KAC_IN_WARP 1
#else
#define KAC_IN_WARP 0
#endif

typedef struct kac_team {
    int32_t rank, size; /* of this thread, of the team: 1, 4, 8, 16 or 32 */
    uint32_t mask;      /* its lanes */
} kac_team;

KAC_HD static inline kac_team kac_alone(void)
{
    kac_team t = {0, 1, 1};
    return t;
}

/* for (i of 0 .. n - 1 that are this thread's) */
#define KAC_PARTS(i, t, n) for (int64_t i = (t).rank; i < (n); i += (t).size)

/* All have come here, and see what the others wrote. */
KAC_HD static inline void kac_meet(kac_team t)
{
    (void)t;
#if KAC_IN_WARP
    if (t.size > 1) __syncwarp(t.mask);
#endif
}

/* The sum and the largest of what the threads bring. */
KAC_HD static inline int32_t kac_team_sum(kac_team t, int32_t x)
{
    (void)t;
#if KAC_IN_WARP
    for (int32_t by = t.size / 2; by > 0; by /= 2)
        x += __shfl_xor_sync(t.mask, x, by);
#endif
    return x;
}

KAC_HD static inline int32_t kac_team_max(kac_team t, int32_t x)
{
    (void)t;
#if KAC_IN_WARP
    for (int32_t by = t.size / 2; by > 0; by /= 2) {
        int32_t other = __shfl_xor_sync(t.mask, x, by);
        if (other > x) x = other;
    }
#endif
    return x;
}

#endif /* KAC_TEAM_H */
