/* SPDX-License-Identifier: Apache-2.0 */
#include "wwids.h"

#include "waiting.h"

#include <manypath/manypath.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_MAX = 16 * 1024 * 1024 };

/* The first line is what multipath-tools look like themselves; all of it is comment to them. */
static const char header[] =
    "# Multipath wwids, Version : 1.0\n"
    "# multipath-tools keep the identifiers of their maps here, one /<wwid>/ per line.\n"
    "#\n"
    "# Valid WWIDs:\n";

static bool is_wwid(const char *wwid)
{
    size_t length = strnlen(wwid, MANYPATH_WWID_SIZE);

    if (length == 0 || length >= MANYPATH_WWID_SIZE)
        return false;
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)wwid[i] < 0x20 || wwid[i] == 0x7f || wwid[i] == '/')
            return false;
    return true;
}

/* multipath-tools use F_SETLKW (libmultipath/file.c). Ours conflicts with it, yet is not lost when
 * another descriptor of this process to the same file is closed. */
static int lock_until(int fd, uint64_t deadline_ns)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    while (fcntl(fd, F_OFD_SETLK, &lock) < 0) {
        if (errno != EAGAIN && errno != EACCES && errno != EINTR)
            return -errno;
        if (!mp_wait_turn(deadline_ns))
            return -ETIMEDOUT;
    }
    return 0;
}

static int read_whole(int fd, char **ret_text, size_t *ret_length)
{
    struct stat status;
    size_t length = 0;

    if (fstat(fd, &status) < 0)
        return -errno;
    if (!S_ISREG(status.st_mode) || status.st_size > FILE_MAX)
        return -EFBIG;
    size_t size = (size_t)status.st_size;
    char *text = malloc(size + 1);

    if (text == NULL)
        return -ENOMEM;
    while (length < size) {
        ssize_t got = pread(fd, text + length, size - length, (off_t)length);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            int error = errno;

            free(text);
            return -error;
        }
        if (got == 0)
            break;
        length += (size_t)got;
    }
    text[length] = '\0';
    *ret_text = text;
    *ret_length = length;
    return 0;
}

/* Is there a line that starts with `entry`? A line whose first byte is '#' was removed. */
static bool has_line(const char *text, size_t length, const char *entry, size_t entry_length)
{
    const char *end = text + length;

    while ((size_t)(end - text) >= entry_length) {
        if (memcmp(text, entry, entry_length) == 0)
            return true;
        const char *newline = memchr(text, '\n', (size_t)(end - text));

        if (newline == NULL)
            return false;
        text = newline + 1;
    }
    return false;
}

/* One write, so that nobody who reads without a lock sees half a line. A part of one is undone. */
static int append(int fd, size_t old_length, const char *text, size_t length)
{
    ssize_t written;

    do
        written = write(fd, text, length);
    while (written < 0 && errno == EINTR);
    if (written < 0)
        return -errno;
    if ((size_t)written != length)
        return ftruncate(fd, (off_t)old_length) < 0 ? -errno : -ENOSPC;
    return fsync(fd) < 0 ? -errno : 0;
}

static int add_locked(int fd, const char *wwid)
{
    char addition[sizeof header + MANYPATH_WWID_SIZE + 8];
    char entry[MANYPATH_WWID_SIZE + 2];
    size_t entry_length = (size_t)snprintf(entry, sizeof entry, "/%s/", wwid);
    size_t length = 0;
    char *text = NULL;
    int r = read_whole(fd, &text, &length);

    if (r < 0)
        return r;
    bool known = has_line(text, length, entry, entry_length);
    bool cut = length > 0 && text[length - 1] != '\n';

    free(text);
    if (known)
        return 0;
    int size = snprintf(addition, sizeof addition, "%s%s%s\n", length == 0 ? header : "",
                        cut ? "\n" : "", entry);

    return append(fd, length, addition, (size_t)size);
}

/* Somebody may replace the file by renaming another one over it while we wait for the lock. */
static bool was_replaced(int fd)
{
    struct stat status;

    return fstat(fd, &status) == 0 && status.st_nlink == 0;
}

int mp_wwids_add(const char *directory, const char *wwid, uint64_t deadline_ns)
{
    char path[PATH_MAX];
    int length = snprintf(path, sizeof path, "%s/wwids", directory);

    if (!is_wwid(wwid))
        return -EINVAL;
    if (length < 0 || (size_t)length >= sizeof path)
        return -ENAMETOOLONG;
    for (;;) {
        int fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0600);

        /* as multipath-tools makes it, should its daemon be installed or started later */
        if (fd < 0 && errno == ENOENT && mkdir(directory, 0700) == 0)
            continue;
        if (fd < 0)
            return -errno;
        int r = lock_until(fd, deadline_ns);
        bool again = r == 0 && was_replaced(fd);

        if (r == 0 && !again)
            r = add_locked(fd, wwid);
        close(fd); /* and unlocks */
        if (!again)
            return r;
    }
}
