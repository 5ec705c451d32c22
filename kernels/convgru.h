/* convgru.h -- the packed convgru, shared by its code for each instruction set. */
#ifndef KAC_CONVGRU_H
#define KAC_CONVGRU_H

#include "gru.h"
#include "layer.h"
#include "networks.h"

/* Rows of C channels are `step` floats; every layer with C outputs has that step. */
struct kac_net {
    kac_isa isa; /* packed for */
    int32_t states, channels, blocks, residual, outputs;
    int32_t step;
    kac_layer stem;
    kac_layer conv[KAC_CONVGRU_MAX_BLOCKS]; /* BatchNorm folded in */
    kac_layer gru_input[2], gru_hidden[2];  /* 3 C outputs; 1: the reverse direction */
    kac_layer ffn0, ffn1, head;
    float *norm, *norm_bias; /* [step] */
};

/* Runs `batch` sequences, [length][batch][states] in `work`, and leaves [batch][head.step] at
 * the returned place in `work`, which has kac_convgru_work_floats floats. */
typedef const float *kac_convgru_chunk_fn(const kac_net *net, int32_t length, int32_t batch,
                                          float *work);
kac_convgru_chunk_fn kac_convgru_chunk_portable, kac_convgru_chunk_avx2,
    kac_convgru_chunk_avx512;

/* From cotangent [batch][outputs] to the gradient of the input, [length][batch] rows of
 * stem.back->step floats at the returned place in `work`, which has kac_convgru_vjp_floats
 * floats.  The input is given as above. */
typedef const float *kac_convgru_vjp_fn(const kac_net *net, int32_t length, int32_t batch,
                                        const float *cotangent, float *work);
kac_convgru_vjp_fn kac_convgru_vjp_portable, kac_convgru_vjp_avx2, kac_convgru_vjp_avx512;

/* Two arrays [length][batch][step or states] and the small ones of one position. */
static inline int64_t kac_convgru_array_floats(const kac_net *net, int32_t length,
                                               int32_t batch)
{
    int32_t width = net->step > net->stem.back->step ? net->step : net->stem.back->step;
    return (int64_t)length * batch * width;
}

static inline int64_t kac_convgru_position_floats(const kac_net *net, int32_t batch)
{
    return (int64_t)batch * (net->step + net->gru_input[0].step + net->gru_hidden[0].step +
                             net->ffn0.step + net->head.step);
}

static inline int64_t kac_convgru_work_floats(const kac_net *net, int32_t length, int32_t batch)
{
    return 2 * kac_convgru_array_floats(net, length, batch) +
           kac_convgru_position_floats(net, batch);
}

/* An array for what the stem and each block give, for the sum of the directions, and two to
 * work in; what the directions keep; the gradients of the gates. */
static inline int64_t kac_convgru_vjp_floats(const kac_net *net, int32_t length, int32_t batch)
{
    return (net->blocks + 4) * kac_convgru_array_floats(net, length, batch) +
           (int64_t)length * batch * (2 * KAC_GRU_KEPT * net->step + net->gru_input[0].step) +
           kac_convgru_position_floats(net, batch);
}

#endif /* KAC_CONVGRU_H */
