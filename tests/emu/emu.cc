/* emu.cc -- the emulator's fibers, blocks and memory. */
#include "emu.h"

#include <fenv.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include <map>
#include <mutex>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define KAC_EMU_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define KAC_EMU_ASAN 1
#endif
#endif
#ifdef KAC_EMU_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

/* ---- switching stacks ------------------------------------------------------------------------ */

#if defined(__x86_64__)
extern "C" void kac_emu_switch(void **save, void *to);
/* Keeps what the calling convention preserves; signal masks and rounding modes never differ. */
asm(".text\n"
    "kac_emu_switch:\n"
    "  push %rbp\n  push %rbx\n  push %r12\n  push %r13\n  push %r14\n  push %r15\n"
    "  mov %rsp,(%rdi)\n"
    "  mov %rsi,%rsp\n"
    "  pop %r15\n  pop %r14\n  pop %r13\n  pop %r12\n  pop %rbx\n  pop %rbp\n"
    "  ret\n");
#endif

namespace emu
{
namespace
{

enum { STACK_BYTES = 256 << 10, MOST_THREADS = 1024, MOST_MASKS = 8 };

struct fiber {
    char *stack;
#if defined(__x86_64__)
    void *at;
#else
    ucontext_t context;
#endif
    void *shadow; /* AddressSanitizer's */
    thread runs;
    const unsigned *waits_for; /* a generation that must change, or NULL: can go on */
    unsigned generation;
};

/* One set of lanes that exchange values; odd and even generations use different slots, because
 * a fast lane may leave its next value before a slow one has read the last. */
struct lanes {
    unsigned mask, arrived, generation;
    exchange slot[2];
};
struct warp {
    int masks;
    unsigned exited;
    lanes of[MOST_MASKS];
};

struct array {
    const void *site;
    unsigned char *memory;
    size_t bytes;
};

enum order { ASCENDING, DESCENDING, AHEAD, DESCENDING_AHEAD, RANDOM };

/* What an OS thread needs to run one block after the other. */
struct block {
    dim3 index, size, grid;
    const std::function<void()> *body;
    int n, started, left;
    order how;
    uint64_t random;
    long spins;
    unsigned barrier_generation, barrier_arrived, barrier_sum[2];
    int barrier_id;
    fiber *now;
    fiber home; /* the OS thread itself */
    const void *home_bottom;
    size_t home_bytes;
    std::vector<fiber *> waiting, idle;
    std::vector<array> arrays;
    warp warps[MOST_THREADS / 32];
    unsigned char *dynamic;
    size_t dynamic_bytes, shared_limit;
};

thread_local block *current;

int order_number()
{
    const char *text = getenv("KAC_EMU_ORDER");
    return text != nullptr ? atoi(text) : 0;
}

void switch_to(fiber *from, fiber *to, bool for_ever)
{
    block *b = current;
    b->now = to;
#ifdef KAC_EMU_ASAN
    bool home = to == &b->home;
    __sanitizer_start_switch_fiber(for_ever ? nullptr : &from->shadow,
                                   home ? b->home_bottom : to->stack,
                                   home ? b->home_bytes : (size_t)STACK_BYTES);
#else
    (void)for_ever;
#endif
#if defined(__x86_64__)
    kac_emu_switch(&from->at, to->at);
#else
    swapcontext(&from->context, &to->context);
#endif
#ifdef KAC_EMU_ASAN
    __sanitizer_finish_switch_fiber(from->shadow, nullptr, nullptr);
#endif
}

bool can_go_on(const fiber *f)
{
    return f->waits_for == nullptr || *f->waits_for != f->generation;
}

/* Thread number k of those to start, by the order. */
int start_number(const block *b, int k)
{
    return b->how == DESCENDING || b->how == DESCENDING_AHEAD ? b->n - 1 - k : k;
}

void run_threads();

void entry()
{
    block *b = current;
#ifdef KAC_EMU_ASAN
    const void *bottom = nullptr;
    size_t bytes = 0;
    __sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
    if (b->home_bottom == nullptr) { /* the first fiber of all comes from the OS thread */
        b->home_bottom = bottom;
        b->home_bytes = bytes;
    }
#endif
    (void)b;
    run_threads();
    abort();
}

fiber *new_fiber(block *b)
{
    fiber *f = nullptr;
    if (b->idle.empty()) {
        f = new fiber();
        void *stack = mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stack == MAP_FAILED) die("no room for a stack", "launch");
        f->stack = (char *)stack;
    } else {
        f = b->idle.back();
        b->idle.pop_back();
    }
#ifdef KAC_EMU_ASAN
    __asan_unpoison_memory_region(f->stack, STACK_BYTES);
#endif
    f->waits_for = nullptr;
#if defined(__x86_64__)
    void **top = (void **)(void *)(f->stack + STACK_BYTES) - 2;
    *top = (void *)entry;
    f->at = top - 6;
#else
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = STACK_BYTES;
    makecontext(&f->context, entry, 0);
#endif
    return f;
}

uint64_t next_random(block *b)
{
    b->random = b->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return b->random >> 33;
}

/* A waiting fiber that can go on, taken from the list; NULL: none. */
fiber *take_ready(block *b)
{
    size_t n = b->waiting.size(), first = b->how == RANDOM ? next_random(b) % (n + 1) : 0;
    bool down = b->how == DESCENDING || b->how == DESCENDING_AHEAD;
    for (size_t k = 0; k < n; k++) {
        size_t i = down ? n - 1 - k : (first + k) % n;
        fiber *f = b->waiting[i];
        if (!can_go_on(f)) continue;
        b->waiting.erase(b->waiting.begin() + (ptrdiff_t)i);
        return f;
    }
    return nullptr;
}

bool starts_first(block *b)
{
    if (b->how == RANDOM) return next_random(b) % 2 == 0;
    return b->how == ASCENDING || b->how == DESCENDING;
}

/* Leaves the fiber that runs now, which waits (or with `over` has nothing left to do). */
void leave(const char *site, bool over)
{
    block *b = current;
    fiber *me = b->now, *to = nullptr;
    bool start = b->started < b->n;
    if (!(start && starts_first(b))) to = take_ready(b);
    if (to == nullptr && start) to = new_fiber(b);
    if (to == nullptr && over && b->left == 0) to = &b->home;
    if (to == nullptr) die("every thread that is left waits for ever", site);
    if (over)
        b->idle.push_back(me);
    else
        b->waiting.push_back(me);
    if (to != me) switch_to(me, to, over);
}

void try_barrier(block *b)
{
    if (b->barrier_arrived == 0 || b->barrier_arrived != (unsigned)b->left) return;
    b->barrier_arrived = 0;
    b->barrier_generation++;
}

/* A fiber runs threads one after the other, until one waits. */
void run_threads()
{
    block *b = current;
    while (b->started < b->n) {
        /* Whoever waits goes first where that is the order. */
        if (!starts_first(b)) {
            fiber *ready = take_ready(b);
            if (ready != nullptr) {
                fiber *me = b->now;
                me->waits_for = nullptr;
                b->idle.push_back(me);
                switch_to(me, ready, true);
                abort();
            }
        }
        fiber *f = b->now;
        int id = start_number(b, b->started++);
        f->runs.id = id;
        f->runs.index = dim3((unsigned)id % b->size.x, (unsigned)id / b->size.x % b->size.y,
                             (unsigned)id / b->size.x / b->size.y);
        (*b->body)();
        b->left--;
        b->warps[id / 32].exited |= 1u << (id & 31);
        try_barrier(b);
    }
    leave("the end of the kernel", true);
}

void wait_for(const unsigned *generation, unsigned value, const char *site)
{
    while (*generation == value) {
        fiber *f = current->now;
        f->waits_for = generation;
        f->generation = value;
        leave(site, false);
        f->waits_for = nullptr;
    }
}

void run_block(block *b)
{
    b->started = 0;
    b->left = b->n;
    b->spins = 0;
    b->barrier_arrived = b->barrier_generation = 0;
    for (int w = 0; w <= (b->n - 1) / 32; w++)
        b->warps[w].masks = 0, b->warps[w].exited = 0;
    for (array &a : b->arrays)
        memset(a.memory, 0xCD, a.bytes);
    if (b->dynamic_bytes > 0) memset(b->dynamic, 0xCD, b->dynamic_bytes);
    switch_to(&b->home, new_fiber(b), false);
}

/* Blocks are costly to make: an OS thread keeps one. */
struct workshop {
    block b = {};
    ~workshop()
    {
        for (fiber *f : b.idle) {
            munmap(f->stack, STACK_BYTES);
            delete f;
        }
    }
};
block *my_block()
{
    static thread_local workshop mine;
    return &mine.b;
}

void run_grid(dim3 grid, dim3 size, size_t dynamic_bytes, size_t shared_limit,
              const std::function<void()> &body)
{
    long blocks = (long)grid.x * grid.y * grid.z;
    int number = order_number(), n = (int)(size.x * size.y * size.z);
    if (n < 1 || n > MOST_THREADS || blocks < 1) die("a grid or block of a bad size", "launch");
    order how = number < RANDOM ? (order)number : RANDOM;
#pragma omp parallel if (blocks > 1 && how != RANDOM)
    {
        block *b = my_block();
        b->grid = grid;
        b->size = size;
        b->n = n;
        b->body = &body;
        b->how = how;
        b->home_bottom = nullptr;
        b->dynamic_bytes = dynamic_bytes;
        b->shared_limit = shared_limit;
        b->dynamic = dynamic_bytes > 0 ? (unsigned char *)malloc(dynamic_bytes) : nullptr;
        current = b;
#pragma omp for schedule(dynamic, 1)
        for (long i = 0; i < blocks; i++) {
            long k = how == DESCENDING || how == DESCENDING_AHEAD ? blocks - 1 - i : i;
            b->random = UINT64_C(88172645463325252) * (uint64_t)(number + 1) + (uint64_t)k;
            b->index = dim3((unsigned)(k % grid.x), (unsigned)(k / grid.x % grid.y),
                            (unsigned)(k / ((long)grid.x * grid.y)));
            run_block(b);
        }
        for (array &a : b->arrays)
            free(a.memory);
        b->arrays.clear();
        free(b->dynamic);
        current = nullptr;
    }
}

} /* namespace */

