/* reward.c -- reward terms over networks, with a memo of objects already scored. */
#include "reward.h"

#include <stdlib.h>
#include <string.h>

#include "memo.h"

struct kac_rewards {
    kac_device *dev;
    kac_shape shape;
    int32_t batch;
    int networks;
    kac_network *network[KAC_MAX_TERMS];
    int32_t first_column[KAC_MAX_TERMS]; /* of each network */
    int32_t columns;
    int32_t column[KAC_MAX_TERMS]; /* of each term of the settings, or -1 */
    kac_memo memo;
    kac_fresh fresh;
    int32_t *entry; /* [batch] */
    float *found;   /* [batch][columns] terms of fresh objects */

    /* gradients */
    float
        *cotangent[KAC_MAX_TERMS]; /* of each network, [batch][outputs]: weights of its heads */
    float *part;                   /* [batch][length][S] */
};

static kac_status check_fit(const kac_rewards_config *config, const kac_network *network,
                            const kac_reward_settings *term)
{
    const char *arch = network->arch->name;
    kac_reward_kind kind = strcmp(arch, "pwm") == 0         ? KAC_REWARD_PWM
                           : strcmp(arch, "table") == 0     ? KAC_REWARD_TABLE
                           : strcmp(arch, "quadratic") == 0 ? KAC_REWARD_QUADRATIC
                                                            : KAC_REWARD_NETWORK;
    if (kind != term->kind)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: it is a %s, so the kind of this reward is %s",
                        network->path, arch, kind == KAC_REWARD_NETWORK ? "network" : arch);
    if (network->arch->vectors != config->vectors)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: a %s is a reward of %s, and the model's are %s",
                        network->path, arch, config->vectors ? "sequences" : "vectors",
                        config->vectors ? "vectors" : "sequences");
    if (strcmp(network->alphabet, config->alphabet) != 0)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "%s: its alphabet is \"%s\", the model's is \"%s\"; they must be equal",
                        network->path, network->alphabet, config->alphabet);
    if (term->output >= network->outputs)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "%s: there is no output %lld; it has %d, counted from 0", network->path,
                        (long long)term->output, network->outputs);
    return kac_network_check_length(network, config->shape.length);
}

/* Opens the file of `term`, or finds it among those open. */
static kac_status open_term(kac_rewards *r, const kac_rewards_config *config, int term)
{
    const kac_reward_settings *s = &config->settings->reward[term];
    int at = 0;
    while (at < r->networks && strcmp(r->network[at]->path, s->file) != 0)
        at++;
    if (at == r->networks) {
        KAC_TRY(kac_network_open(r->dev, s->file, KAC_ROLE_REWARD, &r->network[at]));
        r->networks++;
        r->first_column[at] = r->columns;
        r->columns += r->network[at]->outputs;
    }
    KAC_TRY(check_fit(config, r->network[at], s));
    r->column[term] = r->first_column[at] + (int32_t)s->output;
    return KAC_OK;
}

/* The weights of each network's heads, a row for each row of a batch. */
static kac_status open_cotangents(kac_rewards *r, const kac_rewards_config *config)
{
    const kac_memory_ops *op = &r->dev->ops->memory;
    size_t batch = (size_t)config->batch;
    size_t numbers = (size_t)config->shape.length * (size_t)config->shape.states;
    r->part = op->alloc(r->dev, batch * numbers * sizeof *r->part);
    if (r->part == NULL) return KAC_ERR_NOMEM;
    for (int at = 0; at < r->networks; at++) {
        size_t outputs = (size_t)r->network[at]->outputs;
        size_t bytes = batch * outputs * sizeof(float);
        float *host = calloc(batch * outputs, sizeof *host);
        if (host == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "rewards: no memory");
        for (int term = 0; term < config->settings->rewards; term++) {
            int32_t head = r->column[term] - r->first_column[at];
            if (r->column[term] < 0 || head < 0 || head >= r->network[at]->outputs) continue;
            for (size_t i = 0; i < batch; i++)
                host[i * outputs + (size_t)head] +=
                    (float)config->settings->reward[term].weight;
        }
        r->cotangent[at] = op->alloc(r->dev, bytes);
        kac_status status = r->cotangent[at] == NULL
                                ? KAC_ERR_NOMEM
                                : op->upload(r->dev, r->cotangent[at], host, bytes);
        free(host);
        KAC_TRY(status);
    }
    return KAC_OK;
}

