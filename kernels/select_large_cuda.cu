/* select_large_cuda.cu -- the group stage of selection within large pools: a launch for each phase, a
 * block for each tile of candidates or offspring.
 */
#include "points.cuh"

enum { TILE = 4096, EACH = (int)TILE / (int)KAC_THREADS };

/* What the tiles of a pool find out together: largest numbers and sums, from 0 on. */
struct pool_state {
    unsigned long long unit; /* rising() of the largest |value| */
    unsigned long long top;  /* and of the largest log-weight */
    unsigned long long sum, coarse, low, high;
    unsigned long long best; /* 2^31 - 1 - the first candidate with that */
    int32_t whole, spilled;  /* residual: whole offspring; points that are spilled */
};

struct tiles_call {
    select_call of;
    pool_state *state; /* [pools] */
    unsigned long long
        *tile_sum;       /* [tiles of all pools] of weights; in a tournament residues */
    int32_t *tile_count; /* and of offspring */
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

/* In order; a phase after SUMS knows what was decided. */
enum phase {
    UNIT,
    TOP,
    SUMS,
    WEIGHTS,    /* pool_run_weights, and the offspring of each tile */
    SYSTEMATIC, /* spread_... */
    STRATIFIED,
    MULTINOMIAL,
    KILLING,
    RESIDUAL,
    SCATTER,    /* points into buckets */
    ORDER,      /* those of a bucket */
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
 * block.  slots(at, c, ends): slots of candidate at[k] end at ends[k], where the sum of load up to it
 * and from `before` on is c[k], k < ENDS; at[k] may be -1. */
enum { ENDS = KAC_ROWS + 1 };
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
        int32_t item[ENDS], ends[ENDS];
        T sum[ENDS];
        item[0] =
            (int32_t)(i - lane < end ? i - lane : end) - 1; /* the one before the warp's */
        sum[0] = __shfl_sync(KAC_WHOLE_WARP, upto[0] - term[0], 0);
        KAC_UNROLL
        for (int k = 0; k < KAC_ROWS; k++) {
            const int64_t at = i + k * KAC_WARP;
            item[k + 1] = (int32_t)(at < end ? at : end - 1);
            sum[k + 1] = upto[k];
        }
        slots(item, sum, ends);
        int32_t last = ends[0];
        KAC_UNROLL
        for (int k = 0; k < KAC_ROWS; k++) {
            const int64_t at = i + k * KAC_WARP;
            own[k] = {at < end ? p->row[at] : 0, 0, ends[k + 1],
                      p->held && at < end ? kac_pool_log_w(p->l[at], true)
                                          : 0}; /* others have weight */
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
        s, on, before, [=](int32_t i) { return count[i]; },
        [](const int32_t *, const int32_t *upto, int32_t *ends) {
            KAC_UNROLL
            for (int k = 0; k < ENDS; k++)
                ends[k] = upto[k];
        });
}

/* The same from weights, where those before the part are `before`. */
template <class Slots>
static __device__ void spread_weights(const pool_stage *s, pool_part on, uint64_t before,
                                      Slots slots)
{
    const double *l = s->p.l, top = s->v.top;
    spread(
        s, on, before, [=](int32_t i) { return kac_weight(l[i], top); }, slots);
}

static __device__ void spread_systematic(const pool_stage *s, pool_part on, uint64_t before)
{
    const kac_divisor by = pool_systematic(&s->p);
    spread_weights(s, on, before, [=](const int32_t *, const uint64_t *upto, int32_t *ends) {
        KAC_UNROLL
        for (int k = 0; k < ENDS; k++)
            ends[k] = kac_divide(&by, upto[k]).whole;
    });
}

/* Stratified: below a sum are the points of all strata before its own, and that of its own if what
 * was drawn is below the remainder. */
static __device__ void spread_stratified(const pool_stage *s, pool_part on, uint64_t before)
{
    const kac_pool *p = &s->p;
    const kac_divisor by = kac_divisor_of(p->n, 0, p->sum);
    spread_weights(s, on, before, [=](const int32_t *, const uint64_t *upto, int32_t *ends) {
        KAC_UNROLL
        for (int k = 0; k < ENDS; k++) {
            const kac_share share = kac_divide(&by, upto[k]);
            const uint64_t u = kac_below(kac_pool_draw(p, share.whole), 0, p->sum);
            ends[k] = share.whole + (u < share.residue);
        }
    });
}

/* How many points are below each sum of weights. */
static __device__ void points_below_sums(const points *b, const uint64_t *upto, int32_t *below)
{
    point to[ENDS];
    KAC_UNROLL
    for (int k = 0; k < ENDS; k++)
        to[k] = {upto[k], cell_of(b, upto[k])};
    points_below<ENDS>(b, to, below);
}

/* Multinomial: the points below each sum. */
static __device__ void spread_multinomial(const pool_stage *s, pool_part on, uint64_t before,
                                          const points *b)
{
    const int32_t held = s->p.held;
    spread_weights(s, on, before, [=](const int32_t *at, const uint64_t *upto, int32_t *ends) {
        points_below_sums(b, upto, ends);
        KAC_UNROLL
        for (int k = 0; k < ENDS; k++)
            ends[k] += at[k] < 0 ? 0 : held;
    });
}

/* Killing: these, and the candidates that stay, of which `kept` are before the part; a retained one
 * has a slot for certain. */
static __device__ void spread_killing(const pool_stage *s, pool_part on, uint64_t before,
                                      int32_t kept, const points *b)
{
    enum { WORDS = (int)TILE / (int)KAC_WARP };
    KAC_SHARED(uint32_t, stays, WORDS + 1);
    KAC_SHARED(int32_t, upto_word, WORDS + 1);
    const int32_t *bits = s->count + on.first / KAC_WARP;
    const int32_t words = (pool_end(on, s->p.candidates) - on.first + KAC_WARP - 1) / KAC_WARP;
    (void)kac_block_run(
        0, WORDS + 1, kept + s->p.held,
        [=](int32_t i) {
            stays[i] = i < words ? (uint32_t)bits[i] : 0;
            return __popc(stays[i]);
        },
        [=](int32_t i, int32_t upto, int32_t own) { upto_word[i] = upto - own; });
    __syncthreads();
    spread_weights(s, on, before, [=](const int32_t *at, const uint64_t *upto, int32_t *ends) {
        points_below_sums(b, upto, ends);
        KAC_UNROLL
        for (int k = 0; k < ENDS; k++) {
            const int32_t end = at[k] + 1 - on.first, word = end / KAC_WARP;
            const uint32_t before_end = stays[word] & ((1u << end % KAC_WARP) - 1);
            ends[k] += at[k] < 0 ? 0 : upto_word[word] + __popc(before_end);
        }
    });
}

/* Residual: whole offspring, and the points below the running sum of residues (kac_residual). */
static __device__ void spread_residual(const pool_stage *s, pool_part on, int32_t before,
                                       const points *b)
{
    const int32_t *count = s->count;
    const uint64_t *w = s->p.w;
    const kac_divisor by = kac_divisor_of(s->p.n, 0, s->p.sum);
    spread(
        s, on, before, [=](int32_t i) { return count[i]; },
        [=](const int32_t *at, const int32_t *upto, int32_t *ends) {
            point to[ENDS];
            KAC_UNROLL
            for (int k = 0; k < ENDS; k++) {
                const kac_share share = kac_divide(&by, at[k] < 0 ? 0 : w[at[k]]);
                to[k] = {share.residue, share.whole - upto[k]};
            }
            if (b->draws > 0) points_below<ENDS>(b, to, ends);
            KAC_UNROLL
            for (int k = 0; k < ENDS; k++)
                ends[k] = upto[k] + (b->draws > 0 ? ends[k] : 0);
        });
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

/* Those in which a block has POINT_THREADS, and the shared memory that it asks for. */
KAC_HD static constexpr bool puts_points(phase what)
{
    return what == SCATTER || what == ORDER;
}

static constexpr unsigned threads_of(phase what)
{
    return puts_points(what) ? (unsigned)POINT_THREADS : (unsigned)KAC_THREADS;
}

KAC_HD static constexpr bool has_points(phase what)
{
    return puts_points(what) || what == MULTINOMIAL || what == KILLING || what == RESIDUAL;
}

KAC_HD static constexpr int blocks_of(phase what)
{
    return puts_points(what) ? 2 : has_points(what) ? 4 : 0;
}

static constexpr size_t bytes_of(phase what)
{
    return what == SCATTER ? sizeof(scatter_memory) : what == ORDER ? sizeof(order_memory) : 0;
}

/* SCATTER and ORDER: blocks share the tiles of draws, or the buckets. */
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

/* One phase of one tile.  sums, counts: of the pool's tiles; b: its points, if any. */
template <phase PHASE>
static __device__ void do_tile(const pool_stage *s, int32_t tile, pool_state *state,
                               unsigned long long *sums, int32_t *counts, const points *b)
{
    const pool_part on = {tile * TILE, TILE};
    const int32_t n = pool_end(on, s->p.candidates) - on.first;
    if constexpr (PHASE == UNIT || PHASE == TOP) find_largest(s, on, state, PHASE);
    if constexpr (PHASE == SUMS) find_sums(s, on, state, &sums[tile]);
    if constexpr (PHASE == WEIGHTS) {
        const int32_t own = pool_run_weights(s, on, kac_block_total(sums, tile));
        const int32_t all = kac_block_sum(own);
        if (threadIdx.x == 0) {
            counts[tile] = all;
            atomicAdd(&state->whole, all);
        }
    }
    if constexpr (PHASE == SYSTEMATIC) spread_systematic(s, on, kac_block_total(sums, tile));
    if constexpr (PHASE == STRATIFIED) spread_stratified(s, on, kac_block_total(sums, tile));
    if constexpr (PHASE == MULTINOMIAL)
        spread_multinomial(s, on, kac_block_total(sums, tile), b);
    if constexpr (PHASE == KILLING)
        spread_killing(s, on, kac_block_total(sums, tile), kac_block_total(counts, tile), b);
    if constexpr (PHASE == RESIDUAL) spread_residual(s, on, kac_block_total(counts, tile), b);
    if constexpr (PHASE == SLOTS) spread_counts(s, on, kac_block_total(counts, tile));
    if constexpr (PHASE == PLAY) play_tile(s, on, &sums[tile], &counts[tile]);
    if constexpr (PHASE == SORT) pool_sort(s->p.l, s->count + on.first, on.first, n);
    if constexpr (PHASE == MERGE) pool_merge(s->p.l, s->count + on.first, n, TILE / 2, false);
    if constexpr (PHASE == BEST_TILES) sum_best(s, on, &sums[tile]);
    if constexpr (PHASE == BEST) pool_run_best(s, on, kac_block_total(sums, tile));
    if constexpr (PHASE == EMIT)
        if (!s->v.selects || s->a->group_rule != KAC_RULE_CATEGORICAL)
            pool_emit(s, on); /* else spread has */
}

/* Blocks in x share the tiles of pool y.  Bound by memory where nothing else is said: with
 * systematic the phases read and write 40 bytes a candidate in all.  SUMS takes the tiles from the
 * last one on, which TOP has left in the cache. */
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
    if (PHASE > SUMS) {
        pool_sums sums = {state->sum, state->coarse, state->low, state->high,
                          INT32_MAX - (int32_t)state->best};
        pool_judge(&s, &sums);
        if (PHASE != EMIT && !s.v.selects) return;
    }
    points b;
    if constexpr (has_points(PHASE)) { /* residual draws what whole offspring leave */
        const int32_t draws = s.p.n - state->whole;
        b = points_of(&s.p, &call.points, number, draws, &state->spilled);
    }
    if constexpr (PHASE == EXCHANGE || PHASE == MIRROR) {
        pool_exchange(s.p.l, s.count, s.p.candidates, half, PHASE == MIRROR,
                      (int32_t)(blockIdx.x * blockDim.x + threadIdx.x), step);
    } else if constexpr (PHASE == PLAY_TILES) {
        play_tiles(&s, call.tile_sum + before, call.tile_count + before);
    } else if constexpr (puts_points(PHASE)) {
        put_points<PHASE>(&s, &b, call.tile_count + before);
    } else {
        for (int32_t i = (int32_t)blockIdx.x; i < tiles; i += (int32_t)gridDim.x)
            do_tile<PHASE>(&s, PHASE == SUMS ? tiles - 1 - i : i, state, call.tile_sum + before,
                           call.tile_count + before, &b);
        if (PHASE == EMIT && blockIdx.x == 0) pool_tell(&s, number);
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
    case KAC_SCHEME_SYSTEMATIC: DO(SYSTEMATIC, 0); return KAC_OK;
    case KAC_SCHEME_STRATIFIED: DO(STRATIFIED, 0); return KAC_OK;
    case KAC_SCHEME_MULTINOMIAL:
        KAC_TRY(draw_points(dev, c, grid));
        DO(MULTINOMIAL, 0);
        return KAC_OK;
    case KAC_SCHEME_KILLING:
        if (c->of.a.held != NULL) DO(WEIGHTS, 0); /* for pool_retained */
        KAC_TRY(draw_points(dev, c, grid));
        DO(KILLING, 0);
        return KAC_OK;
    case KAC_SCHEME_RESIDUAL:
        DO(WEIGHTS, 0);
        KAC_TRY(draw_points(dev, c, grid));
        DO(RESIDUAL, 0);
        return KAC_OK;
    case KAC_SCHEME_TOURNAMENT:
        DO(PLAY, 0);
        KAC_TRY(KAC_LAUNCH(dev, on_tiles<PLAY_TILES>, dim3(1, grid.y), KAC_THREADS, 0, *c, 0));
        DO(SLOTS, 0);
        return KAC_OK;
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
    if (rule == KAC_RULE_CATEGORICAL) KAC_TRY(draw_large(dev, c, grid));
    if (rule == KAC_RULE_TOP_K || rule == KAC_RULE_REPLACE) KAC_TRY(sort_large(dev, c, grid));
    DO(EMIT, 0);
    return KAC_OK;
}

kac_status kac_select_large(kac_device *dev, const select_call *call)
{
    const kac_select_args *a = &call->a;
    const int64_t candidates = (int64_t)call->x.n * a->keep, mean = candidates / a->pools;
    const size_t pools = (size_t)a->pools;
    const size_t counts = ((size_t)candidates * sizeof(int32_t) + 63) / 64 * 64;
    const bool has_points =
        a->group_rule == KAC_RULE_CATEGORICAL &&
        (a->scheme == KAC_SCHEME_MULTINOMIAL || a->scheme == KAC_SCHEME_KILLING ||
         a->scheme == KAC_SCHEME_RESIDUAL);
    const size_t tiles = (size_t)(candidates / TILE) + pools + 1;
    const size_t units = has_points ? (size_t)point_units(call->x.n, a->pools) + MOST_UNITS : 0;
    const size_t states = (pools * sizeof(pool_state) + 63) / 64 * 64;
    const size_t sums = tiles * (sizeof(uint64_t) + sizeof(int32_t));
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
    large.tile_count = (int32_t *)(large.tile_sum + tiles);
    KAC_TRY(kac_cuda_status(
        cudaMemsetAsync(large.state, 0, states + units * sizeof(int32_t), kac_stream(dev)),
        "select"));
    const int64_t blocks = (mean + TILE - 1) / TILE * (a->pools > 1 ? 2 : 1);
    return select_large(dev, &large, dim3((unsigned)blocks, (unsigned)a->pools));
}
