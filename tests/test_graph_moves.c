/* test_graph_moves.c -- the operations of the graph process against plain arithmetic: moves, their tilts
 * and gradients, correctors, estimates, the start. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "exact.h"
#include "fault.h"
#include "graph.h"
#include "net_file.h"
#include "on_device.h"
#include "ops.h"
#include "process.h"

static const double z_bound = 5.5;

/* ---- operations --------------------------------------------------------------------------- */

enum { NODES = 4, FEATURES = 2, D = 1 + NODES * FEATURES + NODES * (NODES - 1) / 2 };
enum { STRIDE = 64, N = 3, M = 3000, STEPS = 8 };
static const kac_shape shape = {
    .length = D, .states = 1, .stride = STRIDE, .nodes = NODES, .features = FEATURES};
static const kac_graph_model small = {
    .nodes = NODES,
    .features = FEATURES,
    .length = D,
    .scores = true,
    .noise = {{KAC_NOISE_VP, 0.1, 2}, {KAC_NOISE_VE, 0.2, 1.5}},
};

typedef struct world {
    kac_clock clock;
    kac_level levels[STEPS + 1];
    kac_group group;
    _Alignas(64) uint8_t x[N][STRIDE];
    int32_t x_entry[N], x_group[N], slot[N], order[N], src[N], count;
    float answer[N][D];
    uint8_t *y;
    double *ratio;
    int32_t *entry;
    kac_particles parents, children;
    kac_memo memo;
    kac_fresh fresh;
    kac_fault fault;
    kac_norms norms;
    kac_propose_args propose;
    kac_complete_args complete;
} world;

/* Particle i, of 4, 2 and 1 nodes, at level `level`. */
static void make_world(world *w, int32_t level)
{
    uint64_t seed = 3;
    const kac_settings s = {.process = {.kind = KAC_PROCESS_GRAPH,
                                        .steps = STEPS,
                                        .schedule = KAC_SCHEDULE_MODEL,
                                        .predictor = KAC_PREDICTOR_REVERSE,
                                        .corrector = KAC_CORRECTOR_LANGEVIN,
                                        .snr = 0.2,
                                        .scale_eps = 0.9}};
    *w = (world){.clock = {.level = level - 1, .move = 6}};
    cr_assert_eq(kac_graph_levels(&s, &small, w->levels), KAC_OK, "%s", kac_last_error());
    w->group = (kac_group){.offset = 0, .count = N, .alpha = 1, .lambda = 1};
    for (int i = 0; i < N; i++) {
        float *row = kac_vector_out(w->x[0], i, STRIDE);
        int n = i == 0 ? 4 : i == 1 ? 2 : 1;
        w->x_entry[i] = w->slot[i] = w->order[i] = w->src[i] = i;
        row[0] = (float)n;
        for (int r = 0; r < n; r++) {
            kac_graph_run run = kac_graph_run_at(&shape, n, r);
            for (int l = run.first; l < run.first + run.count; l++) {
                row[l] = 2 * net_file_random(&seed);
                w->answer[i][l] = 2 * net_file_random(&seed);
            }
        }
    }
    w->count = N;
    w->y = ops()->memory.alloc(dev(), (size_t)N * M * STRIDE);
    w->ratio = ops()->memory.alloc(dev(), (size_t)N * M * sizeof(double));
    w->entry = ops()->memory.alloc(dev(), (size_t)N * M * sizeof(int32_t));
    cr_assert(w->y != NULL && w->ratio != NULL && w->entry != NULL);
    w->parents = (kac_particles){
        .n = N, .stride = STRIDE, .x = w->x[0], .entry = w->x_entry, .group = w->x_group};
    w->children = (kac_particles){
        .n = N * M, .stride = STRIDE, .x = w->y, .ratio = w->ratio, .entry = w->entry};
    w->memo = (kac_memo){.capacity = N,
                         .slots = N,
                         .slot_floats = D,
                         .slot = w->slot,
                         .order = w->order,
                         .logits = w->answer[0]};
    w->fresh = (kac_fresh){w->src, w->x_entry, &w->count, N};
    w->propose = (kac_propose_args){.shape = shape,
                                    .levels = w->levels,
                                    .clock = &w->clock,
                                    .groups = &w->group,
                                    .x = &w->parents,
                                    .memo = &w->memo,
                                    .seed = 7,
                                    .children = M,
                                    .fault = &w->fault,
                                    .y = &w->children};
    w->complete = (kac_complete_args){.shape = shape,
                                      .levels = w->levels,
                                      .clock = &w->clock,
                                      .groups = &w->group,
                                      .x = w->x[0],
                                      .entry = w->x_entry,
                                      .memo = &w->memo,
                                      .fresh = &w->fresh,
                                      .fault = &w->fault,
                                      .n = N,
                                      .batch = N,
                                      .children = 1,
                                      .samples = 1};
}

