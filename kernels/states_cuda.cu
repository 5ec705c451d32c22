/* states_cuda.cu -- the memo of distinct states: finding, numbering, giving slots, forgetting.
 *
 * Threads race for places in hash tables, but what they find there does not depend on who won:
 * a place for new rows ends up with the first of the rows that are equal, and entries are
 * numbered by scans over rows.  Only where in the memo's table an entry lies does depend on it, and
 * nothing reads that but the search for a key.
 */
#include "block.cuh"
#include "rows.cuh"

/* A scan goes over tiles: one launch leaves the sum of each, and in the next each tile adds up
 * those before it. */
enum { TILE = 4 * KAC_THREADS };

/* A block that does alone what tiles do elsewhere: sweeps of tables of SMALL places, and scans of
 * FEW rows a thread. */
enum { ALONE = 1024, SMALL = 1 << 15, FEW = 4 };

static inline __host__ __device__ int32_t tiles_of(int32_t n)
{
    return n > 0 ? (n + TILE - 1) / TILE : 1;
}

static __device__ int32_t tile_end(int32_t tile, int32_t n)
{
    return n - tile * TILE < TILE ? n : (tile + 1) * TILE;
}

/* The sum of load(i) over the tile, left for the next launch. */
template <class Load>
static __device__ void sum_tile(int32_t *tiles, int32_t tile, int32_t n, Load load)
{
    int32_t own = 0;
    for (int32_t i = tile * TILE + (int32_t)threadIdx.x; i < tile_end(tile, n);
         i += KAC_THREADS)
        own += load(i);
    own = kac_block_sum(own);
    if (threadIdx.x == 0) tiles[tile] = own;
}

/* A part of the working memory, counted from its start, so that the host never adds to a pointer
 * that is not there yet. */
static size_t take(size_t *used, size_t bytes)
{
    size_t at = *used;
    *used += (bytes + 63) / 64 * 64;
    return at;
}

/* ---- rows -------------------------------------------------------------------------------- */

/* Whether a byte of the row is `byte`: after the exclusive or, a byte that is 0. */
static __device__ bool has_byte(const uint64_t *row, int32_t stride, uint8_t byte)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    for (int32_t w = 0; w < stride / 8; w++) {
        uint64_t x = row[w] ^ ones * byte;
        if ((x - ones) & ~x & ones << 7) return true;
    }
    return false;
}

/* ---- the memo's table ---------------------------------------------------------------------
 */

/* The entry with this key, or -1; by a warp. */
static __device__ int32_t look_up(const kac_memo *memo, const uint64_t *key, uint64_t hash)
{
    uint32_t last = (uint32_t)memo->buckets - 1, b = (uint32_t)hash & last;
    for (;; b = (b + 1) & last) {
        int32_t e = memo->table[b];
        if (e < 0) return -1;
        if (memo->hash[e] == hash &&
            kac_rows_equal(kac_row_words(memo->keys, e, memo->stride), key, memo->stride))
            return e;
    }
}

/* Entries that are inserted have different keys, none of them in the table. */
static __device__ void insert(const kac_memo *memo, int32_t e)
{
    uint32_t last = (uint32_t)memo->buckets - 1, b = (uint32_t)memo->hash[e] & last;
    while (atomicCAS(&memo->table[b], -1, e) != -1)
        b = (b + 1) & last;
}

/* ---- what sweep and find work on ------------------------------------------------------------
 */

struct find_call {
    kac_memo memo;
    kac_rows rows;
    int32_t *entry; /* [rows.n] refs of the sweep */
    kac_fresh fresh;
    int64_t *made;
    int32_t need; /* the memo is swept where fewer entries are free */
    /* working memory */
    int32_t *state; /* [2] whether it is swept; free entries before the new ones */
    int32_t *taken; /* [slots] 1: an entry holds it */
    int32_t *tiles; /* of entries, of slots; then of rows */
    int32_t claims; /* a power of two >= 2 rows.n, or 0: nothing is looked for */
    int32_t *claim; /* [claims] the first of the new rows that are equal, or -1 */
    int32_t *place; /* [rows.n] the row's claim, or -1: it is not new */
    uint64_t *hash; /* [rows.n] */
};

