/* keys.c -- the one table of configuration keys, and text to field and back. */
#include "keys.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(kac_rule) == sizeof(int), "choices are stored as int");

#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})
#define FIELD(path)                                                                            \
    .offset = offsetof(kac_settings, path), .size = sizeof((kac_settings *)0)->path

#define SWITCH(path, off, on) .type = KAC_KEY_SWITCH, FIELD(path), .choices = LIST(off, on)
#define CHOICE(path, ...)     .type = KAC_KEY_CHOICE, FIELD(path), .choices = LIST(__VA_ARGS__)
#define TEXT(path)            .type = KAC_KEY_TEXT, FIELD(path)
#define INTEGER(path, least, most)                                                             \
    .type = KAC_KEY_INTEGER, FIELD(path), .low = (least), .high = (most)
#define NUMBER(path, least, most)                                                              \
    .type = KAC_KEY_NUMBER, FIELD(path), .low = (least), .high = (most)

static bool is_device(const char *text)
{
    if (strcmp(text, "auto") == 0 || strcmp(text, "cpu") == 0) return true;
    if (strncmp(text, "cuda:", 5) != 0) return false;
    size_t digits = strspn(text + 5, "0123456789");
    return digits >= 1 && digits <= 3 && text[5 + digits] == '\0';
}

static bool is_column(const char *text)
{
    static const char *const taken[] = {"id",     "group",      "slot",          "object",
                                        "reward", "log_weight", "log_likelihood"};
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++)
        if (strcmp(text, taken[i]) == 0) return false;
    return text[strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                             "_.-")] == '\0';
}

static bool is_template(const char *text)
{
    for (; *text != '\0'; text++)
        if (*text <= ' ' || *text > '~') return false;
    return true;
}

/* Integers of JSON files keep all their digits up to 2^53. */
#define SEED_MOST  9007199254740991.0
#define STEPS_MOST 1048575 /* the move has 20 bits in the counter of random numbers */
#define LARGEST    1e30

