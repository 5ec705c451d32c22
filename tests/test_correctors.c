/* test_correctors.c -- powers and products of denoisers of vectors, against closed forms.
 *
 * With Gaussians as data every level is Gaussian and the increments are quadratic, so what a run
 * of any number of steps gives follows from a recursion.  With mixtures of one number the target
 * prod q_i^beta_i exp(r / alpha) is an integral; runs come near it as their steps grow.
 */
#include "gaussian.h"
#include "gaussian_run.h"

#define ORDER_2 "process.order=2 "

/* More fresh noise than the ancestral move, for exponents that add up to 2. */
#define NOISY ORDER_2 "process.schedule=edm process.eta=2 process.steps=120"

/* |z| of 9 cases of 4 functions stays below this with probability 1 - 1e-6. */
static const double z_bound = 5.6;

/* A mixture of normal laws of one number. */
typedef struct mixture {
    int components;
    double weight[2], mean[2], variance[2];
} mixture;

static const mixture two = {2, {1, 2}, {1.25, -1.5}, {0.25, 0.5}};
static const mixture wide = {2, {3, 2}, {0.75, -1.25}, {1.5, 1}};
static const mixture steep = {2, {1, 4}, {1.5, -1.5}, {0.25, 0.25}};
static const mixture one = {1, {1}, {0.7}, {0.5}};
static const mixture other = {1, {1}, {-0.4}, {1.25}};

/* prod q_i^beta_i: what is asked for, and as keys of the configuration. */
typedef struct product {
    const mixture *q[2]; /* the second may be NULL */
    double beta[2];
} product;

static double total(const product *p)
{
    return p->beta[0] + (p->q[1] != NULL ? p->beta[1] : 0);
}

typedef struct files {
    net_file denoiser[2], reward;
} files;

/* r(x) = -((x - 1) / 1.5)^2 / 2 + x / 4. */
static double reward_of(double x)
{
    double e = (x - 1) / 1.5;
    return -e * e / 2 + x / 4;
}

static void write_files(const product *p, files *f)
{
    *f = (files){0};
    for (int i = 0; i < 2 && p->q[i] != NULL; i++) {
        const mixture *q = p->q[i];
        net_file_meta(&f->denoiser[i], "kac.arch", "gmm");
        vec_fill(&f->denoiser[i], "means", q->mean, q->components, 1);
        vec_fill(&f->denoiser[i], "variances", q->variance, 0, q->components);
        vec_fill(&f->denoiser[i], "weights", q->weight, 0, q->components);
        net_file_write(&f->denoiser[i]);
    }
    net_file_meta(&f->reward, "kac.arch", "quadratic");
    vec_fill(&f->reward, "matrix", (double[]){1}, 1, 1);
    vec_fill(&f->reward, "target", (double[]){1}, 0, 1);
    vec_fill(&f->reward, "deviation", (double[]){1.5}, 0, 1);
    vec_fill(&f->reward, "linear", (double[]){0.25}, 0, 1);
    net_file_write(&f->reward);
}

static void remove_files(files *f)
{
    net_file_remove(&f->denoiser[0]);
    net_file_remove(&f->denoiser[1]);
    net_file_remove(&f->reward);
}

/* Finishes a run; the caller destroys it. */
static kac_status run_files(const product *p, const files *f, bool rewarded,
                            const char *settings, kac_run **out)
{
    kac_config *config = NULL;
    kac_run *run = NULL;
    char keys[1024];
    kac_status status = kac_config_create(&config);
    snprintf(
        keys, sizeof keys,
        "process.kind=gaussian model.file=%s process.anneal=%.17g sampler.algorithm=smc %s",
        f->denoiser[0].path, total(p), settings);
    if (status == KAC_OK) status = table_configure(config, keys);
    if (rewarded) {
        snprintf(keys, sizeof keys, "reward.0.kind=quadratic reward.0.file=%s", f->reward.path);
        if (status == KAC_OK) status = table_configure(config, keys);
    }
    if (p->q[1] != NULL) {
        snprintf(keys, sizeof keys, "model.unconditional=%s model.guidance=%.17g",
                 f->denoiser[1].path, -p->beta[1] / total(p));
        if (status == KAC_OK) status = table_configure(config, keys);
    }
    if (status == KAC_OK) status = kac_run_create(config, &run);
    for (int64_t k = 0; status == KAC_OK && k < kac_run_steps(run); k++)
        status = kac_run_step(run);
    if (status == KAC_OK) status = kac_run_finish(run);
    kac_config_destroy(config);
    if (status != KAC_OK)
        kac_run_destroy(run);
    else
        *out = run;
    return status;
}

