/* table_cpu.c -- denoiser and reward that look every answer up. */
#include <stdatomic.h>

#include "scratch_cpu.h"
#include "table.h"

static kac_status no_memory(size_t bytes)
{
    return KAC_FAIL(KAC_ERR_NOMEM, "table: no %zu bytes for a row", bytes);
}

/* ---- denoiser --------------------------------------------------------------------------- */

kac_status kac_cpu_table_denoiser_pack(kac_device *dev, const kac_table_weights *host_weights,
                                       kac_net **out)
{
    int64_t width = (int64_t)host_weights->length * host_weights->states;
    return kac_table_pack(dev, host_weights, width, true, out);
}

kac_status kac_cpu_table_denoiser_forward(kac_device *dev, const kac_net *net,
                                          const kac_query *q)
{
    (void)dev;
    int32_t n = kac_query_rows(q);
#pragma omp parallel for schedule(static)
    for (int32_t j = 0; j < n; j++)
        kac_table_logits(net, kac_alone(), kac_query_tokens(q, j), kac_query_out(q, j));
    return KAC_OK;
}

kac_status kac_cpu_table_denoiser_vjp(kac_device *dev, const kac_net *net, const kac_query *q,
                                      const float *cotangent, float *grad)
{
    (void)dev;
    const int32_t rows = kac_query_rows(q);
    const int64_t n = (int64_t)net->length * net->states;
    const size_t bytes = 2 * (size_t)n * sizeof(double);
    atomic_int failed = 0;
#pragma omp parallel for schedule(static)
    for (int32_t j = 0; j < rows; j++) {
        double *work = kac_cpu_scratch(bytes);
        if (work != NULL)
            kac_table_pull(net, kac_alone(), kac_query_tokens(q, j), cotangent + j * n, work,
                           work + n, grad + j * (n + net->length));
        else
            atomic_store(&failed, 1);
    }
    return atomic_load(&failed) ? no_memory(bytes) : KAC_OK;
}

void kac_cpu_table_denoiser_drop(kac_device *dev, kac_net *net)
{
    kac_table_drop(dev, net);
}

/* ---- reward ----------------------------------------------------------------------------- */

kac_status kac_cpu_table_reward_pack(kac_device *dev, const kac_table_weights *host_weights,
                                     kac_net **out)
{
    return kac_table_pack(dev, host_weights, 1, false, out);
}

kac_status kac_cpu_table_reward_forward(kac_device *dev, const kac_net *net, const kac_query *q)
{
    (void)dev;
    int32_t n = kac_query_rows(q);
#pragma omp parallel for schedule(static)
    for (int32_t j = 0; j < n; j++) {
        double probability = 0;
        *kac_query_out(q, j) =
            q->soft != NULL
                ? kac_table_expectation(net, kac_alone(), kac_query_soft(q, j, net->states),
                                        &probability)
                : kac_table_entry(net, kac_query_tokens(q, j));
    }
    return KAC_OK;
}

kac_status kac_cpu_table_reward_vjp(kac_device *dev, const kac_net *net, const kac_query *q,
                                    const float *cotangent, float *grad)
{
    (void)dev;
    const int32_t rows = kac_query_rows(q);
    const int64_t n = (int64_t)net->length * net->states;
    const size_t bytes = kac_table_slope_bytes(net, 1);
    atomic_int failed = 0;
#pragma omp parallel for schedule(static)
    for (int32_t j = 0; j < rows; j++) {
        double *work = kac_cpu_scratch(bytes);
        if (work != NULL)
            kac_table_slope(net, kac_alone(), q, j, cotangent[j], work, grad + j * n);
        else
            atomic_store(&failed, 1);
    }
    return atomic_load(&failed) ? no_memory(bytes) : KAC_OK;
}

void kac_cpu_table_reward_drop(kac_device *dev, kac_net *net)
{
    kac_table_drop(dev, net);
}
