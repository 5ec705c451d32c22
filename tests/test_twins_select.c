/* test_twins_select.c -- both stages of selection choose on the device what they choose on the
 * CPU. */
#include <criterion/criterion.h>
#include <math.h>

#include "ops.h"
#include "twins.h"

TestSuite(twins_select, .init = need_device);

/* What to select from, on the host. */
typedef struct world {
    kac_clock clock;
    kac_level levels[2];
    int32_t n, groups, pools, children, keep;
    kac_group *group;
    int32_t *pool_first, *of, *held;
    double *x_log_w, *log_w, *value;
    kac_select_args a; /* what is the same on both sides */
} world;

/* Its copies on one side. */
typedef struct side {
    kac_particles x, y;
    void *clock, *levels, *pool_first, *held;
    kac_select_args a;
} side;

static void *room(int64_t n, size_t size)
{
    void *ptr = calloc((size_t)n + 1, size);
    cr_assert_not_null(ptr);
    return ptr;
}

static double normal(dice *d)
{
    double sum = 0;
    for (int k = 0; k < 4; k++)
        sum += (double)roll(d, 1 << 30) / (1 << 30) - 0.5;
    return sum * 1.7;
}

/* Kinds of weights, by pools: spread, ties, few alive, few heavy, dead. */
static double log_weight(dice *d, uint32_t kind)
{
    switch (kind) {
    case 0: return normal(d);
    case 1: return 3 * normal(d) + 300;
    case 2: return (double)roll(d, 3) - 1;
    case 3: return roll(d, 8) > 0 ? -(double)INFINITY : normal(d);
    case 4: return roll(d, 40) > 0 ? -20 + normal(d) : 0;
    case 5: return roll(d, 2) ? 0.0 : -0.0;
    case 6: return roll(d, 200) > 0 ? -26 + normal(d) : 0;
    default: return -(double)INFINITY;
    }
}

/* Groups of about `each` particles, equal ones where the number is to fall; pools of one or
 * several groups. */
static void make_world(world *w, dice *d, int32_t groups, int32_t each, int32_t children)
{
    *w = (world){.clock = {1, 9}, .groups = groups, .children = children};
    w->group = room(groups, sizeof *w->group);
    w->pool_first = room(groups + 1, sizeof *w->pool_first);
    w->held = room(groups, sizeof *w->held);
    bool equal = roll(d, 3) == 0, several = roll(d, 3) == 0;
    for (int32_t g = 0; g < groups; g++) {
        int32_t count = 1 + (int32_t)roll(d, 2 * (uint32_t)each - 1);
        if (each > 1000) count = each + count / 4;
        if (equal) count = each;
        w->group[g] = (kac_group){.offset = w->n,
                                  .count = count,
                                  .id = 3 * g + 1,
                                  .alpha = 0.5 + g % 3,
                                  .log_z = normal(d),
                                  .lambda = 1};
        w->held[g] = roll(d, 2) == 0;
        w->n += count;
        if (!several || g == 0 || roll(d, 2) == 0) w->pool_first[w->pools++] = g;
    }
    w->pool_first[w->pools] = groups;
    w->levels[1].particles = equal && roll(d, 2) == 0 ? 1 + each / 3 : 0;
    w->of = room(w->n, sizeof *w->of);
    w->x_log_w = room(w->n, sizeof *w->x_log_w);
    w->log_w = room((int64_t)w->n * children, sizeof *w->log_w);
    w->value = room((int64_t)w->n * children, sizeof *w->value);
    for (int32_t g = 0; g < groups; g++) {
        uint32_t kind = roll(d, 8);
        for (int32_t i = w->group[g].offset; i < w->group[g].offset + w->group[g].count; i++) {
            w->of[i] = g;
            w->x_log_w[i] = normal(d);
            for (int32_t c = i * children; c < (i + 1) * children; c++) {
                w->log_w[c] = log_weight(d, kind);
                w->value[c] = roll(d, 9) == 0 ? -(double)INFINITY : normal(d);
            }
        }
    }
}

