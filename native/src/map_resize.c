/* SPDX-License-Identifier: Apache-2.0 */
/* Making a map longer. */
#include "dm.h"
#include "dm_table.h"
#include "error.h"
#include "fault.h"
#include "map.h"
#include "map_util.h"
#include "multipathd.h"
#include "sysfs.h"
#include "waiting.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sysmacros.h>

enum { SECTOR = 512 };

struct resize {
    struct mp_host *host;
    int fd;
    const char *uuid;
    char device[MANYPATH_DEVICE_SIZE];
    uint64_t size_bytes;
    struct mp_map_path *paths;
    size_t path_count;
    uint64_t deadline_ns;
    size_t short_count;
    dev_t *short_members; /* they have to leave the map first */
};

static struct mp_map_path *path_of(const struct resize *resize, dev_t dev)
{
    for (size_t i = 0; i < resize->path_count; i++)
        if (resize->paths[i].dev == dev)
            return &resize->paths[i];
    return NULL;
}

/* The size as the kernel has it; "" as the name: the disk is gone. */
static int size_of_member(const struct resize *resize, dev_t dev, char *ret_name,
                          uint64_t *ret_bytes)
{
    const char *root = resize->host->sysfs_root;
    int result = mp_sysfs_block_name(root, dev, ret_name, MANYPATH_DEVICE_SIZE);

    if (result == 0)
        result = mp_sysfs_block_size(root, ret_name, ret_bytes);
    if (result < 0)
        ret_name[0] = '\0';
    return result == -ENOENT ? 0 : result;
}

/* The kernel takes no table that is longer than one of its disks (dm-table.c
 * device_area_is_invalid). Members that have another size leave the map if they are down or gone; if
 * they answer, the map stays as it is. */
static int find_short_members(struct resize *resize, struct manypath_error *err)
{
    size_t count = 0;

    free(resize->short_members);
    resize->short_members = NULL;
    resize->short_count = 0;
    int result = mp_dm_deps(resize->fd, resize->uuid, &resize->short_members, &count);

    if (result < 0)
        return mp_map_error(err, MANYPATH_PHASE_RESIZE, result, resize->uuid,
                            "reading the members of");
    for (size_t i = 0; i < count; i++) {
        dev_t dev = resize->short_members[i];
        struct mp_map_path *path = path_of(resize, dev);
        char name[MANYPATH_DEVICE_SIZE];
        uint64_t bytes = 0;

        result = size_of_member(resize, dev, name, &bytes);
        if (result < 0)
            return mp_map_error(err, MANYPATH_PHASE_RESIZE, result, resize->uuid,
                                "reading the members of");
        if (name[0] != '\0' && bytes == resize->size_bytes)
            continue;
        if (name[0] != '\0' && (path == NULL || path->state != MANYPATH_PATH_FAILED))
            return mp_error(err, MANYPATH_E_MAP, MANYPATH_PHASE_RESIZE, 0,
                            "%s has a member %s of %" PRIu64 " bytes beside those of %" PRIu64
                            "; it was not resized, extend again",
                            resize->device, name, bytes, resize->size_bytes);
        resize->short_members[resize->short_count++] = dev;
        if (path != NULL)
            path->removed = true;
    }
    if (resize->short_count == count)
        return mp_error(err, MANYPATH_E_MAP, MANYPATH_PHASE_RESIZE, 0,
                        "%s has no member of %" PRIu64 " bytes any more; it was not resized",
                        resize->device, resize->size_bytes);
    return 0;
}

/* No daemon owns the table: the same once more, longer. udev is told to look at the map, other than
 * when paths come and go, because its size is new. */
static int load_longer(const struct resize *resize)
{
    char type[16];
    char *table = NULL, *params = NULL;
    int result = mp_dm_table(resize->fd, resize->uuid, type, &table);

    if (result == 0)
        result = mp_table_without(table, resize->short_members, resize->short_count, &params);
    if (result == 0)
        result = mp_map_load(resize->fd, resize->uuid, resize->size_bytes / SECTOR, params,
                             MP_MAP_UDEV_FLAGS, true, resize->deadline_ns);
    free(params);
    free(table);
    return result;
}

/* By "dm-N", since multipathd before 0.9.8 finds maps by alias or number only. It takes the size of
 * the first path (before 0.9.7) or refuses if they differ: so short members go first. */
