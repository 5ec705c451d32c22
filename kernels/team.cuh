/* team.cuh -- what the threads of one block find out together, and how groups share a device.
 *
 * A team is a block of whole warps that serves one group.  Sums are of integers and maxima of
 * anything, so neither depends on the size of the team.
 */
#ifndef KAC_TEAM_CUH
#define KAC_TEAM_CUH

#include <math.h>

#include "primitives.cuh"

enum { KAC_TEAM = 512, KAC_TEAM_WARPS = KAC_TEAM / KAC_WARP };

/* A kernel whose blocks are teams. */
#define KAC_TEAM_KERNEL KAC_KERNEL __launch_bounds__(KAC_TEAM)

/* ---- sharing ------------------------------------------------------------------------------ */

/* Threads of a team where n items fall to so many groups: about one an item. */
static inline unsigned kac_team(int64_t n, int64_t groups)
{
    unsigned threads = KAC_WARP;
    while (threads < KAC_TEAM && threads * groups < n)
        threads *= 2;
    return threads;
}

/* Teams for each group where they need not wait for each other, so that a single large group
 * fills the device. */
static inline unsigned kac_parts(int64_t n, int64_t groups)
{
    int64_t parts = n / (groups > 0 ? groups : 1) / (4 * KAC_TEAM);
    return (unsigned)(parts < 1 ? 1 : parts > 512 ? 512 : parts);
}

/* for (i = the thread's number among the parts of its group; i < n; i += their threads); the
 * group is blockIdx.x / parts. */
#define KAC_EACH_OF(i, n, parts)                                                               \
    for (int64_t i = (int64_t)(blockIdx.x % (parts)) * blockDim.x + threadIdx.x; i < (n);      \
         i += (int64_t)(parts)*blockDim.x)

/* ---- sums and maxima ---------------------------------------------------------------------- */

/* Sum over the threads of the block, for all of them. */
static inline __device__ uint64_t kac_team_sum(uint64_t v)
{
    KAC_SHARED(uint64_t, part, KAC_TEAM_WARPS);
    for (int by = KAC_WARP / 2; by > 0; by /= 2)
        v += __shfl_xor_sync(KAC_WHOLE_WARP, v, by);
    __syncthreads(); /* the sum before has been read */
    if (threadIdx.x % KAC_WARP == 0) part[threadIdx.x / KAC_WARP] = v;
    __syncthreads();
    uint64_t sum = 0;
    for (unsigned w = 0; w < blockDim.x / KAC_WARP; w++)
        sum += part[w];
    return sum;
}

/* The largest, for all threads of the block; NaN is never the largest. */
static inline __device__ double kac_team_max(double v)
{
    KAC_SHARED(double, part, KAC_TEAM_WARPS);
    for (int by = KAC_WARP / 2; by > 0; by /= 2) {
        double other = __shfl_xor_sync(KAC_WHOLE_WARP, v, by);
        if (other > v) v = other;
    }
    __syncthreads();
    if (threadIdx.x % KAC_WARP == 0) part[threadIdx.x / KAC_WARP] = v;
    __syncthreads();
    double top = -(double)INFINITY;
    for (unsigned w = 0; w < blockDim.x / KAC_WARP; w++)
        if (part[w] > top) top = part[w];
    return top;
}

/* Sum over the threads up to and with this one; *total over all of them. */
static inline __device__ uint64_t kac_team_scan(uint64_t v, uint64_t *total)
{
    KAC_SHARED(uint64_t, part, KAC_TEAM_WARPS);
    unsigned lane = threadIdx.x % KAC_WARP, warp = threadIdx.x / KAC_WARP;
    for (unsigned by = 1; by < KAC_WARP; by *= 2) {
        uint64_t before = __shfl_up_sync(KAC_WHOLE_WARP, v, by);
        if (lane >= by) v += before;
    }
    __syncthreads();
    if (lane == KAC_WARP - 1) part[warp] = v;
    __syncthreads();
    *total = 0;
    for (unsigned w = 0; w < blockDim.x / KAC_WARP; w++) {
        if (w == warp) v += *total;
        *total += part[w];
    }
    return v;
}

/* The largest of l[0 .. n-1], -INFINITY where there is none; for all threads of the block. */
static inline __device__ double kac_team_largest(const double *l, int64_t n)
{
    double top = -(double)INFINITY;
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x)
        if (l[i] > top) top = l[i];
    return kac_team_max(top);
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

#endif /* KAC_TEAM_CUH */
