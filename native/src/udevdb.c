/* SPDX-License-Identifier: Apache-2.0 */
#include "udevdb.h"

#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum { ENTRY_MAX = 64 * 1024 }; /* a disk with many links has some KiB */

/* As libdevmapper's names, which multipathd uses: anything else it would write differently. */
static bool is_map_character(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("#+-.:=@_", c) != NULL);
}

static int take_serial(const char *value, size_t length, struct mp_udevdb *entry)
{
    if (length >= sizeof entry->id_serial)
        return -EPROTO;
    for (size_t i = 0; i < length; i++)
        if (!is_map_character(value[i]))
            return -EPROTO;
    memcpy(entry->id_serial, value, length);
    entry->id_serial[length] = '\0';
    return 0;
}

static void take_time(const char *value, size_t length, struct mp_udevdb *entry)
{
    char digits[24];

    if (length >= sizeof digits)
        return;
    memcpy(digits, value, length);
    digits[length] = '\0';
    mp_parse_u64(digits, UINT64_MAX, &entry->initialized_us);
}

int mp_udevdb_parse(const char *text, size_t length, struct mp_udevdb *ret_entry)
{
    static const char serial[] = "E:ID_SERIAL=";
    struct mp_udevdb entry = {.initialized_us = 0};
    const char *end = text + length;
    int result = 0;

    while (text < end && result == 0) {
        const char *newline = memchr(text, '\n', (size_t)(end - text));
        size_t line = newline != NULL ? (size_t)(newline - text) : (size_t)(end - text);

        if (line >= sizeof serial - 1 && memcmp(text, serial, sizeof serial - 1) == 0)
            result = take_serial(text + sizeof serial - 1, line - (sizeof serial - 1), &entry);
        else if (line > 2 && memcmp(text, "I:", 2) == 0)
            take_time(text + 2, line - 2, &entry);
        text += line + (newline != NULL);
    }
    if (result == 0)
        *ret_entry = entry;
    return result;
}

int mp_udevdb_read(const char *folder, dev_t dev, struct mp_udevdb *ret_entry)
{
    char path[PATH_MAX];
    char text[ENTRY_MAX];
    size_t length = 0;
    ssize_t got;

    if ((size_t)snprintf(path, sizeof path, "%s/b%u:%u", folder, major(dev), minor(dev)) >=
        sizeof path)
        return -ENAMETOOLONG;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    do {
        got = read(fd, text + length, sizeof text - length);
        if (got > 0)
            length += (size_t)got;
    } while ((got > 0 && length < sizeof text) || (got < 0 && errno == EINTR));
    int error = errno;

    close(fd);
    if (got < 0)
        return -error;
    return length < sizeof text ? mp_udevdb_parse(text, length, ret_entry) : -EOVERFLOW;
}
