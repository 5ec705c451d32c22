/* test_laws.c -- what is sampled against what is enumerated, for everything that claims p*.
 *
 * With `final: weighted` the mean over a group's particles of exp(log_weight) phi(object) is an
 * unbiased estimate of E_q[exp(r / alpha) phi] for any number of particles, so the groups of
 * one run are replicates and a z-test of their mean needs no tolerance.  Small groups show what
 * large ones hide.  Del Moral, "Feynman-Kac Formulae", 2004.
 */
#include <criterion/criterion.h>

#include "laws.h"

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
        cr_expect(z < LAW_Z_BOUND, "%s: function %d is %.1f standard errors off (%g for %g)",
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
               {8192, 4, SMC ALWAYS "sampler.final.kind=categorical sampler.final.keep=2"},
               {8192, 6,
                SMC ALWAYS "sampler.funnel=2 sampler.final.kind=categorical "
                           "sampler.final.keep=6"}); /* more than are left */
}

/* Exponents only decide what intermediate weights are: whatever they hang on, even on the
 * particles themselves, they cancel from the final weights, so all three kinds are unbiased. */
#define TEMPER(kind) "sampler.temper.kind=" kind " "
Test(laws, tempering)
{
    CHECK_LAWS(small_table, {4096, 4, SMC ALWAYS TEMPER("linear")},
               {4096, 4, SMC ESS("0.7") TEMPER("geometric") "sampler.temper.gamma=0.3"},
               {8192, 2, SMC ALWAYS TEMPER("ess") "sampler.temper.ess=0.9"},
               {8192, 3, SMC ESS("0.9") TEMPER("ess") "sampler.temper.ess=0.8"},
               {4096, 5, SMC ALWAYS TEMPER("ess") SAMPLE},
               {4096, 3, NESTED "sampler.children=2 " ALWAYS TEMPER("ess")},
               {8192, 4, SMC ALWAYS TEMPER("ess") POTENTIAL("max")});
}

/* Any tilt has its exact ratio; the reward table takes probabilities, so it has a gradient. */
#define TDS "sampler.algorithm=tds "
Test(laws, twisted_proposals)
{
    CHECK_LAWS(
        small_table, {4096, 4, TDS ESS("0.7")}, {8192, 2, TDS ALWAYS},
        {4096, 4, TDS ALWAYS "sampler.twist.path=direct"},
        {4096, 4, TDS ESS("0.7") "sampler.twist.path=denoiser"},
        {8192, 3, TDS ALWAYS "sampler.twist.scale=-0.5"},
        {4096, 3, TDS NEVER "sampler.twist.scale=2"},
        {4096, 2, TDS ALWAYS "sampler.children=3 sampler.select.parent.rule=categorical"},
        {4096, 4, TDS ALWAYS TEMPER("linear")},
        {4096, 4, TDS ALWAYS "sampler.twist.kind=value"},
        {4096, 4, TDS ALWAYS SAMPLE POTENTIAL("max")});
}

Test(laws, twisted_proposals_of_a_markov_denoiser)
{
    CHECK_LAWS(((law_model){3, 5, true, {3, false}, 1, 0.7}), {4096, 4, TDS ESS("0.7")},
               {8192, 2, TDS ALWAYS SOFT});
    CHECK_LAWS(((law_model){3, 4, false, {3, true}, 0.6, 0.7}), {4096, 4, TDS ESS("0.7")});
}

Test(laws, funnel)
{
    CHECK_LAWS(small_table, {4096, 6, SMC ESS("0.7") "sampler.funnel=3"},
               {4096, 6, SMC ALWAYS "sampler.funnel=4,2"},
               {4096, 5, SMC NEVER SCHEME("systematic") "sampler.funnel=3,1"},
               {4096, 4, NESTED "sampler.children=2 " ALWAYS "sampler.funnel=2"},
               {4096, 4, POOL "sampler.children=2 " ALWAYS "sampler.funnel=3,1"});
}

