/* cli.h -- what the commands of the program share: exit codes, complaints, arguments. */
#ifndef KAC_CLI_H
#define KAC_CLI_H

#include <getopt.h>
#include <stdbool.h>
#include <stddef.h>

#include "kac.h"

typedef enum cli_exit {
    CLI_DONE = 0,
    CLI_BUG = 1,     /* kac itself is wrong */
    CLI_MISTAKE = 2, /* what the user gave is wrong */
    CLI_MACHINE = 3, /* the machine failed, or the run was stopped */
} cli_exit;

/* A command: argv[0] is its name, the rest what follows it. */
typedef cli_exit cli_command_fn(int argc, char **argv);
cli_command_fn cli_run, cli_inspect, cli_explain, cli_devices, cli_verify, cli_validate,
    cli_compare, cli_sweep, cli_resume;

/* Writes "kac: ..." to stderr and returns `code`. */
__attribute__((format(printf, 2, 3))) cli_exit cli_fail(cli_exit code, const char *fmt, ...);

/* Whether complaints from now on are kept and not written: another rank writes them. */
void cli_mute(bool mute);

/* What cli_fail or cli_status has written last, without "kac: "; lines after the first come after
 * a blank.  "" before any. */
const char *cli_complaint(void);

/* Writes the library's latest message, "kac: " before each of its lines, and returns the exit
 * code that `status` means. */
cli_exit cli_status(kac_status status);

/* The next option's `val`; -1 after the last, with the operands at argv[optind]; '?' after
 * complaining of an option that is not in `options` or lacks its value. */
int cli_option(int argc, char **argv, const struct option *options);

/* Whether `given` operands are `least` to `most` of them; complains where not. */
int cli_operands(const char *command, int given, int least, int most);

/* The candidate that `word` was probably meant to be, or NULL.  `candidates` is an array of
 * structs, `stride` bytes each, whose first member is a name; a NULL name ends it. */
const char *cli_nearest(const char *word, const void *candidates, size_t stride);

/* KAC_ISA, or `fallback` where it is unset or empty. */
const char *cli_isa(const char *fallback);

/* Calls `handler` for a signal from now on, unless it is ignored: nohup, or a shell's background. */
void cli_watch(int signal, void (*handler)(int));

/* A clock that only goes forward, in seconds. */
double cli_seconds(void);

#endif /* KAC_CLI_H */
