/* SPDX-License-Identifier: Apache-2.0 */
/* What a target answered to INQUIRY for pages 0x83 and 0x80. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "../src/vpd.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const uint8_t *data, size_t size)
{
    char wwid[MANYPATH_WWID_SIZE] = "untouched";
    int r = mp_vpd83_wwid(data, size, wwid);

    if (r < 0) {
        assert(r == -EPROTO || r == -EOPNOTSUPP || r == -ENODATA);
        assert(strcmp(wwid, "untouched") == 0);
        return;
    }
    size_t length = strnlen(wwid, sizeof(wwid));

    assert(length == 17 || length == 25 || length == 33);
    assert(wwid[0] == '2' || wwid[0] == '3');
    if (wwid[0] == '3')
        assert(wwid[1] == '6' ? length == 33 : length == 17 && (wwid[1] == '5' || wwid[1] == '2'));
    assert(strspn(wwid, "0123456789abcdef") == length);
}

/* A name that was found is one of its own; looking for another must not run beyond the end. */
static void check_names(const uint8_t *data, size_t size)
{
    uint8_t names[64];
    size_t length = 77;
    char wwid[MANYPATH_WWID_SIZE];
    int r = mp_vpd83_lun_names(data, size, names, sizeof names, &length);

    if (r < 0) {
        assert((r == -EPROTO || r == -EOVERFLOW) && length == 77);
        return;
    }
    assert(length <= sizeof names);
    mp_lun_names_have(names, length, "1Linux_scsi_debug_2000");
    if (mp_vpd83_wwid(data, size, wwid) == 0)
        assert(mp_lun_names_have(names, length, wwid));
}

static void check_serial(const uint8_t *data, size_t size)
{
    char serial[MP_SERIAL_SIZE];

    if (mp_vpd80_serial(data, size, serial) < 0)
        return;
    size_t length = strnlen(serial, sizeof serial);

    assert(length > 0 && length < sizeof serial);
    assert(serial[0] != ' ' && serial[length - 1] != ' ');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t page[4096] = {0, 0x83};

    check(data, size);
    /* Again with a right header, or hardly any input would get further. */
    if (size > sizeof(page) - 4)
        size = sizeof(page) - 4;
    memcpy(page + 4, data, size);
    page[2] = (uint8_t)(size >> 8);
    page[3] = (uint8_t)size;
    check(page, 4 + size);
    check_names(page, 4 + size);
    page[1] = 0x80;
    check_serial(page, 4 + size);
    return 0;
}
