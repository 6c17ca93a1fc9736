/* SPDX-License-Identifier: Apache-2.0 */
#include "mounts.h"

#include "bytes.h"
#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum { TEXT_MAX = 16 * 1024 * 1024, CHUNK = 4096 };

/* The field at *at, up to a blank or the line's end; moves *at behind it and the blanks. */
static const char *take_field(const char **at, const char *end, size_t *ret_length)
{
    const char *start = *at;
    const char *stop = start;

    while (stop < end && *stop != ' ' && *stop != '\t')
        stop++;
    *ret_length = (size_t)(stop - start);
    while (stop < end && (*stop == ' ' || *stop == '\t'))
        stop++;
    *at = stop;
    return start;
}

static bool is_octal(char c)
{
    return c >= '0' && c <= '7';
}

/* Blanks, tabs, newlines and backslashes are written as \ooo (kernel fs/seq_file.c mangle_path). What
 * does not fit is cut. */
static void unescape(const char *field, size_t length, char *text, size_t size)
{
    size_t used = 0;

    for (size_t i = 0; i < length && used + 1 < size; i++) {
        if (field[i] == '\\' && length - i > 3 && field[i + 1] <= '3' && is_octal(field[i + 1]) &&
            is_octal(field[i + 2]) && is_octal(field[i + 3])) {
            text[used++] = (char)((field[i + 1] - '0') << 6 | (field[i + 2] - '0') << 3 |
                                  (field[i + 3] - '0'));
            i += 3;
        } else {
            text[used++] = field[i];
        }
    }
    text[used] = '\0';
}

static bool parse_dev(const char *field, size_t length, dev_t *ret_dev)
{
    char text[24];
    const char *at = text;
    uint64_t major_number, minor_number;

    if (length >= sizeof text)
        return false;
    memcpy(text, field, length);
    text[length] = '\0';
    /* kernel include/linux/kdev_t.h: 12 bits of major, 20 bits of minor */
    if (!mp_take_u64(&at, 0xfff, &major_number) || *at++ != ':' ||
        !mp_parse_u64(at, 0xfffff, &minor_number))
        return false;
    *ret_dev = makedev((unsigned)major_number, (unsigned)minor_number);
    return true;
}

/* "36 35 98:0 /root /mnt rw,noatime master:1 - ext3 /dev/sda1 rw": any number of tags before "-" */
static bool parse_mount(const char *at, const char *end, struct mp_mount *mount)
{
    size_t length;
    const char *field;

    take_field(&at, end, &length);
    take_field(&at, end, &length);
    field = take_field(&at, end, &length);
    if (!parse_dev(field, length, &mount->dev))
        return false;
    take_field(&at, end, &length);
    field = take_field(&at, end, &length);
    if (length == 0)
        return false;
    unescape(field, length, mount->point, sizeof mount->point);
    do
        field = take_field(&at, end, &length);
    while (length > 0 && !(length == 1 && *field == '-'));
    take_field(&at, end, &length);
    field = take_field(&at, end, &length);
    unescape(field, length, mount->source, sizeof mount->source);
    return true;
}

/* The end of the line that begins at *cursor, which is moved to the next line. */
static const char *take_line(const char **cursor)
{
    const char *end = *cursor + strcspn(*cursor, "\n");

    *cursor = *end == '\n' ? end + 1 : end;
    return end;
}

bool mp_mounts_next(const char **cursor, struct mp_mount *ret_mount)
{
    while (**cursor != '\0') {
        struct mp_mount mount;
        const char *line = *cursor;

        if (parse_mount(line, take_line(cursor), &mount)) {
            *ret_mount = mount;
            return true;
        }
    }
    return false;
}

/* "/dev/dm-3    partition    1048572    0    -2" after a line of headings */
bool mp_swaps_next(const char **cursor, char *ret_path, size_t size)
{
    while (**cursor != '\0') {
        const char *at = *cursor;
        const char *end = take_line(cursor);
        size_t path_length, kind_length;
        const char *path = take_field(&at, end, &path_length);
        const char *kind = take_field(&at, end, &kind_length);

        if (*path == '/' && kind_length == strlen("partition") &&
            memcmp(kind, "partition", kind_length) == 0) {
            unescape(path, path_length, ret_path, size);
            return true;
        }
    }
    return false;
}

static int read_all(int fd, struct mp_bytes *bytes)
{
    char chunk[CHUNK];

    for (;;) {
        ssize_t length = read(fd, chunk, sizeof chunk);

        if (length < 0 && errno == EINTR)
            continue;
        if (length < 0)
            return -errno;
        int result = mp_bytes_append(bytes, length > 0 ? chunk : "",
                                     length > 0 ? (size_t)length : 1, TEXT_MAX);

        if (result < 0 || length == 0)
            return result;
    }
}

int mp_mounts_read(const char *proc_root, const char *name, char **ret_text)
{
    char path[PATH_MAX];
    struct mp_bytes bytes = {0};

    if ((size_t)snprintf(path, sizeof path, "%s/%s", proc_root, name) >= sizeof path)
        return -ENAMETOOLONG;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    int result = read_all(fd, &bytes);

    close(fd);
    if (result < 0) {
        mp_bytes_free(&bytes);
        return result;
    }
    *ret_text = (char *)bytes.data;
    return 0;
}
