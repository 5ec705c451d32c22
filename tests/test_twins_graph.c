/* test_twins_graph.c -- the graph process on the build's device against the CPU, byte for byte. */
#include <math.h>

#include "graph.h"
#include "process.h"
#include "twins.h"

TestSuite(twins_graph, .init = need_device);

enum { STEPS = 8, HELD = 40 };

typedef struct extent {
    int32_t nodes, features, particles, children;
} extent;

/* How the particles of a world move. */
typedef struct manner {
    kac_predictor predictor;
    kac_corrector corrector;
    bool scores, together, odd, tilted; /* odd: answers and tilts have NaN */
} manner;

/* The same world in the memory of one twin. */
typedef struct side {
    void *held[HELD];
    size_t n;
    kac_clock *clock;
    kac_level *levels;
    kac_group *groups;
    int32_t *live, *group;
    uint64_t *law;
    kac_fault *fault;
    kac_norms *norms;
    uint8_t *out;
    float *soft, *numbers, *tilt; /* [n][length]; of what goes backwards, and of the tilt */
    kac_particles x, y;
    kac_memo memo;
    kac_fresh fresh;
} side;

typedef struct world {
    extent size;
    manner how;
    kac_shape shape;
    kac_graph_model model;
    int32_t rows; /* children of all particles */
    size_t bytes; /* of those rows, and of what complete writes */
    dice dice;
    side side[TWINS];
} world;

/* ---- a world ------------------------------------------------------------------------------ */

static void *put(side *s, int k, const void *host, size_t n)
{
    cr_assert_lt(s->n, HELD);
    return s->held[s->n++] = twin_put(k, host, n);
}

static float roll_float(dice *d)
{
    return (float)roll(d, 1 << 20) / (1 << 18) - 2;
}

/* Graphs of 1 to N nodes, the first of N. */
static void fill_rows(world *w, uint8_t *rows)
{
    for (int32_t i = 0; i < w->size.particles; i++) {
        float *row = kac_vector_out(rows, i, w->shape.stride);
        int32_t n = 1 + (int32_t)roll(&w->dice, (uint32_t)w->size.nodes);
        if (i == 0) n = w->size.nodes;
        row[0] = (float)n;
        for (int32_t l = 1; l < w->shape.length; l++)
            if (kac_graph_part_at(&w->shape, n, l) >= 0) row[l] = roll_float(&w->dice);
    }
}

/* Answers, of which about every third row has a NaN. */
static void fill_answers(world *w, float *answers)
{
    int32_t length = w->shape.length;
    for (int32_t i = 0; i < w->size.particles; i++) {
        for (int32_t l = 0; l < length; l++)
            answers[i * length + l] = l > 0 ? roll_float(&w->dice) : 0;
        if (w->how.odd && i > 0 && roll(&w->dice, 3) == 0)
            answers[i * length + (int32_t)roll(&w->dice, (uint32_t)length)] = NAN;
    }
}

static void put_levels(world *w)
{
    kac_level levels[STEPS + 1];
    uint64_t law[64];
    kac_settings s = {.process = {.kind = KAC_PROCESS_GRAPH,
                                  .steps = STEPS,
                                  .schedule = KAC_SCHEDULE_MODEL,
                                  .predictor = w->how.predictor,
                                  .corrector = w->how.corrector,
                                  .snr = 0.2,
                                  .scale_eps = 0.9}};
    w->model = (kac_graph_model){.nodes = w->size.nodes,
                                 .features = w->size.features,
                                 .length = w->shape.length,
                                 .scores = w->how.scores,
                                 .noise = {{KAC_NOISE_VP, 0.1, 1}, {KAC_NOISE_VE, 0.2, 1}}};
    ok(kac_graph_levels(&s, &w->model, levels));
    for (int32_t n = 0; n < w->size.nodes; n++)
        law[n] = n + 1 < w->size.nodes ? (uint64_t)(n + 1) << 26 : (uint64_t)1 << 32;
    for (int k = 0; k < TWINS; k++) {
        side *a = &w->side[k];
        a->levels = put(a, k, levels, sizeof levels);
        a->law = put(a, k, law, (size_t)w->size.nodes * sizeof *law);
        a->clock = put(a, k, NULL, sizeof *a->clock);
        a->fault = put(a, k, NULL, sizeof *a->fault);
        a->norms = put(a, k, NULL, sizeof *a->norms);
    }
}

