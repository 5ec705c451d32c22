/* test_verify.c -- kac_verify: agreement with PyTorch's recordings, and what it refuses. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "net_file.h"
#include "optimus.h"

TestSuite(verify, .timeout = 60);

/* kac_verify with what it writes in `text`. */
static kac_status verify(const char *model, const char *recording, const char *isa, char *text,
                         size_t size, double *worst)
{
    FILE *out = fmemopen(text, size, "w");
    cr_assert_not_null(out);
    double tolerance = 0;
    kac_status status = kac_verify(model, recording, "cpu", isa, out, worst, &tolerance);
    cr_assert(fclose(out) == 0);
    return status;
}

Test(verify, goldens_agree_with_pytorch)
{
    /* tools/make_goldens.py: random weights, outputs computed in float64. */
    const char *const names[] = {
        "cnn1d_folded",
        "cnn1d_time",
        "cnn1d_protein",
        "convgru_plain",
        "convgru_norm",
        "conv_regressor_flatten",
        "conv_regressor_globalmax",
        "conv_regressor_globalavg",
        "gin",
    };
    const char *const isas[] = {"portable", "avx2", "avx512", "auto"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        double first = -1;
        for (int j = 0; j < 4; j++) {
            char model[128];
            char recording[128];
            char text[1024] = "";
            double worst = -1;
            snprintf(model, sizeof model, "tests/golden/%s.safetensors", names[i]);
            snprintf(recording, sizeof recording, "tests/golden/%s_recording.safetensors",
                     names[i]);
            kac_status status = verify(model, recording, isas[j], text, sizeof text, &worst);
            if (status == KAC_ERR_UNSUPPORTED) continue; /* an older processor */
            cr_assert(status == KAC_OK, "%s", kac_last_error());
            cr_assert(worst >= 0 && worst < 1e-4, "%s, %s: %g\n%s", names[i], isas[j], worst,
                      text);
            const char *last = i < 3   ? "logits ["
                               : i < 8 ? "output_probabilities ["
                                       : "output [";
            cr_assert(strstr(text, last) != NULL);
            if (first < 0) first = worst;
            cr_assert(worst == first, "%s: %s differs from portable", names[i], isas[j]);
        }
    }
}

/* A pwm of 3 sites over "ab", and a recording of it that is right. */
static void pwm_files(net_file *model, net_file *recording)
{
    net_file_meta(model, "kac.arch", "pwm");
    net_file_meta(model, "kac.alphabet", "ab");
    float *weight = net_file_add(model, KAC_F32, "weight", 2, 3, 2);
    for (int i = 0; i < 6; i++)
        weight[i] = (float)i;
    uint8_t *tokens = net_file_add(recording, KAC_U8, "tokens", 2, 2, 3);
    const uint8_t rows[6] = {0, 1, 0, 1, 1, 1};
    memcpy(tokens, rows, sizeof rows);
    float *output = net_file_add(recording, KAC_F32, "output", 2, 2, 1);
    output[0] = 0 + 3 + 4;
    output[1] = 1 + 3 + 5;
    float *soft = net_file_add(recording, KAC_F32, "probabilities", 3, 1, 3, 2);
    for (int i = 0; i < 6; i++)
        soft[i] = 0.5f;
    float *mean = net_file_add(recording, KAC_F32, "output_probabilities", 2, 1, 1);
    mean[0] = 7.5f;
    net_file_write(model);
}

Test(verify, reports_the_largest_relative_difference)
{
    net_file model = {0};
    net_file recording = {0};
    char text[1024] = "";
    double worst = -1;
    pwm_files(&model, &recording);
    net_file_write(&recording);
    cr_assert(verify(model.path, recording.path, "auto", text, sizeof text, &worst) == KAC_OK,
              "%s", kac_last_error());
    cr_assert(worst == 0);
    cr_assert_str_eq(text, "output [2, 1] 0\noutput_probabilities [1, 1] 0\n");

    float *output = recording.data[1];
    output[0] = 8; /* |7 - 8| / max|8, 9| */
    net_file_write(&recording);
    cr_assert(verify(model.path, recording.path, "auto", text, sizeof text, &worst) == KAC_OK);
    cr_assert_float_eq(worst, 1.0 / 9, 1e-12);

    output[0] = NAN;
    net_file_write(&recording);
    cr_assert(verify(model.path, recording.path, "auto", text, sizeof text, &worst) == KAC_OK);
    cr_assert(isnan(worst));
    net_file_remove(&model);
    net_file_remove(&recording);
}

Test(verify, compares_a_denoiser_with_or_without_the_mask)
{
    net_file model = {0};
    net_file_meta(&model, "kac.arch", "table");
    net_file_meta(&model, "kac.alphabet", "ab");
    net_file_meta(&model, "kac.length", "1");
    float *logits = net_file_add(&model, KAC_F32, "logits", 3, 3, 1, 2);
    for (int i = 0; i < 6; i++)
        logits[i] = (float)(i + 1);
    net_file_write(&model);
    for (int mask = 0; mask < 2; mask++) {
        net_file recording = {0};
        char text[256] = "";
        double worst = -1;
        uint8_t *tokens = net_file_add(&recording, KAC_U8, "tokens", 2, 2, 1);
        float *sigma = net_file_add(&recording, KAC_F32, "sigma", 1, 2);
        float *want = net_file_add(&recording, KAC_F32, "logits", 3, 2, 1, 2 + mask);
        tokens[0] = 2;
        tokens[1] = 0;
        sigma[0] = 1;
        want[0] = 5;
        want[1] = 6;
        want[2] = 99; /* the mask's logit, or the first of row 1 */
        want[2 + mask] = 1;
        want[3 + mask] = 2.5f; /* 2 */
        net_file_write(&recording);
        cr_assert(verify(model.path, recording.path, "portable", text, sizeof text, &worst) ==
                      KAC_OK,
                  "%s", kac_last_error());
        cr_assert_float_eq(worst, 0.5 / 6, 1e-12);
        net_file_remove(&recording);
    }
    net_file_remove(&model);
}

