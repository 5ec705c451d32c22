/* net_file.h -- writes model files and recordings with random weights, for tests. */
#ifndef KAC_NET_FILE_H
#define KAC_NET_FILE_H

#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "safetensors.h"
#include "scratch.h"

enum { NET_FILE_TENSORS = 128, NET_FILE_PAIRS = 16 };

/* A file before it is written; zero-initialise it. */
typedef struct net_file {
    uint64_t seed;
    int pairs, tensors;
    const char *metadata[NET_FILE_PAIRS][2];
    kac_tensor tensor[NET_FILE_TENSORS];
    void *data[NET_FILE_TENSORS]; /* of the tensors, to free */
    char name[NET_FILE_TENSORS][64];
    char dir[256];
    char path[300];
} net_file;

/* Uniform on [-1, 1). */
static inline float net_file_random(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (float)(int32_t)(*seed >> 32) * 0x1p-31f;
}

/* Sets a metadata pair, in place of an earlier one of the same key; NULL removes it. */
static inline void net_file_meta(net_file *f, const char *key, const char *value)
{
    int i = 0;
    while (i < f->pairs && strcmp(f->metadata[i][0], key) != 0)
        i++;
    cr_assert(i < NET_FILE_PAIRS);
    if (value == NULL && i < f->pairs) {
        f->pairs--;
        f->metadata[i][0] = f->metadata[f->pairs][0];
        f->metadata[i][1] = f->metadata[f->pairs][1];
    } else if (value != NULL) {
        f->metadata[i][0] = key;
        f->metadata[i][1] = value;
        if (i == f->pairs) f->pairs++;
    }
}

/* A new zeroed tensor of `rank` sizes (int). */
static inline void *net_file_add(net_file *f, kac_dtype dtype, const char *name, int rank, ...)
{
    cr_assert(f->tensors < NET_FILE_TENSORS && strlen(name) < sizeof f->name[0]);
    kac_tensor *x = &f->tensor[f->tensors];
    char *own = f->name[f->tensors];
    snprintf(own, sizeof f->name[0], "%s", name);
    *x = (kac_tensor){.name = own, .dtype = dtype, .rank = rank};
    x->bytes = kac_dtype_size(dtype);
    va_list sizes;
    va_start(sizes, rank);
    for (int i = 0; i < rank; i++) {
        x->shape[i] = va_arg(sizes, int);
        x->bytes *= (size_t)x->shape[i];
    }
    va_end(sizes);
    x->data = f->data[f->tensors] = calloc(1, x->bytes + 1);
    cr_assert_not_null(x->data);
    return f->data[f->tensors++];
}

/* Fills a tensor of floats: uniform on [-scale, scale). */
static inline float *net_file_fill(net_file *f, void *data, float scale)
{
    const kac_tensor *x = &f->tensor[f->tensors - 1];
    float *value = data;
    cr_assert(x->data == data);
    for (size_t i = 0; i < x->bytes / sizeof *value; i++)
        value[i] = scale * net_file_random(&f->seed);
    return value;
}

/* Writes the file into a folder of its own; f->path is then its path. */
static inline const char *net_file_write(net_file *f)
{
    if (f->dir[0] == '\0') {
        scratch_create(f->dir, sizeof f->dir);
        snprintf(f->path, sizeof f->path, "%s/model.safetensors", f->dir);
    }
    kac_status status = kac_tensors_write(f->path, (const char *const(*)[2])f->metadata,
                                          f->pairs, f->tensor, f->tensors);
    cr_assert(status == KAC_OK, "%s", kac_last_error());
    return f->path;
}

/* Removes the file and frees the tensors. */
static inline void net_file_remove(net_file *f)
{
    if (f->dir[0] != '\0') {
        unlink(f->path);
        rmdir(f->dir);
    }
    for (int i = 0; i < f->tensors; i++)
        free(f->data[i]);
    *f = (net_file){0};
}

#endif /* KAC_NET_FILE_H */
