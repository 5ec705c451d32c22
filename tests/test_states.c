/* test_states.c -- the memo of distinct states, and memory and table of the CPU backend. */
#include <criterion/criterion.h>
#include <string.h>

#include "on_device.h"
#include "ops.h"
#include "states.h"

enum { STRIDE = 16, MASK = 4, ROWS = 64 };

/* A memo with its lists, and rows to ask for. */
typedef struct world {
    kac_memo memo;
    kac_fresh fresh;
    kac_jobs job;
    uint8_t x[ROWS][STRIDE];
    int32_t entry[ROWS];
    int64_t made;
} world;

static void *zeros(int32_t n, size_t size)
{
    void *ptr = ops()->memory.alloc(dev(), (size_t)n * size);
    cr_assert_not_null(ptr);
    return ptr;
}

static void make_world(world *w, int32_t capacity, int32_t slots, int32_t spare)
{
    int32_t buckets = 16;
    while (buckets < 2 * capacity)
        buckets *= 2;
    *w = (world){.memo = {.capacity = capacity,
                          .buckets = buckets,
                          .stride = STRIDE,
                          .slots = slots,
                          .spare = spare,
                          .slot_floats = 1,
                          .n_terms = 2,
                          .reuse = 1,
                          .keys = zeros(capacity, STRIDE),
                          .hash = zeros(capacity, sizeof(uint64_t)),
                          .table = zeros(buckets, sizeof(int32_t)),
                          .live = zeros(capacity, sizeof(int32_t)),
                          .free_entries = zeros(capacity, sizeof(int32_t)),
                          .free_slots = zeros(slots, sizeof(int32_t)),
                          .slot = zeros(capacity, sizeof(int32_t)),
                          .order = zeros(capacity, sizeof(int32_t)),
                          .spare_owner = zeros(spare, sizeof(int32_t)),
                          .counts = zeros(2, sizeof(int32_t)),
                          .terms = zeros(capacity, 2 * sizeof(float)),
                          .logits = zeros(slots + spare, sizeof(float))},
                 .fresh = {zeros(ROWS, sizeof(int32_t)), zeros(ROWS, sizeof(int32_t)),
                           zeros(1, sizeof(int32_t)), ROWS},
                 .job = {zeros(ROWS, sizeof(int32_t)), zeros(ROWS, sizeof(int32_t)),
                         zeros(1, sizeof(int32_t)), ROWS}};
    cr_assert_eq(ops()->states.clear(dev(), &w->memo), KAC_OK);
    cr_assert_eq(ops()->states.forget(dev(), w->entry, ROWS), KAC_OK);
}

static void drop_world(world *w)
{
    kac_memo *m = &w->memo;
    void *all[] = {m->keys,        m->hash,      m->table,     m->live,    m->free_entries,
                   m->free_slots,  m->slot,      m->order,     m->counts,  m->terms,
                   m->spare_owner, m->logits,    w->fresh.src, w->job.src, w->fresh.entry,
                   w->fresh.count, w->job.count, w->job.dst};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        ops()->memory.release(dev(), all[i]);
}

/* Row i spells `text`: a digit a site, '4' is the mask. */
static void spell(world *w, int32_t i, const char *text)
{
    memset(w->x[i], 0, STRIDE);
    for (size_t l = 0; text[l] != '\0'; l++)
        w->x[i][l] = (uint8_t)(text[l] - '0');
}

static void spell_all(world *w, const char *const *text, int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        spell(w, i, text[i]);
}

static kac_status find(world *w, int32_t n)
{
    kac_rows rows = {w->x[0], NULL, 0, n};
    return ops()->states.find(dev(), &w->memo, &rows, w->entry, &w->fresh, &w->made);
}

static kac_status assign(world *w, int32_t first, int32_t batch, int64_t *made)
{
    return ops()->states.assign(dev(), &w->memo, MASK, &w->fresh, first, batch, &w->job, made);
}

/* ---- backend ------------------------------------------------------------------------------
 */

