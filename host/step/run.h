/* run.h -- the state of one run, shared by the files of step/.
 *
 * Of several ranks that share it, each has a run of its own groups, and rank 0 the results of all.
 *
 * Notation: T steps, n particles in G groups, M children a particle, J completions a child,
 * K candidates a particle after the parent stage, L sites, S letters.  Upper case in comments
 * only.  Pointers are device memory unless said otherwise.
 */
#ifndef KAC_RUN_H
#define KAC_RUN_H

#include <jansson.h>

#include "memo.h"
#include "ranks.h"
#include "reward.h"
#include "settings.h"

/* Where wall time goes; run.json lists them under `seconds`. */
typedef enum kac_phase {
    KAC_PHASE_DENOISER,
    KAC_PHASE_REWARD,
    KAC_PHASE_PROPOSE,
    KAC_PHASE_SELECT,
    KAC_PHASE_OTHER,
    KAC_PHASES,
} kac_phase;

/* State rows that networks were asked for, and those that were evaluated. */
typedef struct kac_calls {
    int64_t denoiser_asked, denoiser_made;
    int64_t reward_asked, reward_made;
    int64_t gradients; /* states at which the reward, and the denoiser, went backwards */
} kac_calls;

/* A guided step that the device can play again, and what that adds to the calls. */
typedef struct kac_recording {
    void *step; /* NULL: none yet */
    int64_t denoiser_asked, reward_asked;
} kac_recording;

/* One line of the trace. */
typedef struct kac_line {
    kac_progress progress;
    int32_t pass; /* of a driver */
    double t, ess_least;
    int32_t eves;                         /* distinct first ancestors of the particles */
    double lap;                           /* seconds of this step */
    int32_t particles;                    /* of this rank */
    int64_t denoiser_asked, reward_asked; /* rows so far, idle ones included, no pilot's */
    int64_t tries;                        /* on_dead revive, of all groups so far */
} kac_line;

/* One final sample. */
typedef struct kac_result {
    int32_t row; /* of the final population */
    int32_t slot, group;
    double reward, log_weight, log_likelihood;
} kac_result;

/* How ranks share a part of a run, and what a checkpoint of all of them has of it. */
typedef enum kac_part_share {
    KAC_PART_GROUPS,  /* each has the rows of its groups, as many for every group */
    KAC_PART_SLOTS,   /* the same of a pool that spans ranks: each has the rows of its slots */
    KAC_PART_ALIKE,   /* all have the same; where not, rank 0's counts */
    KAC_PART_EXTENT,  /* one int32: rows in use, as many for every group */
    KAC_PART_SUM,     /* int64 numbers that add up */
    KAC_PART_PRIVATE, /* what it knows of states and objects: only of one that is alone, for one
                       * that is; others have it as at the start */
} kac_part_share;

/* A part of what a run is between two steps.  All of them are a checkpoint. */
typedef struct kac_part {
    char name[32];
    void *data;
    int64_t count; /* rows of this rank; where a pool spans ranks, all of the pool's */
    size_t size;   /* bytes of a row */
    bool on_host;
    kac_part_share share;
    /* KAC_PART_GROUPS and _SLOTS, all pointers to host memory: */
    int32_t blocks;         /* one after the other, each with rows of all groups; 0: one */
    const int32_t *in_use;  /* rows of a block in use, the first ones; NULL: all */
    const int32_t *through; /* a row begins with an int32 that counts through so many things of
                             * this rank, as many for every group, or is below 0; or NULL */
} kac_part;

enum { KAC_PARTS = 192 }; /* of a run, the most */

/* The parts of all ranks as one, at rank 0. */
typedef struct kac_whole {
    const void *bytes[KAC_PARTS]; /* kac_part_bytes of each */
    void *copy[KAC_PARTS];        /* what kac_whole_free frees of them */
    bool privates;                /* with those parts, too; on all ranks */
} kac_whole;

typedef struct kac_search kac_search;             /* search.h */
typedef struct kac_span kac_span;                 /* span.c */
typedef struct kac_gathering kac_gathering;       /* trace_ranks.c */
typedef struct kac_trajectories kac_trajectories; /* trajectory.c */

