/* run.c -- a run from its opening to its end: the public functions around the step. */
#include "run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "device.h"
#include "pilot.h"
#include "started.h"

void kac_lap(kac_run *r, kac_phase phase)
{
    double now = kac_now();
    r->seconds[phase] += now - r->lap;
    r->lap = now;
}

static kac_status open_driver(kac_run *r)
{
    switch (r->set.driver.kind) {
    case KAC_DRIVER_NONE: break;
    case KAC_DRIVER_SEARCH: return kac_search_open(r);
    case KAC_DRIVER_REFINE: return kac_refine_open(r);
    case KAC_DRIVER_GIBBS: return kac_gibbs_open(r);
    }
    return KAC_OK;
}

static kac_status open_run(kac_run *r)
{
    KAC_TRY(kac_plan_most(r));
    KAC_TRY(kac_models_open(r));
    KAC_TRY(kac_start_given(r));
    KAC_TRY(kac_plan_passes(r));
    KAC_TRY(kac_models_open_rewards(r));
    KAC_TRY(kac_plan_groups(r));
    KAC_TRY(kac_take_population(r));
    KAC_TRY(kac_trace_open(r));
    KAC_TRY(kac_start_population(r));
    return open_driver(r);
}

kac_status kac_run_create(const kac_config *config, kac_run **out)
{
    return kac_run_create_on(NULL, config, out);
}

kac_status kac_run_create_on(kac_ranks *ranks, const kac_config *config, kac_run **out)
{
    return kac_run_create_watched(ranks, config, NULL, NULL, out);
}

kac_status kac_run_create_watched(kac_ranks *ranks, const kac_config *config,
                                  kac_watch_fn *watch, void *context, kac_run **out)
{
    KAC_REQUIRE(config != NULL && out != NULL);
    kac_piloted none = {.known = false, .watch = watch, .watcher = context};
    return kac_run_open(ranks, config, &none, out);
}

/* Every rank has made the pilot; what rank 0 found holds, should rewards not repeat themselves. */
static kac_status share_pilot(kac_run *r, kac_status status)
{
    double *alpha = &r->set.sampler.alpha;
    KAC_TRY(kac_ranks_agree(r->ranks, status, NULL, 0));
    KAC_TRY(kac_ranks_broadcast(r->ranks, alpha, sizeof *alpha));
    return kac_ranks_broadcast(r->ranks, &r->pilot, sizeof r->pilot);
}

/* Where a team of ranks shares groups, once every rank is ready. */
static kac_status connect_devices(kac_run *r, kac_status status)
{
    KAC_TRY(kac_ranks_agree(r->ranks, status, NULL, 0));
    status = kac_ranks_connect(r->ranks, r->dev, (kac_link)r->set.job.transport);
    r->connected = kac_ranks_are_connected(r->ranks);
    return status;
}

/* A run of nothing yet but a configuration. */
static kac_status take_config(kac_run *r, kac_ranks *ranks, const kac_config *config)
{
    r->began = r->lap = kac_now();
    r->ranks = ranks;
    KAC_TRY(kac_config_settings(config, &r->set));
    kac_ranks_set_patience(ranks, r->set.job.patience);
    KAC_TRY(kac_started_now(&r->started));
    return kac_config_clone(config, &r->config);
}

