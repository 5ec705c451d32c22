/* gin_simd.c -- a chunk of graphs through all layers of a gin, and back. */
#include "gin_cpu.h"
#include "layer_simd.h"

/* x[b] *= by[b], rows of `step` floats. */
static void multiply(int32_t batch, int32_t step, const float *by, float *x)
{
    for (int32_t b = 0; b < batch; b++)
        for (int32_t c = 0; c < step; c++)
            x[(int64_t)b * step + c] *= by[b];
}

void KAC_SIMD_NAME(kac_gin_chunk)(const kac_net *net, int32_t batch, float *kept)
{
    const float *live = kept;
    const int32_t step = net->stage[net->stages - 1].linear[1].step;
    float *mean = kept + batch * net->mean_at;
    for (int32_t i = 0; i < net->stages; i++) {
        const kac_gin_stage *s = &net->stage[i];
        const int last = i + 1 == net->stages;
        float *hidden = kept + batch * s->hidden_at;
        float *out = last ? mean : kept + batch * net->stage[i + 1].in_at;
        kac_layer_dense(&s->linear[0], KAC_TILE_RELU, kept + batch * s->in_at, s->in_step,
                        batch, hidden);
        kac_layer_dense(&s->linear[1], last ? KAC_TILE_LINEAR : KAC_TILE_RELU, hidden,
                        s->linear[0].step, batch, out);
        if (!last) multiply(batch, s->linear[1].step, live, out);
    }
    for (int32_t b = 0; b < batch; b++)
        for (int32_t c = 0; c < step; c++)
            mean[(int64_t)b * step + c] =
                kac_gin_mean(live[b], net->nodes, mean[(int64_t)b * step + c], net->alone[c]);
    kac_layer_dense(&net->end, KAC_TILE_LINEAR, mean, step, batch, kept + batch * net->out_at);
}

/* A live node's relu is open where the sum over all of them is above 0; where none lives, the
 * gradient is 0 already. */
const float *KAC_SIMD_NAME(kac_gin_back)(const kac_net *net, int32_t batch, const float *kept,
                                         float *from, float *to)
{
    const float *live = kept;
    kac_layer_dense(net->end.back, KAC_TILE_LINEAR, from, net->end.step, batch, to);
    for (int32_t i = net->stages - 1; i >= 0; i--) {
        const kac_gin_stage *s = &net->stage[i];
        const int32_t step = s->linear[1].step, wide = s->linear[0].step;
        if (i == net->stages - 1) {
            for (int32_t b = 0; b < batch; b++)
                for (int32_t c = 0; c < step; c++)
                    to[(int64_t)b * step + c] =
                        kac_gin_mean_back(live[b], net->nodes, to[(int64_t)b * step + c]);
        } else {
            multiply(batch, step, live, to);
            kac_layer_gate((int64_t)batch * step, kept + batch * net->stage[i + 1].in_at, to,
                           to);
        }
        kac_layer_dense(s->linear[1].back, KAC_TILE_LINEAR, to, step, batch, from);
        kac_layer_gate((int64_t)batch * wide, kept + batch * s->hidden_at, from, from);
        kac_layer_dense(s->linear[0].back, KAC_TILE_LINEAR, from, wide, batch, to);
    }
    return to;
}
