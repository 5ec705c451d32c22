/* test_graph.c -- the graph process: levels, rows, objects; and single steps of the published sampler,
 * recorded (shared/data/gdss_golden).  Its operations are in test_graph_moves.c. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "graph.h"
#include "net_file.h"
#include "network.h"
#include "process.h"
#include "safetensors.h"

#define GOLDEN "../shared/data/gdss_golden/zinc250k_"

/* ---- settings and levels ----------------------------------------------------------------- */

static kac_settings settings_of(int64_t steps, kac_predictor predictor, kac_corrector corrector)
{
    kac_settings s = {.process = {.kind = KAC_PROCESS_GRAPH,
                                  .steps = steps,
                                  .schedule = KAC_SCHEDULE_MODEL,
                                  .predictor = predictor,
                                  .corrector = corrector,
                                  .snr = 0.2,
                                  .scale_eps = 0.9}};
    return s;
}

/* The published noise of ZINC250k. */
static const kac_graph_model zinc = {
    .nodes = 38,
    .features = 9,
    .length = 1 + 38 * 9 + 38 * 37 / 2,
    .scores = true,
    .noise = {{KAC_NOISE_VP, 0.1, 1}, {KAC_NOISE_VE, 0.2, 1}},
};

static const kac_tensor *tensor(const kac_tensors *file, const char *name)
{
    const kac_tensor *t = kac_tensors_find(file, name);
    cr_assert_not_null(t, "%s", name);
    return t;
}

static kac_tensors *open_golden(const char *path)
{
    kac_tensors *file = NULL;
    if (access(path, R_OK) != 0) cr_skip_test("%s is absent", path);
    cr_assert_eq(kac_tensors_open(path, &file), KAC_OK, "%s", kac_last_error());
    return file;
}

static bool near(double a, double b, double relative)
{
    return fabs(a - b) <= relative * fabs(b) + 1e-12;
}

Test(graph, levels_are_the_published_grid)
{
    enum { POINTS = 1000 };
    static kac_level levels[2 * POINTS + 1];
    kac_tensors *file = open_golden(GOLDEN "schedule.safetensors");
    kac_settings s = settings_of(2 * POINTS, KAC_PREDICTOR_REVERSE, KAC_CORRECTOR_LANGEVIN);
    cr_assert_eq(kac_graph_levels(&s, &zinc, levels), KAC_OK, "%s", kac_last_error());
    const float *t = tensor(file, "t")->data, *g[2], *f[2], *std[2];
    const float *alpha = tensor(file, "x.alpha")->data,
                *sigma = tensor(file, "adj.sigma")->data;
    static const char *const parts[] = {"x", "adj"};
    for (int p = 0; p < 2; p++) {
        char name[32];
        snprintf(name, sizeof name, "%s.G", parts[p]);
        g[p] = tensor(file, name)->data;
        snprintf(name, sizeof name, "%s.f_factor", parts[p]);
        f[p] = tensor(file, name)->data;
        snprintf(name, sizeof name, "%s.std", parts[p]);
        std[p] = tensor(file, name)->data;
    }
    for (int i = 0; i < POINTS; i++) {
        int k = 2 * (POINTS - 1 - i) + 2;
        const kac_graph_level *corrector = &levels[k].graph, *predictor = &levels[k - 1].graph;
        cr_assert(corrector->corrects && !predictor->corrects);
        cr_expect(near(levels[k].t, (double)t[i], 1e-5) && levels[k - 1].t == levels[k].t);
        cr_expect(near(corrector->part[0].pace, 2 * (double)alpha[i] * 0.04, 1e-6));
        cr_expect(near(corrector->part[1].pace, 2 * 0.04, 1e-6));
        cr_expect(near(predictor->part[1].noise, (double)sigma[i], 1e-5), "step %d", i);
        for (int p = 0; p < 2; p++) {
            const kac_graph_part *part = &predictor->part[p];
            double square = (double)g[p][i] * (double)g[p][i];
            cr_expect(near(part->push, square, 2e-4), "step %d part %d: %g %g", i, p,
                      part->push, square);
            cr_expect(near(part->keep, 1 - (double)f[p][i], 1e-6), "step %d part %d", i, p);
            cr_expect(near(part->spread, i + 1 < POINTS ? (double)g[p][i] : 0, 1e-4));
            cr_expect(near(part->noise, (double)std[p][i], 2e-3), "step %d part %d: %g %g", i,
                      p, part->noise, (double)std[p][i]);
        }
    }
    kac_tensors_close(file);
}

