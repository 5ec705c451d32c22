/* test_twins_process.c -- the processes' operations on the build's device against the CPU's, byte
 * for byte, at awkward sizes. */
#include <math.h>
#include <string.h>

#include "on_device.h"

TestSuite(twins_process, .init = need_device);

enum { T = 4, HELD = 128, OUTPUTS = 8 };
enum { BYTES = 1, FLOATS = 4, DOUBLES = 8 };

/* What states are; pairs are vectors with two denoisers. */
typedef enum world { LETTERS = 1, VECTORS = 2, PAIRS = 4 } world;
enum { ANY_WORLD = LETTERS | VECTORS | PAIRS };

/* Rows 0 .. n - 1 are particles in groups of equal size; all n M rows are asked about, as the
 * children of the particles. */
typedef struct extent {
    int32_t length, states, groups, each, children, samples;
} extent;

/* What an operation has written. */
typedef struct output {
    void *at;
    size_t bytes;
    int width;
} output;

/* The same arrays in the memory of one device. */
typedef struct side {
    kac_device *dev;
    const kac_process_ops *process;
    uint64_t random;
    void *held[HELD];
    output out[OUTPUTS];
    int n_held, n_out;
    bool vectors;
    extent size;
    kac_shape shape;
    int32_t n, rows, floats; /* particles; all rows; floats of a row's estimate */
    kac_level *levels;
    kac_group *groups;
    kac_fault *fault;
    kac_particles x, y;
    kac_memo memo;
    kac_fresh fresh;
    kac_jobs jobs;
    kac_retained retained;
    uint8_t *fixed;
    uint32_t *allowed;
    int32_t *id;
    float *soft, *reward, *input, *tilt, *other;
} side;

/* ---- random numbers and memory ------------------------------------------------------------ */

/* Sebastiano Vigna's splitmix64. */
static uint32_t below(side *s, uint32_t n)
{
    uint64_t z = s->random += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return (uint32_t)((z ^ z >> 31) >> 32) % n;
}

/* About normal, and once in a while something that is no number. */
static float number(side *s, bool odd)
{
    float x = ((float)below(s, 1 << 20) / (1 << 18)) - 2;
    if (odd && below(s, 10) == 0) x = -INFINITY;
    if (odd && below(s, s->vectors ? 50 : 200) == 0) x = NAN;
    return x;
}

static void *keep(side *s, void *ptr)
{
    cr_assert(ptr != NULL && s->n_held < HELD);
    return s->held[s->n_held++] = ptr;
}

/* `host` in the memory of the side. */
static void *place(side *s, const void *host, size_t bytes)
{
    void *ptr = keep(s, s->dev->ops->memory.alloc(s->dev, bytes));
    cr_assert_eq(s->dev->ops->memory.upload(s->dev, ptr, host, bytes), KAC_OK);
    return ptr;
}

/* Rows of `floats` numbers; odd ones are in about half of the rows, so that the others' sums are
 * numbers. */
static float *place_numbers(side *s, int64_t rows, int64_t floats, bool odd)
{
    int64_t n = rows * floats;
    float *host = malloc((size_t)n * sizeof *host);
    cr_assert_not_null(host);
    for (int64_t i = 0; i < rows; i++) {
        bool odd_row = odd && below(s, 2);
        for (int64_t l = 0; l < floats; l++)
            host[i * floats + l] = number(s, odd_row);
    }
    float *ptr = place(s, host, (size_t)n * sizeof *host);
    free(host);
    return ptr;
}

/* Where an operation may write; what it leaves alone is compared too. */
static void *output_of(side *s, size_t bytes, int width)
{
    uint8_t *host = malloc(bytes);
    cr_assert(host != NULL && s->n_out < OUTPUTS);
    memset(host, 0x4d, bytes);
    void *ptr = s->dev->ops->memory.alloc(s->dev, bytes);
    cr_assert_not_null(ptr);
    cr_assert_eq(s->dev->ops->memory.upload(s->dev, ptr, host, bytes), KAC_OK);
    free(host);
    s->out[s->n_out++] = (output){ptr, bytes, width};
    return ptr;
}

