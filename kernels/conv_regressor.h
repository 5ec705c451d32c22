/* conv_regressor.h -- the packed conv_regressor, shared by its code for each instruction set.
 */
#ifndef KAC_CONV_REGRESSOR_H
#define KAC_CONV_REGRESSOR_H

#include "layer.h"
#include "networks.h"

typedef struct kac_conv_regressor_stage {
    kac_regressor_layer what;  /* its kernel and bias are the file's: not used */
    kac_layer layer;           /* conv, dense */
    int32_t in_step, out_step; /* floats of a row of channels */
    int64_t in_at, before_at;  /* where a vjp keeps its input, and what gelu was given: floats a
                                  sequence */
} kac_conv_regressor_stage;

struct kac_net {
    kac_isa isa; /* packed for */
    int32_t states;
    int32_t length; /* L + prefix_length + suffix_length */
    int32_t prefix_length, suffix_length;
    uint8_t *prefix, *suffix;
    int32_t outputs;
    int32_t stages;
    int64_t row_floats;  /* the largest [length][step] of a sequence between two stages */
    int64_t out_at;      /* where a vjp keeps the last stage's result: floats a sequence */
    int64_t kept_floats; /* of a sequence: all that a vjp keeps */
    int64_t back_floats; /* the largest gradient of a sequence between two stages */
    kac_conv_regressor_stage stage[KAC_REGRESSOR_MAX_LAYERS];
    float scale, offset;
};

/* Runs every stage on `batch` sequences, [length][batch][states] in `from`; the stages go to
 * and fro between `from` and `to`, batch * row_floats floats each.  Returns the one that then
 * holds the result, [batch][out_step of the last stage]. */
typedef const float *kac_conv_regressor_chunk_fn(const kac_net *net, int32_t batch, float *from,
                                                 float *to);
kac_conv_regressor_chunk_fn kac_conv_regressor_chunk_portable, kac_conv_regressor_chunk_avx2,
    kac_conv_regressor_chunk_avx512;

/* From the gradient of the result, [batch][out_step of the last stage] in `from`, to that of the
 * input, [length][batch][states] at the returned place: `from` or `to`, batch * back_floats
 * floats each.  The input is at the beginning of `kept`, batch * kept_floats floats. */
typedef const float *kac_conv_regressor_vjp_fn(const kac_net *net, int32_t batch, float *kept,
                                               float *from, float *to);
kac_conv_regressor_vjp_fn kac_conv_regressor_vjp_portable, kac_conv_regressor_vjp_avx2,
    kac_conv_regressor_vjp_avx512;

#endif /* KAC_CONV_REGRESSOR_H */
