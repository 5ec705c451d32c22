/* test_graph_laws.c -- runs of the graph process against laws that are known.
 *
 * Graphs of one or two nodes with one feature, of which the data are one Gaussian, and a denoiser
 * that knows it (gmm).  Without a corrector every number is Gaussian at every level, so that the
 * law of the rounded object is a product of differences of normal integrals; with one, a plain
 * simulation with other random numbers is what runs are compared with.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gaussian.h"
#include "gaussian_run.h"
#include "net_file.h"
#include "on_device.h"
#include "run.h"

TestSuite(graph_laws, .timeout = 120);

enum { D = 4, STATES = 2 + 2 * 2 * 4, STEPS = 5 };

static const double z_bound = 5.6;
static const double mean_of[D] = {2, 0.55, 0.3, 1.2}, variance_of[D] = {1, 0.1, 0.2, 0.6};
static const double low = 0.1, high = 1;    /* sigma */
static const double one = 0.25, two = 0.75; /* share of graphs of one node, of two */

/* ---- states ------------------------------------------------------------------------------- */

/* A graph of one node: 0 or 1, its atom; of two: 2 + its atoms and 4 orders of its bond. */
static int state_of(int n, int first, int second, int order)
{
    return n == 1 ? first : 2 + (first * 2 + second) * 4 + order;
}

static int order_of(double a)
{
    return a < 0.5 ? 0 : a < 1.5 ? 1 : a < 2.5 ? 2 : 3;
}

static int parse_state(const char *text)
{
    double x[D];
    vec_parse(text, D, x);
    cr_assert(x[0] == 1 || x[0] == 2, "%s", text);
    cr_assert((x[1] == 0 || x[1] == 1) && (x[2] == 0 || x[2] == 1), "%s", text);
    cr_assert(x[3] == 0 || (x[0] == 2 && (x[3] == 1 || x[3] == 2 || x[3] == 3)), "%s", text);
    cr_assert(x[0] == 2 || x[2] == 0, "%s", text);
    return state_of((int)x[0], (int)x[1], (int)x[2], (int)x[3]);
}

/* The numbers of a state. */
static void numbers_of(int state, double *x)
{
    int rest = state - 2;
    x[0] = state < 2 ? 1 : 2;
    x[1] = state < 2 ? state : rest / 8;
    x[2] = state < 2 ? 0 : rest / 4 % 2;
    x[3] = state < 2 ? 0 : rest % 4;
}

static const double linear[D] = {0.1, 0.5, -0.4, 0.3};

static double reward_of(int state)
{
    double x[D], r = 0;
    numbers_of(state, x);
    for (int l = 0; l < D; l++)
        r += linear[l] * x[l];
    return r - 0.5 * (x[3] - 1) * (x[3] - 1);
}

/* ---- the exact law without a corrector ---------------------------------------------------- */

static double sigma_at(int n, int points)
{
    return n < 0 ? 0 : low * pow(high / low, n / (points - 1.0));
}

/* P(number l of the end of the chain is below x). */
static double below(int l, int points, bool euler, double x)
{
    double mean = 0, variance = high * high;
    for (int n = points - 1; n >= 0; n--) {
        double sigma = sigma_at(n, points), next = sigma_at(n - 1, points);
        double push = sigma * sigma - next * next;
        if (euler) { /* its sigma is that of the time, which ends at 1e-4 */
            double t = 1e-4 + n / (points - 1.0) * (1 - 1e-4);
            double at = low * pow(high / low, t);
            push = at * at * 2 * log(high / low) / points;
        }
        double pull = push / (variance_of[l] + sigma * sigma);
        mean -= pull * (mean - mean_of[l]);
        variance = variance * (1 - pull) * (1 - pull) + (n > 0 ? push : 0);
    }
    return 0.5 * erfc((mean - x) / sqrt(2 * variance));
}

static void exact_law(int points, bool euler, double *p)
{
    double atom[3][2], order[4], at[3];
    for (int l = 1; l <= 2; l++) {
        atom[l][0] = below(l, points, euler, 0.5);
        atom[l][1] = 1 - atom[l][0];
    }
    for (int k = 0; k < 3; k++)
        at[k] = below(3, points, euler, k + 0.5);
    order[0] = at[0];
    order[1] = at[1] - at[0];
    order[2] = at[2] - at[1];
    order[3] = 1 - at[2];
    for (int a = 0; a < 2; a++) {
        p[state_of(1, a, 0, 0)] = one * atom[1][a];
        for (int b = 0; b < 2; b++)
            for (int k = 0; k < 4; k++)
                p[state_of(2, a, b, k)] = two * atom[1][a] * atom[2][b] * order[k];
    }
}

