/* test_revive.c -- on_dead revive: how tries are drawn, counted and kept, and that nothing is
 * asked for groups that have enough.  test_laws.c checks that the evidence is unbiased. */
#include <criterion/criterion.h>

#include "on_device.h"
#include "rng.h"
#include "run.h"
#include "settings.h"
#include "table_run.h"

#define SMC "process.steps=3 sampler.algorithm=smc sampler.alpha=0.7 seed=3 "
#define REVIVE(levels, rounds)                                                                 \
    "sampler.on_dead=revive sampler.revive.levels=" levels " sampler.revive.rounds=" rounds " "
#define RARE "reward.0.weight=1 reward.0.at_least=0.8 " /* one draw in thirteen */

/* ---- the operations --------------------------------------------------------------------- */

enum { GROUPS = 2, EACH = 2, N = GROUPS * EACH, STRIDE = 16, M = 3, LEVEL = 5 };

/* Two groups of two particles, whose tries are marked by number in their first byte. */
typedef struct world {
    kac_clock clock;
    kac_group groups[GROUPS];
    kac_particles set[4]; /* particles, tries, children, kept */
    _Alignas(STRIDE) uint8_t x[4][N * STRIDE];
    double number[4][4][N];
    int32_t entry[4][N], eve[4][N], group[4][N];
    uint64_t weight[N];
    int32_t chosen[N], scratch[N], live;
    int64_t idle[2];
    kac_revive_args a;
} world;

enum { PARTICLES, TRIES, CHILDREN, KEPT };

/* In the device's memory. */
static world *make_world(void)
{
    world *w = ops()->memory.alloc(dev(), sizeof *w);
    cr_assert_not_null(w);
    *w = (world){.clock = {.level = LEVEL, .move = 7}};
    for (int s = 0; s < 4; s++)
        w->set[s] = (kac_particles){.n = N,
                                    .stride = STRIDE,
                                    .x = w->x[s],
                                    .log_w = w->number[s][0],
                                    .bank = w->number[s][1],
                                    .stat = w->number[s][2],
                                    .value = w->number[s][3],
                                    .entry = w->entry[s],
                                    .eve = w->eve[s],
                                    .group = w->group[s]};
    w->set[TRIES].live = &w->live;
    for (int g = 0; g < GROUPS; g++)
        w->groups[g] = (kac_group){.offset = g * EACH, .count = EACH, .id = g, .log_z = 0.5};
    for (int i = 0; i < N; i++) {
        w->x[PARTICLES][i * STRIDE] = (uint8_t)(10 * i);
        w->entry[PARTICLES][i] = 40 + i;
        w->eve[PARTICLES][i] = 90 + i;
        w->set[PARTICLES].bank[i] = i;
    }
    w->a = (kac_revive_args){.clock = &w->clock,
                             .level = LEVEL,
                             .each = EACH,
                             .n_groups = GROUPS,
                             .groups = w->groups,
                             .seed = 1,
                             .x = &w->set[PARTICLES],
                             .tries = &w->set[TRIES],
                             .kept = &w->set[KEPT],
                             .live = &w->live,
                             .idle = w->idle,
                             .asked = LEVEL + 1,
                             .weight = w->weight,
                             .children = M,
                             .chosen = w->chosen,
                             .scratch = w->scratch};
    return w;
}

static void drop_world(world *w)
{
    ops()->memory.release(dev(), w);
}

/* A round whose tries have these log-weights, and are marked from `mark` on. */
static void play_round(world *w, const double *log_w, int mark)
{
    w->clock.level = 0;
    w->clock.move += LEVEL;
    cr_assert_eq(ops()->particles.recruit(dev(), &w->a), KAC_OK);
    for (int q = 0; q < w->live; q++) {
        w->x[CHILDREN][q * STRIDE] = (uint8_t)(mark + q);
        w->set[CHILDREN].log_w[q] = log_w[q];
        w->set[CHILDREN].value[q] = mark + q;
    }
    cr_assert_eq(ops()->particles.enlist(dev(), &w->a, &w->set[CHILDREN]), KAC_OK);
}

