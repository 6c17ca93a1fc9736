/* SPDX-License-Identifier: Apache-2.0 */
/* Making a map, and joining one that exists. */
#include "dm.h"
#include "dm_table.h"
#include "error.h"
#include "identity.h"
#include "map.h"
#include "map_util.h"
#include "multipathd.h"
#include "sysfs.h"
#include "text.h"
#include "wwids.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum {
    SECTOR = 512,
    ATTEMPTS = 3, /* multipathd may remove an empty map of ours between two ioctls */
};

int mp_map_supported(struct mp_host *host, struct manypath_error *err)
{
    bool has = false;
    int fd = mp_host_dm(host);

    if (fd < 0)
        return mp_map_unusable(fd, err);
    int result = mp_dm_has_target(fd, "multipath", &has);

    if (result < 0)
        return mp_map_unusable(result, err);
    if (!has)
        return mp_error(err, MANYPATH_E_NO_MULTIPATH, MANYPATH_PHASE_MAP, 0,
                        "the kernel has no multipath target; load the module dm_multipath");
    return 0;
}

/* ---- creating ---- */

static const char *common_handler(const struct mp_map_path *paths, size_t count)
{
    for (size_t i = 1; i < count; i++)
        if (strcmp(paths[i].dh_state, paths[0].dh_state) != 0)
            return ""; /* mixed: name none, the attached ones are retained by the kernel anyway */
    return paths[0].dh_state;
}

static int build_table(const struct mp_map_path *paths, size_t count, char **ret_params)
{
    dev_t *devs = calloc(count, sizeof *devs);

    if (devs == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++)
        devs[i] = paths[i].dev;
    int result = mp_table_build(devs, count, common_handler(paths, count), ret_params);

    free(devs);
    return result;
}

static int claimed_error(const struct mp_host *host, const struct mp_map_path *paths, size_t count,
                         struct manypath_error *err)
{
    char holders[128];
    const char *name = paths[0].name;

    for (size_t i = 0; i < count; i++) {
        char path[PATH_MAX];

        snprintf(path, sizeof path, "%s/%s", host->dev_root, paths[i].name);
        int fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC);

        if (fd >= 0) {
            close(fd);
            continue;
        }
        name = paths[i].name;
        break;
    }
    mp_map_describe_holders(host, name, holders, sizeof holders);
    return mp_error(err, MANYPATH_E_IN_USE, MANYPATH_PHASE_MAP, EBUSY,
                    "path %s is claimed by %s; release it and try again", name, holders);
}
/* CREATE, LOAD, RESUME. -EEXIST: somebody else made the map; -ENXIO: somebody took ours away: both
 * start over. */
static int create(int fd, const char *wwid, const char *uuid, uint64_t sectors, const char *params,
                  uint64_t deadline_ns)
{
    struct mp_dm_info info;
    dev_t dev;
    int result = mp_dm_create(fd, wwid, uuid, &dev);

    if (result == -EBUSY) {
        if (mp_dm_info(fd, uuid, &info) == 0)
            return -EEXIST;
        result = mp_dm_create(fd, uuid, uuid, &dev); /* the name belongs to some other map */
    }
    if (result < 0)
        return result;
    result = mp_map_load(fd, uuid, sectors, params, MP_MAP_UDEV_FLAGS, false, deadline_ns);
    if (result < 0)
        mp_dm_remove(fd, uuid, MP_MAP_UDEV_FLAGS);
    return result;
}

/* ---- joining ---- */

static bool has_dev(const dev_t *devs, size_t count, dev_t dev)
{
    for (size_t i = 0; i < count; i++)
        if (devs[i] == dev)
            return true;
    return false;
}

/* A member that is not among our paths: its own VPD decides, if it can be read. */
static int check_foreign_member(const struct mp_host *host, dev_t dev, const char *wwid,
                                char *ret_unchecked, struct manypath_error *err)
{
    char name[MANYPATH_DEVICE_SIZE];
    struct mp_identity identity;
    int fd;

    if (mp_sysfs_block_name(host->sysfs_root, dev, name, sizeof name) < 0)
        return mp_error(
            err, MANYPATH_E_IDENTITY, MANYPATH_PHASE_MAP, ENOENT,
            "the map has a member %u:%u that does not exist any more; remove the map first",
            major(dev), minor(dev));
    int result = mp_identity_open(host, name, dev, &identity, &fd, err);

    if (result == MANYPATH_E_DEVICE) {
        mp_copy(ret_unchecked, MANYPATH_DEVICE_SIZE, name);
        return 0;
    }
    if (result < 0)
        return result;
    mp_identity_close(&fd);
    if (strcmp(identity.wwid, wwid) != 0)
        return mp_error(err, MANYPATH_E_IDENTITY, MANYPATH_PHASE_MAP, 0,
                        "the map for %s has member %s, which is %s; it was not used", wwid, name,
                        identity.wwid);
    return 0;
}

