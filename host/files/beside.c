/* beside.c -- where the shared objects lie that are opened only when they are wanted. */
#include "beside.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* `file` in the folder of `path`, which may be a link, with `under` between them. */
static bool in_folder_of(const char *path, const char *under, const char *file, char *out)
{
    char whole[PATH_MAX];
    if (path == NULL || realpath(path, whole) == NULL) return false;
    char *slash = strrchr(whole, '/');
    if (slash == NULL) return false;
    *slash = '\0';
    int length = snprintf(out, PATH_MAX, "%s/%s%s", whole, under, file);
    return length > 0 && length < PATH_MAX && access(out, R_OK) == 0;
}

bool kac_find_beside(const char *file, char *out)
{
    static const char here;
    Dl_info own;
    const char *library = dladdr(&here, &own) != 0 ? own.dli_fname : NULL;
    return in_folder_of("/proc/self/exe", "", file, out) ||
           in_folder_of("/proc/self/exe", "../lib/", file, out) ||
           in_folder_of("/proc/self/exe", "../", file, out) ||
           in_folder_of(library, "", file, out);
}
