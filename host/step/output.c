/* output.c -- the files of a finished run (docs/files.md). */
#include <ctype.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "atomic.h"
#include "device.h"
#include "run.h"
#include "settings.h"

static const char *const phase_name[KAC_PHASES] = {"denoiser", "reward", "propose", "select",
                                                   "other"};

/* Of a reward that has no file. */
static const char *kind_name(kac_reward_kind kind)
{
    return kind == KAC_REWARD_WORKER        ? "worker"
           : kind == KAC_REWARD_GC          ? "gc"
           : kind == KAC_REWARD_HOMOPOLYMER ? "homopolymer"
                                            : "motif";
}

void kac_term_name(const kac_reward_settings *reward, char *text, size_t size)
{
    const char *slash = strrchr(reward->file, '/');
    const char *base = slash != NULL ? slash + 1 : reward->file;
    const char *dot = strrchr(base, '.');
    int length = dot != NULL && dot != base ? (int)(dot - base) : (int)strlen(base);
    if (reward->name[0] != '\0')
        snprintf(text, size, "%s", reward->name);
    else if (reward->file[0] == '\0')
        snprintf(text, size, "%s", kind_name(reward->kind));
    else
        snprintf(text, size, "%.*s", length, base);
    for (char *c = text; *c != '\0'; c++) /* a column of a CSV file */
        if (!isalnum((unsigned char)*c) && strchr("_.-", *c) == NULL) *c = '_';
}

