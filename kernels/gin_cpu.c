/* gin_cpu.c -- packs the gin and spreads its rows over threads. */
#include "gin_cpu.h"

#include "ops.h"
#include "query.h"
#include "scratch_cpu.h"
#include "simd.h"

static kac_gin_chunk_fn *const chunk_of[] = KAC_SIMD_TABLE(kac_gin_chunk);
static kac_gin_back_fn *const back_of[] = KAC_SIMD_TABLE(kac_gin_back);

/* ---- pack ------------------------------------------------------------------------------- */

static void grow(kac_net *net, int32_t step)
{
    if (step > net->back_floats) net->back_floats = step;
}

/* Weights are [out][in]. */
static kac_status pack_linear(kac_device *dev, const float *weight, const float *bias,
                              int32_t in, int32_t out, kac_layer *layer)
{
    const kac_tile_weights w = {weight, out, 1, in, in, 0, 1};
    return kac_layer_pack(dev, &w, bias, layer);
}

static kac_status pack(kac_device *dev, const kac_gin_weights *w, kac_net *net)
{
    int32_t step = kac_tile_round(dev->isa, w->features);
    net->mean_at = 1;
    grow(net, step);
    for (int32_t i = 0; i < w->layers; i++) {
        const kac_gin_layer *layer = &w->layer[i];
        kac_gin_stage *s = &net->stage[net->stages++];
        KAC_TRY(pack_linear(dev, layer->weight[0], layer->bias[0], layer->in, layer->hidden,
                            &s->linear[0]));
        KAC_TRY(pack_linear(dev, layer->weight[1], layer->bias[1], layer->hidden, layer->out,
                            &s->linear[1]));
        s->in_step = step;
        s->in_at = net->mean_at;
        s->hidden_at = s->in_at + step;
        net->mean_at = s->hidden_at + s->linear[0].step;
        step = s->linear[1].step;
        grow(net, s->linear[0].step);
        grow(net, step);
    }
    KAC_TRY(pack_linear(dev, w->weight, w->bias, w->layer[w->layers - 1].out, w->outputs,
                        &net->end));
    grow(net, net->end.step);
    net->out_at = net->mean_at + step;
    net->kept_floats = net->out_at + net->end.step;

    float *alone = kac_gin_alone(w);
    net->alone = dev->ops->memory.alloc(dev, (size_t)step * sizeof *alone);
    if (alone != NULL && net->alone != NULL)
        memcpy(net->alone, alone, (size_t)w->layer[w->layers - 1].out * sizeof *alone);
    kac_status status = KAC_OK;
    if (alone == NULL || net->alone == NULL)
        status = KAC_FAIL(KAC_ERR_NOMEM, "gin: no memory to pack it");
    free(alone);
    return status;
}

kac_status kac_cpu_gin_pack(kac_device *dev, const kac_gin_weights *host_weights, kac_net **out)
{
    const kac_gin_weights *w = host_weights;
    KAC_TRY(kac_gin_check(w));
    kac_net *net = dev->ops->memory.alloc(dev, sizeof *net);
    if (net == NULL) return KAC_ERR_NOMEM;
    net->isa = dev->isa;
    net->nodes = w->nodes;
    net->features = w->features;
    net->outputs = w->outputs;
    net->length = kac_gin_length(w);
    kac_status status = pack(dev, w, net);
    if (status == KAC_OK)
        *out = net;
    else
        kac_cpu_gin_drop(dev, net);
    return status;
}

void kac_cpu_gin_drop(kac_device *dev, kac_net *net)
{
    if (net == NULL) return;
    for (int32_t i = 0; i < net->stages; i++)
        for (int k = 0; k < 2; k++)
            kac_layer_drop(dev, &net->stage[i].linear[k]);
    kac_layer_drop(dev, &net->end);
    dev->ops->memory.release(dev, net->alone);
    dev->ops->memory.release(dev, net);
}

/* ---- rows ------------------------------------------------------------------------------- */

/* Rows first .. first + batch - 1 as far as their results. */
static void forward(const kac_net *net, const kac_query *q, int32_t first, int32_t batch,
                    float *kept)
{
    const int32_t step = net->stage[0].in_step;
    float *sum = kept + batch * net->stage[0].in_at;
    memset(sum, 0, (size_t)batch * (size_t)step * sizeof *sum);
    for (int32_t b = 0; b < batch; b++) {
        const float *row = kac_query_vector(q, first + b);
        kept[b] = kac_gin_live(row, net->nodes);
        for (int32_t f = 0; f < net->features; f++)
            sum[(int64_t)b * step + f] = kac_gin_sum(row, kept[b], net->features, f);
    }
    chunk_of[net->isa](net, batch, kept);
}

static void answer(const kac_net *net, const kac_query *q, int32_t first, int32_t batch,
                   float *kept)
{
    const float *x = kept + batch * net->out_at;
    forward(net, q, first, batch, kept);
    for (int32_t b = 0; b < batch; b++)
        memcpy(kac_query_out(q, first + b), x + (int64_t)b * net->end.step,
               (size_t)net->outputs * sizeof *x);
}

static void differentiate(const kac_cpu_call *c, int32_t first, int32_t batch, float *kept)
{
    const kac_net *net = c->net;
    float *from = kept + batch * net->kept_floats;
    float *to = from + (int64_t)batch * net->back_floats;
    const int32_t step = net->stage[0].in_step;
    forward(net, c->q, first, batch, kept);
    memset(from, 0, (size_t)batch * (size_t)net->end.step * sizeof *from);
    for (int32_t b = 0; b < batch; b++)
        memcpy(from + (int64_t)b * net->end.step,
               c->cotangent + (int64_t)(first + b) * net->outputs,
               (size_t)net->outputs * sizeof *from);
    const float *sums = back_of[net->isa](net, batch, kept, from, to);
    for (int32_t b = 0; b < batch; b++)
        for (int32_t l = 0; l < net->length; l++)
            c->grad[(int64_t)(first + b) * net->length + l] =
                kac_gin_spread(kept[b], net->features, l, sums + (int64_t)b * step);
}

static void take_chunk(const kac_cpu_call *c, int32_t first, int32_t batch, void *kept)
{
    if (c->cotangent == NULL)
        answer(c->net, c->q, first, batch, kept);
    else
        differentiate(c, first, batch, kept);
}

static kac_status run(const kac_cpu_call *c)
{
    enum { MOST = 84 }; /* rows that share a pass over the weights */
    const kac_net *net = c->net;
    const int32_t rows = kac_query_rows(c->q);
    const int64_t floats = net->kept_floats + (c->cotangent != NULL ? 2 * net->back_floats : 0);
    const int32_t size = kac_cpu_scratch_rows(kac_chunk_rows(rows, MOST), floats);
    KAC_REQUIRE(rows == 0 || c->q->length == net->length);
    return kac_cpu_each_chunk(c, rows, size, (size_t)size * (size_t)floats * sizeof(float),
                              take_chunk);
}

kac_status kac_cpu_gin_forward(kac_device *dev, const kac_net *net, const kac_query *q)
{
    (void)dev;
    return run(&(kac_cpu_call){.name = "gin", .net = net, .q = q});
}

kac_status kac_cpu_gin_vjp(kac_device *dev, const kac_net *net, const kac_query *q,
                           const float *cotangent, float *grad)
{
    (void)dev;
    return run(&(kac_cpu_call){"gin", net, q, cotangent, grad});
}