/* ---- a plain simulation with a corrector --------------------------------------------------- */

static double normal(uint64_t *seed)
{
    double u = ((double)net_file_random(seed) + 1 + 0x1p-31) / 2;
    double v = (double)net_file_random(seed);
    return sqrt(-2 * log(u)) * cos(3.14159265358979 * v);
}

/* The step sizes of a part, numbers first .. end - 1, for every row. */
static void step_sizes(double (*x)[D], double (*z)[D], int rows, double sigma, int first,
                       bool together, double *h)
{
    double noises = 0, scores = 0;
    for (int i = 0; i < rows; i++) {
        double noise = 0, score = 0;
        for (int l = first; l < (first == 1 ? 3 : 4); l++) {
            if (x[i][0] < 2 && l > 1) continue;
            double s = (x[i][l] - mean_of[l]) / (variance_of[l] + sigma * sigma);
            noise += z[i][l] * z[i][l];
            score += s * s;
        }
        noises += sqrt(noise);
        scores += sqrt(score);
        h[i] = score > 0 ? 2 * 0.3 * 0.3 * noise / score : 0;
    }
    for (int i = 0; together && i < rows; i++)
        h[i] = 2 * 0.3 * 0.3 * pow(noises / scores, 2);
}

/* One row's move by the reverse predictor, or by s4 with its correction: y is the state that the
 * corrector has made, or would have. */
static double predict(const double *x, double y, int l, int n, int points, bool s4,
                      uint64_t *seed)
{
    double sigma = sigma_at(n, points), next = sigma_at(n - 1, points);
    double t = 1e-4 + n / (points - 1.0) * (1 - 1e-4), h = 0.5 / points;
    double at[3], score = -(x[l] - mean_of[l]) / (variance_of[l] + sigma * sigma);
    for (int k = 0; k < 3; k++)
        at[k] = low * pow(high / low, t - k * h);
    if (s4) {
        y += sqrt(at[0] * at[0] - at[1] * at[1]) * normal(seed);
        y += 2 * log(high / low) * at[0] * at[0] * score / points;
        return n > 0 ? y + sqrt(at[1] * at[1] - at[2] * at[2]) * normal(seed) : y;
    }
    double push = sigma * sigma - next * next;
    y -= push * (y - mean_of[l]) / (variance_of[l] + sigma * sigma);
    return n > 0 ? y + sqrt(push) * normal(seed) : y;
}

static void simulate(int points, int rows, bool together, bool s4, double *p)
{
    uint64_t seed = 77;
    double(*x)[D] = calloc((size_t)rows, sizeof *x), (*z)[D] = calloc((size_t)rows, sizeof *z);
    double *h[2] = {calloc((size_t)rows, sizeof **h), calloc((size_t)rows, sizeof **h)};
    cr_assert(x && z && h[0] && h[1]);
    for (int i = 0; i < rows; i++) {
        x[i][0] = (double)net_file_random(&seed) < 2 * one - 1 ? 1 : 2;
        for (int l = 1; l < D; l++)
            x[i][l] = high * normal(&seed);
    }
    for (int n = points - 1; n >= 0; n--) {
        double sigma = sigma_at(n, points);
        for (int i = 0; i < rows; i++)
            for (int l = 1; l < D; l++)
                z[i][l] = normal(&seed);
        step_sizes(x, z, rows, sigma, 1, together, h[0]);
        step_sizes(x, z, rows, sigma, 3, together, h[1]);
        for (int i = 0; i < rows; i++)
            for (int l = 1; l < D; l++) {
                double gain = variance_of[l] + sigma * sigma, step = h[l == 3][i];
                double y = x[i][l] - step * (x[i][l] - mean_of[l]) / gain +
                           0.8 * sqrt(2 * step) * z[i][l];
                x[i][l] = predict(x[i], y, l, n, points, s4, &seed);
            }
    }
    for (int s = 0; s < STATES; s++)
        p[s] = 0;
    for (int i = 0; i < rows; i++)
        p[state_of((int)x[i][0], x[i][1] > 0.5, x[i][2] > 0.5, order_of(x[i][3]))] +=
            1.0 / rows;
    free(x);
    free(z);
    free(h[0]);
    free(h[1]);
}

