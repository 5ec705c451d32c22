/* safetensors.c -- tensors on disk: 8 bytes of header length, a JSON header, the data.
 *
 * The reader trusts nothing: what it hands out lies inside the file, has the size of its shape
 * and is aligned.  Format: github.com/huggingface/safetensors, README.
 */
#include "safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <float.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "atomic.h"

enum { LENGTH_BYTES = 8, HEADER_MAX = 100000000, DATA_ALIGNMENT = 64 };

#define METADATA "__metadata__"

struct kac_tensors {
    char *path;
    void *map; /* NULL: the bytes are the caller's */
    size_t map_bytes;
    json_t *header; /* owns all names and metadata */
    int count;
    kac_tensor *tensors; /* [count] by offset */
    void **copies;       /* [count] of a tensor that is not aligned in the file, or NULL */
    int pairs;
    const char *(*metadata)[2]; /* [pairs] by key */
};

static const struct {
    const char *name;
    size_t size;
} dtypes[] = {
    [KAC_F64] = {"F64", 8},   [KAC_F32] = {"F32", 4}, [KAC_F16] = {"F16", 2},
    [KAC_BF16] = {"BF16", 2}, [KAC_I64] = {"I64", 8}, [KAC_I32] = {"I32", 4},
    [KAC_I16] = {"I16", 2},   [KAC_I8] = {"I8", 1},   [KAC_U64] = {"U64", 8},
    [KAC_U32] = {"U32", 4},   [KAC_U16] = {"U16", 2}, [KAC_U8] = {"U8", 1},
    [KAC_BOOL] = {"BOOL", 1},
};

enum { DTYPES = sizeof dtypes / sizeof *dtypes };

const char *kac_dtype_name(kac_dtype dtype)
{
    return dtypes[dtype].name;
}

size_t kac_dtype_size(kac_dtype dtype)
{
    return dtypes[dtype].size;
}

/* "[3, 4]"; a size of -1 is written "any". */
static void shape_text(const int64_t *shape, int rank, char *text, size_t size)
{
    size_t used = (size_t)snprintf(text, size, "[");
    for (int i = 0; i < rank && used < size; i++) {
        const char *comma = i > 0 ? ", " : "";
        int more = shape[i] < 0
                       ? snprintf(text + used, size - used, "%sany", comma)
                       : snprintf(text + used, size - used, "%s%" PRId64, comma, shape[i]);
        used += (size_t)more;
    }
    if (used < size) snprintf(text + used, size - used, "]");
}

void kac_shape_text(const kac_tensor *tensor, char *text, size_t size)
{
    shape_text(tensor->shape, tensor->rank, text, size);
}

/* ---- reading ---------------------------------------------------------------------------- */

static kac_status no_memory(const char *path)
{
    return KAC_FAIL(KAC_ERR_NOMEM, "%s: out of memory", path);
}

static kac_status read_dtype(const char *path, const char *name, const json_t *value,
                             kac_dtype *out)
{
    const char *text = json_is_string(value) ? json_string_value(value) : "not text";
    for (int i = 0; i < (int)DTYPES; i++) {
        if (strcmp(text, dtypes[i].name) == 0) {
            *out = (kac_dtype)i;
            return KAC_OK;
        }
    }
    return KAC_FAIL(
        KAC_ERR_INVALID,
        "%s: tensor `%s`: dtype is %s, want F64, F32, F16, BF16, I64, I32, I16, I8, "
        "U64, U32, U16, U8 or BOOL",
        path, name, text);
}

