/* span.c -- a pool of groups that several ranks share.
 *
 * States, and the work that networks do on them, are divided: member q of the team has the rows that
 * residence.h gives it.  Columns are not: after the children of all members are valued, the values
 * are gathered, and from there on every member does for the whole pool what one rank would do, in the
 * same order of the slots.  So the numbers cannot depend on how many members there are.  Then
 * states follow their slots: each that leaves goes once to a rank, in rounds of KAC_RANKS_STAGE
 * bytes at most, and is copied there.  What a network has said of it stays behind.
 */
#include <stdlib.h>
#include <string.h>

#include "fault.h"
#include "residence.h"
#include "run.h"

struct kac_span {
    int teams, first, members; /* teams of the run; ranks of this one */
    int me;                    /* number in the team */
    int32_t n, groups;         /* of the pool; at the start */
    kac_residence residence;

    /* on the device: the pool without its states */
    kac_group *group;   /* [groups] */
    kac_particles x, y; /* [n], [n M] */
    int32_t *scratch;   /* [n] */
    double *column;     /* [n M] member by member, row by row */
    kac_jobs in_order;  /* [n] puts what is in that order in that of the slots */
    kac_jobs jobs;      /* [n] */
    uint8_t *out, *in;  /* [a_round][stride] states on their way */

    /* on the host */
    kac_group *host_group;        /* [groups] as of the latest step */
    kac_group *row_group;         /* [rows] */
    int32_t *slot;                /* [rows] of each row */
    int32_t *chosen;              /* [n] */
    int32_t *src, *dst;           /* [n] jobs */
    size_t *out_sizes, *in_sizes; /* [members] of a round */
    int32_t *out_next, *in_next;  /* [members] the next state's place */
    int32_t settled;              /* slots when rows were last named */
    uint64_t fault;               /* number of the fault that is known by its slot */
    kac_travel travel;
};

kac_selected kac_selected_of(kac_run *r)
{
    kac_span *s = r->span;
    if (s == NULL) return (kac_selected){r->group, &r->x, &r->y};
    return (kac_selected){s->group, &s->x, &s->y};
}

int32_t kac_particles_each(const kac_run *r)
{
    return (r->span != NULL ? r->span->x.n : r->n) / kac_groups_here(r);
}

/* ---- memory -------------------------------------------------------------------------------- */

kac_status kac_span_plan(kac_run *r, int teams, int first, int members)
{
    kac_span *s = calloc(1, sizeof *s);
    size_t stride = (size_t)r->shape.stride;
    int32_t n = kac_groups_here(r) * (int32_t)r->set.sampler.particles;
    int32_t a_round = stride < KAC_RANKS_STAGE ? (int32_t)(KAC_RANKS_STAGE / stride) : 1;
    r->span = s; /* closed with the run, whatever comes */
    if (s == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "run: no memory");
    s->teams = teams;
    s->first = first;
    s->members = members;
    s->me = kac_ranks_rank(r->ranks) - first;
    s->groups = kac_groups_here(r);
    s->n = n;
    KAC_TRY(
        kac_residence_open(members, n, r->children, a_round < n ? a_round : n, &s->residence));
    r->groups = kac_residence_quota(n, members, s->me);
    return kac_ranks_team(r->ranks, first, members);
}

void kac_span_close(kac_span *s)
{
    if (s == NULL) return;
    kac_residence_close(&s->residence);
    free(s->host_group);
    free(s->row_group);
    free(s->slot);
    free(s->chosen);
    free(s->src);
    free(s->dst);
    free(s->out_sizes);
    free(s->in_sizes);
    free(s->out_next);
    free(s->in_next);
    free(s);
}

static kac_jobs take_jobs(kac_run *r, int32_t n)
{
    return (kac_jobs){kac_take(r, n, sizeof(int32_t)), kac_take(r, n, sizeof(int32_t)),
                      kac_take(r, 1, sizeof(int32_t)), n};
}

