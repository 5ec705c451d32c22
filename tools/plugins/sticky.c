/* sticky.c -- a denoiser as a plug-in for kac: DNA in which neighbouring letters tend to be alike.
 *
 *     cc -shared -fPIC -O2 -Iinclude -o sticky.so tools/plugins/sticky.c -lm
 *
 * The law is a Markov chain: a letter is that of its left neighbour with probability s, which the
 * options say (0.5 where there are none), and else any of the four.  So a letter d sites away from a
 * known one is that one with probability s^d, and else any; of an unknown site the nearest known
 * ones on both sides decide.  A trained network takes the place of `answer`. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "kac_plugin.h"

enum { LETTERS = 4, MASK = LETTERS }; /* a mask has the number after the last letter */

typedef struct sticky {
    double stays;
} sticky;

static int sticky_open(const kac_plugin_use *use, kac_plugin_shape *shape, void **handle)
{
    char *end = NULL;
    double stays = use->options[0] != '\0' ? strtod(use->options, &end) : 0.5;
    if (use->role != KAC_PLUGIN_DENOISER || (end != NULL && *end != '\0')) return 1;
    if (!(stays >= 0 && stays < 1)) return 1;
    sticky *s = malloc(sizeof *s);
    if (s == NULL) return 1;
    s->stays = stays;
    strcpy(shape->alphabet, "ACGT"); /* letter 0 is A; length 0: process.length says it */
    *handle = s;
    return 0;
}

/* Adds the log-probability of each letter, given the nearest known one from site l on in steps of
 * 1 or -1. */
static void look(const sticky *s, const uint8_t *x, int32_t length, int32_t l, int step,
                 float *log_p)
{
    int32_t at = l + step;
    while (at >= 0 && at < length && x[at] == MASK)
        at += step;
    if (at < 0 || at >= length) return;
    double same = pow(s->stays, abs(at - l));
    for (int k = 0; k < LETTERS; k++)
        log_p[k] += (float)log((1 - same) / LETTERS + (k == x[at] ? same : 0));
}

/* One state x [length] -> log_p [length][LETTERS].  What is said of known sites is not looked at. */
static void answer(const sticky *s, const uint8_t *x, int32_t length, float *log_p)
{
    for (int32_t l = 0; l < length; l++, log_p += LETTERS) {
        memset(log_p, 0, LETTERS * sizeof *log_p);
        look(s, x, length, l, -1, log_p);
        look(s, x, length, l, 1, log_p);
    }
}

static int sticky_evaluate(void *handle, const kac_plugin_rows *rows)
{
    const uint8_t *states = rows->states;
    for (int32_t i = 0; i < rows->count; i++) {
        int64_t first = (int64_t)i * rows->length;
        answer(handle, states + first, rows->length, rows->out + first * LETTERS);
    }
    return 0;
}

static const char *sticky_error(void *handle)
{
    (void)handle;
    return "it is a denoiser, whose options are a probability below 1, such as 0.5";
}

const kac_plugin *kac_plugin_v1(void)
{
    static const kac_plugin plugin = {.version = KAC_PLUGIN_VERSION,
                                      .open = sticky_open,
                                      .evaluate = sticky_evaluate,
                                      .error = sticky_error,
                                      .close = free};
    return &plugin;
}
