/* SPDX-License-Identifier: Apache-2.0 */
#include "dm_table.h"

#include "text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

enum {
    PATH_TEXT_SIZE = sizeof "4095:1048575 1 ",
    FRAME_TEXT_SIZE = 96,
    WORDS_MAX = 1024,  /* kernel drivers/md/dm-mpath.c: the limit of every count but #features' */
    FEATURES_MAX = 64, /* 8 in Linux 6.12; newer kernels may know more */
    MAJOR_MAX = 0xfff, /* kernel include/linux/kdev_t.h */
    MINOR_MAX = 0xfffff,
};

static bool is_handler(const char *handler)
{
    size_t size = sizeof((struct mp_table *)0)->handler;
    size_t length = strnlen(handler, size);

    return length < size && strspn(handler, "abcdefghijklmnopqrstuvwxyz0123456789_") == length;
}

int mp_table_build(const dev_t *paths, size_t count, const char *handler, char **ret_params)
{
    if (count == 0 || count > MP_TABLE_PATHS_MAX || !is_handler(handler))
        return -EINVAL;
    for (size_t i = 0; i < count; i++)
        if (major(paths[i]) > MAJOR_MAX || minor(paths[i]) > MINOR_MAX)
            return -EINVAL;
    size_t size = FRAME_TEXT_SIZE + count * PATH_TEXT_SIZE;
    char *text = malloc(size);

    if (text == NULL)
        return -ENOMEM;
    /* no features, handler, one group, starting with group 1; one selector argument per path */
    size_t used = (size_t)snprintf(text, size, "0 %s%s 1 1 service-time 0 %zu 1",
                                   handler[0] ? "1 " : "0", handler, count);

    for (size_t i = 0; i < count; i++)
        used += (size_t)snprintf(text + used, size - used, " %u:%u 1", major(paths[i]),
                                 minor(paths[i]));
    *ret_params = text;
    return 0;
}

/* ---- parsing ---- */

struct parser {
    const char *at;
    int error; /* if parsing fails */
    struct mp_table table;
    size_t capacity;
};

static bool is_blank(char byte)
{
    return byte == ' ' || byte == '\t' || byte == '\n';
}

/* The next word; 0 at the end. It is not terminated. */
static size_t next_word(struct parser *parser, const char **ret_word)
{
    while (is_blank(*parser->at))
        parser->at++;
    const char *word = parser->at;

    while (*parser->at != '\0' && !is_blank(*parser->at))
        parser->at++;
    *ret_word = word;
    return (size_t)(parser->at - word);
}

static bool word_is(const char *word, size_t length, const char *text)
{
    return length == strlen(text) && memcmp(word, text, length) == 0;
}

static bool next_number(struct parser *parser, uint64_t max, uint64_t *ret_number)
{
    const char *word;
    size_t length = next_word(parser, &word);

    return length > 0 && mp_take_u64(&word, max, ret_number) && word == parser->at;
}

static bool skip_words(struct parser *parser, uint64_t count)
{
    const char *word;

    for (uint64_t i = 0; i < count; i++)
        if (next_word(parser, &word) == 0)
            return false;
    return true;
}

static bool skip_counted_words(struct parser *parser)
{
    uint64_t count;

    return next_number(parser, WORDS_MAX, &count) && skip_words(parser, count);
}

static bool parse_features(struct parser *parser)
{
    uint64_t count;

    if (!next_number(parser, FEATURES_MAX, &count))
        return false;
    for (uint64_t i = 0; i < count; i++) {
        const char *word;
        size_t length = next_word(parser, &word);

        if (length == 0)
            return false;
        if (word_is(word, length, "queue_if_no_path"))
            parser->table.queue_if_no_path = true;
    }
    return true;
}

static bool parse_handler(struct parser *parser)
{
    uint64_t count;
    const char *word;

    if (!next_number(parser, WORDS_MAX, &count))
        return false;
    if (count == 0)
        return true;
    size_t length = next_word(parser, &word);

    if (length == 0 || length >= sizeof parser->table.handler)
        return false;
    memcpy(parser->table.handler, word, length);
    return skip_words(parser, count - 1);
}

