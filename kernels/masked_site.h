/* masked_site.h -- what the operations of the masked process do at one site of one row. */
#ifndef KAC_MASKED_SITE_H
#define KAC_MASKED_SITE_H

#include "complete.h"
#include "masked.h"

/* ---- children ----------------------------------------------------------------------------- */

/* The law of one masked site: running sums of the denoiser's weights, and of those drawn from. */
typedef struct kac_site_law {
    uint32_t q[KAC_MAX_STATES];
    uint32_t drawn[KAC_MAX_STATES];
    bool lawful; /* the denoiser gives a law */
    bool alive;  /* which has a letter that is allowed */
} kac_site_law;

KAC_HD static inline int kac_is_twisted(const kac_twist *twist)
{
    return twist->tilt != NULL || twist->allowed != NULL;
}

/* The law of site l of the children of particle i, whose logits are those of the site. */
KAC_HD static inline kac_site_law kac_law_of_site(const kac_propose_args *a, int32_t i,
                                                  int32_t l, const float *logits)
{
    const kac_twist *twist = &a->twist;
    const kac_group *group = &a->groups[a->x->group[i]];
    int32_t states = a->shape.states;
    kac_site_law law;
    law.lawful = kac_token_sums(logits, states, a->temperature, law.q) > 0;
    law.alive = law.lawful;
    if (!law.lawful) return law;
    if (!kac_is_twisted(twist)) {
        for (int32_t k = 0; k < states; k++)
            law.drawn[k] = law.q[k];
        return law;
    }
    const float *tilt = NULL;
    if (twist->tilt != NULL)
        tilt = twist->tilt + ((int64_t)twist->row[i] * a->shape.length + l) * states;
    float scale = (float)(twist->scale * group->lambda / group->alpha);
    uint32_t allowed = twist->allowed != NULL ? twist->allowed[l] : UINT32_MAX;
    law.alive = kac_twisted_sums(logits, law.q, states, a->temperature, tilt, scale, allowed,
                                 law.drawn) > 0;
    return law;
}

/* log q(token) - log q'(token), both normalised. */
KAC_HD static inline double kac_law_ratio(const kac_site_law *law, int32_t states,
                                          uint8_t token)
{
    if (!law->alive) return -(double)INFINITY;
    return kac_share_log(law->q, states, token) - kac_share_log(law->drawn, states, token);
}

/* The state that child 0 of particle i must become, or NULL: the group's first slot follows the
 * path that the group retains. */
KAC_HD static inline const uint8_t *kac_retained_by(const kac_propose_args *a, int32_t i)
{
    const kac_retained *retained = a->retained;
    int32_t g = a->x->group[i];
    if (retained == NULL || !retained->held[g] || i != a->groups[g].offset) return NULL;
    return retained->path + ((int64_t)g * retained->levels + a->clock->level) * a->shape.stride;
}

/* ---- completions -------------------------------------------------------------------------- */

/* out = the logits of site l, -INFINITY where a letter is not allowed; logits are those of the
 * row. */
KAC_HD static inline void kac_allowed_logits(const kac_complete_args *a, int32_t l,
                                             const float *logits, float *out)
{
    const float *site = logits + (int64_t)l * a->shape.states;
    uint32_t allowed = a->allowed != NULL ? a->allowed[l] : UINT32_MAX;
    for (int32_t k = 0; k < a->shape.states; k++)
        out[k] = kac_token_allowed(allowed, k) ? site[k] : -INFINITY;
}

/* The law that propose draws from, as floats: integer weights over their sum.  Where there is
 * no law, NaN. */
KAC_HD static inline void kac_soften_site(const float *logits, int32_t states,
                                          float temperature, float *out)
{
    uint32_t sums[KAC_MAX_STATES];
    uint32_t sum = kac_token_sums(logits, states, temperature, sums);
    for (int32_t k = 0; k < states; k++) {
        double weight = sum == 0 ? (double)NAN : (double)(sums[k] - (k > 0 ? sums[k - 1] : 0));
        out[k] = (float)(weight / (double)sum);
    }
}