/* Half the grid without a corrector is the same grid. */
Test(graph, without_a_corrector_every_level_is_a_point)
{
    enum { POINTS = 6 };
    kac_level both[2 * POINTS + 1], alone[POINTS + 1];
    kac_settings s = settings_of(2 * POINTS, KAC_PREDICTOR_REVERSE, KAC_CORRECTOR_LANGEVIN);
    cr_assert_eq(kac_graph_levels(&s, &zinc, both), KAC_OK);
    s = settings_of(POINTS, KAC_PREDICTOR_REVERSE, KAC_CORRECTOR_NONE);
    cr_assert_eq(kac_graph_levels(&s, &zinc, alone), KAC_OK);
    for (int n = 0; n < POINTS; n++) {
        cr_expect(!alone[n + 1].graph.corrects);
        cr_expect_eq(alone[n + 1].t, both[2 * n + 1].t);
        for (int p = 0; p < 2; p++) {
            const kac_graph_part *a = &alone[n + 1].graph.part[p],
                                 *b = &both[2 * n + 1].graph.part[p];
            cr_expect(a->noise == b->noise && a->keep == b->keep && a->push == b->push &&
                          a->spread == b->spread && a->of_answer == b->of_answer,
                      "point %d", n);
        }
    }
}

/* The Euler step of the reverse equation, Song et al. 2021: -f + g^2 s over a time 1 / S. */
Test(graph, euler_steps_the_reverse_equation)
{
    enum { POINTS = 10 };
    kac_level levels[POINTS + 1];
    kac_settings s = settings_of(POINTS, KAC_PREDICTOR_EULER, KAC_CORRECTOR_NONE);
    cr_assert_eq(kac_graph_levels(&s, &zinc, levels), KAC_OK);
    for (int n = 0; n < POINTS; n++) {
        double t = 1e-4 + n / (POINTS - 1.0) * (1 - 1e-4), beta = 0.1 + t * 0.9;
        double sigma = 0.2 * pow(5, t), g = sigma * sqrt(2 * log(5));
        const kac_graph_part *x = &levels[n + 1].graph.part[0],
                             *a = &levels[n + 1].graph.part[1];
        cr_expect(near(x->keep, 1 + beta / 2 / POINTS, 1e-12));
        cr_expect(near(x->push, beta / POINTS, 1e-12));
        cr_expect(near(x->spread, n > 0 ? sqrt(beta / POINTS) : 0, 1e-12));
        cr_expect(a->keep == 1 && near(a->push, g * g / POINTS, 1e-12));
        cr_expect(near(a->spread, n > 0 ? g / sqrt(POINTS) : 0, 1e-12));
    }
}

/* b(t), and the integral of b from t - h to t, of vp 0.1 1. */
static double integral(double t, double h)
{
    return 0.1 * h + 0.9 * (t * t - (t - h) * (t - h)) / 2;
}

