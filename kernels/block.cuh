/* block.cuh -- what all threads of a block find out together.  Every thread calls, and gets the
 * result; the block has whole warps.  Sums are of integers, so no order shows in them. */
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

/* Sum of what the warps before this one bring, the same in all lanes of each; *total = of all. */
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

/* Sum of the values of the threads up to this one; *total = of all. */
template <class T> static inline __device__ T kac_block_scan(T value, T *total)
{
    T upto = kac_warp_scan(value);
    return upto + kac_warps_before(__shfl_sync(KAC_WHOLE_WARP, upto, KAC_WARP - 1), total);
}

template <class T> static inline __device__ T kac_block_sum(T value)
{
    T total;
    (void)kac_block_scan(value, &total);
    return total;
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

/* Running sums over items first .. end - 1: store(i, carry + the sum of load(first .. i),
 * load(i)).  Returns the last of them, or the carry where there is no item.  A store may
 * overwrite what its own load read.  Lanes have neighbouring items, and a warp several rows of
 * them. */
template <class T, class Load, class Store>
static inline __device__ T kac_block_run(int32_t first, int32_t end, T carry, Load load,
                                         Store store)
{
    constexpr int ROWS = 4;
    const int lane = (int)(threadIdx.x % KAC_WARP), warp = (int)(threadIdx.x / KAC_WARP);
    for (int64_t chunk = first; chunk < end; chunk += (int64_t)blockDim.x * ROWS) {
        const int64_t i = chunk + warp * ROWS * KAC_WARP + lane;
        T own[ROWS], upto[ROWS], all = 0, total;
        KAC_UNROLL
        for (int k = 0; k < ROWS; k++)
            own[k] = i + k * KAC_WARP < end ? load((int32_t)(i + k * KAC_WARP)) : 0;
        KAC_UNROLL
        for (int k = 0; k < ROWS; k++) {
            upto[k] = all + kac_warp_scan(own[k]);
            all = __shfl_sync(KAC_WHOLE_WARP, upto[k], KAC_WARP - 1);
        }
        const T before = carry + kac_warps_before(all, &total);
        KAC_UNROLL
        for (int k = 0; k < ROWS; k++)
            if (i + k * KAC_WARP < end)
                store((int32_t)(i + k * KAC_WARP), before + upto[k], own[k]);
        carry += total;
    }
    return carry;
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
