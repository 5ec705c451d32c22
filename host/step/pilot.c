/* pilot.c -- alpha auto: the temperature at which p* is as far from q as asked.
 *
 * The pilot's samples are independent of the run's, so alpha is a constant to the run, and what
 * it estimates stays unbiased.
 */
#include "pilot.h"

#include <math.h>
#include <stdlib.h>

#include "exact.h"

/* Rewards of the pilot's valid samples. */
typedef struct pilot {
    int64_t n;
    double *reward; /* [n] */
} pilot;

/* How far weights exp(r / alpha) are from equal: KL of the weighted samples from the unweighted
 * (nats), or minus their effective share; both fall as alpha grows. */
static double distance(const pilot *p, double alpha, bool ess)
{
    double top = -HUGE_VAL, sum = 0, square = 0, entropy = 0;
    for (int64_t i = 0; i < p->n; i++)
        top = p->reward[i] > top ? p->reward[i] : top;
    for (int64_t i = 0; i < p->n; i++) {
        double l = (p->reward[i] - top) / alpha, w = kac_exp(l);
        sum += w;
        square += w * w;
        entropy += w > 0 ? w * l : 0;
    }
    if (ess) return -sum * sum / (square * (double)p->n);
    return entropy / sum + kac_log((double)p->n / sum);
}

/* Bisects log alpha between a millionth and a million times the spread of the rewards. */
static double solve(const pilot *p, double target, bool ess)
{
    double least = HUGE_VAL, most = -HUGE_VAL;
    for (int64_t i = 0; i < p->n; i++) {
        least = p->reward[i] < least ? p->reward[i] : least;
        most = p->reward[i] > most ? p->reward[i] : most;
    }
    if (!(most > least)) return 1; /* every alpha gives p* = q */
    double low = kac_log((most - least) * 1e-6), high = kac_log((most - least) * 1e6);
    for (int k = 0; k < 60; k++) {
        double middle = low + (high - low) / 2;
        if (distance(p, kac_exp(middle), ess) > target)
            low = middle;
        else
            high = middle;
    }
    return kac_exp(high);
}

/* All steps of the pilot's run; ten times a second is told how far it is. */
static kac_status take_steps(kac_run *run, const kac_piloted *piloted)
{
    double told = kac_now();
    for (int64_t k = 1; k <= kac_run_steps(run); k++) {
        kac_progress now;
        KAC_TRY(kac_run_step(run));
        if (piloted->watch == NULL || (kac_now() - told < 0.1 && k < kac_run_steps(run)))
            continue;
        KAC_TRY(kac_run_sync(run, &now));
        piloted->watch(piloted->watcher, &now, kac_run_steps(run));
        told = kac_now();
    }
    return KAC_OK;
}

static kac_status sample(const kac_config *config, const kac_piloted *piloted,
                         const kac_settings *settings, pilot *out, kac_calls *calls)
{
    kac_status status = KAC_OK;
    kac_config *alone = NULL;
    kac_run *run = NULL;
    KAC_TRY_DONE(kac_config_pilot(config, settings->sampler.pilot, &alone));
    KAC_TRY_DONE(kac_run_create(alone, &run));
    KAC_TRY_DONE(take_steps(run, piloted));
    KAC_TRY_DONE(kac_run_finish(run));
    out->reward = calloc((size_t)settings->sampler.pilot, sizeof *out->reward);
    if (out->reward == NULL) {
        status = KAC_FAIL(KAC_ERR_NOMEM, "sampler.alpha: no memory for the pilot's rewards");
        goto done;
    }
    for (int64_t i = 0; i < kac_run_samples(run); i++) {
        kac_sample s;
        KAC_TRY_DONE(kac_run_sample(run, i, &s));
        if (s.reward > -HUGE_VAL) out->reward[out->n++] = s.reward;
    }
    *calls = run->counted;
done:
    kac_run_destroy(run);
    kac_config_destroy(alone);
    return status;
}

kac_status kac_pilot(const kac_config *config, const kac_piloted *piloted,
                     kac_settings *settings, kac_calls *calls)
{
    pilot p = {0};
    bool ess = settings->sampler.pilot_ess;
    double target = ess ? -settings->sampler.pilot_share : settings->sampler.pilot_kl;
    kac_status status = KAC_OK;

    KAC_TRY_DONE(sample(config, piloted, settings, &p, calls));
    /* n samples know of p* while n exp(-KL) of them matter. */
    if (!ess && (double)p.n * kac_exp(-target) < 10) {
        status = KAC_FAIL(KAC_ERR_INVALID,
                          "sampler.pilot.kl: %g nats need a pilot of %.0f valid samples, and "
                          "sampler.pilot.particles gave %lld",
                          target, ceil(10 * kac_exp(target)), (long long)p.n);
        goto done;
    }
    if (p.n == 0) {
        status = KAC_FAIL(KAC_ERR_NUMERIC, "sampler.alpha: the pilot has no valid sample");
        goto done;
    }
    settings->sampler.alpha = solve(&p, target, ess);
done:
    free(p.reward);
    return status;
}
