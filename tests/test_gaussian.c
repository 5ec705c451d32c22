/* test_gaussian.c -- the Gaussian process: levels, numbers, moves, completions; its networks. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "fault.h"
#include "gaussian.h"
#include "net_file.h"
#include "network.h"
#include "on_device.h"
#include "ops.h"
#include "process.h"

/* |z| stays below this with probability 1 - 1e-6 for some tens of numbers. */
static const double z_bound = 5.5;

/* Whether any of n numbers is another. */
static bool differ(const float *a, const float *b, int n)
{
    for (int i = 0; i < n; i++)
        if (a[i] != b[i]) return true;
    return false;
}

/* ---- levels ----------------------------------------------------------------------------- */

enum { STEPS = 10 };

static kac_settings settings_of(kac_schedule schedule, double eta, int order)
{
    kac_settings s = {.process = {.kind = KAC_PROCESS_GAUSSIAN,
                                  .steps = STEPS,
                                  .schedule = schedule,
                                  .beta_min = 0.1,
                                  .beta_max = 20,
                                  .sigma_min = 0.02,
                                  .sigma_max = 30,
                                  .rho = 7,
                                  .eta = eta,
                                  .anneal = 1,
                                  .order = order,
                                  .sigma_data = 0.5}};
    return s;
}

static void fill_levels(kac_level *levels, kac_schedule schedule, double eta, int order)
{
    kac_settings s = settings_of(schedule, eta, order);
    cr_assert_eq(kac_gaussian_levels(&s, levels), KAC_OK, "%s", kac_last_error());
}

/* Scale and noise of level k in plain arithmetic. */
static void plain_level(kac_schedule schedule, int k, double *scale, double *noise)
{
    double i = STEPS - k, n = STEPS, t = k / n; /* i counts from the noise */
    *scale = 1;
    if (k == 0) {
        *noise = 0;
    } else if (schedule == KAC_SCHEDULE_VP) {
        double abar = exp(-(0.1 * t + 0.5 * (20 - 0.1) * t * t));
        *scale = sqrt(abar);
        *noise = sqrt(1 - abar);
    } else if (schedule == KAC_SCHEDULE_VE) {
        *noise = 0.02 * pow(30 / 0.02, (double)(k - 1) / (STEPS - 1));
    } else {
        double a = pow(30, 1 / 7.0), b = pow(0.02, 1 / 7.0);
        *noise = pow(a + i / (n - 1) * (b - a), 7);
    }
}

Test(gaussian, levels_are_the_published_grids)
{
    static const kac_schedule schedules[] = {KAC_SCHEDULE_VP, KAC_SCHEDULE_VE,
                                             KAC_SCHEDULE_EDM};
    for (int s = 0; s < 3; s++) {
        kac_level levels[STEPS + 1];
        fill_levels(levels, schedules[s], 1, 1);
        for (int k = 0; k <= STEPS; k++) {
            double scale = 0, noise = 0;
            plain_level(schedules[s], k, &scale, &noise);
            const kac_gaussian_level *g = &levels[k].gaussian;
            cr_expect_float_eq(g->scale, scale, 1e-13 * scale, "schedule %d level %d", s, k);
            cr_expect_float_eq(g->noise, noise, 1e-12 * noise, "schedule %d level %d", s, k);
            cr_expect_float_eq((double)levels[k].sigma, noise / scale, 1e-6 * noise / scale);
            double guess = 0.5 * noise / sqrt(0.25 * scale * scale + noise * noise);
            cr_expect_float_eq(g->guess, guess, 1e-12, "completions of level %d", k);
        }
    }
}

/* Ho et al. 2020, equations 6 and 7, with alpha-bar of the vp grid. */
Test(gaussian, eta_1_is_the_ancestral_move)
{
    kac_level levels[STEPS + 1];
    fill_levels(levels, KAC_SCHEDULE_VP, 1, 1);
    for (int k = 1; k <= STEPS; k++) {
        double a = 0, b = 0, scale = 0, noise = 0;
        plain_level(KAC_SCHEDULE_VP, k, &scale, &noise);
        a = scale * scale; /* alpha-bar_t */
        plain_level(KAC_SCHEDULE_VP, k - 1, &scale, &noise);
        b = scale * scale; /* alpha-bar_{t-1} */
        double beta = 1 - a / b;
        const kac_gaussian_level *g = &levels[k].gaussian;
        cr_expect_float_eq(g->pull, sqrt(b) * beta / (1 - a), 1e-11, "level %d", k);
        cr_expect_float_eq(g->keep, sqrt(a / b) * (1 - b) / (1 - a), 1e-11, "level %d", k);
        cr_expect_float_eq(g->spread, sqrt((1 - b) / (1 - a) * beta), 1e-11, "level %d", k);
        cr_expect_eq(g->extrapolate, 0);
    }
}

