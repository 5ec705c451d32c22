/* test_refine.c -- iterative refinement: who goes on, what is masked again, and the law of it
 * all. */
#include <criterion/criterion.h>

#include "on_device.h"
#include "ops.h"
#include "sequences.h"
#include "table_run.h"

/* ---- the operations --------------------------------------------------------------------- */

enum { L = 6, S = 3, STRIDE = 16 };

/* Groups of `each` particles. */
static void make_groups(kac_group *group, int32_t groups, int32_t each, double alpha)
{
    for (int32_t g = 0; g < groups; g++)
        group[g] = (kac_group){.offset = g * each, .count = each, .id = g + 7, .alpha = alpha};
}

/* Objects go on in proportion to exp(strength r / alpha), the slots of a group independently. */
Test(refine, renewing_follows_its_law)
{
    enum { GROUPS = 20000, EACH = 4 };
    static const double reward[EACH] = {0.3, -0.5, 1.1, -HUGE_VAL};
    static kac_group group[GROUPS];
    static double value[GROUPS * EACH];
    static uint64_t weight[GROUPS * EACH];
    static int32_t chosen[GROUPS * EACH];
    kac_clock clock = {.level = 0, .move = 9};
    kac_particles x = {.n = GROUPS * EACH, .value = value};
    double law[EACH * EACH], counts[EACH * EACH] = {0}, sum = 0, p[EACH];

    make_groups(group, GROUPS, EACH, 0.5);
    for (int i = 0; i < GROUPS * EACH; i++)
        value[i] = reward[i % EACH];
    for (int i = 0; i < EACH; i++)
        sum += p[i] = exp(2 * reward[i] / 0.5);
    for (int i = 0; i < EACH * EACH; i++)
        law[i] = p[i / EACH] * p[i % EACH] / sum / sum;
    kac_renew_args a = {.clock = &clock,
                        .groups = group,
                        .n_groups = GROUPS,
                        .seed = 3,
                        .strength = 2,
                        .x = &x,
                        .weight = weight,
                        .chosen = chosen};
    cr_assert_eq(ops()->particles.renew(dev(), &a), KAC_OK);
    for (int g = 0; g < GROUPS; g++) {
        const int32_t *row = chosen + (ptrdiff_t)g * EACH;
        for (int j = 0; j < EACH; j++)
            cr_assert(row[j] >= g * EACH && row[j] < (g + 1) * EACH);
        counts[(row[0] - g * EACH) * EACH + row[3] - g * EACH]++;
    }
    double share = chain_chi_square(law, counts, EACH * EACH);
    cr_expect(share < 1, "chi-square is %.2f of its bound", share);

    for (int i = 0; i < GROUPS * EACH; i++)
        value[i] = -HUGE_VAL;
    cr_assert_eq(ops()->particles.renew(dev(), &a), KAC_OK);
    for (int i = 0; i < GROUPS * EACH; i++)
        cr_assert_eq(chosen[i], i, "where nothing has weight, everyone stays");
}

