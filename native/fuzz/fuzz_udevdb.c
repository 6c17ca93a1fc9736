/* SPDX-License-Identifier: Apache-2.0 */
/* An entry of udev's database. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "../src/udevdb.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mp_udevdb entry = {.id_serial = "untouched"};
    int r = mp_udevdb_parse((const char *)data, size, &entry);

    if (r < 0) {
        assert(r == -EPROTO);
        assert(strcmp(entry.id_serial, "untouched") == 0);
        return 0;
    }
    size_t length = strnlen(entry.id_serial, sizeof entry.id_serial);

    assert(length < sizeof entry.id_serial);
    assert(strpbrk(entry.id_serial, "/ \n\\") == NULL);
    return 0;
}
