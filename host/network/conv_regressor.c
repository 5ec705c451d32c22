/* conv_regressor.c -- loads stacks of convolutions, pools and dense layers. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "network.h"

enum { MAX_OPTION = 1 << 15, MAX_CHANNELS = 1 << 24 }; /* option: taps, dilation, size */

static const char *const kinds[] = {"conv",      "dense",     "maxpool", "avgpool",
                                    "globalmax", "globalavg", "flatten"};
static const char *const activations[] = {"linear", "relu", "gelu", "tanh", "elu"};
enum {
    KINDS = sizeof kinds / sizeof *kinds,
    ACTIVATIONS = sizeof activations / sizeof *activations
};

/* Index of `word` in `words`, or -1. */
static int find_word(const char *const *words, int count, const char *word)
{
    for (int i = 0; i < count; i++)
        if (strcmp(words[i], word) == 0) return i;
    return -1;
}

/* A whole number in [1, MAX_OPTION], or 0. */
static int32_t read_option(const char *text)
{
    char *end = NULL;
    if (*text < '0' || *text > '9') return 0;
    errno = 0;
    long value = strtol(text, &end, 10);
    return errno == 0 && *end == '\0' && value >= 1 && value <= MAX_OPTION ? (int32_t)value : 0;
}

/* What kac.layers says of one layer. */
typedef struct description {
    kac_layer_kind kind;
    kac_activation act;
    int32_t dilation, size;
    bool same; /* padding */
} description;

/* One option, "key=value", of a layer. */
static kac_status parse_option(const char *path, int layer, char *text, description *out)
{
    char *value = text;
    const char *key = strsep(&value, "=");
    bool conv = out->kind == KAC_LAYER_CONV;
    bool pool = out->kind == KAC_LAYER_MAXPOOL || out->kind == KAC_LAYER_AVGPOOL;
    bool good = false;
    if (value == NULL) {
        good = false;
    } else if (strcmp(key, "act") == 0 && (conv || out->kind == KAC_LAYER_DENSE)) {
        int act = find_word(activations, ACTIVATIONS, value);
        if (act < 0)
            return KAC_FAIL(KAC_ERR_INVALID,
                            "%s: metadata `kac.layers`: layer %d: act is `%s`, want linear, "
                            "relu, gelu, tanh or elu",
                            path, layer, value);
        out->act = (kac_activation)act;
        good = true;
    } else if (strcmp(key, "pad") == 0 && conv) {
        out->same = strcmp(value, "same") == 0;
        good = out->same || strcmp(value, "valid") == 0;
    } else if (strcmp(key, "dilation") == 0 && conv) {
        out->dilation = read_option(value);
        good = out->dilation > 0;
    } else if (strcmp(key, "size") == 0 && pool) {
        out->size = read_option(value);
        good = out->size > 0;
    }
    if (good) return KAC_OK;
    return KAC_FAIL(
        KAC_ERR_INVALID,
        "%s: metadata `kac.layers`: layer %d: %s does not take `%s%s%s` (conv: pad=same "
        "or valid, dilation=1.., act; dense: act; pools: size=1..)",
        path, layer, kinds[out->kind], key, value != NULL ? "=" : "",
        value != NULL ? value : "");
}

/* One layer, "kind,key=value,...". */
static kac_status parse_layer(const char *path, int layer, char *text, description *out)
{
    const char *kind = strsep(&text, ",");
    int k = find_word(kinds, KINDS, kind);
    if (k < 0)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "%s: metadata `kac.layers`: layer %d is `%s`, want conv, dense, "
                        "maxpool, avgpool, globalmax, globalavg or flatten",
                        path, layer, kind);
    *out = (description){(kac_layer_kind)k, KAC_ACT_LINEAR, 1, 2, false};
    while (text != NULL)
        KAC_TRY(parse_option(path, layer, strsep(&text, ","), out));
    return KAC_OK;
}

