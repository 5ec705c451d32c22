/* test_twins_revive.c -- tries of the last levels: the device's bytes are the CPU's. */
#include "twin_particles.h"

/* One side of a test: the arguments, and the structs that they point to. */
typedef struct side {
    kac_particles x, tries, kept, y;
    kac_revive_args a;
} side;

/* Objects of a round: of each group more or fewer are alive. */
static void deal_children(ground *w, side s[TWINS], int32_t odds)
{
    size_t n = (size_t)w->particles, stride = (size_t)s[0].y.stride;
    double *numbers = malloc(2 * n * sizeof *numbers + 1);
    uint8_t *rows = malloc(n * stride + 1);
    cr_assert(numbers != NULL && rows != NULL);
    for (size_t i = 0; i < n; i++) {
        numbers[i] =
            roll(&w->dice, 16) < (uint32_t)odds ? (double)roll(&w->dice, 8) / 4 : -HUGE_VAL;
        numbers[n + i] = roll_number(&w->dice, -HUGE_VAL);
    }
    for (size_t i = 0; i < n * stride; i++)
        rows[i] = (uint8_t)roll(&w->dice, 256);
    for (int k = 0; k < TWINS; k++) {
        const kac_memory_ops *op = &twin(k)->ops->memory;
        cr_assert_eq(op->upload(twin(k), s[k].y.log_w, numbers, n * sizeof *numbers), KAC_OK);
        cr_assert_eq(op->upload(twin(k), s[k].y.value, numbers + n, n * sizeof *numbers),
                     KAC_OK);
        cr_assert_eq(op->upload(twin(k), s[k].y.x, rows, n * stride), KAC_OK);
    }
    free(numbers);
    free(rows);
}

/* Groups of `each` particles and all that their tries need. */
static ground make_tries(int32_t groups, int32_t each, int32_t stride, uint64_t seed,
                         side s[TWINS])
{
    int32_t *size = malloc((size_t)groups * sizeof *size + 1);
    cr_assert_not_null(size);
    for (int32_t g = 0; g < groups; g++)
        size[g] = each;
    ground w = make_ground(size, groups, 0, seed);
    kac_particles all[4][TWINS];
    for (int set = 0; set < 4; set++)
        pair_particles(&w, w.particles, stride, all[set]);
    set_groups(&w, all[0]);
    int32_t *eve = calloc((size_t)w.particles + 1, sizeof *eve); /* of particles that exist */
    size_t n = (size_t)w.particles;
    cr_assert_not_null(eve);
    void **live = pair_put(&w, "live", NULL, sizeof(int32_t));
    void **idle = pair_put(&w, "idle", NULL, 2 * sizeof(int64_t));
    void **weight = pair_put(&w, NULL, NULL, n * sizeof(uint64_t));
    void **chosen = pair_put(&w, "chosen", NULL, n * sizeof(int32_t));
    void **scratch = pair_put(&w, NULL, NULL, n * sizeof(int32_t));
    for (int k = 0; k < TWINS; k++) {
        s[k].x = all[0][k];
        s[k].tries = all[1][k];
        s[k].kept = all[2][k];
        s[k].y = all[3][k];
        s[k].tries.live = live[k];
        cr_assert_eq(twin(k)->ops->memory.upload(twin(k), s[k].kept.eve, eve, n * sizeof *eve),
                     KAC_OK);
        s[k].a = (kac_revive_args){.clock = w.clock[k],
                                   .level = 3,
                                   .each = each,
                                   .n_groups = groups,
                                   .groups = w.group[k],
                                   .seed = 5,
                                   .x = &s[k].x,
                                   .tries = &s[k].tries,
                                   .kept = &s[k].kept,
                                   .live = live[k],
                                   .idle = idle[k],
                                   .asked = 4,
                                   .weight = weight[k],
                                   .children = 3,
                                   .chosen = chosen[k],
                                   .scratch = scratch[k]};
    }
    free(size);
    free(eve);
    return w;
}

Test(twins_revive, rounds_of_tries)
{
    static const int32_t each[] = {1, 2, 31, 33, 257, 1000, 3000}, groups[] = {1, 7, 300};
    static const int32_t stride[] = {16, 48, 1040}, odds[] = {0, 1, 4, 12};
    int enough = 0, some = 0, none = 0;
    for (int32_t test = 0; test < 84; test++) {
        int32_t g = groups[test % 3], many = each[test / 3 % 7];
        if (g * many > 3000) g = 2;
        int32_t bytes = stride[g * many > 2000 ? test % 2 : (test + test / 3) % 3];
        side s[TWINS];
        ground w = make_tries(g, many, bytes, (uint64_t)test, s);
        for (int round = 0; round < 4; round++) {
            ON_BOTH(particles.recruit(twin(k), &s[k].a));
            ground_equal(&w, test);
            deal_children(&w, s, odds[test / 21]);
            ON_BOTH(particles.follow(twin(k), &s[k].y, &s[k].tries));
            ON_BOTH(particles.tick(twin(k), w.clock[k]));
            ON_BOTH(particles.enlist(twin(k), &s[k].a, &s[k].y));
            ground_equal(&w, test);
        }
        ON_BOTH(particles.settle(twin(k), &s[k].a));
        ground_equal(&w, test);
        kac_group *after = calloc((size_t)g, sizeof *after);
        cr_assert_not_null(after);
        twin_get(1, after, w.group[1], (size_t)g * sizeof *after);
        for (int32_t k = 0; k < g; k++) {
            enough += after[k].alive > many;
            some += after[k].alive > 0 && after[k].alive <= many;
            none += after[k].alive == 0;
        }
        free(after);
        ground_drop(&w);
    }
    cr_expect(enough > 100 && some > 100 && none > 100, "%d, %d, %d", enough, some, none);
}

/* Rows beyond those in use are left alone. */
Test(twins_revive, only_what_is_in_use_is_weighed)
{
    static const int32_t size[] = {31, 33, 257, 1000};
    for (int32_t test = 0; test < 12; test++) {
        int32_t children = 1 + test % 3, in_use = (int32_t[]){0, 1, 700, 1321}[test / 3];
        ground w = make_ground(size, 4, 0, (uint64_t)test);
        kac_particles x[TWINS], y[TWINS];
        kac_weigh_args a[TWINS];
        pair_particles(&w, w.particles, 16, x);
        set_groups(&w, x);
        pair_particles(&w, w.particles * children, 16, y);
        void **live = pair_put(&w, "live", &in_use, sizeof in_use);
        size_t numbers = (size_t)(w.particles * children);
        double *before = malloc(numbers * sizeof *before),
               *after = malloc(numbers * sizeof *after);
        cr_assert(before != NULL && after != NULL);
        twin_get(1, before, y[1].log_w, numbers * sizeof *before);
        for (int k = 0; k < TWINS; k++) {
            x[k].live = live[k];
            a[k] = (kac_weigh_args){.clock = w.clock[k],
                                    .groups = w.group[k],
                                    .x = &x[k],
                                    .children = children,
                                    .samples = 1,
                                    .y = &y[k]};
        }
        ON_BOTH(particles.value(twin(k), &a[k]));
        ON_BOTH(particles.weigh(twin(k), &a[k]));
        ground_equal(&w, test);
        twin_get(1, after, y[1].log_w, numbers * sizeof *after);
        for (size_t c = (size_t)(in_use * children); c < numbers; c++)
            cr_assert_eq(before[c], after[c], "case %d: child %zu", test, c);
        free(before);
        free(after);
        ground_drop(&w);
    }
}