/* As many sites as asked for, every subset of the free ones as often, the fixed ones never. */
Test(refine, masking_is_uniform_over_subsets)
{
    enum { GROUPS = 5000, EACH = 4, N = GROUPS * EACH, SITES = 2 };
    static const uint8_t fixed[STRIDE] = {S, 1, S, S, S, S};
    static kac_group group[GROUPS];
    static int32_t of[N];
    static uint8_t x[N * STRIDE];
    kac_clock clock = {.level = 0, .move = 4};
    double law[1 << L] = {0}, counts[1 << L] = {0};
    const uint8_t object[STRIDE] = {2, 1, 0, 1, 2, 0};

    make_groups(group, GROUPS, EACH, 1);
    for (int i = 0; i < N; i++) {
        of[i] = i / EACH;
        memcpy(x + (ptrdiff_t)i * STRIDE, object, STRIDE);
    }
    for (int set = 0; set < 1 << L; set++)
        law[set] = __builtin_popcount((unsigned)set) == SITES && (set & 2) == 0 ? 0.1 : 0;
    kac_remask_args a = {.shape = {L, S, STRIDE, 0, 0},
                         .clock = &clock,
                         .groups = group,
                         .group = of,
                         .fixed = fixed,
                         .seed = 5,
                         .n = N,
                         .sites = SITES};
    cr_assert_eq(ops()->masked.remask(dev(), &a, x), KAC_OK);
    for (int i = 0; i < N; i++) {
        const uint8_t *row = x + (ptrdiff_t)i * STRIDE;
        int set = 0;
        for (int l = 0; l < STRIDE; l++) {
            cr_assert(row[l] == object[l] || (l < L && row[l] == S));
            if (l < L && row[l] == S) set |= 1 << l;
        }
        counts[set]++;
    }
    double share = chain_chi_square(law, counts, 1 << L);
    cr_expect(share < 1, "chi-square is %.2f of its bound", share);

    a.sites = L; /* more than are free */
    cr_assert_eq(ops()->masked.remask(dev(), &a, x), KAC_OK);
    for (int i = 0; i < N; i++)
        for (int l = 0; l < L; l++)
            cr_assert_eq(x[i * STRIDE + l], l == 1 ? 1 : S);
}

/* The best of both, distinct ones first, what was there before first on ties. */
Test(refine, the_elite_is_the_best_of_both)
{
    enum { N = 4 };
    _Alignas(16) uint8_t old[2 * N * STRIDE] = {0};
    _Alignas(16) uint8_t new[2 * N * STRIDE] = {0};
    _Alignas(16) uint8_t out[2 * N * STRIDE] = {0};
    double old_value[2 * N] = {5, 3, 3, 1, 0, 0, 0, 0};
    double new_value[2 * N] = {5, 4, 3, 2, 1, 1, 1, 1};
    double value[2 * N], log_w[2 * N], scratch[4 * N];
    int32_t old_eve[2 * N], new_eve[2 * N], eve[2 * N], order[4 * N];
    kac_group group[2];
    make_groups(group, 2, N, 1);
    for (int i = 0; i < 2 * N; i++) {
        old[i * STRIDE] = (uint8_t)(10 + i);
        new[i * STRIDE] = (uint8_t)(20 + i);
        old_eve[i] = i;
        new_eve[i] = 100 + i;
    }
    new[0] = 10;                    /* the best again */
    for (int i = N; i < 2 * N; i++) /* one object only in the second group */
        old[i * STRIDE] = new[i * STRIDE] = (uint8_t)(i == N ? 40 : 41);
    old_value[N] = 7;
    new_value[N] = 7;
    for (int i = N + 1; i < 2 * N; i++)
        old_value[i] = new_value[i] = 6;

    kac_particles past = {
        .n = 2 * N, .stride = STRIDE, .x = old, .value = old_value, .eve = old_eve};
    kac_particles now = {
        .n = 2 * N, .stride = STRIDE, .x = new, .value = new_value, .eve = new_eve};
    kac_particles x = {
        .n = 2 * N, .stride = STRIDE, .x = out, .value = value, .log_w = log_w, .eve = eve};
    kac_elect_args a = {group, 2, &past, &now, scratch, order, &x};
    cr_assert_eq(ops()->particles.elect(dev(), &a), KAC_OK);
    static const int tokens[2 * N] = {10, 21, 11, 12, 40, 41, 40, 41};
    static const int eves[2 * N] = {0, 101, 1, 2, 4, 5, 104, 6};
    static const double values[2 * N] = {5, 4, 3, 3, 7, 6, 7, 6};
    for (int i = 0; i < 2 * N; i++) {
        cr_expect_eq(out[i * STRIDE], tokens[i], "slot %d holds %d", i, out[i * STRIDE]);
        cr_expect_eq(eve[i], eves[i], "slot %d has eve %d", i, eve[i]);
        cr_expect_eq(value[i], values[i]);
    }

    past.n = 0; /* nothing yet: the new ones by value */
    cr_assert_eq(ops()->particles.elect(dev(), &a), KAC_OK);
    for (int i = 0; i < N; i++)
        cr_expect_eq(eve[i], 100 + i);
}

