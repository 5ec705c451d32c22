/* summary_cuda.cu -- a step in a few numbers, so that the host reads them when it likes.
 *
 * Quantiles are selected digit by digit, eight bits at a time from the top: the values' order is
 * that of an integer key.  All six ranks go through together, bound by reading the values. */
#include "block.cuh"
#include "summary.h"

enum { DIGITS = 8, BINS = 256, RANKS = 2 * KAC_SUMMARY_VALUES };

/* The block that does alone what many do where there are more than FEW particles a thread. */
enum { ALONE = 512, FEW = 8 };

/* What is known of one rank: the digits so far, and its rank among those that share them. */
struct rank_search {
    uint64_t prefix;
    int64_t left;
};

struct selection {
    rank_search rank[RANKS];
    uint32_t bin[RANKS][BINS];
};

/* An integer whose order is that of the numbers. */
static __device__ uint64_t key_of(double x)
{
    uint64_t bits = kac_bits64(x);
    return bits >> 63 ? ~bits : bits | (uint64_t)1 << 63;
}

static __device__ double number_of(uint64_t key)
{
    return kac_from_bits64(key >> 63 ? key & ~((uint64_t)1 << 63) : ~key);
}

KAC_KERNEL stamp(int64_t *nanoseconds)
{
    *nanoseconds = KAC_NANOSECONDS();
}

kac_status kac_cuda_stamp(kac_device *dev, int64_t *nanoseconds)
{
    return KAC_LAUNCH(dev, stamp, 1, 1, 0, nanoseconds);
}

/* By a block. */
static __device__ void begin_ranks(selection *s, int64_t n)
{
    for (int i = (int)threadIdx.x; i < RANKS * BINS; i += (int)blockDim.x)
        (&s->bin[0][0])[i] = 0;
    if (threadIdx.x >= RANKS) return;
    kac_quantile_at q = kac_quantile_place(n, kac_summary_share((int)threadIdx.x / 2));
    s->rank[threadIdx.x].prefix = 0;
    s->rank[threadIdx.x].left = threadIdx.x % 2 == 0 ? q.below : q.above;
}

KAC_KERNEL begin(selection *s, int64_t n)
{
    begin_ranks(s, n);
}

/* Counts, for each rank, the next digit of a value if it shares the rank's prefix. */
static __device__ void count_digit(double value, int digit, const uint64_t *prefix,
                                   uint32_t *bin)
{
    uint64_t key = key_of(value) >> (64 - 8 * (digit + 1));
    for (int r = 0; r < RANKS; r++)
        if (key >> 8 == prefix[r]) atomicAdd(&bin[r * BINS + (int)(key & 255)], 1u);
}

KAC_KERNEL count(const double *value, int64_t n, int digit, selection *s)
{
    KAC_SHARED(uint32_t, bin, RANKS * BINS);
    KAC_SHARED(uint64_t, prefix, RANKS);
    for (int i = (int)threadIdx.x; i < RANKS * BINS; i += (int)blockDim.x)
        bin[i] = 0;
    if (threadIdx.x < RANKS) prefix[threadIdx.x] = s->rank[threadIdx.x].prefix;
    __syncthreads();
    KAC_EACH (i, n)
        count_digit(value[i], digit, prefix, bin);
    __syncthreads();
    for (int i = (int)threadIdx.x; i < RANKS * BINS; i += (int)blockDim.x)
        if (bin[i] > 0) atomicAdd(&(&s->bin[0][0])[i], bin[i]);
}

/* The next digit of each rank: a warp a rank.  Lanes have eight bins each; the digit is in the
 * first whose bins up to there hold more than is left. */
static __device__ void descend_ranks(selection *s)
{
    constexpr int EACH = (int)BINS / (int)KAC_WARP;
    const int rank = (int)threadIdx.x / KAC_WARP, lane = (int)threadIdx.x % KAC_WARP;
    if (rank >= RANKS) return;
    rank_search *r = &s->rank[rank];
    uint32_t *mine = s->bin[rank] + lane * EACH, bin[EACH];
    int64_t own = 0, left = r->left;
    KAC_UNROLL
    for (int k = 0; k < EACH; k++) {
        own += bin[k] = mine[k];
        mine[k] = 0;
    }
    const int64_t upto = kac_warp_scan(own);
    const unsigned above = __ballot_sync(KAC_WHOLE_WARP, upto > left);
    if (lane != __ffs((int)above) - 1) return;
    int digit = lane * EACH;
    left -= upto - own;
    for (int k = 0; left >= (int64_t)bin[k]; k++, digit++)
        left -= bin[k];
    r->left = left;
    r->prefix = r->prefix << 8 | (uint64_t)digit;
}

KAC_KERNEL descend(selection *s)
{
    descend_ranks(s);
}

KAC_KERNEL mark_eves(const int32_t *eve, int64_t n, int32_t *mark)
{
    KAC_EACH (i, n)
        mark[eve[i]] = 1;
}

struct summary_call {
    kac_summary_args a;
    kac_particles x;
    int64_t n;
};

