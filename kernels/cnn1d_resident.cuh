/* cnn1d_resident.cuh -- the cnn1d denoiser as one kernel, with bf16 products, for networks whose
 * sequences fit into the shared memory of a multiprocessor. */
#ifndef KAC_CNN1D_RESIDENT_CUH
#define KAC_CNN1D_RESIDENT_CUH

#include "layer_cuda.cuh"

/* The network; its pointers are the device's, and all of them the caller's. */
struct kac_cuda_resident {
    int32_t states, hidden, kernel, layers;
    int32_t dilation[KAC_CNN1D_MAX_LAYERS];
    kac_cuda_conv linear; /* from states + 1 channels */
    kac_cuda_conv final2;
    const uint16_t *weight[KAC_CNN1D_MAX_LAYERS + 1]; /* grouped; the last is final0's */
    const float *bias[KAC_CNN1D_MAX_LAYERS + 1];
    const float *norm, *norm_bias; /* [layers][H] */
    const float *shift;            /* [layers][H] */
};

/* Whether its sequences of this length fit. */
bool kac_cuda_resident_fits(const kac_cuda_resident *net, int32_t length);

/* Queues the answers to the query. */
kac_status kac_cuda_resident_run(kac_device *dev, const kac_cuda_resident *net,
                                 const kac_query *q);

#endif /* KAC_CNN1D_RESIDENT_CUH */
