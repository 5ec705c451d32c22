/* select_cpu.h -- ranking, as argmax and top_k do it. */
#ifndef KAC_SELECT_CPU_H
#define KAC_SELECT_CPU_H

#include <stdint.h>

/* best[0 .. keep-1] = the indices of the keep largest of l[0 .. n-1], best first; the lower index
 * on ties. */
void kac_cpu_take_best(const double *l, int32_t n, int32_t keep, int32_t *best);

#endif /* KAC_SELECT_CPU_H */
