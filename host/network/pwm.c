/* pwm.c -- loads position weight matrices. */
#include "network.h"

static kac_status load(kac_device *dev, const kac_tensors *file, kac_network *network)
{
    const kac_tensor *weight = NULL;
    const int64_t shape[2] = {network->length > 0 ? network->length : -1, network->states};
    KAC_TRY(kac_tensors_floats(file, "weight", 2, shape, &weight));
    if (weight->shape[0] < 1 || weight->shape[0] > KAC_NETWORK_MAX_LENGTH)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: tensor `weight` has %lld rows, want 1 to %d",
                        kac_tensors_path(file), (long long)weight->shape[0],
                        KAC_NETWORK_MAX_LENGTH);

    network->length = (int32_t)weight->shape[0];
    network->fixed_length = 1;
    network->outputs = 1;
    network->takes_soft = 1;
    network->forward = dev->ops->networks.pwm.forward;
    network->vjp = dev->ops->networks.pwm.vjp;
    network->drop = dev->ops->networks.pwm.drop;
    kac_pwm_weights weights = {network->states, network->length, weight->data};
    return dev->ops->networks.pwm.pack(dev, &weights, &network->net);
}

const kac_arch kac_arch_pwm = {.name = "pwm", .role = KAC_ROLE_REWARD, .load = load};
