/* cnn1d_simd.c -- the cnn1d forward on a chunk of particles, once for each instruction set.
 *
 * Activations lie as [position][particle][channel]: rows of neighbouring particles, and of
 * neighbouring positions, follow each other, so that one register tile spans both, and a tap is
 * a constant offset.  Two arrays suffice: feat, the residual stream, and h, its normalised
 * copy.
 */
#include <string.h>

#include "cnn1d.h"
#include "exact.h"
#include "query.h"
#include "tile_simd.h"

static const float epsilon = 1e-5f; /* of LayerNorm */

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

/* The tree of exact.h over 16 lanes kept in 16 / KAC_LANES vectors. */
enum { PARTS = KAC_SUM_LANES / KAC_LANES };

static inline float total(const kac_vec *lanes)
{
    float lane[KAC_SUM_LANES];
    for (int i = 0; i < PARTS; i++)
        kac_vec_store(lane + (ptrdiff_t)i * KAC_LANES, lanes[i]);
    return kac_tree(lane);
}

/* h = LayerNorm(feat + shift) over the hidden channels. */
static void normalise(const kac_net *net, int32_t layer, int64_t rows, const float *feat,
                      float *h)
{
    const int64_t width = net->width;
    const int64_t whole = net->hidden - net->hidden % KAC_LANES; /* in full vectors */
    const float *shift = net->shift + layer * width;
    const float *gamma = net->norm + layer * width;
    const float *beta = net->norm_bias + layer * width;
    const float n = (float)net->hidden;

    for (int64_t r = 0; r < rows; r++, feat += width, h += width) {
        /* Channels that fill up the width are zeros in feat and shift. */
        kac_vec sum[PARTS] = {0};
        for (int64_t c = 0; c < width; c += KAC_LANES) {
            kac_vec x = kac_vec_load(feat + c) + kac_vec_load(shift + c);
            kac_vec_store(h + c, x);
            sum[c / KAC_LANES % PARTS] += x;
        }
        kac_vec mean = kac_vec_splat(total(sum) / n);

        kac_vec square[PARTS] = {0};
        for (int64_t c = 0; c < whole; c += KAC_LANES) {
            kac_vec x = kac_vec_load(h + c) - mean;
            square[c / KAC_LANES % PARTS] = kac_vec_fma(x, x, square[c / KAC_LANES % PARTS]);
        }
        if (whole < net->hidden) {
            float rest[KAC_LANES] = {0};
            for (int64_t c = whole; c < net->hidden; c++)
                rest[c - whole] = h[c] - mean[0];
            kac_vec x = kac_vec_load(rest);
            square[whole / KAC_LANES % PARTS] =
                kac_vec_fma(x, x, square[whole / KAC_LANES % PARTS]);
        }
        kac_vec scale = kac_vec_splat(1.0f / sqrtf(total(square) / n + epsilon));

        for (int64_t c = 0; c < width; c += KAC_LANES) {
            kac_vec x = (kac_vec_load(h + c) - mean) * scale;
            kac_vec_store(h + c,
                          kac_vec_fma(x, kac_vec_load(gamma + c), kac_vec_load(beta + c)));
        }
    }
}

/* feat += relu(conv(h)). */
static void convolve(const kac_net *net, int32_t layer, int32_t length, int32_t particles,
                     const float *h, float *feat)
{
    const int64_t position = (int64_t)particles * net->width;
    const int64_t tap = (int64_t)net->hidden * kac_tile_width(net->isa);
    const int64_t dilation = net->dilation[layer];
    kac_tile t = {.bias = net->conv_bias + (int64_t)layer * net->width,
                  .row_step = net->width,
                  .tap_step = dilation * position,
                  .out_step = net->width,
                  .block_step = net->kernel * tap,
                  .channels = net->hidden,
                  .blocks = net->width / kac_tile_width(net->isa),
                  .act = KAC_TILE_ADD};
    for (int32_t l = 0; l < length;) {
        live taps = live_taps(l, length, net->kernel, net->dilation[layer]);
        t.taps = taps.count;
        t.in = h + (l + (taps.first - net->kernel / 2) * dilation) * position;
        t.weight = net->conv + layer * net->conv_step + taps.first * tap;
        t.out = feat + l * position;
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
        convolve(net, layer, length, particles, h, feat);
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
