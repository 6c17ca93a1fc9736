/* SPDX-License-Identifier: Apache-2.0 */
#include "session.h"

#include "error.h"
#include "iscsid_codec.h"
#include "lock.h"
#include "sysfs.h"
#include "text.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define MS UINT64_C(1000000) /* in nanoseconds */

/* The kernel sends no event when a software iSCSI session is logged in, so its state is polled;
 * only after iscsid answered, or when its answer is late. */
#define SETTLE_POLL (20 * MS)
#define SETTLE_POLL_PATIENT (500 * MS) /* when nobody is in a hurry */
/* iscsid 2.1.10 never answers a login with manual scan (open-iscsi issue 484): look for ourselves.
 */
#define ANSWER_CHECK (200 * MS)
/* iscsid keeps a dead portal to itself until its login timeout: when it has been silent towards
 * everybody for this long, so is not just busy with other logins, ask the portal ourselves. */
#define PORTAL_CHECK_AFTER (1000 * MS)
/* How long iscsid's answer to a logout is waited for although the session looks gone. */
#define LOGOUT_PATIENCE (2000 * MS)
/* iscsid's own limit for a logout is 15 s (logout_timeout): longer without an answer, and it will
 * not come. */
#define LOGOUT_SILENCE (20000 * MS)
/* How long a session may take to show in sysfs, or to leave it, after iscsid said so. */
#define SETTLE_LIMIT (5000 * MS)

/* How often a logout that waits for another process looks whether the session has disks by now. */
#define PARTING_CHECK (100 * MS)
/* The kernel deletes a disk before its SCSI target, and tells of neither; a logout meanwhile makes it
 * remove the target twice (a warning in sysfs_remove_group() of Linux 6.1). This is how long the process
 * that deletes gets for the rest of it. */
#define REAP_CHECK (10 * MS)
#define REAP_LIMIT (1000 * MS)
/* How long it waits if nobody says. */
#define PARTING_LIMIT (10000 * MS)

/* A portal that is away is asked after this long, then after twice as long each time. */
#define COOLING_FIRST (500 * MS)
#define COOLING_LONGEST (4000 * MS)
/* How long it gets to accept a connection then. */
#define COOLING_CONNECT (3000 * MS)

enum entry_state { IDLE, LOCKING, IN_LOGIN, COOLING, SETTLE, UP, PARTING, IN_LOGOUT, LEAVING };

LIST_HEAD(wait_list, mp_session_wait);

struct mp_session_entry {
    TAILQ_ENTRY(mp_session_entry) link;
    struct mp_sessions *sessions;
    struct mp_portal portal;
    char address[MANYPATH_ADDRESS_SIZE];
    char iqn[MANYPATH_IQN_SIZE];
    enum entry_state state;
    unsigned holders;
    unsigned users;      /* of the holders, those who work with the session */
    struct mp_lock lock; /* between processes */
    bool existed;        /* before the last login */
    bool ours;           /* made by a login of ours, and kept by nobody yet */
    bool left;           /* by a detach, to those who still held it */
    bool several;        /* sessions to this node, by nr_sessions or a race of others */
    unsigned busy;       /* callbacks run: do not free */
    int32_t sid, host;
    struct mp_login_terms terms; /* of the last login */
    struct wait_list logins, logouts;
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
    struct entry_list
        dead; /* freed at the end of the turn: callers up the stack may look at them */
};

static void begin_login(struct mp_session_entry *entry, const struct mp_login_terms *terms);
static void look_again(struct mp_session_entry *entry);
static void part(struct mp_session_entry *entry);
static void logout_over(struct mp_session_entry *entry, const struct manypath_error *error);
static void login_again(struct mp_session_entry *entry);
static void login_over(struct mp_session_entry *entry, enum entry_state state,
                       const struct manypath_error *error);
static void begin_logout(struct mp_session_entry *entry);
static void part(struct mp_session_entry *entry);

struct mp_sessions *mp_sessions_new(struct manypath *handle)
{
    struct mp_sessions *sessions = calloc(1, sizeof *sessions);

    if (sessions == NULL)
        return NULL;
    sessions->handle = handle;
    TAILQ_INIT(&sessions->entries);
    TAILQ_INIT(&sessions->dead);
    return sessions;
}

static void end_entry(struct mp_session_entry *entry)
{
    struct manypath *handle = entry->sessions->handle;

    if (entry->exchange != NULL)
        mp_client_forget(handle->client, entry->exchange);
    entry->exchange = NULL;
    entry->state = IDLE;
    mp_lock_release(&entry->lock);
    mp_engine_disarm(handle, &entry->timer);
    mp_engine_unwatch(handle, &entry->portal_check);
    TAILQ_REMOVE(&entry->sessions->entries, entry, link);
    TAILQ_INSERT_TAIL(&entry->sessions->dead, entry, link);
}

