/* SPDX-License-Identifier: Apache-2.0 */
/* multipathd's socket: length-prefixed commands and replies (libmpathcmd). Blocking with a
 * deadline: call from a worker. */
#ifndef MP_MULTIPATHD_H
#define MP_MULTIPATHD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Is a daemon running? Asks by the write lock it holds on its pid file, because connecting could
 * start it by socket activation. */
bool mp_multipathd_running(const char *pidfile);

/*
 * Sends one command (at most 511 bytes) and receives the whole reply, NUL-terminated, malloc'ed.
 * `socket` is an abstract name without the leading NUL, `owner` the uid that must have made it.
 * deadline_ns on CLOCK_MONOTONIC. -ECONNREFUSED: nobody listens; -EPERM: the wrong owner;
 * -ETIMEDOUT; -EPROTO: a broken frame or a reply over 32 MiB.
 */
int mp_multipathd_command(const char *socket, uid_t owner, const char *command,
                          uint64_t deadline_ns, char **ret_reply);

/* 0 for "ok", -EBUSY for "map or partition in use", -EPERM for permission denied, -EAGAIN for
 * "timeout" (the daemon was busy: outcome unknown), -EACCES for "blacklisted", -ENODEV for "device
 * not found" / "not found", -EINPROGRESS for "delayed" (accepted, done later), -EIO for any other
 * failure, also for a command that the daemon does not know. Pure. */
int mp_multipathd_reply_errno(const char *reply);

#endif
