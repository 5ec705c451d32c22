/* final.c -- the end of a run: exact rewards, evidence, final selection, likelihoods. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "exact.h"
#include "particles.h"
#include "rng.h"
#include "run.h"

/* The finished population in host memory. */
typedef struct population {
    uint8_t *x;     /* [n][stride] */
    double *log_w;  /* [n] */
    double *terms;  /* [n][rewards] */
    double *reward; /* [n] weighted sum; -HUGE_VAL where invalid */
    double *log_z;  /* [groups] each group's estimate of log Z */
    int32_t *order; /* [n] scratch */
} population;

static void close_population(population *p)
{
    free(p->x);
    free(p->log_w);
    free(p->terms);
    free(p->reward);
    free(p->log_z);
    free(p->order);
}

/* Copies the columns of one kind of terms to where the settings name them. */
static kac_status fetch_terms(kac_run *r, kac_rewards *rewards, float *device, population *p)
{
    size_t columns = (size_t)kac_rewards_columns(rewards);
    size_t n = (size_t)r->n;
    kac_rows rows = {r->x.x, NULL, 0, r->n};
    kac_status status = KAC_OK;
    if (columns == 0) return KAC_OK;

    float *host = calloc(n * columns, sizeof *host);
    if (host == NULL)
        return KAC_FAIL(KAC_ERR_NOMEM, "no memory for the terms of %zu objects", n);
    KAC_TRY_DONE(kac_rewards_score(rewards, &rows, device, NULL));
    KAC_TRY_DONE(
        r->dev->ops->memory.download(r->dev, host, device, n * columns * sizeof *host));
    for (int term = 0; term < r->set.rewards; term++) {
        int32_t column = kac_rewards_column(rewards, term);
        if (column < 0) continue;
        for (size_t i = 0; i < n; i++)
            p->terms[i * (size_t)r->set.rewards + (size_t)term] =
                (double)host[i * columns + (size_t)column];
    }
done:
    free(host);
    return status;
}

static kac_status fetch(kac_run *r, population *p)
{
    const kac_memory_ops *op = &r->dev->ops->memory;
    size_t n = (size_t)r->n;
    size_t rewards = (size_t)r->set.rewards;
    p->x = calloc(n, (size_t)r->shape.stride);
    p->log_w = calloc(n, sizeof *p->log_w);
    p->terms = calloc(n * rewards + 1, sizeof *p->terms);
    p->reward = calloc(n, sizeof *p->reward);
    p->log_z = calloc((size_t)r->groups, sizeof *p->log_z);
    p->order = calloc(n, sizeof *p->order);
    if (!p->x || !p->log_w || !p->terms || !p->reward || !p->log_z || !p->order)
        return KAC_FAIL(KAC_ERR_NOMEM, "no memory for the results of %zu particles", n);

    KAC_TRY(op->download(r->dev, p->x, r->x.x, n * (size_t)r->shape.stride));
    KAC_TRY(op->download(r->dev, p->log_w, r->x.log_w, n * sizeof *p->log_w));
    KAC_TRY(fetch_terms(r, r->guide, r->terms, p));
    KAC_TRY(fetch_terms(r, r->judge, r->judge_terms, p));
    for (size_t i = 0; i < n; i++) {
        for (size_t term = 0; term < rewards; term++)
            if (r->set.reward[term].weight != 0)
                p->reward[i] += r->set.reward[term].weight * p->terms[i * rewards + term];
        if (!(p->reward[i] < HUGE_VAL)) p->reward[i] = -HUGE_VAL; /* on_invalid: worst */
    }
    return KAC_OK;
}

/* ---- evidence ------------------------------------------------------------------------------
 */

/* log(mean exp) of n values; -HUGE_VAL where all are. */
static double log_mean(const double *x, int32_t n)
{
    double top = -HUGE_VAL;
    double sum = 0;
    for (int32_t i = 0; i < n; i++)
        top = x[i] > top ? x[i] : top;
    if (top == -HUGE_VAL) return top;
    for (int32_t i = 0; i < n; i++)
        sum += kac_exp(x[i] - top);
    return top + kac_log(sum / n);
}

/* Each group's estimate, then their mean; the error from groups as replicates. */
static void estimate_evidence(kac_run *r, population *p)
{
    for (int32_t g = 0; g < r->groups; g++) {
        const kac_group *group = &r->host_group[g];
        p->log_z[g] = group->log_z + log_mean(p->log_w + group->offset, group->count);
    }
    r->log_evidence = r->log_evidence_se = (double)NAN;
    if (!r->weighted) return;
    r->log_evidence = log_mean(p->log_z, r->groups);
    /* Groups that were selected together share one normaliser: they are no replicates. */
    if (r->pools < 2 || r->log_evidence == -HUGE_VAL) return;
    double square = 0;
    for (int32_t g = 0; g < r->groups; g++) {
        double d = kac_exp(p->log_z[g] - r->log_evidence) - 1;
        square += d * d;
    }
    r->log_evidence_se = sqrt(square / (r->groups - 1) / r->groups);
}

