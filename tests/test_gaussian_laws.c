/* test_gaussian_laws.c -- runs of the Gaussian process against closed forms.
 *
 * With one Gaussian as data every level of the chain is Gaussian, and with a quadratic reward the
 * evidence and the tilted moments are exact: Kalman's recursions (tests/gaussian_run.h).  Groups
 * are replicates, and means of exp(log_weight) phi(x) are unbiased at any number of particles.
 */
#include "gaussian.h"
#include "gaussian_run.h"
#include "run.h"

/* |z| of 10 test functions stays below this with probability 1 - 1e-6. */
static const double z_bound = 5.33;

typedef struct law_case {
    vec_grid grid;
    double alpha;
    int groups, particles;
    const char *settings;
} law_case;

/* Means over a group of exp(log_weight) phi; *weight is 0 for plain means. */
static void add_groups(const kac_run *run, int particles, bool weighted, double *sum,
                       double *square)
{
    int64_t n = kac_run_samples(run);
    cr_assert(n > 0 && n % particles == 0);
    for (int64_t first = 0; first < n; first += particles) {
        double mean[VEC_FUNCTIONS] = {0};
        for (int64_t i = first; i < first + particles; i++) {
            kac_sample s;
            double x[VEC], phi[VEC_FUNCTIONS];
            cr_assert_eq(kac_run_sample(run, i, &s), KAC_OK);
            cr_assert_eq(s.group, first / particles);
            vec_parse(s.object, VEC, x);
            vec_functions(x, phi);
            double w = (weighted ? exp(s.log_weight) : 1) / particles;
            for (int j = 0; j < VEC_FUNCTIONS; j++)
                mean[j] += w * phi[j];
        }
        for (int j = 0; j < VEC_FUNCTIONS; j++) {
            sum[j] += mean[j];
            square[j] += mean[j] * mean[j];
        }
    }
}

static void check_means(const double *sum, const double *square, double n, const double *exact,
                        const char *name)
{
    for (int j = 0; j < VEC_FUNCTIONS; j++) {
        double mean = sum[j] / n, error = sqrt((square[j] / n - mean * mean) / n);
        if (j == 0 && error == 0) continue; /* a plain mean of 1 */
        cr_expect(fabs(mean - exact[j]) < z_bound * error,
                  "%s: function %d is %g +- %g, exact %g", name, j, mean, error, exact[j]);
    }
}

static void check_law(const vec_files *files, const law_case *c, int seed)
{
    kac_run *run = NULL;
    char settings[1024];
    double mean[VEC], variance[VEC], exact[VEC_FUNCTIONS], z = 0, error = 0;
    double sum[VEC_FUNCTIONS] = {0}, square[VEC_FUNCTIONS] = {0};
    int groups = c->groups * table_scale();
    snprintf(settings, sizeof settings,
             "process.schedule=%s process.steps=%d process.eta=%g process.order=%d "
             "sampler.alpha=%g sampler.groups=%d sampler.particles=%d seed=%d %s",
             c->grid.schedule, c->grid.steps, c->grid.eta, c->grid.order, c->alpha, groups,
             c->particles, seed, c->settings);
    vec_chain(&vec_gaussian, &c->grid, mean, variance);
    vec_tilted(&vec_gaussian, mean, variance, c->alpha, exact);
    kac_status status = vec_run(files, settings, &run);
    cr_assert_eq(status, KAC_OK, "%s: %s", settings, kac_last_error());
    add_groups(run, c->particles, true, sum, square);
    check_means(sum, square, groups, exact, settings);
    kac_run_evidence(run, 0, &z, &error);
    cr_expect(fabs(z - log(exact[0])) < 6 * error, "%s: evidence %g +- %g, exact %g", settings,
              z, error, log(exact[0]));
    kac_run_destroy(run);
}

#define CHECK_LAWS(...)                                                                        \
    do {                                                                                       \
        static const law_case cases[] = {__VA_ARGS__};                                         \
        vec_files files;                                                                       \
        vec_write(&vec_gaussian, &files);                                                      \
        for (size_t k = 0; k < sizeof cases / sizeof *cases; k++)                              \
            check_law(&files, &cases[k], (int)k + 1);                                          \
        vec_remove(&files);                                                                    \
    } while (0)

