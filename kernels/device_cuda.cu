/* device_cuda.cu -- memory and the operation table of the CUDA backend, and its one door.
 *
 * The backend is a shared object that the library opens where a driver may be (host/step/
 * device.c): a machine without CUDA runs the same program.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cuda_backend.h"
#include "primitives.cuh"

/* ---- errors ------------------------------------------------------------------------------- */

static kac_cuda_note_fn *tell; /* the library's kac_note, for texts that are whole */

void kac_note(const char *fmt, ...)
{
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (tell != NULL) tell("%s", text);
}

kac_status kac_cuda_status(cudaError_t err, const char *what)
{
    if (err == cudaSuccess) return KAC_OK;
    (void)cudaGetLastError();
    return KAC_FAIL(err == cudaErrorMemoryAllocation ? KAC_ERR_NOMEM : KAC_ERR_DEVICE,
                    "cuda: %s: %s", what, cudaGetErrorString(err));
}

/* ---- the device --------------------------------------------------------------------------- */

static kac_status count_devices(int *count)
{
    cudaError_t err = cudaGetDeviceCount(count);
    if (err == cudaSuccess && *count > 0) return KAC_OK;
    (void)cudaGetLastError();
    return KAC_FAIL(KAC_ERR_UNSUPPORTED, "no GPU that CUDA can use: %s",
                    err == cudaSuccess ? "the driver lists none" : cudaGetErrorString(err));
}

static kac_status find_device(int ordinal)
{
    int count = 0;
    KAC_TRY(count_devices(&count));
    if (ordinal < count) return KAC_OK;
    return KAC_FAIL(KAC_ERR_UNSUPPORTED,
                    "device \"cuda:%d\": this machine's last is \"cuda:%d\"", ordinal,
                    count - 1);
}

static kac_status cuda_describe(int ordinal, char *text, size_t size)
{
    cudaDeviceProp prop;
    KAC_TRY(find_device(ordinal));
    KAC_TRY(kac_cuda_status(cudaGetDeviceProperties(&prop, ordinal), "properties"));
    snprintf(text, size, "%s, %.0f GiB, %d multiprocessors, compute capability %d.%d",
             prop.name, (double)prop.totalGlobalMem / (1 << 30), prop.multiProcessorCount,
             prop.major, prop.minor);
    return KAC_OK;
}

static void cuda_close(kac_device *dev)
{
    (void)cudaFree(dev->scratch);
    if (dev->stream != NULL) (void)cudaStreamDestroy(kac_stream(dev));
    dev->scratch = NULL;
    dev->scratch_bytes = 0;
    dev->stream = NULL;
}

static kac_status cuda_enter(kac_device *dev)
{
    return kac_cuda_status(cudaSetDevice(dev->ordinal), "cudaSetDevice");
}

static kac_status cuda_open(kac_device *dev, int ordinal)
{
    cudaStream_t stream = NULL;
    dev->ordinal = ordinal;
    KAC_TRY(find_device(ordinal));
    KAC_TRY(cuda_enter(dev));
    KAC_TRY(kac_cuda_status(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
                            "cudaStreamCreate"));
    dev->stream = stream;
    dev->records = true;
    return KAC_OK;
}

/* ---- memory ------------------------------------------------------------------------------- */

static void *cuda_alloc(kac_device *dev, size_t bytes)
{
    void *ptr = NULL;
    size_t padded = bytes > 0 ? (bytes + 63) / 64 * 64 : 64;
    cudaError_t err = padded >= bytes ? cudaMalloc(&ptr, padded) : cudaErrorMemoryAllocation;
    if (err == cudaSuccess) err = cudaMemsetAsync(ptr, 0, padded, kac_stream(dev));
    if (err == cudaSuccess) return ptr;
    (void)cudaGetLastError();
    (void)cudaFree(ptr);
    kac_note("cuda: no room for %zu bytes on the device", bytes);
    return NULL;
}

static void cuda_release(kac_device *dev, void *ptr)
{
    (void)dev;
    (void)cudaFree(ptr);
}

static kac_status cuda_copy(kac_device *dev, void *dst, const void *src, size_t bytes)
{
    if (bytes == 0) return KAC_OK;
    return kac_cuda_status(
        cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice, kac_stream(dev)), "copy");
}

/* From pageable memory the call returns when the source has been read. */
static kac_status cuda_upload(kac_device *dev, void *dst, const void *host_src, size_t bytes)
{
    if (bytes == 0) return KAC_OK;
    return kac_cuda_status(
        cudaMemcpyAsync(dst, host_src, bytes, cudaMemcpyHostToDevice, kac_stream(dev)),
        "upload");
}

static kac_status cuda_download(kac_device *dev, void *host_dst, const void *src, size_t bytes)
{
    if (bytes == 0) return KAC_OK;
    dev->waits++;
    KAC_TRY(kac_cuda_status(
        cudaMemcpyAsync(host_dst, src, bytes, cudaMemcpyDeviceToHost, kac_stream(dev)),
        "download"));
    return kac_cuda_status(cudaStreamSynchronize(kac_stream(dev)), "download");
}