/* Two groups, the first of a third of the particles. */
static void put_particles(world *w)
{
    int32_t n = w->size.particles, stride = w->shape.stride, first = n / 3;
    uint8_t *rows = calloc((size_t)n, (size_t)stride);
    int32_t *group = calloc((size_t)n + 1, sizeof *group);
    kac_group groups[2] = {
        {.offset = 0, .count = first, .id = 4, .alpha = 0.5, .lambda = 0.25},
        {.offset = first, .count = n - first, .id = 9, .alpha = 2, .lambda = 1}};
    size_t numbers = (size_t)n * (size_t)w->shape.length * sizeof(float);
    float *tilt = malloc(numbers);
    cr_assert(rows != NULL && group != NULL && tilt != NULL);
    fill_rows(w, rows);
    fill_answers(w, tilt);
    for (int32_t i = first; i < n; i++)
        group[i] = 1;
    for (int k = 0; k < TWINS; k++) {
        side *a = &w->side[k];
        a->groups = put(a, k, groups, sizeof groups);
        a->group = put(a, k, group, (size_t)n * sizeof *group);
        a->live = put(a, k, NULL, sizeof *a->live);
        a->x = (kac_particles){.n = n,
                               .stride = stride,
                               .x = put(a, k, rows, (size_t)n * (size_t)stride),
                               .group = a->group};
        a->y = (kac_particles){.n = w->rows,
                               .stride = stride,
                               .x = put(a, k, NULL, w->bytes),
                               .ratio = put(a, k, NULL, (size_t)w->rows * sizeof(double)),
                               .entry = put(a, k, NULL, (size_t)w->rows * sizeof(int32_t))};
        a->out = put(a, k, NULL, w->bytes);
        a->soft = put(a, k, NULL, numbers);
        a->numbers = put(a, k, tilt, numbers);
        a->tilt = put(a, k, tilt, numbers);
    }
    free(tilt);
    free(rows);
    free(group);
}

/* Every particle has an entry of its own, in no order; every other one is fresh. */
static void put_memo(world *w)
{
    int32_t n = w->size.particles, count = (n + 1) / 2;
    int32_t *a = calloc(5 * (size_t)n, sizeof *a);
    int32_t *entry = a, *slot = a + n, *order = a + 2 * n, *src = a + 3 * n, *fresh = a + 4 * n;
    float *answers = calloc((size_t)n * (size_t)w->shape.length, sizeof *answers);
    cr_assert(a != NULL && answers != NULL);
    fill_answers(w, answers);
    for (int32_t i = 0; i < n; i++) {
        entry[i] = n - 1 - i;
        slot[i] = (int32_t)((int64_t)(i + 1) * 7919 % n); /* 7919 is prime */
        order[n - 1 - i] = i % 2 == 0 ? i / 2 : -1;
        if (i % 2 == 0) src[i / 2] = i, fresh[i / 2] = entry[i];
    }
    size_t bytes = (size_t)n * sizeof *a;
    for (int k = 0; k < TWINS; k++) {
        side *s = &w->side[k];
        s->x.entry = put(s, k, entry, bytes);
        s->memo = (kac_memo){.capacity = n,
                             .slots = n,
                             .slot_floats = w->shape.length,
                             .slot = put(s, k, slot, bytes),
                             .order = put(s, k, order, bytes)};
        s->memo.logits =
            put(s, k, answers, (size_t)n * (size_t)w->shape.length * sizeof *answers);
        s->fresh = (kac_fresh){.src = put(s, k, src, bytes),
                               .entry = put(s, k, fresh, bytes),
                               .count = put(s, k, &count, sizeof count),
                               .capacity = n};
    }
    free(a);
    free(answers);
}

static void make_world(world *w, extent size, manner how, uint64_t seed)
{
    int32_t length = 1 + size.nodes * size.features + size.nodes * (size.nodes - 1) / 2;
    *w = (world){.size = size,
                 .how = how,
                 .shape = {.length = length,
                           .states = 1,
                           .stride = (4 * length + 15) / 16 * 16,
                           .nodes = size.nodes,
                           .features = size.features},
                 .rows = size.particles * size.children,
                 .dice = {.seed = seed}};
    w->bytes = (size_t)w->rows * (size_t)w->shape.stride;
    put_levels(w);
    put_particles(w);
    put_memo(w);
}

static void drop_world(world *w)
{
    for (int k = 0; k < TWINS; k++)
        twin_drop(k, w->side[k].held, w->side[k].n);
}

