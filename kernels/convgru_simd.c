/* convgru_simd.c -- a chunk of rows through all layers of a convgru, and back. */
#include <string.h>

#include "convgru.h"
#include "layer_simd.h"
#include "norm_simd.h"

static kac_layer_shape stem_shape(const kac_net *net, int32_t length, int32_t batch)
{
    return (kac_layer_shape){length, length, net->states, batch, 1, KAC_CONVGRU_STEM_TAPS / 2};
}

static kac_layer_shape block_shape(const kac_net *net, int32_t length, int32_t batch)
{
    return (kac_layer_shape){length, length, net->step, batch, 1, KAC_CONVGRU_TAPS / 2};
}

/* out = relu(conv(in) (+ in)). */
static void run_block(const kac_net *net, int32_t block, int32_t length, int32_t batch,
                      const float *in, float *out)
{
    const int64_t n = (int64_t)length * batch * net->step;
    const kac_layer_shape shape = block_shape(net, length, batch);
    kac_layer_conv(&net->conv[block], net->residual ? KAC_TILE_LINEAR : KAC_TILE_RELU, &shape,
                   in, out);
    for (int64_t j = 0; net->residual && j < n; j += KAC_LANES)
        kac_vec_store(out + j, kac_vec_relu(kac_vec_load(out + j) + kac_vec_load(in + j)));
}

/* One step of the recurrence for a row: h becomes (1 - z) n + z h. */
static void step_row(int32_t c, const float *input, const float *hidden, float *h)
{
    for (int32_t i = 0; i < c; i++) {
        kac_gru_gates s = kac_gru_step(input[i], input[c + i], input[2 * c + i], hidden[i],
                                       hidden[c + i], hidden[2 * c + i]);
        h[i] = kac_gru_state(s, h[i]);
    }
}

/* The same, and keeps what the way back needs (KAC_GRU_KEPT).  Compilers vectorise this many
 * arrays only if told that they do not overlap. */
static void keep_row(int32_t c, int32_t step, const float *restrict input,
                     const float *restrict hidden, float *restrict h, float *restrict kept)
{
    for (int32_t i = 0; i < c; i++) {
        kac_gru_gates s = kac_gru_step(input[i], input[c + i], input[2 * c + i], hidden[i],
                                       hidden[c + i], hidden[2 * c + i]);
        kept[i] = s.r;
        kept[step + i] = s.z;
        kept[2 * step + i] = s.n;
        kept[3 * step + i] = hidden[2 * c + i];
        kept[4 * step + i] = h[i];
        h[i] = kac_gru_state(s, h[i]);
    }
}

/* y[t] = the state after x[t] in reading order; the reverse direction adds its own to it.
 * `small` has room for one position; `kept`, where not NULL, for what a direction keeps. */
static void run_gru(const kac_net *net, int direction, int32_t length, int32_t batch,
                    const float *x, float *y, float *kept, float *small)
{
    const int32_t c = net->channels;
    const int64_t position = (int64_t)batch * net->step;
    const kac_layer *to_input = &net->gru_input[direction];
    const kac_layer *to_hidden = &net->gru_hidden[direction];
    float *h = small;
    float *input = h + position;
    float *hidden = input + (int64_t)batch * to_input->step;
    memset(h, 0, (size_t)position * sizeof *h);
    for (int32_t i = 0; i < length; i++) {
        int64_t t = direction == 0 ? i : length - 1 - i;
        kac_layer_dense(to_input, KAC_TILE_LINEAR, x + t * position, net->step, batch, input);
        kac_layer_dense(to_hidden, KAC_TILE_LINEAR, h, net->step, batch, hidden);
        for (int32_t b = 0; b < batch; b++) {
            const float *in = input + (int64_t)b * to_input->step;
            const float *hid = hidden + (int64_t)b * to_hidden->step;
            float *state = h + (int64_t)b * net->step;
            if (kept == NULL)
                step_row(c, in, hid, state);
            else
                keep_row(c, net->step, in, hid, state,
                         kept + (t * batch + b) * KAC_GRU_KEPT * net->step);
        }
        float *sum = y + t * position;
        for (int64_t j = 0; j < position; j += KAC_LANES) {
            kac_vec state = kac_vec_load(h + j);
            if (direction == 1) state = kac_vec_load(sum + j) + state;
            kac_vec_store(sum + j, state);
        }
    }
}