/* Objects of few kinds and values, -infinity too: as a stable sort and a look at all that come
 * before say.  Only what is forbidden has no weight. */
Test(refine, the_elite_of_many_ties)
{
    enum { N = 300, C = 2 * N };
    _Alignas(16) static uint8_t rows[C * STRIDE], out[N * STRIDE];
    static double rows_value[C], value[N], log_w[N], scratch[C];
    static int32_t rows_eve[C], eve[N], order[C], sorted[C], want[C];
    static bool repeated[C];
    static const double values[] = {1, 0.5, -HUGE_VAL};
    uint64_t seed = 4;
    int n = 0, filled = 0;
    kac_group group[1];
    make_groups(group, 1, N, 1);
    for (int c = 0; c < C; c++) {
        int kind = (int)(25 * (chain_random(&seed) + 1));
        rows[c * STRIDE + kind % STRIDE] = (uint8_t)(1 + kind / STRIDE);
        rows_value[c] = values[kind % 3];
        rows_eve[c] = c;
    }
    for (int v = 0; v < 3; v++)
        for (int c = 0; c < C; c++)
            if (rows_value[c] == values[v]) sorted[n++] = c;
    for (int k = 0; k < C; k++)
        for (int j = 0; j < k && !repeated[k]; j++)
            repeated[k] =
                memcmp(rows + sorted[k] * STRIDE, rows + sorted[j] * STRIDE, STRIDE) == 0;
    for (int pass = 0; pass < 2; pass++)
        for (int k = 0; k < C; k++)
            if (repeated[k] == (pass == 1)) want[filled++] = sorted[k];

    kac_particles past = {
        .n = N, .stride = STRIDE, .x = rows, .value = rows_value, .eve = rows_eve};
    kac_particles now = {.n = N,
                         .stride = STRIDE,
                         .x = rows + N * STRIDE,
                         .value = rows_value + N,
                         .eve = rows_eve + N};
    kac_particles x = {
        .n = N, .stride = STRIDE, .x = out, .value = value, .log_w = log_w, .eve = eve};
    kac_elect_args a = {group, 1, &past, &now, scratch, order, &x};
    cr_assert_eq(ops()->particles.elect(dev(), &a), KAC_OK);
    for (int i = 0; i < N; i++) {
        cr_assert_eq(eve[i], want[i], "slot %d has candidate %d, want %d", i, eve[i], want[i]);
        cr_assert_eq(value[i], rows_value[want[i]]);
        cr_assert_eq(log_w[i], value[i] > -HUGE_VAL ? 0 : -HUGE_VAL);
        cr_assert_arr_eq(out + i * STRIDE, rows + want[i] * STRIDE, STRIDE);
    }
}

/* ---- whole runs ------------------------------------------------------------------------- */

static chain c;
static char dir[256];
static const chain_grid grid = {3, false};

static void open_model(void)
{
    chain_make(&c, 3, 4, false, 1);
    cr_assert(table_folder(dir));
    cr_assert_eq(table_write(&c, dir), KAC_OK, "%s", kac_last_error());
}

