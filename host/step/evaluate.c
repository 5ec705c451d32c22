/* evaluate.c -- what the networks say of particles, children and objects, nothing asked twice.
 *
 * Rows are looked up in the memo of evaluations; the fresh ones are run in batches, and what
 * is wanted of a batch is taken before the next one, because outputs beyond the memo's
 * persistent slots live only until then.  A dropped output is computed again when its particle
 * survives, and counted.
 */
#include <stdlib.h>

#include "search.h"

/* Where first .. first + batch - 1 of the fresh entries are at hand, takes what is wanted. */
typedef kac_status take_fn(kac_run *r, const kac_particles *parents, const kac_particles *p,
                           int32_t first);

/* What the second denoiser makes of the rows that `q` has asked. */
static kac_status guide_free(kac_run *r, kac_query q)
{
    kac_blend_args a = {.jobs = &r->jobs,
                        .length = r->shape.length,
                        .states = r->shape.states,
                        .guidance = r->set.model.guidance,
                        .anneal = r->set.process.anneal,
                        .other = r->other};
    q.dst = NULL;
    q.out = r->other;
    q.out_stride = r->slot_floats;
    KAC_TRY(kac_network_ask(r->unconditional, &q));
    return r->process->blend(r->dev, &a, r->evals.logits);
}

/* Runs the rows of tokens that r->jobs names, into the memo's logits. */
static kac_status run_jobs(kac_run *r, const uint8_t *tokens)
{
    kac_query q = {
        .tokens = tokens,
        .stride = r->shape.stride,
        .length = r->shape.length,
        .src = r->jobs.src,
        .dst = r->jobs.dst,
        .count = r->jobs.count,
        .capacity = r->batch,
        .levels = r->levels,
        .clock = r->clock,
        .out = r->evals.logits,
        .out_stride = r->memo_floats,
    };
    KAC_TRY(kac_network_ask(r->denoiser, &q));
    return r->unconditional != NULL ? guide_free(r, q) : KAC_OK;
}

/* Looks up and runs the rows of `p`, children of `parents` or these themselves; *made (may be
 * NULL) grows by the number of fresh ones. */
static kac_status evaluate(kac_run *r, const kac_particles *parents, kac_particles *p,
                           take_fn *take, int64_t *made)
{
    const kac_states_ops *op = &r->dev->ops->states;
    kac_rows rows = {p->x, parents->live, 0, p->n};

    r->calls.denoiser_asked += (int64_t)p->n * kac_run_denoisers(r);
    KAC_TRY(op->find(r->dev, &r->evals, &rows, p->entry, &r->fresh, made));
    for (int32_t first = 0; first < p->n; first += r->batch) {
        KAC_TRY(op->assign(r->dev, &r->evals, r->vectors ? -1 : r->shape.states, &r->fresh,
                           first, r->batch, &r->jobs, &r->made[0]));
        kac_lap(r, KAC_PHASE_OTHER);
        KAC_TRY(run_jobs(r, p->x));
        kac_lap(r, KAC_PHASE_DENOISER);
        if (take != NULL) KAC_TRY(take(r, parents, p, first));
    }
    return KAC_OK;
}

/* Arguments that concern batch first .. of the rows of `p`. */
static kac_complete_args rows_of(const kac_run *r, const kac_particles *parents,
                                 const kac_particles *p, int32_t first)
{
    return (kac_complete_args){
        .shape = r->shape,
        .clock = r->clock,
        .groups = r->group,
        .levels = r->levels,
        .x = p->x,
        .entry = p->entry,
        .group = parents->group,
        .memo = &r->evals,
        .fresh = &r->fresh,
        .seed = r->set.seed,
        .n = p->n,
        .live = parents->live,
        .first = first,
        .batch = r->batch,
        .allowed = r->allowed,
        .fault = r->fault,
        .children = p->n / parents->n,
        .samples = r->samples,
        .temperature = (float)r->set.process.temperature,
    };
}

/* Terms of the most likely completion of each fresh child, remembered with its evaluation. */
static kac_status take_argmax(kac_run *r, const kac_particles *parents, const kac_particles *p,
                              int32_t first)
{
    kac_complete_args a = rows_of(r, parents, p, first);
    kac_rows rows = {r->completion, r->fresh.count, first, r->batch};
    KAC_TRY(r->process->complete(r->dev, &a, r->completion));
    KAC_TRY(kac_rewards_score(r->guide, &rows, r->batch_terms, &r->made[1]));
    KAC_TRY(r->dev->ops->states.learn(r->dev, &r->evals, &r->fresh, first, r->batch,
                                      r->batch_terms));
    kac_lap(r, KAC_PHASE_REWARD);
    return KAC_OK;
}

/* The same at the denoiser's probabilities. */
static kac_status take_soft(kac_run *r, const kac_particles *parents, const kac_particles *p,
                            int32_t first)
{
    kac_complete_args a = rows_of(r, parents, p, first);
    KAC_TRY(r->process->soften(r->dev, &a, r->soft));
    KAC_TRY(kac_rewards_score_soft(r->guide, r->soft, r->fresh.count, first, r->batch,
                                   r->batch_terms));
    KAC_TRY(r->dev->ops->states.learn(r->dev, &r->evals, &r->fresh, first, r->batch,
                                      r->batch_terms));
    kac_lap(r, KAC_PHASE_REWARD);
    return KAC_OK;
}

