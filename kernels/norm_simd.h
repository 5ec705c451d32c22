/* norm_simd.h -- LayerNorm of a row of channels, forwards and backwards.
 *
 * A row is a whole number of vectors; what fills up its n channels is zero on the way in and is
 * not to be read on the way out.  Sums run over the channels in the 16 lanes of exact.h.
 */
#ifndef KAC_NORM_SIMD_H
#define KAC_NORM_SIMD_H

#include <stddef.h>

#include "exact.h"
#include "simd.h"

/* The 16 lanes as vectors. */
enum { KAC_NORM_PARTS = KAC_SUM_LANES / KAC_LANES };

static inline float kac_norm_total(const kac_vec *lanes)
{
    float lane[KAC_SUM_LANES];
    for (int i = 0; i < KAC_NORM_PARTS; i++)
        kac_vec_store(lane + (ptrdiff_t)i * KAC_LANES, lanes[i]);
    return kac_tree(lane);
}

typedef struct kac_norm {
    kac_vec mean, scale; /* scale: 1 / sqrt(variance + epsilon) */
} kac_norm;

/* The norm of x [n], given the lanes of its sum. */
static inline kac_norm kac_norm_of_sum(const kac_vec *sum, const float *x, int32_t n)
{
    const float epsilon = 1e-5f;
    const int32_t whole = n - n % KAC_LANES; /* in full vectors */
    kac_vec mean = kac_vec_splat(kac_norm_total(sum) / (float)n);
    kac_vec square[KAC_NORM_PARTS] = {0};
    for (int32_t c = 0; c < whole; c += KAC_LANES) {
        kac_vec d = kac_vec_load(x + c) - mean;
        int part = c / KAC_LANES % KAC_NORM_PARTS;
        square[part] = kac_vec_fma(d, d, square[part]);
    }
    if (whole < n) {
        float rest[KAC_LANES] = {0};
        for (int32_t c = whole; c < n; c++)
            rest[c - whole] = x[c] - mean[0];
        kac_vec d = kac_vec_load(rest);
        int part = whole / KAC_LANES % KAC_NORM_PARTS;
        square[part] = kac_vec_fma(d, d, square[part]);
    }
    float variance = kac_norm_total(square) / (float)n;
    return (kac_norm){mean, kac_vec_splat(1.0f / sqrtf(variance + epsilon))};
}

static inline kac_norm kac_norm_of(const float *x, int32_t n)
{
    kac_vec sum[KAC_NORM_PARTS] = {0};
    for (int32_t c = 0; c < n; c += KAC_LANES)
        sum[c / KAC_LANES % KAC_NORM_PARTS] += kac_vec_load(x + c);
    return kac_norm_of_sum(sum, x, n);
}

/* out = (x - mean) scale gamma + beta. */
static inline void kac_norm_apply(kac_norm norm, const float *gamma, const float *beta,
                                  int32_t n, const float *x, float *out)
{
    for (int32_t c = 0; c < n; c += KAC_LANES) {
        kac_vec y = (kac_vec_load(x + c) - norm.mean) * norm.scale;
        kac_vec_store(out + c, kac_vec_fma(y, kac_vec_load(gamma + c), kac_vec_load(beta + c)));
    }
}

/* g: the gradient of what kac_norm_apply gives; it becomes the gradient of its x.  With
 * y = (x - mean) scale and h = g gamma, that is scale (h - mean(h) - y mean(h y)). */
static inline void kac_norm_back(kac_norm norm, const float *gamma, int32_t n, const float *x,
                                 float *g)
{
    kac_vec sum[KAC_NORM_PARTS] = {0};
    kac_vec dot[KAC_NORM_PARTS] = {0};
    for (int32_t c = 0; c < n; c += KAC_LANES) {
        kac_vec y = (kac_vec_load(x + c) - norm.mean) * norm.scale;
        kac_vec h = kac_vec_load(g + c) * kac_vec_load(gamma + c);
        int part = c / KAC_LANES % KAC_NORM_PARTS;
        kac_vec_store(g + c, h);
        sum[part] += h;
        dot[part] = kac_vec_fma(h, y, dot[part]);
    }
    kac_vec mean = kac_vec_splat(kac_norm_total(sum) / (float)n);
    kac_vec slope = kac_vec_splat(-(kac_norm_total(dot) / (float)n));
    for (int32_t c = 0; c < n; c += KAC_LANES) {
        kac_vec y = (kac_vec_load(x + c) - norm.mean) * norm.scale;
        kac_vec h = kac_vec_load(g + c) - mean;
        kac_vec_store(g + c, kac_vec_fma(y, slope, h) * norm.scale);
    }
}

#endif /* KAC_NORM_SIMD_H */
