/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Detach, in an order that loses no write:
 *
 *   FIND     what the kernel has for these targets
 *   LOCK     the WWIDs found, against other processes; then FIND again: things may have changed
 *   FLUSH    refuse if in use, write back through the map
 *   REMOVE   the map, verified by uuid
 *   DELETE   the SCSI devices, side by side
 *   FORGET   multipathd has let go of the paths; the WWIDs are unlocked
 *   LOGOUT   sessions that no other LUN uses, side by side
 *
 * Everything is read from the kernel, so the same call goes on where an earlier one stopped. Without
 * force the first step that fails is the last one. With force each of the steps up to DELETE gets half
 * of the time that is left, errors are collected, and the next step does what can still be done.
 *
 * Each file calls only those below it; a step that is over calls mp_detach_next():
 *
 *   detach.c          the request, the operation, the order of the steps, the result
 *   detach_find.c     FIND, LOCK
 *   detach_unmap.c    FLUSH, REMOVE
 *   detach_delete.c   DELETE, FORGET
 *   detach_logout.c   LOGOUT
 *   detach_state.c    jobs, errors, time
 */
#ifndef MP_DETACH_STATE_H
#define MP_DETACH_STATE_H

#include "lock.h"
#include "map.h"
#include "request.h"
#include "session.h"
#include "sysfs.h"

enum { MP_DETACH_UUID_SIZE = 129 };

/* Jobs stop waiting this long before the deadline, so that their own error reaches the caller. */
#define MP_DETACH_ANSWER_RESERVE (UINT64_C(100) * 1000 * 1000)

enum mp_detach_step {
    DETACH_FIND,
    DETACH_LOCK,
    DETACH_FLUSH,
    DETACH_REMOVE,
    DETACH_DELETE,
    DETACH_FORGET,
    DETACH_LOGOUT,
    DETACH_DONE,
};

struct mp_detach;

/* What is flushed and removed as one: a map, or a disk without one. */
struct mp_detach_device {
    char uuid[MP_DETACH_UUID_SIZE];  /* of the map; "" for a disk */
    char disk[MANYPATH_DEVICE_SIZE]; /* without a map */
    int32_t flush;                   /* enum manypath_flush */
    bool dead;                       /* no path is usable, the disk does not answer */
    bool kept;                       /* it stays, and its disks with it */
    bool deferred;                   /* the map is in use, and goes when it is closed */
    bool open;                       /* by nobody knows whom: REMOVE looks again, and flushes */
    bool mapped;                     /* the disk came into a map since it was found */
    bool claimed;                    /* the disk, perhaps still, by a flush that was given up */
    struct mp_job *job;
};

/* One path's disk. */
struct mp_detach_disk {
    struct mp_disk disk; /* name "": its block device is not there */
    char map[MP_DETACH_UUID_SIZE];
    bool kept;
    bool stuck; /* it could not be deleted */
    struct mp_job *job;
};

/* One session; several targets of the request may share it. */
struct mp_detach_session {
    struct mp_detach *detach;
    struct mp_portal portal;
    char iqn[MANYPATH_IQN_SIZE];
    int32_t sid; /* -1: not there */
    int32_t host;
    struct mp_session_entry *entry;
    struct mp_session_wait wait;
};

struct mp_detach {
    struct manypath_operation operation;
    enum mp_detach_step step;
    bool whole_map;
    bool force;
    bool reached;          /* FLUSH */
    bool blind;            /* FIND or LOCK failed, perhaps the second time: force ends, too */
    int32_t earlier_flush; /* enum manypath_flush, the worst before FIND was done again */
    size_t disk_count;
    struct mp_detach_disk *disks;
    size_t session_count;
    struct mp_detach_session *sessions;
    size_t device_count;
    struct mp_detach_device *devices;
    size_t lock_count;
    struct mp_detach_lock *locks; /* in the order in which they are taken */
    struct mp_job *forget_job;
    unsigned jobs;
    unsigned outstanding;  /* jobs or logouts of the current step */
    struct mp_timer limit; /* of the current step, with force */
    struct mp_warnings warnings;
    struct manypath_detachment *detachment;
};

struct mp_detach_lock {
    struct mp_lock lock;
    struct mp_detach *detach;
    char wwid[MANYPATH_WWID_SIZE];
};

/* What runs in a worker. It owns all that run() touches. */
struct mp_detach_job {
    struct mp_job job;
    struct mp_detach *detach;
    struct mp_job **slot;
    struct mp_host *host;
    void (*finished)(struct mp_detach_job *job);
    size_t index; /* of the device or disk */
    uint64_t deadline_ns;
    char uuid[MP_DETACH_UUID_SIZE];
    struct mp_disk disk;
    struct mp_unmap_options options;
    struct mp_unmap_result unmap;
    bool held_stays;   /* DELETE: the disk, should somebody have taken it */
    bool claimed;      /* DELETE: see the device */
    size_t name_count; /* FORGET */
    char (*names)[MANYPATH_DEVICE_SIZE];
    int result;
    struct manypath_error error;
};

/* ---- detach.c ---- */

/* enum manypath_flush: the worst of all devices that are not in a map since. */
int32_t mp_detach_flush_outcome(const struct mp_detach *detach);
/* The current step is over: begins the next one, or ends the detach. */
void mp_detach_next(struct mp_detach *detach);

/* ---- the steps; each ends in mp_detach_next() ---- */

/* Finds, locks, and finds again until what was found is locked. */
void mp_detach_find(struct mp_detach *detach);
/* At once, or when the last job is over, which may still be at a map. */
void mp_detach_unlock(struct mp_detach *detach);
void mp_detach_flush(struct mp_detach *detach);
void mp_detach_remove(struct mp_detach *detach);
void mp_detach_delete(struct mp_detach *detach);
void mp_detach_forget(struct mp_detach *detach);
void mp_detach_logout(struct mp_detach *detach);

/* ---- detach_state.c ---- */

/* Collects an error; the first one is the operation's. */
void mp_detach_error(struct mp_detach *detach, const struct manypath_error *error);
/* Makes this error the operation's, before those collected so far. */
void mp_detach_error_first(struct mp_detach *detach, const struct manypath_error *error);
/* No thread or memory. */
void mp_detach_no_resources(struct mp_detach *detach, int phase);
/* Time since the phases before, whose sum is what has been stored so far. */
uint64_t mp_detach_phase_ns(const struct mp_detach *detach);
/* Until when the current step may last. */
uint64_t mp_detach_step_deadline(const struct mp_detach *detach);

/* NULL: out of memory. */
struct mp_detach_job *mp_detach_job_new(struct mp_detach *detach, void (*run)(struct mp_job *),
                                        void (*finished)(struct mp_detach_job *));
/* Counts as outstanding. On failure the error is collected, and the job freed; job NULL is one. */
bool mp_detach_job_start(struct mp_detach *detach, struct mp_detach_job *job, struct mp_job **slot,
                         int phase);
void mp_detach_job_abandon(struct mp_detach *detach, struct mp_job **slot);

#endif