static kac_status get_memory(kac_device *dev, find_call *c)
{
    const kac_memo *m = &c->memo;
    size_t used = 0, n = (size_t)c->rows.n, word = sizeof(int32_t);
    size_t tiles = (size_t)tiles_of(m->capacity) + (size_t)tiles_of(m->slots);
    if (tiles < (size_t)tiles_of(c->rows.n)) tiles = (size_t)tiles_of(c->rows.n);
    size_t state = take(&used, 2 * word), taken = take(&used, (size_t)m->slots * word),
           sums = take(&used, tiles * word), claim = take(&used, (size_t)c->claims * word),
           place = take(&used, n * word), hash = take(&used, n * sizeof(uint64_t));
    void *scratch = NULL;
    KAC_TRY(kac_cuda_scratch(dev, used, &scratch));
    char *base = (char *)scratch;
    c->state = (int32_t *)(base + state);
    c->taken = (int32_t *)(base + taken);
    c->tiles = (int32_t *)(base + sums);
    c->claim = (int32_t *)(base + claim);
    c->place = (int32_t *)(base + place);
    c->hash = (uint64_t *)(base + hash);
    return KAC_OK;
}

/* ---- forgetting ------------------------------------------------------------------------- */

/* The threads that do a phase of a sweep together: those of a block, or of the whole grid. */
struct crew {
    int64_t me, size;
};

static __device__ crew the_grid()
{
    return {(int64_t)blockIdx.x * blockDim.x + threadIdx.x, (int64_t)gridDim.x * blockDim.x};
}

static __device__ crew the_block()
{
    return {threadIdx.x, blockDim.x};
}

#define CREW_EACH(i, by, n) for (int64_t i = (by).me; i < (n); i += (by).size)

/* Nothing is new yet, and nothing claimed. */
static __device__ void begin_by(const find_call *c, crew by)
{
    CREW_EACH(i, by, c->memo.capacity)
    c->memo.order[i] = -1;
    CREW_EACH(i, by, c->claims)
    c->claim[i] = -1;
}

/* Marks in `order` the entries that stay. */
static __device__ void mark_by(const find_call *c, crew by)
{
    const kac_memo *memo = &c->memo;
    CREW_EACH(i, by, memo->buckets)
    memo->table[i] = -1;
    CREW_EACH(i, by, memo->spare)
    memo->spare_owner[i] = -1;
    CREW_EACH(i, by, memo->slots)
    c->taken[i] = 0;
    CREW_EACH(i, by, kac_rows_live(&c->rows))
    {
        int32_t e = c->entry[i];
        if (e < 0) continue;
        if (memo->slot[e] >= 0 && memo->slot[e] < memo->slots)
            memo->order[e] = 0;
        else
            c->entry[i] = -1;
    }
}

static __device__ void keep_by(const find_call *c, crew by)
{
    const kac_memo *memo = &c->memo;
    CREW_EACH(i, by, memo->capacity)
    {
        int32_t e = (int32_t)i;
        if (memo->order[e] < 0) {
            memo->live[e] = 0;
            memo->slot[e] = -1;
            continue;
        }
        memo->order[e] = -1;
        c->taken[memo->slot[e]] = 1;
        if (memo->reuse) insert(memo, e);
    }
}

/* A stack of what is free: entries, and in the second row of the grid slots. */
struct stack {
    const int32_t *taken; /* [n] */
    int32_t n;
    int32_t *tiles;
    int32_t *free; /* the lowest on top */
};

static __device__ stack stack_of(const find_call *c, int number)
{
    const kac_memo *memo = &c->memo;
    if (number == 0) return {memo->live, memo->capacity, c->tiles, memo->free_entries};
    return {c->taken, memo->slots, c->tiles + tiles_of(memo->capacity), memo->free_slots};
}

/* Pushes those of first .. end - 1, counted from the highest, on a stack of `below`; by a block.
 * Returns how many it then has. */
static __device__ int32_t push(const stack *s, int32_t first, int32_t end, int32_t below)
{
    const int32_t *taken = s->taken, n = s->n;
    int32_t *free = s->free;
    return kac_block_run(
        first, end, below, [=](int32_t i) { return (int32_t)(taken[n - 1 - i] == 0); },
        [=](int32_t i, int32_t sum, int32_t is_free) {
            if (is_free) free[sum - 1] = n - 1 - i;
        });
}

KAC_KERNEL begin(KAC_ARGS find_call c)
{
    begin_by(&c, the_grid());
    if (blockIdx.x == 0 && threadIdx.x == 0) c.state[0] = c.memo.counts[0] < c.need;
}

KAC_KERNEL mark(KAC_ARGS find_call c)
{
    if (c.state[0]) mark_by(&c, the_grid());
}

