/* SPDX-License-Identifier: Apache-2.0 */
#include "host.h"

#include "dm.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *copy_or(const char *value, const char *fallback)
{
    return strdup(value != NULL ? value : fallback);
}

struct mp_host *mp_host_new(const struct manypath_options *options)
{
    static const struct manypath_options none;
    struct mp_host *host = calloc(1, sizeof *host);

    if (host == NULL)
        return NULL;
    if (options == NULL)
        options = &none;
    atomic_init(&host->references, 1);
    atomic_init(&host->dm_fd, -1);
    host->sysfs_root = copy_or(options->sysfs_root, "/sys");
    host->dev_root = copy_or(options->dev_root, "/dev");
    host->proc_root = copy_or(options->proc_root, "/proc");
    /* open-iscsi usr/mgmt_ipc.h */
    host->iscsid_socket = copy_or(options->iscsid_socket, "ISCSIADM_ABSTRACT_NAMESPACE");
    host->iscsid_pidfile = copy_or(options->iscsid_pidfile, "/run/iscsid.pid");
    host->layout_dir = copy_or(options->layout_dir, "/etc/manypath/iscsid-layouts.d");
    host->multipath_dir = copy_or(options->multipath_dir, "/etc/multipath");
    host->multipath_run_dir = copy_or(options->multipath_run_dir, "/run/multipath");
    /* multipath-tools libmpathcmd/mpath_cmd.h */
    host->multipathd_socket =
        copy_or(options->multipathd_socket, "/org/kernel/linux/storage/multipathd");
    host->multipathd_pidfile = copy_or(options->multipathd_pidfile, "/run/multipathd.pid");
    host->initiator_file = copy_or(options->initiator_file, "/etc/iscsi/initiatorname.iscsi");
    host->runtime_dir = copy_or(options->runtime_dir, "/run/manypath");
    host->udev_data = copy_or(options->udev_data, "/run/udev/data");
    host->daemon_uid = options->daemon_uid;
    host->logins_in_flight = options->logins_in_flight != 0 ? options->logins_in_flight : 16;
    host->worker_threads = options->worker_threads != 0 ? options->worker_threads : 32;
    if (host->sysfs_root == NULL || host->dev_root == NULL || host->proc_root == NULL ||
        host->iscsid_socket == NULL || host->iscsid_pidfile == NULL || host->layout_dir == NULL ||
        host->multipath_dir == NULL || host->multipath_run_dir == NULL ||
        host->multipathd_socket == NULL || host->multipathd_pidfile == NULL ||
        host->initiator_file == NULL || host->runtime_dir == NULL || host->udev_data == NULL) {
        mp_host_release(host);
        return NULL;
    }
    return host;
}

struct mp_host *mp_host_hold(struct mp_host *host)
{
    atomic_fetch_add(&host->references, 1);
    return host;
}

void mp_host_release(struct mp_host *host)
{
    if (atomic_fetch_sub(&host->references, 1) > 1)
        return;
    if (atomic_load(&host->dm_fd) >= 0)
        close(atomic_load(&host->dm_fd));
    free(host->sysfs_root);
    free(host->dev_root);
    free(host->proc_root);
    free(host->iscsid_socket);
    free(host->iscsid_pidfile);
    free(host->layout_dir);
    free(host->multipath_dir);
    free(host->multipath_run_dir);
    free(host->multipathd_socket);
    free(host->multipathd_pidfile);
    free(host->initiator_file);
    free(host->runtime_dir);
    free(host->udev_data);
    free(host);
}

int mp_host_dm(struct mp_host *host)
{
    char path[PATH_MAX];
    int fd = atomic_load(&host->dm_fd);
    int none = -1;

    if (fd >= 0)
        return fd;
    if ((size_t)snprintf(path, sizeof path, "%s/mapper/control", host->dev_root) >= sizeof path)
        return -ENAMETOOLONG;
    int result = mp_dm_open(path, &fd);

    if (result < 0)
        return result;
    if (!atomic_compare_exchange_strong(&host->dm_fd, &none, fd)) {
        close(fd); /* another thread was quicker */
        fd = none;
    }
    return fd;
}
