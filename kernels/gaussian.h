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
 * Powers and products.  In u = x / a with tau = (b / a)^2, noise is heat: the law q_tau of u has
 * d log q / d tau = (div s + |s|^2) / 2, s = (D - u) / tau its score.  Of several denoisers with
 * exponents beta_i, sum B > 0, let P = prod q_i^beta_i at each tau, S = sum beta_i s_i.  Backwards
 * in tau, for every eta,
 *
 *     dP = - (1 + eta^2) / 2 div(S P) + eta^2 / 2 Laplace P + G P,
 *     G = (|S|^2 - sum beta_i |s_i|^2) / 2,
 *
 * so chains that drift by (1 + eta^2) / 2 S with noise of variance eta^2, weighed by exp of the
 * integral of G, follow P: at level 0 prod q_i^beta_i of the data, and their mean weight is the
 * integral of P there over that of P at level T.  With d = sum beta_i d_i / B, S is B (d - u) /
 * tau, and
 *
 *     G = (B (B - 1) |u - d|^2 + clash) / (2 tau^2),   clash = B |d|^2 - sum beta_i |d_i|^2,
 *
 * which for beta = B (1 + w), - B w is B w (1 + w) |d_1 - d_2|^2.  The move holds d and solves
 * the rest: with p = (1 + eta^2) B - 1 and rho = tau_s / tau_k, the distance to d shrinks by
 * rho^((p + 1) / 2), and noise is eta^2 tau_s (1 - rho^p) / p.  So are moves wherever B is not 1
 * or eta is above 1; else they are those above, which have the same limit and, at eta 1, the same
 * formula.  The integral is the trapezoid rule in log tau, each level's G in one piece (kac_gain);
 * below level 1, S counts as constant.  Level T starts from N(0, b^2 / B), the power of its noise.
 * Where x is all noise what a weight is yet to gain grows like exp((B - 1) / eta^2 |u|^2 / (2
 * tau)) of N(0, tau / B), whose variance is finite where eta^2 > 2 (B - 1) / B.
 * Skreta et al., "Feynman-Kac correctors in diffusion: annealing, guidance, and product of
 * experts", 2025.
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

/* Whether one of n numbers is not one. */
KAC_HD static inline bool kac_has_nan(const float *x, int32_t n)
{
    bool is_nan = false;
    for (int32_t l = 0; l < n; l++)
        is_nan |= x[l] != x[l];
    return is_nan;
}

/* log of the density of a standard normal at z + u over that of one with mean u. */
KAC_HD static inline double kac_shift_ratio(double u, double z)
{
    return -u * fma(0.5, u, z);
}

/* Standard deviation of what chains start from at `level`. */
KAC_HD static inline double kac_start_noise(const kac_gaussian_level *level)
{
    return level->noise / sqrt(level->anneal);
}

/* What two denoisers with estimates d and `other` say of a vector, in d [length + 1]: d_1 + w (d_1
 * - d_2), then the clash. */
KAC_HD static inline void kac_blend_vector(double anneal, double w, const float *other,
                                           int32_t length, float *d)
{
    double square = 0;
    for (int32_t l = 0; l < length; l++) {
        double apart = (double)d[l] - (double)other[l];
        square = fma(apart, apart, square);
        d[l] = (float)fma(w, apart, (double)d[l]);
    }
    d[length] = (float)(anneal * w * (1 + w) * square);
}

/* What the move from `level` adds to the log-weight; d holds the estimate, and the clash where
 * rows have `floats` of length + 1. */
KAC_HD static inline double kac_gain(const kac_gaussian_level *level, const float *x,
                                     const float *d, int32_t length, int32_t floats)
{
    double square = 0, clash = floats > length ? (double)d[length] : 0;
    double bend = level->anneal * (level->anneal - 1);
    for (int32_t l = 0; l < length && bend != 0; l++) {
        double e = (double)x[l] / level->scale - (double)d[l];
        square = fma(e, e, square);
    }
    return fma(level->weigh, fma(bend, square, clash), level->offset * length);
}

#endif /* KAC_GAUSSIAN_H */
