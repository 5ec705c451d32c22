/* run.c -- a run's memory, its trace, and the public functions around the step. */
#include "run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "device.h"
#include "particles.h"
#include "process.h"
#include "settings.h"

static const int32_t default_batch = 1024;

double kac_now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void kac_lap(kac_run *r, kac_phase phase)
{
    double now = kac_now();
    r->seconds[phase] += now - r->lap;
    r->lap = now;
}

/* Device memory that lives as long as the run; after a failure gives NULL and counts on. */
static void *take(kac_run *r, int64_t count, size_t size)
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

static kac_particles take_particles(kac_run *r, int32_t n)
{
    return (kac_particles){
        .n = n,
        .stride = r->shape.stride,
        .x = take(r, n, (size_t)r->shape.stride),
        .log_w = take(r, n, sizeof(double)),
        .bank = take(r, n, sizeof(double)),
        .stat = take(r, n, sizeof(double)),
        .value = take(r, n, sizeof(double)),
        .ratio = take(r, n, sizeof(double)),
        .entry = take(r, n, sizeof(int32_t)),
        .eve = take(r, n, sizeof(int32_t)),
        .group = take(r, n, sizeof(int32_t)),
    };
}

static kac_status open_networks(kac_run *r)
{
    const kac_settings *s = &r->set;
    KAC_TRY(kac_device_open(s->device.name, s->device.isa, &r->dev));
    r->process = r->vectors ? &r->dev->ops->gaussian : &r->dev->ops->masked;
    KAC_TRY(kac_network_open(r->dev, s->model.file, KAC_ROLE_DENOISER, &r->denoiser));
    if (r->denoiser->arch->vectors != r->vectors)
        return KAC_FAIL(KAC_ERR_INVALID, "process.kind: %s is a %s, which goes with %s",
                        s->model.file, r->denoiser->arch->name,
                        r->vectors ? "masked" : "gaussian");

    int64_t length = s->process.length != 0 ? s->process.length : r->denoiser->length;
    if (length == 0)
        return KAC_FAIL(KAC_ERR_INVALID, "process.length is needed: %s does not say its own",
                        s->model.file);
    KAC_TRY(kac_network_check_length(r->denoiser, (int32_t)length));
    int64_t bytes = r->vectors ? length * s->process.order * (int64_t)sizeof(float) : length;
    r->shape =
        (kac_shape){(int32_t)length, r->denoiser->states, (int32_t)((bytes + 15) / 16 * 16)};
    r->slot_floats = r->shape.length * r->shape.states;

    kac_rewards_config rewards = {
        .settings = s,
        .alphabet = r->denoiser->alphabet,
        .vectors = r->vectors,
        .pulls = kac_twist_is_on(r),
        .shape = r->shape,
        .batch = r->batch,
        .expected = (int64_t)r->n * r->children * r->samples * r->steps,
        .reuse = s->sampler.reuse,
    };
    KAC_TRY(kac_rewards_open(r->dev, &rewards, &r->guide));
    rewards.judge = true;
    rewards.pulls = false;
    KAC_TRY(kac_rewards_open(r->dev, &rewards, &r->judge));

    const char *refuses = "";
    if (s->sampler.value == KAC_VALUE_POSTERIOR_MEAN &&
        s->sampler.estimate == KAC_ESTIMATE_SOFT && !kac_rewards_soft(r->guide, &refuses))
        return KAC_FAIL(KAC_ERR_INVALID,
                        "sampler.value.estimate soft: %s does not take probabilities; use "
                        "argmax or sample",
                        refuses);
    return kac_twist_check(r);
}

/* Terms are columns of samples.csv, so no two may have one name. */
static kac_status check_names(const kac_settings *s)
{
    char name[KAC_NAME], other[KAC_NAME];
    for (int i = 0; i < s->rewards; i++)
        for (int j = 0; j < i; j++) {
            kac_term_name(&s->reward[i], name, sizeof name);
            kac_term_name(&s->reward[j], other, sizeof other);
            if (strcmp(name, other) == 0)
                return KAC_FAIL(
                    KAC_ERR_INVALID,
                    "reward.%d.name: rewards %d and %d are both called %s; give one "
                    "another name",
                    i, j, i, name);
        }
    return KAC_OK;
}

