/* verify_sampler.c -- the published sampler of graphs (Jo, Lee and Hwang, ICML 2022), replayed with
 * its own noise by the operations of the graph process: its coefficients, single steps, and a
 * trajectory from each stored state to the next one.
 *
 * Step i of S is the corrector's move from level 2 (S - 1 - i) + 2 and the predictor's from the
 * level below (host/process/graph.c).  Noise is recorded, or made from a seed: with the
 * finaliser mix of splitmix64 (Steele, Lea and Flood, OOPSLA 2014), g = 9E3779B97F4A7C15 and
 * arithmetic mod 2^64,
 *
 *     s = mix(seed g + 8 step + stream), word w is mix(s + (w + 1) g);
 *     number k = (the twelve 16-bit pieces of words 3 k .. 3 k + 2 - 393210) / 65536
 *
 * k counts all of the batch [B][N][F] or [B][N][N], of which a pair i < j has the number at
 * (i, j).  Streams 2 and 3 are the corrector's, of nodes and of pairs, 4 and 5 the predictor's.
 */
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "verify.h"

enum { MOST_POINTS = 1 << 18, ARRAYS = 16, NAME = 64 };

/* The two moves of a step. */
enum { CORRECTOR, PREDICTOR };
static const char *const short_names[2] = {"corr", "pred"};
static const char *const part_names[2] = {"x", "adj"};

/* A batch on its way down, and all that the operations look at. */
typedef struct sampler {
    kac_replay *r;
    int64_t points; /* S */
    int32_t rows;   /* B */
    uint64_t seed;
    double snr;
    kac_shape shape;
    kac_level *levels;       /* [2 S + 2] in a row, of each the level below */
    const kac_tensor *flags; /* [B][N] */
    float *state, *answer;   /* [B][stride], [B][D] */
    float *noise;            /* [B][D] */
    float *whole;            /* [B][widest] */
    void *device[ARRAYS];    /* memory of the device, to give back */
    int arrays;
    kac_level *device_levels;
    kac_clock *clock;
    kac_group *group;
    kac_fault *fault;
    float *given; /* the noise */
    kac_norms *norms;
    kac_particles x, y;
    kac_memo memo;
} sampler;

/* ---- what a recording says ---------------------------------------------------------------- */

static kac_status refuse(const kac_replay *r, const char *key, const char *want)
{
    return KAC_FAIL(KAC_ERR_INVALID, "%s: metadata `%s`: want %s",
                    kac_tensors_path(r->recording), key, want);
}

/* What the sampler was, metadata `sampler`. */
static kac_status read_settings(const kac_replay *r, kac_settings *out)
{
    const char *text = kac_tensors_metadata(r->recording, "sampler");
    json_t *json = text != NULL ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
    const char *predictor = json_string_value(json_object_get(json, "predictor"));
    const char *corrector = json_string_value(json_object_get(json, "corrector"));
    double snr = json_number_value(json_object_get(json, "snr"));
    double heat = json_number_value(json_object_get(json, "scale_eps"));
    bool known = predictor != NULL && corrector != NULL && strcmp(corrector, "Langevin") == 0 &&
                 (strcmp(predictor, "Reverse") == 0 || strcmp(predictor, "Euler") == 0) &&
                 json_integer_value(json_object_get(json, "n_steps")) == 1 &&
                 json_number_value(json_object_get(json, "eps")) == 1e-4 && snr > 0 && heat > 0;
    if (known)
        out->process.predictor =
            strcmp(predictor, "Reverse") == 0 ? KAC_PREDICTOR_REVERSE : KAC_PREDICTOR_EULER;
    json_decref(json);
    if (!known)
        return refuse(
            r, "sampler",
            "JSON with predictor Reverse or Euler, corrector Langevin, n_steps 1, eps "
            "1e-4, snr and scale_eps above 0");
    out->process.corrector = KAC_CORRECTOR_LANGEVIN;
    out->process.langevin_together = true;
    out->process.snr = snr;
    out->process.scale_eps = heat;
    return KAC_OK;
}

