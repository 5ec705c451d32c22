/* test_masked.c -- the masked process: laws of children and completions, and what is invariant.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "exact_chain.h"
#include "fault.h"
#include "masked.h"
#include "on_device.h"
#include "ops.h"

enum { L = 3, S = 3, STRIDE = 16 };
static const kac_shape shape = {L, S, STRIDE, 0, 0};

/* Logits of the one evaluation that most tests have; the last letter of site 1 is impossible.
 */
static const float logits[L][S] = {
    {0.5f, -1.25f, 2.0f}, {1.0f, 0.0f, -INFINITY}, {-3.0f, -3.0f, -2.0f}};

/* Particles in groups of equal size, all in the state `start` with entry 0. */
typedef struct world {
    kac_clock clock;
    kac_level levels[3];
    kac_group *groups;
    kac_particles x, y;
    kac_memo memo;
    kac_fresh fresh;
    kac_fault fault;
    int32_t count; /* fresh entries */
    kac_propose_args propose;
    kac_complete_args complete;
} world;

static void *zeros(int64_t n, size_t size)
{
    void *ptr = ops()->memory.alloc(dev(), (size_t)n * size);
    cr_assert_not_null(ptr);
    return ptr;
}

static void make_world(world *w, const uint8_t *start, int32_t groups, int32_t each,
                       int32_t children)
{
    enum { ENTRIES = 8 };
    int32_t n = groups * each;
    *w = (world){.clock = {.level = 1, .move = 3}};
    w->groups = zeros(groups, sizeof *w->groups);
    w->x = (kac_particles){.n = n,
                           .stride = STRIDE,
                           .x = zeros(n, STRIDE),
                           .entry = zeros(n, sizeof(int32_t)),
                           .group = zeros(n, sizeof(int32_t))};
    w->y = (kac_particles){.n = n * children,
                           .stride = STRIDE,
                           .x = zeros((int64_t)n * children, STRIDE),
                           .ratio = zeros((int64_t)n * children, sizeof(double)),
                           .entry = zeros((int64_t)n * children, sizeof(int32_t))};
    w->memo = (kac_memo){.capacity = ENTRIES,
                         .slots = ENTRIES,
                         .slot_floats = L * S,
                         .slot = zeros(ENTRIES, sizeof(int32_t)),
                         .order = zeros(ENTRIES, sizeof(int32_t)),
                         .logits = zeros(ENTRIES, sizeof logits)};
    w->fresh = (kac_fresh){zeros(n, sizeof(int32_t)), zeros(n, sizeof(int32_t)), &w->count, n};
    for (int32_t e = 0; e < ENTRIES; e++) {
        w->memo.slot[e] = ENTRIES - 1 - e;
        w->memo.order[e] = -1;
        memcpy(w->memo.logits + (ptrdiff_t)e * L * S, logits, sizeof logits);
    }
    for (int32_t i = 0; i < n; i++) {
        memcpy(w->x.x + (ptrdiff_t)i * STRIDE, start, L);
        w->x.group[i] = i / each;
    }
    for (int32_t g = 0; g < groups; g++)
        w->groups[g] =
            (kac_group){.offset = g * each, .count = each, .id = g, .alpha = 1, .lambda = 1};
    w->levels[2].reveal = UINT64_C(1) << 31;
    w->propose = (kac_propose_args){.shape = shape,
                                    .levels = w->levels,
                                    .clock = &w->clock,
                                    .groups = w->groups,
                                    .x = &w->x,
                                    .memo = &w->memo,
                                    .seed = 7,
                                    .children = children,
                                    .temperature = 1,
                                    .keep_entries = 1,
                                    .fault = &w->fault,
                                    .y = &w->y};
    w->complete = (kac_complete_args){.shape = shape,
                                      .clock = &w->clock,
                                      .groups = w->groups,
                                      .x = w->x.x,
                                      .entry = w->x.entry,
                                      .group = w->x.group,
                                      .memo = &w->memo,
                                      .fresh = &w->fresh,
                                      .fault = &w->fault,
                                      .seed = 7,
                                      .n = n,
                                      .batch = n,
                                      .children = 1,
                                      .samples = 1,
                                      .temperature = 1};
}

