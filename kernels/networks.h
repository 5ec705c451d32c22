/* networks.h -- what a network is asked, and the operations of each architecture.
 *
 * An architecture is four functions: pack takes the weights of a file (host memory, layouts of
 * docs/models.md) into the form its forward likes, forward answers a query, vjp differentiates
 * it with respect to its input, drop frees.  Forward and vjp take a chunk of rows through all
 * layers, one thread a chunk; a row's result does not depend on the rows beside it, the chunk,
 * the threads or the instruction set.
 *
 * Exact arithmetic: a dot product is one fma chain in index order, starting from the bias;
 * convolutions in the order (tap, input channel), taps outside the sequence skipped.  Norms,
 * softmax and pooling: 16 interleaved fma lanes, zero-padded, then one fixed tree (exact.h).
 * Backwards a convolution is the convolution with exchanged channels and flipped taps: one fma
 * chain that starts from 0, in the order (position of the output, output channel).
 */
#ifndef KAC_NETWORKS_H
#define KAC_NETWORKS_H

#include "base.h"
#include "types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Rows for a network: for j in 0 .. min(*count - first, capacity) - 1, the state in row src[j]
 * gets its result in row dst[j] of out; a NULL list means row j itself.  (`first` only says how
 * far into the counted rows this window begins.) */
typedef struct kac_query {
    const uint8_t *tokens; /* [..][stride]; token S is a mask (a reward net sees it as zeros);
                              or rows that begin with [length] floats, vectors */
    const float *soft;     /* [..][length][S] instead of tokens, or NULL: rewards only */
    int32_t stride;        /* bytes of a row of tokens */
    int32_t length;        /* L */
    const int32_t *src;    /* [capacity], or NULL: row j */
    const int32_t *dst;    /* [capacity], or NULL: row j */
    const int32_t *count;  /* device scalar, or NULL: first + capacity */
    int32_t first;
    int32_t capacity;
    const kac_level *levels; /* nets that read t are fed levels[clock->level].sigma */
    const kac_clock *clock;
    float *out; /* denoiser: [..][length][S] logits, the mask's left out, or for vectors the
                   estimate of x_0; reward: [..][outputs], row step out_stride */
    int32_t out_stride; /* floats between rows of out */
} kac_query;

/* A network packed for a device. */
typedef struct kac_net kac_net;

typedef kac_status kac_net_forward_fn(kac_device *dev, const kac_net *net, const kac_query *q);
typedef void kac_net_drop_fn(kac_device *dev, kac_net *net); /* accepts NULL */

/* The vector-Jacobian product, grad = cotangent . d out / d input, at the state of each live
 * row, for j as in kac_query (src picks the input row; dst, out and out_stride are not used):
 *     cotangent  [capacity][length][S] (denoiser) or [capacity][outputs] (reward), row j for
 *                query row j;
 *     grad       [capacity][length][S + 1] (denoiser, channel S the mask) or
 *                [capacity][length][S] (reward; a mask is the zero vector).
 * The input is a real-valued [length][channels] array, and the derivative is taken at the
 * one-hot rows of the tokens, or at q->soft.  The activations are computed anew; relu has slope
 * 0 at 0, and a maximum hands its gradient to the first position that attains it. */
typedef kac_status kac_net_vjp_fn(kac_device *dev, const kac_net *net, const kac_query *q,
                                  const float *cotangent, float *grad);

/* ---- cnn1d: dilated convolutions with a residual stream (denoiser) ------------------------
 */

enum { KAC_CNN1D_MAX_LAYERS = 64, KAC_CNN1D_MAX_HIDDEN = 1024, KAC_CNN1D_MAX_KERNEL = 255 };

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
kac_cnn1d_pack_fn kac_cpu_cnn1d_pack, kac_cuda_cnn1d_pack;
kac_net_forward_fn kac_cpu_cnn1d_forward, kac_cuda_cnn1d_forward;
kac_net_vjp_fn kac_cpu_cnn1d_vjp, kac_cuda_cnn1d_vjp;
kac_net_drop_fn kac_cpu_cnn1d_drop, kac_cuda_cnn1d_drop;

