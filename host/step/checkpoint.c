/* checkpoint.c -- what a run is between two steps, to a file and back.
 *
 * The run's parts are one list (run.h), named where their memory is taken: the particles with
 * their weights, banks and ancestors, the groups with the evidence so far, what drivers keep, what
 * is known of states and objects, the counts and the lines of the trace.  Random numbers have no
 * state.  A checkpoint is a safetensors file with the bytes of each part.  The outputs of the
 * denoiser are left out, because they are many and follow from the states: they are computed again.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "digest.h"
#include "run.h"
#include "safetensors.h"

static const char *const format = "1"; /* of the parts; a change of theirs needs another */

static const char *const trace = "trace"; /* the part that grows */

enum { DIGEST_TEXT = 20 };

/* ---- the parts ---------------------------------------------------------------------------- */

static void add(kac_run *r, const char *owner, const char *name, void *data, int64_t count,
                size_t size)
{
    kac_part_add(r, owner, name, data, (size_t)count * size, false);
}

/* What a sweep needs to make the rest of the memo anew. */
static void add_evaluations(kac_run *r, const kac_memo *m)
{
    add(r, "evaluations", "keys", m->keys, m->capacity, (size_t)m->stride);
    add(r, "evaluations", "hash", m->hash, m->capacity, sizeof *m->hash);
    add(r, "evaluations", "live", m->live, m->capacity, sizeof *m->live);
    add(r, "evaluations", "slot", m->slot, m->capacity, sizeof *m->slot);
    add(r, "evaluations", "terms", m->terms, m->capacity,
        (size_t)m->n_terms * sizeof *m->terms);
}

/* All that is known of objects: a worker's answers may be dear. */
static void add_objects(kac_run *r, const char *owner, const kac_rewards *rewards)
{
    const kac_memo *m = rewards != NULL ? kac_rewards_memo(rewards) : NULL;
    if (m == NULL || m->keys == NULL) return;
    add(r, owner, "keys", m->keys, m->capacity, (size_t)m->stride);
    add(r, owner, "hash", m->hash, m->capacity, sizeof *m->hash);
    add(r, owner, "table", m->table, m->buckets, sizeof *m->table);
    add(r, owner, "live", m->live, m->capacity, sizeof *m->live);
    add(r, owner, "slot", m->slot, m->capacity, sizeof *m->slot);
    add(r, owner, "free", m->free_entries, m->capacity, sizeof *m->free_entries);
    add(r, owner, "counts", m->counts, 2, sizeof *m->counts);
    add(r, owner, "terms", m->terms, m->capacity, (size_t)m->n_terms * sizeof *m->terms);
}

/* The part of the trace has `lines` lines. */
static void fit_trace(kac_run *r, int32_t lines)
{
    for (int i = 0; i < r->parts; i++)
        if (strcmp(r->part[i].name, trace) == 0)
            r->part[i].bytes = (size_t)lines * sizeof *r->line;
}

static void add_parts(kac_run *r)
{
    const struct {
        const char *name;
        void *data;
        size_t bytes;
    } host[] = {
        {"step", &r->step, sizeof r->step},
        {"level", &r->level, sizeof r->level},
        {"pass", &r->pass, sizeof r->pass},
        {"n", &r->n, sizeof r->n},
        {"particles.n", &r->x.n, sizeof r->x.n},
        {"children.n", &r->y.n, sizeof r->y.n},
        {"alpha", &r->set.sampler.alpha, sizeof r->set.sampler.alpha},
        {"pilot", &r->pilot, sizeof r->pilot},
        {"calls", &r->calls, sizeof r->calls},
        {"counted", &r->counted, sizeof r->counted},
        {"seconds", r->seconds, sizeof r->seconds},
        {"elapsed", &r->elapsed, sizeof r->elapsed},
        {"lines", &r->lines, sizeof r->lines},
        {"lines.read", &r->trace.read, sizeof r->trace.read},
        {trace, r->line, 0},
    };
    for (size_t i = 0; i < sizeof host / sizeof *host; i++)
        kac_part_add(r, "", host[i].name, host[i].data, host[i].bytes, true);
    for (int i = 0; i < kac_rewards_workers(r->guide); i++) {
        int term = 0;
        char name[16];
        kac_worker_counts *counts = kac_rewards_worker(r->guide, i, &term);
        snprintf(name, sizeof name, "%d", term);
        kac_part_add(r, "worker", name, counts, sizeof *counts, true);
    }
    if (!r->set.sampler.reuse) return; /* nothing is known from one step to the next */
    add_evaluations(r, &r->evals);
    add_objects(r, "rewards", r->guide);
    add_objects(r, "values", r->value);
}

