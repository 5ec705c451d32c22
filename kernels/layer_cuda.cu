/* layer_cuda.cu -- dense layers and convolutions as exact chains on the GPU's fp32 units, and
 * what lies between layers. */
#include "conv_cuda.cuh"

#include <stdlib.h>

/* ---- pack --------------------------------------------------------------------------------- */

float *kac_cuda_floats(kac_device *dev, const float *host, int64_t count, int64_t n)
{
    float *p = (float *)dev->ops->memory.alloc(dev, (size_t)n * sizeof *p);
    if (p == NULL) return NULL;
    kac_status status = dev->ops->memory.upload(dev, p, host, (size_t)count * sizeof *p);
    if (status == KAC_OK) return p;
    dev->ops->memory.release(dev, p);
    return NULL;
}

/* [taps][in][step]; malloc'ed, NULL: no memory. */
static float *repack(const kac_tile_weights *w, int32_t step)
{
    float *packed =
        (float *)calloc((size_t)w->taps * (size_t)w->in * (size_t)step, sizeof *packed);
    if (packed == NULL) return NULL;
    for (int64_t k = 0; k < w->taps; k++)
        for (int64_t c = 0; c < w->in; c++)
            for (int64_t o = 0; o < w->out; o++)
                packed[(k * w->in + c) * step + o] =
                    w->weight[o * w->out_step + k * w->tap_step + c * w->in_step];
    return packed;
}

/* Of a layer: what the largest tiles of kac_cuda_conv_run reach with 65,535 blocks. */
enum { MOST_OUTPUTS = 65535 * 128 };

kac_status kac_cuda_conv_pack(kac_device *dev, const kac_tile_weights *w, const float *bias,
                              kac_cuda_conv *out)
{
    const int32_t step = kac_cuda_step(w->out);
    const int64_t floats = (int64_t)w->taps * w->in * step;
    if (step > MOST_OUTPUTS)
        return KAC_FAIL(KAC_ERR_UNSUPPORTED, "a layer of %d outputs, and a GPU takes up to %d",
                        (int)w->out, (int)MOST_OUTPUTS);
    kac_cuda_conv conv = {w->in, w->out, w->taps, step, NULL, NULL, KAC_PRECISION_EXACT,
                          NULL,  NULL};
    float *packed = repack(w, step);
    if (packed == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "no memory to pack a layer");
    conv.weight = kac_cuda_floats(dev, packed, floats, floats);
    free(packed);
    if (bias != NULL) conv.bias = kac_cuda_floats(dev, bias, w->out, step);
    if (conv.weight == NULL || (bias != NULL && conv.bias == NULL)) {
        kac_cuda_conv_drop(dev, &conv);
        return KAC_ERR_NOMEM;
    }
    *out = conv;
    return KAC_OK;
}

void kac_cuda_conv_drop(kac_device *dev, kac_cuda_conv *conv)
{
    dev->ops->memory.release(dev, conv->weight);
    dev->ops->memory.release(dev, conv->bias);
    dev->ops->memory.release(dev, conv->grouped);
    dev->ops->memory.release(dev, conv->columns);
    *conv = {};
}

kac_status kac_cuda_layer_pack(kac_device *dev, const kac_tile_weights *w, const float *bias,
                               kac_cuda_layer *out)
{
    const kac_tile_weights back = {w->weight + (w->taps - 1) * w->tap_step,
                                   w->in,
                                   w->taps,
                                   w->out,
                                   w->in_step,
                                   -w->tap_step,
                                   w->out_step};
    kac_cuda_layer layer = {};
    KAC_TRY(kac_cuda_conv_pack(dev, w, bias, &layer.there));
    kac_status status = kac_cuda_conv_pack(dev, &back, NULL, &layer.back);
    if (status == KAC_OK)
        *out = layer;
    else
        kac_cuda_layer_drop(dev, &layer);
    return status;
}

