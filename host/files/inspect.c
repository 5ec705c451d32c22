/* inspect.c -- a safetensors file as text: metadata, then a line for each tensor. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "safetensors.h"

static int by_name(const void *left, const void *right)
{
    const kac_tensor *a = left;
    const kac_tensor *b = right;
    return strcmp(a->name, b->name);
}

static void write_tensors(const kac_tensor *tensors, int count, FILE *out)
{
    char shape[200];
    size_t elements = 0;
    size_t bytes = 0;
    int width = 0;
    for (int i = 0; i < count; i++)
        if ((int)strlen(tensors[i].name) > width) width = (int)strlen(tensors[i].name);
    for (int i = 0; i < count; i++) {
        kac_shape_text(&tensors[i], shape, sizeof shape);
        fprintf(out, "%-*s  %-4s  %s\n", width, tensors[i].name,
                kac_dtype_name(tensors[i].dtype), shape);
        elements += tensors[i].bytes / kac_dtype_size(tensors[i].dtype);
        bytes += tensors[i].bytes;
    }
    fprintf(out, "%d tensors, %zu elements, %zu bytes\n", count, elements, bytes);
}

kac_status kac_inspect(const char *path, FILE *out)
{
    KAC_REQUIRE(path != NULL && out != NULL);
    kac_status status = KAC_OK;
    kac_tensors *file = NULL;
    KAC_TRY(kac_tensors_open(path, &file));
    int count = kac_tensors_count(file);
    kac_tensor *tensors = calloc((size_t)count + 1, sizeof *tensors);
    if (tensors == NULL) {
        status = KAC_FAIL(KAC_ERR_NOMEM, "%s: out of memory", path);
        goto done;
    }
    for (int i = 0; i < count; i++)
        tensors[i] = *kac_tensors_at(file, i);
    qsort(tensors, (size_t)count, sizeof *tensors, by_name);

    for (int i = 0; i < kac_tensors_metadata_count(file); i++) { /* sorted */
        const char *key = NULL;
        const char *value = NULL;
        kac_tensors_metadata_at(file, i, &key, &value);
        fprintf(out, "%s: %s\n", key, value);
    }
    if (kac_tensors_metadata_count(file) > 0) fprintf(out, "\n");
    write_tensors(tensors, count, out);
    if (fflush(out) != 0 || ferror(out))
        status = KAC_FAIL(KAC_ERR_IO, "cannot write: %s", strerror(errno));
done:
    free(tensors);
    kac_tensors_close(file);
    return status;
}