static int check_members(const struct mp_host *host, int fd, const char *uuid, const char *wwid,
                         const struct mp_map_path *paths, size_t count, char *ret_unchecked,
                         struct manypath_error *err)
{
    dev_t *devs = NULL;
    size_t dev_count = 0;
    int result = mp_dm_deps(fd, uuid, &devs, &dev_count);

    if (result < 0)
        return mp_map_error(err, MANYPATH_PHASE_MAP, result, uuid, "reading the members of");
    for (size_t i = 0; i < dev_count && result == 0; i++) {
        bool ours = false;

        for (size_t p = 0; p < count; p++)
            ours = ours || paths[p].dev == devs[i];
        if (!ours)
            result = check_foreign_member(host, devs[i], wwid, ret_unchecked, err);
    }
    free(devs);
    return result;
}

/* Which of our paths the map lacks; *ret_missing is their number. */
static int missing_paths(int fd, const char *uuid, const struct mp_map_path *paths, size_t count,
                         bool *missing, size_t *ret_missing)
{
    dev_t *devs = NULL;
    size_t dev_count = 0;
    size_t number = 0;
    int result = mp_dm_deps(fd, uuid, &devs, &dev_count);

    if (result < 0)
        return result;
    for (size_t i = 0; i < count; i++) {
        missing[i] = !has_dev(devs, dev_count, paths[i].dev);
        number += missing[i];
    }
    free(devs);
    *ret_missing = number;
    return 0;
}

/* No daemon owns the table: load one with the members it has and ours. */
static int reload_with(int fd, const char *uuid, uint64_t sectors, const struct mp_map_path *paths,
                       size_t count, uint64_t deadline_ns)
{
    struct mp_map_path *all;
    dev_t *devs = NULL;
    size_t dev_count = 0;
    char *params = NULL;
    int result = mp_dm_deps(fd, uuid, &devs, &dev_count);

    if (result < 0)
        return result;
    all = calloc(count + dev_count, sizeof *all);
    if (all == NULL) {
        free(devs);
        return -ENOMEM;
    }
    memcpy(all, paths, count * sizeof *all);
    size_t total = count;

    for (size_t i = 0; i < dev_count; i++) {
        bool ours = false;

        for (size_t p = 0; p < count; p++)
            ours = ours || paths[p].dev == devs[i];
        if (!ours) {
            all[total] = all[0];
            all[total].dev = devs[i];
            total++;
        }
    }
    result = build_table(all, total, &params);
    if (result == 0)
        result = mp_map_load(fd, uuid, sectors, params, MP_MAP_UDEV_FLAGS | MP_DM_UDEV_MPATH_RELOAD,
                             true, deadline_ns);
    free(params);
    free(all);
    free(devs);
    return result;
}

/* Lets udev see the paths: multipathd takes only those that udev's database knows. */
static void unlock_paths(struct mp_map_path *paths, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        mp_identity_close(&paths[i].fd);
    }
}

/* multipathd owns the table and adds paths by itself when udev has announced them; asked again each
 * second, in case it had dropped one. */
static int wait_for_multipathd(const struct mp_host *host, int fd, const char *uuid,
                               struct mp_map_path *paths, size_t count, bool *missing,
                               size_t *ret_number, uint64_t deadline_ns)
{
    uint64_t ask_ns = mp_now_ns() + MP_MAP_ASK_AFTER;
    int result;

    unlock_paths(paths, count);
    while ((result = missing_paths(fd, uuid, paths, count, missing, ret_number)) == 0 &&
           *ret_number > 0) {
        if (mp_now_ns() >= ask_ns) {
            for (size_t i = 0; i < count; i++)
                if (missing[i])
                    mp_map_ask_multipathd(host, "add path", paths[i].name, deadline_ns);
            ask_ns = mp_now_ns() + MP_MAP_ASK_AFTER;
        }
        if (!mp_map_wait(deadline_ns))
            return -ETIMEDOUT;
    }
    return result;
}

/* Adds to an existing map what it lacks of our paths. */
static int complete_members(struct mp_host *host, int fd, const char *uuid, uint64_t sectors,
                            struct mp_map_path *paths, size_t count, bool multipathd,
                            uint64_t deadline_ns, struct manypath_error *err)
{
    bool *missing = calloc(count, sizeof *missing);
    size_t number = 0;
    int result =
        missing != NULL ? missing_paths(fd, uuid, paths, count, missing, &number) : -ENOMEM;

    if (result == 0 && number > 0)
        result = multipathd ? wait_for_multipathd(host, fd, uuid, paths, count, missing, &number,
                                                  deadline_ns)
                            : reload_with(fd, uuid, sectors, paths, count, deadline_ns);
    free(missing);
    if (result == -ETIMEDOUT)
        return mp_error(err, MANYPATH_E_MAP, MANYPATH_PHASE_MAP, result,
                        "multipathd owns map %s and did not take %zu of our paths into it", uuid,
                        number);
    if (result < 0)
        return mp_map_error(err, MANYPATH_PHASE_MAP, result, uuid, "adding paths to");
    return 0;
}

