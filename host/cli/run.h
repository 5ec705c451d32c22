/* run.h -- one run of the program, which kac run and kac sweep share. */
#ifndef KAC_CLI_RUN_H
#define KAC_CLI_RUN_H

#include <stdbool.h>

#include "cli.h"

/* Whether what --set is given is "KEY=VALUE"; complains where not. */
bool cli_assigns(const char *text);

/* Sets a key from "KEY=VALUE"; complains where it cannot be. */
cli_exit cli_set(kac_config *config, const char *assignment);

/* Samples as `config` says into the folder `out`, which must not exist, and prints no summary; with
 * `resume` goes on with the run that was stopped there. */
cli_exit cli_run_point(const kac_config *config, const char *out, bool resume, bool quiet);

/* Whether a signal has asked to stop. */
bool cli_stopped(void);

#endif /* KAC_CLI_RUN_H */