static void expect_refusal(const net_file *model, net_file *recording, const char *isa,
                           const char *says)
{
    char text[256] = "";
    double worst = 42;
    kac_status status =
        verify(model->path, net_file_write(recording), isa, text, sizeof text, &worst);
    cr_assert(status == KAC_ERR_INVALID && worst == 42, "want a refusal that says: %s", says);
    cr_assert(strstr(kac_last_error(), says) != NULL, "\"%s\" does not say \"%s\"",
              kac_last_error(), says);
}

static void rename_tensor(net_file *f, int i, const char *name)
{
    snprintf(f->name[i], sizeof f->name[i], "%s", name);
}

Test(verify, says_what_is_wrong_with_a_recording)
{
    net_file model = {0};
    net_file r = {0};
    pwm_files(&model, &r);
    expect_refusal(&model, &r, "sse", "isa `sse`: want auto");
    uint8_t *tokens = r.data[0];
    tokens[4] = 3;
    expect_refusal(&model, &r, "auto", "tensor `tokens`: element 4 is 3, want 0 to 2");
    tokens[4] = 0;

    r.tensor[1].shape[0] = 1; /* output, one row short */
    r.tensor[1].bytes = 4;
    expect_refusal(&model, &r, "auto", "tensor `output` is F32 [1, 1], want F32 [2, 1]");
    r.tensor[0].shape[0] = 3; /* tokens of length 2 */
    r.tensor[0].shape[1] = 2;
    expect_refusal(&model, &r, "auto", "length 3 only, not 2");
    rename_tensor(&r, 0, "token");
    expect_refusal(&model, &r, "auto", "tensor `tokens` is missing");
    rename_tensor(&r, 1, "outputs");
    rename_tensor(&r, 2, "soft");
    expect_refusal(&model, &r, "auto", "tensor `probabilities` is missing");
    rename_tensor(&r, 3, "outputs2");
    expect_refusal(&model, &r, "auto", "nothing to compare");
    rename_tensor(&r, 1, "logits");
    expect_refusal(&model, &r, "auto", "pwm is not a denoiser");
    net_file_remove(&model);
    net_file_remove(&r);
}

/* ---- Optimus 5-prime -----------------------------------------------------------------------
 */

/* Writes the golden sequences (an N, all zeros, is a mask) and outputs as a recording. */
static void convert_recording(const optimus *o, const kac_tensors *golden, const char *path)
{
    const kac_tensor *onehot = kac_tensors_find(golden, "onehot");
    const kac_tensor *output = kac_tensors_find(golden, o->outputs);
    cr_assert(onehot != NULL && output != NULL);
    int64_t rows = onehot->shape[0], length = onehot->shape[1];
    const float *x = onehot->data;
    uint8_t *tokens = calloc((size_t)(rows * length), 1);
    cr_assert_not_null(tokens);
    for (int64_t i = 0; i < rows * length; i++) {
        tokens[i] = 4;
        for (uint8_t k = 0; k < 4; k++)
            if (x[4 * i + k] == 1) tokens[i] = k;
    }
    kac_tensor tensor[] = {
        {"tokens", KAC_U8, 2, {rows, length}, tokens, (size_t)(rows * length)}, *output};
    tensor[1].name = "output";
    tensor[1].rank = 2;
    tensor[1].shape[1] = output->rank == 2 ? output->shape[1] : 1;
    cr_assert_eq(kac_tensors_write(path, NULL, 0, tensor, 2), KAC_OK, "%s", kac_last_error());
    free(tokens);
}

Test(verify, optimus_5_prime_agrees_with_its_recording)
{
    char dir[256], source[300], model[300], recording[300], text[1024];
    kac_tensors *golden = NULL;
    if (access(OPTIMUS_DATA, R_OK) != 0) cr_skip_test(OPTIMUS_DATA " is absent");
    scratch_create(dir, sizeof dir);
    snprintf(model, sizeof model, "%s/model", dir);
    snprintf(recording, sizeof recording, "%s/recording", dir);
    cr_assert_eq(kac_tensors_open(OPTIMUS_DATA "/golden_optimus.safetensors", &golden), KAC_OK,
                 "%s", kac_last_error());
    for (int i = 0; i < OPTIMUS_FILES; i++) {
        const optimus *o = &optimus_published[i];
        double worst = 1;
        snprintf(source, sizeof source, OPTIMUS_DATA "/%s.safetensors", o->file);
        cr_assert_eq(optimus_convert(o, source, model), KAC_OK, "%s", kac_last_error());
        convert_recording(o, golden, recording);
        cr_assert_eq(verify(model, recording, "auto", text, sizeof text, &worst), KAC_OK, "%s",
                     kac_last_error());
        cr_expect_lt(worst, 1e-4, "%s: %g", o->file, worst);
    }
    kac_tensors_close(golden);
    unlink(model);
    unlink(recording);
    rmdir(dir);
}
