/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One session's entry, as session.c and the two files below it see it; session.h tells of its states.
 *
 *   session.c          entries and who holds them, the lock between processes, telling those who wait
 *   session_login.c    until it is up
 *   session_logout.c   until it is gone
 */
#ifndef MP_SESSION_STATE_H
#define MP_SESSION_STATE_H

#include "lock.h"
#include "session.h"
#include "sysfs.h"

#define MP_MS UINT64_C(1000000) /* in nanoseconds */

/* The kernel sends no event when a software iSCSI session is logged in or out, so its state is polled;
 * only after iscsid answered, or when its answer is late. */
#define MP_SETTLE_POLL (20 * MP_MS)
/* How long a session may take to show in sysfs, or to leave it, after iscsid said so. */
#define MP_SETTLE_LIMIT (5000 * MP_MS)
/* iscsid 2.1.10 never answers a login with manual scan (open-iscsi issue 484): look for ourselves.
 */
#define MP_ANSWER_CHECK (200 * MP_MS)

enum mp_entry_state {
    MP_ENTRY_IDLE,
    MP_ENTRY_LOCKING, /* for a login */
    MP_ENTRY_LOGIN,
    MP_ENTRY_COOLING,
    MP_ENTRY_SETTLE,
    MP_ENTRY_UP,
    MP_ENTRY_PARTING, /* locking for a logout */
    MP_ENTRY_LOGOUT,
    MP_ENTRY_LEAVING, /* logged out, but not gone from the kernel yet */
};

LIST_HEAD(mp_session_wait_list, mp_session_wait);

struct mp_session_entry {
    TAILQ_ENTRY(mp_session_entry) link;
    struct mp_sessions *sessions;
    struct mp_portal portal;
    char address[MANYPATH_ADDRESS_SIZE];
    char iqn[MANYPATH_IQN_SIZE];
    enum mp_entry_state state;
    unsigned holders;
    unsigned users;      /* of the holders, those who work with the session */
    struct mp_lock lock; /* between processes */
    bool existed;        /* before the last login */
    bool ours;           /* made by a login of ours, and kept by nobody yet */
    bool left;           /* by a detach, to those who still held it */
    bool several;        /* sessions to this node, by nr_sessions or a race of others */
    unsigned busy;       /* callbacks run: do not free */
    bool dead;           /* freed at the end of the turn */
    int32_t sid, host;
    struct mp_login_terms terms; /* of the last login */
    struct mp_session_wait_list logins, logouts;
    struct mp_exchange *exchange;
    struct mp_timer timer;
    struct mp_source portal_check; /* our own TCP connection to a portal that does not answer */
    bool checked;        /* once per login: a portal that accepts is not asked again and again */
    uint64_t cooling_ns; /* how long it cooled the last time */
    uint64_t login_begin_ns, login_end_ns;
    uint64_t settle_until_ns, parting_until_ns, reap_until_ns;
    int32_t logout_code;
};

TAILQ_HEAD(entry_list, mp_session_entry);

struct mp_sessions {
    struct manypath *handle;
    struct entry_list entries;
    /* freed at the end of the turn: callers up the stack may look at them */
    struct entry_list dead;
};

/* ---- session.c ---- */

/* Tells those in the list; those who queue up meanwhile wait for the next time. */
void mp_entry_tell(struct mp_session_entry *entry, struct mp_session_wait_list *list,
                   const struct manypath_error *error);
/* From here on this one works with the session. */
void mp_entry_begin_work(struct mp_session_entry *entry, struct mp_session_wait *wait);
/* If nobody works with it, other processes may log it out, also while we wait for its portal. */
void mp_entry_rest(struct mp_session_entry *entry);
/* If nobody holds it, what was made for nothing is taken back, then the entry goes. */
void mp_entry_settle(struct mp_session_entry *entry);

/* ---- session_login.c ---- */

/* Logs in on these terms, or finds that the session is there. */
void mp_entry_begin_login(struct mp_session_entry *entry, const struct mp_login_terms *terms);
/* LOCKING ended. */
void mp_entry_locked_in(struct mp_session_entry *entry, const struct manypath_error *error);
void mp_entry_login_timer(struct mp_session_entry *entry);

/* ---- session_logout.c ---- */

void mp_entry_begin_logout(struct mp_session_entry *entry);
/* PARTING has the lock, or there is none to be had. */
void mp_entry_locked_out(struct mp_session_entry *entry, const struct manypath_error *error);
void mp_entry_logout_timer(struct mp_session_entry *entry);
/* Somebody wants it after all. */
void mp_entry_stop_parting(struct mp_session_entry *entry);
/* A session to this node that no SCSI device uses; others are those of other volumes. 1: found, 0: there
 * is none, negative errno: nobody can tell. */
int mp_entry_find_idle(const struct mp_session_entry *entry, struct mp_session *ret_session);

#endif
