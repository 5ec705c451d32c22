/* config_yaml.c -- a configuration from YAML; all mistakes of a file are told at once. */
#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "atomic.h"
#include "config.h"
#include "keys.h"

enum { FILE_MOST = 1 << 16, MISTAKES_SIZE = 3800 };

/* One reading of a file. */
typedef struct reader {
    const char *path, *bytes; /* [size] */
    size_t size;
    yaml_document_t *document;
    kac_config *config;    /* the outcome, if all goes well */
    kac_settings settings; /* every pair is tried on it */
    int mistakes, omitted;
    size_t used;
    char text[MISTAKES_SIZE]; /* a line each */
} reader;

/* Notes a mistake at a place in the file. */
__attribute__((format(printf, 3, 4))) static void mistake(reader *r, yaml_mark_t mark,
                                                          const char *fmt, ...)
{
    char line[1600];
    int head = snprintf(line, sizeof line, "%.1000s:%zu:%zu: ", r->path, mark.line + 1,
                        mark.column + 1);
    va_list args;
    va_start(args, fmt);
    vsnprintf(line + head, sizeof line - (size_t)head, fmt, args);
    va_end(args);

    r->mistakes++;
    if (r->used + strlen(line) + 2 > sizeof r->text) {
        r->omitted++;
        return;
    }
    r->used += (size_t)snprintf(r->text + r->used, sizeof r->text - r->used, "%s%s",
                                r->used > 0 ? "\n" : "", line);
}

static const char *kind_of(const yaml_node_t *node)
{
    switch (node->type) {
    case YAML_SEQUENCE_NODE: return "a list";
    case YAML_MAPPING_NODE: return "a mapping";
    case YAML_SCALAR_NODE:
    case YAML_NO_NODE: break;
    }
    return "text";
}

/* The text of a scalar, NULL where it is none or holds a zero byte. */
static const char *scalar(const yaml_node_t *node)
{
    if (node->type != YAML_SCALAR_NODE) return NULL;
    const char *text = (const char *)node->data.scalar.value;
    return strlen(text) == node->data.scalar.length ? text : NULL;
}

static kac_status keep_value(reader *r, const char *name, const yaml_node_t *node,
                             const char *text)
{
    if (kac_key_assign(&r->settings, name, text) != KAC_OK) {
        mistake(r, node->start_mark, "%s", kac_last_error());
        return KAC_OK;
    }
    char place[KAC_PLACE];
    (void)snprintf(place, sizeof place, "%.*s:%zu", KAC_PATH, r->path,
                   node->start_mark.line + 1);
    return kac_config_keep(r->config, name, text, place);
}

/* A list of words, as the JSON that kac_command_words reads. */
static kac_status read_list(reader *r, const char *name, const yaml_node_t *node)
{
    json_t *words = json_array();
    const yaml_node_item_t *item = node->data.sequence.items.start;
    for (; item < node->data.sequence.items.top; item++) {
        const yaml_node_t *word = yaml_document_get_node(r->document, *item);
        const char *text = scalar(word);
        if (text == NULL || json_array_append_new(words, json_string(text)) != 0) {
            mistake(r, word->start_mark, "%s: expected words, found %s", name,
                    text == NULL && word->type == YAML_SCALAR_NODE ? "a zero byte"
                    : text == NULL                                 ? kind_of(word)
                                                                   : "text that is not UTF-8");
            json_decref(words);
            return KAC_OK;
        }
    }
    char *text = json_array_size(words) > 0 ? json_dumps(words, JSON_COMPACT) : strdup("");
    json_decref(words);
    if (text == NULL) return kac_config_no_memory();
    kac_status status = keep_value(r, name, node, text);
    free(text);
    return status;
}

/* One key with its value. */
static kac_status read_value(reader *r, const char *name, const yaml_node_t *node)
{
    const char *text = scalar(node);
    int number = -1;
    if (node->type == YAML_SEQUENCE_NODE && kac_keys_find(name, &number)->type == KAC_KEY_LIST)
        return read_list(r, name, node);
    if (text == NULL) {
        char expected[512];
        int index = -1;
        kac_key_expected(kac_keys_find(name, &index), expected, sizeof expected);
        mistake(r, node->start_mark, "%s: expected %s, found %s", name, expected,
                node->type == YAML_SCALAR_NODE ? "a zero byte" : kind_of(node));
        return KAC_OK;
    }
    return keep_value(r, name, node, text);
}

static kac_status read_mapping(reader *r, const char *section, const yaml_node_t *node);

