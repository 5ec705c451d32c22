/* quadratic.h -- reward of vectors, a Gaussian log-likelihood of linear measurements: packing,
 * and one row. */
#ifndef KAC_QUADRATIC_H
#define KAC_QUADRATIC_H

#include <math.h>
#include <stdlib.h>

#include "pack.h"
#include "query.h"
#include "team.h"

struct kac_net {
    int32_t length;       /* d */
    int32_t measurements; /* m */
    float *matrix;        /* A [m][d] */
    float *target;        /* b [m] */
    float *deviation;     /* s [m] */
    float *linear;        /* c [d] */
};

static inline void kac_quadratic_drop(kac_device *dev, kac_net *net)
{
    if (net == NULL) return;
    dev->ops->memory.release(dev, net->matrix);
    dev->ops->memory.release(dev, net->target);
    dev->ops->memory.release(dev, net->deviation);
    dev->ops->memory.release(dev, net->linear);
    free(net);
}

static inline kac_status
kac_quadratic_pack(kac_device *dev, const kac_quadratic_weights *host_weights, kac_net **out)
{
    const size_t d = (size_t)host_weights->length, m = (size_t)host_weights->measurements;
    const kac_quadratic_weights *w = host_weights;
    kac_status status = KAC_OK;
    kac_net *net = kac_net_new(sizeof *net);
    if (net == NULL) return KAC_ERR_NOMEM;
    net->length = w->length;
    net->measurements = w->measurements;
    KAC_TRY_DONE(KAC_PACK(dev, net->matrix, w->matrix, m * d * sizeof(float)));
    KAC_TRY_DONE(KAC_PACK(dev, net->target, w->target, m * sizeof(float)));
    KAC_TRY_DONE(KAC_PACK(dev, net->deviation, w->deviation, m * sizeof(float)));
    net->linear = (float *)dev->ops->memory.alloc(dev, d * sizeof(float)); /* zeros */
    KAC_TRY_DONE(net->linear != NULL ? KAC_OK : KAC_ERR_NOMEM);
    if (w->linear != NULL)
        KAC_TRY_DONE(dev->ops->memory.upload(dev, net->linear, w->linear, d * sizeof(float)));
    *out = net;
    net = NULL;
done:
    kac_quadratic_drop(dev, net);
    return status;
}

/* Bytes of a row's working memory, numbers [d] and residuals [m]. */
static inline size_t kac_quadratic_bytes(const kac_net *net)
{
    return ((size_t)net->length + (size_t)net->measurements) * sizeof(double);
}

/* (A_i x - b_i) / s_i. */
KAC_HD static inline double kac_quadratic_residual(const kac_net *net, int64_t i,
                                                   const float *x)
{
    const float *row = net->matrix + i * net->length;
    double sum = -(double)net->target[i];
    for (int32_t l = 0; l < net->length; l++)
        sum = fma((double)row[l], (double)x[l], sum);
    return sum / (double)net->deviation[i];
}

/* The reward of x; a part is a residual. */
KAC_HD static inline float kac_quadratic_score(const kac_net *net, kac_team t, const float *x,
                                               double *work)
{
    double *e = work + net->length;
    double sum = 0;
    KAC_PARTS(i, t, net->measurements)
    e[i] = kac_quadratic_residual(net, i, x);
    kac_meet(t);
    for (int32_t i = 0; i < net->measurements; i++)
        sum = fma(-0.5 * e[i], e[i], sum);
    for (int32_t l = 0; l < net->length; l++)
        sum = fma((double)net->linear[l], (double)x[l], sum);
    return (float)sum;
}

/* grad = u (c - sum_i A_i e_i / s_i), e_i the residuals; a part is a residual, then a number. */
KAC_HD static inline void kac_quadratic_pull(const kac_net *net, kac_team t, const float *x,
                                             float u, double *work, float *grad)
{
    double *sum = work, *e = work + net->length;
    KAC_PARTS(i, t, net->measurements)
    e[i] = -kac_quadratic_residual(net, i, x) / (double)net->deviation[i];
    KAC_PARTS(l, t, net->length)
    sum[l] = (double)net->linear[l];
    kac_meet(t);
    for (int64_t i = 0; i < net->measurements; i++)
        KAC_PARTS(l, t, net->length)
    sum[l] = fma(e[i], (double)net->matrix[i * net->length + l], sum[l]);
    KAC_PARTS(l, t, net->length)
    grad[l] = (float)((double)u * sum[l]);
}

#endif /* KAC_QUADRATIC_H */