/* The number after "seed " in metadata `noise`. */
static kac_status read_seed(const kac_replay *r, uint64_t *out)
{
    const char *text = kac_tensors_metadata(r->recording, "noise");
    const char *at = text != NULL ? strstr(text, "seed ") : NULL;
    if (at == NULL || at[5] < '0' || at[5] > '9')
        return refuse(r, "noise", "the seed of the noise, such as `seed 42`");
    *out = strtoull(at + 5, NULL, 10);
    return KAC_OK;
}

/* The number in a name such as "s0500.in.x", between `before` and `after`; -1: it is another. */
static int64_t number_in(const char *name, const char *before, const char *after)
{
    const size_t skip = strlen(before);
    char *end = NULL;
    if (strncmp(name, before, skip) != 0 || name[skip] < '0' || name[skip] > '9') return -1;
    const long long number = strtoll(name + skip, &end, 10);
    return strcmp(end, after) == 0 && number < MOST_POINTS ? number : -1;
}

/* The least number above `last` of such a name in the recording; -1: there is none. */
static int64_t number_after(const kac_replay *r, int64_t last, const char *before,
                            const char *after)
{
    int64_t least = -1;
    for (int i = 0; i < kac_tensors_count(r->recording); i++) {
        const int64_t n = number_in(kac_tensors_at(r->recording, i)->name, before, after);
        if (n > last && (least < 0 || n < least)) least = n;
    }
    return least;
}

/* S, from the times of all points, or from the time of the last step there is. */
static kac_status find_points(const kac_replay *r, int64_t *out)
{
    const int64_t any = -1;
    const kac_tensor *t = NULL;
    int64_t last = -1;
    *out = 0;
    if (kac_tensors_find(r->recording, "t") != NULL) {
        KAC_TRY(kac_replay_find(r, "t", KAC_F32, 1, &any, &t));
        *out = t->shape[0];
    } else {
        char name[NAME];
        for (int64_t n = -1; (n = number_after(r, n, "s", ".in.x")) >= 0;)
            last = n;
        (void)snprintf(name, sizeof name, "s%04lld.t", (long long)last);
        KAC_TRY(kac_replay_find(r, name, KAC_F32, 1, &any, &t));
        const double time = (double)((const float *)t->data)[0];
        if (last > 0 && time < 1) *out = 1 + llround((double)last * (1 - 1e-4) / (1 - time));
    }
    if (*out < 2 || *out > MOST_POINTS)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: tensor `%s` does not give 2 to %d points of time",
                        kac_tensors_path(r->recording), t->name, MOST_POINTS);
    return KAC_OK;
}

/* ---- noise -------------------------------------------------------------------------------- */

static const uint64_t golden = UINT64_C(0x9E3779B97F4A7C15);

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static float number(uint64_t stream, int64_t k)
{
    int64_t sum = -393210;
    for (uint64_t w = 3 * (uint64_t)k; w < 3 * (uint64_t)k + 3; w++) {
        const uint64_t word = mix(stream + (w + 1) * golden);
        for (int piece = 0; piece < 4; piece++)
            sum += (int64_t)(word >> 16 * piece & 0xFFFF);
    }
    return (float)sum / 65536;
}

static uint64_t stream_of(const sampler *s, int64_t step, int move, int part)
{
    return mix(s->seed * golden + (uint64_t)(8 * step + 2 + 2 * (int64_t)move + part));
}

/* The noise of a move, from the seed. */
static void make_noise(sampler *s, int64_t step, int move)
{
    const int64_t nodes = s->shape.nodes, wide = nodes * s->shape.features;
    const uint64_t of_nodes = stream_of(s, step, move, 0);
    const uint64_t of_pairs = stream_of(s, step, move, 1);
    for (int64_t b = 0; b < s->rows; b++) {
        float *to = s->noise + b * s->shape.length;
        *to++ = 0;
        for (int64_t k = 0; k < wide; k++)
            *to++ = number(of_nodes, b * wide + k);
        for (int64_t i = 0; i < nodes; i++)
            for (int64_t j = i + 1; j < nodes; j++)
                *to++ = number(of_pairs, (b * nodes + i) * nodes + j);
    }
}