void kac_cuda_layer_drop(kac_device *dev, kac_cuda_layer *layer)
{
    kac_cuda_conv_drop(dev, &layer->there);
    kac_cuda_conv_drop(dev, &layer->back);
}

kac_cuda_shape kac_cuda_shape_back(const kac_cuda_shape *s, int32_t taps)
{
    return {s->out_length, s->in_length, s->dilation,
            (int64_t)(taps - 1) * s->dilation - s->pad};
}

kac_status kac_cuda_window(kac_device *dev, const kac_query *q, int64_t floats, int32_t *rows,
                           float **memory)
{
    const int64_t most = (int64_t)1 << 28; /* floats of a window */
    int64_t fit = most / floats;
    *rows = fit < 1 ? 1 : fit < q->capacity ? (int32_t)fit : q->capacity;
    void *p = NULL;
    KAC_TRY(kac_cuda_scratch(dev, (size_t)(*rows * floats) * sizeof **memory, &p));
    *memory = (float *)p;
    return KAC_OK;
}

/* ---- dense layers and convolutions -------------------------------------------------------- */

/* Bound by the fp32 units where rows and channels are many.  A block computes a tile of rows
 * and output channels.  Slices of 8 input channels of a tap go through shared memory in two
 * buffers: while one is used, the next is on its way in registers.  A thread keeps 4 x 4 sums,
 * or 8 x 8 in four such squares, and takes the products in the order of the chain.  Rows of
 * neighbouring positions follow each other, so a tap is a constant distance.  Near the ends of
 * the sequence a tile has rows whose tap lies outside; only there threads look at each row. */
enum { SLICE = 8 };

