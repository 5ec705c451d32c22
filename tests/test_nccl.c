/* test_nccl.c -- teams whose devices reach each other by NCCL: its fake between threads, on a device
 * that is the CPU but for an identity and a stream. */
#include <criterion/criterion.h>
#include <limits.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "beside.h"
#include "rank_threads.h"

/* ---- a device ------------------------------------------------------------------------------- */

typedef struct gpu {
    kac_ops ops;
    kac_device dev;
    int asked; /* whether it is ready: every fourth time */
    bool idle; /* it has said so */
} gpu;

static kac_status identify(kac_device *dev, uint8_t id[16])
{
    id[0] = (uint8_t)dev->ordinal;
    return KAC_OK;
}

/* Not at once. */
static kac_status ready(kac_device *dev, bool *done)
{
    gpu *g = (gpu *)((char *)dev - offsetof(gpu, dev));
    *done = g->idle = g->asked++ % 4 == 3;
    return KAC_OK;
}

static void gpu_open(gpu *g, int ordinal)
{
    *g = (gpu){.ops = kac_cpu_ops, .dev = {.ordinal = ordinal, .stream = g}};
    g->ops.memory.identify = identify;
    g->ops.memory.ready = ready;
    g->dev.ops = &g->ops;
}

static void use_fake(void)
{
    char path[PATH_MAX];
    cr_assert(kac_find_beside("libnccl_fake.so", path));
    setenv("KAC_NCCL", path, 1);
}

/* ---- what comes back ------------------------------------------------------------------------ */

typedef struct report {
    bool shares; /* all ranks have one GPU */
    bool is_cpu; /* they have none */
    kac_link link;
    struct {
        kac_status status;
        char text[256], link[32];
        bool good;
    } of[MOST_RANKS];
} report;

static void note(report *r, int rank, kac_status status)
{
    r->of[rank].status = status;
    if (status != KAC_OK)
        snprintf(r->of[rank].text, sizeof r->of[rank].text, "%s", kac_last_error());
}

/* ---- bytes arrive --------------------------------------------------------------------------- */

static size_t total(const size_t *sizes, int n)
{
    size_t sum = 0;
    for (int q = 0; q < n; q++)
        sum += sizes[q];
    return sum;
}

/* Byte i of what member `from` has for member `to`; to -1: for all. */
static char letter(int round, int from, int to, size_t i)
{
    return (char)(round * 31 + from * 7 + to * 3 + (int)(i % 251));
}

static void fill(char *at, size_t size, int round, int from, int to)
{
    for (size_t i = 0; i < size; i++)
        at[i] = letter(round, from, to, i);
}

static bool holds(const char *at, size_t size, int round, int from, int to)
{
    for (size_t i = 0; i < size; i++)
        if (at[i] != letter(round, from, to, i)) return false;
    return true;
}

/* How much goes from one member to another, or to all, in each round: nothing, little, and more than
 * goes at once. */
static size_t size_of(int round, int from, int to)
{
    static const size_t sizes[] = {40, 0, 1, 9001, 64, 4096, 17};
    if (round == 0 && to < 0) return 40; /* the same from all */
    return sizes[(round + 2 * from + 3 * (to + 1)) % 7];
}

static bool gathers(kac_ranks *ranks, kac_device *dev, int round, char *out, char *in)
{
    size_t sizes[MOST_RANKS];
    int own = 0, members = 0;
    bool good = true;
    kac_ranks_of_team(ranks, &own, &members);
    for (int q = 0; q < members; q++)
        sizes[q] = size_of(round, q, -1);
    fill(out, sizes[own], round, own, -1);
    in[total(sizes, members)] = 'e';
    good = kac_ranks_all_gather(ranks, dev, out, in, sizes) == KAC_OK;
    for (int q = 0; q < members; q++)
        good = good && holds(in + total(sizes, q), sizes[q], round, q, -1);
    return good && in[total(sizes, members)] == 'e';
}

