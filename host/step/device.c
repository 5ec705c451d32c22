/* device.c -- which backend a run computes on. */
#include "device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#endif

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

kac_status kac_device_open(const char *name, int isa, kac_device **out)
{
    bool cpu = strcmp(name, "auto") == 0 || strcmp(name, "cpu") == 0;
    if (strncmp(name, "cuda", 4) == 0)
        return KAC_FAIL(KAC_ERR_UNSUPPORTED,
                        "device \"%s\": this build computes on the CPU only", name);
    if (!cpu)
        return KAC_FAIL(KAC_ERR_INVALID, "device \"%s\": there are \"auto\" and \"cpu\"", name);
    if (isa > (int)best_isa())
        return KAC_FAIL(KAC_ERR_UNSUPPORTED, "device.isa %s: this processor goes up to %s",
                        kac_isa_names[isa], kac_isa_names[best_isa()]);

    kac_device *dev = calloc(1, sizeof *dev);
    if (dev == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "device \"%s\": no memory", name);
    dev->ops = &kac_cpu_ops;
    dev->isa = isa < 0 ? best_isa() : (kac_isa)isa;
    kac_status status = dev->ops->memory.open(dev, 0);
    if (status != KAC_OK) {
        free(dev);
        return status;
    }
    *out = dev;
    return KAC_OK;
}

void kac_device_close(kac_device *dev)
{
    if (dev == NULL) return;
    dev->ops->memory.close(dev);
    free(dev);
}

/* "model name" of the first processor, or "". */
static void processor(char *text, size_t size)
{
    char line[512];
    text[0] = '\0';
    FILE *info = fopen("/proc/cpuinfo", "re");
    if (info == NULL) return;
    while (fgets(line, sizeof line, info) != NULL) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || colon == NULL) continue;
        line[strcspn(line, "\n")] = '\0';
        snprintf(text, size, "%s", colon + 2);
        break;
    }
    (void)fclose(info);
}

kac_status kac_devices(FILE *out)
{
    KAC_REQUIRE(out != NULL);
    char model[256];
    int threads = 1;
    processor(model, sizeof model);
#ifdef _OPENMP
    threads = omp_get_max_threads();
#endif
    int printed = fprintf(out, "cpu  %s, %d thread%s, %s kernels\n", model, threads,
                          threads == 1 ? "" : "s", kac_isa_names[best_isa()]);
    if (printed < 0) return KAC_FAIL(KAC_ERR_IO, "cannot write the list of devices");
    return KAC_OK;
}
