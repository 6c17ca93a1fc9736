/* SPDX-License-Identifier: Apache-2.0 */
#include "../src/sysfs.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

#include "test.h"
#include "tree.h"

#define TCP "platform"
#define IQN "iqn.2010-10.org.openstack:volume-1"

static char session_path[512];

/* What the kernel shows of a session: its directory, and links to it in the class directories. */
static void add_session(int sid, int host, const char *bus, const char *iqn, const char *state)
{
    snprintf(session_path, sizeof session_path, "devices/%s/host%d/session%d", bus, host, sid);
    tree_file(tree_path("%s/iscsi_session/session%d/targetname", session_path, sid), iqn);
    tree_file(tree_path("%s/iscsi_session/session%d/state", session_path, sid), state);

    char target[600];

    snprintf(target, sizeof target, "../../../session%d", sid);
    tree_link(tree_path("%s/iscsi_session/session%d/device", session_path, sid), target);
    snprintf(target, sizeof target, "../../%s/iscsi_session/session%d", session_path, sid);
    tree_link(tree_path("class/iscsi_session/session%d", sid), target);
}

static void add_connection(int sid, const char *address, const char *port)
{
    char place[600], target[700];

    snprintf(place, sizeof place, "%s/connection%d:0/iscsi_connection/connection%d:0", session_path,
             sid, sid);
    tree_file(tree_path("%s/persistent_address", place), address);
    tree_file(tree_path("%s/persistent_port", place), port);
    tree_file(tree_path("%s/address", place), "192.0.2.99\n"); /* where a redirect led */
    tree_file(tree_path("%s/port", place), "3299\n");
    snprintf(target, sizeof target, "../../%s", place);
    tree_link(tree_path("class/iscsi_connection/connection%d:0", sid), target);
}

static void add_device(int host, int channel, int target, unsigned lun, const char *state)
{
    char place[640];

    snprintf(place, sizeof place, "%s/target%d:%d:%d/%d:%d:%d:%u", session_path, host, channel,
             target, host, channel, target, lun);
    tree_file(tree_path("%s/state", place), state);
    tree_file(tree_path("%s/type", place), "0\n");
}

static void add_block(int host, unsigned lun, const char *name, const char *dev, const char *size)
{
    char place[640];

    snprintf(place, sizeof place, "%s/target%d:0:0/%d:0:0:%u/block/%s", session_path, host, host,
             lun, name);
    tree_dir(tree_path("%s", place));
    if (dev != NULL)
        tree_file(tree_path("%s/dev", place), dev);
    if (size != NULL)
        tree_file(tree_path("%s/size", place), size);
}

static struct mp_portal portal(const char *address, uint16_t port)
{
    struct mp_portal result = {0};

    CHECK_EQ(mp_portal_parse(address, port, &result), 0);
    return result;
}

static int find(const char *iqn, const char *address, uint16_t port, struct mp_session *session)
{
    struct mp_portal wanted = portal(address, port);

    return mp_sysfs_find_session(tree_root, iqn, &wanted, session);
}

TEST(no_iscsi)
{
    struct mp_session session, *sessions = &session;
    struct mp_disk disk, *disks = &disk;
    enum mp_session_state state = MP_SESSION_FREE;
    size_t count = 7;

    tree_begin();
    CHECK_EQ(mp_sysfs_sessions(tree_root, &sessions, &count), 0);
    CHECK(sessions == NULL && count == 0);
    CHECK_EQ(find(IQN, "192.0.2.1", 3260, &session), -ENOENT);
    CHECK_EQ(mp_sysfs_session_state(tree_root, 1, &state), -ENOENT);
    CHECK_EQ(state, MP_SESSION_FREE);
    CHECK_EQ(mp_sysfs_find_disk(tree_root, 1, 1, 0, &disk), -ENOENT);
    count = 7;
    CHECK_EQ(mp_sysfs_session_disks(tree_root, 1, 1, &disks, &count), -ENOENT);
    CHECK(disks == &disk && count == 7);
    tree_dir(tree_path("class/iscsi_session"));
    CHECK_EQ(mp_sysfs_sessions(tree_root, &sessions, &count), 0);
    CHECK(sessions == NULL && count == 0);
    tree_end();
}

