/* test_checkpoint.c -- a run that is resumed, after any of its steps, ends with every bit of one that
 * was never stopped; what is damaged or of another run is refused. */
#include <criterion/criterion.h>
#include <glob.h>

#include "gaussian_run.h"
#include "on_device.h"
#include "scratch.h"
#include "table_run.h"

typedef struct fixture {
    chain c;
    char dir[256], out[256];
} fixture;

static fixture f;

static void open_models(void)
{
    chain_make(&f.c, 3, 5, false, 1);
    cr_assert(table_folder(f.dir));
    cr_assert_eq(table_write(&f.c, f.dir), KAC_OK, "%s", kac_last_error());
    scratch_create(f.out, sizeof f.out);
}

static const char *in_out(const char *name)
{
    static char path[2][320];
    static int turn = 0;
    turn = 1 - turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", f.out, name);
    return path[turn];
}

static void remove_models(void)
{
    static const char *const names[] = {
        "samples.csv", "samples.fasta",           "trace.jsonl", "run.json", "state",
        "other",       "trajectories.safetensors"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unlink(in_out(names[i]));
    rmdir(f.out);
    table_folder_remove(f.dir);
}

TestSuite(checkpoint, .init = open_models, .fini = remove_models);

/* ---- what a run leaves ---------------------------------------------------------------------- */

/* All of a file, with what stands behind "seconds" left out up to the end of its line. */
static char *read_file(const char *name)
{
    static char line[1 << 20];
    char *text = NULL;
    size_t size = 0;
    FILE *in = fopen(in_out(name), "r"), *out = open_memstream(&text, &size);
    cr_assert(in != NULL && out != NULL, "%s is not there", name);
    while (fgets(line, sizeof line, in) != NULL) {
        char *seconds = strstr(line, "\"seconds\":");
        char *rest = seconds != NULL ? strpbrk(seconds, ",}") : NULL;
        if (seconds != NULL) *seconds = '\0';
        fprintf(out, "%s%s", line, rest != NULL ? rest : "");
    }
    fclose(in);
    cr_assert_eq(fclose(out), 0);
    return text;
}

/* The results of a run as text, to be freed; evidence by its bits. */
static char *results(kac_run *run)
{
    char *text = NULL;
    size_t size = 0;
    double evidence[2];
    uint64_t bits[2];
    cr_assert_eq(kac_run_finish(run), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_run_write(run, f.out), KAC_OK, "%s", kac_last_error());
    char *samples = read_file("samples.csv"), *trace = read_file("trace.jsonl");
    kac_run_evidence(run, 0, &evidence[0], &evidence[1]);
    memcpy(bits, evidence, sizeof bits);
    FILE *out = open_memstream(&text, &size);
    fprintf(out, "%s\n%s\n%llx %llx\n", samples, trace, (unsigned long long)bits[0],
            (unsigned long long)bits[1]);
    fclose(out);
    free(samples);
    free(trace);
    return text;
}

static kac_config *configure(const char *settings)
{
    kac_config *config = NULL;
    cr_assert_eq(kac_config_create(&config), KAC_OK);
    cr_assert_eq(kac_config_set(config, "model.file", table_path(f.dir, "denoiser").path),
                 KAC_OK);
    cr_assert_eq(kac_config_set(config, "reward.0.kind", "table"), KAC_OK);
    cr_assert_eq(kac_config_set(config, "reward.0.file", table_path(f.dir, "reward").path),
                 KAC_OK);
    cr_assert_eq(kac_config_set(config, "sampler.value.file", table_path(f.dir, "value").path),
                 KAC_OK);
    cr_assert_eq(kac_config_set(config, "device.name", device_name()), KAC_OK);
    cr_assert_eq(kac_config_set(config, "device.threads", "1"), KAC_OK);
    cr_assert_eq(table_configure(config, settings), KAC_OK, "%s", kac_last_error());
    return config;
}

/* ---- resuming ------------------------------------------------------------------------------- */

static void take_steps(kac_run *run, int64_t from, int64_t to)
{
    for (int64_t k = from; k < to; k++)
        cr_assert_eq(kac_run_step(run), KAC_OK, "%s", kac_last_error());
}

/* The checkpoint after `steps` steps, from a run that goes no further. */
static void stop_after(const kac_config *config, int64_t steps)
{
    kac_run *run = NULL;
    cr_assert_eq(kac_run_create(config, &run), KAC_OK, "%s", kac_last_error());
    take_steps(run, 0, steps);
    cr_assert_eq(kac_run_checkpoint(run, in_out("state")), KAC_OK, "%s", kac_last_error());
    kac_run_destroy(run);
}

/* Stops after each `stride`-th step and at the end, and goes on with `later`. */
static void expect_equal(const kac_config *config, const kac_config *later, int64_t stride,
                         const char *what)
{
    kac_run *run = NULL;
    cr_assert_eq(kac_run_create(config, &run), KAC_OK, "%s: %s", what, kac_last_error());
    int64_t steps = kac_run_steps(run);
    take_steps(run, 0, steps);
    char *whole = results(run);
    kac_run_destroy(run);
    for (int64_t k = 0; k <= steps; k += k + stride > steps && k < steps ? steps - k : stride) {
        kac_progress now = {0};
        stop_after(config, k);
        cr_assert_eq(kac_run_resume(later, in_out("state"), &run), KAC_OK, "%s: %s", what,
                     kac_last_error());
        cr_assert_eq(kac_run_sync(run, &now), KAC_OK);
        cr_expect_eq(now.step, k, "%s: it goes on after step %lld", what, (long long)now.step);
        take_steps(run, k, steps);
        char *resumed = results(run);
        cr_expect_str_eq(resumed, whole, "%s, stopped after step %lld", what, (long long)k);
        kac_run_destroy(run);
        free(resumed);
    }
    free(whole);
}

static void expect_equal_tables(const char *settings)
{
    kac_config *config = configure(settings);
    expect_equal(config, config, 1, settings);
    kac_config_destroy(config);
}

#define BASE "process.steps=6 sampler.alpha=0.5 sampler.groups=3 seed=5 "

Test(checkpoint, every_kind_of_step)
{
    static const char *const settings[] = {
        BASE "sampler.algorithm=pretrained",
        BASE "sampler.algorithm=best_of_n sampler.particles=4",
        BASE "sampler.algorithm=smc sampler.particles=6",
        BASE "sampler.algorithm=smc sampler.particles=6 sampler.reuse=off",
        BASE "sampler.algorithm=smc sampler.particles=6 device.cache=0",
        BASE "sampler.algorithm=smc sampler.particles=12 sampler.funnel=6,3",
        BASE "sampler.algorithm=smc sampler.particles=6 sampler.select.group.scope=global",
        BASE "sampler.algorithm=fk_steering sampler.particles=6 sampler.potential=max",
        BASE "sampler.algorithm=fk_steering sampler.particles=6 sampler.potential=sum",
        BASE "sampler.algorithm=nested sampler.particles=4 sampler.children=3",
        BASE "sampler.algorithm=svdd_pm sampler.particles=2 sampler.children=5",
        BASE "sampler.algorithm=svdd_pm sampler.particles=2 sampler.children=5 device.cache=0",
        BASE "sampler.algorithm=svdd_mc sampler.particles=2 sampler.children=5",
        BASE "sampler.algorithm=smc sampler.particles=6 sampler.value.estimate=sample "
             "sampler.value.samples=3",
        BASE "sampler.algorithm=smc sampler.particles=6 sampler.temper.kind=ess",
        "process.steps=6 sampler.groups=3 seed=5 sampler.algorithm=smc sampler.particles=6 "
        "sampler.alpha=auto sampler.pilot.particles=256 sampler.pilot.kl=1",
        BASE "sampler.algorithm=smc sampler.particles=6 sampler.on_dead=revive "
             "sampler.revive.levels=3 reward.0.at_least=0.5 reward.0.weight=1",
    };
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        expect_equal_tables(settings[i]);
}

Test(checkpoint, drivers)
{
    static const char *const settings[] = {
        BASE "sampler.algorithm=rerd sampler.particles=4 driver.iterations=4",
        BASE "sampler.algorithm=rerd sampler.particles=4 driver.iterations=4 driver.elite=off",
        BASE "sampler.algorithm=particle_gibbs sampler.particles=4 driver.sweeps=3 "
             "driver.burn_in=1",
        BASE "sampler.algorithm=ddbfs sampler.particles=2 sampler.children=2 search.depth=2",
    };
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        expect_equal_tables(settings[i]);
}

Test(checkpoint, trees)
{
    static const char *const settings[] = {
        BASE "sampler.algorithm=mcts search.rollouts=24 search.stages=3",
        BASE "sampler.algorithm=mcts search.rollouts=24 search.stages=3 device.cache=0",
        BASE "sampler.algorithm=mcts search.rollouts=24 search.stages=3 sampler.reuse=off",
        BASE "sampler.algorithm=dts search.rollouts=24 search.stages=3",
    };
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        expect_equal_tables(settings[i]);
}

/* What may be another where a run goes on. */
Test(checkpoint, another_device)
{
    const char *settings = BASE "sampler.algorithm=nested sampler.particles=4 "
                                "sampler.children=3";
    kac_config *config = configure(settings);
    kac_config *later = configure(settings);
    cr_assert_eq(table_configure(later, "device.name=cpu device.threads=2 "
                                        "device.isa=portable checkpoint.seconds=off "
                                        "output.dir=elsewhere"),
                 KAC_OK);
    expect_equal(config, later, 1, settings);
    expect_equal(later, config, 1, settings);
    kac_config_destroy(config);
    kac_config_destroy(later);
}

/* A checkpoint disturbs nothing, and a run can be stopped again and again. */
Test(checkpoint, again_and_again)
{
    kac_config *config = configure(BASE "sampler.algorithm=nested sampler.particles=4 "
                                        "sampler.children=3");
    kac_run *run = NULL;
    cr_assert_eq(kac_run_create(config, &run), KAC_OK);
    int64_t steps = kac_run_steps(run);
    take_steps(run, 0, steps);
    char *whole = results(run);
    kac_run_destroy(run);

    cr_assert_eq(kac_run_create(config, &run), KAC_OK);
    for (int64_t k = 0; k < steps; k++) {
        take_steps(run, k, k + 1);
        cr_assert_eq(kac_run_checkpoint(run, in_out("state")), KAC_OK);
        if (k % 2 == 0) continue;
        kac_run_destroy(run);
        cr_assert_eq(kac_run_resume(config, in_out("state"), &run), KAC_OK);
    }
    char *resumed = results(run);
    cr_expect_str_eq(resumed, whole);
    kac_run_destroy(run);
    kac_config_destroy(config);
    free(whole);
    free(resumed);
}

static char *trajectories(kac_run *run)
{
    kac_status status = kac_run_write_trajectories(run, f.out);
    cr_assert_eq(status, KAC_OK, "%s", kac_last_error());
    char *text = NULL;
    size_t size = 0;
    FILE *in = fopen(in_out("trajectories.safetensors"), "rb");
    FILE *out = open_memstream(&text, &size);
    for (int c; (c = fgetc(in)) != EOF;)
        fprintf(out, "%02x", (unsigned)c);
    fclose(in);
    fclose(out);
    return text;
}

/* Stopped after step 3 with every second state kept. */
static void expect_equal_trajectories(const kac_config *config)
{
    kac_run *run = NULL;
    cr_assert_eq(kac_run_create(config, &run), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_run_keep_trajectories(run, 2), KAC_OK);
    int64_t steps = kac_run_steps(run);
    take_steps(run, 0, 3);
    cr_assert_eq(kac_run_checkpoint(run, in_out("state")), KAC_OK);
    take_steps(run, 3, steps);
    cr_assert_eq(kac_run_finish(run), KAC_OK);
    char *whole = trajectories(run);
    kac_run_destroy(run);

    cr_assert_eq(kac_run_resume(config, in_out("state"), &run), KAC_OK, "%s", kac_last_error());
    cr_assert(kac_run_keeps_trajectories(run));
    take_steps(run, 3, steps);
    cr_assert_eq(kac_run_finish(run), KAC_OK);
    char *resumed = trajectories(run);
    cr_expect_str_eq(resumed, whole);
    kac_run_destroy(run);
    free(whole);
    free(resumed);
}

Test(checkpoint, trajectories_go_on)
{
    vec_files files;
    kac_config *config = configure(BASE "sampler.algorithm=smc sampler.particles=6");
    expect_equal_trajectories(config);
    kac_config_destroy(config);
    vec_write(&vec_gaussian, &files);
    cr_assert_eq(vec_config(&files,
                            "process.steps=6 sampler.algorithm=smc sampler.groups=3 "
                            "sampler.particles=6",
                            &config),
                 KAC_OK, "%s", kac_last_error());
    expect_equal_trajectories(config);
    kac_config_destroy(config);
    vec_remove(&files);
}

Test(checkpoint, vectors)
{
    static const char *const settings[] = {
        "process.steps=5 sampler.algorithm=smc sampler.groups=3 "
        "sampler.particles=6",
        "process.steps=5 process.order=2 process.eta=1 "
        "sampler.algorithm=nested sampler.groups=3 sampler.particles=4 sampler.children=3 "
        "sampler.twist.kind=posterior_mean",
    };
    vec_files files;
    vec_write(&vec_gaussian, &files);
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        kac_config *config = NULL;
        cr_assert_eq(vec_config(&files, settings[i], &config), KAC_OK, "%s", kac_last_error());
        expect_equal(config, config, 1, settings[i]);
        kac_config_destroy(config);
    }
    vec_remove(&files);
}

