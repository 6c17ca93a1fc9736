/* SPDX-License-Identifier: Apache-2.0 */
#include "../src/iscsi_pdu.h"

#include <errno.h>

#include "test.h"

enum { DATA_MAX = 8192 };

static struct mp_iscsi_reader reader;
static struct mp_iscsi_pdu pdu;
static uint8_t wire[70000];
static size_t wire_length;

static void begin(void)
{
    mp_iscsi_reader_free(&reader);
    reader = (struct mp_iscsi_reader){.data_max = DATA_MAX};
    wire_length = 0;
}

/* A PDU with `words` of AHS and padding that is not zero. */
static void add(uint8_t opcode, size_t words, size_t data_length, char fill)
{
    uint8_t *bhs = wire + wire_length;

    for (size_t i = 0; i < MP_ISCSI_BHS_SIZE; i++)
        bhs[i] = (uint8_t)(0x80 + i);
    bhs[0] = opcode;
    bhs[4] = (uint8_t)words;
    bhs[5] = (uint8_t)(data_length >> 16);
    bhs[6] = (uint8_t)(data_length >> 8);
    bhs[7] = (uint8_t)data_length;
    wire_length += MP_ISCSI_BHS_SIZE;
    memset(wire + wire_length, 'a', words * 4);
    wire_length += words * 4;
    memset(wire + wire_length, fill, data_length);
    wire_length += data_length;
    while (wire_length % 4 != 0)
        wire[wire_length++] = 'p';
}

/* Gives the wire in steps, and returns what the first call that is not 0 returned. */
static int read_next(size_t *at, size_t step)
{
    int result = 0;

    do {
        size_t count = wire_length - *at < step ? wire_length - *at : step;
        const uint8_t *bytes = wire + *at;
        size_t left = count;

        result = mp_iscsi_read(&reader, &bytes, &left, &pdu);
        CHECK(bytes == wire + *at + count - left);
        CHECK(result != 0 || left == 0);
        *at += count - left;
    } while (result == 0 && *at < wire_length);
    return result;
}

TEST(requests)
{
    const struct mp_iscsi_request request = {
        .opcode = MP_ISCSI_LOGIN_REQUEST,
        .immediate = true,
        .flags = 0x87,
        .lun = {1, 2, 3, 4, 5, 6, 0, 0},
        .itt = 0x11121314,
        .ttt = 0x21222324,
        .cmd_sn = 0x31323334,
        .exp_stat_sn = 0x41424344,
        .data = (const uint8_t *)"A=b",
        .length = 5, /* with a NUL and one byte more */
    };
    static const uint8_t want[56] = {
        0x43, 0x87, 0,    0,    0,    0,    0,    5,    1,    2,    3,    4,    5,    6,
        0,    0,    0x11, 0x12, 0x13, 0x14, 0x21, 0x22, 0x23, 0x24, 0x31, 0x32, 0x33, 0x34,
        0x41, 0x42, 0x43, 0x44, 0,    0,    0,    0,    0,    0,    0,    0,    0,    0,
        0,    0,    0,    0,    0,    0,    'A',  '=',  'b',  0,    '!',  0,    0,    0,
    };
    struct mp_iscsi_request padded = request;
    struct mp_bytes output = {0};

    padded.data = (const uint8_t *)"A=b\0!";
    CHECK_EQ(mp_iscsi_append(&output, &padded, 55), -EMSGSIZE);
    CHECK_EQ(output.length, 0);
    CHECK_EQ(mp_iscsi_append(&output, &padded, 56), 0);
    CHECK_EQ(output.length, sizeof want);
    CHECK(memcmp(output.data, want, sizeof want) == 0);
    padded.length = 0;
    padded.data = NULL;
    padded.immediate = false;
    CHECK_EQ(mp_iscsi_append(&output, &padded, 200), 0);
    CHECK_EQ(output.length, 56 + 48);
    CHECK_EQ(output.data[56], 0x03);
    padded.length = 0x1000000; /* does not fit the header */
    CHECK_EQ(mp_iscsi_append(&output, &padded, SIZE_MAX), -EMSGSIZE);
    mp_bytes_free(&output);
    CHECK(output.data == NULL && output.capacity == 0);
}