typedef struct kac_cnn1d_ops {
    kac_cnn1d_pack_fn *pack;
    kac_net_forward_fn *forward;
    kac_net_vjp_fn *vjp;
    kac_net_drop_fn *drop;
} kac_cnn1d_ops;

/* ---- table: every answer stored (denoiser, reward) ----------------------------------------
 */

/* A state's row is its number in base S + 1 (denoiser; the mask is digit S) or S (reward), the
 * first position most significant. */
typedef struct kac_table_weights {
    int32_t states;      /* S */
    int32_t length;      /* L */
    int64_t rows;        /* (S + 1)^L or S^L */
    const float *values; /* denoiser: [rows][L][S] logits; reward: [rows] */
} kac_table_weights;

typedef kac_status kac_table_pack_fn(kac_device *dev, const kac_table_weights *host_weights,
                                     kac_net **out);

/* The row of the state, for revealed positions too.
 *
 * vjp: the rows are taken for the posteriors of a law of objects, which pack reads off them,
 * p(x) = product over l of the softmax of the row of x_0 .. x_{l-1} with all else masked, at
 * (l, x_l).  The logits are the log posterior of each site when object x has the weight
 * p(x) e_0(x_0) .. e_{L-1}(x_{L-1}), where the input u of a site gives the evidence
 * e(k) = u_k + u_mask.  At one-hot inputs that is the row of the state, up to a constant a
 * site, wherever the rows are posteriors of one law.  As for markov, cotangents of impossible
 * letters count as 0, and so does the gradient where nothing agrees with the state. */
kac_table_pack_fn kac_cpu_table_denoiser_pack, kac_cuda_table_denoiser_pack;
kac_net_forward_fn kac_cpu_table_denoiser_forward, kac_cuda_table_denoiser_forward;
kac_net_vjp_fn kac_cpu_table_denoiser_vjp, kac_cuda_table_denoiser_vjp;
kac_net_drop_fn kac_cpu_table_denoiser_drop, kac_cuda_table_denoiser_drop;

/* The entry of the state.  Soft: the expectation under independent sites, in fp64 by an fma
 * chain over the rows, the weight of a row being the product over sites from the last to the
 * first.  A masked site is a row of zeros, so the reward is then 0.  Entries of -INFINITY, which
 * a soft value must not fall into with the least probability, are left out of the chain, and
 * the sum is then divided by the weight of the others; -INFINITY where these have none.
 *
 * vjp: of that, by fp64 chains over the rows too; 0 where the reward is -INFINITY.  At a state,
 * letters that lead to entries of -INFINITY get 0. */
kac_table_pack_fn kac_cpu_table_reward_pack, kac_cuda_table_reward_pack;
kac_net_forward_fn kac_cpu_table_reward_forward, kac_cuda_table_reward_forward;
kac_net_vjp_fn kac_cpu_table_reward_vjp, kac_cuda_table_reward_vjp;
kac_net_drop_fn kac_cpu_table_reward_drop, kac_cuda_table_reward_drop;

typedef struct kac_table_ops {
    kac_table_pack_fn *pack;
    kac_net_forward_fn *forward;
    kac_net_vjp_fn *vjp;
    kac_net_drop_fn *drop;
} kac_table_ops;

/* ---- markov: exact posteriors of a Markov chain (denoiser) --------------------------------
 */

typedef struct kac_markov_weights {
    int32_t states;          /* S */
    const float *initial;    /* [S], sums to 1 */
    const float *transition; /* [S][S], rows sum to 1: from, to */
} kac_markov_weights;

typedef kac_status kac_markov_pack_fn(kac_device *dev, const kac_markov_weights *host_weights,
                                      kac_net **out);

