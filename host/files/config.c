/* config.c -- what a run is told: reading YAML, setting keys, resolving, explaining.
 *
 * A configuration keeps what was given as text, key by key, so that it can be resolved again
 * after any change: defaults, then the algorithm's row, then what was given.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "atomic.h"
#include "keys.h"

typedef struct entry {
    char *key, *value;
} entry;

struct kac_config {
    int count, capacity;
    entry *given; /* [count] in the order in which they were first given */
};

static kac_status no_memory(void)
{
    return KAC_FAIL(KAC_ERR_NOMEM, "configuration: out of memory");
}

static kac_status resolve(const kac_config *config, kac_settings *out);

/* ---- what was given --------------------------------------------------------------------- */

kac_status kac_config_create(kac_config **out)
{
    KAC_REQUIRE(out != NULL);
    kac_config *config = calloc(1, sizeof *config);
    if (config == NULL) return no_memory();
    *out = config;
    return KAC_OK;
}

void kac_config_destroy(kac_config *config)
{
    if (config == NULL) return;
    for (int i = 0; i < config->count; i++) {
        free(config->given[i].key);
        free(config->given[i].value);
    }
    free(config->given);
    free(config);
}

/* Keeps a pair that has been checked, in place of an earlier value of the key. */
static kac_status keep(kac_config *config, const char *key, const char *value)
{
    char *text = strdup(value);
    if (text == NULL) return no_memory();
    for (int i = 0; i < config->count; i++) {
        if (strcmp(config->given[i].key, key) != 0) continue;
        free(config->given[i].value);
        config->given[i].value = text;
        return KAC_OK;
    }
    if (config->count == config->capacity) {
        int capacity = 2 * config->capacity + 16;
        entry *given = realloc(config->given, (size_t)capacity * sizeof *given);
        if (given == NULL) {
            free(text);
            return no_memory();
        }
        config->given = given;
        config->capacity = capacity;
    }
    char *name = strdup(key);
    if (name == NULL) {
        free(text);
        return no_memory();
    }
    config->given[config->count++] = (entry){name, text};
    return KAC_OK;
}

/* Forgets the whole list of rewards. */
static void drop_rewards(kac_config *config)
{
    int kept = 0;
    for (int i = 0; i < config->count; i++) {
        if (strncmp(config->given[i].key, "reward.", 7) == 0) {
            free(config->given[i].key);
            free(config->given[i].value);
        } else {
            config->given[kept++] = config->given[i];
        }
    }
    config->count = kept;
}

kac_status kac_config_clone(const kac_config *config, kac_config **out)
{
    KAC_REQUIRE(config != NULL && out != NULL);
    kac_status status = KAC_OK;
    kac_config *copy = NULL;
    KAC_TRY(kac_config_create(&copy));
    for (int i = 0; i < config->count; i++)
        KAC_TRY_DONE(keep(copy, config->given[i].key, config->given[i].value));
    *out = copy;
    copy = NULL;
done:
    kac_config_destroy(copy);
    return status;
}

/* Everything that was given but how to sample, under `algorithm`. */
static kac_status unguided(const kac_config *config, const char *algorithm, kac_config **out)
{
    static const char *const left_out[] = {"sampler.", "driver.", "search.", "budget."};
    kac_status status = KAC_OK;
    kac_config *copy = NULL;
    KAC_TRY(kac_config_create(&copy));
    for (int i = 0; i < config->count; i++) {
        bool kept = true;
        for (size_t k = 0; k < sizeof left_out / sizeof *left_out; k++)
            if (strncmp(config->given[i].key, left_out[k], strlen(left_out[k])) == 0)
                kept = false;
        if (kept) KAC_TRY_DONE(keep(copy, config->given[i].key, config->given[i].value));
    }
    KAC_TRY_DONE(kac_config_set(copy, "sampler.algorithm", algorithm));
    *out = copy;
    copy = NULL;
done:
    kac_config_destroy(copy);
    return status;
}

static kac_status set_integer(kac_config *config, const char *key, uint64_t value)
{
    char text[32];
    snprintf(text, sizeof text, "%" PRIu64, value);
    return kac_config_set(config, key, text);
}

kac_status kac_config_pilot(const kac_config *config, int64_t samples, kac_config **out)
{
    static const uint64_t apart = UINT64_C(1) << 52;
    kac_status status = KAC_OK;
    kac_config *copy = NULL;
    kac_settings settings;
    KAC_REQUIRE(config != NULL && out != NULL);
    KAC_TRY(resolve(config, &settings));
    KAC_TRY(unguided(config, "pretrained", &copy));
    KAC_TRY_DONE(set_integer(copy, "sampler.groups", (uint64_t)samples));
    KAC_TRY_DONE(set_integer(copy, "seed", settings.seed ^ apart));
    KAC_TRY_DONE(kac_config_set(copy, "sampler.on_dead", "freeze")); /* outside of bounds */
    KAC_TRY_DONE(kac_config_set(copy, "output.trace", "off"));
    KAC_TRY_DONE(kac_config_set(copy, "output.likelihood", "off"));
    *out = copy;
    copy = NULL;
done:
    kac_config_destroy(copy);
    return status;
}

kac_status kac_config_best_of_n(const kac_config *config, int64_t particles, kac_config **out)
{
    kac_status status = KAC_OK;
    kac_config *copy = NULL;
    kac_settings settings;
    KAC_REQUIRE(config != NULL && out != NULL && particles >= 1);
    KAC_TRY(resolve(config, &settings));
    KAC_TRY(unguided(config, "best_of_n", &copy));
    KAC_TRY_DONE(set_integer(copy, "sampler.groups", (uint64_t)settings.sampler.groups));
    KAC_TRY_DONE(set_integer(copy, "sampler.particles", (uint64_t)particles));
    KAC_TRY_DONE(kac_config_set(copy, "sampler.on_dead", "freeze"));
    *out = copy;
    copy = NULL;
done:
    kac_config_destroy(copy);
    return status;
}

