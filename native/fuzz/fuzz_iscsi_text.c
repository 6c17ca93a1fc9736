/* SPDX-License-Identifier: Apache-2.0 */
/* key=value text of a target, and its constants. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "../src/iscsi_text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_constants(const char *value)
{
    uint8_t bytes[MP_ISCSI_BINARY_MAX], again[MP_ISCSI_BINARY_MAX];
    size_t length, again_length;
    uint64_t number, limited;

    if (mp_iscsi_number(value, UINT64_MAX, &number)) {
        assert(mp_iscsi_number(value, number, &limited) && limited == number);
        assert(number == 0 || !mp_iscsi_number(value, number - 1, &limited));
    }
    if (!mp_iscsi_binary(value, bytes, sizeof bytes, &length))
        return;
    assert(length >= 1 && length <= sizeof bytes);
    assert(mp_iscsi_binary(value, again, length, &again_length) && again_length == length);
    assert(!mp_iscsi_binary(value, again, length - 1, &again_length));

    struct mp_bytes text = {0};

    assert(mp_iscsi_text_add_binary(&text, "K", bytes, length, SIZE_MAX) == 0);
    assert(text.length == 2 + 2 + 2 * length + 1);
    assert(mp_iscsi_binary((const char *)text.data + 2, again, sizeof again, &again_length));
    assert(again_length == length && memcmp(again, bytes, length) == 0);
    mp_bytes_free(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mp_iscsi_text rest = {(const char *)data, size};
    struct mp_bytes copy = {0};
    struct mp_iscsi_pair pair;
    size_t pairs = 0;
    int result;

    while ((result = mp_iscsi_text_next(&rest, &pair)) > 0) {
        char key[MP_ISCSI_KEY_MAX + 1] = "";

        assert(pair.key_length >= 1 && pair.key_length <= MP_ISCSI_KEY_MAX);
        assert(pair.key >= (const char *)data && pair.value == pair.key + pair.key_length + 1);
        assert(strlen(pair.value) == pair.value_length);
        assert(pair.value + pair.value_length < (const char *)data + size);
        memcpy(key, pair.key, pair.key_length);
        assert(mp_iscsi_key_is(&pair, key) && strchr(key, '=') == NULL);
        assert(mp_iscsi_value_fits(&pair) || pair.value_length > MP_ISCSI_VALUE_MAX);
        check_constants(pair.value);
        assert(mp_iscsi_text_add(&copy, key, pair.value, size) == 0);
        pairs++;
    }
    assert(result == 0 || result == -EPROTO);
    rest = (struct mp_iscsi_text){(const char *)copy.data, copy.length};
    while (pairs-- > 0)
        assert(mp_iscsi_text_next(&rest, &pair) == 1);
    assert(mp_iscsi_text_next(&rest, &pair) == 0);
    mp_bytes_free(&copy);
    return 0;
}
