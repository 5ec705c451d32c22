/* step.c -- one guided step.
 *
 *     d = denoise(x)              carried from the step before where it was computed there
 *     y = propose(x, d)           M children for each particle
 *     v = value(y)                often one denoiser call on the children, carried along
 *     log w += bank(y) - bank(x) - log M
 *     select(y, log w)            among siblings, then within groups where the trigger fires
 *
 * Every algorithm is this step with the settings of its row (algorithms.c).  Feynman-Kac models
 * and their particle approximation: Del Moral, "Feynman-Kac Formulae", 2004, chapters 2 and 3.
 * Nothing here is read back by the host: counts, clock and decisions are device memory.
 */
#include <math.h>

#include "run.h"

static kac_status propose(kac_run *r)
{
    kac_propose_args a = {
        .shape = r->shape,
        .levels = r->levels,
        .clock = r->clock,
        .groups = r->group,
        .x = &r->x,
        .memo = &r->evals,
        .seed = r->set.seed,
        .children = r->children,
        .temperature = (float)r->set.process.temperature,
        .keep_entries = r->set.sampler.reuse && !r->denoiser->reads_time,
        .look_back = r->set.process.order == 2,
        .fault = r->fault,
        .y = &r->y,
    };
    if (kac_twist_is_on(r)) {
        a.twist.tilt = r->tilt;
        a.twist.row = r->row;
        a.twist.scale = r->set.sampler.twist_scale;
    }
    return r->process->propose(r->dev, &a);
}

/* `terms` NULL: this level has no value; J completions a child. */
static kac_status weigh(kac_run *r, const float *terms, int32_t samples)
{
    const kac_particle_ops *op = &r->dev->ops->particles;
    kac_weigh_args a = {
        .clock = r->clock,
        .levels = r->levels,
        .groups = r->group,
        .pool_first = r->pool_first,
        .pools = r->pools,
        .group_weight = r->group_weight,
        .x = &r->x,
        .terms = terms,
        .n_terms = kac_rewards_columns(r->guide),
        .children = r->children,
        .samples = samples,
        .potential = r->set.sampler.potential,
        .invalid_is_worst = r->set.sampler.invalid_is_worst,
        .use_ratio = r->set.sampler.twist_weighs,
        .temper =
            r->set.sampler.temper == KAC_TEMPERING_ESS ? KAC_TEMPER_ESS : KAC_TEMPER_LEVEL,
        .temper_below = (int32_t)lround(r->set.sampler.temper_ess * 65536),
        .fault = r->fault,
        .y = &r->y,
    };
    KAC_TRY(op->value(r->dev, &a));
    KAC_TRY(op->temper(r->dev, &a));
    return op->weigh(r->dev, &a);
}

static kac_status select_survivors(kac_run *r)
{
    const kac_particle_ops *op = &r->dev->ops->particles;
    KAC_TRY(op->select_parent(r->dev, &r->select));
    KAC_TRY(op->select_group(r->dev, &r->select));
    return op->survive(r->dev, &r->y, r->children, r->select.chosen, &r->x, r->scratch);
}

kac_status kac_run_step(kac_run *r)
{
    KAC_REQUIRE(r != NULL);
    if (r->step == r->steps)
        return KAC_FAIL(KAC_ERR_INVALID, "all %d steps of the run are done", r->steps);
    bool last = r->step + 1 == r->steps;
    bool valued = last || r->set.sampler.value != KAC_VALUE_NONE;

    kac_lap(r, KAC_PHASE_OTHER);
    KAC_TRY(kac_evaluate_parents(r));
    KAC_TRY(kac_twist_evaluate(r));
    KAC_TRY(r->dev->ops->particles.tick(r->dev, r->clock));
    KAC_TRY(propose(r));
    kac_lap(r, KAC_PHASE_PROPOSE);
    if (last)
        KAC_TRY(kac_evaluate_objects(r));
    else if (valued)
        KAC_TRY(kac_evaluate_children(r));
    KAC_TRY(weigh(r, valued ? r->terms : NULL, last ? 1 : r->samples));
    KAC_TRY(select_survivors(r));
    kac_lap(r, KAC_PHASE_SELECT);
    r->step++;
    return r->set.output.trace ? kac_record(r) : KAC_OK;
}
