/* each_device.h -- the devices that tests of networks run on: the CPU with every instruction set
 * and the build's own, the emulator where the build has it. */
#ifndef KAC_EACH_DEVICE_H
#define KAC_EACH_DEVICE_H

#include "on_device.h"

/* What follows the instruction sets: for (which = 0; which <= OWN_DEVICE; which++). */
enum { OWN_DEVICE = KAC_ISA_AVX512 + 1 };

/* The CPU with an instruction set (-1: the best), or OWN_DEVICE.  NULL: the processor lacks the
 * set. */
static inline kac_device *open_device(int which)
{
    kac_device *opened = NULL;
    bool own = which == OWN_DEVICE;
    kac_status status = kac_device_open(own ? device_name() : "cpu", own ? -1 : which, &opened);
    cr_assert(status == KAC_OK || (which > 0 && !own && status == KAC_ERR_UNSUPPORTED), "%s",
              kac_last_error());
    return opened;
}

static inline kac_device *open_own(void)
{
    return open_device(OWN_DEVICE);
}

#endif /* KAC_EACH_DEVICE_H */
