/* exact.h -- elementary functions and sums with the same bits on every machine.
 *
 * Only operations that IEEE 754 rounds correctly are used (fma, multiply, add, divide, square
 * root) and integer operations on the bits, in a fixed order, so a CPU of any instruction set
 * and a GPU agree.  There are no branches on the data: a loop over these functions vectorises,
 * and its lanes give the bits of the scalar code.  Compile with -ffp-contract=off.
 *
 * The polynomials are minimax fits (Remez) in the relative error of the result.  Errors are
 * the largest measured, one float in 61; tests/test_exact.c holds bounds.  An ulp is the
 * distance of floats at the true value.
 */
#ifndef KAC_EXACT_H
#define KAC_EXACT_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "hd.h"

/* ---- bits ------------------------------------------------------------------------------- */

KAC_HD static inline uint32_t kac_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

KAC_HD static inline float kac_from_bits(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

KAC_HD static inline uint64_t kac_bits64(double x)
{
    uint64_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

KAC_HD static inline double kac_from_bits64(uint64_t u)
{
    double x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* All ones where a < b, else 0; a and b below 2^31 (2^63).  Conditions are taken from the bits,
 * because compilers turn a ternary between long computations into a branch, and then do not
 * vectorise. */
KAC_HD static inline uint32_t kac_less(uint32_t a, uint32_t b)
{
    return 0u - ((a - b) >> 31);
}

KAC_HD static inline uint64_t kac_less64(uint64_t a, uint64_t b)
{
    return 0u - ((a - b) >> 63);
}

/* a where the mask is all ones, b where it is 0. */
KAC_HD static inline float kac_selectf(uint32_t mask, float a, float b)
{
    return kac_from_bits((kac_bits(a) & mask) | (kac_bits(b) & ~mask));
}

KAC_HD static inline double kac_select(uint64_t mask, double a, double b)
{
    return kac_from_bits64((kac_bits64(a) & mask) | (kac_bits64(b) & ~mask));
}

/* |x|, and |x| with the sign of s. */
KAC_HD static inline float kac_absf(float x)
{
    return kac_from_bits(kac_bits(x) & 0x7fffffffu);
}

KAC_HD static inline float kac_signf(float x, float s)
{
    return kac_from_bits((kac_bits(x) & 0x7fffffffu) | (kac_bits(s) & 0x80000000u));
}

/* 2^n for -126 <= n <= 127, and for -1022 <= n <= 1023. */
KAC_HD static inline float kac_pow2f(int32_t n)
{
    return kac_from_bits(((uint32_t)n + 127u) << 23);
}

KAC_HD static inline double kac_pow2(int64_t n)
{
    return kac_from_bits64(((uint64_t)n + 1023u) << 52);
}

/* ---- float ------------------------------------------------------------------------------ */

/* e^x; 1.00 ulp.  Results below the smallest normal number are rounded to subnormals, not
 * flushed; above the largest float inf.  NaN gives NaN. */
KAC_HD static inline float kac_expf(float x)
{
    /* e^x = 2^n e^r.  Adding 1.5 2^23 leaves n, rounded to nearest, in the low bits. */
    const float shift = 0x1.8p23f;
    float y = x > 89.0f ? 89.0f : x;
    y = y < -104.0f ? -104.0f : y;
    float t = fmaf(y, 0x1.715476p0f, shift);
    int32_t n = (int32_t)(kac_bits(t) - kac_bits(shift));
    t -= shift;
    float r = fmaf(t, -0x1.62e4p-1f, y);
    r = fmaf(t, -0x1.7f7d1cp-20f, r);

    float p = 0x1.6a2488p-10f;
    p = fmaf(p, r, 0x1.1239dep-7f);
    p = fmaf(p, r, 0x1.5558fp-5f);
    p = fmaf(p, r, 0x1.555492p-3f);
    p = fmaf(p, r, 0x1.fffffcp-2f);
    p = fmaf(p, r * r, r) + 1.0f;

    /* Two factors, because 2^n alone may be no normal number; only the last product rounds. */
    int32_t half = n / 2;
    return p * kac_pow2f(half) * kac_pow2f(n - half);
}

/* ln x; 0.82 ulp, subnormal x included.  0 gives -inf, x < 0 NaN, inf inf, NaN NaN. */
KAC_HD static inline float kac_logf(float x)
{
    uint32_t size = kac_bits(x) & 0x7fffffffu;
    uint32_t small = kac_less(size, 0x00800000u);
    float y = x * kac_selectf(small, 0x1p24f, 1.0f);
    /* y = 2^n (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)). */
    uint32_t u = kac_bits(y) - 0x3f3504f3u;
    int32_t n = (int32_t)u >> 23;
    float f = kac_from_bits((u & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
    float e = (float)(n - (int32_t)(small & 24u));

    float p = 0x1.14561p-4f;
    p = fmaf(p, f, -0x1.de3a5ap-4f);
    p = fmaf(p, f, 0x1.e6f036p-4f);
    p = fmaf(p, f, -0x1.fc2254p-4f);
    p = fmaf(p, f, 0x1.233772p-3f);
    p = fmaf(p, f, -0x1.555c4cp-3f);
    p = fmaf(p, f, 0x1.99a4b4p-3f);
    p = fmaf(p, f, -0x1.000006p-2f);
    p = fmaf(p, f, 0x1.555548p-2f);

    float s = f * f;
    float t = fmaf(f * s, p, e * 0x1.7f7d1cp-20f);
    t = fmaf(-0.5f, s, t) + f;
    t = fmaf(e, 0x1.62e4p-1f, t);

    t = kac_selectf(kac_less(size, 0x7f800000u), t, x);
    t = kac_selectf(0u - (kac_bits(x) >> 31), NAN, t);
    return kac_selectf(kac_less(size, 1u), -INFINITY, t);
}

/* e^x for -30 <= x <= 30, the bits of kac_expf, in fewer steps: one factor is enough, and nothing
 * is out of range.  NaN gives NaN. */
KAC_HD static inline float kac_exp_nearf(float x)
{
    const float shift = 0x1.8p23f; /* its low 9 bits are 0 */
    float t = fmaf(x, 0x1.715476p0f, shift);
    uint32_t factor = (kac_bits(t) << 23) + (127u << 23);
    t -= shift;
    float r = fmaf(t, -0x1.62e4p-1f, x);
    r = fmaf(t, -0x1.7f7d1cp-20f, r);

    float p = 0x1.6a2488p-10f;
    p = fmaf(p, r, 0x1.1239dep-7f);
    p = fmaf(p, r, 0x1.5558fp-5f);
    p = fmaf(p, r, 0x1.555492p-3f);
    p = fmaf(p, r, 0x1.fffffcp-2f);
    p = fmaf(p, r * r, r) + 1.0f;
    return p * kac_from_bits(factor);
}

/* tanh x; 1.31 ulp.  Signed zeros are kept; inf gives 1, NaN NaN. */
KAC_HD static inline float kac_tanhf(float x)
{
    float a = kac_absf(x);
    float s = a * a;
    float p = -0x1.750cbap-8f;
    p = fmaf(p, s, 0x1.51f9p-6f);
    p = fmaf(p, s, -0x1.b835acp-5f);
    p = fmaf(p, s, 0x1.1106f6p-3f);
    p = fmaf(p, s, -0x1.555532p-2f);
    p = fmaf(p * s, a, a);

    float y = 2.0f * a;
    y = y > 24.0f ? 24.0f : y; /* beyond, the result is 1 */
    float q = fmaf(-2.0f, 1.0f / (kac_exp_nearf(y) + 1.0f), 1.0f);
    return kac_signf(kac_selectf(kac_less(kac_bits(a), kac_bits(0.625f)), p, q), x);
}

/* x above 0, else e^x - 1.  NaN gives NaN. */
KAC_HD static inline float kac_eluf(float x)
{
    float y = x < -30.0f ? -30.0f : x; /* beyond, the result is -1 */
    float e = kac_exp_nearf(y) - 1.0f;
    return x > 0 ? x : e;
}

/* 1 / (1 + e^-x); 1.48 ulp, subnormal results included.  NaN gives NaN. */
KAC_HD static inline float kac_sigmoidf(float x)
{
    /* e^-|x| can not overflow.  The quotient is corrected for what 1 + e and it were rounded.
     */
    float e = kac_expf(-kac_absf(x));
    float d = 1.0f + e;
    float rest = e - (d - 1.0f);
    float n = kac_selectf(0u - (kac_bits(x) >> 31), e, 1.0f);
    float inverse = 1.0f / d;
    float q = n * inverse;
    float r = fmaf(-q, rest, fmaf(-q, d, n));
    return fmaf(r, inverse, q);
}

/* erf x; 0.96 ulp.  Signed zeros are kept; inf gives 1, NaN NaN. */
KAC_HD static inline float kac_erff(float x)
{
    float a = kac_absf(x);
    float s = a * a;
    float p = 0x1.4771eep-14f;
    p = fmaf(p, s, -0x1.a3515cp-11f);
    p = fmaf(p, s, 0x1.53f224p-8f);
    p = fmaf(p, s, -0x1.b7f71ap-6f);
    p = fmaf(p, s, 0x1.ce2ce6p-4f);
    p = fmaf(p, s, -0x1.81273ep-2f);
    p = fmaf(p, s, 0x1.06eba8p-3f);
    p = fmaf(p, a, a);

    /* 1 - e^(-t - t q(t)); from 4 on the float is 1. */
    float t = a > 4.0f ? 4.0f : a;
    float q = 0x1.d473fep-17f;
    q = fmaf(q, t, -0x1.6f9c04p-12f);
    q = fmaf(q, t, 0x1.ec7eaap-9f);
    q = fmaf(q, t, -0x1.896148p-6f);
    q = fmaf(q, t, 0x1.b459acp-4f);
    q = fmaf(q, t, 0x1.451abap-1f);
    q = fmaf(q, t, 0x1.0790e6p-3f);
    q = 1.0f - kac_expf(-fmaf(q, t, t));
    return kac_signf(kac_selectf(kac_less(kac_bits(a), kac_bits(1.0f)), p, q), x);
}

/* x Phi(x), the GELU with erf.  The error is 1.39 ulp of x: relative accuracy is lost far below
 * 0, as 1 + erf cancels there. Hendrycks and Gimpel, "Gaussian error linear units", 2016. */
KAC_HD static inline float kac_geluf(float x)
{
    return 0.5f * x * (1.0f + kac_erff(x * 0x1.6a09e6p-1f));
}

/* ---- double ----------------------------------------------------------------------------- */

/* e^r for |r| <= ln 2 / 2. */
KAC_HD static inline double kac_exp_rest(double r)
{
    double p = 0x1.1e3d41ac8de05p-29;
    p = fma(p, r, 0x1.af6be76c8c571p-26);
    p = fma(p, r, 0x1.27e5b434c3099p-22);
    p = fma(p, r, 0x1.71ddf021124d8p-19);
    p = fma(p, r, 0x1.a01a01369ab9dp-16);
    p = fma(p, r, 0x1.a01a01b37e1c9p-13);
    p = fma(p, r, 0x1.6c16c16c30457p-10);
    p = fma(p, r, 0x1.111111110ec5ep-7);
    p = fma(p, r, 0x1.5555555555503p-5);
    p = fma(p, r, 0x1.555555555555bp-3);
    p = fma(p, r, 0.5);
    return fma(p, r * r, r) + 1.0;
}

/* e^x; 0.99 ulp.  Subnormal results, overflow and NaN as in kac_expf. */
KAC_HD static inline double kac_exp(double x)
{
    const double shift = 0x1.8p52;
    double y = x > 710.0 ? 710.0 : x;
    y = y < -746.0 ? -746.0 : y;
    double t = fma(y, 0x1.71547652b82fep0, shift);
    int64_t n = (int64_t)(kac_bits64(t) - kac_bits64(shift));
    t -= shift;
    double r = fma(t, -0x1.62e42feep-1, y);
    r = fma(t, -0x1.a39ef35793c76p-33, r);
    int64_t half = n / 2;
    return kac_exp_rest(r) * kac_pow2(half) * kac_pow2(n - half);
}

/* e^x for -700 <= x <= 700, the bits of kac_exp, in fewer steps: nothing is out of range, so the
 * power of two is added to the exponent. */
KAC_HD static inline double kac_exp_near(double x)
{
    const double shift = 0x1.8p52; /* its low 12 bits are 0 */
    double t = fma(x, 0x1.71547652b82fep0, shift);
    uint32_t power = (uint32_t)kac_bits64(t) << 20;
    t -= shift;
    double r = fma(t, -0x1.62e42feep-1, x);
    r = fma(t, -0x1.a39ef35793c76p-33, r);
    uint64_t rest = kac_bits64(kac_exp_rest(r));
    return kac_from_bits64((uint64_t)((uint32_t)(rest >> 32) + power) << 32 | (uint32_t)rest);
}

/* ln x; 0.84 ulp, subnormal x included.  0 gives -inf, x < 0 NaN, inf inf, NaN NaN. */
KAC_HD static inline double kac_log(double x)
{
    const double shift = 0x1.8p52;
    uint64_t size = kac_bits64(x) & 0x7fffffffffffffffu;
    uint64_t small = kac_less64(size, 0x0010000000000000u);
    double y = x * kac_select(small, 0x1p54, 1.0);
    uint64_t u = kac_bits64(y) - 0x3fe6a09e667f3bcdu;
    double f = kac_from_bits64((u & 0x000fffffffffffffu) + 0x3fe6a09e667f3bcdu) - 1.0;
    /* The exponent becomes a double by adding: vectors of 64-bit integers seldom convert. */
    uint64_t n = ((u + 0x4000000000000000u) >> 52) - 1024u - (small & 54u);
    double e = kac_from_bits64(kac_bits64(shift) + n) - shift;

    /* ln(1 + f) = f - f^2/2 + s (f^2/2 + R), s = f / (2 + f), R = 2 atanh(s) / s - 2. */
    double s = f / (2.0 + f);
    double z = s * s;
    double p = 0x1.2f03bf9761fb2p-3;
    p = fma(p, z, 0x1.39a1e7fcd326fp-3);
    p = fma(p, z, 0x1.74663cf5038e1p-3);
    p = fma(p, z, 0x1.c71c52143a9eep-3);
    p = fma(p, z, 0x1.24924941e157fp-2);
    p = fma(p, z, 0x1.999999997ff1ap-2);
    p = fma(p, z, 0x1.5555555555592p-1);
    double h = 0.5 * f * f;
    double t = fma(s, fma(p, z, h), e * 0x1.a39ef35793c76p-33);
    t = f - (h - t);
    t = fma(e, 0x1.62e42feep-1, t);

    t = kac_select(kac_less64(size, 0x7ff0000000000000u), t, x);
    t = kac_select(0u - (kac_bits64(x) >> 63), (double)NAN, t);
    return kac_select(kac_less64(size, 1u), -(double)INFINITY, t);
}

/* sin and cos of 2 pi u, for |u| < 2^50; absolute error 2^-53.  The reduction is exact because
 * u counts turns.  inf and NaN give NaN. */
KAC_HD static inline void kac_sincos_turns(double u, double *sine, double *cosine)
{
    /* u = quarter / 4 + r, |r| <= 1/8. */
    const double shift = 0x1.8p52;
    double t = fma(u, 4.0, shift);
    uint64_t quarter = kac_bits64(t) - kac_bits64(shift);
    double r = fma(t - shift, -0.25, u);
    double z = r * r;

    double s = 0x1.e3ee94272b209p+1;
    s = fma(s, z, -0x1.e30062e95c1dbp+3);
    s = fma(s, z, 0x1.50782fc97aa02p+5);
    s = fma(s, z, -0x1.32d2cce2d4805p+6);
    s = fma(s, z, 0x1.466bc677586f6p+6);
    s = fma(s, z, -0x1.4abbce625be41p+5);
    s = fma(s, z, 0x1.921fb54442d18p+2) * r;

    double c = -0x1.b26fafff62d7cp+0;
    c = fma(c, z, 0x1.f9cc6a1b1260ap+2);
    c = fma(c, z, -0x1.a6d1ecb65f27cp+4);
    c = fma(c, z, 0x1.e1f50683b31bbp+5);
    c = fma(c, z, -0x1.55d3c7e3c95b2p+6);
    c = fma(c, z, 0x1.03c1f081b5ab0p+6);
    c = fma(c, z, -0x1.3bd3cc9be45dep+4);
    c = fma(c, z, 1.0);

    uint64_t odd = 0u - (quarter & 1u);
    double a = kac_select(odd, c, s);
    double b = kac_select(odd, s, c);
    *sine = kac_from_bits64(kac_bits64(a) ^ (quarter & 2) << 62);
    *cosine = kac_from_bits64(kac_bits64(b) ^ ((quarter + 1) & 2) << 62);
}

/* ---- sums ------------------------------------------------------------------------------- */

/* Long sums run in 16 interleaved lanes, lane j taking elements j, j + 16, ..., and end in one
 * fixed tree.  Lanes start at +0, so elements that are missing from the last 16 may be skipped
 * or taken as zeros: the bits are the same. */
enum { KAC_SUM_LANES = 16 };

/* The tree: lane i + lane i + 8, then 4, 2, 1. */
KAC_HD static inline float kac_tree(const float *lane)
{
    float v[8];
    for (int i = 0; i < 8; i++)
        v[i] = lane[i] + lane[i + 8];
    for (int i = 0; i < 4; i++)
        v[i] += v[i + 4];
    return (v[0] + v[2]) + (v[1] + v[3]);
}

/* x[0] + .. + x[n - 1]. */
KAC_HD static inline float kac_sum(const float *x, int64_t n)
{
    float lane[KAC_SUM_LANES] = {0};
    int64_t i = 0;
    for (; i + KAC_SUM_LANES <= n; i += KAC_SUM_LANES)
        for (int j = 0; j < KAC_SUM_LANES; j++)
            lane[j] += x[i + j];
    for (int j = 0; i + j < n; j++)
        lane[j] += x[i + j];
    return kac_tree(lane);
}

/* The sum of (x[i] - mean)^2. */
KAC_HD static inline float kac_sum_squares(const float *x, float mean, int64_t n)
{
    float lane[KAC_SUM_LANES] = {0};
    int64_t i = 0;
    for (; i + KAC_SUM_LANES <= n; i += KAC_SUM_LANES)
        for (int j = 0; j < KAC_SUM_LANES; j++)
            lane[j] = fmaf(x[i + j] - mean, x[i + j] - mean, lane[j]);
    for (int j = 0; i + j < n; j++)
        lane[j] = fmaf(x[i + j] - mean, x[i + j] - mean, lane[j]);
    return kac_tree(lane);
}

#endif /* KAC_EXACT_H */