/* ---- what is in force ------------------------------------------------------------------- */

static kac_status apply_row(const char *algorithm, kac_settings *settings)
{
    const kac_algorithm *row = kac_algorithms;
    while (row->name != NULL && strcmp(row->name, algorithm) != 0)
        row++;
    if (row->name == NULL)
        return KAC_FAIL(KAC_ERR_INTERNAL, "sampler.algorithm: no row `%s`", algorithm);
    for (int i = 0; row->set[i].key != NULL; i++)
        KAC_TRY(kac_key_assign(settings, row->set[i].key, row->set[i].value));
    return KAC_OK;
}

/* The settings in force, whether or not they agree with each other. */
static kac_status resolve(const kac_config *config, kac_settings *out)
{
    memset(out, 0, sizeof *out);
    for (int i = 0; i < kac_keys_count(); i++) {
        const kac_key *key = kac_keys_at(i);
        if (strncmp(key->name, "reward.N", 8) != 0)
            KAC_TRY(kac_key_assign(out, key->name, key->initial));
    }
    for (int i = 0; i < config->count; i++)
        if (strcmp(config->given[i].key, "sampler.algorithm") == 0)
            KAC_TRY(kac_key_assign(out, config->given[i].key, config->given[i].value));
    KAC_TRY(apply_row(out->sampler.algorithm, out));
    for (int i = 0; i < config->count; i++)
        KAC_TRY(kac_key_assign(out, config->given[i].key, config->given[i].value));

    if (out->process.schedule == KAC_SCHEDULE_AUTO)
        out->process.schedule = out->process.kind == KAC_PROCESS_GAUSSIAN
                                    ? KAC_SCHEDULE_VP
                                    : KAC_SCHEDULE_LOGLINEAR;
    if (out->sampler.children == 1) out->sampler.parent_rule = KAC_RULE_NONE; /* no choice */
    if (out->sampler.group_rule == KAC_RULE_NONE) out->sampler.trigger = KAC_WHEN_NEVER;
    if (out->sampler.potential == KAC_POTENTIAL_TERMINAL) out->sampler.value = KAC_VALUE_NONE;
    if (out->sampler.value != KAC_VALUE_POSTERIOR_MEAN ||
        out->sampler.estimate != KAC_ESTIMATE_SAMPLE)
        out->sampler.samples = 1;
    if (out->sampler.value == KAC_VALUE_NONE) out->sampler.temper = KAC_TEMPERING_NONE;
    if (out->sampler.final == KAC_FINAL_ARGMAX && out->sampler.keep == 0) out->sampler.keep = 1;
    if (out->search.stages > out->process.steps) out->search.stages = out->process.steps;
    return KAC_OK;
}

static bool ranks_only(kac_rule rule)
{
    return rule == KAC_RULE_ARGMAX || rule == KAC_RULE_TOP_K || rule == KAC_RULE_REPLACE;
}

static bool groups_select(const kac_settings *settings)
{
    return settings->sampler.trigger != KAC_WHEN_NEVER || settings->sampler.funnel[0] != '\0';
}

/* Whether weights also take the chain to a power or product of laws of vectors. */
static bool is_corrected(const kac_settings *settings)
{
    return settings->process.kind == KAC_PROCESS_GAUSSIAN &&
           (settings->process.anneal != 1 || settings->model.unconditional[0] != '\0');
}

bool kac_properly_weighted(const kac_settings *settings)
{
    bool weighs = is_corrected(settings) || settings->sampler.twist != KAC_TWIST_NONE;
    if (settings->driver.kind == KAC_DRIVER_SEARCH ||
        settings->driver.kind == KAC_DRIVER_REFINE)
        return false;
    if (weighs && !settings->sampler.twist_weighs) return false;
    if (ranks_only(settings->sampler.parent_rule)) return false;
    if (settings->sampler.parent_rule == KAC_RULE_CATEGORICAL &&
        !settings->sampler.keep_normaliser)
        return false;
    if (groups_select(settings) && (ranks_only(settings->sampler.group_rule) ||
                                    settings->sampler.weights != KAC_WEIGHTS_PROPER))
        return false;
    return settings->sampler.final == KAC_FINAL_WEIGHTED ||
           settings->sampler.final == KAC_FINAL_CATEGORICAL;
}

/* Whether alpha changes the samples or their weights. */
static bool reads_alpha(const kac_settings *settings)
{
    if (settings->driver.kind == KAC_DRIVER_SEARCH)
        return settings->search.kind != KAC_SEARCH_DDBFS &&
               (settings->search.policy == KAC_POLICY_SOFT ||
                settings->search.backup == KAC_BACKUP_SOFT);
    if (settings->sampler.twist != KAC_TWIST_NONE) return true;
    if (settings->driver.kind == KAC_DRIVER_REFINE && settings->driver.strength > 0)
        return true;
    if (settings->sampler.parent_rule == KAC_RULE_CATEGORICAL) return true;
    if (settings->sampler.trigger == KAC_WHEN_ESS) return true;
    bool by_weight = settings->sampler.group_rule == KAC_RULE_CATEGORICAL ||
                     settings->sampler.group_rule == KAC_RULE_REPLACE;
    if (groups_select(settings) && by_weight && settings->sampler.weights != KAC_WEIGHTS_SCALED)
        return true;
    return settings->sampler.final == KAC_FINAL_CATEGORICAL || kac_properly_weighted(settings);
}

/* Whether the reward decides anything. */
static bool is_guided(const kac_settings *settings)
{
    return settings->sampler.parent_rule != KAC_RULE_NONE ||
           settings->sampler.twist != KAC_TWIST_NONE || groups_select(settings) ||
           settings->driver.kind != KAC_DRIVER_NONE ||
           settings->sampler.potential != KAC_POTENTIAL_TERMINAL ||
           settings->sampler.final != KAC_FINAL_WEIGHTED;
}

