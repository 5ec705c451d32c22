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

struct rows_call {
    conv_call of;
    kac_cuda_pool pool; /* behind it; of size 0: none */
    int32_t sequences;  /* of a block */
    group_layer layer;
};

template <int C, int ROWS> struct rows_memory : group_input<C, ROWS> {
    float rows[ROWS * group_shape<C, ROWS>::PITCH];
};

/* What a block has in rows goes to memory, through the layer's ending. */
template <int C, int ROWS>
static __device__ void give_rows(const rows_call *a, const rows_memory<C, ROWS> *m, int first,
                                 int batch)
{
    const int each = a->sequences, rows = each * a->of.shape.out_length;
    for (int i = (int)threadIdx.x; i < rows * (C / 4); i += m->THREADS) {
        const int row = i / (C / 4), c = i % (C / 4) * 4, b = first + row % each;
        if (b < batch)
            finish(&a->of, ((int64_t)(row / each) * batch + b) * C + c,
                   load4(m->rows + row * m->PITCH + c));
    }
}

/* The same, of each few positions the largest. */
template <int C, int ROWS>
static __device__ void give_largest(const rows_call *a, const rows_memory<C, ROWS> *m,
                                    int first, int batch)
{
    const int each = a->sequences, size = a->pool.size, length = a->of.shape.out_length / size;
    const bool gate = a->of.end.act == KAC_ACT_RELU;
    for (int i = (int)threadIdx.x; i < length * each * (C / 4); i += m->THREADS) {
        const int c = i % (C / 4) * 4, l = i / (C / 4) / each, s = i / (C / 4) % each;
        const int64_t b = first + s;
        const float *x = m->rows + (l * size * each + s) * m->PITCH + c;
        if (b >= batch) continue;
        float4 most = gate ? relu(load4(x)) : load4(x);
        for (int t = 1; t < size; t++) {
            x += each * m->PITCH;
            most = larger(most, gate ? relu(load4(x)) : load4(x));
        }
        store4(a->of.out + (a->pool.flat ? b * length + l : (int64_t)l * batch + b) * C + c,
               most);
    }
}

/* A block of rows comes and goes as float32. */
template <int C, int ROWS>
KAC_KERNEL __launch_bounds__(group_shape<C, ROWS>::THREADS, group_shape<C, ROWS>::BLOCKS)
    convolve_rows(KAC_ARGS rows_call a)
{
    using memory = rows_memory<C, ROWS>;
    KAC_DYNAMIC_SHARED(memory, m);
    const kac_cuda_shape *shape = &a.of.shape;
    const int32_t batch = kac_query_rows(&a.of.q), each = a.sequences;
    const int first = (int)blockIdx.x * each, rows = each * shape->out_length;
    if (first >= batch) return;

    group_part<C, ROWS> part = group_open<C, ROWS>(&a.layer);
    part.fetch_bias(&a.layer);
    m->clear();
    __syncthreads();
    for (int i = (int)threadIdx.x; i < rows * (C / 8); i += m->THREADS) {
        const int row = i / (C / 8), c = i % (C / 8) * 8, b = first + row % each;
        /* of sequences that are not there: the last one */
        const int64_t at = (int64_t)(row / each) * batch + (b < batch ? b : batch - 1);
        const float *x = a.of.in + at * C + c;
        const float4 p = load4(x), q = load4(x + 4);
        *reinterpret_cast<uint4 *>(m->at(row, c)) = {
            kac_bf16_pair(p.x, p.y), kac_bf16_pair(p.z, p.w), kac_bf16_pair(q.x, q.y),
            kac_bf16_pair(q.z, q.w)};
    }
    kac_shared_publish();
    __syncthreads();
    float sum[memory::SUMS];
    group_accumulate<C, ROWS>(&a.layer, &a.layer, m, &part, sum);
    group_each<C, ROWS>(&part, sum, [=](int row, int channel, float x) {
        m->rows[row * m->PITCH + channel] = x;
    });
    __syncthreads();
    if (a.pool.size > 0)
        give_largest<C, ROWS>(&a, m, first, batch);
    else
        give_rows<C, ROWS>(&a, m, first, batch);
}

bool kac_cuda_conv_groups(const conv_call *a)
{
    const int64_t same = (int64_t)(a->conv.taps / 2) * a->shape.dilation;
    return a->conv.precision == KAC_PRECISION_BF16 && a->conv.grouped != NULL &&
           a->shape.in_length == a->shape.out_length &&
           a->shape.out_length <= GROUP_MOST_ROWS && a->conv.taps % 2 == 1 &&
           a->shape.pad == same;
}

template <int C, int ROWS>
static kac_status launch(kac_device *dev, const conv_call *a, const kac_cuda_pool *pool)
{
    using memory = rows_memory<C, ROWS>;
    const int32_t length = a->shape.out_length,
                  each = group_sequences<C, ROWS>(dev, length, a->q.capacity);
    const rows_call call = {*a, *pool, each,
                            group_layer_of(a->conv.grouped, a->conv.bias, C, each * length,
                                           a->conv.taps, -a->shape.pad * each,
                                           (int64_t)a->shape.dilation * each)};
    auto *kernel = convolve_rows<C, ROWS>;
    const int32_t blocks = (a->q.capacity + each - 1) / each;
    KAC_TRY(kac_allow_shared(kernel, sizeof(memory)));
    return KAC_LAUNCH(dev, kernel, (unsigned)blocks, (unsigned)memory::THREADS, sizeof(memory),
                      call);
}

static kac_status by_groups(kac_device *dev, const conv_call *a, const kac_cuda_pool *pool)
{
    if (a->q.capacity < 1) return KAC_OK;
    return group_choose(a->conv.in, a->shape.out_length,
                        [&]<int C, int ROWS>() { return launch<C, ROWS>(dev, a, pool); });
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
