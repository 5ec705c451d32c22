/* test_twins_search.c -- paths and trees: the device's bytes are the CPU's. */
#include "twin_particles.h"

TestSuite(twins_search, .init = need_device);

static const int32_t one = 1;

Test(twins_search, spread_and_path)
{
    for (int32_t test = 0; test < 8; test++) {
        int32_t groups = 1 + 37 * (test % 3), each = 1 + 500 * (test % 4), children = 1 + test;
        ground w = make_ground(&one, 1, 0, (uint64_t)test);
        kac_particles x[TWINS], y[TWINS];
        int32_t *group[TWINS];
        void **table = pair_put(&w, "table", NULL, (size_t)groups * sizeof(kac_group));
        pair_integers(&w, "group", (int64_t)groups * each, 9, group);
        pair_particles(&w, each, 16, x);
        pair_particles(&w, each * children, 16, y);
        ON_BOTH(search.spread(twin(k), groups, each, table[k], group[k]));
        ON_BOTH(search.path(twin(k), &x[k], children, &y[k]));
        ground_equal(&w, test);
        ground_drop(&w);
    }
}

Test(twins_search, prune)
{
    static const int32_t roots[] = {1, 2, 33, 257, 3000, 5}, leaves[] = {1, 3, 31, 8, 2, 100};
    for (int32_t test = 0; test < 18; test++) {
        int32_t groups = 1 + test % 4, n = roots[test % 6], each = leaves[test % 6];
        int32_t keep = test / 6 == 0 ? n : test / 6 == 1 ? 1 : (n + 1) / 2;
        ground w = make_ground(&one, 1, 0, (uint64_t)test);
        double *score[TWINS];
        int32_t *best[TWINS], *chosen[TWINS];
        kac_prune_args a[TWINS];
        pair_numbers(&w, "score", (int64_t)groups * n * each, -HUGE_VAL, score);
        pair_integers(&w, "best", (int64_t)groups * n, 9, best);
        pair_integers(&w, "chosen", (int64_t)groups * keep, 9, chosen);
        for (int k = 0; k < TWINS; k++)
            a[k] = (kac_prune_args){groups, n, each, keep, score[k], best[k], chosen[k]};
        ON_BOTH(search.prune(twin(k), &a[k]));
        ground_equal(&w, test);
        ground_drop(&w);
    }
}

/* ---- trees ------------------------------------------------------------------------------ */

enum { TREES = 35, LEVELS = 6, STAGES = 3, WAVES = 25, CAPACITY = 1 + WAVES * STAGES * 3 };

typedef struct forest {
    ground w;
    int32_t rows;
    kac_trees trees[TWINS];
    kac_tree_args a[TWINS];
    kac_particles x[TWINS], y[TWINS], out[TWINS];
} forest;

static void make_trees(forest *f, int32_t stride)
{
    ground *w = &f->w;
    int64_t nodes = (int64_t)TREES * CAPACITY;
    static const char *const names[] = {"parent", "child",  "sibling", "children",
                                        "depth",  "visits", "entry",   "allowed"};
    int32_t *integer[8][TWINS], *count[TWINS], *root[TWINS];
    double *number[4][TWINS];
    for (int i = 0; i < 8; i++)
        pair_integers(w, names[i], nodes, 9, integer[i]);
    pair_numbers(w, "sum", nodes, 0, number[0]);
    pair_numbers(w, "tree value", nodes, 0, number[1]);
    pair_numbers(w, "low", TREES, 0, number[2]);
    pair_numbers(w, "high", TREES, 0, number[3]);
    pair_integers(w, "count", TREES, 9, count);
    pair_integers(w, "root", TREES, 9, root);
    void **x = pair_put(w, "nodes", NULL, (size_t)nodes * (size_t)stride);
    for (int k = 0; k < TWINS; k++)
        f->trees[k] = (kac_trees){.n = TREES,
                                  .capacity = CAPACITY,
                                  .stride = stride,
                                  .x = x[k],
                                  .parent = integer[0][k],
                                  .child = integer[1][k],
                                  .sibling = integer[2][k],
                                  .children = integer[3][k],
                                  .depth = integer[4][k],
                                  .visits = integer[5][k],
                                  .allowed = integer[7][k],
                                  .sum = number[0][k],
                                  .value = number[1][k],
                                  .entry = integer[6][k],
                                  .count = count[k],
                                  .root = root[k],
                                  .low = number[2][k],
                                  .high = number[3][k]};
}

