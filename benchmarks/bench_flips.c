/* bench_flips.c -- what tf32 and bf16 change: bench_flips DEVICE DENOISER [ROWS [STEPS]].
 *
 * Draws ROWS sequences by the exact denoiser, as `pretrained` does, and asks the same network in
 * each precision about the same states (teacher forcing).  For each precision a line of JSON:
 *   rows_per_second  forwards of the states of half-way
 *   logit_rms        difference of the logits of masked sites to the exact ones
 *   expected_flips   of the letters drawn: a draw flips when its uniform number lies between the
 *                    two running sums of some letter, so the sum over reveals of
 *                    p = sum over k of |F_k - F'_k|; expected_se is sqrt(sum p (1 - p))
 *   flips            those that came out otherwise with the same random words
 *   best_flips       of the likeliest letters, of best_sites masked sites
 * A CPU computes exact only, compared with itself. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "masked.h"
#include "network.h"
#include "process.h"

enum { PRECISIONS = 3, SEED = 1 };

typedef struct count {
    double seconds; /* of a forward of all rows */
    double squares, expected, variance;
    int64_t numbers, reveals, flips, best_flips, best_sites;
} count;

typedef struct bench {
    kac_device *dev;
    kac_network *net[PRECISIONS];
    int32_t nets, rows, length, states, steps;
    kac_level *levels; /* [steps + 1] */
    uint8_t *x;        /* [rows][length] */
    uint8_t *tokens;   /* the same on the device */
    float *answer;     /* [rows][length][states] on the device */
    float *logits[PRECISIONS];
    int64_t *stamp; /* [2] on the device */
    count count[PRECISIONS];
} bench;

static void must(kac_status status)
{
    if (status == KAC_OK) return;
    fprintf(stderr, "bench_flips: %s\n", kac_last_error());
    exit(1);
}

static void *host(int64_t n, size_t size)
{
    void *p = calloc((size_t)n, size);
    if (p == NULL) exit(1);
    return p;
}

static void *device(const bench *b, int64_t n, size_t size)
{
    void *p = b->dev->ops->memory.alloc(b->dev, (size_t)n * size);
    if (p == NULL) must(KAC_ERR_NOMEM);
    return p;
}

static void open_bench(bench *b, const char *name, const char *path)
{
    kac_settings settings = {0};
    must(kac_device_open(name, -1, &b->dev));
    for (int p = 0; p < PRECISIONS; p++) {
        if (kac_device_set_precision(b->dev, (kac_precision)p) != KAC_OK) break;
        must(kac_network_open(b->dev, path, KAC_ROLE_DENOISER, &b->net[b->nets++]));
    }
    b->length = b->net[0]->length;
    b->states = b->net[0]->states;
    if (b->length < 1 || b->net[0]->reads_time) {
        fprintf(stderr, "bench_flips: %s: want a denoiser with a length that reads no time\n",
                path);
        exit(2);
    }
    settings.process.steps = b->steps;
    settings.process.schedule = KAC_SCHEDULE_LOGLINEAR;
    settings.process.epsilon = 1e-3;
    settings.process.end = 1e-5;
    b->levels = host(b->steps + 1, sizeof *b->levels);
    must(kac_masked_levels(&settings, b->levels));
    const int64_t sites = (int64_t)b->rows * b->length;
    b->x = host(sites, 1);
    memset(b->x, b->states, (size_t)sites);
    b->tokens = device(b, sites, 1);
    b->answer = device(b, sites * b->states, sizeof(float));
    b->stamp = device(b, 2, sizeof *b->stamp);
    for (int p = 0; p < b->nets; p++)
        b->logits[p] = host(sites * b->states, sizeof(float));
}

static void close_bench(bench *b)
{
    void *const arrays[] = {b->tokens, b->answer, b->stamp};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        b->dev->ops->memory.release(b->dev, arrays[i]);
    for (int p = 0; p < b->nets; p++) {
        kac_network_close(b->net[p]);
        free(b->logits[p]);
    }
    free(b->levels);
    free(b->x);
    kac_device_close(b->dev);
}

/* `repeats` forwards of the states as they are; seconds of one. */
static double forward(bench *b, int p, int repeats)
{
    int64_t at[2];
    const kac_query q = {.tokens = b->tokens,
                         .stride = b->length,
                         .length = b->length,
                         .capacity = b->rows,
                         .out = b->answer,
                         .out_stride = b->length * b->states};
    must(b->dev->ops->particles.stamp(b->dev, &b->stamp[0]));
    for (int i = 0; i < repeats; i++)
        must(kac_network_ask(b->net[p], &q));
    must(b->dev->ops->particles.stamp(b->dev, &b->stamp[1]));
    must(b->dev->ops->memory.download(b->dev, at, b->stamp, sizeof at));
    return 1e-9 * (double)(at[1] - at[0]) / repeats;
}

