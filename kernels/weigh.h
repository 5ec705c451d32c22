/* weigh.h -- value, bank and log-weight of one child. */
#ifndef KAC_WEIGH_H
#define KAC_WEIGH_H

#include "objective.h"
#include "particles.h"

/* Value of child c in units of r; *bad as kac_objective_reward. */
KAC_HD static inline double kac_child_value(const kac_weigh_args *a, int64_t c, int32_t *bad)
{
    const kac_objective *o = &a->objective;
    int32_t g = a->x->group[c / a->children];
    double alpha = a->groups[g].alpha, top = -(double)INFINITY, sum = 0;
    const double *weight = a->group_weight + (int64_t)g * o->terms;
    if (a->terms == NULL) return 0;
    const float *terms = a->terms + c * a->samples * a->columns;
    if (a->samples == 1) return kac_objective_reward(o, weight, terms, bad);

    for (int32_t j = 0; j < a->samples; j++) {
        double r = kac_objective_reward(o, weight, terms + (int64_t)j * a->columns, bad);
        if (r > top) top = r;
    }
    if (top == -(double)INFINITY) return top;
    for (int32_t j = 0; j < a->samples; j++) {
        double r = kac_objective_reward(o, weight, terms + (int64_t)j * a->columns, bad);
        sum += kac_exp((r - top) / alpha);
    }
    return top + alpha * kac_log(sum / a->samples);
}

typedef struct kac_weighed {
    kac_bank_stat bank;
    double log_w;
} kac_weighed;

/* Child c where values count lambda r / alpha. */
KAC_HD static inline kac_weighed kac_child_weighed(const kac_weigh_args *a, int64_t c,
                                                   double lambda)
{
    int64_t i = c / a->children;
    const kac_group *group = &a->groups[a->x->group[i]];
    kac_weighed child = {{a->x->bank[i], a->x->stat[i]}, 0};
    if (a->terms != NULL)
        child.bank = kac_bank(a->potential, lambda * a->y->value[c] / group->alpha, child.bank,
                              a->clock->level == 0);
    child.log_w = kac_child_log_w(a->x->log_w[i], a->x->bank[i], child.bank.bank,
                                  kac_log((double)a->children));
    if (a->use_ratio && child.log_w > -(double)INFINITY) child.log_w += a->y->ratio[c];
    return child;
}

#endif /* KAC_WEIGH_H */
