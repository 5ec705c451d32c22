/* convgru_cuda.cu -- a window of rows through all layers of a convgru, and back.
 *
 * What the gates take from the input is one dense layer over all positions; the recurrence is
 * one kernel a direction, whose blocks take a few rows through all positions.
 */
#include <math.h>
#include <stdlib.h>

#include "gru.h"
#include "layer_cuda.cuh"

/* A host struct; its pointers are the device's. */
struct kac_net {
    int32_t states, channels, blocks, residual, outputs;
    int32_t step; /* floats of a row of channels */
    kac_cuda_layer stem;
    kac_cuda_layer conv[KAC_CONVGRU_MAX_BLOCKS]; /* BatchNorm folded in */
    kac_cuda_layer gru_input[2], gru_hidden[2];  /* 3 C outputs; 1: the reverse direction */
    kac_cuda_layer ffn0, ffn1, head;
    float *norm, *norm_bias; /* [C] */
};

/* ---- pack --------------------------------------------------------------------------------- */

/* A convolution in PyTorch's shape, [out][in][taps]; a dense layer has one tap. */
static kac_status pack_layer(kac_device *dev, int32_t out_channels, int32_t in, int32_t taps,
                             const float *weight, const float *bias, kac_cuda_layer *out)
{
    const kac_tile_weights w = {weight, out_channels, taps, in, (int64_t)in * taps, 1, taps};
    KAC_TRY(kac_cuda_layer_pack(dev, &w, bias, out));
    if (taps == 1) return KAC_OK;
    out->there.precision = dev->precision;
    return kac_cuda_conv_group(dev, &w, &out->there);
}

static kac_status pack_block(kac_device *dev, const kac_convgru_weights *w, int32_t i,
                             kac_cuda_layer *out)
{
    const int32_t c = w->channels;
    if (w->norm[i] == NULL)
        return pack_layer(dev, c, c, KAC_CONVGRU_TAPS, w->conv[i], w->conv_bias[i], out);
    float *weight = (float *)malloc(kac_convgru_folded_floats(w) * sizeof *weight);
    if (weight == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "convgru: no memory to pack it");
    const float *bias = kac_convgru_fold(w, i, weight);
    kac_status status = pack_layer(dev, c, c, KAC_CONVGRU_TAPS, weight, bias, out);
    free(weight);
    return status;
}

static kac_status pack(kac_device *dev, const kac_convgru_weights *w, kac_net *net)
{
    const int32_t c = w->channels;
    KAC_TRY(pack_layer(dev, c, w->states, KAC_CONVGRU_STEM_TAPS, w->stem, w->stem_bias,
                       &net->stem));
    KAC_TRY(kac_cuda_conv_letters(dev, &net->stem.there));
    for (int32_t i = 0; i < w->blocks; i++)
        KAC_TRY(pack_block(dev, w, i, &net->conv[i]));
    for (int d = 0; d < 2; d++) {
        KAC_TRY(pack_layer(dev, 3 * c, c, 1, w->gru_input[d], w->gru_input_bias[d],
                           &net->gru_input[d]));
        KAC_TRY(pack_layer(dev, 3 * c, c, 1, w->gru_hidden[d], w->gru_hidden_bias[d],
                           &net->gru_hidden[d]));
    }
    KAC_TRY(pack_layer(dev, 2 * c, c, 1, w->ffn0, w->ffn0_bias, &net->ffn0));
    KAC_TRY(pack_layer(dev, c, 2 * c, 1, w->ffn1, w->ffn1_bias, &net->ffn1));
    KAC_TRY(pack_layer(dev, w->outputs, c, 1, w->head, w->head_bias, &net->head));
    net->norm = kac_cuda_floats(dev, w->layer_norm, c, c);
    net->norm_bias = kac_cuda_floats(dev, w->layer_norm_bias, c, c);
    return net->norm != NULL && net->norm_bias != NULL ? KAC_OK : KAC_ERR_NOMEM;
}

