/* test_ranks.c -- ranks, as threads of one process: agreeing, gathering, who is lost.  Runs on them are
 * in test_ranked_runs.c; tests/test_ranks.sh does it with MPI. */
#include <criterion/criterion.h>

#include "device.h"
#include "rank_threads.h"

/* ---- one process alone -------------------------------------------------------------------- */

Test(ranks, self)
{
    kac_ranks *ranks = NULL;
    int64_t vote = 7;
    int32_t mine[2] = {3, 4}, all[2] = {0, 0};
    void *into[1] = {all};
    size_t sizes[1] = {sizeof all};
    cr_assert_eq(kac_ranks_open("self", 1, &ranks), KAC_OK);
    cr_expect_eq(kac_ranks_rank(ranks), 0);
    cr_expect_eq(kac_ranks_size(ranks), 1);
    cr_expect_eq(kac_ranks_local(ranks), 0);
    cr_expect_eq(kac_ranks_agree(ranks, KAC_OK, &vote, 1), KAC_OK);
    cr_expect_eq(vote, 7);
    cr_expect_eq(kac_ranks_agree(ranks, KAC_ERR_IO, &vote, 1), KAC_ERR_IO);
    cr_expect_eq(kac_ranks_agree(ranks, KAC_OK, &vote, 1), KAC_OK, "one alone may go on");
    cr_expect_eq(kac_ranks_broadcast(ranks, mine, sizeof mine), KAC_OK);
    cr_expect_eq(kac_ranks_gather(ranks, mine, sizeof mine, into, sizes), KAC_OK);
    cr_expect(all[0] == 3 && all[1] == 4);
    kac_ranks_close(ranks);
    cr_expect_eq(kac_ranks_agree(NULL, KAC_OK, &vote, 1), KAC_OK);
    cr_expect_eq(kac_ranks_size(NULL), 1);
}

Test(ranks, kinds_and_numbers_are_checked)
{
    kac_ranks *ranks = NULL;
    cr_expect_eq(kac_ranks_open("sockets", 0, &ranks), KAC_ERR_INVALID);
    cr_expect(strstr(kac_last_error(), "mpi") != NULL);
    cr_expect_eq(kac_ranks_open("self", 4, &ranks), KAC_ERR_INVALID);
    cr_expect(strstr(kac_last_error(), "has started 4") != NULL, "%s", kac_last_error());
    cr_expect_null(ranks);
}

/* ---- several ------------------------------------------------------------------------------ */

static void gather_uneven(kac_ranks *ranks, void *context)
{
    int rank = kac_ranks_rank(ranks);
    char mine[4] = "abc", all[16] = "";
    size_t sizes[4] = {0, 1, 2, 3};
    void *into[4] = {all, all, all + 1, all + 3};
    int64_t votes[2] = {rank, -rank};
    bool *good = context;
    memset(mine, 'a' + rank, sizeof mine);
    kac_status status = kac_ranks_agree(ranks, KAC_OK, votes, 2);
    good[rank] = status == KAC_OK && votes[0] == 3 && votes[1] == 0;
    votes[1] = -rank;
    status = kac_ranks_sum(ranks, votes, 2);
    good[rank] = good[rank] && status == KAC_OK && votes[0] == 12 && votes[1] == -6;
    status = kac_ranks_gather(ranks, mine, (size_t)rank, into, sizes);
    good[rank] = good[rank] && status == KAC_OK;
    if (rank == 0) good[rank] = good[rank] && memcmp(all, "bccddd", 6) == 0;
    if (rank == 0) memcpy(all, "told", 4);
    status = kac_ranks_broadcast(ranks, all, 4);
    good[rank] = good[rank] && status == KAC_OK && memcmp(all, "told", 4) == 0;
}

Test(ranks, votes_gather_broadcast)
{
    bool good[4] = {false};
    on_ranks(4, gather_uneven, good);
    for (int q = 0; q < 4; q++)
        cr_expect(good[q], "rank %d", q);
}

/* What a team of ranks does: its members by their letters. */
typedef struct teamwork {
    bool staged; /* as on a device whose memory is not the host's */
    bool good[5];
} teamwork;

