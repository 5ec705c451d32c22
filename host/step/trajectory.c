/* trajectory.c -- the paths of the particles: kept step by step, traced back, written.
 *
 * While the run goes on, column k holds the states of all slots at the k-th kept level, and
 * parent[k][i] the slot at the level kept before from which the particle in slot i descends.
 * At the end each column is permuted, from the last to the first, so that row i is the ancestral
 * line of the particle that ended in slot i.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "run.h"

struct kac_trajectories {
    int64_t every;
    int32_t n;          /* particles at the start; a funnel leaves fewer */
    int32_t kept, most; /* levels so far, levels in the end */
    int32_t *level;     /* [most] */
    double *time;       /* [most] */
    uint8_t *x;         /* [n][most] states */
    int32_t *parent;    /* [most][n] */
    int32_t *since;     /* [n] slot at the latest kept level of each particle's ancestor */
    int32_t *next;      /* [n] scratch */
    int32_t *chosen;    /* [n] rows of y */
    uint8_t *rows;      /* [n][stride] */
    float *terms;       /* [n][rewards] */
    double *reward;     /* [n] */
    double *log_weight; /* [n] */
    int32_t *group;     /* [n] */
};

void kac_trajectories_close(kac_trajectories *trajectories)
{
    kac_trajectories *p = trajectories;
    if (p == NULL) return;
    free(p->level);
    free(p->time);
    free(p->x);
    free(p->parent);
    free(p->since);
    free(p->next);
    free(p->chosen);
    free(p->rows);
    free(p->terms);
    free(p->reward);
    free(p->log_weight);
    free(p->group);
    free(p);
}

/* ---- while the run goes on ------------------------------------------------------------------
 */

/* Bytes of a state: letters, or the floats of a vector. */
static size_t state_bytes(const kac_run *r)
{
    return (size_t)r->shape.length * (r->vectors ? sizeof(float) : 1);
}

/* The state of slot i, or of the path that ends there, at the k-th kept level. */
static uint8_t *state(const kac_run *r, int32_t i, int32_t k)
{
    const kac_trajectories *p = r->trajectories;
    return p->x + ((size_t)i * (size_t)p->most + (size_t)k) * state_bytes(r);
}

static int32_t *parents(const kac_run *r, int32_t k)
{
    return r->trajectories->parent + (size_t)k * (size_t)r->trajectories->n;
}

/* Adds the present level. */
static kac_status keep_level(kac_run *r)
{
    kac_trajectories *p = r->trajectories;
    const kac_memory_ops *op = &r->dev->ops->memory;
    size_t stride = (size_t)r->shape.stride;
    kac_level level = {0};
    int32_t k = p->kept;

    KAC_REQUIRE(k < p->most);
    p->level[k] = r->level;
    KAC_TRY(op->download(r->dev, &level, &r->levels[p->level[k]], sizeof level));
    KAC_TRY(op->download(r->dev, p->rows, r->x.x, (size_t)r->n * stride));
    p->time[k] = level.t;
    for (int32_t i = 0; i < r->n; i++) {
        memcpy(state(r, i, k), p->rows + (size_t)i * stride, state_bytes(r));
        parents(r, k)[i] = p->since[i];
        p->since[i] = i;
    }
    p->kept++;
    return KAC_OK;
}

kac_status kac_trajectories_step(kac_run *r)
{
    kac_trajectories *p = r->trajectories;
    size_t n = (size_t)r->n;
    KAC_TRY(
        r->dev->ops->memory.download(r->dev, p->chosen, r->select.chosen, n * sizeof *p->next));
    for (size_t i = 0; i < n; i++)
        p->next[i] = p->since[p->chosen[i] / r->children];
    memcpy(p->since, p->next, n * sizeof *p->next);
    bool kept = r->step % p->every == 0 || r->step == r->moves;
    return kept ? keep_level(r) : KAC_OK;
}

/* They are of a process that has the run alone. */
static void name_part(kac_run *r, const char *name, void *data, size_t count, size_t size)
{
    kac_part_add(r, "trajectories", name,
                 (kac_part){.data = data,
                            .count = (int64_t)count,
                            .size = size,
                            .on_host = true,
                            .share = KAC_PART_ALIKE});
}

static void name_parts(kac_run *r)
{
    kac_trajectories *p = r->trajectories;
    size_t n = (size_t)p->n, most = (size_t)p->most;
    name_part(r, "every", &p->every, 1, sizeof p->every);
    name_part(r, "kept", &p->kept, 1, sizeof p->kept);
    name_part(r, "level", p->level, most, sizeof *p->level);
    name_part(r, "time", p->time, most, sizeof *p->time);
    name_part(r, "x", p->x, n * most, state_bytes(r));
    name_part(r, "parent", p->parent, n * most, sizeof *p->parent);
    name_part(r, "since", p->since, n, sizeof *p->since);
}