/* ---- selection -----------------------------------------------------------------------------
 */

static _Thread_local const population *sorted; /* what qsort compares */

/* Higher reward first, lower slot on ties. */
static int better(const void *a, const void *b)
{
    int32_t i = *(const int32_t *)a;
    int32_t j = *(const int32_t *)b;
    double ri = sorted->reward[i];
    double rj = sorted->reward[j];
    return ri != rj ? (ri < rj) - (ri > rj) : (i > j) - (i < j);
}

static bool same_object(const kac_run *r, const population *p, int32_t i, int32_t j)
{
    size_t stride = (size_t)r->shape.stride;
    return memcmp(p->x + (size_t)i * stride, p->x + (size_t)j * stride, stride) == 0;
}

/* Sends slot i to the results. */
static void keep(kac_run *r, const population *p, int32_t i, double log_weight)
{
    kac_result *out = &r->result[r->samples_out++];
    *out = (kac_result){.slot = i, .reward = p->reward[i], .log_likelihood = (double)NAN};
    out->group = i / (int32_t)r->set.sampler.particles;
    out->log_weight = r->weighted ? log_weight : (double)NAN;
}

/* The `most` best distinct objects of slots first .. first + count - 1. */
static void keep_best(kac_run *r, population *p, int32_t first, int32_t count, int64_t most)
{
    int64_t begin = r->samples_out;
    for (int32_t i = 0; i < count; i++)
        p->order[i] = first + i;
    sorted = p;
    qsort(p->order, (size_t)count, sizeof *p->order, better);
    for (int32_t i = 0; i < count && r->samples_out - begin < most; i++) {
        int32_t slot = p->order[i];
        bool seen = false; /* equal objects have equal rewards, so they are neighbours */
        for (int64_t k = r->samples_out - 1; k >= begin && !seen; k--) {
            if (r->result[k].reward != p->reward[slot]) break;
            seen = same_object(r, p, r->result[k].slot, slot);
        }
        if (!seen) keep(r, p, slot, (double)NAN);
    }
}

/* `most` independent draws in proportion to the weights. */
static void keep_drawn(kac_run *r, const population *p, const kac_group *group, int64_t most)
{
    const double *log_w = p->log_w + group->offset;
    double top = -HUGE_VAL;
    uint64_t sum = 0;
    for (int32_t i = 0; i < group->count; i++)
        top = log_w[i] > top ? log_w[i] : top;
    for (int32_t i = 0; i < group->count; i++)
        sum += kac_weight(log_w[i], top);
    for (int64_t k = 0; k < most; k++) {
        kac_key key = {.seed = r->set.seed,
                       .move = (uint32_t)r->steps,
                       .group = (uint32_t)group->id,
                       .particle = (uint32_t)k};
        int32_t i = 0;
        if (sum > 0) {
            uint64_t u = kac_below(kac_draw(key, KAC_DRAW_FINAL, 0), 0, sum);
            for (uint64_t c = kac_weight(log_w[0], top); c <= u;)
                c += kac_weight(log_w[++i], top);
        }
        keep(r, p, group->offset + i, p->log_z[group - r->host_group]);
    }
}

static void select_final(kac_run *r, population *p)
{
    int64_t asked = r->set.sampler.keep; /* 0: all */
    if (r->set.sampler.final_pool) {
        keep_best(r, p, 0, r->n, (asked != 0 ? asked : 1) * r->groups);
        return;
    }
    for (int32_t g = 0; g < r->groups; g++) {
        const kac_group *group = &r->host_group[g];
        int64_t most = asked != 0 ? asked : group->count;
        switch (r->set.sampler.final) {
        case KAC_FINAL_WEIGHTED:
            for (int32_t i = group->offset; i < group->offset + group->count; i++)
                keep(r, p, i, group->log_z + p->log_w[i]);
            break;
        case KAC_FINAL_CATEGORICAL: keep_drawn(r, p, group, most); break;
        case KAC_FINAL_ARGMAX: keep_best(r, p, group->offset, group->count, 1); break;
        case KAC_FINAL_TOP_K: keep_best(r, p, group->offset, group->count, most); break;
        }
    }
}

/* ---- results -------------------------------------------------------------------------------
 */

/* Bytes of an object as text with its final zero: letters, or numbers with a blank after each. */
static size_t text_size(const kac_run *r)
{
    size_t number = sizeof "-1.23456789e-38";
    return (size_t)r->shape.length * (r->vectors ? number : 1) + 1;
}

/* Numbers separated by blanks, all the digits of a float. */
static void write_vector(const kac_run *r, const uint8_t *x, char *text)
{
    size_t used = 0;
    for (int32_t l = 0; l < r->shape.length; l++) {
        float value = 0;
        memcpy(&value, x + (size_t)l * sizeof value, sizeof value);
        used += (size_t)snprintf(text + used, r->text_size - used, "%s%.9g", l > 0 ? " " : "",
                                 (double)value);
    }
}

