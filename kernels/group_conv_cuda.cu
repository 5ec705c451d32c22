/* group_conv_cuda.cu -- convolutions by warpgroups, a layer at a time; see group_conv.cuh. */
#include "group_conv.cuh"

#include <stdlib.h>

#include "letter_conv.cuh"

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

/* Blocks that the device has at once. */
static int32_t blocks_at_once(const kac_device *dev, int32_t channels)
{
    int processors = 1;
    (void)cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, dev->ordinal);
    return processors * (channels == 128 ? GROUP_BLOCKS<128> : GROUP_BLOCKS<64>);
}

int32_t kac_cuda_group_sequences(const kac_device *dev, int32_t channels, int32_t length,
                                 int32_t capacity)
{
    const int32_t most = GROUP_ROWS / length, blocks = blocks_at_once(dev, channels);
    const int32_t even = (capacity + blocks - 1) / blocks;
    return even < 1 ? 1 : even < most ? even : most;
}

struct rows_call {
    conv_call of;
    kac_cuda_pool pool; /* behind it; of size 0: none */
    int32_t sequences;  /* of a block */
};

static __device__ uint4 pairs(float4 x, float4 y)
{
    return {kac_bf16_pair(x.x, x.y), kac_bf16_pair(x.z, x.w), kac_bf16_pair(y.x, y.y),
            kac_bf16_pair(y.z, y.w)};
}

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

/* Rows of float32 to h. */
template <int C>
static __device__ void read_rows(const rows_call *a, group_memory<C> *m, int first, int batch)
{
    const int each = a->sequences, rows = each * a->of.shape.in_length;
    for (int i = (int)threadIdx.x; i < rows * (C / 8); i += GROUP_THREADS) {
        const int row = i / (C / 8), c = i % (C / 8) * 8, b = first + row % each;
        /* of sequences that are not there: the last one */
        const int64_t at = (int64_t)(row / each) * batch + (b < batch ? b : batch - 1);
        const float *x = a->of.in + at * C + c;
        const float4 p = load4(x), q = load4(x + 4);
        *reinterpret_cast<uint4 *>(group_at(m, row, c)) = pairs(p, q);
    }
}

/* The sequences of a block, a few at a time: read(first, batch) writes their rows to h, and may
 * use feat.  What lies between the rows of h is zeros throughout. */
template <int C, class Read>
static __device__ void convolve_block(const rows_call *a, group_memory<C> *m, Read read)
{
    const kac_cuda_shape *shape = &a->of.shape;
    const int32_t batch = kac_query_rows(&a->of.q), each = a->sequences;
    const group_layer layer = {a->of.conv.grouped, a->of.conv.bias,
                               a->of.conv.taps,    each * shape->out_length,
                               -shape->pad * each, (int64_t)shape->dilation * each};
    int first = (int)blockIdx.x * each;
    if (first >= batch) return;
    group_clear<C>(m);
    for (; first < batch; first += (int)gridDim.x * each) {
        group_part<C> part = group_open<C>(&layer);
        __syncthreads(); /* feat has been read, h cleared */
        read(first, batch);
        kac_shared_publish();
        __syncthreads();
        float *feat = m->feat;
        group_convolve<C>(&layer, m, &part, [=](int row, int channel, float x) {
            feat[row * group_memory<C>::PITCH + channel] = x;
        });
        __syncthreads();
        if (a->pool.size > 0)
            give_largest<C>(a, feat, first, batch);
        else
            give_rows<C>(a, feat, first, batch);
    }
}

template <int C>
KAC_KERNEL __launch_bounds__(GROUP_THREADS, GROUP_BLOCKS<C>) convolve_rows(KAC_ARGS rows_call a)
{
    KAC_DYNAMIC_SHARED(group_memory<C>, m);
    convolve_block<C>(&a, m, [&](int first, int batch) { read_rows<C>(&a, m, first, batch); });
}

/* ---- run, from letters -------------------------------------------------------------------- */

/* Where feat lies there are first the columns, which bf16 holds, 8 channels in 16 bytes; then for
 * each row the places of its columns, tap by tap, and its letter. */