/* LayerNorm of each row, in place. */
static void normalise(const kac_net *net, int32_t batch, float *x)
{
    for (int32_t b = 0; b < batch; b++, x += net->step)
        kac_norm_apply(kac_norm_of(x, net->channels), net->norm, net->norm_bias, net->channels,
                       x, x);
}

const float *KAC_SIMD_NAME(kac_convgru_chunk)(const kac_net *net, int32_t length, int32_t batch,
                                              float *work)
{
    const int64_t array = kac_convgru_array_floats(net, length, batch);
    const int64_t position = (int64_t)batch * net->step;
    float *x = work;
    float *y = work + array;
    float *small = work + 2 * array;
    const kac_layer_shape shape = stem_shape(net, length, batch);

    kac_layer_conv(&net->stem, KAC_TILE_RELU, &shape, x, y);
    for (int32_t i = 0; i < net->blocks; i++) {
        run_block(net, i, length, batch, y, x);
        float *result = x;
        x = y;
        y = result;
    }
    run_gru(net, 0, length, batch, y, x, NULL, small);
    run_gru(net, 1, length, batch, y, x, NULL, small);
    for (int64_t l = 0; l < length; l++) {
        normalise(net, batch, x + l * position);
        kac_layer_dense(&net->ffn0, KAC_TILE_RELU, x + l * position, net->step, batch, small);
        kac_layer_dense(&net->ffn1, KAC_TILE_LINEAR, small, net->ffn0.step, batch,
                        y + l * position);
    }
    kac_layer_mean(y, position, length, position, x);
    kac_layer_dense(&net->head, KAC_TILE_LINEAR, x, net->step, batch, small);
    return small;
}

/* ---- the vector-Jacobian product --------------------------------------------------------- */

/* x, the sum of the directions at each position, becomes its gradient.  Head, mean and second
 * dense layer are linear, so what reaches the first one is the same at every position. */
static void ends_back(const kac_net *net, int32_t length, int32_t batch, const float *cotangent,
                      float *x, float *y, float *small)
{
    const int64_t position = (int64_t)batch * net->step;
    const int64_t wide = (int64_t)batch * net->ffn0.step;
    float *through = small; /* [batch][ffn0.step] */
    float *gated = through + wide;
    kac_layer_dense(net->head.back, KAC_TILE_LINEAR, cotangent, net->outputs, batch, y);
    for (int64_t j = 0; j < position; j += KAC_LANES)
        kac_vec_store(y + j, kac_vec_load(y + j) / kac_vec_splat((float)length));
    kac_layer_dense(net->ffn1.back, KAC_TILE_LINEAR, y, net->step, batch, through);

    for (int32_t l = 0; l < length; l++, x += position) {
        memcpy(y, x, (size_t)position * sizeof *y);
        normalise(net, batch, y);
        kac_layer_dense(&net->ffn0, KAC_TILE_RELU, y, net->step, batch, gated);
        kac_layer_gate(wide, gated, through, gated);
        kac_layer_dense(net->ffn0.back, KAC_TILE_LINEAR, gated, net->ffn0.step, batch, y);
        for (int64_t b = 0; b < batch; b++) {
            const float *row = x + b * net->step;
            kac_norm_back(kac_norm_of(row, net->channels), net->norm, net->channels, row,
                          y + b * net->step);
        }
        memcpy(x, y, (size_t)position * sizeof *x);
    }
}

/* One step of the recurrence for a row: dh, the gradient of the state after it, becomes what of
 * it goes straight to the state before; `input` and `hidden` get the gradients of what step_row
 * read. */
