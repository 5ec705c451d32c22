/* test_worker.c -- programs as rewards: what they are given and what becomes of their answers.
 * The programs are small ones of the shell; test_workers.sh has whole runs. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "config.h"
#include "table_run.h"
#include "worker.h"

TestSuite(worker, .timeout = 120);

enum { OBJECTS = 100, SIZE = 12 };

/* Objects "0", "1", ... */
static const char *objects(void)
{
    static char text[OBJECTS][SIZE];
    for (int i = 0; i < OBJECTS; i++)
        snprintf(text[i], SIZE, "%d", i);
    return text[0];
}

/* A worker that runs `script` in a shell, with `file` as its $0. */
static kac_worker *open_script(const char *script, const char *file, kac_worker_spec spec)
{
    json_t *words = json_pack("[ssss]", "sh", "-c", script, file);
    char *command = json_dumps(words, 0);
    kac_worker *worker = NULL;
    spec.command = command;
    cr_assert_eq(kac_worker_open(&spec, &worker), KAC_OK, "%s", kac_last_error());
    free(command);
    json_decref(words);
    return worker;
}

static const kac_worker_spec plain = {
    .processes = 1, .batch = 16, .timeout = 60, .attempts = 3, .columns = 1};

/* Each object's number squared, in its place. */
static void check_squares(const float *out, int stride)
{
    for (int i = 0; i < OBJECTS; i++)
        cr_assert_eq(out[i * stride], (float)(i * i), "object %d: %g", i,
                     (double)out[i * stride]);
}

static char *scratch_file(void)
{
    static char path[] = "/tmp/kac_worker_XXXXXX";
    int file = mkstemp(path);
    cr_assert(file >= 0);
    close(file);
    return path;
}

#define SQUARES                                                                                \
    "while read -r n; do while [ $n -gt 0 ]; do read -r x; n=$((n - 1)); "                     \
    "echo $((x * x)); done; done"

/* The copy that has object 0 answers after another has answered a whole batch, where there are several. */
Test(worker, answers_are_in_the_places_of_their_objects)
{
    static const char late[] =
        "while read -r n; do while [ $n -gt 0 ]; do read -r x; n=$((n - 1)); "
        "while [ $x = 0 ] && [ ! -s \"$0\" ]; do sleep 0.01; done; "
        "echo $((x * x)); done; echo done >>\"$0\"; done";
    char *file = scratch_file();
    for (int32_t processes = 1; processes <= 5; processes += 2) {
        kac_worker_spec spec = plain;
        float out[OBJECTS][3];
        memset(out, 0, sizeof out);
        spec.processes = processes;
        spec.batch = 7;
        cr_assert_eq(truncate(file, 0), 0);
        kac_worker *worker = open_script(processes > 1 ? late : SQUARES, file, spec);
        for (int again = 0; again < 2; again++) {
            cr_assert_eq(kac_worker_ask(worker, objects(), SIZE, OBJECTS, &out[0][1], 3),
                         KAC_OK);
            check_squares(&out[0][1], 3);
        }
        for (int i = 0; i < OBJECTS; i++)
            cr_assert(out[i][0] == 0 && out[i][2] == 0);
        kac_worker_close(worker);
    }
    unlink(file);
}

/* A scratch file that is not empty. */
static char *marked_file(void)
{
    char *file = scratch_file();
    FILE *mark = fopen(file, "w");
    cr_assert_not_null(mark);
    fputs("once", mark);
    fclose(mark);
    return file;
}

Test(worker, what_a_copy_leaves_out_is_asked_again)
{
    static const char skips[] = /* object 40 is left out, once; the next line comes too early */
        "while read -r n; do while [ $n -gt 0 ]; do read -r x; n=$((n - 1)); "
        "if [ $x = 40 ] && [ -s \"$0\" ]; then : >\"$0\"; else echo $((x * x)); fi; done; done";
    kac_worker_spec spec = plain;
    float out[OBJECTS];
    char *file = marked_file();
    spec.timeout = 0.5;
    spec.attempts = 1000;
    kac_worker *worker = open_script(skips, file, spec);
    cr_assert_eq(kac_worker_ask(worker, objects(), SIZE, OBJECTS, out, 1), KAC_OK, "%s",
                 kac_last_error());
    check_squares(out, 1);
    cr_assert(kac_worker_counted(worker)->failures > 0);
    kac_worker_close(worker);
    unlink(file);
}

Test(worker, a_copy_that_ends_after_its_batch_has_not_failed)
{
    static const char once[] = "read -r n; while [ $n -gt 0 ]; do read -r x; n=$((n - 1)); "
                               "echo $((x * x)); done";
    float out[OBJECTS];
    kac_worker *worker = open_script(once, "-", plain);
    cr_assert_eq(kac_worker_ask(worker, objects(), SIZE, OBJECTS, out, 1), KAC_OK);
    check_squares(out, 1);
    cr_assert_eq(kac_worker_counted(worker)->failures, 0);
    kac_worker_close(worker);
}