KAC_KERNEL keep(KAC_ARGS find_call c)
{
    if (c.state[0]) keep_by(&c, the_grid());
}

KAC_KERNEL count_free(KAC_ARGS find_call c)
{
    stack s = stack_of(&c, (int)blockIdx.y);
    const int32_t tile = (int32_t)blockIdx.x;
    if (!c.state[0] || tile >= tiles_of(s.n)) return;
    sum_tile(s.tiles, tile, s.n, [&](int32_t i) { return s.taken[s.n - 1 - i] == 0; });
}

KAC_KERNEL push_free(KAC_ARGS find_call c)
{
    stack s = stack_of(&c, (int)blockIdx.y);
    const int32_t tile = (int32_t)blockIdx.x;
    if (!c.state[0] || tile >= tiles_of(s.n)) return;
    int32_t upto = push(&s, tile * TILE, tile_end(tile, s.n), kac_block_total(s.tiles, tile));
    if (threadIdx.x == 0 && s.n - tile * TILE <= TILE) c.memo.counts[blockIdx.y] = upto;
}

/* All of a sweep by one block: where the memo is small its barriers take less than launches. */
KAC_KERNEL __launch_bounds__(ALONE) sweep_alone(KAC_ARGS find_call c)
{
    const bool needed = c.memo.counts[0] < c.need;
    begin_by(&c, the_block());
    if (!needed) return;
    __syncthreads();
    mark_by(&c, the_block());
    __syncthreads();
    keep_by(&c, the_block());
    __syncthreads();
    KAC_UNROLL
    for (int k = 0; k < 2; k++) {
        stack s = stack_of(&c, k);
        int32_t upto = push(&s, 0, s.n, 0);
        if (threadIdx.x == 0) c.memo.counts[k] = upto;
    }
}

/* Bound by launches; nothing happens in most of them. */
static kac_status sweep(kac_device *dev, const find_call *c)
{
    const kac_memo *m = &c->memo;
    int64_t most = m->capacity > c->claims ? m->capacity : c->claims;
    int32_t marked = m->buckets > c->rows.n ? m->buckets : c->rows.n;
    int32_t entries = tiles_of(m->capacity), slots = tiles_of(m->slots);
    dim3 stacks((unsigned)(entries > slots ? entries : slots), 2);
    if (marked <= SMALL) return KAC_LAUNCH(dev, sweep_alone, 1, ALONE, 0, *c);
    KAC_TRY(KAC_LAUNCH(dev, begin, kac_blocks(most), KAC_THREADS, 0, *c));
    KAC_TRY(KAC_LAUNCH(dev, mark, kac_blocks(marked), KAC_THREADS, 0, *c));
    KAC_TRY(KAC_LAUNCH(dev, keep, kac_blocks(m->capacity), KAC_THREADS, 0, *c));
    KAC_TRY(KAC_LAUNCH(dev, count_free, stacks, KAC_THREADS, 0, *c));
    return KAC_LAUNCH(dev, push_free, stacks, KAC_THREADS, 0, *c);
}

kac_status kac_cuda_sweep(kac_device *dev, kac_memo *memo, int32_t *refs, int32_t n)
{
    find_call c = {};
    c.memo = *memo;
    c.rows.n = n;
    c.entry = refs;
    c.need = INT32_MAX;
    KAC_TRY(get_memory(dev, &c));
    return sweep(dev, &c);
}

kac_status kac_cuda_clear(kac_device *dev, kac_memo *memo)
{
    return kac_cuda_sweep(dev, memo, NULL, 0);
}

KAC_KERNEL forget(int32_t *entry, int32_t n)
{
    KAC_EACH (i, n)
        entry[i] = -1;
}

kac_status kac_cuda_forget(kac_device *dev, int32_t *entry, int32_t n)
{
    return KAC_LAUNCH(dev, forget, kac_blocks(n), KAC_THREADS, 0, entry, n);
}

/* ---- finding ---------------------------------------------------------------------------- */

/* The place of row i among the new ones, by a warp.  A place belongs to the rows that equal the
 * one that took it, and each of them lowers its number to the first; what is read may be old and
 * so too high, never too low. */
