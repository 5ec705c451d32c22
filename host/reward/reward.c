/* reward.c -- reward terms over networks, plug-ins and workers, with a memo of objects already
 * scored. */
#include "reward.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memo.h"
#include "object.h"

struct kac_rewards {
    kac_device *dev;
    kac_shape shape;
    int32_t batch;
    int networks; /* filters too */
    int files;    /* networks that are not filters, and workers */
    kac_network *network[KAC_MAX_TERMS];
    int32_t first_column[KAC_MAX_TERMS]; /* of each network */
    int32_t columns;
    int32_t column[KAC_MAX_TERMS]; /* of each term of the settings, or -1 */
    kac_memo memo;
    kac_fresh fresh;
    int32_t *entry;   /* [batch] */
    float *found;     /* [batch][columns] terms of fresh objects */
    float *cotangent; /* [batch][outputs of a network], where gradients are asked for */
    float *part;      /* [batch][L][S] gradient of one network */

    struct {
        int count;
        kac_worker *worker[KAC_MAX_TERMS];
        int term[KAC_MAX_TERMS]; /* the first of each */
        int32_t first_column[KAC_MAX_TERMS];
        const kac_object_form *form;
        size_t size;    /* of an object as text */
        char *text;     /* host [batch][size] */
        uint8_t *rows;  /* host [batch][stride] */
        int32_t *src;   /* host [batch] */
        float *numbers; /* host [batch][columns] */
    } workers;
};

/* Whether the network reads the model's objects. */
static kac_status check_objects(const kac_rewards_config *config, const kac_network *network)
{
    if (strcmp(network->alphabet, config->form->alphabet) != 0)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "%s: its alphabet is \"%s\", the model's is \"%s\"; they must be equal",
                        network->path, network->alphabet, config->form->alphabet);
    return kac_network_check_length(network, config->form->shape.length);
}

static const char *const kind_name[] = {[KAC_REWARD_NETWORK] = "network",
                                        [KAC_REWARD_PWM] = "pwm",
                                        [KAC_REWARD_TABLE] = "table",
                                        [KAC_REWARD_QUADRATIC] = "quadratic",
                                        [KAC_REWARD_PLUGIN] = "plugin"};

static kac_status check_fit(const kac_rewards_config *config, const kac_network *network,
                            const kac_reward_settings *term)
{
    const char *arch = network->arch->name;
    kac_reward_kind kind = strcmp(arch, "pwm") == 0         ? KAC_REWARD_PWM
                           : strcmp(arch, "table") == 0     ? KAC_REWARD_TABLE
                           : strcmp(arch, "quadratic") == 0 ? KAC_REWARD_QUADRATIC
                           : strcmp(arch, "plugin") == 0    ? KAC_REWARD_PLUGIN
                                                            : KAC_REWARD_NETWORK;
    if (kind != term->kind)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: it is a %s, so the kind of this reward is %s",
                        network->path, arch, kind_name[kind]);
    if (network->arch->vectors != config->vectors)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: a %s is a reward of %s, and the model's are %s",
                        network->path, arch, config->vectors ? "sequences" : "vectors",
                        config->vectors ? "vectors" : "sequences");
    if (term->output >= network->outputs)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "%s: there is no output %lld; it has %d, counted from 0", network->path,
                        (long long)term->output, network->outputs);
    return check_objects(config, network);
}

/* The network that has just been opened gets the next columns. */
static void append(kac_rewards *r)
{
    int at = r->networks++;
    r->first_column[at] = r->columns;
    r->columns += r->network[at]->outputs;
}

static kac_status open_filter(kac_rewards *r, const kac_rewards_config *config, int term)
{
    const kac_reward_settings *s = &config->settings->reward[term];
    kac_filter_spec spec = {.term = term,
                            .kind = s->kind == KAC_REWARD_GC            ? KAC_FILTER_SHARE
                                    : s->kind == KAC_REWARD_HOMOPOLYMER ? KAC_FILTER_RUN
                                                                        : KAC_FILTER_MOTIF,
                            .motifs = s->motifs,
                            .both_strands = s->both_strands};
    KAC_TRY(kac_filter_open(r->dev, &spec, config->form->alphabet, &r->network[r->networks]));
    r->column[term] = r->columns;
    append(r);
    return KAC_OK;
}

/* Whether a term is scored here: the guiding ones where `judge` is 0, and what is only recorded but
 * a worker of theirs says anyway; else the rest. */
static bool belongs(const kac_rewards_config *config, int term)
{
    const kac_settings *s = config->settings;
    bool guides = kac_reward_guides(&s->reward[term]);
    for (int i = 0; i < s->rewards && !guides; i++)
        guides = kac_reward_guides(&s->reward[i]) &&
                 kac_reward_shares_worker(&s->reward[i], &s->reward[term]);
    return guides != config->judge;
}

