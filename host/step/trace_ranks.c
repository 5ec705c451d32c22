/* trace_ranks.c -- lines of the trace of a run that ranks share.
 *
 * What a rank's own summary says of its particles does not add up to quantiles of all of them, nor
 * to the number of distinct states, which ranks may have in common.  So each rank keeps, for the
 * latest steps, the values of its particles, the hashes of its distinct states and its groups;
 * where lines are read, rank 0 gathers them line by line and works out what one rank would have.
 * Values and groups of a pool that spans ranks are told by one of them; hashes each has its own.
 * States of different ranks count as equal where their hashes, of 64 bits, are.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "run.h"
#include "summary.h"

/* What adds up, of one rank. */
typedef struct part {
    kac_summary summary;
    int64_t denoiser_asked, reward_asked; /* rows, without those of the pilot */
} part;

struct kac_gathering {
    /* on the device: the latest lines, line k in place k mod lines */
    int32_t lines;
    size_t groups, n; /* that this rank tells of: groups, particles at the most */
    size_t rows;      /* states of this rank, at the most */
    double *value;    /* [lines][n] */
    uint64_t *hash;   /* [lines][rows] of distinct states */
    kac_group *group; /* [lines][groups] */

    /* on the host: one line, of this rank */
    double *own_value, *own_ess; /* [n], [groups] */
    uint64_t *own_hash;          /* [rows] */
    kac_group *own_group;        /* [groups] */

    /* rank 0: of all */
    double *all_value, *all_ess; /* [all particles], [all groups] */
    uint64_t *all_hash;          /* [all particles] */
    part *parts;                 /* [ranks] */
    void **into;                 /* [ranks] */
    size_t *sizes;               /* [ranks] */
};

/* As many lines as 64 MiB hold on the rank that has most, so that all ranks read at one step. */
static int32_t lines_kept(const kac_run *r, int64_t each)
{
    int64_t most = 1;
    for (int q = 0; q < kac_ranks_size(r->ranks); q++)
        if (r->place[q + 1] - r->place[q] > most) most = r->place[q + 1] - r->place[q];
    int64_t line = most * (each * (int64_t)(sizeof(double) + sizeof(uint64_t)) +
                           (int64_t)sizeof(kac_group));
    int64_t lines = (INT64_C(64) << 20) / line;
    return (int32_t)(lines < 1 ? 1 : lines < r->moves ? lines : r->moves);
}

kac_status kac_gathering_open(kac_run *r)
{
    size_t ranks = (size_t)kac_ranks_size(r->ranks);
    if (ranks == 1) return KAC_OK;
    kac_gathering *g = calloc(1, sizeof *g);
    r->trace.gathering = g; /* closed with the run, whatever comes */
    if (g == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "run: no memory for the trace");
    size_t each = (size_t)(kac_selected_of(r).x->n / kac_groups_here(r));
    size_t groups = (size_t)kac_groups_told(r), n = groups * each;
    g->lines = lines_kept(r, (int64_t)each);
    g->groups = groups;
    g->n = n;
    g->rows = (size_t)r->n;
    g->value = kac_take(r, (int64_t)g->lines * (int64_t)n, sizeof *g->value);
    g->hash = kac_take(r, (int64_t)g->lines * r->n, sizeof *g->hash);
    g->group = kac_take(r, (int64_t)g->lines * (int64_t)groups, sizeof *g->group);
    g->own_value = calloc(n + 1, sizeof *g->own_value);
    g->own_hash = calloc(g->rows, sizeof *g->own_hash);
    g->own_ess = calloc(groups + 1, sizeof *g->own_ess);
    g->own_group = calloc(groups + 1, sizeof *g->own_group);

    bool first = kac_ranks_rank(r->ranks) == 0;
    size_t all_groups = first ? (size_t)r->all_groups : 1, all = each * all_groups;
    g->all_value = calloc(all, sizeof *g->all_value);
    g->all_hash = calloc(all, sizeof *g->all_hash);
    g->all_ess = calloc(all_groups, sizeof *g->all_ess);
    g->parts = calloc(ranks, sizeof *g->parts);
    g->into = calloc(ranks, sizeof *g->into);
    g->sizes = calloc(ranks, sizeof *g->sizes);
    if (!g->own_value || !g->own_hash || !g->own_ess || !g->own_group || !g->all_value ||
        !g->all_hash || !g->all_ess || !g->parts || !g->into || !g->sizes)
        return KAC_FAIL(KAC_ERR_NOMEM, "run: no memory for the trace of %zu particles", all);
    return KAC_OK;
}

void kac_gathering_close(kac_gathering *g)
{
    if (g == NULL) return;
    free(g->own_value);
    free(g->own_hash);
    free(g->own_ess);
    free(g->own_group);
    free(g->all_value);
    free(g->all_hash);
    free(g->all_ess);
    free(g->parts);
    free(g->into);
    free(g->sizes);
    free(g);
}

bool kac_gathering_is_full(const kac_run *r)
{
    return r->trace.gathering != NULL && r->lines - r->trace.read == r->trace.gathering->lines;
}

kac_status kac_gathering_record(kac_run *r, int32_t number)
{
    const kac_memory_ops *op = &r->dev->ops->memory;
    const kac_gathering *g = r->trace.gathering;
    if (g == NULL) return KAC_OK;
    kac_selected of = kac_selected_of(r);
    size_t rows = (size_t)r->n, place = (size_t)(number % g->lines);
    size_t n = g->groups > 0 ? (size_t)of.x->n : 0;
    /* A memo that has just been cleared fills from its first entry on. */
    KAC_TRY(
        op->copy(r->dev, g->hash + place * g->rows, r->census.hash, rows * sizeof *g->hash));
    KAC_TRY(op->copy(r->dev, g->value + place * g->n, of.x->value, n * sizeof *g->value));
    return op->copy(r->dev, g->group + place * g->groups, of.groups,
                    g->groups * sizeof *g->group);
}