/* Shape and bytes of one tensor. */
static kac_status read_shape(const char *path, const char *name, const json_t *value,
                             kac_tensor *out)
{
    if (!json_is_array(value) || json_array_size(value) > KAC_MAX_RANK)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: tensor `%s`: want a shape of at most %d sizes",
                        path, name, (int)KAC_MAX_RANK);
    int64_t bytes = (int64_t)dtypes[out->dtype].size;
    out->rank = (int)json_array_size(value);
    for (int i = 0; i < out->rank; i++) {
        const json_t *size = json_array_get(value, (size_t)i);
        out->shape[i] = (int64_t)json_integer_value(size);
        if (!json_is_integer(size) || out->shape[i] < 0)
            return KAC_FAIL(KAC_ERR_INVALID,
                            "%s: tensor `%s`: size %d of the shape is not a count", path, name,
                            i);
        if (__builtin_mul_overflow(bytes, out->shape[i], &bytes))
            return KAC_FAIL(KAC_ERR_INVALID, "%s: tensor `%s`: the shape is too large", path,
                            name);
    }
    out->bytes = (size_t)bytes;
    return KAC_OK;
}

/* One entry of the header; `data` are the bytes behind it. */
static kac_status read_tensor(const char *path, const char *name, const json_t *value,
                              const unsigned char *data, size_t size, kac_tensor *out)
{
    const json_t *offsets = json_object_get(value, "data_offsets");
    if (json_object_size(value) != 3 || json_object_get(value, "shape") == NULL ||
        offsets == NULL)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "%s: tensor `%s`: want dtype, shape and data_offsets, and nothing else",
                        path, name);
    out->name = name;
    KAC_TRY(read_dtype(path, name, json_object_get(value, "dtype"), &out->dtype));
    KAC_TRY(read_shape(path, name, json_object_get(value, "shape"), out));

    const json_t *from = json_array_get(offsets, 0);
    const json_t *to = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(from) || !json_is_integer(to))
        return KAC_FAIL(KAC_ERR_INVALID, "%s: tensor `%s`: data_offsets are not two integers",
                        path, name);
    json_int_t begin = json_integer_value(from);
    json_int_t end = json_integer_value(to);
    if (begin < 0 || end < begin || (size_t)end > size)
        return KAC_FAIL(
            KAC_ERR_INVALID,
            "%s: tensor `%s`: data_offsets [%lld, %lld] do not lie in the %zu bytes "
            "of data",
            path, name, (long long)begin, (long long)end, size);
    if ((size_t)(end - begin) != out->bytes)
        return KAC_FAIL(
            KAC_ERR_INVALID,
            "%s: tensor `%s`: data_offsets [%lld, %lld] do not fit the shape, which "
            "takes %zu bytes",
            path, name, (long long)begin, (long long)end, out->bytes);
    out->data = data + begin;
    return KAC_OK;
}

static int by_offset(const void *left, const void *right)
{
    const kac_tensor *a = left;
    const kac_tensor *b = right;
    if (a->data != b->data)
        return (const unsigned char *)a->data < (const unsigned char *)b->data ? -1 : 1;
    if (a->bytes != b->bytes) return a->bytes < b->bytes ? -1 : 1;
    return strcmp(a->name, b->name);
}

static int by_key(const void *left, const void *right)
{
    const char *const *a = left;
    const char *const *b = right;
    return strcmp(a[0], b[0]);
}

/* Every byte of the data belongs to exactly one tensor. */
static kac_status check_cover(const kac_tensors *file, const unsigned char *data, size_t size)
{
    const unsigned char *end = data;
    for (int i = 0; i < file->count; i++) {
        const kac_tensor *x = &file->tensors[i];
        const unsigned char *begin = x->data;
        if (begin != end)
            return KAC_FAIL(KAC_ERR_INVALID, "%s: tensor `%s`: its data %s the tensor before",
                            file->path, x->name,
                            begin < end ? "overlap with" : "leave a hole after");
        end = begin + x->bytes;
    }
    if (end != data + size)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: %zu bytes follow the last tensor", file->path,
                        (size_t)(data + size - end));
    return KAC_OK;
}

