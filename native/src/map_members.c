/* SPDX-License-Identifier: Apache-2.0 */
/* Adding paths to a map that exists. */
#include "dm.h"
#include "dm_table.h"
#include "error.h"
#include "identity.h"
#include "map_groups.h"
#include "map_steps.h"
#include "multipathd.h"
#include "queueing.h"
#include "sysfs.h"
#include "waiting.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SECTOR = 512 };

/* ---- who is in it ---- */

static bool has_dev(const dev_t *devs, size_t count, dev_t dev)
{
    for (size_t i = 0; i < count; i++)
        if (devs[i] == dev)
            return true;
    return false;
}

static bool is_ours(const struct mp_map_join *join, dev_t dev)
{
    for (size_t i = 0; i < join->path_count; i++)
        if (join->paths[i].dev == dev)
            return true;
    return false;
}

/* A member that is not among our paths: its own VPD decides, if it can be read. One whose disk is gone
 * reaches nothing any more; it leaves the table with the next one that is loaded. */
static int check_foreign_member(const struct mp_map_join *join, dev_t dev, char *ret_unchecked,
                                struct manypath_error *err)
{
    char name[MANYPATH_DEVICE_SIZE];
    struct mp_identity identity;
    int fd;

    int result = mp_sysfs_block_name(join->host->sysfs_root, dev, name, sizeof name);

    if (result == -ENOENT)
        return 0;
    if (result < 0)
        return mp_map_error(err, MANYPATH_PHASE_MAP, result, join->uuid, "reading the members of");
    result = mp_identity_open(join->host, name, dev, &identity, &fd, err);
    if (result == MANYPATH_E_DEVICE) {
        mp_copy(ret_unchecked, MANYPATH_DEVICE_SIZE, name);
        return 0;
    }
    if (result < 0)
        return result;
    mp_identity_close(&fd);
    if (strcmp(identity.wwid, join->wwid) != 0)
        return mp_error(err, MANYPATH_E_IDENTITY, MANYPATH_PHASE_MAP, 0,
                        "the map for %s has member %s, which is %s; it was not used", join->wwid,
                        name, identity.wwid);
    return 0;
}

static int check_members(const struct mp_map_join *join, const dev_t *devs, size_t count,
                         char *ret_unchecked, struct manypath_error *err)
{
    int result = 0;

    for (size_t i = 0; i < count && result == 0; i++)
        if (!is_ours(join, devs[i]))
            result = check_foreign_member(join, devs[i], ret_unchecked, err);
    return result;
}

/* A map's size is never changed here: cutting off a device in use is nobody's wish, and making it longer
 * is what an extend is for, which proves each path. Devices of another size stay out. */
static int keep_out_odd_sizes(const struct mp_map_join *join, const struct mp_map *map,
                              const dev_t *devs, size_t count, struct manypath_error *err)
{
    size_t left = join->path_count;

    if (map->size_bytes == join->sectors * SECTOR)
        return 0;
    for (size_t i = 0; i < join->path_count; i++) {
        struct mp_map_path *path = &join->paths[i];

        path->kept_out = !has_dev(devs, count, path->dev);
        left -= path->kept_out;
    }
    if (left > 0)
        return 0;
    mp_error(err, MANYPATH_E_MAP, MANYPATH_PHASE_MAP, 0,
             "map %s has %" PRIu64 " bytes and the volume %" PRIu64
             "; extend the volume through a path that is in the map, or detach it first",
             map->device, map->size_bytes, join->sectors * SECTOR);
    if (err != NULL)
        err->retryable = false;
    return MANYPATH_E_MAP;
}

/* ---- its table is ours ---- */

/* The first of a group that sysfs knows something about stands for it. */
static int group_priority(const struct mp_map_join *join, const struct mp_table *table,
                          uint32_t group)
{
    for (size_t i = 0; i < table->path_count; i++) {
        char name[MANYPATH_DEVICE_SIZE];

        if (table->paths[i].group == group &&
            mp_sysfs_block_name(join->host->sysfs_root, table->paths[i].dev, name, sizeof name) ==
                0)
            return mp_map_known_priority(join->host, name);
    }
    return -1;
}

