/* gdss.h -- the packed gdss networks, and what a graph needs while it goes through them.
 *
 * Notation: n live nodes; a row over nodes has `step` floats, a row over pairs i < j `pairs`
 * floats, both rounded up to whole vectors.  Features lie as [feature][node] and channels of the
 * adjacency as [channel][pair], so that every product of a layer is one of matrices with nodes or
 * pairs in the columns.
 *
 * The diagonal of a channel is never read: a graph convolution puts 1 there, and the networks
 * look at each pair by itself.  A channel is symmetric, so what a pair's network gives plus its
 * transpose is twice that.
 */
#ifndef KAC_GDSS_H
#define KAC_GDSS_H

#include "gdss_weights.h"

enum {
    KAC_GDSS_ROUND = 16, /* floats that rows are rounded to */
    KAC_GDSS_CHUNK = 64, /* pairs that go through a network together */
};

struct kac_net {
    kac_isa isa;
    kac_gdss_weights w; /* its pointers point into `memory`; weights of convolutions are
                           [out][in], and those of a channel's query, key and value follow each
                           other, as do their biases */
    float *memory;
    uint8_t silent[2][KAC_GDSS_MAX_LAYERS][KAC_GDSS_MAX_CHANNELS]; /* [1: of nodes][layer]: all
                           queries or all keys of the channel are 0, and so its scores */
    int32_t x_width, adj_width; /* features of all layers of a network together, F included */
    int32_t x_channels, adj_channels; /* and channels of the adjacency */
    int32_t mlp_rows;                 /* the most rows that an mlp keeps: of all layers, and */
    int32_t mlp_width;                /* in one, its input too */
    int32_t parts;                    /* the most rows of query, key and value */
    int32_t values, scores;           /* of a layer's values, and of its scores */
};

static inline int32_t kac_gdss_round(int64_t floats)
{
    return (int32_t)((floats + KAC_GDSS_ROUND - 1) / KAC_GDSS_ROUND * KAC_GDSS_ROUND);
}

/* A graph on its way through the networks. */
typedef struct kac_gdss_graph {
    const kac_net *net;
    int32_t n, step, pairs;
    float *x, *adj;         /* [x_width][step], [adj_width][step]: features of all layers */
    float *x_chan, *a_chan; /* [x_channels][pairs], [adj_channels][pairs] */
    float *full;            /* [n][step] a channel, as a matrix */
    float *norm;            /* [n][step] normalised */
    float *degree;          /* [step] (sum of a row, at least 1)^-1/2 */
    float *y;               /* [parts][step] weights times features */
    float *part;            /* [parts][step] query, key, value */
    float *dot, *sum;       /* [n][step] */
    float *value;           /* [values][step] */
    float *score;           /* [scores][pairs] */
    float *mlp;             /* [mlp_rows][step or KAC_GDSS_CHUNK], after the input */

    /* of the way back, gradients of what has the name without g_ */
    float *g_x, *g_adj, *g_x_chan, *g_a_chan, *g_part, *g_y, *g_norm, *g_value, *g_score;
    float *g_mlp[2]; /* [mlp_width][step or KAC_GDSS_CHUNK] */
    float *turned;   /* [n][step] */

    float *memory; /* NULL: only counted */
    int64_t used;  /* floats */
} kac_gdss_graph;

/* The next `rows` rows of `step` floats; pieces begin on cache lines. */
static inline float *kac_gdss_take(kac_gdss_graph *g, int64_t rows, int64_t step)
{
    float *piece = g->memory != NULL ? g->memory + g->used : NULL;
    g->used += rows * step;
    return piece;
}

/* Divides `memory` for a graph of n nodes, `back` for the way back too.  With NULL it counts:
 * g->used floats are then needed. */
static inline void kac_gdss_divide(const kac_net *net, int32_t n, int back, float *memory,
                                   kac_gdss_graph *g)
{
    const int32_t step = kac_gdss_round(n);
    const int32_t pairs = kac_gdss_round((int64_t)n * (n - 1) / 2);
    const int32_t wide = step > KAC_GDSS_CHUNK ? step : KAC_GDSS_CHUNK;
    *g = (kac_gdss_graph){.net = net, .n = n, .step = step, .pairs = pairs, .memory = memory};
    g->x = kac_gdss_take(g, net->x_width, step);
    g->adj = kac_gdss_take(g, net->adj_width, step);
    g->x_chan = kac_gdss_take(g, net->x_channels, pairs);
    g->a_chan = kac_gdss_take(g, net->adj_channels, pairs);
    g->full = kac_gdss_take(g, n, step);
    g->norm = kac_gdss_take(g, n, step);
    g->degree = kac_gdss_take(g, 1, step);
    g->y = kac_gdss_take(g, net->parts, step);
    g->part = kac_gdss_take(g, net->parts, step);
    g->dot = kac_gdss_take(g, n, step);
    g->sum = kac_gdss_take(g, n, step);
    g->value = kac_gdss_take(g, net->values, step);
    g->score = kac_gdss_take(g, net->scores, pairs);
    g->mlp = kac_gdss_take(g, net->mlp_rows, wide);
    if (!back) return;
    g->g_x = kac_gdss_take(g, net->x_width, step);
    g->g_adj = kac_gdss_take(g, net->adj_width, step);
    g->g_x_chan = kac_gdss_take(g, net->x_channels, pairs);
    g->g_a_chan = kac_gdss_take(g, net->adj_channels, pairs);
    g->g_part = kac_gdss_take(g, net->parts, step);
    g->g_y = kac_gdss_take(g, net->parts, step);
    g->g_norm = kac_gdss_take(g, n, step);
    g->g_value = kac_gdss_take(g, net->values, step);
    g->g_score = kac_gdss_take(g, net->scores, pairs);
    for (int i = 0; i < 2; i++)
        g->g_mlp[i] = kac_gdss_take(g, net->mlp_width, wide);
    g->turned = kac_gdss_take(g, n, step);
}

/* Answers one row (networks.h) in `memory`, which has room for its graph. */
typedef void kac_gdss_row_fn(const kac_net *net, const float *row, float *out, float *memory);
kac_gdss_row_fn kac_gdss_row_portable, kac_gdss_row_avx2, kac_gdss_row_avx512;

/* grad = cotangent . d out / d row, for one row; `memory` has room for the way back too. */
typedef void kac_gdss_back_fn(const kac_net *net, const float *row, const float *cotangent,
                              float *grad, float *memory);
kac_gdss_back_fn kac_gdss_back_portable, kac_gdss_back_avx2, kac_gdss_back_avx512;

#endif /* KAC_GDSS_H */
