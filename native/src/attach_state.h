/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attach. Each path walks on its own (attach_path.c):
 *
 *   WAITING -> LOGIN -> UP -> SCAN -> DEVICE -> IDENTITY -> READY
 *   (from any of these: UNDO, which takes back what the path made -> OVER)
 *
 * and the volume waits for them (attach_volume.c):
 *
 *   PREPARE -> PATHS -> MAP -> TIDY -> DONE, with a device
 *   (from any of these: UNDOING -> DONE, with an error)
 *
 * A single path has no map, and its targets are tried one after the other (attach_single.c).
 *
 * When the caller has its answer, the operation lives on until the last job it started has come
 * back, and as long as paths whose portal is away are waited for: those walk on, READY -> JOIN ->
 * in the map, until another operation wants the LUN (attach_late.c).
 *
 * Each file calls only those below it; a path that is ready or over reports by decide():
 *
 *   attach.c          the request, the operation, the result
 *   attach_volume.c   what the volume waits for, and what follows
 *   attach_late.c     paths that come when the caller has its answer
 *   attach_single.c   without multipath
 *   attach_choose.c   which disk it is
 *   attach_map.c      making the map, or joining it
 *   attach_policy.c   what multipathd leaves alone
 *   attach_end.c      the answer; failure and undoing
 *   attach_path.c     one path's walk, and taking it back
 *   attach_stale.c    who a disk is, and whether it is left over from another volume
 *   attach_job.c      what runs in a worker
 *   attach_state.c    warnings, time
 */
#ifndef MP_ATTACH_STATE_H
#define MP_ATTACH_STATE_H

#include "holders.h"
#include "identity.h"
#include "lock.h"
#include "map.h"
#include "multipathd_config.h"
#include "request.h"
#include "session.h"
#include "sysfs.h"
#include "wanted.h"

#define MP_MS UINT64_C(1000000) /* in nanoseconds */

enum mp_path_step {
    MP_PATH_WAITING, /* single path: for its turn */
    MP_PATH_LOGIN,
    MP_PATH_UP, /* logged in, waiting for the volume's other logins */
    MP_PATH_SCAN,
    MP_PATH_DEVICE,
    MP_PATH_IDENTITY,
    MP_PATH_READY,
    MP_PATH_JOIN, /* late: being added to the map */
    MP_PATH_UNDO, /* deletes the disk and logs out what was made for nothing */
    MP_PATH_OVER, /* let go: in the map, or error says why not */
};

enum mp_volume_step {
    MP_VOLUME_PREPARE,
    MP_VOLUME_PATHS,
    MP_VOLUME_MAP,
    MP_VOLUME_TIDY, /* for what failed paths made, which is being taken back */
    MP_VOLUME_UNDOING,
    MP_VOLUME_DONE, /* the caller has its answer */
};

struct mp_attach;

struct mp_attach_path {
    struct mp_attach *attach;
    struct mp_target target;
    enum mp_path_step step;
    struct mp_session_entry *session; /* held until the path is let go */
    struct mp_session_wait wait;
    struct mp_device_watch watch;
    struct mp_job *job; /* running for this path, or NULL */
    bool away;          /* its portal is: waited for after the caller has its answer */
    bool session_existed;
    bool disk_is_ours;     /* appeared by our scan */
    bool announced;        /* the kernel said that the block device is complete */
    bool missed;           /* it may have said so: events were lost */
    bool scanned_again;    /* for a disk that somebody may have deleted before it was seen */
    unsigned opens;        /* attempts to open it since it was announced */
    struct mp_timer timer; /* from SCAN to IDENTITY: when to look again, or to give up */
    uint64_t until_ns;     /* when to give up; until the caller has its answer the volume decides */
    unsigned rounds;       /* how often a disk was deleted that was left over */
    bool refuses;          /* somebody else has its disk: the volume must not be used; see error */
    uint64_t scan_ns;      /* when the scan began that brought the disk */
    struct mp_disk disk;
    bool has_disk;
    bool in_map; /* was handed to the map's job */
    int fd;      /* open and locked from IDENTITY until the map's job takes it; -1 */
    struct mp_identity identity;
    struct mp_holders holders;
    bool claimed; /* by them, or by who knows whom */
    int32_t sid, host;
    int32_t state; /* in the map */
    struct manypath_path_times times;
    struct manypath_error error;
};

