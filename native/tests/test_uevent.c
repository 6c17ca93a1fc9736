/* SPDX-License-Identifier: Apache-2.0 */
#include "../src/uevent.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "test.h"

static char buffer[4096];
static struct mp_uevent event;

/* Parses a string literal with its NULs; the compiler adds the last one. */
#define PARSE(literal)                                                                             \
    (memcpy(buffer, literal, sizeof literal), mp_uevent_parse(buffer, sizeof literal, &event))

#define SDA "/devices/platform/host3/session1/target3:0:0/3:0:0:1/block/sda"

TEST(disk)
{
    CHECK_EQ(PARSE("add@" SDA "\0ACTION=add\0DEVPATH=" SDA "\0SUBSYSTEM=block\0MAJOR=8\0MINOR=16\0"
                   "DEVNAME=sda\0DEVTYPE=disk\0SEQNUM=1234"),
             0);
    CHECK_EQ(event.action, MP_UEVENT_ADD);
    CHECK_STR(event.devpath, SDA);
    CHECK_STR(event.subsystem, "block");
    CHECK_STR(event.devtype, "disk");
    CHECK_STR(event.devname, "sda");
    CHECK(event.dev == makedev(8, 16));
}

TEST(actions)
{
    CHECK_EQ(PARSE("remove@/a"), 0);
    CHECK_EQ(event.action, MP_UEVENT_REMOVE);
    CHECK_EQ(PARSE("change@/a"), 0);
    CHECK_EQ(event.action, MP_UEVENT_CHANGE);
    CHECK_EQ(PARSE("bind@/a"), 0);
    CHECK_EQ(event.action, MP_UEVENT_OTHER);
    CHECK_EQ(PARSE("adder@/a"), 0);
    CHECK_EQ(event.action, MP_UEVENT_OTHER);
}

TEST(map)
{
    CHECK_EQ(PARSE("change@/devices/virtual/block/dm-0\0SUBSYSTEM=block\0DM_TARGET=multipath\0"
                   "DM_ACTION=PATH_FAILED\0DM_PATH=8:16\0DEVNAME=dm-0"),
             0);
    CHECK_EQ(event.action, MP_UEVENT_CHANGE);
    CHECK_STR(event.devname, "dm-0");
    CHECK_STR(event.dm_action, "PATH_FAILED");
}

TEST(absent_values)
{
    CHECK_EQ(PARSE("add@/a"), 0);
    CHECK_STR(event.subsystem, "");
    CHECK_STR(event.devtype, "");
    CHECK_STR(event.devname, "");
    CHECK_STR(event.dm_action, "");
    CHECK(event.dev == 0);
    CHECK_EQ(PARSE("add@/a\0MAJOR=8"), 0);
    CHECK(event.dev == 0);
    CHECK_EQ(PARSE("add@/a\0MINOR=8"), 0);
    CHECK(event.dev == 0);
    CHECK_EQ(PARSE("add@/a\0SUBSYSTEM=\0XDEVNAME=x\0DEVNAMEX=y\0DEVNAME"), 0);
    CHECK_STR(event.subsystem, "");
    CHECK_STR(event.devname, "");
    CHECK_EQ(PARSE("add@/a\0\0\0DEVNAME=b=c@d"), 0); /* empty strings are skipped */
    CHECK_STR(event.devname, "b=c@d");
}

