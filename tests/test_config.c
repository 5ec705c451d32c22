/* test_config.c -- keys, their messages, and which of default, row and file wins. */
#include <criterion/criterion.h>
#include <glob.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "keys.h"
#include "scratch.h"

static kac_config *make(void)
{
    kac_config *config = NULL;
    cr_assert_eq(kac_config_create(&config), KAC_OK);
    return config;
}

static void set(kac_config *config, const char *key, const char *value)
{
    cr_assert_eq(kac_config_set(config, key, value), KAC_OK, "%s", kac_last_error());
}

/* Enough for a guided run. */
static kac_config *guided(const char *algorithm)
{
    kac_config *config = make();
    set(config, "model.file", "denoiser");
    set(config, "reward.0.file", "oracle");
    set(config, "sampler.value.file", "value");
    set(config, "sampler.algorithm", algorithm);
    return config;
}

static kac_status parse(kac_config *config, const char *text)
{
    return kac_config_parse(config, "f.yaml", text, strlen(text));
}

static void refuse(const char *text, const char *message)
{
    kac_config *config = make();
    cr_assert_eq(parse(config, text), KAC_ERR_INVALID, "%s", text);
    cr_assert_str_eq(kac_last_error(), message);
    kac_config_destroy(config);
}

static void expect(const kac_config *config, const char *key, const char *value)
{
    char text[256];
    cr_assert_eq(kac_config_get(config, key, text, sizeof text), KAC_OK, "%s",
                 kac_last_error());
    cr_assert_str_eq(text, value, "%s is %s, want %s", key, text, value);
}

/* What only has bounds is no part of the reward. */
Test(config, weight_auto)
{
    static const char *const steps[][3] = {
        {"reward.0.file", "f", "1"},       {"reward.0.at_most", "6", "0"},
        {"reward.0.low", "9", "1"},        {"reward.0.low", "off", "0"},
        {"reward.0.at_least", "2", "0"},   {"reward.0.at_most", "off", "0"},
        {"reward.0.weight", "2.5", "2.5"}, {"reward.0.weight", "auto", "0"},
        {"reward.0.at_least", "off", "1"}};
    kac_config *config = make();
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        set(config, steps[i][0], steps[i][1]);
        expect(config, "reward.0.weight", steps[i][2]);
    }
    kac_config_destroy(config);
}

/* ---- the table -------------------------------------------------------------------------- */

Test(config, table_is_whole)
{
    kac_settings settings;
    memset(&settings, 0, sizeof settings);
    for (int i = 0; i < kac_keys_count(); i++) {
        const kac_key *key = kac_keys_at(i);
        char name[KAC_NAME];
        char text[KAC_KEY_TEXT_SIZE];
        char expected[512];
        int index = -1;
        snprintf(name, sizeof name, "%s", key->name);
        if (strncmp(name, "reward.N", 8) == 0) name[7] = '0';
        cr_assert_eq(kac_keys_find(name, &index), key, "%s is there once", name);
        cr_assert(key->help != NULL && key->help[strlen(key->help) - 1] == '.', "%s", name);
        cr_assert_eq(kac_key_assign(&settings, name, key->initial), KAC_OK, "%s",
                     kac_last_error());
        kac_key_text(&settings, key, index, text, sizeof text);
        cr_assert_eq(kac_key_assign(&settings, name, text), KAC_OK, "%s", kac_last_error());
        kac_key_expected(key, expected, sizeof expected);
        cr_assert_gt(strlen(expected), 0);
        cr_assert_lt(strlen(expected), sizeof expected - 1);
        for (int k = 0; k < i; k++) { /* no two keys share memory */
            const kac_key *other = kac_keys_at(k);
            cr_assert(other->offset + other->size <= key->offset ||
                          key->offset + key->size <= other->offset,
                      "%s and %s", key->name, other->name);
        }
    }
}

