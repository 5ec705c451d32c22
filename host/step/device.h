/* device.h -- which backend a run computes on. */
#ifndef KAC_DEVICE_H
#define KAC_DEVICE_H

#include <stdbool.h>

#include "ops.h"

/* The names of kac_isa. */
extern const char *const kac_isa_names[KAC_ISA_AVX512 + 1];

/* Opens "cpu", "cuda:N", or "auto", which is the CPU as long as the CUDA backend has run on no
 * GPU.  isa -1: the best this processor has.
 * Errors: INVALID (no such name), UNSUPPORTED (no such device here, or the processor lacks the
 * instruction set), NOMEM, DEVICE. */
kac_status kac_device_open(const char *name, int isa, kac_device **out);

/* The name under which the rank with number `local` on its machine opens a device: where `name` is
 * auto, nothing else is said, and there are several GPUs, the ranks take them in turn; `text` may
 * hold it. */
const char *kac_device_of_rank(const char *name, int isa, int local, char *text, size_t size);

/* How networks that are packed from now on compute.  Errors: UNSUPPORTED (the CPU is exact). */
kac_status kac_device_set_precision(kac_device *dev, kac_precision precision);

void kac_device_close(kac_device *dev); /* accepts NULL */

#endif /* KAC_DEVICE_H */
