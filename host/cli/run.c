/* run.c -- kac run: reads a configuration, samples, and leaves a folder of results. */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoints.h"
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
    bool dry; /* says what it would do, and does nothing */
    bool quiet;
    bool point; /* of a sweep: no summary */
    bool resume;
} request;

/* ---- signals ---------------------------------------------------------------------------- */

static volatile sig_atomic_t stopped, asked;
static char *volatile unfinished[2]; /* empty folders, or NULL; see folder_ready */

/* A launcher may not wait for the end of the step: the empty folders go at once.  Ctrl-C is heard
 * a second time, even in the middle of a step; SIGTERM is not, which Slurm sends twice when a job
 * must make room: to all processes, and through srun, which is one of them. */
static void stop(int signal)
{
    for (int i = 0; i < 2; i++)
        if (unfinished[i] != NULL) rmdir(unfinished[i]);
    if (stopped && signal == SIGINT) _exit(CLI_MACHINE);
    stopped = 1;
}

static void ask(int signal)
{
    (void)signal;
    asked = 1;
}

/* A full disk and a closed pipe become failed writes; stopping and a checkpoint that is asked for
 * wait for the step's end. */
static void watch_signals(void)
{
    signal(SIGXFSZ, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    cli_watch(SIGINT, stop);
    cli_watch(SIGTERM, stop);
    cli_watch(SIGHUP, stop);
    cli_watch(SIGUSR1, ask);
}

/* ---- what is asked ---------------------------------------------------------------------- */

static bool read_count(const char *text, int64_t *out)
{
    char *end = NULL;
    errno = 0;
    *out = strtoll(text, &end, 10);
    return *text >= '0' && *text <= '9' && *end == '\0' && errno == 0 && *out >= 1;
}

static cli_exit check_ranks(const char *kind)
{
    if (strcmp(kind, "auto") == 0 || strcmp(kind, "self") == 0 || strcmp(kind, "mpi") == 0)
        return CLI_DONE;
    return cli_fail(CLI_MISTAKE, "--ranks %s: want auto, self or mpi", kind);
}

bool cli_assigns(const char *text)
{
    const char *equals = strchr(text, '=');
    if (equals != NULL && equals != text) return true;
    cli_fail(CLI_MISTAKE, "--set %s: want KEY=VALUE without blanks", text);
    return false;
}

static cli_exit read_request(int argc, char **argv, request *r)
{
    static const struct option options[] = {{"set", required_argument, NULL, 's'},
                                            {"out", required_argument, NULL, 'o'},
                                            {"ranks", required_argument, NULL, 'n'},
                                            {"record", required_argument, NULL, 'r'},
                                            {"record-every", required_argument, NULL, 'e'},
                                            {"force", no_argument, NULL, 'f'},
                                            {"dry-run", no_argument, NULL, 'd'},
                                            {"quiet", no_argument, NULL, 'q'},
                                            {NULL, 0, NULL, 0}};
    r->set = calloc((size_t)argc, sizeof *r->set);
    if (r->set == NULL) return cli_fail(CLI_MACHINE, "out of memory");
    for (int option; (option = cli_option(argc, argv, options)) != -1;) {
        switch (option) {
        case 's':
            if (!cli_assigns(optarg)) return CLI_MISTAKE;
            r->set[r->sets++] = optarg;
            break;
        case 'o': r->out = optarg; break;
        case 'n': r->ranks = optarg; break;
        case 'r': r->record = optarg; break;
        case 'e':
            if (!read_count(optarg, &r->every))
                return cli_fail(CLI_MISTAKE, "--record-every %s: want an integer from 1",
                                optarg);
            break;
        case 'f': r->force = true; break;
        case 'd': r->dry = true; break;
        case 'q': r->quiet = true; break;
        default: return CLI_MISTAKE;
        }
    }
    if (!cli_operands(argv[0], argc - optind, 1, 1)) return CLI_MISTAKE;
    if (r->every != 0 && r->record == NULL)
        return cli_fail(CLI_MISTAKE, "--record-every: it goes with --record DIR");
    if (r->every == 0) r->every = 1;
    if (r->ranks == NULL) r->ranks = "auto";
    r->config = argv[optind];
    return check_ranks(r->ranks);
}

cli_exit cli_set(kac_config *config, const char *assignment)
{
    const char *equals = strchr(assignment, '=');
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

/* A run on its way. */
typedef struct sampling {
    kac_ranks *ranks;
    kac_run *run;
    const kac_config *config;
    outputs *out;
    checkpoints saved;
    progress shown;
    kac_progress now;
    bool saves; /* checkpoints */
    bool stop;  /* all ranks stop after the latest step */
} sampling;

/* What follows a step. */
typedef enum halt { GO_ON, LOOK, SAVE } halt;

/* A checkpoint of the present step; where it cannot be written, the run goes on without. */
static void save(sampling *s)
{
    unfinished[0] = NULL; /* it will not be empty, and then another */
    (void)checkpoints_write(&s->saved, &s->out->run, s->config, s->ranks, s->run, s->now.step);
    unfinished[0] = s->out->run.partial;
}

/* Ranks agree on how they fare, whether they stop here, and what follows: the most that one wants. */
static kac_status keep_pace(sampling *s, kac_status status, halt *next)
{
    int64_t votes[2] = {stopped, (int64_t)*next};
    status = kac_ranks_agree(s->ranks, status, votes, 2);
    s->stop = votes[0] > 0;
    *next = (halt)votes[1];
    return status;
}

/* What shall follow step `step`, which is about to be made.  Any rank may be asked for a checkpoint;
 * the clock is rank 0's. */
static halt what_follows(const sampling *s, int64_t step, double waited)
{
    bool leads = kac_ranks_rank(s->ranks) == 0, last = step == s->shown.steps;
    bool saves = asked || (leads && checkpoints_due(&s->saved));
    if (s->saves && !last && saves) return SAVE;
    return last || (leads && cli_seconds() - waited >= 0.1) ? LOOK : GO_ON;
}

/* All steps that are left.  Waiting for the device ten times a second is enough to show progress
 * and to hear of a failure soon, and seldom enough to cost nothing. */
static kac_status take_steps(sampling *s)
{
    double waited = cli_seconds();
    halt next = GO_ON;
    kac_status status = keep_pace(s, KAC_OK, &next);
    for (int64_t step = s->now.step + 1; step <= s->shown.steps && !s->stop; step++) {
        next = what_follows(s, step, waited);
        status = keep_pace(s, kac_run_step(s->run), &next);
        if (status == KAC_OK && next == GO_ON) continue;
        if (status == KAC_OK) status = kac_run_sync(s->run, &s->now);
        if (status != KAC_OK) return status;
        progress_show(&s->shown, &s->now);
        if (next == SAVE) {
            asked = 0;
            save(s);
        }
        waited = cli_seconds();
    }
    if (s->now.step == s->shown.steps) s->stop = false; /* there is nothing left to stop */
    if (status != KAC_OK || !s->stop) return status;
    status = kac_run_sync(s->run, &s->now);
    if (status == KAC_OK && s->saves && s->now.step > s->saved.step && s->now.step > 0) save(s);
    return status;
}

static cli_exit say_stopped(const sampling *s)
{
    if (s->saved.step < 0)
        return cli_fail(CLI_MACHINE, "stopped at step %lld of %lld; nothing was written",
                        (long long)s->now.step, (long long)s->shown.steps);
    return cli_fail(CLI_MACHINE,
                    "stopped at step %lld of %lld; kac resume %s goes on after step %lld",
                    (long long)s->now.step, (long long)s->shown.steps, s->out->run.path,
                    (long long)s->saved.step);
}

/* The files of samples without those that are forbidden. */
static const char *files_of_allowed(const char *path)
{
    if (folder_holds(path, "samples.fasta")) return " and left out of samples.fasta";
    if (folder_holds(path, "samples.sdf")) return " and left out of samples.smi and .sdf";
    return "";
}

enum { WHY = 2048 }; /* bytes that say which bounds are broken */

static cli_exit say_all_forbidden(const kac_run *run, const char *path)
{
    char why[WHY];
    int64_t groups = 0;
    (void)kac_run_forbidden(run, &groups, why, sizeof why);
    return cli_fail(
        CLI_MISTAKE,
        "every object of %s%lld group%s is forbidden (%s/samples.csv has them): %s%s",
        groups > 1 ? "all " : "", (long long)groups, groups > 1 ? "s" : "", path, why,
        kac_run_could_revive(run) ? "; sampler.on_dead: revive tries for others" : "");
}

static void print_forbidden(const kac_run *run, const char *path)
{
    char why[WHY];
    int64_t groups = 0, forbidden = kac_run_forbidden(run, &groups, why, sizeof why);
    if (forbidden == 0) return;
    printf("%lld of them, of %lld %s, %s forbidden (reward -inf in samples.csv)%s: %s\n",
           (long long)forbidden, (long long)groups, groups == 1 ? "group" : "groups",
           forbidden == 1 ? "is" : "are", files_of_allowed(path), why);
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
        printf("; log Z %.5g +- %.2g is not reliable (it does not matter for designs)",
               evidence, error);
    else if (isfinite(evidence))
        printf("; log Z %.5g is not reliable (it does not matter for designs)", evidence);
    printf("\n");
    print_forbidden(run, path);
    printf("\n");
    return cli_status(kac_compare(&path, 1, stdout));
}

static cli_exit begin_outputs(outputs *o, const request *r, const char *out)
{
    cli_exit code =
        r->resume ? folder_resume(&o->run, out) : folder_begin(&o->run, out, r->force, "--out");
    unfinished[0] = o->run.partial;
    if (code != CLI_DONE || r->record == NULL) return code;
    code = folder_apart(o->run.path, r->record, "--record");
    if (code == CLI_DONE) code = folder_begin(&o->record, r->record, r->force, "--record");
    unfinished[1] = o->record.partial;
    return code;
}

static void end_outputs(outputs *o)
{
    unfinished[0] = unfinished[1] = NULL;
    folder_end(&o->run);
    folder_end(&o->record);
}

/* kac_watch_fn: of the pilot, which is the first that is shown. */
static void show_pilot(void *context, const kac_progress *now, int64_t steps)
{
    progress *shown = context;
    shown->steps = steps;
    progress_show(shown, now);
}

/* The temperature that the pilot has found, and what for. */
static void say_alpha(const sampling *s)
{
    char target[VALUE] = "", amount[VALUE] = "";
    bool ess = kac_config_get(s->config, "sampler.pilot.target", target, VALUE) == KAC_OK &&
               strcmp(target, "ess") == 0;
    if (kac_config_get(s->config, ess ? "sampler.pilot.ess" : "sampler.pilot.kl", amount,
                       VALUE) != KAC_OK)
        return;
    fprintf(stderr, "kac: alpha %.3g (%s %s)\n", kac_run_alpha(s->run), amount,
            ess ? "of the pilot's samples count" : "nats from q");
}

static kac_status create_run(sampling *s, bool quiet)
{
    double pilot = number(s->config, "sampler.pilot.particles");
    s->shown = progress_begin(quiet, true, 0, pilot);
    kac_status status =
        kac_run_create_watched(s->ranks, s->config, show_pilot, &s->shown, &s->run);
    progress_end(&s->shown);
    if (status == KAC_OK && !quiet && s->shown.steps > 0) say_alpha(s);
    return status;
}

/* The run, new or where it was stopped. */
static cli_exit open_run(sampling *s, const request *r)
{
    const char *dir = s->out->run.path != NULL ? s->out->run.path : r->out;
    if (!r->resume) {
        kac_status status = create_run(s, r->quiet || kac_ranks_rank(s->ranks) > 0);
        if (status == KAC_OK && r->record != NULL)
            status = kac_run_keep_trajectories(s->run, r->every);
        return team_status(s->ranks, status);
    }
    cli_exit code = checkpoints_resume(dir, s->config, s->ranks, &s->run);
    if (code != CLI_DONE || kac_run_keeps_trajectories(s->run) == (r->record != NULL))
        return code;
    return r->record != NULL
               ? cli_fail(CLI_MISTAKE, "--record: the run in %s keeps no trajectories", dir)
               : cli_fail(CLI_MISTAKE, "the run in %s keeps trajectories; give --record DIR",
                          dir);
}

/* Files into the outputs, which appear. */
static cli_exit write_outputs(kac_run *run, outputs *o)
{
    bool records = o->record.path != NULL;
    unfinished[0] = unfinished[1] = NULL; /* soon not empty, and then not there */
    cli_exit code = folder_ready(&o->run);
    if (code == CLI_DONE && records) code = folder_ready(&o->record);
    if (code == CLI_DONE) code = cli_status(kac_run_write(run, o->run.partial));
    if (code == CLI_DONE && records)
        code = cli_status(kac_run_write_trajectories(run, o->record.partial));
    if (code != CLI_DONE) return code;
    if (records) code = folder_commit(&o->record);
    cli_exit of_run = folder_commit(&o->run); /* whatever became of the record */
    return code == CLI_DONE ? of_run : code;
}

/* What is said of a complete run; where it has nothing to give, that is a failure. */
static cli_exit conclude(const sampling *s, const request *r)
{
    const char *path = s->out->run.path;
    if (r->point) return CLI_DONE; /* the table of the sweep tells */
    int64_t samples = kac_run_samples(s->run);
    if (samples > 0 && kac_run_forbidden(s->run, NULL, NULL, 0) == samples)
        return say_all_forbidden(s->run, path);
    return r->quiet ? CLI_DONE : print_summary(s->run, path);
}

/* Steps, results, files, which are rank 0's.  A run that has made its last step ends as it would
 * have, whatever signal comes then. */
static cli_exit sample(sampling *s, const request *r)
{
    bool leads = kac_ranks_rank(s->ranks) == 0;
    double particles = (double)kac_run_groups(s->run) * number(s->config, "sampler.particles");
    kac_status status = kac_run_sync(s->run, &s->now); /* a run that is resumed has made some */
    if (r->resume) s->saved.step = s->now.step;
    s->saves = !isnan(s->saved.seconds);
    s->shown = progress_begin(r->quiet || !leads, false, kac_run_steps(s->run), particles);
    if (status == KAC_OK) status = take_steps(s);
    progress_end(&s->shown);
    if (status == KAC_OK && s->stop) return say_stopped(s);
    if (status == KAC_OK) status = kac_run_finish(s->run);
    cli_exit code = team_status(s->ranks, status);
    if (code == CLI_DONE)
        code = team_code(s->ranks, leads ? write_outputs(s->run, s->out) : CLI_DONE);
    if (code == CLI_MACHINE && s->saved.step >= 0 && leads)
        fprintf(stderr, "kac: kac resume %s goes on after step %lld\n", s->out->run.path,
                (long long)s->saved.step);
    if (code != CLI_DONE) return code;
    return team_code(s->ranks, leads ? conclude(s, r) : CLI_DONE);
}

/* From a configuration to its folder. */
static cli_exit run_configured(const kac_config *config, const request *r, kac_ranks *ranks,
                               const char *out)
{
    outputs o = {{.path = NULL}, {.path = NULL}};
    sampling s = {.ranks = ranks, .config = config, .out = &o};
    bool leads = kac_ranks_rank(ranks) == 0;
    cli_exit code = team_code(ranks, leads ? begin_outputs(&o, r, out) : CLI_DONE);
    if (code == CLI_DONE) code = open_run(&s, r);
    s.saved = checkpoints_begin(config);
    if (code == CLI_DONE) code = sample(&s, r);
    end_outputs(&o); /* first: a launcher that stops a job does not wait for long */
    kac_run_destroy(s.run);
    return code;
}

/* The folders, where they are given, and the models are looked at, and what would be done is said. */
static cli_exit plan_run(const kac_config *config, const request *r, kac_ranks *ranks,
                         const char *out)
{
    bool leads = kac_ranks_rank(ranks) == 0, named = out[0] != '\0';
    cli_exit code = leads && named ? folder_check(out, r->force, "--out") : CLI_DONE;
    if (code == CLI_DONE && leads && r->record != NULL)
        code = folder_check(r->record, r->force, "--record");
    if (code == CLI_DONE && leads && named && r->record != NULL)
        code = folder_apart(out, r->record, "--record");
    code = team_code(ranks, code);
    if (code == CLI_DONE) code = team_status(ranks, kac_run_plan(ranks, config, stdout));
    if (code != CLI_DONE || !leads) return code;
    printf("output      %s%s%s\n", named ? out : "--out DIR will say where",
           r->record != NULL ? ", trajectories in " : "", r->record != NULL ? r->record : "");
    puts("Nothing was run or written: --dry-run.");
    return CLI_DONE;
}

cli_exit cli_run_point(const kac_config *config, const char *out, bool resume, bool quiet)
{
    const request r = {.quiet = quiet, .point = true, .resume = resume};
    watch_signals();
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

    watch_signals(); /* before the ranks meet, which may take seconds */
    cli_exit code = read_request(argc, argv, &r);
    if (code == CLI_DONE) code = team_join(r.ranks, &ranks);
    if (code == CLI_DONE) code = cli_status(kac_config_create(&config));
    if (code == CLI_DONE) code = configure(config, &r, ranks, out);
    if (code == CLI_DONE) code = (r.dry ? plan_run : run_configured)(config, &r, ranks, out);
    kac_config_destroy(config);
    free(r.set);
    kac_ranks_close(ranks);
    return code;
}

/* ---- kac resume ------------------------------------------------------------------------- */

static cli_exit read_resumption(int argc, char **argv, request *r)
{
    static const struct option options[] = {
        {"set", required_argument, NULL, 's'},    {"ranks", required_argument, NULL, 'n'},
        {"record", required_argument, NULL, 'r'}, {"force", no_argument, NULL, 'f'},
        {"quiet", no_argument, NULL, 'q'},        {NULL, 0, NULL, 0}};
    *r = (request){.resume = true, .ranks = "auto"};
    r->set = calloc((size_t)argc, sizeof *r->set);
    if (r->set == NULL) return cli_fail(CLI_MACHINE, "out of memory");
    for (int option; (option = cli_option(argc, argv, options)) != -1;) {
        switch (option) {
        case 's':
            if (!cli_assigns(optarg)) return CLI_MISTAKE;
            r->set[r->sets++] = optarg;
            break;
        case 'n': r->ranks = optarg; break;
        case 'r': r->record = optarg; break;
        case 'f': r->force = true; break;
        case 'q': r->quiet = true; break;
        default: return CLI_MISTAKE;
        }
    }
    if (!cli_operands(argv[0], argc - optind, 1, 1)) return CLI_MISTAKE;
    r->out = argv[optind];
    return check_ranks(r->ranks);
}

/* What is in the folder that kac resume is given. */
typedef enum content { STOPPED, COMPLETE, NO_RUN } content;

static content content_of(const char *dir)
{
    if (folder_holds(dir, CONFIG_FILE)) return STOPPED;
    return folder_holds(dir, "run.json") ? COMPLETE : NO_RUN;
}

/* A run that is complete needs nothing but to be rid of what killed ones left beside it. */
static cli_exit end_complete(const request *r)
{
    cli_exit code = folder_clean(r->out);
    if (code == CLI_DONE && !r->quiet)
        fprintf(stderr, "kac: the run in %s is complete\n", r->out);
    return code;
}

/* `path` from here on, where it is relative, to be freed; NULL where there is none, or no memory. */
static char *from_here(const char *here, const char *path)
{
    char *whole = NULL;
    if (path == NULL) return NULL;
    if (path[0] == '/') return strdup(path);
    return asprintf(&whole, "%s/%s", here, path) < 0 ? NULL : whole;
}

/* Relative paths of the run begin where it was started: goes there, and takes along those of the
 * command, which begin here; into whole[2], to be freed.  Where that folder is gone, they begin here. */
static cli_exit go_to_start(request *r, bool leads, char *whole[2])
{
    char here[PATH_MAX], there[PATH_MAX];
    if (getcwd(here, sizeof here) == NULL ||
        !checkpoints_started_in(r->out, there, sizeof there) || strcmp(here, there) == 0)
        return CLI_DONE;
    whole[0] = from_here(here, r->out);
    whole[1] = from_here(here, r->record);
    if (whole[0] == NULL || (r->record != NULL && whole[1] == NULL))
        return cli_fail(CLI_MACHINE, "out of memory");
    if (chdir(there) != 0) {
        if (leads)
            fprintf(stderr,
                    "kac: %s, where the run was started, cannot be entered: %s; relative paths "
                    "begin here instead\n",
                    there, strerror(errno));
        return CLI_DONE;
    }
    r->out = whole[0];
    r->record = whole[1];
    return CLI_DONE;
}

/* Goes on with the run in the folder r->out. */
static cli_exit resume(request *r, kac_ranks *ranks)
{
    bool leads = kac_ranks_rank(ranks) == 0;
    kac_config *config = NULL;
    char *file = NULL, *whole[2] = {NULL, NULL}, out[VALUE];
    int64_t found = leads ? (int64_t)content_of(r->out) : 0;
    cli_exit code = team_told(kac_ranks_agree(ranks, KAC_OK, &found, 1));
    if (code != CLI_DONE) return code;
    if (found == COMPLETE) return team_code(ranks, leads ? end_complete(r) : CLI_DONE);
    if (found == NO_RUN)
        return cli_fail(CLI_MISTAKE, "%s is not the folder of a run that was stopped", r->out);
    code = go_to_start(r, leads, whole);
    if (code == CLI_DONE && asprintf(&file, "%s/" CONFIG_FILE, r->out) < 0)
        code = cli_fail(CLI_MACHINE, "out of memory");
    r->config = file;
    if (code == CLI_DONE) code = cli_status(kac_config_create(&config));
    if (code == CLI_DONE) code = configure(config, r, ranks, out);
    if (code == CLI_DONE) code = run_configured(config, r, ranks, out);
    kac_config_destroy(config);
    free(file);
    free(whole[0]);
    free(whole[1]);
    return code;
}

cli_exit cli_resume(int argc, char **argv)
{
    request r;
    kac_ranks *ranks = NULL;
    watch_signals();
    cli_exit code = read_resumption(argc, argv, &r);
    if (code == CLI_DONE) code = team_join(r.ranks, &ranks);
    if (code == CLI_DONE) code = resume(&r, ranks);
    free(r.set);
    kac_ranks_close(ranks);
    return code;
}
