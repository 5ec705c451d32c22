/* gdss.c -- loads the two networks of GDSS, with the names and metadata of its checkpoints. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "network.h"

/* Room for the names of a layer, of a part of it, of a tensor in that, and with .weight. */
enum { LAYER = 64, PART = 128, NAME = 192, FULL = 256 };

/* ---- metadata --------------------------------------------------------------------------- */

/* The object that metadata `key` holds as JSON; the caller's to give back. */
static kac_status read_object(const kac_tensors *file, const char *key, json_t **out)
{
    const char *text = kac_tensors_metadata(file, key);
    if (text == NULL)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: metadata `%s` is missing", kac_tensors_path(file),
                        key);
    *out = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    if (json_is_object(*out)) return KAC_OK;
    json_decref(*out);
    return KAC_FAIL(KAC_ERR_INVALID, "%s: metadata `%s` is not a JSON object",
                    kac_tensors_path(file), key);
}

/* A whole number in [low, high]. */
static kac_status read_integer(const kac_tensors *file, const char *key, const json_t *object,
                               const char *entry, int32_t low, int32_t high, int32_t *out)
{
    const json_t *value = json_object_get(object, entry);
    json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < low || number > high)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "%s: metadata `%s`: `%s` is not a whole number in [%d, %d]",
                        kac_tensors_path(file), key, entry, (int)low, (int)high);
    *out = (int32_t)number;
    return KAC_OK;
}

/* Which of `allowed` (ends in NULL) the text of an entry is. */
static kac_status read_choice(const kac_tensors *file, const char *key, const json_t *object,
                              const char *entry, const char *const *allowed, int32_t *out)
{
    char list[NAME] = "";
    const char *text = json_string_value(json_object_get(object, entry));
    for (int32_t i = 0; allowed[i] != NULL; i++) {
        size_t used = strlen(list);
        if (text != NULL && strcmp(text, allowed[i]) == 0) {
            *out = i;
            return KAC_OK;
        }
        (void)snprintf(list + used, sizeof list - used, "%s%s", i > 0 ? " or " : "",
                       allowed[i]);
    }
    return KAC_FAIL(KAC_ERR_INVALID, "%s: metadata `%s`: `%s` is `%s`, want %s",
                    kac_tensors_path(file), key, entry, text == NULL ? "" : text, list);
}

static kac_status read_number(const kac_tensors *file, const char *key, const json_t *object,
                              const char *entry, double *out)
{
    const json_t *value = json_object_get(object, entry);
    *out = json_number_value(value);
    if (json_is_number(value) && *out > 0) return KAC_OK;
    return KAC_FAIL(KAC_ERR_INVALID, "%s: metadata `%s`: `%s` is not a number above 0",
                    kac_tensors_path(file), key, entry);
}

static kac_status read_noise(const kac_tensors *file, const char *key, kac_noise *out)
{
    static const char *const kinds[] = {"VP", "VE", NULL};
    kac_status status = KAC_OK;
    json_t *object = NULL;
    int32_t kind = 0;
    KAC_TRY(read_object(file, key, &object));
    KAC_TRY_DONE(read_choice(file, key, object, "type", kinds, &kind));
    KAC_TRY_DONE(read_number(file, key, object, "beta_min", &out->low));
    KAC_TRY_DONE(read_number(file, key, object, "beta_max", &out->high));
    out->kind = kind == 0 ? KAC_NOISE_VP : KAC_NOISE_VE;
    if (out->low > out->high)
        status = KAC_FAIL(KAC_ERR_INVALID, "%s: metadata `%s`: `beta_min` is above `beta_max`",
                          kac_tensors_path(file), key);
done:
    json_decref(object);
    return status;
}

/* The heads, which the shapes do not say, and that the rest is what kac computes. */
static kac_status read_attention(const kac_tensors *file, const char *key, const json_t *object,
                                 kac_gdss_network *w)
{
    static const char *const convs[] = {"GCN", NULL};
    int32_t ignored = 0;
    KAC_TRY(read_choice(file, key, object, "conv", convs, &ignored));
    KAC_TRY(
        read_integer(file, key, object, "c_init", KAC_GDSS_POWERS, KAC_GDSS_POWERS, &ignored));
    return read_integer(file, key, object, "num_heads", 1, KAC_GDSS_MAX_WIDTH, &w->heads);
}

/* Which kind of network it is, that of the nodes or that of the adjacency. */
static kac_status read_params(const kac_tensors *file, const char *key, bool nodes,
                              kac_gdss_network *w)
{
    static const char *const of_nodes[] = {"ScoreNetworkX", "ScoreNetworkX_GMH", NULL};
    static const char *const of_pairs[] = {"ScoreNetworkA", NULL};
    kac_status status = KAC_OK;
    json_t *object = NULL;
    int32_t kind = 0;
    KAC_TRY(read_object(file, key, &object));
    KAC_TRY_DONE(
        read_choice(file, key, object, "model_type", nodes ? of_nodes : of_pairs, &kind));
    w->attends = nodes ? kind : 1;
    if (w->attends) KAC_TRY_DONE(read_attention(file, key, object, w));
done:
    json_decref(object);
    return status;
}