Test(worker, the_object_that_ends_every_copy_is_found)
{
    static const char poison[] =
        "while read -r n; do while [ $n -gt 0 ]; do read -r x; n=$((n - 1)); "
        "[ $x = 61 ] && { echo '61 is too much' >&2; exit 4; }; echo $((x * x)); done; done";
    kac_worker_spec spec = plain;
    float out[OBJECTS];
    kac_worker *worker = open_script(poison, "-", spec);
    cr_assert_eq(kac_worker_ask(worker, objects(), SIZE, OBJECTS, out, 1), KAC_ERR_WORKER);
    cr_assert(strstr(kac_last_error(), "exit code 4, 3 times with nothing but 61 to answer"));
    cr_assert(strstr(kac_last_error(), "\n    61 is too much\n"), "its last line, indented");
    cr_assert(strstr(kac_last_error(), "\ntry it: printf '%s\\n' 1 61 | sh -c '"));
    cr_assert(strstr(kac_last_error(), "echo '\\''61 is too much'\\'' >&2"), "as shells quote");
    kac_worker_close(worker);

    spec.gives_up = true;
    worker = open_script(poison, "-", spec);
    cr_assert_eq(kac_worker_ask(worker, objects(), SIZE, OBJECTS, out, 1), KAC_OK);
    cr_assert(isnan(out[61]));
    out[61] = 61 * 61;
    check_squares(out, 1);
    cr_assert_eq(kac_worker_counted(worker)->given_up, 1);
    kac_worker_close(worker);
}

Test(worker, after_an_error_it_can_be_asked_again)
{
    static const char moody[] = /* garbage as long as the file is not empty */
        "while read -r n; do while [ $n -gt 0 ]; do read -r x; n=$((n - 1)); "
        "if [ $x = 40 ] && [ -s \"$0\" ]; then : >\"$0\"; echo hm; else echo $((x * x)); fi; "
        "done; done";
    kac_worker_spec spec = plain;
    float out[OBJECTS];
    char *file = marked_file();
    spec.processes = 3;
    kac_worker *worker = open_script(moody, file, spec);
    cr_assert_eq(kac_worker_ask(worker, objects(), SIZE, OBJECTS, out, 1), KAC_ERR_WORKER);
    cr_assert(strstr(kac_last_error(), "answered `hm`"));
    cr_assert_eq(kac_worker_ask(worker, objects(), SIZE, OBJECTS, out, 1), KAC_OK);
    check_squares(out, 1);
    kac_worker_close(worker);
    unlink(file);
}

/* Whether a run gives the failure that it has ended with again. */
static void expect_ended(kac_status status, const char *text)
{
    cr_expect_eq(status, KAC_ERR_WORKER, "%s", kac_last_error());
    cr_expect_str_eq(kac_last_error(), text);
}

/* The step that failed was half made, and the worker would answer the next time. */
Test(worker, a_run_that_has_failed_has_ended)
{
    static const char fails_once[] =
        "while read -r n; do if [ -s \"$0\" ]; then : >\"$0\"; exit 1; fi; "
        "while [ $n -gt 0 ]; do read -r x; n=$((n - 1)); echo 1; done; done";
    static chain c;
    char dir[256], text[512], saved[320], *file = marked_file();
    kac_config *config = NULL;
    kac_run *run = NULL;
    json_t *words = json_pack("[ssss]", "sh", "-c", fails_once, file);
    char *command = json_dumps(words, 0);
    chain_make(&c, 3, 4, false, 1);
    cr_assert(table_folder(dir));
    cr_assert_eq(table_write(&c, dir), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_config_create(&config), KAC_OK);
    cr_assert_eq(kac_config_set(config, "model.file", table_path(dir, "denoiser").path),
                 KAC_OK);
    cr_assert_eq(kac_config_set(config, "reward.0.command", command), KAC_OK);
    cr_assert_eq(table_configure(config, "reward.0.kind=worker reward.0.attempts=1 "
                                         "sampler.algorithm=smc process.steps=3"),
                 KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_run_create(config, &run), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_run_step(run), KAC_ERR_WORKER);
    snprintf(text, sizeof text, "%s", kac_last_error());
    snprintf(saved, sizeof saved, "%s/checkpoint", dir);
    for (int k = 0; k < 4; k++)
        expect_ended(kac_run_step(run), text);
    expect_ended(kac_run_sync(run, NULL), text);
    expect_ended(kac_run_checkpoint(run, saved), text);
    expect_ended(kac_run_finish(run), text);
    cr_expect_neq(access(saved, F_OK), 0, "no checkpoint of half a step");
    kac_run_destroy(run);
    kac_config_destroy(config);
    free(command);
    json_decref(words);
    unlink(file);
    table_folder_remove(dir);
}