static const kac_key keys[] = {
    {"model.file", TEXT(model.file), .initial = "",
     .help = "The denoiser: a safetensors file that names its architecture and alphabet. "
             "Required."},

    {"process.kind", CHOICE(process.kind, "masked", "gaussian"), .initial = "masked",
     .help =
         "The noising process: masked is absorbing discrete diffusion of sequences, gaussian "
         "is diffusion of vectors."},
    {"process.steps", INTEGER(process.steps, 1, STEPS_MOST), .initial = "128",
     .help = "Reverse steps, T."},
    {"process.schedule",
     CHOICE(process.schedule, "auto", "loglinear", "cosine", "cosine2", "linear", "geometric",
            "flow", "vp", "ve", "edm"),
     .initial = "auto",
     .help =
         "How the probability of a mask, or the noise (vp, ve, edm), falls on the way; take "
         "the one that the denoiser was trained with. auto is loglinear, or vp where kind is "
         "gaussian."},
    {"process.length", INTEGER(process.length, 1, 16777216), .zero = "auto", .initial = "auto",
     .help = "Sites of an object, L; auto is the length in the model file."},
    {"process.temperature", NUMBER(process.temperature, 1e-3, 1e3), .initial = "1",
     .help = "Kind masked: divides the denoiser's logits; below 1 sharpens its letters. It "
             "changes q."},
    {"process.epsilon", NUMBER(process.epsilon, 0, 0.5), .initial = "0.001",
     .help =
         "Schedules loglinear, cosine and cosine2: a site is left unmasked at the noise end "
         "with this probability."},
    {"process.end", NUMBER(process.end, 0, 0.5), .initial = "1e-5",
     .help =
         "Time of the last level (1 is noise), all schedules but flow; what is still masked "
         "there is filled in at once."},
    {"process.begin", NUMBER(process.begin, 0, 0.5), .initial = "0.01",
     .help = "Schedule flow: time of the first level (0 is noise)."},
    {"process.beta_min", NUMBER(process.beta_min, 0, 1e3), .initial = "0.1",
     .help = "Schedule vp: rate of noise at the end of the chain, where t is 0."},
    {"process.beta_max", NUMBER(process.beta_max, 1e-3, 1e3), .initial = "20",
     .help = "Schedule vp: rate of noise at its start, t = 1; linear in between."},
    {"process.sigma_min", NUMBER(process.sigma_min, 1e-6, 1e6), .initial = "0.002",
     .help = "Schedules ve and edm: deviation of the noise at the last level before 0."},
    {"process.sigma_max", NUMBER(process.sigma_max, 1e-6, 1e6), .initial = "80",
     .help = "Schedules ve and edm: deviation of the noise at the first level."},
    {"process.rho", NUMBER(process.rho, 0.1, 1e3), .initial = "7",
     .help = "Schedule edm: larger puts more of the levels at low noise."},
    {"process.eta", NUMBER(process.eta, 0, 1), .initial = "1",
     .help =
         "Kind gaussian: 1 draws from the posterior of the level below (ancestral, DDPM), 0 "
         "draws nothing (DDIM, the probability flow), and copies then stay together."},
    {"process.order", INTEGER(process.order, 1, 2), .initial = "1",
     .help = "Kind gaussian: 2 extrapolates the denoiser's estimate from the level above "
             "(DPM-Solver++(2M); with eta 1 its SDE form), at no more calls."},
    {"process.sigma_data", NUMBER(process.sigma_data, 0, 1e6), .initial = "1",
     .help = "Kind gaussian, estimate sample: completions are drawn around the estimate with "
             "the variance that x0 would have if the data were normal with this deviation."},

    {"process.template", TEXT(process.template), .accepts = is_template,
     .expected =
         "letters of the model's alphabet, ? for a free site, or for DNA and RNA a code "
         "such as N, R or Y for the letters it stands for",
     .initial = "",
     .help = "Sites that are given, a character for each: a letter stays as it is, ? is free, "
             "and a IUPAC code restricts the site to its letters (with the exact weight)."},

    {"reward.N.name", TEXT(reward[0].name), .accepts = is_column,
     .expected = "letters, digits, _ . or -, and no column of samples.csv", .initial = "",
     .help = "Its column in samples.csv; without it, the name of the file."},
    {"reward.N.kind", CHOICE(reward[0].kind, "network", "pwm", "table", "quadratic"),
     .initial = "network",
     .help = "A network (convgru, conv_regressor), a position weight matrix, a table of all "
             "objects, or a quadratic function of a vector."},
    {"reward.N.file", TEXT(reward[0].file), .initial = "",
     .help = "A safetensors file. Required."},
    {"reward.N.output", INTEGER(reward[0].output, 0, 4095), .initial = "0",
     .help = "Which output of the network, counted from 0."},
    {"reward.N.weight", NUMBER(reward[0].weight, -LARGEST, LARGEST), .initial = "1",
     .help = "Its weight in the sum r that guides; 0 only records it for the final samples."},

    {"sampler.algorithm", .type = KAC_KEY_ALGORITHM, FIELD(sampler.algorithm), .initial = "smc",
     .help = "A row of the table of algorithms; every key below may override it."},
    {"sampler.alpha", NUMBER(sampler.alpha, 0, LARGEST), .initial = "1",
     .help = "The temperature of p*(x) ~ q(x) exp(r(x) / alpha), in units of the reward; "
             "smaller steers harder. argmax ignores it, and only there 0 is allowed."},
    {"sampler.groups", INTEGER(sampler.groups, 1, 16777216), .initial = "16",
     .help = "Groups: independent replicates, within which particles compete."},
    {"sampler.particles", INTEGER(sampler.particles, 1, 16777216), .initial = "64",
     .help = "Particles of a group, N."},
    {"sampler.children", INTEGER(sampler.children, 1, KAC_MAX_CHILDREN), .initial = "1",
     .help = "Proposals drawn from each particle in each step, M."},
    {"sampler.value.kind", CHOICE(sampler.value, "none", "posterior_mean"),
     .initial = "posterior_mean",
     .help = "What a step believes of the reward to come: the reward at the denoiser's "
             "completion of the child, or nothing."},
    {"sampler.value.estimate", CHOICE(sampler.estimate, "argmax", "soft", "sample"),
     .initial = "argmax",
     .help =
         "The completion: the likeliest letters, their probabilities (where the reward can "
         "read them), or drawn letters. Of a vector: the denoiser's estimate of x0 (argmax and "
         "soft), or draws around it."},
    {"sampler.value.samples", INTEGER(sampler.samples, 1, 64), .initial = "1",
     .help = "Estimate sample: completions drawn for each child, J; the value is the "
             "log-mean-exp of their rewards."},
    {"sampler.twist.kind", CHOICE(sampler.twist, "none", "posterior_mean"), .initial = "none",
     .help = "Tilts what is proposed by a gradient: of the reward at the denoiser's "
             "probabilities, or its estimate of a vector, as a function of the noisy state."},
    {"sampler.twist.path", CHOICE(sampler.twist_path, "both", "direct", "denoiser"),
     .initial = "both",
     .help = "What the gradient goes through: a site's own probabilities (direct), what its "
             "letter tells the denoiser about the others (denoiser), or both."},
    {"sampler.twist.scale", NUMBER(sampler.twist_scale, -LARGEST, LARGEST), .initial = "1",
     .help = "Multiplies the tilt, for each particle alone; 1 is the first-order guess of the "
             "best proposal."},
    {"sampler.twist.weights", SWITCH(sampler.twist_weighs, "ignore", "correct"),
     .initial = "correct",
     .help = "Whether weights take in the exact ratio of the denoiser's law to the tilted one; "
             "ignore gives up p*."},
    {"sampler.temper.kind", CHOICE(sampler.temper, "none", "linear", "geometric", "ess"),
     .initial = "none",
     .help = "Values count in part at first and in full at the end: their exponent rises with "
             "the steps (linear, geometric), or as far as the ESS of each pool allows (ess)."},
    {"sampler.temper.gamma", NUMBER(sampler.temper_gamma, 0, 1e3), .initial = "0.05",
     .help = "Kind geometric: the exponent at step s is (1 + gamma)^s - 1, at most 1."},
    {"sampler.temper.ess", NUMBER(sampler.temper_ess, 0, 1), .initial = "0.7",
     .help = "Kind ess: the share of the candidates that the exponent must leave effective."},
    {"sampler.potential", CHOICE(sampler.potential, "difference", "max", "sum", "terminal"),
     .initial = "difference",
     .help =
         "What weighs a particle on its way: the latest value, the largest so far, the sum "
         "so far, or nothing before the end (terminal; then no value is computed). At the end "
         "it is always r / alpha."},
    {"sampler.select.parent.rule",
     CHOICE(sampler.parent_rule, "none", "categorical", "argmax", "top_k"),
     .initial = "categorical",
     .help =
         "Selection among the children of a particle: keep all, draw one by weight, keep the "
         "best, or keep the best few."},
    {"sampler.select.parent.normaliser", SWITCH(sampler.keep_normaliser, "discard", "keep"),
     .initial = "keep",
     .help = "Whether a particle's weight takes in the mean weight of its children (rule "
             "categorical); discard gives up p*."},
    {"sampler.select.parent.keep", INTEGER(sampler.parent_keep, 1, KAC_MAX_CHILDREN),
     .initial = "1", .help = "Rule top_k: children kept of each particle."},
    {"sampler.select.group.rule",
     CHOICE(sampler.group_rule, "none", "categorical", "argmax", "top_k"),
     .initial = "categorical",
     .help =
         "Selection among the particles of a group: none, draw by weight, all copies of the "
         "best, or the best as many as there are particles."},
    {"sampler.select.group.scheme",
     CHOICE(sampler.scheme, "tournament", "systematic", "stratified", "residual", "multinomial",
            "killing"),
     .initial = "tournament",
     .help = "Rule categorical: how whole numbers of offspring are drawn from the weights."},
    {"sampler.select.group.scope", SWITCH(sampler.global, "group", "global"),
     .initial = "group",
     .help = "Particles compete within their group, or all groups of a target compete."},
    {"sampler.select.group.trigger.kind",
     CHOICE(sampler.trigger, "every", "ess", "window", "never"), .initial = "ess",
     .help = "When groups select: at each step that from, to and every admit (every, window), "
             "at those of them with a low ESS (ess), or never."},
    {"sampler.select.group.trigger.below", NUMBER(sampler.below, 0, 1), .initial = "0.5",
     .help = "Trigger ess: select when ESS divided by the number of candidates is below this."},
    {"sampler.select.group.trigger.every", INTEGER(sampler.every, 1, STEPS_MOST),
     .initial = "1", .help = "Select only at steps that are multiples of this."},
    {"sampler.select.group.trigger.from", INTEGER(sampler.from, 1, STEPS_MOST), .initial = "1",
     .help = "First step at which groups may select, counted from 1."},
    {"sampler.select.group.trigger.to", INTEGER(sampler.to, 1, STEPS_MOST), .zero = "last",
     .initial = "last", .help = "Last step at which groups may select."},
    {"sampler.final.kind", CHOICE(sampler.final, "weighted", "categorical", "argmax", "top_k"),
     .initial = "weighted",
     .help =
         "Which particles become samples: all with their weights, some drawn by weight, the "
         "best by reward, or the best few distinct ones."},
    {"sampler.final.keep", INTEGER(sampler.keep, 1, 16777216), .zero = "all", .initial = "all",
     .help = "Samples for each group (categorical, top_k)."},
    {"sampler.final.scope", SWITCH(sampler.final_pool, "group", "all"), .initial = "group",
     .help = "Kind top_k: the best of each group, or keep x groups from the whole population."},
    {"sampler.reuse", SWITCH(sampler.reuse, "off", "on"), .initial = "on",
     .help = "Evaluate equal states once; off gives the same samples and is slower."},
    {"sampler.on_dead", SWITCH(sampler.dead_is_error, "freeze", "error"), .initial = "error",
     .help = "A group whose weights are all zero: stop, or go on unguided with evidence 0."},
    {"sampler.on_invalid", SWITCH(sampler.invalid_is_worst, "error", "worst"),
     .initial = "error",
     .help = "A reward that is not a number: stop, or take it for minus infinity."},

    {"seed", INTEGER(seed, 0, SEED_MOST), .initial = "1",
     .help = "Key of all random numbers; the same seed gives the same samples."},

    {"device.name", TEXT(device.name), .accepts = is_device, .expected = "auto, cpu or cuda:N",
     .initial = "auto", .help = "Where to compute."},
    {"device.precision", CHOICE(device.precision, "exact"), .initial = "exact",
     .help = "exact gives the same bits on every machine."},
    {"device.batch", INTEGER(device.batch, 1, 16777216), .zero = "auto", .initial = "auto",
     .help = "States in one call of a network; it changes memory and speed, not results."},
    {"device.cache", INTEGER(device.cache, 0, 1 << 20), .initial = "1024",
     .help =
         "Memory in MiB for outputs of the denoiser that will be asked for again, beyond one "
         "for each particle; what does not fit is computed again, and counted."},
    {"device.threads", INTEGER(device.threads, 1, 4096), .zero = "auto", .initial = "auto",
     .help = "Threads of the CPU; results do not depend on them."},
    {"device.isa", CHOICE(device.isa, "auto", "portable", "avx2", "avx512"), .first = -1,
     .initial = "auto",
     .help = "Instructions of the CPU; auto takes the widest, and results do not depend on "
             "them."},

    {"output.dir", TEXT(output.dir), .initial = "",
     .help = "Folder of the results, which must not exist; --out on the command line."},
    {"output.trace", SWITCH(output.trace, "off", "on"), .initial = "on",
     .help = "Write trace.jsonl, a line for each step."},
    {"output.likelihood", SWITCH(output.likelihood, "off", "on"), .initial = "off",
     .help = "Estimate the samples' log-likelihood under the denoiser; it takes T more calls "
             "for each."},
};

