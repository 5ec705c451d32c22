/* validate.c -- kac validate: is what is sampled here what the manual says?
 *
 * The models are enumerated in plain C, the runs are those of the public API on the device that
 * was asked for.  A statistical check rejects a right sampler with probability 1e-6; one that
 * fails is repeated with other random numbers and four times the replicates, and counts only if
 * it fails again.
 */
#include "validate.h"

#include <jansson.h>

#include "atomic.h"
#include "device.h"
#include "run.h"

/* The enumerated models, in folders of their own. */
typedef struct bench {
    const kac_validate_options *options;
    chain model[KAC_MODELS];
    char dir[KAC_MODELS][256];
    int scale;
} bench;

typedef struct outcome {
    double statistic, bound; /* holds while statistic < bound */
    int64_t replicates;
    bool holds, repeated;
    double seconds;
    char why[512]; /* where a run failed */
} outcome;

static const double test_alpha = 0.7;

static chain_grid grid_of(int model)
{
    return (chain_grid){model == KAC_MODEL_MANY ? 9 : 3, model == KAC_MODEL_SHARP};
}

static double temperature_of(int model)
{
    return model == KAC_MODEL_SHARP ? 0.4 : 1;
}

static kac_status open_bench(const kac_validate_options *options, bench *b)
{
    b->options = options;
    b->scale = options->full ? 16 : 1;
    for (int m = 0; m < KAC_MODELS; m++) {
        bool markov = m == KAC_MODEL_MARKOV;
        chain_make(&b->model[m], 3, markov ? 5 : 4, markov, 1);
        chain_temper(&b->model[m], temperature_of(m));
        if (!table_folder(b->dir[m])) {
            b->dir[m][0] = '\0';
            return KAC_FAIL(KAC_ERR_IO, "validate: no folder for its models in TMPDIR");
        }
        KAC_TRY(table_write(&b->model[m], b->dir[m]));
    }
    chain *bad =
        &b->model[KAC_MODEL_BAD]; /* as its runs see it: `forbidden` is a second term */
    for (int o = 0; o < bad->objects; o++)
        if (chain_letter(bad, o, 0) == 0) bad->reward[o] = -HUGE_VALF;
    return KAC_OK;
}

/* The term that forbids objects of KAC_MODEL_BAD, or makes them infinitely good, as settings. */
static kac_status forbid(const bench *b, int sign, const char *settings, char *more,
                         size_t size)
{
    const char *dir = b->dir[KAC_MODEL_BAD];
    snprintf(more, size, "reward.1.kind=pwm reward.1.file=%s %s",
             table_path(dir, "forbidden").path, settings);
    return table_write_forbidden(&b->model[KAC_MODEL_BAD], dir, sign);
}

static void close_bench(bench *b)
{
    for (int m = 0; m < KAC_MODELS; m++)
        if (b->dir[m][0] != '\0') table_folder_remove(b->dir[m]);
}

/* One run of the check; `groups`, `alpha` and `seed` in place of what it says. */
static kac_status sample(const bench *b, const kac_check *check, int groups, uint64_t seed,
                         double alpha, const char *more, table_run *out)
{
    char settings[1024];
    chain_grid grid = grid_of(check->model);
    snprintf(settings, sizeof settings,
             "device.name=%s process.steps=%d process.schedule=%s "
             "process.temperature=%g sampler.alpha=%g sampler.groups=%d sampler.particles=%d "
             "seed=%llu output.trace=off %s",
             b->options->device, grid.steps, grid.flow ? "flow" : "loglinear",
             temperature_of(check->model), alpha, groups, check->particles,
             (unsigned long long)seed, more);
    return table_sample(&b->model[check->model], b->dir[check->model], settings, out);
}

/* ---- the kinds -------------------------------------------------------------------------- */

static kac_status check_same(const bench *b, const kac_check *check, uint64_t seed, outcome *o)
{
    table_run one = {0}, two = {0};
    kac_status status = KAC_OK;
    KAC_TRY_DONE(sample(b, check, check->groups, seed, test_alpha, check->settings, &one));
    KAC_TRY_DONE(sample(b, check, check->groups, seed, test_alpha, check->other, &two));
    o->bound = 1;
    o->replicates = one.n;
    o->statistic = one.n != two.n;
    for (int64_t i = 0; i < one.n && i < two.n; i++)
        o->statistic += one.object[i] != two.object[i] ||
                        one.log_weight[i] != two.log_weight[i]; /* both finite */
done:
    table_run_free(&one);
    table_run_free(&two);
    return status;
}

