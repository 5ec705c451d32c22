/* verify.c -- runs a network on recorded inputs and compares with recorded outputs. */
#include "verify.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

kac_status kac_replay_find(const kac_replay *r, const char *name, kac_dtype dtype, int rank,
                           const int64_t *shape, const kac_tensor **out)
{
    const char *path = kac_tensors_path(r->recording);
    const kac_tensor *x = kac_tensors_find(r->recording, name);
    if (x == NULL) return KAC_FAIL(KAC_ERR_INVALID, "%s: tensor `%s` is missing", path, name);
    bool fits = x->dtype == dtype && x->rank == rank;
    for (int i = 0; fits && i < rank; i++)
        fits = x->shape[i] >= 1 && (shape[i] < 0 || x->shape[i] == shape[i]);
    if (!fits) {
        char has[200];
        char want[200];
        kac_tensor wanted = {.rank = rank};
        for (int i = 0; i < rank; i++)
            wanted.shape[i] = shape[i];
        kac_shape_text(x, has, sizeof has);
        kac_shape_text(&wanted, want, sizeof want);
        return KAC_FAIL(KAC_ERR_INVALID, "%s: tensor `%s` is %s %s, want %s %s (-1: any size)",
                        path, name, kac_dtype_name(x->dtype), has, kac_dtype_name(dtype), want);
    }
    *out = x;
    return KAC_OK;
}

static kac_status check_sizes(const kac_replay *r, const kac_tensor *x)
{
    if (x->shape[0] > INT32_MAX || x->shape[1] > INT32_MAX)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: tensor `%s` is too large",
                        kac_tensors_path(r->recording), x->name);
    return kac_network_check_length(r->net, (int32_t)x->shape[1]);
}

/* Tokens [B][L]; the mask is token S. */
static kac_status find_tokens(const kac_replay *r, const kac_tensor **out)
{
    const int64_t any[2] = {-1, -1};
    KAC_TRY(kac_replay_find(r, "tokens", KAC_U8, 2, any, out));
    KAC_TRY(check_sizes(r, *out));
    const uint8_t *token = (*out)->data;
    for (size_t i = 0; i < (*out)->bytes; i++)
        if (token[i] > r->net->states)
            return KAC_FAIL(KAC_ERR_INVALID,
                            "%s: tensor `tokens`: element %zu is %d, want 0 to %d (the mask)",
                            kac_tensors_path(r->recording), i, token[i], (int)r->net->states);
    return KAC_OK;
}

/* max|a - b| / max|b| over rows of `width` of the `b_width` values that b has; NaN if either
 * has one. */
static double difference(const float *a, const float *b, int64_t rows, int64_t width,
                         int64_t b_width)
{
    double most = 0;
    double scale = 0;
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < width; j++) {
            double x = (double)a[i * width + j];
            double y = (double)b[i * b_width + j];
            double d = x == y ? 0 : fabs(x - y); /* equal infinities */
            if (isnan(d)) return d;
            if (d > most) most = d;
            if (isfinite(y) && fabs(y) > scale) scale = fabs(y);
        }
    }
    return most > 0 ? most / scale : 0;
}

kac_status kac_replay_compare(kac_replay *r, const float *a, const kac_tensor *recorded,
                              int64_t rows, int64_t width, int64_t b_width)
{
    char shape[200];
    double worst = difference(a, recorded->data, rows, width, b_width);
    kac_shape_text(recorded, shape, sizeof shape);
    if (isnan(worst) || worst > r->worst) r->worst = worst;
    if (fprintf(r->out, "%s %s %.3g\n", recorded->name, shape, worst) < 0)
        return KAC_FAIL(KAC_ERR_IO, "cannot write the comparison of `%s`", recorded->name);
    return KAC_OK;
}

/* ---- questions -------------------------------------------------------------------------- */

/* A copy of `bytes` in the device's memory; NULL for NULL. */
static kac_status upload(kac_device *dev, const void *host, size_t bytes, void **out)
{
    if (host == NULL) return KAC_OK;
    *out = dev->ops->memory.alloc(dev, bytes);
    if (*out == NULL) return KAC_ERR_NOMEM;
    return dev->ops->memory.upload(dev, *out, host, bytes);
}

