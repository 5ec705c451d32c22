/* particles.h -- banks and weights of particles: the scalar maths.
 *
 * Log-weights and banks are fp64.  What steers is the integer weight floor(2^38 exp(l - max)):
 * its sums are exact in any order, so survivors and evidence do not depend on threads, block
 * sizes or ranks.  A weight below 2^-38 of the largest is zero.
 */
#ifndef KAC_PARTICLES_H
#define KAC_PARTICLES_H

#include <math.h>

#include "exact.h"
#include "hd.h"
#include "types.h"

/* Rows in use of n, as kac_particles counts them. */
KAC_HD static inline int32_t kac_live(const int32_t *live, int32_t n)
{
    return live != NULL ? *live : n;
}

/* ---- banks ------------------------------------------------------------------------------ */

/* Log of the product of all potentials on a particle's path, and the running max or sum of its
 * values. */
typedef struct kac_bank_stat {
    double bank;
    double stat;
} kac_bank_stat;

/* What a particle's stat is before its first value. */
KAC_HD static inline double kac_stat_start(kac_potential potential)
{
    return potential == KAC_POTENTIAL_MAX ? -(double)INFINITY : 0;
}

/* Bank and stat of a child with value v (units of r / alpha) from its parent's.  At the last
 * level the bank is v whatever the potential, so the product of all potentials is exp(r /
 * alpha) on every path.  Before it, a value of -INFINITY (an invalid completion, and no valid one
 * of a sibling to go by) says nothing certain of the end and leaves the bank: only the end may
 * kill.
 * Singhal et al., "A general framework for inference-time scaling and steering of diffusion
 * models", ICML 2025: difference, max and sum potentials. */
KAC_HD static inline kac_bank_stat kac_bank(kac_potential potential, double v,
                                            kac_bank_stat parent, int last)
{
    kac_bank_stat child = parent;
    if (!last && v == -(double)INFINITY) return child;
    if (potential == KAC_POTENTIAL_DIFFERENCE) child.bank = v;
    if (potential == KAC_POTENTIAL_MAX) {
        child.stat = v > parent.stat ? v : parent.stat;
        child.bank = parent.bank + child.stat;
    }
    if (potential == KAC_POTENTIAL_SUM) {
        child.stat = parent.stat + v;
        child.bank = parent.bank + child.stat;
    }
    if (last) child.bank = v;
    return child;
}

/* log_w of a child.  What once had weight zero keeps it: -INFINITY, never NaN. */
KAC_HD static inline double kac_child_log_w(double log_w, double parent_bank, double bank,
                                            double log_children)
{
    if (log_w == -(double)INFINITY || bank == -(double)INFINITY) return -(double)INFINITY;
    return log_w + (bank - parent_bank) - log_children;
}

/* ---- weights ---------------------------------------------------------------------------- */

enum { KAC_WEIGHT_BITS = 38, KAC_ESS_SHIFT = KAC_WEIGHT_BITS - 24 };
#define KAC_WEIGHT_ONE (UINT64_C(1) << KAC_WEIGHT_BITS)

/* floor(2^38 exp(l - top)) for l <= top; 0 for -INFINITY and for NaN.  What is chosen is what the
 * exponential is of, not what it gives, so that no lane of a warp goes a way of its own. */
KAC_HD static inline uint64_t kac_weight(double l, double top)
{
    double below = l - top;                           /* NaN where both are infinite */
    if (!(below > -27)) below = -60;                  /* the result is 0 */
    if (l == top && l > -(double)INFINITY) below = 0; /* an infinite top has weight too */
    return (uint64_t)(kac_exp_near(below) * (double)KAC_WEIGHT_ONE);
}

/* log of sum / (2^38 n) with the top put back: log((1/n) sum of exp(l)). */
KAC_HD static inline double kac_log_mean(double top, uint64_t sum, int64_t n)
{
    return top + kac_log((double)sum / ((double)KAC_WEIGHT_ONE * (double)n));
}

/* Sums over the weights of a pool; the square is of weights shortened to 24 bits. */
typedef struct kac_weight_sums {
    uint64_t sum;
    uint64_t coarse;
    unsigned __int128 square;
} kac_weight_sums;

KAC_HD static inline void kac_weight_add(kac_weight_sums *s, uint64_t w)
{
    uint32_t coarse = (uint32_t)(w >> KAC_ESS_SHIFT); /* <= 2^24 */
    uint64_t square = (uint64_t)coarse * coarse;      /* which 64 bits hold */
    s->sum += w;
    s->coarse += coarse;
    s->square += square;
}

/* Whether ESS < below / 2^16 of n weights, ESS = (sum w)^2 / sum w^2; decided in integers, so
 * every device decides alike.  n <= 2^24. */
KAC_HD static inline int kac_ess_is_below(const kac_weight_sums *s, int64_t n, int32_t below)
{
    unsigned __int128 sum = s->coarse;
    uint64_t share = (uint64_t)(n * below);
    return sum * sum << 16 < s->square * share;
}

/* ESS / n. */
KAC_HD static inline double kac_ess_share(const kac_weight_sums *s, int64_t n)
{
    double sum = (double)s->coarse;
    return sum * sum / ((double)s->square * (double)n);
}

#endif /* KAC_PARTICLES_H */