TEST(one_session)
{
    struct mp_session session = {0};
    enum mp_session_state state;

    tree_begin();
    add_session(3, 12, TCP, IQN "\n", "LOGGED_IN\n");
    add_connection(3, "192.0.2.1\n", "3260\n");
    CHECK_EQ(find(IQN, "192.0.2.1", 3260, &session), 0);
    CHECK_EQ(session.sid, 3);
    CHECK_EQ(session.host, 12);
    CHECK_EQ(session.state, MP_SESSION_LOGGED_IN);
    CHECK_STR(session.state_text, "LOGGED_IN");
    CHECK_STR(session.iqn, IQN);
    CHECK_STR(session.address_text, "192.0.2.1");
    CHECK_EQ(session.portal.port, 3260);
    CHECK_EQ(find(IQN, "192.0.2.1", 3261, &session), -ENOENT);
    CHECK_EQ(find(IQN, "192.0.2.2", 3260, &session), -ENOENT);
    CHECK_EQ(find(IQN, "192.0.2.99", 3299, &session), -ENOENT); /* the redirected one */
    CHECK_EQ(find(IQN "0", "192.0.2.1", 3260, &session), -ENOENT);
    CHECK_EQ(find("iqn.2010-10.org.openstack:volume-", "192.0.2.1", 3260, &session), -ENOENT);
    CHECK_EQ(mp_sysfs_session_state(tree_root, 3, &state), 0);
    CHECK_EQ(state, MP_SESSION_LOGGED_IN);
    tree_end();
}

TEST(states)
{
    static const struct {
        const char *text;
        enum mp_session_state state;
    } cases[] = {{"FAILED\n", MP_SESSION_FAILED},
                 {"FREE\n", MP_SESSION_FREE},
                 {"<NULL>\n", MP_SESSION_OTHER},
                 {"", MP_SESSION_OTHER},
                 {"SOMETHING_LONGER_THAN_ANY_KNOWN_STATE_OF_A_SESSION\n", MP_SESSION_OTHER}};
    enum mp_session_state state = MP_SESSION_LOGGED_IN;
    struct mp_session session;

    tree_begin();
    add_session(1, 1, TCP, IQN, "");
    add_connection(1, "192.0.2.1", "3260");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        tree_file(tree_path("class/iscsi_session/session1/state"), cases[i].text);
        CHECK_EQ(mp_sysfs_session_state(tree_root, 1, &state), 0);
        CHECK_EQ(state, cases[i].state);
        CHECK_EQ(find(IQN, "192.0.2.1", 3260, &session), 0);
        CHECK_EQ(session.state, cases[i].state);
    }
    tree_end();
}

TEST(ipv6)
{
    struct mp_session session;

    tree_begin();
    add_session(1, 1, TCP, IQN "\n", "LOGGED_IN\n");
    add_connection(1, "2001:db8::1\n", "3260\n");
    add_session(2, 2, TCP, IQN "\n", "LOGGED_IN\n");
    add_connection(2, "::ffff:192.0.2.7\n", "3260\n");
    CHECK_EQ(find(IQN, "2001:DB8:0:0:0:0:0:1", 3260, &session), 0);
    CHECK_EQ(session.sid, 1);
    CHECK_EQ(find(IQN, "192.0.2.7", 3260, &session), 0);
    CHECK_EQ(session.sid, 2);
    tree_end();
}

