/* SPDX-License-Identifier: Apache-2.0 */
/* Making a map. */
#include "dm.h"
#include "dm_table.h"
#include "error.h"
#include "fault.h"
#include "holders.h"
#include "map_groups.h"
#include "map_steps.h"
#include "multipathd.h"
#include "users.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *common_handler(const struct mp_map_path *paths, size_t count)
{
    for (size_t i = 1; i < count; i++)
        if (strcmp(paths[i].dh_state, paths[0].dh_state) != 0)
            return ""; /* mixed: name none, the attached ones are retained by the kernel anyway */
    return paths[0].dh_state;
}

/* multipathd loads a table of its own within a second, so with it any table that is safe will do: one
 * group, and no path is asked for anything. */
static int build_table(const struct mp_map_join *join, char **ret_params)
{
    size_t count = join->path_count;
    int *priorities = calloc(count, sizeof *priorities);
    struct mp_table_path *members = calloc(count, sizeof *members);
    int result = -ENOMEM;

    if (priorities != NULL && members != NULL) {
        if (!mp_multipathd_running(join->host->multipathd_pidfile))
            mp_map_read_priorities(join->host, join->paths, count, join->deadline_ns, priorities);
        mp_map_group(join->paths, priorities, count, members);
        result = mp_table_build(members, count, common_handler(join->paths, count), ret_params);
    }
    free(priorities);
    free(members);
    return result;
}

int mp_map_claimed(const struct mp_map_join *join, const bool *missing, struct manypath_error *err)
{
    char users[320];
    const char *name = "";
    bool claimed = false;

    for (size_t i = 0; i < join->path_count && !claimed; i++) {
        if (missing != NULL && !missing[i])
            continue;
        claimed = mp_disk_is_claimed(join->host, join->paths[i].name);
        if (claimed || name[0] == '\0') /* the first, should it have been for a moment only */
            name = join->paths[i].name;
    }
    mp_users_describe(join->host, name, -1, users, sizeof users);
    return mp_error(err, MANYPATH_E_IN_USE, MANYPATH_PHASE_MAP, EBUSY,
                    "path %s is in use: %s; release it and try again", name, users);
}

/* The uuid decides: the kernel takes each once (dm-ioctl.c dm_hash_insert). A name may belong to some
 * other map; then the uuid is the name too. -EEXIST: somebody else makes or made the map. */
static int create_shell(const struct mp_map_join *join)
{
    const char *names[] = {join->wwid, join->uuid};
    struct mp_dm_info info;
    dev_t dev;
    int result = 0;

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        result = mp_dm_create(join->fd, names[i], join->uuid, &dev);
        if (result != -EBUSY)
            return result;
        if (mp_dm_info(join->fd, join->uuid, &info) == 0)
            return -EEXIST;
    }
    return result;
}

/* multipathd removes an empty map that is in its way, or loads its own table into it: then ours came too
 * late. With the map there and empty it is our table that does not load. */
static int load_error(const struct mp_map_join *join, int result, struct manypath_error *err)
{
    struct mp_dm_info info;
    int found = mp_dm_info(join->fd, join->uuid, &info);

    if (found == -ENXIO || (found == 0 && info.active_table))
        return MP_MAP_AGAIN;
    mp_dm_remove(join->fd, join->uuid, MP_MAP_UDEV_FLAGS);
    if (result == -EBUSY)
        return mp_map_claimed(join, NULL, err);
    if (result == -EINVAL && mp_map_supported(join->host, err) < 0)
        return MANYPATH_E_NO_MULTIPATH; /* the module went since we asked */
    return mp_map_error(err, MANYPATH_PHASE_MAP, result, join->uuid, "making");
}

int mp_map_create(const struct mp_map_join *join, struct manypath_error *err)
{
    char *params = NULL;
    int result = 0;

    for (size_t i = 0; i < join->path_count && result == 0; i++)
        result = mp_map_prove(join, &join->paths[i], err);
    if (result < 0)
        return result;
    result = build_table(join, &params);
    if (result < 0)
        return mp_map_error(err, MANYPATH_PHASE_MAP, result, join->uuid, "making a table for");
    result = create_shell(join);
    if (result == 0) {
        MP_FAULT("map.created");
        result = mp_map_load(join->fd, join->uuid, join->sectors, params,
                             MP_MAP_UDEV_FLAGS | (join->skip_kpartx ? MP_DM_UDEV_NO_KPARTX : 0),
                             false, join->deadline_ns);
        if (result < 0)
            result = load_error(join, result, err);
    } else if (result == -EEXIST) {
        result = MP_MAP_AGAIN;
    } else if (result == -EBUSY) {
        result = mp_error(err, MANYPATH_E_MAP, MANYPATH_PHASE_MAP, EBUSY,
                          "both names for the map, %s and %s, belong to other maps", join->wwid,
                          join->uuid);
    } else {
        result = mp_map_error(err, MANYPATH_PHASE_MAP, result, join->uuid, "making");
    }
    free(params);
    return result;
}