enum { KEYS = sizeof keys / sizeof *keys };

int kac_keys_count(void)
{
    return KEYS;
}

const kac_key *kac_keys_at(int i)
{
    return &keys[i];
}

/* ---- names ------------------------------------------------------------------------------ */

/* Replaces the number in "reward.3.weight" by N; false where the name is too long. */
static bool generic_name(const char *name, char *text, size_t size, int *index)
{
    static const char prefix[] = "reward.";
    const char *digits = name + sizeof prefix - 1;
    *index = -1;
    if (strncmp(name, prefix, sizeof prefix - 1) == 0) {
        size_t n = strspn(digits, "0123456789");
        bool leading_zero = n > 1 && digits[0] == '0';
        if (n >= 1 && n <= 4 && !leading_zero && (digits[n] == '.' || digits[n] == '\0')) {
            *index = (int)strtol(digits, NULL, 10);
            return snprintf(text, size, "%sN%s", prefix, digits + n) < (int)size;
        }
    }
    return snprintf(text, size, "%s", name) < (int)size;
}

const kac_key *kac_keys_find(const char *name, int *index)
{
    char generic[KAC_NAME];
    if (!generic_name(name, generic, sizeof generic, index)) return NULL;
    for (int i = 0; i < (int)KEYS; i++)
        if (strcmp(keys[i].name, generic) == 0) return &keys[i];
    return NULL;
}

