/* convgru.c -- loads convolutions with a bidirectional GRU. */
#include "network.h"

enum { MAX_COUNT = 1 << 15 }; /* channels or outputs */

/* Tensors of a shape; *data points into the file. */
static kac_status find(const kac_tensors *file, const char *name, int rank,
                       const int64_t *shape, const float **data)
{
    const kac_tensor *x = NULL;
    KAC_TRY(kac_tensors_floats(file, name, rank, shape, &x));
    *data = x->data;
    return KAC_OK;
}

static kac_status find_vector(const kac_tensors *file, const char *name, int64_t size,
                              const float **data)
{
    return find(file, name, 1, &size, data);
}

static kac_status find_matrix(const kac_tensors *file, const char *name, int64_t rows,
                              int64_t columns, const float **data)
{
    const int64_t shape[2] = {rows, columns};
    return find(file, name, 2, shape, data);
}

/* The vector `part` of block i. */
static kac_status find_in_block(const kac_tensors *file, int i, const char *part, int64_t size,
                                const float **data)
{
    char name[64];
    (void)snprintf(name, sizeof name, "blocks.%d.%s", i, part);
    return find_vector(file, name, size, data);
}

static kac_status load_block(const kac_tensors *file, int i, kac_convgru_weights *w)
{
    const int64_t shape[3] = {w->channels, w->channels, KAC_CONVGRU_TAPS};
    char name[64];
    (void)snprintf(name, sizeof name, "blocks.%d.conv.weight", i);
    KAC_TRY(find(file, name, 3, shape, &w->conv[i]));
    KAC_TRY(find_in_block(file, i, "conv.bias", w->channels, &w->conv_bias[i]));

    (void)snprintf(name, sizeof name, "blocks.%d.norm.weight", i);
    if (kac_tensors_find(file, name) == NULL) return KAC_OK;
    KAC_TRY(find_in_block(file, i, "norm.weight", w->channels, &w->norm[i]));
    KAC_TRY(find_in_block(file, i, "norm.bias", w->channels, &w->norm_bias[i]));
    KAC_TRY(find_in_block(file, i, "norm.running_mean", w->channels, &w->norm_mean[i]));
    KAC_TRY(find_in_block(file, i, "norm.running_var", w->channels, &w->norm_var[i]));
    for (int32_t c = 0; c < w->channels; c++)
        if (w->norm_var[i][c] < 0)
            return KAC_FAIL(KAC_ERR_INVALID,
                            "%s: tensor `blocks.%d.norm.running_var`: element %d is %g, want a "
                            "variance",
                            kac_tensors_path(file), i, (int)c, (double)w->norm_var[i][c]);
    return KAC_OK;
}

static kac_status load_blocks(const kac_tensors *file, kac_convgru_weights *w)
{
    char name[64] = "blocks.0.conv.weight";
    while (kac_tensors_find(file, name) != NULL) {
        if (w->blocks == KAC_CONVGRU_MAX_BLOCKS)
            return KAC_FAIL(KAC_ERR_INVALID, "%s: more than %d blocks", kac_tensors_path(file),
                            KAC_CONVGRU_MAX_BLOCKS);
        KAC_TRY(load_block(file, w->blocks, w));
        w->blocks++;
        (void)snprintf(name, sizeof name, "blocks.%d.conv.weight", w->blocks);
    }
    return KAC_OK;
}

static kac_status load_gru(const kac_tensors *file, kac_convgru_weights *w)
{
    int64_t c = w->channels;
    static const char *const suffix[2] = {"", "_reverse"};
    for (int d = 0; d < 2; d++) {
        char name[64];
        (void)snprintf(name, sizeof name, "gru.weight_ih_l0%s", suffix[d]);
        KAC_TRY(find_matrix(file, name, 3 * c, c, &w->gru_input[d]));
        (void)snprintf(name, sizeof name, "gru.bias_ih_l0%s", suffix[d]);
        KAC_TRY(find_vector(file, name, 3 * c, &w->gru_input_bias[d]));
        (void)snprintf(name, sizeof name, "gru.weight_hh_l0%s", suffix[d]);
        KAC_TRY(find_matrix(file, name, 3 * c, c, &w->gru_hidden[d]));
        (void)snprintf(name, sizeof name, "gru.bias_hh_l0%s", suffix[d]);
        KAC_TRY(find_vector(file, name, 3 * c, &w->gru_hidden_bias[d]));
    }
    return KAC_OK;
}

/* The first size of tensor `name`, whose other sizes are given: channels or outputs. */
static kac_status find_count(const kac_tensors *file, const char *name, int64_t middle,
                             int64_t last, int32_t *count, const float **data)
{
    const int64_t shape[3] = {-1, middle, last};
    const kac_tensor *x = NULL;
    KAC_TRY(kac_tensors_floats(file, name, 3, shape, &x));
    if (x->shape[0] < 1 || x->shape[0] > MAX_COUNT)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: tensor `%s` has %lld rows, want 1 to %d",
                        kac_tensors_path(file), name, (long long)x->shape[0], MAX_COUNT);
    *count = (int32_t)x->shape[0];
    *data = x->data;
    return KAC_OK;
}

/* LayerNorm, the dense layers after it, and the head. */
static kac_status load_end(const kac_tensors *file, kac_convgru_weights *w)
{
    int64_t c = w->channels;
    KAC_TRY(find_vector(file, "norm.weight", c, &w->layer_norm));
    KAC_TRY(find_vector(file, "norm.bias", c, &w->layer_norm_bias));
    KAC_TRY(find_matrix(file, "ffn.0.weight", 2 * c, c, &w->ffn0));
    KAC_TRY(find_vector(file, "ffn.0.bias", 2 * c, &w->ffn0_bias));
    KAC_TRY(find_matrix(file, "ffn.1.weight", c, 2 * c, &w->ffn1));
    KAC_TRY(find_vector(file, "ffn.1.bias", c, &w->ffn1_bias));
    KAC_TRY(find_count(file, "head.weight", c, 1, &w->outputs, &w->head));
    return find_vector(file, "head.bias", w->outputs, &w->head_bias);
}

static kac_status load(kac_device *dev, const kac_tensors *file, kac_network *network)
{
    kac_convgru_weights w = {.states = network->states};
    int64_t residual = 0;
    KAC_TRY(kac_tensors_integer(file, "kac.residual", 0, 1, true, 0, &residual));
    w.residual = (int32_t)residual;
    KAC_TRY(find_count(file, "stem.weight", network->states, KAC_CONVGRU_STEM_TAPS, &w.channels,
                       &w.stem));
    KAC_TRY(find_vector(file, "stem.bias", w.channels, &w.stem_bias));
    KAC_TRY(load_blocks(file, &w));
    KAC_TRY(load_gru(file, &w));
    KAC_TRY(load_end(file, &w));

    network->outputs = w.outputs;
    network->takes_soft = 1;
    network->forward = dev->ops->networks.convgru.forward;
    network->vjp = dev->ops->networks.convgru.vjp;
    network->drop = dev->ops->networks.convgru.drop;
    return dev->ops->networks.convgru.pack(dev, &w, &network->net);
}

const kac_arch kac_arch_convgru = {.name = "convgru", .role = KAC_ROLE_REWARD, .load = load};
