/* conv_regressor_simd.c -- a chunk of rows through all layers of a conv_regressor, and back. */
#include <stdbool.h>
#include <string.h>

#include "activation.h"
#include "conv_regressor.h"
#include "layer_simd.h"

/* Activations that the micro-kernel does not know. */
static void activate(kac_activation act, float *x, int64_t n)
{
    switch (act) {
    case KAC_ACT_LINEAR:
    case KAC_ACT_RELU: return;
    case KAC_ACT_GELU:
        for (int64_t i = 0; i < n; i++)
            x[i] = kac_activate(KAC_ACT_GELU, x[i]);
        return;
    case KAC_ACT_TANH:
        for (int64_t i = 0; i < n; i++)
            x[i] = kac_activate(KAC_ACT_TANH, x[i]);
        return;
    case KAC_ACT_ELU:
        for (int64_t i = 0; i < n; i++)
            x[i] = kac_activate(KAC_ACT_ELU, x[i]);
        return;
    }
}

/* out[i] = the largest of in[0][i] .. in[n - 1][i]; NaN if one is. */
static void take_largest(const float *in, int64_t step, int32_t n, int64_t count, float *out)
{
    for (int64_t i = 0; i < count; i++)
        out[i] = in[i];
    for (int32_t t = 1; t < n; t++)
        for (int64_t i = 0; i < count; i++) {
            float x = in[t * step + i];
            out[i] = out[i] >= x || out[i] != out[i] ? out[i] : x;
        }
}

/* Pools over windows of `size` positions; the channels of all rows are independent. */
static void pool(const kac_conv_regressor_stage *s, int32_t batch, const float *in, float *out)
{
    const int64_t row = (int64_t)batch * s->in_step;
    const int32_t size = s->what.size;
    bool largest = s->what.kind == KAC_LAYER_MAXPOOL || s->what.kind == KAC_LAYER_GLOBALMAX;
    for (int64_t l = 0; l < s->what.out_length; l++) {
        if (largest)
            take_largest(in + l * size * row, row, size, row, out + l * row);
        else
            kac_layer_mean(in + l * size * row, row, size, row, out + l * row);
    }
}

/* [length][batch][in] to [batch][length in]. */
static void flatten(const kac_conv_regressor_stage *s, int32_t batch, const float *in,
                    float *out)
{
    for (int32_t l = 0; l < s->what.in_length; l++)
        for (int32_t b = 0; b < batch; b++)
            for (int32_t c = 0; c < s->what.in; c++)
                out[(int64_t)b * s->out_step + (int64_t)l * s->what.in + c] =
                    in[((int64_t)l * batch + b) * s->in_step + c];
}

static kac_layer_shape shape_of(const kac_conv_regressor_stage *s, int32_t batch)
{
    return (kac_layer_shape){s->what.in_length, s->what.out_length, s->in_step, batch,
                             s->what.dilation,  s->what.pad};
}

/* A convolution or dense layer, of the activations only relu. */
static void convolve(const kac_conv_regressor_stage *s, int32_t batch, const float *in,
                     float *out)
{
    kac_tile_act act = s->what.act == KAC_ACT_RELU ? KAC_TILE_RELU : KAC_TILE_LINEAR;
    const kac_layer_shape shape = shape_of(s, batch);
    kac_layer_conv(&s->layer, act, &shape, in, out);
}

static int64_t out_floats(const kac_conv_regressor_stage *s, int32_t batch)
{
    return (int64_t)s->what.out_length * batch * s->out_step;
}

static void run_stage(const kac_conv_regressor_stage *s, int32_t batch, const float *in,
                      float *out)
{
    switch (s->what.kind) {
    case KAC_LAYER_CONV:
    case KAC_LAYER_DENSE:
        convolve(s, batch, in, out);
        activate(s->what.act, out, out_floats(s, batch));
        return;
    case KAC_LAYER_MAXPOOL:
    case KAC_LAYER_AVGPOOL:
    case KAC_LAYER_GLOBALMAX:
    case KAC_LAYER_GLOBALAVG: pool(s, batch, in, out); return;
    case KAC_LAYER_FLATTEN: flatten(s, batch, in, out); return;
    }
}

const float *KAC_SIMD_NAME(kac_conv_regressor_chunk)(const kac_net *net, int32_t batch,
                                                     float *from, float *to)
{
    for (int32_t i = 0; i < net->stages; i++) {
        run_stage(&net->stage[i], batch, from, to);
        float *result = to;
        to = from;
        from = result;
    }
    return from;
}

/* ---- the vector-Jacobian product --------------------------------------------------------- */

/* run_stage, and `before` gets what gelu was given. */
static void keep_stage(const kac_conv_regressor_stage *s, int32_t batch, const float *in,
                       float *before, float *out)
{
    if (s->layer.back == NULL || s->what.act != KAC_ACT_GELU) { /* a pool, or another one */
        run_stage(s, batch, in, out);
        return;
    }
    convolve(s, batch, in, before);
    memcpy(out, before, (size_t)out_floats(s, batch) * sizeof *out);
    activate(s->what.act, out, out_floats(s, batch));
}

