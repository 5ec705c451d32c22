/* point_slots.cuh -- slots by running sums of weights and residues: those of the schemes that
 * draw more than one point for a pool.
 */
#ifndef KAC_POINT_SLOTS_CUH
#define KAC_POINT_SLOTS_CUH

#include "points.cuh"
#include "slots.cuh"

enum { EDGES = OWN + 1 };

/* Slots from running sums of weights, where those before the warp's strip are `before`.
 * edges(i, x, upto, edge): of the OWN candidates from i on x[k] are the raw weights; slots up
 * to the sum upto[k] end at edge[k]. */
template <class Edges>
static __device__ inline void spread_sums(const pool_stage *s, pool_part on, uint64_t before,
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

/* Stratified: below a sum are the points of all strata before its own, and that of its own if
 * what was drawn is below the remainder. */
static __device__ inline void spread_stratified(const pool_stage *s, pool_part on,
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
static __device__ inline void points_below_sums(const points *b, const uint64_t *upto,
                                                int32_t *below)
{
    point to[EDGES];
    KAC_UNROLL
    for (int k = 0; k < EDGES; k++)
        to[k] = {upto[k], cell_of(b, upto[k])};
    points_below<EDGES>(b, to, below);
}

/* A retained candidate 0 has the first slot; perhaps it has no weight. */
static __device__ inline void tell_retained(const pool_stage *s, pool_part on)
{
    if (threadIdx.x == 0 && on.first == 0 && s->p.held)
        s->a->log_w[s->p.first_slot] = kac_pool_log_w(s->p.l[0], true);
}

/* Multinomial: the points below each sum. */
static __device__ inline void spread_multinomial(const pool_stage *s, pool_part on,
                                                 uint64_t before, const points *b)
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

/* Killing: these, and the candidates that stay, of which `kept` are before the part; a retained
 * one has a slot for certain. */
static __device__ inline void spread_killing(const pool_stage *s, pool_part on, uint64_t before,
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
static __device__ inline void whole_of(const kac_divisor *by, const double *raw, int32_t *whole)
{
    KAC_UNROLL
    for (int k = 0; k < OWN; k++)
        whole[k] = kac_divide(by, kac_weight_of_raw(raw[k])).whole;
}

/* Those of a tile; strip_count[] = what is before each of its strips. */
static __device__ inline void find_whole(const pool_stage *s, pool_part on,
                                         const kac_divisor *by, int32_t *all,
                                         int32_t *tile_count, int32_t *strip_count)
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

/* Slots from these and the points below the running sum of residues (kac_residual), where the
 * whole offspring before the warp's strip are `passed`. */
static __device__ inline void spread_residual(const pool_stage *s, pool_part on,
                                              const kac_divisor *of, uint64_t before,
                                              int32_t passed, const points *b)
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

#endif /* KAC_POINT_SLOTS_CUH */
