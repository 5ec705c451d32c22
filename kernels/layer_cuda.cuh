/* layer_cuda.cuh -- dense layers, convolutions and what lies between them, for the networks of
 * the CUDA backend.
 *
 * A window of a query goes through all layers together.  Its activations lie as
 * [length][batch][step] floats: batch = kac_query_rows(q), which only the device knows, and
 * step the channels rounded up to whole float4.  What fills up a row is undefined and never
 * read as a channel.  Grids are for the window's capacity; what is beyond its rows leaves.
 */
#ifndef KAC_LAYER_CUDA_CUH
#define KAC_LAYER_CUDA_CUH

#include "activation.h"
#include "primitives.cuh"
#include "query.h"
#include "tile.h"

/* A dense layer or convolution in device memory. */
struct kac_cuda_conv {
    int32_t in, out;         /* channels */
    int32_t taps;            /* 1: dense */
    int32_t step;            /* floats of a row of outputs */
    float *weight;           /* [taps][in][step] */
    float *bias;             /* [step], or NULL: zeros */
    kac_precision precision; /* of its products; exact since pack */
    uint16_t *grouped;       /* the weight as bf16 for warpgroups (group_conv.cuh), or NULL */
    float *columns;          /* what letters add (letter_conv_cuda.cu), or NULL */
};

/* With the transposed one, for gradients: channels exchanged, taps flipped, no bias. */
struct kac_cuda_layer {
    kac_cuda_conv there, back;
};

/* `channels` rounded up to whole float4. */
KAC_HD static inline int32_t kac_cuda_step(int32_t channels)
{
    return (channels + 3) / 4 * 4;
}

/* n floats of device memory that begin with those of the host, then zeros; NULL: no room. */
float *kac_cuda_floats(kac_device *dev, const float *host, int64_t count, int64_t n);

/* Packs host weights and bias [out], or NULL: zeros.  Errors: NOMEM.  Drop also takes a zeroed
 * one. */
kac_status kac_cuda_conv_pack(kac_device *dev, const kac_tile_weights *w, const float *bias,
                              kac_cuda_conv *out);
void kac_cuda_conv_drop(kac_device *dev, kac_cuda_conv *conv);

/* Packs conv->grouped too, where the device is to multiply in bf16 and its warpgroups can.
 * Errors: NOMEM. */
kac_status kac_cuda_conv_group(kac_device *dev, const kac_tile_weights *w, kac_cuda_conv *conv);

/* Packs conv->columns, for a first layer with a bias that reads letters; its precision is set.
 * Errors: NOMEM. */
kac_status kac_cuda_conv_letters(kac_device *dev, kac_cuda_conv *conv);

kac_status kac_cuda_layer_pack(kac_device *dev, const kac_tile_weights *w, const float *bias,
                               kac_cuda_layer *out);
void kac_cuda_layer_drop(kac_device *dev, kac_cuda_layer *layer);

/* How a convolution lies over the sequences. */
struct kac_cuda_shape {
    int32_t in_length, out_length;
    int32_t dilation;
    int64_t pad; /* positions left of the sequence at output 0 */
};

/* That of the transposed convolution. */
kac_cuda_shape kac_cuda_shape_back(const kac_cuda_shape *s, int32_t taps);

/* What happens to x, a sum of products, on its way out: arrays like `out`, or NULL.  Only relu
 * goes with `plus`, `kept` and `add`. */
struct kac_cuda_ending {
    float *before;      /* gets x */
    const float *plus;  /* x += plus */
    kac_activation act; /* x = act(x) */
    float *kept;        /* gets x */
    const float *add;   /* x = add + x; may be `out` */
};

/* Queues out = ending(bias + conv(in)), rows of in: kac_cuda_step(conv->in) floats.  Each output
 * is one fma chain, as networks.h says; or, where conv->precision is not exact, a sum in float32
 * of products of rounded factors. */
kac_status kac_cuda_conv_run(kac_device *dev, const kac_query *q, const kac_cuda_conv *conv,
                             const kac_cuda_shape *shape, const kac_cuda_ending *ending,
                             const float *in, float *out);

/* The same of a dense layer at each of `length` positions. */
kac_status kac_cuda_dense_run(kac_device *dev, const kac_query *q, const kac_cuda_conv *conv,
                              int32_t length, const kac_cuda_ending *ending, const float *in,
                              float *out);

/* out = y <= 0 ? 0 : g, the way of a gradient g back through y = relu(x); out may be g.  Rows of
 * the window have `floats` floats in all, a multiple of 4. */