static bool begins(const kac_key *key, const char *generic)
{
    size_t length = strlen(generic);
    return strncmp(key->name, generic, length) == 0 && key->name[length] == '.';
}

bool kac_keys_in_section(const kac_key *key, const char *section)
{
    char generic[KAC_NAME];
    int index = -1;
    return generic_name(section, generic, sizeof generic, &index) && begins(key, generic);
}

bool kac_keys_is_section(const char *name)
{
    char generic[KAC_NAME];
    int index = -1;
    if (!generic_name(name, generic, sizeof generic, &index)) return false;
    for (int i = 0; i < (int)KEYS; i++)
        if (begins(&keys[i], generic)) return true;
    return false;
}

/* Letters to insert, delete, change or swap with a neighbour to turn a into b (Damerau 1964, no
 * substring edited twice).  Both are shorter than KAC_NAME; `n` letters of b count. */
static int edits(const char *a, const char *b, int n)
{
    int rows[3][KAC_NAME];
    int m = (int)strlen(a);
    for (int j = 0; j <= n; j++)
        rows[0][j] = j;
    for (int i = 1; i <= m; i++) {
        int *row = rows[i % 3];
        const int *above = rows[(i + 2) % 3];
        const int *before = rows[(i + 1) % 3];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int best = above[j - 1] + (a[i - 1] != b[j - 1]);
            if (above[j] + 1 < best) best = above[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            row[j] = best;
        }
    }
    return rows[m % 3][n];
}