/* Takes the memory of evaluations. */
static kac_status open_evaluations(kac_run *r)
{
    int64_t rows = (int64_t)r->y.n * r->samples;
    int64_t slots =
        (r->set.device.cache << 20) / ((int64_t)r->slot_floats * (int64_t)sizeof(float));
    int64_t most = (int64_t)r->n + r->y.n;
    int32_t columns = kac_rewards_columns(r->guide);
    slots = slots < r->n ? r->n : slots > most ? most : slots;

    kac_memo_size evals = {.capacity = (int32_t)most,
                           .stride = r->shape.stride,
                           .slots = (int32_t)slots,
                           .spare = r->batch,
                           .slot_floats = r->slot_floats,
                           .n_terms = columns,
                           .reuse = r->set.sampler.reuse};
    kac_memo_size census = {.capacity = r->n, .stride = r->shape.stride, .reuse = 1};
    KAC_TRY(kac_memo_open(r->dev, &evals, &r->evals));
    KAC_TRY(kac_memo_open(r->dev, &census, &r->census));
    KAC_TRY(kac_fresh_open(r->dev, r->y.n, &r->fresh));
    KAC_TRY(kac_fresh_open(r->dev, r->n, &r->census_fresh));

    r->jobs = (kac_jobs){take(r, r->batch, sizeof(int32_t)), take(r, r->batch, sizeof(int32_t)),
                         take(r, 1, sizeof(int32_t)), r->batch};
    r->completion = take(r, rows > r->batch ? rows : r->batch, (size_t)r->shape.stride);
    if (r->set.sampler.estimate == KAC_ESTIMATE_SOFT)
        r->soft = take(r, r->batch, (size_t)r->slot_floats * sizeof(float));
    r->batch_terms = take(r, r->batch, (size_t)columns * sizeof(float));
    r->terms = take(r, rows, (size_t)columns * sizeof(float));
    r->judge_terms = take(r, r->n, (size_t)kac_rewards_columns(r->judge) * sizeof(float));
    r->census_entry = take(r, r->n, sizeof(int32_t));
    r->made = take(r, 2, sizeof(int64_t));
    if (kac_twist_is_on(r)) {
        r->slot = take(r, r->n, sizeof(int32_t));
        r->row = take(r, r->n, sizeof(int32_t));
        r->pulled = take(r, r->batch, (size_t)r->slot_floats * sizeof(float));
        r->tilt = take(r, r->n, (size_t)r->slot_floats * sizeof(float));
    }
    return KAC_OK;
}

/* Both stages of selection, and the memory they write. */
static void open_selection(kac_run *r)
{
    const kac_settings *s = &r->set;
    int64_t candidates = (int64_t)r->n * r->keep;
    r->select = (kac_select_args){
        .clock = r->clock,
        .levels = r->levels,
        .groups = r->group,
        .pool_first = r->pool_first,
        .pools = r->pools,
        .seed = s->seed,
        .x = &r->x,
        .y = &r->y,
        .children = r->children,
        .parent_rule = s->sampler.parent_rule,
        .keep_normaliser = s->sampler.keep_normaliser,
        .keep = r->keep,
        .group_rule = s->sampler.group_rule,
        .scheme = s->sampler.scheme,
        .below = (int32_t)lround(s->sampler.below * 65536),
        .dead_is_error = s->sampler.dead_is_error,
        .fault = r->fault,
        .pick = take(r, candidates, sizeof(int32_t)),
        .pick_w = take(r, candidates, sizeof(double)),
        .weight = take(r, candidates, sizeof(uint64_t)),
        .offspring = take(r, candidates, sizeof(int32_t)),
        .chosen = take(r, r->n, sizeof(int32_t)),
        .log_w = r->x.log_w,
    };
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
    KAC_TRY_DONE(r->vectors ? kac_gaussian_levels(&r->set, levels)
                            : kac_masked_levels(&r->set, levels));
    if (r->denoiser->reads_time && !isfinite(levels[r->steps].sigma)) {
        status =
            KAC_FAIL(KAC_ERR_INVALID,
                     "process: the noise level of t = %g is infinite, and %s reads it; with "
                     "epsilon (or begin, in schedule flow) above 0 it is not",
                     levels[r->steps].t, r->set.model.file);
        goto done;
    }
    kac_temper_levels(&r->set, levels);
    kac_trigger_levels(&r->set, levels);
    KAC_TRY_DONE(op->upload(r->dev, r->levels, levels, count * sizeof *levels));
    KAC_TRY_DONE(op->upload(r->dev, r->clock, &clock, sizeof clock));
done:
    free(levels);
    return status;
}

/* The table of groups, which of them select together, and how each weighs the reward's terms.
 */