static kac_status check_constant(const bench *b, const kac_check *check, uint64_t seed,
                                 outcome *o)
{
    table_run run = {0};
    kac_status status = KAC_OK;
    bench *only = malloc(sizeof *only);
    if (only == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "validate: no memory");
    *only = *b;
    chain *flat = &only->model[check->model];
    char *dir = only->dir[check->model];
    for (int i = 0; i < flat->objects; i++)
        flat->reward[i] = 0.7F;
    if (!table_folder(dir)) {
        free(only);
        return KAC_FAIL(KAC_ERR_IO, "validate: no folder in TMPDIR");
    }
    KAC_TRY_DONE(table_write(flat, dir));
    KAC_TRY_DONE(sample(only, check, check->groups, seed, 0.5, check->settings, &run));
    o->bound = 1e-10;
    o->replicates = run.n;
    for (int64_t i = 0; i < run.n; i++) {
        double off = fabs(run.log_weight[i] - (double)0.7F / 0.5);
        o->statistic = off > o->statistic ? off : o->statistic;
    }
    o->statistic = fmax(o->statistic, fabs(run.log_evidence - (double)0.7F / 0.5));
done:
    table_folder_remove(dir);
    table_run_free(&run);
    free(only);
    return status;
}

static kac_status check_counts(const bench *b, const kac_check *check, uint64_t seed,
                               outcome *o)
{
    const chain *c = &b->model[check->model];
    double law[CHAIN_OBJECTS], counts[CHAIN_OBJECTS] = {0};
    table_run run = {0};
    if (check->kind == KAC_CHECK_BEST) {
        chain_forward(c, grid_of(check->model), law);
        chain_best(c->reward, c->objects, check->particles, law);
    } else {
        chain_law(c, grid_of(check->model), check->choice, law);
    }
    KAC_TRY(sample(b, check, check->groups * b->scale, seed, 0.5, check->settings, &run));
    for (int64_t i = 0; i < run.n; i++)
        counts[run.object[i]]++;
    o->statistic = chain_chi_square(law, counts, c->objects);
    o->bound = 1;
    o->replicates = run.n;
    table_run_free(&run);
    return KAC_OK;
}

static kac_status check_weighted(const bench *b, const kac_check *check, uint64_t seed,
                                 outcome *o)
{
    const chain *c = &b->model[check->model];
    double exact[CHAIN_FUNCTIONS];
    table_run run = {0};
    law_sums sums = {.functions = chain_tilted(c, grid_of(check->model), test_alpha, exact)};
    int which = 0;
    char more[768];
    snprintf(more, sizeof more, "%s", check->settings);
    if (check->model == KAC_MODEL_BAD)
        KAC_TRY(forbid(b, -1, check->settings, more, sizeof more));
    KAC_TRY(sample(b, check, check->groups * b->scale, seed, test_alpha, more, &run));
    add_groups(c, &run, &sums);
    o->statistic = worst_z(&sums, exact, &which);
    /* The evidence that the run reports is that of its samples. */
    double mean = sums.sum[0] / (double)sums.replicates;
    if (!(fabs(run.log_evidence - log(mean)) <= run.standard_error)) o->statistic = HUGE_VAL;
    o->bound = LAW_Z_BOUND;
    o->replicates = sums.replicates;
    table_run_free(&run);
    return KAC_OK;
}

/* 95 % intervals from 16 groups: Student's t with 15 degrees of freedom covers 0.931. */
static kac_status check_coverage(const bench *b, const kac_check *check, uint64_t seed,
                                 outcome *o)
{
    double exact[CHAIN_FUNCTIONS];
    int runs = 500 * (b->options->full ? 8 : 1), covered = 0;
    (void)chain_tilted(&b->model[check->model], grid_of(check->model), test_alpha, exact);
    for (int k = 0; k < runs; k++) {
        table_run run = {0};
        KAC_TRY(sample(b, check, check->groups, seed * 100003 + (uint64_t)k, test_alpha,
                       check->settings, &run));
        covered += fabs(run.log_evidence - log(exact[0])) < 1.96 * run.standard_error;
        table_run_free(&run);
    }
    const double expected = 0.931;
    o->statistic = fabs((double)covered / runs - expected);
    o->bound = 0.015 + 4.9 * sqrt(expected * (1 - expected) / runs); /* cv of Z is not small */
    o->replicates = runs;
    return KAC_OK;
}

/* A factorised model of 200 sites in `dir`; *log_z is the evidence at alpha 1 for any number of
 * steps. */