/* The marks, the groups, and what is only copied; by a block. */
static __device__ void sum_up(const kac_summary_args *a, int64_t n, const selection *s,
                              kac_summary *out)
{
    KAC_SHARED(int32_t, total, 2);
    int t = (int)threadIdx.x;
    if (t < 2) total[t] = 0;
    __syncthreads();
    int32_t eves = 0, selected = 0;
    int64_t tries = 0;
    for (int32_t i = t; i < a->eves_below; i += (int)blockDim.x)
        eves += a->mark[i];
    for (int32_t g = t; g < a->n_groups; g += (int)blockDim.x) {
        selected += a->groups[g].selected;
        tries += a->groups[g].tries;
    }
    tries = kac_block_sum(tries);
    atomicAdd(&total[0], eves);
    atomicAdd(&total[1], selected);
    if (t < KAC_SUMMARY_LANES) {
        double sum = 0, least = (double)INFINITY;
        for (int32_t g = t; g < a->n_groups; g += KAC_SUMMARY_LANES) {
            sum += a->groups[g].ess;
            if (a->groups[g].ess < least) least = a->groups[g].ess;
        }
        for (int half = KAC_SUMMARY_LANES / 2; half > 0; half /= 2) {
            double other = __shfl_down_sync(KAC_WHOLE_WARP, least, half);
            sum += __shfl_down_sync(KAC_WHOLE_WARP, sum, half);
            if (other < least) least = other;
        }
        if (t == 0) {
            out->ess = sum / a->n_groups;
            out->ess_least = least;
        }
    }
    __syncthreads();
    if (t < KAC_SUMMARY_VALUES) {
        kac_quantile_at q = kac_quantile_place(n, kac_summary_share(t));
        out->value[t] = kac_quantile_between(number_of(s->rank[2 * t].prefix),
                                             number_of(s->rank[2 * t + 1].prefix), q.weight);
    }
    if (t > 0) return;
    out->eves = total[0];
    out->selected = total[1];
    out->tries = tries;
    out->t = a->levels[a->level].t;
    out->distinct = *a->distinct;
    for (int k = 0; k < 4; k++)
        out->made[k] = a->made[k];
    for (int k = 0; k < 2; k++)
        out->idle[k] = a->idle != NULL ? a->idle[k] : 0;
    out->nanoseconds = KAC_NANOSECONDS();
}

KAC_KERNEL finish(KAC_ARGS summary_call call, const selection *s, kac_summary *out)
{
    sum_up(&call.a, call.n, s, out);
}

/* All of it by one block, in whose shared memory the search is. */
KAC_KERNEL __launch_bounds__(ALONE)
    summarise_alone(KAC_ARGS summary_call call, kac_summary *out)
{
    const kac_summary_args *a = &call.a;
    KAC_SHARED(selection, s, 1);
    for (int32_t i = (int32_t)threadIdx.x; i < a->eves_below; i += (int32_t)blockDim.x)
        a->mark[i] = 0;
    begin_ranks(s, call.n);
    for (int digit = 0; digit < DIGITS; digit++) {
        uint64_t prefix[RANKS];
        __syncthreads();
        for (int r = 0; r < RANKS; r++)
            prefix[r] = s->rank[r].prefix;
        for (int64_t i = threadIdx.x; i < call.n; i += blockDim.x)
            count_digit(call.x.value[i], digit, prefix, &s->bin[0][0]);
        __syncthreads();
        descend_ranks(s);
    }
    for (int64_t i = threadIdx.x; i < call.n; i += blockDim.x)
        a->mark[call.x.eve[i]] = 1;
    __syncthreads();
    sum_up(a, call.n, s, out);
}

kac_status kac_cuda_summarise(kac_device *dev, const kac_summary_args *a, kac_summary *out)
{
    int64_t n = a->x->n;
    void *scratch = NULL;
    unsigned blocks = kac_blocks(n) < 512 ? kac_blocks(n) : 512;
    summary_call call = {*a, *a->x, n};
    if (n <= ALONE * FEW && a->eves_below <= ALONE * FEW)
        return KAC_LAUNCH(dev, summarise_alone, 1, ALONE, 0, call, out);
    KAC_TRY(kac_cuda_scratch(dev, sizeof(selection), &scratch));
    selection *s = (selection *)scratch;
    KAC_TRY(KAC_LAUNCH(dev, begin, 1, KAC_THREADS, 0, s, n));
    for (int digit = 0; digit < DIGITS; digit++) {
        KAC_TRY(KAC_LAUNCH(dev, count, blocks, KAC_THREADS, 0, a->x->value, n, digit, s));
        KAC_TRY(KAC_LAUNCH(dev, descend, 1, KAC_THREADS, 0, s));
    }
    KAC_TRY(kac_cuda_status(
        cudaMemsetAsync(a->mark, 0, (size_t)a->eves_below * sizeof *a->mark, kac_stream(dev)),
        "summarise"));
    KAC_TRY(KAC_LAUNCH(dev, mark_eves, kac_blocks(n), KAC_THREADS, 0, a->x->eve, n, a->mark));
    return KAC_LAUNCH(dev, finish, 1, KAC_THREADS, 0, call, s, out);
}
