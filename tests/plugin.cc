/* plugin.cc -- a plug-in for the tests, in C++: what it does, well or badly, its options say.
 *
 * The words of the options: `table` answers as the small models of make_models.c do, as a denoiser
 * of ABC and as a reward; `nth` is a reward that answers how many were opened before it; `vectors`
 * is a denoiser of the normal law of 2 numbers; `text` is a reward of what objects look like: its
 * length, whether it has a dot, its As, and whether objects are molecules; the rest are mistakes.
 * PLUGIN_VERSION and PLUGIN_SYMBOL make it one of another version or of none. */
#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "kac_plugin.h"

#ifndef PLUGIN_VERSION
#define PLUGIN_VERSION KAC_PLUGIN_VERSION
#endif
#ifndef PLUGIN_SYMBOL
#define PLUGIN_SYMBOL kac_plugin_v1
#endif

namespace
{
enum { STATES = 3, LENGTH = 4 };

struct plugin {
    std::string options;
    bool denoises, molecules;
    int calls, number; /* number: how many were opened before it */

    bool is(const char *word) const
    {
        return options.find(word) != std::string::npos;
    }
};

std::string latest; /* error */
int opened;

/* Number i of every small model. */
float number(int64_t i)
{
    return static_cast<float>(i * 7919 % 101) / 50 - 1;
}

/* The number of a state in this base. */
int64_t row_of(const uint8_t *x, int base)
{
    int64_t row = 0;
    for (int l = 0; l < LENGTH; l++)
        row = row * base + x[l];
    return row;
}

int fail(const char *why)
{
    latest = why;
    return 1;
}

int open(const kac_plugin_use *use, kac_plugin_shape *shape, void **handle)
{
    auto *p = new plugin{use->options, use->role == KAC_PLUGIN_DENOISER, use->molecules != 0, 0,
                         opened++};
    if (p->is("refuse")) {
        delete p;
        return fail("no licence\nwas found");
    }
    shape->outputs = p->is("no outputs") ? 0 : 1;
    if (p->is("two")) shape->outputs = 2;
    if (p->is("text")) shape->outputs = 4;
    shape->reads_text = p->is("text");
    if (p->denoises && !p->is("vectors"))
        strcpy(shape->alphabet, p->is("twice") ? "ABA" : "ABC");
    shape->length = p->is("vectors") ? 2 : LENGTH;
    if (p->is("long")) shape->length = -1;
    shape->fixed_length = 1;
    shape->reads_time = p->is("vectors");
    *handle = p;
    return 0;
}

void answer(const plugin *p, const uint8_t *x, int32_t length, float *out)
{
    if (p->is("vectors")) { /* a reward that says nothing */
        out[0] = 0;
        return;
    }
    if (!p->denoises) {
        out[0] = p->is("nan")   ? NAN
                 : p->is("nth") ? static_cast<float>(p->number)
                                : number(row_of(x, STATES));
        if (p->is("two")) out[1] = -out[0];
        return;
    }
    for (int i = 0; i < length * STATES; i++)
        out[i] = p->is("nan") ? NAN : number(row_of(x, STATES + 1) * LENGTH * STATES + i);
}

void describe(const plugin *p, const std::string &text, float *out)
{
    out[0] = static_cast<float>(text.size());
    out[1] = text.find('.') != std::string::npos;
    out[2] = static_cast<float>(std::count(text.begin(), text.end(), 'A'));
    out[3] = p->molecules;
}

int evaluate(void *handle, const kac_plugin_rows *rows)
{
    auto *p = static_cast<plugin *>(handle);
    if (p->is("fail") && ++p->calls > 2) return fail("the third call is too much");
    if (p->is("vectors") && p->denoises) {
        const float *x = static_cast<const float *>(rows->states);
        for (int32_t i = 0; i < rows->count * rows->length; i++)
            rows->out[i] = static_cast<float>(
                rows->scale * x[i] / (rows->scale * rows->scale + rows->noise * rows->noise));
        return 0;
    }
    if (p->is("text")) {
        for (int32_t i = 0; i < rows->count; i++)
            describe(p, rows->text + i * rows->text_stride, rows->out + 4 * i);
        return 0;
    }
    if (rows->text != nullptr) return fail("text that nobody asked for");
    int32_t floats = !p->denoises ? (p->is("two") ? 2 : 1) : rows->length * STATES;
    for (int32_t i = 0; i < rows->count; i++)
        answer(p, static_cast<const uint8_t *>(rows->states) + i * rows->length, rows->length,
               rows->out + i * floats);
    return 0;
}

/* The emulator's device memory can be read here. */
int queue(void *handle, const kac_plugin_queue *q)
{
    auto *p = static_cast<plugin *>(handle);
    int32_t n = q->capacity;
    if (q->count != nullptr && *q->count - q->first < n) n = *q->count - q->first;
    for (int32_t j = 0; j < n; j++) {
        int64_t from = q->src != nullptr ? q->src[j] : j,
                to = q->dst != nullptr ? q->dst[j] : j;
        answer(p, static_cast<const uint8_t *>(q->states) + from * q->stride, q->length,
               q->out + to * q->out_stride);
    }
    return 0;
}

const char *error(void *)
{
    return latest.c_str();
}

void close(void *handle)
{
    delete static_cast<plugin *>(handle);
}
} /* namespace */

extern "C" __attribute__((visibility("default"))) const kac_plugin *PLUGIN_SYMBOL(void)
{
#ifdef PLUGIN_QUEUES
    static const kac_plugin all = {PLUGIN_VERSION, open, evaluate, queue, error, close};
#else
    static const kac_plugin all = {PLUGIN_VERSION, open, evaluate, nullptr, error, close};
    (void)queue;
#endif
    return &all;
}
