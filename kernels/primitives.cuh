/* primitives.cuh -- what every CUDA file needs: launching, checking, and the few things that
 * kernels may use.  Without nvcc the emulator of tests/emu stands in for CUDA. */
#ifndef KAC_PRIMITIVES_CUH
#define KAC_PRIMITIVES_CUH

#include "exact.h"
#include "ops.h"

#ifdef __CUDACC__

#include <cuda_runtime.h>

/* Status of queueing kernel(...), checked. */
#define KAC_LAUNCH(dev, kernel, blocks, threads, bytes, ...)                                   \
    (kernel<<<(blocks), (threads), (bytes), kac_stream(dev)>>>(__VA_ARGS__),                   \
     kac_cuda_status(cudaGetLastError(), #kernel))
/* T name[n] in the block's shared memory, and `name` of the bytes that the launch asked for. */
#define KAC_SHARED(T, name, n) __shared__ T name[n]
#define KAC_DYNAMIC_SHARED(T, name)                                                            \
    extern __shared__ __align__(16) unsigned char kac_dynamic_[];                              \
    T *name = reinterpret_cast<T *>(kac_dynamic_)
/* In a loop that waits for another block. */
#define KAC_SPIN() __nanosleep(20)
/* Stores what is not read soon: the cache is to keep other things. */
template <class T> static __device__ inline void kac_store_past(T *to, T x)
{
    __stcs(to, x);
}
/* Lets so many cycles pass. */
static __device__ inline void KAC_PAUSE(int64_t cycles)
{
    for (const int64_t from = clock64(); clock64() - from < cycles;)
        KAC_SPIN();
}
/* A clock that all blocks share. */
static __device__ inline int64_t KAC_NANOSECONDS()
{
    unsigned long long t;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(t));
    return (int64_t)t;
}
/* A loop of constant length over registers: only an unrolled one keeps them registers. */
#define KAC_UNROLL _Pragma("unroll")
/* A loop that stays one: of a copy of its body the compiler may want more registers. */
#define KAC_ROLLED _Pragma("unroll 1")
/* A device function that is compiled once and called. */
#define KAC_OUT_OF_LINE __noinline__

/* Begins to copy 16 bytes from global to shared memory, both aligned so; what a thread has begun
 * since its last commit is a group, maybe empty.  A barrier shows others what it has waited for. */
static __device__ inline void kac_copy16(void *to, const void *from)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                     (uint32_t)__cvta_generic_to_shared(to)),
                 "l"(from)
                 : "memory");
}
static __device__ inline void kac_copy_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}
/* Until no more than LEFT of the thread's latest groups are unfinished. */
template <int LEFT> static __device__ inline void kac_copy_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

/* x with 10 bits after the point, to nearest; lo and hi with 7, as two halves of a word. */
static __device__ inline uint32_t kac_tf32(float x)
{
    uint32_t y;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
    return y;
}
static __device__ inline uint32_t kac_bf16_pair(float lo, float hi)
{
    uint32_t y;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(hi), "f"(lo));
    return y;
}
/* d += a b on a warp's tensor core, d 16 x 8, sums in float32.  Lane 4 g + t has of d rows g and
 * g + 8, columns 2 t and 2 t + 1; of a [16][8] rows g, g + 8, each at columns t and t + 4 as
 * a[0], a[1], a[2], a[3]; of b [8][8] column g, rows t and t + 4.  With bf16 each entry of a and
 * b is a pair, neighbours along the sum. */
