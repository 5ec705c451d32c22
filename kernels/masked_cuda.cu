/* masked_cuda.cu -- absorbing diffusion on a GPU: children, completions, noised copies.
 *
 * Kernels with a number of letters S as parameter exist for S = 4, whose laws stay in registers,
 * and for 0, any number.
 */
#include "fault.cuh"
#include "masked_site.h"
#include "particles.h"
#include "primitives.cuh"

#define LAUNCH_FOR(dev, states, kernel, blocks, ...)                                           \
    ((states) == 4 ? KAC_LAUNCH(dev, kernel<4>, blocks, KAC_THREADS, 0, __VA_ARGS__)           \
                   : KAC_LAUNCH(dev, kernel<0>, blocks, KAC_THREADS, 0, __VA_ARGS__))

/* Arguments with the host structs that they point to.  Their names are this file's alone. */
namespace
{
struct propose_call {
    kac_propose_args a;
    kac_particles x, y;
    kac_memo memo;
    kac_retained retained;
};

struct complete_call {
    kac_complete_args a;
    kac_memo memo;
    kac_fresh fresh;
};

struct blend_call {
    kac_blend_args a;
    kac_jobs jobs;
};

struct slope_call {
    kac_slope_args a;
    kac_fresh fresh;
};

/* The rows to score. */
struct score_call {
    kac_renoise_args a;
    kac_memo memo;
    const uint8_t *x;
    const int32_t *entry;
    double *out;
};
} // namespace

/* ---- start -------------------------------------------------------------------------------- */

KAC_KERNEL start(KAC_ARGS kac_start_args a, uint8_t *x)
{
    KAC_EACH (t, (int64_t)a.n * a.shape.stride) {
        int32_t l = (int32_t)(t % a.shape.stride);
        uint8_t token = (uint8_t)a.shape.states;
        if (a.fixed != NULL && l < a.shape.length) token = a.fixed[l];
        x[t] = l < a.shape.length ? token : 0;
    }
}

kac_status kac_cuda_masked_start(kac_device *dev, const kac_start_args *a, uint8_t *x)
{
    return KAC_LAUNCH(dev, start, kac_blocks((int64_t)a->n * a->shape.stride), KAC_THREADS, 0,
                      *a, x);
}

/* ---- children ----------------------------------------------------------------------------- */

static propose_call call_of(const kac_propose_args *a)
{
    return {*a, *a->x, *a->y, *a->memo,
            a->retained != NULL ? *a->retained : kac_retained{0, NULL, NULL}};
}

/* The arguments of a kernel, pointing to the structs that came with them. */
template <int S> static __device__ kac_propose_args args_of(const propose_call *call)
{
    kac_propose_args a = call->a;
    if (S > 0) a.shape.states = S;
    a.x = &call->x;
    a.y = const_cast<kac_particles *>(&call->y);
    a.memo = &call->memo;
    if (a.retained != NULL) a.retained = &call->retained;
    return a;
}

/* Children as they are before anything is revealed. */
KAC_KERNEL begin(KAC_ARGS propose_call call)
{
    kac_propose_args a = args_of<0>(&call);
    KAC_EACH (c, (int64_t)kac_live(a.x->live, a.x->n) * a.children) {
        a.y->entry[c] = a.keep_entries ? a.x->entry[c / a.children] : -1;
        a.y->ratio[c] = 0;
    }
}

enum { SITES = 4, CHILDREN = 16 }; /* of a thread */

/* A bit for each of the sites 4 w .. 4 w + 3 of a row that is masked; word holds their tokens. */
static __device__ uint32_t masked_of(const kac_shape *shape, int32_t w, uint32_t word)
{
    uint32_t masked = 0;
    for (int32_t j = 0; j < SITES; j++)
        if ((int32_t)(word >> 8 * j & 255) == shape->states && SITES * w + j < shape->length)
            masked |= 1u << j;
    return masked;
}

/* The law of a site as what it is drawn from. */
template <int S> struct drawn_law {
    uint32_t sums[S > 0 ? S : KAC_MAX_STATES];
    bool known, lawful, alive;
};