/* ---- tensors of a step -------------------------------------------------------------------- */

/* The tensor of a part whose name is written like printf's. */
__attribute__((format(printf, 4, 5))) static kac_status
find_part(const sampler *s, int part, const kac_tensor **out, const char *format, ...)
{
    char name[NAME];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    return kac_replay_find_part(s->r, name, part == 1, s->rows, out);
}

/* Compares both parts of rows `row` with tensors [B][N][F] and [B][N][N]. */
static kac_status compare_parts(const sampler *s, const float *row, int64_t stride,
                                const float *t, const kac_tensor *const recorded[2])
{
    for (int part = 0; part < 2; part++) {
        const int64_t size = recorded[part]->shape[1] * recorded[part]->shape[2];
        kac_replay_spread(s->r, row, stride, s->rows, part == 1, t, s->whole);
        KAC_TRY(kac_replay_compare(s->r, s->whole, recorded[part], s->rows, size, size));
    }
    return KAC_OK;
}

/* ---- moves -------------------------------------------------------------------------------- */

static int64_t floats_of_row(const sampler *s)
{
    return s->shape.stride / (int64_t)sizeof(float);
}

static const kac_memory_ops *memory_of(const sampler *s)
{
    return &s->r->dev->ops->memory;
}

/* The batch becomes these states. */
static kac_status set_state(sampler *s, const kac_tensor *const parts[2])
{
    const kac_replay_graphs graphs = {s->rows, parts[0], parts[1], s->flags};
    KAC_TRY(kac_replay_rows(s->r, &graphs, floats_of_row(s), s->state));
    return memory_of(s)->upload(s->r->dev, s->x.x, s->state,
                                (size_t)s->rows * (size_t)s->shape.stride);
}

static kac_status get_state(sampler *s)
{
    return memory_of(s)->download(s->r->dev, s->state, s->x.x,
                                  (size_t)s->rows * (size_t)s->shape.stride);
}

/* A move of a step with s->noise; the answers to the state before it are then in the memo. */
static kac_status make_move(sampler *s, int64_t step, int move)
{
    kac_device *dev = s->r->dev;
    const kac_clock clock = {.level = (int32_t)(2 * (s->points - 1 - step) + 2 - move)};
    const kac_query q = {.tokens = s->x.x,
                         .stride = s->shape.stride,
                         .length = s->shape.length,
                         .capacity = s->rows,
                         .levels = s->device_levels,
                         .clock = s->clock,
                         .out = s->memo.logits,
                         .out_stride = s->shape.length};
    kac_propose_args a = {.shape = s->shape,
                          .levels = s->device_levels,
                          .clock = s->clock,
                          .groups = s->group,
                          .x = &s->x,
                          .memo = &s->memo,
                          .children = 1,
                          .temperature = 1,
                          .noise = {s->given, s->given},
                          .fault = s->fault,
                          .y = &s->y};
    KAC_TRY(memory_of(s)->upload(dev, s->clock, &clock, sizeof clock));
    KAC_TRY(memory_of(s)->upload(dev, s->given, s->noise,
                                 sizeof *s->noise * (size_t)s->rows * (size_t)s->shape.length));
    KAC_TRY(kac_network_ask(s->r->net, &q));
    KAC_TRY(dev->ops->graph.measure(dev, &a, s->norms));
    a.norms = s->norms;
    KAC_TRY(dev->ops->graph.propose(dev, &a));
    uint8_t *old = s->x.x;
    s->x.x = s->y.x;
    s->y.x = old;
    return KAC_OK;
}

/* ---- single steps ------------------------------------------------------------------------- */