/* null where x is no number. */
static json_t *number(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

/* ---- what is written -----------------------------------------------------------------------
 */

static kac_status write_samples(const kac_run *r, FILE *out)
{
    fprintf(out, "id,group,slot,object,reward,log_weight");
    for (int term = 0; term < r->set.rewards; term++) {
        char name[KAC_NAME];
        kac_term_name(&r->set.reward[term], name, sizeof name);
        fprintf(out, ",%s", name);
    }
    fprintf(out, "%s\n", r->set.output.likelihood ? ",log_likelihood" : "");
    for (int64_t i = 0; i < r->samples_out; i++) {
        kac_sample s;
        KAC_TRY(kac_run_sample(r, i, &s));
        fprintf(out, "%" PRId64 ",%" PRId64 ",%" PRId64 ",%s,%.17g,", i, s.group, s.slot,
                s.object, s.reward);
        if (!isnan(s.log_weight)) fprintf(out, "%.17g", s.log_weight);
        for (int term = 0; term < r->set.rewards; term++)
            fprintf(out, ",%.9g", s.terms[term]);
        if (r->set.output.likelihood) fprintf(out, ",%.9g", s.log_likelihood);
        fputc('\n', out);
    }
    return KAC_OK;
}

/* What is meant to be used; samples.csv has the others too. */
static bool is_allowed(const kac_run *r, int64_t sample)
{
    return r->result[sample].reward > -HUGE_VAL;
}

static kac_status write_fasta(const kac_run *r, FILE *out)
{
    for (int64_t i = 0; i < r->samples_out; i++) {
        kac_sample s;
        if (!is_allowed(r, i)) continue;
        KAC_TRY(kac_run_sample(r, i, &s));
        fprintf(out, ">%" PRId64 " group=%" PRId64 " reward=%.6g\n%s\n", i, s.group, s.reward,
                s.object);
    }
    return KAC_OK;
}

static kac_status write_smiles(const kac_run *r, FILE *out)
{
    for (int64_t i = 0; i < r->samples_out; i++)
        if (is_allowed(r, i))
            fprintf(out, "%s\t%" PRId64 "\n", r->text + (size_t)i * r->text_size, i);
    return KAC_OK;
}

/* A property of a record of an SDF file; nothing for what is not known. */
static void write_property(const char *name, double value, FILE *out)
{
    if (!isnan(value)) fprintf(out, "> <%s>\n%.9g\n\n", name, value);
}

static kac_status write_sdf(const kac_run *r, FILE *out)
{
    for (int64_t i = 0; i < r->samples_out; i++) {
        kac_sample s;
        char name[KAC_NAME];
        if (!is_allowed(r, i)) continue;
        KAC_TRY(kac_run_sample(r, i, &s));
        kac_molecule_read(r->form.molecule, &r->shape,
                          (const void *)(r->objects + (size_t)i * (size_t)r->shape.stride));
        snprintf(name, sizeof name, "%" PRId64, i);
        if (!kac_sdf_write(r->form.molecule, name, out)) continue;
        fprintf(out, "> <smiles>\n%s\n\n", s.object);
        write_property("id", (double)i, out);
        write_property("group", (double)s.group, out);
        write_property("slot", (double)s.slot, out);
        write_property("reward", s.reward, out);
        write_property("log_weight", s.log_weight, out);
        for (int term = 0; term < r->set.rewards; term++) {
            kac_term_name(&r->set.reward[term], name, sizeof name);
            write_property(name, s.terms[term], out);
        }
        fputs("$$$$\n", out);
    }
    return KAC_OK;
}

static json_t *evaluations(int64_t denoiser, int64_t denoiser_saved, int64_t reward,
                           int64_t reward_saved)
{
    return json_pack("{sIsIsIsI}", "denoiser", (json_int_t)denoiser, "denoiser_saved",
                     (json_int_t)denoiser_saved, "reward", (json_int_t)reward, "reward_saved",
                     (json_int_t)reward_saved);
}

static kac_status write_trace(const kac_run *r, FILE *out)
{
    for (int32_t i = 0; i < r->lines; i++) {
        const kac_line *line = &r->line[i];
        const kac_progress *p = &line->progress;
        json_t *json = json_pack(
            "{sIsfsfsfsIs[ooo]sIsIsosf}", "step", (json_int_t)p->step, "t", line->t, "ess",
            p->ess, "ess_least", line->ess_least, "selected", (json_int_t)p->selected, "value",
            number(p->value[0]), number(p->value[1]), number(p->value[2]), "distinct",
            (json_int_t)p->distinct, "eves", (json_int_t)line->eves, "evaluations",
            evaluations(p->denoiser_calls, p->denoiser_saved, p->reward_calls, p->reward_saved),
            "seconds", line->lap);
        if (r->set.driver.kind != KAC_DRIVER_NONE)
            json_object_set_new(json, "pass", json_integer((json_int_t)line->pass));
        if (line->tries > 0)
            json_object_set_new(json, "tries", json_integer((json_int_t)line->tries));
        kac_status status = kac_json_write(json, JSON_COMPACT, out);
        json_decref(json);
        KAC_TRY(status);
    }
    return KAC_OK;
}

/* ---- run.json ------------------------------------------------------------------------------
 */

/* {"q10", "median", "q90"} of `values`, which are sorted. */
static json_t *quantiles(double *values, int64_t n)
{
    kac_sort(values, n);
    return json_pack("{sososo}", "q10", number(kac_quantile(values, n, 0.1)), "median",
                     number(kac_quantile(values, n, 0.5)), "q90",
                     number(kac_quantile(values, n, 0.9)));
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int64_t distinct_objects(const kac_run *r, const char **text)
{
    int64_t distinct = 0;
    for (int64_t i = 0; i < r->samples_out; i++)
        text[i] = r->text + (size_t)i * r->text_size;
    qsort(text, (size_t)r->samples_out, sizeof *text, by_text);
    for (int64_t i = 0; i < r->samples_out; i++)
        distinct += i == 0 || strcmp(text[i - 1], text[i]) != 0;
    return distinct;
}

/* Mean over pairs of samples of the share of sites at which they differ; NaN for vectors. */
static double pairwise_distance(const kac_run *r)
{
    int64_t n = r->samples_out;
    double pairs = 0;
    if (n < 2 || r->vectors) return (double)NAN;
    for (int32_t l = 0; l < r->shape.length; l++) {
        int64_t count[256] = {0};
        double same = 0;
        for (int64_t i = 0; i < n; i++)
            count[(unsigned char)r->text[(size_t)i * r->text_size + (size_t)l]]++;
        for (int c = 0; c < 256; c++)
            same += (double)count[c] * (double)(count[c] - 1);
        pairs += (double)n * (double)(n - 1) - same;
    }
    return pairs / ((double)n * (double)(n - 1)) / r->shape.length;
}

/* What the samples are like, each sample counted once whatever its weight. */
static json_t *summary(const kac_run *r)
{
    int64_t n = r->samples_out;
    double *values = calloc((size_t)n + 1, sizeof *values);
    const char **text = calloc((size_t)n + 1, sizeof *text);
    json_t *json = json_object();
    json_t *terms = json_array();
    if (values == NULL || text == NULL || n == 0) goto done;

    for (int64_t i = 0; i < n; i++)
        values[i] = r->result[i].reward;
    json_object_set_new(json, "reward", quantiles(values, n));
    for (int term = 0; term < r->set.rewards; term++) {
        char name[KAC_NAME];
        kac_term_name(&r->set.reward[term], name, sizeof name);
        for (int64_t i = 0; i < n; i++)
            values[i] = r->result_terms[i * r->set.rewards + term];
        json_array_append_new(terms, json_pack("{sssbso}", "name", name, "guides",
                                               kac_reward_guides(&r->set.reward[term]), "value",
                                               quantiles(values, n)));
    }
    if (r->set.output.likelihood) {
        for (int64_t i = 0; i < n; i++)
            values[i] = r->result[i].log_likelihood;
        json_object_set_new(json, "log_likelihood", quantiles(values, n));
    }
    json_object_set_new(json, "distinct", json_integer((json_int_t)distinct_objects(r, text)));
    json_object_set_new(json, "pairwise_distance", number(pairwise_distance(r)));
done:
    json_object_set_new(json, "terms", terms);
    free(values);
    free(text);
    return json;
}

static json_t *seconds(const kac_run *r)
{
    json_t *json = json_pack("{sf}", "total", r->total);
    for (int phase = 0; phase < KAC_PHASES; phase++)
        json_object_set_new(json, phase_name[phase], json_real(r->seconds[phase]));
    return json;
}

/* One number, or where there are several targets a list with one for each. */
static json_t *by_target(const kac_run *r, const double *values)
{
    if (r->targets == 1) return number(values[0]);
    json_t *json = json_array();
    for (int32_t t = 0; t < r->targets; t++)
        json_array_append_new(json, number(values[t]));
    return json;
}

/* Whether each may be relied on, as by_target; null where there is none. */
static json_t *reliable_by_target(const kac_run *r)
{
    json_t *json = json_array();
    for (int32_t t = 0; t < r->targets; t++)
        json_array_append_new(json, isfinite(r->log_evidence[t])
                                        ? json_boolean(kac_run_evidence_is_reliable(r, t))
                                        : json_null());
    if (r->targets > 1) return json;
    json_t *only = json_incref(json_array_get(json, 0));
    json_decref(json);
    return only;
}

/* The groups of each target, and the weights of the terms there. */
static json_t *targets(const kac_run *r)
{
    json_t *json = json_array();
    for (int32_t t = 0; t < r->targets; t++)
        json_array_append_new(json, json_pack("{s[]s[]}", "groups", "weights"));
    for (int32_t g = 0; g < r->all_groups; g++) {
        json_t *target = json_array_get(json, (size_t)r->target[g]);
        json_t *groups = json_object_get(target, "groups");
        json_t *weights = json_object_get(target, "weights");
        json_array_append_new(groups, json_integer(g));
        for (int term = 0; term < r->set.rewards && json_array_size(groups) == 1; term++)
            json_array_append_new(weights,
                                  json_real(r->weight[(ptrdiff_t)g * r->set.rewards + term]));
    }
    return json;
}

/* Tries of the last levels in all, those alive, and the groups with too few of them or none. */
static json_t *revival(const kac_run *r)
{
    int64_t tries = 0, alive = 0, short_of = 0, dead = 0;
    for (int32_t g = 0; g < r->all_groups; g++) {
        const kac_group *group = &r->host_group[g];
        tries += group->tries;
        alive += group->alive;
        short_of += group->alive < group->count;
        dead += group->dead;
    }
    return json_pack("{sIsIsIsI}", "tries", (json_int_t)tries, "alive", (json_int_t)alive,
                     "groups_short", (json_int_t)short_of, "groups_dead", (json_int_t)dead);
}

/* A worker each: its first term, and how it fared. */
static void add_workers(const kac_rewards *rewards, json_t *list)
{
    for (int i = 0; i < kac_rewards_workers(rewards); i++) {
        int term = 0;
        const kac_worker_counts *c = kac_rewards_worker(rewards, i, &term);
        json_array_append_new(list, json_pack("{sisIsIsI}", "reward", term, "answered",
                                              (json_int_t)c->answered, "failures",
                                              (json_int_t)c->failures, "given_up",
                                              (json_int_t)c->given_up));
    }
}

static json_t *workers(const kac_run *r)
{
    json_t *list = json_array();
    add_workers(r->guide, list);
    add_workers(r->judge, list);
    return list;
}

/* What a run whose pools span ranks has sent between them. */
static json_t *travel(const kac_run *r)
{
    kac_travel t = kac_span_travel(r);
    return json_pack("{sisIsIsIsI}", "teams", kac_span_teams(r), "states_sent",
                     (json_int_t)t.moved, "states_least", (json_int_t)t.least, "state_bytes",
                     (json_int_t)t.moved * r->shape.stride, "column_bytes",
                     (json_int_t)t.columns);
}

static kac_status run_json(const kac_run *r, json_t **out)
{
    const kac_settings *s = &r->set;
    json_t *config = NULL;
    KAC_TRY(kac_config_json(r->config, &config));
    *out = json_pack(
        "{sssOsOsssfsIsosbsosososIsIsIsIsIsosos{sssssiss}so}", "kac", kac_version(), "started",
        r->started, "files", r->files, "algorithm", s->sampler.algorithm, "alpha",
        s->sampler.alpha, "seed", (json_int_t)s->seed, "config", config, "properly_weighted",
        r->weighted, "log_evidence", by_target(r, r->log_evidence), "log_evidence_se",
        by_target(r, r->log_evidence_se), "log_evidence_reliable", reliable_by_target(r),
        "groups", (json_int_t)r->all_groups, "particles", (json_int_t)s->sampler.particles,
        "steps", (json_int_t)r->moves, "samples", (json_int_t)r->samples_out, "forbidden",
        (json_int_t)r->forbidden, "evaluations",
        evaluations(r->counted.denoiser_made,
                    r->counted.denoiser_asked - r->counted.denoiser_made,
                    r->counted.reward_made, r->counted.reward_asked - r->counted.reward_made),
        "seconds", seconds(r), "device", "name", r->dev->ops->name, "isa",
        kac_isa_names[r->dev->isa], "ranks", kac_ranks_size(r->ranks), "transport",
        kac_ranks_link(r->ranks), "summary", summary(r));
    if (*out == NULL) return KAC_FAIL(KAC_ERR_INTERNAL, "run.json cannot be put together");
    if (r->counted.gradients > 0)
        json_object_set_new(json_object_get(*out, "evaluations"), "gradients",
                            json_integer((json_int_t)r->counted.gradients));
    if (r->revive.levels > 0) json_object_set_new(*out, "revive", revival(r));
    if (r->span != NULL) json_object_set_new(*out, "span", travel(r));
    if (r->targets > 1) json_object_set_new(*out, "targets", targets(r));
    if (kac_rewards_workers(r->guide) + kac_rewards_workers(r->judge) > 0)
        json_object_set_new(*out, "workers", workers(r));
    return KAC_OK;
}

/* ---- writing -------------------------------------------------------------------------------
 */

/* Errors: NOMEM; that the disk is full shows at commit. */
typedef kac_status write_fn(const kac_run *r, FILE *out);

static kac_status write_json(const kac_run *r, FILE *out)
{
    return kac_json_write(r->json, JSON_INDENT(2), out);
}

static kac_status write_file(const kac_run *r, const char *dir, const char *name,
                             write_fn *write)
{
    char path[2 * KAC_PATH];
    kac_atomic *file = NULL;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    KAC_TRY(kac_atomic_create(path, &file));
    kac_status status = write(r, kac_atomic_stream(file));
    if (status == KAC_OK) return kac_atomic_commit(file);
    kac_atomic_destroy(file);
    return status;
}

kac_status kac_run_write(kac_run *r, const char *dir)
{
    KAC_REQUIRE(r != NULL && dir != NULL && r->finished);
    kac_status status = KAC_OK;
    KAC_TRY_DONE(write_file(r, dir, "samples.csv", write_samples));
    if (!r->vectors) KAC_TRY_DONE(write_file(r, dir, "samples.fasta", write_fasta));
    if (r->form.molecule != NULL) {
        KAC_TRY_DONE(write_file(r, dir, "samples.smi", write_smiles));
        KAC_TRY_DONE(write_file(r, dir, "samples.sdf", write_sdf));
    }
    if (r->set.output.trace) KAC_TRY_DONE(write_file(r, dir, "trace.jsonl", write_trace));
    KAC_TRY_DONE(run_json(r, &r->json));
    KAC_TRY_DONE(write_file(r, dir, "run.json", write_json));
done:
    json_decref(r->json);
    r->json = NULL;
    return status;
}
