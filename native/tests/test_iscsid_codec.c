/* SPDX-License-Identifier: Apache-2.0 */
#include "../src/iscsid_codec.h"

#include <errno.h>

#include "test.h"

static uint8_t request[MP_ISCSID_REQUEST_MAX];
static uint8_t golden[MP_ISCSID_REQUEST_MAX];

static struct mp_iscsid_login a_login(void)
{
    struct mp_iscsid_login login;

    mp_iscsid_login_init(&login);
    login.target = "iqn.2010-10.org.openstack:volume-1";
    login.address = "192.0.2.1";
    return login;
}

static struct mp_iscsid_login a_chap_login(void)
{
    static const uint8_t secret[] = {'s', 'e', 0x00, 0xff, 't'};
    struct mp_iscsid_login login = a_login();

    login.username = "alice";
    login.password = secret;
    login.password_length = sizeof(secret);
    return login;
}

static const struct mp_iscsid_layout *layout_of(uint32_t size)
{
    return mp_iscsid_layout_find(NULL, 0, size);
}

static int encode(const struct mp_iscsid_layout *layout, const struct mp_iscsid_login *login)
{
    return mp_iscsid_encode_login(layout, login, request, layout->request_size);
}

static int encode_l5(const struct mp_iscsid_login *login)
{
    return encode(layout_of(16104), login);
}

static void gold_int(size_t offset, int32_t value)
{
    memcpy(golden + offset, &value, sizeof(value));
}

static void gold_text(size_t offset, const char *text)
{
    memcpy(golden + offset, text, strlen(text));
}

static int32_t int_at(const uint8_t *buf, size_t offset)
{
    int32_t value;

    memcpy(&value, buf + offset, sizeof(value));
    return value;
}

/* Every field has its own value, so a swap shows. Offsets: facts, Appendix A, column 2.1.1, + 16;
 * written here as numbers on purpose, not taken from the table under test. */
TEST(golden_l5)
{
    struct mp_iscsid_login login = a_chap_login();
    static const uint8_t secret_in[] = {0x01, 0x02, 0x00, 0x04};

    login.port = 3261;
    login.tpgt = 17;
    login.username_in = "target";
    login.password_in = secret_in;
    login.password_in_length = sizeof(secret_in);
    login.chap_algs[0] = MP_CHAP_SHA256;
    login.chap_algs[1] = MP_CHAP_MD5;
    login.iface_name = "storage0";
    login.netdev = "eth7";
    login.ipaddress = "192.0.2.200";
    login.hwaddress = "02:00:00:00:00:07";
    login.transport = "iser";
    login.initiator = "iqn.2004-10.com.ubuntu:01:host";
    login.login_timeout = 101;
    login.logout_timeout = 102;
    login.auth_timeout = 103;
    login.noop_out_interval = 104;
    login.noop_out_timeout = 105;
    login.initial_login_retry_max = 106;
    login.login_redirect_max = 107;
    login.reopen_max = 108;
    login.reopen_log_freq = 109;
    login.replacement_timeout = 110;
    login.abort_timeout = 111;
    login.host_reset_timeout = 112;
    login.lu_reset_timeout = 113;
    login.tgt_reset_timeout = 114;
    login.cmds_max = 256;
    login.queue_depth = 115;
    login.xmit_thread_priority = -19;
    login.window_size = 116;
    login.type_of_service = 117;
    login.initial_r2t = 1;
    login.immediate_data = 1;
    login.first_burst_length = 1024;
    login.max_burst_length = 2048;
    login.max_outstanding_r2t = 118;
    login.default_time2wait = 119;
    login.default_time2retain = 120;
    login.fast_abort = 1;
    login.max_recv_segment = 4096;
    login.max_xmit_segment = 8192;
    login.header_digest = 2;
    login.data_digest = 3;
    login.scan_auto = 1;
    login.multiple = 1;

    memset(golden, 0, sizeof(golden));
    gold_int(0, 1);
    gold_int(4, 0);
    gold_int(8, 0);
    gold_text(32, "iqn.2010-10.org.openstack:volume-1");
    gold_int(288, 17);
    gold_int(292, 0);
    gold_int(296, 0);
    gold_int(304, 0);
    gold_int(308, 108);
    gold_int(312, -19);
    gold_int(316, 256);
    gold_int(320, 115);
    gold_int(324, 106);
    gold_int(328, 1);
    gold_int(332, 1);
    gold_int(336, 1);
    gold_text(340, "alice");
    memcpy(golden + 596, "se\0\xfft", 5);
    gold_int(852, 5);
    gold_text(856, "target");
    memcpy(golden + 1112, "\1\2\0\4", 4);
    gold_int(1368, 4);
    gold_int(1372, 7);
    gold_int(1376, 5);
    gold_int(1380, -1);
    gold_int(1384, -1);
    gold_int(1388, -1);
    gold_int(1392, 110);
    gold_int(1396, 111);
    gold_int(1400, 112);
    gold_int(1404, 113);
    gold_int(1408, 114);
    gold_int(1424, 1);
    gold_int(1428, 1);
    gold_int(1432, 1024);
    gold_int(1436, 2048);
    gold_int(1440, 119);
    gold_int(1444, 120);
    gold_int(1448, 1);
    gold_int(1452, 118);
    gold_int(1456, 0);
    gold_int(1460, 1);
    golden[1476] = 1;
    gold_int(2248, 0);
    gold_text(2252, "192.0.2.1");
    gold_int(3280, 3261);
    gold_int(3284, 116);
    gold_int(3288, 117);
    gold_int(3292, 101);
    gold_int(3296, 102);
    gold_int(3300, 103);
    gold_int(3304, 0);
    gold_int(3308, 104);
    gold_int(3312, 105);
    gold_int(3316, 4096);
    gold_int(3320, 8192);
    gold_int(3324, 2);
    gold_int(3328, 3);
    gold_text(3360, "storage0");
    gold_text(3432, "eth7");
    gold_text(3448, "192.0.2.200");
    gold_text(14516, "02:00:00:00:00:07");
    gold_text(14534, "iser");
    gold_text(14806, "iqn.2004-10.com.ubuntu:01:host");
    gold_int(15064, 4);

    memset(request, 0xa5, sizeof(request));
    CHECK_EQ(encode_l5(&login), 0);
    for (size_t i = 0; i < 16104; i++)
        if (request[i] != golden[i])
            TEST_FAIL("byte %zu is 0x%02x, want 0x%02x", i, request[i], golden[i]);
    CHECK(memcmp(request, golden, 16104) == 0);
    CHECK_EQ(request[16104], 0xa5); /* not a byte behind the request */
}