/* sid 10 is newer than sid 9, though its name sorts before. */
TEST(newest_first)
{
    struct mp_session session, *sessions = NULL;
    size_t count = 0;

    tree_begin();
    for (int sid = 8; sid <= 11; sid++) {
        add_session(sid, sid + 100, TCP, sid == 11 ? "iqn.x:other\n" : IQN "\n", "LOGGED_IN\n");
        add_connection(sid, "192.0.2.1\n", "3260\n");
    }
    CHECK_EQ(find(IQN, "192.0.2.1", 3260, &session), 0);
    CHECK_EQ(session.sid, 10);
    CHECK_EQ(session.host, 110);
    CHECK_EQ(mp_sysfs_sessions(tree_root, &sessions, &count), 0);
    CHECK_EQ(count, 4);
    for (size_t i = 0; i < count; i++)
        CHECK_EQ(sessions[i].sid, 8 + (int)i);
    free(sessions);
    tree_end();
}

/* An offload card's host is a child of its PCI function. */
TEST(offload_host)
{
    struct mp_session session;
    struct mp_disk disk;

    tree_begin();
    add_session(5, 7, "pci0000:00/0000:00:02.0/hostile/host99x", IQN "\n", "LOGGED_IN\n");
    add_connection(5, "192.0.2.1\n", "3260\n");
    add_device(7, 0, 0, 1, "running\n");
    add_block(7, 1, "sdc", "8:32\n", "2048\n");
    CHECK_EQ(find(IQN, "192.0.2.1", 3260, &session), 0);
    CHECK_EQ(session.host, 7);
    CHECK_EQ(mp_sysfs_find_disk(tree_root, 7, 5, 1, &disk), 0);
    CHECK_STR(disk.name, "sdc");
    tree_end();
}

/* What is seen of sessions that come or go. */
TEST(half_there)
{
    struct mp_session session, *sessions = NULL;
    size_t count = 0;
    char long_name[300];

    tree_begin();
    add_session(1, 1, TCP, "<NULL>\n", "FREE\n"); /* just made: no parameter set yet */
    add_session(2, 2, TCP, IQN "\n", "FREE\n");   /* its connection is gone */
    add_session(3, 3, TCP, IQN "\n", "FREE\n");
    add_connection(3, "<NULL>\n", "<NULL>\n");
    add_session(4, 4, TCP, IQN "\n", "FREE\n");
    add_connection(4, "192.0.2.1\n", "65536\n");
    add_session(5, 5, TCP, IQN "\n", "FREE\n");
    add_connection(5, "storage.example\n", "3260\n");
    add_session(6, 6, TCP, IQN "\n", "LOGGED_IN\n");
    unlink(tree_path("class/iscsi_session/session6/targetname"));
    add_session(7, 7, TCP, IQN "\n", "LOGGED_IN\n");
    add_connection(7, "192.0.2.1\n", "3260\n");
    unlink(tree_path("class/iscsi_session/session7/state"));
    memset(long_name, 'a', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    add_session(8, 8, TCP, long_name, "LOGGED_IN\n"); /* must not be cut and compared */
    add_connection(8, "192.0.2.1\n", "3260\n");
    tree_link(tree_path("class/iscsi_session/session9"), "../../devices/nowhere"); /* dangling */
    tree_link(tree_path("class/iscsi_session/session10x"), "../../devices/nowhere");
    tree_dir(tree_path("class/iscsi_session/session-1"));
    tree_dir(tree_path("class/iscsi_session/session4294967296"));

    CHECK_EQ(find(IQN, "192.0.2.1", 3260, &session), -ENOENT);
    long_name[MANYPATH_IQN_SIZE - 1] = '\0';
    CHECK_EQ(find(long_name, "192.0.2.1", 3260, &session), -ENOENT);
    CHECK_EQ(mp_sysfs_sessions(tree_root, &sessions, &count), 0);
    CHECK_EQ(count, 6);
    CHECK_EQ(sessions[0].sid, 1);
    CHECK_STR(sessions[0].iqn, "");
    for (size_t i = 0; i < count; i++)
        CHECK_EQ(sessions[i].portal.family, sessions[i].sid == 8 ? AF_INET : 0);
    CHECK_EQ(sessions[4].sid, 5);
    CHECK_STR(sessions[4].address_text, "storage.example");
    CHECK_EQ(sessions[5].sid, 8);
    CHECK_STR(sessions[5].iqn, "");
    free(sessions);
    tree_end();
}

/* Opening an attribute of a dead object fails with ENXIO; a socket in the file system does so
 * too. */
TEST(vanishing_attribute)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    enum mp_session_state state;
    struct mp_session session;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    tree_begin();
    add_session(1, 1, TCP, IQN "\n", "LOGGED_IN\n");
    add_connection(1, "192.0.2.1\n", "3260\n");
    const char *path = tree_path("class/iscsi_session/session1/state");

    unlink(path);
    snprintf(address.sun_path, sizeof address.sun_path, "%.100s", path);
    CHECK_EQ(bind(fd, (const struct sockaddr *)&address, sizeof address), 0);
    CHECK_EQ(mp_sysfs_session_state(tree_root, 1, &state), -ENOENT);
    CHECK_EQ(find(IQN, "192.0.2.1", 3260, &session), -ENOENT);
    close(fd);
    tree_end();
}

