/* test_laws.c -- what is sampled against what is enumerated, for everything that claims p*.
 *
 * With `final: weighted` the mean over a group's particles of exp(log_weight) phi(object) is an
 * unbiased estimate of E_q[exp(r / alpha) phi] for any number of particles, so the groups of
 * one run are replicates and a z-test of their mean needs no tolerance.  Small groups show what
 * large ones hide.  Del Moral, "Feynman-Kac Formulae", 2004.
 */
#include <criterion/criterion.h>

#include "table_run.h"

/* |z| of 17 test functions stays below this with probability 1 - 1e-6. */
static const double z_bound = 5.43;

typedef struct law_case {
    int groups;
    int particles;
    const char *settings;
} law_case;

typedef struct law_model {
    int states, length;
    bool markov;
    chain_grid grid;
    double temperature;
    double alpha;
} law_model;

static const law_model small_table = {3, 4, false, {3, false}, 1, 0.7};

/* Sums over replicates of the test functions and their squares. */
typedef struct law_sums {
    int functions;
    int64_t replicates;
    double sum[CHAIN_FUNCTIONS], square[CHAIN_FUNCTIONS];
} law_sums;

static void add_replicate(law_sums *s, const double *mean)
{
    s->replicates++;
    for (int j = 0; j < s->functions; j++) {
        s->sum[j] += mean[j];
        s->square[j] += mean[j] * mean[j];
    }
}

/* The largest |z|, and the function that has it. */
static double worst_z(const law_sums *s, const double *exact, int *which)
{
    double worst = 0, n = (double)s->replicates;
    for (int j = 0; j < s->functions; j++) {
        double mean = s->sum[j] / n, variance = s->square[j] / n - mean * mean;
        double z = fabs(mean - exact[j]) / sqrt(variance / n + 1e-20);
        if (!(z <= worst)) {
            worst = z;
            *which = j;
        }
    }
    return worst;
}

/* Mean of exp(log_weight) phi over the samples first .. last - 1. */
static void weighted_mean(const chain *c, const table_run *run, int64_t first, int64_t last,
                          double *mean)
{
    double phi[CHAIN_FUNCTIONS];
    memset(mean, 0, CHAIN_FUNCTIONS * sizeof *mean);
    for (int64_t i = first; i < last; i++) {
        double w = exp(run->log_weight[i]) / (double)(last - first);
        if (w <= 0) continue;
        int n = chain_functions(c, run->object[i], phi);
        for (int j = 0; j < n; j++)
            mean[j] += w * phi[j];
    }
}

/* Adds every group of a run as a replicate. */
static void add_groups(const chain *c, const table_run *run, law_sums *s)
{
    double mean[CHAIN_FUNCTIONS];
    for (int64_t first = 0, last; first < run->n; first = last) {
        for (last = first; last < run->n && run->group[last] == run->group[first]; last++)
            ;
        weighted_mean(c, run, first, last, mean);
        add_replicate(s, mean);
    }
}

/* The evidence that a run reports, from its own samples: log of the mean over groups, and the
 * distance to the exact value in standard errors. */
static void check_evidence(const table_run *run, const law_sums *s, double z, const char *name)
{
    double mean = s->sum[0] / (double)s->replicates;
    double n = (double)s->replicates;
    double error = sqrt((s->square[0] / n - mean * mean) / n) / mean;
    cr_expect_float_eq(run->standard_error, error, 0.01 * error, "%s: error %g for %g", name,
                       run->standard_error, error);
    cr_expect(fabs(run->log_evidence - log(mean)) <= run->standard_error,
              "%s: evidence %.6f, its groups say %.6f", name, run->log_evidence, log(mean));
    cr_expect(fabs(run->log_evidence - log(z)) <= 6 * run->standard_error,
              "%s: evidence %.6f +- %.6f, exact %.6f", name, run->log_evidence,
              run->standard_error, log(z));
}

