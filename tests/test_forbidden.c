/* test_forbidden.c -- what is told of samples that break a bound, and of groups that have no others;
 * test_laws.c checks that the evidence counts such groups as zero. */
#include <criterion/criterion.h>

#include "run.h"
#include "settings.h"
#include "table_run.h"

#define SMC "process.steps=3 sampler.algorithm=smc sampler.alpha=0.7 sampler.groups=40 "
#define RARE                                                                                   \
    "reward.0.name=worth reward.0.weight=1 reward.0.at_least=0.8 " /* one draw in thirteen */

static chain c;
static char dir[256];

static void write_model(void)
{
    chain_make(&c, 3, 4, false, 1);
    cr_assert(table_folder(dir));
    cr_assert_eq(table_write(&c, dir), KAC_OK, "%s", kac_last_error());
}

static void remove_model(void)
{
    static const char *const files[] = {"samples.csv", "samples.fasta", "trace.jsonl",
                                        "run.json", "checkpoint"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        (void)remove(path);
    }
    table_folder_remove(dir);
}

static kac_config *configured(const char *settings)
{
    kac_config *config = NULL;
    cr_assert_eq(kac_config_create(&config), KAC_OK);
    cr_assert_eq(kac_config_set(config, "model.file", table_path(dir, "denoiser").path),
                 KAC_OK);
    cr_assert_eq(kac_config_set(config, "reward.0.kind", "table"), KAC_OK);
    cr_assert_eq(kac_config_set(config, "reward.0.file", table_path(dir, "reward").path),
                 KAC_OK);
    cr_assert_eq(table_configure(config, settings), KAC_OK, "%s", kac_last_error());
    return config;
}

/* A run to its end, and what that came to. */
static kac_status finish(const char *settings, kac_run **run)
{
    kac_config *config = configured(settings);
    kac_status status = kac_run_create(config, run);
    kac_config_destroy(config);
    for (int64_t k = 0; status == KAC_OK && k < kac_run_steps(*run); k++)
        status = kac_run_step(*run);
    return status == KAC_OK ? kac_run_finish(*run) : status;
}

/* Forbidden samples by looking at each; those below the first bound, those above the second. */
typedef struct counts {
    int64_t forbidden, below, above, groups, first; /* number of the first dead group, or -1 */
} counts;

static counts count(const kac_run *run, double least, double most)
{
    counts n = {.first = -1};
    bool dead[64] = {false};
    for (int64_t i = 0; i < kac_run_samples(run); i++) {
        kac_sample s;
        cr_assert_eq(kac_run_sample(run, i, &s), KAC_OK);
        if (s.reward > -HUGE_VAL) continue;
        n.forbidden++;
        n.below += s.terms[0] < least;
        n.above += s.terms[1] > most;
        if (!dead[s.group]) n.groups++;
        dead[s.group] = true;
        if (n.first < 0) n.first = s.group;
    }
    return n;
}

Test(forbidden, samples_are_counted_by_the_bounds_that_they_break, .init = write_model,
     .fini = remove_model)
{
    kac_run *run = NULL;
    char why[256], want[256];
    int64_t groups = 0;
    cr_assert_eq(finish(SMC RARE "sampler.particles=2 reward.1.kind=homopolymer "
                                 "reward.1.weight=0 reward.1.at_most=1",
                        &run),
                 KAC_OK, "%s", kac_last_error());
    counts n = count(run, 0.8, 1);
    cr_assert(n.below > 0 && n.above > 0 && n.forbidden < kac_run_samples(run));
    cr_expect_lt(n.above, n.forbidden);
    cr_expect_eq(kac_run_forbidden(run, &groups, why, sizeof why), n.forbidden);
    cr_expect_eq(groups, n.groups);
    snprintf(
        want, sizeof want,
        "reward.0 (worth) at_least 0.8: %d of %d, reward.1 (homopolymer) at_most 1: %d of %d",
        (int)n.below, (int)n.forbidden, (int)n.above, (int)n.forbidden);
    cr_expect_str_eq(why, want);
    cr_expect_eq(kac_run_forbidden(run, NULL, why, 8), n.forbidden);
    cr_expect_eq(strlen(why), 7);
    kac_run_destroy(run);

    run = NULL;
    cr_assert_eq(finish(SMC "sampler.particles=2", &run), KAC_OK, "%s", kac_last_error());
    cr_expect_eq(kac_run_forbidden(run, &groups, why, sizeof why), 0);
    cr_expect_eq(groups, 0);
    cr_expect_str_eq(why, "");
    kac_run_destroy(run);
}

