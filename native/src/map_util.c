/* SPDX-License-Identifier: Apache-2.0 */
#include "map_util.h"

#include "dm.h"
#include "dm_table.h"
#include "error.h"
#include "fault.h"
#include "multipathd.h"
#include "waiting.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *mp_map_wwid(const char *uuid)
{
    return strncmp(uuid, "mpath-", 6) == 0 ? uuid + 6 : uuid;
}

uint64_t mp_map_earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

int mp_map_unusable(int result, struct manypath_error *err)
{
    if (result == -EACCES || result == -EPERM)
        return mp_error(
            err, MANYPATH_E_PERMISSION, MANYPATH_PHASE_MAP, result,
            "device-mapper refuses this process: it must run as root with CAP_SYS_ADMIN");
    return mp_error(err, MANYPATH_E_NO_MULTIPATH, MANYPATH_PHASE_MAP, result,
                    "the kernel offers no device-mapper (errno %d); load the module dm_mod",
                    -result);
}

int mp_map_error(struct manypath_error *err, int phase, int result, const char *uuid,
                 const char *doing)
{
    if (result == -EACCES || result == -EPERM)
        return mp_map_unusable(result, err);
    return mp_error(err, MANYPATH_E_MAP, phase, result, "%s map %s failed: errno %d", doing, uuid,
                    -result);
}

/* Loads and resumes a table; waits out moments in which udev or LVM probe a path. */
int mp_map_load(int fd, const char *uuid, uint64_t sectors, const char *params, uint32_t udev_flags,
                bool reload, uint64_t deadline_ns)
{
    uint64_t until_ns = mp_map_earlier(deadline_ns, mp_now_ns() + MP_MAP_BUSY_LIMIT);
    bool read_only = false;
    int result;

    for (;;) {
        result = mp_dm_load(fd, uuid, sectors, "multipath", params, read_only);
        if (result == -EROFS && !read_only)
            read_only = true; /* a read-only LUN */
        else if (result != -EBUSY || !mp_wait_turn(until_ns))
            break;
    }
    if (result < 0)
        return result;
    MP_FAULT("map.loaded");
    result = mp_dm_resume(fd, uuid, udev_flags, reload);
    MP_FAULT("map.resumed");
    /* a table refused at the swap is dropped, and the map stays suspended: resuming it once more puts
     * the old table back to work (kernel do_resume) */
    if (result < 0 && reload)
        mp_dm_resume(fd, uuid, udev_flags, true);
    return result;
}

/* "add path sda" and the like; its answer as an errno. */
int mp_map_ask_multipathd(const struct mp_host *host, const char *what, const char *name,
                          uint64_t deadline_ns)
{
    char command[MANYPATH_WWID_SIZE + 16];
    char *reply = NULL;

    snprintf(command, sizeof command, "%s %s", what, name);
    int result = mp_multipathd_command(host->multipathd_socket, host->daemon_uid, command,
                                       deadline_ns, &reply);

    if (result == 0)
        result = mp_multipathd_reply_errno(reply);
    free(reply);
    return result;
}

int mp_map_check_type(int fd, const char *uuid, struct manypath_error *err)
{
    char type[16];
    char *params = NULL;
    int result = mp_dm_table(fd, uuid, type, &params);

    free(params);
    if (result < 0)
        return mp_map_error(err, MANYPATH_PHASE_MAP, result, uuid, "reading the table of");
    if (strcmp(type, "multipath") != 0)
        return mp_error(err, MANYPATH_E_MAP, MANYPATH_PHASE_MAP, 0,
                        "map %s is of type %s, not multipath; it was not touched", uuid, type);
    return 0;
}

bool mp_map_read_states(int fd, const char *uuid, struct mp_map_path *paths, size_t count)
{
    char type[16];
    char *params = NULL;
    struct mp_table table;
    bool well = true;

    if (mp_dm_status(fd, uuid, type, &params) < 0)
        return true;
    if (mp_table_parse_status(params, &table) == 0) {
        for (size_t i = 0; i < table.path_count; i++) {
            well = well && table.paths[i].active;
            for (size_t p = 0; p < count; p++)
                if (table.paths[i].dev == paths[p].dev)
                    paths[p].state =
                        table.paths[i].active ? MANYPATH_PATH_ACTIVE : MANYPATH_PATH_INACTIVE;
        }
        mp_table_free(&table);
    }
    free(params);
    return well;
}