static int ask_for_longer(const struct resize *resize)
{
    for (size_t i = 0; i < resize->short_count; i++) {
        char name[MANYPATH_DEVICE_SIZE];
        uint64_t bytes;

        if (size_of_member(resize, resize->short_members[i], name, &bytes) == 0 &&
            name[0] != '\0') /* multipathd takes out by itself what is gone */
            mp_map_ask_multipathd(resize->host, "del path", name, resize->deadline_ns);
    }
    MP_FAULT("extend.paths_left");
    return mp_map_ask_multipathd(resize->host, "resize map", resize->device, resize->deadline_ns);
}

static int not_longer(const struct resize *resize, int answer, struct manypath_error *err)
{
    const char *said = answer == 0            ? "it says that it did"
                       : answer == -EAGAIN    ? "it is too busy"
                       : answer == -ENODEV    ? "it does not know the map"
                       : answer == -ETIMEDOUT ? "it does not answer"
                                              : "it refuses";
    bool removed = false;

    for (size_t i = 0; i < resize->path_count; i++)
        removed = removed || resize->paths[i].removed;
    return mp_error(err, MANYPATH_E_MAP, MANYPATH_PHASE_RESIZE, answer,
                    "multipathd owns %s and did not resize it to %" PRIu64 " bytes: %s%s",
                    resize->device, resize->size_bytes, said,
                    removed ? "; paths that do not answer were taken out of it before" : "");
}

/* Until sysfs shows the size. multipathd's answer is no proof, and a failure may be a passing one
 * (it is busy, or has not taken the map over yet): it is asked again each second, and tells nobody
 * when it is ready. */
static int resize_map(struct resize *resize, bool *ret_multipathd, struct manypath_error *err)
{
    uint64_t ask_ns = 0;
    int answer = 0;

    for (;;) {
        uint64_t bytes = 0;
        int result = mp_sysfs_block_size(resize->host->sysfs_root, resize->device, &bytes);

        if (result < 0)
            return mp_map_error(err, MANYPATH_PHASE_RESIZE, result, resize->uuid, "reading back");
        *ret_multipathd = mp_multipathd_running(resize->host->multipathd_pidfile);
        if (bytes == resize->size_bytes)
            return 0;
        if (bytes > resize->size_bytes)
            return mp_error(err, MANYPATH_E_MAP, MANYPATH_PHASE_RESIZE, 0,
                            "somebody else made %s %" PRIu64 " bytes long meanwhile; extend again",
                            resize->device, bytes);
        if (mp_now_ns() >= ask_ns) {
            result = find_short_members(resize, err);
            if (result < 0)
                return result;
            answer = *ret_multipathd ? ask_for_longer(resize) : load_longer(resize);
            if (!*ret_multipathd && answer < 0)
                return mp_map_error(err, MANYPATH_PHASE_RESIZE, answer, resize->uuid, "resizing");
            ask_ns = mp_now_ns() + MP_MAP_ASK_AFTER;
        } else if (!mp_wait_turn(resize->deadline_ns)) {
            return not_longer(resize, answer, err);
        }
    }
}

int mp_map_resize(struct mp_host *host, const char *uuid, uint64_t size_bytes,
                  struct mp_map_path *paths, size_t path_count, uint64_t deadline_ns,
                  bool *ret_multipathd, struct manypath_error *err)
{
    struct resize resize = {.host = host,
                            .uuid = uuid,
                            .size_bytes = size_bytes,
                            .paths = paths,
                            .path_count = path_count,
                            .deadline_ns = deadline_ns};
    struct mp_dm_info info;

    resize.fd = mp_host_dm(host);
    if (resize.fd < 0)
        return mp_map_unusable(resize.fd, err);
    int result = mp_dm_info(resize.fd, uuid, &info);

    if (result < 0)
        return mp_map_error(err, MANYPATH_PHASE_RESIZE, result, uuid, "looking up");
    snprintf(resize.device, sizeof resize.device, "dm-%u", minor(info.dev));
    result = mp_map_check_type(resize.fd, uuid, err);
    if (result == 0)
        result = resize_map(&resize, ret_multipathd, err);
    if (result == 0)
        mp_map_read_states(resize.fd, uuid, paths, path_count);
    free(resize.short_members);
    return result;
}
