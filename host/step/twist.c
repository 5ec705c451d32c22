/* twist.c -- the gradient of the value at the particles, which tilts what is proposed.
 *
 * Of vectors: tilt = d r(D(x)) / dx, D the denoiser's estimate of x0 at the particle's level: the
 * reward's gradient at D(x), pulled back through the denoiser.  Wu et al., "Practical and
 * asymptotically exact conditional sampling in diffusion models", NeurIPS 2023.
 */
#include "run.h"

bool kac_twist_is_on(const kac_run *r)
{
    return r->vectors && r->set.sampler.twist != KAC_TWIST_NONE;
}

kac_status kac_twist_check(const kac_run *r)
{
    const char *lacks = r->set.model.file;
    if (!kac_twist_is_on(r)) return KAC_OK;
    if (r->denoiser->vjp != NULL && kac_rewards_pulls(r->guide, &lacks)) return KAC_OK;
    return KAC_FAIL(KAC_ERR_INVALID, "sampler.twist.kind: %s has no gradient; use none", lacks);
}

kac_status kac_twist_evaluate(kac_run *r)
{
    const kac_states_ops *op = &r->dev->ops->states;
    if (!kac_twist_is_on(r)) return KAC_OK;
    KAC_TRY(op->locate(r->dev, &r->evals, r->x.entry, r->x.n, r->slot));
    for (int32_t first = 0; first < r->x.n; first += r->batch) {
        int32_t n = r->x.n - first < r->batch ? r->x.n - first : r->batch;
        kac_query x = {.tokens = r->x.x + (size_t)first * (size_t)r->shape.stride,
                       .stride = r->shape.stride,
                       .length = r->shape.length,
                       .capacity = n,
                       .levels = r->levels,
                       .clock = r->clock};
        KAC_TRY(kac_rewards_pull(r->guide, r->evals.logits, r->slot + first, n, r->pulled));
        KAC_TRY(kac_network_pull(r->denoiser, &x, r->pulled,
                                 r->tilt + (size_t)first * (size_t)r->slot_floats));
    }
    kac_lap(r, KAC_PHASE_REWARD);
    return KAC_OK;
}