/* Starts the worker of `term`, or finds it among those started.  It gets a column for each number
 * of a line up to the last that a term reads. */
static kac_status open_worker(kac_rewards *r, const kac_rewards_config *config, int term)
{
    const kac_settings *s = config->settings;
    const kac_reward_settings *reward = &s->reward[term];
    int at = 0;
    while (at < r->workers.count &&
           !kac_reward_shares_worker(&s->reward[r->workers.term[at]], reward))
        at++;
    if (at == r->workers.count) {
        int64_t last = 0;
        for (int i = 0; i < s->rewards; i++)
            if (kac_reward_shares_worker(&s->reward[i], reward) && s->reward[i].output > last)
                last = s->reward[i].output;
        kac_worker_spec spec = {.term = term,
                                .command = reward->command,
                                .processes = (int32_t)reward->processes,
                                .batch = (int32_t)reward->batch,
                                .timeout = reward->timeout,
                                .attempts = (int32_t)reward->attempts,
                                .columns = (int32_t)last + 1,
                                .gives_up = s->sampler.invalid_is_worst};
        KAC_TRY(kac_worker_open(&spec, &r->workers.worker[at]));
        r->workers.term[at] = term;
        r->workers.first_column[at] = r->columns;
        r->workers.count++;
        r->columns += spec.columns;
        r->files++;
    }
    r->column[term] = r->workers.first_column[at] + (int32_t)reward->output;
    return KAC_OK;
}

/* Host memory for what goes to workers and comes back. */
static kac_status take_text(kac_rewards *r, const kac_rewards_config *config)
{
    size_t batch = (size_t)config->batch;
    if (r->workers.count == 0) return KAC_OK;
    r->workers.form = config->form;
    r->workers.size = kac_object_size(r->workers.form);
    r->workers.text = calloc(batch, r->workers.size);
    r->workers.rows = calloc(batch, (size_t)r->shape.stride);
    r->workers.src = calloc(batch, sizeof *r->workers.src);
    r->workers.numbers = calloc(batch * (size_t)r->columns, sizeof *r->workers.numbers);
    if (r->workers.text && r->workers.rows && r->workers.src && r->workers.numbers)
        return KAC_OK;
    return KAC_FAIL(KAC_ERR_NOMEM, "rewards: no memory for the text of %zu objects", batch);
}

/* Opens the file of a term, a network or a plug-in. */
static kac_status open_file(kac_rewards *r, const kac_rewards_config *config,
                            const kac_reward_settings *s, kac_network **out)
{
    kac_plugin_spec spec = {
        .role = KAC_ROLE_REWARD, .path = s->file, .options = s->options, .form = config->form};
    if (s->kind == KAC_REWARD_PLUGIN) return kac_plugin_open(r->dev, &spec, out);
    return kac_network_open(r->dev, s->file, KAC_ROLE_REWARD, out);
}

/* Opens the file of `term`, or finds it among those open. */
static kac_status open_term(kac_rewards *r, const kac_rewards_config *config, int term)
{
    const kac_reward_settings *s = &config->settings->reward[term];
    int at = 0;
    if (kac_reward_is_filter(s)) return open_filter(r, config, term);
    if (s->kind == KAC_REWARD_WORKER) return open_worker(r, config, term);
    while (at < r->networks && (strcmp(r->network[at]->path, s->file) != 0 ||
                                strcmp(r->network[at]->options, s->options) != 0))
        at++;
    if (at == r->networks) {
        KAC_TRY(open_file(r, config, s, &r->network[at]));
        append(r);
        r->files++;
    }
    KAC_TRY(check_fit(config, r->network[at], s));
    r->column[term] = r->first_column[at] + (int32_t)s->output;
    return KAC_OK;
}

/* Opens the network of values. */
static kac_status open_value(kac_rewards *r, const kac_rewards_config *config)
{
    KAC_TRY(kac_network_open(r->dev, config->value, KAC_ROLE_REWARD, &r->network[0]));
    append(r);
    r->files++;
    if (r->columns != 1)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: it has %d outputs; a value has one",
                        config->value, r->columns);
    return check_objects(config, r->network[0]);
}

/* Room for all objects, or a quarter of a million that fit into MOST bytes; beyond that the memo
 * starts afresh.  What a worker says may be dear, so there is that room whatever is expected. */