static void drop_world(world *w)
{
    ops()->memory.release(dev(), w->y);
    ops()->memory.release(dev(), w->ratio);
    ops()->memory.release(dev(), w->entry);
}

static bool is_live(int n, int l)
{
    for (int r = 0; r < n; r++) {
        kac_graph_run run = kac_graph_run_at(&shape, n, r);
        if (l >= run.first && l < run.first + run.count) return true;
    }
    return false;
}

static int part_of(int l)
{
    return l > NODES * FEATURES;
}

/* The score that the answer stands for: - answer / b (vp), or the answer (ve). */
static double plain_score(const world *w, int level, int i, int l)
{
    double answer = (double)w->answer[i][l];
    return part_of(l) == 0 ? -answer / w->levels[level].graph.part[0].noise : answer;
}

Test(graph, children_have_the_law_of_the_predictor)
{
    world w;
    make_world(&w, 5); /* point 2 of 4 */
    cr_assert_eq(ops()->graph.propose(dev(), &w.propose), KAC_OK);
    double beta = (0.1 + 2 / 3.0 * 1.9) / 4;
    double high = 0.2 * pow(7.5, 2 / 3.0), low = 0.2 * pow(7.5, 1 / 3.0);
    double square = high * high - low * low;
    for (int i = 0; i < N; i++) {
        const float *x = kac_vector(w.x[0], i, STRIDE);
        for (int l = 1; l < D; l++) {
            bool pair = part_of(l) == 1;
            double s = plain_score(&w, 5, i, l);
            double mean = pair ? (double)x[l] + square * s
                               : (2 - sqrt(1 - beta)) * (double)x[l] + beta * s;
            double spread = sqrt(pair ? square : beta), first = 0, second = 0;
            for (int m = 0; m < M; m++) {
                const float *child = kac_vector(w.y, (int64_t)i * M + m, STRIDE);
                double u = ((double)child[l] - mean) / spread;
                first += u;
                second += u * u - 1;
                if (!is_live((int)x[0], l)) cr_assert_eq(child[l], 0.0F);
                cr_assert_eq(child[0], x[0]);
            }
            if (!is_live((int)x[0], l)) continue;
            cr_expect_lt(fabs(first) / sqrt(M), z_bound, "particle %d number %d", i, l);
            cr_expect_lt(fabs(second) / sqrt(2 * M), z_bound, "particle %d number %d", i, l);
        }
    }
    for (int c = 0; c < N * M; c++)
        cr_assert(w.ratio[c] == 0 && w.entry[c] == -1);
    drop_world(&w);
}

/* Children of the predictor move by spread^2 scale lambda / alpha times the tilt, and their ratio is
 * that of the two laws; what NaN says does not count. */
