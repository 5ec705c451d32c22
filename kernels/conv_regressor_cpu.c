/* conv_regressor_cpu.c -- packs the conv_regressor and spreads its rows over threads. */
#include <math.h>
#include <string.h>

#include "conv_regressor.h"
#include "ops.h"
#include "query.h"
#include "scratch_cpu.h"
#include "simd.h"

static kac_conv_regressor_chunk_fn *const chunk_of[] = KAC_SIMD_TABLE(kac_conv_regressor_chunk);
static kac_conv_regressor_vjp_fn *const vjp_of[] = KAC_SIMD_TABLE(kac_conv_regressor_vjp);

/* ---- pack ------------------------------------------------------------------------------- */

/* Tokens of the prefix or suffix; at least one byte. */
static kac_status pack_tokens(kac_device *dev, const uint8_t *tokens, int32_t length,
                              uint8_t **out)
{
    *out = dev->ops->memory.alloc(dev, (size_t)length + 1);
    if (*out == NULL) return KAC_ERR_NOMEM;
    if (length > 0) memcpy(*out, tokens, (size_t)length);
    return KAC_OK;
}

static kac_status pack_stage(kac_device *dev, const kac_regressor_layer *what, int32_t in_step,
                             kac_conv_regressor_stage *stage)
{
    stage->what = *what;
    stage->in_step = in_step;
    stage->out_step = what->kind == KAC_LAYER_FLATTEN ? what->out : in_step;
    if (what->kind != KAC_LAYER_CONV && what->kind != KAC_LAYER_DENSE) return KAC_OK;
    kac_tile_weights weights = {what->kernel, what->out, what->taps,
                                what->in,     1,         (int64_t)what->in * what->out,
                                what->out};
    KAC_TRY(kac_layer_pack(dev, &weights, what->bias, &stage->layer));
    stage->out_step = stage->layer.step;
    return KAC_OK;
}

/* Lays out what a vjp keeps: the input of each stage in turn, and the result. */
static void arrange(kac_net *net)
{
    int64_t used = 0;
    for (int32_t i = 0; i < net->stages; i++) {
        kac_conv_regressor_stage *s = &net->stage[i];
        const int64_t out = (int64_t)s->what.out_length * s->out_step;
        int32_t step = s->in_step;
        if (s->layer.back != NULL && s->layer.back->step > step) step = s->layer.back->step;
        s->in_at = used;
        used += (int64_t)s->what.in_length * s->in_step;
        s->before_at = used;
        if (s->what.act == KAC_ACT_GELU) used += out;
        if (s->what.in_length * (int64_t)step > net->back_floats)
            net->back_floats = s->what.in_length * (int64_t)step;
        if (out > net->back_floats) net->back_floats = out;
    }
    const kac_conv_regressor_stage *last = &net->stage[net->stages - 1];
    net->out_at = used;
    net->kept_floats = used + (int64_t)last->what.out_length * last->out_step;
}

static kac_status pack(kac_device *dev, const kac_conv_regressor_weights *w, kac_net *net)
{
    KAC_TRY(pack_tokens(dev, w->prefix, w->prefix_length, &net->prefix));
    KAC_TRY(pack_tokens(dev, w->suffix, w->suffix_length, &net->suffix));
    int32_t step = w->states;
    net->row_floats = (int64_t)net->length * step;
    for (int32_t i = 0; i < w->layers; i++) {
        kac_conv_regressor_stage *stage = &net->stage[net->stages++];
        KAC_TRY(pack_stage(dev, &w->layer[i], step, stage));
        step = stage->out_step;
        int64_t floats = (int64_t)stage->what.out_length * step;
        if (floats > net->row_floats) net->row_floats = floats;
    }
    arrange(net);
    return KAC_OK;
}

kac_status kac_cpu_conv_regressor_pack(kac_device *dev,
                                       const kac_conv_regressor_weights *host_weights,
                                       kac_net **out)
{
    const kac_conv_regressor_weights *w = host_weights;
    KAC_REQUIRE(w->layers >= 1 && w->layers <= KAC_REGRESSOR_MAX_LAYERS);
    kac_net *net = dev->ops->memory.alloc(dev, sizeof *net);
    if (net == NULL) return KAC_ERR_NOMEM;
    net->isa = dev->isa;
    net->states = w->states;
    net->length = w->prefix_length + w->length + w->suffix_length;
    net->prefix_length = w->prefix_length;
    net->suffix_length = w->suffix_length;
    net->outputs = w->outputs;
    net->scale = w->scale;
    net->offset = w->offset;
    kac_status status = pack(dev, w, net);
    if (status == KAC_OK)
        *out = net;
    else
        kac_cpu_conv_regressor_drop(dev, net);
    return status;
}

