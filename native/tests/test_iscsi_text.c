/* SPDX-License-Identifier: Apache-2.0 */
#include "../src/iscsi_text.h"

#include <errno.h>

#include "test.h"

/* The pairs as "key=value;key=value;", or a word for the error. */
static const char *pairs(const char *text, size_t length)
{
    static char shown[512];
    struct mp_iscsi_text rest = {text, length};
    struct mp_iscsi_pair pair;
    size_t used = 0;
    int result;

    shown[0] = '\0';
    while ((result = mp_iscsi_text_next(&rest, &pair)) > 0) {
        CHECK_EQ(strlen(pair.value), pair.value_length);
        used += (size_t)snprintf(shown + used, sizeof shown - used, "%.*s=%s;",
                                 (int)pair.key_length, pair.key, pair.value);
    }
    return result == 0 ? shown : result == -EPROTO ? "EPROTO" : "another error";
}

#define PAIRS(text) pairs(text, sizeof text - 1)

TEST(reading)
{
    CHECK_STR(PAIRS(""), "");
    CHECK_STR(PAIRS("A=b\0"), "A=b;");
    CHECK_STR(PAIRS("A=b\0Key-With.all+of@the_others0=\0X#y=z=z\0"),
              "A=b;Key-With.all+of@the_others0=;X#y=z=z;");
    CHECK_STR(PAIRS("\0\0A=b\0\0\0B=c\0\0"), "A=b;B=c;");
    CHECK_STR(PAIRS("\0"), "");
    CHECK_STR(PAIRS("TargetAlias=\xc3\xa4 b\0"), "TargetAlias=\xc3\xa4 b;");
}

TEST(broken)
{
    CHECK_STR(PAIRS("A=b"), "EPROTO"); /* not terminated */
    CHECK_STR(PAIRS("A=b\0C=d"), "EPROTO");
    CHECK_STR(PAIRS("A\0"), "EPROTO"); /* no value */
    CHECK_STR(PAIRS("=b\0"), "EPROTO");
    CHECK_STR(PAIRS("=\0"), "EPROTO");
    CHECK_STR(PAIRS("A b=c\0"), "EPROTO");
    CHECK_STR(PAIRS(" A=c\0"), "EPROTO");
    CHECK_STR(PAIRS("\xff\xff=c\0"), "EPROTO");
    CHECK_STR(PAIRS("A=b\0\n"), "EPROTO");
}

TEST(limits)
{
    char text[4096];
    struct mp_iscsi_text rest;
    struct mp_iscsi_pair pair;

    memset(text, 'K', sizeof text);
    memcpy(text + MP_ISCSI_KEY_MAX, "=v", 3);
    CHECK(strncmp(pairs(text, MP_ISCSI_KEY_MAX + 3), "KKK", 3) == 0);
    CHECK_STR(pairs(text, MP_ISCSI_KEY_MAX), "EPROTO");
    memcpy(text + MP_ISCSI_KEY_MAX, "K=v", 4);
    CHECK_STR(pairs(text, MP_ISCSI_KEY_MAX + 4), "EPROTO");

    static const struct {
        const char *key;
        size_t max;
    } cases[] = {{"CHAP_C=", 2050},    {"CHAP_R=", 2050}, {"CHAP_N=", 255},
                 {"TargetName=", 255}, {"CHAP_CC=", 255}, {"CHAP_=", 255}};

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t more = 0; more < 2; more++) {
            size_t key = strlen(cases[i].key), length = cases[i].max + more;

            memset(text, 'v', sizeof text);
            memcpy(text, cases[i].key, key);
            text[key + length] = '\0';
            rest = (struct mp_iscsi_text){text, key + length + 1};
            CHECK_EQ(mp_iscsi_text_next(&rest, &pair), 1);
            CHECK_EQ(pair.value_length, length);
            CHECK_EQ(mp_iscsi_value_fits(&pair), more == 0);
        }
}

TEST(keys)
{
    struct mp_iscsi_text rest = {"TargetName=x", 13};
    struct mp_iscsi_pair pair;

    CHECK_EQ(mp_iscsi_text_next(&rest, &pair), 1);
    CHECK(mp_iscsi_key_is(&pair, "TargetName"));
    CHECK(!mp_iscsi_key_is(&pair, "TargetNam"));
    CHECK(!mp_iscsi_key_is(&pair, "TargetName=x"));
    CHECK(!mp_iscsi_key_is(&pair, "targetname"));
}