/* Gives each tensor that is not aligned for its dtype an aligned copy. */
static kac_status align(kac_tensors *file)
{
    for (int i = 0; i < file->count; i++) {
        kac_tensor *x = &file->tensors[i];
        if ((uintptr_t)x->data % dtypes[x->dtype].size == 0) continue;
        file->copies[i] = malloc(x->bytes + 1); /* never 0 bytes, which may give NULL */
        if (file->copies[i] == NULL) return no_memory(file->path);
        memcpy(file->copies[i], x->data, x->bytes);
        x->data = file->copies[i];
    }
    return KAC_OK;
}

static kac_status read_metadata(kac_tensors *file, json_t *object)
{
    const char *key = NULL;
    json_t *value = NULL;
    if (!json_is_object(object))
        return KAC_FAIL(KAC_ERR_INVALID, "%s: " METADATA " is not an object", file->path);
    file->metadata = calloc(json_object_size(object) + 1, sizeof *file->metadata);
    if (file->metadata == NULL) return no_memory(file->path);
    json_object_foreach(object, key, value)
    {
        if (!json_is_string(value))
            return KAC_FAIL(KAC_ERR_INVALID, "%s: metadata `%s` is not text", file->path, key);
        file->metadata[file->pairs][0] = key;
        file->metadata[file->pairs][1] = json_string_value(value);
        file->pairs++;
    }
    qsort(file->metadata, (size_t)file->pairs, sizeof *file->metadata, by_key);
    return KAC_OK;
}

/* What a file without a header is instead, as far as its first bytes tell. */
static const char *kind_of(const unsigned char *bytes)
{
    static const struct {
        const char *begins, *kind;
    } kinds[] = {
        {"PK\3\4",
         ": it looks like a file of PyTorch, or another zip file; docs/models.md says how "
         "models are converted"},
        {"\x80\2",
         ": it looks like an old file of PyTorch, or another pickle; docs/models.md says "
         "how models are converted"},
        {"\x89HDF", ": it looks like a file of Keras, HDF5; docs/models.md says how models are "
                    "converted"},
        {"\x7f"
         "ELF",
         ": it is a shared object, which a plug-in is (docs/plugins.md), or a program"},
        {"version ",
         ": it looks like what Git LFS leaves in the place of a file; git lfs pull gets "
         "the file"},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (memcmp(bytes, kinds[i].begins, strlen(kinds[i].begins)) == 0) return kinds[i].kind;
    return ", its first 8 bytes are no length of a header (docs/models.md says what a model "
           "is)";
}

/* Finds the header and parses it; *out is the number of bytes before the data. */
static kac_status read_header(kac_tensors *file, const unsigned char *bytes, size_t size,
                              size_t *out)
{
    uint64_t length = 0;
    json_error_t error;
    if (size < LENGTH_BYTES)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: %zu bytes are too few for a safetensors file",
                        file->path, size);
    for (int i = LENGTH_BYTES - 1; i >= 0; i--) /* little-endian */
        length = length << 8 | bytes[i];
    if (length > HEADER_MAX)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: not a safetensors file%s", file->path,
                        kind_of(bytes));
    if (length > size - LENGTH_BYTES)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "%s: not a safetensors file, or one that was cut short: it announces a "
                        "header of %" PRIu64 " bytes in a file of %zu",
                        file->path, length, size);
    if (length == 0 || bytes[LENGTH_BYTES] != '{')
        return KAC_FAIL(KAC_ERR_INVALID,
                        "%s: not a safetensors file: the header does not begin with {",
                        file->path);
    file->header = json_loadb((const char *)bytes + LENGTH_BYTES, (size_t)length,
                              JSON_REJECT_DUPLICATES, &error);
    if (file->header == NULL)
        return KAC_FAIL(json_error_code(&error) == json_error_out_of_memory ? KAC_ERR_NOMEM
                                                                            : KAC_ERR_INVALID,
                        "%s: the header is not valid JSON: %s", file->path, error.text);
    *out = LENGTH_BYTES + (size_t)length;
    return KAC_OK;
}