template <int S>
static __device__ void know(const kac_propose_args *a, int32_t i, int32_t l, drawn_law<S> *out)
{
    int32_t states = a->shape.states;
    const float *logits = kac_logits_of(a->memo, a->x->entry[i]);
    kac_site_law law = kac_law_of_site(a, i, l, logits + (int64_t)l * states);
    out->known = true;
    out->lawful = law.lawful;
    out->alive = law.alive;
    for (int32_t k = 0; k < states && law.alive; k++)
        out->sums[k] = law.drawn[k];
}

/* Reveals sites 4 w .. 4 w + 3 of up to 16 children of particle i, from child `begin` on, and
 * writes these of each as one word.  The logits of a site are read at most once, and only where
 * a child reveals it.  Bound by Philox: a draw for each masked site of each child. */
template <int S>
static __device__ void reveal_sites(const kac_propose_args *a, int32_t i, int32_t w,
                                    int32_t begin)
{
    int32_t states = a->shape.states, words = a->shape.stride / SITES;
    int32_t end = begin + CHILDREN < a->children ? begin + CHILDREN : a->children;
    uint64_t threshold = a->levels[a->clock->level + 1].reveal;
    uint32_t tokens = reinterpret_cast<const uint32_t *>(a->x->x)[(int64_t)i * words + w];
    uint32_t masked = threshold > 0 ? masked_of(&a->shape, w, tokens) : 0;
    const uint8_t *path = kac_retained_by(a, i);
    kac_key key = kac_key_of(a->seed, a->clock, &a->groups[a->x->group[i]], i);
    drawn_law<S> law[SITES];
    bool lawless = false;
    for (int32_t j = 0; j < SITES; j++)
        law[j].known = false;

    for (int32_t m = begin; m < end; m++) {
        int64_t c = (int64_t)i * a->children + m;
        bool follows = m == 0 && path != NULL;
        uint32_t word = tokens;
        key.child = (uint32_t)m;
        KAC_UNROLL
        for (int32_t j = 0; j < SITES; j++) {
            int32_t l = SITES * w + j;
            if (!(masked >> j & 1)) continue;
            kac_u32x4 draw = kac_draw(key, KAC_DRAW_PROPOSE, (uint32_t)l);
            if (follows ? path[l] == states : draw.v[0] >= threshold) continue;
            if (!law[j].known) know(a, i, l, &law[j]);
            lawless |= !law[j].lawful;
            uint32_t token = follows        ? path[l]
                             : law[j].alive ? kac_token(law[j].sums, draw, states)
                                            : 0;
            word = (word & ~(255u << 8 * j)) | token << 8 * j;
        }
        reinterpret_cast<uint32_t *>(a->y->x)[c * words + w] = word;
        if (word != tokens) a->y->entry[c] = -1; /* by whoever reveals a site of it */
    }
    if (lawless) kac_fault_note(a->fault, {KAC_FAULT_NAN, i, a->clock->move, -1});
}

/* A thread for each four sites of a particle; row y of the grid has the children from 16 y on. */
template <int S> KAC_KERNEL reveal(KAC_ARGS propose_call call)
{
    kac_propose_args a = args_of<S>(&call);
    int32_t words = a.shape.stride / SITES;
    a.twist.tilt = NULL;
    a.twist.allowed = NULL;
    KAC_EACH (t, (int64_t)kac_live(a.x->live, a.x->n) * words)
        reveal_sites<S>(&a, (int32_t)(t / words), (int32_t)(t % words),
                        (int32_t)blockIdx.y * CHILDREN);
}

/* The same where the law is another than the denoiser's. */
template <int S> KAC_KERNEL reveal_twisted(KAC_ARGS propose_call call)
{
    const kac_propose_args a = args_of<S>(&call);
    int32_t words = a.shape.stride / SITES;
    KAC_EACH (t, (int64_t)kac_live(a.x->live, a.x->n) * words)
        reveal_sites<S>(&a, (int32_t)(t / words), (int32_t)(t % words),
                        (int32_t)blockIdx.y * CHILDREN);
}

/* The ratio of a twisted child, a warp for each, from what it reveals: the laws of the few sites
 * are made once more, and their terms are added in the order of the sites. */
