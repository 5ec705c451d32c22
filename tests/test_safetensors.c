/* test_safetensors.c -- what the reader accepts, what it refuses and how it says so. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "safetensors.h"
#include "scratch.h"

/* A file in memory: a header text and `data` bytes behind it. */
static size_t make(const char *header, size_t data, unsigned char *out)
{
    size_t length = strlen(header);
    for (int i = 0; i < 8; i++)
        out[i] = (unsigned char)(length >> (8 * i));
    for (size_t i = 0; i < length; i++)
        out[8 + i] = (unsigned char)header[i];
    for (size_t i = 0; i < data; i++)
        out[8 + length + i] = (unsigned char)i;
    return 8 + length + data;
}

static void refuse(const char *header, size_t data, const char *message)
{
    _Alignas(64) unsigned char bytes[4096];
    kac_tensors *file = NULL;
    size_t size = make(header, data, bytes);
    kac_status status = kac_tensors_parse("m.st", bytes, size, &file);
    cr_assert_eq(status, KAC_ERR_INVALID, "%s: status %d", header, status);
    cr_assert_null(file);
    cr_assert_str_eq(kac_last_error(), message);
}

#define TENSOR(dtype, shape, from, to)                                                         \
    "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #from "," #to "]}"

Test(safetensors, header_is_checked)
{
    kac_tensors *file = NULL;
    unsigned char bytes[64] = {255, 255};
    cr_assert_eq(kac_tensors_parse("m.st", bytes, 3, &file), KAC_ERR_INVALID);
    cr_assert_str_eq(kac_last_error(), "m.st: 3 bytes are too few for a safetensors file");
    cr_assert_eq(kac_tensors_parse("m.st", bytes, sizeof bytes, &file), KAC_ERR_INVALID);
    cr_assert_str_eq(kac_last_error(),
                     "m.st: not a safetensors file, or one that was cut short: "
                     "it announces a header of 65535 bytes in a file of 64");
    static const char *const others[][2] = {
        {"# A page of text", "m.st: not a safetensors file, its first 8 bytes are no length"},
        {"PK\3\4 and so on", "m.st: not a safetensors file: it looks like a file of PyTorch"},
        {"\x80\2 and so on",
         "m.st: not a safetensors file: it looks like an old file of PyTorch"},
        {"\x89HDF\r\n\x1a\n", "m.st: not a safetensors file: it looks like a file of Keras"},
        {"version https://git-lfs", "m.st: not a safetensors file: it looks like what Git LFS"},
    };
    for (size_t k = 0; k < sizeof others / sizeof *others; k++) {
        cr_assert_eq(kac_tensors_parse("m.st", others[k][0], strlen(others[k][0]), &file),
                     KAC_ERR_INVALID);
        cr_assert_eq(strncmp(kac_last_error(), others[k][1], strlen(others[k][1])), 0, "%s",
                     kac_last_error());
    }
    refuse("", 0, "m.st: not a safetensors file: the header does not begin with {");
    refuse(" {}", 0, "m.st: not a safetensors file: the header does not begin with {");
    refuse("{\"a\":1,\"a\":1}", 0,
           "m.st: the header is not valid JSON: duplicate object key near '\"a\"'");
    refuse("{} {}", 0, "m.st: the header is not valid JSON: end of file expected near '{'");
    refuse("{\"\xff\":1}", 0,
           "m.st: the header is not valid JSON: unable to decode byte 0xff near '\"'");
    refuse("{\"a\":1}", 0,
           "m.st: tensor `a`: want dtype, shape and data_offsets, and nothing else");
    refuse("{\"__metadata__\":[]}", 0, "m.st: __metadata__ is not an object");
    refuse("{\"__metadata__\":{\"n\":1}}", 0, "m.st: metadata `n` is not text");
}