static __device__ int32_t claim_place(const find_call *c, int32_t i, uint64_t hash)
{
    const int32_t lane = (int32_t)threadIdx.x % KAC_WARP;
    const uint64_t *row = kac_row_words(c->rows.x, i, c->memo.stride);
    uint32_t last = (uint32_t)c->claims - 1, b = (uint32_t)hash & last;
    for (;; b = (b + 1) & last) {
        int32_t there = 0;
        if (lane == 0) there = kac_peek(&c->claim[b]);
        if (lane == 0 && there < 0) there = atomicCAS(&c->claim[b], -1, i);
        there = __shfl_sync(KAC_WHOLE_WARP, there, 0);
        if (there < 0) return (int32_t)b;
        if (!kac_rows_equal(kac_row_words(c->rows.x, there, c->memo.stride), row,
                            c->memo.stride))
            continue;
        if (lane == 0 && there > i) atomicMin(&c->claim[b], i);
        return (int32_t)b;
    }
}

/* A warp for each row; bound by reading rows and keys. */
KAC_KERNEL look(KAC_ARGS find_call c)
{
    const int32_t live = kac_rows_live(&c.rows), lane = (int32_t)threadIdx.x % KAC_WARP;
    KAC_EACH_WARP (at, c.rows.n) {
        const int32_t i = (int32_t)at;
        int32_t entry = i < live ? c.entry[i] : 0, place = -1;
        uint64_t hash = 0;
        if (entry < 0 && c.memo.reuse) {
            const uint64_t *row = kac_row_words(c.rows.x, i, c.memo.stride);
            hash = kac_row_hash(row, c.memo.stride);
            entry = look_up(&c.memo, row, hash);
            if (entry < 0) place = claim_place(&c, i, hash);
        } else if (entry < 0) {
            place = i;
        }
        __syncwarp(); /* all lanes have read the entry */
        if (lane > 0) continue;
        c.place[i] = place;
        if (i >= live) continue;
        c.hash[i] = hash;
        c.entry[i] = entry;
        if (place >= 0 && !c.memo.reuse) c.claim[i] = i;
    }
}

/* Whether row i is the first of the new rows that equal it. */
static __device__ int32_t is_first(const find_call *c, int32_t i)
{
    return c->place[i] >= 0 && c->claim[c->place[i]] == i;
}

KAC_KERNEL count_new(KAC_ARGS find_call c)
{
    sum_tile(c.tiles, (int32_t)blockIdx.x, c.rows.n,
             [&](int32_t i) { return is_first(&c, i); });
    if (blockIdx.x == 0 && threadIdx.x == 0) c.state[1] = c.memo.counts[0];
}

/* New entry q, for row i. */
static __device__ void add(const find_call *c, int32_t i, int32_t q)
{
    const kac_memo *memo = &c->memo;
    int32_t e = memo->free_entries[c->state[1] - 1 - q];
    memo->hash[e] = c->hash[i];
    memo->slot[e] = -1;
    memo->live[e] = 1;
    memo->order[e] = q;
    c->entry[i] = e;
    c->fresh.src[q] = i;
    c->fresh.entry[q] = e;
}

/* Adds the new ones of rows first .. end - 1, of which `before` came before; by a block. */
static __device__ int32_t add_range(const find_call *c, int32_t first, int32_t end,
                                    int32_t before)
{
    return kac_block_run(
        first, end, before, [=](int32_t i) { return is_first(c, i); },
        [=](int32_t i, int32_t sum, int32_t is_new) {
            if (is_new) add(c, i, sum - 1);
        });
}

/* What is known when all `fresh` new ones are there. */
static __device__ void count_fresh(const find_call *c, int32_t fresh)
{
    *c->fresh.count = fresh;
    c->memo.counts[0] = c->state[1] - fresh;
    if (c->made != NULL) *c->made += fresh;
}

KAC_KERNEL add_new(KAC_ARGS find_call c)
{
    const int32_t tile = (int32_t)blockIdx.x;
    int32_t upto =
        add_range(&c, tile * TILE, tile_end(tile, c.rows.n), kac_block_total(c.tiles, tile));
    if (threadIdx.x == 0 && c.rows.n - tile * TILE <= TILE) count_fresh(&c, upto);
}

/* count_new and add_new where there are few rows, by one block. */
KAC_KERNEL __launch_bounds__(ALONE) add_alone(KAC_ARGS find_call c)
{
    if (threadIdx.x == 0) c.state[1] = c.memo.counts[0];
    __syncthreads();
    int32_t upto = add_range(&c, 0, c.rows.n, 0);
    if (threadIdx.x == 0) count_fresh(&c, upto);
}

/* New rows become the keys of their entries, which enter the table, by a warp each; others get the
 * entry of the first that equals them. */
