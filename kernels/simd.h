/* simd.h -- names of code that is compiled once for each instruction set.
 *
 * kernels/X_simd.c is built with KAC_SIMD = portable, avx2 or avx512; KAC_SIMD_NAME(f) gives
 * f_portable, f_avx2 or f_avx512, and the caller chooses by dev->isa.  All give the same bits.
 */
#ifndef KAC_SIMD_H
#define KAC_SIMD_H

#define KAC_SIMD_JOIN_(f, isa) f##_##isa
#define KAC_SIMD_JOIN(f, isa)  KAC_SIMD_JOIN_(f, isa)
#define KAC_SIMD_NAME(f)       KAC_SIMD_JOIN(f, KAC_SIMD)

#endif /* KAC_SIMD_H */