Test(checkpoint, graphs)
{
    static const float mean[4] = {2, 0.5F, 0.25F, 1.25F};
    static const float variance[4] = {1, 0.125F, 0.25F, 0.5F};
    vec_files files = {0};
    net_file_meta(&files.model, "kac.arch", "gmm");
    net_file_meta(&files.model, "kac.nodes", "2");
    net_file_meta(&files.model, "kac.features", "1");
    net_file_meta(&files.model, "kac.noise_nodes", "ve 0.1 1");
    net_file_meta(&files.model, "kac.noise_pairs", "ve 0.1 1");
    net_file_meta(&files.model, "kac.node_counts", "1:1,2:3");
    memcpy(net_file_add(&files.model, KAC_F32, "means", 2, 1, 4), mean, sizeof mean);
    memcpy(net_file_add(&files.model, KAC_F32, "variances", 2, 1, 4), variance,
           sizeof variance);
    *(float *)net_file_add(&files.model, KAC_F32, "weights", 1, 1) = 1;
    net_file_write(&files.model);
    net_file_meta(&files.reward, "kac.arch", "quadratic");
    memcpy(net_file_add(&files.reward, KAC_F32, "matrix", 2, 1, 4), variance, sizeof variance);
    *(float *)net_file_add(&files.reward, KAC_F32, "target", 1, 1) = 0.5F;
    *(float *)net_file_add(&files.reward, KAC_F32, "deviation", 1, 1) = 1;
    memcpy(net_file_add(&files.reward, KAC_F32, "linear", 1, 4), mean, sizeof mean);
    net_file_write(&files.reward);

    kac_config *config = NULL;
    const char *settings = "process.kind=graph process.steps=6 process.corrector=langevin "
                           "sampler.algorithm=smc sampler.groups=3 sampler.particles=6";
    cr_assert_eq(vec_config(&files, settings, &config), KAC_OK, "%s", kac_last_error());
    expect_equal(config, config, 1, settings);
    kac_config_destroy(config);
    vec_remove(&files);
}

