/* reward.h -- the terms of the reward, each computed once for each distinct object.
 */
#ifndef KAC_REWARD_H
#define KAC_REWARD_H

#include "network.h"
#include "object.h"
#include "settings.h"
#include "worker.h"

typedef struct kac_rewards kac_rewards;

/* The terms of `settings` that guide (`judge` 0: they have a weight or bounds) or that are only
 * recorded (`judge` 1); or, with `value`, one column that is no term of the settings: what the
 * network of that file says.  A file is opened once, however many terms read it; its heads lie
 * side by side in
 * a row of `columns` floats, and so do the numbers of a worker, which belong to the guiding terms
 * where one of them guides.
 * Batches of `batch` rows at most are asked of a network; without `reuse` equal objects are
 * asked again.  Errors: INVALID (alphabet, length, head), IO, NOMEM. */
typedef struct kac_rewards_config {
    const kac_settings *settings;
    const char *value; /* a file, or NULL */
    const kac_object_form
        *form;    /* of the model; must outlive the rewards, which have its letters */
    bool vectors; /* objects are vectors */
    int32_t batch;
    int64_t expected; /* objects that the run will ask for, at most */
    bool judge;
    bool reuse;
} kac_rewards_config;

kac_status kac_rewards_open(kac_device *dev, const kac_rewards_config *config,
                            kac_rewards **out);
void kac_rewards_close(kac_rewards *rewards);

/* Whether the host waits when objects are scored, for workers or for the device. */
bool kac_rewards_wait(const kac_rewards *rewards);

/* What the workers, each of a term, have done: worker i of kac_rewards_workers. */
int kac_rewards_workers(const kac_rewards *rewards);
kac_worker_counts *kac_rewards_worker(const kac_rewards *rewards, int i, int *term);

/* What is known of objects: their terms, in device memory. */
const kac_memo *kac_rewards_memo(const kac_rewards *rewards);

int32_t kac_rewards_columns(const kac_rewards *rewards); /* floats of a row of terms */
int32_t
kac_rewards_networks(const kac_rewards *rewards); /* calls that one object costs: files */

/* Whether all take probabilities; and, where so, have a gradient.  Else *refuses is the one that does
 * not. */
bool kac_rewards_soft(const kac_rewards *rewards, const char **refuses);
bool kac_rewards_have_gradients(const kac_rewards *rewards, const char **refuses);

/* Column of term `term` of the settings, or -1 where it belongs to the other kind. */
int32_t kac_rewards_column(const kac_rewards *rewards, int term);

/* terms[i] = the row of columns of each live row of `rows`, shape [rows->n][columns], device
 * memory.  *made (device) grows by the number of objects evaluated.  Waits where kac_rewards_wait.
 * Errors: DEVICE, WORKER. */
kac_status kac_rewards_score(kac_rewards *rewards, const kac_rows *rows, float *terms,
                             int64_t *made);

/* The same at probabilities soft [n][length][S]; live rows as in kac_rows with this count and
 * first.  Nothing is remembered. */
kac_status kac_rewards_score_soft(kac_rewards *rewards, const float *soft, const int32_t *count,
                                  int32_t first, int32_t n, float *terms);

/* dr / d input at fresh rows a->first .. of a->x, with r by the weights of each row's group: the
 * input is a->soft, probabilities [a->batch][length][S], or where that is NULL the state itself.
 * grad [a->batch][length][S].  Errors: UNSUPPORTED. */
kac_status kac_rewards_gradient(kac_rewards *rewards, const kac_slope_args *a, float *grad);

#endif /* KAC_REWARD_H */