/* Random completions belong to a child, not to its state: equal children draw their own. */
static kac_status take_samples(kac_run *r, const kac_particles *parents, const kac_particles *p,
                               int32_t first)
{
    kac_complete_args a = rows_of(r, parents, p, first);
    return r->process->imagine(r->dev, &a, r->completion);
}

/* Every child at hand with its masks filled. */
static kac_status take_objects(kac_run *r, const kac_particles *parents, const kac_particles *p,
                               int32_t first)
{
    kac_complete_args a = rows_of(r, parents, p, first);
    a.every_row = 1;
    return r->process->complete(r->dev, &a, r->completion);
}

/* Whether what was said of a state holds for it at the next level. */
static bool keeps_entries(const kac_run *r)
{
    return r->set.sampler.reuse && !r->reads_time;
}

/* Whether the particles begin a pass here, so that no step before has valued them. */
static bool is_start(const kac_run *r)
{
    return r->level == (r->pass == 0 ? r->steps : r->back);
}

/* A child that reveals nothing keeps its parent's entry, so that needs its value too, above the
 * levels that go without.  Vectors always move. */
static take_fn *take_of_parents(const kac_run *r)
{
    bool last = r->level == 1 || r->level <= r->revive.levels;
    if (last || r->vectors || !keeps_entries(r) ||
        r->set.sampler.value != KAC_VALUE_POSTERIOR_MEAN)
        return NULL;
    switch (r->set.sampler.estimate) {
    case KAC_ESTIMATE_ARGMAX: return take_argmax;
    case KAC_ESTIMATE_SOFT: return take_soft;
    case KAC_ESTIMATE_SAMPLE: break;
    }
    return NULL;
}

kac_status kac_evaluate_parents(kac_run *r, kac_particles *x)
{
    const kac_states_ops *op = &r->dev->ops->states;
    if (r->set.sampler.reuse) {
        KAC_TRY(op->sweep(r->dev, &r->evals, x->entry, x->n));
    } else {
        KAC_TRY(op->clear(r->dev, &r->evals));
        KAC_TRY(op->forget(r->dev, x->entry, x->n));
    }
    take_fn *take = take_of_parents(r);
    if (take != NULL && is_start(r))
        r->calls.reward_asked += (int64_t)x->n * kac_rewards_networks(r->guide);
    return evaluate(r, x, x, take, take == take_soft ? &r->made[1] : NULL);
}

kac_status kac_evaluate_states(kac_run *r, kac_particles *x)
{
    return evaluate(r, x, x, NULL, NULL);
}

/* What a denoiser that reads t said of the particles does not hold at the children's level. */
static kac_status leave_level(kac_run *r)
{
    return r->reads_time ? r->dev->ops->states.clear(r->dev, &r->evals) : KAC_OK;
}

kac_status kac_evaluate_children(kac_run *r, const kac_particles *x, kac_particles *y)
{
    int64_t objects = (int64_t)y->n * r->samples;
    r->calls.reward_asked += objects * kac_rewards_networks(r->guide);
    KAC_TRY(leave_level(r));

    switch (r->set.sampler.estimate) {
    case KAC_ESTIMATE_ARGMAX: KAC_TRY(evaluate(r, x, y, take_argmax, NULL)); break;
    case KAC_ESTIMATE_SOFT: KAC_TRY(evaluate(r, x, y, take_soft, &r->made[1])); break;
    case KAC_ESTIMATE_SAMPLE: {
        kac_rows rows = {r->completion, NULL, 0, (int32_t)objects};
        KAC_TRY(evaluate(r, x, y, take_samples, NULL));
        KAC_TRY(kac_rewards_score(r->guide, &rows, r->terms, &r->made[1]));
        kac_lap(r, KAC_PHASE_REWARD);
        return KAC_OK;
    }
    }
    return r->dev->ops->states.recall(r->dev, &r->evals, y->entry, y->n, r->terms);
}

/* The objects that noisy graphs are nearest to. */
static kac_status take_nearest(kac_run *r, const kac_particles *y)
{
    kac_complete_args a = rows_of(r, y, y, 0);
    a.entry = NULL;
    a.every_row = 1;
    return r->process->complete(r->dev, &a, r->completion);
}

kac_status kac_evaluate_unfinished(kac_run *r, const kac_particles *y)
{
    bool learned = r->value != NULL;
    kac_rewards *value = learned ? r->value : r->guide;
    kac_rows rows = {y->x, NULL, 0, y->n};

    if (r->set.process.kind == KAC_PROCESS_GRAPH && !learned) {
        KAC_TRY(take_nearest(r, y));
        rows.x = r->completion;
    }
    r->calls.reward_asked += (int64_t)y->n * kac_rewards_networks(value);
    KAC_TRY(kac_rewards_score(value, &rows, r->terms, &r->made[learned ? 3 : 1]));
    kac_lap(r, KAC_PHASE_REWARD);
    return KAC_OK;
}

