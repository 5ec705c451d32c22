/* search_trees.c -- Monte Carlo tree search and diffusion tree sampling: a step is a wave, one
 * simulation of every group's tree.
 *
 * The T levels are cut into S stages; the nodes of depth d lie at the level where stage d ends,
 * and the children of a node are reached by running the chain, unguided, through a stage.  A wave
 * chooses a node in each tree, adds E children to it, and values them: at their completions, or,
 * where there is no value, by running on to level 0, every state at the end of a stage becoming
 * a node; then the values go up.  Trees are at different depths, so a wave walks down all levels
 * once and each row joins in at its own: one batch a level for all trees.  Rows that wait, or
 * have arrived, are carried along; they hold states that are evaluated anyway, or known.
 *
 * mcts moves the root to its most visited child after each rollouts / S waves, and ends with
 * an object.  dts keeps its root, and draws objects by the soft policy.
 */
#include <stdlib.h>

#include "search.h"

static void *take(kac_run *r, const char *name, int64_t rows, size_t size,
                  const int32_t *through)
{
    kac_part part = {.count = rows, .size = size, .share = KAC_PART_GROUPS, .through = through};
    return kac_part_take(r, "tree", name, part);
}

static void take_trees(kac_run *r)
{
    const int32_t *through = &r->search->nodes;
    kac_trees *t = &r->search->trees;
    *t = (kac_trees){.n = r->groups,
                     .capacity = (int32_t)kac_tree_nodes(&r->set),
                     .stride = r->shape.stride};
    int64_t nodes = (int64_t)t->n * t->capacity;
    int64_t rows = r->groups * r->set.search.expansions;
    r->search->nodes = (int32_t)nodes;
    t->x = take(r, "x", nodes, (size_t)t->stride, NULL);
    t->parent = take(r, "parent", nodes, sizeof *t->parent, through);
    t->child = take(r, "child", nodes, sizeof *t->child, through);
    t->sibling = take(r, "sibling", nodes, sizeof *t->sibling, through);
    t->children = take(r, "children", nodes, sizeof *t->children, NULL);
    t->depth = take(r, "depth", nodes, sizeof *t->depth, NULL);
    t->visits = take(r, "visits", nodes, sizeof *t->visits, NULL);
    t->allowed = take(r, "allowed", nodes, sizeof *t->allowed, NULL);
    t->sum = take(r, "sum", nodes, sizeof *t->sum, NULL);
    t->value = take(r, "value", nodes, sizeof *t->value, NULL);
    t->entry = kac_part_take(
        r, "tree", "entry",
        (kac_part){.count = nodes + rows, .size = sizeof *t->entry, .share = KAC_PART_PRIVATE});
    t->count = take(r, "count", t->n, sizeof *t->count, NULL);
    t->root = take(r, "root", t->n, sizeof *t->root, through);
    t->low = take(r, "low", t->n, sizeof *t->low, NULL);
    t->high = take(r, "high", t->n, sizeof *t->high, NULL);
    kac_part_add(r, "tree", "at_depth",
                 (kac_part){.data = &r->search->root,
                            .count = 1,
                            .size = sizeof r->search->root,
                            .on_host = true,
                            .share = KAC_PART_ALIKE});
}

/* The level of each depth, and the depth at each level. */
static kac_status start_stages(kac_run *r, int32_t *level, int32_t *depth)
{
    const kac_memory_ops *op = &r->dev->ops->memory;
    kac_search *s = r->search;
    size_t stages = (size_t)r->set.search.stages;
    kac_status status = KAC_OK;
    s->at_level = calloc(stages + 1, sizeof *s->at_level);
    int32_t *at_depth = calloc((size_t)r->steps + 1, sizeof *at_depth);
    if (s->at_level == NULL || at_depth == NULL) {
        status = KAC_FAIL(KAC_ERR_NOMEM, "search: no memory for %d levels", r->steps);
        goto done;
    }
    for (int32_t k = 0; k <= r->steps; k++)
        at_depth[k] = -1;
    for (size_t d = 0; d <= stages; d++) {
        s->at_level[d] = r->steps - (int32_t)((int64_t)d * r->steps / (int64_t)stages);
        at_depth[s->at_level[d]] = (int32_t)d;
    }
    KAC_TRY_DONE(op->upload(r->dev, level, s->at_level, (stages + 1) * sizeof *level));
    KAC_TRY_DONE(op->upload(r->dev, depth, at_depth, ((size_t)r->steps + 1) * sizeof *depth));
done:
    free(at_depth);
    return status;
}

