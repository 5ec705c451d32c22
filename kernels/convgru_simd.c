/* convgru_simd.c -- a chunk of rows through all layers of a convgru. */
#include <string.h>

#include "convgru.h"
#include "layer_simd.h"

static const float epsilon = 1e-5f; /* of LayerNorm */

/* x = relu(conv(x) (+ x)) for each block; y is free. */
static void run_blocks(const kac_net *net, int32_t length, int32_t batch, float **x, float **y)
{
    const int64_t n = (int64_t)length * batch * net->step;
    kac_layer_shape shape = {length, length, net->step, batch, 1, KAC_CONVGRU_TAPS / 2};
    for (int32_t i = 0; i < net->blocks; i++) {
        float *in = *x;
        float *out = *y;
        kac_layer_conv(&net->conv[i], net->residual ? KAC_TILE_LINEAR : KAC_TILE_RELU, &shape,
                       in, out);
        for (int64_t j = 0; net->residual && j < n; j += KAC_LANES)
            kac_vec_store(out + j, kac_vec_relu(kac_vec_load(out + j) + kac_vec_load(in + j)));
        *x = out;
        *y = in;
    }
}

/* One step of the recurrence for a row: h becomes (1 - z) n + z h. */
static void step_row(int32_t c, const float *input, const float *hidden, float *h)
{
    for (int32_t i = 0; i < c; i++) {
        float r = kac_sigmoidf(input[i] + hidden[i]);
        float z = kac_sigmoidf(input[c + i] + hidden[c + i]);
        float n = kac_tanhf(fmaf(r, hidden[2 * c + i], input[2 * c + i]));
        h[i] = fmaf(z, h[i] - n, n);
    }
}

/* y[t] = the state after x[t] in reading order; the reverse direction adds its own to it.
 * `small` has room for one position. */
static void run_gru(const kac_net *net, int direction, int32_t length, int32_t batch,
                    const float *x, float *y, float *small)
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
        for (int32_t b = 0; b < batch; b++)
            step_row(c, input + (int64_t)b * to_input->step,
                     hidden + (int64_t)b * to_hidden->step, h + (int64_t)b * net->step);
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
    const int32_t c = net->channels;
    for (int32_t b = 0; b < batch; b++, x += net->step) {
        float mean = kac_sum(x, c) / (float)c;
        float scale = 1.0f / sqrtf(kac_sum_squares(x, mean, c) / (float)c + epsilon);
        for (int32_t i = 0; i < c; i++)
            x[i] = fmaf((x[i] - mean) * scale, net->norm[i], net->norm_bias[i]);
    }
}

const float *KAC_SIMD_NAME(kac_convgru_chunk)(const kac_net *net, int32_t length, int32_t batch,
                                              float *work)
{
    const int64_t array = kac_convgru_array_floats(net, length, batch);
    const int64_t position = (int64_t)batch * net->step;
    float *x = work;
    float *y = work + array;
    float *small = work + 2 * array;
    kac_layer_shape shape = {length, length, net->states, batch, 1, KAC_CONVGRU_STEM_TAPS / 2};

    kac_layer_conv(&net->stem, KAC_TILE_RELU, &shape, x, y);
    run_blocks(net, length, batch, &y, &x);
    run_gru(net, 0, length, batch, y, x, small);
    run_gru(net, 1, length, batch, y, x, small);
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