void mp_sessions_turn(struct mp_sessions *sessions)
{
    struct mp_session_entry *entry;

    while ((entry = TAILQ_FIRST(&sessions->dead)) != NULL) {
        TAILQ_REMOVE(&sessions->dead, entry, link);
        mp_chap_release(entry->terms.chap);
        free(entry);
    }
}

void mp_sessions_free(struct mp_sessions *sessions)
{
    if (sessions == NULL)
        return;
    while (!TAILQ_EMPTY(&sessions->entries))
        end_entry(TAILQ_FIRST(&sessions->entries));
    mp_sessions_turn(sessions);
    free(sessions);
}

/* ---- accessors ---- */

int32_t mp_session_sid(const struct mp_session_entry *entry)
{
    return entry->sid;
}
int32_t mp_session_host(const struct mp_session_entry *entry)
{
    return entry->host;
}
bool mp_session_existed(const struct mp_session_entry *entry)
{
    return entry->existed;
}
bool mp_session_exclusive(const struct mp_session_entry *entry)
{
    return entry->holders == 1;
}
bool mp_session_to_undo(const struct mp_session_entry *entry)
{
    return entry->ours && entry->state == UP && mp_session_exclusive(entry);
}
uint64_t mp_session_login_begin_ns(const struct mp_session_entry *entry)
{
    return entry->login_begin_ns;
}
uint64_t mp_session_login_end_ns(const struct mp_session_entry *entry)
{
    return entry->login_end_ns;
}

/* ---- the lock between processes ---- */

static void locked(struct mp_lock *lock, const struct manypath_error *error)
{
    struct mp_session_entry *entry =
        (struct mp_session_entry *)((char *)lock - offsetof(struct mp_session_entry, lock));

    if (entry->state == LOCKING && error->code == 0)
        look_again(entry);
    else if (entry->state == LOCKING)
        login_over(entry, IDLE, error);
    else if (entry->state == PARTING && error->code == 0)
        part(entry);
    else if (entry->state == PARTING)
        logout_over(entry, error);
}

static void begin_work(struct mp_session_entry *entry, struct mp_session_wait *wait)
{
    wait->works = true;
    entry->users++;
}

/* Nobody works with it: other processes may log it out. */
static void rest(struct mp_session_entry *entry)
{
    if (entry->users == 0 && entry->state == UP)
        mp_lock_release(&entry->lock);
}

void mp_session_done_with(struct mp_session_entry *entry, struct mp_session_wait *wait)
{
    if (!wait->works)
        return;
    wait->works = false;
    entry->users--;
    rest(entry);
}

/* ---- telling those who wait ---- */

static void settle_entry(struct mp_session_entry *entry);

/* A login failed, but not for this one: it is patient, or has other credentials. */
static bool waits_on(const struct mp_session_entry *entry, const struct mp_session_wait *wait,
                     const struct manypath_error *error)
{
    if (error->code == MANYPATH_E_AUTH)
        return !mp_chap_same(wait->terms->chap, entry->terms.chap);
    return wait->patient && error->retryable;
}

static void tell(struct mp_session_entry *entry, struct wait_list *list,
                 const struct manypath_error *error)
{
    struct mp_session_wait *wait;

    /* those who queue up while the others are told wait for the next time */
    LIST_FOREACH(wait, list, link)
    wait->due = error->code == 0 || list != &entry->logins || !waits_on(entry, wait, error);
    entry->busy++;
    do {
        LIST_FOREACH(wait, list, link)
        if (wait->due)
            break;
        if (wait != NULL) {
            mp_session_stop_waiting(wait);
            if (list == &entry->logins && error->code == 0)
                begin_work(entry, wait);
            wait->done(wait, error);
        }
    } while (wait != NULL);
    entry->busy--;
}

static void login_over(struct mp_session_entry *entry, enum entry_state state,
                       const struct manypath_error *error)
{
    static const struct manypath_error none;
    struct manypath *handle = entry->sessions->handle;

    entry->state = state;
    entry->login_end_ns = mp_now_ns();
    mp_engine_disarm(handle, &entry->timer);
    mp_engine_unwatch(handle, &entry->portal_check);
    if (state == UP) {
        entry->cooling_ns = 0;
        mp_lock_share(&entry->lock);
    } else {
        mp_lock_release(&entry->lock);
    }
    tell(entry, &entry->logins, error != NULL ? error : &none);
    rest(entry);
    if (entry->state == IDLE && !LIST_EMPTY(&entry->logins))
        login_again(entry);
    else
        settle_entry(entry);
}

