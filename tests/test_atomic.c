/* test_atomic.c -- a file appears complete or not at all. */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "atomic.h"
#include "scratch.h"

static void read_text(const char *path, char *text, size_t size)
{
    FILE *file = fopen(path, "r");
    cr_assert_not_null(file);
    text[fread(text, 1, size - 1, file)] = '\0';
    fclose(file);
}

Test(atomic, appears_at_commit)
{
    char folder[256];
    char path[300];
    char text[16];
    kac_atomic *file = NULL;
    struct stat info;
    scratch_create(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/a", folder);
    umask(027);
    for (int round = 0; round < 2; round++) { /* the second replaces the first */
        cr_assert_eq(kac_atomic_create(path, &file), KAC_OK, "%s", kac_last_error());
        fprintf(kac_atomic_stream(file), "round %d", round);
        cr_assert_eq(access(path, F_OK), round == 0 ? -1 : 0);
        cr_assert_eq(kac_atomic_commit(file), KAC_OK, "%s", kac_last_error());
        read_text(path, text, sizeof text);
        cr_assert_str_eq(text, round == 0 ? "round 0" : "round 1");
    }
    cr_assert_eq(stat(path, &info), 0);
    cr_assert_eq(info.st_mode & 0777, 0640, "the mode follows the umask");

    cr_assert_eq(kac_atomic_create(path, &file), KAC_OK);
    fprintf(kac_atomic_stream(file), "never");
    kac_atomic_destroy(file);
    read_text(path, text, sizeof text);
    cr_assert_str_eq(text, "round 1");
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(rmdir(folder), 0, "nothing else is left");
}

Test(atomic, a_full_disk_leaves_nothing)
{
    char folder[256];
    char path[300];
    kac_atomic *file = NULL;
    scratch_create(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/a", folder);
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit before;
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    const struct rlimit limit = {1000, before.rlim_max};
    const size_t sizes[] = {2000, 100000}; /* within the buffer of the stream, and beyond */
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(kac_atomic_create(path, &file), KAC_OK);
        cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
        for (size_t k = 0; k < sizes[i]; k++)
            putc('x', kac_atomic_stream(file));
        kac_status status = kac_atomic_commit(file);
        cr_assert_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
        cr_assert_eq(status, KAC_ERR_IO);
        cr_assert_not_null(strstr(kac_last_error(), "/a: cannot write: "));
        cr_assert_eq(access(path, F_OK), -1);
    }
    cr_assert_eq(rmdir(folder), 0, "nothing is left");
}

Test(atomic, refuses)
{
    char folder[256];
    char path[300];
    kac_atomic *file = NULL;
    scratch_create(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/none/a", folder);
    cr_assert_eq(kac_atomic_create(path, &file), KAC_ERR_INVALID);
    cr_assert_not_null(strstr(kac_last_error(), ": cannot write here: No such file"));
    cr_assert_eq(kac_atomic_create(folder, &file), KAC_ERR_INVALID);
    cr_assert_not_null(strstr(kac_last_error(), ": is there and is not a file"));
    cr_assert_eq(kac_path_status(ENOSPC), KAC_ERR_IO);
    cr_assert_eq(kac_path_status(EACCES), KAC_ERR_INVALID);
    rmdir(folder);
}
