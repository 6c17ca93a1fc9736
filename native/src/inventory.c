/* SPDX-License-Identifier: Apache-2.0 */
/* What is on the host, for people who debug. Reads only. */
#include "dm.h"
#include "dm_table.h"
#include "engine.h"
#include "error.h"
#include "sysfs.h"
#include "text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

static int add_disks(struct manypath_inventory *inventory, const char *root,
                     const struct mp_session *session)
{
    struct mp_disk *disks = NULL;
    size_t count = 0;

    if (mp_sysfs_session_disks(root, session->host, session->sid, &disks, &count) < 0 || count == 0)
        return 0; /* the session went while we looked */
    struct manypath_disk_info *all =
        realloc(inventory->disks, (inventory->disk_count + count) * sizeof *all);

    if (all == NULL) {
        free(disks);
        return -ENOMEM;
    }
    inventory->disks = all;
    for (size_t i = 0; i < count; i++) {
        struct manypath_disk_info *info = &all[inventory->disk_count++];

        memset(info, 0, sizeof *info);
        info->sid = session->sid;
        info->host = disks[i].host;
        info->channel = disks[i].channel;
        info->target = disks[i].target;
        info->lun = disks[i].lun;
        info->size_bytes = disks[i].size_bytes;
        mp_copy(info->device, sizeof info->device, disks[i].name);
        mp_copy(info->state, sizeof info->state, disks[i].state);
    }
    free(disks);
    return 0;
}

static int read_sessions(struct manypath_inventory *inventory, const char *root)
{
    struct mp_session *sessions = NULL;
    size_t count = 0;
    int result = mp_sysfs_sessions(root, &sessions, &count);

    if (result == -ENOENT)
        return 0; /* the iSCSI modules are not loaded */
    if (result < 0)
        return result;
    inventory->sessions = calloc(count + 1, sizeof *inventory->sessions);
    if (inventory->sessions == NULL)
        result = -ENOMEM;
    for (size_t i = 0; i < count && result == 0; i++) {
        struct manypath_session_info *info = &inventory->sessions[inventory->session_count++];

        info->sid = sessions[i].sid;
        info->host = sessions[i].host;
        info->port = sessions[i].portal.port;
        mp_copy(info->iqn, sizeof info->iqn, sessions[i].iqn);
        mp_copy(info->address, sizeof info->address, sessions[i].address_text);
        mp_copy(info->state, sizeof info->state, sessions[i].state_text);
        result = add_disks(inventory, root, &sessions[i]);
    }
    free(sessions);
    return result;
}

static struct manypath_disk_info *disk_by_name(struct manypath_inventory *inventory,
                                               const char *name)
{
    for (size_t i = 0; i < inventory->disk_count; i++)
        if (strcmp(inventory->disks[i].device, name) == 0)
            return &inventory->disks[i];
    return NULL;
}

static void note_members(struct manypath_inventory *inventory, const char *root,
                         const struct manypath_map_info *map, const struct mp_table *table)
{
    for (size_t i = 0; i < table->path_count; i++) {
        char name[MANYPATH_DEVICE_SIZE];

        if (mp_sysfs_block_name(root, table->paths[i].dev, name, sizeof name) < 0)
            continue;
        struct manypath_disk_info *disk = disk_by_name(inventory, name);

        if (disk == NULL)
            continue;
        mp_copy(disk->map, sizeof disk->map, map->device);
        disk->path_state = table->paths[i].active ? MANYPATH_PATH_ACTIVE : MANYPATH_PATH_INACTIVE;
    }
}

static void read_map(struct manypath_inventory *inventory, int fd, const char *root,
                     const struct mp_dm_info *info)
{
    struct manypath_map_info *map = &inventory->maps[inventory->map_count++];
    char type[16];
    char *params = NULL;
    struct mp_table table;

    snprintf(map->device, sizeof map->device, "dm-%u", minor(info->dev));
    mp_copy(map->name, sizeof map->name, info->name);
    mp_copy(map->wwid, sizeof map->wwid, info->uuid + strlen("mpath-"));
    map->open_count = info->open_count > 0 ? (uint32_t)info->open_count : 0;
    mp_sysfs_block_size(root, map->device, &map->size_bytes);
    if (mp_dm_status(fd, info->uuid, type, &params) == 0 && strcmp(type, "multipath") == 0 &&
        mp_table_parse_status(params, &table) == 0) {
        map->path_count = (uint32_t)table.path_count;
        for (size_t i = 0; i < table.path_count; i++)
            map->active_path_count += table.paths[i].active;
        note_members(inventory, root, map, &table);
        mp_table_free(&table);
    }
    free(params);
}

static int read_maps(struct manypath_inventory *inventory, struct mp_host *host)
{
    struct mp_dm_info *maps = NULL;
    size_t count = 0;
    int fd = mp_host_dm(host);

    if (fd < 0 || mp_dm_list(fd, "mpath-", &maps, &count) < 0)
        return 0; /* maps_known stays false */
    inventory->maps = calloc(count + 1, sizeof *inventory->maps);
    if (inventory->maps == NULL) {
        free(maps);
        return -ENOMEM;
    }
    for (size_t i = 0; i < count; i++)
        read_map(inventory, fd, host->sysfs_root, &maps[i]);
    inventory->maps_known = true;
    free(maps);
    return 0;
}

int manypath_inventory_read(struct manypath *handle, struct manypath_inventory **ret_inventory,
                            struct manypath_error *err)
{
    struct manypath_inventory *inventory = calloc(1, sizeof *inventory);
    int result = -ENOMEM;

    if (inventory != NULL)
        result = read_sessions(inventory, handle->host->sysfs_root);
    if (result == 0)
        result = read_maps(inventory, handle->host);
    if (result < 0) {
        manypath_inventory_free(inventory);
        return mp_error(err, MANYPATH_E_SYSTEM, MANYPATH_PHASE_PREPARE, result,
                        "reading the host's sessions and maps failed with errno %d", -result);
    }
    *ret_inventory = inventory;
    return 0;
}

void manypath_inventory_free(struct manypath_inventory *inventory)
{
    if (inventory == NULL)
        return;
    free(inventory->sessions);
    free(inventory->disks);
    free(inventory->maps);
    free(inventory);
}