void die(const char *what, const char *site)
{
    if (current != nullptr && current->now != nullptr)
        fprintf(stderr, "emulator: %s: %s (block %u,%u,%u, thread %d)\n", site, what,
                current->index.x, current->index.y, current->index.z, current->now->runs.id);
    else
        fprintf(stderr, "emulator: %s: %s\n", site, what);
    abort();
}

thread *self()
{
    return &current->now->runs;
}
dim3 block_index()
{
    return current->index;
}
dim3 block_size()
{
    return current->size;
}
dim3 grid_size()
{
    return current->grid;
}
void *dynamic_shared()
{
    return current->dynamic;
}

void *shared(const void *site, size_t bytes)
{
    size_t all = current->dynamic_bytes + bytes;
    for (array &a : current->arrays) {
        if (a.site == site) return a.memory;
        all += a.bytes;
    }
    if (all > current->shared_limit)
        die("more shared memory than the kernel may have", "shared");
    array a = {site, (unsigned char *)malloc(bytes), bytes};
    memset(a.memory, 0xCD, bytes);
    current->arrays.push_back(a);
    return a.memory;
}

unsigned barrier(unsigned value, const char *site, int id)
{
    block *b = current;
    unsigned generation = b->barrier_generation;
    if (b->barrier_arrived == 0) {
        b->barrier_id = id;
        b->barrier_sum[generation & 1] = 0;
    } else if (b->barrier_id != id) {
        die("threads of one block meet at different barriers", site);
    }
    b->barrier_sum[generation & 1] += value;
    b->barrier_arrived++;
    if (b->started == b->n) try_barrier(b);
    wait_for(&b->barrier_generation, generation, site);
    return b->barrier_sum[generation & 1];
}