Test(graph, a_tilt_shifts_the_predictor_and_its_ratio_is_exact)
{
    world w, plain;
    float tilt[N][D];
    int32_t row[N];
    uint64_t seed = 11;
    double total = 0, square = 0;
    make_world(&w, 5);
    make_world(&plain, 5);
    for (int i = 0; i < N; i++) {
        row[i] = N - 1 - i;
        for (int l = 0; l < D; l++)
            tilt[i][l] = 2 * net_file_random(&seed);
    }
    tilt[row[0]][2] = NAN;
    w.group.alpha = 0.5, w.group.lambda = 0.25;
    w.propose.twist = (kac_twist){.tilt = tilt[0], .row = row, .scale = 1.5};
    cr_assert_eq(ops()->graph.propose(dev(), &w.propose), KAC_OK);
    cr_assert_eq(ops()->graph.propose(dev(), &plain.propose), KAC_OK);
    for (int c = 0; c < N * M; c++) {
        const float *y = kac_vector(w.y, c, STRIDE), *base = kac_vector(plain.y, c, STRIDE);
        const float *x = kac_vector(w.x[0], c / M, STRIDE);
        double log_ratio = 0;
        for (int l = 1; l < D; l++) {
            bool pair = part_of(l) == 1;
            double s = plain_score(&w, 5, c / M, l), beta = (0.1 + 2 / 3.0 * 1.9) / 4;
            double high = 0.2 * pow(7.5, 2 / 3.0), low = 0.2 * pow(7.5, 1 / 3.0);
            double variance = pair ? high * high - low * low : beta;
            double mean = pair ? (double)x[l] + variance * s
                               : (2 - sqrt(1 - beta)) * (double)x[l] + beta * s;
            double t = (double)tilt[row[c / M]][l];
            double shift = isnan(t) || !is_live((int)x[0], l) ? 0 : 0.75 * variance * t;
            double e = ((double)y[l] - mean) / sqrt(variance), f = e - shift / sqrt(variance);
            cr_assert_float_eq((double)y[l] - (double)base[l], shift, 1e-5);
            if (shift != 0) log_ratio += 0.5 * (f * f - e * e);
        }
        cr_assert_float_eq(w.ratio[c], log_ratio, 1e-4);
        total += exp(w.ratio[c]) / (N * M);
        square += exp(2 * w.ratio[c]) / (N * M);
    }
    double error = sqrt((square - total * total) / (N * M));
    cr_expect(fabs(total - 1) < z_bound * error, "E of the ratio is %g +- %g", total, error);
    cr_expect_gt(error, 1e-3, "the tilt does something");
    drop_world(&w);
    drop_world(&plain);
}

/* The corrector's step size hangs on its noise, which therefore stays as it is. */
Test(graph, a_corrector_alone_is_not_tilted)
{
    world w, plain;
    float tilt[1][D];
    int32_t row[N] = {0};
    make_world(&w, 6);
    make_world(&plain, 6);
    for (int l = 0; l < D; l++)
        tilt[0][l] = 3;
    w.propose.twist = (kac_twist){.tilt = tilt[0], .row = row, .scale = 1};
    cr_assert_eq(ops()->graph.propose(dev(), &w.propose), KAC_OK);
    cr_assert_eq(ops()->graph.propose(dev(), &plain.propose), KAC_OK);
    cr_expect_eq(memcmp(w.y, plain.y, (size_t)N * M * STRIDE), 0);
    for (int c = 0; c < N * M; c++)
        cr_assert_eq(w.ratio[c], 0);
    drop_world(&w);
    drop_world(&plain);
}

/* d estimate / d (answer or x) of every number, by finite differences. */
static void estimate_slopes(world *w, bool by_answer, double slope[N][D])
{
    static const float h = 0x1p-6F;
    float up[N][D], down[N][D];
    for (int i = 0; i < N; i++)
        for (int l = 1; l < D; l++) {
            float *x = kac_vector_out(w->x[0], i, STRIDE);
            float *number = by_answer ? &w->answer[i][l] : x + l, kept = *number;
            *number = kept + h;
            cr_assert_eq(ops()->graph.soften(dev(), &w->complete, up[0]), KAC_OK);
            *number = kept - h;
            cr_assert_eq(ops()->graph.soften(dev(), &w->complete, down[0]), KAC_OK);
            *number = kept;
            slope[i][l] = ((double)up[i][l] - (double)down[i][l]) / (2 * (double)h);
        }
}