/* facts section 9, "Default record values", on the newest layout, which has every field. */
TEST(defaults_l8)
{
    struct mp_iscsid_login login = a_login();
    const struct {
        size_t offset;
        int32_t value;
    } want[] = {
        {0, 1},         {4, 0},           {288, -1},  {308, 0},   {312, 0},     {316, 128},
        {320, 32},      {324, 4},         {328, 8},   {332, 1},   {336, 0},     {340, 0},
        {856, 0},       {1372, 0},        {1376, 5},  {1380, -1}, {1392, -1},   {1396, 120},
        {1400, 15},     {1404, 60},       {1408, 30}, {1412, 30}, {1428, 0},    {1432, 1},
        {1436, 262144}, {1440, 16776192}, {1444, 2},  {1448, 0},  {1452, 1},    {1456, 1},
        {1460, 0},      {1464, 1},        {2256, 1},  {2264, 0},  {3296, 3260}, {3300, 524288},
        {3304, 0},      {3324, 30},       {3328, 15}, {3332, 45}, {3336, 0},    {3340, 5},
        {3344, 5},      {3348, 262144},   {3352, 0},  {3356, 0},  {3360, 0},    {15096, 3},
    };

    CHECK_EQ(encode(layout_of(16136), &login), 0);
    for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
        if (int_at(request, want[i].offset) != want[i].value)
            TEST_FAIL("at %zu: %d, want %d", want[i].offset, int_at(request, want[i].offset),
                      want[i].value);
        CHECK_EQ(int_at(request, want[i].offset), want[i].value);
    }
    CHECK_STR((const char *)request + 3392, "default");
    CHECK_STR((const char *)request + 14566, "tcp");
    CHECK_EQ(request[1484], 0);
    CHECK_EQ(request[14838], 0);
}