#define SMC    "sampler.algorithm=smc sampler.select.group.trigger.below=0.7 "
#define EVERY  "sampler.algorithm=smc sampler.select.group.trigger.kind=every "
#define FK     "sampler.algorithm=fk_steering "
#define REVIVE "sampler.on_dead=revive "
#define TWIST  "sampler.twist.kind=posterior_mean "

/* ---- the chain itself ------------------------------------------------------------------- */

Test(gaussian_laws, unguided_samples_have_the_law_of_the_chain)
{
    static const vec_grid grids[] = {{"vp", 8, 1, 1},  {"vp", 8, 0.5, 2}, {"ve", 6, 0.3, 1},
                                     {"edm", 6, 1, 2}, {"edm", 5, 0, 1},  {"edm", 9, 0, 2},
                                     {"vp", 1, 1, 1},  {"edm", 2, 1, 2}};
    vec_files files;
    vec_write(&vec_gaussian, &files);
    for (size_t k = 0; k < sizeof grids / sizeof *grids; k++) {
        kac_run *run = NULL;
        char settings[512];
        double mean[VEC], variance[VEC], exact[VEC_FUNCTIONS];
        double sum[VEC_FUNCTIONS] = {0}, square[VEC_FUNCTIONS] = {0};
        snprintf(settings, sizeof settings,
                 "sampler.algorithm=pretrained sampler.groups=20000 process.schedule=%s "
                 "process.steps=%d process.eta=%g process.order=%d",
                 grids[k].schedule, grids[k].steps, grids[k].eta, grids[k].order);
        vec_chain(&vec_gaussian, &grids[k], mean, variance);
        exact[0] = 1;
        for (int l = 0, at = 1 + VEC; l < VEC; l++) {
            exact[1 + l] = mean[l];
            for (int j = l; j < VEC; j++)
                exact[at++] = mean[l] * mean[j] + (l == j ? variance[l] : 0);
        }
        cr_assert_eq(vec_run(&files, settings, &run), KAC_OK, "%s", kac_last_error());
        add_groups(run, 1, false, sum, square);
        check_means(sum, square, 20000, exact, settings);
        kac_run_destroy(run);
    }
    vec_remove(&files);
}

/* ---- p* --------------------------------------------------------------------------------- */

Test(gaussian_laws, smc)
{
    CHECK_LAWS({{"vp", 8, 1, 1}, 1, 4096, 4, SMC}, {{"vp", 8, 1, 1}, 1, 4096, 2, EVERY},
               {{"edm", 6, 0.6, 1}, 1, 4096, 8, EVERY}, {{"ve", 6, 1, 2}, 1, 4096, 4, SMC},
               {{"edm", 7, 1, 2}, 1, 4096, 4, EVERY "sampler.value.estimate=soft"},
               {{"vp", 6, 1, 1}, 1, 4096, 4, SMC "sampler.potential=terminal"});
}

/* Tries of the last levels, of a denoiser that reads t. */
Test(gaussian_laws, revive)
{
    CHECK_LAWS({{"vp", 8, 1, 1}, 1, 4096, 4, SMC REVIVE "sampler.revive.levels=2"},
               {{"edm", 7, 1, 2}, 1, 4096, 2, EVERY REVIVE "sampler.revive.levels=4"});
}

Test(gaussian_laws, fk_steering)
{
    CHECK_LAWS(
        {{"vp", 8, 1, 1}, 1, 4096, 4, FK},
        {{"edm", 6, 1, 1}, 1, 8192, 4, FK "sampler.potential=max process.sigma_data=0.8"},
        {{"edm", 6, 1, 2}, 1, 4096, 2, FK "sampler.value.samples=2"});
}

Test(gaussian_laws, nested)
{
    CHECK_LAWS({{"vp", 8, 1, 1}, 1, 4096, 2, "sampler.algorithm=nested sampler.children=3 "});
}

Test(gaussian_laws, twisted)
{
    CHECK_LAWS({{"vp", 8, 1, 1}, 1, 4096, 4, SMC TWIST},
               {{"vp", 8, 1, 1}, 0.7, 4096, 2, EVERY TWIST "sampler.twist.scale=0.5"},
               {{"edm", 8, 1, 2}, 1, 4096, 4, SMC TWIST},
               {{"edm", 8, 0.6, 1},
                1,
                4096,
                8,
                EVERY TWIST "sampler.temper.kind=linear device.batch=1000"});
}

/* Tilts of the first two levels: for one Gaussian the estimate is gain x + rest, and the tilt is gain
 * times r's gradient there; or of a network that reads the state, the gradient at that. */