template <int S> KAC_KERNEL sum_ratios(KAC_ARGS propose_call call)
{
    const kac_propose_args a = args_of<S>(&call);
    int32_t states = a.shape.states, stride = a.shape.stride;
    KAC_EACH_WARP (c, (int64_t)kac_live(a.x->live, a.x->n) * a.children) {
        int32_t i = (int32_t)(c / a.children);
        const uint8_t *row = a.x->x + (int64_t)i * stride, *child = a.y->x + c * stride;
        double sum = 0;
        for (int32_t from = 0; from < a.shape.length; from += KAC_WARP) {
            int32_t l = from + (int32_t)(threadIdx.x % KAC_WARP);
            bool revealed = l < a.shape.length && row[l] == states && child[l] != states;
            double term = 0;
            if (revealed) {
                const float *logits = kac_logits_of(a.memo, a.x->entry[i]);
                kac_site_law law = kac_law_of_site(&a, i, l, logits + (int64_t)l * states);
                term = kac_law_ratio(&law, states, child[l]);
            }
            sum = kac_add_in_order(sum, term, revealed);
        }
        if (threadIdx.x % KAC_WARP == 0) a.y->ratio[c] = sum;
    }
}

kac_status kac_cuda_masked_propose(kac_device *dev, const kac_propose_args *a)
{
    propose_call call = call_of(a);
    int64_t children = (int64_t)a->x->n * a->children;
    int64_t threads = (int64_t)a->x->n * (a->shape.stride / SITES);
    dim3 blocks(kac_blocks(threads), (unsigned)(a->children + CHILDREN - 1) / CHILDREN);
    KAC_TRY(KAC_LAUNCH(dev, begin, kac_blocks(children), KAC_THREADS, 0, call));
    if (!kac_is_twisted(&a->twist))
        return LAUNCH_FOR(dev, a->shape.states, reveal, blocks, call);
    KAC_TRY(LAUNCH_FOR(dev, a->shape.states, reveal_twisted, blocks, call));
    return LAUNCH_FOR(dev, a->shape.states, sum_ratios, kac_blocks(children * KAC_WARP), call);
}

/* ---- completions -------------------------------------------------------------------------- */

static complete_call call_of(const kac_complete_args *a)
{
    return {*a, *a->memo, *a->fresh};
}

template <int S> static __device__ kac_complete_args args_of(const complete_call *call)
{
    kac_complete_args a = call->a;
    if (S > 0) a.shape.states = S;
    a.memo = &call->memo;
    a.fresh = &call->fresh;
    return a;
}

/* A thread for each byte of the rows, so that a warp reads the logits of sites in a line: they
 * bound it. */
template <int S> KAC_KERNEL complete(KAC_ARGS complete_call call, uint8_t *out)
{
    const kac_complete_args a = args_of<S>(&call);
    int32_t states = a.shape.states, stride = a.shape.stride;
    KAC_EACH (t, (int64_t)kac_rows_of_result(&a) * stride) {
        int32_t i = kac_row_of_result(&a, (int32_t)(t / stride)), l = (int32_t)(t % stride);
        if (i < 0) continue;
        uint8_t token = a.x[(int64_t)i * stride + l];
        if (token == states && l < a.shape.length) {
            float site[S > 0 ? S : KAC_MAX_STATES];
            kac_allowed_logits(&a, l, kac_logits_of(a.memo, a.entry[i]), site);
            token = kac_token_best(site, states);
            if (kac_token_is_nan(site, states)) kac_fault_note(a.fault, kac_nan_at(&a, i));
        }
        out[t] = token;
    }
}

kac_status kac_cuda_masked_complete(kac_device *dev, const kac_complete_args *a, uint8_t *out)
{
    int64_t bytes = (int64_t)(a->every_row ? a->n : a->batch) * a->shape.stride;
    return LAUNCH_FOR(dev, a->shape.states, complete, kac_blocks(bytes), call_of(a), out);
}

template <int S> KAC_KERNEL soften(KAC_ARGS complete_call call, float *out)
{
    const kac_complete_args a = args_of<S>(&call);
    int32_t states = a.shape.states, length = a.shape.length;
    int32_t end = kac_window_end(&a);
    KAC_EACH (t, (int64_t)a.batch * length) {
        int32_t q = a.first + (int32_t)(t / length), l = (int32_t)(t % length);
        if (q >= end) return;
        int32_t i = a.fresh->src[q];
        uint8_t token = a.x[(int64_t)i * a.shape.stride + l];
        if (token == states) {
            float law[S > 0 ? S : KAC_MAX_STATES];
            kac_allowed_logits(&a, l, kac_logits_of(a.memo, a.entry[i]), law);
            kac_soften_site(law, states, a.temperature, out + t * states);
            continue;
        }
        for (int32_t k = 0; k < states; k++)
            out[t * states + k] = k == token ? 1.0f : 0.0f;
    }
}

