/* run.c -- a run's memory, its trace, and the public functions around the step. */
#include "run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "budget.h"
#include "device.h"
#include "fault.h"
#include "particles.h"
#include "pilot.h"
#include "process.h"
#include "settings.h"
#include "summary.h"

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

int kac_run_denoisers(const kac_run *r)
{
    return r->unconditional != NULL ? 2 : 1;
}

static kac_status open_denoiser(kac_run *r)
{
    const kac_settings *s = &r->set;
    kac_plugin_spec spec = {
        .role = KAC_ROLE_DENOISER, .path = s->model.file, .options = s->model.options};
    if (s->model.plugin) return kac_plugin_open(r->dev, &spec, &r->denoiser);
    return kac_network_open(r->dev, s->model.file, KAC_ROLE_DENOISER, &r->denoiser);
}

/* The second denoiser, of classifier-free guidance or a product. */
static kac_status open_unconditional(kac_run *r)
{
    const char *file = r->set.model.unconditional;
    if (file[0] == '\0') return KAC_OK;
    KAC_TRY(kac_network_open(r->dev, file, KAC_ROLE_DENOISER, &r->unconditional));
    r->reads_time |= r->unconditional->reads_time;
    if (r->unconditional->arch->vectors != r->vectors || r->unconditional->arch->scores)
        return KAC_FAIL(KAC_ERR_INVALID, "model.unconditional: %s is a %s, and %s a %s", file,
                        r->unconditional->arch->name, r->set.model.file,
                        r->denoiser->arch->name);
    if (strcmp(r->unconditional->alphabet, r->denoiser->alphabet) == 0) return KAC_OK;
    return KAC_FAIL(KAC_ERR_INVALID,
                    "model.unconditional: %s has the letters %s, and %s has %s", file,
                    r->unconditional->alphabet, r->set.model.file, r->denoiser->alphabet);
}

/* The guide, the judges, and the networks of values; and whether they take what they will be
 * given.  How many steps there are is known by now. */
static kac_status open_rewards(kac_run *r)
{
    const kac_settings *s = &r->set;
    kac_rewards_config rewards = {
        .settings = s,
        .form = &r->form,
        .vectors = r->vectors,
        .batch = r->batch,
        .expected = (int64_t)r->most.children * r->samples * r->moves,
        .reuse = s->sampler.reuse,
    };
    kac_rewards_config judges = rewards;
    judges.judge = true;
    judges.expected = (int64_t)r->n * r->passes; /* finished objects */
    KAC_TRY(kac_rewards_open(r->dev, &rewards, &r->guide));
    KAC_TRY(kac_rewards_open(r->dev, &judges, &r->judge));
    if (s->sampler.value == KAC_VALUE_LEARNED) {
        rewards.value = s->sampler.value_file;
        KAC_TRY(kac_rewards_open(r->dev, &rewards, &r->value));
    }
    if (s->sampler.twist == KAC_TWIST_VALUE) {
        rewards.value = s->sampler.value_file;
        KAC_TRY(kac_rewards_open(r->dev, &rewards, &r->classifier));
    }

    const char *refuses = "";
    if (s->sampler.twist == KAC_TWIST_POSTERIOR_MEAN && !kac_rewards_soft(r->guide, &refuses))
        return KAC_FAIL(KAC_ERR_INVALID,
                        "sampler.twist.kind: %s does not take probabilities, so it has no "
                        "gradient",
                        refuses);
    if (s->sampler.twist == KAC_TWIST_POSTERIOR_MEAN &&
        !kac_rewards_have_gradients(r->guide, &refuses))
        return KAC_FAIL(KAC_ERR_INVALID,
                        "sampler.twist.kind: %s has no gradient; use kind none, or leave this "
                        "reward without weight and bounds",
                        refuses);
    if (s->sampler.value == KAC_VALUE_POSTERIOR_MEAN &&
        s->sampler.estimate == KAC_ESTIMATE_SOFT && !kac_rewards_soft(r->guide, &refuses))
        return KAC_FAIL(KAC_ERR_INVALID,
                        "sampler.value.estimate soft: %s does not take probabilities; use "
                        "argmax or sample",
                        refuses);
    if (s->sampler.value == KAC_VALUE_STATE && !r->vectors && kac_rewards_workers(r->guide) > 0)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "sampler.value.kind state: a worker reads whole objects, none with "
                        "masked letters; use posterior_mean");
    return KAC_OK;
}