/* ---- tensors ---------------------------------------------------------------------------- */

/* NAME.weight and NAME.bias.  The weight is [out][in], of a convolution [in][out]; `in` is
 * layer->in, out what the weight says. */
static kac_status find_linear(const kac_tensors *file, const char *name, bool conv,
                              kac_gdss_linear *layer)
{
    char full[FULL];
    const kac_tensor *x = NULL;
    const int64_t shape[2] = {conv ? layer->in : -1, conv ? -1 : layer->in};
    (void)snprintf(full, sizeof full, "%s.weight", name);
    KAC_TRY(kac_tensors_floats(file, full, 2, shape, &x));
    const int64_t out = x->shape[conv ? 1 : 0];
    if (out < 1 || out > KAC_GDSS_MAX_WIDTH)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: tensor `%s` has %lld outputs, want 1 to %d",
                        kac_tensors_path(file), full, (long long)out, KAC_GDSS_MAX_WIDTH);
    layer->out = (int32_t)out;
    layer->weight = x->data;
    (void)snprintf(full, sizeof full, "%s.bias", name);
    KAC_TRY(kac_tensors_floats(file, full, 1, &out, &x));
    layer->bias = x->data;
    return KAC_OK;
}

static bool exists(const kac_tensors *file, const char *name)
{
    char full[FULL];
    (void)snprintf(full, sizeof full, "%s.weight", name);
    return kac_tensors_find(file, full) != NULL;
}

/* `in` features to `out`, -1: any number. */
static kac_status find_mlp(const kac_tensors *file, const char *name, int32_t in, int32_t out,
                           kac_gdss_mlp *mlp)
{
    char full[NAME];
    (void)snprintf(full, sizeof full, "%s.linears.0", name);
    do {
        if (mlp->layers == KAC_GDSS_MAX_LINEARS)
            return KAC_FAIL(KAC_ERR_INVALID, "%s: `%s` has more than %d layers",
                            kac_tensors_path(file), name, KAC_GDSS_MAX_LINEARS);
        kac_gdss_linear *layer = &mlp->layer[mlp->layers++];
        layer->in = in;
        KAC_TRY(find_linear(file, full, false, layer));
        in = layer->out;
        (void)snprintf(full, sizeof full, "%s.linears.%d", name, (int)mlp->layers);
    } while (exists(file, full));
    if (out < 0 || in == out) return KAC_OK;
    return KAC_FAIL(KAC_ERR_INVALID, "%s: `%s` has %d outputs, want %d", kac_tensors_path(file),
                    name, (int)in, (int)out);
}

/* The three convolutions of channel c, alike in all channels. */
static kac_status find_convs(const kac_tensors *file, const char *name, int32_t c, int32_t in,
                             int32_t heads, kac_gdss_attention *layer)
{
    static const char *const parts[KAC_GDSS_PARTS] = {"gnn_q", "gnn_k", "gnn_v"};
    for (int i = 0; i < KAC_GDSS_PARTS; i++) {
        char full[PART];
        kac_gdss_linear *conv = &layer->conv[c][i];
        const kac_gdss_linear *like = &layer->conv[0][i == KAC_GDSS_KEY ? KAC_GDSS_QUERY : i];
        (void)snprintf(full, sizeof full, "%s.attn.%d.%s", name, (int)c, parts[i]);
        conv->in = in;
        KAC_TRY(find_linear(file, full, true, conv));
        if (conv->out != like->out || (i != KAC_GDSS_VALUE && conv->out % heads != 0))
            return KAC_FAIL(KAC_ERR_INVALID,
                            "%s: `%s` has %d outputs, want %d, and of queries and keys a "
                            "multiple of the %d heads",
                            kac_tensors_path(file), full, (int)conv->out, (int)like->out,
                            (int)heads);
    }
    return KAC_OK;
}

/* An attention layer; *features and *channels, what it reads, become what it gives. */
static kac_status find_attention(const kac_tensors *file, const char *name, int32_t heads,
                                 int32_t *features, int32_t *channels,
                                 kac_gdss_attention *layer)
{
    char full[PART];
    layer->channels = *channels;
    if (*channels > KAC_GDSS_MAX_CHANNELS)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: `%s` reads %d channels, want at most %d",
                        kac_tensors_path(file), name, (int)*channels, KAC_GDSS_MAX_CHANNELS);
    for (int32_t c = 0; c < *channels; c++)
        KAC_TRY(find_convs(file, name, c, *features, heads, layer));
    (void)snprintf(full, sizeof full, "%s.multi_channel", name);
    KAC_TRY(find_mlp(file, full, *channels * layer->conv[0][KAC_GDSS_VALUE].out, -1,
                     &layer->nodes));
    (void)snprintf(full, sizeof full, "%s.mlp", name);
    KAC_TRY(find_mlp(file, full, 2 * *channels, -1, &layer->pairs));
    *features = layer->nodes.layer[layer->nodes.layers - 1].out;
    *channels = layer->pairs.layer[layer->pairs.layers - 1].out;
    return KAC_OK;
}

