/* gdss_pack_cuda.cu -- the gdss networks as gdss_cuda.cuh has them, in a GPU's memory. */
#include "gdss_cuda.cuh"
#include "pack.h"

/* Where the next numbers go; NULL memory: they are counted only. */
struct filler {
    float *memory;        /* the host's copy */
    const float *weights; /* what it becomes on the device */
    int32_t *numbers;     /* whole numbers, as well */
    const int32_t *owners;
    int64_t used, owned;
};

/* Room for `floats` floats, in whole quadruples: where it begins. */
static int64_t take(filler *f, int64_t floats)
{
    const int64_t at = f->used;
    f->used += (floats + 3) / 4 * 4;
    return at;
}

static const float *on_device(const filler *f, int64_t at)
{
    return f->memory != NULL ? f->weights + at : NULL;
}

/* A matrix to write, [rows][columns]. */
struct matrix {
    const float *data;
    int64_t rows, columns;
};

/* to[i][j] = m[i][j] or, where it is turned, m[j][i]; rows of `step` floats. */
static void fill(float *to, const matrix *m, bool turned, int64_t step)
{
    for (int64_t i = 0; i < m->rows; i++)
        for (int64_t j = 0; j < m->columns; j++)
            to[turned ? j * step + i : i * step + j] =
                kac_gdss_weight(m->data[i * m->columns + j]);
}

static void grow(int32_t *most, int32_t value)
{
    if (value > *most) *most = value;
}

/* ---- small networks ------------------------------------------------------------------------- */

static void pack_mlp(filler *f, const kac_gdss_mlp *from, gdss_model *model, gdss_mlp *to)
{
    int64_t floats = 0, back = 0;
    *to = {};
    to->layers = from->layers;
    to->rows = from->layer[0].in;
    for (int32_t i = 0; i < from->layers; i++) {
        const kac_gdss_linear *l = &from->layer[i];
        const int32_t out = gdss_round(l->out, GDSS_TILE);
        to->layer[i] = {l->in, l->out, (int32_t)floats, (int32_t)floats + l->in * out,
                        (int32_t)back};
        floats += (int64_t)l->in * out + out;
        back += (int64_t)l->out * gdss_round(l->in, GDSS_TILE);
        to->rows += l->out;
        grow(&to->widest, l->out);
        grow(&model->mlp_widest, l->in);
    }
    to->floats = (int32_t)floats;
    grow(&model->mlp_widest, to->widest);
    grow(&model->mlp_rows, to->rows);
    const int64_t at = take(f, floats), behind = take(f, back);
    to->forward = on_device(f, at);
    to->back = on_device(f, behind);
    for (int32_t i = 0; f->memory != NULL && i < from->layers; i++) {
        const kac_gdss_linear *l = &from->layer[i];
        const gdss_linear *own = &to->layer[i];
        const matrix weight = {l->weight, l->out, l->in}, bias = {l->bias, 1, l->out};
        fill(f->memory + at + own->weight, &weight, true, gdss_round(l->out, GDSS_TILE));
        fill(f->memory + at + own->bias, &bias, false, l->out);
        fill(f->memory + behind + own->back, &weight, false, gdss_round(l->in, GDSS_TILE));
    }
}

/* ---- layers ---------------------------------------------------------------------------------- */

/* Room for the rows of a layer: weights, biases, weights of the way back, and owners. */
struct places {
    int64_t weight, bias, back, owner;
};

static places open_rows(filler *f, gdss_layer *to)
{
    const places at = {take(f, (int64_t)to->in * to->rows), take(f, to->rows),
                       take(f, (int64_t)to->rows * gdss_round(to->in, GDSS_TILE)), f->owned};
    f->owned += to->rows / GDSS_TILE;
    to->weight = on_device(f, at.weight);
    to->bias = on_device(f, at.bias);
    to->back = on_device(f, at.back);
    to->owner = f->memory != NULL ? f->owners + at.owner : NULL;
    return at;
}

