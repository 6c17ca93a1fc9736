/* SPDX-License-Identifier: Apache-2.0 */
/* Where things are on this host. Shared by the loop and by jobs, which may outlive the handle when
 * they are stuck in the kernel: hence the reference count. */
#ifndef MP_HOST_H
#define MP_HOST_H

#include <manypath/manypath.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct mp_host {
    atomic_int references;
    char *sysfs_root;
    char *dev_root;
    char *proc_root;
    char *iscsid_socket;
    char *iscsid_pidfile;
    char *layout_dir;
    char *multipath_dir;
    char *multipath_run_dir;
    char *multipathd_socket;
    char *multipathd_pidfile;
    char *initiator_file;
    char *runtime_dir;
    char *udev_data;
    uint32_t daemon_uid;
    uint32_t logins_in_flight;
    uint32_t worker_threads;
    atomic_int dm_fd;            /* -1 until first needed */
    atomic_bool multipath_known; /* the kernel was asked for the multipath target, and has it */
};

/* NULL: out of memory. */
struct mp_host *mp_host_new(const struct manypath_options *options);
struct mp_host *mp_host_hold(struct mp_host *host);
void mp_host_release(struct mp_host *host);

/* Device-mapper's control node, opened at first use and shared. Any thread; the first open may load
 * a module, so call from a worker. Negative errno on failure. */
int mp_host_dm(struct mp_host *host);

#endif
