/* verify.c -- runs a network on recorded inputs and compares with recorded outputs. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "network.h"

/* What is open while a recording is replayed. */
typedef struct replay {
    kac_device *dev;
    kac_network *net;
    kac_tensors *recording;
    FILE *out;
    double worst;
} replay;

/* A tensor of the recording; sizes < 0 are free. */
static kac_status find(const replay *r, const char *name, kac_dtype dtype, int rank,
                       const int64_t *shape, const kac_tensor **out)
{
    const char *path = kac_tensors_path(r->recording);
    const kac_tensor *x = kac_tensors_find(r->recording, name);
    if (x == NULL) return KAC_FAIL(KAC_ERR_INVALID, "%s: tensor `%s` is missing", path, name);
    bool fits = x->dtype == dtype && x->rank == rank;
    for (int i = 0; fits && i < rank; i++)
        fits = x->shape[i] >= 1 && (shape[i] < 0 || x->shape[i] == shape[i]);
    if (!fits) {
        char has[200];
        char want[200];
        kac_tensor wanted = {.rank = rank};
        for (int i = 0; i < rank; i++)
            wanted.shape[i] = shape[i];
        kac_shape_text(x, has, sizeof has);
        kac_shape_text(&wanted, want, sizeof want);
        return KAC_FAIL(KAC_ERR_INVALID, "%s: tensor `%s` is %s %s, want %s %s (-1: any size)",
                        path, name, kac_dtype_name(x->dtype), has, kac_dtype_name(dtype), want);
    }
    *out = x;
    return KAC_OK;
}

static kac_status check_sizes(const replay *r, const kac_tensor *x)
{
    if (x->shape[0] > INT32_MAX || x->shape[1] > INT32_MAX)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: tensor `%s` is too large",
                        kac_tensors_path(r->recording), x->name);
    return kac_network_check_length(r->net, (int32_t)x->shape[1]);
}

/* Tokens [B][L]; the mask is token S. */
static kac_status find_tokens(const replay *r, const kac_tensor **out)
{
    const int64_t any[2] = {-1, -1};
    KAC_TRY(find(r, "tokens", KAC_U8, 2, any, out));
    KAC_TRY(check_sizes(r, *out));
    const uint8_t *token = (*out)->data;
    for (size_t i = 0; i < (*out)->bytes; i++)
        if (token[i] > r->net->states)
            return KAC_FAIL(KAC_ERR_INVALID,
                            "%s: tensor `tokens`: element %zu is %d, want 0 to %d (the mask)",
                            kac_tensors_path(r->recording), i, token[i], (int)r->net->states);
    return KAC_OK;
}

/* max|a - b| / max|b| over rows of `width` of the `b_width` values that b has; NaN if either
 * has one. */
static double difference(const float *a, const float *b, int64_t rows, int64_t width,
                         int64_t b_width)
{
    double most = 0;
    double scale = 0;
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < width; j++) {
            double x = (double)a[i * width + j];
            double y = (double)b[i * b_width + j];
            double d = x == y ? 0 : fabs(x - y); /* equal infinities */
            if (isnan(d)) return d;
            if (d > most) most = d;
            if (isfinite(y) && fabs(y) > scale) scale = fabs(y);
        }
    }
    return most > 0 ? most / scale : 0;
}

/* Writes the line of one compared tensor. */
static kac_status report(replay *r, const kac_tensor *x, double worst)
{
    char shape[200];
    kac_shape_text(x, shape, sizeof shape);
    if (isnan(worst) || worst > r->worst) r->worst = worst;
    if (fprintf(r->out, "%s %s %.3g\n", x->name, shape, worst) < 0)
        return KAC_FAIL(KAC_ERR_IO, "cannot write the comparison of `%s`", x->name);
    return KAC_OK;
}

/* Answers rows first .. first + rows - 1 of a query over the whole recording; `sigma` is what a
 * network that reads time is fed. */
static kac_status ask(const replay *r, const kac_query *all, int32_t first, int32_t rows,
                      float sigma)
{
    const kac_level level = {.sigma = sigma};
    const kac_clock clock = {0, 0};
    kac_query q = *all;
    q.tokens += (int64_t)first * q.stride;
    q.out += (int64_t)first * q.out_stride;
    q.capacity = rows;
    q.levels = &level;
    q.clock = &clock;
    return kac_network_ask(r->net, &q);
}

static kac_status ask_each(const replay *r, const kac_query *all, const kac_tensor *sigma)
{
    if (sigma == NULL) return ask(r, all, 0, all->capacity, 0);
    const float *value = sigma->data;
    for (int32_t i = 0; i < all->capacity; i++)
        KAC_TRY(ask(r, all, i, 1, value[i]));
    return KAC_OK;
}