TEST(old_layouts_leave_absent_fields)
{
    struct mp_iscsid_login login = a_chap_login();

    /* 2.0.874: no scan, no list of CHAP algorithms, so replacement_timeout comes directly after
     * password_in_length (1364). */
    CHECK_EQ(encode(layout_of(16080), &login), 0);
    CHECK_EQ(int_at(request, 848), 5);
    CHECK_EQ(int_at(request, 1364), 0);
    CHECK_EQ(int_at(request, 1368), 120);
    login.chap_algs[0] = MP_CHAP_SHA256;
    CHECK_EQ(encode(layout_of(16080), &login), -EOPNOTSUPP);
    login.chap_algs[1] = MP_CHAP_MD5;
    CHECK_EQ(encode(layout_of(16080), &login), 0);
}

TEST(every_layout_takes_a_login)
{
    struct mp_iscsid_login login = a_chap_login();

    login.address = "fe80::1%eth0";
    for (size_t i = 0; i < mp_iscsid_layout_count; i++) {
        const struct mp_iscsid_layout *layout = &mp_iscsid_layouts[i];

        CHECK_EQ(encode(layout, &login), 0);
        CHECK_STR((const char *)request + layout->address.offset, "fe80::1%eth0");
        CHECK_EQ(int_at(request, layout->port.offset), 3260);
        CHECK_EQ(mp_iscsid_encode_login(layout, &login, request, layout->request_size - 1),
                 -EINVAL);
        CHECK_EQ(mp_iscsid_encode_login(layout, &login, request, layout->request_size + 1),
                 -EINVAL);
    }
}

TEST(failure_leaves_the_buffer)
{
    struct mp_iscsid_login login = a_chap_login();

    login.data_digest = 4;
    memset(request, 0x5a, sizeof(request));
    memset(golden, 0x5a, sizeof(golden));
    CHECK_EQ(encode_l5(&login), -EINVAL);
    CHECK(memcmp(request, golden, sizeof(request)) == 0);
}

static void expect_name(const char *target, int want)
{
    struct mp_iscsid_login login = a_login();

    login.target = target;
    CHECK_EQ(encode_l5(&login), want);
}

TEST(target_names)
{
    char name[300];

    memset(name, 'x', sizeof(name));
    name[223] = '\0';
    expect_name(name, 0);
    name[223] = 'x';
    name[224] = '\0';
    expect_name(name, -ENAMETOOLONG);
    expect_name(NULL, -EINVAL);
    expect_name("", -EINVAL);
    expect_name("iqn.2010-10.org:a b", -EINVAL);
    expect_name("iqn.2010-10.org:a\nb", -EINVAL);
    expect_name("iqn.2010-10.org:a\x7f", -EINVAL);
    expect_name("../../../etc", -EINVAL);
    expect_name("naa.52004567BA64678D", 0);
}

static void expect_address(const char *address, int want)
{
    struct mp_iscsid_login login = a_login();

    login.address = address;
    if (encode_l5(&login) != want)
        TEST_FAIL("address %s", address != NULL ? address : "(null)");
    CHECK_EQ(encode_l5(&login), want);
}

TEST(addresses_are_numeric)
{
    char longest[1100];

    expect_address("192.0.2.255", 0);
    expect_address("2001:db8::1", 0);
    expect_address("::ffff:192.0.2.1", 0);
    expect_address("fe80::1%bond0.12", 0);
    expect_address("fe80::1%", -EINVAL);
    expect_address("fe80::1%a%b", -EINVAL);
    expect_address("fe80::1%a b", -EINVAL);
    expect_address("192.0.2.1%eth0", -EINVAL);
    expect_address("192.0.2", -EINVAL);
    expect_address("192.0.2.256", -EINVAL);
    expect_address("[2001:db8::1]", -EINVAL);
    expect_address("storage.example", -EINVAL);
    expect_address("%eth0", -EINVAL);
    expect_address("", -EINVAL);
    expect_address(NULL, -EINVAL);
    memset(longest, '1', sizeof(longest));
    longest[sizeof(longest) - 1] = '\0';
    expect_address(longest, -ENAMETOOLONG);
    longest[1000] = '\0';
    expect_address(longest, -EINVAL);
}

