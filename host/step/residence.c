/* residence.c -- who holds which slots, and the states that must travel. */
#include "residence.h"

#include <stdlib.h>
#include <string.h>

int32_t kac_residence_quota(int32_t n, int32_t members, int32_t q)
{
    return n / members + (q < n % members);
}

/* The rows of the slots, in their order. */
static void number_rows(kac_residence *r)
{
    memset(r->sent, 0, (size_t)r->members * sizeof *r->sent);
    for (int32_t i = 0; i < r->n; i++)
        r->row[i] = r->sent[r->home[i]]++;
}

kac_status kac_residence_open(int32_t members, int32_t n, int32_t children, int32_t a_round,
                              kac_residence *out)
{
    size_t slots = (size_t)n, ranks = (size_t)members;
    *out = (kac_residence){.members = members,
                           .children = children,
                           .a_round = a_round,
                           .home = calloc(slots, sizeof *out->home),
                           .row = calloc(slots, sizeof *out->row),
                           .old_home = calloc(slots, sizeof *out->old_home),
                           .old_row = calloc(slots, sizeof *out->old_row),
                           .order = calloc(slots, sizeof *out->order),
                           .sending = calloc(slots, sizeof *out->sending),
                           .copies = calloc(slots, sizeof *out->copies),
                           .excess = calloc(ranks, sizeof *out->excess),
                           .sent = calloc(ranks, sizeof *out->sent),
                           .got = calloc(ranks, sizeof *out->got)};
    if (!out->home || !out->row || !out->old_home || !out->old_row || !out->order ||
        !out->sending || !out->copies || !out->excess || !out->sent || !out->got) {
        kac_residence_close(out);
        return KAC_FAIL(KAC_ERR_NOMEM, "run: no memory for the places of %d particles", n);
    }
    kac_residence_start(out, n);
    return KAC_OK;
}

void kac_residence_start(kac_residence *r, int32_t n)
{
    r->n = n;
    for (int32_t q = 0, i = 0; q < r->members; q++)
        for (int32_t k = kac_residence_quota(n, r->members, q); k > 0; k--)
            r->home[i++] = q;
    number_rows(r);
}

void kac_residence_close(kac_residence *r)
{
    free(r->home);
    free(r->row);
    free(r->old_home);
    free(r->old_row);
    free(r->order);
    free(r->sending);
    free(r->copies);
    free(r->excess);
    free(r->sent);
    free(r->got);
    *r = (kac_residence){0};
}

/* ---- order --------------------------------------------------------------------------------- */

static _Thread_local const int32_t *sorted; /* what qsort compares */

static int by_child(const void *a, const void *b)
{
    int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    return sorted[i] != sorted[j] ? (sorted[i] > sorted[j]) - (sorted[i] < sorted[j])
                                  : (i > j) - (i < j);
}

/* Slots by their children, lower ones first.  Most rules choose in this order already. */
static void put_in_order(kac_residence *r, const int32_t *chosen)
{
    bool ascends = true;
    for (int32_t i = 0; i < r->n; i++) {
        r->order[i] = i;
        ascends = ascends && (i == 0 || chosen[i - 1] <= chosen[i]);
    }
    sorted = chosen;
    if (!ascends) qsort(r->order, (size_t)r->n, sizeof *r->order, by_child);
}

/* More copies first, then the lower child. */
static int by_copies(const void *a, const void *b)
{
    const kac_copies *x = a, *y = b;
    return x->copies != y->copies ? (x->copies < y->copies) - (x->copies > y->copies)
                                  : (x->first > y->first) - (x->first < y->first);
}

static int by_leave(const void *a, const void *b)
{
    const kac_copies *x = a, *y = b;
    return x->leave != y->leave ? (x->leave < y->leave) - (x->leave > y->leave)
                                : (x->first > y->first) - (x->first < y->first);
}

/* ---- what leaves --------------------------------------------------------------------------- */

/* Every slot goes to where its state is; then r->excess, and the states of members that have too
 * many in r->copies, as many as are returned. */
