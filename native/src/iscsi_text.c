/* SPDX-License-Identifier: Apache-2.0 */
#include "iscsi_text.h"

#include "text.h"

#include <errno.h>
#include <string.h>

/* The longer encoding of MP_ISCSI_BINARY_MAX bytes: "0x" and two digits for each. */
enum { BINARY_TEXT_MAX = 2 + 2 * MP_ISCSI_BINARY_MAX };

/* ---- writing ---- */

int mp_iscsi_text_add(struct mp_bytes *text, const char *key, const char *value, size_t limit)
{
    size_t before = text->length;
    int result;

    if ((result = mp_bytes_append(text, key, strlen(key), limit)) < 0 ||
        (result = mp_bytes_append(text, "=", 1, limit)) < 0 ||
        (result = mp_bytes_append(text, value, strlen(value) + 1, limit)) < 0)
        text->length = before;
    return result;
}

int mp_iscsi_text_add_binary(struct mp_bytes *text, const char *key, const uint8_t *value,
                             size_t length, size_t limit)
{
    static const char digits[] = "0123456789abcdef";
    char encoded[BINARY_TEXT_MAX + 1] = "0x";

    if (length > MP_ISCSI_BINARY_MAX)
        return -EMSGSIZE;
    for (size_t i = 0; i < length; i++) {
        encoded[2 + 2 * i] = digits[value[i] >> 4];
        encoded[3 + 2 * i] = digits[value[i] & 0x0f];
    }
    int result = mp_iscsi_text_add(text, key, encoded, limit);

    explicit_bzero(encoded, sizeof encoded);
    return result;
}

/* ---- reading ---- */

/* Section 6.1, standard-label; '#' is for X# extensions. */
static bool is_key_byte(char byte)
{
    return (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z') ||
           (byte >= '0' && byte <= '9') || (byte != '\0' && strchr(".-+@_#", byte) != NULL);
}

int mp_iscsi_text_next(struct mp_iscsi_text *text, struct mp_iscsi_pair *ret_pair)
{
    size_t key_length = 0;

    while (text->left > 0 && *text->at == '\0') {
        text->at++;
        text->left--;
    }
    if (text->left == 0)
        return 0;
    const char *end = memchr(text->at, '\0', text->left);

    if (end == NULL)
        return -EPROTO;
    while (is_key_byte(text->at[key_length]))
        key_length++;
    if (key_length == 0 || key_length > MP_ISCSI_KEY_MAX || text->at[key_length] != '=')
        return -EPROTO;
    ret_pair->key = text->at;
    ret_pair->key_length = key_length;
    ret_pair->value = text->at + key_length + 1;
    ret_pair->value_length = (size_t)(end - ret_pair->value);
    text->left -= (size_t)(end + 1 - text->at);
    text->at = end + 1;
    return 1;
}

bool mp_iscsi_key_is(const struct mp_iscsi_pair *pair, const char *key)
{
    return strlen(key) == pair->key_length && memcmp(pair->key, key, pair->key_length) == 0;
}

bool mp_iscsi_value_fits(const struct mp_iscsi_pair *pair)
{
    bool binary = mp_iscsi_key_is(pair, "CHAP_C") || mp_iscsi_key_is(pair, "CHAP_R");

    return pair->value_length <= (size_t)(binary ? BINARY_TEXT_MAX : MP_ISCSI_VALUE_MAX);
}

/* ---- constants ---- */

static bool has_prefix(const char *value, char letter)
{
    return value[0] == '0' && (value[1] == letter || value[1] == letter - 'a' + 'A');
}

static int hex_digit(char byte)
{
    if (byte >= '0' && byte <= '9')
        return byte - '0';
    if (byte >= 'a' && byte <= 'f')
        return byte - 'a' + 10;
    if (byte >= 'A' && byte <= 'F')
        return byte - 'A' + 10;
    return -1;
}

bool mp_iscsi_number(const char *value, uint64_t max, uint64_t *ret_number)
{
    uint64_t number = 0;

    if (!has_prefix(value, 'x'))
        return mp_parse_u64(value, max, ret_number);
    if (value[2] == '\0')
        return false;
    for (const char *at = value + 2; *at != '\0'; at++) {
        int digit = hex_digit(*at);

        if (digit < 0 || (uint64_t)digit > max || number > (max - (uint64_t)digit) / 16)
            return false;
        number = number * 16 + (uint64_t)digit;
    }
    *ret_number = number;
    return true;
}

/* An odd first digit is a byte of its own, as other initiators take it. */
static bool decode_hex(const char *digits, uint8_t *ret_bytes, size_t size, size_t *ret_length)
{
    size_t count = strlen(digits), odd = count % 2;
    size_t length = (count + odd) / 2;

    if (length == 0 || length > size)
        return false;
    memset(ret_bytes, 0, length);
    for (size_t i = 0; i < count; i++) {
        int digit = hex_digit(digits[i]);

        if (digit < 0)
            return false;
        ret_bytes[(i + odd) / 2] |= (uint8_t)((i + odd) % 2 != 0 ? digit : digit << 4);
    }
    *ret_length = length;
    return true;
}

/* RFC 4648 section 4. */
static int base64_digit(char byte)
{
    if (byte >= 'A' && byte <= 'Z')
        return byte - 'A';
    if (byte >= 'a' && byte <= 'z')
        return byte - 'a' + 26;
    if (byte >= '0' && byte <= '9')
        return byte - '0' + 52;
    return byte == '+' ? 62 : byte == '/' ? 63 : -1;
}

static bool decode_base64(const char *digits, uint8_t *ret_bytes, size_t size, size_t *ret_length)
{
    size_t count = strlen(digits), length = 0;
    uint32_t bits = 0;

    if (count == 0 || count % 4 != 0)
        return false;
    size_t padding = digits[count - 1] != '=' ? 0 : digits[count - 2] != '=' ? 1 : 2;

    if (count / 4 * 3 - padding > size)
        return false;
    for (size_t i = 0; i < count - padding; i++) {
        int digit = base64_digit(digits[i]);

        if (digit < 0)
            return false;
        bits = bits << 6 | (uint32_t)digit;
        if (i % 4 != 0) /* digits 1, 2 and 3 complete a byte, and leave 4, 2 and 0 bits over */
            ret_bytes[length++] = (uint8_t)(bits >> (6 - 2 * (i % 4)));
    }
    *ret_length = length;
    return true;
}

bool mp_iscsi_binary(const char *value, uint8_t *ret_bytes, size_t size, size_t *ret_length)
{
    if (has_prefix(value, 'x'))
        return decode_hex(value + 2, ret_bytes, size, ret_length);
    if (has_prefix(value, 'b'))
        return decode_base64(value + 2, ret_bytes, size, ret_length);
    return false;
}
