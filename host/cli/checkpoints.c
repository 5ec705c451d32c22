/* checkpoints.c -- the checkpoints in the folder of a run: when they are due, and which are kept.
 *
 * DIR/checkpoint-STEP.safetensors, with the configuration in DIR/config.json.  The folder appears
 * with the first, or it comes beside the results that this run will replace; each is written under
 * another name and then renamed, so what has its name is whole, and only then is an older one
 * removed.
 */
#include "checkpoints.h"

#include <dirent.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "team.h"

enum { NAME = 64 };

checkpoints checkpoints_begin(const kac_config *config)
{
    char text[NAME];
    checkpoints c = {.seconds = (double)NAN, .keep = 1, .latest = cli_seconds(), .step = -1};
    if (kac_config_get(config, "checkpoint.seconds", text, sizeof text) == KAC_OK &&
        strcmp(text, "off") != 0)
        c.seconds = strtod(text, NULL);
    if (kac_config_get(config, "checkpoint.keep", text, sizeof text) == KAC_OK)
        c.keep = strtoll(text, NULL, 10);
    return c;
}

bool checkpoints_due(const checkpoints *c)
{
    return cli_seconds() - c->latest >= c->seconds; /* never, where it is NaN */
}

/* ---- which there are ----------------------------------------------------------------------- */

/* The step in the name of a checkpoint, or -1. */
static int64_t step_of(const char *name)
{
    static const char begin[] = "checkpoint-";
    char *end = NULL;
    const char *digits = name + sizeof begin - 1;
    if (strncmp(name, begin, sizeof begin - 1) != 0 || *digits < '0' || *digits > '9')
        return -1;
    long long step = strtoll(digits, &end, 10);
    return strcmp(end, ".safetensors") == 0 ? (int64_t)step : -1;
}

/* The latest checkpoint of fewer than `before` steps, or -1. */
static int64_t latest_before(const char *dir, int64_t before)
{
    int64_t latest = -1;
    DIR *open = opendir(dir);
    if (open == NULL) return -1;
    for (const struct dirent *entry; (entry = readdir(open)) != NULL;) {
        int64_t step = step_of(entry->d_name);
        if (step < before && step > latest) latest = step;
    }
    closedir(open);
    return latest;
}

/* DIR/checkpoint-STEP.safetensors, to be freed; NULL without memory. */
static char *path_of(const char *dir, int64_t step)
{
    char *path = NULL;
    return asprintf(&path, "%s/checkpoint-%08" PRId64 ".safetensors", dir, step) < 0 ? NULL
                                                                                     : path;
}

/* Removes what a killed run was writing. */
static void remove_unfinished(const char *dir)
{
    static const char begin[] = "checkpoint-", end[] = ".partial";
    DIR *open = opendir(dir);
    if (open == NULL) return;
    for (const struct dirent *entry; (entry = readdir(open)) != NULL;) {
        size_t length = strlen(entry->d_name);
        char *path = NULL;
        if (strncmp(entry->d_name, begin, sizeof begin - 1) != 0 || length < sizeof end ||
            strcmp(entry->d_name + length - (sizeof end - 1), end) != 0)
            continue;
        if (asprintf(&path, "%s/%s", dir, entry->d_name) < 0) break;
        unlink(path);
        free(path);
    }
    closedir(open);
}

/* Leaves the one of `step` and the keep - 1 before it; later ones could not be used. */
static void remove_others(const char *dir, int64_t step, int64_t keep)
{
    int64_t kept = 0;
    remove_unfinished(dir);
    for (int64_t s = INT64_MAX; (s = latest_before(dir, s)) >= 0;) {
        if (s <= step && kept++ < keep) continue;
        char *path = path_of(dir, s);
        if (path != NULL) unlink(path);
        free(path);
    }
}

/* ---- writing and reading ------------------------------------------------------------------- */