kac_status kac_cuda_masked_soften(kac_device *dev, const kac_complete_args *a, float *out)
{
    return LAUNCH_FOR(dev, a->shape.states, soften,
                      kac_blocks((int64_t)a->batch * a->shape.length), call_of(a), out);
}

/* A thread for each byte of the rows asked about, in all samples: the law of a site is made
 * once.  Bound by Philox. */
template <int S> KAC_KERNEL imagine(KAC_ARGS complete_call call, uint8_t *out)
{
    const kac_complete_args a = args_of<S>(&call);
    int32_t states = a.shape.states, stride = a.shape.stride;
    if (kac_window_is_empty(&a)) return;
    KAC_EACH (t, (int64_t)a.n * stride) {
        int32_t i = (int32_t)(t / stride), l = (int32_t)(t % stride), parent = i / a.children;
        if (!kac_at_hand(&a, i)) continue;
        uint8_t token = a.x[t], *to = out + (int64_t)i * a.samples * stride + l;
        bool masked = token == states && l < a.shape.length, lawful = false;
        uint32_t sums[S > 0 ? S : KAC_MAX_STATES];
        kac_key key = kac_key_of(a.seed, a.clock, &a.groups[a.group[parent]], parent);
        if (masked) {
            float site[S > 0 ? S : KAC_MAX_STATES];
            kac_allowed_logits(&a, l, kac_logits_of(a.memo, a.entry[i]), site);
            lawful = kac_token_sums(site, states, a.temperature, sums) > 0;
        }
        for (int32_t j = 0; j < a.samples; j++, to += stride) {
            key.child = (uint32_t)(i % a.children * a.samples + j);
            *to = !masked ? token
                  : lawful
                      ? kac_token(sums, kac_draw(key, KAC_DRAW_COMPLETE, (uint32_t)l), states)
                      : 0;
        }
    }
}

kac_status kac_cuda_masked_imagine(kac_device *dev, const kac_complete_args *a, uint8_t *out)
{
    return LAUNCH_FOR(dev, a->shape.states, imagine,
                      kac_blocks((int64_t)a->n * a->shape.stride), call_of(a), out);
}

/* ---- guidance ----------------------------------------------------------------------------- */

KAC_KERNEL blend(KAC_ARGS blend_call call, float *logits)
{
    const kac_blend_args &a = call.a;
    int32_t count = *call.jobs.count;
    KAC_EACH (t, (int64_t)call.jobs.capacity * a.length) {
        int64_t j = t / a.length, l = t % a.length;
        if (j >= count) return;
        kac_blend_site(a.guidance, a.states, a.other + t * a.states,
                       logits + ((int64_t)call.jobs.dst[j] * a.length + l) * a.states);
    }
}

kac_status kac_cuda_masked_blend(kac_device *dev, const kac_blend_args *a, float *logits)
{
    blend_call call = {*a, *a->jobs};
    return KAC_LAUNCH(dev, blend, kac_blocks((int64_t)a->jobs->capacity * a->length),
                      KAC_THREADS, 0, call, logits);
}

/* ---- gradients ---------------------------------------------------------------------------- */

static __device__ kac_slope_args args_of(const slope_call *call)
{
    kac_slope_args a = call->a;
    a.fresh = &call->fresh;
    return a;
}

KAC_KERNEL slope(KAC_ARGS slope_call call, float *out)
{
    const kac_slope_args a = args_of(&call);
    int32_t length = a.shape.length, end = kac_slope_end(&a);
    KAC_EACH (t, (int64_t)a.batch * length) {
        int32_t q = a.first + (int32_t)(t / length), l = (int32_t)(t % length);
        if (q >= end) return;
        kac_slope_site(&a, q, l, a.x + (int64_t)a.fresh->src[q] * a.shape.stride,
                       out + t * a.shape.states);
    }
}