/* Rows that a block of the recurrence takes: more of them share what they read of the weights,
 * as far as their states fit 48 KB of shared memory, and twice that on the way back. */
enum { FEW_ROWS = 2, MANY_ROWS = 8, MOST_CHANNELS = 2048, BACK_BYTES = 64 << 10 };

static int rows_of_block(int32_t channels)
{
    return channels * MANY_ROWS <= MOST_CHANNELS * FEW_ROWS ? MANY_ROWS : FEW_ROWS;
}

kac_status kac_cuda_convgru_pack(kac_device *dev, const kac_convgru_weights *host_weights,
                                 kac_net **out)
{
    const kac_convgru_weights *w = host_weights;
    KAC_REQUIRE(w->channels >= 1 && w->outputs >= 1);
    KAC_REQUIRE(w->blocks >= 0 && w->blocks <= KAC_CONVGRU_MAX_BLOCKS);
    if (w->channels > MOST_CHANNELS)
        return KAC_FAIL(KAC_ERR_UNSUPPORTED, "convgru: %d channels, and a GPU takes up to %d",
                        (int)w->channels, (int)MOST_CHANNELS);
    kac_net *net = (kac_net *)calloc(1, sizeof *net);
    if (net == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "convgru: no memory to pack it");
    net->states = w->states;
    net->channels = w->channels;
    net->blocks = w->blocks;
    net->residual = w->residual;
    net->outputs = w->outputs;
    net->step = kac_cuda_step(w->channels);
    kac_status status = pack(dev, w, net);
    if (status == KAC_OK)
        *out = net;
    else
        kac_cuda_convgru_drop(dev, net);
    return status;
}

void kac_cuda_convgru_drop(kac_device *dev, kac_net *net)
{
    if (net == NULL) return;
    kac_cuda_layer_drop(dev, &net->stem);
    for (int32_t i = 0; i < net->blocks; i++)
        kac_cuda_layer_drop(dev, &net->conv[i]);
    for (int d = 0; d < 2; d++) {
        kac_cuda_layer_drop(dev, &net->gru_input[d]);
        kac_cuda_layer_drop(dev, &net->gru_hidden[d]);
    }
    kac_cuda_layer_drop(dev, &net->ffn0);
    kac_cuda_layer_drop(dev, &net->ffn1);
    kac_cuda_layer_drop(dev, &net->head);
    dev->ops->memory.release(dev, net->norm);
    dev->ops->memory.release(dev, net->norm_bias);
    free(net);
}

/* ---- the recurrence ----------------------------------------------------------------------- */

/* A value of each of a block's rows, side by side in shared memory. */
template <int ROWS> struct __align__(ROWS >= 4 ? 16 : 4 * ROWS) each_row
{
    float of[ROWS];
};

/* Of both directions: blockIdx.y says which. */
struct gru_call {
    kac_query q;
    int32_t length, channels;
    kac_cuda_conv hidden[2];
    const float *input[2]; /* [length][batch][step of 3 C]: what the input gives to the gates */
    float *y[2];           /* [length][batch][step of C]: the states */
    float *kept[2];        /* [length][batch] KAC_GRU_KEPT rows of channels; or NULL */
};

/* Bound by the latency of C products a position, which the rows of a block and three gates a
 * thread hide.  Shared: the states before and after, [2][C][ROWS]. */
