/* device.c -- which backend a run computes on. */
#include "device.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "beside.h"
#include "cuda_backend.h"
#include "nccl.h"

const char *const kac_isa_names[] = {"portable", "avx2", "avx512"};

/* The best instruction set of this processor that has its own kernels. */
static kac_isa best_isa(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
        return KAC_ISA_AVX512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return KAC_ISA_AVX2;
#endif
    return KAC_ISA_PORTABLE;
}

/* ---- the CUDA backend, a shared object of its own ------------------------------------------ */

/* Its operations.  It stays open: what it has allocated outlives every device. */
static kac_status cuda_backend(const kac_ops **out)
{
    char path[PATH_MAX];
    if (!kac_find_beside("libkac_cuda.so", path))
        return KAC_FAIL(KAC_ERR_UNSUPPORTED,
                        "this build has no libkac_cuda.so beside it: it was "
                        "made without nvcc, or with CUDA=0");
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) return KAC_FAIL(KAC_ERR_UNSUPPORTED, "%s", dlerror());
    kac_cuda_backend_fn *backend = NULL;
    *(void **)&backend = dlsym(library, KAC_CUDA_SYMBOL);
    if (backend == NULL)
        return KAC_FAIL(KAC_ERR_UNSUPPORTED, "%s is not a backend of kac", path);
    return backend(KAC_CUDA_VERSION, kac_note, out);
}

/* ---- names ---------------------------------------------------------------------------------- */

/* The number of "cuda" or "cuda:N"; -1: it is neither. */
static int cuda_ordinal(const char *name)
{
    if (strcmp(name, "cuda") == 0) return 0;
    if (strncmp(name, "cuda:", 5) != 0 || name[5] < '0' || name[5] > '9') return -1;
    char *end = NULL;
    long value = strtol(name + 5, &end, 10);
    return *end == '\0' && value <= 1023 ? (int)value : -1;
}

static kac_status open_on(const kac_ops *ops, int ordinal, kac_isa isa, kac_device **out)
{
    kac_device *dev = calloc(1, sizeof *dev);
    if (dev == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "%s:%d: no memory", ops->name, ordinal);
    dev->ops = ops;
    dev->isa = isa;
    kac_status status = ops->memory.open(dev, ordinal);
    if (status == KAC_OK)
        *out = dev;
    else
        free(dev);
    return status;
}

/* What auto stands for: KAC_DEVICE, or else the first GPU where there is one and no instruction
 * set of the processor is asked for. */
static const char *default_device(int isa)
{
    const kac_ops *cuda = NULL;
    const char *wanted = getenv("KAC_DEVICE");
    if (wanted != NULL && *wanted != '\0' && strcmp(wanted, "auto") != 0) return wanted;
    return isa < 0 && cuda_backend(&cuda) == KAC_OK ? "cuda:0" : "cpu";
}

const char *kac_device_of_rank(const char *name, int isa, int local, char *text, size_t size)
{
    const kac_ops *cuda = NULL;
    char about[512];
    int gpus = 0;
    bool is_auto = strcmp(name, "auto") == 0;
    if (local == 0 || !is_auto || strcmp(default_device(isa), "cuda:0") != 0) return name;
    if (getenv("KAC_DEVICE") != NULL || cuda_backend(&cuda) != KAC_OK) return name;
    while (cuda->memory.describe(gpus, about, sizeof about) == KAC_OK)
        gpus++;
    if (gpus < 2) return name;
    (void)snprintf(text, size, "cuda:%d", local % gpus);
    return text;
}

kac_status kac_device_open(const char *name, int isa, kac_device **out)
{
    const kac_ops *cuda = NULL;
    if (strcmp(name, "auto") == 0) name = default_device(isa);
    int ordinal = cuda_ordinal(name);
    if (isa > (int)best_isa())
        return KAC_FAIL(KAC_ERR_UNSUPPORTED, "device.isa %s: this processor goes up to %s",
                        kac_isa_names[isa], kac_isa_names[best_isa()]);
    if (ordinal >= 0) {
        if (cuda_backend(&cuda) != KAC_OK)
            return KAC_FAIL(KAC_ERR_UNSUPPORTED, "device \"%s\" cannot be had: %s", name,
                            strdupa(kac_last_error()));
        return open_on(cuda, ordinal, KAC_ISA_PORTABLE, out);
    }
    if (strcmp(name, "cpu") != 0)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "device \"%s\": there are \"auto\", \"cpu\" and \"cuda:N\"", name);
    return open_on(&kac_cpu_ops, 0, isa < 0 ? best_isa() : (kac_isa)isa, out);
}

kac_status kac_device_set_precision(kac_device *dev, kac_precision precision)
{
    if (precision != KAC_PRECISION_EXACT && dev->ops == &kac_cpu_ops)
        return KAC_FAIL(KAC_ERR_UNSUPPORTED,
                        "device.precision: a CPU computes exact; tf32 and bf16 want a GPU");
    dev->precision = precision;
    return KAC_OK;
}

void kac_device_close(kac_device *dev)
{
    if (dev == NULL) return;
    dev->ops->memory.close(dev);
    free(dev);
}

kac_status kac_devices(FILE *out)
{
    KAC_REQUIRE(out != NULL);
    const kac_ops *cuda = NULL;
    char text[512];
    int threads = 1, printed = 0;
#ifdef _OPENMP
    threads = omp_get_max_threads();
#endif
    KAC_TRY(kac_cpu_ops.memory.describe(0, text, sizeof text));
    printed = fprintf(out, "cpu     %s, %d thread%s, %s kernels\n", text, threads,
                      threads == 1 ? "" : "s", kac_isa_names[best_isa()]);
    if (cuda_backend(&cuda) != KAC_OK)
        printed |= fprintf(out, "cuda    not here: %s\n", kac_last_error());
    for (int i = 0; cuda != NULL && cuda->memory.describe(i, text, sizeof text) == KAC_OK; i++)
        printed |= fprintf(out, "cuda:%d  %s\n", i, text);
    kac_status nccl = kac_nccl_version(text, sizeof text);
    printed |=
        fprintf(out, "nccl    %s%s\n",
                nccl == KAC_OK ? "" : "not here: ", nccl == KAC_OK ? text : kac_last_error());
    if (printed < 0) return KAC_FAIL(KAC_ERR_IO, "cannot write the list of devices");
    return KAC_OK;
}
