/* test_twins_gdss.c -- scores of graphs and their gradients on the build's own device against the
 * CPU's, byte for byte, for networks and graphs that fill no tile and no block. */
#include <math.h>
#include <stdlib.h>

#include "net_file.h"
#include "twins.h"

TestSuite(twins_gdss, .init = need_device, .timeout = 600);

/* ---- networks with random weights --------------------------------------------------------- */

typedef struct shape {
    const char *name;
    int32_t nodes, features;
    int32_t x_layers, a_layers;
    bool attends; /* the network of the nodes */
    int32_t heads, query, value;
    int32_t out;      /* features of a layer's nodes */
    int32_t channels; /* of a layer's pairs */
    int32_t hidden, linears;
} shape;

static const shape published = {"as published", 38, 9, 2, 3, false, 4, 16, 16, 16, 8, 16, 3};

static const shape shapes[] = {
    {"a node", 1, 1, 1, 1, false, 1, 1, 1, 1, 1, 1, 1},
    {"two nodes", 2, 3, 1, 2, true, 1, 2, 3, 2, 2, 3, 2},
    {"nine nodes", 9, 4, 2, 3, false, 4, 16, 16, 16, 8, 44, 3},
    {"odd widths", 11, 5, 3, 2, false, 2, 6, 5, 7, 3, 13, 2},
    {"nodes attend", 10, 3, 2, 3, true, 2, 8, 4, 12, 5, 21, 4},
    {"one head", 13, 2, 1, 1, true, 1, 4, 9, 8, 2, 9, 1},
    {"wide", 7, 9, 1, 2, false, 4, 12, 40, 33, 16, 130, 2},
};

enum { POOL = 1 << 21 };

typedef struct weights {
    kac_gdss_weights w;
    uint64_t seed;
    float *pool;
    size_t used;
} weights;

static const float *numbers(weights *to, size_t n, float scale)
{
    float *x = to->pool + to->used;
    to->used += n;
    cr_assert(to->used <= POOL);
    for (size_t i = 0; i < n; i++)
        x[i] = scale * net_file_random(&to->seed);
    return x;
}

static kac_gdss_linear linear(weights *to, int32_t in, int32_t out)
{
    const float *weight = numbers(to, (size_t)(in * out), 1.5f / sqrtf((float)in));
    return (kac_gdss_linear){in, out, weight, numbers(to, (size_t)out, 0.3f)};
}

static kac_gdss_mlp mlp(weights *to, const shape *s, int32_t in, int32_t out)
{
    kac_gdss_mlp m = {.layers = s->linears};
    for (int32_t i = 0; i < m.layers; i++) {
        const int32_t wide = i + 1 < m.layers ? s->hidden + i : out;
        m.layer[i] = linear(to, in, wide);
        in = wide;
    }
    return m;
}

static kac_gdss_network network(weights *to, const shape *s, int32_t layers, bool attends,
                                bool nodes)
{
    kac_gdss_network w = {.layers = layers, .attends = attends, .heads = s->heads};
    int32_t in = s->features, channels = KAC_GDSS_POWERS;
    int32_t features = in, all = channels;
    for (int32_t i = 0; i < layers; i++) {
        w.conv[i] = linear(to, in, s->out);
        kac_gdss_attention *a = &w.attention[i];
        a->channels = channels;
        for (int32_t c = 0; c < channels; c++) {
            a->conv[c][KAC_GDSS_QUERY] = linear(to, in, s->query);
            a->conv[c][KAC_GDSS_KEY] = linear(to, in, s->query);
            a->conv[c][KAC_GDSS_VALUE] = linear(to, in, s->value);
        }
        a->nodes = mlp(to, s, channels * s->value, s->out);
        a->pairs = mlp(to, s, 2 * channels, s->channels);
        in = s->out;
        channels = s->channels;
        features += in;
        all += channels;
    }
    w.final = nodes ? mlp(to, s, features, s->features) : mlp(to, s, all, 1);
    return w;
}