/* Whether process `pid` is gone, now or within some seconds. */
static bool is_gone(pid_t pid)
{
    const struct timespec pause = {0, 10000000};
    char path[64], state = 'Z';
    for (int i = 0; i < 1000; i++) {
        snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
        FILE *file = fopen(path, "r");
        int found = file != NULL ? fscanf(file, "%*d %*s %c", &state) : 0;
        if (file != NULL) fclose(file);
        if (found != 1 || state == 'Z') return true;
        nanosleep(&pause, NULL);
    }
    return false;
}

Test(worker, what_a_copy_has_started_ends_with_it)
{
    char *file = scratch_file();
    float out[1];
    kac_worker *worker = open_script("sleep 1000 & echo $! >\"$0\"; " SQUARES, file, plain);
    cr_assert_eq(kac_worker_ask(worker, objects(), SIZE, 1, out, 1), KAC_OK);
    FILE *log = fopen(file, "r");
    char text[16] = "";
    cr_assert_not_null(fgets(text, sizeof text, log));
    int pid = (int)strtol(text, NULL, 10);
    fclose(log);
    cr_assert_gt(pid, 0);
    cr_assert_eq(kill(pid, 0), 0);
    kac_worker_close(worker);
    cr_assert(is_gone(pid));
    unlink(file);
}

/* ---- lines -------------------------------------------------------------------------------- */

Test(worker, numbers_of_a_line)
{
    float x[3];
    cr_assert(kac_worker_reads("1.5", 1, x));
    cr_assert_eq(x[0], 1.5F);
    cr_assert(kac_worker_reads("\t-2e-3 , 7,,8 9\r", 3, x));
    cr_assert(x[0] == -2e-3F && x[1] == 7 && x[2] == 8);
    cr_assert(kac_worker_reads("nan -inf INF", 3, x));
    cr_assert(isnan(x[0]) && x[1] == -INFINITY && x[2] == INFINITY);
    cr_assert(kac_worker_reads("0.1", 1, x));
    cr_assert_eq(x[0], 0.1F);
    static const char *const wrong[] = {"",    " ",    "1x",   "x",    "0x10",
                                        "1;2", "none", "1 a",  "nan0", "1e",
                                        "--1", "1 2a", "True", "[1]",  "1.2.3"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        cr_assert_not(kac_worker_reads(wrong[i], 1, x), "`%s`", wrong[i]);
    cr_assert_not(kac_worker_reads("1 2", 3, x));
}

/* ---- commands in configurations ----------------------------------------------------------- */

static void check_words(const char *text, const char *want)
{
    json_t *words = kac_command_words(text);
    char *found = json_dumps(words, JSON_COMPACT);
    cr_assert_str_eq(found, want);
    free(found);
    json_decref(words);
}

Test(worker, words_of_a_command)
{
    char name[12];
    check_words("python3  a.py\t-x ", "[\"python3\",\"a.py\",\"-x\"]");
    check_words("[\"a b\", \"\", \"c\"]", "[\"a b\",\"\",\"c\"]");
    check_words("", "[]");
    cr_assert_not(kac_command_reads("[1]"));
    cr_assert_not(kac_command_reads("[\"a\""));
    cr_assert_not(kac_command_reads("[\"a\", [\"b\"]]"));
    kac_command_name("a bb", name, sizeof name);
    cr_assert_str_eq(name, "`a bb`");
    kac_command_name("a bb ccccccc", name, sizeof name);
    cr_assert_str_eq(name, "`a bb ...`");
}

Test(worker, a_command_in_yaml_comes_back)
{
    static const char yaml[] = "reward: [{kind: worker, command: [python3, 'a b.py', 5]}]";
    kac_config *config = NULL;
    char text[KAC_COMMAND];
    json_t *json = NULL;
    cr_assert_eq(kac_config_create(&config), KAC_OK);
    cr_assert_eq(kac_config_parse(config, "test", yaml, sizeof yaml - 1), KAC_OK);
    cr_assert_eq(kac_config_get(config, "reward.0.command", text, sizeof text), KAC_OK);
    cr_assert_str_eq(text, "[\"python3\",\"a b.py\",\"5\"]");
    cr_assert_eq(kac_config_json(config, &json), KAC_OK);
    json_t *list =
        json_object_get(json_array_get(json_object_get(json, "reward"), 0), "command");
    cr_assert_eq(json_array_size(list), 3);
    cr_assert_str_eq(json_string_value(json_array_get(list, 2)), "5");
    json_decref(json);
    kac_config_destroy(config);
}
