/* conv_regressor_cuda.cu -- a window of rows through all layers of a conv_regressor, and back. */
#include <stdlib.h>

#include "conv_cuda.cuh"

struct stage {
    kac_regressor_layer what;      /* its kernel and bias are the file's: not used */
    kac_cuda_layer layer;          /* conv, dense */
    int64_t in_floats, out_floats; /* of a sequence */
    int64_t in_at, before_at; /* where a vjp keeps its input, and what gelu was given: floats
                                      a sequence */
};

/* A host struct; its pointers are the device's. */
struct kac_net {
    int32_t states, outputs;
    kac_cuda_frame frame;
    uint8_t *prefix, *suffix; /* what frame points to */
    int32_t stages;
    int64_t row_floats;  /* the largest array of a sequence between two stages */
    int64_t out_at;      /* where a vjp keeps the last stage's result: floats a sequence */
    int64_t kept_floats; /* of a sequence: all that a vjp keeps */
    stage at[KAC_REGRESSOR_MAX_LAYERS];
    float scale, offset;
};

/* ---- pack --------------------------------------------------------------------------------- */

static bool has_weights(const stage *s)
{
    return s->what.kind == KAC_LAYER_CONV || s->what.kind == KAC_LAYER_DENSE;
}

static kac_status pack_tokens(kac_device *dev, const uint8_t *tokens, int32_t length,
                              uint8_t **out)
{
    *out = (uint8_t *)dev->ops->memory.alloc(dev, (size_t)length);
    if (*out == NULL) return KAC_ERR_NOMEM;
    return dev->ops->memory.upload(dev, *out, tokens, (size_t)length);
}

/* Stage number net->stages, whose input a vjp keeps behind those of the stages before it. */
static kac_status pack_stage(kac_device *dev, const kac_regressor_layer *what, kac_net *net)
{
    stage *s = &net->at[net->stages++];
    s->what = *what;
    s->in_floats = (int64_t)what->in_length * kac_cuda_step(what->in);
    s->out_floats = (int64_t)what->out_length * kac_cuda_step(what->out);
    s->in_at = net->out_at;
    s->before_at = s->in_at + s->in_floats;
    net->out_at = s->before_at + (what->act == KAC_ACT_GELU ? s->out_floats : 0);
    net->kept_floats = net->out_at + s->out_floats;
    if (s->in_floats > net->row_floats) net->row_floats = s->in_floats;
    if (s->out_floats > net->row_floats) net->row_floats = s->out_floats;
    if (!has_weights(s)) return KAC_OK;
    const kac_tile_weights weights = {what->kernel, what->out, what->taps,
                                      what->in,     1,         (int64_t)what->in * what->out,
                                      what->out};
    KAC_TRY(kac_cuda_layer_pack(dev, &weights, what->bias, &s->layer));
    if (what->kind != KAC_LAYER_CONV) return KAC_OK;
    s->layer.there.precision = dev->precision;
    if (net->stages == 1) return kac_cuda_conv_letters(dev, &s->layer.there);
    return kac_cuda_conv_group(dev, &weights, &s->layer.there);
}

static kac_status pack(kac_device *dev, const kac_conv_regressor_weights *w, kac_net *net)
{
    KAC_TRY(pack_tokens(dev, w->prefix, w->prefix_length, &net->prefix));
    KAC_TRY(pack_tokens(dev, w->suffix, w->suffix_length, &net->suffix));
    net->frame = {net->prefix, net->suffix, w->prefix_length, w->suffix_length};
    for (int32_t i = 0; i < w->layers; i++)
        KAC_TRY(pack_stage(dev, &w->layer[i], net));
    return KAC_OK;
}

kac_status kac_cuda_conv_regressor_pack(kac_device *dev,
                                        const kac_conv_regressor_weights *host_weights,
                                        kac_net **out)
{
    const kac_conv_regressor_weights *w = host_weights;
    KAC_REQUIRE(w->layers >= 1 && w->layers <= KAC_REGRESSOR_MAX_LAYERS);
    kac_net *net = (kac_net *)calloc(1, sizeof *net);
    if (net == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "conv_regressor: no memory to pack it");
    net->states = w->states;
    net->outputs = w->outputs;
    net->scale = w->scale;
    net->offset = w->offset;
    kac_status status = pack(dev, w, net);
    if (status == KAC_OK)
        *out = net;
    else
        kac_cuda_conv_regressor_drop(dev, net);
    return status;
}

void kac_cuda_conv_regressor_drop(kac_device *dev, kac_net *net)
{
    if (net == NULL) return;
    for (int32_t i = 0; i < net->stages; i++)
        kac_cuda_layer_drop(dev, &net->at[i].layer);
    dev->ops->memory.release(dev, net->prefix);
    dev->ops->memory.release(dev, net->suffix);
    free(net);
}

