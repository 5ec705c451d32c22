/* pwm_cpu.c -- reward of a position weight matrix. */
#include <math.h>
#include <string.h>

#include "ops.h"
#include "query.h"

struct kac_net {
    int32_t states; /* S */
    int32_t length; /* L */
    float *weight;  /* [L][S] */
};

kac_status kac_cpu_pwm_pack(kac_device *dev, const kac_pwm_weights *host_weights, kac_net **out)
{
    size_t bytes = (size_t)host_weights->length * (size_t)host_weights->states * sizeof(float);
    kac_net *net = dev->ops->memory.alloc(dev, sizeof *net);
    if (net == NULL) return KAC_ERR_NOMEM;
    net->states = host_weights->states;
    net->length = host_weights->length;
    net->weight = dev->ops->memory.alloc(dev, bytes);
    if (net->weight == NULL) {
        kac_cpu_pwm_drop(dev, net);
        return KAC_ERR_NOMEM;
    }
    memcpy(net->weight, host_weights->weight, bytes);
    *out = net;
    return KAC_OK;
}

void kac_cpu_pwm_drop(kac_device *dev, kac_net *net)
{
    if (net == NULL) return;
    dev->ops->memory.release(dev, net->weight);
    dev->ops->memory.release(dev, net);
}

/* Adding w is fma(1, w, sum), so tokens and their one-hot rows give the same bits. */
static float score_tokens(const kac_net *net, const uint8_t *tokens)
{
    float sum = 0;
    for (int32_t l = 0; l < net->length; l++)
        if (tokens[l] < net->states) sum += net->weight[(int64_t)l * net->states + tokens[l]];
    return sum;
}

static float score_soft(const kac_net *net, const float *soft)
{
    float sum = 0;
    int64_t n = (int64_t)net->length * net->states;
    for (int64_t i = 0; i < n; i++)
        sum = fmaf(soft[i], net->weight[i], sum);
    return sum;
}

kac_status kac_cpu_pwm_forward(kac_device *dev, const kac_net *net, const kac_query *q)
{
    (void)dev;
    int32_t n = kac_query_rows(q);
#pragma omp parallel for schedule(static)
    for (int32_t j = 0; j < n; j++)
        *kac_query_out(q, j) = q->soft != NULL
                                   ? score_soft(net, kac_query_soft(q, j, net->states))
                                   : score_tokens(net, kac_query_tokens(q, j));
    return KAC_OK;
}

kac_status kac_cpu_pwm_vjp(kac_device *dev, const kac_net *net, const kac_query *q,
                           const float *cotangent, float *grad)
{
    (void)dev;
    int32_t rows = kac_query_rows(q);
    int64_t n = (int64_t)net->length * net->states;
#pragma omp parallel for schedule(static)
    for (int32_t j = 0; j < rows; j++)
        for (int64_t i = 0; i < n; i++)
            grad[j * n + i] = cotangent[j] * net->weight[i];
    return KAC_OK;
}
