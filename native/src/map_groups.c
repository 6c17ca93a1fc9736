/* SPDX-License-Identifier: Apache-2.0 */
#include "map_groups.h"

#include "alua.h"
#include "scsi.h"
#include "sysfs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    PAGE_DESIGNATORS = 0x83, /* SPC-4 section 7.8.6 */
    PAGE_BYTES = 4096,
    REPORT_BYTES = 8192, /* 32 groups of 60 ports */
    COMMAND_TIMEOUT_MS = 2000,
};

/* What the target told about all its port groups, through whichever path was asked. */
struct report {
    uint8_t bytes[REPORT_BYTES];
    size_t length;
    bool silent; /* a command timed out: nobody else is asked */
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

static int read_report(int fd, struct report *report)
{
    int result = mp_scsi_port_groups(fd, true, report->bytes, sizeof report->bytes,
                                     COMMAND_TIMEOUT_MS, &report->length);

    if (result == -EOPNOTSUPP)
        result = mp_scsi_port_groups(fd, false, report->bytes, sizeof report->bytes,
                                     COMMAND_TIMEOUT_MS, &report->length);
    if (result < 0)
        report->length = 0;
    return result;
}

static int ask(int fd, struct report *report, int *ret_priority)
{
    uint8_t page[PAGE_BYTES];
    size_t length;
    uint16_t group;
    int result = mp_scsi_vpd(fd, PAGE_DESIGNATORS, page, sizeof page, COMMAND_TIMEOUT_MS, &length);

    if (result == 0)
        result = mp_alua_group_id(page, length, &group);
    if (result < 0)
        return result;
    /* the report is about the target; another path is asked only if that is at another one */
    if (mp_alua_priority(report->bytes, report->length, group, ret_priority) == 0)
        return 0;
    result = read_report(fd, report);
    return result < 0 ? result
                      : mp_alua_priority(report->bytes, report->length, group, ret_priority);
}

static int ask_path(const struct mp_host *host, const struct mp_map_path *path,
                    struct report *report, int *ret_priority)
{
    char name[PATH_MAX];
    int fd = path->fd;

    if (fd < 0) {
        if ((size_t)snprintf(name, sizeof name, "%s/%s", host->dev_root, path->name) >= sizeof name)
            return -ENAMETOOLONG;
        fd = open(name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0)
            return -errno;
    }
    int result = ask(fd, report, ret_priority);

    if (path->fd < 0)
        close(fd);
    return result;
}

void mp_map_read_priorities(const struct mp_host *host, const struct mp_map_path *paths,
                            size_t count, int *ret_priorities)
{
    struct report report = {.length = 0};

    for (size_t i = 0; i < count; i++) {
        int result = -EOPNOTSUPP;

        if (!report.silent && has_alua(host, paths[i].name))
            result = ask_path(host, &paths[i], &report, &ret_priorities[i]);
        report.silent = report.silent || result == -ETIMEDOUT;
        if (result < 0)
            ret_priorities[i] = mp_map_known_priority(host, paths[i].name);
    }
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
