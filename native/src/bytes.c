/* SPDX-License-Identifier: Apache-2.0 */
#include "bytes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_CAPACITY = 256 };

/* Not realloc(), which would leave a copy behind. */
static int grow(struct mp_bytes *bytes, size_t needed)
{
    size_t capacity = bytes->capacity != 0 ? bytes->capacity : FIRST_CAPACITY;

    while (capacity < needed)
        capacity *= 2;
    uint8_t *data = malloc(capacity);

    if (data == NULL)
        return -ENOMEM;
    if (bytes->length > 0)
        memcpy(data, bytes->data, bytes->length);
    struct mp_bytes old = *bytes;

    bytes->data = data;
    bytes->capacity = capacity;
    mp_bytes_free(&old);
    return 0;
}

int mp_bytes_append(struct mp_bytes *bytes, const void *data, size_t count, size_t limit)
{
    if (bytes->length > limit || count > limit - bytes->length)
        return -EMSGSIZE;
    if (count == 0)
        return 0;
    if (count > bytes->capacity - bytes->length) {
        int result = grow(bytes, bytes->length + count);

        if (result < 0)
            return result;
    }
    memcpy(bytes->data + bytes->length, data, count);
    bytes->length += count;
    return 0;
}

void mp_bytes_clear(struct mp_bytes *bytes)
{
    if (bytes->length > 0)
        explicit_bzero(bytes->data, bytes->length);
    bytes->length = 0;
}

void mp_bytes_free(struct mp_bytes *bytes)
{
    if (bytes->data != NULL)
        explicit_bzero(bytes->data, bytes->capacity);
    free(bytes->data);
    *bytes = (struct mp_bytes){0};
}