kac_status kac_span_open(kac_run *r)
{
    kac_span *s = r->span;
    size_t n = (size_t)s->n, rows = (size_t)r->n, stride = (size_t)r->shape.stride;
    s->group = kac_take(r, s->groups, sizeof *s->group);
    s->x = kac_take_columns(r, s->n);
    s->y = kac_take_columns(r, s->n * r->children);
    s->scratch = kac_take(r, s->n, sizeof *s->scratch);
    s->column = kac_take(r, (int64_t)s->n * r->children, sizeof *s->column);
    s->in_order = take_jobs(r, s->n);
    s->jobs = take_jobs(r, s->n);
    s->out = kac_take(r, s->residence.a_round, stride);
    s->in = kac_take(r, s->residence.a_round, stride);
    s->host_group = calloc((size_t)s->groups, sizeof *s->host_group);
    s->row_group = calloc(rows, sizeof *s->row_group);
    s->slot = calloc(rows, sizeof *s->slot);
    s->chosen = calloc(n, sizeof *s->chosen);
    s->src = calloc(n, sizeof *s->src);
    s->dst = calloc(n, sizeof *s->dst);
    s->out_sizes = calloc((size_t)s->members, sizeof *s->out_sizes);
    s->in_sizes = calloc((size_t)s->members, sizeof *s->in_sizes);
    s->out_next = calloc((size_t)s->members, sizeof *s->out_next);
    s->in_next = calloc((size_t)s->members, sizeof *s->in_next);
    if (!s->host_group || !s->row_group || !s->slot || !s->chosen || !s->src || !s->dst ||
        !s->out_sizes || !s->in_sizes || !s->out_next || !s->in_next)
        return KAC_FAIL(KAC_ERR_NOMEM, "run: no memory for %d particles", s->n);
    return KAC_OK;
}

/* ---- rows ---------------------------------------------------------------------------------- */

/* The first `count` of s->src and s->dst. */
static kac_status load_jobs(kac_run *r, const kac_jobs *jobs, int32_t count)
{
    const kac_memory_ops *op = &r->dev->ops->memory;
    size_t bytes = (size_t)count * sizeof(int32_t);
    KAC_TRY(op->upload(r->dev, jobs->src, r->span->src, bytes));
    KAC_TRY(op->upload(r->dev, jobs->dst, r->span->dst, bytes));
    return op->upload(r->dev, jobs->count, &count, sizeof count);
}

/* Which slot each row is, as a group of its own: row - offset is the slot's number in its group, and
 * the rest is that group's. */
static kac_status name_rows(kac_run *r)
{
    kac_span *s = r->span;
    const kac_residence *of = &s->residence;
    int32_t each = s->host_group[0].count;
    for (int32_t i = 0; i < of->n; i++) {
        if (of->home[i] != s->me) continue;
        int32_t row = of->row[i];
        const kac_group *group = &s->host_group[i / each];
        s->slot[row] = i;
        s->row_group[row] = *group;
        s->row_group[row].offset = row - (i - group->offset);
    }
    return r->dev->ops->memory.upload(r->dev, r->group, s->row_group,
                                      (size_t)r->n * sizeof *s->row_group);
}

/* Where what members have, one after the other, belongs. */
static kac_status order_rows(kac_run *r)
{
    kac_span *s = r->span;
    const kac_residence *of = &s->residence;
    for (int32_t i = 0; i < of->n; i++) {
        int64_t before = kac_share_begin(of->n, of->members, of->home[i]);
        s->src[i] = (int32_t)before + of->row[i];
        s->dst[i] = i;
    }
    return load_jobs(r, &s->in_order, of->n);
}

kac_status kac_span_start(kac_run *r, const kac_group *host_groups)
{
    kac_span *s = r->span;
    memcpy(s->host_group, host_groups, (size_t)s->groups * sizeof *s->host_group);
    for (int32_t i = 0; i < s->x.n; i++)
        s->dst[i] = i / host_groups[0].count;
    KAC_TRY(r->dev->ops->memory.upload(r->dev, s->x.group, s->dst,
                                       (size_t)s->x.n * sizeof *s->dst));
    s->settled = s->x.n;
    KAC_TRY(order_rows(r));
    return name_rows(r);
}

/* As many as this member's share of the slots. */
static void count_rows(kac_run *r)
{
    const kac_span *s = r->span;
    r->groups = r->n = r->x.n = kac_residence_quota(s->x.n, s->members, s->me);
    r->y.n = r->n * r->children;
}

