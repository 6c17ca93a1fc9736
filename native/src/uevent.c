/* SPDX-License-Identifier: Apache-2.0 */
#include "uevent.h"

#include "text.h"

#include <errno.h>
#include <linux/netlink.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum {
    KERNEL_GROUP = 1,                  /* group 2 is udev's */
    RECEIVE_BUFFER = 16 * 1024 * 1024, /* some 10000 events: hundreds of disks at once */
};

/* Weak, as the next one: nobody but the kernel can send a kernel's uevent, so tests stand in. */
__attribute__((weak)) int mp_uevent_open(int *ret_fd)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = KERNEL_GROUP};
    int size = RECEIVE_BUFFER;
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);

    if (fd < 0)
        return -errno;
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) < 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    if (bind(fd, (const struct sockaddr *)&address, sizeof address) < 0) {
        int error = errno;

        close(fd);
        return -error;
    }
    *ret_fd = fd;
    return 0;
}

__attribute__((weak)) ssize_t mp_uevent_receive(int fd, char *buffer, size_t size)
{
    struct sockaddr_nl sender = {0};
    struct iovec part = {.iov_base = buffer, .iov_len = size};
    struct msghdr message = {
        .msg_name = &sender,
        .msg_namelen = sizeof sender,
        .msg_iov = &part,
        .msg_iovlen = 1,
    };
    ssize_t length;

    do
        length = recvmsg(fd, &message, MSG_DONTWAIT);
    while (length < 0 && errno == EINTR);
    if (length < 0)
        return -errno;
    /* port id 0 is the kernel; a process may send to the group too, if it is privileged */
    if (message.msg_namelen != sizeof sender || sender.nl_family != AF_NETLINK ||
        sender.nl_pid != 0)
        return 0;
    if (message.msg_flags & MSG_TRUNC)
        return -ENOBUFS;
    return length;
}

static enum mp_uevent_action parse_action(const char *text)
{
    if (strcmp(text, "add") == 0)
        return MP_UEVENT_ADD;
    if (strcmp(text, "remove") == 0)
        return MP_UEVENT_REMOVE;
    if (strcmp(text, "change") == 0)
        return MP_UEVENT_CHANGE;
    return MP_UEVENT_OTHER;
}

/* The text after "<key>=", or NULL. */
static const char *value_of(const char *pair, const char *key)
{
    size_t length = strlen(key);

    return strncmp(pair, key, length) == 0 && pair[length] == '=' ? pair + length + 1 : NULL;
}

struct numbers {
    uint64_t major_number, minor_number;
    bool has_major, has_minor;
};

static bool parse_pair(const char *pair, struct mp_uevent *event, struct numbers *numbers)
{
    const char *value;

    if ((value = value_of(pair, "SUBSYSTEM")) != NULL)
        event->subsystem = value;
    else if ((value = value_of(pair, "DEVTYPE")) != NULL)
        event->devtype = value;
    else if ((value = value_of(pair, "DEVNAME")) != NULL)
        event->devname = value;
    else if ((value = value_of(pair, "DM_ACTION")) != NULL)
        event->dm_action = value;
    else if ((value = value_of(pair, "MAJOR")) !=
             NULL) /* kernel include/linux/kdev_t.h: 12 and 20 bits */
        return numbers->has_major = mp_parse_u64(value, 0xfff, &numbers->major_number);
    else if ((value = value_of(pair, "MINOR")) != NULL)
        return numbers->has_minor = mp_parse_u64(value, 0xfffff, &numbers->minor_number);
    return true;
}

int mp_uevent_parse(char *buffer, size_t length, struct mp_uevent *ret_event)
{
    struct mp_uevent event = {
        .devpath = "", .subsystem = "", .devtype = "", .devname = "", .dm_action = ""};
    struct numbers numbers = {0};

    /* kernel lib/kobject_uevent.c: every string is terminated, the last one too */
    if (length == 0 || buffer[length - 1] != '\0')
        return -EPROTO;
    char *at = strchr(buffer, '@');

    if (at == NULL || at == buffer || at[1] != '/')
        return -EPROTO;
    *at = '\0';
    event.action = parse_action(buffer);
    event.devpath = at + 1;
    const char *end = buffer + length;

    for (const char *pair = at + 1 + strlen(at + 1) + 1; pair < end; pair += strlen(pair) + 1)
        if (!parse_pair(pair, &event, &numbers))
            return -EPROTO;
    if (numbers.has_major && numbers.has_minor)
        event.dev = makedev((unsigned)numbers.major_number, (unsigned)numbers.minor_number);
    *ret_event = event;
    return 0;
}
