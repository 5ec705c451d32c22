/* pwm_cuda.cu -- reward of a position weight matrix. */
#include "primitives.cuh"
#include "pwm.h"

kac_status kac_cuda_pwm_pack(kac_device *dev, const kac_pwm_weights *host_weights,
                             kac_net **out)
{
    return kac_pwm_pack(dev, host_weights, out);
}

void kac_cuda_pwm_drop(kac_device *dev, kac_net *net)
{
    kac_pwm_drop(dev, net);
}

/* A thread a row, because the sum is one chain: bound by its latency. */
KAC_KERNEL pwm_forward(KAC_ARGS kac_net net, KAC_ARGS kac_query q)
{
    KAC_EACH (j, kac_query_rows(&q))
        *kac_query_out(&q, (int32_t)j) = kac_pwm_score(&net, &q, (int32_t)j);
}

kac_status kac_cuda_pwm_forward(kac_device *dev, const kac_net *net, const kac_query *q)
{
    return KAC_LAUNCH(dev, pwm_forward, kac_blocks(q->capacity), KAC_THREADS, 0, *net, *q);
}

/* Bound by writing the gradient. */
KAC_KERNEL pwm_vjp(KAC_ARGS kac_net net, KAC_ARGS kac_query q, const float *cotangent,
                   float *grad)
{
    const int64_t n = (int64_t)net.length * net.states;
    KAC_EACH (i, kac_query_rows(&q) * n)
        grad[i] = cotangent[i / n] * net.weight[i % n];
}

kac_status kac_cuda_pwm_vjp(kac_device *dev, const kac_net *net, const kac_query *q,
                            const float *cotangent, float *grad)
{
    int64_t n = (int64_t)net->length * net->states;
    return KAC_LAUNCH(dev, pwm_vjp, kac_blocks(q->capacity * n), KAC_THREADS, 0, *net, *q,
                      cotangent, grad);
}
