/* test_laws_biased.c -- rows that do not sample p*: the exact law of what they do, and runs
 * whose answer is known without statistics: dead groups, constant rewards, one good object. */
#include <criterion/criterion.h>

#include "table_run.h"

typedef struct biased_model {
    int states, length;
    bool markov;
    chain_grid grid;
    double temperature;
} biased_model;

/* Runs `settings` on a model and compares the counts of objects with `choice`'s law. */
static void check_law(biased_model model, chain_choice choice, const char *settings)
{
    static chain c;
    double law[CHAIN_OBJECTS], counts[CHAIN_OBJECTS] = {0};
    char dir[256], text[1024];
    table_run run = {0};

    chain_make(&c, model.states, model.length, model.markov, 1);
    chain_temper(&c, model.temperature);
    chain_law(&c, model.grid, choice, law);
    cr_assert(table_folder(dir));
    cr_assert_eq(table_write(&c, dir), KAC_OK, "%s", kac_last_error());
    snprintf(text, sizeof text,
             "process.steps=%d process.schedule=%s process.temperature=%g sampler.alpha=%g "
             "sampler.groups=%d %s",
             model.grid.steps, model.grid.flow ? "flow" : "loglinear", model.temperature,
             choice.alpha, 1000 * table_scale(), settings);
    kac_status status = table_sample(&c, dir, text, &run);
    cr_assert_eq(status, KAC_OK, "%s: %s", text, kac_last_error());
    for (int64_t i = 0; i < run.n; i++) {
        counts[run.object[i]]++;
        cr_assert_eq(run.reward[i], (double)c.reward[run.object[i]]);
    }
    double share = chain_chi_square(law, counts, c.objects);
    cr_expect(share < 1, "%s: chi-square is %.2f of its bound", text, share);
    table_run_free(&run);
    table_folder_remove(dir);
}

#define SAMPLES "sampler.particles=100 "

/* ---- pretrained ------------------------------------------------------------------------- */

Test(biased, pretrained)
{
    chain_choice one = {CHAIN_FIRST, 1, 0.5};
    const char *settings = SAMPLES "sampler.algorithm=pretrained";
    check_law((biased_model){3, 4, false, {1, false}, 1}, one, settings);
    check_law((biased_model){3, 4, false, {3, false}, 1}, one, settings);
    check_law((biased_model){3, 4, false, {7, true}, 0.5}, one, settings);
    check_law((biased_model){2, 5, false, {4, false}, 2}, one, settings);
    check_law((biased_model){3, 5, true, {3, false}, 1}, one, settings);
}

/* ---- svdd_pm ---------------------------------------------------------------------------- */

Test(biased, svdd_pm_argmax)
{
    const char *settings =
        SAMPLES "sampler.algorithm=svdd_pm sampler.select.parent.rule=argmax sampler.children=";
    char text[256];
    snprintf(text, sizeof text, "%s3", settings);
    check_law((biased_model){3, 4, false, {3, false}, 1}, (chain_choice){CHAIN_ARGMAX, 3, 1},
              text);
    snprintf(text, sizeof text, "%s2", settings);
    check_law((biased_model){2, 5, false, {4, true}, 0.7}, (chain_choice){CHAIN_ARGMAX, 2, 1},
              text);
    check_law((biased_model){3, 4, true, {6, false}, 1}, (chain_choice){CHAIN_ARGMAX, 2, 1},
              text);
}

Test(biased, svdd_pm_categorical)
{
    const char *settings = SAMPLES
        "sampler.algorithm=svdd_pm sampler.select.parent.rule=categorical sampler.children=";
    char text[256];
    snprintf(text, sizeof text, "%s2", settings);
    check_law((biased_model){3, 4, false, {3, false}, 1},
              (chain_choice){CHAIN_CATEGORICAL, 2, 0.5}, text);
    snprintf(text, sizeof text, "%s3", settings);
    check_law((biased_model){2, 5, false, {4, true}, 0.7},
              (chain_choice){CHAIN_CATEGORICAL, 3, 0.4}, text);
}

