/* SPDX-License-Identifier: Apache-2.0 */
#include "scsi.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/fs.h>
#include <scsi/sg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/xattr.h>
#include <unistd.h>

enum {
    INQUIRY = 0x12, /* SPC-4 6.6 */
    INQUIRY_EVPD = 0x01,
    VPD_HEADER_SIZE = 4, /* SPC-4 7.8.1 */
    FIRST_LENGTH = 252,  /* old targets look at the low byte of the allocation length only */
    ALLOCATION_MAX = 0xffff,
    SENSE_SIZE = 64,
    ATTEMPTS_MAX = 4, /* the first and three after UNIT ATTENTION */
    COMMAND_MAX = 16,

    TEST_UNIT_READY = 0x00, /* SPC-4 6.47 */
    MAINTENANCE_IN = 0xa3,  /* SPC-4 6.35: REPORT TARGET PORT GROUPS */
    REPORT_TARGET_PORT_GROUPS = 0x0a,
    EXTENDED_HEADER = 0x20,

    STATUS_GOOD = 0x00, /* SAM-5 5.3.1 */
    STATUS_CHECK_CONDITION = 0x02,

    SENSE_NONE = 0x0, /* SPC-4 4.5.6 */
    SENSE_RECOVERED = 0x1,
    SENSE_ILLEGAL_REQUEST = 0x5,
    SENSE_UNIT_ATTENTION = 0x6,
    SENSE_UNKNOWN = 0xff,

    HOST_TIME_OUT = 0x03,  /* kernel include/scsi/scsi_status.h DID_TIME_OUT */
    DRIVER_TIMEOUT = 0x06, /* kernel include/scsi/sg.h */
    DRIVER_SENSE = 0x08,

    LUN_NOT_SUPPORTED = 0x25, /* additional sense code, SPC-4 annex F.2 */

    READ_CAPACITY_10 = 0x25, /* SBC-3 5.15 */
    READ_CAPACITY_10_SIZE = 8,
    SERVICE_ACTION_IN_16 = 0x9e, /* SBC-3 5.16: READ CAPACITY (16) */
    READ_CAPACITY_16 = 0x10,
    READ_CAPACITY_16_SIZE = 32,
    BLOCK_MAX = 64 * 1024, /* bytes; larger ones are nonsense */
};

/* The only kind of name that sysfs takes from us, besides a security module's. */
static const char MARK[] = "trusted.manypath.attached";

/* Weak so that a test can answer instead of the kernel. */
__attribute__((weak)) int mp_scsi_ioctl(int fd, unsigned long request, void *argument)
{
    return ioctl(fd, request, argument) < 0 ? -errno : 0;
}

static int write_attribute(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    ssize_t written;

    if (fd < 0)
        return -errno;
    do
        written = write(fd, text, strlen(text));
    while (written < 0 && errno == EINTR);
    int error = errno;

    close(fd);
    if (written < 0)
        return -error;
    return (size_t)written == strlen(text) ? 0 : -EIO;
}

int mp_scsi_scan(const char *root, int32_t host, int32_t channel, int32_t target, uint64_t lun)
{
    char path[PATH_MAX];
    char text[80];
    int length = snprintf(path, sizeof path, "%s/class/scsi_host/host%" PRId32 "/scan", root, host);

    if (length < 0 || (size_t)length >= sizeof path)
        return -ENAMETOOLONG;
    snprintf(text, sizeof text, "%" PRId32 " %" PRId32 " %" PRIu64, channel, target, lun);
    return write_attribute(path, text);
}

int mp_scsi_recovery_timeout(const char *root, int32_t sid, int32_t seconds)
{
    char path[PATH_MAX];
    char text[16];
    int length = snprintf(path, sizeof path,
                          "%s/class/iscsi_session/session%" PRId32 "/recovery_tmo", root, sid);

    if (length < 0 || (size_t)length >= sizeof path)
        return -ENAMETOOLONG;
    snprintf(text, sizeof text, "%" PRId32, seconds);
    return write_attribute(path, text);
}

static int write_device_attribute(const char *root, int32_t host, int32_t channel, int32_t target,
                                  uint64_t lun, const char *name, const char *text)
{
    char path[PATH_MAX];
    int length =
        snprintf(path, sizeof path,
                 "%s/class/scsi_device/%" PRId32 ":%" PRId32 ":%" PRId32 ":%" PRIu64 "/device/%s",
                 root, host, channel, target, lun, name);

    if (length < 0 || (size_t)length >= sizeof path)
        return -ENAMETOOLONG;
    int r = write_attribute(path, text);

    /* somebody else's delete is under way (kernel scsi_sysfs.c sdev_store_delete) */
    return r == -ENODEV || r == -ENXIO ? -ENOENT : r;
}

int mp_scsi_delete(const char *root, int32_t host, int32_t channel, int32_t target, uint64_t lun)
{
    return write_device_attribute(root, host, channel, target, lun, "delete", "1");
}

