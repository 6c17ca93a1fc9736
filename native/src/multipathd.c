/* SPDX-License-Identifier: Apache-2.0 */
#include "multipathd.h"

#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    COMMAND_MAX = 511,            /* multipath-tools multipathd/uxsock.h, less the NUL */
    REPLY_MAX = 32 * 1024 * 1024, /* the same */
};

bool mp_multipathd_running(const char *pidfile)
{
    struct flock lock = {.l_type = F_RDLCK,
                         .l_whence = SEEK_SET}; /* conflicts with a write lock only */
    int fd = open(pidfile, O_RDONLY | O_CLOEXEC);

    if (fd < 0) /* what cannot be known (no descriptors) is no reason to do its work */
        return errno != ENOENT && errno != ENOTDIR && errno != EACCES;
    bool locked = fcntl(fd, F_GETLK, &lock) < 0 || lock.l_type == F_WRLCK;

    close(fd);
    return locked;
}

/* Milliseconds until the deadline, at least 1; 0 when it has passed. */
static int remaining_ms(uint64_t deadline_ns)
{
    uint64_t now = mp_now_ns();

    if (now >= deadline_ns)
        return 0;
    uint64_t ms = (deadline_ns - now + 999999) / 1000000;

    return ms < 24 * 3600 * 1000 ? (int)ms : 24 * 3600 * 1000;
}

static int wait_for(int fd, short events, uint64_t deadline_ns)
{
    struct pollfd entry = {.fd = fd, .events = events};

    for (;;) {
        int timeout = remaining_ms(deadline_ns);

        if (timeout == 0)
            return -ETIMEDOUT;
        int r = poll(&entry, 1, timeout);

        if (r > 0)
            return 0;
        if (r < 0 && errno != EINTR)
            return -errno;
    }
}

/* With a full backlog a non-blocking connect() gives EAGAIN and nothing to poll for: so block, with
 * a timeout. */
static int connect_until(int fd, const struct sockaddr_un *address, socklen_t length,
                         uint64_t deadline_ns)
{
    for (;;) {
        int timeout = remaining_ms(deadline_ns);
        struct timeval limit = {.tv_sec = timeout / 1000, .tv_usec = timeout % 1000 * 1000};

        if (timeout == 0)
            return -ETIMEDOUT;
        if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) < 0)
            return -errno;
        if (connect(fd, (const struct sockaddr *)address, length) == 0)
            return 0;
        if (errno != EINTR && errno != EAGAIN)
            return -errno;
    }
}

static int check_peer(int fd, uid_t owner)
{
    struct ucred peer;
    socklen_t length = sizeof peer;

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0)
        return -errno;
    return peer.uid == owner ? 0 : -EPERM;
}

static int open_connection(const char *name, uid_t owner, uint64_t deadline_ns, int *ret_fd)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strnlen(name, sizeof address.sun_path);

    if (length == 0 || length >= sizeof address.sun_path)
        return -EINVAL;
    memcpy(address.sun_path + 1, name, length);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    int r = connect_until(fd, &address,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length),
                          deadline_ns);

    if (r == 0)
        r = check_peer(fd, owner);
    if (r == 0 && fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) < 0)
        r = -errno;
    if (r < 0) {
        close(fd);
        return r;
    }
    *ret_fd = fd;
    return 0;
}

/* The peer broke off: for the caller that is a broken frame. */
static int transfer_error(int error)
{
    return error == EPIPE || error == ECONNRESET ? -EPROTO : -error;
}

static int send_all(int fd, const unsigned char *bytes, size_t size, uint64_t deadline_ns)
{
    while (size > 0) {
        ssize_t sent = send(fd, bytes, size, MSG_NOSIGNAL);

        if (sent >= 0) {
            bytes += sent;
            size -= (size_t)sent;
        } else if (errno == EAGAIN) {
            int r = wait_for(fd, POLLOUT, deadline_ns);

            if (r < 0)
                return r;
        } else if (errno != EINTR) {
            return transfer_error(errno);
        }
    }
    return 0;
}

static int receive_all(int fd, void *buffer, size_t size, uint64_t deadline_ns)
{
    unsigned char *at = buffer;

    while (size > 0) {
        int r = wait_for(fd, POLLIN, deadline_ns);

        if (r < 0)
            return r;
        ssize_t received = recv(fd, at, size, 0);

        if (received == 0)
            return -EPROTO;
        if (received > 0) {
            at += received;
            size -= (size_t)received;
        } else if (errno != EINTR && errno != EAGAIN) {
            return transfer_error(errno);
        }
    }
    return 0;
}

/* A frame is a native size_t, the length with the NUL, and the text (libmpathcmd). */
static int send_command(int fd, const char *command, uint64_t deadline_ns)
{
    unsigned char frame[sizeof(size_t) + COMMAND_MAX + 1];
    size_t length = strlen(command) + 1;

    memcpy(frame, &length, sizeof length);
    memcpy(frame + sizeof length, command, length);
    return send_all(fd, frame, sizeof length + length, deadline_ns);
}

static int receive_reply(int fd, uint64_t deadline_ns, char **ret_reply)
{
    size_t length;
    int r = receive_all(fd, &length, sizeof length, deadline_ns);

    if (r < 0)
        return r;
    if (length == 0 || length > REPLY_MAX)
        return -EPROTO;
    char *reply = malloc(length + 1);

    if (reply == NULL)
        return -ENOMEM;
    r = receive_all(fd, reply, length, deadline_ns);
    if (r < 0) {
        free(reply);
        return r;
    }
    reply[length] = '\0';
    *ret_reply = reply;
    return 0;
}

int mp_multipathd_command(const char *socket, uid_t owner, const char *command,
                          uint64_t deadline_ns, char **ret_reply)
{
    size_t length = strnlen(command, COMMAND_MAX + 1);
    int fd = -1;

    if (length == 0 || length > COMMAND_MAX)
        return -EINVAL;
    int r = open_connection(socket, owner, deadline_ns, &fd);

    if (r < 0)
        return r;
    r = send_command(fd, command, deadline_ns);
    if (r == 0)
        r = receive_reply(fd, deadline_ns, ret_reply);
    close(fd);
    return r;
}

/* The words of multipathd's answers and what they mean; the first one found counts. */
static const struct {
    const char *words;
    int result;
} answers[] = {
    {"permission den", -EPERM}, /* "permission deny: need to be root" */
    {"timeout", -EAGAIN},       {"in use", -EBUSY},     {"blacklisted", -EACCES},
    {"delayed", -EINPROGRESS},  {"not found", -ENODEV},
};

/* What an unknown command is answered with: "<command>: not found" and the help text. */
static bool is_help(const char *reply)
{
    return strstr(reply, "multipath-tools v") != NULL ||
           strstr(reply, "CLI commands reference") != NULL;
}

int mp_multipathd_reply_errno(const char *reply)
{
    char head[128]; /* the verdict and its detail line */

    mp_copy(head, sizeof head, reply);
    if (strcmp(head, "ok") == 0 || strcmp(head, "ok\n") == 0)
        return 0;
    if (is_help(reply))
        return -EIO;
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++)
        if (strstr(head, answers[i].words) != NULL)
            return answers[i].result;
    return -EIO;
}
