/* simd.h -- vectors of floats, and names of code that is compiled once for each instruction
 * set.
 *
 * kernels/X_simd.c is built with KAC_SIMD = portable, avx2 or avx512; KAC_SIMD_NAME(f) gives
 * f_portable, f_avx2 or f_avx512, and the caller chooses by dev->isa.  All give the same bits.
 */
#ifndef KAC_SIMD_H
#define KAC_SIMD_H

#define KAC_SIMD_PASTE(f, isa) f##_##isa
#define KAC_SIMD_JOIN(f, isa)  KAC_SIMD_PASTE(f, isa)
#define KAC_SIMD_NAME(f)       KAC_SIMD_JOIN(f, KAC_SIMD)

/* The functions f_portable, f_avx2, f_avx512 as an array indexed by kac_isa.  Where the other
 * sets do not exist, every entry is the portable one. */
#ifdef __x86_64__
#define KAC_SIMD_TABLE(f)                                                                      \
    {                                                                                          \
        f##_portable, f##_avx2, f##_avx512                                                     \
    }
#else
#define KAC_SIMD_TABLE(f)                                                                      \
    {                                                                                          \
        f##_portable, f##_portable, f##_portable                                               \
    }
#endif

/* A loop of constant length over registers: only an unrolled one keeps them registers. */
#ifdef __clang__
#define KAC_UNROLL _Pragma("clang loop unroll(full)")
#else
#define KAC_UNROLL _Pragma("GCC unroll 16")
#endif

/* kac_vec is KAC_LANES floats, with + - * from the compiler and the operations below.
 * kac_vec_relu(x) is x < 0 ? 0 : x, so NaN stays NaN; kac_vec_gate(y, g) is y <= 0 ? 0 : g,
 * the way of a gradient g back through y = relu(x). */
#if defined(KAC_SIMD_avx512)

#include <immintrin.h>

enum { KAC_LANES = 16 };
typedef __m512 kac_vec;

static inline kac_vec kac_vec_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

static inline void kac_vec_store(float *p, kac_vec x)
{
    _mm512_storeu_ps(p, x);
}

static inline kac_vec kac_vec_splat(float x)
{
    return _mm512_set1_ps(x);
}

static inline kac_vec kac_vec_fma(kac_vec a, kac_vec b, kac_vec c)
{
    return _mm512_fmadd_ps(a, b, c);
}

static inline kac_vec kac_vec_relu(kac_vec x)
{
    return _mm512_max_ps(_mm512_setzero_ps(), x); /* the second operand where x is NaN */
}

static inline kac_vec kac_vec_gate(kac_vec y, kac_vec g)
{
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(y, _mm512_setzero_ps(), _CMP_NLE_UQ), g);
}

#elif defined(KAC_SIMD_avx2)

#include <immintrin.h>

enum { KAC_LANES = 8 };
typedef __m256 kac_vec;

static inline kac_vec kac_vec_load(const float *p)
{
    return _mm256_loadu_ps(p);
}

static inline void kac_vec_store(float *p, kac_vec x)
{
    _mm256_storeu_ps(p, x);
}

static inline kac_vec kac_vec_splat(float x)
{
    return _mm256_set1_ps(x);
}

static inline kac_vec kac_vec_fma(kac_vec a, kac_vec b, kac_vec c)
{
    return _mm256_fmadd_ps(a, b, c);
}

static inline kac_vec kac_vec_relu(kac_vec x)
{
    return _mm256_max_ps(_mm256_setzero_ps(), x);
}

static inline kac_vec kac_vec_gate(kac_vec y, kac_vec g)
{
    return _mm256_and_ps(_mm256_cmp_ps(y, _mm256_setzero_ps(), _CMP_NLE_UQ), g);
}

#elif defined(KAC_SIMD_portable)

#include <math.h>
#include <string.h>

enum { KAC_LANES = 4 };
typedef float kac_vec __attribute__((vector_size(16)));

static inline kac_vec kac_vec_load(const float *p)
{
    kac_vec x;
    memcpy(&x, p, sizeof x);
    return x;
}

static inline void kac_vec_store(float *p, kac_vec x)
{
    memcpy(p, &x, sizeof x);
}

static inline kac_vec kac_vec_splat(float x)
{
    return (kac_vec){x, x, x, x};
}

static inline kac_vec kac_vec_fma(kac_vec a, kac_vec b, kac_vec c)
{
    return (kac_vec){fmaf(a[0], b[0], c[0]), fmaf(a[1], b[1], c[1]), fmaf(a[2], b[2], c[2]),
                     fmaf(a[3], b[3], c[3])};
}

static inline kac_vec kac_vec_relu(kac_vec x)
{
    for (int i = 0; i < KAC_LANES; i++)
        x[i] = x[i] < 0.0f ? 0.0f : x[i];
    return x;
}

static inline kac_vec kac_vec_gate(kac_vec y, kac_vec g)
{
    for (int i = 0; i < KAC_LANES; i++)
        g[i] = y[i] <= 0.0f ? 0.0f : g[i];
    return g;
}

#endif
#endif /* KAC_SIMD_H */