static kac_status start_groups(kac_run *r)
{
    const kac_memory_ops *op = &r->dev->ops->memory;
    const kac_settings *s = &r->set;
    size_t groups = (size_t)r->groups;
    size_t pools = (size_t)r->pools;
    size_t columns = (size_t)kac_rewards_columns(r->guide);
    int32_t each = (int32_t)s->sampler.particles;
    kac_status status = KAC_OK;

    kac_group *group = calloc(groups, sizeof *group);
    int32_t *first = calloc(pools + 1, sizeof *first);
    double *weight = calloc(groups * columns + 1, sizeof *weight);
    if (!group || !first || !weight) {
        status = KAC_FAIL(KAC_ERR_NOMEM, "run: no memory for %d groups", r->groups);
        goto done;
    }
    for (int32_t g = 0; g < r->groups; g++) {
        group[g] = (kac_group){
            .offset = g * each, .count = each, .id = g, .alpha = s->sampler.alpha, .ess = 1};
        group[g].lambda = s->sampler.temper == KAC_TEMPERING_NONE ? 1 : 0;
        for (int term = 0; term < s->rewards; term++) {
            int32_t column = kac_rewards_column(r->guide, term);
            if (column >= 0)
                weight[(size_t)g * columns + (size_t)column] += s->reward[term].weight;
        }
    }
    for (int32_t p = 0; p <= r->pools; p++)
        first[p] = s->sampler.global ? p * r->groups : p;
    KAC_TRY_DONE(op->upload(r->dev, r->group, group, groups * sizeof *group));
    KAC_TRY_DONE(op->upload(r->dev, r->pool_first, first, (pools + 1) * sizeof *first));
    KAC_TRY_DONE(
        op->upload(r->dev, r->group_weight, weight, groups * columns * sizeof *weight));
done:
    free(group);
    free(first);
    free(weight);
    return status;
}

/* Pure noise, equal weights, banks at zero, nothing evaluated. */
static kac_status start_particles(kac_run *r)
{
    const kac_ops *op = r->dev->ops;
    const kac_settings *s = &r->set;
    size_t n = (size_t)r->n;
    kac_status status = KAC_OK;

    int32_t *eve = calloc(n, sizeof *eve);
    int32_t *group = calloc(n, sizeof *group);
    double *stat = calloc(n, sizeof *stat);
    if (!eve || !group || !stat) {
        status = KAC_FAIL(KAC_ERR_NOMEM, "run: no memory for %d particles", r->n);
        goto done;
    }
    for (int32_t i = 0; i < r->n; i++) {
        eve[i] = i;
        group[i] = i / (int32_t)r->set.sampler.particles;
        stat[i] = kac_stat_start(r->set.sampler.potential);
    }
    KAC_TRY_DONE(op->memory.upload(r->dev, r->x.eve, eve, n * sizeof *eve));
    KAC_TRY_DONE(op->memory.upload(r->dev, r->x.group, group, n * sizeof *group));
    KAC_TRY_DONE(op->memory.upload(r->dev, r->x.stat, stat, n * sizeof *stat));
    if (kac_twist_is_on(r)) /* the table of first ancestors counts 0, 1, ... too */
        KAC_TRY_DONE(op->memory.upload(r->dev, r->row, eve, n * sizeof *eve));
    KAC_TRY_DONE(op->states.forget(r->dev, r->x.entry, r->n));
    kac_start_args start = {.shape = r->shape,
                            .levels = r->levels,
                            .clock = r->clock,
                            .groups = r->group,
                            .group = r->x.group,
                            .seed = s->seed,
                            .n = r->n};
    status = r->process->start(r->dev, &start, r->x.x);
done:
    free(eve);
    free(group);
    free(stat);
    return status;
}

