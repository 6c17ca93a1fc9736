/* SPDX-License-Identifier: Apache-2.0 */
#include "../src/udevdb.h"

#include <errno.h>
#include <sys/sysmacros.h>

#include "test.h"
#include "tree.h"

static struct mp_udevdb entry;

static int parse(const char *text)
{
    return mp_udevdb_parse(text, strlen(text), &entry);
}

TEST(entry)
{
    CHECK_EQ(parse("S:disk/by-id/x\nL:0\nI:123456789\nE:ID_SERIAL_SHORT=6001405\n"
                   "E:ID_SERIAL=36001405abc\nE:DM_MULTIPATH_DEVICE_PATH=1\nG:systemd\n"),
             0);
    CHECK_STR(entry.id_serial, "36001405abc");
    CHECK_EQ(entry.initialized_us, 123456789);
    CHECK_EQ(parse("E:ID_SERIAL=1LIO-ORG_vol"), 0); /* no newline at the end */
    CHECK_STR(entry.id_serial, "1LIO-ORG_vol");
    CHECK_EQ(entry.initialized_us, 0);
}

TEST(nothing_in_it)
{
    static const char *const texts[] = {"",
                                        "\n",
                                        "\n\n",
                                        "E:",
                                        "I:\n",
                                        "I:x\n",
                                        "E:ID_SERIAL\n",
                                        "E:ID_SERIAL=\n",
                                        " E:ID_SERIAL=1\n",
                                        "xE:ID_SERIAL=1\n",
                                        "I:99999999999999999999999\n"};

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        CHECK_EQ(parse(texts[i]), 0);
        CHECK_STR(entry.id_serial, "");
        CHECK_EQ(entry.initialized_us, 0);
    }
}

TEST(no_name_of_a_map)
{
    char text[300];

    strcpy(entry.id_serial, "untouched");
    CHECK_EQ(parse("E:ID_SERIAL=a/b\n"), -EPROTO);
    CHECK_EQ(parse("E:ID_SERIAL=a b\n"), -EPROTO);
    CHECK_EQ(parse("E:ID_SERIAL=a\\x20b\n"), -EPROTO);
    CHECK_EQ(mp_udevdb_parse("E:ID_SERIAL=a\0b", 15, &entry), -EPROTO);
    snprintf(text, sizeof text, "E:ID_SERIAL=%0*d\n", MANYPATH_WWID_SIZE, 1);
    CHECK_EQ(parse(text), -EPROTO);
    CHECK_STR(entry.id_serial, "untouched");
    snprintf(text, sizeof text, "E:ID_SERIAL=%0*d\n", MANYPATH_WWID_SIZE - 1, 1);
    CHECK_EQ(parse(text), 0);
}

TEST(file)
{
    static char large[70 * 1024];

    tree_begin();
    CHECK_EQ(mp_udevdb_read(tree_root, makedev(8, 16), &entry), -ENOENT);
    tree_file(tree_path("b8:16"), "I:5\nE:ID_SERIAL=3600\n");
    CHECK_EQ(mp_udevdb_read(tree_root, makedev(8, 16), &entry), 0);
    CHECK_STR(entry.id_serial, "3600");
    CHECK_EQ(mp_udevdb_read(tree_root, makedev(8, 17), &entry), -ENOENT);
    memset(large, 'x', sizeof large - 1);
    tree_file(tree_path("b8:32"), large);
    CHECK_EQ(mp_udevdb_read(tree_root, makedev(8, 32), &entry), -EOVERFLOW);
    tree_end();
}

int main(void)
{
    RUN(entry);
    RUN(nothing_in_it);
    RUN(no_name_of_a_map);
    RUN(file);
    return test_end();
}
