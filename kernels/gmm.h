/* gmm.h -- denoiser of a Gaussian mixture, exact posterior means: packing, and one row.
 *
 * Notation: component k has weight w_k, mean m_k and diagonal variance S_k; x = a x_0 + b e, so
 * x given k is normal with mean a m_k and variance c_k = a^2 S_k + b^2.  Then
 *
 *     E[x_0 | x] = sum_k p_k E_k,    E_k = m_k + a S_k (x - a m_k) / c_k,
 *
 * p_k the posterior of k given x; the gradient of log p_k is g_k - sum_j p_j g_j with
 * g_k = - (x - a m_k) / c_k.
 */
#ifndef KAC_GMM_H
#define KAC_GMM_H

#include <math.h>
#include <stdlib.h>

#include "exact.h"
#include "pack.h"
#include "query.h"
#include "team.h"

struct kac_net {
    int32_t length;     /* d */
    int32_t components; /* K */
    double *log_weight; /* [K] */
    double *mean;       /* [K][d] */
    double *variance;   /* [K][d] */
};

static inline void kac_gmm_drop(kac_device *dev, kac_net *net)
{
    if (net == NULL) return;
    dev->ops->memory.release(dev, net->log_weight);
    dev->ops->memory.release(dev, net->mean);
    dev->ops->memory.release(dev, net->variance);
    free(net);
}

static inline kac_status kac_gmm_pack(kac_device *dev, const kac_gmm_weights *host_weights,
                                      kac_net **out)
{
    const kac_gmm_weights *w = host_weights;
    const size_t components = (size_t)w->components, d = (size_t)w->length;
    const size_t n = components * d;
    kac_status status = KAC_OK;
    double *work = (double *)malloc((components + 2 * n) * sizeof(double));
    kac_net *net = kac_net_new(sizeof *net);
    double *mean = work + components, *variance = mean + n;
    KAC_TRY_DONE(net != NULL && work != NULL ? KAC_OK : KAC_ERR_NOMEM);
    for (size_t k = 0; k < components; k++)
        work[k] = kac_log((double)w->weights[k]);
    for (size_t i = 0; i < n; i++) {
        mean[i] = (double)w->means[i];
        variance[i] = (double)w->variances[w->round ? i / d : i];
    }
    net->length = w->length;
    net->components = w->components;
    KAC_TRY_DONE(KAC_PACK(dev, net->log_weight, work, components * sizeof(double)));
    KAC_TRY_DONE(KAC_PACK(dev, net->mean, mean, n * sizeof(double)));
    KAC_TRY_DONE(KAC_PACK(dev, net->variance, variance, n * sizeof(double)));
    *out = net;
    net = NULL;
done:
    kac_gmm_drop(dev, net);
    free(work);
    return status;
}

/* ---- one level -------------------------------------------------------------------------- */

/* What the level of a query makes of the mixture. */
typedef struct kac_gmm_level {
    double *gain;       /* [K][d] a S_k / c_k */
    double *precision;  /* [K][d] 1 / c_k */
    double *log_c;      /* [K][d] */
    double *log_factor; /* [K] log w_k - 1/2 sum log c_k */
} kac_gmm_level;

static inline size_t kac_gmm_level_bytes(const kac_net *net)
{
    const size_t components = (size_t)net->components;
    return components * (3 * (size_t)net->length + 1) * sizeof(double);
}

static inline kac_gmm_level kac_gmm_level_in(const kac_net *net, double *memory)
{
    const int64_t n = (int64_t)net->components * net->length;
    kac_gmm_level level = {memory, memory + n, memory + 2 * n, memory + 3 * n};
    return level;
}

/* a and b. */
KAC_HD static inline const kac_gaussian_level *kac_gmm_noise(const kac_query *q)
{
    return &q->levels[q->clock->level].gaussian;
}

/* Component k at the level of `q`; a part is a number. */
KAC_HD static inline void kac_gmm_component(const kac_net *net, kac_team t, const kac_query *q,
                                            int64_t k, const kac_gmm_level *level)
{
    const double scale = kac_gmm_noise(q)->scale, noise = kac_gmm_noise(q)->noise;
    const int64_t first = k * net->length;
    double logs = 0;
    KAC_PARTS(l, t, net->length)
    {
        const int64_t i = first + l;
        double c = fma(scale * scale, net->variance[i], noise * noise);
        level->gain[i] = scale * net->variance[i] / c;
        level->precision[i] = 1 / c;
        level->log_c[i] = kac_log(c);
    }
    kac_meet(t);
    for (int32_t l = 0; l < net->length; l++)
        logs += level->log_c[first + l];
    if (t.rank == 0) level->log_factor[k] = fma(-0.5, logs, net->log_weight[k]);
}

