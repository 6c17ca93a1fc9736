/* SPDX-License-Identifier: Apache-2.0 */
#include "error.h"
#include "fault.h"
#include "session_state.h"
#include "text.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

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
    entry->state = MP_ENTRY_IDLE;
    entry->dead = true;
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
    return entry->ours && entry->state == MP_ENTRY_UP && mp_session_exclusive(entry);
}
uint64_t mp_session_login_begin_ns(const struct mp_session_entry *entry)
{
    return entry->login_begin_ns;
}
uint64_t mp_session_login_end_ns(const struct mp_session_entry *entry)
{
    return entry->login_end_ns;
}
void mp_session_several(struct mp_session_entry *entry)
{
    entry->several = true;
}

/* ---- the lock between processes ---- */

static void locked(struct mp_lock *lock, const struct manypath_error *error)
{
    struct mp_session_entry *entry =
        (struct mp_session_entry *)((char *)lock - offsetof(struct mp_session_entry, lock));

    MP_FAULT("session.locked");
    if (entry->state == MP_ENTRY_LOCKING)
        mp_entry_locked_in(entry, error);
    else if (entry->state == MP_ENTRY_PARTING)
        mp_entry_locked_out(entry, error);
}

void mp_entry_begin_work(struct mp_session_entry *entry, struct mp_session_wait *wait)
{
    wait->works = true;
    entry->users++;
}

void mp_entry_rest(struct mp_session_entry *entry)
{
    if (entry->users == 0 && (entry->state == MP_ENTRY_UP || entry->state == MP_ENTRY_COOLING))
        mp_lock_release(&entry->lock);
}

void mp_session_done_with(struct mp_session_entry *entry, struct mp_session_wait *wait)
{
    if (!wait->works)
        return;
    wait->works = false;
    entry->users--;
    mp_entry_rest(entry);
}

/* ---- telling those who wait ---- */

/* A login failed, but not for this one: it is patient, or has other credentials. */
static bool waits_on(const struct mp_session_entry *entry, const struct mp_session_wait *wait,
                     const struct manypath_error *error)
{
    if (error->code == MANYPATH_E_AUTH)
        return !mp_chap_same(wait->terms->chap, entry->terms.chap);
    return wait->patient && error->retryable;
}

void mp_entry_tell(struct mp_session_entry *entry, struct mp_session_wait_list *list,
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
                mp_entry_begin_work(entry, wait);
            wait->done(wait, error);
        }
    } while (wait != NULL);
    entry->busy--;
}

/* ---- timers and holders ---- */

static void entry_timer(struct mp_timer *timer)
{
    struct mp_session_entry *entry =
        (struct mp_session_entry *)((char *)timer - offsetof(struct mp_session_entry, timer));

    if (entry->state < MP_ENTRY_UP)
        mp_entry_login_timer(entry);
    else
        mp_entry_logout_timer(entry);
}

/* What our login made for nothing, or a detach left to us, is logged out. What is logged in again by now,
 * by somebody else, is not what we made. */
static bool owes_logout(const struct mp_session_entry *entry, int32_t *ret_sid)
{
    struct mp_session session = {.sid = entry->sid};

    *ret_sid = entry->sid;
    if (entry->state == MP_ENTRY_UP && entry->ours)
        return true;
    if (!entry->left && (!entry->ours || entry->sid < 0))
        return false;
    int idle = mp_entry_find_idle(entry, &session);

    *ret_sid = session.sid;
    return idle < 0 || (idle > 0 && (entry->left || session.sid == entry->sid));
}

/* Nothing goes on that ends in an answer, which would have to be seen to then. */
static bool at_rest(const struct mp_session_entry *entry)
{
    switch (entry->state) {
    case MP_ENTRY_IDLE:
    case MP_ENTRY_LOCKING:
    case MP_ENTRY_COOLING:
    case MP_ENTRY_UP:
        return true;
    case MP_ENTRY_LOGIN:
        return mp_exchange_sent_ns(entry->exchange) == 0;
    case MP_ENTRY_SETTLE:
        return !entry->ours || mp_now_ns() >= entry->settle_until_ns;
    case MP_ENTRY_PARTING:
    case MP_ENTRY_LOGOUT:
    case MP_ENTRY_LEAVING:
        return false;
    }
    return false;
}

void mp_entry_settle(struct mp_session_entry *entry)
{
    int32_t sid;

    if (entry->holders > 0 || entry->busy > 0 || entry->dead)
        return;
    if (at_rest(entry) && owes_logout(entry, &sid)) {
        mp_log(&entry->sessions->handle->log, MANYPATH_LOG_INFO,
               "session %d to %s through portal %s port %u is not needed and is to be logged out",
               sid, entry->iqn, entry->address, entry->portal.port);
        mp_entry_begin_logout(entry);
    } else if (at_rest(entry)) {
        end_entry(entry);
    } else if (entry->state == MP_ENTRY_LOGIN) {
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
    mp_entry_settle(entry);
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
    if (entry->state == MP_ENTRY_LOCKING)
        return mp_now_ns() - entry->lock.since_ns;
    if (entry->state != MP_ENTRY_LOGIN)
        return UINT64_MAX;
    uint64_t sent_ns = mp_exchange_sent_ns(entry->exchange);

    return sent_ns != 0 ? mp_now_ns() - sent_ns : 0;
}

void mp_session_pending(const struct mp_session_entry *entry, struct manypath_error *ret_error)
{
    const char *reason = "no answer from the portal yet";
    struct manypath_error busy;

    if (entry->state == MP_ENTRY_LOCKING) {
        mp_lock_busy(&entry->lock, MANYPATH_E_NO_ANSWER, MANYPATH_PHASE_LOGIN, &busy);
        reason = busy.message;
    }
    if (entry->state == MP_ENTRY_LOGIN && mp_exchange_sent_ns(entry->exchange) == 0)
        reason = "iscsid has not taken the request yet";
    else if (entry->state == MP_ENTRY_COOLING)
        reason = "the portal is not there; it is asked again and again";
    else if (entry->state == MP_ENTRY_SETTLE)
        reason = "the session exists but is not logged in";
    else if (entry->state == MP_ENTRY_PARTING || entry->state == MP_ENTRY_LOGOUT ||
             entry->state == MP_ENTRY_LEAVING)
        reason = "a logout of this session is going on";
    mp_error(ret_error, MANYPATH_E_NO_ANSWER, MANYPATH_PHASE_LOGIN, 0,
             "login to %s through portal %s port %u: %s", entry->iqn, entry->address,
             entry->portal.port, reason);
    mp_copy(ret_error->address, sizeof ret_error->address, entry->address);
    ret_error->port = entry->portal.port;
}