template <int ROWS> KAC_KERNEL run_gru(KAC_ARGS gru_call a)
{
    KAC_DYNAMIC_SHARED(each_row<ROWS>, states);
    const int d = (int)blockIdx.y;
    const int32_t c = a.channels, batch = kac_query_rows(&a.q), step = kac_cuda_step(c);
    const int64_t first = (int64_t)blockIdx.x * ROWS;
    const float *weight = a.hidden[d].weight, *bias = a.hidden[d].bias;
    const int32_t w_step = a.hidden[d].step;
    if (first >= batch) return;
    for (int32_t i = (int32_t)threadIdx.x; i < c; i += (int32_t)blockDim.x)
        states[i] = {};
    __syncthreads();
    for (int32_t n = 0; n < a.length; n++) {
        const int64_t t = d == 0 ? n : a.length - 1 - n;
        const each_row<ROWS> *old = states + n % 2 * c;
        each_row<ROWS> *now = states + (n + 1) % 2 * c;
        for (int32_t i = (int32_t)threadIdx.x; i < c; i += (int32_t)blockDim.x) {
            float gate[3][ROWS];
            KAC_UNROLL
            for (int g = 0; g < 3; g++) {
                KAC_UNROLL
                for (int r = 0; r < ROWS; r++)
                    gate[g][r] = bias[g * c + i];
            }
            for (int32_t k = 0; k < c; k++) {
                const float *w = weight + (int64_t)k * w_step + i;
                const float w0 = w[0], w1 = w[c], w2 = w[2 * c];
                const each_row<ROWS> h = old[k];
                KAC_UNROLL
                for (int r = 0; r < ROWS; r++) {
                    gate[0][r] = fmaf(h.of[r], w0, gate[0][r]);
                    gate[1][r] = fmaf(h.of[r], w1, gate[1][r]);
                    gate[2][r] = fmaf(h.of[r], w2, gate[2][r]);
                }
            }
            KAC_UNROLL
            for (int r = 0; r < ROWS; r++) {
                if (first + r >= batch) break;
                const int64_t row = t * batch + first + r;
                const float *in = a.input[d] + row * w_step + i;
                const kac_gru_gates s =
                    kac_gru_step(in[0], in[c], in[2 * c], gate[0][r], gate[1][r], gate[2][r]);
                const float h = old[i].of[r], next = kac_gru_state(s, h);
                now[i].of[r] = next;
                a.y[d][row * step + i] = next;
                if (a.kept[d] == NULL) continue;
                float *kept = a.kept[d] + row * KAC_GRU_KEPT * step + i;
                kept[0] = s.r;
                kept[step] = s.z;
                kept[2 * step] = s.n;
                kept[3 * step] = gate[2][r];
                kept[4 * step] = h;
            }
        }
        __syncthreads();
    }
}

/* Threads of a block: one a channel, whole warps. */
static unsigned gru_threads(int32_t channels)
{
    int32_t threads = (channels + KAC_WARP - 1) / KAC_WARP * KAC_WARP;
    return (unsigned)(threads < KAC_THREADS ? threads : KAC_THREADS);
}

/* sum = the states of the two directions at each position; y: room for those of the second. */
static kac_status run_both(kac_device *dev, const kac_net *net, const kac_query *q,
                           const gru_call *call, float *sum)
{
    const int rows = rows_of_block(net->channels);
    const dim3 blocks((unsigned)((q->capacity - 1) / rows + 1), 2);
    const unsigned threads = gru_threads(net->channels);
    const size_t bytes = 2 * (size_t)net->channels * (size_t)rows * sizeof(float);
    auto *recurrence = rows == MANY_ROWS ? run_gru<MANY_ROWS> : run_gru<FEW_ROWS>;
    KAC_TRY(KAC_LAUNCH(dev, recurrence, blocks, threads, bytes, *call));
    return kac_cuda_add(dev, q, (int64_t)q->length * net->step, call->y[0], call->y[1], sum);
}

/* ---- forward ------------------------------------------------------------------------------ */

static const kac_cuda_ending linear = {NULL, NULL, KAC_ACT_LINEAR, NULL, NULL};
static const kac_cuda_ending relu = {NULL, NULL, KAC_ACT_RELU, NULL, NULL};

static kac_cuda_norm norm_of(const kac_net *net)
{
    return {net->norm, net->norm_bias, NULL, net->channels};
}

static kac_cuda_shape stem_shape(int32_t length)
{
    return {length, length, 1, KAC_CONVGRU_STEM_TAPS / 2};
}

static kac_cuda_shape block_shape(int32_t length)
{
    return {length, length, 1, KAC_CONVGRU_TAPS / 2};
}

