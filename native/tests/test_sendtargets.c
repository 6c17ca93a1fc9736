/* SPDX-License-Identifier: Apache-2.0 */
#include "../src/sendtargets.h"

#include <errno.h>
#include <stdlib.h>

#include "test.h"

/* One line per entry, or a word for the error; "+n" if n entries were skipped. */
static const char *list(const char *text, size_t length)
{
    static char shown[2048];
    struct mp_sendtargets found = {.count = 77};
    size_t used = 0;
    int result = mp_sendtargets_parse((const uint8_t *)text, length, &found);

    if (result < 0) {
        CHECK_EQ(found.count, 77);
        return result == -EPROTO       ? "EPROTO"
               : result == -EOPNOTSUPP ? "EOPNOTSUPP"
               : result == -E2BIG      ? "E2BIG"
                                       : "another error";
    }
    shown[0] = '\0';
    for (size_t i = 0; i < found.count; i++) {
        const struct manypath_discovered *target = &found.targets[i];

        used += (size_t)snprintf(shown + used, sizeof shown - used, "%s %s %u %d\n", target->iqn,
                                 target->host, target->port, target->tag);
    }
    if (found.skipped > 0)
        snprintf(shown + used, sizeof shown - used, "+%zu", found.skipped);
    free(found.targets);
    return shown;
}

#define LIST(text) list(text, sizeof text - 1)

/* "host port tag", or "none". */
static const char *address(const char *text)
{
    static char shown[MANYPATH_HOST_SIZE + 32];
    struct mp_target_address found = {.tag = 77};

    if (mp_target_address_parse(text, &found) < 0) {
        CHECK_EQ(found.tag, 77);
        return "none";
    }
    snprintf(shown, sizeof shown, "%s %u %d", found.host, found.port, found.tag);
    return shown;
}

TEST(addresses)
{
    CHECK_STR(address("10.1.0.45:3000,1"), "10.1.0.45 3000 1");
    CHECK_STR(address("10.1.0.45:3000"), "10.1.0.45 3000 -1");
    CHECK_STR(address("10.1.0.45,65535"), "10.1.0.45 3260 65535");
    CHECK_STR(address("10.1.0.45"), "10.1.0.45 3260 -1");
    CHECK_STR(address("10.1.0.45:0xcbc,0x0"), "10.1.0.45 3260 0");
    CHECK_STR(address("array-1.example:860,2"), "array-1.example 860 2");
    CHECK_STR(address("array_1"), "array_1 3260 -1");
    CHECK_STR(address("3com.example"), "3com.example 3260 -1");
}

TEST(ipv6)
{
    CHECK_STR(address("[fd00::1]:3260,1"), "fd00::1 3260 1");
    CHECK_STR(address("[fd00::1]"), "fd00::1 3260 -1");
    CHECK_STR(address("[FD00:0:0:0:0:0:0:01],3"), "fd00::1 3260 3");
    CHECK_STR(address("[::ffff:10.0.0.1]:99"), "10.0.0.1 99 -1");
    CHECK_STR(address("fd00::10,7"), "fd00::10 3260 7"); /* no brackets: no port */
    CHECK_STR(address("[fd00::1"), "none");
    CHECK_STR(address("fd00::1]"), "none");
    CHECK_STR(address("[fd00::1]3260"), "none");
    CHECK_STR(address("[fd00::1]:"), "none");
    CHECK_STR(address("[10.0.0.1]:3260"), "none");
    CHECK_STR(address("[array]:3260"), "none");
    CHECK_STR(address("[]:3260"), "none");
    CHECK_STR(address("["), "none");
    CHECK_STR(address("[fe80::1%lo]"), "none"); /* names an interface of ours */
    CHECK_STR(address("fd00::1::2"), "none");
    CHECK_STR(address("1:2:3:4:5:6:7:8:3260"), "none");
}

TEST(wildcards)
{
    CHECK_STR(address("0.0.0.0:3261,1"), " 3261 1");
    CHECK_STR(address("[::]:3260,1"), " 3260 1");
    CHECK_STR(address("[::0]"), " 3260 -1");
}