static void check_tilts(const vec_files *files, const char *more, bool of_state)
{
    enum { STEPS = 5, PARTICLES = 9 };
    static const vec_grid grid = {"vp", STEPS, 1, 1};
    const vec_model *m = &vec_gaussian;
    char text[1024];
    kac_run *r = NULL;
    kac_config *config = NULL;
    double a = 0, b = 0, alike = 0;
    snprintf(text, sizeof text,
             "process.steps=5 device.batch=4 sampler.groups=1 sampler.particles=9 "
             "reward.0.weight=2 " SMC TWIST "%s",
             more);
    cr_assert_eq(vec_config(files, text, &config), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_run_create(config, &r), KAC_OK, "%s", kac_last_error());
    for (int k = STEPS; k > STEPS - 2; k--) {
        cr_assert_eq(kac_evaluate_parents(r, &r->x), KAC_OK);
        cr_assert_eq(kac_evaluate_twist(r), KAC_OK);
        vec_level(&grid, k, &a, &b);
        for (int i = 0; i < PARTICLES; i++) {
            const float *x = kac_vector(r->x.x, i, r->shape.stride);
            const float *tilt = r->twist.tilt + (ptrdiff_t)r->census_entry[i] * VEC;
            double d[VEC], gain[VEC], slope[VEC];
            for (int l = 0; l < VEC; l++) {
                gain[l] = m->variance[l] * a / (a * a * m->variance[l] + b * b);
                d[l] = m->mean[l] + gain[l] * ((double)x[l] - a * m->mean[l]);
                if (of_state)
                    gain[l] = 0.5, d[l] = (double)x[l]; /* the term's weight is not its */
                slope[l] = m->linear[l];
            }
            for (int j = 0; j < VEC_ROWS; j++) {
                double e = -m->target[j];
                for (int l = 0; l < VEC; l++)
                    e += m->matrix[j][l] * d[l];
                for (int l = 0; l < VEC; l++)
                    slope[l] -= m->matrix[j][l] * e / (m->deviation[j] * m->deviation[j]);
            }
            for (int l = 0; l < VEC; l++)
                cr_expect_float_eq((double)tilt[l], 2 * gain[l] * slope[l], 1e-5,
                                   "level %d, particle %d", k, i);
            alike += i > 0 && tilt[0] == r->twist.tilt[r->census_entry[0] * VEC];
        }
        cr_assert_eq(kac_run_step(r), KAC_OK);
    }
    cr_expect_lt(alike, PARTICLES, "particles have their own");
    kac_run_destroy(r);
    kac_config_destroy(config);
}

Test(gaussian_laws, the_tilt_is_the_gradient_through_the_denoiser)
{
    vec_files files;
    vec_write(&vec_gaussian, &files);
    check_tilts(&files, "", false);
    vec_remove(&files);
}

Test(gaussian_laws, the_tilt_of_a_classifier_is_its_gradient_at_the_state)
{
    vec_files files;
    char more[1024];
    vec_write(&vec_gaussian, &files);
    snprintf(more, sizeof more, "sampler.twist.kind=value sampler.value.file=%s",
             files.reward.path);
    check_tilts(&files, more, true);
    vec_remove(&files);
}

/* The gradient knows the way: the same particles estimate the evidence far better. */
Test(gaussian_laws, a_twist_lowers_the_variance)
{
    double error[2];
    vec_files files;
    vec_write(&vec_gaussian, &files);
    for (int twist = 0; twist < 2; twist++) {
        kac_run *run = NULL;
        double z = 0;
        char settings[512];
        snprintf(settings, sizeof settings,
                 "process.steps=30 sampler.groups=500 sampler.particles=4 %s%s", SMC,
                 twist ? TWIST : "");
        cr_assert_eq(vec_run(&files, settings, &run), KAC_OK, "%s", kac_last_error());
        kac_run_evidence(run, 0, &z, &error[twist]);
        kac_run_destroy(run);
    }
    cr_expect_lt(error[1], 0.5 * error[0], "%g with, %g without", error[1], error[0]);
    vec_remove(&files);
}