/* ---- runs --------------------------------------------------------------------------------- */

static void write_files(vec_files *files)
{
    static const double matrix[D] = {0, 0, 0, 1};
    *files = (vec_files){0};
    net_file_meta(&files->model, "kac.arch", "gmm");
    net_file_meta(&files->model, "kac.nodes", "2");
    net_file_meta(&files->model, "kac.features", "1");
    net_file_meta(&files->model, "kac.noise_nodes", "ve 0.1 1");
    net_file_meta(&files->model, "kac.noise_pairs", "ve 0.1 1");
    net_file_meta(&files->model, "kac.node_counts", "1:1,2:3");
    vec_fill(&files->model, "means", mean_of, 1, D);
    vec_fill(&files->model, "variances", variance_of, 1, D);
    vec_fill(&files->model, "weights", (double[]){1}, 0, 1);
    net_file_write(&files->model);
    net_file_meta(&files->reward, "kac.arch", "quadratic");
    vec_fill(&files->reward, "matrix", matrix, 1, D);
    vec_fill(&files->reward, "target", (double[]){1}, 0, 1);
    vec_fill(&files->reward, "deviation", (double[]){1}, 0, 1);
    vec_fill(&files->reward, "linear", linear, 0, D);
    net_file_write(&files->reward);
}

/* Means over groups of exp(log_weight) at each state, or plain shares. */
static void run_law(const vec_files *files, const char *settings, int particles, bool weighted,
                    double *mean, double *error, double *n)
{
    kac_run *run = NULL;
    char text[1024];
    double square[STATES] = {0};
    snprintf(text, sizeof text, "process.kind=graph %s", settings);
    cr_assert_eq(vec_run(files, text, &run), KAC_OK, "%s: %s", settings, kac_last_error());
    int64_t samples = kac_run_samples(run);
    *n = (double)samples / particles;
    memset(mean, 0, STATES * sizeof *mean);
    for (int64_t first = 0; first < samples; first += particles) {
        double own[STATES] = {0};
        for (int64_t i = first; i < first + particles; i++) {
            kac_sample s;
            cr_assert_eq(kac_run_sample(run, i, &s), KAC_OK);
            int state = parse_state(s.object);
            cr_assert_float_eq(s.reward, reward_of(state), 1e-5, "%s", s.object);
            own[state] += (weighted ? exp(s.log_weight) : 1) / particles;
        }
        for (int k = 0; k < STATES; k++) {
            mean[k] += own[k] / *n;
            square[k] += own[k] * own[k] / *n;
        }
    }
    for (int k = 0; k < STATES; k++)
        error[k] = sqrt((square[k] - mean[k] * mean[k]) / *n);
    kac_run_destroy(run);
}

/* Compares a run with the law p, tilted where it is weighted; p has an error of its own where
 * `rows` draws gave it. */
static void check_run(const char *settings, int particles, bool weighted, const double *p,
                      double rows)
{
    vec_files files;
    double mean[STATES], error[STATES], n = 0;
    write_files(&files);
    run_law(&files, settings, particles, weighted, mean, error, &n);
    vec_remove(&files);
    for (int k = 0; k < STATES; k++) {
        double tilt = weighted ? exp(reward_of(k)) : 1;
        double own = weighted ? error[k] : sqrt(p[k] * (1 - p[k]) / n);
        double more = rows > 0 ? tilt * sqrt(p[k] * (1 - p[k]) / rows) : 0;
        double off = (mean[k] - tilt * p[k]) / (hypot(own, more) + 2 * tilt / n);
        cr_expect_lt(fabs(off), z_bound, "%s: state %d is %g, want %g: %.1f off", settings, k,
                     mean[k], tilt * p[k], off);
    }
}

#define PLAIN  "sampler.algorithm=pretrained sampler.groups=40000 "
#define ALONE  "process.corrector=none process.steps=5 "
#define PAIRED "process.steps=10 process.snr=0.3 process.scale_eps=0.8 "
#define SMC                                                                                    \
    "sampler.alpha=1 sampler.groups=6000 sampler.particles=4 "                                 \
    "sampler.select.group.trigger.kind=every "

