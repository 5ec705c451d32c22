/* query.h -- the rows of a query: how many there are, where each is read and written. */
#ifndef KAC_QUERY_H
#define KAC_QUERY_H

#include "hd.h"
#include "networks.h"

/* Rows to answer. */
KAC_HD static inline int32_t kac_query_rows(const kac_query *q)
{
    int32_t left = q->count != NULL ? *q->count - q->first : q->capacity;
    return left < 0 ? 0 : left < q->capacity ? left : q->capacity;
}

/* Tokens of row j. */
KAC_HD static inline const uint8_t *kac_query_tokens(const kac_query *q, int32_t j)
{
    return q->tokens + (int64_t)(q->src != NULL ? q->src[j] : j) * q->stride;
}

/* Probabilities of row j, [length][states]. */
KAC_HD static inline const float *kac_query_soft(const kac_query *q, int32_t j, int32_t states)
{
    return q->soft + (int64_t)(q->src != NULL ? q->src[j] : j) * q->length * states;
}

/* The vector of row j, [length], of networks that read vectors: a row of either kind. */
KAC_HD static inline const float *kac_query_vector(const kac_query *q, int32_t j)
{
    if (q->soft != NULL) return kac_query_soft(q, j, 1);
    return (const float *)(const void *)kac_query_tokens(q, j);
}

/* Result of row j. */
KAC_HD static inline float *kac_query_out(const kac_query *q, int32_t j)
{
    return q->out + (int64_t)(q->dst != NULL ? q->dst[j] : j) * q->out_stride;
}

#endif /* KAC_QUERY_H */