static kac_status write_long(const char *dir, double *log_z)
{
    enum { SITES = 200, LETTERS = 3 };
    static const float law[LETTERS] = {0.5F, 0.3F, 0.2F};
    static const char *const meta[][2] = {{"kac.arch", "markov"},
                                          {"kac.role", "denoiser"},
                                          {"kac.process", "masked"},
                                          {"kac.alphabet", "ABC"},
                                          {"kac.length", "200"}};
    static const char *const reward[][2] = {{"kac.arch", "pwm"}, {"kac.alphabet", "ABC"}};
    float weight[SITES * LETTERS];
    float transition[LETTERS * LETTERS];
    kac_tensor markov[2] = {
        table_tensor("initial", law, 1, (int64_t[]){LETTERS}),
        table_tensor("transition", transition, 2, (int64_t[]){LETTERS, LETTERS})};
    kac_tensor pwm = table_tensor("weight", weight, 2, (int64_t[]){SITES, LETTERS});

    for (int i = 0; i < LETTERS * LETTERS; i++)
        transition[i] = law[i % LETTERS];
    *log_z = 0;
    for (int l = 0; l < SITES; l++) {
        double z = 0;
        for (int k = 0; k < LETTERS; k++) {
            float w = (float)((l * 7 + k * 5) % 11 - 5) / 50;
            weight[l * LETTERS + k] = w;
            z += (double)law[k] * exp((double)w);
        }
        *log_z += log(z / ((double)law[0] + (double)law[1] + (double)law[2]));
    }
    KAC_TRY(kac_tensors_write(table_path(dir, "denoiser").path, meta, 5, markov, 2));
    return kac_tensors_write(table_path(dir, "reward").path, reward, 2, &pwm, 1);
}

static kac_status check_long(const bench *b, const kac_check *check, uint64_t seed, outcome *o)
{
    char dir[256], settings[1024];
    double log_z = 0, evidence = 0, error = 0;
    kac_status status = KAC_OK;
    kac_config *config = NULL;
    kac_run *run = NULL;

    if (!table_folder(dir)) return KAC_FAIL(KAC_ERR_IO, "validate: no folder in TMPDIR");
    KAC_TRY_DONE(write_long(dir, &log_z));
    KAC_TRY_DONE(kac_config_create(&config));
    KAC_TRY_DONE(kac_config_set(config, "model.file", table_path(dir, "denoiser").path));
    KAC_TRY_DONE(kac_config_set(config, "reward.0.kind", "pwm"));
    KAC_TRY_DONE(kac_config_set(config, "reward.0.file", table_path(dir, "reward").path));
    snprintf(settings, sizeof settings,
             "device.name=%s process.steps=32 sampler.alpha=1 sampler.groups=%d "
             "sampler.particles=%d seed=%llu output.trace=off %s",
             b->options->device, check->groups * (b->scale > 1 ? 4 : 1), check->particles,
             (unsigned long long)seed, check->settings);
    KAC_TRY_DONE(table_configure(config, settings));
    KAC_TRY_DONE(kac_run_create(config, &run));
    for (int64_t k = 0; k < kac_run_steps(run); k++)
        KAC_TRY_DONE(kac_run_step(run));
    KAC_TRY_DONE(kac_run_finish(run));
    kac_run_evidence(run, 0, &evidence, &error);
    o->statistic = fabs(evidence - log_z) / error;
    o->bound = 7; /* 64 replicates: wider than normal */
    o->replicates = run->groups;
done:
    table_folder_remove(dir);
    kac_run_destroy(run);
    kac_config_destroy(config);
    return status;
}

static kac_status check_fault(const bench *b, const kac_check *check, uint64_t seed, outcome *o)
{
    table_run run = {0};
    char more[768];
    int sign = strstr(check->other, "infinity") != NULL ? 1 : -1;
    KAC_TRY(forbid(b, sign, check->settings, more, sizeof more));
    kac_status status = sample(b, check, check->groups, seed, test_alpha, more, &run);
    table_run_free(&run);
    bool says = status == KAC_ERR_NUMERIC && strstr(kac_last_error(), check->other) != NULL;
    o->statistic = says ? 0 : 1;
    o->bound = 1;
    o->replicates = 1;
    return KAC_OK;
}

/* ---- the ladder ------------------------------------------------------------------------- */

static kac_status decide(const bench *b, const kac_check *check, uint64_t seed, outcome *o)
{
    *o = (outcome){0};
    switch (check->kind) {
    case KAC_CHECK_SAME: return check_same(b, check, seed, o);
    case KAC_CHECK_CONSTANT: return check_constant(b, check, seed, o);
    case KAC_CHECK_COUNTS:
    case KAC_CHECK_BEST: return check_counts(b, check, seed, o);
    case KAC_CHECK_WEIGHTED: return check_weighted(b, check, seed, o);
    case KAC_CHECK_COVERAGE: return check_coverage(b, check, seed, o);
    case KAC_CHECK_LONG: return check_long(b, check, seed, o);
    case KAC_CHECK_FAULT: return check_fault(b, check, seed, o);
    }
    return KAC_FAIL(KAC_ERR_INTERNAL, "validate: a check of no kind");
}

