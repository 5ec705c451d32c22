/* test_vjp.c -- vector-Jacobian products of exact models, and of model files: against central
 * differences of a plain forward in double, against PyTorch, and the same bits for any batch,
 * threads, instruction set and list. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "differences.h"

TestSuite(vjp, .timeout = 120);

/* ---- exact models ----------------------------------------------------------------------- */

enum { LENGTH = 5, STATES = 3, OBJECTS = 243, CONTEXTS = 1024 };

static void digits_of(int number, int base, int *x)
{
    for (int l = LENGTH - 1; l >= 0; l--, number /= base)
        x[l] = number % base;
}

/* log posteriors [LENGTH][STATES] of the law [OBJECTS] under the evidence u_k + u_mask. */
static bool posterior(const double *law, const double *u, double *out)
{
    double total = 0;
    double sum[LENGTH * STATES] = {0};
    for (int o = 0; o < OBJECTS; o++) {
        int x[LENGTH];
        double weight = law[o];
        digits_of(o, STATES, x);
        for (int l = 0; l < LENGTH; l++)
            weight *= u[l * (STATES + 1) + x[l]] + u[l * (STATES + 1) + STATES];
        total += weight;
        for (int l = 0; l < LENGTH; l++)
            sum[l * STATES + x[l]] += weight;
    }
    if (total == 0) return false;
    for (int i = 0; i < LENGTH * STATES; i++)
        out[i] = sum[i] == 0 ? -(double)INFINITY : log(sum[i] / total);
    return true;
}

static const float chain_initial[3] = {0.5f, 0.3f, 0.2f};
static const float chain_transition[3][3] = {
    {0.1f, 0.6f, 0.3f}, {0.7f, 0.0f, 0.3f}, {0.25f, 0.25f, 0.5f}};

/* A law that no chain has, with impossible objects. */
static void make_law(double *law)
{
    uint64_t seed = 41;
    double total = 0;
    for (int o = 0; o < OBJECTS; o++) {
        law[o] = net_file_random(&seed) < -0.6f ? 0.0 : exp(2 * (double)net_file_random(&seed));
        total += law[o];
    }
    for (int o = 0; o < OBJECTS; o++)
        law[o] /= total;
}

static bool plain_markov(const subject *s, const double *u, double *out)
{
    static double law[OBJECTS];
    (void)s;
    for (int o = 0; o < OBJECTS; o++) {
        int x[LENGTH];
        digits_of(o, STATES, x);
        law[o] = (double)chain_initial[x[0]];
        for (int l = 1; l < LENGTH; l++)
            law[o] *= (double)chain_transition[x[l - 1]][x[l]];
    }
    return posterior(law, u, out);
}

static bool plain_law(const subject *s, const double *u, double *out)
{
    double law[OBJECTS];
    (void)s;
    make_law(law);
    return posterior(law, u, out);
}

NETWORK(markov)

NETWORK(table_denoiser)

/* All contexts at once. */
static void check_contexts(const subject *s)
{
    static uint8_t tokens[CONTEXTS][LENGTH];
    for (int i = 0; i < CONTEXTS; i++) {
        int x[LENGTH];
        digits_of(i, STATES + 1, x);
        for (int l = 0; l < LENGTH; l++)
            tokens[i][l] = (uint8_t)x[l];
    }
    check_input(s, tokens[0], NULL);
}

Test(vjp, markov)
{
    const kac_markov_weights w = {STATES, chain_initial, chain_transition[0]};
    const subject s = {"markov",   &w,          CONTEXTS,        LENGTH,
                       STATES,     STATES + 1,  LENGTH * STATES, pack_markov,
                       vjp_markov, drop_markov, plain_markov};
    check_contexts(&s);
}

Test(vjp, table_denoiser)
{
    static const float shift[LENGTH] = {0, 3, -1, 2, 5}; /* says nothing */
    static float logits[CONTEXTS][LENGTH * STATES];
    double law[OBJECTS];
    make_law(law);
    for (int i = 0; i < CONTEXTS; i++) {
        int x[LENGTH];
        double u[LENGTH * (STATES + 1)] = {0};
        double out[LENGTH * STATES] = {0};
        digits_of(i, STATES + 1, x);
        for (int l = 0; l < LENGTH; l++)
            u[l * (STATES + 1) + x[l]] = 1;
        (void)posterior(law, u, out);
        for (int j = 0; j < LENGTH * STATES; j++)
            logits[i][j] = (float)out[j] + shift[j / STATES];
    }
    const kac_table_weights w = {STATES, LENGTH, CONTEXTS, logits[0]};
    const subject s = {"table",
                       &w,
                       CONTEXTS,
                       LENGTH,
                       STATES,
                       STATES + 1,
                       LENGTH * STATES,
                       pack_table_denoiser,
                       vjp_table_denoiser,
                       drop_table_denoiser,
                       plain_law};
    check_contexts(&s);
}