void kac_span_place(kac_run *r)
{
    kac_residence_start(&r->span->residence, r->span->x.n);
    count_rows(r);
}

kac_status kac_span_resume(kac_run *r)
{
    KAC_TRY(r->dev->ops->memory.download(r->dev, r->host_group, r->span->group,
                                         (size_t)r->span->groups * sizeof *r->host_group));
    return kac_span_start(r, r->host_group);
}

/* ---- columns ------------------------------------------------------------------------------- */

/* A column of this member's children becomes that of all. */
static kac_status gather_column(kac_run *r, const double *mine, double *all)
{
    kac_span *s = r->span;
    size_t of_parent = (size_t)r->children * sizeof *mine;
    int32_t n = s->residence.n;
    for (int q = 0; q < s->members; q++)
        s->in_sizes[q] = (size_t)kac_residence_quota(n, s->members, q) * of_parent;
    s->travel.columns += (int64_t)n * (int64_t)of_parent;
    KAC_TRY(kac_ranks_all_gather(r->ranks, r->dev, mine, s->column, s->in_sizes));
    return r->dev->ops->states.carry(r->dev, &s->in_order, (int32_t)of_parent, s->column, all);
}

kac_status kac_span_weigh(kac_run *r, kac_status status, kac_weigh_args *a)
{
    kac_span *s = r->span;
    kac_status ratio = KAC_OK;
    KAC_TRY(kac_ranks_agree(r->ranks, status, NULL, 0));
    a->groups = s->group;
    a->x = &s->x;
    a->y = &s->y;
    if (a->terms != NULL)
        status = gather_column(r, r->y.value, s->y.value);
    else
        status = r->dev->ops->particles.value(r->dev, a); /* which are zeros */
    if (a->use_ratio) ratio = gather_column(r, r->y.ratio, s->y.ratio);
    return status != KAC_OK ? status : ratio;
}

/* ---- states -------------------------------------------------------------------------------- */

/* A fault of a row is one of its slot, as long as the row is. */
static kac_status name_fault(kac_run *r)
{
    const kac_memory_ops *op = &r->dev->ops->memory;
    kac_span *s = r->span;
    kac_fault fault = {0};
    KAC_TRY(op->download(r->dev, &fault, r->fault, sizeof fault));
    if (fault.number == s->fault) return KAC_OK;
    kac_trouble trouble = kac_fault_read(fault);
    if (trouble.kind == KAC_FAULT_NAN) trouble.slot = s->slot[trouble.slot];
    s->fault = fault.number = kac_fault_number(trouble);
    return op->upload(r->dev, r->fault, &fault, sizeof fault);
}

/* Survivors in every column but their states. */
static kac_status survive(kac_run *r)
{
    const kac_particle_ops *op = &r->dev->ops->particles;
    kac_span *s = r->span;
    int32_t each = r->funnel[r->level - 1];
    if (each > 0) { /* fewer go on */
        s->x.n = s->groups * each;
        s->y.n = s->x.n * r->children;
    }
    KAC_TRY(op->survive(r->dev, &s->y, r->children, r->select.chosen, &s->x, s->scratch));
    if (each == 0) return KAC_OK;
    return op->regroup(r->dev, r->levels, r->clock, s->groups, s->group, s->x.group);
}

/* Who has survived, and where they will be. */
static kac_status settle(kac_run *r)
{
    const kac_memory_ops *op = &r->dev->ops->memory;
    kac_span *s = r->span;
    KAC_TRY(name_fault(r));
    KAC_TRY(survive(r));
    KAC_TRY(
        op->download(r->dev, s->chosen, r->select.chosen, (size_t)s->x.n * sizeof *s->chosen));
    KAC_TRY(op->download(r->dev, s->host_group, s->group,
                         (size_t)s->groups * sizeof *s->host_group));
    kac_residence_settle(&s->residence, s->chosen, s->x.n);
    s->travel.moved += s->residence.sendings;
    s->travel.least += s->residence.least;
    count_rows(r);
    return KAC_OK;
}

