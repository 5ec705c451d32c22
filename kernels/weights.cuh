/* weights.cuh -- integer weights (kac_weight) in few instructions: adding to a sum in doubles
 * cuts them off to integers. */
#ifndef KAC_WEIGHTS_CUH
#define KAC_WEIGHTS_CUH

#include "particles.h"
#include "primitives.cuh"

/* Log-weights become e^(l - top), none above top; all 0 where top is -INFINITY. */
template <int N> static __device__ inline void kac_raw_weights(double *x, double top)
{
    if (top == (double)INFINITY) { /* then nothing finite has weight */
        KAC_UNROLL
        for (int k = 0; k < N; k++)
            x[k] = x[k] == top ? 0 : -top;
        top = 0;
    }
    top += 0.0; /* nor is it -0, which less 0 would be -0 */
    KAC_UNROLL
    for (int k = 0; k < N; k++) {
        uint64_t gap = kac_bits64(top - x[k]); /* from 0 on, or NaN */
        if ((uint32_t)(gap >> 32) >= 0x403b0000)
            gap = UINT64_C(0x404e0000) << 32 | (uint32_t)gap;
        x[k] = kac_exp_near(-kac_from_bits64(gap)); /* from 27 on what is about 60 gives: 0 */
    }
}

/* From here to twice as much doubles have steps of 1 / KAC_WEIGHT_ONE, and of 2^-24. */
#define KAC_SUM_FROM    0x1p14
#define KAC_COARSE_FROM 0x1p28

/* sum + the integer weight, in units of KAC_WEIGHT_ONE. */
static __device__ inline double kac_add_raw(double sum, double raw)
{
    return __dadd_rz(sum, raw);
}

static __device__ inline uint64_t kac_sum_of(double sum)
{
    return kac_bits64(sum) & ((UINT64_C(1) << 52) - 1);
}

static __device__ inline uint64_t kac_weight_of_raw(double raw)
{
    return kac_sum_of(kac_add_raw(KAC_SUM_FROM, raw));
}

/* The weight shortened to 24 bits, as in kac_weight_sums. */
static __device__ inline uint32_t kac_coarse_of_raw(double raw)
{
    return (uint32_t)kac_bits64(__dadd_rz(KAC_COARSE_FROM, raw));
}

#endif /* KAC_WEIGHTS_CUH */
