/* plugin.c -- shared objects of others as networks (include/kac_plugin.h). */
#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "atomic.h"
#include "kac_plugin.h"
#include "network.h"

enum { PATH = sizeof((kac_network *)0)->path, OPTIONS = sizeof((kac_network *)0)->options };

static const kac_arch archs[2][2] = {
    {{"plugin", KAC_ROLE_DENOISER, 0, 0, NULL}, {"plugin", KAC_ROLE_DENOISER, 1, 0, NULL}},
    {{"plugin", KAC_ROLE_REWARD, 0, 0, NULL}, {"plugin", KAC_ROLE_REWARD, 1, 0, NULL}},
};

/* Memory of the host that grows. */
typedef struct room {
    void *at;
    size_t bytes;
} room;

/* Copies of questions and answers. */
typedef struct copies {
    room src, dst; /* int32_t [n] */
    room window;   /* rows as they lie */
    room states;   /* packed */
    room text;     /* of objects, where the plug-in reads it */
    room out;      /* float */
} copies;

struct kac_net {
    void *library;
    const kac_plugin *plugin;
    void *handle;
    bool opened;
    bool vectors, denoises, reads_time;
    int32_t states;              /* letters; of vectors 1 */
    int32_t outputs;             /* rewards */
    const kac_object_form *form; /* of objects whose text it reads, or NULL */
    char path[PATH];
    copies *copies;
};

/* ---- errors ------------------------------------------------------------------------------- */

/* "FILE: what it could not do: its own words", in one line. */
static kac_status failed(const kac_net *net, kac_status status, const char *what)
{
    char text[300] = "";
    const char *own = net->plugin->error != NULL ? net->plugin->error(net->handle) : NULL;
    if (own != NULL) snprintf(text, sizeof text, ": %s", own);
    for (char *c = text; *c != '\0'; c++)
        if (*c < ' ') *c = ' ';
    return KAC_FAIL(status, "%s: %s%s", net->path, what, text);
}

/* ---- evaluation --------------------------------------------------------------------------- */

static size_t state_bytes(const kac_net *net, int32_t length)
{
    return (size_t)length * (net->vectors ? sizeof(float) : 1);
}

static int32_t answer_floats(const kac_net *net, int32_t length)
{
    return net->denoises ? length * net->states : net->outputs;
}

/* Room for so many bytes, whose contents do not matter. */
static kac_status grow(const kac_net *net, room *r, size_t bytes)
{
    if (bytes <= r->bytes) return KAC_OK;
    free(r->at);
    r->at = malloc(bytes);
    r->bytes = r->at != NULL ? bytes : 0;
    if (r->at != NULL) return KAC_OK;
    return KAC_FAIL(KAC_ERR_NOMEM, "%s: no memory for %zu bytes of questions", net->path,
                    bytes);
}

/* A list of n places on the host; 0, 1, .. where there is none. */
static kac_status take_list(kac_device *dev, const kac_net *net, const int32_t *list, int32_t n,
                            room *r)
{
    KAC_TRY(grow(net, r, (size_t)n * sizeof *list));
    int32_t *own = r->at;
    if (list != NULL)
        return dev->ops->memory.download(dev, own, list, (size_t)n * sizeof *list);
    for (int32_t j = 0; j < n; j++)
        own[j] = j;
    return KAC_OK;
}

