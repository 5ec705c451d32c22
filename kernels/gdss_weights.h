/* gdss_weights.h -- what the numbers of a gdss network and of its rows mean, on any device. */
#ifndef KAC_GDSS_WEIGHTS_H
#define KAC_GDSS_WEIGHTS_H

#include "exact.h"
#include "networks.h"

/* Floats of a row. */
KAC_HD static inline int64_t kac_gdss_length(int64_t nodes, int64_t features)
{
    return 1 + nodes * features + nodes * (nodes - 1) / 2;
}

/* The live nodes that a row states, of at most `nodes`. */
KAC_HD static inline int32_t kac_gdss_live(int32_t nodes, const float *row)
{
    return row[0] >= (float)nodes ? nodes : row[0] >= 1 ? (int32_t)row[0] : 0;
}

/* Weight decay leaves the weights of dead units far below the rounding of any sum that they are
 * in, and most of the time would be spent on products that are no normal numbers.  What is
 * smaller than this counts as 0. */
static inline float kac_gdss_weight(float x)
{
    return kac_absf(x) < 0x1p-64f ? 0 : x;
}

/* Whether a convolution's features are all 0. */
static inline int kac_gdss_is_silent(const kac_gdss_linear *conv)
{
    for (int64_t i = 0; i < (int64_t)conv->in * conv->out; i++)
        if (kac_gdss_weight(conv->weight[i]) != 0) return 0;
    for (int32_t i = 0; i < conv->out; i++)
        if (kac_gdss_weight(conv->bias[i]) != 0) return 0;
    return 1;
}

/* Whether channel c of a layer has no scores: its queries or its keys are all 0. */
static inline int kac_gdss_has_no_scores(const kac_gdss_attention *layer, int32_t c)
{
    return kac_gdss_is_silent(&layer->conv[c][KAC_GDSS_QUERY]) ||
           kac_gdss_is_silent(&layer->conv[c][KAC_GDSS_KEY]);
}

/* What a head's products of queries and keys are multiplied by before tanh. */
static inline float kac_gdss_scale(const kac_gdss_attention *layer)
{
    return 1 / sqrtf((float)layer->conv[0][KAC_GDSS_VALUE].out);
}

/* (sum of a row of the adjacency, at least 1)^-1/2. */
KAC_HD static inline float kac_gdss_degree(float sum)
{
    return 1 / sqrtf(sum > 1 ? sum : 1);
}

#endif /* KAC_GDSS_WEIGHTS_H */