Test(forbidden, invalid_objects_are_counted_too, .init = write_model, .fini = remove_model)
{
    kac_run *run = NULL;
    char why[256], settings[512], want[128];
    cr_assert_eq(table_write_forbidden(&c, dir, -1), KAC_OK, "%s", kac_last_error());
    snprintf(settings, sizeof settings,
             SMC "sampler.particles=2 reward.1.kind=pwm reward.1.file=%s",
             table_path(dir, "forbidden").path);
    cr_assert_eq(finish(settings, &run), KAC_OK, "%s", kac_last_error());
    int64_t n = kac_run_forbidden(run, NULL, why, sizeof why);
    cr_expect_gt(n, 0);
    snprintf(want, sizeof want, "reward.1 (forbidden) is not finite: %d of %d", (int)n, (int)n);
    cr_expect_str_eq(why, want);
    kac_run_destroy(run);
}

static int64_t lines_with(const char *file, const char *what)
{
    char path[512], line[256];
    int64_t n = 0;
    snprintf(path, sizeof path, "%s/%s", dir, file);
    FILE *in = fopen(path, "r");
    cr_assert_not_null(in, "%s", path);
    while (fgets(line, sizeof line, in) != NULL)
        n += strstr(line, what) != NULL;
    fclose(in);
    return n;
}

Test(forbidden, samples_are_in_no_file_but_the_table, .init = write_model, .fini = remove_model)
{
    kac_run *run = NULL;
    cr_assert_eq(finish(SMC RARE "sampler.particles=2", &run), KAC_OK, "%s", kac_last_error());
    int64_t n = kac_run_forbidden(run, NULL, NULL, 0), all = kac_run_samples(run);
    cr_assert(n > 0 && n < all);
    cr_assert_eq(kac_run_write(run, dir), KAC_OK, "%s", kac_last_error());
    cr_expect_eq(lines_with("samples.csv", ",-inf,"), n);
    cr_expect_eq(lines_with("samples.csv", ","), all + 1);
    cr_expect_eq(lines_with("samples.fasta", ">"), all - n);
    cr_expect_eq(lines_with("samples.fasta", "inf"), 0);
    kac_run_destroy(run);
}

/* The first group that is dead where the run goes on is the one that ends it. */
Test(forbidden, the_group_that_ends_a_run_is_named, .init = write_model, .fini = remove_model)
{
    int later = 0;
    for (int seed = 1; seed <= 12; seed++) {
        kac_run *run = NULL;
        char settings[512], group[32];
        snprintf(settings, sizeof settings,
                 SMC RARE "sampler.particles=12 reward.1.kind=homopolymer reward.1.weight=0 "
                          "reward.1.at_most=3 seed=%d",
                 seed);
        cr_assert_eq(finish(settings, &run), KAC_OK, "%s", kac_last_error());
        int64_t first = count(run, 0.8, 3).first;
        kac_run_destroy(run);
        run = NULL;
        if (first < 0) continue;
        later += first > 0;
        strcat(settings, " sampler.on_dead=error");
        cr_expect_eq(finish(settings, &run), KAC_ERR_NUMERIC);
        kac_run_destroy(run);
        snprintf(group, sizeof group, " group %d is zero", (int)first);
        const char *text = kac_last_error();
        cr_expect(strstr(text, group) != NULL, "%s: %s", group, text);
        cr_expect(strstr(text, "reward.0 (worth) at_least 0.8, reward.1 (homopolymer) at_most "
                               "3)") != NULL,
                  "%s", text);
        cr_expect(strstr(text, "revive tries for other objects") != NULL, "%s", text);
    }
    cr_expect_gt(later, 2);
}