/* The questions, packed; n of them, 1 or more. */
static kac_status take_states(kac_device *dev, const kac_net *net, const kac_query *q,
                              int32_t n)
{
    copies *c = net->copies;
    size_t bytes = state_bytes(net, q->length), stride = (size_t)q->stride;
    KAC_TRY(take_list(dev, net, q->src, n, &c->src));
    const int32_t *src = c->src.at;
    int32_t first = src[0], last = src[0]; /* as they ascend, what is between is mostly asked */
    for (int32_t j = 1; j < n; j++) {
        first = src[j] < first ? src[j] : first;
        last = src[j] > last ? src[j] : last;
    }
    size_t window = (size_t)(last - first) * stride + bytes;
    KAC_TRY(grow(net, &c->window, window));
    KAC_TRY(grow(net, &c->states, (size_t)n * bytes));
    KAC_TRY(dev->ops->memory.download(dev, c->window.at, q->tokens + (size_t)first * stride,
                                      window));
    const uint8_t *from = c->window.at;
    uint8_t *to = c->states.at;
    for (int32_t j = 0; j < n; j++)
        memcpy(to + (size_t)j * bytes, from + (size_t)(src[j] - first) * stride, bytes);
    return KAC_OK;
}

/* The same as text, where the plug-in reads it. */
static kac_status take_text(const kac_net *net, kac_plugin_rows *rows)
{
    copies *c = net->copies;
    if (net->form == NULL) return KAC_OK;
    size_t bytes = state_bytes(net, rows->length), size = kac_object_size(net->form);
    KAC_TRY(grow(net, &c->text, (size_t)rows->count * size));
    const uint8_t *states = c->states.at;
    char *text = c->text.at;
    for (int32_t j = 0; j < rows->count; j++)
        kac_object_write(net->form, states + (size_t)j * bytes, text + (size_t)j * size);
    rows->text = text;
    rows->text_stride = (int64_t)size;
    return KAC_OK;
}

/* The level of the query, where the plug-in reads it. */
static kac_status take_level(kac_device *dev, const kac_net *net, const kac_query *q,
                             kac_plugin_rows *rows)
{
    kac_clock clock;
    kac_level level;
    if (!net->reads_time) return KAC_OK;
    KAC_TRY(dev->ops->memory.download(dev, &clock, q->clock, sizeof clock));
    KAC_TRY(dev->ops->memory.download(dev, &level, &q->levels[clock.level], sizeof level));
    rows->t = level.t;
    rows->sigma = (double)level.sigma;
    rows->scale = level.gaussian.scale;
    rows->noise = level.gaussian.noise;
    return KAC_OK;
}

/* The answers to their places. */
static kac_status give(kac_device *dev, const kac_net *net, const kac_query *q, int32_t n)
{
    copies *c = net->copies;
    KAC_TRY(take_list(dev, net, q->dst, n, &c->dst));
    const int32_t *dst = c->dst.at;
    const float *from = c->out.at;
    int64_t floats = answer_floats(net, q->length);
    for (int32_t j = 0; j < n; j++)
        KAC_TRY(dev->ops->memory.upload(dev, q->out + dst[j] * (int64_t)q->out_stride,
                                        from + j * floats, (size_t)floats * sizeof *from));
    return KAC_OK;
}

/* By copies on the host, which waits for the device. */
static kac_status evaluate(kac_device *dev, const kac_net *net, const kac_query *q)
{
    copies *c = net->copies;
    int32_t n = q->capacity, count = 0;
    if (q->count != NULL) {
        KAC_TRY(dev->ops->memory.download(dev, &count, q->count, sizeof count));
        n = count - q->first < n ? count - q->first : n;
    }
    if (n <= 0) return KAC_OK;
    KAC_TRY(take_states(dev, net, q, n));
    KAC_TRY(
        grow(net, &c->out, (size_t)n * (size_t)answer_floats(net, q->length) * sizeof(float)));
    kac_plugin_rows rows = {
        .count = n, .length = q->length, .states = c->states.at, .out = c->out.at};
    KAC_TRY(take_text(net, &rows));
    KAC_TRY(take_level(dev, net, q, &rows));
    if (net->plugin->evaluate(net->handle, &rows) != 0)
        return failed(net, KAC_ERR_WORKER, "it failed to evaluate");
    return give(dev, net, q, n);
}

