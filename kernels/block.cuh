/* block.cuh -- what all threads of a block find out together.  Every thread calls, and gets the
 * result; the block has whole warps.  Sums are of integers, or of doubles that add up exactly,
 * so no order shows in them. */
#ifndef KAC_BLOCK_CUH
#define KAC_BLOCK_CUH

#include "primitives.cuh"

/* Sum of the values of the lanes up to this one. */
template <class T> static inline __device__ T kac_warp_scan(T value)
{
    const int lane = (int)(threadIdx.x % KAC_WARP);
    for (int by = 1; by < KAC_WARP; by *= 2) {
        T other = __shfl_up_sync(KAC_WHOLE_WARP, value, by);
        if (lane >= by) value += other;
    }
    return value;
}

#ifdef __CUDACC__
/* The same in three instructions a step: the shuffle says whether there is such a lane. */
static inline __device__ double kac_warp_scan(double value)
{
    KAC_UNROLL
    for (int by = 1; by < KAC_WARP; by *= 2)
        asm volatile("{ .reg .pred p; .reg .b32 lo, hi; .reg .f64 other;\n\t"
                     "mov.b64 {lo, hi}, %0;\n\t"
                     "shfl.sync.up.b32 lo|p, lo, %1, 0, 0xffffffff;\n\t"
                     "shfl.sync.up.b32 hi|p, hi, %1, 0, 0xffffffff;\n\t"
                     "mov.b64 other, {lo, hi};\n\t"
                     "@p add.f64 %0, %0, other; }"
                     : "+d"(value)
                     : "r"(by));
    return value;
}
#endif

/* Sum of what the warps before this one bring, the same in all lanes of each; *total = of
 * all. */
template <class T> static inline __device__ T kac_warps_before(T value, T *total)
{
    KAC_SHARED(T, sums, KAC_WARP);
    const int warp = (int)(threadIdx.x / KAC_WARP);
    T before = 0, all = 0;
    __syncthreads(); /* an earlier call's sums are no longer read */
    if (threadIdx.x % KAC_WARP == 0) sums[warp] = value;
    __syncthreads();
    for (int w = 0; w < (int)(blockDim.x / KAC_WARP); w++) {
        if (w < warp) before += sums[w];
        all += sums[w];
    }
    *total = all;
    return before;
}

/* x[0 .. N-1] = the sums of the threads' values. */
template <int N, class T> static inline __device__ void kac_block_sums(T *x)
{
    KAC_SHARED(T, sums, KAC_WARP * N);
    KAC_UNROLL
    for (int by = KAC_WARP / 2; by > 0; by /= 2) {
        KAC_UNROLL
        for (int k = 0; k < N; k++)
            x[k] += __shfl_xor_sync(KAC_WHOLE_WARP, x[k], by);
    }
    __syncthreads(); /* an earlier call's sums are no longer read */
    KAC_UNROLL
    for (int k = 0; k < N; k++) {
        if (threadIdx.x % KAC_WARP == 0) sums[threadIdx.x / KAC_WARP * N + k] = x[k];
        x[k] = 0;
    }
    __syncthreads();
    for (int w = 0; w < (int)(blockDim.x / KAC_WARP); w++) {
        KAC_UNROLL
        for (int k = 0; k < N; k++)
            x[k] += sums[w * N + k];
    }
}

template <class T> static inline __device__ T kac_block_sum(T value)
{
    kac_block_sums<1>(&value);
    return value;
}

template <class T> static inline __device__ T kac_warp_max(T value)
{
    for (int by = KAC_WARP / 2; by > 0; by /= 2) {
        T other = __shfl_xor_sync(KAC_WHOLE_WARP, value, by);
        if (other > value) value = other;
    }
    return value;
}

template <class T> static inline __device__ T kac_block_max(T value)
{
    KAC_SHARED(T, tops, KAC_WARP);
    T top = kac_warp_max(value);
    __syncthreads();
    if (threadIdx.x % KAC_WARP == 0) tops[threadIdx.x / KAC_WARP] = top;
    __syncthreads();
    for (int w = 0; w < (int)(blockDim.x / KAC_WARP); w++)
        if (tops[w] > top) top = tops[w];
    return top;
}

/* Running sums over items first .. end - 1, a few rows of 32 at a time: give(i, upto, own),
 * called by whole warps, has for items i + 32 k, k < KAC_ROWS, of the lane own[k] = load(its
 * number), or 0 where there is no item, and upto[k] = carry + the sum of all up to it.  Returns
 * the last of them, or the carry where there is no item.  What is given may overwrite what its
 * own load read. */
enum { KAC_ROWS = 4 };
template <class T, class Load, class Give>
static inline __device__ T kac_block_sweep(int32_t first, int32_t end, T carry, Load load,
                                           Give give)
{
    const int lane = (int)(threadIdx.x % KAC_WARP), warp = (int)(threadIdx.x / KAC_WARP);
    for (int64_t chunk = first; chunk < end; chunk += (int64_t)blockDim.x * KAC_ROWS) {
        const int64_t i = chunk + warp * KAC_ROWS * KAC_WARP + lane;
        T own[KAC_ROWS], upto[KAC_ROWS], all = 0, total;
        if (end - chunk >= (int64_t)blockDim.x * KAC_ROWS) { /* all at once */
            KAC_UNROLL
            for (int k = 0; k < KAC_ROWS; k++)
                own[k] = load((int32_t)(i + k * KAC_WARP));
        } else {
            KAC_UNROLL
            for (int k = 0; k < KAC_ROWS; k++)
                own[k] = i + k * KAC_WARP < end ? load((int32_t)(i + k * KAC_WARP)) : 0;
        }
        KAC_UNROLL
        for (int k = 0; k < KAC_ROWS; k++) {
            upto[k] = all + kac_warp_scan(own[k]);
            all = __shfl_sync(KAC_WHOLE_WARP, upto[k], KAC_WARP - 1);
        }
        const T before = carry + kac_warps_before(all, &total);
        KAC_UNROLL
        for (int k = 0; k < KAC_ROWS; k++)
            upto[k] += before;
        give(i, upto, own);
        carry += total;
    }
    return carry;
}

/* The same item by item: store(i, upto, own). */
template <class T, class Load, class Store>
static inline __device__ T kac_block_run(int32_t first, int32_t end, T carry, Load load,
                                         Store store)
{
    return kac_block_sweep(first, end, carry, load,
                           [&](int64_t i, const T *upto, const T *own) {
                               KAC_UNROLL
                               for (int k = 0; k < KAC_ROWS; k++)
                                   if (i + k * KAC_WARP < end)
                                       store((int32_t)(i + k * KAC_WARP), upto[k], own[k]);
                           });
}

/* Sum of x[0 .. n-1]. */
template <class T> static inline __device__ T kac_block_total(const T *x, int32_t n)
{
    T own = 0;
    for (int32_t i = (int32_t)threadIdx.x; i < n; i += (int32_t)blockDim.x)
        own += x[i];
    return kac_block_sum(own);
}

#endif /* KAC_BLOCK_CUH */
