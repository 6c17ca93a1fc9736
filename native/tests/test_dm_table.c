/* SPDX-License-Identifier: Apache-2.0 */
#include "../src/dm_table.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/sysmacros.h>

#include "test.h"

static struct mp_table table;

static const char *built_of(const struct mp_table_path *paths, size_t count, const char *handler)
{
    static char copy[256];
    char *params = NULL;

    if (mp_table_build(paths, count, handler, &params) != 0)
        return params == NULL ? "refused" : "touched";
    snprintf(copy, sizeof copy, "%s", params);
    free(params);
    return copy;
}

/* One group. */
static const char *built(const dev_t *devs, size_t count, const char *handler)
{
    static struct mp_table_path paths[MP_TABLE_PATHS_MAX + 1];

    for (size_t i = 0; i < count; i++)
        paths[i] = (struct mp_table_path){.dev = devs[i], .group = 1};
    return built_of(paths, count, handler);
}

TEST(build)
{
    dev_t paths[] = {makedev(8, 16), makedev(65, 160), makedev(259, 1048575)};

    CHECK_STR(built(paths, 1, ""), "0 0 1 1 service-time 0 1 1 8:16 1");
    CHECK_STR(built(paths, 2, "alua"), "0 1 alua 1 1 service-time 0 2 1 8:16 1 65:160 1");
    CHECK_STR(built(paths, 3, "hp_sw"),
              "0 1 hp_sw 1 1 service-time 0 3 1 8:16 1 65:160 1 259:1048575 1");
}

TEST(build_groups)
{
    struct mp_table_path paths[] = {
        {.dev = makedev(8, 0), .group = 1},
        {.dev = makedev(8, 16), .group = 1},
        {.dev = makedev(8, 32), .group = 2},
        {.dev = makedev(8, 48), .group = 3},
    };

    CHECK_STR(built_of(paths, 4, "alua"),
              "0 1 alua 3 1 service-time 0 2 1 8:0 1 8:16 1 service-time 0 1 1 8:32 1 "
              "service-time 0 1 1 8:48 1");
    CHECK_STR(built_of(paths + 2, 2, ""), "refused"); /* does not begin with 1 */
    paths[3].group = 4;
    CHECK_STR(built_of(paths, 4, ""), "refused"); /* a gap */
    paths[3].group = 1;
    CHECK_STR(built_of(paths, 4, ""), "refused"); /* goes back */
    paths[0].group = 0;
    CHECK_STR(built_of(paths, 1, ""), "refused");
}

static const char *longer(const char *params, uint32_t group, bool own_group)
{
    static char copy[256];
    char *made = NULL;
    int r = mp_table_with(params, makedev(8, 160), group, own_group, &made);

    if (r != 0)
        return made != NULL ? "touched" : r == -EPROTO ? "EPROTO" : "EINVAL";
    snprintf(copy, sizeof copy, "%s", made);
    free(made);
    return copy;
}

TEST(with)
{
    static const char two[] = "2 pg_init_retries 50 1 alua 2 2 queue-length 0 1 2 8:0 1 7 "
                              "service-time 0 2 1 8:16 1 8:32 3 ";

    CHECK_STR(longer(two, 1, false), "2 pg_init_retries 50 1 alua 2 2 queue-length 0 2 2 8:0 1 7 "
                                     "8:160 1 7 service-time 0 2 1 8:16 1 8:32 3");
    CHECK_STR(longer(two, 2, false), "2 pg_init_retries 50 1 alua 2 2 queue-length 0 1 2 8:0 1 7 "
                                     "service-time 0 3 1 8:16 1 8:32 3 8:160 3");
    /* the group that is used first stays it */
    CHECK_STR(longer(two, 1, true), "2 pg_init_retries 50 1 alua 3 3 service-time 0 1 1 8:160 1 "
                                    "queue-length 0 1 2 8:0 1 7 service-time 0 2 1 8:16 1 8:32 3");
    CHECK_STR(longer(two, 2, true), "2 pg_init_retries 50 1 alua 3 3 queue-length 0 1 2 8:0 1 7 "
                                    "service-time 0 1 1 8:160 1 service-time 0 2 1 8:16 1 8:32 3");
    CHECK_STR(longer(two, 3, true), "2 pg_init_retries 50 1 alua 3 2 queue-length 0 1 2 8:0 1 7 "
                                    "service-time 0 2 1 8:16 1 8:32 3 service-time 0 1 1 8:160 1");
    /* before number 1 it is used first */
    CHECK_STR(longer("0 0 1 1 service-time 0 1 1 8:0 1", 1, true),
              "0 0 2 1 service-time 0 1 1 8:160 1 service-time 0 1 1 8:0 1");
    CHECK_STR(longer("0 0 0 0", 1, true), "0 0 1 1 service-time 0 1 1 8:160 1");
    CHECK_STR(longer("0 0 0 0", 1, false), "EPROTO");
    CHECK_STR(longer(two, 0, false), "EPROTO");
    CHECK_STR(longer(two, 3, false), "EPROTO");
    CHECK_STR(longer(two, 4, true), "EPROTO");
    CHECK_STR(longer("0 0 1", 1, true), "EPROTO");
}

