/* select_large_cuda.cu -- the group stage of selection within large pools: a launch for each phase, a
 * block for each tile of candidates or offspring.
 */
#include "pool_cuda.cuh"

enum { TILE = 4096 };

/* What the tiles of a pool find out together: largest numbers and sums, from 0 on. */
struct pool_state {
    unsigned long long unit; /* rising() of the largest |value| */
    unsigned long long top;  /* and of the largest log-weight */
    unsigned long long sum, coarse, low, high;
    unsigned long long best; /* 2^31 - 1 - the first candidate with that */
};

struct tiles_call {
    select_call of;
    pool_state *state; /* [pools] */
    unsigned long long
        *tile_sum;       /* [tiles of all pools] of weights; in a tournament residues */
    int32_t *tile_count; /* and of offspring */
    int32_t *filled;     /* points in each bucket of all pools, zero at first */
    uint64_t *point;     /* of all buckets */
};

/* Bits that are in the order of the numbers, and back; above 0 for every number. */
static __device__ unsigned long long rising(double x)
{
    uint64_t bits = kac_bits64(x);
    return bits >> 63 ? ~bits : bits | UINT64_C(1) << 63;
}

static __device__ double from_rising(unsigned long long bits)
{
    return kac_from_bits64(bits >> 63 ? bits & ~(UINT64_C(1) << 63) : ~bits);
}

/* In order; a phase after SUMS knows what was decided. */
enum phase {
    UNIT,
    TOP,
    SUMS,
    WEIGHTS,     /* pool_run_weights */
    SYSTEMATIC,  /* spread_systematic */
    COUNT_TILES, /* offspring of each tile */
    COUNTS,      /* pool_run_counts */
    SLOTS,       /* spread_counts */
    DRAW,
    SCATTER,    /* points into buckets */
    SEARCH,     /* for the points of a bucket */
    PLAY,       /* within tiles */
    PLAY_TILES, /* between them, a block for each pool */
    SORT,       /* tiles */
    EXCHANGE,   /* a step between tiles */
    MIRROR,     /* the first of a stage */
    MERGE,      /* the steps of a stage within tiles */
    BEST_TILES, /* weights of the best in each tile of them */
    BEST,       /* pool_run_best */
    EMIT
};

/* The tile's share of TOP and SUMS. */
static __device__ void find_sums(const pool_stage *s, pool_part on, pool_state *state,
                                 unsigned long long *tile_sum)
{
    pool_sums sums = pool_sum_weights(s, on);
    if (threadIdx.x > 0) return;
    *tile_sum = sums.sum;
    atomicAdd(&state->sum, (unsigned long long)sums.sum);
    atomicAdd(&state->coarse, (unsigned long long)sums.coarse);
    atomicAdd(&state->low, (unsigned long long)sums.low);
    atomicAdd(&state->high, (unsigned long long)sums.high);
    atomicMax(&state->best, (unsigned long long)(INT32_MAX - sums.best));
}

static __device__ void find_largest(const pool_stage *s, pool_part on, pool_state *state,
                                    phase what)
{
    double unit = 0, found;
    if (s->a->weights == KAC_WEIGHTS_VALUE) unit = s->p.alpha;
    if (s->a->weights == KAC_WEIGHTS_SCALED && what == TOP) unit = from_rising(state->unit);
    found = what == UNIT ? pool_find_unit(s, on) : pool_find_top(s, on, unit);
    if (threadIdx.x == 0) atomicMax(what == UNIT ? &state->unit : &state->top, rising(found));
}

/* The sum of load(i) over the part. */
template <class T, class Load>
static __device__ void sum_part(pool_part on, int32_t n, T *sum, Load load)
{
    T own = 0;
    EACH_OF (i, on, n)
        own += load(i);
    own = kac_block_sum(own);
    if (threadIdx.x == 0) *sum = own;
}

static __device__ void sum_best(const pool_stage *s, pool_part on, unsigned long long *sum)
{
    const double *l = s->p.l, top = s->v.top;
    const int32_t *order = s->count;
    sum_part(on, kac_pool_stay(&s->p, s->a->fraction), sum,
             [=](int32_t i) { return (unsigned long long)kac_weight(l[order[i]], top); });
}

/* ---- slots ------------------------------------------------------------------------------- */

/* A candidate's row and its slots first .. end - 1. */
struct share_of_slots {
    int32_t row, first, end;
    double log_w;
};

