/* particles_cpu.c -- values, banks and log-weights of children, and the survivors' arrays. */
#include "particles.h"

#include <string.h>

#include "objective.h"
#include "ops.h"

kac_status kac_cpu_tick(kac_device *dev, kac_clock *clock)
{
    (void)dev;
    clock->move++;
    clock->level--;
    return KAC_OK;
}

/* ---- values and weights ------------------------------------------------------------------ */

/* Value of child c in units of r; *bad as kac_objective_reward. */
static double value_of(const kac_weigh_args *a, int64_t c, const kac_group *group, int32_t *bad)
{
    const kac_objective *o = &a->objective;
    const double *weight = a->group_weight + (group - a->groups) * o->terms;
    const float *terms = a->terms + c * a->samples * a->columns;
    if (a->samples == 1) return kac_objective_reward(o, weight, terms, bad);

    double top = -(double)INFINITY, sum = 0;
    for (int32_t j = 0; j < a->samples; j++) {
        double r = kac_objective_reward(o, weight, terms + (int64_t)j * a->columns, bad);
        if (r > top) top = r;
    }
    if (top == -(double)INFINITY) return top;
    for (int32_t j = 0; j < a->samples; j++) {
        double r = kac_objective_reward(o, weight, terms + (int64_t)j * a->columns, bad);
        sum += kac_exp((r - top) / group->alpha);
    }
    return top + group->alpha * kac_log(sum / a->samples);
}

/* Children of the parents in use. */
static int64_t children_of(const kac_weigh_args *a)
{
    return (int64_t)kac_live(a->x->live, a->x->n) * a->children;
}

kac_status kac_cpu_value(kac_device *dev, const kac_weigh_args *a)
{
    (void)dev;
    int64_t worst = INT64_MAX; /* lowest child with a bad term, then which term */
    int64_t n = children_of(a);

#pragma omp parallel for schedule(static) reduction(min : worst)
    for (int64_t c = 0; c < n; c++) {
        const kac_group *group = &a->groups[a->x->group[c / a->children]];
        int32_t bad = -1;
        a->y->value[c] = a->terms != NULL ? value_of(a, c, group, &bad) : 0;
        if (bad >= 0 && c * KAC_MAX_TERMS + bad < worst) worst = c * KAC_MAX_TERMS + bad;
    }
    if (worst < INT64_MAX && !a->invalid_is_worst && a->fault->kind == KAC_FAULT_NONE)
        *a->fault = (kac_fault){KAC_FAULT_NAN, (int32_t)(worst / KAC_MAX_TERMS / a->children),
                                a->clock->move, (int32_t)(worst % KAC_MAX_TERMS)};
    return KAC_OK;
}

kac_status kac_cpu_cotangent(kac_device *dev, const kac_slope_args *a, int32_t first_column,
                             int32_t n, float *out)
{
    (void)dev;
    const kac_objective *o = &a->objective;
    static const float none[1] = {0};
    for (int32_t q = a->first; q < *a->fresh->count && q < a->first + a->batch; q++) {
        const double *weight = a->group_weight + (int64_t)a->group[a->fresh->src[q]] * o->terms;
        const float *row = none;
        if (a->terms != NULL) row = a->terms + (int64_t)(q - a->first) * a->columns;
        float *to = out + (int64_t)(q - a->first) * n;
        double gradient[KAC_MAX_TERMS];
        kac_objective_gradient(o, weight, row, gradient);
        for (int32_t j = 0; j < n; j++)
            to[j] = 0;
        for (int32_t k = 0; k < o->terms; k++) {
            int32_t j = o->term[k].column - first_column;
            if (j >= 0 && j < n) to[j] += (float)gradient[k];
        }
    }
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

/* Bank and log-weight of child c where values count lambda r / alpha. */
typedef struct weighed {
    kac_bank_stat bank;
    double log_w;
} weighed;

static weighed weigh_child(const kac_weigh_args *a, int64_t c, double lambda)
{
    int64_t i = c / a->children;
    const kac_group *group = &a->groups[a->x->group[i]];
    kac_bank_stat bank = {a->x->bank[i], a->x->stat[i]};
    if (a->terms != NULL)
        bank = kac_bank(a->potential, lambda * a->y->value[c] / group->alpha, bank,
                        a->clock->level == 0);
    double log_w =
        kac_child_log_w(a->x->log_w[i], a->x->bank[i], bank.bank, kac_log((double)a->children));
    if (a->use_ratio && log_w > -(double)INFINITY) log_w += a->y->ratio[c];
    return (weighed){bank, log_w};
}

/* Whether the ESS of the children of slots first .. end - 1 at this lambda is too low. */
static bool is_too_steep(const kac_weigh_args *a, int64_t first, int64_t end, double lambda)
{
    kac_weight_sums sums = {0, 0, 0};
    double top = -(double)INFINITY;
    for (int64_t c = first * a->children; c < end * a->children; c++) {
        double log_w = weigh_child(a, c, lambda).log_w;
        if (log_w > top) top = log_w;
    }
    if (top == -(double)INFINITY) return false;
    for (int64_t c = first * a->children; c < end * a->children; c++)
        kac_weight_add(&sums, kac_weight(weigh_child(a, c, lambda).log_w, top));
    return kac_ess_is_below(&sums, (end - first) * a->children, a->temper_below);
}

enum { TEMPER_BISECTIONS = 30 };

/* The largest exponent from `lambda` to 1 that bisection finds not too steep. */
static double solve_lambda(const kac_weigh_args *a, int64_t first, int64_t end, double lambda)
{
    double low = lambda, high = 1;
    if (!is_too_steep(a, first, end, high)) return high;
    for (int k = 0; k < TEMPER_BISECTIONS; k++) {
        double middle = low + (high - low) / 2;
        if (is_too_steep(a, first, end, middle))
            high = middle;
        else
            low = middle;
    }
    return low;
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
    int64_t n = children_of(a);
#pragma omp parallel for schedule(static)
    for (int64_t c = 0; c < n; c++) {
        weighed child = weigh_child(a, c, a->groups[a->x->group[c / a->children]].lambda);
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

kac_status kac_cpu_regroup(kac_device *dev, const kac_level *levels, const kac_clock *clock,
                           int32_t n_groups, kac_group *groups, int32_t *group)
{
    (void)dev;
    int32_t each = levels[clock->level].particles;
    for (int32_t g = 0; g < n_groups; g++) {
        groups[g].offset = g * each;
        groups[g].count = each;
        for (int32_t i = 0; i < each; i++)
            group[g * each + i] = g;
    }
    return KAC_OK;
}
