/* scratch_cpu.c -- working memory of a thread. */
#include "scratch_cpu.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { LINE = 64 };

static _Thread_local void *memory;
static _Thread_local size_t capacity;

/* The key exists for its destructor, which frees the memory of a thread that ends. */
static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int have_key;

static void make_key(void)
{
    have_key = pthread_key_create(&key, free) == 0;
}

void *kac_cpu_scratch(size_t bytes)
{
    if (bytes <= capacity) return memory;
    (void)pthread_once(&once, make_key);
    void *grown = aligned_alloc(LINE, (bytes + LINE - 1) / LINE * LINE);
    if (!have_key || grown == NULL || pthread_setspecific(key, grown) != 0) {
        free(grown);
        return NULL;
    }
    free(memory);
    memory = grown;
    capacity = bytes;
    return memory;
}

int32_t kac_cpu_scratch_rows(int32_t most, int64_t floats)
{
    enum { MOST_FLOATS = 1 << 24 };
    int64_t fit = MOST_FLOATS / floats;
    return fit < 1 ? 1 : fit < most ? (int32_t)fit : most;
}

kac_status kac_cpu_each_chunk(const kac_cpu_call *call, int32_t rows, int32_t size,
                              size_t bytes, kac_cpu_chunk_fn *answer)
{
    atomic_int failed = 0;
#pragma omp parallel for schedule(dynamic)
    for (int32_t first = 0; first < rows; first += size) {
        void *work = kac_cpu_scratch(bytes);
        if (work != NULL)
            answer(call, first, rows - first < size ? rows - first : size, work);
        else
            atomic_store(&failed, 1);
    }
    if (atomic_load(&failed))
        return KAC_FAIL(KAC_ERR_NOMEM, "%s: no %zu bytes for %d rows", call->name, bytes,
                        (int)size);
    return KAC_OK;
}
