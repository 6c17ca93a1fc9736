/* SPDX-License-Identifier: Apache-2.0 */
#include "../src/wanted.h"

#include "test.h"

static struct manypath_error error;
static struct mp_wanted wanted;

static const char *wwid(const char *text)
{
    strcpy(wanted.wwid, "untouched");
    if (mp_wanted_parse(text, NULL, &wanted, &error) == 0)
        return wanted.wwid;
    return error.code == MANYPATH_E_INVALID && strcmp(wanted.wwid, "untouched") == 0 ? "INVALID"
                                                                                     : "wrong";
}

static const char *serial(const char *text)
{
    if (mp_wanted_parse(NULL, text, &wanted, &error) == 0)
        return wanted.serial;
    return error.code == MANYPATH_E_INVALID ? "INVALID" : "wrong";
}

TEST(none)
{
    CHECK_EQ(mp_wanted_parse(NULL, NULL, &wanted, &error), 0);
    CHECK_STR(wanted.wwid, "");
    CHECK_STR(wanted.serial, "");
}

TEST(spellings)
{
    static const char naa6[] = "36001405abcdef0123456789abcdeff01";

    CHECK_STR(wwid(naa6), naa6);
    CHECK_STR(wwid("36001405ABCDEF0123456789abcdefF01"), naa6);
    CHECK_STR(wwid("naa.6001405abcdef0123456789abcdeff01"), naa6);
    CHECK_STR(wwid("NAA.6001405ABCDEF0123456789ABCDEFF01"), naa6);
    CHECK_STR(wwid("naa.5000c50011223344"), "35000c50011223344");
    CHECK_STR(wwid("eui.0024FF0102030405"), "20024ff0102030405");
    CHECK_STR(wwid("eui.0024ff0102030405a6b7c8d90a0b0c0d"), "20024ff0102030405a6b7c8d90a0b0c0d");
    CHECK_STR(wwid("1LIO-ORG_Volume_7"), "1LIO-ORG_Volume_7"); /* names keep their case */
    CHECK_STR(wwid("8iqn.2010-10.org.example:x"), "8iqn.2010-10.org.example:x");
    CHECK_STR(wwid("SVendor_Model_4711"), "SVendor_Model_4711");
}

TEST(no_wwid)
{
    static const char *const texts[] = {"",
                                        "3",
                                        "3600",
                                        "naa.",
                                        "naa.6001405",
                                        "naa.36001405abcdef0123456789abcdeff01",
                                        "36001405abcdef0123456789abcdeff0g",
                                        "36001405abcdef0123456789abcdeff011",
                                        "35000c500112233445",
                                        "eui.0024ff01020304",
                                        "0x6001405abcdef0123456789abcdeff01",
                                        "wwn-0x6001405abcdef0123456789abcdeff01",
                                        "scsi-36001405abcdef0123456789abcdeff01",
                                        "/dev/disk/by-id/scsi-36001405abcdef0123456789abcdeff01",
                                        "1",
                                        "1a b",
                                        "1a/b",
                                        "1a\nb"};
    char text[MANYPATH_WWID_SIZE + 1];

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        CHECK_STR(wwid(texts[i]), "INVALID");
    memset(text, '1', MANYPATH_WWID_SIZE);
    text[MANYPATH_WWID_SIZE] = '\0';
    CHECK_STR(wwid(text), "INVALID");
    wwid("1\x1b[31m");
    CHECK(strstr(error.message, "'1?[31m'") != NULL);
}

TEST(serials)
{
    char text[MP_SERIAL_SIZE + 1];

    CHECK_STR(serial("4711"), "4711");
    CHECK_STR(serial("  47 11 "), "47 11");
    CHECK_STR(serial(""), "INVALID");
    CHECK_STR(serial("   "), "INVALID");
    CHECK_STR(serial("47\n"), "INVALID");
    CHECK_STR(serial("\xc3\xaf"), "INVALID");
    memset(text, '1', MP_SERIAL_SIZE);
    text[MP_SERIAL_SIZE] = '\0';
    CHECK_STR(serial(text), "INVALID");
    text[MP_SERIAL_SIZE - 1] = '\0';
    CHECK_STR(serial(text), text);
}

int main(void)
{
    RUN(none);
    RUN(spellings);
    RUN(no_wwid);
    RUN(serials);
    return test_end();
}
