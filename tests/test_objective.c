/* test_objective.c -- from terms to the reward: combining, desirabilities, bounds, weights of
 * groups against plain arithmetic, gradients against finite differences. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "exact_chain.h"
#include "objective.h"
#include "settings.h"

TestSuite(objective, .timeout = 60);

static const double none = (double)NAN;

static kac_term plain(int32_t column)
{
    return (kac_term){column, none, none, none, none};
}

static double on_the_way(const kac_objective *o, const double *weight, const float *row,
                         double price)
{
    int32_t bad = -1;
    double r = kac_objective_reward(o, weight, row, price, &bad);
    cr_expect_eq(bad, -1);
    return r;
}

static double reward(const kac_objective *o, const double *weight, const float *row)
{
    return on_the_way(o, weight, row, HUGE_VAL);
}

/* ---- combining ---------------------------------------------------------------------------- */

Test(objective, a_sum_of_columns_in_any_order)
{
    kac_objective o = {.terms = 4, .term = {plain(2), plain(0), plain(-1), plain(0)}};
    const double weight[4] = {2, -1, 5, 0.5};
    const float row[3] = {3, NAN, 0.25F};
    cr_expect_float_eq(reward(&o, weight, row), 2 * 0.25 - 3 + 1.5, 1e-14);
    cr_expect_eq(reward(&o, (const double[4]){0}, row), 0);
}

Test(objective, desirability_is_a_ramp)
{
    const kac_term up = {0, 2, 4, none, none}, down = {0, 4, 2, none, none};
    const double x[] = {1, 2, 2.5, 3, 4, 9}, want[] = {0, 0, 0.25, 0.5, 1, 1};
    for (int i = 0; i < 6; i++) {
        cr_expect_float_eq(kac_desirability(&up, x[i]), want[i], 1e-15, "%g up", x[i]);
        cr_expect_float_eq(kac_desirability(&down, x[i]), 1 - want[i], 1e-15, "%g down", x[i]);
    }
    const kac_term off = plain(0);
    cr_expect_eq(kac_desirability(&off, -7), -7);
}

Test(objective, product)
{
    kac_objective o = {.combine = KAC_COMBINE_PRODUCT,
                       .terms = 3,
                       .term = {{0, 0, 2, none, none}, {1, 1, 0, none, none}, plain(2)}};
    const double weight[3] = {2, 0.5, 0};
    cr_expect_float_eq(reward(&o, weight, (const float[3]){1.5F, 0.2F, NAN}),
                       pow(0.75, 2) * pow(1 - (double)0.2F, 0.5), 1e-14);
    cr_expect_eq(reward(&o, weight, (const float[3]){-1, 0.2F, 0}), 0, "undesirable");
    cr_expect_eq(reward(&o, weight, (const float[3]){2, 0, 0}), 1, "all that is desired");
    cr_expect_eq(reward(&o, (const double[3]){0}, (const float[3]){-1, 3, 0}), 1);
}

Test(objective, min)
{
    kac_objective o = {.combine = KAC_COMBINE_MIN,
                       .terms = 3,
                       .term = {plain(0), {1, 10, 0, none, none}, plain(2)}};
    const double weight[3] = {2, 3, 0};
    cr_expect_eq(reward(&o, weight, (const float[3]){1, 5, -9}), 1.5);
    cr_expect_eq(reward(&o, weight, (const float[3]){-1, 5, -9}), -2);
    cr_expect_eq(reward(&o, (const double[3]){0}, (const float[3]){-1, 5, -9}), 0);
}

Test(objective, lower_bound)
{
    kac_objective o = {.combine = KAC_COMBINE_LOWER_BOUND,
                       .kappa = 1.5,
                       .terms = 3,
                       .term = {plain(0), plain(1), plain(2)}};
    const double weight[3] = {1, 2, 1};
    double mean = (1 + 2 * 3 + 6) / 4.0;
    double variance =
        (pow(1 - mean, 2) + 2 * pow(3 - mean, 2) + pow(6 - mean, 2)) / 4; /* of the ensemble */
    cr_expect_float_eq(reward(&o, weight, (const float[3]){1, 3, 6}),
                       mean - 1.5 * sqrt(variance), 1e-13);
    cr_expect_eq(reward(&o, weight, (const float[3]){2, 2, 2}), 2);
    cr_expect_eq(reward(&o, (const double[3]){0, 7, 0}, (const float[3]){1, 3, 6}), 3);
}