Test(safetensors, tensors_are_checked)
{
    refuse("{\"a\":" TENSOR("F8", "[1]", 0, 1) "}", 1,
           "m.st: tensor `a`: dtype is F8, want F64, F32, F16, BF16, I64, I32, I16, I8, U64, "
           "U32, U16, U8 or BOOL");
    refuse("{\"a\":" TENSOR("F32", "[1,1,1,1,1,1,1,1,1]", 0, 4) "}", 4,
           "m.st: tensor `a`: want a shape of at most 8 sizes");
    refuse("{\"a\":" TENSOR("F32", "[1,-1]", 0, 4) "}", 4,
           "m.st: tensor `a`: size 1 of the shape is not a count");
    refuse("{\"a\":" TENSOR("F32", "[1.0]", 0, 4) "}", 4,
           "m.st: tensor `a`: size 0 of the shape is not a count");
    refuse("{\"a\":" TENSOR("F32", "[4294967296,4294967296]", 0, 4) "}", 4,
           "m.st: tensor `a`: the shape is too large");
    refuse("{\"a\":" TENSOR("F32", "[1]", 0, 8) "}", 4,
           "m.st: tensor `a`: data_offsets [0, 8] do not lie in the 4 bytes of data");
    refuse("{\"a\":" TENSOR("F32", "[1]", -4, 0) "}", 4,
           "m.st: tensor `a`: data_offsets [-4, 0] do not lie in the 4 bytes of data");
    refuse("{\"a\":" TENSOR("F32", "[2]", 0, 4) "}", 4,
           "m.st: tensor `a`: data_offsets [0, 4] do not fit the shape, which takes 8 bytes");
    refuse("{\"a\":" TENSOR("F32", "[1]", 0, 4.0) "}", 4,
           "m.st: tensor `a`: data_offsets are not two integers");
    refuse("{\"a\":" TENSOR("U8", "[2]", 0, 2) ",\"b\":" TENSOR("U8", "[2]", 1, 3) "}", 3,
           "m.st: tensor `b`: its data overlap with the tensor before");
    refuse("{\"a\":" TENSOR("U8", "[1]", 0, 1) ",\"b\":" TENSOR("U8", "[1]", 2, 3) "}", 3,
           "m.st: tensor `b`: its data leave a hole after the tensor before");
    refuse("{\"a\":" TENSOR("U8", "[1]", 0, 1) "}", 3, "m.st: 2 bytes follow the last tensor");
}

/* Other writers align to 8 bytes or not at all. */
Test(safetensors, data_are_aligned)
{
    _Alignas(64) unsigned char bytes[512];
    for (size_t shift = 0; shift < 8; shift++) {
        char header[256];
        snprintf(header, sizeof header,
                 "{\"a\":" TENSOR("U8", "[1]", 0, 1) ",\"b\":" TENSOR(
                     "F32", "[2]", 1, 9) ",\"c\":" TENSOR("I64", "[0]", 9, 9) "}%*s",
                 (int)shift, "");
        size_t size = make(header, 9, bytes);
        kac_tensors *file = NULL;
        cr_assert_eq(kac_tensors_parse("m.st", bytes, size, &file), KAC_OK, "%s",
                     kac_last_error());
        const kac_tensor *b = kac_tensors_find(file, "b");
        cr_assert_eq((uintptr_t)b->data % 4, 0);
        cr_assert_arr_eq(b->data, bytes + size - 8, 8);
        cr_assert_eq((uintptr_t)kac_tensors_find(file, "c")->data % 8, 0);
        kac_tensors_close(file);
    }
}