/* What masking `sites` sites and coming down from `level` makes of a law of objects. */
static void refine_law(int sites, int level, double *law)
{
    static double now[CHAIN_ROWS], next[CHAIN_ROWS];
    static chain_successors y;
    int subsets = 0;
    memset(now, 0, sizeof now);
    for (int set = 0; set < 1 << c.length; set++)
        subsets += __builtin_popcount((unsigned)set) == sites;
    for (int o = 0; o < c.objects; o++)
        for (int set = 0; set < 1 << c.length; set++) {
            if (__builtin_popcount((unsigned)set) != sites) continue;
            int row = 0;
            for (int l = 0; l < c.length; l++)
                row = row * (c.states + 1) +
                      ((set >> l & 1) != 0 ? c.states : chain_letter(&c, o, l));
            now[row] += law[o] / subsets;
        }
    for (; level > 0; level--) {
        memset(next, 0, sizeof next);
        for (int row = 0; row < c.rows; row++) {
            if (now[row] <= 0) continue;
            chain_move(&c, chain_stay(grid, level), row, &y);
            for (int i = 0; i < y.n; i++)
                next[y.row[i]] += now[row] * y.p[i];
        }
        memcpy(now, next, sizeof now);
    }
    memset(law, 0, (size_t)c.objects * sizeof *law);
    for (int row = 0; row < c.rows; row++)
        law[c.filled[row]] += now[row];
}

/* What drawing one of two by exp(strength r / alpha) makes of it. */
static void renew_law(double strength, double *law)
{
    static double out[CHAIN_OBJECTS];
    for (int o = 0; o < c.objects; o++) {
        double w = exp(strength * (double)c.reward[o]), sum = 0;
        for (int other = 0; other < c.objects; other++)
            sum += law[other] * w / (w + exp(strength * (double)c.reward[other]));
        out[o] = 2 * law[o] * sum;
    }
    memcpy(law, out, (size_t)c.objects * sizeof *law);
}

#define PLAIN                                                                                  \
    "sampler.algorithm=rerd sampler.children=1 sampler.value.kind=none "                       \
    "sampler.potential=terminal process.steps=3 sampler.groups=40000 output.trace=off "

static void check_law(const char *settings, const double *law)
{
    double counts[CHAIN_OBJECTS] = {0};
    table_run run = {0};
    cr_assert_eq(table_sample(&c, dir, settings, &run), KAC_OK, "%s", kac_last_error());
    for (int64_t i = 0; i < run.n; i++) /* one of each group: those are independent */
        if (i == 0 || run.group[i] != run.group[i - 1]) counts[run.object[i]]++;
    double share = chain_chi_square(law, counts, c.objects);
    cr_expect(share < 1, "%s: chi-square is %.2f of its bound", settings, share);
    cr_expect(isnan(run.log_weight[0]) && isnan(run.log_evidence), "not properly weighted");
    table_run_free(&run);
}

Test(refine, a_run_follows_its_law)
{
    double law[CHAIN_OBJECTS];
    open_model();
    chain_forward(&c, grid, law);
    check_law(PLAIN "sampler.particles=1 driver.iterations=0", law);
    refine_law(1, 1, law); /* one site of four: level 1 of three has a third masked */
    check_law(PLAIN "sampler.particles=1 driver.iterations=1 driver.fraction=0.3", law);
    refine_law(1, 1, law);
    check_law(PLAIN "sampler.particles=1 driver.iterations=2 driver.fraction=0.3", law);

    chain_forward(&c, grid, law);
    refine_law(3, 2, law);
    check_law(PLAIN "sampler.particles=1 driver.iterations=1 driver.fraction=0.75", law);

    chain_forward(&c, grid, law);
    renew_law(2, law);
    refine_law(1, 1, law);
    check_law(PLAIN "sampler.particles=2 driver.iterations=1 driver.strength=2", law);
    table_folder_remove(dir);
}