/* One convolution in rows `row` .. of a layer. */
static void fill_rows(filler *f, const kac_gdss_linear *conv, const gdss_layer *layer,
                      const places *at, int32_t row)
{
    const int32_t in = gdss_round(layer->in, GDSS_TILE);
    const matrix weight = {conv->weight, conv->in, conv->out},
                 bias = {conv->bias, 1, conv->out};
    fill(f->memory + at->weight + row, &weight, false, layer->rows);
    fill(f->memory + at->back + (int64_t)row * in, &weight, true, in);
    fill(f->memory + at->bias + row, &bias, false, conv->out);
}

static void pack_conv(filler *f, const kac_gdss_linear *conv, gdss_layer *to)
{
    to->in = conv->in;
    to->channels = 1;
    to->x_out = to->value = conv->out;
    to->rows = to->channel_rows = to->first[1] = gdss_round(conv->out, GDSS_TILE);
    const places at = open_rows(f, to);
    if (f->memory == NULL) return;
    fill_rows(f, conv, to, &at, 0);
    for (int32_t i = 0; i < to->rows / GDSS_TILE; i++)
        f->numbers[at.owner + i] = 0;
}

/* What is wanted of a layer: its nodes' features, its pairs' channels. */
struct wanted {
    bool nodes, pairs;
};

static void pack_attention(filler *f, const kac_gdss_network *net,
                           const kac_gdss_attention *from, const wanted *want,
                           gdss_model *model, gdss_layer *to)
{
    const kac_gdss_linear *conv = from->conv[0];
    to->in = conv->in;
    to->channels = from->channels;
    to->query = conv[KAC_GDSS_QUERY].out;
    to->value = conv[KAC_GDSS_VALUE].out;
    to->heads = net->heads;
    to->width = to->query / to->heads;
    to->scale = kac_gdss_scale(from);
    to->mean = 0.5f / (float)to->heads;
    for (int32_t c = 0; c < to->channels; c++) {
        const bool scored = want->pairs && !kac_gdss_has_no_scores(from, c);
        const int32_t rows = (scored ? 2 * to->query : 0) + (want->nodes ? to->value : 0);
        to->first[c] = to->rows;
        to->rows += gdss_round(rows, GDSS_TILE);
        if (scored) to->scored |= 1 << c;
        grow(&to->channel_rows, gdss_round(rows, GDSS_TILE));
    }
    to->first[to->channels] = to->rows;
    const places at = open_rows(f, to);
    for (int32_t c = 0; f->memory != NULL && c < to->channels; c++) {
        int32_t row = to->first[c];
        for (int i = 0; i < KAC_GDSS_PARTS; i++) {
            if (i == KAC_GDSS_VALUE ? !want->nodes : !(to->scored >> c & 1)) continue;
            fill_rows(f, &from->conv[c][i], to, &at, row);
            row += from->conv[c][i].out;
        }
        for (int32_t i = to->first[c]; i < to->first[c + 1]; i += GDSS_TILE)
            f->numbers[at.owner + i / GDSS_TILE] = c;
    }
    pack_mlp(f, &from->nodes, model, &to->nodes);
    pack_mlp(f, &from->pairs, model, &to->pairs);
    to->x_out = want->nodes ? from->nodes.layer[from->nodes.layers - 1].out : 0;
    to->c_out = want->pairs ? from->pairs.layer[from->pairs.layers - 1].out : 0;
    grow(&model->values, to->channels * to->value);
}

