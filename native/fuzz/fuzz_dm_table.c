/* SPDX-License-Identifier: Apache-2.0 */
/* A table or status line; and device numbers through build and parse. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "../src/dm_table.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_parsed(int r, struct mp_table *table)
{
    if (r < 0) {
        assert(r == -EPROTO && table->path_count == 4711);
        return;
    }
    assert(table->path_count <= MP_TABLE_PATHS_MAX);
    assert((table->path_count == 0) == (table->paths == NULL));
    assert(memchr(table->handler, '\0', sizeof(table->handler)) != NULL);
    for (size_t i = 0; i < table->path_count; i++) {
        assert(table->paths[i].group >= 1 && table->paths[i].group <= 1024);
        assert(i == 0 || table->paths[i].group - table->paths[i - 1].group <= 1);
        assert(major(table->paths[i].dev) <= 4095 && minor(table->paths[i].dev) <= 1048575);
    }
    mp_table_free(table);
}

/* Without a path of it, what is a table stays one, with the others in their order. */
static void check_without(const char *text)
{
    struct mp_table before = {0}, after = {0};
    char *params = NULL;
    size_t left = 0;

    if (mp_table_parse(text, &before) < 0) {
        mp_table_without(text, NULL, 0, &params);
        free(params);
        return;
    }
    dev_t dev = before.path_count > 0 ? before.paths[before.path_count / 2].dev : 0;
    int r = mp_table_without(text, &dev, 1, &params);

    for (size_t i = 0; i < before.path_count; i++)
        left += before.paths[i].dev != dev;
    assert(r == (left > 0 ? 0 : -ENOENT));
    if (r == 0) {
        assert(mp_table_parse(params, &after) == 0);
        assert(after.path_count == left && strcmp(after.handler, before.handler) == 0);
        assert(after.queue_if_no_path == before.queue_if_no_path);
        for (size_t i = 0, k = 0; i < before.path_count; i++)
            if (before.paths[i].dev != dev)
                assert(after.paths[k++].dev == before.paths[i].dev);
        mp_table_free(&after);
        free(params);
    }
    mp_table_free(&before);
}

/* With a path more, what is a table stays one, with the others in their order. */
static void check_with(const char *text, uint32_t group, bool own_group)
{
    struct mp_table before = {0}, after = {0};
    dev_t dev = makedev(8, 160);
    char *params = NULL;
    int r = mp_table_with(text, dev, group, own_group, &params);

    if (r < 0) {
        assert((r == -EPROTO || r == -EINVAL) && params == NULL);
        return;
    }
    assert(mp_table_parse(text, &before) == 0 && mp_table_parse(params, &after) == 0);
    assert(after.path_count == before.path_count + 1);
    assert(after.group_count == before.group_count + own_group);
    assert(after.queue_if_no_path == before.queue_if_no_path);
    bool seen = false;

    for (size_t i = 0; i < after.path_count; i++)
        if (!seen && after.paths[i].group == group && after.paths[i].dev == dev &&
            (i == before.path_count || before.paths[i].dev != dev || own_group))
            seen = true;
        else
            assert(after.paths[i].dev == before.paths[i - seen].dev);
    mp_table_free(&before);
    mp_table_free(&after);
    free(params);
}

static void parse(const uint8_t *data, size_t size)
{
    struct mp_table table = {.path_count = 4711};
    char *text = malloc(size + 1);

    memcpy(text, data, size);
    text[size] = '\0';
    check_parsed(mp_table_parse(text, &table), &table);
    table = (struct mp_table){.path_count = 4711};
    check_parsed(mp_table_parse_status(text, &table), &table);
    check_without(text);
    for (uint32_t group = 0; group <= 3; group++) {
        check_with(text, group, false);
        check_with(text, group, true);
    }
    free(text);
}

/* What was built parses to what it was built from. */
static void round_trip(const uint8_t *data, size_t size)
{
    static struct mp_table_path paths[MP_TABLE_PATHS_MAX + 1];
    struct mp_table table;
    char handler[18] = "";
    char *params = NULL;
    size_t count = 0;

    if (size > 0) {
        size_t length = data[0] % sizeof(handler);

        length = length < size - 1 ? length : size - 1;
        memcpy(handler, data + 1, length);
        data += 1 + length;
        size -= 1 + length;
    }
    for (; size >= 5 && count <= MP_TABLE_PATHS_MAX; data += 5, size -= 5, count++)
        paths[count] = (struct mp_table_path){
            .dev = makedev(data[0] | (data[1] & 0x1fu) << 8,
                           data[2] | (unsigned)data[3] << 8 | (data[4] & 0x1fu) << 16),
            .group = (count == 0 ? 1 : paths[count - 1].group) + (count > 0 && data[4] & 0x80),
        };
    if (mp_table_build(paths, count, handler, &params) < 0) {
        assert(params == NULL);
        return;
    }
    assert(mp_table_parse(params, &table) == 0);
    assert(table.path_count == count && strcmp(table.handler, handler) == 0);
    assert(!table.queue_if_no_path);
    for (size_t i = 0; i < count; i++)
        assert(table.paths[i].dev == paths[i].dev && table.paths[i].group == paths[i].group);
    mp_table_free(&table);
    free(params);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    parse(data, size);
    round_trip(data, size);
    return 0;
}