/* log of the posterior of each site given the revealed ones, by scaled forward-backward in
 * fp64; -INFINITY where it is zero.  Revealed sites are certain.  Where no sequence agrees with
 * the revealed sites (independent proposals can reveal such a pair) there is no posterior, and
 * every masked site gets logits of 0, the uniform law.
 *
 * vjp: the input u of a site gives the evidence e(k) = u_k + u_mask, a path x has the weight
 * p(x) e_0(x_0) .. e_{L-1}(x_{L-1}), and the logits are the log posterior of each site; at
 * one-hot inputs that is the forward.  With c the cotangent, C_l its sum over the letters of
 * site l, P the posterior and q_l(v) = c_l(v) / P_l(v) - C_l,
 *     d / d e_m(k) = (d/d e_m(k) of the sum over paths of weight(x) sum_l q_l(x_l)) / Z,
 * Z the weight of all paths: forward-backward with pairs (weight, weight times the sum of q).
 * The cotangent of a logit of -INFINITY counts as 0, and where no sequence agrees with the
 * revealed sites the gradient is 0.
 * L. R. Rabiner, "A tutorial on hidden Markov models", Proc. IEEE 77(2), 1989, section III. */
kac_markov_pack_fn kac_cpu_markov_pack, kac_cuda_markov_pack;
kac_net_forward_fn kac_cpu_markov_forward, kac_cuda_markov_forward;
kac_net_vjp_fn kac_cpu_markov_vjp, kac_cuda_markov_vjp;
kac_net_drop_fn kac_cpu_markov_drop, kac_cuda_markov_drop;

typedef struct kac_markov_ops {
    kac_markov_pack_fn *pack;
    kac_net_forward_fn *forward;
    kac_net_vjp_fn *vjp;
    kac_net_drop_fn *drop;
} kac_markov_ops;

/* ---- pwm: position weight matrix (reward) -------------------------------------------------
 */

typedef struct kac_pwm_weights {
    int32_t states;      /* S */
    int32_t length;      /* L */
    const float *weight; /* [L][S] */
} kac_pwm_weights;

typedef kac_status kac_pwm_pack_fn(kac_device *dev, const kac_pwm_weights *host_weights,
                                   kac_net **out);

/* The sum over sites of the weight of the token (soft: its expectation), one fma chain. */
kac_pwm_pack_fn kac_cpu_pwm_pack, kac_cuda_pwm_pack;
kac_net_forward_fn kac_cpu_pwm_forward, kac_cuda_pwm_forward;
kac_net_vjp_fn kac_cpu_pwm_vjp, kac_cuda_pwm_vjp;
kac_net_drop_fn kac_cpu_pwm_drop, kac_cuda_pwm_drop;

typedef struct kac_pwm_ops {
    kac_pwm_pack_fn *pack;
    kac_net_forward_fn *forward;
    kac_net_vjp_fn *vjp;
    kac_net_drop_fn *drop;
} kac_pwm_ops;

/* ---- conv_regressor: convolutions, pools and dense layers (reward) ------------------------
 */

typedef enum kac_layer_kind {
    KAC_LAYER_CONV,
    KAC_LAYER_DENSE,
    KAC_LAYER_MAXPOOL,
    KAC_LAYER_AVGPOOL,
    KAC_LAYER_GLOBALMAX,
    KAC_LAYER_GLOBALAVG,
    KAC_LAYER_FLATTEN, /* index = time * channels + channel */
} kac_layer_kind;

typedef enum kac_activation {
    KAC_ACT_LINEAR,
    KAC_ACT_RELU,
    KAC_ACT_GELU, /* with erf */
    KAC_ACT_TANH,
    KAC_ACT_ELU,
} kac_activation;

enum { KAC_REGRESSOR_MAX_LAYERS = 64 };

/* One layer: [in_length][in] to [out_length][out].  A dense layer is a convolution of one tap
 * over a sequence of length 1. */
