/* gin_cuda.cu -- a window of graphs through all layers of a gin, and back. */
#include <stdlib.h>

#include "gin.h"
#include "layer_cuda.cuh"

/* Where a window keeps what a layer reads and what its first dense layer gives: floats a graph. */
struct stage {
    kac_cuda_layer linear[2];
    int64_t in_at, hidden_at;
};

/* A host struct; its pointers are the device's. */
struct kac_net {
    int32_t nodes, features, outputs, length;
    int32_t stages;
    stage at[KAC_GIN_MAX_LAYERS];
    kac_cuda_layer end;
    float *alone;            /* [step of the last stage] */
    int64_t mean_at, out_at; /* of the last stage's output, then its mean; of the end's */
    int64_t kept_floats;     /* of a graph, its count of live nodes first */
    int32_t back_floats;     /* of the widest gradient */
};

/* ---- pack --------------------------------------------------------------------------------- */

static void grow(kac_net *net, int32_t step)
{
    if (step > net->back_floats) net->back_floats = step;
}

/* Weights are [out][in]. */
static kac_status pack_linear(kac_device *dev, const float *weight, const float *bias,
                              int32_t in, int32_t out, kac_cuda_layer *layer)
{
    const kac_tile_weights w = {weight, out, 1, in, in, 0, 1};
    return kac_cuda_layer_pack(dev, &w, bias, layer);
}

static kac_status pack(kac_device *dev, const kac_gin_weights *w, kac_net *net)
{
    int32_t step = kac_cuda_step(w->features);
    const int32_t width = w->layer[w->layers - 1].out;
    net->mean_at = 4; /* the count of live nodes, and what keeps the rest at whole float4 */
    grow(net, step);
    for (int32_t i = 0; i < w->layers; i++) {
        const kac_gin_layer *layer = &w->layer[i];
        stage *s = &net->at[net->stages++];
        KAC_TRY(pack_linear(dev, layer->weight[0], layer->bias[0], layer->in, layer->hidden,
                            &s->linear[0]));
        KAC_TRY(pack_linear(dev, layer->weight[1], layer->bias[1], layer->hidden, layer->out,
                            &s->linear[1]));
        s->in_at = net->mean_at;
        s->hidden_at = s->in_at + step;
        net->mean_at = s->hidden_at + kac_cuda_step(layer->hidden);
        step = kac_cuda_step(layer->out);
        grow(net, kac_cuda_step(layer->hidden));
        grow(net, step);
    }
    KAC_TRY(pack_linear(dev, w->weight, w->bias, width, w->outputs, &net->end));
    grow(net, kac_cuda_step(w->outputs));
    net->out_at = net->mean_at + step;
    net->kept_floats = net->out_at + kac_cuda_step(w->outputs);

    float *alone = kac_gin_alone(w);
    if (alone == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "gin: no memory to pack it");
    net->alone = kac_cuda_floats(dev, alone, width, step);
    free(alone);
    return net->alone != NULL ? KAC_OK : KAC_ERR_NOMEM;
}

kac_status kac_cuda_gin_pack(kac_device *dev, const kac_gin_weights *host_weights,
                             kac_net **out)
{
    const kac_gin_weights *w = host_weights;
    KAC_TRY(kac_gin_check(w));
    kac_net *net = (kac_net *)calloc(1, sizeof *net);
    if (net == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "gin: no memory to pack it");
    net->nodes = w->nodes;
    net->features = w->features;
    net->outputs = w->outputs;
    net->length = kac_gin_length(w);
    kac_status status = pack(dev, w, net);
    if (status == KAC_OK)
        *out = net;
    else
        kac_cuda_gin_drop(dev, net);
    return status;
}

void kac_cuda_gin_drop(kac_device *dev, kac_net *net)
{
    if (net == NULL) return;
    for (int32_t i = 0; i < net->stages; i++)
        for (int k = 0; k < 2; k++)
            kac_cuda_layer_drop(dev, &net->at[i].linear[k]);
    kac_cuda_layer_drop(dev, &net->end);
    dev->ops->memory.release(dev, net->alone);
    free(net);
}