TEST(writing)
{
    struct mp_bytes text = {0};
    uint8_t large[MP_ISCSI_BINARY_MAX + 1] = {0x5a};

    CHECK_EQ(mp_iscsi_text_add(&text, "A", "b", 4), 0);
    CHECK_EQ(mp_iscsi_text_add(&text, "A", "b", 7), -EMSGSIZE);
    CHECK_EQ(text.length, 4); /* nothing of it */
    CHECK_EQ(mp_iscsi_text_add_binary(&text, "CHAP_R", (const uint8_t *)"\x00\x9f\xff", 3, 64), 0);
    CHECK_STR(pairs((const char *)text.data, text.length), "A=b;CHAP_R=0x009fff;");
    CHECK_EQ(mp_iscsi_text_add_binary(&text, "C", large, MP_ISCSI_BINARY_MAX, 4096), 0);
    CHECK_EQ(text.length, 4 + 16 + 2 + 2 + 2048 + 1);
    CHECK_EQ(mp_iscsi_text_add_binary(&text, "C", large, sizeof large, 8192), -EMSGSIZE);
    mp_bytes_free(&text);
}

/* The number, or -1. */
static int64_t number(const char *text, uint64_t max)
{
    uint64_t value = 77;

    if (mp_iscsi_number(text, max, &value))
        return (int64_t)value;
    CHECK_EQ(value, 77);
    return -1;
}

TEST(numbers)
{
    CHECK_EQ(number("0", 0), 0);
    CHECK_EQ(number("65535", 65535), 65535);
    CHECK_EQ(number("65536", 65535), -1);
    CHECK_EQ(number("0x0", 0), 0);
    CHECK_EQ(number("0xfF", 255), 255);
    CHECK_EQ(number("0X0000000000000000000000ff", 255), 255);
    CHECK_EQ(number("0x100", 255), -1);
    CHECK_EQ(number("0x1", 0), -1);
    CHECK_EQ(number("0xffffffffffffffffffff", UINT64_MAX), -1);
    CHECK_EQ(number("", 9), -1);
    CHECK_EQ(number("0x", 9), -1);
    CHECK_EQ(number("0xg", 99), -1);
    CHECK_EQ(number("x1", 9), -1);
    CHECK_EQ(number("-1", 9), -1);
    CHECK_EQ(number("+1", 9), -1);
    CHECK_EQ(number(" 1", 9), -1);
    CHECK_EQ(number("1 ", 9), -1);
    CHECK_EQ(number("0bAAAA", 9), -1);
}

/* The bytes in hex, or "none". */
static const char *binary(const char *text, size_t size)
{
    static char shown[64];
    uint8_t bytes[16];
    size_t length = 77;

    if (!mp_iscsi_binary(text, bytes, size, &length)) {
        CHECK_EQ(length, 77);
        return "none";
    }
    CHECK(length >= 1 && length <= size);
    for (size_t i = 0; i < length; i++)
        snprintf(shown + 2 * i, 3, "%02x", bytes[i]);
    return shown;
}

TEST(hex)
{
    CHECK_STR(binary("0x00", 16), "00");
    CHECK_STR(binary("0X0aBCdef9", 16), "0abcdef9");
    CHECK_STR(binary("0x123", 16), "0123"); /* an odd digit */
    CHECK_STR(binary("0x7", 1), "07");
    CHECK_STR(binary("0x112233", 3), "112233");
    CHECK_STR(binary("0x11223344", 3), "none");
    CHECK_STR(binary("0x1223344", 3), "none");
    CHECK_STR(binary("0x", 16), "none");
    CHECK_STR(binary("0x0g", 16), "none");
    CHECK_STR(binary("0x 1", 16), "none");
    CHECK_STR(binary("1234", 16), "none");
    CHECK_STR(binary("", 16), "none");
    CHECK_STR(binary("0", 16), "none");
}

/* RFC 4648 section 10, and the other two digits. */
TEST(base64)
{
    CHECK_STR(binary("0bZg==", 16), "66");
    CHECK_STR(binary("0BZm8=", 16), "666f");
    CHECK_STR(binary("0bZm9v", 16), "666f6f");
    CHECK_STR(binary("0bZm9vYg==", 16), "666f6f62");
    CHECK_STR(binary("0bZm9vYmE=", 16), "666f6f6261");
    CHECK_STR(binary("0bZm9vYmFy", 16), "666f6f626172");
    CHECK_STR(binary("0b+/+/", 16), "fbffbf");
    CHECK_STR(binary("0bZm9vYmFy", 6), "666f6f626172");
    CHECK_STR(binary("0bZm9vYmFy", 5), "none");
    CHECK_STR(binary("0bZm9vYmE=", 4), "none");
    CHECK_STR(binary("0b", 16), "none");
    CHECK_STR(binary("0bZg", 16), "none");
    CHECK_STR(binary("0bZg=", 16), "none");
    CHECK_STR(binary("0b====", 16), "none");
    CHECK_STR(binary("0bZ===", 16), "none");
    CHECK_STR(binary("0bZg==Zg==", 16), "none");
    CHECK_STR(binary("0bZ-_v", 16), "none");
}

int main(void)
{
    RUN(reading);
    RUN(broken);
    RUN(limits);
    RUN(keys);
    RUN(writing);
    RUN(numbers);
    RUN(hex);
    RUN(base64);
    return test_end();
}
