/* cnn1d_cuda.cu -- the cnn1d denoiser, layer by layer over a window of rows.
 *
 * As on the CPU two arrays suffice for the forward: feat, the residual stream, and h, its
 * normalised copy; a gradient keeps feat before each layer, and what the layer adds to it.  With
 * bf16 the forward is one kernel where it fits, cnn1d_resident.cuh.
 */
#include <stdlib.h>
#include <string.h>

#include "cnn1d_resident.cuh"
#include "cnn1d_weights.h"

/* A host struct; its pointers are the device's. */
struct kac_net {
    int32_t states, hidden, kernel, layers;
    int32_t reads_time;
    int32_t dilation[KAC_CNN1D_MAX_LAYERS];
    kac_cuda_layer linear; /* weights [K][S+1][step] */
    float *fourier;        /* [H/2], or NULL: no time features */
    kac_cuda_conv embed;
    kac_cuda_conv time; /* from H to layers times H */
    kac_cuda_layer conv[KAC_CNN1D_MAX_LAYERS];
    float *norm, *norm_bias; /* [layers][H] */
    kac_cuda_layer final0;
    kac_cuda_layer final2;      /* without the mask's row */
    float *shift;               /* [layers][H]: the time features of the latest sigma */
    float *features, *embedded; /* [H]: on the way to them */
    kac_cuda_resident resident; /* of bf16; has nothing of its own */
};

/* ---- time --------------------------------------------------------------------------------- */

/* Short: a thread a feature.  A query without rows may come after the last level. */
KAC_KERNEL feature(KAC_ARGS kac_query q, int32_t half, const float *fourier, float *out)
{
    if (q.levels != NULL && kac_query_rows(&q) == 0) return;
    float sigma = q.levels != NULL ? q.levels[q.clock->level].sigma : 0.0f;
    KAC_EACH (i, half) {
        double sine = 0, cosine = 0;
        kac_sincos_turns((double)sigma * (double)fourier[i], &sine, &cosine);
        out[i] = (float)sine;
        out[half + i] = (float)cosine;
    }
}

/* One row through a dense layer: a thread an output, whose weights lie side by side. */
KAC_KERNEL dense_row(KAC_ARGS kac_cuda_conv layer, kac_activation act, const float *in,
                     float *out)
{
    KAC_EACH (o, layer.out) {
        float x = layer.bias[o];
        for (int32_t c = 0; c < layer.in; c++)
            x = fmaf(in[c], layer.weight[(int64_t)c * layer.step + o], x);
        out[o] = kac_activate(act, x);
    }
}

/* Fills net->shift for the sigma of the query; a query without levels: 0. */
static kac_status feed_time(kac_device *dev, const kac_net *net, const kac_query *q)
{
    if (net->fourier == NULL) return KAC_OK; /* shift is zero since pack */
    KAC_TRY(KAC_LAUNCH(dev, feature, 1, KAC_THREADS, 0, *q, net->hidden / 2, net->fourier,
                       net->features));
    KAC_TRY(KAC_LAUNCH(dev, dense_row, kac_blocks(net->embed.out), KAC_THREADS, 0, net->embed,
                       KAC_ACT_RELU, net->features, net->embedded));
    return KAC_LAUNCH(dev, dense_row, kac_blocks(net->time.out), KAC_THREADS, 0, net->time,
                      KAC_ACT_LINEAR, net->embedded, net->shift);
}

/* ---- pack --------------------------------------------------------------------------------- */

/* `parts` arrays of n floats one behind the other; malloc'ed, NULL: no memory. */
static float *joined(const float *const *part, int32_t parts, int64_t n)
{
    float *all = (float *)malloc((size_t)(parts * n) * sizeof *all);
    for (int32_t i = 0; all != NULL && i < parts; i++)
        memcpy(all + i * n, part[i], (size_t)n * sizeof *all);
    return all;
}

