/* SPDX-License-Identifier: Apache-2.0 */
#include "../src/alua.h"

#include <errno.h>

#include "test.h"

static int priority;

#define PRIORITY(group, ...)                                                                       \
    priority_of(group, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static int priority_of(uint16_t group, const uint8_t *data, size_t length)
{
    priority = 4711;
    int r = mp_alua_priority(data, length, group, &priority);

    CHECK(r == 0 || priority == 4711);
    return r < 0 ? r : priority;
}

/* One group of one port, SPC-4 6.36: state, support, number, reserved, status, vendor, ports. */
#define GROUP(state, number, port) state, 0x0f, 0, number, 0, 0, 0, 1, 0, 0, 0, port
#define LENGTH(bytes) 0, 0, 0, bytes
#define EXTENDED 0x10, 30, 0, 0

TEST(states)
{
    static const struct {
        uint8_t state;
        int priority;
    } cases[] = {
        {0x00, 50},
        {0x01, 10},
        {0x02, 1},
        {0x03, 0},
        {0x04, 5},
        {0x0e, 0},
        {0x0f, 0},
        {0x07, 0},
        /* preferred */
        {0x80, 50},
        {0x81, 90},
        {0x82, 81},
        {0x83, 0},
        {0x84, 85},
        {0x8e, 0},
        {0x8f, 0},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        CHECK_EQ(PRIORITY(7, LENGTH(12), GROUP(cases[i].state, 7, 1)), cases[i].priority);
}

TEST(groups)
{
    CHECK_EQ(PRIORITY(1, LENGTH(24), GROUP(0, 1, 1), GROUP(1, 2, 2)), 50);
    CHECK_EQ(PRIORITY(2, LENGTH(24), GROUP(0, 1, 1), GROUP(1, 2, 2)), 10);
    CHECK_EQ(PRIORITY(3, LENGTH(24), GROUP(0, 1, 1), GROUP(1, 2, 2)), -ENOENT);
    CHECK_EQ(PRIORITY(2, LENGTH(28), EXTENDED, GROUP(0, 1, 1), GROUP(2, 2, 2)), 1);
    /* groups without a port, and with two */
    CHECK_EQ(PRIORITY(2, LENGTH(24), 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 1, 0,
                      0, 0, 2),
             10);
    /* there was no room for all */
    CHECK_EQ(PRIORITY(1, LENGTH(240), GROUP(0, 1, 1)), 50);
    CHECK_EQ(PRIORITY(2, LENGTH(240), GROUP(0, 1, 1)), -ENOENT);
    /* nothing behind the length counts */
    CHECK_EQ(PRIORITY(2, LENGTH(12), GROUP(0, 1, 1), GROUP(1, 2, 2)), -ENOENT);
}

TEST(malformed)
{
    CHECK_EQ(priority_of(1, NULL, 0), -EPROTO);
    CHECK_EQ(PRIORITY(1, 0, 0, 0), -EPROTO);
    CHECK_EQ(PRIORITY(1, LENGTH(0)), -ENOENT);
    CHECK_EQ(PRIORITY(1, LENGTH(4), EXTENDED), -ENOENT);
    CHECK_EQ(PRIORITY(1, LENGTH(2), 0x10, 0), -ENOENT);
    CHECK_EQ(PRIORITY(1, LENGTH(7), 0, 0, 0, 1, 0, 0, 0), -EPROTO);
    CHECK_EQ(PRIORITY(1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0, 0), -EPROTO);
}

static int group_of(const uint8_t *page, size_t length)
{
    uint16_t group = 4711;
    int r = mp_alua_group_id(page, length, &group);

    CHECK(r == 0 || group == 4711);
    return r < 0 ? r : group;
}

#define GROUP_OF(...)                                                                              \
    group_of((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))
#define NAA 1, 3, 0, 8, 0x50, 1, 2, 3, 4, 5, 6, 7

TEST(group_ids)
{
    CHECK_EQ(GROUP_OF(0, 0x83, 0, 20, NAA, 1, 0x15, 0, 4, 0, 0, 0x12, 0x34), 0x1234);
    CHECK_EQ(GROUP_OF(0, 0x83, 0, 8, 0x51, 0x95, 0, 4, 0, 0, 0, 2), 2); /* protocol, PIV */
    CHECK_EQ(GROUP_OF(0, 0x83, 0, 12, NAA), -ENOENT);
    CHECK_EQ(GROUP_OF(0, 0x83, 0, 8, 1, 0x05, 0, 4, 0, 0, 0, 2), -ENOENT); /* of the LUN */
    CHECK_EQ(GROUP_OF(0, 0x83, 0, 8, 1, 0x14, 0, 4, 0, 0, 0, 2), -ENOENT); /* the port */
    CHECK_EQ(GROUP_OF(0, 0x83, 0, 7, 1, 0x15, 0, 3, 0, 0, 2), -ENOENT);
    CHECK_EQ(GROUP_OF(0, 0x80, 0, 8, 1, 0x15, 0, 4, 0, 0, 0, 2), -EPROTO);
    CHECK_EQ(GROUP_OF(0, 0x83, 0, 9, 1, 0x15, 0, 4, 0, 0, 0, 2), -EPROTO);
    CHECK_EQ(GROUP_OF(0, 0x83, 0, 8, 1, 0x15, 0, 5, 0, 0, 0, 2), -EPROTO);
    CHECK_EQ(GROUP_OF(0, 0x83, 0, 2, 1, 0x15), -EPROTO);
    CHECK_EQ(GROUP_OF(0, 0x83), -EPROTO);
}

TEST(words)
{
    CHECK_EQ(mp_alua_priority_of_words("active/optimized", false), 50);
    CHECK_EQ(mp_alua_priority_of_words("active/optimized", true), 50);
    CHECK_EQ(mp_alua_priority_of_words("active/non-optimized", false), 10);
    CHECK_EQ(mp_alua_priority_of_words("active/non-optimized", true), 90);
    CHECK_EQ(mp_alua_priority_of_words("standby", false), 1);
    CHECK_EQ(mp_alua_priority_of_words("lba-dependent", false), 5);
    CHECK_EQ(mp_alua_priority_of_words("unavailable", true), 0);
    CHECK_EQ(mp_alua_priority_of_words("transitioning", false), 0);
    CHECK_EQ(mp_alua_priority_of_words("", false), MP_PRIORITY_UNKNOWN);
}

int main(void)
{
    RUN(states);
    RUN(groups);
    RUN(malformed);
    RUN(group_ids);
    RUN(words);
    return test_end();
}