static bool parse_dev(struct parser *parser, dev_t *ret_dev)
{
    const char *word;
    uint64_t major_number, minor_number;

    if (next_word(parser, &word) == 0 || !mp_take_u64(&word, MAJOR_MAX, &major_number) ||
        *word != ':')
        return false;
    word++;
    if (!mp_take_u64(&word, MINOR_MAX, &minor_number) || word != parser->at)
        return false;
    *ret_dev = makedev((unsigned)major_number, (unsigned)minor_number);
    return true;
}

static bool parse_path_state(struct parser *parser, struct mp_table_path *path)
{
    const char *word;
    size_t length = next_word(parser, &word);
    uint64_t fail_count;

    if (length != 1 || (*word != 'A' && *word != 'F') ||
        !next_number(parser, UINT32_MAX, &fail_count))
        return false;
    path->active = *word == 'A';
    path->fail_count = (uint32_t)fail_count;
    return true;
}

/* NULL: too many, or no memory (parser->error). */
static struct mp_table_path *new_path(struct parser *parser)
{
    struct mp_table *table = &parser->table;

    if (table->path_count >= MP_TABLE_PATHS_MAX)
        return NULL;
    if (table->path_count == parser->capacity) {
        size_t capacity = parser->capacity == 0 ? 16 : parser->capacity * 2;
        struct mp_table_path *larger = reallocarray(table->paths, capacity, sizeof *larger);

        if (larger == NULL) {
            parser->error = -ENOMEM;
            return NULL;
        }
        table->paths = larger;
        parser->capacity = capacity;
    }
    struct mp_table_path *path = &table->paths[table->path_count++];

    memset(path, 0, sizeof *path);
    return path;
}

/* <#paths> <#arguments> { <M:m> [<A|F> <fail count>] [argument]... }... */
static bool parse_paths(struct parser *parser, uint32_t group, bool status)
{
    uint64_t path_count, argument_count;

    if (!next_number(parser, MP_TABLE_PATHS_MAX, &path_count) || path_count == 0 ||
        !next_number(parser, WORDS_MAX, &argument_count))
        return false;
    for (uint64_t i = 0; i < path_count; i++) {
        struct mp_table_path *path = new_path(parser);

        if (path == NULL || !parse_dev(parser, &path->dev))
            return false;
        path->group = group;
        if (status && !parse_path_state(parser, path))
            return false;
        if (!skip_words(parser, argument_count))
            return false;
    }
    return true;
}

/* Table: <selector> <#args> [arg]...; status: <A|E|D> <#info> [info]... */
static bool parse_selector(struct parser *parser, bool status)
{
    const char *word;
    size_t length = next_word(parser, &word);

    if (length == 0)
        return false;
    if (status && (length != 1 || (*word != 'A' && *word != 'E' && *word != 'D')))
        return false;
    return skip_counted_words(parser);
}

/* <#groups> <first or current group> group... and nothing behind */
static bool parse_groups(struct parser *parser, bool status)
{
    uint64_t group_count, current;
    const char *word;

    if (!next_number(parser, WORDS_MAX, &group_count) ||
        !next_number(parser, group_count, &current))
        return false;
    for (uint64_t i = 0; i < group_count; i++)
        if (!parse_selector(parser, status) || !parse_paths(parser, (uint32_t)(i + 1), status))
            return false;
    return next_word(parser, &word) == 0;
}

static int finish(struct parser *parser, bool parsed, struct mp_table *ret_table)
{
    if (!parsed) {
        mp_table_free(&parser->table);
        return parser->error;
    }
    *ret_table = parser->table;
    return 0;
}

int mp_table_parse(const char *params, struct mp_table *ret_table)
{
    struct parser parser = {.at = params, .error = -EPROTO};

    return finish(&parser,
                  parse_features(&parser) && parse_handler(&parser) && parse_groups(&parser, false),
                  ret_table);
}

int mp_table_parse_status(const char *params, struct mp_table *ret_table)
{
    struct parser parser = {.at = params, .error = -EPROTO};

    /* "2 <queue_io> <pg_init_count> 0": counted words twice, the handler's are always none */
    return finish(&parser,
                  skip_counted_words(&parser) && skip_counted_words(&parser) &&
                      parse_groups(&parser, true),
                  ret_table);
}

void mp_table_free(struct mp_table *table)
{
    free(table->paths);
    memset(table, 0, sizeof *table);
}
