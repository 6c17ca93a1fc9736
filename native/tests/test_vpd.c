/* SPDX-License-Identifier: Apache-2.0 */
#include "../src/vpd.h"

#include <errno.h>

#include "test.h"

static uint8_t page[1024];
static size_t page_length;

static void begin(void)
{
    memset(page, 0, sizeof page);
    page[1] = 0x83;
    page_length = 4;
}

/* SPC-4 7.8.6.1: code set, association and type, reserved, length, designator. */
static void add(unsigned code_set, unsigned association, unsigned type, const void *bytes,
                size_t length)
{
    page[page_length] = (uint8_t)code_set;
    page[page_length + 1] = (uint8_t)(association << 4 | type);
    page[page_length + 3] = (uint8_t)length;
    memcpy(page + page_length + 4, bytes, length);
    page_length += 4 + length;
    page[2] = (uint8_t)((page_length - 4) >> 8);
    page[3] = (uint8_t)(page_length - 4);
}

static const uint8_t naa6[16] = {0x60, 0x01, 0x40, 0x5a, 0xbc, 0xde, 0xf0, 0x12,
                                 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xff, 0x01};
static const uint8_t naa6_other[16] = {0x60, 0x01, 0x40, 0x5a, 0xbc};
static const uint8_t naa5[8] = {0x50, 0x00, 0xc5, 0x00, 0x11, 0x22, 0x33, 0x44};
static const uint8_t naa2[8] = {0x21, 0x00, 0x00, 0x24, 0xff, 0x01, 0x02, 0x03};
static const uint8_t naa3[8] = {0x33, 0x33, 0x00, 0x00, 0x00, 0x00, 0x07, 0xd0};
static const uint8_t eui[16] = {0x00, 0x24, 0xff, 0x01, 0x02, 0x03, 0x04, 0x05,
                                0xa6, 0xb7, 0xc8, 0xd9, 0x0a, 0x0b, 0x0c, 0x0d};

/* The result, or a word for the error. Also proves that the output stays untouched on failure. */
static const char *wwid(void)
{
    static char text[MANYPATH_WWID_SIZE];

    strcpy(text, "untouched");
    switch (mp_vpd83_wwid(page, page_length, text)) {
    case 0:
        return text;
    case -EPROTO:
        return strcmp(text, "untouched") == 0 ? "EPROTO" : "touched";
    case -EOPNOTSUPP:
        return strcmp(text, "untouched") == 0 ? "EOPNOTSUPP" : "touched";
    case -ENODATA:
        return strcmp(text, "untouched") == 0 ? "ENODATA" : "touched";
    default:
        return "another error";
    }
}

TEST(each_type)
{
    begin();
    add(1, 0, 3, naa6, 16);
    CHECK_STR(wwid(), "36001405abcdef0123456789abcdeff01");
    begin();
    add(1, 0, 3, naa5, 8);
    CHECK_STR(wwid(), "35000c50011223344");
    begin();
    add(1, 0, 3, naa2, 8);
    CHECK_STR(wwid(), "321000024ff010203");
    begin();
    add(1, 0, 2, eui, 8);
    CHECK_STR(wwid(), "20024ff0102030405");
    begin();
    add(1, 0, 2, eui, 12);
    CHECK_STR(wwid(), "20024ff0102030405a6b7c8d9");
    begin();
    add(1, 0, 2, eui, 16);
    CHECK_STR(wwid(), "20024ff0102030405a6b7c8d90a0b0c0d");
}

TEST(order)
{
    begin();
    add(2, 0, 1, "LIO-ORG volume", 14);
    add(1, 0, 2, eui, 8);
    CHECK_STR(wwid(), "20024ff0102030405");
    add(1, 0, 3, naa3, 8); /* locally assigned: udev and multipathd do not agree on it */
    CHECK_STR(wwid(), "20024ff0102030405");
    add(1, 0, 3, naa2, 8);
    CHECK_STR(wwid(), "321000024ff010203");
    add(1, 0, 3, naa5, 8);
    CHECK_STR(wwid(), "35000c50011223344");
    add(1, 0, 3, naa6, 16);
    CHECK_STR(wwid(), "36001405abcdef0123456789abcdeff01");
    add(1, 0, 3, naa5, 8);
    add(1, 0, 2, eui, 12);
    add(3, 0, 8, "naa.1234", 8);
    CHECK_STR(wwid(), "36001405abcdef0123456789abcdeff01");
}