/* Into the group of its like, else into one of its own before the first that is worse. */
static int add_to_table(const struct mp_map_join *join, const char *params, dev_t dev, int priority,
                        char **ret_params)
{
    struct mp_table table;
    int result = mp_table_parse(params, &table);

    if (result < 0)
        return result;
    uint32_t group = 1, before = table.group_count + 1;

    for (; group <= table.group_count; group++) {
        int other = group_priority(join, &table, group);

        if (other == priority)
            break;
        if (other < priority && before > group)
            before = group;
    }
    bool own_group = group > table.group_count;

    mp_table_free(&table);
    return mp_table_with(params, dev, own_group ? before : group, own_group, ret_params);
}

static int add_all_to_table(const struct mp_map_join *join, const bool *missing, char **params)
{
    int *priorities = calloc(join->path_count, sizeof *priorities);
    int result = priorities != NULL ? 0 : -ENOMEM;

    if (result == 0)
        mp_map_read_priorities(join->host, join->paths, join->path_count, join->deadline_ns,
                               priorities);
    for (size_t i = 0; i < join->path_count && result == 0; i++) {
        char *longer = NULL;

        if (!missing[i])
            continue;
        result = add_to_table(join, *params, join->paths[i].dev, priorities[i], &longer);
        if (result == 0) {
            free(*params);
            *params = longer;
        }
    }
    free(priorities);
    return result;
}

/* A table with a disk that does not exist does not load. After ours are in it, so that one is left: none
 * of them leaves, since the table without it would load, and lack it, again and again. -ESTALE: one of
 * ours is gone. */
static int drop_vanished(const struct mp_map_join *join, char **params)
{
    struct mp_table table;
    char name[MANYPATH_DEVICE_SIZE];
    char *shorter = NULL;
    size_t count = 0;
    int result = mp_table_parse(*params, &table);

    if (result < 0)
        return result;
    dev_t *gone = calloc(table.path_count, sizeof *gone);

    for (size_t i = 0; i < table.path_count && gone != NULL; i++) {
        dev_t dev = table.paths[i].dev;

        if (mp_sysfs_block_name(join->host->sysfs_root, dev, name, sizeof name) != -ENOENT)
            continue;
        if (is_ours(join, dev))
            result = -ESTALE;
        gone[count++] = dev;
    }
    if (gone == NULL)
        result = -ENOMEM;
    else if (result == 0 && count > 0)
        result = mp_table_without(*params, gone, count, &shorter);
    if (shorter != NULL) {
        free(*params);
        *params = shorter;
    }
    free(gone);
    mp_table_free(&table);
    return result;
}

/* The same table once more with our paths: its groups, its words and its size stay. */
static int load_with(const struct mp_map_join *join, const struct mp_map *map, const bool *missing)
{
    char type[16];
    char *params = NULL;
    struct manypath_error other;
    int result = 0;

    for (size_t i = 0; i < join->path_count && result == 0; i++)
        if (missing[i] && mp_map_prove(join, &join->paths[i], &other) < 0)
            result = -ESTALE;
    if (result == 0)
        result = mp_dm_table(join->fd, join->uuid, type, &params);
    if (result == 0)
        result = add_all_to_table(join, missing, &params);
    if (result == 0)
        result = drop_vanished(join, &params);
    if (result == 0)
        result = mp_map_load(join->fd, join->uuid, map->size_bytes / SECTOR, params,
                             MP_MAP_UDEV_FLAGS | MP_DM_UDEV_MPATH_RELOAD, true, join->deadline_ns);
    free(params);
    return result;
}

/* ---- adding ---- */

/* Which of our paths the map lacks; *ret_missing is their number. */
static int find_missing(const struct mp_map_join *join, bool *missing, size_t *ret_missing)
{
    dev_t *devs = NULL;
    size_t dev_count = 0;
    size_t number = 0;
    int result = mp_dm_deps(join->fd, join->uuid, &devs, &dev_count);

    if (result < 0)
        return result;
    for (size_t i = 0; i < join->path_count; i++) {
        missing[i] = !join->paths[i].kept_out && !has_dev(devs, dev_count, join->paths[i].dev);
        number += missing[i];
    }
    free(devs);
    *ret_missing = number;
    return 0;
}

int mp_map_prove(const struct mp_map_join *join, struct mp_map_path *path,
                 struct manypath_error *err)
{
    struct mp_identity identity;
    struct manypath_error error;