enum { PHI = 4 };

static void functions(double x, double *phi)
{
    phi[0] = 1;
    phi[1] = x;
    phi[2] = x * x;
    phi[3] = x > 0;
}

/* Means over all samples of exp(log_weight) phi, and their errors with groups as replicates. */
static void weighted_means(const kac_run *run, int particles, double *mean, double *error)
{
    int64_t n = kac_run_samples(run), groups = n / particles;
    double square[PHI] = {0};
    memset(mean, 0, PHI * sizeof *mean);
    for (int64_t first = 0; first < n; first += particles) {
        double of_group[PHI] = {0};
        for (int64_t i = first; i < first + particles; i++) {
            kac_sample s;
            double x = 0, phi[PHI];
            cr_assert_eq(kac_run_sample(run, i, &s), KAC_OK);
            vec_parse(s.object, 1, &x);
            functions(x, phi);
            for (int j = 0; j < PHI; j++)
                of_group[j] += exp(s.log_weight) * phi[j] / particles;
        }
        for (int j = 0; j < PHI; j++) {
            mean[j] += of_group[j] / (double)groups;
            square[j] += of_group[j] * of_group[j] / (double)groups;
        }
    }
    for (int j = 0; j < PHI; j++)
        error[j] = sqrt((square[j] - mean[j] * mean[j]) / (double)groups);
}

/* ---- Gaussians: a recursion ------------------------------------------------------------- */

/* log weight, mean and covariance of (u, d one level up), u = x / a. */
typedef struct law {
    double log_z, mean[2], cov[2][2];
} law;

/* Weighs by exp(curve u^2 / 2 + slope u + height). */
static void weigh_law(law *g, double curve, double slope, double height)
{
    double m = g->mean[0], v = g->cov[0][0], left = 1 - curve * v;
    cr_assert(left > 0, "the weights have no mean");
    double shift[2] = {g->cov[0][0], g->cov[1][0]};
    g->log_z += height - log(left) / 2 +
                (curve * m * m + 2 * slope * m + slope * slope * v) / (2 * left);
    for (int i = 0; i < 2; i++)
        g->mean[i] += shift[i] * (slope + curve * m) / left;
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++)
            g->cov[i][j] += shift[i] * shift[j] * curve / left;
}

/* Noise to signal of level k, squared. */
static double tau_of(const vec_grid *grid, int k)
{
    double scale = 1, noise = 0;
    vec_level(grid, k, &scale, &noise);
    return noise * noise / (scale * scale);
}

/* Step from level k; the estimate is gain u + rest. */
static void move_law(law *g, const vec_grid *grid, int k, double power, double gain,
                     double rest)
{
    double high = tau_of(grid, k), low = tau_of(grid, k - 1), rho = low / high;
    double eta = grid->eta * grid->eta, drift = (1 + eta) / 2 * power, p = 2 * drift - 1;
    double keep = pow(rho, drift);
    double fresh = eta * (p == 0 ? -low * log(rho) : (low - high * pow(rho, 2 * drift)) / p);
    if (power == 1 && eta < 1) {
        fresh = eta * low * (1 - rho);
        keep = sqrt((low - fresh) / high);
    }
    double e = grid->order == 2 && k > 1 && k < grid->steps
                   ? log(rho) / (2 * log(high / tau_of(grid, k + 1)))
                   : 0;
    double f[2][2] = {{keep + (1 - keep) * (1 + e) * gain, -(1 - keep) * e}, {gain, 0}};
    double add[2] = {(1 - keep) * (1 + e) * rest, rest};
    law from = *g;
    for (int i = 0; i < 2; i++) {
        g->mean[i] = add[i] + f[i][0] * from.mean[0] + f[i][1] * from.mean[1];
        for (int j = 0; j < 2; j++) {
            g->cov[i][j] = i == 0 && j == 0 && low > 0 ? fresh : 0;
            for (int v = 0; v < 2; v++)
                for (int w = 0; w < 2; w++)
                    g->cov[i][j] += f[i][v] * from.cov[v][w] * f[j][w];
        }
    }
}