static void write_letters(const kac_run *r, const uint8_t *x, char *text)
{
    for (int32_t l = 0; l < r->shape.length; l++)
        text[l] = r->denoiser->alphabet[x[l]];
    text[r->shape.length] = '\0';
}

/* Objects as text, and their terms. */
static void write_results(kac_run *r, const population *p)
{
    size_t rewards = (size_t)r->set.rewards;
    for (int64_t k = 0; k < r->samples_out; k++) {
        size_t slot = (size_t)r->result[k].slot;
        char *text = r->text + (size_t)k * r->text_size;
        const uint8_t *x = p->x + slot * (size_t)r->shape.stride;
        if (r->vectors)
            write_vector(r, x, text);
        else
            write_letters(r, x, text);
        memcpy(r->result_terms + (size_t)k * rewards, p->terms + slot * rewards,
               rewards * sizeof *p->terms);
    }
}

static kac_status add_likelihoods(kac_run *r, const population *p)
{
    const kac_memory_ops *op = &r->dev->ops->memory;
    size_t n = (size_t)r->samples_out;
    size_t stride = (size_t)r->shape.stride;
    kac_status status = KAC_OK;
    uint8_t *x = calloc(n, stride);
    int32_t *id = calloc(n, sizeof *id);
    double *out = calloc(n, sizeof *out);
    if (!x || !id || !out) {
        status = KAC_FAIL(KAC_ERR_NOMEM, "no memory for the likelihoods of %zu samples", n);
        goto done;
    }
    for (size_t k = 0; k < n; k++) {
        id[k] = (int32_t)k;
        memcpy(x + k * stride, p->x + (size_t)r->result[k].slot * stride, stride);
    }
    KAC_TRY_DONE(op->upload(r->dev, r->completion, x, n * stride));
    KAC_TRY_DONE(op->upload(r->dev, r->scratch, id, n * sizeof *id));
    KAC_TRY_DONE(kac_likelihood(r, r->completion, r->scratch, (int32_t)n, out));
    for (size_t k = 0; k < n; k++)
        r->result[k].log_likelihood = out[k];
done:
    free(x);
    free(id);
    free(out);
    return status;
}

kac_status kac_run_finish(kac_run *r)
{
    KAC_REQUIRE(r != NULL && r->result == NULL); /* once */
    if (r->step < r->steps)
        return KAC_FAIL(KAC_ERR_INVALID, "%d of %d steps are done; finish comes after the last",
                        r->step, r->steps);
    population p = {0};
    kac_status status = KAC_OK;
    KAC_TRY(kac_run_sync(r, NULL));
    kac_calls calls = r->calls; /* what follows only records the result */

    size_t n = (size_t)r->n;
    r->result = calloc(n, sizeof *r->result);
    r->result_terms = calloc(n * (size_t)r->set.rewards + 1, sizeof *r->result_terms);
    r->text_size = text_size(r);
    r->text = calloc(n, r->text_size);
    if (!r->result || !r->result_terms || !r->text) {
        status = KAC_FAIL(KAC_ERR_NOMEM, "no memory for %zu samples", n);
        goto done;
    }
    KAC_TRY_DONE(fetch(r, &p));
    estimate_evidence(r, &p);
    select_final(r, &p);
    write_results(r, &p);
    if (r->set.output.likelihood) KAC_TRY_DONE(add_likelihoods(r, &p));
    r->calls = calls;
    r->finished = true;
    kac_lap(r, KAC_PHASE_OTHER);
    r->total = kac_now() - r->began;
done:
    close_population(&p);
    return status;
}

int64_t kac_run_samples(const kac_run *r)
{
    return r->finished ? r->samples_out : 0;
}

int64_t kac_run_terms(const kac_run *r)
{
    return r->set.rewards;
}

kac_status kac_run_sample(const kac_run *r, int64_t i, kac_sample *out)
{
    KAC_REQUIRE(r != NULL && out != NULL && i >= 0 && i < kac_run_samples(r));
    const kac_result *k = &r->result[i];
    *out = (kac_sample){
        .group = k->group,
        .slot = k->slot,
        .object = r->text + (size_t)i * r->text_size,
        .reward = k->reward,
        .log_weight = k->log_weight,
        .terms = r->result_terms + (size_t)i * (size_t)r->set.rewards,
        .log_likelihood = k->log_likelihood,
    };
    return KAC_OK;
}

void kac_run_evidence(const kac_run *r, int64_t target, double *log_evidence,
                      double *standard_error)
{
    bool known = r->finished && target == 0;
    *log_evidence = known ? r->log_evidence : (double)NAN;
    *standard_error = known ? r->log_evidence_se : (double)NAN;
}