/* Of two levels, of answers that are scores and of those that are estimates. */
Test(graph, gradients_go_through_the_estimate)
{
    for (int level = 2; level <= STEPS; level += 3)
        for (int estimates = 0; estimates < 2; estimates++) {
            world w;
            float g[N][D], input[N][D], found[N][D], tilt[N][D];
            double by_answer[N][D] = {{0}}, by_state[N][D] = {{0}};
            uint64_t seed = 8;
            make_world(&w, level);
            w.clock.level = level;
            for (int p = 0; p < 2 && estimates; p++) {
                kac_graph_part *part = &w.levels[level].graph.part[p];
                part->of_answer = part->scale / (part->noise * part->noise);
                part->of_state = -1 / (part->noise * part->noise);
            }
            for (int i = 0; i < N; i++)
                for (int l = 0; l < D; l++) {
                    g[i][l] = net_file_random(&seed);
                    input[i][l] = net_file_random(&seed);
                }
            estimate_slopes(&w, true, by_answer);
            estimate_slopes(&w, false, by_state);
            kac_slope_args a = {.shape = shape,
                                .levels = w.levels,
                                .clock = &w.clock,
                                .x = w.x[0],
                                .fresh = &w.fresh,
                                .batch = N,
                                .soft = g[0],
                                .reward = g[0],
                                .input = input[0]};
            cr_assert_eq(ops()->graph.slope(dev(), &a, found[0]), KAC_OK);
            cr_assert_eq(ops()->graph.tilt(dev(), &a, tilt[0]), KAC_OK);
            for (int i = 0; i < N; i++)
                for (int l = 0; l < D; l++) {
                    bool live = is_live((int)kac_vector(w.x[0], i, STRIDE)[0], l);
                    double c = (double)g[i][l], u = (double)input[i][l];
                    double want[2] = {live ? by_answer[i][l] * c : 0,
                                      live ? by_state[i][l] * c + u : 0};
                    cr_expect_float_eq((double)found[i][l], want[0], 2e-4 * (1 + fabs(want[0])),
                                       "level %d number %d", level, l);
                    cr_expect_float_eq((double)tilt[i][l], want[1], 2e-4 * (1 + fabs(want[1])),
                                       "level %d number %d", level, l);
                }
            drop_world(&w);
        }
}

/* Norms of the noise and of the score of part p; z [D]. */
static void plain_norms(const world *w, int level, int i, int p, const double *z, double *noise,
                        double *score)
{
    int n = (int)kac_vector(w->x[0], i, STRIDE)[0];
    *noise = *score = 0;
    for (int l = 1; l < D; l++) {
        if (part_of(l) != p || !is_live(n, l)) continue;
        *noise += z[l] * z[l];
        *score += pow(plain_score(w, level, i, l), 2);
    }
    *noise = sqrt(*noise);
    *score = sqrt(*score);
}

/* The corrector's noise of the children, as ops.h says. */
static void draw_noise(double *z)
{
    for (int c = 0; c < N * M; c++)
        for (int l = 0; l < D; l++) {
            double pair[2];
            kac_key key = {.seed = 7,
                           .move = 6,
                           .particle = (uint32_t)(c / M),
                           .child = (uint32_t)(c % M)};
            kac_normals(kac_draw(key, KAC_DRAW_CORRECT, (uint32_t)(l / 2)), pair);
            z[c * D + l] = pair[l % 2];
        }
}

/* All move together. */
static void measure(world *w)
{
    cr_assert_eq(ops()->graph.measure(dev(), &w->propose, &w->norms), KAC_OK);
    cr_expect_eq(w->norms.rows[0], N * M);
    cr_expect_eq(w->norms.rows[1], N);
    w->propose.norms = &w->norms;
}

static void check_corrector(bool together)
{
    world w;
    double *z = malloc((size_t)N * M * D * sizeof *z);
    double all[2][2] = {{0, 0}, {0, 0}}; /* [part][noise, score] */
    cr_assert_not_null(z);
    draw_noise(z);
    make_world(&w, 6);
    if (together) measure(&w);
    cr_assert_eq(ops()->graph.propose(dev(), &w.propose), KAC_OK);
    for (int c = 0; c < N * M; c++)
        for (int p = 0; p < 2; p++) {
            double noise = 0, score = 0;
            plain_norms(&w, 6, c / M, p, z + c * D, &noise, &score);
            all[p][0] += noise / (N * M);
            all[p][1] += score / (N * M);
        }
    for (int c = 0; c < N * M; c++)
        for (int l = 1; l < D; l++) {
            int i = c / M, p = part_of(l);
            double noise = all[p][0], score = all[p][1];
            double x = (double)kac_vector(w.x[0], i, STRIDE)[l];
            if (!is_live((int)kac_vector(w.x[0], i, STRIDE)[0], l)) continue;
            double alpha = p == 0 ? 1 - (0.1 + 2 / 3.0 * 1.9) / 4 : 1;
            if (!together) plain_norms(&w, 6, i, p, z + c * D, &noise, &score);
            double h = score > 0 ? 2 * alpha * pow(0.2 * noise / score, 2) : 0;
            double want = x + h * plain_score(&w, 6, i, l) + sqrt(2 * h) * z[c * D + l] * 0.9;
            double found = (double)kac_vector(w.y, c, STRIDE)[l];
            cr_assert(fabs(found - want) < 2e-6 * (1 + fabs(want)),
                      "child %d number %d: %.9g, want %.9g", c, l, found, want);
        }
    free(z);
    drop_world(&w);
}