/* What the run on one or two Gaussians gives: from G = (S^2 - sum beta_i s_i^2) / 2 with
 * s_i = (m_i - u) / (v_i + tau), as it stands. */
static law gaussian_law(const product *p, const vec_grid *grid)
{
    double top = tau_of(grid, grid->steps), power = total(p);
    law g = {.log_z = ((1 - power) * log(2 * acos(-1.0) * top) - log(power)) / 2,
             .cov = {{top / power}}};
    for (int k = grid->steps; k > 0; k--) {
        double tau = tau_of(grid, k), s[2] = {0}, square[3] = {0}, gain = 0, rest = 0;
        for (int i = 0; i < 2 && p->q[i] != NULL; i++) {
            double slope = -1 / (p->q[i]->variance[0] + tau), at = -slope * p->q[i]->mean[0];
            s[0] += p->beta[i] * slope;
            s[1] += p->beta[i] * at;
            square[0] -= p->beta[i] * slope * slope;
            square[1] -= p->beta[i] * slope * at;
            square[2] -= p->beta[i] * at * at;
            gain += p->beta[i] / power * (1 + tau * slope);
            rest += p->beta[i] / power * tau * at;
        }
        double length = k > 1 ? tau * log(tau / tau_of(grid, k - 1)) / 2 : tau;
        if (k < grid->steps) length += tau * log(tau_of(grid, k + 1) / tau) / 2;
        if (k == 1 && k < grid->steps) cr_assert(length > tau);
        weigh_law(&g, length * (s[0] * s[0] + square[0]), length * (s[0] * s[1] + square[1]),
                  length * (s[1] * s[1] + square[2]) / 2);
        move_law(&g, grid, k, power, gain, rest);
    }
    return g;
}

Test(correctors, gaussians_at_any_number_of_steps)
{
    static const struct {
        product p;
        vec_grid grid;
    } cases[] = {
        {{{&one, NULL}, {0.5, 0}}, {"vp", 12, 1, 1}},
        {{{&one, NULL}, {1.5, 0}}, {"edm", 24, 1, 2}},
        {{{&one, NULL}, {0.7, 0}}, {"ve", 16, 0.5, 2}},
        {{{&one, &other}, {2, -1}}, {"edm", 16, 1.5, 1}},
        {{{&one, &other}, {1, 1}}, {"edm", 32, 1.5, 2}},
        {{{&one, &other}, {1.5, -0.5}}, {"vp", 9, 0.6, 1}},
        {{{&one, &other}, {0.75, 0.75}}, {"edm", 24, 1, 1}},
        {{{&one, &other}, {2, -1}}, {"vp", 16, 1, 2}},
        {{{&one, &other}, {0.3, 0.4}}, {"vp", 2, 0.8, 1}},
    };
    enum { PARTICLES = 8 };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const vec_grid *grid = &cases[c].grid;
        law g = gaussian_law(&cases[c].p, grid);
        double m = g.mean[0], v = g.cov[0][0], mean[PHI], error[PHI];
        double exact[PHI] = {1, m, v + m * m, erfc(-m / sqrt(2 * v)) / 2};
        char settings[512];
        kac_run *run = NULL;
        files f;
        snprintf(settings, sizeof settings,
                 "process.schedule=%s process.steps=%d process.eta=%g process.order=%d "
                 "sampler.groups=%d sampler.particles=%d seed=%d",
                 grid->schedule, grid->steps, grid->eta, grid->order, 2000 * table_scale(),
                 PARTICLES, (int)c + 1);
        write_files(&cases[c].p, &f);
        cr_assert_eq(run_files(&cases[c].p, &f, false, settings, &run), KAC_OK, "%s",
                     kac_last_error());
        weighted_means(run, PARTICLES, mean, error);
        for (int j = 0; j < PHI; j++)
            cr_expect(fabs(mean[j] - exp(g.log_z) * exact[j]) < z_bound * error[j],
                      "case %zu: function %d is %g +- %g, exact %g", c, j, mean[j], error[j],
                      exp(g.log_z) * exact[j]);
        kac_run_destroy(run);
        remove_files(&f);
    }
}

