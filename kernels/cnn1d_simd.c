/* cnn1d_simd.c -- cnn1d on a chunk of particles, once for each instruction set.
 *
 * Activations lie as [position][particle][channel]: rows of neighbouring particles, and of
 * neighbouring positions, follow each other, so that one register tile spans both, and a tap is
 * a constant offset.  Two arrays suffice for the forward: feat, the residual stream, and h, its
 * normalised copy.  The vector-Jacobian product keeps feat before each layer, and what the
 * layer adds to it.
 */
#include <string.h>

#include "cnn1d.h"
#include "layer_simd.h"
#include "norm_simd.h"
#include "query.h"

/* Taps first .. first + count - 1 of position l fall inside the sequence, here and for all
 * positions up to `end` - 1. */
typedef struct live {
    int32_t first, count;
    int32_t end;
} live;

static live live_taps(int32_t l, int32_t length, int32_t kernel, int32_t dilation)
{
    int32_t half = kernel / 2;
    int32_t left = l / dilation;
    int32_t right = (length - 1 - l) / dilation;
    int64_t end = length;
    if (left < half) {
        int64_t next = ((int64_t)left + 1) * dilation; /* one more tap to the left */
        if (next < end) end = next;
    } else {
        left = half;
    }
    if (right < half) {
        int64_t next = (int64_t)length - (int64_t)right * dilation; /* one less to the right */
        if (next < end) end = next;
    } else {
        right = half;
        int64_t next = length - (int64_t)half * dilation;
        if (half > 0 && next < end) end = next;
    }
    return (live){half - left, left + 1 + right, (int32_t)end};
}

/* feat = relu(bias + the weights of the tokens at each live tap). */
static void embed_tokens(const kac_net *net, const kac_query *q, int32_t first,
                         int32_t particles, float *feat)
{
    int64_t width = net->width;
    int32_t half = net->kernel / 2;
    for (int32_t p = 0; p < particles; p++) {
        const uint8_t *tokens = kac_query_tokens(q, first + p);
        for (int32_t l = 0; l < q->length; l++) {
            live taps = live_taps(l, q->length, net->kernel, 1);
            float *row = feat + ((int64_t)l * particles + p) * width;
            for (int64_t c = 0; c < width; c += KAC_LANES) {
                kac_vec x = kac_vec_load(net->linear_bias + c);
                for (int32_t k = taps.first; k < taps.first + taps.count; k++) {
                    int64_t line = (int64_t)k * (net->states + 1) + tokens[l + k - half];
                    x = x + kac_vec_load(net->linear + line * width + c);
                }
                kac_vec_store(row + c, kac_vec_relu(x));
            }
        }
    }
}

/* x = feat + the time features of the layer, one row, and the norm of it.  Channels that fill
 * up the width are zeros in both. */
static inline kac_norm shifted(const kac_net *net, int32_t layer, const float *feat, float *x)
{
    const float *shift = net->shift + (int64_t)layer * net->width;
    kac_vec sum[KAC_NORM_PARTS] = {0};
    for (int32_t c = 0; c < net->width; c += KAC_LANES) {
        kac_vec y = kac_vec_load(feat + c) + kac_vec_load(shift + c);
        kac_vec_store(x + c, y);
        sum[c / KAC_LANES % KAC_NORM_PARTS] += y;
    }
    return kac_norm_of_sum(sum, x, net->hidden);
}

/* h = LayerNorm(feat + shift) over the hidden channels. */
static void normalise(const kac_net *net, int32_t layer, int64_t rows, const float *feat,
                      float *h)
{
    const int64_t width = net->width;
    for (int64_t r = 0; r < rows; r++, feat += width, h += width) {
        kac_norm norm = shifted(net, layer, feat, h);
        kac_norm_apply(norm, net->norm + layer * width, net->norm_bias + layer * width,
                       net->hidden, h, h);
    }
}

/* A convolution of H channels at every position; `t` says from where, with what and to where,
 * as for a dense layer. */
