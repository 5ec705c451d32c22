/* share.c -- a plug-in for kac: the share of an object's sites that have certain letters.
 *
 *     cc -shared -fPIC -O2 -Iinclude -o share.so tools/plugins/share.c
 *
 * The letters are the options, GC where there are none; docs/plugins.md shows a run. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "kac_plugin.h"

typedef struct share {
    int counts[256]; /* by letter, as states have it */
} share;

static int share_open(const kac_plugin_use *use, kac_plugin_shape *shape, void **handle)
{
    const char *letters = use->options[0] != '\0' ? use->options : "GC";
    share *s = calloc(1, sizeof *s);
    if (s == NULL || use->role != KAC_PLUGIN_REWARD || use->alphabet[0] == '\0') {
        free(s);
        return 1;
    }
    for (int k = 0; use->alphabet[k] != '\0'; k++)
        s->counts[k] = strchr(letters, use->alphabet[k]) != NULL;
    shape->outputs = 1;
    *handle = s;
    return 0;
}

static int share_evaluate(void *handle, const kac_plugin_rows *rows)
{
    const share *s = handle;
    const uint8_t *letter = rows->states;
    for (int32_t i = 0; i < rows->count; i++) {
        int count = 0;
        for (int32_t l = 0; l < rows->length; l++)
            count += s->counts[*letter++];
        rows->out[i] = (float)((double)count / rows->length);
    }
    return 0;
}

static const char *share_error(void *handle)
{
    (void)handle;
    return "it is a reward of sequences";
}

const kac_plugin *kac_plugin_v1(void)
{
    static const kac_plugin plugin = {.version = KAC_PLUGIN_VERSION,
                                      .open = share_open,
                                      .evaluate = share_evaluate,
                                      .error = share_error,
                                      .close = free};
    return &plugin;
}
