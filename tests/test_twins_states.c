/* test_twins_states.c -- the memo does on the device what it does on the CPU. */
#include <criterion/criterion.h>

#include "states.h"
#include "twins.h"

TestSuite(twins_states, .init = need_device);

enum { STRIDE = 32, TERMS = 3, MASK = 5 };

/* A memo on each side, with rows to ask for and lists. */
typedef struct both {
    int32_t n, capacity, slots, spare;
    uint8_t *x; /* host: [n][STRIDE] */
    kac_memo memo[TWINS];
    kac_fresh fresh[TWINS];
    kac_jobs job[TWINS];
    uint8_t *rows[TWINS];
    int32_t *entry[TWINS], *count[TWINS];
    int64_t *made[TWINS];
    float *terms[TWINS], *out[TWINS];
    int64_t test;
} both;

static int32_t *numbers(int k, int32_t n)
{
    return twin_put(k, NULL, (size_t)n * sizeof(int32_t));
}

static void make_both(both *b, int32_t n, int32_t capacity, int32_t slots, int32_t reuse)
{
    int32_t buckets = 2;
    while (buckets < 2 * capacity)
        buckets *= 2;
    *b = (both){.n = n, .capacity = capacity, .slots = slots, .spare = n};
    b->x = calloc((size_t)n, STRIDE);
    cr_assert_not_null(b->x);
    for (int k = 0; k < TWINS; k++) {
        b->memo[k] = (kac_memo){.capacity = capacity,
                                .buckets = buckets,
                                .stride = STRIDE,
                                .slots = slots,
                                .spare = b->spare,
                                .slot_floats = 1,
                                .n_terms = TERMS,
                                .reuse = reuse,
                                .keys = twin_put(k, NULL, (size_t)capacity * STRIDE),
                                .hash = twin_put(k, NULL, (size_t)capacity * sizeof(uint64_t)),
                                .table = numbers(k, buckets),
                                .live = numbers(k, capacity),
                                .free_entries = numbers(k, capacity),
                                .free_slots = numbers(k, slots),
                                .slot = numbers(k, capacity),
                                .order = numbers(k, capacity),
                                .spare_owner = numbers(k, b->spare),
                                .counts = numbers(k, 2),
                                .terms = (float *)numbers(k, capacity * TERMS)};
        b->fresh[k] = (kac_fresh){numbers(k, n), numbers(k, n), numbers(k, 1), n};
        b->job[k] = (kac_jobs){numbers(k, n), numbers(k, n), numbers(k, 1), n};
        b->rows[k] = twin_put(k, NULL, (size_t)n * STRIDE);
        b->entry[k] = numbers(k, n);
        b->count[k] = numbers(k, 1);
        b->made[k] = twin_put(k, NULL, sizeof(int64_t));
        b->terms[k] = (float *)numbers(k, n * TERMS);
        b->out[k] = (float *)numbers(k, n * TERMS);
    }
}

static void drop_both(both *b)
{
    for (int k = 0; k < TWINS; k++) {
        kac_memo *m = &b->memo[k];
        void *all[] = {m->keys,           m->hash,           m->table,      m->live,
                       m->free_entries,   m->free_slots,     m->slot,       m->order,
                       m->spare_owner,    m->counts,         m->terms,      b->fresh[k].src,
                       b->fresh[k].entry, b->fresh[k].count, b->job[k].src, b->job[k].dst,
                       b->job[k].count,   b->rows[k],        b->entry[k],   b->count[k],
                       b->made[k],        b->terms[k],       b->out[k]};
        twin_drop(k, all, sizeof all / sizeof *all);
    }
    free(b->x);
}

static void same(const both *b, const void *one, const void *two, int32_t n, size_t size,
                 const char *what)
{
    twins_equal(one, two, (size_t)n * size, what, b->test);
}

