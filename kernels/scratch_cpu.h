/* scratch_cpu.h -- working memory of a thread, for forwards whose size depends on the query,
 * and the rows of a query shared out among threads. */
#ifndef KAC_SCRATCH_CPU_H
#define KAC_SCRATCH_CPU_H

#include "networks.h"

/* At least `bytes` of this thread's memory, 64-byte aligned, contents undefined; valid until
 * the thread's next call.  It grows to the largest request and is kept until the thread ends,
 * so a run allocates nothing once it is warm.  NULL when memory runs out. */
void *kac_cpu_scratch(size_t bytes);

/* Rows of a chunk that keeps all its activations: `most`, or as many as need no more than
 * 64 MiB at `floats` a row, but one at least. */
int32_t kac_cpu_scratch_rows(int32_t most, int64_t floats);

/* A forward, or a vector-Jacobian product where there is a cotangent. */
typedef struct kac_cpu_call {
    const char *name; /* of the network, for errors */
    const kac_net *net;
    const kac_query *q;
    const float *cotangent; /* or NULL */
    float *grad;
} kac_cpu_call;

/* Answers rows first .. first + batch - 1 of the query; `work` is memory of the thread. */
typedef void kac_cpu_chunk_fn(const kac_cpu_call *call, int32_t first, int32_t batch,
                              void *work);

/* Answers the first `rows` rows, `size` at a time with `bytes` of working memory.  Errors:
 * NOMEM. */
kac_status kac_cpu_each_chunk(const kac_cpu_call *call, int32_t rows, int32_t size,
                              size_t bytes, kac_cpu_chunk_fn *answer);

#endif /* KAC_SCRATCH_CPU_H */
