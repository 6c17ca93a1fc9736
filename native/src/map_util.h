/* SPDX-License-Identifier: Apache-2.0 */
/* What making, resizing and removing maps have in common; inside map_*.c and unmap.c only. Blocks: call
 * from a worker. */
#ifndef MP_MAP_UTIL_H
#define MP_MAP_UTIL_H

#include "map.h"
#include "text.h"

#define MP_MAP_MS UINT64_C(1000000) /* in nanoseconds */

/* udev's probing opens disks and maps for moments (60-block.rules watch): wait that long before
 * saying "busy". */
#define MP_MAP_BUSY_LIMIT (5000 * MP_MAP_MS)
/* How long multipathd gets to do something by itself before it is asked to, and asked again. */
#define MP_MAP_ASK_AFTER (1000 * MP_MAP_MS)
/* A creator between CREATE and RESUME. */
#define MP_MAP_EMPTY_LIMIT (2000 * MP_MAP_MS)

/* Without a semaphore, and so that udev keeps the links at the next coldplug (facts of libdm's udev
 * protocol). */
#define MP_MAP_UDEV_FLAGS (MP_DM_UDEV_PRIMARY_SOURCE | MP_DM_UDEV_DISABLE_LIBRARY_FALLBACK)

/* Of a map's uuid, "mpath-<wwid>". */
const char *mp_map_wwid(const char *uuid);

uint64_t mp_map_earlier(uint64_t a, uint64_t b);

/* Device-mapper itself cannot be used: why. */
int mp_map_unusable(int result, struct manypath_error *err);

/* A call failed with `result`; `doing` is what it was for, such as "removing". */
int mp_map_error(struct manypath_error *err, int phase, int result, const char *uuid,
                 const char *doing);

/* Loads and resumes a multipath table; waits out moments in which udev or LVM probe a path. */
int mp_map_load(int fd, const char *uuid, uint64_t sectors, const char *params, uint32_t udev_flags,
                bool reload, uint64_t deadline_ns);

/* "add path sda" and the like; its answer as an errno. */
int mp_map_ask_multipathd(const struct mp_host *host, const char *what, const char *name,
                          uint64_t deadline_ns);

/* Fails unless the map is of type multipath. */
int mp_map_check_type(int fd, const char *uuid, struct manypath_error *err);

/* Sets the states of those paths that are in the map. False if a member, ours or not, is failed. */
bool mp_map_read_states(int fd, const char *uuid, struct mp_map_path *paths, size_t count);

#endif
