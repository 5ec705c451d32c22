/* test_networks.c -- exact models and pwm: against plain arithmetic, and the same bits for any
 * batch, threads, instruction set and window; loaders and what they refuse. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ask_network.h"

TestSuite(networks, .timeout = 60);

/* ---- table ------------------------------------------------------------------------------- */

Test(networks, table_denoiser_gives_the_row_of_the_state)
{
    /* S = 2, L = 2: rows in base 3, the first position most significant; logits[r][l][k]. */
    net_file f = {.seed = 1};
    net_file_meta(&f, "kac.arch", "table");
    net_file_meta(&f, "kac.alphabet", "ab");
    net_file_meta(&f, "kac.length", "2");
    float *logits = net_file_add(&f, KAC_F32, "logits", 3, 9, 2, 2);
    for (int i = 0; i < 36; i++)
        logits[i] = (float)i;
    kac_device *dev = open_own();
    kac_network *net = open_network(dev, &f, KAC_ROLE_DENOISER);
    cr_assert(net->fixed_length && net->length == 2 && net->states == 2 && !net->reads_time);

    const uint8_t tokens[5][2] = {{0, 0}, {2, 2}, {2, 0}, {0, 2}, {1, 2}};
    const int row[5] = {0, 8, 6, 2, 5};
    float out[5][4];
    ask(net, 5, 2, tokens[0], NULL, 4, out[0]);
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 4; j++)
            cr_assert(out[i][j] == (float)(row[i] * 4 + j));
    expect_invariance(&f, KAC_ROLE_DENOISER, 5, 2, tokens[0], 4, out[0]);

    const float soft[4] = {1, 0, 0, 1};
    kac_query q = {.soft = soft, .length = 2, .capacity = 1, .out = out[0], .out_stride = 4};
    cr_assert(kac_network_ask(net, &q) == KAC_ERR_UNSUPPORTED);
    kac_network_close(net);
    kac_device_close(dev);
    net_file_remove(&f);
}

Test(networks, table_reward_and_its_expectation)
{
    net_file f = {.seed = 2};
    net_file_meta(&f, "kac.arch", "table");
    net_file_meta(&f, "kac.alphabet", "abc");
    net_file_meta(&f, "kac.length", "3");
    float *reward = net_file_fill(&f, net_file_add(&f, KAC_F32, "reward", 1, 27), 2);
    kac_device *dev = open_own();
    kac_network *net = open_network(dev, &f, KAC_ROLE_REWARD);

    uint8_t tokens[27][3];
    float out[27];
    for (int s = 0; s < 27; s++) {
        tokens[s][0] = (uint8_t)(s / 9);
        tokens[s][1] = (uint8_t)(s / 3 % 3);
        tokens[s][2] = (uint8_t)(s % 3);
    }
    ask(net, 27, 3, tokens[0], NULL, 1, out);
    expect_bits(out, reward, 27, "reward");
    expect_invariance(&f, KAC_ROLE_REWARD, 27, 3, tokens[0], 1, reward);
    expect_soft_is_tokens(net, 27, 3, tokens[0], reward);

    float *soft = random_soft(3, 3);
    double sum = 0;
    for (int s = 0; s < 27; s++)
        sum += (double)reward[s] * (double)soft[tokens[s][0]] * (double)soft[3 + tokens[s][1]] *
               (double)soft[6 + tokens[s][2]];
    ask(net, 1, 3, NULL, soft, 1, out);
    cr_assert_float_eq((double)out[0], sum, 1e-7);
    free(soft);

    const uint8_t masked[3] = {0, 3, 0};
    ask(net, 1, 3, masked, NULL, 1, out);
    cr_assert(out[0] == 0);
    kac_network_close(net);
    kac_device_close(dev);
    net_file_remove(&f);
}

