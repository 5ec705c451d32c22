/* passes.h -- what refinement and particle Gibbs do with one particle: the scalar maths. */
#ifndef KAC_PASSES_H
#define KAC_PASSES_H

#include "particles.h"
#include "rng.h"
#include "select.h"
#include "types.h"

KAC_HD static inline void kac_particle_reset(const kac_reset_args *a, int32_t i)
{
    a->x->log_w[i] = 0;
    a->x->bank[i] = 0;
    a->x->stat[i] = kac_stat_start(a->potential);
    if (a->eves) a->x->eve[i] = i;
}

KAC_HD static inline void kac_group_reset(const kac_reset_args *a, int32_t g)
{
    a->groups[g].lambda = a->lambda;
    a->groups[g].log_z = 0;
    a->groups[g].dead = 0;
}

/* Weight of an object of this value in renew; `top` is the largest of the group. */
KAC_HD static inline uint64_t kac_renew_weight(double strength, double alpha, double value,
                                               double top)
{
    double below = value == top ? 0 : strength * ((value - top) / alpha);
    return value > -(double)INFINITY ? kac_weight(below, 0) : 0;
}

KAC_HD static inline kac_key kac_pass_key(uint64_t seed, const kac_clock *clock,
                                          const kac_group *group)
{
    kac_key key = {seed, (uint32_t)clock->move, (uint32_t)group->id, 0, 0};
    return key;
}

/* Object that slot j of the group goes on from; c: [count] running sums of its weights. */
KAC_HD static inline int32_t kac_renew_draw(const kac_renew_args *a, const kac_group *group,
                                            const uint64_t *c, int32_t j)
{
    uint64_t sum = c[group->count - 1];
    if (sum == 0) return j;
    kac_u32x4 draw =
        kac_draw(kac_pass_key(a->seed, a->clock, group), KAC_DRAW_RENEW, (uint32_t)j);
    return kac_first_above(c, group->count, kac_below(draw, 0, sum));
}

/* Point below `sum` of the path that is retained. */
KAC_HD static inline uint64_t kac_retain_point(const kac_retrace_args *a,
                                               const kac_group *group, uint64_t sum)
{
    kac_key key = kac_pass_key(a->seed, a->clock, group);
    return kac_below(kac_draw(key, KAC_DRAW_RETAIN, 0), 0, sum);
}

/* Log evidence of a sweep whose final weights sum to `sum` and are at most exp(top). */
KAC_HD static inline double kac_sweep_evidence(const kac_group *group, double top, uint64_t sum)
{
    if (sum == 0) return -(double)INFINITY;
    return group->log_z + kac_log_mean(top, sum, group->count);
}

#endif /* KAC_PASSES_H */