static void check_laws(law_model model, const law_case *cases, int count)
{
    static chain c;
    double exact[CHAIN_FUNCTIONS];
    char dir[256], settings[1024];

    chain_make(&c, model.states, model.length, model.markov, 1);
    chain_temper(&c, model.temperature);
    int functions = chain_tilted(&c, model.grid, model.alpha, exact);
    cr_assert(table_folder(dir));
    cr_assert_eq(table_write(&c, dir), KAC_OK, "%s", kac_last_error());

    for (int k = 0; k < count; k++) {
        table_run run = {0};
        law_sums sums = {.functions = functions};
        int which = 0;
        snprintf(settings, sizeof settings,
                 "process.steps=%d process.schedule=%s process.temperature=%g "
                 "sampler.alpha=%g sampler.groups=%d sampler.particles=%d seed=%d %s",
                 model.grid.steps, model.grid.flow ? "flow" : "loglinear", model.temperature,
                 model.alpha, cases[k].groups * table_scale(), cases[k].particles, k + 1,
                 cases[k].settings);
        kac_status status = table_sample(&c, dir, settings, &run);
        cr_assert_eq(status, KAC_OK, "%s: %s", settings, kac_last_error());
        add_groups(&c, &run, &sums);
        cr_expect_eq(sums.replicates, cases[k].groups * table_scale(),
                     "%s: a group has no sample", settings);
        double z = worst_z(&sums, exact, &which);
        cr_expect(z < z_bound, "%s: function %d is %.1f standard errors off (%g for %g)",
                  settings, which, z, sums.sum[which] / (double)sums.replicates, exact[which]);
        check_evidence(&run, &sums, exact[0], settings);
        table_run_free(&run);
    }
    table_folder_remove(dir);
}

#define CHECK_LAWS(model, ...)                                                                 \
    do {                                                                                       \
        static const law_case cases[] = {__VA_ARGS__};                                         \
        check_laws(model, cases, (int)(sizeof cases / sizeof *cases));                         \
    } while (0)

#define SMC     "sampler.algorithm=smc "
#define LEARNED "sampler.value.kind=learned "
#define ALWAYS  "sampler.select.group.trigger.kind=every "
#define ESS(share)                                                                             \
    "sampler.select.group.trigger.kind=ess sampler.select.group.trigger.below=" share " "
#define NEVER           "sampler.select.group.trigger.kind=never "
#define SCHEME(name)    "sampler.select.group.scheme=" name " "
#define POTENTIAL(name) "sampler.potential=" name " "
#define SOFT            "sampler.value.estimate=soft "
#define SAMPLE          "sampler.value.estimate=sample sampler.value.samples=2 "
#define NESTED          "sampler.algorithm=nested "
#define POOL            "sampler.algorithm=smc sampler.select.parent.rule=none "

/* ---- the enumeration itself ------------------------------------------------------------- */

Test(laws, enumeration_sums_to_one_and_finds_the_data_law)
{
    static chain c;
    double law[CHAIN_OBJECTS], sum = 0, distance = 0;
    chain_make(&c, 3, 4, true, 1);
    chain_forward(&c, (chain_grid){200, false}, law);
    for (int o = 0; o < c.objects; o++) {
        sum += law[o];
        distance += fabs(law[o] - chain_markov_joint(&c, o)) / 2;
    }
    cr_expect_float_eq(sum, 1, 1e-12);
    cr_expect_lt(distance, 0.01, "one site a step draws from the data: %g", distance);
    chain_forward(&c, (chain_grid){2, false}, law);
    distance = 0;
    for (int o = 0; o < c.objects; o++)
        distance += fabs(law[o] - chain_markov_joint(&c, o)) / 2;
    cr_expect_gt(distance, 0.02, "two steps lose correlation: %g", distance);
}

/* ---- p*: unbiased quantities ------------------------------------------------------------ */

Test(laws, potentials_with_argmax_values)
{
    CHECK_LAWS(small_table, {4096, 4, SMC ESS("0.7") POTENTIAL("difference")},
               {8192, 4, SMC ESS("0.7") POTENTIAL("max")},
               {8192, 4, SMC ESS("0.7") POTENTIAL("sum")},
               {4096, 4, SMC ESS("0.7") POTENTIAL("terminal") "sampler.value.kind=none"});
}

Test(laws, potentials_selecting_at_every_step)
{
    CHECK_LAWS(small_table, {4096, 4, SMC ALWAYS POTENTIAL("difference")},
               {8192, 4, SMC ALWAYS POTENTIAL("max")}, {8192, 4, SMC ALWAYS POTENTIAL("sum")},
               {4096, 4, SMC ALWAYS POTENTIAL("terminal") "sampler.value.kind=none"});
}