/* The same on the device. */
static kac_status upload(kac_device *dev, const float *const *part, int32_t parts, int64_t n,
                         float **out)
{
    float *all = joined(part, parts, n);
    if (all == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "cnn1d: no memory to pack it");
    *out = kac_cuda_floats(dev, all, parts * n, parts * n);
    free(all);
    return *out != NULL ? KAC_OK : KAC_ERR_NOMEM;
}

/* What a network with time features has, and zeros in their place for one without. */
static kac_status pack_time(kac_device *dev, const kac_cnn1d_weights *w, kac_net *net)
{
    const int64_t h = w->hidden;
    const int32_t outputs = w->layers * w->hidden;
    net->shift = kac_cuda_floats(dev, NULL, 0, outputs);
    if (net->shift == NULL) return KAC_ERR_NOMEM;
    if (w->fourier == NULL) return KAC_OK;
    const kac_tile_weights embed = {w->embed, w->hidden, 1, w->hidden, h, 0, 1};
    KAC_TRY(kac_cuda_conv_pack(dev, &embed, w->embed_bias, &net->embed));
    KAC_TRY(upload(dev, &w->fourier, 1, h / 2, &net->fourier));
    net->features = kac_cuda_floats(dev, NULL, 0, h);
    net->embedded = kac_cuda_floats(dev, NULL, 0, h);
    float *weight = joined(w->time, w->layers, h * h);
    float *bias = joined(w->time_bias, w->layers, h);
    const kac_tile_weights time = {weight, outputs, 1, w->hidden, h, 0, 1};
    kac_status status = KAC_ERR_NOMEM;
    if (weight != NULL && bias != NULL && net->features != NULL && net->embedded != NULL)
        status = kac_cuda_conv_pack(dev, &time, bias, &net->time);
    free(weight);
    free(bias);
    return status;
}

/* What is packed, as the kernel of whole networks reads it. */
static void reside(kac_net *net)
{
    kac_cuda_resident *r = &net->resident;
    r->states = net->states;
    r->hidden = net->hidden;
    r->kernel = net->kernel;
    r->layers = net->layers;
    memcpy(r->dilation, net->dilation, sizeof r->dilation);
    for (int32_t i = 0; i < net->layers; i++) {
        r->weight[i] = net->conv[i].there.grouped;
        r->bias[i] = net->conv[i].there.bias;
    }
    r->weight[net->layers] = net->final0.there.grouped;
    r->bias[net->layers] = net->final0.there.bias;
    r->linear = net->linear.there;
    r->final2 = net->final2.there;
    r->norm = net->norm;
    r->norm_bias = net->norm_bias;
    r->shift = net->shift;
}

static kac_status pack(kac_device *dev, const kac_cnn1d_weights *w, kac_net *net)
{
    const int32_t h = w->hidden, k = w->kernel, tokens = w->states + 1;
    const kac_tile_weights linear = {w->linear, h, k, tokens, (int64_t)tokens * k, 1, k};
    const kac_tile_weights final0 = {w->final0, h, 1, h, h, 0, 1};
    const kac_tile_weights final2 = {w->final2, w->states, 1, h, h, 0, 1};
    KAC_TRY(kac_cuda_layer_pack(dev, &linear, w->linear_bias, &net->linear));
    for (int32_t i = 0; i < w->layers; i++) {
        const kac_tile_weights conv = {w->conv[i], h, k, h, (int64_t)h * k, 1, k};
        KAC_TRY(kac_cuda_layer_pack(dev, &conv, w->conv_bias[i], &net->conv[i]));
        net->conv[i].there.precision = dev->precision;
        KAC_TRY(kac_cuda_conv_group(dev, &conv, &net->conv[i].there));
    }
    KAC_TRY(upload(dev, w->norm, w->layers, h, &net->norm));
    KAC_TRY(upload(dev, w->norm_bias, w->layers, h, &net->norm_bias));
    KAC_TRY(kac_cuda_layer_pack(dev, &final0, w->final0_bias, &net->final0));
    KAC_TRY(kac_cuda_conv_group(dev, &final0, &net->final0.there));
    KAC_TRY(kac_cuda_layer_pack(dev, &final2, w->final2_bias, &net->final2));
    KAC_TRY(pack_time(dev, w, net));
    reside(net);
    const kac_query at_zero = {};
    return feed_time(dev, net, &at_zero);
}