/* The recursion itself: order 2 with eta 1 comes nearer with the square of the steps, whatever
 * the exponents; log_z is that of the product of the densities. */
Test(correctors, gaussians_in_the_limit_of_many_steps)
{
    static const product cases[] = {{{&one, NULL}, {2, 0}},
                                    {{&one, NULL}, {0.5, 0}},
                                    {{&one, &other}, {1, 1}},
                                    {{&one, &other}, {2, -1}}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const product *p = &cases[c];
        double precision = 0, pull = 0, log_z = 0, off[2][2];
        for (int i = 0; i < 2 && p->q[i] != NULL; i++) {
            double b = p->beta[i], m = p->q[i]->mean[0], v = p->q[i]->variance[0];
            precision += b / v;
            pull += b * m / v;
            log_z -= b * (log(2 * acos(-1.0) * v) + m * m / v) / 2;
        }
        log_z += (log(2 * acos(-1.0) / precision) + pull * pull / precision) / 2;
        for (int fine = 0; fine < 2; fine++) {
            vec_grid grid = {"vp", fine ? 400 : 100, 1, 2};
            law g = gaussian_law(p, &grid);
            off[fine][0] = fabs(g.log_z - log_z);
            off[fine][1] = fabs(g.cov[0][0] * precision - 1);
        }
        for (int j = 0; j < 2; j++)
            cr_expect(off[1][j] < off[0][j] / 8 + 1e-3 && off[1][j] < 0.01 && off[0][j] < 0.1,
                      "case %zu: %d is off by %g, then %g", c, j, off[0][j], off[1][j]);
    }
}

/* ---- mixtures: an integral -------------------------------------------------------------- */

static double density(const mixture *q, double x)
{
    double sum = 0, weight = 0;
    for (int k = 0; k < q->components; k++) {
        double e = x - q->mean[k], v = q->variance[k];
        sum += q->weight[k] * exp(-e * e / (2 * v)) / sqrt(2 * acos(-1.0) * v);
        weight += q->weight[k];
    }
    return sum / weight;
}

/* log Z, then means of the functions after the first, of prod q_i^beta_i exp(r / alpha). */
static void integrate(const product *p, double alpha, double *exact)
{
    const double h = 1e-3;
    memset(exact, 0, PHI * sizeof *exact);
    for (int cell = -12000; cell < 12000; cell++) {
        double x = (cell + 0.5) * h;
        double log_p = alpha > 0 ? reward_of(x) / alpha : 0, phi[PHI];
        for (int i = 0; i < 2 && p->q[i] != NULL; i++)
            log_p += p->beta[i] * log(density(p->q[i], x));
        functions(x, phi);
        for (int j = 0; j < PHI; j++)
            exact[j] += h * exp(log_p) * phi[j];
    }
    for (int j = 1; j < PHI; j++)
        exact[j] /= exact[0];
    exact[0] = log(exact[0]);
}

/* The same of a run: log evidence, and means of the samples under their weights, with errors
 * from the groups.  With weights that are ignored, plain means and no evidence. */
