/* SPDX-License-Identifier: Apache-2.0 */
#include "../src/address.h"
#include "../src/text.h"

#include <errno.h>
#include <net/if.h>

#include "test.h"
#include "tree.h"

static bool parses(const char *text, uint64_t max, uint64_t want)
{
    uint64_t value = 77;

    return mp_parse_u64(text, max, &value) ? value == want : want == 77 && value == 77;
}

enum { NOT = 77 };

TEST(numbers)
{
    CHECK(parses("0", 0, 0));
    CHECK(parses("1", 0, NOT));
    CHECK(parses("9", 9, 9));
    CHECK(parses("10", 9, NOT));
    CHECK(parses("5", 4, NOT));
    CHECK(parses("65535", 65535, 65535));
    CHECK(parses("65536", 65535, NOT));
    CHECK(parses("00012", 12, 12));
    CHECK(parses("18446744073709551615", UINT64_MAX, UINT64_MAX));
    CHECK(parses("18446744073709551616", UINT64_MAX, NOT));
    CHECK(parses("99999999999999999999999999", UINT64_MAX, NOT));
    CHECK(parses("", 9, NOT));
    CHECK(parses(" 1", 9, NOT));
    CHECK(parses("1 ", 9, NOT));
    CHECK(parses("-1", 9, NOT));
    CHECK(parses("+1", 9, NOT));
    CHECK(parses("0x1", 9, NOT));
}

TEST(take)
{
    const char *text = "8:16";
    uint64_t value = 0;

    CHECK(mp_take_u64(&text, 255, &value));
    CHECK_EQ(value, 8);
    CHECK_STR(text, ":16");
    CHECK(!mp_take_u64(&text, 255, &value));
    CHECK_STR(text, ":16");
    text = "300";
    CHECK(!mp_take_u64(&text, 255, &value));
    CHECK_STR(text, "300");
    CHECK_EQ(value, 8);
}

TEST(copy)
{
    char buffer[4] = "xyz";

    CHECK(mp_copy(buffer, sizeof buffer, "abc"));
    CHECK_STR(buffer, "abc");
    CHECK(!mp_copy(buffer, sizeof buffer, "defg"));
    CHECK_STR(buffer, "def");
    CHECK(mp_copy(buffer, sizeof buffer, ""));
    CHECK_STR(buffer, "");
    CHECK(mp_copy(buffer, 1, ""));
    CHECK(!mp_copy(buffer, 1, "a"));
    CHECK_STR(buffer, "");
}

TEST(read_file)
{
    char buffer[8];

    tree_begin();
    tree_file(tree_path("a"), "abc \n\n");
    CHECK_EQ(mp_read_file(tree_path("a"), buffer, sizeof buffer), 3);
    CHECK_STR(buffer, "abc");
    tree_file(tree_path("a"), "");
    CHECK_EQ(mp_read_file(tree_path("a"), buffer, sizeof buffer), 0);
    CHECK_STR(buffer, "");
    tree_file(tree_path("a"), "0123456789");
    CHECK_EQ(mp_read_file(tree_path("a"), buffer, sizeof buffer), 7);
    CHECK_STR(buffer, "0123456");
    CHECK_EQ(mp_read_file(tree_path("b"), buffer, sizeof buffer), -ENOENT);
    CHECK_EQ(mp_read_file(tree_root, buffer, sizeof buffer), -EISDIR);
    tree_end();
}

TEST(clock)
{
    uint64_t before = mp_now_ns();

    CHECK(before > 0);
    CHECK(mp_now_ns() >= before);
}

static const char *canonical(const char *text)
{
    static char result[64];
    struct mp_portal portal;
    int r = mp_portal_parse(text, 3260, &portal);

    if (r < 0)
        return r == -EINVAL ? "invalid" : "another error";
    mp_portal_format(&portal, result, sizeof result);
    return result;
}

