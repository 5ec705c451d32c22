/* models.c -- the models of a run: its denoisers and its rewards, and whether they go
 * together. */
#include <string.h>

#include "device.h"
#include "process.h"
#include "run.h"

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

/* A template of another length than the model's is more often a letter too few than meant. */
static kac_status check_template(const kac_run *r)
{
    char place[KAC_PLACE];
    size_t given = strlen(r->set.process.template);
    int64_t own = r->denoiser->length;
    if (given == 0 || own == 0 || (int64_t)given == own || r->set.process.length != 0)
        return KAC_OK;
    kac_config_place(r->config, "process.template", place);
    return KAC_FAIL(KAC_ERR_INVALID,
                    "process.template: %zu characters%s, but the model's sequences have %lld; "
                    "process.length %zu if that is meant",
                    given, place, (long long)own, given);
}

kac_status kac_models_open(kac_run *r)
{
    const kac_settings *s = &r->set;
    char own[KAC_NAME];
    const char *name = kac_device_of_rank(s->device.name, s->device.isa,
                                          kac_ranks_local(r->ranks), own, sizeof own);
    KAC_TRY(check_names(s));
    KAC_TRY(kac_files_check(s));
    KAC_TRY(kac_device_open(name, s->device.isa, &r->dev));
    KAC_TRY(kac_device_set_precision(r->dev, (kac_precision)s->device.precision));
    KAC_TRY(open_denoiser(r));
    KAC_TRY(choose_process(r));

    r->reads_time = r->denoiser->reads_time;
    KAC_TRY(open_unconditional(r));

    KAC_TRY(check_template(r));
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

/* Whether the rewards take what they will be given. */
static kac_status check_rewards(const kac_run *r)
{
    const kac_settings *s = &r->set;
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

kac_status kac_models_open_rewards(kac_run *r)
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
    KAC_TRY(kac_rewards_reach(s, r->shape.length));
    return check_rewards(r);
}
