/* gin.c -- loads graph isomorphism networks, with PyTorch's names; a BatchNorm goes into the dense
 * layer before it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "network.h"

enum { NAME = 64, FULL = 96 }; /* room for a layer, and for a tensor of it */

/* What a file says, and the layers whose weights are not as it has them: [out][in], then [out],
 * to free. */
typedef struct contents {
    kac_gin_weights w;
    float *folded[KAC_GIN_MAX_LAYERS][2];
} contents;

/* NAME.weight [out][in] and NAME.bias [out], out what the weight says. */
static kac_status find_linear(const kac_tensors *file, const char *name, int32_t in,
                              int32_t *out, const float **weight, const float **bias)
{
    char full[FULL];
    const kac_tensor *x = NULL;
    const int64_t shape[2] = {-1, in};
    (void)snprintf(full, sizeof full, "%s.weight", name);
    KAC_TRY(kac_tensors_floats(file, full, 2, shape, &x));
    if (x->shape[0] < 1 || x->shape[0] > KAC_GIN_MAX_WIDTH)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: tensor `%s` has %lld outputs, want 1 to %d",
                        kac_tensors_path(file), full, (long long)x->shape[0],
                        KAC_GIN_MAX_WIDTH);
    *out = (int32_t)x->shape[0];
    *weight = x->data;
    (void)snprintf(full, sizeof full, "%s.bias", name);
    KAC_TRY(kac_tensors_floats(file, full, 1, &x->shape[0], &x));
    *bias = x->data;
    return KAC_OK;
}

typedef struct norm {
    const float *weight, *bias, *mean, *var;
} norm;

static bool exists(const kac_tensors *file, const char *name)
{
    char full[FULL];
    (void)snprintf(full, sizeof full, "%s.weight", name);
    return kac_tensors_find(file, full) != NULL;
}

static kac_status find_norm(const kac_tensors *file, const char *name, int64_t size, norm *n)
{
    static const char *const parts[] = {"weight", "bias", "running_mean", "running_var"};
    const float **const data[] = {&n->weight, &n->bias, &n->mean, &n->var};
    for (int i = 0; i < 4; i++) {
        char full[FULL];
        const kac_tensor *x = NULL;
        (void)snprintf(full, sizeof full, "%s.%s", name, parts[i]);
        KAC_TRY(kac_tensors_floats(file, full, 1, &size, &x));
        *data[i] = x->data;
    }
    for (int64_t c = 0; c < size; c++)
        if (n->var[c] < 0)
            return KAC_FAIL(KAC_ERR_INVALID,
                            "%s: tensor `%s.running_var`: element %lld is %g, want a variance",
                            kac_tensors_path(file), name, (long long)c, (double)n->var[c]);
    return KAC_OK;
}

/* norm(weight x + bias) = gain weight x + (bias - mean) gain + norm.bias, where the file has that
 * BatchNorm. */
static kac_status fold(const kac_tensors *file, const char *name, int32_t in, int32_t out,
                       const float **weight, const float **bias, float **folded)
{
    const double batch_epsilon = 1e-5;
    norm n = {0};
    if (!exists(file, name)) return KAC_OK;
    KAC_TRY(find_norm(file, name, out, &n));
    *folded = calloc((size_t)out * ((size_t)in + 1), sizeof **folded);
    if (*folded == NULL)
        return KAC_FAIL(KAC_ERR_NOMEM, "%s: out of memory", kac_tensors_path(file));
    float *moved = *folded + (int64_t)out * in;
    for (int32_t o = 0; o < out; o++) {
        double gain = (double)n.weight[o] / sqrt((double)n.var[o] + batch_epsilon);
        for (int64_t j = (int64_t)o * in; j < ((int64_t)o + 1) * in; j++)
            (*folded)[j] = (float)((double)(*weight)[j] * gain);
        moved[o] = (float)(((double)(*bias)[o] - (double)n.mean[o]) * gain + (double)n.bias[o]);
    }
    *weight = *folded;
    *bias = moved;
    return KAC_OK;
}

