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
#include "run.h"
#include "team.h"

enum { VALUE = 1024 }; /* longest value of a key, as text */

typedef struct request {
    const char *config;
    const char **set; /* [sets] "KEY=VALUE" */
    int sets;
    const char *out;    /* or NULL: output.dir */
    const char *ranks;  /* auto, self or mpi */
    const char *record; /* folder of the trajectories, or NULL */
    int64_t every;      /* steps between two recorded levels */
    bool force;
    bool quiet;
    bool point; /* of a sweep: no summary */
} request;

/* ---- signals ---------------------------------------------------------------------------- */

static volatile sig_atomic_t stopped;
static char *volatile unfinished[2]; /* empty folders to remove on the way out, or NULL */

static void stop(int signal)
{
    (void)signal;
    if (stopped) { /* asked twice: at once, even in the middle of a step */
        for (int i = 0; i < 2; i++)
            if (unfinished[i] != NULL) rmdir(unfinished[i]);
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

static bool read_count(const char *text, int64_t *out)
{
    char *end = NULL;
    errno = 0;
    *out = strtoll(text, &end, 10);
    return *text >= '0' && *text <= '9' && *end == '\0' && errno == 0 && *out >= 1;
}

static cli_exit read_request(int argc, char **argv, request *r)
{
    static const struct option options[] = {{"set", required_argument, NULL, 's'},
                                            {"out", required_argument, NULL, 'o'},
                                            {"ranks", required_argument, NULL, 'n'},
                                            {"record", required_argument, NULL, 'r'},
                                            {"record-every", required_argument, NULL, 'e'},
                                            {"force", no_argument, NULL, 'f'},
                                            {"quiet", no_argument, NULL, 'q'},
                                            {NULL, 0, NULL, 0}};
    r->set = calloc((size_t)argc, sizeof *r->set);
    if (r->set == NULL) return cli_fail(CLI_MACHINE, "out of memory");
    for (int option; (option = cli_option(argc, argv, options)) != -1;) {
        switch (option) {
        case 's': r->set[r->sets++] = optarg; break;
        case 'o': r->out = optarg; break;
        case 'n': r->ranks = optarg; break;
        case 'r': r->record = optarg; break;
        case 'e':
            if (!read_count(optarg, &r->every))
                return cli_fail(CLI_MISTAKE, "--record-every %s: want an integer from 1",
                                optarg);
            break;
        case 'f': r->force = true; break;
        case 'q': r->quiet = true; break;
        default: return CLI_MISTAKE;
        }
    }
    if (!cli_operands(argv[0], argc - optind, 1, 1)) return CLI_MISTAKE;
    if (r->every != 0 && r->record == NULL)
        return cli_fail(CLI_MISTAKE, "--record-every: it goes with --record DIR");
    if (r->every == 0) r->every = 1;
    if (r->ranks == NULL) r->ranks = "auto";
    if (strcmp(r->ranks, "auto") != 0 && strcmp(r->ranks, "self") != 0 &&
        strcmp(r->ranks, "mpi") != 0)
        return cli_fail(CLI_MISTAKE, "--ranks %s: want auto, self or mpi", r->ranks);
    r->config = argv[optind];
    return CLI_DONE;
}

cli_exit cli_set(kac_config *config, const char *assignment)
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
static cli_exit configure(kac_config *config, const request *r, kac_ranks *ranks, char *out)
{
    kac_status status = kac_config_read(config, r->config);
    if (status == KAC_OK && cli_isa(NULL) != NULL)
        status = kac_config_set(config, "device.isa", cli_isa(NULL));
    cli_exit code = team_status(ranks, status);
    for (int i = 0; i < r->sets && code == CLI_DONE; i++)
        code = cli_set(config, r->set[i]);
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

/* Where a run leaves its files. */
typedef struct outputs {
    folder run;
    folder record; /* path NULL: no trajectories are kept */
} outputs;

/* How far all ranks are: what they fared, whether any is asked to stop, and whether rank 0 wants to
 * show something. */
typedef struct pace {
    kac_ranks *ranks;
    bool stop;
} pace;

/* All ranks agree on the status, and on whether they stop here.  *due: what rank 0 says. */
static kac_status keep_pace(pace *p, kac_status status, bool *due)
{
    int64_t votes[2] = {stopped, *due && kac_ranks_rank(p->ranks) == 0};
    status = kac_ranks_agree(p->ranks, status, votes, 2);
    p->stop = votes[0] > 0;
    *due = votes[1] > 0;
    return status;
}

/* All steps.  Waiting for the device ten times a second is enough to show progress and to hear
 * of a failure soon, and seldom enough to cost nothing. */
static kac_status take_steps(kac_run *run, pace *p, progress *shown, kac_progress *now)
{
    double waited = seconds();
    bool due = false;
    kac_status status = keep_pace(p, KAC_OK, &due);
    for (int64_t step = 1; step <= shown->steps && !p->stop && status == KAC_OK; step++) {
        due = seconds() - waited >= 0.1;
        status = keep_pace(p, kac_run_step(run), &due);
        if (status != KAC_OK || (step < shown->steps && !due)) continue;
        status = kac_run_sync(run, now);
        if (status == KAC_OK) progress_show(shown, now);
        waited = seconds();
    }
    return status == KAC_OK && p->stop ? kac_run_sync(run, now) : status;
}

/* What follows the last step, as long as all ranks go on; rank 0 writes. */
static kac_status complete(kac_run *run, pace *p, const request *r, const outputs *o)
{
    bool writes = kac_ranks_rank(p->ranks) == 0, due = false;
    kac_status status = keep_pace(p, KAC_OK, &due);
    if (status != KAC_OK || p->stop) return status;
    status = keep_pace(p, kac_run_finish(run), &due);
    if (status != KAC_OK || p->stop) return status;
    if (writes) status = kac_run_write(run, o->run.partial);
    if (writes && status == KAC_OK && !stopped && r->record != NULL)
        status = kac_run_write_trajectories(run, o->record.partial);
    return keep_pace(p, status, &due);
}

static cli_exit print_summary(const kac_run *run, const char *path)
{
    double evidence = 0, error = 0;
    kac_run_evidence(run, 0, &evidence, &error);
    printf("%lld samples in %s", (long long)kac_run_samples(run), path);
    if (isfinite(evidence) && kac_run_targets(run) > 1)
        printf(", log Z of %lld targets in run.json", (long long)kac_run_targets(run));
    else if (isfinite(evidence) && kac_run_evidence_is_reliable(run, 0))
        printf(", log Z = %.5g +- %.2g", evidence, error);
    else if (isfinite(evidence) && isfinite(error))
        printf(", log Z near %.5g +- %.2g, not reliable: take more particles or groups, or a "
               "larger alpha",
               evidence, error);
    else if (isfinite(evidence))
        printf(", log Z near %.5g, not reliable: its error is not known", evidence);
    printf("\n\n");
    return cli_status(kac_compare(&path, 1, stdout));
}

static cli_exit begin_outputs(outputs *o, const request *r, const char *out)
{
    cli_exit code = folder_begin(&o->run, out, r->force, "--out");
    unfinished[0] = o->run.partial;
    if (code != CLI_DONE || r->record == NULL) return code;
    code = folder_begin(&o->record, r->record, r->force, "--record");
    unfinished[1] = o->record.partial;
    if (code == CLI_DONE && strcmp(o->run.path, o->record.path) == 0)
        code = cli_fail(CLI_MISTAKE, "--record %s: it is also the output folder", r->record);
    return code;
}

static cli_exit commit_outputs(outputs *o)
{
    cli_exit code = o->record.path != NULL ? folder_commit(&o->record) : CLI_DONE;
    return code == CLI_DONE ? folder_commit(&o->run) : code;
}

static void end_outputs(outputs *o)
{
    unfinished[0] = unfinished[1] = NULL;
    folder_end(&o->run);
    folder_end(&o->record);
}

static cli_exit sample(kac_run *run, const kac_config *config, const request *r,
                       kac_ranks *ranks, outputs *o)
{
    bool first = kac_ranks_rank(ranks) == 0;
    double particles = number(config, "sampler.groups") * number(config, "sampler.particles");
    progress shown = progress_begin(r->quiet || !first, kac_run_steps(run), particles);
    kac_progress now = {0};
    pace p = {ranks, false};
    kac_status status = KAC_OK;
    if (r->record != NULL) status = kac_run_keep_trajectories(run, r->every);
    if (status == KAC_OK) status = take_steps(run, &p, &shown, &now);
    progress_end(&shown);
    if (status == KAC_OK && !p.stop) status = complete(run, &p, r, o);
    if (status != KAC_OK) return team_status(ranks, status);
    if (p.stop)
        return cli_fail(CLI_MACHINE, "stopped at step %lld of %lld; nothing was written",
                        (long long)now.step, (long long)shown.steps);

    cli_exit code = team_code(ranks, first ? commit_outputs(o) : CLI_DONE);
    if (code != CLI_DONE || r->quiet || r->point || !first) return code;
    return print_summary(run, o->run.path);
}

/* From a configuration to its folder. */
static cli_exit run_configured(const kac_config *config, const request *r, kac_ranks *ranks,
                               const char *out)
{
    kac_run *run = NULL;
    outputs o = {{NULL, NULL, false}, {NULL, NULL, false}};
    bool first = kac_ranks_rank(ranks) == 0;
    watch_signals();
    cli_exit code = team_code(ranks, first ? begin_outputs(&o, r, out) : CLI_DONE);
    if (code == CLI_DONE) code = team_status(ranks, kac_run_create_on(ranks, config, &run));
    if (code == CLI_DONE) code = sample(run, config, r, ranks, &o);
    kac_run_destroy(run);
    end_outputs(&o);
    return code;
}

cli_exit cli_run_point(const kac_config *config, const char *out, bool quiet)
{
    const request r = {.quiet = quiet, .point = true};
    return run_configured(config, &r, NULL, out);
}

bool cli_stopped(void)
{
    return stopped != 0;
}

cli_exit cli_run(int argc, char **argv)
{
    request r = {0};
    kac_config *config = NULL;
    kac_ranks *ranks = NULL;
    char out[VALUE];

    cli_exit code = read_request(argc, argv, &r);
    if (code == CLI_DONE) code = team_join(r.ranks, &ranks);
    if (code == CLI_DONE) code = cli_status(kac_config_create(&config));
    if (code == CLI_DONE) code = configure(config, &r, ranks, out);
    if (code == CLI_DONE) code = run_configured(config, &r, ranks, out);
    kac_config_destroy(config);
    free(r.set);
    kac_ranks_close(ranks);
    return code;
}