typedef struct kac_regressor_layer {
    kac_layer_kind kind;
    kac_activation act; /* conv, dense */
    int32_t in, out;    /* channels */
    int32_t in_length, out_length;
    int32_t taps, dilation; /* conv */
    int32_t pad;            /* conv: zeros on the left */
    int32_t size;           /* pools: width of a window; windows do not overlap */
    const float *kernel;    /* conv [taps][in][out], a correlation; dense [in][out] */
    const float *bias;      /* [out] */
} kac_regressor_layer;

typedef struct kac_conv_regressor_weights {
    int32_t states;        /* S */
    int32_t length;        /* L, of the object */
    const uint8_t *prefix; /* [prefix_length] tokens before the object */
    const uint8_t *suffix; /* [suffix_length] and after it */
    int32_t prefix_length, suffix_length;
    int32_t outputs;
    int32_t layers;
    kac_regressor_layer layer[KAC_REGRESSOR_MAX_LAYERS];
    float scale, offset; /* out = fma(scale, last layer, offset) */
} kac_conv_regressor_weights;

typedef kac_status kac_conv_regressor_pack_fn(kac_device *dev,
                                              const kac_conv_regressor_weights *host_weights,
                                              kac_net **out);

/* Averages: the sum over positions in 16 lanes (exact.h), divided by their number. */
kac_conv_regressor_pack_fn kac_cpu_conv_regressor_pack, kac_cuda_conv_regressor_pack;
kac_net_forward_fn kac_cpu_conv_regressor_forward, kac_cuda_conv_regressor_forward;
kac_net_vjp_fn kac_cpu_conv_regressor_vjp, kac_cuda_conv_regressor_vjp;
kac_net_drop_fn kac_cpu_conv_regressor_drop, kac_cuda_conv_regressor_drop;

typedef struct kac_conv_regressor_ops {
    kac_conv_regressor_pack_fn *pack;
    kac_net_forward_fn *forward;
    kac_net_vjp_fn *vjp;
    kac_net_drop_fn *drop;
} kac_conv_regressor_ops;

/* ---- convgru: convolutions, a bidirectional GRU, a mean over positions (reward) -----------
 */

enum { KAC_CONVGRU_MAX_BLOCKS = 64, KAC_CONVGRU_STEM_TAPS = 15, KAC_CONVGRU_TAPS = 5 };

/* PyTorch's shapes.  Index 1 of a pair is the reverse direction.  The rows of the GRU are the
 * gates r, z, n. */
typedef struct kac_convgru_weights {
    int32_t states;                                  /* S */
    int32_t channels;                                /* C */
    int32_t blocks;                                  /* after the stem */
    int32_t residual;                                /* 1: blocks add their input before relu */
    int32_t outputs;                                 /* tasks */
    const float *stem, *stem_bias;                   /* [C][S][15], [C] */
    const float *conv[KAC_CONVGRU_MAX_BLOCKS];       /* [C][C][5] */
    const float *conv_bias[KAC_CONVGRU_MAX_BLOCKS];  /* [C] */
    const float *norm[KAC_CONVGRU_MAX_BLOCKS];       /* [C] scale of BatchNorm, or NULL */
    const float *norm_bias[KAC_CONVGRU_MAX_BLOCKS];  /* [C] */
    const float *norm_mean[KAC_CONVGRU_MAX_BLOCKS];  /* [C] running mean */
    const float *norm_var[KAC_CONVGRU_MAX_BLOCKS];   /* [C] running variance */
    const float *gru_input[2], *gru_input_bias[2];   /* [3C][C], [3C] */
    const float *gru_hidden[2], *gru_hidden_bias[2]; /* [3C][C], [3C] */
    const float *layer_norm, *layer_norm_bias;       /* [C] */
    const float *ffn0, *ffn0_bias, *ffn1, *ffn1_bias; /* [2C][C], [2C], [C][2C], [C] */
    const float *head, *head_bias;                    /* [tasks][C], [tasks] */
} kac_convgru_weights;

typedef kac_status kac_convgru_pack_fn(kac_device *dev, const kac_convgru_weights *host_weights,
                                       kac_net **out);

