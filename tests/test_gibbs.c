/* test_gibbs.c -- particle Gibbs: a sweep that is given a path of p* leaves one of p*.
 *
 * The exact-start test: the retained path of every group is drawn from the enumerated law of
 * paths, one conditional sweep is run, and the states of the path that it leaves must follow the
 * same law at every level.  Groups are independent, so there is no autocorrelation to allow for,
 * and two particles already show every mistake.
 */
#include <criterion/criterion.h>

#include "run.h"
#include "table_run.h"

typedef enum twist_kind { UNTWISTED, TILTED, RESTRICTED } twist_kind;

typedef struct start_case {
    int groups, particles;
    const char *settings;
    int scheme; /* of selection instead of the configured one, or -1 */
} start_case;

typedef struct start_model {
    chain_grid grid;
    double alpha;
    twist_kind twist;
} start_model;

/* Letters that each site may have where they are restricted. */
static const uint32_t allowed[4] = {3, 6, 7, 5};

static bool is_allowed(const chain *c, int object)
{
    for (int l = 0; l < c->length; l++)
        if ((allowed[l] >> chain_letter(c, object, l) & 1) == 0) return false;
    return true;
}

/* Objects that may not be, and the completions of rows by letters that may. */
static void restrict_chain(chain *c)
{
    for (int o = 0; o < c->objects; o++)
        if (!is_allowed(c, o)) c->reward[o] = -HUGE_VALF;
    for (int row = 0; row < c->rows; row++) {
        c->filled[row] = 0;
        for (int l = 0; l < c->length; l++) {
            int token = chain_site(c, row, l), best = -1;
            for (int v = 0; v < c->states && token == c->states; v++)
                if ((allowed[l] >> v & 1) != 0 &&
                    (best < 0 || c->p[row][l][v] > c->p[row][l][best]))
                    best = v;
            c->filled[row] = c->filled[row] * c->states + (best < 0 ? token : best);
        }
    }
}

/* Proposals that differ from the denoiser's law, so that weights need their ratio: a tilt that is
 * the same for all states, or restricted sites. */
static void twist(kac_run *r, twist_kind kind)
{
    const kac_memory_ops *op = &r->dev->ops->memory;
    float tilt[CHAIN_LENGTH * CHAIN_STATES];
    uint64_t random = 9;
    if (kind == UNTWISTED) return;
    if (kind == RESTRICTED) {
        r->allowed = kac_take(r, r->shape.length, sizeof *r->allowed);
        cr_assert_eq(op->upload(r->dev, r->allowed, allowed, sizeof allowed), KAC_OK);
        return;
    }
    for (int k = 0; k < r->slot_floats; k++)
        tilt[k] = (float)(0.5 * chain_random(&random));
    r->twist.tilt = kac_take(r, r->slot_floats, sizeof(float)); /* rows: census_entry, 0 */
    cr_assert_eq(op->upload(r->dev, r->twist.tilt, tilt, (size_t)r->slot_floats * sizeof *tilt),
                 KAC_OK);
}

/* Gives every group a path of p*. */
static void give_paths(kac_run *r, const chain *c, const chain_paths *paths)
{
    size_t stride = (size_t)r->shape.stride, levels = (size_t)r->steps;
    uint8_t *path = calloc((size_t)r->groups * levels, stride);
    int32_t *held = calloc((size_t)r->groups, sizeof *held);
    uint64_t random = 77;
    cr_assert(path != NULL && held != NULL);
    for (int32_t g = 0; g < r->groups; g++) {
        int row = c->rows - 1;
        held[g] = 1;
        for (int level = r->steps; level > 0; level--) {
            row = chain_next(c, paths, level, row, &random);
            for (int l = 0; l < c->length; l++)
                path[((size_t)g * levels + (size_t)level - 1) * stride + (size_t)l] =
                    (uint8_t)chain_site(c, row, l);
        }
    }
    const kac_memory_ops *op = &r->dev->ops->memory;
    cr_assert_eq(
        op->upload(r->dev, r->gibbs.retained.path, path, (size_t)r->groups * levels * stride),
        KAC_OK);
    cr_assert_eq(
        op->upload(r->dev, r->gibbs.retained.held, held, (size_t)r->groups * sizeof *held),
        KAC_OK);
    free(path);
    free(held);
}

