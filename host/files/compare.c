/* compare.c -- finished runs: a table of them, their figures, and whether one is there. */
#include <jansson.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base.h"
#include "settings.h"

/* A number of run.json, or NaN. */
static double number(const json_t *json)
{
    return json_is_number(json) ? json_number_value(json) : (double)NAN;
}

/* The first reward term that judges rather than guides, or NULL. */
static const json_t *judge(const json_t *summary)
{
    size_t i = 0;
    const json_t *term = NULL;
    json_array_foreach(json_object_get(summary, "terms"), i, term)
    {
        if (json_is_false(json_object_get(term, "guides"))) return term;
    }
    return NULL;
}

/* "%.*f", or "-" where there is no number. */
static void cell(FILE *out, int width, int digits, double x)
{
    if (isnan(x))
        fprintf(out, "  %*s", width, "-");
    else
        fprintf(out, "  %*.*f", width, digits, x);
}

/* The same, with three digits that count. */
static void short_cell(FILE *out, int width, double x)
{
    if (isnan(x))
        fprintf(out, "  %*s", width, "-");
    else
        fprintf(out, "  %*.3g", width, x);
}

/* log Z with its error, or with a question mark where kac would not rely on it. */
static void evidence(FILE *out, const json_t *run)
{
    char text[32] = "-";
    double log_z = number(json_object_get(run, "log_evidence"));
    double error = number(json_object_get(run, "log_evidence_se"));
    bool reliable = json_is_true(json_object_get(run, "log_evidence_reliable"));
    if (!isnan(log_z) && reliable)
        (void)snprintf(text, sizeof text, "%.2f +- %.2f", log_z, error);
    else if (!isnan(log_z))
        (void)snprintf(text, sizeof text, "%.2f ?", log_z);
    fprintf(out, "  %14s", text);
}

/* The algorithm, and the folder's name where that says something else. */
static void label(const char *dir, const char *algorithm, FILE *out)
{
    char text[64];
    size_t end = strlen(dir);
    while (end > 1 && dir[end - 1] == '/')
        end--;
    size_t begin = end;
    while (begin > 0 && dir[begin - 1] != '/')
        begin--;
    if (strlen(algorithm) == end - begin && strncmp(dir + begin, algorithm, end - begin) == 0)
        (void)snprintf(text, sizeof text, "%s", algorithm);
    else
        (void)snprintf(text, sizeof text, "%s (%.*s)", algorithm, (int)(end - begin),
                       dir + begin);
    fprintf(out, "%-24s", text);
}

static void row(const char *dir, const json_t *run, FILE *out)
{
    const json_t *summary = json_object_get(run, "summary");
    const json_t *calls = json_object_get(run, "evaluations");
    const json_t *reward = json_object_get(summary, "reward");
    const json_t *judged = json_object_get(judge(summary), "value");
    const json_t *likelihood = json_object_get(summary, "log_likelihood");

    label(dir, json_string_value(json_object_get(run, "algorithm")), out);
    short_cell(out, 7, number(json_object_get(run, "alpha")));
    cell(out, 8, 0, number(json_object_get(calls, "denoiser")));
    cell(out, 8, 0, number(json_object_get(calls, "denoiser_saved")));
    cell(out, 7, 2, number(json_object_get(reward, "median")));
    cell(out, 7, 2, number(json_object_get(reward, "q90")));
    cell(out, 7, 2, number(json_object_get(judged, "median")));
    cell(out, 7, 2, number(json_object_get(judged, "q90")));
    cell(out, 8, 0, number(json_object_get(run, "samples")));
    cell(out, 9, 0, number(json_object_get(run, "forbidden")));
    cell(out, 8, 0, number(json_object_get(summary, "distinct")));
    cell(out, 8, 3, number(json_object_get(summary, "pairwise_distance")));
    cell(out, 8, 1, number(json_object_get(likelihood, "median")));
    evidence(out, run);
    cell(out, 7, 1, number(json_object_get(json_object_get(run, "seconds"), "total")));
    fputc('\n', out);
}

static bool holds_sweep(const char *dir)
{
    char path[4096];
    int length = snprintf(path, sizeof path, "%s/sweep.csv", dir);
    return length > 0 && (size_t)length < sizeof path && access(path, F_OK) == 0;
}