/* ---- forward ------------------------------------------------------------------------------ */

/* Rows of a window, and its memory: an array at `at` floats a graph is [rows][step] from
 * memory + rows * at on. */
struct window {
    kac_query q;
    int32_t rows;
    float *memory;
};

static float *array_of(const window *w, int64_t at)
{
    return w->memory + w->rows * at;
}

/* live[b], and sum[b][f] of the features of live nodes.  Bound by memory: a thread a feature. */
KAC_KERNEL sum_nodes(KAC_ARGS kac_query q, int32_t nodes, int32_t features, float *live,
                     float *sum)
{
    const int32_t step = kac_cuda_step(features);
    KAC_EACH (i, (int64_t)kac_query_rows(&q) * features) {
        const int32_t b = (int32_t)(i / features), f = (int32_t)(i % features);
        const float *row = kac_query_vector(&q, b);
        const float n = kac_gin_live(row, nodes);
        sum[(int64_t)b * step + f] = kac_gin_sum(row, n, features, f);
        if (f == 0) live[b] = n;
    }
}

/* x[b] *= live[b]. */
KAC_KERNEL multiply(KAC_ARGS kac_query q, int32_t step, const float *live, float *x)
{
    KAC_EACH (i, (int64_t)kac_query_rows(&q) * step)
        x[i] *= live[i / step];
}

KAC_KERNEL take_mean(KAC_ARGS kac_query q, int32_t nodes, int32_t step, const float *live,
                     const float *alone, float *x)
{
    KAC_EACH (i, (int64_t)kac_query_rows(&q) * step)
        x[i] = kac_gin_mean(live[i / step], nodes, x[i], alone[i % step]);
}

static kac_status run_linear(kac_device *dev, const window *w, const kac_cuda_conv *conv,
                             kac_activation act, const float *in, float *out)
{
    const kac_cuda_ending end = {NULL, NULL, act, NULL, NULL};
    return kac_cuda_dense_run(dev, &w->q, conv, 1, &end, in, out);
}

/* The activations of the whole network, kept in the window's memory. */
static kac_status run_window(kac_device *dev, const kac_net *net, const window *w)
{
    const float *live = w->memory;
    float *mean = array_of(w, net->mean_at);
    int32_t step = 0;
    KAC_TRY(KAC_LAUNCH(dev, sum_nodes, kac_blocks((int64_t)w->q.capacity * net->features),
                       KAC_THREADS, 0, w->q, net->nodes, net->features, w->memory,
                       array_of(w, net->at[0].in_at)));
    for (int32_t i = 0; i < net->stages; i++) {
        const stage *s = &net->at[i];
        const bool last = i + 1 == net->stages;
        float *hidden = array_of(w, s->hidden_at);
        float *out = last ? mean : array_of(w, net->at[i + 1].in_at);
        step = s->linear[1].there.step;
        KAC_TRY(run_linear(dev, w, &s->linear[0].there, KAC_ACT_RELU, array_of(w, s->in_at),
                           hidden));
        KAC_TRY(run_linear(dev, w, &s->linear[1].there, last ? KAC_ACT_LINEAR : KAC_ACT_RELU,
                           hidden, out));
        if (!last)
            KAC_TRY(KAC_LAUNCH(dev, multiply, kac_blocks((int64_t)w->q.capacity * step),
                               KAC_THREADS, 0, w->q, step, live, out));
    }
    KAC_TRY(KAC_LAUNCH(dev, take_mean, kac_blocks((int64_t)w->q.capacity * step), KAC_THREADS,
                       0, w->q, net->nodes, step, live, net->alone, mean));
    return run_linear(dev, w, &net->end.there, KAC_ACT_LINEAR, mean, array_of(w, net->out_at));
}

