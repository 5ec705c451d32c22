/* run.h -- the state of one run, shared by the files of step/.
 *
 * Notation: T steps, n particles in G groups, M children a particle, J completions a child,
 * K candidates a particle after the parent stage, L sites, S letters.  Upper case in comments
 * only.  Pointers are device memory unless said otherwise.
 */
#ifndef KAC_RUN_H
#define KAC_RUN_H

#include <jansson.h>

#include "memo.h"
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
} kac_calls;

/* One line of the trace. */
typedef struct kac_line {
    kac_progress progress;
    double t, ess_least;
    int32_t eves; /* distinct first ancestors of the particles */
    double lap;   /* seconds of this step */
} kac_line;

/* One final sample. */
typedef struct kac_result {
    int32_t slot, group;
    double reward, log_weight, log_likelihood;
} kac_result;

struct kac_run {
    kac_config *config; /* owned copy */
    kac_settings set;
    kac_device *dev;
    const kac_process_ops *process;
    kac_network *denoiser;
    kac_rewards *guide; /* terms that steer */
    kac_rewards *judge; /* terms that are recorded at the end */

    kac_shape shape;
    bool vectors; /* states are vectors, not tokens */
    int32_t steps, n, groups, children, samples, keep, batch, pools;
    int32_t slot_floats; /* L S */

    /* the process */
    kac_level *levels; /* [T + 1] */
    kac_clock *clock;

    /* the population */
    kac_group *group;     /* [G] */
    int32_t *pool_first;  /* [pools + 1] */
    double *group_weight; /* [G][columns] */
    kac_particles x;      /* n particles */
    kac_particles y;      /* n M children */

    /* evaluations */
    kac_memo evals;
    kac_fresh fresh;     /* [n M] */
    kac_jobs jobs;       /* [batch] */
    uint8_t *completion; /* [max(batch, n M J)][stride] */
    float *soft;         /* [batch][L][S], where the estimate is soft */
    float *batch_terms;  /* [batch][columns] */
    float *terms;        /* [n M J][columns] */
    float *judge_terms;  /* [n][columns of the judges] */
    kac_memo census;     /* counts distinct states */
    kac_fresh census_fresh;
    int32_t *census_entry;
    int64_t *made; /* [2] rows evaluated: denoiser, reward objects */

    /* twist of vectors */
    int32_t *slot; /* [n] rows of evals.logits that belong to the particles */
    int32_t *row;  /* [n] 0, 1, ... */
    float *pulled; /* [batch][L] gradient at the estimates */
    float *tilt;   /* [n][L] */

    kac_select_args select;
    kac_fault *fault;
    int32_t *scratch; /* [n] */

    /* host */
    int32_t step; /* steps queued so far */
    kac_calls calls;
    double seconds[KAC_PHASES];
    double began, lap;     /* wall clock */
    double total;          /* seconds, once finished */
    int32_t lines;         /* of the trace */
    kac_line *line;        /* [T] */
    double *sort;          /* [n] scratch */
    kac_group *host_group; /* [G] as of the latest line */
    int32_t *host_eve;     /* [n] */
    bool finished;
    bool weighted; /* properly */
    int64_t samples_out;
    kac_result *result;   /* [samples_out] */
    double *result_terms; /* [samples_out][rewards] */
    char *text;           /* [samples_out][text_size] */
    size_t text_size;     /* of an object with its final zero */
    double log_evidence, log_evidence_se;
    json_t *json; /* run.json while it is written */

    void *owned[64]; /* device memory to release */
    int owned_count;
    bool short_of_memory;
};

/* The line of the trace for the latest step, unless it is there already. */
kac_status kac_record(kac_run *run);

/* Wall clock in seconds, and the time since the last call booked on `phase`. */
double kac_now(void);
void kac_lap(kac_run *run, kac_phase phase);

/* Name of a reward term, its column in samples.csv: the one given, else the file's without folder
 * and ending. */
void kac_term_name(const kac_reward_settings *reward, char *text, size_t size);

/* Ascending; quantile by linear interpolation of sorted values, n >= 1. */
void kac_sort(double *values, int64_t n);
double kac_quantile(const double *sorted, int64_t n, double share);

/* ---- evaluate.c ----------------------------------------------------------------------------
 */

/* Denoiser outputs for the particles x, each distinct state once. */
kac_status kac_evaluate_parents(kac_run *run);

/* Terms of the children y at their completions, into run->terms. */
kac_status kac_evaluate_children(kac_run *run);

/* The last level: fills what is still masked in y, and their exact terms.  Vectors of level 0
 * are objects as they are. */
kac_status kac_evaluate_objects(kac_run *run);

/* log-likelihood estimates of n objects x0 (device) into host_out [n]; ids [n] (device) key the
 * draws.  ELBO estimator of masked diffusion (Sahoo et al. 2024), one noised copy a level. */
kac_status kac_likelihood(kac_run *run, const uint8_t *x0, const int32_t *id, int32_t n,
                          double *host_out);

/* ---- twist.c -------------------------------------------------------------------------------
 */

/* Whether proposals are tilted, and whether every network that it needs has a gradient.
 * Errors: INVALID. */
bool kac_twist_is_on(const kac_run *run);
kac_status kac_twist_check(const kac_run *run);

/* run->tilt of the particles, whose evaluations are at hand, at the clock's level. */
kac_status kac_twist_evaluate(kac_run *run);

#endif /* KAC_RUN_H */