Test(revive, tries_are_counted_until_one_more_is_alive)
{
    world *w = make_world();
    w->set[PARTICLES].log_w[0] = log(3);
    w->set[PARTICLES].log_w[3] = -HUGE_VAL; /* so group 1 tries as slot 2 only */

    play_round(w, (double[]){1, -HUGE_VAL, -HUGE_VAL, -HUGE_VAL}, 100);
    cr_expect_eq(w->live, 4);
    cr_expect_eq(w->clock.level, LEVEL);
    for (int q = 2; q < 4; q++) {
        cr_expect_eq(w->eve[TRIES][q], 2);
        cr_expect_eq(w->x[TRIES][q * STRIDE], 20);
        cr_expect_eq(w->entry[TRIES][q], 42);
        cr_expect_eq(w->set[TRIES].bank[q], 2);
        cr_expect_eq(w->set[TRIES].log_w[q], 0, "weights are cashed in");
        cr_expect_eq(w->group[TRIES][q], 1);
    }
    play_round(w, (double[]){2, 3, -HUGE_VAL, 4}, 110); /* group 0: three of four alive */
    cr_expect_eq(w->idle[0], 0);
    int32_t eve = w->eve[TRIES][0];
    play_round(w, (double[]){-HUGE_VAL, -HUGE_VAL}, 120); /* group 1 only */
    cr_expect_eq(w->live, 2);
    cr_expect_eq(w->groups[0].count, 0);
    cr_expect_eq(w->groups[1].offset, 0);
    cr_expect_eq(w->eve[TRIES][0], 2);
    cr_expect_eq(w->entry[TRIES][2], -1, "nothing is known of rows that nobody is");
    cr_expect_eq(w->idle[0], 2 * (LEVEL + 1));
    cr_expect_eq(w->idle[1], 2);

    w->eve[PARTICLES][2] = 77;
    cr_assert_eq(ops()->particles.settle(dev(), &w->a), KAC_OK);
    cr_expect_eq(w->groups[0].tries, 4);
    cr_expect_eq(w->groups[0].alive, 3);
    cr_expect_eq(w->groups[1].tries, 6);
    cr_expect_eq(w->groups[1].alive, 1);
    /* Try 4 made three alive: two of the three before it are kept.  Group 1 had six tries. */
    const double log_w[N] = {1 + log(2 / 3.0), 2 + log(2 / 3.0), 4 + log(2 / 6.0), -HUGE_VAL};
    const int mark[N] = {100, 110, 113, 102};
    for (int i = 0; i < N; i++) {
        if (isfinite(log_w[i]))
            cr_expect_float_eq(w->set[PARTICLES].log_w[i], log_w[i], 1e-14, "slot %d", i);
        else
            cr_expect_eq(w->set[PARTICLES].log_w[i], log_w[i]);
        cr_expect_eq(w->x[PARTICLES][i * STRIDE], mark[i], "slot %d: %d", i,
                     w->x[PARTICLES][i * STRIDE]);
        cr_expect_eq(w->set[PARTICLES].value[i], mark[i]);
    }
    cr_expect_eq(w->chosen[1], M * eve);
    cr_expect_eq(w->eve[PARTICLES][1], 90 + eve);
    cr_expect_eq(w->chosen[2], M * 2);
    cr_expect_eq(w->eve[PARTICLES][2], 77);
    cr_expect_float_eq(w->groups[0].log_z, 0.5 + log(2), 1e-10);
    cr_expect_float_eq(w->groups[1].log_z, 0.5 + log(0.5), 1e-10);
    cr_expect_float_eq(w->groups[1].ess, 0.5, 1e-6);
    for (int g = 0; g < GROUPS; g++) {
        cr_expect_eq(w->groups[g].offset, g * EACH);
        cr_expect_eq(w->groups[g].count, EACH);
        cr_expect_eq(w->groups[g].dead, 0);
        cr_expect_eq(w->groups[g].selected, 1);
    }
    drop_world(w);
}