/* out = relu(conv(in) (+ in)). */
static kac_status run_block(kac_device *dev, const kac_net *net, const kac_query *q,
                            int32_t block, const float *in, float *out)
{
    const kac_cuda_shape shape = block_shape(q->length);
    const kac_cuda_ending end = {NULL, net->residual ? in : NULL, KAC_ACT_RELU, NULL, NULL};
    return kac_cuda_conv_run(dev, q, &net->conv[block].there, &shape, &end, in, out);
}

/* What both directions take from the input x; the rest of the call is left to the caller. */
static kac_status feed_gru(kac_device *dev, const kac_net *net, const kac_query *q,
                           const float *x, float *const *input, gru_call *call)
{
    *call = {};
    call->q = *q;
    call->length = q->length;
    call->channels = net->channels;
    for (int d = 0; d < 2; d++) {
        call->hidden[d] = net->gru_hidden[d].there;
        call->input[d] = input[d];
        KAC_TRY(kac_cuda_dense_run(dev, q, &net->gru_input[d].there, q->length, &linear, x,
                                   input[d]));
    }
    return KAC_OK;
}

/* Floats of a row: of an array between layers, and of what the gates or ffn0 give. */
static int64_t array_floats(const kac_net *net, int32_t length)
{
    int32_t width = kac_cuda_step(net->states);
    return (int64_t)length * (width > net->step ? width : net->step);
}

static int64_t gate_floats(const kac_net *net, int32_t length)
{
    return (int64_t)length * net->gru_input[0].there.step;
}

/* The arrays that a window goes to and fro between. */
struct workspace {
    float *x, *y, *z;
    float *gates[2]; /* large enough for ffn0's and the head's outputs too */
};

static int64_t workspace_floats(const kac_net *net, int32_t length)
{
    return 3 * array_floats(net, length) + 2 * gate_floats(net, length) + net->head.there.step;
}

static workspace workspace_of(const kac_net *net, int32_t length, int64_t rows, float *memory)
{
    const int64_t array = rows * array_floats(net, length);
    float *gates = memory + 3 * array;
    return {memory,
            memory + array,
            memory + 2 * array,
            {gates, gates + rows * gate_floats(net, length)}};
}

static kac_status run_window(kac_device *dev, const kac_net *net, const kac_query *q,
                             const workspace *w)
{
    const kac_cuda_frame no_frame = {};
    const kac_cuda_shape shape = stem_shape(q->length);
    const kac_cuda_norm norm = norm_of(net);
    float *x = w->x, *y = w->y;
    gru_call call;
    KAC_TRY(kac_cuda_first_run(dev, q, &no_frame, &net->stem.there, &shape, &relu, y, x));
    for (int32_t i = 0; i < net->blocks; i++) {
        KAC_TRY(run_block(dev, net, q, i, x, y));
        float *result = y;
        y = x;
        x = result;
    }
    KAC_TRY(feed_gru(dev, net, q, x, w->gates, &call));
    call.y[0] = y;
    call.y[1] = w->z;
    KAC_TRY(run_both(dev, net, q, &call, x));
    KAC_TRY(kac_cuda_norm_run(dev, q, &norm, q->length, x, y));
    KAC_TRY(kac_cuda_dense_run(dev, q, &net->ffn0.there, q->length, &relu, y, w->gates[0]));
    KAC_TRY(kac_cuda_dense_run(dev, q, &net->ffn1.there, q->length, &linear, w->gates[0], y));
    KAC_TRY(kac_cuda_mean(dev, q, 1, q->length, net->step, y, x));
    KAC_TRY(kac_cuda_dense_run(dev, q, &net->head.there, 1, &linear, x, w->gates[0]));
    return kac_cuda_rows_out(dev, q, 0, 1, net->outputs, w->gates[0]);
}