TEST(portal_and_interface)
{
    struct mp_iscsid_login login = a_login();

    login.port = 0;
    CHECK_EQ(encode_l5(&login), -EINVAL);
    login = a_login();
    login.transport = "";
    CHECK_EQ(encode_l5(&login), -EINVAL);
    login.transport = NULL;
    CHECK_EQ(encode_l5(&login), -EINVAL);
    login.transport = "a-transport-name";
    CHECK_EQ(encode_l5(&login), -ENAMETOOLONG);
    login = a_login();
    login.iface_name = "";
    CHECK_EQ(encode_l5(&login), -EINVAL);
    login = a_login();
    login.netdev = "sixteen-letters-";
    CHECK_EQ(encode_l5(&login), -ENAMETOOLONG);
    login.netdev = "fifteen-letters";
    CHECK_EQ(encode_l5(&login), 0);
    login = a_login();
    login.tpgt = -2;
    CHECK_EQ(encode_l5(&login), -EINVAL);
    login.tpgt = 65536;
    CHECK_EQ(encode_l5(&login), -EINVAL);
    login.tpgt = 65535;
    CHECK_EQ(encode_l5(&login), 0);
}

/* facts section 9, traps 4 to 6 */
TEST(chap_traps)
{
    static uint8_t secret[300];
    static char name[300];
    struct mp_iscsid_login login = a_chap_login();

    memset(name, 'n', sizeof(name));
    name[255] = '\0';
    login.username = name;
    login.password = secret;
    login.password_length = 255;
    CHECK_EQ(encode_l5(&login), 0);
    login.password_length = 256;
    CHECK_EQ(encode_l5(&login), -ENAMETOOLONG);
    login.password_length = SIZE_MAX;
    CHECK_EQ(encode_l5(&login), -ENAMETOOLONG);
    login.password_length = 10;
    name[255] = 'n';
    name[256] = '\0';
    CHECK_EQ(encode_l5(&login), -ENAMETOOLONG);
    login.username = "a\tb";
    CHECK_EQ(encode_l5(&login), -EINVAL);
    login.username = "a b/c";
    CHECK_EQ(encode_l5(&login), 0);
    login.username = NULL; /* secret without a name */
    CHECK_EQ(encode_l5(&login), -EINVAL);
    login.username = "alice"; /* name without a secret */
    login.password_length = 0;
    CHECK_EQ(encode_l5(&login), -EINVAL);
    login.password_length = 5;
    login.password = NULL;
    CHECK_EQ(encode_l5(&login), -EINVAL);

    login = a_login(); /* mutual without ours: iscsid would log in unauthenticated */
    login.username_in = "target";
    login.password_in = secret;
    login.password_in_length = 12;
    CHECK_EQ(encode_l5(&login), -EINVAL);
    login = a_chap_login();
    login.username_in = "target";
    CHECK_EQ(encode_l5(&login), -EINVAL);
    login.password_in = secret;
    login.password_in_length = 256;
    CHECK_EQ(encode_l5(&login), -ENAMETOOLONG);
    login.password_in_length = 255;
    CHECK_EQ(encode_l5(&login), 0);
    login.username_in = NULL;
    CHECK_EQ(encode_l5(&login), -EINVAL);

    login = a_chap_login();
    login.chap_algs[0] = MP_CHAP_NONE;
    CHECK_EQ(encode_l5(&login), -EINVAL);
    login.chap_algs[0] = 0;
    CHECK_EQ(encode_l5(&login), -EINVAL);
    login.chap_algs[0] = MP_CHAP_MD5;
    login.chap_algs[2] = MP_CHAP_SHA1;
    CHECK_EQ(encode_l5(&login), -EINVAL);
    login.chap_algs[1] = 9;
    CHECK_EQ(encode_l5(&login), -EINVAL);
    login.chap_algs[1] = MP_CHAP_SHA3_256;
    CHECK_EQ(encode_l5(&login), 0);
}

