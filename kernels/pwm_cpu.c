/* pwm_cpu.c -- reward of a position weight matrix. */
#include "pwm.h"

kac_status kac_cpu_pwm_pack(kac_device *dev, const kac_pwm_weights *host_weights, kac_net **out)
{
    return kac_pwm_pack(dev, host_weights, out);
}

void kac_cpu_pwm_drop(kac_device *dev, kac_net *net)
{
    kac_pwm_drop(dev, net);
}

kac_status kac_cpu_pwm_forward(kac_device *dev, const kac_net *net, const kac_query *q)
{
    (void)dev;
    int32_t n = kac_query_rows(q);
#pragma omp parallel for schedule(static)
    for (int32_t j = 0; j < n; j++)
        *kac_query_out(q, j) = kac_pwm_score(net, q, j);
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
