/* gaussian_cuda.cu -- Gaussian diffusion on a GPU: noise, children, completions.
 *
 * A draw gives two numbers: kernels that draw have a thread for each pair of floats of a row,
 * written as one.  They are bound by the fp64 logarithm, root and sine of the pair.
 */
#include "fault.cuh"
#include "gaussian_number.h"
#include "particles.h"
#include "primitives.cuh"

/* Pairs of floats in a row; its stride is a multiple of 16. */
static __host__ __device__ int32_t pairs_of(const kac_shape &shape)
{
    return shape.stride / (int32_t)sizeof(float2);
}

/* Floats l and l + 1 of row i, l even. */
static __device__ float2 *pair_at(uint8_t *rows, int64_t i, const kac_shape &shape, int32_t l)
{
    return reinterpret_cast<float2 *>(kac_vector_out(rows, i, shape.stride) + l);
}

/* Numbers l and l + 1 of a vector as they are stored: there is nothing after its end. */
static __device__ float2 stored(double first, double second, int32_t l, int32_t length)
{
    return {l < length ? (float)first : 0.0f, l + 1 < length ? (float)second : 0.0f};
}

/* Arguments with the host structs that they point to.  Their names are this file's alone. */
namespace
{
struct propose_call {
    kac_propose_args a;
    kac_particles x, y;
    kac_memo memo;
};

struct complete_call {
    kac_complete_args a;
    kac_memo memo;
    kac_fresh fresh;
};

struct slope_call {
    kac_slope_args a;
    kac_fresh fresh;
};

struct blend_call {
    kac_blend_args a;
    kac_jobs jobs;
};
} // namespace

/* ---- start -------------------------------------------------------------------------------- */

KAC_KERNEL start(KAC_ARGS kac_start_args a, uint8_t *x)
{
    double noise = kac_start_noise(&a.levels[a.clock->level].gaussian);
    KAC_EACH (t, (int64_t)a.n * pairs_of(a.shape)) {
        int32_t i = (int32_t)(t / pairs_of(a.shape)), p = (int32_t)(t % pairs_of(a.shape));
        kac_key key = kac_key_of(a.seed, a.clock, &a.groups[a.group[i]], i);
        double z[2] = {0, 0};
        if (2 * p < a.shape.length) kac_normals(kac_draw(key, KAC_DRAW_START, (uint32_t)p), z);
        *pair_at(x, i, a.shape, 2 * p) =
            stored(noise * z[0], noise * z[1], 2 * p, a.shape.length);
    }
}

kac_status kac_cuda_gaussian_start(kac_device *dev, const kac_start_args *a, uint8_t *x)
{
    return KAC_LAUNCH(dev, start, kac_blocks((int64_t)a->n * pairs_of(a->shape)), KAC_THREADS,
                      0, *a, x);
}

/* ---- children ----------------------------------------------------------------------------- */

static __device__ kac_propose_args args_of(const propose_call *call)
{
    kac_propose_args a = call->a;
    a.x = &call->x;
    a.y = const_cast<kac_particles *>(&call->y);
    a.memo = &call->memo;
    return a;
}

/* A thread a child, each with the gain of its particle: one sum in the order of the numbers. */
KAC_KERNEL begin(KAC_ARGS propose_call call)
{
    const kac_propose_args a = args_of(&call);
    const kac_gaussian_level *level = &a.levels[a.clock->level + 1].gaussian;
    KAC_EACH (c, (int64_t)kac_live(a.x->live, a.x->n) * a.children) {
        int32_t i = (int32_t)(c / a.children);
        a.y->entry[c] = -1;
        a.y->ratio[c] =
            kac_gain(level, kac_vector(a.x->x, i, a.shape.stride),
                     kac_logits_of(a.memo, a.x->entry[i]), a.shape.length, a.memo->slot_floats);
    }
}

enum { CHILDREN = 16 }; /* of a thread */

/* Float l of the children of particle i where it is no number of their vector: of the estimate,
 * where the next move looks back. */
static __device__ float beside(const kac_propose_args *a, const float *d, int32_t l)
{
    int32_t length = a->shape.length;
    bool remember = a->look_back && a->clock->level > 0; /* objects have no past */
    return remember && l >= length && l < 2 * length ? d[l - length] : 0.0f;
}

