/* make_models.c -- writes small models into a folder for the shell tests, good ones and wrong
 * ones: make_models DIR. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "landscape.h"
#include "optimus.h"
#include "safetensors.h"

enum { STATES = 3, LENGTH = 4, ROWS = 256, OBJECTS = 81 }; /* ROWS = (S+1)^L, OBJECTS = S^L */

typedef struct model {
    const char *file;
    const char *arch;
    const char *alphabet;
    const char *length;
    const char *tensor;
    int64_t shape[3];
    int rank;
    float value; /* written over the first element, if not 0 */
} model;

static const model models[] = {
    {"denoiser", "table", "ABC", "4", "logits", {ROWS, LENGTH, STATES}, 3, 0},
    {"reward", "table", "ABC", "4", "reward", {OBJECTS}, 1, 0},
    {"judge", "pwm", "ABC", "4", "weight", {LENGTH, STATES}, 2, 0},
    {"chain", "table", "CNO", "4", "logits", {ROWS, LENGTH, STATES}, 3, 0}, /* SMILES */
    /* what is wrong with the rest is their name */
    {"nan", "table", "ABC", "4", "logits", {ROWS, LENGTH, STATES}, 3, NAN},
    {"infinite", "pwm", "ABC", "4", "weight", {LENGTH, STATES}, 2, 3e38F},
    {"shape", "table", "ABC", "4", "logits", {ROWS - 1, LENGTH, STATES}, 3, 0},
    {"length", "table", "ABC", "3", "reward", {27}, 1, 0},
    {"alphabet", "table", "ABD", "4", "reward", {OBJECTS}, 1, 0},
};

static kac_status write_model(const char *dir, const model *m)
{
    static float data[ROWS * LENGTH * STATES];
    size_t count = 1;
    kac_tensor tensor = {.name = m->tensor, .dtype = KAC_F32, .rank = m->rank, .data = data};
    for (int i = 0; i < m->rank; i++) {
        tensor.shape[i] = m->shape[i];
        count *= (size_t)m->shape[i];
    }
    tensor.bytes = count * sizeof *data;
    for (size_t i = 0; i < count; i++)
        data[i] = (float)(i * 7919 % 101) / 50 - 1; /* no two models need differ */
    if (m->value != 0) {
        data[0] = m->value;
        for (size_t i = STATES; i < count;
             i++) /* and sums of several leave the range of float */
            data[i] = m->value;
    }
    const char *const metadata[][2] = {
        {"kac.arch", m->arch}, {"kac.alphabet", m->alphabet}, {"kac.length", m->length}};
    char path[4096];
    snprintf(path, sizeof path, "%s/%s.safetensors", dir, m->file);
    return kac_tensors_write(path, metadata, 3, &tensor, 1);
}

/* The model of 5' UTRs that configs/utr5_svdd.yaml wants, where its source is at hand. */
static kac_status write_optimus(const char *dir)
{
    const optimus *o = &optimus_published[OPTIMUS_FILES - 1];
    char source[256], path[4096];
    snprintf(source, sizeof source, OPTIMUS_DATA "/%s.safetensors", o->file);
    snprintf(path, sizeof path, "%s/optimus5p.safetensors", dir);
    return access(source, R_OK) == 0 ? optimus_convert(o, source, path) : KAC_OK;
}

/* The models of configs/tis_smc.yaml and configs/gb1_smc.yaml, where the data are at hand. */
static kac_status write_landscape(const char *dir, const landscape_source *source)
{
    landscape s;
    char denoiser[4096], reward[4096];
    if (!landscape_here(source)) return KAC_OK;
    snprintf(denoiser, sizeof denoiser, "%s/%s_denoiser.safetensors", dir, source->name);
    snprintf(reward, sizeof reward, "%s/%s_%s.safetensors", dir, source->name, source->measure);
    if (!landscape_create(source->alphabet, source->length, &s))
        return KAC_FAIL(KAC_ERR_NOMEM, "no memory for %s", source->name);
    kac_status status = landscape_read(source, &s);
    if (status == KAC_OK) {
        landscape_fit(&s);
        status = landscape_write(&s, denoiser, reward);
    }
    landscape_free(&s);
    return status;
}

