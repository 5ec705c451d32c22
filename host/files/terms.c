/* terms.c -- what the settings say of reward terms: weights of groups, bounds, the objective. */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "settings.h"

/* ---- weights of groups -------------------------------------------------------------------- */

static const double largest = 1e30;

/* Reads a plain decimal number; what follows it, or NULL where there is none. */
static const char *read_number(const char *text, double *out)
{
    char *end = NULL;
    *out = strtod(text, &end);
    size_t used = (size_t)(end - text);
    if (used == 0 || strspn(text, "+-.0123456789eE") < used) return NULL;
    return fabs(*out) <= largest ? end : NULL;
}

/* The numbers of a list "a,b,c", or of a range "a:b"; 0 where it is neither. */
static int64_t count_numbers(const char *text)
{
    int64_t count = 0;
    double number = 0;
    bool range = strchr(text, ':') != NULL;
    for (;;) {
        text = read_number(text, &number);
        if (text == NULL) return 0;
        count++;
        if (*text == '\0') return !range || count == 2 ? count : 0;
        if (*text++ != (range ? ':' : ',')) return 0;
    }
}

/* Number i of a list or range that count_numbers accepts. */
static double number_at(const char *text, int64_t i)
{
    double number = 0;
    const char *rest = read_number(text, &number);
    for (int64_t k = 0; k < i && rest != NULL && *rest != '\0'; k++)
        rest = read_number(rest + 1, &number);
    return number;
}

bool kac_reward_reads_weights(const char *text)
{
    return text[0] == '\0' || count_numbers(text) > 0;
}

double kac_reward_weight(const kac_reward_settings *reward, int64_t g, int64_t groups)
{
    const char *text = reward->weights;
    if (text[0] == '\0') return reward->weight;
    if (strchr(text, ':') == NULL) return number_at(text, g * count_numbers(text) / groups);
    double share = groups > 1 ? (double)g / (double)(groups - 1) : 0;
    return (1 - share) * number_at(text, 0) + share * number_at(text, 1);
}

/* ---- kinds of terms ----------------------------------------------------------------------- */

bool kac_reward_reads_motifs(const char *text)
{
    bool begins = true;
    if (text[0] == '\0') return true;
    for (; *text != '\0'; text++) {
        if (*text <= ' ' || *text > '~' || (*text == ',' && begins)) return false;
        begins = *text == ',';
    }
    return !begins;
}

static bool is_bounded(const kac_reward_settings *reward)
{
    return !isnan(reward->at_least) || !isnan(reward->at_most);
}

static bool has_weight(const kac_reward_settings *reward)
{
    return reward->weights[0] != '\0' || reward->weight != 0;
}

double kac_reward_weight_auto(const kac_reward_settings *reward)
{
    return is_bounded(reward) && isnan(reward->low) ? 0 : 1;
}

bool kac_reward_guides(const kac_reward_settings *reward)
{
    return has_weight(reward) || is_bounded(reward);
}

bool kac_reward_is_filter(const kac_reward_settings *reward)
{
    return reward->kind >= KAC_REWARD_GC;
}

void kac_reward_source(const kac_reward_settings *reward, char *text, size_t size)
{
    if (reward->kind == KAC_REWARD_WORKER)
        kac_command_name(reward->command, text, size);
    else
        snprintf(text, size, "%s", reward->file);
}

bool kac_reward_shares_worker(const kac_reward_settings *a, const kac_reward_settings *b)
{
    return a->kind == KAC_REWARD_WORKER && b->kind == KAC_REWARD_WORKER &&
           strcmp(a->command, b->command) == 0;
}

kac_objective kac_objective_of(const kac_settings *settings)
{
    kac_objective o = {.combine = settings->objective.combine,
                       .kappa = settings->objective.kappa,
                       .terms = settings->rewards};
    for (int i = 0; i < settings->rewards; i++) {
        const kac_reward_settings *reward = &settings->reward[i];
        o.term[i] = (kac_term){i, reward->low, reward->high, reward->at_least, reward->at_most};
    }
    return o;
}

/* ---- commands of workers ------------------------------------------------------------------
 */

/* Words separated by blanks; no quotes mean anything. */
static json_t *split_words(const char *text)
{
    static const char blanks[] = " \t\n";
    json_t *words = json_array();
    for (text += strspn(text, blanks); *text != '\0'; text += strspn(text, blanks)) {
        size_t length = strcspn(text, blanks);
        if (json_array_append_new(words, json_stringn(text, length)) != 0) {
            json_decref(words);
            return NULL;
        }
        text += length;
    }
    return words;
}

json_t *kac_command_words(const char *text)
{
    if (text[strspn(text, " \t\n")] != '[') return split_words(text);
    json_t *words = json_loads(text, 0, NULL);
    for (size_t i = 0; i < json_array_size(words); i++)
        if (!json_is_string(json_array_get(words, i))) {
            json_decref(words);
            return NULL;
        }
    return words;
}