/* THREADS threads, ACROSS of them side by side, GROUPS x GROUPS squares of 4 x 4 sums each. */
template <int THREADS, int ACROSS, int GROUPS>
KAC_KERNEL __launch_bounds__(THREADS, 512 / THREADS) convolve(KAC_ARGS conv_call a)
{
    constexpr int ROWS = THREADS / ACROSS * 4 * GROUPS, COLS = ACROSS * 4 * GROUPS;
    constexpr int STRIDE = ROWS + 4, SUMS = 4 * GROUPS;
    constexpr int IN_LOADS = ROWS * SLICE / 4 / THREADS; /* float4 of a thread */
    static_assert(COLS * SLICE / 4 <= THREADS, "one float4 of weights a thread");
    KAC_SHARED(float, in_slice, 2 * SLICE * STRIDE); /* [2][SLICE][STRIDE] */
    KAC_SHARED(float, w_slice, 2 * SLICE * COLS);    /* [2][SLICE][COLS] */
    KAC_SHARED(int32_t, position, ROWS);

    const int32_t batch = kac_query_rows(&a.q), channels = a.conv.in, taps = a.conv.taps;
    const int64_t rows = (int64_t)a.shape.out_length * batch, row = (int64_t)blockIdx.x * ROWS;
    const int col = (int)blockIdx.y * COLS, me = (int)threadIdx.x;
    const int my_row = me / ACROSS * 4, my_col = me % ACROSS * 4;
    if (row >= rows) return;
    const int64_t first = row / batch; /* positions of the tile */
    const int64_t last = (row + ROWS < rows ? row + ROWS - 1 : rows - 1) / batch;

    /* Rows that are not there are taken for the last one, and not written. */
    for (int r = me; r < ROWS; r += THREADS)
        position[r] = (int32_t)((row + r < rows ? row + r : rows - 1) / batch);

    float sum[SUMS][SUMS];
    KAC_UNROLL
    for (int j = 0; j < SUMS; j++) {
        const int o = col + j / 4 * (COLS / GROUPS) + my_col + j % 4;
        const float bias = a.conv.bias != NULL && o < a.conv.step ? a.conv.bias[o] : 0;
        KAC_UNROLL
        for (int i = 0; i < SUMS; i++)
            sum[i][j] = bias;
    }
    __syncthreads();

    /* What is fetched next: channels c .. c + SLICE - 1 of a tap.  The thread's shares of it, NULL
     * where there is nothing, and a bit for each of its sums' rows that the tap counts for. */
    int32_t tap = -1, c = channels;
    const float *from_in[IN_LOADS], *from_w = NULL;
    unsigned mask = 0;
    float4 next_in[IN_LOADS], next_w = {};

    auto enter = [&]() {
        const int32_t shift = (int32_t)shift_of(&a.shape, tap); /* some position + it is one */
        const int w_row = me / (COLS / 4), w_col = col + me % (COLS / 4) * 4;
        KAC_UNROLL
        for (int n = 0; n < IN_LOADS; n++) {
            const int r = (n * THREADS + me) / 2, part = (n * THREADS + me) % 2 * 4;
            const int64_t at = (row + r < rows ? row + r : rows - 1) + (int64_t)shift * batch;
            const bool live = (uint32_t)(position[r] + shift) < (uint32_t)a.shape.in_length;
            from_in[n] = live ? a.in + at * a.in_step + part : NULL;
        }
        from_w = w_row < SLICE && w_col < a.conv.step
                     ? a.conv.weight + ((int64_t)tap * channels + w_row) * a.conv.step + w_col
                     : NULL;
        mask = 0;
        KAC_UNROLL
        for (int i = 0; i < SUMS; i++) {
            const int32_t l = position[i / 4 * (ROWS / GROUPS) + my_row + i % 4];
            mask |= (unsigned)((uint32_t)(l + shift) < (uint32_t)a.shape.in_length) << i;
        }
    };
    auto advance = [&]() {
        c += SLICE;
        if (c < channels) return true;
        c = 0;
        tap = live_tap(&a, tap + 1, first, last);
        if (tap == taps) return false;
        enter();
        return true;
    };
    auto fetch = [&]() {
        KAC_UNROLL
        for (int n = 0; n < IN_LOADS; n++) {
            next_in[n] = {};
            if (from_in[n] == NULL) continue;
            if (c + me % 2 * 4 < channels) next_in[n] = load4(from_in[n]);
            from_in[n] += SLICE;
        }
        next_w = {};
        if (from_w == NULL) return;
        if (c + me / (COLS / 4) < channels) next_w = load4(from_w);
        from_w += SLICE * a.conv.step;
    };
    auto put = [&](int buffer) {
        float *in = in_slice + buffer * SLICE * STRIDE, *w = w_slice + buffer * SLICE * COLS;
        KAC_UNROLL
        for (int n = 0; n < IN_LOADS; n++) {
            const int r = (n * THREADS + me) / 2, k = me % 2 * 4;
            in[k * STRIDE + r] = next_in[n].x;
            in[(k + 1) * STRIDE + r] = next_in[n].y;
            in[(k + 2) * STRIDE + r] = next_in[n].z;
            in[(k + 3) * STRIDE + r] = next_in[n].w;
        }
        if (me < COLS * SLICE / 4) store4(w + me * 4, next_w);
    };
    /* One product of every chain of the rows in `live`. */
    auto step = [&](const float *in, const float *w, unsigned live) {
        float x[SUMS], y[SUMS];
        KAC_UNROLL
        for (int g = 0; g < GROUPS; g++) {
            float4 p = load4(in + g * (ROWS / GROUPS) + my_row);
            float4 v = load4(w + g * (COLS / GROUPS) + my_col);
            x[4 * g] = p.x, x[4 * g + 1] = p.y, x[4 * g + 2] = p.z, x[4 * g + 3] = p.w;
            y[4 * g] = v.x, y[4 * g + 1] = v.y, y[4 * g + 2] = v.z, y[4 * g + 3] = v.w;
        }
        KAC_UNROLL
        for (int i = 0; i < SUMS; i++) {
            if (!(live >> i & 1)) continue;
            KAC_UNROLL
            for (int j = 0; j < SUMS; j++)
                sum[i][j] = fmaf(x[i], y[j], sum[i][j]);
        }
    };

    const unsigned all = (1u << SUMS) - 1;
    bool more = advance();
    if (more) {
        fetch();
        put(0);
    }
    __syncthreads();
    for (int buffer = 0; more; buffer ^= 1) {
        const float *in = in_slice + buffer * SLICE * STRIDE;
        const float *w = w_slice + buffer * SLICE * COLS;
        const unsigned live = mask;
        const int32_t left = channels - c; /* of the tap, this slice included */
        more = advance();
        if (more) fetch();
        if (live == all && left >= SLICE) {
            KAC_UNROLL
            for (int k = 0; k < SLICE; k++)
                step(in + k * STRIDE, w + k * COLS, all);
        } else {
            for (int k = 0; k < SLICE && k < left; k++)
                step(in + k * STRIDE, w + k * COLS, live);
        }
        if (more) put(buffer ^ 1);
        __syncthreads();
    }

    KAC_UNROLL
    for (int i = 0; i < SUMS; i++) {
        int64_t r = row + i / 4 * (ROWS / GROUPS) + my_row + i % 4;
        KAC_UNROLL
        for (int g = 0; g < GROUPS; g++) {
            const int o = col + g * (COLS / GROUPS) + my_col;
            const float *x = sum[i] + 4 * g;
            if (r < rows && o < a.conv.step)
                finish(&a, r * a.conv.step + o, float4{x[0], x[1], x[2], x[3]});
        }
    }
}