struct kac_run {
    kac_config *config; /* owned copy */
    kac_settings set;
    kac_device *dev;
    const kac_process_ops *process;
    kac_network *denoiser;
    kac_network *unconditional; /* the second denoiser, or NULL */
    bool reads_time;            /* one of them does: what they say holds at one level only */
    kac_rewards *guide;         /* terms that steer */
    kac_rewards *judge;         /* terms that are recorded at the end */
    kac_objective objective;    /* over the columns of `guide` */
    kac_rewards *classifier;    /* what the twist differentiates, or NULL */
    kac_rewards *value;         /* a learned value's network, or NULL */

    /* among the ranks; host */
    kac_ranks *ranks;   /* or NULL: alone */
    bool connected;     /* and this run has connected the devices of their team */
    int32_t all_groups; /* of the whole run; `groups` and `n` are this rank's */
    int32_t first;      /* number of its first group */
    int32_t *place;     /* [ranks + 1] the first group of those that each speaks for */
    kac_span *span;     /* where a pool spans ranks, else NULL */

    kac_shape shape;
    kac_object_form form; /* of objects as text */
    bool vectors;         /* states are vectors, or graphs as vectors, not tokens */
    int32_t steps, n, groups, children, samples, keep, batch, pools;
    int32_t slot_floats; /* L S */
    int32_t memo_floats; /* the same, and one more for the clash of two denoisers of vectors */

    /* the process */
    kac_level *levels; /* [T + 1] */
    int32_t *funnel; /* host, [T + 1]: particles of a group from this level on, 0: as before */
    bool *draws; /* host, [T + 1]: the move from this level has draws that a twist can tilt */
    kac_clock *clock;
    uint8_t *fixed; /* [stride] letters that the template gives, or NULL */
    int32_t free_sites;
    uint32_t *allowed; /* [L] letters that it leaves to each site, or NULL: all */
    uint64_t *nodes;   /* [N] law of the number of nodes of a graph, or NULL */
    kac_norms *norms;  /* of graphs that move together, or NULL */

    /* the population */
    kac_group *group;     /* [G] */
    int32_t *pool_first;  /* [pools + 1] */
    double *group_weight; /* [G][rewards] */
    double *value_weight; /* [G] ones: how a learned value weighs, or NULL */
    kac_particles x;      /* n particles */
    kac_particles y;      /* n M children */

    /* passes from a start to level 0; without a driver there is one */
    int32_t passes;
    int32_t pass;  /* the present one, from 0 */
    int32_t back;  /* level at which passes after the first begin */
    int32_t level; /* where the particles are, as the clock says on the device */
    int32_t moves; /* steps of the whole run */
    struct {
        kac_particles past; /* n objects: the best so far */
        double *value;      /* [2 n] scratch */
        int32_t *order;     /* [2 n] scratch */
        int32_t sites;      /* to mask again */
    } refine;
    struct {
        kac_retained retained;
        uint8_t *children; /* [T][n M][stride] the present sweep's, by level */
        int32_t *chosen;   /* [T][n] */
        uint8_t *object;   /* [kept sweeps][G][stride] */
        double *log_z;     /* [G] log evidence of sweep 0 */
        int32_t first;     /* of the kept sweeps */
    } gibbs;
    struct {
        int32_t parents,
            children;    /* rows that children are proposed from, and their children */
        int64_t entries; /* of the memo of evaluations */
    } most;              /* at one time */
    kac_search *search;  /* of driver search, or NULL */
    struct {
        int32_t levels;      /* that the last step goes down, trying again; 0: as every step */
        kac_particles tries; /* n */
        kac_particles kept;  /* n that the particles become */
        kac_revive_args args;
    } revive;

    /* evaluations */
    kac_memo evals;
    kac_fresh fresh;     /* [n M] */
    kac_jobs jobs;       /* [batch] */
    uint8_t *completion; /* [max(batch, n M J)][stride] */
    float *soft;         /* [batch][L][S], where the estimate is soft */
    float *other;        /* [batch][L][S] of the unconditional denoiser */
    float *batch_terms;  /* [batch][columns] */
    float *terms;        /* [n M J][columns] */
    float *judge_terms;  /* [n][columns of the judges] */
    struct {
        float *tilt;          /* [n][L][S], row = entry of the census */
        float *soft, *reward; /* [batch][L][S] */
        float *slope;         /* [batch][L][S] */
        float *input, *other; /* [batch][L][S + 1] */
    } twist;
    kac_memo census; /* distinct states of the particles */
    kac_fresh census_fresh;
    int32_t *census_entry;
    int64_t *made; /* [4] rows evaluated: denoiser, reward objects, gradients, learned values */

