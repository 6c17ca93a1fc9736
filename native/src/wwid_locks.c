/* SPDX-License-Identifier: Apache-2.0 */
#include "wwid_locks.h"

#include "waiting.h"

#include <errno.h>
#include <string.h>

static int take(const struct mp_host *host, struct mp_wwid_locks *locks, const char *wwid,
                bool exclusive, uint64_t deadline_ns)
{
    char *name = locks->names[locks->count];
    int fd = -1;
    int result;

    mp_lockfile_name("wwid", wwid, name);
    while ((result = mp_lockfile_take(host->runtime_dir, name, exclusive, &fd)) == -EAGAIN &&
           mp_wait_turn(deadline_ns))
        ;
    if (result == 0)
        locks->fds[locks->count++] = fd;
    else if (fd >= 0)
        mp_lockfile_close(fd);
    return result;
}

int mp_wwid_locks_take(const struct mp_host *host, struct mp_wwid_locks *locks, const char *wwid,
                       const char *other_wwid, bool exclusive, uint64_t deadline_ns)
{
    int order = strcmp(wwid, other_wwid);
    const char *first = order < 0 ? wwid : other_wwid;
    const char *second = order < 0 ? other_wwid : wwid;
    int result = 0;

    locks->count = 0;
    if (first[0] != '\0' && order != 0)
        result = take(host, locks, first, exclusive, deadline_ns);
    if (result == 0 && second[0] != '\0')
        result = take(host, locks, second, exclusive, deadline_ns);
    if (result < 0)
        mp_wwid_locks_drop(host, locks);
    return result;
}

void mp_wwid_locks_drop(const struct mp_host *host, struct mp_wwid_locks *locks)
{
    while (locks->count > 0) {
        locks->count--;
        mp_lockfile_drop(host->runtime_dir, locks->names[locks->count], locks->fds[locks->count]);
    }
}
