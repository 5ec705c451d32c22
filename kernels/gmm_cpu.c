/* gmm_cpu.c -- denoiser of a Gaussian mixture: exact posterior means.
 *
 * Notation: component k has weight w_k, mean m_k and diagonal variance S_k; x = a x_0 + b e, so
 * x given k is normal with mean a m_k and variance c_k = a^2 S_k + b^2.  Then
 *
 *     E[x_0 | x] = sum_k p_k E_k,    E_k = m_k + a S_k (x - a m_k) / c_k,
 *
 * p_k the posterior of k given x; the gradient of log p_k is g_k - sum_j p_j g_j with
 * g_k = - (x - a m_k) / c_k.
 */
#include <math.h>
#include <stdatomic.h>

#include "exact.h"
#include "ops.h"
#include "query.h"
#include "scratch_cpu.h"

struct kac_net {
    int32_t length;     /* d */
    int32_t components; /* K */
    double *log_weight; /* [K] */
    double *mean;       /* [K][d] */
    double *variance;   /* [K][d] */
};

void kac_cpu_gmm_drop(kac_device *dev, kac_net *net)
{
    if (net == NULL) return;
    dev->ops->memory.release(dev, net->log_weight);
    dev->ops->memory.release(dev, net->mean);
    dev->ops->memory.release(dev, net->variance);
    dev->ops->memory.release(dev, net);
}

kac_status kac_cpu_gmm_pack(kac_device *dev, const kac_gmm_weights *host_weights, kac_net **out)
{
    kac_alloc_fn *alloc = dev->ops->memory.alloc;
    int32_t components = host_weights->components;
    size_t d = (size_t)host_weights->length;
    size_t numbers = (size_t)components * d;
    kac_net *net = alloc(dev, sizeof *net);
    if (net == NULL) return KAC_ERR_NOMEM;
    net->length = host_weights->length;
    net->components = components;
    net->log_weight = alloc(dev, (size_t)components * sizeof(double));
    net->mean = alloc(dev, numbers * sizeof(double));
    net->variance = alloc(dev, numbers * sizeof(double));
    if (net->log_weight == NULL || net->mean == NULL || net->variance == NULL) {
        kac_cpu_gmm_drop(dev, net);
        return KAC_ERR_NOMEM;
    }
    for (int32_t k = 0; k < components; k++)
        net->log_weight[k] = kac_log((double)host_weights->weights[k]);
    for (size_t i = 0; i < numbers; i++) {
        net->mean[i] = (double)host_weights->means[i];
        net->variance[i] = (double)host_weights->variances[host_weights->round ? i / d : i];
    }
    *out = net;
    return KAC_OK;
}

/* ---- one level -------------------------------------------------------------------------- */

/* Working memory of a thread: what a level makes of the mixture, and one row's posterior. */
typedef struct work {
    double scale;       /* a */
    double *gain;       /* [K][d] a S_k / c_k */
    double *precision;  /* [K][d] 1 / c_k */
    double *log_factor; /* [K] log w_k - 1/2 sum log c_k */
    double *posterior;  /* [K] p_k */
    double *dot;        /* [K] cotangent times E_k */
    double *sum;        /* [d] */
} work;

static size_t work_bytes(const kac_net *net)
{
    size_t k = (size_t)net->components, d = (size_t)net->length;
    return (2 * k * d + 3 * k + d) * sizeof(double);
}

/* This thread's memory for the level of `q`; gain is NULL where there is none. */
static work open_work(const kac_net *net, const kac_query *q)
{
    const kac_gaussian_level *level = &q->levels[q->clock->level].gaussian;
    int64_t components = net->components, d = net->length;
    work w = {.scale = level->scale, .gain = kac_cpu_scratch(work_bytes(net))};
    if (w.gain == NULL) return w;
    w.precision = w.gain + components * d;
    w.log_factor = w.precision + components * d;
    w.posterior = w.log_factor + components;
    w.dot = w.posterior + components;
    w.sum = w.dot + components;
    for (int64_t k = 0; k < components; k++) {
        double logs = 0;
        for (int64_t i = k * d; i < (k + 1) * d; i++) {
            double c = fma(w.scale * w.scale, net->variance[i], level->noise * level->noise);
            w.gain[i] = w.scale * net->variance[i] / c;
            w.precision[i] = 1 / c;
            logs += kac_log(c);
        }
        w.log_factor[k] = fma(-0.5, logs, net->log_weight[k]);
    }
    return w;
}