TEST(find_disk)
{
    struct mp_disk disk = {0};

    tree_begin();
    add_session(3, 12, TCP, IQN "\n", "LOGGED_IN\n");
    add_device(12, 0, 0, 1, "running\n");
    tree_file(tree_path("%s/target12:0:0/12:0:0:1/dh_state", session_path), "alua\n");
    add_block(12, 1, "sdb", "8:16\n", "2097152\n");
    add_device(12, 0, 0, 300, "running\n");
    tree_file(tree_path("%s/target12:0:0/12:0:0:300/dh_state", session_path), "detached\n");
    add_block(12, 300, "sdaa", "65:160\n", "8\n");
    add_device(12, 0, 0, 16684, "transport-offline\n");
    add_block(12, 16684, "sdzzz", "259:1048575\n", "0\n");
    add_device(12, 0, 0, 2, "created\n"); /* sd has not begun */
    add_device(12, 0, 0, 4, "running\n"); /* sd is at work */
    add_block(12, 4, "sdd", NULL, "8\n");
    add_device(12, 0, 0, 5, "running\n");
    add_block(12, 5, "sde", "8:64\n", NULL);
    add_device(12, 0, 0, 6, "running\n");
    add_block(12, 6, "sdf", "8:x\n", "1\n");
    add_device(12, 1, 3, 9, "running\n");
    tree_dir(tree_path("%s/target12:0:0/12:0:0:7", session_path)); /* state is gone already */

    CHECK_EQ(mp_sysfs_find_disk(tree_root, 12, 3, 1, &disk), 0);
    CHECK_STR(disk.name, "sdb");
    CHECK_STR(disk.state, "running");
    CHECK_STR(disk.dh_state, "alua");
    CHECK(disk.dev == makedev(8, 16));
    CHECK_EQ(disk.size_bytes, 1073741824);
    CHECK_EQ(disk.host, 12);
    CHECK_EQ(disk.channel, 0);
    CHECK_EQ(disk.target, 0);
    CHECK_EQ(disk.lun, 1);
    CHECK_EQ(mp_sysfs_find_disk(tree_root, 12, 3, 300, &disk), 0);
    CHECK_STR(disk.name, "sdaa");
    CHECK_STR(disk.dh_state, "");
    CHECK_EQ(mp_sysfs_find_disk(tree_root, 12, 3, 16684, &disk), 0);
    CHECK_STR(disk.name, "sdzzz");
    CHECK_STR(disk.state, "transport-offline");
    CHECK(disk.dev == makedev(259, 1048575));
    for (uint64_t lun = 2; lun <= 6; lun++) {
        CHECK_EQ(mp_sysfs_find_disk(tree_root, 12, 3, lun, &disk), lun == 3 ? -ENOENT : 0);
        if (lun == 2 || lun == 4 || lun == 6) {
            CHECK_STR(disk.name, "");
            CHECK_EQ(disk.dev, 0);
            CHECK_EQ(disk.size_bytes, 0);
        }
    }
    CHECK_EQ(mp_sysfs_find_disk(tree_root, 12, 3, 7, &disk), -ENOENT);
    CHECK_EQ(mp_sysfs_find_disk(tree_root, 12, 3, 9, &disk), 0);
    CHECK_EQ(disk.channel, 1);
    CHECK_EQ(disk.target, 3);
    CHECK_EQ(mp_sysfs_find_disk(tree_root, 13, 3, 1, &disk), -ENOENT); /* another host's */
    tree_end();
}

