/* SPDX-License-Identifier: Apache-2.0 */
#include "map_heal.h"

#include "dm.h"
#include "dm_table.h"
#include "identity.h"
#include "map_groups.h"
#include "map_util.h"
#include "multipathd.h"
#include "queueing.h"
#include "scsi.h"
#include "sysfs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum { READY_TIMEOUT_MS = 2000 };
#define PRIORITY_LIMIT (4000 * MP_MAP_MS)

struct heal {
    struct mp_host *host;
    int fd;
    const char *wwid;
    const char *uuid;
    struct mp_map_health *health;
};

static int read_status(const struct heal *heal, struct mp_table *ret_table)
{
    char type[16];
    char *params = NULL;
    int result = mp_dm_status(heal->fd, heal->uuid, type, &params);

    if (result == 0)
        result = strcmp(type, "multipath") == 0 ? mp_table_parse_status(params, ret_table)
                                                : -EMEDIUMTYPE;
    free(params);
    return result;
}

/* multipathd may have come since the look began. */
static bool tell(const struct heal *heal, const char *message)
{
    return !mp_multipathd_running(heal->host->multipathd_pidfile) &&
           mp_dm_message(heal->fd, heal->uuid, message) == 0;
}

/* ---- one path ---- */

/* What costs no command: a session that is down, or a disk that is blocked or offline, would only make
 * one wait. */
static bool is_up(const struct mp_host *host, const char *name)
{
    enum mp_session_state session;
    char state[24];
    int32_t sid, scsi_host;
    uint64_t lun;

    return mp_sysfs_disk_place(host->sysfs_root, name, &sid, &scsi_host, &lun) == 0 &&
           mp_sysfs_session_state(host->sysfs_root, sid, &session) == 0 &&
           session == MP_SESSION_LOGGED_IN &&
           mp_sysfs_disk_attribute(host->sysfs_root, name, "state", state, sizeof state) == 0 &&
           strcmp(state, "running") == 0;
}

static bool is_ready(const struct mp_host *host, const char *name)
{
    char path[PATH_MAX];

    if ((size_t)snprintf(path, sizeof path, "%s/%s", host->dev_root, name) >= sizeof path)
        return false;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0)
        return false;
    int result = mp_scsi_test_unit_ready(fd, READY_TIMEOUT_MS);

    close(fd);
    return result == 0;
}

/* Its identity is asked last, right before it is used again: a LUN may have been given to another
 * volume while it was away. */
static bool is_the_same(const struct heal *heal, const char *name, dev_t dev)
{
    struct mp_identity identity;

    if (mp_identity_read(heal->host, name, dev, &identity, NULL) < 0)
        return false;
    if (strcmp(identity.wwid, heal->wwid) == 0)
        return true;
    mp_copy(heal->health->other, sizeof heal->health->other, name);
    return false;
}

static bool reinstate(const struct heal *heal, dev_t dev)
{
    char name[MANYPATH_DEVICE_SIZE];
    char message[64];

    if (mp_sysfs_block_name(heal->host->sysfs_root, dev, name, sizeof name) < 0 ||
        !is_up(heal->host, name) || !is_ready(heal->host, name) || !is_the_same(heal, name, dev))
        return false;
    snprintf(message, sizeof message, "reinstate_path %u:%u", major(dev), minor(dev));
    if (!tell(heal, message)) /* nor if it has left the table meanwhile */
        return false;
    char *healed = heal->health->healed;
    size_t used = strlen(healed);

    snprintf(healed + used, sizeof heal->health->healed - used, "%s%s", used > 0 ? ", " : "", name);
    return true;
}

/* ---- groups ---- */

/* One working path of each group; false for a group that has none. */
static bool working_path(const struct heal *heal, const struct mp_table *table, uint32_t group,
                         struct mp_map_path *ret_path)
{
    for (size_t i = 0; i < table->path_count; i++) {
        const struct mp_table_path *path = &table->paths[i];
        struct mp_map_path found = {.dev = path->dev, .fd = -1};

        if (path->group != group || !path->active ||
            mp_sysfs_block_name(heal->host->sysfs_root, path->dev, found.name, sizeof found.name) <
                0)
            continue;
        *ret_path = found;
        return true;
    }
    return false;
}