/* Blocks of a grid of tiles for all rows of the window. */
template <int THREADS, int ACROSS, int GROUPS> static dim3 tiles(const conv_call *a)
{
    const int64_t tall = THREADS / ACROSS * 4 * GROUPS, wide = ACROSS * 4 * GROUPS;
    int64_t rows = (int64_t)a->shape.out_length * a->q.capacity;
    return dim3((unsigned)((rows + tall - 1) / tall),
                (unsigned)((a->conv.step + wide - 1) / wide));
}

template <int THREADS, int ACROSS, int GROUPS>
static kac_status launch(kac_device *dev, const conv_call *a)
{
    auto *convolution = convolve<THREADS, ACROSS, GROUPS>;
    return KAC_LAUNCH(dev, convolution, (tiles<THREADS, ACROSS, GROUPS>(a)), THREADS, 0, *a);
}

/* The largest tile that is not mostly empty and gives most multiprocessors a block; a dense layer
 * that none suits has tiles of its own.  It does not change a bit. */
static kac_status launch_largest(kac_device *dev, const conv_call *a)
{
    const unsigned enough = 96;
    const int32_t step = a->conv.step;
    const bool dense =
        a->conv.taps == 1 && a->shape.pad == 0 && a->shape.in_length == a->shape.out_length;
    dim3 large = tiles<256, 16, 2>(a), middle = tiles<128, 8, 2>(a), low = tiles<128, 2, 1>(a);
    if (step <= 8 && (!dense || low.x >= enough)) return launch<128, 2, 1>(dev, a);
    if (step > 64 && large.x * large.y >= enough) return launch<256, 16, 2>(dev, a);
    if (step > 32 && middle.x * middle.y >= enough) return launch<128, 8, 2>(dev, a);
    if (dense) return kac_cuda_dense_by_rows(dev, a);
    return launch<64, 8, 1>(dev, a);
}

KAC_KERNEL activate(KAC_ARGS kac_query q, kac_activation act, int64_t floats, float *x)
{
    KAC_EACH (i, floats * kac_query_rows(&q))
        x[i] = kac_activate(act, x[i]);
}

