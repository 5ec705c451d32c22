/* progress.c -- how far a run is: a bar on a terminal, plain lines elsewhere, both on stderr.
 */
#include "progress.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { BAR = 20, TEXT = 160 };

progress progress_begin(bool quiet, bool pilot, int64_t steps, double particles)
{
    const char *kind = getenv("TERM");
    bool draws = kind != NULL && strcmp(kind, "dumb") != 0;
    return (progress){
        .quiet = quiet,
        .terminal = draws && isatty(STDERR_FILENO),
        .pilot = pilot,
        .steps = steps,
        .particles = particles,
    };
}

/* 1234567 as "1.23M". */
static void scaled(double x, char *text, size_t size)
{
    static const char *const units[] = {"", "k", "M", "G", "T"};
    size_t unit = 0;
    for (; x >= 1000 && unit + 1 < sizeof units / sizeof *units; unit++)
        x /= 1000;
    snprintf(text, size, "%.3g%s", x, units[unit]);
}

/* What tells most comes first, as a narrow terminal has no room for the rest. */
static void describe(const progress *p, const kac_progress *now, char *text, size_t size)
{
    char rate[16] = "-", left[32] = "-", value[16] = "-", worth[64] = "";
    if (isfinite(now->value[1])) snprintf(value, sizeof value, "%.3g", now->value[1]);
    if (!p->pilot) snprintf(worth, sizeof worth, "  value %s  ESS %.2f", value, now->ess);
    if (now->step > 0 && now->seconds > 0) {
        scaled(p->particles * (double)now->step / now->seconds, rate, sizeof rate);
        double s = ceil(now->seconds * (double)(p->steps - now->step) / (double)now->step);
        snprintf(left, sizeof left, "%.0f:%02.0f", floor(s / 60), fmod(s, 60));
    }
    snprintf(text, size, "%sstep %lld/%lld  %s left%s  %s particle steps/s",
             p->pilot ? "pilot " : "", (long long)now->step, (long long)p->steps, left, worth,
             rate);
}

/* Where to end a text of figures with two blanks between them, so that no figure is cut in two. */
static size_t fitting(const char *text, size_t most)
{
    size_t end = strlen(text);
    if (end <= most) return end;
    for (end = most; end > 0 && strncmp(text + end, "  ", 2) != 0; end--)
        continue;
    return end > 0 ? end : most;
}

static void draw(progress *p, const kac_progress *now, const char *text)
{
    struct winsize window;
    int columns = 80;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 0)
        columns = window.ws_col;

    char bar[BAR + 1] = "....................", line[BAR + 4 + TEXT];
    memset(bar, '#', (size_t)(BAR * now->step / p->steps));
    snprintf(line, sizeof line, "[%s] %s", bar, text);
    int end = (int)fitting(line, (size_t)columns - 1); /* a full line would wrap */
    fprintf(stderr, "\r%.*s\033[K", end, line);
    p->drawn = true;
}

void progress_show(progress *p, const kac_progress *now)
{
    if (p->quiet) return;
    char text[TEXT];
    describe(p, now, text, sizeof text);
    if (p->terminal) {
        draw(p, now, text);
        return;
    }
    int64_t tenth = 10 * now->step / p->steps;
    if (tenth == p->tenth && now->seconds < p->told + 10) return;
    p->tenth = tenth;
    p->told = now->seconds;
    fprintf(stderr, "kac: %s\n", text);
}

void progress_end(progress *p)
{
    if (p->drawn) fputc('\n', stderr);
    p->drawn = false;
}
