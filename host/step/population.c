/* population.c -- the memory of particles, their evaluations and selection. */
#include <math.h>
#include <stdlib.h>

#include "run.h"

void *kac_take(kac_run *r, int64_t count, size_t size)
{
    void *ptr = NULL;
    if (r->owned_count < (int)(sizeof r->owned / sizeof *r->owned))
        ptr = r->dev->ops->memory.alloc(r->dev, (size_t)count * size);
    if (ptr != NULL)
        r->owned[r->owned_count++] = ptr;
    else
        r->short_of_memory = true;
    return ptr;
}

kac_particles kac_take_columns(kac_run *r, int32_t n)
{
    return (kac_particles){
        .n = n,
        .log_w = kac_take(r, n, sizeof(double)),
        .bank = kac_take(r, n, sizeof(double)),
        .stat = kac_take(r, n, sizeof(double)),
        .value = kac_take(r, n, sizeof(double)),
        .ratio = kac_take(r, n, sizeof(double)),
        .entry = kac_take(r, n, sizeof(int32_t)),
        .eve = kac_take(r, n, sizeof(int32_t)),
        .group = kac_take(r, n, sizeof(int32_t)),
    };
}

kac_particles kac_take_particles(kac_run *r, int32_t n)
{
    kac_particles p = kac_take_columns(r, n);
    p.stride = r->shape.stride;
    p.x = kac_take(r, n, (size_t)p.stride);
    return p;
}

static void take_twist(kac_run *r)
{
    size_t row = (size_t)r->slot_floats * sizeof(float);
    size_t wide = row + (size_t)r->shape.length * sizeof(float);
    if (r->set.sampler.twist == KAC_TWIST_NONE) return;
    r->twist.tilt = kac_take(r, r->n, row);
    r->twist.soft = kac_take(r, r->batch, row);
    r->twist.reward = kac_take(r, r->batch, row);
    if (r->set.sampler.twist == KAC_TWIST_VALUE ||
        r->set.sampler.twist_path == KAC_TWIST_DIRECT)
        return;
    r->twist.slope = kac_take(r, r->batch, row);
    r->twist.input = kac_take(r, r->batch, wide);
    if (r->unconditional != NULL) r->twist.other = kac_take(r, r->batch, wide);
}

/* Takes the memory of evaluations. */
static kac_status open_evaluations(kac_run *r)
{
    int64_t rows = (int64_t)r->most.children * r->samples;
    int64_t slots =
        (r->set.device.cache << 20) / ((int64_t)r->memo_floats * (int64_t)sizeof(float));
    int64_t most = r->most.entries;
    int32_t columns = kac_rewards_columns(r->guide);
    slots = slots > most ? most : slots;
    slots = slots < r->most.parents ? r->most.parents : slots;

    kac_memo_size evals = {.capacity = (int32_t)most,
                           .stride = r->shape.stride,
                           .slots = (int32_t)slots,
                           .spare = r->batch,
                           .slot_floats = r->memo_floats,
                           .n_terms = columns,
                           .reuse = r->set.sampler.reuse};
    kac_memo_size census = {.capacity = r->n, .stride = r->shape.stride, .reuse = 1};
    KAC_TRY(kac_memo_open(r->dev, &evals, &r->evals));
    KAC_TRY(kac_memo_open(r->dev, &census, &r->census));
    KAC_TRY(kac_fresh_open(r->dev, r->most.children, &r->fresh));
    KAC_TRY(kac_fresh_open(r->dev, r->n, &r->census_fresh));

    r->jobs = (kac_jobs){kac_take(r, r->batch, sizeof(int32_t)),
                         kac_take(r, r->batch, sizeof(int32_t)),
                         kac_take(r, 1, sizeof(int32_t)), r->batch};
    r->completion = kac_take(r, rows > r->batch ? rows : r->batch, (size_t)r->shape.stride);
    if (r->set.sampler.value == KAC_VALUE_POSTERIOR_MEAN &&
        r->set.sampler.estimate == KAC_ESTIMATE_SOFT)
        r->soft = kac_take(r, r->batch, (size_t)r->slot_floats * sizeof(float));
    if (r->unconditional != NULL)
        r->other = kac_take(r, r->batch, (size_t)r->slot_floats * sizeof(float));
    r->batch_terms = kac_take(r, r->batch, (size_t)columns * sizeof(float));
    r->terms = kac_take(r, rows, (size_t)columns * sizeof(float));
    r->judge_terms = kac_take(r, r->n, (size_t)kac_rewards_columns(r->judge) * sizeof(float));
    r->census_entry = kac_take(r, r->n, sizeof(int32_t));
    r->made = kac_part_take(
        r, "", "made", (kac_part){.count = 4, .size = sizeof(int64_t), .share = KAC_PART_SUM});
    take_twist(r);
    return KAC_OK;
}

