/* graph_model.c -- what the file of a denoiser of graphs says of them, in its metadata. */
#include "network.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "molecule.h"
#include "process.h"

enum { MOST_NODES = 1024, MOST_FEATURES = 1024 };

/* Two numbers after a word of two letters, "vp 0.1 1". */
static bool read_ends(const char *text, kac_noise *out)
{
    char *end = NULL;
    if (strlen(text) < 3 || text[2] != ' ') return false;
    out->low = strtod(text + 3, &end);
    if (end == text + 3 || *end != ' ') return false;
    text = end + 1;
    out->high = strtod(text, &end);
    return end != text && *end == '\0' && isfinite(out->high) && out->low <= out->high;
}

static kac_status read_noise(const kac_tensors *file, const char *key, kac_noise *out)
{
    const char *text = kac_tensors_metadata(file, key);
    if (text == NULL)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "%s: metadata `%s` is missing, which a denoiser of graphs needs",
                        kac_tensors_path(file), key);
    bool read = read_ends(text, out);
    if (read && strncmp(text, "vp", 2) == 0 && out->low >= 0 && out->high > 0)
        out->kind = KAC_NOISE_VP;
    else if (read && strncmp(text, "ve", 2) == 0 && out->low > 0)
        out->kind = KAC_NOISE_VE;
    else
        return KAC_FAIL(KAC_ERR_INVALID,
                        "%s: metadata `%s` is `%s`, want vp with beta_min and beta_max, or ve "
                        "with sigma_min and sigma_max, such as `vp 0.1 1`",
                        kac_tensors_path(file), key, text);
    return KAC_OK;
}

static bool is_one_noise(const kac_noise *a, const kac_noise *b)
{
    return a->kind == b->kind && a->low == b->low && a->high == b->high;
}

static kac_status read_counts(const kac_tensors *file, char *out, size_t size)
{
    const char *text = kac_tensors_metadata(file, "kac.node_counts");
    if (text == NULL) return KAC_OK;
    if (strlen(text) >= size || !kac_graph_reads_counts(text))
        return KAC_FAIL(KAC_ERR_INVALID,
                        "%s: metadata `kac.node_counts` is not nodes:weight, with commas "
                        "between them, such as `3:10,4:25`",
                        kac_tensors_path(file));
    memcpy(out, text, strlen(text) + 1);
    return KAC_OK;
}

static kac_status read_atoms(const kac_tensors *file, char *out, size_t size)
{
    const char *text = kac_tensors_metadata(file, "kac.atoms");
    if (text == NULL) return KAC_OK;
    if (strlen(text) >= size || !kac_chemistry_reads(text))
        return KAC_FAIL(KAC_ERR_INVALID,
                        "%s: metadata `kac.atoms` is `%.60s`, want symbols of C N O F P S Cl "
                        "Br I B with commas between them, such as `C,N,O,F`",
                        kac_tensors_path(file), text);
    memcpy(out, text, strlen(text) + 1);
    return KAC_OK;
}

/* All but the counts and atoms. */
static kac_status read_sizes(const kac_tensors *file, const kac_network *network,
                             kac_graph_model *out)
{
    int64_t nodes = 0, features = 0;
    KAC_TRY(kac_tensors_integer(file, "kac.nodes", 1, MOST_NODES, false, 0, &nodes));
    KAC_TRY(kac_tensors_integer(file, "kac.features", 1, MOST_FEATURES, false, 0, &features));
    KAC_TRY(read_noise(file, "kac.noise_nodes", &out->noise[0]));
    KAC_TRY(read_noise(file, "kac.noise_pairs", &out->noise[1]));
    out->nodes = (int32_t)nodes;
    out->features = (int32_t)features;
    out->length = (int32_t)(1 + nodes * features + nodes * (nodes - 1) / 2);
    if (!is_one_noise(&out->noise[0], &out->noise[1]))
        return KAC_FAIL(KAC_ERR_INVALID,
                        "%s: metadata `kac.noise_pairs` must be `kac.noise_nodes`, because "
                        "this denoiser reads one noise",
                        kac_tensors_path(file));
    if (out->length != network->length)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "%s: graphs of %d nodes with %d features are vectors of %d numbers, "
                        "and its own have %d",
                        kac_tensors_path(file), (int)nodes, (int)features, (int)out->length,
                        (int)network->length);
    return KAC_OK;
}

kac_status kac_graph_model_read(const kac_tensors *file, kac_network *network)
{
    kac_graph_model *graph = &network->graph;
    graph->scores = network->arch->scores;
    if (graph->nodes == 0) {
        if (kac_tensors_metadata(file, "kac.nodes") == NULL) return KAC_OK;
        KAC_TRY(read_sizes(file, network, graph));
    }
    KAC_TRY(read_atoms(file, graph->atoms, sizeof graph->atoms));
    return read_counts(file, graph->counts, sizeof graph->counts);
}