static __device__ void put(const pool_stage *s, const share_of_slots *c, int32_t j)
{
    s->a->log_w[s->p.first_slot + j] = c->log_w;
    s->p.chosen[j] = c->row;
}

/* By threads `me`, me + step, ... */
static __device__ void take(const pool_stage *s, const share_of_slots *c, int32_t me,
                            int32_t step)
{
    for (int32_t j = c->first + me; j < c->end; j += step)
        put(s, c, j);
}

/* The slots of the candidates of a part: few by their thread, more by its warp, very many by the
 * block.  Slots end at slots(c), c the running sum of load from `before` on. */
template <class T, class Load, class Slots>
static __device__ void spread(const pool_stage *s, pool_part on, T before, Load load,
                              Slots slots)
{
    enum { FEW = 4, MANY = 128, LIST = 16 };
    const kac_pool *p = &s->p;
    const int32_t end = pool_end(on, p->candidates), lane = (int32_t)threadIdx.x % KAC_WARP;
    KAC_SHARED(int32_t, listed, 1);
    KAC_SHARED(share_of_slots, list, LIST);
    if (threadIdx.x == 0) *listed = 0; /* a sweep begins with a barrier */
    auto give = [&](int64_t i, const T *upto, const T *term) {
        share_of_slots own[KAC_ROWS];
        int32_t last = slots(__shfl_sync(KAC_WHOLE_WARP, upto[0] - term[0], 0));
        KAC_UNROLL
        for (int k = 0; k < KAC_ROWS; k++) {
            const int64_t at = i + k * KAC_WARP;
            own[k] = {at < end ? p->row[at] : 0, 0, slots(upto[k]),
                      p->held && at < end ? kac_pool_log_w(p->l[at], true)
                                          : 0}; /* others have weight */
        }
        KAC_UNROLL
        for (int k = 0; k < KAC_ROWS; k++) {
            const int32_t left = __shfl_up_sync(KAC_WHOLE_WARP, own[k].end, 1);
            own[k].first = lane > 0 ? left : last;
            last = __shfl_sync(KAC_WHOLE_WARP, own[k].end, KAC_WARP - 1);
        }
        KAC_UNROLL
        for (int k = 0; k < KAC_ROWS; k++) {
            const int32_t count = own[k].end - own[k].first;
            bool more = count > FEW;
            KAC_UNROLL
            for (int j = 0; j < FEW; j++)
                if (!more && j < count) put(s, &own[k], own[k].first + j);
            if (count > MANY) {
                const int32_t to = atomicAdd(listed, 1);
                if (to < LIST) list[to] = own[k];
                more = to >= LIST;
            }
            unsigned lanes = __ballot_sync(KAC_WHOLE_WARP, more);
            for (; lanes != 0; lanes &= lanes - 1) {
                const int from = __ffs((int)lanes) - 1;
                const share_of_slots theirs = {__shfl_sync(KAC_WHOLE_WARP, own[k].row, from),
                                               __shfl_sync(KAC_WHOLE_WARP, own[k].first, from),
                                               __shfl_sync(KAC_WHOLE_WARP, own[k].end, from),
                                               __shfl_sync(KAC_WHOLE_WARP, own[k].log_w, from)};
                take(s, &theirs, lane, KAC_WARP);
            }
        }
    };
    (void)kac_block_sweep(on.first, end, before, load, give);
    __syncthreads();
    for (int32_t k = 0; k < *listed && k < LIST; k++)
        take(s, &list[k], (int32_t)threadIdx.x, (int32_t)blockDim.x);
    __syncthreads();
}

/* Offspring of each candidate are counted; those before the part are `before`. */
static __device__ void spread_counts(const pool_stage *s, pool_part on, int32_t before)
{
    const int32_t *count = s->count;
    spread(
        s, on, before, [=](int32_t i) { return count[i]; }, [](int32_t upto) { return upto; });
}

/* Systematic, where the weights before the part are `before`. */
static __device__ void spread_systematic(const pool_stage *s, pool_part on, uint64_t before)
{
    const double *l = s->p.l, top = s->v.top;
    const kac_divisor by = pool_systematic(&s->p);
    spread(
        s, on, before, [=](int32_t i) { return kac_weight(l[i], top); },
        [=](uint64_t upto) { return kac_divide(&by, upto).whole; });
}

