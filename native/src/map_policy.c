/* SPDX-License-Identifier: Apache-2.0 */
#include "map_policy.h"

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

int mp_map_read_config(const struct mp_host *host, struct mp_multipathd_config **ret_config)
{
    char *reply = NULL;

    if (!mp_multipathd_running(host->multipathd_pidfile))
        return 0;
    int result = mp_multipathd_command(host->multipathd_socket, host->daemon_uid,
                                       "show config local", mp_now_ns() + ANSWER_LIMIT, &reply);

    if (result < 0)
        return result;
    if (strchr(reply, '{') != NULL) { /* a configuration, and no verdict */
        result = mp_multipathd_config_parse(reply, ret_config);
    } else {
        result = mp_multipathd_reply_errno(reply);
        result = result < 0 ? result : -EPROTO;
    }
    free(reply);
    return result;
}

struct names {
    char vendor[32], product[32];
};

static struct mp_config_subject subject_of(const struct mp_host *host, const char *wwid,
                                           const char *name, struct names *names)
{
    *names = (struct names){.vendor = ""};
    mp_sysfs_disk_attribute(host->sysfs_root, name, "vendor", names->vendor, sizeof names->vendor);
    mp_sysfs_disk_attribute(host->sysfs_root, name, "model", names->product, sizeof names->product);
    return (struct mp_config_subject){.wwid = wwid,
                                      .devnode = name,
                                      .vendor = names->vendor,
                                      .product = names->product,
                                      .protocol = "scsi:iscsi"};
}

bool mp_map_skips_kpartx(const struct mp_host *host, const struct mp_multipathd_config *config,
                         const char *wwid, const struct mp_map_path *path)
{
    struct names names;
    struct mp_config_subject subject = subject_of(host, wwid, path->name, &names);

    return mp_multipathd_skips_kpartx(config, &subject);
}

int mp_map_check_blacklist(struct mp_host *host, const struct mp_multipathd_config *config,
                           const char *wwid, const struct mp_map_path *paths, size_t count,
                           struct manypath_error *err)
{
    char uuid[MP_DM_UUID_SIZE];
    char rule[160] = "";
    struct mp_dm_info info;

    for (size_t i = 0; i < count; i++) {
        struct names names;
        struct mp_config_subject subject = subject_of(host, wwid, paths[i].name, &names);

        if (!mp_multipathd_blacklists(config, &subject, rule, sizeof rule))
            return 0;
    }
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
