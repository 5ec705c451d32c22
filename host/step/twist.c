/* twist.c -- the gradient that tilts proposals, at each distinct particle state.
 *
 *     p = soften(x), g = dr / dp                      the reward backwards
 *     c = dr / d logits = p (g - p.g)                 at masked sites
 *     u = c . d logits / d x                          the denoiser backwards
 *     tilt = g (a site's own letter) + u (what it tells the denoiser about the others)
 *
 * Wu et al., "Practical and asymptotically exact conditional sampling in diffusion models",
 * NeurIPS 2023, for continuous states; discrete states as in first-order guidance of Nisonoff et
 * al., ICLR 2025.  Whether a site is revealed is left to the denoiser's process; which letter it
 * gets is tilted.  Of vectors and graphs c is that of the estimate of x_0, and the tilt is dr / dx
 * by all ways; moves that draw nothing, and the corrector's, go without.
 */
#include "run.h"

/* The distinct particle states: rows of x, and the row of the tilt that belongs to each. */
static kac_status find_distinct(kac_run *r)
{
    const kac_states_ops *op = &r->dev->ops->states;
    kac_rows rows = {r->x.x, NULL, 0, r->n};
    r->census.reuse =
        r->targets == 1; /* groups that seek different things have their own tilts */
    KAC_TRY(op->clear(r->dev, &r->census));
    KAC_TRY(op->forget(r->dev, r->census_entry, r->n));
    return op->find(r->dev, &r->census, &rows, r->census_entry, &r->census_fresh, &r->made[2]);
}

/* u: how the gradient c of the logits moves the denoiser's input. */
static kac_status through_denoiser(kac_run *r, int32_t first)
{
    kac_query q = {
        .tokens = r->x.x,
        .stride = r->shape.stride,
        .length = r->shape.length,
        .src = r->census_fresh.src + first,
        .count = r->census_fresh.count,
        .first = first,
        .capacity = r->batch,
        .levels = r->levels,
        .clock = r->clock,
    };
    double w = r->set.model.guidance;
    int64_t floats = (int64_t)r->batch * r->shape.length * (r->shape.states + 1);
    KAC_TRY(kac_network_vjp(r->denoiser, &q, r->twist.slope, r->twist.input));
    if (r->unconditional == NULL) return KAC_OK;

    /* (1 + w) u - w u of the unconditional denoiser */
    const kac_particle_ops *op = &r->dev->ops->particles;
    KAC_TRY(kac_network_vjp(r->unconditional, &q, r->twist.slope, r->twist.other));
    KAC_TRY(op->axpy(r->dev, floats, (float)w, r->twist.input, r->twist.input));
    return op->axpy(r->dev, floats, (float)-w, r->twist.other, r->twist.input);
}

/* Classifier guidance: the gradient of a network at the noisy states themselves. */
static kac_status classify_batch(kac_run *r, int32_t first)
{
    kac_slope_args a = {
        .shape = r->shape,
        .levels = r->levels,
        .clock = r->clock,
        .groups = r->group,
        .group = r->x.group,
        .objective = kac_learned_objective(),
        .group_weight = r->value_weight,
        .columns = kac_rewards_columns(r->classifier),
        .x = r->x.x,
        .fresh = &r->census_fresh,
        .first = first,
        .batch = r->batch,
        .reward = r->twist.reward,
        .direct = 1,
    };
    KAC_TRY(kac_rewards_gradient(r->classifier, &a, r->twist.reward));
    kac_lap(r, KAC_PHASE_REWARD);
    return r->process->tilt(r->dev, &a, r->twist.tilt);
}

static kac_status twist_batch(kac_run *r, int32_t first)
{
    kac_complete_args soften = {
        .shape = r->shape,
        .levels = r->levels,
        .clock = r->clock,
        .groups = r->group,
        .x = r->x.x,
        .entry = r->x.entry,
        .memo = &r->evals,
        .fresh = &r->census_fresh,
        .fault = r->fault,
        .n = r->n,
        .first = first,
        .batch = r->batch,
        .children = 1,
        .allowed = r->allowed,
        .temperature = (float)r->set.process.temperature,
    };
    kac_slope_args a = {
        .shape = r->shape,
        .levels = r->levels,
        .clock = r->clock,
        .groups = r->group,
        .group = r->x.group,
        .objective = r->objective,
        .group_weight = r->group_weight,
        .terms = r->batch_terms,
        .columns = kac_rewards_columns(r->guide),
        .x = r->x.x,
        .fresh = &r->census_fresh,
        .first = first,
        .batch = r->batch,
        .temperature = (float)r->set.process.temperature,
        .soft = r->twist.soft,
        .reward = r->twist.reward,
        .direct = r->set.sampler.twist_path != KAC_TWIST_DENOISER,
    };
    KAC_TRY(r->process->soften(r->dev, &soften, r->twist.soft));
    KAC_TRY(kac_rewards_score_soft(r->guide, r->twist.soft, r->census_fresh.count, first,
                                   r->batch, r->batch_terms));
    KAC_TRY(kac_rewards_gradient(r->guide, &a, r->twist.reward));
    kac_lap(r, KAC_PHASE_REWARD);
    if (r->set.sampler.twist_path != KAC_TWIST_DIRECT) {
        KAC_TRY(r->process->slope(r->dev, &a, r->twist.slope));
        KAC_TRY(through_denoiser(r, first));
        a.input = r->twist.input;
        kac_lap(r, KAC_PHASE_DENOISER);
    }
    return r->process->tilt(r->dev, &a, r->twist.tilt);
}

bool kac_tilts(const kac_run *r)
{
    return r->twist.tilt != NULL && r->draws[r->level];
}

kac_status kac_evaluate_twist(kac_run *r)
{
    if (r->set.sampler.twist == KAC_TWIST_NONE || !kac_tilts(r)) return KAC_OK;
    KAC_TRY(find_distinct(r));
    for (int32_t first = 0; first < r->n; first += r->batch)
        KAC_TRY(r->classifier != NULL ? classify_batch(r, first) : twist_batch(r, first));
    return KAC_OK;
}