Test(graph_laws, the_predictor_alone_has_its_law)
{
    double p[STATES];
    exact_law(STEPS, false, p);
    check_run(PLAIN ALONE, 1, false, p, 0);
    exact_law(STEPS, true, p);
    check_run(PLAIN ALONE "process.predictor=euler", 1, false, p, 0);
}

Test(graph_laws, with_a_corrector_it_is_the_simulated_law)
{
    enum { ROWS = 400000 };
    double p[STATES];
    simulate(STEPS, ROWS, false, false, p);
    check_run(PLAIN PAIRED, 1, false, p, ROWS);
    simulate(STEPS, ROWS, true, false, p);
    check_run(PLAIN PAIRED "process.langevin=batch", 1, false, p, ROWS);
    simulate(STEPS, ROWS, false, true, p);
    check_run(PLAIN PAIRED "process.predictor=s4 process.steps=5", 1, false, p, ROWS);
}

Test(graph_laws, smc_has_the_tilted_law)
{
    double p[STATES];
    exact_law(STEPS, false, p);
    check_run(SMC ALONE, 4, true, p, 0);
    check_run(SMC ALONE "sampler.children=3", 4, true, p, 0);
    check_run(SMC ALONE "sampler.value.estimate=soft sampler.reuse=off", 4, true, p, 0);
    check_run(SMC ALONE "sampler.value.kind=state sampler.children=2", 4, true, p, 0);
    check_run(SMC ALONE "sampler.on_dead=revive sampler.revive.levels=2", 4, true, p, 0);
}

/* A value that sums the atoms of a graph, times `weight`. */
static void write_value(net_file *f, double weight)
{
    static const char *const ones[] = {"convs.0.nn.0.weight", "convs.0.nn.3.weight"};
    static const char *const biases[] = {"convs.0.nn.0.bias", "convs.0.nn.3.bias"};
    *f = (net_file){0};
    net_file_meta(f, "kac.arch", "gin");
    net_file_meta(f, "kac.nodes", "2");
    net_file_meta(f, "kac.features", "1");
    net_file_meta(f, "kac.edges", "complete");
    for (int i = 0; i < 2; i++) {
        vec_fill(f, ones[i], (double[]){1}, 1, 1);
        vec_fill(f, biases[i], (double[]){i == 0 ? 3 : 0}, 0, 1);
    }
    vec_fill(f, "lin.weight", &weight, 1, 1);
    vec_fill(f, "lin.bias", (double[]){0.5}, 0, 1);
    net_file_write(f);
}

/* A run of these settings with a value that was learned. */
static void check_learned(const char *given)
{
    net_file value;
    char settings[1024];
    double p[STATES];
    exact_law(STEPS, false, p);
    write_value(&value, 0.4);
    snprintf(settings, sizeof settings, "%s sampler.value.file=%s", given, value.path);
    check_run(settings, 4, true, p, 0);
    net_file_remove(&value);
}

Test(graph_laws, smc_with_a_learned_value_has_the_tilted_law)
{
    check_learned(SMC ALONE "sampler.value.kind=learned");
}

/* Children with more of what the value likes are kept. */
Test(graph_laws, svdd_mc_follows_a_learned_value)
{
    double atoms[2] = {0, 0};
    for (int side = 0; side < 2; side++) {
        vec_files files;
        net_file value;
        char settings[1024];
        double mean[STATES], error[STATES], n = 0;
        write_value(&value, side == 0 ? -1 : 1);
        write_files(&files);
        snprintf(settings, sizeof settings,
                 "sampler.algorithm=svdd_mc sampler.children=4 sampler.groups=2000 "
                 "sampler.particles=1 " ALONE "sampler.value.file=%s",
                 value.path);
        run_law(&files, settings, 1, false, mean, error, &n);
        for (int k = 0; k < STATES; k++) {
            double x[D];
            numbers_of(k, x);
            atoms[side] += mean[k] * (x[1] + x[2]) / x[0];
        }
        vec_remove(&files);
        net_file_remove(&value);
    }
    cr_expect_gt(atoms[1], atoms[0] + 0.2, "%g and %g", atoms[1], atoms[0]);
}

