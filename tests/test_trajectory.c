/* test_trajectory.c -- recorded paths: shapes, ends, lines of descent, repetition. */
#include <criterion/criterion.h>

#include "gaussian_run.h"
#include "table_run.h"

enum { STEPS = 6 };

/* A run of 3 groups of 8 particles with its record. */
typedef struct recorded {
    table_run run;
    kac_tensors *file;
    const uint8_t *x;     /* [24][levels][L] */
    const int32_t *level; /* [levels] */
    int levels, length;
    char dir[256];
} recorded;

static const char *const rows[] = {
    "sampler.algorithm=pretrained",
    "sampler.algorithm=smc sampler.select.group.trigger.kind=every",
    "sampler.algorithm=nested sampler.children=3 sampler.select.group.trigger.below=0.9",
    "sampler.algorithm=smc sampler.children=2 sampler.select.group.trigger.kind=every",
    "sampler.algorithm=svdd_mc sampler.children=4",
    "sampler.algorithm=nested sampler.children=2 sampler.on_dead=revive", /* of one level */
    "sampler.algorithm=smc sampler.funnel=5,3 sampler.select.group.trigger.kind=every",
};
enum { ROWS = sizeof rows / sizeof *rows };

static table_file record_path(const recorded *r)
{
    return table_path(r->dir, "trajectories");
}