static kac_status read_rewards(reader *r, const yaml_node_t *node)
{
    if (node->type != YAML_SEQUENCE_NODE) {
        mistake(r, node->start_mark, "reward: expected a list of rewards, found %s",
                kind_of(node));
        return KAC_OK;
    }
    kac_config_drop_rewards(r->config);
    r->settings.rewards = 0;
    const yaml_node_item_t *item = node->data.sequence.items.start;
    for (int i = 0; item < node->data.sequence.items.top; i++, item++) {
        const yaml_node_t *reward = yaml_document_get_node(r->document, *item);
        char name[KAC_NAME];
        snprintf(name, sizeof name, "reward.%d", i);
        if (i >= KAC_MAX_TERMS) {
            mistake(r, reward->start_mark, "reward: at most %d rewards", (int)KAC_MAX_TERMS);
            return KAC_OK;
        }
        if (reward->type == YAML_MAPPING_NODE &&
            reward->data.mapping.pairs.start == reward->data.mapping.pairs.top)
            mistake(r, reward->start_mark, "%s: the mapping is empty", name);
        KAC_TRY(read_mapping(r, name, reward));
        r->settings.rewards = i + 1; /* a wrong one counts too, or the next would complain */
    }
    return KAC_OK;
}

/* A key of a mapping and what it leads to. */
static kac_status read_pair(reader *r, const char *name, const yaml_node_t *key,
                            const yaml_node_t *value)
{
    int index = -1;
    if (strcmp(name, "reward") == 0) return read_rewards(r, value);
    if (kac_keys_is_section(name)) return read_mapping(r, name, value);
    if (kac_keys_find(name, &index) != NULL) return read_value(r, name, value);
    if (kac_key_assign(&r->settings, name, "") != KAC_OK)
        mistake(r, key->start_mark, "%s", kac_last_error());
    return KAC_OK;
}

/* Whether a pair is not one, but what a comma has cut off the value before it: {alpha: 0,2} is
 * alpha 0 and a key 2 without a value. */
static bool is_cut_off(const yaml_node_t *mapping, const char *name, const yaml_node_t *value)
{
    char near[KAC_NAME];
    int index = -1;
    return mapping->data.mapping.style == YAML_FLOW_MAPPING_STYLE &&
           value->type == YAML_SCALAR_NODE && value->data.scalar.length == 0 &&
           value->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           kac_keys_find(name, &index) == NULL && !kac_keys_is_section(name) &&
           !kac_keys_similar(name, near, sizeof near);
}

/* Says so; `before` is the value that the comma has ended, or NULL. */
static void cut_mistake(reader *r, const char *name, const yaml_node_t *key, const char *before)
{
    static const char digits[] = "0123456789";
    const char *text = scalar(key);
    if (before != NULL && before[0] != '\0' && before[strspn(before, digits)] == '\0' &&
        text[0] != '\0' && text[strspn(text, digits)] == '\0')
        mistake(r, key->start_mark, "%s: no such key; a decimal has a point: %s.%s", name,
                before, text);
    else
        mistake(r, key->start_mark,
                "%s: no such key; within { } a value with commas needs quotes", name);
}

/* Recursion ends because the names of sections do; `section` is "" at the top. */
static kac_status read_mapping(reader *r, const char *section, const yaml_node_t *node)
{
    const char *point = section[0] != '\0' ? "." : "";
    if (node->type != YAML_MAPPING_NODE) {
        mistake(r, node->start_mark, "%s%sexpected a mapping of keys to values, found %s",
                section, section[0] != '\0' ? ": " : "", kind_of(node));
        return KAC_OK;
    }
    const yaml_node_pair_t *first = node->data.mapping.pairs.start;
    for (const yaml_node_pair_t *pair = first; pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = yaml_document_get_node(r->document, pair->key);
        const char *text = scalar(key);
        char name[4 * KAC_NAME];
        if (text == NULL || strchr(text, '.') != NULL) {
            mistake(r, key->start_mark, "%s%s%s", section, section[0] != '\0' ? ": " : "",
                    "a key is a word without a point");
            continue;
        }
        snprintf(name, sizeof name, "%s%s%s", section, point, text);
        bool twice = false;
        for (const yaml_node_pair_t *other = first; other < pair && !twice; other++) {
            const char *before = scalar(yaml_document_get_node(r->document, other->key));
            twice = before != NULL && strcmp(before, text) == 0;
        }
        const yaml_node_t *value = yaml_document_get_node(r->document, pair->value);
        if (twice)
            mistake(r, key->start_mark, "%s: given twice", name);
        else if (pair > first && is_cut_off(node, name, value))
            cut_mistake(r, name, key,
                        scalar(yaml_document_get_node(r->document, pair[-1].value)));
        else
            KAC_TRY(read_pair(r, name, key, value));
    }
    return KAC_OK;
}