static void drop_world(world *w)
{
    void *all[] = {w->groups,     w->x.x,         w->x.entry,   w->x.group,
                   w->y.x,        w->y.ratio,     w->y.entry,   w->memo.slot,
                   w->memo.order, w->memo.logits, w->fresh.src, w->fresh.entry};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        ops()->memory.release(dev(), all[i]);
}

static void propose(world *w)
{
    cr_assert_eq(ops()->masked.propose(dev(), &w->propose), KAC_OK, "%s", kac_last_error());
}

static const uint8_t *child(const world *w, int32_t c)
{
    return w->y.x + (ptrdiff_t)c * STRIDE;
}

/* ---- scalar maths -------------------------------------------------------------------------
 */

Test(masked_site, weights_are_floors_of_exponentials)
{
    cr_expect_eq(kac_token_weight(2, 2, 0.3f), 1u << 26);
    cr_expect_eq(kac_token_weight(-INFINITY, 2, 1), 0);
    cr_expect_eq(kac_token_weight(-1000, 2, 1), 0);
    for (int k = 0; k < 46; k++) {
        float x = -0.37f * (float)k;
        double want = exp((double)x / 0.5) * 0x1p26;
        cr_expect_leq(fabs(kac_token_weight(x + 4, 4, 0.5f) - want), 1 + 1e-6 * want * 20);
    }
    uint32_t c[S];
    const float bad[4][S] = {
        {0, NAN, 1}, {NAN, 0, 1}, {-INFINITY, -INFINITY, -INFINITY}, {0, INFINITY, -1}};
    for (int k = 0; k < 4; k++)
        cr_expect_eq(kac_token_sums(bad[k], S, 1, c), 0, "case %d", k);
    cr_expect_eq(kac_token_sums(logits[1], S, 1, c), c[1]);
    cr_expect_eq(c[0], 1u << 26);
    cr_expect_eq(c[2], c[1]);
}

/* Every value of the uniform, for small sums: token k has exactly its weight. */
Test(masked_site, tokens_have_their_weights)
{
    const uint32_t c[4] = {3, 3, 8, 10};
    int hits[4] = {0};
    for (uint32_t u = 0; u < 10; u++) {
        uint64_t word = UINT64_MAX / 10 * u + 1000; /* inside the u-th tenth */
        kac_u32x4 draw = {{~0u, ~0u, (uint32_t)(word >> 32), (uint32_t)word}};
        hits[kac_token(c, draw, 4)]++;
    }
    cr_expect(hits[0] == 3 && hits[1] == 0 && hits[2] == 5 && hits[3] == 2);
    kac_u32x4 last = {{0, 0, ~0u, ~0u}};
    const uint32_t tail[3] = {5, 9, 9};
    cr_expect_eq(kac_token(tail, last, 3), 1, "weight zero at the end is never drawn");
}

Test(masked_site, best_is_the_first_of_equals)
{
    cr_expect_eq(kac_token_best((const float[]){1, 2, 2}, 3), 1);
    cr_expect_eq(kac_token_best((const float[]){NAN, -3, -2}, 3), 2);
    cr_expect_eq(kac_token_best((const float[]){-5, NAN, -7}, 3), 0);
    cr_expect_eq(kac_token_best((const float[]){-INFINITY, -INFINITY}, 2), 0);
}

/* ---- children -----------------------------------------------------------------------------
 */

Test(masked, start_and_tick)
{
    uint8_t x[4][STRIDE];
    kac_clock clock = {.level = 5, .move = 0};
    kac_start_args start_args = {.shape = shape, .n = 4};
    memset(x, 9, sizeof x);
    cr_assert_eq(ops()->masked.start(dev(), &start_args, x[0]), KAC_OK);
    for (int i = 0; i < 4; i++)
        for (int l = 0; l < STRIDE; l++)
            cr_expect_eq(x[i][l], l < L ? S : 0);
    cr_assert_eq(ops()->particles.tick(dev(), &clock), KAC_OK);
    cr_expect(clock.level == 4 && clock.move == 1);
}

