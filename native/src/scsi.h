/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SCSI: scan one LUN, ask a disk who it is, delete it. Every function may block in the kernel: call
 * from a worker. Returns 0 or a negative errno.
 */
#ifndef MP_SCSI_H
#define MP_SCSI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Writes "<channel> <target> <lun>" to the host's scan file. Succeeds even if the LUN does not
 * exist, and does nothing when the session is not logged in (kernel iscsi_user_scan_session): look
 * afterwards. */
int mp_scsi_scan(const char *root, int32_t host, int32_t channel, int32_t target, uint64_t lun);

/* How long a lost session holds its I/O back before that fails. Set here it outlives a restart of iscsid,
 * which sets its own default otherwise (kernel scsi_transport_iscsi.c recovery_tmo_sysfs_override). Does
 * not block. */
int mp_scsi_recovery_timeout(const char *root, int32_t sid, int32_t seconds);

/* INQUIRY VPD page through SG_IO on an open block device. Fills up to `size` bytes, sets
 * *ret_length to the bytes valid (4 + page length, bounded by what was transferred). -EIO: check
 * condition or transport failure; -EOPNOTSUPP: ILLEGAL REQUEST (no such page); -ENODEV: the target
 * says that it has no such LUN any more (a peripheral qualifier other than 0, or LOGICAL UNIT NOT
 * SUPPORTED); -ETIMEDOUT; -EPROTO: malformed answer. */
int mp_scsi_vpd(int fd, uint8_t page, uint8_t *buffer, size_t size, unsigned timeout_ms,
                size_t *ret_length);

/* TEST UNIT READY on an open block device: 0 if it can serve I/O. Errors as mp_scsi_vpd(). */
int mp_scsi_test_unit_ready(int fd, unsigned timeout_ms);

/* REPORT TARGET PORT GROUPS, for alua.h: fills up to `size` (at most 65535) bytes. `extended` asks for
 * the header that tells how long a transition takes, which targets older than SPC-4 refuse with
 * -EOPNOTSUPP. Errors as mp_scsi_vpd(). */
int mp_scsi_port_groups(int fd, bool extended, uint8_t *buffer, size_t size, unsigned timeout_ms,
                        size_t *ret_length);

/* Size of an open block device in bytes (BLKGETSIZE64). */
int mp_scsi_size(int fd, uint64_t *ret_bytes);

/* READ CAPACITY through SG_IO: the size in bytes as the target tells it now; the kernel keeps the one
 * from its last scan. Errors as mp_scsi_vpd(). */
int mp_scsi_capacity(int fd, unsigned timeout_ms, uint64_t *ret_bytes);

/* Sets the device's state to "offline": the kernel sends it no data any more. -ENOENT when it is
 * gone; -EINVAL: it has a state that does not allow this. */
int mp_scsi_offline(const char *root, int32_t host, int32_t channel, int32_t target, uint64_t lun);

/* Writes "change" to the uevent file of a block device: udev looks at it again. */
int mp_scsi_announce(const char *root, const char *name);

/* Marks the disk as attached: for whoever would take it back because its own scan brought it. The mark
 * is an extended attribute of the SCSI device's folder in sysfs (kernel fs/kernfs/inode.c), so it
 * goes with the disk. Does not block. -EPERM: this process lacks CAP_SYS_ADMIN. */
int mp_scsi_mark(const char *root, const char *name);
/* Also true when it cannot be told. A disk that is gone has no mark. */
bool mp_scsi_is_marked(const char *root, const char *name);

/* Writes 1 to the device's delete file: synchronous, may send SYNCHRONIZE CACHE. -ENOENT when it is
 * gone. */
int mp_scsi_delete(const char *root, int32_t host, int32_t channel, int32_t target, uint64_t lun);

/* Writes 1 to the device's rescan file: the kernel reads its capacity and VPD pages again, and is done
 * when this returns. Says little about whether the device answered (Linux before 6.8 never fails
 * here): ask it afterwards. -ENOENT when it is gone; -EAGAIN: it is not running. */
int mp_scsi_rescan(const char *root, int32_t host, int32_t channel, int32_t target, uint64_t lun);

/* The only ioctl call of scsi.c. Weak: a test may answer instead of the kernel. 0 or a negative
 * errno. */
int mp_scsi_ioctl(int fd, unsigned long request, void *argument);

#endif
