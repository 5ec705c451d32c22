/* test_select.c -- both stages of selection: their laws, and what they leave behind. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "exact_chain.h"
#include "fault.h"
#include "population.h"
#include "select.h"

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

/* Invalid completions on the way come after valid ones, and kill no group; at the end they do. */
Test(group_stage, weights_of_invalid_values)
{
    for (int32_t level = 0; level < 2; level++) {
        world w;
        make_world(&w, 2, 3, 1);
        w.a.weights = KAC_WEIGHTS_VALUE;
        w.clock.level = level;
        w.levels[0] = w.levels[1];
        for (int32_t c = 0; c < 6; c++)
            w.y.value[c] = c == 1 ? -1 : -HUGE_VAL; /* none is valid in the second group */
        select_both(&w);
        for (int32_t i = 0; i < 3; i++)
            cr_expect_eq(w.a.chosen[i], 1, "level %d, slot %d", (int)level, (int)i);
        cr_expect_eq(w.groups[0].dead, 0);
        cr_expect_eq(w.groups[1].dead, level == 0, "level %d", (int)level);
        drop_world(&w);
    }
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
