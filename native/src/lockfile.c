/* SPDX-License-Identifier: Apache-2.0 */
#include "lockfile.h"

#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
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

/* ---- forks of the host program ---- */

/* A lock belongs to the open file, which a forked child has as well: while that lives, a lock of ours
 * would outlive us. So the child closes what is listed here. The mutex is held from open to listed and
 * from close to unlisted; a fork waits for it, so the child finds the list whole. */
struct open_file {
    LIST_ENTRY(open_file) link;
    int fd;
};

static LIST_HEAD(, open_file) open_files = LIST_HEAD_INITIALIZER(open_files);
static pthread_mutex_t open_files_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t fork_handlers = PTHREAD_ONCE_INIT;
static int fork_handlers_result;

static void before_fork(void)
{
    pthread_mutex_lock(&open_files_lock);
}

static void after_fork(void)
{
    pthread_mutex_unlock(&open_files_lock);
}

/* Only what is allowed in a signal handler: the other threads are gone, perhaps in the middle of
 * malloc(). So the list's memory stays. An unlock here would unlock the parent's. */
static void in_child(void)
{
    const struct open_file *file;

    LIST_FOREACH(file, &open_files, link)
    close(file->fd);
    LIST_INIT(&open_files);
    pthread_mutex_unlock(&open_files_lock);
}

static void add_fork_handlers(void)
{
    fork_handlers_result = -pthread_atfork(before_fork, after_fork, in_child);
}

/* openat() and close() of lock files. */
static int open_listed(int dir, const char *name)
{
    struct open_file *file = malloc(sizeof *file);
    int result;

    pthread_once(&fork_handlers, add_fork_handlers);
    if (file == NULL || fork_handlers_result < 0) {
        free(file);
        return -ENOMEM;
    }
    pthread_mutex_lock(&open_files_lock);
    file->fd = openat(dir, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    result = file->fd < 0 ? -errno : file->fd;
    if (result >= 0)
        LIST_INSERT_HEAD(&open_files, file, link);
    pthread_mutex_unlock(&open_files_lock);
    if (result < 0)
        free(file);
    return result;
}

void mp_lockfile_close(int fd)
{
    struct open_file *file;

    if (fd < 0)
        return;
    pthread_mutex_lock(&open_files_lock);
    LIST_FOREACH(file, &open_files, link)
    if (file->fd == fd)
        break;
    if (file != NULL)
        LIST_REMOVE(file, link);
    close(fd);
    pthread_mutex_unlock(&open_files_lock);
    free(file);
}

/* ---- files ---- */

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
    int fd = open_listed(dir, name);

    close(dir);
    if (fd >= 0 && (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode))) {
        mp_lockfile_close(fd);
        return -EPERM;
    }
    return fd;
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
        if (*fd >= 0) {
            /* others may wait for it: a close alone unlocks nothing if a child has it too */
            mp_lockfile_unlock(*fd);
            mp_lockfile_close(*fd);
        }
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

    /* Alone with it? Who opened it before it goes finds out when it has the lock, and opens again. Asked
     * without our own lock: of two who share it and let go at once, each would keep the other from it. */
    mp_lockfile_unlock(fd);
    if (set_lock(fd, F_WRLCK) == 0 && is_current(directory, name, fd)) {
        snprintf(path, sizeof path, "%s/%s", directory, name);
        unlink(path);
    }
    mp_lockfile_unlock(fd);
    mp_lockfile_close(fd);
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