int mp_scsi_rescan(const char *root, int32_t host, int32_t channel, int32_t target, uint64_t lun)
{
    return write_device_attribute(root, host, channel, target, lun, "rescan", "1");
}

int mp_scsi_offline(const char *root, int32_t host, int32_t channel, int32_t target, uint64_t lun)
{
    return write_device_attribute(root, host, channel, target, lun, "state", "offline");
}

int mp_scsi_announce(const char *root, const char *name)
{
    char path[PATH_MAX];
    int length = snprintf(path, sizeof path, "%s/block/%s/uevent", root, name);

    if (length < 0 || (size_t)length >= sizeof path)
        return -ENAMETOOLONG;
    return write_attribute(path, "change");
}

static int device_path(const char *root, const char *name, char *path, size_t size)
{
    int length = snprintf(path, size, "%s/block/%s/device", root, name);

    return length < 0 || (size_t)length >= size ? -ENAMETOOLONG : 0;
}

int mp_scsi_mark(const char *root, const char *name)
{
    char path[PATH_MAX];
    int result = device_path(root, name, path, sizeof path);

    if (result < 0)
        return result;
    return setxattr(path, MARK, "1", 1, 0) < 0 ? -errno : 0;
}

bool mp_scsi_is_marked(const char *root, const char *name)
{
    char path[PATH_MAX];

    if (device_path(root, name, path, sizeof path) < 0 || getxattr(path, MARK, NULL, 0) >= 0)
        return true;
    /* ENOTSUP: nobody can have marked it */
    return errno != ENODATA && errno != ENOENT && errno != ENOTSUP;
}

int mp_scsi_size(int fd, uint64_t *ret_bytes)
{
    uint64_t bytes = 0;
    int r = mp_scsi_ioctl(fd, BLKGETSIZE64, &bytes);

    if (r < 0)
        return r;
    *ret_bytes = bytes;
    return 0;
}

/* Fixed and descriptor format, SPC-4 4.5.2 and 4.5.3. */
static unsigned sense_key(const uint8_t *sense, size_t length)
{
    if (length < 1)
        return SENSE_UNKNOWN;
    switch (sense[0] & 0x7f) {
    case 0x70:
    case 0x71:
        return length > 2 ? sense[2] & 0x0fu : SENSE_UNKNOWN;
    case 0x72:
    case 0x73:
        return length > 1 ? sense[1] & 0x0fu : SENSE_UNKNOWN;
    default:
        return SENSE_UNKNOWN;
    }
}

/* The additional sense code; 0: none. */
static unsigned additional_sense(const uint8_t *sense, size_t length)
{
    bool descriptor = length > 0 && (sense[0] & 0x7f) >= 0x72;
    size_t at = descriptor ? 2 : 12;

    return length > at ? sense[at] : 0;
}

/* What became of a command: 0, -EAGAIN after UNIT ATTENTION, or an error of mp_scsi_vpd(). */
static int command_result(const struct sg_io_hdr *io, const uint8_t *sense)
{
    unsigned driver = io->driver_status & 0x0fu;
    size_t sense_length = io->sb_len_wr <= SENSE_SIZE ? io->sb_len_wr : SENSE_SIZE;

    if (io->host_status == HOST_TIME_OUT || driver == DRIVER_TIMEOUT)
        return -ETIMEDOUT;
    if (io->host_status != 0 || (driver != 0 && driver != DRIVER_SENSE))
        return -EIO;
    if (io->status != STATUS_CHECK_CONDITION && driver != DRIVER_SENSE)
        return io->status == STATUS_GOOD ? 0 : -EIO;
    switch (sense_key(sense, sense_length)) {
    case SENSE_NONE:
    case SENSE_RECOVERED:
        return 0;
    case SENSE_ILLEGAL_REQUEST:
        return additional_sense(sense, sense_length) == LUN_NOT_SUPPORTED ? -ENODEV : -EOPNOTSUPP;
    case SENSE_UNIT_ATTENTION:
        return -EAGAIN;
    default:
        return -EIO;
    }
}

/* One command that brings data in, or none. */
static int send_command(int fd, const uint8_t *command, size_t length, uint8_t *buffer, size_t size,
                        unsigned timeout_ms, size_t *ret_received)
{
    uint8_t sense[SENSE_SIZE] = {0};
    uint8_t copy[COMMAND_MAX];
    struct sg_io_hdr io = {
        .interface_id = 'S',
        .dxfer_direction = size > 0 ? SG_DXFER_FROM_DEV : SG_DXFER_NONE,
        .cmd_len = (unsigned char)length,
        .mx_sb_len = sizeof sense,
        .dxfer_len = (unsigned)size,
        .dxferp = buffer,
        .cmdp = copy,
        .sbp = sense,
        .timeout = timeout_ms,
    };

    memcpy(copy, command, length);
    if (size > 0)
        memset(buffer, 0, size);
    int r = mp_scsi_ioctl(fd, SG_IO, &io);

    if (r == 0)
        r = command_result(&io, sense);
    if (r < 0)
        return r;
    if (io.resid < 0 || (size_t)io.resid > size)
        return -EPROTO;
    *ret_received = size - (size_t)io.resid;
    return 0;
}

