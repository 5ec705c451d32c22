/* test_exact.c -- the elementary functions and sums of exact.h. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "exact.h"

/* ---- accuracy --------------------------------------------------------------------------- */

/* The distance of floats, or doubles, at the true value. */
static double ulp(long double truth, int digits, int least)
{
    int exponent = 0;
    (void)frexpl(truth, &exponent);
    exponent -= digits;
    return ldexp(1, exponent < least ? least : exponent);
}

static double logistic(double x)
{
    return 1 / (1 + exp(-x));
}

typedef struct function {
    const char *name;
    float (*ours)(float);
    double (*truth)(double);
    double bound; /* ulp */
} function;

/* Every so many floats of both signs, from the subnormals to the largest. */
static void check_float(const function *f)
{
    double worst = 0;
    float at = 0;
    for (uint32_t size = 0; size < 0x7f800000u; size += 20011) {
        for (uint32_t sign = 0; sign < 2; sign++) {
            float x = kac_from_bits(size | sign << 31);
            float y = f->ours(x);
            double truth = f->truth((double)x);
            if (isnan(truth)) {
                cr_assert(isnan(y), "%s(%a) = %a", f->name, (double)x, (double)y);
            } else if (isinf(truth) || fabs(truth) >= 0x1.ffffffp127) {
                cr_assert_eq(y, (float)truth, "%s(%a) = %a", f->name, (double)x, (double)y);
            } else {
                double error = fabs((double)y - truth) / ulp((long double)truth, 24, -149);
                if (error > worst) at = x;
                worst = fmax(worst, error);
            }
        }
    }
    cr_assert(worst <= f->bound, "%s(%a): %.3f ulp", f->name, (double)at, worst);
    cr_assert(isnan(f->ours(NAN)), "%s(NaN)", f->name);
}

Test(exact, floats_are_within_their_bound)
{
    static const function functions[] = {{"exp", kac_expf, exp, 1},
                                         {"log", kac_logf, log, 1},
                                         {"tanh", kac_tanhf, tanh, 2},
                                         {"sigmoid", kac_sigmoidf, logistic, 2},
                                         {"erf", kac_erff, erf, 1}};
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        check_float(&functions[i]);
}

Test(exact, gelu_is_within_its_bound)
{
    for (int i = -32000; i < 32000; i++) {
        float x = (float)i * 0.000377f;
        double truth = 0.5 * (double)x * erfc(-(double)x * 0.70710678118654752440);
        double error = fabs((double)kac_geluf(x) - truth) / ulp((long double)x, 24, -149);
        cr_assert(error <= 2, "gelu(%a): %.3f ulp of x", (double)x, error);
    }
    cr_assert(isnan(kac_geluf(NAN)));
}

Test(exact, doubles_are_within_their_bound)
{
    srand48(1);
    for (int i = 0; i < 100000; i++) {
        double x = (drand48() * 1455 - 745.3) / (i % 2 ? 1 : 400);
        long double truth = expl((long double)x);
        double error = (double)fabsl((long double)kac_exp(x) - truth) / ulp(truth, 53, -1074);
        cr_assert(error <= 1 || truth > 0x1.fffffffffffffp1023L, "exp(%a): %.3f ulp", x, error);

        x = i % 2 ? drand48() * 3 : ldexp(drand48(), (int)(lrand48() % 2098) - 1074);
        if (x == 0) continue;
        truth = logl((long double)x);
        error = (double)fabsl((long double)kac_log(x) - truth) / ulp(truth, 53, -1074);
        cr_assert(error <= 1, "log(%a): %.3f ulp", x, error);
    }
}

Test(exact, the_short_exponential_is_the_long_one)
{
    for (int i = -52000; i <= 52000; i++) {
        const double x = i * 0x1.b3p-7;
        cr_assert_eq(kac_bits64(kac_exp_near(x)), kac_bits64(kac_exp(x)), "of %a", x);
    }
    cr_assert_eq(kac_exp_near(0), 1);
    cr_assert_eq(kac_exp_near(-0.0), 1);
}