Test(revive, a_group_without_any_is_dead)
{
    world *w = make_world();
    play_round(w, (double[]){0, 0, -HUGE_VAL, -HUGE_VAL}, 100);
    cr_assert_eq(ops()->particles.settle(dev(), &w->a), KAC_OK);
    cr_expect_eq(w->groups[0].dead, 0);
    cr_expect_eq(w->set[PARTICLES].log_w[0], 0, "two of two tries are two of two");
    cr_expect_eq(w->groups[1].dead, 1);
    cr_expect_eq(w->groups[1].log_z, -HUGE_VAL);
    cr_expect_eq(w->groups[1].ess, 0);
    for (int i = 2; i < 4; i++)
        cr_expect_eq(w->set[PARTICLES].log_w[i], -HUGE_VAL);
    cr_expect_eq(w->x[PARTICLES][2 * STRIDE], 103, "what was forbidden stands in");
    cr_expect_eq(w->x[PARTICLES][3 * STRIDE], 102);
    drop_world(w);
}

Test(revive, particles_are_drawn_by_weight)
{
    world *w = make_world();
    int heavy = 0, rounds = 4000;
    w->set[PARTICLES].log_w[0] = log(3);
    for (int k = 0; k < rounds; k++) {
        play_round(w, (double[]){-HUGE_VAL, -HUGE_VAL, -HUGE_VAL, -HUGE_VAL}, 0);
        for (int q = 0; q < EACH; q++)
            heavy += w->eve[TRIES][q] == 0;
    }
    double n = rounds * EACH, sd = sqrt(n * 0.75 * 0.25);
    cr_expect(fabs(heavy - 0.75 * n) < 5 * sd, "%d of %g", heavy, n);
    drop_world(w);
}

/* ---- runs ------------------------------------------------------------------------------- */

static chain model;
static char dir[256];

static void write_model(void)
{
    chain_make(&model, 3, 4, false, 1);
    cr_assert(table_folder(dir));
    cr_assert_eq(table_write(&model, dir), KAC_OK, "%s", kac_last_error());
}

static void remove_model(void)
{
    table_folder_remove(dir);
}

static table_run sample(const char *settings, const char *more)
{
    table_run run = {0};
    char text[1024];
    snprintf(text, sizeof text, "%s %s", settings, more);
    cr_assert_eq(table_sample(&model, dir, text, &run), KAC_OK, "%s: %s", text,
                 kac_last_error());
    return run;
}

static int dead_groups(const table_run *run)
{
    int dead = 0;
    for (int64_t i = 0; i < run->n; i++)
        dead += run->log_weight[i] == -HUGE_VAL && run->slot[i] % 3 == 0;
    return dead;
}

Test(revive, far_fewer_groups_die, .init = write_model, .fini = remove_model)
{
    static const char *const ways[] = {"sampler.on_dead=freeze", REVIVE("1", "32"),
                                       REVIVE("2", "32"), REVIVE("3", "32")};
    int dead[4];
    for (int k = 0; k < 4; k++) {
        table_run run = sample(SMC RARE "sampler.groups=1000 sampler.particles=3", ways[k]);
        dead[k] = dead_groups(&run);
        table_run_free(&run);
    }
    cr_expect_gt(dead[0], 300);
    cr_expect_lt(dead[2], dead[1], "%d and %d: the more levels, the more there is to try",
                 dead[2], dead[1]);
    cr_expect_lt(4 * dead[2], dead[0], "%d of %d", dead[2], dead[0]);
    cr_expect_lt(100 * dead[3], dead[0], "%d of %d", dead[3], dead[0]);
}

