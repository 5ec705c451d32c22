/* cnn1d_weights.h -- which cnn1d networks there are. */
#ifndef KAC_CNN1D_WEIGHTS_H
#define KAC_CNN1D_WEIGHTS_H

#include "networks.h"

/* Errors: INVALID. */
static inline kac_status kac_cnn1d_check(const kac_cnn1d_weights *w)
{
    KAC_REQUIRE(w->states >= 1 && w->states <= KAC_MAX_STATES);
    KAC_REQUIRE(w->hidden >= 1 && w->hidden <= KAC_CNN1D_MAX_HIDDEN);
    KAC_REQUIRE(w->kernel >= 1 && w->kernel <= KAC_CNN1D_MAX_KERNEL && w->kernel % 2 == 1);
    KAC_REQUIRE(w->layers >= 1 && w->layers <= KAC_CNN1D_MAX_LAYERS);
    for (int32_t i = 0; i < w->layers; i++)
        KAC_REQUIRE(w->dilation[i] >= 1);
    KAC_REQUIRE(w->fourier == NULL || w->hidden % 2 == 0);
    KAC_REQUIRE(w->fourier != NULL || !w->reads_time);
    return KAC_OK;
}

#endif /* KAC_CNN1D_WEIGHTS_H */
