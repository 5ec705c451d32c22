/* sweep.c -- kac sweep: a grid of runs with common random numbers, and its table.
 *
 * Every point is an ordinary run in a folder of its own, so a sweep that was stopped goes on where
 * it was: what is complete is not run again.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "folder.h"
#include "run.h"
#include "team.h"

enum { MOST_KEYS = 16, MOST_POINTS = 10000, PATH = 4096 };

/* A key and the values that it takes. */
typedef struct axis {
    char *key;
    char **value; /* [count], into one copy of the argument */
    int count;
} axis;

typedef struct sweep {
    const char *config;
    const char **set; /* [sets] */
    int sets;
    axis axes[MOST_KEYS];
    int keys;
    int points;
    const char *out;
    bool baseline, quiet;
} sweep;

/* What a line of the table is about. */
typedef struct line {
    char dir[PATH];
    int point;
    char *reason; /* why the run failed, or NULL */
} line;

/* ---- what is asked ---------------------------------------------------------------------- */

static cli_exit read_axis(sweep *s, const char *text)
{
    const char *equals = strchr(text, '=');
    if (equals == NULL || equals == text || equals[1] == '\0')
        return cli_fail(CLI_MISTAKE, "--vary %s: want KEY=VALUE,VALUE,... without blanks",
                        text);
    if (text[strlen(text) - 1] == ',')
        return cli_fail(CLI_MISTAKE,
                        "--vary %s: nothing follows the last comma; want KEY=VALUE,VALUE,... "
                        "without blanks",
                        text);
    if (s->keys == MOST_KEYS)
        return cli_fail(CLI_MISTAKE, "--vary: at most %d keys", (int)MOST_KEYS);
    axis *a = &s->axes[s->keys++];
    a->key = strdup(text);
    a->value = calloc(strlen(text), sizeof *a->value);
    if (a->key == NULL || a->value == NULL) return cli_fail(CLI_MACHINE, "out of memory");
    char *rest = a->key + (equals - text);
    *rest++ = '\0';
    for (char *value; (value = strsep(&rest, ",")) != NULL;)
        a->value[a->count++] = value;
    s->points *= a->count;
    if (s->points > MOST_POINTS)
        return cli_fail(CLI_MISTAKE, "--vary: more than %d points", (int)MOST_POINTS);
    return CLI_DONE;
}

static cli_exit read_sweep(int argc, char **argv, sweep *s)
{
    static const struct option options[] = {
        {"vary", required_argument, NULL, 'v'}, {"set", required_argument, NULL, 's'},
        {"out", required_argument, NULL, 'o'},  {"no-baseline", no_argument, NULL, 'n'},
        {"quiet", no_argument, NULL, 'q'},      {NULL, 0, NULL, 0}};
    *s = (sweep){.points = 1, .out = "", .baseline = true};
    s->set = calloc((size_t)argc, sizeof *s->set);
    if (s->set == NULL) return cli_fail(CLI_MACHINE, "out of memory");
    for (int option; (option = cli_option(argc, argv, options)) != -1;) {
        cli_exit code = CLI_DONE;
        switch (option) {
        case 'v': code = read_axis(s, optarg); break;
        case 's':
            if (cli_assigns(optarg))
                s->set[s->sets++] = optarg;
            else
                code = CLI_MISTAKE;
            break;
        case 'o': s->out = optarg; break;
        case 'n': s->baseline = false; break;
        case 'q': s->quiet = true; break;
        default: code = CLI_MISTAKE; break;
        }
        if (code != CLI_DONE) return code;
    }
    if (!cli_operands(argv[0], argc - optind, 1, 1)) return CLI_MISTAKE;
    if (s->keys == 0) return cli_fail(CLI_MISTAKE, "sweep: want --vary KEY=VALUE,VALUE,...");
    if (s->out[0] == '\0') return cli_fail(CLI_MISTAKE, "sweep: want --out DIR");
    s->config = argv[optind];
    return CLI_DONE;
}

