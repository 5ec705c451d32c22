/* key_text.c -- values of configuration keys: text to field and back, and what is allowed. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "keys.h"

/* Name i of what a key can be, or NULL after the last. */
static const char *choice(const kac_key *key, int i)
{
    return key->type == KAC_KEY_ALGORITHM ? kac_algorithms[i].name : key->choices[i];
}

/* "a, b or c". */
static void list_choices(const kac_key *key, char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; choice(key, i) != NULL && used < size; i++) {
        const char *between = i == 0 ? "" : choice(key, i + 1) == NULL ? " or " : ", ";
        used += (size_t)snprintf(text + used, size - used, "%s%s", between, choice(key, i));
    }
}

void kac_key_expected(const kac_key *key, char *text, size_t size)
{
    switch (key->type) {
    case KAC_KEY_SWITCH:
    case KAC_KEY_CHOICE:
    case KAC_KEY_ALGORITHM: list_choices(key, text, size); return;
    case KAC_KEY_INTEGER:
        snprintf(text, size, "%s%san integer from %.0f to %.0f", key->zero ? key->zero : "",
                 key->zero ? " or " : "", key->low, key->high);
        return;
    case KAC_KEY_NUMBER:
        snprintf(text, size, "%s%sa number from %g to %g", key->absent ? key->absent : "",
                 key->absent ? " or " : "", key->low, key->high);
        return;
    case KAC_KEY_LIST:
    case KAC_KEY_TEXT:
        if (key->expected != NULL)
            snprintf(text, size, "%s", key->expected);
        else
            snprintf(text, size, "text of at most %zu bytes", key->size - 1);
        return;
    }
}

/* A decimal number and nothing else: no blanks, hexadecimals, infinities. */
static bool parse_number(const char *text, double *out)
{
    char *end = NULL;
    if (text[0] == '\0' || text[strspn(text, "+-.0123456789eE")] != '\0') return false;
    *out = strtod(text, &end);
    return *end == '\0' && isfinite(*out);
}

static bool parse_choice(const kac_key *key, const char *text, int *out)
{
    for (int i = 0; choice(key, i) != NULL; i++) {
        *out = i;
        if (strcmp(choice(key, i), text) == 0) return true;
    }
    return false;
}

static bool parse_switch(const kac_key *key, const char *text, bool *out)
{
    static const char *const words[][2] = {{"false", "true"}, {"no", "yes"}};
    bool plain = strcmp(key->choices[1], "on") == 0; /* YAML and JSON write true for on */
    *out = strcmp(text, key->choices[1]) == 0;
    bool read = *out || strcmp(text, key->choices[0]) == 0;
    for (int i = 0; plain && i < 2; i++) {
        *out = *out || strcmp(text, words[i][1]) == 0;
        read = read || *out || strcmp(text, words[i][0]) == 0;
    }
    return read;
}

/* Whether run.json can hold it. */
static bool is_utf8(const char *text)
{
    json_t *json = json_string(text);
    json_decref(json);
    return json != NULL;
}

/* Writes text into a field; false where it is not what the key expects. */
static bool store(const kac_key *key, const char *text, void *field)
{
    double number = 0;
    int chosen = 0;
    bool on = false;
    switch (key->type) {
    case KAC_KEY_SWITCH:
        if (!parse_switch(key, text, &on)) return false;
        *(bool *)field = on;
        return true;
    case KAC_KEY_CHOICE:
        if (!parse_choice(key, text, &chosen)) return false;
        chosen += key->first;
        memcpy(field, &chosen, sizeof chosen);
        return true;
    case KAC_KEY_INTEGER:
        if (key->zero != NULL && strcmp(text, key->zero) == 0) {
            *(int64_t *)field = 0;
            return true;
        }
        if (!parse_number(text, &number) || !(number >= key->low && number <= key->high) ||
            number != floor(number))
            return false;
        *(int64_t *)field = (int64_t)number;
        return true;
    case KAC_KEY_NUMBER:
        if (key->absent != NULL && strcmp(text, key->absent) == 0) {
            *(double *)field = (double)NAN;
            return true;
        }
        if (!parse_number(text, &number) || !(number >= key->low && number <= key->high))
            return false;
        *(double *)field = number;
        return true;
    case KAC_KEY_ALGORITHM:
        if (!parse_choice(key, text, &chosen)) return false;
        break;
    case KAC_KEY_LIST:
    case KAC_KEY_TEXT:
        if (!is_utf8(text) || (key->accepts != NULL && !key->accepts(text))) return false;
        break;
    }
    if (strlen(text) >= key->size) return false;
    memset(field, 0, key->size);
    memcpy(field, text, strlen(text));
    return true;
}

static void *field_of(kac_settings *settings, const kac_key *key, int index)
{
    size_t skip = index > 0 ? (size_t)index * sizeof settings->reward[0] : 0;
    return (char *)settings + key->offset + skip;
}

/* The choice that begins with `text`, or looks most like it, or NULL. */
static const char *similar_choice(const kac_key *key, const char *text)
{
    size_t length = strlen(text);
    const char *found = NULL;
    int least = (int)length / 3 + 1; /* as many edits are another word */
    if (length < 2 || length >= KAC_NAME) return NULL;
    for (int i = 0; choice(key, i) != NULL; i++)
        if (strncmp(choice(key, i), text, length) == 0) return choice(key, i);
    for (int i = 0; choice(key, i) != NULL; i++) {
        int distance = kac_edits(text, choice(key, i), (int)strlen(choice(key, i)));
        if (distance >= least) continue;
        least = distance;
        found = choice(key, i);
    }
    return found;
}