kac_status kac_cuda_cnn1d_pack(kac_device *dev, const kac_cnn1d_weights *host_weights,
                               kac_net **out)
{
    const kac_cnn1d_weights *w = host_weights;
    KAC_TRY(kac_cnn1d_check(w));
    kac_net *net = (kac_net *)calloc(1, sizeof *net);
    if (net == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "cnn1d: no memory to pack it");
    net->states = w->states;
    net->hidden = w->hidden;
    net->kernel = w->kernel;
    net->layers = w->layers;
    net->reads_time = w->reads_time;
    memcpy(net->dilation, w->dilation, sizeof net->dilation);
    kac_status status = pack(dev, w, net);
    if (status == KAC_OK)
        *out = net;
    else
        kac_cuda_cnn1d_drop(dev, net);
    return status;
}

void kac_cuda_cnn1d_drop(kac_device *dev, kac_net *net)
{
    if (net == NULL) return;
    float *const arrays[] = {net->fourier, net->norm,     net->norm_bias,
                             net->shift,   net->features, net->embedded};
    for (float *array : arrays)
        dev->ops->memory.release(dev, array);
    for (int32_t i = 0; i < net->layers; i++)
        kac_cuda_layer_drop(dev, &net->conv[i]);
    kac_cuda_layer_drop(dev, &net->linear);
    kac_cuda_conv_drop(dev, &net->embed);
    kac_cuda_conv_drop(dev, &net->time);
    kac_cuda_layer_drop(dev, &net->final0);
    kac_cuda_layer_drop(dev, &net->final2);
    free(net);
}

/* ---- forward ------------------------------------------------------------------------------ */

/* Bound by memory: a thread four channels of a row, whose tokens' weights lie in the cache. */
KAC_KERNEL embed_tokens(KAC_ARGS kac_query q, KAC_ARGS kac_cuda_conv layer, float *feat)
{
    const int32_t batch = kac_query_rows(&q), half = layer.taps / 2, parts = layer.step / 4;
    const float4 *weight = reinterpret_cast<const float4 *>(layer.weight);
    const float4 *bias = reinterpret_cast<const float4 *>(layer.bias);
    float4 *out = reinterpret_cast<float4 *>(feat);
    KAC_EACH (i, (int64_t)q.length * batch * parts) {
        const int32_t l = (int32_t)(i / parts / batch), b = (int32_t)(i / parts % batch);
        const uint8_t *tokens = kac_query_tokens(&q, b);
        float4 x = bias[i % parts];
        for (int32_t k = 0; k < layer.taps; k++) {
            const int32_t from = l + k - half;
            if (from < 0 || from >= q.length) continue;
            float4 y = weight[((int64_t)k * layer.in + tokens[from]) * parts + i % parts];
            x = {x.x + y.x, x.y + y.y, x.z + y.z, x.w + y.w};
        }
        out[i] = {kac_activate(KAC_ACT_RELU, x.x), kac_activate(KAC_ACT_RELU, x.y),
                  kac_activate(KAC_ACT_RELU, x.z), kac_activate(KAC_ACT_RELU, x.w)};
    }
}

static kac_status embed(kac_device *dev, const kac_net *net, const kac_query *q, float *feat)
{
    const kac_cuda_conv *layer = &net->linear.there;
    return KAC_LAUNCH(dev, embed_tokens,
                      kac_blocks((int64_t)q->length * q->capacity * (layer->step / 4)),
                      KAC_THREADS, 0, *q, *layer, feat);
}

/* Floats of an array of one row. */
static int64_t array_floats(const kac_net *net, int32_t length)
{
    int32_t width = kac_cuda_step(net->hidden), token_width = kac_cuda_step(net->states + 1);
    return (int64_t)length * (width > token_width ? width : token_width);
}