/* Sweeps leave p* as it is, so objects stay properly weighted by the evidence of sweep 0. */
#define GIBBS "sampler.algorithm=particle_gibbs "
Test(laws, particle_gibbs)
{
    CHECK_LAWS(small_table, {8192, 2, GIBBS "driver.sweeps=2 " ALWAYS},
               {8192, 4, GIBBS "driver.sweeps=3 driver.burn_in=2 " ESS("0.7")},
               {8192, 3, GIBBS "driver.sweeps=1 " ALWAYS SCHEME("killing")},
               {8192, 2, GIBBS "driver.sweeps=0 " ALWAYS});
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

/* Classifier-free guidance: the chain is that of the blended logits (1 + w) l_1 - w l_2, which
 * are the guided law up to what softmax takes off. */
Test(laws, classifier_free_guidance)
{
    static chain c, other, blended;
    static const char *const rows[] = {NEVER, ALWAYS, ESS("0.7") SAMPLE, ESS("0.7") SOFT};
    const double w = 0.8;
    double exact[CHAIN_FUNCTIONS];
    char dir[256], second[256], settings[1024];
    chain_make(&c, 3, 4, false, 1);
    other = blended = c;
    for (int i = 0; i < c.rows * c.length * c.states; i++) {
        other.logits[i] = -0.5F * c.logits[i] + 0.1F * (float)(i % 7);
        blended.logits[i] =
            (float)((1 + w) * (double)c.logits[i] - w * (double)other.logits[i]);
    }
    chain_temper(&blended, 1);
    int functions = chain_tilted(&blended, (chain_grid){3, false}, 0.7, exact);
    cr_assert(table_folder(dir) && table_folder(second));
    cr_assert_eq(table_write(&c, dir), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(table_write(&other, second), KAC_OK, "%s", kac_last_error());
    for (int k = 0; k < 4; k++) {
        table_run run = {0};
        law_sums sums = {.functions = functions};
        int which = 0;
        snprintf(settings, sizeof settings,
                 SMC "process.steps=3 sampler.alpha=0.7 sampler.groups=4096 "
                     "sampler.particles=4 model.unconditional=%s model.guidance=%g %s",
                 table_path(second, "denoiser").path, w, rows[k]);
        kac_status status = table_sample(&blended, dir, settings, &run);
        cr_assert_eq(status, KAC_OK, "%s", kac_last_error());
        add_groups(&blended, &run, &sums);
        double z = worst_z(&sums, exact, &which);
        cr_expect(z < LAW_Z_BOUND, "%s: function %d is %.1f standard errors off", rows[k],
                  which, z);
        table_run_free(&run);
    }
    table_folder_remove(dir);
    table_folder_remove(second);
}

/* A template: the chain starts from the letters that are given. */
Test(laws, given_letters)
{
    static chain c;
    static const char *const rows[] = {NEVER, ALWAYS, ESS("0.7") SAMPLE};
    static double law[CHAIN_OBJECTS];
    double exact[CHAIN_FUNCTIONS] = {0}, phi[CHAIN_FUNCTIONS];
    char dir[256], settings[1024];
    int functions = 0;
    chain_make(&c, 3, 4, true, 1);
    chain_law_from(&c, (chain_grid){3, false}, (chain_choice){CHAIN_FIRST, 1, 1},
                   ((3 * 4 + 2) * 4 + 3) * 4 + 0, law); /* ?C?A */
    for (int o = 0; o < c.objects; o++) {
        functions = chain_functions(&c, o, phi);
        for (int j = 0; j < functions; j++)
            exact[j] += law[o] * exp((double)c.reward[o] / 0.7) * phi[j];
    }
    cr_assert(table_folder(dir));
    cr_assert_eq(table_write(&c, dir), KAC_OK, "%s", kac_last_error());
    for (int k = 0; k < 3; k++) {
        table_run run = {0};
        law_sums sums = {.functions = functions};
        int which = 0;
        snprintf(settings, sizeof settings,
                 SMC "process.steps=3 process.template=?C?A sampler.alpha=0.7 "
                     "sampler.groups=4096 sampler.particles=4 %s",
                 rows[k]);
        kac_status status = table_sample(&c, dir, settings, &run);
        cr_assert_eq(status, KAC_OK, "%s", kac_last_error());
        for (int64_t i = 0; i < run.n; i++)
            cr_assert(chain_letter(&c, run.object[i], 1) == 2 &&
                      chain_letter(&c, run.object[i], 3) == 0);
        add_groups(&c, &run, &sums);
        double z = worst_z(&sums, exact, &which);
        cr_expect(z < LAW_Z_BOUND, "%s: function %d is %.1f standard errors off", rows[k],
                  which, z);
        table_run_free(&run);
    }
    table_folder_remove(dir);
}

/* A group whose weights are all zero is dead: frozen, it counts as evidence 0, and the
 * estimates stay unbiased.  A completion of value -infinity on the way does not kill, since its
 * particle may still end well. */
#define BLIND POTENTIAL("terminal") "sampler.value.kind=none "
Test(laws, dead_groups)
{
    static chain c;
    static const char *const rows[] = {NEVER BLIND,
                                       ALWAYS BLIND,
                                       ALWAYS SCHEME("systematic") BLIND,
                                       ALWAYS,
                                       ESS("0.6") SAMPLE,
                                       NEVER TEMPER("ess") "sampler.temper.ess=1",
                                       ALWAYS TEMPER("geometric") "sampler.temper.gamma=0"};
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
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        table_run run = {0};
        law_sums sums = {.functions = functions};
        int which = 0, dead = 0;
        snprintf(settings, sizeof settings,
                 SMC "process.steps=3 sampler.alpha=0.7 sampler.groups=8192 "
                     "sampler.particles=3 reward.1.kind=pwm reward.1.file=%s "
                     "sampler.on_dead=freeze %s",
                 table_path(dir, "forbidden").path, rows[k]);
        kac_status status = table_sample(&c, dir, settings, &run);
        cr_assert_eq(status, KAC_OK, "%s", kac_last_error());
        for (int64_t i = 0; i < run.n; i++)
            dead += run.log_weight[i] == -HUGE_VAL;
        cr_expect_gt(dead, 0);
        add_groups(&c, &run, &sums);
        cr_expect_eq(sums.replicates, 8192);
        double z = worst_z(&sums, exact, &which);
        cr_expect(z < LAW_Z_BOUND, "%s: function %d is %.1f standard errors off", rows[k],
                  which, z);
        check_evidence(&run, &sums, exact[0], rows[k]);
        table_run_free(&run);
    }
    table_folder_remove(dir);
}

/* ---- other rewards than the table's ------------------------------------------------------ */

#define FREEZE "sampler.on_dead=freeze "

/* Longest run of one letter, and places where B follows A. */
static int longest_run(const chain *c, int object)
{
    int longest = 0, run = 0;
    for (int l = 0; l < c->length; l++) {
        bool same = l > 0 && chain_letter(c, object, l) == chain_letter(c, object, l - 1);
        run = same ? run + 1 : 1;
        if (run > longest) longest = run;
    }
    return longest;
}

static int count_ab(const chain *c, int object)
{
    int count = 0;
    for (int l = 1; l < c->length; l++)
        count += chain_letter(c, object, l - 1) == 0 && chain_letter(c, object, l) == 1;
    return count;
}

/* A reward as settings, and r of an object whose table entry is t. */
typedef struct law_reward {
    const char *settings;
    double (*of)(const chain *c, int object, double t);
} law_reward;

/* Samples a reward by each of `rows`, against the enumerated law of what it should be.  An object
 * of reward -infinity may only come where its whole group is dead. */
static void check_reward(law_reward reward, const char *const *rows, int count)
{
    static chain c;
    double exact[CHAIN_FUNCTIONS];
    char dir[256], settings[1024];

    chain_make(&c, 3, 4, false, 1);
    cr_assert(table_folder(dir));
    cr_assert_eq(table_write(&c, dir), KAC_OK, "%s", kac_last_error());
    for (int o = 0; o < c.objects; o++)
        c.reward[o] = (float)reward.of(&c, o, (double)c.reward[o]);
    int functions = chain_tilted(&c, (chain_grid){3, false}, 0.7, exact);
    for (int k = 0; k < count; k++) {
        table_run run = {0};
        law_sums sums = {.functions = functions};
        int which = 0, groups = 4096 * table_scale();
        snprintf(settings, sizeof settings,
                 "process.steps=3 sampler.alpha=0.7 sampler.groups=%d sampler.particles=3 "
                 "%s %s",
                 groups, rows[k], reward.settings);
        kac_status status = table_sample(&c, dir, settings, &run);
        cr_assert_eq(status, KAC_OK, "%s: %s", settings, kac_last_error());
        for (int64_t i = 0; i < run.n; i++) {
            double want = (double)c.reward[run.object[i]];
            bool dead = run.log_weight[i] == -HUGE_VAL;
            bool alone = i == 0 || run.group[i] != run.group[i - 1];
            if (isfinite(want))
                cr_assert_float_eq(run.reward[i], want, 1e-6, "%s", settings);
            else
                cr_assert_eq(run.reward[i], want, "%s", settings);
            cr_assert_eq(dead, !isfinite(want), "%s", settings);
            cr_assert(alone || dead == (run.log_weight[i - 1] == -HUGE_VAL),
                      "%s: forbidden in a group with something else", settings);
        }
        add_groups(&c, &run, &sums);
        cr_expect_eq(sums.replicates, groups, "%s: a group has no sample", settings);
        double z = worst_z(&sums, exact, &which);
        cr_expect(z < LAW_Z_BOUND, "%s: function %d is %.1f standard errors off (%g for %g)",
                  settings, which, z, sums.sum[which] / (double)sums.replicates, exact[which]);
        check_evidence(&run, &sums, exact[0], settings);
        table_run_free(&run);
    }
    table_folder_remove(dir);
}

#define CHECK_REWARD(name, text, ...)                                                          \
    do {                                                                                       \
        static const char *const rows[] = {__VA_ARGS__};                                       \
        check_reward((law_reward){text, name}, rows, (int)(sizeof rows / sizeof *rows));       \
    } while (0)

static double without_ab(const chain *c, int object, double t)
{
    return count_ab(c, object) == 0 ? t : -HUGE_VAL;
}

static double with_ab(const chain *c, int object, double t)
{
    return count_ab(c, object) >= 1 ? t : -HUGE_VAL;
}

static double without_runs(const chain *c, int object, double t)
{
    return longest_run(c, object) <= 2 ? t : -HUGE_VAL;
}

static double within_bounds(const chain *c, int object, double t)
{
    (void)c;
    (void)object;
    return t >= -0.3 && t <= 0.8 ? t : -HUGE_VAL;
}

#define EVERY_WAY                                                                              \
    SMC FREEZE NEVER BLIND, SMC FREEZE ALWAYS, SMC FREEZE ESS("0.6") SAMPLE,                   \
        NESTED FREEZE "sampler.children=2",                                                    \
        SMC FREEZE ALWAYS "sampler.final.kind=categorical sampler.final.keep=2"

Test(laws, a_motif_to_avoid)
{
    CHECK_REWARD(without_ab,
                 "reward.1.kind=motif reward.1.motifs=AB reward.1.weight=0 reward.1.at_most=0",
                 EVERY_WAY);
}

Test(laws, a_motif_to_keep)
{
    CHECK_REWARD(with_ab,
                 "reward.1.kind=motif reward.1.motifs=AB reward.1.weight=0 reward.1.at_least=1",
                 EVERY_WAY);
}

Test(laws, no_long_runs_and_a_bounded_network)
{
    CHECK_REWARD(without_runs, "reward.1.kind=homopolymer reward.1.weight=0 reward.1.at_most=2",
                 EVERY_WAY);
    CHECK_REWARD(within_bounds, "reward.0.weight=1 reward.0.at_least=-0.3 reward.0.at_most=0.8",
                 EVERY_WAY);
}

/* Six objects, one draw in thirteen, with rewards that differ. */
static double rarely_good(const chain *c, int object, double t)
{
    (void)c;
    (void)object;
    return t >= 0.8 ? t : -HUGE_VAL;
}

#define REVIVE(levels, rounds)                                                                 \
    "sampler.on_dead=revive sampler.revive.levels=" levels " sampler.revive.rounds=" rounds " "

/* However many levels tries go down, and whether their rounds end too early (few rounds) or
 * hardly ever (many): evidence and weighted means are unbiased. */
Test(laws, tries_of_the_last_levels)
{
    CHECK_REWARD(
        rarely_good, "reward.0.weight=1 reward.0.at_least=0.8", SMC REVIVE("1", "16") ALWAYS,
        SMC REVIVE("2", "1") ALWAYS, SMC REVIVE("2", "6") ESS("0.6") SAMPLE,
        SMC REVIVE("2", "256") NEVER BLIND, SMC REVIVE("3", "32") "sampler.particles=1",
        SMC REVIVE("3", "6") "sampler.particles=8",
        NESTED REVIVE("2", "64") "sampler.children=2",
        SMC REVIVE("1", "64")
            ALWAYS SCHEME("multinomial") "sampler.final.kind=categorical sampler.final.keep=2");
    CHECK_REWARD(without_ab,
                 "reward.1.kind=motif reward.1.motifs=AB reward.1.weight=0 reward.1.at_most=0",
                 SMC REVIVE("1", "64") ALWAYS, SMC REVIVE("2", "2") ESS("0.6") SAMPLE,
                 SMC REVIVE("3", "64") "sampler.particles=2 sampler.reuse=off");
}

static double product_of_two(const chain *c, int object, double t)
{
    double d = t <= -1 ? 0 : t >= 0.5 ? 1 : (t + 1) / 1.5;
    double e = fmax(0, 1 - (longest_run(c, object) - 1) / 3.0);
    return pow(d, 2) * pow(e, 0.5);
}

static double least_of_two(const chain *c, int object, double t)
{
    return fmin(2 * t, 0.5 * count_ab(c, object));
}

static double bound_of_two(const chain *c, int object, double t)
{
    double a = count_ab(c, object), mean = (2 * t + a) / 3;
    return mean - 0.5 * sqrt((2 * pow(t - mean, 2) + pow(a - mean, 2)) / 3);
}

#define RUNS "reward.1.kind=homopolymer reward.1.low=4 reward.1.high=1 reward.1.weight=0.5 "
#define AB   "reward.1.kind=motif reward.1.motifs=AB "
Test(laws, combined_rewards)
{
    CHECK_REWARD(product_of_two,
                 RUNS "objective.combine=product reward.0.low=-1 reward.0.high=0.5 "
                      "reward.0.weight=2",
                 SMC NEVER, SMC ESS("0.7"), SMC ALWAYS SAMPLE);
    CHECK_REWARD(least_of_two, AB "objective.combine=min reward.0.weight=2 reward.1.weight=0.5",
                 SMC NEVER, SMC ESS("0.7"), SMC ALWAYS SAMPLE);
    CHECK_REWARD(bound_of_two,
                 AB "objective.combine=lower_bound objective.kappa=0.5 reward.0.weight=2",
                 SMC NEVER, SMC ESS("0.7"), SMC ALWAYS SAMPLE);
}

/* Groups that weigh the reward differently have targets of their own, each with its law and
 * evidence; equal ones are replicates, wherever they stand. */
Test(laws, weights_of_groups)
{
    static chain c, tilted[2];
    static const char *const rows[] = {SMC NEVER, SMC ALWAYS, SMC ESS("0.7"),
                                       NESTED "sampler.children=2 "};
    const double weight[2] = {0.4, 1.5};
    double exact[2][CHAIN_FUNCTIONS];
    char dir[256], settings[512];
    int functions = 0;

    chain_make(&c, 3, 4, false, 1);
    cr_assert(table_folder(dir));
    cr_assert_eq(table_write(&c, dir), KAC_OK, "%s", kac_last_error());
    for (int t = 0; t < 2; t++) {
        tilted[t] = c;
        for (int o = 0; o < c.objects; o++)
            tilted[t].reward[o] = (float)(weight[t] * (double)c.reward[o]);
        functions = chain_tilted(&tilted[t], (chain_grid){3, false}, 0.7, exact[t]);
    }
    for (int k = 0; k < 4; k++) {
        table_run run = {0};
        law_sums sums[2] = {{.functions = functions}, {.functions = functions}};
        double mean[CHAIN_FUNCTIONS];
        snprintf(settings, sizeof settings,
                 "process.steps=3 sampler.alpha=0.7 sampler.groups=8192 sampler.particles=4 "
                 "reward.0.weights=0.4,1.5,0.4,1.5 %s",
                 rows[k]);
        cr_assert_eq(table_sample(&c, dir, settings, &run), KAC_OK, "%s", kac_last_error());
        cr_assert_eq(run.targets, 2);
        for (int64_t i = 0; i < run.n; i += 4) {
            int t = run.group[i] / 2048 % 2;
            weighted_mean(&tilted[t], &run, i, i + 4, mean);
            add_replicate(&sums[t], mean);
            cr_assert_float_eq(run.reward[i], weight[t] * (double)c.reward[run.object[i]],
                               1e-6);
        }
        for (int t = 0; t < 2; t++) {
            int which = 0;
            double z = worst_z(&sums[t], exact[t], &which);
            cr_expect(z < LAW_Z_BOUND, "%s target %d: function %d is %.1f standard errors off",
                      rows[k], t, which, z);
            run.log_evidence = run.log_evidences[t];
            run.standard_error = run.standard_errors[t];
            check_evidence(&run, &sums[t], exact[t][0], rows[k]);
        }
        cr_expect(isnan(run.log_evidences[2]), "there is no third target");
        table_run_free(&run);
    }
    table_folder_remove(dir);
}

/* Runs of one pool, which is one replicate; AddressSanitizer has seen it all in a few. */
#ifdef __SANITIZE_ADDRESS__
enum { REPLICATES = 256 };
#else
enum { REPLICATES = 4096 };
#endif

/* With scope `global` only groups of one target compete. */
Test(laws, global_scope_of_two_targets)
{
    static chain c, tilted[2];
    const double weight[2] = {0.4, 1.5};
    double exact[2][CHAIN_FUNCTIONS], mean[CHAIN_FUNCTIONS];
    law_sums sums[2] = {{0}, {0}};
    char dir[256], settings[512];

    chain_make(&c, 2, 3, false, 1);
    cr_assert(table_folder(dir));
    cr_assert_eq(table_write(&c, dir), KAC_OK, "%s", kac_last_error());
    for (int t = 0; t < 2; t++) {
        tilted[t] = c;
        for (int o = 0; o < c.objects; o++)
            tilted[t].reward[o] = (float)(weight[t] * (double)c.reward[o]);
        sums[t].functions = chain_tilted(&tilted[t], (chain_grid){3, false}, 0.7, exact[t]);
    }
    for (int seed = 0; seed < REPLICATES; seed++) {
        table_run run = {0};
        snprintf(settings, sizeof settings,
                 SMC ESS("0.8") "process.steps=3 sampler.alpha=0.7 sampler.groups=4 "
                                "sampler.particles=2 sampler.select.group.scope=global "
                                "reward.0.weights=0.4,1.5 seed=%d",
                 seed);
        cr_assert_eq(table_sample(&c, dir, settings, &run), KAC_OK, "%s", kac_last_error());
        for (int t = 0; t < 2; t++) {
            weighted_mean(&tilted[t], &run, 4 * t, 4 * t + 4, mean);
            add_replicate(&sums[t], mean);
            cr_assert_float_eq(run.log_evidences[t], log(mean[0]), 1e-9);
            cr_assert(isnan(run.standard_errors[t]), "one pool has no replicate");
        }
        table_run_free(&run);
    }
    for (int t = 0; t < 2; t++) {
        int which = 0;
        double z = worst_z(&sums[t], exact[t], &which);
        cr_expect(z < LAW_Z_BOUND, "target %d: function %d is %.1f standard errors off", t,
                  which, z);
    }
    table_folder_remove(dir);
}

/* ---- errors ------------------------------------------------------------------------------ */

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
    for (int seed = 0; seed < REPLICATES; seed++) {
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
    cr_expect(z < LAW_Z_BOUND, "function %d is %.1f standard errors off", which, z);
    table_folder_remove(dir);
}