/* Memory for all levels, into r->trajectories, which is half made where there is none. */
static kac_status take_trajectories(kac_run *r, int64_t every)
{
    const int64_t bytes_most = INT64_C(4) << 30;
    if (r->set.driver.kind != KAC_DRIVER_NONE)
        return KAC_FAIL(KAC_ERR_INVALID, "trajectories: driver.kind none only keeps them");
    if (kac_ranks_size(r->ranks) > 1)
        return KAC_FAIL(
            KAC_ERR_INVALID,
            "trajectories: a run that ranks share keeps none in this version; start "
            "one rank");
    if (every < 1)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "trajectories: every %" PRId64 " steps, want 1 or more", every);
    int64_t levels =
        (r->moves - 1) / every + 2; /* the first, and each that keep_level is for */
    int64_t row = levels * (int64_t)(state_bytes(r) + sizeof(int32_t));
    if (row > bytes_most / r->n)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "trajectories: %d particles x %" PRId64 " levels x %d sites take more "
                        "than 4 GiB; keep fewer levels, or run fewer particles",
                        r->n, levels, r->shape.length);

    size_t n = (size_t)r->n;
    size_t rewards = (size_t)r->set.rewards;
    kac_trajectories *p = calloc(1, sizeof *p);
    if (p == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "trajectories: no memory");
    r->trajectories = p;
    p->every = every;
    p->n = r->n;
    p->most = (int32_t)levels;
    p->level = calloc((size_t)levels, sizeof *p->level);
    p->time = calloc((size_t)levels, sizeof *p->time);
    p->x = calloc(n * (size_t)levels, state_bytes(r));
    p->parent = calloc(n * (size_t)levels, sizeof *p->parent);
    p->since = calloc(n, sizeof *p->since);
    p->next = calloc(n, sizeof *p->next);
    p->chosen = calloc(n, sizeof *p->chosen);
    p->rows = calloc(n, (size_t)r->shape.stride);
    p->terms = calloc(n * rewards + 1, sizeof *p->terms);
    p->reward = calloc(n, sizeof *p->reward);
    p->log_weight = calloc(n, sizeof *p->log_weight);
    p->group = calloc(n, sizeof *p->group);
    if (!p->level || !p->time || !p->x || !p->parent || !p->since || !p->next || !p->chosen ||
        !p->rows || !p->terms || !p->reward || !p->log_weight || !p->group)
        return KAC_FAIL(KAC_ERR_NOMEM, "trajectories: no memory for %zu particles", n);
    for (int32_t i = 0; i < r->n; i++)
        p->since[i] = i;
    return KAC_OK;
}

kac_status kac_run_keep_trajectories(kac_run *r, int64_t every)
{
    KAC_REQUIRE(r != NULL);
    KAC_TRY(kac_enter_run(r));
    if (r->step > 0 || r->trajectories != NULL)
        return KAC_FAIL(KAC_ERR_INVALID, "trajectories: they are kept from the first step on");
    kac_status status = take_trajectories(r, every);
    if (status == KAC_OK) status = keep_level(r);
    if (status == KAC_OK) {
        name_parts(r);
        return KAC_OK;
    }
    kac_trajectories_close(r->trajectories);
    r->trajectories = NULL;
    return status;
}

bool kac_run_keeps_trajectories(const kac_run *r)
{
    return r->trajectories != NULL;
}

/* ---- at the end ---------------------------------------------------------------------------- */

void kac_trajectories_finish(kac_run *r, const kac_finished *finished)
{
    kac_trajectories *p = r->trajectories;
    size_t bytes = state_bytes(r);
    int32_t *at = p->since; /* slot at level k of the ancestor of each final particle */

    for (int32_t i = 0; i < r->n; i++)
        at[i] = i;
    for (int32_t k = p->kept - 1; k > 0; k--) {
        for (int32_t i = 0; i < p->n; i++)
            memcpy(p->rows + (size_t)i * bytes, state(r, i, k - 1), bytes);
        for (int32_t i = 0; i < r->n; i++)
            at[i] = parents(r, k)[at[i]];
        for (int32_t i = 0; i < r->n; i++)
            memcpy(state(r, i, k - 1), p->rows + (size_t)at[i] * bytes, bytes);
    }
    size_t terms = (size_t)r->n * (size_t)r->set.rewards;
    for (size_t i = 0; i < terms; i++)
        p->terms[i] = (float)finished->terms[i];
    for (int32_t i = 0; i < r->n; i++) {
        p->reward[i] = finished->reward[i];
        p->log_weight[i] = finished->log_weight[i];
        p->group[i] = i / (r->n / r->groups);
    }
}

/* "[low 0.2, high 0.6]", the limits that a term has. */
static void write_limits(const kac_reward_settings *reward, FILE *out)
{
    const struct {
        const char *name;
        double at;
    } limit[] = {{"low", reward->low},
                 {"high", reward->high},
                 {"at_least", reward->at_least},
                 {"at_most", reward->at_most}};
    int written = 0;
    for (size_t i = 0; i < sizeof limit / sizeof *limit; i++)
        if (!isnan(limit[i].at))
            fprintf(out, "%s%s %.17g", written++ > 0 ? ", " : "[", limit[i].name, limit[i].at);
    if (written > 0) fputc(']', out);
}

