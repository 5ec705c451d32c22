/* weigh.h -- value, gradient, bank and log-weight of one child. */
#ifndef KAC_WEIGH_H
#define KAC_WEIGH_H

#include "objective.h"
#include "particles.h"

/* Children of the parents in use. */
KAC_HD static inline int64_t kac_children_in_use(const kac_weigh_args *a)
{
    return (int64_t)kac_live(a->x->live, a->x->n) * a->children;
}

/* The parent of child c, by a division of 32 bits where they suffice. */
KAC_HD static inline int64_t kac_parent_of(int64_t c, int32_t children)
{
    if (children == 1) return c;
    return c >> 32 == 0 ? (int64_t)((uint32_t)c / (uint32_t)children) : c / children;
}

/* What being outside of bounds costs a completion, in units of r: only the end forbids. */
KAC_HD static inline double kac_price_of(const kac_weigh_args *a)
{
    return a->clock->level == 0 ? (double)INFINITY : a->price;
}

/* Value of child c in units of r, o = &a->objective or a copy; *bad as kac_objective_reward. */
KAC_HD static inline double kac_child_value(const kac_weigh_args *a, const kac_objective *o,
                                            int64_t c, int32_t *bad)
{
    int32_t g = a->x->group[kac_parent_of(c, a->children)];
    double alpha = a->groups[g].alpha, top = -(double)INFINITY, sum = 0;
    const double *weight = a->group_weight + (int64_t)g * o->terms;
    if (a->terms == NULL) return 0;
    const float *terms = a->terms + c * a->samples * a->columns;
    double price = kac_price_of(a);
    if (a->samples == 1) return kac_objective_reward(o, weight, terms, price, bad);

    for (int32_t j = 0; j < a->samples; j++) {
        double r = kac_objective_reward(o, weight, terms + (int64_t)j * a->columns, price, bad);
        if (r > top) top = r;
    }
    if (top == -(double)INFINITY) return top;
    for (int32_t j = 0; j < a->samples; j++) {
        double r = kac_objective_reward(o, weight, terms + (int64_t)j * a->columns, price, bad);
        sum += kac_exp((r - top) / alpha);
    }
    return top + alpha * kac_log(sum / a->samples);
}

/* The same where a child has one completion and r is the sum of its terms. */
KAC_HD static inline double kac_plain_value(const kac_weigh_args *a, const kac_objective *o,
                                            int64_t c, int32_t *bad)
{
    const double *weight =
        a->group_weight + (int64_t)a->x->group[kac_parent_of(c, a->children)] * o->terms;
    const float *row = a->terms + c * a->columns;
    kac_verdict v = kac_verdict_of(o, weight, row, bad);
    return kac_priced(&v, v.sum, kac_price_of(a));
}

/* dr / d columns first_column .. first_column + n - 1 of the terms of fresh row q; to: [n]. */
KAC_HD static inline void kac_row_cotangent(const kac_slope_args *a, const kac_objective *o,
                                            int32_t q, int32_t first_column, int32_t n,
                                            float *to)
{
    const double *weight = a->group_weight + (int64_t)a->group[a->fresh->src[q]] * o->terms;
    const float none[1] = {0};
    const float *row = none;
    double gradient[KAC_MAX_TERMS];
    if (a->terms != NULL) row = a->terms + (int64_t)(q - a->first) * a->columns;
    kac_objective_gradient(o, weight, row, gradient);
    for (int32_t j = 0; j < n; j++)
        to[j] = 0;
    for (int32_t k = 0; k < o->terms; k++) {
        int32_t j = o->term[k].column - first_column;
        if (j >= 0 && j < n) to[j] += (float)gradient[k];
    }
}

/* Bisection for the largest exponent up to 1 that is not too steep: first 1 itself is tried. */
typedef struct kac_bracket {
    double low, high, at; /* at: to be tried next */
} kac_bracket;

enum { KAC_TEMPER_PROBES = 31 };

KAC_HD static inline void kac_bracket_narrow(kac_bracket *b, int too_steep)
{
    if (too_steep)
        b->high = b->at;
    else
        b->low = b->at;
    b->at = b->low + (b->high - b->low) / 2;
}

typedef struct kac_weighed {
    kac_bank_stat bank;
    double log_w;
} kac_weighed;

/* A value in units of r / alpha where it counts lambda; -INFINITY stays what it is with lambda 0,
 * as it is what kac_bank knows invalid completions by. */
KAC_HD static inline double kac_tempered(double value, double lambda, double alpha)
{
    return value == -(double)INFINITY ? value : lambda * value / alpha;
}

/* What a child of particle i counts on the way whose completion is invalid: less than all
 * siblings whose completion is not; -INFINITY where there is none. */
KAC_HD static inline double kac_value_of_invalid(const kac_weigh_args *a, int64_t i)
{
    double least = (double)INFINITY;
    for (int64_t c = i * a->children; c < (i + 1) * a->children; c++)
        if (a->y->value[c] > -(double)INFINITY && a->y->value[c] < least)
            least = a->y->value[c];
    return least < (double)INFINITY ? least - a->price : -(double)INFINITY;
}

/* Child c where values count lambda r / alpha. */
KAC_HD static inline kac_weighed kac_child_weighed(const kac_weigh_args *a, int64_t c,
                                                   double lambda)
{
    int64_t i = kac_parent_of(c, a->children);
    const kac_group *group = &a->groups[a->x->group[i]];
    kac_weighed child = {{a->x->bank[i], a->x->stat[i]}, 0};
    int last = a->clock->level == 0;
    double value = a->y->value[c];
    if (!last && value == -(double)INFINITY) value = kac_value_of_invalid(a, i);
    if (a->terms != NULL)
        child.bank =
            kac_bank(a->potential, kac_tempered(value, lambda, group->alpha), child.bank, last);
    child.log_w = kac_child_log_w(a->x->log_w[i], a->x->bank[i], child.bank.bank,
                                  kac_log((double)a->children));
    if (a->use_ratio && child.log_w > -(double)INFINITY) child.log_w += a->y->ratio[c];
    return child;
}

#endif /* KAC_WEIGH_H */