static void convolve(const kac_net *net, kac_tile t, int32_t dilation, int32_t length,
                     int32_t particles)
{
    const int64_t in_step = (int64_t)particles * net->width;
    const int64_t out_step = particles * t.out_step;
    const int64_t tap = (int64_t)net->hidden * kac_tile_width(net->isa);
    const float *in = t.in;
    const float *weight = t.weight;
    float *out = t.out;
    t.tap_step = dilation * in_step;
    t.block_step = net->kernel * tap;
    for (int32_t l = 0; l < length;) {
        live taps = live_taps(l, length, net->kernel, dilation);
        t.taps = taps.count;
        t.in = in + (l + (int64_t)(taps.first - net->kernel / 2) * dilation) * in_step;
        t.weight = weight + taps.first * tap;
        t.out = out + l * out_step;
        kac_tile_run(&t, (int64_t)(taps.end - l) * particles);
        l = taps.end;
    }
}

/* One dense layer of H channels: out = act(bias + in weight). */
static kac_tile dense(const kac_net *net, const float *weight, const float *bias,
                      const float *in, float *out)
{
    return (kac_tile){.in = in,
                      .weight = weight,
                      .bias = bias,
                      .out = out,
                      .row_step = net->width,
                      .out_step = net->width,
                      .block_step = (int64_t)net->hidden * kac_tile_width(net->isa),
                      .taps = 1,
                      .channels = net->hidden,
                      .blocks = net->width / kac_tile_width(net->isa),
                      .act = KAC_TILE_RELU};
}

/* The convolution of a layer. */
static kac_tile layer_tile(const kac_net *net, int32_t layer, const float *in, float *out,
                           kac_tile_act act)
{
    kac_tile t = dense(net, net->conv + layer * net->conv_step,
                       net->conv_bias + (int64_t)layer * net->width, in, out);
    t.act = act;
    return t;
}

void KAC_SIMD_NAME(kac_cnn1d_chunk)(const kac_net *net, const kac_query *q, int32_t first,
                                    int32_t particles, float *work)
{
    const int32_t length = q->length;
    const int64_t rows = (int64_t)length * particles;
    float *feat = work;
    float *h = work + kac_cnn1d_work_floats(net, length, particles) / 2;

    embed_tokens(net, q, first, particles, feat);
    for (int32_t layer = 0; layer < net->layers; layer++) {
        normalise(net, layer, rows, feat, h);
        convolve(net, layer_tile(net, layer, h, feat, KAC_TILE_ADD), net->dilation[layer],
                 length, particles);
    }

    kac_tile head = dense(net, net->final0, net->final0_bias, feat, h);
    kac_tile_run(&head, rows);
    head = dense(net, net->final2, net->final2_bias, h, feat); /* feat is free: the logits */
    head.blocks = net->head_width / kac_tile_width(net->isa);
    head.out_step = net->head_width;
    head.act = KAC_TILE_LINEAR;
    kac_tile_run(&head, rows);

    for (int32_t p = 0; p < particles; p++) {
        float *out = kac_query_out(q, first + p);
        for (int32_t l = 0; l < length; l++)
            memcpy(out + (int64_t)l * net->states,
                   feat + ((int64_t)l * particles + p) * net->head_width,
                   (size_t)net->states * sizeof *out);
    }
}

/* ---- the vector-Jacobian product --------------------------------------------------------- */

/* A transposed layer of H channels to `width`. */
static kac_tile back_tile(const kac_net *net, const float *weight, int32_t width,
                          const float *in, float *out)
{
    kac_tile t = dense(net, weight, net->zeros, in, out);
    t.blocks = width / kac_tile_width(net->isa);
    t.out_step = width;
    t.act = KAC_TILE_LINEAR;
    return t;
}

/* The arrays of a vector-Jacobian product, [length][particles] rows each: the residual stream
 * before each layer and after all, relu(conv) that each layer adds to it, and three more. */
typedef struct tape {
    float *feat[KAC_CNN1D_MAX_LAYERS + 1];
    float *step[KAC_CNN1D_MAX_LAYERS];
    float *a, *b, *c;
} tape;

static tape arrange(const kac_net *net, int64_t array, float *work)
{
    tape t;
    for (int32_t i = 0; i <= net->layers; i++, work += array)
        t.feat[i] = work;
    for (int32_t i = 0; i < net->layers; i++, work += array)
        t.step[i] = work;
    t.a = work;
    t.b = t.a + array;
    t.c = t.b + array;
    return t;
}

/* Cotangents of the chunk as [length][particles][states]. */
static void read_cotangent(const kac_net *net, int32_t length, int32_t particles,
                           const float *cotangent, float *out)
{
    const int64_t s = net->states;
    for (int32_t p = 0; p < particles; p++)
        for (int32_t l = 0; l < length; l++)
            memcpy(out + ((int64_t)l * particles + p) * s,
                   cotangent + ((int64_t)p * length + l) * s, (size_t)s * sizeof *out);
}

