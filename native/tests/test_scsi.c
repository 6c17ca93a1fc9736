/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's side of SG_IO is a list of expected commands with canned answers. */
#include "../src/scsi.h"

#include <errno.h>
#include <linux/fs.h>
#include <scsi/sg.h>
#include <sys/xattr.h>

#include "test.h"
#include "tree.h"

struct step {
    size_t want_length; /* allocation length */
    int result;         /* of the ioctl */
    unsigned status, host, driver;
    const void *sense;
    size_t sense_length;
    size_t sent; /* bytes of the page below that arrive; 0 with resid_set: see resid */
    int resid;   /* if not 0, told instead of the truth */
};

static const struct step *steps;
static size_t step_count, step_at;
static uint8_t page[0x10004];
static uint8_t want_page;
static const uint8_t *want_command; /* NULL: INQUIRY */
static size_t want_command_length;

static void check_inquiry(const struct sg_io_hdr *io, const struct step *step)
{
    CHECK_EQ(io->dxfer_direction, SG_DXFER_FROM_DEV);
    CHECK_EQ(io->cmd_len, 6);
    CHECK_EQ(io->cmdp[0], 0x12);
    CHECK_EQ(io->cmdp[1], 1);
    CHECK_EQ(io->cmdp[2], want_page);
    CHECK_EQ(io->cmdp[3] << 8 | io->cmdp[4], step->want_length);
    CHECK_EQ(io->cmdp[5], 0);
}

static void check_capacity(const struct sg_io_hdr *io, const struct step *step)
{
    bool sixteen = step->want_length == 32;

    CHECK_EQ(io->dxfer_direction, SG_DXFER_FROM_DEV);
    CHECK_EQ(io->cmd_len, sixteen ? 16 : 10);
    CHECK_EQ(io->cmdp[0], sixteen ? 0x9e : 0x25);
    if (sixteen) {
        CHECK_EQ(io->cmdp[1], 0x10);
        CHECK_EQ(io->cmdp[13], 32);
    }
}

static int answer(struct sg_io_hdr *io, const struct step *step)
{
    CHECK_EQ(io->interface_id, 'S');
    if (want_command != NULL) {
        CHECK_EQ(io->cmd_len, want_command_length);
        CHECK(memcmp(io->cmdp, want_command, want_command_length) == 0);
    } else if (want_page != 0) {
        check_inquiry(io, step);
    } else {
        check_capacity(io, step);
    }
    CHECK_EQ(io->dxfer_len, step->want_length);
    CHECK_EQ(io->timeout, 1234);
    if (step->result < 0)
        return step->result;
    if (step->sent > 0)
        memcpy(io->dxferp, page, step->sent);
    if (step->sense != NULL)
        memcpy(io->sbp, step->sense, step->sense_length);
    io->sb_len_wr = (unsigned char)step->sense_length;
    io->status = (unsigned char)step->status;
    io->host_status = (unsigned short)step->host;
    io->driver_status = (unsigned short)step->driver;
    io->resid = step->resid != 0 ? step->resid : (int)(step->want_length - step->sent);
    return 0;
}

int mp_scsi_ioctl(int fd, unsigned long request, void *argument)
{
    CHECK_EQ(fd, 42);
    if (request == BLKGETSIZE64) {
        *(uint64_t *)argument = 123456;
        return step_count == 0 ? 0 : -ENXIO;
    }
    CHECK_EQ(request, SG_IO);
    if (step_at >= step_count) {
        TEST_FAIL("a command that nobody expected");
        return -EIO;
    }
    return answer(argument, &steps[step_at++]);
}

static uint8_t buffer[0x10004];
static size_t length;

static int ask(const struct step *list, size_t count, uint8_t code, size_t size)
{
    steps = list;
    step_count = count;
    step_at = 0;
    want_page = code;
    length = 4711;
    int r = mp_scsi_vpd(42, code, buffer, size, 1234, &length);

    CHECK_EQ(step_at, count);
    CHECK(r == 0 || length == 4711);
    return r;
}