/* ---- one row ---------------------------------------------------------------------------- */

/* What a row needs besides the level. */
typedef struct kac_gmm_row {
    const kac_gmm_level *level;
    double scale;      /* a */
    const float *x;    /* [d] */
    double *posterior; /* [K] p_k */
    double *dot;       /* [K] cotangent times E_k; before that, log posteriors */
    double *sum;       /* [d] */
} kac_gmm_row;

static inline size_t kac_gmm_row_bytes(const kac_net *net)
{
    return (2 * (size_t)net->components + (size_t)net->length) * sizeof(double);
}

KAC_HD static inline kac_gmm_row kac_gmm_row_in(const kac_net *net, const kac_gmm_level *level,
                                                const kac_query *q, int32_t j, double *memory)
{
    double *dot = memory + net->components;
    kac_gmm_row row = {level, kac_gmm_noise(q)->scale, kac_query_vector(q, j), memory,
                       dot,   dot + net->components};
    return row;
}

/* x - a m_k, and E_k, at number l; `at` is k d + l. */
KAC_HD static inline double kac_gmm_offset(const kac_net *net, const kac_gmm_row *r, int64_t at,
                                           int64_t l)
{
    return fma(-r->scale, net->mean[at], (double)r->x[l]);
}

KAC_HD static inline double kac_gmm_mean(const kac_net *net, const kac_gmm_row *r, int64_t at,
                                         int64_t l)
{
    return fma(r->level->gain[at], kac_gmm_offset(net, r, at, l), net->mean[at]);
}

/* r->posterior of the components given x; a part is a component. */
KAC_HD static inline void kac_gmm_infer(const kac_net *net, kac_team t, const kac_gmm_row *r)
{
    const int32_t components = net->components;
    double top = -(double)INFINITY, sum = 0;
    KAC_PARTS(k, t, components)
    {
        const int64_t at = k * net->length;
        double square = 0;
        for (int32_t l = 0; l < net->length; l++) {
            double e = kac_gmm_offset(net, r, at + l, l);
            square = fma(e * e, r->level->precision[at + l], square);
        }
        r->dot[k] = fma(-0.5, square, r->level->log_factor[k]);
    }
    kac_meet(t);
    for (int32_t k = 0; k < components; k++)
        if (r->dot[k] > top) top = r->dot[k];
    KAC_PARTS(k, t, components)
    r->posterior[k] = kac_exp(r->dot[k] - top);
    kac_meet(t);
    for (int32_t k = 0; k < components; k++)
        sum += r->posterior[k];
    kac_meet(t);
    KAC_PARTS(k, t, components)
    r->posterior[k] /= sum;
    kac_meet(t);
}

/* E[x_0 | x]; a part is a component, then a number. */
KAC_HD static inline void kac_gmm_answer(const kac_net *net, kac_team t, const kac_gmm_row *r,
                                         float *out)
{
    kac_gmm_infer(net, t, r);
    KAC_PARTS(l, t, net->length)
    r->sum[l] = 0;
    for (int64_t k = 0; k < net->components; k++)
        KAC_PARTS(l, t, net->length)
    r->sum[l] = fma(r->posterior[k], kac_gmm_mean(net, r, k * net->length + l, l), r->sum[l]);
    KAC_PARTS(l, t, net->length)
    out[l] = (float)r->sum[l];
}

/* The gradient: sum_k p_k (gain_k u + (u E_k - mean) g_k), u the cotangent. */
KAC_HD static inline void kac_gmm_pull(const kac_net *net, kac_team t, const kac_gmm_row *r,
                                       const float *u, float *grad)
{
    double mean = 0;
    kac_gmm_infer(net, t, r);
    KAC_PARTS(k, t, net->components)
    {
        double dot = 0;
        for (int32_t l = 0; l < net->length; l++)
            dot = fma((double)u[l], kac_gmm_mean(net, r, k * net->length + l, l), dot);
        r->dot[k] = dot;
    }
    kac_meet(t);
    for (int32_t k = 0; k < net->components; k++)
        mean = fma(r->posterior[k], r->dot[k], mean);
    KAC_PARTS(l, t, net->length)
    r->sum[l] = 0;
    for (int64_t k = 0; k < net->components; k++)
        KAC_PARTS(l, t, net->length)
        {
            const int64_t at = k * net->length + l;
            double g = -kac_gmm_offset(net, r, at, l) * r->level->precision[at];
            double part = fma(r->dot[k] - mean, g, r->level->gain[at] * (double)u[l]);
            r->sum[l] = fma(r->posterior[k], part, r->sum[l]);
        }
    KAC_PARTS(l, t, net->length)
    grad[l] = (float)r->sum[l];
}

#endif /* KAC_GMM_H */