/* Where some objects have the reward -infinity, the expectation is over the others. */
Test(networks, table_reward_with_missing_objects)
{
    net_file f = {.seed = 2};
    net_file_meta(&f, "kac.arch", "table");
    net_file_meta(&f, "kac.alphabet", "ab");
    net_file_meta(&f, "kac.length", "2");
    float *reward = net_file_fill(&f, net_file_add(&f, KAC_F32, "reward", 1, 4), 2);
    reward[1] = reward[3] = -INFINITY; /* ab and bb */
    kac_device *dev = open_own();
    kac_network *net = open_network(dev, &f, KAC_ROLE_REWARD);
    const uint8_t tokens[4][2] = {{0, 0}, {0, 1}, {1, 0}, {1, 1}};
    const float soft[3][4] = {
        {0.25F, 0.75F, 0.5F, 0.5F}, {0.25F, 0.75F, 1, 0}, {0.25F, 0.75F, 0, 1}};
    const float mean = 0.25F * reward[0] + 0.75F * reward[2];
    float out[4];

    ask(net, 4, 2, tokens[0], NULL, 1, out);
    expect_bits(out, reward, 4, "reward");
    ask(net, 3, 2, NULL, soft[0], 1, out);
    cr_assert_float_eq((double)out[0], (double)mean, 1e-6);
    cr_assert_float_eq((double)out[1], (double)mean, 1e-6);
    cr_assert(out[2] == -INFINITY);
    kac_network_close(net);
    kac_device_close(dev);
    net_file_remove(&f);
}

/* ---- markov ------------------------------------------------------------------------------ */

enum { CHAIN_LENGTH = 5, CHAIN_STATES = 3, CHAIN_OBJECTS = 243, CHAIN_CONTEXTS = 1024 };

static const float chain_initial[3] = {0.5f, 0.3f, 0.2f};
static const float chain_transition[3][3] = {
    {0.1f, 0.6f, 0.3f}, {0.7f, 0.0f, 0.3f}, {0.25f, 0.25f, 0.5f}};

static void chain_file(net_file *f)
{
    net_file_meta(f, "kac.arch", "markov");
    net_file_meta(f, "kac.alphabet", "abc");
    memcpy(net_file_add(f, KAC_F32, "initial", 1, 3), chain_initial, sizeof chain_initial);
    memcpy(net_file_add(f, KAC_F32, "transition", 2, 3, 3), chain_transition,
           sizeof chain_transition);
}

/* The posterior p[l][v] given a context, by enumeration; returns the context's probability. */
static double enumerate(const uint8_t *context, double p[CHAIN_LENGTH][CHAIN_STATES])
{
    double total = 0;
    memset(p, 0, sizeof(double[CHAIN_LENGTH][CHAIN_STATES]));
    for (int s = 0; s < CHAIN_OBJECTS; s++) {
        int x[CHAIN_LENGTH];
        int digits = s;
        double q = 1;
        for (int l = 0; l < CHAIN_LENGTH; l++, digits /= 3) {
            x[l] = digits % 3;
            q *= (double)(l == 0 ? chain_initial[x[0]] : chain_transition[x[l - 1]][x[l]]);
            if (context[l] < 3 && context[l] != x[l]) q = 0;
        }
        total += q;
        for (int l = 0; l < CHAIN_LENGTH; l++)
            p[l][x[l]] += q;
    }
    return total;
}

Test(networks, markov_posteriors_equal_enumeration)
{
    net_file f = {.seed = 3};
    chain_file(&f);
    kac_device *dev = open_own();
    kac_network *net = open_network(dev, &f, KAC_ROLE_DENOISER);
    cr_assert(!net->fixed_length && net->length == 0);

    static uint8_t context[CHAIN_CONTEXTS][CHAIN_LENGTH];
    static float out[CHAIN_CONTEXTS][CHAIN_LENGTH][CHAIN_STATES];
    for (int c = 0; c < CHAIN_CONTEXTS; c++)
        for (int l = 0, digits = c; l < CHAIN_LENGTH; l++, digits /= 4)
            context[c][l] = (uint8_t)(digits % 4);
    ask(net, CHAIN_CONTEXTS, CHAIN_LENGTH, context[0], NULL, CHAIN_LENGTH * CHAIN_STATES,
        out[0][0]);

    int impossible = 0;
    for (int c = 0; c < CHAIN_CONTEXTS; c++) {
        double p[CHAIN_LENGTH][CHAIN_STATES];
        double total = enumerate(context[c], p);
        impossible += total == 0;
        for (int l = 0; l < CHAIN_LENGTH; l++)
            for (int v = 0; v < CHAIN_STATES; v++) {
                double got = (double)out[c][l][v];
                double want = p[l][v] / total;
                if (context[c][l] < 3)
                    want = context[c][l] == v;
                else if (total == 0)
                    want = 1; /* no posterior: logits of 0 */
                cr_assert_float_eq(exp(got), want, 1e-6);
                cr_assert(want > 0 ? isfinite(got) : isinf(got) && got < 0);
            }
    }
    cr_assert(impossible > 0 && impossible < CHAIN_CONTEXTS / 2);
    expect_invariance(&f, KAC_ROLE_DENOISER, 64, CHAIN_LENGTH, context[500],
                      CHAIN_LENGTH * CHAIN_STATES, out[500][0]);
    kac_network_close(net);
    kac_device_close(dev);
    net_file_remove(&f);
}

