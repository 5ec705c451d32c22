/* start.c -- where a run begins: the levels, what is given of the objects, the groups, and
 * everyone as noise. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "process.h"
#include "run.h"

kac_status kac_fill_levels(const kac_run *r, kac_level *levels)
{
    switch (r->set.process.kind) {
    case KAC_PROCESS_MASKED: return kac_masked_levels(&r->set, levels);
    case KAC_PROCESS_GAUSSIAN: return kac_gaussian_levels(&r->set, levels);
    case KAC_PROCESS_GRAPH: return kac_graph_levels(&r->set, &r->denoiser->graph, levels);
    }
    return KAC_OK;
}

/* Whether the move from a level draws what a tilt could move. */
static bool has_draws(const kac_run *r, const kac_level *level)
{
    switch (r->set.process.kind) {
    case KAC_PROCESS_MASKED: return true;
    case KAC_PROCESS_GAUSSIAN: return level->gaussian.spread != 0;
    case KAC_PROCESS_GRAPH:
        return level->graph.part[0].spread != 0 || level->graph.part[1].spread != 0;
    }
    return false;
}

/* The time grid, and the clock at level T. */
static kac_status start_levels(kac_run *r)
{
    const kac_memory_ops *op = &r->dev->ops->memory;
    size_t count = (size_t)r->steps + 1;
    kac_clock clock = {.level = r->steps, .move = 0};
    kac_status status = KAC_OK;

    kac_level *levels = calloc(count, sizeof *levels);
    if (levels == NULL)
        return KAC_FAIL(KAC_ERR_NOMEM, "run: no memory for %d levels", r->steps);
    KAC_TRY_DONE(kac_fill_levels(r, levels));
    if (r->reads_time && !isfinite(levels[r->steps].sigma)) {
        status =
            KAC_FAIL(KAC_ERR_INVALID,
                     "process: the noise level of t = %g is infinite, and %s reads it; with "
                     "epsilon (or begin, in schedule flow) above 0 it is not",
                     levels[r->steps].t, r->set.model.file);
        goto done;
    }
    kac_temper_levels(&r->set, levels);
    kac_trigger_levels(&r->set, levels);
    for (int32_t k = 0; k <= r->steps; k++) {
        r->funnel[k] = levels[k].particles;
        r->draws[k] = has_draws(r, &levels[k]);
    }
    KAC_TRY_DONE(op->upload(r->dev, r->levels, levels, count * sizeof *levels));
    KAC_TRY_DONE(op->upload(r->dev, r->clock, &clock, sizeof clock));
done:
    free(levels);
    return status;
}

/* What the template gives, on the device. */
static kac_status start_template(kac_run *r)
{
    const kac_memory_ops *op = &r->dev->ops->memory;
    const char *text = r->set.process.template;
    size_t length = (size_t)r->shape.length;
    kac_status status = KAC_OK;
    bool restricts = false;
    r->free_sites = r->shape.length;
    if (text[0] == '\0') return KAC_OK;
    if (strlen(text) != length)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "process.template: %zu characters for an object of %zu sites",
                        strlen(text), length);

    uint8_t *fixed = calloc((size_t)r->shape.stride, 1);
    uint32_t *allowed = calloc(length, sizeof *allowed);
    r->fixed = kac_take(r, r->shape.stride, 1);
    uint32_t *device = kac_take(r, r->shape.length, sizeof *device);
    if (!fixed || !allowed || !r->fixed || !device) {
        status = KAC_FAIL(KAC_ERR_NOMEM, "run: no memory for a template of %zu sites", length);
        goto done;
    }
    KAC_TRY_DONE(kac_masked_template(text, r->denoiser->alphabet, fixed, allowed, &restricts));
    KAC_TRY_DONE(op->upload(r->dev, r->fixed, fixed, (size_t)r->shape.stride));
    KAC_TRY_DONE(op->upload(r->dev, device, allowed, length * sizeof *allowed));
    if (restricts) r->allowed = device;
    for (size_t l = 0; l < length; l++)
        r->free_sites -= fixed[l] != r->shape.states;
done:
    free(fixed);
    free(allowed);
    return status;
}

/* How many nodes graphs have, on the device. */
static kac_status start_nodes(kac_run *r)
{
    const kac_graph_model *graph = &r->denoiser->graph;
    const char *given = r->set.process.nodes;
    size_t bytes = (size_t)graph->nodes * sizeof *r->nodes;
    char all[16];
    if (r->set.process.kind != KAC_PROCESS_GRAPH) return KAC_OK;
    (void)snprintf(all, sizeof all, "%d", (int)graph->nodes);
    if (given[0] == '\0') given = graph->counts[0] != '\0' ? graph->counts : all;

    uint64_t *law = malloc(bytes);
    if (r->set.process.langevin_together) r->norms = kac_take(r, 1, sizeof *r->norms);
    r->nodes = kac_take(r, graph->nodes, sizeof *r->nodes);
    kac_status status = KAC_ERR_NOMEM;
    if (law != NULL && r->nodes != NULL) status = kac_graph_counts(given, graph->nodes, law);
    if (status == KAC_OK) status = r->dev->ops->memory.upload(r->dev, r->nodes, law, bytes);
    free(law);
    return status;
}

