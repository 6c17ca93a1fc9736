/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linked with native/src/ into libmanypath_fake.so: what the library asks of the kernel is asked of
 * tests/fake/host.py instead. Weak functions of the library are overridden here; write(), open(),
 * openat(), fsync(), setxattr() and getxattr() are wrapped by the linker (--wrap) and go on to the real ones unless they
 * concern the fake host. Hooks are called in the library's own threads; they return 0 or a negative
 * errno.
 */
#include "dm.h"
#include "identity.h"
#include "openers.h"
#include "scsi.h"
#include "uevent.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <scsi/sg.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

struct mp_fake_hooks {
    int (*dm_ioctl)(unsigned long request, void *argument);
    /* Returns the length of the page written to `page`. */
    int (*inquiry)(const char *path, int page_code, uint8_t *page, int size);
    int (*size)(const char *path, uint64_t *ret_bytes);
    int (*ready)(const char *path);
    /* Returns the length of what REPORT TARGET PORT GROUPS brings. */
    int (*port_groups)(const char *path, int extended, uint8_t *data, int size);
    int (*identity_check)(const char *path, uint64_t dev);
    int (*uevent_open)(void); /* returns a descriptor */
    int (*attribute)(const char *path, const char *text);
    int (*open_exclusive)(const char *path);
    int (*fsync)(const char *path);
    int (*capacity)(const char *path, uint64_t *ret_bytes);
    int (*opened)(const char *path, uint64_t *ret_dev);
};

/* Set once, before the library is used. */
static struct mp_fake_hooks hooks;

__attribute__((visibility("default"))) void mp_fake_install(const struct mp_fake_hooks *all);

void mp_fake_install(const struct mp_fake_hooks *all)
{
    hooks = *all;
}

static bool path_of(int fd, char *path, size_t size)
{
    char link[64];

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);

    if (length < 0)
        return false;
    path[length] = '\0';
    return true;
}

/* listen() in a child: the library sees that process as the listener. It is gone when this returns,
 * as the one that iscsid forks from, or stays, stopped, as iscsid -f. Returns its pid. */
__attribute__((visibility("default"))) int mp_fake_listen(int fd, int backlog, bool stay);

int mp_fake_listen(int fd, int backlog, bool stay)
{
    int status = 0;
    pid_t child = fork();

    if (child == 0) {
        if (listen(fd, backlog) < 0)
            _exit(1);
        if (stay) {
            close_range(0, ~0U, 0);
            raise(SIGSTOP);
        }
        _exit(0);
    }
    if (child < 0 || waitpid(child, &status, WUNTRACED) < 0)
        return -errno;
    return WIFSTOPPED(status) || WEXITSTATUS(status) == 0 ? child : -EIO;
}

int mp_dm_ioctl(int fd, unsigned long request, void *argument)
{
    (void)fd;
    return hooks.dm_ioctl(request, argument);
}

static void set_sense(struct sg_io_hdr *io, unsigned key, unsigned code)
{
    const uint8_t sense[14] = {0x70, 0, (uint8_t)key, [7] = 10, [12] = (uint8_t)code};

    memcpy(io->sbp, sense, sizeof sense);
    io->sb_len_wr = sizeof sense;
    io->status = 0x02;
}

/* READ CAPACITY (16), in blocks of 512 bytes. */
static int read_capacity(const char *path, struct sg_io_hdr *io)
{
    uint8_t *data = io->dxferp;
    uint64_t bytes = 0;
    int result = hooks.capacity(path, &bytes);

    if (result < 0)
        return result;
    memset(data, 0, io->dxfer_len);
    for (unsigned i = 0; i < 8; i++)
        data[i] = (uint8_t)((bytes / 512 - 1) >> (56 - 8 * i));
    data[10] = 2;
    return (int)io->dxfer_len;
}

static int command(const char *path, struct sg_io_hdr *io)
{
    int length;

    switch (io->cmdp[0]) {
    case 0x00: /* TEST UNIT READY */
        return hooks.ready(path);
    case 0xa3: /* MAINTENANCE IN: REPORT TARGET PORT GROUPS */
        length = hooks.port_groups(path, io->cmdp[1] & 0x20, io->dxferp, (int)io->dxfer_len);
        break;
    case 0x9e: /* SERVICE ACTION IN (16): READ CAPACITY */
        length = read_capacity(path, io);
        break;
    default: /* INQUIRY */
        length = hooks.inquiry(path, io->cmdp[2], io->dxferp, (int)io->dxfer_len);
    }

    if (length < 0)
        return length;
    io->resid = (int)io->dxfer_len - length;
    return 0;
}

/* -ENXIO from a hook stands for ILLEGAL REQUEST, LOGICAL UNIT NOT SUPPORTED. */
static int send_command(const char *path, struct sg_io_hdr *io)
{
    int result = command(path, io);

    if (result != -ENXIO)
        return result;
    set_sense(io, 5, 0x25);
    return 0;
}

int mp_scsi_ioctl(int fd, unsigned long request, void *argument)
{
    char path[PATH_MAX];

    if (!path_of(fd, path, sizeof path))
        return -EBADF;
    if (request == SG_IO)
        return send_command(path, argument);
    return request == BLKGETSIZE64 ? hooks.size(path, argument) : -ENOTTY;
}