/* w->posterior of the components given x. */
static void infer(const kac_net *net, const float *x, work *w)
{
    double top = -(double)INFINITY, sum = 0;
    for (int32_t k = 0; k < net->components; k++) {
        int64_t at = (int64_t)k * net->length;
        double square = 0;
        for (int32_t l = 0; l < net->length; l++) {
            double e = fma(-w->scale, net->mean[at + l], (double)x[l]);
            square = fma(e * e, w->precision[at + l], square);
        }
        w->posterior[k] = fma(-0.5, square, w->log_factor[k]);
        if (w->posterior[k] > top) top = w->posterior[k];
    }
    for (int32_t k = 0; k < net->components; k++) {
        w->posterior[k] = kac_exp(w->posterior[k] - top);
        sum += w->posterior[k];
    }
    for (int32_t k = 0; k < net->components; k++)
        w->posterior[k] /= sum;
}

/* E_k at number l. */
static double component_mean(const kac_net *net, const work *w, int32_t k, const float *x,
                             int32_t l)
{
    int64_t at = (int64_t)k * net->length + l;
    return fma(w->gain[at], fma(-w->scale, net->mean[at], (double)x[l]), net->mean[at]);
}

static void clear(double *sum, int32_t n)
{
    for (int32_t l = 0; l < n; l++)
        sum[l] = 0;
}

/* ---- forward ---------------------------------------------------------------------------- */

static void answer(const kac_net *net, const float *x, work *w, float *out)
{
    infer(net, x, w);
    clear(w->sum, net->length);
    for (int32_t k = 0; k < net->components; k++)
        for (int32_t l = 0; l < net->length; l++)
            w->sum[l] = fma(w->posterior[k], component_mean(net, w, k, x, l), w->sum[l]);
    for (int32_t l = 0; l < net->length; l++)
        out[l] = (float)w->sum[l];
}

/* Row j of the gradients: sum_k p_k (gain_k u + (u E_k - mean) g_k), u the cotangent. */
static void pull(const kac_net *net, const float *x, const float *u, work *w, float *grad)
{
    double mean = 0;
    infer(net, x, w);
    clear(w->sum, net->length);
    for (int32_t k = 0; k < net->components; k++) {
        w->dot[k] = 0;
        for (int32_t l = 0; l < net->length; l++)
            w->dot[k] = fma((double)u[l], component_mean(net, w, k, x, l), w->dot[k]);
        mean = fma(w->posterior[k], w->dot[k], mean);
    }
    for (int32_t k = 0; k < net->components; k++)
        for (int32_t l = 0; l < net->length; l++) {
            int64_t at = (int64_t)k * net->length + l;
            double g = -fma(-w->scale, net->mean[at], (double)x[l]) * w->precision[at];
            double part = fma(w->dot[k] - mean, g, w->gain[at] * (double)u[l]);
            w->sum[l] = fma(w->posterior[k], part, w->sum[l]);
        }
    for (int32_t l = 0; l < net->length; l++)
        grad[l] = (float)w->sum[l];
}

/* Answers the rows of `q`, or their gradients where there is a cotangent. */
static kac_status run(const kac_net *net, const kac_query *q, const float *cotangent,
                      float *grad)
{
    int32_t n = kac_query_rows(q);
    int64_t d = net->length;
    atomic_int failed = 0;
#pragma omp parallel
    {
        work w = open_work(net, q);
        if (w.gain == NULL) atomic_store(&failed, 1);
#pragma omp for schedule(static)
        for (int32_t j = 0; j < n; j++) {
            if (w.gain == NULL) continue;
            const float *x = kac_query_vector(q, j);
            if (cotangent == NULL)
                answer(net, x, &w, kac_query_out(q, j));
            else
                pull(net, x, cotangent + j * d, &w, grad + j * d);
        }
    }
    if (atomic_load(&failed))
        return KAC_FAIL(KAC_ERR_NOMEM, "gmm: no %zu bytes for a thread", work_bytes(net));
    return KAC_OK;
}

kac_status kac_cpu_gmm_forward(kac_device *dev, const kac_net *net, const kac_query *q)
{
    (void)dev;
    return run(net, q, NULL, NULL);
}

kac_status kac_cpu_gmm_vjp(kac_device *dev, const kac_net *net, const kac_query *q,
                           const float *cotangent, float *grad)
{
    (void)dev;
    return run(net, q, cotangent, grad);
}
