/* gmm_cpu.c -- denoiser of a Gaussian mixture. */
#include <stdatomic.h>

#include "gmm.h"
#include "scratch_cpu.h"

kac_status kac_cpu_gmm_pack(kac_device *dev, const kac_gmm_weights *host_weights, kac_net **out)
{
    return kac_gmm_pack(dev, host_weights, out);
}

void kac_cpu_gmm_drop(kac_device *dev, kac_net *net)
{
    kac_gmm_drop(dev, net);
}

/* Answers the rows of `q`, or their gradients where there is a cotangent.  Each thread makes
 * its own copy of the level. */
static kac_status run(const kac_net *net, const kac_query *q, const float *cotangent,
                      float *grad)
{
    const int32_t n = kac_query_rows(q);
    const int64_t d = net->length;
    const size_t level_bytes = kac_gmm_level_bytes(net);
    const size_t bytes = level_bytes + kac_gmm_row_bytes(net);
    atomic_int failed = 0;
#pragma omp parallel
    {
        double *memory = kac_cpu_scratch(bytes);
        kac_gmm_level level = {0};
        if (memory == NULL) {
            atomic_store(&failed, 1);
        } else {
            level = kac_gmm_level_in(net, memory);
            for (int64_t k = 0; k < net->components; k++)
                kac_gmm_component(net, kac_alone(), q, k, &level);
        }
#pragma omp for schedule(static)
        for (int32_t j = 0; j < n; j++) {
            if (memory == NULL) continue;
            kac_gmm_row row =
                kac_gmm_row_in(net, &level, q, j, memory + level_bytes / sizeof(double));
            if (cotangent == NULL)
                kac_gmm_answer(net, kac_alone(), &row, kac_query_out(q, j));
            else
                kac_gmm_pull(net, kac_alone(), &row, cotangent + j * d, grad + j * d);
        }
    }
    if (atomic_load(&failed))
        return KAC_FAIL(KAC_ERR_NOMEM, "gmm: no %zu bytes for a thread", bytes);
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
