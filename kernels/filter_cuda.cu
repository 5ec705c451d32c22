/* filter_cuda.cu -- rewards that count letters. */
#include "filter.h"
#include "team.cuh"

kac_status kac_cuda_filter_pack(kac_device *dev, const kac_filter_weights *host_weights,
                                kac_net **out)
{
    return kac_filter_pack(dev, host_weights, out);
}

void kac_cuda_filter_drop(kac_device *dev, kac_net *net)
{
    kac_filter_drop(dev, net);
}

/* Bound by reading the rows. */
KAC_KERNEL filter_forward(KAC_ARGS kac_net net, KAC_ARGS kac_query q, KAC_ARGS kac_teams all)
{
    const kac_team t = kac_team_of(&all);
    KAC_TEAM_ROWS(j, t, kac_query_rows(&q))
    {
        float score = kac_filter_score(&net, t, &q, (int32_t)j);
        if (t.rank == 0) *kac_query_out(&q, (int32_t)j) = score;
    }
}

kac_status kac_cuda_filter_forward(kac_device *dev, const kac_net *net, const kac_query *q)
{
    kac_teams all = {};
    KAC_REQUIRE(q->soft == NULL || net->kind == KAC_FILTER_SHARE);
    int32_t parts = q->soft != NULL ? 1 : q->length; /* the soft sum is in order */
    KAC_TRY(kac_teams_open(dev, q->capacity, parts, 0, 0, &all));
    return KAC_LAUNCH(dev, filter_forward, all.blocks, KAC_THREADS, 0, *net, *q, all);
}