static kac_status replay_denoiser(replay *r)
{
    const kac_tensor *tokens = NULL;
    const kac_tensor *logits = NULL;
    const kac_tensor *sigma = NULL;
    KAC_TRY(find_tokens(r, &tokens));
    const int64_t rows = tokens->shape[0];
    const int64_t length = tokens->shape[1];
    const int64_t states = r->net->states;
    const kac_tensor *given = kac_tensors_find(r->recording, "logits");
    bool with_mask = given != NULL && given->rank == 3 && given->shape[2] == states + 1;
    const int64_t shape[3] = {rows, length, with_mask ? states + 1 : states};
    KAC_TRY(find(r, "logits", KAC_F32, 3, shape, &logits));
    if (r->net->reads_time || kac_tensors_find(r->recording, "sigma") != NULL)
        KAC_TRY(find(r, "sigma", KAC_F32, 1, &rows, &sigma));

    float *out = malloc((size_t)(rows * length * states) * sizeof *out);
    if (out == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "%s: out of memory", r->net->path);
    kac_query q = {.tokens = tokens->data,
                   .stride = (int32_t)length,
                   .length = (int32_t)length,
                   .capacity = (int32_t)rows,
                   .out = out,
                   .out_stride = (int32_t)(length * states)};
    kac_status status = ask_each(r, &q, sigma);
    if (status == KAC_OK)
        status =
            report(r, logits, difference(out, logits->data, rows * length, states, shape[2]));
    free(out);
    return status;
}

/* Compares what the network makes of the query's input with `recorded` [rows][outputs]. */
static kac_status replay_outputs(replay *r, kac_query *q, const kac_tensor *recorded)
{
    const int64_t rows = recorded->shape[0];
    const int64_t outputs = r->net->outputs;
    float *out = malloc((size_t)(rows * outputs) * sizeof *out);
    if (out == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "%s: out of memory", r->net->path);
    q->capacity = (int32_t)rows;
    q->out = out;
    q->out_stride = (int32_t)outputs;
    kac_status status = kac_network_ask(r->net, q);
    if (status == KAC_OK)
        status = report(r, recorded, difference(out, recorded->data, rows, outputs, outputs));
    free(out);
    return status;
}

static kac_status replay_reward(replay *r)
{
    const kac_tensor *output = NULL;
    if (kac_tensors_find(r->recording, "output") != NULL) {
        const kac_tensor *tokens = NULL;
        KAC_TRY(find_tokens(r, &tokens));
        const int64_t shape[2] = {tokens->shape[0], r->net->outputs};
        KAC_TRY(find(r, "output", KAC_F32, 2, shape, &output));
        kac_query q = {.tokens = tokens->data,
                       .stride = (int32_t)tokens->shape[1],
                       .length = (int32_t)tokens->shape[1]};
        KAC_TRY(replay_outputs(r, &q, output));
    }
    if (kac_tensors_find(r->recording, "output_probabilities") != NULL) {
        const kac_tensor *soft = NULL;
        const int64_t soft_shape[3] = {-1, -1, r->net->states};
        KAC_TRY(find(r, "probabilities", KAC_F32, 3, soft_shape, &soft));
        KAC_TRY(check_sizes(r, soft));
        const int64_t shape[2] = {soft->shape[0], r->net->outputs};
        KAC_TRY(find(r, "output_probabilities", KAC_F32, 2, shape, &output));
        kac_query q = {.soft = soft->data, .length = (int32_t)soft->shape[1]};
        KAC_TRY(replay_outputs(r, &q, output));
    }
    return KAC_OK;
}

/* A reward of vectors: `vectors` [B][L] and `output`. */
static kac_status replay_vectors(replay *r)
{
    const kac_tensor *vectors = NULL, *output = NULL;
    const int64_t any[2] = {-1, -1};
    KAC_TRY(find(r, "vectors", KAC_F32, 2, any, &vectors));
    KAC_TRY(check_sizes(r, vectors));
    const int64_t shape[2] = {vectors->shape[0], r->net->outputs};
    KAC_TRY(find(r, "output", KAC_F32, 2, shape, &output));
    kac_query q = {.tokens = vectors->data,
                   .stride = (int32_t)(vectors->shape[1] * (int64_t)sizeof(float)),
                   .length = (int32_t)vectors->shape[1]};
    return replay_outputs(r, &q, output);
}

/* ---- graphs ----------------------------------------------------------------------------- */

/* A set of graphs in a recording: tensors whose names begin with PREFIX. */
typedef struct graphs {
    const char *prefix;
    int prefix_length;
    int32_t rows;
    const kac_tensor *x, *adj, *flags; /* [rows][N][F], [rows][N][N], [rows][N] */
    float *row;                        /* [rows][D]: asked, then the answers (networks.h) */
    float *answer;
    float *compared; /* [rows][N][N] or [rows][N][F] */
} graphs;