static kac_status check_guidance(const kac_settings *settings)
{
    bool guides = is_corrected(settings);
    for (int i = 0; i < settings->rewards; i++)
        guides = guides || kac_reward_guides(&settings->reward[i]);
    if (is_guided(settings) && !guides)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "reward: algorithm %s needs a reward with a weight other than 0, or a "
                        "bound (only pretrained runs without)",
                        settings->sampler.algorithm);
    return KAC_OK;
}

static kac_status check_sizes(const kac_settings *settings)
{
    const int64_t most = INT32_MAX;
    int64_t n = settings->sampler.groups * settings->sampler.particles; /* < 2^49 */
    if (n > most || n * (settings->sampler.children + 1) > most ||
        n * settings->sampler.children * settings->sampler.samples > most)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "sampler: %" PRId64 " groups x %" PRId64 " particles x %" PRId64
                        " children x %" PRId64 " samples are more than %" PRId64,
                        settings->sampler.groups, settings->sampler.particles,
                        settings->sampler.children, settings->sampler.samples, most);
    if (settings->sampler.children * settings->sampler.samples > KAC_MAX_CHILDREN)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "sampler.value.samples: %" PRId64 " completions of %" PRId64
                        " children are more than %d of a particle",
                        settings->sampler.samples, settings->sampler.children,
                        (int)KAC_MAX_CHILDREN);
    if (settings->sampler.to != 0 && settings->sampler.to < settings->sampler.from)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "sampler.select.group.trigger.to: %" PRId64
                        " comes before from, %" PRId64,
                        settings->sampler.to, settings->sampler.from);
    return KAC_OK;
}

static kac_status check_funnel(const kac_settings *settings)
{
    const char *funnel = settings->sampler.funnel;
    if (funnel[0] == '\0') return KAC_OK;
    int64_t stages = 2;
    for (const char *c = funnel; *c != '\0'; c++)
        stages += *c == ',';
    if (strtol(funnel, NULL, 10) > settings->sampler.particles)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "sampler.funnel: %s begins with more than sampler.particles, %" PRId64,
                        funnel, settings->sampler.particles);
    if (stages > settings->process.steps)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "sampler.funnel: %" PRId64 " stages for %" PRId64 " steps", stages,
                        settings->process.steps);
    if (settings->sampler.group_rule == KAC_RULE_NONE ||
        settings->sampler.group_rule == KAC_RULE_REPLACE ||
        (settings->sampler.group_rule == KAC_RULE_CATEGORICAL &&
         settings->sampler.scheme == KAC_SCHEME_KILLING))
        return KAC_FAIL(KAC_ERR_INVALID,
                        "sampler.funnel: groups must be able to select fewer than they are: "
                        "select.group.rule categorical (not killing), argmax or top_k");
    return KAC_OK;
}

static kac_status check_selection(const kac_settings *settings)
{
    int64_t children = settings->sampler.children;
    int64_t candidates = settings->sampler.parent_rule == KAC_RULE_NONE ? children
                         : settings->sampler.parent_rule == KAC_RULE_TOP_K
                             ? settings->sampler.parent_keep
                             : 1;
    if (candidates > children)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "sampler.select.parent.keep: %" PRId64
                        " is more than sampler.children, %" PRId64,
                        candidates, children);
    int64_t pool = settings->sampler.global
                       ? settings->sampler.groups * settings->sampler.particles
                       : settings->sampler.particles;
    if (pool * candidates > 1 << 24)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "sampler: %" PRId64 " candidates that compete with each other are more "
                        "than %d",
                        pool * candidates, 1 << 24);
    bool every_step =
        (settings->sampler.trigger == KAC_WHEN_EVERY ||
         settings->sampler.trigger == KAC_WHEN_WINDOW) &&
        settings->sampler.every == 1 && settings->sampler.from == 1 &&
        (settings->sampler.to == 0 || settings->sampler.to >= settings->process.steps);
    if (candidates > 1 && !every_step)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "sampler.select: the parent stage leaves %" PRId64
                        " candidates of each particle, so the group stage must select at every "
                        "step: set select.group.rule and select.group.trigger.kind every",
                        candidates);
    if (candidates > 1 && settings->sampler.group_rule == KAC_RULE_CATEGORICAL &&
        settings->sampler.scheme == KAC_SCHEME_KILLING)
        return KAC_FAIL(
            KAC_ERR_INVALID,
            "sampler.select.group.scheme: killing needs one candidate a particle, and "
            "the parent stage leaves %" PRId64,
            candidates);
    if (candidates > 1 && settings->sampler.group_rule == KAC_RULE_REPLACE)
        return KAC_FAIL(
            KAC_ERR_INVALID,
            "sampler.select.group.rule: replace needs one candidate a particle, and "
            "the parent stage leaves %" PRId64,
            candidates);
    KAC_TRY(check_funnel(settings));
    if (settings->sampler.value == KAC_VALUE_NONE &&
        settings->sampler.potential != KAC_POTENTIAL_TERMINAL)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "sampler.potential: without a value (sampler.value.kind none) only "
                        "terminal is possible");
    bool reads_file = settings->sampler.value == KAC_VALUE_LEARNED ||
                      settings->sampler.twist == KAC_TWIST_VALUE;
    if (reads_file && settings->sampler.value_file[0] == '\0')
        return KAC_FAIL(KAC_ERR_INVALID,
                        "sampler.value.file: required where sampler.value.kind is learned or "
                        "sampler.twist.kind is value, a safetensors file");
    if (settings->sampler.alpha == 0 && reads_alpha(settings))
        return KAC_FAIL(KAC_ERR_INVALID,
                        "sampler.alpha: 0 is allowed only where every selection is argmax or "
                        "top_k");
    return KAC_OK;
}

