/* SPDX-License-Identifier: Apache-2.0 */
/* Removing a map, or letting go of a disk without one. */
#include "dm.h"
#include "error.h"
#include "map.h"
#include "map_util.h"
#include "multipathd.h"
#include "sysfs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define NOTHING_REMOVED "nothing was removed"

static int in_use(const struct mp_host *host, const char *device, int open_count,
                  const char *outcome, struct manypath_error *err)
{
    char holders[128];

    mp_map_describe_holders(host, device, holders, sizeof holders);
    return mp_error(err, MANYPATH_E_IN_USE, MANYPATH_PHASE_UNMAP, EBUSY,
                    "%s is in use (%d open) by %s; %s", device, open_count, holders, outcome);
}

/* Writes back what the page cache holds for this block device. Opened read-only: closing a writable
 * descriptor would make udev probe the device. */
static int flush(const struct mp_host *host, const char *device, struct manypath_error *err)
{
    char path[PATH_MAX];
    int result = 0;

    snprintf(path, sizeof path, "%s/%s", host->dev_root, device);
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fsync(fd) < 0)
        result = mp_error(err, MANYPATH_E_FLUSH, MANYPATH_PHASE_FLUSH, errno,
                          "flushing %s failed with errno %d; nothing was removed", path, errno);
    if (fd >= 0)
        close(fd);
    return result;
}

static int remove_map(struct mp_host *host, int fd, const char *uuid, const char *wwid,
                      const char *device, uint64_t until_ns, uint64_t deadline_ns,
                      const char *outcome, struct manypath_error *err)
{
    struct mp_dm_info info;
    int result;

    /* through the daemon first, so that it does not mistake our removal for a fault; the map's uuid
     * decides */
    if (mp_multipathd_running(host->multipathd_pidfile))
        mp_map_ask_multipathd(host, "del map", wwid, deadline_ns);
    for (;;) {
        result = mp_dm_info(fd, uuid, &info);
        if (result == -ENXIO)
            return 0;
        if (result == 0)
            result = mp_dm_remove(fd, uuid, MP_MAP_UDEV_FLAGS);
        if (result == 0 || result == -ENXIO)
            continue; /* look once more */
        if (result != -EBUSY)
            return mp_map_error(err, MANYPATH_PHASE_UNMAP, result, uuid, "removing");
        if (!mp_map_wait(until_ns))
            return in_use(host, device, info.open_count, outcome, err);
    }
}

int mp_map_remove(struct mp_host *host, const char *uuid, uint64_t deadline_ns,
                  struct mp_unmap_times *ret_times, struct manypath_error *err)
{
    const char *wwid = strncmp(uuid, "mpath-", 6) == 0 ? uuid + 6 : uuid;
    char device[MANYPATH_DEVICE_SIZE];
    uint64_t until_ns = mp_map_earlier(deadline_ns, mp_now_ns() + MP_MAP_BUSY_LIMIT);
    struct mp_dm_info info;
    int fd = mp_host_dm(host);

    if (fd < 0)
        return mp_map_unusable(fd, err);
    ret_times->flushed_ns = mp_now_ns();
    for (;;) {
        int result = mp_dm_info(fd, uuid, &info);

        if (result == -ENXIO)
            return 0;
        if (result < 0)
            return mp_map_error(err, MANYPATH_PHASE_UNMAP, result, uuid, "looking up");
        snprintf(device, sizeof device, "dm-%u", minor(info.dev));
        if (info.open_count == 0)
            break;
        if (!mp_map_wait(until_ns))
            return in_use(host, device, info.open_count, NOTHING_REMOVED, err);
    }
    int result = flush(host, device, err);

    ret_times->flushed_ns = mp_now_ns();
    if (result == 0)
        result =
            remove_map(host, fd, uuid, wwid, device, until_ns, deadline_ns, NOTHING_REMOVED, err);
    return result;
}

/* Every disk in its table, and there is one. */
static int members_are_gone(const struct mp_host *host, int fd, const char *uuid, bool *ret_gone)
{
    char name[MANYPATH_DEVICE_SIZE];
    dev_t *devs = NULL;
    size_t count = 0;
    int result = mp_dm_deps(fd, uuid, &devs, &count);

    *ret_gone = result == 0 && count > 0;
    for (size_t i = 0; i < count && *ret_gone; i++)
        *ret_gone = mp_sysfs_block_name(host->sysfs_root, devs[i], name, sizeof name) == -ENOENT;
    free(devs);
    return result;
}