struct stem_plan {
    int32_t columns; /* uint4 of all */
    int32_t step;    /* places of a row: an odd number of four, so that banks differ */
    int64_t bytes;
};

KAC_HD static stem_plan plan_of(const kac_cuda_conv *conv, int32_t rows)
{
    const int32_t columns = letter_columns(conv) * (conv->out / 8);
    const int32_t step = ((conv->taps + 3) / 4 | 1) * 4;
    return {columns, step,
            columns * (int64_t)sizeof(uint4) +
                (int64_t)rows * (step + 1) * (int64_t)sizeof(int32_t)};
}

struct stem_call {
    rows_call rows;
    kac_cuda_frame frame;
    kac_cuda_conv conv;
    kac_cuda_shape shape;
    kac_activation act;
};

/* x + 8 columns of bf16, which are the upper halves of float32. */
static __device__ void add_pairs(float4 *x, uint4 y)
{
    const uint32_t upper = 0xffff0000u;
    x[0] = plus(x[0], float4{kac_from_bits(y.x << 16), kac_from_bits(y.x & upper),
                             kac_from_bits(y.y << 16), kac_from_bits(y.y & upper)});
    x[1] = plus(x[1], float4{kac_from_bits(y.z << 16), kac_from_bits(y.z & upper),
                             kac_from_bits(y.w << 16), kac_from_bits(y.w & upper)});
}

/* The first layer's outputs to h, as add_columns in letter_conv_cuda.cu has them. */
template <int C>
static __device__ void read_letters(const stem_call *a, group_memory<C> *m, int first,
                                    int batch)
{
    const int each = a->rows.sequences, length = a->shape.in_length, rows = each * length;
    const stem_plan plan = plan_of(&a->conv, rows);
    uint4 *columns = reinterpret_cast<uint4 *>(m->feat);
    int32_t *places = reinterpret_cast<int32_t *>(columns + plan.columns);
    int32_t *letters = places + rows * plan.step;
    const int taps = a->conv.taps, me = (int)threadIdx.x;
    for (int i = me; i < plan.columns; i += GROUP_THREADS)
        columns[i] = pairs(load4(a->conv.columns + i * 8), load4(a->conv.columns + i * 8 + 4));
    for (int row = me; row < rows; row += GROUP_THREADS) {
        const int b = first + row % each;
        letters[row] = letter_at(&a->rows.of.q, &a->frame, a->conv.in,
                                 b < batch ? b : batch - 1, row / each);
    }
    __syncthreads();
    for (int row = me; row < rows; row += GROUP_THREADS) {
        const int l = row / each;
        int32_t column = 0; /* of the tap's first letter */
        for (int k = 0; k < taps; k++, column += a->conv.in + 1) {
            const int64_t shift = shift_of(&a->shape, k);
            int32_t mine = letter_columns(&a->conv) - 1; /* outside the sequence */
            if (l + shift >= 0 && l + shift < length)
                mine = column + letters[row + (int)shift * each];
            places[row * plan.step + k] = mine * (C / 8);
        }
    }
    __syncthreads();
    for (int i = me; i < rows * (C / 8); i += GROUP_THREADS) {
        const int row = i / (C / 8), part = i % (C / 8);
        const int32_t *place = places + row * plan.step;
        float4 x[2] = {load4(a->conv.bias + part * 8), load4(a->conv.bias + part * 8 + 4)};
        int k = 0;
        for (; k < taps - 3; k += 4) {
            const int4 four = *reinterpret_cast<const int4 *>(place + k);
            add_pairs(x, columns[four.x + part]);
            add_pairs(x, columns[four.y + part]);
            add_pairs(x, columns[four.z + part]);
            add_pairs(x, columns[four.w + part]);
        }
        for (; k < taps; k++)
            add_pairs(x, columns[place[k] + part]);
        if (a->act == KAC_ACT_RELU) x[0] = relu(x[0]), x[1] = relu(x[1]);
        *reinterpret_cast<uint4 *>(group_at(m, row, part * 8)) = pairs(x[0], x[1]);
    }
}

