/* test_twins_passes.c -- refinement and particle Gibbs: the device's bytes are the CPU's. */
#include "twin_particles.h"

TestSuite(twins_passes, .init = need_device);

/* One group takes several tiles of the sort and several blocks. */
static const int32_t sizes[] = {1, 31, 33, 257, 1000, 2, 2600, 513, 1, 7};
enum { GROUPS = sizeof sizes / sizeof *sizes };

Test(twins_passes, reset)
{
    for (int32_t test = 0; test < 4; test++) {
        ground w = make_ground(sizes, GROUPS, 0, (uint64_t)test);
        kac_particles x[TWINS];
        kac_reset_args a[TWINS];
        pair_particles(&w, w.particles, 16, x);
        for (int k = 0; k < TWINS; k++)
            a[k] = (kac_reset_args){.clock = w.clock[k],
                                    .level = 17,
                                    .n_groups = GROUPS,
                                    .groups = w.group[k],
                                    .lambda = 0.25,
                                    .potential = (kac_potential)test,
                                    .eves = test % 2,
                                    .x = &x[k]};
        ON_BOTH(particles.reset(twin(k), &a[k]));
        ground_equal(&w, test);
        ground_drop(&w);
    }
}

Test(twins_passes, renew)
{
    for (int32_t test = 0; test < 6; test++) {
        ground w = make_ground(sizes, GROUPS, 0, (uint64_t)test);
        kac_particles x[TWINS];
        kac_renew_args a[TWINS];
        int32_t *chosen[TWINS];
        pair_particles(&w, w.particles, 16, x);
        pair_integers(&w, "chosen", w.particles, 9, chosen);
        void **weight = pair_put(&w, "weight", NULL, (size_t)w.particles * sizeof(uint64_t));
        for (int k = 0; k < TWINS; k++)
            a[k] = (kac_renew_args){.clock = w.clock[k],
                                    .groups = w.group[k],
                                    .n_groups = GROUPS,
                                    .seed = 5,
                                    .strength = 0.5 * test,
                                    .x = &x[k],
                                    .weight = weight[k],
                                    .chosen = chosen[k]};
        ON_BOTH(particles.renew(twin(k), &a[k]));
        ground_equal(&w, test);
        ground_drop(&w);
    }
}

/* Values have few steps and objects few kinds, so there are ties with and without repeats. */
Test(twins_passes, elect)
{
    static const int32_t single = 6000;
    for (int32_t test = 0; test < 6; test++) {
        int32_t stride = test % 2 ? 16 : 208, groups = test < 4 ? GROUPS : 1;
        ground w = make_ground(test < 4 ? sizes : &single, groups, 0, (uint64_t)test);
        kac_particles past[TWINS], now[TWINS], x[TWINS];
        kac_elect_args a[TWINS];
        size_t n = (size_t)w.particles;
        pair_particles(&w, w.particles, stride, past);
        pair_particles(&w, w.particles, stride, now);
        pair_particles(&w, w.particles, stride, x);
        void **value = pair_put(&w, NULL, NULL, 2 * n * sizeof(double));
        void **order = pair_put(&w, NULL, NULL, 2 * n * sizeof(int32_t));
        for (int k = 0; k < TWINS; k++) {
            if (test == 2) past[k].n = 0;
            a[k] = (kac_elect_args){w.group[k], groups,   &past[k], &now[k],
                                    value[k],   order[k], &x[k]};
        }
        ON_BOTH(particles.elect(twin(k), &a[k]));
        ground_equal(&w, test);
        ground_drop(&w);
    }
}

Test(twins_passes, retrace)
{
    enum { LEVELS = 5, CHILDREN = 2 };
    for (int32_t test = 0; test < 8; test++) {
        int32_t stride = test % 2 ? 16 : 208;
        ground w = make_ground(sizes, GROUPS, 0, (uint64_t)test);
        size_t n = (size_t)w.particles, row = (size_t)stride;
        kac_particles x[TWINS], children[TWINS];
        kac_retrace_args a[TWINS];
        kac_retained retained[TWINS];
        int32_t *chosen[TWINS], *held[TWINS];
        pair_particles(&w, w.particles, stride, x);
        pair_particles(&w, w.particles * LEVELS * CHILDREN, stride, children);
        pair_integers(&w, "chosen", (int64_t)n * LEVELS, (uint32_t)n * CHILDREN, chosen);
        pair_integers(&w, "held", GROUPS, 2, held);
        void **path = pair_put(&w, "path", NULL, GROUPS * LEVELS * row);
        void **object = pair_put(&w, "object", NULL, GROUPS * row);
        void **log_z = pair_put(&w, "log_z", NULL, GROUPS * sizeof(double));
        for (int k = 0; k < TWINS; k++) {
            retained[k] = (kac_retained){LEVELS, path[k], held[k]};
            a[k] = (kac_retrace_args){.clock = w.clock[k],
                                      .groups = w.group[k],
                                      .n_groups = GROUPS,
                                      .seed = (uint64_t)test,
                                      .x = &x[k],
                                      .children = children[k].x,
                                      .chosen = chosen[k],
                                      .n_children = CHILDREN,
                                      .retained = &retained[k],
                                      .object = test == 3 ? NULL : object[k],
                                      .log_z = test == 4 ? NULL : log_z[k]};
        }
        ON_BOTH(particles.retrace(twin(k), &a[k]));
        ground_equal(&w, test);
        ground_drop(&w);
    }
}
