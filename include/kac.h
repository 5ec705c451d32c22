/* kac.h -- Feynman-Kac sampling from a diffusion model tilted by a reward, public C API.
 *
 *     p*(x0)  proportional to  q(x0) exp(r(x0) / alpha)
 *
 * q is the law of the reverse chain that is really run, r the reward, alpha the temperature.
 * A run carries a population of particles down the chain, proposes children, weighs them by
 * how promising they are, and selects.  docs/algorithms.md says which law each row samples.
 *
 * Conventions, stated once:
 *   - Functions that can fail return kac_status; outputs are written only on KAC_OK.
 *   - kac_last_error() explains the latest failure on the calling thread.
 *   - X_create makes, X_destroy frees and accepts NULL.  Every other pointer is borrowed, for
 *     the call unless its comment says longer.
 *   - Counts are int64_t, byte sizes are size_t, log-weights are natural logs.
 *   - One object, one thread at a time; different objects are independent.
 *   - The library never prints, exits (but for kac_ranks_close) or catches signals.  Of the
 *     environment it reads KAC_DEVICE (device.name auto), KAC_NCCL and, for kac_validate, TMPDIR.
 */
#ifndef KAC_H
#define KAC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KAC_API __attribute__((visibility("default")))

/* Compilers that can, warn when a status is dropped. */
#if defined(__clang__)
#define KAC_NODISCARD __attribute__((warn_unused_result))
#else
#define KAC_NODISCARD
#endif

/* ---- status ----------------------------------------------------------------------------- */

typedef enum KAC_NODISCARD kac_status {
    KAC_OK = 0,
    KAC_ERR_INVALID,     /* an argument, key, value or file content breaks a stated rule */
    KAC_ERR_NOMEM,       /* host or device memory ran out */
    KAC_ERR_IO,          /* the machine could not read or write a file */
    KAC_ERR_UNSUPPORTED, /* this build or machine lacks the feature */
    KAC_ERR_DEVICE,      /* the accelerator runtime failed */
    KAC_ERR_NUMERIC,     /* a network gave NaN, or under on_dead: error a group is dead */
    KAC_ERR_WORKER,      /* a worker's program crashed, hung or answered what is no answer, or a
                            plug-in failed */
    KAC_ERR_RANK,        /* another rank died or hangs */
    KAC_ERR_INTERNAL,    /* a bug in kac */
} kac_status;

/* A short fixed name for `status`, such as "invalid argument".  Never NULL. */
KAC_API const char *kac_status_string(kac_status status);

/* Text of this thread's latest failure; "" if there was none.  Valid until the next failing
 * call on this thread. */
KAC_API const char *kac_last_error(void);

/* "0.1.0": the version of the library. */
KAC_API const char *kac_version(void);

/* ---- configurations --------------------------------------------------------------------- */

/* What a run is told: the keys of docs/config.md with their values. */
typedef struct kac_config kac_config;

/* Every key at its default. */
KAC_API kac_status kac_config_create(kac_config **out);
KAC_API void kac_config_destroy(kac_config *config);

/* Reads a YAML file on top of what is there.  All mistakes of the file are reported in one
 * message, a line "FILE:LINE:COLUMN: ..." each; the config is then unchanged.
 * Errors: INVALID (content), IO. */
KAC_API kac_status kac_config_read(kac_config *config, const char *path);

/* Sets one key from text: kac_config_set(c, "reward.0.weight", "2").
 * Errors: INVALID (no such key, or a value out of range; the message says what is allowed). */
KAC_API kac_status kac_config_set(kac_config *config, const char *key, const char *value);

/* The value in force (given, else the algorithm's row, else the default) as text, at most
 * size - 1 bytes and a final zero.  Errors: INVALID (no such key). */
KAC_API kac_status kac_config_get(const kac_config *config, const char *key, char *text,
                                  size_t size);

/* Writes what `key` means: type, range, default, help; a section ("sampler") lists its keys,
 * "algorithms" the rows, a word ("gc") the keys whose value it can be; NULL writes all as the Markdown
 * of docs/config.md.  Errors: INVALID (no such key), IO. */
KAC_API kac_status kac_config_explain(const char *key, FILE *out);

/* The same model, process, reward and seed under best_of_n with `particles` draws in each of
 * `groups` groups: the baseline of a sweep.  *out is NULL where no reward says what is best.
 * Errors: NOMEM, and those of kac_config_set. */
KAC_API kac_status kac_config_best_of_n(const kac_config *config, int64_t groups,
                                        int64_t particles, kac_config **out);

/* Writes all keys with the values in force as JSON, which kac_config_read takes back; `path`
 * appears complete or not at all.  Errors: INVALID (the path), IO, NOMEM. */
