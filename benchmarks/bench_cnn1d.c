/* bench_cnn1d.c -- speed of the cnn1d forward against what a core can multiply and add, and of
 * its vector-Jacobian product against the forward.
 *
 *     bench_cnn1d [THREADS] [portable | avx2 | avx512]
 *
 * One line a case: rows a second (median and best of the repeats), the FLOPs of the taps that
 * fall inside the sequence, and their share of the peak of as many cores (the median rate of a
 * loop of fma on registers), and how many forwards a vector-Jacobian product takes (medians).
 * One thread is timed by the time the processor gave it, several by the clock on the wall.
 * Afterwards two rows of both are compared with the portable code, bit for bit.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#ifdef __x86_64__
#include <immintrin.h>
#endif

#include "device.h"

enum { REPEATS = 200 };
static const double seconds_each = 0.6;

static clockid_t clock_used = CLOCK_PROCESS_CPUTIME_ID;

static double now(void)
{
    struct timespec t;
    (void)clock_gettime(clock_used, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- peak: independent chains of fma on registers --------------------------------------- */

enum { CHAINS = 12, FMA_STEPS = 1 << 20 };

#ifdef __x86_64__
__attribute__((target("avx512f"))) static double fma_avx512(void)
{
    __m512 x[CHAINS];
    __m512 a = _mm512_set1_ps(0.999f);
    for (int i = 0; i < CHAINS; i++)
        x[i] = _mm512_set1_ps((float)i);
    for (int s = 0; s < FMA_STEPS; s++)
        for (int i = 0; i < CHAINS; i++)
            x[i] = _mm512_fmadd_ps(x[i], a, a);
    __m512 sum = x[0];
    for (int i = 1; i < CHAINS; i++)
        sum = _mm512_add_ps(sum, x[i]);
    volatile float keep = _mm512_cvtss_f32(sum);
    (void)keep;
    return 2.0 * 16 * CHAINS * FMA_STEPS;
}

__attribute__((target("avx2,fma"))) static double fma_avx2(void)
{
    __m256 x[CHAINS];
    __m256 a = _mm256_set1_ps(0.999f);
    for (int i = 0; i < CHAINS; i++)
        x[i] = _mm256_set1_ps((float)i);
    for (int s = 0; s < FMA_STEPS; s++)
        for (int i = 0; i < CHAINS; i++)
            x[i] = _mm256_fmadd_ps(x[i], a, a);
    __m256 sum = x[0];
    for (int i = 1; i < CHAINS; i++)
        sum = _mm256_add_ps(sum, x[i]);
    volatile float keep = _mm256_cvtss_f32(sum);
    (void)keep;
    return 2.0 * 8 * CHAINS * FMA_STEPS;
}
#endif

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* FLOP/s of one core, sustained; 0 where nothing is known. */
static double measure_peak(kac_isa isa)
{
    double rate[REPEATS] = {0};
#ifdef __x86_64__
    for (int i = 0; i < REPEATS && isa != KAC_ISA_PORTABLE; i++) {
        double start = now();
        double flops = isa == KAC_ISA_AVX512 ? fma_avx512() : fma_avx2();
        rate[i] = flops / (now() - start);
    }
#endif
    qsort(rate, REPEATS, sizeof *rate, compare_doubles);
    return rate[REPEATS / 2];
}

/* ---- a network with random weights ------------------------------------------------------ */

typedef struct model {
    const char *name;
    int32_t hidden, length, layers;
    int32_t dilation[KAC_CNN1D_MAX_LAYERS];
} model;

enum { STATES = 4, KERNEL = 9 };

static const model models[] = {
    {"H128 L200", 128, 200, 20, {1, 1, 1,  1,  1,  1,  1,  1,  4,  4,
                                 4, 4, 16, 16, 16, 16, 64, 64, 64, 64}},
    {"H128 L50", 128, 50, 20, {1, 1, 1,  1,  1,  1,  1,  1,  4,  4,
                               4, 4, 16, 16, 16, 16, 64, 64, 64, 64}},
    {"H64 L80", 64, 80, 5, {1, 1, 4, 4, 16}},
};

