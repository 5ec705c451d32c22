/* tile_simd.h -- the micro-kernel behind every dense layer and convolution on the CPU.
 *
 * A tile of up to KAC_TILE_ROWS rows and two vectors of output channels stays in registers
 * through the whole chain; each step loads two vectors of weights and one float of each row.
 * How rows are cut into tiles does not change a bit, since no sum crosses outputs.
 */
#ifndef KAC_TILE_SIMD_H
#define KAC_TILE_SIMD_H

#include "simd.h"
#include "tile.h"

enum { KAC_TILE_WIDTH = 2 * KAC_LANES }; /* kac_tile_width() of this instruction set */

/* As many accumulators as leave registers for two vectors of weights and one of inputs. */
#if defined(KAC_SIMD_avx512)
enum { KAC_TILE_ROWS = 14 };
#elif defined(KAC_SIMD_avx2)
enum { KAC_TILE_ROWS = 6 };
#else
enum { KAC_TILE_ROWS = 4 };
#endif

/* The end of kac_tile_fixed: the activation.  `act` is a constant, so that the loop stays small
 * enough for every compiler to unroll. */
__attribute__((always_inline)) static inline void kac_tile_finish(const kac_tile *t,
                                                                  kac_vec (*acc)[2], float *out,
                                                                  const int rows,
                                                                  const kac_tile_act act)
{
    KAC_UNROLL
    for (int r = 0; r < rows; r++) {
        float *o = out + r * t->out_step;
        kac_vec x0 = act == KAC_TILE_LINEAR ? acc[r][0] : kac_vec_relu(acc[r][0]);
        kac_vec x1 = act == KAC_TILE_LINEAR ? acc[r][1] : kac_vec_relu(acc[r][1]);
        if (act == KAC_TILE_ADD) x0 = kac_vec_load(o) + x0;
        if (act == KAC_TILE_ADD) x1 = kac_vec_load(o + KAC_LANES) + x1;
        kac_vec_store(o, x0);
        kac_vec_store(o + KAC_LANES, x1);
    }
}

/* Block `block` of `rows` rows from `row` on; `rows` is a constant wherever this is inlined. */
__attribute__((always_inline)) static inline void
kac_tile_fixed(const kac_tile *t, int32_t block, int64_t row, const int rows)
{
    const float *w = t->weight + block * t->block_step;
    const int64_t channel = (int64_t)block * KAC_TILE_WIDTH;
    const float *bias = t->bias + channel;
    float *out = t->out + row * t->out_step + channel;
    const int64_t step = t->row_step;

    kac_vec acc[KAC_TILE_ROWS][2];
    KAC_UNROLL
    for (int r = 0; r < rows; r++) {
        acc[r][0] = kac_vec_load(bias);
        acc[r][1] = kac_vec_load(bias + KAC_LANES);
    }
    for (int32_t k = 0; k < t->taps; k++) {
        const float *in = t->in + row * step + k * t->tap_step;
        for (int32_t c = 0; c < t->channels; c++) {
            kac_vec w0 = kac_vec_load(w);
            kac_vec w1 = kac_vec_load(w + KAC_LANES);
            KAC_UNROLL
            for (int r = 0; r < rows; r++) {
                kac_vec x = kac_vec_splat(in[r * step]);
                acc[r][0] = kac_vec_fma(x, w0, acc[r][0]);
                acc[r][1] = kac_vec_fma(x, w1, acc[r][1]);
            }
            w += KAC_TILE_WIDTH;
            in++;
        }
    }
    switch (t->act) {
    case KAC_TILE_LINEAR: kac_tile_finish(t, acc, out, rows, KAC_TILE_LINEAR); break;
    case KAC_TILE_RELU: kac_tile_finish(t, acc, out, rows, KAC_TILE_RELU); break;
    case KAC_TILE_ADD: kac_tile_finish(t, acc, out, rows, KAC_TILE_ADD); break;
    }
}

static inline void kac_tile_rows(const kac_tile *t, int32_t block, int64_t row, int rows)
{
    switch (rows) {
    case 1: kac_tile_fixed(t, block, row, 1); break;
    case 2: kac_tile_fixed(t, block, row, 2); break;
    case 3: kac_tile_fixed(t, block, row, 3); break;
    case 4: kac_tile_fixed(t, block, row, 4); break;
#if !defined(KAC_SIMD_portable)
    case 5: kac_tile_fixed(t, block, row, 5); break;
    case 6: kac_tile_fixed(t, block, row, 6); break;
#endif
#if defined(KAC_SIMD_avx512)
    case 7: kac_tile_fixed(t, block, row, 7); break;
    case 8: kac_tile_fixed(t, block, row, 8); break;
    case 9: kac_tile_fixed(t, block, row, 9); break;
    case 10: kac_tile_fixed(t, block, row, 10); break;
    case 11: kac_tile_fixed(t, block, row, 11); break;
    case 12: kac_tile_fixed(t, block, row, 12); break;
    case 13: kac_tile_fixed(t, block, row, 13); break;
    case 14: kac_tile_fixed(t, block, row, 14); break;
#endif
    default: break;
    }
}

/* out of rows 0 .. rows - 1.  The rows are cut evenly, as a short tile wastes most. */
static inline void kac_tile_run(const kac_tile *t, int64_t rows)
{
    int64_t tiles = (rows + KAC_TILE_ROWS - 1) / KAC_TILE_ROWS;
    for (int64_t i = 0; i < tiles; i++) {
        int64_t row = rows * i / tiles;
        int64_t end = rows * (i + 1) / tiles;
        for (int32_t block = 0; block < t->blocks; block++)
            kac_tile_rows(t, block, row, (int)(end - row));
    }
}

#endif /* KAC_TILE_SIMD_H */