Test(graph, corrector_of_each_particle)
{
    check_corrector(false);
}

Test(graph, corrector_of_the_batch)
{
    check_corrector(true);
}

/* x = a x_0 + b e, answered with e (vp) or - e / b (ve): the estimate is x_0, of either noise. */
Test(graph, estimates_undo_the_noise)
{
    for (int level = 1; level <= STEPS; level++) {
        world w;
        float x0[N][D] = {{0}}, soft[N][D];
        _Alignas(64) uint8_t object[N][STRIDE];
        uint64_t seed = 5;
        int point = (level - 1) / 2;
        make_world(&w, level + 1 <= STEPS ? level + 1 : STEPS);
        w.clock.level = level;
        for (int i = 0; i < N; i++) {
            float *row = kac_vector_out(w.x[0], i, STRIDE);
            for (int l = 1; l < D; l++) {
                double t = 1e-4 + point / 3.0 * (1 - 1e-4);
                double a = part_of(l) ? 1 : exp(-(0.1 * t + 1.9 * t * t / 2) / 2);
                double b = part_of(l) ? 0.2 * pow(7.5, point / 3.0) : sqrt(1 - a * a);
                float e = net_file_random(&seed);
                if (!is_live((int)row[0], l)) continue;
                x0[i][l] = 3 * net_file_random(&seed);
                row[l] = (float)(a * (double)x0[i][l] + b * (double)e);
                w.answer[i][l] = (float)(part_of(l) ? -(double)e / b : (double)e);
            }
            x0[i][0] = row[0];
        }
        cr_assert_eq(ops()->graph.soften(dev(), &w.complete, soft[0]), KAC_OK);
        cr_assert_eq(ops()->graph.complete(dev(), &w.complete, object[0]), KAC_OK);
        for (int i = 0; i < N; i++) {
            for (int l = 0; l < D; l++)
                cr_expect_float_eq((double)soft[i][l], (double)x0[i][l], 2e-5,
                                   "level %d row %d number %d", level, i, l);
            kac_graph_round_row(&shape, soft[i]);
            cr_expect_arr_eq(soft[i], kac_vector(object[0], i, STRIDE), D * sizeof(float),
                             "level %d", level);
        }
        drop_world(&w);
    }
}

Test(graph, the_last_move_is_an_object_and_states_have_one)
{
    world w;
    make_world(&w, 1);
    cr_assert_eq(ops()->graph.propose(dev(), &w.propose), KAC_OK);
    for (int i = 0; i < N; i++) {
        const float *x = kac_vector(w.x[0], i, STRIDE), *first = kac_vector(w.y, i * M, STRIDE);
        float want[D] = {x[0]};
        for (int l = 1; l < D; l++)
            if (is_live((int)x[0], l))
                want[l] = (float)(part_of(l) ? (double)x[l] + 0.04 * plain_score(&w, 1, i, l)
                                             : (2 - sqrt(1 - 0.025)) * (double)x[l] +
                                                   0.025 * plain_score(&w, 1, i, l));
        kac_graph_round_row(&shape, want);
        cr_expect_arr_eq(first, want, D * sizeof(float), "particle %d", i);
        for (int m = 1; m < M; m++)
            cr_assert_arr_eq(first, kac_vector(w.y, i * M + m, STRIDE), D * sizeof(float));
    }
    _Alignas(64) uint8_t object[N][STRIDE];
    w.complete.entry = NULL;
    w.complete.every_row = 1;
    cr_assert_eq(ops()->graph.complete(dev(), &w.complete, object[0]), KAC_OK);
    for (int i = 0; i < N; i++) {
        kac_graph_round_row(&shape, kac_vector_out(w.x[0], i, STRIDE));
        cr_expect_eq(memcmp(object[i], w.x[i], STRIDE), 0, "particle %d", i);
    }
    drop_world(&w);
}

