/* SPDX-License-Identifier: Apache-2.0 */
#include "iscsid.h"

#include "text.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int mp_iscsid_connect(const char *name, uid_t owner, int *ret_fd, pid_t *ret_listener)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(name);
    struct ucred peer;
    socklen_t peer_size = sizeof peer;
    int result = 0;

    if (length == 0 || length > sizeof address.sun_path - 1)
        return -EINVAL;
    /* an abstract name: a leading NUL, no trailing one; the length is part of the address */
    memcpy(address.sun_path + 1, name, length);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&address,
                (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length)) < 0)
        result = -errno;
    else if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &peer_size) < 0)
        result = -errno;
    else if (peer.uid != owner)
        result = -EPERM;
    if (result < 0) {
        close(fd);
        return result;
    }
    *ret_fd = fd;
    *ret_listener = peer.pid;
    return 0;
}

int mp_iscsid_send(int fd, const uint8_t *request, size_t size)
{
    ssize_t sent = send(fd, request, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    int result = sent < 0 ? -errno : (size_t)sent < size ? -EIO : 0;

    shutdown(fd, SHUT_WR);
    return result;
}

/* Field 22 of /proc/PID/stat; the command name before it may hold anything, so count from its last
 * ')'. */
static bool start_time(uint64_t pid, uint64_t *ret_ticks)
{
    char path[64];
    char stat[1024];

    snprintf(path, sizeof path, "/proc/%" PRIu64 "/stat", pid);
    if (mp_read_file(path, stat, sizeof stat) < 0)
        return false;
    const char *at = strrchr(stat, ')');

    for (int field = 2; at != NULL && field < 22; field++)
        at = strchr(at + 1, ' ');
    if (at == NULL)
        return false;
    at++;
    return mp_take_u64(&at, UINT64_MAX, ret_ticks);
}

void mp_iscsid_process(pid_t listener, const char *pidfile, struct mp_iscsid_process *ret_process)
{
    char text[32];
    struct mp_iscsid_process process = {.pid = listener > 1 ? (uint64_t)listener : 0};

    if ((process.pid == 0 || !start_time(process.pid, &process.start_time)) &&
        (mp_read_file(pidfile, text, sizeof text) < 0 ||
         !mp_parse_u64(text, INT_MAX, &process.pid) ||
         !start_time(process.pid, &process.start_time)))
        memset(&process, 0, sizeof process);
    *ret_process = process;
}
