/* select_large_cuda.cu -- the group stage of selection within large pools: a launch for each
 * phase, a block for each tile of candidates or offspring.
 */
#include "point_slots.cuh"

enum { EACH = (int)TILE / (int)KAC_THREADS };

/* What the tiles of a pool find out together: largest numbers and sums, from 0 on. */
struct pool_state {
    unsigned long long unit; /* rising() of the largest |value| */
    unsigned long long top;  /* and of the largest log-weight */
    unsigned long long sum, coarse, low, high;
    unsigned long long best; /* 2^31 - 1 - the first candidate with that */
    kac_divisor by;          /* n / sum, of a systematic draw plus its point */
    bool selects;
    int32_t whole, spilled; /* residual: whole offspring; points that are spilled */
};

struct tiles_call {
    select_call of;
    pool_state *state; /* [pools] */
    /* [tiles of all pools]: sums of weights, from JUDGE on of those before, then residues;
     * numbers of offspring, or with killing of those that stay. */
    unsigned long long *tile_sum;
    int32_t *tile_count;
    /* [WARPS of each tile] before a strip of a tile: weights; with residual whole offspring. */
    unsigned long long *strip_sum;
    int32_t *strip_count;
    point_memory points;
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

/* In order; a phase after JUDGE knows what was decided. */
enum phase {
    UNIT,
    TOP,
    SUMS,
    JUDGE,      /* a block for each pool */
    WEIGHTS,    /* pool_run_weights */
    WHOLE,      /* find_whole */
    SCATTER,    /* points into buckets */
    ORDER,      /* those of a bucket */
    SYSTEMATIC, /* spread_... */
    STRATIFIED,
    MULTINOMIAL,
    KILLING,
    RESIDUAL,
    SLOTS,      /* spread_counts */
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

/* Part of a strip's sums. */
struct strip_sums {
    uint64_t sum, coarse, square;
};

/* For the lanes. */
static __device__ strip_sums add_strip(const double *l, int32_t n, double top)
{
    constexpr int32_t SIDE = 8; /* side by side */
    const int32_t lane = (int32_t)(threadIdx.x % KAC_WARP);
    uint64_t sum[3] = {0, 0, 0};
    for (int32_t first = lane; first < STRIP; first += SIDE * KAC_WARP) {
        double x[SIDE];
        if (n >= STRIP) {
            KAC_UNROLL
            for (int k = 0; k < SIDE; k++)
                x[k] = l[first + k * KAC_WARP];
        } else {
            KAC_UNROLL
            for (int k = 0; k < SIDE; k++) {
                const int32_t i = first + k * KAC_WARP;
                x[k] = i < n ? l[i] : -(double)INFINITY;
            }
        }
        pool_add_weights<SIDE>(sum, x, top);
    }
    KAC_UNROLL
    for (int by = KAC_WARP / 2; by > 0; by /= 2) {
        KAC_UNROLL
        for (int k = 0; k < 3; k++)
            sum[k] += __shfl_xor_sync(KAC_WHOLE_WARP, sum[k], by);
    }
    return {sum[0], sum[1], sum[2]};
}

/* The tile's share of SUMS; strip_sum[] = what is before each of its strips. */
static __device__ void find_sums(const pool_stage *s, pool_part on, pool_state *state,
                                 unsigned long long *tile_sum, unsigned long long *strip_sum)
{
    KAC_SHARED(strip_sums, strips, WARPS);
    const int32_t me = (int32_t)threadIdx.x, warp = me / KAC_WARP,
                  first = on.first + warp * STRIP;
    const strip_sums own = add_strip(s->p.l + first, s->p.candidates - first, s->v.top);
    const int32_t best =
        s->a->group_rule == KAC_RULE_ARGMAX ? pool_find_best(s, on) : INT32_MAX;
    __syncthreads(); /* those of another tile are no longer read */
    if (me % KAC_WARP == 0) strips[warp] = own;
    __syncthreads();
    if (me > 0) return;
    strip_sums all = {0, 0, 0};
    for (int w = 0; w < WARPS; w++) {
        strip_sum[w] = all.sum;
        all.sum += strips[w].sum;
        all.coarse += strips[w].coarse;
        all.square += strips[w].square;
    }
    *tile_sum = all.sum;
    atomicAdd(&state->sum, (unsigned long long)all.sum);
    atomicAdd(&state->coarse, (unsigned long long)all.coarse);
    atomicAdd(&state->low, (unsigned long long)(all.square & SQUARE_MASK));
    atomicAdd(&state->high, (unsigned long long)(all.square >> SQUARE_BITS));
    atomicMax(&state->best, (unsigned long long)(INT32_MAX - best));
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

/* Decides, tells the groups, and makes of the sums of tiles those of the tiles before each. */
static __device__ void judge(pool_stage *s, int32_t number, pool_state *state,
                             unsigned long long *tile_sum)
{
    const int32_t tiles = (s->p.candidates + TILE - 1) / TILE;
    const pool_sums sums = {state->sum, state->coarse, state->low, state->high,
                            INT32_MAX - (int32_t)state->best};
    pool_judge(s, &sums);
    pool_tell(s, number);
    (void)kac_block_run(
        0, tiles, (unsigned long long)0, [=](int32_t i) { return tile_sum[i]; },
        [=](int32_t i, unsigned long long upto, unsigned long long own) {
            tile_sum[i] = upto - own;
        });
    if (threadIdx.x > 0 || !s->v.selects) return; /* the memory was 0 */
    state->selects = true;
    state->by = s->a->scheme == KAC_SCHEME_SYSTEMATIC ? pool_systematic(&s->p)
                                                      : kac_divisor_of(s->p.n, 0, s->p.sum);
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

/* ---- the tournament of tiles -------------------------------------------------------------- */

/* Where element t of an array lies so that elements a power of two apart differ in their
 * bank. */
static __device__ int32_t apart(int32_t t)
{
    return t + t / 16;
}

/* That of a tile, all of it in shared memory: writes the offspring of each candidate and of the
 * tile, and its champion with what is left of it.  Bound by Philox and the exponential. */
static __device__ void play_tile(const pool_stage *s, pool_part on, const kac_divisor *by,
                                 unsigned long long *left, int32_t *tile_count)
{
    KAC_SHARED(uint64_t, residue, TILE + TILE / 16);
    KAC_SHARED(uint16_t, champion, TILE + TILE / 16);
    KAC_SHARED(uint8_t, gets, TILE);
    const kac_pool *p = &s->p;
    const int32_t n = pool_end(on, p->candidates) - on.first, me = (int32_t)threadIdx.x;
    constexpr int32_t SIDE = 4; /* side by side */
    const double each = (double)KAC_WEIGHT_ONE * by->each, *l = p->l + on.first;
    int32_t whole[EACH], sum = 0;
    KAC_UNROLL
    for (int32_t first = 0; first < EACH; first += SIDE) {
        double x[SIDE];
        KAC_UNROLL
        for (int k = 0; k < SIDE; k++) {
            const int32_t t = (first + k) * KAC_THREADS + me;
            x[k] = t < n ? l[t] : -(double)INFINITY;
        }
        kac_raw_weights<SIDE>(x, s->v.top);
        KAC_UNROLL
        for (int k = 0; k < SIDE; k++) {
            const int32_t t = (first + k) * KAC_THREADS + me;
            const kac_share share = kac_divide_about(by, kac_weight_of_raw(x[k]), x[k] * each);
            whole[first + k] = share.whole;
            residue[apart(t)] = share.residue;
            champion[apart(t)] = (uint16_t)t;
            gets[t] = 0;
        }
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

/* The candidates of a pool that does not select are its offspring, as pool_emit has it. */
static __device__ void pass_on(const pool_stage *s)
{
    const kac_pool *p = &s->p;
    const int32_t step = (int32_t)(gridDim.x * blockDim.x);
    for (int32_t j = (int32_t)(blockIdx.x * blockDim.x + threadIdx.x); j < p->n; j += step) {
        s->a->log_w[p->first_slot + j] = p->l[j * s->a->keep];
        p->chosen[j] = p->row[j * s->a->keep];
    }
}

/* Those in which a block has POINT_THREADS, those that ask for points, and those that write
 * slots. */
KAC_HD static constexpr bool puts_points(phase what)
{
    return what == SCATTER || what == ORDER;
}

KAC_HD static constexpr bool has_points(phase what)
{
    return puts_points(what) || what == MULTINOMIAL || what == KILLING || what == RESIDUAL;
}

KAC_HD static constexpr bool spreads(phase what)
{
    return what >= SYSTEMATIC && what <= SLOTS;
}

static constexpr unsigned threads_of(phase what)
{
    return puts_points(what) ? (unsigned)POINT_THREADS : (unsigned)KAC_THREADS;
}

/* How many blocks a multiprocessor is to hold, 0: as many as it happens to. */
KAC_HD static constexpr int blocks_of(phase what)
{
    if (puts_points(what)) return 2;
    if (what == SYSTEMATIC || what == SLOTS || what == SUMS) return 5;
    return what == PLAY || has_points(what) || what == STRATIFIED ? 4 : 0;
}

/* Shared memory that a launch asks for. */
static constexpr size_t bytes_of(phase what)
{
    return what == SCATTER ? sizeof(scatter_memory) : what == ORDER ? sizeof(order_memory) : 0;
}

/* SCATTER and ORDER: blocks share the tiles of draws, or the buckets.  In killing a draw is a
 * candidate, and those that stay are counted by tiles of either. */
static_assert((int)POINT_TILE == (int)TILE, "they are the same tiles");
template <phase PHASE>
static __device__ void put_points(const pool_stage *s, const points *b, int32_t *counts)
{
    KAC_DYNAMIC_SHARED(unsigned char, memory);
    const int32_t tiles = (b->draws + POINT_TILE - 1) / POINT_TILE,
                  n = PHASE == SCATTER ? tiles : point_buckets(b);
    for (int32_t i = (int32_t)blockIdx.x; i < n; i += (int32_t)gridDim.x) {
        if constexpr (PHASE == SCATTER)
            scatter_points(s, b, i * POINT_TILE, (scatter_memory *)memory, s->count,
                           &counts[i]);
        if constexpr (PHASE == ORDER) order_points(b, i, (order_memory *)memory);
    }
}

/* What tiles and their strips have found, from those of a pool on. */
struct tile_findings {
    unsigned long long *sum, *strip_sum;
    int32_t *count, *strip_count;
};

/* One phase of one tile; b: the pool's points, if any. */
template <phase PHASE>
static __device__ void do_tile(const pool_stage *s, int32_t tile, pool_state *state,
                               const tile_findings *all, const points *b)
{
    const pool_part on = {tile * TILE, TILE};
    const int32_t n = pool_end(on, s->p.candidates) - on.first, strips = tile * WARPS,
                  strip = strips + (int32_t)threadIdx.x / KAC_WARP;
    unsigned long long *sums = all->sum;
    int32_t *counts = all->count;
    if constexpr (PHASE == UNIT || PHASE == TOP) find_largest(s, on, state, PHASE);
    if constexpr (PHASE == SUMS) find_sums(s, on, state, &sums[tile], &all->strip_sum[strips]);
    if constexpr (PHASE == WEIGHTS) pool_run_weights(s, on, sums[tile]);
    if constexpr (PHASE == WHOLE)
        find_whole(s, on, &state->by, &state->whole, &counts[tile], &all->strip_count[strips]);
    if constexpr (PHASE == SYSTEMATIC)
        spread_systematic(s, on, &state->by, sums[tile] + all->strip_sum[strip]);
    if constexpr (PHASE == STRATIFIED)
        spread_stratified(s, on, &state->by, sums[tile] + all->strip_sum[strip]);
    if constexpr (PHASE == MULTINOMIAL)
        spread_multinomial(s, on, sums[tile] + all->strip_sum[strip], b);
    if constexpr (PHASE == KILLING)
        spread_killing(s, on, sums[tile] + all->strip_sum[strip], kac_block_total(counts, tile),
                       b);
    if constexpr (PHASE == RESIDUAL)
        spread_residual(s, on, &state->by, sums[tile] + all->strip_sum[strip],
                        kac_block_total(counts, tile) + all->strip_count[strip], b);
    if constexpr (PHASE == SLOTS) spread_counts(s, on, kac_block_total(counts, tile));
    if constexpr (PHASE == PLAY) play_tile(s, on, &state->by, &sums[tile], &counts[tile]);
    if constexpr (PHASE == SORT) pool_sort(s->p.l, s->count + on.first, on.first, n);
    if constexpr (PHASE == MERGE) pool_merge(s->p.l, s->count + on.first, n, TILE / 2, false);
    if constexpr (PHASE == BEST_TILES) sum_best(s, on, &sums[tile]);
    if constexpr (PHASE == BEST) pool_run_best(s, on, kac_block_total(sums, tile));
    if constexpr (PHASE == EMIT) pool_emit(s, on);
}

/* Blocks in x share the tiles of pool y.  Bound by memory where nothing else is said: with
 * systematic the phases read and write 40 bytes a candidate in all.  SUMS takes the tiles from
 * the last one on, which TOP has left in the cache. */
template <phase PHASE>
static __global__ void __launch_bounds__(threads_of(PHASE), blocks_of(PHASE))
    on_tiles(KAC_ARGS tiles_call call, int32_t half)
{
    kac_select_args a = select_args_of(&call.of);
    const int32_t number = (int32_t)blockIdx.y, step = (int32_t)(gridDim.x * blockDim.x);
    pool_stage s = pool_open(&a, number, call.of.count);
    pool_state *state = &call.state[number];
    const int32_t before = s.p.first / TILE + number; /* tiles of the pools before, or more */
    const int32_t tiles = (s.p.candidates + TILE - 1) / TILE;
    if (PHASE > TOP) s.v.top = from_rising(state->top);
    if (PHASE > JUDGE) {
        s.v.selects = state->selects;
        s.p.sum = state->sum;
        s.best = INT32_MAX - (int32_t)state->best;
        if (PHASE != EMIT && !s.v.selects) {
            if (spreads(PHASE)) pass_on(&s);
            return;
        }
    }
    const tile_findings all = {call.tile_sum + before, call.strip_sum + (int64_t)before * WARPS,
                               call.tile_count + before,
                               call.strip_count + (int64_t)before * WARPS};
    points b;
    if constexpr (has_points(PHASE)) /* residual draws what whole offspring leave */
        b = points_of(&s.p, &call.points, number, s.p.n - state->whole, &state->spilled);
    if constexpr (PHASE == JUDGE) {
        judge(&s, number, state, call.tile_sum + before);
    } else if constexpr (PHASE == EXCHANGE || PHASE == MIRROR) {
        pool_exchange(s.p.l, s.count, s.p.candidates, half, PHASE == MIRROR,
                      (int32_t)(blockIdx.x * blockDim.x + threadIdx.x), step);
    } else if constexpr (PHASE == PLAY_TILES) {
        play_tiles(&s, call.tile_sum + before, call.tile_count + before);
    } else if constexpr (puts_points(PHASE)) {
        put_points<PHASE>(&s, &b, all.count);
    } else {
        for (int32_t i = (int32_t)blockIdx.x; i < tiles; i += (int32_t)gridDim.x)
            do_tile<PHASE>(&s, PHASE == SUMS ? tiles - 1 - i : i, state, &all, &b);
    }
}

#define DO(phase, half)                                                                        \
    KAC_TRY(                                                                                   \
        KAC_LAUNCH(dev, on_tiles<phase>, grid, threads_of(phase), bytes_of(phase), *c, half))

static kac_status draw_points(kac_device *dev, const tiles_call *c, dim3 grid)
{
    KAC_TRY(kac_allow_shared(on_tiles<SCATTER>, bytes_of(SCATTER)));
    KAC_TRY(kac_allow_shared(on_tiles<ORDER>, bytes_of(ORDER)));
    DO(SCATTER, 0);
    DO(ORDER, 0);
    return KAC_OK;
}

static kac_status draw_large(kac_device *dev, const tiles_call *c, dim3 grid)
{
    switch (c->of.a.scheme) {
    case KAC_SCHEME_SYSTEMATIC: DO(SYSTEMATIC, 0); break;
    case KAC_SCHEME_STRATIFIED: DO(STRATIFIED, 0); break;
    case KAC_SCHEME_RESIDUAL:
        DO(WHOLE, 0);
        KAC_TRY(draw_points(dev, c, grid));
        DO(RESIDUAL, 0);
        break;
    case KAC_SCHEME_MULTINOMIAL:
        KAC_TRY(draw_points(dev, c, grid));
        DO(MULTINOMIAL, 0);
        break;
    case KAC_SCHEME_KILLING:
        if (c->of.a.held != NULL) DO(WEIGHTS, 0); /* for pool_retained */
        KAC_TRY(draw_points(dev, c, grid));
        DO(KILLING, 0);
        break;
    case KAC_SCHEME_TOURNAMENT:
        DO(PLAY, 0);
        KAC_TRY(KAC_LAUNCH(dev, on_tiles<PLAY_TILES>, dim3(1, grid.y), KAC_THREADS, 0, *c, 0));
        DO(SLOTS, 0);
        break;
    }
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
    KAC_TRY(KAC_LAUNCH(dev, on_tiles<JUDGE>, dim3(1, grid.y), KAC_THREADS, 0, *c, 0));
    if (rule == KAC_RULE_CATEGORICAL) KAC_TRY(draw_large(dev, c, grid));
    if (rule == KAC_RULE_TOP_K || rule == KAC_RULE_REPLACE) KAC_TRY(sort_large(dev, c, grid));
    if (rule != KAC_RULE_CATEGORICAL) DO(EMIT, 0);
    return KAC_OK;
}

kac_status kac_select_large(kac_device *dev, const select_call *call)
{
    const kac_select_args *a = &call->a;
    const int64_t candidates = (int64_t)call->x.n * a->keep, mean = candidates / a->pools;
    const size_t pools = (size_t)a->pools;
    const size_t counts = ((size_t)candidates * sizeof(int32_t) + 63) / 64 * 64;
    const bool by_points =
        a->group_rule == KAC_RULE_CATEGORICAL &&
        (a->scheme == KAC_SCHEME_MULTINOMIAL || a->scheme == KAC_SCHEME_KILLING ||
         a->scheme == KAC_SCHEME_RESIDUAL);
    const size_t tiles = (size_t)(candidates / TILE) + pools + 1;
    const size_t units = by_points ? (size_t)point_units(call->x.n, a->pools) + MOST_UNITS : 0;
    const size_t states = (pools * sizeof(pool_state) + 63) / 64 * 64;
    const size_t sums = tiles * (1 + WARPS) * (sizeof(uint64_t) + sizeof(int32_t));
    tiles_call large = {};
    const size_t points = point_layout(&large.points, units, NULL);
    void *scratch = NULL;
    KAC_TRY(kac_cuda_scratch(dev, counts + states + points + sums, &scratch));
    char *base = (char *)scratch;
    large.of = *call;
    large.of.count = (int32_t *)base;
    large.state = (pool_state *)(base + counts);
    (void)point_layout(&large.points, units, base + counts + states);
    large.tile_sum = (unsigned long long *)(base + counts + states + points);
    large.strip_sum = large.tile_sum + tiles;
    large.tile_count = (int32_t *)(large.strip_sum + tiles * WARPS);
    large.strip_count = large.tile_count + tiles;
    KAC_TRY(kac_cuda_status(
        cudaMemsetAsync(large.state, 0, states + units * sizeof(int32_t), kac_stream(dev)),
        "select"));
    const int64_t blocks = (mean + TILE - 1) / TILE * (a->pools > 1 ? 2 : 1);
    return select_large(dev, &large, dim3((unsigned)blocks, (unsigned)a->pools));
}