kac_status kac_cuda_convgru_forward(kac_device *dev, const kac_net *net, const kac_query *q)
{
    int32_t rows = 0;
    float *memory = NULL;
    KAC_TRY(kac_cuda_window(dev, q, workspace_floats(net, q->length), &rows, &memory));
    const workspace w = workspace_of(net, q->length, rows, memory);
    for (int32_t begin = 0; begin < q->capacity; begin += rows) {
        const kac_query window = kac_query_window(q, begin, rows, net->states);
        KAC_TRY(run_window(dev, net, &window, &w));
    }
    return KAC_OK;
}

/* ---- vector-Jacobian product -------------------------------------------------------------- */

/* As gru_call: from g, the gradient of the states' sum at each position, to that of what the
 * input gives to the gates. */
struct gru_back_call {
    kac_query q;
    int32_t length, channels;
    kac_cuda_conv hidden[2]; /* transposed */
    const float *kept[2], *g;
    float *gates[2];
};

/* Bound as run_gru.  Shared: the gradients of what the states give to the gates, [3 C][ROWS],
 * and of the state, [C][ROWS]. */
template <int ROWS> KAC_KERNEL gru_back(KAC_ARGS gru_back_call a)
{
    KAC_DYNAMIC_SHARED(each_row<ROWS>, gates);
    const int d = (int)blockIdx.y;
    const int32_t c = a.channels, batch = kac_query_rows(&a.q), step = kac_cuda_step(c);
    const int32_t in_step = kac_cuda_step(3 * c);
    const int64_t first = (int64_t)blockIdx.x * ROWS;
    const float *weight = a.hidden[d].weight;
    each_row<ROWS> *state = gates + 3 * c;
    if (first >= batch) return;
    for (int32_t i = (int32_t)threadIdx.x; i < 4 * c; i += (int32_t)blockDim.x)
        gates[i] = {};
    __syncthreads();
    for (int32_t n = a.length - 1; n >= 0; n--) {
        const int64_t t = d == 0 ? n : a.length - 1 - n;
        for (int32_t i = (int32_t)threadIdx.x; i < c; i += (int32_t)blockDim.x) {
            KAC_UNROLL
            for (int r = 0; r < ROWS; r++) {
                if (first + r >= batch) break;
                const int64_t row = t * batch + first + r;
                const float *kept = a.kept[d] + row * KAC_GRU_KEPT * step + i;
                const kac_gru_gates s = {kept[0], kept[step], kept[2 * step]};
                const float dh = state[i].of[r] + a.g[row * step + i];
                const kac_gru_slopes b = kac_gru_back(s, kept[3 * step], kept[4 * step], dh);
                float *out = a.gates[d] + row * in_step + i;
                out[0] = gates[i].of[r] = b.dr;
                out[c] = gates[c + i].of[r] = b.dz;
                out[2 * c] = b.dn;
                gates[2 * c + i].of[r] = b.dn * s.r;
                state[i].of[r] = dh * s.z;
            }
        }
        __syncthreads();
        for (int32_t i = (int32_t)threadIdx.x; i < c; i += (int32_t)blockDim.x) {
            float back[ROWS];
            KAC_UNROLL
            for (int r = 0; r < ROWS; r++)
                back[r] = 0;
            for (int32_t k = 0; k < 3 * c; k++) {
                const float w = weight[(int64_t)k * step + i];
                const each_row<ROWS> g = gates[k];
                KAC_UNROLL
                for (int r = 0; r < ROWS; r++)
                    back[r] = fmaf(g.of[r], w, back[r]);
            }
            KAC_UNROLL
            for (int r = 0; r < ROWS; r++)
                state[i].of[r] += back[r];
        }
        __syncthreads();
    }
}