kac_status kac_replay_ask(const kac_replay *r, const kac_query *host_query)
{
    const kac_memory_ops *memory = &r->dev->ops->memory;
    kac_status status = KAC_OK;
    kac_query q = *host_query;
    void *tokens = NULL, *soft = NULL, *levels = NULL, *clock = NULL, *out = NULL;
    size_t rows = (size_t)q.capacity, bytes = rows * (size_t)q.out_stride * sizeof *q.out;
    KAC_TRY_DONE(upload(r->dev, q.tokens, rows * (size_t)q.stride, &tokens));
    KAC_TRY_DONE(upload(r->dev, q.soft,
                        rows * (size_t)q.length * (size_t)r->net->states * sizeof *q.soft,
                        &soft));
    KAC_TRY_DONE(
        upload(r->dev, q.levels, sizeof *q.levels * (size_t)(q.clock->level + 1), &levels));
    KAC_TRY_DONE(upload(r->dev, q.clock, sizeof *q.clock, &clock));
    KAC_TRY_DONE(upload(r->dev, q.out, bytes, &out));
    q.tokens = tokens;
    q.soft = soft;
    q.levels = levels;
    q.clock = clock;
    q.out = out;
    KAC_TRY_DONE(kac_network_ask(r->net, &q));
    KAC_TRY_DONE(memory->download(r->dev, host_query->out, out, bytes));
done:
    memory->release(r->dev, tokens);
    memory->release(r->dev, soft);
    memory->release(r->dev, levels);
    memory->release(r->dev, clock);
    memory->release(r->dev, out);
    return status;
}

/* Answers rows first .. first + rows - 1 of a query over the whole recording; `sigma` is what a
 * network that reads time is fed. */
static kac_status ask(const kac_replay *r, const kac_query *all, int32_t first, int32_t rows,
                      float sigma)
{
    const kac_level level = {.sigma = sigma};
    const kac_clock clock = {0, 0};
    kac_query q = *all;
    if (q.tokens != NULL) q.tokens += (int64_t)first * q.stride;
    q.out += (int64_t)first * q.out_stride;
    q.capacity = rows;
    q.levels = &level;
    q.clock = &clock;
    return kac_replay_ask(r, &q);
}

static kac_status ask_each(const kac_replay *r, const kac_query *all, const kac_tensor *sigma)
{
    if (sigma == NULL) return ask(r, all, 0, all->capacity, 0);
    const float *value = sigma->data;
    for (int32_t i = 0; i < all->capacity; i++)
        KAC_TRY(ask(r, all, i, 1, value[i]));
    return KAC_OK;
}

static kac_status replay_denoiser(kac_replay *r)
{
    const kac_tensor *tokens = NULL;
    const kac_tensor *logits = NULL;
    const kac_tensor *sigma = NULL;
    KAC_TRY(find_tokens(r, &tokens));
    const int64_t rows = tokens->shape[0];
    const int64_t length = tokens->shape[1];
    const int64_t states = r->net->states;
    const kac_tensor *given = kac_tensors_find(r->recording, "logits");
    bool with_mask = given != NULL && given->rank == 3 && given->shape[2] == states + 1;
    const int64_t shape[3] = {rows, length, with_mask ? states + 1 : states};
    KAC_TRY(kac_replay_find(r, "logits", KAC_F32, 3, shape, &logits));
    if (r->net->reads_time || kac_tensors_find(r->recording, "sigma") != NULL)
        KAC_TRY(kac_replay_find(r, "sigma", KAC_F32, 1, &rows, &sigma));

    float *out = calloc((size_t)(rows * length * states), sizeof *out);
    if (out == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "%s: out of memory", r->net->path);
    kac_query q = {.tokens = tokens->data,
                   .stride = (int32_t)length,
                   .length = (int32_t)length,
                   .capacity = (int32_t)rows,
                   .out = out,
                   .out_stride = (int32_t)(length * states)};
    kac_status status = ask_each(r, &q, sigma);
    if (status == KAC_OK)
        status = kac_replay_compare(r, out, logits, rows * length, states, shape[2]);
    free(out);
    return status;
}

/* Compares what the network makes of the query's input with `recorded` [rows][outputs]. */
static kac_status replay_outputs(kac_replay *r, kac_query *q, const kac_tensor *recorded)
{
    const int64_t rows = recorded->shape[0];
    const int64_t outputs = r->net->outputs;
    float *out = calloc((size_t)(rows * outputs), sizeof *out);
    if (out == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "%s: out of memory", r->net->path);
    q->capacity = (int32_t)rows;
    q->out = out;
    q->out_stride = (int32_t)outputs;
    kac_status status = ask(r, q, 0, q->capacity, 0);
    if (status == KAC_OK) status = kac_replay_compare(r, out, recorded, rows, outputs, outputs);
    free(out);
    return status;
}