/* ---- best of N -------------------------------------------------------------------------- */

/* The law of the best of N draws from the chain. */
Test(biased, best_of_n)
{
    static chain c;
    chain_grid grid = {3, false};
    double law[CHAIN_OBJECTS], counts[CHAIN_OBJECTS] = {0};
    char dir[256];
    table_run run = {0};

    chain_make(&c, 3, 4, false, 1);
    for (int o = 0; o < c.objects; o++) /* ties */
        c.reward[o] = roundf(c.reward[o] * 4) / 4;
    chain_forward(&c, grid, law);
    chain_best(c.reward, c.objects, 5, law);
    cr_assert(table_folder(dir));
    cr_assert_eq(table_write(&c, dir), KAC_OK, "%s", kac_last_error());
    kac_status status = table_sample(&c, dir,
                                     "sampler.algorithm=best_of_n process.steps=3 "
                                     "sampler.groups=40000 sampler.particles=5",
                                     &run);
    cr_assert_eq(status, KAC_OK, "%s", kac_last_error());
    cr_expect_eq(run.n, 40000);
    for (int64_t i = 0; i < run.n; i++)
        counts[run.object[i]]++;
    double share = chain_chi_square(law, counts, c.objects);
    cr_expect(share < 1, "chi-square is %.2f of its bound", share);
    table_run_free(&run);
    table_folder_remove(dir);
}

/* The best 1/N of everything, equal objects once, is what sorting the pretrained run of the
 * same seed gives. */
