/* cuda_backend.h -- the door between the library and the CUDA backend, a shared object of its own. */
#ifndef KAC_CUDA_BACKEND_H
#define KAC_CUDA_BACKEND_H

#include "ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Grows with every change of ops.h; with its size it keeps a stale backend out. */
#define KAC_CUDA_VERSION ((uint64_t)4 << 32 | (uint64_t)sizeof(kac_ops))

typedef void kac_cuda_note_fn(const char *fmt, ...);

/* The backend's operations.  Errors: UNSUPPORTED (another version, no driver, no GPU). */
typedef kac_status kac_cuda_backend_fn(uint64_t version, kac_cuda_note_fn *note,
                                       const kac_ops **out);
__attribute__((visibility("default"))) kac_cuda_backend_fn kac_cuda_backend;

#define KAC_CUDA_SYMBOL "kac_cuda_backend"

#ifdef __cplusplus
}
#endif
#endif /* KAC_CUDA_BACKEND_H */
