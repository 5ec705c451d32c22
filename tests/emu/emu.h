/* emu.h -- CUDA on the host, for tests: g++ and clang++ compile the kernels' own sources.
 *
 * Every thread of a block is a fiber on one OS thread; blocks run under OpenMP.  A thread that
 * never waits costs no switch.  Reported, with the place, before the program aborts: barriers
 * that not all threads of a block reach or that differ, lanes outside a mask or gone, shuffles
 * from outside the mask, and waiting for ever.  Shared memory has its exact size on the heap and
 * begins as 0xCD, so that AddressSanitizer sees a step beside it.
 *
 * KAC_EMU_ORDER chooses which thread goes on: 0 ascending, 1 descending, in both all start
 * before anyone resumes; 2, 3 the same with whoever can resume running ahead; 4 and above a
 * random order of that seed.  KAC_EMU_GUARD=1 takes device memory away from the host, so that
 * host code that touches it faults.
 * KAC_EMU_PROCESSORS is how many multiprocessors it has, 1 where it says nothing.
 * KAC_EMU_NAME is which GPU it is, to ranks that ask; "own": another in each process.  Nameless it
 * takes no part in NCCL, which would look for a real one.
 *
 * Not modelled: weak memory order, interleaving of instructions within a warp, time.
 */
#ifndef KAC_EMU_H
#define KAC_EMU_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <functional>

#define __global__
#define __device__
#define __host__
#define __constant__    static const
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};
struct __align__(8) uint2
{
    uint32_t x, y;
};
struct __align__(16) uint4
{
    uint32_t x, y, z, w;
};
struct __align__(16) int4
{
    int32_t x, y, z, w;
};
struct __align__(8) float2
{
    float x, y;
};
struct __align__(16) float4
{
    float x, y, z, w;
};

namespace emu
{

/* ---- the thread that runs now ------------------------------------------------------------ */

struct thread {
    dim3 index;
    int id; /* in the block */
};
thread *self();
dim3 block_index();
dim3 block_size();
dim3 grid_size();

/* ---- waiting for each other --------------------------------------------------------------- */

/* A barrier of the block.  `id` is one for each place in the source; the sum of all `value`s. */
unsigned barrier(unsigned value, const char *site, int id);

enum { LANE_BYTES = 16 };
struct exchange {
    unsigned char lane[32][LANE_BYTES];
};
/* Leaves up to LANE_BYTES, waits for all lanes of the mask, and sees what all of them left. */
const exchange *meet(unsigned mask, const void *value, size_t bytes, const char *site);

[[noreturn]] void die(const char *what, const char *site);

int64_t nanoseconds();

/* Called in a loop that waits for another block. */
void spin(const char *site);

template <class T> T shuffle(unsigned mask, T value, int from, const char *site)
{
    static_assert(sizeof value <= LANE_BYTES, "too wide for a shuffle");
    const exchange *all = meet(mask, &value, sizeof value, site);
    if (!(mask >> (from & 31) & 1)) die("a shuffle reads a lane outside its mask", site);
    T got;
    memcpy(&got, all->lane[from & 31], sizeof got);
    return got;
}
unsigned ballot(unsigned mask, bool vote, const char *site);
inline int lane()
{
    return self()->id & 31;
}
inline int up(int by)
{
    return lane() >= by ? lane() - by : lane();
}
inline int down(int by)
{
    return lane() + by < 32 ? lane() + by : lane();
}

/* ---- tensor cores --------------------------------------------------------------------------- */

/* See primitives.cuh. */
uint32_t tf32(float x);
uint32_t bf16_pair(float lo, float hi);
void mma(float *d, const uint32_t *a, const uint32_t *b, bool pairs, const char *site);

/* See group.cuh. */
void group_mma(float *d, const uint32_t *a, const uint16_t *b, int chunk, int cols,
               const char *site);
void store_columns(uint16_t *to, const uint32_t *x, int tiles, const char *site);

/* Rounded towards 0. */
double dadd_rz(double x, double y);

/* ---- memory and launches -------------------------------------------------------------------- */

/* As on Hopper: what a block may have in all, and where cudaFuncSetAttribute has said nothing of
 * the kernel. */
enum { SHARED_BYTES = 227 << 10, PLAIN_SHARED_BYTES = 48 << 10 };
void allow_shared(const void *kernel, size_t bytes);
/* Shared memory of the block that belongs to a place in the source. */
void *shared(const void *site, size_t bytes);
void *dynamic_shared();

/* Runs the grid now, or keeps it while a graph is being recorded. */
void launch(const void *kernel, dim3 grid, dim3 block, size_t dynamic_bytes,
            std::function<void()> body);

/* The arguments are taken as they are now, as a real launch takes them.  Static, because types of
 * one name may differ from file to file (each network has its kac_net). */
template <class... P, class... A>
static void call(dim3 grid, dim3 block, size_t dynamic_bytes, void (*kernel)(P...), A... args)
{
    launch(reinterpret_cast<const void *>(kernel), grid, block, dynamic_bytes,
           [=] { kernel(args...); });
}

} /* namespace emu */

