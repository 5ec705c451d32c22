/* conv_cuda.cuh -- what the kernels of convolutions share: exact chains in layer_cuda.cu, tensor
 * cores in tensor_cuda.cu. */
#ifndef KAC_CONV_CUDA_CUH
#define KAC_CONV_CUDA_CUH

#include "layer_cuda.cuh"

/* See kac_cuda_conv_run. */
struct conv_call {
    kac_query q;
    kac_cuda_conv conv;
    kac_cuda_shape shape;
    kac_cuda_ending end;
    const float *in;
    float *out;
    int32_t in_step;
};

/* Queues one whose precision is not exact. */
kac_status kac_cuda_conv_multiply(kac_device *dev, const conv_call *a);

/* Queues an exact one of one tap, with few rows or outputs (dense_cuda.cu). */
kac_status kac_cuda_dense_by_rows(kac_device *dev, const conv_call *a);

/* Whether warpgroups do it (group_conv.cuh), and queues it. */
bool kac_cuda_conv_groups(const conv_call *a);
kac_status kac_cuda_conv_by_groups(kac_device *dev, const conv_call *a);

/* From the position of an output to that of the input which a tap reads. */
static inline __device__ int64_t shift_of(const kac_cuda_shape *s, int32_t tap)
{
    return (int64_t)tap * s->dilation - s->pad;
}

/* The first tap from `tap` on that some output at positions first .. last reads, or the number
 * of taps. */
static inline __device__ int32_t live_tap(const conv_call *a, int32_t tap, int64_t first,
                                          int64_t last)
{
    for (; tap < a->conv.taps; tap++) {
        int64_t shift = shift_of(&a->shape, tap);
        if (last + shift >= 0 && first + shift < a->shape.in_length) break;
    }
    return tap;
}

/* ---- a few floats at once ----------------------------------------------------------------- */

static inline __device__ float4 load4(const float *p)
{
    return *reinterpret_cast<const float4 *>(p);
}

static inline __device__ void store4(float *p, float4 x)
{
    *reinterpret_cast<float4 *>(p) = x;
}

static inline __device__ float4 plus(float4 x, float4 y)
{
    return {x.x + y.x, x.y + y.y, x.z + y.z, x.w + y.w};
}

static inline __device__ float2 plus(float2 x, float2 y)
{
    return {x.x + y.x, x.y + y.y};
}

static inline __device__ float4 relu(float4 x)
{
    return {kac_activate(KAC_ACT_RELU, x.x), kac_activate(KAC_ACT_RELU, x.y),
            kac_activate(KAC_ACT_RELU, x.z), kac_activate(KAC_ACT_RELU, x.w)};
}

static inline __device__ float2 relu(float2 x)
{
    return {kac_activate(KAC_ACT_RELU, x.x), kac_activate(KAC_ACT_RELU, x.y)};
}

static inline __device__ float larger(float most, float x)
{
    return most >= x || most != most ? most : x;
}

/* The larger ones, NaN where one is NaN. */
static inline __device__ float4 larger(float4 most, float4 x)
{
    return {larger(most.x, x.x), larger(most.y, x.y), larger(most.z, x.z), larger(most.w, x.w)};
}

/* Neighbouring outputs of a row, `at` floats into the arrays: float2 or float4. */
template <class V> static __device__ void finish(const conv_call *a, int64_t at, V x)
{
    const kac_cuda_ending *end = &a->end;
    if (end->before != NULL) *reinterpret_cast<V *>(end->before + at) = x;
    if (end->plus != NULL) x = plus(x, *reinterpret_cast<const V *>(end->plus + at));
    if (end->act == KAC_ACT_RELU) x = relu(x);
    if (end->kept != NULL) *reinterpret_cast<V *>(end->kept + at) = x;
    if (end->add != NULL) x = plus(*reinterpret_cast<const V *>(end->add + at), x);
    *reinterpret_cast<V *>(a->out + at) = x;
}

#endif /* KAC_CONV_CUDA_CUH */