/* The operations of the process, and whether the denoiser is one of it. */
static kac_status choose_process(kac_run *r)
{
    const kac_arch *arch = r->denoiser->arch;
    bool graphs = r->denoiser->graph.nodes > 0, fits = false;
    switch (r->set.process.kind) {
    case KAC_PROCESS_MASKED:
        r->process = &r->dev->ops->masked;
        fits = !arch->vectors;
        break;
    case KAC_PROCESS_GAUSSIAN:
        r->process = &r->dev->ops->gaussian;
        fits = arch->vectors && !arch->scores;
        break;
    case KAC_PROCESS_GRAPH:
        r->process = &r->dev->ops->graph;
        fits = graphs;
        break;
    }
    if (fits) return KAC_OK;
    return KAC_FAIL(KAC_ERR_INVALID, "process.kind: %s is a %s, which goes with %s",
                    r->set.model.file, arch->name,
                    !arch->vectors  ? "masked"
                    : !arch->scores ? "gaussian, or graph where its metadata names kac.nodes"
                                    : "graph");
}

/* The levels of the process. */
static kac_status fill_levels(const kac_run *r, kac_level *levels)
{
    switch (r->set.process.kind) {
    case KAC_PROCESS_MASKED: return kac_masked_levels(&r->set, levels);
    case KAC_PROCESS_GAUSSIAN: return kac_gaussian_levels(&r->set, levels);
    case KAC_PROCESS_GRAPH: return kac_graph_levels(&r->set, &r->denoiser->graph, levels);
    }
    return KAC_OK;
}

/* Whether graphs are molecules, and of what. */
static kac_status open_chemistry(kac_run *r)
{
    const char *given = r->set.process.atoms, *file = r->set.model.file;
    kac_chemistry chemistry = {.corrects = r->set.process.corrects};
    r->form = (kac_object_form){.shape = r->shape, .alphabet = r->denoiser->alphabet};
    if (r->set.process.kind != KAC_PROCESS_GRAPH) return KAC_OK;
    kac_chemistry_read(given[0] != '\0' ? given : r->denoiser->graph.atoms, &chemistry);
    if (chemistry.atoms == 0) return KAC_OK;
    if (chemistry.atoms != r->shape.features)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "process.atoms: %d elements, and the nodes of %s have %d features",
                        (int)chemistry.atoms, file, (int)r->shape.features);
    return kac_molecule_create(&chemistry, r->shape.nodes, &r->form.molecule);
}