static void end_sweep(sweep *s)
{
    for (int k = 0; k < s->keys; k++) {
        free(s->axes[k].key);
        free(s->axes[k].value);
    }
    free(s->set);
}

/* Value of key k at a point; the last key varies fastest. */
static const char *value_at(const sweep *s, int point, int k)
{
    int later = s->points; /* points that share the values of keys 0 .. k */
    for (int i = 0; i <= k; i++)
        later /= s->axes[i].count > 0 ? s->axes[i].count : 1;
    int count = s->axes[k].count > 0 ? s->axes[k].count : 1;
    return s->axes[k].value[point / (later > 0 ? later : 1) % count];
}

/* The configuration of a point: the file, the environment, --set, then what varies. */
static cli_exit configure_point(const sweep *s, int point, kac_config **out)
{
    cli_exit code = cli_status(kac_config_create(out));
    if (code == CLI_DONE) code = cli_status(kac_config_read(*out, s->config));
    if (code == CLI_DONE && cli_isa(NULL) != NULL)
        code = cli_status(kac_config_set(*out, "device.isa", cli_isa(NULL)));
    for (int i = 0; i < s->sets && code == CLI_DONE; i++)
        code = cli_set(*out, s->set[i]);
    for (int k = 0; k < s->keys && code == CLI_DONE; k++)
        code = cli_status(kac_config_set(*out, s->axes[k].key, value_at(s, point, k)));
    return code;
}

static void point_dir(const sweep *s, int point, char *dir)
{
    (void)snprintf(dir, PATH, "%s/point_%03d", s->out, point);
}

/* The folder of the sweep is none of a run, and no file. */
static cli_exit check_out(const sweep *s)
{
    struct stat info;
    if (stat(s->out, &info) != 0) return CLI_DONE;
    if (!S_ISDIR(info.st_mode))
        return cli_fail(CLI_MISTAKE, "--out %s: it is a file; a sweep makes a folder", s->out);
    if (folder_holds(s->out, "run.json") || folder_holds(s->out, CONFIG_FILE))
        return cli_fail(CLI_MISTAKE,
                        "--out %s: it is the folder of a run; a sweep wants one of its own",
                        s->out);
    return CLI_DONE;
}

/* Every point can be configured, and its folder is free or holds that very run. */
static cli_exit check_points(const sweep *s)
{
    for (int point = 0; point < s->points; point++) {
        kac_config *config = NULL;
        kac_found found = KAC_FOUND_NOTHING;
        char dir[PATH];
        point_dir(s, point, dir);
        cli_exit code = configure_point(s, point, &config);
        if (code == CLI_DONE) code = cli_status(kac_found_in(dir, config, &found));
        kac_config_destroy(config);
        if (code != CLI_DONE) return code;
        if (found == KAC_FOUND_OTHER)
            return cli_fail(CLI_MISTAKE,
                            "%s holds a run of another configuration; choose another --out, or "
                            "remove it",
                            dir);
    }
    return CLI_DONE;
}

/* ---- running ---------------------------------------------------------------------------- */

static cli_exit run_into(const kac_config *config, const char *dir, bool quiet)
{
    kac_found found = KAC_FOUND_NOTHING;
    cli_exit code = cli_status(kac_found_in(dir, config, &found));
    if (code != CLI_DONE || found == KAC_FOUND_SAME) return code;
    if (!quiet) fprintf(stderr, "kac: %s\n", dir);
    return cli_run_point(config, dir, found == KAC_FOUND_UNFINISHED, quiet);
}

/* Denoiser calls of the run in `dir`. */
static int64_t calls_of(const char *dir)
{
    int64_t calls = 0;
    FILE *nowhere = fopen("/dev/null", "w");
    if (nowhere == NULL) return 0;
    (void)kac_figures(dir, true, nowhere, &calls);
    (void)fclose(nowhere);
    return calls;
}

