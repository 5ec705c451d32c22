/* test_schemes.c -- the scalar rules of weights and selection schemes, all small weights. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "exact_chain.h"
#include "on_device.h"
#include "particles.h"
#include "select.h"

/* ---- schemes, all weight vectors ----------------------------------------------------------
 */

enum { MOST = 5, MOST_OFFSPRING = 6 };

/* One weight vector with entries 0 .. 4 and a number of offspring. */
typedef struct small {
    int n;
    int offspring;
    uint64_t w[MOST], c[MOST], s;
} small;

/* Calls `check` on every one of them; they are numbered in base 5. */
static void each_small(void (*check)(const small *))
{
    for (int n = 1; n <= MOST; n++)
        for (int code = 1; code < chain_power(5, n); code++)
            for (int offspring = 1; offspring <= MOST_OFFSPRING; offspring++) {
                small v = {.n = n, .offspring = offspring};
                for (int i = 0, rest = code; i < n; i++, rest /= 5) {
                    v.w[i] = (uint64_t)(rest % 5);
                    v.s += v.w[i];
                    v.c[i] = v.s;
                }
                check(&v);
            }
}

/* Each of `ways` equally likely: E[offspring of i] = N w[i] / s. */
static void expect_shares(const small *v, const uint64_t *hits, uint64_t ways)
{
    for (int i = 0; i < v->n; i++)
        cr_assert_eq(hits[i] * v->s, (uint64_t)v->offspring * v->w[i] * ways,
                     "n %d, N %d, candidate %d", v->n, v->offspring, i);
}

static void check_systematic(const small *v)
{
    uint64_t hits[MOST] = {0};
    for (uint64_t u = 0; u < v->s; u++) {
        int32_t before = 0;
        for (int i = 0; i < v->n; i++) {
            int32_t upto = kac_systematic(v->c[i], v->offspring, u, v->s);
            uint64_t count = (uint64_t)(upto - before),
                     share = (uint64_t)v->offspring * v->w[i];
            cr_assert(count == share / v->s || count == (share + v->s - 1) / v->s);
            hits[i] += count;
            before = upto;
        }
        cr_assert_eq(before, v->offspring);
    }
    expect_shares(v, hits, v->s);
}

static void check_stratified(const small *v)
{
    uint64_t hits[MOST] = {0};
    for (int j = 0; j < v->offspring; j++)
        for (uint64_t u = 0; u < v->s; u++)
            hits[kac_first_above(v->c, v->n, kac_stratum(j, v->offspring, u, v->s))]++;
    expect_shares(v, hits, v->s);
}

static void check_multinomial(const small *v)
{
    uint64_t hits[MOST] = {0};
    for (uint64_t u = 0; u < v->s; u++)
        hits[kac_first_above(v->c, v->n, u)] += (uint64_t)v->offspring;
    expect_shares(v, hits, v->s);
}

static void check_residual(const small *v)
{
    uint64_t hits[MOST] = {0}, left = (uint64_t)v->offspring;
    int32_t whole[MOST] = {0};
    for (int i = 0; i < v->n; i++) {
        kac_share share = kac_share_of(v->w[i], v->offspring, v->s);
        cr_assert_eq((uint64_t)share.whole * v->s + share.residue,
                     (uint64_t)v->offspring * v->w[i]);
        left -= (uint64_t)share.whole;
        whole[i] = share.whole + (i > 0 ? whole[i - 1] : 0);
    }
    for (uint64_t u1 = 0; u1 < left; u1++)
        for (uint64_t u2 = 0; u2 < v->s; u2++)
            hits[kac_residual(v->c, whole, v->n, v->offspring, u1, u2)]++;
    /* left draws among left s ways each: E = hits / s */
    for (int i = 0; i < v->n; i++)
        hits[i] += (uint64_t)(whole[i] - (i > 0 ? whole[i - 1] : 0)) * v->s;
    expect_shares(v, hits, v->s);
}