/* Probability of token k at site l, by libm. */
static double site_law(int l, int k, double temperature)
{
    double sum = 0;
    for (int j = 0; j < S; j++)
        sum += exp((double)logits[l][j] / temperature);
    return exp((double)logits[l][k] / temperature) / sum;
}

/* From ?1? both sites are revealed by q' ~ q exp(scale tilt) over the letters allowed: the tokens
 * follow q', and the ratio is log q - log q', so that exp(ratio) has mean P_q(allowed). */
static void check_twist(const float *tilt, double scale, const uint32_t *allowed)
{
    enum { CHILDREN = 4096 };
    double count[S][S] = {{0}}, law[2][S], mass = 1, mean = 0;
    world w;
    make_world(&w, (const uint8_t[L]){S, 1, S}, 1, 4, CHILDREN);
    w.levels[2].reveal = UINT64_C(1) << 32;
    w.groups[0].alpha = 0.5;
    w.propose.twist = (kac_twist){tilt, w.x.group, allowed, scale};
    propose(&w);
    for (int side = 0; side < 2; side++) {
        double sum = 0, kept = 0;
        for (int k = 0; k < S; k++) {
            double t = tilt != NULL && isfinite(tilt[2 * side * S + k])
                           ? (double)tilt[2 * side * S + k]
                           : 0;
            bool may = allowed == NULL || allowed[2 * side] >> k & 1;
            law[side][k] = may ? site_law(2 * side, k, 1) * exp(scale * t / 0.5) : 0;
            kept += may ? site_law(2 * side, k, 1) : 0;
            sum += law[side][k];
        }
        for (int k = 0; k < S; k++)
            law[side][k] /= sum;
        mass *= kept;
    }
    for (int32_t c = 0; c < w.y.n; c++) {
        const uint8_t *y = child(&w, c);
        double ratio = 0;
        for (int side = 0; side < 2; side++)
            ratio += log(site_law(2 * side, y[2 * side], 1) / law[side][y[2 * side]]);
        cr_assert_float_eq(w.y.ratio[c], ratio, 1e-5, "ratio %g for %g", w.y.ratio[c], ratio);
        count[y[0]][y[2]] += 1;
        mean += exp(w.y.ratio[c]) / w.y.n;
    }
    cr_expect_float_eq(mean, mass, 0.05 * mass, "mean of ratios %g for %g", mean, mass);
    for (int a = 0; a < S; a++)
        for (int b = 0; b < S; b++) {
            double p = law[0][a] * law[1][b], n = w.y.n;
            cr_expect(fabs(count[a][b] - n * p) <= 5 * sqrt(n * p) + 1e-9, "%d %d: %g for %g",
                      a, b, count[a][b], n * p);
        }
    drop_world(&w);
}

Test(masked, a_twist_has_its_ratio)
{
    float tilt[L * S] = {0.3f, -0.4f, 0.2f, 9, 9, 9, -0.5f, 0.1f, NAN};
    uint32_t allowed[L] = {5, 7, 7};
    check_twist(tilt, 1, NULL);
    check_twist(tilt, -0.5, NULL);
    check_twist(NULL, 1, allowed);
    check_twist(tilt, 0.7, allowed);
}

/* Where the denoiser gives no weight to any letter that is allowed, the child has weight zero;
 * a tilt never takes a letter away altogether. */
Test(masked, a_twist_at_its_ends)
{
    float tilt[L * S] = {0, 1e6f, 0, 0, 0, 0, 0, 0, 0};
    uint32_t c[S] = {0}, t[S] = {0};
    const float one[S] = {0, -INFINITY, -INFINITY}, all[S] = {0, 0.5f, 1};
    kac_token_sums(one, S, 1, c);
    cr_expect_eq(kac_twisted_sums(one, c, S, 1, NULL, 1, 6, t), 0);
    cr_expect_gt(kac_twisted_sums(one, c, S, 1, tilt, 1, 7, t), 0);
    cr_expect_eq(kac_share_log(t, S, 0), 0);
    kac_token_sums(all, S, 1, c);
    kac_twisted_sums(all, c, S, 1, tilt, 1, 7, t);
    cr_expect(t[0] == 1 && t[2] == t[1] + 1, "letters of q keep a weight: %u %u %u", t[0], t[1],
              t[2]);
}

