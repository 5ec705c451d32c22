/* validate.c -- kac validate: checks the sampler against exact laws on this machine. */
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

static volatile sig_atomic_t stopped;

/* The folder of models must go: after the check in hand, unless Ctrl-C comes a second time. */
static void stop(int signal)
{
    if (stopped && signal == SIGINT) _exit(CLI_MACHINE);
    stopped = 1;
}

static bool is_stopped(void)
{
    return stopped != 0;
}

/* Whether `text` is a number from 0 to 2^53 - 1. */
static bool parse_seed(const char *text, uint64_t *out)
{
    char *end = NULL;
    if (*text < '0' || *text > '9') return false;
    *out = strtoull(text, &end, 10);
    return *end == '\0' && *out < UINT64_C(1) << 53;
}

/* Runs the checks with their JSON in path.part, which becomes `path` when it is complete. */
static cli_exit validate(const kac_validate_options *options, const char *path)
{
    char part[PATH_MAX];
    FILE *json = NULL;
    bool holds = false;
    if (path != NULL) {
        if (snprintf(part, sizeof part, "%s.part", path) >= (int)sizeof part)
            return cli_fail(CLI_MISTAKE, "validate: --json: the path is too long");
        json = fopen(part, "w");
        if (json == NULL) return cli_fail(CLI_MACHINE, "%s: cannot be written", part);
    }
    kac_status status = kac_validate(options, stdout, json, &holds);
    bool whole = status == KAC_OK && !stopped;
    if (json != NULL) {
        bool written = fclose(json) == 0 && whole && rename(part, path) == 0;
        if (!written) (void)remove(part);
        if (!written && whole) return cli_fail(CLI_MACHINE, "%s: cannot be written", path);
    }
    if (stopped) return cli_fail(CLI_MACHINE, "validate: stopped; some checks were left out");
    if (status != KAC_OK) return cli_status(status);
    return holds ? CLI_DONE : cli_fail(CLI_MISTAKE, "validate: a check does not hold");
}

cli_exit cli_validate(int argc, char **argv)
{
    static const struct option options[] = {
        {"level", required_argument, NULL, 'l'}, {"device", required_argument, NULL, 'd'},
        {"seed", required_argument, NULL, 's'},  {"only", required_argument, NULL, 'o'},
        {"json", required_argument, NULL, 'j'},  {NULL, 0, NULL, 0}};
    kac_validate_options wanted = {.device = "auto", .seed = 1, .stops = is_stopped};
    const char *json = NULL;
    for (int option; (option = cli_option(argc, argv, options)) != -1;) {
        if (option == '?') return CLI_MISTAKE;
        if (option == 'd') wanted.device = optarg;
        if (option == 'o') wanted.only = optarg;
        if (option == 'j') json = optarg;
        if (option == 'l') {
            wanted.full = strcmp(optarg, "full") == 0;
            if (!wanted.full && strcmp(optarg, "quick") != 0)
                return cli_fail(CLI_MISTAKE, "validate: --level %s: want quick or full",
                                optarg);
        }
        if (option == 's' && !parse_seed(optarg, &wanted.seed))
            return cli_fail(CLI_MISTAKE,
                            "validate: --seed %s: want an integer from 0 to 2^53 - 1", optarg);
    }
    if (!cli_operands(argv[0], argc - optind, 0, 0)) return CLI_MISTAKE;
    cli_watch(SIGINT, stop);
    cli_watch(SIGTERM, stop);
    cli_watch(SIGHUP, stop);
    return validate(&wanted, json);
}
