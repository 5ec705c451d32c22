/* masked_cpu.c -- absorbing diffusion on the CPU: children, completions, noised copies. */
#include "masked_site.h"

#include <stdbool.h>
#include <string.h>

#include "ops.h"
#include "particles.h"

static size_t row_at(int64_t row, int32_t stride)
{
    return (size_t)row * (size_t)stride;
}

static bool has_mask(const uint8_t *row, const kac_shape *shape)
{
    return memchr(row, shape->states, (size_t)shape->length) != NULL;
}

kac_status kac_cpu_masked_start(kac_device *dev, const kac_start_args *a, uint8_t *x)
{
    (void)dev;
    memset(x, 0, row_at(a->n, a->shape.stride));
    for (int32_t i = 0; i < a->n; i++) {
        uint8_t *row = x + row_at(i, a->shape.stride);
        if (a->fixed != NULL)
            memcpy(row, a->fixed, (size_t)a->shape.length);
        else
            memset(row, a->shape.states, (size_t)a->shape.length);
    }
    return KAC_OK;
}

/* ---- children --------------------------------------------------------------------------- */

/* Reveals sites of the children of particle i, which start as its copies; y->entry[c] becomes
 * -1 where child c was changed.  Returns whether a site had no law to draw from.  Sites are
 * outside and children inside, so that the weights of a site are made at most once, and only
 * where a child reveals it. */
static bool reveal(const kac_propose_args *a, int32_t i, uint64_t threshold)
{
    const kac_particles *x = a->x;
    const kac_group *group = &a->groups[x->group[i]];
    const uint8_t *row = x->x + row_at(i, a->shape.stride);
    const float *logits = kac_logits_of(a->memo, x->entry[i]);
    int32_t states = a->shape.states;
    int64_t first = (int64_t)i * a->children;
    uint8_t *child = a->y->x + row_at(first, a->shape.stride);
    const uint8_t *retained = kac_retained_by(a, i);
    bool twisted = kac_is_twisted(&a->twist);
    bool lawless = false;
    kac_key key = kac_key_of(a->seed, a->clock, group, i);

    for (int32_t l = 0; l < a->shape.length; l++) {
        if (row[l] != states) continue;
        kac_site_law law;
        bool known = false;
        for (int32_t m = 0; m < a->children; m++) {
            key.child = (uint32_t)m;
            kac_u32x4 draw = kac_draw(key, KAC_DRAW_PROPOSE, (uint32_t)l);
            bool follows = m == 0 && retained != NULL;
            if (follows ? retained[l] == states : draw.v[0] >= threshold) continue;
            if (!known) law = kac_law_of_site(a, i, l, logits + row_at(l, states));
            known = true;
            uint8_t token = follows     ? retained[l]
                            : law.alive ? kac_token(law.drawn, draw, states)
                                        : 0;
            child[row_at(m, a->shape.stride) + (size_t)l] = token;
            a->y->entry[first + m] = -1;
            lawless |= !law.lawful;
            if (!twisted) continue;
            a->y->ratio[first + m] += kac_law_ratio(&law, states, token);
        }
    }
    return lawless;
}

kac_status kac_cpu_masked_propose(kac_device *dev, const kac_propose_args *a)
{
    (void)dev;
    const kac_particles *x = a->x;
    uint64_t threshold = a->levels[a->clock->level + 1].reveal;
    int32_t worst = INT32_MAX, n = kac_live(x->live, x->n);

#pragma omp parallel for schedule(dynamic, 4) reduction(min : worst)
    for (int32_t i = 0; i < n; i++) {
        const uint8_t *row = x->x + row_at(i, a->shape.stride);
        for (int64_t c = (int64_t)i * a->children; c < (int64_t)(i + 1) * a->children; c++) {
            memcpy(a->y->x + row_at(c, a->shape.stride), row, (size_t)a->shape.stride);
            a->y->entry[c] = a->keep_entries ? x->entry[i] : -1;
            a->y->ratio[c] = 0;
        }
        if (threshold > 0 && has_mask(row, &a->shape) && reveal(a, i, threshold) && i < worst)
            worst = i;
    }
    if (worst < INT32_MAX)
        kac_fault_note(a->fault, (kac_trouble){KAC_FAULT_NAN, worst, a->clock->move, -1});
    return KAC_OK;
}

/* ---- completions ------------------------------------------------------------------------ */