static kac_status check_final(const kac_settings *settings)
{
    kac_final kind = settings->sampler.final;
    int64_t most = kind == KAC_FINAL_ARGMAX ? 1 : settings->sampler.particles;
    if (kind == KAC_FINAL_WEIGHTED && settings->sampler.keep != 0)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "sampler.final.keep: kind weighted keeps all, found %" PRId64,
                        settings->sampler.keep);
    if (settings->sampler.keep > most)
        return KAC_FAIL(
            KAC_ERR_INVALID,
            "sampler.final.keep: at most %" PRId64 " of each group%s, found %" PRId64, most,
            kind == KAC_FINAL_ARGMAX ? " with kind argmax" : "", settings->sampler.keep);
    if (kind != KAC_FINAL_TOP_K && settings->sampler.final_pool)
        return KAC_FAIL(KAC_ERR_INVALID, "sampler.final.scope: all goes with kind top_k only");
    return KAC_OK;
}

static kac_status refuse_search(const char *key, const char *want)
{
    return KAC_FAIL(KAC_ERR_INVALID, "%s: driver.kind search needs %s", key, want);
}

static kac_status check_trees(const kac_settings *settings)
{
    int64_t moves = settings->search.rollouts * settings->process.steps; /* < 2^40 */
    if (moves >= 1 << 20)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "search.rollouts: %" PRId64 " simulations of %" PRId64
                        " process.steps are %" PRId64 " moves; want at most %d",
                        settings->search.rollouts, settings->process.steps, moves,
                        (1 << 20) - 1);
    if (settings->search.kind != KAC_SEARCH_MCTS) return KAC_OK;
    if (settings->sampler.particles != 1)
        return KAC_FAIL(
            KAC_ERR_INVALID,
            "sampler.particles: search.kind mcts gives one object of each group, so "
            "want 1, found %" PRId64,
            settings->sampler.particles);
    if (settings->search.rollouts < settings->search.stages)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "search.rollouts: search.kind mcts needs one for each of %" PRId64
                        " stages at least, found %" PRId64,
                        settings->search.stages, settings->search.rollouts);
    return KAC_OK;
}

static kac_status check_search(const kac_settings *settings)
{
    if (settings->driver.kind != KAC_DRIVER_SEARCH) return KAC_OK;
    if (settings->sampler.twist != KAC_TWIST_NONE)
        return refuse_search("sampler.twist.kind", "none");
    if (settings->sampler.temper != KAC_TEMPERING_NONE)
        return refuse_search("sampler.temper.kind", "none");
    if (settings->sampler.funnel[0] != '\0')
        return refuse_search("sampler.funnel", "none (search.drop_schedule is like it)");
    if (settings->sampler.global) return refuse_search("sampler.select.group.scope", "group");
    if (settings->sampler.value == KAC_VALUE_LEARNED ||
        settings->sampler.value == KAC_VALUE_STATE)
        return refuse_search("sampler.value.kind", "posterior_mean or none");
    if (settings->search.kind != KAC_SEARCH_DDBFS) return check_trees(settings);
    if (settings->sampler.value != KAC_VALUE_POSTERIOR_MEAN)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "sampler.value.kind: search.kind ddbfs needs posterior_mean");
    return KAC_OK;
}

static kac_status refuse(const char *key, const char *want)
{
    return KAC_FAIL(KAC_ERR_INVALID, "%s: driver.kind gibbs needs %s", key, want);
}

/* What conditional sweeps cannot do.  A scheme must be able to draw given that one particle goes
 * on; every particle's path must have its weight. */
static kac_status check_gibbs(const kac_settings *settings)
{
    kac_rule parent = settings->sampler.parent_rule, group = settings->sampler.group_rule;
    if (settings->sampler.particles < 2) return refuse("sampler.particles", "two or more");
    if (settings->sampler.global) return refuse("sampler.select.group.scope", "group");
    if (settings->sampler.funnel[0] != '\0') return refuse("sampler.funnel", "none");
    if (settings->sampler.weights != KAC_WEIGHTS_PROPER)
        return refuse("sampler.select.group.weights", "proper");
    if (settings->sampler.twist != KAC_TWIST_NONE && !settings->sampler.twist_weighs)
        return refuse("sampler.twist.weights", "correct");
    if (settings->sampler.children > 1 &&
        (parent != KAC_RULE_CATEGORICAL || !settings->sampler.keep_normaliser))
        return refuse("sampler.select.parent",
                      "rule categorical and normaliser keep for several children");
    if (group != KAC_RULE_NONE && group != KAC_RULE_CATEGORICAL)
        return refuse("sampler.select.group.rule", "categorical or none");
    if (settings->sampler.trigger != KAC_WHEN_NEVER &&
        settings->sampler.scheme != KAC_SCHEME_MULTINOMIAL &&
        settings->sampler.scheme != KAC_SCHEME_KILLING)
        return refuse("sampler.select.group.scheme", "multinomial or killing");
    if (settings->sampler.final != KAC_FINAL_CATEGORICAL || settings->sampler.keep > 1)
        return refuse("sampler.final", "kind categorical and keep 1: a sweep gives one object");
    if (settings->driver.burn_in > settings->driver.sweeps)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "driver.burn_in: %" PRId64 " is more than driver.sweeps, %" PRId64,
                        settings->driver.burn_in, settings->driver.sweeps);
    return KAC_OK;
}