/* ---- what is worst ------------------------------------------------------------------------ */

Test(objective, bounds_forbid_whatever_the_weight)
{
    kac_objective o = {.terms = 2, .term = {plain(0), {1, none, none, 1, 2}}};
    for (int weighs = 0; weighs < 2; weighs++) {
        const double weight[2] = {1, weighs};
        cr_expect_eq(reward(&o, weight, (const float[2]){3, 0.9F}), -HUGE_VAL);
        cr_expect_eq(reward(&o, weight, (const float[2]){3, 2.1F}), -HUGE_VAL);
        cr_expect_eq(reward(&o, weight, (const float[2]){3, -INFINITY}), -HUGE_VAL);
        cr_expect_eq(reward(&o, weight, (const float[2]){3, 1}), 3 + weighs,
                     "the bounds are in");
        cr_expect_eq(reward(&o, weight, (const float[2]){3, 2}), 3 + 2 * weighs);
    }
    o.term[1].at_least = none;
    cr_expect_eq(reward(&o, (const double[2]){1, 0}, (const float[2]){3, -99}), 3);
    cr_expect_eq(reward(&o, (const double[2]){1, 0}, (const float[2]){3, 99}), -HUGE_VAL);
    o.term[1].at_most = none;
    cr_expect_eq(reward(&o, (const double[2]){1, 0}, (const float[2]){3, 99}), 3);
}

/* Bounds read the term itself, not its desirability. */
Test(objective, bounds_are_of_the_raw_term)
{
    kac_objective o = {.terms = 1, .term = {{0, 10, 20, 12, none}}};
    cr_expect_eq(reward(&o, (const double[1]){1}, (const float[1]){15}), 0.5);
    cr_expect_eq(reward(&o, (const double[1]){1}, (const float[1]){11}), -HUGE_VAL);
}

/* On the way r counts as if there were no bounds, less a price that rises with the distance. */
Test(objective, on_the_way_bounds_have_a_price)
{
    const double weight[4] = {1, 2, 0, 0};
    for (int c = KAC_COMBINE_SUM; c <= KAC_COMBINE_LOWER_BOUND; c++) {
        kac_objective o = {.combine = (kac_combine)c,
                           .kappa = 0.5,
                           .terms = 4,
                           .term = {{0, 0, 20, none, none},
                                    {1, 10, 0, none, 6},
                                    {2, none, none, 0.25, 0.75},
                                    {3, none, none, none, 0}}};
        const float row[4] = {15, 9, 0, 3}, within[4] = {15, 6, 0.5F, 0};
        kac_objective bare = o;
        for (int k = 0; k < 4; k++)
            bare.term[k].at_least = bare.term[k].at_most = none;
        double r = reward(&bare, weight, row);
        double want = r - (5 + fabs(r) / 8) *
                              (3 + 2 * (log(1.5) + log(1 + 0.25 / 0.5) + log(1 + 3.0 / 1)));
        cr_expect_float_eq(on_the_way(&o, weight, row, 5), want, 1e-12, "combine %d", c);
        cr_expect_eq(reward(&o, weight, row), -HUGE_VAL);
        cr_expect_eq(on_the_way(&o, weight, within, 5), reward(&bare, weight, within));
        cr_expect_eq(reward(&o, weight, within), reward(&bare, weight, within));
    }
}

/* The nearer the better, whatever r, from the least distance on; and r among equals. */
Test(objective, the_price_leads_back)
{
    const kac_objective o = {.terms = 2, .term = {plain(0), {1, none, none, none, 6}}};
    const double weight[2] = {1, 0};
    double before = on_the_way(&o, weight, (const float[2]){0, 6}, 1e3);
    for (int x = 7; x < 100; x += x / 7) {
        double r = on_the_way(&o, weight, (const float[2]){5, (float)x}, 1e3);
        cr_expect_lt(r, before, "%d", x);
        cr_expect_lt(on_the_way(&o, weight, (const float[2]){4, (float)x}, 1e3), r);
        before = r;
    }
}