static void login_error(const struct mp_session_entry *entry, int code, int sys_errno,
                        int32_t iscsid_code, const char *reason, struct manypath_error *ret_error)
{
    mp_error(ret_error, code, MANYPATH_PHASE_LOGIN, sys_errno,
             "login to %s through portal %s port %u: %s", entry->iqn, entry->address,
             entry->portal.port, reason);
    mp_copy(ret_error->address, sizeof ret_error->address, entry->address);
    ret_error->port = entry->portal.port;
    ret_error->iscsid_code = iscsid_code;
}

static void fail_login(struct mp_session_entry *entry, int code, int sys_errno, int32_t iscsid_code,
                       const char *reason)
{
    struct manypath_error error;

    login_error(entry, code, sys_errno, iscsid_code, reason, &error);
    login_over(entry, IDLE, &error);
}

/* ---- login ---- */

static void came_up(struct mp_session_entry *entry, const struct mp_session *session)
{
    entry->sid = session->sid;
    entry->host = session->host;
    login_over(entry, UP, NULL);
}

/* Looks whether the session is logged in now. -EAGAIN: it is there, but not yet. */
static int look(struct mp_session_entry *entry, struct mp_session *ret_session)
{
    int result = mp_sysfs_find_session(entry->sessions->handle->host->sysfs_root, entry->iqn,
                                       &entry->portal, ret_session);

    if (result == 0 && ret_session->state != MP_SESSION_LOGGED_IN)
        result = -EAGAIN;
    return result;
}

static const struct mp_session_wait *first_in_a_hurry(const struct mp_session_entry *entry)
{
    const struct mp_session_wait *wait;

    LIST_FOREACH(wait, &entry->logins, link)
    if (!wait->patient)
        return wait;
    return NULL;
}

static void settle_later(struct mp_session_entry *entry)
{
    bool hurry = first_in_a_hurry(entry) != NULL;
    uint64_t poll_ns = hurry ? SETTLE_POLL : SETTLE_POLL_PATIENT;

    if (!hurry && !entry->ours)
        mp_lock_release(&entry->lock);
    entry->state = SETTLE;
    mp_engine_arm(entry->sessions->handle, &entry->timer, mp_now_ns() + poll_ns);
}

static void settle(struct mp_session_entry *entry)
{
    struct mp_session session;
    int result = look(entry, &session);

    if (result == 0 && entry->lock.state != MP_LOCK_HELD)
        begin_login(entry, &entry->terms); /* looks again, with the lock */
    else if (result == 0)
        came_up(entry, &session);
    else if (result == -EAGAIN || mp_now_ns() < entry->settle_until_ns)
        settle_later(entry); /* iscsid recovers it; those who wait have deadlines */
    else
        fail_login(entry, MANYPATH_E_SESSION, result, 0,
                   "iscsid says the session exists, but the kernel shows none");
}

static int login_code(const struct mp_session_entry *entry, int32_t iscsid_code)
{
    const struct mp_chap *chap = entry->terms.chap;

    /* iscsid says the same when the target could not prove itself (open-iscsi usr/initiator.c), and
     * with credentials for that it is by far the likeliest */
    if (iscsid_code == MP_ISCSID_ERR_FATAL_LOGIN && chap != NULL && chap->username_in[0] != '\0')
        return MANYPATH_E_AUTH;
    switch (iscsid_code) { /* open-iscsi include/iscsi_err.h */
    case MP_ISCSID_ERR_ACCESS:
        return MANYPATH_E_PERMISSION;
    case 4: /* TRANS */
        return MANYPATH_E_REFUSED;
    case 8:  /* TRANS_TIMEOUT */
    case 11: /* PDU_TIMEOUT */
        return MANYPATH_E_NO_ANSWER;
    case MP_ISCSID_ERR_FATAL_LOGIN:
        return MANYPATH_E_LOGIN_REJECTED;
    case MP_ISCSID_ERR_AUTH:
        return MANYPATH_E_AUTH;
    default:
        return MANYPATH_E_LOGIN;
    }
}

static const char *login_text(const struct mp_session_entry *entry, int32_t iscsid_code)
{
    if (iscsid_code == MP_ISCSID_ERR_FATAL_LOGIN &&
        login_code(entry, iscsid_code) == MANYPATH_E_AUTH)
        return "the target did not prove who it is (mutual CHAP: username_in, password_in), or it "
               "rejected the login for good (wrong name or portal)";
    return mp_iscsid_error_text(iscsid_code);
}

