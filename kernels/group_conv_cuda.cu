/* group_conv_cuda.cu -- convolutions by warpgroups, a layer at a time; see group_conv.cuh. */
#include "group_conv.cuh"

#include <stdlib.h>

#include "conv_cuda.cuh"

/* ---- pack --------------------------------------------------------------------------------- */

/* To nearest, ties to even. */
static uint16_t bf16_of(float x)
{
    uint32_t bits = 0;
    if (isnan(x)) return 0x7fff;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* In the order of kac_group_mma's lanes. */
static void regroup(const kac_tile_weights *w, uint16_t *out)
{
    const int64_t tiles = w->in / 16;
    for (int64_t k = 0; k < w->taps; k++)
        for (int64_t c = 0; c < w->in; c++)
            for (int64_t o = 0; o < w->out; o++) {
                const int64_t lane = o % 8 * 4 + c % 8 / 2, word = c % 16 / 8 * 2 + o % 16 / 8;
                const int64_t tile = (k * tiles + c / 16) * tiles + o / 16;
                out[((tile * KAC_WARP + lane) * 4 + word) * 2 + c % 2] =
                    bf16_of(w->weight[o * w->out_step + k * w->tap_step + c * w->in_step]);
            }
}

static bool device_allows(const kac_device *dev)
{
    cudaDeviceProp prop;
    if (cudaGetDeviceProperties(&prop, dev->ordinal) != cudaSuccess) return false;
    return prop.major == 9 && prop.minor == 0;
}

kac_status kac_cuda_conv_group(kac_device *dev, const kac_tile_weights *w, kac_cuda_conv *conv)
{
    const size_t bytes = (size_t)w->taps * (size_t)w->in * (size_t)w->out * sizeof(uint16_t);
    if (dev->precision != KAC_PRECISION_BF16 || !device_allows(dev)) return KAC_OK;
    if (w->in != w->out || (w->in != 64 && w->in != 128) || conv->bias == NULL) return KAC_OK;
    uint16_t *grouped = (uint16_t *)malloc(bytes);
    if (grouped == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "no memory to pack a layer");
    regroup(w, grouped);
    kac_status status = KAC_ERR_NOMEM;
    conv->grouped = (uint16_t *)dev->ops->memory.alloc(dev, bytes);
    if (conv->grouped != NULL)
        status = dev->ops->memory.upload(dev, conv->grouped, grouped, bytes);
    free(grouped);
    return status;
}

/* ---- run ---------------------------------------------------------------------------------- */

int32_t kac_cuda_group_sequences(const kac_device *dev, int32_t channels, int32_t length,
                                 int32_t capacity)
{
    const int32_t most = GROUP_ROWS / length;
    int processors = 1;
    (void)cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, dev->ordinal);
    const int32_t blocks = processors * (channels == 128 ? 1 : 2);
    const int32_t even = (capacity + blocks - 1) / blocks;
    return even < 1 ? 1 : even < most ? even : most;
}

struct rows_call {
    conv_call of;
    kac_cuda_pool pool; /* behind it; of size 0: none */
    int32_t sequences;  /* of a block */
};

/* What a block of rows leaves in feat goes to memory, through the layer's ending. */
template <int C>
static __device__ void give_rows(const rows_call *a, const float *feat, int first, int batch)
{
    const int each = a->sequences, rows = each * a->of.shape.out_length;
    for (int i = (int)threadIdx.x; i < rows * (C / 4); i += GROUP_THREADS) {
        const int row = i / (C / 4), c = i % (C / 4) * 4, b = first + row % each;
        if (b < batch)
            finish(&a->of, ((int64_t)(row / each) * batch + b) * C + c,
                   load4(feat + row * group_memory<C>::PITCH + c));
    }
}

/* The same, of each few positions the largest. */
template <int C>
static __device__ void give_largest(const rows_call *a, const float *feat, int first, int batch)
{
    const int each = a->sequences, size = a->pool.size, length = a->of.shape.out_length / size;
    const bool gate = a->of.end.act == KAC_ACT_RELU;
    for (int i = (int)threadIdx.x; i < length * each * (C / 4); i += GROUP_THREADS) {
        const int c = i % (C / 4) * 4, l = i / (C / 4) / each, s = i / (C / 4) % each;
        const int64_t b = first + s;
        const float *x = feat + (l * size * each + s) * group_memory<C>::PITCH + c;
        if (b >= batch) continue;
        float4 most = gate ? relu(load4(x)) : load4(x);
        for (int t = 1; t < size; t++) {
            x += each * group_memory<C>::PITCH;
            most = larger(most, gate ? relu(load4(x)) : load4(x));
        }
        store4(a->of.out + (a->pool.flat ? b * length + l : (int64_t)l * batch + b) * C + c,
               most);
    }
}