/* "1*FILE + 0.5*FILE:2[low 0, high 17] + (0,1,3)*gc", "min(1*FILE, 2*FILE)": the terms that guide, with
 * weight or the weights of groups, file and output, limits, and how they are combined; to be freed. */
static char *reward_text(const kac_settings *s)
{
    static const char *const begin[] = {"", "product(", "min(", "lower_bound("};
    bool sum = s->objective.combine == KAC_COMBINE_SUM;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (out == NULL) return NULL;
    fputs(begin[s->objective.combine], out);
    for (int i = 0, terms = 0; i < s->rewards; i++) {
        const kac_reward_settings *reward = &s->reward[i];
        char name[KAC_NAME];
        if (!kac_reward_guides(reward)) continue;
        kac_term_name(reward, name, sizeof name); /* of a term without a file */
        if (terms++ > 0) fputs(sum ? " + " : ", ", out);
        if (reward->weights[0] != '\0')
            fprintf(out, "(%s)*", reward->weights);
        else
            fprintf(out, "%.17g*", reward->weight);
        fputs(reward->file[0] != '\0' ? reward->file : name, out);
        if (reward->output != 0) fprintf(out, ":%" PRId64, reward->output);
        write_limits(reward, out);
    }
    if (s->objective.combine == KAC_COMBINE_LOWER_BOUND)
        fprintf(out, ", kappa %.17g", s->objective.kappa);
    if (!sum) fputc(')', out);
    if (fclose(out) == 0) return text;
    free(text);
    return NULL;
}

/* The names of all terms, "a,b"; to be freed. */
static char *names_text(const kac_settings *s)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (out == NULL) return NULL;
    for (int i = 0; i < s->rewards; i++) {
        char name[KAC_NAME];
        kac_term_name(&s->reward[i], name, sizeof name);
        fprintf(out, "%s%s", i > 0 ? "," : "", name);
    }
    if (fclose(out) == 0) return text;
    free(text);
    return NULL;
}

static kac_tensor tensor(const char *name, kac_dtype dtype, const void *data, int64_t rows)
{
    return (kac_tensor){.name = name,
                        .dtype = dtype,
                        .rank = 1,
                        .shape = {rows},
                        .data = data,
                        .bytes = (size_t)rows * kac_dtype_size(dtype)};
}

/* Adds a size to a tensor. */
static kac_tensor widen(kac_tensor t, int64_t size)
{
    t.shape[t.rank++] = size;
    t.bytes *= (size_t)size;
    return t;
}

kac_status kac_run_write_trajectories(const kac_run *r, const char *dir)
{
    KAC_REQUIRE(r != NULL && dir != NULL);
    const kac_trajectories *p = r->trajectories;
    const kac_settings *s = &r->set;
    if (p == NULL || !r->finished)
        return KAC_FAIL(KAC_ERR_INVALID, "trajectories: none were kept to the end of a run");

    kac_status status = KAC_OK;
    char path[2 * KAC_PATH], alpha[32], seed[32], nodes[16], features[16];
    char *reward = reward_text(s);
    char *names = names_text(s);
    if (reward == NULL || names == NULL) {
        status = KAC_FAIL(KAC_ERR_NOMEM, "trajectories: no memory");
        goto done;
    }
    snprintf(path, sizeof path, "%s/trajectories.safetensors", dir);
    snprintf(alpha, sizeof alpha, "%.17g", s->sampler.alpha);
    snprintf(seed, sizeof seed, "%" PRIu64, s->seed);
    snprintf(nodes, sizeof nodes, "%d", (int)r->shape.nodes);
    snprintf(features, sizeof features, "%d", (int)r->shape.features);
    const char *const metadata[][2] = {
        {"kac.record", "trajectories"}, {"kac.alphabet", r->denoiser->alphabet},
        {"kac.model", s->model.file},   {"kac.algorithm", s->sampler.algorithm},
        {"kac.reward", reward},         {"kac.terms", names},
        {"kac.alpha", alpha},           {"kac.seed", seed},
        {"kac.nodes", nodes},           {"kac.features", features}, /* of graphs only */
    };
    enum { OF_GRAPHS = 2, ALL = sizeof metadata / sizeof *metadata };
    const kac_dtype dtype = r->vectors ? KAC_F32 : KAC_U8;
    const kac_tensor tensors[] = {
        widen(widen(tensor("x", dtype, p->x, r->n), p->kept), r->shape.length),
        tensor("level", KAC_I32, p->level, p->kept),
        tensor("time", KAC_F64, p->time, p->kept),
        widen(tensor("terms", KAC_F32, p->terms, r->n), s->rewards),
        tensor("reward", KAC_F64, p->reward, r->n),
        tensor("log_weight", KAC_F64, p->log_weight, r->n),
        tensor("group", KAC_I32, p->group, r->n),
    };
    status = kac_tensors_write(path, metadata, r->shape.nodes > 0 ? ALL : ALL - OF_GRAPHS,
                               tensors, sizeof tensors / sizeof *tensors);
done:
    free(reward);
    free(names);
    return status;
}
