/* SPDX-License-Identifier: Apache-2.0 */
/* Kernel uevents (NETLINK_KOBJECT_UEVENT group 1): no udev needed, root not needed. */
#ifndef MP_UEVENT_H
#define MP_UEVENT_H

#include <manypath/manypath.h>
#include <stddef.h>
#include <sys/types.h>

enum mp_uevent_action { MP_UEVENT_OTHER = 0, MP_UEVENT_ADD, MP_UEVENT_REMOVE, MP_UEVENT_CHANGE };

/* Strings point into the buffer that was parsed; "" when absent, never NULL. */
struct mp_uevent {
    enum mp_uevent_action action;
    const char *devpath; /* "/devices/platform/host3/session1/target3:0:0/3:0:0:1/block/sda" */
    const char *subsystem;
    const char *devtype;   /* "disk", "partition", "scsi_device", ... */
    const char *devname;   /* "sda", without /dev/ */
    const char *dm_action; /* of a multipath map: "PATH_FAILED" and so on */
    dev_t dev;             /* MAJOR:MINOR, 0 if absent */
};

/* Non-blocking, close-on-exec; receive buffer enlarged (SO_RCVBUFFORCE if permitted). */
int mp_uevent_open(int *ret_fd);

/* Receives one datagram into buffer. Returns its length, 0 for one to ignore (not from the kernel),
 * -EAGAIN, or -ENOBUFS: events were lost, look at sysfs again. */
ssize_t mp_uevent_receive(int fd, char *buffer, size_t size);

/* Parses "ACTION@DEVPATH\0KEY=VALUE\0..." in place. -EPROTO if it is not one. */
int mp_uevent_parse(char *buffer, size_t length, struct mp_uevent *ret_event);

#endif