/* best_of_n with `particles` draws a group, beside the points. */
static cli_exit run_best_of_n(const sweep *s, const kac_config *config, int point,
                              int64_t particles, line *out)
{
    kac_config *best = NULL;
    (void)snprintf(out->dir, sizeof out->dir, "%s/best_of_n_%03d_%lld", s->out, point,
                   (long long)particles);
    cli_exit code = cli_status(kac_config_best_of_n(config, particles, &best));
    if (code == CLI_DONE) code = run_into(best, out->dir, s->quiet);
    kac_config_destroy(best);
    return code;
}

/* The baseline of a point: its calls grow with the particles, nearly in proportion. */
static cli_exit run_baseline(const sweep *s, const kac_config *config, int point,
                             const char *dir, line *out)
{
    enum { FIRST = 4 };
    int64_t target = calls_of(dir);
    cli_exit code = run_best_of_n(s, config, point, FIRST, out);
    int64_t calls = code == CLI_DONE ? calls_of(out->dir) : 0;
    if (calls == 0) return code;
    int64_t particles = llround((double)FIRST * (double)target / (double)calls);
    if (particles < 1) particles = 1;
    return particles == FIRST ? code : run_best_of_n(s, config, point, particles, out);
}

/* ---- the table -------------------------------------------------------------------------- */

/* The first line that has figures, which name their columns, or NULL. */
static const line *first_done(const line *lines, int count)
{
    for (int i = 0; i < count; i++)
        if (lines[i].reason == NULL) return &lines[i];
    return NULL;
}

/* The names of the columns; *figures is the number of those that a failed run leaves empty. */
static cli_exit write_names(const sweep *s, const line *done, FILE *out, int *figures)
{
    int64_t calls = 0;
    char *names = NULL;
    size_t size = 0;
    *figures = 0;
    for (int k = 0; k < s->keys; k++)
        fprintf(out, "%s,", s->axes[k].key);
    fputs("folder,status,reason", out);
    if (done != NULL) {
        FILE *text = open_memstream(&names, &size);
        if (text == NULL) return cli_fail(CLI_MACHINE, "out of memory");
        cli_exit code = cli_status(kac_figures(done->dir, true, text, &calls));
        if (fclose(text) != 0) code = cli_fail(CLI_MACHINE, "out of memory");
        if (code == CLI_DONE) fprintf(out, ",%s", names);
        for (const char *c = names; code == CLI_DONE && c != NULL; c = strchr(c + 1, ','))
            ++*figures;
        free(names);
        if (code != CLI_DONE) return code;
    }
    fputc('\n', out);
    return CLI_DONE;
}

/* A field of CSV in quotes. */
static void write_quoted(const char *text, FILE *out)
{
    fputc('"', out);
    for (; *text != '\0'; text++)
        fprintf(out, *text == '"' ? "\"\"" : "%c", *text);
    fputc('"', out);
}

static cli_exit write_line(const sweep *s, const line *l, int figures, FILE *out)
{
    int64_t calls = 0;
    cli_exit code = CLI_DONE;
    for (int k = 0; k < s->keys; k++)
        fprintf(out, "%s,", value_at(s, l->point, k));
    fprintf(out, "%s,", l->dir + strlen(s->out) + 1);
    if (l->reason == NULL) {
        fputs("ok,,", out);
        code = cli_status(kac_figures(l->dir, false, out, &calls));
    } else {
        fputs("failed,", out);
        write_quoted(l->reason, out);
        for (int i = 0; i < figures; i++)
            fputc(',', out);
    }
    fputc('\n', out);
    return code;
}

