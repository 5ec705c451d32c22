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

struct rows_call {
    conv_call of;
    kac_cuda_pool pool; /* behind it; of size 0: none */
    int32_t sequences;  /* of a block */
    group_layer layer;
};

template <int C, int ROWS> struct rows_memory : group_input<C, ROWS> {
    float rows[ROWS * group_shape<C, ROWS>::PITCH];
};

static __device__ uint4 pairs(float4 x, float4 y)
{
    return {kac_bf16_pair(x.x, x.y), kac_bf16_pair(x.z, x.w), kac_bf16_pair(y.x, y.y),
            kac_bf16_pair(y.z, y.w)};
}

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

/* Rows of float32 to h. */
template <int C, int ROWS>
static __device__ void read_rows(const rows_call *a, rows_memory<C, ROWS> *m, int first,
                                 int batch)
{
    const int each = a->sequences, rows = each * a->of.shape.in_length;
    for (int i = (int)threadIdx.x; i < rows * (C / 8); i += m->THREADS) {
        const int row = i / (C / 8), c = i % (C / 8) * 8, b = first + row % each;
        /* of sequences that are not there: the last one */
        const int64_t at = (int64_t)(row / each) * batch + (b < batch ? b : batch - 1);
        const float *x = a->of.in + at * C + c;
        const float4 p = load4(x), q = load4(x + 4);
        *reinterpret_cast<uint4 *>(m->at(row, c)) = pairs(p, q);
    }
}

/* The sequences of a block, a few at a time: read(first, batch) writes their rows to h, and may
 * use `rows`.  What lies between the rows of h is zeros throughout. */
template <int C, int ROWS, class Read>
static __device__ void convolve_block(const rows_call *a, rows_memory<C, ROWS> *m, Read read)
{
    const int32_t batch = kac_query_rows(&a->of.q), each = a->sequences;
    int first = (int)blockIdx.x * each;
    if (first >= batch) return;

    group_part<C, ROWS> part = group_open<C, ROWS>(&a->layer);
    part.fetch_bias(&a->layer);
    m->clear();
    for (; first < batch; first += (int)gridDim.x * each) {
        __syncthreads(); /* h is cleared, `rows` has been read */
        read(first, batch);
        kac_shared_publish();
        __syncthreads(); /* h is there, `rows` are free again */
        float sum[m->SUMS];
        group_accumulate<C, ROWS>(&a->layer, &a->layer, m, &part, sum);
        group_each<C, ROWS>(&part, sum, [=](int row, int channel, float x) {
            m->rows[row * m->PITCH + channel] = x;
        });
        __syncthreads();
        if (a->pool.size > 0)
            give_largest<C, ROWS>(a, m, first, batch);
        else
            give_rows<C, ROWS>(a, m, first, batch);
    }
}

template <int C, int ROWS>
KAC_KERNEL __launch_bounds__(group_shape<C, ROWS>::THREADS, group_shape<C, ROWS>::BLOCKS)
    convolve_rows(KAC_ARGS rows_call a)
{
    using memory = rows_memory<C, ROWS>;
    KAC_DYNAMIC_SHARED(memory, m);
    convolve_block<C, ROWS>(
        &a, m, [&](int first, int batch) { read_rows<C, ROWS>(&a, m, first, batch); });
}

/* ---- run, from letters -------------------------------------------------------------------- */

/* Where `rows` lie there are first the columns, which bf16 holds, 8 channels in 16 bytes; then
 * for each row the places of its columns, tap by tap, and its letter. */
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

