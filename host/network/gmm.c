/* gmm.c -- loads Gaussian mixtures: the exact denoiser of vectors. */
#include "network.h"

/* Every number 0 or more, or more than 0. */
static kac_status check_numbers(const kac_tensors *file, const kac_tensor *tensor,
                                bool positive)
{
    const float *x = tensor->data;
    for (size_t i = 0; i < tensor->bytes / sizeof *x; i++)
        if (!(x[i] >= 0) || (positive && x[i] == 0))
            return KAC_FAIL(KAC_ERR_INVALID, "%s: tensor `%s` holds %g, want %s",
                            kac_tensors_path(file), tensor->name, (double)x[i],
                            positive ? "more than 0" : "0 or more");
    return KAC_OK;
}

/* Variances for each component, or for each of its numbers. */
static kac_status find_variances(const kac_tensors *file, const kac_tensor *means,
                                 const kac_tensor **out)
{
    const kac_tensor *found = kac_tensors_find(file, "variances");
    int rank = found != NULL && found->rank == 1 ? 1 : 2;
    KAC_TRY(kac_tensors_floats(file, "variances", rank, means->shape, out));
    return check_numbers(file, *out, false);
}

static kac_status load(kac_device *dev, const kac_tensors *file, kac_network *network)
{
    const kac_gmm_ops *ops = &dev->ops->networks.gmm;
    const kac_tensor *means = NULL, *variances = NULL, *mix = NULL;
    const int64_t shape[2] = {-1, network->length > 0 ? network->length : -1};
    KAC_TRY(kac_tensors_floats(file, "means", 2, shape, &means));
    if (means->shape[0] < 1 || means->shape[0] > KAC_GMM_MAX_COMPONENTS ||
        means->shape[1] < 1 || means->shape[1] > KAC_NETWORK_MAX_LENGTH)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "%s: tensor `means` is [%lld, %lld], want 1 to %d components and 1 to "
                        "%d numbers",
                        kac_tensors_path(file), (long long)means->shape[0],
                        (long long)means->shape[1], KAC_GMM_MAX_COMPONENTS,
                        KAC_NETWORK_MAX_LENGTH);
    KAC_TRY(find_variances(file, means, &variances));
    KAC_TRY(kac_tensors_floats(file, "weights", 1, means->shape, &mix));
    KAC_TRY(check_numbers(file, mix, true));

    network->length = (int32_t)means->shape[1];
    network->fixed_length = 1;
    network->reads_time = 1;
    network->forward = ops->forward;
    network->vjp = ops->vjp;
    network->drop = ops->drop;
    kac_gmm_weights weights = {
        .length = network->length,
        .components = (int32_t)means->shape[0],
        .weights = mix->data,
        .means = means->data,
        .variances = variances->data,
        .round = variances->rank == 1,
    };
    return ops->pack(dev, &weights, &network->net);
}

const kac_arch kac_arch_gmm = {
    .name = "gmm", .role = KAC_ROLE_DENOISER, .vectors = 1, .load = load};
