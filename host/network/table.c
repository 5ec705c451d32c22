/* table.c -- loads tables: a denoiser or a reward with every answer stored. */
#include "network.h"

/* base^length, or -1 where it is above 2^31. */
static int64_t power(int64_t base, int32_t length)
{
    int64_t product = 1;
    for (int32_t l = 0; l < length; l++) {
        product *= base;
        if (product > INT64_C(1) << 31) return -1;
    }
    return product;
}

/* The number of states of the model's length, which a table must have. */
static kac_status count_rows(const kac_tensors *file, const kac_network *network, int64_t base,
                             int64_t *out)
{
    if (network->length == 0)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: metadata `kac.length` is missing",
                        kac_tensors_path(file));
    *out = power(base, network->length);
    if (*out < 0)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "%s: a table of length %d over %lld digits has more than 2^31 rows",
                        kac_tensors_path(file), (int)network->length, (long long)base);
    return KAC_OK;
}

static kac_status pack(kac_device *dev, const kac_table_ops *ops, const kac_tensor *values,
                       int64_t rows, kac_network *network)
{
    network->fixed_length = 1;
    network->forward = ops->forward;
    network->vjp = ops->vjp;
    network->drop = ops->drop;
    kac_table_weights weights = {network->states, network->length, rows, values->data};
    return ops->pack(dev, &weights, &network->net);
}

static kac_status load_denoiser(kac_device *dev, const kac_tensors *file, kac_network *network)
{
    int64_t rows = 0;
    KAC_TRY(count_rows(file, network, network->states + 1, &rows));
    const kac_tensor *logits = NULL;
    const int64_t shape[3] = {rows, network->length, network->states};
    KAC_TRY(kac_tensors_floats(file, "logits", 3, shape, &logits));
    return pack(dev, &dev->ops->networks.table_denoiser, logits, rows, network);
}

static kac_status load_reward(kac_device *dev, const kac_tensors *file, kac_network *network)
{
    int64_t rows = 0;
    KAC_TRY(count_rows(file, network, network->states, &rows));
    const kac_tensor *reward = NULL;
    KAC_TRY(kac_tensors_rewards(file, "reward", 1, &rows, &reward));
    network->outputs = 1;
    network->takes_soft = 1;
    return pack(dev, &dev->ops->networks.table_reward, reward, rows, network);
}

const kac_arch kac_arch_table_denoiser = {
    .name = "table", .role = KAC_ROLE_DENOISER, .load = load_denoiser};
const kac_arch kac_arch_table_reward = {
    .name = "table", .role = KAC_ROLE_REWARD, .load = load_reward};