TEST(fields)
{
    uint8_t bhs[MP_ISCSI_BHS_SIZE] = {0x23, 0xc6, 0x0a, 0x0b, 0, 0, 0, 0};

    for (uint8_t i = 8; i < sizeof bhs; i++)
        bhs[i] = i;
    mp_iscsi_decode(bhs, &pdu);
    CHECK_EQ(pdu.opcode, MP_ISCSI_LOGIN_RESPONSE);
    CHECK(pdu.final && pdu.more);
    CHECK_EQ(pdu.csg, 1);
    CHECK_EQ(pdu.nsg, 2);
    CHECK_EQ(pdu.reason, 0x0a);
    CHECK_EQ(pdu.version_active, 0x0b);
    CHECK(memcmp(pdu.isid, bhs + 8, 6) == 0);
    CHECK(memcmp(pdu.lun, bhs + 8, 8) == 0);
    CHECK_EQ(pdu.itt, 0x10111213);
    CHECK_EQ(pdu.ttt, 0x14151617);
    CHECK_EQ(pdu.stat_sn, 0x18191a1b);
    CHECK_EQ(pdu.status_class, 0x24);
    CHECK_EQ(pdu.status_detail, 0x25);
    CHECK_EQ(pdu.event, 0x24);
    bhs[0] = 0xff; /* reserved bits */
    bhs[1] = 0x00;
    mp_iscsi_decode(bhs, &pdu);
    CHECK_EQ(pdu.opcode, MP_ISCSI_REJECT);
    CHECK(!pdu.final && !pdu.more);
}

TEST(stream)
{
    static const size_t steps[] = {1, 2, 3, 47, 48, 49, 1000, sizeof wire};
    static const size_t lengths[] = {0, 1, 2, 3, 4, 5, 8191, 8192};

    for (size_t s = 0; s < sizeof steps / sizeof steps[0]; s++) {
        size_t at = 0;

        begin();
        for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++)
            add((uint8_t)(0x20 + i), i % 3 == 2 ? 255 : i % 3, lengths[i], (char)('A' + i));
        for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
            CHECK_EQ(read_next(&at, steps[s]), 1);
            CHECK_EQ(pdu.opcode, 0x20 + i);
            CHECK_EQ(pdu.itt, 0x90919293);
            CHECK_EQ(pdu.length, lengths[i]);
            for (size_t k = 0; k < pdu.length; k++)
                if (pdu.data[k] != 'A' + i) {
                    TEST_FAIL("byte %zu of PDU %zu", k, i);
                    break;
                }
        }
        CHECK_EQ(at, wire_length);
        CHECK_EQ(read_next(&at, steps[s]), 0);
    }
}

TEST(truncated)
{
    for (size_t cut = 0; cut < 48 + 8 + 4; cut++) {
        size_t at = 0;

        begin();
        add(0x24, 2, 3, 'x');
        CHECK_EQ(wire_length, 60);
        wire_length = cut;
        CHECK_EQ(read_next(&at, 5), 0);
    }
}

TEST(too_long)
{
    size_t at = 0;

    begin();
    add(0x24, 0, DATA_MAX + 1, 'x');
    CHECK_EQ(read_next(&at, sizeof wire), -EMSGSIZE);
    CHECK_EQ(at, MP_ISCSI_BHS_SIZE); /* known from the header alone */
    begin();
    add(0x24, 0, 0, 'x');
    memset(wire + 5, 0xff, 3);
    at = 0;
    CHECK_EQ(read_next(&at, 1), -EMSGSIZE);
    begin();
    add(0x24, 0, DATA_MAX, 'x');
    at = 0;
    CHECK_EQ(read_next(&at, 1), 1);
    CHECK_EQ(pdu.length, DATA_MAX);
}

/* A header that promises much makes nobody reserve it. */
TEST(memory_follows_data)
{
    size_t at = 0;

    begin();
    add(0x24, 255, DATA_MAX, 'x');
    wire_length = MP_ISCSI_BHS_SIZE + 1020 + 10;
    CHECK_EQ(read_next(&at, sizeof wire), 0);
    CHECK_EQ(reader.data.length, 10);
    CHECK(reader.data.capacity <= 1024);
}

int main(void)
{
    RUN(requests);
    RUN(fields);
    RUN(stream);
    RUN(truncated);
    RUN(too_long);
    RUN(memory_follows_data);
    mp_iscsi_reader_free(&reader);
    return test_end();
}