/* call->gates, of both directions. */
static kac_status both_back(kac_device *dev, const kac_net *net, const kac_query *q,
                            const gru_back_call *call)
{
    const int rows = rows_of_block(net->channels);
    const dim3 blocks((unsigned)((q->capacity - 1) / rows + 1), 2);
    const size_t bytes = 4 * (size_t)net->channels * (size_t)rows * sizeof(float);
    auto *recurrence_back = rows == MANY_ROWS ? gru_back<MANY_ROWS> : gru_back<FEW_ROWS>;
    KAC_TRY(kac_allow_shared(recurrence_back, BACK_BYTES)); /* of every network's */
    return KAC_LAUNCH(dev, recurrence_back, blocks, gru_threads(net->channels), bytes, *call);
}

/* x = x / n, and gated = y <= 0 ? 0 : g of the same row at every position. */
KAC_KERNEL divide(KAC_ARGS kac_query q, int32_t step, float n, float *x)
{
    KAC_EACH (i, (int64_t)kac_query_rows(&q) * step)
        x[i] = x[i] / n;
}

KAC_KERNEL gate_all(KAC_ARGS kac_query q, int32_t step, const float *g, float *y)
{
    const int64_t position = (int64_t)kac_query_rows(&q) * step;
    KAC_EACH (i, position * q.length)
        y[i] = kac_activate_back(KAC_ACT_RELU, 0, y[i], g[i % position]);
}

/* What a vjp keeps: what the stem gives and each block, the sum of the directions, and what
 * these keep. */
struct tape {
    float *y[KAC_CONVGRU_MAX_BLOCKS + 1];
    float *sum;
    float *kept[2];
};

static int64_t tape_floats(const kac_net *net, int32_t length)
{
    return (net->blocks + 2) * array_floats(net, length) +
           2 * (int64_t)KAC_GRU_KEPT * length * net->step;
}

static tape tape_of(const kac_net *net, int32_t length, int64_t rows, float *memory)
{
    const int64_t array = rows * array_floats(net, length);
    tape t;
    for (int32_t i = 0; i <= net->blocks; i++, memory += array)
        t.y[i] = memory;
    t.sum = memory;
    t.kept[0] = t.sum + array;
    t.kept[1] = t.kept[0] + rows * KAC_GRU_KEPT * length * net->step;
    return t;
}

/* The forward up to the sum of the directions, with all that the way back needs. */
static kac_status record(kac_device *dev, const kac_net *net, const kac_query *q,
                         const workspace *w, const tape *t)
{
    const kac_cuda_frame no_frame = {};
    const kac_cuda_shape shape = stem_shape(q->length);
    gru_call call;
    KAC_TRY(
        kac_cuda_first_run(dev, q, &no_frame, &net->stem.there, &shape, &relu, w->x, t->y[0]));
    for (int32_t i = 0; i < net->blocks; i++)
        KAC_TRY(run_block(dev, net, q, i, t->y[i], t->y[i + 1]));
    KAC_TRY(feed_gru(dev, net, q, t->y[net->blocks], w->gates, &call));
    call.y[0] = w->x;
    call.y[1] = w->y;
    call.kept[0] = t->kept[0];
    call.kept[1] = t->kept[1];
    return run_both(dev, net, q, &call, t->sum);
}

/* w->x = the gradient of the sum of the directions at each position.  Head, mean and second
 * dense layer are linear, so what reaches the first one is the same at every position. */
static kac_status ends_back(kac_device *dev, const kac_net *net, const kac_query *q,
                            const float *cotangent, const workspace *w, const tape *t)
{
    const kac_cuda_norm norm = norm_of(net);
    const kac_cuda_conv *ffn0 = &net->ffn0.there;
    float *through = w->gates[1], *gated = w->gates[0];
    KAC_TRY(kac_cuda_rows_in(dev, q, 1, net->outputs, cotangent, gated));
    KAC_TRY(kac_cuda_dense_run(dev, q, &net->head.back, 1, &linear, gated, w->y));
    KAC_TRY(KAC_LAUNCH(dev, divide, kac_blocks((int64_t)q->capacity * net->step), KAC_THREADS,
                       0, *q, net->step, (float)q->length, w->y));
    KAC_TRY(kac_cuda_dense_run(dev, q, &net->ffn1.back, 1, &linear, w->y, through));
    KAC_TRY(kac_cuda_norm_run(dev, q, &norm, q->length, t->sum, w->y));
    KAC_TRY(kac_cuda_dense_run(dev, q, ffn0, q->length, &relu, w->y, gated));
    KAC_TRY(KAC_LAUNCH(dev, gate_all, kac_blocks((int64_t)q->length * q->capacity * ffn0->step),
                       KAC_THREADS, 0, *q, ffn0->step, through, gated));
    KAC_TRY(kac_cuda_dense_run(dev, q, &net->ffn0.back, q->length, &linear, gated, w->y));
    return kac_cuda_norm_back(dev, q, &norm, q->length, t->sum, w->y, NULL, w->x);
}

