/* objective.h -- from the terms of an object to its reward r: the scalar maths.
 *
 * Notation: t_k a term, w_k its weight in the group, d_k its desirability, or t_k where it has
 * none.  Only terms of weight other than 0 enter r:
 *   sum          sum_k w_k d_k
 *   product      prod_k d_k^w_k
 *   min          min_k w_k d_k
 *   lower_bound  m - kappa s, with m = sum_k w_k d_k / sum_k w_k and
 *                s^2 = sum_k w_k (d_k - m)^2 / sum_k w_k
 * Without any such term r is 0 (product: 1).  Desirabilities and their product: G. Derringer and
 * R. Suich, "Simultaneous optimization of several response variables", J. Qual. Technol. 12(4),
 * 1980.
 *
 * Bounds forbid at the end: r is -INFINITY outside.  On the way a completion outside says nothing
 * certain, and it must not stop guiding: there r of the terms counts, as if there were no bounds,
 * less a price that is the higher the farther outside they are.
 */
#ifndef KAC_OBJECTIVE_H
#define KAC_OBJECTIVE_H

#include <math.h>

#include "exact.h"
#include "hd.h"
#include "types.h"

/* Whether a bound makes objects forbidden whatever the weight. */
KAC_HD static inline int kac_term_is_bounded(const kac_term *t)
{
    return !isnan(t->at_least) || !isnan(t->at_most);
}

/* Bounds are rounded as terms are, or a share of 0.6 would not be at most 0.6. */
KAC_HD static inline int kac_is_outside(const kac_term *t, float x)
{
    return x < (float)t->at_least || x > (float)t->at_most;
}

/* What a term counts that is outside its bounds: 1 + 2 log(1 + e), e its distance from what is
 * allowed in units of the distance between the bounds, or of the bound's size where there is one
 * (1 where that is 0).  Its slope is steep near the bound and never 0, so it leads back from any
 * distance. */
KAC_HD static inline double kac_outside(const kac_term *t, double x)
{
    double bound = x < t->at_least ? t->at_least : t->at_most;
    double unit = t->at_most > t->at_least ? t->at_most - t->at_least : fabs(bound);
    if (unit == 0) unit = 1;
    return 1 + 2 * kac_log(1 + fabs(x - bound) / unit);
}

/* d of a term x: a ramp from 0 at low to 1 at high, flat outside. */
KAC_HD static inline double kac_desirability(const kac_term *t, double x)
{
    if (isnan(t->low)) return x;
    double d = (x - t->low) / (t->high - t->low);
    return d < 0 ? 0 : d > 1 ? 1 : d;
}

/* Its derivative, 0 at the corners. */
KAC_HD static inline double kac_desirability_slope(const kac_term *t, double x)
{
    if (isnan(t->low)) return 1;
    double d = (x - t->low) / (t->high - t->low);
    return d > 0 && d < 1 ? 1 / (t->high - t->low) : 0;
}

/* What the terms that are looked at (weight other than 0, or bounded) say of an object. */
typedef struct kac_verdict {
    double sum;      /* of those that enter r, as if there were no bounds */
    double outside;  /* of those outside their bounds (kac_outside); 0: there are none */
    int32_t invalid; /* one is not finite */
} kac_verdict;

/* *bad becomes the first such term that is NaN or +INFINITY, if *bad < 0.  One pass, in which a
 * term is read whatever its weight: on a GPU reading one after the other takes longer than all
 * else. */
KAC_HD static inline kac_verdict kac_verdict_of(const kac_objective *o, const double *weight,
                                                const float *row, int32_t *bad)
{
    kac_verdict v = {0, 0, 0};
    for (int32_t k = 0; k < o->terms; k++) {
        const kac_term *t = &o->term[k];
        if (t->column < 0) continue;
        double x = (double)row[t->column], w = weight[k];
        if (w == 0 && !kac_term_is_bounded(t)) continue;
        if (!(x < (double)INFINITY) && *bad < 0) *bad = k;
        if (!isfinite(x)) v.invalid = 1;
        if (kac_is_outside(t, row[t->column])) v.outside += kac_outside(t, x);
        if (w != 0) v.sum = fma(w, kac_desirability(t, x), v.sum);
    }
    return v;
}

/* r of an object of that verdict, which without bounds were `bare`.  What r gains outside is of the
 * order of r, and is not to outweigh the bounds: an eighth of it is added to the price. */
KAC_HD static inline double kac_priced(const kac_verdict *v, double bare, double price)
{
    if (v->invalid) return -(double)INFINITY;
    return v->outside > 0 ? bare - (price + fabs(bare) / 8) * v->outside : bare;
}

/* The terms that enter r: their number n, desirabilities and weights. */
typedef struct kac_entering {
    int32_t n;
    int32_t index[KAC_MAX_TERMS]; /* in the objective */
    double w[KAC_MAX_TERMS], d[KAC_MAX_TERMS];
} kac_entering;

KAC_HD static inline void kac_enter(const kac_objective *o, const double *weight,
                                    const float *row, kac_entering *e)
{
    e->n = 0;
    for (int32_t k = 0; k < o->terms; k++) {
        const kac_term *t = &o->term[k];
        if (t->column < 0 || weight[k] == 0) continue;
        e->index[e->n] = k;
        e->w[e->n] = weight[k];
        e->d[e->n++] = kac_desirability(t, (double)row[t->column]);
    }
}