/* Terms are floats: a bound is the float nearest to it. */
Test(objective, bounds_are_rounded_as_terms_are)
{
    static kac_settings settings = {.rewards = 1};
    settings.reward[0] = (kac_reward_settings){
        .weight = 1, .low = none, .high = none, .at_least = 0.7, .at_most = 0.6};
    kac_objective o = kac_objective_of(&settings);
    o.term[0].at_least = none;
    cr_expect_gt((double)0.6F, 0.6);
    cr_expect_eq(reward(&o, (const double[1]){1}, (const float[1]){0.6F}), (double)0.6F);
    cr_expect_eq(reward(&o, (const double[1]){1}, (const float[1]){nextafterf(0.6F, 1)}),
                 -HUGE_VAL);
    o = kac_objective_of(&settings);
    o.term[0].at_most = none;
    cr_expect_lt((double)0.7F, 0.7);
    cr_expect_eq(reward(&o, (const double[1]){1}, (const float[1]){0.7F}), (double)0.7F);
    cr_expect_eq(reward(&o, (const double[1]){1}, (const float[1]){nextafterf(0.7F, 0)}),
                 -HUGE_VAL);
}

Test(objective, the_first_bad_term_is_named)
{
    for (int c = KAC_COMBINE_SUM; c <= KAC_COMBINE_LOWER_BOUND; c++) {
        kac_objective o = {.combine = (kac_combine)c,
                           .terms = 3,
                           .term = {plain(0), {1, none, none, none, 5}, plain(2)}};
        int32_t bad = -1;
        double r = kac_objective_reward(&o, (const double[3]){0, 0, 1},
                                        (const float[3]){NAN, INFINITY, NAN},
                                        c % 2 ? HUGE_VAL : 8, &bad);
        cr_expect_eq(r, -HUGE_VAL);
        cr_expect_eq(bad, 1, "a bound looks at its term, weight 0 does not");
        bad = -1;
        r = kac_objective_reward(&o, (const double[3]){1, 0, 1},
                                 (const float[3]){-INFINITY, 0, 1}, 8, &bad);
        cr_expect_eq(r, -HUGE_VAL);
        cr_expect_eq(bad, -1, "a term of -infinity is a verdict, not a mistake");
    }
}

/* ---- gradients ---------------------------------------------------------------------------- */

/* Central differences of r as a function of one term. */
static double difference(const kac_objective *o, const double *weight, const float *row, int k)
{
    const float h = 0x1p-10F; /* added to a float below 4 it is exact enough */
    float near[2][KAC_MAX_TERMS];
    for (int side = 0; side < 2; side++) {
        memcpy(near[side], row, sizeof near[side]);
        near[side][o->term[k].column] += side ? h : -h;
    }
    double width = (double)near[1][o->term[k].column] - (double)near[0][o->term[k].column];
    return (reward(o, weight, near[1]) - reward(o, weight, near[0])) / width;
}

/* How far the least w d is from the next: there min has a kink. */
static double distance_to_kink(const kac_objective *o, const double *weight, const float *row)
{
    double least[2] = {HUGE_VAL, HUGE_VAL};
    for (int k = 0; k < o->terms; k++) {
        double v = weight[k] * kac_desirability(&o->term[k], (double)row[o->term[k].column]);
        if (weight[k] == 0) continue;
        if (v < least[1]) least[1] = v;
        if (least[1] < least[0]) {
            v = least[0];
            least[0] = least[1];
            least[1] = v;
        }
    }
    return least[1] - least[0];
}