bool mp_identity_check(int fd, dev_t dev)
{
    char path[PATH_MAX];

    return path_of(fd, path, sizeof path) && hooks.identity_check(path, dev) == 0;
}

int mp_opened_device(int directory, const char *number, dev_t *ret_dev)
{
    char path[PATH_MAX];
    uint64_t dev = 0;
    ssize_t length = readlinkat(directory, number, path, sizeof path - 1);

    if (length < 0)
        return -errno;
    path[length] = '\0';
    int result = hooks.opened(path, &dev);

    *ret_dev = (dev_t)dev;
    return result;
}

int mp_uevent_open(int *ret_fd)
{
    int fd = hooks.uevent_open();

    if (fd < 0)
        return fd;
    *ret_fd = fd;
    return 0;
}

/* A datagram "LOST" stands for an overrun receive buffer. */
ssize_t mp_uevent_receive(int fd, char *buffer, size_t size)
{
    ssize_t length = recv(fd, buffer, size, MSG_DONTWAIT);

    if (length < 0)
        return -errno;
    if (length == 0) /* the fake host is gone */
        return -EAGAIN;
    return length == 4 && memcmp(buffer, "LOST", 4) == 0 ? -ENOBUFS : length;
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text);

    return length >= strlen(end) && strcmp(text + length - strlen(end), end) == 0;
}

/* As if the kernel had done it: an attribute's write returns when it is done. */
static int write_attribute(int fd, const void *bytes, size_t size)
{
    char path[PATH_MAX];
    char text[128];
    struct stat status;

    if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) || size >= sizeof text ||
        !path_of(fd, path, sizeof path) ||
        (!ends_with(path, "/scan") && !ends_with(path, "/delete") && !ends_with(path, "/rescan") &&
         !ends_with(path, "/recovery_tmo")))
        return 1;
    memcpy(text, bytes, size);
    text[size] = '\0';
    return hooks.attribute(path, text);
}

ssize_t __real_write(int fd, const void *bytes, size_t size);
ssize_t __wrap_write(int fd, const void *bytes, size_t size);

ssize_t __wrap_write(int fd, const void *bytes, size_t size)
{
    int result = write_attribute(fd, bytes, size);

    if (result > 0)
        return __real_write(fd, bytes, size);
    if (result == 0)
        return (ssize_t)size;
    errno = -result;
    return -1;
}

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);

int __wrap_open(const char *path, int flags, ...)
{
    mode_t mode = 0;
    va_list args;

    if (flags & O_CREAT) {
        va_start(args, flags);
        mode = va_arg(args, mode_t);
        va_end(args);
    } else if (flags & O_EXCL) { /* only block devices are opened like this */
        int result = hooks.open_exclusive(path);

        if (result < 0) {
            errno = -result;
            return -1;
        }
        flags &= ~O_EXCL;
    }
    return __real_open(path, flags, mode);
}

int __real_fsync(int fd);
int __wrap_fsync(int fd);

int __wrap_fsync(int fd)
{
    char path[PATH_MAX];
    int result = path_of(fd, path, sizeof path) ? hooks.fsync(path) : -EBADF;

    if (result == 0)
        return __real_fsync(fd);
    errno = -result;
    return -1;
}

/* What cannot be opened, as without free descriptors; NULL: nothing. Set while no operation runs that
 * might look. */
static const char *_Atomic denied_part;
static atomic_int denied_number;

__attribute__((visibility("default"))) void mp_fake_deny(const char *part, int number);

void mp_fake_deny(const char *part, int number)
{
    atomic_store(&denied_number, number);
    atomic_store(&denied_part, part);
}

int __real_openat(int at, const char *path, int flags, ...);
int __wrap_openat(int at, const char *path, int flags, ...);

int __wrap_openat(int at, const char *path, int flags, ...)
{
    const char *part = atomic_load(&denied_part);
    mode_t mode = 0;
    va_list args;

    if (flags & O_CREAT) {
        va_start(args, flags);
        mode = va_arg(args, mode_t);
        va_end(args);
    }
    if (part != NULL && strstr(path, part) != NULL) {
        errno = atomic_load(&denied_number);
        return -1;
    }
    return __real_openat(at, path, flags, mode);
}

/* Extended attributes of sysfs, which a file system in memory lets only root set: a file each. */
static int attribute_file(const char *path, const char *name, char *file, size_t size)
{
    return (size_t)snprintf(file, size, "%s/xattr-%s", path, name) < size ? 0 : -1;
}

int __wrap_setxattr(const char *path, const char *name, const void *value, size_t size, int flags);

int __wrap_setxattr(const char *path, const char *name, const void *value, size_t size, int flags)
{
    char file[PATH_MAX];

    (void)value;
    (void)size;
    (void)flags;
    if (attribute_file(path, name, file, sizeof file) < 0)
        return -1;
    int fd = __real_open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    return fd < 0 ? -1 : close(fd);
}

ssize_t __wrap_getxattr(const char *path, const char *name, void *value, size_t size);

ssize_t __wrap_getxattr(const char *path, const char *name, void *value, size_t size)
{
    char file[PATH_MAX];

    (void)value;
    (void)size;
    return attribute_file(path, name, file, sizeof file) < 0 ? -1 : access(file, F_OK);
}