Test(graph_laws, smc_with_a_corrector_has_the_tilted_law)
{
    enum { ROWS = 400000 };
    double p[STATES];
    simulate(STEPS, ROWS, false, false, p);
    check_run(SMC PAIRED "sampler.children=2", 4, true, p, ROWS);
    check_run(SMC PAIRED "sampler.potential=max", 4, true, p, ROWS);
}

#define TDS                                                                                    \
    "sampler.algorithm=tds sampler.alpha=1 sampler.groups=6000 sampler.particles=4 "           \
    "sampler.select.group.trigger.kind=every "

Test(graph_laws, tds_has_the_tilted_law)
{
    double p[STATES];
    exact_law(STEPS, false, p);
    check_run(TDS ALONE, 4, true, p, 0);
    check_run(TDS ALONE "sampler.children=2 sampler.twist.scale=-0.5", 4, true, p, 0);
    exact_law(STEPS, true, p);
    check_run(TDS ALONE "process.predictor=euler sampler.reuse=off", 4, true, p, 0);
}

Test(graph_laws, tds_with_a_corrector_has_the_tilted_law)
{
    enum { ROWS = 400000 };
    double p[STATES];
    simulate(STEPS, ROWS, false, false, p);
    check_run(TDS PAIRED, 4, true, p, ROWS);
    simulate(STEPS, ROWS, false, true, p);
    check_run(TDS PAIRED "process.predictor=s4 process.steps=5", 4, true, p, ROWS);
}

/* The gradient of a network at the state itself. */
Test(graph_laws, tds_along_a_learned_value_has_the_tilted_law)
{
    check_learned(TDS ALONE "sampler.twist.kind=value");
}

/* The gmm answers with the estimate, in x of gain S / (S + b^2): the tilt is that of the reward
 * there, and the half of the moves that is the corrector's goes without. */
Test(graph_laws, the_tilt_is_the_gradient_through_the_denoiser)
{
    enum { PARTICLES = 9, ALL = 4 };
    vec_files files;
    kac_config *config = NULL;
    kac_run *r = NULL;
    int tilted = 0;
    write_files(&files);
    cr_assert_eq(vec_config(&files,
                            "process.kind=graph process.steps=4 device.batch=4 "
                            "sampler.algorithm=tds sampler.groups=1 sampler.particles=9 "
                            "reward.0.weight=2",
                            &config),
                 KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_run_create(config, &r), KAC_OK, "%s", kac_last_error());
    for (int k = ALL; k > 0; k--) {
        double sigma = sigma_at((k - 1) / 2, ALL / 2);
        cr_assert_eq(r->level, k);
        cr_expect_eq(kac_tilts(r), k == 3, "level %d", k);
        cr_assert_eq(kac_evaluate_parents(r, &r->x), KAC_OK);
        cr_assert_eq(kac_evaluate_twist(r), KAC_OK);
        for (int i = 0; kac_tilts(r) && i < PARTICLES; i++) {
            const float *x = kac_vector(r->x.x, i, r->shape.stride);
            const float *tilt = r->twist.tilt + (ptrdiff_t)r->census_entry[i] * D;
            for (int l = 0; l < D; l++) {
                double gain = variance_of[l] / (variance_of[l] + sigma * sigma);
                double d = mean_of[l] + gain * ((double)x[l] - mean_of[l]);
                double slope = linear[l] - (l == 3 ? d - 1 : 0);
                bool live = l > 0 && (l == 1 || x[0] == 2);
                cr_expect_float_eq((double)tilt[l], live ? 2 * gain * slope : 0, 1e-5,
                                   "level %d, particle %d, number %d", k, i, l);
            }
            tilted++;
        }
        cr_assert_eq(kac_run_step(r), KAC_OK, "%s", kac_last_error());
    }
    cr_expect_eq(tilted, PARTICLES);
    kac_run_destroy(r);
    kac_config_destroy(config);
    vec_remove(&files);
}

Test(graph_laws, given_numbers_of_nodes_come_before_the_files)
{
    vec_files files;
    double mean[STATES], error[STATES], n = 0, single = 0;
    write_files(&files);
    run_law(&files,
            "sampler.algorithm=pretrained sampler.groups=200 process.steps=4 process.nodes=1",
            1, false, mean, error, &n);
    for (int k = 0; k < 2; k++)
        single += mean[k];
    cr_expect_float_eq(single, 1, 1e-12);
    vec_remove(&files);
}