KAC_API kac_status kac_config_write(const kac_config *config, const char *path);

/* ---- ranks ------------------------------------------------------------------------------ */

/* The processes that share runs, each with a part of the groups (docs/ranks.md).  NULL is this
 * process alone, in every function.  All ranks make the same calls in the same order: those with
 * `ranks`, and of a run kac_run_step, kac_run_sync, kac_run_checkpoint and kac_run_finish. */
typedef struct kac_ranks kac_ranks;

/* `kind` "self" is this process alone, "mpi" the processes of its MPI job, which it joins; once a
 * process.  `expected` is how many the launcher has started, 0: whatever MPI says.
 * Errors: INVALID (another number of ranks), UNSUPPORTED (no libkac_mpi.so, or no MPI), NOMEM. */
KAC_API kac_status kac_ranks_open(const char *kind, int expected, kac_ranks **out);

/* After the last run.  Where another rank is lost, ends all processes of the job with exit code
 * 3, this one too.  Accepts NULL. */
KAC_API void kac_ranks_close(kac_ranks *ranks);

KAC_API int kac_ranks_rank(const kac_ranks *ranks); /* 0 .. size - 1 */
KAC_API int kac_ranks_size(const kac_ranks *ranks);

/* All ranks say how they fared.  Where one has failed, every one gets the status and the message
 * of the lowest of them, "rank N: " before it unless all have, and so does every later call of
 * this kind.  Else votes[0 .. count - 1], two at most, become the largest of all ranks' votes.
 * Errors: any, and RANK. */
KAC_API kac_status kac_ranks_agree(kac_ranks *ranks, kac_status status, int64_t *votes,
                                   int count);

/* ---- runs ------------------------------------------------------------------------------- */

/* One sampling run: model, rewards, population. */
typedef struct kac_run kac_run;

/* Opens the device, the model and the rewards, and takes all memory that the run needs.
 * `config` is copied.  device.threads, where it is given, becomes the calling thread's number of
 * OpenMP threads.  Errors: INVALID, IO, NOMEM, UNSUPPORTED, DEVICE. */
KAC_API kac_status kac_run_create(const kac_config *config, kac_run **out);
KAC_API void kac_run_destroy(kac_run *run);

/* The same, shared by ranks; they must outlive it.  Each rank samples its own groups; rank 0 has
 * the progress, samples, evidence and files of all, the others have none of them.
 * Where there are fewer groups than ranks, several ranks share each.
 * Errors: the same, INVALID also for what ranks do not share (docs/ranks.md).  They are this rank's
 * alone, as those of the other functions are: kac_ranks_agree tells the others. */
KAC_API kac_status kac_run_create_on(kac_ranks *ranks, const kac_config *config, kac_run **out);

/* Does all that kac_run_create_on does but a pilot, and writes at rank 0 what the run would be: its
 * algorithm, population, steps, models, the most calls that it can take, and the device. */
KAC_API kac_status kac_run_plan(kac_ranks *ranks, const kac_config *config, FILE *out);

/* What the latest step did. */
typedef struct kac_progress {
    int64_t step;           /* steps done, 0 .. kac_run_steps() */
    double ess;             /* mean over groups of ESS / particles, in (0, 1] */
    int64_t selected;       /* groups that selected in this step */
    double value[3];        /* 10 %, 50 %, 90 % quantiles of the particles' values */
    int64_t distinct;       /* distinct states in the population */
    int64_t denoiser_calls; /* state rows evaluated so far */
    int64_t denoiser_saved; /* state rows asked for and not evaluated again, so far */
    int64_t reward_calls;   /* objects evaluated by reward networks so far */
    int64_t reward_saved;   /* objects asked for and known already, so far */
    double seconds;         /* wall time since the run began */
} kac_progress;

/* Hears now and then how far the pilot of sampler.alpha auto is: `now` of its `steps` steps. */
typedef void kac_watch_fn(void *context, const kac_progress *now, int64_t steps);

/* kac_run_create_on, which runs the pilot where there is one, and so may take long: `watch` is
 * called meanwhile, by the same thread; it must not use the run.  NULL: nobody is told. */
KAC_API kac_status kac_run_create_watched(kac_ranks *ranks, const kac_config *config,
                                          kac_watch_fn *watch, void *context, kac_run **out);

KAC_API double kac_run_alpha(const kac_run *run); /* given, or found by the pilot */

