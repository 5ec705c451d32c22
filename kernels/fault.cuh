/* fault.cuh -- noting a fault from any thread of a kernel. */
#ifndef KAC_FAULT_CUH
#define KAC_FAULT_CUH

#include "fault.h"
#include "primitives.cuh"

static inline __device__ void kac_fault_note(kac_fault *fault, kac_trouble trouble)
{
    atomicMax((unsigned long long *)&fault->number,
              (unsigned long long)kac_fault_number(trouble));
}

#endif /* KAC_FAULT_CUH */
