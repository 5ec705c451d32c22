/* gaussian.h -- Gaussian diffusion: levels, normal numbers, and the scalar maths of a move.
 *
 * Notation: x_k = a_k x_0 + b_k e at level k with e standard normal, a = scale, b = noise;
 * D(x_k) the denoiser's estimate of x_0; lambda = log(a / b); s = k - 1 the level below.
 *
 * One family of moves has the usual samplers as members.  With v = eta^2 b_s^2 (1 - (a_k b_s /
 * (a_s b_k))^2),
 *
 *     x_s = a_s d + sqrt(b_s^2 - v) (x_k - a_k d) / b_k + sqrt(v) z
 *
 * and d = D(x_k): eta 0 is DDIM, the Euler step of the probability flow; eta 1 the ancestral
 * step with the variance of q(x_s | x_k, x_0).  With d = D(x_k) + (D(x_k) - D(x_{k+1})) / (2 r),
 * r = (lambda_{k+1} - lambda_k) / (lambda_k - lambda_s), the same formula is DPM-Solver++(2M) at
 * eta 0 and SDE-DPM-Solver++(2M) at eta 1: second order with one evaluation a level.
 *
 * Song, Meng and Ermon, "Denoising diffusion implicit models", ICLR 2021; Ho, Jain and Abbeel,
 * "Denoising diffusion probabilistic models", NeurIPS 2020; Lu et al., "DPM-Solver++", 2022.
 */
#ifndef KAC_GAUSSIAN_H
#define KAC_GAUSSIAN_H

#include <math.h>

#include "exact.h"
#include "hd.h"
#include "rng.h"
#include "types.h"

/* Two independent standard normal numbers of one draw.  Box and Muller, "A note on the
 * generation of random normal deviates", 1958; of 53 bits each, so |z| < 8.6. */
KAC_HD static inline void kac_normals(kac_u32x4 draw, double z[2])
{
    uint64_t first = (uint64_t)draw.v[0] << 32 | draw.v[1];
    uint64_t second = (uint64_t)draw.v[2] << 32 | draw.v[3];
    double radius = sqrt(-2 * kac_log((double)((first >> 11) + 1) * 0x1p-53));
    double sine = 0, cosine = 0;
    kac_sincos_turns((double)(second >> 11) * 0x1p-53, &sine, &cosine);
    z[0] = radius * cosine;
    z[1] = radius * sine;
}

/* Row i of rows that begin with floats. */
KAC_HD static inline const float *kac_vector(const uint8_t *rows, int64_t i, int32_t stride)
{
    return (const float *)(const void *)(rows + i * stride);
}

KAC_HD static inline float *kac_vector_out(uint8_t *rows, int64_t i, int32_t stride)
{
    return (float *)(void *)(rows + i * stride);
}

/* log of the density of a standard normal at z + u over that of one with mean u. */
KAC_HD static inline double kac_shift_ratio(double u, double z)
{
    return -u * fma(0.5, u, z);
}

#endif /* KAC_GAUSSIAN_H */