Test(exact, turns_are_within_their_bound)
{
    srand48(2);
    for (int i = 0; i < 100000; i++) {
        double u = (2 * drand48() - 1) * (i % 2 ? 1 : 5000);
        long double angle = 2 * acosl(-1) * ((long double)u - rintl((long double)u));
        double s = 0;
        double c = 0;
        kac_sincos_turns(u, &s, &c);
        cr_assert(fabsl((long double)s - sinl(angle)) < 0x1p-52L, "sin %a turns: %a", u, s);
        cr_assert(fabsl((long double)c - cosl(angle)) < 0x1p-52L, "cos %a turns: %a", u, c);
    }
    for (int quarter = -8; quarter <= 8; quarter++) { /* exact at the quarters */
        static const double sine[4] = {0, 1, 0, -1};
        double s = 0;
        double c = 0;
        kac_sincos_turns(quarter * 0.25, &s, &c);
        cr_assert_eq(s, sine[quarter & 3]);
        cr_assert_eq(c, sine[(quarter + 1) & 3]);
    }
}

Test(exact, specials)
{
    cr_assert_eq(kac_expf(0), 1);
    cr_assert_eq(kac_expf(INFINITY), INFINITY);
    cr_assert_eq(kac_expf(-INFINITY), 0);
    cr_assert_eq(kac_expf(-103.9f), 0x1p-149f); /* subnormal results are not flushed */
    cr_assert_eq(kac_expf(-104.5f), 0);
    cr_assert_eq(kac_logf(1), 0);
    cr_assert_eq(kac_logf(0), -INFINITY);
    cr_assert_eq(kac_logf(-0.0f), -INFINITY);
    cr_assert_eq(kac_logf(INFINITY), INFINITY);
    cr_assert(isnan(kac_logf(-1)) && isnan(kac_logf(-INFINITY)) && isnan(kac_logf(-0x1p-149f)));
    cr_assert_eq(kac_tanhf(INFINITY), 1);
    cr_assert_eq(kac_tanhf(-INFINITY), -1);
    cr_assert(signbit(kac_tanhf(-0.0f)) && signbit(kac_erff(-0.0f)));
    cr_assert_eq(kac_erff(INFINITY), 1);
    cr_assert_eq(kac_erff(-INFINITY), -1);
    cr_assert_eq(kac_sigmoidf(0), 0.5f);
    cr_assert_eq(kac_sigmoidf(INFINITY), 1);
    cr_assert_eq(kac_sigmoidf(-INFINITY), 0);
    cr_assert_eq(kac_sigmoidf(-100), kac_expf(-100)); /* a subnormal */
    cr_assert_eq(kac_exp(0), 1);
    cr_assert_eq(kac_exp((double)INFINITY), (double)INFINITY);
    cr_assert_eq(kac_exp(-(double)INFINITY), 0);
    cr_assert_eq(kac_exp(-745), 0x1p-1074);
    cr_assert_eq(kac_log(1), 0);
    cr_assert_eq(kac_log(0), -(double)INFINITY);
    cr_assert_eq(kac_log((double)INFINITY), (double)INFINITY);
    cr_assert(isnan(kac_log(-1)) && isnan(kac_exp((double)NAN)) && isnan(kac_log((double)NAN)));
}

/* ---- the same bits from vectors --------------------------------------------------------- */

enum { N = 4099, FLOATS = 6, DOUBLES = 2 };

typedef struct results {
    float f[FLOATS][N];
    double d[DOUBLES][N];
    float sum, squares;
} results;