/* Two floats of up to 16 children of a particle, from child 16 y on in row y of the grid. */
KAC_KERNEL propose(KAC_ARGS propose_call call)
{
    const kac_propose_args a = args_of(&call);
    const kac_gaussian_level *level = &a.levels[a.clock->level + 1].gaussian;
    int32_t length = a.shape.length, from = (int32_t)blockIdx.y * CHILDREN;
    int32_t end = from + CHILDREN < a.children ? from + CHILDREN : a.children;

    KAC_EACH (t, (int64_t)kac_live(a.x->live, a.x->n) * pairs_of(a.shape)) {
        int32_t i = (int32_t)(t / pairs_of(a.shape)), p = (int32_t)(t % pairs_of(a.shape));
        int32_t l = 2 * p;
        const float *d = kac_logits_of(a.memo, a.x->entry[i]);
        float2 pair = {beside(&a, d, l), beside(&a, d, l + 1)};
        kac_number_law first = {0, 0}, second = {0, 0};
        kac_key key = kac_key_of(a.seed, a.clock, &a.groups[a.x->group[i]], i);
        if (l < length) first = kac_law_of_number(&a, level, i, l);
        if (l + 1 < length) second = kac_law_of_number(&a, level, i, l + 1);
        if ((l < length && d[l] != d[l]) || (l + 1 < length && d[l + 1] != d[l + 1]))
            kac_fault_note(a.fault, {KAC_FAULT_NAN, i, a.clock->move, -1});

        for (int32_t m = from; m < end; m++) {
            double z[2] = {0, 0};
            key.child = (uint32_t)m;
            if (l < length) kac_normals(kac_draw(key, KAC_DRAW_PROPOSE, (uint32_t)p), z);
            if (l < length) pair.x = kac_number(level, first, z[0]);
            if (l + 1 < length) pair.y = kac_number(level, second, z[1]);
            *pair_at(a.y->x, (int64_t)i * a.children + m, a.shape, l) = pair;
        }
    }
}

/* The ratio of a child that a tilt has shifted, a warp for each: its numbers are drawn once more,
 * and their terms are added in order. */
KAC_KERNEL sum_ratios(KAC_ARGS propose_call call)
{
    const kac_propose_args a = args_of(&call);
    const kac_gaussian_level *level = &a.levels[a.clock->level + 1].gaussian;
    KAC_EACH_WARP (c, (int64_t)kac_live(a.x->live, a.x->n) * a.children) {
        int32_t i = (int32_t)(c / a.children);
        kac_key key = kac_key_of(a.seed, a.clock, &a.groups[a.x->group[i]], i);
        double sum = a.y->ratio[c];
        key.child = (uint32_t)(c % a.children);
        for (int32_t from = 0; from < a.shape.length; from += KAC_WARP) {
            int32_t l = from + (int32_t)(threadIdx.x % KAC_WARP);
            double shift = 0, term = 0;
            if (l < a.shape.length) shift = kac_law_of_number(&a, level, i, l).shift;
            if (shift != 0) term = kac_shift_ratio(shift, kac_normal(key, KAC_DRAW_PROPOSE, l));
            sum = kac_add_in_order(sum, term, shift != 0);
        }
        if (threadIdx.x % KAC_WARP == 0) a.y->ratio[c] = sum;
    }
}

kac_status kac_cuda_gaussian_propose(kac_device *dev, const kac_propose_args *a)
{
    propose_call call = {*a, *a->x, *a->y, *a->memo};
    int64_t children = (int64_t)a->x->n * a->children;
    dim3 blocks(kac_blocks((int64_t)a->x->n * pairs_of(a->shape)),
                (unsigned)(a->children + CHILDREN - 1) / CHILDREN);
    KAC_TRY(KAC_LAUNCH(dev, begin, kac_blocks(children), KAC_THREADS, 0, call));
    KAC_TRY(KAC_LAUNCH(dev, propose, blocks, KAC_THREADS, 0, call));
    if (a->twist.tilt == NULL) return KAC_OK;
    return KAC_LAUNCH(dev, sum_ratios, kac_blocks(children * KAC_WARP), KAC_THREADS, 0, call);
}

