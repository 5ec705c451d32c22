/* scratch_cpu.h -- working memory of a thread, for forwards whose size depends on the query. */
#ifndef KAC_SCRATCH_CPU_H
#define KAC_SCRATCH_CPU_H

#include <stddef.h>

/* At least `bytes` of this thread's memory, 64-byte aligned, contents undefined; valid until
 * the thread's next call.  It grows to the largest request and is kept until the thread ends,
 * so a run allocates nothing once it is warm.  NULL when memory runs out. */
void *kac_cpu_scratch(size_t bytes);

#endif /* KAC_SCRATCH_CPU_H */