/* Row of this member's children where a child is that it had before. */
static int32_t row_of_child(const kac_run *r, int32_t child)
{
    return r->span->residence.old_row[child / r->children] * r->children + child % r->children;
}

/* States that stay, and what is known of them. */
static kac_status keep_states(kac_run *r)
{
    const kac_states_ops *op = &r->dev->ops->states;
    kac_span *s = r->span;
    const kac_residence *of = &s->residence;
    int32_t stay = 0;
    for (int32_t i = 0; i < of->n; i++) {
        if (of->home[i] != s->me || of->old_home[s->chosen[i] / r->children] != s->me) continue;
        s->src[stay] = row_of_child(r, s->chosen[i]);
        s->dst[stay++] = of->row[i];
    }
    KAC_TRY(load_jobs(r, &s->jobs, stay));
    KAC_TRY(op->forget(r->dev, r->x.entry, r->n));
    KAC_TRY(op->carry(r->dev, &s->jobs, sizeof *r->x.entry, r->y.entry, r->x.entry));
    return op->carry(r->dev, &s->jobs, r->shape.stride, r->y.x, r->x.x);
}

/* How many states of sendings first .. end - 1 this member sends to each, and gets of each; and where
 * they begin. */
static void count_states(kac_span *s, int32_t first, int32_t end)
{
    size_t bytes = (size_t)s->members * sizeof(size_t);
    memset(s->out_sizes, 0, bytes);
    memset(s->in_sizes, 0, bytes);
    for (int32_t k = first; k < end; k++) {
        const kac_sending *sending = &s->residence.sending[k];
        if (sending->from == s->me) s->out_sizes[sending->to]++;
        if (sending->to == s->me) s->in_sizes[sending->from]++;
    }
    s->out_next[0] = s->in_next[0] = 0;
    for (int q = 1; q < s->members; q++) {
        s->out_next[q] = s->out_next[q - 1] + (int32_t)s->out_sizes[q - 1];
        s->in_next[q] = s->in_next[q - 1] + (int32_t)s->in_sizes[q - 1];
    }
}

static kac_status pack(kac_run *r, int32_t first, int32_t end)
{
    kac_span *s = r->span;
    int32_t jobs = 0;
    for (int32_t k = first; k < end; k++) {
        const kac_sending *sending = &s->residence.sending[k];
        if (sending->from != s->me) continue;
        s->src[jobs] = row_of_child(r, sending->child);
        s->dst[jobs++] = s->out_next[sending->to]++;
    }
    KAC_TRY(load_jobs(r, &s->jobs, jobs));
    return r->dev->ops->states.carry(r->dev, &s->jobs, r->shape.stride, r->y.x, s->out);
}

/* Every slot that a state fills gets a copy. */
static kac_status unpack(kac_run *r, int32_t first, int32_t end)
{
    kac_span *s = r->span;
    const kac_residence *of = &s->residence;
    int32_t jobs = 0;
    for (int32_t k = first; k < end; k++) {
        const kac_sending *sending = &of->sending[k];
        if (sending->to != s->me) continue;
        int32_t at = s->in_next[sending->from]++;
        for (int32_t c = 0; c < sending->copies; c++) {
            s->src[jobs] = at;
            s->dst[jobs++] = of->row[of->order[sending->first + c]];
        }
    }
    KAC_TRY(load_jobs(r, &s->jobs, jobs));
    return r->dev->ops->states.carry(r->dev, &s->jobs, r->shape.stride, s->in, r->x.x);
}

/* Sendings first .. end - 1, which are a round.  Takes part whatever `status` is. */
static kac_status exchange_states(kac_run *r, kac_status status, int32_t first, int32_t end)
{
    kac_span *s = r->span;
    count_states(s, first, end);
    if (status == KAC_OK) status = pack(r, first, end);
    for (int q = 0; q < s->members; q++) {
        s->out_sizes[q] *= (size_t)r->shape.stride;
        s->in_sizes[q] *= (size_t)r->shape.stride;
    }
    kac_status sent =
        kac_ranks_exchange(r->ranks, r->dev, s->out, s->out_sizes, s->in, s->in_sizes);
    if (status == KAC_OK) status = sent;
    return status == KAC_OK ? unpack(r, first, end) : status;
}

