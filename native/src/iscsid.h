/* SPDX-License-Identifier: Apache-2.0 */
/* iscsid's management socket (open-iscsi usr/mgmt_ipc.c): one connection per request. What is sent
 * over it is iscsid_codec.h's business. */
#ifndef MP_ISCSID_H
#define MP_ISCSID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Connects to an abstract socket without blocking. `owner` is the uid that must have made the
 * socket: checked before anything is sent, because an unprivileged process may hold the name while
 * iscsid is down. *ret_listener is the process that called listen(): iscsid, the parent that it
 * forked from (without -f), or systemd (socket activation). -ECONNREFUSED: nobody listens; -EAGAIN:
 * the backlog (32) is full, try again later; -EPERM: wrong owner.
 */
int mp_iscsid_connect(const char *name, uid_t owner, int *ret_fd, pid_t *ret_listener);

/*
 * Sends one whole request and closes the sending side, so that an iscsid that expects more bytes
 * sees an end of file instead of waiting for ever (it reads with its only thread). -EIO: the socket
 * took only a part.
 */
int mp_iscsid_send(int fd, const uint8_t *request, size_t size);

/* Which process iscsid is: the listener while it lives, else what the pid file says (iscsid -f
 * writes none), and the kernel's start time of that pid. Zeroes when not known. */
struct mp_iscsid_process {
    uint64_t pid;
    uint64_t start_time;
};

void mp_iscsid_process(pid_t listener, const char *pidfile, struct mp_iscsid_process *ret_process);

#endif
