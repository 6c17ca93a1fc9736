/* SPDX-License-Identifier: Apache-2.0 */
/* First byte: the command we asked; rest: what iscsid (or a squatter on its name) answered. */
#include <assert.h>
#include <string.h>

#include "../src/iscsid_codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const uint8_t *data, size_t size, uint32_t command)
{
    struct mp_iscsid_reply reply, before;
    int rc;

    memset(&reply, 0x33, sizeof(reply));
    before = reply;
    rc = mp_iscsid_decode_reply(data, size, command, &reply);
    assert((rc == 0) <= (size == MP_ISCSID_REPLY_SIZE));
    if (rc < 0) {
        assert(memcmp(&before, &reply, sizeof(reply)) == 0);
        return;
    }
    assert(reply.command == command || (reply.command == 0 && reply.error == MP_ISCSID_ERR_ACCESS));
    assert(memchr(reply.config, '\0', sizeof(reply.config)) != NULL);
    if (reply.error != 0)
        assert(reply.config[0] == '\0' && reply.session_state == -1 && reply.conn_state == -1);
    assert(mp_iscsid_error_name(reply.error)[0] != '\0');
    assert(mp_iscsid_error_text(reply.error)[0] != '\0');
    rc = mp_iscsid_error_retryable(reply.error);
    assert(rc == 0 || rc == 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t padded[MP_ISCSID_REPLY_SIZE] = {0};

    if (size == 0)
        return 0;
    check(data + 1, size - 1, data[0]);
    /* Short inputs as the head of a reply of the right length, or hardly any would get further. */
    memcpy(padded, data + 1, size - 1 < sizeof(padded) ? size - 1 : sizeof(padded));
    check(padded, sizeof(padded), data[0]);
    return 0;
}