Test(laws, soft_and_sampled_values)
{
    CHECK_LAWS(small_table, {4096, 4, SMC ESS("0.7") SOFT},
               {8192, 4, SMC ESS("0.7") SOFT POTENTIAL("max")},
               {4096, 4, SMC ESS("0.7") SAMPLE}, {8192, 4, SMC ALWAYS SAMPLE POTENTIAL("max")},
               {8192, 4, SMC ESS("0.7") SAMPLE POTENTIAL("sum")});
}

/* Values that know nothing of the reward, or are all zero, cost accuracy and not correctness. */
Test(laws, values_of_unfinished_states)
{
    CHECK_LAWS(small_table, {4096, 4, SMC ESS("0.7") LEARNED},
               {8192, 4, SMC ALWAYS LEARNED POTENTIAL("max")},
               {4096, 3, NESTED "sampler.children=3 " ESS("0.7") LEARNED},
               {4096, 2, POOL "sampler.children=2 " ALWAYS LEARNED},
               {4096, 4, SMC ESS("0.7") "sampler.value.kind=state "});
    CHECK_LAWS(((law_model){3, 5, true, {6, false}, 1, 0.7}),
               {4096, 4, SMC ESS("0.7") LEARNED});
}

Test(laws, fk_steering)
{
    CHECK_LAWS(small_table, {4096, 4, "sampler.algorithm=fk_steering"},
               {4096, 4, "sampler.algorithm=fk_steering " POTENTIAL("difference")},
               {8192, 4, "sampler.algorithm=fk_steering " POTENTIAL("max")},
               {8192, 4, "sampler.algorithm=fk_steering " POTENTIAL("sum")},
               {4096, 4, "sampler.algorithm=fk_steering " POTENTIAL("terminal")});
}

Test(laws, triggers_and_particle_counts)
{
    CHECK_LAWS(small_table, {8192, 2, SMC ALWAYS}, {8192, 2, SMC ESS("0.9")},
               {8192, 2, SMC NEVER}, {8192, 1, SMC ALWAYS}, {4096, 16, SMC ALWAYS},
               {4096, 16, SMC ESS("0.9")},
               {4096, 4, SMC ALWAYS "sampler.select.group.trigger.every=2"},
               {4096, 4,
                SMC "sampler.select.group.trigger.kind=window "
                    "sampler.select.group.trigger.from=2 sampler.select.group.trigger.to=2"});
}

Test(laws, schemes_at_every_step)
{
    CHECK_LAWS(
        small_table, {8192, 2, SMC ALWAYS SCHEME("tournament")},
        {8192, 2, SMC ALWAYS SCHEME("systematic")}, {8192, 2, SMC ALWAYS SCHEME("stratified")},
        {8192, 2, SMC ALWAYS SCHEME("residual")}, {8192, 2, SMC ALWAYS SCHEME("multinomial")},
        {8192, 2, SMC ALWAYS SCHEME("killing")});
}

Test(laws, schemes_of_an_odd_group)
{
    CHECK_LAWS(
        small_table, {4096, 5, SMC ALWAYS SCHEME("tournament")},
        {4096, 7, SMC ALWAYS SCHEME("tournament")}, {4096, 5, SMC ALWAYS SCHEME("systematic")},
        {4096, 5, SMC ALWAYS SCHEME("stratified")}, {4096, 5, SMC ALWAYS SCHEME("residual")},
        {4096, 5, SMC ALWAYS SCHEME("multinomial")}, {4096, 5, SMC ALWAYS SCHEME("killing")});
}

Test(laws, schemes_by_ess)
{
    CHECK_LAWS(small_table, {4096, 5, SMC ESS("0.8") SCHEME("tournament")},
               {4096, 5, SMC ESS("0.8") SCHEME("systematic")},
               {4096, 5, SMC ESS("0.8") SCHEME("stratified")},
               {4096, 5, SMC ESS("0.8") SCHEME("residual")},
               {4096, 5, SMC ESS("0.8") SCHEME("multinomial")},
               {4096, 5, SMC ESS("0.8") SCHEME("killing")});
}