/* Row i of x with its masks filled by the likeliest tokens.  Returns whether a site had a NaN. */
static bool complete_row(const kac_complete_args *a, int32_t i, uint8_t *out)
{
    const uint8_t *row = a->x + row_at(i, a->shape.stride);
    int32_t states = a->shape.states;
    bool invalid = false;
    memcpy(out, row, (size_t)a->shape.stride);
    if (!has_mask(row, &a->shape)) return false;
    const float *logits = kac_logits_of(a->memo, a->entry[i]);
    for (int32_t l = 0; l < a->shape.length; l++) {
        if (row[l] != states) continue;
        float site[KAC_MAX_STATES] = {0};
        kac_allowed_logits(a, l, logits, site);
        out[l] = kac_token_best(site, states);
        invalid |= kac_token_is_nan(site, states);
    }
    return invalid;
}

kac_status kac_cpu_masked_complete(kac_device *dev, const kac_complete_args *a, uint8_t *out)
{
    (void)dev;
    int32_t worst = INT32_MAX;
    if (a->every_row) {
        int32_t n = kac_live(a->live, a->n);
        if (kac_window_is_empty(a)) return KAC_OK;
#pragma omp parallel for schedule(static) reduction(min : worst)
        for (int32_t i = 0; i < n; i++)
            if (kac_at_hand(a, i) && complete_row(a, i, out + row_at(i, a->shape.stride)) &&
                i < worst)
                worst = i;
    } else {
        int32_t end = kac_window_end(a);
#pragma omp parallel for schedule(static) reduction(min : worst)
        for (int32_t q = a->first; q < end; q++) {
            int32_t i = a->fresh->src[q];
            if (complete_row(a, i, out + row_at(q - a->first, a->shape.stride)) && i < worst)
                worst = i;
        }
    }
    if (worst < INT32_MAX) kac_fault_note(a->fault, kac_nan_at(a, worst));
    return KAC_OK;
}

static void soften_row(const kac_complete_args *a, int32_t i, float *out)
{
    const uint8_t *row = a->x + row_at(i, a->shape.stride);
    int32_t states = a->shape.states;
    const float *logits = has_mask(row, &a->shape) ? kac_logits_of(a->memo, a->entry[i]) : NULL;
    for (int32_t l = 0; l < a->shape.length; l++) {
        float *site = out + row_at(l, states);
        if (row[l] == states) {
            float law[KAC_MAX_STATES] = {0};
            kac_allowed_logits(a, l, logits, law);
            kac_soften_site(law, states, a->temperature, site);
            continue;
        }
        for (int32_t k = 0; k < states; k++)
            site[k] = k == row[l] ? 1.0f : 0.0f;
    }
}

kac_status kac_cpu_masked_soften(kac_device *dev, const kac_complete_args *a, float *out)
{
    (void)dev;
    int32_t end = kac_window_end(a);
    int32_t floats = a->shape.length * a->shape.states;
#pragma omp parallel for schedule(static)
    for (int32_t q = a->first; q < end; q++)
        soften_row(a, a->fresh->src[q], out + row_at(q - a->first, floats));
    return KAC_OK;
}

/* The random completions of row i. */
static void imagine_row(const kac_complete_args *a, int32_t i, uint8_t *out)
{
    const uint8_t *row = a->x + row_at(i, a->shape.stride);
    int32_t states = a->shape.states, stride = a->shape.stride, parent = i / a->children;
    const kac_group *group = &a->groups[a->group[parent]];
    uint32_t sums[KAC_MAX_STATES];
    kac_key key = kac_key_of(a->seed, a->clock, group, parent);

    for (int32_t j = 0; j < a->samples; j++)
        memcpy(out + row_at(j, stride), row, (size_t)stride);
    if (!has_mask(row, &a->shape)) return;
    const float *logits = kac_logits_of(a->memo, a->entry[i]);
    for (int32_t l = 0; l < a->shape.length; l++) {
        if (row[l] != states) continue;
        float site[KAC_MAX_STATES] = {0};
        kac_allowed_logits(a, l, logits, site);
        bool lawful = kac_token_sums(site, states, a->temperature, sums) > 0;
        for (int32_t j = 0; j < a->samples; j++) {
            key.child = (uint32_t)(i % a->children * a->samples + j);
            kac_u32x4 draw = kac_draw(key, KAC_DRAW_COMPLETE, (uint32_t)l);
            out[row_at(j, stride) + (size_t)l] = lawful ? kac_token(sums, draw, states) : 0;
        }
    }
}

kac_status kac_cpu_masked_imagine(kac_device *dev, const kac_complete_args *a, uint8_t *out)
{
    (void)dev;
    if (kac_window_is_empty(a)) return KAC_OK;
#pragma omp parallel for schedule(static)
    for (int32_t i = 0; i < a->n; i++)
        if (kac_at_hand(a, i))
            imagine_row(a, i, out + row_at((int64_t)i * a->samples, a->shape.stride));
    return KAC_OK;
}

