/* gin.h -- a graph isomorphism network over graphs whose live nodes are all joined: what both
 * twins share of it.
 *
 * The published value network of molecules takes every number of a noisy adjacency that is not 0
 * for an edge, and so joins all live nodes.  Then each of them sums the same, itself and the
 * others, and from the first layer on they are alike: one row stands for all n, and the sum of
 * the next layer is n times it.  Dead nodes have no neighbours and no features; what becomes of
 * one does not depend on the graph and is found once.
 */
#ifndef KAC_GIN_H
#define KAC_GIN_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base.h"
#include "hd.h"
#include "networks.h"

static inline int32_t kac_gin_length(const kac_gin_weights *w)
{
    return 1 + w->nodes * w->features + w->nodes * (w->nodes - 1) / 2;
}

/* Whether these are weights that pack takes.  Errors: INVALID. */
static inline kac_status kac_gin_check(const kac_gin_weights *w)
{
    KAC_REQUIRE(w->nodes >= 1 && w->nodes <= KAC_GIN_MAX_NODES);
    KAC_REQUIRE(w->layers >= 1 && w->layers <= KAC_GIN_MAX_LAYERS && w->outputs >= 1);
    KAC_REQUIRE(w->layer[0].in == w->features);
    for (int32_t i = 0; i < w->layers; i++) {
        const kac_gin_layer *layer = &w->layer[i];
        KAC_REQUIRE(layer->in >= 1 && layer->in <= KAC_GIN_MAX_WIDTH);
        KAC_REQUIRE(layer->hidden >= 1 && layer->hidden <= KAC_GIN_MAX_WIDTH);
        KAC_REQUIRE(layer->out >= 1 && layer->out <= KAC_GIN_MAX_WIDTH);
        KAC_REQUIRE(i == 0 || layer->in == w->layer[i - 1].out);
    }
    return KAC_OK;
}

/* ---- a node without neighbours ---------------------------------------------------------- */

/* out = relu(bias + weight x), or without relu. */
static inline void kac_gin_dense(const float *weight, const float *bias, int32_t in,
                                 int32_t count, int relu, const float *x, float *out)
{
    for (int32_t o = 0; o < count; o++) {
        float sum = bias[o];
        for (int32_t c = 0; c < in; c++)
            sum = fmaf(x[c], weight[(int64_t)o * in + c], sum);
        out[o] = relu && sum < 0 ? 0 : sum;
    }
}

/* What the layers make of a node of zeros: the caller's to free, `out` floats of the last layer.
 * NULL: no memory. */
static inline float *kac_gin_alone(const kac_gin_weights *w)
{
    float *x = (float *)calloc(KAC_GIN_MAX_WIDTH, sizeof *x);
    float *hidden = (float *)calloc(KAC_GIN_MAX_WIDTH, sizeof *hidden);
    for (int32_t i = 0; i < w->layers && x != NULL && hidden != NULL; i++) {
        const kac_gin_layer *layer = &w->layer[i];
        kac_gin_dense(layer->weight[0], layer->bias[0], layer->in, layer->hidden, 1, x, hidden);
        kac_gin_dense(layer->weight[1], layer->bias[1], layer->hidden, layer->out,
                      i + 1 < w->layers, hidden, x);
    }
    if (hidden == NULL) {
        free(x);
        x = NULL;
    }
    free(hidden);
    return x;
}

/* ---- rows ------------------------------------------------------------------------------- */

/* The live nodes that a row states: the nearest of 0 .. N, NaN 0. */
KAC_HD static inline float kac_gin_live(const float *row, int32_t nodes)
{
    return row[0] >= (float)nodes ? (float)nodes : row[0] >= 1 ? floorf(row[0]) : 0;
}

/* Feature f summed over the live nodes, in their order. */
KAC_HD static inline float kac_gin_sum(const float *row, float live, int32_t features,
                                       int32_t f)
{
    float sum = 0;
    for (int32_t i = 0; i < (int32_t)live; i++)
        sum += row[1 + (int64_t)i * features + f];
    return sum;
}

/* The mean over all N nodes of a channel that is x in the live ones and `alone` in the others. */
KAC_HD static inline float kac_gin_mean(float live, int32_t nodes, float x, float alone)
{
    return fmaf(live, x, ((float)nodes - live) * alone) / (float)nodes;
}

/* The gradient of x from that of the mean. */
KAC_HD static inline float kac_gin_mean_back(float live, int32_t nodes, float g)
{
    return live * g / (float)nodes;
}

/* Number l of the gradient of a row, from that of the sums. */
KAC_HD static inline float kac_gin_spread(float live, int32_t features, int32_t l,
                                          const float *g)
{
    return l >= 1 && (l - 1) / features < (int32_t)live ? g[(l - 1) % features] : 0;
}

#endif /* KAC_GIN_H */
