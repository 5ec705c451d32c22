/* trace.c -- a line for every step: made on the device, read when the host has time. */
#include <math.h>
#include <stdlib.h>

#include "run.h"
#include "search.h"
#include "summary.h"

kac_status kac_trace_open(kac_run *r)
{
    const kac_memory_ops *op = &r->dev->ops->memory;
    int64_t now = 0;
    r->line = calloc((size_t)r->moves, sizeof *r->line);
    if (r->line == NULL)
        return KAC_FAIL(KAC_ERR_NOMEM, "run: no memory for the trace of %d steps", r->moves);
    r->trace.summary = kac_take(r, r->moves, sizeof *r->trace.summary);
    r->trace.stamp = kac_take(r, 1, sizeof *r->trace.stamp);
    int32_t n = kac_selected_of(r).x->n;
    r->trace.sorted = kac_take(r, n, sizeof *r->trace.sorted);
    r->trace.mark = kac_take(r, n, sizeof *r->trace.mark);
    r->trace.eves_below = n;
    KAC_TRY(kac_gathering_open(r));
    if (r->short_of_memory) return KAC_ERR_NOMEM; /* alloc left the sentence */
    KAC_TRY(r->dev->ops->particles.stamp(r->dev, r->trace.stamp));
    KAC_TRY(op->download(r->dev, &now, r->trace.stamp, sizeof now));
    r->trace.ahead = 1e-9 * (double)now - kac_now();
    return KAC_OK;
}

/* Distinct states in the population, the same with and without reuse, in census_fresh.count. */
static kac_status count_distinct(kac_run *r)
{
    const kac_states_ops *op = &r->dev->ops->states;
    kac_rows rows = {r->x.x, NULL, 0, r->n};
    r->census.reuse = 1;
    KAC_TRY(op->clear(r->dev, &r->census));
    KAC_TRY(op->forget(r->dev, r->census_entry, r->n));
    return op->find(r->dev, &r->census, &rows, r->census_entry, &r->census_fresh, NULL);
}

kac_status kac_trace_record(kac_run *r)
{
    kac_selected of = kac_selected_of(r);
    kac_line line = {.progress = {.step = r->step},
                     .pass = r->pass,
                     .particles = of.x->n,
                     .denoiser_asked = r->calls.denoiser_asked,
                     .reward_asked = r->calls.reward_asked};
    kac_summary_args a = {.levels = r->levels,
                          .level = r->level,
                          .groups = of.groups,
                          .n_groups = kac_groups_here(r),
                          .x = of.x,
                          .eves_below = r->trace.eves_below,
                          .distinct = r->census_fresh.count,
                          .made = r->made,
                          .idle = r->revive.args.idle,
                          .sorted = r->trace.sorted,
                          .mark = r->trace.mark};
    if (r->lines > 0 && r->line[r->lines - 1].progress.step == r->step) return KAC_OK;
    /* Rows of trees that wait are known already and not asked about, but without reuse they are. */
    if (kac_searches_trees(r) && r->set.sampler.reuse) a.idle = r->search->args.idle;
    if (kac_gathering_is_full(r)) KAC_TRY(kac_trace_flush(r));
    KAC_TRY(count_distinct(r));
    KAC_TRY(r->dev->ops->particles.summarise(r->dev, &a, &r->trace.summary[r->lines]));
    KAC_TRY(kac_gathering_record(r, r->lines));
    r->line[r->lines++] = line;
    kac_lap(r, KAC_PHASE_OTHER);
    return KAC_OK;
}

/* What the run has counted until the step of this line. */
static kac_calls calls_until(const kac_run *r, const kac_line *line, const kac_summary *s)
{
    int64_t denoisers = kac_run_denoisers(r);
    int64_t rewards = kac_rewards_networks(r->guide);
    int64_t samples = r->revive.levels > 0 ? 1 : r->samples; /* of an idle row */
    return (kac_calls){
        .denoiser_asked =
            r->pilot.denoiser_asked + line->denoiser_asked - s->idle[0] * denoisers,
        .denoiser_made = r->pilot.denoiser_made + s->made[0] * denoisers,
        .reward_asked =
            r->pilot.reward_asked + line->reward_asked - s->idle[1] * samples * rewards,
        .reward_made = r->pilot.reward_made + s->made[1] * rewards + s->made[3],
        .gradients = s->made[2],
    };
}

static void read_line(kac_run *r, const kac_summary *s, kac_line *line)
{
    kac_progress *p = &line->progress;
    double before = line == r->line ? 0 : line[-1].progress.seconds;
    r->counted = calls_until(r, line, s);
    for (int k = 0; k < 3; k++)
        p->value[k] = s->value[k];
    p->ess = s->ess;
    p->selected = s->selected;
    p->distinct = s->distinct;
    p->denoiser_calls = r->counted.denoiser_made;
    p->denoiser_saved = r->counted.denoiser_asked - r->counted.denoiser_made;
    p->reward_calls = r->counted.reward_made;
    p->reward_saved = r->counted.reward_asked - r->counted.reward_made;
    p->seconds = 1e-9 * (double)s->nanoseconds - r->trace.ahead - r->began;
    line->t = s->t;
    line->ess_least = s->ess_least;
    line->eves = s->eves;
    line->tries = s->tries;
    line->lap = p->seconds - before;
}

kac_status kac_trace_flush(kac_run *r)
{
    enum { AT_ONCE = 64 };
    const kac_memory_ops *op = &r->dev->ops->memory;
    kac_summary summary[AT_ONCE];
    while (r->trace.read < r->lines) {
        int32_t first = r->trace.read,
                n = r->lines - first < AT_ONCE ? r->lines - first : AT_ONCE;
        KAC_TRY(op->download(r->dev, summary, r->trace.summary + first,
                             (size_t)n * sizeof *summary));
        for (int32_t i = 0; i < n; i++) {
            KAC_TRY(kac_gathering_read(r, first + i, &summary[i]));
            read_line(r, &summary[i], &r->line[first + i]);
        }
        r->trace.read += n;
    }
    return KAC_OK;
}

/* An order of all doubles: NaN comes last. */
static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    if (isnan(x) || isnan(y)) return (isnan(x) != 0) - (isnan(y) != 0);
    return (x > y) - (x < y);
}

double kac_quantile(const double *sorted, int64_t n, double share)
{
    kac_quantile_at q = kac_quantile_place(n, share);
    return kac_quantile_between(sorted[q.below], sorted[q.above], q.weight);
}

void kac_sort(double *values, int64_t n)
{
    qsort(values, (size_t)n, sizeof *values, ascending);
}