/* One-step law from ?1? (the mask is ?) against the enumerated kernel; the reveals of children,
 * sites and particles are independent, so one chi-square over all four cells of both sites
 * does.
 */
static void check_step(double reveal, float temperature)
{
    enum { GROUPS = 50, EACH = 40, CHILDREN = 20, CELLS = (S + 1) * (S + 1) };
    const uint8_t start[L] = {S, 1, S};
    double law[CELLS], counts[CELLS] = {0}, pairs[4] = {0}, pair_law[4];
    world w;
    make_world(&w, start, GROUPS, EACH, CHILDREN);
    w.levels[2].reveal = (uint64_t)(reveal * 0x1p32);
    w.propose.temperature = temperature;
    propose(&w);
    for (int a = 0; a <= S; a++)
        for (int b = 0; b <= S; b++)
            law[a * (S + 1) + b] =
                (a < S ? reveal * site_law(0, a, (double)temperature) : 1 - reveal) *
                (b < S ? reveal * site_law(2, b, (double)temperature) : 1 - reveal);
    for (int32_t c = 0; c < w.y.n; c++) {
        const uint8_t *y = child(&w, c);
        bool same = y[0] == S && y[2] == S;
        cr_assert_eq(y[1], 1);
        for (int l = L; l < STRIDE; l++)
            cr_assert_eq(y[l], 0);
        cr_assert_eq(w.y.entry[c], same ? 0 : -1);
        counts[y[0] * (S + 1) + y[2]]++;
        if (c % 2) pairs[2 * (child(&w, c - 1)[0] == S) + (y[0] == S)]++;
    }
    for (int k = 0; k < 4; k++)
        pair_law[k] = (k & 2 ? 1 - reveal : reveal) * (k & 1 ? 1 - reveal : reveal);
    cr_expect_lt(chain_chi_square(law, counts, CELLS), 1, "reveal %g, temperature %g", reveal,
                 (double)temperature);
    cr_expect_lt(chain_chi_square(pair_law, pairs, 4), 1, "siblings are independent");
    cr_expect_eq(kac_fault_read(w.fault).kind, KAC_FAULT_NONE);
    drop_world(&w);
}

Test(masked, one_step_has_its_law)
{
    check_step(0.5, 1);
    check_step(0.2, 0.6f);
    check_step(0.8, 2.5f);
}

Test(masked, impossible_tokens_never_come)
{
    const uint8_t start[L] = {0, S, 0};
    world w;
    make_world(&w, start, 1, 4000, 2);
    w.levels[2].reveal = UINT64_C(1) << 32;
    propose(&w);
    for (int32_t c = 0; c < w.y.n; c++)
        cr_assert(child(&w, c)[1] < 2, "all sites are revealed, none as the impossible letter");
    drop_world(&w);
}

Test(masked, nothing_to_reveal)
{
    const uint8_t masked[L] = {S, S, S}, done[L] = {0, 2, 1};
    world w;
    for (int keep = 0; keep < 2; keep++) {
        make_world(&w, masked, 1, 3, 2);
        w.levels[2].reveal = 0;
        w.propose.keep_entries = keep;
        propose(&w);
        for (int32_t c = 0; c < 6; c++) {
            cr_expect_eq(memcmp(child(&w, c), w.x.x, STRIDE), 0);
            cr_expect_eq(w.y.entry[c], keep ? 0 : -1);
        }
        drop_world(&w);
    }
    make_world(&w, done, 1, 3, 2);
    for (int32_t i = 0; i < 3; i++) { /* a finished state needs no evaluation at all */
        w.x.entry[i] = i == 0 ? -1 : i;
        w.memo.slot[i] = -1;
    }
    propose(&w);
    for (int32_t c = 0; c < 6; c++) {
        cr_expect_eq(memcmp(child(&w, c), w.x.x, STRIDE), 0);
        cr_expect_eq(w.y.entry[c], w.x.entry[c / 2]);
    }
    drop_world(&w);
}

