/* on_device.h -- the device that the tests of operations compute on: the emulator in its builds,
 * the one that KAC_TEST_DEVICE names, else the CPU.  Arrays come from its memory, and most tests
 * read them directly, which a GPU does not allow: there only the twins' tests can run. */
#ifndef KAC_ON_DEVICE_H
#define KAC_ON_DEVICE_H

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "device.h"

static inline bool is_emulator(const kac_device *device)
{
    char text[256] = "";
    return device->ops->memory.describe(0, text, sizeof text) == KAC_OK &&
           strncmp(text, "emulator", strlen("emulator")) == 0;
}

static inline const char *device_name(void)
{
    kac_device *first = NULL;
    const char *name = getenv("KAC_TEST_DEVICE");
    if (name == NULL && kac_device_open("cuda:0", -1, &first) == KAC_OK) {
        if (is_emulator(first)) name = "cuda:0";
        kac_device_close(first);
    }
    return name != NULL ? name : "cpu";
}

static inline kac_device *dev(void)
{
    static kac_device *opened;
    if (opened == NULL)
        cr_assert_eq(kac_device_open(device_name(), -1, &opened), KAC_OK, "%s",
                     kac_last_error());
    return opened;
}

/* For suites that compare the CPU with another device. */
static inline void need_device(void)
{
    if (strcmp(device_name(), "cpu") == 0)
        cr_skip_test("this build has no device but the CPU; test_emu.sh has the emulator");
}

static inline const kac_ops *ops(void)
{
    return dev()->ops;
}

/* Threads of the CPU from now on, where the build has more than one. */
static inline void set_threads(int n)
{
#ifdef _OPENMP
    omp_set_num_threads(n);
#else
    (void)n;
#endif
}

#endif /* KAC_ON_DEVICE_H */