kac_status kac_run_open(kac_ranks *ranks, const kac_config *config, const kac_piloted *piloted,
                        kac_run **out)
{
    kac_status status = KAC_OK;
    kac_run *r = calloc(1, sizeof *r);
    /* A rank that fails meets the others where they next agree, and then all have, for good. */
    if (r == NULL)
        return kac_ranks_agree(ranks, KAC_FAIL(KAC_ERR_NOMEM, "run: no memory"), NULL, 0);
    KAC_TRY_DONE(kac_ranks_agree(ranks, take_config(r, ranks, config), NULL, 0));
    if (piloted->known) {
        r->set.sampler.alpha = piloted->alpha;
        r->pilot = piloted->calls;
    } else if (isnan(r->set.sampler.alpha)) {
        KAC_TRY_DONE(share_pilot(r, kac_pilot(config, piloted, &r->set, &r->pilot)));
    }
#ifdef _OPENMP
    if (r->set.device.threads > 0) omp_set_num_threads((int)r->set.device.threads);
#endif
    KAC_TRY_DONE(connect_devices(r, open_run(r)));
    KAC_TRY_DONE(kac_checkpoint_open(r));
done:
    if (status != KAC_OK) {
        kac_run_destroy(r);
        return status;
    }
    *out = r;
    return KAC_OK;
}

void kac_run_destroy(kac_run *r)
{
    if (r == NULL) return;
    if (r->connected) kac_ranks_disconnect(r->ranks);
    if (r->dev != NULL) {
        (void)r->dev->ops->memory.enter(r->dev);
        for (int i = 0; i < 2; i++)
            r->dev->ops->memory.erase(r->dev, r->recording[i].step);
        for (int i = 0; i < r->owned_count; i++)
            r->dev->ops->memory.release(r->dev, r->owned[i]);
        kac_memo_close(r->dev, &r->evals);
        kac_memo_close(r->dev, &r->census);
        kac_fresh_close(r->dev, &r->fresh);
        kac_fresh_close(r->dev, &r->census_fresh);
        kac_network_close(r->denoiser);
        kac_network_close(r->unconditional);
        kac_rewards_close(r->guide);
        kac_rewards_close(r->judge);
        kac_rewards_close(r->value);
        kac_rewards_close(r->classifier);
        kac_device_close(r->dev);
    }
    kac_search_close(r);
    kac_gathering_close(r->trace.gathering);
    kac_span_close(r->span);
    kac_config_destroy(r->config);
    free(r->failure);
    free(r->place);
    json_decref(r->files);
    json_decref(r->started);
    free(r->line);
    free(r->funnel);
    free(r->draws);
    free(r->sort);
    free(r->host_group);
    free(r->weight);
    free(r->target);
    free(r->first_of_pool);
    free(r->log_evidence);
    free(r->log_evidence_se);
    free(r->evidence_reliable);
    free(r->result);
    free(r->result_terms);
    free(r->text);
    free(r->objects);
    kac_molecule_destroy(r->form.molecule);
    kac_trajectories_close(r->trajectories);
    free(r);
}

double kac_run_alpha(const kac_run *r)
{
    return r->set.sampler.alpha;
}

int64_t kac_run_steps(const kac_run *r)
{
    return r->moves;
}

kac_status kac_end_where_failed(kac_run *r, kac_status status)
{
    if (status == KAC_OK || r->failed != KAC_OK) return status;
    r->failed = status;
    r->failure = strdup(kac_last_error());
    return status;
}

kac_status kac_enter_run(kac_run *r)
{
    if (r->failed == KAC_OK &&
        kac_end_where_failed(r, r->dev->ops->memory.enter(r->dev)) == KAC_OK)
        return KAC_OK;
    const char *text = r->failure != NULL ? r->failure : kac_status_string(r->failed);
    return kac_ranks_agree(r->ranks, KAC_FAIL(r->failed, "%s", text), NULL, 0);
}

static kac_status sync_run(kac_run *r)
{
    KAC_TRY(kac_find_trouble(r));
    if (r->step > 0) KAC_TRY(kac_trace_record(r));
    return kac_trace_flush(r);
}

kac_status kac_run_sync(kac_run *r, kac_progress *out)
{
    KAC_REQUIRE(r != NULL);
    KAC_TRY(kac_enter_run(r));
    KAC_TRY(kac_end_where_failed(r, sync_run(r)));
    if (out != NULL)
        *out = r->lines > 0 ? r->line[r->lines - 1].progress : (kac_progress){.ess = 1};
    return KAC_OK;
}
