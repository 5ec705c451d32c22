/* laws.h -- unbiased means of weighted runs against what is enumerated.
 *
 * With `final: weighted` the mean over a group's particles of exp(log_weight) phi(object) is an
 * unbiased estimate of E_q[exp(r / alpha) phi] for any number of particles, so groups are
 * replicates and a z-test of their mean needs no tolerance.
 */
#ifndef KAC_LAWS_H
#define KAC_LAWS_H

#include "table_run.h"

/* |z| of 17 test functions stays below this with probability 1 - 1e-6. */
#define LAW_Z_BOUND 5.43

/* Sums over replicates of the test functions and their squares. */
typedef struct law_sums {
    int functions;
    int64_t replicates;
    double sum[CHAIN_FUNCTIONS], square[CHAIN_FUNCTIONS];
} law_sums;

static inline void add_replicate(law_sums *s, const double *mean)
{
    s->replicates++;
    for (int j = 0; j < s->functions; j++) {
        s->sum[j] += mean[j];
        s->square[j] += mean[j] * mean[j];
    }
}

/* The largest |z|, and the function that has it. */
static inline double worst_z(const law_sums *s, const double *exact, int *which)
{
    double worst = 0, n = (double)s->replicates;
    for (int j = 0; j < s->functions; j++) {
        double mean = s->sum[j] / n, variance = s->square[j] / n - mean * mean;
        double z = fabs(mean - exact[j]) / sqrt(variance / n + 1e-20);
        if (!(z <= worst)) {
            worst = z;
            *which = j;
        }
    }
    return worst;
}

/* Mean of exp(log_weight) phi over the samples first .. last - 1. */
static inline void weighted_mean(const chain *c, const table_run *run, int64_t first,
                                 int64_t last, double *mean)
{
    double phi[CHAIN_FUNCTIONS];
    memset(mean, 0, CHAIN_FUNCTIONS * sizeof *mean);
    for (int64_t i = first; i < last; i++) {
        double w = exp(run->log_weight[i]) / (double)(last - first);
        if (w <= 0) continue;
        int n = chain_functions(c, run->object[i], phi);
        for (int j = 0; j < n; j++)
            mean[j] += w * phi[j];
    }
}

/* Adds every group of a run as a replicate. */
static inline void add_groups(const chain *c, const table_run *run, law_sums *s)
{
    double mean[CHAIN_FUNCTIONS];
    for (int64_t first = 0, last; first < run->n; first = last) {
        for (last = first; last < run->n && run->group[last] == run->group[first]; last++)
            ;
        weighted_mean(c, run, first, last, mean);
        add_replicate(s, mean);
    }
}

#endif /* KAC_LAWS_H */
