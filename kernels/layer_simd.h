/* layer_simd.h -- packed layers, activations and means over a chunk of sequences.
 *
 * A chunk lies as [length][batch][step] floats: the rows of neighbouring positions follow each
 * other, so positions that share their live taps are one run of the micro-kernel.
 */
#ifndef KAC_LAYER_SIMD_H
#define KAC_LAYER_SIMD_H

#include "exact.h"
#include "layer.h"
#include "tile_simd.h"

/* out[r] = act(layer(in[r])), r in 0 .. rows - 1; in: rows of in_step floats, out: of
 * layer->step. */
static inline void kac_layer_dense(const kac_layer *layer, kac_tile_act act, const float *in,
                                   int32_t in_step, int64_t rows, float *out)
{
    kac_tile tile = {.in = in,
                     .weight = layer->weight,
                     .bias = layer->bias,
                     .out = out,
                     .row_step = in_step,
                     .out_step = layer->step,
                     .block_step = (int64_t)layer->in * 2 * KAC_LANES,
                     .taps = 1,
                     .channels = layer->in,
                     .blocks = layer->step / (2 * KAC_LANES),
                     .act = act};
    kac_tile_run(&tile, rows);
}

/* How a convolution lies over a chunk. */
typedef struct kac_layer_shape {
    int32_t in_length, out_length;
    int32_t in_step; /* floats of a row of inputs */
    int32_t batch;
    int32_t dilation;
    int32_t pad; /* positions left of the sequence at output 0 */
} kac_layer_shape;

/* The live taps of output position l are first .. last - 1. */
static inline void kac_layer_taps(const kac_layer_shape *s, int32_t taps, int32_t l,
                                  int32_t *first, int32_t *last)
{
    int32_t left = s->pad - l;
    int32_t right = s->in_length + s->pad - l; /* > 0 */
    *first = left > 0 ? (left - 1) / s->dilation + 1 : 0;
    *last = (right - 1) / s->dilation + 1;
    if (*last > taps) *last = taps;
    if (*first > *last) *first = *last;
}

static inline void kac_layer_conv(const kac_layer *layer, kac_tile_act act,
                                  const kac_layer_shape *s, const float *in, float *out)
{
    const int64_t row = (int64_t)s->batch * s->in_step;
    const int32_t width = 2 * KAC_LANES;
    int32_t end = 0;
    for (int32_t l = 0; l < s->out_length; l = end) {
        int32_t first;
        int32_t last;
        kac_layer_taps(s, layer->taps, l, &first, &last);
        for (end = l + 1; end < s->out_length; end++) {
            int32_t f;
            int32_t e;
            kac_layer_taps(s, layer->taps, end, &f, &e);
            if (f != first || e != last) break;
        }
        int64_t from = first < last ? l - s->pad + (int64_t)first * s->dilation : 0;
        kac_tile tile = {.in = in + from * row,
                         .weight = layer->weight + (int64_t)first * layer->in * width,
                         .bias = layer->bias,
                         .out = out + (int64_t)l * s->batch * layer->step,
                         .row_step = s->in_step,
                         .tap_step = s->dilation * row,
                         .out_step = layer->step,
                         .block_step = (int64_t)layer->taps * layer->in * width,
                         .taps = last - first,
                         .channels = layer->in,
                         .blocks = layer->step / width,
                         .act = act};
        kac_tile_run(&tile, (int64_t)(end - l) * s->batch);
    }
}

/* The gradient of what kac_layer_conv read, from that of what it wrote (rows of layer->step
 * floats): rows of layer->back->step floats.  `s` is the shape of the convolution forwards. */
static inline void kac_layer_conv_back(const kac_layer *layer, const kac_layer_shape *s,
                                       const float *g, float *out)
{
    const kac_layer_shape back = {s->out_length, s->in_length,
                                  layer->step,   s->batch,
                                  s->dilation,   (layer->taps - 1) * s->dilation - s->pad};
    kac_layer_conv(layer->back, KAC_TILE_LINEAR, &back, g, out);
}

/* out = the gradient of the input of relu, given `y` of its output and the gradient g of that;
 * out may be g. */
static inline void kac_layer_gate(int64_t floats, const float *y, const float *g, float *out)
{
    for (int64_t i = 0; i < floats; i += KAC_LANES)
        kac_vec_store(out + i, kac_vec_gate(kac_vec_load(y + i), kac_vec_load(g + i)));
}

/* out = x + y; it may be one of them. */
static inline void kac_layer_add(int64_t floats, const float *x, const float *y, float *out)
{
    for (int64_t i = 0; i < floats; i += KAC_LANES)
        kac_vec_store(out + i, kac_vec_load(x + i) + kac_vec_load(y + i));
}

/* out[i] = the mean of in[0][i] .. in[n - 1][i], rows `step` floats apart, i in 0 .. count - 1;
 * the sum of exact.h: 16 lanes and a tree.  Whole vectors are read and written. */
static inline void kac_layer_mean(const float *in, int64_t step, int32_t n, int64_t count,
                                  float *out)
{
    for (int64_t i = 0; i < count; i += KAC_LANES) {
        kac_vec lane[KAC_SUM_LANES];
        for (int j = 0; j < KAC_SUM_LANES; j++)
            lane[j] = kac_vec_splat(0);
        for (int32_t t = 0; t < n; t++)
            lane[t % KAC_SUM_LANES] = lane[t % KAC_SUM_LANES] + kac_vec_load(in + t * step + i);
        for (int j = 0; j < 8; j++)
            lane[j] = lane[j] + lane[j + 8];
        for (int j = 0; j < 4; j++)
            lane[j] = lane[j] + lane[j + 4];
        kac_vec sum = (lane[0] + lane[2]) + (lane[1] + lane[3]);
        kac_vec_store(out + i, sum / kac_vec_splat((float)n));
    }
}

#endif /* KAC_LAYER_SIMD_H */
