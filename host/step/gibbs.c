/* gibbs.c -- particle Gibbs: sweeps of conditional SMC.
 *
 * A sweep is a pass of smc in every group.  At its end one particle is drawn by weight, and its path,
 * the states from noise to the object, is retained: in the next sweep the first slot follows it,
 * and the others are drawn and selected given that it goes on.  The law of the path,
 * p* at its end, is left as it is by each sweep for any number of particles from two on, so the
 * bias of a small
 * group dies out with the sweeps.  Sweep 0 retains nothing yet.
 * Andrieu, Doucet and Holenstein, "Particle Markov chain Monte Carlo methods", J. R. Stat. Soc. B
 * 72(3), 2010.
 */
#include "run.h"

/* A part of `blocks` with `rows` each. */
static void *take(kac_run *r, const char *name, int32_t blocks, int64_t rows, size_t size)
{
    kac_part part = {
        .count = rows * blocks, .size = size, .share = KAC_PART_GROUPS, .blocks = blocks};
    return kac_part_take(r, "gibbs", name, part);
}

kac_status kac_gibbs_open(kac_run *r)
{
    int32_t burn_in = (int32_t)r->set.driver.burn_in;
    r->gibbs.first = burn_in > 0 ? burn_in : r->passes - 1;
    int32_t kept = r->passes - r->gibbs.first;
    size_t stride = (size_t)r->shape.stride;
    int64_t levels = r->steps;

    r->gibbs.retained = (kac_retained){
        .levels = r->steps,
        .path = take(r, "path", 1, r->groups * levels, stride),
        .held = take(r, "held", 1, r->groups, sizeof(int32_t)),
    };
    r->gibbs.children = take(r, "children", r->steps, r->y.n, stride);
    r->gibbs.chosen = kac_part_take(r, "gibbs", "chosen",
                                    (kac_part){.count = r->n * levels,
                                               .size = sizeof(int32_t),
                                               .share = KAC_PART_GROUPS,
                                               .blocks = r->steps,
                                               .through = &r->y.n});
    r->gibbs.object = take(r, "object", kept, r->groups, stride);
    r->gibbs.log_z = take(r, "log_z", 1, r->groups, sizeof(double));
    r->select.held = r->gibbs.retained.held;
    return r->short_of_memory ? KAC_ERR_NOMEM : KAC_OK; /* alloc left the sentence */
}

/* Children are kept as they were proposed: the path's last state is what the move reveals,
 * before anything is filled in. */
kac_status kac_gibbs_children(kac_run *r)
{
    size_t bytes = (size_t)r->y.n * (size_t)r->shape.stride;
    if (r->gibbs.children == NULL) return KAC_OK;
    uint8_t *to = r->gibbs.children + (size_t)(r->level - 1) * bytes;
    return r->dev->ops->memory.copy(r->dev, to, r->y.x, bytes);
}

kac_status kac_gibbs_survivors(kac_run *r)
{
    size_t bytes = (size_t)r->n * sizeof(int32_t);
    if (r->gibbs.chosen == NULL) return KAC_OK;
    int32_t *to = r->gibbs.chosen + (int64_t)(r->level - 1) * r->n;
    return r->dev->ops->memory.copy(r->dev, to, r->select.chosen, bytes);
}

/* Draws the path that the next sweep is given; the end of it may be a sample. */
static kac_status retain(kac_run *r)
{
    int64_t number = r->pass - r->gibbs.first;
    kac_retrace_args a = {
        .clock = r->clock,
        .groups = r->group,
        .n_groups = r->groups,
        .seed = r->set.seed,
        .x = &r->x,
        .children = r->gibbs.children,
        .chosen = r->gibbs.chosen,
        .n_children = r->children,
        .retained = &r->gibbs.retained,
        .log_z = r->pass == 0 ? r->gibbs.log_z : NULL,
    };
    if (number >= 0) a.object = r->gibbs.object + number * r->groups * r->shape.stride;
    return r->dev->ops->particles.retrace(r->dev, &a);
}

kac_status kac_gibbs_step(kac_run *r)
{
    if (r->level == 0) {
        r->pass++;
        KAC_TRY(kac_restart(r));
    }
    KAC_TRY(kac_guided_step(r));
    return r->level == 0 ? retain(r) : KAC_OK;
}