TEST(numbers_out_of_range)
{
#define REFUSED(member, value)                                                                     \
    do {                                                                                           \
        struct mp_iscsid_login bad = a_login();                                                    \
        bad.member = (value);                                                                      \
        CHECK_EQ(encode_l5(&bad), -EINVAL);                                                        \
    } while (0)
    REFUSED(login_timeout, 0);
    REFUSED(login_timeout, -1);
    REFUSED(logout_timeout, 0);
    REFUSED(auth_timeout, 0);
    REFUSED(noop_out_interval, 0);
    REFUSED(noop_out_timeout, 0);
    REFUSED(noop_out_timeout, -5);
    REFUSED(initial_login_retry_max, -1);
    REFUSED(login_redirect_max, -1);
    REFUSED(reopen_max, -1);
    REFUSED(reopen_log_freq, 0);
    REFUSED(replacement_timeout, -2);
    REFUSED(abort_timeout, -1);
    REFUSED(host_reset_timeout, -1);
    REFUSED(lu_reset_timeout, -1);
    REFUSED(tgt_reset_timeout, -1);
    REFUSED(cmds_max, 15);
    REFUSED(cmds_max, 0);
    REFUSED(cmds_max, 4097);
    REFUSED(queue_depth, 0);
    REFUSED(xmit_thread_priority, -21);
    REFUSED(window_size, -1);
    REFUSED(type_of_service, 256);
    REFUSED(initial_r2t, 2);
    REFUSED(immediate_data, -1);
    REFUSED(fast_abort, 2);
    REFUSED(first_burst_length, 511);
    REFUSED(max_burst_length, 1 << 24);
    REFUSED(first_burst_length, 16776193); /* more than max_burst_length */
    REFUSED(max_recv_segment, 0);
    REFUSED(max_xmit_segment, 511);
    REFUSED(max_outstanding_r2t, 0);
    REFUSED(default_time2wait, 3601);
    REFUSED(default_time2retain, -1);
    REFUSED(header_digest, 4);
    REFUSED(data_digest, -1);
    REFUSED(scan_auto, 2);
    REFUSED(multiple, 2);
#undef REFUSED
}

TEST(sid_requests)
{
    const uint32_t allowed[] = {MP_ISCSID_LOGOUT, MP_ISCSID_STATS, MP_ISCSID_SESSION_INFO};
    const struct mp_iscsid_layout *layout = layout_of(8400);

    for (size_t i = 0; i < 3; i++) {
        memset(request, 0xff, sizeof(request));
        CHECK_EQ(mp_iscsid_encode_sid(layout, allowed[i], 77, request, 8400), 0);
        CHECK_EQ(int_at(request, 0), allowed[i]);
        CHECK_EQ(int_at(request, 4), 0);
        CHECK_EQ(int_at(request, 8), 77);
        CHECK_EQ(request[12], 0);
        CHECK_EQ(request[8399], 0);
        CHECK_EQ(request[8400], 0xff);
    }
    CHECK_EQ(mp_iscsid_encode_sid(layout, MP_ISCSID_LOGOUT, 0x80000000u, request, 8400), -EINVAL);
    CHECK_EQ(mp_iscsid_encode_sid(layout, MP_ISCSID_LOGOUT, 1, request, 8399), -EINVAL);
}

TEST(dangerous_commands_cannot_be_encoded)
{
    const struct mp_iscsid_layout *layout = layout_of(16104);

    for (uint32_t command = 0; command < 300; command++) {
        int is_sid = command == 2 || command == 7 || command == 13;
        int is_simple = command >= 8 && command <= 10;

        CHECK_EQ(mp_iscsid_encode_sid(layout, command, 1, request, 16104), is_sid ? 0 : -EINVAL);
        CHECK_EQ(mp_iscsid_encode_simple(command, request, 16104), is_simple ? 0 : -EINVAL);
    }
}

TEST(simple_requests)
{
    memset(request, 0xff, sizeof(request));
    CHECK_EQ(mp_iscsid_encode_simple(MP_ISCSID_CONFIG_INAME, request, 12856), 0);
    CHECK_EQ(int_at(request, 0), 8);
    for (size_t i = 4; i < 12856; i++)
        if (request[i] != 0)
            TEST_FAIL("byte %zu is not zero", i);
    CHECK_EQ(request[12856], 0xff);
    CHECK_EQ(mp_iscsid_encode_simple(MP_ISCSID_CONFIG_INAME, request, 8), -EINVAL);
    CHECK_EQ(mp_iscsid_encode_simple(MP_ISCSID_CONFIG_INAME, request, 1 << 20), -EINVAL);
}

static uint8_t reply_bytes[MP_ISCSID_REPLY_SIZE];

static void set_reply(int32_t command, int32_t error)
{
    memset(reply_bytes, 0, sizeof(reply_bytes));
    memcpy(reply_bytes, &command, 4);
    memcpy(reply_bytes + 4, &error, 4);
}