Test(objective, gradients_are_those_of_finite_differences)
{
    uint64_t random = 5;
    int steep = 0, tried[4] = {0};
    for (int trial = 0; trial < 400; trial++) {
        kac_objective o = {.combine = (kac_combine)(trial % 4), .kappa = 0.7, .terms = 4};
        float row[KAC_MAX_TERMS] = {0};
        double weight[4], gradient[4];
        for (int k = 0; k < 4; k++) {
            o.term[k] = plain(3 - k);
            if (k < 2 || o.combine == KAC_COMBINE_PRODUCT) {
                o.term[k].low = k == 1 ? 1.6 : -1.6;
                o.term[k].high = k == 1 ? -1.2 : 1.3;
            }
            weight[k] = k == 3 ? 0 : 1.5 + chain_random(&random);
            row[3 - k] = (float)(1.1 * chain_random(&random));
        }
        if (trial % 16 < 4) row[3] = -2; /* undesired, on the flat side */
        if (o.combine == KAC_COMBINE_MIN && distance_to_kink(&o, weight, row) < 0.01) continue;
        kac_objective_gradient(&o, weight, row, gradient);
        for (int k = 0; k < 4; k++) {
            double want = difference(&o, weight, row, k);
            cr_expect(fabs(gradient[k] - want) < 2e-4 * (1 + fabs(want)),
                      "trial %d, term %d: %g for %g", trial, k, gradient[k], want);
            steep += fabs(gradient[k]) > 0.1;
        }
        cr_expect_eq(gradient[3], 0, "weight 0");
        tried[trial % 4]++;
    }
    cr_expect_gt(steep, 400);
    for (int c = 0; c < 4; c++)
        cr_expect_gt(tried[c], 80);
}

Test(objective, gradients_beyond_bounds_and_numbers)
{
    kac_objective o = {.terms = 3, .term = {plain(0), {1, none, none, none, 1}, plain(2)}};
    const double weight[3] = {1.5, 0.5, 0};
    double gradient[3] = {7, 7, 7};
    kac_objective_gradient(&o, weight, (const float[3]){1, 2, NAN}, gradient);
    cr_expect_eq(gradient[0], 1.5);
    cr_expect_eq(gradient[1], 0.5, "outside a bound the slope leads back");
    cr_expect_eq(gradient[2], 0, "weight 0");
    for (int c = KAC_COMBINE_SUM; c <= KAC_COMBINE_LOWER_BOUND; c++) {
        const float bad[3] = {NAN, INFINITY, -INFINITY};
        o.combine = (kac_combine)c;
        for (int i = 0; i < 3; i++) {
            kac_objective_gradient(&o, weight, (const float[3]){bad[i], 0.3F, 0}, gradient);
            for (int k = 0; k < 3; k++)
                cr_expect_eq(gradient[k], 0);
        }
    }
}

/* ---- weights of groups -------------------------------------------------------------------- */

Test(objective, weights_of_groups)
{
    static kac_reward_settings term = {.weight = 3};
    cr_expect_eq(kac_reward_weight(&term, 5, 8), 3);
    strcpy(term.weights, "0:1");
    for (int g = 0; g < 5; g++)
        cr_expect_float_eq(kac_reward_weight(&term, g, 5), g / 4.0, 1e-15);
    cr_expect_eq(kac_reward_weight(&term, 0, 1), 0);
    strcpy(term.weights, "1,-0.5,2e1");
    const double six[6] = {1, 1, -0.5, -0.5, 20, 20}, four[4] = {1, 1, -0.5, 20};
    for (int g = 0; g < 6; g++)
        cr_expect_eq(kac_reward_weight(&term, g, 6), six[g]);
    for (int g = 0; g < 4; g++)
        cr_expect_eq(kac_reward_weight(&term, g, 4), four[g]);

    static const char *const good[] = {"", "1", "1,2", "0:1", "-1:+2.5", "1e-3,0"};
    static const char *const bad[] = {
        ",",   "1,",  ",1",  "1,,2", "0:1:2", "0:",   "0,1:2", "a",
        "1;2", "inf", "nan", "0x1",  "-0x1",  "+inf", "1e31",  "1, 2"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        cr_expect(kac_reward_reads_weights(good[i]), "%s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_expect(!kac_reward_reads_weights(bad[i]), "%s", bad[i]);
    cr_expect(kac_reward_reads_motifs("GAATTC,N"));
    cr_expect(!kac_reward_reads_motifs("GAATTC,"));
    cr_expect(!kac_reward_reads_motifs("GA TC"));
    cr_expect(!kac_reward_reads_motifs(",A"));
}
