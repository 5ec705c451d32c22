/* gdss_cuda.cu -- scores of graphs: there is no code for a GPU, and every question is refused. */
#include "ops.h"

static kac_status refuse(void)
{
    return KAC_FAIL(KAC_ERR_UNSUPPORTED, "gdss: not on a GPU yet, use device cpu");
}

kac_status kac_cuda_gdss_pack(kac_device *dev, const kac_gdss_weights *host_weights,
                              kac_net **out)
{
    (void)dev, (void)host_weights, (void)out;
    return refuse();
}

kac_status kac_cuda_gdss_forward(kac_device *dev, const kac_net *net, const kac_query *q)
{
    (void)dev, (void)net, (void)q;
    return refuse();
}

kac_status kac_cuda_gdss_vjp(kac_device *dev, const kac_net *net, const kac_query *q,
                             const float *cotangent, float *grad)
{
    (void)dev, (void)net, (void)q, (void)cotangent, (void)grad;
    return refuse();
}

/* No network was ever packed. */
void kac_cuda_gdss_drop(kac_device *dev, kac_net *net)
{
    (void)dev, (void)net;
}