/* Objects and weights of a run, one after the other, in `text`. */
static void run_text(const vec_files *files, const char *settings, char *text, size_t size)
{
    kac_run *run = NULL;
    size_t used = 0;
    cr_assert_eq(vec_run(files, settings, &run), KAC_OK, "%s: %s", settings, kac_last_error());
    for (int64_t i = 0; i < kac_run_samples(run); i++) {
        kac_sample s;
        cr_assert_eq(kac_run_sample(run, i, &s), KAC_OK);
        used += (size_t)snprintf(text + used, size - used, "%s %a\n", s.object, s.log_weight);
        cr_assert(used < size);
    }
    kac_run_destroy(run);
}

/* On this build's device, the bytes of one thread of the CPU: so laws hold there that the rest of
 * the suite looks for on the CPU. */
Test(graph_laws, devices_threads_batches_and_reuse_change_nothing)
{
    static char want[1 << 16], found[1 << 16];
    static const char *const ways[] = {"", "device.threads=3", "device.batch=7",
                                       "sampler.reuse=off", "device.threads=2 device.batch=64"};
    vec_files files;
    write_files(&files);
    for (int kind = 0; kind < 3; kind++) {
        char settings[512];
        const char *base = "process.kind=graph process.steps=8 sampler.groups=9 "
                           "sampler.particles=5 sampler.children=3 "
                           "sampler.select.group.trigger.kind=every process.langevin=";
        const char *norms = kind == 0   ? "particle"
                            : kind == 1 ? "batch"
                                        : "particle sampler.twist.kind=posterior_mean";
        snprintf(settings, sizeof settings, "%s%s device.name=cpu device.threads=1", base,
                 norms);
        run_text(&files, settings, want, sizeof want);
        for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
            snprintf(settings, sizeof settings, "%s%s device.name=%s %s", base, norms,
                     device_name(), ways[i]);
            run_text(&files, settings, found, sizeof found);
            cr_expect_str_eq(found, want, "%s", settings);
        }
    }
    vec_remove(&files);
}

/* One evaluation of each particle serves all its children: n + (T - 1) n M in all, where every
 * child is valued and the last move makes objects. */
Test(graph_laws, a_parent_is_evaluated_once_for_all_its_children)
{
    enum { GROUPS = 5, CHILDREN = 3, LEVELS = 6 };
    vec_files files;
    kac_config *config = NULL;
    kac_run *run = NULL;
    kac_progress progress = {0};
    write_files(&files);
    cr_assert_eq(vec_config(&files,
                            "process.kind=graph process.steps=6 sampler.algorithm=svdd_pm "
                            "sampler.groups=5 sampler.particles=1 sampler.children=3",
                            &config),
                 KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_config_set(config, "device.name", device_name()), KAC_OK);
    cr_assert_eq(kac_run_create(config, &run), KAC_OK, "%s", kac_last_error());
    cr_expect_eq(kac_run_steps(run), LEVELS);
    for (int k = 0; k < LEVELS; k++)
        cr_assert_eq(kac_run_step(run), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_run_sync(run, &progress), KAC_OK);
    cr_expect_eq(progress.denoiser_calls, GROUPS + (LEVELS - 1) * GROUPS * CHILDREN, "%d",
                 (int)progress.denoiser_calls);
    kac_run_destroy(run);
    kac_config_destroy(config);
    vec_remove(&files);
}

/* ---- what is refused ---------------------------------------------------------------------- */

static void expect_refusal(const vec_files *files, const char *settings, kac_status want,
                           const char *words)
{
    kac_run *run = NULL;
    char text[1024];
    snprintf(text, sizeof text, "process.kind=graph process.steps=4 %s", settings);
    kac_status status = vec_run(files, text, &run);
    cr_expect_eq(status, want, "%s: status %d", settings, (int)status);
    cr_expect_neq(strstr(kac_last_error(), words), NULL, "%s: %s", settings, kac_last_error());
    if (status == KAC_OK) kac_run_destroy(run);
}

