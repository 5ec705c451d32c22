/* points.cuh -- points that choose candidates, brought into order, so that a candidate finds
 * how many are below the end of its share: the slots up to it.
 *
 * A point is a cell, of as many as there are offspring to draw, and the rest that orders the
 * points of a cell.  Every cell is as likely as any other whatever the weights are, so a cell
 * has about one point.  Points are written into buckets of neighbouring cells first, then a
 * block takes each bucket and brings its points into the order of their cells.  Neighbouring
 * candidates look into neighbouring cells, where nobody has to search.
 */
#ifndef KAC_POINTS_CUH
#define KAC_POINTS_CUH

#include "pool_cuda.cuh"

/* A bucket has 1024 cells, or in pools above 2^21 up to 8192, so that there are 2048 at most;
 * memory is in units of one with 1024.  There is room for an eighth more points than are
 * expected, four standard deviations and more; what is above that is spilled, few points if
 * any. */
enum {
    UNIT_BITS = 10,
    UNIT_CELLS = 1 << UNIT_BITS,
    UNIT_ROOM = UNIT_CELLS + UNIT_CELLS / 8,
    UNIT_SPILL = 64,
    MOST_UNITS = 8, /* of a bucket */
    MOST_CELLS = MOST_UNITS * UNIT_CELLS,
    MOST_ROOM = MOST_UNITS * UNIT_ROOM,
    MOST_BUCKETS = 2048,
    MOST_SMALL_DRAWS = MOST_BUCKETS * UNIT_CELLS, /* above, buckets are more than a unit */
    POINT_THREADS = 512,
    POINTS_EACH = 8,
    POINT_TILE = (int)POINTS_EACH * (int)POINT_THREADS /* draws that are written together */
};

struct point {
    uint64_t rest;
    int32_t cell;
};

/* Those of all pools, in device memory. */
struct point_memory {
    int32_t *filled; /* [units] points that wanted to go into each bucket, zero at first */
    int32_t *before; /* [units] points in the buckets before */
    point *spilled;  /* [units][UNIT_SPILL] */
    uint64_t *rest;  /* [units][UNIT_ROOM] */
    uint16_t *cell;  /* [units][UNIT_ROOM] the last 16 bits of its number */
    uint16_t *end;   /* [units][UNIT_CELLS] where the points of each cell end in the bucket */
};

/* Those of the pools before, or more: each may have one that is not full, and a last bucket
 * that is not. */
static __host__ __device__ inline int64_t point_units(int64_t slots, int64_t pools)
{
    return slots / UNIT_CELLS + pools + slots / MOST_SMALL_DRAWS * (MOST_UNITS - 1);
}

/* Lays it out in `bytes` from `at` on, of which those of `filled` come first; NULL: bytes
 * alone. */
static inline size_t point_layout(point_memory *m, size_t units, char *at)
{
    size_t bytes = 0;
    auto next = [&](size_t size) {
        char *here = at == NULL ? NULL : at + bytes;
        bytes += (units * size + 63) / 64 * 64;
        return here;
    };
    m->filled = (int32_t *)next(sizeof(int32_t));
    m->before = (int32_t *)next(sizeof(int32_t));
    m->spilled = (point *)next(UNIT_SPILL * sizeof(point));
    m->rest = (uint64_t *)next(UNIT_ROOM * sizeof(uint64_t));
    m->cell = (uint16_t *)next(UNIT_ROOM * sizeof(uint16_t));
    m->end = (uint16_t *)next(UNIT_CELLS * sizeof(uint16_t));
    return bytes;
}

/* Those of a pool. */
struct points {
    int32_t draws; /* as many cells; each draw gives a point, if any */
    int32_t bits;  /* 2^bits cells in a bucket */
    int32_t room;  /* of a bucket */
    int32_t most_spilled;
    uint64_t scale; /* multinomial and killing: of points below the sum to cells, times 2^64 */
    int32_t *n_spilled, *filled, *before;
    point *spilled;
    uint16_t *end;
    uint32_t place; /* of its first point among those of all pools */
    uint64_t *rest;
    uint16_t *cell;
};

