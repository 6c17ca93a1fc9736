/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions: until one is gone. */
#include "error.h"
#include "iscsid_codec.h"
#include "session_state.h"
#include "text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* How long iscsid's answer to a logout is waited for although the session looks gone. */
#define LOGOUT_PATIENCE (2000 * MP_MS)
/* iscsid's own limit for a logout is 15 s (logout_timeout): longer without an answer, and it will
 * not come. */
#define LOGOUT_SILENCE (20000 * MP_MS)
/* How often a logout that waits for another process looks whether the session has disks by now. */
#define PARTING_CHECK (100 * MP_MS)
/* The kernel deletes a disk before its SCSI target, and tells of neither; a logout meanwhile makes it
 * remove the target twice (a warning in sysfs_remove_group() of Linux 6.1). This is how long the process
 * that deletes gets for the rest of it. */
#define REAP_CHECK (10 * MP_MS)
#define REAP_LIMIT (1000 * MP_MS)
/* How long it waits if nobody says. */
#define PARTING_LIMIT (10000 * MP_MS)

static void part(struct mp_session_entry *entry);

static void logout_over(struct mp_session_entry *entry, const struct manypath_error *error)
{
    static const struct manypath_error none;

    entry->state = MP_ENTRY_IDLE;
    entry->ours = entry->left = entry->several = false;
    entry->sid = -1;
    mp_engine_disarm(entry->sessions->handle, &entry->timer);
    mp_lock_release(&entry->lock);
    mp_entry_tell(entry, &entry->logouts, error != NULL ? error : &none);
    if (!LIST_EMPTY(&entry->logins) && entry->state == MP_ENTRY_IDLE)
        mp_entry_begin_login(entry, LIST_FIRST(&entry->logins)->terms);
    else
        mp_entry_settle(entry);
}