static kac_status check_driver(const kac_settings *settings)
{
    if (settings->driver.kind != KAC_DRIVER_REFINE && settings->driver.start[0] != '\0')
        return KAC_FAIL(KAC_ERR_INVALID, "driver.start: goes with driver.kind refine only");
    if (settings->driver.kind == KAC_DRIVER_GIBBS) return check_gibbs(settings);
    if (settings->driver.kind == KAC_DRIVER_REFINE && settings->sampler.funnel[0] != '\0')
        return KAC_FAIL(KAC_ERR_INVALID,
                        "sampler.funnel: driver.kind refine keeps the number of particles");
    return KAC_OK;
}

/* Keys that only some schedules read: bit s stands for schedule s. */
enum {
    OF_VP = 1 << KAC_SCHEDULE_VP,
    OF_EDM = 1 << KAC_SCHEDULE_EDM,
    OF_SIGMA = 1 << KAC_SCHEDULE_VE | OF_EDM,
    OF_GAUSSIAN = OF_VP | OF_SIGMA,
    OF_MASKED = OF_VP - 1,
};

static const struct {
    const char *key;
    unsigned schedules;
} readers[] = {
    {"process.temperature", OF_MASKED}, {"process.epsilon", OF_MASKED},
    {"process.end", OF_MASKED},         {"process.begin", OF_MASKED},
    {"process.template", OF_MASKED},    {"process.beta_min", OF_VP},
    {"process.beta_max", OF_VP},        {"process.sigma_min", OF_SIGMA},
    {"process.sigma_max", OF_SIGMA},    {"process.rho", OF_EDM},
    {"process.eta", OF_GAUSSIAN},       {"process.order", OF_GAUSSIAN},
    {"process.anneal", OF_GAUSSIAN},    {"process.sigma_data", OF_GAUSSIAN},
    {"sampler.twist.path", OF_MASKED},
};

/* Keys that do nothing must be as they are without being given. */
static kac_status check_readers(const kac_settings *settings)
{
    const kac_config empty = {0};
    kac_settings initial;
    KAC_TRY(resolve(&empty, &initial));
    for (size_t i = 0; i < sizeof readers / sizeof *readers; i++) {
        char text[KAC_KEY_TEXT_SIZE], unset[KAC_KEY_TEXT_SIZE];
        int index = -1;
        const kac_key *key = kac_keys_find(readers[i].key, &index);
        if (readers[i].schedules >> settings->process.schedule & 1) continue;
        kac_key_text(settings, key, 0, text, sizeof text);
        kac_key_text(&initial, key, 0, unset, sizeof unset);
        if (strcmp(text, unset) == 0) continue;
        kac_key_text(settings, kac_keys_find("process.schedule", &index), 0, unset,
                     sizeof unset);
        return KAC_FAIL(KAC_ERR_INVALID, "%s: it does nothing with process.schedule %s",
                        readers[i].key, unset);
    }
    return KAC_OK;
}

static kac_status check_process(const kac_settings *settings)
{
    bool gaussian = settings->process.kind == KAC_PROCESS_GAUSSIAN;
    if ((settings->process.schedule >= KAC_SCHEDULE_VP) != gaussian)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "process.schedule: kind masked goes with loglinear, cosine, cosine2, "
                        "linear, geometric and flow, gaussian with vp, ve and edm");
    if (gaussian && settings->driver.kind != KAC_DRIVER_NONE)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "driver.kind: process.kind gaussian runs with none only");
    if (is_corrected(settings) && settings->process.eta == 0)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "process.eta: process.anneal and a second denoiser of vectors need "
                        "fresh noise, or copies of what their weights favour never part; want "
                        "more than 0");
    if (is_corrected(settings) && isnan(settings->sampler.alpha))
        return KAC_FAIL(KAC_ERR_INVALID,
                        "sampler.alpha: auto takes plain samples for draws from q, which they "
                        "are not with process.anneal or a second denoiser of vectors; give a "
                        "number");
    if (gaussian && settings->output.likelihood)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "output.likelihood: there is none with process.kind gaussian, whose "
                        "last move is a function of the state");
    if (gaussian && settings->process.eta == 0 && settings->sampler.twist != KAC_TWIST_NONE)
        return KAC_FAIL(
            KAC_ERR_INVALID,
            "sampler.twist.kind: with process.eta 0 moves draw nothing that could be "
            "tilted; use none");
    if (settings->process.sigma_min > settings->process.sigma_max)
        return KAC_FAIL(KAC_ERR_INVALID, "process.sigma_min: %g is more than sigma_max, %g",
                        settings->process.sigma_min, settings->process.sigma_max);
    return check_readers(settings);
}

kac_status kac_config_settings(const kac_config *config, kac_settings *out)
{
    KAC_REQUIRE(config != NULL && out != NULL);
    kac_settings settings;
    KAC_TRY(resolve(config, &settings));
    if (settings.model.file[0] == '\0')
        return KAC_FAIL(KAC_ERR_INVALID, "model.file: required, a safetensors file");
    KAC_TRY(check_process(&settings));
    KAC_TRY(check_sizes(&settings));
    KAC_TRY(check_selection(&settings));
    KAC_TRY(check_final(&settings));
    KAC_TRY(kac_rewards_check(&settings));
    KAC_TRY(check_guidance(&settings));
    KAC_TRY(check_search(&settings));
    KAC_TRY(check_driver(&settings));
    if (settings.sampler.alpha == 0) settings.sampler.alpha = 1;
    *out = settings;
    return KAC_OK;
}

kac_status kac_config_set(kac_config *config, const char *key, const char *value)
{
    KAC_REQUIRE(config != NULL && key != NULL && value != NULL);
    kac_settings settings;
    KAC_TRY(resolve(config, &settings));
    KAC_TRY(kac_key_assign(&settings, key, value));
    return keep(config, key, value);
}

