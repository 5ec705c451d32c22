/* plan.c -- how large a run is: its steps, passes, groups and rows, before memory is taken. */
#include <stdlib.h>

#include "budget.h"
#include "run.h"

static const int32_t default_batch = 1024;

/* What the settings say of a step. */
static void read_step(kac_run *r)
{
    const kac_settings *s = &r->set;
    bool samples = s->sampler.value == KAC_VALUE_POSTERIOR_MEAN &&
                   s->sampler.estimate == KAC_ESTIMATE_SAMPLE;
    r->vectors = s->process.kind != KAC_PROCESS_MASKED;
    r->steps = (int32_t)s->process.steps;
    r->children = (int32_t)s->sampler.children;
    r->samples = samples ? (int32_t)s->sampler.samples : 1;
    r->keep = s->sampler.parent_rule == KAC_RULE_NONE    ? r->children
              : s->sampler.parent_rule == KAC_RULE_TOP_K ? (int32_t)s->sampler.parent_keep
                                                         : 1;
    r->weighted = kac_properly_weighted(s);
}

/* The population at the start and its steps, before any memory is taken.  Rows of a pool that
 * spans ranks are groups of one particle. */
static kac_status plan_population(kac_run *r, int64_t groups)
{
    const kac_settings *s = &r->set;
    r->groups = (int32_t)groups;
    r->n = (int32_t)(groups * (r->span != NULL ? 1 : s->sampler.particles));
    if (s->sampler.on_dead == KAC_DEAD_REVIVE)
        r->revive.levels = (int32_t)s->sampler.revive_levels;
    if (s->driver.kind == KAC_DRIVER_SEARCH) {
        r->level = r->moves = r->steps;
        return kac_search_plan(r);
    }
    r->most.parents = r->n;
    r->most.children = r->n * r->children;
    r->most.entries = (int64_t)r->most.parents + r->most.children;
    return KAC_OK;
}

kac_status kac_plan_most(kac_run *r)
{
    read_step(r);
    KAC_TRY(plan_population(r, kac_groups_a_rank(r, r->set.sampler.groups)));
    int64_t batch = r->set.device.batch != 0 ? r->set.device.batch : default_batch;
    r->batch = (int32_t)(batch < r->most.children ? batch : r->most.children);
    return KAC_OK;
}

kac_status kac_plan_passes(kac_run *r)
{
    kac_status status = KAC_OK;
    int64_t first = r->steps;
    r->passes = 1;
    r->back = r->steps;
    kac_level *levels = calloc((size_t)r->steps + 1, sizeof *levels);
    if (levels == NULL)
        return KAC_FAIL(KAC_ERR_NOMEM, "run: no memory for %d levels", r->steps);
    KAC_TRY_DONE(kac_fill_levels(r, levels));
    switch (r->set.driver.kind) {
    case KAC_DRIVER_NONE:
        if (r->revive.levels > 0) first -= r->revive.levels - 1; /* which are one step */
        break;
    case KAC_DRIVER_SEARCH: goto done; /* has its own plan */
    case KAC_DRIVER_REFINE:
        r->passes += (int32_t)r->set.driver.iterations;
        kac_refine_plan(r, levels);
        if (r->set.driver.start[0] != '\0') first = 0;
        break;
    case KAC_DRIVER_GIBBS: r->passes += (int32_t)r->set.driver.sweeps; break;
    }
    int64_t moves = first + (int64_t)(r->passes - 1) * r->back;
    if (moves < 1 || moves >= 1 << 20) {
        status = KAC_FAIL(KAC_ERR_INVALID, "driver: %d passes make %lld steps; want 1 to %d",
                          r->passes, (long long)moves, (1 << 20) - 1);
        goto done;
    }
    r->moves = (int32_t)moves;
done:
    free(levels);
    return status;
}

kac_status kac_plan_groups(kac_run *r)
{
    int64_t groups = r->set.sampler.groups;
    KAC_TRY(kac_budget(r, &groups));
    KAC_TRY(kac_weights_check(&r->set, groups));
    r->all_groups = (int32_t)groups;
    KAC_TRY(kac_open_targets(r));
    KAC_TRY(plan_population(r, r->groups));
    return r->set.driver.kind == KAC_DRIVER_SEARCH ? kac_search_check(r) : KAC_OK;
}