KAC_KERNEL follow(KAC_ARGS find_call c)
{
    const int32_t lane = (int32_t)threadIdx.x % KAC_WARP, stride = c.memo.stride;
    KAC_EACH_WARP (at, c.rows.n) {
        const int32_t i = (int32_t)at;
        if (c.place[i] < 0) continue;
        if (!is_first(&c, i)) {
            if (lane == 0) c.entry[i] = c.entry[c.claim[c.place[i]]];
            continue;
        }
        if (lane == 0 && c.memo.reuse) insert(&c.memo, c.entry[i]);
        const uint64_t *row = kac_row_words(c.rows.x, i, stride);
        uint64_t *key = const_cast<uint64_t *>(kac_row_words(c.memo.keys, c.entry[i], stride));
        for (int32_t w = lane; w < stride / 8; w += KAC_WARP)
            key[w] = row[w];
    }
}

kac_status kac_cuda_find(kac_device *dev, kac_memo *memo, const kac_rows *rows, int32_t *entry,
                         kac_fresh *fresh, int64_t *made)
{
    KAC_REQUIRE(fresh->capacity >= rows->n && memo->capacity >= rows->n);
    find_call c = {};
    unsigned warps = kac_blocks((int64_t)rows->n * KAC_WARP);
    unsigned tiles = (unsigned)tiles_of(rows->n);
    c.memo = *memo;
    c.rows = *rows;
    c.entry = entry;
    c.fresh = *fresh;
    c.made = made;
    c.need = rows->n;
    for (c.claims = 1; c.claims < 2 * rows->n;)
        c.claims *= 2;
    KAC_TRY(get_memory(dev, &c));
    KAC_TRY(sweep(dev, &c));
    KAC_TRY(KAC_LAUNCH(dev, look, warps, KAC_THREADS, 0, c));
    if (rows->n <= ALONE * FEW) {
        KAC_TRY(KAC_LAUNCH(dev, add_alone, 1, ALONE, 0, c));
    } else {
        KAC_TRY(KAC_LAUNCH(dev, count_new, tiles, KAC_THREADS, 0, c));
        KAC_TRY(KAC_LAUNCH(dev, add_new, tiles, KAC_THREADS, 0, c));
    }
    return KAC_LAUNCH(dev, follow, warps, KAC_THREADS, 0, c);
}

/* ---- results ---------------------------------------------------------------------------- */

struct assign_call {
    kac_memo memo;
    int32_t mask;
    kac_fresh fresh;
    int32_t first, batch;
    kac_jobs job;
    int64_t *made;
    /* working memory */
    int32_t *free;   /* [1] free slots before */
    int32_t *tiles;  /* of the batch */
    int32_t *is_job; /* [batch] */
};

/* Takes spare slots back, and finds the jobs. */
KAC_KERNEL find_jobs(KAC_ARGS assign_call c)
{
    const kac_memo *memo = &c.memo;
    const int32_t n = kac_fresh_end(&c.fresh, c.first, c.batch) - c.first;
    KAC_EACH (i, memo->spare) {
        if (memo->spare_owner[i] >= 0) memo->slot[memo->spare_owner[i]] = -1;
        memo->spare_owner[i] = -1;
    }
    if (blockIdx.x == 0 && threadIdx.x == 0) *c.free = memo->counts[1];
    if ((int64_t)blockIdx.x * TILE >= c.batch) return;
    sum_tile(c.tiles, (int32_t)blockIdx.x, c.batch, [&](int32_t q) {
        c.is_job[q] =
            q < n &&
            (!memo->reuse || c.mask < 0 ||
             has_byte(kac_row_words(memo->keys, c.fresh.entry[c.first + q], memo->stride),
                      memo->stride, (uint8_t)c.mask));
        return c.is_job[q];
    });
}

/* Job j is fresh entry q of the window. */
static __device__ void give_slot(const assign_call *c, int32_t q, int32_t j)
{
    const kac_memo *memo = &c->memo;
    int32_t e = c->fresh.entry[c->first + q];
    if (j < *c->free) {
        memo->slot[e] = memo->free_slots[*c->free - 1 - j];
    } else {
        memo->slot[e] = memo->slots + q;
        memo->spare_owner[q] = e;
    }
    c->job.src[j] = c->fresh.src[c->first + q];
    c->job.dst[j] = memo->slot[e];
}