kac_status kac_cuda_gin_forward(kac_device *dev, const kac_net *net, const kac_query *q)
{
    window w = {};
    KAC_TRY(kac_cuda_window(dev, q, net->kept_floats, &w.rows, &w.memory));
    for (int32_t begin = 0; begin < q->capacity; begin += w.rows) {
        w.q = kac_query_window(q, begin, w.rows, 1);
        KAC_TRY(run_window(dev, net, &w));
        KAC_TRY(kac_cuda_rows_out(dev, &w.q, 0, 1, net->outputs, array_of(&w, net->out_at)));
    }
    return KAC_OK;
}

/* ---- vector-Jacobian product -------------------------------------------------------------- */

KAC_KERNEL mean_back(KAC_ARGS kac_query q, int32_t nodes, int32_t step, const float *live,
                     float *g)
{
    KAC_EACH (i, (int64_t)kac_query_rows(&q) * step)
        g[i] = kac_gin_mean_back(live[i / step], nodes, g[i]);
}

/* A thread a number of a row's gradient. */
KAC_KERNEL spread(KAC_ARGS kac_query q, int32_t length, int32_t features, const float *live,
                  const float *g, float *grad)
{
    const int32_t step = kac_cuda_step(features);
    KAC_EACH (i, (int64_t)kac_query_rows(&q) * length) {
        const int64_t b = i / length;
        grad[i] = kac_gin_spread(live[b], features, (int32_t)(i % length), g + b * step);
    }
}

/* From the gradient of the end's input in `to` to that of the sums of features, there too. */
static kac_status go_back(kac_device *dev, const kac_net *net, const window *w, float *from,
                          float *to)
{
    for (int32_t i = net->stages - 1; i >= 0; i--) {
        const stage *s = &net->at[i];
        const int32_t step = s->linear[1].there.step, wide = s->linear[0].there.step;
        const unsigned blocks = kac_blocks((int64_t)w->q.capacity * step);
        if (i == net->stages - 1) {
            KAC_TRY(KAC_LAUNCH(dev, mean_back, blocks, KAC_THREADS, 0, w->q, net->nodes, step,
                               w->memory, to));
        } else {
            KAC_TRY(
                KAC_LAUNCH(dev, multiply, blocks, KAC_THREADS, 0, w->q, step, w->memory, to));
            KAC_TRY(kac_cuda_gate(dev, &w->q, step, array_of(w, net->at[i + 1].in_at), to, to));
        }
        KAC_TRY(run_linear(dev, w, &s->linear[1].back, KAC_ACT_LINEAR, to, from));
        KAC_TRY(kac_cuda_gate(dev, &w->q, wide, array_of(w, s->hidden_at), from, from));
        KAC_TRY(run_linear(dev, w, &s->linear[0].back, KAC_ACT_LINEAR, from, to));
    }
    return KAC_OK;
}

kac_status kac_cuda_gin_vjp(kac_device *dev, const kac_net *net, const kac_query *q,
                            const float *cotangent, float *grad)
{
    window w = {};
    const int64_t floats = net->kept_floats + 2 * net->back_floats;
    KAC_TRY(kac_cuda_window(dev, q, floats, &w.rows, &w.memory));
    float *from = array_of(&w, net->kept_floats);
    float *to = from + (int64_t)w.rows * net->back_floats;
    for (int32_t begin = 0; begin < q->capacity; begin += w.rows) {
        w.q = kac_query_window(q, begin, w.rows, 1);
        KAC_TRY(run_window(dev, net, &w));
        KAC_TRY(kac_cuda_rows_in(dev, &w.q, 1, net->outputs,
                                 cotangent + (int64_t)begin * net->outputs, from));
        KAC_TRY(run_linear(dev, &w, &net->end.back, KAC_ACT_LINEAR, from, to));
        KAC_TRY(go_back(dev, net, &w, from, to));
        KAC_TRY(KAC_LAUNCH(dev, spread, kac_blocks((int64_t)w.q.capacity * net->length),
                           KAC_THREADS, 0, w.q, net->length, net->features, w.memory, to,
                           grad + (int64_t)begin * net->length));
    }
    return KAC_OK;
}