static __device__ inline points points_of(const kac_pool *p, const point_memory *m,
                                          int32_t number, int32_t draws, int32_t *n_spilled)
{
    const int64_t unit = point_units(p->first_slot, number);
    points b;
    b.draws = draws;
    b.bits = UNIT_BITS;
    while (draws > MOST_BUCKETS << b.bits)
        b.bits++;
    b.room = UNIT_ROOM << (b.bits - UNIT_BITS);
    b.most_spilled = (draws + UNIT_CELLS - 1) / UNIT_CELLS * UNIT_SPILL;
    /* Rounded down, so that what is below the sum is in a cell. */
    b.scale = (uint64_t)(draws / (double)p->sum * (0x1p64 * (1 - 0x1p-50)));
    b.n_spilled = n_spilled;
    b.filled = m->filled + unit;
    b.before = m->before + unit;
    b.spilled = m->spilled + unit * UNIT_SPILL;
    b.end = m->end + unit * UNIT_CELLS;
    b.place = (uint32_t)unit * UNIT_ROOM;
    b.rest = m->rest;
    b.cell = m->cell;
    return b;
}

static __device__ inline int32_t point_buckets(const points *b)
{
    return (b->draws + (1 << b->bits) - 1) >> b->bits;
}

/* The place of its first. */
static __device__ inline uint32_t place_of(const points *b, int32_t bucket)
{
    return b->place + (uint32_t)(bucket * b->room);
}

/* How many points a bucket has in memory. */
static __device__ inline int32_t bucket_points(const points *b, int32_t bucket)
{
    return b->filled[bucket] < b->room ? b->filled[bucket] : b->room;
}

/* The cell of what is below the sum of the weights; of the sum the number of cells or the one
 * before. */
static __device__ inline int32_t cell_of(const points *b, uint64_t x)
{
    return (int32_t)kac_mulhi64(x, b->scale);
}

/* x[0 .. 4 ROWS POINT_THREADS - 1], in shared memory, become the sums of those before each.
 * PAIRS: of each the two halves are numbers.  Between barriers of the block; returns the sum of
 * all. */
template <int ROWS, bool PAIRS> static __device__ inline int32_t sums_before(uint32_t *x)
{
    const int lane = (int)threadIdx.x % KAC_WARP, warp = (int)threadIdx.x / KAC_WARP;
    uint4 *at = (uint4 *)x + warp * ROWS * KAC_WARP + lane;
    uint32_t own[ROWS][4];
    int32_t before[ROWS], all = 0, total;
    KAC_UNROLL
    for (int k = 0; k < ROWS; k++) {
        const uint4 four = at[k * KAC_WARP];
        int32_t sum = 0;
        own[k][0] = four.x, own[k][1] = four.y, own[k][2] = four.z, own[k][3] = four.w;
        KAC_UNROLL
        for (int i = 0; i < 4; i++)
            sum += (int32_t)(PAIRS ? (own[k][i] & 0xffff) + (own[k][i] >> 16) : own[k][i]);
        const int32_t upto = kac_warp_scan(sum);
        before[k] = all + upto - sum;
        all += __shfl_sync(KAC_WHOLE_WARP, upto, KAC_WARP - 1);
    }
    const int32_t warps = kac_warps_before(all, &total);
    KAC_UNROLL
    for (int k = 0; k < ROWS; k++) {
        uint32_t sum = (uint32_t)(warps + before[k]);
        KAC_UNROLL
        for (int i = 0; i < 4; i++) {
            const uint32_t one = PAIRS ? own[k][i] & 0xffff : own[k][i];
            const uint32_t two = PAIRS ? own[k][i] >> 16 : 0;
            own[k][i] = PAIRS ? sum | (sum + one) << 16 : sum;
            sum += one + two;
        }
        at[k * KAC_WARP] = {own[k][0], own[k][1], own[k][2], own[k][3]};
    }
    return total;
}

/* ---- drawing them ------------------------------------------------------------------------- */

/* Whether draw j chooses a candidate by a point.  In killing the candidate may stay instead, or
 * the retained one goes on there. */
static __device__ inline bool draw_point(const pool_stage *s, const points *b, int32_t j,
                                         int32_t retained, point *to, bool *stays)
{
    const kac_pool *p = &s->p;
    const kac_u32x4 words = kac_pool_draw(p, j);
    *stays = false;
    if (s->a->scheme == KAC_SCHEME_RESIDUAL) {
        *to = {kac_below(words, 1, p->sum),
               (int32_t)kac_below(words, 0, (uint64_t)(uint32_t)b->draws)};
        return true;
    }
    const bool kills = s->a->scheme == KAC_SCHEME_KILLING;
    to->rest = kac_mulhi64(kills ? kac_pair_of(words, 1) : kac_pair_of(words, 0), p->sum);
    to->cell = cell_of(b, to->rest);
    if (!kills) return j >= p->held;
    if (j == retained) return false;
    double x = p->l[j];
    kac_raw_weights<1>(&x, s->v.top);
    *stays = kac_survives(kac_weight_of_raw(x), kac_below(words, 0, KAC_WEIGHT_ONE));
    return !*stays;
}

