/* gdss_cpu.c -- packs the gdss networks and spreads graphs over threads. */
#include "gdss.h"

#include "ops.h"
#include "query.h"
#include "scratch_cpu.h"
#include "simd.h"

static kac_gdss_row_fn *const row_of[] = KAC_SIMD_TABLE(kac_gdss_row);
static kac_gdss_back_fn *const back_of[] = KAC_SIMD_TABLE(kac_gdss_back);

/* ---- pack ------------------------------------------------------------------------------- */

/* Where the next numbers go; NULL memory: they are counted only. */
typedef struct copier {
    float *memory;
    size_t used;
} copier;

/* *data [rows][columns] becomes its copy, turned to [columns][rows] where `turn`. */
static void copy(copier *c, const float **data, int64_t rows, int64_t columns, int turn)
{
    const float *from = *data;
    if (c->memory != NULL) {
        float *to = c->memory + c->used;
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = 0; j < columns; j++)
                to[turn ? j * rows + i : i * columns + j] =
                    kac_gdss_weight(from[i * columns + j]);
        *data = to;
    }
    c->used += (size_t)(rows * columns);
}

static void copy_mlp(copier *c, kac_gdss_mlp *mlp)
{
    for (int32_t i = 0; i < mlp->layers; i++) {
        kac_gdss_linear *layer = &mlp->layer[i];
        copy(c, &layer->weight, layer->out, layer->in, 0);
        copy(c, &layer->bias, layer->out, 1, 0);
    }
}

/* The weights of `count` convolutions, then their biases. */
static void copy_convs(copier *c, kac_gdss_linear *conv, int count)
{
    for (int i = 0; i < count; i++)
        copy(c, &conv[i].weight, conv[i].in, conv[i].out, 1);
    for (int i = 0; i < count; i++)
        copy(c, &conv[i].bias, conv[i].out, 1, 0);
}

static void copy_network(copier *c, kac_gdss_network *w)
{
    for (int32_t i = 0; i < w->layers; i++) {
        if (!w->attends) {
            copy_convs(c, &w->conv[i], 1);
            continue;
        }
        kac_gdss_attention *layer = &w->attention[i];
        for (int32_t k = 0; k < layer->channels; k++)
            copy_convs(c, layer->conv[k], KAC_GDSS_PARTS);
        copy_mlp(c, &layer->nodes);
        copy_mlp(c, &layer->pairs);
    }
    copy_mlp(c, &w->final);
}

static void copy_all(copier *c, kac_gdss_weights *w)
{
    copy_network(c, &w->x);
    copy_network(c, &w->adj);
}

static void grow(int32_t *most, int32_t value)
{
    if (value > *most) *most = value;
}

static void measure_mlp(kac_net *net, const kac_gdss_mlp *mlp)
{
    int32_t rows = mlp->layer[0].in;
    grow(&net->mlp_width, rows);
    for (int32_t i = 0; i < mlp->layers; i++) {
        rows += mlp->layer[i].out;
        grow(&net->mlp_width, mlp->layer[i].out);
    }
    grow(&net->mlp_rows, rows);
}

/* Which channels of a layer have no scores. */
static void find_silent(const kac_gdss_attention *layer, uint8_t *silent)
{
    for (int32_t c = 0; c < layer->channels; c++)
        silent[c] = (uint8_t)kac_gdss_has_no_scores(layer, c);
}

/* Sizes of what a network's layers need; *width and *channels count the features and channels of
 * all layers. */
static void measure(kac_net *net, const kac_gdss_network *w, int32_t *width, int32_t *channels)
{
    *width = net->w.features;
    *channels = KAC_GDSS_POWERS;
    grow(&net->values, net->w.features);
    for (int32_t i = 0; i < w->layers; i++) {
        if (!w->attends) {
            *width += w->conv[i].out;
            grow(&net->parts, w->conv[i].out);
            continue;
        }
        const kac_gdss_attention *layer = &w->attention[i];
        const kac_gdss_linear *conv = layer->conv[0];
        *width += layer->nodes.layer[layer->nodes.layers - 1].out;
        *channels += layer->pairs.layer[layer->pairs.layers - 1].out;
        grow(&net->parts, 2 * conv[KAC_GDSS_QUERY].out + conv[KAC_GDSS_VALUE].out);
        grow(&net->values, layer->channels * conv[KAC_GDSS_VALUE].out);
        grow(&net->values, layer->nodes.layer[layer->nodes.layers - 1].out);
        grow(&net->scores, layer->channels);
        find_silent(layer, net->silent[w == &net->w.x][i]);
        measure_mlp(net, &layer->nodes);
        measure_mlp(net, &layer->pairs);
    }
    measure_mlp(net, &w->final);
}

kac_status kac_cpu_gdss_pack(kac_device *dev, const kac_gdss_weights *host_weights,
                             kac_net **out)
{
    KAC_REQUIRE(host_weights->nodes >= 1 && host_weights->nodes <= KAC_GDSS_MAX_NODES);
    KAC_REQUIRE(host_weights->adj.attends);
    kac_net *net = dev->ops->memory.alloc(dev, sizeof *net);
    if (net == NULL) return KAC_ERR_NOMEM;
    net->isa = dev->isa;
    net->w = *host_weights;
    copier c = {0};
    copy_all(&c, &net->w);
    net->memory = dev->ops->memory.alloc(dev, c.used * sizeof *net->memory);
    if (net->memory == NULL) {
        kac_cpu_gdss_drop(dev, net);
        return KAC_ERR_NOMEM;
    }
    c = (copier){.memory = net->memory};
    copy_all(&c, &net->w);
    measure(net, &net->w.x, &net->x_width, &net->x_channels);
    measure(net, &net->w.adj, &net->adj_width, &net->adj_channels);
    *out = net;
    return KAC_OK;
}

void kac_cpu_gdss_drop(kac_device *dev, kac_net *net)
{
    if (net == NULL) return;
    dev->ops->memory.release(dev, net->memory);
    dev->ops->memory.release(dev, net);
}

/* ---- rows ------------------------------------------------------------------------------- */

/* One row's answer, or its gradient. */
static void take_row(const kac_cpu_call *c, int32_t j, int32_t batch, void *memory)
{
    const kac_net *net = c->net;
    const int64_t at = j * (int64_t)c->q->length;
    const float *row = kac_query_vector(c->q, j);
    (void)batch;
    if (c->cotangent == NULL)
        row_of[net->isa](net, row, kac_query_out(c->q, j), memory);
    else
        back_of[net->isa](net, row, c->cotangent + at, c->grad + at, memory);
}

/* Graphs differ much in size, so threads take them one by one. */
static kac_status run(const kac_cpu_call *c)
{
    const kac_net *net = c->net;
    KAC_REQUIRE(c->q->length == kac_gdss_length(net->w.nodes, net->w.features));
    kac_gdss_graph largest;
    kac_gdss_divide(net, net->w.nodes, c->cotangent != NULL, NULL, &largest);
    return kac_cpu_each_chunk(c, kac_query_rows(c->q), 1, (size_t)largest.used * sizeof(float),
                              take_row);
}

kac_status kac_cpu_gdss_forward(kac_device *dev, const kac_net *net, const kac_query *q)
{
    (void)dev;
    return run(&(kac_cpu_call){.name = "gdss", .net = net, .q = q});
}

kac_status kac_cpu_gdss_vjp(kac_device *dev, const kac_net *net, const kac_query *q,
                            const float *cotangent, float *grad)
{
    (void)dev;
    return run(&(kac_cpu_call){"gdss", net, q, cotangent, grad});
}