#ifdef __SANITIZE_ADDRESS__
enum { EVERY = 20 };
#else
enum { EVERY = 1 };
#endif

/* The shipped configurations, made small; networks, twists and all drivers take part.  Under
 * AddressSanitizer, which makes them twenty times as long, every twentieth. */
Test(checkpoint, shipped_configurations)
{
    static const char *const elsewhere[] = {"gb1_",  "tis_", "utr5_",
                                            "zinc_", "qm9_", "_worker"};
    glob_t found = {0};
    if (strcmp(device_name(), "cpu") != 0) cr_skip_test("they take long on the emulator");
    cr_assert_eq(glob("configs/*.yaml", 0, NULL, &found), 0);
    for (size_t i = 0; i < found.gl_pathc; i += EVERY) {
        const char *path = found.gl_pathv[i];
        kac_config *config = NULL;
        bool ours = true;
        for (size_t k = 0; k < sizeof elsewhere / sizeof *elsewhere; k++)
            if (strstr(path, elsewhere[k]) != NULL) ours = false;
        if (!ours) continue; /* their models are the user's */
        cr_assert_eq(kac_config_create(&config), KAC_OK);
        cr_assert_eq(kac_config_read(config, path), KAC_OK, "%s", kac_last_error());
        cr_assert_eq(table_configure(config, "process.steps=8 sampler.groups=2 "
                                             "output.likelihood=off device.threads=1"),
                     KAC_OK, "%s", kac_last_error());
        kac_run *run = NULL;
        cr_assert_eq(kac_run_create(config, &run), KAC_OK, "%s: %s", path, kac_last_error());
        int64_t steps = kac_run_steps(run);
        kac_run_destroy(run);
        expect_equal(config, config, steps / 2, path);
        kac_config_destroy(config);
    }
    globfree(&found);
}

