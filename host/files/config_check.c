/* config_check.c -- which settings contradict each other, and which rows have proper weights. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "keys.h"
#include "process.h"

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

/* Whether the moves of one particle depend on the others. */
static bool is_coupled(const kac_settings *settings)
{
    return settings->process.kind == KAC_PROCESS_GRAPH && settings->process.langevin_together;
}

bool kac_properly_weighted(const kac_settings *settings)
{
    bool weighs = is_corrected(settings) || settings->sampler.twist != KAC_TWIST_NONE;
    if (settings->driver.kind == KAC_DRIVER_SEARCH ||
        settings->driver.kind == KAC_DRIVER_REFINE)
        return false;
    if (weighs && !settings->sampler.twist_weighs) return false;
    if (is_coupled(settings)) return false;
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

/* Whether alpha changes the samples or their weights.  The value of several completions, which may
 * rank, is alpha log mean exp(r / alpha). */
bool kac_reads_alpha(const kac_settings *settings)
{
    if (settings->sampler.samples > 1) return true;
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

/* Log-weights are r / alpha, which must have room for rewards of any size that is sensible. */
static kac_status check_alpha(const kac_settings *settings)
{
    const double most = 1e300;
    if (settings->sampler.alpha == 0 || !kac_reads_alpha(settings)) return KAC_OK;
    for (int i = 0; i < settings->rewards; i++) {
        double weight = kac_reward_steepest(&settings->reward[i]);
        if (weight / settings->sampler.alpha > most)
            return KAC_FAIL(KAC_ERR_INVALID,
                            "sampler.alpha: %g is so small that r / alpha overflows with "
                            "weight %g of reward.%d; want a weight of %g times alpha at most",
                            settings->sampler.alpha, weight, i, most);
    }
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

/* Several candidates of each particle would go on by themselves: that the row takes one child is
 * what most who meet this have to know. */
static kac_status refuse_candidates(const kac_config *config, const kac_settings *settings,
                                    int64_t candidates)
{
    char name[KAC_NAME], place[KAC_PLACE];
    kac_config_entry only = {"sampler.algorithm", name, NULL};
    const kac_config row = {.count = 1, .given = &only};
    kac_settings usual;
    (void)snprintf(name, sizeof name, "%s", settings->sampler.algorithm);
    KAC_TRY(kac_config_resolve(&row, &usual));
    if (usual.sampler.children > 1)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "sampler.children: the parent stage leaves %" PRId64
                        " candidates of each particle, so the group stage must select at every "
                        "step: set sampler.select.group.rule, and "
                        "sampler.select.group.trigger.kind every; else sampler.children 1",
                        candidates);
    kac_config_place(config, "sampler.children", place);
    return KAC_FAIL(KAC_ERR_INVALID,
                    "sampler.children: %" PRId64
                    "%s, but %s takes 1%s; more need a group stage "
                    "that selects at every step (sampler.select.group.rule, and "
                    "trigger.kind every)",
                    settings->sampler.children, place, name,
                    place[0] == '\0' ? ""
                                     : ": add --set sampler.children=1, or leave children out "
                                       "of the file");
}

static kac_status check_selection(const kac_config *config, const kac_settings *settings)
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
    if (candidates > 1 && !every_step) return refuse_candidates(config, settings, candidates);
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
    if (settings->sampler.alpha == 0 && kac_reads_alpha(settings))
        return KAC_FAIL(KAC_ERR_INVALID,
                        "sampler.alpha: 0 is allowed only where every selection is argmax or "
                        "top_k%s",
                        settings->sampler.samples > 1 ? ", and sampler.value.samples is 1"
                                                      : "");
    return check_alpha(settings);
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
    if ((settings->driver.sweeps + 1) * settings->sampler.groups > INT32_MAX) /* < 2^63 */
        return KAC_FAIL(KAC_ERR_INVALID,
                        "driver.sweeps: %" PRId64 " sweeps of %" PRId64
                        " groups leave more than %d objects",
                        settings->driver.sweeps, settings->sampler.groups, INT32_MAX);
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

static kac_status refuse_revive(const char *key, const char *want)
{
    return KAC_FAIL(KAC_ERR_INVALID, "%s: sampler.on_dead revive needs %s", key, want);
}

/* What tries of the last levels cannot do: they are drawn by weight within each group, go down
 * unguided, and count in the evidence. */
static kac_status check_tries(const kac_settings *settings)
{
    int64_t levels = settings->sampler.revive_levels;
    if (settings->driver.kind != KAC_DRIVER_NONE) return refuse_revive("driver.kind", "none");
    if (!kac_properly_weighted(settings))
        return refuse_revive("sampler.select",
                             "weights that are proper: no argmax, top_k or replace, "
                             "normaliser keep, weights proper, and final.kind weighted or "
                             "categorical");
    if (settings->sampler.global) return refuse_revive("sampler.select.group.scope", "group");
    if (settings->sampler.funnel[0] != '\0') return refuse_revive("sampler.funnel", "none");
    if (settings->sampler.twist != KAC_TWIST_NONE)
        return refuse_revive("sampler.twist.kind", "none, as tries are not guided");
    if (is_corrected(settings))
        return refuse_revive(
            "process.anneal",
            "1 and one denoiser, as the weights of tries are those of rewards");
    if (settings->process.kind != KAC_PROCESS_MASKED && settings->process.steps == 1)
        return refuse_revive("process.steps", "2 or more, as the last move is a function");
    if (settings->process.kind == KAC_PROCESS_GAUSSIAN &&
        (levels == 1 || settings->process.eta == 0))
        return refuse_revive("process.eta",
                             "moves that draw something: with kind gaussian, eta above 0 and "
                             "sampler.revive.levels 2 or more, as the last move is a function");
    if (settings->process.kind == KAC_PROCESS_GRAPH && levels == 1)
        return refuse_revive("sampler.revive.levels",
                             "2 or more with kind graph, as the last move is a function");
    if (levels > settings->process.steps)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "sampler.revive.levels: %" PRId64
                        " are more than process.steps, %" PRId64,
                        levels, settings->process.steps);
    int64_t moves = settings->process.steps + settings->sampler.revive_rounds * levels;
    if (moves >= 1 << 20) /* < 2^37 */
        return KAC_FAIL(KAC_ERR_INVALID,
                        "sampler.revive.rounds: %" PRId64 " rounds of %" PRId64
                        " levels make %" PRId64 " moves; want at most %d",
                        settings->sampler.revive_rounds, levels, moves, (1 << 20) - 1);
    if (settings->sampler.revive_rounds * settings->sampler.particles > INT32_MAX) /* < 2^41 */
        return KAC_FAIL(KAC_ERR_INVALID,
                        "sampler.revive.rounds: %" PRId64 " rounds of %" PRId64
                        " particles make more than %d tries of a group",
                        settings->sampler.revive_rounds, settings->sampler.particles,
                        INT32_MAX);
    return KAC_OK;
}

bool kac_can_revive(const kac_settings *settings)
{
    return check_tries(settings) == KAC_OK;
}

static kac_status check_revive(const kac_settings *settings)
{
    return settings->sampler.on_dead == KAC_DEAD_REVIVE ? check_tries(settings) : KAC_OK;
}

/* Keys that only some schedules read: bit s stands for schedule s. */
enum {
    OF_VP = 1 << KAC_SCHEDULE_VP,
    OF_EDM = 1 << KAC_SCHEDULE_EDM,
    OF_SIGMA = 1 << KAC_SCHEDULE_VE | OF_EDM,
    OF_GAUSSIAN = OF_VP | OF_SIGMA,
    OF_GRAPH = 1 << KAC_SCHEDULE_MODEL,
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
    {"sampler.twist.path", OF_MASKED},  {"process.predictor", OF_GRAPH},
    {"process.corrector", OF_GRAPH},    {"process.langevin", OF_GRAPH},
    {"process.snr", OF_GRAPH},          {"process.scale_eps", OF_GRAPH},
    {"process.nodes", OF_GRAPH},
};

/* Keys that do nothing must be as they are without being given. */
static kac_status check_readers(const kac_settings *settings)
{
    const kac_config empty = {0};
    kac_settings initial;
    KAC_TRY(kac_config_resolve(&empty, &initial));
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

static kac_status refuse_graph(const char *key, const char *want)
{
    return KAC_FAIL(KAC_ERR_INVALID, "%s: process.kind graph needs %s", key, want);
}

/* What graphs are not drawn by. */
static kac_status check_graph(const kac_settings *settings)
{
    bool draws = settings->sampler.value == KAC_VALUE_POSTERIOR_MEAN &&
                 settings->sampler.estimate == KAC_ESTIMATE_SAMPLE;
    if (settings->process.kind != KAC_PROCESS_GRAPH) return KAC_OK;
    if (kac_graph_alternates(settings) && settings->process.steps % 2 != 0)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "process.steps: moves of the corrector and of the predictor alternate, "
                        "so want an even number, found %" PRId64,
                        settings->process.steps);
    if (settings->process.corrector == KAC_CORRECTOR_NONE &&
        settings->process.langevin_together)
        return refuse_graph("process.langevin", "a corrector for batch");
    if (settings->model.plugin) return refuse_graph("model.kind", "a network");
    if (settings->model.unconditional[0] != '\0')
        return refuse_graph("model.unconditional", "one denoiser");
    if (settings->driver.kind != KAC_DRIVER_NONE) return refuse_graph("driver.kind", "none");
    if (draws) return refuse_graph("sampler.value.estimate", "argmax or soft");
    if (settings->output.likelihood)
        return refuse_graph("output.likelihood", "off, as the last move is a function");
    return KAC_OK;
}

/* Whether the schedule is one of the kind. */
static bool has_schedule(const kac_settings *settings)
{
    static const unsigned of_kind[] = {[KAC_PROCESS_MASKED] = OF_MASKED,
                                       [KAC_PROCESS_GAUSSIAN] = OF_GAUSSIAN,
                                       [KAC_PROCESS_GRAPH] = OF_GRAPH};
    return of_kind[settings->process.kind] >> settings->process.schedule & 1;
}

static kac_status check_process(const kac_settings *settings)
{
    bool gaussian = settings->process.kind == KAC_PROCESS_GAUSSIAN;
    if (!has_schedule(settings))
        return KAC_FAIL(KAC_ERR_INVALID,
                        "process.schedule: kind masked goes with loglinear, cosine, cosine2, "
                        "linear, geometric and flow, gaussian with vp, ve and edm, graph with "
                        "model");
    KAC_TRY(check_graph(settings));
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
    KAC_TRY(kac_config_resolve(config, &settings));
    if (settings.model.file[0] == '\0')
        return KAC_FAIL(KAC_ERR_INVALID, "model.file: required, a %s",
                        settings.model.plugin ? "shared object" : "safetensors file");
    if (!settings.model.plugin && settings.model.options[0] != '\0')
        return KAC_FAIL(KAC_ERR_INVALID, "model.options: goes with model.kind plugin only");
    KAC_TRY(check_process(&settings));
    KAC_TRY(check_sizes(&settings));
    KAC_TRY(check_selection(config, &settings));
    KAC_TRY(check_final(&settings));
    KAC_TRY(kac_rewards_check(&settings));
    KAC_TRY(check_guidance(&settings));
    KAC_TRY(check_search(&settings));
    KAC_TRY(check_driver(&settings));
    KAC_TRY(check_revive(&settings));
    if (settings.sampler.alpha == 0) settings.sampler.alpha = 1;
    *out = settings;
    return KAC_OK;
}