static kac_status open_run(kac_run *r)
{
    const kac_settings *s = &r->set;
    r->vectors = s->process.kind == KAC_PROCESS_GAUSSIAN;
    r->steps = (int32_t)s->process.steps;
    r->groups = (int32_t)s->sampler.groups;
    r->n = (int32_t)(s->sampler.groups * s->sampler.particles);
    r->children = (int32_t)s->sampler.children;
    r->samples = s->sampler.value == KAC_VALUE_POSTERIOR_MEAN &&
                         s->sampler.estimate == KAC_ESTIMATE_SAMPLE
                     ? (int32_t)s->sampler.samples
                     : 1;
    r->keep = s->sampler.parent_rule == KAC_RULE_NONE    ? r->children
              : s->sampler.parent_rule == KAC_RULE_TOP_K ? (int32_t)s->sampler.parent_keep
                                                         : 1;
    r->pools = s->sampler.global ? 1 : r->groups;
    r->weighted = kac_properly_weighted(s);
    int64_t rows = (int64_t)r->n * r->children;
    int64_t batch = s->device.batch != 0 ? s->device.batch : default_batch;
    r->batch = (int32_t)(batch < rows ? batch : rows);

    KAC_TRY(check_names(s));
    KAC_TRY(open_networks(r));
    r->levels = take(r, r->steps + 1, sizeof *r->levels);
    r->clock = take(r, 1, sizeof *r->clock);
    r->group = take(r, r->groups, sizeof *r->group);
    r->pool_first = take(r, r->pools + 1, sizeof *r->pool_first);
    r->group_weight =
        take(r, (int64_t)r->groups * kac_rewards_columns(r->guide), sizeof *r->group_weight);
    r->x = take_particles(r, r->n);
    r->y = take_particles(r, (int32_t)rows);
    r->fault = take(r, 1, sizeof *r->fault);
    r->scratch = take(r, r->n, sizeof *r->scratch);
    KAC_TRY(open_evaluations(r));
    open_selection(r);
    r->line = calloc((size_t)r->steps, sizeof *r->line);
    r->sort = calloc((size_t)r->n, sizeof *r->sort);
    r->host_group = calloc((size_t)r->groups, sizeof *r->host_group);
    r->host_eve = calloc((size_t)r->n, sizeof *r->host_eve);
    if (r->short_of_memory) return KAC_ERR_NOMEM; /* alloc left the sentence */
    if (r->line == NULL || r->sort == NULL || r->host_group == NULL || r->host_eve == NULL)
        return KAC_FAIL(KAC_ERR_NOMEM, "run: no memory for the trace of %d steps", r->steps);
    KAC_TRY(start_levels(r));
    KAC_TRY(start_groups(r));
    return start_particles(r);
}

kac_status kac_run_create(const kac_config *config, kac_run **out)
{
    KAC_REQUIRE(config != NULL && out != NULL);
    kac_status status = KAC_OK;
    kac_run *r = calloc(1, sizeof *r);
    if (r == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "run: no memory");
    r->began = r->lap = kac_now();
    KAC_TRY_DONE(kac_config_settings(config, &r->set));
    KAC_TRY_DONE(kac_config_clone(config, &r->config));
#ifdef _OPENMP
    if (r->set.device.threads > 0) omp_set_num_threads((int)r->set.device.threads);
#endif
    KAC_TRY_DONE(open_run(r));
done:
    if (status != KAC_OK) {
        kac_run_destroy(r);
        return status;
    }
    *out = r;
    return KAC_OK;
}

void kac_run_destroy(kac_run *r)
{
    if (r == NULL) return;
    if (r->dev != NULL) {
        for (int i = 0; i < r->owned_count; i++)
            r->dev->ops->memory.release(r->dev, r->owned[i]);
        kac_memo_close(r->dev, &r->evals);
        kac_memo_close(r->dev, &r->census);
        kac_fresh_close(r->dev, &r->fresh);
        kac_fresh_close(r->dev, &r->census_fresh);
        kac_network_close(r->denoiser);
        kac_rewards_close(r->guide);
        kac_rewards_close(r->judge);
        kac_device_close(r->dev);
    }
    kac_config_destroy(r->config);
    free(r->line);
    free(r->sort);
    free(r->host_group);
    free(r->host_eve);
    free(r->result);
    free(r->result_terms);
    free(r->text);
    free(r);
}

int64_t kac_run_steps(const kac_run *r)
{
    return r->steps;
}

/* ---- what happened -------------------------------------------------------------------------
 */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

double kac_quantile(const double *sorted, int64_t n, double share)
{
    double at = share * (double)(n - 1);
    int64_t below = (int64_t)at;
    int64_t above = below + 1 < n ? below + 1 : below;
    double weight = at - (double)below;
    if (weight == 0) return sorted[below]; /* infinities stay what they are */
    return sorted[below] + weight * (sorted[above] - sorted[below]);
}

void kac_sort(double *values, int64_t n)
{
    qsort(values, (size_t)n, sizeof *values, ascending);
}

/* The sentence for what the device noted. */
static kac_status report(const kac_run *r, const kac_fault *fault)
{
    int32_t step = r->steps - fault->level;
    if (fault->kind == KAC_FAULT_DEAD)
        return KAC_FAIL(KAC_ERR_NUMERIC,
                        "step %d: every weight of the group at slot %d is zero; "
                        "sampler.on_dead: freeze carries on without it",
                        step, fault->slot);
    if (fault->term < 0)
        return KAC_FAIL(KAC_ERR_NUMERIC, "step %d, slot %d: the denoiser %s gave NaN", step,
                        fault->slot, r->set.model.file);
    const char *file = "reward";
    for (int term = 0; term < r->set.rewards; term++)
        if (kac_rewards_column(r->guide, term) == fault->term) file = r->set.reward[term].file;
    return KAC_FAIL(KAC_ERR_NUMERIC,
                    "step %d, slot %d: the reward %s gave NaN or infinity; sampler.on_invalid: "
                    "worst takes such objects as the worst",
                    step, fault->slot, file);
}

