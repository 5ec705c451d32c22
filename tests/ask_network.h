/* ask_network.h -- networks of files that tests write: asking them, and asking again in all
 * ways that must give the same bits. */
#ifndef KAC_ASK_NETWORK_H
#define KAC_ASK_NETWORK_H

#include "each_device.h"
#include "exact.h"
#include "net_file.h"
#include "network.h"

static inline kac_network *open_network(kac_device *dev, net_file *f, kac_role role)
{
    kac_network *net = NULL;
    kac_status status = kac_network_open(dev, net_file_write(f), role, &net);
    cr_assert(status == KAC_OK, "%s", kac_last_error());
    return net;
}

/* Answers `rows` rows, tokens [rows][length] or soft, into out [rows][width]. */
static inline void ask(const kac_network *net, int rows, int length, const uint8_t *tokens,
                       const float *soft, int width, float *out)
{
    kac_query q = {.tokens = tokens,
                   .soft = soft,
                   .stride = length,
                   .length = length,
                   .capacity = rows,
                   .out = out,
                   .out_stride = width};
    cr_assert(kac_network_ask(net, &q) == KAC_OK, "%s", kac_last_error());
}

/* Random tokens 0 .. states - 1, each masked with probability 1 / mask_one_in (0: never). */
static inline uint8_t *random_tokens(int n, int states, int mask_one_in)
{
    uint64_t seed = 77;
    uint8_t *tokens = malloc((size_t)n);
    cr_assert_not_null(tokens);
    for (int i = 0; i < n; i++) {
        tokens[i] = (uint8_t)((net_file_random(&seed) + 1) / 2 * (float)states);
        if (mask_one_in > 0 && (net_file_random(&seed) + 1) / 2 * (float)mask_one_in < 1)
            tokens[i] = (uint8_t)states;
    }
    return tokens;
}

/* One-hot rows of tokens, zeros at a mask: [n][states]. */
static inline float *one_hot(const uint8_t *tokens, int n, int states)
{
    float *soft = calloc((size_t)(n * states), sizeof *soft);
    cr_assert_not_null(soft);
    for (int i = 0; i < n; i++)
        if (tokens[i] < states) soft[i * states + tokens[i]] = 1;
    return soft;
}

/* Probabilities [n][states]. */
static inline float *random_soft(int n, int states)
{
    uint64_t seed = 5;
    float *soft = malloc((size_t)(n * states) * sizeof *soft);
    cr_assert_not_null(soft);
    for (int i = 0; i < n; i++) {
        float sum = 0;
        for (int k = 0; k < states; k++)
            sum += soft[i * states + k] = net_file_random(&seed) + 1.01f;
        for (int k = 0; k < states; k++)
            soft[i * states + k] /= sum;
    }
    return soft;
}

static inline void expect_bits(const float *a, const float *b, int n, const char *what)
{
    for (int i = 0; i < n; i++)
        cr_assert(kac_bits(a[i]) == kac_bits(b[i]), "%s: value %d is %a, want %a", what, i,
                  (double)a[i], (double)b[i]);
}

/* The rows again, but row by row, in windows of lists with gaps, with other thread counts, and
 * on every device: `want` [rows][width], bit for bit. */
static inline void expect_invariance(net_file *f, kac_role role, int rows, int length,
                                     const uint8_t *tokens, int width, const float *want)
{
    for (int which = 0; which <= OWN_DEVICE; which++) {
        kac_device *dev = open_device(which);
        if (dev == NULL) continue;
        kac_network *net = open_network(dev, f, role);
        float *out = malloc((size_t)(rows * width) * sizeof *out);
        cr_assert_not_null(out);
        for (int threads = 1; threads <= 3; threads += 2) {
            set_threads(threads);
            memset(out, 0xff, (size_t)(rows * width) * sizeof *out);
            ask(net, rows, length, tokens, NULL, width, out);
            expect_bits(out, want, rows * width, "threads");
        }
        memset(out, 0xff, (size_t)(rows * width) * sizeof *out);
        for (int i = 0; i < rows && i < 5; i++)
            ask(net, 1, length, tokens + i * length, NULL, width, out + i * width);
        expect_bits(out, want, (rows < 5 ? rows : 5) * width, "alone");

        /* The window of 4 that begins at row 2 of a list that counts 5: 3 rows. */
        const int32_t src[] = {3, 0, 1, 2};
        const int32_t dst[] = {1, 3, 0, 2};
        const int32_t count = 5;
        memset(out, 0, (size_t)(rows * width) * sizeof *out);
        kac_query q = {tokens, NULL, length, length, src, dst,  &count,
                       2,      4,    NULL,   NULL,   out, width};
        cr_assert(rows >= 4 && kac_network_ask(net, &q) == KAC_OK);
        for (int j = 0; j < 3; j++)
            expect_bits(out + dst[j] * width, want + src[j] * width, width, "window");
        for (int i = 0; i < width; i++)
            cr_assert(out[2 * width + i] == 0, "a row beyond the count was written");
        const int32_t none = 1;
        q.count = &none;
        cr_assert(kac_network_ask(net, &q) == KAC_OK);

        free(out);
        kac_network_close(net);
        kac_device_close(dev);
    }
}

/* One-hot rows give the bits of the tokens. */
static inline void expect_soft_is_tokens(const kac_network *net, int rows, int length,
                                         const uint8_t *tokens, const float *want)
{
    float *soft = one_hot(tokens, rows * length, net->states);
    float *out = malloc((size_t)(rows * net->outputs) * sizeof *out);
    cr_assert_not_null(out);
    ask(net, rows, length, NULL, soft, net->outputs, out);
    expect_bits(out, want, rows * net->outputs, "one-hot");
    free(out);
    free(soft);
}

/* Opening the file fails with INVALID, a sentence with `says` in it, and no network. */
static inline void expect_refusal(net_file *f, kac_role role, const char *says)
{
    kac_device *dev = open_device(0);
    kac_network *net = NULL;
    kac_status status = kac_network_open(dev, net_file_write(f), role, &net);
    cr_assert(status == KAC_ERR_INVALID, "want a refusal that says: %s", says);
    cr_assert(net == NULL);
    cr_assert(strstr(kac_last_error(), says) != NULL, "\"%s\" does not say \"%s\"",
              kac_last_error(), says);
    cr_assert(strstr(kac_last_error(), f->path) != NULL, "%s", kac_last_error());
    kac_device_close(dev);
}

#endif /* KAC_ASK_NETWORK_H */