/* n floats in +-size, kept until the program ends. */
static const float *random_floats(int64_t n, float size)
{
    float *x = malloc((size_t)n * sizeof *x);
    if (x == NULL) abort();
    for (int64_t i = 0; i < n; i++)
        x[i] = size * (float)(2 * drand48() - 1);
    return x;
}

static kac_cnn1d_weights random_weights(const model *m)
{
    int64_t h = m->hidden;
    kac_cnn1d_weights w = {
        .states = STATES, .hidden = m->hidden, .kernel = KERNEL, .layers = m->layers};
    w.linear = random_floats(h * (STATES + 1) * KERNEL, 0.5f);
    w.linear_bias = random_floats(h, 0.5f);
    for (int32_t i = 0; i < m->layers; i++) {
        w.dilation[i] = m->dilation[i];
        w.conv[i] = random_floats(h * h * KERNEL, 0.05f);
        w.conv_bias[i] = random_floats(h, 0.5f);
        w.norm[i] = random_floats(h, 1.0f);
        w.norm_bias[i] = random_floats(h, 0.5f);
    }
    w.final0 = random_floats(h * h, 0.1f);
    w.final0_bias = random_floats(h, 0.5f);
    w.final2 = random_floats((STATES + 1) * h, 0.1f);
    w.final2_bias = random_floats(STATES + 1, 0.5f);
    return w;
}

/* FLOPs of one row: convolutions at live taps, and the head. */
static double useful_flops(const model *m)
{
    double pairs = 0;
    for (int32_t i = 0; i < m->layers; i++)
        for (int32_t k = -(KERNEL / 2); k <= KERNEL / 2; k++)
            if (abs(k) * m->dilation[i] < m->length)
                pairs += m->length - abs(k) * m->dilation[i];
    return 2.0 * m->hidden * (m->hidden * (pairs + m->length) + m->length * STATES);
}

/* ---- cases ------------------------------------------------------------------------------ */

static int fail(void)
{
    fprintf(stderr, "bench_cnn1d: %s\n", kac_last_error());
    return 1;
}

typedef struct bench {
    kac_device *dev, *portable;
    int threads;
    double peak; /* of one core */
} bench;

/* What a case asks; grad NULL: the forward. */
typedef struct job {
    kac_query q;
    const float *cotangent; /* [batch][length][states] */
    float *grad;            /* [batch][length][states + 1] */
} job;

static kac_status run_job(kac_device *dev, const kac_net *net, const job *j)
{
    const kac_cnn1d_ops *ops = &dev->ops->networks.cnn1d;
    return j->grad == NULL ? ops->forward(dev, net, &j->q)
                           : ops->vjp(dev, net, &j->q, j->cotangent, j->grad);
}

typedef struct timing {
    double median, best; /* seconds */
} timing;

static kac_status measure(kac_device *dev, const kac_net *net, const job *j, timing *out)
{
    double seconds[REPEATS];
    int repeats = 0;
    kac_status status = run_job(dev, net, j);
    for (double begin = now();
         status == KAC_OK && repeats < REPEATS && now() - begin < seconds_each; repeats++) {
        double start = now();
        status = run_job(dev, net, j);
        seconds[repeats] = now() - start;
    }
    if (status != KAC_OK) return status;
    qsort(seconds, (size_t)repeats, sizeof *seconds, compare_doubles);
    *out = (timing){seconds[repeats / 2], seconds[0]};
    return KAC_OK;
}