static forest make_forest(int32_t test)
{
    static const int32_t level[STAGES + 1] = {6, 4, 1, 0};
    static const int32_t depth[LEVELS + 1] = {3, 2, -1, -1, 1, -1, 0};
    int32_t size[TREES], stride = test % 2 ? 16 : 560, each = 1 + test % 3;
    int32_t *at[TWINS], *from[TWINS], *to[TWINS];
    forest f = {0};
    for (int g = 0; g < TREES; g++)
        size[g] = each;
    f.w = make_ground(size, TREES, LEVELS, (uint64_t)test);
    f.rows = TREES * each;
    make_trees(&f, stride);
    pair_particles(&f.w, f.rows, stride, f.x);
    pair_particles(&f.w, f.rows, stride, f.y);
    pair_particles(&f.w, TREES * 5, stride, f.out);
    pair_integers(&f.w, "at", f.rows, 9, at);
    pair_integers(&f.w, "from", f.rows, 9, from);
    pair_integers(&f.w, "to", f.rows, 9, to);
    void **levels = pair_put(&f.w, "level", level, sizeof level);
    void **depths = pair_put(&f.w, "depths", depth, sizeof depth);
    void **idle = pair_put(&f.w, "idle", NULL, 2 * sizeof(int64_t));
    for (int k = 0; k < TWINS; k++)
        f.a[k] = (kac_tree_args){.clock = f.w.clock[k],
                                 .groups = f.w.group[k],
                                 .level = levels[k],
                                 .depth = depths[k],
                                 .stages = STAGES,
                                 .policy = (kac_policy)(test % 2),
                                 .backup = (kac_backup)(test % 3),
                                 .explore = 0.7,
                                 .widening = test % 4 ? 0.3 : 0,
                                 .children = 2,
                                 .each = each,
                                 .ahead = test / 2 % 2,
                                 .keep_entries = test / 4 % 2,
                                 .seed = 77,
                                 .at = at[k],
                                 .from = from[k],
                                 .to = to[k],
                                 .idle = idle[k]};
    return f;
}

/* Random states and entries where propose would have left them, and after it random values. */
static void roll_rows(forest *f)
{
    size_t rows = (size_t)f->rows, bytes = rows * (size_t)f->y[0].stride;
    uint8_t *x = malloc(bytes);
    double *value = malloc(rows * sizeof *value);
    int32_t *entry = malloc(rows * sizeof *entry);
    cr_assert(x != NULL && value != NULL && entry != NULL);
    for (size_t i = 0; i < bytes; i++)
        x[i] = (uint8_t)roll(&f->w.dice, 256);
    for (size_t i = 0; i < rows; i++) {
        value[i] = roll_number(&f->w.dice, -HUGE_VAL);
        entry[i] = (int32_t)roll(&f->w.dice, 5000);
    }
    for (int k = 0; k < TWINS; k++) {
        const kac_memory_ops *op = &twin(k)->ops->memory;
        cr_assert_eq(op->upload(twin(k), f->y[k].x, x, bytes), KAC_OK);
        cr_assert_eq(op->upload(twin(k), f->x[k].value, value, rows * sizeof *value), KAC_OK);
        cr_assert_eq(op->upload(twin(k), f->y[k].entry, entry, rows * sizeof *entry), KAC_OK);
    }
    free(x);
    free(value);
    free(entry);
}

static void set_clock(forest *f, int32_t level, int32_t move)
{
    kac_clock clock = {level, move};
    for (int k = 0; k < TWINS; k++)
        cr_assert_eq(twin(k)->ops->memory.upload(twin(k), f->w.clock[k], &clock, sizeof clock),
                     KAC_OK);
}

/* Every policy, backup, width and kind of row, wave by wave; some roots move on between. */
Test(twins_search, trees)
{
    for (int32_t test = 0; test < 12; test++) {
        forest f = make_forest(test);
        int32_t top = LEVELS;
        for (int k = 0; k < TWINS; k++) {
            f.a[k].trees = &f.trees[k];
            f.a[k].x = &f.x[k];
            f.a[k].y = &f.y[k];
        }
        ON_BOTH(search.plant(twin(k), &f.a[k]));
        for (int32_t wave = 0; wave < WAVES; wave++) {
            set_clock(&f, top, 10 * wave);
            ON_BOTH(search.select(twin(k), &f.a[k]));
            for (int32_t level = top - 1; level >= 0; level--) {
                roll_rows(&f);
                set_clock(&f, level, 10 * wave + LEVELS - level);
                ON_BOTH(search.advance(twin(k), &f.a[k]));
            }
            ON_BOTH(search.backup(twin(k), &f.a[k]));
            if (wave % 9 == 8) ON_BOTH(search.commit(twin(k), &f.a[k]));
            if (wave % 9 == 8) top = wave == 8 ? 4 : 1;
            ON_BOTH(search.draw(twin(k), &f.a[k], 5, &f.out[k]));
            if (wave % 5 == 4) ground_equal(&f.w, 100 * test + wave);
        }
        ground_drop(&f.w);
    }
}