static kac_status replay_reward(kac_replay *r)
{
    const kac_tensor *output = NULL;
    if (kac_tensors_find(r->recording, "output") != NULL) {
        const kac_tensor *tokens = NULL;
        KAC_TRY(find_tokens(r, &tokens));
        const int64_t shape[2] = {tokens->shape[0], r->net->outputs};
        KAC_TRY(kac_replay_find(r, "output", KAC_F32, 2, shape, &output));
        kac_query q = {.tokens = tokens->data,
                       .stride = (int32_t)tokens->shape[1],
                       .length = (int32_t)tokens->shape[1]};
        KAC_TRY(replay_outputs(r, &q, output));
    }
    if (kac_tensors_find(r->recording, "output_probabilities") != NULL) {
        const kac_tensor *soft = NULL;
        const int64_t soft_shape[3] = {-1, -1, r->net->states};
        KAC_TRY(kac_replay_find(r, "probabilities", KAC_F32, 3, soft_shape, &soft));
        KAC_TRY(check_sizes(r, soft));
        const int64_t shape[2] = {soft->shape[0], r->net->outputs};
        KAC_TRY(kac_replay_find(r, "output_probabilities", KAC_F32, 2, shape, &output));
        kac_query q = {.soft = soft->data, .length = (int32_t)soft->shape[1]};
        KAC_TRY(replay_outputs(r, &q, output));
    }
    return KAC_OK;
}

/* A reward of vectors: `vectors` [B][L] and `output`. */
static kac_status replay_vectors(kac_replay *r)
{
    const kac_tensor *vectors = NULL, *output = NULL;
    const int64_t any[2] = {-1, -1};
    KAC_TRY(kac_replay_find(r, "vectors", KAC_F32, 2, any, &vectors));
    KAC_TRY(check_sizes(r, vectors));
    const int64_t shape[2] = {vectors->shape[0], r->net->outputs};
    KAC_TRY(kac_replay_find(r, "output", KAC_F32, 2, shape, &output));
    kac_query q = {.tokens = vectors->data,
                   .stride = (int32_t)(vectors->shape[1] * (int64_t)sizeof(float)),
                   .length = (int32_t)vectors->shape[1]};
    return replay_outputs(r, &q, output);
}

/* ---- any network ------------------------------------------------------------------------ */

static kac_status run(kac_replay *r, const char *model)
{
    bool sets = kac_replay_has_sets(r), graph = sets || kac_replay_has_sampler(r);
    bool denoiser = graph || kac_tensors_find(r->recording, "logits") != NULL;
    bool reward = kac_tensors_find(r->recording, "output") != NULL ||
                  kac_tensors_find(r->recording, "output_probabilities") != NULL;
    if (!denoiser && !reward)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "%s: nothing to compare: want the tensor `logits` of a denoiser, "
                        "`NAME.net_x`, `sNNNN.in.x`, `state.NNNN.x` or `x.G` of a denoiser of "
                        "graphs, or `output` or `output_probabilities` of a reward",
                        kac_tensors_path(r->recording));
    KAC_TRY(kac_network_open(r->dev, model, denoiser ? KAC_ROLE_DENOISER : KAC_ROLE_REWARD,
                             &r->net));
    if (graph && r->net->arch->scores) return sets ? kac_replay_sets(r) : kac_replay_sampler(r);
    if (!denoiser && r->net->arch->vectors && kac_tensors_find(r->recording, "vectors") != NULL)
        return replay_vectors(r);
    if (graph || r->net->arch->vectors)
        return KAC_FAIL(KAC_ERR_UNSUPPORTED, "%s: the recording holds %s, and a %s reads %s",
                        model, graph ? "graphs" : "sequences", r->net->arch->name,
                        r->net->arch->scores    ? "graphs"
                        : r->net->arch->vectors ? "vectors"
                                                : "sequences");
    return denoiser ? replay_denoiser(r) : replay_reward(r);
}

/* -1 is the best of this processor. */
static kac_status find_isa(const char *name, int *out)
{
    for (int isa = -1; isa <= (int)KAC_ISA_AVX512; isa++) {
        if (strcmp(isa < 0 ? "auto" : kac_isa_names[isa], name) != 0) continue;
        *out = isa;
        return KAC_OK;
    }
    return KAC_FAIL(KAC_ERR_INVALID, "isa `%s`: want auto, portable, avx2 or avx512", name);
}

kac_status kac_verify(const char *model, const char *recording, const char *device,
                      const char *isa, FILE *out, double *worst, double *tolerance)
{
    KAC_REQUIRE(model != NULL && recording != NULL && device != NULL && isa != NULL);
    KAC_REQUIRE(out != NULL && worst != NULL && tolerance != NULL);
    kac_status status = KAC_OK;
    kac_replay r = {.out = out, .tolerance = 1e-4};
    int wanted = -1;
    KAC_TRY(find_isa(isa, &wanted));
    KAC_TRY_DONE(kac_device_open(device, wanted, &r.dev));
    KAC_TRY_DONE(kac_tensors_open(recording, &r.recording));
    KAC_TRY_DONE(run(&r, model));
    *worst = r.worst;
    *tolerance = r.tolerance;
done:
    kac_network_close(r.net);
    kac_tensors_close(r.recording);
    kac_device_close(r.dev);
    return status;
}
