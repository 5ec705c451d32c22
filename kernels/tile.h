/* tile.h -- products of rows with packed weights: what is multiplied, and how it is packed.
 *
 * A dense layer, or a convolution at positions that share their live taps, is
 *     out[r][o] = act(bias[o] + sum over k, c of in[r][k][c] weight[o][k][c]),
 * each output one fma chain that starts from the bias, k outer, c inner.
 */
#ifndef KAC_TILE_H
#define KAC_TILE_H

#include "types.h"

/* Output channels of a block of packed weights. */
static inline int32_t kac_tile_width(kac_isa isa)
{
    return isa == KAC_ISA_AVX512 ? 32 : isa == KAC_ISA_AVX2 ? 16 : 8;
}

/* `channels` rounded up to whole blocks: the floats of a row of outputs. */
static inline int32_t kac_tile_round(kac_isa isa, int32_t channels)
{
    int32_t width = kac_tile_width(isa);
    return (channels + width - 1) / width * width;
}

/* Weights as a file has them: weight[o * out_step + k * tap_step + c * in_step]. */
typedef struct kac_tile_weights {
    const float *weight;
    int32_t out, taps, in;
    int64_t out_step, tap_step, in_step;
} kac_tile_weights;

/* Packs into [blocks][taps][in][width], kac_tile_round(isa, out) taps in floats; the outputs
 * that fill up the last block get weights of zero. */
static inline void kac_tile_pack(kac_isa isa, const kac_tile_weights *w, float *packed)
{
    int32_t width = kac_tile_width(isa);
    for (int32_t first = 0; first < w->out; first += width)
        for (int32_t k = 0; k < w->taps; k++)
            for (int32_t c = 0; c < w->in; c++)
                for (int32_t o = first; o < first + width; o++)
                    *packed++ =
                        o < w->out
                            ? w->weight[o * w->out_step + k * w->tap_step + c * w->in_step]
                            : 0.0f;
}

typedef enum kac_tile_act {
    KAC_TILE_LINEAR, /* out = x */
    KAC_TILE_RELU,   /* out = relu(x) */
    KAC_TILE_ADD,    /* out += relu(x) */
} kac_tile_act;

typedef struct kac_tile {
    const float *in;     /* row r, live tap k, channel c: in[r * row_step + k * tap_step + c] */
    const float *weight; /* packed, from the first live tap of block 0 */
    const float *bias;   /* [blocks][width] */
    float *out;          /* row r: out + r * out_step, [blocks][width] floats are written */
    int64_t row_step, tap_step, out_step;
    int64_t block_step; /* floats between blocks of `weight`, all taps in width */
    int32_t taps;       /* live */
    int32_t channels;   /* of the input */
    int32_t blocks;
    kac_tile_act act;
} kac_tile;

#endif /* KAC_TILE_H */
