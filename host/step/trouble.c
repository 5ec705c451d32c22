/* trouble.c -- what the device noted that went wrong, on any rank, in a sentence. */
#include <stdio.h>
#include <string.h>

#include "fault.h"
#include "run.h"

/* What may have taken the objects their weight. */
static void list_bounds(const kac_run *r, char *text, size_t size)
{
    size_t used = 0;
    snprintf(text, size, "its objects have reward -inf");
    for (int term = 0; term < r->set.rewards; term++)
        for (int side = 0; side < KAC_SIDES; side++) {
            char bound[KAC_BOUND];
            if (!kac_bound_name(&r->set, term, (kac_side)side, bound, sizeof bound)) continue;
            snprintf(text + used, size - used, "%s%s",
                     used > 0 ? ", " : "its objects are outside the bounds ", bound);
            used += strlen(text + used);
        }
}

/* A pool that has nothing left, by its first group. */
static kac_status report_dead(const kac_run *r, int32_t step, int32_t group)
{
    char bounds[KAC_MAX_TERMS * 2 * KAC_BOUND];
    list_bounds(r, bounds, sizeof bounds);
    return KAC_FAIL(KAC_ERR_NUMERIC,
                    "step %d: every weight of group %d%s is zero (%s%s); sampler.on_dead: "
                    "freeze goes on%s",
                    step, group,
                    r->set.sampler.global ? " and of those that it competes with" : "", bounds,
                    r->set.sampler.invalid_is_worst ? ", or they are invalid" : "",
                    kac_run_could_revive(r) ? "; revive tries for other objects" : "");
}

/* Particles that a group had in step `move`, counted from 1, which a funnel may have made
 * fewer since. */
static int32_t particles_in(const kac_run *r, int32_t move)
{
    if (r->set.sampler.funnel[0] == '\0') return kac_particles_each(r);
    int32_t each = (int32_t)r->set.sampler.particles;
    for (int32_t level = r->steps - 1; level > r->steps - move && level >= 0; level--)
        if (r->funnel[level] > 0) each = r->funnel[level];
    return each;
}

/* Whether step `move`, counted from 1, arrives at level 0. */
static bool ends_a_pass(const kac_run *r, int32_t move)
{
    int32_t first = r->moves - (r->passes - 1) * r->back; /* steps of the first pass */
    return move == first || (move > first && (move - first) % r->back == 0);
}

/* The step of the run that `move` was part of; where a driver searches, one has many. */
static int32_t step_of(const kac_run *r, int32_t move)
{
    int32_t slots = 0, rows = 0;
    if (r->set.driver.kind != KAC_DRIVER_SEARCH) return move;
    return kac_search_step_of(r, move, &slots, &rows);
}

/* The sentence for what the device noted. */
static kac_status report(const kac_run *r, const kac_trouble *fault)
{
    bool in_try = r->revive.levels > 0 && fault->move >= r->moves; /* moves of the last step */
    int32_t step = in_try ? r->moves : step_of(r, fault->move);
    const char *row = in_try ? "try" : "slot";
    if (fault->kind == KAC_FAULT_DEAD)
        return report_dead(r, step, fault->slot / particles_in(r, fault->move));
    if (fault->term < 0)
        return KAC_FAIL(KAC_ERR_NUMERIC, "step %d, %s %d: the denoiser %s gave NaN", step, row,
                        fault->slot, r->set.model.file);
    if (r->value != NULL && !ends_a_pass(r, step))
        return KAC_FAIL(KAC_ERR_NUMERIC, "step %d, %s %d: the value %s gave NaN or infinity",
                        step, row, fault->slot, r->set.sampler.value_file);
    char source[KAC_PATH];
    kac_reward_source(&r->set.reward[fault->term], source, sizeof source);
    return KAC_FAIL(KAC_ERR_NUMERIC,
                    "step %d, %s %d: the reward %s gave NaN or infinity; sampler.on_invalid: "
                    "worst takes such objects as the worst",
                    step, row, fault->slot, source);
}

/* A slot of this rank, or of its rows where a driver searches, counted through all ranks. */
static int32_t slot_among_all(const kac_run *r, const kac_trouble *own)
{
    int32_t slots = 0, rows = 0;
    if (r->set.driver.kind != KAC_DRIVER_SEARCH)
        return own->slot + r->first * particles_in(r, own->move);
    (void)kac_search_step_of(r, own->move, &slots, &rows);
    return own->slot / rows + r->first * slots;
}

/* What the device of any rank noted first, its slot counted through all ranks.  Errors:
 * DEVICE, and those of kac_ranks_agree. */
static kac_status first_trouble(const kac_run *r, kac_trouble *out)
{
    kac_fault fault = {0};
    kac_status status = r->dev->ops->memory.download(r->dev, &fault, r->fault, sizeof fault);
    kac_trouble own = kac_fault_read(fault);
    if (own.kind != KAC_FAULT_NONE) {
        own.slot = slot_among_all(r, &own);
        fault.number = kac_fault_number(own);
    }
    /* The largest number comes first; votes have a sign, whose bit is turned over. */
    int64_t vote = (int64_t)(fault.number ^ UINT64_C(1) << 63);
    KAC_TRY(kac_ranks_agree(r->ranks, status, &vote, 1));
    *out = kac_fault_read((kac_fault){(uint64_t)vote ^ UINT64_C(1) << 63});
    return KAC_OK;
}

kac_status kac_find_trouble(const kac_run *r)
{
    kac_trouble trouble;
    KAC_TRY(first_trouble(r, &trouble));
    return trouble.kind == KAC_FAULT_NONE ? KAC_OK : report(r, &trouble);
}