static int run_case(const bench *b, const model *m, kac_net *net, kac_net *check, int32_t batch)
{
    const int32_t stride = (m->length + 15) / 16 * 16;
    const int32_t floats = m->length * STATES;
    const int32_t inputs = m->length * (STATES + 1);
    const int32_t two = batch < 2 ? batch : 2;
    uint8_t *tokens = calloc((size_t)batch, (size_t)stride);
    float *out = malloc((size_t)(batch + 2) * (size_t)floats * sizeof *out);
    float *cotangent = malloc((size_t)batch * (size_t)floats * sizeof *cotangent);
    float *grad = malloc((size_t)(batch + 2) * (size_t)inputs * sizeof *grad);
    if (tokens == NULL || out == NULL || cotangent == NULL || grad == NULL) abort();
    for (int32_t i = 0; i < batch; i++)
        for (int32_t l = 0; l < m->length; l++)
            tokens[(int64_t)i * stride + l] = (uint8_t)(lrand48() % (STATES + 1));
    for (int32_t i = 0; i < batch * floats; i++)
        cotangent[i] = (float)(2 * drand48() - 1);
    job forward = {.q = {.tokens = tokens,
                         .stride = stride,
                         .length = m->length,
                         .capacity = batch,
                         .out = out,
                         .out_stride = floats}};
    job vjp = {forward.q, cotangent, grad};

    timing forwards;
    timing vjps;
    if (measure(b->dev, net, &forward, &forwards) != KAC_OK) return fail();
    if (measure(b->dev, net, &vjp, &vjps) != KAC_OK) return fail();

    forward.q.capacity = vjp.q.capacity = two;
    forward.q.out = out + (int64_t)batch * floats;
    vjp.grad = grad + (int64_t)batch * inputs;
    if (run_job(b->portable, check, &forward) != KAC_OK) return fail();
    if (run_job(b->portable, check, &vjp) != KAC_OK) return fail();
    int same = memcmp(forward.q.out, out, (size_t)(two * floats) * sizeof *out) == 0 &&
               memcmp(vjp.grad, grad, (size_t)(two * inputs) * sizeof *grad) == 0;

    double median = batch / forwards.median;
    double best = batch / forwards.best;
    double flops = useful_flops(m);
    double peak = b->peak * b->threads;
    printf("%-10s %6d %11.1f %11.1f %9.1f %9.1f %7.1f%% %7.1f%% %7.2fx  %s\n", m->name,
           (int)batch, median, best, median * flops * 1e-9, best * flops * 1e-9,
           peak > 0 ? 100 * median * flops / peak : 0, peak > 0 ? 100 * best * flops / peak : 0,
           vjps.median / forwards.median, same ? "same bits" : "DIFFERENT");
    free(tokens);
    free(out);
    free(cotangent);
    free(grad);
    return !same;
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"portable", "avx2", "avx512"};
    static const int32_t batches[] = {1, 14, 64, 256};
    bench b = {.threads = 1};
    int isa = -1;
    for (int i = 0; argc > 2 && i < 3; i++)
        if (strcmp(argv[2], names[i]) == 0) isa = i;
    if (kac_device_open("cpu", isa, &b.dev) != KAC_OK) return fail();
    if (kac_device_open("cpu", KAC_ISA_PORTABLE, &b.portable) != KAC_OK) return fail();
#ifdef _OPENMP
    if (argc > 1) omp_set_num_threads((int)strtol(argv[1], NULL, 10));
    b.threads = omp_get_max_threads();
#endif
    if (b.threads > 1) clock_used = CLOCK_MONOTONIC;
    b.peak = measure_peak(b.dev->isa);
    printf("%s, %d threads, peak of a core %.1f GFLOP/s\n", names[b.dev->isa], b.threads,
           b.peak * 1e-9);
    printf("%-10s %6s %11s %11s %9s %9s %8s %8s %8s\n", "model", "batch", "rows/s", "best",
           "GFLOP/s", "best", "of peak", "best", "vjp");

    int wrong = 0;
    const kac_cnn1d_ops *ops = &b.dev->ops->networks.cnn1d;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        kac_cnn1d_weights w = random_weights(&models[i]);
        kac_net *net = NULL;
        kac_net *check = NULL;
        if (ops->pack(b.dev, &w, &net) != KAC_OK) return fail();
        if (ops->pack(b.portable, &w, &check) != KAC_OK) return fail();
        for (size_t j = 0; j < sizeof batches / sizeof *batches; j++)
            wrong |= run_case(&b, &models[i], net, check, batches[j]);
        ops->drop(b.dev, net);
        ops->drop(b.portable, check);
    }
    kac_device_close(b.dev);
    kac_device_close(b.portable);
    return wrong;
}