kac_status kac_evaluate_objects(kac_run *r, const kac_particles *x, kac_particles *y)
{
    size_t bytes = (size_t)y->n * (size_t)r->shape.stride;
    kac_rows rows = {y->x, x->live, 0, y->n};

    KAC_TRY(leave_level(r));
    if (!r->vectors) {
        KAC_TRY(evaluate(r, x, y, take_objects, NULL));
        KAC_TRY(r->dev->ops->memory.copy(r->dev, y->x, r->completion, bytes));
    }
    r->calls.reward_asked += (int64_t)y->n * kac_rewards_networks(r->guide);
    KAC_TRY(kac_rewards_score(r->guide, &rows, r->terms, &r->made[1]));
    kac_lap(r, KAC_PHASE_REWARD);
    return KAC_OK;
}

/* Forgets what nothing holds on to, as a step does first anyway. */
static kac_status forget_others(kac_run *r)
{
    return kac_searches_trees(r)
               ? kac_trees_forget(r)
               : r->dev->ops->states.sweep(r->dev, &r->evals, r->x.entry, r->x.n);
}

/* Entries first .. of the memo that hold a persistent row of logits, `batch` of them at most, as
 * jobs; the return value is the entry after the last. */
static int32_t gather_jobs(const kac_run *r, const int32_t *slot, int32_t first, int32_t *src,
                           int32_t *dst, int32_t *count)
{
    int32_t e = first;
    for (*count = 0; e < r->evals.capacity && *count < r->batch; e++) {
        if (slot[e] < 0) continue;
        src[*count] = e;
        dst[(*count)++] = slot[e];
    }
    return e;
}

kac_status kac_evaluate_again(kac_run *r)
{
    const kac_memory_ops *op = &r->dev->ops->memory;
    kac_status status = KAC_OK;
    if (!r->set.sampler.reuse) return KAC_OK; /* a step begins by forgetting everything */
    size_t batch = (size_t)r->batch, entries = (size_t)r->evals.capacity;
    int32_t *slot = calloc(entries, sizeof *slot);
    int32_t *src = calloc(batch, sizeof *src), *dst = calloc(batch, sizeof *dst);
    if (slot == NULL || src == NULL || dst == NULL) {
        status = KAC_FAIL(KAC_ERR_NOMEM, "run: no memory for %zu evaluations", entries);
        goto done;
    }
    KAC_TRY_DONE(forget_others(r));
    KAC_TRY_DONE(op->download(r->dev, slot, r->evals.slot, entries * sizeof *slot));
    for (int32_t next = 0, count = 0; next < r->evals.capacity;) {
        next = gather_jobs(r, slot, next, src, dst, &count);
        KAC_TRY_DONE(op->upload(r->dev, r->jobs.src, src, batch * sizeof *src));
        KAC_TRY_DONE(op->upload(r->dev, r->jobs.dst, dst, batch * sizeof *dst));
        KAC_TRY_DONE(op->upload(r->dev, r->jobs.count, &count, sizeof count));
        KAC_TRY_DONE(run_jobs(r, r->evals.keys));
    }
done:
    free(slot);
    free(src);
    free(dst);
    return status;
}

kac_status kac_likelihood(kac_run *r, const uint8_t *x0, const int32_t *id, int32_t n,
                          double *host_out)
{
    const kac_ops *op = r->dev->ops;
    kac_particles copies = {
        .n = n, .stride = r->shape.stride, .x = r->y.x, .entry = r->y.entry};
    kac_clock clock = {0, 0};
    double *score = r->x.value; /* the run is over: its arrays serve as scratch */
    double *host = r->sort;

    for (int32_t i = 0; i < n; i++)
        host_out[i] = 0;
    for (clock.level = r->steps; clock.level > 0; clock.level--) {
        kac_renoise_args a = {
            .shape = r->shape,
            .levels = r->levels,
            .fixed = r->fixed,
            .x0 = x0,
            .id = id,
            .seed = r->set.seed,
            .n = n,
            .level = clock.level,
        };
        kac_level level[2];
        KAC_TRY(op->memory.upload(r->dev, r->clock, &clock, sizeof clock));
        KAC_TRY(op->memory.download(r->dev, level, &r->levels[clock.level - 1], sizeof level));
        KAC_TRY(r->process->renoise(r->dev, &a, copies.x));
        KAC_TRY(op->states.forget(r->dev, copies.entry, n));
        KAC_TRY(op->states.clear(r->dev, &r->evals));
        KAC_TRY(evaluate(r, &copies, &copies, NULL, NULL));
        KAC_TRY(r->process->score(r->dev, &a, copies.x, copies.entry, &r->evals, score));
        KAC_TRY(op->memory.download(r->dev, host, score, (size_t)n * sizeof *score));
        double share = 1 - level[0].mask / level[1].mask;
        for (int32_t i = 0; i < n; i++)
            host_out[i] += share * host[i];
    }
    return KAC_OK;
}
