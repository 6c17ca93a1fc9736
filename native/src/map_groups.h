/* SPDX-License-Identifier: Apache-2.0 */
/* How well paths serve their volume, and the groups that follow from it; for maps whose table is ours.
 * Blocks: call from a worker. */
#ifndef MP_MAP_GROUPS_H
#define MP_MAP_GROUPS_H

#include "dm_table.h"
#include "map.h"

/*
 * The priority of each path (alua.h). Where the ALUA handler is attached the target is asked, once for
 * all its port groups: right after a scan sysfs may still say "active/optimized" of any path (kernel
 * scsi_dh_alua.c asks later). If it does not answer, or there is another handler, sysfs counts. Takes 2 s
 * at most, and no more than half of the time until deadline_ns.
 */
void mp_map_read_priorities(const struct mp_host *host, const struct mp_map_path *paths,
                            size_t count, uint64_t deadline_ns, int *ret_priorities);

/* The priority that sysfs tells, without a command to the path. */
int mp_map_known_priority(const struct mp_host *host, const char *name);

/* The paths in the order in which they should be used, each with the number of its group: one group for
 * each priority. `ret_members` has room for `count`. */
void mp_map_group(const struct mp_map_path *paths, const int *priorities, size_t count,
                  struct mp_table_path *ret_members);

#endif