/* The fault starts as none. */
static kac_fault *fault_of(side *s)
{
    const kac_fault none = {0};
    kac_fault *fault = output_of(s, sizeof none, BYTES);
    cr_assert_eq(s->dev->ops->memory.upload(s->dev, fault, &none, sizeof none), KAC_OK);
    return fault;
}

/* ---- a world ------------------------------------------------------------------------------ */

static void place_states(side *s)
{
    int32_t stride = s->shape.stride, mask = s->shape.states;
    uint8_t *x = calloc((size_t)s->rows, (size_t)stride);
    uint8_t *path = calloc((size_t)s->size.groups * T, (size_t)stride);
    cr_assert(x != NULL && path != NULL);
    for (int32_t i = 0; i < s->rows; i++) {
        uint32_t masks = below(s, 5); /* of four sites */
        for (int32_t l = 0; l < s->shape.length; l++) {
            uint8_t *token = x + (ptrdiff_t)i * stride + l;
            *token = (uint8_t)(below(s, 4) < masks ? (uint32_t)mask : below(s, (uint32_t)mask));
        }
    }
    for (int32_t g = 0; g < s->size.groups * T; g++)
        for (int32_t l = 0; l < s->shape.length; l++) {
            uint8_t token = x[(ptrdiff_t)(g / T) * s->size.each * stride + l];
            path[(ptrdiff_t)g * stride + l] =
                token == mask ? (uint8_t)below(s, (uint32_t)mask + 1) : token;
        }
    if (s->vectors)
        for (int64_t i = 0; i < (int64_t)s->rows * stride / 4; i++)
            ((float *)(void *)x)[i] = number(s, false);
    s->x.x = place(s, x, (size_t)s->rows * (size_t)stride);
    s->retained =
        (kac_retained){T, place(s, path, (size_t)s->size.groups * T * (size_t)stride), NULL};
    free(x);
    free(path);
}

/* Entries and slots in no order; every third entry is fresh, listed by row. */
static void place_memo(side *s)
{
    int32_t n = s->rows, count = 0, *a = calloc((size_t)n * 5, sizeof *a);
    int32_t *entry = a, *slot = a + n, *order = a + 2 * n, *src = a + 3 * n, *fresh = a + 4 * n;
    cr_assert_not_null(a);
    for (int32_t i = 0; i < n; i++) {
        entry[i] = (int32_t)((int64_t)(i + 1) * 7919 % n); /* 7919 is prime */
        slot[i] = n - 1 - i;
        order[i] = -1;
    }
    for (int32_t i = 0; i < n; i += 3) {
        if (order[entry[i]] >= 0) continue;
        order[entry[i]] = count;
        src[count] = i;
        fresh[count++] = entry[i];
    }
    s->x.entry = place(s, entry, (size_t)n * sizeof *a);
    s->memo = (kac_memo){.capacity = n,
                         .slots = n,
                         .slot_floats = s->floats,
                         .slot = place(s, slot, (size_t)n * sizeof *a),
                         .order = place(s, order, (size_t)n * sizeof *a),
                         .logits = place_numbers(s, n, s->floats, true)};
    s->fresh = (kac_fresh){.src = place(s, src, (size_t)n * sizeof *a),
                           .entry = place(s, fresh, (size_t)n * sizeof *a),
                           .count = place(s, &count, sizeof count),
                           .capacity = n};
    s->jobs = (kac_jobs){s->fresh.src, s->memo.slot, s->fresh.count, n};
    free(a);
}