kac_status kac_config_get(const kac_config *config, const char *key, char *text, size_t size)
{
    KAC_REQUIRE(config != NULL && key != NULL && text != NULL && size > 0);
    kac_settings settings;
    char value[KAC_KEY_TEXT_SIZE];
    int index = -1;
    KAC_TRY(resolve(config, &settings));
    const kac_key *found = kac_keys_find(key, &index);
    bool of_reward = found != NULL && strncmp(found->name, "reward.N", 8) == 0;
    if (found == NULL) return kac_key_assign(&settings, key, ""); /* says what is wrong */
    if (of_reward && (index < 0 || index >= settings.rewards))
        return KAC_FAIL(KAC_ERR_INVALID, "%s: the number of rewards is %d", key,
                        settings.rewards);
    kac_key_text(&settings, found, index, value, sizeof value);
    if (strlen(value) >= size)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "%s: the value has %zu bytes, and there is room for %zu", key,
                        strlen(value), size - 1);
    memcpy(text, value, strlen(value) + 1);
    return KAC_OK;
}

/* ---- YAML ------------------------------------------------------------------------------- */

enum { FILE_MOST = 1 << 16, MISTAKES_SIZE = 3800 };

/* One reading of a file. */
typedef struct reader {
    const char *path;
    yaml_document_t *document;
    kac_config *config;    /* the outcome, if all goes well */
    kac_settings settings; /* every pair is tried on it */
    int mistakes, omitted;
    size_t used;
    char text[MISTAKES_SIZE]; /* a line each */
} reader;

/* Notes a mistake at a place in the file. */
__attribute__((format(printf, 3, 4))) static void mistake(reader *r, yaml_mark_t mark,
                                                          const char *fmt, ...)
{
    char line[1600];
    int head = snprintf(line, sizeof line, "%.1000s:%zu:%zu: ", r->path, mark.line + 1,
                        mark.column + 1);
    va_list args;
    va_start(args, fmt);
    vsnprintf(line + head, sizeof line - (size_t)head, fmt, args);
    va_end(args);

    r->mistakes++;
    if (r->used + strlen(line) + 2 > sizeof r->text) {
        r->omitted++;
        return;
    }
    r->used += (size_t)snprintf(r->text + r->used, sizeof r->text - r->used, "%s%s",
                                r->used > 0 ? "\n" : "", line);
}

static const char *kind_of(const yaml_node_t *node)
{
    switch (node->type) {
    case YAML_SEQUENCE_NODE: return "a list";
    case YAML_MAPPING_NODE: return "a mapping";
    case YAML_SCALAR_NODE:
    case YAML_NO_NODE: break;
    }
    return "text";
}

/* The text of a scalar, NULL where it is none or holds a zero byte. */
static const char *scalar(const yaml_node_t *node)
{
    if (node->type != YAML_SCALAR_NODE) return NULL;
    const char *text = (const char *)node->data.scalar.value;
    return strlen(text) == node->data.scalar.length ? text : NULL;
}

/* One key with its value. */
static kac_status read_value(reader *r, const char *name, const yaml_node_t *node)
{
    const char *text = scalar(node);
    if (text == NULL) {
        char expected[512];
        int index = -1;
        kac_key_expected(kac_keys_find(name, &index), expected, sizeof expected);
        mistake(r, node->start_mark, "%s: expected %s, found %s", name, expected,
                node->type == YAML_SCALAR_NODE ? "a zero byte" : kind_of(node));
        return KAC_OK;
    }
    if (kac_key_assign(&r->settings, name, text) != KAC_OK) {
        mistake(r, node->start_mark, "%s", kac_last_error());
        return KAC_OK;
    }
    return keep(r->config, name, text);
}

static kac_status read_mapping(reader *r, const char *section, const yaml_node_t *node);

static kac_status read_rewards(reader *r, const yaml_node_t *node)
{
    if (node->type != YAML_SEQUENCE_NODE) {
        mistake(r, node->start_mark, "reward: expected a list of rewards, found %s",
                kind_of(node));
        return KAC_OK;
    }
    drop_rewards(r->config);
    r->settings.rewards = 0;
    const yaml_node_item_t *item = node->data.sequence.items.start;
    for (int i = 0; item < node->data.sequence.items.top; i++, item++) {
        const yaml_node_t *reward = yaml_document_get_node(r->document, *item);
        char name[KAC_NAME];
        snprintf(name, sizeof name, "reward.%d", i);
        if (i >= KAC_MAX_TERMS) {
            mistake(r, reward->start_mark, "reward: at most %d rewards", (int)KAC_MAX_TERMS);
            return KAC_OK;
        }
        if (reward->type == YAML_MAPPING_NODE &&
            reward->data.mapping.pairs.start == reward->data.mapping.pairs.top)
            mistake(r, reward->start_mark, "%s: the mapping is empty", name);
        KAC_TRY(read_mapping(r, name, reward));
        r->settings.rewards = i + 1; /* a wrong one counts too, or the next would complain */
    }
    return KAC_OK;
}

/* A key of a mapping and what it leads to. */
static kac_status read_pair(reader *r, const char *name, const yaml_node_t *key,
                            const yaml_node_t *value)
{
    int index = -1;
    if (strcmp(name, "reward") == 0) return read_rewards(r, value);
    if (kac_keys_is_section(name)) return read_mapping(r, name, value);
    if (kac_keys_find(name, &index) != NULL) return read_value(r, name, value);
    if (kac_key_assign(&r->settings, name, "") != KAC_OK)
        mistake(r, key->start_mark, "%s", kac_last_error());
    return KAC_OK;
}