TEST(not_of_the_lun)
{
    begin();
    add(1, 1, 3, naa5, 8); /* target port */
    add(1, 2, 3, naa5, 8); /* target device */
    add(1, 3, 3, naa5, 8); /* reserved */
    CHECK_STR(wwid(), "EOPNOTSUPP");
    add(1, 0, 4, "\0\0\0\1", 4); /* relative port */
    add(1, 0, 5, "\0\0\0\1", 4); /* port group */
    add(2, 0, 3, naa6, 16);      /* not binary */
    add(3, 0, 2, eui, 8);
    add(1, 0, 3, naa3, 8);
    CHECK_STR(wwid(), "EOPNOTSUPP");
}

TEST(lengths)
{
    begin();
    add(1, 0, 3, naa6, 8);
    add(1, 0, 3, naa6, 15);
    add(1, 0, 3, naa5, 7);
    add(1, 0, 3, naa5, 0);
    add(1, 0, 3, naa6, 0);
    add(1, 0, 2, eui, 0);
    add(1, 0, 2, eui, 10);
    CHECK_STR(wwid(), "EOPNOTSUPP");
    begin();
    CHECK_STR(wwid(), "EOPNOTSUPP"); /* an empty page */
}

TEST(ambiguous)
{
    begin();
    add(1, 0, 3, naa6, 16);
    add(1, 0, 3, naa6, 16);
    CHECK_STR(wwid(), "36001405abcdef0123456789abcdeff01");
    add(1, 0, 3, naa6_other, 16);
    CHECK_STR(wwid(), "EOPNOTSUPP");
    begin();
    add(1, 0, 2, eui, 8);
    add(1, 0, 2, eui, 12);
    CHECK_STR(wwid(), "EOPNOTSUPP");
    add(1, 0, 3, naa6, 16); /* of a lower rank it does not matter */
    CHECK_STR(wwid(), "36001405abcdef0123456789abcdeff01");
}

