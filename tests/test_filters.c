/* test_filters.c -- rewards that count letters, against counting them naively. */
#include <criterion/criterion.h>
#include <string.h>

#include "each_device.h"
#include "exact_chain.h"
#include "network.h"

TestSuite(filters, .timeout = 60);

enum { ROWS = 200, LENGTH = 37, STRIDE = 48 };

static kac_network *open_filter(kac_device *dev, kac_filter_spec spec, const char *alphabet)
{
    kac_network *net = NULL;
    kac_status status = kac_filter_open(dev, &spec, alphabet, &net);
    cr_assert_eq(status, KAC_OK, "%s", kac_last_error());
    return net;
}

/* Random objects, a mask in every 12th site of the odd rows; runs are made long. */
static void random_rows(int states, uint8_t *x)
{
    uint64_t random = 11;
    memset(x, 0, (size_t)ROWS * STRIDE);
    for (int i = 0; i < ROWS; i++)
        for (int l = 0; l < LENGTH; l++) {
            uint8_t *at = x + (ptrdiff_t)i * STRIDE + l;
            double u = (chain_random(&random) + 1) / 2;
            *at = (uint8_t)(u * states);
            if (l > 0 && chain_random(&random) > 0.2) *at = at[-1];
            if (i % 2 == 1 && (i + l) % 12 == 0) *at = (uint8_t)states;
        }
}

static void ask(const kac_network *net, const uint8_t *x, const float *soft, float *out)
{
    kac_query q = {.tokens = x,
                   .soft = soft,
                   .stride = STRIDE,
                   .length = LENGTH,
                   .capacity = ROWS,
                   .out = out,
                   .out_stride = 1};
    cr_assert_eq(kac_network_ask(net, &q), KAC_OK, "%s", kac_last_error());
}

/* A mask is spelled ?. */
static void spell(const uint8_t *x, const char *alphabet, char *text)
{
    memset(text, '?', LENGTH);
    text[LENGTH] = '\0';
    for (int l = 0; l < LENGTH; l++)
        if (x[l] < strlen(alphabet)) text[l] = alphabet[x[l]];
}

Test(filters, gc_is_a_share)
{
    static uint8_t x[ROWS * STRIDE];
    static float soft[ROWS * LENGTH * 4], out[ROWS], from_soft[ROWS];
    kac_device *dev = open_own();
    kac_network *net = open_filter(dev, (kac_filter_spec){.kind = KAC_FILTER_SHARE}, "TGAC");
    random_rows(4, x);
    for (int i = 0; i < ROWS; i++)
        for (int l = 0; l < LENGTH; l++)
            if (x[i * STRIDE + l] < 4) soft[(i * LENGTH + l) * 4 + x[i * STRIDE + l]] = 1;
    ask(net, x, NULL, out);
    ask(net, x, soft, from_soft);
    for (int i = 0; i < ROWS; i++) {
        char text[LENGTH + 1];
        int count = 0;
        spell(x + (ptrdiff_t)i * STRIDE, "TGAC", text);
        for (const char *c = text; *c != '\0'; c++)
            count += *c == 'G' || *c == 'C';
        cr_expect_eq(out[i], (float)(count / (double)LENGTH), "%s", text);
        cr_expect_eq(from_soft[i], out[i], "one-hot probabilities are letters");
    }
    for (int k = 0; k < LENGTH * 4; k++)
        soft[k] = 0.1F * (float)(k % 4 + 1); /* G has 0.2, C 0.4 */
    ask(net, x, soft, from_soft);
    cr_expect_float_eq((double)from_soft[0], 0.6, 1e-6);
    kac_network_close(net);
    kac_device_close(dev);
}

Test(filters, homopolymer_is_the_longest_run)
{
    static uint8_t x[ROWS * STRIDE];
    static float out[ROWS];
    kac_device *dev = open_own();
    kac_network *net = open_filter(dev, (kac_filter_spec){.kind = KAC_FILTER_RUN}, "XYZ");
    kac_query soft = {.soft = out, .capacity = 1};
    int longest = 0;
    random_rows(3, x);
    ask(net, x, NULL, out);
    for (int i = 0; i < ROWS; i++) {
        char text[LENGTH + 1];
        int best = 0;
        spell(x + (ptrdiff_t)i * STRIDE, "XYZ", text);
        for (int from = 0; from < LENGTH; from++)
            for (int to = from; to < LENGTH && text[to] != '?' && text[to] == text[from]; to++)
                if (to - from + 1 > best) best = to - from + 1;
        cr_expect_eq(out[i], (float)best, "%s: %g", text, (double)out[i]);
        if (best > longest) longest = best;
    }
    cr_expect_gt(longest, 8);
    cr_expect_eq(kac_network_ask(net, &soft), KAC_ERR_UNSUPPORTED);
    kac_network_close(net);
    kac_device_close(dev);
}

/* Whether a letter is one of those that a code stands for, written out. */
static bool stands_for(char code, char letter)
{
    static const char *const table[] = {"A=A",    "C=C",    "G=G",   "T=TU",   "U=TU", "R=AG",
                                        "Y=CTU",  "S=GC",   "W=ATU", "K=GTU",  "M=AC", "B=CGTU",
                                        "D=AGTU", "H=ACTU", "V=ACG", "N=ACGTU"};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i][0] == code) return strchr(table[i] + 2, letter) != NULL;
    return false;
}

