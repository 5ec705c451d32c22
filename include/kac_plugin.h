/* kac_plugin.h -- rewards and denoisers of your own, in a shared object that kac loads.
 *
 * Copy this file, define kac_plugin_v1, and build with
 *
 *     cc -shared -fPIC -O2 -o mine.so mine.c
 *
 * docs/plugins.md has examples and says how runs name it.  The shared object needs nothing of
 * kac, and works with every kac that knows its version.
 *
 * kac calls the functions of one handle from one thread at a time.  Structs that kac passes are
 * its own, and so is what they point to: both are gone when the call returns.  Functions return
 * 0, or anything else where they failed; `error` then says why, in one line.
 */
#ifndef KAC_PLUGIN_H
#define KAC_PLUGIN_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What is marked so is new in version 2.  kac takes plug-ins of version 1 too, which are those built
 * with the header of that version. */
#define KAC_PLUGIN_VERSION 2

enum { KAC_PLUGIN_REWARD = 1, KAC_PLUGIN_DENOISER = 2 };
enum { KAC_PLUGIN_LETTERS = 32, KAC_PLUGIN_OUTPUTS = 4096 }; /* at most */

/* What a run opens it for. */
typedef struct kac_plugin_use {
    int32_t role;         /* KAC_PLUGIN_REWARD or KAC_PLUGIN_DENOISER */
    int32_t cuda;         /* the CUDA device that the run computes on, -1: the CPU */
    const char *options;  /* those of the configuration, "" where it has none */
    const char *alphabet; /* rewards: the letters of objects, "" where they are vectors */
    int32_t length;       /* rewards: letters or numbers of an object; denoisers: 0 */
    int32_t molecules;    /* version 2; rewards: 1: objects are molecules, as text a SMILES */
} kac_plugin_use;

/* What it answers, all zero at first.  Rewards set outputs and reads_text, denoisers the rest. */
typedef struct kac_plugin_shape {
    int32_t outputs; /* numbers for each object, 1 .. KAC_PLUGIN_OUTPUTS */
    char alphabet[KAC_PLUGIN_LETTERS + 1]; /* letters of a state, "": it is a vector */
    int32_t length;                        /* process.length auto; 0: it must be given */
    int32_t fixed_length;                  /* 1: no other length will do */
    int32_t reads_time;                    /* 1: answers depend on the level as well */
    int32_t reads_text; /* version 2; 1: `evaluate` wants rows->text; `queue` is not called */
} kac_plugin_shape;

/* Questions in memory of the host.  A state of letters has a byte for each, k for letter k of the
 * alphabet, and as many as there are letters for a mask; objects have no masks (states have, where
 * sampler.value.kind is state).  A vector is floats. */
typedef struct kac_plugin_rows {
    int32_t count, length;
    const void *states; /* [count][length] bytes or floats */
    /* Rewards: [count][outputs].  Denoisers of letters: [count][length][letters], log p(letter)
     * up to what the letters of a site share; of vectors: [count][length], E[x_0 | x].  A reward
     * that is NaN is one that the object has not (docs/plugins.md). */
    float *out;
    /* Of the states' level, where reads_time says so: the time, 1 noise .. 0; what networks are
     * fed; and of vectors x = scale x_0 + noise e. */
    double t, sigma, scale, noise;
    /* Version 2, where reads_text says so, else NULL: object i as samples.csv shows it (letters, a
     * SMILES, numbers with blanks between them), a string that begins at byte i * text_stride.  A
     * molecule without an atom is "". */
    const char *text;
    int64_t text_stride;
} kac_plugin_rows;

/* The same in memory of a CUDA device, to be queued on the stream: nothing that these point to may
 * be read by the host.  Question j of 0 .. min(*count - first, capacity) - 1 is the state at byte
 * src[j] * stride of `states`, its answer begins at float dst[j] * out_stride of `out`; without a
 * list it is j itself, without a count there are `capacity`. */
typedef struct kac_plugin_queue {
    void *stream; /* cudaStream_t */
    int32_t length, capacity, first;
    const int32_t *count, *src, *dst; /* a scalar, [capacity], [capacity]; each may be NULL */
    const void *states;
    int64_t stride;
    float *out;
    int64_t out_stride;
    /* Of level k = *level: t is the double at byte k * level_bytes + t_at of `levels`, and so on;
     * sigma is a float. */
    const int32_t *level;
    const unsigned char *levels;
    int64_t level_bytes, t_at, sigma_at, scale_at, noise_at;
} kac_plugin_queue;

typedef struct kac_plugin {
    int32_t version; /* KAC_PLUGIN_VERSION */
    int (*open)(const kac_plugin_use *use, kac_plugin_shape *shape, void **handle);
    /* Answers all rows before it returns.  On a CUDA device without `queue` kac copies rows and
     * answers, and its steps wait for it. */
    int (*evaluate)(void *handle, const kac_plugin_rows *rows);
    int (*queue)(void *handle, const kac_plugin_queue *rows); /* or NULL */
    const char *(*error)(void *handle); /* or NULL.  The handle is NULL where open failed */
    void (*close)(void *handle);        /* or NULL */
} kac_plugin;

/* The one symbol that kac looks for. */
__attribute__((visibility("default"))) const kac_plugin *kac_plugin_v1(void);

#define KAC_PLUGIN_SYMBOL "kac_plugin_v1"

#ifdef __cplusplus
}
#endif
#endif /* KAC_PLUGIN_H */
