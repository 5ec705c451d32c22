/* cli.c -- what the commands of the program share: complaints, options, near names. */
#include "cli.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static char latest[4096];
static bool muted;

void cli_mute(bool mute)
{
    muted = mute;
}

const char *cli_complaint(void)
{
    return latest;
}

cli_exit cli_fail(cli_exit code, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(latest, sizeof latest, fmt, args);
    va_end(args);
    if (!muted) fprintf(stderr, "kac: %s\n", latest);
    return code;
}

static cli_exit code_of(kac_status status)
{
    switch (status) { /* no default: -Wswitch reports a missing case */
    case KAC_OK: return CLI_DONE;
    case KAC_ERR_INVALID:
    case KAC_ERR_NUMERIC: return CLI_MISTAKE;
    case KAC_ERR_NOMEM:
    case KAC_ERR_IO:
    case KAC_ERR_UNSUPPORTED:
    case KAC_ERR_DEVICE:
    case KAC_ERR_WORKER:
    case KAC_ERR_RANK: return CLI_MACHINE;
    case KAC_ERR_INTERNAL: return CLI_BUG;
    }
    return CLI_BUG;
}

cli_exit cli_status(kac_status status)
{
    if (status == KAC_OK) return CLI_DONE;
    const char *text = kac_last_error();
    if (*text == '\0') text = kac_status_string(status);
    (void)snprintf(latest, sizeof latest, "%s", text);
    for (char *end; (end = strchr(latest, '\n')) != NULL;)
        *end = ' ';
    for (size_t length; *text != '\0' && !muted; text += length + (text[length] == '\n')) {
        length = strcspn(text, "\n");
        fprintf(stderr, "kac: %.*s\n", (int)length, text);
    }
    return code_of(status);
}

static bool has_option(const struct option *options, const char *name)
{
    while (options->name != NULL && strcmp(options->name, name) != 0)
        options++;
    return options->name != NULL;
}

/* Whether the unknown option argv[at], --KEY or --KEY=VALUE, is a key that --set sets: then says how. */
static bool is_key(int argc, char **argv, int at, const struct option *options)
{
    const char *name = argv[at] + 2, *equals = strchr(name, '=');
    const char *value = equals != NULL                                         ? equals + 1
                        : at + 1 < argc && strncmp(argv[at + 1], "--", 2) != 0 ? argv[at + 1]
                                                                               : "VALUE";
    size_t length = equals != NULL ? (size_t)(equals - name) : strlen(name);
    char key[64], text[4096];
    kac_config *empty = NULL;
    if (!has_option(options, "set") || length >= sizeof key) return false;
    (void)snprintf(key, sizeof key, "%.*s", (int)length, name);
    if (kac_config_create(&empty) != KAC_OK) return false;
    bool known = strncmp(key, "reward.", 7) == 0
                     ? kac_config_set(empty, key, value) == KAC_OK
                     : kac_config_get(empty, key, text, sizeof text) == KAC_OK;
    kac_config_destroy(empty);
    if (known)
        cli_fail(CLI_MISTAKE, "%s: unknown option --%s; keys are set so: --set %s=%s", argv[0],
                 key, key, value);
    return known;
}

int cli_option(int argc, char **argv, const struct option *options)
{
    opterr = 0;
    int option = getopt_long(argc, argv, ":", options, NULL);
    if (option != '?' && option != ':') return option;

    if (option == ':') {
        cli_fail(CLI_MISTAKE, "%s: %s wants a value", argv[0], argv[optind - 1]);
    } else if (strncmp(argv[optind - 1], "--", 2) != 0) {
        cli_fail(CLI_MISTAKE, "%s: unknown option -%c; kac help %s lists them", argv[0], optopt,
                 argv[0]);
    } else if (optopt != 0) {
        cli_fail(CLI_MISTAKE, "%s: %s takes no value", argv[0], argv[optind - 1]);
    } else if (!is_key(argc, argv, optind - 1, options)) {
        const char *near = cli_nearest(argv[optind - 1] + 2, options, sizeof *options);
        cli_fail(CLI_MISTAKE, "%s: unknown option %s%s%s%s", argv[0], argv[optind - 1],
                 near != NULL ? "; did you mean --" : "; kac help ",
                 near != NULL ? near : argv[0], near != NULL ? "?" : " lists them");
    }
    return '?';
}

int cli_operands(const char *command, int given, int least, int most)
{
    if (given >= least && given <= most) return 1;
    cli_fail(CLI_MISTAKE, "%s: too %s arguments; kac help %s says what it wants", command,
             given < least ? "few" : "many", command);
    return 0;
}

/* Edits (insertions, deletions, substitutions) between two words of at most 31 letters. */
static size_t edits(const char *a, const char *b)
{
    enum { LONGEST = 31 };
    size_t n = strlen(a), m = strlen(b), row[LONGEST + 1];
    if (n > LONGEST || m > LONGEST) return LONGEST;
    for (size_t j = 0; j <= m; j++)
        row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t corner = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t best = corner + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            corner = row[j];
            row[j] = best;
        }
    }
    return row[m];
}

const char *cli_nearest(const char *word, const void *candidates, size_t stride)
{
    const char *best = NULL;
    size_t least = strlen(word) / 3 + 1; /* more edits than that is another word */
    for (const char *at = candidates;; at += stride) {
        const char *name;
        memcpy(&name, at, sizeof name);
        if (name == NULL) return best;
        size_t distance = edits(word, name);
        if (distance <= least && (best == NULL || distance < least)) {
            least = distance;
            best = name;
        }
    }
}

double cli_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

const char *cli_isa(const char *fallback)
{
    const char *isa = getenv("KAC_ISA");
    return isa != NULL && *isa != '\0' ? isa : fallback;
}

void cli_watch(int signal, void (*handler)(int))
{
    struct sigaction action;
    sigaction(signal, NULL, &action);
    if (action.sa_handler == SIG_IGN) return;
    action = (struct sigaction){.sa_handler = handler, .sa_flags = SA_RESTART};
    sigaction(signal, &action, NULL);
}