#define ASK(list, code, size) ask(list, sizeof(list) / sizeof(list)[0], code, size)

static void make_page(uint8_t code, size_t payload)
{
    for (size_t i = 0; i < sizeof page; i++)
        page[i] = (uint8_t)(i * 7);
    page[0] = 0;
    page[1] = code;
    page[2] = (uint8_t)(payload >> 8);
    page[3] = (uint8_t)payload;
}

TEST(short_page)
{
    const struct step list[] = {{.want_length = 252, .sent = 40}};

    make_page(0x83, 36);
    CHECK_EQ(ASK(list, 0x83, 4096), 0);
    CHECK_EQ(length, 40);
    CHECK(memcmp(buffer, page, 40) == 0);
}

TEST(resid_ignored_by_the_driver)
{
    const struct step list[] = {{.want_length = 252, .sent = 252}};

    make_page(0x80, 12);
    CHECK_EQ(ASK(list, 0x80, 4096), 0);
    CHECK_EQ(length, 16);
}

TEST(long_page)
{
    const struct step list[] = {{.want_length = 252, .sent = 252},
                                {.want_length = 604, .sent = 604}};

    make_page(0x83, 600);
    CHECK_EQ(ASK(list, 0x83, 4096), 0);
    CHECK_EQ(length, 604);
    CHECK(memcmp(buffer, page, 604) == 0);
}

TEST(small_buffer)
{
    const struct step small[] = {{.want_length = 64, .sent = 64}};
    const struct step medium[] = {{.want_length = 252, .sent = 252},
                                  {.want_length = 300, .sent = 300}};

    make_page(0x83, 600);
    CHECK_EQ(ASK(small, 0x83, 64), 0);
    CHECK_EQ(length, 64);
    CHECK_EQ(ASK(medium, 0x83, 300), 0);
    CHECK_EQ(length, 300);
    CHECK_EQ(ask(NULL, 0, 0x83, 3), -EINVAL);
}

TEST(largest_page)
{
    const struct step list[] = {{.want_length = 252, .sent = 252},
                                {.want_length = 65535, .sent = 65535}};

    make_page(0x83, 65535);
    CHECK_EQ(ASK(list, 0x83, sizeof buffer), 0);
    CHECK_EQ(length, 65535);
}

/* The transfer ended early: what came counts. */
TEST(short_transfer)
{
    const struct step cut[] = {{.want_length = 252, .sent = 20}};
    const struct step head[] = {{.want_length = 252, .sent = 3}};
    const struct step none[] = {{.want_length = 252, .sent = 0}};

    make_page(0x83, 36);
    CHECK_EQ(ASK(cut, 0x83, 252), 0);
    CHECK_EQ(length, 20);
    CHECK_EQ(ASK(head, 0x83, 252), -EPROTO);
    CHECK_EQ(ASK(none, 0x83, 252), -EPROTO);
}

TEST(malformed)
{
    const struct step good[] = {{.want_length = 252, .sent = 40}};
    const struct step negative[] = {{.want_length = 252, .sent = 40, .resid = -1}};
    const struct step huge[] = {{.want_length = 252, .sent = 40, .resid = 253}};

    make_page(0x80, 36);
    CHECK_EQ(ASK(good, 0x83, 252), -EPROTO); /* another page */
    make_page(0x83, 36);
    CHECK_EQ(ASK(negative, 0x83, 252), -EPROTO);
    CHECK_EQ(ASK(huge, 0x83, 252), -EPROTO);
    page[0] = 0x7f;
    CHECK_EQ(ASK(good, 0x83, 252), -ENODEV);
    page[0] = 0x20; /* not connected now */
    CHECK_EQ(ASK(good, 0x83, 252), -ENODEV);
}

