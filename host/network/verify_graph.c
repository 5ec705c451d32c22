/* verify_graph.c -- recorded graphs, and what a network answers for sets of them. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "verify.h"

/* ---- rows and whole matrices -------------------------------------------------------------- */

kac_status kac_replay_find_part(const kac_replay *r, const char *name, bool pairs, int64_t rows,
                                const kac_tensor **out)
{
    const kac_graph_model *graph = &r->net->graph;
    const int64_t shape[3] = {rows, graph->nodes, pairs ? graph->nodes : graph->features};
    KAC_TRY(kac_replay_find(r, name, KAC_F32, 3, shape, out));
    if ((*out)->shape[0] > INT32_MAX)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: tensor `%s` is too large",
                        kac_tensors_path(r->recording), name);
    return KAC_OK;
}

void kac_replay_pack(const kac_graph_model *graph, const float *x, const float *adj, int64_t i,
                     float *row)
{
    const int64_t nodes = graph->nodes, wide = nodes * graph->features;
    *row++ = 0;
    memcpy(row, x + i * wide, (size_t)wide * sizeof *row);
    row += wide;
    for (int64_t j = 0; j < nodes; j++)
        for (int64_t k = j + 1; k < nodes; k++)
            *row++ = adj[(i * nodes + j) * nodes + k];
}

/* Whether two numbers of a pair are one, but for the rounding of what moved them. */
static bool is_one(float a, float b)
{
    return fabsf(a - b) <= 1e-5F * (1 + fabsf(a));
}

/* One graph as a row, of whose adjacency the upper triangle is taken. */
static kac_status fill_row(const kac_replay *r, const kac_replay_graphs *g, int64_t i,
                           float *row)
{
    const int32_t nodes = r->net->graph.nodes;
    const float *adj = (const float *)g->adj->data + i * nodes * nodes;
    const float *flags = (const float *)g->flags->data + i * nodes;
    int32_t n = 0;
    while (n < nodes && flags[n] == 1)
        n++;
    for (int32_t j = n; j < nodes; j++)
        if (flags[j] != 0)
            return KAC_FAIL(KAC_ERR_INVALID,
                            "%s: tensor `%s`: row %lld is not ones and then zeros",
                            kac_tensors_path(r->recording), g->flags->name, (long long)i);
    for (int32_t j = 0; j < nodes; j++)
        for (int32_t k = j + 1; k < nodes; k++)
            if (!is_one(adj[j * nodes + k], adj[k * nodes + j]))
                return KAC_FAIL(
                    KAC_ERR_INVALID, "%s: tensor `%s`: graph %lld is not symmetric at %d, %d",
                    kac_tensors_path(r->recording), g->adj->name, (long long)i, (int)j, (int)k);
    kac_replay_pack(&r->net->graph, g->x->data, g->adj->data, i, row);
    row[0] = (float)n;
    return KAC_OK;
}

kac_status kac_replay_rows(const kac_replay *r, const kac_replay_graphs *g, int64_t stride,
                           float *out)
{
    for (int64_t i = 0; i < g->rows; i++)
        KAC_TRY(fill_row(r, g, i, out + i * stride));
    return KAC_OK;
}

/* The deviation of the noise at t, in the arithmetic of the original, which is coarse near 0. */
static float deviation(const kac_noise *noise, float t)
{
    const float low = (float)noise->low, range = (float)(noise->high - noise->low);
    return sqrtf(1.0f - expf(2.0f * (-0.25f * (t * t) * range - 0.5f * t * low)));
}

void kac_replay_spread(const kac_replay *r, const float *row, int64_t stride, int32_t rows,
                       bool pairs, const float *t, float *out)
{
    const int64_t nodes = r->net->graph.nodes, wide = nodes * r->net->graph.features;
    const kac_noise *noise = &r->net->graph.noise[pairs ? 1 : 0];
    const int64_t size = pairs ? nodes * nodes : wide;
    memset(out, 0, (size_t)(rows * size) * sizeof *out);
    for (int64_t i = 0; i < rows; i++) {
        float *to = out + i * size;
        const float *from = row + i * stride + 1;
        if (pairs) {
            from += wide;
            for (int64_t j = 0; j < nodes; j++)
                for (int64_t k = j + 1; k < nodes; k++)
                    to[j * nodes + k] = to[k * nodes + j] = *from++;
        } else {
            memcpy(to, from, (size_t)size * sizeof *to);
        }
        if (t == NULL || noise->kind == KAC_NOISE_VE) continue;
        const float scale = deviation(noise, t[i]);
        for (int64_t j = 0; j < size; j++)
            to[j] = -to[j] / scale;
    }
}

