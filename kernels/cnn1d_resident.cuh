/* cnn1d_resident.cuh -- the cnn1d denoiser as one kernel, with bf16 products, for networks whose
 * sequences fit into the shared memory of a multiprocessor. */
#ifndef KAC_CNN1D_RESIDENT_CUH
#define KAC_CNN1D_RESIDENT_CUH

#include "layer_cuda.cuh"

/* A host struct; its pointers are the device's. */
struct kac_cuda_resident {
    int32_t states, hidden, kernel, layers;
    int32_t blocks; /* that run at once */
    int32_t dilation[KAC_CNN1D_MAX_LAYERS];
    const float *linear, *linear_bias; /* [K][S+1][H], [H]: the caller's */
    const float *norm, *norm_bias;     /* [layers][H]: the caller's */
    const float *shift;                /* [layers][H]: the caller's */
    kac_cuda_conv final2;              /* the caller's */
    uint16_t
        *weight; /* bf16 [layers K + 1][H/8][H][8], in channels by eights; last is final0 */
    float *bias; /* [layers + 1][H] */
};

/* Packs weight and bias, where the device and the network allow it; else weight stays NULL.
 * Errors: NOMEM, DEVICE.  Drop also takes a zeroed one. */
kac_status kac_cuda_resident_pack(kac_device *dev, const kac_cnn1d_weights *w,
                                  kac_cuda_resident *net);
void kac_cuda_resident_drop(kac_device *dev, kac_cuda_resident *net);

/* Whether sequences of this length fit. */
bool kac_cuda_resident_fits(const kac_cuda_resident *net, int32_t length);

/* Queues the answers to the query. */
kac_status kac_cuda_resident_run(kac_device *dev, const kac_cuda_resident *net,
                                 const kac_query *q);

#endif /* KAC_CNN1D_RESIDENT_CUH */