static void sample(const product *p, double alpha, const char *more, double *found,
                   double *error)
{
    enum { PARTICLES = 128, GROUPS = 160 };
    char settings[512];
    double sum[GROUPS][PHI] = {{0}}, all[PHI] = {0};
    kac_run *run = NULL;
    files f;
    snprintf(settings, sizeof settings,
             "sampler.alpha=%g sampler.groups=%d sampler.particles=%d %s",
             alpha > 0 ? alpha : 1, GROUPS, PARTICLES, more);
    write_files(p, &f);
    cr_assert_eq(run_files(p, &f, alpha > 0, settings, &run), KAC_OK, "%s", kac_last_error());
    kac_run_evidence(run, 0, &found[0], &error[0]);
    for (int64_t i = 0; i < kac_run_samples(run); i++) {
        kac_sample s;
        double x = 0, phi[PHI];
        cr_assert_eq(kac_run_sample(run, i, &s), KAC_OK);
        vec_parse(s.object, 1, &x);
        functions(x, phi);
        for (int j = 0; j < PHI; j++) {
            double part = (isnan(s.log_weight) ? 1 : exp(s.log_weight)) * phi[j];
            sum[s.group][j] += part;
            all[j] += part;
        }
    }
    for (int j = 1; j < PHI; j++) {
        double square = 0;
        found[j] = all[j] / all[0];
        for (int g = 0; g < GROUPS; g++)
            square += pow(sum[g][j] - found[j] * sum[g][0], 2);
        error[j] = sqrt(square) / all[0];
    }
    kac_run_destroy(run);
    remove_files(&f);
}

typedef struct mix_case {
    product p;
    double alpha; /* 0: no reward */
    const char *settings;
} mix_case;

/* Within what the number of steps may leave, and 4 errors; these must be small themselves. */
static void check_mixtures(const mix_case *cases, size_t n)
{
    static const double left[PHI] = {0.02, 0.02, 0.03, 0.005};
    static const double most[PHI] = {0.03, 0.03, 0.04, 0.008};
    for (size_t c = 0; c < n; c++) {
        double exact[PHI], found[PHI], error[PHI];
        integrate(&cases[c].p, cases[c].alpha, exact);
        sample(&cases[c].p, cases[c].alpha, cases[c].settings, found, error);
        for (int j = 0; j < PHI; j++) {
            cr_expect(fabs(found[j] - exact[j]) < left[j] + 4 * error[j],
                      "case %zu: function %d is %g +- %g, exact %g", c, j, found[j], error[j],
                      exact[j]);
            cr_expect_lt(error[j], most[j], "case %zu: function %d +- %g", c, j, error[j]);
        }
    }
}

Test(correctors, a_mixture_to_a_power)
{
    static const mix_case cases[] = {
        {{{&steep, NULL}, {2, 0}}, 0, NOISY},
        {{{&steep, NULL}, {0.5, 0}}, 0, ORDER_2 "process.steps=80"},
        {{{&two, NULL}, {1.5, 0}}, 0, ORDER_2 "process.steps=80 process.schedule=edm"},
    };
    check_mixtures(cases, 3);
}

Test(correctors, products_of_two_mixtures)
{
    static const mix_case cases[] = {
        {{{&two, &wide}, {1, 1}}, 0, NOISY},
        {{{&two, &wide}, {0.25, 0.75}}, 0, ORDER_2 "process.steps=80"},
        {{{&two, &wide}, {2, -1}}, 0, ORDER_2 "process.steps=80"},
    };
    check_mixtures(cases, 3);
}

Test(correctors, a_reward_on_top)
{
    static const mix_case cases[] = {
        {{{&two, NULL}, {2, 0}}, 1, NOISY},
        {{{&two, &wide}, {0.75, 0.5}}, 0.5, ORDER_2 "process.steps=100"},
        {{{&two, &wide}, {2, -1}},
         1,
         ORDER_2 "process.steps=80 sampler.twist.kind=posterior_mean"},
    };
    check_mixtures(cases, 3);
}