/* Sets the clock and how many particles are in use, and clears what operations write. */
static void set_clock(world *w, int32_t level, int32_t live)
{
    kac_clock clock = {.level = level, .move = 3 + STEPS - level};
    kac_fault none = {0};
    uint8_t *marks = malloc(w->bytes + 8 * (size_t)w->rows);
    cr_assert_not_null(marks);
    memset(marks, 0x4d, w->bytes + 8 * (size_t)w->rows);
    for (int k = 0; k < TWINS; k++) {
        side *s = &w->side[k];
        const kac_memory_ops *op = &twin(k)->ops->memory;
        ok(op->upload(twin(k), s->clock, &clock, sizeof clock));
        ok(op->upload(twin(k), s->fault, &none, sizeof none));
        ok(op->upload(twin(k), s->live, &live, sizeof live));
        ok(op->upload(twin(k), s->y.x, marks, w->bytes));
        ok(op->upload(twin(k), s->out, marks, w->bytes));
        ok(op->upload(twin(k), s->y.ratio, marks, (size_t)w->rows * sizeof(double)));
        ok(op->upload(twin(k), s->y.entry, marks, (size_t)w->rows * sizeof(int32_t)));
    }
    free(marks);
}

/* ---- twins -------------------------------------------------------------------------------- */

/* Fails where floats differ; NaN is NaN, whatever its bits. */
static void equal_floats(const world *w, const void *cpu, const void *device, size_t bytes,
                         const char *what, int32_t level)
{
    uint32_t *a = malloc(bytes), *b = malloc(bytes);
    cr_assert(a != NULL && b != NULL);
    twin_get(0, a, cpu, bytes);
    twin_get(1, b, device, bytes);
    for (size_t i = 0; i < bytes / sizeof *a; i++) {
        bool both_nan = (a[i] & 0x7fffffff) > 0x7f800000 && (b[i] & 0x7fffffff) > 0x7f800000;
        cr_assert(a[i] == b[i] || both_nan,
                  "%s of %d particles, %d nodes, %d features, level %d: row %zu differs at %zu",
                  what, w->size.particles, w->size.nodes, w->size.features, level,
                  i / ((size_t)w->shape.stride / 4), i % ((size_t)w->shape.stride / 4));
    }
    free(a);
    free(b);
}

static void check_fault(const world *w, int32_t level)
{
    twins_equal(w->side[0].fault, w->side[1].fault, sizeof(kac_fault), "the fault", level);
}

static void check_start(world *w)
{
    set_clock(w, STEPS, w->size.particles);
    for (int k = 0; k < TWINS; k++) {
        side *s = &w->side[k];
        kac_start_args a = {.shape = w->shape,
                            .levels = s->levels,
                            .clock = s->clock,
                            .groups = s->groups,
                            .group = s->group,
                            .nodes = s->law,
                            .seed = 11,
                            .n = w->size.particles};
        ok(twin(k)->ops->graph.start(twin(k), &a, s->out));
    }
    equal_floats(w, w->side[0].out, w->side[1].out, w->bytes, "start", STEPS);
}

static void check_propose(world *w, int32_t level, int32_t live)
{
    set_clock(w, level, live);
    for (int k = 0; k < TWINS; k++) {
        side *s = &w->side[k];
        s->x.live = live < w->size.particles ? s->live : NULL;
        kac_propose_args a = {.shape = w->shape,
                              .levels = s->levels,
                              .clock = s->clock,
                              .groups = s->groups,
                              .x = &s->x,
                              .memo = &s->memo,
                              .seed = 12,
                              .children = w->size.children,
                              .fault = s->fault,
                              .y = &s->y};
        if (w->how.tilted)
            a.twist = (kac_twist){.tilt = s->tilt, .row = s->x.entry, .scale = 0.75};
        if (w->how.together) {
            ok(twin(k)->ops->graph.measure(twin(k), &a, s->norms));
            a.norms = s->norms;
        }
        ok(twin(k)->ops->graph.propose(twin(k), &a));
    }
    side *cpu = &w->side[0], *device = &w->side[1];
    equal_floats(w, cpu->y.x, device->y.x, w->bytes, "propose", level);
    twins_equal(cpu->y.entry, device->y.entry, (size_t)w->rows * sizeof(int32_t), "entries",
                level);
    twins_equal(cpu->y.ratio, device->y.ratio, (size_t)w->rows * sizeof(double), "ratios",
                level);
    twins_equal(cpu->norms, device->norms, sizeof *cpu->norms, "norms", level);
    check_fault(w, level);
}

/* Windows of fresh rows, all rows at hand, and what the rows themselves are nearest to. */
typedef enum question { WINDOW, SECOND_WINDOW, EVERY_ROW, NO_ENTRY, QUESTIONS } question;