/* A check, and once more where it fails. */
static void climb(bench *b, const kac_check *check, outcome *o)
{
    double began = kac_now();
    uint64_t seed = b->options->seed;
    kac_status status = decide(b, check, seed, o);
    o->holds = status == KAC_OK && o->statistic < o->bound;
    if (status == KAC_OK && !o->holds) {
        b->scale *= 4;
        status = decide(b, check, seed + 1000003, o);
        b->scale /= 4;
        o->repeated = true;
        o->holds = status == KAC_OK && o->statistic < o->bound;
    }
    if (status != KAC_OK) snprintf(o->why, sizeof o->why, "%s", kac_last_error());
    o->seconds = kac_now() - began;
}

static bool is_statistical(const kac_check *check)
{
    return check->kind != KAC_CHECK_SAME && check->kind != KAC_CHECK_CONSTANT &&
           check->kind != KAC_CHECK_FAULT;
}

static void print_line(FILE *out, const kac_check *check, const outcome *o)
{
    fprintf(out, "%4d  %-34s %10.3g %10.3g %10lld %6.1f s  %s%s%s%s\n", check->rung,
            check->name, o->statistic, o->bound, (long long)o->replicates, o->seconds,
            o->holds ? "holds" : "FAILS", o->repeated ? " (repeated)" : "",
            o->why[0] != '\0' ? ": " : "", o->why);
    fflush(out);
}

static json_t *json_line(const kac_check *check, const outcome *o)
{
    bool finite = isfinite(o->statistic);
    return json_pack("{sisssssososfsIsbsbsfss}", "rung", check->rung, "name", check->name,
                     "settings", check->settings, "statistic",
                     finite ? json_real(o->statistic) : json_null(), "infinite",
                     json_boolean(!finite), "bound", o->bound, "replicates",
                     (json_int_t)o->replicates, "holds", o->holds, "repeated", o->repeated,
                     "seconds", o->seconds, "error", o->why);
}

static bool is_wanted(const kac_validate_options *options, const kac_check *check)
{
    return options->only == NULL || strstr(check->name, options->only) != NULL;
}

/* What every check needs: that there is one, and the device, which no check would find wanting in
 * the sampler. */
static kac_status begin(const kac_validate_options *options)
{
    kac_device *dev = NULL;
    const kac_check *check = kac_checks;
    while (check->name != NULL && !is_wanted(options, check))
        check++;
    if (check->name == NULL)
        return KAC_FAIL(KAC_ERR_INVALID, "validate: --only %s: no check has that in its name",
                        options->only);
    KAC_TRY(kac_device_open(options->device, -1, &dev));
    kac_device_close(dev);
    return KAC_OK;
}

kac_status kac_validate(const kac_validate_options *options, FILE *out, FILE *json_out,
                        bool *holds)
{
    KAC_REQUIRE(options != NULL && out != NULL && holds != NULL);
    kac_status status = KAC_OK;
    int checks = 0, failed = 0, statistical = 0;
    double began = kac_now();
    json_t *lines = json_array();
    bench *b = calloc(1, sizeof *b);
    if (b == NULL || lines == NULL) {
        status = KAC_FAIL(KAC_ERR_NOMEM, "validate: no memory");
        goto done;
    }
    KAC_TRY_DONE(begin(options));
    KAC_TRY_DONE(open_bench(options, b));
    fprintf(out, "rung  %-34s %10s %10s %10s %8s\n", "check", "statistic", "bound",
            "replicates", "time");
    for (const kac_check *check = kac_checks; check->name != NULL; check++) {
        if (options->stops != NULL && options->stops()) break;
        outcome o;
        if (!is_wanted(options, check)) continue;
        climb(b, check, &o);
        print_line(out, check, &o);
        json_array_append_new(lines, json_line(check, &o));
        checks++;
        failed += !o.holds;
        statistical += is_statistical(check);
    }
    *holds = failed == 0;
    fprintf(
        out,
        "\n%d checks, %d failed; seed %llu; a right sampler fails one of the %d statistical "
        "checks at first with probability below %.1g; %.0f s\n",
        checks, failed, (unsigned long long)options->seed, statistical,
        1e-6 * (statistical > 0 ? statistical : 1), kac_now() - began);
    if (json_out != NULL) {
        json_t *root = json_pack("{sssssssIsbsfsO}", "kac", kac_version(), "level",
                                 options->full ? "full" : "quick", "device", options->device,
                                 "seed", (json_int_t)options->seed, "holds", *holds,
                                 "false_alarm", 1e-6 * statistical, "checks", lines);
        status = kac_json_write(root, JSON_INDENT(2), json_out);
        json_decref(root);
        if (status == KAC_OK && (fflush(json_out) != 0 || ferror(json_out)))
            status = KAC_FAIL(KAC_ERR_IO, "validate: the JSON cannot be written");
    }
done:
    if (b != NULL) close_bench(b);
    free(b);
    json_decref(lines);
    return status;
}