/* g times the slope of the activation that gave y, gelu's from what it was given. */
static void slope(kac_activation act, const float *before, const float *y, float *g, int64_t n)
{
    switch (act) {
    case KAC_ACT_LINEAR: return;
    case KAC_ACT_RELU:
        for (int64_t i = 0; i < n; i++)
            g[i] = kac_activate_back(KAC_ACT_RELU, 0, y[i], g[i]);
        return;
    case KAC_ACT_GELU:
        for (int64_t i = 0; i < n; i++)
            g[i] = kac_activate_back(KAC_ACT_GELU, before[i], 0, g[i]);
        return;
    case KAC_ACT_TANH:
        for (int64_t i = 0; i < n; i++)
            g[i] = kac_activate_back(KAC_ACT_TANH, 0, y[i], g[i]);
        return;
    case KAC_ACT_ELU:
        for (int64_t i = 0; i < n; i++)
            g[i] = kac_activate_back(KAC_ACT_ELU, 0, y[i], g[i]);
        return;
    }
}

/* Rows of `from` floats become rows of their first `to`, in place. */
static void narrow(float *x, int64_t rows, int32_t from, int32_t to)
{
    for (int64_t r = 1; from > to && r < rows; r++)
        memmove(x + r * to, x + r * from, (size_t)to * sizeof *x);
}

/* The gradient of each largest value goes to the first position that has it; g is used up. */
static void largest_back(const float *in, int64_t row, int32_t size, const float *out, float *g,
                         float *to)
{
    for (int32_t t = 0; t < size; t++)
        for (int64_t i = 0; i < row; i++) {
            bool here = !(in[t * row + i] < out[i]);
            to[t * row + i] = here ? g[i] : 0;
            g[i] = here ? 0 : g[i];
        }
}

static void pool_back(const kac_conv_regressor_stage *s, int32_t batch, const float *in,
                      const float *out, float *g, float *to)
{
    const int64_t row = (int64_t)batch * s->in_step;
    const int32_t size = s->what.size;
    const int64_t used = (int64_t)s->what.out_length * size;
    bool largest = s->what.kind == KAC_LAYER_MAXPOOL || s->what.kind == KAC_LAYER_GLOBALMAX;
    for (int64_t l = 0; l < s->what.out_length; l++, g += row) {
        float *window = to + l * size * row;
        if (largest) {
            largest_back(in + l * size * row, row, size, out + l * row, g, window);
            continue;
        }
        for (int32_t t = 0; t < size; t++)
            for (int64_t i = 0; i < row; i++)
                window[t * row + i] = g[i] / (float)size;
    }
    memset(to + used * row, 0, (size_t)((s->what.in_length - used) * row) * sizeof *to);
}

/* [batch][length in] to [length][batch][in]. */
static void flatten_back(const kac_conv_regressor_stage *s, int32_t batch, const float *g,
                         float *to)
{
    memset(to, 0, (size_t)s->what.in_length * (size_t)batch * (size_t)s->in_step * sizeof *to);
    for (int32_t l = 0; l < s->what.in_length; l++)
        for (int32_t b = 0; b < batch; b++)
            memcpy(to + ((int64_t)l * batch + b) * s->in_step,
                   g + (int64_t)b * s->out_step + (int64_t)l * s->what.in,
                   (size_t)s->what.in * sizeof *to);
}

/* to = the gradient of the stage's input, from g of its output, which is used up. */
static void stage_back(const kac_net *net, int32_t i, int32_t batch, const float *kept,
                       float *g, float *to)
{
    const kac_conv_regressor_stage *s = &net->stage[i];
    const float *in = kept + batch * s->in_at;
    const float *out =
        kept + batch * (i + 1 < net->stages ? net->stage[i + 1].in_at : net->out_at);
    switch (s->what.kind) {
    case KAC_LAYER_CONV:
    case KAC_LAYER_DENSE: {
        const kac_layer_shape shape = shape_of(s, batch);
        slope(s->what.act, kept + batch * s->before_at, out, g, out_floats(s, batch));
        kac_layer_conv_back(&s->layer, &shape, g, to);
        narrow(to, (int64_t)s->what.in_length * batch, s->layer.back->step, s->in_step);
        return;
    }
    case KAC_LAYER_MAXPOOL:
    case KAC_LAYER_AVGPOOL:
    case KAC_LAYER_GLOBALMAX:
    case KAC_LAYER_GLOBALAVG: pool_back(s, batch, in, out, g, to); return;
    case KAC_LAYER_FLATTEN: flatten_back(s, batch, g, to); return;
    }
}

const float *KAC_SIMD_NAME(kac_conv_regressor_vjp)(const kac_net *net, int32_t batch,
                                                   float *kept, float *from, float *to)
{
    for (int32_t i = 0; i < net->stages; i++) {
        const kac_conv_regressor_stage *s = &net->stage[i];
        float *out = kept + batch * (i + 1 < net->stages ? s[1].in_at : net->out_at);
        keep_stage(s, batch, kept + batch * s->in_at, kept + batch * s->before_at, out);
    }
    for (int32_t i = net->stages - 1; i >= 0; i--) {
        stage_back(net, i, batch, kept, from, to);
        float *result = to;
        to = from;
        from = result;
    }
    return from;
}