kac_status kac_span_survive(kac_run *r)
{
    kac_span *s = r->span;
    const kac_residence *of = &s->residence;
    double lambda = s->host_group[0].lambda;
    KAC_TRY(kac_ranks_agree(r->ranks, settle(r), NULL, 0));
    kac_status status = keep_states(r);
    for (int32_t first = 0, end = 0; first < of->sendings; first = end) {
        while (end < of->sendings && of->sending[end].round == of->sending[first].round)
            end++;
        status = exchange_states(r, status, first, end);
    }
    KAC_TRY(status);
    size_t bytes = (size_t)of->n * sizeof *of->home;
    if (of->n == s->settled && memcmp(of->home, of->old_home, bytes) == 0 &&
        s->host_group[0].lambda == lambda)
        return KAC_OK; /* every row is the slot that it was */
    s->settled = of->n;
    KAC_TRY(order_rows(r));
    return name_rows(r);
}

/* ---- as one --------------------------------------------------------------------------------- */

/* The rows of rank q at the end. */
static int32_t rows_of(const kac_run *r, int q)
{
    const kac_span *s = r->span;
    int ranks = kac_ranks_size(r->ranks), team = 0, first = 0, end = 0;
    while (end <= q) {
        first = end;
        end = (int)kac_share_begin(ranks, s->teams, ++team);
    }
    int32_t each = s->residence.n / s->groups;
    int32_t n = (r->place[first + 1] - r->place[first]) * each;
    return kac_residence_quota(n, end - first, q - first);
}

kac_status kac_span_gather(const kac_run *r, const void *mine, size_t bytes, void *all)
{
    const kac_span *s = r->span;
    bool leads = kac_ranks_rank(r->ranks) == 0;
    int32_t each = s->residence.n / s->groups;
    size_t n = leads ? (size_t)r->all_groups * (size_t)each : 0, row = bytes / (size_t)each;
    kac_status status = KAC_OK;
    int32_t *own = calloc((size_t)r->n, sizeof *own);
    int32_t *slot = calloc(n + 1, sizeof *slot);
    char *rows = malloc(n * row + 1);
    if (own == NULL || slot == NULL || rows == NULL)
        status = KAC_FAIL(KAC_ERR_NOMEM, "no memory for the particles of all ranks");
    for (int32_t i = 0; i < r->n && own != NULL; i++)
        own[i] = r->first * each + s->slot[i];
    KAC_TRY_DONE(kac_ranks_confer(r->ranks, status));
    KAC_TRY_DONE(kac_gather_rows(r, rows_of, own, sizeof *slot, slot));
    KAC_TRY_DONE(kac_gather_rows(r, rows_of, mine, row, rows));
    for (size_t k = 0; k < n && rows != NULL && slot != NULL; k++)
        memcpy((char *)all + (size_t)slot[k] * row, rows + k * row, row);
done:
    free(own);
    free(slot);
    free(rows);
    return status;
}

kac_status kac_span_scatter(const kac_run *r, const void *all, size_t bytes, void *mine)
{
    const kac_span *s = r->span;
    int32_t n = s->residence.n, each = n / s->groups;
    int64_t first = (int64_t)r->first * each + kac_share_begin(n, s->members, s->me);
    size_t row = bytes / (size_t)each;
    return kac_scatter_bytes(r, all, (size_t)r->all_groups * bytes, (size_t)first * row,
                             (size_t)r->n * row, mine);
}

kac_status kac_span_add_up(kac_run *r)
{
    kac_travel *of = &r->span->travel;
    bool leads = r->span->me == 0; /* what all of a team know counts once */
    int64_t sum[] = {leads ? of->moved : 0, leads ? of->least : 0, of->columns};
    KAC_TRY(kac_ranks_sum(r->ranks, sum, sizeof sum / sizeof *sum));
    *of = (kac_travel){.moved = sum[0], .least = sum[1], .columns = sum[2]};
    return KAC_OK;
}

kac_travel kac_span_travel(const kac_run *r)
{
    return r->span->travel;
}

int kac_span_teams(const kac_run *r)
{
    return r->span->teams;
}