/* All but the order of the table, and what lies above the stacks. */
static void expect_same(const both *b)
{
    const kac_memo *m = b->memo;
    int32_t counts[2], fresh, jobs;
    const size_t word = sizeof(int32_t);
    same(b, m[0].counts, m[1].counts, 2, word, "counts");
    same(b, b->fresh[0].count, b->fresh[1].count, 1, word, "fresh count");
    same(b, b->job[0].count, b->job[1].count, 1, word, "job count");
    twin_get(0, counts, m[0].counts, sizeof counts);
    twin_get(0, &fresh, b->fresh[0].count, sizeof fresh);
    twin_get(0, &jobs, b->job[0].count, sizeof jobs);
    same(b, b->entry[0], b->entry[1], b->n, word, "entry");
    same(b, b->fresh[0].src, b->fresh[1].src, fresh, word, "fresh src");
    same(b, b->fresh[0].entry, b->fresh[1].entry, fresh, word, "fresh entry");
    same(b, b->job[0].src, b->job[1].src, jobs, word, "job src");
    same(b, b->job[0].dst, b->job[1].dst, jobs, word, "job dst");
    same(b, m[0].free_entries, m[1].free_entries, counts[0], word, "free entries");
    same(b, m[0].free_slots, m[1].free_slots, counts[1], word, "free slots");
    same(b, m[0].keys, m[1].keys, b->capacity, STRIDE, "keys");
    same(b, m[0].hash, m[1].hash, b->capacity, sizeof(uint64_t), "hash");
    same(b, m[0].live, m[1].live, b->capacity, word, "live");
    same(b, m[0].slot, m[1].slot, b->capacity, word, "slot");
    same(b, m[0].order, m[1].order, b->capacity, word, "order");
    same(b, m[0].spare_owner, m[1].spare_owner, b->spare, word, "spare owner");
    same(b, m[0].terms, m[1].terms, b->capacity, TERMS * word, "terms");
    same(b, b->out[0], b->out[1], b->n, TERMS * word, "recalled");
    same(b, b->made[0], b->made[1], 1, sizeof(int64_t), "made");
}

/* New letters for some of the rows, whose entries are forgotten. */
static void change_rows(both *b, dice *d, uint32_t kinds)
{
    int32_t *entry = malloc((size_t)b->n * sizeof *entry);
    uint32_t share = 1 + roll(d, 4);
    cr_assert_not_null(entry);
    twin_get(0, entry, b->entry[0], (size_t)b->n * sizeof *entry);
    for (int32_t i = 0; i < b->n; i++) {
        if (roll(d, 4) >= share) continue;
        uint32_t kind = roll(d, kinds);
        entry[i] = -1;
        b->x[i * STRIDE + 1] = (uint8_t)(kind % 5);
        b->x[i * STRIDE + 9] = (uint8_t)(kind / 5 % 251);
        b->x[i * STRIDE + 20] = kind % 3 > 0 ? MASK : 0;
        b->x[i * STRIDE + 30] = (uint8_t)(kind / 1255);
    }
    for (int k = 0; k < TWINS; k++) {
        const kac_memory_ops *op = &twin(k)->ops->memory;
        ok(op->upload(twin(k), b->entry[k], entry, (size_t)b->n * sizeof *entry));
        ok(op->upload(twin(k), b->rows[k], b->x, (size_t)b->n * STRIDE));
    }
    free(entry);
}

static void find(both *b, dice *d)
{
    int32_t first = (int32_t)roll(d, 3), mode = (int32_t)roll(d, 4);
    int32_t count = first - 2 + (int32_t)roll(d, (uint32_t)b->n + 4);
    for (int k = 0; k < TWINS; k++) {
        kac_rows rows = {b->rows[k], mode == 0 ? b->count[k] : NULL, first, b->n};
        ok(twin(k)->ops->memory.upload(twin(k), b->count[k], &count, sizeof count));
        cr_assert_eq(twin(k)->ops->states.find(twin(k), &b->memo[k], &rows, b->entry[k],
                                               &b->fresh[k], b->made[k]),
                     KAC_OK);
    }
}

static void assign(both *b, dice *d)
{
    int32_t batch = 1 + (int32_t)roll(d, (uint32_t)b->n);
    int32_t first = (int32_t)roll(d, (uint32_t)b->n), mask = roll(d, 5) > 0 ? MASK : -1;
    if (roll(d, 2) == 0) first = 0;
    for (int k = 0; k < TWINS; k++)
        cr_assert_eq(twin(k)->ops->states.assign(twin(k), &b->memo[k], mask, &b->fresh[k],
                                                 first, batch, &b->job[k], b->made[k]),
                     KAC_OK);
}

static void learn(both *b, dice *d)
{
    int32_t batch = 1 + (int32_t)roll(d, (uint32_t)b->n),
            first = (int32_t)roll(d, (uint32_t)(b->n - batch + 1));
    float *terms = malloc((size_t)b->n * TERMS * sizeof *terms);
    cr_assert_not_null(terms);
    for (int32_t i = 0; i < b->n * TERMS; i++)
        terms[i] = (float)roll(d, 1000);
    for (int k = 0; k < TWINS; k++) {
        const kac_states_ops *op = &twin(k)->ops->states;
        ok(twin(k)->ops->memory.upload(twin(k), b->terms[k], terms,
                                       (size_t)b->n * TERMS * sizeof *terms));
        ok(op->learn(twin(k), &b->memo[k], &b->fresh[k], first, batch, b->terms[k]));
        ok(op->recall(twin(k), &b->memo[k], b->entry[k], b->n, b->out[k]));
    }
    free(terms);
}

