/* test_invariance.c -- changes of a run that must not change a bit of its samples. */
#include <criterion/criterion.h>

#include "on_device.h"
#include "run.h"
#include "table_run.h"

/* The settings that most tests vary: everything that draws random numbers takes part. */
#define SMC                                                                                    \
    "sampler.algorithm=smc process.steps=5 sampler.alpha=0.5 sampler.particles=6 "             \
    "sampler.groups=8 seed=7 "
#define NESTED                                                                                 \
    "sampler.algorithm=nested process.steps=5 sampler.alpha=0.5 sampler.particles=4 "          \
    "sampler.children=3 sampler.groups=8 seed=7 "
#define SVDD                                                                                   \
    "sampler.algorithm=svdd_pm process.steps=5 sampler.alpha=0.5 sampler.particles=4 "         \
    "sampler.children=3 sampler.groups=8 seed=7 "

typedef struct fixture {
    chain c;
    char dir[256];
} fixture;

static fixture f;

static void open_models(void)
{
    chain_make(&f.c, 3, 5, false, 1);
    cr_assert(table_folder(f.dir));
    cr_assert_eq(table_write(&f.c, f.dir), KAC_OK, "%s", kac_last_error());
}

static void remove_models(void)
{
    table_folder_remove(f.dir);
}

TestSuite(invariance, .init = open_models, .fini = remove_models);

/* A run with `more` settings after `settings`. */
static table_run sample(const char *settings, const char *more)
{
    table_run run = {0};
    char text[1024];
    snprintf(text, sizeof text, "%s%s", settings, more);
    kac_status status = table_sample(&f.c, f.dir, text, &run);
    cr_assert_eq(status, KAC_OK, "%s: %s", text, kac_last_error());
    return run;
}

/* The same doubles bit for bit, NaN included. */
static bool same_bits(const double *a, const double *b, int64_t n)
{
    return memcmp(a, b, (size_t)n * sizeof *a) == 0;
}

static void expect_same(const table_run *a, const table_run *b, int64_t n, const char *what)
{
    cr_assert(a->n >= n && b->n >= n, "%s: too few samples", what);
    size_t ints = (size_t)n * sizeof *a->object;
    cr_expect_arr_eq(a->object, b->object, ints, "%s: objects", what);
    cr_expect_arr_eq(a->group, b->group, ints, "%s: groups", what);
    cr_expect_arr_eq(a->slot, b->slot, ints, "%s: slots", what);
    cr_expect(same_bits(a->reward, b->reward, n), "%s: rewards", what);
    cr_expect(same_bits(a->log_weight, b->log_weight, n), "%s: log-weights", what);
}

/* Runs `settings` with each word of `more` and expects the same samples. */
static void expect_invariant(const char *settings, const char *const *more)
{
    table_run first = sample(settings, more[0]);
    for (int k = 1; more[k] != NULL; k++) {
        table_run other = sample(settings, more[k]);
        cr_expect_eq(first.n, other.n, "%s: %s", settings, more[k]);
        expect_same(&first, &other, first.n, more[k]);
        cr_expect(same_bits(&first.log_evidence, &other.log_evidence, 1), "%s", more[k]);
        cr_expect(same_bits(&first.standard_error, &other.standard_error, 1), "%s", more[k]);
        table_run_free(&other);
    }
    table_run_free(&first);
}

static const char *const every_row[] = {
    SMC,
    SMC "sampler.value.estimate=sample sampler.value.samples=2 "
        "sampler.select.group.trigger.kind=every ",
    SMC "sampler.value.estimate=soft sampler.potential=max "
        "sampler.select.group.scheme=killing ",
    SMC "sampler.potential=max sampler.select.group.trigger.below=0.9 ",
    SMC "sampler.potential=sum sampler.select.group.scheme=residual ",
    NESTED,
    SVDD,
    SVDD "sampler.select.parent.rule=argmax ",
    SMC "sampler.select.parent.rule=none sampler.children=2 "
        "sampler.select.group.scope=global sampler.select.group.trigger.kind=every "
        "sampler.final.kind=categorical sampler.final.keep=1 ",
    "sampler.algorithm=best_of_n process.steps=5 sampler.particles=6 sampler.groups=8 seed=7 ",
};
enum { ROWS_COUNT = sizeof every_row / sizeof *every_row };

