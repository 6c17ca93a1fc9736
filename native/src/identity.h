/* SPDX-License-Identifier: Apache-2.0 */
/* Who a disk is, read from the disk itself. Blocks: call from a worker. */
#ifndef MP_IDENTITY_H
#define MP_IDENTITY_H

#include "host.h"

#include <stdbool.h>
#include <sys/types.h>

struct mp_identity {
    char wwid[MANYPATH_WWID_SIZE];
    uint64_t size_bytes;
};

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