/* ---- what it belongs to ------------------------------------------------------------------- */

static kac_status no_memory(const char *path)
{
    return KAC_FAIL(KAC_ERR_NOMEM, "%s: out of memory", path);
}

static kac_status add_digest(json_t *files, const char *path)
{
    uint64_t digest = 0;
    char text[DIGEST_TEXT];
    if (path[0] == '\0') return KAC_OK;
    KAC_TRY(kac_digest_file(path, &digest));
    snprintf(text, sizeof text, "%016" PRIx64, digest);
    if (json_object_set_new(files, path, json_string(text)) == 0) return KAC_OK;
    return KAC_FAIL(KAC_ERR_INVALID,
                    "%s: the path is not UTF-8, so no checkpoint can name it; "
                    "checkpoint.seconds off goes without",
                    path);
}

/* {"PATH": "digest"} of every file that is read. */
static kac_status digest_files(const kac_settings *s, json_t **out)
{
    kac_status status = KAC_OK;
    json_t *files = json_object();
    KAC_TRY_DONE(add_digest(files, s->model.file));
    KAC_TRY_DONE(add_digest(files, s->model.unconditional));
    if (s->sampler.value == KAC_VALUE_LEARNED || s->sampler.twist == KAC_TWIST_VALUE)
        KAC_TRY_DONE(add_digest(files, s->sampler.value_file));
    if (s->driver.kind == KAC_DRIVER_REFINE) KAC_TRY_DONE(add_digest(files, s->driver.start));
    for (int i = 0; i < s->rewards; i++)
        KAC_TRY_DONE(add_digest(files, s->reward[i].file));
    *out = json_incref(files);
done:
    json_decref(files);
    return status;
}

kac_status kac_checkpoint_open(kac_run *r)
{
    add_parts(r);
    bool none = isnan(r->set.checkpoint.seconds) || kac_ranks_size(r->ranks) > 1;
    return none ? KAC_OK : digest_files(&r->set, &r->files);
}

/* Two of these of one configuration. */
static kac_status compare_files(const char *path, const json_t *then, json_t *now)
{
    const char *file = NULL;
    const json_t *digest = NULL;
    json_object_foreach(now, file, digest)
    {
        if (json_equal(digest, json_object_get(then, file))) continue;
        return KAC_FAIL(KAC_ERR_INVALID, "%s: %s has changed since", path, file);
    }
    return KAC_OK;
}

/* ---- writing ------------------------------------------------------------------------------ */

/* Of something that has a name; those of all of them together, in any order, make the checksum. */
static uint64_t digest_of(const char *name, const void *bytes, size_t size)
{
    uint64_t digest = kac_digest_add(kac_digest_begin(), name, strlen(name));
    return kac_digest_add(digest, bytes, size);
}

/* The tensors of all parts.  Those of the device get host memory, to be freed. */
static kac_status fetch_parts(const kac_run *r, const char *path, kac_tensor *tensors,
                              void **copies)
{
    for (int i = 0; i < r->parts; i++) {
        const kac_part *part = &r->part[i];
        tensors[i] = (kac_tensor){.name = part->name,
                                  .dtype = KAC_U8,
                                  .rank = 1,
                                  .shape = {(int64_t)part->bytes},
                                  .data = part->data,
                                  .bytes = part->bytes};
        if (part->on_host || part->bytes == 0) continue;
        tensors[i].data = copies[i] = malloc(part->bytes);
        if (copies[i] == NULL) return no_memory(path);
        KAC_TRY(r->dev->ops->memory.download(r->dev, copies[i], part->data, part->bytes));
    }
    return KAC_OK;
}

