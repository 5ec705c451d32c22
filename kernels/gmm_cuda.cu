/* gmm_cuda.cu -- denoiser of a Gaussian mixture. */
#include "gmm.h"
#include "team.cuh"

kac_status kac_cuda_gmm_pack(kac_device *dev, const kac_gmm_weights *host_weights,
                             kac_net **out)
{
    return kac_gmm_pack(dev, host_weights, out);
}

void kac_cuda_gmm_drop(kac_device *dev, kac_net *net)
{
    kac_gmm_drop(dev, net);
}

/* A team a component: bound by the sum of its logarithms. */
KAC_KERNEL gmm_level(KAC_ARGS kac_net net, KAC_ARGS kac_query q, KAC_ARGS kac_teams all,
                     KAC_ARGS kac_gmm_level level)
{
    const kac_team t = kac_team_of(&all);
    KAC_TEAM_ROWS(k, t, net.components)
    kac_gmm_component(&net, t, &q, k, &level);
}

/* A team a row: bound by the chains over numbers and components; those of means, gains and
 * precisions that rows share stay in the caches. */
KAC_KERNEL gmm_rows(KAC_ARGS kac_net net, KAC_ARGS kac_query q, KAC_ARGS kac_teams all,
                    KAC_ARGS kac_gmm_level level, const float *cotangent, float *grad)
{
    const kac_team t = kac_team_of(&all);
    KAC_TEAM_ROWS(j, t, kac_query_rows(&q))
    {
        kac_gmm_row row = kac_gmm_row_in(&net, &level, &q, (int32_t)j, kac_team_memory(&all));
        if (cotangent == NULL)
            kac_gmm_answer(&net, t, &row, kac_query_out(&q, (int32_t)j));
        else
            kac_gmm_pull(&net, t, &row, cotangent + j * net.length, grad + j * net.length);
    }
}

/* Answers the rows of `q`, or their gradients where there is a cotangent. */
static kac_status run(kac_device *dev, const kac_net *net, const kac_query *q,
                      const float *cotangent, float *grad)
{
    const int64_t widest = net->components > net->length ? net->components : net->length;
    kac_teams each = {}, rows = {};
    KAC_TRY(kac_teams_open(dev, net->components, net->length, 0, 0, &each));
    KAC_TRY(kac_teams_open(dev, q->capacity, widest, kac_gmm_level_bytes(net),
                           kac_gmm_row_bytes(net), &rows));
    kac_gmm_level level = kac_gmm_level_in(net, reinterpret_cast<double *>(rows.head));
    KAC_TRY(KAC_LAUNCH(dev, gmm_level, each.blocks, KAC_THREADS, 0, *net, *q, each, level));
    return KAC_LAUNCH(dev, gmm_rows, rows.blocks, KAC_THREADS, 0, *net, *q, rows, level,
                      cotangent, grad);
}

kac_status kac_cuda_gmm_forward(kac_device *dev, const kac_net *net, const kac_query *q)
{
    return run(dev, net, q, NULL, NULL);
}

kac_status kac_cuda_gmm_vjp(kac_device *dev, const kac_net *net, const kac_query *q,
                            const float *cotangent, float *grad)
{
    return run(dev, net, q, cotangent, grad);
}