static void ask(bench *b, bool timed)
{
    const size_t sites = (size_t)b->rows * (size_t)b->length;
    must(b->dev->ops->memory.upload(b->dev, b->tokens, b->x, sites));
    for (int p = 0; p < b->nets; p++) {
        double once = forward(b, p, 1);
        if (timed) b->count[p].seconds = forward(b, p, once > 0.1 ? 1 : (int)(0.2 / once) + 1);
        must(b->dev->ops->memory.download(b->dev, b->logits[p], b->answer,
                                          sites * (size_t)b->states * sizeof(float)));
    }
}

static void compare(count *c, const float *exact, const float *other, int32_t states)
{
    for (int32_t k = 0; k < states; k++) {
        double d = (double)other[k] - (double)exact[k];
        c->squares += d * d;
    }
    c->numbers += states;
    c->best_sites++;
    c->best_flips += kac_token_best(exact, states) != kac_token_best(other, states);
}

/* Draws a letter from both; returns the exact one. */
static uint8_t reveal(count *c, const float *exact, const float *other, int32_t states,
                      kac_u32x4 draw)
{
    uint32_t a[KAC_MAX_STATES];
    uint32_t b[KAC_MAX_STATES];
    double shift = 0;
    if (kac_token_sums(exact, states, 1, a) == 0 || kac_token_sums(other, states, 1, b) == 0) {
        fprintf(stderr, "bench_flips: logits without a law\n");
        exit(1);
    }
    for (int32_t k = 0; k + 1 < states; k++)
        shift +=
            fabs((double)a[k] / (double)a[states - 1] - (double)b[k] / (double)b[states - 1]);
    uint8_t letter = kac_token(a, draw, states);
    c->expected += shift;
    c->variance += shift * (1 - shift);
    c->reveals++;
    c->flips += letter != kac_token(b, draw, states);
    return letter;
}

/* One site at the move from `level`. */
static void move_site(bench *b, int32_t level, int32_t row, int32_t l)
{
    const int64_t site = (int64_t)row * b->length + l;
    if (b->x[site] != b->states) return;
    const kac_key key = {
        .seed = SEED, .move = (uint32_t)(b->steps - level + 1), .particle = (uint32_t)row};
    const kac_u32x4 draw = kac_draw(key, KAC_DRAW_PROPOSE, (uint32_t)l);
    const float *exact = b->logits[0] + site * b->states;
    const bool revealed = draw.v[0] < b->levels[level].reveal;
    for (int p = 0; p < b->nets; p++) {
        const float *other = b->logits[p] + site * b->states;
        compare(&b->count[p], exact, other, b->states);
        if (revealed) b->x[site] = reveal(&b->count[p], exact, other, b->states, draw);
    }
}

static void print(const bench *b, int p, const char *device_name)
{
    static const char *const name[PRECISIONS] = {"exact", "tf32", "bf16"};
    const count *c = &b->count[p];
    printf(
        "{\"measure\": \"flips\", \"device\": \"%s\", \"precision\": \"%s\", \"length\": %d, "
        "\"rows\": %d, \"steps\": %d, \"rows_per_second\": %.6g, \"logit_rms\": %.4g, "
        "\"reveals\": %lld, \"expected_flips\": %.5g, \"expected_se\": %.4g, \"flips\": %lld, "
        "\"best_sites\": %lld, \"best_flips\": %lld}\n",
        device_name, name[p], b->length, b->rows, b->steps, b->rows / c->seconds,
        sqrt(c->squares / (double)(c->numbers > 0 ? c->numbers : 1)), (long long)c->reveals,
        c->expected, sqrt(c->variance), (long long)c->flips, (long long)c->best_sites,
        (long long)c->best_flips);
}

int main(int argc, char **argv)
{
    bench b = {.rows = 64, .steps = 128};
    if (argc > 3) b.rows = (int32_t)strtol(argv[3], NULL, 10);
    if (argc > 4) b.steps = (int32_t)strtol(argv[4], NULL, 10);
    if (argc == 1)
        return 0; /* `make bench` runs every program without a model: nothing to do */
    if (argc == 2 || argc > 5 || b.rows < 1 || b.rows > 1 << 20 || b.steps < 1 ||
        b.steps > 1 << 16) {
        fprintf(stderr, "usage: bench_flips DEVICE DENOISER [ROWS [STEPS]]\n");
        return 2;
    }
    open_bench(&b, argv[1], argv[2]);
    for (int32_t level = b.steps; level >= 1; level--) {
        ask(&b, level == (b.steps + 1) / 2);
        for (int32_t row = 0; row < b.rows; row++)
            for (int32_t l = 0; l < b.length; l++)
                move_site(&b, level, row, l);
    }
    for (int p = 0; p < b.nets && p < PRECISIONS; p++)
        print(&b, p, argv[1]);
    close_bench(&b);
    return 0;
}
