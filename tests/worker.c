/* worker.c -- a reward with bad habits, for test_workers.sh: worker DIR HABIT [EVERY].
 *
 * It scores the objects of tests/make_models.c, four letters of ABC, as reward.safetensors does.
 * DIR/asked gets a byte for each object that any copy has read, DIR/pids the number of each
 * process; with EVERY the habit shows at each EVERY-th object of all copies together.  A slow one
 * sleeps EVERY milliseconds before each batch.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *dir, *habit;
static long every = 1;

static bool is(const char *name)
{
    return strcmp(habit, name) == 0;
}

static int open_log(const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return open(path, O_WRONLY | O_APPEND | O_CREAT, 0644);
}

static void log_process(void)
{
    char line[32];
    int n = snprintf(line, sizeof line, "%d\n", (int)getpid());
    int file = open_log("pids");
    if (write(file, line, (size_t)n) != n) _exit(9);
    close(file);
}

/* Objects so far, this one included. */
static long count_object(void)
{
    struct stat info;
    int file = open_log("asked");
    if (write(file, ".", 1) != 1 || fstat(file, &info) != 0) _exit(9);
    close(file);
    return (long)info.st_size;
}

/* The value of make_models.c's table at an object. */
static float score(const char *object)
{
    long index = 0;
    for (const char *c = object; *c != '\0'; c++)
        index = 3 * index + (*c - 'A');
    return (float)(index * 7919 % 101) / 50 - 1;
}

/* Four ways to die, in turn. */
static void die(long way)
{
    if (way % 4 == 1) raise(SIGKILL);
    if (way % 4 == 2) _exit(0);
    if (way % 4 == 3) {
        fputs("0.12", stdout); /* half a line */
        fflush(stdout);
    }
    fputs("first a warning\nthen the last straw\n", stderr);
    _exit(3);
}

/* What the habit makes of an answer. */
static void misbehave(long number)
{
    if (is("crash") || is("crash_late")) die(number / every);
    if (is("hang"))
        for (;;)
            pause();
    if (is("close")) {
        fclose(stdout);
        pause();
    }
    if (is("garbage")) puts("Loading the model ... done");
    if (is("short")) puts("");
    if (is("many")) puts("0.5");
    if (is("nan")) puts("nan");
    if (is("inf")) puts("inf");
    if (is("long")) printf("%5000d\n", 1);
}

static void answer(const char *object)
{
    long number = count_object();
    bool bad = number % every == 0;
    if (is("poison")) bad = strcmp(object, "ACBA") == 0;
    if (bad && is("poison")) die(0);
    if (bad) misbehave(number);
    if (bad && (is("short") || is("garbage") || is("nan") || is("inf"))) return;
    if (bad && is("few")) return;
    printf("%.9g\n", (double)score(object));
    if (!is("crash_late") && !is("late")) fflush(stdout);
}

static void read_line(char *line, int size)
{
    if (fgets(line, size, stdin) == NULL) exit(0);
    line[strcspn(line, "\n")] = '\0';
}

int main(int argc, char **argv)
{
    char line[4096];
    if (argc < 3) return 2;
    dir = argv[1];
    habit = argv[2];
    if (argc > 3) every = strtol(argv[3], NULL, 10);
    log_process();
    if (is("dead")) {
        fputs("no licence\n", stderr);
        return 7;
    }
    if (is("family") && fork() == 0) { /* a program of its own, deaf to closed pipes */
        log_process();
        for (;;)
            pause();
    }
    for (;;) {
        read_line(line, sizeof line);
        if (is("slow")) usleep(1000 * (useconds_t)every);
        for (long left = strtol(line, NULL, 10); left > 0; left--) {
            read_line(line, sizeof line);
            if (is("columns"))
                printf("7, %.9g\t-1 8\r\n", (double)score(line));
            else
                answer(line);
        }
        fflush(stdout);
        if (is("leaves")) return 0; /* after each batch */
    }
}
