/* optimus.h -- the published Optimus 5-prime files as conv_regressor models, for tests.
 *
 * tools/convert_optimus5p.py does this for users; the tests need no Python.
 */
#ifndef KAC_OPTIMUS_H
#define KAC_OPTIMUS_H

#include <stdio.h>

#include "safetensors.h"

#define OPTIMUS_DATA "../shared/data/optimus_5utr"

/* A published file, and where its layers go in kac.layers. */
typedef struct optimus {
    const char *file, *layers, *suffix, *outputs;
    const char *source[5];
    const char *target[5];
} optimus;

enum { OPTIMUS_FILES = 3 };

static const optimus optimus_published[OPTIMUS_FILES] = {
    {"optimus_evolution",
     "conv,act=relu;conv,act=relu;flatten;dense,act=relu;dense",
     "ATGG",
     "evolution.out_f32",
     {"convolution1d_1", "convolution1d_2", "dense_1", "dense_2"},
     {"0", "1", "3", "4"}},
    {"optimus_retrained_evolution",
     "conv,act=relu;conv,act=relu;flatten;dense,act=relu;dense",
     "ATGG",
     "retrained_evolution.out_f32",
     {"convolution1d_1", "convolution1d_2", "dense_1", "dense_2"},
     {"0", "1", "3", "4"}},
    {"optimus5p_multioutput",
     "conv,pad=same,act=relu;conv,pad=same,act=relu;conv,pad=same,act=relu;flatten;"
     "dense,act=relu;dense",
     "",
     "multioutput.out_f32",
     {"conv_1", "conv_2", "conv_3", "dense_1", "dense_2"},
     {"0", "1", "2", "4", "5"}},
};

/* Writes the tensors of the file `source` under the names of conv_regressor. */
static inline kac_status optimus_convert(const optimus *o, const char *source, const char *path)
{
    const char *const metadata[][2] = {{"kac.arch", "conv_regressor"},
                                       {"kac.alphabet", "ACGT"},
                                       {"kac.length", "50"},
                                       {"kac.layers", o->layers},
                                       {"kac.suffix", o->suffix}};
    const int pairs = o->suffix[0] != '\0' ? 5 : 4;
    static const char *const part[] = {"kernel", "bias"};
    kac_tensors *file = NULL;
    kac_tensor tensor[10];
    char name[10][64], keras[64];
    int count = 0;

    KAC_TRY(kac_tensors_open(source, &file));
    kac_status status = KAC_OK;
    for (int i = 0; i < 10 && status == KAC_OK; i++) {
        if (o->source[i / 2] == NULL) continue;
        snprintf(keras, sizeof keras, "%s.%s", o->source[i / 2], part[i % 2]);
        snprintf(name[count], sizeof name[0], "%s.%s", o->target[i / 2], part[i % 2]);
        const kac_tensor *found = kac_tensors_find(file, keras);
        if (found == NULL) {
            status = KAC_FAIL(KAC_ERR_INVALID, "%s: no tensor %s", source, keras);
        } else {
            tensor[count] = *found;
            tensor[count].name = name[count];
            count++;
        }
    }
    if (status == KAC_OK) status = kac_tensors_write(path, metadata, pairs, tensor, count);
    kac_tensors_close(file);
    return status;
}

#endif /* KAC_OPTIMUS_H */
