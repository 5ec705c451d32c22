/* share.c -- which groups of a run each rank has, and how their rows come together again. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "process.h"
#include "run.h"

int64_t kac_share_begin(int64_t n, int64_t ranks, int64_t q)
{
    return q * (n / ranks) + (q < n % ranks ? q : n % ranks);
}

int64_t kac_groups_a_rank(const kac_run *r, int64_t groups)
{
    return kac_share_begin(groups, kac_ranks_size(r->ranks), 1);
}

/* Particles of a group where there are fewest. */
static kac_status count_fewest(const kac_run *r, int64_t *out)
{
    kac_level *levels = calloc((size_t)r->steps + 1, sizeof *levels);
    if (levels == NULL)
        return KAC_FAIL(KAC_ERR_NOMEM, "run: no memory for %d levels", r->steps);
    kac_trigger_levels(&r->set, levels);
    *out = r->set.sampler.particles;
    for (int32_t k = 0; k <= r->steps; k++)
        if (levels[k].particles > 0 && levels[k].particles < *out) *out = levels[k].particles;
    free(levels);
    return KAC_OK;
}

/* A pool spans ranks where a step is nothing but the guided step, and as long as each rank has a
 * particle of it. */
static kac_status check_span(const kac_run *r, int64_t groups)
{
    const kac_settings *s = &r->set;
    int ranks = kac_ranks_size(r->ranks), most = (ranks + r->pools - 1) / r->pools;
    int64_t each = 0;
    const char *what = s->driver.kind != KAC_DRIVER_NONE ? "driver.kind none"
                       : s->sampler.on_dead == KAC_DEAD_REVIVE
                           ? "sampler.on_dead error or freeze"
                           : NULL;
    if (what != NULL)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "ranks: %d of them would share %d sets of groups that select together "
                        "(sampler.groups, or what budget leaves of it; sampler.select.group."
                        "scope), and a set spans ranks only with %s",
                        ranks, r->pools, what);
    KAC_TRY(count_fewest(r, &each));
    if (groups * each >= most) return KAC_OK;
    return KAC_FAIL(
        KAC_ERR_INVALID,
        "ranks: %d of them would share a set of groups that select together, of %lld "
        "particles where there are fewest (sampler.particles, sampler.funnel, "
        "sampler.groups); each rank needs one",
        most, (long long)(groups * each));
}

/* This rank has pools first .. first + pools - 1. */
static void have_pools(kac_run *r, int64_t first, int32_t pools)
{
    r->first = r->first_of_pool[first];
    for (int64_t p = 0; p <= pools; p++)
        r->first_of_pool[p] = r->first_of_pool[first + p] - r->first;
    r->pools = pools;
    r->groups = kac_groups_here(r);
}

static void deal_pools(kac_run *r)
{
    int ranks = kac_ranks_size(r->ranks), rank = kac_ranks_rank(r->ranks);
    for (int q = 0; q <= ranks; q++)
        r->place[q] = r->first_of_pool[kac_share_begin(r->pools, ranks, q)];
    int64_t first = kac_share_begin(r->pools, ranks, rank);
    have_pools(r, first, (int32_t)(kac_share_begin(r->pools, ranks, rank + 1) - first));
}

/* Ranks in a row share a pool, and the first of them speaks for it. */
static kac_status deal_ranks(kac_run *r)
{
    int ranks = kac_ranks_size(r->ranks), rank = kac_ranks_rank(r->ranks);
    int64_t least = r->all_groups, pool = 0;
    int teams = r->pools, first = 0, end = 0;
    for (int32_t p = 0; p < r->pools; p++) {
        int64_t groups = r->first_of_pool[p + 1] - r->first_of_pool[p];
        least = groups < least ? groups : least;
        for (int64_t q = kac_share_begin(ranks, r->pools, p);
             q < kac_share_begin(ranks, r->pools, p + 1); q++)
            r->place[q + 1] = r->first_of_pool[p + 1];
    }
    KAC_TRY(check_span(r, least));
    for (; end <= rank; pool++) {
        first = end;
        end = (int)kac_share_begin(ranks, teams, pool + 1);
    }
    have_pools(r, pool - 1, 1);
    return kac_span_plan(r, teams, first, end - first);
}