/* ---- what is refused ------------------------------------------------------------------------ */

static void expect_refused(const kac_config *config, const char *name, const char *text)
{
    kac_run *run = NULL;
    kac_status status = kac_run_resume(config, in_out(name), &run);
    cr_expect_eq(status, KAC_ERR_INVALID, "%s: want it refused", text);
    cr_expect(strstr(kac_last_error(), text) != NULL, "\"%s\" does not say: %s",
              kac_last_error(), text);
    if (status == KAC_OK) kac_run_destroy(run);
}

/* Writes bytes [0, size) as `other`, the byte at `flip` with bit `bit` turned where flip >= 0. */
static void write_other(const unsigned char *bytes, size_t size, int64_t flip, int bit)
{
    FILE *out = fopen(in_out("other"), "wb");
    for (size_t i = 0; i < size; i++)
        fputc((int64_t)i == flip ? bytes[i] ^ 1 << bit : bytes[i], out);
    fclose(out);
}

/* Anywhere: in the header, in every part.  A bit of the blanks that fill the header up may go unseen,
 * where the header stays the JSON that it was. */
Test(checkpoint, damage)
{
    static unsigned char bytes[1 << 20];
    kac_config *config = configure(BASE "sampler.algorithm=smc sampler.particles=6");
    stop_after(config, 3);
    FILE *in = fopen(in_out("state"), "rb");
    size_t size = fread(bytes, 1, sizeof bytes, in);
    fclose(in);
    cr_assert(size > 1000 && size < sizeof bytes);
    for (size_t i = 0; i < 400; i++) {
        size_t at = (i * 7919 + 13) % size;
        kac_run *run = NULL;
        if (bytes[at] == ' ') continue;
        write_other(bytes, size, (int64_t)at, (int)(i % 8));
        kac_status status = kac_run_resume(config, in_out("other"), &run);
        cr_expect_eq(status, KAC_ERR_INVALID, "byte %zu of %zu: %s", at, size,
                     kac_last_error());
        if (status == KAC_OK) kac_run_destroy(run);
    }
    for (size_t cut = 0; cut < size; cut += size / 50) {
        write_other(bytes, cut, -1, 0);
        expect_refused(config, "other", "other");
    }
    expect_refused(config, "nowhere", "cannot open");
    kac_config_destroy(config);
}

