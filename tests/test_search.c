/* test_search.c -- driver search: schedules and backups by hand, exact laws of searched blocks,
 * trees that must come near p* or find the best object, and what may not change a sample. */
#include <criterion/criterion.h>

#include "on_device.h"
#include "ops.h"
#include "search.h"
#include "table_run.h"

/* ---- schedules -------------------------------------------------------------------------- */

Test(search, shares_of_blocks)
{
    cr_expect_eq(kac_search_share(KAC_SEARCHED_ALL, 1, 49), 1);
    cr_expect_float_eq(kac_search_share(KAC_SEARCHED_LINEAR, 4, 49), 14.0 / 49, 1e-12);
    cr_expect_float_eq(kac_search_share(KAC_SEARCHED_EXPONENTIAL, 7, 49),
                       1 - exp(-4.0 * 7 / 49), 1e-12);
}

Test(search, particles_that_go_on)
{
    for (int64_t t = 0; t <= 10; t++) {
        double u = (double)t / 10;
        cr_expect_eq(kac_drop_target(KAC_DROP_NONE, 64, 64, t, 10), 64);
        cr_expect_eq(kac_drop_target(KAC_DROP_LINEAR, 64, 14, t, 10), 64 - 5 * t);
        if (t == 10) continue;
        cr_expect_eq(kac_drop_target(KAC_DROP_EXPONENTIAL, 60, 20, t, 10),
                     (int64_t)(60 * pow(1.0 / 3, u) + 1e-9));
        cr_expect_eq(kac_drop_target(KAC_DROP_QUADRATIC, 60, 20, t, 10),
                     (int64_t)(20 + 40 * (1 - u) * (1 - u) + 1e-9));
        int64_t sigmoid = (int64_t)(60 / (1 + exp(10 * (u - 0.5))));
        cr_expect_eq(kac_drop_target(KAC_DROP_SIGMOID, 60, 20, t, 10),
                     sigmoid < 20 ? 20 : sigmoid);
    }
    for (kac_drop drop = KAC_DROP_EXPONENTIAL; drop <= KAC_DROP_SIGMOID; drop++)
        cr_expect_eq(kac_drop_target(drop, 60, 20, 10, 10), 20);
}

/* ---- paths ------------------------------------------------------------------------------ */

Test(search, prune)
{
    /* two groups of three roots with two leaves each */
    const double score[12] = {1, 2, 5, 5, 3, -HUGE_VAL, 7, 7, -HUGE_VAL, -HUGE_VAL, 7, 9};
    int32_t best[6], chosen[6];
    kac_prune_args a = {.groups = 2,
                        .roots = 3,
                        .leaves = 2,
                        .keep = 2,
                        .score = score,
                        .best = best,
                        .chosen = chosen};
    cr_assert_eq(ops()->search.prune(dev(), &a), KAC_OK);
    cr_expect_arr_eq(best, ((int32_t[]){1, 2, 4, 6, 8, 11}), sizeof best);
    cr_expect_arr_eq(chosen, ((int32_t[]){2, 4, 6, 11}), 4 * sizeof *chosen);
    a.keep = 3;
    cr_assert_eq(ops()->search.prune(dev(), &a), KAC_OK);
    cr_expect_arr_eq(chosen, best, sizeof best);
    a.keep = 1;
    cr_assert_eq(ops()->search.prune(dev(), &a), KAC_OK);
    cr_expect_arr_eq(chosen, ((int32_t[]){2, 11}), 2 * sizeof *chosen);
}

/* ---- trees by hand ---------------------------------------------------------------------- */

enum { NODES = 8, BYTES = 16 };

/* One tree of depth 2, levels 4, 2, 0, with one row at work. */
typedef struct small_tree {
    kac_trees trees;
    kac_tree_args args;
    kac_group group;
    kac_clock clock;
    kac_particles rows, next;
    _Alignas(16) uint8_t x[NODES * BYTES];
    _Alignas(16) uint8_t row_x[BYTES];
    _Alignas(16) uint8_t next_x[BYTES];
    int32_t parent[NODES], child[NODES], sibling[NODES], children[NODES], depth[NODES],
        visits[NODES], allowed[NODES], entry[NODES + 1], count, root;
    double sum[NODES], value[NODES], low, high, row_value;
    int32_t level[3], depth_at[5], next_entry, at, from, to;
    int64_t idle[2];
} small_tree;