/* Line `number` of the file, from 0; *length is 0 where there is none. */
static const char *line_at(const reader *r, size_t number, size_t *length)
{
    const char *line = r->bytes, *end = r->bytes + r->size;
    for (; number > 0 && line < end; number--) {
        const char *next = memchr(line, '\n', (size_t)(end - line));
        line = next != NULL ? next + 1 : end;
    }
    *length = (size_t)(end - line);
    const char *newline = memchr(line, '\n', *length);
    if (newline != NULL) *length = (size_t)(newline - line);
    return line;
}

/* Whether a tab is among the blanks that a line begins with. */
static bool begins_with_tab(const char *line, size_t length)
{
    size_t at = 0;
    while (at < length && line[at] == ' ')
        at++;
    return at < length && line[at] == '\t';
}

/* What libyaml has to say of a file that is not YAML, or what it comes from where that is known. */
static kac_status syntax_mistake(reader *r, const yaml_parser_t *parser)
{
    if (parser->error == YAML_MEMORY_ERROR) return kac_config_no_memory();
    yaml_mark_t mark = parser->error == YAML_READER_ERROR ? parser->mark : parser->problem_mark;
    size_t length = 0;
    const char *line = line_at(r, mark.line, &length);
    if (begins_with_tab(line, length)) {
        mistake(r, mark, "not YAML: a tab begins the line; want blanks for indenting");
        return KAC_OK;
    }
    mistake(r, mark, "not YAML: %s%s%s%s",
            parser->problem != NULL ? parser->problem : "malformed",
            parser->context != NULL ? ", " : "", parser->context != NULL ? parser->context : "",
            memchr(line, '?', length) != NULL ? "; text with ? needs quotes" : "");
    return KAC_OK;
}

/* Reads the one document that a file may hold. */
static kac_status read_document(reader *r, yaml_parser_t *parser)
{
    yaml_document_t document;
    if (!yaml_parser_load(parser, &document)) return syntax_mistake(r, parser);
    r->document = &document;
    const yaml_node_t *root = yaml_document_get_root_node(&document);
    kac_status status = KAC_OK;
    if (root == NULL)
        mistake(r, (yaml_mark_t){0, 0, 0}, "the file is empty");
    else
        status = read_mapping(r, "", root);
    yaml_document_delete(&document);
    if (status != KAC_OK || root == NULL) return status;

    if (!yaml_parser_load(parser, &document)) return syntax_mistake(r, parser);
    root = yaml_document_get_root_node(&document);
    if (root != NULL) mistake(r, root->start_mark, "a second document; a file holds one");
    yaml_document_delete(&document);
    return KAC_OK;
}

/* Fills r->config, or says all that is wrong. */
static kac_status read_bytes(reader *r, const void *bytes, size_t size)
{
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser)) return kac_config_no_memory();
    yaml_parser_set_input_string(&parser, bytes, size);
    kac_status status = read_document(r, &parser);
    yaml_parser_delete(&parser);
    KAC_TRY(status);
    if (r->omitted > 0)
        return KAC_FAIL(KAC_ERR_INVALID, "%s\n%s: and %d mistakes more", r->text, r->path,
                        r->omitted);
    if (r->mistakes > 0) return KAC_FAIL(KAC_ERR_INVALID, "%s", r->text);
    return KAC_OK;
}

kac_status kac_config_parse(kac_config *config, const char *path, const void *bytes,
                            size_t size)
{
    KAC_REQUIRE(config != NULL && path != NULL && (bytes != NULL || size == 0));
    kac_status status = KAC_OK;
    if (size > FILE_MOST)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: more than %d bytes are no configuration", path,
                        (int)FILE_MOST);
    reader *r = calloc(1, sizeof *r);
    if (r == NULL) return kac_config_no_memory();
    r->path = path;
    r->bytes = bytes;
    r->size = size;
    KAC_TRY_DONE(kac_config_clone(config, &r->config));
    KAC_TRY_DONE(kac_config_resolve(config, &r->settings));
    KAC_TRY_DONE(read_bytes(r, bytes, size));
    kac_config before = *config;
    *config = *r->config;
    *r->config = before;
done:
    kac_config_destroy(r->config);
    free(r);
    return status;
}

kac_status kac_config_read(kac_config *config, const char *path)
{
    KAC_REQUIRE(config != NULL && path != NULL);
    FILE *stream = fopen(path, "rbe");
    if (stream == NULL)
        return KAC_FAIL(kac_path_status(errno), "%s: cannot open: %s", path, strerror(errno));
    char *bytes = malloc(FILE_MOST + 1);
    size_t size = bytes != NULL ? fread(bytes, 1, FILE_MOST + 1, stream) : 0;
    kac_status status = KAC_OK;
    if (bytes == NULL)
        status = kac_config_no_memory();
    else if (ferror(stream))
        status = KAC_FAIL(kac_path_status(errno), "%s: cannot read: %s", path, strerror(errno));
    fclose(stream);
    if (status == KAC_OK) status = kac_config_parse(config, path, bytes, size);
    free(bytes);
    return status;
}