/* The largest chi-square of the paths that a run has left, over all levels, in units of its
 * bound. */
static double worst_level(const kac_run *r, const chain *c, const chain_paths *paths)
{
    static double counts[CHAIN_LEVELS][CHAIN_ROWS];
    size_t stride = (size_t)r->shape.stride, levels = (size_t)r->steps;
    size_t bytes = (size_t)r->groups * levels * stride;
    uint8_t *path = malloc(bytes);
    double worst = 0;
    memset(counts, 0, sizeof counts);
    cr_assert_eq(r->dev->ops->memory.download(r->dev, path, r->gibbs.retained.path, bytes),
                 KAC_OK);
    for (int32_t g = 0; g < r->groups; g++)
        for (size_t k = 0; k < levels; k++) {
            const uint8_t *x = path + ((size_t)g * levels + k) * stride;
            int row = 0;
            for (int l = 0; l < c->length; l++)
                row = row * (c->states + 1) + x[l];
            counts[k][row]++;
        }
    for (size_t k = 0; k < levels; k++) {
        double share = chain_chi_square(paths->law[k], counts[k], c->rows);
        if (share > worst) worst = share;
    }
    free(path);
    return worst;
}

static double run_sweep(const chain *c, const chain_paths *paths, const start_case *k,
                        twist_kind kind, const char *settings)
{
    kac_config *config = NULL;
    kac_run *run = NULL;
    cr_assert_eq(kac_config_create(&config), KAC_OK);
    cr_assert_eq(table_configure(config, settings), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_run_create(config, &run), KAC_OK, "%s: %s", settings, kac_last_error());
    if (k->scheme >= 0) run->select.scheme = (kac_scheme)k->scheme;
    twist(run, kind);
    give_paths(run, c, paths);
    for (int64_t step = 0; step < kac_run_steps(run); step++)
        cr_assert_eq(kac_run_step(run), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_run_sync(run, NULL), KAC_OK, "%s", kac_last_error());
    double worst = worst_level(run, c, paths);
    kac_run_destroy(run);
    kac_config_destroy(config);
    return worst;
}

/* Runs each case; with `right` its law must hold, else it must be seen not to. */
static void check_starts(start_model model, bool right, const start_case *cases, int count)
{
    static chain c;
    static chain_paths paths;
    char dir[256], denoiser[320], reward[320], settings[1024];

    chain_make(&c, 3, 4, false, 1);
    cr_assert(table_folder(dir));
    cr_assert_eq(table_write(&c, dir), KAC_OK, "%s", kac_last_error());
    if (model.twist == RESTRICTED) restrict_chain(&c);
    chain_find_paths(&c, model.grid, model.alpha, &paths);
    snprintf(denoiser, sizeof denoiser, "%s", table_path(dir, "denoiser").path);
    snprintf(reward, sizeof reward, "%s", table_path(dir, "reward").path);
    for (int k = 0; k < count; k++) {
        snprintf(settings, sizeof settings,
                 "sampler.algorithm=particle_gibbs driver.sweeps=0 model.file=%s "
                 "reward.0.kind=table reward.0.file=%s process.steps=%d process.schedule=%s "
                 "sampler.alpha=%g sampler.groups=%d sampler.particles=%d device.threads=1 "
                 "output.trace=off seed=%d %s",
                 denoiser, reward, model.grid.steps, model.grid.flow ? "flow" : "loglinear",
                 model.alpha, cases[k].groups * table_scale(), cases[k].particles, k + 1,
                 cases[k].settings);
        double share = run_sweep(&c, &paths, &cases[k], model.twist, settings);
        if (right)
            cr_expect(share < 1, "%s: chi-square is %.2f of its bound", cases[k].settings,
                      share);
        else
            cr_expect(share > 1.5, "%s: chi-square is only %.2f of its bound",
                      cases[k].settings, share);
    }
    table_folder_remove(dir);
}

#define CHECK_STARTS(model, right, ...)                                                        \
    do {                                                                                       \
        static const start_case cases[] = {__VA_ARGS__};                                       \
        check_starts(model, right, cases, (int)(sizeof cases / sizeof *cases));                \
    } while (0)

#define ALWAYS "sampler.select.group.trigger.kind=every "
#define ESS(share)                                                                             \
    "sampler.select.group.trigger.kind=ess sampler.select.group.trigger.below=" share " "