/* By the plug-in's own kernels. */
static kac_status queue(kac_device *dev, const kac_net *net, const kac_query *q)
{
    kac_plugin_queue rows = {.stream = dev->stream,
                             .length = q->length,
                             .capacity = q->capacity,
                             .first = q->first,
                             .count = q->count,
                             .src = q->src,
                             .dst = q->dst,
                             .states = q->tokens,
                             .stride = q->stride,
                             .out = q->out,
                             .out_stride = q->out_stride,
                             .levels = (const unsigned char *)q->levels,
                             .level_bytes = sizeof(kac_level),
                             .t_at = offsetof(kac_level, t),
                             .sigma_at = offsetof(kac_level, sigma),
                             .scale_at = offsetof(kac_level, gaussian.scale),
                             .noise_at = offsetof(kac_level, gaussian.noise)};
    if (q->clock != NULL) rows.level = &q->clock->level;
    if (net->plugin->queue(net->handle, &rows) != 0)
        return failed(net, KAC_ERR_WORKER, "it failed to queue its work");
    return KAC_OK;
}

/* ---- opening ------------------------------------------------------------------------------ */

static void drop(kac_device *dev, kac_net *net)
{
    (void)dev;
    if (net == NULL) return;
    if (net->opened && net->plugin->close != NULL) net->plugin->close(net->handle);
    if (net->library != NULL) (void)dlclose(net->library);
    if (net->copies != NULL) {
        free(net->copies->src.at);
        free(net->copies->dst.at);
        free(net->copies->window.at);
        free(net->copies->states.at);
        free(net->copies->text.at);
        free(net->copies->out.at);
    }
    free(net->copies);
    free(net);
}

/* Loads the file and finds its functions. */
static kac_status load(const char *path, kac_net *net)
{
    char place[PATH + 2]; /* without a slash a name would be sought elsewhere */
    snprintf(place, sizeof place, "%s%s", strchr(path, '/') != NULL ? "" : "./", path);
    if (access(place, R_OK) != 0)
        return KAC_FAIL(kac_path_status(errno), "%s: cannot be read: %s", path,
                        strerror(errno));
    net->library = dlopen(place, RTLD_NOW | RTLD_LOCAL);
    if (net->library == NULL)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: it is no shared object that can be loaded: %s",
                        path, dlerror());
    const kac_plugin *(*functions)(void) = NULL;
    *(void **)&functions = dlsym(net->library, KAC_PLUGIN_SYMBOL);
    if (functions == NULL)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "%s: it has no function " KAC_PLUGIN_SYMBOL
                        ", so it is no plug-in that this kac knows",
                        path);
    net->plugin = functions();
    int32_t version = net->plugin != NULL ? net->plugin->version : 0;
    if (version < 1 || version > KAC_PLUGIN_VERSION)
        return KAC_FAIL(
            KAC_ERR_INVALID,
            "%s: it is built for version %d of kac_plugin.h, and this kac has 1 to %d", path,
            (int)version, KAC_PLUGIN_VERSION);
    if (net->plugin->open == NULL || net->plugin->evaluate == NULL)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: it has no function `%s`", path,
                        net->plugin->open == NULL ? "open" : "evaluate");
    return KAC_OK;
}

/* Whether the shape is one. */
static kac_status check_shape(const char *path, kac_role role, const kac_plugin_shape *shape)
{
    bool denoises = role == KAC_ROLE_DENOISER;
    if (!denoises && (shape->outputs < 1 || shape->outputs > KAC_PLUGIN_OUTPUTS))
        return KAC_FAIL(KAC_ERR_INVALID, "%s: it says it has %d outputs, want 1 to %d", path,
                        (int)shape->outputs, KAC_PLUGIN_OUTPUTS);
    if (denoises && (shape->length < 0 || shape->length > KAC_NETWORK_MAX_LENGTH ||
                     (shape->fixed_length && shape->length == 0)))
        return KAC_FAIL(KAC_ERR_INVALID, "%s: it says its length is %d, want 1 to %d", path,
                        (int)shape->length, KAC_NETWORK_MAX_LENGTH);
    if (memchr(shape->alphabet, '\0', sizeof shape->alphabet) == NULL)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: its alphabet has more than %d letters", path,
                        KAC_PLUGIN_LETTERS);
    for (const char *c = shape->alphabet; *c != '\0'; c++)
        if (!kac_is_letter(*c) || strchr(c + 1, *c) != NULL)
            return KAC_FAIL(
                KAC_ERR_INVALID,
                "%s: its alphabet must be printable letters but , \" > ?, none twice", path);
    return KAC_OK;
}

