/* population.h -- a small population whose columns tests fill, and its selection. */
#ifndef KAC_POPULATION_H
#define KAC_POPULATION_H

#include <math.h>

#include "on_device.h"
#include "ops.h"
#include "particles.h"

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

static inline void *zeros(int64_t n, size_t size)
{
    void *ptr = ops()->memory.alloc(dev(), (size_t)n * size);
    cr_assert_not_null(ptr);
    return ptr;
}

static inline kac_particles make_particles(int32_t n)
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

static inline void drop_particles(kac_particles *p)
{
    void *all[] = {p->x, p->log_w, p->bank, p->stat, p->value, p->entry, p->eve, p->group};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        ops()->memory.release(dev(), all[i]);
}

/* One pool a group, trigger always, categorical by `scheme`, all children kept. */
static inline void make_world(world *w, int32_t groups, int32_t count, int32_t children)
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

static inline void drop_world(world *w)
{
    void *all[] = {w->groups,   w->pool_first,  w->a.pick,  w->a.pick_w,
                   w->a.weight, w->a.offspring, w->a.chosen};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        ops()->memory.release(dev(), all[i]);
    drop_particles(&w->x);
    drop_particles(&w->y);
}

static inline void select_both(world *w)
{
    cr_assert_eq(ops()->particles.select_parent(dev(), &w->a), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(ops()->particles.select_group(dev(), &w->a), KAC_OK, "%s", kac_last_error());
}

/* log_w of children, the same in every group. */
static inline void fill_weights(world *w, const double *weight, int32_t each)
{
    for (int32_t c = 0; c < w->y.n; c++)
        w->y.log_w[c] = log(weight[c % each]);
}

/* log((1/n) sum exp(l)) by libm. */
static inline double log_mean(const double *l, int32_t n, int32_t over)
{
    double top = -HUGE_VAL, sum = 0;
    for (int32_t i = 0; i < n; i++)
        top = l[i] > top ? l[i] : top;
    for (int32_t i = 0; i < n; i++)
        sum += exp(l[i] - top);
    return top + log(sum / over);
}

#endif /* KAC_POPULATION_H */
