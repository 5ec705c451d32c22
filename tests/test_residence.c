/* test_residence.c -- where the slots of a pool that ranks share are held, and what travels. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "residence.h"
#include "rng.h"

enum { MOST = 8192 };

static uint32_t number(uint32_t test, uint32_t i, uint32_t below)
{
    kac_key key = {.seed = 5, .group = test, .particle = i};
    return (uint32_t)kac_below(kac_draw(key, KAC_DRAW_GROUP, 0), 0, below);
}

/* Quotas, rows in the order of the slots, and a state for every slot: the member had it, or is sent
 * it once. */
static void expect_settled(const kac_residence *r, const int32_t *chosen)
{
    int32_t rows[16] = {0}, arrivals = 0, foreign = 0;
    static int32_t filled[MOST];
    memset(filled, 0, sizeof filled);
    for (int32_t i = 0; i < r->n; i++) {
        cr_assert(r->home[i] >= 0 && r->home[i] < r->members);
        cr_assert_eq(r->row[i], rows[r->home[i]]++, "slot %d", i);
        foreign += r->old_home[chosen[i] / r->children] != r->home[i];
    }
    for (int32_t q = 0; q < r->members; q++)
        cr_assert_eq(rows[q], kac_residence_quota(r->n, r->members, q), "member %d", q);
    for (int32_t k = 0; k < r->sendings; k++) {
        const kac_sending *s = &r->sending[k];
        cr_assert_eq(s->from, r->old_home[s->child / r->children]);
        cr_assert(s->to != s->from && s->copies > 0);
        for (int32_t c = s->first; c < s->first + s->copies; c++) {
            int32_t slot = r->order[c];
            cr_assert_eq(chosen[slot], s->child);
            cr_assert_eq(r->home[slot], s->to);
            cr_assert_eq(filled[slot]++, 0, "slot %d is filled twice", slot);
            arrivals++;
        }
        for (int32_t j = 0; j < k; j++)
            cr_assert(r->sending[j].child != s->child || r->sending[j].to != s->to,
                      "a state goes once to a member");
    }
    cr_assert_eq(arrivals, foreign, "every slot whose state is elsewhere is filled");
}

static void expect_rounds(const kac_residence *r)
{
    for (int32_t round = 0, k = 0; round < r->rounds; round++) {
        int32_t sent[16] = {0}, got[16] = {0}, some = 0;
        for (; k < r->sendings && r->sending[k].round == round; k++, some++) {
            cr_assert_leq(++sent[r->sending[k].from], r->a_round);
            cr_assert_leq(++got[r->sending[k].to], r->a_round);
        }
        cr_assert_gt(some, 0);
        cr_assert(round < r->rounds - 1 || k == r->sendings);
    }
}

/* A state stays where it is while there is room: nobody has room for its own and gets others. */
static void expect_staying(const kac_residence *r, const int32_t *chosen)
{
    int32_t own[16] = {0}, comes[16] = {0}, leaves[16] = {0};
    for (int32_t i = 0; i < r->n; i++) {
        int32_t from = r->old_home[chosen[i] / r->children];
        own[from]++;
        comes[r->home[i]] += r->home[i] != from;
        leaves[from] += r->home[i] != from;
    }
    for (int32_t q = 0; q < r->members; q++) {
        int32_t over = own[q] - kac_residence_quota(r->n, r->members, q);
        cr_assert_eq(leaves[q], over > 0 ? over : 0, "member %d", q);
        cr_assert_eq(comes[q], over < 0 ? -over : 0, "member %d", q);
    }
}

/* Offspring of n slots: multinomial with weights of such a spread that 1 in `spread` has most. */
static void draw(uint32_t test, int32_t n, int32_t children, uint32_t spread, int32_t *chosen)
{
    for (int32_t i = 0; i < n; i++) {
        uint32_t parent = number(test, (uint32_t)i, (uint32_t)n);
        if (number(test, (uint32_t)(n + i), 4) > 0) parent -= parent % spread;
        chosen[i] = (int32_t)(parent * (uint32_t)children +
                              number(test, (uint32_t)(2 * n + i), (uint32_t)children));
    }
}

Test(residence, every_slot_has_a_place_and_its_state)
{
    static int32_t chosen[MOST];
    for (uint32_t test = 0; test < 60; test++) {
        int32_t members = 2 + (int32_t)test % 7, children = 1 + (int32_t)test % 3;
        int32_t n = members + (int32_t)number(test, 0, test % 2 == 0 ? 20 : 400);
        kac_residence r;
        cr_assert_eq(kac_residence_open(members, n, children, 1 + (int32_t)test % 5, &r),
                     KAC_OK);
        for (uint32_t step = 0; step < 4; step++) {
            draw(4 * test + step, n, children, 1 + 3 * step, chosen);
            if (step == 3 && n > 2 * members) n = n / 2; /* fewer go on */
            kac_residence_settle(&r, chosen, n);
            expect_settled(&r, chosen);
            expect_rounds(&r);
            expect_staying(&r, chosen);
            cr_assert(r.least <= r.sendings && r.sendings <= r.least + members - 1,
                      "%d sendings of %d", r.sendings, r.least);
        }
        kac_residence_close(&r);
    }
}

/* Memory is that of the start. */
Test(residence, with_fewer_slots_nobody_holds_more)
{
    for (int32_t members = 1; members <= 9; members++)
        for (int32_t n = 1; n < 60; n++) {
            int32_t all = 0;
            for (int32_t q = 0; q < members; q++) {
                int32_t quota = kac_residence_quota(n, members, q);
                cr_expect_geq(quota, kac_residence_quota(n - 1, members, q));
                cr_expect(quota == n / members || quota == (n + members - 1) / members);
                all += quota;
            }
            cr_expect_eq(all, n);
        }
}

Test(residence, nothing_travels_without_need)
{
    int32_t same[12], all[12];
    kac_residence r;
    cr_assert_eq(kac_residence_open(3, 12, 2, 4, &r), KAC_OK);
    for (int32_t i = 0; i < 12; i++) {
        same[i] = 2 * (i ^ 1) + 1; /* every particle goes on, in its neighbour's slot */
        all[i] = 10;
    }
    kac_residence_settle(&r, same, 12);
    cr_expect_eq(r.sendings, 0);
    kac_residence_settle(&r, all, 12); /* one particle is everybody's parent */
    cr_expect_eq(r.sendings, 2);
    cr_expect_eq(r.least, 2);
    expect_settled(&r, all);
    kac_residence_close(&r);
}

/* Over many selections of many particles not a fifth more travels than any placement must send. */
Test(residence, little_more_travels_than_must)
{
    static int32_t chosen[MOST];
    for (int32_t members = 2; members <= 8; members++) {
        int64_t sent = 0, least = 0;
        kac_residence r;
        cr_assert_eq(kac_residence_open(members, 4096, 1, 4096, &r), KAC_OK);
        for (uint32_t step = 0; step < 12; step++) {
            draw(1000 * (uint32_t)members + step, 4096, 1, 2 + step % 4, chosen);
            kac_residence_settle(&r, chosen, 4096);
            sent += r.sendings;
            least += r.least;
        }
        kac_residence_close(&r);
        cr_expect_leq(5 * sent, 6 * least, "%d members: %lld of %lld", members, (long long)sent,
                      (long long)least);
    }
}
