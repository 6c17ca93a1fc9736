/* SPDX-License-Identifier: Apache-2.0 */
#include "queueing.h"

#include "dm.h"
#include "dm_table.h"
#include "map_util.h"
#include "multipathd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Any path that the kernel has not failed. */
static int read_status(int fd, const char *uuid, bool *ret_dead)
{
    char type[16];
    char *params = NULL;
    struct mp_table table;
    int result = mp_dm_status(fd, uuid, type, &params);

    if (result == 0)
        result = mp_table_parse_status(params, &table);
    free(params);
    if (result < 0)
        return result;
    *ret_dead = true;
    for (size_t i = 0; i < table.path_count; i++)
        if (table.paths[i].active)
            *ret_dead = false;
    mp_table_free(&table);
    return 0;
}

/* -EPROTO: no multipath table; -ENODATA: none yet. */
static int read_table(int fd, const char *uuid, bool *ret_on)
{
    char type[16];
    char *params = NULL;
    struct mp_table table;
    int result = mp_dm_table(fd, uuid, type, &params);

    if (result == 0)
        result = strcmp(type, "multipath") == 0 ? mp_table_parse(params, &table) : -EPROTO;
    free(params);
    if (result < 0)
        return result;
    *ret_on = table.queue_if_no_path;
    mp_table_free(&table);
    return 0;
}

int mp_queueing_read(int fd, const char *uuid, struct mp_queueing *ret_queueing)
{
    struct mp_queueing queueing = {0};
    int result = read_table(fd, uuid, &queueing.on);

    if (result == 0)
        result = read_status(fd, uuid, &queueing.dead);
    if (result == -EPROTO || result == -ENODATA) { /* then it does not queue */
        queueing = (struct mp_queueing){0};
        result = 0;
    }
    if (result == 0)
        *ret_queueing = queueing;
    return result;
}

bool mp_queueing_end(const struct mp_host *host, int fd, const char *uuid)
{
    bool on = false;

    return read_table(fd, uuid, &on) == 0 && on &&
           !mp_multipathd_running(host->multipathd_pidfile) &&
           mp_dm_message(fd, uuid, "fail_if_no_path") == 0;
}

int mp_queueing_stop(struct mp_host *host, int fd, const char *uuid, const char *device,
                     uint64_t deadline_ns)
{
    if (mp_multipathd_running(host->multipathd_pidfile))
        mp_map_ask_multipathd(host, "disablequeueing map", device, deadline_ns);
    return mp_dm_message(fd, uuid, "fail_if_no_path");
}

int mp_queueing_restore(struct mp_host *host, int fd, const char *uuid, const char *device,
                        uint64_t deadline_ns)
{
    if (mp_multipathd_running(host->multipathd_pidfile) &&
        mp_map_ask_multipathd(host, "restorequeueing map", device, deadline_ns) == 0)
        return 0;
    return mp_dm_message(fd, uuid, "queue_if_no_path");
}
