/* networks.h -- what a network is asked, and the operations of each architecture.
 *
 * An architecture is three functions: pack takes the weights of a file (host memory, layouts of
 * docs/models.md) into the form its forward likes, forward answers a query, drop frees.  The
 * forward takes a chunk of rows through all layers, one thread a chunk; a row's result does not
 * depend on the rows beside it, the chunk, the threads or the instruction set.
 *
 * Exact arithmetic: a dot product is one fma chain in index order, starting from the bias;
 * convolutions in the order (tap, input channel), taps outside the sequence skipped.  Norms,
 * softmax and pooling: 16 interleaved fma lanes, zero-padded, then one fixed tree (exact.h).
 */
#ifndef KAC_NETWORKS_H
#define KAC_NETWORKS_H

#include "base.h"
#include "types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Rows for a network: for j in 0 .. min(*count - first, capacity) - 1, the state in row
 * src[first + j] gets its result in row dst[first + j] of out. */
typedef struct kac_query {
    const uint8_t *tokens; /* [..][stride]; token S is a mask (a reward net sees it as zeros) */
    const float *soft;     /* [..][length][S] instead of tokens, or NULL: rewards only */
    int32_t stride;        /* bytes of a row of tokens */
    int32_t length;        /* L */
    const int32_t *src;    /* [first + capacity], or NULL: the identity */
    const int32_t *dst;    /* [first + capacity], or NULL: the identity */
    const int32_t *count;  /* device scalar, or NULL: first + capacity */
    int32_t first;
    int32_t capacity;
    const kac_level *levels; /* nets that read t are fed levels[clock->level].sigma */
    const kac_clock *clock;
    float *out; /* denoiser: [..][length][S] logits, the mask's left out; reward: [..][outputs],
                   row step out_stride */
    int32_t out_stride; /* floats between rows of out */
} kac_query;

/* A network packed for a device. */
typedef struct kac_net kac_net;

typedef kac_status kac_net_forward_fn(kac_device *dev, const kac_net *net, const kac_query *q);
typedef void kac_net_drop_fn(kac_device *dev, kac_net *net); /* accepts NULL */

/* ---- cnn1d: dilated convolutions with a residual stream (denoiser) ------------------------
 */

enum { KAC_CNN1D_MAX_LAYERS = 64 };

typedef struct kac_cnn1d_weights {
    int32_t states; /* S; one-hot input and logits have S + 1 channels */
    int32_t hidden; /* H */
    int32_t kernel; /* K, odd */
    int32_t layers;
    int32_t dilation[KAC_CNN1D_MAX_LAYERS];
    int32_t reads_time;                /* 1: sigma of the query; 0: sigma = 0, folded at pack */
    const float *linear, *linear_bias; /* [H][S+1][K], [H] */
    const float *fourier;              /* [H/2], or NULL: no time features at all */
    const float *embed, *embed_bias;   /* [H][H], [H] */
    const float *time[KAC_CNN1D_MAX_LAYERS], *time_bias[KAC_CNN1D_MAX_LAYERS]; /* [H][H], [H] */
    const float *conv[KAC_CNN1D_MAX_LAYERS], *conv_bias[KAC_CNN1D_MAX_LAYERS]; /* [H][H][K] */
    const float *norm[KAC_CNN1D_MAX_LAYERS], *norm_bias[KAC_CNN1D_MAX_LAYERS]; /* [H] */
    const float *final0, *final0_bias;                                         /* [H][H], [H] */
    const float *final2, *final2_bias; /* [S+1][H], [S+1] */
} kac_cnn1d_weights;

typedef kac_status kac_cnn1d_pack_fn(kac_device *dev, const kac_cnn1d_weights *host_weights,
                                     kac_net **out);
kac_cnn1d_pack_fn kac_cpu_cnn1d_pack;
kac_net_forward_fn kac_cpu_cnn1d_forward;
kac_net_drop_fn kac_cpu_cnn1d_drop;

typedef struct kac_cnn1d_ops {
    kac_cnn1d_pack_fn *pack;
    kac_net_forward_fn *forward;
    kac_net_drop_fn *drop;
} kac_cnn1d_ops;

/* The other architectures (convgru, conv_regressor, pwm, table_denoiser, table_reward, markov)
 * follow here in the same form: a struct of weights, three functions, a sub-table. */

/* ---- all of them --------------------------------------------------------------------------
 */

typedef struct kac_network_ops {
    kac_cnn1d_ops cnn1d;
} kac_network_ops;

#ifdef __cplusplus
}
#endif
#endif /* KAC_NETWORKS_H */