/* ---- forward ------------------------------------------------------------------------------ */

/* What a kernel over the channels of all rows and windows of a pool, or of a flatten, is about. */
struct pool_call {
    kac_query q;
    int32_t in_length, out_length, size;
    int32_t channels; /* of the input */
    const float *in, *out;
};

static pool_call pool_of(const stage *s, const kac_query *q, const float *in, const float *out)
{
    return {*q, s->what.in_length, s->what.out_length, s->what.size, s->what.in, in, out};
}

/* Bound by memory: a thread four channels of a window, side by side. */
KAC_KERNEL take_largest(KAC_ARGS pool_call a, float *out)
{
    const int64_t row = (int64_t)kac_query_rows(&a.q) * (kac_cuda_step(a.channels) / 4);
    const float4 *from = reinterpret_cast<const float4 *>(a.in);
    KAC_EACH (i, a.out_length * row) {
        const kac_quotient at = kac_split(i, row);
        const float4 *in = from + at.whole * a.size * row + at.rest;
        float4 most = in[0];
        for (int32_t t = 1; t < a.size; t++)
            most = larger(most, in[t * row]);
        reinterpret_cast<float4 *>(out)[i] = most;
    }
}

/* [length][batch][channels] to [batch][length channels]. */
KAC_KERNEL flatten(KAC_ARGS pool_call a, float *out)
{
    const int32_t batch = kac_query_rows(&a.q), step = kac_cuda_step(a.channels);
    const int32_t each = a.in_length * a.channels, out_step = kac_cuda_step(each);
    KAC_EACH (i, (int64_t)batch * each) {
        const kac_quotient row = kac_split(i, each), site = kac_split(row.rest, a.channels);
        out[row.whole * out_step + row.rest] =
            a.in[(site.whole * batch + row.whole) * step + site.rest];
    }
}

static kac_cuda_shape shape_of(const stage *s)
{
    return {s->what.in_length, s->what.out_length, s->what.dilation, s->what.pad};
}

/* `before`: gets what gelu was given; or NULL. */
static kac_cuda_ending ending_of(const stage *s, float *before)
{
    return {s->what.act == KAC_ACT_GELU ? before : NULL, NULL, s->what.act, NULL, NULL};
}

static kac_status run_stage(kac_device *dev, const kac_query *q, const stage *s,
                            const float *in, float *before, float *out)
{
    const kac_cuda_shape shape = shape_of(s);
    const kac_cuda_ending end = ending_of(s, before);
    const pool_call pool = pool_of(s, q, in, out);
    switch (s->what.kind) {
    case KAC_LAYER_CONV:
    case KAC_LAYER_DENSE:
        return kac_cuda_conv_run(dev, q, &s->layer.there, &shape, &end, in, out);
    case KAC_LAYER_MAXPOOL:
    case KAC_LAYER_GLOBALMAX:
        return KAC_LAUNCH(dev, take_largest, kac_blocks(s->out_floats / 4 * q->capacity),
                          KAC_THREADS, 0, pool, out);
    case KAC_LAYER_AVGPOOL:
    case KAC_LAYER_GLOBALAVG:
        return kac_cuda_mean(dev, q, s->what.out_length, s->what.size,
                             kac_cuda_step(s->what.in), in, out);
    case KAC_LAYER_FLATTEN:
        return KAC_LAUNCH(dev, flatten, kac_blocks(s->out_floats * q->capacity), KAC_THREADS, 0,
                          pool, out);
    }
    return KAC_OK;
}

/* The same of the first stage, with room for its input at `in`. */
static kac_status run_first(kac_device *dev, const kac_net *net, const kac_query *q, float *in,
                            float *before, float *out)
{
    const stage *s = &net->at[0];
    const kac_cuda_shape shape = shape_of(s);
    const kac_cuda_ending end = ending_of(s, before);
    if (has_weights(s))
        return kac_cuda_first_run(dev, q, &net->frame, &s->layer.there, &shape, &end, in, out);
    KAC_TRY(kac_cuda_input(dev, q, &net->frame, net->states, in));
    return run_stage(dev, q, s, in, before, out);
}

KAC_KERNEL scale_out(KAC_ARGS kac_query q, int32_t outputs, float scale, float offset,
                     const float *x)
{
    const int32_t step = kac_cuda_step(outputs);
    KAC_EACH (i, (int64_t)kac_query_rows(&q) * outputs) {
        const int32_t b = (int32_t)(i / outputs), o = (int32_t)(i % outputs);
        kac_query_out(&q, b)[o] = fmaf(scale, x[(int64_t)b * step + o], offset);
    }
}

