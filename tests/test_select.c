/* test_select.c -- banks, weights and selection: exhaustive where it can be, laws elsewhere. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "exact_chain.h"
#include "fault.h"
#include "on_device.h"
#include "ops.h"
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

/* ---- a population -------------------------------------------------------------------------
 */

/* Groups of equal size, each particle with `children` children. */
typedef struct world {
    kac_clock clock;
    kac_level levels[3];
    kac_group *groups;
    int32_t *pool_first;
    kac_particles x, y;
    kac_fault fault;
    kac_select_args a;
} world;

static void *zeros(int64_t n, size_t size)
{
    void *ptr = ops()->memory.alloc(dev(), (size_t)n * size);
    cr_assert_not_null(ptr);
    return ptr;
}

static kac_particles make_particles(int32_t n)
{
    return (kac_particles){
        .n = n,
        .stride = 16,
        .x = zeros(n, 16),
        .log_w = zeros(n, sizeof(double)),
        .bank = zeros(n, sizeof(double)),
        .stat = zeros(n, sizeof(double)),
        .value = zeros(n, sizeof(double)),
        .entry = zeros(n, sizeof(int32_t)),
        .eve = zeros(n, sizeof(int32_t)),
        .group = zeros(n, sizeof(int32_t)),
    };
}

static void drop_particles(kac_particles *p)
{
    void *all[] = {p->x, p->log_w, p->bank, p->stat, p->value, p->entry, p->eve, p->group};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        ops()->memory.release(dev(), all[i]);
}

/* One pool a group, trigger always, categorical by `scheme`, all children kept. */
static void make_world(world *w, int32_t groups, int32_t count, int32_t children)
{
    int32_t n = groups * count;
    *w = (world){.clock = {.level = 1, .move = 5}, .x = make_particles(n)};
    w->y = make_particles(n * children);
    w->levels[1].trigger = KAC_TRIGGER_ALWAYS;
    w->groups = zeros(groups, sizeof *w->groups);
    w->pool_first = zeros(groups + 1, sizeof *w->pool_first);
    for (int32_t g = 0; g < groups; g++) {
        w->groups[g] =
            (kac_group){.offset = g * count, .count = count, .id = g, .alpha = 1, .lambda = 1};
        w->pool_first[g + 1] = g + 1;
        for (int32_t i = g * count; i < (g + 1) * count; i++) {
            w->x.group[i] = g;
            w->x.eve[i] = i;
        }
    }
    w->a = (kac_select_args){
        .clock = &w->clock,
        .levels = w->levels,
        .groups = w->groups,
        .pool_first = w->pool_first,
        .pools = groups,
        .seed = 11,
        .x = &w->x,
        .y = &w->y,
        .children = children,
        .keep = children,
        .group_rule = KAC_RULE_CATEGORICAL,
        .fault = &w->fault,
        .pick = zeros(n * children, sizeof(int32_t)),
        .pick_w = zeros(n * children, sizeof(double)),
        .weight = zeros(n * children, sizeof(uint64_t)),
        .offspring = zeros(n * children, sizeof(int32_t)),
        .chosen = zeros(n, sizeof(int32_t)),
        .log_w = w->x.log_w,
    };
}

static void drop_world(world *w)
{
    void *all[] = {w->groups,   w->pool_first,  w->a.pick,  w->a.pick_w,
                   w->a.weight, w->a.offspring, w->a.chosen};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        ops()->memory.release(dev(), all[i]);
    drop_particles(&w->x);
    drop_particles(&w->y);
}