/* ---- completions -------------------------------------------------------------------------- */

static complete_call call_of(const kac_complete_args *a)
{
    return {*a, *a->memo, *a->fresh};
}

static __device__ kac_complete_args args_of(const complete_call *call)
{
    kac_complete_args a = call->a;
    a.memo = &call->memo;
    a.fresh = &call->fresh;
    return a;
}

/* A thread for each float of the rows. */
KAC_KERNEL complete(KAC_ARGS complete_call call, uint8_t *out)
{
    const kac_complete_args a = args_of(&call);
    int32_t floats = a.shape.stride / (int32_t)sizeof(float);
    KAC_EACH (t, (int64_t)kac_rows_of_result(&a) * floats) {
        int32_t r = (int32_t)(t / floats), l = (int32_t)(t % floats);
        int32_t i = kac_row_of_result(&a, r);
        if (i < 0) continue;
        float d = l < a.shape.length ? kac_logits_of(a.memo, a.entry[i])[l] : 0;
        kac_vector_out(out, r, a.shape.stride)[l] = d;
        if (d != d) kac_fault_note(a.fault, kac_nan_at(&a, i));
    }
}

kac_status kac_cuda_gaussian_complete(kac_device *dev, const kac_complete_args *a, uint8_t *out)
{
    int64_t bytes = (int64_t)(a->every_row ? a->n : a->batch) * a->shape.stride;
    return KAC_LAUNCH(dev, complete, kac_blocks(bytes / (int64_t)sizeof(float)), KAC_THREADS, 0,
                      call_of(a), out);
}

KAC_KERNEL soften(KAC_ARGS complete_call call, float *out)
{
    const kac_complete_args a = args_of(&call);
    int32_t end = kac_window_end(&a);
    KAC_EACH (t, (int64_t)a.batch * a.shape.length) {
        int32_t q = a.first + (int32_t)(t / a.shape.length);
        if (q >= end) return;
        out[t] = kac_logits_of(a.memo, a.entry[a.fresh->src[q]])[t % a.shape.length];
    }
}

kac_status kac_cuda_gaussian_soften(kac_device *dev, const kac_complete_args *a, float *out)
{
    return KAC_LAUNCH(dev, soften, kac_blocks((int64_t)a->batch * a->shape.length), KAC_THREADS,
                      0, call_of(a), out);
}

/* A thread for each pair of floats of the rows asked about, in all samples. */
KAC_KERNEL imagine(KAC_ARGS complete_call call, uint8_t *out)
{
    const kac_complete_args a = args_of(&call);
    int32_t length = a.shape.length;
    double guess = a.levels[a.clock->level].gaussian.guess;
    if (kac_window_is_empty(&a)) return;
    KAC_EACH (t, (int64_t)a.n * pairs_of(a.shape)) {
        int32_t i = (int32_t)(t / pairs_of(a.shape)), p = (int32_t)(t % pairs_of(a.shape));
        int32_t l = 2 * p, parent = i / a.children;
        if (!kac_at_hand(&a, i)) continue;
        const float *d = kac_logits_of(a.memo, a.entry[i]);
        double mean[2] = {l < length ? (double)d[l] : 0, l + 1 < length ? (double)d[l + 1] : 0};
        kac_key key = kac_key_of(a.seed, a.clock, &a.groups[a.group[parent]], parent);
        for (int32_t j = 0; j < a.samples; j++) {
            double z[2] = {0, 0};
            key.child = (uint32_t)(i % a.children * a.samples + j);
            if (l < length) kac_normals(kac_draw(key, KAC_DRAW_COMPLETE, (uint32_t)p), z);
            *pair_at(out, (int64_t)i * a.samples + j, a.shape, l) =
                stored(fma(guess, z[0], mean[0]), fma(guess, z[1], mean[1]), l, length);
        }
    }
}

kac_status kac_cuda_gaussian_imagine(kac_device *dev, const kac_complete_args *a, uint8_t *out)
{
    return KAC_LAUNCH(dev, imagine, kac_blocks((int64_t)a->n * pairs_of(a->shape)), KAC_THREADS,
                      0, call_of(a), out);
}