static bool is_largest(const stage *s)
{
    return s->what.kind == KAC_LAYER_MAXPOOL || s->what.kind == KAC_LAYER_GLOBALMAX;
}

static kac_cuda_first first_of(const kac_net *net)
{
    const stage *s = &net->at[0];
    return {&net->frame, &s->layer.there, shape_of(s), s->what.act};
}

/* Whether the kernel of the second stage takes in the first one. */
static bool takes_first(const kac_net *net, const kac_query *q)
{
    const stage *s = net->at;
    if (net->stages < 2 || s[0].what.kind != KAC_LAYER_CONV || s[1].what.kind != KAC_LAYER_CONV)
        return false;
    const kac_cuda_first first = first_of(net);
    const kac_cuda_shape shape = shape_of(&s[1]);
    return kac_cuda_conv_reads(q, &first, &s[1].layer.there, &shape, s[1].what.act);
}

/* The pool that the kernel of stage s takes in, and the flatten behind that. */
static kac_cuda_pool pool_behind(const kac_net *net, const stage *s)
{
    const stage *end = net->at + net->stages;
    const kac_cuda_shape shape = shape_of(s);
    if (s->what.kind != KAC_LAYER_CONV || s + 1 == end || !is_largest(s + 1) ||
        !kac_cuda_conv_pools(&s->layer.there, &shape, s->what.act))
        return {};
    return {s[1].what.size, s + 2 < end && s[2].what.kind == KAC_LAYER_FLATTEN};
}

/* Queues stage i and those that one kernel takes in with it; gives the next one. */
static kac_status run_stages(kac_device *dev, const kac_net *net, const kac_query *q, int32_t i,
                             float *in, float *out, int32_t *next)
{
    const bool letters = i == 0 && takes_first(net, q);
    const stage *s = &net->at[letters ? 1 : i];
    const kac_cuda_first first = first_of(net);
    const kac_cuda_shape shape = shape_of(s);
    *next = 1;
    if (i == 0 && !letters) return run_first(dev, net, q, in, NULL, out);
    const kac_cuda_pool pool = pool_behind(net, s);
    *next = (int32_t)(s - net->at) + 1 + (pool.size > 0) + pool.flat;
    if (!letters && pool.size == 0) return run_stage(dev, q, s, in, NULL, out);
    return kac_cuda_conv_fused(dev, q, letters ? &first : NULL, &s->layer.there, &shape,
                               s->what.act, &pool, in, out);
}

static kac_status run_window(kac_device *dev, const kac_net *net, const kac_query *q,
                             float *from, float *to)
{
    for (int32_t i = 0; i < net->stages;) {
        KAC_TRY(run_stages(dev, net, q, i, from, to, &i));
        float *result = to;
        to = from;
        from = result;
    }
    return KAC_LAUNCH(dev, scale_out, kac_blocks((int64_t)q->capacity * net->outputs),
                      KAC_THREADS, 0, *q, net->outputs, net->scale, net->offset, from);
}

kac_status kac_cuda_conv_regressor_forward(kac_device *dev, const kac_net *net,
                                           const kac_query *q)
{
    int32_t rows = 0;
    float *memory = NULL;
    KAC_TRY(kac_cuda_window(dev, q, 2 * net->row_floats, &rows, &memory));
    for (int32_t begin = 0; begin < q->capacity; begin += rows) {
        const kac_query window = kac_query_window(q, begin, rows, net->states);
        KAC_TRY(run_window(dev, net, &window, memory, memory + rows * net->row_floats));
    }
    return KAC_OK;
}

/* ---- vector-Jacobian product -------------------------------------------------------------- */

KAC_KERNEL slope(KAC_ARGS kac_query q, kac_activation act, int64_t floats, const float *before,
                 const float *y, float *g)
{
    KAC_EACH (i, floats * kac_query_rows(&q))
        g[i] = kac_activate_back(act, act == KAC_ACT_GELU ? before[i] : 0, y[i], g[i]);
}

/* A thread a channel of a row and window, and of what no window covers. */
KAC_KERNEL pool_back(KAC_ARGS pool_call a, bool largest, const float *g, float *to)
{
    const int64_t row = (int64_t)kac_query_rows(&a.q) * kac_cuda_step(a.channels);
    const int64_t used = (int64_t)a.out_length * a.size;
    KAC_EACH (i, a.out_length * row) {
        const int64_t at = i / row * a.size * row + i % row;
        float rest = g[i];
        for (int32_t t = 0; t < a.size; t++) {
            if (!largest) {
                to[at + t * row] = rest / (float)a.size;
                continue;
            }
            const bool here = !(a.in[at + t * row] < a.out[i]);
            to[at + t * row] = here ? rest : 0;
            rest = here ? 0 : rest;
        }
    }
    KAC_EACH (i, (a.in_length - used) * row)
        to[used * row + i] = 0;
}

