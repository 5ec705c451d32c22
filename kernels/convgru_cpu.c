/* convgru_cpu.c -- packs the convgru and spreads its rows over threads. */
#include <string.h>

#include "convgru.h"
#include "gru.h"
#include "ops.h"
#include "query.h"
#include "scratch_cpu.h"
#include "simd.h"

static kac_convgru_chunk_fn *const chunk_of[] = KAC_SIMD_TABLE(kac_convgru_chunk);
static kac_convgru_vjp_fn *const vjp_of[] = KAC_SIMD_TABLE(kac_convgru_vjp);

/* ---- pack ------------------------------------------------------------------------------- */

/* A convolution in PyTorch's shape, [out][in][taps]; a dense layer has one tap. */
static kac_status pack_layer(kac_device *dev, int32_t out_channels, int32_t in, int32_t taps,
                             const float *weight, const float *bias, kac_layer *out)
{
    kac_tile_weights w = {weight, out_channels, taps, in, (int64_t)in * taps, 1, taps};
    return kac_layer_pack(dev, &w, bias, out);
}

static kac_status pack_block(kac_device *dev, const kac_convgru_weights *w, int32_t i,
                             kac_layer *out)
{
    const int32_t c = w->channels;
    if (w->norm[i] == NULL)
        return pack_layer(dev, c, c, KAC_CONVGRU_TAPS, w->conv[i], w->conv_bias[i], out);
    float *weight = dev->ops->memory.alloc(dev, kac_convgru_folded_floats(w) * sizeof *weight);
    if (weight == NULL) return KAC_ERR_NOMEM;
    const float *bias = kac_convgru_fold(w, i, weight);
    kac_status status = pack_layer(dev, c, c, KAC_CONVGRU_TAPS, weight, bias, out);
    dev->ops->memory.release(dev, weight);
    return status;
}

static kac_status pack(kac_device *dev, const kac_convgru_weights *w, kac_net *net)
{
    const int32_t c = w->channels;
    KAC_TRY(pack_layer(dev, c, w->states, KAC_CONVGRU_STEM_TAPS, w->stem, w->stem_bias,
                       &net->stem));
    for (int32_t i = 0; i < w->blocks; i++)
        KAC_TRY(pack_block(dev, w, i, &net->conv[i]));
    for (int d = 0; d < 2; d++) {
        KAC_TRY(pack_layer(dev, 3 * c, c, 1, w->gru_input[d], w->gru_input_bias[d],
                           &net->gru_input[d]));
        KAC_TRY(pack_layer(dev, 3 * c, c, 1, w->gru_hidden[d], w->gru_hidden_bias[d],
                           &net->gru_hidden[d]));
    }
    KAC_TRY(pack_layer(dev, 2 * c, c, 1, w->ffn0, w->ffn0_bias, &net->ffn0));
    KAC_TRY(pack_layer(dev, c, 2 * c, 1, w->ffn1, w->ffn1_bias, &net->ffn1));
    KAC_TRY(pack_layer(dev, w->outputs, c, 1, w->head, w->head_bias, &net->head));

    net->norm = dev->ops->memory.alloc(dev, 2 * (size_t)net->step * sizeof *net->norm);
    if (net->norm == NULL) return KAC_ERR_NOMEM;
    net->norm_bias = net->norm + net->step;
    memcpy(net->norm, w->layer_norm, (size_t)c * sizeof *net->norm);
    memcpy(net->norm_bias, w->layer_norm_bias, (size_t)c * sizeof *net->norm);
    return KAC_OK;
}

kac_status kac_cpu_convgru_pack(kac_device *dev, const kac_convgru_weights *host_weights,
                                kac_net **out)
{
    const kac_convgru_weights *w = host_weights;
    KAC_REQUIRE(w->channels >= 1 && w->outputs >= 1);
    KAC_REQUIRE(w->blocks >= 0 && w->blocks <= KAC_CONVGRU_MAX_BLOCKS);
    kac_net *net = dev->ops->memory.alloc(dev, sizeof *net);
    if (net == NULL) return KAC_ERR_NOMEM;
    net->isa = dev->isa;
    net->states = w->states;
    net->channels = w->channels;
    net->blocks = w->blocks;
    net->residual = w->residual;
    net->outputs = w->outputs;
    net->step = kac_tile_round(dev->isa, w->channels);
    kac_status status = pack(dev, w, net);
    if (status == KAC_OK)
        *out = net;
    else
        kac_cpu_convgru_drop(dev, net);
    return status;
}