/* A working path of the group with the highest priority, of the present one if that is as good as any.
 * False: none works. */
static bool best_path(const struct heal *heal, const struct mp_table *table, dev_t *ret_dev)
{
    struct mp_map_path *paths = calloc(table->group_count, sizeof *paths);
    uint32_t *groups = calloc(table->group_count, sizeof *groups);
    int *priorities = calloc(table->group_count, sizeof *priorities);
    size_t count = 0, best = 0;

    if (paths != NULL && groups != NULL && priorities != NULL) {
        for (uint32_t group = 1; group <= table->group_count; group++)
            if (working_path(heal, table, group, &paths[count]))
                groups[count++] = group;
        mp_map_read_priorities(heal->host, paths, count, mp_now_ns() + PRIORITY_LIMIT, priorities);
        for (size_t i = 1; i < count; i++)
            if (priorities[i] > priorities[best] ||
                (priorities[i] == priorities[best] && groups[i] == table->group))
                best = i;
        if (count > 0)
            *ret_dev = paths[best].dev;
    }
    free(paths);
    free(groups);
    free(priorities);
    return count > 0;
}

/* The group that this working path is in; 0: in none. */
static uint32_t group_of(const struct mp_table *table, dev_t dev)
{
    for (size_t i = 0; i < table->path_count; i++)
        if (table->paths[i].dev == dev && table->paths[i].active)
            return table->paths[i].group;
    return 0;
}

/* I/O stays where it went when the better paths were down, unless it is told to go back. The target
 * takes its time to tell priorities: the group is known by its path, and looked up afterwards. */
static void fail_back(const struct heal *heal)
{
    struct mp_table table;
    char message[32];
    dev_t best = 0;

    if (read_status(heal, &table) < 0)
        return;
    bool found = table.group_count > 1 && best_path(heal, &table, &best);

    mp_table_free(&table);
    if (!found || read_status(heal, &table) < 0)
        return;
    uint32_t group = group_of(&table, best);

    if (group != 0 && group != table.group) {
        snprintf(message, sizeof message, "switch_group %u", group);
        if (tell(heal, message))
            heal->health->group = group;
    }
    mp_table_free(&table);
}

static void end_queueing(const struct heal *heal, bool stop)
{
    struct mp_queueing queueing = {.on = false};

    if (mp_queueing_read(heal->fd, heal->uuid, &queueing) < 0 || !queueing.on)
        return;
    heal->health->queueing_stopped = stop && mp_queueing_end(heal->host, heal->fd, heal->uuid);
    heal->health->queueing = !heal->health->queueing_stopped;
}

void mp_map_heal(struct mp_host *host, const char *wwid, bool stop_queueing,
                 struct mp_map_health *ret_health)
{
    struct mp_map_health health = {.gone = false};
    char uuid[MP_DM_UUID_SIZE];
    struct heal heal = {
        .host = host, .fd = mp_host_dm(host), .wwid = wwid, .uuid = uuid, .health = &health};
    struct mp_table table;

    snprintf(uuid, sizeof uuid, "mpath-%s", wwid);
    health.error = heal.fd < 0 ? heal.fd : read_status(&heal, &table);
    if (health.error < 0) {
        health.gone = heal.fd >= 0 && health.error == -ENXIO;
        *ret_health = health;
        return;
    }
    health.multipathd_running = mp_multipathd_running(host->multipathd_pidfile);
    if (!health.multipathd_running)
        end_queueing(&heal, stop_queueing);
    for (size_t i = 0; i < table.path_count; i++) {
        if (table.paths[i].active)
            continue;
        bool healed = !health.multipathd_running && reinstate(&heal, table.paths[i].dev);

        health.reinstated += healed;
        health.failed += !healed;
    }
    if (!health.multipathd_running && table.group_count > 1)
        fail_back(&heal);
    mp_table_free(&table);
    *ret_health = health;
}