void kac_command_name(const char *command, char *text, size_t size)
{
    json_t *words = kac_command_words(command);
    size_t used = (size_t)snprintf(text, size, "`"), count = json_array_size(words);
    for (size_t i = 0; i < count; i++) {
        const char *word = json_string_value(json_array_get(words, i));
        bool fits = used + strlen(word) + sizeof " ...`" < size;
        used += (size_t)snprintf(text + used, size - used, "%s%s", i > 0 ? " " : "",
                                 fits ? word : "...");
        if (!fits) break;
    }
    snprintf(text + used, size - used, "`");
    json_decref(words);
}

void kac_word_write(const char *word, FILE *out)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                                "%+,-./:=@_";
    if (word[0] != '\0' && word[strspn(word, plain)] == '\0') {
        fputs(word, out);
        return;
    }
    fputc('\'', out);
    for (; *word != '\0'; word++)
        fprintf(out, *word == '\'' ? "'\\''" : "%c", *word);
    fputc('\'', out);
}

bool kac_command_reads(const char *text)
{
    json_t *words = kac_command_words(text);
    bool reads = json_is_array(words);
    json_decref(words);
    return reads;
}

/* ---- what contradicts itself -------------------------------------------------------------- */

static kac_status check_worker(const kac_reward_settings *reward, int i)
{
    json_t *words = kac_command_words(reward->command);
    size_t count = json_array_size(words);
    json_decref(words);
    if (reward->kind != KAC_REWARD_WORKER && count > 0)
        return KAC_FAIL(KAC_ERR_INVALID, "reward.%d.command: goes with kind worker only", i);
    if (reward->kind == KAC_REWARD_WORKER && count == 0)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "reward.%d.command: required of kind worker, a program and its "
                        "arguments, such as [python3, tools/workers/template.py]",
                        i);
    if (reward->kind == KAC_REWARD_WORKER && reward->file[0] != '\0')
        return KAC_FAIL(KAC_ERR_INVALID,
                        "reward.%d.file: kind worker has none; what it reads is an argument in "
                        "command",
                        i);
    return KAC_OK;
}

/* Terms of one worker must start it in one way. */
static kac_status check_shared(const kac_reward_settings *reward, int i,
                               const kac_reward_settings *other, int k)
{
    if (!kac_reward_shares_worker(reward, other)) return KAC_OK;
    if (reward->processes == other->processes && reward->batch == other->batch &&
        reward->timeout == other->timeout && reward->attempts == other->attempts)
        return KAC_OK;
    return KAC_FAIL(
        KAC_ERR_INVALID,
        "reward.%d: it is a number of the worker of reward.%d, so processes, batch, "
        "timeout and attempts must be the same",
        i, k);
}

/* What a kind of reward is read from. */
static kac_status check_source(const kac_reward_settings *reward, int i)
{
    KAC_TRY(check_worker(reward, i));
    if (!kac_reward_is_filter(reward) && reward->kind != KAC_REWARD_WORKER &&
        reward->file[0] == '\0')
        return KAC_FAIL(KAC_ERR_INVALID, "reward.%d.file: required, a %s", i,
                        reward->kind == KAC_REWARD_PLUGIN ? "shared object"
                                                          : "safetensors file");
    if (reward->kind != KAC_REWARD_PLUGIN && reward->options[0] != '\0')
        return KAC_FAIL(KAC_ERR_INVALID, "reward.%d.options: goes with kind plugin only", i);
    if (kac_reward_is_filter(reward) && (reward->file[0] != '\0' || reward->output != 0))
        return KAC_FAIL(KAC_ERR_INVALID,
                        "reward.%d.kind: gc, homopolymer and motif have no file and no output "
                        "to choose",
                        i);
    if (reward->kind == KAC_REWARD_MOTIF && reward->motifs[0] == '\0')
        return KAC_FAIL(KAC_ERR_INVALID,
                        "reward.%d.motifs: required of kind motif, such as GAATTC,GGNCC", i);
    if (reward->kind != KAC_REWARD_MOTIF && (reward->motifs[0] != '\0' || reward->both_strands))
        return KAC_FAIL(KAC_ERR_INVALID,
                        "reward.%d: motifs and strands go with kind motif only", i);
    return KAC_OK;
}

static kac_status check_numbers(const kac_reward_settings *reward, int i)
{
    if (isnan(reward->low) != isnan(reward->high) || reward->low == reward->high)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "reward.%d: low and high go together, and differ from each other", i);
    if (reward->at_least > reward->at_most)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "reward.%d: at_least, %g, is more than at_most, %g, so every object is "
                        "forbidden",
                        i, reward->at_least, reward->at_most);
    return KAC_OK;
}

/* What a term that counts letters can be. */
typedef struct reach {
    const char *what;
    double least, most;
} reach;