static void check_killing(const small *v)
{
    uint64_t top = 0, stays[MOST] = {0}, redrawn = 0;
    if (v->offspring != v->n) return;
    for (int i = 0; i < v->n; i++)
        top = v->w[i] > top ? v->w[i] : top;
    for (int i = 0; i < v->n; i++) {
        for (uint64_t u = 0; u < top; u++)
            stays[i] += (uint64_t)kac_survives(v->w[i], u);
        redrawn += top - stays[i];
    }
    for (int i = 0; i < v->n; i++) /* in units of 1 / (top s) */
        cr_assert_eq(stays[i] * v->s + redrawn * v->w[i], (uint64_t)v->n * v->w[i] * top);
}

/* What is known of a subtree before its draws: who may be champion, and the offspring decided
 * inside it, both in units of 1 / ways; its residue does not depend on the draws. */
typedef struct bracket {
    uint64_t ways, residue;
    uint64_t champion[MOST], decided[MOST];
} bracket;

static bracket play(const small *v, int first, int n)
{
    bracket out = {.ways = 1};
    if (n == 1) {
        out.residue = kac_share_of(v->w[first], v->offspring, v->s).residue;
        out.champion[first] = 1;
        return out;
    }
    int half = 1;
    while (2 * half < n)
        half *= 2;
    bracket one = play(v, first, half), two = play(v, first + half, n - half);
    uint64_t range = kac_match_range(one.residue, two.residue, v->s);
    uint64_t goes_on[2] = {0}, decided[2] = {0};
    for (uint64_t u = 0; u < range; u++) {
        kac_match match = kac_match_play(one.residue, two.residue, v->s, u);
        goes_on[match.first_goes_on ? 0 : 1]++;
        if (match.decided) decided[match.first_goes_on ? 1 : 0]++;
    }
    if (range == 0) range = goes_on[0] = 1; /* nothing is left on either side */
    out.ways = one.ways * two.ways * range;
    out.residue = (one.residue + two.residue) % v->s;
    for (int i = 0; i < v->n; i++) {
        out.champion[i] =
            one.champion[i] * two.ways * goes_on[0] + two.champion[i] * one.ways * goes_on[1];
        out.decided[i] = (one.decided[i] * two.ways + two.decided[i] * one.ways) * range +
                         one.champion[i] * two.ways * decided[0] +
                         two.champion[i] * one.ways * decided[1];
    }
    return out;
}

static void check_tournament(const small *v)
{
    bracket all = play(v, 0, v->n);
    cr_assert_eq(all.residue, 0);
    for (int i = 0; i < v->n; i++) {
        kac_share share = kac_share_of(v->w[i], v->offspring, v->s);
        cr_assert_leq(all.decided[i], all.ways, "at most one more than the floor");
        cr_assert_eq(all.decided[i] * v->s, share.residue * all.ways,
                     "n %d, N %d, candidate %d", v->n, v->offspring, i);
    }
}

Test(schemes, shares_are_exact_for_all_small_weights)
{
    each_small(check_systematic);
    each_small(check_stratified);
    each_small(check_multinomial);
    each_small(check_residual);
    each_small(check_killing);
    each_small(check_tournament);
}

Test(schemes, a_match_keeps_what_it_should)
{
    for (uint64_t s = 1; s < 12; s++)
        for (uint64_t a = 0; a < s; a++)
            for (uint64_t b = 0; b < s; b++)
                for (uint64_t u = 0; u < kac_match_range(a, b, s); u++) {
                    kac_match match = kac_match_play(a, b, s, u);
                    cr_assert_lt(match.residue, s);
                    cr_assert_eq(match.residue + (uint64_t)match.decided * s, a + b);
                    if (a == 0) cr_assert(!match.first_goes_on && !match.decided);
                    if (b == 0) cr_assert(match.first_goes_on && !match.decided);
                }
}