/* The tensors of a conv or dense layer; they say how many taps and outputs it has. */
static kac_status find_weights(const kac_tensors *file, int i, kac_regressor_layer *layer)
{
    const char *path = kac_tensors_path(file);
    bool conv = layer->kind == KAC_LAYER_CONV;
    const int64_t conv_shape[3] = {-1, layer->in, -1};
    const int64_t dense_shape[2] = {layer->in, -1};
    const kac_tensor *kernel = NULL;
    const kac_tensor *bias = NULL;
    char name[32];
    (void)snprintf(name, sizeof name, "%d.kernel", i);
    KAC_TRY(
        kac_tensors_floats(file, name, conv ? 3 : 2, conv ? conv_shape : dense_shape, &kernel));
    int64_t taps = conv ? kernel->shape[0] : 1;
    int64_t outputs = kernel->shape[kernel->rank - 1];
    if (taps < 1 || taps > MAX_OPTION || outputs < 1 || outputs > MAX_CHANNELS)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: tensor `%s` has %lld taps and %lld outputs", path,
                        name, (long long)taps, (long long)outputs);
    (void)snprintf(name, sizeof name, "%d.bias", i);
    KAC_TRY(kac_tensors_floats(file, name, 1, &outputs, &bias));
    layer->taps = (int32_t)taps;
    layer->out = (int32_t)outputs;
    layer->kernel = kernel->data;
    layer->bias = bias->data;
    return KAC_OK;
}

/* Fills layer i, whose input is [in_length][in]; `flat` says that it is one vector. */
static kac_status make_layer(const kac_tensors *file, int i, const description *d, bool *flat,
                             kac_regressor_layer *layer)
{
    const char *path = kac_tensors_path(file);
    if (*flat != (d->kind == KAC_LAYER_DENSE))
        return KAC_FAIL(KAC_ERR_INVALID,
                        "%s: metadata `kac.layers`: layer %d (%s) can not follow what is "
                        "before it: %s",
                        path, i, kinds[d->kind],
                        *flat ? "only dense layers follow globalmax, globalavg and flatten"
                              : "a dense layer needs globalmax, globalavg or flatten before");
    layer->kind = d->kind;
    layer->act = d->act;
    layer->out = layer->in;
    layer->taps = layer->dilation = layer->size = 1;
    int64_t length = layer->in_length;
    switch (d->kind) {
    case KAC_LAYER_CONV: {
        KAC_TRY(find_weights(file, i, layer));
        int32_t margin = (layer->taps - 1) * d->dilation; /* < 2^30 */
        layer->dilation = d->dilation;
        layer->pad = d->same ? margin / 2 : 0;
        if (!d->same) length -= margin;
        break;
    }
    case KAC_LAYER_DENSE: KAC_TRY(find_weights(file, i, layer)); break;
    case KAC_LAYER_MAXPOOL:
    case KAC_LAYER_AVGPOOL:
        layer->size = d->size;
        length /= d->size;
        break;
    case KAC_LAYER_GLOBALMAX:
    case KAC_LAYER_GLOBALAVG:
        layer->size = layer->in_length;
        length = 1;
        *flat = true;
        break;
    case KAC_LAYER_FLATTEN:
        if (length * layer->in > MAX_CHANNELS)
            return KAC_FAIL(KAC_ERR_INVALID,
                            "%s: metadata `kac.layers`: layer %d gives %lld channels", path, i,
                            (long long)(length * layer->in));
        layer->out = (int32_t)(length * layer->in);
        length = 1;
        *flat = true;
        break;
    }
    if (length < 1)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "%s: metadata `kac.layers`: nothing is left of the sequence after "
                        "layer %d (%s)",
                        path, i, kinds[d->kind]);
    layer->out_length = (int32_t)length;
    return KAC_OK;
}

/* kac.layers and its tensors, from [length][states] to the outputs. */
static kac_status read_layers(const kac_tensors *file, char *text, int64_t length,
                              kac_conv_regressor_weights *weights)
{
    const char *path = kac_tensors_path(file);
    bool flat = false;
    int32_t channels = weights->states;
    while (text != NULL) {
        int i = weights->layers;
        description d;
        if (i == KAC_REGRESSOR_MAX_LAYERS)
            return KAC_FAIL(KAC_ERR_INVALID,
                            "%s: metadata `kac.layers` has more than %d layers", path,
                            KAC_REGRESSOR_MAX_LAYERS);
        KAC_TRY(parse_layer(path, i, strsep(&text, ";"), &d));
        kac_regressor_layer *layer = &weights->layer[i];
        layer->in = channels;
        layer->in_length = (int32_t)length;
        KAC_TRY(make_layer(file, i, &d, &flat, layer));
        channels = layer->out;
        length = layer->out_length;
        weights->layers++;
    }
    if (!flat)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "%s: metadata `kac.layers`: the last layer leaves a sequence; end with "
                        "globalmax, globalavg, or flatten and dense layers",
                        path);
    weights->outputs = channels;
    return KAC_OK;
}

