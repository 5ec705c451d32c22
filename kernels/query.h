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

/* Rows begin .. begin + most - 1 of the query, as one of its own; states as in its soft. */
KAC_HD static inline kac_query kac_query_window(const kac_query *q, int32_t begin, int32_t most,
                                                int32_t states)
{
    kac_query w = *q;
    w.first = q->first + begin;
    w.capacity = q->capacity - begin < most ? q->capacity - begin : most;
    if (q->src != NULL)
        w.src = q->src + begin;
    else if (q->soft != NULL)
        w.soft = q->soft + (int64_t)begin * q->length * states;
    else
        w.tokens = q->tokens + (int64_t)begin * q->stride;
    if (q->dst != NULL)
        w.dst = q->dst + begin;
    else if (q->out != NULL)
        w.out = q->out + (int64_t)begin * q->out_stride;
    return w;
}

/* The query with row j of `out` for the result of row j. */
KAC_HD static inline kac_query kac_query_to(const kac_query *q, float *out, int32_t out_stride)
{
    kac_query to = *q;
    to.dst = NULL;
    to.out = out;
    to.out_stride = out_stride;
    return to;
}

#endif /* KAC_QUERY_H */