static int32_t memo_capacity(const kac_rewards *r, const kac_rewards_config *config)
{
    enum { MOST = 256 << 20 };
    int64_t capacity = 1 << 18, fitting = MOST / config->form->shape.stride;
    if (fitting < capacity) capacity = fitting;
    if (config->expected < capacity && r->workers.count == 0) capacity = config->expected;
    if (capacity < config->batch || !config->reuse) capacity = config->batch;
    return (int32_t)capacity;
}

kac_status kac_rewards_open(kac_device *dev, const kac_rewards_config *config,
                            kac_rewards **out)
{
    kac_status status = KAC_OK;
    kac_rewards *r = calloc(1, sizeof *r);
    if (r == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "rewards: no memory");
    *r = (kac_rewards){.dev = dev, .shape = config->form->shape, .batch = config->batch};

    for (int term = 0; term < config->settings->rewards; term++) {
        r->column[term] = -1;
        if (config->value == NULL && belongs(config, term))
            KAC_TRY_DONE(open_term(r, config, term));
    }
    if (config->value != NULL) KAC_TRY_DONE(open_value(r, config));
    if (r->columns == 0) goto done;
    KAC_TRY_DONE(take_text(r, config));

    size_t batch = (size_t)config->batch;
    kac_memo_size size = {.capacity = memo_capacity(r, config),
                          .stride = config->form->shape.stride,
                          .n_terms = r->columns,
                          .reuse = config->reuse};
    KAC_TRY_DONE(kac_memo_open(dev, &size, &r->memo));
    KAC_TRY_DONE(kac_fresh_open(dev, config->batch, &r->fresh));
    r->entry = dev->ops->memory.alloc(dev, batch * sizeof *r->entry);
    r->found = dev->ops->memory.alloc(dev, batch * (size_t)r->columns * sizeof *r->found);
    bool differentiated = !config->judge || config->value != NULL;
    if (config->settings->sampler.twist != KAC_TWIST_NONE && differentiated) {
        size_t row = (size_t)config->form->shape.length * (size_t)config->form->shape.states;
        r->cotangent = dev->ops->memory.alloc(dev, batch * (size_t)r->columns * sizeof(float));
        r->part = dev->ops->memory.alloc(dev, batch * row * sizeof(float));
        if (r->cotangent == NULL || r->part == NULL) status = KAC_ERR_NOMEM;
    }
    if (r->entry == NULL || r->found == NULL) status = KAC_ERR_NOMEM;
done:
    if (status != KAC_OK) {
        kac_rewards_close(r);
        return status;
    }
    *out = r;
    return KAC_OK;
}

void kac_rewards_close(kac_rewards *r)
{
    if (r == NULL) return;
    for (int i = 0; i < r->networks; i++)
        kac_network_close(r->network[i]);
    for (int i = 0; i < r->workers.count; i++)
        kac_worker_close(r->workers.worker[i]);
    free(r->workers.text);
    free(r->workers.rows);
    free(r->workers.src);
    free(r->workers.numbers);
    kac_memo_close(r->dev, &r->memo);
    kac_fresh_close(r->dev, &r->fresh);
    r->dev->ops->memory.release(r->dev, r->entry);
    r->dev->ops->memory.release(r->dev, r->found);
    r->dev->ops->memory.release(r->dev, r->cotangent);
    r->dev->ops->memory.release(r->dev, r->part);
    free(r);
}

int32_t kac_rewards_columns(const kac_rewards *r)
{
    return r->columns;
}

int32_t kac_rewards_networks(const kac_rewards *r)
{
    return r->files;
}

bool kac_rewards_soft(const kac_rewards *r, const char **refuses)
{
    for (int i = 0; i < r->networks; i++)
        if (!r->network[i]->takes_soft) {
            *refuses = r->network[i]->path;
            return false;
        }
    if (r->workers.count > 0) *refuses = kac_worker_name(r->workers.worker[0]);
    return r->workers.count == 0;
}

bool kac_rewards_have_gradients(const kac_rewards *r, const char **refuses)
{
    for (int i = 0; i < r->networks; i++)
        if (r->network[i]->vjp == NULL) {
            *refuses = r->network[i]->path;
            return false;
        }
    return true;
}

bool kac_rewards_wait(const kac_rewards *r)
{
    for (int i = 0; i < r->networks; i++)
        if (r->network[i]->waits) return true;
    return r->workers.count > 0;
}

int kac_rewards_workers(const kac_rewards *r)
{
    return r->workers.count;
}

kac_worker_counts *kac_rewards_worker(const kac_rewards *r, int i, int *term)
{
    *term = r->workers.term[i];
    return kac_worker_counted(r->workers.worker[i]);
}

const kac_memo *kac_rewards_memo(const kac_rewards *r)
{
    return &r->memo;
}