    kac_select_args select;
    kac_fault *fault;
    int32_t *scratch; /* [n] */

    /* host */
    int32_t step;      /* steps queued so far */
    int32_t resumed;   /* steps that were made before it was resumed */
    kac_calls calls;   /* asked, as queued, rows that are idle included; without the pilot */
    kac_calls counted; /* until the latest line that was read */
    kac_calls pilot;   /* what finding alpha took, in calls too */
    double seconds[KAC_PHASES];
    double began, lap; /* wall clock */
    double total;      /* seconds, once finished */
    kac_status
        failed;    /* what has ended the run, which may be in the middle of a step; or KAC_OK */
    char *failure; /* its sentence, or NULL: there was no memory for it */
    kac_recording recording[2]; /* not tilted, tilted */
    int32_t lines;              /* of the trace */
    kac_line *line;             /* [moves], without what the device knows until it is read */
    struct {
        kac_summary *summary; /* [moves] on the device */
        int64_t *stamp;       /* on the device */
        double *sorted;       /* [n] scratch */
        int32_t *mark;        /* [eves_below] scratch */
        int32_t eves_below;
        int32_t read;             /* lines that the host has read */
        double ahead;             /* seconds of the device's clock before the host's */
        kac_gathering *gathering; /* of several ranks, else NULL */
    } trace;
    double *sort;          /* [n] scratch */
    kac_group *host_group; /* [G] as of the end; then at rank 0 of all groups */
    double *weight;        /* [all_groups][rewards] weights of the terms */
    int32_t *target;       /* [all_groups] */
    int32_t targets;
    int32_t *first_of_pool; /* [pools + 1] groups */
    bool finished;
    bool weighted; /* properly */
    int64_t samples_out;
    kac_result *result;      /* [samples_out] */
    double *result_terms;    /* [samples_out][rewards] */
    char *text;              /* [samples_out][text_size] */
    size_t text_size;        /* of an object with its final zero */
    uint8_t *objects;        /* molecules: [samples_out][stride], else NULL */
    int64_t forbidden;       /* samples whose reward is -infinity: their group had no other */
    double *log_evidence;    /* [targets] */
    double *log_evidence_se; /* [targets] */
    bool *evidence_reliable; /* [targets] */
    json_t *json;            /* run.json while it is written */
    kac_trajectories *trajectories; /* where they are kept, else NULL */

    kac_part part[KAC_PARTS];
    int parts;
    double elapsed;  /* seconds until the latest checkpoint */
    json_t *files;   /* of rank 0: digests of the files that it reads */
    json_t *started; /* when, where and by which command: started.h; kept where it is resumed */

    void *owned[192]; /* device memory to release */
    int owned_count;
    bool short_of_memory;
};

/* ---- run.c ---------------------------------------------------------------------------------
 */

/* What a pilot has found, once it has run. */
typedef struct kac_piloted {
    bool known;
    double alpha;
    kac_calls calls;
    kac_watch_fn *watch; /* of a pilot that is yet to run, or NULL */
    void *watcher;       /* its context */
} kac_piloted;

/* kac_run_create_on, without a pilot where its outcome is known. */
kac_status kac_run_open(kac_ranks *ranks, const kac_config *config, const kac_piloted *piloted,
                        kac_run **out);

/* Keeps what a step, a sync or the end came to, and passes it on: the first failure ends the
 * run, whose state may from then on be that of half a step. */
kac_status kac_end_where_failed(kac_run *run, kac_status status);

/* What every public function begins with that needs the device: the calling thread gets it, if
 * the run has not failed; else all ranks get the failure, again.  Errors: any. */
kac_status kac_enter_run(kac_run *run);