TEST(replies)
{
    struct mp_iscsid_reply reply = {.error = 99};
    const int32_t states[] = {2, 6};

    set_reply(1, 0);
    CHECK_EQ(mp_iscsid_decode_reply(reply_bytes, 2463, 1, &reply), -EMSGSIZE);
    CHECK_EQ(mp_iscsid_decode_reply(reply_bytes, 0, 1, &reply), -EMSGSIZE);
    CHECK_EQ(mp_iscsid_decode_reply(reply_bytes, 2464, 2, &reply), -EBADMSG);
    CHECK_EQ(reply.error, 99); /* untouched */
    CHECK_EQ(mp_iscsid_decode_reply(reply_bytes, 2464, 1, &reply), 0);
    CHECK_EQ(reply.command, 1);
    CHECK_EQ(reply.error, 0);
    CHECK_EQ(reply.session_state, -1);
    CHECK_STR(reply.config, "");

    set_reply(13, 0);
    memcpy(reply_bytes + 8, states, sizeof(states));
    CHECK_EQ(mp_iscsid_decode_reply(reply_bytes, 2464, 13, &reply), 0);
    CHECK_EQ(reply.session_state, 2);
    CHECK_EQ(reply.conn_state, 6);
    set_reply(13, 2);
    memcpy(reply_bytes + 8, states, sizeof(states));
    CHECK_EQ(mp_iscsid_decode_reply(reply_bytes, 2464, 13, &reply), 0);
    CHECK_EQ(reply.error, MP_ISCSID_ERR_SESS_NOT_FOUND);
    CHECK_EQ(reply.conn_state, -1);
}

TEST(reply_access_denied)
{
    struct mp_iscsid_reply reply;

    set_reply(0, 13);
    CHECK_EQ(mp_iscsid_decode_reply(reply_bytes, 2464, 1, &reply), 0);
    CHECK_EQ(reply.error, MP_ISCSID_ERR_ACCESS);
    set_reply(0, 5);
    CHECK_EQ(mp_iscsid_decode_reply(reply_bytes, 2464, 1, &reply), -EBADMSG);
    set_reply(7, 13);
    CHECK_EQ(mp_iscsid_decode_reply(reply_bytes, 2464, 1, &reply), -EBADMSG);
}

TEST(reply_config)
{
    struct mp_iscsid_reply reply;

    set_reply(8, 0);
    memcpy(reply_bytes + 8, "iqn.1993-08.org.debian:01:abc", 30);
    CHECK_EQ(mp_iscsid_decode_reply(reply_bytes, 2464, 8, &reply), 0);
    CHECK_STR(reply.config, "iqn.1993-08.org.debian:01:abc");
    memset(reply_bytes + 8, 'x', 2456); /* no NUL anywhere */
    CHECK_EQ(mp_iscsid_decode_reply(reply_bytes, 2464, 8, &reply), 0);
    CHECK_EQ(strlen(reply.config), 255);
}

TEST(error_words)
{
    CHECK_STR(mp_iscsid_error_name(0), "SUCCESS");
    CHECK_STR(mp_iscsid_error_name(19), "FATAL_LOGIN");
    CHECK_STR(mp_iscsid_error_name(24), "LOGIN_AUTH_FAILED");
    CHECK_STR(mp_iscsid_error_name(33), "REQ_TIMEDOUT");
    CHECK_STR(mp_iscsid_error_name(34), "UNKNOWN");
    CHECK_STR(mp_iscsid_error_name(-1), "UNKNOWN");
    CHECK_STR(mp_iscsid_error_name(INT32_MIN), "UNKNOWN");
    for (int32_t code = 0; code < 34; code++) {
        CHECK(strlen(mp_iscsid_error_name(code)) > 0);
        CHECK(strcmp(mp_iscsid_error_name(code), "UNKNOWN") != 0);
        CHECK(strlen(mp_iscsid_error_text(code)) > 0);
    }
    CHECK_EQ(mp_iscsid_error_retryable(0), 0);
    CHECK_EQ(mp_iscsid_error_retryable(8), 1);
    CHECK_EQ(mp_iscsid_error_retryable(19), 0);
    CHECK_EQ(mp_iscsid_error_retryable(24), 0);
    CHECK_EQ(mp_iscsid_error_retryable(1000), 0);
}

int main(void)
{
    RUN(golden_l5);
    RUN(defaults_l8);
    RUN(old_layouts_leave_absent_fields);
    RUN(every_layout_takes_a_login);
    RUN(failure_leaves_the_buffer);
    RUN(target_names);
    RUN(addresses_are_numeric);
    RUN(portal_and_interface);
    RUN(chap_traps);
    RUN(numbers_out_of_range);
    RUN(sid_requests);
    RUN(dangerous_commands_cannot_be_encoded);
    RUN(simple_requests);
    RUN(replies);
    RUN(reply_access_denied);
    RUN(reply_config);
    RUN(error_words);
    return test_end();
}
