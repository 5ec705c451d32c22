/* config.c -- what a run is told: keeping what was given, setting keys, resolving.
 *
 * A configuration keeps what was given as text, key by key, so that it can be resolved again
 * after any change: defaults, then the algorithm's row, then what was given.
 */
#include "config.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "atomic.h"
#include "keys.h"

kac_status kac_config_no_memory(void)
{
    return KAC_FAIL(KAC_ERR_NOMEM, "configuration: out of memory");
}

/* ---- what was given --------------------------------------------------------------------- */

kac_status kac_config_create(kac_config **out)
{
    KAC_REQUIRE(out != NULL);
    kac_config *config = calloc(1, sizeof *config);
    if (config == NULL) return kac_config_no_memory();
    *out = config;
    return KAC_OK;
}

static void free_entry(kac_config_entry *entry)
{
    free(entry->key);
    free(entry->value);
    free(entry->place);
}

void kac_config_destroy(kac_config *config)
{
    if (config == NULL) return;
    for (int i = 0; i < config->count; i++)
        free_entry(&config->given[i]);
    free(config->given);
    free(config);
}

/* Room for one more. */
static kac_status make_room(kac_config *config)
{
    if (config->count < config->capacity) return KAC_OK;
    int capacity = 2 * config->capacity + 16;
    kac_config_entry *given = realloc(config->given, (size_t)capacity * sizeof *given);
    if (given == NULL) return kac_config_no_memory();
    config->given = given;
    config->capacity = capacity;
    return KAC_OK;
}

kac_status kac_config_keep(kac_config *config, const char *key, const char *value,
                           const char *place)
{
    int at = 0;
    while (at < config->count && strcmp(config->given[at].key, key) != 0)
        at++;
    if (at == config->count) KAC_TRY(make_room(config));
    kac_config_entry entry = {strdup(key), strdup(value), place != NULL ? strdup(place) : NULL};
    if (!entry.key || !entry.value || (place != NULL && !entry.place)) {
        free_entry(&entry);
        return kac_config_no_memory();
    }
    if (at < config->count)
        free_entry(&config->given[at]);
    else
        config->count++;
    config->given[at] = entry;
    return KAC_OK;
}

/* The same of what another configuration was given. */
static kac_status keep_entry(kac_config *config, const kac_config_entry *entry)
{
    return kac_config_keep(config, entry->key, entry->value, entry->place);
}

void kac_config_place(const kac_config *config, const char *key, char text[KAC_PLACE])
{
    text[0] = '\0';
    for (int i = 0; i < config->count; i++)
        if (strcmp(config->given[i].key, key) == 0 && config->given[i].place != NULL)
            (void)snprintf(text, KAC_PLACE, " (%s)", config->given[i].place);
}

