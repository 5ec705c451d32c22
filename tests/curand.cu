/* curand.cu -- whether kac's Philox is cuRAND's: the same words for random counters and keys, on the
 * host and, where there is one, on the GPU. */
#include <cstdint>
#include <cstdio>

#define QUALIFIERS static inline __host__ __device__
#include <curand_philox4x32_x.h>

#include "rng.h"

enum { COUNTERS = 1 << 20 };

/* Whether both agree at counter number i, whose words and keys are all different. */
static __host__ __device__ bool is_equal(uint32_t i)
{
    const kac_u32x4 c = {{i * 2654435761u, i ^ 0x9e3779b9u, ~i * 40503u, i << 11 | i >> 21}};
    const uint32_t low = i * 69069u + 1, high = 0xffffffffu - i;
    const kac_u32x4 ours = kac_philox(c, low, high);
    const uint4 theirs =
        curand_Philox4x32_10(make_uint4(c.v[0], c.v[1], c.v[2], c.v[3]), make_uint2(low, high));
    return ours.v[0] == theirs.x && ours.v[1] == theirs.y && ours.v[2] == theirs.z &&
           ours.v[3] == theirs.w;
}

static __global__ void compare(unsigned *equal)
{
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (is_equal(i)) atomicAdd(equal, 1u);
}

static bool report(const char *where, unsigned equal)
{
    printf("%s: %u of %u counters give cuRAND's words\n", where, equal, (unsigned)COUNTERS);
    return equal == COUNTERS;
}

int main()
{
    unsigned equal = 0, *on_gpu = nullptr;
    for (uint32_t i = 0; i < COUNTERS; i++)
        equal += is_equal(i);
    bool ok = report("host", equal);
    if (cudaMalloc(&on_gpu, sizeof *on_gpu) != cudaSuccess) return ok ? 0 : 1;
    equal = 0;
    cudaMemset(on_gpu, 0, sizeof *on_gpu);
    compare<<<COUNTERS / 256, 256>>>(on_gpu);
    cudaMemcpy(&equal, on_gpu, sizeof equal, cudaMemcpyDeviceToHost);
    return report("GPU", equal) && ok ? 0 : 1;
}
