/* network.h -- a model file opened on a device: a denoiser or a reward. */
#ifndef KAC_NETWORK_H
#define KAC_NETWORK_H

#include "object.h"
#include "ops.h"
#include "process.h"
#include "safetensors.h"

typedef enum kac_role { KAC_ROLE_DENOISER, KAC_ROLE_REWARD } kac_role;

/* A position is a 24-bit number in the counter of a random draw (rng.h). */
enum { KAC_NETWORK_MAX_LENGTH = 1 << 24 };

typedef struct kac_network kac_network;

/* What an architecture brings (one constant entry in the table of network.c).  Before `load`,
 * alphabet, states (of vectors "" and 1) and length (kac.length, 0 where absent) are set; it reads
 * and checks the
 * tensors, sets the other fields of *network from `net` on, and packs. */
typedef struct kac_arch {
    const char *name; /* kac.arch */
    kac_role role;
    int vectors; /* 1: its states are vectors, of the gaussian process or graphs */
    int scores;  /* 1: of graphs only, and answers scores (process.h) */
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
    char options[1024];                /* plug-ins: what they were told */
    char alphabet[KAC_MAX_STATES + 1]; /* one letter a state, without the mask */
    int32_t states;                    /* S */
    int32_t length;                    /* the file's default L, 0: none */
    int32_t fixed_length;              /* 1: no other length works */
    int32_t outputs;                   /* reward heads; a denoiser has 0 */
    int32_t reads_time;
    int32_t takes_soft;    /* rewards: forward and vjp accept probabilities */
    int32_t waits;         /* in forward the host waits for the device */
    kac_graph_model graph; /* nodes 0: not of graphs */
};

/* Whether c can be a letter of an alphabet: it can be printed, and is none of , " > ? which tables, FASTA
 * files and templates read otherwise. */
bool kac_is_letter(char c);

/* Opens `path` and packs it for `dev`.  The role must fit ("table" exists in both).
 * Errors: INVALID (file and what is allowed), IO, NOMEM. */
kac_status kac_network_open(kac_device *dev, const char *path, kac_role role,
                            kac_network **out);
void kac_network_close(kac_network *network);

/* What the metadata of a denoiser of vectors says of graphs, into network->graph: kac.nodes (N),
 * kac.features (F), kac.noise_nodes and kac.noise_pairs ("vp BETA_MIN BETA_MAX" or "ve SIGMA_MIN
 * SIGMA_MAX"), where its architecture has not set them already; and where they are there
 * kac.node_counts ("NODES:WEIGHT,..") and kac.atoms ("C,N,..").  Without kac.nodes it is none of
 * graphs.  Errors: INVALID. */
kac_status kac_graph_model_read(const kac_tensors *file, kac_network *network);

/* A reward that needs no file: it counts letters. */
typedef struct kac_filter_spec {
    int term; /* reward.N, for messages */
    kac_filter_kind kind;
    const char *motifs;   /* KAC_FILTER_MOTIF: "GAATTC,GGNCC" */
    int32_t both_strands; /* and their reverse complements */
} kac_filter_spec;

/* Opens a filter for objects of these letters; it has one output and takes any length.  A letter
 * of a motif stands for itself, or, where the letters are A, C, G and T or U, is a IUPAC code (N,
 * R, Y, ...; T and U are the same).  Motifs that stand for the same letters are one, a motif and
 * its equal reverse complement too.
 * Errors: INVALID (letters without G and C, a motif's letter that is none), NOMEM. */
kac_status kac_filter_open(kac_device *dev, const kac_filter_spec *spec, const char *alphabet,
                           kac_network **out);

/* A shared object of include/kac_plugin.h; of `role` reward for objects of this form, which must
 * outlive the network. */
typedef struct kac_plugin_spec {
    kac_role role;
    const char *path, *options;
    const kac_object_form *form;
} kac_plugin_spec;

/* Loads it and opens what it has.  Errors: INVALID (no plug-in, another version, shapes that are
 * none, or it refuses), IO, NOMEM; and of its forward WORKER. */
kac_status kac_plugin_open(kac_device *dev, const kac_plugin_spec *spec, kac_network **out);

/* Whether sequences of `length` can be evaluated.  Errors: INVALID. */
kac_status kac_network_check_length(const kac_network *network, int32_t length);

/* network->forward on the device. */
kac_status kac_network_ask(const kac_network *network, const kac_query *query);

/* network->vjp on the device: grad = cotangent . d out / d input (networks.h).
 * Errors: UNSUPPORTED (the network has none, or takes no probabilities). */
kac_status kac_network_vjp(const kac_network *network, const kac_query *query,
                           const float *cotangent, float *grad);

#endif /* KAC_NETWORK_H */
