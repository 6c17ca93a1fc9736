/* SPDX-License-Identifier: Apache-2.0 */
/* The steps of mp_map_join(): making a map (map_create.c) and adding paths to one that exists
 * (map_members.c). Inside map_*.c only. */
#ifndef MP_MAP_STEPS_H
#define MP_MAP_STEPS_H

#include "map_util.h"

#include <errno.h>

/* The map came or went meanwhile: look again. Above every manypath_code. */
enum { MP_MAP_AGAIN = -EAGAIN };

struct mp_map_join {
    struct mp_host *host;
    int fd;
    const char *wwid;
    const char *uuid;
    uint64_t sectors; /* of the paths */
    struct mp_map_path *paths;
    size_t path_count;
    bool skip_kpartx;
    uint64_t deadline_ns;
};

/* A path is loaded into a table only while its descriptor is open, which keeps its device number from
 * becoming another disk's. If it was closed, so that udev and multipathd see the disk, this opens it again,
 * and fails with E_IDENTITY if it is another one. */
int mp_map_prove(const struct mp_map_join *join, struct mp_map_path *path,
                 struct manypath_error *err);

/* Makes the map; nothing is left of it on failure. 0, MP_MAP_AGAIN or a manypath_code with `err`. */
int mp_map_create(const struct mp_map_join *join, struct manypath_error *err);

/* The error that names the path that somebody else has, and who. `missing`: which of the paths are not in
 * the map, which has the others; NULL: all. */
int mp_map_claimed(const struct mp_map_join *join, const bool *missing, struct manypath_error *err);

/*
 * Adds to the map, which exists and is running, what it lacks of our paths: multipathd does, if it runs;
 * else its table is loaded once more, as it is, with them and without members whose disk is gone.
 * Members that do not answer stay. The map keeps its size: paths of another are marked `kept_out`.
 * Without multipathd it does not queue afterwards. Result as mp_map_create().
 */
int mp_map_add_paths(const struct mp_map_join *join, struct mp_map *map,
                     struct manypath_error *err);

#endif