/* The letters of a thread's rows. */
template <int C, int ROWS> struct stem_letters : group_shape<C, ROWS> {
    static constexpr int N =
        (ROWS + group_shape<C, ROWS>::THREADS - 1) / group_shape<C, ROWS>::THREADS;
    int32_t of[N]; /* of rows threadIdx.x + n THREADS */

    /* Begins to read those of sequences from `first` on, if there are any; the last one's for
     * what is not there. */
    __device__ void fetch(const stem_call *a, int first, int batch)
    {
        const int each = a->rows.sequences, rows = each * a->shape.in_length;
        if (first >= batch) return;
        KAC_UNROLL
        for (int n = 0; n < N; n++) {
            const int row = (int)threadIdx.x + n * this->THREADS, b = first + row % each;
            if (row < rows)
                of[n] =
                    letter_at(&a->rows.of.q, &a->frame, b < batch ? b : batch - 1, row / each);
        }
    }
};

/* The first layer's outputs to h, as add_columns in letter_conv_cuda.cu has them.  A thread
 * sums two rows at once, so that some loads are under way. */
template <int C, int ROWS>
static __device__ void read_letters(const stem_call *a, rows_memory<C, ROWS> *m,
                                    const stem_letters<C, ROWS> *mine)
{
    constexpr int PARTS = C / 8, LINES = m->THREADS / PARTS, BOTH = 2;
    const int each = a->rows.sequences, length = a->shape.in_length, rows = each * length;
    const int taps = a->conv.taps, me = (int)threadIdx.x, part = me % PARTS;
    const stem_plan plan = plan_of(&a->conv, rows);
    uint4 *columns = reinterpret_cast<uint4 *>(m->rows);
    int32_t *places = reinterpret_cast<int32_t *>(columns + plan.columns);
    int32_t *letters = places + rows * plan.step;
    for (int i = me; i < plan.columns; i += m->THREADS)
        columns[i] = pairs(load4(a->conv.columns + i * 8), load4(a->conv.columns + i * 8 + 4));
    KAC_UNROLL
    for (int n = 0; n < mine->N; n++)
        if (me + n * m->THREADS < rows)
            letters[me + n * m->THREADS] = column_of(&a->conv, mine->of[n]);
    __syncthreads();
    for (int row = me; row < rows; row += m->THREADS) {
        const int l = row / each;
        int32_t column = 0; /* of the tap's first letter */
        for (int k = 0; k < taps; k++, column += a->conv.in + 1) {
            const int64_t shift = shift_of(&a->shape, k);
            int32_t place = letter_columns(&a->conv) - 1; /* outside the sequence */
            if (l + shift >= 0 && l + shift < length)
                place = column + letters[row + (int)shift * each];
            places[row * plan.step + k] = place * PARTS;
        }
    }
    __syncthreads();
    const float4 bias[2] = {load4(a->conv.bias + part * 8), load4(a->conv.bias + part * 8 + 4)};
    for (int row = me / PARTS; row < rows; row += BOTH * LINES) {
        const int32_t *place[BOTH];
        float4 x[BOTH][2];
        int k = 0;
        KAC_UNROLL
        for (int j = 0; j < BOTH; j++) {
            place[j] = places + (row + j * LINES < rows ? row + j * LINES : row) * plan.step;
            x[j][0] = bias[0], x[j][1] = bias[1];
        }
        for (; k < taps - 3; k += 4) {
            KAC_UNROLL
            for (int j = 0; j < BOTH; j++) {
                const int4 four = *reinterpret_cast<const int4 *>(place[j] + k);
                add_pairs(x[j], columns[four.x + part]);
                add_pairs(x[j], columns[four.y + part]);
                add_pairs(x[j], columns[four.z + part]);
                add_pairs(x[j], columns[four.w + part]);
            }
        }
        for (; k < taps; k++) {
            KAC_UNROLL
            for (int j = 0; j < BOTH; j++)
                add_pairs(x[j], columns[place[j][k] + part]);
        }
        KAC_UNROLL
        for (int j = 0; j < BOTH; j++) {
            if (a->act == KAC_ACT_RELU) x[j][0] = relu(x[j][0]), x[j][1] = relu(x[j][1]);
            if (row + j * LINES < rows)
                *reinterpret_cast<uint4 *>(m->at(row + j * LINES, part * 8)) =
                    pairs(x[j][0], x[j][1]);
        }
    }
}