Test(masked, nan_is_a_fault_where_it_is_used)
{
    const uint8_t start[L] = {S, 1, S};
    for (int threads = 1; threads <= 3; threads += 2) {
        world w;
        set_threads(threads);
        make_world(&w, start, 1, 40, 2);
        w.levels[2].reveal = UINT64_C(1) << 32;
        w.memo.logits[w.memo.slot[0] * L * S + S] =
            NAN; /* site 1 is revealed: nobody reads it */
        propose(&w);
        cr_expect_eq(kac_fault_read(w.fault).kind, KAC_FAULT_NONE);

        w.x.entry[30] = 1;
        w.x.entry[17] = 2;
        w.memo.logits[w.memo.slot[1] * L * S + 2 * S] = NAN;
        for (int k = 0; k < S; k++)
            w.memo.logits[w.memo.slot[2] * L * S + k] = -INFINITY;
        propose(&w);
        cr_expect_eq(kac_fault_read(w.fault).kind, KAC_FAULT_NAN);
        cr_expect_eq(kac_fault_read(w.fault).slot, 17);
        cr_expect_eq(kac_fault_read(w.fault).move, 3);
        cr_expect_eq(kac_fault_read(w.fault).term, -1);
        cr_expect_eq(child(&w, 2 * 17)[0], 0);
        cr_expect_eq(child(&w, 2 * 30)[2], 0);

        w.fault = (kac_fault){0};
        w.levels[2].reveal = 0;
        propose(&w);
        cr_expect_eq(kac_fault_read(w.fault).kind, KAC_FAULT_NONE,
                     "no site is revealed, so none is read");
        drop_world(&w);
    }
}

/* Group 5 of many equals group 5 alone, with one thread or three; other groups differ. */
Test(masked, a_group_does_not_know_its_neighbours)
{
    enum { GROUPS = 9, EACH = 4, CHILDREN = 3, ROWS = EACH * CHILDREN };
    const uint8_t start[L] = {S, S, S};
    world w[3];
    for (int k = 0; k < 3; k++) {
        set_threads(k == 1 ? 3 : 1);
        make_world(&w[k], start, k < 2 ? GROUPS : 1, EACH, CHILDREN);
        if (k == 2) w[k].groups[0].id = 5;
        propose(&w[k]);
    }
    cr_expect_eq(memcmp(w[0].y.x, w[1].y.x, (size_t)w[0].y.n * STRIDE), 0);
    cr_expect_eq(memcmp(child(&w[0], 5 * ROWS), w[2].y.x, ROWS * STRIDE), 0);
    cr_expect_neq(memcmp(child(&w[0], 4 * ROWS), w[2].y.x, ROWS * STRIDE), 0);
    for (int k = 0; k < 3; k++)
        drop_world(&w[k]);
}

/* ---- completions --------------------------------------------------------------------------
 */

/* Six rows; rows 1, 4 and 5 are fresh entries 2, 1 and 3, in that order. */
static void make_fresh(world *w)
{
    static const int32_t entry[6] = {0, 2, 0, 2, 1, 3}, src[3] = {1, 4, 5};
    const uint8_t start[L] = {S, 0, S};
    make_world(w, start, 1, 6, 1);
    memcpy(w->x.entry, entry, sizeof entry);
    w->count = 3;
    for (int32_t q = 0; q < 3; q++) {
        w->fresh.src[q] = src[q];
        w->fresh.entry[q] = entry[src[q]];
        w->memo.order[entry[src[q]]] = q;
    }
    w->memo.logits[w->memo.slot[1] * L * S + 1] = 9; /* entry 1 prefers 1 at site 0 */
    memcpy(w->x.x + 5 * STRIDE, (const uint8_t[]){2, 0, 1}, L);
    w->memo.slot[3] = -1; /* finished: never run */
}