static char complement(char code)
{
    static const char from[] = "ACGTURYSWKMBDHVN", to[] = "TGCAAYRSWMKVHDBN";
    return to[strchr(from, code) - from];
}

/* Places of one motif in a text; reversed where `reverse`. */
static int places(const char *text, const char *motif, bool reverse)
{
    int count = 0, width = (int)strlen(motif);
    for (int l = 0; l + width <= (int)strlen(text); l++) {
        bool fits = true;
        for (int i = 0; i < width; i++) {
            char code = motif[i];
            if (reverse) code = complement(motif[width - 1 - i]);
            fits = fits && stands_for(code, text[l + i]);
        }
        count += fits;
    }
    return count;
}

typedef struct motif_case {
    const char *alphabet, *motifs;
    int both;
    const char *forward[4], *reverse[4]; /* what is counted, each once */
} motif_case;

Test(filters, motifs_are_counted_wherever_they_begin)
{
    static uint8_t x[ROWS * STRIDE];
    static float out[ROWS];
    const motif_case cases[] = {
        {"ACGT", "AA", 0, {"AA"}, {NULL}},
        {"ACGT", "GAC,TTA", 0, {"GAC", "TTA"}, {NULL}},
        {"ACGT", "AAC", 1, {"AAC"}, {"AAC"}},
        {"ACGT", "AT", 1, {"AT"}, {NULL}}, /* its own reverse complement */
        {"ACGT", "AC,GT,AC", 1, {"AC"}, {"AC"}},
        {"TGAC", "RNY", 0, {"RNY"}, {NULL}},
        {"TGAC", "SRW,KM", 1, {"SRW", "KM"}, {"SRW"}}, /* KM is its own */
        {"ACGU", "BT,UV", 0, {"BT", "UV"}, {NULL}},
        {"ACGU", "DUH", 1, {"DUH"}, {"DUH"}},
    };
    kac_device *dev = open_own();
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        const motif_case *m = &cases[k];
        kac_filter_spec spec = {
            .kind = KAC_FILTER_MOTIF, .motifs = m->motifs, .both_strands = m->both};
        kac_network *net = open_filter(dev, spec, m->alphabet);
        int total = 0;
        random_rows(4, x);
        ask(net, x, NULL, out);
        for (int i = 0; i < ROWS; i++) {
            char text[LENGTH + 1];
            int count = 0;
            spell(x + (ptrdiff_t)i * STRIDE, m->alphabet, text);
            for (int j = 0; j < 4 && m->forward[j] != NULL; j++)
                count += places(text, m->forward[j], false);
            for (int j = 0; j < 4 && m->reverse[j] != NULL; j++)
                count += places(text, m->reverse[j], true);
            cr_expect_eq(out[i], (float)count, "%s both %d in %s: %g for %d", m->motifs,
                         m->both, text, (double)out[i], count);
            total += count;
        }
        cr_expect_gt(total, 10, "%s", m->motifs);
        kac_network_close(net);
    }
    kac_device_close(dev);
}

Test(filters, letters_of_other_alphabets_stand_for_themselves)
{
    static uint8_t x[ROWS * STRIDE];
    static float out[ROWS];
    kac_device *dev = open_own();
    kac_filter_spec spec = {.kind = KAC_FILTER_MOTIF, .motifs = "NR"};
    kac_network *net = open_filter(dev, spec, "DNRS"); /* amino acids: no codes */
    int total = 0;
    random_rows(4, x);
    ask(net, x, NULL, out);
    for (int i = 0; i < ROWS; i++) {
        char text[LENGTH + 1];
        int count = 0;
        spell(x + (ptrdiff_t)i * STRIDE, "DNRS", text);
        for (const char *at = text; (at = strstr(at, "NR")) != NULL; at++)
            count++;
        cr_expect_eq(out[i], (float)count);
        total += count;
    }
    cr_expect_gt(total, 5);
    kac_network_close(net);

    const struct {
        kac_filter_spec spec;
        const char *alphabet, *message;
    } wrong[] = {
        {{0, KAC_FILTER_SHARE, NULL, 0},
         "ABC",
         "reward.0.kind: gc needs the letters G and C, and the model has ABC"},
        {{2, KAC_FILTER_MOTIF, "ACX", 0},
         "ACGT",
         "reward.2.motifs: `X` in ACX is not a letter of ACGT, nor a IUPAC code"},
        {{1, KAC_FILTER_MOTIF, "DN,DA", 0},
         "DNRS",
         "reward.1.motifs: `A` in DA is not a letter of DNRS"},
        {{1, KAC_FILTER_MOTIF, "DN", 1},
         "DNRS",
         "reward.1.strands: both is for the letters A, C, G and T or U, and the model has "
         "DNRS"},
    };
    for (size_t k = 0; k < sizeof wrong / sizeof *wrong; k++) {
        cr_expect_eq(kac_filter_open(dev, &wrong[k].spec, wrong[k].alphabet, &net),
                     KAC_ERR_INVALID);
        cr_expect_str_eq(kac_last_error(), wrong[k].message);
    }
    kac_device_close(dev);
}