/* The second answer is checked as the first. */
TEST(page_changes)
{
    const struct step list[] = {{.want_length = 252, .sent = 252},
                                {.want_length = 604, .sent = 100}};

    make_page(0x83, 600);
    CHECK_EQ(ASK(list, 0x83, 4096), 0);
    CHECK_EQ(length, 100);
}

#define CHECK_CONDITION .want_length = 252, .status = 2, .driver = 8

static const uint8_t illegal_fixed[] = {0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0};
static const uint8_t illegal_descriptor[] = {0x72, 5, 0x24, 0};
static const uint8_t no_lun_fixed[] = {0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x25, 0};
static const uint8_t no_lun_descriptor[] = {0x72, 5, 0x25, 0};
static const uint8_t attention_fixed[] = {0xf0, 0, 0x26, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x29, 0};
static const uint8_t attention_descriptor[] = {0x73, 6, 0x29, 0};
static const uint8_t medium_error[] = {0x70, 0, 3};
static const uint8_t recovered[] = {0x70, 0, 1};
static const uint8_t nonsense[] = {0x00, 5, 5};

TEST(sense)
{
    const struct step fixed[] = {{CHECK_CONDITION, .sense = illegal_fixed, .sense_length = 14}};
    const struct step descriptor[] = {
        {CHECK_CONDITION, .sense = illegal_descriptor, .sense_length = 4}};
    const struct step no_lun[] = {{CHECK_CONDITION, .sense = no_lun_fixed, .sense_length = 14}};
    const struct step no_lun_either[] = {
        {CHECK_CONDITION, .sense = no_lun_descriptor, .sense_length = 4}};
    const struct step no_lun_cut[] = {{CHECK_CONDITION, .sense = no_lun_fixed, .sense_length = 12}};
    const struct step no_driver[] = {
        /* Linux >= 5.14 has no driver byte */
        {.want_length = 252, .status = 2, .sense = illegal_fixed, .sense_length = 14}};
    const struct step medium[] = {{CHECK_CONDITION, .sense = medium_error, .sense_length = 3}};
    const struct step junk[] = {{CHECK_CONDITION, .sense = nonsense, .sense_length = 3}};
    const struct step cut[] = {{CHECK_CONDITION, .sense = illegal_fixed, .sense_length = 2}};
    const struct step one[] = {{CHECK_CONDITION, .sense = illegal_descriptor, .sense_length = 1}};
    const struct step empty[] = {{CHECK_CONDITION}};
    const struct step fine[] = {
        {CHECK_CONDITION, .sense = recovered, .sense_length = 3, .sent = 40}};

    make_page(0x83, 36);
    CHECK_EQ(ASK(fixed, 0x83, 252), -EOPNOTSUPP);
    CHECK_EQ(ASK(descriptor, 0x83, 252), -EOPNOTSUPP);
    CHECK_EQ(ASK(no_driver, 0x83, 252), -EOPNOTSUPP);
    CHECK_EQ(ASK(no_lun, 0x83, 252), -ENODEV);
    CHECK_EQ(ASK(no_lun_either, 0x83, 252), -ENODEV);
    CHECK_EQ(ASK(no_lun_cut, 0x83, 252), -EOPNOTSUPP);
    CHECK_EQ(ASK(medium, 0x83, 252), -EIO);
    CHECK_EQ(ASK(junk, 0x83, 252), -EIO);
    CHECK_EQ(ASK(cut, 0x83, 252), -EIO);
    CHECK_EQ(ASK(one, 0x83, 252), -EIO);
    CHECK_EQ(ASK(empty, 0x83, 252), -EIO);
    CHECK_EQ(ASK(fine, 0x83, 252), 0);
    CHECK_EQ(length, 40);
}