static reach reach_of(const kac_reward_settings *reward, int64_t length)
{
    double most = length > 0 ? (double)length : (double)INFINITY;
    if (reward->kind == KAC_REWARD_GC) return (reach){"gc is a share", 0, 1};
    if (reward->kind == KAC_REWARD_HOMOPOLYMER)
        return (reach){"homopolymer is the length of a run", 1, most};
    for (const char *text = reward->motifs; *text != '\0'; text++)
        if (*text == ',') most += (double)length;
    if (reward->both_strands) most *= 2;
    return (reach){"motif is a number of places", 0, most};
}

static kac_status check_reach(const kac_reward_settings *reward, int i, int64_t length)
{
    reach can = reach_of(reward, length);
    const struct {
        const char *key;
        double value;
        bool beyond;
    } given[] = {
        {"at_least", reward->at_least, reward->at_least > can.most},
        {"at_most", reward->at_most, reward->at_most < can.least},
        {"high", reward->high, reward->high < 0 || reward->high > can.most},
    };
    char upto[32] = "";
    if (!isinf(can.most)) snprintf(upto, sizeof upto, " to %g", can.most);
    for (size_t k = 0; k < sizeof given / sizeof *given; k++)
        if (given[k].beyond)
            return KAC_FAIL(KAC_ERR_INVALID, "reward.%d.%s: %g, but %s from %g%s", i,
                            given[k].key, given[k].value, can.what, can.least, upto);
    return KAC_OK;
}

kac_status kac_rewards_reach(const kac_settings *settings, int64_t length)
{
    for (int i = 0; i < settings->rewards; i++)
        if (kac_reward_is_filter(&settings->reward[i]))
            KAC_TRY(check_reach(&settings->reward[i], i, length));
    return KAC_OK;
}

static bool has_negative_weight(const kac_reward_settings *reward)
{
    if (reward->weights[0] == '\0') return reward->weight < 0;
    for (int64_t k = count_numbers(reward->weights) - 1; k >= 0; k--)
        if (number_at(reward->weights, k) < 0) return true;
    return false;
}

double kac_reward_steepest(const kac_reward_settings *reward)
{
    double most = reward->weights[0] == '\0' ? fabs(reward->weight) : 0;
    for (int64_t k = count_numbers(reward->weights) - 1; k >= 0; k--) {
        double weight = fabs(number_at(reward->weights, k));
        most = weight > most ? weight : most;
    }
    return most;
}

/* What the way of combining asks of a term. */
static kac_status check_combined(const kac_settings *settings, int i)
{
    const kac_reward_settings *reward = &settings->reward[i];
    kac_combine combine = settings->objective.combine;
    const char *name = combine == KAC_COMBINE_PRODUCT ? "product" : "lower_bound";
    if (!has_weight(reward)) return KAC_OK;
    if (combine == KAC_COMBINE_PRODUCT && isnan(reward->low))
        return KAC_FAIL(KAC_ERR_INVALID,
                        "objective.combine: product multiplies desirabilities, so reward.%d "
                        "needs low and high",
                        i);
    if ((combine == KAC_COMBINE_PRODUCT || combine == KAC_COMBINE_LOWER_BOUND) &&
        has_negative_weight(reward))
        return KAC_FAIL(KAC_ERR_INVALID,
                        "objective.combine: %s takes no weight below 0, and reward.%d has one",
                        name, i);
    return KAC_OK;
}

kac_status kac_weights_check(const kac_settings *settings, int64_t groups)
{
    for (int i = 0; i < settings->rewards; i++) {
        int64_t numbers = count_numbers(settings->reward[i].weights);
        if (numbers > groups)
            return KAC_FAIL(KAC_ERR_INVALID,
                            "reward.%d.weights: %" PRId64 " numbers for %" PRId64 " groups%s",
                            i, numbers, groups,
                            groups < settings->sampler.groups ? ", which budget leaves" : "");
    }
    return KAC_OK;
}

static kac_status check_scope(const kac_settings *settings, int i)
{
    if (settings->reward[i].weights[0] != '\0' && settings->sampler.final_pool)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "sampler.final.scope: all compares rewards of all groups, and "
                        "reward.%d.weights gives each its own",
                        i);
    return KAC_OK;
}

kac_status kac_rewards_check(const kac_settings *settings)
{
    for (int i = 0; i < settings->rewards; i++) {
        const kac_reward_settings *reward = &settings->reward[i];
        KAC_TRY(check_source(reward, i));
        KAC_TRY(check_numbers(reward, i));
        KAC_TRY(check_combined(settings, i));
        KAC_TRY(check_scope(settings, i));
        for (int k = 0; k < i; k++) {
            KAC_TRY(check_shared(reward, i, &settings->reward[k], k));
            if (reward->name[0] != '\0' && strcmp(reward->name, settings->reward[k].name) == 0)
                return KAC_FAIL(KAC_ERR_INVALID,
                                "reward.%d.name: reward.%d is also called `%s`", i, k,
                                reward->name);
        }
    }
    KAC_TRY(kac_weights_check(settings, settings->sampler.groups));
    return kac_rewards_reach(settings, settings->process.length);
}