TEST(malformed)
{
    event.devpath = "untouched";
    CHECK_EQ(mp_uevent_parse(buffer, 0, &event), -EPROTO);
    CHECK_EQ(PARSE(""), -EPROTO);
    CHECK_EQ(PARSE("add"), -EPROTO);
    CHECK_EQ(PARSE("@/a"), -EPROTO);
    CHECK_EQ(PARSE("add@"), -EPROTO);
    CHECK_EQ(PARSE("add@a"), -EPROTO);
    CHECK_EQ(PARSE("add\0x@/a"), -EPROTO);
    CHECK_EQ(PARSE("libudev\0\xfe\xed\xca\xfe@/a"), -EPROTO); /* udev's frames have no '@' first */
    CHECK_EQ(PARSE("add@/a\0MAJOR=4096\0MINOR=0"), -EPROTO);
    CHECK_EQ(PARSE("add@/a\0MAJOR=8\0MINOR=1048576"), -EPROTO);
    CHECK_EQ(PARSE("add@/a\0MAJOR=\0MINOR=0"), -EPROTO);
    CHECK_EQ(PARSE("add@/a\0MAJOR=-1\0MINOR=0"), -EPROTO);
    memcpy(buffer, "add@/a", 6);
    CHECK_EQ(mp_uevent_parse(buffer, 6, &event), -EPROTO); /* not terminated */
    CHECK_STR(event.devpath, "untouched");
}

/* Only what comes from the kernel (port id 0) counts. */
TEST(open_and_sender)
{
    struct sockaddr_nl address = {0};
    socklen_t length = sizeof address;
    int fd = -1;

    CHECK_EQ(mp_uevent_open(&fd), 0);
    if (fd < 0)
        return;
    CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    CHECK((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
    CHECK_EQ(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    CHECK_EQ(address.nl_groups, 1);

    int other = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
    struct sockaddr_nl to = {.nl_family = AF_NETLINK, .nl_pid = address.nl_pid};
    static const char forged[] = "add@/devices/forged";

    if (sendto(other, forged, sizeof forged, 0, (const struct sockaddr *)&to, sizeof to) > 0) {
        ssize_t got;
        unsigned seen = 0;

        /* the host's own events may come in between */
        while ((got = mp_uevent_receive(fd, buffer, sizeof buffer)) >= 0) {
            seen += got == 0;
            if (got > 0 && mp_uevent_parse(buffer, (size_t)got, &event) == 0)
                CHECK(strcmp(event.devpath, "/devices/forged") != 0);
        }
        CHECK_EQ(got, -EAGAIN);
        CHECK_EQ(seen, 1);
    }
    close(other);
    close(fd);
}

/* Root may ask the kernel for an event of its own: write the action to a device's uevent file. */
TEST(kernel_event)
{
    int uevent = open("/sys/class/mem/null/uevent", O_WRONLY | O_CLOEXEC);
    bool seen = false;
    int fd = -1;

    CHECK_EQ(mp_uevent_open(&fd), 0);
    if (uevent >= 0 && write(uevent, "change", 6) == 6) {
        struct pollfd entry = {.fd = fd, .events = POLLIN};

        while (!seen && poll(&entry, 1, 2000) == 1) {
            ssize_t got = mp_uevent_receive(fd, buffer, sizeof buffer);

            if (got > 0 && mp_uevent_parse(buffer, (size_t)got, &event) == 0)
                seen = strcmp(event.devname, "null") == 0 && event.action == MP_UEVENT_CHANGE &&
                       event.dev == makedev(1, 3) && strcmp(event.subsystem, "mem") == 0;
        }
        CHECK(seen);
    }
    close(uevent);
    close(fd);
}

/* A datagram that does not fit is a lost event. */
TEST(truncated)
{
    int uevent = open("/sys/class/mem/null/uevent", O_WRONLY | O_CLOEXEC);
    int fd = -1;

    CHECK_EQ(mp_uevent_open(&fd), 0);
    if (uevent >= 0 && write(uevent, "change", 6) == 6) {
        struct pollfd entry = {.fd = fd, .events = POLLIN};

        CHECK_EQ(poll(&entry, 1, 2000), 1);
        CHECK_EQ(mp_uevent_receive(fd, buffer, 16), -ENOBUFS);
    }
    close(uevent);
    close(fd);
}

int main(void)
{
    RUN(disk);
    RUN(actions);
    RUN(map);
    RUN(absent_values);
    RUN(malformed);
    RUN(open_and_sender);
    RUN(kernel_event);
    RUN(truncated);
    return test_end();
}