TEST(build_refuses)
{
    static dev_t many[MP_TABLE_PATHS_MAX + 1];
    dev_t wide = makedev(4096, 0), deep = makedev(8, 1048576);

    CHECK_STR(built(many, 0, ""), "refused");
    CHECK_STR(built(many, MP_TABLE_PATHS_MAX + 1, ""), "refused");
    CHECK_STR(built(many, 1, "a b"), "refused");
    CHECK_STR(built(many, 1, "alua 1"), "refused");
    CHECK_STR(built(many, 1, "ALUA"), "refused");
    CHECK_STR(built(many, 1, "-"), "refused");
    CHECK_STR(built(many, 1, "\n"), "refused");
    CHECK_STR(built(many, 1, "abcdefghijklmnop"), "refused");
    CHECK_STR(built(many, 1, "abcdefghijklmno"),
              "0 1 abcdefghijklmno 1 1 service-time 0 1 1 0:0 1");
    CHECK_STR(built(&wide, 1, ""), "refused");
    CHECK_STR(built(&deep, 1, ""), "refused");
}

TEST(round_trip)
{
    static struct mp_table_path many[MP_TABLE_PATHS_MAX];
    char *params = NULL;

    for (unsigned i = 0; i < MP_TABLE_PATHS_MAX; i++)
        many[i] = (struct mp_table_path){.dev = makedev(4095, 1048575 - i), .group = i / 100 + 1};
    CHECK_EQ(mp_table_build(many, MP_TABLE_PATHS_MAX, "rdac", &params), 0);
    CHECK_EQ(mp_table_parse(params, &table), 0);
    CHECK_EQ(table.path_count, MP_TABLE_PATHS_MAX);
    CHECK_STR(table.handler, "rdac");
    CHECK(!table.queue_if_no_path);
    for (unsigned i = 0; i < MP_TABLE_PATHS_MAX; i++)
        CHECK(table.paths[i].dev == many[i].dev && table.paths[i].group == many[i].group);
    CHECK_EQ(table.group_count, 11);
    CHECK_EQ(table.group, 1);
    mp_table_free(&table);
    CHECK(table.paths == NULL && table.path_count == 0);
    mp_table_free(&table);
    free(params);
}

/* "8:16/1 8:32/2": devices and groups; status adds the state and failures. */
static const char *parsed(const char *params, bool status)
{
    static char text[256];
    int r = status ? mp_table_parse_status(params, &table) : mp_table_parse(params, &table);
    int used = 0;

    if (r != 0)
        return r == -EPROTO ? "EPROTO" : "another error";
    used =
        snprintf(text, sizeof text, "%s%s", table.queue_if_no_path ? "queue " : "", table.handler);
    for (size_t i = 0; i < table.path_count; i++) {
        const struct mp_table_path *path = &table.paths[i];

        used += snprintf(text + used, sizeof text - (size_t)used, " %u:%u/%u", major(path->dev),
                         minor(path->dev), path->group);
        if (status)
            used += snprintf(text + used, sizeof text - (size_t)used, "%c%u",
                             path->active ? 'A' : 'F', path->fail_count);
    }
    mp_table_free(&table);
    return text;
}

#define TABLE(params) parsed(params, false)
#define STATUS(params) parsed(params, true)

TEST(tables)
{
    /* as the kernel echoes it, with a blank at the end */
    CHECK_STR(TABLE("0 1 alua 2 1 service-time 0 1 2 8:0 1 1 service-time 0 1 2 8:48 1 1 "),
              "alua 8:0/1 8:48/2");
    CHECK_STR(TABLE("0 0 0 0"), "");
    CHECK_STR(TABLE("1 queue_if_no_path 0 1 1 round-robin 0 2 1 8:16 1000 8:32 1000"),
              "queue  8:16/1 8:32/1");
    CHECK_STR(
        TABLE("8 queue_mode bio pg_init_retries 50 pg_init_delay_msecs 2000 "
              "retain_attached_hw_handler queue_if_no_path 1 emc 1 1 queue-length 0 1 0 8:16"),
        "queue emc 8:16/1");
    CHECK_STR(TABLE("1 retain_attached_hw_handler 3 rdac a b 1 1 "
                    "historical-service-time 2 10 20 1 1 8:16 1"),
              "rdac 8:16/1");
    CHECK_STR(TABLE("0 0 1 1 io-affinity 0 2 1 8:16 0f 8:32 f0"), " 8:16/1 8:32/1");
    CHECK_STR(TABLE("\t0  0\n1 1 round-robin 0 1 0 259:1048575\n"), " 259:1048575/1");
    CHECK_STR(TABLE("0 0 3 2 a 0 1 0 8:1 b 1 x 1 0 8:2 c 0 2 1 8:3 z 8:4 z"),
              " 8:1/1 8:2/2 8:3/3 8:4/3");
    CHECK_STR(TABLE("0 0 1 0 a 0 1 0 8:1"), " 8:1/1");
}

