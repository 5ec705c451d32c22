/* team.cuh -- teams of a grid: how many threads each, which rows, and memory of their own. */
#ifndef KAC_TEAM_CUH
#define KAC_TEAM_CUH

#include "primitives.cuh"
#include "team.h"

typedef struct kac_teams {
    unsigned blocks;      /* of KAC_THREADS */
    int32_t size;         /* threads of a team */
    size_t slice;         /* bytes of a team's own memory */
    unsigned char *head;  /* memory of all */
    unsigned char *first; /* the first team's own */
} kac_teams;

/* Threads for rows of so many independent parts. */
static inline int32_t kac_team_size(int64_t parts)
{
    int32_t size = parts > 1 ? 4 : 1;
    while (size < parts && size < KAC_WARP)
        size *= 2;
    return size;
}

/* Teams for `rows` rows of `parts` parts.  The grid has as many as fill a GPU a few times and as
 * have room in 256 MiB; they go on to the next rows. */
static inline kac_status kac_teams_open(kac_device *dev, int64_t rows, int64_t parts,
                                        size_t head, size_t slice, kac_teams *out)
{
    enum { MOST_BLOCKS = 8192 };
    const size_t room = (size_t)256 << 20;
    void *memory = NULL;
    kac_teams t = {0, kac_team_size(parts), (slice + 63) / 64 * 64, NULL, NULL};
    int64_t each = KAC_THREADS / t.size;
    int64_t blocks = (rows + each - 1) / each, most = MOST_BLOCKS;
    if (t.slice > 0 && (int64_t)(room / t.slice) / each < most)
        most = (int64_t)(room / t.slice) / each;
    t.blocks = (unsigned)(blocks < most ? blocks : most);
    if (t.blocks < 1) t.blocks = 1;
    head = (head + 63) / 64 * 64;
    size_t bytes = head + (size_t)t.blocks * (size_t)each * t.slice;
    if (bytes > 0) KAC_TRY(kac_cuda_scratch(dev, bytes, &memory));
    t.head = static_cast<unsigned char *>(memory);
    t.first = bytes > 0 ? t.head + head : NULL;
    *out = t;
    return KAC_OK;
}

static inline __device__ kac_team kac_team_of(const kac_teams *all)
{
    const uint32_t size = (uint32_t)all->size, lane = threadIdx.x % KAC_WARP;
    const uint32_t low = size == KAC_WARP ? KAC_WHOLE_WARP : (1u << size) - 1;
    return {(int32_t)(lane % size), all->size, low << lane / size * size};
}

/* The team's own memory. */
static inline __device__ double *kac_team_memory(const kac_teams *all)
{
    int64_t team = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / all->size;
    return reinterpret_cast<double *>(all->first + team * (int64_t)all->slice);
}

/* for (j of 0 .. n - 1 that are this thread's team's), in step; the team meets after each,
 * because its memory is used again. */
#define KAC_TEAM_ROWS(j, t, n)                                                                 \
    for (int64_t j = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / (t).size,              \
                 step_ = (int64_t)blockDim.x * gridDim.x / (t).size;                           \
         j < (n); kac_meet(t), j += step_)

#endif /* KAC_TEAM_CUH */
