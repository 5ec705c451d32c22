/* summary.h -- a step in a few numbers: the scalar maths. */
#ifndef KAC_SUMMARY_H
#define KAC_SUMMARY_H

#include <math.h>

#include "hd.h"
#include "types.h"

/* Which two of n sorted values the quantile at `share` lies between, and how far along. */
typedef struct kac_quantile_at {
    int64_t below, above;
    double weight;
} kac_quantile_at;

KAC_HD static inline kac_quantile_at kac_quantile_place(int64_t n, double share)
{
    double at = share * (double)(n - 1);
    kac_quantile_at q;
    q.below = (int64_t)at;
    q.above = q.below + 1 < n ? q.below + 1 : q.below;
    q.weight = at - (double)q.below;
    return q;
}

/* Infinities stay what they are, and zero has no sign. */
KAC_HD static inline double kac_quantile_between(double below, double above, double weight)
{
    return (weight == 0 ? below : below + weight * (above - below)) + 0.0;
}

/* The shares of kac_summary.value. */
enum { KAC_SUMMARY_VALUES = 3 };
KAC_HD static inline double kac_summary_share(int k)
{
    return k == 0 ? 0.1 : k == 1 ? 0.5 : 0.9;
}

/* Sums over groups go in lanes, group g in lane g mod 32, then from the upper half of the lanes
 * to the lower, so that their bits do not depend on who adds. */
enum { KAC_SUMMARY_LANES = 32 };

/* Their sum, in lane[0] too; the others are scratch then. */
KAC_HD static inline double kac_summary_total(double *lane)
{
    for (int32_t half = KAC_SUMMARY_LANES / 2; half > 0; half /= 2)
        for (int32_t i = 0; i < half; i++)
            lane[i] += lane[i + half];
    return lane[0];
}

#endif /* KAC_SUMMARY_H */