/* The time since the last call is booked on `phase`. */
void kac_lap(kac_run *run, kac_phase phase);

/* ---- models.c ------------------------------------------------------------------------------
 */

/* The device, the denoisers and the process, and with them the shape of a state.  Errors:
 * those of opening them, INVALID (what does not go together). */
kac_status kac_models_open(kac_run *run);

/* The guide, the judges and the networks of values, once it is known how many steps there are.
 * Errors: likewise. */
kac_status kac_models_open_rewards(kac_run *run);

/* Denoiser calls that one state costs. */
int kac_run_denoisers(const kac_run *run);

/* ---- plan.c --------------------------------------------------------------------------------
 */

/* The most groups, particles and rows that this rank may have, before any model is open.
 * Errors: INVALID, NOMEM. */
kac_status kac_plan_most(kac_run *run);

/* How often the run comes down the levels, and from where.  Errors: INVALID, NOMEM. */
kac_status kac_plan_passes(kac_run *run);

/* How many groups there are, and which of them this rank has; the models are open.
 * Errors: INVALID, NOMEM, RANK. */
kac_status kac_plan_groups(kac_run *run);

/* ---- population.c --------------------------------------------------------------------------
 */

/* Device memory that lives as long as the run; after a failure gives NULL and counts on. */
void *kac_take(kac_run *run, int64_t count, size_t size);
kac_particles kac_take_particles(kac_run *run, int32_t n);
kac_particles kac_take_columns(kac_run *run, int32_t n); /* without states */

/* The memory of particles, their evaluations and selection.  Errors: NOMEM; what is short on
 * the device is counted only. */
kac_status kac_take_population(kac_run *run);

/* ---- parts.c -------------------------------------------------------------------------------
 */

/* The same, of memory whose content outlives the step: a part of the run, in checkpoints under
 * this name.  kac_part_add names memory that is there: OWNER.NAME, or NAME where `owner` is "". */
void *kac_part_take(kac_run *run, const char *owner, const char *name, kac_part part);
void kac_part_add_particles(kac_run *run, const char *owner, const kac_particles *particles,
                            const int32_t *in_use);
void kac_part_add(kac_run *run, const char *owner, const char *name, kac_part part);

/* Bytes of a part of all ranks. */
size_t kac_part_bytes(const kac_run *run, const kac_part *part);

/* The parts of all ranks at rank 0, and from there back to all.  All ranks get the same status,
 * and the run may go on.  Errors: NOMEM, DEVICE, RANK. */
kac_status kac_parts_gather(const kac_run *run, kac_whole *whole);
kac_status kac_parts_scatter(kac_run *run, const kac_whole *whole);
void kac_whole_free(const kac_run *run, kac_whole *whole);

/* ---- targets.c -----------------------------------------------------------------------------
 */

/* Weights, targets and pools of the groups, and the objective; the guide is open.
 * Errors: INVALID (too many targets), NOMEM. */
kac_status kac_open_targets(kac_run *run);

/* ---- share.c -------------------------------------------------------------------------------
 */

/* Where the part of rank q begins, of n things in as equal parts as can be. */
int64_t kac_share_begin(int64_t n, int64_t ranks, int64_t q);

/* The most groups that a rank may have where each is a pool of its own. */
int64_t kac_groups_a_rank(const kac_run *run, int64_t groups);

/* Deals the pools out to the ranks, or where there are fewer pools than ranks the ranks to the
 * pools; from then on groups, pools and first_of_pool are this rank's.
 * Errors: INVALID (this run cannot be shared so), NOMEM, RANK. */
kac_status kac_place_groups(kac_run *run);

/* Groups of this rank's pools, and those whose results it has to tell: all of them, unless it is not
 * the first of the ranks that share them. */
int32_t kac_groups_here(const kac_run *run);
int32_t kac_groups_told(const kac_run *run);

/* What selection sees: the groups, particles and children of this rank, or where a pool spans ranks
 * all those of the pool, without their states. */
typedef struct kac_selected {
    kac_group *groups;
    kac_particles *x, *y;
} kac_selected;
kac_selected kac_selected_of(kac_run *run);

/* Particles of a group, at present. */
int32_t kac_particles_each(const kac_run *run);