/* The tensor PREFIX.part, [rows][N][width], or [rows] where the rank is 1. */
static kac_status find_of(const replay *r, const graphs *g, const char *part, int rank,
                          int64_t width, const kac_tensor **out)
{
    char name[256];
    const int64_t shape[3] = {g->rows > 0 ? g->rows : -1, r->net->graph.nodes, width};
    (void)snprintf(name, sizeof name, "%.*s.%s", g->prefix_length, g->prefix, part);
    return find(r, name, KAC_F32, rank, shape, out);
}

/* One graph as a row: its live nodes must come first, and its adjacency be symmetric. */
static kac_status fill_row(const replay *r, const graphs *g, int64_t i, float *row)
{
    const int32_t nodes = r->net->graph.nodes, features = r->net->graph.features;
    const float *x = (const float *)g->x->data + i * nodes * features;
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
    *row++ = (float)n;
    memcpy(row, x, (size_t)(nodes * features) * sizeof *row);
    row += (int64_t)nodes * features;
    for (int32_t j = 0; j < nodes; j++)
        for (int32_t k = j + 1; k < nodes; k++) {
            *row = adj[j * nodes + k];
            if (*row++ != adj[k * nodes + j])
                return KAC_FAIL(
                    KAC_ERR_INVALID, "%s: tensor `%s`: graph %lld is not symmetric at %d, %d",
                    kac_tensors_path(r->recording), g->adj->name, (long long)i, (int)j, (int)k);
        }
    return KAC_OK;
}

/* The deviation of the noise at t, in the arithmetic of the original, which is coarse near 0. */
static float deviation(const kac_noise *noise, float t)
{
    const float low = (float)noise->low, range = (float)(noise->high - noise->low);
    return sqrtf(1.0f - expf(2.0f * (-0.25f * (t * t) * range - 0.5f * t * low)));
}

/* g->compared = the answers for nodes [rows][N][F], or for pairs [rows][N][N]; as scores, which
 * for VP are divided by minus the deviation, where there is a `t`. */
static void compose(const replay *r, const graphs *g, bool pairs, const kac_tensor *t)
{
    const int64_t nodes = r->net->graph.nodes, wide = nodes * r->net->graph.features;
    const kac_noise *noise = &r->net->graph.noise[pairs ? 1 : 0];
    const int64_t size = pairs ? nodes * nodes : wide;
    memset(g->compared, 0, (size_t)(g->rows * size) * sizeof *g->compared);
    for (int64_t i = 0; i < g->rows; i++) {
        float *to = g->compared + i * size;
        const float *from = g->answer + i * r->net->length + 1;
        if (pairs) {
            from += wide;
            for (int64_t j = 0; j < nodes; j++)
                for (int64_t k = j + 1; k < nodes; k++)
                    to[j * nodes + k] = to[k * nodes + j] = *from++;
        } else {
            memcpy(to, from, (size_t)size * sizeof *to);
        }
        if (t == NULL || noise->kind == KAC_NOISE_VE) continue;
        const float scale = deviation(noise, ((const float *)t->data)[i]);
        for (int64_t j = 0; j < size; j++)
            to[j] = -to[j] / scale;
    }
}

/* Compares PREFIX.net_* or, with `t`, PREFIX.score_*. */
static kac_status compare_both(replay *r, const graphs *g, const kac_tensor *t)
{
    for (int pairs = 0; pairs <= 1; pairs++) {
        const char *const names[2][2] = {{"net_x", "net_adj"}, {"score_x", "score_adj"}};
        const int64_t width = pairs ? r->net->graph.nodes : r->net->graph.features;
        const int64_t size = r->net->graph.nodes * width;
        const kac_tensor *recorded = NULL;
        KAC_TRY(find_of(r, g, names[t != NULL][pairs], 3, width, &recorded));
        compose(r, g, pairs != 0, t);
        KAC_TRY(
            report(r, recorded, difference(g->compared, recorded->data, g->rows, size, size)));
    }
    return KAC_OK;
}