/* Reads DIR/run.json. */
static kac_status read_run(const char *dir, json_t **out)
{
    char path[4096];
    json_error_t error;
    int length = snprintf(path, sizeof path, "%s/run.json", dir);
    if (length < 0 || (size_t)length >= sizeof path)
        return KAC_FAIL(KAC_ERR_INVALID, "%.60s...: the path is too long", dir);
    if (access(path, F_OK) != 0 && holds_sweep(dir))
        return KAC_FAIL(KAC_ERR_INVALID,
                        "%s: it is a sweep, whose table is sweep.csv in it; for its runs take "
                        "kac compare %s/*/",
                        dir, dir);
    if (access(path, F_OK) != 0)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: it has no run.json, so it is no complete run",
                        dir);
    json_t *run = json_load_file(path, 0, &error);
    if (run == NULL)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: not the result of a run: %s", path, error.text);
    if (!json_is_string(json_object_get(run, "algorithm"))) {
        json_decref(run);
        return KAC_FAIL(KAC_ERR_INVALID, "%s: not the result of a run: no algorithm", path);
    }
    *out = run;
    return KAC_OK;
}

/* The name of the term that judges, or a word for terms of several names. */
static kac_status judge_name(const char *const *dirs, int count, char *name, size_t size)
{
    name[0] = '\0';
    for (int i = 0; i < count; i++) {
        json_t *run = NULL;
        KAC_TRY(read_run(dirs[i], &run));
        const json_t *term = judge(json_object_get(run, "summary"));
        const char *found = json_string_value(json_object_get(term, "name"));
        if (found != NULL && name[0] == '\0')
            (void)snprintf(name, size, "%s", found);
        else if (found != NULL && strncmp(name, found, size - 1) != 0)
            (void)snprintf(name, size, "recorded");
        json_decref(run);
    }
    if (name[0] == '\0') (void)snprintf(name, size, "recorded");
    return KAC_OK;
}

kac_status kac_compare(const char *const *dirs, int count, FILE *out)
{
    KAC_REQUIRE(dirs != NULL && out != NULL && count >= 1);
    char judged[14];
    KAC_TRY(judge_name(dirs, count, judged, sizeof judged));
    fprintf(out,
            "%-24s  %7s  %18s  %16s  %13s   \n"
            "%-24s  %7s  %8s  %8s  %7s  %7s  %7s  %7s  %8s  %9s  %8s  %8s  %8s  %14s  %7s\n",
            "", "", "denoiser calls  ", "guiding reward ", judged, "algorithm", "alpha", "made",
            "saved", "median", "90 %", "median", "90 %", "samples", "forbidden", "distinct",
            "distance", "log lik.", "log Z", "seconds");
    for (int i = 0; i < count; i++) {
        json_t *run = NULL;
        KAC_TRY(read_run(dirs[i], &run));
        row(dirs[i], run, out);
        json_decref(run);
    }
    if (ferror(out)) return KAC_FAIL(KAC_ERR_IO, "cannot write the table of runs");
    return KAC_OK;
}

/* ---- for sweeps --------------------------------------------------------------------------- */

/* What the checkpoints in `dir` are of, where there are some and no complete run. */
static kac_status found_unfinished(const char *dir, const kac_config *config, kac_found *out)
{
    char path[4096], key[512] = "";
    kac_config *of_run = NULL;
    json_t *found = NULL, *wanted = NULL;
    kac_status status = KAC_OK;
    (void)snprintf(path, sizeof path, "%s/run.json", dir);
    if (access(path, F_OK) == 0) return KAC_OK;
    (void)snprintf(path, sizeof path, "%s/config.json", dir);
    if (access(path, F_OK) != 0) return KAC_OK;
    KAC_TRY_DONE(kac_config_create(&of_run));
    KAC_TRY_DONE(kac_config_read(of_run, path));
    KAC_TRY_DONE(kac_config_identity(of_run, &found));
    KAC_TRY_DONE(kac_config_identity(config, &wanted));
    *out = kac_config_agrees(found, wanted, key, sizeof key) ? KAC_FOUND_UNFINISHED
                                                             : KAC_FOUND_OTHER;
done:
    kac_config_destroy(of_run);
    json_decref(found);
    json_decref(wanted);
    return status;
}

