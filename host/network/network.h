/* network.h -- a model file opened on a device: a denoiser or a reward. */
#ifndef KAC_NETWORK_H
#define KAC_NETWORK_H

#include "ops.h"
#include "safetensors.h"

typedef enum kac_role { KAC_ROLE_DENOISER, KAC_ROLE_REWARD } kac_role;

/* A position is a 24-bit number in the counter of a random draw (rng.h). */
enum { KAC_NETWORK_MAX_LENGTH = 1 << 24 };

typedef struct kac_network kac_network;

/* What an architecture brings (one constant entry in the table of network.c).  Before `load`,
 * alphabet, states (of vectors "" and 1) and length (kac.length, 0 where absent) are set; it reads and checks the
 * tensors, sets the other fields of *network from `net` on, and packs. */
typedef struct kac_arch {
    const char *name; /* kac.arch */
    kac_role role;
    int vectors; /* 1: its states are vectors, of the gaussian process */
    kac_status (*load)(kac_device *dev, const kac_tensors *file, kac_network *network);
} kac_arch;

struct kac_network {
    kac_device *dev;
    const kac_arch *arch;
    kac_net *net;
    kac_net_forward_fn *forward;
    kac_net_vjp_fn *vjp; /* NULL: it has no gradient */
    kac_net_drop_fn *drop;
    char path[1024];
    char alphabet[KAC_MAX_STATES + 1]; /* one letter a state, without the mask */
    int32_t states;                    /* S */
    int32_t length;                    /* the file's default L, 0: none */
    int32_t fixed_length;              /* 1: no other length works */
    int32_t outputs;                   /* reward heads; a denoiser has 0 */
    int32_t reads_time;
    int32_t takes_soft; /* rewards: forward accepts probabilities */
};

/* Opens `path` and packs it for `dev`.  The role must fit ("table" exists in both).
 * Errors: INVALID (file and what is allowed), IO, NOMEM. */
kac_status kac_network_open(kac_device *dev, const char *path, kac_role role,
                            kac_network **out);
void kac_network_close(kac_network *network);

/* Whether sequences of `length` can be evaluated.  Errors: INVALID. */
kac_status kac_network_check_length(const kac_network *network, int32_t length);

/* network->forward on the device. */
kac_status kac_network_ask(const kac_network *network, const kac_query *query);

/* network->vjp on the device.  Errors: UNSUPPORTED where the architecture has none. */
kac_status kac_network_pull(const kac_network *network, const kac_query *query,
                            const float *cotangent, float *grad);

#endif /* KAC_NETWORK_H */