/* Song, Meng and Ermon 2021, equation 12 with equation 16, in the noise estimate. */
Test(gaussian, any_eta_is_the_move_of_ddim)
{
    static const double etas[] = {0, 0.3, 1};
    for (int e = 0; e < 3; e++) {
        kac_level levels[STEPS + 1];
        fill_levels(levels, KAC_SCHEDULE_EDM, etas[e], 1);
        for (int k = 1; k <= STEPS; k++) {
            double scale = 0, high = 0, low = 0;
            plain_level(KAC_SCHEDULE_EDM, k, &scale, &high);
            plain_level(KAC_SCHEDULE_EDM, k - 1, &scale, &low);
            const kac_gaussian_level *g = &levels[k].gaussian;
            double x = 1.7, d = -0.4, noise = (x - d) / high;
            double v = etas[e] * etas[e] * low * low * (high * high - low * low) / high / high;
            cr_expect_float_eq(g->keep * x + g->pull * d, d + sqrt(low * low - v) * noise,
                               1e-11 * (1 + high), "eta %g level %d", etas[e], k);
            cr_expect_float_eq(g->spread * g->spread, v, 1e-11 * high, "eta %g level %d",
                               etas[e], k);
        }
    }
}

/* Lu et al. 2022, algorithm 2: r = h_{i-1} / h_i of log signal to noise. */
Test(gaussian, order_2_looks_back_but_at_the_ends)
{
    kac_level levels[STEPS + 1];
    fill_levels(levels, KAC_SCHEDULE_VP, 0, 2);
    double lambda[STEPS + 1];
    for (int k = 1; k <= STEPS; k++) {
        double scale = 0, noise = 0;
        plain_level(KAC_SCHEDULE_VP, k, &scale, &noise);
        lambda[k] = log(scale / noise);
    }
    cr_expect_eq(levels[STEPS].gaussian.extrapolate, 0);
    cr_expect_eq(levels[1].gaussian.extrapolate, 0);
    for (int k = 2; k < STEPS; k++) {
        double r = (lambda[k] - lambda[k + 1]) / (lambda[k - 1] - lambda[k]);
        cr_expect_float_eq(levels[k].gaussian.extrapolate, 1 / (2 * r), 1e-9, "level %d", k);
    }
}

Test(gaussian, levels_whose_noise_does_not_fall_are_refused)
{
    kac_level levels[STEPS + 1];
    kac_settings s = settings_of(KAC_SCHEDULE_EDM, 1, 1);
    s.process.sigma_min = s.process.sigma_max;
    cr_expect_eq(kac_gaussian_levels(&s, levels), KAC_ERR_INVALID);
    cr_expect_neq(strstr(kac_last_error(), "level 2 of 10"), NULL, "%s", kac_last_error());
    s.process.steps = 1;
    cr_expect_eq(kac_gaussian_levels(&s, levels), KAC_OK, "one level has one noise");
}

/* ---- numbers ---------------------------------------------------------------------------- */

Test(gaussian, numbers_are_standard_normal)
{
    enum { DRAWS = 400000, MOMENTS = 8 };
    /* E of z, z^2, z^3, z^4, of a pair z0 z1, z0^2 z1^2, and P(|z| < 1), P(z > 2.5) */
    static const double exact[MOMENTS] = {
        0, 1, 0, 3, 0, 1, 0.682689492137086, 0.00620966532577613};
    double sum[MOMENTS] = {0}, square[MOMENTS] = {0};
    kac_key key = {.seed = 5, .move = 1};
    for (int i = 0; i < DRAWS; i++) {
        double z[2];
        key.particle = (uint32_t)i;
        kac_normals(kac_draw(key, KAC_DRAW_PROPOSE, 3), z);
        for (int j = 0; j < 2; j++) {
            double a = z[j], pair = z[0] * z[1];
            double phi[MOMENTS] = {a,    a * a,       a * a * a,   a * a * a * a,
                                   pair, pair * pair, fabs(a) < 1, a > 2.5};
            for (int m = 0; m < MOMENTS; m++) {
                sum[m] += phi[m];
                square[m] += phi[m] * phi[m];
            }
        }
    }
    double n = 2 * DRAWS;
    for (int m = 0; m < MOMENTS; m++) {
        double mean = sum[m] / n, error = sqrt((square[m] / n - mean * mean) / n);
        if (m == 4 || m == 5) error *= sqrt(2); /* each pair counted twice */
        cr_expect(fabs(mean - exact[m]) < z_bound * error, "moment %d: %g +- %g, exact %g", m,
                  mean, error, exact[m]);
    }
    double z[2]; /* the ends of the uniform numbers are finite */
    kac_normals((kac_u32x4){{0, 0, 0, 0}}, z);
    cr_expect(z[0] > 8.5 && z[0] < 8.6 && z[1] == 0, "%g %g", z[0], z[1]);
    kac_normals((kac_u32x4){{UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX}}, z);
    cr_expect(z[0] == 0 && z[1] == 0, "%g %g", z[0], z[1]);
}