Test(backend, table_is_full)
{
    void *const *slot = (void *const *)ops();
    for (size_t i = 0; i < sizeof *ops() / sizeof *slot; i++)
        cr_expect_not_null(slot[i], "slot %zu is empty", i);
}

Test(backend, memory)
{
    const kac_memory_ops *op = &ops()->memory;
    kac_device own = {.ops = ops()};
    cr_expect_neq(op->open(&own, 99), KAC_OK);
    cr_assert_eq(op->open(&own, 0), KAC_OK);

    const size_t sizes[] = {0, 1, 63, 64, 65, 100000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint8_t *a = op->alloc(&own, sizes[i]), *b = op->alloc(&own, sizes[i]);
        cr_assert(a != NULL && b != NULL && a != b);
        cr_expect_eq((uintptr_t)a % 64, 0);
        for (size_t k = 0; k < sizes[i]; k++) {
            cr_assert_eq(a[k], 0);
            a[k] = (uint8_t)k;
        }
        cr_expect_eq(op->copy(&own, b, a, sizes[i]), KAC_OK);
        cr_expect_eq(memcmp(a, b, sizes[i]), 0);
        op->release(&own, a);
        op->release(&own, b);
    }
    op->release(&own, NULL);
    cr_expect_null(op->alloc(&own, SIZE_MAX));
    cr_expect(strlen(kac_last_error()) > 0);
    op->close(&own);
}

/* ---- finding ------------------------------------------------------------------------------
 */

Test(states, equal_rows_are_one_entry)
{
    static const char *const text[] = {"0123", "4444", "0123", "0124", "4444", "1123"};
    const int32_t entry[] = {0, 1, 0, 2, 1, 3}, src[] = {0, 1, 3, 5};
    world w;
    make_world(&w, ROWS, 8, 8);
    spell_all(&w, text, 6);
    cr_assert_eq(find(&w, 6), KAC_OK);
    cr_expect_arr_eq(w.entry, entry, sizeof entry);
    cr_expect_eq(*w.fresh.count, 4);
    cr_expect_arr_eq(w.fresh.src, src, sizeof src);
    for (int32_t q = 0; q < 4; q++) {
        cr_expect_eq(w.fresh.entry[q], q);
        cr_expect_eq(w.memo.order[q], q);
        cr_expect_eq(w.memo.slot[q], -1);
    }
    cr_expect_eq(w.made, 4);

    w.entry[1] = -1; /* asked again: known, nothing fresh */
    spell(&w, 4, "2222");
    w.entry[4] = -1;
    cr_assert_eq(find(&w, 6), KAC_OK);
    cr_expect_eq(w.entry[1], 1);
    cr_expect_eq(w.entry[4], 4);
    cr_expect_eq(*w.fresh.count, 1);
    cr_expect_eq(w.fresh.src[0], 4);
    cr_expect_eq(w.memo.order[0], -1);
    cr_expect_eq(w.memo.order[4], 0);
    cr_expect_eq(w.made, 5);
    drop_world(&w);
}

/* Rows whose entry is known are not looked at. */
Test(states, a_given_entry_is_believed)
{
    world w;
    make_world(&w, ROWS, 8, 8);
    spell(&w, 0, "0123");
    spell(&w, 1, "3210");
    w.entry[1] = 7;
    cr_assert_eq(find(&w, 2), KAC_OK);
    cr_expect_eq(w.entry[1], 7);
    cr_expect_eq(*w.fresh.count, 1);
    drop_world(&w);
}

Test(states, only_the_window_is_looked_at)
{
    static const char *const text[] = {"0", "1", "2", "3"};
    int32_t count = 7;
    world w;
    make_world(&w, ROWS, 8, 8);
    spell_all(&w, text, 4);
    kac_rows rows = {w.x[0], &count, 5, 4};
    cr_assert_eq(ops()->states.find(dev(), &w.memo, &rows, w.entry, &w.fresh, NULL), KAC_OK);
    cr_expect_eq(*w.fresh.count, 2);
    cr_expect_eq(w.entry[1], 1);
    cr_expect_eq(w.entry[2], -1);
    count = 3;
    cr_assert_eq(ops()->states.find(dev(), &w.memo, &rows, w.entry, &w.fresh, NULL), KAC_OK);
    cr_expect_eq(*w.fresh.count, 0);
    drop_world(&w);
}

