/* SPDX-License-Identifier: Apache-2.0 */
/* One map for a volume: made, or joined if it exists. */
#include "dm.h"
#include "error.h"
#include "fault.h"
#include "map_steps.h"
#include "multipathd.h"
#include "sysfs.h"
#include "waiting.h"
#include "wwids.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum {
    SECTOR = 512,
    /* Others may make the map at the same time, and multipathd removes an empty one that is in its way:
     * each attempt is one turn of somebody else's. */
    ATTEMPTS = 5,
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
        if (mp_wait_turn(until_ns))
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
    char marker[PATH_MAX];

    /* left by a multipathd that once failed to make this map; it would keep udev from seeing the
     * paths as such */
    if ((size_t)snprintf(marker, sizeof marker, "%s/failed_wwids/%s", host->multipath_run_dir,
                         wwid) < sizeof marker)
        unlink(marker);
    /* a map can do without, so whoever has the file locked is not waited for long */
    return mp_wwids_add(host->multipath_dir, wwid,
                        mp_map_earlier(deadline_ns, mp_now_ns() + MP_MAP_ASK_AFTER));
}

static int gone_error(const struct mp_map_join *join, struct manypath_error *err)
{
    return mp_error(err, MANYPATH_E_MAP, MANYPATH_PHASE_MAP, ENXIO, "map %s is not there any more",
                    join->uuid);
}

static void set_device(const struct mp_map_join *join, const struct mp_dm_info *info,
                       struct mp_map *map)
{
    map->dev = info->dev;
    mp_copy(map->name, sizeof map->name, info->name);
    snprintf(map->device, sizeof map->device, "dm-%u", minor(info->dev));
    if (mp_sysfs_block_size(join->host->sysfs_root, map->device, &map->size_bytes) < 0)
        map->size_bytes = join->sectors * SECTOR;
}

static int join_existing(const struct mp_map_join *join, struct mp_map *map,
                         struct manypath_error *err)
{
    struct mp_dm_info info;
    int result = wait_for_table(join->fd, join->uuid, join->deadline_ns, &info);

    if (result == 0) {
        set_device(join, &info, map);
        result = mp_map_check_type(join->fd, join->uuid, err);
        if (result < 0 && mp_dm_info(join->fd, join->uuid, &info) == -ENXIO)
            result = MP_MAP_AGAIN;
        return result < 0 ? result : mp_map_add_paths(join, map, err);
    }
    if (result == -ENXIO || result == -EAGAIN)
        return MP_MAP_AGAIN;
    return mp_map_error(err, MANYPATH_PHASE_MAP, result, join->uuid, "looking up");
}

/* One look at what is there, and what follows from it. */
static int make_or_join(const struct mp_map_join *join, bool join_only, struct mp_map *map,
                        struct manypath_error *err)
{
    struct mp_dm_info info;
    int result = mp_dm_info(join->fd, join->uuid, &info);

    map->existed = result == 0;
    if (result == 0)
        return join_existing(join, map, err);
    if (result != -ENXIO)
        return mp_map_error(err, MANYPATH_PHASE_MAP, result, join->uuid, "looking up");
    return join_only ? gone_error(join, err) : mp_map_create(join, err);
}

int mp_map_join(struct mp_host *host, const char *wwid, uint64_t size_bytes,
                struct mp_map_path *paths, size_t path_count, bool join_only, bool skip_kpartx,
                uint64_t deadline_ns, struct mp_map *ret_map, struct manypath_error *err)
{
    char uuid[MP_DM_UUID_SIZE];
    struct mp_map map = {.existed = false};
    struct mp_dm_info info;
    struct mp_map_join join = {.host = host,
                               .fd = mp_host_dm(host),
                               .wwid = wwid,
                               .uuid = uuid,
                               .sectors = size_bytes / SECTOR,
                               .paths = paths,
                               .path_count = path_count,
                               .skip_kpartx = skip_kpartx,
                               .deadline_ns = deadline_ns};
    int result = MP_MAP_AGAIN;

    if (join.fd < 0)
        return mp_map_unusable(join.fd, err);
    if ((size_t)snprintf(uuid, sizeof uuid, "mpath-%s", wwid) >= sizeof uuid)
        return mp_error(err, MANYPATH_E_IDENTITY, MANYPATH_PHASE_MAP, ENAMETOOLONG,
                        "WWID %s is too long for a map", wwid);
    if (join_only && mp_dm_info(join.fd, uuid, &info) == -ENXIO)
        return gone_error(&join, err);
    MP_FAULT("map.wanted");
    map.wwid_listed = list_wwid(host, wwid, deadline_ns) == 0;
    MP_FAULT("map.wwid_listed");
    for (int attempt = 0; result == MP_MAP_AGAIN; attempt++) {
        if (attempt == ATTEMPTS || (attempt > 0 && mp_now_ns() >= deadline_ns))
            return mp_error(err, MANYPATH_E_MAP, MANYPATH_PHASE_MAP, EAGAIN,
                            "map %s came and went %d times while it was made; somebody removes it",
                            uuid, attempt);
        for (size_t i = 0; i < path_count; i++)
            paths[i].kept_out = false; /* of another map */
        result = make_or_join(&join, join_only, &map, err);
    }
    if (result < 0)
        return result;
    result = mp_dm_info(join.fd, uuid, &info);
    if (result < 0)
        return mp_map_error(err, MANYPATH_PHASE_MAP, result, uuid, "reading back");
    set_device(&join, &info, &map);
    map.multipathd_running = mp_multipathd_running(host->multipathd_pidfile);
    map.well = mp_map_read_states(join.fd, uuid, paths, path_count);
    MP_FAULT("map.joined");
    *ret_map = map;
    return 0;
}
