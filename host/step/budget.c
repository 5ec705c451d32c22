/* budget.c -- how many groups a budget of calls allows. */
#include "budget.h"

#include <inttypes.h>
#include <stdlib.h>

#include "process.h"

/* Calls that one group takes at most, summed over the steps, which may have fewer particles. */
typedef struct cost {
    int64_t denoiser, reward;
} cost;

static cost sum_of_levels(const kac_run *r, const kac_level *levels)
{
    const kac_settings *s = &r->set;
    cost c = {0, 0};
    int64_t particles = s->sampler.particles, children = s->sampler.children;
    bool looks_ahead = s->sampler.value == KAC_VALUE_POSTERIOR_MEAN;
    bool values = s->sampler.value != KAC_VALUE_NONE;
    int64_t networks = kac_rewards_networks(r->guide);
    if (s->driver.kind == KAC_DRIVER_SEARCH) {
        kac_search_cost(r, &c.denoiser, &c.reward);
        return c;
    }
    int64_t first = r->moves - (int64_t)(r->passes - 1) * r->back; /* steps of the first pass */
    if (first == 0) c.reward += particles * networks;              /* of what is given */
    if (r->revive.levels > 0) {
        kac_revive_cost(r, &c.denoiser, &c.reward);
        first = r->steps;
    }
    for (int64_t level = r->steps - 1; level >= r->revive.levels; level--) {
        int64_t rows = particles * children;
        int64_t times = (level < first) + (level < r->back ? r->passes - 1 : 0);
        bool last = level == 0;
        c.denoiser += times * (particles + (last || looks_ahead ? rows : 0));
        if (last)
            c.reward += times * rows * networks;
        else if (r->value != NULL)
            c.reward += times * rows;
        else if (values) /* a child that reveals nothing needs its parent's value */
            c.reward +=
                times * (rows * s->sampler.samples + (looks_ahead ? particles : 0)) * networks;
        if (levels[level].particles > 0) particles = levels[level].particles;
    }
    c.denoiser *= kac_run_denoisers(r);
    return c;
}

static kac_status limit(const char *key, int64_t budget, int64_t spent, int64_t each,
                        int64_t *groups)
{
    if (budget == 0 || each == 0) return KAC_OK;
    int64_t most = budget > spent ? (budget - spent) / each : 0;
    if (most == 0)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "%s: %" PRId64 " calls are less than a group may take, %" PRId64
                        "%s; lower sampler.particles, sampler.children or process.steps",
                        key, budget, each + spent, spent > 0 ? " with the pilot" : "");
    if (most < *groups) *groups = most;
    return KAC_OK;
}

static kac_status cost_of_group(const kac_run *r, cost *out)
{
    kac_level *levels = calloc((size_t)r->steps + 1, sizeof *levels);
    if (levels == NULL)
        return KAC_FAIL(KAC_ERR_NOMEM, "run: no memory for %d levels", r->steps);
    kac_trigger_levels(&r->set, levels);
    *out = sum_of_levels(r, levels);
    free(levels);
    return KAC_OK;
}

kac_status kac_most_calls(const kac_run *r, int64_t *denoiser, int64_t *reward)
{
    cost c;
    KAC_TRY(cost_of_group(r, &c));
    *denoiser = r->all_groups * c.denoiser;
    *reward = r->all_groups * c.reward;
    return KAC_OK;
}

kac_status kac_budget(const kac_run *r, int64_t *groups)
{
    cost c;
    KAC_TRY(cost_of_group(r, &c));
    KAC_TRY(limit("budget.denoiser", r->set.budget.denoiser, r->pilot.denoiser_made, c.denoiser,
                  groups));
    return limit("budget.reward", r->set.budget.reward, r->pilot.reward_made, c.reward, groups);
}