Test(completions, argmax_of_fresh_entries)
{
    const uint8_t want[3][L] = {{2, 0, 2}, {1, 0, 2}, {2, 0, 1}};
    uint8_t out[6][STRIDE];
    world w;
    make_fresh(&w);
    for (int32_t batch = 1; batch <= 4; batch++)
        for (int32_t first = 0; first < 4; first += batch) {
            memset(out, 77, sizeof out);
            w.complete.first = first;
            w.complete.batch = batch;
            cr_assert_eq(ops()->masked.complete(dev(), &w.complete, out[0]), KAC_OK);
            for (int32_t j = 0; j < 4; j++) {
                if (j < batch && first + j < 3)
                    cr_expect_arr_eq(out[j], want[first + j], L);
                else
                    cr_expect_eq(out[j][0], 77, "nothing beyond the list is written");
            }
        }
    drop_world(&w);
}

Test(completions, every_row_at_hand)
{
    const int32_t batch_of[6] = {0, 0, 0, 0, 1, 2}; /* entries that are not fresh: the first */
    uint8_t out[6][STRIDE];
    world w;
    make_fresh(&w);
    w.complete.every_row = 1;
    w.complete.batch = 1;
    for (int32_t first = 0; first < 3; first++) {
        memset(out, 77, sizeof out);
        w.complete.first = first;
        cr_assert_eq(ops()->masked.complete(dev(), &w.complete, out[0]), KAC_OK);
        for (int32_t i = 0; i < 6; i++)
            cr_expect_eq(out[i][0] != 77, batch_of[i] == first, "batch %d, row %d", first, i);
        if (first == 1) cr_expect_eq(out[4][0], 1);
    }
    drop_world(&w);
}

Test(completions, soft_is_the_law_that_is_drawn_from)
{
    float out[6][L][S];
    world w;
    make_fresh(&w);
    w.complete.temperature = 0.7f;
    cr_assert_eq(ops()->masked.soften(dev(), &w.complete, out[0][0]), KAC_OK);
    for (int k = 0; k < S; k++) {
        cr_expect_float_eq(out[0][0][k], site_law(0, k, 0.7), 1e-7);
        cr_expect_float_eq(out[0][2][k], site_law(2, k, 0.7), 1e-7);
        cr_expect_eq(out[0][1][k], k == 0 ? 1 : 0, "revealed sites are certain");
        cr_expect_eq(out[2][0][k], k == 2 ? 1 : 0);
    }
    cr_expect_gt(out[1][0][1], 0.99f);
    drop_world(&w);
}

Test(completions, random_ones_have_their_law)
{
    enum { GROUPS = 30, EACH = 10, CHILDREN = 4, SAMPLES = 25, CELLS = S * S };
    const uint8_t start[L] = {S, 1, S};
    double law[CELLS], counts[CELLS] = {0};
    world w;
    make_world(&w, start, GROUPS, EACH, CHILDREN);
    w.levels[2].reveal = 0;
    propose(&w);
    uint8_t *out = zeros((int64_t)w.y.n * SAMPLES, STRIDE);
    w.complete.x = w.y.x;
    w.complete.entry = w.y.entry;
    w.complete.n = w.y.n;
    w.complete.children = CHILDREN;
    w.complete.samples = SAMPLES;
    w.complete.temperature = 0.8f;
    cr_assert_eq(ops()->masked.imagine(dev(), &w.complete, out), KAC_OK);
    for (int k = 0; k < CELLS; k++)
        law[k] = site_law(0, k / S, 0.8) * site_law(2, k % S, 0.8);
    for (int32_t i = 0; i < w.y.n * SAMPLES; i++) {
        const uint8_t *row = out + (ptrdiff_t)i * STRIDE;
        cr_assert(row[0] < S && row[1] == 1 && row[2] < S && row[L] == 0);
        counts[row[0] * S + row[2]]++;
    }
    cr_expect_lt(chain_chi_square(law, counts, CELLS), 1);

    /* The same in batches, and for one group alone. */
    uint8_t *other = zeros((int64_t)w.y.n * SAMPLES, STRIDE);
    set_threads(3);
    w.complete.first = 1;
    cr_assert_eq(ops()->masked.imagine(dev(), &w.complete, other), KAC_OK);
    cr_expect_eq(other[0], 0, "known rows belong to the first batch");
    w.complete.first = 0;
    cr_assert_eq(ops()->masked.imagine(dev(), &w.complete, other), KAC_OK);
    cr_expect_eq(memcmp(out, other, (size_t)w.y.n * SAMPLES * STRIDE), 0);

    world alone;
    make_world(&alone, start, 1, EACH, CHILDREN);
    alone.groups[0].id = 8;
    alone.complete.x = w.y.x;
    alone.complete.entry = w.y.entry;
    alone.complete.n = EACH * CHILDREN;
    alone.complete.children = CHILDREN;
    alone.complete.samples = SAMPLES;
    alone.complete.temperature = 0.8f;
    cr_assert_eq(ops()->masked.imagine(dev(), &alone.complete, other), KAC_OK);
    size_t bytes = (size_t)EACH * CHILDREN * SAMPLES * STRIDE;
    cr_expect_eq(memcmp(out + 8 * bytes, other, bytes), 0);
    drop_world(&alone);
    ops()->memory.release(dev(), out);
    ops()->memory.release(dev(), other);
    drop_world(&w);
}

