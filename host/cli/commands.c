/* commands.c -- the commands that are one call of the library. */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli.h"

static const struct option no_options[] = {{NULL, 0, NULL, 0}};

cli_exit cli_inspect(int argc, char **argv)
{
    if (cli_option(argc, argv, no_options) != -1) return CLI_MISTAKE;
    if (!cli_operands(argv[0], argc - optind, 1, 1)) return CLI_MISTAKE;
    return cli_status(kac_inspect(argv[optind], stdout));
}

cli_exit cli_explain(int argc, char **argv)
{
    static const struct option options[] = {{"all", no_argument, NULL, 'a'},
                                            {NULL, 0, NULL, 0}};
    int all = 0;
    for (int option; (option = cli_option(argc, argv, options)) != -1;) {
        if (option != 'a') return CLI_MISTAKE;
        all = 1;
    }
    if (!cli_operands(argv[0], argc - optind, 0, all ? 0 : 1)) return CLI_MISTAKE;
    return cli_status(kac_config_explain(argv[optind], stdout)); /* argv ends with NULL: all */
}

cli_exit cli_devices(int argc, char **argv)
{
    if (cli_option(argc, argv, no_options) != -1) return CLI_MISTAKE;
    if (!cli_operands(argv[0], argc - optind, 0, 0)) return CLI_MISTAKE;
    return cli_status(kac_devices(stdout));
}

cli_exit cli_compare(int argc, char **argv)
{
    if (cli_option(argc, argv, no_options) != -1) return CLI_MISTAKE;
    if (!cli_operands(argv[0], argc - optind, 1, INT_MAX)) return CLI_MISTAKE;
    return cli_status(kac_compare((const char *const *)(argv + optind), argc - optind, stdout));
}

cli_exit cli_verify(int argc, char **argv)
{
    static const struct option options[] = {{"tolerance", required_argument, NULL, 't'},
                                            {"device", required_argument, NULL, 'd'},
                                            {NULL, 0, NULL, 0}};
    double tolerance = 0, usual = 0; /* 0: the usual one */
    const char *device = "auto";
    for (int option; (option = cli_option(argc, argv, options)) != -1;) {
        if (option == '?') return CLI_MISTAKE;
        if (option == 'd') device = optarg;
        if (option != 't') continue;
        char *end;
        tolerance = strtod(optarg, &end);
        if (end == optarg || *end != '\0' || !isfinite(tolerance) || tolerance <= 0)
            return cli_fail(CLI_MISTAKE, "verify: --tolerance %s: want a number above 0",
                            optarg);
    }
    if (!cli_operands(argv[0], argc - optind, 2, 2)) return CLI_MISTAKE;

    double worst = 0;
    kac_status status = kac_verify(argv[optind], argv[optind + 1], device, cli_isa("auto"),
                                   stdout, &worst, &usual);
    if (tolerance == 0) tolerance = usual;
    if (status != KAC_OK) return cli_status(status);
    if (!(worst < tolerance)) /* NaN is no agreement */
        return cli_fail(CLI_MISTAKE, "%s: differs from the recording by %.3g, more than %g",
                        argv[optind], worst, tolerance);
    printf("%s agrees with the recording: %.3g, tolerance %g\n", argv[optind], worst,
           tolerance);
    return CLI_DONE;
}