static void select_both(world *w)
{
    cr_assert_eq(ops()->particles.select_parent(dev(), &w->a), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(ops()->particles.select_group(dev(), &w->a), KAC_OK, "%s", kac_last_error());
}

static void set_threads(int n)
{
#ifdef _OPENMP
    omp_set_num_threads(n);
#else
    (void)n;
#endif
}

/* log_w of children, the same in every group. */
static void fill_weights(world *w, const double *weight, int32_t each)
{
    for (int32_t c = 0; c < w->y.n; c++)
        w->y.log_w[c] = log(weight[c % each]);
}

/* log((1/n) sum exp(l)) by libm. */
static double log_mean(const double *l, int32_t n, int32_t over)
{
    double top = -HUGE_VAL, sum = 0;
    for (int32_t i = 0; i < n; i++)
        top = l[i] > top ? l[i] : top;
    for (int32_t i = 0; i < n; i++)
        sum += exp(l[i] - top);
    return top + log(sum / over);
}

/* ---- the group stage ----------------------------------------------------------------------
 */

/* Mean offspring of each candidate over many groups against N W; counts at floor or ceiling
 * where the scheme says so; candidates of weight zero get none. */
static void check_scheme(kac_scheme scheme, const double *weight, int32_t count,
                         int32_t children)
{
    enum { GROUPS = 4000 };
    int32_t each = count * children;
    bool tight = scheme == KAC_SCHEME_TOURNAMENT || scheme == KAC_SCHEME_SYSTEMATIC;
    double total = 0, sum[16] = {0}, square[16] = {0};
    world w;
    make_world(&w, GROUPS, count, children);
    w.a.scheme = scheme;
    fill_weights(&w, weight, each);
    select_both(&w);
    for (int32_t i = 0; i < each; i++)
        total += weight[i];
    for (int32_t g = 0; g < GROUPS; g++) {
        int32_t hits[16] = {0}, before = 0;
        for (int32_t i = g * count; i < (g + 1) * count; i++) {
            int32_t c = w.a.chosen[i] - g * each;
            cr_assert(c >= before && c < each, "offspring come in the order of candidates");
            before = c;
            hits[c]++;
        }
        for (int32_t i = 0; i < each; i++) {
            double share = count * weight[i] / total;
            sum[i] += hits[i];
            square[i] += hits[i] * hits[i];
            if (weight[i] < 1e-12 * total) cr_assert_eq(hits[i], 0);
            if (tight)
                cr_assert(hits[i] >= floor(share - 1e-9) && hits[i] <= ceil(share + 1e-9),
                          "scheme %d: %d offspring of %g", scheme, hits[i], share);
        }
    }
    for (int32_t i = 0; i < each; i++) {
        double mean = sum[i] / GROUPS, share = count * weight[i] / total;
        double sd = sqrt(fmax(square[i] / GROUPS - mean * mean, 1e-12) / GROUPS);
        cr_expect_lt(fabs(mean - share), 5.5 * sd + 1e-7, "scheme %d, candidate %d: %g for %g",
                     scheme, i, mean, share);
    }
    drop_world(&w);
}

static const double weight_of[][10] = {
    {1, 1, 1, 1, 1, 1, 1, 1, 1, 1},
    {0.5, 2, 0.1, 3.3, 0.7, 1, 0.2, 5, 0.04, 1.1},
    {0, 0, 1, 0, 2, 0, 0, 3, 0, 0},
    {1e-300, 1, 1e-300, 1e-3, 0.2, 1e-300, 0.7, 0, 0.3, 1e-300},
    {100, 1, 1, 1, 0.5, 0.5, 0.5, 1, 1, 2},
    {0, 0, 0, 0, 1, 0, 0, 0, 0, 0},
};

static void check_scheme_everywhere(kac_scheme scheme)
{
    for (size_t k = 0; k < sizeof weight_of / sizeof *weight_of; k++) {
        check_scheme(scheme, weight_of[k], 5, 1);
        if (scheme == KAC_SCHEME_KILLING) continue;
        check_scheme(scheme, weight_of[k], 5, 2);
    }
    check_scheme(scheme, weight_of[1], 9, 1);
}

Test(group_stage, tournament_gives_shares)
{
    check_scheme_everywhere(KAC_SCHEME_TOURNAMENT);
}

Test(group_stage, systematic_gives_shares)
{
    check_scheme_everywhere(KAC_SCHEME_SYSTEMATIC);
}

Test(group_stage, stratified_gives_shares)
{
    check_scheme_everywhere(KAC_SCHEME_STRATIFIED);
}

Test(group_stage, residual_gives_shares)
{
    check_scheme_everywhere(KAC_SCHEME_RESIDUAL);
}

Test(group_stage, multinomial_gives_shares)
{
    check_scheme_everywhere(KAC_SCHEME_MULTINOMIAL);
}

Test(group_stage, killing_gives_shares)
{
    check_scheme_everywhere(KAC_SCHEME_KILLING);
}

/* Every match has its own uniform: with two independent pairs of equal halves, all four
 * outcomes are equally likely. */
Test(group_stage, matches_are_independent)
{
    enum { GROUPS = 20000 };
    const double weight[4] = {0.5, 0.5, 0.5, 0.5};
    double counts[4] = {0}, law[4] = {0.25, 0.25, 0.25, 0.25};
    world w;
    make_world(&w, GROUPS, 2, 2);
    fill_weights(&w, weight, 4);
    select_both(&w);
    for (int32_t g = 0; g < GROUPS; g++) {
        int32_t one = w.a.chosen[2 * g] - 4 * g, two = w.a.chosen[2 * g + 1] - 4 * g;
        cr_assert(one < 2 && two >= 2);
        counts[2 * one + two - 2]++;
    }
    cr_expect_lt(chain_chi_square(law, counts, 4), 1);
    drop_world(&w);
}

/* Draws have their own uniforms too.  Two offspring of three candidates, as pairs. */
Test(group_stage, draws_are_independent)
{
    enum { GROUPS = 20000, CELLS = 9 };
    static const struct {
        kac_scheme scheme;
        double weight[3], law[CELLS];
    } cases[] = {
        {KAC_SCHEME_STRATIFIED, {1, 2, 1}, {0, 0.25, 0.25, 0, 0.25, 0.25, 0, 0, 0}},
        {KAC_SCHEME_MULTINOMIAL, {1, 2, 1}, {0.0625, 0.25, 0.125, 0, 0.25, 0.25, 0, 0, 0.0625}},
        {KAC_SCHEME_RESIDUAL, {1, 1, 0}, {0, 1, 0, 0, 0, 0, 0, 0, 0}},
        {KAC_SCHEME_RESIDUAL, {1, 2, 2}, {0.04, 0.16, 0.16, 0, 0.16, 0.32, 0, 0, 0.16}},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        double counts[CELLS] = {0};
        world w;
        make_world(&w, GROUPS, 2, 2);
        w.a.scheme = cases[k].scheme;
        for (int32_t c = 0; c < w.y.n; c++)
            w.y.log_w[c] = c % 4 < 3 ? log(cases[k].weight[c % 4]) : -HUGE_VAL;
        select_both(&w);
        for (int32_t g = 0; g < GROUPS; g++)
            counts[3 * (w.a.chosen[2 * g] - 4 * g) + w.a.chosen[2 * g + 1] - 4 * g]++;
        if (k == 2)
            cr_expect_eq(counts[1], GROUPS, "whole shares are certain");
        else
            cr_expect_lt(chain_chi_square(cases[k].law, counts, CELLS), 1, "case %zu", k);
        drop_world(&w);
    }
}

Test(group_stage, evidence_is_kept)
{
    const double weight[6] = {0.5, 2, 0.1, 3.3, 0, 1};
    for (int scheme = KAC_SCHEME_TOURNAMENT; scheme <= KAC_SCHEME_MULTINOMIAL; scheme++) {
        world w;
        make_world(&w, 4, 3, 2);
        w.a.scheme = (kac_scheme)scheme;
        fill_weights(&w, weight, 6);
        for (int32_t c = 0; c < 6; c++)
            w.y.log_w[c] += 700; /* far from exp's range */
        for (int32_t g = 0; g < 4; g++)
            w.groups[g].log_z = -g;
        select_both(&w);
        for (int32_t g = 0; g < 4; g++) {
            double before = -g + log_mean(w.y.log_w + (ptrdiff_t)6 * g, 6, 3);
            cr_expect_float_eq(w.groups[g].log_z, before, 1e-9, "the candidates' mean of N");
            cr_expect_eq(w.groups[g].selected, 1);
            for (int32_t i = 3 * g; i < 3 * g + 3; i++)
                cr_expect_eq(w.x.log_w[i], 0);
        }
        drop_world(&w);
    }
}

Test(group_stage, equal_weights_cash_in_exactly)
{
    world w;
    make_world(&w, 1, 7, 1);
    for (int32_t c = 0; c < 7; c++)
        w.y.log_w[c] = 1.25;
    select_both(&w);
    cr_expect_eq(w.groups[0].log_z, 1.25);
    cr_expect_eq(w.groups[0].ess, 1);
    for (int32_t i = 0; i < 7; i++)
        cr_expect_eq(w.a.chosen[i], i, "one offspring each");
    drop_world(&w);
}

Test(group_stage, without_trigger_nothing_is_lost)
{
    const double weight[4] = {4, 2, 0, 2};
    const struct {
        kac_trigger trigger;
        kac_rule rule;
        int32_t below;
        int selects;
    } cases[] = {
        {KAC_TRIGGER_NEVER, KAC_RULE_CATEGORICAL, 65536, 0},
        {KAC_TRIGGER_ALWAYS, KAC_RULE_NONE, 65536, 0},
        {KAC_TRIGGER_ESS, KAC_RULE_NONE, 65536, 0},
        {KAC_TRIGGER_ESS, KAC_RULE_CATEGORICAL, 65536 * 2 / 3, 0}, /* ESS is 2/3 of 4 */
        {KAC_TRIGGER_ESS, KAC_RULE_CATEGORICAL, 65536 * 2 / 3 + 1, 1},
        {KAC_TRIGGER_ALWAYS, KAC_RULE_CATEGORICAL, 0, 1},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        world w;
        make_world(&w, 1, 4, 1);
        fill_weights(&w, weight, 4);
        w.levels[1].trigger = (int32_t)cases[k].trigger;
        w.a.group_rule = cases[k].rule;
        w.a.below = cases[k].below;
        w.groups[0].log_z = 0.5;
        select_both(&w);
        cr_expect_eq(w.groups[0].selected, cases[k].selects, "case %zu", k);
        cr_expect_float_eq(w.groups[0].ess, 2.0 / 3, 1e-7);
        if (!cases[k].selects) {
            cr_expect_eq(w.groups[0].log_z, 0.5);
            cr_expect_arr_eq(w.x.log_w, w.y.log_w, 4 * sizeof(double));
            for (int32_t i = 0; i < 4; i++)
                cr_expect_eq(w.a.chosen[i], i);
        }
        cr_expect_eq(kac_fault_read(w.fault).kind, KAC_FAULT_NONE);
        drop_world(&w);
    }
}

Test(group_stage, dead_pools_are_told)
{
    for (int error = 0; error < 2; error++) {
        world w;
        make_world(&w, 4, 3, 1);
        w.a.dead_is_error = error;
        for (int32_t c = 0; c < 12; c++)
            w.y.log_w[c] = c / 3 == 1 || c / 3 == 2 ? -HUGE_VAL : -c;
        select_both(&w);
        for (int32_t g = 0; g < 4; g++) {
            int dead = g == 1 || g == 2;
            cr_expect_eq(w.groups[g].dead, dead);
            cr_expect_eq(w.groups[g].selected, !dead);
            if (!dead) continue;
            cr_expect_eq(w.groups[g].log_z, -HUGE_VAL);
            cr_expect_eq(w.groups[g].ess, 0);
            for (int32_t i = 3 * g; i < 3 * g + 3; i++) {
                cr_expect_eq(w.a.chosen[i], i);
                cr_expect_eq(w.x.log_w[i], -HUGE_VAL);
            }
        }
        cr_expect_eq(kac_fault_read(w.fault).kind, error ? KAC_FAULT_DEAD : KAC_FAULT_NONE);
        if (error) {
            cr_expect_eq(kac_fault_read(w.fault).slot, 3, "the lowest dead group");
            cr_expect_eq(kac_fault_read(w.fault).move, 5);
            cr_expect_eq(kac_fault_read(w.fault).term, -1);
        }
        drop_world(&w);
    }
}

Test(group_stage, an_earlier_fault_stays)
{
    world w;
    make_world(&w, 1, 2, 1);
    w.a.dead_is_error = 1;
    kac_fault_note(&w.fault, (kac_trouble){KAC_FAULT_NAN, 9, 1, 7});
    w.y.log_w[0] = w.y.log_w[1] = -HUGE_VAL;
    select_both(&w);
    cr_expect_eq(kac_fault_read(w.fault).kind, KAC_FAULT_NAN);
    cr_expect_eq(kac_fault_read(w.fault).slot, 9);
    drop_world(&w);
}

Test(group_stage, argmax_and_top_k)
{
    const double l[6] = {0.5, 2, -HUGE_VAL, 2, 1, -3};
    world w;
    make_world(&w, 2, 3, 2);
    memcpy(w.y.log_w, l, sizeof l);
    for (int32_t c = 6; c < 12; c++)
        w.y.log_w[c] = c == 9 ? 4 : -HUGE_VAL;
    w.groups[0].log_z = 0.75;

    w.a.group_rule = KAC_RULE_ARGMAX;
    select_both(&w);
    for (int32_t i = 0; i < 3; i++) {
        cr_expect_eq(w.a.chosen[i], 1, "the first of two equal ones");
        cr_expect_eq(w.a.chosen[3 + i], 9);
        cr_expect_eq(w.x.log_w[i], 0);
    }
    cr_expect_eq(w.groups[0].log_z, 0.75);

    w.a.group_rule = KAC_RULE_TOP_K;
    select_both(&w);
    const int32_t want[6] = {1, 3, 4, 9, 6, 7};
    cr_expect_arr_eq(w.a.chosen, want, sizeof want);
    cr_expect_eq(w.x.log_w[3], 0);
    cr_expect_eq(w.x.log_w[4], -HUGE_VAL, "what is dead stays dead");
    cr_expect_eq(w.groups[0].log_z, 0.75);
    drop_world(&w);
}

/* Rule replace: the worst two of eight are never kept, the others stay in place of themselves, and
 * the two new ones are drawn from them by weight. */
Test(group_stage, replace_draws_from_the_others)
{
    static const double weight[8] = {4, 0.5, 3, 0.1, 1, 2, 5, 1.5};
    enum { GROUPS = 20000 };
    double share[8] = {0};
    world w;
    make_world(&w, GROUPS, 8, 1);
    fill_weights(&w, weight, 8);
    w.a.group_rule = KAC_RULE_REPLACE;
    w.a.fraction = 0.3; /* of 8: 2 */
    select_both(&w);
    for (int32_t g = 0; g < GROUPS; g++) {
        int copies[8] = {0};
        for (int i = 0; i < 8; i++)
            copies[w.a.chosen[g * 8 + i] - g * 8]++;
        cr_assert(copies[1] == 0 && copies[3] == 0, "one of the worst stayed");
        for (int i = 0; i < 8; i++) {
            cr_assert(i == 1 || i == 3 || copies[i] >= 1, "candidate %d lost its place", i);
            share[i] += (copies[i] - (i != 1 && i != 3)) / (2.0 * GROUPS);
        }
        cr_assert_eq(w.groups[g].log_z, 0, "a replacement cashed in");
    }
    for (int i = 0; i < 8; i++) {
        double p = i == 1 || i == 3 ? 0 : weight[i] / 16.5;
        cr_expect(fabs(share[i] - p) <= 5 * sqrt(p * (1 - p) / (2 * GROUPS)),
                  "candidate %d: %g for %g", i, share[i], p);
    }
    w.a.fraction = 0; /* one at least */
    select_both(&w);
    for (int i = 0; i < 8; i++)
        cr_expect_neq(w.a.chosen[i], 3);
    drop_world(&w);
}

/* Scaled weights: exp(value / largest |value|), so the best is at most e^2 times the worst;
 * weights by value: exp(value / alpha). */
Test(group_stage, weights_made_of_values)
{
    static const double value[4] = {-8, 4, 2, -2};
    static const double weight[4] = {100, 1, 1, 1}; /* would decide all alone */
    enum { GROUPS = 20000 };
    double share[4] = {0}, sum = 0;
    world w;
    make_world(&w, GROUPS, 4, 1);
    fill_weights(&w, weight, 4);
    for (int32_t c = 0; c < w.y.n; c++)
        w.y.value[c] = value[c % 4];
    w.a.weights = KAC_WEIGHTS_SCALED;
    w.a.scheme = KAC_SCHEME_MULTINOMIAL;
    select_both(&w);
    for (int32_t i = 0; i < w.x.n; i++)
        share[w.a.chosen[i] % 4] += 0.25 / GROUPS;
    for (int i = 0; i < 4; i++)
        sum += exp(value[i] / 8);
    for (int i = 0; i < 4; i++) {
        double p = exp(value[i] / 8) / sum;
        cr_expect(fabs(share[i] - p) <= 5 * sqrt(p * (1 - p) / (4 * GROUPS)),
                  "candidate %d: %g for %g", i, share[i], p);
    }
    cr_expect_eq(w.groups[0].log_z, 0, "scaled weights say nothing of the evidence");

    w.a.weights = KAC_WEIGHTS_VALUE;
    memset(share, 0, sizeof share);
    sum = 0;
    for (int32_t g = 0; g < GROUPS; g++)
        w.groups[g].alpha = 3;
    select_both(&w);
    for (int32_t i = 0; i < w.x.n; i++)
        share[w.a.chosen[i] % 4] += 0.25 / GROUPS;
    for (int i = 0; i < 4; i++)
        sum += exp(value[i] / 3);
    for (int i = 0; i < 4; i++) {
        double p = exp(value[i] / 3) / sum;
        cr_expect(fabs(share[i] - p) <= 5 * sqrt(p * (1 - p) / (4 * GROUPS)),
                  "by value, candidate %d: %g for %g", i, share[i], p);
    }
    drop_world(&w);
}

Test(group_stage, top_k_sorts)
{
    enum { N = 100, M = 3 };
    world w;
    make_world(&w, 1, N, M);
    w.a.group_rule = KAC_RULE_TOP_K;
    for (int32_t c = 0; c < N * M; c++)
        w.y.log_w[c] = (double)(c * 7919 % 151) / 8; /* many ties */
    select_both(&w);
    for (int32_t i = 0; i < N; i++) {
        int32_t here = w.a.chosen[i], rank = 0;
        for (int32_t c = 0; c < N * M; c++)
            rank +=
                w.y.log_w[c] > w.y.log_w[here] || (w.y.log_w[c] == w.y.log_w[here] && c < here);
        cr_assert_eq(rank, i);
    }
    drop_world(&w);
}

/* A pool of two groups selects as one: one normaliser, survivors from either. */
Test(group_stage, a_pool_may_span_groups)
{
    world w;
    make_world(&w, 3, 2, 1);
    w.a.pools = 2;
    w.pool_first[1] = 2;
    w.pool_first[2] = 3;
    const double weight[6] = {1, 1, 3, 3, 1, 1};
    fill_weights(&w, weight, 6);
    select_both(&w);
    cr_expect_float_eq(w.groups[0].log_z, log(2), 1e-9);
    cr_expect_eq(w.groups[0].log_z, w.groups[1].log_z);
    cr_expect_eq(w.groups[2].log_z, 0);
    cr_expect_float_eq(w.groups[0].ess, 64.0 / 20 / 4, 1e-6);
    cr_expect_eq(w.groups[0].ess, w.groups[1].ess);
    cr_expect(w.a.chosen[1] >= 2, "3 of the 4 offspring come from the second group");
    drop_world(&w);

    make_world(&w, 2, 2, 1);
    w.a.pools = 1;
    w.pool_first[1] = 2;
    for (int32_t c = 0; c < 4; c++)
        w.y.log_w[c] = -HUGE_VAL;
    select_both(&w);
    cr_expect(w.groups[0].dead && w.groups[1].dead);
    drop_world(&w);
}

Test(group_stage, refuses_what_killing_can_not_do)
{
    world w;
    make_world(&w, 1, 2, 2);
    w.a.scheme = KAC_SCHEME_KILLING;
    cr_expect_eq(ops()->particles.select_group(dev(), &w.a), KAC_ERR_INVALID);
    drop_world(&w);
}

/* Weights that depend on the slot only. */
static void fill_uneven(world *w, int32_t first)
{
    for (int32_t c = 0; c < w->y.n; c++)
        w->y.log_w[c] = (double)((c + first) * 7919 % 101) / 16;
    for (int32_t i = 0; i < w->x.n; i++)
        w->x.log_w[i] = (double)((i + first) % 3) / 4;
}

Test(group_stage, the_same_bits_with_any_threads_and_alone)
{
    enum { GROUPS = 13, COUNT = 6, CHILDREN = 4 };
    for (int scheme = KAC_SCHEME_TOURNAMENT; scheme <= KAC_SCHEME_KILLING; scheme++) {
        world w[3]; /* one thread, three threads, group 5 alone */
        for (int k = 0; k < 3; k++) {
            make_world(&w[k], k < 2 ? GROUPS : 1, COUNT, CHILDREN);
            w[k].a.scheme = (kac_scheme)scheme;
            w[k].a.parent_rule = KAC_RULE_CATEGORICAL;
            w[k].a.keep = 1;
            w[k].a.keep_normaliser = 1;
            if (k == 2) w[k].groups[0].id = 5;
            fill_uneven(&w[k], 0);
            if (k == 2)
                for (int32_t c = 0; c < w[k].y.n; c++)
                    w[k].y.log_w[c] = w[0].y.log_w[5 * COUNT * CHILDREN + c];
            set_threads(k == 0 ? 1 : 3);
            select_both(&w[k]);
        }
        cr_expect_arr_eq(w[0].a.chosen, w[1].a.chosen, GROUPS * COUNT * sizeof(int32_t));
        cr_expect_arr_eq(w[0].groups, w[1].groups, GROUPS * sizeof(kac_group));
        for (int32_t i = 0; i < COUNT; i++)
            cr_expect_eq(w[2].a.chosen[i] + 5 * COUNT * CHILDREN, w[0].a.chosen[5 * COUNT + i]);
        cr_expect_eq(w[2].groups[0].log_z, w[0].groups[5].log_z);
        for (int k = 0; k < 3; k++)
            drop_world(&w[k]);
    }
}

/* ---- the parent stage ---------------------------------------------------------------------
 */

Test(parent_stage, categorical_draws_in_proportion)
{
    enum { N = 40000, M = 6 };
    const double weight[M] = {1, 0, 2.5, 1e-300, 0.25, 1};
    for (int keeps = 0; keeps < 2; keeps++) {
        double counts[M] = {0}, law[M];
        world w;
        make_world(&w, N / 4, 4, M);
        w.a.parent_rule = KAC_RULE_CATEGORICAL;
        w.a.keep = 1;
        w.a.keep_normaliser = keeps;
        fill_weights(&w, weight, M);
        for (int32_t i = 0; i < N; i++)
            w.x.log_w[i] = i;
        cr_assert_eq(ops()->particles.select_parent(dev(), &w.a), KAC_OK);
        for (int32_t i = 0; i < N; i++) {
            counts[w.a.pick[i] - i * M]++;
            if (keeps)
                cr_assert_float_eq(w.a.pick_w[i], log(4.75), 1e-10);
            else
                cr_assert_eq(w.a.pick_w[i], i);
        }
        for (int m = 0; m < M; m++)
            law[m] = weight[m] < 1e-12 ? 0 : weight[m] / 4.75;
        cr_expect_lt(chain_chi_square(law, counts, M), 1);
        drop_world(&w);
    }
}

Test(parent_stage, argmax_top_k_and_none)
{
    const double l[8] = {1, 3, -HUGE_VAL, 3, -HUGE_VAL, -HUGE_VAL, -HUGE_VAL, -HUGE_VAL};
    const int32_t best[4] = {1, 3, 4, 5}, three[6] = {1, 3, 0, 4, 5, 6};
    world w;
    make_world(&w, 1, 2, 4);
    memcpy(w.y.log_w, l, sizeof l);
    w.x.log_w[0] = 0.5;

    w.a.parent_rule = KAC_RULE_TOP_K;
    w.a.keep = 2;
    cr_assert_eq(ops()->particles.select_parent(dev(), &w.a), KAC_OK);
    cr_expect_arr_eq(w.a.pick, best, sizeof best);
    cr_expect_eq(w.a.pick_w[0], 0.5);
    cr_expect_eq(w.a.pick_w[1], 0.5);
    cr_expect_eq(w.a.pick_w[2], -HUGE_VAL, "no child has weight: child 0, and none");

    w.a.keep = 3;
    cr_assert_eq(ops()->particles.select_parent(dev(), &w.a), KAC_OK);
    cr_expect_arr_eq(w.a.pick, three, sizeof three);

    w.a.parent_rule = KAC_RULE_ARGMAX;
    w.a.keep = 1;
    cr_assert_eq(ops()->particles.select_parent(dev(), &w.a), KAC_OK);
    cr_expect_eq(w.a.pick[0], 1);
    cr_expect_eq(w.a.pick[1], 4);
    cr_expect_eq(w.a.pick_w[1], -HUGE_VAL);

    w.a.parent_rule = KAC_RULE_CATEGORICAL;
    for (int keeps = 0; keeps < 2; keeps++) {
        w.a.keep_normaliser = keeps;
        cr_assert_eq(ops()->particles.select_parent(dev(), &w.a), KAC_OK);
        cr_expect_eq(w.a.pick[1], 4);
        cr_expect_eq(w.a.pick_w[1], -HUGE_VAL);
    }

    w.a.parent_rule = KAC_RULE_NONE;
    w.a.keep = 4;
    cr_assert_eq(ops()->particles.select_parent(dev(), &w.a), KAC_OK);
    for (int32_t c = 0; c < 8; c++)
        cr_expect_eq(w.a.pick[c], c);
    cr_expect_arr_eq(w.a.pick_w, l, sizeof l);

    w.a.keep = 3;
    cr_expect_eq(ops()->particles.select_parent(dev(), &w.a), KAC_ERR_INVALID);
    w.a.parent_rule = KAC_RULE_CATEGORICAL;
    cr_expect_eq(ops()->particles.select_parent(dev(), &w.a), KAC_ERR_INVALID);
    drop_world(&w);
}

/* ---- weigh --------------------------------------------------------------------------------
 */

static kac_status weigh(const kac_weigh_args *a)
{
    kac_status status = ops()->particles.value(dev(), a);
    return status == KAC_OK ? ops()->particles.weigh(dev(), a) : status;
}

static kac_weigh_args weigh_args(world *w, const float *terms, const double *weight)
{
    const double off = (double)NAN;
    kac_term of_column[2] = {{0, off, off, off, off}, {1, off, off, off, off}};
    return (kac_weigh_args){.clock = &w->clock,
                            .groups = w->groups,
                            .objective = {.terms = 2, .term = {of_column[0], of_column[1]}},
                            .group_weight = weight,
                            .x = &w->x,
                            .terms = terms,
                            .columns = 2,
                            .children = w->a.children,
                            .samples = 1,
                            .potential = KAC_POTENTIAL_DIFFERENCE,
                            .fault = &w->fault,
                            .y = &w->y};
}

Test(weigh, follows_the_formula)
{
    const double weight[4] = {2, -1, 0.5, 0}; /* of two groups */
    const float terms[16] = {1,     2,   0.5f, 4, -1, -3, INFINITY,  0,
                             0.25f, NAN, 1,    1, 2,  2,  -INFINITY, 5};
    const double r[8] = {0, -3, 1, 0, 0.125, 0.5, 1, -HUGE_VAL};
    world w;
    make_world(&w, 2, 2, 2);
    w.groups[1].alpha = 0.5;
    for (int32_t i = 0; i < 4; i++) {
        w.x.log_w[i] = 0.1 * i;
        w.x.bank[i] = i;
    }
    kac_weigh_args a = weigh_args(&w, terms, weight);
    a.invalid_is_worst = 1;
    cr_assert_eq(weigh(&a), KAC_OK);
    for (int32_t c = 0; c < 8; c++) {
        double v = c == 3 ? -HUGE_VAL : r[c] / (c < 4 ? 1 : 0.5);
        int32_t parent = c / 2;
        double bank = v == -HUGE_VAL ? parent : v; /* only the end may kill */
        double want = 0.1 * parent + bank - parent - log(2);
        cr_expect_eq(w.y.bank[c], bank, "child %d", c);
        cr_expect_eq(w.y.value[c], c == 3 ? -HUGE_VAL : r[c]);
        cr_expect_float_eq(w.y.log_w[c], want, 1e-14, "child %d", c);
    }
    cr_expect_eq(kac_fault_read(w.fault).kind, KAC_FAULT_NONE,
                 "invalid is worst; weight 0 is not looked at");

    a.invalid_is_worst = 0;
    cr_assert_eq(weigh(&a), KAC_OK);
    cr_expect_eq(kac_fault_read(w.fault).kind, KAC_FAULT_NAN);
    cr_expect_eq(kac_fault_read(w.fault).slot, 1);
    cr_expect_eq(kac_fault_read(w.fault).term, 0);
    cr_expect_eq(kac_fault_read(w.fault).move, 5);
    drop_world(&w);
}

Test(weigh, the_lowest_bad_child_is_named)
{
    enum { N = 64 };
    const double weight[2] = {1, 1};
    float terms[2 * N] = {0};
    terms[2 * 50] = NAN;
    terms[2 * 37 + 1] = NAN;
    terms[2 * 37] = -INFINITY; /* a reward of -inf is a reward */
    for (int threads = 1; threads <= 3; threads += 2) {
        world w;
        make_world(&w, 1, N, 1);
        set_threads(threads);
        kac_weigh_args a = weigh_args(&w, terms, weight);
        cr_assert_eq(weigh(&a), KAC_OK);
        cr_expect_eq(kac_fault_read(w.fault).slot, 37);
        cr_expect_eq(kac_fault_read(w.fault).term, 1);
        drop_world(&w);
    }
}

Test(weigh, several_completions_and_none)
{
    const double weight[2] = {1, 0};
    const float terms[12] = {1,         0, 2,         0, -INFINITY, 0,
                             -INFINITY, 0, -INFINITY, 0, -INFINITY, 0};
    world w;
    make_world(&w, 1, 2, 1);
    w.groups[0].alpha = 0.5;
    w.x.bank[1] = 3;
    w.x.log_w[1] = 0.5;
    kac_weigh_args a = weigh_args(&w, terms, weight);
    a.samples = 3;
    cr_assert_eq(weigh(&a), KAC_OK);
    double v = log((exp(2) + exp(4)) / 3);
    cr_expect_float_eq(w.y.bank[0], v, 1e-14);
    cr_expect_float_eq(w.y.value[0], v / 2, 1e-14);
    cr_expect_eq(w.y.value[1], -HUGE_VAL);
    cr_expect_float_eq(w.y.log_w[1], 0.5 - log(1), 1e-14, "only the end may kill");
    cr_expect_eq(kac_fault_read(w.fault).kind, KAC_FAULT_NONE);

    w.clock.level = 0;
    cr_assert_eq(weigh(&a), KAC_OK);
    cr_expect_eq(w.y.bank[1], -HUGE_VAL);
    cr_expect_eq(w.y.log_w[1], -HUGE_VAL);
    w.clock.level = 1;

    a.terms = NULL;
    cr_assert_eq(weigh(&a), KAC_OK);
    cr_expect_eq(w.y.bank[1], 3);
    cr_expect_eq(w.y.log_w[1], 0.5);
    cr_expect_eq(w.y.value[1], 0);
    drop_world(&w);
}

/* The product of all potentials along a path is exp(r / alpha) whatever the potential. */
Test(weigh, the_last_level_settles_the_account)
{
    const double weight[2] = {1, 0};
    for (int p = KAC_POTENTIAL_DIFFERENCE; p <= KAC_POTENTIAL_TERMINAL; p++) {
        world w;
        make_world(&w, 1, 1, 1);
        w.groups[0].alpha = 0.25;
        w.x.stat[0] = kac_stat_start((kac_potential)p);
        for (int level = 3; level >= 0; level--) {
            const float terms[2] = {(float)((level * 5 + 2) % 7) - 3, 0};
            w.clock.level = level;
            kac_weigh_args a = weigh_args(&w, terms, weight);
            a.potential = (kac_potential)p;
            cr_assert_eq(weigh(&a), KAC_OK);
            w.x.log_w[0] = w.y.log_w[0];
            w.x.bank[0] = w.y.bank[0];
            w.x.stat[0] = w.y.stat[0];
        }
        cr_expect_float_eq(w.x.log_w[0], -1 / 0.25, 1e-12, "potential %d", p);
        drop_world(&w);
    }
}

Test(weigh, reward_and_alpha_scale_together)
{
    const double weight[2] = {1, 0}, twice[2] = {2, 0};
    const float terms[12] = {0.3f, 0, 1.7f, 0, -0.9f, 0, 0.1f, 0, 0.2f, 0, 5.3f, 0};
    for (int32_t samples = 1; samples <= 3; samples += 2) {
        world w[2];
        for (int k = 0; k < 2; k++) {
            make_world(&w[k], 1, 2, 1);
            w[k].groups[0].alpha = k ? 0.6 : 0.3;
            kac_weigh_args a = weigh_args(&w[k], terms, k ? twice : weight);
            a.samples = samples;
            cr_assert_eq(weigh(&a), KAC_OK);
        }
        cr_expect_arr_eq(w[0].y.log_w, w[1].y.log_w, 2 * sizeof(double));
        drop_world(&w[0]);
        drop_world(&w[1]);
    }
}

/* ---- survive ------------------------------------------------------------------------------
 */

Test(survive, everything_but_the_weight_follows)
{
    const int32_t chosen[4] = {7, 6, 0, 7};
    int32_t scratch[4];
    world w;
    make_world(&w, 2, 2, 2);
    for (int32_t c = 0; c < 8; c++) {
        memset(w.y.x + (ptrdiff_t)16 * c, c + 1, 16);
        w.y.bank[c] = c + 0.1;
        w.y.stat[c] = c + 0.2;
        w.y.value[c] = c + 0.3;
        w.y.log_w[c] = c + 0.4;
        w.y.entry[c] = c + 100;
    }
    for (int32_t i = 0; i < 4; i++)
        w.x.eve[i] = 40 + i;
    cr_assert_eq(ops()->particles.survive(dev(), &w.y, 2, chosen, &w.x, scratch), KAC_OK);
    for (int32_t i = 0; i < 4; i++) {
        int32_t c = chosen[i];
        cr_expect_arr_eq(w.x.x + (ptrdiff_t)16 * i, w.y.x + (ptrdiff_t)16 * c, 16);
        cr_expect_eq(w.x.bank[i], c + 0.1);
        cr_expect_eq(w.x.stat[i], c + 0.2);
        cr_expect_eq(w.x.value[i], c + 0.3);
        cr_expect_eq(w.x.log_w[i], 0, "the weight is select's");
        cr_expect_eq(w.x.entry[i], c + 100);
        cr_expect_eq(w.x.eve[i], 40 + c / 2);
        cr_expect_eq(w.x.group[i], i / 2, "a slot keeps its group");
    }
    w.x.stride = 0;
    cr_expect_eq(ops()->particles.survive(dev(), &w.y, 2, chosen, &w.x, scratch),
                 KAC_ERR_INVALID);
    w.y.stride = 0; /* the states are elsewhere */
    memset(w.x.x, 99, (size_t)4 * 16);
    w.x.value[3] = 0;
    cr_assert_eq(ops()->particles.survive(dev(), &w.y, 2, chosen, &w.x, scratch), KAC_OK);
    cr_expect_eq(w.x.value[3], 7.3);
    for (int32_t i = 0; i < 4 * 16; i++)
        cr_expect_eq(w.x.x[i], 99);
    drop_world(&w);
}