Test(revive, groups_that_have_enough_ask_nothing, .init = write_model, .fini = remove_model)
{
    const char *settings = SMC "sampler.groups=50 sampler.particles=3 sampler.reuse=off";
    table_run one = sample(settings, REVIVE("2", "1"));
    table_run two = sample(settings, REVIVE("2", "2"));
    table_run many = sample(settings, REVIVE("2", "40"));
    cr_expect_gt(two.calls, one.calls);
    cr_expect_gt(two.asked, one.asked);
    cr_expect_eq(many.calls, two.calls, "everybody is alive: %d and %d calls", (int)many.calls,
                 (int)two.calls);
    cr_expect_eq(many.asked, two.asked, "%d and %d asked", (int)many.asked, (int)two.asked);
    table_run_free(&one);
    table_run_free(&two);
    table_run_free(&many);
}

static void expect_same(const table_run *one, const table_run *two, int64_t n, const char *what)
{
    cr_assert(one->n >= n && two->n >= n, "%s", what);
    for (int64_t i = 0; i < n; i++)
        cr_expect(one->object[i] == two->object[i] && one->slot[i] == two->slot[i] &&
                      one->log_weight[i] == two->log_weight[i],
                  "%s: sample %d", what, (int)i);
}

Test(revive, groups_do_not_depend_on_others, .init = write_model, .fini = remove_model)
{
    const char *settings = SMC RARE REVIVE("2", "16") "sampler.particles=3";
    table_run few = sample(settings, "sampler.groups=5");
    table_run many = sample(settings, "sampler.groups=40");
    expect_same(&few, &many, few.n, "with more groups");
    table_run_free(&few);
    table_run_free(&many);
}

Test(revive, the_same_however_it_is_computed, .init = write_model, .fini = remove_model)
{
    static const char *const ways[] = {"sampler.reuse=off", "device.batch=7",
                                       "device.threads=2", "device.cache=0"};
    const char *settings = SMC RARE REVIVE("2", "8") "sampler.groups=40 sampler.particles=3";
    table_run plain = sample(settings, "");
    for (size_t k = 0; k < sizeof ways / sizeof *ways; k++) {
        table_run other = sample(settings, ways[k]);
        cr_expect_eq(other.n, plain.n);
        expect_same(&plain, &other, plain.n, ways[k]);
        table_run_free(&other);
    }
    table_run_free(&plain);
}

Test(revive, nothing_possible_is_evidence_zero, .init = write_model, .fini = remove_model)
{
    table_run run = sample(
        SMC REVIVE(
            "3",
            "2") "sampler.groups=4 sampler.particles=3 reward.0.weight=1 reward.0.at_least=9",
        "");
    cr_expect_eq(run.n, 12);
    cr_expect_eq(run.log_evidence, -HUGE_VAL);
    cr_expect_eq(dead_groups(&run), 4);
    table_run_free(&run);
}

Test(revive, a_budget_holds, .init = write_model, .fini = remove_model)
{
    table_run run = sample(SMC RARE REVIVE("2", "4") "sampler.groups=40 sampler.particles=3",
                           "sampler.reuse=off budget.denoiser=500");
    /* A group takes 2 x 3 in step 1 and 4 x 3 x 3 in the last; there is no twelfth. */
    cr_expect_eq(run.group[run.n - 1], 500 / 42 - 1);
    cr_expect_leq(run.asked, 500);
    table_run_free(&run);
}

Test(revive, faults_name_the_try, .init = write_model, .fini = remove_model)
{
    table_run run = {0};
    char settings[1024];
    cr_assert_eq(table_write_forbidden(&model, dir, 1), KAC_OK, "%s", kac_last_error());
    snprintf(settings, sizeof settings,
             SMC REVIVE("2", "4") "sampler.groups=40 sampler.particles=3 reward.1.kind=pwm "
                                  "sampler.value.kind=none sampler.potential=terminal "
                                  "reward.1.file=%s",
             table_path(dir, "forbidden").path);
    cr_expect_eq(table_sample(&model, dir, settings, &run), KAC_ERR_NUMERIC);
    cr_expect(strstr(kac_last_error(), "step 2, try ") != NULL, "%s", kac_last_error());
    table_run_free(&run);
}