/* Fills an empty *file from its bytes. */
static kac_status parse(kac_tensors *file, const unsigned char *bytes, size_t size)
{
    size_t head = 0;
    const char *name = NULL;
    json_t *value = NULL;
    KAC_TRY(read_header(file, bytes, size, &head));
    file->tensors = calloc(json_object_size(file->header) + 1, sizeof *file->tensors);
    file->copies = calloc(json_object_size(file->header) + 1, sizeof *file->copies);
    if (file->tensors == NULL || file->copies == NULL) return no_memory(file->path);
    json_object_foreach(file->header, name, value)
    {
        if (strcmp(name, METADATA) == 0) {
            KAC_TRY(read_metadata(file, value));
            continue;
        }
        KAC_TRY(read_tensor(file->path, name, value, bytes + head, size - head,
                            &file->tensors[file->count]));
        file->count++;
    }
    qsort(file->tensors, (size_t)file->count, sizeof *file->tensors, by_offset);
    KAC_TRY(check_cover(file, bytes + head, size - head));
    return align(file);
}

static kac_status create(const char *path, kac_tensors **out)
{
    kac_tensors *file = calloc(1, sizeof *file);
    if (file != NULL) file->path = strdup(path);
    if (file == NULL || file->path == NULL) {
        free(file);
        return no_memory(path);
    }
    *out = file;
    return KAC_OK;
}

kac_status kac_tensors_parse(const char *path, const void *bytes, size_t size,
                             kac_tensors **out)
{
    KAC_REQUIRE(path != NULL && (bytes != NULL || size == 0) && out != NULL);
    kac_tensors *file = NULL;
    KAC_TRY(create(path, &file));
    kac_status status = parse(file, bytes, size);
    if (status == KAC_OK)
        *out = file;
    else
        kac_tensors_close(file);
    return status;
}

/* Maps a regular file that is not empty. */
static kac_status map_file(kac_tensors *file, int fd)
{
    struct stat info;
    if (fstat(fd, &info) != 0)
        return KAC_FAIL(KAC_ERR_IO, "%s: cannot read: %s", file->path, strerror(errno));
    if (!S_ISREG(info.st_mode)) return KAC_FAIL(KAC_ERR_INVALID, "%s: not a file", file->path);
    if (info.st_size == 0)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: the file is empty", file->path);
    void *map = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED)
        return KAC_FAIL(errno == ENOMEM ? KAC_ERR_NOMEM : KAC_ERR_IO, "%s: cannot map: %s",
                        file->path, strerror(errno));
    file->map = map;
    file->map_bytes = (size_t)info.st_size;
    return KAC_OK;
}

kac_status kac_tensors_open(const char *path, kac_tensors **out)
{
    KAC_REQUIRE(path != NULL && out != NULL);
    kac_tensors *file = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not make us wait */
    if (fd < 0)
        return KAC_FAIL(kac_path_status(errno), "%s: cannot open: %s", path, strerror(errno));
    kac_status status = create(path, &file);
    if (status == KAC_OK) status = map_file(file, fd);
    close(fd);
    if (status == KAC_OK) status = parse(file, file->map, file->map_bytes);
    if (status == KAC_OK)
        *out = file;
    else
        kac_tensors_close(file);
    return status;
}

void kac_tensors_close(kac_tensors *file)
{
    if (file == NULL) return;
    for (int i = 0; file->copies != NULL && i < file->count; i++)
        free(file->copies[i]);
    free(file->copies);
    free(file->tensors);
    free(file->metadata);
    json_decref(file->header);
    if (file->map != NULL) munmap(file->map, file->map_bytes);
    free(file->path);
    free(file);
}

/* ---- what is in it ---------------------------------------------------------------------- */

const char *kac_tensors_path(const kac_tensors *file)
{
    return file->path;
}