struct mp_attach {
    struct manypath_operation operation;
    enum mp_volume_step step;
    uint32_t min_paths;
    bool single_path;
    struct mp_login_terms terms;
    struct mp_wanted wanted;           /* who the caller expects it to be */
    struct mp_identity identity;       /* the volume's, once chosen */
    struct mp_lock wwid_lock;          /* of that identity, while the map is worked on */
    char device[MANYPATH_DEVICE_SIZE]; /* of the map, once it is there */
    uint64_t paths_deadline_ns;        /* leaves time for the map before the operation's deadline */
    size_t path_count;
    struct mp_attach_path *paths;
    void (*decide)(struct mp_attach *attach); /* a path became ready or is over, or the volume is */
    struct mp_job *map_job, *prepare_job, *policy_job;
    struct mp_multipathd_config *config; /* once it is known */
    bool map_waits;                      /* for policy_job */
    bool unmade;   /* our map was removed again: what holds its disks was it */
    unsigned jobs; /* not yet back, ours or abandoned: they point to us */
    void (*on_lock)(struct mp_attach *attach, const struct manypath_error *error);
    struct mp_timer gather; /* when to scan without the logins that are late */
    uint64_t last_answer_ns, longest_gap_ns;
    /* When to stop waiting for the paths that are not there yet, then for failed ones that are being
     * taken back; afterwards, when to look whether late ones still have a map to join. */
    struct mp_timer grace;
    struct mp_warnings warnings;
    struct manypath_attach_times times;
    uint64_t usable_ns;                     /* since it began, when the volume was usable */
    struct manypath_attachment *attachment; /* the result: filled at the end, then the caller's */
    struct manypath_path *results;          /* of its paths */
};

/* What runs in a worker; it owns copies of all it needs. */
struct mp_attach_job {
    struct mp_job job;
    /* Not looked at in the worker. Held by the job: should the handle be closed meanwhile, the attach
     * keeps the WWID's lock until its last job is over. */
    struct mp_attach *attach;
    struct mp_attach_path *path; /* NULL: the volume's */
    struct mp_job **slot;        /* where those who wait for it keep it */
    struct mp_host *host;
    void (*finished)(struct mp_attach_job *job); /* not called when nobody waits any more */
    int result;
    struct manypath_error error;
    struct mp_disk disk;
    int32_t sid; /* delete: of the disk's session */
    struct mp_identity identity;
    int fd; /* the open disk, closed with the job unless it is taken; -1 */
    /* identity: */
    bool was_there, last_round, single_path, wants_serial;
    uint64_t appeared_ns;
    struct mp_holders holders;
    bool claimed, refuses;
    bool locked; /* the attach has the WWID's lock */
    bool unmade;
    bool deleted; /* it was left over from another volume: to be scanned again */
    char note[MANYPATH_MESSAGE_SIZE]; /* what was done to it and why, or "" */
    char wwid[MANYPATH_WWID_SIZE];
    uint64_t size_bytes;
    uint64_t deadline_ns;
    struct mp_map map;
    struct mp_multipathd_config *config; /* freed with the job; NULL: not known */
    bool join_only;
    size_t map_path_count;
    struct mp_map_path *map_paths; /* their descriptors are closed with the job */
};

/* ---- attach_state.c ---- */

