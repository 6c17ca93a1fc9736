/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads iSCSI sessions, SCSI disks and holders from sysfs. `root` is "/sys" or a test tree.
 * Everything may vanish while it is read: a session or disk that does is left out, never an error.
 * Functions return 0 or a negative errno; -ENOENT: no such thing.
 */
#ifndef MP_SYSFS_H
#define MP_SYSFS_H

#include "address.h"

#include <manypath/manypath.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum mp_session_state {
    MP_SESSION_OTHER = 0,
    MP_SESSION_LOGGED_IN,
    MP_SESSION_FAILED,
    MP_SESSION_FREE
};

struct mp_session {
    int32_t sid;
    int32_t host;
    enum mp_session_state state;
    char state_text[16];
    char iqn[MANYPATH_IQN_SIZE];
    char address_text[MANYPATH_ADDRESS_SIZE]; /* persistent_address as the kernel prints it */
    struct mp_portal portal; /* persistent address and port, as asked for; family 0: unreadable */
};

struct mp_disk {
    int32_t host, channel, target;
    uint64_t lun;
    dev_t dev;                       /* 0 while the block device is not there yet */
    char name[MANYPATH_DEVICE_SIZE]; /* "sda"; "" while the block device is not there yet */
    char state[24];
    char dh_state[16]; /* attached device handler, "" if none or "detached" */
    uint64_t size_bytes;
};

/* All sessions, sorted by sid. *ret_sessions is malloc'ed, NULL when there are none. */
int mp_sysfs_sessions(const char *root, struct mp_session **ret_sessions, size_t *ret_count);

/* The session to this iqn through this portal. Looks at the newest first, reads as little as it
 * can. */
int mp_sysfs_find_session(const char *root, const char *iqn, const struct mp_portal *portal,
                          struct mp_session *ret_session);

/* State and host of one session. -ENOENT when it is gone. */
int mp_sysfs_session_state(const char *root, int32_t sid, enum mp_session_state *ret_state);

/* The disk of a LUN in a session (any channel and target). -ENOENT: no SCSI device with that
 * LUN. */
int mp_sysfs_find_disk(const char *root, int32_t host, int32_t sid, uint64_t lun,
                       struct mp_disk *ret_disk);

/* Every SCSI disk of a session, sorted by channel, target, lun; malloc'ed. SCSI devices that are no
 * disks (no block directory and type not 0) are listed too, with an empty name: they use the
 * session. */
int mp_sysfs_session_disks(const char *root, int32_t host, int32_t sid, struct mp_disk **ret_disks,
                           size_t *ret_count);

/* The session has a SCSI target, which goes a moment after its last device. False if it is unreadable. */
bool mp_sysfs_session_has_targets(const char *root, int32_t host, int32_t sid);

/* Names ("dm-3", "md0") that hold a block device, from /sys/block/NAME/holders; at most `max`, rest
 * counted. Partitions' holders count as the disk's. */
int mp_sysfs_holders(const char *root, const char *name, char (*ret_names)[MANYPATH_DEVICE_SIZE],
                     size_t max, size_t *ret_count);

/* Names of the block devices below a dm device, from /sys/block/NAME/slaves; at most `max`, rest
 * counted. */
int mp_sysfs_slaves(const char *root, const char *name, char (*ret_names)[MANYPATH_DEVICE_SIZE],
                    size_t max, size_t *ret_count);

/* The iSCSI session and LUN of a disk by its name. -ENOENT: gone, or no disk behind iSCSI. */
int mp_sysfs_disk_place(const char *root, const char *name, int32_t *ret_sid, int32_t *ret_host,
                        uint64_t *ret_lun);

/* uuid ("mpath-...") and name of /sys/block/dm-N/dm. Either output may be NULL. */
int mp_sysfs_dm(const char *root, const char *dm, char *ret_uuid, size_t uuid_size, char *ret_name,
                size_t name_size);

/* What /sys/block/NAME/device/ATTRIBUTE has, bytes as they are. -EOVERFLOW: more than `size`. */
int mp_sysfs_device_attribute(const char *root, const char *name, const char *attribute,
                              void *ret_bytes, size_t size, size_t *ret_length);

enum { MP_VPD_PAGE_SIZE = 4096 };

/* Page 0x83 of a SCSI disk as the kernel read it when it made the disk or rescanned it last: no I/O. */
int mp_sysfs_page83(const char *root, const char *name, uint8_t ret_page[MP_VPD_PAGE_SIZE],
                    size_t *ret_length);

/* The device number of a block device, from /sys/block/NAME/dev. */
int mp_sysfs_block_dev(const char *root, const char *name, dev_t *ret_dev);

/* Kernel name ("sda") of a block device number. -ENOENT when it is gone. */
int mp_sysfs_block_name(const char *root, dev_t dev, char *ret_name, size_t size);

/* Size in bytes of any block device, from /sys/block/NAME/size (512-byte units). */
int mp_sysfs_block_size(const char *root, const char *name, uint64_t *ret_bytes);

/* An attribute of a SCSI disk by its name, such as "state" ("running", "blocked"), "access_state" or
 * "vendor"; without blanks at its end. -EINVAL: the kernel has no value for it. */
int mp_sysfs_disk_attribute(const char *root, const char *name, const char *attribute,
                            char *ret_text, size_t size);

#endif
