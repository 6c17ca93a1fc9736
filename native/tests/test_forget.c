/* SPDX-License-Identifier: Apache-2.0 */
#include "../src/forget.h"

#include "../src/users.h"
#include "test.h"

TEST(listed)
{
    CHECK(mp_path_listed("sda\nsdb\n", "sda"));
    CHECK(mp_path_listed("sda\nsdb\n", "sdb"));
    CHECK(mp_path_listed("sda  \nsdb", "sda"));
    CHECK(mp_path_listed("sda  \nsdb", "sdb"));
    CHECK(!mp_path_listed("sdaa\nsdb\n", "sda"));
    CHECK(!mp_path_listed("sdb sda\n", "sda"));
    CHECK(!mp_path_listed("ok\n", "sda"));
    CHECK(!mp_path_listed("", "sda"));
    CHECK(!mp_path_listed("\n\n", ""));
}

TEST(partition_maps)
{
    unsigned number = 0;

    CHECK(mp_part_map_of("part1-mpath-36001", "mpath-36001", &number));
    CHECK_EQ(number, 1);
    CHECK(mp_part_map_of("part128-mpath-36001", "mpath-36001", &number));
    CHECK_EQ(number, 128);
    CHECK(!mp_part_map_of("part1-mpath-36002", "mpath-36001", &number));
    CHECK(!mp_part_map_of("part-mpath-36001", "mpath-36001", &number));
    CHECK(!mp_part_map_of("part1-part1-mpath-36001", "mpath-36001", &number));
    CHECK(!mp_part_map_of("mpath-36001", "mpath-36001", &number));
    CHECK(!mp_part_map_of("LVM-abc", "mpath-36001", &number));
}

int main(void)
{
    RUN(listed);
    RUN(partition_maps);
    return test_end();
}
