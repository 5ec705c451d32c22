/* step.c -- one guided step.
 *
 *     d = denoise(x)              carried from the step before where it was computed there
 *     g = twist(x, d)             a gradient that tilts the proposal, where the row has one
 *     y = propose(x, d, g)        M children for each particle
 *     v = value(y)                often one denoiser call on the children, carried along; a
 *                                 learned value reads y itself and needs none
 *     log w += bank(y) - bank(x) + log q(y) / q'(y) - log M
 *     select(y, log w)            among siblings, then within groups where the trigger fires
 *
 * With on_dead revive the last step is another, of several levels (revive.c).
 *
 * Every algorithm is this step with the settings of its row (algorithms.c).  Feynman-Kac models
 * and their particle approximation: Del Moral, "Feynman-Kac Formulae", 2004, chapters 2 and 3.
 * Nothing here is read back by the host: counts, clock and decisions are device memory.  Only
 * workers, and plug-ins that take host memory, are asked by the host, which waits for them in the
 * middle of the step.
 */
#include <math.h>

#include "run.h"
#include "search.h"

kac_status kac_propose(kac_run *r, const kac_particles *x, int32_t children, kac_particles *y)
{
    kac_propose_args a = {
        .shape = r->shape,
        .levels = r->levels,
        .clock = r->clock,
        .groups = r->group,
        .x = x,
        .memo = &r->evals,
        .seed = r->set.seed,
        .children = children,
        .temperature = (float)r->set.process.temperature,
        .keep_entries = r->set.sampler.reuse && !r->reads_time,
        .twist = {.tilt = kac_tilts(r) ? r->twist.tilt : NULL,
                  .row = r->census_entry,
                  .allowed = r->allowed,
                  .scale = r->set.sampler.twist_scale},
        .look_back = r->set.process.order == 2,
        .retained = r->gibbs.children != NULL ? &r->gibbs.retained : NULL,
        .fault = r->fault,
        .y = y,
    };
    if (r->set.process.langevin_together) {
        KAC_TRY(kac_share_norms(r, r->process->measure(r->dev, &a, r->norms)));
        a.norms = r->norms;
    }
    return r->process->propose(r->dev, &a);
}

kac_objective kac_learned_objective(void)
{
    return (kac_objective){.combine = KAC_COMBINE_SUM,
                           .terms = 1,
                           .term = {{.column = 0,
                                     .low = (double)NAN,
                                     .high = (double)NAN,
                                     .at_least = (double)NAN,
                                     .at_most = (double)NAN}}};
}

/* What being outside of bounds costs a completion on the way at least, in units of r (objective.h).
 * Weights that steer leave a share to what may come back: alpha.  Where values are only compared,
 * alpha says nothing of how rewards differ, and what is outside comes after all that is not.  Trees
 * have an order of their own for what is forbidden (wave.h). */
static double price_outside(const kac_run *r)
{
    const kac_settings *s = &r->set;
    if (kac_searches_trees(r)) return (double)INFINITY;
    return kac_reads_alpha(s) || s->sampler.weights == KAC_WEIGHTS_SCALED ? s->sampler.alpha
                                                                          : 1000;
}

/* `terms` NULL: this level has no value; J completions a child. */
static kac_weigh_args weigh_args(const kac_run *r, const float *terms, int32_t samples)
{
    bool learned = r->value != NULL && r->level > 1; /* else the reward's terms */
    bool restricts = r->allowed != NULL && r->set.sampler.twist == KAC_TWIST_NONE;
    return (kac_weigh_args){
        .clock = r->clock,
        .levels = r->levels,
        .groups = r->group,
        .pool_first = r->pool_first,
        .pools = r->pools,
        .objective = learned ? kac_learned_objective() : r->objective,
        .group_weight = learned ? r->value_weight : r->group_weight,
        .terms = terms,
        .columns = kac_rewards_columns(learned ? r->value : r->guide),
        .children = r->children,
        .samples = samples,
        .potential = r->set.sampler.potential,
        .price = price_outside(r),
        .invalid_is_worst = r->set.sampler.invalid_is_worst,
        .use_ratio = r->set.sampler.twist_weighs || restricts, /* which no key turns off */
        .temper =
            r->set.sampler.temper == KAC_TEMPERING_ESS ? KAC_TEMPER_ESS : KAC_TEMPER_LEVEL,
        .temper_below = (int32_t)lround(r->set.sampler.temper_ess * 65536),
        .fault = r->fault,
    };
}

kac_status kac_value_children(kac_run *r, const kac_particles *x, int32_t samples,
                              kac_particles *y)
{
    kac_weigh_args a = weigh_args(r, r->terms, samples);
    a.x = x;
    a.children = y->n / x->n;
    a.y = y;
    return r->dev->ops->particles.value(r->dev, &a);
}

kac_status kac_weigh_children(kac_run *r, const kac_particles *x, const float *terms,
                              int32_t samples, kac_particles *y)
{
    const kac_particle_ops *op = &r->dev->ops->particles;
    kac_weigh_args a = weigh_args(r, terms, samples);
    a.x = x;
    a.children = y->n / x->n;
    a.y = y;
    KAC_TRY(op->value(r->dev, &a));
    KAC_TRY(op->temper(r->dev, &a));
    return op->weigh(r->dev, &a);
}

/* The same of a pool that spans ranks, whose children this one has made of its particles with
 * `status`. */
static kac_status weigh_all(kac_run *r, kac_status status, const float *terms, int32_t samples)
{
    const kac_particle_ops *op = &r->dev->ops->particles;
    kac_weigh_args a = weigh_args(r, terms, samples);
    a.x = &r->x;
    a.y = &r->y;
    if (status == KAC_OK) status = op->value(r->dev, &a);
    KAC_TRY(kac_span_weigh(r, status, &a));
    KAC_TRY(op->temper(r->dev, &a));
    return op->weigh(r->dev, &a);
}