/* Half of the forward kernel, the score's part, the other half (Jo et al. 2022, algorithm 1). */
Test(graph, s4_splits_symmetrically)
{
    enum { POINTS = 10 };
    kac_level levels[POINTS + 1];
    kac_settings s = settings_of(POINTS, KAC_PREDICTOR_S4, KAC_CORRECTOR_LANGEVIN);
    cr_assert_eq(kac_graph_levels(&s, &zinc, levels), KAC_OK);
    for (int n = 0; n < POINTS; n++) {
        double t = 1e-4 + n / (POINTS - 1.0) * (1 - 1e-4), h = 0.5 / POINTS;
        double first = exp(integral(t, h) / 2), second = exp(integral(t - h, h) / 2);
        double v1 = 1 - exp(-integral(t, h)), v2 = n > 0 ? 1 - exp(-integral(t - h, h)) : 0;
        double sigma[3], beta = 0.1 + 0.9 * t;
        for (int k = 0; k < 3; k++)
            sigma[k] = 0.2 * pow(5, t - k * h);
        const kac_graph_part *x = &levels[n + 1].graph.part[0],
                             *a = &levels[n + 1].graph.part[1];
        cr_expect(levels[n + 1].graph.corrects);
        cr_expect(near(x->pace, 0.08 * (1 - (0.1 + n / 9.0 * 0.9) / POINTS), 1e-12));
        cr_expect(near(x->keep, first * second, 1e-12));
        cr_expect(near(x->push, second * beta / POINTS, 1e-12));
        cr_expect(near(x->spread, sqrt(second * second * v1 + v2), 1e-9), "point %d", n);
        cr_expect(a->keep == 1 && near(a->pace, 0.08, 1e-12));
        cr_expect(near(a->push, 2 * log(5) * sigma[0] * sigma[0] / POINTS, 1e-12));
        double left = n > 0 ? sigma[2] : sigma[1];
        cr_expect(near(a->spread, sqrt(sigma[0] * sigma[0] - left * left), 1e-9));
    }
}

Test(graph, too_few_points_for_the_noise_are_refused)
{
    kac_level levels[3];
    kac_graph_model steep = zinc;
    steep.noise[0] = (kac_noise){KAC_NOISE_VP, 0.1, 20};
    kac_settings s = settings_of(2, KAC_PREDICTOR_REVERSE, KAC_CORRECTOR_NONE);
    cr_expect_eq(kac_graph_levels(&s, &steep, levels), KAC_ERR_INVALID);
    cr_expect_neq(strstr(kac_last_error(), "want 20 or more"), NULL, "%s", kac_last_error());
}

/* ---- rows -------------------------------------------------------------------------------- */

Test(graph, runs_are_the_live_numbers_of_a_row)
{
    enum { NODES = 7, FEATURES = 3, LENGTH = 1 + NODES * FEATURES + NODES * (NODES - 1) / 2 };
    kac_shape shape = {.length = LENGTH, .nodes = NODES, .features = FEATURES};
    for (int n = 1; n <= NODES; n++) {
        int want[LENGTH], found[LENGTH]; /* 0: dead, 1: of nodes, 2: of pairs */
        int at = 1;
        want[0] = 0;
        memset(found, 0, sizeof found);
        for (int i = 0; i < NODES; i++)
            for (int f = 0; f < FEATURES; f++)
                want[at++] = i < n;
        for (int i = 0; i < NODES; i++)
            for (int j = i + 1; j < NODES; j++)
                want[at++] = i < n && j < n ? 2 : 0;
        cr_assert_eq(at, LENGTH);
        for (int r = 0; r < n; r++) {
            kac_graph_run run = kac_graph_run_at(&shape, n, r);
            for (int l = run.first; l < run.first + run.count; l++)
                found[l] += 1 + run.part;
        }
        cr_expect_eq(memcmp(want, found, sizeof want), 0, "%d nodes", n);
        for (int l = 0; l < LENGTH + 3; l++)
            cr_expect_eq(kac_graph_part_at(&shape, n, l), l < LENGTH ? want[l] - 1 : -1,
                         "%d nodes, number %d", n, l);
    }
}

Test(graph, objects_are_rounded_as_published)
{
    float node[][3] = {{0.4F, 0.7F, 0.9F}, {0.5F, 0.2F, 0.5F}, {-3, 0.51F, -1}, {2, 3, 4}};
    const float want[][3] = {{0, 1, 0}, {0, 0, 0}, {0, 1, 0}, {1, 0, 0}};
    for (int i = 0; i < 4; i++) {
        kac_graph_round_node(node[i], 3);
        for (int f = 0; f < 3; f++)
            cr_expect_eq(node[i][f], want[i][f], "node %d", i);
    }
    const float pair[][2] = {{-2, 0},   {0.49F, 0}, {0.5F, 1}, {1.49F, 1},
                             {1.5F, 2}, {2.49F, 2}, {2.5F, 3}, {9, 3}};
    for (int i = 0; i < 8; i++)
        cr_expect_eq(kac_graph_round_pair(pair[i][0]), pair[i][1], "%g", (double)pair[i][0]);
}

