/* conv_regressor_simd.c -- a chunk of rows through all layers of a conv_regressor. */
#include <stdbool.h>

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
            x[i] = kac_geluf(x[i]);
        return;
    case KAC_ACT_TANH:
        for (int64_t i = 0; i < n; i++)
            x[i] = kac_tanhf(x[i]);
        return;
    case KAC_ACT_ELU:
        for (int64_t i = 0; i < n; i++)
            x[i] = x[i] > 0 ? x[i] : kac_expf(x[i]) - 1;
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

static void run_stage(const kac_conv_regressor_stage *s, int32_t batch, const float *in,
                      float *out)
{
    kac_tile_act act = s->what.act == KAC_ACT_RELU ? KAC_TILE_RELU : KAC_TILE_LINEAR;
    switch (s->what.kind) {
    case KAC_LAYER_CONV:
    case KAC_LAYER_DENSE: {
        kac_layer_shape shape = {s->what.in_length, s->what.out_length, s->in_step, batch,
                                 s->what.dilation,  s->what.pad};
        kac_layer_conv(&s->layer, act, &shape, in, out);
        activate(s->what.act, out, (int64_t)s->what.out_length * batch * s->out_step);
        return;
    }
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