/* Steps are counted over all passes, and the first pass is left out where objects are given. */
Test(refine, steps_and_starts)
{
    char path[320], settings[640];
    double law[CHAIN_OBJECTS] = {0};
    table_run run = {0};
    open_model();
    snprintf(path, sizeof path, "%s", table_path(dir, "start").path);
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    fprintf(file, ">first\nAB\nCA\n\n> second\nBBBB\n");
    fclose(file);

    law[table_object("ABC", "ABCA")] = 1; /* group 0 starts from the first */
    refine_law(1, 1, law);
    snprintf(settings, sizeof settings,
             PLAIN "sampler.particles=1 driver.iterations=1 driver.start=%s", path);
    cr_assert_eq(table_sample(&c, dir, settings, &run), KAC_OK, "%s", kac_last_error());
    double counts[2][CHAIN_OBJECTS] = {{0}};
    for (int64_t i = 0; i < run.n; i++)
        counts[run.group[i] % 2][run.object[i]]++;
    cr_expect(chain_chi_square(law, counts[0], c.objects) < 1);
    memset(law, 0, sizeof law);
    law[table_object("ABC", "BBBB")] = 1;
    refine_law(1, 1, law);
    cr_expect(chain_chi_square(law, counts[1], c.objects) < 1);
    table_run_free(&run);

    kac_config *config = NULL;
    kac_run *r = NULL;
    cr_assert_eq(kac_config_create(&config), KAC_OK);
    snprintf(settings, sizeof settings,
             "sampler.algorithm=rerd model.file=%s reward.0.kind=table process.steps=8 "
             "sampler.groups=2 sampler.particles=2 driver.iterations=3 driver.fraction=0.5",
             table_path(dir, "denoiser").path);
    cr_assert_eq(table_configure(config, settings), KAC_OK);
    cr_assert_eq(kac_config_set(config, "reward.0.file", table_path(dir, "reward").path),
                 KAC_OK);
    cr_assert_eq(kac_run_create(config, &r), KAC_OK, "%s", kac_last_error());
    cr_expect_eq(kac_run_steps(r), 8 + 3 * 4);
    kac_run_destroy(r);
    cr_assert_eq(kac_config_set(config, "driver.start", path), KAC_OK);
    cr_assert_eq(kac_run_create(config, &r), KAC_OK, "%s", kac_last_error());
    cr_expect_eq(kac_run_steps(r), 3 * 4);
    kac_run_destroy(r);
    cr_assert_eq(kac_config_set(config, "driver.iterations", "0"), KAC_OK);
    cr_expect_eq(kac_run_create(config, &r), KAC_ERR_INVALID);
    cr_expect_not_null(strstr(kac_last_error(), "driver: 1 passes make 0 steps"));
    cr_assert_eq(kac_config_set(config, "driver.iterations", "500000"), KAC_OK);
    cr_expect_eq(kac_run_create(config, &r), KAC_ERR_INVALID);
    kac_config_destroy(config);
    unlink(path);
    table_folder_remove(dir);
}

/* With the elite no group ever loses its best, and one pass after the other finds better ones. */
Test(refine, the_elite_only_rises)
{
    double least = -HUGE_VAL, first = 0;
    open_model();
    for (int iterations = 0; iterations < 6; iterations++) {
        char settings[512];
        table_run run = {0};
        double lowest = HUGE_VAL, mean = 0;
        snprintf(settings, sizeof settings,
                 "sampler.algorithm=rerd sampler.children=2 process.steps=4 sampler.groups=50 "
                 "sampler.particles=3 driver.elite=on driver.iterations=%d",
                 iterations);
        cr_assert_eq(table_sample(&c, dir, settings, &run), KAC_OK, "%s", kac_last_error());
        for (int64_t i = 0; i < run.n; i++) {
            cr_assert_eq(run.reward[i], (double)c.reward[run.object[i]]);
            lowest = fmin(lowest, run.reward[i]);
            mean += run.reward[i] / (double)run.n;
        }
        cr_expect(lowest >= least, "%d passes: the worst fell from %g to %g", iterations, least,
                  lowest);
        least = lowest;
        if (iterations == 0) first = mean;
        if (iterations == 5) cr_expect_gt(mean, first + 0.1);
        table_run_free(&run);
    }
    table_folder_remove(dir);
}

