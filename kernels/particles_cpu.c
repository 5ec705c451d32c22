/* particles_cpu.c -- values, banks and log-weights of children, and the survivors' arrays. */
#include <string.h>

#include "fault.h"
#include "ops.h"
#include "weigh.h"

kac_status kac_cpu_tick(kac_device *dev, kac_clock *clock)
{
    (void)dev;
    clock->move++;
    clock->level--;
    return KAC_OK;
}

/* ---- values and weights ------------------------------------------------------------------ */

kac_status kac_cpu_value(kac_device *dev, const kac_weigh_args *a)
{
    (void)dev;
    int64_t worst = INT64_MAX; /* lowest child with a bad term, then which term */
    int64_t n = kac_children_in_use(a);

#pragma omp parallel for schedule(static) reduction(min : worst)
    for (int64_t c = 0; c < n; c++) {
        int32_t bad = -1;
        a->y->value[c] = kac_child_value(a, &a->objective, c, &bad);
        if (bad >= 0 && c * KAC_MAX_TERMS + bad < worst) worst = c * KAC_MAX_TERMS + bad;
    }
    if (worst < INT64_MAX && !a->invalid_is_worst)
        kac_fault_note(a->fault,
                       (kac_trouble){KAC_FAULT_NAN,
                                     (int32_t)(worst / KAC_MAX_TERMS / a->children),
                                     a->clock->move, (int32_t)(worst % KAC_MAX_TERMS)});
    return KAC_OK;
}

kac_status kac_cpu_cotangent(kac_device *dev, const kac_slope_args *a, int32_t first_column,
                             int32_t n, float *out)
{
    (void)dev;
    for (int32_t q = a->first; q < *a->fresh->count && q < a->first + a->batch; q++)
        kac_row_cotangent(a, &a->objective, q, first_column, n,
                          out + (int64_t)(q - a->first) * n);
    return KAC_OK;
}

kac_status kac_cpu_axpy(kac_device *dev, int64_t n, float a, const float *x, float *y)
{
    (void)dev;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++)
        y[i] = fmaf(a, x[i], y[i]);
    return KAC_OK;
}

/* Whether the ESS of the children of slots first .. end - 1 at this lambda is too low. */
static bool is_too_steep(const kac_weigh_args *a, int64_t first, int64_t end, double lambda)
{
    kac_weight_sums sums = {0, 0, 0};
    double top = -(double)INFINITY;
    for (int64_t c = first * a->children; c < end * a->children; c++) {
        double log_w = kac_child_weighed(a, c, lambda).log_w;
        if (log_w > top) top = log_w;
    }
    if (top == -(double)INFINITY) return false;
    for (int64_t c = first * a->children; c < end * a->children; c++)
        kac_weight_add(&sums, kac_weight(kac_child_weighed(a, c, lambda).log_w, top));
    return kac_ess_is_below(&sums, (end - first) * a->children, a->temper_below);
}

/* The largest exponent from `lambda` to 1 that bisection finds not too steep. */
static double solve_lambda(const kac_weigh_args *a, int64_t first, int64_t end, double lambda)
{
    kac_bracket b = {lambda, 1, 1};
    for (int k = 0; k < KAC_TEMPER_PROBES && b.low != b.high; k++)
        kac_bracket_narrow(&b, is_too_steep(a, first, end, b.at));
    return b.low;
}

kac_status kac_cpu_temper(kac_device *dev, const kac_weigh_args *a)
{
    (void)dev;
    if (a->terms == NULL) return KAC_OK;
#pragma omp parallel for schedule(dynamic, 1)
    for (int32_t p = 0; p < a->pools; p++) {
        kac_group *first = &a->groups[a->pool_first[p]];
        kac_group *last = &a->groups[a->pool_first[p + 1] - 1];
        double lambda = a->levels[a->clock->level].temper;
        if (a->clock->level == 0)
            lambda = 1;
        else if (a->temper == KAC_TEMPER_ESS)
            lambda = solve_lambda(a, first->offset, last->offset + last->count, first->lambda);
        for (kac_group *g = first; g <= last; g++)
            g->lambda = lambda;
    }
    return KAC_OK;
}

kac_status kac_cpu_weigh(kac_device *dev, const kac_weigh_args *a)
{
    (void)dev;
    const kac_particles *y = a->y;
    int64_t n = kac_children_in_use(a);
#pragma omp parallel for schedule(static)
    for (int64_t c = 0; c < n; c++) {
        kac_weighed child =
            kac_child_weighed(a, c, a->groups[a->x->group[c / a->children]].lambda);
        y->bank[c] = child.bank.bank;
        y->stat[c] = child.bank.stat;
        y->log_w[c] = child.log_w;
    }
    return KAC_OK;
}

kac_status kac_cpu_survive(kac_device *dev, const kac_particles *y, int32_t children,
                           const int32_t *chosen, kac_particles *x, int32_t *scratch)
{
    (void)dev;
    size_t stride = (size_t)x->stride;
    KAC_REQUIRE(x->stride >= 0 && x->stride == y->stride);

#pragma omp parallel for schedule(static)
    for (int32_t i = 0; i < x->n; i++) {
        int32_t c = chosen[i];
        if (stride > 0) memcpy(x->x + (size_t)i * stride, y->x + (size_t)c * stride, stride);
        x->bank[i] = y->bank[c];
        x->stat[i] = y->stat[c];
        x->value[i] = y->value[c];
        x->entry[i] = y->entry[c];
        scratch[i] = x->eve[c / children]; /* eve is still read by others */
    }
    memcpy(x->eve, scratch, (size_t)x->n * sizeof *x->eve);
    return KAC_OK;
}

kac_status kac_cpu_regroup(kac_device *dev, const kac_level *levels, const kac_clock *clock,
                           int32_t n_groups, kac_group *groups, int32_t *group)
{
    return kac_cpu_spread(dev, n_groups, levels[clock->level].particles, groups, group);
}
