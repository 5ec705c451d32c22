/* each_device.h -- the devices that tests of networks run on: the CPU with every instruction set
 * and the build's own, which is a GPU or the emulator where the build has one. */
#ifndef KAC_EACH_DEVICE_H
#define KAC_EACH_DEVICE_H

#include <criterion/criterion.h>
#include <string.h>

#include "device.h"

/* What follows the instruction sets: for (which = 0; which <= OWN_DEVICE; which++). */
enum { OWN_DEVICE = KAC_ISA_AVX512 + 1 };

/* Whether the device has the networks of `arch`: cnn1d, conv_regressor and convgru may have no
 * twin on a GPU yet.  All others must be there. */
static inline bool has_network(const kac_device *dev, const char *arch)
{
    const kac_network_ops *all = &dev->ops->networks;
    if (strcmp(arch, "cnn1d") == 0) return all->cnn1d.pack != NULL;
    if (strcmp(arch, "conv_regressor") == 0) return all->conv_regressor.pack != NULL;
    if (strcmp(arch, "convgru") == 0) return all->convgru.pack != NULL;
    return true;
}

/* The CPU with an instruction set (-1: the best), or OWN_DEVICE.  NULL: the processor lacks the
 * set, or the device has no `arch` yet. */
static inline kac_device *open_device(int which, const char *arch)
{
    kac_device *dev = NULL;
    bool own = which == OWN_DEVICE;
    kac_status status = kac_device_open(own ? "auto" : "cpu", own ? -1 : which, &dev);
    cr_assert(status == KAC_OK || (which > 0 && !own && status == KAC_ERR_UNSUPPORTED), "%s",
              kac_last_error());
    if (dev == NULL || has_network(dev, arch)) return dev;
    kac_device_close(dev);
    return NULL;
}

/* The build's own device, or the CPU where that has no `arch` yet. */
static inline kac_device *open_own(const char *arch)
{
    kac_device *dev = open_device(OWN_DEVICE, arch);
    return dev != NULL ? dev : open_device(-1, arch);
}

#endif /* KAC_EACH_DEVICE_H */
