/* run.c -- kac run: reads a configuration, samples, and leaves a folder of results. */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "folder.h"
#include "progress.h"

enum { VALUE = 1024 }; /* longest value of a key, as text */

typedef struct request {
    const char *config;
    const char **set; /* [sets] "KEY=VALUE" */
    int sets;
    const char *out; /* or NULL: output.dir */
    bool force;
    bool quiet;
} request;

/* ---- signals ---------------------------------------------------------------------------- */

static volatile sig_atomic_t stopped;
static char *volatile unfinished; /* the empty folder to remove on the way out, or NULL */

static void stop(int signal)
{
    (void)signal;
    if (stopped) { /* asked twice: at once, even in the middle of a step */
        if (unfinished != NULL) rmdir(unfinished);
        _exit(CLI_MACHINE);
    }
    stopped = 1;
}

/* A full disk and a closed pipe become failed writes, and stopping waits for the step's end. */
static void watch_signals(void)
{
    static const int stops[] = {SIGINT, SIGTERM, SIGHUP};
    signal(SIGXFSZ, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++) {
        struct sigaction action;
        sigaction(stops[i], NULL, &action);
        if (action.sa_handler == SIG_IGN) continue; /* nohup, or a shell's background */
        action = (struct sigaction){.sa_handler = stop, .sa_flags = SA_RESTART};
        sigaction(stops[i], &action, NULL);
    }
}

/* ---- what is asked ---------------------------------------------------------------------- */

static cli_exit read_request(int argc, char **argv, request *r)
{
    static const struct option options[] = {{"set", required_argument, NULL, 's'},
                                            {"out", required_argument, NULL, 'o'},
                                            {"force", no_argument, NULL, 'f'},
                                            {"quiet", no_argument, NULL, 'q'},
                                            {NULL, 0, NULL, 0}};
    r->set = calloc((size_t)argc, sizeof *r->set);
    if (r->set == NULL) return cli_fail(CLI_MACHINE, "out of memory");
    for (int option; (option = cli_option(argc, argv, options)) != -1;) {
        switch (option) {
        case 's': r->set[r->sets++] = optarg; break;
        case 'o': r->out = optarg; break;
        case 'f': r->force = true; break;
        case 'q': r->quiet = true; break;
        default: return CLI_MISTAKE;
        }
    }
    if (!cli_operands(argv[0], argc - optind, 1, 1)) return CLI_MISTAKE;
    r->config = argv[optind];
    return CLI_DONE;
}

static cli_exit set_key(kac_config *config, const char *assignment)
{
    const char *equals = strchr(assignment, '=');
    if (equals == NULL || equals == assignment)
        return cli_fail(CLI_MISTAKE, "--set %s: want KEY=VALUE", assignment);
    char *key = strndup(assignment, (size_t)(equals - assignment));
    if (key == NULL) return cli_fail(CLI_MACHINE, "out of memory");
    kac_status status = kac_config_set(config, key, equals + 1);
    free(key);
    return cli_status(status);
}

/* The file, then the environment, then --set and --out; *out is the folder to make. */
static cli_exit configure(kac_config *config, const request *r, char *out)
{
    kac_status status = kac_config_read(config, r->config);
    if (status == KAC_OK && cli_isa(NULL) != NULL)
        status = kac_config_set(config, "device.isa", cli_isa(NULL));
    cli_exit code = cli_status(status);
    for (int i = 0; i < r->sets && code == CLI_DONE; i++)
        code = set_key(config, r->set[i]);
    if (code != CLI_DONE) return code;
    if (r->out != NULL) status = kac_config_set(config, "output.dir", r->out);
    if (status == KAC_OK) status = kac_config_get(config, "output.dir", out, VALUE);
    return cli_status(status);
}

/* ---- sampling --------------------------------------------------------------------------- */

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static double number(const kac_config *config, const char *key)
{
    char text[VALUE];
    return kac_config_get(config, key, text, sizeof text) == KAC_OK ? strtod(text, NULL) : 0;
}

/* All steps.  Waiting for the device ten times a second is enough to show progress and to hear
 * of a failure soon, and seldom enough to cost nothing. */
static kac_status take_steps(kac_run *run, progress *shown, kac_progress *now)
{
    double waited = seconds();
    for (int64_t step = 1; step <= shown->steps && !stopped; step++) {
        kac_status status = kac_run_step(run);
        if (status != KAC_OK) return status;
        if (step < shown->steps && seconds() - waited < 0.1) continue;
        status = kac_run_sync(run, now);
        if (status != KAC_OK) return status;
        progress_show(shown, now);
        waited = seconds();
    }
    return stopped ? kac_run_sync(run, now) : KAC_OK;
}

static cli_exit print_summary(const kac_run *run, const char *path)
{
    double evidence = 0, error = 0;
    kac_run_evidence(run, 0, &evidence, &error);
    printf("%lld samples in %s", (long long)kac_run_samples(run), path);
    if (isfinite(evidence) && kac_run_targets(run) > 1)
        printf(", log Z of %lld targets in run.json", (long long)kac_run_targets(run));
    else if (isfinite(evidence) && error > 0.3) /* docs/algorithms.md */
        printf(", log Z near %.5g, but a few groups decide it: do not rely on it", evidence);
    else if (isfinite(evidence) && isfinite(error))
        printf(", log Z = %.5g +- %.2g", evidence, error);
    else if (isfinite(evidence))
        printf(", log Z = %.5g", evidence);
    printf("\n\n");
    return cli_status(kac_compare(&path, 1, stdout));
}

static cli_exit sample(kac_run *run, const kac_config *config, const request *r, folder *f)
{
    double particles = number(config, "sampler.groups") * number(config, "sampler.particles");
    progress shown = progress_begin(r->quiet, kac_run_steps(run), particles);
    kac_progress now = {0};
    kac_status status = take_steps(run, &shown, &now);
    progress_end(&shown);
    if (status == KAC_OK && !stopped) status = kac_run_finish(run);
    if (status == KAC_OK && !stopped) status = kac_run_write(run, f->partial);
    if (status != KAC_OK) return cli_status(status);
    if (stopped)
        return cli_fail(CLI_MACHINE, "stopped at step %lld of %lld; nothing was written",
                        (long long)now.step, (long long)shown.steps);

    cli_exit code = folder_commit(f);
    if (code != CLI_DONE || r->quiet) return code;
    return print_summary(run, f->path);
}

cli_exit cli_run(int argc, char **argv)
{
    request r = {0};
    kac_config *config = NULL;
    kac_run *run = NULL;
    folder f = {NULL, NULL, false};
    char out[VALUE];

    cli_exit code = read_request(argc, argv, &r);
    if (code == CLI_DONE) code = cli_status(kac_config_create(&config));
    if (code == CLI_DONE) code = configure(config, &r, out);
    if (code == CLI_DONE) {
        watch_signals();
        code = folder_begin(&f, out, r.force);
    }
    unfinished = f.partial;
    if (code == CLI_DONE) code = cli_status(kac_run_create(config, &run));
    if (code == CLI_DONE) code = sample(run, config, &r, &f);

    kac_run_destroy(run);
    kac_config_destroy(config);
    unfinished = NULL;
    folder_end(&f);
    free(r.set);
    return code;
}