Test(safetensors, writes_what_it_reads)
{
    char folder[256];
    char path[300];
    scratch_create(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/m.st", folder);
    const uint8_t bytes[3] = {1, 2, 3};
    const float floats[6] = {0, 1, 2, 3, 4, 5};
    const int64_t integer = -7;
    const kac_tensor tensors[] = {
        {"bytes", KAC_U8, 1, {3}, bytes, 3},
        {"floats", KAC_F32, 2, {2, 3}, floats, 24},
        {"none", KAC_F16, 1, {0}, NULL, 0},
        {"integer", KAC_I64, 0, {0}, &integer, 8},
    };
    const char *const metadata[2][2] = {{"kac.length", "50"}, {"kac.alphabet", "ACGÜ\"\n"}};
    cr_assert_eq(kac_tensors_write(path, metadata, 2, tensors, 4), KAC_OK, "%s",
                 kac_last_error());

    kac_tensors *file = NULL;
    cr_assert_eq(kac_tensors_open(path, &file), KAC_OK, "%s", kac_last_error());
    cr_assert_str_eq(kac_tensors_path(file), path);
    cr_assert_eq(kac_tensors_count(file), 4);
    cr_assert_str_eq(kac_tensors_metadata(file, "kac.alphabet"), "ACGÜ\"\n");
    cr_assert_null(kac_tensors_metadata(file, "kac.arch"));
    const char *key = NULL;
    const char *value = NULL;
    kac_tensors_metadata_at(file, 0, &key, &value); /* sorted by key */
    cr_assert_str_eq(key, "kac.alphabet");
    cr_assert_eq((uintptr_t)kac_tensors_at(file, 0)->data % 64, 0);
    for (int i = 0; i < 4; i++) {
        const kac_tensor *x = kac_tensors_find(file, tensors[i].name);
        cr_assert_not_null(x);
        cr_assert_eq(x->dtype, tensors[i].dtype);
        cr_assert_eq(x->rank, tensors[i].rank);
        cr_assert_eq(x->bytes, tensors[i].bytes);
        cr_assert_arr_eq(x->shape, tensors[i].shape, (size_t)x->rank * sizeof *x->shape);
        if (x->bytes > 0) cr_assert_arr_eq(x->data, tensors[i].data, x->bytes);
    }
    kac_tensors_close(file);
    unlink(path);
    rmdir(folder);
}

Test(safetensors, write_refuses)
{
    char folder[256];
    char path[300];
    scratch_create(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/m.st", folder);
    const float x[2] = {1, 2};
    const kac_tensor twice[] = {{"a", KAC_F32, 1, {2}, x, 8}, {"a", KAC_F32, 1, {2}, x, 8}};
    const kac_tensor bytes[] = {{"a", KAC_F32, 1, {3}, x, 8}};
    const kac_tensor name[] = {{"\xff", KAC_F32, 1, {2}, x, 8}};
    cr_assert_eq(kac_tensors_write(path, NULL, 0, twice, 2), KAC_ERR_INVALID);
    cr_assert_eq(kac_tensors_write(path, NULL, 0, bytes, 1), KAC_ERR_INVALID);
    cr_assert_eq(kac_tensors_write(path, NULL, 0, name, 1), KAC_ERR_INVALID);
    cr_assert_eq(rmdir(folder), 0, "nothing is left");
}

Test(safetensors, open_refuses)
{
    char folder[256];
    char path[300];
    char message[400];
    kac_tensors *file = NULL;
    scratch_create(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/m.st", folder);
    cr_assert_eq(kac_tensors_open(path, &file), KAC_ERR_INVALID);
    snprintf(message, sizeof message, "%s: cannot open: No such file or directory", path);
    cr_assert_str_eq(kac_last_error(), message);
    cr_assert_eq(kac_tensors_open(folder, &file), KAC_ERR_INVALID);
    snprintf(message, sizeof message, "%s: not a file", folder);
    cr_assert_str_eq(kac_last_error(), message);
    cr_assert_eq(kac_tensors_open("/dev/null", &file), KAC_ERR_INVALID);

    FILE *empty = fopen(path, "w");
    cr_assert_not_null(empty);
    cr_assert_eq(fclose(empty), 0);
    cr_assert_eq(kac_tensors_open(path, &file), KAC_ERR_INVALID);
    snprintf(message, sizeof message, "%s: the file is empty", path);
    cr_assert_str_eq(kac_last_error(), message);
    unlink(path);
    rmdir(folder);
}

Test(safetensors, inspect)
{
    char folder[256];
    char path[300];
    scratch_create(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/m.st", folder);
    const double x[2] = {1, 2};
    const kac_tensor tensors[] = {{"weights", KAC_F64, 2, {1, 2}, x, 16},
                                  {"bias", KAC_U8, 1, {3}, x, 3}};
    const char *const metadata[2][2] = {{"b", "2"}, {"a", "1"}};
    cr_assert_eq(kac_tensors_write(path, metadata, 2, tensors, 2), KAC_OK);
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    cr_assert_eq(kac_inspect(path, out), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(fclose(out), 0);
    cr_assert_str_eq(text, "a: 1\nb: 2\n\nbias     U8    [3]\nweights  F64   [1, 2]\n"
                           "2 tensors, 5 elements, 19 bytes\n");
    free(text);
    unlink(path);
    rmdir(folder);
}

Test(safetensors, floats)
{
    _Alignas(64) unsigned char bytes[512];
    const kac_tensor *x = NULL;
    kac_tensors *file = NULL;
    const char header[] = "{\"a\":" TENSOR("F32", "[2,3]", 0, 24) ",\"n\":" TENSOR(
        "F32", "[1]", 24, 28) ",\"h\":" TENSOR("F16", "[1]", 28, 30) "}  ";
    size_t size = make(header, 30, bytes);
    const float nan = NAN;
    memcpy(bytes + size - 6, &nan, sizeof nan);
    cr_assert_eq(kac_tensors_parse("m.st", bytes, size, &file), KAC_OK, "%s", kac_last_error());

    cr_assert_eq(kac_tensors_floats(file, "a", 2, (const int64_t[]){2, -1}, &x), KAC_OK);
    cr_assert_eq(x->shape[1], 3);
    cr_assert_eq(kac_tensors_floats(file, "a", 2, (const int64_t[]){-1, 4}, &x),
                 KAC_ERR_INVALID);
    cr_assert_str_eq(kac_last_error(), "m.st: tensor `a` has shape [2, 3], want [any, 4]");
    cr_assert_eq(kac_tensors_floats(file, "a", 0, NULL, &x), KAC_ERR_INVALID);
    cr_assert_str_eq(kac_last_error(), "m.st: tensor `a` has shape [2, 3], want []");
    cr_assert_eq(kac_tensors_floats(file, "b", 0, NULL, &x), KAC_ERR_INVALID);
    cr_assert_str_eq(kac_last_error(), "m.st: tensor `b` is missing");
    cr_assert_eq(kac_tensors_floats(file, "h", 1, (const int64_t[]){1}, &x), KAC_ERR_INVALID);
    cr_assert_str_eq(kac_last_error(), "m.st: tensor `h` has dtype F16, want F32");
    cr_assert_eq(kac_tensors_floats(file, "n", 1, (const int64_t[]){1}, &x), KAC_ERR_INVALID);
    cr_assert_str_eq(kac_last_error(),
                     "m.st: tensor `n`: element 0 is nan, want a finite number");
    kac_tensors_close(file);
}

Test(safetensors, integers)
{
    unsigned char bytes[512];
    kac_tensors *file = NULL;
    int64_t value = 0;
    size_t size = make("{\"__metadata__\":{\"n\":\"12\",\"x\":\"1x\",\"e\":\"\",\"h\":\"99"
                       "99999999999999999999\"}}",
                       0, bytes);
    cr_assert_eq(kac_tensors_parse("m.st", bytes, size, &file), KAC_OK);
    cr_assert_eq(kac_tensors_integer(file, "n", 0, 20, false, 0, &value), KAC_OK);
    cr_assert_eq(value, 12);
    cr_assert_eq(kac_tensors_integer(file, "absent", 0, 20, true, 5, &value), KAC_OK);
    cr_assert_eq(value, 5);
    cr_assert_eq(kac_tensors_integer(file, "absent", 0, 20, false, 5, &value), KAC_ERR_INVALID);
    cr_assert_str_eq(kac_last_error(), "m.st: metadata `absent` is missing");
    cr_assert_eq(kac_tensors_integer(file, "n", 0, 11, true, 5, &value), KAC_ERR_INVALID);
    cr_assert_str_eq(kac_last_error(),
                     "m.st: metadata `n` is `12`, want an integer from 0 to 11");
    const char *const bad[] = {"x", "e", "h"};
    for (int i = 0; i < 3; i++)
        cr_assert_eq(kac_tensors_integer(file, bad[i], INT64_MIN, INT64_MAX, true, 5, &value),
                     KAC_ERR_INVALID, "%s", bad[i]);
    kac_tensors_close(file);
}