static int32_t stay_at_home(kac_residence *r, const int32_t *chosen)
{
    int32_t states = 0;
    for (int32_t q = 0; q < r->members; q++)
        r->excess[q] = -kac_residence_quota(r->n, r->members, q);
    for (int32_t i = 0; i < r->n; i++) {
        r->home[i] = r->old_home[chosen[i] / r->children];
        r->excess[r->home[i]]++;
    }
    for (int32_t k = 0, end = 0; k < r->n; k = end) {
        int32_t slot = r->order[k];
        while (end < r->n && chosen[r->order[end]] == chosen[slot])
            end++;
        if (r->excess[r->home[slot]] > 0)
            r->copies[states++] =
                (kac_copies){.first = k, .copies = end - k, .member = r->home[slot]};
    }
    qsort(r->copies, (size_t)states, sizeof *r->copies, by_copies);
    return states;
}

/* No member that has too many can do with fewer states than its most copied ones, and none that has
 * room is filled by fewer than the most copied ones of all. */
static int32_t count_least(kac_residence *r, int32_t states)
{
    int32_t leaving = 0, coming = 0;
    for (int32_t k = 0; k < states; k++)
        leaving += r->copies[k].leave > 0;
    for (int32_t q = 0; q < r->members; q++)
        for (int32_t k = 0, room = -r->excess[q]; k < states && room > 0; k++) {
            room -= r->copies[k].copies;
            coming++;
        }
    return leaving > coming ? leaving : coming;
}

/* How many copies of each state leave; *least as kac_residence says. */
static void choose_leaving(kac_residence *r, int32_t states)
{
    memset(r->sent, 0, (size_t)r->members * sizeof *r->sent);
    for (int32_t k = 0; k < states; k++) {
        kac_copies *c = &r->copies[k];
        int32_t left = r->excess[c->member] - r->sent[c->member];
        c->leave = c->copies < left ? c->copies : left;
        r->sent[c->member] += c->leave;
    }
    r->least = count_least(r, states);
}

/* ---- where it goes ------------------------------------------------------------------------- */

/* The member with least room of those that can take all `copies`, or else with most room. */
static int32_t best_fit(const kac_residence *r, int32_t copies)
{
    int32_t best = -1;
    for (int32_t q = 0; q < r->members; q++) {
        int32_t room = -r->excess[q], of_best = best < 0 ? 0 : -r->excess[best];
        bool fits = room >= copies, best_fits = best >= 0 && of_best >= copies;
        if (fits && best_fits ? room < of_best : room > of_best && !best_fits) best = q;
    }
    return best;
}

/* The state's last slots go elsewhere. */
static void send(kac_residence *r, const int32_t *chosen, const kac_copies *c)
{
    int32_t at = c->first + c->copies - c->leave;
    for (int32_t left = c->leave; left > 0;) {
        int32_t to = best_fit(r, left), room = -r->excess[to];
        int32_t some = left < room ? left : room;
        r->sending[r->sendings++] = (kac_sending){.child = chosen[r->order[at]],
                                                  .from = c->member,
                                                  .to = to,
                                                  .first = at,
                                                  .copies = some};
        r->excess[to] += some;
        for (left -= some; some > 0; some--)
            r->home[r->order[at++]] = to;
    }
}

/* A round ends where a member would send or get too many. */
static void divide_rounds(kac_residence *r)
{
    size_t bytes = (size_t)r->members * sizeof *r->sent;
    memset(r->sent, 0, bytes);
    memset(r->got, 0, bytes);
    r->rounds = r->sendings > 0;
    for (int32_t k = 0; k < r->sendings; k++) {
        kac_sending *s = &r->sending[k];
        if (r->sent[s->from] == r->a_round || r->got[s->to] == r->a_round) {
            memset(r->sent, 0, bytes);
            memset(r->got, 0, bytes);
            r->rounds++;
        }
        r->sent[s->from]++;
        r->got[s->to]++;
        s->round = r->rounds - 1;
    }
}

void kac_residence_settle(kac_residence *r, const int32_t *chosen, int32_t n)
{
    int32_t *home = r->old_home, *row = r->old_row;
    r->old_home = r->home;
    r->old_row = r->row;
    r->home = home;
    r->row = row;
    r->n = n;
    r->sendings = 0;
    put_in_order(r, chosen);
    int32_t states = stay_at_home(r, chosen);
    choose_leaving(r, states);
    qsort(r->copies, (size_t)states, sizeof *r->copies, by_leave);
    for (int32_t k = 0; k < states && r->copies[k].leave > 0; k++)
        send(r, chosen, &r->copies[k]);
    divide_rounds(r);
    number_rows(r);
}
