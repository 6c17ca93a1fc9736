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
    GROUP_TEXT_SIZE = sizeof " service-time 0 1024 1",
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

static bool is_dev(dev_t dev)
{
    return major(dev) <= MAJOR_MAX && minor(dev) <= MINOR_MAX;
}

static bool can_build(const struct mp_table_path *paths, size_t count)
{
    if (count == 0 || count > MP_TABLE_PATHS_MAX || paths[0].group != 1)
        return false;
    for (size_t i = 0; i < count; i++)
        if (!is_dev(paths[i].dev) || (i > 0 && paths[i].group != paths[i - 1].group &&
                                      paths[i].group != paths[i - 1].group + 1))
            return false;
    return true;
}

static size_t group_size(const struct mp_table_path *paths, size_t count, uint32_t group)
{
    size_t size = 0;

    for (size_t i = 0; i < count; i++)
        size += paths[i].group == group;
    return size;
}

int mp_table_build(const struct mp_table_path *paths, size_t count, const char *handler,
                   char **ret_params)
{
    if (!can_build(paths, count) || !is_handler(handler))
        return -EINVAL;
    uint32_t groups = paths[count - 1].group;
    size_t size = FRAME_TEXT_SIZE + groups * GROUP_TEXT_SIZE + count * PATH_TEXT_SIZE;
    char *text = malloc(size);

    if (text == NULL)
        return -ENOMEM;
    /* no features, handler, groups, starting with the first */
    size_t used =
        (size_t)snprintf(text, size, "0 %s%s %u 1", handler[0] ? "1 " : "0", handler, groups);

    for (size_t i = 0; i < count; i++) {
        if (i == 0 || paths[i].group != paths[i - 1].group) /* one selector argument per path */
            used += (size_t)snprintf(text + used, size - used, " service-time 0 %zu 1",
                                     group_size(paths, count, paths[i].group));
        used += (size_t)snprintf(text + used, size - used, " %u:%u 1", major(paths[i].dev),
                                 minor(paths[i].dev));
    }
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
    parser->table.group_count = (uint32_t)group_count;
    parser->table.group = (uint32_t)current;
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

/* ---- rewriting ---- */

/* Words with a blank between them. What is written comes from the table in its order, with leading
 * zeros dropped and paths left out or one added, which says how long it can become. */
struct writer {
    char *text;
    size_t used, size;
};

static bool put_word(struct writer *writer, const char *word, size_t length)
{
    size_t blank = writer->used > 0;

    if (length >= writer->size - writer->used - blank)
        return false;
    if (blank)
        writer->text[writer->used++] = ' ';
    memcpy(writer->text + writer->used, word, length);
    writer->used += length;
    writer->text[writer->used] = '\0';
    return true;
}

static bool put_number(struct writer *writer, uint64_t number)
{
    char text[24];
    int length = snprintf(text, sizeof text, "%llu", (unsigned long long)number);

    return put_word(writer, text, (size_t)length);
}

static bool put_dev(struct writer *writer, dev_t dev)
{
    char word[PATH_TEXT_SIZE];
    int length = snprintf(word, sizeof word, "%u:%u", major(dev), minor(dev));

    return put_word(writer, word, (size_t)length);
}

static bool copy_words(struct parser *parser, uint64_t count, struct writer *writer)
{
    for (uint64_t i = 0; i < count; i++) {
        const char *word;
        size_t length = next_word(parser, &word);

        if (length == 0 || !put_word(writer, word, length))
            return false;
    }
    return true;
}

static bool copy_counted_words(struct parser *parser, uint64_t max, struct writer *writer)
{
    uint64_t count;

    return next_number(parser, max, &count) && put_number(writer, count) &&
           copy_words(parser, count, writer);
}

struct left_out {
    const dev_t *paths;
    size_t count;
};

static bool is_left_out(const struct left_out *out, dev_t dev)
{
    for (size_t i = 0; i < out->count; i++)
        if (out->paths[i] == dev)
            return true;
    return false;
}

/* The paths of one group; the parser is behind their two counts. *ret_kept: how many stay. Without
 * `writer` they are only counted. */
static bool copy_kept(struct parser *parser, const struct left_out *out, uint64_t path_count,
                      uint64_t argument_count, struct writer *writer, uint64_t *ret_kept)
{
    uint64_t kept = 0;

    for (uint64_t i = 0; i < path_count; i++) {
        const char *start;
        dev_t dev;

        if (!parse_dev(parser, &dev))
            return false;
        start = parser->at;
        if (!skip_words(parser, argument_count))
            return false;
        if (is_left_out(out, dev))
            continue;
        kept++;
        if (writer == NULL)
            continue;
        parser->at = start;
        if (!put_dev(writer, dev) || !copy_words(parser, argument_count, writer))
            return false;
    }
    *ret_kept = kept;
    return true;
}

/* One group, or nothing if none of its paths stays. */
static bool copy_group(struct parser *parser, const struct left_out *out, struct writer *writer,
                       bool *ret_kept)
{
    uint64_t path_count, argument_count, kept;
    size_t before = writer->used;

    if (!copy_words(parser, 1, writer) || !copy_counted_words(parser, WORDS_MAX, writer) ||
        !next_number(parser, MP_TABLE_PATHS_MAX, &path_count) || path_count == 0 ||
        !next_number(parser, WORDS_MAX, &argument_count))
        return false;
    const char *start = parser->at;

    if (!copy_kept(parser, out, path_count, argument_count, NULL, &kept))
        return false;
    *ret_kept = kept > 0;
    if (kept == 0) {
        writer->used = before;
        writer->text[before] = '\0';
        return true;
    }
    parser->at = start;
    return put_number(writer, kept) && put_number(writer, argument_count) &&
           copy_kept(parser, out, path_count, argument_count, writer, &kept);
}

/* <#groups> <first group> group..., with the numbers of what is left; 0 groups: nothing was. */
static bool copy_groups(struct parser *parser, const struct left_out *out, struct writer *head,
                        struct writer *groups, uint64_t *ret_left)
{
    uint64_t group_count, first, left = 0, new_first = 1;
    const char *word;

    if (!next_number(parser, WORDS_MAX, &group_count) || !next_number(parser, group_count, &first))
        return false;
    for (uint64_t i = 1; i <= group_count; i++) {
        bool kept = false;

        if (!copy_group(parser, out, groups, &kept))
            return false;
        left += kept;
        if (kept && i == first)
            new_first = left;
    }
    *ret_left = left;
    return next_word(parser, &word) == 0 && put_number(head, left) && put_number(head, new_first);
}

int mp_table_without(const char *params, const dev_t *paths, size_t count, char **ret_params)
{
    struct left_out out = {.paths = paths, .count = count};
    struct parser parser = {.at = params};
    size_t size = strlen(params) + FRAME_TEXT_SIZE;
    struct writer head = {.text = malloc(2 * size), .size = 2 * size};
    struct writer groups = {.text = malloc(size), .size = size};
    uint64_t left = 0;
    int result = -ENOMEM;

    if (head.text != NULL && groups.text != NULL) {
        head.text[0] = groups.text[0] = '\0';
        bool copied = copy_counted_words(&parser, FEATURES_MAX, &head) &&
                      copy_counted_words(&parser, WORDS_MAX, &head) &&
                      copy_groups(&parser, &out, &head, &groups, &left) &&
                      (left == 0 || put_word(&head, groups.text, groups.used));

        result = !copied ? -EPROTO : left == 0 ? -ENOENT : 0;
    }
    free(groups.text);
    if (result < 0) {
        free(head.text);
        return result;
    }
    *ret_params = head.text;
    return 0;
}

struct addition {
    dev_t path;
    uint64_t group;
    bool own_group;
};

static bool put_own_group(struct writer *writer, dev_t path)
{
    static const char selector[] = "service-time 0 1 1";

    return put_word(writer, selector, sizeof selector - 1) && put_dev(writer, path) &&
           put_word(writer, "1", 1);
}

/* One group as it is, and with `more` its last path once more under that number. */
static bool copy_group_with(struct parser *parser, const dev_t *more, struct writer *writer)
{
    uint64_t path_count, argument_count;
    const char *arguments = parser->at;

    if (!copy_words(parser, 1, writer) || !copy_counted_words(parser, WORDS_MAX, writer) ||
        !next_number(parser, MP_TABLE_PATHS_MAX, &path_count) || path_count == 0 ||
        !next_number(parser, WORDS_MAX, &argument_count) ||
        !put_number(writer, path_count + (more != NULL)) || !put_number(writer, argument_count))
        return false;
    for (uint64_t i = 0; i < path_count; i++) {
        dev_t dev;

        if (!parse_dev(parser, &dev) || !put_dev(writer, dev))
            return false;
        arguments = parser->at;
        if (!copy_words(parser, argument_count, writer))
            return false;
    }
    if (more == NULL)
        return true;
    parser->at = arguments;
    return put_dev(writer, *more) && copy_words(parser, argument_count, writer);
}

static uint64_t first_with(uint64_t group_count, uint64_t first, const struct addition *new)
{
    if (group_count == 0)
        return 1;
    return first + (new->own_group && first > 1 && first >= new->group);
}

/* <#groups> <first group> group... */
static bool copy_groups_with(struct parser *parser, const struct addition *new,
                             struct writer *writer)
{
    uint64_t group_count, first;
    const char *word;

    if (!next_number(parser, WORDS_MAX, &group_count) ||
        !next_number(parser, group_count, &first) || new->group == 0 ||
        new->group > group_count + new->own_group || group_count + new->own_group > WORDS_MAX)
        return false;
    if (!put_number(writer, group_count + new->own_group) ||
        !put_number(writer, first_with(group_count, first, new)))
        return false;
    for (uint64_t i = 1; i <= group_count; i++) {
        bool here = new->group == i;

        if (here && new->own_group && !put_own_group(writer, new->path))
            return false;
        if (!copy_group_with(parser, here && !new->own_group ? &new->path : NULL, writer))
            return false;
    }
    if (new->group > group_count && !put_own_group(writer, new->path))
        return false;
    return next_word(parser, &word) == 0;
}

int mp_table_with(const char *params, dev_t path, uint32_t group, bool own_group, char **ret_params)
{
    struct addition new = {.path = path, .group = group, .own_group = own_group};
    struct parser parser = {.at = params};
    struct mp_table table;

    if (!is_dev(path))
        return -EINVAL;
    int result = mp_table_parse(params, &table);

    if (result < 0)
        return result;
    bool full = table.path_count >= MP_TABLE_PATHS_MAX;

    mp_table_free(&table);
    if (full)
        return -EINVAL;
    /* a path's arguments are at most all of the line */
    size_t size = 2 * strlen(params) + FRAME_TEXT_SIZE;
    struct writer writer = {.text = malloc(size), .size = size};

    if (writer.text == NULL)
        return -ENOMEM;
    writer.text[0] = '\0';
    if (!copy_counted_words(&parser, FEATURES_MAX, &writer) ||
        !copy_counted_words(&parser, WORDS_MAX, &writer) ||
        !copy_groups_with(&parser, &new, &writer)) {
        free(writer.text);
        return -EPROTO;
    }
    *ret_params = writer.text;
    return 0;
}

void mp_table_free(struct mp_table *table)
{
    free(table->paths);
    memset(table, 0, sizeof *table);
}