static kac_status cuda_ready(kac_device *dev, bool *ready)
{
    cudaError_t err = cudaStreamQuery(kac_stream(dev));
    *ready = err != cudaErrorNotReady;
    if (*ready) return kac_cuda_status(err, "ready");
    (void)cudaGetLastError();
    return KAC_OK;
}

static kac_status cuda_identify(kac_device *dev, uint8_t id[16])
{
    cudaDeviceProp prop;
    KAC_TRY(kac_cuda_status(cudaGetDeviceProperties(&prop, dev->ordinal), "properties"));
    static_assert(sizeof prop.uuid == 16);
    memcpy(id, &prop.uuid, sizeof prop.uuid);
    for (int i = 0; i < 16; i++)
        if (id[i] != 0) return KAC_OK;
    return KAC_FAIL(KAC_ERR_UNSUPPORTED, "cuda: this GPU does not say which it is");
}

kac_status kac_cuda_scratch(kac_device *dev, size_t bytes, void **out)
{
    if (bytes > dev->scratch_bytes) {
        (void)cudaFree(dev->scratch); /* waits for what still uses it */
        dev->waits++;
        dev->scratch_bytes = 0;
        dev->scratch = cuda_alloc(dev, bytes);
        if (dev->scratch == NULL) return KAC_ERR_NOMEM;
        dev->scratch_bytes = bytes;
    }
    *out = dev->scratch;
    return KAC_OK;
}

/* ---- recordings --------------------------------------------------------------------------- */

static kac_status cuda_record(kac_device *dev)
{
    return kac_cuda_status(
        cudaStreamBeginCapture(kac_stream(dev), cudaStreamCaptureModeRelaxed), "record");
}

static kac_status cuda_stop(kac_device *dev, void **recording)
{
    cudaGraph_t graph = NULL;
    cudaGraphExec_t ready = NULL;
    KAC_TRY(kac_cuda_status(cudaStreamEndCapture(kac_stream(dev), &graph), "stop"));
    cudaError_t err = cudaGraphInstantiate(&ready, graph, 0);
    (void)cudaGraphDestroy(graph);
    KAC_TRY(kac_cuda_status(err, "stop"));
    *recording = ready;
    return KAC_OK;
}

static kac_status cuda_play(kac_device *dev, void *recording)
{
    return kac_cuda_status(cudaGraphLaunch((cudaGraphExec_t)recording, kac_stream(dev)),
                           "play");
}

static void cuda_erase(kac_device *dev, void *recording)
{
    (void)dev;
    if (recording != NULL) (void)cudaGraphExecDestroy((cudaGraphExec_t)recording);
}

/* ---- tables ------------------------------------------------------------------------------- */

static kac_status measure_nothing(kac_device *dev, const kac_propose_args *a, kac_norms *norms)
{
    (void)dev, (void)a, (void)norms;
    return KAC_FAIL(KAC_ERR_UNSUPPORTED, "only graphs move together");
}

