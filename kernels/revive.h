/* revive.h -- counting tries of the last levels: the scalar maths. */
#ifndef KAC_REVIVE_H
#define KAC_REVIVE_H

#include "particles.h"
#include "rng.h"
#include "select.h"

/* Whether as many tries of a group are alive as it has particles, and one more. */
KAC_HD static inline int kac_has_enough(const kac_revive_args *a, const kac_group *group)
{
    return group->alive > a->each;
}

/* Where the latest of `tries` tries is kept, of which `alive` are alive: an index in the group,
 * or -1.  Those alive sit from the front, the others from the back, where they give way. */
KAC_HD static inline int32_t kac_seat(int32_t each, int32_t tries, int32_t alive, int is_alive)
{
    int32_t at = is_alive ? alive - 1 : each - (tries - alive);
    if (is_alive) return at < each ? at : -1;
    return at >= alive ? at : -1;
}

/* log(N / K), which makes the mean over N slots a sum over K tries divided by K.  Tries are
 * independent draws of one law, so w phi of the first one is unbiased (w its weight, 0 where it
 * is dead), and so is its expectation given what is known at the end.  Where try T made N + 1
 * alive, any N of the T - 1 before it may have been those alive, all with the same probability:
 * the expectation is the mean of w phi over these T - 1.  Where the rounds ended
 * first, all tries are alike: it is the mean over all.  With T counted in it would be biased,
 * since T is alive for certain.
 * Jasra, Lee, Yau and Zhang, "The alive particle filter", arXiv 1304.0151, 2013; Le Gland and
 * Oudjane, "A sequential particle algorithm that keeps the particle system alive", 2006. */
KAC_HD static inline double kac_log_share(const kac_revive_args *a, const kac_group *group)
{
    int32_t tries = kac_has_enough(a, group) ? group->tries - 1 : group->tries;
    return kac_log((double)a->each / tries);
}

/* The group takes in the weights that its tries were drawn by: their largest logarithm is `top`,
 * and `sum` the sum of the integer ones. */
KAC_HD static inline void kac_settle_group(const kac_revive_args *a, int32_t g, double top,
                                           uint64_t sum)
{
    kac_group *group = &a->groups[g];
    group->offset = g * a->each;
    group->count = a->each;
    group->selected = 1;
    group->dead = group->alive == 0;
    group->log_z =
        group->dead ? -(double)INFINITY : group->log_z + kac_log_mean(top, sum, a->each);
}

/* Particle i becomes what is kept in its slot, but for its row and its eve, which others still
 * read. */
KAC_HD static inline void kac_settle_particle(const kac_revive_args *a, int32_t i, double share)
{
    const kac_particles *kept = a->kept;
    a->x->log_w[i] = kept->log_w[i] + share; /* -infinity stays */
    a->x->value[i] = kept->value[i];
    a->x->entry[i] = -1;
    a->chosen[i] = kept->eve[i] * a->children;
    a->scratch[i] = a->x->eve[kept->eve[i]];
}

/* The particle of a group that its try j begins as, an index in the group, from the running sums
 * c of the weights, whose last is `sum`. */
KAC_HD static inline int32_t kac_try_draw(const kac_revive_args *a, const kac_group *group,
                                          const uint64_t *c, uint64_t sum, int32_t j)
{
    kac_key key = {
        .seed = a->seed, .move = (uint32_t)a->clock->move, .group = (uint32_t)group->id};
    kac_u32x4 draw = kac_draw(key, KAC_DRAW_REVIVE, (uint32_t)j);
    return sum > 0 ? kac_first_above(c, a->each, kac_below(draw, 0, sum)) : j;
}

/* Row q of the tries begins as particle i of group g, but for the state. */
KAC_HD static inline void kac_begin_try(const kac_revive_args *a, int32_t q, int32_t i,
                                        int32_t g)
{
    const kac_particles *x = a->x;
    kac_particles *tries = a->tries;
    tries->entry[q] = x->entry[i];
    tries->bank[q] = x->bank[i];
    tries->stat[q] = x->stat[i];
    tries->log_w[q] = x->log_w[i] > -(double)INFINITY ? 0 : x->log_w[i];
    tries->eve[q] = i;
    tries->group[q] = g;
}

#endif /* KAC_REVIVE_H */
