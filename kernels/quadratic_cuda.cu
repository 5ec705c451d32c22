/* quadratic_cuda.cu -- reward of vectors: a Gaussian log-likelihood of linear measurements. */
#include "quadratic.h"
#include "team.cuh"

kac_status kac_cuda_quadratic_pack(kac_device *dev, const kac_quadratic_weights *host_weights,
                                   kac_net **out)
{
    return kac_quadratic_pack(dev, host_weights, out);
}

void kac_cuda_quadratic_drop(kac_device *dev, kac_net *net)
{
    kac_quadratic_drop(dev, net);
}

/* Bound by the chains of the residuals; the matrix stays in the caches. */
KAC_KERNEL quadratic_forward(KAC_ARGS kac_net net, KAC_ARGS kac_query q, KAC_ARGS kac_teams all)
{
    const kac_team t = kac_team_of(&all);
    KAC_TEAM_ROWS(j, t, kac_query_rows(&q))
    {
        float score = kac_quadratic_score(&net, t, kac_query_vector(&q, (int32_t)j),
                                          kac_team_memory(&all));
        if (t.rank == 0) *kac_query_out(&q, (int32_t)j) = score;
    }
}

kac_status kac_cuda_quadratic_forward(kac_device *dev, const kac_net *net, const kac_query *q)
{
    kac_teams all = {};
    KAC_TRY(
        kac_teams_open(dev, q->capacity, net->measurements, 0, kac_quadratic_bytes(net), &all));
    return KAC_LAUNCH(dev, quadratic_forward, all.blocks, KAC_THREADS, 0, *net, *q, all);
}

KAC_KERNEL quadratic_vjp(KAC_ARGS kac_net net, KAC_ARGS kac_query q, KAC_ARGS kac_teams all,
                         const float *cotangent, float *grad)
{
    const kac_team t = kac_team_of(&all);
    KAC_TEAM_ROWS(j, t, kac_query_rows(&q))
    kac_quadratic_pull(&net, t, kac_query_vector(&q, (int32_t)j), cotangent[j],
                       kac_team_memory(&all), grad + j * net.length);
}

kac_status kac_cuda_quadratic_vjp(kac_device *dev, const kac_net *net, const kac_query *q,
                                  const float *cotangent, float *grad)
{
    kac_teams all = {};
    int32_t parts = net->measurements > net->length ? net->measurements : net->length;
    KAC_TRY(kac_teams_open(dev, q->capacity, parts, 0, kac_quadratic_bytes(net), &all));
    return KAC_LAUNCH(dev, quadratic_vjp, all.blocks, KAC_THREADS, 0, *net, *q, all, cotangent,
                      grad);
}