static small_tree *make_tree(kac_policy policy, kac_backup backup)
{
    small_tree *s = aligned_alloc(16, sizeof *s);
    cr_assert_not_null(s);
    *s = (small_tree){
        .group = {.alpha = 0.5}, .level = {4, 2, 0}, .depth_at = {2, -1, 1, -1, 0}};
    s->trees = (kac_trees){.n = 1,
                           .capacity = NODES,
                           .stride = BYTES,
                           .x = s->x,
                           .parent = s->parent,
                           .child = s->child,
                           .sibling = s->sibling,
                           .children = s->children,
                           .depth = s->depth,
                           .visits = s->visits,
                           .allowed = s->allowed,
                           .sum = s->sum,
                           .value = s->value,
                           .entry = s->entry,
                           .count = &s->count,
                           .root = &s->root,
                           .low = &s->low,
                           .high = &s->high};
    s->rows = (kac_particles){.n = 1,
                              .stride = BYTES,
                              .x = s->row_x,
                              .entry = s->entry + NODES,
                              .value = &s->row_value};
    s->next = (kac_particles){.n = 1, .stride = BYTES, .x = s->next_x, .entry = &s->next_entry};
    s->args = (kac_tree_args){.clock = &s->clock,
                              .groups = &s->group,
                              .level = s->level,
                              .depth = s->depth_at,
                              .stages = 2,
                              .policy = policy,
                              .backup = backup,
                              .children = 2,
                              .each = 1,
                              .trees = &s->trees,
                              .x = &s->rows,
                              .y = &s->next,
                              .at = &s->at,
                              .from = &s->from,
                              .to = &s->to,
                              .idle = s->idle};
    cr_assert_eq(ops()->search.plant(dev(), &s->args), KAC_OK);
    return s;
}

/* One wave whose row moves to tokens `letter` and is worth `value`; returns the chosen node. */
static int32_t run_wave(small_tree *s, uint8_t letter, double value)
{
    s->clock = (kac_clock){4, s->clock.move + 4};
    cr_assert_eq(ops()->search.select(dev(), &s->args), KAC_OK);
    int32_t chosen = s->at;
    memset(s->next_x, letter, BYTES);
    while (s->clock.level > 0) {
        s->clock.level--;
        cr_assert_eq(ops()->search.advance(dev(), &s->args), KAC_OK);
    }
    s->row_value = value;
    cr_assert_eq(ops()->search.backup(dev(), &s->args), KAC_OK);
    return chosen;
}

/* Root 0 gets children 1 (value 1) and 2 (value 3); with explore 0 node 2 is best and gets 3
 * (value 2) and 4 (value 7); then object 4 is seen once more. */
Test(search, mean_backup)
{
    small_tree *s = make_tree(KAC_POLICY_UCT, KAC_BACKUP_MEAN);
    cr_expect_eq(run_wave(s, 1, 1), 0);
    cr_expect_eq(run_wave(s, 2, 3), 0);
    cr_expect_eq(s->value[0], 2);
    cr_expect_eq(run_wave(s, 3, 2), 2);
    cr_expect_eq(s->value[2], 2.5);
    cr_expect_eq(s->value[0], 2);
    cr_expect_eq(run_wave(s, 4, 7), 2);
    cr_expect_eq(s->value[2], 4);
    cr_expect_eq(s->value[0], 13.0 / 4);
    cr_expect_eq(run_wave(s, 5, 0), 4, "an object has no children");
    cr_expect_eq(s->count, 5);
    cr_expect_eq(s->value[4], 7);
    cr_expect_eq(s->value[2], 19.0 / 4);
    cr_expect_eq(s->value[0], 20.0 / 5);
    cr_expect_arr_eq(s->visits, ((int32_t[]){5, 1, 4, 1, 2}), 5 * sizeof(int32_t));
    cr_expect_arr_eq(s->depth, ((int32_t[]){0, 1, 1, 2, 2}), 5 * sizeof(int32_t));
    cr_expect_arr_eq(s->parent, ((int32_t[]){-1, 0, 0, 2, 2}), 5 * sizeof(int32_t));
    for (int v = 1; v < 5; v++)
        cr_expect_eq(s->x[v * BYTES], v);
    /* Moves a row was carried along for: 2 in each of 4 waves, and all 4 and the value's. */
    cr_expect_eq(s->idle[0], 4 * 2 + 5);
    cr_expect_eq(s->idle[1], 1);
    cr_assert_eq(ops()->search.commit(dev(), &s->args), KAC_OK);
    cr_expect_eq(s->root, 2);
    cr_assert_eq(ops()->search.commit(dev(), &s->args), KAC_OK);
    cr_expect_eq(s->root, 4);
    free(s);
}