int32_t kac_rewards_column(const kac_rewards *r, int term)
{
    return r->column[term];
}

/* Every network on the rows of `q`, heads side by side in terms. */
static kac_status ask_all(kac_rewards *r, kac_query q, float *terms)
{
    q.stride = r->shape.stride;
    q.length = r->shape.length;
    q.out_stride = r->columns;
    for (int i = 0; i < r->networks; i++) {
        q.out = terms + r->first_column[i];
        KAC_TRY(kac_network_ask(r->network[i], &q));
    }
    return KAC_OK;
}

/* Every worker on the fresh rows among the n of x, beside what networks said in r->found.  Here
 * the host waits for the device, and then for the workers. */
static kac_status ask_workers(kac_rewards *r, const uint8_t *x, int32_t n)
{
    const kac_memory_ops *op = &r->dev->ops->memory;
    size_t stride = (size_t)r->shape.stride;
    int32_t count = 0;
    if (r->workers.count == 0) return KAC_OK;
    KAC_TRY(op->download(r->dev, &count, r->fresh.count, sizeof count));
    if (count == 0) return KAC_OK;
    size_t bytes = (size_t)count * (size_t)r->columns * sizeof *r->workers.numbers;
    KAC_TRY(op->download(r->dev, r->workers.src, r->fresh.src, (size_t)count * sizeof count));
    KAC_TRY(op->download(r->dev, r->workers.rows, x, (size_t)n * stride));
    if (r->networks > 0) KAC_TRY(op->download(r->dev, r->workers.numbers, r->found, bytes));
    for (int32_t q = 0; q < count; q++)
        kac_object_write(r->workers.form, r->workers.rows + (size_t)r->workers.src[q] * stride,
                         r->workers.text + (size_t)q * r->workers.size);
    for (int i = 0; i < r->workers.count; i++)
        KAC_TRY(kac_worker_ask(r->workers.worker[i], r->workers.text, r->workers.size, count,
                               r->workers.numbers + r->workers.first_column[i], r->columns));
    return op->upload(r->dev, r->found, r->workers.numbers, bytes);
}

kac_status kac_rewards_score(kac_rewards *r, const kac_rows *rows, float *terms, int64_t *made)
{
    const kac_states_ops *op = &r->dev->ops->states;
    if (r->columns == 0) return KAC_OK;
    for (int32_t b = 0, n = 0; b < rows->n; b += n) {
        n = rows->n - b < r->batch ? rows->n - b : r->batch;
        kac_rows part = {rows->x + (size_t)b * (size_t)r->shape.stride, rows->count,
                         rows->first + b, n};
        kac_query q = {
            .tokens = part.x, .src = r->fresh.src, .count = r->fresh.count, .capacity = n};

        KAC_TRY(op->forget(r->dev, r->entry, n));
        KAC_TRY(op->find(r->dev, &r->memo, &part, r->entry, &r->fresh, made));
        KAC_TRY(ask_all(r, q, r->found));
        KAC_TRY(ask_workers(r, part.x, n));
        KAC_TRY(op->learn(r->dev, &r->memo, &r->fresh, 0, n, r->found));
        KAC_TRY(
            op->recall(r->dev, &r->memo, r->entry, n, terms + (size_t)b * (size_t)r->columns));
    }
    return KAC_OK;
}

kac_status kac_rewards_score_soft(kac_rewards *r, const float *soft, const int32_t *count,
                                  int32_t first, int32_t n, float *terms)
{
    kac_query q = {.soft = soft, .count = count, .first = first, .capacity = n};
    return ask_all(r, q, terms);
}

kac_status kac_rewards_gradient(kac_rewards *r, const kac_slope_args *a, float *grad)
{
    const kac_particle_ops *op = &r->dev->ops->particles;
    int64_t floats = (int64_t)a->batch * r->shape.length * r->shape.states;
    kac_query q = {.tokens = a->x,
                   .soft = a->soft,
                   .src = a->soft == NULL ? a->fresh->src + a->first : NULL,
                   .stride = r->shape.stride,
                   .length = r->shape.length,
                   .count = a->fresh->count,
                   .first = a->first,
                   .capacity = a->batch};
    for (int i = 0; i < r->networks; i++) {
        float *out = i == 0 ? grad : r->part;
        KAC_TRY(
            op->cotangent(r->dev, a, r->first_column[i], r->network[i]->outputs, r->cotangent));
        KAC_TRY(kac_network_vjp(r->network[i], &q, r->cotangent, out));
        if (i > 0) KAC_TRY(op->axpy(r->dev, floats, 1, r->part, grad));
    }
    return KAC_OK;
}
