/* markov_cpu.c -- denoiser of a Markov chain. */
#include <stdatomic.h>

#include "markov.h"
#include "scratch_cpu.h"

kac_status kac_cpu_markov_pack(kac_device *dev, const kac_markov_weights *host_weights,
                               kac_net **out)
{
    return kac_markov_pack(dev, host_weights, out);
}

void kac_cpu_markov_drop(kac_device *dev, kac_net *net)
{
    kac_markov_drop(dev, net);
}

kac_status kac_cpu_markov_forward(kac_device *dev, const kac_net *net, const kac_query *q)
{
    (void)dev;
    int32_t n = kac_query_rows(q);
    size_t bytes = kac_markov_bytes(net, q->length);
    atomic_int failed = 0;
#pragma omp parallel for schedule(static)
    for (int32_t j = 0; j < n; j++) {
        double *work = kac_cpu_scratch(bytes);
        if (work != NULL)
            kac_markov_answer(net, kac_alone(), kac_query_tokens(q, j), q->length, work,
                              kac_query_out(q, j));
        else
            atomic_store(&failed, 1);
    }
    if (atomic_load(&failed))
        return KAC_FAIL(KAC_ERR_NOMEM, "markov: no %zu bytes for a row", bytes);
    return KAC_OK;
}

kac_status kac_cpu_markov_vjp(kac_device *dev, const kac_net *net, const kac_query *q,
                              const float *cotangent, float *grad)
{
    (void)dev;
    const int32_t rows = kac_query_rows(q);
    const int64_t n = (int64_t)q->length * net->states;
    const size_t bytes = kac_markov_tape_bytes(net, q->length);
    atomic_int failed = 0;
#pragma omp parallel for schedule(static)
    for (int32_t j = 0; j < rows; j++) {
        double *work = kac_cpu_scratch(bytes);
        if (work == NULL) {
            atomic_store(&failed, 1);
            continue;
        }
        kac_markov_tape tape = kac_markov_tape_in(net, q->length, work);
        kac_markov_pull(net, kac_alone(), kac_query_tokens(q, j), q->length, cotangent + j * n,
                        &tape, grad + j * (n + q->length));
    }
    if (atomic_load(&failed))
        return KAC_FAIL(KAC_ERR_NOMEM, "markov: no %zu bytes for a row", bytes);
    return KAC_OK;
}
