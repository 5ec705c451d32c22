/* beside.h -- where the shared objects lie that are opened only when they are wanted. */
#ifndef KAC_BESIDE_H
#define KAC_BESIDE_H

#include <stdbool.h>

/* Writes the path of `file` (PATH_MAX bytes): beside the program or the library, or as installed.
 * False where it is in none of these places. */
bool kac_find_beside(const char *file, char *out);

#endif /* KAC_BESIDE_H */
