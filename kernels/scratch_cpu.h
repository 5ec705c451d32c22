/* scratch_cpu.h -- working memory of a thread, for forwards whose size depends on the query. */
#ifndef KAC_SCRATCH_CPU_H
#define KAC_SCRATCH_CPU_H

#include <stddef.h>
#include <stdint.h>

/* At least `bytes` of this thread's memory, 64-byte aligned, contents undefined; valid until
 * the thread's next call.  It grows to the largest request and is kept until the thread ends,
 * so a run allocates nothing once it is warm.  NULL when memory runs out. */
void *kac_cpu_scratch(size_t bytes);

/* Rows of a chunk that keeps all its activations: `most`, or as many as need no more than
 * 64 MiB at `floats` a row, but one at least. */
int32_t kac_cpu_scratch_rows(int32_t most, int64_t floats);

#endif /* KAC_SCRATCH_CPU_H */