#define KAC_EMU_TEXT2(x) #x
#define KAC_EMU_TEXT(x)  KAC_EMU_TEXT2(x)
#define KAC_EMU_SITE     __FILE__ ":" KAC_EMU_TEXT(__LINE__)

#define threadIdx (emu::self()->index)
#define blockIdx  (emu::block_index())
#define blockDim  (emu::block_size())
#define gridDim   (emu::grid_size())

#define __syncthreads()        ((void)emu::barrier(0, KAC_EMU_SITE, __COUNTER__))
#define __syncthreads_count(p) ((int)emu::barrier((p) ? 1u : 0u, KAC_EMU_SITE, __COUNTER__))
#define __syncthreads_or(p)    ((int)(emu::barrier((p) ? 1u : 0u, KAC_EMU_SITE, __COUNTER__) != 0))
#define __syncwarp(...)                                                                        \
    ((void)emu::meet(0xffffffffu __VA_OPT__(&(__VA_ARGS__)), nullptr, 0, KAC_EMU_SITE))
#define __shfl_sync(m, v, from)    emu::shuffle(m, v, from, KAC_EMU_SITE)
#define __shfl_xor_sync(m, v, x)   emu::shuffle(m, v, emu::lane() ^ (x), KAC_EMU_SITE)
#define __shfl_up_sync(m, v, by)   emu::shuffle(m, v, emu::up((int)(by)), KAC_EMU_SITE)
#define __shfl_down_sync(m, v, by) emu::shuffle(m, v, emu::down((int)(by)), KAC_EMU_SITE)
#define __ballot_sync(m, p)        emu::ballot(m, p, KAC_EMU_SITE)
#define __any_sync(m, p)           (emu::ballot(m, p, KAC_EMU_SITE) != 0)
#define __all_sync(m, p)           (emu::ballot(m, p, KAC_EMU_SITE) == (unsigned)(m))

#define __dadd_rz emu::dadd_rz

static inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
static inline int __ffs(int x)
{
    return __builtin_ffs(x);
}
static inline int __clz(int x)
{
    return x != 0 ? __builtin_clz((unsigned)x) : 32;
}
static inline void __threadfence()
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* Integers only: sums of floats would hang on the order. */
template <class T> T atomicAdd(T *p, T v)
{
    static_assert((T)0.5 == (T)0, "no atomics on floats");
    return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);
}
template <class T> T atomicCAS(T *p, T expected, T v)
{
    __atomic_compare_exchange_n(p, &expected, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return expected;
}
template <class T> T atomicExch(T *p, T v)
{
    return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);
}
template <class T> T atomicMin(T *p, T v)
{
    T old = __atomic_load_n(p, __ATOMIC_SEQ_CST);
    while (v < old && !__atomic_compare_exchange_n(p, &old, v, false, __ATOMIC_SEQ_CST,
                                                   __ATOMIC_SEQ_CST)) {
    }
    return old;
}
template <class T> T atomicMax(T *p, T v)
{
    T old = __atomic_load_n(p, __ATOMIC_SEQ_CST);
    while (v > old && !__atomic_compare_exchange_n(p, &old, v, false, __ATOMIC_SEQ_CST,
                                                   __ATOMIC_SEQ_CST)) {
    }
    return old;
}

/* ---- the part of the CUDA runtime that kac uses ---------------------------------------------- */

typedef enum cudaError {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidDevice = 101,
    cudaErrorNotReady = 600,
} cudaError_t;
typedef struct emu_stream *cudaStream_t;
typedef struct emu_event *cudaEvent_t;
typedef struct emu_graph *cudaGraph_t;
typedef struct emu_graph *cudaGraphExec_t;
typedef enum {
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice
} cudaMemcpyKind;
enum {
    cudaEventDisableTiming = 2,
    cudaStreamNonBlocking = 1,
    cudaStreamCaptureModeRelaxed = 2
};
struct cudaUUID_t {
    char bytes[16];
};
struct cudaDeviceProp {
    char name[256];
    cudaUUID_t uuid;
    int major, minor, multiProcessorCount;
    size_t totalGlobalMem;
};

const char *cudaGetErrorString(cudaError_t err);
cudaError_t cudaGetLastError();
cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *prop, int ordinal);
enum cudaDeviceAttr {
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrMaxSharedMemoryPerMultiprocessor = 81,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97
};
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attr, int ordinal);
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
template <class K> cudaError_t cudaFuncSetAttribute(K *kernel, cudaFuncAttribute, int bytes)
{
    if (bytes < 0 || bytes > emu::SHARED_BYTES) return cudaErrorInvalidValue;
    emu::allow_shared(reinterpret_cast<const void *>(kernel), (size_t)bytes);
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int ordinal);
cudaError_t cudaMalloc(void **ptr, size_t bytes);
cudaError_t cudaFree(void *ptr);
cudaError_t cudaMallocHost(void **ptr, size_t bytes);
cudaError_t cudaFreeHost(void *ptr);
cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaMemsetAsync(void *dst, int value, size_t bytes, cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, int mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph,
                                 unsigned long long f);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);

#endif /* KAC_EMU_H */
