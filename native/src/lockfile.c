/* SPDX-License-Identifier: Apache-2.0 */
#include "lockfile.h"

#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    NAME_TEXT_MAX = MP_LOCKFILE_NAME_SIZE - 32, /* leaves room for the hash */
    OWNER_DIGITS = 10,
    /* A file is replaced while we lock it only as often as others let go of it meanwhile. */
    REPLACED_MAX = 100,
};

/* FNV-1a. Two keys with one name would only wait for each other. */
static uint64_t hash(const char *text)
{
    uint64_t value = UINT64_C(0xcbf29ce484222325);

    for (; *text != '\0'; text++)
        value = (value ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
    return value;
}

static bool fits_a_name(char byte)
{
    return (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') ||
           (byte >= 'A' && byte <= 'Z') || (byte != '\0' && strchr(".:_-", byte) != NULL);
}

void mp_lockfile_name(const char *kind, const char *what, char name[MP_LOCKFILE_NAME_SIZE])
{
    size_t used = (size_t)snprintf(name, NAME_TEXT_MAX, "%s-", kind);
    bool whole = true;
    const char *at = what;

    for (; *at != '\0' && used < NAME_TEXT_MAX; at++) {
        bool fits = fits_a_name(*at);

        name[used++] = fits ? *at : '_';
        whole = whole && fits;
    }
    name[used] = '\0';
    if (!whole || *at != '\0')
        snprintf(name + used, MP_LOCKFILE_NAME_SIZE - used, "-%016" PRIx64, hash(what));
}

/* A directory that others can write to is no place for a lock: they could take our files away. */
static int check_directory(int fd)
{
    struct stat status;

    if (fstat(fd, &status) < 0)
        return -errno;
    return status.st_uid == geteuid() && (status.st_mode & (S_IWGRP | S_IWOTH)) == 0 ? 0 : -EPERM;
}

static int open_directory(const char *directory)
{
    const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    int fd = open(directory, flags);

    if (fd < 0 && errno == ENOENT) {
        if (mkdir(directory, 0700) < 0 && errno != EEXIST)
            return -errno;
        fd = open(directory, flags);
    }
    if (fd < 0)
        return -errno;
    int result = check_directory(fd);

    if (result < 0) {
        close(fd);
        return result;
    }
    return fd;
}

static int open_file(const char *directory, const char *name)
{
    struct stat status;
    int dir = open_directory(directory);

    if (dir < 0)
        return dir;
    int fd = openat(dir, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    int result = fd < 0 ? -errno : 0;

    close(dir);
    if (result == 0 && (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode))) {
        close(fd);
        return -EPERM;
    }
    return result < 0 ? result : fd;
}

static int set_lock(int fd, short type)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET};

    if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
        return 0;
    return errno == EACCES ? -EAGAIN : -errno;
}

/* The descriptor's file still has its name: its last holder may have removed it while we waited. */
static bool is_current(const char *directory, const char *name, int fd)
{
    char path[PATH_MAX];
    struct stat mine, named;

    return (size_t)snprintf(path, sizeof path, "%s/%s", directory, name) < sizeof path &&
           fstat(fd, &mine) == 0 && lstat(path, &named) == 0 && mine.st_ino == named.st_ino &&
           mine.st_dev == named.st_dev;
}

static void set_owner(int fd)
{
    char text[OWNER_DIGITS + 2];

    snprintf(text, sizeof text, "%0*u\n", OWNER_DIGITS, (unsigned)getpid());
    ssize_t written = pwrite(fd, text, OWNER_DIGITS + 1, 0);

    (void)written; /* only a hint */
}

static int take_once(const char *directory, const char *name, bool exclusive, int *fd)
{
    if (*fd < 0)
        *fd = open_file(directory, name);
    if (*fd < 0)
        return *fd;
    return set_lock(*fd, exclusive ? F_WRLCK : F_RDLCK);
}

int mp_lockfile_take(const char *directory, const char *name, bool exclusive, int *fd)
{
    int result;

    for (int i = 0; i < REPLACED_MAX; i++) {
        result = take_once(directory, name, exclusive, fd);
        if (result == 0 && is_current(directory, name, *fd)) {
            set_owner(*fd);
            return 0;
        }
        if (result == -EAGAIN)
            return result;
        if (*fd >= 0)
            close(*fd);
        *fd = -1;
        if (result < 0)
            return result;
    }
    return -EAGAIN;
}

void mp_lockfile_share(int fd)
{
    set_lock(fd, F_RDLCK);
}

void mp_lockfile_unlock(int fd)
{
    set_lock(fd, F_UNLCK);
}

void mp_lockfile_drop(const char *directory, const char *name, int fd)
{
    char path[PATH_MAX];

    /* Alone with it? Who opened it before it goes finds out when it has the lock, and opens again. */
    if (set_lock(fd, F_WRLCK) == 0 && is_current(directory, name, fd)) {
        snprintf(path, sizeof path, "%s/%s", directory, name);
        unlink(path);
    }
    mp_lockfile_unlock(fd);
    close(fd);
}

void mp_lockfile_close(int fd)
{
    if (fd >= 0)
        close(fd);
}

pid_t mp_lockfile_owner(int fd)
{
    char text[OWNER_DIGITS + 1];
    uint64_t pid;

    if (pread(fd, text, OWNER_DIGITS, 0) != OWNER_DIGITS)
        return 0;
    text[OWNER_DIGITS] = '\0';
    return mp_parse_u64(text, INT32_MAX, &pid) ? (pid_t)pid : 0;
}
