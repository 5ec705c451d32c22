/* folder.c -- the output folder of a run, which appears complete or not at all.
 *
 * Files are written into a hidden sibling of the folder, .NAME.partial-XXXXXX, which is renamed
 * at the end.  It is made before anything is computed, so that a place where nothing can be
 * written is known at once.  Where it cannot be renamed it becomes .NAME.complete-XXXXXX, and stays.
 *
 * Who makes the steps of a run holds the lock of its configuration, CONFIG_FILE, which the kernel
 * opens again when the process ends.  Where the file system has no locks, it goes without.
 */
#include "folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* A place that can not be is the user's mistake; anything else is the machine's. */
static cli_exit place_error(int error)
{
    switch (error) {
    case EACCES:
    case EPERM:
    case EROFS:
    case ENOENT:
    case ENOTDIR:
    case ELOOP:
    case ENAMETOOLONG: return CLI_MISTAKE;
    default: return CLI_MACHINE;
    }
}

/* mkdir -p of everything above the last part of `path`. */
static cli_exit make_parents(const char *path)
{
    char *parent = strdup(path);
    if (parent == NULL) return cli_fail(CLI_MACHINE, "out of memory");
    cli_exit code = CLI_DONE;
    for (char *slash = strchr(parent + 1, '/'); slash != NULL && code == CLI_DONE;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(parent, 0777) != 0 && errno != EEXIST)
            code = cli_fail(place_error(errno), "cannot make the folder %s: %s", parent,
                            strerror(errno));
        *slash = '/';
    }
    free(parent);
    return code;
}

/* A new empty folder .NAME.KIND-XXXXXX beside `path`, or NULL. */
static char *make_sibling(const char *path, const char *kind)
{
    const char *slash = strrchr(path, '/');
    int parent = slash != NULL ? (int)(slash + 1 - path) : 0;
    char *sibling = NULL;
    if (asprintf(&sibling, "%.*s.%s.%s-XXXXXX", parent, path, path + parent, kind) < 0)
        return NULL;
    if (mkdtemp(sibling) == NULL) {
        free(sibling);
        return NULL;
    }
    mode_t mask = umask(0);
    umask(mask);
    if (chmod(sibling, 0777 & ~mask) != 0) { /* mkdtemp closes it to others */
        rmdir(sibling);
        free(sibling);
        return NULL;
    }
    return sibling;
}

/* Files that kac writes into the folder of a run; those that no other program writes come first. */
static const char *const written[] = {"run.json",
                                      "trajectories.safetensors",
                                      "checkpoint-[0-9]*.safetensors",
                                      CONFIG_FILE,
                                      "samples.csv",
                                      "samples.fasta",
                                      "samples.smi",
                                      "samples.sdf",
                                      "trace.jsonl"};
enum { WRITTEN = sizeof written / sizeof *written, OF_KAC = 3 };

/* Which of them `name` is, or was about to be where kac was killed; WRITTEN: none. */
static int which_written(const char *name)
{
    char unfinished[64];
    int known = 0;
    for (; known < WRITTEN; known++) {
        snprintf(unfinished, sizeof unfinished, "%s.*.partial", written[known]);
        if (fnmatch(written[known], name, 0) == 0 || fnmatch(unfinished, name, 0) == 0) break;
    }
    return known;
}

static bool is_entry(const struct dirent *entry)
{
    return strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
}

typedef struct held {
    bool run;                 /* files that only kac writes */
    bool empty;               /* nothing */
    char other[NAME_MAX + 1]; /* what kac does not write, or "" */
} held;

static cli_exit look_into(const char *path, held *h)
{
    DIR *dir = opendir(path);
    *h = (held){.empty = true};
    if (dir == NULL)
        return cli_fail(place_error(errno), "cannot read %s: %s", path, strerror(errno));
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (!is_entry(entry)) continue;
        int known = which_written(entry->d_name);
        h->run = h->run || known < OF_KAC;
        h->empty = false;
        if (known == WRITTEN && h->other[0] == '\0')
            snprintf(h->other, sizeof h->other, "%s", entry->d_name);
    }
    closedir(dir);
    return CLI_DONE;
}

/* Whether --force may replace the folder at `path`: it holds a run and nothing else, or nothing. */
static cli_exit check_replaceable(const char *path)
{
    held h;
    cli_exit code = look_into(path, &h);
    if (code != CLI_DONE) return code;
    if (h.other[0] != '\0')
        return cli_fail(CLI_MISTAKE,
                        "%s holds %s, which is no file of a run; --force does not replace it",
                        path, h.other);
    if (h.run || h.empty) return CLI_DONE;
    return cli_fail(CLI_MISTAKE, "%s is not the folder of a run; --force does not replace it",
                    path);
}

