/* summary_cpu.c -- a step in a few numbers, on the CPU. */
#include "summary.h"

#include <stdlib.h>
#include <string.h>

#include "ops.h"

kac_status kac_cpu_stamp(kac_device *dev, int64_t *nanoseconds)
{
    (void)dev;
    *nanoseconds = kac_nanoseconds();
    return KAC_OK;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static void sum_groups(const kac_summary_args *a, kac_summary *out)
{
    double lane[KAC_SUMMARY_LANES] = {0};
    out->ess_least = (double)INFINITY;
    for (int32_t g = 0; g < a->n_groups; g++) {
        lane[g % KAC_SUMMARY_LANES] += a->groups[g].ess;
        if (a->groups[g].ess < out->ess_least) out->ess_least = a->groups[g].ess;
        out->selected += a->groups[g].selected;
        out->tries += a->groups[g].tries;
    }
    out->ess = kac_summary_total(lane) / a->n_groups;
}

kac_status kac_cpu_summarise(kac_device *dev, const kac_summary_args *a, kac_summary *out)
{
    const int32_t n = a->x->n;
    memset(out, 0, sizeof *out);
    memcpy(a->sorted, a->x->value, (size_t)n * sizeof *a->sorted);
    qsort(a->sorted, (size_t)n, sizeof *a->sorted, ascending);
    for (int k = 0; k < KAC_SUMMARY_VALUES; k++) {
        kac_quantile_at q = kac_quantile_place(n, kac_summary_share(k));
        out->value[k] = kac_quantile_between(a->sorted[q.below], a->sorted[q.above], q.weight);
    }
    memset(a->mark, 0, (size_t)a->eves_below * sizeof *a->mark);
    for (int32_t i = 0; i < n; i++) {
        out->eves += !a->mark[a->x->eve[i]];
        a->mark[a->x->eve[i]] = 1;
    }
    sum_groups(a, out);
    out->t = a->levels[a->level].t;
    out->distinct = *a->distinct;
    memcpy(out->made, a->made, sizeof out->made);
    if (a->idle != NULL) memcpy(out->idle, a->idle, sizeof out->idle);
    return kac_cpu_stamp(dev, &out->nanoseconds);
}