/* An existing map: waits while its creator is not finished; removes an empty one that nobody
 * finishes. -EAGAIN: it is gone, start over. */
static int wait_for_table(int fd, const char *uuid, uint64_t deadline_ns,
                          struct mp_dm_info *ret_info)
{
    uint64_t until_ns = mp_map_earlier(deadline_ns, mp_now_ns() + MP_MAP_EMPTY_LIMIT);

    for (;;) {
        int result = mp_dm_info(fd, uuid, ret_info);

        if (result == -ENXIO)
            return -EAGAIN;
        if (result < 0 || (ret_info->active_table && !ret_info->suspended))
            return result;
        if (mp_map_wait(until_ns))
            continue;
        if (ret_info->active_table)
            return mp_dm_resume(fd, uuid, MP_MAP_UDEV_FLAGS,
                                true); /* left suspended by a crash: I/O would hang */
        mp_dm_remove(fd, uuid, MP_MAP_UDEV_FLAGS);
        return -EAGAIN;
    }
}

static int list_wwid(const struct mp_host *host, const char *wwid, uint64_t deadline_ns)
{
    char marker[256];

    /* left by a multipathd that once failed to make this map; it would keep udev from seeing the
     * paths as such */
    snprintf(marker, sizeof marker, "/run/multipath/failed_wwids/%s", wwid);
    unlink(marker);
    return mp_wwids_add(host->multipath_dir, wwid, deadline_ns);
}

int mp_map_join(struct mp_host *host, const char *wwid, uint64_t size_bytes,
                struct mp_map_path *paths, size_t path_count, bool join_only, uint64_t deadline_ns,
                struct mp_map *ret_map, struct manypath_error *err)
{
    char uuid[MP_DM_UUID_SIZE];
    struct mp_map map = {.existed = false};
    struct mp_dm_info info;
    char *params = NULL;
    uint64_t sectors = size_bytes / SECTOR;
    int fd = mp_host_dm(host);

    if (fd < 0)
        return mp_map_unusable(fd, err);
    if ((size_t)snprintf(uuid, sizeof uuid, "mpath-%s", wwid) >= sizeof uuid)
        return mp_error(err, MANYPATH_E_IDENTITY, MANYPATH_PHASE_MAP, ENAMETOOLONG,
                        "WWID %s is too long for a map", wwid);
    map.multipathd_running = mp_multipathd_running(host->multipathd_pidfile);
    if (join_only && mp_dm_info(fd, uuid, &info) == -ENXIO)
        return mp_error(err, MANYPATH_E_MAP, MANYPATH_PHASE_MAP, ENXIO,
                        "map %s is not there any more", uuid);
    map.wwid_listed = list_wwid(host, wwid, deadline_ns) == 0;
    int result = build_table(paths, path_count, &params);

    for (int attempt = 0; result == 0 && attempt < ATTEMPTS; attempt++) {
        result = mp_dm_info(fd, uuid, &info);
        if (result == -ENXIO && join_only)
            break;
        if (result == -ENXIO) {
            map.existed = false;
            result = create(fd, wwid, uuid, sectors, params, deadline_ns);
            if (result == 0)
                break;
        } else if (result == 0) {
            map.existed = true;
            result = wait_for_table(fd, uuid, deadline_ns, &info);
            if (result == 0)
                break;
        }
        if (result == -EEXIST || result == -ENXIO || result == -EAGAIN)
            result = attempt + 1 < ATTEMPTS ? 0 : result;
    }
    free(params);
    if (result == -EBUSY)
        return claimed_error(host, paths, path_count, err);
    if (result == -EINVAL && mp_map_supported(host, err) < 0)
        return MANYPATH_E_NO_MULTIPATH; /* the module went since we asked */
    if (result < 0)
        return mp_map_error(err, MANYPATH_PHASE_MAP, result, uuid, "making");
    if (map.existed) {
        result = mp_map_check_type(fd, uuid, err);
        if (result == 0)
            result = check_members(host, fd, uuid, wwid, paths, path_count, map.unchecked, err);
        if (result == 0)
            result = complete_members(host, fd, uuid, sectors, paths, path_count,
                                      map.multipathd_running, deadline_ns, err);
        if (result < 0)
            return result;
    }
    result = mp_dm_info(fd, uuid, &info);
    if (result < 0)
        return mp_map_error(err, MANYPATH_PHASE_MAP, result, uuid, "reading back");
    mp_map_read_states(fd, uuid, paths, path_count);
    map.dev = info.dev;
    mp_copy(map.name, sizeof map.name, info.name);
    snprintf(map.device, sizeof map.device, "dm-%u", minor(info.dev));
    if (mp_sysfs_block_size(host->sysfs_root, map.device, &map.size_bytes) < 0)
        map.size_bytes = size_bytes;
    *ret_map = map;
    return 0;
}