TEST(blank)
{
    begin();
    add(1, 0, 2, "\0\0\0\0\0\0\0\0", 8);
    CHECK_STR(wwid(), "ENODATA");
    begin();
    add(1, 0, 3, "\x60\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16);
    CHECK_STR(wwid(), "ENODATA");
    begin();
    add(1, 0, 3, "\x50\0\0\0\0\0\0\1", 8);
    CHECK_STR(wwid(), "35000000000000001");
}

TEST(malformed)
{
    begin();
    add(1, 0, 3, naa6, 16);
    size_t whole = page_length;

    for (page_length = 0; page_length < whole; page_length++)
        CHECK_STR(wwid(), "EPROTO");
    page_length = whole + 100; /* a longer buffer than the page */
    CHECK_STR(wwid(), "36001405abcdef0123456789abcdeff01");
    page_length = whole;
    page[3]--; /* the designator runs beyond the page */
    CHECK_STR(wwid(), "EPROTO");
    page[3] += 2; /* one byte is no header */
    page_length = whole + 1;
    CHECK_STR(wwid(), "EPROTO");
    page[3] -= 1;
    page[7] = 255;
    CHECK_STR(wwid(), "EPROTO");
    page[7] = 16;
    page[1] = 0x80;
    CHECK_STR(wwid(), "EPROTO");
    page[1] = 0x83;
    page[2] = 0xff;
    CHECK_STR(wwid(), "EPROTO");
}

static uint8_t names[MP_LUN_NAMES_SIZE];
static size_t names_length;

static int take_names(void)
{
    return mp_vpd83_lun_names(page, page_length, names, sizeof names, &names_length);
}

TEST(lun_names)
{
    uint8_t small[19];

    begin();
    CHECK_EQ(take_names(), 0);
    CHECK_EQ(names_length, 0);
    add(1, 1, 3, naa5, 8); /* the port's: differs between paths */
    add(1, 0, 3, naa6, 16);
    add(1, 1, 4, "\0\0\0\1", 4);
    add(2, 0, 1, "LIO", 3);
    CHECK_EQ(take_names(), 0);
    CHECK_EQ(names_length, 20 + 7);
    CHECK_EQ(memcmp(names, page + 4 + 12, 20), 0);
    CHECK_EQ(memcmp(names + 20, "\2\1\0\3LIO", 7), 0);
    CHECK_EQ(mp_vpd83_lun_names(page, page_length, small, sizeof small, &names_length), -EOVERFLOW);
    page_length--;
    CHECK_EQ(take_names(), -EPROTO);
}

static bool have(const char *id_serial)
{
    return mp_lun_names_have(names, names_length, id_serial);
}

TEST(lun_names_have)
{
    begin();
    add(2, 0, 1, "Linux   scsi_debug      2000    ", 32);
    add(1, 0, 3, naa3, 8);
    add(3, 0, 8, "iqn.2010-10.org.example:x,L,0x01", 32);
    add(1, 0, 2, "\0\0\0\0\0\0\0\0", 8);
    CHECK_EQ(take_names(), 0);
    CHECK(have("1Linux_scsi_debug_2000")); /* udev 252 */
    CHECK(have("1Linux   scsi_debug      2000    "));
    CHECK(have("333330000000007d0"));
    CHECK(have("8iqn.2010-10.org.example:x_L_0x01"));
    CHECK(!have("1Linux_scsi_debug_2001"));
    CHECK(!have("1Linux_scsi_debug_200"));
    CHECK(!have("1Linux_scsi_debug_20000"));
    CHECK(!have("3Linux_scsi_debug_2000")); /* of another type */
    CHECK(!have("20000000000000000"));      /* an empty number is nobody's */
    CHECK(!have("36001405abcdef0123456789abcdeff01"));
    CHECK(!have(""));
    CHECK(!have("1"));
    CHECK(!mp_lun_names_have(names, 3, "1Linux_scsi_debug_2000"));
}

static const char *serial(const char *content, size_t length)
{
    static char text[MP_SERIAL_SIZE];

    memset(page, 0, sizeof page);
    page[1] = 0x80;
    page[2] = (uint8_t)(length >> 8);
    page[3] = (uint8_t)length;
    memcpy(page + 4, content, length);
    switch (mp_vpd80_serial(page, 4 + length, text)) {
    case 0:
        return text;
    case -EPROTO:
        return "EPROTO";
    case -ENODATA:
        return "ENODATA";
    default:
        return "another error";
    }
}

TEST(serial)
{
    static char long_one[256];

    CHECK_STR(serial("4711", 4), "4711");
    CHECK_STR(serial("  47 11  ", 9), "47 11");
    CHECK_STR(serial("4711\0\0", 6), "4711");
    CHECK_STR(serial("    ", 4), "ENODATA");
    CHECK_STR(serial("", 0), "ENODATA");
    CHECK_STR(serial("47\n1", 4), "EPROTO");
    CHECK_STR(serial("47\0001", 4), "EPROTO");
    memset(long_one, 'x', sizeof long_one);
    CHECK_EQ(strlen(serial(long_one, 255)), 255);
    CHECK_STR(serial(long_one, 256), "EPROTO");
    CHECK_EQ(mp_vpd80_serial(page, 100, long_one), -EPROTO); /* cut */
    page[1] = 0x83;
    CHECK_EQ(mp_vpd80_serial(page, sizeof page, long_one), -EPROTO);
}

int main(void)
{
    RUN(each_type);
    RUN(order);
    RUN(not_of_the_lun);
    RUN(lengths);
    RUN(ambiguous);
    RUN(blank);
    RUN(malformed);
    RUN(lun_names);
    RUN(lun_names_have);
    RUN(serial);
    return test_end();
}