kac_status kac_run_checkpoint(kac_run *r, const char *path)
{
    KAC_REQUIRE(r != NULL && path != NULL && r->result == NULL); /* not finished */
    kac_status status = KAC_OK;
    json_t *identity = NULL;
    char *config = NULL, *files = NULL, step[32], checksum[DIGEST_TEXT] = "";
    void *copies[sizeof r->part / sizeof *r->part] = {NULL};
    kac_tensor *tensors = calloc((size_t)r->parts, sizeof *tensors);
    uint64_t digest = 0;
    if (kac_ranks_size(r->ranks) > 1) {
        status =
            KAC_FAIL(KAC_ERR_INVALID,
                     "%s: a run that ranks share leaves no checkpoints in this version", path);
        goto done;
    }
    KAC_TRY_DONE(kac_run_sync(r, NULL));
    if (r->files == NULL) KAC_TRY_DONE(digest_files(&r->set, &r->files));
    KAC_TRY_DONE(kac_config_identity(r->config, &identity));
    r->elapsed = kac_now() - r->began;
    snprintf(step, sizeof step, "%d of %d", r->step, r->moves);
    config = json_dumps(identity, JSON_COMPACT | JSON_REAL_PRECISION(17));
    files = json_dumps(r->files, JSON_COMPACT);
    if (tensors == NULL || config == NULL || files == NULL) {
        status = no_memory(path);
        goto done;
    }
    fit_trace(r, r->lines);
    KAC_TRY_DONE(fetch_parts(r, path, tensors, copies));
    const char *const metadata[][2] = {
        {"kac.checksum", checksum}, {"kac.checkpoint", format}, {"kac.version", kac_version()},
        {"kac.step", step},         {"kac.config", config},     {"kac.files", files},
    };
    int pairs = sizeof metadata / sizeof *metadata;
    for (int i = 1; i < pairs; i++)
        digest ^= digest_of(metadata[i][0], metadata[i][1], strlen(metadata[i][1]));
    for (int i = 0; i < r->parts; i++)
        digest ^= digest_of(tensors[i].name, tensors[i].data, tensors[i].bytes);
    snprintf(checksum, sizeof checksum, "%016" PRIx64, digest);
    status = kac_tensors_write(path, metadata, pairs, tensors, r->parts);
done:
    for (int i = 0; i < r->parts; i++)
        free(copies[i]);
    free(tensors);
    free(config);
    free(files);
    json_decref(identity);
    return status;
}

/* ---- reading ------------------------------------------------------------------------------ */

/* Whether it is a checkpoint of this version of kac, and what was written. */
static kac_status check_content(const kac_tensors *file)
{
    const char *path = kac_tensors_path(file), *key = NULL, *value = NULL;
    const char *checksum = kac_tensors_metadata(file, "kac.checksum");
    const char *version = kac_tensors_metadata(file, "kac.version");
    const char *own = kac_tensors_metadata(file, "kac.checkpoint");
    char text[DIGEST_TEXT];
    uint64_t digest = 0;
    if (checksum == NULL || version == NULL || own == NULL)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: it is not a checkpoint, or damaged", path);
    for (int i = 0; i < kac_tensors_metadata_count(file); i++) {
        kac_tensors_metadata_at(file, i, &key, &value);
        if (strcmp(key, "kac.checksum") != 0) digest ^= digest_of(key, value, strlen(value));
    }
    for (int i = 0; i < kac_tensors_count(file); i++) {
        const kac_tensor *x = kac_tensors_at(file, i);
        digest ^= digest_of(x->name, x->data, x->bytes);
    }
    snprintf(text, sizeof text, "%016" PRIx64, digest);
    if (strcmp(text, checksum) != 0)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: damaged: it is not what was written", path);
    if (strcmp(version, kac_version()) != 0 || strcmp(own, format) != 0)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "%s: kac %s wrote it (form %s), and this is %s (form %s)", path,
                        version, own, kac_version(), format);
    return KAC_OK;
}

