/* SPDX-License-Identifier: Apache-2.0 */
#include "../src/mounts.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/sysmacros.h>

#include "test.h"
#include "tree.h"

TEST(mounts)
{
    const char *at = "22 28 0:20 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n"
                     "nonsense\n"
                     "36 35 253:3 / /var/lib/x rw - ext4 /dev/mapper/x rw,errors=continue\n"
                     "40 35 0:40 /sub /btrfs rw shared:1 master:2 - btrfs /dev/dm-4 rw\n"
                     "41 35 253:99999999 / /too rw - ext4 /dev/x rw\n"
                     "42 35 8:17 / /no/end rw";
    struct mp_mount mount;

    CHECK(mp_mounts_next(&at, &mount));
    CHECK(mount.dev == makedev(0, 20));
    CHECK_STR(mount.point, "/sys");
    CHECK_STR(mount.source, "sysfs");
    CHECK(mp_mounts_next(&at, &mount));
    CHECK(mount.dev == makedev(253, 3));
    CHECK_STR(mount.point, "/var/lib/x");
    CHECK_STR(mount.source, "/dev/mapper/x");
    CHECK(mp_mounts_next(&at, &mount));
    CHECK(mount.dev == makedev(0, 40));
    CHECK_STR(mount.source, "/dev/dm-4");
    CHECK(mp_mounts_next(&at, &mount));
    CHECK(mount.dev == makedev(8, 17));
    CHECK_STR(mount.point, "/no/end");
    CHECK_STR(mount.source, "");
    CHECK(!mp_mounts_next(&at, &mount));
}

TEST(escapes)
{
    const char *at = "1 1 8:1 / /a\\040b\\134\\011c\\012 rw - x /dev/sda1 rw\n"
                     "1 1 8:1 / /a\\04 rw - x y rw\n"
                     "1 1 8:1 / /a\\999\\477 rw - x y rw\n";
    struct mp_mount mount;

    CHECK(mp_mounts_next(&at, &mount));
    CHECK_STR(mount.point, "/a b\\\tc\n");
    CHECK(mp_mounts_next(&at, &mount));
    CHECK_STR(mount.point, "/a\\04");
    CHECK(mp_mounts_next(&at, &mount));
    CHECK_STR(mount.point, "/a\\999\\477");
}

TEST(long_path)
{
    char text[1024] = "1 1 8:1 / /";
    struct mp_mount mount;
    const char *at = text;
    size_t used = strlen(text);

    memset(text + used, 'x', 600);
    snprintf(text + used + 600, sizeof text - used - 600, " rw - ext4 /dev/sda1 rw\n");
    CHECK(mp_mounts_next(&at, &mount));
    CHECK_EQ(strlen(mount.point), MP_MOUNT_PATH_SIZE - 1);
    CHECK_STR(mount.source, "/dev/sda1");
}

TEST(swaps)
{
    const char *at = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
                     "/swapfile                               file\t\t1048572\t\t0\t\t-2\n"
                     "/dev/dm-3                               partition\t1048572\t\t0\t\t-3\n"
                     "/dev/a\\040b partition 1 0 -4";
    char path[MP_MOUNT_PATH_SIZE];

    CHECK(mp_swaps_next(&at, path, sizeof path));
    CHECK_STR(path, "/dev/dm-3");
    CHECK(mp_swaps_next(&at, path, sizeof path));
    CHECK_STR(path, "/dev/a b");
    CHECK(!mp_swaps_next(&at, path, sizeof path));
}

TEST(reading)
{
    char *text = NULL;

    tree_begin();
    tree_file(tree_path("self/mountinfo"), "36 35 253:3 / / rw - ext4 /dev/dm-3 rw");
    CHECK_EQ(mp_mounts_read(tree_root, "self/mountinfo", &text), 0);
    CHECK(text != NULL && strncmp(text, "36 35", 5) == 0);
    free(text);
    text = NULL;
    CHECK_EQ(mp_mounts_read(tree_root, "swaps", &text), -ENOENT);
    CHECK(text == NULL);
    tree_end();
}

int main(void)
{
    RUN(mounts);
    RUN(escapes);
    RUN(long_path);
    RUN(swaps);
    RUN(reading);
    return test_end();
}