static void drop_world(world *w)
{
    void *all[] = {w->group, w->pool_first, w->of, w->held, w->x_log_w, w->log_w, w->value};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

static void open_side(side *s, int k, const world *w)
{
    size_t rows = (size_t)w->n * (size_t)w->children, picks = (size_t)w->n * (size_t)w->keep;
    *s = (side){.a = w->a};
    s->x = (kac_particles){.n = w->n,
                           .group = twin_put(k, w->of, (size_t)w->n * sizeof *w->of),
                           .log_w = twin_put(k, w->x_log_w, (size_t)w->n * sizeof(double))};
    s->y = (kac_particles){.n = (int32_t)rows,
                           .log_w = twin_put(k, w->log_w, rows * sizeof(double)),
                           .value = twin_put(k, w->value, rows * sizeof(double))};
    s->a.clock = s->clock = twin_put(k, &w->clock, sizeof w->clock);
    s->a.levels = s->levels = twin_put(k, w->levels, sizeof w->levels);
    s->a.groups = twin_put(k, w->group, (size_t)w->groups * sizeof *w->group);
    s->a.pool_first = s->pool_first =
        twin_put(k, w->pool_first, ((size_t)w->pools + 1) * sizeof(int32_t));
    if (w->a.held != NULL)
        s->a.held = s->held = twin_put(k, w->held, (size_t)w->groups * sizeof(int32_t));
    s->a.fault = twin_put(k, NULL, sizeof *s->a.fault);
    s->a.pick = twin_put(k, NULL, picks * sizeof(int32_t));
    s->a.pick_w = twin_put(k, NULL, picks * sizeof(double));
    s->a.weight = twin_put(k, NULL, picks * sizeof(uint64_t));
    s->a.offspring = twin_put(k, NULL, picks * sizeof(int32_t));
    s->a.chosen = twin_put(k, NULL, (size_t)w->n * sizeof(int32_t));
    s->a.log_w = s->x.log_w;
}

static void close_side(side *s, int k)
{
    kac_select_args *a = &s->a;
    void *all[] = {s->x.group, s->x.log_w, s->y.log_w,    s->y.value,   s->clock,
                   a->groups,  s->levels,  s->pool_first, s->held,      a->fault,
                   a->pick,    a->pick_w,  a->weight,     a->offspring, a->chosen};
    twin_drop(k, all, sizeof all / sizeof *all);
}

/* Both stages as w->a and w->keep say. */
static void select_alike(world *w, int64_t test)
{
    side s[TWINS];
    size_t n = (size_t)w->n, picks = n * (size_t)w->keep;
    w->a.pools = w->pools;
    w->a.children = w->children;
    w->a.keep = w->keep;
    for (int k = 0; k < TWINS; k++) {
        open_side(&s[k], k, w);
        s[k].a.x = &s[k].x;
        s[k].a.y = &s[k].y;
        const kac_particle_ops *op = &twin(k)->ops->particles;
        cr_assert_eq(op->select_parent(twin(k), &s[k].a), KAC_OK, "%s", kac_last_error());
    }
    twins_equal(s[0].a.pick, s[1].a.pick, picks * sizeof(int32_t), "pick", test);
    twins_equal(s[0].a.pick_w, s[1].a.pick_w, picks * sizeof(double), "pick_w", test);
    for (int k = 0; k < TWINS; k++) {
        const kac_particle_ops *op = &twin(k)->ops->particles;
        cr_assert_eq(op->select_group(twin(k), &s[k].a), KAC_OK, "%s", kac_last_error());
    }
    twins_equal(s[0].a.chosen, s[1].a.chosen, n * sizeof(int32_t), "chosen", test);
    twins_equal(s[0].a.log_w, s[1].a.log_w, n * sizeof(double), "log_w", test);
    twins_equal(s[0].a.groups, s[1].a.groups, (size_t)w->groups * sizeof *w->group, "groups",
                test);
    twins_equal(s[0].a.fault, s[1].a.fault, sizeof(kac_fault), "fault", test);
    for (int k = 0; k < TWINS; k++)
        close_side(&s[k], k);
}

/* The parent stage by one of its rules. */
static void choose_parent_rule(world *w, dice *d)
{
    static const kac_rule rules[] = {KAC_RULE_NONE, KAC_RULE_CATEGORICAL, KAC_RULE_ARGMAX,
                                     KAC_RULE_TOP_K};
    w->a.parent_rule = rules[roll(d, 4)];
    w->a.keep_normaliser = (int32_t)roll(d, 2);
    w->keep = 1;
    if (w->a.parent_rule == KAC_RULE_NONE) w->keep = w->children;
    if (w->a.parent_rule == KAC_RULE_TOP_K)
        w->keep = 1 + (int32_t)roll(d, (uint32_t)w->children);
}

/* A group stage by this rule and scheme, the rest by chance; mostly it selects. */
static void choose_the_rest(world *w, dice *d, kac_rule rule, kac_scheme scheme)
{
    static const int32_t triggers[] = {KAC_TRIGGER_ALWAYS, KAC_TRIGGER_ALWAYS, KAC_TRIGGER_ESS,
                                       KAC_TRIGGER_NEVER};
    w->a.seed = 77 + roll(d, 1000);
    w->a.group_rule = rule;
    w->a.scheme = scheme;
    w->a.weights = roll(d, 2) ? KAC_WEIGHTS_PROPER : (kac_weights)roll(d, 3);
    w->a.fraction = roll(d, 100) / 100.0;
    w->a.below = (int32_t)roll(d, 65537);
    w->a.dead_is_error = (int32_t)roll(d, 2);
    w->a.held = roll(d, 3) == 0 ? w->held : NULL;
    w->levels[1].trigger = triggers[roll(d, 4)];
    if (w->levels[1].particles > 0) w->levels[1].trigger = KAC_TRIGGER_ALWAYS;
    if (scheme == KAC_SCHEME_KILLING && rule == KAC_RULE_CATEGORICAL) {
        w->a.parent_rule = KAC_RULE_CATEGORICAL;
        w->keep = 1;
        w->levels[1].particles = 0;
    }
}

/* Every scheme and every other rule, `rounds` times each. */
static void select_all(dice *d, int rounds, int32_t groups, int32_t each, int32_t children)
{
    enum { SCHEMES = KAC_SCHEME_KILLING + 1, RULES = KAC_RULE_REPLACE + 1 };
    for (int round = 0; round < rounds; round++)
        for (int k = 0; k < SCHEMES + RULES; k++) {
            kac_rule rule = k < SCHEMES ? KAC_RULE_CATEGORICAL : (kac_rule)(k - SCHEMES);
            kac_scheme scheme = k < SCHEMES ? (kac_scheme)k : KAC_SCHEME_TOURNAMENT;
            world w;
            make_world(&w, d, groups, each, children);
            choose_parent_rule(&w, d);
            choose_the_rest(&w, d, rule, scheme);
            select_alike(&w, (int64_t)groups * 1000000 + (int64_t)each * 1000 + k);
            drop_world(&w);
        }
}

Test(twins_select, small_pools)
{
    static const int32_t each[] = {1, 2, 5, 16, 31, 33};
    dice d = {.seed = 5};
    for (size_t i = 0; i < sizeof each / sizeof *each; i++) {
        select_all(&d, 2, 9, each[i], 1);
        select_all(&d, 2, 9, each[i], 4);
    }
}

Test(twins_select, middling_pools)
{
    dice d = {.seed = 6};
    select_all(&d, 1, 3, 257, 1);
    select_all(&d, 1, 1, 1000, 3);
    select_all(&d, 1, 2, 4100, 1);
}

Test(twins_select, many_children)
{
    static const int32_t children[] = {31, 32, 33, 100, 1000, KAC_MAX_CHILDREN};
    dice d = {.seed = 7};
    for (size_t i = 0; i < sizeof children / sizeof *children; i++)
        for (int rule = KAC_RULE_NONE; rule <= KAC_RULE_TOP_K; rule++) {
            world w;
            make_world(&w, &d, 3, 2, children[i]);
            choose_parent_rule(&w, &d);
            w.a.parent_rule = (kac_rule)rule;
            if (rule == KAC_RULE_NONE) w.keep = w.children;
            if (rule == KAC_RULE_CATEGORICAL || rule == KAC_RULE_ARGMAX) w.keep = 1;
            choose_the_rest(&w, &d, KAC_RULE_CATEGORICAL, KAC_SCHEME_TOURNAMENT);
            select_alike(&w, children[i]);
            drop_world(&w);
        }
}

/* Pools that are worked on in tiles: their edges, several of them, one in a tile and a bit. */
Test(twins_select, large_pools)
{
    dice d = {.seed = 8};
    select_all(&d, 1, 1, 16384, 1);
    select_all(&d, 1, 1, 9001, 4);
    select_all(&d, 1, 2, 17000, 1);
}

/* One particle with almost all the weight, or all of it, in the middle of each group. */
enum { DOMINATED = 8, SINGLE };

/* Groups of these sizes, a pool each, of one child a particle. */
static void make_groups(world *w, dice *d, const int32_t *count, int32_t groups, uint32_t kind)
{
    *w = (world){.clock = {1, 9}, .groups = groups, .pools = groups, .children = 1, .keep = 1};
    w->group = room(groups, sizeof *w->group);
    w->pool_first = room(groups + 1, sizeof *w->pool_first);
    w->held = room(groups, sizeof *w->held);
    for (int32_t g = 0; g < groups; g++) {
        w->group[g] =
            (kac_group){.offset = w->n, .count = count[g], .id = g, .alpha = 1, .lambda = 1};
        w->pool_first[g] = g;
        w->held[g] = 1 - g % 2;
        w->n += count[g];
    }
    w->pool_first[groups] = groups;
    w->levels[1].trigger = KAC_TRIGGER_ALWAYS;
    w->of = room(w->n, sizeof *w->of);
    w->x_log_w = room(w->n, sizeof *w->x_log_w);
    w->log_w = room(w->n, sizeof *w->log_w);
    w->value = room(w->n, sizeof *w->value);
    for (int32_t g = 0; g < groups; g++)
        for (int32_t i = 0; i < count[g]; i++) {
            const int32_t c = w->group[g].offset + i;
            w->of[c] = g;
            if (kind >= DOMINATED)
                w->log_w[c] = i == count[g] / 2 ? 0 : kind == DOMINATED ? -12 : -40;
            else
                w->log_w[c] = log_weight(d, kind);
        }
}

static void draw_by(dice *d, const int32_t *count, int32_t groups, uint32_t kind, uint64_t seed,
                    kac_scheme scheme)
{
    world w;
    make_groups(&w, d, count, groups, kind);
    w.a = (kac_select_args){.seed = seed,
                            .parent_rule = KAC_RULE_NONE,
                            .group_rule = KAC_RULE_CATEGORICAL,
                            .scheme = scheme,
                            .held = scheme % 2 == 0 ? w.held : NULL};
    select_alike(&w, 10 * (int64_t)kind + scheme);
    drop_world(&w);
}

static void draw_alike(dice *d, const int32_t *count, int32_t groups, uint32_t kind)
{
    for (int k = 0; k <= KAC_SCHEME_KILLING; k++)
        draw_by(d, count, groups, kind, 5 + kind, (kac_scheme)k);
}

/* Points and tiles of any weights: spread, few alive, equal, one that has most or all of it. */
Test(twins_select, very_large_pools, .timeout = 600)
{
    static const int32_t one[] = {70000};
    static const uint32_t kinds[] = {0, 3, 5, DOMINATED, SINGLE};
    dice d = {.seed = 9};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        draw_alike(&d, one, 1, kinds[i]);
}

/* By this seed 1156 of 16384 points of the multinomial scheme are in one 16th of the weights, where
 * 1152 have room in a bucket. */
Test(twins_select, points_without_room)
{
    static const int32_t one[] = {16384};
    dice d = {.seed = 11};
    draw_by(&d, one, 1, 0, 2996, KAC_SCHEME_MULTINOMIAL);
}

/* So large that a bucket has more cells, and pools after it. */
Test(twins_select, wide_buckets, .timeout = 600)
{
    static const int32_t count[] = {33, 2100000, 5000, 17000};
    dice d = {.seed = 12};
    draw_by(&d, count, 4, 1, 6, KAC_SCHEME_MULTINOMIAL);
}

/* Large pools with small ones beside them. */
Test(twins_select, pools_of_mixed_size, .timeout = 600)
{
    static const int32_t mixed[] = {1, 70000, 257, 33, 31, 4097, 1000, 60000};
    dice d = {.seed = 10};
    draw_alike(&d, mixed, 8, 1);
    draw_alike(&d, mixed, 8, SINGLE);
}