static kac_status select_survivors(kac_run *r)
{
    const kac_particle_ops *op = &r->dev->ops->particles;
    int32_t each = r->funnel[r->level - 1];
    KAC_TRY(op->select_parent(r->dev, &r->select));
    KAC_TRY(op->select_group(r->dev, &r->select));
    if (r->span != NULL) return kac_span_survive(r);
    if (each > 0) { /* fewer go on */
        r->n = r->x.n = r->groups * each;
        r->y.n = r->n * r->children;
    }
    KAC_TRY(op->survive(r->dev, &r->y, r->children, r->select.chosen, &r->x, r->scratch));
    if (each == 0) return KAC_OK;
    return op->regroup(r->dev, r->levels, r->clock, r->groups, r->group, r->x.group);
}

/* Children, and what they are worth, into run->terms where they are `valued`. */
static kac_status make_children(kac_run *r, bool last, bool valued)
{
    kac_lap(r, KAC_PHASE_OTHER);
    KAC_TRY(kac_evaluate_parents(r, &r->x));
    KAC_TRY(kac_evaluate_twist(r));
    KAC_TRY(r->dev->ops->particles.tick(r->dev, r->clock));
    KAC_TRY(kac_propose(r, &r->x, r->children, &r->y));
    KAC_TRY(kac_gibbs_children(r));
    kac_lap(r, KAC_PHASE_PROPOSE);
    if (last) return kac_evaluate_objects(r, &r->x, &r->y);
    if (r->set.sampler.value == KAC_VALUE_POSTERIOR_MEAN)
        return kac_evaluate_children(r, &r->x, &r->y);
    return valued ? kac_evaluate_unfinished(r, &r->y) : KAC_OK;
}

kac_status kac_guided_step(kac_run *r)
{
    bool last = r->level == 1;
    bool valued = last || r->set.sampler.value != KAC_VALUE_NONE;
    const float *terms = valued ? r->terms : NULL;
    int32_t samples = last ? 1 : r->samples;

    kac_status made = make_children(r, last, valued);
    if (r->span != NULL) {
        KAC_TRY(weigh_all(r, made, terms, samples));
    } else {
        KAC_TRY(made);
        KAC_TRY(kac_weigh_children(r, &r->x, terms, samples, &r->y));
    }
    KAC_TRY(select_survivors(r));
    KAC_TRY(kac_gibbs_survivors(r));
    kac_lap(r, KAC_PHASE_SELECT);
    r->level--;
    return KAC_OK;
}

/* A guided step whose operations are those of an earlier step, on the same memory: all but the
 * first two, in which working memory grows, and the last.  None where the host asks workers,
 * or plug-ins by copies, or other ranks. */
static bool is_like_the_last(const kac_run *r)
{
    return r->dev->records && r->span == NULL && r->step - r->resumed >= 2 && r->level > 1 &&
           r->set.sampler.funnel[0] == '\0' && !r->denoiser->waits &&
           !kac_rewards_wait(r->guide) &&
           !(r->set.process.langevin_together && kac_ranks_size(r->ranks) > 1);
}

/* Records a guided step instead of making it. */
static kac_status record_step(kac_run *r, kac_recording *kept)
{
    const kac_memory_ops *op = &r->dev->ops->memory;
    kac_calls before = r->calls;
    KAC_TRY(op->record(r->dev));
    kac_status made = kac_guided_step(r);
    kac_status stopped = op->stop(r->dev, &kept->step);
    if (made != KAC_OK) return made;
    r->level++;
    kept->denoiser_asked = r->calls.denoiser_asked - before.denoiser_asked;
    kept->reward_asked = r->calls.reward_asked - before.reward_asked;
    r->calls = before;
    return stopped;
}

/* One step, from the recording where there is one: a GPU gets it by one call. */
static kac_status take_step(kac_run *r)
{
    if (r->level == r->revive.levels) return kac_revive_step(r);
    if (!is_like_the_last(r)) return kac_guided_step(r);
    kac_recording *kept = &r->recording[kac_tilts(r)];
    if (kept->step == NULL) KAC_TRY(record_step(r, kept));
    KAC_TRY(r->dev->ops->memory.play(r->dev, kept->step));
    r->calls.denoiser_asked += kept->denoiser_asked;
    r->calls.reward_asked += kept->reward_asked;
    r->level--;
    return KAC_OK;
}

/* The next step, whatever leads it, and its line of the trace. */
static kac_status lead_step(kac_run *r)
{
    switch (r->set.driver.kind) {
    case KAC_DRIVER_NONE: KAC_TRY(take_step(r)); break;
    case KAC_DRIVER_SEARCH: KAC_TRY(kac_search_step(r)); break;
    case KAC_DRIVER_REFINE: KAC_TRY(kac_refine_step(r)); break;
    case KAC_DRIVER_GIBBS: KAC_TRY(kac_gibbs_step(r)); break;
    }
    r->step++;
    if (r->trajectories != NULL) KAC_TRY(kac_trajectories_step(r));
    return r->set.output.trace ? kac_trace_record(r) : KAC_OK;
}

kac_status kac_run_step(kac_run *r)
{
    KAC_REQUIRE(r != NULL);
    KAC_TRY(kac_enter_run(r));
    if (r->step == r->moves)
        return KAC_FAIL(KAC_ERR_INVALID, "all %d steps of the run are done", r->moves);
    return kac_end_where_failed(r, lead_step(r));
}