/* Distinct states in the population, the same with and without reuse. */
static kac_status count_distinct(kac_run *r, int64_t *out)
{
    const kac_ops *op = r->dev->ops;
    kac_rows rows = {r->x.x, NULL, 0, r->n};
    int32_t count = 0;
    KAC_TRY(op->states.clear(r->dev, &r->census));
    KAC_TRY(op->states.forget(r->dev, r->census_entry, r->n));
    KAC_TRY(
        op->states.find(r->dev, &r->census, &rows, r->census_entry, &r->census_fresh, NULL));
    KAC_TRY(op->memory.download(r->dev, &count, r->census_fresh.count, sizeof count));
    *out = count;
    return KAC_OK;
}

static int by_number(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a;
    int32_t y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* Sorts `eve`, and counts its distinct values. */
static int32_t count_eves(int32_t *eve, int32_t n)
{
    int32_t eves = 0;
    qsort(eve, (size_t)n, sizeof *eve, by_number);
    for (int32_t i = 0; i < n; i++)
        eves += i == 0 || eve[i] != eve[i - 1];
    return eves;
}

static kac_status fill_line(kac_run *r, kac_line *line)
{
    const kac_memory_ops *op = &r->dev->ops->memory;
    kac_progress *p = &line->progress;
    kac_level level = {0};
    int64_t made[2];

    KAC_TRY(op->download(r->dev, made, r->made, sizeof made));
    r->calls.denoiser_made = made[0];
    r->calls.reward_made = made[1] * kac_rewards_networks(r->guide);
    KAC_TRY(op->download(r->dev, r->host_group, r->group,
                         (size_t)r->groups * sizeof *r->host_group));
    KAC_TRY(op->download(r->dev, r->sort, r->x.value, (size_t)r->n * sizeof *r->sort));
    KAC_TRY(op->download(r->dev, r->host_eve, r->x.eve, (size_t)r->n * sizeof *r->host_eve));
    KAC_TRY(op->download(r->dev, &level, &r->levels[r->steps - r->step], sizeof level));
    KAC_TRY(count_distinct(r, &p->distinct));

    kac_sort(r->sort, r->n);
    line->eves = count_eves(r->host_eve, r->n);
    line->ess_least = HUGE_VAL;
    for (int32_t g = 0; g < r->groups; g++) {
        double ess = r->host_group[g].ess;
        p->ess += ess / r->groups;
        p->selected += r->host_group[g].selected;
        if (ess < line->ess_least) line->ess_least = ess;
    }
    for (int i = 0; i < 3; i++)
        p->value[i] = kac_quantile(r->sort, r->n, (double[]){0.1, 0.5, 0.9}[i]);
    p->step = r->step;
    p->denoiser_calls = r->calls.denoiser_made;
    p->denoiser_saved = r->calls.denoiser_asked - r->calls.denoiser_made;
    p->reward_calls = r->calls.reward_made;
    p->reward_saved = r->calls.reward_asked - r->calls.reward_made;
    p->seconds = kac_now() - r->began;
    line->t = level.t;
    line->lap = p->seconds - (r->lines > 0 ? r->line[r->lines - 1].progress.seconds : 0);
    return KAC_OK;
}

kac_status kac_record(kac_run *r)
{
    kac_line line = {0};
    if (r->lines > 0 && r->line[r->lines - 1].progress.step == r->step) return KAC_OK;
    KAC_TRY(fill_line(r, &line));
    r->line[r->lines++] = line;
    kac_lap(r, KAC_PHASE_OTHER);
    return KAC_OK;
}

kac_status kac_run_sync(kac_run *r, kac_progress *out)
{
    KAC_REQUIRE(r != NULL);
    kac_fault fault;
    KAC_TRY(r->dev->ops->memory.download(r->dev, &fault, r->fault, sizeof fault));
    if (fault.kind != KAC_FAULT_NONE) return report(r, &fault);
    if (r->step > 0) KAC_TRY(kac_record(r));
    if (out != NULL)
        *out = r->lines > 0 ? r->line[r->lines - 1].progress : (kac_progress){.ess = 1};
    return KAC_OK;
}
