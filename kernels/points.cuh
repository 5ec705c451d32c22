/* points.cuh -- points that choose candidates, brought into order, so that a candidate finds how many
 * are below the end of its share: the slots up to it.
 *
 * A point is a cell, of as many as there are offspring to draw, and the rest that orders the points
 * of a cell.  Every cell is as likely as any other whatever the weights are, so a cell has about one
 * point.  Points are written into buckets of neighbouring cells first, then a block takes each bucket
 * and brings its points into the order of their cells.  Neighbouring candidates look into neighbouring
 * cells, where nobody has to search.
 */
#ifndef KAC_POINTS_CUH
#define KAC_POINTS_CUH

#include "pool_cuda.cuh"

/* A bucket has 1024 cells, or in pools above 2^21 up to 8192, so that there are 2048 at most; memory
 * is in units of one with 1024.  There is room for an eighth more points than are expected, four
 * standard deviations and more; what is above that is spilled, few points if any. */
enum {
    UNIT_CELLS = 1024,
    UNIT_ROOM = UNIT_CELLS + UNIT_CELLS / 8,
    UNIT_SPILL = 64,
    MOST_UNITS = 8, /* of a bucket */
    MOST_CELLS = MOST_UNITS * UNIT_CELLS,
    MOST_ROOM = MOST_UNITS * UNIT_ROOM,
    MOST_BUCKETS = 2048,
    POINT_THREADS = 512,
    POINT_TILE = 4096, /* draws that a block brings into order before they are written */
    POINTS_EACH = (int)POINT_TILE / (int)POINT_THREADS
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
    uint16_t *cell;  /* [units][UNIT_ROOM] its number in the bucket */
    uint16_t *end;   /* [units][UNIT_CELLS] where the points of each cell end in the bucket */
};

static inline size_t point_units(int64_t slots, int64_t pools)
{
    return (size_t)(slots / UNIT_CELLS + pools + 1);
}