/* Graph b of a recording, nodes x [B][N][F] and pairs a [B][N][N], with n nodes. */
static void read_row(const float *x, const float *a, int b, int n, float *row)
{
    int at = 1;
    const int nodes = zinc.nodes, features = zinc.features;
    memset(row, 0, (size_t)zinc.length * sizeof *row);
    row[0] = (float)n;
    for (int i = 0; i < nodes; i++)
        for (int f = 0; f < features; f++, at++)
            if (i < n) row[at] = x[(b * nodes + i) * features + f];
    for (int i = 0; i < nodes; i++)
        for (int j = i + 1; j < nodes; j++, at++)
            if (j < n) row[at] = a[(b * nodes + i) * nodes + j];
}

static int count_nodes(const kac_tensors *file, int b)
{
    const float *flags = tensor(file, "flags")->data;
    int n = 0;
    for (int i = 0; i < zinc.nodes; i++)
        n += flags[b * zinc.nodes + i] > 0.5F;
    return n;
}

static const kac_shape zinc_shape = {.length = 1 + 38 * 9 + 38 * 37 / 2,
                                     .states = 1,
                                     .stride = 4192,
                                     .nodes = 38,
                                     .features = 9};
enum { LENGTH = 1 + 38 * 9 + 38 * 37 / 2, BATCH = 8 };

Test(graph, recorded_objects_are_rounded_alike)
{
    kac_tensors *file = open_golden(GOLDEN "traj.safetensors");
    const float *x = tensor(file, "final.x_mean")->data;
    const float *a = tensor(file, "final.adj_mean")->data;
    const int8_t *atom = tensor(file, "quant.x_onehot")->data;
    const int8_t *bond = tensor(file, "quant.adj")->data;
    for (int b = 0; b < BATCH; b++) {
        float row[LENGTH];
        int n = count_nodes(file, b), at = 1;
        read_row(x, a, b, n, row);
        kac_graph_round_row(&zinc_shape, row);
        for (int i = 0; i < 38; i++)
            for (int f = 0; f < 9; f++)
                cr_expect_eq((int)row[at++], atom[(b * 38 + i) * 10 + f], "graph %d node %d", b,
                             i);
        for (int i = 0; i < 38; i++)
            for (int j = i + 1; j < 38; j++)
                cr_expect_eq((int)row[at++], bond[(b * 38 + i) * 38 + j], "graph %d", b);
    }
    kac_tensors_close(file);
}

/* ---- recorded steps ----------------------------------------------------------------------- */

/* The batch of steps' tensors sNNNN.<prefix>x<suffix> and sNNNN.<prefix>adj<suffix>. */
static void read_batch(const kac_tensors *file, int step, const char *prefix,
                       const char *suffix, float rows[BATCH][LENGTH])
{
    char name[80];
    const float *data[2];
    for (int p = 0; p < 2; p++) {
        snprintf(name, sizeof name, "s%04d.%s%s%s", step, prefix, p == 0 ? "x" : "adj", suffix);
        data[p] = tensor(file, name)->data;
    }
    for (int b = 0; b < BATCH; b++)
        read_row(data[0], data[1], b, count_nodes(file, b), rows[b]);
}

/* Answers that give these scores; `level` says how. */
static void answers_of(const kac_graph_level *level, float rows[BATCH][LENGTH])
{
    for (int b = 0; b < BATCH; b++) {
        int n = (int)rows[b][0];
        for (int r = 0; r < n; r++) {
            kac_graph_run run = kac_graph_run_at(&zinc_shape, n, r);
            for (int l = run.first; l < run.first + run.count; l++)
                rows[b][l] = (float)((double)rows[b][l] / level->part[run.part].of_answer);
        }
        rows[b][0] = 0;
    }
}