const exchange *meet(unsigned mask, const void *value, size_t bytes, const char *site)
{
    block *b = current;
    int id = self()->id, own = id & 31;
    warp *w = &b->warps[id / 32];
    lanes *l = nullptr;
    if (b->n - id / 32 * 32 < 32 && mask == 0xffffffffu)
        mask >>= 32 - (b->n - id / 32 * 32); /* the last warp of the block is not whole */
    if (!(mask >> own & 1)) die("a lane is not in its own mask", site);
    if (w->exited & mask) die("a mask names a lane that is gone", site);
    for (int i = 0; i < w->masks; i++)
        if (w->of[i].mask == mask) l = &w->of[i];
    if (l == nullptr) {
        if (w->masks == MOST_MASKS) die("too many different masks in one warp", site);
        l = &w->of[w->masks++];
        l->mask = mask;
        l->arrived = l->generation = 0;
    }
    unsigned generation = l->generation;
    exchange *slot = &l->slot[generation & 1];
    if (bytes > 0) memcpy(slot->lane[own], value, bytes);
    l->arrived |= 1u << own;
    if (l->arrived == mask) {
        l->arrived = 0;
        l->generation++;
    } else {
        wait_for(&l->generation, generation, site);
    }
    return slot;
}

namespace
{

uint32_t bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

float from_bits(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

uint32_t bf16(float x)
{
    uint32_t u = bits(x);
    return x != x ? 0x7fffu : (u + 0x7fffu + (u >> 16 & 1)) >> 16; /* ties to even */
}

/* Number k of the numbers that the words of a lane hold. */
float factor(uint32_t word, int k, bool pairs)
{
    return from_bits(!pairs ? word : k % 2 == 0 ? word << 16 : word & 0xffff0000u);
}

} /* namespace */

uint32_t tf32(float x)
{
    return x != x ? 0x7fffe000u : (bits(x) + 0x1000u) & ~0x1fffu; /* ties away from zero */
}

uint32_t bf16_pair(float lo, float hi)
{
    return bf16(hi) << 16 | bf16(lo);
}

double dadd_rz(double x, double y)
{
    volatile double first = x; /* read when the mode is set */
    fesetround(FE_TOWARDZERO);
    const volatile double sum = first + y;
    fesetround(FE_TONEAREST);
    return sum;
}

void mma(float *d, const uint32_t *a, const uint32_t *b, bool pairs, const char *site)
{
    exchange all_a = *meet(0xffffffffu, a, 4 * sizeof *a, site);
    exchange all_b = *meet(0xffffffffu, b, 2 * sizeof *b, site);
    int lane_ = lane(), depth = pairs ? 16 : 8;
    for (int i = 0; i < 4; i++) {
        int row = lane_ / 4 + i / 2 * 8, col = lane_ % 4 * 2 + i % 2;
        for (int k = 0; k < depth; k++) {
            int unit = pairs ? k / 2 : k;
            uint32_t x[4], y[2];
            memcpy(x, all_a.lane[row % 8 * 4 + unit % 4], sizeof x);
            memcpy(y, all_b.lane[col * 4 + unit % 4], sizeof y);
            d[i] = fmaf(factor(x[row / 8 + unit / 4 * 2], k, pairs),
                        factor(y[unit / 4], k, pairs), d[i]);
        }
    }
}

/* A lane makes its own sums, from the rows of its warp. */
void group_mma(float *d, const uint32_t *a, const uint16_t *b, int chunk, int cols,
               const char *site)
{
    const exchange all = *meet(0xffffffffu, a, 4 * sizeof *a, site);
    float row[2][16];
    for (int k = 0; k < 16; k++) {
        uint32_t x[4];
        memcpy(x, all.lane[lane() / 4 * 4 + k / 2 % 4], sizeof x);
        for (int r = 0; r < 2; r++)
            row[r][k] = factor(x[r + k / 8 * 2], k, true);
    }
    for (int i = 0; i < cols / 2; i++) {
        const uint16_t *y = b + (i / 4 * 8 + lane() % 4 * 2 + i % 2) * 8;
        for (int k = 0; k < 16; k++)
            d[i] = fmaf(row[i / 2 % 2][k], from_bits((uint32_t)y[k / 8 * chunk + k % 8] << 16),
                        d[i]);
    }
}

void store_columns(uint16_t *to, const uint32_t *x, int tiles, const char *site)
{
    const exchange all = *meet(0xffffffffu, x, (size_t)tiles * sizeof *x, site);
    const int tile = lane() / 8, column = lane() % 8;
    for (int row = 0; row < 8 && tile < tiles; row++) {
        uint32_t theirs[4];
        memcpy(theirs, all.lane[4 * row + column / 2], (size_t)tiles * sizeof *x);
        to[row] = (uint16_t)(theirs[tile] >> 16 * (column % 2));
    }
}

unsigned ballot(unsigned mask, bool vote, const char *site)
{
    unsigned char mine = vote, all = 0;
    const exchange *votes = meet(mask, &mine, sizeof mine, site);
    unsigned result = 0;
    int id = self()->id, whole = current->n - id / 32 * 32;
    for (int i = 0; i < 32 && i < whole; i++) {
        if (!(mask >> i & 1)) continue;
        memcpy(&all, votes->lane[i], sizeof all);
        if (all) result |= 1u << i;
    }
    return result;
}

int64_t nanoseconds()
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void spin(const char *site)
{
    if (++current->spins > 100000000L) die("no progress", site);
}

/* ---- memory and graphs ------------------------------------------------------------------------ */

namespace
{

struct allocation {
    void *memory;
    size_t bytes;
};
std::mutex lock;
std::vector<allocation> allocations;
std::vector<std::function<void()>> *recording;

enum { MOST_ACROSS = 65535 }; /* blocks in y, and in z */
std::mutex allowances;
std::map<const void *, size_t>
    allowed; /* dynamic shared memory, of kernels with an allowance */

bool is_guarded()
{
#ifdef KAC_EMU_ASAN
    return false; /* device memory then comes from malloc, with its red zones */
#else
    static const char *text = getenv("KAC_EMU_GUARD");
    return text != nullptr && strcmp(text, "1") == 0;
#endif
}

void protect(int how)
{
    if (!is_guarded()) return;
    for (const allocation &a : allocations)
        if (mprotect(a.memory, a.bytes, how) != 0) die("mprotect fails", "guard");
}

/* Work of the device: device memory may be touched only in here. */
void on_device(const std::function<void()> &work)
{
    std::lock_guard<std::mutex> one(lock);
    protect(PROT_READ | PROT_WRITE);
    work();
    protect(PROT_NONE);
}

void enqueue(std::function<void()> work)
{
    if (recording != nullptr)
        recording->push_back(std::move(work));
    else
        on_device(work);
}

} /* namespace */

void allow_shared(const void *kernel, size_t bytes)
{
    std::lock_guard<std::mutex> one(allowances);
    allowed[kernel] = bytes;
}

void launch(const void *kernel, dim3 grid, dim3 size, size_t dynamic_bytes,
            std::function<void()> body)
{
    size_t most = PLAIN_SHARED_BYTES, limit = PLAIN_SHARED_BYTES;
    {
        std::lock_guard<std::mutex> one(allowances);
        auto found = allowed.find(kernel);
        if (found != allowed.end()) most = found->second, limit = SHARED_BYTES;
    }
    if (dynamic_bytes > most) die("more shared memory than the kernel was allowed", "launch");
    if (grid.y > MOST_ACROSS || grid.z > MOST_ACROSS) die("a grid too high or deep", "launch");
    enqueue([=] { run_grid(grid, size, dynamic_bytes, limit, body); });
}

} /* namespace emu */