/* Values of unfinished states do not scale or shift with the reward, so these stand apart. */
static const char *const by_state[] = {
    SMC "sampler.value.kind=learned ",
    NESTED "sampler.value.kind=learned sampler.potential=max ",
    SVDD "sampler.algorithm=svdd_mc ",
    SVDD "sampler.value.kind=state ",
};

Test(invariance, values_of_unfinished_states)
{
    const char *const more[] = {"",
                                "sampler.reuse=off",
                                "device.batch=1",
                                "device.batch=3 sampler.reuse=off",
                                "device.batch=7 device.cache=0",
                                "device.threads=3",
                                "device.isa=portable",
                                NULL};
    for (size_t k = 0; k < sizeof by_state / sizeof *by_state; k++) {
        expect_invariant(by_state[k], more);
        table_run eight = sample(by_state[k], ""),
                  one = sample(by_state[k], "sampler.groups=1");
        expect_same(&one, &eight, one.n, by_state[k]);
        table_run_free(&eight);
        table_run_free(&one);
    }
}

Test(invariance, a_run_repeats)
{
    const char *const more[] = {"", "", NULL};
    for (int k = 0; k < ROWS_COUNT; k++)
        expect_invariant(every_row[k], more);
}

/* Whatever they say; a configuration may change its driver and keep the rest. */
Test(invariance, keys_of_a_search_without_one)
{
    static const char *const more[] = {"", "search.kind=dts", "search.kind=mcts", NULL};
    expect_invariant(SMC, more);
}

Test(invariance, seeds_differ)
{
    table_run a = sample(SMC, "seed=1"), b = sample(SMC, "seed=2");
    cr_expect_arr_neq(a.object, b.object, (size_t)a.n * sizeof *a.object);
    table_run_free(&a);
    table_run_free(&b);
}

Test(invariance, reuse)
{
    const char *const more[] = {"sampler.reuse=on", "sampler.reuse=off", NULL};
    for (int k = 0; k < ROWS_COUNT; k++)
        expect_invariant(every_row[k], more);
}

Test(invariance, reuse_saves_calls)
{
    table_run on = sample(NESTED, "sampler.reuse=on"),
              off = sample(NESTED, "sampler.reuse=off");
    cr_expect_lt(on.calls, off.calls, "%lld calls with reuse, %lld without",
                 (long long)on.calls, (long long)off.calls);
    table_run_free(&on);
    table_run_free(&off);
}

Test(invariance, batch)
{
    const char *const more[] = {"device.batch=auto", "device.batch=1", "device.batch=3",
                                "device.batch=1000", NULL};
    for (int k = 0; k < ROWS_COUNT; k++)
        expect_invariant(every_row[k], more);
}

/* Outputs that do not fit are computed again. */
Test(invariance, cache)
{
    const char *const more[] = {"device.batch=7", "device.batch=7 device.cache=0",
                                "device.batch=1 device.cache=0", NULL};
    for (int k = 0; k < ROWS_COUNT; k++)
        expect_invariant(every_row[k], more);
    table_run all = sample(NESTED, "device.batch=7"),
              few = sample(NESTED, "device.batch=7 device.cache=0");
    cr_expect_gt(few.calls, all.calls, "%lld calls, %lld with a cache", (long long)few.calls,
                 (long long)all.calls);
    table_run_free(&all);
    table_run_free(&few);
}