Test(laws, nested)
{
    CHECK_LAWS(small_table, {4096, 2, NESTED "sampler.children=4 " ESS("0.7")},
               {4096, 4, NESTED "sampler.children=2 " ALWAYS},
               {4096, 1, NESTED "sampler.children=3"},
               {4096, 4, NESTED "sampler.children=2 " ALWAYS SCHEME("killing")},
               {4096, 3, NESTED "sampler.children=2 " ESS("0.7") SAMPLE},
               {4096, 3, NESTED "sampler.children=2 " ESS("0.7") POTENTIAL("max")});
}

Test(laws, pooled_children)
{
    CHECK_LAWS(small_table, {4096, 2, POOL "sampler.children=4 " ALWAYS},
               {4096, 4, POOL "sampler.children=2 " ALWAYS SCHEME("systematic")},
               {4096, 3, POOL "sampler.children=2 " ALWAYS SCHEME("multinomial") SOFT},
               {4096, 1, POOL "sampler.children=3 " ALWAYS SCHEME("residual")},
               {4096, 3, POOL "sampler.children=2 " ALWAYS SCHEME("stratified")});
}

Test(laws, final_categorical)
{
    CHECK_LAWS(small_table,
               {8192, 4, SMC ESS("0.7") "sampler.final.kind=categorical sampler.final.keep=1"},
               {8192, 2, SMC NEVER "sampler.final.kind=categorical sampler.final.keep=1"},
               {8192, 4, SMC ALWAYS "sampler.final.kind=categorical sampler.final.keep=2"});
}

Test(laws, more_steps_than_sites)
{
    CHECK_LAWS(((law_model){3, 4, false, {9, false}, 1, 0.7}), {4096, 4, SMC ESS("0.7")},
               {4096, 2, SMC ALWAYS}, {8192, 4, SMC ESS("0.7") POTENTIAL("max")});
}

Test(laws, one_step)
{
    CHECK_LAWS(((law_model){3, 4, false, {1, false}, 1, 0.7}), {4096, 4, SMC ESS("0.7")},
               {8192, 2, SMC ALWAYS}, {4096, 2, POOL "sampler.children=3 " ALWAYS},
               {4096, 2, NESTED "sampler.children=3"});
}

Test(laws, temperature)
{
    CHECK_LAWS(((law_model){3, 4, false, {3, false}, 0.4, 0.7}), {4096, 4, SMC ESS("0.7")},
               {4096, 4, SMC ESS("0.7") SOFT}, {4096, 4, SMC ALWAYS SAMPLE});
}

Test(laws, flow_schedule)
{
    CHECK_LAWS(((law_model){3, 4, false, {3, true}, 0.6, 0.7}), {4096, 4, SMC ESS("0.7")},
               {8192, 2, SMC ALWAYS SCHEME("systematic")},
               {4096, 2, NESTED "sampler.children=2"});
}

Test(laws, two_letters_five_sites)
{
    CHECK_LAWS(((law_model){2, 5, false, {4, false}, 1, 0.6}), {4096, 4, SMC ESS("0.7")},
               {8192, 2, SMC ALWAYS SCHEME("residual")},
               {4096, 2, NESTED "sampler.children=2"});
}

Test(laws, markov_denoiser)
{
    CHECK_LAWS(((law_model){3, 5, true, {3, false}, 1, 0.7}), {4096, 4, SMC ESS("0.7")},
               {8192, 2, SMC ALWAYS SCHEME("stratified")},
               {4096, 2, NESTED "sampler.children=2 " SOFT});
}

Test(laws, markov_denoiser_tempered)
{
    CHECK_LAWS(((law_model){3, 5, true, {8, true}, 0.5, 0.7}), {4096, 4, SMC ESS("0.7")},
               {4096, 3, SMC ALWAYS SAMPLE});
}

/* A group whose weights are all zero is dead: frozen, it counts as evidence 0, and the
 * estimates stay unbiased.  A completion of value -infinity on the way does not kill, since its
 * particle may still end well. */