template <int C, int ROWS>
KAC_KERNEL __launch_bounds__(group_shape<C, ROWS>::THREADS, group_shape<C, ROWS>::BLOCKS)
    convolve_letters(KAC_ARGS stem_call a)
{
    using memory = rows_memory<C, ROWS>;
    KAC_DYNAMIC_SHARED(memory, m);
    stem_letters<C, ROWS> letters = {};
    letters.fetch(&a, (int)blockIdx.x * a.rows.sequences, kac_query_rows(&a.rows.of.q));
    convolve_block<C, ROWS>(&a.rows, m, [&](int first, int batch) {
        read_letters<C, ROWS>(&a, m, &letters);
        letters.fetch(&a, first + (int)gridDim.x * a.rows.sequences, batch);
    });
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
static kac_status launch(kac_device *dev, const conv_call *a, const kac_cuda_pool *pool,
                         const kac_cuda_first *first)
{
    using memory = rows_memory<C, ROWS>;
    const int32_t length = a->shape.out_length,
                  each = group_sequences<C, ROWS>(dev, length, a->q.capacity);
    const int32_t all = (a->q.capacity + each - 1) / each, most = group_blocks<C, ROWS>(dev);
    const rows_call rows = {*a, *pool, each,
                            group_layer_of(a->conv.grouped, a->conv.bias, C, each * length,
                                           a->conv.taps, -a->shape.pad * each,
                                           (int64_t)a->shape.dilation * each)};
    const unsigned blocks = (unsigned)(all < most ? all : most), threads = memory::THREADS;
    if (first == NULL) {
        auto *kernel = convolve_rows<C, ROWS>;
        KAC_TRY(kac_allow_shared(kernel, sizeof(memory)));
        return KAC_LAUNCH(dev, kernel, blocks, threads, sizeof(memory), rows);
    }
    auto *kernel = convolve_letters<C, ROWS>;
    const stem_call call = {rows, *first->frame, *first->conv, first->shape, first->act};
    KAC_TRY(kac_allow_shared(kernel, sizeof(memory)));
    return KAC_LAUNCH(dev, kernel, blocks, threads, sizeof(memory), call);
}

static kac_status by_groups(kac_device *dev, const conv_call *a, const kac_cuda_pool *pool,
                            const kac_cuda_first *first)
{
    if (a->q.capacity < 1) return KAC_OK;
    return group_choose(a->conv.in, a->shape.out_length, [&]<int C, int ROWS>() {
        return launch<C, ROWS>(dev, a, pool, first);
    });
}

kac_status kac_cuda_conv_by_groups(kac_device *dev, const conv_call *a)
{
    const kac_cuda_pool none = {0, false};
    return by_groups(dev, a, &none, NULL);
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
    const int32_t rows = shape->out_length <= KAC_GROUP_COLS ? KAC_GROUP_COLS : GROUP_MOST_ROWS;
    const int64_t room = (int64_t)rows * (conv->in + 4) * (int64_t)sizeof(float);
    return kac_cuda_conv_pools(conv, shape, act) && q->soft == NULL &&
           first->conv->columns != NULL && first->conv->precision == KAC_PRECISION_BF16 &&
           (first->act == KAC_ACT_LINEAR || first->act == KAC_ACT_RELU) &&
           first->conv->out == conv->in && first->shape.in_length == shape->in_length &&
           first->shape.out_length == shape->in_length &&
           plan_of(first->conv, rows).bytes <= room;
}

kac_status kac_cuda_conv_fused(kac_device *dev, const kac_query *q, const kac_cuda_first *first,
                               const kac_cuda_conv *conv, const kac_cuda_shape *shape,
                               kac_activation act, const kac_cuda_pool *pool, const float *in,
                               float *out)
{
    const conv_call a = {*q, *conv, *shape, {NULL, NULL, act, NULL, NULL}, in, out, conv->in};
    return by_groups(dev, &a, pool, first);
}
