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
    kac_divisor by;          /* n / sum, of a systematic draw plus its point */
    bool selects;
    int32_t whole, spilled; /* residual: whole offspring; points that are spilled */
};

struct tiles_call {
    select_call of;
    pool_state *state; /* [pools] */
    unsigned long long *
        tile_sum; /* [tiles of all pools] of weights, from JUDGE on of those before; then residues */
    unsigned long long
        *strip_sum;      /* [WARPS of each tile] of weights before a strip of a tile */
    int32_t *tile_count; /* [tiles of all pools] of offspring; killing: of those that stay */
    int32_t *
        strip_count; /* [WARPS of each tile] residual: whole offspring before a strip of a tile */
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

/* A warp's share of a tile, and part of its sums. */
enum {
    WARPS = (int)KAC_THREADS / (int)KAC_WARP,
    STRIP = (int)TILE / WARPS,
};
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

/* ---- slots ------------------------------------------------------------------------------- */

enum {
    OWN = 4, /* neighbours that a lane takes */
    ROW = OWN * (int)KAC_WARP,
    VIEW = 2 * OWN, /* and slots */
    WINDOW = 2 * ROW
};

/* N numbers from and into memory where they begin at 16 bytes. */
template <int N, class T> static __device__ void load_whole(T *to, const T *x)
{
    uint4 words[N * sizeof(T) / sizeof(uint4)];
    KAC_UNROLL
    for (size_t k = 0; k < sizeof words / sizeof *words; k++)
        words[k] = reinterpret_cast<const uint4 *>(x)[k];
    memcpy(to, words, sizeof words);
}

template <int N, class T> static __device__ void store_whole(T *to, const T *x)
{
    uint4 words[N * sizeof(T) / sizeof(uint4)];
    memcpy(words, x, sizeof words);
    KAC_UNROLL
    for (size_t k = 0; k < sizeof words / sizeof *words; k++)
        reinterpret_cast<uint4 *>(to)[k] = words[k];
}

static __device__ bool is_aligned(const void *x)
{
    return (uintptr_t)x % sizeof(uint4) == 0;
}

/* x[0 .. OWN-1], `none` from x[left] on.  whole: all are there and load_whole serves. */
template <class T>
static __device__ void load_own(T *to, const T *x, bool whole, int32_t left, T none)
{
    if (whole) {
        load_whole<OWN>(to, x);
        return;
    }
    KAC_UNROLL
    for (int k = 0; k < OWN; k++)
        to[k] = k < left ? x[k] : none;
}

/* Rows of a warp's candidates, and their slots: mark[slot] is the candidate whose first slot that is,
 * else 0. */
struct __align__(16) slot_window
{
    int32_t mark[WINDOW], row[ROW];
};

/* The largest of the lanes before this one, 0 for the first; none is below that. */
static __device__ int32_t warp_max_before(int32_t value)
{
    KAC_UNROLL
    for (int by = 1; by < KAC_WARP; by *= 2) {
        const int32_t other = __shfl_up_sync(KAC_WHOLE_WARP, value, by);
        if (other > value) value = other;
    }
    value = __shfl_up_sync(KAC_WHOLE_WARP, value, 1);
    return threadIdx.x % KAC_WARP > 0 ? value : 0;
}

/* The slots to[0 .. slots-1] of a row of candidates, WINDOW at most: a slot belongs to the last that is
 * marked up to it.  A lane's have these rows and slots edge[k] - low .. edge[k+1] - low - 1.  The marks
 * are 0 before and after. */
static __device__ void fill_window(slot_window *w, int32_t *to, int32_t slots, int32_t low,
                                   const int32_t *row, const int32_t *edge)
{
    const int32_t lane = (int32_t)(threadIdx.x % KAC_WARP), none[VIEW] = {0};
    int32_t *marks = &w->mark[VIEW * lane], owner[VIEW];
    store_whole<OWN>(&w->row[OWN * lane], row);
    KAC_UNROLL
    for (int k = 0; k < OWN; k++)
        if (edge[k + 1] > edge[k]) w->mark[edge[k] - low] = OWN * lane + k;
    __syncwarp();
    load_whole<VIEW>(owner, marks);
    KAC_UNROLL
    for (int k = 1; k < VIEW; k++)
        if (owner[k - 1] > owner[k]) owner[k] = owner[k - 1];
    const int32_t before = warp_max_before(owner[VIEW - 1]);
    KAC_UNROLL
    for (int k = 0; k < VIEW; k++)
        if (before > owner[k]) owner[k] = before;
    store_whole<VIEW>(marks, owner);
    __syncwarp();
    to += lane;
    KAC_UNROLL
    for (int k = 0; k < VIEW; k++) {
        if (k == OWN && slots <= ROW) break; /* half of it is mostly enough */
        const int32_t mine = w->row[w->mark[k * KAC_WARP + lane]];
        if (k * KAC_WARP + lane < slots) to[k * KAC_WARP] = mine;
    }
    __syncwarp();
    store_whole<VIEW>(marks, none);
    __syncwarp();
}

/* A candidate's row and its slots first .. end - 1. */
struct share_of_slots {
    int32_t row, first, end;
};

/* By threads `me`, me + step, ... */
static __device__ void take(const pool_stage *s, const share_of_slots *c, int32_t me,
                            int32_t step)
{
    for (int32_t j = c->first + me; j < c->end; j += step)
        s->p.chosen[j] = c->row;
}

/* Where a lane begins in the first row of its strip. */
static __device__ int32_t first_own(pool_part on)
{
    return on.first + (int32_t)(threadIdx.x / KAC_WARP * STRIP + threadIdx.x % KAC_WARP * OWN);
}

/* Of the tile's slots. */
static __device__ void clear_log_w(const pool_stage *s, pool_part on)
{
    double *to = s->a->log_w + s->p.first_slot + on.first + threadIdx.x;
    const int32_t n = s->p.n - on.first;
    if (n >= TILE) {
        KAC_UNROLL
        for (int k = 0; k < TILE; k += KAC_THREADS)
            to[k] = 0;
    } else {
        for (int32_t k = 0; k + (int32_t)threadIdx.x < n; k += KAC_THREADS)
            to[k] = 0;
    }
}

/* Whether a part is a tile whose l, or counts, and rows load_whole serves. */
static __device__ bool is_whole(const pool_stage *s, pool_part on, const void *x)
{
    return s->p.candidates - on.first >= TILE && is_aligned(x) && is_aligned(s->p.row);
}

/* The slots of the candidates of a tile, of which each warp has a strip.  edges(edge, left), called
 * by whole warps row after row, says for a lane's next OWN, of which there are `left`, that theirs
 * are edge[k] .. edge[k + 1] - 1 beyond what it returns.  Few slots go through a window of the warp, more are written candidate by candidate, and
 * those of one that has very many by the block. */
template <class Edges>
static __device__ void spread(const pool_stage *s, pool_part on, bool whole, Edges edges)
{
    enum { MANY = 128, LIST = 16 };
    const kac_pool *p = &s->p;
    const int32_t me = (int32_t)threadIdx.x, lane = (int32_t)(threadIdx.x % KAC_WARP),
                  warp = (int32_t)(threadIdx.x / KAC_WARP), none[VIEW] = {0};
    KAC_SHARED(slot_window, windows, WARPS);
    KAC_SHARED(int32_t, listed, 1);
    KAC_SHARED(share_of_slots, list, LIST);
    slot_window *window = &windows[warp];
    store_whole<VIEW>(&window->mark[VIEW * lane], none);
    if (me == 0) *listed = 0;
    __syncthreads();
    clear_log_w(s, on); /* what has offspring has weight */
    const int32_t *rows = p->row + first_own(on);
    int32_t left = p->candidates - on.first - warp * STRIP;
    if (left > STRIP) left = STRIP;
    for (; left > 0; rows += ROW, left -= ROW) {
        int32_t row[OWN], edge[OWN + 1];
        load_own(row, rows, whole, left - OWN * lane, 0);
        const int32_t base = edges(edge, left - OWN * lane);
        const int32_t low = __shfl_sync(KAC_WHOLE_WARP, edge[0], 0);
        const int32_t slots = __shfl_sync(KAC_WHOLE_WARP, edge[OWN], KAC_WARP - 1) - low;
        if (slots <= WINDOW) {
            fill_window(window, p->chosen + base + low, slots, low, row, edge);
            continue;
        }
        KAC_UNROLL
        for (int k = 0; k < OWN; k++) {
            const share_of_slots own = {row[k], base + edge[k], base + edge[k + 1]};
            bool more = own.end > own.first;
            if (own.end - own.first > MANY) {
                const int32_t to = atomicAdd(listed, 1);
                if (to < LIST) list[to] = own;
                more = to >= LIST;
            }
            unsigned lanes = __ballot_sync(KAC_WHOLE_WARP, more);
            for (; lanes != 0; lanes &= lanes - 1) {
                const int from = __ffs((int)lanes) - 1;
                const share_of_slots theirs = {__shfl_sync(KAC_WHOLE_WARP, own.row, from),
                                               __shfl_sync(KAC_WHOLE_WARP, own.first, from),
                                               __shfl_sync(KAC_WHOLE_WARP, own.end, from)};
                take(s, &theirs, lane, KAC_WARP);
            }
        }
    }
    __syncthreads();
    for (int32_t k = 0; k < *listed && k < LIST; k++)
        take(s, &list[k], me, (int32_t)blockDim.x);
    __syncthreads();
}

/* Offspring of each candidate are counted; those before the part are `before`. */
static __device__ void spread_counts(const pool_stage *s, pool_part on, int32_t before)
{
    const bool whole = is_whole(s, on, s->count);
    const int32_t first = first_own(on), *count = s->count + first;
    int32_t own[OWN], sum = 0, all;
    for (int32_t k = 0; k < STRIP; k += ROW) {
        load_own(own, count + k, whole, s->p.candidates - first - k, 0);
        KAC_UNROLL
        for (int j = 0; j < OWN; j++)
            sum += own[j];
    }
    int32_t passed =
        kac_warps_before(__shfl_sync(KAC_WHOLE_WARP, kac_warp_scan(sum), KAC_WARP - 1), &all);
    spread(s, on, whole, [&](int32_t *edge, int32_t left) {
        int32_t total = 0;
        load_own(own, count, whole, left, 0);
        count += ROW;
        KAC_UNROLL
        for (int k = 0; k < OWN; k++)
            total += own[k];
        const int32_t upto = kac_warp_scan(total);
        edge[0] = passed + upto - total;
        KAC_UNROLL
        for (int k = 0; k < OWN; k++)
            edge[k + 1] = edge[k] + own[k];
        passed += __shfl_sync(KAC_WHOLE_WARP, upto, KAC_WARP - 1);
        return before;
    });
    if (threadIdx.x == 0 && on.first == 0 && s->p.held &&
        s->count[0] > 0) /* perhaps no weight */
        s->a->log_w[s->p.first_slot] = kac_pool_log_w(s->p.l[0], true);
}

/* Systematic, where the weights before the warp's strip are `passed_by`. */
static __device__ void spread_systematic(const pool_stage *s, pool_part on,
                                         const kac_divisor *by, uint64_t passed_by)
{
    const bool whole = is_whole(s, on, s->p.l);
    const double *l = s->p.l + first_own(on), top = s->v.top;
    kac_quotients q = kac_quotients_of(*by, passed_by, (double)KAC_WEIGHT_ONE);
    q.rest = __shfl_sync(KAC_WHOLE_WARP, q.rest, 0);   /* the same, but compilers would make */
    q.whole = __shfl_sync(KAC_WHOLE_WARP, q.whole, 0); /* these two again for each row */
    double passed = 0; /* weights of the strip, in units of that */
    spread(s, on, whole, [&](int32_t *edge, int32_t left) {
        double x[OWN], upto[OWN], sum = KAC_SUM_FROM;
        load_own(x, l, whole, left, -(double)INFINITY);
        l += ROW;
        kac_raw_weights<OWN>(x, top);
        KAC_UNROLL
        for (int k = 0; k < OWN; k++) {
            sum = kac_add_raw(sum, x[k]);
            upto[k] = sum - KAC_SUM_FROM;
        }
        const double scan = kac_warp_scan(upto[OWN - 1]),
                     before = passed + (scan - upto[OWN - 1]),
                     near = kac_quotient_near(&q, before);
        bool open = kac_quotient_is_open(near);
        edge[0] = kac_quotient_steps(near);
        KAC_UNROLL
        for (int k = 0; k < OWN; k++) {
            const double next = fma(upto[k], q.each, near);
            edge[k + 1] = kac_quotient_steps(next);
            open |= kac_quotient_is_open(next);
        }
        if (open) {
            edge[0] = kac_quotient_exact(&q, before);
            KAC_UNROLL
            for (int k = 0; k < OWN; k++)
                edge[k + 1] = kac_quotient_exact(&q, before + upto[k]);
        }
        passed += __shfl_sync(KAC_WHOLE_WARP, scan, KAC_WARP - 1);
        return q.whole;
    });
}

/* ---- slots from points -------------------------------------------------------------------- */

enum { EDGES = OWN + 1 };

/* Slots from running sums of weights, where those before the warp's strip are `before`.
 * edges(i, x, upto, edge): of the OWN candidates from i on x[k] are the raw weights; slots up to the sum
 * upto[k] end at edge[k]. */
template <class Edges>
static __device__ void spread_sums(const pool_stage *s, pool_part on, uint64_t before,
                                   Edges edges)
{
    const bool whole = is_whole(s, on, s->p.l);
    int32_t i = first_own(on);
    const double *l = s->p.l + i, top = s->v.top;
    double passed = KAC_SUM_FROM; /* and weights of the strip, in units of KAC_WEIGHT_ONE */
    spread(s, on, whole, [&](int32_t *edge, int32_t left) {
        double x[OWN], own[OWN], sum = KAC_SUM_FROM;
        load_own(x, l, whole, left, -(double)INFINITY);
        l += ROW;
        kac_raw_weights<OWN>(x, top);
        KAC_UNROLL
        for (int k = 0; k < OWN; k++) {
            sum = kac_add_raw(sum, x[k]);
            own[k] = sum - KAC_SUM_FROM;
        }
        const double scan = kac_warp_scan(own[OWN - 1]), start = passed + (scan - own[OWN - 1]);
        uint64_t upto[EDGES] = {before + kac_sum_of(start)};
        KAC_UNROLL
        for (int k = 0; k < OWN; k++)
            upto[k + 1] = before + kac_sum_of(start + own[k]);
        edges(i, x, upto, edge);
        i += ROW;
        passed += __shfl_sync(KAC_WHOLE_WARP, scan, KAC_WARP - 1);
        return 0;
    });
}

/* Stratified: below a sum are the points of all strata before its own, and that of its own if what
 * was drawn is below the remainder. */
static __device__ void spread_stratified(const pool_stage *s, pool_part on,
                                         const kac_divisor *of, uint64_t before)
{
    const kac_pool *p = &s->p;
    const kac_divisor by = *of;
    spread_sums(s, on, before,
                [=](int32_t, const double *, const uint64_t *upto, int32_t *edge) {
                    KAC_UNROLL
                    for (int k = 0; k < EDGES; k++) {
                        const kac_share share = kac_divide(&by, upto[k]);
                        const uint64_t u = kac_below(kac_pool_draw(p, share.whole), 0, by.s);
                        edge[k] = share.whole + (u < share.residue);
                    }
                });
}

/* How many points are below each sum of weights. */
static __device__ void points_below_sums(const points *b, const uint64_t *upto, int32_t *below)
{
    point to[EDGES];
    KAC_UNROLL
    for (int k = 0; k < EDGES; k++)
        to[k] = {upto[k], cell_of(b, upto[k])};
    points_below<EDGES>(b, to, below);
}

/* A retained candidate 0 has the first slot; perhaps it has no weight. */
static __device__ void tell_retained(const pool_stage *s, pool_part on)
{
    if (threadIdx.x == 0 && on.first == 0 && s->p.held)
        s->a->log_w[s->p.first_slot] = kac_pool_log_w(s->p.l[0], true);
}

/* Multinomial: the points below each sum. */
static __device__ void spread_multinomial(const pool_stage *s, pool_part on, uint64_t before,
                                          const points *b)
{
    const int32_t held = s->p.held;
    spread_sums(s, on, before,
                [=](int32_t i, const double *, const uint64_t *upto, int32_t *edge) {
                    points_below_sums(b, upto, edge);
                    KAC_UNROLL
                    for (int k = 0; k < EDGES; k++)
                        edge[k] += i + k > 0 ? held : 0;
                });
    tell_retained(s, on);
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
    const int32_t end = pool_end(on, s->p.candidates),
                  words = (end - on.first + KAC_WARP - 1) / KAC_WARP;
    (void)kac_block_run(
        0, WORDS + 1, kept + s->p.held,
        [=](int32_t i) {
            stays[i] = i < words ? (uint32_t)bits[i] : 0;
            return __popc(stays[i]);
        },
        [=](int32_t i, int32_t upto, int32_t own) { upto_word[i] = upto - own; });
    __syncthreads();
    spread_sums(
        s, on, before, [=](int32_t i, const double *, const uint64_t *upto, int32_t *edge) {
            points_below_sums(b, upto, edge);
            KAC_UNROLL
            for (int k = 0; k < EDGES; k++) {
                const int32_t at = (i + k < end ? i + k : end) - on.first, word = at / KAC_WARP;
                const uint32_t before_at = stays[word] & ((1u << at % KAC_WARP) - 1);
                edge[k] += i + k > 0 ? upto_word[word] + __popc(before_at) : 0;
            }
        });
    tell_retained(s, on);
}

/* Residual: the whole offspring of candidates that weigh so much. */
static __device__ void whole_of(const kac_divisor *by, const double *raw, int32_t *whole)
{
    KAC_UNROLL
    for (int k = 0; k < OWN; k++)
        whole[k] = kac_divide(by, kac_weight_of_raw(raw[k])).whole;
}

/* Those of a tile; strip_count[] = what is before each of its strips. */
static __device__ void find_whole(const pool_stage *s, pool_part on, const kac_divisor *by,
                                  int32_t *all, int32_t *tile_count, int32_t *strip_count)
{
    const bool is_all = is_whole(s, on, s->p.l);
    const int32_t first = first_own(on);
    int32_t sum = 0, total;
    KAC_UNROLL
    for (int32_t k = 0; k < STRIP; k += ROW) {
        double x[OWN];
        int32_t whole[OWN];
        load_own(x, s->p.l + first + k, is_all, s->p.candidates - first - k, -(double)INFINITY);
        kac_raw_weights<OWN>(x, s->v.top);
        whole_of(by, x, whole);
        KAC_UNROLL
        for (int j = 0; j < OWN; j++)
            sum += whole[j];
    }
    sum = kac_warp_scan(sum);
    const int32_t before =
        kac_warps_before(__shfl_sync(KAC_WHOLE_WARP, sum, KAC_WARP - 1), &total);
    if (threadIdx.x % KAC_WARP == 0) strip_count[threadIdx.x / KAC_WARP] = before;
    if (threadIdx.x > 0) return;
    *tile_count = total;
    atomicAdd(all, total);
}

/* Slots from these and the points below the running sum of residues (kac_residual), where the whole
 * offspring before the warp's strip are `passed`. */
static __device__ void spread_residual(const pool_stage *s, pool_part on, const kac_divisor *of,
                                       uint64_t before, int32_t passed, const points *b)
{
    const kac_divisor by = *of;
    spread_sums(s, on, before,
                [&](int32_t, const double *x, const uint64_t *upto, int32_t *edge) {
                    int32_t own[OWN], whole[EDGES], sum = 0;
                    point to[EDGES];
                    whole_of(&by, x, own);
                    KAC_UNROLL
                    for (int k = 0; k < OWN; k++)
                        sum += own[k];
                    const int32_t scan = kac_warp_scan(sum);
                    whole[0] = passed + scan - sum;
                    KAC_UNROLL
                    for (int k = 0; k < EDGES; k++) {
                        if (k > 0) whole[k] = whole[k - 1] + own[k - 1];
                        const kac_share share = kac_divide(&by, upto[k]);
                        to[k] = {share.residue, share.whole - whole[k]};
                        edge[k] = 0;
                    }
                    if (b->draws > 0) points_below<EDGES>(b, to, edge);
                    KAC_UNROLL
                    for (int k = 0; k < EDGES; k++)
                        edge[k] += whole[k];
                    passed += __shfl_sync(KAC_WHOLE_WARP, scan, KAC_WARP - 1);
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

/* Those in which a block has POINT_THREADS, those that ask for points, and those that write slots. */
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
    const bool has_points =
        a->group_rule == KAC_RULE_CATEGORICAL &&
        (a->scheme == KAC_SCHEME_MULTINOMIAL || a->scheme == KAC_SCHEME_KILLING ||
         a->scheme == KAC_SCHEME_RESIDUAL);
    const size_t tiles = (size_t)(candidates / TILE) + pools + 1;
    const size_t units = has_points ? (size_t)point_units(call->x.n, a->pools) + MOST_UNITS : 0;
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
