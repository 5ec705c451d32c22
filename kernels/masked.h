/* masked.h -- absorbing diffusion: the scalar maths of a site.
 *
 * A move reveals a masked site in two stages.  Whether: word 0 of its draw against a threshold
 * of the schedule.  Which token: words 2 and 3 against integer weights of the denoiser's
 * logits. The first stage needs no logits, so they are read only where a site is revealed, and
 * the second is exact in integers once the weights are. Sahoo et al., "Simple and effective
 * masked diffusion language models", NeurIPS 2024.
 */
#ifndef KAC_MASKED_H
#define KAC_MASKED_H

#include <math.h>

#include "exact.h"
#include "hd.h"
#include "rng.h"
#include "types.h"

/* floor(2^26 exp((logit - top) / temperature)) for logit <= top, both finite or logit
 * -INFINITY; a token below 2^-26 of the likeliest is never drawn. */
KAC_HD static inline uint32_t kac_token_weight(float logit, float top, float temperature)
{
    float x = (logit - top) / temperature;
    if (!(x > -20.0f)) return 0; /* exp(-20) < 2^-28; and -INFINITY */
    return (uint32_t)(kac_expf(x) * 0x1p26f);
}

/* Running sums c[0 .. S-1] of the weights of one site's logits.  Returns c[S-1], or 0 where
 * there is no law to draw from: a NaN, a +INFINITY, or nothing but -INFINITY. */
KAC_HD static inline uint32_t kac_token_sums(const float *logits, int32_t states,
                                             float temperature, uint32_t *c)
{
    float top = logits[0];
    uint32_t sum = 0;
    int valid = 1;
    for (int32_t k = 0; k < states; k++) {
        if (logits[k] > top) top = logits[k];
        if (logits[k] != logits[k]) valid = 0;
    }
    if (!valid || top == INFINITY || top == -INFINITY) return 0;
    for (int32_t k = 0; k < states; k++) {
        sum += kac_token_weight(logits[k], top, temperature);
        c[k] = sum;
    }
    return sum;
}

/* A letter that may not appear has no weight. */
KAC_HD static inline int kac_token_allowed(uint32_t allowed, int32_t k)
{
    return (int)(allowed >> k & 1);
}

/* Running sums t[0 .. S-1] of the weights of q' ~ q exp(scale tilt) over the letters allowed,
 * from the running sums c of q's weights and its logits.  Every letter that q can draw and that
 * is allowed keeps a weight of 1 at least, so the ratio q / q' of the weights is finite and
 * exact wherever q' draws.  tilt may be NULL.  Returns t[S-1]; 0 where q draws no letter that
 * is allowed. */
KAC_HD static inline uint32_t kac_twisted_sums(const float *logits, const uint32_t *c,
                                               int32_t states, float temperature,
                                               const float *tilt, float scale, uint32_t allowed,
                                               uint32_t *t)
{
    float energy[KAC_MAX_STATES];
    float top = -INFINITY;
    uint32_t sum = 0;
    for (int32_t k = 0; k < states; k++) {
        float push = tilt != NULL ? scale * tilt[k] : 0;
        int possible = c[k] > (k > 0 ? c[k - 1] : 0) && kac_token_allowed(allowed, k);
        if (!(push - push == 0)) push = 0; /* NaN or infinite */
        energy[k] = possible ? logits[k] / temperature + push : -INFINITY;
        if (energy[k] > top) top = energy[k];
    }
    for (int32_t k = 0; k < states; k++) {
        if (energy[k] > -INFINITY) {
            uint32_t weight = kac_token_weight(energy[k], top, 1);
            sum += weight > 0 ? weight : 1;
        }
        t[k] = sum;
    }
    return sum;
}

/* log of letter k's share of the running sums c. */
KAC_HD static inline double kac_share_log(const uint32_t *c, int32_t states, int32_t k)
{
    return kac_log((double)(c[k] - (k > 0 ? c[k - 1] : 0)) / (double)c[states - 1]);
}

/* The token of a draw: the first k with c[k] > U, U uniform below c[S-1] > 0. */
KAC_HD static inline uint8_t kac_token(const uint32_t *c, kac_u32x4 draw, int32_t states)
{
    uint64_t u = kac_below(draw, 1, c[states - 1]);
    int32_t token = 0;
    for (int32_t k = 0; k + 1 < states; k++)
        token += c[k] <= u;
    return (uint8_t)token;
}

/* The likeliest token, the first on ties; NaN is never chosen over a number. */
KAC_HD static inline uint8_t kac_token_best(const float *logits, int32_t states)
{
    int32_t best = 0;
    float top = logits[0];
    for (int32_t k = 1; k < states; k++)
        if (logits[k] > top || top != top) {
            best = k;
            top = logits[k];
        }
    return (uint8_t)best;
}

/* Whether a logit is NaN. */
KAC_HD static inline int kac_token_is_nan(const float *logits, int32_t states)
{
    int is_nan = 0;
    for (int32_t k = 0; k < states; k++)
        is_nan |= logits[k] != logits[k];
    return is_nan;
}

/* log softmax(logits)[token] in fp64, sums in the order of the tokens. */
KAC_HD static inline double kac_token_log_prob(const float *logits, int32_t states,
                                               uint8_t token)
{
    double top = (double)logits[0], sum = 0;
    for (int32_t k = 1; k < states; k++)
        if ((double)logits[k] > top) top = (double)logits[k];
    for (int32_t k = 0; k < states; k++)
        sum += kac_exp((double)logits[k] - top);
    return (double)logits[token] - top - kac_log(sum);
}

/* A 32-bit word below this masks a site at a level with m(t) = mask. */
KAC_HD static inline uint64_t kac_mask_threshold(double mask)
{
    return (uint64_t)(mask * 0x1p32);
}

#endif /* KAC_MASKED_H */