int kac_tensors_count(const kac_tensors *file)
{
    return file->count;
}

const kac_tensor *kac_tensors_at(const kac_tensors *file, int i)
{
    return i >= 0 && i < file->count ? &file->tensors[i] : NULL;
}

const kac_tensor *kac_tensors_find(const kac_tensors *file, const char *name)
{
    for (int i = 0; i < file->count; i++)
        if (strcmp(file->tensors[i].name, name) == 0) return &file->tensors[i];
    return NULL;
}

int kac_tensors_metadata_count(const kac_tensors *file)
{
    return file->pairs;
}

void kac_tensors_metadata_at(const kac_tensors *file, int i, const char **key,
                             const char **value)
{
    *key = file->metadata[i][0];
    *value = file->metadata[i][1];
}

const char *kac_tensors_metadata(const kac_tensors *file, const char *key)
{
    for (int i = 0; i < file->pairs; i++)
        if (strcmp(file->metadata[i][0], key) == 0) return file->metadata[i][1];
    return NULL;
}

kac_status kac_tensors_integer(const kac_tensors *file, const char *key, int64_t low,
                               int64_t high, bool has_fallback, int64_t fallback, int64_t *out)
{
    const char *text = kac_tensors_metadata(file, key);
    char *end = NULL;
    if (text == NULL && has_fallback) {
        *out = fallback;
        return KAC_OK;
    }
    if (text == NULL)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: metadata `%s` is missing", file->path, key);
    errno = 0;
    int64_t value = strtoll(text, &end, 10);
    bool number = strspn(text, "-0123456789") == strlen(text) && end != text && *end == '\0';
    if (!number || errno != 0 || value < low || value > high)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "%s: metadata `%s` is `%s`, want an integer from %" PRId64
                        " to %" PRId64,
                        file->path, key, text, low, high);
    *out = value;
    return KAC_OK;
}

/* A float32 tensor of the given shape, -1: any, whose elements are finite, or -INFINITY where
 * that is the least. */
static kac_status find_floats(const kac_tensors *file, const char *name, int rank,
                              const int64_t *shape, float least, const kac_tensor **out)
{
    const kac_tensor *x = kac_tensors_find(file, name);
    if (x == NULL)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: tensor `%s` is missing", file->path, name);
    if (x->dtype != KAC_F32)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: tensor `%s` has dtype %s, want F32", file->path,
                        name, dtypes[x->dtype].name);
    bool fits = x->rank == rank;
    for (int i = 0; fits && i < rank; i++)
        fits = shape[i] < 0 || shape[i] == x->shape[i];
    if (!fits) {
        char has[200];
        char want[200];
        kac_shape_text(x, has, sizeof has);
        shape_text(shape, rank, want, sizeof want);
        return KAC_FAIL(KAC_ERR_INVALID, "%s: tensor `%s` has shape %s, want %s", file->path,
                        name, has, want);
    }
    const float *value = x->data;
    for (size_t i = 0; i < x->bytes / sizeof *value; i++)
        if (!(value[i] >= least && value[i] <= FLT_MAX))
            return KAC_FAIL(
                KAC_ERR_INVALID, "%s: tensor `%s`: element %zu is %g, want a finite number%s",
                file->path, name, i, (double)value[i], isinf(least) ? " or -inf" : "");
    *out = x;
    return KAC_OK;
}

kac_status kac_tensors_floats(const kac_tensors *file, const char *name, int rank,
                              const int64_t *shape, const kac_tensor **out)
{
    return find_floats(file, name, rank, shape, -FLT_MAX, out);
}

kac_status kac_tensors_rewards(const kac_tensors *file, const char *name, int rank,
                               const int64_t *shape, const kac_tensor **out)
{
    return find_floats(file, name, rank, shape, -INFINITY, out);
}

/* ---- writing ---------------------------------------------------------------------------- */