Test(forbidden, revive_is_recommended_where_it_can_be_had, .init = write_model,
     .fini = remove_model)
{
    static const struct {
        const char *settings;
        bool could;
    } cases[] = {
        {SMC "", true},
        {SMC "sampler.on_dead=revive sampler.revive.levels=1", false}, /* it has it */
        {SMC "sampler.select.group.scope=global", false},
        {SMC "sampler.algorithm=svdd_pm sampler.children=2", false},
        {SMC "sampler.algorithm=pretrained", true},
        {SMC "sampler.algorithm=best_of_n", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kac_run *run = NULL;
        char settings[512];
        snprintf(settings, sizeof settings, "%s " RARE, cases[i].settings);
        cr_assert_eq(finish(settings, &run), KAC_OK, "%s: %s", settings, kac_last_error());
        cr_expect_eq(kac_run_could_revive(run), cases[i].could, "%s", settings);
        kac_run_destroy(run);
    }
    kac_run *run = NULL;
    cr_expect_eq(finish(SMC RARE "sampler.algorithm=svdd_pm sampler.children=2 "
                                 "sampler.on_dead=error",
                        &run),
                 KAC_ERR_NUMERIC);
    cr_expect(strstr(kac_last_error(), "revive") == NULL, "%s", kac_last_error());
    kac_run_destroy(run);
}

/* A run that ended at a dead group goes on from its checkpoint, and ends as if it had not. */
Test(forbidden, a_run_that_ended_may_go_on_without_the_group, .init = write_model,
     .fini = remove_model)
{
    static const char *const settings = SMC RARE "sampler.particles=2";
    char path[512];
    kac_config *config[3];
    static const char *const ways[] = {"error", "freeze", "revive"};
    for (int k = 0; k < 3; k++) {
        config[k] = configured(settings);
        cr_assert_eq(kac_config_set(config[k], "sampler.on_dead", ways[k]), KAC_OK);
    }
    kac_run *run = NULL, *again = NULL, *whole = NULL;
    snprintf(path, sizeof path, "%s/checkpoint", dir);
    cr_assert_eq(kac_run_create(config[0], &run), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_run_step(run), KAC_OK);
    cr_assert_eq(kac_run_checkpoint(run, path), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_run_step(run), KAC_OK);
    cr_assert_eq(kac_run_step(run), KAC_OK);
    cr_expect_eq(kac_run_finish(run), KAC_ERR_NUMERIC);

    cr_expect_eq(kac_run_resume(config[2], path, &again), KAC_ERR_INVALID);
    cr_expect(strstr(kac_last_error(), "another sampler.on_dead") != NULL, "%s",
              kac_last_error());
    cr_assert_eq(kac_run_resume(config[1], path, &again), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_run_step(again), KAC_OK);
    cr_assert_eq(kac_run_step(again), KAC_OK);
    cr_assert_eq(kac_run_finish(again), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(finish(settings, &whole), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_run_samples(again), kac_run_samples(whole));
    for (int64_t i = 0; i < kac_run_samples(whole); i++) {
        kac_sample a, b;
        cr_assert_eq(kac_run_sample(again, i, &a), KAC_OK);
        cr_assert_eq(kac_run_sample(whole, i, &b), KAC_OK);
        cr_expect_str_eq(a.object, b.object);
        cr_expect_eq(a.log_weight, b.log_weight);
    }
    kac_run_destroy(run);
    kac_run_destroy(again);
    kac_run_destroy(whole);
    for (int k = 0; k < 3; k++)
        kac_config_destroy(config[k]);
}