/* Runs `settings` and keeps the states after every `every`-th step; 0: none. */
static recorded record(const chain *c, const char *settings, const char *more, int64_t every)
{
    recorded r = {.length = c->length};
    kac_config *config = NULL;
    kac_run *run = NULL;
    char models[256];

    cr_assert(table_folder(models));
    cr_assert(table_folder(r.dir));
    cr_assert_eq(table_write(c, models), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_config_create(&config), KAC_OK);
    cr_assert_eq(kac_config_set(config, "model.file", table_path(models, "denoiser").path),
                 KAC_OK);
    cr_assert_eq(kac_config_set(config, "reward.0.file", table_path(models, "reward").path),
                 KAC_OK);
    cr_assert_eq(kac_config_set(config, "sampler.value.file", table_path(models, "value").path),
                 KAC_OK);
    cr_assert_eq(table_configure(config, "reward.0.kind=table sampler.alpha=0.3 "
                                         "process.steps=6 seed=5"),
                 KAC_OK);
    cr_assert_eq(table_configure(config, settings), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(table_configure(config, "sampler.groups=3 sampler.particles=8"), KAC_OK);
    cr_assert_eq(table_configure(config, more), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_run_create(config, &run), KAC_OK, "%s", kac_last_error());
    if (every > 0)
        cr_assert_eq(kac_run_keep_trajectories(run, every), KAC_OK, "%s", kac_last_error());
    for (int k = 0; k < STEPS; k++)
        cr_assert_eq(kac_run_step(run), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_run_finish(run), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(table_collect("ABC", run, &r.run), KAC_OK);
    if (every > 0) {
        cr_assert_eq(kac_run_write_trajectories(run, r.dir), KAC_OK, "%s", kac_last_error());
        cr_assert_eq(kac_tensors_open(record_path(&r).path, &r.file), KAC_OK, "%s",
                     kac_last_error());
        const kac_tensor *x = kac_tensors_find(r.file, "x");
        r.levels = (int)x->shape[1];
        r.x = x->data;
        r.level = kac_tensors_find(r.file, "level")->data;
    }
    kac_run_destroy(run);
    kac_config_destroy(config);
    table_folder_remove(models);
    return r;
}

static void forget(recorded *r)
{
    kac_tensors_close(r->file);
    unlink(record_path(r).path);
    rmdir(r->dir);
    table_run_free(&r->run);
}

static const uint8_t *state(const recorded *r, int64_t i, int k)
{
    return r->x + (i * r->levels + k) * r->length;
}

/* Whether `next` may follow `now`: nothing that is revealed changes. */
static bool follows(const chain *c, const uint8_t *now, const uint8_t *next)
{
    for (int l = 0; l < c->length; l++)
        if (now[l] != c->states && now[l] != next[l]) return false;
    return true;
}

Test(trajectory, shapes_and_metadata)
{
    static chain c;
    chain_make(&c, 3, 5, false, 1);
    recorded r = record(&c, rows[1], "", 1);
    const kac_tensor *x = kac_tensors_find(r.file, "x");
    cr_expect_eq(x->dtype, KAC_U8);
    cr_expect_eq(x->rank, 3);
    cr_expect_eq(x->shape[0], 24);
    cr_expect_eq(x->shape[1], STEPS + 1);
    cr_expect_eq(x->shape[2], 5);
    const double *time = kac_tensors_find(r.file, "time")->data;
    for (int k = 0; k <= STEPS; k++) {
        cr_expect_eq(r.level[k], STEPS - k);
        cr_expect(k == 0 || time[k] < time[k - 1]);
    }
    cr_expect_eq(kac_tensors_find(r.file, "terms")->shape[1], 1);
    cr_expect_str_eq(kac_tensors_metadata(r.file, "kac.record"), "trajectories");
    cr_expect_str_eq(kac_tensors_metadata(r.file, "kac.alphabet"), "ABC");
    cr_expect_str_eq(kac_tensors_metadata(r.file, "kac.algorithm"), "smc");
    cr_expect_str_eq(kac_tensors_metadata(r.file, "kac.terms"), "reward_term");
    cr_expect(strncmp(kac_tensors_metadata(r.file, "kac.reward"), "1*", 2) == 0);
    forget(&r);
}

/* Of vectors all numbers are kept: each path starts from noise and ends in its sample. */
Test(trajectory, vectors)
{
    vec_files files;
    kac_config *config = NULL;
    kac_run *run = NULL;
    kac_tensors *file = NULL;
    char dir[256];
    cr_assert(table_folder(dir));
    vec_write(&vec_gaussian, &files);
    cr_assert_eq(vec_config(&files,
                            "process.steps=6 process.schedule=edm sampler.algorithm=smc "
                            "sampler.groups=3 sampler.particles=8 "
                            "sampler.select.group.trigger.kind=every",
                            &config),
                 KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_run_create(config, &run), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_run_keep_trajectories(run, 1), KAC_OK, "%s", kac_last_error());
    for (int k = 0; k < STEPS; k++)
        cr_assert_eq(kac_run_step(run), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_run_finish(run), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_run_write_trajectories(run, dir), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_tensors_open(table_path(dir, "trajectories").path, &file), KAC_OK);
    const kac_tensor *x = kac_tensors_find(file, "x");
    cr_assert(x->dtype == KAC_F32 && x->shape[0] == 24 && x->shape[2] == VEC);
    const float(*state)[VEC] = x->data;
    for (int i = 0; i < 24; i++) {
        kac_sample s;
        double object[VEC], start = 0;
        cr_assert_eq(kac_run_sample(run, i, &s), KAC_OK);
        vec_parse(s.object, VEC, object);
        for (int l = 0; l < VEC; l++) {
            cr_expect_float_eq((double)state[i * (STEPS + 1) + STEPS][l], object[l], 1e-6);
            start += fabs((double)state[i * (STEPS + 1)][l]);
        }
        cr_expect_gt(start, 10); /* noise of deviation 80 */
    }
    cr_expect_eq(kac_tensors_metadata(file, "kac.nodes"), NULL);
    kac_tensors_close(file);
    unlink(table_path(dir, "trajectories").path);
    rmdir(dir);
    kac_run_destroy(run);
    kac_config_destroy(config);
    vec_remove(&files);
}

/* Each path starts from noise, never changes what it has revealed, and ends in the sample of
 * its slot, with its reward and weight; selection has made some paths share their start. */
Test(trajectory, paths_are_lines_of_descent)
{
    static chain c;
    chain_make(&c, 3, 5, false, 1);
    for (int k = 0; k < ROWS; k++) {
        recorded r = record(&c, rows[k], "", 1);
        const float *terms = kac_tensors_find(r.file, "terms")->data;
        const double *reward = kac_tensors_find(r.file, "reward")->data;
        const double *log_weight = kac_tensors_find(r.file, "log_weight")->data;
        const int32_t *group = kac_tensors_find(r.file, "group")->data;
        cr_assert_eq(r.run.n, strstr(rows[k], "funnel") != NULL ? 9 : 24);
        cr_assert_eq(kac_tensors_find(r.file, "x")->shape[0], r.run.n);
        for (int64_t i = 0; i < r.run.n; i++) {
            int object = 0;
            for (int l = 0; l < c.length; l++) {
                cr_expect_eq(state(&r, i, 0)[l], c.states);
                object = object * c.states + state(&r, i, STEPS)[l];
            }
            cr_expect_eq(object, r.run.object[i], "%s: path %d", rows[k], (int)i);
            for (int t = 0; t < STEPS; t++)
                cr_expect(follows(&c, state(&r, i, t), state(&r, i, t + 1)),
                          "%s: path %d changes a letter in step %d", rows[k], (int)i, t + 1);
            cr_expect_eq(reward[i], r.run.reward[i]);
            cr_expect_eq((double)terms[i], r.run.reward[i]);
            cr_expect_eq(group[i], r.run.group[i]);
            cr_expect(isnan(r.run.log_weight[i]) ? isnan(log_weight[i])
                                                 : log_weight[i] == r.run.log_weight[i]);
        }
        forget(&r);
    }
}

/* Equal paths up to a level count as one: selection lets many particles descend from few. */
Test(trajectory, selection_joins_paths)
{
    static chain c;
    int distinct[2] = {0};
    chain_make(&c, 3, 5, false, 2);
    for (int k = 0; k < 2; k++) {
        recorded r = record(&c, rows[k], "process.steps=6 sampler.alpha=0.1", 1);
        for (int64_t i = 0; i < 24; i++) {
            bool seen = false;
            for (int64_t j = 0; j < i; j++)
                seen = seen ||
                       memcmp(state(&r, i, 0), state(&r, j, 0), (size_t)(3 * r.length)) == 0;
            distinct[k] += !seen;
        }
        forget(&r);
    }
    cr_expect_lt(distinct[1], distinct[0], "%d starts with selection, %d without", distinct[1],
                 distinct[0]);
}

/* Fewer levels are the same levels, parents composed over the steps between. */
Test(trajectory, every_kth_level)
{
    static chain c;
    chain_make(&c, 3, 5, false, 1);
    for (int k = 0; k < ROWS; k++) {
        recorded all = record(&c, rows[k], "", 1);
        for (int every = 2; every <= 7; every++) {
            recorded few = record(&c, rows[k], "", every);
            cr_assert_eq(few.levels, (STEPS + every - 1) / every + 1);
            cr_expect_eq(few.level[few.levels - 1], 0);
            for (int64_t i = 0; i < all.run.n; i++)
                for (int t = 0; t < few.levels; t++)
                    cr_expect_arr_eq(state(&few, i, t), state(&all, i, STEPS - few.level[t]),
                                     (size_t)c.length, "%s: every %d", rows[k], every);
            forget(&few);
        }
        forget(&all);
    }
}

/* Recording changes no sample, and a record is the same bytes however the run is computed. */
Test(trajectory, repeats)
{
    static chain c;
    static const char *const more[] = {"", "device.batch=1", "sampler.reuse=off",
                                       "device.threads=3"};
    chain_make(&c, 3, 5, false, 1);
    for (int k = 0; k < ROWS; k++) {
        recorded first = record(&c, rows[k], more[0], 1);
        recorded none = record(&c, rows[k], "", 0);
        cr_expect_arr_eq(first.run.object, none.run.object,
                         (size_t)none.run.n * sizeof *none.run.object);
        for (int m = 1; m < 4; m++) {
            recorded other = record(&c, rows[k], more[m], 1);
            for (int t = 0; t < kac_tensors_count(first.file); t++) {
                const kac_tensor *a = kac_tensors_at(first.file, t);
                const kac_tensor *b = kac_tensors_find(other.file, a->name);
                cr_assert_eq(a->bytes, b->bytes);
                cr_expect(memcmp(a->data, b->data, a->bytes) == 0, "%s: %s", more[m], a->name);
            }
            forget(&other);
        }
        forget(&none);
        forget(&first);
    }
}

/* ---- what can not be -------------------------------------------------------------------- */

Test(trajectory, refusals)
{
    static chain c;
    char dir[256];
    kac_config *config = NULL;
    kac_run *run = NULL;
    chain_make(&c, 3, 5, false, 1);
    cr_assert(table_folder(dir));
    cr_assert_eq(table_write(&c, dir), KAC_OK);
    cr_assert_eq(kac_config_create(&config), KAC_OK);
    cr_assert_eq(kac_config_set(config, "model.file", table_path(dir, "denoiser").path),
                 KAC_OK);
    cr_assert_eq(table_configure(config, "sampler.algorithm=pretrained sampler.groups=20000 "
                                         "process.steps=200000"),
                 KAC_OK);
    cr_assert_eq(kac_run_create(config, &run), KAC_OK, "%s", kac_last_error());
    cr_expect_eq(kac_run_keep_trajectories(run, 0), KAC_ERR_INVALID);
    cr_expect_eq(kac_run_keep_trajectories(run, 1), KAC_ERR_INVALID);
    cr_expect(strstr(kac_last_error(), "4 GiB") != NULL, "%s", kac_last_error());
    cr_expect_eq(kac_run_write_trajectories(run, dir), KAC_ERR_INVALID);
    cr_assert_eq(kac_run_step(run), KAC_OK);
    cr_expect_eq(kac_run_keep_trajectories(run, 100000), KAC_ERR_INVALID, "a step was made");
    kac_run_destroy(run);
    kac_config_destroy(config);
    table_folder_remove(dir);
}
