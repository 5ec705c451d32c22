/* markov_cuda.cu -- denoiser of a Markov chain. */
#include "markov.h"
#include "team.cuh"

kac_status kac_cuda_markov_pack(kac_device *dev, const kac_markov_weights *host_weights,
                                kac_net **out)
{
    return kac_markov_pack(dev, host_weights, out);
}

void kac_cuda_markov_drop(kac_device *dev, kac_net *net)
{
    kac_markov_drop(dev, net);
}

/* A team a row, a thread a letter: bound by the latency of a step from site to site, so it wants
 * many rows. */
KAC_KERNEL markov_forward(KAC_ARGS kac_net net, KAC_ARGS kac_query q, KAC_ARGS kac_teams all)
{
    const kac_team t = kac_team_of(&all);
    KAC_TEAM_ROWS(j, t, kac_query_rows(&q))
    kac_markov_answer(&net, t, kac_query_tokens(&q, (int32_t)j), q.length,
                      kac_team_memory(&all), kac_query_out(&q, (int32_t)j));
}

kac_status kac_cuda_markov_forward(kac_device *dev, const kac_net *net, const kac_query *q)
{
    kac_teams all = {};
    KAC_TRY(kac_teams_open(dev, q->capacity, net->states, 0, kac_markov_bytes(net, q->length),
                           &all));
    return KAC_LAUNCH(dev, markov_forward, all.blocks, KAC_THREADS, 0, *net, *q, all);
}

KAC_KERNEL markov_vjp(KAC_ARGS kac_net net, KAC_ARGS kac_query q, KAC_ARGS kac_teams all,
                      const float *cotangent, float *grad)
{
    const kac_team t = kac_team_of(&all);
    const int64_t n = (int64_t)q.length * net.states;
    const kac_markov_tape tape = kac_markov_tape_in(&net, q.length, kac_team_memory(&all));
    KAC_TEAM_ROWS(j, t, kac_query_rows(&q))
    kac_markov_pull(&net, t, kac_query_tokens(&q, (int32_t)j), q.length, cotangent + j * n,
                    &tape, grad + j * (n + q.length));
}

kac_status kac_cuda_markov_vjp(kac_device *dev, const kac_net *net, const kac_query *q,
                               const float *cotangent, float *grad)
{
    kac_teams all = {};
    KAC_TRY(kac_teams_open(dev, q->capacity, net->states, 0,
                           kac_markov_tape_bytes(net, q->length), &all));
    return KAC_LAUNCH(dev, markov_vjp, all.blocks, KAC_THREADS, 0, *net, *q, all, cotangent,
                      grad);
}