int64_t kac_replay_widest(const kac_replay *r)
{
    const int64_t nodes = r->net->graph.nodes, features = r->net->graph.features;
    return nodes * (nodes > features ? nodes : features);
}

/* ---- sets of graphs ----------------------------------------------------------------------- */

/* A set: tensors whose names begin with PREFIX. */
typedef struct set {
    kac_replay_graphs graphs;
    const char *prefix;
    int prefix_length;
    const float *t; /* [rows] */
    float *row;     /* [rows][D] asked, then the answers (networks.h) */
    float *answer;
    float *compared; /* [rows][widest] */
} set;

static void name_of(const set *s, const char *part, char name[256])
{
    (void)snprintf(name, 256, "%.*s.%s", s->prefix_length, s->prefix, part);
}

/* Compares PREFIX.net_* or, as scores, PREFIX.score_*. */
static kac_status compare_both(kac_replay *r, const set *s, bool scores)
{
    static const char *const names[2][2] = {{"net_x", "net_adj"}, {"score_x", "score_adj"}};
    for (int pairs = 0; pairs <= 1; pairs++) {
        char name[256];
        const kac_tensor *recorded = NULL;
        name_of(s, names[scores][pairs], name);
        KAC_TRY(kac_replay_find_part(r, name, pairs != 0, s->graphs.rows, &recorded));
        kac_replay_spread(r, s->answer, r->net->length, s->graphs.rows, pairs != 0,
                          scores ? s->t : NULL, s->compared);
        const int64_t size = recorded->shape[1] * recorded->shape[2];
        KAC_TRY(kac_replay_compare(r, s->compared, recorded, s->graphs.rows, size, size));
    }
    return KAC_OK;
}

static kac_status find_set(const kac_replay *r, set *s)
{
    const kac_tensor *t = NULL;
    char name[256];
    name_of(s, "X", name);
    KAC_TRY(kac_replay_find_part(r, name, false, -1, &s->graphs.x));
    s->graphs.rows = (int32_t)s->graphs.x->shape[0];
    name_of(s, "A", name);
    KAC_TRY(kac_replay_find_part(r, name, true, s->graphs.rows, &s->graphs.adj));
    const int64_t shape[2] = {s->graphs.rows, r->net->graph.nodes};
    name_of(s, "flags", name);
    KAC_TRY(kac_replay_find(r, name, KAC_F32, 2, shape, &s->graphs.flags));
    name_of(s, "t", name);
    KAC_TRY(kac_replay_find(r, name, KAC_F32, 1, shape, &t));
    s->t = t->data;
    return KAC_OK;
}

static kac_status replay_set(kac_replay *r, set *s)
{
    KAC_TRY(find_set(r, s));
    const int64_t rows = s->graphs.rows, length = r->net->length;
    kac_status status = KAC_OK;
    float *memory =
        calloc((size_t)(rows * (2 * length + kac_replay_widest(r))), sizeof *memory);
    if (memory == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "%s: out of memory", r->net->path);
    s->row = memory;
    s->answer = s->row + rows * length;
    s->compared = s->answer + rows * length;
    KAC_TRY_DONE(kac_replay_rows(r, &s->graphs, length, s->row));
    const kac_level level = {.sigma = 0};
    const kac_clock clock = {0, 0};
    kac_query q = {.tokens = (const uint8_t *)s->row,
                   .stride = (int32_t)(length * (int64_t)sizeof *s->row),
                   .length = (int32_t)length,
                   .capacity = s->graphs.rows,
                   .levels = &level,
                   .clock = &clock,
                   .out = s->answer,
                   .out_stride = (int32_t)length};
    KAC_TRY_DONE(kac_replay_ask(r, &q));
    KAC_TRY_DONE(compare_both(r, s, false));
    KAC_TRY_DONE(compare_both(r, s, true));
done:
    free(memory);
    return status;
}

/* The set that tensor i is the first recorded output of, PREFIX.net_x. */
static bool is_set(const kac_replay *r, int i, set *out)
{
    static const char suffix[] = ".net_x";
    const char *name = kac_tensors_at(r->recording, i)->name;
    const size_t length = strlen(name), end = sizeof suffix - 1;
    if (length <= end || length > 128 || strcmp(name + length - end, suffix) != 0) return false;
    *out = (set){.prefix = name, .prefix_length = (int)(length - end)};
    return true;
}

bool kac_replay_has_sets(const kac_replay *r)
{
    set s;
    for (int i = 0; i < kac_tensors_count(r->recording); i++)
        if (is_set(r, i, &s)) return true;
    return false;
}

kac_status kac_replay_sets(kac_replay *r)
{
    for (int i = 0; i < kac_tensors_count(r->recording); i++) {
        set s;
        if (is_set(r, i, &s)) KAC_TRY(replay_set(r, &s));
    }
    return KAC_OK;
}
