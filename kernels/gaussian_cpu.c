/* gaussian_cpu.c -- Gaussian diffusion on the CPU: noise, children, completions. */
#include "gaussian_number.h"

#include <stdbool.h>
#include <string.h>

#include "ops.h"
#include "particles.h"

kac_status kac_cpu_gaussian_start(kac_device *dev, const kac_start_args *a, uint8_t *x)
{
    (void)dev;
    double noise = kac_start_noise(&a->levels[a->clock->level].gaussian);
    memset(x, 0, (size_t)a->n * (size_t)a->shape.stride);
#pragma omp parallel for schedule(static)
    for (int32_t i = 0; i < a->n; i++) {
        const kac_group *group = &a->groups[a->group[i]];
        float *row = kac_vector_out(x, i, a->shape.stride);
        kac_key key = kac_key_of(a->seed, a->clock, group, i);
        for (int32_t l = 0; l < a->shape.length; l++)
            row[l] = (float)(noise * kac_normal(key, KAC_DRAW_START, l));
    }
    return KAC_OK;
}

/* ---- children --------------------------------------------------------------------------- */

/* The children of particle i.  A draw serves two numbers. */
static void propose_children(const kac_propose_args *a, const kac_gaussian_level *level,
                             int32_t i)
{
    const kac_group *group = &a->groups[a->x->group[i]];
    int32_t length = a->shape.length;
    int64_t first = (int64_t)i * a->children;
    kac_key key = kac_key_of(a->seed, a->clock, group, i);

    for (int32_t l = 0; l < length; l += 2) {
        int32_t pair = l + 1 < length ? 2 : 1;
        kac_number_law law[2];
        for (int32_t k = 0; k < pair; k++)
            law[k] = kac_law_of_number(a, level, i, l + k);
        for (int32_t m = 0; m < a->children; m++) {
            float *child = kac_vector_out(a->y->x, first + m, a->shape.stride);
            double z[2];
            key.child = (uint32_t)m;
            kac_normals(kac_draw(key, KAC_DRAW_PROPOSE, (uint32_t)(l / 2)), z);
            for (int32_t k = 0; k < pair; k++) {
                child[l + k] = kac_number(level, law[k], z[k]);
                if (law[k].shift != 0)
                    a->y->ratio[first + m] += kac_shift_ratio(law[k].shift, z[k]);
            }
        }
    }
}

kac_status kac_cpu_gaussian_propose(kac_device *dev, const kac_propose_args *a)
{
    (void)dev;
    const kac_particles *x = a->x;
    const kac_gaussian_level *level = &a->levels[a->clock->level + 1].gaussian;
    size_t bytes = (size_t)a->shape.length * sizeof(float);
    bool remember = a->look_back && a->clock->level > 0; /* objects have no past */
    int32_t worst = INT32_MAX, n = kac_live(x->live, x->n);

#pragma omp parallel for schedule(static) reduction(min : worst)
    for (int32_t i = 0; i < n; i++) {
        const float *d = kac_logits_of(a->memo, x->entry[i]);
        double gain = kac_gain(level, kac_vector(x->x, i, a->shape.stride), d, a->shape.length,
                               a->memo->slot_floats);
        for (int64_t c = (int64_t)i * a->children; c < (int64_t)(i + 1) * a->children; c++) {
            float *child = kac_vector_out(a->y->x, c, a->shape.stride);
            memset(child, 0, (size_t)a->shape.stride);
            if (remember) memcpy(child + a->shape.length, d, bytes);
            a->y->entry[c] = -1;
            a->y->ratio[c] = gain;
        }
        propose_children(a, level, i);
        if (kac_has_nan(d, a->shape.length) && i < worst) worst = i;
    }
    if (worst < INT32_MAX)
        kac_fault_note(a->fault, (kac_trouble){KAC_FAULT_NAN, worst, a->clock->move, -1});
    return KAC_OK;
}

/* ---- completions ------------------------------------------------------------------------ */

/* The estimate of row i as an object.  Returns whether it has a NaN. */
static bool complete_row(const kac_complete_args *a, int32_t i, uint8_t *out)
{
    const float *d = kac_logits_of(a->memo, a->entry[i]);
    memset(out, 0, (size_t)a->shape.stride);
    memcpy(out, d, (size_t)a->shape.length * sizeof *d);
    return kac_has_nan(d, a->shape.length);
}

kac_status kac_cpu_gaussian_complete(kac_device *dev, const kac_complete_args *a, uint8_t *out)
{
    (void)dev;
    int32_t worst = INT32_MAX;
    int64_t stride = a->shape.stride;
    if (a->every_row) {
        int32_t n = kac_live(a->live, a->n);
        if (kac_window_is_empty(a)) return KAC_OK;
#pragma omp parallel for schedule(static) reduction(min : worst)
        for (int32_t i = 0; i < n; i++)
            if (kac_at_hand(a, i) && complete_row(a, i, out + i * stride) && i < worst)
                worst = i;
    } else {
        int32_t end = kac_window_end(a);
#pragma omp parallel for schedule(static) reduction(min : worst)
        for (int32_t q = a->first; q < end; q++) {
            int32_t i = a->fresh->src[q];
            if (complete_row(a, i, out + (q - a->first) * stride) && i < worst) worst = i;
        }
    }
    if (worst < INT32_MAX) kac_fault_note(a->fault, kac_nan_at(a, worst));
    return KAC_OK;
}

