/* SPDX-License-Identifier: Apache-2.0 */
/* For test_micro.py: the codec of iscsid's requests without the library around it. */
#include "iscsid_codec.h"

int encode_logins(unsigned count);
int decode_replies(unsigned count);

static uint8_t request[MP_ISCSID_REQUEST_MAX];
static uint8_t reply[MP_ISCSID_REPLY_SIZE] = {MP_ISCSID_LOGIN};

int encode_logins(unsigned count)
{
    const struct mp_iscsid_layout *layout = &mp_iscsid_layouts[mp_iscsid_layout_count - 1];
    struct mp_iscsid_login login;
    int result = 0;

    for (unsigned i = 0; i < count && result == 0; i++) {
        mp_iscsid_login_init(&login);
        login.target = "iqn.2026-11.org.manypath.target:volume-1";
        login.address = "fd00:99:7::1";
        login.port = 3260;
        result = mp_iscsid_encode_login(layout, &login, request, layout->request_size);
    }
    return result;
}

int decode_replies(unsigned count)
{
    struct mp_iscsid_reply decoded;
    int result = 0;

    for (unsigned i = 0; i < count && result == 0; i++)
        result = mp_iscsid_decode_reply(reply, sizeof reply, MP_ISCSID_LOGIN, &decoded);
    return result;
}
