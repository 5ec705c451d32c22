/* scratch_cpu.c -- working memory of a thread. */
#include "scratch_cpu.h"

#include <pthread.h>
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