/* Wide and narrow, two terms and a judge: gradients of several files are added. */
Test(gaussian_laws, a_sum_of_rewards_is_a_reward)
{
    vec_files files, twin;
    kac_run *run[2] = {NULL, NULL};
    char settings[1024];
    vec_write(&vec_gaussian, &files);
    vec_write(&vec_gaussian, &twin);
    cr_assert_eq(vec_run(&files,
                         "process.steps=6 sampler.groups=3 sampler.particles=5 " SMC TWIST,
                         &run[0]),
                 KAC_OK, "%s", kac_last_error());
    snprintf(
        settings, sizeof settings,
        "process.steps=6 sampler.groups=3 sampler.particles=5 reward.0.weight=0.25 "
        "reward.1.file=%s reward.1.kind=quadratic reward.1.weight=0.75 reward.1.name=b " SMC
            TWIST,
        twin.reward.path);
    cr_assert_eq(vec_run(&twin, settings, &run[1]), KAC_OK, "%s", kac_last_error());
    snprintf(settings, sizeof settings, "%s", files.reward.path);
    for (int64_t i = 0; i < kac_run_samples(run[0]); i++) {
        kac_sample a, b;
        double x[VEC], y[VEC];
        cr_assert_eq(kac_run_sample(run[0], i, &a), KAC_OK);
        cr_assert_eq(kac_run_sample(run[1], i, &b), KAC_OK);
        vec_parse(a.object, VEC, x);
        vec_parse(b.object, VEC, y);
        for (int l = 0; l < VEC; l++)
            cr_expect_float_eq(x[l], y[l], 1e-5);
        cr_expect_float_eq(a.log_weight, b.log_weight, 1e-4);
    }
    kac_run_destroy(run[0]);
    kac_run_destroy(run[1]);
    vec_remove(&files);
    vec_remove(&twin);
}

/* ---- a mixture: the chain's law by quadrature ------------------------------------------- */

enum { CELLS = 1200, LEVELS = 6 };

static const double mix_mean[2] = {1.25, -1.5}, mix_variance[2] = {0.25, 0.5};
static const double mix_weight[2] = {1, 2};

static double mix_estimate(double a, double b, double x)
{
    double sum = 0, mean = 0;
    for (int k = 0; k < 2; k++) {
        double c = a * a * mix_variance[k] + b * b, e = x - a * mix_mean[k];
        double p = mix_weight[k] * exp(-e * e / (2 * c)) / sqrt(c);
        sum += p;
        mean += p * (mix_mean[k] + a * mix_variance[k] * e / c);
    }
    return mean / sum;
}

static double bell(double x, double mean, double deviation)
{
    double z = (x - mean) / deviation;
    return exp(-z * z / 2) / (deviation * sqrt(2 * acos(-1.0)));
}

/* E of exp(r(x0)) phi, phi = 1, x0, x0^2, r(x0) = -((x0 - 1) / 1.5)^2 / 2 + x0 / 4. */
static void mix_exact(double *exact)
{
    static double density[CELLS], next[CELLS];
    vec_grid grid = {"vp", LEVELS, 1, 1};
    double a = 0, b = 0, h = 12.0 / CELLS;
    vec_level(&grid, LEVELS, &a, &b);
    for (int i = 0; i < CELLS; i++)
        density[i] = bell(-6 + (i + 0.5) * h, 0, b);
    for (int k = LEVELS; k > 1; k--) {
        double s = 0, n = 0;
        vec_level(&grid, k, &a, &b);
        vec_level(&grid, k - 1, &s, &n);
        double v = n * n * (1 - a * a * n * n / (s * s * b * b)), f = sqrt(n * n - v) / b;
        memset(next, 0, sizeof next);
        for (int i = 0; i < CELLS; i++) {
            double x = -6 + (i + 0.5) * h;
            double mean = f * x + (s - f * a) * mix_estimate(a, b, x);
            for (int j = 0; j < CELLS; j++)
                next[j] += density[i] * h * bell(-6 + (j + 0.5) * h, mean, sqrt(v));
        }
        memcpy(density, next, sizeof density);
    }
    vec_level(&grid, 1, &a, &b);
    exact[0] = exact[1] = exact[2] = 0;
    for (int i = 0; i < CELLS; i++) {
        double x0 = mix_estimate(a, b, -6 + (i + 0.5) * h), e = (x0 - 1) / 1.5;
        double w = density[i] * h * exp(-e * e / 2 + x0 / 4);
        exact[0] += w;
        exact[1] += w * x0;
        exact[2] += w * x0 * x0;
    }
}