static const char *last_part(const char *name)
{
    const char *point = strrchr(name, '.');
    return point != NULL ? point + 1 : name;
}

bool kac_keys_similar(const char *name, char *text, size_t size)
{
    char generic[KAC_NAME];
    int index = -1;
    const char *found = NULL;
    int found_length = 0;
    if (!generic_name(name, generic, sizeof generic, &index)) return false;
    int least = (int)strlen(last_part(generic)) / 3 + 2; /* further off is no help */
    for (int i = 0; i < (int)KEYS; i++) {
        for (const char *end = keys[i].name; *end != '\0';) { /* each section, then the key */
            end = strchrnul(end + 1, '.');
            int distance = edits(generic, keys[i].name, (int)(end - keys[i].name));
            /* A right name in the wrong section is one mistake. */
            if (*end == '\0' && strcmp(last_part(generic), last_part(keys[i].name)) == 0)
                distance = distance < 1 ? distance : 1;
            if (distance >= least) continue;
            least = distance;
            found = keys[i].name;
            found_length = (int)(end - keys[i].name);
        }
    }
    if (found == NULL) return false;
    if (strncmp(found, "reward.N", 8) == 0 && found_length >= 8)
        snprintf(text, size, "reward.%d%.*s", index < 0 ? 0 : index, found_length - 8,
                 found + 8);
    else
        snprintf(text, size, "%.*s", found_length, found);
    return true;
}

/* ---- text to field and back ------------------------------------------------------------- */

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
        snprintf(text, size, "a number from %g to %g", key->low, key->high);
        return;
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
    bool plain = strcmp(key->choices[1], "on") == 0; /* YAML and JSON write true for on */
    *out = strcmp(text, key->choices[1]) == 0 || (plain && strcmp(text, "true") == 0);
    return *out || strcmp(text, key->choices[0]) == 0 || (plain && strcmp(text, "false") == 0);
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
        if (!parse_number(text, &number) || !(number >= key->low && number <= key->high))
            return false;
        *(double *)field = number;
        return true;
    case KAC_KEY_ALGORITHM:
        if (!parse_choice(key, text, &chosen)) return false;
        break;
    case KAC_KEY_TEXT:
        if (key->accepts != NULL && !key->accepts(text)) return false;
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
    for (int i = 0; i < (int)KEYS; i++)
        if (strncmp(keys[i].name, "reward.N", 8) == 0 &&
            !store(&keys[i], keys[i].initial, field_of(settings, &keys[i], index)))
            return KAC_FAIL(KAC_ERR_INTERNAL, "%s: the default is not allowed", keys[i].name);
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
        char expected[512];
        settings->rewards = rewards; /* a mistake does not append one */
        kac_key_expected(key, expected, sizeof expected);
        return KAC_FAIL(KAC_ERR_INVALID, "%s: expected %s, found `%.100s`", name, expected,
                        text);
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
    case KAC_KEY_NUMBER: number_text(*(const double *)field, text, size); return;
    case KAC_KEY_ALGORITHM:
    case KAC_KEY_TEXT: snprintf(text, size, "%s", (const char *)field); return;
    }
}
