/* test_value.c -- values of unfinished states: what they cost, the exact law of SVDD-MC, and
 * files that are no values. */
#include <criterion/criterion.h>

#include "table_run.h"

static void expect_refusal(const chain *c, const char *dir, const char *settings,
                           kac_status expected, const char *sentence)
{
    table_run run = {0};
    cr_expect_eq(table_sample(c, dir, settings, &run), expected, "%s", settings);
    cr_expect(strstr(kac_last_error(), sentence) != NULL, "%s: %s", settings, kac_last_error());
    table_run_free(&run);
}

/* ---- the law ---------------------------------------------------------------------------- */

/* Runs svdd_mc and compares the counts of objects with the law of its choices. */
static void check_law(chain *c, chain_grid grid, chain_choice choice, const char *settings)
{
    double law[CHAIN_OBJECTS], counts[CHAIN_OBJECTS] = {0};
    char dir[256], text[1024];
    table_run run = {0};

    chain_law(c, grid, choice, law);
    cr_assert(table_folder(dir));
    cr_assert_eq(table_write(c, dir), KAC_OK, "%s", kac_last_error());
    snprintf(text, sizeof text,
             "sampler.algorithm=svdd_mc process.steps=%d sampler.alpha=%g sampler.groups=%d "
             "sampler.particles=100 sampler.children=%d %s",
             grid.steps, choice.alpha, 1000 * table_scale(), choice.children, settings);
    cr_assert_eq(table_sample(c, dir, text, &run), KAC_OK, "%s", kac_last_error());
    for (int64_t i = 0; i < run.n; i++) {
        counts[run.object[i]]++;
        cr_assert_eq(run.reward[i], (double)c->reward[run.object[i]]);
    }
    double share = chain_chi_square(law, counts, c->objects);
    cr_expect(share < 1, "%s: chi-square is %.2f of its bound", text, share);
    table_run_free(&run);
    table_folder_remove(dir);
}

Test(value, svdd_mc_argmax)
{
    static chain c;
    chain_make(&c, 3, 4, false, 1);
    c.value = c.learned;
    check_law(&c, (chain_grid){3, false}, (chain_choice){CHAIN_ARGMAX, 3, 1},
              "sampler.select.parent.rule=argmax");
    chain_make(&c, 3, 4, true, 1);
    c.value = c.learned;
    check_law(&c, (chain_grid){6, false}, (chain_choice){CHAIN_ARGMAX, 2, 1},
              "sampler.select.parent.rule=argmax");
}

Test(value, svdd_mc_categorical)
{
    static chain c;
    chain_make(&c, 3, 4, false, 1);
    c.value = c.learned;
    check_law(&c, (chain_grid){3, false}, (chain_choice){CHAIN_CATEGORICAL, 2, 0.5}, "");
}

/* A table says 0 of a state with masks: what is left is the choice at the last level, and among
 * children that happen to be finished. */
Test(value, state)
{
    static chain c;
    static float value[CHAIN_ROWS];
    chain_make(&c, 3, 4, false, 1);
    for (int row = 0; row < c.rows; row++) {
        bool finished = true;
        for (int l = 0; l < c.length; l++)
            finished = finished && chain_site(&c, row, l) < c.states;
        value[row] = finished ? c.reward[c.filled[row]] : 0;
    }
    c.value = value;
    check_law(&c, (chain_grid){3, false}, (chain_choice){CHAIN_CATEGORICAL, 3, 0.5},
              "sampler.value.kind=state");
}