static kac_status replay_graphs(replay *r, graphs *g)
{
    const kac_tensor *t = NULL;
    KAC_TRY(find_of(r, g, "X", 3, r->net->graph.features, &g->x));
    if (g->x->shape[0] > INT32_MAX)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: tensor `%s` is too large",
                        kac_tensors_path(r->recording), g->x->name);
    g->rows = (int32_t)g->x->shape[0];
    KAC_TRY(find_of(r, g, "A", 3, r->net->graph.nodes, &g->adj));
    KAC_TRY(find_of(r, g, "flags", 2, 0, &g->flags));
    KAC_TRY(find_of(r, g, "t", 1, 0, &t));

    const int64_t rows = g->rows, length = r->net->length;
    const int64_t widest = r->net->graph.nodes > r->net->graph.features
                               ? r->net->graph.nodes
                               : r->net->graph.features;
    kac_status status = KAC_OK;
    float *memory =
        malloc((size_t)(rows * (2 * length + r->net->graph.nodes * widest)) * sizeof *memory);
    if (memory == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "%s: out of memory", r->net->path);
    g->row = memory;
    g->answer = g->row + rows * length;
    g->compared = g->answer + rows * length;
    for (int64_t i = 0; i < rows; i++)
        KAC_TRY_DONE(fill_row(r, g, i, g->row + i * length));
    kac_query q = {.tokens = (const uint8_t *)g->row,
                   .stride = (int32_t)(length * (int64_t)sizeof *g->row),
                   .length = (int32_t)length,
                   .capacity = g->rows,
                   .out = g->answer,
                   .out_stride = (int32_t)length};
    KAC_TRY_DONE(kac_network_ask(r->net, &q));
    KAC_TRY_DONE(compare_both(r, g, NULL));
    KAC_TRY_DONE(compare_both(r, g, t));
done:
    free(memory);
    return status;
}

/* The set of graphs that tensor i is the first recorded output of, PREFIX.net_x. */
static bool is_graphs(const replay *r, int i, graphs *out)
{
    static const char suffix[] = ".net_x";
    const char *name = kac_tensors_at(r->recording, i)->name;
    const size_t length = strlen(name), end = sizeof suffix - 1;
    if (length <= end || length > 128 || strcmp(name + length - end, suffix) != 0) return false;
    *out = (graphs){.prefix = name, .prefix_length = (int)(length - end)};
    return true;
}

static bool has_graphs(const replay *r)
{
    graphs g;
    for (int i = 0; i < kac_tensors_count(r->recording); i++)
        if (is_graphs(r, i, &g)) return true;
    return false;
}

static kac_status replay_all_graphs(replay *r)
{
    for (int i = 0; i < kac_tensors_count(r->recording); i++) {
        graphs g;
        if (is_graphs(r, i, &g)) KAC_TRY(replay_graphs(r, &g));
    }
    return KAC_OK;
}

/* ---- any network ------------------------------------------------------------------------ */

static kac_status run(replay *r, const char *model)
{
    bool graph = has_graphs(r);
    bool denoiser = graph || kac_tensors_find(r->recording, "logits") != NULL;
    bool reward = kac_tensors_find(r->recording, "output") != NULL ||
                  kac_tensors_find(r->recording, "output_probabilities") != NULL;
    if (!denoiser && !reward)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "%s: nothing to compare: want the tensor `logits` of a denoiser, "
                        "`NAME.net_x` of a denoiser of graphs, or "
                        "`output` or `output_probabilities` of a reward",
                        kac_tensors_path(r->recording));
    KAC_TRY(kac_network_open(r->dev, model, denoiser ? KAC_ROLE_DENOISER : KAC_ROLE_REWARD,
                             &r->net));
    if (graph && r->net->arch->scores) return replay_all_graphs(r);
    if (!denoiser && r->net->arch->vectors && kac_tensors_find(r->recording, "vectors") != NULL)
        return replay_vectors(r);
    if (graph || r->net->arch->vectors)
        return KAC_FAIL(KAC_ERR_UNSUPPORTED, "%s: the recording holds %s, and a %s reads %s",
                        model, graph ? "graphs" : "sequences", r->net->arch->name,
                        r->net->arch->scores    ? "graphs"
                        : r->net->arch->vectors ? "vectors"
                                                : "sequences");
    return denoiser ? replay_denoiser(r) : replay_reward(r);
}

/* -1 is the best of this processor. */
static kac_status find_isa(const char *name, int *out)
{
    for (int isa = -1; isa <= (int)KAC_ISA_AVX512; isa++) {
        if (strcmp(isa < 0 ? "auto" : kac_isa_names[isa], name) != 0) continue;
        *out = isa;
        return KAC_OK;
    }
    return KAC_FAIL(KAC_ERR_INVALID, "isa `%s`: want auto, portable, avx2 or avx512", name);
}

kac_status kac_verify(const char *model, const char *recording, const char *isa, FILE *out,
                      double *worst)
{
    KAC_REQUIRE(model != NULL && recording != NULL && isa != NULL);
    KAC_REQUIRE(out != NULL && worst != NULL);
    kac_status status = KAC_OK;
    replay r = {.out = out};
    int wanted = -1;
    KAC_TRY(find_isa(isa, &wanted));
    KAC_TRY_DONE(kac_device_open("cpu", wanted, &r.dev)); /* its memory is the host's */
    KAC_TRY_DONE(kac_tensors_open(recording, &r.recording));
    KAC_TRY_DONE(run(&r, model));
    *worst = r.worst;
done:
    kac_network_close(r.net);
    kac_tensors_close(r.recording);
    kac_device_close(r.dev);
    return status;
}