/* A denoiser of molecules of up to four atoms C, N or O: a mixture of graphs in closed form. */
static kac_status write_molecules(const char *dir)
{
    enum { NODES = 4, ATOMS = 3, PAIRS = 6, NUMBERS = 1 + NODES * ATOMS + PAIRS, KINDS = 5 };
    static const char atoms[KINDS][NODES + 1] = {"CCCO", "CCNC", "CNOC", "OCOC", "NCCN"};
    /* of the pairs 01 02 03 12 13 23; the last is in two pieces */
    static const char bonds[KINDS][PAIRS + 1] = {"100101", "110011", "201001", "200110",
                                                 "100001"};
    static float means[KINDS][NUMBERS], variances[KINDS], weights[KINDS];
    for (int k = 0; k < KINDS; k++) {
        float *pairs = means[k] + 1 + NODES * ATOMS;
        means[k][0] = NODES;
        for (int i = 0; i < NODES; i++)
            means[k][1 + i * ATOMS + (strchr("CNO", atoms[k][i]) - "CNO")] = 1;
        for (int p = 0; p < PAIRS; p++)
            pairs[p] = (float)(bonds[k][p] - '0');
        variances[k] = 0.02F;
        weights[k] = 1;
    }
    const kac_tensor tensors[] = {
        {"means", KAC_F32, 2, {KINDS, NUMBERS}, means, sizeof means},
        {"variances", KAC_F32, 1, {KINDS}, variances, sizeof variances},
        {"weights", KAC_F32, 1, {KINDS}, weights, sizeof weights}};
    const char *const metadata[][2] = {
        {"kac.arch", "gmm"},           {"kac.nodes", "4"},
        {"kac.features", "3"},         {"kac.noise_nodes", "ve 0.1 1"},
        {"kac.atoms", "C,N,O"},        {"kac.noise_pairs", "ve 0.1 1"},
        {"kac.node_counts", "3:1,4:4"}};
    char path[4096];
    snprintf(path, sizeof path, "%s/molecules.safetensors", dir);
    return kac_tensors_write(path, metadata, 7, tensors, 3);
}

/* A Gaussian mixture as a denoiser of graphs of up to 4 nodes, and a reward of them. */
static kac_status write_graphs(const char *dir)
{
    enum { NODES = 4, FEATURES = 2, NUMBERS = 1 + NODES * FEATURES + NODES * (NODES - 1) / 2 };
    static const char *const denoiser[][2] = {{"kac.arch", "gmm"},
                                              {"kac.nodes", "4"},
                                              {"kac.features", "2"},
                                              {"kac.noise_nodes", "ve 0.1 1"},
                                              {"kac.noise_pairs", "ve 0.1 1"},
                                              {"kac.node_counts", "1:1,3:2,4:3"}};
    static const char *const reward[][2] = {{"kac.arch", "quadratic"}};
    float means[2][NUMBERS], variances[2][NUMBERS], weights[2] = {0.25F, 0.75F};
    float matrix[NUMBERS], linear[NUMBERS], one[1] = {1};
    for (int l = 0; l < NUMBERS; l++) {
        for (int k = 0; k < 2; k++) {
            means[k][l] = (float)(l * 7919 % 11) / 10 + (float)k;
            variances[k][l] = 0.1F + 0.05F * (float)(l + k);
        }
        matrix[l] = (float)(l % 3) - 1;
        linear[l] = 0.1F * (float)(l % 4);
    }
    const kac_tensor mixture[] = {
        {"means", KAC_F32, 2, {2, NUMBERS}, means[0], sizeof means},
        {"variances", KAC_F32, 2, {2, NUMBERS}, variances[0], sizeof variances},
        {"weights", KAC_F32, 1, {2}, weights, sizeof weights}};
    const kac_tensor measurement[] = {
        {"matrix", KAC_F32, 2, {1, NUMBERS}, matrix, sizeof matrix},
        {"target", KAC_F32, 1, {1}, one, sizeof one},
        {"deviation", KAC_F32, 1, {1}, one, sizeof one},
        {"linear", KAC_F32, 1, {NUMBERS}, linear, sizeof linear}};
    char path[4096];
    snprintf(path, sizeof path, "%s/graphs.safetensors", dir);
    KAC_TRY(kac_tensors_write(path, denoiser, 6, mixture, 3));
    snprintf(path, sizeof path, "%s/graph_reward.safetensors", dir);
    return kac_tensors_write(path, reward, 1, measurement, 4);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fputs("usage: make_models DIR\n", stderr);
        return 2;
    }
    if (write_optimus(argv[1]) != KAC_OK || write_graphs(argv[1]) != KAC_OK ||
        write_landscape(argv[1], &landscape_tis) != KAC_OK ||
        write_landscape(argv[1], &landscape_gb1) != KAC_OK ||
        write_molecules(argv[1]) != KAC_OK) {
        fprintf(stderr, "make_models: %s\n", kac_last_error());
        return 1;
    }
    for (size_t i = 0; i < sizeof models / sizeof *models; i++)
        if (write_model(argv[1], &models[i]) != KAC_OK) {
            fprintf(stderr, "make_models: %s\n", kac_last_error());
            return 1;
        }
    return 0;
}
