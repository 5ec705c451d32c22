/* quadratic_cpu.c -- reward of vectors: a Gaussian log-likelihood of linear measurements. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "ops.h"
#include "query.h"
#include "scratch_cpu.h"

struct kac_net {
    int32_t length;       /* d */
    int32_t measurements; /* m */
    float *matrix;        /* A [m][d] */
    float *target;        /* b [m] */
    float *deviation;     /* s [m] */
    float *linear;        /* c [d] */
};

void kac_cpu_quadratic_drop(kac_device *dev, kac_net *net)
{
    if (net == NULL) return;
    dev->ops->memory.release(dev, net->matrix);
    dev->ops->memory.release(dev, net->target);
    dev->ops->memory.release(dev, net->deviation);
    dev->ops->memory.release(dev, net->linear);
    dev->ops->memory.release(dev, net);
}

kac_status kac_cpu_quadratic_pack(kac_device *dev, const kac_quadratic_weights *host_weights,
                                  kac_net **out)
{
    kac_alloc_fn *alloc = dev->ops->memory.alloc;
    size_t d = (size_t)host_weights->length, m = (size_t)host_weights->measurements;
    kac_net *net = alloc(dev, sizeof *net);
    if (net == NULL) return KAC_ERR_NOMEM;
    net->length = host_weights->length;
    net->measurements = host_weights->measurements;
    net->matrix = alloc(dev, m * d * sizeof(float));
    net->target = alloc(dev, m * sizeof(float));
    net->deviation = alloc(dev, m * sizeof(float));
    net->linear = alloc(dev, d * sizeof(float));
    if (!net->matrix || !net->target || !net->deviation || !net->linear) {
        kac_cpu_quadratic_drop(dev, net);
        return KAC_ERR_NOMEM;
    }
    memcpy(net->matrix, host_weights->matrix, m * d * sizeof(float));
    memcpy(net->target, host_weights->target, m * sizeof(float));
    memcpy(net->deviation, host_weights->deviation, m * sizeof(float));
    if (host_weights->linear != NULL)
        memcpy(net->linear, host_weights->linear, d * sizeof(float));
    *out = net;
    return KAC_OK;
}

/* (A_i x - b_i) / s_i. */
static double residual(const kac_net *net, int32_t i, const float *x)
{
    const float *row = net->matrix + (int64_t)i * net->length;
    double sum = -(double)net->target[i];
    for (int32_t l = 0; l < net->length; l++)
        sum = fma((double)row[l], (double)x[l], sum);
    return sum / (double)net->deviation[i];
}

static float answer(const kac_net *net, const float *x)
{
    double sum = 0;
    for (int32_t i = 0; i < net->measurements; i++) {
        double e = residual(net, i, x);
        sum = fma(-0.5 * e, e, sum);
    }
    for (int32_t l = 0; l < net->length; l++)
        sum = fma((double)net->linear[l], (double)x[l], sum);
    return (float)sum;
}

kac_status kac_cpu_quadratic_forward(kac_device *dev, const kac_net *net, const kac_query *q)
{
    (void)dev;
    int32_t n = kac_query_rows(q);
#pragma omp parallel for schedule(static)
    for (int32_t j = 0; j < n; j++)
        *kac_query_out(q, j) = answer(net, kac_query_vector(q, j));
    return KAC_OK;
}

/* grad = u (c - sum_i A_i e_i / s_i), e_i the residuals; sum: [d]. */
static void pull(const kac_net *net, const float *x, float u, double *sum, float *grad)
{
    for (int32_t l = 0; l < net->length; l++)
        sum[l] = (double)net->linear[l];
    for (int32_t i = 0; i < net->measurements; i++) {
        const float *row = net->matrix + (int64_t)i * net->length;
        double e = -residual(net, i, x) / (double)net->deviation[i];
        for (int32_t l = 0; l < net->length; l++)
            sum[l] = fma(e, (double)row[l], sum[l]);
    }
    for (int32_t l = 0; l < net->length; l++)
        grad[l] = (float)((double)u * sum[l]);
}

kac_status kac_cpu_quadratic_vjp(kac_device *dev, const kac_net *net, const kac_query *q,
                                 const float *cotangent, float *grad)
{
    (void)dev;
    int32_t n = kac_query_rows(q);
    int64_t d = net->length;
    size_t bytes = (size_t)d * sizeof(double);
    atomic_int failed = 0;
#pragma omp parallel for schedule(static)
    for (int32_t j = 0; j < n; j++) {
        double *sum = kac_cpu_scratch(bytes);
        if (sum != NULL)
            pull(net, kac_query_vector(q, j), cotangent[j], sum, grad + j * d);
        else
            atomic_store(&failed, 1);
    }
    if (atomic_load(&failed))
        return KAC_FAIL(KAC_ERR_NOMEM, "quadratic: no %zu bytes for a row", bytes);
    return KAC_OK;
}
