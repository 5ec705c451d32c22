/* table_run.h -- runs of the public API on the models of exact_chain.h, in a folder of their
 * own.  No Criterion in here: run_threads.c uses it too. */
#ifndef KAC_TABLE_RUN_H
#define KAC_TABLE_RUN_H

#include <stdio.h>
#include <unistd.h>

#include "base.h"
#include "exact_chain.h"
#include "safetensors.h"

/* How many times more groups the laws are tested with: KAC_LAWS_SCALE, 1 unless set. */
static inline int table_scale(void)
{
    const char *text = getenv("KAC_LAWS_SCALE");
    int scale = text != NULL ? (int)strtol(text, NULL, 10) : 1;
    return scale < 1 ? 1 : scale;
}

/* Every sample of a run. */
typedef struct table_run {
    int64_t n;
    int *group;                          /* [n] */
    int *slot;                           /* [n] */
    int *object;                         /* [n] */
    double *reward;                      /* [n] */
    double *log_weight;                  /* [n] */
    double log_evidence, standard_error; /* of target 0 */
    int64_t targets;
    double log_evidences[4], standard_errors[4]; /* of the first targets */
    bool reliable[4];
    int64_t selected; /* group selections in all */
    int64_t calls;    /* denoiser and reward rows evaluated */
    int64_t asked;    /* denoiser rows evaluated or known already */
    double ess;       /* the lowest of all steps, as a share of the particles */
} table_run;

static inline void table_run_free(table_run *run)
{
    free(run->group);
    free(run->slot);
    free(run->object);
    free(run->reward);
    free(run->log_weight);
    *run = (table_run){0};
}

/* Makes a fresh folder for model files; `dir` has room for 256 bytes. */
static inline bool table_folder(char *dir)
{
    const char *base = getenv("TMPDIR");
    snprintf(dir, 256, "%s/kac-laws-XXXXXX", base != NULL && *base ? base : "/tmp");
    return mkdtemp(dir) != NULL;
}

typedef struct table_file {
    char path[320];
} table_file;

static inline table_file table_path(const char *dir, const char *name)
{
    table_file file;
    snprintf(file.path, sizeof file.path, "%s/%s.safetensors", dir, name);
    return file;
}

static inline void table_folder_remove(const char *dir)
{
    unlink(table_path(dir, "denoiser").path);
    unlink(table_path(dir, "reward").path);
    unlink(table_path(dir, "value").path);
    unlink(table_path(dir, "forbidden").path);
    rmdir(dir);
}

static inline kac_tensor table_tensor(const char *name, const float *data, int rank,
                                      const int64_t *shape)
{
    kac_tensor t = {.name = name, .dtype = KAC_F32, .rank = rank, .data = data, .bytes = 4};
    for (int i = 0; i < rank; i++) {
        t.shape[i] = shape[i];
        t.bytes *= (size_t)shape[i];
    }
    return t;
}

/* Writes denoiser.safetensors, reward.safetensors and value.safetensors into dir. */
static inline kac_status table_write(const chain *c, const char *dir)
{
    char alphabet[CHAIN_STATES + 1] = {0}, length[8];
    memcpy(alphabet, "ABC", (size_t)c->states);
    snprintf(length, sizeof length, "%d", c->length);
    const char *const denoiser[][2] = {{"kac.arch", c->markov ? "markov" : "table"},
                                       {"kac.role", "denoiser"},
                                       {"kac.process", "masked"},
                                       {"kac.alphabet", alphabet},
                                       {"kac.length", length}};
    const char *const reward[][2] = {{"kac.arch", "table"},
                                     {"kac.role", "reward"},
                                     {"kac.alphabet", alphabet},
                                     {"kac.length", length}};
    kac_tensor logits =
        table_tensor("logits", c->logits, 3, (int64_t[]){c->rows, c->length, c->states});
    kac_tensor markov[2] = {
        table_tensor("initial", c->initial, 1, (int64_t[]){c->states}),
        table_tensor("transition", c->transition, 2, (int64_t[]){c->states, c->states})};
    kac_tensor table = table_tensor("reward", c->reward, 1, (int64_t[]){c->objects});
    kac_tensor pwm = table_tensor("weight", c->weight, 2, (int64_t[]){c->length, c->states});
    const char *const value[][2] = {{"kac.arch", "pwm"}, {"kac.alphabet", alphabet}};

    KAC_TRY(kac_tensors_write(table_path(dir, "denoiser").path, denoiser, 5,
                              c->markov ? markov : &logits, c->markov ? 2 : 1));
    KAC_TRY(kac_tensors_write(table_path(dir, "value").path, value, 2, &pwm, 1));
    return kac_tensors_write(table_path(dir, "reward").path, reward, 4, &table, 1);
}

/* Writes dir/forbidden.safetensors: a pwm whose sums leave the range of float at objects that
 * start with A, which get an infinite term of the sign of `sign`; all others get 0. */
