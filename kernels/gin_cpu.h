/* gin_cpu.h -- the gin packed for the CPU, shared by its code for each instruction set. */
#ifndef KAC_GIN_CPU_H
#define KAC_GIN_CPU_H

#include "gin.h"
#include "layer.h"

/* Where a chunk of graphs keeps what a layer reads and what its first dense layer gives: floats a
 * graph, rows of in_step and linear[0].step floats. */
typedef struct kac_gin_stage {
    kac_layer linear[2];
    int32_t in_step;
    int64_t in_at, hidden_at;
} kac_gin_stage;

struct kac_net {
    kac_isa isa; /* packed for */
    int32_t nodes, features, outputs, length;
    int32_t stages;
    kac_gin_stage stage[KAC_GIN_MAX_LAYERS];
    kac_layer end;
    float *alone;            /* [step of the last stage] */
    int64_t mean_at, out_at; /* of the last stage's output, then its mean; of the end's */
    int64_t kept_floats;     /* of a graph, after its count of live nodes */
    int32_t back_floats;     /* of the widest gradient */
};

/* Takes `batch` graphs through the network.  `kept`: [batch] counts of live nodes, then arrays of
 * [batch][step] floats at batch times their place; sums of the features at stage 0's.  The
 * result is at net->out_at, rows of net->end.step floats. */
typedef void kac_gin_chunk_fn(const kac_net *net, int32_t batch, float *kept);
kac_gin_chunk_fn kac_gin_chunk_portable, kac_gin_chunk_avx2, kac_gin_chunk_avx512;

/* From the gradient of the result, [batch][end.step] in `from`, to that of the sums of features,
 * rows of stage 0's in_step floats at the returned place: `from` or `to`, batch * back_floats
 * floats each. */
typedef const float *kac_gin_back_fn(const kac_net *net, int32_t batch, const float *kept,
                                     float *from, float *to);
kac_gin_back_fn kac_gin_back_portable, kac_gin_back_avx2, kac_gin_back_avx512;

#endif /* KAC_GIN_CPU_H */