/* Stem, relu; blocks of conv, BatchNorm folded into it, + input, relu; the two directions of
 * the GRU summed; LayerNorm, dense, relu, dense; the mean over positions; the head, which is
 * linear and so may follow the mean. */
kac_convgru_pack_fn kac_cpu_convgru_pack, kac_cuda_convgru_pack;
kac_net_forward_fn kac_cpu_convgru_forward, kac_cuda_convgru_forward;
kac_net_vjp_fn kac_cpu_convgru_vjp, kac_cuda_convgru_vjp;
kac_net_drop_fn kac_cpu_convgru_drop, kac_cuda_convgru_drop;

typedef struct kac_convgru_ops {
    kac_convgru_pack_fn *pack;
    kac_net_forward_fn *forward;
    kac_net_vjp_fn *vjp;
    kac_net_drop_fn *drop;
} kac_convgru_ops;

/* ---- filter: counts of letters (reward, without a file) -----------------------------------
 */

typedef enum kac_filter_kind {
    KAC_FILTER_SHARE, /* share of sites with a letter of a set */
    KAC_FILTER_RUN,   /* length of the longest run of one letter */
    KAC_FILTER_MOTIF, /* occurrences of motifs: pairs of a motif and a site where it begins */
} kac_filter_kind;

/* A set has bit s for letter s. */
typedef struct kac_filter_weights {
    kac_filter_kind kind;
    int32_t states; /* S */
    uint32_t set;   /* share */
    int32_t motifs;
    const int32_t *width; /* [motifs] sites of each */
    const uint32_t
        *sets; /* the letters that fit at each site of the first motif, the second, .. */
} kac_filter_weights;

typedef kac_status kac_filter_pack_fn(kac_device *dev, const kac_filter_weights *host_weights,
                                      kac_net **out);

/* A mask is in no set and ends a run.  Soft: share only, its expectation. */
kac_filter_pack_fn kac_cpu_filter_pack, kac_cuda_filter_pack;
kac_net_forward_fn kac_cpu_filter_forward, kac_cuda_filter_forward;
kac_net_drop_fn kac_cpu_filter_drop, kac_cuda_filter_drop;

typedef struct kac_filter_ops {
    kac_filter_pack_fn *pack;
    kac_net_forward_fn *forward;
    kac_net_drop_fn *drop;
} kac_filter_ops;
/* ---- gmm: exact posterior means of a Gaussian mixture (denoiser of vectors) ---------------
 */

enum { KAC_GMM_MAX_COMPONENTS = 1 << 16 };

typedef struct kac_gmm_weights {
    int32_t length;         /* d */
    int32_t components;     /* K */
    const float *weights;   /* [K], > 0; their sum counts as 1 */
    const float *means;     /* [K][d] */
    const float *variances; /* [K][d], or [K] for round components; >= 0 */
    int32_t round;          /* 1: variances is [K] */
} kac_gmm_weights;

typedef kac_status kac_gmm_pack_fn(kac_device *dev, const kac_gmm_weights *host_weights,
                                   kac_net **out);

/* E[x_0 | x_t] for x_0 from the mixture and x_t = scale x_0 + noise e of the query's level,
 * noise > 0; fp64 chains in the order of the components. */
kac_gmm_pack_fn kac_cpu_gmm_pack, kac_cuda_gmm_pack;
kac_net_forward_fn kac_cpu_gmm_forward, kac_cuda_gmm_forward;
kac_net_vjp_fn kac_cpu_gmm_vjp, kac_cuda_gmm_vjp;
kac_net_drop_fn kac_cpu_gmm_drop, kac_cuda_gmm_drop;

typedef struct kac_gmm_ops {
    kac_gmm_pack_fn *pack;
    kac_net_forward_fn *forward;
    kac_net_vjp_fn *vjp;
    kac_net_drop_fn *drop;
} kac_gmm_ops;

/* ---- quadratic: a Gaussian log-likelihood of linear measurements (reward of vectors) -------
 */