/* Recursion ends because the names of sections do; `section` is "" at the top. */
static kac_status read_mapping(reader *r, const char *section, const yaml_node_t *node)
{
    const char *point = section[0] != '\0' ? "." : "";
    if (node->type != YAML_MAPPING_NODE) {
        mistake(r, node->start_mark, "%s%sexpected a mapping of keys to values, found %s",
                section, section[0] != '\0' ? ": " : "", kind_of(node));
        return KAC_OK;
    }
    const yaml_node_pair_t *first = node->data.mapping.pairs.start;
    for (const yaml_node_pair_t *pair = first; pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = yaml_document_get_node(r->document, pair->key);
        const char *text = scalar(key);
        char name[4 * KAC_NAME];
        if (text == NULL || strchr(text, '.') != NULL) {
            mistake(r, key->start_mark, "%s%s%s", section, section[0] != '\0' ? ": " : "",
                    "a key is a word without a point");
            continue;
        }
        snprintf(name, sizeof name, "%s%s%s", section, point, text);
        bool twice = false;
        for (const yaml_node_pair_t *other = first; other < pair && !twice; other++) {
            const char *before = scalar(yaml_document_get_node(r->document, other->key));
            twice = before != NULL && strcmp(before, text) == 0;
        }
        if (twice)
            mistake(r, key->start_mark, "%s: given twice", name);
        else
            KAC_TRY(read_pair(r, name, key, yaml_document_get_node(r->document, pair->value)));
    }
    return KAC_OK;
}

/* What libyaml has to say of a file that is not YAML. */
static kac_status syntax_mistake(reader *r, const yaml_parser_t *parser)
{
    if (parser->error == YAML_MEMORY_ERROR) return no_memory();
    yaml_mark_t mark = parser->error == YAML_READER_ERROR ? parser->mark : parser->problem_mark;
    mistake(
        r, mark, "not YAML: %s%s%s", parser->problem != NULL ? parser->problem : "malformed",
        parser->context != NULL ? ", " : "", parser->context != NULL ? parser->context : "");
    return KAC_OK;
}

/* Reads the one document that a file may hold. */
static kac_status read_document(reader *r, yaml_parser_t *parser)
{
    yaml_document_t document;
    if (!yaml_parser_load(parser, &document)) return syntax_mistake(r, parser);
    r->document = &document;
    const yaml_node_t *root = yaml_document_get_root_node(&document);
    kac_status status = KAC_OK;
    if (root == NULL)
        mistake(r, (yaml_mark_t){0, 0, 0}, "the file is empty");
    else
        status = read_mapping(r, "", root);
    yaml_document_delete(&document);
    if (status != KAC_OK || root == NULL) return status;

    if (!yaml_parser_load(parser, &document)) return syntax_mistake(r, parser);
    root = yaml_document_get_root_node(&document);
    if (root != NULL) mistake(r, root->start_mark, "a second document; a file holds one");
    yaml_document_delete(&document);
    return KAC_OK;
}

/* Fills r->config, or says all that is wrong. */
static kac_status read_bytes(reader *r, const void *bytes, size_t size)
{
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser)) return no_memory();
    yaml_parser_set_input_string(&parser, bytes, size);
    kac_status status = read_document(r, &parser);
    yaml_parser_delete(&parser);
    KAC_TRY(status);
    if (r->omitted > 0)
        return KAC_FAIL(KAC_ERR_INVALID, "%s\n%s: and %d mistakes more", r->text, r->path,
                        r->omitted);
    if (r->mistakes > 0) return KAC_FAIL(KAC_ERR_INVALID, "%s", r->text);
    return KAC_OK;
}

kac_status kac_config_parse(kac_config *config, const char *path, const void *bytes,
                            size_t size)
{
    KAC_REQUIRE(config != NULL && path != NULL && (bytes != NULL || size == 0));
    kac_status status = KAC_OK;
    if (size > FILE_MOST)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: more than %d bytes are no configuration", path,
                        (int)FILE_MOST);
    reader *r = calloc(1, sizeof *r);
    if (r == NULL) return no_memory();
    r->path = path;
    KAC_TRY_DONE(kac_config_clone(config, &r->config));
    KAC_TRY_DONE(resolve(config, &r->settings));
    KAC_TRY_DONE(read_bytes(r, bytes, size));
    kac_config before = *config;
    *config = *r->config;
    *r->config = before;
done:
    kac_config_destroy(r->config);
    free(r);
    return status;
}

kac_status kac_config_read(kac_config *config, const char *path)
{
    KAC_REQUIRE(config != NULL && path != NULL);
    FILE *stream = fopen(path, "rbe");
    if (stream == NULL)
        return KAC_FAIL(kac_path_status(errno), "%s: cannot open: %s", path, strerror(errno));
    char *bytes = malloc(FILE_MOST + 1);
    size_t size = bytes != NULL ? fread(bytes, 1, FILE_MOST + 1, stream) : 0;
    kac_status status = KAC_OK;
    if (bytes == NULL)
        status = no_memory();
    else if (ferror(stream))
        status = KAC_FAIL(kac_path_status(errno), "%s: cannot read: %s", path, strerror(errno));
    fclose(stream);
    if (status == KAC_OK) status = kac_config_parse(config, path, bytes, size);
    free(bytes);
    return status;
}

/* ---- JSON ------------------------------------------------------------------------------- */

static json_t *json_value(const kac_key *key, const char *text)
{
    bool is_number = (key->zero == NULL || strcmp(text, key->zero) != 0) &&
                     (key->absent == NULL || strcmp(text, key->absent) != 0);
    if (key->type == KAC_KEY_SWITCH && strcmp(key->choices[1], "on") == 0)
        return json_boolean(strcmp(text, "on") == 0);
    if (key->type == KAC_KEY_INTEGER && is_number) return json_integer(strtoll(text, NULL, 10));
    if (key->type == KAC_KEY_NUMBER && is_number) return json_real(strtod(text, NULL));
    return json_string(text);
}

/* Puts a value under `name`, making the objects on the way. */
static int put(json_t *object, const char *name, json_t *value)
{
    const char *point = strchr(name, '.');
    char part[KAC_NAME];
    if (point == NULL) return json_object_set_new(object, name, value);
    snprintf(part, sizeof part, "%.*s", (int)(point - name), name);
    json_t *inner = json_object_get(object, part);
    if (inner == NULL) {
        inner = json_object();
        if (json_object_set_new(object, part, inner) != 0) {
            json_decref(value);
            return -1;
        }
    }
    return put(inner, point + 1, value);
}