kac_status kac_cuda_conv_run(kac_device *dev, const kac_query *q, const kac_cuda_conv *conv,
                             const kac_cuda_shape *shape, const kac_cuda_ending *ending,
                             const float *in, float *out)
{
    const conv_call a = {*q, *conv, *shape, *ending, in, out, kac_cuda_step(conv->in)};
    const int64_t floats = (int64_t)shape->out_length * conv->step;
    if (conv->precision == KAC_PRECISION_EXACT)
        KAC_TRY(launch_largest(dev, &a));
    else if (kac_cuda_conv_groups(&a))
        KAC_TRY(kac_cuda_conv_by_groups(dev, &a));
    else
        KAC_TRY(kac_cuda_conv_multiply(dev, &a));
    if (ending->act == KAC_ACT_LINEAR || ending->act == KAC_ACT_RELU) return KAC_OK;
    return KAC_LAUNCH(dev, activate, kac_blocks(floats * q->capacity), KAC_THREADS, 0, *q,
                      ending->act, floats, out);
}

kac_status kac_cuda_dense_run(kac_device *dev, const kac_query *q, const kac_cuda_conv *conv,
                              int32_t length, const kac_cuda_ending *ending, const float *in,
                              float *out)
{
    const kac_cuda_shape shape = {length, length, 1, 0};
    return kac_cuda_conv_run(dev, q, conv, &shape, ending, in, out);
}

/* ---- element by element ------------------------------------------------------------------- */

/* Bound by memory. */
KAC_KERNEL gate(KAC_ARGS kac_query q, int64_t floats, const float *y, const float *g,
                float *out)
{
    KAC_EACH (i, floats * kac_query_rows(&q))
        out[i] = kac_activate_back(KAC_ACT_RELU, 0, y[i], g[i]);
}

kac_status kac_cuda_gate(kac_device *dev, const kac_query *q, int64_t floats, const float *y,
                         const float *g, float *out)
{
    return KAC_LAUNCH(dev, gate, kac_blocks(floats * q->capacity), KAC_THREADS, 0, *q, floats,
                      y, g, out);
}

KAC_KERNEL add(KAC_ARGS kac_query q, int64_t floats, const float *x, const float *y, float *out)
{
    KAC_EACH (i, floats * kac_query_rows(&q))
        out[i] = x[i] + y[i];
}

kac_status kac_cuda_add(kac_device *dev, const kac_query *q, int64_t floats, const float *x,
                        const float *y, float *out)
{
    return KAC_LAUNCH(dev, add, kac_blocks(floats * q->capacity), KAC_THREADS, 0, *q, floats, x,
                      y, out);
}

/* Bound by memory: each input is read once, threads of a warp side by side. */
KAC_KERNEL mean(KAC_ARGS kac_query q, int32_t length, int32_t size, int32_t step,
                const float *in, float *out)
{
    const int64_t position = (int64_t)kac_query_rows(&q) * step;
    KAC_EACH (i, length * position) {
        const float *x = in + i / position * size * position + i % position;
        float lane[KAC_SUM_LANES];
        KAC_UNROLL
        for (int j = 0; j < KAC_SUM_LANES; j++)
            lane[j] = 0;
        for (int32_t t = 0; t < size; t += KAC_SUM_LANES) {
            KAC_UNROLL
            for (int j = 0; j < KAC_SUM_LANES; j++)
                if (t + j < size) lane[j] += x[(t + j) * position];
        }
        out[i] = kac_tree(lane) / (float)size;
    }
}

kac_status kac_cuda_mean(kac_device *dev, const kac_query *q, int32_t length, int32_t size,
                         int32_t step, const float *in, float *out)
{
    return KAC_LAUNCH(dev, mean, kac_blocks((int64_t)length * q->capacity * step), KAC_THREADS,
                      0, *q, length, size, step, in, out);
}

/* ---- what enters and leaves --------------------------------------------------------------- */

/* A thread a channel of a row. */
KAC_KERNEL input(KAC_ARGS kac_query q, KAC_ARGS kac_cuda_frame f, int32_t states, float *x)
{
    const int32_t batch = kac_query_rows(&q), step = kac_cuda_step(states);
    const int32_t end = f.prefix_length + q.length;
    KAC_EACH (i, (int64_t)(end + f.suffix_length) * batch * step) {
        const kac_quotient row = kac_split(i, step), site = kac_split(row.whole, batch);
        const int32_t c = (int32_t)row.rest, b = (int32_t)site.rest, l = (int32_t)site.whole;
        if (l < f.prefix_length)
            x[i] = f.prefix[l] == c;
        else if (l >= end)
            x[i] = f.suffix[l - end] == c;
        else if (q.soft != NULL && c < states)
            x[i] = kac_query_soft(&q, b, states)[(int64_t)(l - f.prefix_length) * states + c];
        else
            x[i] = c < states && kac_query_tokens(&q, b)[l - f.prefix_length] == c;
    }
}