static weights *make_weights(const shape *s)
{
    weights *to = calloc(1, sizeof *to);
    cr_assert_not_null(to);
    to->seed = 7;
    to->pool = malloc(POOL * sizeof *to->pool);
    cr_assert_not_null(to->pool);
    to->w.nodes = s->nodes;
    to->w.features = s->features;
    to->w.x = network(to, s, s->x_layers, s->attends, true);
    to->w.adj = network(to, s, s->a_layers, true, false);
    return to;
}

static void free_weights(weights *w)
{
    free(w->pool);
    free(w);
}

/* ---- rows ------------------------------------------------------------------------------------ */

/* Rows of all sizes, the largest first; `most`: of at most so many nodes but for the first. */
static float *make_rows(const shape *s, int32_t rows, int32_t most)
{
    const int32_t n = s->nodes, features = s->features;
    const int32_t length = 1 + n * features + n * (n - 1) / 2;
    float *all = calloc((size_t)(rows * length), sizeof *all);
    uint64_t seed = 29;
    cr_assert_not_null(all);
    for (int32_t r = 0; r < rows; r++) {
        float *row = all + r * length, *pair = row + 1 + n * features;
        const int32_t live = r == 0 ? n : (most + 3 * r) % (most + 1);
        row[0] = (float)live;
        for (int32_t i = 0; i < live * features; i++)
            row[1 + i] = net_file_random(&seed);
        for (int32_t i = 0; i < n; i++)
            for (int32_t j = i + 1; j < n; j++, pair++)
                if (j < live) *pair = 1.5f * net_file_random(&seed);
    }
    return all;
}

/* ---- both devices ------------------------------------------------------------------------------ */

enum { PIECES = 7 };

typedef struct run {
    kac_net *net;
    void *piece[PIECES]; /* rows, cotangent, src, dst, count, answers, gradients */
} run;

/* A window from row 3 on of which all but the last are there, in other orders. */
static run run_twin(int k, const kac_gdss_weights *w, int32_t rows, const float *given,
                    const float *cotangent)
{
    const kac_gdss_ops *ops = &twin(k)->ops->networks.gdss;
    const int32_t length = 1 + w->nodes * w->features + w->nodes * (w->nodes - 1) / 2;
    const size_t bytes = (size_t)(rows * length) * sizeof(float);
    const int32_t count = 3 + rows - (rows > 1);
    int32_t src[64], dst[64];
    unsigned char *filled = malloc(bytes);
    run r;
    cr_assert(filled != NULL && rows <= 64);
    memset(filled, 0xee, bytes);
    for (int32_t i = 0; i < rows; i++) {
        src[i] = i * 7 % rows;
        dst[i] = rows - 1 - i;
    }
    ok(ops->pack(twin(k), w, &r.net));
    r.piece[0] = twin_put(k, given, bytes);
    r.piece[1] = twin_put(k, cotangent, bytes);
    r.piece[2] = twin_put(k, src, (size_t)rows * sizeof *src);
    r.piece[3] = twin_put(k, dst, (size_t)rows * sizeof *dst);
    r.piece[4] = twin_put(k, &count, sizeof count);
    r.piece[5] = twin_put(k, filled, bytes);
    r.piece[6] = twin_put(k, filled, bytes);
    const kac_query q = {.tokens = r.piece[0],
                         .stride = length * (int32_t)sizeof(float),
                         .length = length,
                         .src = r.piece[2],
                         .dst = r.piece[3],
                         .count = r.piece[4],
                         .first = 3,
                         .capacity = rows,
                         .out = r.piece[5],
                         .out_stride = length};
    ok(ops->forward(twin(k), r.net, &q));
    ok(ops->vjp(twin(k), r.net, &q, r.piece[1], r.piece[6]));
    free(filled);
    return r;
}

