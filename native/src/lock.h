/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting for a lock that other processes and other handles honour (lockfile.h), on the engine's loop.
 *
 * The order that keeps everybody from waiting in a circle: a session's lock before a WWID's. Whoever has
 * a WWID's lock asks for no session's, and for another WWID's only in the order of their names. Whoever has a session's lock shared lets
 * go of it before wanting it exclusively.
 */
#ifndef MP_LOCK_H
#define MP_LOCK_H

#include "address.h"
#include "engine.h"
#include "lockfile.h"

enum mp_lock_state { MP_LOCK_IDLE, MP_LOCK_WAITING, MP_LOCK_HELD };

/* Embed it. Zero-initialised is idle. */
struct mp_lock {
    enum mp_lock_state state;
    bool exclusive; /* held, or waited for, so */
    struct manypath *handle;
    struct mp_host *host; /* while it is not idle: may be let go of when the handle is closed */
    int fd;               /* open while it is not idle */
    char name[MP_LOCKFILE_NAME_SIZE];
    struct mp_timer timer;
    uint64_t since_ns; /* when the waiting, or the holding, began */
    void (*done)(struct mp_lock *lock, const struct manypath_error *error);
};

/* What locks are named after. */
void mp_lock_name_session(struct mp_lock *lock, const struct mp_portal *portal, const char *iqn);
void mp_lock_name_wwid(struct mp_lock *lock, const char *wwid);

/*
 * Wants the lock of that name, shared or exclusively. done() is called once, perhaps before the call
 * returns: error->code 0 when it is held, E_SYSTEM when there can be no lock. Waits without end: give
 * up with mp_lock_release(). One that is held shared and wanted exclusively is let go of first, so look
 * again at what it protects.
 */
void mp_lock_acquire(struct manypath *handle, struct mp_lock *lock, bool exclusive);

/* From exclusive to shared, at once. */
void mp_lock_share(struct mp_lock *lock);

/* Lets go of it, or stops waiting; done() is not called. Idle: does nothing. */
void mp_lock_release(struct mp_lock *lock);

/* Whose lock is waited for, as an error with this code. */
void mp_lock_busy(const struct mp_lock *lock, int code, int phase,
                  struct manypath_error *ret_error);

#endif
