/* SPDX-License-Identifier: Apache-2.0 */
/* The locks of one or two WWIDs, for a job that works on a volume of its own accord (lock.h is for the
 * loop). Blocks: call from a worker. */
#ifndef MP_WWID_LOCKS_H
#define MP_WWID_LOCKS_H

#include "host.h"
#include "lockfile.h"

struct mp_wwid_locks {
    size_t count;
    int fds[2];
    char names[2][MP_LOCKFILE_NAME_SIZE];
};

/* Takes both, exclusively or shared, in the order of their names; "" is none. -EAGAIN: somebody still had one at
 * deadline_ns (CLOCK_MONOTONIC); other negative errno of mp_lockfile_take(). Holds nothing then. */
int mp_wwid_locks_take(const struct mp_host *host, struct mp_wwid_locks *locks, const char *wwid,
                       const char *other_wwid, bool exclusive, uint64_t deadline_ns);

void mp_wwid_locks_drop(const struct mp_host *host, struct mp_wwid_locks *locks);

#endif
