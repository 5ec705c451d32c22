/* fuzz_safetensors.c -- libFuzzer: the reader survives any bytes, and what it accepts can be
 * read to the last byte. */
#include "safetensors.h"

/* libFuzzer calls it by this name.  NOLINTNEXTLINE(readability-identifier-naming) */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    kac_tensors *file = NULL;
    if (kac_tensors_parse("fuzz", data, size, &file) != KAC_OK) return 0;
    volatile unsigned char sink = 0;
    for (int i = 0; i < kac_tensors_count(file); i++) {
        const kac_tensor *x = kac_tensors_at(file, i);
        const unsigned char *bytes = x->data;
        char shape[64];
        kac_shape_text(x, shape, sizeof shape);
        for (size_t k = 0; k < x->bytes; k++)
            sink = (unsigned char)(sink + bytes[k]);
    }
    kac_tensors_close(file);
    return 0;
}
