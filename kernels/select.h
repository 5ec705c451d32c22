/* select.h -- drawing offspring in integers: the scalar maths of every scheme.
 *
 * Notation: w[i] is the integer weight of candidate i of n, c[i] = w[0] + .. + w[i], s =
 * c[n-1], N the number of offspring.  Every function takes its uniforms as arguments; each
 * scheme has E[offspring of i] = N w[i] / s exactly when they are uniform on the ranges stated.
 * n, N <= 2^24 and s <= 2^62.
 */
#ifndef KAC_SELECT_H
#define KAC_SELECT_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#include "exact.h"

/* The first i with c[i] > u, for u < c[n-1]; never a candidate of weight zero. */
KAC_HD static inline int32_t kac_first_above(const uint64_t *c, int32_t n, uint64_t u)
{
    int32_t low = 0, high = n - 1;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        if (c[middle] > u)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* A quotient, which is a number of offspring, and the remainder. */
typedef struct kac_share {
    int32_t whole;
    uint64_t residue; /* < s */
} kac_share;

/* c -> (c n + u) / s where that is below 2^25; u < s. */
typedef struct kac_divisor {
    uint64_t n, u, s;
    double each, first; /* n / s, u / s */
} kac_divisor;

KAC_HD static inline kac_divisor kac_divisor_of(int32_t n, uint64_t u, uint64_t s)
{
    kac_divisor d = {(uint32_t)n, u, s, n / (double)s, (double)u / (double)s};
    return d;
}

/* By the integer next to an estimate, which is the quotient's whole part or one more, put right
 * by the remainder, of which 64 bits tell all. */
KAC_HD static inline kac_share kac_divide_about(const kac_divisor *d, uint64_t c, double about)
{
    const uint32_t whole = (uint32_t)kac_bits64(about + 0x1p52);
    const uint64_t rest = c * d->n + d->u - whole * d->s; /* -s .. s - 1 */
    const uint32_t over = (uint32_t)(rest >> 63);
    kac_share share = {(int32_t)(whole - over), rest + (over ? d->s : 0)};
    return share;
}

/* The estimate is some 2^-50 of it wrong.  A GPU takes hundreds of instructions to divide 128
 * bits, and tens for this; a divisor serves a whole loop. */
KAC_HD static inline kac_share kac_divide(const kac_divisor *d, uint64_t c)
{
    return kac_divide_about(d, c, (double)c * d->each + d->first);
}

/* Quotients of many c = base + one x, x below 2^14 a multiple of 1 / one: one fma on doubles
 * tells them unless they are very near to an integer. */
typedef struct kac_quotients {
    kac_divisor by;
    uint64_t base;
    double one, each; /* one, and one n / s */
    double rest;      /* of the quotient of the base */
    int32_t whole;    /* what is added to kac_quotient_steps */
} kac_quotients;

/* The bits of 2^25 + m from its units on are this + m, modulo 2^32. */
enum { KAC_STEPS_FROM = 0x30000000 };

KAC_HD static inline kac_quotients kac_quotients_of(kac_divisor by, uint64_t base, double one)
{
    const double about = fma((double)base, by.each, by.first);
    const int32_t whole = (int32_t)about;
    kac_quotients q = {by, base, one, one * by.each, about - whole, whole - KAC_STEPS_FROM};
    return q;
}

/* 2^25 + the quotient of x from about that of the base on, in steps of 2^-27: too large by a
 * quarter of a step to six of them, as three are added and roundings come to less.  That of x +
 * y is fma(y, q->each, that of x), within these bounds too. */
KAC_HD static inline double kac_quotient_near(const kac_quotients *q, double x)
{
    return fma(x, q->each, q->rest) + (0x1p25 + 0x3p-27);
}

/* Whether it may be beyond an integer that the quotient is below; else kac_quotient_steps says
 * how far beyond q->whole it is. */
KAC_HD static inline bool kac_quotient_is_open(double near)
{
    return (kac_bits64(near) & 0x7fffff8u) == 0;
}

KAC_HD static inline int32_t kac_quotient_steps(double near)
{
    return (int32_t)(uint32_t)(kac_bits64(near) >> 27);
}

/* How far the quotient of x is beyond q->whole, in any case. */
KAC_HD static inline int32_t kac_quotient_exact(const kac_quotients *q, double x)
{
    return kac_divide(&q->by, q->base + (uint64_t)(x * q->one)).whole - q->whole;
}

/* Systematic: offspring of candidates 0 .. i together, from c = c[i] and one u uniform below s
 * for all.  E floor((a + u) / s) = a / s for any integer a. Carpenter, Clifford and Fearnhead,
 * "Improved particle filter for nonlinear problems", IEE Proc. Radar, Sonar and Navigation
 * 146(1), 1999. */
KAC_HD static inline int32_t kac_systematic(uint64_t c, int32_t offspring, uint64_t u,
                                            uint64_t s)
{
    const kac_divisor d = kac_divisor_of(offspring, u, s);
    return kac_divide(&d, c).whole;
}

/* Stratified: offspring j of N is the candidate kac_first_above finds for the point floor((j s
 * + u) / N), u uniform below s, its own for each j.  N c[i] > j s + u is the same as c[i] > the
 * quotient.  With s = q N + r it is j q + (j r + u) / N, and nothing is beyond 64 bits.
 * Kitagawa, "Monte Carlo filter and smoother", J. Comput. Graph. Stat. 5(1), 1996. */
KAC_HD static inline uint64_t kac_stratum(int32_t j, int32_t offspring, uint64_t u, uint64_t s)
{
    uint64_t n = (uint32_t)offspring, k = (uint32_t)j;
    return k * (s / n) + (k * (s % n) + u) / n;
}

/* Residual and tournament: N w / s is what a candidate gets for certain, and what is left of
 * it: residue / s. */
KAC_HD static inline kac_share kac_share_of(uint64_t w, int32_t offspring, uint64_t s)
{
    const kac_divisor d = kac_divisor_of(offspring, 0, s);
    return kac_divide(&d, w);
}

/* Residual: the R offspring that are left, R s = the sum of all residues, are each the first i
 * with f[i] > u1 s + u2, u1 uniform below R and u2 below s.  f[i] is the running sum of
 * residues, N c[i] - s * (whole offspring of 0 .. i), which needs no third array. Liu and Chen,
 * "Sequential Monte Carlo methods for dynamic systems", JASA 93(443), 1998. */
KAC_HD static inline int32_t kac_residual(const uint64_t *c, const int32_t *whole, int32_t n,
                                          int32_t offspring, uint64_t u1, uint64_t u2)
{
    uint64_t s = c[n - 1];
    unsigned __int128 u = (unsigned __int128)u1 * s + u2;
    int32_t low = 0, high = n - 1;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        unsigned __int128 f = (unsigned __int128)c[middle] * (uint32_t)offspring -
                              (unsigned __int128)s * (uint32_t)whole[middle];
        if (f > u)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* Tournament: pivotal sampling over a binary tree.  Each subtree has at most one candidate with
 * a residue left, its champion.  Where two subtrees with residues a and b < s meet, either both
 * fit into one, and the winner takes a + b while the loser has nothing left; or one offspring
 * is decided, the winner gets it and is done, and the loser goes on with a + b - s.  Which is
 * one uniform u below kac_match_range.  The last residue is 0 by arithmetic, so the offspring
 * always sum to N, each candidate gets the floor or the ceiling of N w / s, and the counts are
 * negatively associated. Deville and Tille, "Unequal probability sampling without replacement
 * through a splitting method", Biometrika 85(1), 1998; Brown Kramer, Cutler and Radcliffe,
 * "Negative dependence and Srinivasan's sampling process", Combin. Probab. Comput. 20(3), 2011.
 */
typedef struct kac_match {
    int first_goes_on; /* 1: the champion of the first subtree stays champion, 0: the second's
                        */
    int decided;       /* 1: the one that does not go on gets an offspring */
    uint64_t residue;  /* of the one that goes on */
} kac_match;

KAC_HD static inline uint64_t kac_match_range(uint64_t a, uint64_t b, uint64_t s)
{
    return a + b < s ? a + b : 2 * s - a - b;
}

KAC_HD static inline kac_match kac_match_play(uint64_t a, uint64_t b, uint64_t s, uint64_t u)
{
    kac_match match = {u < a, 0, a + b};
    if (a + b >= s) {
        match.first_goes_on = !(u < s - b);
        match.decided = 1;
        match.residue = a + b - s;
    }
    return match;
}

/* Killing: candidate i keeps its place when u, uniform below the largest weight, is below w[i];
 * otherwise the place is drawn again in proportion to the weights.  As many places as
 * candidates. Del Moral, "Feynman-Kac Formulae", Springer, 2004. */
KAC_HD static inline int kac_survives(uint64_t w, uint64_t u)
{
    return u < w;
}

#endif /* KAC_SELECT_H */