kac_status kac_cuda_gate(kac_device *dev, const kac_query *q, int64_t floats, const float *y,
                         const float *g, float *out);

/* out = x + y; it may be one of them. */
kac_status kac_cuda_add(kac_device *dev, const kac_query *q, int64_t floats, const float *x,
                        const float *y, float *out);

/* out[l] = the mean of in[l size] .. in[l size + size - 1], l in 0 .. length - 1, rows of `step`
 * floats: 16 lanes and a tree (exact.h). */
kac_status kac_cuda_mean(kac_device *dev, const kac_query *q, int32_t length, int32_t size,
                         int32_t step, const float *in, float *out);

/* Letters before and after those of the query, the same in all rows: device memory. */
struct kac_cuda_frame {
    const uint8_t *prefix, *suffix;
    int32_t prefix_length, suffix_length;
};

/* x [prefix + q->length + suffix][batch][step] = the letters: one-hot, zeros at a mask, or
 * q->soft. */
kac_status kac_cuda_input(kac_device *dev, const kac_query *q, const kac_cuda_frame *frame,
                          int32_t states, float *x);

/* A first layer: queues kac_cuda_input and kac_cuda_conv_run of what that gives, with room for it
 * at x; or letters are looked up, and x is not touched.  The bits are the same where the precision
 * is exact; where it is not the factors are rounded alike. */
kac_status kac_cuda_first_run(kac_device *dev, const kac_query *q, const kac_cuda_frame *frame,
                              const kac_cuda_conv *conv, const kac_cuda_shape *shape,
                              const kac_cuda_ending *ending, float *x, float *out);

/* Layers around a convolution that its kernel takes in, in bf16: before it a first layer that
 * reads letters, behind it a pool.  Both convolutions end with relu or as they are.  The bits are
 * those of one layer after the other. */
struct kac_cuda_first {
    const kac_cuda_frame *frame;
    const kac_cuda_conv *conv;
    kac_cuda_shape shape;
    kac_activation act;
};
struct kac_cuda_pool {
    int32_t size; /* the largest of so many positions; 0: there is no pool */
    bool flat;    /* to [batch][positions channels] */
};
/* Whether it takes in a pool; that first layer. */
bool kac_cuda_conv_pools(const kac_cuda_conv *conv, const kac_cuda_shape *shape,
                         kac_activation act);
bool kac_cuda_conv_reads(const kac_query *q, const kac_cuda_first *first,
                         const kac_cuda_conv *conv, const kac_cuda_shape *shape,
                         kac_activation act);
/* Queues it; first: NULL, and it reads `in`. */
kac_status kac_cuda_conv_fused(kac_device *dev, const kac_query *q, const kac_cuda_first *first,
                               const kac_cuda_conv *conv, const kac_cuda_shape *shape,
                               kac_activation act, const kac_cuda_pool *pool, const float *in,
                               float *out);

/* kac_query_out(q, b)[l][c] = x[from + l][b][c], c < channels, l < length; x rows of
 * kac_cuda_step(channels) floats. */
kac_status kac_cuda_rows_out(kac_device *dev, const kac_query *q, int32_t from, int32_t length,
                             int32_t channels, const float *x);

/* x[l][b][c] = rows[b][l][c]. */
kac_status kac_cuda_rows_in(kac_device *dev, const kac_query *q, int32_t length,
                            int32_t channels, const float *rows, float *x);

/* x = LayerNorm(x + shift) over `channels`, from `in` to `out`, which may be in;
 * shift [channels] or NULL: 0. */
struct kac_cuda_norm {
    const float *gamma, *beta; /* [channels] */
    const float *shift;
    int32_t channels;
};
kac_status kac_cuda_norm_run(kac_device *dev, const kac_query *q, const kac_cuda_norm *norm,
                             int32_t length, const float *in, float *out);

/* out = add + the gradient of in, from g, that of kac_cuda_norm_run's out; add, NULL: 0, may
 * be out. */
kac_status kac_cuda_norm_back(kac_device *dev, const kac_query *q, const kac_cuda_norm *norm,
                              int32_t length, const float *in, const float *g, const float *add,
                              float *out);

/* Rows of a window, and memory for as many: `floats` a row, the query's capacity or as many as
 * need no more than 1 GiB, but one at least.  Errors: NOMEM. */
kac_status kac_cuda_window(kac_device *dev, const kac_query *q, int64_t floats, int32_t *rows,
                           float **memory);

#endif /* KAC_LAYER_CUDA_CUH */