static void login_answered(void *owner, const struct mp_answer *answer)
{
    struct mp_session_entry *entry = owner;
    struct mp_session session;
    struct manypath_error error;

    entry->exchange = NULL;
    entry->login_begin_ns = answer->sent_ns;
    if (answer->error.code != 0) {
        error = answer->error;
        mp_copy(error.address, sizeof error.address, entry->address);
        error.port = entry->portal.port;
        login_over(entry, IDLE, &error);
    } else if (answer->iscsid_code == 0 && look(entry, &session) == 0) {
        came_up(entry, &session);
    } else if (answer->iscsid_code == 0 || answer->iscsid_code == MP_ISCSID_ERR_SESS_EXISTS) {
        if (answer->iscsid_code != 0) {
            entry->existed = true; /* somebody else's login */
            entry->ours = false;
        }
        entry->settle_until_ns = mp_now_ns() + SETTLE_LIMIT;
        settle(entry);
    } else {
        fail_login(entry, login_code(entry, answer->iscsid_code), 0, answer->iscsid_code,
                   login_text(entry, answer->iscsid_code));
    }
}

/* Those who wait are told at once; iscsid goes on trying until its own timeout, so the entry stays
 * IN_LOGIN. */
static void portal_is_dead(struct mp_session_entry *entry, int sys_errno)
{
    struct manypath_error error;

    login_error(entry, MANYPATH_E_REFUSED, sys_errno, 0,
                sys_errno == ECONNREFUSED ? "the portal refuses connections"
                                          : "the portal cannot be reached",
                &error);
    tell(entry, &entry->logins, &error);
    settle_entry(entry);
}

static void cool(struct mp_session_entry *entry)
{
    uint64_t longer = entry->cooling_ns * 2;

    entry->cooling_ns = longer < COOLING_FIRST     ? COOLING_FIRST
                        : longer > COOLING_LONGEST ? COOLING_LONGEST
                                                   : longer;
    entry->state = COOLING;
    mp_engine_arm(entry->sessions->handle, &entry->timer, mp_now_ns() + entry->cooling_ns);
}

static bool says_dead(int sys_errno)
{
    return sys_errno == ECONNREFUSED || sys_errno == ECONNRESET || sys_errno == EHOSTUNREACH ||
           sys_errno == ENETUNREACH;
}

/* What our own connection came to. */
static void portal_told(struct mp_session_entry *entry, int sys_errno)
{
    if (entry->state == COOLING && sys_errno == 0)
        begin_login(entry, LIST_FIRST(&entry->logins)->terms);
    else if (entry->state == COOLING)
        cool(entry);
    else if (says_dead(sys_errno))
        portal_is_dead(entry, sys_errno);
}

