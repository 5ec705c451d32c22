/* targets.c -- what each group seeks: its weights, and which groups seek the same. */
#include <stdlib.h>
#include <string.h>

#include "run.h"

/* Lists in run.json have a row a target. */
enum { MAX_TARGETS = 4096 };

/* Groups with equal weights have one target, numbered by its first group. */
static kac_status number_targets(kac_run *r)
{
    size_t row = (size_t)r->set.rewards * sizeof *r->weight;
    int32_t first[MAX_TARGETS]; /* group of each target */
    r->targets = 0;
    for (int32_t g = 0; g < r->all_groups; g++) {
        const double *weight = r->weight + (ptrdiff_t)g * r->set.rewards;
        int32_t t = 0;
        while (t < r->targets &&
               memcmp(r->weight + (ptrdiff_t)first[t] * r->set.rewards, weight, row) != 0)
            t++;
        if (t == MAX_TARGETS)
            return KAC_FAIL(KAC_ERR_INVALID,
                            "reward.N.weights: more than %d different weights of groups",
                            (int)MAX_TARGETS);
        if (t == r->targets) first[r->targets++] = g;
        r->target[g] = t;
    }
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
    for (int32_t g = 0; g < r->all_groups; g++)
        for (int term = 0; term < rewards; term++)
            r->weight[(ptrdiff_t)g * rewards + term] =
                kac_reward_weight(&r->set.reward[term], g, r->all_groups);
    KAC_TRY(number_targets(r));
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