/* Whether `bytes` are `each` bytes of every letter of `letters`, the first of them `first`. */
static bool is_made_of(const char *bytes, const char *letters, size_t first, size_t more)
{
    for (size_t k = 0; letters[k] != '\0'; k++)
        for (size_t i = 0; i < first + k * more; i++)
            if (*bytes++ != letters[k]) return false;
    return true;
}

/* Ranks 0, 1, 2 and 3, 4 are teams.  Member k has k + 1 parts for all, more than one round takes, and
 * gets k + 1 bytes of each; the second team does it all twice. */
static void within_teams(kac_ranks *ranks, void *context)
{
    const size_t part = (3 << 20) + 1;
    teamwork *work = context;
    int rank = kac_ranks_rank(ranks), first = rank < 3 ? 0 : 3, members = rank < 3 ? 3 : 2;
    const char *letters = rank < 3 ? "abc" : "de";
    size_t mine = (size_t)(rank - first) + 1, sizes[3] = {part, 2 * part, 3 * part};
    size_t out[3] = {1, 2, 3}, in[3] = {mine, mine, mine};
    char *own = malloc(3 * part), *all = calloc(6, part);
    kac_device *dev = NULL;
    bool good = own != NULL && all != NULL && kac_device_open("cpu", -1, &dev) == KAC_OK;
    if (!good) abort();
    const kac_ops *ops = dev->ops;
    kac_ops others = *ops;
    if (work->staged) dev->ops = &others;
    memset(own, 'a' + rank, 3 * part);
    good = kac_ranks_team(ranks, first, members) == KAC_OK;
    for (int k = 0; k <= first / 3; k++) {
        memset(all, 0, 6 * part);
        good = good && kac_ranks_all_gather(ranks, dev, own, all, sizes) == KAC_OK &&
               is_made_of(all, letters, part, part);
        good = good && kac_ranks_exchange(ranks, dev, own, out, all, in) == KAC_OK &&
               is_made_of(all, letters, mine, 0);
    }
    work->good[rank] = kac_ranks_agree(ranks, KAC_OK, NULL, 0) == KAC_OK && good;
    dev->ops = ops;
    kac_device_close(dev);
    free(own);
    free(all);
}

Test(ranks, teams_gather_and_exchange)
{
    for (int staged = 0; staged < 2; staged++) {
        teamwork work = {.staged = staged};
        on_ranks(5, within_teams, &work);
        for (int q = 0; q < 5; q++)
            cr_expect(work.good[q], "rank %d, staged %d", q, staged);
    }
}

/* Ranks 1 and 2 fail. */
static void fail_on_two(kac_ranks *ranks, void *context)
{
    int rank = kac_ranks_rank(ranks);
    verdict *v = (verdict *)context + rank;
    kac_status status = rank == 1   ? KAC_FAIL(KAC_ERR_WORKER, "a worker of mine")
                        : rank == 2 ? KAC_FAIL(KAC_ERR_IO, "a file")
                                    : KAC_OK;
    v->status = kac_ranks_agree(ranks, status, NULL, 0);
    snprintf(v->text, sizeof v->text, "%s", kac_last_error());
    v->later = kac_ranks_broadcast(ranks, v->again, sizeof v->again); /* moves nothing */
    snprintf(v->again, sizeof v->again, "%s", kac_last_error());
}

Test(ranks, the_failure_of_the_lowest_is_everyones)
{
    verdict v[3] = {0};
    on_ranks(3, fail_on_two, v);
    for (int q = 0; q < 3; q++) {
        cr_expect_eq(v[q].status, KAC_ERR_WORKER, "rank %d", q);
        cr_expect_str_eq(v[q].text, "rank 1: a worker of mine");
        cr_expect_eq(v[q].later, KAC_ERR_WORKER, "rank %d", q);
        cr_expect_str_eq(v[q].again, v[q].text);
    }
}

static void fail_on_all(kac_ranks *ranks, void *context)
{
    verdict *v = (verdict *)context + kac_ranks_rank(ranks);
    v->status = kac_ranks_agree(ranks, KAC_FAIL(KAC_ERR_INVALID, "no such key"), NULL, 0);
    snprintf(v->text, sizeof v->text, "%s", kac_last_error());
}