/* ---- guidance --------------------------------------------------------------------------- */

kac_status kac_cpu_masked_blend(kac_device *dev, const kac_blend_args *a, float *logits)
{
    (void)dev;
    int32_t floats = a->length * a->states;
#pragma omp parallel for schedule(static)
    for (int32_t j = 0; j < *a->jobs->count; j++)
        for (int32_t l = 0; l < a->length; l++)
            kac_blend_site(a->guidance, a->states,
                           a->other + row_at(j, floats) + row_at(l, a->states),
                           logits + row_at(a->jobs->dst[j], floats) + row_at(l, a->states));
    return KAC_OK;
}

/* ---- gradients -------------------------------------------------------------------------- */

kac_status kac_cpu_masked_slope(kac_device *dev, const kac_slope_args *a, float *out)
{
    (void)dev;
    int32_t states = a->shape.states, floats = a->shape.length * states;
    int32_t end = kac_slope_end(a);
#pragma omp parallel for schedule(static)
    for (int32_t q = a->first; q < end; q++) {
        const uint8_t *row = a->x + row_at(a->fresh->src[q], a->shape.stride);
        float *site = out + row_at(q - a->first, floats);
        for (int32_t l = 0; l < a->shape.length; l++, site += states)
            kac_slope_site(a, q, l, row, site);
    }
    return KAC_OK;
}

kac_status kac_cpu_masked_tilt(kac_device *dev, const kac_slope_args *a, float *tilt)
{
    (void)dev;
    int32_t states = a->shape.states, floats = a->shape.length * states;
    int32_t end = kac_slope_end(a);
#pragma omp parallel for schedule(static)
    for (int32_t q = a->first; q < end; q++) {
        const uint8_t *row = a->x + row_at(a->fresh->src[q], a->shape.stride);
        float *site = tilt + row_at(a->fresh->entry[q], floats);
        for (int32_t l = 0; l < a->shape.length; l++, site += states)
            kac_tilt_site(a, q, l, row, site);
    }
    return KAC_OK;
}

/* ---- likelihood ------------------------------------------------------------------------- */

kac_status kac_cpu_masked_renoise(kac_device *dev, const kac_renoise_args *a, uint8_t *x)
{
    (void)dev;
#pragma omp parallel for schedule(static)
    for (int32_t i = 0; i < a->n; i++) {
        uint64_t threshold = kac_mask_threshold(a->levels[a->level].mask);
        uint8_t *row = x + row_at(i, a->shape.stride);
        kac_key key = {
            .seed = a->seed, .move = (uint32_t)a->level, .particle = (uint32_t)a->id[i]};
        memcpy(row, a->x0 + row_at(i, a->shape.stride), (size_t)a->shape.stride);
        for (int32_t l = 0; l < a->shape.length; l++)
            if (kac_is_noised(a, key, threshold, l)) row[l] = (uint8_t)a->shape.states;
    }
    return KAC_OK;
}

kac_status kac_cpu_masked_score(kac_device *dev, const kac_renoise_args *a, const uint8_t *x,
                                const int32_t *entry, const kac_memo *memo, double *out)
{
    (void)dev;
    int32_t states = a->shape.states;
#pragma omp parallel for schedule(static)
    for (int32_t i = 0; i < a->n; i++) {
        const uint8_t *row = x + row_at(i, a->shape.stride);
        const uint8_t *truth = a->x0 + row_at(i, a->shape.stride);
        out[i] = 0;
        if (!has_mask(row, &a->shape)) continue;
        const float *logits = kac_logits_of(memo, entry[i]);
        for (int32_t l = 0; l < a->shape.length; l++)
            if (row[l] == states)
                out[i] += kac_token_log_prob(logits + row_at(l, states), states, truth[l]);
    }
    return KAC_OK;
}

/* ---- refinement ------------------------------------------------------------------------- */

kac_status kac_cpu_masked_remask(kac_device *dev, const kac_remask_args *a, uint8_t *x)
{
    (void)dev;
#pragma omp parallel for schedule(static)
    for (int32_t i = 0; i < a->n; i++) {
        const kac_group *group = &a->groups[a->group[i]];
        uint8_t *row = x + row_at(i, a->shape.stride);
        kac_key key = kac_key_of(a->seed, a->clock, group, i);
        kac_mask_sites(a, key, row);
    }
    return KAC_OK;
}