/* ---- points in buckets: multinomial and killing ---------------------------------------------
 *
 * Points are searched for in memory that neighbours have read: first they are written into
 * buckets by the first bits of their words, which are uniform whatever the weights are.  So a
 * bucket gets its share of them but for some of its standard deviations, and the few that do not
 * fit are searched for at once.
 */

enum {
    MOST_BUCKETS = 8192,
    FULL = 1024,
    SPARE = FULL / 16,
    EACH = (int)TILE / (int)KAC_THREADS
};

/* Those of a pool. */
struct buckets {
    int32_t bits, room; /* 2^bits of them, and the points that fit into each */
    int32_t *filled;
    uint64_t *point; /* [2^bits][room] */
};

/* Buckets of FULL points or somewhat more, in memory of 17/16 as many as all pools have slots. */
static __device__ buckets buckets_of(const kac_pool *p, const tiles_call *call, int32_t number)
{
    buckets b = {0, p->n, call->filled + p->first_slot / FULL + number,
                 call->point + p->first_slot + p->first_slot / 16};
    while (b.bits < 31 && 1 << b.bits < MOST_BUCKETS && p->n >> b.bits >= 2 * FULL)
        b.bits++;
    if (b.bits > 0) b.room = (p->n >> b.bits) + SPARE;
    return b;
}

static __device__ int32_t bucket_of(const buckets *b, uint64_t word)
{
    return (int32_t)(word >> 1 >> (63 - b->bits));
}

/* The least word of a bucket. */
static __device__ uint64_t word_of(const buckets *b, int32_t bucket)
{
    return (uint64_t)bucket << (63 - b->bits) << 1;
}

/* Bound by writing 8 bytes at a time, and by Philox. */
static __device__ void scatter(const pool_stage *s, pool_part on, const buckets *b)
{
    KAC_SHARED(int32_t, place, MOST_BUCKETS); /* how many, then where the first of them goes */
    const int32_t end = pool_end(on, s->p.n), me = (int32_t)threadIdx.x,
                  retained = pool_retained(s);
    uint64_t word[EACH];
    int32_t nth[EACH]; /* of the bucket's, -1: no point */
    for (int32_t i = me; i < 1 << b->bits; i += KAC_THREADS)
        place[i] = 0;
    __syncthreads();
    KAC_UNROLL
    for (int k = 0; k < EACH; k++) {
        const int32_t j = on.first + k * KAC_THREADS + me;
        nth[k] = -1;
        if (j < end && pool_has_point(s, j, retained, &word[k]))
            nth[k] = atomicAdd(&place[bucket_of(b, word[k])], 1);
    }
    __syncthreads();
    for (int32_t i = me; i < 1 << b->bits; i += KAC_THREADS)
        if (place[i] > 0) place[i] = atomicAdd(&b->filled[i], place[i]);
    __syncthreads();
    KAC_UNROLL
    for (int k = 0; k < EACH; k++) {
        if (nth[k] < 0) continue;
        const int32_t bucket = bucket_of(b, word[k]), at = place[bucket] + nth[k];
        const uint64_t point = kac_mulhi64(word[k], s->p.sum);
        if (at < b->room)
            b->point[(int64_t)bucket * b->room + at] = point;
        else
            pool_give(s, point);
    }
    __syncthreads();
}

/* kac_first_above by a warp. */
static __device__ int32_t warp_first_above(const uint64_t *c, int32_t n, uint64_t u)
{
    const int32_t lane = (int32_t)threadIdx.x % KAC_WARP;
    int32_t low = 0;
    while (n > 1) {
        const int32_t step = (n + KAC_WARP - 1) / KAC_WARP, last = (lane + 1) * step - 1;
        const unsigned above =
            __ballot_sync(KAC_WHOLE_WARP, last >= n - 1 || c[low + last] > u);
        const int32_t skipped = (__ffs((int)above) - 1) * step;
        low += skipped;
        n = n - skipped < step ? n - skipped : step;
    }
    return low;
}