Test(graph, an_answer_that_is_no_number_is_a_fault)
{
    world w;
    make_world(&w, 4);
    w.answer[1][2] = NAN;
    cr_assert_eq(ops()->graph.propose(dev(), &w.propose), KAC_OK);
    kac_trouble t = kac_fault_read(w.fault);
    cr_expect(t.kind == KAC_FAULT_NAN && t.slot == 1 && t.term == -1 && t.move == 6);
    w.fault.number = 0;
    _Alignas(64) uint8_t object[N][STRIDE];
    cr_assert_eq(ops()->graph.complete(dev(), &w.complete, object[0]), KAC_OK);
    t = kac_fault_read(w.fault);
    cr_expect(t.kind == KAC_FAULT_NAN && t.slot == 1);
    drop_world(&w);
}

/* ---- the start ---------------------------------------------------------------------------- */

Test(graph, chains_start_from_noise_of_drawn_sizes)
{
    enum { ROWS = 20000 };
    world w;
    make_world(&w, STEPS);
    uint64_t law[NODES];
    int32_t *group = calloc(ROWS, sizeof *group);
    uint8_t *x = ops()->memory.alloc(dev(), (size_t)ROWS * STRIDE);
    double sizes[NODES + 1] = {0}, sum[2] = {0, 0}, square[2] = {0, 0}, n[2] = {0, 0};
    cr_assert(group != NULL && x != NULL);
    cr_assert_eq(kac_graph_counts("4:1,2:2,1:1", NODES, law), KAC_OK);
    w.clock.level = STEPS;
    w.group.count = ROWS;
    kac_start_args a = {.shape = shape,
                        .levels = w.levels,
                        .clock = &w.clock,
                        .groups = &w.group,
                        .group = group,
                        .nodes = law,
                        .seed = 9,
                        .n = ROWS};
    cr_assert_eq(ops()->graph.start(dev(), &a, x), KAC_OK);
    for (int i = 0; i < ROWS; i++) {
        const float *row = kac_vector(x, i, STRIDE);
        sizes[(int)row[0]]++;
        for (int l = 1; l < D; l++) {
            double z = (double)row[l] / (part_of(l) ? 1.5 : 1); /* sigma_max */
            if (!is_live((int)row[0], l)) cr_assert_eq(row[l], 0.0F);
            if (!is_live((int)row[0], l)) continue;
            n[part_of(l)]++;
            sum[part_of(l)] += z;
            square[part_of(l)] += z * z - 1;
        }
    }
    static const double share[NODES + 1] = {0, 0.25, 0.5, 0, 0.25};
    for (int k = 0; k <= NODES; k++)
        cr_expect(fabs(sizes[k] - share[k] * ROWS) <=
                      z_bound * sqrt(ROWS * share[k] * (1 - share[k])),
                  "%g of %d nodes", sizes[k], k);
    for (int p = 0; p < 2; p++) {
        cr_expect_lt(fabs(sum[p]) / sqrt(n[p]), z_bound);
        cr_expect_lt(fabs(square[p]) / sqrt(2 * n[p]), z_bound);
    }
    free(group);
    ops()->memory.release(dev(), x);
    drop_world(&w);
}

Test(graph, numbers_of_nodes_are_read)
{
    static const char *const good[] = {"", "7", "7:2", "3:1,4:0.5", "3,4:0", "1:.5,2:1e3"};
    static const char *const bad[] = {"x",  "0",   "3:",  "3:-1",  "3,",  "3:1,,4",
                                      ",3", "3:0", "3;4", "3:inf", "3 4", "3.5"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        cr_expect(kac_graph_reads_counts(good[i]), "%s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_expect(!kac_graph_reads_counts(bad[i]), "%s", bad[i]);
    uint64_t law[4];
    cr_assert_eq(kac_graph_counts("3:1,1:3", 4, law), KAC_OK);
    cr_expect(law[0] == UINT64_C(3) << 30 && law[1] == law[0]);
    cr_expect(law[2] == UINT64_C(1) << 32 && law[3] == law[2]);
    cr_expect_eq(kac_graph_counts("3:1,5:3", 4, law), KAC_ERR_INVALID);
    cr_expect_neq(strstr(kac_last_error(), "graphs of 5 nodes; the model's have at most 4"),
                  NULL, "%s", kac_last_error());
}
