/* SPDX-License-Identifier: Apache-2.0 */
/* A layout file that is accepted must never make the encoder write outside of the request. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "../src/iscsid_codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_slots(const struct mp_iscsid_layout *layout)
{
    unsigned char *taken = calloc(1, layout->request_size);

    assert(taken != NULL);
    for (size_t i = 0; i < mp_iscsid_field_count; i++) {
        struct mp_iscsid_slot slot = mp_iscsid_layout_slot(layout, &mp_iscsid_fields[i]);

        assert(slot.width != 0 || !mp_iscsid_fields[i].required);
        for (size_t at = slot.offset; at < (size_t)slot.offset + slot.width; at++) {
            assert(at >= MP_ISCSID_HEADER_SIZE && at < layout->request_size);
            assert(!taken[at]);
            taken[at] = 1;
        }
    }
    free(taken);
}

static void check_encode(const struct mp_iscsid_layout *layout)
{
    static const uint8_t secret[] = "0123456789abcdef";
    struct mp_iscsid_login login;
    uint8_t *buf = malloc(layout->request_size); /* the heap, for the sanitizer's red zones */
    int32_t port;

    assert(buf != NULL);
    mp_iscsid_login_init(&login);
    login.target = "iqn.2010-10.org.openstack:volume-1";
    login.address = "2001:db8::1";
    login.username = login.username_in = "user";
    login.password = login.password_in = secret;
    login.password_length = login.password_in_length = sizeof(secret) - 1;
    assert(mp_iscsid_encode_login(layout, &login, buf, layout->request_size) == 0);
    memcpy(&port, buf + layout->port.offset, sizeof(port));
    assert(port == 3260);
    assert(strcmp((const char *)buf + layout->address.offset, login.address) == 0);
    assert(strcmp((const char *)buf + layout->target_name.offset, login.target) == 0);
    free(buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mp_iscsid_layout layout, before;
    char reason[100];

    memset(&layout, 0x33, sizeof(layout));
    before = layout;
    reason[0] = '\0';
    if (mp_iscsid_layout_parse((const char *)data, size, &layout, reason, sizeof(reason)) < 0) {
        assert(memcmp(&before, &layout, sizeof(layout)) == 0);
        assert(reason[0] != '\0' && memchr(reason, '\0', sizeof(reason)) != NULL);
        return 0;
    }
    assert(layout.request_size >= MP_ISCSID_REQUEST_MIN);
    assert(layout.request_size <= MP_ISCSID_REQUEST_MAX);
    check_slots(&layout);
    check_encode(&layout);
    return 0;
}