void kac_cpu_conv_regressor_drop(kac_device *dev, kac_net *net)
{
    if (net == NULL) return;
    for (int32_t i = 0; i < net->stages; i++)
        kac_layer_drop(dev, &net->stage[i].layer);
    dev->ops->memory.release(dev, net->prefix);
    dev->ops->memory.release(dev, net->suffix);
    dev->ops->memory.release(dev, net);
}

/* Bytes behind the arrays of a chunk: an average of an odd row ends with a whole vector. */
enum { SLACK = 64 };

/* ---- forward ---------------------------------------------------------------------------- */

/* Sequences of a chunk: their two arrays should stay in a core's second-level cache. */
static int32_t chunk_size(const kac_net *net, int32_t rows)
{
    enum { CACHE_FLOATS = 1 << 17, MOST = 56 };
    int64_t fit = CACHE_FLOATS / (2 * net->row_floats);
    return kac_chunk_rows(rows, fit < 1 ? 1 : fit > MOST ? MOST : (int32_t)fit);
}

/* The same letters in all rows, x [length][batch][states]. */
static void write_letters(const uint8_t *tokens, int32_t length, int32_t batch, int32_t states,
                          float *x)
{
    memset(x, 0, (size_t)length * (size_t)batch * (size_t)states * sizeof *x);
    for (int32_t l = 0; l < length; l++)
        for (int32_t b = 0; b < batch; b++)
            x[((int64_t)l * batch + b) * states + tokens[l]] = 1;
}

/* x [length][batch][states]: prefix, object, suffix. */
static void write_input(const kac_net *net, const kac_query *q, int32_t first, int32_t batch,
                        float *x)
{
    int64_t position = (int64_t)batch * net->states;
    write_letters(net->prefix, net->prefix_length, batch, net->states, x);
    kac_layer_input(q, first, batch, net->states, x + net->prefix_length * position);
    write_letters(net->suffix, net->suffix_length, batch, net->states,
                  x + (net->length - net->suffix_length) * position);
}

static void answer(const kac_net *net, const kac_query *q, int32_t first, int32_t batch,
                   float *work)
{
    float *other = work + batch * net->row_floats;
    int32_t step = net->stage[net->stages - 1].out_step;
    write_input(net, q, first, batch, work);
    const float *x = chunk_of[net->isa](net, batch, work, other);
    for (int32_t b = 0; b < batch; b++) {
        float *out = kac_query_out(q, first + b);
        for (int32_t o = 0; o < net->outputs; o++)
            out[o] = fmaf(net->scale, x[(int64_t)b * step + o], net->offset);
    }
}

static void forward_chunk(const kac_cpu_call *c, int32_t first, int32_t batch, void *work)
{
    answer(c->net, c->q, first, batch, work);
}

kac_status kac_cpu_conv_regressor_forward(kac_device *dev, const kac_net *net,
                                          const kac_query *q)
{
    (void)dev;
    const kac_cpu_call call = {.name = "conv_regressor", .net = net, .q = q};
    const int32_t rows = kac_query_rows(q), size = chunk_size(net, rows);
    const size_t bytes = 2 * (size_t)size * (size_t)net->row_floats * sizeof(float) + SLACK;
    return kac_cpu_each_chunk(&call, rows, size, bytes, forward_chunk);
}

/* ---- vector-Jacobian product ------------------------------------------------------------ */

static void differentiate(const kac_cpu_call *c, int32_t first, int32_t batch, void *work)
{
    const kac_net *net = c->net;
    float *from = work;
    float *to = from + batch * net->back_floats;
    float *kept = to + batch * net->back_floats;
    int32_t step = net->stage[net->stages - 1].out_step;
    write_input(net, c->q, first, batch, kept);
    memset(from, 0, (size_t)batch * (size_t)step * sizeof *from);
    for (int32_t b = 0; b < batch; b++)
        for (int32_t o = 0; o < net->outputs; o++)
            from[(int64_t)b * step + o] =
                net->scale * c->cotangent[((int64_t)first + b) * net->outputs + o];
    const float *x = vjp_of[net->isa](net, batch, kept, from, to);
    kac_layer_gradient(x + (int64_t)net->prefix_length * batch * net->states, net->states,
                       first, batch, net->length - net->prefix_length - net->suffix_length,
                       net->states, c->grad);
}

kac_status kac_cpu_conv_regressor_vjp(kac_device *dev, const kac_net *net, const kac_query *q,
                                      const float *cotangent, float *grad)
{
    (void)dev;
    const kac_cpu_call call = {"conv_regressor", net, q, cotangent, grad};
    const int32_t rows = kac_query_rows(q);
    const int64_t floats = net->kept_floats + 2 * net->back_floats;
    const int32_t size = kac_cpu_scratch_rows(chunk_size(net, rows), floats);
    const size_t bytes = (size_t)size * (size_t)floats * sizeof(float) + SLACK;
    return kac_cpu_each_chunk(&call, rows, size, bytes, differentiate);
}
