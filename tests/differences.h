/* differences.h -- vector-Jacobian products of a network against central differences of its
 * definition in double, and again in all ways that must give the same bits. */
#ifndef KAC_DIFFERENCES_H
#define KAC_DIFFERENCES_H

#include <math.h>

#include "each_device.h"
#include "exact.h"
#include "net_file.h"
#include "network.h"

typedef struct subject subject;
struct subject {
    const char *name;
    const void *weights;
    int rows, length, states;
    int channels; /* of the input: S + 1 (denoiser) or S */
    int outputs;  /* of a row: length S of a denoiser, or the heads of a reward */
    kac_status (*pack)(kac_device *dev, const void *weights, kac_net **out);
    kac_net_vjp_fn *vjp;
    kac_net_drop_fn *drop;
    /* out [outputs] of the input u [length][channels]; false where it is not defined. */
    bool (*plain)(const subject *s, const double *u, double *out);
};

/* pack_ARCH, vjp_ARCH and drop_ARCH: those of the device. */
#define NETWORK(arch)                                                                          \
    static kac_status pack_##arch(kac_device *dev, const void *weights, kac_net **out)         \
    {                                                                                          \
        return dev->ops->networks.arch.pack(dev, weights, out);                                \
    }                                                                                          \
    static kac_status vjp_##arch(kac_device *dev, const kac_net *net, const kac_query *q,      \
                                 const float *cotangent, float *grad)                          \
    {                                                                                          \
        return dev->ops->networks.arch.vjp(dev, net, q, cotangent, grad);                      \
    }                                                                                          \
    static void drop_##arch(kac_device *dev, kac_net *net)                                     \
    {                                                                                          \
        dev->ops->networks.arch.drop(dev, net);                                                \
    }

static bool is_denoiser(const subject *s)
{
    return s->channels == s->states + 1;
}

static const float sigma = 0.73f;
static const kac_level level = {.sigma = 0.73f};
static const kac_clock start = {0, 0};

/* A query for `rows` rows from `tokens` or `soft`. */
static kac_query query_of(const subject *s, const uint8_t *tokens, const float *soft, int rows)
{
    return (kac_query){.tokens = tokens,
                       .soft = soft,
                       .stride = s->length,
                       .length = s->length,
                       .capacity = rows,
                       .levels = &level,
                       .clock = &start};
}

static void *make(size_t count, size_t size)
{
    void *p = calloc(count + 1, size);
    cr_assert_not_null(p);
    return p;
}