#define NEVER           "sampler.select.group.trigger.kind=never "
#define SCHEME(name)    "sampler.select.group.scheme=" name " "
#define POTENTIAL(name) "sampler.potential=" name " "
#define SAMPLE          "sampler.value.estimate=sample sampler.value.samples=2 "
#define NESTED                                                                                 \
    "sampler.children=3 sampler.select.parent.rule=categorical "                               \
    "sampler.select.parent.normaliser=keep "

static const start_model table = {{4, false}, 0.5, UNTWISTED};
static const start_model tilted = {{4, false}, 0.5, TILTED};
static const start_model restricted = {{4, false}, 0.5, RESTRICTED};

enum { GROUPS = 40000 };

/* ---- what is valid ---------------------------------------------------------------------- */

Test(gibbs, multinomial_leaves_the_law)
{
    CHECK_STARTS(table, true, {GROUPS, 2, ALWAYS, -1}, {GROUPS, 3, ALWAYS, -1},
                 {GROUPS, 4, ALWAYS, -1}, {GROUPS, 2, NEVER, -1});
}

Test(gibbs, killing_leaves_the_law)
{
    CHECK_STARTS(table, true, {GROUPS, 2, ALWAYS SCHEME("killing"), -1},
                 {GROUPS, 3, ALWAYS SCHEME("killing"), -1},
                 {GROUPS, 4, ALWAYS SCHEME("killing"), -1});
}

/* Whether to select may hang on the weights, the retained particle's among them. */
Test(gibbs, triggers_leave_the_law)
{
    CHECK_STARTS(table, true, {GROUPS, 2, ESS("0.8"), -1}, {GROUPS, 4, ESS("0.7"), -1},
                 {GROUPS, 3, ESS("0.8") SCHEME("killing"), -1},
                 {GROUPS, 2, ALWAYS "sampler.select.group.trigger.every=2", -1});
}

Test(gibbs, potentials_and_values_leave_the_law)
{
    CHECK_STARTS(table, true, {GROUPS, 2, ALWAYS POTENTIAL("max"), -1},
                 {GROUPS, 2, ALWAYS POTENTIAL("sum"), -1},
                 {GROUPS, 2, ALWAYS POTENTIAL("terminal"), -1}, {GROUPS, 2, ALWAYS SAMPLE, -1},
                 {GROUPS, 2, ALWAYS SAMPLE POTENTIAL("max"), -1},
                 {GROUPS, 3, ALWAYS "sampler.temper.kind=linear", -1},
                 {GROUPS, 3, ESS("0.8") "sampler.temper.kind=ess", -1});
}

Test(gibbs, children_leave_the_law)
{
    CHECK_STARTS(table, true, {GROUPS, 2, ALWAYS NESTED, -1},
                 {GROUPS, 3, ESS("0.8") NESTED SAMPLE, -1},
                 {GROUPS, 2, ALWAYS NESTED SCHEME("killing"), -1});
}

/* The retained child's ratio is that of the letters it got. */
Test(gibbs, twisted_proposals_leave_the_law)
{
    CHECK_STARTS(tilted, true, {GROUPS, 2, ALWAYS, -1},
                 {GROUPS, 2, NEVER POTENTIAL("terminal"), -1}, {GROUPS, 2, ALWAYS NESTED, -1},
                 {GROUPS, 3, ALWAYS "sampler.temper.kind=ess", -1});
    CHECK_STARTS(restricted, true, {GROUPS, 2, ALWAYS, -1},
                 {GROUPS, 3, ESS("0.8") NESTED SCHEME("killing"), -1});
}

/* The law of a chain with another grid: more steps than sites, flow. */
Test(gibbs, grids)
{
    CHECK_STARTS(((start_model){{7, true}, 0.4, UNTWISTED}), true, {GROUPS, 2, ALWAYS, -1},
                 {GROUPS, 3, ALWAYS SCHEME("killing"), -1});
    CHECK_STARTS(((start_model){{1, false}, 0.4, UNTWISTED}), true, {GROUPS, 2, ALWAYS, -1});
}

/* ---- what is not ------------------------------------------------------------------------ */