static void place_groups(side *s)
{
    int32_t each = s->size.each;
    kac_group *groups = calloc((size_t)s->size.groups, sizeof *groups);
    int32_t *group = calloc((size_t)s->rows, sizeof *group), *held = group;
    cr_assert(groups != NULL && group != NULL);
    for (int32_t g = 0; g < s->size.groups; g++) {
        groups[g] = (kac_group){.offset = g * each, .count = each, .id = 3 * g + 1};
        groups[g].alpha = 0.25 + 0.125 * (double)below(s, 8);
        groups[g].lambda = 0.125 * (double)below(s, 9);
        held[g] = g % 3 != 1;
    }
    s->groups = place(s, groups, (size_t)s->size.groups * sizeof *groups);
    s->retained.held = place(s, held, (size_t)s->size.groups * sizeof *held);
    for (int32_t i = 0; i < s->rows; i++)
        group[i] = i < s->n ? i / each : 0;
    s->x.group = place(s, group, (size_t)s->rows * sizeof *group);
    for (int32_t i = 0; i < s->rows; i++)
        group[i] = (int32_t)below(s, (uint32_t)s->rows);
    s->id = place(s, group, (size_t)s->rows * sizeof *group);
    free(groups);
    free(group);
}

static void place_levels(side *s)
{
    kac_level levels[T + 1] = {{0}};
    const double anneal[T + 1] = {1, 0.75, 1.5, 1, 2};
    const uint64_t reveal[T + 1] = {0, UINT64_C(1) << 32, UINT64_C(1) << 30, 0,
                                    UINT64_C(1) << 31};
    for (int k = 0; k <= T; k++) {
        levels[k].reveal = reveal[k];
        levels[k].mask = 0.25 * k;
        levels[k].gaussian = (kac_gaussian_level){.scale = 1 - 0.1 * k,
                                                  .noise = 0.3 * k,
                                                  .keep = 0.6,
                                                  .pull = 0.45,
                                                  .spread = k == 2 ? 0 : 0.35 * k,
                                                  .extrapolate = k == 3 ? 0.4 : 0,
                                                  .guess = 0.7,
                                                  .anneal = anneal[k],
                                                  .weigh = 0.3 * k,
                                                  .offset = k == T ? -0.125 : 0};
    }
    s->levels = place(s, levels, sizeof levels);
}

static void place_template(side *s)
{
    uint8_t fixed[1024] = {0};
    uint32_t allowed[1024], all = (uint32_t)((UINT64_C(1) << s->shape.states) - 1);
    for (int32_t l = 0; l < s->shape.length; l++) {
        fixed[l] = (uint8_t)below(s, (uint32_t)s->shape.states + 1);
        if (below(s, 2)) fixed[l] = (uint8_t)s->shape.states;
        allowed[l] = 1 + below(s, all);
    }
    s->fixed = place(s, fixed, (size_t)s->shape.stride);
    s->allowed = place(s, allowed, (size_t)s->shape.length * sizeof *allowed);
}

static void make_side(side *s, kac_device *device, extent size, world where)
{
    bool vectors = where != LETTERS;
    int32_t bytes = vectors ? size.length * 8 : size.length;
    int32_t sites = size.length * size.states;
    *s = (side){.dev = device, .random = 5, .vectors = vectors, .size = size};
    s->process = vectors ? &device->ops->gaussian : &device->ops->masked;
    s->shape = (kac_shape){size.length, size.states, (bytes + 15) / 16 * 16, 0, 0};
    s->n = size.groups * size.each;
    s->rows = s->n * size.children;
    s->floats = sites + (where == PAIRS); /* and the clash of two denoisers */
    place_states(s);
    place_memo(s);
    place_groups(s);
    place_levels(s);
    if (!vectors) place_template(s);
    s->x.n = s->n;
    s->x.stride = s->shape.stride;
    s->soft = place_numbers(s, s->rows, sites, false);
    s->reward = place_numbers(s, s->rows, sites, false);
    s->input = place_numbers(s, s->rows, sites + size.length, false);
    s->tilt = place_numbers(s, s->rows, sites, true);
    s->other = place_numbers(s, s->rows, sites, true);
}