/* ---- one line ------------------------------------------------------------------------------
 */

/* This rank's part of line `number` into host memory. */
static kac_status fetch_own(kac_run *r, int32_t number, const kac_summary *s)
{
    const kac_memory_ops *op = &r->dev->ops->memory;
    kac_gathering *g = r->trace.gathering;
    size_t groups = g->groups, place = (size_t)(number % g->lines);
    size_t n = groups > 0 ? (size_t)r->line[number].particles : 0;
    KAC_TRY(op->download(r->dev, g->own_value, g->value + place * g->n, n * sizeof(double)));
    KAC_TRY(op->download(r->dev, g->own_hash, g->hash + place * g->rows,
                         (size_t)s->distinct * sizeof(uint64_t)));
    KAC_TRY(op->download(r->dev, g->own_group, g->group + place * groups,
                         groups * sizeof(kac_group)));
    for (size_t k = 0; k < groups; k++)
        g->own_ess[k] = g->own_group[k].ess;
    return KAC_OK;
}

/* The parts of all ranks, and as many hashes of each as it has distinct states. */
static kac_status gather_parts(kac_run *r, int32_t number, const kac_summary *s)
{
    kac_gathering *g = r->trace.gathering;
    const kac_line *line = &r->line[number];
    part own = {.summary = *s,
                .denoiser_asked = line->denoiser_asked - r->pilot.denoiser_asked,
                .reward_asked = line->reward_asked - r->pilot.reward_asked};
    if (g->groups == 0) own.summary.selected = own.summary.eves = 0; /* another tells them */
    size_t ranks = (size_t)kac_ranks_size(r->ranks);
    for (size_t q = 0; q < ranks; q++) {
        g->into[q] = &g->parts[q];
        g->sizes[q] = sizeof own;
    }
    KAC_TRY(kac_ranks_gather(r->ranks, &own, sizeof own, g->into, g->sizes));
    uint64_t *next = g->all_hash;
    for (size_t q = 0; q < ranks && kac_ranks_rank(r->ranks) == 0; q++) {
        g->into[q] = next;
        g->sizes[q] = (size_t)g->parts[q].summary.distinct * sizeof *next;
        next += g->parts[q].summary.distinct;
    }
    return kac_ranks_gather(r->ranks, g->own_hash, (size_t)s->distinct * sizeof *next, g->into,
                            g->sizes);
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int32_t count_different(uint64_t *x, int32_t n)
{
    int32_t different = 0;
    qsort(x, (size_t)n, sizeof *x, by_number);
    for (int32_t i = 0; i < n; i++)
        different += i == 0 || x[i] != x[i - 1];
    return different;
}

/* What the parts add up to. */
static void add_parts(kac_run *r, kac_line *line, kac_summary *out)
{
    kac_gathering *g = r->trace.gathering;
    out->selected = out->eves = out->distinct = 0;
    out->tries = 0;
    memset(out->made, 0, sizeof out->made);
    memset(out->idle, 0, sizeof out->idle);
    line->denoiser_asked = r->pilot.denoiser_asked;
    line->reward_asked = r->pilot.reward_asked;
    for (int q = 0; q < kac_ranks_size(r->ranks); q++) {
        const kac_summary *s = &g->parts[q].summary;
        out->selected += s->selected;
        out->eves += s->eves; /* a group has its own */
        out->distinct += s->distinct;
        out->tries += s->tries;
        for (int k = 0; k < 4; k++)
            out->made[k] += s->made[k];
        for (int k = 0; k < 2; k++)
            out->idle[k] += s->idle[k];
        line->denoiser_asked += g->parts[q].denoiser_asked;
        line->reward_asked += g->parts[q].reward_asked;
    }
    out->distinct = count_different(g->all_hash, out->distinct);
}

/* Quantiles of the particles' values, and the ESS of the groups. */
static void sum_up(kac_run *r, int32_t particles, kac_summary *out)
{
    kac_gathering *g = r->trace.gathering;
    kac_sort(g->all_value, particles);
    for (int k = 0; k < KAC_SUMMARY_VALUES; k++)
        out->value[k] = kac_quantile(g->all_value, particles, kac_summary_share(k));
    double lane[KAC_SUMMARY_LANES] = {0};
    out->ess_least = (double)INFINITY;
    for (int32_t i = 0; i < r->all_groups; i++) {
        lane[i % KAC_SUMMARY_LANES] += g->all_ess[i];
        if (g->all_ess[i] < out->ess_least) out->ess_least = g->all_ess[i];
    }
    out->ess = kac_summary_total(lane) / r->all_groups;
}

kac_status kac_gathering_read(kac_run *r, int32_t number, kac_summary *s)
{
    kac_gathering *g = r->trace.gathering;
    kac_line *line = &r->line[number];
    if (g == NULL) return KAC_OK;
    size_t each = (size_t)(line->particles / kac_groups_here(r));
    KAC_TRY(kac_ranks_agree(r->ranks, fetch_own(r, number, s), NULL, 0));
    KAC_TRY(gather_parts(r, number, s));
    KAC_TRY(kac_gather_groups(r, g->own_value, each * sizeof(double), g->all_value));
    KAC_TRY(kac_gather_groups(r, g->own_ess, sizeof(double), g->all_ess));
    if (kac_ranks_rank(r->ranks) > 0) return KAC_OK;
    add_parts(r, line, s);
    sum_up(r, (int32_t)each * r->all_groups, s);
    return KAC_OK;
}