void kac_cpu_convgru_drop(kac_device *dev, kac_net *net)
{
    if (net == NULL) return;
    kac_layer_drop(dev, &net->stem);
    for (int32_t i = 0; i < net->blocks; i++)
        kac_layer_drop(dev, &net->conv[i]);
    for (int d = 0; d < 2; d++) {
        kac_layer_drop(dev, &net->gru_input[d]);
        kac_layer_drop(dev, &net->gru_hidden[d]);
    }
    kac_layer_drop(dev, &net->ffn0);
    kac_layer_drop(dev, &net->ffn1);
    kac_layer_drop(dev, &net->head);
    dev->ops->memory.release(dev, net->norm);
    dev->ops->memory.release(dev, net);
}

/* ---- forward ---------------------------------------------------------------------------- */

/* Sequences of a chunk: their two arrays should stay in a core's second-level cache, but the
 * recurrence, whose rows are those of one position, must fill a register tile. */
static int32_t chunk_size(const kac_net *net, int32_t length, int32_t rows)
{
    enum { CACHE_FLOATS = 1 << 17, LEAST = 14, MOST = 56 };
    int64_t fit = CACHE_FLOATS / kac_convgru_work_floats(net, length, 1) / LEAST * LEAST;
    return kac_chunk_rows(rows, fit < LEAST ? LEAST : fit > MOST ? MOST : (int32_t)fit);
}

static void forward_chunk(const kac_cpu_call *c, int32_t first, int32_t batch, void *work)
{
    const kac_net *net = c->net;
    kac_layer_input(c->q, first, batch, net->states, work);
    const float *x = chunk_of[net->isa](net, c->q->length, batch, work);
    for (int32_t b = 0; b < batch; b++)
        memcpy(kac_query_out(c->q, first + b), x + (int64_t)b * net->head.step,
               (size_t)net->outputs * sizeof *x);
}

kac_status kac_cpu_convgru_forward(kac_device *dev, const kac_net *net, const kac_query *q)
{
    (void)dev;
    const kac_cpu_call call = {.name = "convgru", .net = net, .q = q};
    const int32_t rows = kac_query_rows(q), size = chunk_size(net, q->length, rows);
    const size_t bytes = (size_t)kac_convgru_work_floats(net, q->length, size) * sizeof(float);
    return kac_cpu_each_chunk(&call, rows, size, bytes, forward_chunk);
}

/* ---- vector-Jacobian product ------------------------------------------------------------ */

static void vjp_chunk(const kac_cpu_call *c, int32_t first, int32_t batch, void *work)
{
    const kac_net *net = c->net;
    kac_layer_input(c->q, first, batch, net->states, work);
    const float *x = vjp_of[net->isa](net, c->q->length, batch,
                                      c->cotangent + (int64_t)first * net->outputs, work);
    kac_layer_gradient(x, net->stem.back->step, first, batch, c->q->length, net->states,
                       c->grad);
}

kac_status kac_cpu_convgru_vjp(kac_device *dev, const kac_net *net, const kac_query *q,
                               const float *cotangent, float *grad)
{
    (void)dev;
    const kac_cpu_call call = {"convgru", net, q, cotangent, grad};
    const int32_t rows = kac_query_rows(q);
    const int32_t size = kac_cpu_scratch_rows(chunk_size(net, q->length, rows),
                                              kac_convgru_vjp_floats(net, q->length, 1));
    const size_t bytes = (size_t)kac_convgru_vjp_floats(net, q->length, size) * sizeof(float);
    return kac_cpu_each_chunk(&call, rows, size, bytes, vjp_chunk);
}