/* Opens it for what `spec` wants, and fills the network. */
static kac_status prepare(const kac_plugin_spec *spec, kac_net *net, kac_network *network)
{
    kac_device *dev = network->dev;
    bool denoises = spec->role == KAC_ROLE_DENOISER, on_cpu = dev->ops == &kac_cpu_ops;
    kac_plugin_shape shape = {0};
    kac_plugin_use use = {.role = denoises ? KAC_PLUGIN_DENOISER : KAC_PLUGIN_REWARD,
                          .cuda = on_cpu ? -1 : dev->ordinal,
                          .options = spec->options,
                          .alphabet = denoises ? "" : spec->form->alphabet,
                          .length = denoises ? 0 : spec->form->shape.length,
                          .molecules = !denoises && spec->form->molecule != NULL};
    snprintf(net->path, sizeof net->path, "%s", spec->path);
    KAC_TRY(load(spec->path, net));
    if (net->plugin->open(&use, &shape, &net->handle) != 0) {
        net->handle = NULL;
        return failed(net, KAC_ERR_INVALID, "it refuses");
    }
    net->opened = true;
    KAC_TRY(check_shape(spec->path, spec->role, &shape));
    const char *alphabet = denoises ? shape.alphabet : use.alphabet;
    net->denoises = denoises;
    net->vectors = alphabet[0] == '\0';
    net->states = net->vectors ? 1 : (int32_t)strlen(alphabet);
    net->outputs = shape.outputs;
    net->reads_time = denoises && shape.reads_time != 0;
    net->form = !denoises && shape.reads_text != 0 ? spec->form : NULL;
    network->waits = on_cpu || net->plugin->queue == NULL || net->form != NULL;
    network->forward = network->waits ? evaluate : queue;
    network->arch = &archs[!denoises][net->vectors];
    network->states = net->states;
    network->outputs = denoises ? 0 : shape.outputs;
    network->reads_time = net->reads_time;
    network->length = denoises ? shape.length : use.length;
    network->fixed_length = denoises ? shape.fixed_length != 0 : 1;
    snprintf(network->alphabet, sizeof network->alphabet, "%s", alphabet);
    return KAC_OK;
}

kac_status kac_plugin_open(kac_device *dev, const kac_plugin_spec *spec, kac_network **out)
{
    KAC_REQUIRE(dev != NULL && spec != NULL && out != NULL);
    if (strlen(spec->path) >= PATH)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: the path is too long", spec->path);
    if (strlen(spec->options) >= OPTIONS)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: its options are too long", spec->path);
    kac_network *network = calloc(1, sizeof *network);
    kac_net *net = calloc(1, sizeof *net);
    copies *host = calloc(1, sizeof *host);
    if (network == NULL || net == NULL || host == NULL) {
        free(network);
        free(net);
        free(host);
        return KAC_FAIL(KAC_ERR_NOMEM, "%s: out of memory", spec->path);
    }
    net->copies = host;
    *network = (kac_network){.dev = dev, .net = net, .drop = drop};
    snprintf(network->path, sizeof network->path, "%s", spec->path);
    snprintf(network->options, sizeof network->options, "%s", spec->options);
    kac_status status = prepare(spec, net, network);
    if (status == KAC_OK)
        *out = network;
    else
        kac_network_close(network);
    return status;
}