/* w->x, the gradient of the sum of the directions, becomes that of what the last block gives. */
static kac_status directions_back(kac_device *dev, const kac_net *net, const kac_query *q,
                                  const workspace *w, const tape *t)
{
    const gru_back_call call = {*q,
                                q->length,
                                net->channels,
                                {net->gru_hidden[0].back, net->gru_hidden[1].back},
                                {t->kept[0], t->kept[1]},
                                w->x,
                                {w->gates[0], w->gates[1]}};
    KAC_TRY(both_back(dev, net, q, &call));
    KAC_TRY(kac_cuda_dense_run(dev, q, &net->gru_input[0].back, q->length, &linear, w->gates[0],
                               w->y));
    KAC_TRY(kac_cuda_dense_run(dev, q, &net->gru_input[1].back, q->length, &linear, w->gates[1],
                               w->z));
    return kac_cuda_add(dev, q, (int64_t)q->length * net->step, w->y, w->z, w->x);
}

/* The query's results are the gradients. */
static kac_status differentiate(kac_device *dev, const kac_net *net, const kac_query *q,
                                const float *cotangent, const workspace *w, const tape *t)
{
    const int64_t floats = (int64_t)q->length * net->step;
    const kac_cuda_shape stem = stem_shape(q->length), block = block_shape(q->length);
    float *g = w->x, *other = w->y;
    KAC_TRY(record(dev, net, q, w, t));
    KAC_TRY(ends_back(dev, net, q, cotangent, w, t));
    KAC_TRY(directions_back(dev, net, q, w, t));
    for (int32_t i = net->blocks - 1; i >= 0; i--) {
        const kac_cuda_ending end = {NULL, net->residual ? g : NULL, KAC_ACT_LINEAR, NULL,
                                     NULL};
        KAC_TRY(kac_cuda_gate(dev, q, floats, t->y[i + 1], g, g));
        KAC_TRY(kac_cuda_conv_run(dev, q, &net->conv[i].back, &block, &end, g, other));
        float *result = other;
        other = g;
        g = result;
    }
    KAC_TRY(kac_cuda_gate(dev, q, floats, t->y[0], g, g));
    KAC_TRY(kac_cuda_conv_run(dev, q, &net->stem.back, &stem, &linear, g, other));
    return kac_cuda_rows_out(dev, q, 0, q->length, net->states, other);
}

kac_status kac_cuda_convgru_vjp(kac_device *dev, const kac_net *net, const kac_query *q,
                                const float *cotangent, float *grad)
{
    const int64_t work = workspace_floats(net, q->length);
    const kac_query to_grad = kac_query_to(q, grad, q->length * net->states);
    int32_t rows = 0;
    float *memory = NULL;
    KAC_TRY(kac_cuda_window(dev, q, work + tape_floats(net, q->length), &rows, &memory));
    const workspace w = workspace_of(net, q->length, rows, memory);
    const tape t = tape_of(net, q->length, rows, memory + rows * work);
    for (int32_t begin = 0; begin < q->capacity; begin += rows) {
        const kac_query window = kac_query_window(&to_grad, begin, rows, net->states);
        KAC_TRY(differentiate(dev, net, &window, cotangent + (int64_t)begin * net->outputs, &w,
                              &t));
    }
    return KAC_OK;
}