kac_status kac_config_json(const kac_config *config, json_t **out)
{
    KAC_REQUIRE(config != NULL && out != NULL);
    kac_settings settings;
    char text[KAC_KEY_TEXT_SIZE];
    KAC_TRY(resolve(config, &settings));
    json_t *root = json_object();
    json_t *rewards = json_array();
    int bad = json_object_set_new(root, "reward", rewards);
    for (int i = 0; i < settings.rewards; i++)
        bad |= json_array_append_new(rewards, json_object());
    for (int k = 0; k < kac_keys_count(); k++) {
        const kac_key *key = kac_keys_at(k);
        bool of_reward = strncmp(key->name, "reward.N.", 9) == 0;
        for (int i = 0; i < (of_reward ? settings.rewards : 1); i++) {
            kac_key_text(&settings, key, i, text, sizeof text);
            bad |= put(of_reward ? json_array_get(rewards, (size_t)i) : root,
                       of_reward ? key->name + 9 : key->name, json_value(key, text));
        }
    }
    if (bad != 0) {
        json_decref(root);
        return KAC_FAIL(KAC_ERR_NOMEM, "configuration: cannot be written as JSON");
    }
    *out = root;
    return KAC_OK;
}

/* ---- explaining ------------------------------------------------------------------------- */

static const char *shown(const char *initial)
{
    return initial[0] != '\0' ? initial : "empty";
}

static void explain_key(const kac_key *key, FILE *out)
{
    char expected[512];
    kac_key_expected(key, expected, sizeof expected);
    fprintf(out, "%s\n  %s\n  %s; default %s\n", key->name, key->help, expected,
            shown(key->initial));
}

static void explain_algorithm(const kac_algorithm *row, FILE *out)
{
    fprintf(out, "%s\n  %s\n  samples: %s\n  source: %s\n", row->name, row->summary, row->law,
            row->source);
    for (int i = 0; row->set[i].key != NULL; i++)
        fprintf(out, "  %s: %s\n", row->set[i].key, row->set[i].value);
}

static const struct {
    const char *name, *help;
} sections[] = {
    {"model", "What is sampled from."},
    {"process", "The reverse chain that the denoiser was trained for."},
    {"reward", "What is sought: a list of terms, N = 0, 1, ..."},
    {"objective", "How the terms become one number, the reward r."},
    {"sampler", "How particles are proposed, weighed and selected."},
    {"driver", "What leads the steps."},
    {"search", "How trees of noisy states are searched, with driver.kind search."},
    {"budget", "What a run may cost."},
    {"seed", "Randomness."},
    {"device", "Where the run is computed; none of it changes a result."},
    {"output", "What is written."},
};

static void explain_all(FILE *out)
{
    char expected[512];
    fprintf(out,
            "# Configuration\n\nWritten by `kac explain --all`. A configuration is one YAML "
            "document. Later wins: defaults, the row of\n`sampler.algorithm`, the file, "
            "`--set KEY=VALUE`. An unknown key is an error.\n");
    for (size_t s = 0; s < sizeof sections / sizeof *sections; s++) {
        fprintf(out,
                "\n## %s\n\n%s\n\n| key | value | default | meaning |\n|---|---|---|---|\n",
                sections[s].name, sections[s].help);
        for (int i = 0; i < kac_keys_count(); i++) {
            const kac_key *key = kac_keys_at(i);
            if (strcmp(key->name, sections[s].name) != 0 &&
                !kac_keys_in_section(key, sections[s].name))
                continue;
            kac_key_expected(key, expected, sizeof expected);
            fprintf(out, "| `%s` | %s | %s | %s |\n", key->name, expected, shown(key->initial),
                    key->help);
        }
    }
    fprintf(out,
            "\n## algorithms\n\nRows of `sampler.algorithm`; any key after it may override "
            "what a row sets.\n");
    for (const kac_algorithm *row = kac_algorithms; row->name != NULL; row++) {
        fprintf(out, "\n### %s\n\n%s\n\n* Samples: %s\n* Source: %s\n* Sets:", row->name,
                row->summary, row->law, row->source);
        for (int i = 0; row->set[i].key != NULL; i++)
            fprintf(out, "%s `%s: %s`", i > 0 ? "," : "", row->set[i].key, row->set[i].value);
        fprintf(out, "\n");
    }
}

/* Explains one name; false where there is no such key, section or row. */
static bool explain_name(const char *name, FILE *out)
{
    int index = -1;
    const kac_key *found = kac_keys_find(name, &index);
    if (found != NULL) {
        explain_key(found, out);
        return true;
    }
    bool known = strcmp(name, "algorithms") == 0;
    for (const kac_algorithm *row = kac_algorithms; row->name != NULL; row++) {
        if (strcmp(name, "algorithms") != 0 && strcmp(name, row->name) != 0) continue;
        explain_algorithm(row, out);
        known = true;
    }
    for (int i = 0; i < kac_keys_count(); i++) {
        if (!kac_keys_in_section(kac_keys_at(i), name)) continue;
        explain_key(kac_keys_at(i), out);
        known = true;
    }
    return known;
}

kac_status kac_config_explain(const char *key, FILE *out)
{
    KAC_REQUIRE(out != NULL);
    if (key == NULL) {
        explain_all(out);
    } else if (!explain_name(key, out)) {
        kac_settings settings = {0};
        return kac_key_assign(&settings, key, ""); /* says what is wrong */
    }
    if (fflush(out) != 0 || ferror(out))
        return KAC_FAIL(KAC_ERR_IO, "cannot write: %s", strerror(errno));
    return KAC_OK;
}