/* Bound by shared memory: 11 steps of a search for each point among neighbouring sums. */
static __device__ void search(const pool_stage *s, const buckets *b, int32_t bucket)
{
    enum { STAGED = 3072 };
    const kac_pool *p = &s->p;
    const int32_t me = (int32_t)threadIdx.x, warp = me / KAC_WARP;
    KAC_SHARED(uint64_t, sums, STAGED);
    KAC_SHARED(int32_t, count, STAGED);
    KAC_SHARED(int32_t, ends, 2);
    if (warp < 2) { /* the first and last candidates that a point may choose */
        const uint64_t u = kac_mulhi64(word_of(b, bucket + warp) - (unsigned)warp, p->sum);
        const int32_t found = warp_first_above(p->w, p->candidates, u);
        if (me % KAC_WARP == 0) ends[warp] = found;
    }
    __syncthreads();
    const int32_t low = ends[0], n = ends[1] - low + 1;
    const bool staged = n <= STAGED;
    for (int32_t i = me; staged && i < n; i += KAC_THREADS) {
        sums[i] = p->w[low + i];
        count[i] = 0;
    }
    __syncthreads();
    const int32_t points = b->filled[bucket] < b->room ? b->filled[bucket] : b->room;
    for (int32_t j = me; j < points; j += KAC_THREADS) {
        const uint64_t u = b->point[(int64_t)bucket * b->room + j];
        if (staged)
            atomicAdd(&count[kac_first_above(sums, n, u)], 1);
        else
            atomicAdd(&s->count[low + kac_first_above(p->w + low, n, u)], 1);
    }
    __syncthreads();
    for (int32_t i = me; staged && i < n; i += KAC_THREADS)
        if (count[i] > 0) atomicAdd(&s->count[low + i], count[i]);
    __syncthreads();
}

/* ---- the tournament of tiles -------------------------------------------------------------- */

/* Where element t of an array lies so that elements a power of two apart differ in their bank. */
static __device__ int32_t apart(int32_t t)
{
    return t + t / 16;
}

/* That of a tile, all of it in shared memory: writes the offspring of each candidate and of the
 * tile, and its champion with what is left of it.  Bound by Philox and the exponential. */
static __device__ void play_tile(const pool_stage *s, pool_part on, unsigned long long *left,
                                 int32_t *tile_count)
{
    KAC_SHARED(uint64_t, residue, TILE + TILE / 16);
    KAC_SHARED(uint16_t, champion, TILE + TILE / 16);
    KAC_SHARED(uint8_t, gets, TILE);
    const kac_pool *p = &s->p;
    const int32_t n = pool_end(on, p->candidates) - on.first, me = (int32_t)threadIdx.x;
    const kac_divisor by = kac_divisor_of(p->n, 0, p->sum);
    int32_t whole[EACH], sum = 0;
    KAC_UNROLL
    for (int k = 0; k < EACH; k++) {
        const int32_t t = k * KAC_THREADS + me;
        whole[k] = 0;
        if (t >= n) continue;
        const kac_share share = kac_divide(&by, kac_weight(p->l[on.first + t], s->v.top));
        whole[k] = share.whole;
        residue[apart(t)] = share.residue;
        champion[apart(t)] = (uint16_t)t;
        gets[t] = 0;
    }
    __syncthreads();
    pool_play(p, pool_subtrees<uint16_t>{on.first, 1, n, residue, champion}, apart,
              [=](uint16_t t) { gets[t] = 1; });
    KAC_UNROLL
    for (int k = 0; k < EACH; k++) {
        const int32_t t = k * KAC_THREADS + me;
        if (t < n) s->count[on.first + t] = whole[k] += gets[t];
        sum += whole[k];
    }
    sum = kac_block_sum(sum);
    if (me == 0) {
        *tile_count = sum;
        *left = residue[0];
        p->offspring[on.first / TILE] = on.first + champion[0];
    }
    __syncthreads(); /* the arrays are another tile's next */
}

/* Between the champions of tiles. */
static __device__ void play_tiles(const pool_stage *s, unsigned long long *left,
                                  int32_t *tile_count)
{
    const int32_t tiles = (s->p.candidates + TILE - 1) / TILE;
    const pool_subtrees<int32_t> all = {0, TILE, tiles, (uint64_t *)left, s->p.offspring};
    int32_t *count = s->count;
    pool_play(
        &s->p, all, [](int32_t t) { return t; },
        [=](int32_t i) {
            count[i]++;
            tile_count[i / TILE]++;
        });
}

/* ---- phases ------------------------------------------------------------------------------- */