Test(graph_laws, settings_that_graphs_do_not_go_with_are_refused)
{
    static const char *const cases[][2] = {
        {"process.steps=5", "even number, found 5"},
        {"process.corrector=none process.langevin=batch", "a corrector for batch"},
        {"process.schedule=ve", "graph with model"},
        {"process.eta=0.5", "process.eta: it does nothing with process.schedule model"},
        {"process.nodes=3", "graphs of 3 nodes; the model's have at most 2"},
        {"process.length=3", "vectors of length 4 only, not 3"},
        {"model.unconditional=x", "needs one denoiser"},
        {"sampler.value.estimate=sample", "needs argmax or soft"},
        {"sampler.algorithm=rerd sampler.alpha=1",
         "driver.kind: process.kind graph needs none"},
        {"output.likelihood=on", "needs off"},
        {"sampler.on_dead=revive sampler.revive.levels=1", "2 or more with kind graph"},
        {"sampler.on_dead=revive process.langevin=batch", "weights that are proper"},
    };
    vec_files files;
    write_files(&files);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_refusal(&files, cases[i][0], KAC_ERR_INVALID, cases[i][1]);
    kac_config *config = NULL;
    cr_assert_eq(vec_config(&files, "", &config), KAC_OK);
    cr_expect_eq(kac_config_set(config, "process.nodes", "3:x"), KAC_ERR_INVALID);
    cr_expect_neq(strstr(kac_last_error(), "20:3,21:5"), NULL, "%s", kac_last_error());
    cr_assert_eq(kac_config_set(config, "process.snr", "0.1"), KAC_OK);
    kac_run *run = NULL;
    cr_expect_eq(kac_run_create(config, &run), KAC_ERR_INVALID);
    cr_expect_neq(strstr(kac_last_error(), "process.snr: it does nothing"), NULL, "%s",
                  kac_last_error());
    kac_config_destroy(config);
    vec_remove(&files);
}

Test(graph_laws, files_that_do_not_say_what_graphs_they_have_are_refused)
{
    static const char *const cases[][3] = {
        {"kac.nodes", NULL, "goes with gaussian, or graph where its metadata names kac.nodes"},
        {"kac.nodes", "3", "graphs of 3 nodes with 1 features are vectors of 7 numbers"},
        {"kac.nodes", "0", "`kac.nodes`"},
        {"kac.features", NULL, "`kac.features`"},
        {"kac.noise_nodes", NULL, "`kac.noise_nodes` is missing"},
        {"kac.noise_nodes", "ve 1", "want vp with beta_min and beta_max"},
        {"kac.noise_nodes", "ve 0 1", "want vp with beta_min and beta_max"},
        {"kac.noise_nodes", "vp 2 1", "want vp with beta_min and beta_max"},
        {"kac.noise_pairs", "ve 0.1 1 2", "want vp with beta_min and beta_max"},
        {"kac.noise_pairs", "ve 0.2 1", "must be `kac.noise_nodes`"},
        {"kac.node_counts", "2:", "is not nodes:weight"},
        {"kac.node_counts", "9:1", "graphs of 9 nodes"},
        {"kac.atoms", "C;N", "`kac.atoms` is `C;N`"},
        {"kac.atoms", "C,N", "2 elements, and the nodes of"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        vec_files files;
        write_files(&files);
        net_file_meta(&files.model, cases[i][0], cases[i][1]);
        net_file_write(&files.model);
        expect_refusal(&files, "sampler.algorithm=pretrained", KAC_ERR_INVALID, cases[i][2]);
        vec_remove(&files);
    }
}

/* Two graphs in one batch, or each with its own norms: only the latter have weights. */
Test(graph_laws, a_coupled_batch_has_no_proper_weights)
{
    vec_files files;
    write_files(&files);
    for (int together = 0; together < 2; together++) {
        kac_run *run = NULL;
        kac_sample s;
        double z = 0, error = 0;
        const char *settings = together
                                   ? "process.kind=graph process.steps=4 process.langevin=batch"
                                   : "process.kind=graph process.steps=4";
        cr_assert_eq(vec_run(&files, settings, &run), KAC_OK, "%s", kac_last_error());
        cr_assert_eq(kac_run_sample(run, 0, &s), KAC_OK);
        kac_run_evidence(run, 0, &z, &error);
        cr_expect_eq(isnan(s.log_weight), together);
        cr_expect_eq(isnan(z), together);
        kac_run_destroy(run);
    }
    vec_remove(&files);
}
