/* states_cpu.c -- the memo of distinct states: finding, numbering, giving slots, forgetting.
 *
 * Hashes are computed in parallel; entries are numbered by one thread in the order of the rows,
 * so that numbers, and with them every list made from them, do not depend on threads.
 */
#include "states.h"

#include <assert.h>

#include "ops.h"

/* ---- forgetting ------------------------------------------------------------------------- */

/* The bucket of a key: the one that holds its entry, or else the empty one where it belongs. */
static int32_t bucket_of(const kac_memo *memo, const uint8_t *key, uint64_t hash)
{
    uint32_t last = (uint32_t)memo->buckets - 1, b = (uint32_t)hash & last;
    for (;; b = (b + 1) & last) {
        int32_t e = memo->table[b];
        if (e < 0) return (int32_t)b;
        if (memo->hash[e] == hash && memcmp(memo->keys + (size_t)e * (size_t)memo->stride, key,
                                            (size_t)memo->stride) == 0)
            return (int32_t)b;
    }
}

static void insert(kac_memo *memo, int32_t e)
{
    const uint8_t *key = memo->keys + (size_t)e * (size_t)memo->stride;
    memo->table[bucket_of(memo, key, memo->hash[e])] = e;
}

static void fill(int32_t *x, int32_t n, int32_t value)
{
    for (int32_t i = 0; i < n; i++)
        x[i] = value;
}

/* Stacks of free slots and entries, lowest on top, from the slots that entries still hold. */
static void rebuild_stacks(kac_memo *memo)
{
    int32_t *count = memo->counts;
    count[0] = count[1] = 0;
    for (int32_t e = memo->capacity - 1; e >= 0; e--)
        if (!memo->live[e]) memo->free_entries[count[0]++] = e;

    /* First a mark for each slot, then the marked ones pushed together, then turned round. */
    fill(memo->free_slots, memo->slots, 1);
    for (int32_t e = 0; e < memo->capacity; e++)
        if (memo->slot[e] >= 0) memo->free_slots[memo->slot[e]] = 0;
    for (int32_t s = 0; s < memo->slots; s++)
        if (memo->free_slots[s]) memo->free_slots[count[1]++] = s;
    for (int32_t i = 0, j = count[1] - 1; i < j; i++, j--) {
        int32_t s = memo->free_slots[i];
        memo->free_slots[i] = memo->free_slots[j];
        memo->free_slots[j] = s;
    }
}

kac_status kac_cpu_sweep(kac_device *dev, kac_memo *memo, int32_t *refs, int32_t n)
{
    (void)dev;
    fill(memo->order, memo->capacity, -1);
    for (int32_t i = 0; i < n; i++) {
        if (refs[i] < 0) continue;
        int32_t slot = memo->slot[refs[i]];
        if (slot >= 0 && slot < memo->slots)
            memo->order[refs[i]] = 0; /* a mark, until the end of the sweep */
        else
            refs[i] = -1;
    }
    fill(memo->table, memo->buckets, -1);
    fill(memo->spare_owner, memo->spare, -1);
    for (int32_t e = 0; e < memo->capacity; e++) {
        if (memo->order[e] < 0) {
            memo->live[e] = 0;
            memo->slot[e] = -1;
            continue;
        }
        memo->order[e] = -1;
        if (memo->reuse) insert(memo, e);
    }
    rebuild_stacks(memo);
    return KAC_OK;
}

kac_status kac_cpu_clear(kac_device *dev, kac_memo *memo)
{
    return kac_cpu_sweep(dev, memo, NULL, 0);
}

kac_status kac_cpu_forget(kac_device *dev, int32_t *entry, int32_t n)
{
    (void)dev;
    fill(entry, n, -1);
    return KAC_OK;
}

/* ---- finding ---------------------------------------------------------------------------- */

/* A new entry for `row`; `bucket` is where it is met, or -1: nowhere. */
static int32_t add(kac_memo *memo, const uint8_t *row, uint64_t hash, int32_t bucket)
{
    assert(memo->counts[0] > 0); /* find has made room for all its rows */
    int32_t e = memo->free_entries[--memo->counts[0]];
    memcpy(memo->keys + (size_t)e * (size_t)memo->stride, row, (size_t)memo->stride);
    memo->hash[e] = hash;
    memo->slot[e] = -1;
    memo->live[e] = 1;
    if (bucket >= 0) memo->table[bucket] = e;
    return e;
}