/* The configuration, before the first checkpoint; from now on nobody else may go on with the run. */
static cli_exit write_first(folder *f, const kac_config *config)
{
    char *path = NULL;
    cli_exit code = folder_ready(f);
    if (code != CLI_DONE) return code;
    if (asprintf(&path, "%s/" CONFIG_FILE, f->partial) < 0)
        return cli_fail(CLI_MACHINE, "out of memory");
    code = cli_status(kac_config_write(config, path));
    free(path);
    return code == CLI_DONE ? folder_hold(f, f->partial) : code;
}

/* What write_first and a failure left would else be among the results. */
static void clear_first(folder *f, const char *checkpoint)
{
    char *path = NULL;
    folder_release(f);
    if (f->replace && folder_holds(f->path, CONFIG_FILE)) (void)folder_hold(f, f->path);
    if (checkpoint != NULL) unlink(checkpoint);
    if (asprintf(&path, "%s/" CONFIG_FILE, f->partial) < 0) return;
    unlink(path);
    free(path);
}

cli_exit checkpoints_write(checkpoints *c, folder *f, const kac_config *config,
                           kac_ranks *ranks, kac_run *run, int64_t step)
{
    bool leads = kac_ranks_rank(ranks) == 0, first = c->step < 0;
    const char *dir = first ? f->partial : f->path;
    char *path = path_of(dir != NULL ? dir : "", step);
    cli_exit code = path != NULL ? CLI_DONE : cli_fail(CLI_MACHINE, "out of memory");
    if (code == CLI_DONE && leads) code = folder_unchanged(f);
    if (code == CLI_DONE && leads && first) code = write_first(f, config);
    code = team_code(ranks, code);
    if (code == CLI_DONE) code = team_told(kac_run_checkpoint(run, path));
    if (code == CLI_DONE && first)
        code = team_code(ranks, leads ? folder_appear(f, path) : CLI_DONE);
    if (code == CLI_DONE) {
        c->step = step;
        if (leads)
            remove_others(f->path, step, first ? 1 : c->keep); /* of an earlier run, all */
    } else if (first && leads) {
        clear_first(f, path);
    }
    c->latest = cli_seconds();
    free(path);
    return code;
}

/* The latest checkpoint of fewer than `before` steps that rank 0 sees, told to all. */
static kac_status agree_on_latest(const char *dir, kac_ranks *ranks, int64_t *step)
{
    *step = kac_ranks_rank(ranks) == 0 ? latest_before(dir, *step) : -1;
    return kac_ranks_agree(ranks, KAC_OK, step, 1);
}

bool checkpoints_started_in(const char *dir, char *start, size_t size)
{
    bool found = false;
    for (int64_t s = INT64_MAX; !found && (s = latest_before(dir, s)) >= 0;) {
        char *path = path_of(dir, s);
        found = path != NULL && kac_checkpoint_folder(path, start, size) == KAC_OK;
        free(path);
    }
    return found;
}

cli_exit checkpoints_resume(const char *dir, const kac_config *config, kac_ranks *ranks,
                            kac_run **out)
{
    cli_exit code = CLI_DONE;
    kac_status status = KAC_OK, told = KAC_OK;
    int64_t step = INT64_MAX;
    while ((status = agree_on_latest(dir, ranks, &step)) == KAC_OK && step >= 0) {
        char *path = path_of(dir, step);
        if (path == NULL) return cli_fail(CLI_MACHINE, "out of memory");
        status = kac_run_resume_on(ranks, config, path, out);
        code = team_told(status);
        told = status;
        free(path);
        if (status != KAC_ERR_INVALID && status != KAC_ERR_IO) return code;
    }
    if (status != KAC_OK && status == told) return code; /* which has ended all for good */
    if (status != KAC_OK) return team_told(status);
    return cli_fail(code == CLI_MACHINE ? code : CLI_MISTAKE,
                    "%s: there is no checkpoint in it that can be used", dir);
}