/* Metadata as a finite number; `fallback` where absent. */
static kac_status read_number(const kac_tensors *file, const char *key, float fallback,
                              float *out)
{
    const char *text = kac_tensors_metadata(file, key);
    char *end = NULL;
    *out = fallback;
    if (text == NULL) return KAC_OK;
    float value = strtof(text, &end);
    if (end == text || *end != '\0' || !isfinite(value))
        return KAC_FAIL(KAC_ERR_INVALID, "%s: metadata `%s` is `%s`, want a finite number",
                        kac_tensors_path(file), key, text);
    *out = value;
    return KAC_OK;
}

/* Metadata as tokens; none where absent.  The caller frees *out. */
static kac_status read_letters(const kac_tensors *file, const char *key,
                               const kac_network *network, uint8_t **out, int32_t *length)
{
    const char *path = kac_tensors_path(file);
    const char *text = kac_tensors_metadata(file, key);
    if (text == NULL) return KAC_OK;
    size_t n = strlen(text);
    if (n > MAX_OPTION)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: metadata `%s` has %zu letters, want at most %d",
                        path, key, n, MAX_OPTION);
    uint8_t *tokens = malloc(n + 1);
    if (tokens == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "%s: out of memory", path);
    for (size_t i = 0; i < n; i++) {
        const char *letter = strchr(network->alphabet, text[i]);
        if (letter == NULL) {
            free(tokens);
            return KAC_FAIL(KAC_ERR_INVALID,
                            "%s: metadata `%s`: the letter %c is not in the alphabet %s", path,
                            key, text[i], network->alphabet);
        }
        tokens[i] = (uint8_t)(letter - network->alphabet);
    }
    *out = tokens;
    *length = (int32_t)n;
    return KAC_OK;
}

static kac_status load(kac_device *dev, const kac_tensors *file, kac_network *network)
{
    const char *path = kac_tensors_path(file);
    const char *layers = kac_tensors_metadata(file, "kac.layers");
    if (layers == NULL)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: metadata `kac.layers` is missing", path);
    if (network->length == 0)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: metadata `kac.length` is missing", path);

    kac_status status = KAC_OK;
    kac_conv_regressor_weights weights = {.states = network->states, .length = network->length};
    uint8_t *prefix = NULL;
    uint8_t *suffix = NULL;
    char *text = strdup(layers);
    if (text == NULL) {
        status = KAC_FAIL(KAC_ERR_NOMEM, "%s: out of memory", path);
        goto done;
    }
    KAC_TRY_DONE(read_letters(file, "kac.prefix", network, &prefix, &weights.prefix_length));
    KAC_TRY_DONE(read_letters(file, "kac.suffix", network, &suffix, &weights.suffix_length));
    KAC_TRY_DONE(read_number(file, "kac.scale", 1, &weights.scale));
    KAC_TRY_DONE(read_number(file, "kac.offset", 0, &weights.offset));
    weights.prefix = prefix;
    weights.suffix = suffix;
    KAC_TRY_DONE(read_layers(
        file, text, (int64_t)weights.prefix_length + network->length + weights.suffix_length,
        &weights));

    network->fixed_length = 1;
    network->outputs = weights.outputs;
    network->takes_soft = 1;
    network->forward = dev->ops->networks.conv_regressor.forward;
    network->vjp = dev->ops->networks.conv_regressor.vjp;
    network->drop = dev->ops->networks.conv_regressor.drop;
    KAC_TRY_DONE(dev->ops->networks.conv_regressor.pack(dev, &weights, &network->net));
done:
    free(text);
    free(prefix);
    free(suffix);
    return status;
}

const kac_arch kac_arch_conv_regressor = {
    .name = "conv_regressor", .role = KAC_ROLE_REWARD, .load = load};
