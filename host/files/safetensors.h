/* safetensors.h -- tensors on disk: a strict reader (mmap) and a writer. */
#ifndef KAC_SAFETENSORS_H
#define KAC_SAFETENSORS_H

#include "base.h"

#include <stdbool.h>

typedef enum kac_dtype {
    KAC_F64,
    KAC_F32,
    KAC_F16,
    KAC_BF16,
    KAC_I64,
    KAC_I32,
    KAC_I16,
    KAC_I8,
    KAC_U64,
    KAC_U32,
    KAC_U16,
    KAC_U8,
    KAC_BOOL,
} kac_dtype;

enum { KAC_MAX_RANK = 8 };

typedef struct kac_tensor {
    const char *name;
    kac_dtype dtype;
    int rank;
    int64_t shape[KAC_MAX_RANK];
    const void *data; /* host memory, aligned for its dtype */
    size_t bytes;
} kac_tensor;

/* An open file; tensors point into it. */
typedef struct kac_tensors kac_tensors;

/* Maps a file and checks all of it: header length, JSON without duplicates, dtypes, shapes,
 * offsets without holes or overlaps or trailing bytes.
 * Errors: INVALID ("FILE: what is wrong"), IO, NOMEM. */
kac_status kac_tensors_open(const char *path, kac_tensors **out);
void kac_tensors_close(kac_tensors *file);

/* The same from memory (fuzzing); `bytes` must outlive the result; `path` names it in messages.
 */
kac_status kac_tensors_parse(const char *path, const void *bytes, size_t size,
                             kac_tensors **out);

const char *kac_tensors_path(const kac_tensors *file);
int kac_tensors_count(const kac_tensors *file);
const kac_tensor *kac_tensors_at(const kac_tensors *file, int i);              /* by offset */
const kac_tensor *kac_tensors_find(const kac_tensors *file, const char *name); /* or NULL */
int kac_tensors_metadata_count(const kac_tensors *file);
void kac_tensors_metadata_at(const kac_tensors *file, int i, const char **key,
                             const char **value);
const char *kac_tensors_metadata(const kac_tensors *file, const char *key); /* or NULL */

/* Metadata as a number in [low, high].  Errors: INVALID, a sentence that names file and key;
 * an absent key is `fallback` where has_fallback. */
kac_status kac_tensors_integer(const kac_tensors *file, const char *key, int64_t low,
                               int64_t high, bool has_fallback, int64_t fallback, int64_t *out);

/* A float32 tensor of the given shape (-1: any size), all of it finite.
 * Errors: INVALID, a sentence that names file, tensor and what was expected. */
kac_status kac_tensors_floats(const kac_tensors *file, const char *name, int rank,
                              const int64_t *shape, const kac_tensor **out);

/* The same, but an element may be -INFINITY: an object that is not wanted at all. */
kac_status kac_tensors_rewards(const kac_tensors *file, const char *name, int rank,
                               const int64_t *shape, const kac_tensor **out);

/* Writes a whole file: `path` appears complete or not at all.  metadata: pairs of strings.
 * Data start at a multiple of 64.  Errors: IO, NOMEM. */
kac_status kac_tensors_write(const char *path, const char *const (*metadata)[2], int pairs,
                             const kac_tensor *tensors, int count);

/* Shape as text "[3, 4]", and the name of a dtype, "F32". */
const char *kac_dtype_name(kac_dtype dtype);
size_t kac_dtype_size(kac_dtype dtype);
void kac_shape_text(const kac_tensor *tensor, char *text, size_t size);

#endif /* KAC_SAFETENSORS_H */