/* Rows of `bytes` at rank 0 in `all`, rank by rank, of which rank q has rows(run, q) at
 * `mine`.  All ranks get the same status, and may go on.  Errors: RANK, NOMEM. */
typedef int32_t kac_rows_of_fn(const kac_run *run, int q);
kac_status kac_gather_rows(const kac_run *run, kac_rows_of_fn *rows, const void *mine,
                           size_t bytes, void *all);

/* Rows of all groups in their order, `bytes` a group, at rank 0 in `all`: gathered there from
 * `mine` of those told here, or sent from there in rounds to `mine` of this rank's
 * groups.  Likewise. */
kac_status kac_gather_groups(const kac_run *run, const void *mine, size_t bytes, void *all);
kac_status kac_scatter_groups(const kac_run *run, const void *all, size_t bytes, void *mine);

/* Bytes begin .. begin + size - 1 of the `whole` bytes that rank 0 has in `all`, each rank its own,
 * in rounds.  Likewise. */
kac_status kac_scatter_bytes(const kac_run *run, const void *all, size_t whole, size_t begin,
                             size_t size, void *mine);

/* The norms of a move become those of all ranks; `status` is that of measuring them here.
 * Errors: that of any rank, DEVICE, RANK. */
kac_status kac_share_norms(kac_run *run, kac_status status);

/* ---- span.c: a pool that several ranks share -----------------------------------------------
 *
 * Each member of the team holds the states of some of the pool's slots, in rows: there it proposes,
 * evaluates and values their children, each row a group of its own in run->groups, which gives it
 * the identity of its slot.  All other columns of all the pool's particles and children every
 * member has, and works out the same survivors from them.
 */

/* This rank is of the ranks first .. first + members - 1, one of `teams` teams, which share its pool.
 * run->groups becomes the number of its rows.  Errors: NOMEM, RANK. */
kac_status kac_span_plan(kac_run *run, int teams, int first, int members);
void kac_span_close(kac_span *span); /* accepts NULL */

/* Its memory; then the groups of the pool, whose table the host has. */
kac_status kac_span_open(kac_run *run);
kac_status kac_span_start(kac_run *run, const kac_group *host_groups);

/* All members learn what the children of each are worth, once `status` says how this rank has fared
 * with its own; *a then speaks of the whole pool.  Errors: those of any rank, RANK, DEVICE. */
kac_status kac_span_weigh(kac_run *run, kac_status status, kac_weigh_args *a);

/* What run->select has chosen becomes the particles: the columns of all, and the states of the rows
 * here.  Errors: those of any rank, RANK, DEVICE. */
kac_status kac_span_survive(kac_run *run);

/* kac_gather_groups and kac_scatter_groups of what each rank has for its rows, `bytes` a group.
 * Rows that come are those of the slots that kac_span_place gives it. */
kac_status kac_span_gather(const kac_run *run, const void *mine, size_t bytes, void *all);
kac_status kac_span_scatter(const kac_run *run, const void *all, size_t bytes, void *mine);

/* A pool that is read from a checkpoint: once it is known how many slots it has each member holds
 * those it would start with; once all is read rows and groups are known again.  Errors: DEVICE. */
void kac_span_place(kac_run *run);
kac_status kac_span_resume(kac_run *run);

/* What travelled, at rank 0 of all teams: states, what no placement could do without, and bytes of
 * columns that each member got.  Errors: RANK. */
typedef struct kac_travel {
    int64_t moved, least, columns;
} kac_travel;
kac_status kac_span_add_up(kac_run *run);
kac_travel kac_span_travel(const kac_run *run);
int kac_span_teams(const kac_run *run);

/* ---- start.c -------------------------------------------------------------------------------
 */

/* The levels [T + 1] of the process, without tempering or triggers.  Errors: INVALID. */
kac_status kac_fill_levels(const kac_run *run, kac_level *levels);

/* What is given of the objects, and then the levels, the groups and everyone at level T.
 * Errors: INVALID, NOMEM, DEVICE. */
kac_status kac_start_given(kac_run *run);
kac_status kac_start_population(kac_run *run);

/* Puts the particles back to noise at level T, with equal weights and banks at zero. */
kac_status kac_restart(kac_run *run);