TEST(session_disks)
{
    struct mp_disk *disks = NULL;
    size_t count = 0;

    tree_begin();
    add_session(3, 12, TCP, IQN "\n", "LOGGED_IN\n");
    CHECK_EQ(mp_sysfs_session_disks(tree_root, 12, 3, &disks, &count), 0);
    CHECK(disks == NULL && count == 0);
    CHECK(!mp_sysfs_session_has_targets(tree_root, 12, 3));
    tree_dir(tree_path("%s/target13:0:0", session_path));
    CHECK(!mp_sysfs_session_has_targets(tree_root, 12, 3));
    tree_dir(tree_path("%s/target12:0:0", session_path)); /* its last disk is gone already */
    CHECK(mp_sysfs_session_has_targets(tree_root, 12, 3));
    CHECK(!mp_sysfs_session_has_targets(tree_root, 12, 4));
    add_device(12, 0, 1, 0, "running\n");
    add_device(12, 0, 0, 16684, "running\n");
    add_block(12, 16684, "sdc", "8:32\n", "16\n");
    add_device(12, 0, 0, 2, "running\n");
    add_block(12, 2, "sdb", "8:16\n", "16\n");
    add_device(12, 0, 0, 11, "running\n"); /* a tape: no block directory */
    tree_file(tree_path("%s/target12:0:0/12:0:0:11/type", session_path), "1\n");
    tree_dir(tree_path("%s/target12:0:0/12:0:0:11/scsi_tape/st0", session_path));
    tree_dir(tree_path("%s/target12:0:0/12:0:0:12", session_path)); /* gone while listed */
    tree_dir(tree_path("%s/target12:0:0/power", session_path));
    tree_dir(tree_path("%s/target12:0:0/12:0:0:1x", session_path));
    tree_file(tree_path("%s/target12:0:0/13:0:0:1/state", session_path), "running\n");
    tree_file(tree_path("%s/target13:0:0/13:0:0:1/state", session_path), "running\n");
    tree_file(tree_path("%s/target12:0/12:0:0:1/state", session_path), "running\n");
    CHECK_EQ(mp_sysfs_session_disks(tree_root, 12, 3, &disks, &count), 0);
    CHECK_EQ(count, 4);
    CHECK_EQ(disks[0].lun, 2);
    CHECK_STR(disks[0].name, "sdb");
    CHECK_EQ(disks[1].lun, 11);
    CHECK_STR(disks[1].name, "");
    CHECK_EQ(disks[2].lun, 16684);
    CHECK_STR(disks[2].name, "sdc");
    CHECK_EQ(disks[3].target, 1);
    CHECK_EQ(disks[3].lun, 0);
    free(disks);
    tree_end();
}