Test(checkpoint, of_another_run)
{
    const char *settings = BASE "sampler.algorithm=smc sampler.particles=6 ";
    kac_config *config = configure(settings);
    stop_after(config, 3);
    cr_assert_eq(kac_config_set(config, "sampler.alpha", "0.25"), KAC_OK);
    expect_refused(config, "state", "another sampler.alpha");
    kac_config_destroy(config);

    config = configure(settings);
    cr_assert_eq(kac_config_set(config, "seed", "6"), KAC_OK);
    expect_refused(config, "state", "another seed");
    kac_config_destroy(config);

    config = configure(settings);
    cr_assert_eq(kac_config_set(config, "reward.0.weight", "2"), KAC_OK);
    expect_refused(config, "state", "another reward.0.weight");
    kac_config_destroy(config);

    config = configure(settings);
    f.c.reward[0] += 1;
    cr_assert_eq(table_write(&f.c, f.dir), KAC_OK);
    expect_refused(config, "state", "reward.safetensors has changed since");
    cr_assert_eq(rename(table_path(f.dir, "value").path, in_out("other")), 0);
    expect_refused(config, "other", "not a checkpoint");
    kac_config_destroy(config);
}

/* What is written of a configuration is read as the same. */
/* What run.json says of the start is that of the start, wherever the run is resumed. */
Test(checkpoint, where_it_was_started)
{
    kac_config *config = configure(BASE "sampler.algorithm=smc sampler.particles=6 ");
    kac_run *run = NULL;
    char before[512], found[512], wanted[600];
    cr_assert(getcwd(before, sizeof before) != NULL);
    stop_after(config, 3);
    cr_assert_eq(kac_checkpoint_folder(in_out("state"), found, sizeof found), KAC_OK, "%s",
                 kac_last_error());
    cr_expect_str_eq(found, before);
    cr_expect_eq(kac_checkpoint_folder(in_out("state"), found, 1), KAC_ERR_INVALID, "no room");
    cr_assert_eq(chdir(f.out), 0);
    cr_assert_eq(kac_run_resume(config, in_out("state"), &run), KAC_OK, "%s", kac_last_error());
    take_steps(run, 3, kac_run_steps(run));
    free(results(run));
    char *json = read_file("run.json");
    (void)snprintf(wanted, sizeof wanted, "\"folder\": \"%s\"", before);
    cr_expect(strstr(json, wanted) != NULL, "%s", json);
    cr_expect(strstr(json, "\"command\": \"") != NULL, "%s", json);
    cr_assert_eq(chdir(before), 0);
    free(json);
    kac_run_destroy(run);
    kac_config_destroy(config);
}

Test(checkpoint, configuration)
{
    kac_config *config =
        configure(BASE "sampler.algorithm=nested sampler.alpha=0.1 "
                       "sampler.select.group.trigger.below=0.3 output.dir=a,b");
    kac_config *again = NULL;
    cr_assert_eq(kac_config_write(config, in_out("other")), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_config_create(&again), KAC_OK);
    cr_assert_eq(kac_config_read(again, in_out("other")), KAC_OK, "%s", kac_last_error());
    stop_after(config, 2);
    kac_run *run = NULL;
    cr_expect_eq(kac_run_resume(again, in_out("state"), &run), KAC_OK, "%s", kac_last_error());
    kac_run_destroy(run);
    kac_config_destroy(config);
    kac_config_destroy(again);
}
