/* quadratic_cpu.c -- reward of vectors: a Gaussian log-likelihood of linear measurements. */
#include <stdatomic.h>

#include "quadratic.h"
#include "scratch_cpu.h"

kac_status kac_cpu_quadratic_pack(kac_device *dev, const kac_quadratic_weights *host_weights,
                                  kac_net **out)
{
    return kac_quadratic_pack(dev, host_weights, out);
}

void kac_cpu_quadratic_drop(kac_device *dev, kac_net *net)
{
    kac_quadratic_drop(dev, net);
}

/* Answers the rows of `q`, or their gradients where there is a cotangent. */
static kac_status run(const kac_net *net, const kac_query *q, const float *cotangent,
                      float *grad)
{
    int32_t n = kac_query_rows(q);
    atomic_int failed = 0;
#pragma omp parallel for schedule(static)
    for (int32_t j = 0; j < n; j++) {
        double *work = kac_cpu_scratch(kac_quadratic_bytes(net));
        const float *x = kac_query_vector(q, j);
        if (work == NULL)
            atomic_store(&failed, 1);
        else if (cotangent == NULL)
            *kac_query_out(q, j) = kac_quadratic_score(net, kac_alone(), x, work);
        else
            kac_quadratic_pull(net, kac_alone(), x, cotangent[j], work,
                               grad + (int64_t)j * net->length);
    }
    if (atomic_load(&failed))
        return KAC_FAIL(KAC_ERR_NOMEM, "quadratic: no %zu bytes for a row",
                        kac_quadratic_bytes(net));
    return KAC_OK;
}

kac_status kac_cpu_quadratic_forward(kac_device *dev, const kac_net *net, const kac_query *q)
{
    (void)dev;
    return run(net, q, NULL, NULL);
}

kac_status kac_cpu_quadratic_vjp(kac_device *dev, const kac_net *net, const kac_query *q,
                                 const float *cotangent, float *grad)
{
    (void)dev;
    return run(net, q, cotangent, grad);
}