template <int C>
KAC_KERNEL __launch_bounds__(GROUP_THREADS, GROUP_BLOCKS<C>)
    convolve_letters(KAC_ARGS stem_call a)
{
    KAC_DYNAMIC_SHARED(group_memory<C>, m);
    convolve_block<C>(&a.rows, m, [&](int first, int batch) {
        read_letters<C>(&a, m, first, batch);
        __syncthreads(); /* feat is free again */
    });
}

bool kac_cuda_conv_groups(const conv_call *a)
{
    const int64_t same = (int64_t)(a->conv.taps / 2) * a->shape.dilation;
    return a->conv.precision == KAC_PRECISION_BF16 && a->conv.grouped != NULL &&
           a->shape.in_length == a->shape.out_length && a->shape.out_length <= GROUP_ROWS &&
           a->conv.taps % 2 == 1 && a->shape.pad == same;
}

template <int C, class Call>
static kac_status launch(kac_device *dev, void (*kernel)(Call), const rows_call *a, Call call)
{
    const int32_t all = (a->of.q.capacity + a->sequences - 1) / a->sequences;
    const int32_t most = blocks_at_once(dev, C), blocks = all < most ? all : most;
    if (blocks == 0) return KAC_OK;
    KAC_TRY(kac_allow_shared(kernel, sizeof(group_memory<C>)));
    return KAC_LAUNCH(dev, kernel, (unsigned)blocks, GROUP_THREADS, sizeof(group_memory<C>),
                      call);
}

static rows_call rows_of(const kac_device *dev, const conv_call *a, const kac_cuda_pool *pool)
{
    return {*a, *pool,
            kac_cuda_group_sequences(dev, a->conv.in, a->shape.out_length, a->q.capacity)};
}

static kac_status launch_rows(kac_device *dev, const rows_call *a)
{
    if (a->of.conv.in == 64) return launch<64>(dev, convolve_rows<64>, a, *a);
    return launch<128>(dev, convolve_rows<128>, a, *a);
}

kac_status kac_cuda_conv_by_groups(kac_device *dev, const conv_call *a)
{
    const kac_cuda_pool none = {};
    const rows_call call = rows_of(dev, a, &none);
    return launch_rows(dev, &call);
}

bool kac_cuda_conv_pools(const kac_cuda_conv *conv, const kac_cuda_shape *shape,
                         kac_activation act)
{
    const conv_call a = {{}, *conv, *shape};
    return (act == KAC_ACT_LINEAR || act == KAC_ACT_RELU) && kac_cuda_conv_groups(&a);
}

bool kac_cuda_conv_reads(const kac_query *q, const kac_cuda_first *first,
                         const kac_cuda_conv *conv, const kac_cuda_shape *shape,
                         kac_activation act)
{
    const int64_t room = (int64_t)GROUP_ROWS * (conv->in + 4) * (int64_t)sizeof(float);
    return kac_cuda_conv_pools(conv, shape, act) && q->soft == NULL &&
           first->conv->columns != NULL && first->conv->precision == KAC_PRECISION_BF16 &&
           (first->act == KAC_ACT_LINEAR || first->act == KAC_ACT_RELU) &&
           first->conv->out == conv->in && first->shape.in_length == shape->in_length &&
           first->shape.out_length == shape->in_length &&
           plan_of(first->conv, GROUP_ROWS).bytes <= room;
}

kac_status kac_cuda_conv_fused(kac_device *dev, const kac_query *q, const kac_cuda_first *first,
                               const kac_cuda_conv *conv, const kac_cuda_shape *shape,
                               kac_activation act, const kac_cuda_pool *pool, const float *in,
                               float *out)
{
    const conv_call of = {*q, *conv, *shape, {NULL, NULL, act, NULL, NULL}, in, out, conv->in};
    const rows_call rows = rows_of(dev, &of, pool);
    if (first == NULL) return launch_rows(dev, &rows);
    const stem_call call = {rows, *first->frame, *first->conv, first->shape, first->act};
    if (conv->in == 64) return launch<64>(dev, convolve_letters<64>, &rows, call);
    return launch<128>(dev, convolve_letters<128>, &rows, call);
}
