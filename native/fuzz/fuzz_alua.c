/* SPDX-License-Identifier: Apache-2.0 */
/* What a target answered to REPORT TARGET PORT GROUPS, and its VPD page 0x83. */
#include <assert.h>
#include <errno.h>

#include "../src/alua.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint16_t group = 4711;
    int priority = 4711;
    int r = mp_alua_group_id(data, size, &group);

    assert(r == 0 || ((r == -EPROTO || r == -ENOENT) && group == 4711));
    r = mp_alua_priority(data, size, size > 5 ? (uint16_t)(data[4] << 8 | data[5]) : 1, &priority);
    if (r < 0)
        assert((r == -EPROTO || r == -ENOENT) && priority == 4711);
    else
        assert(priority == 0 || priority == 1 || priority == 5 || priority == 10 ||
               priority == 50 || priority == 81 || priority == 85 || priority == 90);
    return 0;
}