static void drop_side(side *s)
{
    for (int i = 0; i < s->n_held; i++)
        s->dev->ops->memory.release(s->dev, s->held[i]);
}

static kac_clock *clock_at(side *s, int32_t level)
{
    kac_clock clock = {.level = level, .move = T - level};
    return place(s, &clock, sizeof clock);
}

/* ---- runs of one operation, in variants --------------------------------------------------- */

static size_t row_bytes(const side *s, int32_t rows)
{
    return (size_t)rows * (size_t)s->shape.stride;
}

static size_t site_bytes(const side *s, int32_t rows)
{
    return (size_t)rows * (size_t)s->shape.length * (size_t)s->shape.states * sizeof(float);
}

static kac_status start(side *s, int variant)
{
    kac_start_args a = {.shape = s->shape,
                        .levels = s->levels,
                        .clock = clock_at(s, T),
                        .groups = s->groups,
                        .group = s->x.group,
                        .fixed = variant == 1 ? s->fixed : NULL,
                        .seed = 11,
                        .n = s->n};
    return s->process->start(s->dev, &a, output_of(s, row_bytes(s, s->n), BYTES));
}

/* Four levels, then what twists: nothing, a tilt, a template, both; then a path or none. */
static kac_status propose(side *s, int variant)
{
    int twist = variant / 4 % 4;
    int32_t rows = s->rows;
    s->y = (kac_particles){.n = rows,
                           .stride = s->shape.stride,
                           .x = output_of(s, row_bytes(s, rows), BYTES),
                           .ratio = output_of(s, (size_t)rows * sizeof(double), DOUBLES),
                           .entry = output_of(s, (size_t)rows * sizeof(int32_t), BYTES)};
    kac_propose_args a = {
        .shape = s->shape,
        .levels = s->levels,
        .clock = clock_at(s, variant % 4),
        .groups = s->groups,
        .x = &s->x,
        .memo = &s->memo,
        .seed = 12,
        .children = s->size.children,
        .temperature = 0.75F,
        .keep_entries = variant % 3 != 0,
        .look_back = (variant + variant / 4) % 2,
        .twist = {twist & 1 ? s->tilt : NULL, s->x.entry, twist & 2 ? s->allowed : NULL, 0.5},
        .retained = variant >= 16 ? &s->retained : NULL,
        .fault = fault_of(s),
        .y = &s->y};
    return s->process->propose(s->dev, &a);
}

static kac_complete_args completion(side *s, int variant)
{
    int32_t third = s->rows / 3 + 1;
    return (kac_complete_args){.shape = s->shape,
                               .clock = clock_at(s, 1),
                               .groups = s->groups,
                               .levels = s->levels,
                               .x = s->x.x,
                               .entry = s->x.entry,
                               .group = s->x.group,
                               .memo = &s->memo,
                               .fresh = &s->fresh,
                               .fault = fault_of(s),
                               .seed = 13,
                               .n = s->rows,
                               .first = variant % 3 * (third / 2),
                               .batch = third,
                               .children = s->size.children,
                               .samples = s->size.samples,
                               .every_row = variant / 3 % 2,
                               .allowed = variant >= 6 ? s->allowed : NULL,
                               .temperature = 1.25F};
}

static kac_status complete(side *s, int variant)
{
    kac_complete_args a = completion(s, variant);
    return s->process->complete(s->dev, &a, output_of(s, row_bytes(s, s->rows), BYTES));
}

static kac_status soften(side *s, int variant)
{
    kac_complete_args a = completion(s, variant);
    return s->process->soften(s->dev, &a, output_of(s, site_bytes(s, s->rows), FLOATS));
}

static kac_status imagine(side *s, int variant)
{
    kac_complete_args a = completion(s, variant);
    uint8_t *out = output_of(s, row_bytes(s, s->rows * s->size.samples), BYTES);
    return s->process->imagine(s->dev, &a, out);
}