/* A block of rows comes and goes as float32. */
template <int C>
KAC_KERNEL __launch_bounds__(GROUP_THREADS, GROUP_BLOCKS<C>) convolve_rows(KAC_ARGS rows_call a)
{
    KAC_DYNAMIC_SHARED(group_memory<C>, m);
    const kac_cuda_shape *shape = &a.of.shape;
    const int32_t batch = kac_query_rows(&a.of.q), each = a.sequences;
    const int first = (int)blockIdx.x * each, rows = each * shape->out_length;
    if (first >= batch) return;

    const group_layer layer = {a.of.conv.grouped,  a.of.conv.bias,
                               a.of.conv.taps,     rows,
                               -shape->pad * each, (int64_t)shape->dilation * each};
    group_part<C> part = group_open<C>(&layer);
    group_clear<C>(m);
    __syncthreads();
    for (int i = (int)threadIdx.x; i < rows * (C / 8); i += GROUP_THREADS) {
        const int row = i / (C / 8), c = i % (C / 8) * 8, b = first + row % each;
        /* of sequences that are not there: the last one */
        const int64_t at = (int64_t)(row / each) * batch + (b < batch ? b : batch - 1);
        const float *x = a.of.in + at * C + c;
        const float4 p = load4(x), q = load4(x + 4);
        *reinterpret_cast<uint4 *>(group_at(m, row, c)) = {
            kac_bf16_pair(p.x, p.y), kac_bf16_pair(p.z, p.w), kac_bf16_pair(q.x, q.y),
            kac_bf16_pair(q.z, q.w)};
    }
    kac_shared_publish();
    __syncthreads();
    float *feat = m->feat;
    group_convolve<C>(&layer, m, &part, [=](int row, int channel, float x) {
        feat[row * group_memory<C>::PITCH + channel] = x;
    });
    __syncthreads();
    if (a.pool.size > 0)
        give_largest<C>(&a, feat, first, batch);
    else
        give_rows<C>(&a, feat, first, batch);
}

bool kac_cuda_conv_groups(const conv_call *a)
{
    const int64_t same = (int64_t)(a->conv.taps / 2) * a->shape.dilation;
    return a->conv.precision == KAC_PRECISION_BF16 && a->conv.grouped != NULL &&
           a->shape.in_length == a->shape.out_length && a->shape.out_length <= GROUP_ROWS &&
           a->conv.taps % 2 == 1 && a->shape.pad == same;
}

template <int C> static kac_status launch(kac_device *dev, const rows_call *a)
{
    auto *kernel = convolve_rows<C>;
    const int32_t blocks = (a->of.q.capacity + a->sequences - 1) / a->sequences;
    KAC_TRY(kac_allow_shared(kernel, sizeof(group_memory<C>)));
    return KAC_LAUNCH(dev, kernel, (unsigned)blocks, GROUP_THREADS, sizeof(group_memory<C>),
                      *a);
}

static kac_status by_groups(kac_device *dev, const conv_call *a, const kac_cuda_pool *pool)
{
    if (a->q.capacity < 1) return KAC_OK;
    const int32_t each =
        kac_cuda_group_sequences(dev, a->conv.in, a->shape.out_length, a->q.capacity);
    const rows_call call = {*a, *pool, each};
    return a->conv.in == 64 ? launch<64>(dev, &call) : launch<128>(dev, &call);
}

kac_status kac_cuda_conv_by_groups(kac_device *dev, const conv_call *a)
{
    const kac_cuda_pool none = {0, false};
    return by_groups(dev, a, &none);
}

bool kac_cuda_conv_pools(const kac_cuda_conv *conv, const kac_cuda_shape *shape,
                         kac_activation act)
{
    const conv_call a = {{}, *conv, *shape};
    return (act == KAC_ACT_LINEAR || act == KAC_ACT_RELU) && kac_cuda_conv_groups(&a);
}

kac_status kac_cuda_conv_pooled(kac_device *dev, const kac_query *q, const kac_cuda_conv *conv,
                                const kac_cuda_shape *shape, kac_activation act,
                                const kac_cuda_pool *pool, const float *in, float *out)
{
    const conv_call a = {*q, *conv, *shape, {NULL, NULL, act, NULL, NULL}, in, out, conv->in};
    return by_groups(dev, &a, pool);
}