static void row_back(int32_t c, int32_t step, const float *restrict kept, float *restrict dh,
                     float *restrict input, float *restrict hidden)
{
    for (int32_t i = 0; i < c; i++) {
        kac_gru_gates s = {kept[i], kept[step + i], kept[2 * step + i]};
        kac_gru_slopes b = kac_gru_back(s, kept[3 * step + i], kept[4 * step + i], dh[i]);
        input[i] = hidden[i] = b.dr;
        input[c + i] = hidden[c + i] = b.dz;
        input[2 * c + i] = b.dn;
        hidden[2 * c + i] = b.dn * s.r;
        dh[i] *= s.z;
    }
}

/* gates[t] = the gradient of the input's share of the gates at t, from g, that of y in run_gru.
 * `small` has room for one position. */
static void gru_back(const kac_net *net, int direction, int32_t length, int32_t batch,
                     const float *kept, const float *g, float *gates, float *small)
{
    const int64_t position = (int64_t)batch * net->step;
    const int64_t in_step = net->gru_input[direction].step;
    const kac_layer *to_hidden = &net->gru_hidden[direction];
    float *dh = small;
    float *hidden = dh + position;
    float *back = hidden + (int64_t)batch * to_hidden->step;
    memset(dh, 0, (size_t)position * sizeof *dh);
    for (int32_t i = length - 1; i >= 0; i--) {
        int64_t t = direction == 0 ? i : length - 1 - i;
        kac_layer_add(position, dh, g + t * position, dh);
        for (int32_t b = 0; b < batch; b++)
            row_back(net->channels, net->step,
                     kept + (t * batch + b) * KAC_GRU_KEPT * net->step,
                     dh + (int64_t)b * net->step, gates + (t * batch + b) * in_step,
                     hidden + (int64_t)b * to_hidden->step);
        kac_layer_dense(to_hidden->back, KAC_TILE_LINEAR, hidden, to_hidden->step, batch, back);
        kac_layer_add(position, dh, back, dh);
    }
}

const float *KAC_SIMD_NAME(kac_convgru_vjp)(const kac_net *net, int32_t length, int32_t batch,
                                            const float *cotangent, float *work)
{
    const int64_t array = kac_convgru_array_floats(net, length, batch);
    const int64_t floats = (int64_t)length * batch * net->step;
    const kac_layer_shape stem = stem_shape(net, length, batch);
    const kac_layer_shape block = block_shape(net, length, batch);
    float *y = work; /* what the stem gives, each block, and the sum of the directions */
    float *sum = y + (net->blocks + 1) * array;
    float *a = sum + array;
    float *b = a + array;
    float *kept[2] = {b + array, b + array + KAC_GRU_KEPT * floats};
    float *gates = kept[1] + KAC_GRU_KEPT * floats;
    float *small = gates + (int64_t)length * batch * net->gru_input[0].step;

    memcpy(a, work, (size_t)length * (size_t)batch * (size_t)net->states * sizeof *a);
    kac_layer_conv(&net->stem, KAC_TILE_RELU, &stem, a, y);
    for (int32_t i = 0; i < net->blocks; i++)
        run_block(net, i, length, batch, y + i * array, y + (i + 1) * array);
    for (int d = 0; d < 2; d++)
        run_gru(net, d, length, batch, y + net->blocks * array, sum, kept[d], small);

    ends_back(net, length, batch, cotangent, sum, a, small);
    for (int d = 0; d < 2; d++) {
        gru_back(net, d, length, batch, kept[d], sum, gates, small);
        kac_layer_dense(net->gru_input[d].back, KAC_TILE_LINEAR, gates, net->gru_input[d].step,
                        (int64_t)length * batch, d == 0 ? a : b);
    }
    kac_layer_add(floats, a, b, a); /* a: the gradient of what the last block gives */
    for (int32_t i = net->blocks - 1; i >= 0; i--) {
        kac_layer_gate(floats, y + (i + 1) * array, a, a);
        kac_layer_conv_back(&net->conv[i], &block, a, b);
        if (net->residual) kac_layer_add(floats, a, b, b);
        float *result = b;
        b = a;
        a = result;
    }
    kac_layer_gate(floats, y, a, a);
    kac_layer_conv_back(&net->stem, &stem, a, b);
    return b;
}