kac_status kac_cpu_gaussian_soften(kac_device *dev, const kac_complete_args *a, float *out)
{
    (void)dev;
    int32_t end = kac_window_end(a);
    int64_t length = a->shape.length;
#pragma omp parallel for schedule(static)
    for (int32_t q = a->first; q < end; q++)
        memcpy(out + (q - a->first) * length,
               kac_logits_of(a->memo, a->entry[a->fresh->src[q]]),
               (size_t)length * sizeof *out);
    return KAC_OK;
}

/* The random completions of row i. */
static void imagine_row(const kac_complete_args *a, int32_t i, uint8_t *out)
{
    int32_t parent = i / a->children;
    const kac_group *group = &a->groups[a->group[parent]];
    const float *d = kac_logits_of(a->memo, a->entry[i]);
    double guess = a->levels[a->clock->level].gaussian.guess;
    kac_key key = kac_key_of(a->seed, a->clock, group, parent);

    memset(out, 0, (size_t)a->samples * (size_t)a->shape.stride);
    for (int32_t j = 0; j < a->samples; j++) {
        float *row = kac_vector_out(out, j, a->shape.stride);
        key.child = (uint32_t)(i % a->children * a->samples + j);
        for (int32_t l = 0; l < a->shape.length; l++)
            row[l] = (float)fma(guess, kac_normal(key, KAC_DRAW_COMPLETE, l), (double)d[l]);
    }
}

kac_status kac_cpu_gaussian_imagine(kac_device *dev, const kac_complete_args *a, uint8_t *out)
{
    (void)dev;
    int64_t bytes = (int64_t)a->samples * a->shape.stride;
    if (kac_window_is_empty(a)) return KAC_OK;
#pragma omp parallel for schedule(static)
    for (int32_t i = 0; i < a->n; i++)
        if (kac_at_hand(a, i)) imagine_row(a, i, out + i * bytes);
    return KAC_OK;
}

/* ---- gradients -------------------------------------------------------------------------- */

kac_status kac_cpu_gaussian_slope(kac_device *dev, const kac_slope_args *a, float *out)
{
    (void)dev;
    memcpy(out, a->reward, (size_t)a->batch * (size_t)a->shape.length * sizeof *out);
    return KAC_OK;
}

kac_status kac_cpu_gaussian_tilt(kac_device *dev, const kac_slope_args *a, float *tilt)
{
    (void)dev;
    int64_t length = a->shape.length;
    const float *from = a->soft != NULL ? a->input : a->reward;
    for (int32_t q = a->first; q < *a->fresh->count && q < a->first + a->batch; q++)
        memcpy(tilt + a->fresh->entry[q] * length, from + (q - a->first) * length,
               (size_t)length * sizeof *tilt);
    return KAC_OK;
}

/* ---- two denoisers ---------------------------------------------------------------------- */

kac_status kac_cpu_gaussian_blend(kac_device *dev, const kac_blend_args *a, float *logits)
{
    (void)dev;
    int64_t length = a->length;
#pragma omp parallel for schedule(static)
    for (int32_t j = 0; j < *a->jobs->count; j++)
        kac_blend_vector(a->anneal, a->guidance, a->other + j * length, a->length,
                         logits + a->jobs->dst[j] * (length + 1));
    return KAC_OK;
}

kac_status kac_cpu_gaussian_remask(kac_device *dev, const kac_remask_args *a, uint8_t *x)
{
    (void)dev, (void)a, (void)x;
    return KAC_FAIL(KAC_ERR_UNSUPPORTED, "gaussian: vectors have no letters for masks");
}

/* ---- noised copies ---------------------------------------------------------------------- */

kac_status kac_cpu_gaussian_renoise(kac_device *dev, const kac_renoise_args *a, uint8_t *x)
{
    (void)dev;
    const kac_gaussian_level *level = &a->levels[a->level].gaussian;
    memset(x, 0, (size_t)a->n * (size_t)a->shape.stride);
#pragma omp parallel for schedule(static)
    for (int32_t i = 0; i < a->n; i++) {
        const float *x0 = kac_vector(a->x0, i, a->shape.stride);
        float *row = kac_vector_out(x, i, a->shape.stride);
        kac_key key = {
            .seed = a->seed, .move = (uint32_t)a->level, .particle = (uint32_t)a->id[i]};
        for (int32_t l = 0; l < a->shape.length; l++)
            row[l] = (float)fma(level->scale, (double)x0[l],
                                level->noise * kac_normal(key, KAC_DRAW_RENOISE, l));
    }
    return KAC_OK;
}

kac_status kac_cpu_gaussian_score(kac_device *dev, const kac_renoise_args *a, const uint8_t *x,
                                  const int32_t *entry, const kac_memo *memo, double *out)
{
    (void)dev, (void)a, (void)x, (void)entry, (void)memo, (void)out;
    return KAC_FAIL(KAC_ERR_UNSUPPORTED,
                    "gaussian: the last move is a function, so samples have no density");
}