/* Two keys that claim the same hash, and so the same bucket, are still two entries. */
Test(states, hashes_are_confirmed)
{
    world w;
    make_world(&w, ROWS, 8, 8);
    spell(&w, 0, "0123");
    cr_assert_eq(find(&w, 1), KAC_OK);
    spell(&w, 1, "3210");
    uint64_t hash = kac_hash_row(w.x[1], STRIDE);
    for (int32_t b = 0; b < w.memo.buckets; b++)
        w.memo.table[b] = -1;
    w.memo.hash[0] = hash;
    w.memo.table[hash & (uint64_t)(w.memo.buckets - 1)] = 0;
    cr_assert_eq(find(&w, 2), KAC_OK);
    cr_expect_eq(w.entry[1], 1);
    w.entry[1] = -1;
    cr_assert_eq(find(&w, 2), KAC_OK);
    cr_expect_eq(w.entry[1], 1, "and the second one is found behind the first");
    drop_world(&w);
}

Test(states, hashes_of_near_rows_differ)
{
    uint8_t row[32] = {0}, other[32] = {0};
    for (int l = 0; l < 32; l++)
        for (int token = 1; token < 33; token++) {
            row[l] = (uint8_t)token;
            cr_assert_neq(kac_hash_row(row, 32), kac_hash_row(other, 32));
            other[l] = (uint8_t)(token & 31);
        }
    cr_expect_eq(kac_hash_row(other, 32), kac_hash_row(other, 32));
}

Test(states, without_reuse_all_is_new)
{
    static const char *const text[] = {"0123", "0123", "4444"};
    const int32_t src[] = {0, 1, 2};
    world w;
    make_world(&w, ROWS, 8, 8);
    w.memo.reuse = 0;
    spell_all(&w, text, 3);
    cr_assert_eq(find(&w, 3), KAC_OK);
    cr_expect_eq(*w.fresh.count, 3);
    cr_expect_arr_eq(w.fresh.src, src, sizeof src);
    cr_expect_neq(w.entry[0], w.entry[1]);
    cr_assert_eq(ops()->states.forget(dev(), w.entry, 3), KAC_OK);
    cr_assert_eq(find(&w, 3), KAC_OK);
    cr_expect_eq(*w.fresh.count, 3);
    cr_expect_eq(w.entry[0], 3);
    cr_assert_eq(assign(&w, 0, 8, NULL), KAC_OK);
    cr_expect_eq(*w.job.count, 3, "revealed states are run too");
    drop_world(&w);
}

Test(states, a_full_memo_makes_room)
{
    world w;
    make_world(&w, 8, 2, 8);
    for (int32_t i = 0; i < 8; i++)
        spell(&w, i, (const char[]){(char)('0' + i), '4', '\0'});
    cr_assert_eq(find(&w, 6), KAC_OK);
    cr_assert_eq(assign(&w, 0, 8, NULL), KAC_OK);
    int32_t kept = w.memo.slot[0];
    cr_expect(kept >= 0 && kept < 2);

    /* Rows 0 and 2 stay referred to; only 0 has a slot that persists.  The window is 8 rows. */
    for (int32_t i = 0; i < 8; i++)
        if (i != 0 && i != 2) w.entry[i] = -1;
    cr_assert_eq(find(&w, 8), KAC_OK);
    cr_expect_eq(w.entry[0], 0);
    cr_expect_eq(w.memo.slot[0], kept);
    cr_expect_eq(*w.fresh.count, 7);
    for (int32_t i = 0; i < 8; i++)
        for (int32_t j = 0; j < i; j++)
            cr_expect_neq(w.entry[i], w.entry[j]);
    drop_world(&w);

    make_world(&w, 4, 2, 8);
    cr_expect_eq(find(&w, 5), KAC_ERR_INVALID);
    drop_world(&w);
}

