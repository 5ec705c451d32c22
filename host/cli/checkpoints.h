/* checkpoints.h -- the checkpoints in the folder of a run: when they are due, and which are kept. */
#ifndef KAC_CHECKPOINTS_H
#define KAC_CHECKPOINTS_H

#include "folder.h"

typedef struct checkpoints {
    double seconds; /* from one to the next; NaN: none are written */
    int64_t keep;
    double latest; /* when the latest was written, or the run began; seconds of cli_seconds */
    int64_t step;  /* of the latest, or -1: this process has written none and resumed none */
} checkpoints;

checkpoints checkpoints_begin(const kac_config *config);

bool checkpoints_due(const checkpoints *c);

/* Writes one after `step` steps and removes those that are too many; all ranks call it.  The first
 * makes the run's folder appear, with the configuration in it.  A failure is told and leaves the
 * others as they are. */
cli_exit checkpoints_write(checkpoints *c, folder *f, const kac_config *config,
                           kac_ranks *ranks, kac_run *run, int64_t step);

/* The folder in which the run whose checkpoints are in `dir` was started; false where none says so. */
bool checkpoints_started_in(const char *dir, char *start, size_t size);

/* The run of the latest checkpoint in the folder `dir` that can be used, which rank 0 reads; why others
 * can not is told. */
cli_exit checkpoints_resume(const char *dir, const kac_config *config, kac_ranks *ranks,
                            kac_run **out);

#endif /* KAC_CHECKPOINTS_H */