static kac_slope_args slope_of(side *s, int variant)
{
    return (kac_slope_args){.shape = s->shape,
                            .x = s->x.x,
                            .fresh = &s->fresh,
                            .first = variant % 2,
                            .batch = s->rows / 2,
                            .temperature = 1.25F,
                            .soft = s->soft,
                            .reward = s->reward,
                            .input = variant != 1 || s->vectors ? s->input : NULL,
                            .direct = variant >= 1};
}

static kac_status slope(side *s, int variant)
{
    kac_slope_args a = slope_of(s, variant);
    return s->process->slope(s->dev, &a, output_of(s, site_bytes(s, s->rows), FLOATS));
}

static kac_status tilt(side *s, int variant)
{
    kac_slope_args a = slope_of(s, variant);
    return s->process->tilt(s->dev, &a, output_of(s, site_bytes(s, s->rows), FLOATS));
}

static kac_renoise_args renoise_of(const side *s, int variant)
{
    return (kac_renoise_args){.shape = s->shape,
                              .levels = s->levels,
                              .fixed = variant >= 3 ? s->fixed : NULL,
                              .x0 = s->x.x,
                              .id = s->id,
                              .seed = 14,
                              .n = s->rows,
                              .level = variant % 3 + 1};
}

static kac_status renoise(side *s, int variant)
{
    kac_renoise_args a = renoise_of(s, variant);
    return s->process->renoise(s->dev, &a, output_of(s, row_bytes(s, s->rows), BYTES));
}

/* x0 is what renoise masks again: its masked sites do not count, so it has none. */
static kac_status score(side *s, int variant)
{
    kac_complete_args fill = completion(s, 3);
    kac_renoise_args a = renoise_of(s, variant);
    uint8_t *x = output_of(s, row_bytes(s, s->rows), BYTES);
    fill.batch = s->rows;
    KAC_TRY(s->process->complete(s->dev, &fill, x));
    a.x0 = x;
    double *out = output_of(s, (size_t)s->rows * sizeof(double), DOUBLES);
    return s->process->score(s->dev, &a, s->x.x, s->x.entry, &s->memo, out);
}

static kac_status blend(side *s, int variant)
{
    size_t bytes = (size_t)s->rows * (size_t)s->floats * sizeof(float);
    float *logits = output_of(s, bytes, FLOATS);
    kac_blend_args a = {.jobs = &s->jobs,
                        .length = s->shape.length,
                        .states = s->shape.states,
                        .guidance = 1.5 * variant - 0.5,
                        .anneal = 1.25,
                        .other = s->other};
    KAC_TRY(s->dev->ops->memory.copy(s->dev, logits, s->memo.logits, bytes));
    return s->process->blend(s->dev, &a, logits);
}

static kac_status remask(side *s, int variant)
{
    uint8_t *x = output_of(s, row_bytes(s, s->n), BYTES);
    kac_remask_args a = {.shape = s->shape,
                         .clock = clock_at(s, 0),
                         .groups = s->groups,
                         .group = s->x.group,
                         .fixed = variant == 1 ? s->fixed : NULL,
                         .seed = 15,
                         .n = s->n,
                         .sites = s->shape.length / 3};
    KAC_TRY(s->dev->ops->memory.copy(s->dev, x, s->x.x, row_bytes(s, s->n)));
    return s->process->remask(s->dev, &a, x);
}

typedef struct run {
    const char *name;
    kac_status (*run)(side *s, int variant);
    int variants;
    unsigned worlds;
} run;