KAC_HD static inline double kac_product_of(const kac_entering *e)
{
    double log_r = 0;
    for (int32_t i = 0; i < e->n; i++) {
        if (e->d[i] <= 0) return 0;
        log_r = fma(e->w[i], kac_log(e->d[i]), log_r);
    }
    return kac_exp(log_r);
}

/* Index in e of the least w d, the first on ties; e->n > 0. */
KAC_HD static inline int32_t kac_least_of(const kac_entering *e)
{
    int32_t least = 0;
    for (int32_t i = 1; i < e->n; i++)
        if (e->w[i] * e->d[i] < e->w[least] * e->d[least]) least = i;
    return least;
}

typedef struct kac_ensemble {
    double weight, mean, deviation;
} kac_ensemble;

KAC_HD static inline kac_ensemble kac_ensemble_of(const kac_entering *e)
{
    kac_ensemble a = {0, 0, 0};
    double square = 0;
    for (int32_t i = 0; i < e->n; i++) {
        a.weight += e->w[i];
        a.mean = fma(e->w[i], e->d[i], a.mean);
    }
    a.mean /= a.weight;
    for (int32_t i = 0; i < e->n; i++)
        square = fma(e->w[i], (e->d[i] - a.mean) * (e->d[i] - a.mean), square);
    a.deviation = sqrt(square / a.weight);
    return a;
}

/* r of finite terms as if there were no bounds; sum: kac_verdict. */
KAC_HD static inline double kac_combined(const kac_objective *o, const double *weight,
                                         const float *row, double sum)
{
    kac_entering e;
    if (o->combine == KAC_COMBINE_SUM) return sum;
    kac_enter(o, weight, row, &e);
    if (o->combine == KAC_COMBINE_PRODUCT) return kac_product_of(&e);
    if (e.n == 0) return 0;
    if (o->combine == KAC_COMBINE_MIN) {
        int32_t least = kac_least_of(&e);
        return e.w[least] * e.d[least];
    }
    kac_ensemble a = kac_ensemble_of(&e);
    return fma(-o->kappa, a.deviation, a.mean);
}

/* r of an object whose terms are `row`, weighed by weight[k] for term k; being outside of bounds
 * costs `price` (INFINITY: it is forbidden) times kac_verdict.outside.  -INFINITY where it is
 * invalid; *bad as there. */
KAC_HD static inline double kac_objective_reward(const kac_objective *o, const double *weight,
                                                 const float *row, double price, int32_t *bad)
{
    kac_verdict v = kac_verdict_of(o, weight, row, bad);
    if (v.invalid || (v.outside > 0 && price == (double)INFINITY)) return -(double)INFINITY;
    return kac_priced(&v, kac_combined(o, weight, row, v.sum), price);
}

/* dr / d of the terms that enter, in the order of e. */
KAC_HD static inline void kac_combine_slopes(const kac_objective *o, const kac_entering *e,
                                             double *out)
{
    int32_t least = o->combine == KAC_COMBINE_MIN && e->n > 0 ? kac_least_of(e) : 0;
    double r = o->combine == KAC_COMBINE_PRODUCT ? kac_product_of(e) : 0;
    kac_ensemble a = {1, 0, 0};
    if (o->combine == KAC_COMBINE_LOWER_BOUND && e->n > 0) a = kac_ensemble_of(e);
    for (int32_t i = 0; i < e->n; i++) {
        double lean = a.deviation > 0 ? (e->d[i] - a.mean) / a.deviation : 0;
        out[i] = e->w[i];
        if (o->combine == KAC_COMBINE_PRODUCT) out[i] = r > 0 ? e->w[i] * r / e->d[i] : 0;
        if (o->combine == KAC_COMBINE_MIN && i != least) out[i] = 0;
        if (o->combine == KAC_COMBINE_LOWER_BOUND)
            out[i] = e->w[i] / a.weight * (1 - o->kappa * lean);
    }
}

/* gradient[k] = dr / dt_k, k in 0 .. o->terms - 1; zeros where a term that enters is not finite.
 * Bounds are not looked at: they forbid at the end and have no slope, and outside them the slope
 * of r may lead back.  At a corner of a ramp it is 0, where terms tie for the least it is the
 * first's, and where s = 0 that of m. */
KAC_HD static inline void kac_objective_gradient(const kac_objective *o, const double *weight,
                                                 const float *row, double *gradient)
{
    kac_entering e;
    double slope[KAC_MAX_TERMS];
    int finite = 1;
    kac_enter(o, weight, row, &e);
    kac_combine_slopes(o, &e, slope);
    for (int32_t k = 0; k < o->terms; k++)
        gradient[k] = 0;
    for (int32_t i = 0; i < e.n; i++)
        finite = finite && isfinite(row[o->term[e.index[i]].column]);
    for (int32_t i = 0; i < e.n && finite; i++) {
        const kac_term *t = &o->term[e.index[i]];
        gradient[e.index[i]] = slope[i] * kac_desirability_slope(t, (double)row[t->column]);
    }
}

#endif /* KAC_OBJECTIVE_H */