static void portal_checked(struct mp_source *source, uint32_t epoll_events)
{
    struct mp_session_entry *entry =
        (struct mp_session_entry *)((char *)source -
                                    offsetof(struct mp_session_entry, portal_check));
    int error = 0;
    socklen_t size = sizeof error;

    (void)epoll_events;
    getsockopt(source->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    mp_engine_unwatch(entry->sessions->handle, source);
    portal_told(entry, error);
}

/* iscsid has not answered for a while and the kernel shows no session, so iscsid has no TCP
 * connection yet: find out whether the portal refuses. A portal that is silent is left to the
 * deadline. */
static void check_portal(struct mp_session_entry *entry)
{
    struct manypath *handle = entry->sessions->handle;
    struct sockaddr_storage address;
    socklen_t length = mp_portal_sockaddr(&entry->portal, &address);
    struct mp_source *source = &entry->portal_check;

    entry->checked = true;
    source->fd = socket(entry->portal.family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    source->ready = portal_checked;
    if (source->fd < 0)
        return;
    int result = connect(source->fd, (struct sockaddr *)&address, length) < 0 ? errno : 0;

    if (result == EINPROGRESS) {
        mp_engine_watch(handle, source, EPOLLOUT);
        return;
    }
    mp_engine_unwatch(handle, source);
    portal_told(entry, result);
}

/* Time to ask again, or time is up for the answer. */
static void cooled(struct mp_session_entry *entry)
{
    struct manypath *handle = entry->sessions->handle;

    if (LIST_EMPTY(&entry->logins)) { /* nobody waits any more */
        entry->state = IDLE;
        settle_entry(entry);
    } else if (entry->portal_check.fd >= 0) {
        mp_engine_unwatch(handle, &entry->portal_check);
        cool(entry);
    } else {
        mp_engine_arm(handle, &entry->timer, mp_now_ns() + COOLING_CONNECT);
        check_portal(entry);
    }
}

/* After a failure that some did not hear of: with other credentials at once, for those who are
 * patient when the portal is back. */
static void login_again(struct mp_session_entry *entry)
{
    const struct mp_session_wait *wait = first_in_a_hurry(entry);

    if (wait != NULL)
        begin_login(entry, wait->terms);
    else
        cool(entry);
}

static void login_late(struct mp_session_entry *entry)
{
    struct manypath *handle = entry->sessions->handle;
    uint64_t sent_ns = mp_exchange_sent_ns(entry->exchange);
    struct mp_session session;
    int result = sent_ns != 0 ? look(entry, &session) : -EAGAIN;

    if (result == 0) {
        entry->login_begin_ns = sent_ns;
        mp_client_forget(handle->client, entry->exchange);
        entry->exchange = NULL;
        came_up(entry, &session);
        return;
    }
    mp_engine_arm(handle, &entry->timer, mp_now_ns() + ANSWER_CHECK);
    uint64_t since_ns = mp_client_answered_ns(handle->client);

    if (since_ns < sent_ns)
        since_ns = sent_ns;
    if (result != -EAGAIN && !LIST_EMPTY(&entry->logins) && !entry->checked &&
        mp_now_ns() - since_ns > PORTAL_CHECK_AFTER)
        check_portal(entry);
}

static void send_login(struct mp_session_entry *entry)
{
    struct manypath *handle = entry->sessions->handle;

    entry->state = IN_LOGIN;
    entry->ours = true;
    entry->sid = -1;
    entry->checked = false;
    entry->exchange = mp_client_login(handle->client, &entry->portal, entry->iqn, &entry->terms,
                                      login_answered, entry);
    if (entry->exchange == NULL) {
        fail_login(entry, MANYPATH_E_SYSTEM, ENOMEM, 0, "out of memory");
        return;
    }
    mp_engine_arm(handle, &entry->timer, mp_now_ns() + ANSWER_CHECK);
}

/* With the lock: another process may have been quicker. */
static void look_again(struct mp_session_entry *entry)
{
    struct mp_session session;
    int result = look(entry, &session);

    if (LIST_EMPTY(&entry->logins)) { /* nobody waits any more */
        login_over(entry, IDLE, NULL);
        return;
    }
    if (result != 0 || !entry->ours || session.sid != entry->sid) { /* not the one we made */
        entry->existed = result == 0 || result == -EAGAIN;
        entry->ours = false;
        entry->login_begin_ns = 0;
    }
    if (result == 0) {
        came_up(entry, &session);
    } else if (result == -EAGAIN) {
        entry->settle_until_ns = 0;
        settle_later(entry);
    } else if (entry->lock.exclusive) {
        send_login(entry);
    } else { /* it went meanwhile */
        mp_lock_acquire(entry->sessions->handle, &entry->lock, true);
    }
}

/* Another process may have logged in and work with the session: then sharing it is enough. */
static void still_locking(struct mp_session_entry *entry)
{
    struct manypath *handle = entry->sessions->handle;
    struct mp_session session;
    int result = look(entry, &session);

    mp_engine_arm(handle, &entry->timer, mp_now_ns() + SETTLE_POLL);
    if (entry->lock.exclusive && (result == 0 || result == -EAGAIN))
        mp_lock_acquire(handle, &entry->lock, false);
}

static void begin_login(struct mp_session_entry *entry, const struct mp_login_terms *terms)
{
    struct manypath *handle = entry->sessions->handle;
    struct mp_session session;
    int result = look(entry, &session);

    mp_chap_hold(terms->chap);
    mp_chap_release(entry->terms.chap);
    entry->terms = *terms;
    mp_engine_unwatch(handle, &entry->portal_check);
    mp_engine_disarm(handle, &entry->timer);
    entry->state = LOCKING;
    mp_engine_arm(handle, &entry->timer, mp_now_ns() + SETTLE_POLL);
    mp_lock_acquire(handle, &entry->lock, result != 0 && result != -EAGAIN);
}

/* Somebody wants it after all. */
static void stop_parting(struct mp_session_entry *entry)
{
    static const struct manypath_error none;

    entry->state = UP;
    mp_engine_disarm(entry->sessions->handle, &entry->timer);
    mp_lock_release(&entry->lock);
    tell(entry, &entry->logouts, &none);
}

void mp_session_login(struct mp_session_entry *entry, struct mp_session_wait *wait)
{
    static const struct manypath_error none;
    enum mp_session_state state;

    if (wait->works)
        entry->users--; /* begins anew, with the lock still held */
    wait->works = false;
    if (entry->state == PARTING)
        stop_parting(entry);
    if (entry->state == UP) {
        if (entry->lock.state == MP_LOCK_HELD &&
            mp_sysfs_session_state(entry->sessions->handle->host->sysfs_root, entry->sid, &state) ==
                0 &&
            state == MP_SESSION_LOGGED_IN) {
            begin_work(entry, wait);
            wait->done(wait, &none);
            return;
        }
        entry->state = IDLE; /* it went behind our back, or may have gone */
    }
    LIST_INSERT_HEAD(&entry->logins, wait, link);
    wait->linked = true;
    wait->due = false;
    if (entry->state == IDLE && wait->patient)
        cool(entry);
    else if (entry->state == IDLE || (entry->state == COOLING && !wait->patient))
        begin_login(entry, wait->terms);
    else if (entry->state == IN_LOGIN)
        mp_exchange_want(entry->exchange, true);
    /* else what goes on ends in an answer */
}

/* ---- logout ---- */

static void logout_over(struct mp_session_entry *entry, const struct manypath_error *error)
{
    static const struct manypath_error none;

    entry->state = IDLE;
    entry->ours = entry->left = entry->several = false;
    entry->sid = -1;
    mp_engine_disarm(entry->sessions->handle, &entry->timer);
    mp_lock_release(&entry->lock);
    tell(entry, &entry->logouts, error != NULL ? error : &none);
    if (!LIST_EMPTY(&entry->logins) && entry->state == IDLE)
        begin_login(entry, LIST_FIRST(&entry->logins)->terms);
    else
        settle_entry(entry);
}

/* After iscsid's answer: is it gone from the kernel? */
static void leave(struct mp_session_entry *entry)
{
    struct manypath *handle = entry->sessions->handle;
    struct manypath_error error;
    enum mp_session_state state;

    if (mp_sysfs_session_state(handle->host->sysfs_root, entry->sid, &state) == -ENOENT) {
        if (entry->several)
            part(entry); /* from the next one */
        else
            logout_over(entry, NULL);
    } else if (mp_now_ns() < entry->settle_until_ns) {
        entry->state = LEAVING;
        mp_engine_arm(handle, &entry->timer, mp_now_ns() + SETTLE_POLL);
    } else {
        mp_error(&error, MANYPATH_E_LOGOUT, MANYPATH_PHASE_LOGOUT, 0,
                 "session %d to %s through portal %s port %u is still there after logout: iscsid "
                 "says %s",
                 entry->sid, entry->iqn, entry->address, entry->portal.port,
                 mp_iscsid_error_text(entry->logout_code));
        mp_copy(error.address, sizeof error.address, entry->address);
        error.port = entry->portal.port;
        error.iscsid_code = entry->logout_code;
        logout_over(entry, &error);
    }
}

static void logout_answered(void *owner, const struct mp_answer *answer)
{
    struct mp_session_entry *entry = owner;

    entry->exchange = NULL;
    if (answer->error.code != 0) {
        logout_over(entry, &answer->error);
        return;
    }
    entry->logout_code = answer->iscsid_code;
    /* iscsid.safe_logout and a mounted device: it has not even begun */
    entry->settle_until_ns =
        mp_now_ns() + (answer->iscsid_code == MP_ISCSID_ERR_BUSY ? 0 : SETTLE_LIMIT);
    leave(entry);
}

static bool given_up(const struct mp_session_entry *entry, const struct mp_disk *disk)
{
    const struct mp_session_wait *wait;

    LIST_FOREACH(wait, &entry->logouts, link)
    if (wait->gives_up != NULL && wait->gives_up(wait, disk))
        return true;
    return false;
}

/* Other SCSI devices use this session: another volume on the same target. */
static bool carries_disks(const struct mp_session_entry *entry, const struct mp_session *session)
{
    struct mp_disk *disks = NULL;
    size_t count = 0;
    int result = mp_sysfs_session_disks(entry->sessions->handle->host->sysfs_root, session->host,
                                        session->sid, &disks, &count);
    bool carries = result < 0 && result != -ENOENT; /* unreadable: leave it alone */

    for (size_t i = 0; i < count; i++)
        if (!given_up(entry, &disks[i]))
            carries = true;
    free(disks);
    return carries;
}

/* By name and portal: a sid is only a number. */
static bool find(const struct mp_session_entry *entry, struct mp_session *ret_session)
{
    return mp_sysfs_find_session(entry->sessions->handle->host->sysfs_root, entry->iqn,
                                 &entry->portal, ret_session) == 0;
}

/* A session that nothing rests on. Only if there are several are all sessions of the host read. */
static bool find_idle(const struct mp_session_entry *entry, struct mp_session *ret_session)
{
    struct mp_session *sessions = NULL;
    size_t count = 0;
    bool found = false;

    if (!entry->several)
        return find(entry, ret_session) && !carries_disks(entry, ret_session);
    if (mp_sysfs_sessions(entry->sessions->handle->host->sysfs_root, &sessions, &count) < 0)
        return false;
    for (size_t i = 0; i < count && !found; i++) {
        found = strcmp(sessions[i].iqn, entry->iqn) == 0 &&
                mp_portal_equal(&sessions[i].portal, &entry->portal) &&
                !carries_disks(entry, &sessions[i]);
        if (found)
            *ret_session = sessions[i];
    }
    free(sessions);
    return found;
}

void mp_session_several(struct mp_session_entry *entry)
{
    entry->several = true;
}

/* With the lock exclusively: nobody can begin to use the session now. */
static void part(struct mp_session_entry *entry)
{
    struct manypath *handle = entry->sessions->handle;
    struct mp_session session;

    if (!find_idle(entry, &session)) {
        logout_over(entry, NULL);
        return;
    }
    if (entry->reap_until_ns == 0)
        entry->reap_until_ns = mp_now_ns() + REAP_LIMIT;
    if (mp_now_ns() < entry->reap_until_ns &&
        mp_sysfs_session_has_targets(handle->host->sysfs_root, session.host, session.sid)) {
        mp_engine_arm(handle, &entry->timer, mp_now_ns() + REAP_CHECK);
        return;
    }
    entry->sid = session.sid;
    entry->state = IN_LOGOUT;
    entry->exchange = mp_client_logout(handle->client, session.sid, logout_answered, entry);
    if (entry->exchange == NULL) {
        struct manypath_error error;

        mp_error(&error, MANYPATH_E_SYSTEM, MANYPATH_PHASE_LOGOUT, ENOMEM, "out of memory");
        logout_over(entry, &error);
        return;
    }
    mp_engine_arm(handle, &entry->timer, mp_now_ns() + ANSWER_CHECK);
}

/* Another process works with it. Once it has disks on it, that is the answer. */
static void still_parting(struct mp_session_entry *entry)
{
    struct manypath *handle = entry->sessions->handle;
    struct manypath_error busy, error;
    struct mp_session session;

    if (entry->lock.state == MP_LOCK_HELD) {
        part(entry);
        return;
    }
    if (!find_idle(entry, &session)) {
        logout_over(entry, NULL);
    } else if (mp_now_ns() < entry->parting_until_ns) {
        mp_engine_arm(handle, &entry->timer, mp_now_ns() + PARTING_CHECK);
    } else {
        mp_lock_busy(&entry->lock, MANYPATH_E_IN_USE, MANYPATH_PHASE_LOGOUT, &busy);
        mp_error(&error, MANYPATH_E_IN_USE, MANYPATH_PHASE_LOGOUT, EAGAIN,
                 "session %d to %s through portal %s port %u stays logged in: %.200s", session.sid,
                 entry->iqn, entry->address, entry->portal.port, busy.message);
        logout_over(entry, &error);
    }
}

static void begin_logout(struct mp_session_entry *entry)
{
    const struct mp_session_wait *wait;

    entry->parting_until_ns = 0;
    LIST_FOREACH(wait, &entry->logouts, link)
    if (wait->until_ns > entry->parting_until_ns)
        entry->parting_until_ns = wait->until_ns;
    if (entry->parting_until_ns == 0)
        entry->parting_until_ns = mp_now_ns() + PARTING_LIMIT;
    entry->reap_until_ns = 0;
    entry->state = PARTING;
    mp_lock_acquire(entry->sessions->handle, &entry->lock, true);
    if (entry->state == PARTING && entry->lock.state == MP_LOCK_WAITING)
        still_parting(entry);
}

/* No answer yet, which others may wait for too: is the session gone all the same? Not asked at
 * once: a session loses its attributes some time before the kernel, and then iscsid, are done with
 * it. */
static void logout_late(struct mp_session_entry *entry)
{
    struct manypath *handle = entry->sessions->handle;
    uint64_t sent_ns = mp_exchange_sent_ns(entry->exchange);
    uint64_t silence_ns = sent_ns != 0 ? mp_now_ns() - sent_ns : 0;
    enum mp_session_state state;
    bool gone = silence_ns > LOGOUT_PATIENCE &&
                mp_sysfs_session_state(handle->host->sysfs_root, entry->sid, &state) == -ENOENT;

    if (!gone && silence_ns < LOGOUT_SILENCE) {
        mp_engine_arm(handle, &entry->timer, mp_now_ns() + ANSWER_CHECK);
        return;
    }
    mp_client_forget(handle->client, entry->exchange);
    entry->exchange = NULL;
    if (gone || LIST_EMPTY(&entry->logouts))
        logout_over(entry, NULL);
    else
        begin_logout(entry);
}

void mp_session_logout(struct mp_session_entry *entry, struct mp_session_wait *wait)
{
    static const struct manypath_error none;

    /* In login: the kernel has no session yet; should one come, it is logged out when the last
     * holder is gone. */
    if (!mp_session_exclusive(entry) || entry->state == IN_LOGIN || entry->state == COOLING) {
        wait->done(wait, &none);
        return;
    }
    LIST_INSERT_HEAD(&entry->logouts, wait, link);
    wait->linked = true;
    wait->due = false;
    if (entry->state != PARTING && entry->state != IN_LOGOUT && entry->state != LEAVING)
        begin_logout(entry);
}

/* ---- timers and holders ---- */

static void entry_timer(struct mp_timer *timer)
{
    struct mp_session_entry *entry =
        (struct mp_session_entry *)((char *)timer - offsetof(struct mp_session_entry, timer));

    if (entry->state == LOCKING)
        still_locking(entry);
    else if (entry->state == IN_LOGIN)
        login_late(entry);
    else if (entry->state == COOLING)
        cooled(entry);
    else if (entry->state == SETTLE)
        settle(entry);
    else if (entry->state == PARTING)
        still_parting(entry);
    else if (entry->state == IN_LOGOUT)
        logout_late(entry);
    else if (entry->state == LEAVING)
        leave(entry);
}

/* Nobody holds it: what was made for nothing is taken back, then the entry goes. */
static void settle_entry(struct mp_session_entry *entry)
{
    bool unsent = entry->state == IN_LOGIN && mp_exchange_sent_ns(entry->exchange) == 0;

    if (entry->holders > 0 || entry->busy > 0)
        return;
    bool left = entry->left && (entry->state == UP || entry->state == IDLE);
    struct mp_session session;

    entry->left = false;
    if ((entry->state == UP && entry->ours) ||
        (left && find(entry, &session) && !carries_disks(entry, &session))) {
        mp_log(&entry->sessions->handle->log, MANYPATH_LOG_INFO,
               "session %d to %s through portal %s port %u is not needed and is logged out",
               entry->sid, entry->iqn, entry->address, entry->portal.port);
        begin_logout(entry);
    } else if (entry->state == IDLE || entry->state == LOCKING || entry->state == UP ||
               entry->state == COOLING || unsent || (entry->state == SETTLE && !entry->ours)) {
        end_entry(entry);
    } else if (entry->state == IN_LOGIN) {
        mp_exchange_want(entry->exchange, false);
    }
}

struct mp_session_entry *mp_session_hold(struct mp_sessions *sessions,
                                         const struct mp_portal *portal, const char *iqn)
{
    struct mp_session_entry *entry;

    TAILQ_FOREACH(entry, &sessions->entries, link)
    if (mp_portal_equal(&entry->portal, portal) && strcmp(entry->iqn, iqn) == 0)
        break;
    if (entry == NULL) {
        entry = calloc(1, sizeof *entry);
        if (entry == NULL)
            return NULL;
        entry->sessions = sessions;
        entry->portal = *portal;
        mp_portal_format(portal, entry->address, sizeof entry->address);
        mp_copy(entry->iqn, sizeof entry->iqn, iqn);
        mp_lock_name_session(&entry->lock, portal, iqn);
        entry->lock.done = locked;
        entry->sid = entry->host = -1;
        entry->portal_check.fd = -1;
        entry->timer.fire = entry_timer;
        LIST_INIT(&entry->logins);
        LIST_INIT(&entry->logouts);
        TAILQ_INSERT_TAIL(&sessions->entries, entry, link);
    }
    entry->holders++;
    return entry;
}

void mp_session_drop(struct mp_session_entry *entry)
{
    entry->holders--;
    settle_entry(entry);
}

void mp_session_keep(struct mp_session_entry *entry)
{
    entry->ours = entry->left = false;
}

void mp_session_leave(struct mp_session_entry *entry)
{
    entry->left = true;
}

void mp_session_stop_waiting(struct mp_session_wait *wait)
{
    if (wait->linked)
        LIST_REMOVE(wait, link);
    wait->linked = false;
}

uint64_t mp_session_silence_ns(const struct mp_session_entry *entry)
{
    if (entry->state == LOCKING)
        return mp_now_ns() - entry->lock.since_ns;
    if (entry->state != IN_LOGIN)
        return UINT64_MAX;
    uint64_t sent_ns = mp_exchange_sent_ns(entry->exchange);

    return sent_ns != 0 ? mp_now_ns() - sent_ns : 0;
}

void mp_session_pending(const struct mp_session_entry *entry, struct manypath_error *ret_error)
{
    const char *reason = "no answer from the portal yet";
    struct manypath_error busy;

    if (entry->state == LOCKING) {
        mp_lock_busy(&entry->lock, MANYPATH_E_NO_ANSWER, MANYPATH_PHASE_LOGIN, &busy);
        reason = busy.message;
    }
    if (entry->state == IN_LOGIN && mp_exchange_sent_ns(entry->exchange) == 0)
        reason = "iscsid has not taken the request yet";
    else if (entry->state == COOLING)
        reason = "the portal is not there; it is asked again and again";
    else if (entry->state == SETTLE)
        reason = "the session exists but is not logged in";
    else if (entry->state == PARTING || entry->state == IN_LOGOUT || entry->state == LEAVING)
        reason = "a logout of this session is going on";
    mp_error(ret_error, MANYPATH_E_NO_ANSWER, MANYPATH_PHASE_LOGIN, 0,
             "login to %s through portal %s port %u: %s", entry->iqn, entry->address,
             entry->portal.port, reason);
    mp_copy(ret_error->address, sizeof ret_error->address, entry->address);
    ret_error->port = entry->portal.port;
}
