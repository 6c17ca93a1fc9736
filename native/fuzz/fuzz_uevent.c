/* SPDX-License-Identifier: Apache-2.0 */
/* A datagram of the kernel's uevent group. */
#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../src/uevent.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Absent, or a terminated string in the buffer. */
static void check_string(const char *text, const char *buffer, size_t size)
{
    if (*text == '\0')
        return;
    assert(text > buffer && text < buffer + size);
    assert(memchr(text, '\0', (size_t)(buffer + size - text)) != NULL);
}

static void check(const uint8_t *data, size_t size, size_t room)
{
    struct mp_uevent event = {.devpath = "untouched"};
    char *buffer = calloc(1, room > 0 ? room : 1);

    memcpy(buffer, data, size);
    int r = mp_uevent_parse(buffer, room, &event);

    if (r < 0) {
        assert(r == -EPROTO && strcmp(event.devpath, "untouched") == 0);
    } else {
        assert(event.devpath[0] == '/');
        check_string(event.devpath, buffer, room);
        check_string(event.subsystem, buffer, room);
        check_string(event.devtype, buffer, room);
        check_string(event.devname, buffer, room);
    }
    free(buffer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check(data, size, size);
    check(data, size, size + 1); /* terminated */
    return 0;
}