TEST(unit_attention)
{
    const struct step then_good[] = {
        {CHECK_CONDITION, .sense = attention_fixed, .sense_length = 14},
        {CHECK_CONDITION, .sense = attention_descriptor, .sense_length = 4},
        {CHECK_CONDITION, .sense = attention_fixed, .sense_length = 14},
        {.want_length = 252, .sent = 40},
    };
    const struct step for_ever[] = {
        {CHECK_CONDITION, .sense = attention_fixed, .sense_length = 14},
        {CHECK_CONDITION, .sense = attention_fixed, .sense_length = 14},
        {CHECK_CONDITION, .sense = attention_fixed, .sense_length = 14},
        {CHECK_CONDITION, .sense = attention_fixed, .sense_length = 14},
    };

    make_page(0x83, 36);
    CHECK_EQ(ASK(then_good, 0x83, 252), 0);
    CHECK_EQ(length, 40);
    CHECK_EQ(ASK(for_ever, 0x83, 252), -EIO);
}

TEST(transport)
{
    static const struct {
        struct step step;
        int result;
    } cases[] = {
        {{.want_length = 252, .host = 3}, -ETIMEDOUT},
        {{.want_length = 252, .driver = 6}, -ETIMEDOUT},
        {{.want_length = 252, .host = 1}, -EIO},   /* DID_NO_CONNECT */
        {{.want_length = 252, .host = 0xf}, -EIO}, /* DID_TRANSPORT_FAILFAST */
        {{.want_length = 252, .driver = 7}, -EIO},
        {{.want_length = 252, .status = 8}, -EIO},  /* BUSY */
        {{.want_length = 252, .status = 24}, -EIO}, /* RESERVATION CONFLICT */
        {{.want_length = 252, .result = -ENODEV}, -ENODEV},
        {{.want_length = 252, .result = -ENXIO}, -ENXIO},
    };

    make_page(0x83, 36);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        CHECK_EQ(ask(&cases[i].step, 1, 0x83, 252), cases[i].result);
}

TEST(size)
{
    uint64_t bytes = 1;

    step_count = 0;
    CHECK_EQ(mp_scsi_size(42, &bytes), 0);
    CHECK_EQ(bytes, 123456);
    step_count = 1;
    CHECK_EQ(mp_scsi_size(42, &bytes), -ENXIO);
    CHECK_EQ(bytes, 123456);
}

TEST(scan)
{
    tree_begin();
    tree_file(tree_path("class/scsi_host/host7/scan"), "");
    CHECK_EQ(mp_scsi_scan(tree_root, 7, 0, 0, 300), 0);
    CHECK_STR(tree_text(tree_path("class/scsi_host/host7/scan")), "0 0 300");
    CHECK_EQ(mp_scsi_scan(tree_root, 7, 1, 2, UINT64_MAX), 0);
    CHECK_STR(tree_text(tree_path("class/scsi_host/host7/scan")), "1 2 18446744073709551615");
    CHECK_EQ(mp_scsi_scan(tree_root, 8, 0, 0, 1), -ENOENT);
    tree_end();
}

TEST(remove)
{
    tree_begin();
    tree_file(tree_path("devices/3:0:0:16684/delete"), "");
    tree_link(tree_path("class/scsi_device/3:0:0:16684/device"), "../../../devices/3:0:0:16684");
    CHECK_EQ(mp_scsi_delete(tree_root, 3, 0, 0, 16684), 0);
    CHECK_STR(tree_text(tree_path("devices/3:0:0:16684/delete")), "1");
    CHECK_EQ(mp_scsi_delete(tree_root, 3, 0, 0, 16685), -ENOENT);
    tree_end();
}

TEST(rescan)
{
    tree_begin();
    tree_file(tree_path("devices/3:0:0:16684/rescan"), "");
    tree_link(tree_path("class/scsi_device/3:0:0:16684/device"), "../../../devices/3:0:0:16684");
    CHECK_EQ(mp_scsi_rescan(tree_root, 3, 0, 0, 16684), 0);
    CHECK_STR(tree_text(tree_path("devices/3:0:0:16684/rescan")), "1");
    CHECK_EQ(mp_scsi_rescan(tree_root, 3, 0, 0, 16685), -ENOENT);
    tree_end();
}

