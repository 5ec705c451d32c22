/* device_cpu.c -- memory and the operation table of the CPU backend. */
#include <stdlib.h>
#include <string.h>

#include "ops.h"

static kac_status cpu_open(kac_device *dev, int ordinal)
{
    if (ordinal != 0)
        return KAC_FAIL(KAC_ERR_INVALID, "device \"cpu:%d\": there is only \"cpu:0\"", ordinal);
    dev->ordinal = ordinal;
    dev->stream = NULL;
    return KAC_OK;
}

static void cpu_close(kac_device *dev)
{
    (void)dev;
}

static void *cpu_alloc(kac_device *dev, size_t bytes)
{
    (void)dev;
    void *ptr = NULL;
    if (bytes <= SIZE_MAX - 64) {
        size_t padded = bytes > 0 ? (bytes + 63) / 64 * 64 : 64;
        ptr = aligned_alloc(64, padded);
        if (ptr != NULL) return memset(ptr, 0, padded);
    }
    kac_note("cpu: no room for %zu bytes", bytes);
    return NULL;
}

static void cpu_release(kac_device *dev, void *ptr)
{
    (void)dev;
    free(ptr);
}

static kac_status cpu_copy(kac_device *dev, void *dst, const void *src, size_t bytes)
{
    (void)dev;
    if (bytes > 0) memcpy(dst, src, bytes);
    return KAC_OK;
}

const kac_ops kac_cpu_ops = {
    .name = "cpu",
    .memory =
        {
            .open = cpu_open,
            .close = cpu_close,
            .alloc = cpu_alloc,
            .release = cpu_release,
            .copy = cpu_copy,
            .upload = cpu_copy,
            .download = cpu_copy,
        },
    .states =
        {
            .clear = kac_cpu_clear,
            .sweep = kac_cpu_sweep,
            .forget = kac_cpu_forget,
            .find = kac_cpu_find,
            .assign = kac_cpu_assign,
            .recall = kac_cpu_recall,
            .learn = kac_cpu_learn,
            .locate = kac_cpu_locate,
        },
    .masked =
        {
            .start = kac_cpu_masked_start,
            .propose = kac_cpu_masked_propose,
            .complete = kac_cpu_masked_complete,
            .soften = kac_cpu_masked_soften,
            .imagine = kac_cpu_masked_imagine,
            .renoise = kac_cpu_masked_renoise,
            .score = kac_cpu_masked_score,
        },
    .gaussian =
        {
            .start = kac_cpu_gaussian_start,
            .propose = kac_cpu_gaussian_propose,
            .complete = kac_cpu_gaussian_complete,
            .soften = kac_cpu_gaussian_soften,
            .imagine = kac_cpu_gaussian_imagine,
            .renoise = kac_cpu_gaussian_renoise,
            .score = kac_cpu_gaussian_score,
        },
    .particles =
        {
            .tick = kac_cpu_tick,
            .value = kac_cpu_value,
            .temper = kac_cpu_temper,
            .weigh = kac_cpu_weigh,
            .select_parent = kac_cpu_select_parent,
            .select_group = kac_cpu_select_group,
            .survive = kac_cpu_survive,
        },
    .networks =
        {
            .add = kac_cpu_add,
            .cnn1d = {kac_cpu_cnn1d_pack, kac_cpu_cnn1d_forward, kac_cpu_cnn1d_drop},
            .table_denoiser = {kac_cpu_table_denoiser_pack, kac_cpu_table_denoiser_forward,
                               kac_cpu_table_denoiser_drop},
            .table_reward = {kac_cpu_table_reward_pack, kac_cpu_table_reward_forward,
                             kac_cpu_table_reward_drop},
            .markov = {kac_cpu_markov_pack, kac_cpu_markov_forward, kac_cpu_markov_drop},
            .pwm = {kac_cpu_pwm_pack, kac_cpu_pwm_forward, kac_cpu_pwm_drop},
            .conv_regressor = {kac_cpu_conv_regressor_pack, kac_cpu_conv_regressor_forward,
                               kac_cpu_conv_regressor_drop},
            .convgru = {kac_cpu_convgru_pack, kac_cpu_convgru_forward, kac_cpu_convgru_drop},
            .gmm = {kac_cpu_gmm_pack, kac_cpu_gmm_forward, kac_cpu_gmm_vjp, kac_cpu_gmm_drop},
            .quadratic = {kac_cpu_quadratic_pack, kac_cpu_quadratic_forward,
                          kac_cpu_quadratic_vjp, kac_cpu_quadratic_drop},
        },
};