kac_status kac_cuda_input(kac_device *dev, const kac_query *q, const kac_cuda_frame *frame,
                          int32_t states, float *x)
{
    int64_t length = (int64_t)frame->prefix_length + q->length + frame->suffix_length;
    return KAC_LAUNCH(dev, input, kac_blocks(length * q->capacity * kac_cuda_step(states)),
                      KAC_THREADS, 0, *q, *frame, states, x);
}

/* A thread a result, written side by side. */
KAC_KERNEL rows_out(KAC_ARGS kac_query q, int32_t from, int32_t length, int32_t channels,
                    const float *x)
{
    const int32_t batch = kac_query_rows(&q), step = kac_cuda_step(channels);
    const int64_t each = (int64_t)length * channels;
    KAC_EACH (i, each * batch) {
        int32_t b = (int32_t)(i / each), l = (int32_t)(i % each / channels);
        kac_query_out(&q, b)[i % each] =
            x[((int64_t)(from + l) * batch + b) * step + i % channels];
    }
}

kac_status kac_cuda_rows_out(kac_device *dev, const kac_query *q, int32_t from, int32_t length,
                             int32_t channels, const float *x)
{
    return KAC_LAUNCH(dev, rows_out, kac_blocks((int64_t)length * channels * q->capacity),
                      KAC_THREADS, 0, *q, from, length, channels, x);
}

KAC_KERNEL rows_in(KAC_ARGS kac_query q, int32_t length, int32_t channels, const float *rows,
                   float *x)
{
    const int32_t batch = kac_query_rows(&q), step = kac_cuda_step(channels);
    const int64_t each = (int64_t)length * channels;
    KAC_EACH (i, each * batch) {
        int64_t b = i / each, l = i % each / channels;
        x[(l * batch + b) * step + i % channels] = rows[i];
    }
}

kac_status kac_cuda_rows_in(kac_device *dev, const kac_query *q, int32_t length,
                            int32_t channels, const float *rows, float *x)
{
    return KAC_LAUNCH(dev, rows_in, kac_blocks((int64_t)length * channels * q->capacity),
                      KAC_THREADS, 0, *q, length, channels, rows, x);
}

/* ---- LayerNorm ---------------------------------------------------------------------------- */

/* Bound by memory.  The 16 threads of half a warp are the 16 lanes of a row's sums (exact.h);
 * what is read again comes from the nearest cache. */

/* kac_tree of the lanes, in all of them: sums of two do not depend on their order. */
static __device__ float tree(float lane)
{
    for (int by = KAC_SUM_LANES / 2; by > 0; by /= 2)
        lane += __shfl_xor_sync(KAC_WHOLE_WARP, lane, by);
    return lane;
}

struct norm_of_row {
    float mean, scale; /* scale: 1 / sqrt(variance + epsilon) */
};

static __device__ float shifted(const kac_cuda_norm *norm, const float *x, int32_t c)
{
    return norm->shift != NULL ? x[c] + norm->shift[c] : x[c];
}

static __device__ norm_of_row measure(const kac_cuda_norm *norm, const float *x, int lane)
{
    const int32_t n = norm->channels;
    float sum = 0, square = 0;
    for (int32_t c = lane; c < n; c += KAC_SUM_LANES)
        sum += shifted(norm, x, c);
    float mean = tree(sum) / (float)n;
    for (int32_t c = lane; c < n; c += KAC_SUM_LANES) {
        float d = shifted(norm, x, c) - mean;
        square = fmaf(d, d, square);
    }
    return {mean, 1.0f / sqrtf(tree(square) / (float)n + 1e-5f)};
}