/* max |a - b| / max |b| of both parts. */
static double worst_of(float a[BATCH][LENGTH], float b[BATCH][LENGTH])
{
    double worst = 0;
    for (int p = 0; p < 2; p++) {
        double off = 0, most = 0;
        for (int i = 0; i < BATCH; i++)
            for (int l = p == 0 ? 1 : 1 + 38 * 9; l < (p == 0 ? 1 + 38 * 9 : LENGTH); l++) {
                off = fmax(off, fabs((double)a[i][l] - (double)b[i][l]));
                most = fmax(most, fabs((double)b[i][l]));
            }
        worst = fmax(worst, off / most);
    }
    return worst;
}

/* Moves the batch by the kernel's own row functions, the noise given. */
static void move_batch(const kac_graph_level *level, float x[BATCH][LENGTH],
                       float answer[BATCH][LENGTH], float z[BATCH][LENGTH])
{
    double noise[2] = {0, 0}, score[2] = {0, 0}, step[2];
    for (int b = 0; b < BATCH; b++) {
        double own[2];
        kac_graph_noise_norms(&zinc_shape, z[b], own);
        for (int p = 0; p < 2; p++)
            noise[p] += own[p] / BATCH;
        kac_graph_norms(&zinc_shape, level->part, x[b], answer[b], own);
        for (int p = 0; p < 2; p++)
            score[p] += own[p] / BATCH;
    }
    for (int p = 0; p < 2; p++)
        step[p] = level->corrects ? kac_graph_step(&level->part[p], noise[p], score[p]) : 0;
    for (int b = 0; b < BATCH; b++)
        if (level->corrects) {
            kac_graph_drift_row(&zinc_shape, level, x[b], answer[b], step, z[b]);
        } else {
            float child[LENGTH] = {x[b][0]};
            kac_graph_drift_row(&zinc_shape, level, x[b], answer[b], step, child);
            for (int l = 1; l < LENGTH; l++)
                z[b][l] =
                    kac_graph_diffuse(&level->part[l > 38 * 9], child[l], (double)z[b][l]);
        }
}

Test(graph, recorded_steps_of_the_published_sampler)
{
    enum { POINTS = 1000 };
    static kac_level levels[2 * POINTS + 1];
    static float x[BATCH][LENGTH], score[BATCH][LENGTH], z[BATCH][LENGTH], want[BATCH][LENGTH];
    static const int steps[] = {0, 500, 990, 999};
    kac_tensors *file = open_golden(GOLDEN "steps.safetensors");
    kac_settings s = settings_of(2 * POINTS, KAC_PREDICTOR_REVERSE, KAC_CORRECTOR_LANGEVIN);
    cr_assert_eq(kac_graph_levels(&s, &zinc, levels), KAC_OK);
    for (int i = 0; i < 4; i++) {
        const kac_graph_level *corrector = &levels[2 * (POINTS - 1 - steps[i]) + 2].graph;
        const kac_graph_level *predictor = &levels[2 * (POINTS - 1 - steps[i]) + 1].graph;
        read_batch(file, steps[i], "in.", "", x);
        read_batch(file, steps[i], "corr.score_", "", score);
        read_batch(file, steps[i], "z_raw.corr_", "", z);
        read_batch(file, steps[i], "corr.", "", want);
        answers_of(corrector, score);
        move_batch(corrector, x, score, z);
        double off = worst_of(z, want);
        cr_expect_lt(off, 1e-5, "step %d: the corrector is %.3g off", steps[i], off);

        read_batch(file, steps[i], "corr.", "", x);
        read_batch(file, steps[i], "pred.score_", "", score);
        read_batch(file, steps[i], "z_raw.pred_", "", z);
        read_batch(file, steps[i], "pred.", steps[i] < POINTS - 1 ? "" : "_mean", want);
        answers_of(predictor, score);
        move_batch(predictor, x, score, z);
        off = worst_of(z, want);
        cr_expect_lt(off, 1e-5, "step %d: the predictor is %.3g off", steps[i], off);
    }
    kac_tensors_close(file);
}