/* Whether it is of this configuration, and of the files as they are now. */
static kac_status check_origin(const kac_tensors *file, const kac_config *config)
{
    const char *path = kac_tensors_path(file);
    const char *of_config = kac_tensors_metadata(file, "kac.config");
    const char *of_files = kac_tensors_metadata(file, "kac.files");
    json_t *then = json_loads(of_config != NULL ? of_config : "", 0, NULL);
    json_t *files = json_loads(of_files != NULL ? of_files : "", 0, NULL);
    json_t *now = NULL, *digests = NULL;
    kac_settings settings;
    char key[512] = "";
    kac_status status = KAC_OK;
    KAC_TRY_DONE(kac_config_identity(config, &now));
    if (!kac_config_agrees(now, then, key, sizeof key)) {
        status = KAC_FAIL(KAC_ERR_INVALID,
                          "%s: it is of another configuration, with another %s", path, key);
        goto done;
    }
    KAC_TRY_DONE(kac_config_settings(config, &settings));
    KAC_TRY_DONE(digest_files(&settings, &digests));
    status = compare_files(path, files, digests);
done:
    json_decref(then);
    json_decref(files);
    json_decref(now);
    json_decref(digests);
    return status;
}

/* Copies the bytes of a part to host memory. */
static kac_status read_part(const kac_tensors *file, const char *name, void *out, size_t bytes)
{
    const kac_tensor *x = kac_tensors_find(file, name);
    if (x == NULL || x->bytes != bytes)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: `%s` does not fit this run",
                        kac_tensors_path(file), name);
    memcpy(out, x->data, bytes);
    return KAC_OK;
}

/* All parts, once it is sure that all fit. */
static kac_status read_parts(kac_run *r, const kac_tensors *file)
{
    int32_t lines = 0;
    KAC_TRY(read_part(file, "lines", &lines, sizeof lines));
    if (lines < 0 || lines > r->moves)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: %d lines of a trace do not fit this run",
                        kac_tensors_path(file), lines);
    fit_trace(r, lines);
    for (int i = 0; i < r->parts; i++) {
        const kac_tensor *x = kac_tensors_find(file, r->part[i].name);
        if (x == NULL || x->bytes != r->part[i].bytes || kac_tensors_count(file) != r->parts)
            return KAC_FAIL(KAC_ERR_INVALID, "%s: `%s` does not fit this run",
                            kac_tensors_path(file), r->part[i].name);
    }
    for (int i = 0; i < r->parts; i++) {
        const kac_part *part = &r->part[i];
        const kac_tensor *x = kac_tensors_find(file, part->name);
        if (part->on_host)
            memcpy(part->data, x->data, part->bytes);
        else
            KAC_TRY(r->dev->ops->memory.upload(r->dev, part->data, x->data, part->bytes));
    }
    return KAC_OK;
}

kac_status kac_run_resume(const kac_config *config, const char *path, kac_run **out)
{
    KAC_REQUIRE(config != NULL && path != NULL && out != NULL);
    kac_status status = KAC_OK;
    kac_tensors *file = NULL;
    kac_run *r = NULL;
    kac_piloted piloted = {.known = true};
    int64_t every = 0;
    KAC_TRY_DONE(kac_tensors_open(path, &file));
    KAC_TRY_DONE(check_content(file));
    KAC_TRY_DONE(check_origin(file, config));
    KAC_TRY_DONE(read_part(file, "alpha", &piloted.alpha, sizeof piloted.alpha));
    KAC_TRY_DONE(read_part(file, "pilot", &piloted.calls, sizeof piloted.calls));
    KAC_TRY_DONE(kac_run_open(NULL, config, &piloted, &r));
    if (kac_tensors_find(file, "trajectories.every") != NULL) {
        KAC_TRY_DONE(read_part(file, "trajectories.every", &every, sizeof every));
        KAC_TRY_DONE(kac_run_keep_trajectories(r, every));
    }
    KAC_TRY_DONE(read_parts(r, file));
    KAC_TRY_DONE(kac_evaluate_again(r));
    r->resumed = r->step;
    r->lap = kac_now();
    r->began = r->lap - r->elapsed;
    *out = r;
    r = NULL;
done:
    kac_run_destroy(r);
    kac_tensors_close(file);
    return status;
}