TEST(holders)
{
    char names[2][MANYPATH_DEVICE_SIZE];
    size_t count = 9;

    tree_begin();
    tree_dir(tree_path("devices/x/block/sdb/holders"));
    tree_link(tree_path("block/sdb"), "../devices/x/block/sdb");
    CHECK_EQ(mp_sysfs_holders(tree_root, "sdb", names, 2, &count), 0);
    CHECK_EQ(count, 0);
    tree_link(tree_path("block/sdb/holders/dm-3"), "../../../dm-3");
    CHECK_EQ(mp_sysfs_holders(tree_root, "sdb", names, 2, &count), 0);
    CHECK_EQ(count, 1);
    CHECK_STR(names[0], "dm-3");
    tree_link(tree_path("block/sdb/sdb1/holders/dm-3"), "../../../../dm-3"); /* counts once */
    tree_link(tree_path("block/sdb/sdb2/holders/md0"), "../../../../md0");
    CHECK_EQ(mp_sysfs_holders(tree_root, "sdb", names, 2, &count), 0);
    CHECK_EQ(count, 2);
    CHECK_STR(names[1], "md0");
    tree_link(tree_path("block/sdb/sdb2/holders/md1"), "../../../../md1");
    CHECK_EQ(mp_sysfs_holders(tree_root, "sdb", names, 2, &count), 0);
    CHECK_EQ(count, 3);
    CHECK_EQ(mp_sysfs_holders(tree_root, "sdb", NULL, 0, &count), 0);
    CHECK(count >= 3);
    count = 9;
    CHECK_EQ(mp_sysfs_holders(tree_root, "sdc", names, 2, &count), -ENOENT);
    CHECK_EQ(mp_sysfs_holders(tree_root, "../block/sdb", names, 2, &count), -EINVAL);
    CHECK_EQ(mp_sysfs_holders(tree_root, "..", names, 2, &count), -EINVAL);
    CHECK_EQ(mp_sysfs_holders(tree_root, "", names, 2, &count), -EINVAL);
    CHECK_EQ(count, 9);
    tree_end();
}

TEST(block_attributes)
{
    char uuid[130] = "u", name[128] = "n", tiny[4] = "t";
    uint64_t bytes = 5;

    tree_begin();
    tree_file(tree_path("block/dm-0/dm/uuid"), "mpath-36001405abc\n");
    tree_file(tree_path("block/dm-0/dm/name"), "mpatha\n");
    tree_file(tree_path("block/dm-0/size"), "2097152\n");
    tree_file(tree_path("block/dm-1/size"), "36028797018963968\n"); /* 2^64 bytes */
    tree_dir(tree_path("block/sda"));
    CHECK_EQ(mp_sysfs_dm(tree_root, "dm-0", uuid, sizeof uuid, name, sizeof name), 0);
    CHECK_STR(uuid, "mpath-36001405abc");
    CHECK_STR(name, "mpatha");
    CHECK_EQ(mp_sysfs_dm(tree_root, "dm-0", NULL, 0, name, sizeof name), 0);
    CHECK_EQ(mp_sysfs_dm(tree_root, "dm-0", uuid, sizeof uuid, NULL, 0), 0);
    CHECK_EQ(mp_sysfs_dm(tree_root, "dm-0", tiny, sizeof tiny, NULL, 0), -EOVERFLOW);
    CHECK_STR(tiny, "t");
    CHECK_EQ(mp_sysfs_dm(tree_root, "sda", uuid, sizeof uuid, name, sizeof name), -ENOENT);
    CHECK_EQ(mp_sysfs_dm(tree_root, "dm-9", uuid, sizeof uuid, name, sizeof name), -ENOENT);
    CHECK_EQ(mp_sysfs_block_size(tree_root, "dm-0", &bytes), 0);
    CHECK_EQ(bytes, 1073741824);
    CHECK_EQ(mp_sysfs_block_size(tree_root, "dm-1", &bytes), -ENOENT);
    CHECK_EQ(mp_sysfs_block_size(tree_root, "sda", &bytes), -ENOENT);
    CHECK_EQ(mp_sysfs_block_size(tree_root, "a/b", &bytes), -EINVAL);
    CHECK_EQ(bytes, 1073741824);
    tree_end();
}