/* Shared memory of scatter_points. */
struct __align__(16) scatter_memory
{
    uint64_t rest[POINT_TILE];
    int32_t cell[POINT_TILE];
    uint32_t first[MOST_BUCKETS]; /* points of the tile in each bucket, then in those before */
    uint32_t shift[MOST_BUCKETS]; /* from a point's place in the tile to that in memory */
};

/* Points of draws first .. first + POINT_TILE - 1 into buckets; in killing the candidates that
 * stay are set in bits, and counted.  Bound by Philox, and by writing runs of few points. */
static __device__ inline void scatter_points(const pool_stage *s, const points *b,
                                             int32_t first, scatter_memory *m, int32_t *stay,
                                             int32_t *tile_count)
{
    const int32_t me = (int32_t)threadIdx.x, retained = pool_retained(s);
    const bool kills = s->a->scheme == KAC_SCHEME_KILLING;
    point own[POINTS_EACH];
    int32_t nth[POINTS_EACH], staying = 0; /* of the bucket's in the tile; -1: no point */
    KAC_UNROLL
    for (int i = 0; i < MOST_BUCKETS; i += POINT_THREADS)
        m->first[i + me] = 0;
    __syncthreads();
    KAC_UNROLL
    for (int k = 0; k < POINTS_EACH; k++) {
        const int32_t j = first + k * POINT_THREADS + me;
        bool stays = false;
        own[k] = {0, 0};
        nth[k] = -1;
        if (j < b->draws && draw_point(s, b, j, retained, &own[k], &stays))
            nth[k] = (int32_t)atomicAdd(&m->first[own[k].cell >> b->bits], 1u);
        if (!kills) continue;
        const unsigned bits = __ballot_sync(KAC_WHOLE_WARP, stays);
        if (me % KAC_WARP == 0 && j < b->draws) stay[j / KAC_WARP] = (int32_t)bits;
        staying += stays;
    }
    __syncthreads();
    int32_t wanted[MOST_BUCKETS / POINT_THREADS];
    KAC_UNROLL
    for (int i = 0; i < MOST_BUCKETS / POINT_THREADS; i++)
        wanted[i] = (int32_t)m->first[i * POINT_THREADS + me];
    const int32_t n = sums_before<MOST_BUCKETS / (4 * POINT_THREADS), false>(m->first);
    KAC_UNROLL
    for (int i = 0; i < MOST_BUCKETS / POINT_THREADS; i++) {
        const int32_t bucket = i * POINT_THREADS + me;
        if (wanted[i] > 0) wanted[i] = atomicAdd(&b->filled[bucket], wanted[i]);
    }
    __syncthreads();
    KAC_UNROLL
    for (int i = 0; i < MOST_BUCKETS / POINT_THREADS; i++) {
        const int32_t bucket = i * POINT_THREADS + me;
        m->shift[bucket] = place_of(b, bucket) + (uint32_t)wanted[i] - m->first[bucket];
    }
    KAC_UNROLL
    for (int k = 0; k < POINTS_EACH; k++) {
        if (nth[k] < 0) continue;
        const int32_t at = (int32_t)m->first[own[k].cell >> b->bits] + nth[k];
        m->rest[at] = own[k].rest;
        m->cell[at] = own[k].cell;
    }
    if (kills) {
        staying = kac_block_sum(staying);
        if (me == 0) *tile_count = staying;
    }
    __syncthreads();
    KAC_UNROLL
    for (int k = 0; k < POINTS_EACH; k++) {
        const int32_t i = k * POINT_THREADS + me;
        if (i >= n) break;
        const point it = {m->rest[i], m->cell[i]};
        const int32_t bucket = it.cell >> b->bits;
        const uint32_t to = m->shift[bucket] + (uint32_t)i;
        if (to < place_of(b, bucket + 1)) {
            b->rest[to] = it.rest;
            b->cell[to] = (uint16_t)it.cell;
            continue;
        }
        /* That there are more than most_spilled has a probability below 10^-29. */
        const int32_t nth_spilled = atomicAdd(b->n_spilled, 1);
        if (nth_spilled < b->most_spilled) b->spilled[nth_spilled] = it;
    }
    __syncthreads(); /* the memory is another tile's next */
}

