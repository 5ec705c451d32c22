/* layer.h -- a dense layer or convolution packed for the CPU's micro-kernel (tile.h). */
#ifndef KAC_LAYER_H
#define KAC_LAYER_H

#include "networks.h"
#include "tile.h"

typedef struct kac_layer {
    int32_t in, out;        /* channels */
    int32_t taps;           /* 1: dense */
    int32_t step;           /* floats of a row of outputs: `out` rounded up to whole blocks */
    float *weight;          /* packed */
    float *bias;            /* [step] */
    struct kac_layer *back; /* the transposed layer, for gradients: `out` channels to `in`, taps
                               flipped, a bias of zeros; its own is NULL */
} kac_layer;

/* Packs host weights and bias [out] for dev->isa, and the transposed layer.  Errors: NOMEM. */
kac_status kac_layer_pack(kac_device *dev, const kac_tile_weights *weights, const float *bias,
                          kac_layer *out);
void kac_layer_drop(kac_device *dev, kac_layer *layer); /* also of a zeroed layer */

/* x[l][b] = the letters of site l of query row first + b: one-hot, zeros at a mask, or the
 * probabilities of q->soft.  Shape [q->length][batch][states]. */
void kac_layer_input(const kac_query *q, int32_t first, int32_t batch, int32_t states,
                     float *x);

/* What kac_layer_input read, backwards: grad of query rows first .. first + batch - 1, from
 * x [length][batch] rows of `step` floats. */
void kac_layer_gradient(const float *x, int32_t step, int32_t first, int32_t batch,
                        int32_t length, int32_t states, float *grad);

/* Rows of a chunk: `most` or fewer, so that every thread has one. */
int32_t kac_chunk_rows(int32_t rows, int32_t most);

#endif /* KAC_LAYER_H */
