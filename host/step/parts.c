/* parts.c -- what a run is between two steps, part by part: the parts of all ranks as one, and back.
 *
 * A run names its parts where it takes their memory, and says how ranks share them (run.h).  As
 * one they are those of a process alone: rows in the order of the groups, slots and nodes counted
 * through all of them, calls added up; so a run may go on with another number of ranks.  Of a pool
 * that spans ranks the first of them tells what all know, and each its states.  What a rank happens
 * to know of states and objects is not there: it saves calls, and changes nothing.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "run.h"

/* ---- naming them -------------------------------------------------------------------------- */

void kac_part_add(kac_run *r, const char *owner, const char *name, kac_part part)
{
    assert(r->parts < KAC_PARTS);
    kac_part *p = &r->part[r->parts++];
    *p = part;
    snprintf(p->name, sizeof p->name, "%s%s%s", owner, owner[0] != '\0' ? "." : "", name);
}

void *kac_part_take(kac_run *r, const char *owner, const char *name, kac_part part)
{
    part.data = kac_take(r, part.count, part.size);
    kac_part_add(r, owner, name, part);
    return part.data;
}

void kac_part_add_particles(kac_run *r, const char *owner, const kac_particles *p,
                            const int32_t *in_use)
{
    kac_part_share of_states = r->span != NULL ? KAC_PART_SLOTS : KAC_PART_GROUPS;
    kac_part part = {.count = p->n, .in_use = in_use};
    const struct {
        const char *name;
        void *data;
        size_t size;
        kac_part_share share;
        const int32_t *through;
    } rows[] = {
        {"x", p->x, (size_t)p->stride, of_states, NULL},
        {"log_w", p->log_w, sizeof *p->log_w, KAC_PART_GROUPS, NULL},
        {"bank", p->bank, sizeof *p->bank, KAC_PART_GROUPS, NULL},
        {"stat", p->stat, sizeof *p->stat, KAC_PART_GROUPS, NULL},
        {"value", p->value, sizeof *p->value, KAC_PART_GROUPS, NULL},
        {"eve", p->eve, sizeof *p->eve, KAC_PART_GROUPS, &r->trace.eves_below},
        {"group", p->group, sizeof *p->group, KAC_PART_GROUPS, &r->first_of_pool[r->pools]},
        {"entry", p->entry, sizeof *p->entry, KAC_PART_PRIVATE, NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        part.data = rows[i].data;
        part.size = rows[i].size;
        part.share = rows[i].share;
        part.through = rows[i].through;
        kac_part_add(r, owner, rows[i].name, part);
    }
}

/* ---- one part ----------------------------------------------------------------------------- */

static bool is_alone(const kac_run *r)
{
    return kac_ranks_size(r->ranks) == 1;
}

static bool leads(const kac_run *r)
{
    return kac_ranks_rank(r->ranks) == 0;
}

/* Bytes of a part of this rank, at present. */
static size_t own_bytes(const kac_run *r, const kac_part *p)
{
    return (size_t)(p->share == KAC_PART_SLOTS ? r->n : p->count) * p->size;
}

static bool is_rows(const kac_part *p)
{
    return p->share == KAC_PART_GROUPS || p->share == KAC_PART_SLOTS;
}

size_t kac_part_bytes(const kac_run *r, const kac_part *p)
{
    size_t here = (size_t)p->count * p->size;
    return is_rows(p) ? here / (size_t)kac_groups_here(r) * (size_t)r->all_groups : here;
}

/* Rows of groups come in blocks; those of a block that are in use come first. */
typedef struct blocks {
    size_t count;
    size_t own, whole; /* bytes of one: of this rank, of all */
    size_t group;      /* bytes in use of one group */
} blocks;

static blocks blocks_of(const kac_run *r, const kac_part *p)
{
    size_t count = p->blocks > 0 ? (size_t)p->blocks : 1;
    size_t own = (size_t)p->count * p->size / count, groups = (size_t)kac_groups_here(r);
    size_t used = p->in_use != NULL ? (size_t)*p->in_use * p->size : own;
    return (blocks){.count = count,
                    .own = own,
                    .whole = kac_part_bytes(r, p) / count,
                    .group = used / groups};
}

/* What is not in use has no meaning; as zeros it is the same in every checkpoint. */
static void clear_unused(const kac_run *r, const kac_part *p, char *rows)
{
    blocks b = blocks_of(r, p);
    size_t used = b.group * (size_t)kac_groups_here(r);
    if (!is_rows(p)) return;
    for (size_t k = 0; k < b.count; k++)
        memset(rows + k * b.own + used, 0, b.own - used);
}

/* Where each group of a table begins: they follow each other, and all have as many rows. */
static void place(kac_group *group, int32_t groups, int32_t first)
{
    for (int32_t g = 0; g < groups; g++)
        group[g].offset = (first + g) * group[g].count;
}

/* Numbers that count through the rows of this rank, counted through those of all, or back. */
static void recount(const kac_run *r, const kac_part *p, char *rows, bool back)
{
    int32_t groups = kac_groups_here(r);
    if (p->data == r->select.groups)
        place((kac_group *)(void *)rows, groups, back ? 0 : r->first);
    if (p->through == NULL) return;
    uint32_t before = (uint32_t)r->first * (uint32_t)(*p->through / groups);
    for (int64_t i = 0; i < p->count; i++) {
        int32_t number = 0;
        char *at = rows + (size_t)i * p->size;
        memcpy(&number, at, sizeof number);
        if (number < 0) continue; /* none */
        number = (int32_t)((uint32_t)number + (back ? 0 - before : before));
        memcpy(at, &number, sizeof number);
    }
}

/* Rows that a rank has of those of all, or the other way round. */
static void convert_extent(void *rows, int32_t of, int32_t to)
{
    int32_t n = 0;
    memcpy(&n, rows, sizeof n);
    n = n / of * to;
    memcpy(rows, &n, sizeof n);
}

static kac_status fetch(const kac_run *r, const kac_part *p, void *to)
{
    size_t bytes = own_bytes(r, p);
    if (!p->on_host) return r->dev->ops->memory.download(r->dev, to, p->data, bytes);
    memcpy(to, p->data, bytes);
    return KAC_OK;
}

static kac_status put(const kac_run *r, const kac_part *p, const void *from)
{
    size_t bytes = own_bytes(r, p);
    if (!p->on_host) return r->dev->ops->memory.upload(r->dev, p->data, from, bytes);
    memcpy(p->data, from, bytes);
    return KAC_OK;
}

/* Most bytes that a part of this rank has, which others hear of. */
static size_t most_bytes(const kac_run *r)
{
    size_t most = 1;
    for (int i = 0; i < r->parts; i++) {
        const kac_part *p = &r->part[i];
        if (p->share != KAC_PART_PRIVATE && own_bytes(r, p) > most) most = own_bytes(r, p);
    }
    return most;
}

static kac_status no_memory(void)
{
    return KAC_FAIL(KAC_ERR_NOMEM, "no memory for a checkpoint");
}

/* ---- as one ------------------------------------------------------------------------------- */

void kac_whole_free(const kac_run *r, kac_whole *w)
{
    for (int i = 0; i < r->parts; i++)
        free(w->copy[i]);
}

/* Memory at rank 0 for the parts of all. */
static kac_status take_whole(const kac_run *r, kac_whole *w)
{
    for (int i = 0; i < r->parts && leads(r); i++) {
        const kac_part *p = &r->part[i];
        size_t bytes = kac_part_bytes(r, p);
        w->bytes[i] = p->data;
        if (bytes == 0 || (is_alone(r) ? p->on_host : p->share == KAC_PART_PRIVATE)) continue;
        w->bytes[i] = w->copy[i] = calloc(1, bytes);
        if (w->copy[i] == NULL) return no_memory();
    }
    return KAC_OK;
}

/* Part `p` of a process alone: memory of the host is taken as it is. */
static kac_status copy_part(const kac_run *r, const kac_part *p, void *whole)
{
    if (whole == NULL) return KAC_OK;
    KAC_TRY(fetch(r, p, whole));
    clear_unused(r, p, whole);
    return KAC_OK;
}

/* Part `p` of all ranks, from the `own` bytes of each, into `whole` at rank 0. */
static kac_status gather_part(const kac_run *r, const kac_part *p, char *own, char *whole)
{
    blocks b = blocks_of(r, p);
    switch (p->share) {
    case KAC_PART_SLOTS: return kac_span_gather(r, own, b.group, whole);
    case KAC_PART_GROUPS:
        recount(r, p, own, false);
        for (size_t k = 0; k < b.count; k++)
            KAC_TRY(kac_gather_groups(r, own + k * b.own, b.group,
                                      leads(r) ? whole + k * b.whole : NULL));
        break;
    case KAC_PART_SUM:
        KAC_TRY(kac_ranks_sum(r->ranks, (int64_t *)(void *)own,
                              (int)(own_bytes(r, p) / sizeof(int64_t))));
        if (leads(r)) memcpy(whole, own, own_bytes(r, p));
        break;
    case KAC_PART_ALIKE:
    case KAC_PART_EXTENT:
        if (!leads(r) || whole == NULL) break;
        memcpy(whole, own, own_bytes(r, p));
        if (p->share == KAC_PART_EXTENT)
            convert_extent(whole, kac_groups_here(r), r->all_groups);
        break;
    case KAC_PART_PRIVATE: break;
    }
    return KAC_OK;
}

kac_status kac_parts_gather(const kac_run *r, kac_whole *w)
{
    bool alone = is_alone(r);
    char *own = malloc(alone ? 1 : most_bytes(r));
    kac_status status = own != NULL ? take_whole(r, w) : no_memory(), taken = KAC_OK;
    KAC_TRY_DONE(kac_ranks_confer(r->ranks, status));
    assert(own != NULL); /* or no rank would be here */
    for (int i = 0; i < r->parts; i++) {
        const kac_part *p = &r->part[i];
        if (!alone && p->share == KAC_PART_PRIVATE) continue;
        kac_status fetched = alone ? copy_part(r, p, w->copy[i]) : fetch(r, p, own);
        if (taken == KAC_OK) taken = fetched;
        /* Who has failed takes part, so that nobody waits for it. */
        if (!alone) KAC_TRY_DONE(gather_part(r, p, own, w->copy[i]));
    }
    status = kac_ranks_confer(r->ranks, taken);
done:
    free(own);
    return status;
}

/* ---- and back ----------------------------------------------------------------------------- */

/* Part `p` of all, which rank 0 has as `whole`, into the `own` bytes of each. */
static kac_status scatter_part(const kac_run *r, const kac_part *p, const char *whole,
                               char *own)
{
    blocks b = blocks_of(r, p);
    size_t bytes = own_bytes(r, p);
    memset(own, 0, bytes);
    switch (p->share) {
    case KAC_PART_SLOTS: return kac_span_scatter(r, whole, b.group, own);
    case KAC_PART_GROUPS:
        for (size_t k = 0; k < b.count; k++)
            KAC_TRY(kac_scatter_groups(r, leads(r) ? whole + k * b.whole : NULL, b.group,
                                       own + k * b.own));
        recount(r, p, own, true);
        break;
    case KAC_PART_SUM: /* from now on it is rank 0 that has them */
        if (leads(r)) memcpy(own, whole, bytes);
        break;
    case KAC_PART_ALIKE:
    case KAC_PART_EXTENT:
        if (leads(r) && bytes > 0) memcpy(own, whole, bytes);
        KAC_TRY(kac_ranks_broadcast(r->ranks, own, bytes));
        if (p->share == KAC_PART_EXTENT) convert_extent(own, r->all_groups, kac_groups_here(r));
        break;
    case KAC_PART_PRIVATE: break;
    }
    return KAC_OK;
}

/* One part of this rank; *status is what has failed here so far.  Errors: RANK. */
static kac_status take_part(const kac_run *r, const kac_part *p, const kac_whole *w, char *own,
                            kac_status *status)
{
    const void *from = w->bytes[p - r->part];
    if (p->share == KAC_PART_PRIVATE && !w->privates) return KAC_OK;
    if (!is_alone(r)) {
        KAC_TRY(scatter_part(r, p, from, own));
        from = own;
    }
    kac_status taken = own_bytes(r, p) > 0 ? put(r, p, from) : KAC_OK;
    if (*status == KAC_OK) *status = taken;
    return KAC_OK;
}

kac_status kac_parts_scatter(kac_run *r, const kac_whole *w)
{
    char *own = malloc(is_alone(r) ? 1 : most_bytes(r));
    kac_status status = KAC_OK, taken = KAC_OK;
    KAC_TRY_DONE(kac_ranks_confer(r->ranks, own != NULL ? KAC_OK : no_memory()));
    /* How many rows there are comes first: where the rows are depends on it. */
    for (int i = 0; i < r->parts; i++)
        if (!is_rows(&r->part[i])) KAC_TRY_DONE(take_part(r, &r->part[i], w, own, &taken));
    if (r->span != NULL) kac_span_place(r);
    for (int i = 0; i < r->parts; i++)
        if (is_rows(&r->part[i])) KAC_TRY_DONE(take_part(r, &r->part[i], w, own, &taken));
    if (r->span != NULL && taken == KAC_OK) taken = kac_span_resume(r);
    status = kac_ranks_confer(r->ranks, taken);
done:
    free(own);
    return status;
}
