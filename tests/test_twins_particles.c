/* test_twins_particles.c -- tempering, survivors and gradients: the device's bytes are the CPU's. */
#include "twin_particles.h"

TestSuite(twins_particles, .init = need_device);

/* Few, many, none that fills a warp, and one that takes several blocks. */
static const int32_t sizes[] = {1, 31, 33, 257, 1000, 2, 5000, 64, 1, 7};
enum { GROUPS = sizeof sizes / sizeof *sizes };

Test(twins_particles, temper_and_weigh)
{
    /* a pool a group; groups that share one; so few that each takes several blocks */
    static const int32_t pools[3][GROUPS + 1] = {
        {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, {0, 3, 4, 8, 10}, {0, 9, 10}};
    static const int32_t n_pools[3] = {GROUPS, 4, 2};
    kac_level levels[3] = {{.temper = 1}, {.temper = 0.375}, {.temper = 0}};
    int between = 0; /* groups whose exponent bisection found */
    for (int32_t test = 0; test < 12; test++) {
        int32_t children = 1 + test % 4, set = test / 4;
        ground w = make_ground(sizes, GROUPS, test == 11 ? 0 : 1, (uint64_t)test);
        kac_particles x[TWINS], y[TWINS];
        kac_weigh_args a[TWINS];
        float none = 0;
        pair_particles(&w, w.particles, 16, x);
        set_groups(&w, x);
        pair_particles(&w, w.particles * children, 16, y);
        void **level = pair_put(&w, "levels", levels, sizeof levels);
        void **first = pair_put(&w, "pools", pools[set], sizeof pools[set]);
        void **terms = pair_put(&w, "terms", &none, sizeof none);
        for (int k = 0; k < TWINS; k++)
            a[k] = (kac_weigh_args){.clock = w.clock[k],
                                    .levels = level[k],
                                    .groups = w.group[k],
                                    .pool_first = first[k],
                                    .pools = n_pools[set],
                                    .x = &x[k],
                                    .terms = terms[k],
                                    .children = children,
                                    .samples = 1,
                                    .price = 1.5,
                                    .potential = (kac_potential)(test / 2 % 4),
                                    .use_ratio = test % 3 == 0,
                                    .temper = test == 9 ? KAC_TEMPER_LEVEL : KAC_TEMPER_ESS,
                                    .temper_below = 1 << (8 + test % 8),
                                    .y = &y[k]};
        ON_BOTH(particles.temper(twin(k), &a[k]));
        ON_BOTH(particles.weigh(twin(k), &a[k]));
        ground_equal(&w, test);
        kac_group after[GROUPS];
        twin_get(1, after, w.group[1], sizeof after);
        for (int g = 0; g < GROUPS; g++)
            between += after[g].lambda > w.host_group[g].lambda && after[g].lambda < 1;
        ground_drop(&w);
    }
    cr_expect_gt(between, 30, "%d", between);
}

Test(twins_particles, survivors)
{
    static const int32_t n[] = {1, 31, 33, 257, 1000}, stride[] = {16, 48, 256, 1040, 0};
    for (int32_t test = 0; test < 25; test++) {
        int32_t rows = n[test % 5], children = 1 + test % 3, wide = stride[test / 5];
        ground w = make_ground(&rows, 1, 1, (uint64_t)test);
        kac_particles x[TWINS], y[TWINS];
        int32_t *chosen[TWINS];
        pair_particles(&w, rows, wide, x);
        pair_particles(&w, rows * children, wide, y);
        pair_integers(&w, "chosen", rows, (uint32_t)(rows * children), chosen);
        void **scratch = pair_put(&w, NULL, NULL, (size_t)rows * sizeof(int32_t));
        ON_BOTH(particles.survive(twin(k), &y[k], children, chosen[k], &x[k], scratch[k]));
        ground_equal(&w, test);
        ground_drop(&w);
    }
}

Test(twins_particles, regroup)
{
    for (int32_t test = 0; test < 5; test++) {
        kac_level levels[2] = {{.particles = 1 + 100 * test}, {.particles = 7}};
        ground w = make_ground(sizes, GROUPS, test % 2, (uint64_t)test);
        int32_t *group[TWINS];
        pair_integers(&w, "group", 10 * GROUPS * 100, 99, group);
        void **level = pair_put(&w, "levels", levels, sizeof levels);
        ON_BOTH(particles.regroup(twin(k), level[k], w.clock[k], GROUPS, w.group[k], group[k]));
        ground_equal(&w, test);
        ground_drop(&w);
    }
}

/* One random term of an objective. */
static kac_term roll_term(dice *d, int32_t column)
{
    kac_term t = {column, (double)NAN, (double)NAN, (double)NAN, (double)NAN};
    if (roll(d, 2) == 0) {
        t.low = -2;
        t.high = 3;
    }
    if (roll(d, 3) == 0) t.at_least = -1;
    if (roll(d, 3) == 0) t.at_most = roll(d, 2);
    if (roll(d, 4) == 0) t.column = -1;
    return t;
}

/* Sums of one completion and all else, on the way and at the end. */
Test(twins_particles, values_of_bounded_terms)
{
    enum { COLUMNS = 4, SAMPLES = 3 };
    for (int32_t test = 0; test < 16; test++) {
        int32_t samples = test < 8 ? 1 : SAMPLES, children = 1 + test / 4 % 2 + test / 8;
        kac_clock clock = {.level = test / 4 % 2, .move = 3};
        ground w = make_ground(sizes, GROUPS, 1, (uint64_t)test);
        int64_t n = (int64_t)w.particles * children * samples * COLUMNS;
        double weight[GROUPS * COLUMNS];
        float *row = malloc((size_t)n * sizeof *row);
        kac_particles x[TWINS], y[TWINS];
        kac_weigh_args a[TWINS];
        kac_objective objective = {.combine = (kac_combine)(test % 4), .kappa = 0.5};
        cr_assert_not_null(row);
        for (objective.terms = 0; objective.terms < COLUMNS; objective.terms++)
            objective.term[objective.terms] = roll_term(&w.dice, objective.terms);
        for (int i = 0; i < GROUPS * COLUMNS; i++)
            weight[i] = 0.5 * roll(&w.dice, 4);
        for (int64_t i = 0; i < n; i++)
            row[i] = (float)roll_number(&w.dice, test % 2 ? -HUGE_VAL : 0.3);
        pair_particles(&w, w.particles, 16, x);
        set_groups(&w, x);
        pair_particles(&w, w.particles * children, 16, y);
        void **at = pair_put(&w, "clock", &clock, sizeof clock);
        void **shared = pair_put(&w, "weight", weight, sizeof weight);
        void **terms = pair_put(&w, "terms", row, (size_t)n * sizeof *row);
        for (int k = 0; k < TWINS; k++)
            a[k] = (kac_weigh_args){.clock = at[k],
                                    .groups = w.group[k],
                                    .objective = objective,
                                    .group_weight = shared[k],
                                    .x = &x[k],
                                    .terms = terms[k],
                                    .columns = COLUMNS,
                                    .children = children,
                                    .samples = samples,
                                    .price = 1.5,
                                    .invalid_is_worst = 1,
                                    .y = &y[k]};
        ON_BOTH(particles.value(twin(k), &a[k]));
        ground_equal(&w, test);
        ground_drop(&w);
        free(row);
    }
}

Test(twins_particles, cotangent_and_axpy)
{
    enum { ROWS = 1000, COLUMNS = 5, FIRST = 1, N = 3 };
    for (int32_t test = 0; test < 16; test++) {
        ground w = make_ground(sizes, GROUPS, 1, (uint64_t)test);
        int32_t batch = test % 2 ? 257 : 33, first = test * 20, count = 300;
        int32_t *src[TWINS], *group[TWINS];
        double weight[GROUPS * COLUMNS];
        float terms[257 * COLUMNS];
        kac_fresh fresh[TWINS];
        kac_slope_args a[TWINS];
        kac_objective objective = {.combine = (kac_combine)(test % 4), .kappa = 0.5};
        for (objective.terms = 0; objective.terms < COLUMNS; objective.terms++)
            objective.term[objective.terms] = roll_term(&w.dice, objective.terms);
        for (int i = 0; i < GROUPS * COLUMNS; i++)
            weight[i] = 0.5 * roll(&w.dice, 4);
        for (int i = 0; i < 257 * COLUMNS; i++)
            terms[i] = (float)roll_number(&w.dice, test == 3 ? -HUGE_VAL : 0.3);
        pair_integers(&w, "src", ROWS, ROWS, src);
        pair_integers(&w, "group", ROWS, GROUPS, group);
        void **shared = pair_put(&w, "weight", weight, sizeof weight);
        void **row = pair_put(&w, "terms", terms, sizeof terms);
        void **number = pair_put(&w, "count", &count, sizeof count);
        void **out = pair_put(&w, "out", NULL, 257 * N * sizeof(float));
        void **sum = pair_put(&w, "sum", terms, sizeof terms);
        for (int k = 0; k < TWINS; k++) {
            fresh[k] = (kac_fresh){.src = src[k], .count = number[k], .capacity = ROWS};
            a[k] = (kac_slope_args){.groups = w.group[k],
                                    .group = group[k],
                                    .objective = objective,
                                    .group_weight = shared[k],
                                    .terms = row[k],
                                    .columns = COLUMNS,
                                    .fresh = &fresh[k],
                                    .first = first,
                                    .batch = batch};
        }
        ON_BOTH(particles.cotangent(twin(k), &a[k], FIRST, N, out[k]));
        ON_BOTH(
            particles.axpy(twin(k), 257 * COLUMNS - test, 0.3f + (float)test, row[k], sum[k]));
        ground_equal(&w, test);
        ground_drop(&w);
    }
}

/* Few particles go through one block, more through many; eves are below 1000. */
Test(twins_particles, summary)
{
    static const int32_t n[] = {1, 2, 31, 257, 1000, 4096, 4097, 30000};
    const kac_level levels[2] = {{.t = 0}, {.t = 0.25}};
    const int64_t made[4] = {7, 5, 3, 1}, idle[2] = {4, 2};
    const int32_t distinct = 11;
    for (int32_t test = 0; test < 16; test++) {
        const int32_t size[2] = {n[test % 8] / 2, n[test % 8] - n[test % 8] / 2};
        const int32_t below = test < 8 ? 1000 : 5000;
        ground w = make_ground(size, 2, 1, (uint64_t)test);
        kac_particles x[TWINS];
        pair_particles(&w, w.particles, 16, x);
        void **level = pair_put(&w, "levels", levels, sizeof levels);
        void **counts = pair_put(&w, "made", made, sizeof made);
        void **asleep = pair_put(&w, "idle", idle, sizeof idle);
        void **kinds = pair_put(&w, "distinct", &distinct, sizeof distinct);
        void **sorted = pair_put(&w, NULL, NULL, (size_t)w.particles * sizeof(double));
        void **mark = pair_put(&w, NULL, NULL, (size_t)below * sizeof(int32_t));
        void **out = pair_put(&w, NULL, NULL, sizeof(kac_summary));
        for (int k = 0; k < TWINS; k++) {
            kac_summary_args a = {.levels = level[k],
                                  .level = 1,
                                  .groups = w.group[k],
                                  .n_groups = 2,
                                  .x = &x[k],
                                  .eves_below = below,
                                  .distinct = kinds[k],
                                  .made = counts[k],
                                  .idle = test % 2 == 0 ? asleep[k] : NULL,
                                  .sorted = sorted[k],
                                  .mark = mark[k]};
            ok(twin(k)->ops->particles.summarise(twin(k), &a, out[k]));
        }
        twins_equal(out[0], out[1], offsetof(kac_summary, nanoseconds), "summary", test);
        ground_equal(&w, test);
        ground_drop(&w);
    }
}