/* Whether a complete run has lost a group with which `config` ends (sampler.on_dead: error). */
static bool ends_where_that_went_on(const json_t *run, const kac_config *config)
{
    char on_dead[16] = "";
    return json_integer_value(json_object_get(run, "forbidden")) > 0 &&
           kac_config_get(config, "sampler.on_dead", on_dead, sizeof on_dead) == KAC_OK &&
           strcmp(on_dead, "error") == 0;
}

kac_status kac_found_in(const char *dir, const kac_config *config, kac_found *out)
{
    KAC_REQUIRE(dir != NULL && config != NULL && out != NULL);
    json_t *run = NULL, *wanted = NULL;
    *out = KAC_FOUND_NOTHING;
    if (access(dir, F_OK) != 0) return KAC_OK;
    KAC_TRY(found_unfinished(dir, config, out));
    if (*out != KAC_FOUND_NOTHING) return KAC_OK;
    KAC_TRY(read_run(dir, &run));
    kac_status status = kac_config_identity(config, &wanted);
    if (status == KAC_OK) {
        json_t *found = json_object_get(run, "config");
        kac_config_identify(found);
        *out = json_equal(found, wanted) ? KAC_FOUND_SAME : KAC_FOUND_OTHER;
        if (*out == KAC_FOUND_SAME && ends_where_that_went_on(run, config))
            *out = KAC_FOUND_OTHER;
    }
    json_decref(run);
    json_decref(wanted);
    return status;
}

/* A number, true or false, or nothing where there is none. */
static void figure(const json_t *json, FILE *out)
{
    if (json_is_integer(json))
        fprintf(out, ",%lld", (long long)json_integer_value(json));
    else if (json_is_number(json))
        fprintf(out, ",%.10g", json_number_value(json));
    else if (json_is_boolean(json))
        fputs(json_is_true(json) ? ",true" : ",false", out);
    else
        fputc(',', out);
}

/* Members of `of`, each a column `prefix`NAME. */
static void figures(const json_t *of, const char *prefix, const char *const *name, bool names,
                    FILE *out)
{
    for (; *name != NULL; name++) {
        if (names)
            fprintf(out, ",%s%s", prefix, *name);
        else
            figure(json_object_get(of, *name), out);
    }
}

#define NAMES(...) ((const char *const[]){__VA_ARGS__, NULL})

kac_status kac_figures(const char *dir, bool names, FILE *out, kac_taken *taken)
{
    KAC_REQUIRE(dir != NULL && out != NULL && taken != NULL);
    json_t *run = NULL;
    KAC_TRY(read_run(dir, &run));
    const json_t *summary = json_object_get(run, "summary");
    const json_t *made = json_object_get(run, "evaluations");
    const json_t *term = NULL;
    size_t i = 0;
    taken->groups = json_integer_value(json_object_get(run, "groups"));
    taken->denoiser_calls = json_integer_value(json_object_get(made, "denoiser"));

    fputs(names ? "algorithm" : json_string_value(json_object_get(run, "algorithm")), out);
    figures(run, "", NAMES("alpha", "samples", "forbidden"), names, out);
    figures(json_object_get(summary, "reward"), "reward_", NAMES("q10", "median", "q90"), names,
            out);
    json_array_foreach(json_object_get(summary, "terms"), i, term)
    {
        char prefix[KAC_NAME + 2];
        snprintf(prefix, sizeof prefix, "%s_",
                 json_string_value(json_object_get(term, "name")));
        figures(json_object_get(term, "value"), prefix, NAMES("median"), names, out);
    }
    figures(summary, "", NAMES("distinct", "pairwise_distance"), names, out);
    figures(json_object_get(summary, "log_likelihood"), "log_likelihood_", NAMES("median"),
            names, out);
    figures(run, "", NAMES("log_evidence", "log_evidence_se", "log_evidence_reliable"), names,
            out);
    figures(made, "calls_", NAMES("denoiser", "reward", "gradients"), names, out);
    figures(json_object_get(run, "seconds"), "seconds_", NAMES("total"), names, out);
    json_decref(run);
    return ferror(out) ? KAC_FAIL(KAC_ERR_IO, "cannot write the figures of %s", dir) : KAC_OK;
}
