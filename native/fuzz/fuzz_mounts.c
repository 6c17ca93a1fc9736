/* SPDX-License-Identifier: Apache-2.0 */
/* What /proc tells: anybody who may mount chooses the paths in it. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../src/mounts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    const char *end, *at;
    struct mp_mount mount;
    char path[32];

    if (text == NULL)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    end = text + strlen(text);
    for (at = text; mp_mounts_next(&at, &mount);) {
        assert(at <= end);
        assert(strnlen(mount.point, sizeof mount.point) < sizeof mount.point);
        assert(strnlen(mount.source, sizeof mount.source) < sizeof mount.source);
    }
    assert(at == end);
    for (at = text; mp_swaps_next(&at, path, sizeof path);)
        assert(at <= end && strnlen(path, sizeof path) < sizeof path);
    assert(at == end);
    free(text);
    return 0;
}