/* A forbidden object counts as the least that was met, not as something that hides all others; the
 * root does not move to where there is nothing else. */
Test(search, forbidden_objects_leave_a_mean)
{
    small_tree *s = make_tree(KAC_POLICY_UCT, KAC_BACKUP_MEAN);
    s->args.children = 3;
    run_wave(s, 1, -HUGE_VAL);
    cr_expect_eq(s->value[0], -HUGE_VAL);
    run_wave(s, 2, 3);
    cr_expect_eq(s->value[0], 3, "%g", s->value[0]);
    run_wave(s, 3, 1);
    cr_expect_eq(s->value[0], (3 + 1 + 1) / 3.0);
    cr_expect_eq(run_wave(s, 4, -HUGE_VAL), 2, "the best child");
    cr_expect_eq(s->value[2], (3 + 1) / 2.0);
    cr_expect_eq(s->value[4], -HUGE_VAL);
    cr_expect_eq(s->value[0], (3 + 1 + 1 + 1) / 4.0);
    s->visits[1] = 100;
    cr_assert_eq(ops()->search.commit(dev(), &s->args), KAC_OK);
    cr_expect_eq(s->root, 2, "whatever its visits");
    free(s);
}

Test(search, max_backup)
{
    small_tree *s = make_tree(KAC_POLICY_UCT, KAC_BACKUP_MAX);
    run_wave(s, 1, -4);
    cr_expect_eq(s->value[0], -4);
    run_wave(s, 2, -2);
    cr_expect_eq(run_wave(s, 3, -3), 2);
    cr_expect_eq(s->value[2], -2);
    cr_expect_eq(run_wave(s, 4, 5), 2);
    cr_expect_eq(s->value[2], 5);
    cr_expect_eq(s->value[0], 5);
    cr_expect_eq(s->value[1], -4);
    free(s);
}

Test(search, soft_backup)
{
    small_tree *s = make_tree(KAC_POLICY_UCT, KAC_BACKUP_SOFT);
    run_wave(s, 1, 1);
    cr_expect_float_eq(s->value[0], 1, 1e-12, "of one child: its value");
    run_wave(s, 2, 3);
    double both = 0.5 * log((exp(2) + exp(6)) / 2);
    cr_expect_float_eq(s->value[0], both, 1e-12);
    run_wave(s, 3, 2);
    cr_expect_float_eq(s->value[2], 2, 1e-12, "its own estimate gives way to its child's");
    run_wave(s, 4, 7);
    double inner = 0.5 * log((exp(4) + exp(14)) / 2);
    cr_expect_float_eq(s->value[2], inner, 1e-12);
    cr_expect_float_eq(s->value[0], 0.5 * log((exp(2) + exp(2 * inner)) / 2), 1e-12);
    run_wave(s, 0, -HUGE_VAL);
    cr_expect(isfinite(s->value[0]));
    free(s);
}

/* All states on the way to level 0 become nodes. */
Test(search, rollouts_are_remembered)
{
    small_tree *s = make_tree(KAC_POLICY_UCT, KAC_BACKUP_MEAN);
    s->args.ahead = 1;
    run_wave(s, 1, 4);
    cr_expect_eq(s->count, 3);
    cr_expect_eq(s->depth[2], 2);
    cr_expect_eq(s->parent[2], 1);
    cr_expect_arr_eq(s->value, ((double[]){4, 4, 4}), 3 * sizeof(double));
    cr_expect_eq(s->idle[0], 0);
    free(s);
}

/* Exploration: with values 0 and 1 the worse child is gone to once
 * explore (sqrt(log N / n1) - sqrt(log N / n2)) > 1. */
Test(search, upper_confidence_bounds)
{
    small_tree *s = make_tree(KAC_POLICY_UCT, KAC_BACKUP_MEAN);
    run_wave(s, 1, 0);
    run_wave(s, 2, 1);
    s->visits[0] = 20;
    s->visits[2] = 19;
    double edge = 1 / (sqrt(log(20)) - sqrt(log(20) / 19));
    s->args.explore = edge * 0.99;
    s->clock.level = 4;
    cr_assert_eq(ops()->search.select(dev(), &s->args), KAC_OK);
    cr_expect_eq(s->at, 2);
    s->args.explore = edge * 1.01;
    cr_assert_eq(ops()->search.select(dev(), &s->args), KAC_OK);
    cr_expect_eq(s->at, 1);
    s->args.widening = 0.5; /* 2 sqrt(20) children */
    cr_assert_eq(ops()->search.select(dev(), &s->args), KAC_OK);
    cr_expect_eq(s->at, 0);
    free(s);
}

