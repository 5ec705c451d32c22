/* gru.h -- the GRU of one channel, forwards and backwards, and convgru's folding of BatchNorm.
 * K. Cho et al., "Learning phrase representations using RNN encoder-decoder", 2014, in the form
 * of PyTorch: the reset gate multiplies what the state gives. */
#ifndef KAC_GRU_H
#define KAC_GRU_H

#include "exact.h"
#include "networks.h"

/* What a direction keeps of a step and row for the way back: r, z, n, what r multiplies, and the
 * state before it, a row of channels each. */
enum { KAC_GRU_KEPT = 5 };

typedef struct kac_gru_gates {
    float r, z, n;
} kac_gru_gates;

/* From what the input and the state give to the gates r, z, n. */
KAC_HD static inline kac_gru_gates kac_gru_step(float input_r, float input_z, float input_n,
                                                float hidden_r, float hidden_z, float hidden_n)
{
    kac_gru_gates s;
    s.r = kac_sigmoidf(input_r + hidden_r);
    s.z = kac_sigmoidf(input_z + hidden_z);
    s.n = kac_tanhf(fmaf(s.r, hidden_n, input_n));
    return s;
}

/* The state after h: (1 - z) n + z h. */
KAC_HD static inline float kac_gru_state(kac_gru_gates s, float h)
{
    return fmaf(s.z, h - s.n, s.n);
}

/* Gradients of what the input gives to the gates; the state gives n through r: dn r. */
typedef struct kac_gru_slopes {
    float dr, dz, dn;
} kac_gru_slopes;

/* From dh, the gradient of the state after h; of it z dh goes straight to h. */
KAC_HD static inline kac_gru_slopes kac_gru_back(kac_gru_gates s, float hidden_n, float h,
                                                 float dh)
{
    kac_gru_slopes b;
    b.dn = dh * (1.0f - s.z) * fmaf(-s.n, s.n, 1.0f);
    b.dz = dh * (h - s.n) * (s.z * (1.0f - s.z));
    b.dr = b.dn * hidden_n * (s.r * (1.0f - s.r));
    return b;
}

/* Floats of a block with BatchNorm folded into it: its weights and then its bias. */
static inline size_t kac_convgru_folded_floats(const kac_convgru_weights *w)
{
    return (size_t)w->channels * ((size_t)w->channels * KAC_CONVGRU_TAPS + 1);
}

/* Block i, whose BatchNorm multiplies each output channel and moves its bias:
 * norm(conv(x)) = gain conv(x) + (bias - mean) gain + norm_bias.  Returns where the bias is. */
static inline const float *kac_convgru_fold(const kac_convgru_weights *w, int32_t i,
                                            float *weight)
{
    const double batch_epsilon = 1e-5;
    const int64_t each = (int64_t)w->channels * KAC_CONVGRU_TAPS; /* of an output channel */
    float *bias = weight + w->channels * each;
    for (int32_t o = 0; o < w->channels; o++) {
        double gain = (double)w->norm[i][o] / sqrt((double)w->norm_var[i][o] + batch_epsilon);
        double moved = ((double)w->conv_bias[i][o] - (double)w->norm_mean[i][o]) * gain;
        for (int64_t j = o * each; j < (o + 1) * each; j++)
            weight[j] = (float)((double)w->conv[i][j] * gain);
        bias[o] = (float)(moved + (double)w->norm_bias[i][o]);
    }
    return bias;
}

#endif /* KAC_GRU_H */