static void expect(const struct step *list, size_t count, const uint8_t *command, size_t size)
{
    steps = list;
    step_count = count;
    step_at = 0;
    want_command = command;
    want_command_length = size;
}

TEST(test_unit_ready)
{
    static const uint8_t command[6] = {0};
    static const uint8_t attention[] = {0x70, 0, 6, 0,    0, 0, 0, 10, 0,
                                        0,    0, 0, 0x29, 0, 0, 0, 0,  0};
    static const uint8_t not_ready[] = {0x70, 0, 2, 0, 0,    0, 0, 10, 0,
                                        0,    0, 0, 4, 0x0b, 0, 0, 0,  0};
    const struct step list[] = {
        {.status = 2, .driver = 8, .sense = attention, .sense_length = sizeof attention},
        {.status = 0},
        {.status = 2, .driver = 8, .sense = not_ready, .sense_length = sizeof not_ready},
        {.host = 3},
    };

    expect(list, 4, command, sizeof command);
    CHECK_EQ(mp_scsi_test_unit_ready(42, 1234), 0);
    CHECK_EQ(step_at, 2);
    CHECK_EQ(mp_scsi_test_unit_ready(42, 1234), -EIO); /* standby, for one */
    CHECK_EQ(mp_scsi_test_unit_ready(42, 1234), -ETIMEDOUT);
    want_command = NULL;
}

TEST(port_groups)
{
    static const uint8_t plain[12] = {0xa3, 0x0a, [8] = 0x12, [9] = 0x34};
    static const uint8_t extended[12] = {0xa3, 0x2a, [8] = 0x12, [9] = 0x34};
    static const uint8_t illegal[] = {0x72, 5, 0x24, 0, 0, 0, 0, 0};
    const struct step good[] = {{.want_length = 0x1234, .sent = 16}};
    const struct step bad[] = {
        {.want_length = 0x1234, .status = 2, .driver = 8, .sense = illegal, .sense_length = 8}};

    length = 4711;
    expect(bad, 1, extended, sizeof extended);
    CHECK_EQ(mp_scsi_port_groups(42, true, buffer, 0x1234, 1234, &length), -EOPNOTSUPP);
    CHECK_EQ(length, 4711);
    expect(good, 1, plain, sizeof plain);
    CHECK_EQ(mp_scsi_port_groups(42, false, buffer, 0x1234, 1234, &length), 0);
    CHECK_EQ(length, 16);
    CHECK(memcmp(buffer, page, 16) == 0);
    CHECK_EQ(mp_scsi_port_groups(42, false, buffer, 0x10000, 1234, &length), -EINVAL);
    want_command = NULL;
}

/* Says what the target tells, and whether it has both commands. */
static int capacity(const struct step *list, size_t count, uint64_t *ret_bytes)
{
    steps = list;
    step_count = count;
    step_at = 0;
    want_page = 0;
    int r = mp_scsi_capacity(42, 1234, ret_bytes);

    CHECK_EQ(step_at, count);
    return r;
}