/* One phase of one tile.  sums, counts: of the pool's tiles. */
template <phase PHASE>
static __device__ void do_tile(const pool_stage *s, int32_t tile, pool_state *state,
                               unsigned long long *sums, int32_t *counts)
{
    const pool_part on = {tile * TILE, TILE};
    const int32_t n = pool_end(on, s->p.candidates) - on.first;
    if constexpr (PHASE == UNIT || PHASE == TOP) find_largest(s, on, state, PHASE);
    if constexpr (PHASE == SUMS) find_sums(s, on, state, &sums[tile]);
    if constexpr (PHASE == WEIGHTS) pool_run_weights(s, on, kac_block_total(sums, tile));
    if constexpr (PHASE == SYSTEMATIC) spread_systematic(s, on, kac_block_total(sums, tile));
    if constexpr (PHASE == COUNT_TILES) {
        const int32_t *count = s->count;
        sum_part(on, s->p.candidates, &counts[tile], [=](int32_t i) { return count[i]; });
    }
    if constexpr (PHASE == COUNTS) pool_run_counts(s, on, kac_block_total(counts, tile));
    if constexpr (PHASE == SLOTS) spread_counts(s, on, kac_block_total(counts, tile));
    if constexpr (PHASE == DRAW) pool_draw_residual(s, on);
    if constexpr (PHASE == PLAY) play_tile(s, on, &sums[tile], &counts[tile]);
    if constexpr (PHASE == SORT) pool_sort(s->p.l, s->count + on.first, on.first, n);
    if constexpr (PHASE == MERGE) pool_merge(s->p.l, s->count + on.first, n, TILE / 2, false);
    if constexpr (PHASE == BEST_TILES) sum_best(s, on, &sums[tile]);
    if constexpr (PHASE == BEST) pool_run_best(s, on, kac_block_total(sums, tile));
    if constexpr (PHASE == EMIT)
        if (!pool_counts_offspring(s)) pool_emit(s, on); /* else spread has */
}

/* Blocks in x share the tiles of pool y.  Bound by memory where nothing else is said: with
 * systematic the phases read and write 40 bytes a candidate in all.  SUMS takes the tiles from the
 * last one on, which TOP has left in the cache. */
template <phase PHASE>
static __global__ void __launch_bounds__(KAC_THREADS)
    on_tiles(KAC_ARGS tiles_call call, int32_t half)
{
    kac_select_args a = select_args_of(&call.of);
    const int32_t number = (int32_t)blockIdx.y, step = (int32_t)(gridDim.x * blockDim.x);
    pool_stage s = pool_open(&a, number, call.of.count);
    pool_state *state = &call.state[number];
    const int32_t before = s.p.first / TILE + number; /* tiles of the pools before, or more */
    const int32_t tiles = (s.p.candidates + TILE - 1) / TILE;
    if (PHASE > TOP) s.v.top = from_rising(state->top);
    if (PHASE > SUMS) {
        pool_sums sums = {state->sum, state->coarse, state->low, state->high,
                          INT32_MAX - (int32_t)state->best};
        pool_judge(&s, &sums);
        if (PHASE != EMIT && !s.v.selects) return;
    }
    if constexpr (PHASE == EXCHANGE || PHASE == MIRROR) {
        pool_exchange(s.p.l, s.count, s.p.candidates, half, PHASE == MIRROR,
                      (int32_t)(blockIdx.x * blockDim.x + threadIdx.x), step);
    } else if constexpr (PHASE == PLAY_TILES) {
        play_tiles(&s, call.tile_sum + before, call.tile_count + before);
    } else if constexpr (PHASE == SCATTER || PHASE == SEARCH) {
        const buckets b = buckets_of(&s.p, &call, number);
        const int32_t n = PHASE == SCATTER ? (s.p.n + TILE - 1) / TILE : 1 << b.bits;
        for (int32_t i = (int32_t)blockIdx.x; i < n; i += (int32_t)gridDim.x) {
            if constexpr (PHASE == SCATTER) scatter(&s, {i * TILE, TILE}, &b);
            if constexpr (PHASE == SEARCH) search(&s, &b, i);
        }
    } else {
        for (int32_t i = (int32_t)blockIdx.x; i < tiles; i += (int32_t)gridDim.x)
            do_tile<PHASE>(&s, PHASE == SUMS ? tiles - 1 - i : i, state, call.tile_sum + before,
                           call.tile_count + before);
        if (PHASE == EMIT && blockIdx.x == 0) pool_tell(&s, number);
    }
}

#define DO(phase, half)                                                                        \
    KAC_TRY(KAC_LAUNCH(dev, on_tiles<phase>, grid, KAC_THREADS, 0, *c, half))