/* The same, again after UNIT ATTENTION, which tells what happened before the command. */
static int send_patiently(int fd, const uint8_t *command, size_t length, uint8_t *buffer,
                          size_t size, unsigned timeout_ms, size_t *ret_received)
{
    int r = -EAGAIN;

    for (int attempt = 0; r == -EAGAIN && attempt < ATTEMPTS_MAX; attempt++)
        r = send_command(fd, command, length, buffer, size, timeout_ms, ret_received);
    return r == -EAGAIN ? -EIO : r;
}

/* One page, one allocation length. *ret_length is what the page says, *ret_received what came. */
static int inquire(int fd, uint8_t page, uint8_t *buffer, size_t size, unsigned timeout_ms,
                   size_t *ret_length, size_t *ret_received)
{
    const uint8_t command[6] = {INQUIRY, INQUIRY_EVPD, page, (uint8_t)(size >> 8), (uint8_t)size,
                                0};
    size_t received = 0;
    int r = send_patiently(fd, command, sizeof command, buffer, size, timeout_ms, &received);

    if (r < 0)
        return r;
    if (received < VPD_HEADER_SIZE)
        return -EPROTO;
    if (buffer[0] >> 5 != 0) /* SPC-4 table 174: no device is connected at this LUN */
        return -ENODEV;
    if (buffer[1] != page)
        return -EPROTO;
    *ret_length = VPD_HEADER_SIZE + ((size_t)buffer[2] << 8 | buffer[3]);
    *ret_received = received;
    return 0;
}

int mp_scsi_vpd(int fd, uint8_t page, uint8_t *buffer, size_t size, unsigned timeout_ms,
                size_t *ret_length)
{
    size_t length, received;

    if (size < VPD_HEADER_SIZE)
        return -EINVAL;
    if (size > ALLOCATION_MAX)
        size = ALLOCATION_MAX;
    size_t asked = size < FIRST_LENGTH ? size : FIRST_LENGTH;
    int r = inquire(fd, page, buffer, asked, timeout_ms, &length, &received);

    if (r == 0 && length > asked && asked < size) {
        asked = length < size ? length : size;
        r = inquire(fd, page, buffer, asked, timeout_ms, &length, &received);
    }
    if (r < 0)
        return r;
    *ret_length = length < received ? length : received;
    return 0;
}

int mp_scsi_test_unit_ready(int fd, unsigned timeout_ms)
{
    const uint8_t command[6] = {TEST_UNIT_READY};
    size_t received;

    return send_patiently(fd, command, sizeof command, NULL, 0, timeout_ms, &received);
}

int mp_scsi_port_groups(int fd, bool extended, uint8_t *buffer, size_t size, unsigned timeout_ms,
                        size_t *ret_length)
{
    const uint8_t command[12] = {
        [0] = MAINTENANCE_IN,
        [1] = REPORT_TARGET_PORT_GROUPS | (extended ? EXTENDED_HEADER : 0),
        [8] = (uint8_t)(size >> 8),
        [9] = (uint8_t)size,
    };

    if (size > ALLOCATION_MAX)
        return -EINVAL;
    return send_patiently(fd, command, sizeof command, buffer, size, timeout_ms, ret_length);
}

static uint64_t big_endian(const uint8_t *bytes, size_t count)
{
    uint64_t value = 0;

    for (size_t i = 0; i < count; i++)
        value = value << 8 | bytes[i];
    return value;
}

int mp_scsi_capacity(int fd, unsigned timeout_ms, uint64_t *ret_bytes)
{
    const uint8_t ten[10] = {READ_CAPACITY_10};
    const uint8_t sixteen[16] = {SERVICE_ACTION_IN_16, READ_CAPACITY_16,
                                 [13] = READ_CAPACITY_16_SIZE};
    uint8_t data[READ_CAPACITY_16_SIZE];
    size_t received = 0;
    uint64_t last, block;
    int r = send_patiently(fd, sixteen, sizeof sixteen, data, sizeof data, timeout_ms, &received);

    if (r == -EOPNOTSUPP) { /* an old target */
        r = send_patiently(fd, ten, sizeof ten, data, READ_CAPACITY_10_SIZE, timeout_ms, &received);
        if (r == 0 && received < READ_CAPACITY_10_SIZE)
            r = -EPROTO;
        last = big_endian(data, 4);
        block = big_endian(data + 4, 4);
    } else {
        if (r == 0 && received < 12)
            r = -EPROTO;
        last = big_endian(data, 8);
        block = big_endian(data + 8, 4);
    }
    if (r < 0)
        return r;
    if (block == 0 || block > BLOCK_MAX || last >= UINT64_MAX / BLOCK_MAX)
        return -EPROTO;
    *ret_bytes = (last + 1) * block;
    return 0;
}