/* Moves the clock to `level`; weights and banks begin anew. */
kac_status kac_reset(kac_run *run, int32_t level, bool eves);

/* ---- trace.c -------------------------------------------------------------------------------
 */

/* The trace.  open takes its memory; record queues the line of the step just made, once; flush
 * reads the lines that were queued, and waits for them. */
kac_status kac_trace_open(kac_run *run);
kac_status kac_trace_record(kac_run *run);
kac_status kac_trace_flush(kac_run *run);

/* Ascending; quantile by linear interpolation of sorted values, n >= 1. */
void kac_sort(double *values, int64_t n);
double kac_quantile(const double *sorted, int64_t n, double share);

/* ---- trace_ranks.c -------------------------------------------------------------------------
 */

/* Memory for lines of which rank 0 has not heard yet; nothing where one rank has the run. */
kac_status kac_gathering_open(kac_run *run);
void kac_gathering_close(kac_gathering *gathering); /* accepts NULL */

/* Whether lines must be read before the next is recorded. */
bool kac_gathering_is_full(const kac_run *run);

/* What rank 0 needs for line `number`; then, at rank 0, the line is made one of all ranks. */
kac_status kac_gathering_record(kac_run *run, int32_t number);
kac_status kac_gathering_read(kac_run *run, int32_t number, kac_summary *summary);

/* ---- step.c --------------------------------------------------------------------------------
 */

/* One guided step, whatever leads it. */
kac_status kac_guided_step(kac_run *run);

/* Children of each row of x, after tick; the table of groups must describe the rows of x. */
kac_status kac_propose(kac_run *run, const kac_particles *x, int32_t children,
                       kac_particles *y);

/* What a learned value is: its one column, in units of the reward. */
kac_objective kac_learned_objective(void);

/* Values of the children y of x from run->terms, J completions a child. */
kac_status kac_value_children(kac_run *run, const kac_particles *x, int32_t samples,
                              kac_particles *y);

/* Values, banks and log-weights of the children y of x, J completions a child; `terms` NULL:
 * this level has no value. */
kac_status kac_weigh_children(kac_run *run, const kac_particles *x, const float *terms,
                              int32_t samples, kac_particles *y);

/* ---- trouble.c -----------------------------------------------------------------------------
 */

/* The sentence for what the device of any rank noted first, if any did.  Errors: NUMERIC
 * (that), DEVICE, and those of kac_ranks_agree. */
kac_status kac_find_trouble(const kac_run *run);

/* ---- forbidden.c ---------------------------------------------------------------------------
 */

typedef enum kac_side { KAC_AT_LEAST, KAC_AT_MOST, KAC_SIDES } kac_side;
enum { KAC_BOUND = KAC_NAME + 64 }; /* bytes of the longest name of a bound, with its end */

/* "reward.1 (motif) at_most 0"; false where the term has no bound on this side. */
bool kac_bound_name(const kac_settings *settings, int term, kac_side side, char *text,
                    size_t size);

/* ---- trajectory.c --------------------------------------------------------------------------
 */

/* The finished particles: what is known of them beside their path. */
typedef struct kac_finished {
    const double *terms;      /* [n][rewards] */
    const double *reward;     /* [n] */
    const double *log_weight; /* [n] full, NaN where the run has none */
} kac_finished;

/* Takes down the latest step; then, after the last, follows each particle back to its start. */
kac_status kac_trajectories_step(kac_run *run);
void kac_trajectories_finish(kac_run *run, const kac_finished *finished);
void kac_trajectories_close(kac_trajectories *trajectories); /* accepts NULL */

/* ---- evaluate.c ----------------------------------------------------------------------------
 */

/* Denoiser outputs for the rows of x, each distinct state once; what no row of x refers to is
 * forgotten. */
kac_status kac_evaluate_parents(kac_run *run, kac_particles *x);

/* The same, but nothing is forgotten, and no values are made. */
kac_status kac_evaluate_states(kac_run *run, kac_particles *x);

/* Terms of y, the children of x, at their completions, into run->terms. */
kac_status kac_evaluate_children(kac_run *run, const kac_particles *x, kac_particles *y);

