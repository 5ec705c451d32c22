/* slots.cuh -- the slots of the candidates of a tile: which candidate goes on in each, out of
 * how many offspring each has.
 *
 * A warp goes along a strip of a tile, a row of candidates at a time.  Their slots are
 * neighbours too, so what is written is put in order in shared memory.
 */
#ifndef KAC_SLOTS_CUH
#define KAC_SLOTS_CUH

#include "pool_cuda.cuh"

enum {
    TILE = 4096,
    WARPS = (int)KAC_THREADS / (int)KAC_WARP,
    STRIP = (int)TILE / WARPS, /* a warp's share of a tile */
    OWN = 4,                   /* neighbours that a lane takes */
    ROW = OWN * (int)KAC_WARP,
    VIEW = 2 * OWN, /* and slots */
    WINDOW = 2 * ROW
};

/* N numbers from and into memory where they begin at 16 bytes. */
template <int N, class T> static __device__ inline void load_whole(T *to, const T *x)
{
    uint4 words[N * sizeof(T) / sizeof(uint4)];
    KAC_UNROLL
    for (size_t k = 0; k < sizeof words / sizeof *words; k++)
        words[k] = reinterpret_cast<const uint4 *>(x)[k];
    memcpy(to, words, sizeof words);
}

template <int N, class T> static __device__ inline void store_whole(T *to, const T *x)
{
    uint4 words[N * sizeof(T) / sizeof(uint4)];
    memcpy(words, x, sizeof words);
    KAC_UNROLL
    for (size_t k = 0; k < sizeof words / sizeof *words; k++)
        reinterpret_cast<uint4 *>(to)[k] = words[k];
}

static __device__ inline bool is_aligned(const void *x)
{
    return (uintptr_t)x % sizeof(uint4) == 0;
}

/* x[0 .. OWN-1], `none` from x[left] on.  whole: all are there and load_whole serves. */
template <class T>
static __device__ inline void load_own(T *to, const T *x, bool whole, int32_t left, T none)
{
    if (whole) {
        load_whole<OWN>(to, x);
        return;
    }
    KAC_UNROLL
    for (int k = 0; k < OWN; k++)
        to[k] = k < left ? x[k] : none;
}

/* Rows of a warp's candidates, and their slots: mark[slot] is the candidate whose first slot
 * that is, else 0. */
struct __align__(16) slot_window
{
    int32_t mark[WINDOW], row[ROW];
};

/* The largest of the lanes before this one, 0 for the first; none is below that. */
static __device__ inline int32_t warp_max_before(int32_t value)
{
    KAC_UNROLL
    for (int by = 1; by < KAC_WARP; by *= 2) {
        const int32_t other = __shfl_up_sync(KAC_WHOLE_WARP, value, by);
        if (other > value) value = other;
    }
    value = __shfl_up_sync(KAC_WHOLE_WARP, value, 1);
    return threadIdx.x % KAC_WARP > 0 ? value : 0;
}

/* The slots to[0 .. slots-1] of a row of candidates, WINDOW at most: a slot belongs to the last
 * that is marked up to it.  A lane's have these rows and slots edge[k] - low .. edge[k+1] - low
 * - 1.  The marks are 0 before and after. */
static __device__ inline void fill_window(slot_window *w, int32_t *to, int32_t slots,
                                          int32_t low, const int32_t *row, const int32_t *edge)
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
    const int32_t *mark = &w->mark[lane], left = slots - lane;
    to += lane;
    KAC_UNROLL
    for (int k = 0; k < VIEW; k++) {
        if (k == OWN && slots <= ROW) break; /* half of it is mostly enough */
        const int32_t mine = w->row[mark[k * KAC_WARP]];
        if (k * KAC_WARP < left) kac_store_past(&to[k * KAC_WARP], mine);
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
static __device__ inline void take(const pool_stage *s, const share_of_slots *c, int32_t me,
                                   int32_t step)
{
    for (int32_t j = c->first + me; j < c->end; j += step)
        s->p.chosen[j] = c->row;
}

/* Where a lane begins in the first row of its strip. */
static __device__ inline int32_t first_own(pool_part on)
{
    return on.first + (int32_t)(threadIdx.x / KAC_WARP * STRIP + threadIdx.x % KAC_WARP * OWN);
}

/* Of the tile's slots. */
static __device__ inline void clear_log_w(const pool_stage *s, pool_part on)
{
    double *to = s->a->log_w + s->p.first_slot + on.first + threadIdx.x;
    const int32_t n = s->p.n - on.first;
    if (n >= TILE) {
        KAC_UNROLL
        for (int k = 0; k < TILE; k += KAC_THREADS)
            kac_store_past(&to[k], 0.0);
    } else {
        for (int32_t k = 0; k + (int32_t)threadIdx.x < n; k += KAC_THREADS)
            kac_store_past(&to[k], 0.0);
    }
}

/* Whether a part is a tile whose l, or counts, and rows load_whole serves. */
static __device__ inline bool is_whole(const pool_stage *s, pool_part on, const void *x)
{
    return s->p.candidates - on.first >= TILE && is_aligned(x) && is_aligned(s->p.row);
}

/* The slots of the candidates of a tile, of which each warp has a strip.  edges(edge, left),
 * called by whole warps row after row, says for a lane's next OWN, of which there are `left`,
 * that theirs are edge[k] .. edge[k + 1] - 1 beyond what it returns.  Few slots go through a
 * window of the warp, more are written candidate by candidate, and those of one that has very
 * many by the block. */
template <class Edges>
static __device__ inline void spread(const pool_stage *s, pool_part on, bool whole, Edges edges)
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
            fill_window(window, p->chosen + (base + low), slots, low, row, edge);
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
static __device__ inline void spread_counts(const pool_stage *s, pool_part on, int32_t before)
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
static __device__ inline void spread_systematic(const pool_stage *s, pool_part on,
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

#endif /* KAC_SLOTS_CUH */
