/* cnn1d.c -- loads the dilated convolutional denoiser of masked diffusion. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "network.h"

/* kac.dilations, "1,1,4,16": one number a layer. */
static kac_status read_dilations(const kac_tensors *file, kac_cnn1d_weights *w)
{
    const char *path = kac_tensors_path(file);
    const char *text = kac_tensors_metadata(file, "kac.dilations");
    if (text == NULL)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: metadata `kac.dilations` is missing", path);
    for (const char *s = text;; s++) {
        char *end = NULL;
        errno = 0;
        long value = *s >= '0' && *s <= '9' ? strtol(s, &end, 10) : 0;
        if (errno != 0 || value < 1 || value > KAC_NETWORK_MAX_LENGTH ||
            (*end != ',' && *end != '\0'))
            return KAC_FAIL(KAC_ERR_INVALID,
                            "%s: metadata `kac.dilations` is `%s`, want numbers from 1 to %d "
                            "with commas between them",
                            path, text, KAC_NETWORK_MAX_LENGTH);
        if (w->layers == KAC_CNN1D_MAX_LAYERS)
            return KAC_FAIL(KAC_ERR_INVALID,
                            "%s: metadata `kac.dilations` has more than %d layers", path,
                            KAC_CNN1D_MAX_LAYERS);
        w->dilation[w->layers++] = (int32_t)value;
        s = end;
        if (*s == '\0') return KAC_OK;
    }
}

static kac_status read_sizes(const kac_tensors *file, kac_cnn1d_weights *w)
{
    const char *path = kac_tensors_path(file);
    const char *process = kac_tensors_metadata(file, "kac.process");
    int64_t value = 0;
    if (process == NULL || strcmp(process, "masked") != 0)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "%s: metadata `kac.process` is `%s`, a cnn1d needs masked", path,
                        process != NULL ? process : "");
    KAC_TRY(kac_tensors_integer(file, "kac.hidden", 1, KAC_CNN1D_MAX_HIDDEN, false, 0, &value));
    w->hidden = (int32_t)value;
    KAC_TRY(kac_tensors_integer(file, "kac.kernel", 1, KAC_CNN1D_MAX_KERNEL, false, 0, &value));
    w->kernel = (int32_t)value;
    if (w->kernel % 2 == 0)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: metadata `kac.kernel` is %d, want an odd number",
                        path, (int)w->kernel);
    KAC_TRY(kac_tensors_integer(file, "kac.time", 0, 1, false, 0, &value));
    w->reads_time = (int32_t)value;
    return read_dilations(file, w);
}

/* A tensor of the file and where its data go; a zero ends the shape. */
typedef struct want {
    const char *name;
    int64_t shape[3];
    const float **data;
} want;

static kac_status read_tensors(const kac_tensors *file, const want *wants, int count)
{
    for (int i = 0; i < count; i++) {
        const kac_tensor *tensor = NULL;
        int rank = 1;
        while (rank < 3 && wants[i].shape[rank] != 0)
            rank++;
        KAC_TRY(kac_tensors_floats(file, wants[i].name, rank, wants[i].shape, &tensor));
        *wants[i].data = tensor->data;
    }
    return KAC_OK;
}

/* The tensors of layer i; time_layers only where the file has the embedder. */
static kac_status read_layer(const kac_tensors *file, int i, kac_cnn1d_weights *w)
{
    const int64_t h = w->hidden;
    char conv[32];
    char conv_bias[32];
    char norm[32];
    char norm_bias[32];
    char dense[48];
    char dense_bias[48];
    (void)snprintf(conv, sizeof conv, "convs.%d.weight", i);
    (void)snprintf(conv_bias, sizeof conv_bias, "convs.%d.bias", i);
    (void)snprintf(norm, sizeof norm, "norms.%d.weight", i);
    (void)snprintf(norm_bias, sizeof norm_bias, "norms.%d.bias", i);
    (void)snprintf(dense, sizeof dense, "time_layers.%d.dense.weight", i);
    (void)snprintf(dense_bias, sizeof dense_bias, "time_layers.%d.dense.bias", i);
    const want wants[] = {{conv, {h, h, w->kernel}, &w->conv[i]},
                          {conv_bias, {h}, &w->conv_bias[i]},
                          {norm, {h}, &w->norm[i]},
                          {norm_bias, {h}, &w->norm_bias[i]},
                          {dense, {h, h}, &w->time[i]},
                          {dense_bias, {h}, &w->time_bias[i]}};
    return read_tensors(file, wants, w->fourier != NULL ? 6 : 4);
}

static kac_status load(kac_device *dev, const kac_tensors *file, kac_network *network)
{
    kac_cnn1d_weights w = {.states = network->states};
    KAC_TRY(read_sizes(file, &w));
    const int64_t h = w.hidden;
    const int64_t tokens = w.states + 1;
    const want wants[] = {{"linear.weight", {h, tokens, w.kernel}, &w.linear},
                          {"linear.bias", {h}, &w.linear_bias},
                          {"final_conv.0.weight", {h, h, 1}, &w.final0},
                          {"final_conv.0.bias", {h}, &w.final0_bias},
                          {"final_conv.2.weight", {tokens, h, 1}, &w.final2},
                          {"final_conv.2.bias", {tokens}, &w.final2_bias}};
    KAC_TRY(read_tensors(file, wants, (int)(sizeof wants / sizeof *wants)));

    bool has_time = w.reads_time || kac_tensors_find(file, "time_embedder.0.W") != NULL ||
                    kac_tensors_find(file, "time_embedder.1.weight") != NULL ||
                    kac_tensors_find(file, "time_layers.0.dense.weight") != NULL;
    if (has_time && h % 2 != 0)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "%s: kac.hidden is %d, time features need an even number",
                        kac_tensors_path(file), (int)h);
    if (has_time) {
        const want time[] = {{"time_embedder.0.W", {h / 2}, &w.fourier},
                             {"time_embedder.1.weight", {h, h}, &w.embed},
                             {"time_embedder.1.bias", {h}, &w.embed_bias}};
        KAC_TRY(read_tensors(file, time, (int)(sizeof time / sizeof *time)));
    }
    for (int i = 0; i < w.layers; i++)
        KAC_TRY(read_layer(file, i, &w));

    network->reads_time = w.reads_time;
    network->forward = dev->ops->networks.cnn1d.forward;
    network->vjp = dev->ops->networks.cnn1d.vjp;
    network->drop = dev->ops->networks.cnn1d.drop;
    return dev->ops->networks.cnn1d.pack(dev, &w, &network->net);
}

const kac_arch kac_arch_cnn1d = {.name = "cnn1d", .role = KAC_ROLE_DENOISER, .load = load};