Test(networks, markov_takes_any_length)
{
    /* Masked throughout, site l has the law initial transition^l; 5000 sites do not underflow.
     */
    enum { LONG = 5000 };
    net_file f = {.seed = 3};
    chain_file(&f);
    kac_device *dev = open_own();
    kac_network *net = open_network(dev, &f, KAC_ROLE_DENOISER);
    static uint8_t tokens[LONG];
    static float out[LONG][3];
    memset(tokens, 3, sizeof tokens);
    ask(net, 1, LONG, tokens, NULL, LONG * 3, out[0]);
    double p[3] = {(double)chain_initial[0], (double)chain_initial[1],
                   (double)chain_initial[2]};
    for (int l = 0; l < LONG; l++) {
        double next[3] = {0};
        for (int v = 0; v < 3; v++)
            cr_assert_float_eq(exp((double)out[l][v]), p[v], 1e-6);
        for (int u = 0; u < 3; u++)
            for (int v = 0; v < 3; v++)
                next[v] += p[u] * (double)chain_transition[u][v];
        double sum = next[0] + next[1] + next[2]; /* 1 up to the rounding of the weights */
        for (int v = 0; v < 3; v++)
            p[v] = next[v] / sum;
    }
    kac_network_close(net);
    kac_device_close(dev);
    net_file_remove(&f);
}

/* ---- pwm --------------------------------------------------------------------------------- */

Test(networks, pwm_sums_the_weights)
{
    enum { L = 9, S = 5, ROWS = 70 };
    net_file f = {.seed = 4};
    net_file_meta(&f, "kac.arch", "pwm");
    net_file_meta(&f, "kac.alphabet", "abcde");
    float *weight = net_file_fill(&f, net_file_add(&f, KAC_F32, "weight", 2, L, S), 3);
    kac_device *dev = open_own();
    kac_network *net = open_network(dev, &f, KAC_ROLE_REWARD);
    cr_assert(net->fixed_length && net->length == L && net->outputs == 1);

    uint8_t *tokens = random_tokens(ROWS * L, S, 8);
    float *soft = random_soft(ROWS * L, S);
    float want[ROWS] = {0};
    float out[ROWS];
    for (int i = 0; i < ROWS; i++)
        for (int l = 0; l < L; l++)
            if (tokens[i * L + l] < S) want[i] += weight[l * S + tokens[i * L + l]];
    ask(net, ROWS, L, tokens, NULL, 1, out);
    expect_bits(out, want, ROWS, "pwm");
    expect_soft_is_tokens(net, ROWS, L, tokens, want);
    expect_invariance(&f, KAC_ROLE_REWARD, ROWS, L, tokens, 1, want);

    ask(net, ROWS, L, NULL, soft, 1, out);
    for (int i = 0; i < ROWS; i++) {
        float sum = 0;
        for (int j = 0; j < L * S; j++)
            sum = fmaf(soft[i * L * S + j], weight[j], sum);
        expect_bits(&out[i], &sum, 1, "soft pwm");
    }
    free(tokens);
    free(soft);
    kac_network_close(net);
    kac_device_close(dev);
    net_file_remove(&f);
}

/* ---- loaders ----------------------------------------------------------------------------- */