/* After iscsid's answer: is it gone from the kernel? */
static void leave(struct mp_session_entry *entry)
{
    struct manypath *handle = entry->sessions->handle;
    struct manypath_error error;
    enum mp_session_state state;

    if (mp_sysfs_session_state(handle->host->sysfs_root, entry->sid, &state) == -ENOENT) {
        if (entry->several) { /* from the next one */
            entry->state = MP_ENTRY_PARTING;
            entry->reap_until_ns = 0;
            part(entry);
        } else {
            logout_over(entry, NULL);
        }
    } else if (mp_now_ns() < entry->settle_until_ns) {
        entry->state = MP_ENTRY_LEAVING;
        mp_engine_arm(handle, &entry->timer, mp_now_ns() + MP_SETTLE_POLL);
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
        mp_now_ns() + (answer->iscsid_code == MP_ISCSID_ERR_BUSY ? 0 : MP_SETTLE_LIMIT);
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

/* Other SCSI devices use this session: another volume on the same target. 1, 0, or a negative errno. */
static int carries_disks(const struct mp_session_entry *entry, const struct mp_session *session)
{
    struct mp_disk *disks = NULL;
    size_t count = 0;
    int result = mp_sysfs_session_disks(entry->sessions->handle->host->sysfs_root, session->host,
                                        session->sid, &disks, &count);
    int carries = result < 0 && result != -ENOENT ? result : 0;

    for (size_t i = 0; i < count; i++)
        if (!given_up(entry, &disks[i]))
            carries = 1;
    free(disks);
    return carries;
}

/* By name and portal: a sid is only a number. Only if there are several are all sessions of the host
 * read. */
int mp_entry_find_idle(const struct mp_session_entry *entry, struct mp_session *ret_session)
{
    const char *root = entry->sessions->handle->host->sysfs_root;
    struct mp_session *sessions = NULL;
    size_t count = 0;
    int carries = 1;
    int result;

    if (!entry->several) {
        result = mp_sysfs_find_session(root, entry->iqn, &entry->portal, ret_session);
        if (result == 0)
            carries = carries_disks(entry, ret_session);
    } else {
        result = mp_sysfs_sessions(root, &sessions, &count);
    }
    for (size_t i = 0; i < count && carries > 0; i++) {
        if (strcmp(sessions[i].iqn, entry->iqn) != 0 ||
            !mp_portal_equal(&sessions[i].portal, &entry->portal))
            continue;
        carries = carries_disks(entry, &sessions[i]);
        *ret_session = sessions[i];
    }
    free(sessions);
    if (result < 0)
        return result == -ENOENT ? 0 : result;
    return carries < 0 ? carries : carries == 0;
}

/* Without an idle session nothing is logged out. What cannot be read is left alone, and told. */
static void stay(struct mp_session_entry *entry, int result)
{
    struct manypath_error error;

    if (result == 0) {
        logout_over(entry, NULL);
        return;
    }
    mp_error(
        &error, MANYPATH_E_IN_USE, MANYPATH_PHASE_LOGOUT, result,
        "the session to %s through portal %s port %u stays logged in: whether it has disks cannot "
        "be read from sysfs: errno %d",
        entry->iqn, entry->address, entry->portal.port, -result);
    mp_log(&entry->sessions->handle->log, MANYPATH_LOG_WARNING, "%s", error.message);
    logout_over(entry, &error);
}

/* With the lock exclusively: nobody can begin to use the session now. */
static void part(struct mp_session_entry *entry)
{
    struct manypath *handle = entry->sessions->handle;
    struct mp_session session;
    int idle = mp_entry_find_idle(entry, &session);

    if (idle <= 0) {
        stay(entry, idle);
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
    entry->state = MP_ENTRY_LOGOUT;
    entry->exchange = mp_client_logout(handle->client, session.sid, logout_answered, entry);
    if (entry->exchange == NULL) {
        struct manypath_error error;

        mp_error(&error, MANYPATH_E_SYSTEM, MANYPATH_PHASE_LOGOUT, ENOMEM, "out of memory");
        logout_over(entry, &error);
        return;
    }
    mp_engine_arm(handle, &entry->timer, mp_now_ns() + MP_ANSWER_CHECK);
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
    int idle = mp_entry_find_idle(entry, &session);

    if (idle <= 0) {
        stay(entry, idle);
    } else if (mp_now_ns() < entry->parting_until_ns) {
        mp_engine_arm(handle, &entry->timer, mp_now_ns() + PARTING_CHECK);
    } else {
        mp_lock_busy(&entry->lock, MANYPATH_E_IN_USE, MANYPATH_PHASE_LOGOUT, &busy);
        mp_error(&error, MANYPATH_E_IN_USE, MANYPATH_PHASE_LOGOUT, EAGAIN,
                 "session %d to %s through portal %s port %u stays logged in: %.200s", session.sid,
                 entry->iqn, entry->address, entry->portal.port, busy.message);
        mp_log(&handle->log, MANYPATH_LOG_INFO, "%s", error.message);
        logout_over(entry, &error);
    }
}

/* As long as the one says who came last: those before are gone, or it would not be the only holder. */
static void set_patience(struct mp_session_entry *entry)
{
    const struct mp_session_wait *wait = LIST_FIRST(&entry->logouts);
    uint64_t until_ns = wait != NULL ? wait->until_ns : 0;

    entry->parting_until_ns = until_ns != 0 ? until_ns : mp_now_ns() + PARTING_LIMIT;
}

void mp_entry_begin_logout(struct mp_session_entry *entry)
{
    struct manypath *handle = entry->sessions->handle;

    if (entry->exchange != NULL) /* a login that nobody wants any more */
        mp_client_forget(handle->client, entry->exchange);
    entry->exchange = NULL;
    mp_engine_unwatch(handle, &entry->portal_check);
    mp_engine_disarm(handle, &entry->timer);
    set_patience(entry);
    entry->reap_until_ns = 0;
    entry->state = MP_ENTRY_PARTING;
    mp_lock_acquire(handle, &entry->lock, true);
    if (entry->state == MP_ENTRY_PARTING && entry->lock.state == MP_LOCK_WAITING)
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
        mp_engine_arm(handle, &entry->timer, mp_now_ns() + MP_ANSWER_CHECK);
        return;
    }
    mp_client_forget(handle->client, entry->exchange);
    entry->exchange = NULL;
    if (gone)
        leave(entry);
    else if (LIST_EMPTY(&entry->logouts))
        logout_over(entry, NULL);
    else
        mp_entry_begin_logout(entry);
}

void mp_session_logout(struct mp_session_entry *entry, struct mp_session_wait *wait)
{
    static const struct manypath_error none;

    /* In login: the kernel has no session yet; should one come, it is logged out when the last
     * holder is gone. */
    if (!mp_session_exclusive(entry) || entry->state == MP_ENTRY_LOGIN) {
        wait->done(wait, &none);
        return;
    }
    LIST_INSERT_HEAD(&entry->logouts, wait, link);
    wait->linked = true;
    wait->due = false;
    if (entry->state == MP_ENTRY_PARTING)
        set_patience(entry);
    else if (entry->state != MP_ENTRY_LOGOUT && entry->state != MP_ENTRY_LEAVING)
        mp_entry_begin_logout(entry);
}

void mp_entry_stop_parting(struct mp_session_entry *entry)
{
    static const struct manypath_error none;

    entry->state = MP_ENTRY_UP;
    mp_engine_disarm(entry->sessions->handle, &entry->timer);
    mp_lock_release(&entry->lock);
    mp_entry_tell(entry, &entry->logouts, &none);
}

void mp_entry_locked_out(struct mp_session_entry *entry, const struct manypath_error *error)
{
    if (error->code == 0)
        part(entry);
    else
        logout_over(entry, error);
}

void mp_entry_logout_timer(struct mp_session_entry *entry)
{
    if (entry->state == MP_ENTRY_PARTING)
        still_parting(entry);
    else if (entry->state == MP_ENTRY_LOGOUT)
        logout_late(entry);
    else if (entry->state == MP_ENTRY_LEAVING)
        leave(entry);
}