Test(states, one_and_three_threads_number_alike)
{
    world w[2];
    for (int k = 0; k < 2; k++) {
        set_threads(k == 0 ? 1 : 3);
        make_world(&w[k], ROWS, 8, 8);
        for (int32_t i = 0; i < ROWS; i++)
            spell(&w[k], i,
                  (const char[]){(char)('0' + i * i % 23), (char)('0' + i % 5), '\0'});
        cr_assert_eq(find(&w[k], ROWS), KAC_OK);
    }
    cr_expect_arr_eq(w[0].entry, w[1].entry, sizeof w[0].entry);
    cr_assert_eq(*w[0].fresh.count, *w[1].fresh.count);
    cr_expect_arr_eq(w[0].fresh.src, w[1].fresh.src, ROWS * sizeof(int32_t));
    for (int32_t i = 0; i < ROWS; i++)
        for (int32_t j = 0; j < i; j++)
            cr_assert_eq(w[0].entry[i] == w[0].entry[j],
                         memcmp(w[0].x[i], w[0].x[j], STRIDE) == 0);
    drop_world(&w[0]);
    drop_world(&w[1]);
}

/* ---- slots --------------------------------------------------------------------------------
 */

Test(states, slots_then_spare_rows)
{
    static const char *const text[] = {"40", "00", "41", "42", "43", "44"};
    int64_t made = 0;
    world w;
    make_world(&w, ROWS, 2, 3);
    spell_all(&w, text, 6);
    cr_assert_eq(find(&w, 6), KAC_OK);

    cr_assert_eq(assign(&w, 0, 3, &made), KAC_OK);
    cr_expect_eq(*w.job.count, 2, "a revealed state is no job");
    cr_expect_eq(w.job.src[0], 0);
    cr_expect_eq(w.job.src[1], 2);
    cr_expect_eq(w.memo.slot[1], -1);
    cr_expect(w.job.dst[0] < 2 && w.job.dst[1] < 2 && w.job.dst[0] != w.job.dst[1]);

    cr_assert_eq(assign(&w, 3, 3, &made), KAC_OK);
    cr_expect_eq(*w.job.count, 3);
    for (int32_t q = 3; q < 6; q++) {
        cr_expect_eq(w.job.dst[q - 3], 2 + q - 3);
        cr_expect_eq(w.memo.slot[q], 2 + q - 3);
    }
    cr_expect_eq(made, 5);

    spell(&w, 0, "47");
    w.entry[0] = -1;
    cr_assert_eq(find(&w, 1), KAC_OK);
    cr_assert_eq(assign(&w, 0, 3, &made), KAC_OK);
    for (int32_t e = 3; e < 6; e++)
        cr_expect_eq(w.memo.slot[e], -1, "spare rows are taken back");
    cr_expect_eq(w.memo.slot[w.entry[0]], 2);
    cr_assert_eq(assign(&w, 3, 3, &made), KAC_OK);
    cr_expect_eq(*w.job.count, 0, "beyond the list there is nothing");
    cr_expect_eq(made, 6);

    cr_expect_eq(assign(&w, 0, 4, &made), KAC_ERR_INVALID, "more than the spare rows");
    drop_world(&w);
}

