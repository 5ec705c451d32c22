/* targets.c -- what each group seeks: its weights, and which groups seek the same. */
#include <stdlib.h>
#include <string.h>

#include "run.h"

/* Lists in run.json have a row a target. */
enum { MAX_TARGETS = 4096 };

kac_status kac_number_targets(const kac_settings *s, int32_t groups, double *weight,
                              int32_t *target, int32_t *targets)
{
    size_t row = (size_t)s->rewards * sizeof *weight;
    int32_t first[MAX_TARGETS], found = 0; /* group of each target */
    for (int32_t g = 0; g < groups; g++) {
        double *own = weight + (ptrdiff_t)g * s->rewards;
        int32_t t = 0;
        for (int term = 0; term < s->rewards; term++)
            own[term] = kac_reward_weight(&s->reward[term], g, groups);
        while (t < found && memcmp(weight + (ptrdiff_t)first[t] * s->rewards, own, row) != 0)
            t++;
        if (t == MAX_TARGETS)
            return KAC_FAIL(KAC_ERR_INVALID,
                            "reward.N.weights: more than %d different weights of groups",
                            (int)MAX_TARGETS);
        if (t == found) first[found++] = g;
        target[g] = t;
    }
    *targets = found;
    return KAC_OK;
}

/* Each group is a pool; with scope `global`, neighbours of one target are. */
static void divide_pools(kac_run *r)
{
    r->pools = 0;
    for (int32_t g = 0; g < r->all_groups; g++) {
        bool joins = r->set.sampler.global && g > 0 && r->target[g] == r->target[g - 1];
        if (!joins) r->first_of_pool[r->pools++] = g;
    }
    r->first_of_pool[r->pools] = r->all_groups;
}

kac_status kac_open_targets(kac_run *r)
{
    size_t groups = (size_t)r->all_groups;
    int rewards = r->set.rewards;
    r->weight = calloc(groups * (size_t)rewards + 1, sizeof *r->weight);
    r->target = calloc(groups, sizeof *r->target);
    r->first_of_pool = calloc(groups + 1, sizeof *r->first_of_pool);
    if (r->weight == NULL || r->target == NULL || r->first_of_pool == NULL)
        return KAC_FAIL(KAC_ERR_NOMEM, "run: no memory for %d groups", r->all_groups);
    KAC_TRY(kac_number_targets(&r->set, r->all_groups, r->weight, r->target, &r->targets));
    divide_pools(r);
    KAC_TRY(kac_place_groups(r));

    r->objective = kac_objective_of(&r->set);
    for (int term = 0; term < rewards; term++)
        r->objective.term[term].column = kac_rewards_column(r->guide, term);
    r->log_evidence = calloc((size_t)r->targets + 1, sizeof *r->log_evidence);
    r->log_evidence_se = calloc((size_t)r->targets + 1, sizeof *r->log_evidence_se);
    r->evidence_reliable = calloc((size_t)r->targets + 1, sizeof *r->evidence_reliable);
    if (r->log_evidence == NULL || r->log_evidence_se == NULL || r->evidence_reliable == NULL)
        return KAC_FAIL(KAC_ERR_NOMEM, "run: no memory for %d targets", r->targets);
    return KAC_OK;
}
