/* markov.c -- loads Markov chains. */
#include <math.h>

#include "network.h"

/* Whether p[states] is a probability vector, up to the rounding of float32. */
static kac_status check_law(const kac_tensors *file, const char *name, int row, const float *p,
                            int32_t states)
{
    double sum = 0;
    for (int32_t v = 0; v < states; v++) {
        if (p[v] < 0)
            return KAC_FAIL(KAC_ERR_INVALID, "%s: tensor `%s`: row %d has the probability %g",
                            kac_tensors_path(file), name, row, (double)p[v]);
        sum += (double)p[v];
    }
    if (fabs(sum - 1) > 1e-4)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: tensor `%s`: row %d sums to %g, want 1",
                        kac_tensors_path(file), name, row, sum);
    return KAC_OK;
}

static kac_status load(kac_device *dev, const kac_tensors *file, kac_network *network)
{
    int32_t s = network->states;
    const int64_t shape[2] = {s, s};
    const kac_tensor *initial = NULL;
    const kac_tensor *transition = NULL;
    KAC_TRY(kac_tensors_floats(file, "initial", 1, shape, &initial));
    KAC_TRY(kac_tensors_floats(file, "transition", 2, shape, &transition));
    KAC_TRY(check_law(file, "initial", 0, initial->data, s));
    for (int32_t u = 0; u < s; u++)
        KAC_TRY(check_law(file, "transition", u,
                          (const float *)transition->data + (int64_t)u * s, s));

    network->forward = dev->ops->networks.markov.forward;
    network->vjp = dev->ops->networks.markov.vjp;
    network->drop = dev->ops->networks.markov.drop;
    kac_markov_weights weights = {s, initial->data, transition->data};
    return dev->ops->networks.markov.pack(dev, &weights, &network->net);
}

const kac_arch kac_arch_markov = {.name = "markov", .role = KAC_ROLE_DENOISER, .load = load};