/* The same bytes for any batch, threads and reuse. */
Test(refine, determinism)
{
    static const char *const rows[] = {
        "sampler.algorithm=rerd sampler.children=3 driver.iterations=3 sampler.particles=4 ",
        "sampler.algorithm=rerd sampler.children=3 driver.iterations=3 sampler.particles=4 "
        "driver.elite=on ",
        "sampler.algorithm=particle_gibbs driver.sweeps=3 driver.burn_in=2 "
        "sampler.particles=4 "};
    static const char *const ways[] = {"", "device.batch=7", "device.threads=3",
                                       "sampler.reuse=off", "device.cache=0 device.batch=5"};
    open_model();
    for (size_t row = 0; row < 3; row++) {
        table_run first = {0};
        for (size_t way = 0; way < 5; way++) {
            char settings[512];
            table_run run = {0};
            snprintf(settings, sizeof settings, "%s process.steps=6 sampler.groups=20 %s",
                     rows[row], ways[way]);
            cr_assert_eq(table_sample(&c, dir, settings, &run), KAC_OK, "%s", kac_last_error());
            if (way > 0) {
                cr_assert_eq(run.n, first.n);
                for (int64_t i = 0; i < run.n; i++)
                    cr_assert_eq(run.object[i], first.object[i], "%s", settings);
                table_run_free(&run);
            } else {
                first = run;
            }
        }
        table_run_free(&first);
    }
    table_folder_remove(dir);
}

/* A budget counts every pass. */
Test(refine, budgets_hold)
{
    static const char *const rows[] = {"sampler.algorithm=rerd sampler.children=3 "
                                       "driver.iterations=4 driver.fraction=0.5",
                                       "sampler.algorithm=particle_gibbs driver.sweeps=3"};
    open_model();
    for (size_t k = 0; k < 2; k++) {
        char settings[512];
        table_run run = {0};
        snprintf(settings, sizeof settings,
                 "%s process.steps=6 sampler.particles=4 sampler.groups=1000 sampler.reuse=off "
                 "budget.denoiser=9000",
                 rows[k]);
        cr_assert_eq(table_sample(&c, dir, settings, &run), KAC_OK, "%s", kac_last_error());
        cr_expect(run.calls < 2 * 9000 && run.calls > 9000, "%s: %lld calls", rows[k],
                  (long long)run.calls);
        table_run_free(&run);
    }
    table_folder_remove(dir);
}

/* ---- sequences -------------------------------------------------------------------------- */

static void check_bytes(const char *text, size_t size, kac_status status, const char *says)
{
    static const kac_sequence_form form = {"ABC", 4, 16};
    char path[] = "/tmp/kac-sequences-XXXXXX";
    uint8_t *rows = NULL;
    int64_t count = 0;
    int fd = mkstemp(path);
    cr_assert(fd >= 0 && write(fd, text, size) == (ssize_t)size);
    close(fd);
    cr_expect_eq(kac_sequences_read(path, &form, &rows, &count), status, "%s", text);
    if (status != KAC_OK)
        cr_expect_not_null(strstr(kac_last_error(), says), "%s: %s", text, kac_last_error());
    if (status == KAC_OK) {
        cr_expect_eq(count, 2);
        cr_expect_eq(memcmp(rows, "\0\1\2\0", 4), 0);
        cr_expect_eq(memcmp(rows + 16, "\1\1\2\2", 4), 0);
    }
    free(rows);
    unlink(path);
}

static void check_sequences(const char *text, kac_status status, const char *says)
{
    check_bytes(text, strlen(text), status, says);
}