/* Shared memory of order_points: less than the 99 KB that any GPU gives a block. */
struct __align__(16) order_memory
{
    uint64_t rest[MOST_ROOM];
    uint32_t next[MOST_CELLS / 2]; /* 16 bits each: the points of a cell, then where the next of
                                      them goes */
};

/* Adds a point to a cell; what there was before. */
static __device__ inline int32_t count_point(order_memory *m, uint32_t cell)
{
    return (int32_t)(atomicAdd(&m->next[cell / 2], 1u << cell % 2 * 16) >> cell % 2 * 16 &
                     0xffff);
}

/* The points of a bucket into the order of their cells.  Bound by memory. */
static __device__ inline void order_points(const points *b, int32_t bucket, order_memory *m)
{
    const int32_t me = (int32_t)threadIdx.x, n = bucket_points(b, bucket);
    uint64_t *rest = b->rest + place_of(b, bucket);
    const uint16_t *cell = b->cell + place_of(b, bucket);
    const uint32_t mask = (1u << b->bits) - 1;
    int32_t before = 0;
    KAC_UNROLL
    for (int i = 0; i < MOST_CELLS / 2; i += POINT_THREADS)
        m->next[i + me] = 0;
    for (int32_t i = me; i < bucket; i += POINT_THREADS)
        before += bucket_points(b, i);
    before = kac_block_sum(before); /* after its barriers all are zero */
    if (me == 0) b->before[bucket] = before;
    for (int32_t i = 8 * me; i < n; i += 8 * POINT_THREADS) { /* eight cells in 16 bytes */
        const uint4 read = *(const uint4 *)(cell + i);
        const uint32_t pair[4] = {read.x, read.y, read.z, read.w};
        KAC_UNROLL
        for (int k = 0; k < 8; k++)
            if (i + k < n) (void)count_point(m, pair[k / 2] >> k % 2 * 16 & mask);
    }
    __syncthreads();
    (void)sums_before<MOST_CELLS / (8 * POINT_THREADS), true>(m->next);
    __syncthreads();
    for (int32_t i = me; i < n; i += POINT_THREADS)
        m->rest[count_point(m, cell[i] & mask)] = rest[i];
    __syncthreads();
    for (int32_t i = me; i < n; i += POINT_THREADS)
        rest[i] = m->rest[i];
    uint32_t *end = (uint32_t *)(b->end + (bucket << b->bits));
    for (int32_t i = me; i < 1 << b->bits >> 1; i += POINT_THREADS)
        end[i] = m->next[i];
    __syncthreads(); /* the memory is another bucket's next */
}

/* ---- asking for them ---------------------------------------------------------------------- */

/* below[k] = how many points are below to[k], for N of a thread at once: what is read first is
 * under way for all of them.  A cell may be one after the last. */
template <int N>
static __device__ inline void points_below(const points *b, const point *to, int32_t *below)
{
    uint32_t from[N];
    int32_t n[N], most = 0;
    KAC_UNROLL
    for (int k = 0; k < N; k++) {
        const bool ends = to[k].cell >= b->draws; /* all are below */
        const int32_t cell = ends ? b->draws - 1 : to[k].cell, bucket = cell >> b->bits;
        const int32_t end = b->end[cell];
        int32_t first = ends ? end : 0;
        if (!ends && (cell & ((1 << b->bits) - 1)) > 0) first = b->end[cell - 1];
        below[k] = b->before[bucket] + first;
        from[k] = place_of(b, bucket) + (uint32_t)first;
        n[k] = end - first;
        if (n[k] > most) most = n[k];
    }
    KAC_ROLLED
    for (int32_t i = 0; i < most; i++) {
        KAC_UNROLL
        for (int k = 0; k < N; k++)
            if (i < n[k]) below[k] += b->rest[from[k] + (uint32_t)i] < to[k].rest;
    }
    const int32_t spilled = *b->n_spilled < b->most_spilled ? *b->n_spilled : b->most_spilled;
    KAC_ROLLED
    for (int32_t i = 0; i < spilled; i++) {
        const point it = b->spilled[i];
        KAC_UNROLL
        for (int k = 0; k < N; k++)
            below[k] += it.cell < to[k].cell || (it.cell == to[k].cell && it.rest < to[k].rest);
    }
}

#endif /* KAC_POINTS_CUH */