KAC_KERNEL flatten_back(KAC_ARGS pool_call a, const float *g, float *to)
{
    const int32_t batch = kac_query_rows(&a.q), step = kac_cuda_step(a.channels);
    const int32_t each = a.in_length * a.channels, out_step = kac_cuda_step(each);
    KAC_EACH (i, (int64_t)batch * each) {
        const int64_t b = i / each, l = i % each / a.channels;
        to[(l * batch + b) * step + i % a.channels] = g[b * out_step + i % each];
    }
}

/* to = the gradient of the stage's input, from g of its output, which is used up; `kept` has the
 * arrays of `rows` sequences. */
static kac_status stage_back(kac_device *dev, const kac_net *net, const kac_query *q, int32_t i,
                             const float *kept, int32_t rows, float *g, float *to)
{
    const stage *s = &net->at[i];
    const float *out = kept + rows * (i + 1 < net->stages ? s[1].in_at : net->out_at);
    const kac_cuda_ending linear = {NULL, NULL, KAC_ACT_LINEAR, NULL, NULL};
    const pool_call pool = pool_of(s, q, kept + rows * s->in_at, out);
    const bool largest = is_largest(s);
    if (has_weights(s)) {
        const kac_cuda_shape shape = shape_of(s);
        const kac_cuda_shape back = kac_cuda_shape_back(&shape, s->what.taps);
        if (s->what.act != KAC_ACT_LINEAR)
            KAC_TRY(KAC_LAUNCH(dev, slope, kac_blocks(s->out_floats * q->capacity), KAC_THREADS,
                               0, *q, s->what.act, s->out_floats, kept + rows * s->before_at,
                               out, g));
        return kac_cuda_conv_run(dev, q, &s->layer.back, &back, &linear, g, to);
    }
    if (s->what.kind == KAC_LAYER_FLATTEN)
        return KAC_LAUNCH(dev, flatten_back, kac_blocks(s->in_floats * q->capacity),
                          KAC_THREADS, 0, pool, g, to);
    return KAC_LAUNCH(dev, pool_back, kac_blocks(s->in_floats * q->capacity), KAC_THREADS, 0,
                      pool, largest, g, to);
}

KAC_KERNEL scale_in(KAC_ARGS kac_query q, int32_t outputs, float scale, const float *cotangent,
                    float *g)
{
    const int32_t step = kac_cuda_step(outputs);
    KAC_EACH (i, (int64_t)kac_query_rows(&q) * outputs)
        g[i / outputs * step + i % outputs] = scale * cotangent[i];
}

/* The query's results are the gradients. */
static kac_status differentiate(kac_device *dev, const kac_net *net, const kac_query *q,
                                const float *cotangent, int32_t rows, float *memory)
{
    float *from = memory;
    float *to = from + rows * net->row_floats;
    float *kept = to + rows * net->row_floats;
    for (int32_t i = 0; i < net->stages; i++) {
        const stage *s = &net->at[i];
        float *in = kept + rows * s->in_at, *before = kept + rows * s->before_at;
        float *out = kept + rows * (i + 1 < net->stages ? s[1].in_at : net->out_at);
        if (i == 0)
            KAC_TRY(run_first(dev, net, q, in, before, out));
        else
            KAC_TRY(run_stage(dev, q, s, in, before, out));
    }
    KAC_TRY(KAC_LAUNCH(dev, scale_in, kac_blocks((int64_t)q->capacity * net->outputs),
                       KAC_THREADS, 0, *q, net->outputs, net->scale, cotangent, from));
    for (int32_t i = net->stages - 1; i >= 0; i--) {
        KAC_TRY(stage_back(dev, net, q, i, kept, rows, from, to));
        float *result = to;
        to = from;
        from = result;
    }
    return kac_cuda_rows_out(dev, q, net->frame.prefix_length, q->length, net->states, from);
}

kac_status kac_cuda_conv_regressor_vjp(kac_device *dev, const kac_net *net, const kac_query *q,
                                       const float *cotangent, float *grad)
{
    const kac_query to_grad = kac_query_to(q, grad, q->length * net->states);
    int32_t rows = 0;
    float *memory = NULL;
    KAC_TRY(kac_cuda_window(dev, q, net->kept_floats + 2 * net->row_floats, &rows, &memory));
    for (int32_t begin = 0; begin < q->capacity; begin += rows) {
        const kac_query window = kac_query_window(&to_grad, begin, rows, net->states);
        KAC_TRY(differentiate(dev, net, &window, cotangent + (int64_t)begin * net->outputs,
                              rows, memory));
    }
    return KAC_OK;
}
