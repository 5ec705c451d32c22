/* search.c -- driver search: plans, sizes and costs.
 *
 * Kind ddbfs grows the population's descendants for a few levels and prunes them
 * (search_paths.c); kinds mcts and dts grow one tree for each group (search_trees.c).  What is
 * searched and how many go on is a function of the configuration, so the host knows all sizes
 * beforehand and the device is told nothing but what to do next.
 */
#include "search.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "exact.h"
#include "rng.h"

bool kac_searches_trees(const kac_run *r)
{
    return r->set.driver.kind == KAC_DRIVER_SEARCH && r->set.search.kind != KAC_SEARCH_DDBFS;
}

/* ---- schedules -------------------------------------------------------------------------- */

double kac_search_share(kac_searched schedule, int64_t j, int64_t steps)
{
    double at = (double)j / (double)steps;
    switch (schedule) {
    case KAC_SEARCHED_ALL: return 1;
    case KAC_SEARCHED_LINEAR: return at + 10 / (double)steps;
    case KAC_SEARCHED_EXPONENTIAL: return 1 - kac_exp(-4 * at);
    }
    return 1;
}

int64_t kac_drop_target(kac_drop drop, int64_t begin, int64_t end, int64_t done, int64_t steps)
{
    double p = (double)begin, b = (double)end, at = (double)done / (double)steps;
    double target = 0;
    switch (drop) {
    case KAC_DROP_NONE: return begin;
    case KAC_DROP_EXPONENTIAL: target = p * kac_exp(at * kac_log(b / p)); break;
    case KAC_DROP_QUADRATIC: target = b + (p - b) * (1 - at) * (1 - at); break;
    case KAC_DROP_LINEAR: target = p - at * (p - b); break;
    case KAC_DROP_SIGMOID: target = p / (1 + kac_exp(10 * (at - 0.5))); break;
    }
    if (done == steps || target < b) return end;
    return (int64_t)target;
}

/* ---- the plan --------------------------------------------------------------------------- */

/* One uniform number for the whole run, so that groups do not depend on each other. */
static bool is_searched(const kac_run *r, int64_t j)
{
    kac_key key = {.seed = r->set.seed, .move = (uint32_t)j};
    double u = (double)kac_draw(key, KAC_DRAW_SEARCH, 0).v[0] * 0x1p-32;
    return u < kac_search_share(r->set.search.searched, j, r->steps);
}

/* Steps that are left over come first, one by one; then blocks of d, each searched as a whole or
 * gone through one by one. */
static void plan_blocks(kac_run *r, int64_t begin)
{
    const kac_settings *s = &r->set;
    kac_search *search = r->search;
    int32_t depth = (int32_t)s->search.depth, single = r->steps % depth, done = 0;
    r->moves = 0;
    while (done < r->steps) {
        int32_t levels = 1;
        if (single == 0 && is_searched(r, done + 1))
            levels = depth;
        else if (single == 0)
            single = depth;
        if (levels == 1) single--;
        done += levels;
        search->levels[r->moves] = levels;
        search->keep[r->moves++] = (int32_t)kac_drop_target(
            s->search.drop, begin, s->sampler.particles, done, r->steps);
    }
}

/* children^depth, at most 2^40. */
static int64_t leaves_of(int64_t children, int64_t depth)
{
    int64_t leaves = 1;
    for (int64_t k = 0; k < depth && leaves < (int64_t)1 << 40; k++)
        leaves *= children;
    return leaves;
}

/* Particles of a group at the start. */
static int64_t particles_at_start(const kac_settings *s)
{
    if (s->search.drop == KAC_DROP_NONE) return s->sampler.particles;
    return (int64_t)(s->search.oversample * (double)s->sampler.particles);
}

static kac_status plan_paths(kac_run *r)
{
    const kac_settings *s = &r->set;
    int64_t each = particles_at_start(s), depth = 1;
    plan_blocks(r, each);
    for (int32_t k = 0; k < r->moves; k++)
        if (r->search->levels[k] > depth) depth = r->search->levels[k];

    int64_t roots = r->groups * each;
    int64_t leaves = leaves_of(s->sampler.children, depth);
    double rows = (double)roots * (double)leaves * (double)r->samples;
    if (rows > (double)(1 << 29))
        return KAC_FAIL(KAC_ERR_INVALID,
                        "search.depth: %" PRId64 " particles with %" PRId64 "^%" PRId64
                        " leaves each are %.3g states; at most %d",
                        roots, s->sampler.children, depth, rows, 1 << 29);
    r->n = (int32_t)roots;
    r->most.children = (int32_t)(roots * leaves);
    r->most.parents = (int32_t)(roots * leaves / s->sampler.children);
    r->most.entries = (int64_t)r->most.parents + r->most.children;
    return KAC_OK;
}

int64_t kac_tree_nodes(const kac_settings *s)
{
    int64_t each = s->sampler.value == KAC_VALUE_NONE ? s->search.stages : 1;
    return 1 + s->search.rollouts * s->search.expansions * each;
}

/* Evaluations of the nodes are kept where device.cache has room for them and for all that one
 * wave adds; else only the rows at work keep theirs. */
