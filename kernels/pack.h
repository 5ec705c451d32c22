/* pack.h -- copies of weights in a device's memory. */
#ifndef KAC_PACK_H
#define KAC_PACK_H

#include <stdlib.h>

#include "ops.h"

/* Status of giving `field` device memory with a copy of `bytes` bytes of the host's. */
#define KAC_PACK(dev, field, host, bytes)                                                      \
    (((field) = (__typeof__(field))(dev)->ops->memory.alloc((dev), (bytes))) == NULL           \
         ? KAC_ERR_NOMEM                                                                       \
         : (dev)->ops->memory.upload((dev), (field), (host), (bytes)))

/* Zeroed host memory for a network's struct. */
static inline kac_net *kac_net_new(size_t bytes)
{
    kac_net *net = (kac_net *)calloc(1, bytes);
    if (net == NULL) kac_note("no %zu bytes for a network", bytes);
    return net;
}

#endif /* KAC_PACK_H */