/* Children are drawn in proportion to exp(value / alpha). */
Test(search, soft_policy)
{
    small_tree *s = make_tree(KAC_POLICY_SOFT, KAC_BACKUP_SOFT);
    run_wave(s, 1, 0.2);
    run_wave(s, 2, 0.7);
    double counts[2] = {0}, law[2] = {1 / (1 + exp(1)), exp(1) / (1 + exp(1))};
    for (int k = 0; k < 20000; k++) {
        s->clock = (kac_clock){4, k};
        cr_assert_eq(ops()->search.select(dev(), &s->args), KAC_OK);
        counts[s->at - 1]++;
    }
    cr_expect_lt(chain_chi_square(law, counts, 2), 1);
    free(s);
}

/* ---- runs ------------------------------------------------------------------------------- */

static chain model;
static char folder[256];

static void open_model(int states, int length, double spread)
{
    chain_make(&model, states, length, false, spread);
    cr_assert(table_folder(folder));
    cr_assert_eq(table_write(&model, folder), KAC_OK, "%s", kac_last_error());
}

static table_run sample(const char *settings, const char *more)
{
    table_run run = {0};
    char text[1024];
    snprintf(text, sizeof text, "%s %s", settings, more);
    kac_status status = table_sample(&model, folder, text, &run);
    cr_assert_eq(status, KAC_OK, "%s: %s", text, kac_last_error());
    return run;
}

static void expect_same(const char *a, const char *b, const char *more)
{
    table_run first = sample(a, more), other = sample(b, more);
    cr_assert_eq(first.n, other.n, "%s: %s", b, more);
    size_t n = (size_t)first.n;
    cr_expect_arr_eq(first.object, other.object, n * sizeof *first.object, "%s: %s", b, more);
    cr_expect_arr_eq(first.reward, other.reward, n * sizeof *first.reward, "%s: %s", b, more);
    table_run_free(&first);
    table_run_free(&other);
}

/* Counts of objects of a run. */
static void count(const char *settings, double *counts)
{
    table_run run = sample(settings, "");
    memset(counts, 0, CHAIN_OBJECTS * sizeof *counts);
    for (int64_t i = 0; i < run.n; i++)
        counts[run.object[i]]++;
    table_run_free(&run);
}

#define DDBFS "sampler.algorithm=ddbfs search.search_schedule=all search.drop_schedule=none "

Test(search, depth_1_is_svdd)
{
    open_model(3, 5, 1);
    const char *more[] = {"sampler.children=3 process.steps=6 sampler.particles=4",
                          "sampler.children=2 process.steps=1 sampler.particles=1",
                          ("sampler.children=3 process.steps=5 sampler.particles=2 "
                           "sampler.value.estimate=sample sampler.value.samples=3")};
    for (int k = 0; k < 3; k++) {
        expect_same("sampler.algorithm=svdd_pm sampler.select.parent.rule=argmax",
                    DDBFS "search.depth=1", more[k]);
        /* Blocks that are not searched are gone through step by step. */
        expect_same(DDBFS "search.depth=1", DDBFS "search.depth=7", more[k]);
    }
    table_folder_remove(folder);
}

/* The law of one searched block of two levels, T = 2: all families of two children with two
 * leaves each. */
static void block_law(const chain *c, double *law)
{
    static chain_successors one, two[2];
    chain_grid grid = {2, false};
    memset(law, 0, CHAIN_OBJECTS * sizeof *law);
    chain_move(c, chain_stay(grid, 2), c->rows - 1, &one);
    for (int family = 0; family < one.n * one.n; family++) {
        int child[2] = {family / one.n, family % one.n}, n[2];
        double score[4], p = one.p[child[0]] * one.p[child[1]];
        for (int k = 0; k < 2; k++) {
            chain_move(c, chain_stay(grid, 1), one.row[child[k]], &two[k]);
            n[k] = two[k].n * two[k].n;
        }
        for (int leaves = 0; leaves < n[0] * n[1]; leaves++) {
            int pair[2] = {leaves / n[1], leaves % n[1]}, object[4], best = 0;
            double q = p;
            for (int i = 0; i < 4; i++) {
                const chain_successors *z = &two[i / 2];
                int leaf = i % 2 == 0 ? pair[i / 2] / z->n : pair[i / 2] % z->n;
                object[i] = c->filled[z->row[leaf]];
                score[i] = (double)c->reward[c->filled[one.row[child[i / 2]]]] +
                           (double)c->reward[object[i]];
                q *= z->p[leaf];
                if (score[i] > score[best]) best = i;
            }
            law[object[best]] += q;
        }
    }
}

