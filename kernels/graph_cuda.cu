/* graph_cuda.cu -- graph diffusion runs on the CPU; a GPU refuses it. */
#include "ops.h"

static kac_status refuse(void)
{
    return KAC_FAIL(KAC_ERR_UNSUPPORTED,
                    "process.kind graph: it runs on the CPU only; set device.name to cpu");
}

kac_status kac_cuda_graph_start(kac_device *, const kac_start_args *, uint8_t *)
{
    return refuse();
}

kac_status kac_cuda_graph_propose(kac_device *, const kac_propose_args *)
{
    return refuse();
}

kac_status kac_cuda_graph_complete(kac_device *, const kac_complete_args *, uint8_t *)
{
    return refuse();
}

kac_status kac_cuda_graph_soften(kac_device *, const kac_complete_args *, float *)
{
    return refuse();
}

kac_status kac_cuda_graph_imagine(kac_device *, const kac_complete_args *, uint8_t *)
{
    return refuse();
}

kac_status kac_cuda_graph_slope(kac_device *, const kac_slope_args *, float *)
{
    return refuse();
}

kac_status kac_cuda_graph_tilt(kac_device *, const kac_slope_args *, float *)
{
    return refuse();
}

kac_status kac_cuda_graph_blend(kac_device *, const kac_blend_args *, float *)
{
    return refuse();
}

kac_status kac_cuda_graph_renoise(kac_device *, const kac_renoise_args *, uint8_t *)
{
    return refuse();
}

kac_status kac_cuda_graph_score(kac_device *, const kac_renoise_args *, const uint8_t *,
                                const int32_t *, const kac_memo *, double *)
{
    return refuse();
}

kac_status kac_cuda_graph_remask(kac_device *, const kac_remask_args *, uint8_t *)
{
    return refuse();
}
