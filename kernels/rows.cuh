/* rows.cuh -- what a warp reads of rows of bytes: their hashes, and whether they are equal. */
#ifndef KAC_ROWS_CUH
#define KAC_ROWS_CUH

#include "primitives.cuh"
#include "states.h"

/* Rows begin at, and have, multiples of 8 bytes. */
static inline __device__ const uint64_t *kac_row_words(const uint8_t *rows, int32_t i,
                                                       int32_t stride)
{
    return reinterpret_cast<const uint64_t *>(rows + (size_t)i * (size_t)stride);
}

/* The hash of a row (states.h), by a warp: its lanes read words ahead of the first one, which
 * takes them in order. */
static inline __device__ uint64_t kac_row_hash(const uint64_t *row, int32_t stride)
{
    KAC_SHARED(uint64_t, ahead, KAC_THREADS);
    const int32_t words = stride / 8, lane = (int32_t)threadIdx.x % KAC_WARP;
    uint64_t *own = ahead + (threadIdx.x - lane), h = KAC_HASH_START;
    for (int32_t w = 0; w < words; w += KAC_WARP) {
        if (w + lane < words) own[lane] = row[w + lane];
        __syncwarp();
        for (int32_t k = 0; lane == 0 && k < KAC_WARP && w + k < words; k++)
            h = kac_hash_add(h, own[k]);
        __syncwarp();
    }
    return __shfl_sync(KAC_WHOLE_WARP, kac_hash_end(h), 0);
}

/* By a warp. */
static inline __device__ bool kac_rows_equal(const uint64_t *one, const uint64_t *two,
                                             int32_t stride)
{
    for (int32_t w = 0; w < stride / 8; w += KAC_WARP) {
        const int32_t k = w + (int32_t)threadIdx.x % KAC_WARP;
        if (!__all_sync(KAC_WHOLE_WARP, k >= stride / 8 || one[k] == two[k])) return false;
    }
    return true;
}

/* What is there now, or was a moment ago: others may be writing it. */
static inline __device__ int32_t kac_peek(const int32_t *x)
{
    return *const_cast<const volatile int32_t *>(x);
}

#endif /* KAC_ROWS_CUH */