static void check_complete(world *w, int32_t level, question which)
{
    int32_t n = w->size.particles, half = (n + 3) / 4;
    set_clock(w, level, n);
    for (int k = 0; k < TWINS; k++) {
        side *s = &w->side[k];
        kac_complete_args a = {.shape = w->shape,
                               .clock = s->clock,
                               .groups = s->groups,
                               .levels = s->levels,
                               .x = s->x.x,
                               .entry = which == NO_ENTRY ? NULL : s->x.entry,
                               .memo = &s->memo,
                               .fresh = &s->fresh,
                               .fault = s->fault,
                               .n = n,
                               .live = which == EVERY_ROW ? s->live : NULL,
                               .first = which == SECOND_WINDOW ? half : 0,
                               .batch = half,
                               .children = n % 3 == 0 ? 3 : 1,
                               .samples = 1,
                               .every_row = which >= EVERY_ROW};
        ok(twin(k)->ops->graph.complete(twin(k), &a, s->out));
        if (which < EVERY_ROW) ok(twin(k)->ops->graph.soften(twin(k), &a, s->soft));
    }
    side *cpu = &w->side[0], *device = &w->side[1];
    equal_floats(w, cpu->out, device->out, w->bytes, "complete", level);
    equal_floats(w, cpu->soft, device->soft, (size_t)n * (size_t)w->shape.length * 4, "soften",
                 level);
    check_fault(w, level);
}

/* Gradients of the estimates or of the states, the latter without a way through the denoiser. */
static void check_gradients(world *w, int32_t level, bool softened)
{
    int32_t n = w->size.particles, half = (n + 3) / 4;
    size_t bytes = (size_t)n * (size_t)w->shape.length * sizeof(float);
    set_clock(w, level, n);
    for (int k = 0; k < TWINS; k++) {
        side *s = &w->side[k];
        kac_slope_args a = {.shape = w->shape,
                            .levels = s->levels,
                            .clock = s->clock,
                            .x = s->x.x,
                            .fresh = &s->fresh,
                            .first = softened ? half / 2 : 0,
                            .batch = half,
                            .soft = softened ? s->soft : NULL,
                            .reward = s->numbers,
                            .input = softened ? s->numbers : NULL};
        if (softened) ok(twin(k)->ops->graph.slope(twin(k), &a, s->soft));
        ok(twin(k)->ops->graph.tilt(twin(k), &a, s->tilt));
    }
    side *cpu = &w->side[0], *device = &w->side[1];
    equal_floats(w, cpu->soft, device->soft, bytes, "slope", level);
    equal_floats(w, cpu->tilt, device->tilt, bytes, "tilt", level);
}

static void check_world(extent size, manner how)
{
    static world w;
    make_world(&w, size, how, 5);
    check_start(&w);
    for (int32_t level = 0; level < STEPS; level += level == 1 ? STEPS - 3 : 1)
        check_propose(&w, level, level == 1 ? (size.particles + 1) / 2 : size.particles);
    for (int32_t level = 1; level < STEPS; level += 5)
        for (question q = WINDOW; q < QUESTIONS; q++)
            check_complete(&w, level, q);
    for (int32_t level = 1; level < STEPS; level++)
        check_gradients(&w, level, level % 3 > 0);
    drop_world(&w);
}

/* Rows of one number to rows of more pairs than a block has threads. */
static const extent sizes[] = {{1, 1, 1, 1},  {2, 1, 5, 3},  {3, 10, 33, 2}, {9, 4, 7, 7},
                               {16, 2, 3, 5}, {38, 9, 5, 2}, {40, 3, 2, 1},  {5, 3, 700, 2}};

static void check_worlds(manner how)
{
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        check_world(sizes[i], how);
}

Test(twins_graph, correctors_of_each_particle)
{
    check_worlds(
        (manner){KAC_PREDICTOR_REVERSE, KAC_CORRECTOR_LANGEVIN, true, false, false, false});
}

Test(twins_graph, correctors_of_the_batch)
{
    check_worlds(
        (manner){KAC_PREDICTOR_REVERSE, KAC_CORRECTOR_LANGEVIN, true, true, false, false});
    check_worlds((manner){KAC_PREDICTOR_S4, KAC_CORRECTOR_LANGEVIN, true, true, false, false});
}

Test(twins_graph, predictors_alone)
{
    check_worlds((manner){KAC_PREDICTOR_EULER, KAC_CORRECTOR_NONE, false, false, false, false});
}

Test(twins_graph, tilted_predictors)
{
    check_worlds(
        (manner){KAC_PREDICTOR_REVERSE, KAC_CORRECTOR_LANGEVIN, true, false, false, true});
    check_worlds((manner){KAC_PREDICTOR_S4, KAC_CORRECTOR_LANGEVIN, false, false, false, true});
}

Test(twins_graph, answers_that_are_no_numbers)
{
    check_worlds((manner){KAC_PREDICTOR_S4, KAC_CORRECTOR_LANGEVIN, true, false, true, true});
    check_worlds(
        (manner){KAC_PREDICTOR_REVERSE, KAC_CORRECTOR_LANGEVIN, true, true, true, false});
}