/* Layer i, which reads `in` channels. */
static kac_status find_layer(const kac_tensors *file, int32_t i, int32_t in, contents *c)
{
    kac_gin_layer *layer = &c->w.layer[i];
    char name[NAME];
    layer->in = in;
    (void)snprintf(name, sizeof name, "convs.%d.nn.0", (int)i);
    KAC_TRY(find_linear(file, name, in, &layer->hidden, &layer->weight[0], &layer->bias[0]));
    (void)snprintf(name, sizeof name, "convs.%d.nn.1", (int)i);
    KAC_TRY(fold(file, name, in, layer->hidden, &layer->weight[0], &layer->bias[0],
                 &c->folded[i][0]));
    (void)snprintf(name, sizeof name, "convs.%d.nn.3", (int)i);
    KAC_TRY(find_linear(file, name, layer->hidden, &layer->out, &layer->weight[1],
                        &layer->bias[1]));
    (void)snprintf(name, sizeof name, "batch_norms.%d", (int)i);
    return fold(file, name, layer->hidden, layer->out, &layer->weight[1], &layer->bias[1],
                &c->folded[i][1]);
}

static kac_status find_layers(const kac_tensors *file, contents *c)
{
    char name[NAME] = "convs.0.nn.0";
    int32_t in = c->w.features;
    do {
        if (c->w.layers == KAC_GIN_MAX_LAYERS)
            return KAC_FAIL(KAC_ERR_INVALID, "%s: more than %d layers", kac_tensors_path(file),
                            KAC_GIN_MAX_LAYERS);
        KAC_TRY(find_layer(file, c->w.layers, in, c));
        in = c->w.layer[c->w.layers++].out;
        (void)snprintf(name, sizeof name, "convs.%d.nn.0", (int)c->w.layers);
    } while (exists(file, name));
    return find_linear(file, "lin", in, &c->w.outputs, &c->w.weight, &c->w.bias);
}

/* The sizes, and that the file means what kac computes. */
static kac_status read_sizes(const kac_tensors *file, kac_network *network, contents *c)
{
    int64_t nodes = 0, features = 0;
    const char *edges = kac_tensors_metadata(file, "kac.edges");
    KAC_TRY(kac_tensors_integer(file, "kac.nodes", 1, KAC_GIN_MAX_NODES, false, 0, &nodes));
    KAC_TRY(
        kac_tensors_integer(file, "kac.features", 1, KAC_GIN_MAX_WIDTH, false, 0, &features));
    if (edges == NULL || strcmp(edges, "complete") != 0)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "%s: metadata `kac.edges` is `%s`, want `complete`: every live node is "
                        "a neighbour of every other, as in a noisy adjacency, where no number "
                        "is 0",
                        kac_tensors_path(file), edges == NULL ? "" : edges);
    c->w.nodes = (int32_t)nodes;
    c->w.features = (int32_t)features;
    const int64_t length = 1 + nodes * features + nodes * (nodes - 1) / 2;
    if (length > KAC_NETWORK_MAX_LENGTH)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "%s: graphs of %lld nodes with %lld features are too large",
                        kac_tensors_path(file), (long long)nodes, (long long)features);
    network->length = (int32_t)length;
    return KAC_OK;
}

static kac_status load(kac_device *dev, const kac_tensors *file, kac_network *network)
{
    const kac_gin_ops *ops = &dev->ops->networks.gin;
    kac_status status = KAC_OK;
    contents *c = calloc(1, sizeof *c);
    if (c == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "%s: out of memory", kac_tensors_path(file));
    KAC_TRY_DONE(read_sizes(file, network, c));
    KAC_TRY_DONE(find_layers(file, c));
    network->fixed_length = 1;
    network->outputs = c->w.outputs;
    network->takes_soft = 1;
    network->forward = ops->forward;
    network->vjp = ops->vjp;
    network->drop = ops->drop;
    KAC_TRY_DONE(ops->pack(dev, &c->w, &network->net));
done:
    for (int i = 0; i < KAC_GIN_MAX_LAYERS; i++)
        for (int k = 0; k < 2; k++)
            free(c->folded[i][k]);
    free(c);
    return status;
}

const kac_arch kac_arch_gin = {
    .name = "gin", .role = KAC_ROLE_REWARD, .vectors = 1, .load = load};
