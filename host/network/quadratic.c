/* quadratic.c -- loads quadratic rewards of vectors. */
#include "network.h"

static kac_status check_deviations(const kac_tensors *file, const kac_tensor *tensor)
{
    const float *s = tensor->data;
    for (int64_t i = 0; i < tensor->shape[0]; i++)
        if (!(s[i] > 0))
            return KAC_FAIL(KAC_ERR_INVALID,
                            "%s: tensor `deviation` holds %g, want more than 0",
                            kac_tensors_path(file), (double)s[i]);
    return KAC_OK;
}

static kac_status load(kac_device *dev, const kac_tensors *file, kac_network *network)
{
    const kac_quadratic_ops *ops = &dev->ops->networks.quadratic;
    const kac_tensor *matrix = NULL, *target = NULL, *deviation = NULL, *linear = NULL;
    const int64_t shape[2] = {-1, network->length > 0 ? network->length : -1};
    KAC_TRY(kac_tensors_floats(file, "matrix", 2, shape, &matrix));
    if (matrix->shape[0] < 1 || matrix->shape[0] > KAC_NETWORK_MAX_LENGTH ||
        matrix->shape[1] < 1 || matrix->shape[1] > KAC_NETWORK_MAX_LENGTH)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "%s: tensor `matrix` is [%lld, %lld], want sizes from 1 to %d",
                        kac_tensors_path(file), (long long)matrix->shape[0],
                        (long long)matrix->shape[1], KAC_NETWORK_MAX_LENGTH);
    KAC_TRY(kac_tensors_floats(file, "target", 1, &matrix->shape[0], &target));
    KAC_TRY(kac_tensors_floats(file, "deviation", 1, &matrix->shape[0], &deviation));
    KAC_TRY(check_deviations(file, deviation));
    if (kac_tensors_find(file, "linear") != NULL)
        KAC_TRY(kac_tensors_floats(file, "linear", 1, &matrix->shape[1], &linear));

    network->length = (int32_t)matrix->shape[1];
    network->fixed_length = 1;
    network->outputs = 1;
    network->takes_soft = 1;
    network->forward = ops->forward;
    network->vjp = ops->vjp;
    network->drop = ops->drop;
    kac_quadratic_weights weights = {
        .length = network->length,
        .measurements = (int32_t)matrix->shape[0],
        .matrix = matrix->data,
        .target = target->data,
        .deviation = deviation->data,
        .linear = linear != NULL ? linear->data : NULL,
    };
    return ops->pack(dev, &weights, &network->net);
}

const kac_arch kac_arch_quadratic = {
    .name = "quadratic", .role = KAC_ROLE_REWARD, .vectors = 1, .load = load};