static void forget_some(both *b, dice *d)
{
    uint32_t what = roll(d, 3);
    for (int k = 0; k < TWINS; k++) {
        const kac_states_ops *op = &twin(k)->ops->states;
        if (what < 2) ok(op->sweep(twin(k), &b->memo[k], b->entry[k], b->n));
        if (what == 2) ok(op->clear(twin(k), &b->memo[k]));
        if (what == 2) ok(op->forget(twin(k), b->entry[k], b->n));
    }
}

/* Runs of finds, batches and sweeps.  Room for the rows and no more makes most finds sweep. */
static void live_alike(int32_t n, int32_t capacity, int32_t slots, int32_t reuse)
{
    dice d = {.seed = (uint64_t)n * 1000 + (uint64_t)(capacity + slots + reuse)};
    const uint32_t kinds[] = {1, 7, 300, 100000};
    both b;
    make_both(&b, n, capacity, slots, reuse);
    for (int k = 0; k < TWINS; k++) {
        ok(twin(k)->ops->states.clear(twin(k), &b.memo[k]));
        ok(twin(k)->ops->states.forget(twin(k), b.entry[k], n));
    }
    for (b.test = 0; b.test < 12; b.test++) {
        change_rows(&b, &d, kinds[roll(&d, 4)]);
        find(&b, &d);
        expect_same(&b);
        if (roll(&d, 3) > 0) assign(&b, &d);
        if (roll(&d, 3) > 0) assign(&b, &d);
        expect_same(&b);
        learn(&b, &d);
        if (roll(&d, 4) == 0) forget_some(&b, &d);
        expect_same(&b);
    }
    drop_both(&b);
}

Test(twins_states, rows_are_carried_alike)
{
    enum { ROWS = 700, MOST = 4096 };
    dice d = {.seed = 11};
    const int32_t bytes[] = {4, 8, 48, MOST};
    uint8_t *from = malloc(ROWS * MOST);
    int32_t src[ROWS], dst[ROWS];
    cr_assert_not_null(from);
    for (int32_t i = 0; i < ROWS * MOST; i++)
        from[i] = (uint8_t)roll(&d, 256);
    for (int32_t i = 0; i < ROWS; i++) {
        src[i] = (int32_t)roll(&d, ROWS);
        dst[i] = ROWS - 1 - i;
    }
    for (size_t test = 0; test < 2 * sizeof bytes / sizeof *bytes; test++) {
        int32_t count = test % 2 == 0 ? ROWS : (int32_t)roll(&d, ROWS);
        void *on[TWINS][5];
        for (int k = 0; k < TWINS; k++) {
            void *const mine[5] = {twin_put(k, from, ROWS * MOST), twin_put(k, src, sizeof src),
                                   twin_put(k, dst, sizeof dst),
                                   twin_put(k, &count, sizeof count),
                                   twin_put(k, NULL, ROWS * MOST)};
            memcpy(on[k], mine, sizeof mine);
            kac_jobs jobs = {mine[1], mine[2], mine[3], ROWS};
            ok(twin(k)->ops->states.carry(twin(k), &jobs, bytes[test / 2], mine[0], mine[4]));
        }
        twins_equal(on[0][4], on[1][4], ROWS * MOST, "carried", (int64_t)test);
        for (int k = 0; k < TWINS; k++)
            twin_drop(k, on[k], 5);
    }
    free(from);
}

Test(twins_states, live_alike)
{
    const int32_t sizes[] = {1, 31, 33, 257, 1000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int32_t n = sizes[i];
        live_alike(n, n, n / 2, 1);
        live_alike(n, 2 * n + 5, n, 1);
        live_alike(n, 7 * n, 2 * n, 1);
        live_alike(n, n, 0, 1);
        live_alike(n, 2 * n, 3 * n, 0);
    }
}

/* More rows than one block adds, and more places than one block sweeps. */
Test(twins_states, live_alike_where_there_are_very_many)
{
    live_alike(5000, 20000, 9000, 1);
    live_alike(5000, 5000, 18000, 1);
    live_alike(300, 17000, 400, 1);
}

/* Several tiles of rows, of entries and of slots. */
Test(twins_states, live_alike_where_there_are_many)
{
    live_alike(2500, 9000, 2100, 1);
    live_alike(1024, 1024, 5000, 1);
    live_alike(3000, 3000, 1000, 0);
}
