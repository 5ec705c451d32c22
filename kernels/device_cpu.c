/* device_cpu.c -- memory and the operation table of the CPU backend. */
#include <stdio.h>
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

static kac_status cpu_enter(kac_device *dev)
{
    (void)dev;
    return KAC_OK;
}

/* "model name" of the first processor. */
static kac_status cpu_describe(int ordinal, char *text, size_t size)
{
    char line[512];
    if (ordinal != 0) return KAC_FAIL(KAC_ERR_UNSUPPORTED, "there is only \"cpu:0\"");
    if (size > 0) text[0] = '\0';
    FILE *info = fopen("/proc/cpuinfo", "re");
    if (info == NULL) return KAC_OK;
    while (fgets(line, sizeof line, info) != NULL) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || colon == NULL) continue;
        line[strcspn(line, "\n")] = '\0';
        snprintf(text, size, "%s", colon + 2);
        break;
    }
    (void)fclose(info);
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

/* What is asked of a CPU is done at once. */
static kac_status cpu_ready(kac_device *dev, bool *ready)
{
    (void)dev;
    *ready = true;
    return KAC_OK;
}

static kac_status cpu_identify(kac_device *dev, uint8_t id[16])
{
    (void)dev, (void)id;
    return KAC_FAIL(KAC_ERR_UNSUPPORTED, "cpu: it is no GPU");
}

static kac_status cpu_record(kac_device *dev)
{
    (void)dev;
    return KAC_FAIL(KAC_ERR_UNSUPPORTED, "cpu: operations are not recorded");
}

static kac_status cpu_stop(kac_device *dev, void **recording)
{
    (void)recording;
    return cpu_record(dev);
}

static kac_status cpu_play(kac_device *dev, void *recording)
{
    (void)recording;
    return cpu_record(dev);
}

static void cpu_erase(kac_device *dev, void *recording)
{
    (void)dev, (void)recording;
}

static kac_status measure_nothing(kac_device *dev, const kac_propose_args *a, kac_norms *norms)
{
    (void)dev, (void)a, (void)norms;
    return KAC_FAIL(KAC_ERR_UNSUPPORTED, "only graphs move together");
}

