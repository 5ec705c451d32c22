/* forbidden.c -- samples that have reward -inf, and which bounds of the reward they break. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "run.h"

/* A bound, or NaN. */
static double bound_of(const kac_settings *s, int term, kac_side side)
{
    return side == KAC_AT_LEAST ? s->reward[term].at_least : s->reward[term].at_most;
}

bool kac_bound_name(const kac_settings *s, int term, kac_side side, char *text, size_t size)
{
    char name[KAC_NAME];
    double bound = bound_of(s, term, side);
    if (isnan(bound)) return false;
    kac_term_name(&s->reward[term], name, sizeof name);
    snprintf(text, size, "reward.%d (%s) %s %g", term, name,
             side == KAC_AT_LEAST ? "at_least" : "at_most", bound);
    return true;
}

/* Appends "WHAT: N of ALL" where N is not 0. */
static void append(char *text, size_t size, const char *what, int64_t n, int64_t all)
{
    size_t used = strlen(text);
    if (n > 0)
        snprintf(text + used, size - used, "%s%s: %lld of %lld", used > 0 ? ", " : "", what,
                 (long long)n, (long long)all);
}

/* The forbidden samples that break a bound of a term. */
static int64_t count_outside(const kac_run *r, int term, kac_side side)
{
    int64_t n = 0;
    double bound = bound_of(&r->set, term, side);
    for (int64_t i = 0; i < r->samples_out; i++) {
        double x = r->result_terms[i * r->set.rewards + term];
        if (r->result[i].reward > -HUGE_VAL) continue;
        n += side == KAC_AT_LEAST ? (float)x < (float)bound : (float)x > (float)bound;
    }
    return n;
}

/* The forbidden samples of which a term is not finite, is looked at and breaks no bound. */
static int64_t count_invalid(const kac_run *r, int term)
{
    int64_t n = 0;
    const kac_reward_settings *reward = &r->set.reward[term];
    bool bounded = !isnan(reward->at_least) || !isnan(reward->at_most);
    for (int64_t i = 0; i < r->samples_out && kac_reward_guides(reward); i++) {
        double x = r->result_terms[i * r->set.rewards + term];
        if (r->result[i].reward > -HUGE_VAL || isfinite(x)) continue;
        double weight = kac_reward_weight(reward, r->result[i].group, r->all_groups);
        if (weight == 0 && !bounded) continue;
        n += !(x < reward->at_least) && !(x > reward->at_most);
    }
    return n;
}

/* Samples of one group stand together. */
static int64_t count_groups(const kac_run *r)
{
    int64_t n = 0, latest = -1;
    for (int64_t i = 0; i < r->samples_out; i++) {
        if (r->result[i].reward > -HUGE_VAL || r->result[i].group == latest) continue;
        latest = r->result[i].group;
        n++;
    }
    return n;
}

int64_t kac_run_forbidden(const kac_run *r, int64_t *groups, char *why, size_t size)
{
    char what[KAC_BOUND];
    bool known = r != NULL && r->finished;
    if (groups != NULL) *groups = known ? count_groups(r) : 0;
    if (why == NULL || size == 0) return known ? r->forbidden : 0;
    why[0] = '\0';
    if (!known || r->forbidden == 0) return 0;
    for (int term = 0; term < r->set.rewards; term++) {
        for (int side = 0; side < KAC_SIDES; side++)
            if (kac_bound_name(&r->set, term, (kac_side)side, what, sizeof what))
                append(why, size, what, count_outside(r, term, (kac_side)side), r->forbidden);
        char name[KAC_NAME];
        kac_term_name(&r->set.reward[term], name, sizeof name);
        snprintf(what, sizeof what, "reward.%d (%s) is not finite", term, name);
        append(why, size, what, count_invalid(r, term), r->forbidden);
    }
    return r->forbidden;
}

bool kac_run_could_revive(const kac_run *r)
{
    return r->set.sampler.on_dead != KAC_DEAD_REVIVE && r->span == NULL &&
           kac_can_revive(&r->set);
}