static inline kac_status table_write_forbidden(const chain *c, const char *dir, int sign)
{
    static const char *const metadata[][2] = {{"kac.arch", "pwm"}, {"kac.alphabet", "ABC"}};
    float weight[CHAIN_LENGTH * CHAIN_STATES] = {0}, huge = 3e38F * (float)sign;
    KAC_REQUIRE(c->states == 3 && c->length > 2);
    weight[0] = huge;
    for (int v = 0; v < 3; v++) {
        weight[3 + v] = huge;
        weight[6 + v] = -huge;
    }
    kac_tensor t = table_tensor("weight", weight, 2, (int64_t[]){c->length, c->states});
    return kac_tensors_write(table_path(dir, "forbidden").path, metadata, 2, &t, 1);
}

/* Applies "key=value key=value ..." */
static inline kac_status table_configure(kac_config *config, const char *settings)
{
    char text[1024];
    char *rest = text, *word;
    KAC_REQUIRE(strlen(settings) < sizeof text);
    memcpy(text, settings, strlen(settings) + 1);
    while ((word = strsep(&rest, " ")) != NULL) {
        char *value = strchr(word, '=');
        if (value == NULL) continue;
        *value++ = '\0';
        KAC_TRY(kac_config_set(config, word, value));
    }
    return KAC_OK;
}

/* The number that a text spells in base strlen(alphabet), first position most significant. */
static inline int table_object(const char *alphabet, const char *text)
{
    int object = 0;
    for (int l = 0; text[l] != '\0'; l++)
        object = object * (int)strlen(alphabet) + (int)(strchr(alphabet, text[l]) - alphabet);
    return object;
}

static inline kac_status table_collect(const char *alphabet, const kac_run *run, table_run *out)
{
    size_t n = (size_t)kac_run_samples(run);
    *out = (table_run){.n = (int64_t)n,
                       .group = calloc(n + 1, sizeof *out->group),
                       .slot = calloc(n + 1, sizeof *out->slot),
                       .object = calloc(n + 1, sizeof *out->object),
                       .reward = calloc(n + 1, sizeof *out->reward),
                       .log_weight = calloc(n + 1, sizeof *out->log_weight)};
    for (int64_t i = 0; i < out->n; i++) {
        kac_sample s;
        KAC_TRY(kac_run_sample(run, i, &s));
        out->group[i] = (int)s.group;
        out->slot[i] = (int)s.slot;
        out->object[i] = table_object(alphabet, s.object);
        out->reward[i] = s.reward;
        out->log_weight[i] = s.log_weight;
    }
    kac_run_evidence(run, 0, &out->log_evidence, &out->standard_error);
    out->targets = kac_run_targets(run);
    for (int t = 0; t < 4; t++) {
        kac_run_evidence(run, t, &out->log_evidences[t], &out->standard_errors[t]);
        out->reliable[t] = kac_run_evidence_is_reliable(run, t);
    }
    return KAC_OK;
}

/* One run on the files of `dir`, whose letters are `alphabet`, with `settings` after the usual
 * ones; the caller frees *out. */
static inline kac_status table_sample_letters(const char *alphabet, const char *dir,
                                              const char *settings, table_run *out)
{
    kac_config *config = NULL;
    kac_run *run = NULL;
    kac_progress progress = {0};
    int64_t selected = 0;
    double ess = 1;

    kac_status status = kac_config_create(&config);
    if (status == KAC_OK)
        status = kac_config_set(config, "model.file", table_path(dir, "denoiser").path);
    if (status == KAC_OK) status = kac_config_set(config, "reward.0.kind", "table");
    if (status == KAC_OK)
        status = kac_config_set(config, "reward.0.file", table_path(dir, "reward").path);
    if (status == KAC_OK)
        status = kac_config_set(config, "sampler.value.file", table_path(dir, "value").path);
    if (status == KAC_OK) status = kac_config_set(config, "device.threads", "1");
    if (status == KAC_OK) status = table_configure(config, settings);
    if (status == KAC_OK) status = kac_run_create(config, &run);
    for (int64_t k = 0; status == KAC_OK && k < kac_run_steps(run); k++) {
        status = kac_run_step(run);
        if (status == KAC_OK) status = kac_run_sync(run, &progress);
        selected += progress.selected;
        if (progress.ess < ess) ess = progress.ess;
    }
    if (status == KAC_OK) status = kac_run_finish(run);
    if (status == KAC_OK) status = table_collect(alphabet, run, out);
    if (status == KAC_OK) {
        out->selected = selected;
        out->calls = progress.denoiser_calls + progress.reward_calls;
        out->asked = progress.denoiser_calls + progress.denoiser_saved;
        out->ess = ess;
    }
    kac_run_destroy(run);
    kac_config_destroy(config);
    return status;
}

/* The same on the files of table_write. */
static inline kac_status table_sample(const chain *c, const char *dir, const char *settings,
                                      table_run *out)
{
    char alphabet[CHAIN_STATES + 1] = {0};
    memcpy(alphabet, "ABC", (size_t)c->states);
    return table_sample_letters(alphabet, dir, settings, out);
}

#endif /* KAC_TABLE_RUN_H */
