/* table_cuda.cu -- denoiser and reward that look every answer up. */
#include "table.h"
#include "team.cuh"

/* ---- denoiser --------------------------------------------------------------------------- */

kac_status kac_cuda_table_denoiser_pack(kac_device *dev, const kac_table_weights *host_weights,
                                        kac_net **out)
{
    int64_t width = (int64_t)host_weights->length * host_weights->states;
    return kac_table_pack(dev, host_weights, width, true, out);
}

/* Bound by copying the rows. */
KAC_KERNEL denoiser_forward(KAC_ARGS kac_net net, KAC_ARGS kac_query q, KAC_ARGS kac_teams all)
{
    const kac_team t = kac_team_of(&all);
    KAC_TEAM_ROWS(j, t, kac_query_rows(&q))
    kac_table_logits(&net, t, kac_query_tokens(&q, (int32_t)j), kac_query_out(&q, (int32_t)j));
}

kac_status kac_cuda_table_denoiser_forward(kac_device *dev, const kac_net *net,
                                           const kac_query *q)
{
    kac_teams all = {};
    KAC_TRY(kac_teams_open(dev, q->capacity, (int64_t)net->length * net->states, 0, 0, &all));
    return KAC_LAUNCH(dev, denoiser_forward, all.blocks, KAC_THREADS, 0, *net, *q, all);
}

/* Bound by the chains over all objects, the same for each row. */
KAC_KERNEL denoiser_vjp(KAC_ARGS kac_net net, KAC_ARGS kac_query q, KAC_ARGS kac_teams all,
                        const float *cotangent, float *grad)
{
    const kac_team t = kac_team_of(&all);
    const int64_t n = (int64_t)net.length * net.states;
    double *work = kac_team_memory(&all);
    KAC_TEAM_ROWS(j, t, kac_query_rows(&q))
    kac_table_pull(&net, t, kac_query_tokens(&q, (int32_t)j), cotangent + j * n, work, work + n,
                   grad + j * (n + net.length));
}

kac_status kac_cuda_table_denoiser_vjp(kac_device *dev, const kac_net *net, const kac_query *q,
                                       const float *cotangent, float *grad)
{
    kac_teams all = {};
    size_t bytes = 2 * (size_t)net->length * (size_t)net->states * sizeof(double);
    KAC_TRY(kac_teams_open(dev, q->capacity, net->length, 0, bytes, &all));
    return KAC_LAUNCH(dev, denoiser_vjp, all.blocks, KAC_THREADS, 0, *net, *q, all, cotangent,
                      grad);
}

void kac_cuda_table_denoiser_drop(kac_device *dev, kac_net *net)
{
    kac_table_drop(dev, net);
}

/* ---- reward ----------------------------------------------------------------------------- */

kac_status kac_cuda_table_reward_pack(kac_device *dev, const kac_table_weights *host_weights,
                                      kac_net **out)
{
    return kac_table_pack(dev, host_weights, 1, false, out);
}

/* A thread a row: bound by the latency of a scattered read. */
KAC_KERNEL reward_entries(KAC_ARGS kac_net net, KAC_ARGS kac_query q)
{
    KAC_EACH (j, kac_query_rows(&q))
        *kac_query_out(&q, (int32_t)j) =
            kac_table_entry(&net, kac_query_tokens(&q, (int32_t)j));
}

/* A warp a row: bound by one chain over the table, whose probabilities 32 threads make. */
KAC_KERNEL reward_expectations(KAC_ARGS kac_net net, KAC_ARGS kac_query q,
                               KAC_ARGS kac_teams all)
{
    const kac_team t = kac_team_of(&all);
    KAC_TEAM_ROWS(j, t, kac_query_rows(&q))
    {
        float mean = kac_table_expectation(&net, t, kac_query_soft(&q, (int32_t)j, net.states),
                                           kac_team_memory(&all));
        if (t.rank == 0) *kac_query_out(&q, (int32_t)j) = mean;
    }
}

kac_status kac_cuda_table_reward_forward(kac_device *dev, const kac_net *net,
                                         const kac_query *q)
{
    kac_teams all = {};
    if (q->soft == NULL)
        return KAC_LAUNCH(dev, reward_entries, kac_blocks(q->capacity), KAC_THREADS, 0, *net,
                          *q);
    KAC_TRY(kac_teams_open(dev, q->capacity, KAC_WARP, 0, KAC_WARP * sizeof(double), &all));
    return KAC_LAUNCH(dev, reward_expectations, all.blocks, KAC_THREADS, 0, *net, *q, all);
}

/* A warp a row: bound by the chains over the table, one for each letter of each site. */
KAC_KERNEL reward_vjp(KAC_ARGS kac_net net, KAC_ARGS kac_query q, KAC_ARGS kac_teams all,
                      const float *cotangent, float *grad)
{
    const kac_team t = kac_team_of(&all);
    const int64_t n = (int64_t)net.length * net.states;
    KAC_TEAM_ROWS(j, t, kac_query_rows(&q))
    kac_table_slope(&net, t, &q, (int32_t)j, cotangent[j], kac_team_memory(&all), grad + j * n);
}

kac_status kac_cuda_table_reward_vjp(kac_device *dev, const kac_net *net, const kac_query *q,
                                     const float *cotangent, float *grad)
{
    kac_teams all = {};
    KAC_TRY(kac_teams_open(dev, q->capacity, KAC_WARP, 0, kac_table_slope_bytes(net, KAC_WARP),
                           &all));
    return KAC_LAUNCH(dev, reward_vjp, all.blocks, KAC_THREADS, 0, *net, *q, all, cotangent,
                      grad);
}

void kac_cuda_table_reward_drop(kac_device *dev, kac_net *net)
{
    kac_table_drop(dev, net);
}