TEST(capacity)
{
    const struct step sixteen[] = {{.want_length = 32, .sent = 32}};
    const struct step cut[] = {{.want_length = 32, .sent = 11}};
    const struct step ten[] = {
        {.want_length = 32, .status = 2, .sense = illegal_fixed, .sense_length = 14},
        {.want_length = 8, .sent = 8}};
    const struct step ten_cut[] = {
        {.want_length = 32, .status = 2, .sense = illegal_fixed, .sense_length = 14},
        {.want_length = 8, .sent = 7}};
    const struct step gone[] = {
        {.want_length = 32, .status = 2, .sense = no_lun_fixed, .sense_length = 14}};
    uint64_t bytes = 1;

    memset(page, 0, sizeof page);
    page[7] = 0xff; /* the last block is 255 */
    page[10] = 2;   /* blocks of 512 bytes */
    CHECK_EQ(capacity(sixteen, 1, &bytes), 0);
    CHECK_EQ(bytes, 256 * 512);
    CHECK_EQ(capacity(cut, 1, &bytes), -EPROTO);
    CHECK_EQ(capacity(gone, 1, &bytes), -ENODEV);
    page[10] = 0;
    CHECK_EQ(capacity(sixteen, 1, &bytes), -EPROTO); /* blocks of no bytes */
    page[8] = 1;
    CHECK_EQ(capacity(sixteen, 1, &bytes), -EPROTO); /* of 16 MiB */
    memset(page, 0xff, 8);
    CHECK_EQ(capacity(sixteen, 1, &bytes), -EPROTO);
    memset(page, 0, sizeof page);
    page[2] = 1;
    page[6] = 0x10;
    CHECK_EQ(capacity(ten, 2, &bytes), 0);
    CHECK_EQ(bytes, 257 * 4096);
    CHECK_EQ(capacity(ten_cut, 2, &bytes), -EPROTO);
    CHECK_EQ(bytes, 257 * 4096);
}

TEST(offline)
{
    tree_begin();
    tree_file(tree_path("devices/3:0:0:1/state"), "");
    tree_link(tree_path("class/scsi_device/3:0:0:1/device"), "../../../devices/3:0:0:1");
    CHECK_EQ(mp_scsi_offline(tree_root, 3, 0, 0, 1), 0);
    CHECK_STR(tree_text(tree_path("devices/3:0:0:1/state")), "offline");
    CHECK_EQ(mp_scsi_offline(tree_root, 3, 0, 0, 2), -ENOENT);
    tree_end();
}

TEST(announce)
{
    tree_begin();
    tree_file(tree_path("block/sda/uevent"), "");
    CHECK_EQ(mp_scsi_announce(tree_root, "sda"), 0);
    CHECK_STR(tree_text(tree_path("block/sda/uevent")), "change");
    CHECK_EQ(mp_scsi_announce(tree_root, "sdb"), -ENOENT);
    tree_end();
}

/* A file system in memory takes it from root, as sysfs does. */
static bool takes_marks(void)
{
    if (setxattr(tree_root, "trusted.manypath.test", "1", 1, 0) == 0)
        return true;
    CHECK(geteuid() != 0 || errno == ENOTSUP || errno == EPERM);
    return false;
}

TEST(mark)
{
    tree_begin();
    bool possible = takes_marks();

    tree_dir(tree_path("devices/3:0:0:1"));
    tree_link(tree_path("block/sda/device"), "../../devices/3:0:0:1");
    CHECK(!mp_scsi_is_marked(tree_root, "sda"));
    int result = mp_scsi_mark(tree_root, "sda");

    CHECK(possible ? result == 0 : result == -EPERM || result == -ENOTSUP);
    CHECK_EQ(mp_scsi_is_marked(tree_root, "sda"), possible);
    CHECK_EQ(mp_scsi_mark(tree_root, "sdb"), -ENOENT);
    CHECK(!mp_scsi_is_marked(tree_root, "sdb"));
    tree_file(tree_path("block/sdc"), "no folder");
    CHECK(mp_scsi_is_marked(tree_root, "sdc")); /* it cannot be told */
    if (!possible)
        puts("mark: this process or file system cannot set it");
    tree_end();
}

int main(void)
{
    RUN(short_page);
    RUN(resid_ignored_by_the_driver);
    RUN(long_page);
    RUN(small_buffer);
    RUN(largest_page);
    RUN(short_transfer);
    RUN(malformed);
    RUN(page_changes);
    RUN(sense);
    RUN(unit_attention);
    RUN(transport);
    RUN(size);
    RUN(scan);
    RUN(remove);
    RUN(rescan);
    RUN(test_unit_ready);
    RUN(port_groups);
    RUN(capacity);
    RUN(offline);
    RUN(announce);
    RUN(mark);
    return test_end();
}