static kac_status draw_large(kac_device *dev, const tiles_call *c, dim3 grid)
{
    switch (c->of.a.scheme) {
    case KAC_SCHEME_SYSTEMATIC: DO(SYSTEMATIC, 0); return KAC_OK;
    case KAC_SCHEME_STRATIFIED: DO(WEIGHTS, 0); return KAC_OK;
    case KAC_SCHEME_RESIDUAL:
        DO(WEIGHTS, 0);
        DO(COUNT_TILES, 0);
        DO(COUNTS, 0);
        DO(DRAW, 0);
        DO(COUNT_TILES, 0);
        break;
    case KAC_SCHEME_MULTINOMIAL:
    case KAC_SCHEME_KILLING:
        DO(WEIGHTS, 0);
        DO(SCATTER, 0);
        DO(SEARCH, 0);
        DO(COUNT_TILES, 0);
        break;
    case KAC_SCHEME_TOURNAMENT:
        DO(PLAY, 0);
        KAC_TRY(KAC_LAUNCH(dev, on_tiles<PLAY_TILES>, dim3(1, grid.y), KAC_THREADS, 0, *c, 0));
        break;
    }
    DO(SLOTS, 0);
    return KAC_OK;
}

/* top_k and replace: log2(C)^2 / 2 launches, where a radix sort would need fewer. */
static kac_status sort_large(kac_device *dev, const tiles_call *c, dim3 grid)
{
    int64_t candidates = (int64_t)c->of.x.n * c->of.a.keep;
    DO(SORT, 0);
    for (int32_t top = TILE; top < candidates; top *= 2) {
        DO(MIRROR, top);
        for (int32_t half = top / 2; half >= TILE; half /= 2)
            DO(EXCHANGE, half);
        DO(MERGE, 0);
    }
    if (c->of.a.group_rule == KAC_RULE_TOP_K) return KAC_OK;
    DO(BEST_TILES, 0);
    DO(BEST, 0);
    return KAC_OK;
}

static kac_status select_large(kac_device *dev, const tiles_call *c, dim3 grid)
{
    const kac_rule rule = c->of.a.group_rule;
    if (c->of.a.weights == KAC_WEIGHTS_SCALED) DO(UNIT, 0);
    DO(TOP, 0);
    DO(SUMS, 0);
    if (rule == KAC_RULE_CATEGORICAL) KAC_TRY(draw_large(dev, c, grid));
    if (rule == KAC_RULE_TOP_K || rule == KAC_RULE_REPLACE) KAC_TRY(sort_large(dev, c, grid));
    DO(EMIT, 0);
    return KAC_OK;
}

kac_status kac_select_large(kac_device *dev, const select_call *call)
{
    const kac_select_args *a = &call->a;
    const int64_t candidates = (int64_t)call->x.n * a->keep, mean = candidates / a->pools;
    const size_t pools = (size_t)a->pools, slots = (size_t)call->x.n;
    const size_t counts = ((size_t)candidates * sizeof(int32_t) + 63) / 64 * 64;
    const bool points =
        a->group_rule == KAC_RULE_CATEGORICAL &&
        (a->scheme == KAC_SCHEME_MULTINOMIAL || a->scheme == KAC_SCHEME_KILLING);
    const size_t tiles = (size_t)(candidates / TILE) + pools + 1;
    const size_t fills = slots / FULL + pools + 1, all_points = slots + slots / 16 + 1;
    const size_t states = (pools * sizeof(pool_state) + fills * sizeof(int32_t) + 63) / 64 * 64;
    const size_t sums = tiles * sizeof(uint64_t);
    const size_t bytes = counts + states + sums + (points ? all_points * sizeof(uint64_t) : 0) +
                         tiles * sizeof(int32_t);
    void *scratch = NULL;
    KAC_TRY(kac_cuda_scratch(dev, bytes, &scratch));
    char *base = (char *)scratch;
    tiles_call large = {*call, (pool_state *)(base + counts), NULL, NULL, NULL, NULL};
    large.of.count = (int32_t *)base;
    large.filled = (int32_t *)(large.state + pools);
    large.tile_sum = (unsigned long long *)(base + counts + states);
    large.point = (uint64_t *)(large.tile_sum + tiles);
    large.tile_count = (int32_t *)(points ? large.point + all_points : large.point);
    KAC_TRY(
        kac_cuda_status(cudaMemsetAsync(large.state, 0, states, kac_stream(dev)), "select"));
    const int64_t blocks = (mean + TILE - 1) / TILE * (a->pools > 1 ? 2 : 1);
    return select_large(dev, &large, dim3((unsigned)blocks, (unsigned)a->pools));
}