/* What kac_run_step, kac_run_sync or kac_run_finish has failed at ends the run: these and
 * kac_run_checkpoint then give the same failure again, and change nothing.  The number of steps that
 * are done, and a checkpoint that cannot be written, end none.
 *
 * Queues one step.  Call it kac_run_steps() times.  Where workers or plug-ins answer on the
 * host, it waits for them.  Errors: INVALID (no step is left), DEVICE, WORKER (workers and
 * plug-ins), NOMEM, and of a run that ranks share RANK or what one of them has met. */
KAC_API kac_status kac_run_step(kac_run *run);

/* Steps in all.  T = process.steps reverse steps, one each; but with driver.kind search a step is a
 * block of levels or a wave of rollouts, refine and gibbs make those of every pass, and with
 * sampler.on_dead revive the last step is the last sampler.revive.levels levels at once. */
KAC_API int64_t kac_run_steps(const kac_run *run);

/* Groups of all ranks; a budget may have left fewer than sampler.groups. */
KAC_API int64_t kac_run_groups(const kac_run *run);

/* Waits for the queued steps and says what the latest did in *out (may be NULL).
 * Errors: NUMERIC (NaN from a network, or a dead group under on_dead: error; the message names
 * the step and the slot or group), DEVICE. */
KAC_API kac_status kac_run_sync(kac_run *run, kac_progress *out);

/* Writes what the run is after its latest step into the file `path`, which appears complete or not
 * at all.  Waits for the device.  Before kac_run_finish only.  Of a run that ranks share it is rank 0
 * that writes; all get the same status, and where it is of the file or of memory they may go on.
 * Errors: as kac_run_sync, and INVALID (the path), IO, NOMEM. */
KAC_API kac_status kac_run_checkpoint(kac_run *run, const char *path);

/* The folder in which the run of a checkpoint was started, where its relative paths begin.
 * Errors: INVALID (no checkpoint, or it does not say), IO, NOMEM. */
KAC_API kac_status kac_checkpoint_folder(const char *path, char *folder, size_t size);

/* A run that goes on after the step at which the checkpoint at `path` was written, and ends as if
 * it had never been stopped.  `config` is that run's; output.dir, the keys of checkpoint,
 * device.name, threads and isa, and sampler.on_dead where both are error or freeze may differ.
 * Trajectories are kept where they were.
 * Errors: those of kac_run_create, and INVALID (damaged, of another version, configuration or model).
 */
KAC_API kac_status kac_run_resume(const kac_config *config, const char *path, kac_run **out);

/* The same, shared by ranks; as many as you like, whatever their number was.  Rank 0 reads the file.
 * All get the same status, and may try another file. */
KAC_API kac_status kac_run_resume_on(kac_ranks *ranks, const kac_config *config,
                                     const char *path, kac_run **out);

/* After the last step: the final selection, the recorded rewards and likelihoods.
 * Errors: as kac_run_sync, and INVALID before the last step. */
KAC_API kac_status kac_run_finish(kac_run *run);

/* One sample of a finished run. */
typedef struct kac_sample {
    int64_t group;
    int64_t slot;          /* where it stood in the population */
    const char *object;    /* letters, of a molecule its SMILES, or numbers between blanks;
                              valid until destroy */
    double reward;         /* by the weights of its group; -infinity: forbidden or invalid */
    double log_weight;     /* full unnormalised log-weight; NaN where the run has none */
    const double *terms;   /* [kac_run_terms()] each reward term; valid until destroy */
    double log_likelihood; /* estimate under the denoiser, nats; NaN unless asked for */
} kac_sample;

KAC_API int64_t kac_run_samples(const kac_run *run); /* 0 before kac_run_finish */
KAC_API int64_t kac_run_terms(const kac_run *run);

/* Errors: INVALID (i out of range). */
KAC_API kac_status kac_run_sample(const kac_run *run, int64_t i, kac_sample *out);

/* Samples whose reward is -infinity: forbidden by a bound, or invalid.  *groups (may be NULL) is the
 * number of groups that they are of.  `why` (may be NULL) says how many break which bound, in at
 * most `size` bytes: "reward.1 (motif) at_most 0: 2 of 3, ...". */
KAC_API int64_t kac_run_forbidden(const kac_run *run, int64_t *groups, char *why, size_t size);

/* Whether sampler.on_dead: revive, which this run has not, would try for other objects. */
KAC_API bool kac_run_could_revive(const kac_run *run);

/* Targets of the run: groups with equal weights of the reward's terms have one. */
KAC_API int64_t kac_run_targets(const kac_run *run);

/* The evidence of target `target`, 0 .. kac_run_targets() - 1 in the order of their first groups:
 * an estimate of log E_q[exp(r / alpha)] and the standard error of it from replicate groups; NaN
 * where there is none (not properly weighted; fewer than 2 groups for the error). */
