/* share.cuh -- how groups of particles, and the bytes of rows, are shared out among threads.  A
 * block serves one group; nothing depends on its size. */
#ifndef KAC_SHARE_CUH
#define KAC_SHARE_CUH

#include <math.h>

#include "block.cuh"
#include "exact.h"

enum { KAC_BLOCK_MOST = 512 };

/* A kernel of such blocks. */
#define KAC_BLOCK_KERNEL KAC_KERNEL __launch_bounds__(KAC_BLOCK_MOST)

/* ---- sharing ------------------------------------------------------------------------------ */

/* Threads of a block where n items fall to so many groups: about one an item. */
static inline unsigned kac_block_threads(int64_t n, int64_t groups)
{
    unsigned threads = KAC_WARP;
    while (threads < KAC_BLOCK_MOST && threads * groups < n)
        threads *= 2;
    return threads;
}

/* Teams for each group where they need not wait for each other, so that a single large group
 * fills the device. */
static inline unsigned kac_parts(int64_t n, int64_t groups)
{
    int64_t parts = n / (groups > 0 ? groups : 1) / (4 * KAC_BLOCK_MOST);
    return (unsigned)(parts < 1 ? 1 : parts > 512 ? 512 : parts);
}

/* for (i = the thread's number among the parts of its group; i < n; i += their threads); the
 * group is blockIdx.x / parts. */
#define KAC_EACH_OF(i, n, parts)                                                               \
    for (int64_t i = (int64_t)(blockIdx.x % (parts)) * blockDim.x + threadIdx.x; i < (n);      \
         i += (int64_t)(parts)*blockDim.x)

/* The largest of l[0 .. n-1], -INFINITY where there is none; for all threads of the block. */
static inline __device__ double kac_block_largest(const double *l, int64_t n)
{
    double top = -(double)INFINITY;
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x)
        if (l[i] > top) top = l[i];
    return kac_block_max(top);
}

/* Larger values have larger numbers above 0, and equal ones, as 0 and -0, equal numbers. */
static inline __device__ uint64_t kac_ordered(double value)
{
    uint64_t bits = kac_bits64(value == 0 ? 0 : value);
    return bits >> 63 ? ~bits : bits | UINT64_C(1) << 63;
}

/* The value whose number this is. */
static inline __device__ double kac_of_order(uint64_t number)
{
    return kac_from_bits64(number >> 63 ? number ^ UINT64_C(1) << 63 : ~number);
}

/* ---- rows --------------------------------------------------------------------------------- */

/* Where row number `row` of `stride` bytes begins. */
static inline __device__ size_t kac_row_at(int64_t row, int32_t stride)
{
    return (size_t)row * (size_t)stride;
}

/* Lane `lane` of `lanes` copies its share of a row, 16 bytes a step. */
static inline __device__ void kac_row_copy(uint8_t *to, const uint8_t *from, int32_t stride,
                                           int32_t lane, int32_t lanes)
{
    uint4 *t = reinterpret_cast<uint4 *>(to);
    const uint4 *f = reinterpret_cast<const uint4 *>(from);
    for (int32_t k = lane; k < stride / 16; k += lanes)
        t[k] = f[k];
}

/* Lanes that share an item of so many parts: a power of two, 32 at most. */
static inline int32_t kac_lanes(int32_t width)
{
    int32_t lanes = 1;
    while (lanes < KAC_WARP && lanes < width)
        lanes *= 2;
    return lanes;
}

#endif /* KAC_SHARE_CUH */