NETWORK(table_reward)

static bool plain_table_reward(const subject *s, const double *u, double *out)
{
    const kac_table_weights *w = s->weights;
    double sum = 0;
    double found = 0;
    double missing = 0;
    for (int o = 0; o < OBJECTS; o++) {
        int x[LENGTH];
        double weight = 1;
        digits_of(o, STATES, x);
        for (int l = 0; l < LENGTH; l++)
            weight *= u[l * STATES + x[l]];
        if (isinf(w->values[o])) {
            missing += weight;
            continue;
        }
        found += weight;
        sum += weight * (double)w->values[o];
    }
    out[0] = missing != 0 ? sum / found : sum;
    return true;
}

Test(vjp, table_reward)
{
    pool p = {.seed = 51};
    const kac_table_weights w = {STATES, LENGTH, OBJECTS, take(&p, OBJECTS, 2)};
    const subject s = {"table",
                       &w,
                       CONTEXTS,
                       LENGTH,
                       STATES,
                       STATES,
                       1,
                       pack_table_reward,
                       vjp_table_reward,
                       drop_table_reward,
                       plain_table_reward};
    check_contexts(&s);
    check(&s);

    /* Entries of -INFINITY: the rest is an average.  At a state they give 0. */
    float *values = p.part[0];
    for (int o = 0; o < OBJECTS; o += 4)
        values[o] = -INFINITY;
    subject some = s;
    some.name = "table with impossible objects";
    some.rows = 20;
    uint64_t seed = 52;
    float *soft = random_floats(&seed, (size_t)(some.rows * LENGTH * STATES), 0.5f);
    for (int i = 0; i < some.rows * LENGTH * STATES; i++)
        soft[i] += 0.51f;
    check_input(&some, NULL, soft);
    free(soft);

    const uint8_t tokens[2][LENGTH] = {{0, 0, 0, 0, 1}, {0, 0, 0, 0, 0}};
    const float cotangent[2] = {1, 1};
    float grad[2][LENGTH][STATES];
    kac_device *dev = open_own();
    kac_net *net = NULL;
    cr_assert(pack_table_reward(dev, &w, &net) == KAC_OK);
    const kac_query q = query_of(&s, tokens[0], NULL, 2);
    differentiate(&s, dev, net, &q, cotangent, grad[0][0]);
    const float last[STATES] = {0, values[1], values[2]};
    expect_bits(grad[0][LENGTH - 1], last, STATES, "table", "beside an impossible object");
    for (int i = 0; i < LENGTH * STATES; i++)
        cr_assert(grad[1][i / STATES][i % STATES] == 0);
    drop_table_reward(dev, net);
    kac_device_close(dev);
    empty(&p);
}

NETWORK(pwm)

static bool plain_pwm(const subject *s, const double *u, double *out)
{
    const kac_pwm_weights *w = s->weights;
    out[0] = 0;
    for (int i = 0; i < s->length * s->states; i++)
        out[0] += u[i] * (double)w->weight[i];
    return true;
}

Test(vjp, pwm)
{
    pool p = {.seed = 61};
    const kac_pwm_weights w = {5, 7, take(&p, 35, 3)};
    const subject s = {"pwm", &w, 9, 7, 5, 5, 1, pack_pwm, vjp_pwm, drop_pwm, plain_pwm};
    check(&s);
    empty(&p);
}

/* ---- model files ------------------------------------------------------------------------ */

static const void *tensor(const kac_tensors *file, const char *name, int64_t *shape)
{
    const kac_tensor *x = kac_tensors_find(file, name);
    cr_assert(x != NULL, "%s: no %s", kac_tensors_path(file), name);
    if (shape != NULL) memcpy(shape, x->shape, 3 * sizeof *shape);
    return x->data;
}

static void check_recorded(const kac_network *net, const kac_query *q, const float *cotangent,
                           const float *want, int row)
{
    float *grad = make((size_t)(q->capacity * row), sizeof *grad);
    double *wanted = make((size_t)row, sizeof *wanted);
    cr_assert(kac_network_vjp(net, q, cotangent, grad) == KAC_OK, "%s", kac_last_error());
    for (int i = 0; i < q->capacity; i++) {
        for (int j = 0; j < row; j++)
            wanted[j] = (double)want[i * row + j];
        expect_close(grad + i * row, wanted, row, net->path, i);
    }
    free(grad);
    free(wanted);
}