/* ---- gradients ---------------------------------------------------------------------------- */

kac_status kac_cuda_gaussian_slope(kac_device *dev, const kac_slope_args *a, float *out)
{
    return dev->ops->memory.copy(dev, out, a->reward,
                                 (size_t)a->batch * (size_t)a->shape.length * sizeof *out);
}

KAC_KERNEL tilt_rows(KAC_ARGS slope_call call, float *tilt)
{
    const kac_slope_args &a = call.a;
    const float *from = a.soft != NULL ? a.input : a.reward;
    int32_t length = a.shape.length, count = *call.fresh.count;
    KAC_EACH (t, (int64_t)a.batch * length) {
        int32_t q = a.first + (int32_t)(t / length);
        if (q >= count) return;
        tilt[(int64_t)call.fresh.entry[q] * length + t % length] = from[t];
    }
}

kac_status kac_cuda_gaussian_tilt(kac_device *dev, const kac_slope_args *a, float *tilt)
{
    slope_call call = {*a, *a->fresh};
    return KAC_LAUNCH(dev, tilt_rows, kac_blocks((int64_t)a->batch * a->shape.length),
                      KAC_THREADS, 0, call, tilt);
}

/* ---- two denoisers ------------------------------------------------------------------------ */

/* A thread a vector, for the sum of the clash is one in the order of the numbers. */
KAC_KERNEL blend(KAC_ARGS blend_call call, float *logits)
{
    const kac_blend_args &a = call.a;
    int64_t length = a.length;
    int32_t count = *call.jobs.count;
    KAC_EACH (j, count)
        kac_blend_vector(a.anneal, a.guidance, a.other + j * length, a.length,
                         logits + call.jobs.dst[j] * (length + 1));
}

kac_status kac_cuda_gaussian_blend(kac_device *dev, const kac_blend_args *a, float *logits)
{
    blend_call call = {*a, *a->jobs};
    return KAC_LAUNCH(dev, blend, kac_blocks(a->jobs->capacity), KAC_THREADS, 0, call, logits);
}

kac_status kac_cuda_gaussian_remask(kac_device *dev, const kac_remask_args *a, uint8_t *x)
{
    (void)dev, (void)a, (void)x;
    return KAC_FAIL(KAC_ERR_UNSUPPORTED, "gaussian: vectors have no letters for masks");
}

/* ---- noised copies ------------------------------------------------------------------------ */

KAC_KERNEL renoise(KAC_ARGS kac_renoise_args a, uint8_t *x)
{
    const kac_gaussian_level *level = &a.levels[a.level].gaussian;
    int32_t length = a.shape.length;
    KAC_EACH (t, (int64_t)a.n * pairs_of(a.shape)) {
        int32_t i = (int32_t)(t / pairs_of(a.shape)), p = (int32_t)(t % pairs_of(a.shape));
        int32_t l = 2 * p;
        const float *x0 = kac_vector(a.x0, i, a.shape.stride);
        double z[2] = {0, 0};
        kac_key key = {
            .seed = a.seed, .move = (uint32_t)a.level, .particle = (uint32_t)a.id[i]};
        if (l < length) kac_normals(kac_draw(key, KAC_DRAW_RENOISE, (uint32_t)p), z);
        *pair_at(x, i, a.shape, l) =
            stored(fma(level->scale, (double)x0[l], level->noise * z[0]),
                   fma(level->scale, (double)x0[l + 1], level->noise * z[1]), l, length);
    }
}

kac_status kac_cuda_gaussian_renoise(kac_device *dev, const kac_renoise_args *a, uint8_t *x)
{
    return KAC_LAUNCH(dev, renoise, kac_blocks((int64_t)a->n * pairs_of(a->shape)), KAC_THREADS,
                      0, *a, x);
}

kac_status kac_cuda_gaussian_score(kac_device *dev, const kac_renoise_args *a, const uint8_t *x,
                                   const int32_t *entry, const kac_memo *memo, double *out)
{
    (void)dev, (void)a, (void)x, (void)entry, (void)memo, (void)out;
    return KAC_FAIL(KAC_ERR_UNSUPPORTED,
                    "gaussian: the last move is a function, so samples have no density");
}