struct emu_graph {
    std::vector<std::function<void()>> work;
    int uses; /* as graph and as what was made of it */
};
struct emu_stream {
};

const char *cudaGetErrorString(cudaError_t err)
{
    switch (err) {
    case cudaSuccess: return "no error";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    default: return "invalid argument";
    }
}
cudaError_t cudaGetLastError()
{
    return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 1;
    return cudaSuccess;
}
/* Multiprocessors: what KAC_EMU_PROCESSORS says, as work may be shared out by them. */
static int processors()
{
    const char *text = getenv("KAC_EMU_PROCESSORS");
    return text != nullptr && *text != '\0' ? atoi(text) : 1;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *prop, int ordinal)
{
    if (ordinal != 0) return cudaErrorInvalidDevice;
    *prop = cudaDeviceProp();
    snprintf(prop->name, sizeof prop->name, "emulator");
    prop->major = 9;
    prop->multiProcessorCount = processors();
    prop->totalGlobalMem = (size_t)1 << 32;
    const char *name = getenv("KAC_EMU_NAME");
    if (name != nullptr && strcmp(name, "own") == 0)
        snprintf(prop->uuid.bytes, sizeof prop->uuid.bytes, "%d", (int)getpid());
    else if (name != nullptr)
        snprintf(prop->uuid.bytes, sizeof prop->uuid.bytes, "%s", name);
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attr, int ordinal)
{
    if (ordinal != 0) return cudaErrorInvalidDevice;
    switch (attr) {
    case cudaDevAttrMultiProcessorCount: *value = processors(); return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = 228 << 10; return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = emu::SHARED_BYTES;
        return cudaSuccess;
    }
    return cudaErrorInvalidValue;
}
cudaError_t cudaSetDevice(int ordinal)
{
    return ordinal == 0 ? cudaSuccess : cudaErrorInvalidDevice;
}