Test(refine, sequences_of_a_file)
{
    check_sequences("ABCA\nBBCC\n", KAC_OK, NULL);
    check_sequences("\n ABCA\t\r\n\r\nBBCC", KAC_OK, NULL);
    check_sequences(">a\nABCA\n>b\nBB\nCC\n", KAC_OK, NULL);
    check_sequences(">a\naBca\n>b\nbb\nCC\n", KAC_OK,
                    NULL); /* as soft-masked files have them */
    check_sequences("", KAC_ERR_INVALID, "no sequence in it");
    check_sequences("ABCA\nABC\n", KAC_ERR_INVALID, ":2: a sequence of 3 letters; want 4");
    check_sequences("ABCA\nABCAB\n", KAC_ERR_INVALID, ":2: a sequence of more than 4 letters");
    check_sequences("ABxA\n", KAC_ERR_INVALID, ":1: `x` is no letter of ABC");
    check_sequences(">a\n>b\nABCA\n", KAC_ERR_INVALID, ":1: a sequence of 0 letters");
    check_bytes("ABCA\nBBCC\0B\n", 12, KAC_ERR_INVALID, ":2: a zero byte, so it is no text");
    uint8_t *rows = NULL;
    int64_t count = 0;
    const kac_sequence_form form = {"ABC", 4, 16};
    cr_expect_neq(kac_sequences_read("/nowhere/at/all", &form, &rows, &count), KAC_OK);
}

/* ---- what is refused -------------------------------------------------------------------- */

Test(refine, contradictions)
{
    static const struct {
        const char *settings, *message;
    } cases[] = {
        {"sampler.algorithm=particle_gibbs sampler.particles=1",
         "sampler.particles: driver.kind gibbs needs two or more"},
        {"sampler.algorithm=particle_gibbs sampler.select.group.scheme=tournament",
         "sampler.select.group.scheme: driver.kind gibbs needs multinomial or killing"},
        {"sampler.algorithm=particle_gibbs sampler.select.group.scope=global",
         "sampler.select.group.scope: driver.kind gibbs needs group"},
        {"sampler.algorithm=particle_gibbs sampler.select.group.rule=argmax",
         "sampler.select.group.rule: driver.kind gibbs needs categorical or none"},
        {"sampler.algorithm=particle_gibbs sampler.children=2 "
         "sampler.select.parent.rule=argmax",
         "sampler.select.parent: driver.kind gibbs needs rule categorical and normaliser keep "
         "for several children"},
        {"sampler.algorithm=particle_gibbs sampler.final.kind=weighted "
         "sampler.final.keep=all",
         "sampler.final: driver.kind gibbs needs kind categorical and keep 1"},
        {"sampler.algorithm=particle_gibbs sampler.particles=2 sampler.groups=16777216 "
         "driver.sweeps=128",
         "driver.sweeps: 128 sweeps of 16777216 groups leave more than 2147483647 objects"},
        {"sampler.algorithm=particle_gibbs sampler.funnel=2",
         "sampler.funnel: driver.kind gibbs needs none"},
        {"sampler.algorithm=particle_gibbs driver.burn_in=11",
         "driver.burn_in: 11 is more than driver.sweeps, 10"},
        {"sampler.algorithm=particle_gibbs driver.start=leads.fasta",
         "driver.start: goes with driver.kind refine only"},
        {"sampler.algorithm=rerd sampler.funnel=2 sampler.select.group.rule=argmax",
         "sampler.funnel: driver.kind refine keeps the number of particles"},
        {"sampler.algorithm=rerd sampler.alpha=0",
         "sampler.alpha: 0 is allowed only where every selection is argmax or top_k"},
        {"sampler.algorithm=rerd driver.start=/nowhere/at/all",
         "driver.start: /nowhere/at/all: cannot be read: No such"},
    };
    open_model();
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        table_run run = {0};
        kac_status status = table_sample(&c, dir, cases[k].settings, &run);
        cr_expect_neq(status, KAC_OK, "%s", cases[k].settings);
        cr_expect_eq(strncmp(kac_last_error(), cases[k].message, strlen(cases[k].message)), 0,
                     "%s: %s", cases[k].settings, kac_last_error());
        table_run_free(&run);
    }
    table_folder_remove(dir);
}