/* Lays it out in `bytes` from `at` on, of which those of `filled` come first; NULL: bytes alone. */
static inline size_t point_layout(point_memory *m, size_t units, char *at)
{
    size_t bytes = 0;
    auto next = [&](size_t size) {
        char *here = at + bytes;
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
    int32_t draws, cells; /* of each draw a point, if any; cells 0 .. cells - 1 */
    int32_t bits;         /* 2^bits cells in a bucket */
    int32_t room, most_spilled;
    uint64_t scale; /* multinomial and killing: of points below the sum to cells, times 2^64 */
    int32_t *filled, *before, *n_spilled;
    point *spilled;
    uint64_t *rest;
    uint16_t *cell, *end;
};

/* The multinomial scheme and killing draw all offspring of the pool, residual what is `left`. */
static __device__ inline points points_of(const pool_stage *s, const point_memory *m,
                                          int32_t number, int32_t left, int32_t *n_spilled)
{
    const int64_t unit = s->p.first_slot / UNIT_CELLS + number;
    points b;
    b.draws = b.cells = left;
    b.bits = 10;
    while ((left - 1) >> b.bits >= MOST_BUCKETS)
        b.bits++;
    const int32_t units = (left + UNIT_CELLS - 1) / UNIT_CELLS;
    b.room = units * UNIT_ROOM;
    b.most_spilled = units * UNIT_SPILL;
    /* Rounded down, so that what is below the sum is in a cell. */
    b.scale = (uint64_t)(left / (double)s->p.sum * (0x1p64 * (1 - 0x1p-50)));
    b.filled = m->filled + unit;
    b.before = m->before + unit;
    b.n_spilled = n_spilled;
    b.spilled = m->spilled + unit * UNIT_SPILL;
    b.rest = m->rest + unit * UNIT_ROOM;
    b.cell = m->cell + unit * UNIT_ROOM;
    b.end = m->end + unit * UNIT_CELLS;
    return b;
}

static __device__ inline int32_t point_buckets(const points *b)
{
    return (b->cells + (1 << b->bits) - 1) >> b->bits;
}

/* Where a bucket's points begin in memory. */
static __device__ inline int32_t bucket_place(const points *b, int32_t bucket)
{
    return (bucket << (b->bits - 10)) * UNIT_ROOM;
}

/* How many it has in memory. */
static __device__ inline int32_t bucket_points(const points *b, int32_t bucket)
{
    const int32_t next = bucket_place(b, bucket + 1), end = next < b->room ? next : b->room;
    const int32_t room = end - bucket_place(b, bucket);
    return b->filled[bucket] < room ? b->filled[bucket] : room;
}

/* The cell of what is below the sum of the weights, and `cells` or the one before of the sum. */
static __device__ inline int32_t cell_of(const points *b, uint64_t x)
{
    return (int32_t)kac_mulhi64(x, b->scale);
}

/* ---- drawing them ------------------------------------------------------------------------- */

/* Whether draw j chooses a candidate by a point.  In killing the candidate may stay instead, or the
 * retained one goes on there. */
static __device__ inline bool draw_point(const pool_stage *s, const points *b, int32_t j,
                                         int32_t retained, point *to, bool *stays)
{
    const kac_pool *p = &s->p;
    const kac_u32x4 words = kac_pool_draw(p, j);
    *stays = false;
    if (s->a->scheme == KAC_SCHEME_RESIDUAL) {
        *to = {kac_below(words, 1, p->sum),
               (int32_t)kac_below(words, 0, (uint64_t)(uint32_t)b->cells)};
        return true;
    }
    const bool kills = s->a->scheme == KAC_SCHEME_KILLING;
    to->rest = kac_below(words, kills, p->sum);
    to->cell = cell_of(b, to->rest);
    if (!kills) return j >= p->held;
    if (j == retained) return false;
    *stays = kac_survives(kac_weight(p->l[j], s->v.top), kac_below(words, 0, KAC_WEIGHT_ONE));
    return !*stays;
}

/* Shared memory of scatter_points. */
struct scatter_memory {
    uint64_t rest[POINT_TILE];
    int32_t cell[POINT_TILE];
    int32_t first[MOST_BUCKETS]; /* points of the tile in each bucket, then in those before */
    int32_t shift[MOST_BUCKETS]; /* from a point's place in the tile to that in its bucket */
};

/* Points of draws first .. first + POINT_TILE - 1 into buckets; killing: the candidates that stay
 * into bits, and how many.  Bound by Philox, and by writing runs of few points. */
static __device__ inline void scatter_points(const pool_stage *s, const points *b,
                                             int32_t first, scatter_memory *m, int32_t *stay,
                                             int32_t *tile_count)
{
    const int32_t me = (int32_t)threadIdx.x, buckets = point_buckets(b),
                  retained = pool_retained(s);
    const bool kills = s->a->scheme == KAC_SCHEME_KILLING;
    point own[POINTS_EACH];
    int32_t nth[POINTS_EACH], staying = 0; /* of the bucket's in the tile; -1: no point */
    for (int32_t i = me; i < buckets; i += POINT_THREADS)
        m->first[i] = 0;
    __syncthreads();
    KAC_UNROLL
    for (int k = 0; k < POINTS_EACH; k++) {
        const int32_t j = first + k * POINT_THREADS + me;
        bool stays = false;
        nth[k] = -1;
        if (j < b->draws && draw_point(s, b, j, retained, &own[k], &stays))
            nth[k] = atomicAdd(&m->first[own[k].cell >> b->bits], 1);
        if (!kills) continue;
        const unsigned bits = __ballot_sync(KAC_WHOLE_WARP, stays);
        if (me % KAC_WARP == 0 && j < b->draws) stay[j / KAC_WARP] = (int32_t)bits;
        staying += stays;
    }
    __syncthreads();
    const int32_t n = kac_block_run(
        0, buckets, 0, [=](int32_t i) { return m->first[i]; },
        [=](int32_t i, int32_t upto, int32_t points) {
            m->first[i] = upto - points;
            if (points > 0) m->shift[i] = atomicAdd(&b->filled[i], points) - (upto - points);
        });
    __syncthreads();
    KAC_UNROLL
    for (int k = 0; k < POINTS_EACH; k++) {
        if (nth[k] < 0) continue;
        const int32_t at = m->first[own[k].cell >> b->bits] + nth[k];
        m->rest[at] = own[k].rest;
        m->cell[at] = own[k].cell;
    }
    if (kills) {
        staying = kac_block_sum(staying);
        if (me == 0) *tile_count = staying;
    }
    __syncthreads();
    for (int32_t i = me; i < n; i += POINT_THREADS) {
        const point it = {m->rest[i], m->cell[i]};
        const int32_t bucket = it.cell >> b->bits, to = m->shift[bucket] + i,
                      place = bucket_place(b, bucket), next = bucket_place(b, bucket + 1);
        if (to < (next < b->room ? next : b->room) - place) {
            b->rest[place + to] = it.rest;
            b->cell[place + to] = (uint16_t)(it.cell & ((1 << b->bits) - 1));
            continue;
        }
        /* That so many are spilled has a probability below 10^-40. */
        const int32_t nth_spilled = atomicAdd(b->n_spilled, 1);
        if (nth_spilled < b->most_spilled) b->spilled[nth_spilled] = it;
    }
    __syncthreads(); /* the memory is another tile's next */
}

/* Shared memory of order_points. */
struct order_memory {
    uint64_t rest[MOST_ROOM];
    int32_t next[MOST_CELLS]; /* points of each cell, then where the next of them goes */
};

/* The points of a bucket into the order of their cells. */
static __device__ inline void order_points(const points *b, int32_t bucket, order_memory *m)
{
    const int32_t me = (int32_t)threadIdx.x, place = bucket_place(b, bucket),
                  first = bucket << b->bits, n = bucket_points(b, bucket);
    const int32_t cells = b->cells - first < 1 << b->bits ? b->cells - first : 1 << b->bits;
    uint64_t *rest = b->rest + place;
    const uint16_t *cell = b->cell + place;
    int32_t before = 0;
    for (int32_t i = me; i < bucket; i += POINT_THREADS)
        before += bucket_points(b, i);
    before = kac_block_sum(before);
    if (me == 0) b->before[bucket] = before;
    for (int32_t i = me; i < cells; i += POINT_THREADS)
        m->next[i] = 0;
    __syncthreads();
    for (int32_t i = me; i < n; i += POINT_THREADS)
        atomicAdd(&m->next[cell[i]], 1);
    __syncthreads();
    (void)kac_block_run(
        0, cells, 0, [=](int32_t i) { return m->next[i]; },
        [=](int32_t i, int32_t upto, int32_t points) {
            m->next[i] = upto - points;
            b->end[first + i] = (uint16_t)upto;
        });
    __syncthreads();
    for (int32_t i = me; i < n; i += POINT_THREADS)
        m->rest[atomicAdd(&m->next[cell[i]], 1)] = rest[i];
    __syncthreads();
    for (int32_t i = me; i < n; i += POINT_THREADS)
        rest[i] = m->rest[i];
    __syncthreads();
}

/* ---- asking for them ---------------------------------------------------------------------- */

/* How many points are below one, of which the cell may be `cells`. */
static __device__ inline int32_t points_below(const points *b, int32_t cell, uint64_t rest)
{
    if (b->cells == 0) return 0;
    const bool is_end = cell >= b->cells;
    const int32_t in = is_end ? b->cells - 1 : cell, bucket = in >> b->bits;
    const int32_t end = b->end[in];
    const bool first = (in & ((1 << b->bits) - 1)) == 0;
    int32_t i = first ? 0 : b->end[in - 1];
    int32_t below = b->before[bucket] + i;
    const uint64_t *in_order = b->rest + bucket_place(b, bucket);
    for (; i < end; i++)
        below += is_end || in_order[i] < rest;
    const int32_t spilled = *b->n_spilled < b->most_spilled ? *b->n_spilled : b->most_spilled;
    for (i = 0; i < spilled; i++) {
        const point it = b->spilled[i];
        below += it.cell < cell || (it.cell == cell && it.rest < rest);
    }
    return below;
}

#endif /* KAC_POINTS_CUH */