TEST(malformed_addresses)
{
    static char longest[258];

    CHECK_STR(address(""), "none");
    CHECK_STR(address(":3260"), "none");
    CHECK_STR(address(",1"), "none");
    CHECK_STR(address("10.0.0.1:"), "none");
    CHECK_STR(address("10.0.0.1:0"), "none");
    CHECK_STR(address("10.0.0.1:65536"), "none");
    CHECK_STR(address("10.0.0.1:-1"), "none");
    CHECK_STR(address("10.0.0.1:3260,"), "none");
    CHECK_STR(address("10.0.0.1:3260,65536"), "none");
    CHECK_STR(address("10.0.0.1:3260,1,2"), "none");
    CHECK_STR(address("10.0.0.1,1:3260"), "none");
    CHECK_STR(address("10.0.0"), "none");
    CHECK_STR(address("10.0.0.256"), "none");
    CHECK_STR(address("3260"), "none");
    CHECK_STR(address("a b"), "none");
    CHECK_STR(address("a/../b"), "none");
    CHECK_STR(address("-a"), "none");
    CHECK_STR(address(".a"), "none");
    CHECK_STR(address("a\n"), "none");
    CHECK_STR(address("\xc3\xa4.example"), "none");
    memset(longest, 'h', sizeof longest - 1);
    CHECK_STR(address(longest + 1), "none");
    CHECK(strncmp(address(longest + 2), "hhhh", 4) == 0);
}

/* The examples of RFC 7143 appendix C. */
TEST(examples)
{
    CHECK_STR(LIST("TargetName=iqn.1993-11.com.example:diskarray.sn.8675309\0"),
              "iqn.1993-11.com.example:diskarray.sn.8675309  0 -1\n");
    CHECK_STR(LIST("TargetName=iqn.1993-11.com.example:diskarray.sn.8675309\0"
                   "TargetAddress=10.1.0.45:3000,1\0TargetAddress=10.1.1.45:3000,2\0"
                   "TargetName=iqn.1993-11.com.example:diskarray.sn.1234567\0"
                   "TargetAddress=10.1.0.45:3000,1\0TargetAddress=10.1.1.45:3000,2\0"),
              "iqn.1993-11.com.example:diskarray.sn.8675309 10.1.0.45 3000 1\n"
              "iqn.1993-11.com.example:diskarray.sn.8675309 10.1.1.45 3000 2\n"
              "iqn.1993-11.com.example:diskarray.sn.1234567 10.1.0.45 3000 1\n"
              "iqn.1993-11.com.example:diskarray.sn.1234567 10.1.1.45 3000 2\n");
    CHECK_STR(LIST(""), "");
}

TEST(names)
{
    CHECK_STR(LIST("TargetName=eui.02004567A425678D\0TargetName=naa.52004567BA64678D\0"
                   "TargetName=iqn.2001-04.com.Example:a_b-c\0"),
              "eui.02004567A425678D  0 -1\nnaa.52004567BA64678D  0 -1\n"
              "iqn.2001-04.com.Example:a_b-c  0 -1\n");
    CHECK_STR(LIST("TargetName=iqn.\0TargetName=\0TargetName=disk\0TargetName=iqn.a/../b\0"
                   "TargetName=iqn.a b\0TargetName=IQN.a\0TargetName=iqn.good\0"),
              "iqn.good  0 -1\n+6");

    char text[512] = "TargetName=iqn.";

    memset(text + 15, 'x', 300);
    text[11 + 223] = '\0';
    CHECK(strncmp(list(text, 11 + 224), "iqn.xxx", 7) == 0);
    text[11 + 223] = 'x';
    text[11 + 224] = '\0';
    CHECK_STR(list(text, 11 + 225), "+1");
}

/* One bad entry does not cost the others. */
TEST(skipped)
{
    CHECK_STR(LIST("TargetName=iqn.a\0TargetAddress=bad address\0TargetAddress=10.0.0.1\0"
                   "TargetName=bad name\0TargetAddress=10.0.0.2\0TargetAddress=10.0.0.3\0"
                   "TargetName=iqn.b\0TargetAddress=10.0.0.4\0"),
              "iqn.a 10.0.0.1 3260 -1\niqn.b 10.0.0.4 3260 -1\n+2");
    CHECK_STR(LIST("TargetName=iqn.a\0TargetAddress=\0"), "+1"); /* it is not where we asked */
}