/* The time of a step [B], which must be that of the grid. */
static kac_status find_time(const sampler *s, int64_t step, const float **out)
{
    char name[NAME];
    const int64_t shape = s->rows;
    const kac_tensor *t = NULL;
    (void)snprintf(name, sizeof name, "s%04lld.t", (long long)step);
    KAC_TRY(kac_replay_find(s->r, name, KAC_F32, 1, &shape, &t));
    *out = t->data;
    const double want = s->levels[2 * (s->points - 1 - step) + 3].t;
    for (int32_t i = 0; i < s->rows; i++)
        if (!(fabs((double)(*out)[i] - want) < 1e-5))
            return KAC_FAIL(KAC_ERR_INVALID, "%s: tensor `%s` is %g, want %g, of %lld points",
                            kac_tensors_path(s->r->recording), name, (double)(*out)[i], want,
                            (long long)s->points);
    return KAC_OK;
}

/* A move with recorded noise, against the recorded scores before it and the state after it. */
static kac_status replay_move(sampler *s, int64_t step, int move, const float *t)
{
    const char *name = short_names[move];
    const long long i = step;
    const char *mean = move == PREDICTOR && step + 1 == s->points ? "_mean" : "";
    const kac_tensor *score[2], *state[2], *z[2];
    for (int part = 0; part < 2; part++) {
        const char *of = part_names[part];
        KAC_TRY(find_part(s, part, &z[part], "s%04lld.z_raw.%s_%s", i, name, of));
        KAC_TRY(find_part(s, part, &score[part], "s%04lld.%s.score_%s", i, name, of));
        KAC_TRY(find_part(s, part, &state[part], "s%04lld.%s.%s%s", i, name, of, mean));
    }
    for (int64_t b = 0; b < s->rows; b++)
        kac_replay_pack(&s->r->net->graph, z[0]->data, z[1]->data, b,
                        s->noise + b * s->shape.length);
    KAC_TRY(make_move(s, step, move));
    KAC_TRY(
        memory_of(s)->download(s->r->dev, s->answer, s->memo.logits,
                               sizeof *s->answer * (size_t)s->rows * (size_t)s->shape.length));
    KAC_TRY(compare_parts(s, s->answer, s->shape.length, t, score));
    KAC_TRY(get_state(s));
    return compare_parts(s, s->state, floats_of_row(s), NULL, state);
}

static kac_status replay_steps(sampler *s)
{
    for (int64_t step = -1; (step = number_after(s->r, step, "s", ".in.x")) >= 0;) {
        const kac_tensor *in[2];
        const float *t = NULL;
        if (step >= s->points)
            return KAC_FAIL(KAC_ERR_INVALID, "%s: step %lld of %lld",
                            kac_tensors_path(s->r->recording), (long long)step,
                            (long long)s->points);
        KAC_TRY(find_time(s, step, &t));
        for (int part = 0; part < 2; part++)
            KAC_TRY(find_part(s, part, &in[part], "s%04lld.in.%s", (long long)step,
                              part_names[part]));
        KAC_TRY(set_state(s, in));
        for (int move = CORRECTOR; move <= PREDICTOR; move++)
            KAC_TRY(replay_move(s, step, move, t));
    }
    return KAC_OK;
}

/* ---- a trajectory ------------------------------------------------------------------------- */

/* The recorded object of part 0 or 1, the last column of nodes left out, against rounded states. */
static kac_status compare_object(sampler *s, int part)
{
    static const char *const names[2] = {"quant.x_onehot", "quant.adj"};
    const int64_t nodes = s->shape.nodes, width = part == 0 ? s->shape.features : nodes;
    const int64_t shape[3] = {s->rows, nodes, part == 0 ? width + 1 : width};
    const kac_tensor *found = NULL;
    if (kac_tensors_find(s->r->recording, names[part]) == NULL) return KAC_OK;
    KAC_TRY(kac_replay_find(s->r, names[part], KAC_I8, 3, shape, &found));
    float *data = calloc(found->bytes, sizeof *data);
    if (data == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "no memory for `%s`", found->name);
    for (size_t i = 0; i < found->bytes; i++)
        data[i] = ((const int8_t *)found->data)[i];
    kac_tensor recorded = *found;
    recorded.data = data;
    kac_replay_spread(s->r, s->state, floats_of_row(s), s->rows, part == 1, NULL, s->whole);
    kac_status status =
        kac_replay_compare(s->r, s->whole, &recorded, s->rows * nodes, width, shape[2]);
    free(data);
    return status;
}