Test(ranks, what_all_meet_needs_no_name)
{
    verdict v[2] = {0};
    on_ranks(2, fail_on_all, v);
    for (int q = 0; q < 2; q++) {
        cr_expect_eq(v[q].status, KAC_ERR_INVALID);
        cr_expect_str_eq(v[q].text, "no such key");
    }
}

/* Rank 1 fails, and all go on. */
static void fail_and_go_on(kac_ranks *ranks, void *context)
{
    int rank = kac_ranks_rank(ranks);
    verdict *v = (verdict *)context + rank;
    kac_status status = rank == 1 ? KAC_FAIL(KAC_ERR_IO, "a full disk") : KAC_OK;
    int64_t vote = rank;
    v->status = kac_ranks_confer(ranks, status);
    snprintf(v->text, sizeof v->text, "%s", kac_last_error());
    v->later = kac_ranks_agree(ranks, KAC_OK, &vote, 1);
    if (vote != 2) v->later = KAC_ERR_INTERNAL;
}

Test(ranks, some_failures_end_nothing)
{
    verdict v[3] = {0};
    on_ranks(3, fail_and_go_on, v);
    for (int q = 0; q < 3; q++) {
        cr_expect_eq(v[q].status, KAC_ERR_IO, "rank %d", q);
        cr_expect_str_eq(v[q].text, "rank 1: a full disk");
        cr_expect_eq(v[q].later, KAC_OK, "rank %d", q);
    }
}

/* Rank 2 does not come. */
static void leave_out_one(kac_ranks *ranks, void *context)
{
    int rank = kac_ranks_rank(ranks);
    verdict *v = (verdict *)context + rank;
    kac_ranks_set_patience(ranks, 4);
    if (rank == 2) return;
    v->status = kac_ranks_agree(ranks, KAC_OK, NULL, 0);
    snprintf(v->text, sizeof v->text, "%s", kac_last_error());
    v->later = kac_ranks_agree(ranks, KAC_OK, NULL, 0); /* waits no more */
}

Test(ranks, who_does_not_come_is_named)
{
    verdict v[3] = {0};
    on_ranks(3, leave_out_one, v);
    for (int q = 0; q < 2; q++) {
        cr_expect_eq(v[q].status, KAC_ERR_RANK);
        cr_expect_eq(v[q].later, KAC_ERR_RANK);
        cr_expect_str_eq(v[q].text,
                         "rank 2 has not answered for 4 s (job.patience): lost, or hanging");
    }
}

/* Rank 2 leaves its team, 1 and 2, waiting; rank 0 waits for all. */
static void leave_out_team(kac_ranks *ranks, void *context)
{
    int rank = kac_ranks_rank(ranks);
    verdict *v = (verdict *)context + rank;
    char byte = 0, all[2] = "";
    size_t sizes[2] = {1, 1};
    kac_device *dev = NULL;
    if (kac_device_open("cpu", -1, &dev) != KAC_OK) abort();
    kac_ranks_set_patience(ranks, 4);
    v->status = kac_ranks_team(ranks, rank == 0 ? 0 : 1, rank == 0 ? 1 : 2);
    if (v->status == KAC_OK && rank == 1)
        v->status = kac_ranks_all_gather(ranks, dev, &byte, all, sizes);
    if (v->status == KAC_OK && rank == 0) v->status = kac_ranks_agree(ranks, KAC_OK, NULL, 0);
    snprintf(v->text, sizeof v->text, "%s", kac_last_error());
    kac_device_close(dev);
}

Test(ranks, who_does_not_come_to_its_team_is_named)
{
    verdict v[3] = {0};
    on_ranks(3, leave_out_team, v);
    for (int q = 0; q < 2; q++) {
        cr_expect_eq(v[q].status, KAC_ERR_RANK);
        cr_expect_str_eq(v[q].text,
                         "rank 2 has not answered for 4 s (job.patience): lost, or hanging");
    }
}
