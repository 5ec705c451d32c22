/* mistakes.cu -- kernels that are wrong on purpose: does the emulator say so?
 *
 * mistakes NAME: ends with a report, or with 1 where the result is wrong; `none`: 0. */
#include <stdio.h>
#include <string.h>

#include "primitives.cuh"

/* What primitives.cuh expects of the library. */
kac_status kac_cuda_status(cudaError_t err, const char *)
{
    return err == cudaSuccess ? KAC_OK : KAC_ERR_DEVICE;
}

enum { THREADS = 64 };

KAC_KERNEL divergent_barrier(int *y)
{
    if (threadIdx.x < 16)
        __syncthreads();
    else {
        y[threadIdx.x] = 1;
        __syncthreads();
    }
}

/* Lane 0 asks for all lanes, of which half are gone. */
KAC_KERNEL lost_lane(int *y)
{
    if (threadIdx.x >= 16) return;
    y[threadIdx.x] = __shfl_sync(KAC_WHOLE_WARP, (int)threadIdx.x, 3);
}

KAC_KERNEL foreign_lane(int *y)
{
    if (threadIdx.x < 16) y[threadIdx.x] = __shfl_sync(0xffffu, (int)threadIdx.x, 20);
}

/* Half of a warp waits for the others, who wait for the block. */
KAC_KERNEL deadlock(int *y)
{
    if (threadIdx.x % 32 < 16)
        y[threadIdx.x] = __shfl_sync(KAC_WHOLE_WARP, (int)threadIdx.x, 3);
    else
        __syncthreads();
}

/* Reads what a neighbour may not have written yet; with the barrier it is right. */
KAC_KERNEL neighbour(int *y, int barrier)
{
    KAC_SHARED(int, s, THREADS);
    s[threadIdx.x] = (int)threadIdx.x;
    if (barrier) __syncthreads();
    y[threadIdx.x] = s[(threadIdx.x + 37) % THREADS];
}

KAC_KERNEL fill(int *y)
{
    KAC_DYNAMIC_SHARED(int, s);
    s[threadIdx.x] = (int)threadIdx.x;
    y[threadIdx.x] = s[threadIdx.x];
}

static int run_neighbour(int barrier)
{
    int y[THREADS], wrong = 0;
    (void)KAC_LAUNCH(nullptr, neighbour, 1, THREADS, 0, (int *)y, barrier);
    for (int i = 0; i < THREADS; i++)
        wrong += y[i] != (i + 37) % THREADS;
    if (wrong > 0) fprintf(stderr, "%d of %d are wrong\n", wrong, THREADS);
    return wrong > 0;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    int y[THREADS] = {0}, *out = y;
    if (strcmp(name, "none") == 0) return run_neighbour(1);
    if (strcmp(name, "missing_barrier") == 0) return run_neighbour(0);
    if (strcmp(name, "divergent_barrier") == 0)
        (void)KAC_LAUNCH(nullptr, divergent_barrier, 1, THREADS, 0, out);
    if (strcmp(name, "lost_lane") == 0)
        (void)KAC_LAUNCH(nullptr, lost_lane, 1, THREADS, 0, out);
    if (strcmp(name, "foreign_lane") == 0)
        (void)KAC_LAUNCH(nullptr, foreign_lane, 1, THREADS, 0, out);
    if (strcmp(name, "deadlock") == 0) (void)KAC_LAUNCH(nullptr, deadlock, 1, THREADS, 0, out);
    if (strcmp(name, "shared_not_allowed") == 0)
        (void)KAC_LAUNCH(nullptr, fill, 1, THREADS, 50 << 10, out);
    if (strcmp(name, "grid_too_high") == 0)
        (void)KAC_LAUNCH(nullptr, fill, dim3(1, 65536), THREADS, sizeof y, out);
    return 0;
}
