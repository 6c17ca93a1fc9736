/* SPDX-License-Identifier: Apache-2.0 */
/* Who has a disk: multipath maps, and everybody else. Blocks: call from a worker. */
#ifndef MP_HOLDERS_H
#define MP_HOLDERS_H

#include "host.h"

#include <stdbool.h>
#include <stddef.h>

struct mp_holders {
    char map[MANYPATH_DEVICE_SIZE];          /* the map "mpath-<wwid>", or "" */
    char other_map[MANYPATH_DEVICE_SIZE];    /* a multipath map of another WWID, or "" */
    char other_wwid[MANYPATH_WWID_SIZE];     /* its WWID */
    char foreign[MANYPATH_MESSAGE_SIZE / 2]; /* all others, for an error text; "": none */
};

/* Reading an attribute of this holder brought `result`: is it a map that is just being removed? It loses its
 * name, and its attributes, before it lets go of its disks (kernel __dm_destroy). One that is just being made has
 * none yet (kernel dm_setup_md_queue, since 5.16). */
bool mp_holder_comes_or_goes(const char *holder, int result);

/* Reads the holders of a disk and of its partitions from sysfs. A map that is just being removed has no
 * name any more, and one that is just being made has none yet: neither is among them, but the disk is
 * claimed, so ask mp_disk_is_claimed() as well. Negative errno. */
int mp_holders_read(const struct mp_host *host, const char *name, const char *wwid,
                    struct mp_holders *ret_holders);

/* Somebody holds the disk or a part of it: a map, md, a mounted file system, swap. Looks by an
 * exclusive open, which takes two system calls; a plain open by a program is not seen. */
bool mp_disk_is_claimed(const struct mp_host *host, const char *name);

#endif