const kac_ops kac_cpu_ops = {
    .name = "cpu",
    .memory =
        {
            .open = cpu_open,
            .enter = cpu_enter,
            .close = cpu_close,
            .describe = cpu_describe,
            .alloc = cpu_alloc,
            .release = cpu_release,
            .copy = cpu_copy,
            .upload = cpu_copy,
            .download = cpu_copy,
            .ready = cpu_ready,
            .identify = cpu_identify,
            .record = cpu_record,
            .stop = cpu_stop,
            .play = cpu_play,
            .erase = cpu_erase,
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
            .carry = kac_cpu_carry,
        },
    .masked =
        {
            .start = kac_cpu_masked_start,
            .blend = kac_cpu_masked_blend,
            .measure = measure_nothing,
            .propose = kac_cpu_masked_propose,
            .complete = kac_cpu_masked_complete,
            .soften = kac_cpu_masked_soften,
            .imagine = kac_cpu_masked_imagine,
            .slope = kac_cpu_masked_slope,
            .tilt = kac_cpu_masked_tilt,
            .renoise = kac_cpu_masked_renoise,
            .score = kac_cpu_masked_score,
            .remask = kac_cpu_masked_remask,
        },
    .gaussian =
        {
            .start = kac_cpu_gaussian_start,
            .blend = kac_cpu_gaussian_blend,
            .measure = measure_nothing,
            .propose = kac_cpu_gaussian_propose,
            .complete = kac_cpu_gaussian_complete,
            .soften = kac_cpu_gaussian_soften,
            .imagine = kac_cpu_gaussian_imagine,
            .slope = kac_cpu_gaussian_slope,
            .tilt = kac_cpu_gaussian_tilt,
            .renoise = kac_cpu_gaussian_renoise,
            .score = kac_cpu_gaussian_score,
            .remask = kac_cpu_gaussian_remask,
        },
    .graph =
        {
            .start = kac_cpu_graph_start,
            .blend = kac_cpu_graph_blend,
            .measure = kac_cpu_graph_measure,
            .propose = kac_cpu_graph_propose,
            .complete = kac_cpu_graph_complete,
            .soften = kac_cpu_graph_soften,
            .imagine = kac_cpu_graph_imagine,
            .slope = kac_cpu_graph_slope,
            .tilt = kac_cpu_graph_tilt,
            .renoise = kac_cpu_graph_renoise,
            .score = kac_cpu_graph_score,
            .remask = kac_cpu_graph_remask,
        },
    .particles =
        {
            .tick = kac_cpu_tick,
            .value = kac_cpu_value,
            .cotangent = kac_cpu_cotangent,
            .axpy = kac_cpu_axpy,
            .temper = kac_cpu_temper,
            .weigh = kac_cpu_weigh,
            .select_parent = kac_cpu_select_parent,
            .select_group = kac_cpu_select_group,
            .survive = kac_cpu_survive,
            .regroup = kac_cpu_regroup,
            .reset = kac_cpu_reset,
            .renew = kac_cpu_renew,
            .elect = kac_cpu_elect,
            .retrace = kac_cpu_retrace,
            .stamp = kac_cpu_stamp,
            .summarise = kac_cpu_summarise,
            .recruit = kac_cpu_recruit,
            .follow = kac_cpu_follow,
            .enlist = kac_cpu_enlist,
            .settle = kac_cpu_settle,
        },
    .search =
        {
            .spread = kac_cpu_spread,
            .path = kac_cpu_path,
            .prune = kac_cpu_prune,
            .plant = kac_cpu_tree_plant,
            .select = kac_cpu_tree_select,
            .advance = kac_cpu_tree_advance,
            .backup = kac_cpu_tree_backup,
            .commit = kac_cpu_tree_commit,
            .draw = kac_cpu_tree_draw,
        },
    .networks =
        {
            .cnn1d = {kac_cpu_cnn1d_pack, kac_cpu_cnn1d_forward, kac_cpu_cnn1d_vjp,
                      kac_cpu_cnn1d_drop},
            .table_denoiser = {kac_cpu_table_denoiser_pack, kac_cpu_table_denoiser_forward,
                               kac_cpu_table_denoiser_vjp, kac_cpu_table_denoiser_drop},
            .table_reward = {kac_cpu_table_reward_pack, kac_cpu_table_reward_forward,
                             kac_cpu_table_reward_vjp, kac_cpu_table_reward_drop},
            .markov = {kac_cpu_markov_pack, kac_cpu_markov_forward, kac_cpu_markov_vjp,
                       kac_cpu_markov_drop},
            .pwm = {kac_cpu_pwm_pack, kac_cpu_pwm_forward, kac_cpu_pwm_vjp, kac_cpu_pwm_drop},
            .conv_regressor = {kac_cpu_conv_regressor_pack, kac_cpu_conv_regressor_forward,
                               kac_cpu_conv_regressor_vjp, kac_cpu_conv_regressor_drop},
            .convgru = {kac_cpu_convgru_pack, kac_cpu_convgru_forward, kac_cpu_convgru_vjp,
                        kac_cpu_convgru_drop},
            .filter = {kac_cpu_filter_pack, kac_cpu_filter_forward, kac_cpu_filter_drop},
            .gmm = {kac_cpu_gmm_pack, kac_cpu_gmm_forward, kac_cpu_gmm_vjp, kac_cpu_gmm_drop},
            .quadratic = {kac_cpu_quadratic_pack, kac_cpu_quadratic_forward,
                          kac_cpu_quadratic_vjp, kac_cpu_quadratic_drop},
            .gdss = {kac_cpu_gdss_pack, kac_cpu_gdss_forward, kac_cpu_gdss_vjp,
                     kac_cpu_gdss_drop},
            .gin = {kac_cpu_gin_pack, kac_cpu_gin_forward, kac_cpu_gin_vjp, kac_cpu_gin_drop},
        },
};