Test(invariance, batch_without_reuse)
{
    const char *const more[] = {"sampler.reuse=on device.batch=7",
                                "sampler.reuse=off device.batch=1",
                                "sampler.reuse=off device.batch=3", NULL};
    for (int k = 0; k < ROWS_COUNT; k++)
        expect_invariant(every_row[k], more);
}

Test(invariance, threads)
{
    const char *const more[] = {"device.threads=1", "device.threads=2", "device.threads=3",
                                NULL};
    for (int k = 0; k < ROWS_COUNT; k++)
        expect_invariant(every_row[k], more);
}

Test(invariance, instruction_sets)
{
    const char *const more[] = {"device.isa=auto", "device.isa=portable", NULL};
    for (int k = 0; k < ROWS_COUNT; k++)
        expect_invariant(every_row[k], more);
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        const char *const wide[] = {"device.isa=portable", "device.isa=avx2", NULL};
        for (int k = 0; k < ROWS_COUNT; k++)
            expect_invariant(every_row[k], wide);
    }
    if (__builtin_cpu_supports("avx512f")) {
        const char *const wider[] = {"device.isa=portable", "device.isa=avx512", NULL};
        for (int k = 0; k < ROWS_COUNT; k++)
            expect_invariant(every_row[k], wider);
    }
#endif
}

/* A group does not know what stands beside it. */
Test(invariance, a_group_is_alone)
{
    for (int k = 0; k < ROWS_COUNT; k++) {
        if (strstr(every_row[k], "global") != NULL) continue;
        table_run eight = sample(every_row[k], "");
        table_run four = sample(every_row[k], "sampler.groups=4");
        table_run one = sample(every_row[k], "sampler.groups=1");
        expect_same(&four, &eight, four.n, every_row[k]);
        expect_same(&one, &eight, one.n, every_row[k]);
        cr_expect_eq(one.n * 8, eight.n);
        table_run_free(&eight);
        table_run_free(&four);
        table_run_free(&one);
    }
}

/* Twice the reward at twice alpha is the same target. */
Test(invariance, reward_and_alpha_double)
{
    for (int k = 0; k < ROWS_COUNT; k++) {
        table_run a = sample(every_row[k], ""), b;
        b = sample(every_row[k], "reward.0.weight=2 sampler.alpha=1");
        cr_assert_eq(a.n, b.n);
        for (int64_t i = 0; i < a.n; i++)
            b.reward[i] /= 2;
        expect_same(&a, &b, a.n, every_row[k]);
        table_run_free(&a);
        table_run_free(&b);
    }
}

/* One particle, one child: nothing can be selected, whatever the algorithm. */
Test(invariance, one_particle_is_pretrained)
{
    const char *const rows[] = {SMC, NESTED "sampler.children=1 ", SVDD "sampler.children=1 ",
                                SMC "sampler.select.group.trigger.kind=every ",
                                "sampler.algorithm=best_of_n process.steps=5 seed=7 "};
    const char *alone = "sampler.groups=50 sampler.particles=1";
    table_run plain = sample("sampler.algorithm=pretrained process.steps=5 seed=7 ", alone);
    cr_assert_eq(plain.n, 50);
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        table_run run = sample(rows[k], alone);
        cr_assert_eq(run.n, 50);
        cr_expect_arr_eq(plain.object, run.object, 50 * sizeof *run.object, "%s", rows[k]);
        table_run_free(&run);
    }
    table_run_free(&plain);
}

/* The full log-weight of one particle that was never selected is its reward. */
/* Where there is nothing to choose from, no rule of choice drops a weight. */
Test(invariance, one_child_weighs_its_reward)
{
    table_run run = sample(SVDD, "sampler.children=1");
    for (int64_t i = 0; i < run.n; i++)
        cr_expect_float_eq(run.log_weight[i], run.reward[i] / 0.5, 1e-12);
    cr_expect(isfinite(run.log_evidence));
    table_run_free(&run);
}