TEST(device_attribute)
{
    uint8_t bytes[8];
    size_t length = 77;
    dev_t dev = 0;

    tree_begin();
    tree_file(tree_path("block/sda/device/state"), "running\n");
    tree_file(tree_path("block/sda/dev"), "8:16\n");
    tree_file(tree_path("block/sdb/dev"), "nonsense\n");
    CHECK_EQ(mp_sysfs_device_attribute(tree_root, "sda", "state", bytes, 8, &length), -EOVERFLOW);
    tree_file(tree_path("block/sda/device/vpd_pg83"), "ab\n");
    CHECK_EQ(mp_sysfs_device_attribute(tree_root, "sda", "vpd_pg83", bytes, 8, &length), 0);
    CHECK_EQ(length, 3); /* as it is */
    CHECK_EQ(mp_sysfs_device_attribute(tree_root, "sdb", "state", bytes, 8, &length), -ENOENT);
    CHECK_EQ(mp_sysfs_device_attribute(tree_root, "../sda", "state", bytes, 8, &length), -EINVAL);
    CHECK_EQ(mp_sysfs_block_dev(tree_root, "sda", &dev), 0);
    CHECK(dev == makedev(8, 16));
    CHECK_EQ(mp_sysfs_block_dev(tree_root, "sdb", &dev), -ENOENT);
    CHECK_EQ(mp_sysfs_block_dev(tree_root, "sdc", &dev), -ENOENT);
    tree_end();
}

TEST(block_name)
{
    char name[MANYPATH_DEVICE_SIZE] = "untouched", tiny[3] = "t";

    tree_begin();
    tree_link(tree_path("dev/block/8:16"), "../../devices/platform/host3/session1/block/sdb");
    tree_link(tree_path("dev/block/8:32"), "sdc");
    tree_link(tree_path("dev/block/8:48"), "../../devices/..");
    CHECK_EQ(mp_sysfs_block_name(tree_root, makedev(8, 64), name, sizeof name), -ENOENT);
    CHECK_EQ(mp_sysfs_block_name(tree_root, makedev(8, 48), name, sizeof name), -ENOENT);
    CHECK_STR(name, "untouched");
    CHECK_EQ(mp_sysfs_block_name(tree_root, makedev(8, 16), name, sizeof name), 0);
    CHECK_STR(name, "sdb");
    CHECK_EQ(mp_sysfs_block_name(tree_root, makedev(8, 32), name, sizeof name), 0);
    CHECK_STR(name, "sdc");
    CHECK_EQ(mp_sysfs_block_name(tree_root, makedev(8, 16), tiny, sizeof tiny), -EOVERFLOW);
    CHECK_STR(tiny, "t");
    tree_end();
}

/* A file that is no directory where one is expected, and a root that is too long. */
TEST(hostile_tree)
{
    struct mp_session *sessions;
    struct mp_disk disk;
    char root[PATH_MAX + 8];
    size_t count;

    tree_begin();
    tree_file(tree_path("class/iscsi_session"), "no directory");
    CHECK_EQ(mp_sysfs_sessions(tree_root, &sessions, &count), 0);
    CHECK_EQ(count, 0);
    memset(root, 'a', sizeof root - 1);
    root[0] = '/';
    root[sizeof root - 1] = '\0';
    CHECK_EQ(mp_sysfs_sessions(root, &sessions, &count), -ENAMETOOLONG);
    CHECK_EQ(mp_sysfs_find_disk(root, 1, 1, 1, &disk), -ENAMETOOLONG);
    tree_end();
}

int main(void)
{
    RUN(no_iscsi);
    RUN(one_session);
    RUN(states);
    RUN(ipv6);
    RUN(newest_first);
    RUN(offload_host);
    RUN(half_there);
    RUN(vanishing_attribute);
    RUN(find_disk);
    RUN(session_disks);
    RUN(holders);
    RUN(block_attributes);
    RUN(device_attribute);
    RUN(block_name);
    RUN(hostile_tree);
    return test_end();
}