/* Schemes that do not know of the retained particle may drop it. */
Test(gibbs, other_schemes_are_seen)
{
    CHECK_STARTS(table, false, {GROUPS, 2, ALWAYS, KAC_SCHEME_TOURNAMENT},
                 {GROUPS, 4, ALWAYS, KAC_SCHEME_SYSTEMATIC},
                 {GROUPS, 3, ALWAYS, KAC_SCHEME_RESIDUAL});
}

/* ---- sweeps ----------------------------------------------------------------------------- */

/* Total-variation distance to p* of one object of each group. */
static double distance(const chain *c, const char *dir, const double *law, const char *settings)
{
    double counts[CHAIN_OBJECTS] = {0}, sum = 0;
    table_run run = {0};
    cr_assert_eq(table_sample(c, dir, settings, &run), KAC_OK, "%s", kac_last_error());
    for (int64_t i = 0; i < run.n; i++)
        counts[run.object[i]]++;
    for (int o = 0; o < c->objects; o++)
        sum += fabs(counts[o] / (double)run.n - law[o]) / 2;
    table_run_free(&run);
    return sum;
}

/* What one object of a small group lacks to p*, eight sweeps make up for.  60,000 exact draws are
 * at a distance of 0.011. */
Test(gibbs, sweeps_bring_the_law_to_p)
{
    static chain c;
    double law[CHAIN_OBJECTS], z = 0;
    char dir[256];
    chain_make(&c, 3, 4, false, 1);
    chain_forward(&c, (chain_grid){4, false}, law);
    for (int o = 0; o < c.objects; o++)
        z += law[o] *= exp((double)c.reward[o] / 0.55);
    for (int o = 0; o < c.objects; o++)
        law[o] /= z;
    cr_assert(table_folder(dir));
    cr_assert_eq(table_write(&c, dir), KAC_OK, "%s", kac_last_error());
#define SWEEPS                                                                                 \
    "sampler.algorithm=particle_gibbs process.steps=4 sampler.alpha=0.55 output.trace=off "    \
    "sampler.groups=60000 sampler.particles=4 driver.sweeps="
    double before = distance(&c, dir, law, SWEEPS "0");
    double after = distance(&c, dir, law, SWEEPS "8");
    cr_expect_gt(before, 0.08);
    cr_expect(after < before / 5, "from %g to %g", before, after);
    table_folder_remove(dir);
}

/* The kept sweeps' objects, group by group, the last of them that of a run that keeps only it;
 * evidence and weights are those of sweep 0. */
Test(gibbs, kept_sweeps)
{
    static chain c;
    char dir[256];
    table_run plain = {0}, last = {0}, kept = {0};
    chain_make(&c, 3, 4, false, 1);
    cr_assert(table_folder(dir));
    cr_assert_eq(table_write(&c, dir), KAC_OK, "%s", kac_last_error());
#define KEPT                                                                                   \
    "sampler.algorithm=particle_gibbs process.steps=4 sampler.groups=30 sampler.particles=3 "
    cr_assert_eq(table_sample(&c, dir, KEPT "driver.sweeps=0", &plain), KAC_OK);
    cr_assert_eq(table_sample(&c, dir, KEPT "driver.sweeps=5", &last), KAC_OK);
    cr_assert_eq(table_sample(&c, dir, KEPT "driver.sweeps=5 driver.burn_in=2", &kept), KAC_OK,
                 "%s", kac_last_error());
    cr_assert_eq(last.n, 30);
    cr_assert_eq(kept.n, 30 * 4);
    cr_expect_eq(plain.log_evidence, last.log_evidence);
    cr_expect_eq(plain.log_evidence, kept.log_evidence);
    int moved = 0;
    for (int i = 0; i < (int)kept.n; i++) {
        cr_assert_eq(kept.group[i], i / 4);
        cr_assert_eq(kept.slot[i], 3 * (i / 4));
        cr_assert_eq(kept.reward[i], (double)c.reward[kept.object[i]]);
        cr_assert_eq(kept.log_weight[i], plain.log_weight[i / 4]);
        moved += i % 4 > 0 && kept.object[i] != kept.object[i - 1];
    }
    for (int g = 0; g < 30; g++)
        cr_expect_eq(last.object[g], kept.object[4 * g + 3]);
    cr_expect_gt(moved, 30);
    table_run_free(&plain);
    table_run_free(&last);
    table_run_free(&kept);
    table_folder_remove(dir);
}