#define BLIND POTENTIAL("terminal") "sampler.value.kind=none "
Test(laws, dead_groups)
{
    static chain c;
    static const char *const rows[] = {NEVER BLIND, ALWAYS BLIND,
                                       ALWAYS SCHEME("systematic") BLIND, ALWAYS,
                                       ESS("0.6") SAMPLE};
    double exact[CHAIN_FUNCTIONS];
    char dir[256], settings[1024];
    chain_grid grid = {3, false};

    chain_make(&c, 3, 4, false, 1);
    cr_assert(table_folder(dir));
    cr_assert_eq(table_write(&c, dir), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(table_write_forbidden(&c, dir, -1), KAC_OK, "%s", kac_last_error());
    for (int o = 0; o < c.objects; o++)
        if (chain_letter(&c, o, 0) == 0) c.reward[o] = -HUGE_VALF;
    int functions = chain_tilted(&c, grid, 0.7, exact);
    for (int k = 0; k < 5; k++) {
        table_run run = {0};
        law_sums sums = {.functions = functions};
        int which = 0, dead = 0;
        snprintf(settings, sizeof settings,
                 SMC "process.steps=3 sampler.alpha=0.7 sampler.groups=8192 "
                     "sampler.particles=3 reward.1.kind=pwm reward.1.file=%s "
                     "sampler.on_dead=freeze %s",
                 table_path(dir, "forbidden"), rows[k]);
        kac_status status = table_sample(&c, dir, settings, &run);
        cr_assert_eq(status, KAC_OK, "%s", kac_last_error());
        for (int64_t i = 0; i < run.n; i++)
            dead += run.log_weight[i] == -HUGE_VAL;
        cr_expect_gt(dead, 0);
        add_groups(&c, &run, &sums);
        cr_expect_eq(sums.replicates, 8192);
        double z = worst_z(&sums, exact, &which);
        cr_expect(z < z_bound, "%s: function %d is %.1f standard errors off", rows[k], which,
                  z);
        check_evidence(&run, &sums, exact[0], rows[k]);
        table_run_free(&run);
    }
    table_folder_remove(dir);
}

/* The error from replicate groups is the error: 1.96 of it covers the truth about as often as
 * it says (16 groups: t with 15 degrees of freedom covers 93 %). */
Test(laws, standard_error_covers)
{
    static chain c;
    double exact[CHAIN_FUNCTIONS];
    char dir[256], settings[512];
    int covered = 0;

    chain_make(&c, 2, 3, false, 1);
    (void)chain_tilted(&c, (chain_grid){3, false}, 0.7, exact);
    cr_assert(table_folder(dir));
    cr_assert_eq(table_write(&c, dir), KAC_OK, "%s", kac_last_error());
    for (int seed = 0; seed < 500; seed++) {
        table_run run = {0};
        snprintf(settings, sizeof settings,
                 SMC ESS("0.8") "process.steps=3 sampler.alpha=0.7 sampler.groups=16 "
                                "sampler.particles=8 seed=%d",
                 seed);
        cr_assert_eq(table_sample(&c, dir, settings, &run), KAC_OK, "%s", kac_last_error());
        covered += fabs(run.log_evidence - log(exact[0])) < 1.96 * run.standard_error;
        table_run_free(&run);
    }
    cr_expect(covered > 0.89 * 500 && covered < 0.97 * 500, "%d of 500", covered);
    table_folder_remove(dir);
}

/* With scope `global` all groups share their selection: a run is one replicate. */
Test(laws, global_scope)
{
    static chain c;
    double exact[CHAIN_FUNCTIONS], mean[CHAIN_FUNCTIONS];
    char dir[256], settings[512];
    law_sums sums = {0};
    int which = 0;

    chain_make(&c, 2, 3, false, 1);
    sums.functions = chain_tilted(&c, (chain_grid){3, false}, 0.7, exact);
    cr_assert(table_folder(dir));
    cr_assert_eq(table_write(&c, dir), KAC_OK, "%s", kac_last_error());
    for (int seed = 0; seed < 4096; seed++) {
        table_run run = {0};
        snprintf(settings, sizeof settings,
                 SMC ESS("0.8") "process.steps=3 sampler.alpha=0.7 sampler.groups=2 "
                                "sampler.particles=2 sampler.select.group.scope=global seed=%d",
                 seed);
        kac_status status = table_sample(&c, dir, settings, &run);
        cr_assert_eq(status, KAC_OK, "%s", kac_last_error());
        weighted_mean(&c, &run, 0, run.n, mean);
        add_replicate(&sums, mean);
        cr_assert_float_eq(run.log_evidence, log(mean[0]), 1e-9);
        cr_assert(isnan(run.standard_error), "one pool has no replicate");
        table_run_free(&run);
    }
    double z = worst_z(&sums, exact, &which);
    cr_expect(z < z_bound, "function %d is %.1f standard errors off", which, z);
    table_folder_remove(dir);
}