/* What a value that is not allowed was probably meant to be; "" where nothing is near. */
static void suggest(const kac_key *key, const char *text, char *out, size_t size)
{
    const char *near = NULL, *comma = strchr(text, ',');
    char decimal[KAC_NAME];
    double number = 0;
    out[0] = '\0';
    if (key->type == KAC_KEY_SWITCH || key->type == KAC_KEY_CHOICE ||
        key->type == KAC_KEY_ALGORITHM)
        near = similar_choice(key, text);
    if (near != NULL) (void)snprintf(out, size, " (did you mean `%s`?)", near);
    if (key->type != KAC_KEY_NUMBER || comma == NULL || strlen(text) >= sizeof decimal) return;
    (void)snprintf(decimal, sizeof decimal, "%.*s.%s", (int)(comma - text), text, comma + 1);
    if (parse_number(decimal, &number))
        (void)snprintf(out, size, " (a decimal has a point: %s)", decimal);
}

static kac_status unknown_key(const char *name)
{
    char similar[KAC_NAME];
    if (kac_keys_is_section(name))
        return KAC_FAIL(KAC_ERR_INVALID, "%s: a section, not a key", name);
    if (kac_keys_similar(name, similar, sizeof similar))
        return KAC_FAIL(KAC_ERR_INVALID, "%.100s: no such key (did you mean `%s`?)", name,
                        similar);
    return KAC_FAIL(KAC_ERR_INVALID, "%.100s: no such key", name);
}

/* Makes reward `index` exist, at its defaults. */
static kac_status append_reward(kac_settings *settings, int index)
{
    if (index >= KAC_MAX_TERMS)
        return KAC_FAIL(KAC_ERR_INVALID, "reward.%d: at most %d rewards, 0 to %d", index,
                        (int)KAC_MAX_TERMS, (int)KAC_MAX_TERMS - 1);
    if (index > settings->rewards)
        return KAC_FAIL(KAC_ERR_INVALID, "reward.%d: there is no reward.%d before it", index,
                        settings->rewards);
    if (index < settings->rewards) return KAC_OK;
    for (int i = 0; i < kac_keys_count(); i++) {
        const kac_key *key = kac_keys_at(i);
        if (strncmp(key->name, "reward.N", 8) == 0 &&
            !store(key, key->initial, field_of(settings, key, index)))
            return KAC_FAIL(KAC_ERR_INTERNAL, "%s: the default is not allowed", key->name);
    }
    settings->rewards++;
    return KAC_OK;
}

kac_status kac_key_assign(kac_settings *settings, const char *name, const char *text)
{
    int index = -1;
    const kac_key *key = kac_keys_find(name, &index);
    if (key == NULL) return unknown_key(name);
    bool of_reward = strncmp(key->name, "reward.N", 8) == 0;
    if (of_reward && index < 0)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: want a number for N, from 0", name);

    int rewards = settings->rewards;
    if (of_reward) KAC_TRY(append_reward(settings, index));
    if (!store(key, text, field_of(settings, key, index))) {
        char expected[512], near[128];
        settings->rewards = rewards; /* a mistake does not append one */
        if (!is_utf8(text))
            return KAC_FAIL(KAC_ERR_INVALID, "%s: expected text in UTF-8, found `%.100s`", name,
                            text);
        kac_key_expected(key, expected, sizeof expected);
        suggest(key, text, near, sizeof near);
        return KAC_FAIL(KAC_ERR_INVALID, "%s: expected %s, found `%.100s`%s", name, expected,
                        text, near);
    }
    return KAC_OK;
}

/* The shortest decimal that reads back as x. */
static void number_text(double x, char *text, size_t size)
{
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, size, "%.*g", digits, x);
        if (strtod(text, NULL) == x) return;
    }
}

void kac_key_text(const kac_settings *settings, const kac_key *key, int index, char *text,
                  size_t size)
{
    size_t skip = index > 0 ? (size_t)index * sizeof settings->reward[0] : 0;
    const void *field = (const char *)settings + key->offset + skip;
    int chosen = 0;
    switch (key->type) {
    case KAC_KEY_SWITCH: snprintf(text, size, "%s", key->choices[*(const bool *)field]); return;
    case KAC_KEY_CHOICE:
        memcpy(&chosen, field, sizeof chosen);
        snprintf(text, size, "%s", key->choices[chosen - key->first]);
        return;
    case KAC_KEY_INTEGER:
        if (key->zero != NULL && *(const int64_t *)field == 0)
            snprintf(text, size, "%s", key->zero);
        else
            snprintf(text, size, "%lld", (long long)*(const int64_t *)field);
        return;
    case KAC_KEY_NUMBER:
        if (key->absent != NULL && isnan(*(const double *)field))
            snprintf(text, size, "%s", key->absent);
        else
            number_text(*(const double *)field, text, size);
        return;
    case KAC_KEY_ALGORITHM:
    case KAC_KEY_LIST:
    case KAC_KEY_TEXT: snprintf(text, size, "%s", (const char *)field); return;
    }
}