Test(states, sweep_keeps_what_is_named)
{
    static const char *const text[] = {"40", "41", "00", "42", "43"};
    world w;
    make_world(&w, ROWS, 2, 8);
    spell_all(&w, text, 5);
    cr_assert_eq(find(&w, 5), KAC_OK);
    cr_assert_eq(assign(&w, 0, 8, NULL), KAC_OK);
    int32_t slot = w.memo.slot[1];
    w.memo.terms[2] = 7; /* of entry 1 */

    int32_t refs[] = {1, -1, 3, 1, 2}; /* 3 has a spare row, 2 needs none: neither persists */
    const int32_t want[] = {1, -1, -1, 1, -1};
    cr_assert_eq(ops()->states.sweep(dev(), &w.memo, refs, 5), KAC_OK);
    cr_expect_arr_eq(refs, want, sizeof want);
    cr_expect_eq(w.memo.slot[1], slot);
    cr_expect_eq(w.memo.counts[0], ROWS - 1);
    cr_expect_eq(w.memo.counts[1], 1);

    cr_assert_eq(ops()->states.forget(dev(), w.entry, 5), KAC_OK);
    cr_assert_eq(find(&w, 5), KAC_OK);
    cr_expect_eq(w.entry[1], 1);
    cr_expect_eq(w.memo.terms[2], 7);
    cr_expect_eq(*w.fresh.count, 4);
    cr_assert_eq(assign(&w, 0, 8, NULL), KAC_OK);
    for (int32_t e = 0; e < 5; e++)
        if (e != 1) cr_expect_neq(w.memo.slot[e], slot, "the kept slot is not given twice");
    drop_world(&w);
}

Test(states, clear_forgets_all)
{
    world w;
    make_world(&w, 8, 4, 4);
    spell(&w, 0, "40");
    spell(&w, 1, "41");
    for (int round = 0; round < 10; round++) {
        cr_assert_eq(ops()->states.forget(dev(), w.entry, 2), KAC_OK);
        cr_assert_eq(find(&w, 2), KAC_OK);
        cr_assert_eq(*w.fresh.count, 2);
        cr_assert_eq(assign(&w, 0, 4, NULL), KAC_OK);
        cr_assert_eq(w.memo.counts[1], 2);
        cr_assert_eq(ops()->states.clear(dev(), &w.memo), KAC_OK);
        cr_assert_eq(w.memo.counts[0], 8);
        cr_assert_eq(w.memo.counts[1], 4);
    }
    drop_world(&w);
}

/* ---- terms --------------------------------------------------------------------------------
 */

Test(states, what_is_learned_is_recalled)
{
    static const char *const text[] = {"0", "1", "0", "2", "3"};
    const float first[] = {1, 10, 2, 20}, second[] = {3, 30, 4, 40};
    const float want[] = {1, 10, 2, 20, 1, 10, 3, 30, 4, 40, 0, 0};
    float out[12] = {9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9};
    world w;
    make_world(&w, ROWS, 0, 0); /* a memo of rewards: no logits */
    spell_all(&w, text, 5);
    cr_assert_eq(find(&w, 5), KAC_OK);
    cr_assert_eq(ops()->states.learn(dev(), &w.memo, &w.fresh, 0, 2, first), KAC_OK);
    cr_assert_eq(ops()->states.learn(dev(), &w.memo, &w.fresh, 2, 8, second), KAC_OK);
    cr_assert_eq(ops()->states.recall(dev(), &w.memo, w.entry, 6, out), KAC_OK);
    cr_expect_arr_eq(out, want, sizeof want);
    drop_world(&w);
}

/* ---- carrying ------------------------------------------------------------------------------
 */

Test(states, rows_are_carried_where_jobs_say)
{
    int32_t src[] = {3, 0, 3, 1}, dst[] = {0, 4, 2, 1},
            count = 3; /* the last is none of them */
    int32_t from[8] = {10, 11, 20, 21, 30, 31, 40, 41}, to[10] = {0};
    const int32_t want[10] = {40, 41, 0, 0, 40, 41, 0, 0, 10, 11};
    kac_jobs jobs = {src, dst, &count, 4};
    cr_assert_eq(ops()->states.carry(dev(), &jobs, 8, from, to), KAC_OK);
    cr_expect_arr_eq(to, want, sizeof want);
    cr_expect_eq(ops()->states.carry(dev(), &jobs, 6, from, to), KAC_ERR_INVALID);
}
