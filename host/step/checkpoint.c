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

static const char *const format = "2"; /* of the parts; a change of theirs needs another */

static const char *const trace = "trace"; /* the part that grows */

enum { DIGEST_TEXT = 20 };

/* ---- the parts ---------------------------------------------------------------------------- */

static void add(kac_run *r, const char *owner, const char *name, void *data, int64_t count,
                size_t size)
{
    kac_part_add(
        r, owner, name,
        (kac_part){.data = data, .count = count, .size = size, .share = KAC_PART_PRIVATE});
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
        if (strcmp(r->part[i].name, trace) == 0) r->part[i].count = lines;
}

static void add_host(kac_run *r)
{
    kac_selected of = kac_selected_of(r);
    int32_t *n = r->span != NULL ? &of.x->n : &r->n; /* of all the pool, not the rows here */
    const struct {
        const char *name;
        void *data;
        size_t size;
        kac_part_share share;
    } host[] = {
        {"step", &r->step, sizeof r->step, KAC_PART_ALIKE},
        {"level", &r->level, sizeof r->level, KAC_PART_ALIKE},
        {"pass", &r->pass, sizeof r->pass, KAC_PART_ALIKE},
        {"n", n, sizeof *n, KAC_PART_EXTENT},
        {"particles.n", &of.x->n, sizeof of.x->n, KAC_PART_EXTENT},
        {"children.n", &of.y->n, sizeof of.y->n, KAC_PART_EXTENT},
        {"alpha", &r->set.sampler.alpha, sizeof r->set.sampler.alpha, KAC_PART_ALIKE},
        {"pilot", &r->pilot, sizeof r->pilot, KAC_PART_ALIKE},
        {"calls", &r->calls, sizeof r->calls, KAC_PART_SUM},
        {"counted", &r->counted, sizeof r->counted, KAC_PART_ALIKE},
        {"seconds", r->seconds, sizeof r->seconds, KAC_PART_ALIKE},
        {"elapsed", &r->elapsed, sizeof r->elapsed, KAC_PART_ALIKE},
        {"lines", &r->lines, sizeof r->lines, KAC_PART_ALIKE},
        {"lines.read", &r->trace.read, sizeof r->trace.read, KAC_PART_ALIKE},
        {trace, r->line, sizeof *r->line, KAC_PART_ALIKE},
    };
    for (size_t i = 0; i < sizeof host / sizeof *host; i++)
        kac_part_add(r, "", host[i].name,
                     (kac_part){.data = host[i].data,
                                .count = 1,
                                .size = host[i].size,
                                .on_host = true,
                                .share = host[i].share});
}