void kac_config_drop_rewards(kac_config *config)
{
    int kept = 0;
    for (int i = 0; i < config->count; i++) {
        if (strncmp(config->given[i].key, "reward.", 7) == 0)
            free_entry(&config->given[i]);
        else
            config->given[kept++] = config->given[i];
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
        KAC_TRY_DONE(keep_entry(copy, &config->given[i]));
    *out = copy;
    copy = NULL;
done:
    kac_config_destroy(copy);
    return status;
}

/* Whether a key says how to sample, and not what an object is worth or what is done once. */
static bool guides(const char *key)
{
    static const char *const sections[] = {"sampler.", "driver.", "search.", "budget."};
    if (strcmp(key, "sampler.on_invalid") == 0 || strcmp(key, "sampler.reuse") == 0)
        return false;
    for (size_t k = 0; k < sizeof sections / sizeof *sections; k++)
        if (strncmp(key, sections[k], strlen(sections[k])) == 0) return true;
    return false;
}

/* Everything that was given but how to sample, under `algorithm`. */
static kac_status unguided(const kac_config *config, const char *algorithm, kac_config **out)
{
    kac_status status = KAC_OK;
    kac_config *copy = NULL;
    KAC_TRY(kac_config_create(&copy));
    for (int i = 0; i < config->count; i++)
        if (!guides(config->given[i].key)) KAC_TRY_DONE(keep_entry(copy, &config->given[i]));
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

/* One target for all groups. */
static kac_status drop_weights(const kac_settings *settings, kac_config *config)
{
    char key[KAC_NAME];
    for (int i = 0; i < settings->rewards; i++) {
        if (settings->reward[i].weights[0] == '\0') continue;
        snprintf(key, sizeof key, "reward.%d.weights", i);
        KAC_TRY(kac_config_set(config, key, ""));
        snprintf(key, sizeof key, "reward.%d.weight", i);
        KAC_TRY(kac_config_set(config, key, "1"));
    }
    return KAC_OK;
}

kac_status kac_config_pilot(const kac_config *config, int64_t samples, kac_config **out)
{
    static const uint64_t apart = UINT64_C(1) << 52;
    kac_status status = KAC_OK;
    kac_config *copy = NULL;
    kac_settings settings;
    KAC_REQUIRE(config != NULL && out != NULL);
    KAC_TRY(kac_config_resolve(config, &settings));
    KAC_TRY(unguided(config, "pretrained", &copy));
    KAC_TRY_DONE(drop_weights(&settings, copy));
    KAC_TRY_DONE(set_integer(copy, "sampler.groups", (uint64_t)samples));
    KAC_TRY_DONE(set_integer(copy, "seed", settings.seed ^ apart));
    KAC_TRY_DONE(kac_config_set(copy, "output.trace", "off"));
    KAC_TRY_DONE(kac_config_set(copy, "output.likelihood", "off"));
    *out = copy;
    copy = NULL;
done:
    kac_config_destroy(copy);
    return status;
}

kac_status kac_config_best_of_n(const kac_config *config, int64_t groups, int64_t particles,
                                kac_config **out)
{
    kac_status status = KAC_OK;
    kac_config *copy = NULL;
    kac_settings settings;
    bool guides = false;
    KAC_REQUIRE(config != NULL && out != NULL && groups >= 1 && particles >= 1);
    KAC_TRY(kac_config_resolve(config, &settings));
    for (int i = 0; i < settings.rewards; i++)
        guides = guides || kac_reward_guides(&settings.reward[i]);
    *out = NULL;
    if (!guides) return KAC_OK;
    KAC_TRY(unguided(config, "best_of_n", &copy));
    KAC_TRY_DONE(set_integer(copy, "sampler.groups", (uint64_t)groups));
    KAC_TRY_DONE(set_integer(copy, "sampler.particles", (uint64_t)particles));
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

/* What keys have of themselves, then of the row, then what is given. */
static kac_status assign_all(const kac_config *config, kac_settings *out)
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
    return KAC_OK;
}

kac_status kac_config_resolve(const kac_config *config, kac_settings *out)
{
    KAC_TRY(assign_all(config, out));
    for (int i = 0; i < out->rewards; i++)
        if (isnan(out->reward[i].weight))
            out->reward[i].weight = kac_reward_weight_auto(&out->reward[i]);
    if (out->process.schedule == KAC_SCHEDULE_AUTO)
        out->process.schedule = out->process.kind == KAC_PROCESS_GAUSSIAN ? KAC_SCHEDULE_VP
                                : out->process.kind == KAC_PROCESS_GRAPH
                                    ? KAC_SCHEDULE_MODEL
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
    if (out->sampler.revive_levels == 0) {
        bool draws = out->process.kind == KAC_PROCESS_MASKED; /* in its last move too */
        out->sampler.revive_levels = (out->process.steps + 7) / 8;
        if (out->sampler.revive_levels == 1 && !draws) out->sampler.revive_levels = 2;
    }
    return KAC_OK;
}

kac_status kac_config_set(kac_config *config, const char *key, const char *value)
{
    KAC_REQUIRE(config != NULL && key != NULL && value != NULL);
    kac_settings settings;
    KAC_TRY(kac_config_resolve(config, &settings));
    KAC_TRY(kac_key_assign(&settings, key, value));
    return kac_config_keep(config, key, value, NULL);
}

kac_status kac_config_get(const kac_config *config, const char *key, char *text, size_t size)
{
    KAC_REQUIRE(config != NULL && key != NULL && text != NULL && size > 0);
    kac_settings settings;
    char value[KAC_KEY_TEXT_SIZE];
    int index = -1;
    KAC_TRY(kac_config_resolve(config, &settings));
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

/* ---- JSON ------------------------------------------------------------------------------- */

static json_t *json_value(const kac_key *key, const char *text)
{
    bool is_number = (key->zero == NULL || strcmp(text, key->zero) != 0) &&
                     (key->absent == NULL || strcmp(text, key->absent) != 0);
    if (key->type == KAC_KEY_SWITCH && strcmp(key->choices[1], "on") == 0)
        return json_boolean(strcmp(text, "on") == 0);
    if (key->type == KAC_KEY_LIST) return kac_command_words(text);
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
    KAC_TRY(kac_config_resolve(config, &settings));
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

void kac_config_identify(json_t *config)
{
    static const char *const free_of_device[] = {"name", "threads", "isa"};
    json_t *sampler = json_object_get(config, "sampler");
    const char *on_dead = json_string_value(json_object_get(sampler, "on_dead"));
    if (on_dead != NULL && strcmp(on_dead, "error") == 0)
        json_object_set_new(sampler, "on_dead", json_string("freeze"));
    json_object_del(json_object_get(config, "output"), "dir");
    json_object_del(config, "checkpoint");
    json_object_del(config, "job");
    for (size_t i = 0; i < sizeof free_of_device / sizeof *free_of_device; i++)
        json_object_del(json_object_get(config, "device"), free_of_device[i]);
}

kac_status kac_config_identity(const kac_config *config, json_t **out)
{
    KAC_TRY(kac_config_json(config, out));
    kac_config_identify(*out);
    return KAC_OK;
}

bool kac_config_agrees(json_t *a, json_t *b, char *key, size_t size)
{
    const char *name = NULL;
    json_t *inner = NULL;
    size_t i = 0, used = strlen(key);
    if (json_equal(a, b)) return true;
    json_object_foreach(a, name, inner)
    {
        snprintf(key + used, size - used, used > 0 ? ".%s" : "%s", name);
        if (!kac_config_agrees(inner, json_object_get(b, name), key, size)) return false;
    }
    json_array_foreach(a, i, inner)
    {
        snprintf(key + used, size - used, ".%zu", i);
        if (!kac_config_agrees(inner, json_array_get(b, i), key, size)) return false;
    }
    /* What `a` has, `b` has too; so `b` has more, or they are values of this key. */
    key[used] = '\0';
    json_object_foreach(b, name, inner)
    {
        if (json_object_get(a, name) != NULL) continue;
        snprintf(key + used, size - used, used > 0 ? ".%s" : "%s", name);
        return false;
    }
    if (json_is_array(a) && json_array_size(b) > json_array_size(a))
        snprintf(key + used, size - used, ".%zu", json_array_size(a));
    return false;
}

kac_status kac_config_write(const kac_config *config, const char *path)
{
    KAC_REQUIRE(config != NULL && path != NULL);
    json_t *json = NULL;
    kac_atomic *file = NULL;
    kac_status status = KAC_OK;
    KAC_TRY_DONE(kac_config_json(config, &json));
    KAC_TRY_DONE(kac_atomic_create(path, &file));
    KAC_TRY_DONE(kac_json_write(json, JSON_INDENT(2), kac_atomic_stream(file)));
    status = kac_atomic_commit(file);
    file = NULL;
done:
    kac_atomic_destroy(file);
    json_decref(json);
    return status;
}
