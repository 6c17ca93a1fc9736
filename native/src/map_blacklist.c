/* SPDX-License-Identifier: Apache-2.0 */
#include "map_blacklist.h"

#include "dm.h"
#include "error.h"
#include "multipathd.h"
#include "sysfs.h"
#include "text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A daemon that is busy for longer does not hold an attach up. */
#define ANSWER_LIMIT (UINT64_C(1000) * 1000000)

int mp_map_read_blacklist(const struct mp_host *host, struct mp_blacklist **ret_blacklist)
{
    char *reply = NULL;

    if (!mp_multipathd_running(host->multipathd_pidfile))
        return 0;
    int result = mp_multipathd_command(host->multipathd_socket, host->daemon_uid,
                                       "show config local", mp_now_ns() + ANSWER_LIMIT, &reply);

    if (result < 0)
        return result;
    if (strchr(reply, '{') != NULL) { /* a configuration, and no verdict */
        result = mp_blacklist_parse(reply, ret_blacklist);
    } else {
        result = mp_multipathd_reply_errno(reply);
        result = result < 0 ? result : -EPROTO;
    }
    free(reply);
    return result;
}

static bool is_blacklisted(const struct mp_host *host, const struct mp_blacklist *blacklist,
                           const char *wwid, const char *name, char *rule, size_t size)
{
    char vendor[32] = "", product[32] = "";

    mp_sysfs_disk_attribute(host->sysfs_root, name, "vendor", vendor, sizeof vendor);
    mp_sysfs_disk_attribute(host->sysfs_root, name, "model", product, sizeof product);
    return mp_blacklist_matches(blacklist,
                                &(struct mp_blacklist_subject){.wwid = wwid,
                                                               .devnode = name,
                                                               .vendor = vendor,
                                                               .product = product,
                                                               .protocol = "scsi:iscsi"},
                                rule, size);
}

int mp_map_check_blacklist(struct mp_host *host, const struct mp_blacklist *blacklist,
                           const char *wwid, const struct mp_map_path *paths, size_t count,
                           struct manypath_error *err)
{
    char uuid[MP_DM_UUID_SIZE];
    char rule[160] = "";
    struct mp_dm_info info;

    for (size_t i = 0; i < count; i++)
        if (!is_blacklisted(host, blacklist, wwid, paths[i].name, rule, sizeof rule))
            return 0;
    snprintf(uuid, sizeof uuid, "mpath-%s", wwid);
    int fd = mp_host_dm(host);

    if (fd >= 0 && mp_dm_info(fd, uuid, &info) == 0)
        return 0;
    mp_error(
        err, MANYPATH_E_MAP, MANYPATH_PHASE_MAP, 0,
        "multipathd is configured to leave volume %s alone and would remove its map: %s; add it to "
        "blacklist_exceptions in multipath.conf, or attach it without multipath",
        wwid, rule);
    if (err != NULL)
        err->retryable = false;
    return MANYPATH_E_MAP;
}