Test(invariance, one_particle_weighs_its_reward)
{
    const char *const potentials[] = {"difference", "max", "sum", "terminal"};
    for (int k = 0; k < 4; k++) {
        char more[128];
        snprintf(more, sizeof more,
                 "sampler.groups=50 sampler.particles=1 sampler.potential=%s "
                 "sampler.select.group.trigger.kind=every",
                 potentials[k]);
        table_run run = sample(SMC, more);
        for (int64_t i = 0; i < run.n; i++)
            cr_expect_float_eq(run.log_weight[i], run.reward[i] / 0.5, 1e-12, "%s: %g for %g",
                               potentials[k], run.log_weight[i], run.reward[i] / 0.5);
        table_run_free(&run);
    }
}

/* A constant reward steers nothing: no selection by ESS, and the evidence is r / alpha. */
Test(invariance, constant_reward)
{
    const char *const rows[] = {SMC,
                                SMC "sampler.potential=max ",
                                SMC "sampler.potential=sum ",
                                SMC "sampler.potential=terminal ",
                                NESTED,
                                SMC "sampler.value.estimate=soft "};
    for (int o = 0; o < f.c.objects; o++)
        f.c.reward[o] = 0.75f;
    cr_assert_eq(table_write(&f.c, f.dir), KAC_OK);
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        table_run run = sample(rows[k], "sampler.select.group.trigger.below=0.99");
        cr_expect_eq(run.selected, 0, "%s", rows[k]);
        double rounding = strstr(rows[k], "soft") != NULL ? 1e-6 : 1e-13;
        cr_expect_float_eq(run.log_evidence, 1.5, rounding, "%s: %.17g", rows[k],
                           run.log_evidence);
        for (int64_t i = 0; i < run.n; i++)
            cr_expect_float_eq(run.log_weight[i], 1.5, rounding);
        table_run_free(&run);
    }
    table_run plain = sample("sampler.algorithm=pretrained process.steps=5 seed=7 ",
                             "sampler.particles=6 sampler.groups=8");
    table_run smc = sample(SMC, "");
    cr_expect_arr_eq(plain.object, smc.object, (size_t)smc.n * sizeof *smc.object);
    table_run_free(&plain);
    table_run_free(&smc);
}

/* A reward that is higher everywhere by a power of two moves the evidence and nothing else. */
Test(invariance, reward_shifts)
{
    for (int o = 0; o < f.c.objects; o++) /* exact in float before and after */
        f.c.reward[o] = roundf(f.c.reward[o] * 1024) / 1024;
    for (int k = 0; k < ROWS_COUNT; k++) {
        cr_assert_eq(table_write(&f.c, f.dir), KAC_OK);
        table_run a = sample(every_row[k], "");
        chain shifted = f.c;
        for (int o = 0; o < f.c.objects; o++)
            shifted.reward[o] += 16;
        cr_assert_eq(table_write(&shifted, f.dir), KAC_OK);
        table_run b = sample(every_row[k], "");
        cr_assert_eq(a.n, b.n);
        bool rounds = strstr(every_row[k], "soft") || strstr(every_row[k], "estimate=sample");
        if (!rounds) /* soft values are rounded to float, logs of means to double */
            cr_expect_arr_eq(a.object, b.object, (size_t)a.n * sizeof *a.object, "%s",
                             every_row[k]);
        if (!isnan(a.log_evidence) && !rounds)
            cr_expect_float_eq(b.log_evidence - a.log_evidence, 32, 1e-10, "%s", every_row[k]);
        table_run_free(&a);
        table_run_free(&b);
    }
}

/* A denoiser that reads t says something else of the same state at the next level.  With many
 * steps for few sites most children equal their parents. */
