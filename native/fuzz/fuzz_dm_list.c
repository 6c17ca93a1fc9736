/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel put behind a struct dm_ioctl: lists of maps, of devices, of targets and of
 * types. */
#include <assert.h>
#include <errno.h>
#include <linux/dm-ioctl.h>
#include <stdlib.h>
#include <string.h>

#include "../src/dm.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_list(const uint8_t *reply, size_t size)
{
    struct mp_dm_record *records = NULL;
    size_t count = 4711;
    int r = mp_dm_decode_list(reply, size, &records, &count);

    assert(r == 0 || (r == -EPROTO && count == 4711));
    if (r < 0)
        return;
    assert((records == NULL) == (count == 0) && count <= size / 8);
    for (size_t i = 0; i < count; i++) {
        assert(memchr(records[i].name, '\0', sizeof(records[i].name)) != NULL);
        assert(memchr(records[i].uuid, '\0', sizeof(records[i].uuid)) != NULL);
        assert(records[i].uuid_known || records[i].uuid[0] == '\0');
    }
    free(records);
}

static void check_deps(const uint8_t *reply, size_t size)
{
    size_t count = 4711;
    dev_t *devs = NULL;
    int r = mp_dm_decode_deps(reply, size, &devs, &count);

    assert(r == 0 || (r == -EPROTO && count == 4711));
    if (r == 0)
        assert((devs == NULL) == (count == 0) && count <= size / 8);
    free(devs);
}

static void check_target(const uint8_t *reply, size_t size)
{
    char type[16] = "untouched", *params = NULL;
    int r = mp_dm_decode_target(reply, size, type, &params);

    assert(memchr(type, '\0', sizeof(type)) != NULL);
    if (r == 0) {
        assert(strlen(params) < size);
    } else {
        assert(r == -EPROTO || r == -ENODATA);
        assert(params == NULL && strcmp(type, "untouched") == 0);
    }
    free(params);
}

static void check(const uint8_t *data, size_t size)
{
    uint8_t *reply = malloc(size > 0 ? size : 1);
    bool has;

    if (size > 0)
        memcpy(reply, data, size);
    check_list(reply, size);
    check_deps(reply, size);
    check_target(reply, size);
    int r = mp_dm_decode_versions(reply, size, "multipath", &has);

    assert(r == 0 || r == -EPROTO);
    free(reply);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t reply[sizeof(struct dm_ioctl) + 8192];
    struct dm_ioctl header = {.data_start = sizeof(header), .target_count = 1};

    check(data, size);
    /* Again behind a right header, or hardly any input would get further. */
    if (size > sizeof(reply) - sizeof(header))
        size = sizeof(reply) - sizeof(header);
    header.data_size = (uint32_t)(sizeof(header) + size);
    memcpy(reply, &header, sizeof(header));
    if (size > 0)
        memcpy(reply + sizeof(header), data, size);
    check(reply, sizeof(header) + size);
    return 0;
}