/* Sums near 2^62 and the largest counts: nothing wraps. */
Test(schemes, large_weights_do_not_wrap)
{
    const uint64_t one = UINT64_C(1) << 38;
    const int32_t many = 1 << 24;
    uint64_t s = one * (uint64_t)many;
    cr_expect_eq(kac_systematic(s, many, s - 1, s), many);
    cr_expect_eq(kac_systematic(s / 2, many, 0, s), many / 2);
    cr_expect_eq(kac_stratum(many - 1, many, s - 1, s), s - 1);
    cr_expect_eq(kac_share_of(one, many, s).whole, 1);
    cr_expect_eq(kac_share_of(one, many, s).residue, 0);
    cr_expect_eq(kac_match_range(s - 1, s - 1, s), 2);
    uint64_t c[2] = {one - 1, 2 * one - 1};
    int32_t whole[2] = {many / 2 - 1, many - 1};
    cr_expect_eq(kac_residual(c, whole, 2, many, 0, 0), 0);
    cr_expect_eq(kac_residual(c, whole, 2, many, 0, 2 * one - 2), 1);
}

/* The quotient of base + x + y as the selection of large pools takes it: where it is open the exact
 * one serves, which must be right in any case. */
static bool check_quotient(int32_t n, uint64_t u, uint64_t s, uint64_t base, uint64_t x,
                           uint64_t y)
{
    const double one = 0x1p38;
    const kac_quotients q = kac_quotients_of(kac_divisor_of(n, u, s), base, one);
    const unsigned __int128 product = (unsigned __int128)(base + x + y) * (uint32_t)n + u;
    const int32_t quotient = (int32_t)(product / s);
    const double near = fma((double)y / one, q.each, kac_quotient_near(&q, (double)x / one));
    const bool open = kac_quotient_is_open(near);
    cr_assert_eq(kac_quotient_exact(&q, (double)(x + y) / one) + q.whole, quotient);
    if (!open)
        cr_assert_eq(kac_quotient_steps(near) + q.whole, quotient, "%d %lu %lu: %lu %lu %lu", n,
                     u, s, base, x, y);
    return open;
}

/* Beside where a quotient grows, for sums of weights that are a multiple of N and any others. */
Test(schemes, quotients_near_integers)
{
    static const int32_t offspring[] = {1, 3, 1000, 16777213, 1 << 24};
    const uint64_t one = UINT64_C(1) << 38, most = UINT64_C(1) << 50;
    uint64_t state = 1, opened = 0, asked = 0;
    for (size_t k = 0; k < sizeof offspring / sizeof *offspring; k++)
        for (int round = 0; round < 20000; round++) {
            uint64_t draw[6];
            for (int i = 0; i < 6; i++) {
                state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
                draw[i] = state ^ state >> 31;
            }
            const int32_t n = offspring[k];
            const uint64_t units = 1 + draw[0] % (UINT64_C(1) << round % 25);
            const uint64_t s = round % 3 ? units * one : units * one - draw[1] % (one / 2);
            const uint64_t u = round % 4 ? draw[2] % s : round % 8 ? s - 1 : 0;
            const uint64_t whole = 1 + draw[3] % (uint32_t)n;
            /* the least c whose quotient is `whole` */
            const unsigned __int128 left = (unsigned __int128)whole * s - u;
            uint64_t c = (uint64_t)((left + (uint32_t)n - 1) / (uint32_t)n);
            c += draw[4] % 3;
            if (c > 0) c--;
            if (c > s) c = s;
            const uint64_t beyond = draw[5] % (c < most ? c + 1 : most), x = beyond / 3;
            asked++;
            opened += check_quotient(n, u, s, c - beyond, x, beyond - x);
        }
    cr_expect(opened > 0 && opened < asked);
}

/* ---- scalar rules -------------------------------------------------------------------------
 */

