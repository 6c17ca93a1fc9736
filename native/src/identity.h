/* SPDX-License-Identifier: Apache-2.0 */
/* Who a disk is, read from the disk itself. Blocks: call from a worker. */
#ifndef MP_IDENTITY_H
#define MP_IDENTITY_H

#include "host.h"
#include "vpd.h"

#include <stdbool.h>
#include <sys/types.h>

struct mp_identity {
    char wwid[MANYPATH_WWID_SIZE];
    uint64_t size_bytes;
    char serial[MP_SERIAL_SIZE]; /* if it was asked for */
    /* If the WWID is udev's: the designators themselves, which the paths must have in common too. */
    uint8_t names[MP_LUN_NAMES_SIZE];
    size_t names_length;
    bool locked; /* the descriptor is, by us; else udev or multipathd is at work with the disk */
};

/* The same disk; sizes are not compared. */
bool mp_identity_same_disk(const struct mp_identity *a, const struct mp_identity *b);

struct mp_identity_terms {
    bool serial;          /* read page 0x80 too */
    uint64_t appeared_ns; /* the disk is no older than this; 0: it may be */
    uint64_t deadline_ns; /* how long udev is waited for where only udev can tell the WWID */
};

/*
 * As mp_identity_open(), for a disk that udev may still have to see. Where page 0x83 has only
 * designators that udev and multipathd read differently, the WWID is the ID_SERIAL of udev's
 * database. An entry may be left from a disk that had the number before, so it is believed only if its
 * ID_SERIAL comes from one of the designators just read, or if udev first saw the device after it
 * appeared. The lock is let go of meanwhile, since udev leaves locked disks alone.
 */
int mp_identity_learn(const struct mp_host *host, const char *name, dev_t dev,
                      const struct mp_identity_terms *terms, struct mp_identity *ret_identity,
                      int *ret_fd, struct manypath_error *err);

/* The WWID of a disk as the kernel read it when the disk came, from page 0x83: no I/O, so that it may be
 * asked of a disk that hangs, and on the loop. "": none is known, or udev would have to tell it. Negative
 * errno: it could not be asked. */
int mp_identity_known(const struct mp_host *host, const char *name,
                      char ret_wwid[MANYPATH_WWID_SIZE]);

/* The designators of the logical unit, as the disk tells them now. Negative errno. */
int mp_identity_names(const struct mp_host *host, const char *name, dev_t dev,
                      uint8_t ret_names[MP_LUN_NAMES_SIZE], size_t *ret_length);

/*
 * Opens <dev_root>/name (it must still be device `dev`), reads VPD 0x83 and the size. On success
 * *ret_fd is an open descriptor with an exclusive flock if that could be had at once: udevd leaves
 * the disk alone until it is closed (systemd.io/BLOCK_DEVICE_LOCKING), so that it sees a map's
 * member and no bare disk. Returns 0 or a negative manypath_code.
 */
int mp_identity_open(const struct mp_host *host, const char *name, dev_t dev,
                     struct mp_identity *ret_identity, int *ret_fd, struct manypath_error *err);

/* The same, and closes the disk again. Takes no lock: udev should hear of what happens to it. */
int mp_identity_read(const struct mp_host *host, const char *name, dev_t dev,
                     struct mp_identity *ret_identity, struct manypath_error *err);

/* Closes what mp_identity_open() opened, and lets go of the lock, which a child that the host program
 * forked meanwhile would keep; *fd becomes -1. */
void mp_identity_close(int *fd);

/* The open descriptor is this block device. Weak: a test may answer instead. */
bool mp_identity_check(int fd, dev_t dev);

#endif