/* ---- what it goes with ------------------------------------------------------------------ */

static void refused(const char *settings, const char *says)
{
    kac_config *config = NULL;
    kac_settings s;
    cr_assert_eq(kac_config_create(&config), KAC_OK);
    cr_assert_eq(table_configure(config, "model.file=m reward.0.file=e process.steps=16 "
                                         "sampler.algorithm=smc sampler.on_dead=revive"),
                 KAC_OK);
    cr_assert_eq(table_configure(config, settings), KAC_OK, "%s", kac_last_error());
    if (says == NULL) {
        cr_expect_eq(kac_config_settings(config, &s), KAC_OK, "%s", kac_last_error());
    } else {
        cr_expect_eq(kac_config_settings(config, &s), KAC_ERR_INVALID, "%s", settings);
        cr_expect(strstr(kac_last_error(), says) != NULL, "%s: %s", settings, kac_last_error());
    }
    kac_config_destroy(config);
}

Test(revive, refuses_what_it_cannot_do)
{
    refused("", NULL);
    refused("sampler.algorithm=nested", NULL);
    refused("sampler.algorithm=pretrained", NULL);
    refused("sampler.algorithm=svdd_pm",
            "sampler.select: sampler.on_dead revive needs weights");
    refused("sampler.final.kind=top_k", "weights that are proper");
    refused("sampler.algorithm=best_of_n", "weights that are proper");
    refused("sampler.algorithm=particle_gibbs", "driver.kind: sampler.on_dead revive needs");
    refused("sampler.algorithm=tds", "sampler.twist.kind: sampler.on_dead revive needs none");
    refused("sampler.select.group.scope=global", "sampler.select.group.scope");
    refused("sampler.funnel=4", "sampler.funnel: sampler.on_dead revive needs none");
    refused("sampler.revive.levels=17", "17 are more than process.steps, 16");
    refused("sampler.revive.levels=16", NULL);
    refused("sampler.revive.levels=16 sampler.revive.rounds=65535", "make 1048576 moves");
    refused("process.kind=gaussian", NULL);
    refused("process.kind=gaussian process.steps=4", NULL);
    refused("process.kind=graph process.steps=4", NULL);
    refused("process.kind=gaussian process.steps=1",
            "process.steps: sampler.on_dead revive needs 2");
    refused("process.kind=gaussian sampler.revive.levels=1", "moves that draw something");
    refused("process.kind=gaussian process.anneal=2",
            "process.anneal: sampler.on_dead revive needs 1");
    refused("process.kind=gaussian process.eta=0", "moves that draw something");
}

Test(revive, levels_are_an_eighth_of_the_steps)
{
    const struct {
        const char *steps, *kind;
        int64_t levels;
    } cases[] = {{"1", "masked", 1},    {"8", "masked", 1},   {"9", "masked", 2},
                 {"128", "masked", 16}, {"8", "gaussian", 2}, {"17", "gaussian", 3},
                 {"8", "graph", 2},     {"128", "graph", 16}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        kac_config *config = NULL;
        kac_settings s;
        cr_assert_eq(kac_config_create(&config), KAC_OK);
        cr_assert_eq(table_configure(config, "model.file=m reward.0.file=e"), KAC_OK);
        cr_assert_eq(kac_config_set(config, "process.steps", cases[k].steps), KAC_OK);
        cr_assert_eq(kac_config_set(config, "process.kind", cases[k].kind), KAC_OK);
        cr_assert_eq(kac_config_settings(config, &s), KAC_OK, "%s", kac_last_error());
        cr_expect_eq(s.sampler.revive_levels, cases[k].levels, "%s", cases[k].steps);
        kac_config_destroy(config);
    }
}