Test(search, a_block_follows_the_best_path)
{
    double law[CHAIN_OBJECTS], counts[CHAIN_OBJECTS];
    open_model(2, 3, 1);
    block_law(&model, law);
    count(DDBFS "search.depth=2 sampler.children=2 process.steps=2 sampler.particles=100 "
                "sampler.groups=400",
          counts);
    double share = chain_chi_square(law, counts, model.objects);
    cr_expect_lt(share, 1, "chi-square is %.2f of its bound", share);
    table_folder_remove(folder);
}

/* Draws at the end take a forbidden object only where a group has no other. */
Test(search, draws_leave_out_what_is_forbidden)
{
    const char *settings = DDBFS "search.depth=1 sampler.children=1 process.steps=4 "
                                 "sampler.groups=40 sampler.particles=3 reward.0.at_most=-0.3";
    int forbidden = 0;
    open_model(3, 5, 1);
    table_run best = sample(settings, "sampler.final.kind=top_k sampler.final.keep=1");
    table_run drawn = sample(settings, "sampler.final.kind=categorical sampler.final.keep=3");
    cr_assert_eq(best.n, 40);
    cr_assert_eq(drawn.n, 120);
    for (int64_t i = 0; i < drawn.n; i++) {
        bool hopeless = best.reward[drawn.group[i]] == -HUGE_VAL;
        cr_expect_eq(drawn.reward[i] == -HUGE_VAL, hopeless, "group %d", drawn.group[i]);
        forbidden += hopeless;
    }
    cr_expect(forbidden > 0 && forbidden < 120, "%d of 120", forbidden);
    table_run_free(&best);
    table_run_free(&drawn);
    table_folder_remove(folder);
}

Test(search, groups_shrink)
{
    open_model(3, 5, 1);
    const char *drops[] = {"exponential", "quadratic", "linear", "sigmoid"};
    double all = 0, best = 0;
    for (int k = 0; k < 4; k++) {
        char text[512];
        snprintf(text, sizeof text,
                 "sampler.algorithm=ddbfs search.search_schedule=all search.oversample=4 "
                 "search.drop_schedule=%s sampler.particles=3 sampler.groups=40 search.depth=2 "
                 "sampler.children=2 process.steps=5",
                 drops[k]);
        table_run few = sample(text, ""), every = sample(text, "search.drop_schedule=none");
        cr_assert_eq(few.n, 120);
        cr_assert_eq(every.n, 120);
        for (int64_t i = 0; i < few.n; i++) {
            cr_expect_eq(few.group[i], i / 3);
            best += few.reward[i];
            all += every.reward[i];
        }
        table_run_free(&few);
        table_run_free(&every);
    }
    cr_expect_gt(best, all, "the best of more are better");
    table_folder_remove(folder);
}

/* Half of sum |p - p*|, p from the counts. */
static double distance(double alpha, chain_grid grid, const double *counts)
{
    static double law[CHAIN_OBJECTS];
    double z = 0, total = 0, sum = 0;
    chain_forward(&model, grid, law);
    for (int o = 0; o < model.objects; o++) {
        z += law[o] *= exp((double)model.reward[o] / alpha);
        total += counts[o];
    }
    for (int o = 0; o < model.objects; o++)
        sum += fabs(law[o] / z - counts[o] / total);
    return sum / 2;
}

#define DTS                                                                                    \
    "sampler.algorithm=dts process.steps=4 search.stages=4 sampler.alpha=0.5 "                 \
    "sampler.particles=10 "

static double distance_of_run(const char *settings)
{
    double counts[CHAIN_OBJECTS];
    count(settings, counts);
    return distance(0.5, (chain_grid){4, false}, counts);
}

/* Simulations bring the law nearer: 0.41, 0.08 and 0.02 as measured.  Far more of them are
 * less exact than some, 0.03: the nodes that looked good are looked at again, and fall. */