KAC_KERNEL give_slots(KAC_ARGS assign_call c)
{
    const int32_t tile = (int32_t)blockIdx.x;
    int32_t jobs = kac_block_run(
        tile * TILE, tile_end(tile, c.batch), kac_block_total(c.tiles, tile),
        [&](int32_t q) { return c.is_job[q]; },
        [&](int32_t q, int32_t upto, int32_t is_job) {
            if (is_job) give_slot(&c, q, upto - 1);
        });
    if (threadIdx.x > 0 || c.batch - tile * TILE > TILE) return;
    *c.job.count = jobs;
    c.memo.counts[1] = *c.free - (jobs < *c.free ? jobs : *c.free);
    if (c.made != NULL) *c.made += jobs;
}

kac_status kac_cuda_assign(kac_device *dev, kac_memo *memo, int32_t mask,
                           const kac_fresh *fresh, int32_t first, int32_t batch, kac_jobs *job,
                           int64_t *made)
{
    KAC_REQUIRE(job->capacity >= batch);
    KAC_REQUIRE(memo->spare >= batch || memo->slots >= memo->capacity);
    size_t used = 0, word = sizeof(int32_t);
    unsigned tiles = (unsigned)tiles_of(batch), blocks = kac_blocks(memo->spare);
    size_t sums = take(&used, word), at = take(&used, tiles * word),
           is_job = take(&used, (size_t)batch * word);
    void *scratch = NULL;
    KAC_TRY(kac_cuda_scratch(dev, used, &scratch));
    char *base = (char *)scratch;
    assign_call c = {*memo,
                     mask,
                     *fresh,
                     first,
                     batch,
                     *job,
                     made,
                     (int32_t *)(base + sums),
                     (int32_t *)(base + at),
                     (int32_t *)(base + is_job)};
    KAC_TRY(KAC_LAUNCH(dev, find_jobs, blocks > tiles ? blocks : tiles, KAC_THREADS, 0, c));
    return KAC_LAUNCH(dev, give_slots, tiles, KAC_THREADS, 0, c);
}

KAC_KERNEL recall(KAC_ARGS kac_memo memo, const int32_t *entry, int32_t n, float *out)
{
    KAC_EACH (i, (int64_t)n * memo.n_terms) {
        int32_t e = entry[i / memo.n_terms];
        out[i] = e < 0 ? 0 : memo.terms[(int64_t)e * memo.n_terms + i % memo.n_terms];
    }
}

kac_status kac_cuda_recall(kac_device *dev, const kac_memo *memo, const int32_t *entry,
                           int32_t n, float *out)
{
    return KAC_LAUNCH(dev, recall, kac_blocks((int64_t)n * memo->n_terms), KAC_THREADS, 0,
                      *memo, entry, n, out);
}

/* Neighbouring threads move neighbouring words of a row. */
KAC_KERNEL carry(KAC_ARGS kac_jobs jobs, int32_t words, const uint32_t *from, uint32_t *to)
{
    KAC_EACH (t, (int64_t)*jobs.count * words) {
        int64_t j = t / words, k = t % words;
        to[(int64_t)jobs.dst[j] * words + k] = from[(int64_t)jobs.src[j] * words + k];
    }
}

kac_status kac_cuda_carry(kac_device *dev, const kac_jobs *jobs, int32_t bytes,
                          const void *from, void *to)
{
    KAC_REQUIRE(bytes > 0 && bytes % 4 == 0);
    return KAC_LAUNCH(dev, carry, kac_blocks((int64_t)jobs->capacity * (bytes / 4)),
                      KAC_THREADS, 0, *jobs, bytes / 4, (const uint32_t *)from, (uint32_t *)to);
}

KAC_KERNEL learn(KAC_ARGS kac_memo memo, KAC_ARGS kac_fresh fresh, int32_t first, int32_t batch,
                 const float *terms)
{
    int64_t n = (int64_t)(kac_fresh_end(&fresh, first, batch) - first) * memo.n_terms;
    KAC_EACH (i, n) {
        int64_t e = fresh.entry[first + i / memo.n_terms];
        memo.terms[e * memo.n_terms + i % memo.n_terms] = terms[i];
    }
}

kac_status kac_cuda_learn(kac_device *dev, kac_memo *memo, const kac_fresh *fresh,
                          int32_t first, int32_t batch, const float *terms)
{
    return KAC_LAUNCH(dev, learn, kac_blocks((int64_t)batch * memo->n_terms), KAC_THREADS, 0,
                      *memo, *fresh, first, batch, terms);
}
