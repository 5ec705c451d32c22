/* group.cuh -- what the four warps of a warpgroup do together on Hopper: tensor-core products
 * of tiles that lie in shared memory, copies that run by themselves, and gates that say when.
 * Only for code of sm_90a; the emulator has its own. */
#ifndef KAC_GROUP_CUH
#define KAC_GROUP_CUH

#include "primitives.cuh"

enum { KAC_GROUP = 128 }; /* threads */

/* Columns of a product, and its sums that a thread holds. */
enum { KAC_GROUP_COLS = 104, KAC_GROUP_SUMS = KAC_GROUP_COLS / 2 };

#ifdef __CUDACC__

static __device__ inline uint32_t kac_shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* ---- gates: a phase ends when so many arrivals and all announced bytes are there ------------ */

static __device__ inline void kac_gate_open(uint64_t *gate, uint32_t arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(kac_shared_address(gate)),
                 "r"(arrivals)
                 : "memory");
}
static __device__ inline void kac_gate_arrive(uint64_t *gate)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(kac_shared_address(gate))
                 : "memory");
}
/* Until the phase of this parity has ended; that of 1 "before the first" has. */
static __device__ inline void kac_gate_wait(uint64_t *gate, uint32_t parity)
{
    asm volatile("{\n.reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra again;\n}" ::"r"(kac_shared_address(gate)),
                 "r"(parity)
                 : "memory");
}
/* Starts a copy, whose bytes (a multiple of 16, both ends so aligned) and this arrival count. */
static __device__ inline void kac_gate_copy(uint64_t *gate, void *shared, const void *from,
                                            uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(
                     kac_shared_address(gate)),
                 "r"(bytes)
                 : "memory");
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1], %2, [%3];" ::"r"(kac_shared_address(shared)),
                 "l"(from), "r"(bytes), "r"(kac_shared_address(gate))
                 : "memory");
}

/* Before a barrier after which tensor cores read what threads have stored. */
static __device__ inline void kac_shared_publish()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* A barrier of the first `threads` threads of the block. */
static __device__ inline void kac_first_threads_sync(uint32_t threads)
{
    asm volatile("bar.sync 1, %0;" ::"r"(threads) : "memory");
}

/* ---- products ------------------------------------------------------------------------------- */

/* A tile of bf16 factors in shared memory: chunks of 8 entries along the sum, in a chunk row
 * after row.  So row r of chunk c is the 16 bytes from c chunk_rows + r such units on, and a
 * tile may begin at any row. */
struct kac_shared_tile {
    uint64_t
        bits; /* its place, and how far chunks and 8 rows lie apart, in units of 16 bytes */
};
static __device__ inline kac_shared_tile kac_tile_at(const uint16_t *at, uint32_t chunk_rows)
{
    return {(uint64_t)((kac_shared_address(at) & 0x3ffff) >> 4) | (uint64_t)chunk_rows << 16 |
            (uint64_t)8 << 32};
}
/* The one that begins so many rows further on, or back; a chunk has chunk_rows. */
static __device__ inline kac_shared_tile kac_tile_move(kac_shared_tile t, int32_t rows)
{
    return {t.bits + (uint64_t)(int64_t)rows};
}

/* Begins d += a b', a 64 rows and b KAC_GROUP_COLS rows of two chunks, sums in float32.  Warp w,
 * lane 4 g + t has of d rows 16 w + g and 8 more, columns 8 j + 2 t and one more as d[4 j],
 * d[4 j + 1] and d[4 j + 2], d[4 j + 3].  By all threads of a warpgroup, between begin and
 * commit; d is there after the wait. */
static __device__ inline void kac_group_mma(float *d, kac_shared_tile a, kac_shared_tile b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n104k16.f32.bf16.bf16 {"
                 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,"
                 "%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,"
                 "%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,"
                 "%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51"
                 "}, %52, %53, 1, 1, 1, 0, 0;"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]),
                   "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]),
                   "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]),
                   "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
                   "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]),
                   "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]),
                   "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]),
                   "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]),
                   "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51])
                 : "l"(a.bits), "l"(b.bits));
}
static __device__ inline void kac_group_begin()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
static __device__ inline void kac_group_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/* Until no more than LEFT of the latest commits are unfinished. */
template <int LEFT> static __device__ inline void kac_group_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}
/* Keeps the compiler from reading sums before the wait above. */
static __device__ inline void kac_group_keep(float *d)
{
    KAC_UNROLL
    for (int i = 0; i < KAC_GROUP_SUMS; i++)
        asm volatile("" : "+f"(d[i])::"memory");
}

/* About 1 / sqrt(x). */
static __device__ inline float kac_rsqrt(float x)
{
    return rsqrtf(x);
}

/* Bytes of shared memory that a launch of the kernel may ask for. */
template <class K> static kac_status kac_allow_shared(K *kernel, size_t bytes)
{
    return kac_cuda_status(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
        "shared memory");
}

#else

#define kac_gate_open(gate, arrivals) emu::gate_open(gate, arrivals)
#define kac_gate_arrive(gate)         emu::gate_arrive(gate)
#define kac_gate_wait(gate, parity)   emu::gate_wait(gate, parity, KAC_EMU_SITE)
#define kac_gate_copy(gate, shared, from, bytes)                                               \
    (memcpy(shared, from, bytes), emu::gate_arrive(gate))
#define kac_shared_publish()      ((void)0)
#define kac_first_threads_sync(n) emu::first_threads(n, KAC_EMU_SITE)
#define kac_group_begin()         ((void)0)
#define kac_group_commit()        ((void)0)
#define kac_group_keep(d)         ((void)(d))
#define kac_rsqrt(x)              (1.0f / sqrtf(x))
template <int LEFT> static inline void kac_group_wait()
{
    __syncwarp(); /* the warp goes on as one */
}
struct kac_shared_tile {
    const uint16_t *at;
    uint32_t chunk_rows;
};
static inline kac_shared_tile kac_tile_at(const uint16_t *at, uint32_t chunk_rows)
{
    return {at, chunk_rows};
}
static inline kac_shared_tile kac_tile_move(kac_shared_tile t, int32_t rows)
{
    return {t.at + (ptrdiff_t)rows * 8, t.chunk_rows};
}
static inline void kac_group_mma(float *d, kac_shared_tile a, kac_shared_tile b)
{
    emu::group_mma(d, a.at, a.chunk_rows * 8, b.at, b.chunk_rows * 8, KAC_GROUP_COLS);
}
template <class K> static kac_status kac_allow_shared(K *kernel, size_t bytes)
{
    (void)kernel;
    (void)bytes;
    return KAC_OK;
}

#endif

#endif /* KAC_GROUP_CUH */