Test(config, choices_are_in_the_order_of_their_enums)
{
    kac_config *config = guided("smc");
    kac_settings s;
    set(config, "process.schedule", "flow");
    set(config, "reward.0.kind", "table");
    set(config, "sampler.value.estimate", "sample");
    set(config, "sampler.potential", "sum");
    set(config, "sampler.select.group.scheme", "multinomial");
    set(config, "sampler.select.group.scope", "global");
    set(config, "sampler.select.group.trigger.kind", "window");
    set(config, "sampler.final.kind", "top_k");
    set(config, "sampler.final.scope", "all");
    set(config, "sampler.on_dead", "error");
    set(config, "sampler.on_invalid", "worst");
    set(config, "device.isa", "avx512");
    set(config, "objective.combine", "lower_bound");
    set(config, "reward.1.kind", "motif");
    set(config, "reward.1.motifs", "AC");
    set(config, "reward.1.strands", "both");
    cr_assert_eq(kac_config_settings(config, &s), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(s.objective.combine, KAC_COMBINE_LOWER_BOUND);
    cr_assert_eq(s.reward[1].kind, KAC_REWARD_MOTIF);
    cr_assert(s.reward[1].both_strands);
    cr_assert_eq(s.process.schedule, KAC_SCHEDULE_FLOW);
    cr_assert_eq(s.reward[0].kind, KAC_REWARD_TABLE);
    cr_assert_eq(s.sampler.value, KAC_VALUE_POSTERIOR_MEAN);
    cr_assert_eq(s.sampler.estimate, KAC_ESTIMATE_SAMPLE);
    cr_assert_eq(s.sampler.potential, KAC_POTENTIAL_SUM);
    cr_assert_eq(s.sampler.group_rule, KAC_RULE_CATEGORICAL);
    cr_assert_eq(s.sampler.scheme, KAC_SCHEME_MULTINOMIAL);
    cr_assert_eq(s.sampler.trigger, KAC_WHEN_WINDOW);
    cr_assert_eq(s.sampler.final, KAC_FINAL_TOP_K);
    cr_assert(s.sampler.global && s.sampler.final_pool);
    cr_assert(s.sampler.on_dead == KAC_DEAD_ERROR && s.sampler.invalid_is_worst);
    cr_assert_eq(s.device.isa, (int)KAC_ISA_AVX512);
    set(config, "device.isa", "auto");
    set(config, "sampler.children", "2");
    set(config, "sampler.select.parent.rule", "top_k");
    set(config, "sampler.select.group.scheme", "killing");
    cr_assert_eq(kac_config_settings(config, &s), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(s.device.isa, -1);
    cr_assert_eq(s.sampler.parent_rule, KAC_RULE_TOP_K);
    cr_assert_eq(s.sampler.scheme, KAC_SCHEME_KILLING);
    kac_config_destroy(config);
}

Test(config, values_are_strict)
{
    static const struct {
        const char *key, *value, *message;
    } cases[] = {
        {"output.dir", "a\xff", "output.dir: expected text in UTF-8, found `a\xff`"},
        {"sampler.particles", "many",
         "sampler.particles: expected an integer from 1 to 16777216, found `many`"},
        {"sampler.particles", "6_4",
         "sampler.particles: expected an integer from 1 to 16777216, found `6_4`"},
        {"sampler.particles", "0",
         "sampler.particles: expected an integer from 1 to 16777216, found `0`"},
        {"sampler.particles", "1.5",
         "sampler.particles: expected an integer from 1 to 16777216, found `1.5`"},
        {"sampler.particles", "",
         "sampler.particles: expected an integer from 1 to 16777216, found ``"},
        {"sampler.particles", " 1",
         "sampler.particles: expected an integer from 1 to 16777216, found ` 1`"},
        {"sampler.alpha", "0.5x",
         "sampler.alpha: expected auto or a number from 0 to 1e+30, found `0.5x`"},
        {"sampler.alpha", "nan",
         "sampler.alpha: expected auto or a number from 0 to 1e+30, found `nan`"},
        {"sampler.alpha", "inf",
         "sampler.alpha: expected auto or a number from 0 to 1e+30, found `inf`"},
        {"sampler.alpha", "0x1p3",
         "sampler.alpha: expected auto or a number from 0 to 1e+30, found `0x1p3`"},
        {"sampler.alpha", "-1",
         "sampler.alpha: expected auto or a number from 0 to 1e+30, found `-1`"},
        {"device.batch", "0",
         "device.batch: expected auto or an integer from 1 to 16777216, found `0`"},
        {"sampler.select.group.trigger.to", "end",
         "sampler.select.group.trigger.to: expected last or an integer from 1 to 1048575, "
         "found `end`"},
        {"sampler.potential", "differnce",
         "sampler.potential: expected difference, max, sum or terminal, found `differnce` "
         "(did you mean `difference`?)"},
        {"sampler.value.estimate", "ample",
         "sampler.value.estimate: expected argmax, soft or sample, found `ample` (did you mean "
         "`sample`?)"},
        {"sampler.alpha", "0,2",
         "sampler.alpha: expected auto or a number from 0 to 1e+30, found `0,2` (a decimal has "
         "a "
         "point: 0.2)"},
        {"sampler.alpha", "1,2,3",
         "sampler.alpha: expected auto or a number from 0 to 1e+30, found `1,2,3`"},
        {"sampler.reuse", "maybe", "sampler.reuse: expected off or on, found `maybe`"},
        {"sampler.select.parent.normaliser", "true",
         "sampler.select.parent.normaliser: expected discard or keep, found `true`"},
        {"device.name", "gpu", "device.name: expected auto, cpu or cuda:N, found `gpu`"},
        {"reward.0.name", "log_weight",
         "reward.0.name: expected letters, digits, _ . or -, and no column of samples.csv, "
         "found `log_weight`"},
        {"reward.3.weight", "1", "reward.3: there is no reward.0 before it"},
        {"reward.16.weight", "1", "reward.16: at most 16 rewards, 0 to 15"},
        {"reward.N.weight", "1", "reward.N.weight: want a number for N, from 0"},
        {"reward.00.weight", "1",
         "reward.00.weight: no such key (did you mean `reward.0.weight`?)"},
        {"alpha", "1", "alpha: no such key (did you mean `sampler.alpha`?)"},
        {"sampler.alhpa", "1", "sampler.alhpa: no such key (did you mean `sampler.alpha`?)"},
        {"smapler.alpha", "1", "smapler.alpha: no such key (did you mean `sampler.alpha`?)"},
        {"reward.2.wieght", "1",
         "reward.2.wieght: no such key (did you mean `reward.2.weight`?)"},
        {"select", "1", "select: no such key (did you mean `sampler.select`?)"},
        {"reward.0.command", "[python3, mine.py]",
         "reward.0.command: expected a program and its arguments: words with blanks between "
         "them, such as python3 mine.py, or in a file a list such as [python3, mine.py], found "
         "`[python3, mine.py]`"},
        {"colour", "1", "colour: no such key"},
        {"", "1", ": no such key"},
        {"sampler", "1", "sampler: a section, not a key"},
        {"reward", "1", "reward: a section, not a key"},
    };
    kac_config *config = make();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cr_assert_eq(kac_config_set(config, cases[i].key, cases[i].value), KAC_ERR_INVALID,
                     "%s = %s", cases[i].key, cases[i].value);
        cr_assert_str_eq(kac_last_error(), cases[i].message);
    }
    cr_assert_eq(kac_config_set(config, "sampler.algorithm", "svdd"), KAC_ERR_INVALID);
    static const char names[] = "sampler.algorithm: expected pretrained, best_of_n, ";
    cr_assert_eq(strncmp(kac_last_error(), names, strlen(names)), 0, "%s", kac_last_error());
    cr_assert_not_null(strstr(kac_last_error(), ", found `svdd` (did you mean `svdd_pm`?)"),
                       "%s", kac_last_error());

    char path[KAC_PATH + 1];
    memset(path, 'x', KAC_PATH);
    path[KAC_PATH] = '\0';
    cr_assert_eq(kac_config_set(config, "model.file", path), KAC_ERR_INVALID);
    path[KAC_PATH - 1] = '\0';
    cr_assert_eq(kac_config_set(config, "model.file", path), KAC_OK);
    kac_config_destroy(config);
}

Test(config, get_after_set)
{
    kac_config *config = make();
    static const char *const pairs[][3] = {
        {"sampler.particles", "1e3", "1000"},
        {"sampler.particles", "64.0", "64"},
        {"sampler.alpha", "0.1", "0.1"},
        {"sampler.alpha", "1e-7", "1e-07"},
        {"sampler.alpha", "0.12345678901234567", "0.12345678901234566"},
        {"seed", "9007199254740991", "9007199254740991"},
        {"process.length", "auto", "auto"},
        {"process.length", "50", "50"},
        {"sampler.select.group.trigger.to", "last", "last"},
        {"sampler.reuse", "false", "off"},
        {"sampler.reuse", "true", "on"},
        {"sampler.reuse", "no", "off"},
        {"sampler.reuse", "yes", "on"},
        {"device.name", "cuda:0", "cuda:0"},
        {"reward.0.weight", "-2.5", "-2.5"},
        {"reward.1.file", "b", "b"},
        {"reward.1.weight", "0", "0"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        set(config, pairs[i][0], pairs[i][1]);
        expect(config, pairs[i][0], pairs[i][2]);
    }
    char text[8];
    expect(config, "reward.1.kind", "network");
    expect(config, "reward.0.weight", "-2.5");
    cr_assert_eq(kac_config_get(config, "reward.2.file", text, sizeof text), KAC_ERR_INVALID);
    cr_assert_str_eq(kac_last_error(), "reward.2.file: the number of rewards is 2");
    cr_assert_eq(kac_config_get(config, "sampler.alhpa", text, sizeof text), KAC_ERR_INVALID);
    cr_assert_eq(kac_config_get(config, "process.schedule", text, sizeof text), KAC_ERR_INVALID,
                 "no room");
    kac_config_destroy(config);
}

/* ---- files ------------------------------------------------------------------------------ */

Test(config, mistakes_of_a_file)
{
    refuse("", "f.yaml:1:1: the file is empty");
    refuse("# nothing\n", "f.yaml:1:1: the file is empty");
    refuse("3", "f.yaml:1:1: expected a mapping of keys to values, found text");
    refuse("- 3", "f.yaml:1:1: expected a mapping of keys to values, found a list");
    refuse("seed: 1\n---\nseed: 2\n", "f.yaml:3:1: a second document; a file holds one");
    refuse("sampler:\n  alhpa: 1\n",
           "f.yaml:2:3: sampler.alhpa: no such key (did you mean `sampler.alpha`?)");
    refuse("smapler:\n  alpha: 1\n",
           "f.yaml:1:1: smapler: no such key (did you mean `sampler`?)");
    refuse("sampler: {alpha: 1,\n  groups: 2,\n  alpha: 2}\n",
           "f.yaml:3:3: sampler.alpha: given twice");
    refuse("seed: 1\nseed: 1\n", "f.yaml:2:1: seed: given twice");
    refuse("sampler: 3\n",
           "f.yaml:1:10: sampler: expected a mapping of keys to values, found text");
    refuse("sampler.alpha: 3\n", "f.yaml:1:1: a key is a word without a point");
    refuse("[1]: 3\n", "f.yaml:1:1: a key is a word without a point");
    refuse("seed: [1]\n",
           "f.yaml:1:7: seed: expected an integer from 0 to 9007199254740991, found a list");
    refuse(
        "seed: \"1\\0\"\n",
        "f.yaml:1:7: seed: expected an integer from 0 to 9007199254740991, found a zero byte");
    refuse("reward: {file: a}\n",
           "f.yaml:1:9: reward: expected a list of rewards, found a mapping");
    refuse("reward: [a]\n",
           "f.yaml:1:10: reward.0: expected a mapping of keys to values, found text");
    refuse("reward:\n  - {}\n", "f.yaml:2:5: reward.0: the mapping is empty");
    refuse("seed: 'a\n",
           "f.yaml:2:1: not YAML: found unexpected end of stream, while scanning a "
           "quoted scalar");
    refuse("seed: \xff\n", "f.yaml:1:1: not YAML: invalid leading UTF-8 octet");
    refuse("seed: *a\n", "f.yaml:1:7: not YAML: found undefined alias");
    refuse("process:\n\tsteps: 4\n",
           "f.yaml:2:1: not YAML: a tab begins the line; want blanks for indenting");
    refuse("process:\n  steps: 4\n \tlength: 4\n",
           "f.yaml:3:2: not YAML: a tab begins the line; want blanks for indenting");
    refuse("process: {template: ??A}\n",
           "f.yaml:1:21: not YAML: did not find expected node content, while parsing a flow "
           "node; text with ? needs quotes");
    refuse("reward: [{kind: motif, motifs: GAATTC,GGATCC}]\n",
           "f.yaml:1:39: reward.0.GGATCC: no such key; within { } a value with commas needs "
           "quotes");
    refuse("sampler: {alpha: 0,2}\n",
           "f.yaml:1:20: sampler.2: no such key; a decimal has a point: 0.2");
    refuse("sampler: {alpha: 1, alhpa: }\n",
           "f.yaml:1:21: sampler.alhpa: no such key (did you mean `sampler.alpha`?)");
}

Test(config, all_mistakes_at_once)
{
    refuse(
        "seed: x\n"
        "reward:\n"
        "  - {fiel: a}\n"
        "  - {file: b, weight: heavy}\n"
        "sampler:\n"
        "  particles: 1_0\n"
        "  select: {group: {rule: best}}\n",
        "f.yaml:1:7: seed: expected an integer from 0 to 9007199254740991, found `x`\n"
        "f.yaml:3:6: reward.0.fiel: no such key (did you mean `reward.0.file`?)\n"
        "f.yaml:4:23: reward.1.weight: expected auto or a number from -1e+30 to 1e+30, found "
        "`heavy`\n"
        "f.yaml:6:14: sampler.particles: expected an integer from 1 to 16777216, found "
        "`1_0`\n"
        "f.yaml:7:26: sampler.select.group.rule: expected none, categorical, argmax, "
        "top_k or replace, found `best`");

    char text[4000] = "";
    for (int i = 0; i < 100; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "unheard_of_%d: 1\n", i);
    kac_config *config = make();
    cr_assert_eq(parse(config, text), KAC_ERR_INVALID);
    cr_assert_not_null(strstr(kac_last_error(), " mistakes more"));
    kac_config_destroy(config);
}

Test(config, a_bad_file_changes_nothing)
{
    kac_config *config = make();
    set(config, "reward.0.file", "kept");
    cr_assert_eq(parse(config, "seed: 5\nreward: [{file: new}]\nsampler: {alpha: x}\n"),
                 KAC_ERR_INVALID);
    expect(config, "seed", "1");
    expect(config, "reward.0.file", "kept");
    kac_config_destroy(config);
}

Test(config, the_design_example_is_read)
{
    kac_config *config = make();
    kac_settings s;
    cr_assert_eq(
        parse(config,
              "model:   {file: models/promoter_denoiser.safetensors}\n"
              "process: {kind: masked, steps: 128, schedule: loglinear}\n"
              "reward:\n"
              "  - {kind: network, file: models/e.safetensors, output: 0, weight: 1.0}\n"
              "sampler:\n"
              "  algorithm: svdd_pm\n"
              "  alpha: 0.1\n"
              "  groups: 64\n"
              "  particles: 1\n"
              "  children: 10\n"
              "  value:     {kind: posterior_mean, estimate: argmax, samples: 1}\n"
              "  potential: difference\n"
              "  select:\n"
              "    parent: {rule: categorical, normaliser: discard}\n"
              "    group:  {rule: none, scheme: tournament, trigger: {kind: ess, below: "
              "0.5}}\n"
              "  final: {kind: weighted, keep: all}\n"
              "  reuse: on\n"
              "seed: 1\n"
              "device:  {name: auto, precision: exact, batch: auto, threads: auto}\n"
              "output:  {dir: runs/promoters, trace: on}\n"),
        KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_config_settings(config, &s), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(s.sampler.trigger, KAC_WHEN_NEVER, "rule none never selects");
    cr_assert_eq(s.sampler.children, 10);
    cr_assert_not(kac_properly_weighted(&s));
    kac_config_destroy(config);
}

Test(config, anchors_and_a_new_list_of_rewards)
{
    kac_config *config = make();
    set(config, "reward.0.file", "old");
    set(config, "reward.1.file", "old");
    cr_assert_eq(parse(config, "model: {file: &name m}\nreward:\n  - file: *name\n"), KAC_OK,
                 "%s", kac_last_error());
    char text[16];
    expect(config, "reward.0.file", "m");
    cr_assert_eq(kac_config_get(config, "reward.1.file", text, sizeof text), KAC_ERR_INVALID);
    kac_config_destroy(config);
}

Test(config, reads_from_disk)
{
    char folder[256];
    char path[300];
    kac_config *config = make();
    scratch_create(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/c.yaml", folder);
    cr_assert_eq(kac_config_read(config, path), KAC_ERR_INVALID);
    cr_assert_not_null(strstr(kac_last_error(), "c.yaml: cannot open: No such file"));
    cr_assert_eq(kac_config_read(config, folder), KAC_ERR_INVALID);
    cr_assert_not_null(strstr(kac_last_error(), ": cannot read: Is a directory"));

    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    fprintf(file, "seed: 7\n");
    cr_assert_eq(fclose(file), 0);
    cr_assert_eq(kac_config_read(config, path), KAC_OK, "%s", kac_last_error());
    expect(config, "seed", "7");

    file = fopen(path, "w");
    cr_assert_not_null(file);
    fprintf(file, "# %70000s\nseed: 8\n", "");
    cr_assert_eq(fclose(file), 0);
    cr_assert_eq(kac_config_read(config, path), KAC_ERR_INVALID);
    cr_assert_not_null(strstr(kac_last_error(), "c.yaml: more than 65536 bytes"));
    unlink(path);
    rmdir(folder);
    kac_config_destroy(config);
}

/* Tests run in the root of the project. */
Test(config, shipped_files_are_right)
{
    glob_t found;
    cr_assert_eq(glob("configs/*.yaml", 0, NULL, &found), 0);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        kac_settings s;
        kac_config *config = make();
        cr_assert_eq(kac_config_read(config, found.gl_pathv[i]), KAC_OK, "%s",
                     kac_last_error());
        cr_assert_eq(kac_config_settings(config, &s), KAC_OK, "%s: %s", found.gl_pathv[i],
                     kac_last_error());
        kac_config_destroy(config);
    }
    globfree(&found);
}

/* ---- resolving -------------------------------------------------------------------------- */

Test(config, given_before_row_before_default)
{
    kac_config *config = make();
    expect(config, "sampler.algorithm", "smc");
    set(config, "sampler.children", "3");
    set(config, "sampler.algorithm", "svdd_pm"); /* later, and still below what was given */
    expect(config, "sampler.children", "3");
    expect(config, "sampler.particles", "1");
    expect(config, "sampler.groups", "16");
    set(config, "sampler.algorithm", "nested"); /* nothing of the old row is left */
    expect(config, "sampler.particles", "16");
    expect(config, "sampler.select.parent.normaliser", "keep");
    kac_config_destroy(config);
}

Test(config, every_row_resolves)
{
    for (const kac_algorithm *row = kac_algorithms; row->name != NULL; row++) {
        kac_settings s;
        kac_config *config = guided(row->name);
        cr_assert_eq(kac_config_settings(config, &s), KAC_OK, "%s: %s", row->name,
                     kac_last_error());
        cr_assert_str_eq(s.sampler.algorithm, row->name);
        cr_assert(row->summary && row->law && row->source, "%s", row->name);
        bool claims = strncmp(row->law, "p* as N grows", 13) == 0 ||
                      strncmp(row->law, "p* as the sweeps", 16) == 0 || row->law[0] == 'q';
        cr_assert_eq(kac_properly_weighted(&s), claims, "%s", row->name);
        set(config, "sampler.alpha", "0");
        bool ignores = strncmp(row->name, "best_of_n", 9) == 0 ||
                       strcmp(row->name, "beam") == 0 || strcmp(row->name, "svdd_r") == 0 ||
                       strcmp(row->name, "ddbfs") == 0 || strcmp(row->name, "mcts") == 0;
        cr_assert_eq(kac_config_settings(config, &s), ignores ? KAC_OK : KAC_ERR_INVALID, "%s",
                     row->name);
        cr_assert(!ignores || s.sampler.alpha == 1);
        kac_config_destroy(config);
    }
}

Test(config, contradictions)
{
    static const struct {
        const char *algorithm;
        const char *set[3][2];
        const char *message; /* NULL: fine */
    } cases[] = {
        {"smc",
         {{"sampler.alpha", "0"}},
         "sampler.alpha: 0 is allowed only where every selection is argmax or top_k"},
        {"smc",
         {{"sampler.alpha", "1e-300"}, {"reward.0.weight", "1e30"}},
         "sampler.alpha: 1e-300 is so small that r / alpha overflows with weight 1e+30 of "
         "reward.0; want a weight of 1e+300 times alpha at most"},
        {"smc",
         {{"sampler.alpha", "1e-300"}, {"reward.0.weights", "1,-2"}},
         "sampler.alpha: 1e-300 is so small that r / alpha overflows with weight 2 of "
         "reward.0; want a weight of 1e+300 times alpha at most"},
        {"smc", {{"sampler.alpha", "1e-290"}, {"reward.0.weight", "1e10"}}, NULL},
        {"beam", {{"sampler.alpha", "1e-300"}, {"reward.0.weight", "1e30"}}, NULL},
        {"ddbfs",
         {{"sampler.alpha", "0"},
          {"sampler.value.estimate", "sample"},
          {"sampler.value.samples", "4"}},
         "sampler.alpha: 0 is allowed only where every selection is argmax or top_k, and "
         "sampler.value.samples is 1"},
        {"ddbfs", {{"sampler.alpha", "0"}, {"sampler.value.estimate", "sample"}}, NULL},
        {"svdd_pm", {{"sampler.alpha", "0"}, {"sampler.select.parent.rule", "argmax"}}, NULL},
        {"smc",
         {{"sampler.children", "2"}},
         "sampler.children: 2, but smc takes 1; more need a group stage that selects at every "
         "step (sampler.select.group.rule, and trigger.kind every)"},
        {"svdd_pm",
         {{"sampler.select.parent.rule", "top_k"}, {"sampler.select.parent.keep", "2"}},
         "sampler.children: the parent stage leaves 2 candidates of each particle, so the "
         "group "
         "stage must select at every step: set sampler.select.group.rule, and "
         "sampler.select.group.trigger.kind every; else sampler.children 1"},
        {"smc",
         {{"sampler.children", "2"}, {"sampler.select.group.trigger.kind", "every"}},
         NULL},
        {"smc",
         {{"sampler.children", "2"},
          {"sampler.select.group.trigger.kind", "every"},
          {"sampler.select.group.scheme", "killing"}},
         "sampler.select.group.scheme: killing needs one candidate a particle, and the parent "
         "stage leaves 2"},
        {"svdd_pm",
         {{"sampler.select.parent.rule", "top_k"}, {"sampler.select.parent.keep", "11"}},
         "sampler.select.parent.keep: 11 is more than sampler.children, 10"},
        {"smc",
         {{"sampler.value.kind", "none"}},
         "sampler.potential: without a value (sampler.value.kind none) only terminal is "
         "possible"},
        {"fk_steering", {{"sampler.potential", "terminal"}}, NULL},
        {"smc",
         {{"sampler.final.keep", "2"}},
         "sampler.final.keep: kind weighted keeps all, found 2"},
        {"smc",
         {{"sampler.final.kind", "top_k"}, {"sampler.final.keep", "65"}},
         "sampler.final.keep: at most 64 of each group, found 65"},
        {"best_of_n",
         {{"sampler.final.keep", "2"}},
         "sampler.final.keep: at most 1 of each group with kind argmax, found 2"},
        {"best_of_n",
         {{"sampler.final.scope", "all"}},
         "sampler.final.scope: all goes with kind top_k only"},
        {"smc",
         {{"sampler.groups", "16777216"}, {"sampler.particles", "128"}},
         "sampler: 16777216 groups x 128 particles x 1 children x 1 samples are more than "
         "2147483647"},
        {"smc",
         {{"sampler.select.group.trigger.from", "5"}, {"sampler.select.group.trigger.to", "4"}},
         "sampler.select.group.trigger.to: 4 comes before from, 5"},
        {"smc",
         {{"reward.0.weight", "0"}},
         "reward: algorithm smc needs a reward with a weight other than 0, or a bound (only "
         "pretrained runs without)"},
        {"smc", {{"reward.0.weight", "0"}, {"reward.0.at_most", "2"}}, NULL},
        {"smc", {{"reward.0.weight", "0"}, {"reward.0.weights", "0:1"}}, NULL},
        {"pretrained", {{"reward.0.weight", "0"}}, NULL},
        {"smc",
         {{"reward.0.kind", "gc"}},
         "reward.0.kind: gc, homopolymer and motif have no file and no output to choose"},
        {"smc",
         {{"reward.1.kind", "motif"}},
         "reward.1.motifs: required of kind motif, such as GAATTC,GGNCC"},
        {"smc",
         {{"reward.0.strands", "both"}},
         "reward.0: motifs and strands go with kind motif only"},
        {"smc",
         {{"reward.0.low", "1"}},
         "reward.0: low and high go together, and differ from each other"},
        {"smc",
         {{"reward.0.low", "1"}, {"reward.0.high", "1"}},
         "reward.0: low and high go together, and differ from each other"},
        {"smc",
         {{"reward.0.at_least", "1"}, {"reward.0.at_most", "0.5"}},
         "reward.0: at_least, 1, is more than at_most, 0.5, so every object is forbidden"},
        {"smc",
         {{"reward.1.kind", "gc"}, {"reward.1.at_least", "30"}, {"reward.1.at_most", "60"}},
         "reward.1.at_least: 30, but gc is a share from 0 to 1"},
        {"smc",
         {{"reward.1.kind", "gc"}, {"reward.1.low", "20"}, {"reward.1.high", "40"}},
         "reward.1.high: 40, but gc is a share from 0 to 1"},
        {"smc",
         {{"reward.1.kind", "homopolymer"}, {"reward.1.at_most", "0"}},
         "reward.1.at_most: 0, but homopolymer is the length of a run from 1"},
        {"smc",
         {{"reward.1.kind", "homopolymer"}, {"reward.1.low", "9"}, {"reward.1.high", "0"}},
         NULL},
        {"smc",
         {{"process.length", "80"},
          {"reward.1.kind", "homopolymer"},
          {"reward.1.at_least", "81"}},
         "reward.1.at_least: 81, but homopolymer is the length of a run from 1 to 80"},
        {"smc",
         {{"reward.1.kind", "motif"}, {"reward.1.motifs", "AC,GT"}, {"reward.1.at_most", "-1"}},
         "reward.1.at_most: -1, but motif is a number of places from 0"},
        {"smc",
         {{"objective.combine", "product"}},
         "objective.combine: product multiplies desirabilities, so reward.0 needs low and "
         "high"},
        {"smc",
         {{"objective.combine", "lower_bound"}, {"reward.0.weight", "-1"}},
         "objective.combine: lower_bound takes no weight below 0, and reward.0 has one"},
        {"smc",
         {{"objective.combine", "lower_bound"}, {"reward.0.weights", "0,1,-0.5"}},
         "objective.combine: lower_bound takes no weight below 0, and reward.0 has one"},
        {"smc", {{"objective.combine", "min"}, {"reward.0.weight", "-1"}}, NULL},
        {"smc",
         {{"reward.0.weights", "0,1,2"}, {"sampler.groups", "2"}},
         "reward.0.weights: 3 numbers for 2 groups"},
        {"best_of_n_pool",
         {{"reward.0.weights", "0:1"}},
         "sampler.final.scope: all compares rewards of all groups, and reward.0.weights gives "
         "each its own"},
        {"smc", {{"reward.1.weight", "2"}}, "reward.1.file: required, a safetensors file"},
        {"smc",
         {{"reward.0.name", "r"}, {"reward.1.file", "f"}, {"reward.1.name", "r"}},
         "reward.1.name: reward.0 is also called `r`"},
        {"smc", {{"model.file", ""}}, "model.file: required, a safetensors file"},
        {"svdd_mc",
         {{"sampler.value.file", ""}},
         "sampler.value.file: required where sampler.value.kind is learned or "
         "sampler.twist.kind is value, a safetensors file"},
        {"smc", {{"sampler.value.kind", "learned"}}, NULL},
        {"smc", {{"sampler.value.kind", "state"}, {"sampler.value.file", ""}}, NULL},
        {"mcts",
         {{"sampler.value.kind", "learned"}},
         "sampler.value.kind: driver.kind search needs posterior_mean or none"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kac_settings s;
        kac_config *config = guided(cases[i].algorithm);
        for (int k = 0; k < 3 && cases[i].set[k][0] != NULL; k++)
            set(config, cases[i].set[k][0], cases[i].set[k][1]);
        kac_status status = kac_config_settings(config, &s);
        if (cases[i].message == NULL) {
            cr_assert_eq(status, KAC_OK, "case %zu: %s", i, kac_last_error());
        } else {
            cr_assert_eq(status, KAC_ERR_INVALID, "case %zu", i);
            cr_assert_str_eq(kac_last_error(), cases[i].message);
        }
        kac_config_destroy(config);
    }
}

/* What a file gave is told with its place, until something else gives it; copies keep that. */
Test(config, the_place_of_a_value)
{
    static const char text[] = "model: {file: m}\nreward: [{file: r}]\nsampler:\n"
                               "  algorithm: smc\n  children: 9\n";
    kac_config *config = make(), *copy = NULL;
    kac_settings s;
    char place[KAC_PLACE];
    cr_assert_eq(parse(config, text), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(kac_config_clone(config, &copy), KAC_OK);
    cr_expect_eq(kac_config_settings(copy, &s), KAC_ERR_INVALID);
    cr_expect_str_eq(kac_last_error(),
                     "sampler.children: 9 (f.yaml:5), but smc takes 1: add --set "
                     "sampler.children=1, or leave children out of the file; more need a group "
                     "stage that selects at every step (sampler.select.group.rule, and "
                     "trigger.kind every)");
    set(config, "sampler.children", "8");
    kac_config_place(config, "sampler.children", place);
    cr_expect_str_eq(place, "");
    kac_config_place(config, "sampler.algorithm", place);
    cr_expect_str_eq(place, " (f.yaml:4)");
    set(config, "sampler.children", "1");
    cr_expect_eq(kac_config_settings(config, &s), KAC_OK, "%s", kac_last_error());
    kac_config_destroy(config);
    kac_config_destroy(copy);
}

Test(config, clone_and_json_keep_everything)
{
    kac_config *config = guided("fk_steering");
    kac_config *copy = NULL;
    kac_config *again = make();
    json_t *json = NULL;
    set(config, "sampler.alpha", "0.1");
    set(config, "reward.1.file", "judge \"quoted\"");
    set(config, "reward.1.weight", "0");
    set(config, "device.isa", "avx2");
    cr_assert_eq(kac_config_clone(config, &copy), KAC_OK);
    kac_config_destroy(config);

    cr_assert_eq(kac_config_json(copy, &json), KAC_OK, "%s", kac_last_error());
    const json_t *sampler = json_object_get(json, "sampler");
    cr_assert_eq(json_integer_value(json_object_get(sampler, "particles")), 16);
    cr_assert_eq(json_real_value(json_object_get(sampler, "alpha")), 0.1);
    cr_assert(json_is_true(json_object_get(sampler, "reuse")));
    cr_assert_eq(json_array_size(json_object_get(json, "reward")), 2);
    char *text = json_dumps(json, JSON_COMPACT);
    cr_assert_eq(parse(again, text), KAC_OK, "%s", kac_last_error());
    for (int i = 0; i < kac_keys_count(); i++) {
        char name[KAC_NAME];
        char value[256];
        snprintf(name, sizeof name, "%s", kac_keys_at(i)->name);
        if (strncmp(name, "reward.N", 8) == 0) name[7] = '1';
        cr_assert_eq(kac_config_get(copy, name, value, sizeof value), KAC_OK);
        expect(again, name, value);
    }
    free(text);
    json_decref(json);
    kac_config_destroy(copy);
    kac_config_destroy(again);
}

/* ---- explaining ------------------------------------------------------------------------- */

static char *explain(const char *key)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    cr_assert_not_null(out);
    cr_assert_eq(kac_config_explain(key, out), KAC_OK, "%s", kac_last_error());
    cr_assert_eq(fclose(out), 0);
    return text;
}

Test(config, explains)
{
    char *text = explain("reward.3.output");
    cr_assert_str_eq(text,
                     "reward.N.output\n  Which output of the network or plug-in, or number "
                     "of the worker's line, counted from 0.\n"
                     "  an integer from 0 to 4095; default 0\n");
    free(text);
    text = explain("reward.0");
    cr_assert_not_null(strstr(text, "reward.N.weight\n"));
    cr_assert_null(strstr(text, "sampler"));
    free(text);
    text = explain("algorithms");
    cr_assert_not_null(strstr(text, "best_of_n_pool\n"));
    free(text);
    text = explain(NULL);
    for (int i = 0; i < kac_keys_count(); i++) {
        char cell[KAC_NAME + 8];
        snprintf(cell, sizeof cell, "| `%s` |", kac_keys_at(i)->name);
        cr_assert_not_null(strstr(text, cell), "%s", cell);
    }
    for (const kac_algorithm *row = kac_algorithms; row->name != NULL; row++)
        cr_assert_not_null(strstr(text, row->law));
    free(text);
    cr_assert_eq(kac_config_explain("sampler.alhpa", stdout), KAC_ERR_INVALID);
    cr_assert_str_eq(kac_last_error(),
                     "sampler.alhpa: no such key (did you mean `sampler.alpha`?)");
}

Test(config, the_first_key_that_differs_is_named)
{
    static const struct {
        const char *a, *b, *key;
    } cases[] = {
        {"{'a': 1, 'b': {'c': 2, 'd': 3}}", "{'b': {'d': 3, 'c': 2}, 'a': 1}", NULL},
        {"{'a': 1, 'b': {'c': 2, 'd': 3}}", "{'a': 1, 'b': {'c': 2, 'd': 4}}", "b.d"},
        {"{'a': 1, 'b': {'c': 2}}", "{'a': 1}", "b.c"},
        {"{'a': 1, 'b': {'c': 2}}", "{'a': 1, 'b': {'c': 2, 'd': 4}}", "b.d"},
        {"{'a': 1}", "{'a': 1, 'b': {'c': 2}}", "b"},
        {"{'a': [1, 2]}", "{'a': [1, 3]}", "a.1"},
        {"{'a': [1, 2]}", "{'a': [1]}", "a.1"},
        {"{'a': [1, {'b': 2}]}", "{'a': [1, {'b': 2}, 3]}", "a.2"},
        {"{'a': {'b': 1}}", "{'a': [1]}", "a.b"},
        {"{'a': 1}", "{'a': [1]}", "a"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char texts[2][64], key[16] = "";
        json_t *json[2];
        for (int k = 0; k < 2; k++) {
            snprintf(texts[k], sizeof texts[k], "%s", k == 0 ? cases[i].a : cases[i].b);
            for (char *c = texts[k]; *c != '\0'; c++)
                if (*c == '\'') *c = '"';
            json[k] = json_loads(texts[k], 0, NULL);
            cr_assert_not_null(json[k], "%s", texts[k]);
        }
        bool agrees = kac_config_agrees(json[0], json[1], key, sizeof key);
        cr_expect_eq(agrees, cases[i].key == NULL, "case %zu", i);
        if (cases[i].key != NULL) cr_expect_str_eq(key, cases[i].key, "case %zu", i);
        json_decref(json[0]);
        json_decref(json[1]);
    }
}
