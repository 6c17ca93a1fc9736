/* SPDX-License-Identifier: Apache-2.0 */
/* Who uses a block device, and which partition maps lie on a multipath map. Blocks: call from a
 * worker. */
#ifndef MP_USERS_H
#define MP_USERS_H

#include "host.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MP_PART_MAPS_MAX = 256, /* multipath-tools' kpartx makes no more */
    MP_USERS_PROGRAM_SIZE = 40,
};

/* A partition map that kpartx made: uuid "part<number>-mpath-<wwid>". */
struct mp_part_map {
    char device[MANYPATH_DEVICE_SIZE]; /* "dm-4" */
    char uuid[MANYPATH_WWID_SIZE + 32];
    unsigned number;
};

/* Is `uuid` that of a partition map of the map with uuid `map_uuid`? Pure. */
bool mp_part_map_of(const char *uuid, const char *map_uuid, unsigned *ret_number);

/* The partition maps that hold the map `device`, at most `max`. Negative errno; -ENOENT: the map is
 * gone. */
int mp_part_maps(const struct mp_host *host, const char *device, const char *map_uuid,
                 struct mp_part_map *ret_maps, size_t max, size_t *ret_count);

/* Has a program the disk or one of its partitions open? With or without claiming it; a mount is none. 1,
 * and its name, "qemu-kvm (pid 4711)"; 0; negative errno as of mp_opener_find(), for -EACCES with the name of
 * one that may not be looked into. */
int mp_users_program(const struct mp_host *host, const char *disk, uint64_t deadline_ns,
                     char ret_program[MP_USERS_PROGRAM_SIZE]);

/* "mounted on /var/lib/x; partition map p1 (dm-4) held by vg0-lv": the mounts, swap and holders of a disk
 * or a map. False, and "": none. */
bool mp_users_name(const struct mp_host *host, const char *device, char *text, size_t size);

/* The same for an error text: where there are none, the program that has a disk open. open_count -1: not
 * known. True if mp_users_name() is. */
bool mp_users_describe(const struct mp_host *host, const char *device, int open_count, char *text,
                       size_t size);

#endif