Test(search, dts_comes_near_its_target)
{
    open_model(2, 3, 1);
    double plain = distance_of_run(DTS "sampler.algorithm=pretrained sampler.groups=400");
    double one = distance_of_run(DTS "sampler.groups=400 search.rollouts=1");
    double four = distance_of_run(DTS "sampler.groups=400 search.rollouts=4");
    double some = distance_of_run(DTS "sampler.groups=400 search.rollouts=24");
    double many = distance_of_run(DTS "sampler.groups=200 search.rollouts=128");
    cr_expect_gt(plain, 0.3, "%.3f", plain);
    cr_expect_gt(one, 0.3, "%.3f", one);
    cr_expect_lt(four, 0.15, "%.3f", four);
    cr_expect_lt(some, 0.05, "%.3f", some);
    cr_expect_lt(many, 0.08, "%.3f", many);
    table_folder_remove(folder);
}

/* One stage, always a new child: importance sampling, and unbiased as the samples grow. */
Test(search, dts_of_one_stage)
{
    open_model(2, 3, 1);
    double d = distance_of_run(DTS "sampler.groups=400 search.stages=1 search.rollouts=25 "
                                   "search.expansions=2 sampler.children=100");
    cr_expect_lt(d, 0.05, "%.3f", d);
    table_folder_remove(folder);
}

/* Share of the groups that found the best of all objects. */
static double found(const char *settings)
{
    int best = 0;
    double hits = 0;
    for (int o = 1; o < model.objects; o++)
        if (model.reward[o] > model.reward[best]) best = o;
    table_run run = sample(settings, "process.steps=4 sampler.groups=100");
    cr_assert_eq(run.n, 100);
    for (int64_t i = 0; i < run.n; i++)
        hits += run.object[i] == best;
    table_run_free(&run);
    return hits / 100;
}

#define MCTS "sampler.algorithm=mcts search.stages=4 search.rollouts=40 "

/* The best object has 0.05 under q. */
Test(search, mcts_finds_the_best_object)
{
    open_model(2, 4, 1);
    double plain = found("sampler.algorithm=best_of_n sampler.particles=4");
    double mean = found(MCTS "search.backup=mean sampler.potential=terminal");
    double valued = found(MCTS "search.backup=max");
    double ahead = found(MCTS "search.backup=max sampler.potential=terminal");
    cr_expect_lt(plain, 0.25, "%.2f", plain);
    cr_expect_gt(mean, 0.15, "%.2f", mean);
    cr_expect_gt(valued, 0.65, "%.2f", valued);
    cr_expect_gt(ahead, 0.8, "%.2f", ahead);
    table_folder_remove(folder);
}

/* ---- what may not change a sample --------------------------------------------------------- */

static const char *const searches[] = {
    "sampler.algorithm=ddbfs process.steps=7 sampler.groups=6",
    "sampler.algorithm=ddbfs process.steps=7 sampler.groups=6 search.drop_schedule=linear "
    "search.search_schedule=linear sampler.value.estimate=sample sampler.value.samples=2",
    "sampler.algorithm=mcts process.steps=7 sampler.groups=6 search.stages=3 "
    "search.rollouts=12",
    "sampler.algorithm=mcts process.steps=7 sampler.groups=6 search.stages=3 "
    "search.rollouts=12 "
    "sampler.value.estimate=sample sampler.value.samples=2 search.widening=0.5",
    "sampler.algorithm=dts process.steps=7 sampler.groups=6 search.stages=4 search.rollouts=20 "
    "sampler.particles=3 sampler.alpha=0.3",
    "sampler.algorithm=dts process.steps=6 sampler.groups=6 search.stages=6 search.rollouts=20 "
    "search.expansions=3 sampler.potential=difference sampler.value.kind=posterior_mean",
};
enum { SEARCHES = sizeof searches / sizeof *searches };

Test(search, invariance)
{
    open_model(3, 5, 1);
    for (int k = 0; k < SEARCHES; k++) {
        expect_same(searches[k], searches[k], "");
        expect_same(searches[k], searches[k], "device.batch=3");
        static const char *const more[] = {
            "device.batch=1",    "device.batch=7 device.cache=0",
            "device.threads=3",  "device.isa=portable",
            "sampler.reuse=off", "sampler.reuse=off device.batch=2"};
        for (size_t j = 0; j < sizeof more / sizeof *more; j++) {
            char text[1024];
            snprintf(text, sizeof text, "%s %s", searches[k], more[j]);
            expect_same(searches[k], text, "");
        }
    }
    table_folder_remove(folder);
}

Test(search, a_group_is_alone)
{
    open_model(3, 5, 1);
    for (int k = 0; k < SEARCHES; k++) {
        table_run six = sample(searches[k], ""), two = sample(searches[k], "sampler.groups=2");
        cr_assert_eq(six.n, 3 * two.n);
        cr_expect_arr_eq(two.object, six.object, (size_t)two.n * sizeof *two.object, "%s",
                         searches[k]);
        table_run_free(&six);
        table_run_free(&two);
    }
    table_folder_remove(folder);
}