static void mix_write(vec_files *files)
{
    *files = (vec_files){0};
    net_file_meta(&files->model, "kac.arch", "gmm");
    vec_fill(&files->model, "means", mix_mean, 2, 1);
    vec_fill(&files->model, "variances", mix_variance, 0, 2);
    vec_fill(&files->model, "weights", mix_weight, 0, 2);
    net_file_write(&files->model);
    net_file_meta(&files->reward, "kac.arch", "quadratic");
    vec_fill(&files->reward, "matrix", (double[]){1}, 1, 1);
    vec_fill(&files->reward, "target", (double[]){1}, 0, 1);
    vec_fill(&files->reward, "deviation", (double[]){1.5}, 0, 1);
    vec_fill(&files->reward, "linear", (double[]){0.25}, 0, 1);
    net_file_write(&files->reward);
}

Test(gaussian_laws, a_mixture)
{
    static const char *const cases[] = {SMC, EVERY TWIST, FK};
    enum { N = 4, PHI = 3 };
    double exact[PHI];
    vec_files files;
    mix_write(&files);
    mix_exact(exact);
    for (int c = 0; c < 3; c++) {
        kac_run *run = NULL;
        char settings[512];
        double sum[PHI] = {0}, square[PHI] = {0};
        snprintf(settings, sizeof settings,
                 "process.steps=%d sampler.groups=4096 sampler.particles=%d seed=%d %s", LEVELS,
                 N, c + 3, cases[c]);
        cr_assert_eq(vec_run(&files, settings, &run), KAC_OK, "%s", kac_last_error());
        for (int64_t g = 0; g < 4096; g++) {
            double mean[PHI] = {0};
            for (int64_t i = g * N; i < (g + 1) * N; i++) {
                kac_sample s;
                double x = 0;
                cr_assert_eq(kac_run_sample(run, i, &s), KAC_OK);
                vec_parse(s.object, 1, &x);
                double w = exp(s.log_weight) / N;
                mean[0] += w;
                mean[1] += w * x;
                mean[2] += w * x * x;
            }
            for (int j = 0; j < PHI; j++) {
                sum[j] += mean[j];
                square[j] += mean[j] * mean[j];
            }
        }
        for (int j = 0; j < PHI; j++) {
            double mean = sum[j] / 4096, error = sqrt((square[j] / 4096 - mean * mean) / 4096);
            cr_expect(fabs(mean - exact[j]) < z_bound * error,
                      "%s: function %d is %g +- %g, exact %g", settings, j, mean, error,
                      exact[j]);
        }
        kac_run_destroy(run);
    }
    vec_remove(&files);
}

/* ---- the probability flow --------------------------------------------------------------- */

/* Root mean square distance, over samples, of x0 to the end of the exact flow from its noise. */
static double flow_error(const vec_files *files, int steps, int order)
{
    enum { SAMPLES = 200 };
    kac_run *run = NULL;
    char settings[512];
    double square = 0, scale = 0, noise = 0;
    vec_grid grid = {"edm", steps, 0, order};
    snprintf(settings, sizeof settings,
             "sampler.algorithm=pretrained process.eta=0 process.schedule=edm process.steps=%d "
             "process.order=%d sampler.groups=%d",
             steps, order, SAMPLES);
    cr_assert_eq(vec_run(files, settings, &run), KAC_OK, "%s", kac_last_error());
    vec_level(&grid, steps, &scale, &noise);
    for (int i = 0; i < SAMPLES; i++) {
        kac_sample s;
        double x[VEC], z[2];
        kac_key key = {.seed = 1, .group = (uint32_t)i};
        cr_assert_eq(kac_run_sample(run, i, &s), KAC_OK);
        vec_parse(s.object, VEC, x);
        for (int l = 0; l < VEC; l++) {
            double v = vec_gaussian.variance[l];
            kac_normals(kac_draw(key, KAC_DRAW_START, (uint32_t)l / 2), z);
            double e = noise * z[l % 2] - scale * vec_gaussian.mean[l];
            double exact =
                vec_gaussian.mean[l] + e * sqrt(v / (scale * scale * v + noise * noise));
            square += (x[l] - exact) * (x[l] - exact) / (SAMPLES * VEC);
        }
    }
    kac_run_destroy(run);
    return sqrt(square);
}

