/* final.c -- the end of a run: exact rewards, evidence, final selection, likelihoods. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "exact.h"
#include "objective.h"
#include "particles.h"
#include "rng.h"
#include "run.h"
#include "select.h"

/* The finished population in host memory: the particles, or with particle Gibbs the objects that
 * its kept sweeps left, sweep by sweep, one of each group.  First those of this rank, then at rank 0 of
 * all. */
typedef struct population {
    int32_t n, groups;
    int32_t first;         /* number of the first group */
    const uint8_t *device; /* [n][stride] */
    uint8_t *x;            /* [n][stride] */
    double *log_w;         /* [n] */
    double *terms;         /* [n][rewards] */
    double *reward;  /* [n] by the weights of its group; -HUGE_VAL: forbidden or invalid */
    double *log_z;   /* [groups] each group's estimate of log Z */
    double *scratch; /* [groups] */
    int32_t *order;  /* [n] scratch */
    uint64_t *sum;   /* [n] scratch */
    size_t stride;   /* bytes of an object */
} population;

static void close_population(population *p)
{
    free(p->x);
    free(p->log_w);
    free(p->terms);
    free(p->reward);
    free(p->log_z);
    free(p->scratch);
    free(p->order);
    free(p->sum);
}

/* Copies the columns of one kind of terms to where the settings name them. */
static kac_status fetch_terms(kac_run *r, kac_rewards *rewards, float *device, population *p)
{
    size_t columns = (size_t)kac_rewards_columns(rewards);
    kac_status status = KAC_OK;
    if (columns == 0) return KAC_OK;

    float *host = calloc((size_t)r->n * columns, sizeof *host);
    if (host == NULL)
        return KAC_FAIL(KAC_ERR_NOMEM, "no memory for the terms of %d objects", r->n);
    for (int32_t first = 0; first < p->n; first += r->n) {
        int32_t n = p->n - first < r->n ? p->n - first : r->n;
        kac_rows rows = {p->device + (size_t)first * (size_t)r->shape.stride, NULL, 0, n};
        KAC_TRY_DONE(kac_rewards_score(rewards, &rows, device, NULL));
        KAC_TRY_DONE(r->dev->ops->memory.download(r->dev, host, device,
                                                  (size_t)n * columns * sizeof *host));
        for (int term = 0; term < r->set.rewards; term++) {
            int32_t column = kac_rewards_column(rewards, term);
            if (column < 0) continue;
            for (int32_t i = 0; i < n; i++)
                p->terms[(size_t)(first + i) * (size_t)r->set.rewards + (size_t)term] =
                    (double)host[(size_t)i * columns + (size_t)column];
        }
    }
done:
    free(host);
    return status;
}

static bool is_gibbs(const kac_run *r)
{
    return r->set.driver.kind == KAC_DRIVER_GIBBS;
}

static int32_t group_of(const kac_run *r, const population *p, size_t row)
{
    if (is_gibbs(r)) return p->first + (int32_t)(row % (size_t)p->groups);
    return p->first +
           (int32_t)(row / (size_t)(p->n / p->groups)); /* a funnel may have left fewer */
}

/* r of every object, by the weights of its group. */
static void compute_rewards(const kac_run *r, population *p)
{
    kac_objective o = kac_objective_of(&r->set); /* columns as in p->terms */
    float row[KAC_MAX_TERMS];
    for (size_t i = 0; i < (size_t)p->n; i++) {
        int32_t bad = -1;
        for (int32_t term = 0; term < o.terms; term++)
            row[term] = (float)p->terms[i * (size_t)o.terms + (size_t)term];
        const double *weight = r->weight + (ptrdiff_t)group_of(r, p, i) * o.terms;
        p->reward[i] = kac_objective_reward(&o, weight, row, (double)INFINITY, &bad);
    }
}