/* ---- calls ------------------------------------------------------------------------------ */

static kac_progress progress_of(const char *settings)
{
    kac_config *config = NULL;
    kac_run *run = NULL;
    kac_progress progress = {0};
    cr_assert_eq(kac_config_create(&config), KAC_OK);
    cr_assert_eq(kac_config_set(config, "model.file", table_path(folder, "denoiser").path),
                 KAC_OK);
    cr_assert_eq(kac_config_set(config, "reward.0.kind", "table"), KAC_OK);
    cr_assert_eq(kac_config_set(config, "reward.0.file", table_path(folder, "reward").path),
                 KAC_OK);
    cr_assert_eq(table_configure(config, settings), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_run_create(config, &run), KAC_OK, "%s", kac_last_error());
    for (int64_t k = 0; k < kac_run_steps(run); k++)
        cr_assert_eq(kac_run_step(run), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_run_sync(run, &progress), KAC_OK, "%s", kac_last_error());
    cr_expect_eq(progress.step, kac_run_steps(run));
    kac_run_destroy(run);
    kac_config_destroy(config);
    return progress;
}

static int64_t asked(const char *settings)
{
    kac_progress p = progress_of(settings);
    return p.denoiser_calls + p.denoiser_saved;
}

Test(search, calls_asked)
{
    open_model(3, 5, 1);
    /* ddbfs, T = 5, d = 2: a step, then two blocks; x of 3 groups of 4 particles. */
    cr_expect_eq(asked(DDBFS "search.depth=2 sampler.children=3 process.steps=5 "
                             "sampler.groups=3 sampler.particles=4"),
                 12 * ((1 + 3) + 2 * (1 + 3 + 3 + 9)));
    /* Nodes that may always have more children, so that no wave ends at an object. */
    cr_expect_eq(asked("sampler.algorithm=dts process.steps=5 search.stages=1 sampler.groups=3 "
                       "search.rollouts=7 search.expansions=2 sampler.children=4096"),
                 3 * (7 * 2 * (5 + 1) + 1));
    /* No more depths than steps. */
    cr_expect_eq(
        asked("sampler.algorithm=mcts process.steps=3 search.stages=9 sampler.groups=1 "
              "search.rollouts=3 search.expansions=5 sampler.children=5"),
        3 * 5 * (1 + 1) + 1);
    /* Rows that wait or have arrived are not asked about: one stage of two steps, and a value. */
    cr_expect_eq(
        asked("sampler.algorithm=mcts process.steps=4 search.stages=2 sampler.groups=3 "
              "search.rollouts=2 search.expansions=5 sampler.children=5"),
        3 * (2 * 5 * (2 + 1) + 1));
    for (int k = 0; k < SEARCHES;
         k++) { /* but without reuse all rows are, and nothing is saved */
        char text[1024];
        snprintf(text, sizeof text, "%s sampler.reuse=off", searches[k]);
        kac_progress p = progress_of(text);
        cr_expect_eq(p.denoiser_saved, 0, "%s: %d", searches[k], (int)p.denoiser_saved);
    }
    table_folder_remove(folder);
}

Test(search, a_budget_holds)
{
    open_model(3, 5, 1);
    const char *const runs[] = {"sampler.algorithm=ddbfs process.steps=6 sampler.groups=400",
                                "sampler.algorithm=mcts process.steps=6 sampler.groups=400 "
                                "search.stages=3",
                                "sampler.algorithm=dts process.steps=6 sampler.groups=400 "
                                "search.stages=3",
                                "sampler.algorithm=dts process.steps=6 sampler.groups=400 "
                                "search.stages=3 sampler.value.kind=posterior_mean "
                                "sampler.potential=difference search.expansions=3",
                                "sampler.algorithm=mcts process.steps=6 sampler.groups=400 "
                                "search.stages=4 sampler.value.estimate=sample "
                                "sampler.value.samples=2"};
    for (int k = 0; k < 10; k++) { /* with reuse and without */
        char text[512];
        snprintf(text, sizeof text, "%s budget.denoiser=20000 budget.reward=20000 %s",
                 runs[k / 2], k % 2 == 0 ? "" : "sampler.reuse=off");
        kac_progress p = progress_of(text);
        cr_expect_leq(p.denoiser_calls + p.denoiser_saved, 20000, "%s", text);
        cr_expect_leq(p.reward_calls + p.reward_saved, 20000, "%s", text);
        cr_expect_gt(p.denoiser_calls + p.denoiser_saved, 5000, "%s", text);
    }
    table_folder_remove(folder);
}