kac_status kac_place_groups(kac_run *r)
{
    int ranks = kac_ranks_size(r->ranks);
    r->place = calloc((size_t)ranks + 1, sizeof *r->place);
    if (r->place == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "run: no memory for %d ranks", ranks);
    if (r->pools < ranks) return deal_ranks(r);
    deal_pools(r);
    return KAC_OK;
}

int32_t kac_groups_here(const kac_run *r)
{
    return r->first_of_pool[r->pools];
}

static int32_t groups_of(const kac_run *r, int q)
{
    return r->place[q + 1] - r->place[q];
}

int32_t kac_groups_told(const kac_run *r)
{
    return groups_of(r, kac_ranks_rank(r->ranks));
}

kac_status kac_gather_rows(const kac_run *r, kac_rows_of_fn *rows, const void *mine,
                           size_t bytes, void *all)
{
    int rank = kac_ranks_rank(r->ranks), ranks = rank == 0 ? kac_ranks_size(r->ranks) : 0;
    char *next = all;
    void **into = calloc((size_t)ranks + 1, sizeof *into);
    size_t *sizes = calloc((size_t)ranks + 1, sizeof *sizes);
    kac_status status = KAC_OK;
    if (into == NULL || sizes == NULL)
        status = KAC_FAIL(KAC_ERR_NOMEM, "run: no memory for %d ranks", ranks);
    for (int q = 0; q < ranks && status == KAC_OK; q++) {
        into[q] = next;
        sizes[q] = (size_t)rows(r, q) * bytes;
        next += sizes[q];
    }
    KAC_TRY_DONE(kac_ranks_confer(r->ranks, status));
    status = kac_ranks_gather(r->ranks, mine, (size_t)rows(r, rank) * bytes, into, sizes);
done:
    free(into);
    free(sizes);
    return status;
}

kac_status kac_gather_groups(const kac_run *r, const void *mine, size_t bytes, void *all)
{
    return kac_gather_rows(r, groups_of, mine, bytes, all);
}

kac_status kac_share_norms(kac_run *r, kac_status status)
{
    const kac_memory_ops *op = &r->dev->ops->memory;
    enum { NUMBERS = sizeof(kac_norms) / sizeof(int64_t) };
    int64_t sum[NUMBERS] = {0};
    if (kac_ranks_size(r->ranks) == 1) return status;
    if (status == KAC_OK) status = op->download(r->dev, sum, r->norms, sizeof sum);
    KAC_TRY(kac_ranks_agree(r->ranks, status, NULL, 0));
    KAC_TRY(kac_ranks_sum(r->ranks, sum, NUMBERS));
    return op->upload(r->dev, r->norms, sum, sizeof sum);
}

kac_status kac_scatter_groups(const kac_run *r, const void *all, size_t bytes, void *mine)
{
    return kac_scatter_bytes(r, all, (size_t)r->all_groups * bytes, (size_t)r->first * bytes,
                             (size_t)kac_groups_here(r) * bytes, mine);
}

kac_status kac_scatter_bytes(const kac_run *r, const void *all, size_t whole, size_t begin,
                             size_t size, void *mine)
{
    const size_t most = (size_t)1 << 24; /* of a round */
    size_t end = begin + size;
    kac_status status = KAC_OK;
    char *round = malloc(whole < most ? whole + 1 : most);
    if (round == NULL) status = KAC_FAIL(KAC_ERR_NOMEM, "run: no memory for a round");
    KAC_TRY_DONE(kac_ranks_confer(r->ranks, status));
    assert(round != NULL); /* or no rank would be here */
    for (size_t at = 0; at < whole; at += most) {
        size_t next = whole - at < most ? whole : at + most;
        size_t from = begin > at ? begin : at, to = end < next ? end : next;
        if (kac_ranks_rank(r->ranks) == 0) memcpy(round, (const char *)all + at, next - at);
        KAC_TRY_DONE(kac_ranks_broadcast(r->ranks, round, next - at));
        if (from < to) memcpy((char *)mine + (from - begin), round + (from - at), to - from);
    }
done:
    free(round);
    return status;
}