static kac_status fetch(kac_run *r, population *p)
{
    const kac_memory_ops *op = &r->dev->ops->memory;
    size_t rewards = (size_t)r->set.rewards;
    kac_selected of = kac_selected_of(r);
    size_t particles = (size_t)of.x->n;          /* all of the pool, where it spans ranks */
    p->groups = r->span != NULL ? 1 : r->groups; /* a pool has one target */
    p->first = r->first;
    p->stride = (size_t)r->shape.stride;
    p->n = is_gibbs(r) ? (r->passes - r->gibbs.first) * r->groups : r->n;
    p->device = is_gibbs(r) ? r->gibbs.object : r->x.x;
    size_t n = (size_t)p->n;
    p->x = calloc(n, (size_t)r->shape.stride);
    p->log_w = calloc(n > particles ? n : particles, sizeof *p->log_w);
    p->terms = calloc(n * rewards + 1, sizeof *p->terms);
    p->reward = calloc(n, sizeof *p->reward);
    p->log_z = calloc((size_t)kac_groups_here(r), sizeof *p->log_z);
    if (!p->x || !p->log_w || !p->terms || !p->reward || !p->log_z)
        return KAC_FAIL(KAC_ERR_NOMEM, "no memory for the results of %zu particles", n);

    KAC_TRY(op->download(r->dev, p->x, p->device, n * (size_t)r->shape.stride));
    if (is_gibbs(r))
        KAC_TRY(op->download(r->dev, p->log_z, r->gibbs.log_z,
                             (size_t)r->groups * sizeof *p->log_z));
    else
        KAC_TRY(op->download(r->dev, p->log_w, of.x->log_w, particles * sizeof *p->log_w));
    KAC_TRY(fetch_terms(r, r->guide, r->terms, p));
    KAC_TRY(fetch_terms(r, r->judge, r->judge_terms, p));
    compute_rewards(r, p);
    return KAC_OK;
}

/* kac_gather_groups, kac_span_gather */
typedef kac_status gather_fn(const kac_run *r, const void *mine, size_t bytes, void *all);

/* *out is `rows`, this rank's, of `bytes` a group in each of `blocks` blocks; at rank 0 they are
 * freed, and it is those of all ranks.  Errors: NOMEM, RANK. */
static kac_status gather_rows(const kac_run *r, gather_fn *gather_block, void *rows,
                              int32_t blocks, size_t bytes, void **out)
{
    size_t own = (size_t)kac_groups_here(r) * bytes, whole = (size_t)r->all_groups * bytes;
    bool first = kac_ranks_rank(r->ranks) == 0;
    kac_status status = KAC_OK;
    char *all = calloc(first ? (size_t)blocks * whole + 1 : 1, 1);
    if (all == NULL) status = KAC_FAIL(KAC_ERR_NOMEM, "no memory for the results of all ranks");
    KAC_TRY_DONE(kac_ranks_agree(r->ranks, status, NULL, 0));
    for (int32_t b = 0; b < blocks; b++)
        KAC_TRY_DONE(gather_block(r, (const char *)rows + (size_t)b * own, bytes,
                                  first ? all + (size_t)b * whole : NULL));
done:
    if (status == KAC_OK) *out = first ? all : rows;
    free(status == KAC_OK && first ? rows : all);
    return status;
}

/* What workers have done on all ranks together. */
static kac_status add_up_workers(const kac_run *r, const kac_rewards *rewards)
{
    for (int i = 0; i < kac_rewards_workers(rewards); i++) {
        int term = 0;
        kac_worker_counts *of = kac_rewards_worker(rewards, i, &term);
        int64_t counts[] = {of->answered, of->failures, of->given_up};
        KAC_TRY(kac_ranks_sum(r->ranks, counts, sizeof counts / sizeof *counts));
        *of = (kac_worker_counts){counts[0], counts[1], counts[2]};
    }
    return KAC_OK;
}