int mp_map_remove_orphan(struct mp_host *host, const char *uuid, uint64_t deadline_ns,
                         struct manypath_error *err)
{
    const char *wwid = strncmp(uuid, "mpath-", 6) == 0 ? uuid + 6 : uuid;
    uint64_t until_ns = mp_map_earlier(deadline_ns, mp_now_ns() + MP_MAP_BUSY_LIMIT);
    uint64_t empty_until_ns = mp_map_earlier(deadline_ns, mp_now_ns() + MP_MAP_EMPTY_LIMIT);
    char device[MANYPATH_DEVICE_SIZE];
    struct mp_dm_info info;
    bool gone = false;
    int result, fd = mp_host_dm(host);

    if (fd < 0)
        return mp_map_unusable(fd, err);
    do /* its creator, between CREATE and RESUME, either finishes or finds the disks gone */
        result = mp_dm_info(fd, uuid, &info);
    while (result == 0 && !info.active_table && mp_map_wait(empty_until_ns));
    if (result == 0 && info.active_table)
        result = members_are_gone(host, fd, uuid, &gone);
    if (result == -ENXIO || (result == 0 && !gone))
        return 0;
    if (result < 0)
        return mp_map_error(err, MANYPATH_PHASE_UNMAP, result, uuid, "looking up");
    snprintf(device, sizeof device, "dm-%u", minor(info.dev));
    mp_dm_message(fd, uuid, "fail_if_no_path"); /* udev's probing must not hang in it */
    return remove_map(host, fd, uuid, wwid, device, until_ns, deadline_ns,
                      "multipathd made it again, and its disks are gone", err);
}

int mp_map_discard(struct mp_host *host, const char *uuid, uint64_t deadline_ns,
                   struct manypath_error *err)
{
    const char *wwid = strncmp(uuid, "mpath-", 6) == 0 ? uuid + 6 : uuid;
    char device[MANYPATH_DEVICE_SIZE];
    char holder[1][MANYPATH_DEVICE_SIZE];
    size_t holders = 0;
    struct mp_dm_info info;
    int fd = mp_host_dm(host);

    if (fd < 0)
        return mp_map_unusable(fd, err);
    for (;;) {
        int result = mp_dm_info(fd, uuid, &info);

        if (result == -ENXIO)
            return 0;
        if (result < 0)
            return mp_map_error(err, MANYPATH_PHASE_UNMAP, result, uuid, "looking up");
        snprintf(device, sizeof device, "dm-%u", minor(info.dev));
        if (mp_sysfs_holders(host->sysfs_root, device, holder, 1, &holders) < 0)
            holders = 0;
        if (info.open_count == 0 && holders == 0)
            break;
        if (holders > 0 || !mp_map_wait(deadline_ns)) /* udev opens it for moments */
            return in_use(host, device, info.open_count, NOTHING_REMOVED, err);
    }
    return remove_map(host, fd, uuid, wwid, device, deadline_ns, deadline_ns, NOTHING_REMOVED, err);
}

int mp_disk_release(struct mp_host *host, const char *name, uint64_t deadline_ns,
                    struct manypath_error *err)
{
    char path[PATH_MAX];
    uint64_t until_ns = mp_map_earlier(deadline_ns, mp_now_ns() + MP_MAP_BUSY_LIMIT);
    int fd;

    snprintf(path, sizeof path, "%s/%s", host->dev_root, name);
    /* exclusive: fails while a file system, a map or another exclusive user has it */
    while ((fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC)) < 0 && errno == EBUSY &&
           mp_map_wait(until_ns))
        ;
    if (fd < 0) {
        char holders[128];

        if (errno == ENOENT || errno == ENXIO || errno == ENODEV)
            return 0; /* gone, or without a medium: nothing can be cached for it */
        if (errno != EBUSY)
            return mp_error(err, MANYPATH_E_FLUSH, MANYPATH_PHASE_FLUSH, errno,
                            "cannot open %s to flush it: errno %d; nothing was removed", path,
                            errno);
        mp_map_describe_holders(host, name, holders, sizeof holders);
        return mp_error(err, MANYPATH_E_IN_USE, MANYPATH_PHASE_UNMAP, EBUSY,
                        "%s is in use by %s; nothing was removed", name, holders);
    }
    int result = fsync(fd) < 0 ? -errno : 0;

    close(fd);
    if (result < 0)
        return mp_error(err, MANYPATH_E_FLUSH, MANYPATH_PHASE_FLUSH, result,
                        "flushing %s failed with errno %d; nothing was removed", path, -result);
    return 0;
}
