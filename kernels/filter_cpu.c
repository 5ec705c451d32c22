/* filter_cpu.c -- rewards that count letters. */
#include "filter.h"

kac_status kac_cpu_filter_pack(kac_device *dev, const kac_filter_weights *host_weights,
                               kac_net **out)
{
    return kac_filter_pack(dev, host_weights, out);
}

void kac_cpu_filter_drop(kac_device *dev, kac_net *net)
{
    kac_filter_drop(dev, net);
}

kac_status kac_cpu_filter_forward(kac_device *dev, const kac_net *net, const kac_query *q)
{
    (void)dev;
    KAC_REQUIRE(q->soft == NULL || net->kind == KAC_FILTER_SHARE);
    int32_t n = kac_query_rows(q);
#pragma omp parallel for schedule(static)
    for (int32_t j = 0; j < n; j++)
        *kac_query_out(q, j) = kac_filter_score(net, kac_alone(), q, j);
    return KAC_OK;
}