kac_status kac_start_given(kac_run *r)
{
    KAC_TRY(start_template(r));
    return start_nodes(r);
}

/* The table of groups, which of them select together, and how each weighs the reward's terms.
 */
static kac_status start_groups(kac_run *r)
{
    const kac_memory_ops *op = &r->dev->ops->memory;
    const kac_settings *s = &r->set;
    size_t groups = (size_t)kac_groups_here(r), rows = (size_t)r->groups;
    size_t weights = (size_t)s->rewards;
    int32_t each = kac_selected_of(r).x->n / kac_groups_here(r);
    kac_status status = KAC_OK;

    kac_group *group = calloc(groups, sizeof *group);
    double *ones = calloc(rows, sizeof *ones);
    double *weight = calloc(rows * weights + 1, sizeof *weight);
    if (group == NULL || ones == NULL || weight == NULL) {
        status = KAC_FAIL(KAC_ERR_NOMEM, "run: no memory for %d groups", r->groups);
        goto done;
    }
    for (size_t k = 0; k < rows; k++) {
        size_t of = (size_t)r->first + (r->span != NULL ? 0 : k); /* a pool has one target */
        ones[k] = 1;
        memcpy(weight + k * weights, r->weight + of * weights, weights * sizeof *weight);
    }
    for (int32_t g = 0; g < kac_groups_here(r); g++) {
        group[g] = (kac_group){.offset = g * each,
                               .count = each,
                               .id = r->first + g,
                               .target = r->target[r->first + g],
                               .alpha = s->sampler.alpha,
                               .lambda = s->sampler.temper == KAC_TEMPERING_NONE ? 1 : 0,
                               .ess = 1};
    }
    if (r->value_weight != NULL)
        KAC_TRY_DONE(op->upload(r->dev, r->value_weight, ones, rows * sizeof *ones));
    KAC_TRY_DONE(op->upload(r->dev, r->select.groups, group, groups * sizeof *group));
    KAC_TRY_DONE(op->upload(r->dev, r->pool_first, r->first_of_pool,
                            ((size_t)r->pools + 1) * sizeof *r->pool_first));
    KAC_TRY_DONE(op->upload(r->dev, r->group_weight, weight, rows * weights * sizeof *weight));
    if (r->span != NULL) status = kac_span_start(r, group);
done:
    free(group);
    free(ones);
    free(weight);
    return status;
}

kac_status kac_reset(kac_run *r, int32_t level, bool eves)
{
    kac_selected of = kac_selected_of(r);
    kac_reset_args a = {.clock = r->clock,
                        .level = level,
                        .n_groups = kac_groups_here(r),
                        .groups = of.groups,
                        .lambda = r->set.sampler.temper == KAC_TEMPERING_NONE ? 1 : 0,
                        .potential = r->set.sampler.potential,
                        .eves = eves,
                        .x = of.x};
    r->level = level;
    KAC_TRY(r->dev->ops->particles.reset(r->dev, &a));
    return r->dev->ops->states.forget(r->dev, r->x.entry, r->n);
}

kac_status kac_restart(kac_run *r)
{
    kac_start_args start = {.shape = r->shape,
                            .levels = r->levels,
                            .clock = r->clock,
                            .groups = r->group,
                            .group = r->x.group,
                            .fixed = r->fixed,
                            .nodes = r->nodes,
                            .seed = r->set.seed,
                            .n = r->n};
    KAC_TRY(kac_reset(r, r->steps, true));
    return r->process->start(r->dev, &start, r->x.x);
}

/* Which group each slot is of, and everyone at the start. */
static kac_status start_particles(kac_run *r)
{
    size_t n = (size_t)r->n;
    int32_t *group = calloc(n, sizeof *group);
    if (group == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "run: no memory for %d particles", r->n);
    for (int32_t i = 0; i < r->n; i++)
        group[i] = i / (r->n / r->groups);
    kac_status status =
        r->dev->ops->memory.upload(r->dev, r->x.group, group, n * sizeof *group);
    free(group);
    KAC_TRY(status);
    return kac_restart(r);
}

kac_status kac_start_population(kac_run *r)
{
    KAC_TRY(start_levels(r));
    KAC_TRY(start_groups(r));
    return start_particles(r);
}