/* t->c = the gradient of the last feat. */
static void head_back(const kac_net *net, int64_t rows, tape *t)
{
    kac_tile tile = dense(net, net->final0, net->final0_bias, t->feat[net->layers], t->b);
    kac_tile_run(&tile, rows);
    tile = back_tile(net, net->final2_back, net->width, t->a, t->c);
    tile.row_step = tile.channels = net->states;
    tile.block_step = (int64_t)net->states * kac_tile_width(net->isa);
    kac_tile_run(&tile, rows);
    kac_layer_gate(rows * net->width, t->b, t->c, t->a);
    tile = back_tile(net, net->final0_back, net->width, t->a, t->c);
    kac_tile_run(&tile, rows);
}

/* t->c, the gradient of feat after the layer, becomes that of feat before it. */
static void layer_back(const kac_net *net, int32_t layer, int32_t length, int32_t particles,
                       tape *t)
{
    const int64_t width = net->width;
    const int64_t rows = (int64_t)length * particles;
    kac_layer_gate(rows * width, t->step[layer], t->c, t->a);
    convolve(net,
             back_tile(net, net->conv_back + layer * net->conv_step, net->width, t->a, t->b),
             net->dilation[layer], length, particles);
    for (int64_t r = 0; r < rows; r++) {
        float *x = t->a + r * width;
        kac_norm norm = shifted(net, layer, t->feat[layer] + r * width, x);
        kac_norm_back(norm, net->norm + layer * width, net->hidden, x, t->b + r * width);
    }
    kac_layer_add(rows * width, t->c, t->b, t->c);
}

void KAC_SIMD_NAME(kac_cnn1d_vjp)(const kac_net *net, const kac_query *q, int32_t first,
                                  int32_t particles, const float *cotangent, float *grad,
                                  float *work)
{
    const int32_t length = q->length;
    const int64_t rows = (int64_t)length * particles;
    const int64_t floats = rows * net->width;
    const int64_t tokens = net->states + 1;
    tape t = arrange(net, kac_cnn1d_array_floats(net, length, particles), work);

    embed_tokens(net, q, first, particles, t.feat[0]);
    for (int32_t i = 0; i < net->layers; i++) {
        normalise(net, i, rows, t.feat[i], t.a);
        convolve(net, layer_tile(net, i, t.a, t.step[i], KAC_TILE_RELU), net->dilation[i],
                 length, particles);
        kac_layer_add(floats, t.feat[i], t.step[i], t.feat[i + 1]);
    }

    read_cotangent(net, length, particles, cotangent + (int64_t)first * length * (tokens - 1),
                   t.a);
    head_back(net, rows, &t);
    for (int32_t i = net->layers - 1; i >= 0; i--)
        layer_back(net, i, length, particles, &t);
    kac_layer_gate(floats, t.feat[0], t.c, t.a);
    convolve(net, back_tile(net, net->linear_back, net->token_width, t.a, t.b), 1, length,
             particles);

    for (int32_t p = 0; p < particles; p++)
        for (int32_t l = 0; l < length; l++)
            memcpy(grad + ((int64_t)(first + p) * length + l) * tokens,
                   t.b + ((int64_t)l * particles + p) * net->token_width,
                   (size_t)tokens * sizeof *grad);
}

/* ---- time -------------------------------------------------------------------------------- */

void KAC_SIMD_NAME(kac_cnn1d_time)(const kac_net *net, float sigma)
{
    const int32_t half = net->hidden / 2;
    if (net->fourier == NULL) return; /* shift is zero since pack */
    for (int32_t i = 0; i < half; i++) {
        double sine = 0;
        double cosine = 0;
        kac_sincos_turns((double)sigma * (double)net->fourier[i], &sine, &cosine);
        net->features[i] = (float)sine;
        net->features[half + i] = (float)cosine;
    }
    kac_tile t = dense(net, net->embed, net->embed_bias, net->features, net->embedded);
    kac_tile_run(&t, 1);
    for (int32_t layer = 0; layer < net->layers; layer++) {
        int64_t row = (int64_t)layer * net->width;
        t = dense(net, net->time + layer * net->dense_step, net->time_bias + row, net->embedded,
                  net->shift + row);
        t.act = KAC_TILE_LINEAR;
        kac_tile_run(&t, 1);
    }
}