TEST(other_keys)
{
    CHECK_STR(LIST("TargetName=iqn.a\0TargetAlias=x\0TargetAddress=10.0.0.1\0"),
              "iqn.a 10.0.0.1 3260 -1\n");
    CHECK_STR(LIST("SendTargets=Reject\0"), "EOPNOTSUPP");
    CHECK_STR(LIST("TargetName=iqn.a\0SendTargets=NotUnderstood\0"), "EOPNOTSUPP");
}

TEST(broken)
{
    CHECK_STR(LIST("TargetAddress=10.0.0.1\0"), "EPROTO");
    CHECK_STR(LIST("TargetName=iqn.a\0TargetAddress=10.0.0.1"), "EPROTO");
    CHECK_STR(LIST("TargetName=iqn.a\0garbage\0"), "EPROTO");
    CHECK_STR(LIST("TargetName iqn.a\0"), "EPROTO");
}

TEST(duplicates)
{
    CHECK_STR(
        LIST("TargetName=iqn.b\0TargetAddress=10.0.0.1,1\0TargetAddress=[::ffff:10.0.0.1]\0"
             "TargetName=iqn.a\0TargetAddress=10.0.0.1,1\0"
             "TargetName=iqn.b\0TargetAddress=10.0.0.1:3260,1\0TargetAddress=10.0.0.1:3261\0"),
        "iqn.b 10.0.0.1 3260 1\niqn.a 10.0.0.1 3260 1\niqn.b 10.0.0.1 3261 -1\n");
    /* the first tag told */
    CHECK_STR(LIST("TargetName=iqn.b\0TargetAddress=[fd00::1]\0TargetAddress=[fd00:0::1],5\0"
                   "TargetAddress=[fd00::1],6\0"),
              "iqn.b fd00::1 3260 5\n");
}

/* A target named again without an address has those of its other records. */
TEST(merged)
{
    CHECK_STR(LIST("TargetName=iqn.a\0TargetName=iqn.b\0TargetName=iqn.a\0"
                   "TargetAddress=10.0.0.1\0TargetName=iqn.a\0"),
              "iqn.b  0 -1\niqn.a 10.0.0.1 3260 -1\n");
    CHECK_STR(LIST("TargetName=iqn.a\0TargetName=iqn.a\0TargetName=iqn.ab\0"),
              "iqn.a  0 -1\niqn.ab  0 -1\n");
    CHECK_STR(LIST("TargetName=iqn.a\0TargetName=iqn.a\0TargetAddress=0.0.0.0:3260,1\0"),
              "iqn.a  3260 1\n");
}

TEST(many)
{
    static char text[4 * 1024 * 1024];
    struct mp_sendtargets found;
    size_t used = 0;

    for (unsigned i = 0; i < MP_SENDTARGETS_MAX; i++)
        used += (size_t)snprintf(text + used, sizeof text - used,
                                 "TargetName=iqn.x:%u%cTargetAddress=10.0.%u.%u,1%c", i % 8192, 0,
                                 i / 256 % 2, i % 256, 0);
    CHECK_EQ(mp_sendtargets_parse((const uint8_t *)text, used, &found), 0);
    CHECK_EQ(found.count, 8192);
    CHECK_STR(found.targets[8191].iqn, "iqn.x:8191");
    CHECK_STR(found.targets[8191].host, "10.0.1.255");
    free(found.targets);
    used += (size_t)snprintf(text + used, sizeof text - used, "TargetName=iqn.one.more%c", 0);
    CHECK_STR(list(text, used), "E2BIG");
    /* the longest text, of nothing but skipped entries */
    memset(text, 0, sizeof text);
    for (used = 0; used + 12 < sizeof text; used += 12)
        memcpy(text + used, "TargetName=", 11);
    CHECK_STR(list(text, sizeof text), "+349525");
}

int main(void)
{
    RUN(addresses);
    RUN(ipv6);
    RUN(wildcards);
    RUN(malformed_addresses);
    RUN(examples);
    RUN(names);
    RUN(skipped);
    RUN(other_keys);
    RUN(broken);
    RUN(duplicates);
    RUN(merged);
    RUN(many);
    return test_end();
}
