/* test_weigh.c -- banks and log-weights of children, and what survivors keep. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "fault.h"
#include "population.h"

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
    a.price = 0.75;
    cr_assert_eq(weigh(&a), KAC_OK);
    for (int32_t c = 0; c < 8; c++) {
        double v = r[c] / (c < 4 ? 1 : 0.5);
        int32_t parent = c / 2;
        double bank = c == 3 ? r[2] - 0.75 : c == 7 ? r[6] / 0.5 - 1.5 : v;
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

/* Whatever its siblings promise, a child that is outside of bounds comes after all that are not where
 * rewards differ by less than the price; so does one that is invalid.  Only the end forbids. */
Test(weigh, forbidden_and_invalid_completions_come_last)
{
    enum { M = 4 };
    const double weight[2] = {-1, 0};
    /* r = -5 within the bound; -1 and far outside, -2 and less so; invalid. */
    const float terms[2 * M] = {5, 1, 1, 9, 2, 2, INFINITY, 0};
    for (int p = KAC_POTENTIAL_DIFFERENCE; p <= KAC_POTENTIAL_SUM; p++)
        for (int level = 1; level >= 0; level--) {
            world w;
            make_world(&w, 1, 1, M);
            w.clock.level = level;
            w.x.stat[0] = kac_stat_start((kac_potential)p);
            kac_weigh_args a = weigh_args(&w, terms, weight);
            a.objective.term[1].at_most = 1;
            a.potential = (kac_potential)p;
            a.price = 8;
            a.invalid_is_worst = 1;
            cr_assert_eq(weigh(&a), KAC_OK);
            const double *l = w.y.log_w;
            cr_expect_float_eq(l[0], -5 - log(M), 1e-14);
            for (int m = 1; m < M; m++)
                cr_expect(level > 0 ? isfinite(l[m]) && l[m] < l[0] - 1 : l[m] == -HUGE_VAL,
                          "child %d of potential %d at level %d", m, p, level);
            if (level > 0) {
                cr_expect_gt(l[2], l[1], "nearer the bound");
                cr_expect_float_eq(l[3], l[1] - 8, 1e-12, "after the least");
            }
            drop_world(&w);
        }
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