TEST(statuses)
{
    CHECK_STR(STATUS("2 0 1 0 2 1 A 0 1 2 8:0 A 0 0 1 E 0 1 2 8:48 A 0 0 1 "), " 8:0/1A0 8:48/2A0");
    CHECK_STR(STATUS("2 0 0 0 1 1 E 0 2 0 8:16 A 0 8:32 F 4294967295"),
              " 8:16/1A0 8:32/1F4294967295");
    CHECK_STR(STATUS("2 1 3 0 2 2 D 0 1 1 8:16 F 7 0 A 3 x y z 1 3 8:32 A 0 1 2 3 "),
              " 8:16/1F7 8:32/2A0");
    CHECK_STR(STATUS("2 0 0 0 0 0 "), "");
    CHECK_STR(STATUS("4 0 0 5 6 1 x 1 1 A 0 1 0 8:16 A 0"), " 8:16/1A0");
}

TEST(malformed_tables)
{
    static const char *const cases[] = {
        "",
        " ",
        "0",
        "0 0",
        "0 0 1",
        "0 0 1 1",
        "0 0 1 1 service-time",
        "0 0 1 1 service-time 0",
        "0 0 1 1 service-time 0 1",
        "0 0 1 1 service-time 0 1 1",
        "0 0 1 1 service-time 0 1 1 8:16",
        "0 0 1 1 service-time 0 0 0",
        "0 0 1 2 service-time 0 1 0 8:16",
        "0 0 0 1",
        "0 0 0 0 more",
        "0 0 1 1 service-time 0 1 0 8:16 more",
        "0 0 1 1 service-time 0 1 0 8",
        "0 0 1 1 service-time 0 1 0 8:",
        "0 0 1 1 service-time 0 1 0 :16",
        "0 0 1 1 service-time 0 1 0 8:16:1",
        "0 0 1 1 service-time 0 1 0 /dev/sdb",
        "0 0 1 1 service-time 0 1 0 4096:0",
        "0 0 1 1 service-time 0 1 0 8:1048576",
        "0 0 1 1 service-time 0 1 0 -8:16",
        "65 a",
        "1",
        "x 0 0 0",
        "-1 0 0 0",
        "+0 0 0 0",
        "0x0 0 0 0",
        "0 1025 a",
        "0 1 a_handler_name_that_is_too_long 0 0",
        "0 0 1025 0",
        "0 0 1 1 a 1025 b",
        "0 0 1 1 a 0 1025 0",
        "0 0 1 1 a 0 1 1025 8:16",
        "99999999999999999999999999 0 0 0",
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        table.path_count = 99;
        CHECK_STR(TABLE(cases[i]), "EPROTO");
        CHECK_EQ(table.path_count, 99);
    }
}

