/* block.cuh -- what all threads of a block find out together.  Every thread calls, and gets the
 * result; the block has whole warps.  Sums are of integers, so no order shows in them. */
#ifndef KAC_BLOCK_CUH
#define KAC_BLOCK_CUH

#include "primitives.cuh"

/* Sum of the values of the threads up to this one; *total = of all. */
template <class T> static inline __device__ T kac_block_scan(T value, T *total)
{
    KAC_SHARED(T, sums, KAC_WARP);
    const int lane = (int)(threadIdx.x % KAC_WARP), warp = (int)(threadIdx.x / KAC_WARP);
    T upto = value, before = 0, all = 0;
    for (int by = 1; by < KAC_WARP; by *= 2) {
        T other = __shfl_up_sync(KAC_WHOLE_WARP, upto, by);
        if (lane >= by) upto += other;
    }
    __syncthreads(); /* an earlier call's sums are no longer read */
    if (lane == KAC_WARP - 1) sums[warp] = upto;
    __syncthreads();
    for (int w = 0; w < (int)(blockDim.x / KAC_WARP); w++) {
        if (w < warp) before += sums[w];
        all += sums[w];
    }
    *total = all;
    return before + upto;
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
 * overwrite what its own load read. */
template <class T, class Load, class Store>
static inline __device__ T kac_block_run(int32_t first, int32_t end, T carry, Load load,
                                         Store store)
{
    enum { EACH = 4 }; /* consecutive items of a thread */
    for (int64_t chunk = first; chunk < end; chunk += (int64_t)blockDim.x * EACH) {
        int64_t i = chunk + (int64_t)threadIdx.x * EACH;
        T own[EACH], total, upto = 0;
        for (int k = 0; k < EACH; k++) {
            own[k] = i + k < end ? load((int32_t)(i + k)) : 0;
            upto += own[k];
        }
        T sum = carry + kac_block_scan(upto, &total) - upto;
        for (int k = 0; k < EACH && i + k < end; k++) {
            sum += own[k];
            store((int32_t)(i + k), sum, own[k]);
        }
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