/* tools/make_goldens.py: gradients that PyTorch computed in float64. */
static void check_golden(const char *model, const char *name, kac_role role, kac_device *dev)
{
    char path[128];
    kac_network *net = NULL;
    kac_tensors *file = NULL;
    if (dev == NULL) return;
    snprintf(path, sizeof path, "tests/golden/%s_vjp.safetensors", name);
    cr_assert(kac_tensors_open(path, &file) == KAC_OK, "%s", kac_last_error());
    cr_assert(kac_network_open(dev, model, role, &net) == KAC_OK, "%s", kac_last_error());
    int64_t shape[3];
    const uint8_t *tokens = tensor(file, "tokens", shape);
    const int rows = (int)shape[0];
    const int length = (int)shape[1];
    const float *recorded_sigma = net->reads_time ? tensor(file, "sigma", NULL) : NULL;
    const int row = length * (role == KAC_ROLE_DENOISER ? net->states + 1 : net->states);
    const int outputs = role == KAC_ROLE_DENOISER ? length * net->states : net->outputs;
    const float *cotangent = tensor(file, "cotangent", NULL);
    const float *want = tensor(file, "gradient", NULL);
    for (int i = 0; i < rows; i++) {
        const kac_level at = {.sigma = recorded_sigma != NULL ? recorded_sigma[i] : 0};
        const kac_query q = {.tokens = tokens + i * length,
                             .stride = length,
                             .length = length,
                             .capacity = 1,
                             .levels = &at,
                             .clock = &start};
        check_recorded(net, &q, cotangent + i * outputs, want + i * row, row);
    }
    if (role == KAC_ROLE_REWARD) {
        const float *soft = tensor(file, "probabilities", shape);
        const kac_query q = {.soft = soft, .length = length, .capacity = (int32_t)shape[0]};
        check_recorded(net, &q, tensor(file, "cotangent_probabilities", NULL),
                       tensor(file, "gradient_probabilities", NULL), row);
    }
    kac_network_close(net);
    kac_tensors_close(file);
    kac_device_close(dev);
}

Test(vjp, goldens_agree_with_pytorch)
{
    static const struct {
        const char *folder, *name;
        kac_role role;
    } files[] = {
        {"models", "promoter_denoiser", KAC_ROLE_DENOISER},
        {"models", "promoter_expression", KAC_ROLE_REWARD},
        {"tests/golden", "cnn1d_time", KAC_ROLE_DENOISER},
        {"tests/golden", "cnn1d_protein", KAC_ROLE_DENOISER},
        {"tests/golden", "convgru_norm", KAC_ROLE_REWARD},
        {"tests/golden", "conv_regressor_flatten", KAC_ROLE_REWARD},
        {"tests/golden", "conv_regressor_globalmax", KAC_ROLE_REWARD},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        for (int which = 0; which <= OWN_DEVICE; which++) {
            char model[128];
            snprintf(model, sizeof model, "%s/%s.safetensors", files[i].folder, files[i].name);
            check_golden(model, files[i].name, files[i].role, open_device(which));
        }
}

Test(vjp, refuses_what_the_forward_refuses)
{
    const float soft[4] = {1, 0, 0, 1};
    const uint8_t tokens[2] = {0, 1};
    float cotangent[4] = {0};
    float grad[6];
    net_file f = {.seed = 1};
    net_file_meta(&f, "kac.arch", "table");
    net_file_meta(&f, "kac.alphabet", "ab");
    net_file_meta(&f, "kac.length", "2");
    net_file_add(&f, KAC_F32, "logits", 3, 9, 2, 2);
    kac_device *dev = open_own();
    kac_network *net = NULL;
    cr_assert(kac_network_open(dev, net_file_write(&f), KAC_ROLE_DENOISER, &net) == KAC_OK,
              "%s", kac_last_error());
    kac_query q = {.soft = soft, .tokens = tokens, .stride = 2, .length = 2, .capacity = 1};
    cr_assert(kac_network_vjp(net, &q, cotangent, grad) == KAC_ERR_UNSUPPORTED);
    cr_assert(strstr(kac_last_error(), "table does not take probabilities") != NULL);
    q.soft = NULL;
    cr_assert(kac_network_vjp(net, &q, cotangent, grad) == KAC_OK);
    cr_assert(kac_network_vjp(net, &q, NULL, grad) == KAC_ERR_INVALID);
    kac_network_close(net);
    kac_device_close(dev);
    net_file_remove(&f);
}
