/* layer_cpu.c -- packs dense layers and convolutions, and cuts rows into chunks. */
#include "layer.h"

#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "ops.h"
#include "query.h"

/* Without the transposed layer; bias NULL: zeros. */
static kac_status pack_one(kac_device *dev, const kac_tile_weights *weights, const float *bias,
                           kac_layer *out)
{
    int32_t step = kac_tile_round(dev->isa, weights->out);
    size_t row = (size_t)step * sizeof(float);
    kac_layer layer = {weights->in, weights->out, weights->taps, step, NULL, NULL, NULL};
    layer.weight =
        dev->ops->memory.alloc(dev, (size_t)weights->taps * (size_t)weights->in * row);
    layer.bias = dev->ops->memory.alloc(dev, row);
    if (layer.weight == NULL || layer.bias == NULL) {
        kac_layer_drop(dev, &layer);
        return KAC_ERR_NOMEM;
    }
    kac_tile_pack(dev->isa, weights, layer.weight);
    for (int32_t o = 0; bias != NULL && o < weights->out; o++)
        layer.bias[o] = bias[o];
    *out = layer;
    return KAC_OK;
}

kac_status kac_layer_pack(kac_device *dev, const kac_tile_weights *weights, const float *bias,
                          kac_layer *out)
{
    const kac_tile_weights *w = weights;
    const kac_tile_weights back = {.weight = w->weight + (w->taps - 1) * w->tap_step,
                                   .out = w->in,
                                   .taps = w->taps,
                                   .in = w->out,
                                   .out_step = w->in_step,
                                   .tap_step = -w->tap_step,
                                   .in_step = w->out_step};
    kac_layer layer;
    KAC_TRY(pack_one(dev, w, bias, &layer));
    layer.back = dev->ops->memory.alloc(dev, sizeof *layer.back);
    kac_status status =
        layer.back != NULL ? pack_one(dev, &back, NULL, layer.back) : KAC_ERR_NOMEM;
    if (status == KAC_OK)
        *out = layer;
    else
        kac_layer_drop(dev, &layer);
    return status;
}

void kac_layer_drop(kac_device *dev, kac_layer *layer)
{
    if (layer->back != NULL) {
        dev->ops->memory.release(dev, layer->back->weight);
        dev->ops->memory.release(dev, layer->back->bias);
    }
    dev->ops->memory.release(dev, layer->back);
    dev->ops->memory.release(dev, layer->weight);
    dev->ops->memory.release(dev, layer->bias);
    *layer = (kac_layer){0};
}

void kac_layer_input(const kac_query *q, int32_t first, int32_t batch, int32_t states, float *x)
{
    const int64_t position = (int64_t)batch * states;
    memset(x, 0, (size_t)(q->length * position) * sizeof *x);
    for (int32_t b = 0; b < batch; b++) {
        const uint8_t *tokens = q->soft == NULL ? kac_query_tokens(q, first + b) : NULL;
        const float *soft = q->soft != NULL ? kac_query_soft(q, first + b, states) : NULL;
        float *row = x + (int64_t)b * states;
        for (int32_t l = 0; l < q->length; l++, row += position) {
            if (soft != NULL)
                memcpy(row, soft + (int64_t)l * states, (size_t)states * sizeof *soft);
            else if (tokens[l] < states)
                row[tokens[l]] = 1;
        }
    }
}

void kac_layer_gradient(const float *x, int32_t step, int32_t first, int32_t batch,
                        int32_t length, int32_t states, float *grad)
{
    for (int32_t b = 0; b < batch; b++)
        for (int32_t l = 0; l < length; l++)
            memcpy(grad + ((int64_t)(first + b) * length + l) * states,
                   x + ((int64_t)l * batch + b) * step, (size_t)states * sizeof *grad);
}

int32_t kac_chunk_rows(int32_t rows, int32_t most)
{
    int32_t threads = 1;
#ifdef _OPENMP
    threads = omp_get_max_threads();
#endif
    int32_t share = (int32_t)(((int64_t)rows + threads - 1) / threads);
    return share < 1 ? 1 : share < most ? share : most;
}