kac_status kac_cpu_find(kac_device *dev, kac_memo *memo, const kac_rows *rows, int32_t *entry,
                        kac_fresh *fresh, int64_t *made)
{
    KAC_REQUIRE(fresh->capacity >= rows->n && memo->capacity >= rows->n);
    int32_t n = kac_rows_live(rows), listed = 0;
    size_t stride = (size_t)memo->stride;

    if (memo->counts[0] < rows->n) KAC_TRY(kac_cpu_sweep(dev, memo, entry, n));
    fill(memo->order, memo->capacity, -1);

    /* The list of fresh entries holds the hashes until it is written: its place q is never
     * beyond the row i that is being looked up. */
    if (memo->reuse) {
#pragma omp parallel for schedule(static)
        for (int32_t i = 0; i < n; i++) {
            uint64_t hash = kac_hash_row(rows->x + (size_t)i * stride, memo->stride);
            fresh->src[i] = (int32_t)(uint32_t)hash;
            fresh->entry[i] = (int32_t)(uint32_t)(hash >> 32);
        }
    }
    for (int32_t i = 0; i < n; i++) {
        const uint8_t *row = rows->x + (size_t)i * stride;
        uint64_t hash = 0;
        int32_t bucket = -1;
        if (entry[i] >= 0) continue;
        if (memo->reuse) {
            hash = (uint64_t)(uint32_t)fresh->entry[i] << 32 | (uint32_t)fresh->src[i];
            bucket = bucket_of(memo, row, hash);
            entry[i] = memo->table[bucket];
            if (entry[i] >= 0) continue;
        }
        entry[i] = add(memo, row, hash, bucket);
        memo->order[entry[i]] = listed;
        fresh->src[listed] = i;
        fresh->entry[listed++] = entry[i];
    }
    *fresh->count = listed;
    if (made != NULL) *made += listed;
    return KAC_OK;
}

/* ---- results ---------------------------------------------------------------------------- */

kac_status kac_cpu_assign(kac_device *dev, kac_memo *memo, int32_t mask, const kac_fresh *fresh,
                          int32_t first, int32_t batch, kac_jobs *job, int64_t *made)
{
    (void)dev;
    KAC_REQUIRE(job->capacity >= batch);
    KAC_REQUIRE(memo->spare >= batch || memo->slots >= memo->capacity);
    int32_t end = kac_fresh_end(fresh, first, batch), jobs = 0;

    for (int32_t i = 0; i < memo->spare; i++) {
        if (memo->spare_owner[i] >= 0) memo->slot[memo->spare_owner[i]] = -1;
        memo->spare_owner[i] = -1;
    }
    for (int32_t q = first; q < end; q++) {
        int32_t e = fresh->entry[q];
        const uint8_t *row = memo->keys + (size_t)e * (size_t)memo->stride;
        if (memo->reuse && mask >= 0 && memchr(row, mask, (size_t)memo->stride) == NULL)
            continue;
        if (memo->counts[1] > 0) {
            memo->slot[e] = memo->free_slots[--memo->counts[1]];
        } else {
            memo->slot[e] = memo->slots + (q - first);
            memo->spare_owner[q - first] = e;
        }
        job->src[jobs] = fresh->src[q];
        job->dst[jobs++] = memo->slot[e];
    }
    *job->count = jobs;
    if (made != NULL) *made += jobs;
    return KAC_OK;
}

kac_status kac_cpu_recall(kac_device *dev, const kac_memo *memo, const int32_t *entry,
                          int32_t n, float *out)
{
    (void)dev;
    size_t terms = (size_t)memo->n_terms;
    for (int32_t i = 0; i < n; i++) {
        if (entry[i] < 0)
            memset(out + (size_t)i * terms, 0, terms * sizeof *out);
        else
            memcpy(out + (size_t)i * terms, memo->terms + (size_t)entry[i] * terms,
                   terms * sizeof *out);
    }
    return KAC_OK;
}

kac_status kac_cpu_carry(kac_device *dev, const kac_jobs *jobs, int32_t bytes, const void *from,
                         void *to)
{
    (void)dev;
    size_t row = (size_t)bytes;
    KAC_REQUIRE(bytes > 0 && bytes % 4 == 0);
#pragma omp parallel for schedule(static)
    for (int32_t j = 0; j < *jobs->count; j++)
        memcpy((char *)to + (size_t)jobs->dst[j] * row,
               (const char *)from + (size_t)jobs->src[j] * row, row);
    return KAC_OK;
}

kac_status kac_cpu_learn(kac_device *dev, kac_memo *memo, const kac_fresh *fresh, int32_t first,
                         int32_t batch, const float *terms)
{
    (void)dev;
    size_t width = (size_t)memo->n_terms;
    int32_t end = kac_fresh_end(fresh, first, batch);
    for (int32_t q = first; q < end; q++)
        memcpy(memo->terms + (size_t)fresh->entry[q] * width,
               terms + (size_t)(q - first) * width, width * sizeof *terms);
    return KAC_OK;
}
