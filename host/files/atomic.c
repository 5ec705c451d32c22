/* atomic.c -- files that appear complete or not at all. */
#include "atomic.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct kac_atomic {
    FILE *stream;
    char *path;
    char *partial; /* the name until commit; "" once there is nothing to remove */
};

kac_status kac_path_status(int error)
{
    switch (error) {
    case EACCES:
    case EEXIST:
    case EINVAL:
    case EISDIR:
    case ELOOP:
    case ENAMETOOLONG:
    case ENOENT:
    case ENOTDIR:
    case ENOTEMPTY:
    case EPERM:
    case EROFS: return KAC_ERR_INVALID;
    case ENOMEM: return KAC_ERR_NOMEM;
    default: return KAC_ERR_IO;
    }
}

/* Opens a new file beside `path`.  Not mkstemp, because its mode would not follow the umask. */
static int open_partial(const char *path, char *partial, size_t size)
{
    for (int i = 0; i < 1000; i++) {
        snprintf(partial, size, "%s.%ld-%d.partial", path, (long)getpid(), i);
        int fd = open(partial, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0 || errno != EEXIST) return fd;
    }
    return -1;
}

kac_status kac_atomic_create(const char *path, kac_atomic **out)
{
    KAC_REQUIRE(path != NULL && out != NULL);
    kac_status status = KAC_OK;
    size_t size = strlen(path) + 48;
    struct stat info;
    int fd = -1;
    kac_atomic *file = calloc(1, sizeof *file);
    if (file == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "%s: out of memory", path);
    file->path = strdup(path);
    file->partial = calloc(size, 1);
    if (file->path == NULL || file->partial == NULL) {
        status = KAC_FAIL(KAC_ERR_NOMEM, "%s: out of memory", path);
        goto done;
    }
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode)) { /* rename would replace a device */
        status = KAC_FAIL(KAC_ERR_INVALID, "%s: is there and is not a file", path);
        goto done;
    }
    fd = open_partial(path, file->partial, size);
    if (fd < 0) {
        status = KAC_FAIL(kac_path_status(errno), "%s: cannot write here: %s", path,
                          strerror(errno));
        file->partial[0] = '\0';
        goto done;
    }
    file->stream = fdopen(fd, "w");
    if (file->stream == NULL) {
        close(fd);
        status = KAC_FAIL(KAC_ERR_NOMEM, "%s: out of memory", path);
        goto done;
    }
    *out = file;
    file = NULL;
done:
    kac_atomic_destroy(file);
    return status;
}

FILE *kac_atomic_stream(const kac_atomic *file)
{
    return file->stream;
}

kac_status kac_json_write(const json_t *json, size_t flags, FILE *out)
{
    if (json_dumpf(json, out, flags | JSON_REAL_PRECISION(17)) != 0 && !ferror(out))
        return KAC_FAIL(KAC_ERR_NOMEM, "no memory to write JSON");
    (void)fputc('\n', out);
    return KAC_OK;
}

/* The name in its folder survives a power cut as the bytes do, so that what is removed next was not the
 * last of its kind.  Where folders cannot be synced, so be it. */
static void sync_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash == NULL ? strdup(".") : strndup(path, (size_t)(slash - path) + 1);
    int fd = folder != NULL ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        (void)fsync(fd);
        (void)close(fd);
    }
    free(folder);
}

kac_status kac_atomic_commit(kac_atomic *file)
{
    KAC_REQUIRE(file != NULL);
    kac_status status = KAC_OK;

    /* A write that failed earlier left its mark on the stream, but not its errno. */
    errno = 0;
    int bad = ferror(file->stream);
    if (fflush(file->stream) != 0 || fsync(fileno(file->stream)) != 0) bad = 1;
    int reason = errno;
    if (fclose(file->stream) != 0 && bad == 0) {
        bad = 1;
        reason = errno;
    }
    file->stream = NULL;
    if (bad != 0) {
        status = KAC_FAIL(KAC_ERR_IO, "%s: cannot write: %s", file->path,
                          reason != 0 ? strerror(reason) : "the disk or a limit is full");
    } else if (rename(file->partial, file->path) != 0) {
        status = KAC_FAIL(kac_path_status(errno), "%s: cannot put the file in place: %s",
                          file->path, strerror(errno));
    } else {
        file->partial[0] = '\0';
        sync_folder(file->path);
    }
    kac_atomic_destroy(file);
    return status;
}

void kac_atomic_destroy(kac_atomic *file)
{
    if (file == NULL) return;
    if (file->stream != NULL) fclose(file->stream);
    if (file->partial != NULL && file->partial[0] != '\0') unlink(file->partial);
    free(file->path);
    free(file->partial);
    free(file);
}