/* ---- likelihood ---------------------------------------------------------------------------
 */

Test(likelihood, noise_masks_at_the_rate_of_its_level)
{
    enum { N = 4000, LEVELS = 4 };
    const double rate[LEVELS] = {0, 0.25, 0.5, 1};
    kac_level levels[LEVELS] = {{0}};
    uint8_t *x0 = zeros(N, STRIDE), *x = zeros(N, STRIDE);
    int32_t *id = zeros(N, sizeof *id);
    for (int32_t i = 0; i < N; i++) {
        memcpy(x0 + (ptrdiff_t)i * STRIDE, (const uint8_t[]){0, 1, 2}, L);
        id[i] = i == N - 1 ? 0 : i; /* the last has the identity of the first */
    }
    kac_renoise_args a = {
        .shape = shape, .levels = levels, .x0 = x0, .id = id, .seed = 3, .n = N};
    for (a.level = 0; a.level < LEVELS; a.level++) {
        double masks = 0, p = rate[a.level];
        levels[a.level].mask = p;
        cr_assert_eq(ops()->masked.renoise(dev(), &a, x), KAC_OK);
        for (int32_t i = 0; i < N; i++)
            for (int l = 0; l < STRIDE; l++) {
                uint8_t token = x[(ptrdiff_t)i * STRIDE + l];
                cr_assert(token == (l < L ? l : 0) || (l < L && token == S));
                masks += token == S;
            }
        cr_expect_leq(fabs(masks - p * N * L), 5 * sqrt(p * (1 - p) * N * L));
        cr_expect_eq(memcmp(x, x + (ptrdiff_t)(N - 1) * STRIDE, STRIDE), 0);
    }
    void *all[] = {x0, x, id};
    for (int k = 0; k < 3; k++)
        ops()->memory.release(dev(), all[k]);
}

Test(likelihood, score_sums_log_probabilities)
{
    const uint8_t x0[4][STRIDE] = {{0, 1, 2}, {0, 1, 2}, {2, 2, 0}, {2, 2, 0}};
    const uint8_t x[4][STRIDE] = {{S, 1, S}, {0, 1, 2}, {2, S, 0}, {S, 2, S}};
    const int32_t entry[4] = {0, -1, 0, 0};
    double out[4];
    world w;
    make_world(&w, x0[0], 1, 1, 1);
    kac_renoise_args a = {.shape = shape, .x0 = x0[0], .n = 4};
    cr_assert_eq(ops()->masked.score(dev(), &a, x[0], entry, &w.memo, out), KAC_OK);
    cr_expect_float_eq(out[0], log(site_law(0, 0, 1)) + log(site_law(2, 2, 1)), 1e-14);
    cr_expect_eq(out[1], 0);
    cr_expect_eq(out[2], -HUGE_VAL, "an impossible letter");
    cr_expect_float_eq(out[3], log(site_law(0, 2, 1)) + log(site_law(2, 0, 1)), 1e-14);
    drop_world(&w);
}