static kac_status plan_trees(kac_run *r)
{
    const kac_settings *s = &r->set;
    int64_t rows = r->groups * s->search.expansions;
    int64_t nodes = r->groups * kac_tree_nodes(s);
    if (nodes > 1 << 29 || rows * r->samples > 1 << 29)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "search.rollouts: %" PRId64 " nodes and %" PRId64
                        " rows at work are more than %d; take fewer rollouts or groups",
                        nodes, rows * r->samples, 1 << 29);
    r->moves = (int32_t)s->search.rollouts;
    r->most.parents = (int32_t)(rows > r->n ? rows : r->n);
    r->most.children = r->most.parents;
    r->most.entries = 2 * (int64_t)r->most.parents;
    int64_t all = nodes + rows * (r->steps + 2) + r->n;
    r->search->keeps =
        s->sampler.reuse && all <= 1 << 29 && r->slot_floats > 0 &&
        (double)all * r->slot_floats * sizeof(float) <= (double)s->device.cache * 1048576;
    if (r->search->keeps && all > r->most.entries) r->most.entries = all;
    return KAC_OK;
}

kac_status kac_search_plan(kac_run *r)
{
    if (r->search == NULL) {
        r->search = calloc(1, sizeof *r->search);
        if (r->search == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "search: no memory");
        r->search->levels = calloc((size_t)r->steps, sizeof(int32_t));
        r->search->keep = calloc((size_t)r->steps, sizeof(int32_t));
        if (r->search->levels == NULL || r->search->keep == NULL)
            return KAC_FAIL(KAC_ERR_NOMEM, "search: no memory for %d steps", r->steps);
    }
    return kac_searches_trees(r) ? plan_trees(r) : plan_paths(r);
}

int32_t kac_search_step_of(const kac_run *r, int32_t move, int32_t *slots, int32_t *rows)
{
    int32_t step = 0, done = 0;
    *slots = (int32_t)(kac_searches_trees(r) ? r->set.search.expansions
                                             : particles_at_start(&r->set));
    *rows = 1;
    if (kac_searches_trees(r)) return (move - 1) / r->steps + 1;
    for (; done + r->search->levels[step] < move; step++) {
        done += r->search->levels[step];
        *slots = r->search->keep[step];
    }
    *rows = (int32_t)leaves_of(r->set.sampler.children, move - done - 1);
    return step + 1;
}

/* ---- what it takes ---------------------------------------------------------------------- */

double kac_search_bytes(const kac_run *r)
{
    double stride = r->shape.stride, terms = 4.0 * kac_rewards_columns(r->guide);
    double row = 5 * sizeof(double) + 3 * sizeof(int32_t) + stride; /* of a population */
    double rows = r->most.children * (row + r->samples * (stride + terms));
    double nodes = 0;
    if (kac_searches_trees(r))
        nodes = (double)r->groups * (double)kac_tree_nodes(&r->set) *
                (stride + 8 * sizeof(int32_t) + 2 * sizeof(double));
    else
        rows += r->most.parents * row;
    return rows + nodes +
           (double)r->most.entries * (stride + terms + 8 * sizeof(int32_t) + sizeof(uint64_t));
}

kac_status kac_search_check(const kac_run *r)
{
    double need = kac_search_bytes(r) / 1048576;
    if (need > (double)r->set.search.memory)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "search.memory: %" PRId64
                        " MiB, and the states of %d groups need %.0f; "
                        "take fewer groups, children, %s",
                        r->set.search.memory, r->groups, ceil(need),
                        kac_searches_trees(r) ? "rollouts or stages" : "particles or levels");
    if (!kac_searches_trees(r)) return KAC_OK;
    if (r->reads_time)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "search.kind: the trees of mcts and dts hold states of several levels, "
                        "and %s reads t; take ddbfs",
                        r->set.model.file);
    return KAC_OK;
}

/* Levels at which a row is asked about in all waves together.  One that has a value moves through a
 * stage, the longest one here, and otherwise waits, which costs nothing where states are not asked
 * about twice.  Else it goes all the way from the root, which mcts moves down. */
static int64_t levels_of_waves(const kac_run *r)
{
    const kac_settings *s = &r->set;
    int64_t waves = s->search.rollouts, stages = s->search.stages, levels = 0;
    if (s->sampler.value != KAC_VALUE_NONE && s->sampler.reuse)
        return waves * ((r->steps + stages - 1) / stages);
    for (int64_t k = 0; k < waves; k++) {
        int64_t depth = s->search.kind == KAC_SEARCH_MCTS ? k * stages / waves : 0;
        levels += r->steps - depth * r->steps / stages;
    }
    return levels;
}

void kac_search_cost(const kac_run *r, int64_t *denoiser, int64_t *reward)
{
    const kac_settings *s = &r->set;
    int64_t networks = kac_rewards_networks(r->guide), asked = 0, objects = 0;
    if (kac_searches_trees(r)) {
        int64_t rows = s->search.rollouts * s->search.expansions;
        asked = s->search.expansions * levels_of_waves(r) + rows + s->sampler.particles;
        objects = rows * r->samples + s->sampler.particles;
    } else {
        int64_t roots = r->n / r->groups;
        for (int32_t k = 0; k < r->moves; k++) {
            int64_t parents = roots;
            for (int32_t level = 0; level < r->search->levels[k]; level++) {
                int64_t children = parents * s->sampler.children;
                asked += parents + children;
                objects += parents + children * r->samples;
                parents = children;
            }
            roots = r->search->keep[k];
        }
    }
    *denoiser = asked * kac_run_denoisers(r);
    *reward = objects * networks;
}

/* ---- running ---------------------------------------------------------------------------- */

kac_status kac_search_open(kac_run *r)
{
    return kac_searches_trees(r) ? kac_trees_open(r) : kac_paths_open(r);
}

void kac_search_close(kac_run *r)
{
    if (r->search == NULL) return;
    free(r->search->levels);
    free(r->search->keep);
    free(r->search->at_level);
    free(r->search);
    r->search = NULL;
}

kac_status kac_search_step(kac_run *r)
{
    return kac_searches_trees(r) ? kac_trees_step(r) : kac_paths_step(r);
}