/* The objects that the batch is nearest to. */
static kac_status replay_objects(sampler *s)
{
    kac_device *dev = s->r->dev;
    const kac_fresh none = {0}; /* every row is wanted, fresh or not */
    const kac_complete_args a = {.shape = s->shape,
                                 .clock = s->clock,
                                 .groups = s->group,
                                 .levels = s->device_levels,
                                 .x = s->x.x,
                                 .memo = &s->memo,
                                 .fresh = &none,
                                 .fault = s->fault,
                                 .n = s->rows,
                                 .batch = s->rows,
                                 .children = 1,
                                 .every_row = 1,
                                 .temperature = 1};
    KAC_TRY(dev->ops->graph.complete(dev, &a, s->y.x));
    KAC_TRY(memory_of(s)->download(dev, s->state, s->y.x,
                                   (size_t)s->rows * (size_t)s->shape.stride));
    for (int part = 0; part < 2; part++)
        KAC_TRY(compare_object(s, part));
    return KAC_OK;
}

/* From the state before step `first` to that before step `end`. */
static kac_status replay_between(sampler *s, int64_t first, int64_t end)
{
    const kac_tensor *from[2], *to[2];
    for (int part = 0; part < 2; part++) {
        const char *of = part_names[part];
        KAC_TRY(find_part(s, part, &from[part], "state.%04lld.%s", (long long)first, of));
        if (end < s->points)
            KAC_TRY(find_part(s, part, &to[part], "state.%04lld.%s", (long long)end, of));
        else
            KAC_TRY(find_part(s, part, &to[part], "final.%s_mean", of));
    }
    KAC_TRY(set_state(s, from));
    for (int64_t step = first; step < end; step++)
        for (int move = CORRECTOR; move <= PREDICTOR; move++) {
            make_noise(s, step, move);
            KAC_TRY(make_move(s, step, move));
        }
    KAC_TRY(get_state(s));
    return compare_parts(s, s->state, floats_of_row(s), NULL, to);
}

static kac_status replay_trajectory(sampler *s)
{
    KAC_TRY(read_seed(s->r, &s->seed));
    s->r->tolerance = 2e-3;
    int64_t first = number_after(s->r, -1, "state.", ".x");
    while (first < s->points) {
        int64_t end = number_after(s->r, first, "state.", ".x");
        if (end < 0 || end > s->points) end = s->points;
        KAC_TRY(replay_between(s, first, end));
        first = end;
    }
    return replay_objects(s);
}

/* ---- coefficients ------------------------------------------------------------------------- */

/* A column of the schedule: of a part, at the levels of its corrector and of its predictor. */
typedef double column_fn(const sampler *s, const kac_graph_part *corrector,
                         const kac_graph_part *predictor);

static double column_g(const sampler *s, const kac_graph_part *corrector,
                       const kac_graph_part *predictor)
{
    (void)s, (void)corrector;
    return sqrt(predictor->push);
}

static double column_f(const sampler *s, const kac_graph_part *corrector,
                       const kac_graph_part *predictor)
{
    (void)s, (void)corrector;
    return 1 - predictor->keep;
}

static double column_alpha(const sampler *s, const kac_graph_part *corrector,
                           const kac_graph_part *predictor)
{
    (void)predictor;
    return corrector->pace / (2 * s->snr * s->snr);
}

static double column_mean(const sampler *s, const kac_graph_part *corrector,
                          const kac_graph_part *predictor)
{
    (void)s, (void)corrector;
    return predictor->scale;
}

