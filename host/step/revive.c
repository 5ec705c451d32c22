/* revive.c -- the last levels by the alive particle filter.
 *
 *     x = a particle of the group, drawn by weight      for each of N tries of a group
 *     x = propose(x, denoise(x))                        down the last levels, unguided
 *     log w = r(x) / alpha - bank                       once, of the object; dead: -infinity
 *
 * and again, in rounds, until N + 1 tries of the group are alive.  The first N of them are its
 * particles; what that does to their weights is said at kac_log_share in kernels/revive.h.
 *
 * Only the end forbids, so only there can a group die; but one level up most sites are decided,
 * and trying that one move again seldom helps.  So a try goes down several levels.  The host
 * queues every round; a group that has enough asks nothing more of the networks.
 */
#include "run.h"

/* States of a try that the denoiser is asked about; vectors are objects when they arrive. */
static int32_t states_of_try(const kac_run *r)
{
    return r->revive.levels + (r->vectors ? 0 : 1);
}

void kac_revive_open(kac_run *r)
{
    if (r->revive.levels == 0) return;
    r->revive.tries = kac_take_particles(r, r->n);
    r->revive.kept = kac_take_particles(r, r->n);
    r->revive.args = (kac_revive_args){
        .clock = r->clock,
        .level = r->revive.levels,
        .each = r->n / r->groups,
        .n_groups = r->groups,
        .groups = r->group,
        .seed = r->set.seed,
        .x = &r->x,
        .tries = &r->revive.tries,
        .kept = &r->revive.kept,
        .live = kac_take(r, 1, sizeof(int32_t)),
        .idle = kac_part_take(
            r, "revive", "idle",
            (kac_part){.count = 2, .size = sizeof(int64_t), .share = KAC_PART_SUM}),
        .asked = states_of_try(r),
        .weight = r->select.weight,
        .children = r->children,
        .chosen = r->select.chosen,
        .scratch = r->scratch,
    };
    r->revive.tries.live = r->revive.args.live;
}

/* The tries go down the levels to their objects y. */
static kac_status go_down(kac_run *r, kac_particles *tries, kac_particles *y)
{
    for (r->level = r->revive.levels; r->level > 0; r->level--) {
        bool last = r->level == 1;
        KAC_TRY(kac_evaluate_parents(r, tries));
        KAC_TRY(r->dev->ops->particles.tick(r->dev, r->clock));
        KAC_TRY(kac_propose(r, tries, 1, y));
        kac_lap(r, KAC_PHASE_PROPOSE);
        if (last) KAC_TRY(kac_evaluate_objects(r, tries, y));
        KAC_TRY(kac_weigh_children(r, tries, last ? r->terms : NULL, 1, y));
        if (!last) KAC_TRY(r->dev->ops->particles.follow(r->dev, y, tries));
        kac_lap(r, KAC_PHASE_SELECT);
    }
    return KAC_OK;
}

kac_status kac_revive_step(kac_run *r)
{
    const kac_particle_ops *op = &r->dev->ops->particles;
    const kac_revive_args *a = &r->revive.args;
    kac_particles y = r->y; /* one child for each try */
    y.n = r->n;

    for (int64_t round = 0; round < r->set.sampler.revive_rounds; round++) {
        KAC_TRY(op->recruit(r->dev, a));
        /* What is known of the particles goes with the tries; the memo may forget it. */
        KAC_TRY(r->dev->ops->states.forget(r->dev, r->x.entry, r->n));
        KAC_TRY(go_down(r, &r->revive.tries, &y));
        KAC_TRY(op->enlist(r->dev, a, &y));
    }
    return op->settle(r->dev, a);
}

void kac_revive_cost(const kac_run *r, int64_t *denoiser, int64_t *reward)
{
    int64_t tries = r->set.sampler.revive_rounds * r->set.sampler.particles;
    *denoiser = tries * states_of_try(r);
    *reward = tries * kac_rewards_networks(r->guide);
}
