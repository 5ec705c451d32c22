/* folder.h -- the output folder of a run, which appears complete or not at all. */
#ifndef KAC_FOLDER_H
#define KAC_FOLDER_H

#include <stdbool.h>
#include <stdio.h>

#include "cli.h"

#define CONFIG_FILE "config.json" /* in the folder of a run that has left checkpoints */

typedef struct folder {
    char *path;    /* where the run shall appear */
    char *partial; /* its hidden sibling, where files are written; NULL when there is none */
    bool replace;  /* an earlier run at `path` is replaced */
    FILE *lock;    /* the run's configuration, which nobody else may hold; or NULL */
} folder;

/* Refuses a `path` that exists, unless `force` is given and an earlier run, with nothing beside it, or
 * nothing is in it (`option` is how the user names another); then makes the sibling, and the
 * folders above it. */
cli_exit folder_begin(folder *f, const char *path, bool force, const char *option);

/* What folder_begin refuses of a `path` that exists, and makes nothing. */
cli_exit folder_check(const char *path, bool force, const char *option);

/* Refuses a `path`, given by `option`, that is the folder `run`, above it or below it: each of the two
 * shall appear as a whole. */
cli_exit folder_apart(const char *run, const char *path, const char *option);

/* Whether the folder `path` holds a file called `name`. */
bool folder_holds(const char *path, const char *name);

/* Removes the siblings that killed runs left beside the folder `path`. */
cli_exit folder_clean(const char *path);

/* Makes the sibling again where a signal has removed it. */
cli_exit folder_ready(const folder *f);

/* Holds the run whose configuration is in the folder `dir`, until folder_end or the end of this
 * process, whatever ends it; refuses where another process does. */
cli_exit folder_hold(folder *f, const char *dir);

/* Lets go of it. */
void folder_release(folder *f);

/* The folder `path` of a run that has left checkpoints, or the one that a link leads to, held and cleaned:
 * it will be replaced at the end. */
cli_exit folder_resume(folder *f, const char *path);

/* Refuses where somebody has put something else at the path since it was looked at, another run too. */
cli_exit folder_unchanged(folder *f);

/* Gives the sibling its name, in place of an earlier run where there is one; what somebody has put beside
 * that run stays in the folder.  Where it fails, as what is there now is something else, what is in the
 * sibling is kept, and said to be. */
cli_exit folder_commit(folder *f);

/* The folder appears with what is in the sibling so far, the file at `checkpoint` and the
 * configuration, and goes on: at the end it will be replaced by what comes into a sibling.  An earlier
 * run stays until then, but for its configuration: the checkpoint moves in first, so that whenever
 * this ends there is one that goes with the configuration, or a complete run. */
cli_exit folder_appear(folder *f, const char *checkpoint);

/* Removes the sibling if it is still there, and frees. */
void folder_end(folder *f);

#endif /* KAC_FOLDER_H */
