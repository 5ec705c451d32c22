/* on_device.h -- the device that the tests of operations compute on: a GPU or the emulator where the
 * build has one, else the CPU.  Arrays come from its memory, and the tests read them directly. */
#ifndef KAC_ON_DEVICE_H
#define KAC_ON_DEVICE_H

#include <criterion/criterion.h>

#include "device.h"

static inline kac_device *dev(void)
{
    static kac_device *opened;
    if (opened == NULL)
        cr_assert_eq(kac_device_open("auto", -1, &opened), KAC_OK, "%s", kac_last_error());
    return opened;
}

static inline const kac_ops *ops(void)
{
    return dev()->ops;
}

#endif /* KAC_ON_DEVICE_H */