cudaError_t cudaMalloc(void **ptr, size_t bytes)
{
    if (emu::recording != nullptr)
        emu::die("allocates while a graph is recorded", "cudaMalloc");
#ifdef KAC_EMU_ASAN
    *ptr = malloc(bytes);
    return *ptr != nullptr ? cudaSuccess : cudaErrorMemoryAllocation;
#else
    std::lock_guard<std::mutex> one(emu::lock);
    size_t whole = (bytes + 4095) / 4096 * 4096;
    void *memory = mmap(nullptr, whole, emu::is_guarded() ? PROT_NONE : PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return cudaErrorMemoryAllocation;
    emu::allocations.push_back({memory, whole});
    *ptr = memory;
    return cudaSuccess;
#endif
}

cudaError_t cudaFree(void *ptr)
{
    if (ptr == nullptr) return cudaSuccess;
#ifdef KAC_EMU_ASAN
    free(ptr);
    return cudaSuccess;
#else
    std::lock_guard<std::mutex> one(emu::lock);
    for (size_t i = 0; i < emu::allocations.size(); i++) {
        if (emu::allocations[i].memory != ptr) continue;
        munmap(ptr, emu::allocations[i].bytes);
        emu::allocations.erase(emu::allocations.begin() + (ptrdiff_t)i);
        return cudaSuccess;
    }
    return cudaErrorInvalidValue;
#endif
}

cudaError_t cudaMallocHost(void **ptr, size_t bytes)
{
    *ptr = malloc(bytes);
    return *ptr != nullptr ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaFreeHost(void *ptr)
{
    free(ptr);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t)
{
    if (kind == cudaMemcpyHostToDevice && emu::recording != nullptr)
        emu::die("host memory may be gone when the graph runs", "cudaMemcpyAsync");
    emu::enqueue([=] { memmove(dst, src, bytes); });
    return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *dst, int value, size_t bytes, cudaStream_t)
{
    emu::enqueue([=] { memset(dst, value, bytes); });
    return cudaSuccess;
}

/* Streams are told apart, though all of them work at once. */
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned)
{
    *stream = new emu_stream();
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    delete stream;
    return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t)
{
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t)
{
    if (emu::recording != nullptr) emu::die("waits while a graph is recorded", "synchronize");
    return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t, int)
{
    emu::recording = new std::vector<std::function<void()>>();
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t *graph)
{
    *graph = new emu_graph{std::move(*emu::recording), 1};
    delete emu::recording;
    emu::recording = nullptr;
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long)
{
    graph->uses++;
    *exec = graph;
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t)
{
    for (const std::function<void()> &work : exec->work)
        emu::on_device(work);
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    if (--graph->uses == 0) delete graph;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    return cudaGraphDestroy(exec);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned)
{
    *event = nullptr;
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t)
{
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t)
{
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t)
{
    return cudaSuccess;
}
