/* test_pilot.c -- alpha auto: the temperature found is the one asked for, by enumeration. */
#include <criterion/criterion.h>

#include "run.h"
#include "table_run.h"

/* KL(p* || q) in nats and the limit of ESS / n under q, exactly. */
static void exact_distance(const chain *c, double alpha, double *kl, double *share)
{
    static double law[CHAIN_OBJECTS];
    double z = 0, square = 0, mean = 0;
    chain_forward(c, (chain_grid){3, false}, law);
    for (int o = 0; o < c->objects; o++) {
        double w = exp((double)c->reward[o] / alpha);
        z += law[o] * w;
        square += law[o] * w * w;
        mean += law[o] * w * (double)c->reward[o] / alpha;
    }
    *kl = mean / z - log(z);
    *share = z * z / square;
}

static kac_status open_run(const char *dir, const char *settings, kac_run **run)
{
    kac_config *config = NULL;
    kac_status status = kac_config_create(&config);
    if (status == KAC_OK)
        status = kac_config_set(config, "model.file", table_path(dir, "denoiser").path);
    if (status == KAC_OK) status = kac_config_set(config, "reward.0.kind", "table");
    if (status == KAC_OK)
        status = kac_config_set(config, "reward.0.file", table_path(dir, "reward").path);
    if (status == KAC_OK) status = table_configure(config, settings);
    if (status == KAC_OK) status = kac_run_create(config, run);
    kac_config_destroy(config);
    return status;
}

static void with_model(void (*check)(const chain *, const char *))
{
    static chain c;
    char dir[256];
    chain_make(&c, 3, 4, false, 1);
    cr_assert(table_folder(dir));
    cr_assert_eq(table_write(&c, dir), KAC_OK, "%s", kac_last_error());
    check(&c, dir);
    table_folder_remove(dir);
}

#define AUTO "process.steps=3 sampler.alpha=auto sampler.pilot.particles=20000 "

static void check_targets(const chain *c, const char *dir)
{
    kac_run *run = NULL;
    double kl = 0, share = 0;
    cr_assert_eq(open_run(dir, AUTO "sampler.pilot.kl=0.5", &run), KAC_OK, "%s",
                 kac_last_error());
    exact_distance(c, run->set.sampler.alpha, &kl, &share);
    cr_expect_float_eq(kl, 0.5, 0.03, "KL %g", kl);
    cr_expect(run->pilot.denoiser_made > 0 && run->pilot.denoiser_made <= 4 * 20000);
    kac_run_destroy(run);

    run = NULL;
    cr_assert_eq(open_run(dir, AUTO "sampler.pilot.target=ess sampler.pilot.ess=0.3", &run),
                 KAC_OK, "%s", kac_last_error());
    exact_distance(c, run->set.sampler.alpha, &kl, &share);
    cr_expect_float_eq(share, 0.3, 0.02, "ESS share %g", share);
    kac_run_destroy(run);
}

Test(pilot, finds_what_is_asked)
{
    with_model(check_targets);
}

/* What a watch has heard. */
typedef struct heard {
    int calls;
    int64_t latest, steps;
} heard;

static void hear(void *context, const kac_progress *now, int64_t steps)
{
    heard *h = context;
    cr_expect_gt(now->step, h->latest);
    h->calls++;
    h->latest = now->step;
    h->steps = steps;
}

static void check_watch(const chain *c, const char *dir)
{
    (void)c;
    heard h = {0};
    kac_run *run = NULL, *watched = NULL;
    cr_assert_eq(open_run(dir, AUTO "sampler.pilot.kl=0.5", &run), KAC_OK, "%s",
                 kac_last_error());
    cr_assert_eq(kac_run_create_watched(NULL, run->config, hear, &h, &watched), KAC_OK, "%s",
                 kac_last_error());
    cr_expect(h.calls > 0 && h.latest == 3 && h.steps == 3, "%d calls, the latest of %d of %d",
              h.calls, (int)h.latest, (int)h.steps);
    cr_expect_eq(kac_run_alpha(watched), kac_run_alpha(run));
    cr_expect_eq(kac_run_alpha(run), run->set.sampler.alpha);
    kac_run_destroy(run);
    kac_run_destroy(watched);

    h = (heard){0};
    run = watched = NULL;
    cr_assert_eq(open_run(dir, "process.steps=3 sampler.alpha=0.5", &run), KAC_OK, "%s",
                 kac_last_error());
    cr_assert_eq(kac_run_create_watched(NULL, run->config, hear, &h, &watched), KAC_OK, "%s",
                 kac_last_error());
    cr_expect_eq(h.calls, 0);
    cr_expect_eq(kac_run_alpha(watched), 0.5);
    kac_run_destroy(run);
    kac_run_destroy(watched);
}

Test(pilot, may_be_watched)
{
    with_model(check_watch);
}

static void check_refusal(const chain *c, const char *dir)
{
    (void)c;
    kac_run *run = NULL;
    cr_expect_eq(open_run(dir, AUTO "sampler.pilot.kl=9", &run), KAC_ERR_INVALID);
    cr_expect_str_eq(kac_last_error(),
                     "sampler.pilot.kl: 9 nats need a pilot of 81031 valid samples, and "
                     "sampler.pilot.particles gave 20000");
    cr_expect_null(run);
}

Test(pilot, refuses_what_it_cannot_know)
{
    with_model(check_refusal);
}

/* A pilot, and the baseline of a sweep, take objects without a value as the run does. */
static void check_invalid(const chain *c, const char *dir)
{
    char text[512], kept[16];
    kac_run *run = NULL;
    kac_config *config = NULL, *baseline = NULL;
    cr_assert_eq(table_write_forbidden(c, dir, 1), KAC_OK, "%s", kac_last_error());
    snprintf(text, sizeof text, AUTO "sampler.pilot.kl=0.5 reward.1.kind=pwm reward.1.file=%s",
             table_path(dir, "forbidden").path);
    cr_expect_eq(open_run(dir, text, &run), KAC_ERR_NUMERIC);
    cr_expect_null(run);
    snprintf(text + strlen(text), sizeof text - strlen(text), " sampler.on_invalid=worst");
    cr_assert_eq(open_run(dir, text, &run), KAC_OK, "%s", kac_last_error());
    kac_run_destroy(run);

    cr_assert_eq(kac_config_create(&config), KAC_OK);
    cr_assert_eq(kac_config_set(config, "sampler.on_invalid", "worst"), KAC_OK);
    cr_assert_eq(kac_config_best_of_n(config, 2, &baseline), KAC_OK);
    cr_assert_eq(kac_config_get(baseline, "sampler.on_invalid", kept, sizeof kept), KAC_OK);
    cr_expect_str_eq(kept, "worst");
    kac_config_destroy(config);
    kac_config_destroy(baseline);
}

Test(pilot, takes_invalid_objects_as_the_run_does)
{
    with_model(check_invalid);
}