/* DIR/sweep.csv, whole. */
static cli_exit write_table(const sweep *s, const line *lines, int count)
{
    int figures = 0;
    char path[PATH], part[PATH + 8];
    if (count == 0) return CLI_DONE;
    (void)snprintf(path, sizeof path, "%s/sweep.csv", s->out);
    (void)snprintf(part, sizeof part, "%s.part", path);
    FILE *out = fopen(part, "w");
    if (out == NULL)
        return cli_fail(CLI_MACHINE, "%s: cannot be written: %s", part, strerror(errno));
    cli_exit code = write_names(s, first_done(lines, count), out, &figures);
    for (int i = 0; i < count && code == CLI_DONE; i++)
        code = write_line(s, &lines[i], figures, out);
    bool written = fclose(out) == 0 && code == CLI_DONE && rename(part, path) == 0;
    if (!written) (void)remove(part);
    if (!written && code == CLI_DONE)
        code = cli_fail(CLI_MACHINE, "%s: cannot be written", path);
    return code;
}

static cli_exit print_table(const line *lines, int count)
{
    const char **dirs = calloc((size_t)count + 1, sizeof *dirs);
    int done = 0;
    if (dirs == NULL) return cli_fail(CLI_MACHINE, "out of memory");
    for (int i = 0; i < count; i++)
        if (lines[i].reason == NULL) dirs[done++] = lines[i].dir;
    cli_exit code = done > 0 ? cli_status(kac_compare(dirs, done, stdout)) : CLI_DONE;
    free(dirs);
    return code;
}

/* Counts a run among the lines: how it ended, or nothing where it was stopped. */
static void add_line(line *lines, int *count, cli_exit code)
{
    if (cli_stopped()) return;
    if (code != CLI_DONE) lines[*count].reason = strdup(cli_complaint());
    if (code == CLI_DONE || lines[*count].reason != NULL) ++*count;
}

/* A point and its baseline, as lines of the table; a point that fails has no baseline. */
static cli_exit run_point(const sweep *s, int point, line *lines, int *count)
{
    kac_config *config = NULL;
    line *own = &lines[*count], *base = own + 1;
    *own = (line){.point = point};
    *base = (line){.point = point};
    point_dir(s, point, own->dir);
    cli_exit code = configure_point(s, point, &config);
    if (code == CLI_DONE) code = run_into(config, own->dir, s->quiet);
    add_line(lines, count, code);
    if (code == CLI_DONE && s->baseline && !cli_stopped()) {
        code = run_baseline(s, config, point, own->dir, base);
        add_line(lines, count, code);
    }
    kac_config_destroy(config);
    return code;
}

static cli_exit run_points(const sweep *s)
{
    int count = 0;
    cli_exit first = CLI_DONE;
    line *lines = calloc(2 * (size_t)s->points + 1, sizeof *lines);
    if (lines == NULL) return cli_fail(CLI_MACHINE, "out of memory");
    for (int point = 0; point < s->points && !cli_stopped(); point++) {
        cli_exit code = run_point(s, point, lines, &count);
        if (first == CLI_DONE) first = code;
        code = write_table(s, lines, count);
        if (first == CLI_DONE) first = code;
    }
    if (!s->quiet && !cli_stopped()) {
        cli_exit code = print_table(lines, count);
        if (first == CLI_DONE) first = code;
    }
    for (int i = 0; i < count; i++)
        free(lines[i].reason);
    free(lines);
    return first;
}

cli_exit cli_sweep(int argc, char **argv)
{
    sweep s;
    cli_exit code = read_sweep(argc, argv, &s);
    if (code == CLI_DONE && team_launched() > 1)
        code = cli_fail(CLI_MISTAKE,
                        "sweep: ranks share one run, not a sweep; start it as one process, or "
                        "mpirun kac run for each point");
    if (code == CLI_DONE) code = check_out(&s);
    if (code == CLI_DONE) code = check_points(&s);
    if (code == CLI_DONE && mkdir(s.out, 0777) != 0 && errno != EEXIST)
        code = cli_fail(CLI_MISTAKE, "cannot make the folder %s: %s", s.out, strerror(errno));
    if (code == CLI_DONE) code = run_points(&s);
    end_sweep(&s);
    return code;
}