/* A learned value that is this reward, weight and all, chooses the same children. */
Test(value, state_is_the_reward_with_zeros_for_masks)
{
    static chain c;
    char dir[256], text[512];
    const char *common = "process.steps=6 sampler.alpha=0.5 sampler.groups=20 seed=3 "
                         "reward.0.weight=0 reward.1.kind=pwm reward.1.weight=2 "
                         "reward.1.file=";
    table_run learned = {0}, state = {0};
    chain_make(&c, 3, 5, false, 1);
    cr_assert(table_folder(dir));
    cr_assert_eq(table_write(&c, dir), KAC_OK, "%s", kac_last_error());
    snprintf(text, sizeof text, "%s%s sampler.algorithm=svdd_mc sampler.value.kind=state",
             common, table_path(dir, "value").path);
    cr_assert_eq(table_sample(&c, dir, text, &state), KAC_OK, "%s", kac_last_error());
    for (int i = 0; i < c.length * c.states; i++)
        c.weight[i] *= 2; /* a learned value is in units of the weighted sum */
    char once[320];       /* the matrix itself, while value.safetensors becomes twice it */
    snprintf(once, sizeof once, "%s", table_path(dir, "forbidden").path);
    cr_assert_eq(rename(table_path(dir, "value").path, once), 0);
    cr_assert_eq(table_write(&c, dir), KAC_OK, "%s", kac_last_error());
    snprintf(text, sizeof text, "%s%s sampler.algorithm=svdd_mc", common, once);
    cr_assert_eq(table_sample(&c, dir, text, &learned), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(learned.n, state.n);
    cr_expect_arr_eq(learned.object, state.object, (size_t)state.n * sizeof *state.object);
    table_run_free(&learned);
    table_run_free(&state);
    table_folder_remove(dir);
}

/* ---- what it costs ---------------------------------------------------------------------- */

/* Evaluations of a run of 6 steps with 2 groups of 3 particles with 4 children each. */
static kac_progress count_calls(const char *dir, const char *settings)
{
    kac_config *config = NULL;
    kac_run *run = NULL;
    kac_progress progress = {0};
    cr_assert_eq(kac_config_create(&config), KAC_OK);
    cr_assert_eq(kac_config_set(config, "model.file", table_path(dir, "denoiser").path),
                 KAC_OK);
    cr_assert_eq(kac_config_set(config, "reward.0.file", table_path(dir, "reward").path),
                 KAC_OK);
    cr_assert_eq(kac_config_set(config, "sampler.value.file", table_path(dir, "value").path),
                 KAC_OK);
    cr_assert_eq(table_configure(config, "reward.0.kind=table process.steps=6 sampler.groups=2 "
                                         "sampler.algorithm=svdd_mc sampler.particles=3 "
                                         "sampler.children=4"),
                 KAC_OK, "%s", kac_last_error());
    cr_assert_eq(table_configure(config, settings), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_run_create(config, &run), KAC_OK, "%s", kac_last_error());
    for (int64_t k = kac_run_steps(run); k > 0; k--)
        cr_assert_eq(kac_run_step(run), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_run_sync(run, &progress), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_run_finish(run), KAC_OK, "%s", kac_last_error());
    kac_run_destroy(run);
    kac_config_destroy(config);
    return progress;
}

/* Each step denoises the survivors, 6, and values the children, 24; the last level fills what
 * is still masked in its children and takes their rewards. */
Test(value, only_survivors_are_denoised)
{
    static chain c;
    char dir[256];
    chain_make(&c, 3, 5, false, 1);
    cr_assert(table_folder(dir));
    cr_assert_eq(table_write(&c, dir), KAC_OK, "%s", kac_last_error());

    kac_progress p = count_calls(dir, "sampler.reuse=off");
    cr_expect_eq(p.denoiser_calls, 6 * 6 + 24, "%lld", (long long)p.denoiser_calls);
    cr_expect_eq(p.reward_calls, 5 * 24 + 24, "%lld", (long long)p.reward_calls);
    cr_expect_eq(p.denoiser_saved, 0);
    cr_expect_eq(p.reward_saved, 0);
    kac_progress state = count_calls(dir, "sampler.reuse=off sampler.value.kind=state");
    cr_expect_eq(state.denoiser_calls, p.denoiser_calls);
    cr_expect_eq(state.reward_calls, p.reward_calls);
    kac_progress mean = count_calls(dir, "sampler.reuse=off sampler.value.kind=posterior_mean");
    cr_expect_eq(mean.denoiser_calls, 6 * 6 + 6 * 24, "%lld", (long long)mean.denoiser_calls);

    kac_progress on = count_calls(dir, "sampler.reuse=on");
    cr_expect_eq(on.denoiser_calls + on.denoiser_saved, p.denoiser_calls);
    cr_expect_eq(on.reward_calls + on.reward_saved, p.reward_calls);
    cr_expect_leq(on.denoiser_calls, 6 * 6, "%lld", (long long)on.denoiser_calls);
    cr_expect_lt(on.reward_calls, p.reward_calls);
    table_folder_remove(dir);
}

/* What was asked is what was evaluated and what was known.  A run with reuse asks, besides, for the
 * value of each particle's start once a pass, all of which are one state here.  Rows of trees that
 * wait are left out, because only a run without reuse asks about them (test_search.c). */
Test(value, calls_add_up)
{
    static const struct {
        const char *settings;
        int starts; /* particles that start with a value, over all passes */
    } rows[] = {
        {"sampler.algorithm=svdd_pm sampler.particles=1 sampler.children=4", 2},
        {"sampler.algorithm=smc sampler.children=1", 6},
        {"sampler.algorithm=smc sampler.children=1 sampler.value.estimate=soft", 6},
        {"sampler.algorithm=nested", 6},
        {"sampler.algorithm=fk_steering sampler.children=1", 0},
        {"sampler.algorithm=particle_gibbs sampler.children=1 driver.sweeps=2", 18},
        {"sampler.algorithm=ddbfs sampler.particles=1 search.depth=2", 4},
        {"sampler.algorithm=rerd sampler.children=4 sampler.value.kind=posterior_mean "
         "driver.iterations=2 driver.fraction=0.9",
         18},
        {"sampler.algorithm=best_of_n sampler.children=1", 0},
    };
    static chain c;
    char dir[256], text[512];
    chain_make(&c, 3, 5, false, 1);
    cr_assert(table_folder(dir));
    cr_assert_eq(table_write(&c, dir), KAC_OK, "%s", kac_last_error());
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        const char *row = rows[k].settings;
        snprintf(text, sizeof text, "sampler.value.file= %s sampler.reuse=on", row);
        kac_progress on = count_calls(dir, text);
        snprintf(text, sizeof text, "sampler.value.file= %s sampler.reuse=off", row);
        kac_progress off = count_calls(dir, text);
        cr_expect_geq(on.denoiser_saved, 0, "%s", row);
        cr_expect_geq(on.reward_saved, 0, "%s: %lld", row, (long long)on.reward_saved);
        cr_expect_eq(on.denoiser_calls + on.denoiser_saved,
                     off.denoiser_calls + off.denoiser_saved, "%s", row);
        cr_expect_eq(on.reward_calls + on.reward_saved - rows[k].starts,
                     off.reward_calls + off.reward_saved, "%s: %lld and %lld", row,
                     (long long)(on.reward_calls + on.reward_saved),
                     (long long)(off.reward_calls + off.reward_saved));
    }
    table_folder_remove(dir);
}