/* ---- moves ------------------------------------------------------------------------------ */

enum { D = 3, STRIDE = 32, GROUPS = 2, EACH = 2, N = GROUPS * EACH, M = 4000 };

/* Particles at level 5 of 10, each with its own state and estimates. */
typedef struct world {
    kac_clock clock;
    kac_level levels[STEPS + 1];
    kac_group groups[GROUPS];
    _Alignas(64) uint8_t x[N][STRIDE];
    int32_t x_entry[N], x_group[N], slot[N], order[N], src[N], count, row[N];
    float estimate[N][D], tilt[N][D];
    uint8_t *y;
    double *ratio;
    int32_t *entry;
    kac_particles parents, children;
    kac_memo memo;
    kac_fresh fresh;
    kac_fault fault;
    kac_propose_args propose;
    kac_complete_args complete;
} world;

static void make_world(world *w, double eta, int order)
{
    uint64_t seed = 11;
    *w = (world){.clock = {.level = 4, .move = 6}};
    fill_levels(w->levels, KAC_SCHEDULE_EDM, eta, order);
    for (int g = 0; g < GROUPS; g++)
        w->groups[g] = (kac_group){
            .offset = g * EACH, .count = EACH, .id = g, .alpha = 0.5 + g, .lambda = 0.75};
    for (int i = 0; i < N; i++) {
        float row[2 * D];
        w->x_entry[i] = N - 1 - i;
        w->x_group[i] = i / EACH;
        w->slot[N - 1 - i] = i;
        w->order[i] = w->src[i] = w->row[i] = i;
        for (int l = 0; l < D; l++) {
            row[l] = 3 * net_file_random(&seed);
            row[D + l] = net_file_random(&seed);
            w->estimate[i][l] = net_file_random(&seed);
            w->tilt[i][l] = net_file_random(&seed);
        }
        memcpy(w->x[i], row, sizeof row);
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
                         .logits = w->estimate[0]};
    w->fresh = (kac_fresh){w->src, w->x_entry, &w->count, N};
    w->propose = (kac_propose_args){.shape = {D, 1, STRIDE, 0, 0},
                                    .levels = w->levels,
                                    .clock = &w->clock,
                                    .groups = w->groups,
                                    .x = &w->parents,
                                    .memo = &w->memo,
                                    .seed = 7,
                                    .children = M,
                                    .look_back = order == 2,
                                    .fault = &w->fault,
                                    .y = &w->children};
    w->complete = (kac_complete_args){.shape = {D, 1, STRIDE, 0, 0},
                                      .levels = w->levels,
                                      .clock = &w->clock,
                                      .groups = w->groups,
                                      .x = w->x[0],
                                      .entry = w->x_entry,
                                      .group = w->x_group,
                                      .memo = &w->memo,
                                      .fresh = &w->fresh,
                                      .fault = &w->fault,
                                      .seed = 7,
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

/* The mean of number l of a child of particle i, in plain arithmetic of noise estimates. */
static double plain_mean(const world *w, double eta, int order, int i, int l)
{
    double scale = 0, high = 0, low = 0, above = 0, d = (double)w->estimate[i][l];
    const float *row = kac_vector(w->x[0], i, STRIDE);
    plain_level(KAC_SCHEDULE_EDM, 6, &scale, &above);
    plain_level(KAC_SCHEDULE_EDM, 5, &scale, &high);
    plain_level(KAC_SCHEDULE_EDM, 4, &scale, &low);
    double r = log(above / high) / log(high / low);
    if (order == 2) d += (d - (double)row[D + l]) / (2 * r);
    double v = eta * eta * low * low * (1 - low * low / high / high);
    return d + sqrt(low * low - v) * ((double)row[l] - d) / high;
}

static double plain_spread(double eta)
{
    double scale = 0, high = 0, low = 0;
    plain_level(KAC_SCHEDULE_EDM, 5, &scale, &high);
    plain_level(KAC_SCHEDULE_EDM, 4, &scale, &low);
    return eta * low * sqrt(1 - low * low / high / high);
}

/* Standard errors by which the children's means, variances and covariances are off. */
static double worst_of_children(const world *w, int i, const double *mean, double spread)
{
    double worst = 0;
    for (int l = 0; l < D; l++)
        for (int k = l; k < D; k++) {
            double first = 0, second = 0;
            for (int m = 0; m < M; m++) {
                const float *child = kac_vector(w->y, (int64_t)i * M + m, STRIDE);
                double u = ((double)child[l] - mean[l]) / spread;
                double v = ((double)child[k] - mean[k]) / spread;
                first += u;
                second += u * v - (l == k);
            }
            worst = fmax(worst, fabs(first) / sqrt(M));
            worst = fmax(worst, fabs(second) / sqrt(M * (l == k ? 2 : 1)));
        }
    return worst;
}

Test(gaussian, children_have_the_law_of_the_move)
{
    static const struct {
        double eta;
        int order;
    } cases[] = {{1, 1}, {0.4, 1}, {1, 2}, {0.4, 2}};
    for (int c = 0; c < 4; c++) {
        world w;
        make_world(&w, cases[c].eta, cases[c].order);
        cr_assert_eq(ops()->gaussian.propose(dev(), &w.propose), KAC_OK);
        for (int i = 0; i < N; i++) {
            double mean[D];
            for (int l = 0; l < D; l++)
                mean[l] = plain_mean(&w, cases[c].eta, cases[c].order, i, l);
            double z = worst_of_children(&w, i, mean, plain_spread(cases[c].eta));
            cr_expect_lt(z, z_bound, "eta %g order %d: particle %d is %.1f off", cases[c].eta,
                         cases[c].order, i, z);
        }
        for (int i = 0; i < N * M; i++)
            cr_assert(w.ratio[i] == 0 && w.entry[i] == -1);
        drop_world(&w);
    }
}

Test(gaussian, children_remember_the_estimate_only_in_order_2)
{
    for (int order = 1; order <= 2; order++) {
        world w;
        make_world(&w, 1, order);
        cr_assert_eq(ops()->gaussian.propose(dev(), &w.propose), KAC_OK);
        for (int i = 0; i < N; i++)
            for (int l = 0; l < D; l++)
                cr_expect_eq(kac_vector(w.y, (int64_t)i * M + 5, STRIDE)[D + l],
                             order == 2 ? w.estimate[i][l] : 0.0F);
        w.clock.level = 0; /* the last move: the estimate, and nothing beside it */
        cr_assert_eq(ops()->gaussian.propose(dev(), &w.propose), KAC_OK);
        for (int i = 0; i < N; i++) {
            const float *child = kac_vector(w.y, (int64_t)i * M + 5, STRIDE);
            for (int l = 0; l < D; l++)
                cr_expect(child[l] == w.estimate[i][l] && child[D + l] == 0.0F);
        }
        drop_world(&w);
    }
}

Test(gaussian, eta_0_draws_nothing)
{
    world w;
    make_world(&w, 0, 1);
    cr_assert_eq(ops()->gaussian.propose(dev(), &w.propose), KAC_OK);
    for (int i = 0; i < N; i++) {
        const uint8_t *first = w.y + (size_t)i * M * STRIDE;
        for (int m = 1; m < M; m++)
            cr_assert_eq(memcmp(first, first + (size_t)m * STRIDE, STRIDE), 0);
        for (int l = 0; l < D; l++)
            cr_expect_float_eq((double)kac_vector(first, 0, STRIDE)[l],
                               plain_mean(&w, 0, 1, i, l), 1e-6);
    }
    drop_world(&w);
}

Test(gaussian, a_tilt_shifts_the_mean_and_its_ratio_is_exact)
{
    world w, plain;
    double scale = 1.5, spread = plain_spread(1);
    make_world(&w, 1, 1);
    make_world(&plain, 1, 1);
    w.propose.twist = (kac_twist){.tilt = w.tilt[0], .row = w.row, .scale = scale};
    cr_assert_eq(ops()->gaussian.propose(dev(), &w.propose), KAC_OK);
    cr_assert_eq(ops()->gaussian.propose(dev(), &plain.propose), KAC_OK);
    for (int i = 0; i < N; i++) {
        int group = i / EACH;
        double sum = 0, square = 0, strength = scale * 0.75 / (0.5 + group);
        for (int m = 0; m < M; m++) {
            int64_t c = (int64_t)i * M + m;
            const float *y = kac_vector(w.y, c, STRIDE), *base = kac_vector(plain.y, c, STRIDE);
            double log_ratio = 0;
            for (int l = 0; l < D; l++) {
                double mean = plain_mean(&w, 1, 1, i, l);
                double shift = strength * spread * spread * (double)w.tilt[i][l];
                double e = ((double)y[l] - mean) / spread, f = e - shift / spread;
                log_ratio += 0.5 * (f * f - e * e);
                cr_assert_float_eq((double)y[l] - (double)base[l], shift, 1e-5);
            }
            cr_assert_float_eq(w.ratio[c], log_ratio, 1e-5);
            sum += exp(w.ratio[c]);
            square += exp(2 * w.ratio[c]);
        }
        double mean = sum / M, error = sqrt((square / M - mean * mean) / M);
        cr_expect(fabs(mean - 1) < z_bound * error, "E of the ratio is %g +- %g", mean, error);
        cr_expect_gt(error, 1e-3, "the tilt does something");
    }
    w.tilt[0][1] = NAN; /* counts as 0 */
    cr_assert_eq(ops()->gaussian.propose(dev(), &w.propose), KAC_OK);
    cr_expect_eq(kac_vector(w.y, 7, STRIDE)[1], kac_vector(plain.y, 7, STRIDE)[1]);
    drop_world(&w);
    drop_world(&plain);
}

Test(gaussian, a_nan_of_the_denoiser_is_noted)
{
    world w;
    make_world(&w, 1, 1);
    w.estimate[2][1] = w.estimate[3][0] = NAN;
    cr_assert_eq(ops()->gaussian.propose(dev(), &w.propose), KAC_OK);
    cr_expect(kac_fault_read(w.fault).kind == KAC_FAULT_NAN &&
              kac_fault_read(w.fault).slot == 2 &&
              kac_fault_read(w.fault).move == w.clock.move);
    uint8_t out[N][STRIDE];
    w.fault = (kac_fault){0};
    cr_assert_eq(ops()->gaussian.complete(dev(), &w.complete, out[0]), KAC_OK);
    cr_expect(kac_fault_read(w.fault).kind == KAC_FAULT_NAN &&
              kac_fault_read(w.fault).slot == 2 && kac_fault_read(w.fault).term == -1);
    drop_world(&w);
}

/* ---- noise and completions -------------------------------------------------------------- */

/* Standard errors by which n x D numbers (at `rows`) are off N(0, spread^2) after `mean`. */
static double worst_of_rows(const uint8_t *rows, int n, const double *mean, double spread)
{
    double worst = 0;
    for (int l = 0; l < D; l++) {
        double first = 0, second = 0, cross = 0;
        for (int i = 0; i < n; i++) {
            const float *row = kac_vector(rows, i, STRIDE);
            double z = ((double)row[l] - mean[l]) / spread;
            double other = ((double)row[(l + 1) % D] - mean[(l + 1) % D]) / spread;
            first += z;
            second += z * z - 1;
            cross += z * other;
        }
        worst = fmax(worst, fabs(first) / sqrt(n));
        worst = fmax(worst, fabs(second) / sqrt(2.0 * n));
        worst = fmax(worst, fabs(cross) / sqrt(n));
    }
    return worst;
}

Test(gaussian, the_start_is_noise_of_the_first_level)
{
    enum { MANY = 8000 };
    static _Alignas(64) uint8_t x[MANY][STRIDE];
    static int32_t group[MANY];
    world w;
    make_world(&w, 1, 1);
    w.clock = (kac_clock){.level = STEPS, .move = 0};
    w.groups[0].count = w.groups[1].offset = MANY / 2;
    for (int i = 0; i < MANY; i++)
        group[i] = i / (MANY / 2);
    kac_start_args a = {.shape = {D, 1, STRIDE, 0, 0},
                        .levels = w.levels,
                        .clock = &w.clock,
                        .groups = w.groups,
                        .group = group,
                        .seed = 3,
                        .n = MANY};
    memset(x, 0xff, sizeof x);
    cr_assert_eq(ops()->gaussian.start(dev(), &a, x[0]), KAC_OK);
    double z = worst_of_rows(x[0], MANY, (double[D]){0}, 30);
    cr_expect_lt(z, z_bound, "%.1f standard errors", z);
    cr_expect_neq(memcmp(x[0], x[MANY / 2], STRIDE), 0, "groups draw their own");
    for (int l = D; l < STRIDE / 4; l++)
        cr_expect_eq(kac_vector(x[0], 9, STRIDE)[l], 0.0F, "padding");
    drop_world(&w);
}

Test(gaussian, completions_are_the_estimate_or_draws_around_it)
{
    enum { J = 2000 };
    static _Alignas(64) uint8_t out[N * J][STRIDE];
    float soft[N][D];
    world w;
    make_world(&w, 1, 2);
    for (int every = 0; every < 2; every++) {
        memset(out, 0xff, sizeof out);
        w.complete.every_row = every;
        cr_assert_eq(ops()->gaussian.complete(dev(), &w.complete, out[0]), KAC_OK);
        for (int i = 0; i < N; i++) {
            const float *row = kac_vector(out[0], i, STRIDE);
            cr_expect_not(differ(row, w.estimate[i], D));
            cr_expect(row[D] == 0.0F && row[2 * D - 1] == 0.0F, "objects have no past");
        }
    }
    cr_assert_eq(ops()->gaussian.soften(dev(), &w.complete, soft[0]), KAC_OK);
    cr_expect_not(differ(soft[0], w.estimate[0], N * D));

    w.complete.samples = J;
    cr_assert_eq(ops()->gaussian.imagine(dev(), &w.complete, out[0]), KAC_OK);
    for (int i = 0; i < N; i++) {
        double mean[D], scale = 0, noise = 0;
        plain_level(KAC_SCHEDULE_EDM, 4, &scale, &noise);
        for (int l = 0; l < D; l++)
            mean[l] = (double)w.estimate[i][l];
        double z = worst_of_rows(out[i * J], J, mean, 0.5 * noise / sqrt(0.25 + noise * noise));
        cr_expect_lt(z, z_bound, "particle %d: %.1f standard errors", i, z);
    }
    drop_world(&w);
}

Test(gaussian, noised_copies_have_the_law_of_their_level)
{
    enum { MANY = 8000 };
    static _Alignas(64) uint8_t x0[MANY][STRIDE], x[MANY][STRIDE];
    static int32_t id[MANY];
    kac_level levels[STEPS + 1];
    double truth[D] = {1.5, -0.25, 0.5}, mean[D], scale = 0, noise = 0;
    fill_levels(levels, KAC_SCHEDULE_VP, 1, 1);
    plain_level(KAC_SCHEDULE_VP, 4, &scale, &noise);
    for (int i = 0; i < MANY; i++) {
        id[i] = i;
        for (int l = 0; l < D; l++)
            kac_vector_out(x0[0], i, STRIDE)[l] = (float)truth[l];
    }
    for (int l = 0; l < D; l++)
        mean[l] = scale * truth[l];
    kac_renoise_args a = {.shape = {D, 1, STRIDE, 0, 0},
                          .levels = levels,
                          .x0 = x0[0],
                          .id = id,
                          .seed = 9,
                          .n = MANY,
                          .level = 4};
    cr_assert_eq(ops()->gaussian.renoise(dev(), &a, x[0]), KAC_OK);
    double z = worst_of_rows(x[0], MANY, mean, noise);
    cr_expect_lt(z, z_bound, "%.1f standard errors", z);
    double out = 0;
    cr_expect_eq(ops()->gaussian.score(dev(), &a, x[0], id, NULL, &out), KAC_ERR_UNSUPPORTED);
}

/* ---- networks --------------------------------------------------------------------------- */

static const float mixture_means[3][2] = {{1.5F, -0.5F}, {-1, 0.75F}, {0.25F, 2}};
static const float mixture_variances[3][2] = {{0.3F, 0.6F}, {0.5F, 0.2F}, {0.1F, 0.9F}};
static const float mixture_weights[3] = {1, 2.5F, 0.5F};

/* E[x0 | x] by the midpoint rule on a grid of x0, for the level's scale and noise. */
static void posterior_mean(double scale, double noise, const double *x, double *out)
{
    enum { CELLS = 400 };
    double sum = 0, h = 16.0 / CELLS;
    out[0] = out[1] = 0;
    for (int i = 0; i < CELLS; i++)
        for (int j = 0; j < CELLS; j++) {
            double p = 0, x0[2] = {-8 + (i + 0.5) * h, -8 + (j + 0.5) * h}, square = 0;
            for (int k = 0; k < 3; k++) {
                double e = 0, v = 1;
                for (int l = 0; l < 2; l++) {
                    double at = x0[l] - (double)mixture_means[k][l];
                    e += at * at / (double)mixture_variances[k][l];
                    v *= (double)mixture_variances[k][l];
                }
                p += (double)mixture_weights[k] * exp(-e / 2) / sqrt(v);
            }
            for (int l = 0; l < 2; l++)
                square += (x[l] - scale * x0[l]) * (x[l] - scale * x0[l]);
            p *= exp(-square / (2 * noise * noise));
            sum += p;
            out[0] += p * x0[0];
            out[1] += p * x0[1];
        }
    out[0] /= sum;
    out[1] /= sum;
}

static void write_mixture(net_file *f, bool round)
{
    net_file_meta(f, "kac.arch", "gmm");
    memcpy(net_file_add(f, KAC_F32, "means", 2, 3, 2), mixture_means, sizeof mixture_means);
    float *variances = round ? net_file_add(f, KAC_F32, "variances", 1, 3)
                             : net_file_add(f, KAC_F32, "variances", 2, 3, 2);
    for (int i = 0; i < (round ? 3 : 6); i++)
        variances[i] = round ? mixture_variances[i][0] : mixture_variances[i / 2][i % 2];
    memcpy(net_file_add(f, KAC_F32, "weights", 1, 3), mixture_weights, sizeof mixture_weights);
    net_file_write(f);
}

/* Rows of `stride` bytes that begin with two floats. */
enum { ROWS = 5, ROW = 16 };

static kac_query query_of(uint8_t *rows, const kac_level *level, const kac_clock *clock,
                          float *out, int width)
{
    return (kac_query){.tokens = rows,
                       .stride = ROW,
                       .length = 2,
                       .capacity = ROWS,
                       .levels = level,
                       .clock = clock,
                       .out = out,
                       .out_stride = width};
}

static void random_rows(uint8_t *rows)
{
    uint64_t seed = 21;
    memset(rows, 0, (size_t)ROWS * ROW);
    for (int j = 0; j < ROWS; j++)
        for (int l = 0; l < 2; l++)
            kac_vector_out(rows, j, ROW)[l] = 2 * net_file_random(&seed);
}

Test(gaussian, gmm_gives_posterior_means)
{
    static const double places[2][2] = {{0.6, 0.8}, {1, 0.4}};
    net_file f = {0};
    kac_network *net = NULL;
    const kac_clock clock = {0, 0};
    _Alignas(16) uint8_t rows[ROWS * ROW];
    float out[ROWS][2];
    write_mixture(&f, false);
    cr_assert_eq(kac_network_open(dev(), f.path, KAC_ROLE_DENOISER, &net), KAC_OK, "%s",
                 kac_last_error());
    cr_expect(net->length == 2 && net->states == 1 && net->reads_time && net->arch->vectors);
    random_rows(rows);
    for (int p = 0; p < 2; p++) {
        kac_level level = {.gaussian = {.scale = places[p][0], .noise = places[p][1]}};
        kac_query q = query_of(rows, &level, &clock, out[0], 2);
        cr_assert_eq(kac_network_ask(net, &q), KAC_OK);
        for (int j = 0; j < ROWS; j++) {
            const float *row = kac_vector(rows, j, ROW);
            double x[2] = {(double)row[0], (double)row[1]}, exact[2];
            posterior_mean(places[p][0], places[p][1], x, exact);
            for (int l = 0; l < 2; l++)
                cr_expect_float_eq((double)out[j][l], exact[l], 2e-6, "row %d", j);
        }
    }
    kac_network_close(net);
    net_file_remove(&f);
}

/* Largest difference of a network's vjp from central differences of its forward, relative. */
static double gradient_error(const kac_network *net, int outputs, const kac_level *level)
{
    const kac_clock clock = {0, 0};
    _Alignas(16) uint8_t rows[ROWS * ROW], moved[ROWS * ROW];
    float cotangent[2 * ROWS], grad[ROWS][2], high[2 * ROWS], low[2 * ROWS];
    double worst = 0, most = 0;
    uint64_t seed = 3;
    random_rows(rows);
    for (int j = 0; j < ROWS * outputs; j++)
        cotangent[j] = net_file_random(&seed);
    kac_query q = query_of(rows, level, &clock, NULL, outputs);
    cr_assert_eq(kac_network_vjp(net, &q, cotangent, grad[0]), KAC_OK);
    for (int l = 0; l < 2; l++) {
        const float h = 0x1p-8F;
        q = query_of(moved, level, &clock, high, outputs);
        for (int sign = 1; sign >= -1; sign -= 2) {
            memcpy(moved, rows, sizeof rows);
            for (int j = 0; j < ROWS; j++)
                kac_vector_out(moved, j, ROW)[l] += (float)sign * h;
            q.out = sign > 0 ? high : low;
            cr_assert_eq(kac_network_ask(net, &q), KAC_OK);
        }
        for (int j = 0; j < ROWS; j++) {
            double difference = 0;
            for (int o = 0; o < outputs; o++)
                difference += (double)cotangent[j * outputs + o] *
                              ((double)high[j * outputs + o] - (double)low[j * outputs + o]);
            difference /= 2 * (double)h;
            worst = fmax(worst, fabs(difference - (double)grad[j][l]));
            most = fmax(most, fabs(difference));
        }
    }
    return worst / most;
}

Test(gaussian, gradients_are_those_of_differences)
{
    for (int round = 0; round < 2; round++) {
        net_file f = {0};
        kac_network *net = NULL;
        kac_level level = {.gaussian = {.scale = 0.7, .noise = 0.5}};
        write_mixture(&f, round);
        cr_assert_eq(kac_network_open(dev(), f.path, KAC_ROLE_DENOISER, &net), KAC_OK);
        double error = gradient_error(net, 2, &level);
        cr_expect_lt(error, 1e-3, "round %d: %g", round, error);
        kac_network_close(net);
        net_file_remove(&f);
    }
}

static void write_quadratic(net_file *f, bool linear)
{
    static const float matrix[2][2] = {{1, -0.5F}, {0.25F, 2}};
    net_file_meta(f, "kac.arch", "quadratic");
    memcpy(net_file_add(f, KAC_F32, "matrix", 2, 2, 2), matrix, sizeof matrix);
    memcpy(net_file_add(f, KAC_F32, "target", 1, 2), (float[]){0.5F, -1}, 8);
    memcpy(net_file_add(f, KAC_F32, "deviation", 1, 2), (float[]){0.5F, 2}, 8);
    if (linear) memcpy(net_file_add(f, KAC_F32, "linear", 1, 2), (float[]){0.75F, -0.125F}, 8);
    net_file_write(f);
}

Test(gaussian, quadratic_is_a_quadratic_with_its_gradient)
{
    for (int linear = 0; linear < 2; linear++) {
        net_file f = {0};
        kac_network *net = NULL;
        _Alignas(16) uint8_t rows[ROWS * ROW];
        float out[ROWS], soft[ROWS][2], again[ROWS];
        write_quadratic(&f, linear);
        cr_assert_eq(kac_network_open(dev(), f.path, KAC_ROLE_REWARD, &net), KAC_OK, "%s",
                     kac_last_error());
        random_rows(rows);
        kac_query q = query_of(rows, NULL, NULL, out, 1);
        cr_assert_eq(kac_network_ask(net, &q), KAC_OK);
        for (int j = 0; j < ROWS; j++) {
            const float *row = kac_vector(rows, j, ROW);
            double x = (double)row[0], y = (double)row[1];
            double e = (x - 0.5 * y - 0.5) / 0.5, g = (0.25 * x + 2 * y + 1) / 2;
            double r = -0.5 * (e * e + g * g) + linear * (0.75 * x - 0.125 * y);
            cr_expect_float_eq((double)out[j], r, 1e-5, "row %d", j);
            memcpy(soft[j], row, sizeof soft[j]);
        }
        q = (kac_query){
            .soft = soft[0], .length = 2, .capacity = ROWS, .out = again, .out_stride = 1};
        cr_assert_eq(kac_network_ask(net, &q), KAC_OK);
        cr_expect_not(differ(out, again, ROWS), "vectors without padding");
        double error = gradient_error(net, 1, NULL);
        cr_expect_lt(error, 1e-3, "%g", error);
        kac_network_close(net);
        net_file_remove(&f);
    }
}

/* A file with one thing wrong is refused by a sentence with `says`. */
static void refuse(net_file *f, kac_role role, const char *says)
{
    kac_network *net = NULL;
    net_file_write(f);
    cr_expect_eq(kac_network_open(dev(), f->path, role, &net), KAC_ERR_INVALID, "%s", says);
    cr_expect_neq(strstr(kac_last_error(), says), NULL, "wants %s: %s", says, kac_last_error());
    net_file_remove(f);
}

Test(gaussian, wrong_files_are_refused)
{
    net_file f = {0};
    write_mixture(&f, false);
    ((float *)f.data[1])[3] = -0.5F;
    refuse(&f, KAC_ROLE_DENOISER, "`variances` holds -0.5, want 0 or more");
    write_mixture(&f, true);
    ((float *)f.data[2])[0] = 0;
    refuse(&f, KAC_ROLE_DENOISER, "`weights` holds 0, want more than 0");
    write_mixture(&f, true);
    net_file_meta(&f, "kac.length", "3");
    refuse(&f, KAC_ROLE_DENOISER, "tensor `means` has shape [3, 2], want [any, 3]");
    write_quadratic(&f, false);
    ((float *)f.data[2])[1] = 0;
    refuse(&f, KAC_ROLE_REWARD, "`deviation` holds 0, want more than 0");
}