/* The population of all ranks at rank 0, in the order of the groups; the others keep none. */
static kac_status gather(kac_run *r, population *p)
{
    int32_t blocks = is_gibbs(r) ? p->n / p->groups : 1;
    int32_t particles = kac_selected_of(r).x->n / kac_groups_here(r);
    size_t each = is_gibbs(r) ? 1 : (size_t)particles;
    gather_fn *own = r->span != NULL ? kac_span_gather : kac_gather_groups; /* of rows here */
    gather_fn *told = kac_gather_groups;
    void *rows = NULL;
    if (kac_ranks_size(r->ranks) == 1) return KAC_OK;
    for (int32_t g = 0; g < kac_groups_here(r); g++)
        r->host_group[g].offset += r->first * particles;
    KAC_TRY(gather_rows(r, own, p->x, blocks, each * p->stride, &rows));
    p->x = rows;
    KAC_TRY(gather_rows(r, own, p->terms, blocks,
                        each * (size_t)r->set.rewards * sizeof *p->terms, &rows));
    p->terms = rows;
    KAC_TRY(gather_rows(r, own, p->reward, blocks, each * sizeof *p->reward, &rows));
    p->reward = rows;
    KAC_TRY(gather_rows(r, told, p->log_w, blocks, each * sizeof *p->log_w, &rows));
    p->log_w = rows;
    KAC_TRY(gather_rows(r, told, p->log_z, 1, sizeof *p->log_z, &rows));
    p->log_z = rows;
    KAC_TRY(gather_rows(r, told, r->host_group, 1, sizeof *r->host_group, &rows));
    r->host_group = rows;
    KAC_TRY(add_up_workers(r, r->guide));
    KAC_TRY(add_up_workers(r, r->judge));
    if (r->span != NULL) KAC_TRY(kac_span_add_up(r));
    p->first = 0;
    p->groups = kac_ranks_rank(r->ranks) == 0 ? r->all_groups : 0;
    p->n = blocks * p->groups * (int32_t)each;
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

/* With s_g the share of group g in the sum, error^2 is sum s_g^2 - 1 / G (times G / (G - 1)), so
 * this bounds the largest share too: by sqrt(0.01 + 1 / G).  Few groups agree by chance. */
bool kac_evidence_is_reliable(double standard_error, int64_t groups)
{
    return groups >= 16 && standard_error <= 0.1;
}

/* Each group's estimate, then their mean in each target; the error from groups as replicates. */
static void estimate_evidence(kac_run *r, population *p)
{
    double *of_target = p->scratch;
    for (int32_t g = 0; g < p->groups && !is_gibbs(r); g++) {
        const kac_group *group = &r->host_group[g];
        p->log_z[g] = group->log_z + log_mean(p->log_w + group->offset, group->count);
    }
    for (int32_t t = 0; t < r->targets; t++) {
        int32_t n = 0;
        double square = 0;
        for (int32_t g = 0; g < p->groups; g++)
            if (r->target[g] == t) of_target[n++] = p->log_z[g];
        double log_z = log_mean(of_target, n);
        r->log_evidence[t] = r->weighted && n > 0 ? log_z : (double)NAN;
        r->log_evidence_se[t] = (double)NAN;
        /* Groups that were selected together share one normaliser: they are no replicates. */
        if (!r->weighted || r->set.sampler.global || n < 2 || log_z == -HUGE_VAL) continue;
        for (int32_t k = 0; k < n; k++) {
            double d = kac_exp(of_target[k] - log_z) - 1;
            square += d * d;
        }
        r->log_evidence_se[t] = sqrt(square / (n - 1) / n);
        r->evidence_reliable[t] = kac_evidence_is_reliable(r->log_evidence_se[t], n);
    }
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

static int compare_objects(const population *p, int32_t i, int32_t j)
{
    return memcmp(p->x + (size_t)i * p->stride, p->x + (size_t)j * p->stride, p->stride);
}

/* The same, but of equal rewards equal objects are neighbours. */
static int by_object(const void *a, const void *b)
{
    int32_t i = *(const int32_t *)a;
    int32_t j = *(const int32_t *)b;
    int order = compare_objects(sorted, i, j);
    return sorted->reward[i] != sorted->reward[j] || order == 0 ? better(a, b) : order;
}

/* Sends slot i to the results. */
static void keep(kac_run *r, const population *p, int32_t i, double log_weight)
{
    kac_result *out = &r->result[r->samples_out++];
    *out = (kac_result){
        .row = i, .slot = i, .reward = p->reward[i], .log_likelihood = (double)NAN};
    out->group = group_of(r, p, (size_t)i);
    out->log_weight = r->weighted ? log_weight : (double)NAN;
    r->forbidden += p->reward[i] == -HUGE_VAL;
}

/* The `most` best distinct objects of slots first .. first + count - 1; a forbidden one only
 * where there is nothing else. */
static void keep_best(kac_run *r, population *p, int32_t first, int32_t count, int64_t most)
{
    int64_t begin = r->samples_out;
    int32_t distinct = 0;
    for (int32_t i = 0; i < count; i++)
        p->order[i] = first + i;
    sorted = p;
    qsort(p->order, (size_t)count, sizeof *p->order, by_object);
    for (int32_t i = 0; i < count; i++) {
        int32_t slot = p->order[i], before = distinct > 0 ? p->order[distinct - 1] : -1;
        if (before < 0 || p->reward[before] != p->reward[slot] ||
            compare_objects(p, before, slot) != 0)
            p->order[distinct++] = slot;
    }
    qsort(p->order, (size_t)distinct, sizeof *p->order, better);
    for (int32_t i = 0; i < distinct && r->samples_out - begin < most; i++) {
        if (p->reward[p->order[i]] == -HUGE_VAL && r->samples_out > begin) break;
        keep(r, p, p->order[i], (double)NAN);
    }
}

/* `most` independent draws in proportion to the weights, which a search leaves equal; what is
 * forbidden has none. */
static void keep_drawn(kac_run *r, const population *p, const kac_group *group, int64_t most)
{
    const double *log_w = p->log_w + group->offset, *reward = p->reward + group->offset;
    double top = -HUGE_VAL;
    uint64_t sum = 0;
    for (int32_t i = 0; i < group->count; i++)
        top = reward[i] > -HUGE_VAL && log_w[i] > top ? log_w[i] : top;
    for (int32_t i = 0; i < group->count; i++)
        p->sum[i] = sum += reward[i] > -HUGE_VAL ? kac_weight(log_w[i], top) : 0;
    for (int64_t k = 0; k < most; k++) {
        kac_key key = {.seed = r->set.seed,
                       .move = (uint32_t)r->moves,
                       .group = (uint32_t)group->id,
                       .particle = (uint32_t)k};
        int32_t i = 0;
        if (sum > 0)
            i = kac_first_above(p->sum, group->count,
                                kac_below(kac_draw(key, KAC_DRAW_FINAL, 0), 0, sum));
        keep(r, p, group->offset + i, p->log_z[group - r->host_group]);
    }
}

/* All particles that are not forbidden, or all where every one is.  Those left out have weight
 * zero; the others take in their share, so that the mean over what is kept is the mean over all.
 */
static void keep_weighted(kac_run *r, const population *p, const kac_group *group)
{
    int32_t end = group->offset + group->count;
    int32_t allowed = 0;
    for (int32_t i = group->offset; i < end; i++)
        allowed += p->reward[i] > -HUGE_VAL;
    double log_share = allowed > 0 ? kac_log((double)allowed / group->count) : 0;
    for (int32_t i = group->offset; i < end; i++)
        if (allowed == 0 || p->reward[i] > -HUGE_VAL)
            keep(r, p, i, group->log_z + p->log_w[i] + log_share);
}

/* Every object that a kept sweep left, group by group.  Sweeps leave p* as it is, so each is properly
 * weighted by the evidence that its group found in sweep 0. */
static void keep_retained(kac_run *r, const population *p)
{
    for (int32_t g = 0; g < p->groups; g++)
        for (int32_t i = g; i < p->n; i += p->groups) {
            keep(r, p, i, p->log_z[g]);
            r->result[r->samples_out - 1].slot = r->host_group[g].offset;
        }
}

/* The most samples that select_final keeps.  Draws repeat, and a funnel may have left a group with
 * fewer than it keeps. */
static int64_t most_samples(const kac_run *r, const population *p)
{
    int64_t kept = r->set.sampler.keep * p->groups;
    if (is_gibbs(r) || kept == 0) return p->n;
    return kept < p->n || r->set.sampler.final == KAC_FINAL_CATEGORICAL ? kept : p->n;
}

static void select_final(kac_run *r, population *p)
{
    int64_t asked = r->set.sampler.keep; /* 0: all */
    if (is_gibbs(r)) {
        keep_retained(r, p);
        return;
    }
    if (r->set.sampler.final_pool) {
        keep_best(r, p, 0, p->n, (asked != 0 ? asked : 1) * p->groups);
        return;
    }
    for (int32_t g = 0; g < p->groups; g++) {
        const kac_group *group = &r->host_group[g];
        int64_t most = asked != 0 ? asked : group->count;
        switch (r->set.sampler.final) {
        case KAC_FINAL_WEIGHTED: keep_weighted(r, p, group); break;
        case KAC_FINAL_CATEGORICAL: keep_drawn(r, p, group, most); break;
        case KAC_FINAL_ARGMAX: keep_best(r, p, group->offset, group->count, 1); break;
        case KAC_FINAL_TOP_K: keep_best(r, p, group->offset, group->count, most); break;
        }
    }
}

/* ---- results -------------------------------------------------------------------------------
 */

/* Objects as text, and their terms. */
static void write_results(kac_run *r, const population *p)
{
    size_t rewards = (size_t)r->set.rewards, stride = (size_t)r->shape.stride;
    for (int64_t k = 0; k < r->samples_out; k++) {
        size_t row = (size_t)r->result[k].row;
        kac_object_write(&r->form, p->x + row * stride, r->text + (size_t)k * r->text_size);
        if (r->objects != NULL)
            memcpy(r->objects + (size_t)k * stride, p->x + row * stride, stride);
        memcpy(r->result_terms + (size_t)k * rewards, p->terms + row * rewards,
               rewards * sizeof *p->terms);
    }
}

/* Log-likelihoods of samples first .. end - 1 of x [n][stride], which their numbers key. */
static kac_status estimate_likelihoods(kac_run *r, const uint8_t *x, size_t first, size_t end,
                                       double *out)
{
    const kac_memory_ops *op = &r->dev->ops->memory;
    size_t stride = (size_t)r->shape.stride, most = (size_t)r->n;
    kac_status status = KAC_OK;
    int32_t *id = calloc(most, sizeof *id);
    if (id == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "no memory for likelihoods");
    for (; first < end; first += most) {
        size_t some = end - first < most ? end - first : most;
        for (size_t k = 0; k < some; k++)
            id[k] = (int32_t)(first + k);
        KAC_TRY_DONE(op->upload(r->dev, r->completion, x + first * stride, some * stride));
        KAC_TRY_DONE(op->upload(r->dev, r->scratch, id, some * sizeof *id));
        KAC_TRY_DONE(kac_likelihood(r, r->completion, r->scratch, (int32_t)some, out + first));
    }
done:
    free(id);
    return status;
}

/* Each rank takes its share of the samples; ranks get them from rank 0, which gets the likelihoods. */
static kac_status share_likelihoods(kac_run *r, size_t n, uint8_t *x, double *out)
{
    size_t ranks = (size_t)kac_ranks_size(r->ranks), rank = (size_t)kac_ranks_rank(r->ranks);
    size_t first = n * rank / ranks, end = n * (rank + 1) / ranks;
    kac_status status = KAC_OK;
    void **into = calloc(ranks, sizeof *into);
    size_t *sizes = calloc(ranks, sizeof *sizes);
    if (into == NULL || sizes == NULL)
        status = KAC_FAIL(KAC_ERR_NOMEM, "no memory for %zu ranks", ranks);
    for (size_t q = 0; q < ranks && status == KAC_OK; q++) {
        into[q] = out + n * q / ranks;
        sizes[q] = (n * (q + 1) / ranks - n * q / ranks) * sizeof *out;
    }
    KAC_TRY_DONE(kac_ranks_agree(r->ranks, status, NULL, 0));
    KAC_TRY_DONE(kac_ranks_broadcast(r->ranks, x, n * (size_t)r->shape.stride));
    status = estimate_likelihoods(r, x, first, end, out);
    KAC_TRY_DONE(kac_ranks_agree(r->ranks, status, NULL, 0));
    status = kac_ranks_gather(r->ranks, out + first, (end - first) * sizeof *out, into, sizes);
done:
    free(into);
    free(sizes);
    return status;
}

static kac_status add_likelihoods(kac_run *r, const population *p)
{
    int64_t count = r->samples_out; /* none but at rank 0 */
    size_t stride = (size_t)r->shape.stride;
    KAC_TRY(kac_ranks_agree(r->ranks, KAC_OK, &count, 1));
    size_t n = (size_t)count;
    kac_status status = KAC_OK;
    uint8_t *x = calloc(n + 1, stride);
    double *out = calloc(n + 1, sizeof *out);
    if (x == NULL || out == NULL)
        status = KAC_FAIL(KAC_ERR_NOMEM, "no memory for the likelihoods of %zu samples", n);
    KAC_TRY_DONE(kac_ranks_agree(r->ranks, status, NULL, 0));
    if (x == NULL || out == NULL) goto done; /* as every rank has been told */
    for (int64_t k = 0; k < r->samples_out; k++)
        memcpy(x + (size_t)k * stride, p->x + (size_t)r->result[k].row * stride, stride);
    KAC_TRY_DONE(share_likelihoods(r, n, x, out));
    for (int64_t k = 0; k < r->samples_out; k++)
        r->result[k].log_likelihood = out[k];
done:
    free(x);
    free(out);
    return status;
}

/* Every particle with its path, whatever the final selection keeps. */
static kac_status finish_trajectories(kac_run *r, const population *p)
{
    double *log_weight = calloc((size_t)r->n, sizeof *log_weight);
    if (log_weight == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "no memory for %d weights", r->n);
    for (int32_t i = 0; i < r->n; i++) {
        const kac_group *group = &r->host_group[group_of(r, p, (size_t)i)];
        log_weight[i] = r->weighted ? group->log_z + p->log_w[i] : (double)NAN;
    }
    kac_finished finished = {p->terms, p->reward, log_weight};
    kac_trajectories_finish(r, &finished);
    free(log_weight);
    return KAC_OK;
}

/* From the latest step, which has been waited for, to samples. */
static kac_status make_results(kac_run *r)
{
    population p = {0};
    kac_status status = KAC_OK;
    KAC_TRY(r->dev->ops->memory.download(r->dev, r->host_group, kac_selected_of(r).groups,
                                         (size_t)kac_groups_here(r) * sizeof *r->host_group));

    KAC_TRY_DONE(fetch(r, &p));
    KAC_TRY_DONE(gather(r, &p));
    size_t n = (size_t)most_samples(r, &p);
    p.scratch = calloc((size_t)p.groups + 1, sizeof *p.scratch);
    p.order = calloc((size_t)p.n + 1, sizeof *p.order);
    p.sum = calloc((size_t)p.n + 1, sizeof *p.sum);
    r->result = calloc(n + 1, sizeof *r->result);
    r->result_terms = calloc(n * (size_t)r->set.rewards + 1, sizeof *r->result_terms);
    r->text_size = kac_object_size(&r->form);
    r->text = calloc(n + 1, r->text_size);
    bool molecules = r->form.molecule != NULL;
    if (molecules) r->objects = calloc(n + 1, (size_t)r->shape.stride);
    if (!p.scratch || !p.order || !p.sum || !r->result || !r->result_terms || !r->text ||
        (molecules && !r->objects)) {
        status = KAC_FAIL(KAC_ERR_NOMEM, "no memory for %zu samples", n);
        goto done;
    }
    estimate_evidence(r, &p);
    if (r->trajectories != NULL) KAC_TRY_DONE(finish_trajectories(r, &p));
    select_final(r, &p);
    write_results(r, &p);
    if (r->set.output.likelihood) KAC_TRY_DONE(add_likelihoods(r, &p));
    r->finished = true;
    kac_lap(r, KAC_PHASE_OTHER);
    r->total = kac_now() - r->began;
done:
    close_population(&p);
    return status;
}

kac_status kac_run_finish(kac_run *r)
{
    KAC_REQUIRE(r != NULL);
    KAC_TRY(kac_enter_run(r));
    KAC_REQUIRE(r->result == NULL); /* once */
    if (r->step < r->moves)
        return KAC_FAIL(KAC_ERR_INVALID, "%d of %d steps are done; finish comes after the last",
                        r->step, r->moves);
    KAC_TRY(kac_run_sync(r, NULL));
    return kac_end_where_failed(r, make_results(r));
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

int64_t kac_run_targets(const kac_run *r)
{
    return r->targets;
}

void kac_run_evidence(const kac_run *r, int64_t target, double *log_evidence,
                      double *standard_error)
{
    bool known = r->finished && target >= 0 && target < r->targets;
    *log_evidence = known ? r->log_evidence[target] : (double)NAN;
    *standard_error = known ? r->log_evidence_se[target] : (double)NAN;
}

bool kac_run_evidence_is_reliable(const kac_run *r, int64_t target)
{
    return r->finished && target >= 0 && target < r->targets && r->evidence_reliable[target];
}