    if (path->fd >= 0)
        return 0;
    int result = mp_identity_open(join->host, path->name, path->dev, &identity, &path->fd, &error);

    if (result == MANYPATH_E_IDENTITY && error.sys_errno == EOPNOTSUPP)
        return 0; /* it has its name from udev, and was compared when the attach began */
    if (result == 0 && strcmp(identity.wwid, join->wwid) == 0)
        return 0;
    mp_identity_close(&path->fd);
    if (result < 0) {
        if (err != NULL)
            *err = error;
        return result;
    }
    return mp_error(err, MANYPATH_E_IDENTITY, MANYPATH_PHASE_MAP, ESTALE,
                    "%s became %s while the map of %s was made; attach again", path->name,
                    identity.wwid, join->wwid);
}

/* Lets udev see the paths: multipathd takes only those that udev's database knows. */
static void unlock_paths(const struct mp_map_join *join)
{
    for (size_t i = 0; i < join->path_count; i++)
        mp_identity_close(&join->paths[i].fd);
}

static void ask_for_paths(const struct mp_map_join *join, const bool *missing)
{
    for (size_t i = 0; i < join->path_count; i++)
        if (missing[i])
            mp_map_ask_multipathd(join->host, "add path", join->paths[i].name, join->deadline_ns);
}

/* While multipathd runs it owns the table, and adds paths by itself when udev has announced them; asked
 * again each second, in case it had dropped one. It may come or go at any time: whoever owns the table
 * at a look is the one to change it. */
static int add_missing(const struct mp_map_join *join, struct mp_map *map, bool *missing,
                       size_t *ret_number)
{
    uint64_t ask_ns = mp_now_ns() + MP_MAP_ASK_AFTER;

    for (;;) {
        int result = 0;

        map->multipathd_running = mp_multipathd_running(join->host->multipathd_pidfile);
        if (!map->multipathd_running && mp_queueing_end(join->host, join->fd, join->uuid))
            map->queueing_stopped = true;
        result = find_missing(join, missing, ret_number);
        if (result < 0 || *ret_number == 0)
            return result;
        if (!map->multipathd_running) {
            result = mp_now_ns() < join->deadline_ns ? load_with(join, map, missing) : -ETIMEDOUT;
            if (result < 0)
                return result;
            continue;
        }
        unlock_paths(join);
        if (mp_now_ns() >= ask_ns) {
            ask_for_paths(join, missing);
            ask_ns = mp_now_ns() + MP_MAP_ASK_AFTER;
        }
        if (!mp_wait_turn(join->deadline_ns))
            return -ETIMEDOUT;
    }
}

static int not_added(const struct mp_map_join *join, const struct mp_map *map, int result,
                     const bool *missing, size_t number, struct manypath_error *err)
{
    if (result == -ENXIO || result == -ENODATA)
        return MP_MAP_AGAIN;
    if (result == -EBUSY)
        return mp_map_claimed(join, missing, err);
    if (result == -ESTALE)
        return mp_error(err, MANYPATH_E_MAP, MANYPATH_PHASE_MAP, result,
                        "a path of ours went, or became another volume's, before map %s had it; "
                        "attach again",
                        join->uuid);
    if (result == -ETIMEDOUT && map->multipathd_running)
        return mp_error(err, MANYPATH_E_MAP, MANYPATH_PHASE_MAP, result,
                        "multipathd owns map %s and did not take %zu of our paths into it",
                        join->uuid, number);
    return mp_map_error(err, MANYPATH_PHASE_MAP, result, join->uuid, "adding paths to");
}

int mp_map_add_paths(const struct mp_map_join *join, struct mp_map *map, struct manypath_error *err)
{
    bool *missing = calloc(join->path_count, sizeof *missing);
    dev_t *devs = NULL;
    size_t count = 0, number = 0;
    int result = missing != NULL ? mp_dm_deps(join->fd, join->uuid, &devs, &count) : -ENOMEM;

    if (result < 0) {
        free(missing);
        return not_added(join, map, result, NULL, 0, err);
    }
    result = check_members(join, devs, count, map->unchecked, err);
    if (result == 0)
        result = keep_out_odd_sizes(join, map, devs, count, err);
    if (result == 0) {
        result = add_missing(join, map, missing, &number);
        if (result < 0)
            result = not_added(join, map, result, missing, number, err);
    }
    free(devs);
    free(missing);
    return result;
}