typedef struct kac_quadratic_weights {
    int32_t length;         /* d */
    int32_t measurements;   /* m */
    const float *matrix;    /* A [m][d] */
    const float *target;    /* b [m] */
    const float *deviation; /* s [m], > 0 */
    const float *linear;    /* c [d], or NULL: zeros */
} kac_quadratic_weights;

typedef kac_status kac_quadratic_pack_fn(kac_device *dev,
                                         const kac_quadratic_weights *host_weights,
                                         kac_net **out);

/* r(x) = c x - 1/2 sum_i ((A_i x - b_i) / s_i)^2; fp64 chains in index order. */
kac_quadratic_pack_fn kac_cpu_quadratic_pack, kac_cuda_quadratic_pack;
kac_net_forward_fn kac_cpu_quadratic_forward, kac_cuda_quadratic_forward;
kac_net_vjp_fn kac_cpu_quadratic_vjp, kac_cuda_quadratic_vjp;
kac_net_drop_fn kac_cpu_quadratic_drop, kac_cuda_quadratic_drop;

typedef struct kac_quadratic_ops {
    kac_quadratic_pack_fn *pack;
    kac_net_forward_fn *forward;
    kac_net_vjp_fn *vjp;
    kac_net_drop_fn *drop;
} kac_quadratic_ops;

/* ---- gdss: scores of the nodes and pairs of a graph (denoiser of graphs) -------------------
 */

enum {
    KAC_GDSS_MAX_NODES = 512,
    KAC_GDSS_MAX_LAYERS = 16,
    KAC_GDSS_MAX_CHANNELS = 16,
    KAC_GDSS_MAX_LINEARS = 4,
    KAC_GDSS_MAX_WIDTH = 1024,
    KAC_GDSS_POWERS = 2, /* the first channels of the adjacency: A and A^2 */
};

typedef struct kac_gdss_linear {
    int32_t in, out;
    const float *weight; /* [out][in]; of a graph convolution [in][out] */
    const float *bias;   /* [out] */
} kac_gdss_linear;

/* ELU between its layers, none after the last. */
typedef struct kac_gdss_mlp {
    int32_t layers;
    kac_gdss_linear layer[KAC_GDSS_MAX_LINEARS];
} kac_gdss_mlp;

enum { KAC_GDSS_QUERY, KAC_GDSS_KEY, KAC_GDSS_VALUE, KAC_GDSS_PARTS };

typedef struct kac_gdss_attention {
    int32_t channels; /* C, of the adjacency it reads */
    kac_gdss_linear conv[KAC_GDSS_MAX_CHANNELS][KAC_GDSS_PARTS];
    kac_gdss_mlp nodes; /* the values of all channels to the nodes' features */
    kac_gdss_mlp pairs; /* [2 C] to the next adjacency's channels */
} kac_gdss_attention;

/* One of the two networks.  That of the nodes has graph convolutions (ScoreNetworkX) or
 * attention layers (ScoreNetworkX_GMH), that of the adjacency attention layers. */
typedef struct kac_gdss_network {
    int32_t layers;
    int32_t attends; /* 1: attention; 0: conv */
    int32_t heads;
    kac_gdss_linear conv[KAC_GDSS_MAX_LAYERS];
    kac_gdss_attention attention[KAC_GDSS_MAX_LAYERS];
    kac_gdss_mlp final;
} kac_gdss_network;

typedef struct kac_gdss_weights {
    int32_t nodes;    /* N, the most */
    int32_t features; /* F */
    kac_gdss_network x, adj;
} kac_gdss_weights;

typedef kac_status kac_gdss_pack_fn(kac_device *dev, const kac_gdss_weights *host_weights,
                                    kac_net **out);