kac_status kac_rewards_open(kac_device *dev, const kac_rewards_config *config,
                            kac_rewards **out)
{
    kac_status status = KAC_OK;
    kac_rewards *r = calloc(1, sizeof *r);
    if (r == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "rewards: no memory");
    *r = (kac_rewards){.dev = dev, .shape = config->shape, .batch = config->batch};

    for (int term = 0; term < config->settings->rewards; term++) {
        r->column[term] = -1;
        bool judges = config->settings->reward[term].weight == 0;
        if (judges == config->judge) KAC_TRY_DONE(open_term(r, config, term));
    }
    if (r->columns == 0) goto done;

    size_t batch = (size_t)config->batch;
    /* Room for all objects, or a quarter of a million; beyond that the memo starts afresh. */
    int64_t capacity = config->expected < 1 << 18 ? config->expected : 1 << 18;
    if (capacity < config->batch || !config->reuse) capacity = config->batch;
    kac_memo_size size = {.capacity = (int32_t)capacity,
                          .stride = config->shape.stride,
                          .n_terms = r->columns,
                          .reuse = config->reuse};
    KAC_TRY_DONE(kac_memo_open(dev, &size, &r->memo));
    KAC_TRY_DONE(kac_fresh_open(dev, config->batch, &r->fresh));
    r->entry = dev->ops->memory.alloc(dev, batch * sizeof *r->entry);
    r->found = dev->ops->memory.alloc(dev, batch * (size_t)r->columns * sizeof *r->found);
    if (r->entry == NULL || r->found == NULL) status = KAC_ERR_NOMEM;
    if (status == KAC_OK && config->pulls) status = open_cotangents(r, config);
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
    kac_memo_close(r->dev, &r->memo);
    kac_fresh_close(r->dev, &r->fresh);
    r->dev->ops->memory.release(r->dev, r->entry);
    r->dev->ops->memory.release(r->dev, r->found);
    for (int i = 0; i < r->networks; i++)
        r->dev->ops->memory.release(r->dev, r->cotangent[i]);
    r->dev->ops->memory.release(r->dev, r->part);
    free(r);
}

int32_t kac_rewards_columns(const kac_rewards *r)
{
    return r->columns;
}

int32_t kac_rewards_networks(const kac_rewards *r)
{
    return r->networks;
}

bool kac_rewards_soft(const kac_rewards *r, const char **refuses)
{
    for (int i = 0; i < r->networks; i++)
        if (!r->network[i]->takes_soft) {
            *refuses = r->network[i]->path;
            return false;
        }
    return true;
}

bool kac_rewards_pulls(const kac_rewards *r, const char **lacks)
{
    for (int i = 0; i < r->networks; i++)
        if (r->network[i]->vjp == NULL) {
            *lacks = r->network[i]->path;
            return false;
        }
    return true;
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

kac_status kac_rewards_score(kac_rewards *r, const kac_rows *rows, float *terms, int64_t *made)
{
    const kac_states_ops *op = &r->dev->ops->states;
    if (r->columns == 0) return KAC_OK;
    for (int32_t b = 0; b < rows->n; b += r->batch) {
        int32_t n = rows->n - b < r->batch ? rows->n - b : r->batch;
        kac_rows part = {rows->x + (size_t)b * (size_t)r->shape.stride, rows->count,
                         rows->first + b, n};
        kac_query q = {
            .tokens = part.x, .src = r->fresh.src, .count = r->fresh.count, .capacity = n};

        KAC_TRY(op->forget(r->dev, r->entry, n));
        KAC_TRY(op->find(r->dev, &r->memo, &part, r->entry, &r->fresh, made));
        KAC_TRY(ask_all(r, q, r->found));
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

kac_status kac_rewards_pull(kac_rewards *r, const float *soft, const int32_t *src, int32_t n,
                            float *grad)
{
    kac_query q = {.soft = soft, .length = r->shape.length, .src = src, .capacity = n};
    int64_t numbers = (int64_t)n * r->shape.length * r->shape.states;
    for (int i = 0; i < r->networks; i++) {
        float *part = i == 0 ? grad : r->part;
        KAC_TRY(kac_network_pull(r->network[i], &q, r->cotangent[i], part));
        if (i > 0) KAC_TRY(r->dev->ops->networks.add(r->dev, part, grad, numbers));
    }
    return KAC_OK;
}
