/* cnn1d.h -- the packed cnn1d network, shared by its code for each instruction set. */
#ifndef KAC_CNN1D_H
#define KAC_CNN1D_H

#include "networks.h"

/* Rows of channels are `width` floats: the hidden channels rounded up to whole blocks of packed
 * weights (tile.h); what fills them up stays zero or is never read. */
struct kac_net {
    kac_isa isa; /* packed for */
    int32_t states, hidden, kernel, layers;
    int32_t reads_time;
    int32_t width;       /* floats of a row of hidden channels */
    int32_t head_width;  /* floats of a row of logits */
    int32_t token_width; /* floats of a row of gradients of the input */
    int32_t dilation[KAC_CNN1D_MAX_LAYERS];
    float *memory;               /* holds everything below */
    float *linear, *linear_bias; /* [K][S+1][width], [width] */
    float *fourier;              /* [H/2], or NULL: no time features */
    float *embed, *embed_bias;   /* packed, [width] */
    float *time, *time_bias;     /* packed [layers], [layers][width] */
    float *conv, *conv_bias;     /* packed [layers], [layers][width] */
    float *norm, *norm_bias;     /* [layers][width] */
    float *final0, *final0_bias; /* packed, [width] */
    float *final2, *final2_bias; /* packed without the mask's row, [head_width] */
    /* The transposed layers: channels exchanged, taps flipped; without biases. */
    float *linear_back;         /* packed, [S+1][K][H] */
    float *conv_back;           /* packed [layers] */
    float *final0_back;         /* packed */
    float *final2_back;         /* packed, [H][S] */
    float *zeros;               /* [width or token_width]: the bias of those */
    float *shift;               /* [layers][width]: the time features of the latest sigma */
    float *features, *embedded; /* [width]: on the way to them */
    int64_t conv_step,
        dense_step; /* floats of a packed convolution, of a packed H by H layer */
};

/* Fills net->shift for `sigma`; zeros where the network has no time features. */
typedef void kac_cnn1d_time_fn(const kac_net *net, float sigma);
kac_cnn1d_time_fn kac_cnn1d_time_portable, kac_cnn1d_time_avx2, kac_cnn1d_time_avx512;

/* Answers rows first .. first + particles - 1 of the query.  `work` has
 * kac_cnn1d_work_floats(...) floats, aligned to 64 bytes. */
typedef void kac_cnn1d_chunk_fn(const kac_net *net, const kac_query *q, int32_t first,
                                int32_t particles, float *work);
kac_cnn1d_chunk_fn kac_cnn1d_chunk_portable, kac_cnn1d_chunk_avx2, kac_cnn1d_chunk_avx512;

/* grad of rows first .. first + particles - 1 of the query.  `work` has
 * kac_cnn1d_vjp_floats(...) floats, aligned to 64 bytes. */
typedef void kac_cnn1d_vjp_fn(const kac_net *net, const kac_query *q, int32_t first,
                              int32_t particles, const float *cotangent, float *grad,
                              float *work);
kac_cnn1d_vjp_fn kac_cnn1d_vjp_portable, kac_cnn1d_vjp_avx2, kac_cnn1d_vjp_avx512;

/* An array [length][particles][the widest row]. */
static inline int64_t kac_cnn1d_array_floats(const kac_net *net, int32_t length,
                                             int32_t particles)
{
    int32_t width = net->width > net->token_width ? net->width : net->token_width;
    return (int64_t)length * particles * width;
}

/* Two arrays. */
static inline int64_t kac_cnn1d_work_floats(const kac_net *net, int32_t length,
                                            int32_t particles)
{
    return 2 * kac_cnn1d_array_floats(net, length, particles);
}

/* Two arrays a layer, the last feat and three to work in. */
static inline int64_t kac_cnn1d_vjp_floats(const kac_net *net, int32_t length,
                                           int32_t particles)
{
    return (2 * (int64_t)net->layers + 4) * kac_cnn1d_array_floats(net, length, particles);
}

#endif /* KAC_CNN1D_H */
