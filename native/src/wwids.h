/* SPDX-License-Identifier: Apache-2.0 */
/* multipath-tools' list of WWIDs it may build maps for (/etc/multipath/wwids). */
#ifndef MP_WWIDS_H
#define MP_WWIDS_H

#include <stdint.h>

/*
 * Appends "/<wwid>/\n" unless it is there, under a write lock that conflicts with multipath-tools'
 * own (fcntl; F_OFD_SETLK), waited for until deadline_ns (CLOCK_MONOTONIC). File and directory are
 * made as multipath-tools makes them. One write, fsync. -ENOENT (no parent directory), -EROFS,
 * -EACCES: the caller may go on without. -ETIMEDOUT: the lock was held. -EINVAL: a wwid with '/' or
 * control bytes.
 */
int mp_wwids_add(const char *directory, const char *wwid, uint64_t deadline_ns);

#endif