kac_status kac_trees_open(kac_run *r)
{
    const kac_settings *set = &r->set;
    kac_search *s = r->search;
    int32_t each = (int32_t)set->search.expansions, rows = r->groups * each;
    if (set->search.kind == KAC_SEARCH_DTS && r->allowed != NULL)
        return KAC_FAIL(
            KAC_ERR_INVALID,
            "process.template: search.kind dts does not weigh what restricts a site "
            "to some letters; give letters or ?");
    take_trees(r);
    s->rows = kac_take_particles(r, rows);
    kac_part_add_particles(r, "rows", &s->rows, NULL);
    int32_t *level = kac_take(r, set->search.stages + 1, sizeof *level);
    int32_t *depth = kac_take(r, r->steps + 1, sizeof *depth);
    s->args = (kac_tree_args){
        .clock = r->clock,
        .groups = r->group,
        .level = level,
        .depth = depth,
        .stages = (int32_t)set->search.stages,
        .policy = set->search.policy,
        .backup = set->search.backup,
        .explore = set->search.explore,
        .widening = set->search.widening,
        .children = (int32_t)set->sampler.children,
        .each = each,
        .ahead = set->sampler.value == KAC_VALUE_NONE,
        .keep_entries = s->keeps,
        .seed = set->seed,
        .trees = &s->trees,
        .x = &s->rows,
        .y = &r->y,
        .at = kac_take(r, rows, sizeof(int32_t)),
        .from = kac_take(r, rows, sizeof(int32_t)),
        .to = kac_take(r, rows, sizeof(int32_t)),
        .idle = kac_part_take(
            r, "tree", "idle",
            (kac_part){.count = 2, .size = sizeof(int64_t), .share = KAC_PART_SUM}),
    };
    if (r->short_of_memory) return KAC_ERR_NOMEM; /* alloc left the sentence */
    s->rows.entry = s->trees.entry + (ptrdiff_t)s->trees.n * s->trees.capacity;
    r->y.n = rows;

    KAC_TRY(start_stages(r, level, depth));
    KAC_TRY(r->dev->ops->search.spread(r->dev, r->groups, each, r->group, s->rows.group));
    kac_start_args start = {.shape = r->shape,
                            .levels = r->levels,
                            .clock = r->clock,
                            .groups = r->group,
                            .group = s->rows.group,
                            .fixed = r->fixed,
                            .seed = set->seed,
                            .n = rows};
    KAC_TRY(r->process->start(r->dev, &start, s->rows.x));
    return r->dev->ops->search.plant(r->dev, &s->args);
}

kac_status kac_trees_forget(kac_run *r)
{
    const kac_states_ops *op = &r->dev->ops->states;
    kac_search *s = r->search;
    int32_t nodes = s->trees.n * s->trees.capacity;
    if (s->keeps) return op->sweep(r->dev, &r->evals, s->trees.entry, nodes + s->rows.n);
    if (r->set.sampler.reuse) return op->sweep(r->dev, &r->evals, s->rows.entry, s->rows.n);
    KAC_TRY(op->clear(r->dev, &r->evals));
    return op->forget(r->dev, s->rows.entry, s->rows.n);
}

/* Each row, where the level is one of its own, moves down by one. */
static kac_status move(kac_run *r, bool first)
{
    kac_search *s = r->search;
    if (first || !s->keeps) KAC_TRY(kac_trees_forget(r));
    KAC_TRY(kac_evaluate_states(r, &s->rows));
    KAC_TRY(r->dev->ops->particles.tick(r->dev, r->clock));
    KAC_TRY(kac_propose(r, &s->rows, 1, &r->y));
    r->level--;
    KAC_TRY(r->dev->ops->search.advance(r->dev, &s->args));
    kac_lap(r, KAC_PHASE_PROPOSE);
    return KAC_OK;
}

/* Values of the rows.  Nothing that was said of a state on the way holds a value, so all but the
 * nodes is forgotten before completions are valued. */
static kac_status value_rows(kac_run *r)
{
    const kac_states_ops *op = &r->dev->ops->states;
    kac_search *s = r->search;
    if (s->args.ahead) {
        KAC_TRY(kac_evaluate_objects(r, &s->rows, &s->rows));
    } else {
        KAC_TRY(op->forget(r->dev, s->rows.entry, s->rows.n));
        KAC_TRY(kac_trees_forget(r));
        KAC_TRY(kac_evaluate_children(r, &s->rows, &s->rows));
    }
    return kac_value_children(r, &s->rows, s->args.ahead ? 1 : r->samples, &s->rows);
}

static kac_status wave(kac_run *r)
{
    const kac_search_ops *op = &r->dev->ops->search;
    kac_search *s = r->search;
    kac_clock clock = {.level = s->at_level[s->root], .move = r->step * r->steps};
    r->level = clock.level;
    KAC_TRY(r->dev->ops->memory.upload(r->dev, r->clock, &clock, sizeof clock));
    KAC_TRY(op->select(r->dev, &s->args));
    while (r->level > 0)
        KAC_TRY(move(r, r->level == clock.level));
    KAC_TRY(value_rows(r));
    KAC_TRY(op->backup(r->dev, &s->args));
    if (r->set.search.kind != KAC_SEARCH_MCTS) return KAC_OK;
    if ((int64_t)(r->step + 1) * s->args.stages / r->moves == s->root) return KAC_OK;
    s->root++;
    return op->commit(r->dev, &s->args);
}

/* What the trees give so far becomes the particles; at the end, objects with no mask left. */
static kac_status show(kac_run *r, bool last)
{
    const kac_ops *op = r->dev->ops;
    kac_search *s = r->search;
    int32_t each = r->n / r->groups;
    KAC_TRY(op->search.draw(r->dev, &s->args, each, &r->x));
    r->level = r->set.search.kind == KAC_SEARCH_MCTS ? s->at_level[s->root] : 0;
    if (!last) return KAC_OK;
    KAC_TRY(op->search.spread(r->dev, r->groups, each, r->group, r->x.group));
    KAC_TRY(op->states.forget(r->dev, r->x.entry, r->n));
    KAC_TRY(kac_evaluate_objects(r, &r->x, &r->x));
    return kac_value_children(r, &r->x, 1, &r->x);
}

kac_status kac_trees_step(kac_run *r)
{
    kac_lap(r, KAC_PHASE_OTHER);
    KAC_TRY(wave(r));
    KAC_TRY(show(r, r->step + 1 == r->moves));
    kac_lap(r, KAC_PHASE_SELECT);
    return KAC_OK;
}