/* A row has D = 1 + N F + N (N - 1) / 2 floats: n, the live nodes; the features of each node, of
 * dead ones zeros; the adjacency of the pairs (0, 1), (0, 2), .., (0, N - 1), (1, 2), .., of dead
 * ones zeros.  The answer has the same form: 0, then what the networks give for nodes and pairs,
 * not divided by the deviation of the noise; 0 for dead ones, which are not read.  vjp: with
 * respect to the features and to a pair's number, which is two entries of the adjacency; 0 for n
 * and dead ones.  An n outside of 0 .. N counts as the nearest, NaN as 0.
 * J. Jo, S. Lee and S. J. Hwang, "Score-based generative modeling of graphs via the system of
 * stochastic differential equations", ICML 2022. */
kac_gdss_pack_fn kac_cpu_gdss_pack, kac_cuda_gdss_pack;
kac_net_forward_fn kac_cpu_gdss_forward, kac_cuda_gdss_forward;
kac_net_vjp_fn kac_cpu_gdss_vjp, kac_cuda_gdss_vjp;
kac_net_drop_fn kac_cpu_gdss_drop, kac_cuda_gdss_drop;

typedef struct kac_gdss_ops {
    kac_gdss_pack_fn *pack;
    kac_net_forward_fn *forward;
    kac_net_vjp_fn *vjp;
    kac_net_drop_fn *drop;
} kac_gdss_ops;

/* ---- gin: a graph isomorphism network, all live nodes joined (reward of graphs) ------------
 */

enum { KAC_GIN_MAX_NODES = 1024, KAC_GIN_MAX_LAYERS = 16, KAC_GIN_MAX_WIDTH = 1 << 14 };

/* relu between the two dense layers of one. */
typedef struct kac_gin_layer {
    int32_t in, hidden, out;
    const float *weight[2]; /* [hidden][in], [out][hidden] */
    const float *bias[2];   /* [hidden], [out] */
} kac_gin_layer;

typedef struct kac_gin_weights {
    int32_t nodes;    /* N, the most */
    int32_t features; /* F, what the first layer reads */
    int32_t layers;
    int32_t outputs;
    kac_gin_layer layer[KAC_GIN_MAX_LAYERS];
    const float *weight, *bias; /* of the end: [outputs][out of the last layer], [outputs] */
} kac_gin_weights;

typedef kac_status kac_gin_pack_fn(kac_device *dev, const kac_gin_weights *host_weights,
                                   kac_net **out);

/* A row is that of a gdss.  A layer gives each live node its two dense layers of the sum of all
 * live nodes, and a dead one those of itself, relu after all but the last; the mean of all N
 * nodes, dead ones too, goes through the end.  Only n and the features of live nodes are read,
 * and the gradient with respect to all other numbers is 0.
 * K. Xu, W. Hu, J. Leskovec and S. Jegelka, "How powerful are graph neural networks?", ICLR
 * 2019, with epsilon 0. */
kac_gin_pack_fn kac_cpu_gin_pack, kac_cuda_gin_pack;
kac_net_forward_fn kac_cpu_gin_forward, kac_cuda_gin_forward;
kac_net_vjp_fn kac_cpu_gin_vjp, kac_cuda_gin_vjp;
kac_net_drop_fn kac_cpu_gin_drop, kac_cuda_gin_drop;

typedef struct kac_gin_ops {
    kac_gin_pack_fn *pack;
    kac_net_forward_fn *forward;
    kac_net_vjp_fn *vjp;
    kac_net_drop_fn *drop;
} kac_gin_ops;

/* ---- all of them --------------------------------------------------------------------------
 */

typedef struct kac_network_ops {
    kac_cnn1d_ops cnn1d;
    kac_table_ops table_denoiser;
    kac_table_ops table_reward;
    kac_markov_ops markov;
    kac_pwm_ops pwm;
    kac_conv_regressor_ops conv_regressor;
    kac_convgru_ops convgru;
    kac_filter_ops filter;
    kac_gmm_ops gmm;
    kac_quadratic_ops quadratic;
    kac_gdss_ops gdss;
    kac_gin_ops gin;
} kac_network_ops;

#ifdef __cplusplus
}
#endif
#endif /* KAC_NETWORKS_H */
