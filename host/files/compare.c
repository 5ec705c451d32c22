/* compare.c -- a table of finished runs, a row each. */
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "base.h"

/* A number of run.json, or NaN. */
static double number(const json_t *json)
{
    return json_is_number(json) ? json_number_value(json) : (double)NAN;
}

/* The value of the first reward term that judges rather than guides, or NULL. */
static const json_t *judge(const json_t *summary)
{
    size_t i = 0;
    const json_t *term = NULL;
    json_array_foreach(
        json_object_get(summary, "terms"), i,
        term) if (json_is_false(json_object_get(term,
                                                "guides"))) return json_object_get(term,
                                                                                   "value");
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
    const json_t *likelihood = json_object_get(summary, "log_likelihood");

    label(dir, json_string_value(json_object_get(run, "algorithm")), out);
    cell(out, 8, 0, number(json_object_get(calls, "denoiser")));
    cell(out, 8, 0, number(json_object_get(calls, "denoiser_saved")));
    cell(out, 7, 2, number(json_object_get(reward, "median")));
    cell(out, 7, 2, number(json_object_get(reward, "q90")));
    cell(out, 7, 2, number(json_object_get(judge(summary), "median")));
    cell(out, 7, 2, number(json_object_get(judge(summary), "q90")));
    cell(out, 8, 0, number(json_object_get(run, "samples")));
    cell(out, 8, 0, number(json_object_get(summary, "distinct")));
    cell(out, 8, 3, number(json_object_get(summary, "pairwise_distance")));
    cell(out, 8, 1, number(json_object_get(likelihood, "median")));
    cell(out, 7, 1, number(json_object_get(json_object_get(run, "seconds"), "total")));
    fputc('\n', out);
}

/* Reads DIR/run.json. */
static kac_status read_run(const char *dir, json_t **out)
{
    char path[4096];
    json_error_t error;
    int length = snprintf(path, sizeof path, "%s/run.json", dir);
    if (length < 0 || (size_t)length >= sizeof path)
        return KAC_FAIL(KAC_ERR_INVALID, "%.60s...: the path is too long", dir);
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

kac_status kac_compare(const char *const *dirs, int count, FILE *out)
{
    KAC_REQUIRE(dirs != NULL && out != NULL && count >= 1);
    fprintf(out,
            "%-24s  %18s  %16s  %16s\n"
            "%-24s  %8s  %8s  %7s  %7s  %7s  %7s  %8s  %8s  %8s  %8s  %7s\n",
            "", "denoiser calls  ", "guiding reward ", "independent   ", "algorithm", "made",
            "saved", "median", "90 %", "median", "90 %", "samples", "distinct", "distance",
            "log lik.", "seconds");
    for (int i = 0; i < count; i++) {
        json_t *run = NULL;
        KAC_TRY(read_run(dirs[i], &run));
        row(dirs[i], run, out);
        json_decref(run);
    }
    if (ferror(out)) return KAC_FAIL(KAC_ERR_IO, "cannot write the table of runs");
    return KAC_OK;
}
