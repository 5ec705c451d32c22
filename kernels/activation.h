/* activation.h -- the activations of conv_regressor and their slopes. */
#ifndef KAC_ACTIVATION_H
#define KAC_ACTIVATION_H

#include "exact.h"
#include "networks.h"

/* act(x); NaN stays NaN. */
KAC_HD static inline float kac_activate(kac_activation act, float x)
{
    switch (act) {
    case KAC_ACT_LINEAR: break;
    case KAC_ACT_RELU: return x < 0 ? 0 : x;
    case KAC_ACT_GELU: return kac_geluf(x);
    case KAC_ACT_TANH: return kac_tanhf(x);
    case KAC_ACT_ELU: return kac_eluf(x);
    }
    return x;
}

/* The slope of gelu: Phi(x) + x phi(x). */
KAC_HD static inline float kac_gelu_slope(float x)
{
    float half = 0.5f * (1.0f + kac_erff(x * 0x1.6a09e6p-1f));
    return fmaf(x * 0x1.988454p-2f, kac_expf(-0.5f * x * x), half); /* 1 / sqrt(2 pi) */
}

/* The gradient g of y = act(x) becomes that of x; x counts for gelu only, y for the others. */
KAC_HD static inline float kac_activate_back(kac_activation act, float x, float y, float g)
{
    switch (act) {
    case KAC_ACT_LINEAR: break;
    case KAC_ACT_RELU: return y <= 0 ? 0 : g;
    case KAC_ACT_GELU: return g * kac_gelu_slope(x);
    case KAC_ACT_TANH: return g * fmaf(-y, y, 1.0f);
    case KAC_ACT_ELU: return y > 0 ? g : g * (y + 1.0f);
    }
    return g;
}

#endif /* KAC_ACTIVATION_H */
