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
    kac_divisor by;          /* n / sum, of a systematic draw plus its point */
    bool selects;
};

struct tiles_call {
    select_call of;
    pool_state *state; /* [pools] */
    unsigned long long
        *tile_sum; /* [tiles of all pools] of weights, from JUDGE on of those before; then residues */
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

/* In order; a phase after JUDGE knows what was decided. */
enum phase {
    UNIT,
    TOP,
    SUMS,
    JUDGE,       /* a block for each pool */
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
    state->by = s->a->scheme == KAC_SCHEME_SYSTEMATIC
                    ? pool_systematic(&s->p)
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
    OWN = 4, /* neighbours that a thread takes */
    STRIP = OWN * (int)KAC_WARP,
    WINDOW = 2 * STRIP
};

/* OWN numbers from and into memory where they begin at 16 bytes. */
template <class T> static __device__ void load_whole(T *to, const T *x)
{
    uint4 words[OWN * sizeof(T) / sizeof(uint4)];
    KAC_UNROLL
    for (size_t k = 0; k < sizeof words / sizeof *words; k++)
        words[k] = reinterpret_cast<const uint4 *>(x)[k];
    memcpy(to, words, sizeof words);
}

static __device__ void store_whole(int32_t *to, const int32_t *x)
{
    uint4 words;
    static_assert(sizeof words == OWN * sizeof *x, "one access");
    memcpy(&words, x, sizeof words);
    *reinterpret_cast<uint4 *>(to) = words;
}

/* x[0 .. OWN-1], `none` from x[left] on. */
template <class T>
static __device__ void load_own(T *to, const T *x, int32_t left, T none)
{
    if (left >= OWN && (uintptr_t)x % sizeof(uint4) == 0) {
        load_whole(to, x);
        return;
    }
    KAC_UNROLL
    for (int k = 0; k < OWN; k++)
        to[k] = k < left ? x[k] : none;
}

/* A warp's candidates and their slots: mark[slot] is the candidate whose first slot that is, else
 * 0. */
struct __align__(16) slot_window
{
    int32_t mark[WINDOW], row[STRIP];
};

/* The largest of the lanes up to this one. */
static __device__ int32_t warp_max_scan(int32_t value)
{
    KAC_UNROLL
    for (int by = 1; by < KAC_WARP; by *= 2) {
        const int32_t other = __shfl_up_sync(KAC_WHOLE_WARP, value, by);
        if (other > value) value = other;
    }
    return value;
}

/* A strip's slots to[0 .. slots-1], WINDOW at most: a slot belongs to the last candidate marked up to
 * it.  A thread's candidates have these rows and slots edge[k] - edge[0] of lane 0 .. edge[k+1] - 1.
 * The marks are 0 before and after. */
static __device__ void fill_window(slot_window *w, int32_t *to, int32_t slots, int32_t low,
                                   const int32_t *row, const int32_t *edge)
{
    const int32_t lane = (int32_t)threadIdx.x % KAC_WARP, none[OWN] = {0};
    store_whole(&w->row[OWN * lane], row);
    KAC_UNROLL
    for (int k = 0; k < OWN; k++)
        if (edge[k + 1] > edge[k]) w->mark[edge[k] - low] = OWN * lane + k;
    __syncwarp();
    int32_t carry = 0;
    for (int32_t first = 0; first < slots; first += STRIP) {
        int32_t *marks = &w->mark[first + OWN * lane], own[OWN];
        load_whole(own, marks);
        KAC_UNROLL
        for (int k = 1; k < OWN; k++)
            if (own[k - 1] > own[k]) own[k] = own[k - 1];
        const int32_t upto = warp_max_scan(own[OWN - 1] > carry ? own[OWN - 1] : carry);
        const int32_t left = __shfl_up_sync(KAC_WHOLE_WARP, upto, 1);
        const int32_t before = lane > 0 ? left : carry;
        carry = __shfl_sync(KAC_WHOLE_WARP, upto, KAC_WARP - 1);
        KAC_UNROLL
        for (int k = 0; k < OWN; k++)
            if (before > own[k]) own[k] = before;
        store_whole(marks, own);
        __syncwarp();
        KAC_UNROLL
        for (int k = 0; k < OWN; k++) {
            const int32_t j = first + k * KAC_WARP + lane;
            if (j < slots) to[j] = w->row[w->mark[j]];
        }
        __syncwarp();
        store_whole(marks, none);
    }
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

/* The slots of the candidates of a part.  edges(i, edge), called by whole blocks, says for the OWN
 * from i on that theirs are edge[k] .. edge[k + 1] - 1.  Few slots go through a window of the warp, more
 * are written candidate by candidate, and those of one that has very many by the block. */
template <class Edges>
static __device__ void spread(const pool_stage *s, pool_part on, Edges edges)
{
    enum { MANY = 128, LIST = 16 };
    const kac_pool *p = &s->p;
    const int32_t end = pool_end(on, p->candidates), me = (int32_t)threadIdx.x,
                  lane = me % KAC_WARP, none[OWN] = {0};
    KAC_SHARED(slot_window, windows, (int)KAC_THREADS / (int)KAC_WARP);
    KAC_SHARED(int32_t, listed, 1);
    KAC_SHARED(share_of_slots, list, LIST);
    slot_window *window = &windows[me / KAC_WARP];
    for (int32_t m = 0; m < WINDOW; m += STRIP)
        store_whole(&window->mark[m + OWN * lane], none);
    if (me == 0) *listed = 0;
    EACH_OF (j, on, p->n)
        s->a->log_w[p->first_slot + j] = 0; /* what has offspring has weight */
    for (int32_t chunk = on.first; chunk < end; chunk += OWN * (int32_t)KAC_THREADS) {
        const int32_t i = chunk + OWN * me;
        int32_t row[OWN], edge[OWN + 1];
        load_own(row, p->row + i, end - i, 0);
        edges(i, edge); /* has barriers */
        const int32_t low = __shfl_sync(KAC_WHOLE_WARP, edge[0], 0);
        const int32_t slots = __shfl_sync(KAC_WHOLE_WARP, edge[OWN], KAC_WARP - 1) - low;
        if (slots <= WINDOW) {
            fill_window(window, p->chosen + low, slots, low, row, edge);
            continue;
        }
        KAC_UNROLL
        for (int k = 0; k < OWN; k++) {
            const share_of_slots own = {row[k], edge[k], edge[k + 1]};
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
    const int32_t *count = s->count, end = pool_end(on, s->p.candidates);
    spread(s, on, [&](int32_t i, int32_t *edge) {
        int32_t own[OWN], sum = 0, total;
        load_own(own, count + i, end - i, 0);
        KAC_UNROLL
        for (int k = 0; k < OWN; k++)
            sum += own[k];
        edge[0] = before + kac_block_scan(sum, &total) - sum;
        KAC_UNROLL
        for (int k = 0; k < OWN; k++)
            edge[k + 1] = edge[k] + own[k];
        before += total;
    });
    if (threadIdx.x == 0 && on.first == 0 && s->p.held && count[0] > 0) /* perhaps no weight */
        s->a->log_w[s->p.first_slot] = kac_pool_log_w(s->p.l[0], true);
}

/* Systematic, where the weights before the part are `before`. */
static __device__ void spread_systematic(const pool_stage *s, pool_part on,
                                         const kac_divisor *by, uint64_t before)
{
    const double *l = s->p.l, top = s->v.top;
    const int32_t end = pool_end(on, s->p.candidates);
    const kac_quotients q = kac_quotients_of(*by, before, (double)KAC_WEIGHT_ONE);
    double passed = 0; /* weights of the part, in units of that */
    spread(s, on, [&](int32_t i, int32_t *edge) {
        double x[OWN], upto[OWN], sum = KAC_SUM_FROM, total;
        load_own(x, l + i, end - i, -(double)INFINITY);
        kac_raw_weights<OWN>(x, top);
        KAC_UNROLL
        for (int k = 0; k < OWN; k++) {
            sum = kac_add_raw(sum, x[k]);
            upto[k] = sum - KAC_SUM_FROM;
        }
        const double own = upto[OWN - 1], left = passed + (kac_block_scan(own, &total) - own);
        const double near = kac_quotient_near(&q, left);
        edge[0] = kac_quotient_whole(&q, near, left);
        KAC_UNROLL
        for (int k = 0; k < OWN; k++)
            edge[k + 1] = kac_quotient_whole(&q, fma(upto[k], q.each, near), left + upto[k]);
        passed += total;
    });
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
static __device__ void play_tile(const pool_stage *s, pool_part on, const kac_divisor *by,
                                 unsigned long long *left, int32_t *tile_count)
{
    KAC_SHARED(uint64_t, residue, TILE + TILE / 16);
    KAC_SHARED(uint16_t, champion, TILE + TILE / 16);
    KAC_SHARED(uint8_t, gets, TILE);
    const kac_pool *p = &s->p;
    const int32_t n = pool_end(on, p->candidates) - on.first, me = (int32_t)threadIdx.x;
    int32_t whole[EACH], sum = 0;
    KAC_UNROLL
    for (int k = 0; k < EACH; k++) {
        const int32_t t = k * KAC_THREADS + me;
        whole[k] = 0;
        if (t >= n) continue;
        const kac_share share = kac_divide(by, kac_weight(p->l[on.first + t], s->v.top));
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

/* One phase of one tile.  sums, counts: of the pool's tiles. */
template <phase PHASE>
static __device__ void do_tile(const pool_stage *s, int32_t tile, pool_state *state,
                               unsigned long long *sums, int32_t *counts)
{
    const pool_part on = {tile * TILE, TILE};
    const int32_t n = pool_end(on, s->p.candidates) - on.first;
    if constexpr (PHASE == UNIT || PHASE == TOP) find_largest(s, on, state, PHASE);
    if constexpr (PHASE == SUMS) find_sums(s, on, state, &sums[tile]);
    if constexpr (PHASE == WEIGHTS) pool_run_weights(s, on, sums[tile]);
    if constexpr (PHASE == SYSTEMATIC) spread_systematic(s, on, &state->by, sums[tile]);
    if constexpr (PHASE == COUNT_TILES) {
        const int32_t *count = s->count;
        sum_part(on, s->p.candidates, &counts[tile], [=](int32_t i) { return count[i]; });
    }
    if constexpr (PHASE == COUNTS) pool_run_counts(s, on, kac_block_total(counts, tile));
    if constexpr (PHASE == SLOTS) spread_counts(s, on, kac_block_total(counts, tile));
    if constexpr (PHASE == DRAW) pool_draw_residual(s, on);
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
    if (PHASE > JUDGE) {
        s.v.selects = state->selects;
        s.p.sum = state->sum;
        s.best = INT32_MAX - (int32_t)state->best;
        if (PHASE != EMIT && !s.v.selects) {
            if (PHASE == SYSTEMATIC || PHASE == SLOTS) pass_on(&s);
            return;
        }
    }
    if constexpr (PHASE == JUDGE) {
        judge(&s, number, state, call.tile_sum + before);
    } else if constexpr (PHASE == EXCHANGE || PHASE == MIRROR) {
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
    KAC_TRY(KAC_LAUNCH(dev, on_tiles<JUDGE>, dim3(1, grid.y), KAC_THREADS, 0, *c, 0));
    if (rule == KAC_RULE_CATEGORICAL) KAC_TRY(draw_large(dev, c, grid));
    if (rule == KAC_RULE_TOP_K || rule == KAC_RULE_REPLACE) KAC_TRY(sort_large(dev, c, grid));
    if (rule != KAC_RULE_CATEGORICAL || c->of.a.scheme == KAC_SCHEME_STRATIFIED) DO(EMIT, 0);
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