/* What the network of values, or where there is none the reward, says of the children y as they
 * are, masks as zeros, into run->terms.  No denoiser is asked. */
kac_status kac_evaluate_unfinished(kac_run *run, const kac_particles *y);

/* The last level: fills what is still masked in y, and their exact terms.  Vectors of level 0
 * are objects as they are. */
kac_status kac_evaluate_objects(kac_run *run, const kac_particles *x, kac_particles *y);

/* log-likelihood estimates of n objects x0 (device) into host_out [n]; ids [n] (device) key the
 * draws.  ELBO estimator of masked diffusion (Sahoo et al. 2024), one noised copy a level. */
kac_status kac_likelihood(kac_run *run, const uint8_t *x0, const int32_t *id, int32_t n,
                          double *host_out);

/* Evaluates again what was known of the particles, or nodes of trees, when the checkpoint that
 * has just been read was written: their entries are there, the denoiser's outputs are
 * not.  These calls are not counted, so that the counts are those of a run that was never
 * stopped. */
kac_status kac_evaluate_again(kac_run *run);

/* ---- twist.c -------------------------------------------------------------------------------
 */

/* Whether the next move is tilted. */
bool kac_tilts(const kac_run *run);

/* Tilts of the proposals from the particles x, into run->twist.tilt, where they are. */
kac_status kac_evaluate_twist(kac_run *run);

/* ---- search.c ------------------------------------------------------------------------------
 */

/* Before memory is taken: the steps of the run, the particles that it starts with, and the most
 * rows at one time, for run->groups groups.  Errors: INVALID, NOMEM. */
kac_status kac_search_plan(kac_run *run);

/* Once the networks are open.  Errors: INVALID (more memory than search.memory, a denoiser that
 * reads t, a template that trees cannot keep). */
kac_status kac_search_check(const kac_run *run);

/* Calls that one group takes at most. */
void kac_search_cost(const kac_run *run, int64_t *denoiser, int64_t *reward);

kac_status kac_search_open(kac_run *run);
void kac_search_close(kac_run *run); /* accepts a run without */
kac_status kac_search_step(kac_run *run);

/* ---- output.c ------------------------------------------------------------------------------
 */

/* Name of a reward term, its column in samples.csv: the one given, else the file's without
 * folder and ending, else the kind. */
void kac_term_name(const kac_reward_settings *reward, char *text, size_t size);

/* ---- final.c -------------------------------------------------------------------------------
 */

/* Whether an evidence and its standard error may be relied on, which `groups` replicates gave:
 * the error is at most 0.1, and the groups are 16 or more.  docs/exactness.md measures how often
 * the interval then holds the truth.  An error that is not known (NaN) is none to rely on. */
bool kac_evidence_is_reliable(double standard_error, int64_t groups);

/* ---- refine.c ------------------------------------------------------------------------------
 */

/* Sites to mask again, and the level whose share of masks is nearest to theirs. */
void kac_refine_plan(kac_run *run, const kac_level *levels);
kac_status kac_refine_open(kac_run *run);
kac_status kac_refine_step(kac_run *run);

/* ---- checkpoint.c --------------------------------------------------------------------------
 */

/* Names the parts that the host keeps, and the memos, once all memory is taken; rank 0 makes the
 * digests of the files as they are now.  Errors: those of kac_digest_file. */
kac_status kac_checkpoint_open(kac_run *run);

/* ---- gibbs.c -------------------------------------------------------------------------------
 */

kac_status kac_gibbs_open(kac_run *run);
kac_status kac_gibbs_step(kac_run *run);

/* The children just proposed, and the survivors just chosen, as part of their paths. */
kac_status kac_gibbs_children(kac_run *run);
kac_status kac_gibbs_survivors(kac_run *run);

/* ---- revive.c ------------------------------------------------------------------------------
 */

/* Its memory, once selection has its own; nothing where the run does not revive. */
void kac_revive_open(kac_run *run);
kac_status kac_revive_step(kac_run *run);

/* Calls that one group takes at most in the last step. */
void kac_revive_cost(const kac_run *run, int64_t *denoiser, int64_t *reward);

#endif /* KAC_RUN_H */