static __device__ inline void kac_mma_tf32(float *d, const uint32_t *a, const uint32_t *b)
{
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                 "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
static __device__ inline void kac_mma_bf16(float *d, const uint32_t *a, const uint32_t *b)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#else

#include "emu.h"

#define KAC_LAUNCH(dev, kernel, blocks, threads, bytes, ...)                                   \
    ((void)(dev), emu::call((blocks), (threads), (bytes), kernel, __VA_ARGS__), KAC_OK)
#define KAC_SHARED(T, name, n)                                                                 \
    T *name = static_cast<T *>(emu::shared(                                                    \
        [] {                                                                                   \
            static char here;                                                                  \
            return &here;                                                                      \
        }(),                                                                                   \
        sizeof(T) * (n)))
#define KAC_DYNAMIC_SHARED(T, name) T *name = static_cast<T *>(emu::dynamic_shared())
#define KAC_SPIN()                  emu::spin(KAC_EMU_SITE)
#define KAC_PAUSE(cycles)           ((void)(cycles))
#define KAC_NANOSECONDS()           emu::nanoseconds()
#ifdef __clang__
#define KAC_UNROLL _Pragma("clang loop unroll(full)")
#else
#define KAC_UNROLL _Pragma("GCC unroll 16")
#endif
#define KAC_ROLLED
#define KAC_OUT_OF_LINE       __attribute__((noinline))
template <class T> static inline void kac_store_past(T *to, T x)
{
    *to = x;
}
static inline void kac_copy16(void *to, const void *from)
{
    *static_cast<float4 *>(to) = *static_cast<const float4 *>(from);
}
#define kac_copy_commit()     ((void)0)
template <int LEFT> static inline void kac_copy_wait()
{
}
#define kac_tf32              emu::tf32
#define kac_bf16_pair         emu::bf16_pair
#define kac_mma_tf32(d, a, b) emu::mma(d, a, b, false, KAC_EMU_SITE)
#define kac_mma_bf16(d, a, b) emu::mma(d, a, b, true, KAC_EMU_SITE)

#endif

#define KAC_KERNEL static __global__ void
/* Arguments of a kernel that are a struct: read in place, so that their address may be taken. */
#define KAC_ARGS const __grid_constant__

/* Turns a CUDA result into a status, and clears the error. */
kac_status kac_cuda_status(cudaError_t err, const char *what);

/* Device memory of at least so many bytes, the same for every operation: what one leaves there
 * is gone when the next begins.  Grows where it must, so that only first calls may wait. */
kac_status kac_cuda_scratch(kac_device *dev, size_t bytes, void **out);

/* Bytes of shared memory that a launch of the kernel may ask for. */
template <class K> static inline kac_status kac_allow_shared(K *kernel, size_t bytes)
{
    return kac_cuda_status(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
        "shared memory");
}

static inline cudaStream_t kac_stream(const kac_device *dev)
{
    return (cudaStream_t)dev->stream;
}

enum { KAC_THREADS = 256, KAC_WARP = 32 };
#define KAC_WHOLE_WARP 0xffffffffu

/* Blocks of KAC_THREADS for n items; KAC_EACH covers what is beyond the most blocks, which is
 * several times what runs at once and not so many that starting them for nothing takes long. */
static inline unsigned kac_blocks(int64_t n)
{
    int64_t blocks = (n + KAC_THREADS - 1) / KAC_THREADS;
    return (unsigned)(blocks < 1 ? 1 : blocks > 8192 ? 8192 : blocks);
}

/* i / n and i % n, by a division of 32 bits where they suffice, which is much shorter. */
struct kac_quotient {
    int64_t whole, rest;
};
static inline __device__ kac_quotient kac_split(int64_t i, int64_t n)
{
    if (((i | n) >> 32) != 0) return {i / n, i % n};
    return {(int64_t)((uint32_t)i / (uint32_t)n), (int64_t)((uint32_t)i % (uint32_t)n)};
}

/* for (i = the thread's number; i < n; i += threads of the grid) */
#define KAC_EACH(i, n)                                                                         \
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x,                           \
                 step_ = (int64_t)blockDim.x * gridDim.x;                                      \
         i < (n); i += step_)

/* The same for warps: every lane of a warp has the same i. */
#define KAC_EACH_WARP(i, n)                                                                    \
    for (int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / KAC_WARP,              \
                 step_ = (int64_t)blockDim.x * gridDim.x / KAC_WARP;                           \
         i < (n); i += step_)

/* sum + the terms of the lanes that have one, in the order of the lanes.  By whole warps. */
static inline __device__ double kac_add_in_order(double sum, double term, bool has)
{
    unsigned left = __ballot_sync(KAC_WHOLE_WARP, has);
    while (left != 0) {
        sum += __shfl_sync(KAC_WHOLE_WARP, term, __ffs((int)left) - 1);
        left &= left - 1;
    }
    return sum;
}

#endif /* KAC_PRIMITIVES_CUH */