Test(networks, loaders_say_what_is_wrong)
{
    net_file f = {.seed = 1};
    float *weight = net_file_fill(&f, net_file_add(&f, KAC_F32, "weight", 2, 3, 2), 1);
    expect_refusal(&f, KAC_ROLE_REWARD, "`kac.arch` is missing");
    net_file_meta(&f, "kac.arch", "resnet");
    expect_refusal(&f, KAC_ROLE_REWARD, "convgru, conv_regressor, pwm, table");
    expect_refusal(&f, KAC_ROLE_DENOISER, "cnn1d, table, markov");
    net_file_meta(&f, "kac.arch", "pwm");
    expect_refusal(&f, KAC_ROLE_DENOISER, "pwm is not a denoiser");
    expect_refusal(&f, KAC_ROLE_REWARD, "`kac.alphabet` is missing");
    net_file_meta(&f, "kac.alphabet", "");
    expect_refusal(&f, KAC_ROLE_REWARD, "0 letters, want 1 to 32");
    net_file_meta(&f, "kac.alphabet", "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456");
    expect_refusal(&f, KAC_ROLE_REWARD, "33 letters");
    net_file_meta(&f, "kac.alphabet", "aba");
    expect_refusal(&f, KAC_ROLE_REWARD, "the letter a twice");
    net_file_meta(&f, "kac.alphabet", "a\t");
    expect_refusal(&f, KAC_ROLE_REWARD, "not printable");
    net_file_meta(&f, "kac.alphabet", "abc");
    expect_refusal(&f, KAC_ROLE_REWARD, "tensor `weight` has shape [3, 2]");
    net_file_meta(&f, "kac.alphabet", "ab");
    net_file_meta(&f, "kac.length", "4");
    expect_refusal(&f, KAC_ROLE_REWARD, "tensor `weight` has shape [3, 2], want [4, 2]");
    net_file_meta(&f, "kac.length", "0");
    expect_refusal(&f, KAC_ROLE_REWARD, "`kac.length`");
    net_file_meta(&f, "kac.length", "3");
    net_file_meta(&f, "kac.role", "denoiser");
    expect_refusal(&f, KAC_ROLE_REWARD, "`kac.role` is `denoiser`");
    net_file_meta(&f, "kac.role", "reward");
    weight[1] = NAN;
    expect_refusal(&f, KAC_ROLE_REWARD, "tensor `weight`: element 1 is");
    weight[1] = 0;

    kac_device *dev = open_device(0);
    kac_network *net = open_network(dev, &f, KAC_ROLE_REWARD);
    cr_assert(kac_network_check_length(net, 3) == KAC_OK);
    cr_assert(kac_network_check_length(net, 4) == KAC_ERR_INVALID);
    cr_assert(strstr(kac_last_error(), "length 3 only, not 4") != NULL, "%s", kac_last_error());
    kac_network_close(net);
    kac_device_close(dev);
    net_file_remove(&f);
}

Test(networks, exact_models_say_what_is_wrong)
{
    net_file f = {.seed = 1};
    net_file_meta(&f, "kac.arch", "table");
    net_file_meta(&f, "kac.alphabet", "ab");
    net_file_add(&f, KAC_F32, "logits", 3, 27, 3, 2);
    expect_refusal(&f, KAC_ROLE_DENOISER, "`kac.length` is missing");
    net_file_meta(&f, "kac.length", "2");
    expect_refusal(&f, KAC_ROLE_DENOISER, "has shape [27, 3, 2], want [9, 2, 2]");
    expect_refusal(&f, KAC_ROLE_REWARD, "tensor `reward` is missing");
    net_file_meta(&f, "kac.length", "40");
    expect_refusal(&f, KAC_ROLE_DENOISER, "more than 2^31 rows");
    net_file_remove(&f);

    f.seed = 2;
    net_file_meta(&f, "kac.arch", "table");
    net_file_meta(&f, "kac.alphabet", "ab");
    net_file_meta(&f, "kac.length", "1");
    float *reward = net_file_add(&f, KAC_F32, "reward", 1, 2);
    reward[1] = INFINITY;
    expect_refusal(&f, KAC_ROLE_REWARD, "element 1 is inf, want a finite number or -inf");
    reward[1] = NAN;
    expect_refusal(&f, KAC_ROLE_REWARD, "element 1 is nan, want a finite number or -inf");
    net_file_remove(&f);

    f.seed = 2;
    net_file_meta(&f, "kac.arch", "markov");
    net_file_meta(&f, "kac.alphabet", "ab");
    float *initial = net_file_add(&f, KAC_F32, "initial", 1, 2);
    float *transition = net_file_add(&f, KAC_F32, "transition", 2, 2, 2);
    initial[0] = transition[0] = transition[3] = 1;
    kac_device *dev = open_device(0);
    kac_network_close(open_network(dev, &f, KAC_ROLE_DENOISER));
    kac_device_close(dev);
    transition[3] = 0.999f;
    expect_refusal(&f, KAC_ROLE_DENOISER, "tensor `transition`: row 1 sums to 0.999");
    transition[3] = 1.5f;
    transition[2] = -0.5f;
    expect_refusal(&f, KAC_ROLE_DENOISER, "row 1 has the probability -0.5");
    net_file_remove(&f);
}