/* The last layer of a network makes only what the end reads: features of nodes, or channels. */
static void pack_network(filler *f, const kac_gdss_network *from, bool nodes, gdss_model *model,
                         gdss_network *to)
{
    to->layers = from->layers;
    to->attends = from->attends;
    to->width = model->features;
    to->channels = KAC_GDSS_POWERS;
    int32_t x_first = 0, c_first = 0;
    for (int32_t i = 0; i < to->layers; i++) {
        gdss_layer *layer = &to->layer[i];
        const wanted want = {nodes || i + 1 < to->layers, !nodes || i + 1 < to->layers};
        *layer = {};
        layer->x_first = x_first;
        layer->c_first = c_first;
        layer->twice = nodes;
        if (from->attends)
            pack_attention(f, from, &from->attention[i], &want, model, layer);
        else
            pack_conv(f, &from->conv[i], layer);
        x_first += layer->in;
        c_first += from->attends ? layer->channels : 0;
        to->width += layer->x_out;
        to->channels += layer->c_out;
        grow(&model->x_most, layer->in);
        grow(&model->x_most, layer->x_out);
        grow(&model->c_most, layer->channels);
        grow(&model->rows, layer->rows);
        grow(&model->heads, layer->heads);
    }
    pack_mlp(f, &from->final, model, &to->last);
}

static void pack_all(filler *f, const kac_gdss_weights *w, gdss_model *model)
{
    *model = {};
    model->nodes = w->nodes;
    model->features = w->features;
    model->x_most = w->features;
    model->c_most = KAC_GDSS_POWERS;
    f->used = f->owned = 0;
    pack_network(f, &w->x, true, model, &model->net[0]);
    pack_network(f, &w->adj, false, model, &model->net[1]);
}

/* ---- pack --------------------------------------------------------------------------------------- */

/* Fills the device's memory from the host's, zeros where nothing is. */
static kac_status send(kac_device *dev, const kac_gdss_weights *w, filler *f, kac_net *net)
{
    f->weights = net->weights;
    f->owners = net->owners;
    pack_all(f, w, &net->host);
    KAC_TRY(dev->ops->memory.upload(dev, net->weights, f->memory,
                                    (size_t)f->used * sizeof *f->memory));
    KAC_TRY(dev->ops->memory.upload(dev, net->owners, f->numbers,
                                    (size_t)f->owned * sizeof *f->numbers));
    return dev->ops->memory.upload(dev, net->model, &net->host, sizeof net->host);
}

kac_status kac_cuda_gdss_pack(kac_device *dev, const kac_gdss_weights *host_weights,
                              kac_net **out)
{
    KAC_REQUIRE(host_weights->nodes >= 1 && host_weights->nodes <= KAC_GDSS_MAX_NODES);
    KAC_REQUIRE(host_weights->adj.attends);
    filler f = {};
    kac_net *net = kac_net_new(sizeof *net);
    if (net == NULL) return KAC_ERR_NOMEM;
    pack_all(&f, host_weights, &net->host);
    f.memory = (float *)calloc((size_t)f.used + 1, sizeof *f.memory);
    f.numbers = (int32_t *)calloc((size_t)f.owned + 1, sizeof *f.numbers);
    net->weights = (float *)dev->ops->memory.alloc(dev, (size_t)f.used * sizeof *net->weights);
    net->owners = (int32_t *)dev->ops->memory.alloc(dev, (size_t)f.owned * sizeof *net->owners);
    net->model = (gdss_model *)dev->ops->memory.alloc(dev, sizeof *net->model);
    kac_status status = KAC_ERR_NOMEM;
    if (f.memory != NULL && f.numbers != NULL && net->weights != NULL && net->owners != NULL &&
        net->model != NULL)
        status = send(dev, host_weights, &f, net);
    free(f.memory);
    free(f.numbers);
    if (status == KAC_OK)
        *out = net;
    else
        kac_cuda_gdss_drop(dev, net);
    return status;
}

void kac_cuda_gdss_drop(kac_device *dev, kac_net *net)
{
    if (net == NULL) return;
    dev->ops->memory.release(dev, net->weights);
    dev->ops->memory.release(dev, net->owners);
    dev->ops->memory.release(dev, net->model);
    free(net);
}