static void compare(const kac_gdss_weights *w, const shape *s, int32_t rows, int32_t most)
{
    const int32_t length = 1 + s->nodes * s->features + s->nodes * (s->nodes - 1) / 2;
    const size_t floats = (size_t)(rows * length);
    float *given = make_rows(s, rows, most), *cotangent = malloc(floats * sizeof *cotangent);
    uint64_t seed = 31;
    run r[TWINS];
    char text[96];
    cr_assert_not_null(cotangent);
    for (size_t i = 0; i < floats; i++)
        cotangent[i] = net_file_random(&seed);
    for (int k = 0; k < TWINS; k++)
        r[k] = run_twin(k, w, rows, given, cotangent);
    snprintf(text, sizeof text, "%s: answers", s->name);
    twins_equal(r[0].piece[5], r[1].piece[5], floats * sizeof(float), text, rows);
    snprintf(text, sizeof text, "%s: gradients", s->name);
    twins_equal(r[0].piece[6], r[1].piece[6], floats * sizeof(float), text, rows);
    for (int k = 0; k < TWINS; k++) {
        twin(k)->ops->networks.gdss.drop(twin(k), r[k].net);
        twin_drop(k, r[k].piece, PIECES);
    }
    free(given);
    free(cotangent);
}

Test(twins_gdss, networks_of_any_size)
{
    static const int32_t counts[] = {1, 3, 33};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        weights *w = make_weights(&shapes[i]);
        for (size_t j = 0; j < sizeof counts / sizeof *counts; j++)
            compare(&w->w, &shapes[i], counts[j], shapes[i].nodes);
        free_weights(w);
    }
}

/* Graphs that need several parts of the pairs and of the channels at once. */
Test(twins_gdss, large_graphs)
{
    shape s = published;
    for (int attends = 0; attends <= 1; attends++) {
        s.attends = attends;
        weights *w = make_weights(&s);
        compare(&w->w, &s, 1, s.nodes);
        compare(&w->w, &s, 4, 29);
        free_weights(w);
    }
}

/* With a processor for each graph, the networks and parts of the pairs have blocks of their own. */
Test(twins_gdss, few_graphs)
{
    shape s = published;
    cr_assert_eq(setenv("KAC_EMU_PROCESSORS", "8", 1), 0);
    for (int attends = 0; attends <= 1; attends++) {
        s.attends = attends;
        weights *w = make_weights(&s);
        compare(&w->w, &s, 5, 29);
        free_weights(w);
    }
    weights *w = make_weights(&shapes[0]);
    compare(&w->w, &shapes[0], 4, 1);
    free_weights(w);
}

/* Networks that no block's shared memory holds. */
Test(twins_gdss, beyond_shared_memory)
{
    static const shape many = {"many nodes", 150, 2, 1, 2, true, 1, 4, 4, 4, 3, 5, 2};
    static const shape broad = {"broad", 4, 3, 1, 1, false, 2, 8, 8, 8, 2, 300, 3};
    weights *w = make_weights(&many);
    compare(&w->w, &many, 3, 21);
    free_weights(w);
    w = make_weights(&broad);
    compare(&w->w, &broad, 3, 4);
    free_weights(w);
}

/* Channels without scores, in layers with and without features of nodes, and weights that count
 * as 0. */
Test(twins_gdss, dead_units)
{
    static const float sizes[] = {0, 1e-39f, 1e-22f};
    static const shape s = {"dead units", 8, 3, 2, 3, true, 2, 6, 4, 5, 4, 7, 2};
    for (int k = 0; k < 3; k++) {
        weights *w = make_weights(&s);
        for (int32_t i = 0; i < 3; i++) {
            const kac_gdss_linear *key = &w->w.adj.attention[i].conv[1][KAC_GDSS_KEY];
            float *weight = w->pool + (key->weight - w->pool);
            for (int32_t j = 0; j < key->in * key->out; j++)
                weight[j] = sizes[k];
            float *bias = w->pool + (key->bias - w->pool);
            for (int32_t j = 0; j < key->out; j++)
                bias[j] = -sizes[k];
        }
        compare(&w->w, &s, 5, s.nodes);
        free_weights(w);
    }
}
