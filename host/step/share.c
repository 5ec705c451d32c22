/* share.c -- which groups of a run each rank has, and how their rows come together again. */
#include <stdlib.h>
#include <string.h>

#include "run.h"

/* Where the part of rank q begins, of n things in as equal parts as can be. */
static int64_t begin_of(int64_t n, int64_t ranks, int64_t q)
{
    return q * (n / ranks) + (q < n % ranks ? q : n % ranks);
}

int64_t kac_groups_a_rank(const kac_run *r, int64_t groups)
{
    return begin_of(groups, kac_ranks_size(r->ranks), 1);
}

/* Whether every rank can have pools of its own. */
static kac_status check_pools(const kac_run *r)
{
    int ranks = kac_ranks_size(r->ranks);
    if (r->pools >= ranks) return KAC_OK;
    if (r->pools < r->all_groups)
        return KAC_FAIL(
            KAC_ERR_INVALID,
            "ranks: with sampler.select.group.scope global a rank needs a whole set of "
            "groups that select together, and %d ranks have %d of them; no set spans "
            "ranks in this version",
            ranks, r->pools);
    return KAC_FAIL(
        KAC_ERR_INVALID,
        "ranks: %d of them need as many groups, and there are %d (sampler.groups, or "
        "what budget leaves of it); no group spans ranks in this version",
        ranks, r->all_groups);
}

kac_status kac_place_groups(kac_run *r)
{
    int ranks = kac_ranks_size(r->ranks), rank = kac_ranks_rank(r->ranks);
    KAC_TRY(check_pools(r));
    r->place = calloc((size_t)ranks + 1, sizeof *r->place);
    if (r->place == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "run: no memory for %d ranks", ranks);
    for (int q = 0; q <= ranks; q++)
        r->place[q] = r->first_of_pool[begin_of(r->pools, ranks, q)];

    int64_t pool = begin_of(r->pools, ranks, rank);
    r->pools = (int32_t)(begin_of(r->pools, ranks, rank + 1) - pool);
    r->first = r->place[rank];
    r->groups = r->place[rank + 1] - r->first;
    for (int64_t p = 0; p <= r->pools; p++)
        r->first_of_pool[p] = r->first_of_pool[pool + p] - r->first;
    return KAC_OK;
}

kac_status kac_gather_groups(const kac_run *r, const void *mine, size_t bytes, void *all)
{
    int ranks = kac_ranks_rank(r->ranks) == 0 ? kac_ranks_size(r->ranks) : 0;
    size_t own = (size_t)r->groups * bytes;
    void **into = calloc((size_t)ranks + 1, sizeof *into);
    size_t *sizes = calloc((size_t)ranks + 1, sizeof *sizes);
    kac_status status = KAC_OK;
    if (into == NULL || sizes == NULL)
        status = KAC_FAIL(KAC_ERR_NOMEM, "run: no memory for %d ranks", ranks);
    for (int q = 0; q < ranks && status == KAC_OK; q++) {
        into[q] = (char *)all + (size_t)r->place[q] * bytes;
        sizes[q] = (size_t)(r->place[q + 1] - r->place[q]) * bytes;
    }
    KAC_TRY_DONE(kac_ranks_agree(r->ranks, status, NULL, 0));
    status = kac_ranks_gather(r->ranks, mine, own, into, sizes);
done:
    free(into);
    free(sizes);
    return status;
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
    const size_t most = (size_t)1 << 24; /* of a round */
    size_t whole = (size_t)r->all_groups * bytes;
    size_t begin = (size_t)r->first * bytes, end = begin + (size_t)r->groups * bytes;
    kac_status status = KAC_OK;
    char *round = malloc(whole < most ? whole + 1 : most);
    if (round == NULL) status = KAC_FAIL(KAC_ERR_NOMEM, "run: no memory for a round");
    KAC_TRY_DONE(kac_ranks_agree(r->ranks, status, NULL, 0));
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