static double column_noise(const sampler *s, const kac_graph_part *corrector,
                           const kac_graph_part *predictor)
{
    (void)s, (void)corrector;
    return predictor->noise;
}

static kac_status replay_column(sampler *s, int part, const char *name, column_fn *column)
{
    char full[NAME];
    const kac_tensor *recorded = NULL;
    (void)snprintf(full, sizeof full, "%s.%s", part_names[part], name);
    if (kac_tensors_find(s->r->recording, full) == NULL) return KAC_OK;
    KAC_TRY(kac_replay_find(s->r, full, KAC_F32, 1, &s->points, &recorded));
    float *own = calloc((size_t)s->points, sizeof *own);
    if (own == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "no memory for `%s`", full);
    for (int64_t i = 0; i < s->points; i++) {
        const kac_level *level = s->levels + 2 * (s->points - 1 - i) + 2; /* of the predictor */
        own[i] = (float)column(s, &level[1].graph.part[part], &level[0].graph.part[part]);
    }
    kac_status status = kac_replay_compare(s->r, own, recorded, 1, s->points, s->points);
    free(own);
    return status;
}

static kac_status replay_schedule(sampler *s)
{
    for (int part = 0; part < 2; part++) {
        KAC_TRY(replay_column(s, part, "G", column_g));
        KAC_TRY(replay_column(s, part, "f_factor", column_f));
        KAC_TRY(replay_column(s, part, "alpha", column_alpha));
        KAC_TRY(replay_column(s, part, "mean_factor", column_mean));
        KAC_TRY(replay_column(s, part, "std", column_noise));
        KAC_TRY(replay_column(s, part, "sigma", column_noise));
    }
    return KAC_OK;
}

/* ---- all of it ---------------------------------------------------------------------------- */

/* `bytes` of the device's memory, with what the host has there or zeros; NULL: there is none. */
static void *take(sampler *s, const void *host, size_t bytes)
{
    void *got = memory_of(s)->alloc(s->r->dev, bytes);
    if (got == NULL) return NULL;
    s->device[s->arrays++] = got;
    if (host != NULL && memory_of(s)->upload(s->r->dev, got, host, bytes) != KAC_OK)
        return NULL;
    return got;
}

/* The batch, its memo of as many answers, and one group. */
static kac_status open_device(sampler *s)
{
    const size_t rows = (size_t)s->rows, bytes = rows * (size_t)s->shape.stride;
    const size_t floats = rows * (size_t)s->shape.length * sizeof(float);
    const kac_group group = {.count = s->rows, .alpha = 1, .lambda = 1};
    int32_t *order = calloc(rows, sizeof *order);
    if (order == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "no memory for %d graphs", (int)s->rows);
    for (int32_t i = 0; i < s->rows; i++)
        order[i] = i;
    s->device_levels = take(s, s->levels, sizeof *s->levels * (size_t)(2 * s->points + 2));
    s->clock = take(s, NULL, sizeof *s->clock);
    s->group = take(s, &group, sizeof group);
    s->fault = take(s, NULL, sizeof *s->fault);
    s->given = take(s, NULL, floats);
    s->norms = take(s, NULL, sizeof *s->norms);
    s->x = (kac_particles){.n = s->rows,
                           .stride = s->shape.stride,
                           .x = take(s, NULL, bytes),
                           .entry = take(s, order, rows * sizeof *order),
                           .group = take(s, NULL, rows * sizeof *order)};
    s->y = (kac_particles){.n = s->rows,
                           .stride = s->shape.stride,
                           .x = take(s, NULL, bytes),
                           .ratio = take(s, NULL, rows * sizeof(double)),
                           .entry = take(s, NULL, rows * sizeof *order)};
    s->memo = (kac_memo){.capacity = s->rows,
                         .stride = s->shape.stride,
                         .slots = s->rows,
                         .slot_floats = s->shape.length,
                         .slot = take(s, order, rows * sizeof *order),
                         .order = take(s, order, rows * sizeof *order),
                         .logits = take(s, NULL, floats)};
    free(order);
    const bool all = s->device_levels != NULL && s->clock != NULL && s->group != NULL &&
                     s->fault != NULL && s->given != NULL && s->norms != NULL &&
                     s->x.x != NULL && s->x.entry != NULL && s->x.group != NULL &&
                     s->y.x != NULL && s->y.ratio != NULL && s->y.entry != NULL &&
                     s->memo.slot != NULL && s->memo.order != NULL && s->memo.logits != NULL;
    return all ? KAC_OK : KAC_ERR_NOMEM;
}

