/* particles_cpu.c -- values, banks and log-weights of children, and the survivors' arrays. */
#include "particles.h"

#include <stdbool.h>
#include <string.h>

#include "ops.h"

/* r of one completion: the weighted sum of its terms.  *bad becomes the first term that is NaN
 * or +INFINITY, if *bad < 0. */
static double reward_of(const kac_weigh_args *a, const double *weight, const float *terms,
                        int32_t *bad)
{
    double r = 0;
    bool worst = false;
    for (int32_t k = 0; k < a->n_terms; k++) {
        if (weight[k] == 0) continue;
        if (!(terms[k] < INFINITY) && *bad < 0) *bad = k;
        if (!isfinite(terms[k]))
            worst = true;
        else
            r = fma(weight[k], (double)terms[k], r);
    }
    return worst ? -(double)INFINITY : r;
}

/* Value of child c in units of r; *bad as reward_of. */
static double value_of(const kac_weigh_args *a, int64_t c, const kac_group *group, int32_t *bad)
{
    const double *weight = a->group_weight + (group - a->groups) * a->n_terms;
    const float *terms = a->terms + c * a->samples * a->n_terms;
    if (a->samples == 1) return reward_of(a, weight, terms, bad);

    double top = -(double)INFINITY, sum = 0;
    for (int32_t j = 0; j < a->samples; j++) {
        double r = reward_of(a, weight, terms + (int64_t)j * a->n_terms, bad);
        if (r > top) top = r;
    }
    if (top == -(double)INFINITY) return top;
    for (int32_t j = 0; j < a->samples; j++) {
        double r = reward_of(a, weight, terms + (int64_t)j * a->n_terms, bad);
        sum += kac_exp((r - top) / group->alpha);
    }
    return top + group->alpha * kac_log(sum / a->samples);
}

kac_status kac_cpu_weigh(kac_device *dev, const kac_weigh_args *a)
{
    (void)dev;
    const kac_particles *x = a->x, *y = a->y;
    double log_children = kac_log((double)a->children);
    int last = a->clock->level == 0;
    int64_t worst = INT64_MAX; /* lowest child with a bad term, then which term */

#pragma omp parallel for schedule(static) reduction(min : worst)
    for (int64_t c = 0; c < (int64_t)x->n * a->children; c++) {
        int64_t i = c / a->children;
        const kac_group *group = &a->groups[x->group[i]];
        kac_bank_stat child = {x->bank[i], x->stat[i]};
        int32_t bad = -1;
        y->value[c] = 0;
        if (a->terms != NULL) {
            y->value[c] = value_of(a, c, group, &bad);
            child = kac_bank(a->potential, y->value[c] / group->alpha, child, last);
        }
        y->bank[c] = child.bank;
        y->stat[c] = child.stat;
        y->log_w[c] = kac_child_log_w(x->log_w[i], x->bank[i], child.bank, log_children);
        if (bad >= 0 && c * a->n_terms + bad < worst) worst = c * a->n_terms + bad;
    }
    if (worst < INT64_MAX && !a->invalid_is_worst && a->fault->kind == KAC_FAULT_NONE)
        *a->fault = (kac_fault){KAC_FAULT_NAN, (int32_t)(worst / a->n_terms / a->children),
                                a->clock->level, (int32_t)(worst % a->n_terms)};
    return KAC_OK;
}

kac_status kac_cpu_survive(kac_device *dev, const kac_particles *y, int32_t children,
                           const int32_t *chosen, kac_particles *x, int32_t *scratch)
{
    (void)dev;
    size_t stride = (size_t)x->stride;
    KAC_REQUIRE(x->stride > 0 && x->stride == y->stride);

#pragma omp parallel for schedule(static)
    for (int32_t i = 0; i < x->n; i++) {
        int32_t c = chosen[i];
        memcpy(x->x + (size_t)i * stride, y->x + (size_t)c * stride, stride);
        x->bank[i] = y->bank[c];
        x->stat[i] = y->stat[c];
        x->value[i] = y->value[c];
        x->entry[i] = y->entry[c];
        scratch[i] = x->eve[c / children]; /* eve is still read by others */
    }
    memcpy(x->eve, scratch, (size_t)x->n * sizeof *x->eve);
    return KAC_OK;
}