static kac_status open_networks(kac_run *r)
{
    const kac_settings *s = &r->set;
    char own[KAC_NAME];
    const char *name = kac_device_of_rank(s->device.name, s->device.isa,
                                          kac_ranks_local(r->ranks), own, sizeof own);
    KAC_TRY(kac_files_check(s));
    KAC_TRY(kac_device_open(name, s->device.isa, &r->dev));
    KAC_TRY(kac_device_set_precision(r->dev, (kac_precision)s->device.precision));
    KAC_TRY(open_denoiser(r));
    KAC_TRY(choose_process(r));

    r->reads_time = r->denoiser->reads_time;
    KAC_TRY(open_unconditional(r));

    int64_t length = s->process.length != 0           ? s->process.length
                     : s->process.template[0] != '\0' ? (int64_t)strlen(s->process.template)
                                                      : r->denoiser->length;
    if (length == 0)
        return KAC_FAIL(KAC_ERR_INVALID, "process.length is needed: %s does not say its own",
                        s->model.file);
    KAC_TRY(kac_network_check_length(r->denoiser, (int32_t)length));
    if (r->unconditional != NULL)
        KAC_TRY(kac_network_check_length(r->unconditional, (int32_t)length));
    int64_t bytes = r->vectors ? length * s->process.order * (int64_t)sizeof(float) : length;
    r->shape = (kac_shape){.length = (int32_t)length,
                           .states = r->denoiser->states,
                           .stride = (int32_t)((bytes + 15) / 16 * 16),
                           .nodes = r->denoiser->graph.nodes,
                           .features = r->denoiser->graph.features};
    r->slot_floats = r->shape.length * r->shape.states;
    r->memo_floats = r->slot_floats + (r->vectors && r->unconditional != NULL);
    return open_chemistry(r);
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
    KAC_TRY_DONE(fill_levels(r, levels));
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
        r->tilted[k] = r->set.sampler.twist != KAC_TWIST_NONE && has_draws(r, &levels[k]);
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

/* What is given of the objects. */
static kac_status start_given(kac_run *r)
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

/* How often the run comes down the levels, and from where: known before any memory is taken. */
static kac_status plan_passes(kac_run *r)
{
    kac_status status = KAC_OK;
    int64_t first = r->steps;
    r->passes = 1;
    r->back = r->steps;
    kac_level *levels = calloc((size_t)r->steps + 1, sizeof *levels);
    if (levels == NULL)
        return KAC_FAIL(KAC_ERR_NOMEM, "run: no memory for %d levels", r->steps);
    KAC_TRY_DONE(fill_levels(r, levels));
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

/* The population at the start and its steps, before any memory is taken.  Rows of a pool that spans
 * ranks are groups of one particle. */
static kac_status plan_run(kac_run *r, int64_t groups)
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

/* The groups and particles as parts of the run: what selection sees of them, and this rank's states. */
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

/* Takes the memory of particles, their evaluations and selection. */
static kac_status take_population(kac_run *r)
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
    return KAC_OK;
}

/* Host memory; by now all memory of the device has been asked for. */
static kac_status take_host(kac_run *r)
{
    r->funnel = calloc((size_t)r->steps + 1, sizeof *r->funnel);
    r->tilted = calloc((size_t)r->steps + 1, sizeof *r->tilted);
    r->sort = calloc((size_t)r->n, sizeof *r->sort);
    r->host_group = calloc((size_t)kac_groups_here(r), sizeof *r->host_group);
    if (r->funnel == NULL || r->tilted == NULL || r->sort == NULL || r->host_group == NULL)
        return KAC_FAIL(KAC_ERR_NOMEM, "run: no memory for %d particles", r->n);
    return KAC_OK;
}

static kac_status open_driver(kac_run *r)
{
    switch (r->set.driver.kind) {
    case KAC_DRIVER_NONE: break;
    case KAC_DRIVER_SEARCH: return kac_search_open(r);
    case KAC_DRIVER_REFINE: return kac_refine_open(r);
    case KAC_DRIVER_GIBBS: return kac_gibbs_open(r);
    }
    return KAC_OK;
}

static kac_status start_run(kac_run *r)
{
    KAC_TRY(start_levels(r));
    KAC_TRY(start_groups(r));
    KAC_TRY(start_particles(r));
    return open_driver(r);
}

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

/* How many groups there are, and which of them this rank has. */
static kac_status plan_groups(kac_run *r)
{
    int64_t groups = r->set.sampler.groups;
    KAC_TRY(kac_budget(r, &groups));
    r->all_groups = (int32_t)groups;
    KAC_TRY(kac_open_targets(r));
    KAC_TRY(plan_run(r, r->groups));
    return r->set.driver.kind == KAC_DRIVER_SEARCH ? kac_search_check(r) : KAC_OK;
}

static kac_status open_run(kac_run *r)
{
    const kac_settings *s = &r->set;
    read_step(r);
    KAC_TRY(plan_run(r, kac_groups_a_rank(r, s->sampler.groups)));
    int64_t batch = s->device.batch != 0 ? s->device.batch : default_batch;
    r->batch = (int32_t)(batch < r->most.children ? batch : r->most.children);

    KAC_TRY(check_names(s));
    KAC_TRY(open_networks(r));
    KAC_TRY(start_given(r));
    KAC_TRY(plan_passes(r));
    KAC_TRY(open_rewards(r));
    KAC_TRY(plan_groups(r));
    KAC_TRY(take_population(r));
    KAC_TRY(kac_trace_open(r));
    KAC_TRY(take_host(r));
    return start_run(r);
}

kac_status kac_run_create(const kac_config *config, kac_run **out)
{
    return kac_run_create_on(NULL, config, out);
}

kac_status kac_run_create_on(kac_ranks *ranks, const kac_config *config, kac_run **out)
{
    KAC_REQUIRE(config != NULL && out != NULL);
    kac_piloted none = {.known = false};
    return kac_run_open(ranks, config, &none, out);
}

/* Every rank has made the pilot; what rank 0 found holds, should rewards not repeat themselves. */
static kac_status share_pilot(kac_run *r, kac_status status)
{
    double *alpha = &r->set.sampler.alpha;
    KAC_TRY(kac_ranks_agree(r->ranks, status, NULL, 0));
    KAC_TRY(kac_ranks_broadcast(r->ranks, alpha, sizeof *alpha));
    return kac_ranks_broadcast(r->ranks, &r->pilot, sizeof r->pilot);
}

/* Where a team of ranks shares groups, once every rank is ready. */
static kac_status connect_devices(kac_run *r, kac_status status)
{
    KAC_TRY(kac_ranks_agree(r->ranks, status, NULL, 0));
    status = kac_ranks_connect(r->ranks, r->dev, (kac_link)r->set.job.transport);
    r->connected = kac_ranks_are_connected(r->ranks);
    return status;
}

/* A run of nothing yet but a configuration. */
static kac_status take_config(kac_run *r, kac_ranks *ranks, const kac_config *config)
{
    r->began = r->lap = kac_now();
    r->ranks = ranks;
    KAC_TRY(kac_config_settings(config, &r->set));
    kac_ranks_set_patience(ranks, r->set.job.patience);
    return kac_config_clone(config, &r->config);
}

kac_status kac_run_open(kac_ranks *ranks, const kac_config *config, const kac_piloted *piloted,
                        kac_run **out)
{
    kac_status status = KAC_OK;
    kac_run *r = calloc(1, sizeof *r);
    /* A rank that fails meets the others where they next agree, and then all have, for good. */
    if (r == NULL)
        return kac_ranks_agree(ranks, KAC_FAIL(KAC_ERR_NOMEM, "run: no memory"), NULL, 0);
    KAC_TRY_DONE(kac_ranks_agree(ranks, take_config(r, ranks, config), NULL, 0));
    if (piloted->known) {
        r->set.sampler.alpha = piloted->alpha;
        r->pilot = piloted->calls;
    } else if (isnan(r->set.sampler.alpha)) {
        KAC_TRY_DONE(share_pilot(r, kac_pilot(config, &r->set, &r->pilot)));
    }
#ifdef _OPENMP
    if (r->set.device.threads > 0) omp_set_num_threads((int)r->set.device.threads);
#endif
    KAC_TRY_DONE(connect_devices(r, open_run(r)));
    KAC_TRY_DONE(kac_checkpoint_open(r));
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
    if (r->connected) kac_ranks_disconnect(r->ranks);
    if (r->dev != NULL) {
        (void)r->dev->ops->memory.enter(r->dev);
        for (int i = 0; i < 2; i++)
            r->dev->ops->memory.erase(r->dev, r->recording[i].step);
        for (int i = 0; i < r->owned_count; i++)
            r->dev->ops->memory.release(r->dev, r->owned[i]);
        kac_memo_close(r->dev, &r->evals);
        kac_memo_close(r->dev, &r->census);
        kac_fresh_close(r->dev, &r->fresh);
        kac_fresh_close(r->dev, &r->census_fresh);
        kac_network_close(r->denoiser);
        kac_network_close(r->unconditional);
        kac_rewards_close(r->guide);
        kac_rewards_close(r->judge);
        kac_rewards_close(r->value);
        kac_rewards_close(r->classifier);
        kac_device_close(r->dev);
    }
    kac_search_close(r);
    kac_gathering_close(r->trace.gathering);
    kac_span_close(r->span);
    kac_config_destroy(r->config);
    free(r->failure);
    free(r->place);
    json_decref(r->files);
    free(r->line);
    free(r->funnel);
    free(r->tilted);
    free(r->sort);
    free(r->host_group);
    free(r->weight);
    free(r->target);
    free(r->first_of_pool);
    free(r->log_evidence);
    free(r->log_evidence_se);
    free(r->evidence_reliable);
    free(r->result);
    free(r->result_terms);
    free(r->text);
    free(r->objects);
    kac_molecule_destroy(r->form.molecule);
    kac_trajectories_close(r->trajectories);
    free(r);
}

int64_t kac_run_steps(const kac_run *r)
{
    return r->moves;
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
    kac_quantile_at q = kac_quantile_place(n, share);
    return kac_quantile_between(sorted[q.below], sorted[q.above], q.weight);
}

void kac_sort(double *values, int64_t n)
{
    qsort(values, (size_t)n, sizeof *values, ascending);
}

/* Why the objects of a dead group may have no weight. */
static const char *dead_reason(const kac_run *r)
{
    for (int term = 0; term < r->set.rewards; term++)
        if (!isnan(r->set.reward[term].at_least) || !isnan(r->set.reward[term].at_most))
            return " (its objects are outside reward.N.at_least and at_most, or invalid)";
    if (r->set.sampler.invalid_is_worst)
        return " (its objects are invalid, or have reward -inf)";
    return "";
}

/* Whether step `move`, counted from 1, arrives at level 0. */
static bool ends_a_pass(const kac_run *r, int32_t move)
{
    int32_t first = r->moves - (r->passes - 1) * r->back; /* steps of the first pass */
    return move == first || (move > first && (move - first) % r->back == 0);
}

/* The sentence for what the device noted. */
static kac_status report(const kac_run *r, const kac_trouble *fault)
{
    bool in_try = r->revive.levels > 0 && fault->move >= r->moves; /* moves of the last step */
    int32_t step = in_try ? r->moves : fault->move;
    const char *row = in_try ? "try" : "slot";
    if (fault->kind == KAC_FAULT_DEAD)
        return KAC_FAIL(
            KAC_ERR_NUMERIC,
            "step %d: every weight of the group at slot %d is zero%s; "
            "sampler.on_dead: freeze carries on without it, revive tries for others",
            step, fault->slot, dead_reason(r));
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

/* Particles that a group had in step `move`, counted from 1, which a funnel may have made fewer since. */
static int32_t particles_in(const kac_run *r, int32_t move)
{
    if (r->set.sampler.funnel[0] == '\0') return kac_particles_each(r);
    int32_t each = (int32_t)r->set.sampler.particles;
    for (int32_t level = r->steps - 1; level > r->steps - move && level >= 0; level--)
        if (r->funnel[level] > 0) each = r->funnel[level];
    return each;
}

/* What the device of any rank noted first, its slot counted through all ranks.  Errors: DEVICE, and
 * those of kac_ranks_agree. */
static kac_status first_trouble(const kac_run *r, kac_trouble *out)
{
    kac_fault fault = {0};
    kac_status status = r->dev->ops->memory.download(r->dev, &fault, r->fault, sizeof fault);
    kac_trouble own = kac_fault_read(fault);
    own.slot += r->first * particles_in(r, own.move);
    if (own.kind != KAC_FAULT_NONE) fault.number = kac_fault_number(own);
    /* The largest number comes first; votes have a sign, whose bit is turned over. */
    int64_t vote = (int64_t)(fault.number ^ UINT64_C(1) << 63);
    KAC_TRY(kac_ranks_agree(r->ranks, status, &vote, 1));
    *out = kac_fault_read((kac_fault){(uint64_t)vote ^ UINT64_C(1) << 63});
    return KAC_OK;
}

kac_status kac_end_where_failed(kac_run *r, kac_status status)
{
    if (status == KAC_OK || r->failed != KAC_OK) return status;
    r->failed = status;
    r->failure = strdup(kac_last_error());
    return status;
}

kac_status kac_enter_run(kac_run *r)
{
    if (r->failed == KAC_OK &&
        kac_end_where_failed(r, r->dev->ops->memory.enter(r->dev)) == KAC_OK)
        return KAC_OK;
    const char *text = r->failure != NULL ? r->failure : kac_status_string(r->failed);
    return kac_ranks_agree(r->ranks, KAC_FAIL(r->failed, "%s", text), NULL, 0);
}

static kac_status sync_run(kac_run *r)
{
    kac_trouble trouble;
    KAC_TRY(first_trouble(r, &trouble));
    if (trouble.kind != KAC_FAULT_NONE) return report(r, &trouble);
    if (r->step > 0) KAC_TRY(kac_trace_record(r));
    return kac_trace_flush(r);
}

kac_status kac_run_sync(kac_run *r, kac_progress *out)
{
    KAC_REQUIRE(r != NULL);
    KAC_TRY(kac_enter_run(r));
    KAC_TRY(kac_end_where_failed(r, sync_run(r)));
    if (out != NULL)
        *out = r->lines > 0 ? r->line[r->lines - 1].progress : (kac_progress){.ess = 1};
    return KAC_OK;
}