static void sample_reading_time(const char *settings, char *text, size_t size)
{
    kac_config *config = NULL;
    kac_run *run = NULL;
    static const float weight[50 * 4] = {[3] = 1, [9] = -2, [22] = 1.5F, [101] = 1, [190] = 2};
    static const char *const metadata[][2] = {{"kac.arch", "pwm"}, {"kac.alphabet", "ACGT"}};
    kac_tensor t = table_tensor("weight", weight, 2, (int64_t[]){50, 4});
    char dir[256], more[1024];
    cr_assert(table_folder(dir));
    cr_assert_eq(kac_tensors_write(table_path(dir, "reward").path, metadata, 2, &t, 1), KAC_OK);
    snprintf(
        more, sizeof more,
        "model.file=tests/golden/cnn1d_time.safetensors reward.0.kind=pwm reward.0.file=%s "
        "process.steps=100 sampler.algorithm=smc sampler.alpha=1 sampler.groups=2 "
        "sampler.particles=3 sampler.final.kind=weighted %s",
        table_path(dir, "reward").path, settings);
    cr_assert_eq(kac_config_create(&config), KAC_OK);
    cr_assert_eq(table_configure(config, more), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_run_create(config, &run), KAC_OK, "%s", kac_last_error());
    for (int64_t k = 0; k < kac_run_steps(run); k++)
        cr_assert_eq(kac_run_step(run), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_run_finish(run), KAC_OK, "%s", kac_last_error());
    text[0] = '\0';
    for (int64_t i = 0; i < kac_run_samples(run); i++) {
        kac_sample s;
        size_t used = strlen(text);
        cr_assert_eq(kac_run_sample(run, i, &s), KAC_OK);
        snprintf(text + used, size - used, "%s %a\n", s.object, s.log_weight);
    }
    kac_run_destroy(run);
    kac_config_destroy(config);
    table_folder_remove(dir);
}

Test(invariance, reuse_with_a_denoiser_that_reads_time)
{
    static const char *const rows[] = {"", "sampler.value.estimate=soft",
                                       "sampler.value.estimate=sample sampler.value.samples=2",
                                       "sampler.value.kind=none sampler.potential=terminal"};
    char on[1024], off[1024], both[128];
    for (int k = 0; k < 4; k++) {
        snprintf(both, sizeof both, "%s sampler.reuse=on", rows[k]);
        sample_reading_time(both, on, sizeof on);
        snprintf(both, sizeof both, "%s sampler.reuse=off", rows[k]);
        sample_reading_time(both, off, sizeof off);
        cr_expect_str_eq(on, off, "%s", rows[k]);
    }
}

/* In batches of 16 of the 2,816 that are asked for; there are 243. */
Test(invariance, no_object_is_scored_twice)
{
    kac_config *config = NULL;
    kac_run *run = NULL;
    kac_progress progress;
    char text[1024];
    snprintf(text, sizeof text,
             "sampler.algorithm=smc sampler.value.estimate=sample sampler.value.samples=2 "
             "process.steps=6 sampler.groups=32 sampler.particles=8 device.batch=16 "
             "model.file=%s/denoiser.safetensors reward.0.kind=table "
             "reward.0.file=%s/reward.safetensors device.name=%s",
             f.dir, f.dir, device_name());
    cr_assert_eq(kac_config_create(&config), KAC_OK);
    cr_assert_eq(table_configure(config, text), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_run_create(config, &run), KAC_OK, "%s", kac_last_error());
    for (int64_t step = 0; step < kac_run_steps(run); step++)
        cr_assert_eq(kac_run_step(run), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_run_sync(run, &progress), KAC_OK, "%s", kac_last_error());
    cr_expect_leq(progress.reward_calls, 243, "%d", (int)progress.reward_calls);
    cr_expect_eq(progress.reward_calls + progress.reward_saved, 256 * (5 * 2 + 1));
    kac_run_destroy(run);
    kac_config_destroy(config);
}

static int entered;

static kac_status count_entry(kac_device *dev)
{
    (void)dev;
    entered++;
    return KAC_OK;
}