/* Adds a tensor to the header at *offset and moves *offset behind it. */
static kac_status describe(const char *path, const kac_tensor *x, json_t *header,
                           size_t *offset)
{
    size_t bytes = dtypes[x->dtype].size;
    json_t *shape = json_array();
    for (int i = 0; i < x->rank; i++) {
        bytes *= (size_t)x->shape[i];
        json_array_append_new(shape, json_integer(x->shape[i]));
    }
    if (strcmp(x->name, METADATA) == 0 || json_object_get(header, x->name) != NULL ||
        bytes != x->bytes) {
        json_decref(shape);
        return KAC_FAIL(KAC_ERR_INVALID,
                        "%s: tensor `%s`: the name is taken or the shape is not of %zu bytes",
                        path, x->name, x->bytes);
    }
    json_int_t begin = (json_int_t)*offset;
    *offset += x->bytes;
    json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtypes[x->dtype].name, "shape",
                              shape, "data_offsets", begin, (json_int_t)*offset);
    if (json_object_set_new(header, x->name, entry) != 0)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: tensor `%s`: the name is not UTF-8", path,
                        x->name);
    return KAC_OK;
}

/* The header as text.  Large elements come first, so that every tensor is aligned: `order`
 * [count] are their indices as they follow each other. */
static kac_status make_header(const char *path, const char *const (*metadata)[2], int pairs,
                              const kac_tensor *tensors, int count, int *order, char **out)
{
    kac_status status = KAC_OK;
    json_t *header = json_object();
    size_t offset = 0;
    int used = 0;

    if (pairs > 0) {
        json_t *object = json_object();
        json_object_set_new(header, METADATA, object);
        for (int i = 0; i < pairs; i++) {
            if (json_object_set_new(object, metadata[i][0], json_string(metadata[i][1])) != 0) {
                status = KAC_FAIL(KAC_ERR_INVALID, "%s: metadata `%s` is not UTF-8", path,
                                  metadata[i][0]);
                goto done;
            }
        }
    }
    for (size_t size = 8; size > 0; size /= 2) {
        for (int i = 0; i < count; i++) {
            if (dtypes[tensors[i].dtype].size != size) continue;
            order[used++] = i;
            KAC_TRY_DONE(describe(path, &tensors[i], header, &offset));
        }
    }
    *out = json_dumps(header, JSON_COMPACT);
    if (*out == NULL) status = no_memory(path);
done:
    json_decref(header);
    return status;
}

kac_status kac_tensors_write(const char *path, const char *const (*metadata)[2], int pairs,
                             const kac_tensor *tensors, int count)
{
    KAC_REQUIRE(path != NULL && pairs >= 0 && count >= 0);
    KAC_REQUIRE((metadata != NULL || pairs == 0) && (tensors != NULL || count == 0));
    kac_status status = KAC_OK;
    char *header = NULL;
    kac_atomic *file = NULL;
    int *order = calloc((size_t)count + 1, sizeof *order);
    if (order == NULL) return no_memory(path);
    KAC_TRY_DONE(make_header(path, metadata, pairs, tensors, count, order, &header));
    KAC_TRY_DONE(kac_atomic_create(path, &file));

    /* The stream remembers a write that fails; commit reports it. */
    FILE *stream = kac_atomic_stream(file);
    size_t end = LENGTH_BYTES + strlen(header) + DATA_ALIGNMENT - 1;
    size_t length = end / DATA_ALIGNMENT * DATA_ALIGNMENT - LENGTH_BYTES;
    for (int i = 0; i < LENGTH_BYTES; i++)
        putc((int)(length >> (8 * i) & 255), stream);
    fprintf(stream, "%-*s", (int)length, header);
    for (int i = 0; i < count; i++) {
        const kac_tensor *x = &tensors[order[i]];
        if (x->bytes > 0) fwrite(x->data, 1, x->bytes, stream);
    }
    status = kac_atomic_commit(file);
done:
    free(order);
    free(header);
    return status;
}