/* Moves an entry of the folder `from` into the folder `home`, where nothing may have its name. */
static bool move_home(int from, const char *name, const char *home)
{
    struct stat info;
    char *to = NULL;
    if (asprintf(&to, "%s/%s", home, name) < 0) return false;
    bool moved = renameat2(from, name, AT_FDCWD, to, RENAME_NOREPLACE) == 0;
    if (!moved && errno == EINVAL && lstat(to, &info) != 0) /* a file system without that */
        moved = renameat(from, name, AT_FDCWD, to) == 0;
    free(to);
    return moved;
}

/* Removes the files of a run in the folder `dir`, and it.  Everything else in it, which is somebody's,
 * moves into the folder `home`, or stays where it cannot. */
static void discard(const char *dir, const char *home)
{
    DIR *from = opendir(dir);
    if (from == NULL && errno == ENOENT) return;
    for (const struct dirent *entry; from != NULL && (entry = readdir(from)) != NULL;) {
        const char *name = entry->d_name;
        if (!is_entry(entry)) continue;
        if (which_written(name) < WRITTEN && unlinkat(dirfd(from), name, 0) == 0) continue;
        (void)move_home(dirfd(from), name, home);
    }
    if (from != NULL) closedir(from);
    if (rmdir(dir) != 0)
        cli_fail(CLI_MACHINE, "%s stays, with what can neither be removed nor moved into %s",
                 dir, home);
}

bool folder_holds(const char *path, const char *name)
{
    struct stat info;
    char *file = NULL;
    if (asprintf(&file, "%s/%s", path, name) < 0) return false;
    bool there = stat(file, &info) == 0;
    free(file);
    return there;
}