static const run runs[] = {
    {"start", start, 2, ANY_WORLD},       {"propose", propose, 32, ANY_WORLD},
    {"complete", complete, 9, ANY_WORLD}, {"soften", soften, 9, ANY_WORLD},
    {"imagine", imagine, 9, ANY_WORLD},   {"slope", slope, 3, ANY_WORLD},
    {"tilt", tilt, 3, ANY_WORLD},         {"renoise", renoise, 6, ANY_WORLD},
    {"score", score, 4, LETTERS},         {"blend", blend, 2, LETTERS | PAIRS},
    {"remask", remask, 2, LETTERS},
};

/* ---- twins -------------------------------------------------------------------------------- */

/* NaN is NaN, whatever its bits. */
static bool both_nan(const uint8_t *a, const uint8_t *b, int width)
{
    float f[2];
    double d[2];
    if (width == FLOATS) {
        memcpy(&f[0], a, sizeof *f);
        memcpy(&f[1], b, sizeof *f);
        return isnan(f[0]) && isnan(f[1]);
    }
    if (width != DOUBLES) return false;
    memcpy(&d[0], a, sizeof *d);
    memcpy(&d[1], b, sizeof *d);
    return isnan(d[0]) && isnan(d[1]);
}

static uint8_t *download(side *s, int k)
{
    output out = s->out[k];
    uint8_t *host = malloc(out.bytes);
    cr_assert_not_null(host);
    cr_assert_eq(s->dev->ops->memory.download(s->dev, host, out.at, out.bytes), KAC_OK);
    s->dev->ops->memory.release(s->dev, out.at);
    return host;
}

static void compare(side *cpu, side *other, const char *name, int variant)
{
    for (int k = 0; k < cpu->n_out; k++) {
        uint8_t *a = download(cpu, k), *b = download(other, k);
        size_t width = (size_t)cpu->out[k].width;
        for (size_t i = 0; i < cpu->out[k].bytes; i += width)
            cr_assert(memcmp(a + i, b + i, width) == 0 || both_nan(a + i, b + i, (int)width),
                      "%s %d of length %d, %d letters: output %d differs at %zu", name, variant,
                      cpu->size.length, cpu->size.states, k, i / width);
        free(a);
        free(b);
    }
    cpu->n_out = other->n_out = 0;
}

static void check_twins(extent size, world where)
{
    static side cpu, other;
    kac_device *host = NULL;
    cr_assert_eq(kac_device_open("cpu", -1, &host), KAC_OK, "%s", kac_last_error());
    for (size_t k = 0; k < sizeof runs / sizeof *runs; k++) {
        if (!(runs[k].worlds & where)) continue;
        make_side(&cpu, host, size, where);
        make_side(&other, dev(), size, where);
        for (int v = 0; v < runs[k].variants; v++) {
            kac_status want = runs[k].run(&cpu, v), got = runs[k].run(&other, v);
            cr_assert(want == KAC_OK && got == KAC_OK, "%s: %s", runs[k].name,
                      kac_last_error());
            compare(&cpu, &other, runs[k].name, v);
        }
        drop_side(&cpu);
        drop_side(&other);
    }
    kac_device_close(host);
}

Test(twins_process, masked)
{
    static const extent sizes[] = {{1, 4, 1, 1, 1, 1},    {31, 4, 3, 11, 7, 2},
                                   {33, 20, 2, 5, 3, 3},  {257, 4, 1, 3, 33, 1},
                                   {50, 2, 31, 1, 4, 2},  {1000, 32, 1, 2, 2, 1},
                                   {16, 4, 5, 33, 17, 1}, {64, 5, 2, 2, 16, 2}};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++)
        check_twins(sizes[k], LETTERS);
}

Test(twins_process, gaussian)
{
    static const extent sizes[] = {{1, 1, 4, 50, 2, 1},  {2, 1, 3, 11, 7, 2},
                                   {3, 1, 2, 5, 33, 3},  {31, 1, 3, 3, 4, 1},
                                   {33, 1, 31, 1, 2, 2}, {257, 1, 1, 5, 3, 1}};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        check_twins(sizes[k], VECTORS);
        check_twins(sizes[k], PAIRS);
    }
}