/* The loops; each caller compiles them for its own instruction set. */
__attribute__((always_inline)) static inline void evaluate(const float *x, results *r)
{
#pragma omp simd
    for (int i = 0; i < N; i++)
        r->f[0][i] = kac_expf(x[i]);
#pragma omp simd
    for (int i = 0; i < N; i++)
        r->f[1][i] = kac_logf(x[i]);
#pragma omp simd
    for (int i = 0; i < N; i++)
        r->f[2][i] = kac_tanhf(x[i]);
#pragma omp simd
    for (int i = 0; i < N; i++)
        r->f[3][i] = kac_sigmoidf(x[i]);
#pragma omp simd
    for (int i = 0; i < N; i++)
        r->f[4][i] = kac_erff(x[i]);
#pragma omp simd
    for (int i = 0; i < N; i++)
        r->f[5][i] = kac_geluf(x[i]);
#pragma omp simd
    for (int i = 0; i < N; i++)
        r->d[0][i] = kac_exp((double)x[i] * 1.7);
#pragma omp simd
    for (int i = 0; i < N; i++)
        r->d[1][i] = kac_log((double)x[i] * 1.7);
    r->sum = kac_sum(x, N);
    r->squares = kac_sum_squares(x, 0.37f, N);
}

static void evaluate_portable(const float *x, results *r)
{
    evaluate(x, r);
}

#ifdef __x86_64__
__attribute__((target("avx2,fma"))) static void evaluate_avx2(const float *x, results *r)
{
    evaluate(x, r);
}

__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma"))) static void
evaluate_avx512(const float *x, results *r)
{
    evaluate(x, r);
}
#endif

static void compare(void (*evaluate_isa)(const float *, results *), const char *isa)
{
    static float x[N];
    static results expected;
    static results actual;
    srand48(3);
    for (int i = 0; i < N; i++)
        x[i] = (float)(drand48() * 2 - 1) * (i % 3 == 0 ? 100.0f : 2.0f);
    evaluate_portable(x, &expected);
    evaluate_isa(x, &actual);
    for (int k = 0; k < FLOATS; k++)
        for (int i = 0; i < N; i++)
            cr_assert(kac_bits(actual.f[k][i]) == kac_bits(expected.f[k][i]) ||
                          (isnan(actual.f[k][i]) && isnan(expected.f[k][i])),
                      "%s: function %d of %a", isa, k, (double)x[i]);
    for (int k = 0; k < DOUBLES; k++)
        for (int i = 0; i < N; i++)
            cr_assert(kac_bits64(actual.d[k][i]) == kac_bits64(expected.d[k][i]) ||
                          (isnan(actual.d[k][i]) && isnan(expected.d[k][i])),
                      "%s: double function %d of %a", isa, k, (double)x[i]);
    cr_assert_eq(kac_bits(actual.sum), kac_bits(expected.sum), "%s", isa);
    cr_assert_eq(kac_bits(actual.squares), kac_bits(expected.squares), "%s", isa);
}

Test(exact, vectors_give_the_bits_of_scalars)
{
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        compare(evaluate_avx2, "avx2");
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
        compare(evaluate_avx512, "avx512");
#endif
    compare(evaluate_portable, "portable");
}

/* ---- sums ------------------------------------------------------------------------------- */

/* Lane j takes j, j + 16, ...; then lanes i and i + 8, i + 4, i + 2, i + 1. */
static float sum_by_hand(const float *x, int n, const float *mean)
{
    float lane[16] = {0};
    for (int i = 0; i < n; i++)
        lane[i % 16] =
            mean == NULL ? lane[i % 16] + x[i] : fmaf(x[i] - *mean, x[i] - *mean, lane[i % 16]);
    for (int half = 8; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            lane[i] = lane[i] + lane[i + half];
    return lane[0];
}

Test(exact, sums_follow_the_tree)
{
    float x[200] = {0};
    srand48(4);
    for (int i = 0; i < 100; i++)
        x[i] = (float)(drand48() - 0.3) * 1e3f;
    for (int n = 0; n <= 100; n++) {
        float mean = 17.25f;
        cr_assert_eq(kac_bits(kac_sum(x, n)), kac_bits(sum_by_hand(x, n, NULL)), "n %d", n);
        cr_assert_eq(kac_bits(kac_sum_squares(x, mean, n)), kac_bits(sum_by_hand(x, n, &mean)),
                     "n %d", n);
    }
    for (int n = 100; n < 200; n++) /* zeros behind the end change nothing */
        cr_assert_eq(kac_bits(kac_sum(x, n)), kac_bits(kac_sum(x, 100)));
}