/* Uniform on [-size, size). */
static float *random_floats(uint64_t *seed, size_t n, float size)
{
    float *x = make(n, sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = size * net_file_random(seed);
    return x;
}

/* Row `row` of tokens or soft as real numbers. */
static double *input_of(const subject *s, const uint8_t *tokens, const float *soft, int row)
{
    double *u = make((size_t)(s->length * s->channels), sizeof *u);
    for (int l = 0; l < s->length; l++) {
        int at = row * s->length + l;
        for (int k = 0; k < s->channels; k++)
            u[l * s->channels + k] =
                soft != NULL ? (double)soft[at * s->channels + k] : tokens[at] == k;
    }
    return u;
}

/* The derivative of cotangent . plain(u) in every direction, by central differences.  Outputs
 * of -INFINITY do not count. */
static void differences(const subject *s, double *u, const float *cotangent, double *grad)
{
    const double step = 1e-6;
    const int n = s->length * s->channels;
    double *out = make((size_t)s->outputs, sizeof *out);
    double *side = make((size_t)s->outputs, sizeof *side);
    bool defined = s->plain(s, u, out);
    for (int i = 0; i < n; i++) {
        double value = u[i];
        double sum = 0;
        for (int sign = -1; defined && sign <= 1; sign += 2) {
            u[i] = value + sign * step;
            cr_assert(s->plain(s, u, side));
            for (int o = 0; o < s->outputs; o++)
                if (!isinf(out[o])) sum += sign * (double)cotangent[o] * (side[o] - out[o]);
        }
        u[i] = value;
        grad[i] = sum / (2 * step);
    }
    free(out);
    free(side);
}

/* got [n] is want up to the rounding of float32 at the size of the largest. */
static void expect_close(const float *got, const double *want, int n, const char *what, int row)
{
    double most = 0;
    for (int i = 0; i < n; i++)
        most = fabs(want[i]) > most ? fabs(want[i]) : most;
    for (int i = 0; i < n; i++)
        cr_assert(fabs((double)got[i] - want[i]) <= 1e-4 * most + 1e-7,
                  "%s, row %d: value %d is %g, want %g", what, row, i, (double)got[i], want[i]);
}

static void expect_bits(const float *a, const float *b, int n, const char *name,
                        const char *what)
{
    for (int i = 0; i < n; i++)
        cr_assert(kac_bits(a[i]) == kac_bits(b[i]), "%s, %s: value %d is %a, want %a", name,
                  what, i, (double)a[i], (double)b[i]);
}

static void differentiate(const subject *s, kac_device *dev, const kac_net *net,
                          const kac_query *q, const float *cotangent, float *grad)
{
    cr_assert(s->vjp(dev, net, q, cotangent, grad) == KAC_OK, "%s: %s", s->name,
              kac_last_error());
}

/* The rows again: with other threads, one by one, and through a list with a count below the
 * capacity, whose rows beyond stay as they are. */
static void expect_invariance(const subject *s, kac_device *dev, const kac_net *net,
                              const kac_query *all, const float *cotangent, const float *want)
{
    const int n = s->length * s->channels;
    float *grad = make((size_t)((s->rows + 3) * n), sizeof *grad);
    float *turned = make((size_t)((s->rows + 3) * s->outputs), sizeof *turned);
    int32_t *src = make((size_t)(s->rows + 3), sizeof *src);
    for (int threads = 1; threads <= 3; threads += 2) {
        set_threads(threads);
        memset(grad, 0xff, (size_t)(s->rows * n) * sizeof *grad);
        differentiate(s, dev, net, all, cotangent, grad);
        expect_bits(grad, want, s->rows * n, s->name, "threads");
    }
    kac_query q = *all;
    q.capacity = 1;
    for (int32_t i = 0; i < s->rows; i++) {
        q.src = &i;
        differentiate(s, dev, net, &q, cotangent + i * s->outputs, grad);
        expect_bits(grad, want + i * n, n, s->name, "alone");
    }
    for (int j = 0; j < s->rows + 3; j++) {
        src[j] = (j + 1) * 5 % s->rows;
        memcpy(turned + j * s->outputs, cotangent + src[j] * s->outputs,
               (size_t)s->outputs * sizeof *turned);
    }
    const int32_t count = s->rows + 2; /* of which the window from 3 on sees rows - 1 */
    q.src = src;
    q.first = 3;
    q.count = &count;
    q.capacity = s->rows + 3;
    memset(grad, 0, (size_t)((s->rows + 3) * n) * sizeof *grad);
    differentiate(s, dev, net, &q, turned, grad);
    for (int j = 0; j < s->rows - 1; j++)
        expect_bits(grad + j * n, want + src[j] * n, n, s->name, "list");
    for (int i = (s->rows - 1) * n; i < (s->rows + 3) * n; i++)
        cr_assert(grad[i] == 0, "%s: wrote a row beyond the count", s->name);
    free(grad);
    free(turned);
    free(src);
}

/* Everything, for tokens or for probabilities. */
static void check_input(const subject *s, const uint8_t *tokens, const float *soft)
{
    uint64_t seed = 99;
    const int n = s->length * s->channels;
    float *cotangent = random_floats(&seed, (size_t)(s->rows * s->outputs), 1);
    float *first = make((size_t)(s->rows * n), sizeof *first);
    double *want = make((size_t)n, sizeof *want);
    bool have = false;
    for (int which = 0; which <= OWN_DEVICE; which++) {
        kac_device *dev = open_device(which);
        kac_net *net = NULL;
        if (dev == NULL) continue;
        kac_query q = query_of(s, tokens, soft, s->rows);
        kac_status status = s->pack(dev, s->weights, &net);
        cr_assert(status == KAC_OK, "%s", kac_last_error());
        if (!have) {
            differentiate(s, dev, net, &q, cotangent, first);
            for (int i = 0; i < s->rows; i++) {
                double *u = input_of(s, tokens, soft, i);
                differences(s, u, cotangent + i * s->outputs, want);
                expect_close(first + i * n, want, n, s->name, i);
                free(u);
            }
        }
        have = true;
        expect_invariance(s, dev, net, &q, cotangent, first);
        s->drop(dev, net);
        kac_device_close(dev);
    }
    cr_assert(have);
    free(cotangent);
    free(first);
    free(want);
}

/* Rows from all masked to none, and, where the network takes them, probabilities. */
static void check(const subject *s)
{
    uint64_t seed = 7;
    const int n = s->rows * s->length;
    uint8_t *tokens = make((size_t)n, 1);
    for (int i = 0; i < n; i++) {
        int row = i / s->length;
        float masked = (float)(s->rows - 1 - row) / (float)(s->rows - 1);
        tokens[i] = (uint8_t)((net_file_random(&seed) + 1) / 2 * (float)s->states);
        if ((net_file_random(&seed) + 1) / 2 < masked) tokens[i] = (uint8_t)s->states;
    }
    check_input(s, tokens, NULL);
    if (!is_denoiser(s)) {
        float *soft = random_floats(&seed, (size_t)(n * s->states), 0.5f);
        for (int i = 0; i < n * s->states; i++)
            soft[i] += 0.51f; /* no need to sum to 1 */
        check_input(s, NULL, soft);
        free(soft);
    }
    free(tokens);
}

/* The weights of a case, freed at its end. */
typedef struct pool {
    uint64_t seed;
    int used;
    float *part[160];
} pool;

static float *take(pool *p, size_t n, float size)
{
    cr_assert(p->used < (int)(sizeof p->part / sizeof *p->part));
    return p->part[p->used++] = random_floats(&p->seed, n, size);
}

static void empty(pool *p)
{
    for (int i = 0; i < p->used; i++)
        free(p->part[i]);
    p->used = 0;
}

#endif /* KAC_DIFFERENCES_H */