/* ---- guidance ----------------------------------------------------------------------------- */

KAC_HD static inline void kac_blend_site(double w, int32_t states, const float *other,
                                         float *logits)
{
    double out[KAC_MAX_STATES];
    for (int32_t k = 0; k < states; k++) {
        double log_p = kac_token_log_prob(logits, states, (uint8_t)k);
        double log_other = kac_token_log_prob(other, states, (uint8_t)k);
        if (log_other < -100) log_other = -100;
        out[k] = log_p == -(double)INFINITY ? log_p : (1 + w) * log_p - w * log_other;
    }
    for (int32_t k = 0; k < states; k++)
        logits[k] = (float)out[k];
}

/* ---- gradients ---------------------------------------------------------------------------- */

/* One past the last fresh row of this batch. */
KAC_HD static inline int32_t kac_slope_end(const kac_slope_args *a)
{
    int32_t count = *a->fresh->count;
    return count < a->first + a->batch ? count : a->first + a->batch;
}

/* out = dr / d logits of site l of fresh row q, row the row's tokens. */
KAC_HD static inline void kac_slope_site(const kac_slope_args *a, int32_t q, int32_t l,
                                         const uint8_t *row, float *out)
{
    int32_t states = a->shape.states;
    int64_t at = ((int64_t)(q - a->first) * a->shape.length + l) * states;
    double mean = 0;
    for (int32_t k = 0; k < states; k++)
        mean = fma((double)a->soft[at + k], (double)a->reward[at + k], mean);
    for (int32_t k = 0; k < states; k++) {
        double g = (double)a->reward[at + k] - mean;
        double slope = (double)a->soft[at + k] * g / (double)a->temperature;
        out[k] = row[l] == states ? (float)slope : 0;
    }
}

/* out = the tilt of site l of fresh row q, row the row's tokens. */
KAC_HD static inline void kac_tilt_site(const kac_slope_args *a, int32_t q, int32_t l,
                                        const uint8_t *row, float *out)
{
    int32_t states = a->shape.states;
    int64_t site = (int64_t)(q - a->first) * a->shape.length + l;
    for (int32_t k = 0; k < states; k++) {
        float g = a->direct ? a->reward[site * states + k] : 0;
        if (a->input != NULL) g += a->input[site * (states + 1) + k];
        out[k] = row[l] == states ? g : 0;
    }
}

/* ---- masks -------------------------------------------------------------------------------- */

/* Whether site l of x0 is masked in its noised copy, where words below the threshold mask. */
KAC_HD static inline int kac_is_noised(const kac_renoise_args *a, kac_key key,
                                       uint64_t threshold, int32_t l)
{
    if (a->fixed != NULL && a->fixed[l] != a->shape.states) return 0;
    return kac_draw(key, KAC_DRAW_RENOISE, (uint32_t)l).v[0] < threshold;
}

/* Masks a->sites of the free sites of a row, every such subset with the same probability: each
 * site in turn with probability (sites still to mask) / (free sites left), Knuth's algorithm S.
 */
KAC_HD static inline void kac_mask_sites(const kac_remask_args *a, kac_key key, uint8_t *row)
{
    int32_t mask = a->shape.states;
    int32_t left = 0, sites = a->sites;
    for (int32_t l = 0; l < a->shape.length; l++)
        left += a->fixed == NULL || a->fixed[l] == mask;
    for (int32_t l = 0; l < a->shape.length; l++) {
        if (a->fixed != NULL && a->fixed[l] != mask) continue;
        kac_u32x4 draw = kac_draw(key, KAC_DRAW_REMASK, (uint32_t)l);
        if (kac_below(draw, 0, (uint64_t)left--) >= (uint64_t)sites) continue;
        row[l] = (uint8_t)mask;
        sites--;
    }
}

#endif /* KAC_MASKED_SITE_H */