TEST(malformed_statuses)
{
    static const char *const cases[] = {
        "",
        "2 0",
        "2 0 0",
        "2 0 0 0",
        "2 0 0 0 1 1",
        "2 0 0 0 1 1 X 0 1 0 8:16 A 0",
        "2 0 0 0 1 1 AA 0 1 0 8:16 A 0",
        "2 0 0 0 1 1 A 0 1 0 8:16",
        "2 0 0 0 1 1 A 0 1 0 8:16 A",
        "2 0 0 0 1 1 A 0 1 0 8:16 X 0",
        "2 0 0 0 1 1 A 0 1 0 8:16 A 4294967296",
        "2 0 0 0 1 1 A 0 1 0 8:16 A -1",
        "2 0 0 0 1 1 A 0 1 1 8:16 A 0",
        "2 0 0 0 1 1 A 0 1 0 8:16 A 0 more",
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        CHECK_STR(STATUS(cases[i]), "EPROTO");
    CHECK_STR(TABLE("2 0 1 0 2 1 A 0 1 2 8:0 A 0 0 1 E 0 1 2 8:48 A 0 0 1 "), "EPROTO");
}

/* Two groups of 600: no more than 1024 paths in all. */
TEST(too_many_paths)
{
    static char text[1200 * 8 + 64];
    size_t used = (size_t)snprintf(text, sizeof text, "0 0 2 1");

    for (int group = 0; group < 2; group++) {
        used += (size_t)snprintf(text + used, sizeof text - used, " a 0 600 0");
        for (int i = 0; i < 600; i++)
            used += (size_t)snprintf(text + used, sizeof text - used, " 8:%d", i);
    }
    CHECK_STR(TABLE(text), "EPROTO");
}

static const char *without(const char *params, const dev_t *paths, size_t count)
{
    static char copy[256];
    char *made = NULL;
    int r = mp_table_without(params, paths, count, &made);

    if (r != 0)
        return made != NULL   ? "touched"
               : r == -EPROTO ? "EPROTO"
               : r == -ENOENT ? "ENOENT"
                              : "another error";
    snprintf(copy, sizeof copy, "%s", made);
    free(made);
    return copy;
}

TEST(without_paths)
{
    static const char table_of_four[] =
        "1 queue_if_no_path 1 alua 2 2 service-time 0 2 2 8:0 1 1 8:16 2 3 "
        "round-robin 1 x 2 1 8:32 4 65:160 5 ";
    dev_t paths[] = {makedev(8, 16), makedev(65, 160), makedev(8, 32), makedev(8, 0)};
    dev_t other = makedev(8, 48);

    CHECK_STR(without(table_of_four, NULL, 0),
              "1 queue_if_no_path 1 alua 2 2 service-time 0 2 2 8:0 1 1 8:16 2 3 "
              "round-robin 1 x 2 1 8:32 4 65:160 5");
    CHECK_STR(without(table_of_four, &other, 1),
              "1 queue_if_no_path 1 alua 2 2 service-time 0 2 2 8:0 1 1 8:16 2 3 "
              "round-robin 1 x 2 1 8:32 4 65:160 5");
    CHECK_STR(without(table_of_four, paths, 1),
              "1 queue_if_no_path 1 alua 2 2 service-time 0 1 2 8:0 1 1 "
              "round-robin 1 x 2 1 8:32 4 65:160 5");
    CHECK_STR(without(table_of_four, paths, 2),
              "1 queue_if_no_path 1 alua 2 2 service-time 0 1 2 8:0 1 1 "
              "round-robin 1 x 1 1 8:32 4");
    /* the second group, which was to be first, has gone */
    CHECK_STR(without(table_of_four, paths, 3),
              "1 queue_if_no_path 1 alua 1 1 service-time 0 1 2 8:0 1 1");
    CHECK_STR(without(table_of_four, paths, 4), "ENOENT");
    CHECK_STR(without(table_of_four, paths + 2, 1),
              "1 queue_if_no_path 1 alua 2 2 service-time 0 2 2 8:0 1 1 8:16 2 3 "
              "round-robin 1 x 1 1 65:160 5");
    /* the first group has gone: the second has a new number */
    dev_t first[] = {makedev(8, 0), makedev(8, 16)};

    CHECK_STR(without(table_of_four, first, 2),
              "1 queue_if_no_path 1 alua 1 1 round-robin 1 x 2 1 8:32 4 65:160 5");
    CHECK_STR(without("0 0 1 0 a 0 1 0 8:1", NULL, 0), "0 0 1 1 a 0 1 0 8:1");
    CHECK_STR(without("\t00  0\n01 1 a 00 1 0 08:001\n", NULL, 0), "0 0 1 1 a 0 1 0 8:1");
    CHECK_STR(without("0 0 0 0", NULL, 0), "ENOENT");
    CHECK_STR(without("", NULL, 0), "EPROTO");
    CHECK_STR(without("0 0 1 1 a 0 1 0 8:1 more", NULL, 0), "EPROTO");
    CHECK_STR(without("0 0 1 1 a 0 2 0 8:1", NULL, 0), "EPROTO");
    CHECK_STR(without("0 0 1 1 a 0 2 1 8:1 1 8:2", NULL, 0), "EPROTO");
    CHECK_STR(without("0 0 1 2 a 0 1 0 8:1", NULL, 0), "EPROTO");
    CHECK_STR(without("0 2 alua", NULL, 0), "EPROTO");
    CHECK_STR(without("2 0 1 0 2 1 A 0 1 2 8:0 A 0 0 1 E 0 1 2 8:48 A 0 0 1 ", NULL, 0), "EPROTO");
}

int main(void)
{
    RUN(build);
    RUN(build_groups);
    RUN(with);
    RUN(build_refuses);
    RUN(round_trip);
    RUN(tables);
    RUN(statuses);
    RUN(malformed_tables);
    RUN(malformed_statuses);
    RUN(too_many_paths);
    RUN(without_paths);
    return test_end();
}