kac_status kac_cuda_masked_slope(kac_device *dev, const kac_slope_args *a, float *out)
{
    slope_call call = {*a, *a->fresh};
    return KAC_LAUNCH(dev, slope, kac_blocks((int64_t)a->batch * a->shape.length), KAC_THREADS,
                      0, call, out);
}

KAC_KERNEL tilt_rows(KAC_ARGS slope_call call, float *tilt)
{
    const kac_slope_args a = args_of(&call);
    int32_t length = a.shape.length, end = kac_slope_end(&a);
    KAC_EACH (t, (int64_t)a.batch * length) {
        int32_t q = a.first + (int32_t)(t / length), l = (int32_t)(t % length);
        if (q >= end) return;
        kac_tilt_site(&a, q, l, a.x + (int64_t)a.fresh->src[q] * a.shape.stride,
                      tilt + ((int64_t)a.fresh->entry[q] * length + l) * a.shape.states);
    }
}

kac_status kac_cuda_masked_tilt(kac_device *dev, const kac_slope_args *a, float *tilt)
{
    slope_call call = {*a, *a->fresh};
    return KAC_LAUNCH(dev, tilt_rows, kac_blocks((int64_t)a->batch * a->shape.length),
                      KAC_THREADS, 0, call, tilt);
}

/* ---- likelihood --------------------------------------------------------------------------- */

KAC_KERNEL renoise(KAC_ARGS kac_renoise_args a, uint8_t *x)
{
    uint64_t threshold = kac_mask_threshold(a.levels[a.level].mask);
    KAC_EACH (t, (int64_t)a.n * a.shape.stride) {
        int64_t i = t / a.shape.stride;
        int32_t l = (int32_t)(t % a.shape.stride);
        kac_key key = {
            .seed = a.seed, .move = (uint32_t)a.level, .particle = (uint32_t)a.id[i]};
        bool noised = l < a.shape.length && kac_is_noised(&a, key, threshold, l);
        x[t] = noised ? (uint8_t)a.shape.states : a.x0[t];
    }
}

kac_status kac_cuda_masked_renoise(kac_device *dev, const kac_renoise_args *a, uint8_t *x)
{
    return KAC_LAUNCH(dev, renoise, kac_blocks((int64_t)a->n * a->shape.stride), KAC_THREADS, 0,
                      *a, x);
}

/* A warp for each row, a lane for each site. */
KAC_KERNEL score(KAC_ARGS score_call call)
{
    const kac_shape &shape = call.a.shape;
    KAC_EACH_WARP (i, call.a.n) {
        const uint8_t *row = call.x + i * shape.stride, *truth = call.a.x0 + i * shape.stride;
        double sum = 0;
        for (int32_t from = 0; from < shape.length; from += KAC_WARP) {
            int32_t l = from + (int32_t)(threadIdx.x % KAC_WARP);
            bool masked = l < shape.length && row[l] == shape.states;
            double term = 0;
            if (masked)
                term = kac_token_log_prob(kac_logits_of(&call.memo, call.entry[i]) +
                                              (int64_t)l * shape.states,
                                          shape.states, truth[l]);
            sum = kac_add_in_order(sum, term, masked);
        }
        if (threadIdx.x % KAC_WARP == 0) call.out[i] = sum;
    }
}

kac_status kac_cuda_masked_score(kac_device *dev, const kac_renoise_args *a, const uint8_t *x,
                                 const int32_t *entry, const kac_memo *memo, double *out)
{
    score_call call = {*a, *memo, x, entry, out};
    return KAC_LAUNCH(dev, score, kac_blocks((int64_t)a->n * KAC_WARP), KAC_THREADS, 0, call);
}

/* ---- refinement --------------------------------------------------------------------------- */

/* A thread for each row: what one site takes, the next one lacks. */
KAC_KERNEL remask(KAC_ARGS kac_remask_args a, uint8_t *x)
{
    KAC_EACH (i, a.n) {
        kac_key key = kac_key_of(a.seed, a.clock, &a.groups[a.group[i]], (int32_t)i);
        kac_mask_sites(&a, key, x + i * a.shape.stride);
    }
}

kac_status kac_cuda_masked_remask(kac_device *dev, const kac_remask_args *a, uint8_t *x)
{
    return KAC_LAUNCH(dev, remask, kac_blocks(a->n), KAC_THREADS, 0, *a, x);
}