KAC_API void kac_run_evidence(const kac_run *run, int64_t target, double *log_evidence,
                              double *standard_error);

/* Whether that evidence and its error may be relied on: false where there is none, where its
 * error is above 0.1 or not known, or where fewer than 16 groups gave it (docs/exactness.md). */
KAC_API bool kac_run_evidence_is_reliable(const kac_run *run, int64_t target);

/* Writes the files of docs/files.md into the existing folder `dir`: samples.csv, samples.fasta (of
 * sequences), samples.smi and samples.sdf (of molecules), run.json, and trace.jsonl where
 * output.trace is on.
 * Errors: INVALID (not finished), IO. */
KAC_API kac_status kac_run_write(kac_run *run, const char *dir);

/* Before the first step: keeps the path of every particle, that is the states on its ancestral
 * line after every `every`-th step, at the start and at the end.  A run that keeps paths waits
 * for the device at each step; its samples are the same.  The states stay in memory until the
 * run is destroyed.
 * Errors: INVALID (steps were made, every < 1, or more than 4 GiB to keep), NOMEM, DEVICE. */
KAC_API kac_status kac_run_keep_trajectories(kac_run *run, int64_t every);
KAC_API bool kac_run_keeps_trajectories(const kac_run *run);

/* Writes trajectories.safetensors (docs/files.md) into the existing folder `dir`.
 * Errors: INVALID (not finished, or no paths were kept), IO. */
KAC_API kac_status kac_run_write_trajectories(const kac_run *run, const char *dir);

/* ---- files and devices ------------------------------------------------------------------ */

/* Writes metadata and tensors of a safetensors file.  Errors: INVALID (malformed), IO. */
KAC_API kac_status kac_inspect(const char *path, FILE *out);

/* Runs the network of `model` on the recorded inputs of `recording` and writes a line for each
 * recorded output: its name, shape and max|a - b| / max|b|.  *worst is the largest of them,
 * *tolerance what rounding makes of it at most: 1e-4, or 2e-3 for states of a trajectory, between
 * which it grows.  `device` as device.name, `isa` as device.isa.  docs/files.md lists the tensors
 * of a recording.
 * Errors: INVALID (a file, or nothing to compare), IO, NOMEM, UNSUPPORTED, DEVICE. */
KAC_API kac_status kac_verify(const char *model, const char *recording, const char *device,
                              const char *isa, FILE *out, double *worst, double *tolerance);

/* Writes a table of the runs in `dirs` (folders written by kac_run_write), a row each.
 * Errors: INVALID (not a run), IO. */
KAC_API kac_status kac_compare(const char *const *dirs, int count, FILE *out);

/* What kac_validate is to do. */
typedef struct kac_validate_options {
    bool full;          /* 16 times the replicates */
    const char *device; /* as device.name */
    uint64_t seed;
    const char *only;    /* checks whose name holds this, or NULL: all */
    bool (*stops)(void); /* asked between two checks whether to leave out the rest; or NULL */
} kac_validate_options;

/* Checks on this machine that what is sampled is what the manual says: runs on models that are
 * enumerated, against the exact laws.  Writes a line for each check to `out`, and all of it as
 * JSON to `json` (may be NULL); *holds says whether every check does.
 * Errors: IO (no folder for the models, JSON that cannot be written), NOMEM. */
KAC_API kac_status kac_validate(const kac_validate_options *options, FILE *out, FILE *json,
                                bool *holds);

/* What a folder holds. */
typedef enum kac_found {
    KAC_FOUND_NOTHING,
    KAC_FOUND_UNFINISHED, /* checkpoints of a run of the configuration */
    KAC_FOUND_SAME,       /* a complete run of it */
    KAC_FOUND_OTHER,      /* a run of another */
} kac_found;

/* Whether `dir` holds a run of `config`, whatever its output.dir.
 * Errors: INVALID (its run.json or config.json cannot be read), NOMEM. */
KAC_API kac_status kac_found_in(const char *dir, const kac_config *config, kac_found *out);

/* What a finished run took: its groups, which a budget may have made fewer, and denoiser calls. */
typedef struct kac_taken {
    int64_t groups, denoiser_calls;
} kac_taken;

/* Writes the figures of the run in `dir` as a line of CSV without its end, or with `names` their
 * names.  Errors: INVALID (not a run), IO. */
KAC_API kac_status kac_figures(const char *dir, bool names, FILE *out, kac_taken *taken);

/* Writes a line for each device that a run could use here: its name and what it is. */
KAC_API kac_status kac_devices(FILE *out);

#ifdef __cplusplus
}
#endif
#endif /* KAC_H */
