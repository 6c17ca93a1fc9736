/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sessions as operations see them: one entry per (portal, iqn), shared by everybody who wants that
 * session, so that a login is made once and nobody is logged out under another's feet.
 *
 *   IDLE -> LOCKING -> LOGIN (asked iscsid) -> SETTLE (waiting for the kernel to show it logged in) -> UP
 *   UP -> PARTING (waiting for the lock) -> LOGOUT -> IDLE
 *   LOGIN -> COOLING (the portal is away, and somebody is patient: asked now and then) -> LOCKING
 *
 * Between processes the same is done by a lock per entry (lock.h). It is shared while somebody works
 * with the session, and exclusive for a login (is there really none yet?) and for a logout (are there
 * really no disks on it?). Who waits for a portal that is away holds none.
 */
#ifndef MP_SESSION_H
#define MP_SESSION_H

#include "address.h"
#include "client.h"

struct mp_session_entry;
struct mp_disk; /* sysfs.h */

/* One who waits for a login or a logout; embed it. done() is called once, perhaps before the call
 * that queued it returns. error->code 0: the session is up (or gone). */
struct mp_session_wait {
    LIST_ENTRY(mp_session_wait) link;
    bool linked;
    bool due;     /* is being told */
    bool patient; /* hears of no failure that may pass: waits until the portal is back */
    bool works;   /* with the session, since done() told that it is up */
    const struct mp_login_terms *terms; /* of a login; outlives the wait */
    uint64_t until_ns; /* of a logout: how long to wait for another process; 0: some seconds */
    /* Of a logout: this disk, which could not be deleted, may go with the session. NULL: none may. */
    bool (*gives_up)(const struct mp_session_wait *wait, const struct mp_disk *disk);
    void (*done)(struct mp_session_wait *wait, const struct manypath_error *error);
};

struct mp_sessions *mp_sessions_new(struct manypath *handle);
void mp_sessions_free(struct mp_sessions *sessions);
/* End of a turn of the loop: frees the entries that nobody holds any more. */
void mp_sessions_turn(struct mp_sessions *sessions);

/* The entry for this key, made if needed, with one more holder. NULL: out of memory. */
struct mp_session_entry *mp_session_hold(struct mp_sessions *sessions,
                                         const struct mp_portal *portal, const char *iqn);
/* One holder less. When the last one goes and the session was made by a login of ours that nobody
 * kept, it is logged out again, even if the login comes through only later. */
void mp_session_drop(struct mp_session_entry *entry);
/* Something rests on this session now: it stays when the last holder goes. */
void mp_session_keep(struct mp_session_entry *entry);
/* A detach would log it out, but others hold it: the last one that goes does, unless something
 * rests on it then. */
void mp_session_leave(struct mp_session_entry *entry);

/* Wants the session up, on wait->terms if it has to log in. */
void mp_session_login(struct mp_session_entry *entry, struct mp_session_wait *wait);
/* Wants the session gone, unless somebody else holds the entry or there are disks on it: then it stays,
 * which is no error. E_IN_USE: it stays because another process works with it, or because its disks
 * cannot be read (then sys_errno says why, else it is EAGAIN). */
void mp_session_logout(struct mp_session_entry *entry, struct mp_session_wait *wait);
/* The host has several sessions to this node: the next logout is about each that has no disks. */
void mp_session_several(struct mp_session_entry *entry);
void mp_session_stop_waiting(struct mp_session_wait *wait);
/* The one who waited has done what it needs the session for. */
void mp_session_done_with(struct mp_session_entry *entry, struct mp_session_wait *wait);

/* Valid once up. */
int32_t mp_session_sid(const struct mp_session_entry *entry);
int32_t mp_session_host(const struct mp_session_entry *entry);
/* The session existed before this engine logged in. */
bool mp_session_existed(const struct mp_session_entry *entry);
/* Made by a login of ours, kept by nobody and held by nobody but the caller: undoing means logging
 * out. */
bool mp_session_to_undo(const struct mp_session_entry *entry);
/* Held by nobody but the caller. */
bool mp_session_exclusive(const struct mp_session_entry *entry);
/* Last login: when it was handed to iscsid and when it was over; 0 if there was none. */
uint64_t mp_session_login_begin_ns(const struct mp_session_entry *entry);
uint64_t mp_session_login_end_ns(const struct mp_session_entry *entry);
/* How long iscsid has had our login without answering; 0 while it has not got it. UINT64_MAX: it is
 * not a login that we wait for, but a session that somebody else must bring back. */
uint64_t mp_session_silence_ns(const struct mp_session_entry *entry);
/* What a login that is still going on waits for, as an error. */
void mp_session_pending(const struct mp_session_entry *entry, struct manypath_error *ret_error);

#endif
