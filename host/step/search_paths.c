/* search_paths.c -- depth-limited search: a step is a block of levels.
 *
 * In a block of d levels every particle has M children, these have M children, and so on; all
 * are kept.  The score of a leaf is the sum of the values on its path from the particle.  Each
 * particle goes on as its best leaf, and of the particles of a group those with the best scores.
 * A block of one level with all particles kept is a step of svdd_pm with rule argmax.  Published
 * as DSearch: Li et al., "Dynamic search for inference-time alignment in diffusion models",
 * arXiv 2503.02039, 2025.
 */
#include "search.h"

kac_status kac_paths_open(kac_run *r)
{
    kac_search *s = r->search;
    s->front = kac_take_particles(r, r->most.parents);
    s->best = kac_take(r, r->n, sizeof *s->best);
    s->chosen = kac_take(r, r->n, sizeof *s->chosen);
    return r->short_of_memory ? KAC_ERR_NOMEM : KAC_OK; /* alloc left the sentence */
}

/* One level: children y of all of x, with their scores. */
static kac_status grow(kac_run *r, kac_particles *x, kac_particles *y)
{
    const kac_ops *op = r->dev->ops;
    y->n = x->n * r->children;
    KAC_TRY(kac_evaluate_parents(r, x));
    KAC_TRY(op->particles.tick(r->dev, r->clock));
    KAC_TRY(kac_propose(r, x, r->children, y));
    kac_lap(r, KAC_PHASE_PROPOSE);
    r->level--;
    if (r->level == 0)
        KAC_TRY(kac_evaluate_objects(r, x, y));
    else
        KAC_TRY(kac_evaluate_children(r, x, y));
    KAC_TRY(kac_value_children(r, x, r->level == 0 ? 1 : r->samples, y));
    return op->search.path(r->dev, x, r->children, y);
}

/* The particles go on as leaves, `keep` of each group. */
static kac_status prune(kac_run *r, int32_t leaves, int32_t keep)
{
    const kac_ops *op = r->dev->ops;
    kac_prune_args a = {
        .groups = r->groups,
        .roots = r->n / r->groups,
        .leaves = leaves,
        .keep = keep,
        .score = r->y.log_w,
        .best = r->search->best,
        .chosen = r->search->chosen,
    };
    KAC_TRY(op->search.prune(r->dev, &a));
    r->n = r->x.n = r->groups * keep;
    KAC_TRY(op->particles.survive(r->dev, &r->y, leaves, a.chosen, &r->x, r->scratch));
    return op->search.spread(r->dev, r->groups, keep, r->group, r->x.group);
}

kac_status kac_paths_step(kac_run *r)
{
    const kac_search_ops *op = &r->dev->ops->search;
    int32_t depth = r->search->levels[r->step], leaves = 1;
    kac_particles *front[2] = {&r->y, &r->search->front}; /* the leaves end in y */
    kac_particles *x = &r->x;

    kac_lap(r, KAC_PHASE_OTHER);
    for (int32_t k = 1; k <= depth; k++) {
        kac_particles *y = front[(depth - k) % 2];
        KAC_TRY(grow(r, x, y));
        leaves *= r->children;
        if (k < depth)
            KAC_TRY(op->spread(r->dev, r->groups, y->n / r->groups, r->group, y->group));
        x = y;
    }
    KAC_TRY(prune(r, leaves, r->search->keep[r->step]));
    kac_lap(r, KAC_PHASE_SELECT);
    return KAC_OK;
}
