/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions: until one is up. */
#include "error.h"
#include "iscsid_codec.h"
#include "scsi.h"
#include "session_state.h"
#include "text.h"

#include <errno.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define SETTLE_POLL_PATIENT (500 * MP_MS) /* when nobody is in a hurry */
/* iscsid keeps a dead portal to itself until its login timeout: when it has been silent towards
 * everybody for this long, so is not just busy with other logins, ask the portal ourselves. */
#define PORTAL_CHECK_AFTER (1000 * MP_MS)

/* A portal that is away is asked after this long, then after twice as long each time. */
#define COOLING_FIRST (500 * MP_MS)
#define COOLING_LONGEST (4000 * MP_MS)
/* How long it gets to accept a connection then. */
#define COOLING_CONNECT (3000 * MP_MS)
/* iscsid counts a session as existing while it is still at the login, perhaps for a process that was
 * killed: how often it is asked again what became of that. */
#define EXISTS_AGAIN (1000 * MP_MS)

static void login_again(struct mp_session_entry *entry);

static void login_over(struct mp_session_entry *entry, enum mp_entry_state state,
                       const struct manypath_error *error)
{
    static const struct manypath_error none;
    struct manypath *handle = entry->sessions->handle;

    entry->state = state;
    entry->login_end_ns = mp_now_ns();
    mp_engine_disarm(handle, &entry->timer);
    mp_engine_unwatch(handle, &entry->portal_check);
    if (state == MP_ENTRY_UP) {
        entry->cooling_ns = 0;
        mp_lock_share(&entry->lock);
    } else {
        mp_lock_release(&entry->lock);
    }
    mp_entry_tell(entry, &entry->logins, error != NULL ? error : &none);
    mp_entry_rest(entry);
    if (entry->state == MP_ENTRY_IDLE && !LIST_EMPTY(&entry->logins))
        login_again(entry);
    else
        mp_entry_settle(entry);
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
    login_over(entry, MP_ENTRY_IDLE, &error);
}

static void came_up(struct mp_session_entry *entry, const struct mp_session *session)
{
    entry->sid = session->sid;
    entry->host = session->host;
    if (entry->ours)
        mp_scsi_recovery_timeout(entry->sessions->handle->host->sysfs_root, entry->sid,
                                 entry->terms.replacement_timeout_s);
    login_over(entry, MP_ENTRY_UP, NULL);
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
    uint64_t poll_ns = hurry ? MP_SETTLE_POLL : SETTLE_POLL_PATIENT;

    if (!hurry && (!entry->ours || !entry->lock.exclusive))
        mp_lock_release(&entry->lock);
    entry->state = MP_ENTRY_SETTLE;
    mp_engine_arm(entry->sessions->handle, &entry->timer, mp_now_ns() + poll_ns);
}

/* iscsid goes on with it, perhaps for ever: other processes may use the session, or log it out. */
static void stop_insisting(struct mp_session_entry *entry, int32_t sid)
{
    mp_log(
        &entry->sessions->handle->log, MANYPATH_LOG_WARNING,
        "session %d to %s through portal %s port %u is there, but iscsid has not logged it in yet; "
        "its lock is let go of",
        sid, entry->iqn, entry->address, entry->portal.port);
    mp_lock_share(&entry->lock);
    mp_entry_settle(entry);
}