/* The path without slashes at its end. */
static cli_exit name_folder(folder *f, const char *path)
{
    if (*path == '\0')
        return cli_fail(CLI_MISTAKE, "no output folder: give --out DIR or output.dir");
    f->path = strdup(path);
    if (f->path == NULL) return cli_fail(CLI_MACHINE, "out of memory");
    for (size_t n = strlen(f->path); n > 1 && f->path[n - 1] == '/'; n--)
        f->path[n - 1] = '\0';
    const char *slash = strrchr(f->path, '/');
    const char *name = slash != NULL ? slash + 1 : f->path;
    if (*name == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return cli_fail(CLI_MISTAKE, "%s: the output must be a folder with a name", path);
    return CLI_DONE;
}

/* `path` from the root on, without links, to be freed; of what is not there yet the names as they are
 * given.  NULL where it cannot be. */
static char *whereabouts(const char *path)
{
    char *there = strdup(path), *real = NULL, *whole = NULL;
    size_t length = there != NULL ? strlen(there) : 0;
    while (there != NULL && (real = realpath(length > 0 ? there : ".", NULL)) == NULL) {
        if (errno != ENOENT || length == 0) break;
        while (length > 0 && there[length - 1] != '/')
            length--;
        while (length > 1 && there[length - 1] == '/')
            length--;
        there[length] = '\0';
    }
    const char *rest = path + length + strspn(path + length, "/");
    if (real == NULL || asprintf(&whole, "%s/%s", real, rest) < 0) whole = NULL;
    free(there);
    free(real);
    return whole;
}

/* Whether `inner` is `outer` or below it. */
static bool is_within(const char *inner, const char *outer)
{
    size_t length = strlen(outer);
    while (length > 0 && outer[length - 1] == '/')
        length--;
    return strncmp(inner, outer, length) == 0 &&
           (inner[length] == '\0' || inner[length] == '/');
}

cli_exit folder_apart(const char *run, const char *path, const char *option)
{
    char *one = whereabouts(run), *other = whereabouts(path);
    cli_exit code = CLI_DONE;
    if (one != NULL && other != NULL && (is_within(one, other) || is_within(other, one)))
        code =
            cli_fail(CLI_MISTAKE,
                     "%s %s: it and the output folder, %s, may not be the same, nor one in the "
                     "other",
                     option, path, run);
    free(one);
    free(other);
    return code;
}

static cli_exit make_partial(folder *f)
{
    f->partial = make_sibling(f->path, "partial");
    if (f->partial != NULL) return CLI_DONE;
    return cli_fail(place_error(errno), "cannot write beside %s: %s", f->path, strerror(errno));
}

/* Whether the folder f->path may be made: nothing is there, or what --force replaces. */
static cli_exit check_place(folder *f, bool force, const char *option)
{
    struct stat info;
    if (lstat(f->path, &info) != 0) return CLI_DONE;
    if (!force && folder_holds(f->path, CONFIG_FILE))
        return cli_fail(CLI_MISTAKE,
                        "%s holds a run that was stopped; kac resume goes on with it, "
                        "--force replaces it",
                        f->path);
    if (!force)
        return cli_fail(CLI_MISTAKE,
                        "%s exists; choose another %s, or --force to "
                        "replace it",
                        f->path, option);
    if (!S_ISDIR(info.st_mode))
        return cli_fail(CLI_MISTAKE, "%s is not a folder; --force does not replace it",
                        f->path);
    f->replace = true;
    return check_replaceable(f->path);
}

cli_exit folder_check(const char *path, bool force, const char *option)
{
    folder f = {.path = NULL};
    cli_exit code = name_folder(&f, path);
    if (code == CLI_DONE) code = check_place(&f, force, option);
    folder_end(&f);
    return code;
}

cli_exit folder_begin(folder *f, const char *path, bool force, const char *option)
{
    cli_exit code = name_folder(f, path);
    if (code == CLI_DONE) code = check_place(f, force, option);
    if (code == CLI_DONE && f->replace && folder_holds(f->path, CONFIG_FILE))
        code = folder_hold(f, f->path);
    if (code == CLI_DONE) code = make_parents(f->path);
    return code == CLI_DONE ? make_partial(f) : code;
}

/* Removes all .NAME.partial-XXXXXX beside `path`; what somebody had in them moves into it. */
static void remove_partials(const char *path)
{
    glob_t found = {0};
    char *pattern = NULL;
    const char *slash = strrchr(path, '/');
    int parent = slash != NULL ? (int)(slash + 1 - path) : 0;
    if (strpbrk(path, "*?[\\") != NULL) return; /* a name that glob would read otherwise */
    if (asprintf(&pattern, "%.*s.%s.partial-??????", parent, path, path + parent) < 0) return;
    if (glob(pattern, 0, NULL, &found) == 0)
        for (size_t i = 0; i < found.gl_pathc; i++)
            discard(found.gl_pathv[i], path);
    globfree(&found);
    free(pattern);
}

cli_exit folder_clean(const char *path)
{
    folder f = {.path = NULL};
    cli_exit code = name_folder(&f, path);
    if (code == CLI_DONE) remove_partials(f.path);
    folder_end(&f);
    return code;
}

cli_exit folder_ready(const folder *f)
{
    if (mkdir(f->partial, 0777) == 0 || errno == EEXIST) return CLI_DONE;
    return cli_fail(place_error(errno), "cannot make the folder %s: %s", f->partial,
                    strerror(errno));
}

void folder_release(folder *f)
{
    if (f->lock != NULL) fclose(f->lock);
    f->lock = NULL;
}

cli_exit folder_hold(folder *f, const char *dir)
{
    struct stat mine, there;
    char *path = NULL;
    if (asprintf(&path, "%s/" CONFIG_FILE, dir) < 0)
        return cli_fail(CLI_MACHINE, "out of memory");
    FILE *lock = fopen(path, "r+e");
    int error = errno;
    cli_exit code = CLI_DONE;
    if (lock == NULL) {
        code = cli_fail(place_error(error), "cannot open %s: %s", path, strerror(error));
    } else if (flock(fileno(lock), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        code = cli_fail(CLI_MISTAKE, "%s: another kac is at work on this run; stop it first",
                        f->path);
    } else if (fstat(fileno(lock), &mine) != 0 || stat(path, &there) != 0 ||
               mine.st_ino != there.st_ino) {
        code = cli_fail(CLI_MISTAKE, "%s: another kac has just ended this run", f->path);
    }
    if (code == CLI_DONE) {
        folder_release(f);
        f->lock = lock;
    } else if (lock != NULL) {
        fclose(lock);
    }
    free(path);
    return code;
}

cli_exit folder_resume(folder *f, const char *path)
{
    struct stat info;
    cli_exit code = name_folder(f, path);
    if (code == CLI_DONE && lstat(f->path, &info) == 0 && S_ISLNK(info.st_mode)) {
        free(f->path); /* what it leads to is replaced, where that is */
        f->path = realpath(path, NULL);
        if (f->path == NULL)
            return cli_fail(place_error(errno), "cannot find %s: %s", path, strerror(errno));
    }
    if (code == CLI_DONE) code = folder_hold(f, f->path);
    if (code != CLI_DONE) return code;
    f->replace = true;
    remove_partials(f->path);
    return make_partial(f);
}

/* Whether DIR/config.json is the one that this process holds. */
static bool is_held(const folder *f, const char *dir)
{
    struct stat mine, there;
    char *path = NULL;
    if (asprintf(&path, "%s/" CONFIG_FILE, dir) < 0) return false;
    bool same = fstat(fileno(f->lock), &mine) == 0 && stat(path, &there) == 0 &&
                mine.st_dev == there.st_dev && mine.st_ino == there.st_ino;
    free(path);
    return same;
}

cli_exit folder_unchanged(folder *f)
{
    struct stat info;
    held h = {.empty = false};
    bool there = lstat(f->path, &info) == 0;
    if (!there && errno == ENOENT) f->replace = false;
    if (!f->replace) return CLI_DONE;
    cli_exit code = there && S_ISDIR(info.st_mode) ? look_into(f->path, &h) : CLI_DONE;
    if (code != CLI_DONE || h.empty) return code;
    bool same = f->lock == NULL ? !folder_holds(f->path, CONFIG_FILE)
                                : is_held(f, f->path) || is_held(f, f->partial);
    if (h.run && same) return CLI_DONE;
    return cli_fail(CLI_MACHINE, "%s is no longer what it was, so it is not replaced", f->path);
}

/* Gives the sibling its name; where that fails, it is as it was. */
static cli_exit put_in_place(folder *f)
{
    char *old = NULL;
    cli_exit code = folder_unchanged(f);
    if (code != CLI_DONE) return code;
    if (f->replace &&
        renameat2(AT_FDCWD, f->partial, AT_FDCWD, f->path, RENAME_EXCHANGE) == 0) {
        folder_release(f); /* what is open is not wholly removed everywhere */
        discard(f->partial, f->path);
        free(f->partial);
        f->partial = NULL;
        return CLI_DONE;
    }
    if (f->replace) { /* not every file system can exchange two folders */
        old = make_sibling(f->path, "old");
        if (old == NULL || rename(f->path, old) != 0) {
            cli_fail(CLI_MACHINE, "cannot move %s aside: %s", f->path, strerror(errno));
            if (old != NULL) rmdir(old);
            free(old);
            return CLI_MACHINE;
        }
    }
    if (rename(f->partial, f->path) != 0) {
        code = cli_fail(CLI_MACHINE, "cannot name the output %s: %s", f->path, strerror(errno));
        if (old != NULL && rename(old, f->path) != 0)
            cli_fail(CLI_MACHINE, "the earlier run is now %s", old);
    } else {
        free(f->partial);
        f->partial = NULL;
        if (old != NULL) folder_release(f);
        if (old != NULL) discard(old, f->path);
    }
    free(old);
    return code;
}

/* Moves one file of the sibling to where the run shall appear. */
static cli_exit move_in(const folder *f, const char *name)
{
    char *from = NULL, *to = NULL;
    cli_exit code = CLI_DONE;
    if (asprintf(&from, "%s/%s", f->partial, name) < 0) from = NULL;
    if (asprintf(&to, "%s/%s", f->path, name) < 0) to = NULL;
    if (from == NULL || to == NULL)
        code = cli_fail(CLI_MACHINE, "out of memory");
    else if (rename(from, to) != 0)
        code =
            cli_fail(place_error(errno), "cannot move %s to %s: %s", from, to, strerror(errno));
    free(from);
    free(to);
    return code;
}

cli_exit folder_appear(folder *f, const char *checkpoint)
{
    folder next = {.path = f->path};
    cli_exit code = folder_unchanged(f);
    if (code == CLI_DONE && f->replace) {
        code = move_in(f, strrchr(checkpoint, '/') + 1);
        return code == CLI_DONE ? move_in(f, CONFIG_FILE) : code;
    }
    if (code == CLI_DONE) code = make_partial(&next);
    if (code != CLI_DONE) return code;
    code = put_in_place(f);
    if (code != CLI_DONE) {
        rmdir(next.partial);
        free(next.partial);
        return code;
    }
    f->partial = next.partial;
    f->replace = true;
    return CLI_DONE;
}

cli_exit folder_commit(folder *f)
{
    cli_exit code = put_in_place(f);
    if (code == CLI_DONE) return code;
    char *kept = make_sibling(f->path, "complete"); /* which nothing removes */
    bool named = kept != NULL && rename(f->partial, kept) == 0;
    cli_fail(code, "what was made is in %s", named ? kept : f->partial);
    if (kept != NULL && !named) rmdir(kept);
    free(kept);
    free(f->partial);
    f->partial = NULL;
    return code;
}

void folder_end(folder *f)
{
    if (f->partial != NULL) discard(f->partial, f->path);
    folder_release(f);
    free(f->partial);
    free(f->path);
    *f = (folder){.path = NULL};
}