Test(weights, are_floors_of_exponentials)
{
    cr_expect_eq(kac_weight(3.5, 3.5), KAC_WEIGHT_ONE);
    cr_expect_eq(kac_weight(HUGE_VAL, HUGE_VAL), KAC_WEIGHT_ONE);
    cr_expect_eq(kac_weight(-HUGE_VAL, -HUGE_VAL), 0);
    cr_expect_eq(kac_weight(-HUGE_VAL, 0), 0);
    cr_expect_eq(kac_weight((double)NAN, 0), 0);
    cr_expect_eq(kac_weight(log(1e-300), 0), 0);
    cr_expect_eq(kac_weight(-26.34, 0), 0);
    cr_expect_eq(kac_weight(-26.33, 0), 1);
    for (int k = 1; k < 70; k++) {
        double l = -0.37 * k;
        double want = exp(l) * 0x1p38;
        cr_expect_leq(fabs((double)kac_weight(l, 0) - floor(want)), 1 + 1e-15 * want);
        cr_expect_eq(kac_weight(l + 1024, 1024), kac_weight(l + 1024 - 1024, 0));
    }
    cr_expect_eq(kac_log_mean(0, 7 * KAC_WEIGHT_ONE, 7), 0, "equal weights cash in nothing");
    cr_expect_float_eq(kac_log_mean(2, 3 * KAC_WEIGHT_ONE, 2), 2 + log(1.5), 1e-15);
}

Test(weights, ess_is_decided_at_its_edges)
{
    kac_weight_sums equal = {0, 0, 0}, half = {0, 0, 0}, one = {0, 0, 0};
    for (int i = 0; i < 4; i++) {
        kac_weight_add(&equal, KAC_WEIGHT_ONE);
        kac_weight_add(&half, i < 2 ? KAC_WEIGHT_ONE : 0);
        kac_weight_add(&one, i < 1 ? KAC_WEIGHT_ONE : 0);
    }
    cr_expect_eq(kac_ess_share(&equal, 4), 1);
    cr_expect_eq(kac_ess_share(&half, 4), 0.5);
    cr_expect_eq(kac_ess_share(&one, 4), 0.25);
    cr_expect_not(kac_ess_is_below(&equal, 4, 65536), "not below 1, but at 1");
    cr_expect_not(kac_ess_is_below(&half, 4, 32768));
    cr_expect(kac_ess_is_below(&half, 4, 32769));
    cr_expect_not(kac_ess_is_below(&one, 4, 16384));
    cr_expect(kac_ess_is_below(&one, 4, 16385));
    cr_expect_not(kac_ess_is_below(&one, 4, 0));

    kac_weight_sums many = {0, 0, 0}; /* 2^24 equal weights: the largest products */
    many.coarse = UINT64_C(1) << 48;
    many.square = (unsigned __int128)1 << 72;
    cr_expect_not(kac_ess_is_below(&many, 1 << 24, 65536));
    many.coarse--;
    cr_expect(kac_ess_is_below(&many, 1 << 24, 65536));
}

Test(weights, banks_follow_their_potential)
{
    const double v[3] = {-1.5, 2.0, 0.25};
    const double want[4][3] = {
        {-1.5, 2.0, 0.25}, {-1.5, 0.5, 2.5}, {-1.5, -1.0, -0.25}, {0, 0, 0}};
    for (int p = KAC_POTENTIAL_DIFFERENCE; p <= KAC_POTENTIAL_TERMINAL; p++) {
        kac_bank_stat now = {0, kac_stat_start((kac_potential)p)};
        for (int k = 0; k < 3; k++) {
            cr_expect_eq(kac_bank((kac_potential)p, v[k], now, 1).bank, v[k],
                         "the last bank is r / alpha whatever came before");
            now = kac_bank((kac_potential)p, v[k], now, 0);
            cr_expect_eq(now.bank, want[p][k], "potential %d, value %d", p, k);
        }
    }
    cr_expect_eq(kac_child_log_w(0.5, 1, 3, 0.25), 2.25);
    cr_expect_eq(kac_child_log_w(-HUGE_VAL, 1, 3, 0), -HUGE_VAL);
    cr_expect_eq(kac_child_log_w(0, 1, -HUGE_VAL, 0), -HUGE_VAL);
    cr_expect_eq(kac_child_log_w(-HUGE_VAL, -HUGE_VAL, -HUGE_VAL, 0), -HUGE_VAL);
}