static void settle(struct mp_session_entry *entry)
{
    struct mp_session session;
    int result = look(entry, &session);
    bool late = mp_now_ns() >= entry->settle_until_ns;

    entry->state = MP_ENTRY_SETTLE;
    if (result == -EAGAIN && entry->ours)
        entry->sid = session.sid;
    if (result == -EAGAIN && late && entry->lock.state == MP_LOCK_HELD && entry->lock.exclusive) {
        stop_insisting(entry, session.sid);
        if (entry->state != MP_ENTRY_SETTLE)
            return;
    }
    if (result == 0 && entry->lock.state != MP_LOCK_HELD)
        mp_entry_begin_login(entry, &entry->terms); /* looks again, with the lock */
    else if (result == 0)
        came_up(entry, &session);
    else if (result == -EAGAIN || !late)
        settle_later(entry); /* iscsid recovers it; those who wait have deadlines */
    else if (!entry->ours && first_in_a_hurry(entry) != NULL)
        mp_entry_begin_login(entry, &entry->terms); /* that of a process that is gone failed */
    else
        fail_login(entry, MANYPATH_E_SESSION, result, 0,
                   "iscsid made the session, or says it exists, but the kernel shows none");
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
        login_over(entry, MP_ENTRY_IDLE, &error);
    } else if (answer->iscsid_code == 0 && look(entry, &session) == 0) {
        came_up(entry, &session);
    } else if (answer->iscsid_code == 0 || answer->iscsid_code == MP_ISCSID_ERR_SESS_EXISTS) {
        if (answer->iscsid_code != 0) {
            entry->existed = true; /* somebody else's login */
            entry->ours = false;
        }
        entry->settle_until_ns = mp_now_ns() + (entry->ours ? MP_SETTLE_LIMIT : EXISTS_AGAIN);
        settle(entry);
    } else {
        fail_login(entry, login_code(entry, answer->iscsid_code), 0, answer->iscsid_code,
                   login_text(entry, answer->iscsid_code));
    }
}

/* Those who wait are told at once; iscsid goes on trying until its own timeout, so the entry stays
 * MP_ENTRY_LOGIN. */
static void portal_is_dead(struct mp_session_entry *entry, int sys_errno)
{
    struct manypath_error error;

    login_error(entry, MANYPATH_E_REFUSED, sys_errno, 0,
                sys_errno == ECONNREFUSED ? "the portal refuses connections"
                                          : "the portal cannot be reached",
                &error);
    mp_entry_tell(entry, &entry->logins, &error);
    mp_entry_settle(entry);
}

static void cool(struct mp_session_entry *entry)
{
    uint64_t longer = entry->cooling_ns * 2;

    entry->cooling_ns = longer < COOLING_FIRST     ? COOLING_FIRST
                        : longer > COOLING_LONGEST ? COOLING_LONGEST
                                                   : longer;
    entry->state = MP_ENTRY_COOLING;
    mp_entry_rest(entry);
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
    if (entry->state == MP_ENTRY_COOLING &&
        LIST_EMPTY(&entry->logins)) { /* nobody waits any more */
        entry->state = MP_ENTRY_IDLE;
        mp_engine_disarm(entry->sessions->handle, &entry->timer);
        mp_entry_settle(entry);
        return;
    }
    if (entry->state == MP_ENTRY_COOLING && sys_errno == 0)
        mp_entry_begin_login(entry, LIST_FIRST(&entry->logins)->terms);
    else if (entry->state == MP_ENTRY_COOLING)
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
        entry->state = MP_ENTRY_IDLE;
        mp_entry_settle(entry);
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
        mp_entry_begin_login(entry, wait->terms);
    else
        cool(entry);
}

/* iscsid gives a login this long; then it answers, or forgot to (open-iscsi issue 484). Asked once
 * the session was seen: a login that iscsid still connects has none yet. */
static bool answer_is_due(const struct mp_session_entry *entry, uint64_t sent_ns)
{
    return mp_now_ns() - sent_ns > entry->terms.timeout_s * 1000 * MP_MS + MP_SETTLE_LIMIT;
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
    if (sent_ns != 0 && result == -EAGAIN)
        entry->sid = session.sid;
    /* it may be gone again */
    bool seen = entry->sid >= 0 && (result == -EAGAIN || result == -ENOENT);

    if (seen && answer_is_due(entry, sent_ns)) {
        entry->login_begin_ns = sent_ns;
        mp_client_forget(handle->client, entry->exchange);
        entry->exchange = NULL;
        entry->settle_until_ns = 0;
        settle(entry);
        return;
    }
    mp_engine_arm(handle, &entry->timer, mp_now_ns() + MP_ANSWER_CHECK);
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

    entry->state = MP_ENTRY_LOGIN;
    entry->ours = true;
    entry->sid = -1;
    entry->checked = false;
    entry->exchange = mp_client_login(handle->client, &entry->portal, entry->iqn, &entry->terms,
                                      login_answered, entry);
    if (entry->exchange == NULL) {
        fail_login(entry, MANYPATH_E_SYSTEM, ENOMEM, 0, "out of memory");
        return;
    }
    mp_engine_arm(handle, &entry->timer, mp_now_ns() + MP_ANSWER_CHECK);
}