static bool exchanges(kac_ranks *ranks, kac_device *dev, int round, char *out, char *in)
{
    size_t leaving[MOST_RANKS], coming[MOST_RANKS];
    int own = 0, members = 0;
    bool good = true;
    kac_ranks_of_team(ranks, &own, &members);
    for (int q = 0; q < members; q++) {
        leaving[q] = size_of(round, own, q);
        coming[q] = size_of(round, q, own);
        fill(out + total(leaving, q), leaving[q], round, own, q);
    }
    in[total(coming, members)] = 'e';
    good = kac_ranks_exchange(ranks, dev, out, leaving, in, coming) == KAC_OK;
    for (int q = 0; q < members; q++)
        good = good && holds(in + total(coming, q), coming[q], round, q, own);
    return good && in[total(coming, members)] == 'e';
}

/* Ranks 0, 1, 2 and 3, 4 are teams. */
static void speak(kac_ranks *ranks, void *context)
{
    report *r = context;
    gpu g;
    int rank = kac_ranks_rank(ranks);
    char *out = calloc(MOST_RANKS, 10000), *in = calloc(MOST_RANKS, 10000);
    gpu_open(&g, r->shares ? 0 : rank);
    kac_ranks_set_patience(ranks, 10);
    if (r->is_cpu) g.dev.ops = &kac_cpu_ops;
    kac_status status = kac_ranks_team(ranks, rank < 3 ? 0 : 3, rank < 3 ? 3 : 2);
    if (status == KAC_OK) status = kac_ranks_connect(ranks, &g.dev, r->link);
    note(r, rank, status);
    bool good = out != NULL && in != NULL && status == KAC_OK;
    for (int round = 0; round < 7 && good; round++) {
        g.idle = !kac_ranks_are_connected(ranks);
        good = gathers(ranks, &g.dev, round, out, in) && g.idle;
        g.idle = !kac_ranks_are_connected(ranks);
        good = good && exchanges(ranks, &g.dev, round, out, in) && g.idle;
    }
    r->of[rank].good = good;
    snprintf(r->of[rank].link, sizeof r->of[rank].link, "%s", kac_ranks_link(ranks));
    kac_ranks_disconnect(ranks);
    free(out);
    free(in);
}

Test(nccl, bytes_arrive)
{
    report r = {.link = KAC_LINK_NCCL};
    use_fake();
    on_ranks(5, speak, &r);
    for (int q = 0; q < 5; q++) {
        cr_expect(r.of[q].good, "rank %d: %s", q, r.of[q].text);
        cr_expect_str_eq(r.of[q].link, "nccl 2.28.9");
    }
}

/* ---- where there is no NCCL ----------------------------------------------------------------- */

/* With `auto` the host carries the same bytes; who wants NCCL hears why not. */
static void expect_without(bool shares, bool is_cpu, const char *why)
{
    report r = {.shares = shares, .is_cpu = is_cpu};
    on_ranks(5, speak, &r);
    for (int q = 0; q < 5; q++) {
        cr_expect(r.of[q].good, "rank %d: %s", q, r.of[q].text);
        cr_expect_str_eq(r.of[q].link, "threads");
    }
    r.link = KAC_LINK_NCCL;
    on_ranks(5, speak, &r);
    for (int q = 0; q < 5; q++) {
        cr_expect_eq(r.of[q].status, KAC_ERR_UNSUPPORTED);
        cr_expect(strstr(r.of[q].text, why) != NULL, "%s: %s", why, r.of[q].text);
    }
}

Test(nccl, the_host_carries_where_ranks_share_a_gpu)
{
    use_fake();
    expect_without(true, false, "share a GPU");
}

Test(nccl, the_host_carries_where_there_is_no_gpu)
{
    use_fake();
    expect_without(false, true, "it is no GPU");
}

Test(nccl, the_host_carries_where_the_library_is_too_old)
{
    use_fake();
    setenv("FAKE_NCCL_VERSION", "21602", 1);
    expect_without(false, false, "is version 2.16; 2.17 or newer is needed");
}

Test(nccl, the_host_carries_where_there_is_no_library)
{
    setenv("KAC_NCCL", "/nowhere/libnccl.so", 1);
    expect_without(false, false, "/nowhere/libnccl.so");
}