/* The batch of a recording of states. */
static kac_status open_batch(sampler *s)
{
    const int64_t shape[2] = {-1, s->shape.nodes};
    KAC_TRY(kac_replay_find(s->r, "flags", KAC_F32, 2, shape, &s->flags));
    if (s->flags->shape[0] > INT32_MAX / 2)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: tensor `flags` is too large",
                        kac_tensors_path(s->r->recording));
    s->rows = (int32_t)s->flags->shape[0];
    const size_t rows = (size_t)s->rows, length = (size_t)s->shape.length;
    s->state = calloc(rows, (size_t)s->shape.stride);
    s->answer = calloc(rows * length, sizeof *s->answer);
    s->noise = calloc(rows * length, sizeof *s->noise);
    s->whole = calloc(rows * (size_t)kac_replay_widest(s->r), sizeof *s->whole);
    if (s->state == NULL || s->answer == NULL || s->noise == NULL || s->whole == NULL)
        return KAC_FAIL(KAC_ERR_NOMEM, "no memory for %d graphs", (int)s->rows);
    return open_device(s);
}

static kac_status open_sampler(sampler *s)
{
    const kac_graph_model *graph = &s->r->net->graph;
    kac_settings settings = {.process.kind = KAC_PROCESS_GRAPH};
    KAC_TRY(read_settings(s->r, &settings));
    KAC_TRY(find_points(s->r, &s->points));
    settings.process.steps = 2 * s->points;
    s->snr = settings.process.snr;
    s->shape = (kac_shape){.length = graph->length,
                           .states = 1,
                           .stride = (graph->length * (int32_t)sizeof(float) + 15) / 16 * 16,
                           .nodes = graph->nodes,
                           .features = graph->features};
    /* A move that arrives at level 0 would round the state, so all are one level up. */
    s->levels = calloc((size_t)(2 * s->points + 2), sizeof *s->levels);
    if (s->levels == NULL)
        return KAC_FAIL(KAC_ERR_NOMEM, "no memory for %lld levels", 2 * (long long)s->points);
    return kac_graph_levels(&settings, graph, s->levels + 1);
}

static bool has_steps(const kac_replay *r)
{
    return number_after(r, -1, "s", ".in.x") >= 0;
}

static bool has_trajectory(const kac_replay *r)
{
    return number_after(r, -1, "state.", ".x") >= 0;
}

bool kac_replay_has_sampler(const kac_replay *r)
{
    return has_steps(r) || has_trajectory(r) || kac_tensors_find(r->recording, "x.G") != NULL;
}

kac_status kac_replay_sampler(kac_replay *r)
{
    sampler s = {.r = r};
    kac_status status = open_sampler(&s);
    const bool steps = has_steps(r);
    if (status == KAC_OK && (steps || has_trajectory(r))) {
        status = open_batch(&s);
        if (status == KAC_OK) status = steps ? replay_steps(&s) : replay_trajectory(&s);
    } else if (status == KAC_OK) {
        status = replay_schedule(&s);
    }
    for (int i = 0; i < s.arrays; i++)
        memory_of(&s)->release(r->dev, s.device[i]);
    free(s.levels);
    free(s.state);
    free(s.answer);
    free(s.noise);
    free(s.whole);
    return status;
}