/* What the weights are for: without them the modes have other shares. */
Test(correctors, ignored_weights_give_another_law)
{
    static const product cases[] = {{{&two, NULL}, {2, 0}},
                                    {{&steep, NULL}, {0.5, 0}},
                                    {{&two, &wide}, {1, 1}},
                                    {{&two, &wide}, {2, -1}}};
    for (int c = 0; c < 4; c++) {
        double exact[PHI], found[PHI], error[PHI];
        integrate(&cases[c], 0, exact);
        sample(&cases[c], 0, ORDER_2 "process.steps=120 sampler.twist.weights=ignore", found,
               error);
        cr_expect(isnan(found[0]), "not properly weighted");
        cr_expect_gt(fabs(found[3] - exact[3]), 4 * error[3], "case %d: %g, exact %g", c,
                     found[3], exact[3]);
    }
}

/* Order 1: the error of the second moment falls as the number of steps grows. */
Test(correctors, more_steps_are_nearer)
{
    static const product p = {{&two, &wide}, {0.5, 0.5}};
    static const char *const steps[] = {"process.steps=8", "process.steps=24",
                                        "process.steps=72"};
    double exact[PHI], last = HUGE_VAL;
    integrate(&p, 0, exact);
    for (int k = 0; k < 3; k++) {
        double found[PHI], error[PHI];
        sample(&p, 0, steps[k], found, error);
        double off = fabs(found[2] - exact[2]);
        cr_expect_lt(off, last / 2, "%s: off by %g, before by %g", steps[k], off, last);
        last = off;
    }
}

/* ---- invariance, and what is refused ---------------------------------------------------- */

Test(correctors, samples_do_not_depend_on_batches_or_reuse)
{
    static const char *const changes[] = {"device.batch=3", "sampler.reuse=off",
                                          "device.cache=0 device.batch=5", "device.threads=1"};
    static const product p = {{&two, &wide}, {1.25, 0.5}};
    static const char settings[] = "process.steps=7 process.order=2 sampler.groups=3 "
                                   "sampler.particles=6 sampler.children=3 "
                                   "sampler.twist.kind=posterior_mean "
                                   "sampler.select.parent.rule=categorical ";
    kac_run *base = NULL;
    files f;
    write_files(&p, &f);
    cr_assert_eq(run_files(&p, &f, true, settings, &base), KAC_OK, "%s", kac_last_error());
    for (int c = 0; c < 4; c++) {
        kac_run *run = NULL;
        char changed[512];
        snprintf(changed, sizeof changed, "%s%s", settings, changes[c]);
        cr_assert_eq(run_files(&p, &f, true, changed, &run), KAC_OK, "%s", kac_last_error());
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
    remove_files(&f);
}

Test(correctors, what_makes_no_sense_is_refused)
{
    static const struct {
        const char *settings, *says;
    } cases[] = {
        {"process.eta=0", "process.eta: process.anneal and a second denoiser of vectors need"},
        {"process.anneal=1 process.eta=0", "process.eta: process.anneal and a second denoiser"},
        {"process.anneal=0", "process.anneal: expected a number from 0.01 to 100"},
        {"process.anneal=-1", "process.anneal: expected a number from 0.01 to 100"},
        {"sampler.alpha=auto", "sampler.alpha: auto takes plain samples for draws from q"},
        {"process.kind=masked", "process.anneal: it does nothing with"},
    };
    static const product p = {{&two, &wide}, {1, 1}};
    files f;
    write_files(&p, &f);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        kac_run *run = NULL;
        cr_expect_eq(run_files(&p, &f, true, cases[c].settings, &run), KAC_ERR_INVALID, "%s",
                     cases[c].settings);
        cr_expect_neq(strstr(kac_last_error(), cases[c].says), NULL, "%s: %s",
                      cases[c].settings, kac_last_error());
        kac_run_destroy(run);
    }
    remove_files(&f);
}
