/* SPDX-License-Identifier: Apache-2.0 */
#include "map_groups.h"

#include "alua.h"
#include "map_util.h"
#include "scsi.h"
#include "sysfs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    REPORT_BYTES = 8192, /* 32 groups of 60 ports */
    COMMAND_TIMEOUT_MS = 2000,
    NO_TIME_MS = 20,
};

/* What the target told about all its port groups, through whichever path was asked. */
struct report {
    uint8_t bytes[REPORT_BYTES];
    size_t length;
    unsigned timeout_ms;
    bool silent; /* it did not answer in time: nobody else is asked */
};

int mp_map_known_priority(const struct mp_host *host, const char *name)
{
    char state[32] = "";
    char preferred[4] = "";

    if (mp_sysfs_disk_attribute(host->sysfs_root, name, "access_state", state, sizeof state) < 0)
        return MP_PRIORITY_UNKNOWN; /* no handler */
    mp_sysfs_disk_attribute(host->sysfs_root, name, "preferred_path", preferred, sizeof preferred);
    return mp_alua_priority_of_words(state, strcmp(preferred, "1") == 0);
}

static bool has_alua(const struct mp_host *host, const char *name)
{
    char handler[16] = "";

    return mp_sysfs_disk_attribute(host->sysfs_root, name, "dh_state", handler, sizeof handler) ==
               0 &&
           strcmp(handler, "alua") == 0;
}

static int ask_fd(int fd, struct report *report)
{
    int result = mp_scsi_port_groups(fd, true, report->bytes, sizeof report->bytes,
                                     report->timeout_ms, &report->length);

    if (result == -EOPNOTSUPP)
        result = mp_scsi_port_groups(fd, false, report->bytes, sizeof report->bytes,
                                     report->timeout_ms, &report->length);
    if (result < 0)
        report->length = 0;
    report->silent = report->silent || result == -ETIMEDOUT;
    return result;
}

static int ask(const struct mp_host *host, const struct mp_map_path *path, struct report *report)
{
    char name[PATH_MAX];
    int fd = path->fd;

    if (report->silent)
        return -ETIMEDOUT;
    if (fd < 0) {
        if ((size_t)snprintf(name, sizeof name, "%s/%s", host->dev_root, path->name) >= sizeof name)
            return -ENAMETOOLONG;
        fd = open(name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0)
            return -errno;
    }
    int result = ask_fd(fd, report);

    if (path->fd < 0)
        close(fd);
    return result;
}

/* A path's group does not change while its disk is there, so sysfs may tell it. */
static int read_priority(const struct mp_host *host, const struct mp_map_path *path,
                         struct report *report, int *ret_priority)
{
    uint8_t page[MP_VPD_PAGE_SIZE];
    size_t length;
    uint16_t group;
    int result = mp_sysfs_page83(host->sysfs_root, path->name, page, &length);

    if (result == 0)
        result = mp_alua_group_id(page, length, &group);
    if (result < 0)
        return result;
    /* the report is about the target; another path is asked only if that is at another one */
    if (mp_alua_priority(report->bytes, report->length, group, ret_priority) == 0)
        return 0;
    result = ask(host, path, report);
    return result < 0 ? result
                      : mp_alua_priority(report->bytes, report->length, group, ret_priority);
}

void mp_map_read_priorities(const struct mp_host *host, const struct mp_map_path *paths,
                            size_t count, uint64_t deadline_ns, int *ret_priorities)
{
    struct report report = {.timeout_ms = COMMAND_TIMEOUT_MS};
    uint64_t now = mp_now_ns();
    uint64_t left_ms = now < deadline_ns ? (deadline_ns - now) / MP_MAP_MS / 2 : 0;

    if (left_ms < COMMAND_TIMEOUT_MS)
        report.timeout_ms = (unsigned)left_ms;
    report.silent = left_ms < NO_TIME_MS;
    for (size_t i = 0; i < count; i++)
        if (!has_alua(host, paths[i].name) ||
            read_priority(host, &paths[i], &report, &ret_priorities[i]) < 0)
            ret_priorities[i] = mp_map_known_priority(host, paths[i].name);
}

/* The highest priority below `limit` that any path has; false: none. */
static bool next_priority(const int *priorities, size_t count, int limit, int *ret_priority)
{
    bool found = false;
    int best = 0;

    for (size_t i = 0; i < count; i++)
        if (priorities[i] < limit && (!found || priorities[i] > best)) {
            best = priorities[i];
            found = true;
        }
    *ret_priority = best;
    return found;
}

void mp_map_group(const struct mp_map_path *paths, const int *priorities, size_t count,
                  struct mp_table_path *ret_members)
{
    size_t used = 0;
    uint32_t group = 0;
    int priority = INT_MAX;

    while (next_priority(priorities, count, priority, &priority)) {
        group++;
        for (size_t i = 0; i < count; i++)
            if (priorities[i] == priority)
                ret_members[used++] = (struct mp_table_path){.dev = paths[i].dev, .group = group};
    }
}