/* A budget of exactly what two groups take allows two, and one call less allows one. */
Test(value, a_budget_knows_what_values_cost)
{
    static chain c;
    static const char *const kinds[] = {"learned", "state"};
    char dir[256], text[512];
    chain_make(&c, 3, 5, false, 1);
    cr_assert(table_folder(dir));
    cr_assert_eq(table_write(&c, dir), KAC_OK, "%s", kac_last_error());
    for (int k = 0; k < 2; k++)
        for (int less = 0; less < 2; less++) {
            table_run run = {0};
            snprintf(text, sizeof text,
                     "process.steps=6 sampler.algorithm=svdd_mc sampler.particles=3 "
                     "sampler.children=4 sampler.groups=9 sampler.value.kind=%s "
                     "budget.denoiser=%d budget.reward=%d",
                     kinds[k], 2 * (6 * 3 + 12) - less, 2 * 6 * 12);
            cr_assert_eq(table_sample(&c, dir, text, &run), KAC_OK, "%s", kac_last_error());
            cr_expect_eq(run.n, less ? 3 : 6, "%s: %lld samples", text, (long long)run.n);
            table_run_free(&run);
        }
    /* Three weights want three groups, whatever takes the third away. */
    snprintf(text, sizeof text,
             "process.steps=6 sampler.algorithm=svdd_mc sampler.particles=3 sampler.children=4 "
             "sampler.groups=9 reward.0.weights=1,2,3 budget.denoiser=%d",
             2 * (6 * 3 + 12));
    expect_refusal(&c, dir, text, KAC_ERR_INVALID,
                   "reward.0.weights: 3 numbers for 2 groups, which budget leaves");
    table_folder_remove(dir);
}

/* ---- what is no value ------------------------------------------------------------------- */

Test(value, files_that_do_not_fit)
{
    static chain c, other;
    char dir[256], elsewhere[256], text[512];
    chain_make(&c, 3, 4, false, 1);
    cr_assert(table_folder(dir));
    cr_assert_eq(table_write(&c, dir), KAC_OK, "%s", kac_last_error());
    cr_assert(table_folder(elsewhere));

    chain_make(&other, 2, 4, false, 1);
    cr_assert_eq(table_write(&other, elsewhere), KAC_OK);
    snprintf(text, sizeof text, "sampler.algorithm=svdd_mc sampler.value.file=%s",
             table_path(elsewhere, "value").path);
    expect_refusal(&c, dir, text, KAC_ERR_INVALID, "its alphabet is \"AB\"");
    chain_make(&other, 3, 5, false, 1);
    cr_assert_eq(table_write(&other, elsewhere), KAC_OK);
    expect_refusal(&c, dir, text, KAC_ERR_INVALID, "length 5 only, not 4");
    snprintf(text, sizeof text, "sampler.algorithm=svdd_mc sampler.value.file=%s",
             table_path(dir, "denoiser").path);
    expect_refusal(&c, dir, text, KAC_ERR_INVALID, "want a reward");
    expect_refusal(&c, dir,
                   "sampler.algorithm=svdd_mc sampler.value.file=tests/golden/"
                   "convgru_norm.safetensors",
                   KAC_ERR_INVALID, "a value has one");
    expect_refusal(&c, dir, "sampler.algorithm=svdd_mc sampler.value.file=nowhere",
                   KAC_ERR_INVALID, "nowhere");
    table_folder_remove(elsewhere);
    table_folder_remove(dir);
}

Test(value, an_infinite_value_is_named)
{
    static chain c;
    char dir[256], text[512];
    chain_make(&c, 3, 4, false, 1);
    cr_assert(table_folder(dir));
    cr_assert_eq(table_write(&c, dir), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(table_write_forbidden(&c, dir, 1), KAC_OK, "%s", kac_last_error());
    snprintf(text, sizeof text,
             "sampler.algorithm=svdd_mc process.steps=5 sampler.value.file=%s",
             table_path(dir, "forbidden").path);
    expect_refusal(&c, dir, text, KAC_ERR_NUMERIC, "the value");
    expect_refusal(&c, dir, text, KAC_ERR_NUMERIC,
                   "forbidden.safetensors gave NaN or infinity");
    table_folder_remove(dir);
}