/* With the lock: another process may have been quicker. */
static void look_again(struct mp_session_entry *entry)
{
    struct mp_session session;
    int result = look(entry, &session);

    if (LIST_EMPTY(&entry->logins)) { /* nobody waits any more */
        login_over(entry, MP_ENTRY_IDLE, NULL);
        return;
    }
    if ((result != 0 && result != -EAGAIN) || !entry->ours ||
        session.sid != entry->sid) { /* not the one we made */
        entry->existed = result == 0 || result == -EAGAIN;
        entry->ours = false;
        entry->login_begin_ns = 0;
    }
    if (result == 0) {
        came_up(entry, &session);
    } else if (result == -EAGAIN) {
        entry->settle_until_ns = 0;
        mp_lock_share(&entry->lock);
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

    mp_engine_arm(handle, &entry->timer, mp_now_ns() + MP_SETTLE_POLL);
    if (entry->lock.exclusive && (result == 0 || result == -EAGAIN))
        mp_lock_acquire(handle, &entry->lock, false);
}

void mp_entry_begin_login(struct mp_session_entry *entry, const struct mp_login_terms *terms)
{
    struct manypath *handle = entry->sessions->handle;
    struct mp_session session;
    int result = look(entry, &session);

    mp_chap_hold(terms->chap);
    mp_chap_release(entry->terms.chap);
    entry->terms = *terms;
    mp_engine_unwatch(handle, &entry->portal_check);
    mp_engine_disarm(handle, &entry->timer);
    entry->state = MP_ENTRY_LOCKING;
    mp_engine_arm(handle, &entry->timer, mp_now_ns() + MP_SETTLE_POLL);
    mp_lock_acquire(handle, &entry->lock, result != 0 && result != -EAGAIN);
}

void mp_session_login(struct mp_session_entry *entry, struct mp_session_wait *wait)
{
    static const struct manypath_error none;
    enum mp_session_state state;

    if (wait->works)
        entry->users--; /* begins anew, with the lock still held */
    wait->works = false;
    if (entry->state == MP_ENTRY_PARTING)
        mp_entry_stop_parting(entry);
    if (entry->state == MP_ENTRY_UP) {
        if (entry->lock.state == MP_LOCK_HELD &&
            mp_sysfs_session_state(entry->sessions->handle->host->sysfs_root, entry->sid, &state) ==
                0 &&
            state == MP_SESSION_LOGGED_IN) {
            mp_entry_begin_work(entry, wait);
            wait->done(wait, &none);
            return;
        }
        entry->state = MP_ENTRY_IDLE; /* it went behind our back, or may have gone */
    }
    LIST_INSERT_HEAD(&entry->logins, wait, link);
    wait->linked = true;
    wait->due = false;
    if (entry->state == MP_ENTRY_IDLE && wait->patient)
        cool(entry);
    else if (entry->state == MP_ENTRY_IDLE || (entry->state == MP_ENTRY_COOLING && !wait->patient))
        mp_entry_begin_login(entry, wait->terms);
    else if (entry->state == MP_ENTRY_LOGIN)
        mp_exchange_want(entry->exchange, true);
    /* else what goes on ends in an answer */
}

void mp_entry_locked_in(struct mp_session_entry *entry, const struct manypath_error *error)
{
    if (error->code == 0)
        look_again(entry);
    else
        login_over(entry, MP_ENTRY_IDLE, error);
}

void mp_entry_login_timer(struct mp_session_entry *entry)
{
    if (entry->state == MP_ENTRY_LOCKING)
        still_locking(entry);
    else if (entry->state == MP_ENTRY_LOGIN)
        login_late(entry);
    else if (entry->state == MP_ENTRY_COOLING)
        cooled(entry);
    else if (entry->state == MP_ENTRY_SETTLE)
        settle(entry);
}