/* Now, as the result's times are counted. */
uint64_t mp_attach_since_begin(const struct mp_attach *attach);
/* For the caller while it waits, for the log afterwards. */
void mp_attach_warn(struct mp_attach *attach, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* ---- attach_job.c ---- */

/* A job with a copy of the path's disk. NULL: out of memory. */
struct mp_attach_job *mp_attach_job_new(struct mp_attach *attach, struct mp_attach_path *path,
                                        void (*run)(struct mp_job *),
                                        void (*finished)(struct mp_attach_job *));
/* Takes the job over; on failure it is freed. */
bool mp_attach_job_start(struct mp_attach_job *job, struct mp_job **slot);
/* Nobody waits any more for the job in this slot, if there is one. */
void mp_attach_job_abandon(struct mp_attach *attach, struct mp_job **slot);
/* For a job that was not started. */
void mp_attach_job_free(struct mp_attach_job *job);

/* ---- attach_stale.c ---- */

/* The identity job: reads who the disk is and who has it, and removes a disk that was left over. */
void mp_attach_identify(struct mp_job *job);

/* ---- attach_path.c ---- */

/* Begins the walk, or begins it again. */
void mp_path_login(struct mp_attach_path *path);
/* Reads the LUN's disk from sysfs. -EAGAIN: its block device is not there yet. */
int mp_path_find_disk(struct mp_attach_path *path);
/* A ready path's disk is still there, as far as can be told; it cannot be replaced unnoticed, since its number is not given to
 * another one while we have it open. */
bool mp_path_disk_is_there(struct mp_attach_path *path);
/* The disk of a ready path is gone: back to UP, to be scanned again. */
void mp_path_lost_disk(struct mp_attach_path *path);
/* What was seen of a disk that is gone. */
void mp_path_forget_disk(struct mp_attach_path *path);
/* Sends all paths that are UP on to SCAN. */
void mp_paths_scan(struct mp_attach *attach);
/* Waits for paths once more: those that are UP scan. */
void mp_attach_paths_again(struct mp_attach *attach);
/* The volume rests on this path now: neither its disk nor its session is taken back. */
void mp_path_keep(struct mp_attach_path *path);
/* Fails the path with an error that names its portal. */
void mp_path_error(struct mp_attach_path *path, int code, int phase, int sys_errno,
                   const char *format, ...) __attribute__((format(printf, 5, 6)));
/* Fails a path that is not ready in time; the error says what it was waiting for. From UP on. */
void mp_path_overdue(struct mp_attach_path *path);
/* Fails the path; its error is set. */
void mp_path_fail(struct mp_attach_path *path);
/* Takes back what this path made: its disk, then its session. Used for a failed path, and for all
 * when the volume fails. */
void mp_path_undo(struct mp_attach_path *path);
/* Nothing of this path is held any more. */
void mp_path_let_go(struct mp_attach_path *path);
/* After the map was made, or given up: lets go of the WWID's lock unless a path joins or a disk is being
 * deleted. */
void mp_attach_unlock(struct mp_attach *attach);

/* ---- attach_end.c ---- */

/* Fills in the result and wakes the caller. What is still being undone goes on, and so do the paths
 * whose portal is away. */
void mp_attach_finish(struct mp_attach *attach);
/* The operation's error is set: everything that it made is taken back, then the caller is told. */
void mp_attach_fail(struct mp_attach *attach);
/* Of what failed: takes back the paths that are not waited for any more. */
void mp_attach_undo_paths(struct mp_attach *attach);
/* Sets the operation's error to the one that stands for all: the first of the most telling kind. */
void mp_attach_blame_paths(struct mp_attach *attach);
/* The map's job has it, and may be stuck in the kernel: it stays, and is undone when that comes back. */
bool mp_path_under_map_job(const struct mp_attach_path *path);
/* The map's job came back after the volume was given up. */
void mp_attach_map_unwanted(struct mp_attach_job *job);

/* ---- attach_map.c ---- */

/* It is logged in and perhaps has a disk, but is in no map: to be undone, or to join later. */
bool mp_path_is_loose(const struct mp_attach_path *path);
/* Wants the lock on the volume's identity; on_lock() is called once it is held, which may be at once.
 * Until then other processes may take disks away, so look again. */
void mp_attach_lock(struct mp_attach *attach,
                    void (*on_lock)(struct mp_attach *attach, const struct manypath_error *error));
/* With the lock: has another process taken away disks of ready paths? Those paths are UP again. */
bool mp_attach_lost_disks(struct mp_attach *attach);
/* Makes or joins the map of the ready paths, which have the volume's identity; then TIDY. */
void mp_attach_map(struct mp_attach *attach);
/* A job that makes or joins the volume's map; NULL: out of memory. */
struct mp_attach_job *mp_attach_map_job(struct mp_attach *attach, struct mp_attach_path *path,
                                        void (*finished)(struct mp_attach_job *));
/* Hands a path over to the map's job. */
void mp_attach_map_add(struct mp_attach_job *job, struct mp_attach_path *path);
/* Fails a path that the map's job left out for its size. */
void mp_path_keep_out(struct mp_attach_path *path, const struct mp_map *map);

/* ---- attach_policy.c ---- */

/* Asks multipathd, if it runs, which volumes it leaves alone; the map waits for the answer, a second at
 * most from here. */
void mp_attach_ask_policy(struct mp_attach *attach);

/* ---- attach_choose.c ---- */

/* Chooses the volume's identity from the ready paths, fails those that have another, and goes on to
 * the map. */
void mp_attach_choose(struct mp_attach *attach);
/* Somebody else has a disk of the volume: fails it. */
bool mp_attach_refused(struct mp_attach *attach);
/* Never the wrong disk: a path that disagrees with the volume is kept out, and named. */
bool mp_path_check_identity(struct mp_attach_path *path);

/* ---- attach_single.c ---- */

/* Hands out the path that is ready, or tries the next target when none is at work. */
void mp_attach_single_check(struct mp_attach *attach);
/* The target at work has used up its share of the time. */
void mp_attach_single_overdue(struct mp_attach *attach);

/* ---- attach_late.c ---- */

/* Adds late paths to the map; waits for those that are still away as long as it is there. */
void mp_attach_late_paths(struct mp_attach *attach);
/* Time to look whether there is still a map to join. */
void mp_attach_late_check_map(struct mp_attach *attach);
/* The operation's yield: gives up what goes on in the background. A join that runs is waited
 * for, and so is the map's job of an attach that was given up. */
void mp_attach_yield(struct manypath_operation *operation);

/* ---- attach_volume.c ---- */

/* Sends the paths on their way. */
void mp_attach_start(struct mp_attach *attach);
/* A path became ready or is over, or the volume is: what follows? */
void mp_attach_decide(struct mp_attach *attach);

#endif