TEST(portals)
{
    CHECK_STR(canonical("192.0.2.1"), "192.0.2.1");
    CHECK_STR(canonical("2001:DB8:0:0::1"), "2001:db8::1");
    CHECK_STR(canonical("::ffff:192.0.2.1"), "192.0.2.1");
    CHECK_STR(canonical("::ffff:c000:201"), "192.0.2.1");
    CHECK_STR(canonical("::1"), "::1");
    CHECK_STR(canonical("fe80::1"), "fe80::1");
    CHECK_STR(canonical(""), "invalid");
    CHECK_STR(canonical("storage.example"), "invalid");
    CHECK_STR(canonical("[2001:db8::1]"), "invalid");
    CHECK_STR(canonical("192.0.2.1:3260"), "invalid");
    CHECK_STR(canonical("192.0.2.256"), "invalid");
    CHECK_STR(canonical("192.0.2"), "invalid");
    CHECK_STR(canonical("192.0.2.01"), "invalid");
    CHECK_STR(canonical(" 192.0.2.1"), "invalid");
    CHECK_STR(canonical("192.0.2.1%lo"), "invalid");
    CHECK_STR(canonical("2001:db8::1%lo"), "invalid");
    CHECK_STR(canonical("fe80::1%"), "invalid");
    CHECK_STR(canonical("fe80::1%no-such-interface-here-at-all"), "invalid");
    CHECK_STR(canonical("%lo"), "invalid");
    CHECK_STR(canonical("1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb"), "invalid");
}

TEST(scopes)
{
    struct mp_portal one, two;

    if (if_nametoindex("lo") == 0)
        return;
    CHECK_STR(canonical("fe80::1%lo"), "fe80::1%lo");
    CHECK_EQ(mp_portal_parse("fe80::1%lo", 3260, &one), 0);
    CHECK_EQ(one.scope_id, if_nametoindex("lo"));
    CHECK_EQ(mp_portal_parse("fe80::1", 3260, &two), 0);
    CHECK(!mp_portal_equal(&one, &two));
}

TEST(equality)
{
    struct mp_portal one, two;

    CHECK_EQ(mp_portal_parse("192.0.2.1", 3260, &one), 0);
    CHECK_EQ(mp_portal_parse("::FFFF:192.0.2.1", 3260, &two), 0);
    CHECK(mp_portal_equal(&one, &two));
    CHECK_EQ(mp_portal_parse("192.0.2.1", 3261, &two), 0);
    CHECK(!mp_portal_equal(&one, &two));
    CHECK_EQ(mp_portal_parse("::c000:201", 3260, &two), 0);
    CHECK(!mp_portal_equal(&one, &two));
    CHECK_EQ(mp_portal_parse("nothing", 9, &two), -EINVAL); /* untouched on failure */
    CHECK_EQ(two.port, 3260);
}

TEST(sockaddrs)
{
    struct sockaddr_storage address;
    struct mp_portal portal;

    CHECK_EQ(mp_portal_parse("192.0.2.1", 3260, &portal), 0);
    CHECK_EQ(mp_portal_sockaddr(&portal, &address), sizeof(struct sockaddr_in));
    CHECK_EQ(((struct sockaddr_in *)&address)->sin_family, AF_INET);
    CHECK_EQ(ntohs(((struct sockaddr_in *)&address)->sin_port), 3260);
    CHECK_EQ(ntohl(((struct sockaddr_in *)&address)->sin_addr.s_addr), 0xc0000201);
    CHECK_EQ(mp_portal_parse("2001:db8::1", 860, &portal), 0);
    CHECK_EQ(mp_portal_sockaddr(&portal, &address), sizeof(struct sockaddr_in6));
    CHECK_EQ(((struct sockaddr_in6 *)&address)->sin6_family, AF_INET6);
    CHECK_EQ(ntohs(((struct sockaddr_in6 *)&address)->sin6_port), 860);
    CHECK_EQ(((struct sockaddr_in6 *)&address)->sin6_addr.s6_addr[15], 1);
}

int main(void)
{
    RUN(numbers);
    RUN(take);
    RUN(copy);
    RUN(read_file);
    RUN(clock);
    RUN(portals);
    RUN(scopes);
    RUN(equality);
    RUN(sockaddrs);
    return test_end();
}