static const kac_ops cuda_ops = {
    .name = "cuda",
    .memory =
        {
            .open = cuda_open,
            .enter = cuda_enter,
            .close = cuda_close,
            .describe = cuda_describe,
            .alloc = cuda_alloc,
            .release = cuda_release,
            .copy = cuda_copy,
            .upload = cuda_upload,
            .download = cuda_download,
            .ready = cuda_ready,
            .identify = cuda_identify,
            .record = cuda_record,
            .stop = cuda_stop,
            .play = cuda_play,
            .erase = cuda_erase,
        },
    .states =
        {
            .clear = kac_cuda_clear,
            .sweep = kac_cuda_sweep,
            .forget = kac_cuda_forget,
            .find = kac_cuda_find,
            .assign = kac_cuda_assign,
            .recall = kac_cuda_recall,
            .learn = kac_cuda_learn,
            .carry = kac_cuda_carry,
        },
    .masked =
        {
            .start = kac_cuda_masked_start,
            .blend = kac_cuda_masked_blend,
            .measure = measure_nothing,
            .propose = kac_cuda_masked_propose,
            .complete = kac_cuda_masked_complete,
            .soften = kac_cuda_masked_soften,
            .imagine = kac_cuda_masked_imagine,
            .slope = kac_cuda_masked_slope,
            .tilt = kac_cuda_masked_tilt,
            .renoise = kac_cuda_masked_renoise,
            .score = kac_cuda_masked_score,
            .remask = kac_cuda_masked_remask,
        },
    .gaussian =
        {
            .start = kac_cuda_gaussian_start,
            .blend = kac_cuda_gaussian_blend,
            .measure = measure_nothing,
            .propose = kac_cuda_gaussian_propose,
            .complete = kac_cuda_gaussian_complete,
            .soften = kac_cuda_gaussian_soften,
            .imagine = kac_cuda_gaussian_imagine,
            .slope = kac_cuda_gaussian_slope,
            .tilt = kac_cuda_gaussian_tilt,
            .renoise = kac_cuda_gaussian_renoise,
            .score = kac_cuda_gaussian_score,
            .remask = kac_cuda_gaussian_remask,
        },
    .graph =
        {
            .start = kac_cuda_graph_start,
            .blend = kac_cuda_graph_blend,
            .measure = kac_cuda_graph_measure,
            .propose = kac_cuda_graph_propose,
            .complete = kac_cuda_graph_complete,
            .soften = kac_cuda_graph_soften,
            .imagine = kac_cuda_graph_imagine,
            .slope = kac_cuda_graph_slope,
            .tilt = kac_cuda_graph_tilt,
            .renoise = kac_cuda_graph_renoise,
            .score = kac_cuda_graph_score,
            .remask = kac_cuda_graph_remask,
        },
    .particles =
        {
            .tick = kac_cuda_tick,
            .value = kac_cuda_value,
            .cotangent = kac_cuda_cotangent,
            .axpy = kac_cuda_axpy,
            .temper = kac_cuda_temper,
            .weigh = kac_cuda_weigh,
            .select_parent = kac_cuda_select_parent,
            .select_group = kac_cuda_select_group,
            .survive = kac_cuda_survive,
            .regroup = kac_cuda_regroup,
            .reset = kac_cuda_reset,
            .renew = kac_cuda_renew,
            .elect = kac_cuda_elect,
            .retrace = kac_cuda_retrace,
            .stamp = kac_cuda_stamp,
            .summarise = kac_cuda_summarise,
            .recruit = kac_cuda_recruit,
            .follow = kac_cuda_follow,
            .enlist = kac_cuda_enlist,
            .settle = kac_cuda_settle,
        },
    .search =
        {
            .spread = kac_cuda_spread,
            .path = kac_cuda_path,
            .prune = kac_cuda_prune,
            .plant = kac_cuda_tree_plant,
            .select = kac_cuda_tree_select,
            .advance = kac_cuda_tree_advance,
            .backup = kac_cuda_tree_backup,
            .commit = kac_cuda_tree_commit,
            .draw = kac_cuda_tree_draw,
        },
    .networks =
        {
            .cnn1d = {kac_cuda_cnn1d_pack, kac_cuda_cnn1d_forward, kac_cuda_cnn1d_vjp,
                      kac_cuda_cnn1d_drop},
            .table_denoiser = {kac_cuda_table_denoiser_pack, kac_cuda_table_denoiser_forward,
                               kac_cuda_table_denoiser_vjp, kac_cuda_table_denoiser_drop},
            .table_reward = {kac_cuda_table_reward_pack, kac_cuda_table_reward_forward,
                             kac_cuda_table_reward_vjp, kac_cuda_table_reward_drop},
            .markov = {kac_cuda_markov_pack, kac_cuda_markov_forward, kac_cuda_markov_vjp,
                       kac_cuda_markov_drop},
            .pwm = {kac_cuda_pwm_pack, kac_cuda_pwm_forward, kac_cuda_pwm_vjp,
                    kac_cuda_pwm_drop},
            .conv_regressor = {kac_cuda_conv_regressor_pack, kac_cuda_conv_regressor_forward,
                               kac_cuda_conv_regressor_vjp, kac_cuda_conv_regressor_drop},
            .convgru = {kac_cuda_convgru_pack, kac_cuda_convgru_forward, kac_cuda_convgru_vjp,
                        kac_cuda_convgru_drop},
            .filter = {kac_cuda_filter_pack, kac_cuda_filter_forward, kac_cuda_filter_drop},
            .gmm = {kac_cuda_gmm_pack, kac_cuda_gmm_forward, kac_cuda_gmm_vjp,
                    kac_cuda_gmm_drop},
            .quadratic = {kac_cuda_quadratic_pack, kac_cuda_quadratic_forward,
                          kac_cuda_quadratic_vjp, kac_cuda_quadratic_drop},
            .gdss = {kac_cuda_gdss_pack, kac_cuda_gdss_forward, kac_cuda_gdss_vjp,
                     kac_cuda_gdss_drop},
            .gin = {kac_cuda_gin_pack, kac_cuda_gin_forward, kac_cuda_gin_vjp,
                    kac_cuda_gin_drop},
        },
};

kac_status kac_cuda_backend(uint64_t version, kac_cuda_note_fn *note, const kac_ops **out)
{
    int count = 0;
    tell = note;
    if (version != KAC_CUDA_VERSION)
        return KAC_FAIL(KAC_ERR_UNSUPPORTED, "it was built for another version of kac");
    KAC_TRY(count_devices(&count));
    *out = &cuda_ops;
    return KAC_OK;
}