/* Rows of a block, and their number for all rows of the window. */
enum { NORM_ROWS = (int)KAC_THREADS / (int)KAC_SUM_LANES };
static unsigned norm_blocks(const kac_query *q, int32_t length)
{
    int64_t rows = (int64_t)length * q->capacity;
    return (unsigned)((rows + NORM_ROWS - 1) / NORM_ROWS);
}

KAC_KERNEL normalise(KAC_ARGS kac_query q, KAC_ARGS kac_cuda_norm norm, int32_t length,
                     const float *in, float *out)
{
    const int64_t rows = (int64_t)length * kac_query_rows(&q);
    const int64_t row = (int64_t)blockIdx.x * NORM_ROWS + threadIdx.x / KAC_SUM_LANES;
    const int lane = (int)threadIdx.x % KAC_SUM_LANES;
    const int64_t at = (row < rows ? row : 0) * kac_cuda_step(norm.channels);
    if ((int64_t)blockIdx.x * NORM_ROWS >= rows) return;
    norm_of_row m = measure(&norm, in + at, lane);
    for (int32_t c = lane; row < rows && c < norm.channels; c += KAC_SUM_LANES) {
        float y = (shifted(&norm, in + at, c) - m.mean) * m.scale;
        out[at + c] = fmaf(y, norm.gamma[c], norm.beta[c]);
    }
}

kac_status kac_cuda_norm_run(kac_device *dev, const kac_query *q, const kac_cuda_norm *norm,
                             int32_t length, const float *in, float *out)
{
    return KAC_LAUNCH(dev, normalise, norm_blocks(q, length), KAC_THREADS, 0, *q, *norm, length,
                      in, out);
}

struct norm_back_call {
    kac_query q;
    kac_cuda_norm norm;
    int32_t length;
    const float *in, *g, *add;
    float *out;
};

/* With y = (x - mean) scale and h = g gamma: scale (h - mean(h) - y mean(h y)). */
KAC_KERNEL norm_back(KAC_ARGS norm_back_call a)
{
    const int32_t n = a.norm.channels;
    const int64_t rows = (int64_t)a.length * kac_query_rows(&a.q);
    const int64_t row = (int64_t)blockIdx.x * NORM_ROWS + threadIdx.x / KAC_SUM_LANES;
    const int lane = (int)threadIdx.x % KAC_SUM_LANES;
    const int64_t at = (row < rows ? row : 0) * kac_cuda_step(n);
    const float *x = a.in + at, *g = a.g + at;
    if ((int64_t)blockIdx.x * NORM_ROWS >= rows) return;
    norm_of_row m = measure(&a.norm, x, lane);
    float sum = 0, dot = 0;
    for (int32_t c = lane; c < n; c += KAC_SUM_LANES) {
        float y = (shifted(&a.norm, x, c) - m.mean) * m.scale, h = g[c] * a.norm.gamma[c];
        sum += h;
        dot = fmaf(h, y, dot);
    }
    const float mean = tree(sum) / (float)n, slope = -(tree(dot) / (float)n);
    for (int32_t c = lane; row < rows && c < n; c += KAC_SUM_LANES) {
        float y = (shifted(&a.norm, x, c) - m.mean) * m.scale;
        float h = g[c] * a.norm.gamma[c] - mean;
        h = fmaf(y, slope, h) * m.scale;
        a.out[at + c] = a.add != NULL ? a.add[at + c] + h : h;
    }
}

kac_status kac_cuda_norm_back(kac_device *dev, const kac_query *q, const kac_cuda_norm *norm,
                              int32_t length, const float *in, const float *g, const float *add,
                              float *out)
{
    const norm_back_call a = {*q, *norm, length, in, g, add, out};
    return KAC_LAUNCH(dev, norm_back, norm_blocks(q, length), KAC_THREADS, 0, a);
}