Test(nccl, the_host_carries_where_that_is_asked_for)
{
    report r = {.link = KAC_LINK_MPI};
    use_fake();
    on_ranks(5, speak, &r);
    for (int q = 0; q < 5; q++) {
        cr_expect(r.of[q].good);
        cr_expect_str_eq(r.of[q].link, "threads");
    }
}

/* ---- when something goes wrong -------------------------------------------------------------- */

/* All in one team gather and exchange, where rank 1 has another size for rank 0 if `differs`, and
 * rank 2 does not come if `lacks_one`. */
typedef struct trouble {
    report r;
    bool differs, lacks_one;
    atomic_int lost; /* ranks that have given up */
} trouble;

static void meet_trouble(kac_ranks *ranks, void *context)
{
    trouble *t = context;
    gpu g;
    int rank = kac_ranks_rank(ranks), size = kac_ranks_size(ranks);
    char out[64] = "", in[MOST_RANKS * 64] = "";
    size_t leaving[MOST_RANKS] = {8, 8, 8, 8}, coming[MOST_RANKS] = {8, 8, 8, 8};
    gpu_open(&g, rank);
    kac_ranks_set_patience(ranks, t->lacks_one ? 4 : 10);
    kac_status status = kac_ranks_team(ranks, 0, size);
    if (status == KAC_OK) status = kac_ranks_connect(ranks, &g.dev, KAC_LINK_NCCL);
    if (status == KAC_OK) status = kac_ranks_all_gather(ranks, &g.dev, out, in, leaving);
    if (t->differs && rank == 1) leaving[0] = 4;
    if (t->lacks_one && rank == 2)
        while (atomic_load(&t->lost) < size - 1)
            sched_yield();
    else if (status == KAC_OK)
        status = kac_ranks_exchange(ranks, &g.dev, out, leaving, in, coming);
    t->r.of[rank].good = status == KAC_OK;
    atomic_fetch_add(&t->lost, 1);
    note(&t->r, rank, kac_ranks_agree(ranks, status, NULL, 0));
    kac_ranks_disconnect(ranks);
}

Test(nccl, the_failure_of_one_is_everyones)
{
    trouble t = {.differs = false};
    use_fake();
    setenv("FAKE_NCCL_FAIL", "1:2", 1);
    on_ranks(4, meet_trouble, &t);
    for (int q = 0; q < 4; q++) {
        cr_expect_eq(t.r.of[q].status, KAC_ERR_DEVICE);
        cr_expect_str_eq(
            t.r.of[q].text,
            "rank 1: nccl: unhandled system error: the network is down, says the test");
    }
}

Test(nccl, one_cannot_begin)
{
    trouble t = {.differs = false};
    use_fake();
    setenv("FAKE_NCCL_FAIL", "3:1", 1);
    on_ranks(4, meet_trouble, &t);
    for (int q = 0; q < 4; q++) {
        cr_expect_eq(t.r.of[q].status, KAC_ERR_DEVICE);
        cr_expect(strstr(t.r.of[q].text, "rank 3: nccl: unhandled") != NULL, "%s",
                  t.r.of[q].text);
    }
}

Test(nccl, sizes_that_differ_are_an_error)
{
    trouble t = {.differs = true};
    use_fake();
    on_ranks(4, meet_trouble, &t);
    for (int q = 0; q < 4; q++) {
        cr_expect_eq(t.r.of[q].status, KAC_ERR_DEVICE);
        cr_expect_str_eq(
            t.r.of[q].text,
            "rank 0: nccl: invalid usage: rank 1 sends 4 bytes and rank 0 wants 8");
    }
}

Test(nccl, who_does_not_come_is_named)
{
    trouble t = {.lacks_one = true};
    use_fake();
    on_ranks(4, meet_trouble, &t);
    for (int q = 0; q < 2; q++) {
        cr_expect_eq(t.r.of[q].status, KAC_ERR_RANK);
        cr_expect_str_eq(t.r.of[q].text,
                         "rank 2 has not answered for 4 s (job.patience): lost, or hanging");
    }
}
