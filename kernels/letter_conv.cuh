/* letter_conv.cuh -- which columns a first layer adds for its letters; see letter_conv_cuda.cu. */
#ifndef KAC_LETTER_CONV_CUH
#define KAC_LETTER_CONV_CUH

#include "conv_cuda.cuh"

/* Of the input at position l of sequence b. */
static __device__ inline int32_t letter_at(const kac_query *q, const kac_cuda_frame *frame,
                                           int32_t b, int64_t l)
{
    const int64_t end = (int64_t)frame->prefix_length + q->length;
    if (l < frame->prefix_length) return frame->prefix[l];
    if (l >= end) return frame->suffix[l - end];
    return kac_query_tokens(q, b)[l - frame->prefix_length];
}

/* Which of a tap's columns is for a letter; what is no letter has a mask's. */
static __device__ inline int32_t column_of(const kac_cuda_conv *conv, int32_t letter)
{
    return letter < conv->in ? letter : conv->in;
}

/* Columns of a layer: of each tap one a letter and a mask's, and behind them one that changes
 * nothing, which is for taps outside the sequence. */
KAC_HD static inline int32_t letter_columns(const kac_cuda_conv *conv)
{
    return conv->taps * (conv->in + 1) + 1;
}

#endif /* KAC_LETTER_CONV_CUH */