Test(biased, best_of_n_pool)
{
    static chain c;
    char dir[256], text[256];
    table_run all = {0}, best = {0};
    const char *common = "process.steps=3 sampler.groups=12 sampler.particles=8 seed=3 "
                         "sampler.algorithm=";

    chain_make(&c, 3, 5, false, 1);
    cr_assert(table_folder(dir));
    cr_assert_eq(table_write(&c, dir), KAC_OK, "%s", kac_last_error());
    snprintf(text, sizeof text, "%spretrained", common);
    cr_assert_eq(table_sample(&c, dir, text, &all), KAC_OK, "%s", kac_last_error());
    snprintf(text, sizeof text, "%sbest_of_n_pool", common);
    cr_assert_eq(table_sample(&c, dir, text, &best), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(all.n, 96);
    cr_assert_eq(best.n, 12);
    for (int64_t i = 0; i < best.n; i++) {
        bool better[CHAIN_OBJECTS] = {false};
        int slot = best.slot[i], rank = 0;
        cr_expect_eq(all.slot[slot], slot);
        cr_expect_eq(best.object[i], all.object[slot]);
        for (int64_t k = 0; k < all.n; k++)
            if (all.reward[k] > all.reward[slot]) better[all.object[k]] = true;
        for (int o = 0; o < c.objects; o++)
            rank += better[o];
        cr_expect_eq(rank, i, "sample %lld is number %d", (long long)i, rank);
    }
    table_run_free(&all);
    table_run_free(&best);
    table_folder_remove(dir);
}

/* ---- faults ----------------------------------------------------------------------------- */

/* Runs smc with a term that is infinite at objects that start with A. */
static kac_status sample_forbidden(const chain *c, int sign, const char *more, table_run *run)
{
    char dir[256], text[1024];
    cr_assert(table_folder(dir));
    cr_assert_eq(table_write(c, dir), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(table_write_forbidden(c, dir, sign), KAC_OK, "%s", kac_last_error());
    snprintf(text, sizeof text,
             "sampler.algorithm=smc process.steps=3 sampler.alpha=1 sampler.groups=200 "
             "sampler.particles=2 reward.1.kind=pwm reward.1.file=%s %s",
             table_path(dir, "forbidden").path, more);
    kac_status status = table_sample(c, dir, text, run);
    table_folder_remove(dir);
    return status;
}

Test(biased, a_dead_group_is_an_error_where_that_is_asked)
{
    static chain c;
    table_run run = {0};
    chain_make(&c, 3, 4, false, 1);
    cr_expect_eq(sample_forbidden(&c, -1, "sampler.on_dead=error", &run), KAC_ERR_NUMERIC);
    cr_expect(strstr(kac_last_error(), "group") != NULL, "%s", kac_last_error());
    cr_expect(strstr(kac_last_error(), "step") != NULL, "%s", kac_last_error());
    cr_expect_eq(run.n, 0);
}

/* Frozen groups, which is the default, stay in the result with log-weight -infinity; the others leave out what is
 * forbidden. */
Test(biased, dead_groups_freeze)
{
    static chain c;
    table_run run = {0};
    int dead = 0;
    chain_make(&c, 3, 4, false, 1);
    cr_assert_eq(sample_forbidden(&c, -1, "", &run), KAC_OK, "%s", kac_last_error());
    cr_expect(run.n < 400, "groups of one good and one bad object have one sample");
    for (int64_t i = 0; i < run.n; i++) {
        bool forbidden = chain_letter(&c, run.object[i], 0) == 0;
        cr_expect(!isnan(run.log_weight[i]));
        if (forbidden) cr_expect_eq(run.log_weight[i], -HUGE_VAL);
        if (forbidden) cr_expect_eq(run.reward[i], -HUGE_VAL);
        dead += forbidden;
        for (int64_t k = 0; k < i; k++)
            if (run.group[k] == run.group[i])
                cr_expect_eq(run.log_weight[k] == -HUGE_VAL, forbidden);
    }
    cr_expect(dead > 0 && dead < run.n, "%d of %d are dead", dead, (int)run.n);
    cr_expect_eq(run.group[run.n - 1] - run.group[0], 199, "every group has a sample");
    cr_expect(isfinite(run.log_evidence));
    table_run_free(&run);
}

Test(biased, an_infinite_reward_is_an_error_unless_it_may_be_the_worst)
{
    static chain c;
    table_run run = {0};
    chain_make(&c, 3, 4, false, 1);
    cr_expect_eq(sample_forbidden(&c, 1, "", &run), KAC_ERR_NUMERIC);
    cr_expect(strstr(kac_last_error(), "slot") != NULL, "%s", kac_last_error());
    cr_assert_eq(sample_forbidden(&c, 1, "sampler.on_invalid=worst", &run), KAC_OK, "%s",
                 kac_last_error());
    for (int64_t i = 0; i < run.n; i++)
        if (chain_letter(&c, run.object[i], 0) == 0) cr_expect_eq(run.log_weight[i], -HUGE_VAL);
    table_run_free(&run);
}

/* Rows that claim no law keep to the bounds as well: a forbidden object is a sample only where
 * its group has nothing else, and then one of its group is. */
Test(biased, forbidden_objects_are_no_samples)
{
    static chain c;
    static const char *const rows[] = {
        "sampler.algorithm=best_of_n sampler.particles=3",
        "sampler.algorithm=best_of_n_pool sampler.particles=3 sampler.final.keep=2",
        "sampler.algorithm=svdd_pm sampler.children=2",
        "sampler.algorithm=smc sampler.particles=4 sampler.final.kind=top_k "
        "sampler.final.keep=3",
        "sampler.algorithm=smc sampler.particles=3 sampler.final.kind=categorical "
        "sampler.final.keep=3",
        "sampler.algorithm=pretrained sampler.particles=3",
    };
    char dir[256], text[512];
    chain_make(&c, 3, 4, false, 1);
    cr_assert(table_folder(dir));
    cr_assert_eq(table_write(&c, dir), KAC_OK, "%s", kac_last_error());
    for (int k = 0; k < 6; k++) {
        table_run run = {0};
        int bad = 0, good = 0;
        snprintf(
            text, sizeof text,
            "process.steps=3 sampler.groups=300 reward.0.weight=1 reward.0.at_least=0.4 %s",
            rows[k]);
        cr_assert_eq(table_sample(&c, dir, text, &run), KAC_OK, "%s", kac_last_error());
        for (int64_t i = 0; i < run.n; i++) {
            bool forbidden = (double)c.reward[run.object[i]] < 0.4;
            cr_expect_eq(run.reward[i] == -HUGE_VAL, forbidden, "%s", rows[k]);
            bad += forbidden;
            good += !forbidden;
            for (int64_t j = 0; j < i && k != 1; j++)
                if (run.group[j] == run.group[i])
                    cr_expect_eq(run.reward[j] == -HUGE_VAL, forbidden, "%s", rows[k]);
        }
        cr_expect_gt(good, 8, "%s", rows[k]);
        cr_expect_eq(bad > 0, k != 1, "%s: %d forbidden; the pool has others", rows[k], bad);
        table_run_free(&run);
    }
    table_folder_remove(dir);
}

/* All other objects are so bad that their weight is zero beside the good one's. */
Test(biased, one_good_object)
{
    static chain c;
    double law[CHAIN_OBJECTS];
    char dir[256];
    table_run run = {0};
    int alive = 0;
    chain_make(&c, 3, 4, false, 1);
    for (int o = 0; o < c.objects; o++)
        c.reward[o] = o == 47 ? 1 : -1e6F;
    chain_forward(&c, (chain_grid){3, false}, law);
    cr_assert(table_folder(dir));
    cr_assert_eq(table_write(&c, dir), KAC_OK, "%s", kac_last_error());
    kac_status status = table_sample(&c, dir,
                                     "sampler.algorithm=smc sampler.potential=terminal "
                                     "process.steps=3 sampler.alpha=1 sampler.groups=4000 "
                                     "sampler.particles=16",
                                     &run);
    cr_assert_eq(status, KAC_OK, "%s", kac_last_error());
    for (int64_t i = 0; i < run.n; i++)
        alive += run.log_weight[i] > -100;
    cr_expect(alive > 0);
    cr_expect(fabs(run.log_evidence - (1 + log(law[47]))) < 6 * run.standard_error,
              "%g +- %g for %g", run.log_evidence, run.standard_error, 1 + log(law[47]));
    table_run_free(&run);
    table_folder_remove(dir);
}

/* Children that no stage selects among have no proper weight. */
Test(biased, pooled_children_must_be_selected)
{
    static chain c;
    table_run run = {0};
    char dir[256];
    const char *pool = "sampler.algorithm=smc sampler.children=2 "
                       "sampler.select.group.trigger.kind=ess";
    chain_make(&c, 3, 4, false, 1);
    cr_assert(table_folder(dir));
    cr_assert_eq(table_write(&c, dir), KAC_OK, "%s", kac_last_error());
    cr_expect_eq(table_sample(&c, dir, pool, &run), KAC_ERR_INVALID);
    table_folder_remove(dir);
}

/* A run that is not properly weighted has neither weights nor evidence. */
Test(biased, improper_runs_have_no_evidence)
{
    static chain c;
    static const char *const rows[] = {"svdd_pm", "best_of_n", "best_of_n_pool"};
    char dir[256], text[256];
    chain_make(&c, 3, 4, false, 1);
    cr_assert(table_folder(dir));
    cr_assert_eq(table_write(&c, dir), KAC_OK, "%s", kac_last_error());
    for (int k = 0; k < 3; k++) {
        table_run run = {0};
        snprintf(text, sizeof text, "process.steps=3 sampler.groups=4 sampler.algorithm=%s",
                 rows[k]);
        cr_assert_eq(table_sample(&c, dir, text, &run), KAC_OK, "%s", kac_last_error());
        cr_expect(isnan(run.log_evidence), "%s: %g", rows[k], run.log_evidence);
        cr_expect(isnan(run.standard_error), "%s", rows[k]);
        for (int64_t i = 0; i < run.n; i++)
            cr_expect(isnan(run.log_weight[i]), "%s", rows[k]);
        table_run_free(&run);
    }
    table_folder_remove(dir);
}