static kac_cuda_norm norm_of(const kac_net *net, int32_t layer)
{
    const int64_t at = (int64_t)layer * net->hidden;
    return {net->norm + at, net->norm_bias + at, net->shift + at, net->hidden};
}

static kac_cuda_shape shape_of(const kac_net *net, int32_t length, int32_t dilation)
{
    return {length, length, dilation, (int64_t)(net->kernel / 2) * dilation};
}

static kac_status run_window(kac_device *dev, const kac_net *net, const kac_query *q,
                             float *feat, float *h)
{
    const kac_cuda_ending add = {NULL, NULL, KAC_ACT_RELU, NULL, feat};
    const kac_cuda_ending relu = {NULL, NULL, KAC_ACT_RELU, NULL, NULL};
    const kac_cuda_ending linear = {NULL, NULL, KAC_ACT_LINEAR, NULL, NULL};
    KAC_TRY(embed(dev, net, q, feat));
    for (int32_t i = 0; i < net->layers; i++) {
        const kac_cuda_norm norm = norm_of(net, i);
        const kac_cuda_shape shape = shape_of(net, q->length, net->dilation[i]);
        KAC_TRY(kac_cuda_norm_run(dev, q, &norm, q->length, feat, h));
        KAC_TRY(kac_cuda_conv_run(dev, q, &net->conv[i].there, &shape, &add, h, feat));
    }
    KAC_TRY(kac_cuda_dense_run(dev, q, &net->final0.there, q->length, &relu, feat, h));
    KAC_TRY(kac_cuda_dense_run(dev, q, &net->final2.there, q->length, &linear, h, feat));
    return kac_cuda_rows_out(dev, q, 0, q->length, net->states, feat);
}

kac_status kac_cuda_cnn1d_forward(kac_device *dev, const kac_net *net, const kac_query *q)
{
    const int64_t array = array_floats(net, q->length);
    int32_t rows = 0;
    float *memory = NULL;
    if (net->reads_time) KAC_TRY(feed_time(dev, net, q));
    if (kac_cuda_resident_fits(&net->resident, q->length))
        return kac_cuda_resident_run(dev, &net->resident, q);
    KAC_TRY(kac_cuda_window(dev, q, 2 * array, &rows, &memory));
    for (int32_t begin = 0; begin < q->capacity; begin += rows) {
        const kac_query window = kac_query_window(q, begin, rows, net->states);
        KAC_TRY(run_window(dev, net, &window, memory, memory + rows * array));
    }
    return KAC_OK;
}

/* ---- vector-Jacobian product -------------------------------------------------------------- */

/* The arrays: the residual stream before each layer and after all, relu(conv) that each layer
 * adds to it, and three more. */
struct tape {
    float *feat[KAC_CNN1D_MAX_LAYERS + 1];
    float *step[KAC_CNN1D_MAX_LAYERS];
    float *a, *b, *c;
};

static tape arrange(const kac_net *net, int64_t array, float *memory)
{
    tape t;
    for (int32_t i = 0; i <= net->layers; i++, memory += array)
        t.feat[i] = memory;
    for (int32_t i = 0; i < net->layers; i++, memory += array)
        t.step[i] = memory;
    t.a = memory;
    t.b = t.a + array;
    t.c = t.b + array;
    return t;
}

/* The forward, with all that the way back needs. */
static kac_status record(kac_device *dev, const kac_net *net, const kac_query *q, tape *t)
{
    KAC_TRY(embed(dev, net, q, t->feat[0]));
    for (int32_t i = 0; i < net->layers; i++) {
        const kac_cuda_norm norm = norm_of(net, i);
        const kac_cuda_shape shape = shape_of(net, q->length, net->dilation[i]);
        const kac_cuda_ending end = {NULL, NULL, KAC_ACT_RELU, t->step[i], t->feat[i]};
        KAC_TRY(kac_cuda_norm_run(dev, q, &norm, q->length, t->feat[i], t->a));
        KAC_TRY(
            kac_cuda_conv_run(dev, q, &net->conv[i].there, &shape, &end, t->a, t->feat[i + 1]));
    }
    return KAC_OK;
}

