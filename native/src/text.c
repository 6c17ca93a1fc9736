/* SPDX-License-Identifier: Apache-2.0 */
#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

bool mp_take_u64(const char **cursor, uint64_t max, uint64_t *ret_value)
{
    const char *at = *cursor;
    uint64_t value = 0;

    if (*at < '0' || *at > '9')
        return false;
    for (; *at >= '0' && *at <= '9'; at++) {
        uint64_t digit = (uint64_t)(*at - '0');

        if (digit > max || value > (max - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *cursor = at;
    *ret_value = value;
    return true;
}

bool mp_parse_u64(const char *text, uint64_t max, uint64_t *ret_value)
{
    uint64_t value;

    if (!mp_take_u64(&text, max, &value) || *text != '\0')
        return false;
    *ret_value = value;
    return true;
}

bool mp_copy(char *destination, size_t size, const char *source)
{
    size_t length = strnlen(source, size);
    bool fits = length < size;

    if (!fits)
        length = size - 1;
    memcpy(destination, source, length);
    destination[length] = '\0';
    return fits;
}

int mp_read_file(const char *path, char *buffer, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length;

    if (fd < 0)
        return -errno;
    do
        length = read(fd, buffer, size - 1);
    while (length < 0 && errno == EINTR);
    int error = errno;

    close(fd);
    if (length < 0)
        return -error;
    while (length > 0 && (buffer[length - 1] == '\n' || buffer[length - 1] == ' '))
        length--;
    buffer[length] = '\0';
    return (int)length;
}

uint64_t mp_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

const char *mp_printable(const char *text, char *buffer, size_t size)
{
    size_t i;

    for (i = 0; i + 1 < size && text[i] != '\0'; i++)
        buffer[i] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
    buffer[i] = '\0';
    return buffer;
}