/* The layers and the end of a network whose tensors begin with `prefix`. */
static kac_status find_network(const kac_tensors *file, const char *prefix, int32_t features,
                               bool nodes, kac_gdss_network *w)
{
    char name[LAYER];
    int32_t in = features, channels = KAC_GDSS_POWERS;
    int32_t all_features = features, all_channels = channels;
    for (;;) {
        (void)snprintf(name, sizeof name, "%s.layers.%d%s", prefix, (int)w->layers,
                       w->attends ? ".attn.0.gnn_q" : "");
        if (w->layers > 0 && !exists(file, name)) break;
        (void)snprintf(name, sizeof name, "%s.layers.%d", prefix, (int)w->layers);
        if (w->layers == KAC_GDSS_MAX_LAYERS)
            return KAC_FAIL(KAC_ERR_INVALID, "%s: `%s` has more than %d layers",
                            kac_tensors_path(file), prefix, KAC_GDSS_MAX_LAYERS);
        if (w->attends) {
            KAC_TRY(
                find_attention(file, name, w->heads, &in, &channels, &w->attention[w->layers]));
        } else {
            w->conv[w->layers].in = in;
            KAC_TRY(find_linear(file, name, true, &w->conv[w->layers]));
            in = w->conv[w->layers].out;
        }
        all_features += in;
        all_channels += channels;
        w->layers++;
    }
    (void)snprintf(name, sizeof name, "%s.final", prefix);
    return find_mlp(file, name, nodes ? all_features : all_channels, nodes ? features : 1,
                    &w->final);
}

static kac_status find_weights(const kac_tensors *file, kac_gdss_weights *w)
{
    int64_t nodes = 0, features = 0;
    KAC_TRY(kac_tensors_integer(file, "max_node_num", 1, KAC_GDSS_MAX_NODES, false, 0, &nodes));
    KAC_TRY(
        kac_tensors_integer(file, "max_feat_num", 1, KAC_GDSS_MAX_WIDTH, false, 0, &features));
    w->nodes = (int32_t)nodes;
    w->features = (int32_t)features;
    KAC_TRY(read_params(file, "params_x", true, &w->x));
    KAC_TRY(read_params(file, "params_adj", false, &w->adj));
    KAC_TRY(find_network(file, "x", w->features, true, &w->x));
    return find_network(file, "adj", w->features, false, &w->adj);
}

/* The elements that the features are, by the name of the data that the network was trained with;
 * "" where that is none of the two sets of molecules. */
static const char *atoms_of(const kac_tensors *file)
{
    const char *text = kac_tensors_metadata(file, "model_config"), *name = NULL;
    json_t *config = text != NULL ? json_loads(text, 0, NULL) : NULL;
    name = json_string_value(json_object_get(json_object_get(config, "data"), "data"));
    const char *atoms = name == NULL                    ? ""
                        : strcmp(name, "QM9") == 0      ? "C,N,O,F"
                        : strcmp(name, "ZINC250k") == 0 ? "C,N,O,F,P,S,Cl,Br,I"
                                                        : "";
    json_decref(config);
    return atoms;
}

static kac_status load(kac_device *dev, const kac_tensors *file, kac_network *network)
{
    const kac_gdss_ops *ops = &dev->ops->networks.gdss;
    kac_status status = KAC_OK;
    kac_gdss_weights *w = calloc(1, sizeof *w);
    if (w == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "%s: out of memory", kac_tensors_path(file));
    KAC_TRY_DONE(find_weights(file, w));
    KAC_TRY_DONE(read_noise(file, "sde_x", &network->graph.noise[0]));
    KAC_TRY_DONE(read_noise(file, "sde_adj", &network->graph.noise[1]));
    network->graph.nodes = w->nodes;
    network->graph.features = w->features;
    snprintf(network->graph.atoms, sizeof network->graph.atoms, "%s", atoms_of(file));
    network->graph.length = 1 + w->nodes * w->features + w->nodes * (w->nodes - 1) / 2;
    network->length = network->graph.length;
    network->fixed_length = 1;
    network->forward = ops->forward;
    network->vjp = ops->vjp;
    network->drop = ops->drop;
    KAC_TRY_DONE(ops->pack(dev, w, &network->net));
done:
    free(w);
    return status;
}

const kac_arch kac_arch_gdss = {
    .name = "gdss", .role = KAC_ROLE_DENOISER, .vectors = 1, .scores = 1, .load = load};