/* A thread, or a process with another run, may have been on another GPU since. */
Test(invariance, each_call_begins_on_its_own_device)
{
    kac_config *config = NULL;
    kac_run *run = NULL;
    kac_ops counting;
    char text[1024], path[320];
    snprintf(text, sizeof text,
             SMC "model.file=%s/denoiser.safetensors reward.0.kind=table "
                 "reward.0.file=%s/reward.safetensors device.name=%s",
             f.dir, f.dir, device_name());
    snprintf(path, sizeof path, "%s/checkpoint", f.dir);
    cr_assert_eq(kac_config_create(&config), KAC_OK);
    cr_assert_eq(table_configure(config, text), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_run_create(config, &run), KAC_OK, "%s", kac_last_error());
    counting = *run->dev->ops;
    counting.memory.enter = count_entry;
    run->dev->ops = &counting;
    cr_assert_eq(kac_run_keep_trajectories(run, 1), KAC_OK, "%s", kac_last_error());
    cr_expect_eq(entered, 1);
    for (int64_t step = 1; step <= kac_run_steps(run); step++) {
        cr_assert_eq(kac_run_step(run), KAC_OK, "%s", kac_last_error());
        cr_expect_eq(entered, 1 + step);
    }
    entered = 0;
    cr_assert_eq(kac_run_sync(run, NULL), KAC_OK, "%s", kac_last_error());
    cr_expect_eq(entered, 1);
    cr_assert_eq(kac_run_checkpoint(run, path), KAC_OK, "%s", kac_last_error());
    cr_expect_gt(entered, 1);
    entered = 0;
    cr_assert_eq(kac_run_finish(run), KAC_OK, "%s", kac_last_error());
    cr_expect_gt(entered, 0);
    entered = 0;
    kac_run_destroy(run);
    cr_expect_eq(entered, 1);
    unlink(path);
    kac_config_destroy(config);
}

/* On a GPU the host queues steps and reads nothing back; what grows in the first two steps may
 * wait.  The trace is made all the same. */
Test(invariance, steps_are_queued_without_waiting)
{
    static const char *const rows[] = {SMC,
                                       NESTED,
                                       SVDD,
                                       SMC
                                       "sampler.value.estimate=sample sampler.value.samples=2 ",
                                       SMC "sampler.select.group.scheme=systematic ",
                                       SMC "sampler.on_dead=revive sampler.revive.levels=2 "};
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        kac_config *config = NULL;
        kac_run *run = NULL;
        kac_progress progress;
        char more[1024];
        snprintf(more, sizeof more,
                 "%s model.file=%s/denoiser.safetensors reward.0.kind=table "
                 "reward.0.file=%s/reward.safetensors device.name=%s",
                 rows[k], f.dir, f.dir, device_name());
        cr_assert_eq(kac_config_create(&config), KAC_OK);
        cr_assert_eq(table_configure(config, more), KAC_OK, "%s", kac_last_error());
        cr_assert_eq(kac_run_create(config, &run), KAC_OK, "%s", kac_last_error());
        int64_t waits = 0;
        for (int64_t step = 1; step <= kac_run_steps(run); step++) {
            cr_assert_eq(kac_run_step(run), KAC_OK, "%s", kac_last_error());
            if (step == 2) waits = run->dev->waits;
        }
        cr_expect_eq(run->dev->waits, waits, "%s", rows[k]);
        cr_assert_eq(kac_run_sync(run, &progress), KAC_OK, "%s", kac_last_error());
        cr_expect_eq(progress.step, kac_run_steps(run));
        cr_expect(progress.denoiser_calls > 0);
        if (is_emulator(run->dev)) {
            cr_expect_gt(run->dev->waits, waits, "reading waits");
            cr_expect_not_null(run->recording[0].step, "steps are recorded once and played");
        }
        kac_run_destroy(run);
        kac_config_destroy(config);
    }
}