/* A fault is told with the step after which it is heard of. */
Test(search, faults_have_the_steps_of_the_run)
{
    static const char *const runs[] = {
        "sampler.algorithm=dts search.stages=3 search.rollouts=6",
        "sampler.algorithm=mcts search.stages=3 search.rollouts=6 search.expansions=1",
        DDBFS "search.depth=2 sampler.children=2 sampler.particles=1",
    };
    open_model(3, 5, 1);
    cr_assert_eq(table_write_forbidden(&model, folder, 1), KAC_OK, "%s", kac_last_error());
    for (int k = 0; k < 3; k++) {
        int late = 0;
        for (int seed = 1; seed < 40 && late < 3; seed++) {
            char text[1024], want[64];
            kac_config *config = NULL;
            kac_run *run = NULL;
            kac_status status = KAC_OK;
            int step = 0;
            snprintf(text, sizeof text,
                     "model.file=%s reward.0.kind=pwm reward.0.file=%s process.steps=6 "
                     "sampler.groups=1 seed=%d %s",
                     table_path(folder, "denoiser").path, table_path(folder, "forbidden").path,
                     seed, runs[k]);
            cr_assert_eq(kac_config_create(&config), KAC_OK);
            cr_assert_eq(table_configure(config, text), KAC_OK, "%s", kac_last_error());
            cr_assert_eq(kac_run_create(config, &run), KAC_OK, "%s", kac_last_error());
            for (; step < kac_run_steps(run) && status == KAC_OK; step++) {
                cr_assert_eq(kac_run_step(run), KAC_OK);
                status = kac_run_sync(run, NULL);
            }
            snprintf(want, sizeof want, "step %d, slot 0: the reward", step);
            if (status != KAC_OK)
                cr_expect_not_null(strstr(kac_last_error(), want), "%s: %s, want %s", text,
                                   kac_last_error(), want);
            late += status != KAC_OK && step > 1;
            kac_run_destroy(run);
            kac_config_destroy(config);
        }
        cr_expect_eq(late, 3, "%s", runs[k]);
    }
    table_folder_remove(folder);
}

/* ---- what is refused -------------------------------------------------------------------- */

Test(search, contradictions)
{
    static const struct {
        const char *settings, *message;
    } cases[] = {
        {"sampler.algorithm=ddbfs sampler.potential=terminal",
         "sampler.value.kind: search.kind ddbfs needs posterior_mean"},
        {"sampler.algorithm=mcts sampler.particles=2",
         "sampler.particles: search.kind mcts gives one object of each group, so want 1, found "
         "2"},
        {"sampler.algorithm=mcts search.rollouts=7",
         "search.rollouts: search.kind mcts needs one for each of 16 stages at least, found 7"},
        {"sampler.algorithm=dts search.rollouts=10000",
         "search.rollouts: 10000 simulations of 128 process.steps are 1280000 moves; want at "
         "most 1048575"},
        {"sampler.algorithm=dts sampler.alpha=0",
         "sampler.alpha: 0 is allowed only where every selection is argmax or top_k"},
        {"sampler.algorithm=ddbfs sampler.funnel=2 sampler.select.group.rule=argmax",
         "sampler.funnel: driver.kind search needs none"},
        {"sampler.algorithm=mcts sampler.temper.kind=linear",
         "sampler.temper.kind: driver.kind search needs none"},
        {"sampler.algorithm=ddbfs search.depth=20 sampler.children=8",
         "search.depth: 128 particles with 8^20 leaves each are"},
        {"sampler.algorithm=ddbfs search.depth=9 search.search_schedule=all sampler.children=5 "
         "search.memory=64",
         "search.memory: 64 MiB, and the states of 16 groups need"},
        {"sampler.algorithm=dts search.rollouts=4000 sampler.groups=1000 search.memory=1",
         "search.memory: 1 MiB, and the states of 1000 groups need"},
    };
    open_model(2, 3, 1);
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        table_run run = {0};
        kac_status status = table_sample(&model, folder, cases[k].settings, &run);
        cr_expect_eq(status, KAC_ERR_INVALID, "%s", cases[k].settings);
        cr_expect_eq(strncmp(kac_last_error(), cases[k].message, strlen(cases[k].message)), 0,
                     "%s: %s", cases[k].settings, kac_last_error());
        table_run_free(&run);
    }
    table_folder_remove(folder);
}