static void add_parts(kac_run *r)
{
    add_host(r);
    for (int i = 0; i < kac_rewards_workers(r->guide); i++) {
        int term = 0;
        char name[16];
        kac_worker_counts *counts = kac_rewards_worker(r->guide, i, &term);
        snprintf(name, sizeof name, "%d", term);
        kac_part_add(r, "worker", name,
                     (kac_part){.data = counts,
                                .count = 1,
                                .size = sizeof *counts,
                                .on_host = true,
                                .share = KAC_PART_SUM});
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
    return KAC_FAIL(KAC_ERR_INVALID, "%s: the path is not UTF-8, so run.json cannot name it",
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
    return kac_ranks_rank(r->ranks) > 0 ? KAC_OK : digest_files(&r->set, &r->files);
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

/* Whether a checkpoint that `ranks` wrote has this part. */
static bool is_written(const kac_part *part, int ranks)
{
    return ranks == 1 || part->share != KAC_PART_PRIVATE;
}

/* The tensors of the parts that are written; returns how many. */
static int list_tensors(const kac_run *r, const kac_whole *whole, kac_tensor *tensors)
{
    int count = 0;
    for (int i = 0; i < r->parts; i++) {
        const kac_part *part = &r->part[i];
        size_t bytes = kac_part_bytes(r, part);
        if (!is_written(part, kac_ranks_size(r->ranks))) continue;
        tensors[count++] = (kac_tensor){.name = part->name,
                                        .dtype = KAC_U8,
                                        .rank = 1,
                                        .shape = {(int64_t)bytes},
                                        .data = whole->bytes[i],
                                        .bytes = bytes};
    }
    return count;
}

/* The parts of all ranks into a file. */
static kac_status write_whole(kac_run *r, const char *path, const kac_whole *whole)
{
    kac_status status = KAC_OK;
    json_t *identity = NULL;
    char *config = NULL, *files = NULL, *started = NULL, step[32], ranks[16],
         checksum[DIGEST_TEXT] = "";
    kac_tensor tensors[KAC_PARTS];
    int count = list_tensors(r, whole, tensors);
    uint64_t digest = 0;
    KAC_TRY_DONE(kac_config_identity(r->config, &identity));
    snprintf(step, sizeof step, "%d of %d", r->step, r->moves);
    snprintf(ranks, sizeof ranks, "%d", kac_ranks_size(r->ranks));
    config = json_dumps(identity, JSON_COMPACT | JSON_REAL_PRECISION(17));
    files = json_dumps(r->files, JSON_COMPACT);
    started = json_dumps(r->started, JSON_COMPACT);
    if (config == NULL || files == NULL || started == NULL) {
        status = no_memory(path);
        goto done;
    }
    const char *const metadata[][2] = {
        {"kac.checksum", checksum}, {"kac.checkpoint", format}, {"kac.version", kac_version()},
        {"kac.step", step},         {"kac.ranks", ranks},       {"kac.config", config},
        {"kac.files", files},       {"kac.started", started},
    };
    int pairs = sizeof metadata / sizeof *metadata;
    for (int i = 1; i < pairs; i++)
        digest ^= digest_of(metadata[i][0], metadata[i][1], strlen(metadata[i][1]));
    for (int i = 0; i < count; i++)
        digest ^= digest_of(tensors[i].name, tensors[i].data, tensors[i].bytes);
    snprintf(checksum, sizeof checksum, "%016" PRIx64, digest);
    status = kac_tensors_write(path, metadata, pairs, tensors, count);
done:
    free(config);
    free(files);
    free(started);
    json_decref(identity);
    return status;
}

kac_status kac_run_checkpoint(kac_run *r, const char *path)
{
    KAC_REQUIRE(r != NULL && path != NULL);
    KAC_TRY(kac_enter_run(r));
    KAC_REQUIRE(r->result == NULL); /* not finished */
    bool leads = kac_ranks_rank(r->ranks) == 0;
    kac_status status = KAC_OK;
    kac_whole whole = {.privates = kac_ranks_size(r->ranks) == 1};
    KAC_TRY_DONE(kac_run_sync(r, NULL));
    fit_trace(r, r->lines);
    r->elapsed = kac_now() - r->began;
    KAC_TRY_DONE(kac_parts_gather(r, &whole));
    status = kac_ranks_confer(r->ranks, leads ? write_whole(r, path, &whole) : KAC_OK);
done:
    kac_whole_free(r, &whole);
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

/* When, where and by which command its run was started, or NULL. */
static json_t *started_of(const kac_tensors *file)
{
    const char *text = kac_tensors_metadata(file, "kac.started");
    json_t *json = json_loads(text != NULL ? text : "", 0, NULL);
    if (json_is_object(json)) return json;
    json_decref(json);
    return NULL;
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

/* What a checkpoint says of its run before there is one. */
typedef struct heading {
    double alpha;
    kac_calls pilot;
    int64_t every; /* steps between two levels of trajectories; 0: it keeps none */
    int32_t lines; /* of the trace */
    int32_t ranks; /* that wrote it */
} heading;

/* Opens a checkpoint that can be used. */
static kac_status open_checkpoint(const kac_config *config, const char *path,
                                  kac_tensors **file, heading *h)
{
    KAC_TRY(kac_tensors_open(path, file));
    KAC_TRY(check_content(*file));
    KAC_TRY(check_origin(*file, config));
    const char *ranks = kac_tensors_metadata(*file, "kac.ranks");
    h->ranks = ranks != NULL ? (int32_t)strtol(ranks, NULL, 10) : 0;
    KAC_TRY(read_part(*file, "alpha", &h->alpha, sizeof h->alpha));
    KAC_TRY(read_part(*file, "pilot", &h->pilot, sizeof h->pilot));
    KAC_TRY(read_part(*file, "lines", &h->lines, sizeof h->lines));
    if (kac_tensors_find(*file, "trajectories.every") == NULL) return KAC_OK;
    return read_part(*file, "trajectories.every", &h->every, sizeof h->every);
}

/* All parts, once it is sure that all fit. */
static kac_status list_parts(const kac_run *r, const kac_tensors *file, const heading *h,
                             kac_whole *whole)
{
    int count = 0;
    for (int i = 0; i < r->parts; i++) {
        const kac_part *part = &r->part[i];
        if (!is_written(part, h->ranks)) continue;
        count++;
        if (!is_written(part, kac_ranks_size(r->ranks))) continue;
        const kac_tensor *x = kac_tensors_find(file, part->name);
        if (x == NULL || x->bytes != kac_part_bytes(r, part))
            return KAC_FAIL(KAC_ERR_INVALID, "%s: `%s` does not fit this run",
                            kac_tensors_path(file), part->name);
        whole->bytes[i] = x->data;
    }
    if (kac_tensors_count(file) == count) return KAC_OK;
    return KAC_FAIL(KAC_ERR_INVALID, "%s: it has %d parts, and this run %d",
                    kac_tensors_path(file), kac_tensors_count(file), count);
}

/* The run as it was; `file` is rank 0's. */
static kac_status read_parts(kac_run *r, const kac_tensors *file, const heading *h)
{
    kac_whole whole = {.privates = h->ranks == 1 && kac_ranks_size(r->ranks) == 1};
    kac_status status = KAC_OK;
    if (h->lines < 0 || h->lines > r->moves)
        return KAC_FAIL(KAC_ERR_INVALID, "checkpoint: %d lines of a trace do not fit this run",
                        h->lines);
    fit_trace(r, h->lines);
    if (file != NULL) status = list_parts(r, file, h, &whole);
    KAC_TRY(kac_ranks_confer(r->ranks, status));
    KAC_TRY(kac_parts_scatter(r, &whole));
    return whole.privates ? kac_evaluate_again(r) : KAC_OK;
}

/* A new run like the one that wrote the checkpoint. */
static kac_status open_like(kac_ranks *ranks, const kac_config *config, const heading *h,
                            kac_run **out)
{
    kac_piloted piloted = {.known = true, .alpha = h->alpha, .calls = h->pilot};
    KAC_TRY(kac_run_open(ranks, config, &piloted, out));
    return h->every > 0 ? kac_run_keep_trajectories(*out, h->every) : KAC_OK;
}

/* Goes on under the date, folder and command of the start. */
static void take_started(kac_run *r, const kac_tensors *file)
{
    json_t *then = started_of(file);
    if (then == NULL) return; /* an earlier kac has not kept it */
    json_decref(r->started);
    r->started = then;
}

kac_status kac_checkpoint_folder(const char *path, char *folder, size_t size)
{
    KAC_REQUIRE(path != NULL && folder != NULL && size > 0);
    kac_tensors *file = NULL;
    kac_status status = KAC_OK;
    KAC_TRY(kac_tensors_open(path, &file));
    json_t *started = started_of(file);
    const char *text = json_string_value(json_object_get(started, "folder"));
    if (text != NULL && strlen(text) < size)
        memcpy(folder, text, strlen(text) + 1);
    else
        status =
            KAC_FAIL(KAC_ERR_INVALID, "%s: it does not say where the run was started", path);
    json_decref(started);
    kac_tensors_close(file);
    return status;
}

kac_status kac_run_resume(const kac_config *config, const char *path, kac_run **out)
{
    return kac_run_resume_on(NULL, config, path, out);
}

kac_status kac_run_resume_on(kac_ranks *ranks, const kac_config *config, const char *path,
                             kac_run **out)
{
    KAC_REQUIRE(config != NULL && path != NULL && out != NULL);
    kac_status status = KAC_OK;
    kac_tensors *file = NULL;
    kac_run *r = NULL;
    heading h = {0};
    if (kac_ranks_rank(ranks) == 0) status = open_checkpoint(config, path, &file, &h);
    KAC_TRY_DONE(kac_ranks_confer(ranks, status));
    KAC_TRY_DONE(kac_ranks_broadcast(ranks, &h, sizeof h));
    KAC_TRY_DONE(kac_ranks_confer(ranks, open_like(ranks, config, &h, &r)));
    KAC_TRY_DONE(read_parts(r, file, &h));
    if (file != NULL) take_started(r, file);
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