/* Both stages of selection, and the memory they write. */
static void open_selection(kac_run *r)
{
    const kac_settings *s = &r->set;
    kac_selected of = kac_selected_of(r);
    int64_t candidates = (int64_t)of.x->n * r->keep;
    r->select = (kac_select_args){
        .clock = r->clock,
        .levels = r->levels,
        .groups = of.groups,
        .pool_first = r->pool_first,
        .pools = r->pools,
        .seed = s->seed,
        .x = of.x,
        .y = of.y,
        .children = r->children,
        .parent_rule = s->sampler.parent_rule,
        .keep_normaliser = s->sampler.keep_normaliser,
        .keep = r->keep,
        .group_rule = s->sampler.group_rule,
        .scheme = s->sampler.scheme,
        .weights = s->sampler.weights,
        .fraction = s->sampler.fraction,
        .below = (int32_t)lround(s->sampler.below * 65536),
        .dead_is_error = s->sampler.on_dead == KAC_DEAD_ERROR,
        .fault = r->fault,
        .pick = kac_take(r, candidates, sizeof(int32_t)),
        .pick_w = kac_take(r, candidates, sizeof(double)),
        .weight = kac_take(r, candidates, sizeof(uint64_t)),
        .offspring = kac_take(r, candidates, sizeof(int32_t)),
        .chosen = kac_take(r, of.x->n, sizeof(int32_t)),
        .log_w = of.x->log_w,
    };
}

/* The groups and particles as parts of the run: what selection sees of them, and this rank's
 * states. */
static void add_population(kac_run *r)
{
    kac_selected of = kac_selected_of(r);
    kac_particles x = *of.x;
    x.x = r->x.x;
    x.stride = r->x.stride;
    x.entry = r->x.entry;
    kac_part_add(r, "", "groups",
                 (kac_part){.data = of.groups,
                            .count = kac_groups_here(r),
                            .size = sizeof *of.groups,
                            .share = KAC_PART_GROUPS});
    kac_part_add_particles(r, "particles", &x, &of.x->n);
}

/* What the host has of them. */
static kac_status take_host(kac_run *r)
{
    r->funnel = calloc((size_t)r->steps + 1, sizeof *r->funnel);
    r->draws = calloc((size_t)r->steps + 1, sizeof *r->draws);
    r->sort = calloc((size_t)r->n, sizeof *r->sort);
    r->host_group = calloc((size_t)kac_groups_here(r), sizeof *r->host_group);
    if (r->funnel == NULL || r->draws == NULL || r->sort == NULL || r->host_group == NULL)
        return KAC_FAIL(KAC_ERR_NOMEM, "run: no memory for %d particles", r->n);
    return KAC_OK;
}

kac_status kac_take_population(kac_run *r)
{
    r->levels = kac_take(r, r->steps + 1, sizeof *r->levels);
    r->clock = kac_part_take(
        r, "", "clock",
        (kac_part){.count = 1, .size = sizeof *r->clock, .share = KAC_PART_ALIKE});
    r->group = kac_take(r, r->groups, sizeof *r->group);
    r->pool_first = kac_take(r, r->pools + 1, sizeof *r->pool_first);
    r->group_weight = kac_take(r, (int64_t)r->groups * r->set.rewards, sizeof *r->group_weight);
    if (r->value != NULL || r->classifier != NULL)
        r->value_weight = kac_take(r, r->groups, sizeof *r->value_weight);
    r->x = kac_take_particles(r, r->n);
    r->y = kac_take_particles(r, r->most.children);
    r->fault = kac_take(r, 1, sizeof *r->fault);
    r->scratch = kac_take(r, r->n, sizeof *r->scratch);
    KAC_TRY(open_evaluations(r));
    if (r->span != NULL) KAC_TRY(kac_span_open(r));
    add_population(r);
    open_selection(r);
    kac_revive_open(r);
    return take_host(r);
}
