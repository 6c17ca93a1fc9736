/* SPDX-License-Identifier: Apache-2.0 */
#include "lock.h"

#include "error.h"
#include "text.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* The kernel tells nobody that a lock is free but a blocking call, which cannot be cancelled and would
 * take a thread each: so it is tried again. */
#define RETRY (UINT64_C(20) * 1000 * 1000)

void mp_lock_name_session(struct mp_lock *lock, const struct mp_portal *portal, const char *iqn)
{
    char address[MANYPATH_ADDRESS_SIZE];
    char text[MANYPATH_ADDRESS_SIZE + MANYPATH_IQN_SIZE + 16];

    mp_portal_format(portal, address, sizeof address);
    snprintf(text, sizeof text, "%s-%u-%s", address, portal->port, iqn);
    mp_lockfile_name("session", text, lock->name);
}

void mp_lock_name_wwid(struct mp_lock *lock, const char *wwid)
{
    mp_lockfile_name("wwid", wwid, lock->name);
}

static void no_lock(const struct mp_lock *lock, int result, struct manypath_error *ret_error)
{
    const char *directory = lock->host->runtime_dir;
    const char *remedy = "it must be there and writable, or be left for manypath to make";

    if (result == -EPERM || result == -ELOOP || result == -ENOTDIR)
        remedy = "it must be a directory that only this user can write to, or be left for manypath "
                 "to make";
    else if (result == -EMFILE || result == -ENFILE || result == -ENOMEM)
        remedy = "too many files are open, or there is no memory; try again";
    mp_error(ret_error, MANYPATH_E_SYSTEM, MANYPATH_PHASE_PREPARE, result,
             "cannot lock %s in %s: errno %d; %s", lock->name, directory, -result, remedy);
}

static void idle(struct mp_lock *lock)
{
    lock->state = MP_LOCK_IDLE;
    mp_engine_disarm(lock->handle, &lock->timer);
    mp_host_release(lock->host);
    lock->host = NULL;
}

static void try_lock(struct mp_lock *lock)
{
    struct manypath_error error = {0};
    int result = mp_lockfile_take(lock->host->runtime_dir, lock->name, lock->exclusive, &lock->fd);

    if (result == -EAGAIN) {
        mp_engine_arm(lock->handle, &lock->timer, mp_now_ns() + RETRY);
        return;
    }
    if (result < 0) {
        no_lock(lock, result, &error);
        idle(lock);
    } else {
        lock->state = MP_LOCK_HELD;
        lock->since_ns = mp_now_ns();
    }
    lock->done(lock, &error);
}

static void lock_timer(struct mp_timer *timer)
{
    try_lock((struct mp_lock *)((char *)timer - offsetof(struct mp_lock, timer)));
}

void mp_lock_acquire(struct manypath *handle, struct mp_lock *lock, bool exclusive)
{
    if (lock->state == MP_LOCK_IDLE) {
        lock->handle = handle;
        lock->host = mp_host_hold(handle->host);
        lock->fd = -1;
        lock->timer.fire = lock_timer;
    } else if (lock->state == MP_LOCK_HELD && !lock->exclusive && exclusive) {
        mp_lockfile_unlock(lock->fd);
    }
    lock->state = MP_LOCK_WAITING;
    lock->exclusive = exclusive;
    lock->since_ns = mp_now_ns();
    mp_engine_disarm(handle, &lock->timer);
    try_lock(lock);
}

void mp_lock_share(struct mp_lock *lock)
{
    if (lock->state != MP_LOCK_HELD || !lock->exclusive)
        return;
    mp_lockfile_share(lock->fd);
    lock->exclusive = false;
}

void mp_lock_release(struct mp_lock *lock)
{
    if (lock->state == MP_LOCK_IDLE)
        return;
    if (lock->state == MP_LOCK_HELD)
        mp_lockfile_drop(lock->host->runtime_dir, lock->name, lock->fd);
    else
        mp_lockfile_close(lock->fd);
    idle(lock);
}

void mp_lock_busy(const struct mp_lock *lock, int code, int phase, struct manypath_error *ret_error)
{
    char owner[48] = "";
    pid_t pid = lock->state != MP_LOCK_IDLE ? mp_lockfile_owner(lock->fd) : 0;

    if (pid > 0)
        snprintf(owner, sizeof owner, ", taken last by process %d", (int)pid);
    mp_error(ret_error, code, phase, EAGAIN,
             "another operation holds the lock %s/%s%s; it is let go of when that one ends",
             lock->handle->host->runtime_dir, lock->name, owner);
}
