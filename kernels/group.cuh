/* group.cuh -- what the four warps of a warpgroup do together on Hopper: tensor-core products
 * with a factor that lies in shared memory.  Only for code of sm_90a; the emulator has its
 * own. */
#ifndef KAC_GROUP_CUH
#define KAC_GROUP_CUH

#include "primitives.cuh"

enum { KAC_GROUP = 128 }; /* threads */

/* Columns of a product. */
enum { KAC_GROUP_COLS = 104 };

#ifdef __CUDACC__

/* bf16 factors in shared memory: chunks of 8 entries along the sum, in a chunk row after row.
 * So row r of chunk c is the 16 bytes from chunk_rows c + r such units on, and a tile may begin
 * at any row. */
struct kac_shared_tile {
    uint64_t
        bits; /* its place, and how far chunks and 8 rows lie apart, in units of 16 bytes */
};
static __device__ inline kac_shared_tile kac_tile_at(const uint16_t *at, uint32_t chunk_rows)
{
    return {(uint64_t)(((uint32_t)__cvta_generic_to_shared(at) & 0x3ffff) >> 4) |
            (uint64_t)chunk_rows << 16 | (uint64_t)8 << 32};
}
/* The one that begins so many rows further on, or back; a chunk has chunk_rows. */
static __device__ inline kac_shared_tile kac_tile_move(kac_shared_tile t, int32_t rows)
{
    return {t.bits + (uint64_t)(int64_t)rows};
}

/* Before a barrier after which tensor cores read what threads have stored. */
static __device__ inline void kac_shared_publish()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* Begins d += a b', a 64 rows and b KAC_GROUP_COLS rows of two chunks, sums in float32.  Warp
 * w, lane 4 g + t has of d rows 16 w + g and 8 more, columns 8 j + 2 t and one more as d[4 j],
 * d[4 j + 1] and d[4 j + 2], d[4 j + 3]; of a those rows at entries 2 t and one more as x and
 * y, at 8 further on as z and w.  By all threads of a warpgroup, between begin and commit;
 * until the wait neither d nor a may be touched. */
static __device__ inline void kac_group_mma(float *d, uint4 a, kac_shared_tile b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n104k16.f32.bf16.bf16 {"
                 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,"
                 "%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,"
                 "%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,"
                 "%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,"
                 "%50,%51"
                 "}, {%52,%53,%54,%55}, %56, 1, 1, 1, 0;"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]),
                   "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]),
                   "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]),
                   "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
                   "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]),
                   "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]),
                   "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]),
                   "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]),
                   "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51])
                 : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "l"(b.bits));
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
template <int SUMS> static __device__ inline void kac_group_keep(float *d)
{
    KAC_UNROLL
    for (int i = 0; i < SUMS; i++)
        asm volatile("" : "+f"(d[i])::"memory");
}

/* Stores N tiles, 2 or 4, of 8 x 8 halves: lane 4 g + t has row g, columns 2 t and one more of
 * tile k as x[k], and lane 8 k + c says where column c of it goes: 16 bytes.  By a whole
 * warp. */
template <int N>
static __device__ inline void kac_store_columns(uint16_t *to, const uint32_t *x)
{
    static_assert(N == 2 || N == 4, "tiles");
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(to);
    if constexpr (N == 2)
        asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1,%2};" ::"r"(at),
                     "r"(x[0]), "r"(x[1])
                     : "memory");
    else
        asm volatile(
            "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(at),
            "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3])
            : "memory");
}

/* About 1 / sqrt(x). */
static __device__ inline float kac_rsqrt(float x)
{
    return rsqrtf(x);
}

/* x where that is above 0, else 0; NaN stays NaN, which fmaxf would lose. */
static __device__ inline float kac_relu(float x)
{
    float y;
    asm("max.NaN.f32 %0, %1, 0f00000000;" : "=f"(y) : "f"(x));
    return y;
}

#else

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
static inline void kac_group_mma(float *d, uint4 a, kac_shared_tile b)
{
    emu::group_mma(d, &a.x, b.at, (int)b.chunk_rows * 8, KAC_GROUP_COLS, KAC_EMU_SITE);
}
template <int N> static inline void kac_store_columns(uint16_t *to, const uint32_t *x)
{
    emu::store_columns(to, x, N, KAC_EMU_SITE);
}
template <int SUMS> static inline void kac_group_keep(float *d)
{
    (void)d;
}
template <int LEFT> static inline void kac_group_wait()
{
}
#define kac_shared_publish() ((void)0)
#define kac_group_begin()    ((void)0)
#define kac_group_commit()   ((void)0)
#define kac_rsqrt(x)         (1.0f / sqrtf(x))
static inline float kac_relu(float x)
{
    return x < 0 ? 0 : x;
}

#endif

#endif /* KAC_GROUP_CUH */