/* t->c = the gradient of the last feat, from the cotangent in t->a. */
static kac_status head_back(kac_device *dev, const kac_net *net, const kac_query *q, tape *t)
{
    const int32_t length = q->length;
    const int64_t floats = (int64_t)length * kac_cuda_step(net->hidden);
    const kac_cuda_ending relu = {NULL, NULL, KAC_ACT_RELU, NULL, NULL};
    const kac_cuda_ending linear = {NULL, NULL, KAC_ACT_LINEAR, NULL, NULL};
    KAC_TRY(kac_cuda_dense_run(dev, q, &net->final0.there, length, &relu, t->feat[net->layers],
                               t->b));
    KAC_TRY(kac_cuda_dense_run(dev, q, &net->final2.back, length, &linear, t->a, t->c));
    KAC_TRY(kac_cuda_gate(dev, q, floats, t->b, t->c, t->a));
    return kac_cuda_dense_run(dev, q, &net->final0.back, length, &linear, t->a, t->c);
}

/* t->c, the gradient of feat after the layer, becomes that of feat before it. */
static kac_status layer_back(kac_device *dev, const kac_net *net, const kac_query *q,
                             int32_t layer, tape *t)
{
    const int64_t floats = (int64_t)q->length * kac_cuda_step(net->hidden);
    const kac_cuda_ending linear = {NULL, NULL, KAC_ACT_LINEAR, NULL, NULL};
    const kac_cuda_norm norm = norm_of(net, layer);
    const kac_cuda_shape shape = shape_of(net, q->length, net->dilation[layer]);
    KAC_TRY(kac_cuda_gate(dev, q, floats, t->step[layer], t->c, t->a));
    KAC_TRY(kac_cuda_conv_run(dev, q, &net->conv[layer].back, &shape, &linear, t->a, t->b));
    return kac_cuda_norm_back(dev, q, &norm, q->length, t->feat[layer], t->b, t->c, t->c);
}

/* The query's results are the gradients. */
static kac_status differentiate(kac_device *dev, const kac_net *net, const kac_query *q,
                                const float *cotangent, tape *t)
{
    const int64_t floats = (int64_t)q->length * kac_cuda_step(net->hidden);
    const kac_cuda_ending linear = {NULL, NULL, KAC_ACT_LINEAR, NULL, NULL};
    const kac_cuda_shape shape = shape_of(net, q->length, 1);
    KAC_TRY(record(dev, net, q, t));
    KAC_TRY(kac_cuda_rows_in(dev, q, q->length, net->states, cotangent, t->a));
    KAC_TRY(head_back(dev, net, q, t));
    for (int32_t i = net->layers - 1; i >= 0; i--)
        KAC_TRY(layer_back(dev, net, q, i, t));
    KAC_TRY(kac_cuda_gate(dev, q, floats, t->feat[0], t->c, t->a));
    KAC_TRY(kac_cuda_conv_run(dev, q, &net->linear.back, &shape, &linear, t->a, t->b));
    return kac_cuda_rows_out(dev, q, 0, q->length, net->states + 1, t->b);
}

kac_status kac_cuda_cnn1d_vjp(kac_device *dev, const kac_net *net, const kac_query *q,
                              const float *cotangent, float *grad)
{
    const int64_t array = array_floats(net, q->length);
    const int64_t each = (int64_t)q->length * net->states;
    const kac_query to_grad = kac_query_to(q, grad, q->length * (net->states + 1));
    int32_t rows = 0;
    float *memory = NULL;
    if (net->reads_time) KAC_TRY(feed_time(dev, net, q));
    KAC_TRY(kac_cuda_window(dev, q, (2 * (int64_t)net->layers + 4) * array, &rows, &memory));
    tape t = arrange(net, rows * array, memory);
    for (int32_t begin = 0; begin < q->capacity; begin += rows) {
        const kac_query window = kac_query_window(&to_grad, begin, rows, net->states);
        KAC_TRY(differentiate(dev, net, &window, cotangent + begin * each, &t));
    }
    return KAC_OK;
}