Test(gaussian_laws, order_2_converges_faster_to_the_flow)
{
    vec_files files;
    vec_write(&vec_gaussian, &files);
    for (int order = 1; order <= 2; order++) {
        double coarse = flow_error(&files, 40, order), fine = flow_error(&files, 160, order);
        double rate = log(coarse / fine) / log(4);
        cr_expect(rate > order - 0.2 && rate < order + 0.6, "order %d: %g, from %g to %g",
                  order, rate, coarse, fine);
    }
    cr_expect_lt(flow_error(&files, 40, 2), 0.2 * flow_error(&files, 40, 1));
    vec_remove(&files);
}

/* ---- invariance, and what is refused ---------------------------------------------------- */

Test(gaussian_laws, samples_do_not_depend_on_batches_or_reuse)
{
    static const char *const changes[] = {"device.batch=3", "sampler.reuse=off",
                                          "device.cache=0 device.batch=5", "device.threads=1"};
    static const char settings[] = "process.steps=7 process.order=2 sampler.groups=3 "
                                   "sampler.particles=6 sampler.children=3 " EVERY TWIST
                                   "sampler.select.parent.rule=categorical ";
    vec_files files;
    kac_run *base = NULL;
    vec_write(&vec_gaussian, &files);
    cr_assert_eq(vec_run(&files, settings, &base), KAC_OK, "%s", kac_last_error());
    for (int c = 0; c < 4; c++) {
        kac_run *run = NULL;
        char changed[512];
        snprintf(changed, sizeof changed, "%s%s", settings, changes[c]);
        cr_assert_eq(vec_run(&files, changed, &run), KAC_OK, "%s", kac_last_error());
        for (int64_t i = 0; i < kac_run_samples(base); i++) {
            kac_sample a, b;
            cr_assert_eq(kac_run_sample(base, i, &a), KAC_OK);
            cr_assert_eq(kac_run_sample(run, i, &b), KAC_OK);
            cr_assert_str_eq(a.object, b.object, "%s", changes[c]);
            cr_assert_eq(a.log_weight, b.log_weight, "%s", changes[c]);
        }
        kac_run_destroy(run);
    }
    kac_run_destroy(base);
    vec_remove(&files);
}

/* With eta 0 copies stay together, and what the denoiser said of one holds for all. */
Test(gaussian_laws, equal_states_are_evaluated_once)
{
    vec_files files;
    kac_run *run = NULL;
    kac_progress progress = {0};
    vec_write(&vec_gaussian, &files);
    cr_assert_eq(vec_run(&files,
                         "process.steps=5 process.eta=0 sampler.groups=2 sampler.particles=4 "
                         "sampler.algorithm=nested sampler.children=6",
                         &run),
                 KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_run_sync(run, &progress), KAC_OK);
    cr_expect(progress.denoiser_calls <= 5 * 8, "%ld calls", (long)progress.denoiser_calls);
    kac_run_destroy(run);
    vec_remove(&files);
}

Test(gaussian_laws, what_makes_no_sense_is_refused)
{
    static const struct {
        const char *settings, *says;
    } cases[] = {
        {"process.schedule=cosine", "process.schedule: kind masked goes with"},
        {"process.kind=masked process.schedule=edm", "process.schedule: kind masked goes with"},
        {"process.kind=masked process.schedule=loglinear", "which goes with gaussian"},
        {"output.likelihood=on", "output.likelihood: there is none"},
        {"process.temperature=0.5", "process.temperature: it does nothing with"},
        {"process.template=???", "process.template: it does nothing with"},
        {"process.rho=5", "process.rho: it does nothing with process.schedule vp"},
        {"process.schedule=ve process.beta_min=0.2", "process.beta_min: it does nothing"},
        {"process.kind=masked process.eta=0.5", "process.eta: it does nothing with"},
        {"process.schedule=ve process.sigma_min=90", "process.sigma_min: 90 is more than"},
        {"process.length=4", "works for vectors of length 3 only, not 4"},
        {"process.eta=0 " TWIST, "sampler.twist.kind: with process.eta 0"},
        {TWIST "sampler.twist.path=direct", "sampler.twist.path: it does nothing with"},
        {"reward.0.kind=network", "so the kind of this reward is quadratic"},
    };
    vec_files files;
    vec_write(&vec_gaussian, &files);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        kac_run *run = NULL;
        cr_expect_eq(vec_run(&files, cases[c].settings, &run), KAC_ERR_INVALID, "%s",
                     cases[c].settings);
        cr_expect_neq(strstr(kac_last_error(), cases[c].says), NULL, "%s: %s",
                      cases[c].settings, kac_last_error());
        kac_run_destroy(run);
    }
    vec_remove(&files);
}
