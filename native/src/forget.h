/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting until multipathd has let go of disks that are deleted. */
#ifndef MP_FORGET_H
#define MP_FORGET_H

#include "host.h"

#include <stddef.h>

/* Is `name` one of the lines of multipathd's answer to `show paths raw format "%d"`? Pure. */
bool mp_path_listed(const char *reply, const char *name);

/*
 * Waits until multipathd, if it runs, lists none of these disks any more, whose deletion it learns
 * from udev; what it still lists after a moment is taken from it with `del path`. A name that is on the
 * host again is another disk's, and is left alone. Returns how many it still lists at the deadline, their
 * names first in `names`; negative errno: it could not be asked. Blocks: call from a worker.
 */
int mp_paths_forget(const struct mp_host *host, char (*names)[MANYPATH_DEVICE_SIZE], size_t count,
                    uint64_t deadline_ns);

#endif
