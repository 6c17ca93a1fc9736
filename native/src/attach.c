/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attach. Each path walks on its own:
 *
 *   WAITING -> LOGIN -> UP -> SCAN -> DEVICE -> IDENTITY -> READY
 *   (from any of these: UNDO, which takes back what the path made -> OVER)
 *
 * and the volume waits for them: PATHS -> MAP -> done, or -> UNDOING -> failed. A single path has no
 * map, and its targets are tried one after the other.
 *
 * When the caller has its answer, the operation lives on until the last job it started has come
 * back, and as long as paths whose portal is away are waited for: those walk on, READY -> JOIN -> in
 * the map, until another operation wants the LUN.
 */
#include "attach.h"

#include "error.h"
#include "identity.h"
#include "map.h"
#include "request.h"
#include "scsi.h"
#include "session.h"
#include "sysfs.h"
#include "text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MS UINT64_C(1000000) /* in nanoseconds */

/* With min_paths usable, portals that do not answer are waited for this much longer. */
#define STRAGGLER_GRACE (2000 * MS)
/* What undoing may take before the caller is answered all the same: always a little, even after the
 * deadline. */
#define UNDO_GRACE (800 * MS)
#define UNDO_PATIENCE (10000 * MS)

/* The map's job stops waiting this long before the deadline, so that its own error reaches the
 * caller. */
#define ANSWER_RESERVE (100 * MS)
/* Of the timeout, at most this is kept for making the map. */
#define MAP_RESERVE (1000 * MS)
/* How long a late path waits for multipathd to take it, which waits for udev. */
#define JOIN_PATIENCE (10000 * MS)
/* How often it is looked whether the map is still there that late paths are to join. */
#define MAP_CHECK (10000 * MS)

enum {
    LOGIN_TIMEOUT_MIN_S = 5,
    /* iscsid.conf's default; it stays with the session for its reconnects */
    LOGIN_TIMEOUT_MAX_S = 15,
    OPENS_MAX = 3,
    /* Of a map the other paths take over, so I/O on a lost one fails soon: multipath-tools' default
     * fast_io_fail_tmo. A single path is all there is: open-iscsi's default. */
    REPLACEMENT_TIMEOUT_S = 5,
    REPLACEMENT_TIMEOUT_SINGLE_S = 120,
};

enum path_step {
    PATH_WAITING, /* single path: for its turn */
    PATH_LOGIN,
    PATH_UP, /* logged in, waiting for the volume's other logins */
    PATH_SCAN,
    PATH_DEVICE,
    PATH_IDENTITY,
    PATH_READY,
    PATH_JOIN, /* late: being added to the map */
    PATH_UNDO, /* deletes the disk and logs out what was made for nothing */
    PATH_OVER, /* let go: in the map, or error says why not */
};

enum volume_step { VOLUME_PREPARE, VOLUME_PATHS, VOLUME_MAP, VOLUME_UNDOING, VOLUME_DONE };

struct attach;

struct attach_path {
    struct attach *attach;
    struct mp_target target;
    enum path_step step;
    struct mp_session_entry *session; /* held until the path is let go */
    struct mp_session_wait wait;
    struct mp_device_watch watch;
    struct mp_job *job; /* running for this path, or NULL */
    bool away;          /* its portal is: waited for after the caller has its answer */
    bool session_existed;
    bool disk_is_ours; /* appeared by our scan */
    bool announced;    /* the kernel said that the block device is complete */
    unsigned opens;    /* attempts to open it */
    struct mp_disk disk;
    bool has_disk;
    bool in_map; /* was handed to the map's job */
    int fd;      /* open and locked from IDENTITY until the map's job takes it; -1 */
    struct mp_identity identity;
    int32_t sid, host;
    int32_t state; /* in the map */
    struct manypath_path_times times;
    struct manypath_error error;
};

struct attach {
    struct manypath_operation operation;
    enum volume_step step;
    uint32_t min_paths;
    bool single_path;
    struct mp_login_terms terms;
    struct mp_identity identity;       /* the volume's, once chosen */
    char device[MANYPATH_DEVICE_SIZE]; /* of the map, once it is there */
    uint64_t paths_deadline_ns;        /* leaves time for the map before the operation's deadline */
    size_t path_count;
    struct attach_path *paths;
    struct mp_job *map_job, *prepare_job;
    unsigned jobs;          /* not yet back, ours or abandoned: they point to us */
    struct mp_timer gather; /* when to scan without the logins that are late */
    uint64_t last_answer_ns, longest_gap_ns;
    struct mp_timer grace; /* when to stop waiting for the paths that are not there yet */
    struct mp_warnings warnings;
    struct manypath_attach_times times;
    struct manypath_attachment *attachment; /* the result: filled at the end, then the caller's */
    struct manypath_path *results;          /* of its paths */
};

static void volume_check(struct attach *attach);
static void volume_fail(struct attach *attach);

static uint64_t since_begin(const struct attach *attach)
{
    return mp_now_ns() - attach->operation.begin_ns;
}

/* For the caller while it waits, for the log afterwards. */
__attribute__((format(printf, 2, 3))) static void warn(struct attach *attach, const char *format,
                                                       ...)
{
    char text[MANYPATH_MESSAGE_SIZE];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    mp_log(&attach->operation.handle->log, MANYPATH_LOG_WARNING, "%s", text);
    if (!attach->operation.delivered)
        mp_warn(&attach->warnings, "%s", text);
}

/* ---- jobs: what runs in a worker owns copies of all it needs ---- */

struct attach_job {
    struct mp_job job;
    struct attach *attach;
    struct attach_path *path; /* NULL: the volume's */
    struct mp_job **slot;     /* where those who wait for it keep it */
    struct mp_host *host;
    void (*finished)(struct attach_job *job); /* not called when nobody waits any more */
    int result;
    struct manypath_error error;
    struct mp_disk disk;
    struct mp_identity identity;
    int fd; /* the open disk, closed with the job unless it is taken; -1 */
    char wwid[MANYPATH_WWID_SIZE];
    uint64_t size_bytes;
    uint64_t deadline_ns;
    struct mp_map map;
    bool join_only;
    size_t map_path_count;
    struct mp_map_path *map_paths;
};

static void job_free(struct attach_job *job)
{
    mp_host_release(job->host);
    if (job->fd >= 0)
        close(job->fd);
    for (size_t i = 0; i < job->map_path_count; i++)
        if (job->map_paths[i].fd >= 0)
            close(job->map_paths[i].fd);
    free(job->map_paths);
    free(job);
}

static void job_drop(struct mp_job *base)
{
    job_free((struct attach_job *)base);
}

static void job_done(struct mp_job *base)
{
    struct attach_job *job = (struct attach_job *)base;

    job->attach->jobs--;
    if (*job->slot == base) {
        *job->slot = NULL;
        job->finished(job);
    }
    job_free(job);
}

static struct attach_job *new_job(struct attach *attach, struct attach_path *path,
                                  void (*run)(struct mp_job *),
                                  void (*finished)(struct attach_job *))
{
    struct attach_job *job = calloc(1, sizeof *job);

    if (job == NULL)
        return NULL;
    job->job.run = run;
    job->job.done = job_done;
    job->job.drop = job_drop;
    job->attach = attach;
    job->path = path;
    job->host = mp_host_hold(attach->operation.handle->host);
    job->finished = finished;
    job->fd = -1;
    if (path != NULL)
        job->disk = path->disk;
    return job;
}

/* Takes the job over; on failure it is freed. */
static bool start_job(struct attach_job *job, struct mp_job **slot)
{
    job->slot = slot;
    if (mp_pool_submit(job->attach->operation.handle->pool, &job->job) < 0) {
        job_free(job);
        return false;
    }
    job->attach->jobs++;
    *slot = &job->job;
    return true;
}

static void abandon_job(struct attach *attach, struct mp_job **slot)
{
    if (*slot == NULL)
        return;
    mp_pool_abandon(attach->operation.handle->pool, *slot);
    *slot = NULL;
}

/* ---- paths: failing and undoing ---- */

/* Nothing of this path is held any more. */
static void path_let_go(struct attach_path *path)
{
    struct manypath *handle = path->attach->operation.handle;

    mp_engine_unwatch_device(handle, &path->watch);
    if (path->fd >= 0)
        close(path->fd);
    path->fd = -1;
    if (path->session != NULL) {
        struct mp_session_entry *session = path->session;

        mp_session_stop_waiting(&path->wait);
        path->session = NULL;
        mp_session_drop(session);
    }
}

static void path_undone(struct attach_path *path)
{
    path_let_go(path);
    path->step = PATH_OVER;
    volume_check(path->attach);
}

static void path_logged_out(struct mp_session_wait *wait, const struct manypath_error *error)
{
    struct attach_path *path =
        (struct attach_path *)((char *)wait - offsetof(struct attach_path, wait));

    if (error->code != 0)
        warn(path->attach, "undoing: %s", error->message);
    path_undone(path);
}

static void path_undo_session(struct attach_path *path)
{
    if (path->session == NULL || !mp_session_to_undo(path->session)) {
        path_undone(path);
        return;
    }
    path->wait.done = path_logged_out;
    mp_session_logout(path->session, &path->wait);
}

static void delete_run(struct mp_job *base)
{
    struct attach_job *job = (struct attach_job *)base;

    job->result = mp_scsi_delete(job->host->sysfs_root, job->disk.host, job->disk.channel,
                                 job->disk.target, job->disk.lun);
}

static void delete_finished(struct attach_job *job)
{
    if (job->result < 0 && job->result != -ENOENT && job->result != -ENODEV)
        warn(job->attach, "undoing: deleting %s failed with errno %d", job->disk.name,
             -job->result);
    job->path->has_disk = false;
    path_undo_session(job->path);
}

/* Takes back what this path made: its disk, then its session. Used for a failed path, and for all
 * when the volume fails. */
static void path_undo(struct attach_path *path)
{
    struct attach *attach = path->attach;

    abandon_job(attach, &path->job);
    mp_engine_unwatch_device(attach->operation.handle, &path->watch);
    mp_session_stop_waiting(&path->wait);
    if (path->fd >= 0)
        close(path->fd);
    path->fd = -1;
    path->step = PATH_UNDO;
    if (path->has_disk && path->disk_is_ours) {
        struct attach_job *job = new_job(attach, path, delete_run, delete_finished);

        if (job != NULL && start_job(job, &path->job))
            return;
    }
    path_undo_session(path);
}

static void path_fail(struct attach_path *path)
{
    mp_log(&path->attach->operation.handle->log, MANYPATH_LOG_INFO, "path failed: %s",
           path->error.message);
    if (path->attach->step == VOLUME_DONE)
        path->away = false; /* it was back, and cannot be used all the same */
    path_undo(path);
}

__attribute__((format(printf, 5, 6))) static void
path_error(struct attach_path *path, int code, int phase, int sys_errno, const char *format, ...)
{
    char text[MANYPATH_MESSAGE_SIZE - 64];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    mp_error(&path->error, code, phase, sys_errno, "portal %s port %u: %s", path->target.address,
             path->target.portal.port, text);
    mp_copy(path->error.address, sizeof path->error.address, path->target.address);
    path->error.port = path->target.portal.port;
    path_fail(path);
}

/* ---- paths: identity ---- */

static void identity_run(struct mp_job *base)
{
    struct attach_job *job = (struct attach_job *)base;

    job->result = mp_identity_open(job->host, job->disk.name, job->disk.dev, &job->identity,
                                   &job->fd, &job->error);
}

/* The node is made, and can be opened, a moment after sysfs shows the disk. */
static bool too_early(int sys_errno)
{
    return sys_errno == ENOENT || sys_errno == ENXIO || sys_errno == ENODEV;
}

static void path_identity(struct attach_path *path);

static void identity_finished(struct attach_job *job)
{
    struct attach_path *path = job->path;

    if (job->result < 0 && too_early(job->error.sys_errno) && path->opens < OPENS_MAX) {
        if (path->announced)
            path_identity(path);
        else
            path->step = PATH_DEVICE; /* its event is still to come */
        return;
    }
    if (job->result < 0) {
        path_error(path, job->error.code, job->error.phase, job->error.sys_errno, "%s",
                   job->error.message);
        return;
    }
    mp_engine_unwatch_device(path->attach->operation.handle, &path->watch);
    path->fd = job->fd;
    job->fd = -1;
    path->identity = job->identity;
    path->times.identity_end_ns = since_begin(path->attach);
    path->step = PATH_READY;
    volume_check(path->attach);
}

static void path_identity(struct attach_path *path)
{
    struct attach_job *job = new_job(path->attach, path, identity_run, identity_finished);

    path->step = PATH_IDENTITY;
    path->opens++;
    path->times.device_end_ns = since_begin(path->attach);
    if (job == NULL || !start_job(job, &path->job))
        path_error(path, MANYPATH_E_SYSTEM, MANYPATH_PHASE_IDENTITY, EAGAIN,
                   "no thread for the inquiry");
}

/* ---- paths: device ---- */

/* Reads the LUN's disk from sysfs. -EAGAIN: its block device is not there yet. */
static int find_disk(struct attach_path *path)
{
    int result = mp_sysfs_find_disk(path->attach->operation.handle->host->sysfs_root, path->host,
                                    path->sid, path->target.lun, &path->disk);

    path->has_disk = result == 0;
    if (result == 0 && path->disk.dev == 0)
        result = -EAGAIN;
    return result;
}

static void device_seen(struct mp_device_watch *watch, const struct mp_uevent *event)
{
    struct attach_path *path =
        (struct attach_path *)((char *)watch - offsetof(struct attach_path, watch));
    char session[32];

    snprintf(session, sizeof session, "/session%d/", path->sid);
    if (event != NULL &&
        (event->action != MP_UEVENT_ADD || strcmp(event->subsystem, "block") != 0 ||
         strstr(event->devpath, session) == NULL))
        return;
    if (find_disk(path) != 0 || (event != NULL && strcmp(event->devname, path->disk.name) != 0))
        return; /* another LUN of the session */
    path->announced = true;
    if (path->step == PATH_DEVICE)
        path_identity(path);
}

static void path_device(struct attach_path *path)
{
    int result = find_disk(path);

    path->step = PATH_DEVICE;
    path->times.scan_end_ns = since_begin(path->attach);
    if (result == -ENOENT)
        path_error(path, MANYPATH_E_LUN_NOT_FOUND, MANYPATH_PHASE_SCAN, 0,
                   "target %s offers no LUN %" PRIu64
                   " to this host; check that the volume is exported to this initiator",
                   path->target.iqn, path->target.lun);
    else if (result < 0 && result != -EAGAIN)
        path_error(path, MANYPATH_E_DEVICE, MANYPATH_PHASE_DEVICE, result,
                   "the disk of LUN %" PRIu64 " cannot be read from sysfs: errno %d",
                   path->target.lun, -result);
    else if (result == 0 && (path->announced || !path->disk_is_ours))
        path_identity(path);
    /* else its event comes */
}

/* ---- paths: scan ---- */

static void scan_run(struct mp_job *base)
{
    struct attach_job *job = (struct attach_job *)base;

    job->result = mp_scsi_scan(job->host->sysfs_root, job->disk.host, 0, 0, job->disk.lun);
}

static void path_login(struct attach_path *path);

static void scan_finished(struct attach_job *job)
{
    struct attach_path *path = job->path;
    enum mp_session_state state;

    if (job->result < 0) {
        path_error(path, job->result == -EACCES ? MANYPATH_E_PERMISSION : MANYPATH_E_DEVICE,
                   MANYPATH_PHASE_SCAN, job->result, "scanning SCSI host %d failed with errno %d",
                   job->disk.host, -job->result);
        return;
    }
    /* the kernel scans nothing, and says so to nobody, while the session is not logged in */
    if (mp_sysfs_session_state(job->host->sysfs_root, path->sid, &state) < 0 ||
        state != MP_SESSION_LOGGED_IN) {
        path_login(path);
        return;
    }
    path->disk_is_ours = true;
    path_device(path);
}

static void path_scan(struct attach_path *path)
{
    path->step = PATH_SCAN;
    path->watch.seen = device_seen;
    path->announced = false;
    /* watch first, then look and scan: no event falls between */
    mp_engine_watch_device(path->attach->operation.handle, &path->watch);
    int result = find_disk(path);

    if (result == 0 || result == -EAGAIN) {
        path_device(path);
        return;
    }
    struct attach_job *job = new_job(path->attach, path, scan_run, scan_finished);

    if (job != NULL) {
        job->disk.host = path->host;
        job->disk.lun = path->target.lun;
    }
    if (job == NULL || !start_job(job, &path->job))
        path_error(path, MANYPATH_E_SYSTEM, MANYPATH_PHASE_SCAN, EAGAIN, "no thread for the scan");
}

/* ---- paths: login ---- */

static uint64_t relative(const struct attach *attach, uint64_t ns)
{
    return ns > attach->operation.begin_ns ? ns - attach->operation.begin_ns : 0;
}

/* A disk that appears makes udev start a dozen programs, which on a small host take the processor
 * from iscsid; so the scans of one volume begin together, when its logins are through. A login that
 * is late is not waited for: longer than any answer took so far, and the others go on. */
static void scan_together(struct attach *attach)
{
    mp_engine_disarm(attach->operation.handle, &attach->gather);
    for (size_t i = 0; i < attach->path_count; i++)
        if (attach->paths[i].step == PATH_UP)
            path_scan(&attach->paths[i]);
}

static void gather_over(struct mp_timer *timer)
{
    scan_together((struct attach *)((char *)timer - offsetof(struct attach, gather)));
}

static void login_counted(struct attach *attach)
{
    uint64_t now = mp_now_ns();
    uint64_t gap = now - attach->last_answer_ns;
    bool more = false;

    if (attach->step != VOLUME_PATHS) { /* a late one */
        scan_together(attach);
        return;
    }
    for (size_t i = 0; i < attach->path_count; i++)
        more = more || attach->paths[i].step == PATH_LOGIN;
    attach->last_answer_ns = now;
    if (gap > attach->longest_gap_ns)
        attach->longest_gap_ns = gap;
    if (more)
        mp_engine_arm(attach->operation.handle, &attach->gather, now + attach->longest_gap_ns);
    else
        scan_together(attach);
}

static void path_logged_in(struct mp_session_wait *wait, const struct manypath_error *error)
{
    struct attach_path *path =
        (struct attach_path *)((char *)wait - offsetof(struct attach_path, wait));
    struct attach *attach = path->attach;

    path->times.login_begin_ns = relative(attach, mp_session_login_begin_ns(path->session));
    if (error->code != 0) {
        path->error = *error;
        path_fail(path);
        login_counted(attach);
        return;
    }
    path->times.login_end_ns = since_begin(attach);
    path->sid = mp_session_sid(path->session);
    path->host = mp_session_host(path->session);
    path->session_existed = mp_session_existed(path->session);
    path->step = PATH_UP;
    login_counted(attach);
}

static void path_login(struct attach_path *path)
{
    path->step = PATH_LOGIN;
    path->wait.done = path_logged_in;
    path->wait.terms = &path->attach->terms;
    path->wait.patient = path->away;
    mp_session_login(path->session, &path->wait);
}

/* A path that is not there in time, and what it was waiting for. */
static void path_overdue(struct attach_path *path)
{
    static const struct {
        int phase;
        const char *waiting_for;
    } steps[] = {
        [PATH_UP] = {MANYPATH_PHASE_LOGIN, "the other logins"},
        [PATH_SCAN] = {MANYPATH_PHASE_SCAN, "the kernel's scan"},
        [PATH_DEVICE] = {MANYPATH_PHASE_DEVICE, "its block device"},
        [PATH_IDENTITY] = {MANYPATH_PHASE_IDENTITY, "an answer to INQUIRY"},
    };

    path_error(path, MANYPATH_E_DEVICE, steps[path->step].phase, ETIMEDOUT,
               "LUN %" PRIu64 " is not usable in time: still waiting for %s", path->target.lun,
               steps[path->step].waiting_for);
}

/* ---- the volume: success ---- */

static void path_result(const struct attach *attach, const struct attach_path *path,
                        struct manypath_path *result)
{
    bool mapped = attach->operation.error.code == 0 && path->in_map;

    mp_copy(result->address, sizeof result->address, path->target.address);
    mp_copy(result->iqn, sizeof result->iqn, path->target.iqn);
    result->port = path->target.portal.port;
    result->lun = path->target.lun;
    result->state = mapped                       ? path->state
                    : path->away                 ? MANYPATH_PATH_PENDING
                    : path->step == PATH_WAITING ? MANYPATH_PATH_UNUSED
                                                 : MANYPATH_PATH_FAILED;
    result->sid = path->sid;
    result->host = mapped ? path->disk.host : -1;
    result->channel = mapped ? path->disk.channel : -1;
    result->target = mapped ? path->disk.target : -1;
    result->session_was_there = path->session_existed;
    mp_copy(result->device, sizeof result->device, path->disk.name);
    result->times = path->times;
    result->error = path->error;
    if (path->away && path->error.code == 0)
        mp_error(&result->error, MANYPATH_E_NO_ANSWER, MANYPATH_PHASE_LOGIN, 0,
                 "portal %s port %u answered late; the path joins the map as soon as it can",
                 path->target.address, path->target.portal.port);
    if (!mapped && path->error.code == 0 && attach->operation.error.code != 0)
        mp_error(&result->error, attach->operation.error.code, MANYPATH_PHASE_NONE, 0,
                 "given up because the attach failed");
}

/* Only the portal is missing: the path joins the map when it is back. */
static bool is_away(const struct attach *attach, const struct attach_path *path)
{
    if (attach->operation.error.code != 0 || attach->single_path || path->target.candidate)
        return false;
    if (path->step >= PATH_LOGIN && path->step <= PATH_READY)
        return !path->in_map; /* late */
    return path->step >= PATH_UNDO &&
           (path->error.code == MANYPATH_E_REFUSED || path->error.code == MANYPATH_E_NO_ANSWER);
}

/* The map's job may be stuck in the kernel: its paths stay, and are undone when it comes back. */
static bool under_map_job(const struct attach_path *path)
{
    return path->in_map && path->attach->map_job != NULL;
}

/* What the volume saw of each phase: from the end of the one before to the last path of the map. */
static void volume_times(struct attach *attach)
{
    struct manypath_attach_times *times = &attach->times;
    uint64_t at = times->prepare_ns;
    uint64_t *into[] = {&times->login_ns, &times->scan_ns, &times->device_ns, &times->identity_ns};
    uint64_t last[4] = {at, at, at, at};

    for (size_t i = 0; i < attach->path_count; i++) {
        const struct attach_path *path = &attach->paths[i];
        const uint64_t ends[] = {path->times.login_end_ns, path->times.scan_end_ns,
                                 path->times.device_end_ns, path->times.identity_end_ns};

        for (size_t p = 0; p < 4 && path->step == PATH_READY; p++)
            if (ends[p] > last[p])
                last[p] = ends[p];
    }
    for (size_t p = 0; p < 4; p++) {
        *into[p] = last[p] - at;
        at = last[p];
    }
    times->map_ns = since_begin(attach) - at;
}

/* Fills in the result and wakes the caller. What is still being undone goes on, and so do the paths
 * whose portal is away. */
static void volume_finish(struct attach *attach)
{
    struct manypath_operation *operation = &attach->operation;
    struct manypath_attachment *attachment = attach->attachment;

    mp_engine_disarm(operation->handle, &attach->grace);
    mp_engine_disarm(operation->handle, &attach->gather);
    if (operation->error.code == 0)
        volume_times(attach);
    for (size_t i = 0; i < attach->path_count; i++) {
        struct attach_path *path = &attach->paths[i];

        path->away = is_away(attach, path);
        path_result(attach, path, &attach->results[i]);
        if (path->away) {
            path->wait.patient = true;
        } else if (path->step != PATH_UNDO && !under_map_job(path)) {
            abandon_job(attach, &path->job);
            path_let_go(path);
            path->step = PATH_OVER;
        }
    }
    attach->step = VOLUME_DONE;
    attach->times.total_ns = since_begin(attach) + attach->times.queue_ns;
    attachment->times = attach->times;
    attachment->path_count = attach->path_count;
    attachment->warning_count = attach->warnings.count;
    attachment->warnings = attach->warnings.texts;
    attach->warnings = (struct mp_warnings){0};
    mp_operation_deliver(operation);
    volume_check(attach);
}

static void map_run(struct mp_job *base)
{
    struct attach_job *job = (struct attach_job *)base;

    job->result =
        mp_map_join(job->host, job->wwid, job->size_bytes, job->map_paths, job->map_path_count,
                    job->join_only, job->deadline_ns, &job->map, &job->error);
}

static void undo_paths(struct attach *attach);

/* The volume rests on this path now. */
static void keep_path(struct attach_path *path)
{
    path->disk_is_ours = false;
    mp_session_keep(path->session);
}

/* The map stays, and with it its paths. */
static void keep_members(struct attach *attach)
{
    for (size_t i = 0; i < attach->path_count; i++)
        if (attach->paths[i].in_map)
            keep_path(&attach->paths[i]);
}

static void unmake_run(struct mp_job *base)
{
    struct attach_job *job = (struct attach_job *)base;
    struct mp_unmap_times times;
    char uuid[sizeof "mpath-" + MANYPATH_WWID_SIZE];

    snprintf(uuid, sizeof uuid, "mpath-%s", job->wwid);
    job->result = mp_map_remove(job->host, uuid, job->deadline_ns, &times, &job->error);
}

static void unmake_finished(struct attach_job *job)
{
    if (job->result < 0) {
        warn(job->attach, "undoing: %s", job->error.message);
        keep_members(job->attach);
    }
    undo_paths(job->attach);
}

/* The map's job came back after the volume was given up. */
static void map_unwanted(struct attach_job *job)
{
    struct attach *attach = job->attach;
    struct attach_job *unmake;

    if (job->result < 0 || job->map.existed) {
        if (job->result == 0)
            keep_members(attach); /* in somebody else's map */
        undo_paths(attach);
        return;
    }
    unmake = new_job(attach, NULL, unmake_run, unmake_finished);
    if (unmake != NULL) {
        mp_copy(unmake->wwid, sizeof unmake->wwid, job->wwid);
        unmake->deadline_ns = mp_now_ns() + UNDO_PATIENCE;
    }
    if (unmake == NULL || !start_job(unmake, &attach->map_job))
        undo_paths(attach);
}

static void map_finished(struct attach_job *job)
{
    struct attach *attach = job->attach;
    size_t at = 0;

    if (attach->step != VOLUME_MAP) {
        map_unwanted(job);
        return;
    }
    if (job->result < 0) {
        attach->operation.error = job->error;
        volume_fail(attach);
        return;
    }
    mp_copy(attach->device, sizeof attach->device, job->map.device);
    mp_copy(attach->attachment->device, sizeof attach->attachment->device, job->map.device);
    mp_copy(attach->attachment->name, sizeof attach->attachment->name, job->map.name);
    mp_copy(attach->attachment->wwid, sizeof attach->attachment->wwid, job->wwid);
    attach->attachment->size_bytes = job->map.size_bytes;
    attach->attachment->map_was_there = job->map.existed;
    attach->attachment->multipathd_running = job->map.multipathd_running;
    for (size_t i = 0; i < attach->path_count; i++) {
        struct attach_path *path = &attach->paths[i];

        if (!path->in_map)
            continue;
        path->state = job->map_paths[at++].state;
        keep_path(path);
    }
    if (!job->map.wwid_listed)
        warn(attach,
             "the WWID could not be added to %s/wwids; a multipathd in strict mode removes the map "
             "when it is reconfigured while the map is closed",
             attach->operation.handle->host->multipath_dir);
    if (job->map.unchecked[0] != '\0')
        warn(attach, "%s is in the map and does not answer, so it was not checked",
             job->map.unchecked);
    if (job->map.size_bytes != job->size_bytes)
        warn(attach, "the map has %" PRIu64 " bytes and its paths have %" PRIu64,
             job->map.size_bytes, job->size_bytes);
    volume_finish(attach);
}

/* A job that makes or joins the volume's map; NULL: out of memory. */
static struct attach_job *new_map_job(struct attach *attach, struct attach_path *path,
                                      void (*finished)(struct attach_job *))
{
    struct attach_job *job = new_job(attach, path, map_run, finished);

    if (job == NULL)
        return NULL;
    job->map_paths = calloc(attach->path_count, sizeof *job->map_paths);
    if (job->map_paths == NULL) {
        job_free(job);
        return NULL;
    }
    mp_copy(job->wwid, sizeof job->wwid, attach->identity.wwid);
    job->size_bytes = attach->identity.size_bytes;
    return job;
}

/* Hands a path over to the map's job. */
static void add_member(struct attach_job *job, struct attach_path *path)
{
    struct mp_map_path *member = &job->map_paths[job->map_path_count++];

    member->dev = path->disk.dev;
    member->fd = path->fd;
    path->fd = -1;
    path->in_map = true;
    member->state = MANYPATH_PATH_ACTIVE;
    mp_copy(member->name, sizeof member->name, path->disk.name);
    mp_copy(member->dh_state, sizeof member->dh_state, path->disk.dh_state);
}

static void volume_map(struct attach *attach)
{
    struct attach_job *job = new_map_job(attach, NULL, map_finished);

    attach->step = VOLUME_MAP;
    mp_engine_disarm(attach->operation.handle, &attach->grace);
    if (job != NULL) {
        for (size_t i = 0; i < attach->path_count; i++)
            if (attach->paths[i].step == PATH_READY)
                add_member(job, &attach->paths[i]);
        job->deadline_ns = attach->operation.deadline_ns - ANSWER_RESERVE;
        if (start_job(job, &attach->map_job))
            return;
    }
    mp_error(&attach->operation.error, MANYPATH_E_SYSTEM, MANYPATH_PHASE_MAP, EAGAIN,
             "no thread or memory for making the map");
    volume_fail(attach);
}

/* ---- the volume: choosing ---- */

static bool same_identity(const struct mp_identity *a, const struct mp_identity *b)
{
    return a->size_bytes == b->size_bytes && strcmp(a->wwid, b->wwid) == 0;
}

/* How many ready paths have this identity, candidates counted or not. */
static size_t votes_for(const struct attach *attach, const struct mp_identity *identity,
                        bool candidates)
{
    size_t votes = 0;

    for (size_t i = 0; i < attach->path_count; i++) {
        const struct attach_path *path = &attach->paths[i];

        votes += path->step == PATH_READY && (candidates || !path->target.candidate) &&
                 same_identity(&path->identity, identity);
    }
    return votes;
}

/* The identity that most ready paths have; NULL when two are equally frequent: nobody can say which
 * is right. Candidates have no say. */
static const struct mp_identity *majority(const struct attach *attach)
{
    const struct mp_identity *best = NULL;
    size_t best_votes = 0;
    bool tie = false;

    for (size_t i = 0; i < attach->path_count; i++) {
        const struct attach_path *path = &attach->paths[i];

        if (path->step != PATH_READY || path->target.candidate)
            continue;
        size_t votes = votes_for(attach, &path->identity, false);

        if (votes > best_votes) {
            best = &path->identity;
            best_votes = votes;
            tie = false;
        } else if (votes == best_votes && !same_identity(best, &path->identity)) {
            tie = true;
        }
    }
    return tie ? NULL : best;
}

/* Never the wrong disk: a path that disagrees is kept out, and named. Of a candidate that was to be
 * expected. */
static bool path_check_identity(struct attach_path *path)
{
    const struct mp_identity *chosen = &path->attach->identity;

    if (same_identity(&path->identity, chosen))
        return true;
    if (!path->target.candidate)
        warn(path->attach,
             "%s through portal %s is disk %s of %" PRIu64 " bytes, not %s of %" PRIu64
             ": kept out",
             path->disk.name, path->target.address, path->identity.wwid, path->identity.size_bytes,
             chosen->wwid, chosen->size_bytes);
    path_error(path, MANYPATH_E_IDENTITY, MANYPATH_PHASE_IDENTITY, 0,
               "%s is disk %s of %" PRIu64 " bytes, the other paths are %s of %" PRIu64
               "; it was kept out of the map",
               path->disk.name, path->identity.wwid, path->identity.size_bytes, chosen->wwid,
               chosen->size_bytes);
    return false;
}

static void volume_choose(struct attach *attach)
{
    const struct mp_identity *identity = majority(attach);

    if (identity == NULL) {
        struct manypath_error *error = &attach->operation.error;

        mp_error(
            error, MANYPATH_E_IDENTITY, MANYPATH_PHASE_IDENTITY, 0,
            "the paths lead to different disks and no identity has a majority; check the targets "
            "and LUNs of the request");
        for (size_t i = 0; i < attach->path_count; i++)
            if (attach->paths[i].step == PATH_READY)
                mp_error(&attach->paths[i].error, MANYPATH_E_IDENTITY, MANYPATH_PHASE_IDENTITY, 0,
                         "%s is disk %s of %" PRIu64 " bytes", attach->paths[i].disk.name,
                         attach->paths[i].identity.wwid, attach->paths[i].identity.size_bytes);
        volume_fail(attach);
        return;
    }
    attach->identity = *identity;
    attach->step = VOLUME_MAP; /* odd ones out report back while we go on */
    for (size_t i = 0; i < attach->path_count; i++)
        if (attach->paths[i].step == PATH_READY)
            path_check_identity(&attach->paths[i]);
    size_t votes = votes_for(attach, &attach->identity, true);

    if (votes < attach->min_paths) {
        mp_error(&attach->operation.error, MANYPATH_E_IDENTITY, MANYPATH_PHASE_IDENTITY, 0,
                 "only %zu paths lead to the same disk; %u were asked for", votes,
                 attach->min_paths);
        volume_fail(attach);
        return;
    }
    volume_map(attach);
}

/* The error that stands for the volume: the first of the most telling kind. */
static void volume_error(struct attach *attach)
{
    const struct manypath_error *first = NULL;
    struct manypath_error *error = &attach->operation.error;
    size_t failed = 0, ready = 0;

    for (size_t i = 0; i < attach->path_count; i++) {
        const struct manypath_error *one = &attach->paths[i].error;

        ready += attach->paths[i].step == PATH_READY;
        if (one->code == 0)
            continue;
        failed++;
        /* "no answer" says least: prefer any other */
        if (first == NULL ||
            (first->code == MANYPATH_E_NO_ANSWER && one->code != MANYPATH_E_NO_ANSWER))
            first = one;
    }
    if (first == NULL) {
        mp_error(error, MANYPATH_E_DEVICE, MANYPATH_PHASE_DEVICE, 0, "no path became usable");
        return;
    }
    *error = *first;
    if (attach->path_count > 1 || ready > 0)
        snprintf(error->message, sizeof error->message,
                 "%zu of %zu paths failed, %zu usable, %u wanted; %.380s", failed,
                 attach->path_count, ready, attach->min_paths, first->message);
}

/* ---- the volume: a single path ---- */

/* A disk that somebody uses is not handed out. A multipath map over it is no reason to refuse, since
 * multipathd may make one at any time, but the caller should know. */
static int check_holders(struct attach *attach, const struct mp_disk *disk)
{
    const char *root = attach->operation.handle->host->sysfs_root;
    char holders[1][MANYPATH_DEVICE_SIZE];
    char uuid[MANYPATH_WWID_SIZE + 8] = "";
    size_t count = 0;

    if (mp_sysfs_holders(root, disk->name, holders, 1, &count) < 0 || count == 0)
        return 0;
    mp_sysfs_dm(root, holders[0], uuid, sizeof uuid, NULL, 0);
    if (strncmp(uuid, "mpath-", 6) != 0)
        return mp_error(&attach->operation.error, MANYPATH_E_IN_USE, MANYPATH_PHASE_IDENTITY, EBUSY,
                        "%s is held by %s; release it and try again", disk->name, holders[0]);
    warn(attach, "%s is a path of the multipath map %s, which was asked not to be used", disk->name,
         holders[0]);
    return 0;
}

static void single_done(struct attach *attach, struct attach_path *path)
{
    struct manypath_attachment *attachment = attach->attachment;

    attach->step = VOLUME_MAP;
    if (check_holders(attach, &path->disk) < 0) {
        volume_fail(attach);
        return;
    }
    mp_copy(attachment->device, sizeof attachment->device, path->disk.name);
    mp_copy(attachment->wwid, sizeof attachment->wwid, path->identity.wwid);
    attachment->size_bytes = path->identity.size_bytes;
    path->in_map = true;
    path->state = MANYPATH_PATH_ACTIVE;
    keep_path(path);
    volume_finish(attach);
}

/* One target after the other: each gets its share of the time, and what it left is taken back before
 * the next is tried. */
static void single_check(struct attach *attach)
{
    struct attach_path *next = NULL;
    uint64_t now = mp_now_ns();
    uint64_t waiting = 0;

    for (size_t i = 0; i < attach->path_count; i++) {
        struct attach_path *path = &attach->paths[i];

        if (path->step == PATH_READY) {
            single_done(attach, path);
            return;
        }
        if (path->step != PATH_WAITING && path->step != PATH_OVER)
            return; /* at work */
        waiting += path->step == PATH_WAITING;
        if (next == NULL && path->step == PATH_WAITING)
            next = path;
    }
    if (next == NULL) {
        volume_error(attach);
        volume_fail(attach);
        return;
    }
    uint64_t share = now < attach->paths_deadline_ns ? attach->paths_deadline_ns - now : 0;

    mp_engine_arm(attach->operation.handle, &attach->grace, now + share / waiting);
    path_login(next);
}

/* The target at work has used up its share. */
static void single_overdue(struct attach *attach)
{
    for (size_t i = 0; i < attach->path_count; i++) {
        struct attach_path *path = &attach->paths[i];

        if (path->step == PATH_LOGIN) {
            mp_session_pending(path->session, &path->error);
            path_fail(path);
            return;
        }
        if (path->step > PATH_LOGIN && path->step < PATH_READY) {
            path_overdue(path);
            return;
        }
    }
}

/* ---- paths that come when the caller has its answer ---- */

static bool any_away(const struct attach *attach)
{
    for (size_t i = 0; i < attach->path_count; i++)
        if (attach->paths[i].away)
            return true;
    return false;
}

static bool map_is_there(const struct attach *attach)
{
    char uuid[MANYPATH_WWID_SIZE + 8] = "";
    char wanted[MANYPATH_WWID_SIZE + 8];

    snprintf(wanted, sizeof wanted, "mpath-%s", attach->identity.wwid);
    mp_sysfs_dm(attach->operation.handle->host->sysfs_root, attach->device, uuid, sizeof uuid, NULL,
                0);
    return strcmp(uuid, wanted) == 0;
}

static void join_finished(struct attach_job *job)
{
    struct attach_path *path = job->path;
    struct attach *attach = job->attach;

    path->away = false;
    if (job->result < 0 && !map_is_there(attach)) {
        path->in_map = false;
        path->error = job->error;
        path_fail(path);
        return;
    }
    if (job->result < 0)
        warn(attach, "%s stays beside its map until multipathd takes it: %s", path->disk.name,
             job->error.message);
    else
        mp_log(&attach->operation.handle->log, MANYPATH_LOG_INFO,
               "portal %s port %u is back: %s joined map %s", path->target.address,
               path->target.portal.port, path->disk.name, attach->device);
    keep_path(path);
    path_let_go(path);
    path->step = PATH_OVER;
}

/* A path that went into the map and is still the same disk. */
static bool is_member(struct attach_path *path)
{
    dev_t dev = path->disk.dev;

    return path->step == PATH_OVER && path->in_map && find_disk(path) == 0 && path->disk.dev == dev;
}

static void path_join(struct attach_path *path)
{
    struct attach *attach = path->attach;
    struct attach_job *job;

    if (!path_check_identity(path))
        return;
    job = new_map_job(attach, path, join_finished);
    path->step = PATH_JOIN;
    if (job != NULL) {
        add_member(job, path);
        for (size_t i = 0; i < attach->path_count; i++)
            if (is_member(&attach->paths[i]))
                add_member(job, &attach->paths[i]);
        job->join_only = true;
        job->deadline_ns = mp_now_ns() + JOIN_PATIENCE;
        if (start_job(job, &path->job))
            return;
    }
    path_error(path, MANYPATH_E_SYSTEM, MANYPATH_PHASE_MAP, EAGAIN,
               "no thread or memory for joining the map");
}

/* Waits, patiently, for a session through a portal that is away. */
static void path_wait(struct attach_path *path)
{
    path->session = mp_session_hold(path->attach->operation.handle->sessions, &path->target.portal,
                                    path->target.iqn);
    path->opens = 0;
    if (path->session != NULL)
        path_login(path);
    else
        path->away = false;
}

static void late_paths(struct attach *attach)
{
    if (attach->grace.slot == 0 && any_away(attach))
        mp_engine_arm(attach->operation.handle, &attach->grace, mp_now_ns() + MAP_CHECK);
    for (size_t i = 0; i < attach->path_count; i++) {
        struct attach_path *path = &attach->paths[i];

        if (path->away && path->step == PATH_READY)
            path_join(path);
        else if (path->away && path->step == PATH_OVER)
            path_wait(path);
    }
}

/* Gives up what goes on in the background. A join that runs is waited for. */
static void attach_yield(struct manypath_operation *operation)
{
    struct attach *attach = (struct attach *)operation;

    mp_engine_disarm(operation->handle, &attach->grace);
    for (size_t i = 0; i < attach->path_count; i++)
        attach->paths[i].away = false;
    for (size_t i = 0; i < attach->path_count; i++) {
        struct attach_path *path = &attach->paths[i];

        if (path->step > PATH_WAITING && path->step <= PATH_READY)
            path_undo(path);
    }
}

/* Time to look whether there is still a map to join. */
static void check_map(struct attach *attach)
{
    if (!any_away(attach))
        return;
    if (map_is_there(attach))
        mp_engine_arm(attach->operation.handle, &attach->grace, mp_now_ns() + MAP_CHECK);
    else
        attach_yield(&attach->operation);
}

/* ---- the volume: deciding ---- */

static bool all_over(const struct attach *attach)
{
    for (size_t i = 0; i < attach->path_count; i++)
        if (attach->paths[i].step != PATH_OVER)
            return false;
    return true;
}

/* Are there enough paths, and is there anything left to wait for? */
static void weigh_paths(struct attach *attach)
{
    size_t ready = 0, trying = 0, silent = 0, vouching = 0;

    for (size_t i = 0; i < attach->path_count; i++) {
        const struct attach_path *path = &attach->paths[i];

        ready += path->step == PATH_READY;
        silent += path->step == PATH_LOGIN;
        trying += path->step < PATH_READY;
        vouching += path->step <= PATH_READY && !path->target.candidate;
    }
    if (ready + trying < attach->min_paths || vouching == 0) {
        volume_error(attach);
        volume_fail(attach);
    } else if (trying == 0) {
        volume_choose(attach);
    } else if (ready >= attach->min_paths && trying == silent &&
               attach->grace.at_ns > mp_now_ns() + STRAGGLER_GRACE) {
        mp_engine_arm(attach->operation.handle, &attach->grace, mp_now_ns() + STRAGGLER_GRACE);
    }
}

/* A path became ready or is over, or the volume is. */
static void volume_check(struct attach *attach)
{
    if (attach->step == VOLUME_DONE)
        late_paths(attach);
    else if (attach->step == VOLUME_UNDOING && all_over(attach))
        volume_finish(attach);
    else if (attach->step == VOLUME_PATHS && attach->single_path)
        single_check(attach);
    else if (attach->step == VOLUME_PATHS)
        weigh_paths(attach);
}

/* Goes on without the paths that are not there yet, if the others are enough. */
static void leave_stragglers(struct attach *attach)
{
    for (size_t i = 0; i < attach->path_count; i++) {
        struct attach_path *path = &attach->paths[i];

        if (path->step == PATH_LOGIN) {
            mp_session_pending(path->session, &path->error);
            warn(attach, "%s; the path was left out", path->error.message);
        } else if (path->step < PATH_READY) {
            attach->step = VOLUME_MAP; /* failing paths do not decide any more */
            path_overdue(path);
        }
    }
    volume_choose(attach);
}

static void grace_over(struct mp_timer *timer)
{
    struct attach *attach = (struct attach *)((char *)timer - offsetof(struct attach, grace));
    uint64_t now = mp_now_ns();
    bool patient = now < attach->paths_deadline_ns;
    size_t ready = 0;

    if (attach->step == VOLUME_DONE) {
        check_map(attach);
        return;
    }
    if (attach->single_path) {
        single_overdue(attach);
        return;
    }
    for (size_t i = 0; i < attach->path_count; i++) {
        const struct attach_path *path = &attach->paths[i];

        ready += path->step == PATH_READY;
        /* a login that is answered is waited for; so is a request that iscsid got only now */
        if (patient &&
            (path->step == PATH_LOGIN ? mp_session_silence_ns(path->session) < STRAGGLER_GRACE
                                      : path->step < PATH_READY)) {
            mp_engine_arm(attach->operation.handle, timer, now + STRAGGLER_GRACE / 4);
            return;
        }
    }
    if (ready >= attach->min_paths)
        leave_stragglers(attach);
}

/* ---- the volume: failure ---- */

static uint64_t undo_until(uint64_t deadline_ns)
{
    uint64_t now = mp_now_ns();
    uint64_t patience = now + UNDO_PATIENCE < deadline_ns ? now + UNDO_PATIENCE : deadline_ns;

    return patience > now + UNDO_GRACE ? patience : now + UNDO_GRACE;
}

static void undo_paths(struct attach *attach)
{
    for (size_t i = 0; i < attach->path_count; i++)
        if (attach->paths[i].step < PATH_UNDO && !under_map_job(&attach->paths[i]))
            path_undo(&attach->paths[i]);
    volume_check(attach);
}

/* Everything that this operation made is taken back, then the caller is told. A map that is being
 * made is waited for: its paths must not be taken from under it, and it must not be left behind. */
static void volume_fail(struct attach *attach)
{
    struct manypath *handle = attach->operation.handle;

    attach->step = VOLUME_UNDOING;
    mp_engine_disarm(handle, &attach->grace);
    mp_engine_disarm(handle, &attach->gather);
    abandon_job(attach, &attach->prepare_job);
    mp_engine_arm(handle, &attach->operation.timer, undo_until(attach->operation.deadline_ns));
    if (attach->map_job != NULL)
        mp_pool_abandon(handle->pool, attach->map_job); /* its thread may be stuck */
    undo_paths(attach);
}

static void attach_cancel(struct manypath_operation *operation, int code)
{
    struct attach *attach = (struct attach *)operation;

    if (attach->step == VOLUME_UNDOING) {
        if (code == MANYPATH_E_TIMEOUT) { /* the undo grace */
            snprintf(operation->error.message + strlen(operation->error.message),
                     sizeof operation->error.message - strlen(operation->error.message),
                     " (still undoing in the background)");
            volume_finish(attach);
        }
        return;
    }
    for (size_t i = 0; i < attach->path_count; i++) {
        struct attach_path *path = &attach->paths[i];

        if (path->step == PATH_LOGIN)
            mp_session_pending(path->session, &path->error);
    }
    if (code == MANYPATH_E_TIMEOUT && attach->step == VOLUME_PATHS)
        volume_error(attach);
    else
        mp_error(&operation->error, code,
                 attach->step == VOLUME_MAP       ? MANYPATH_PHASE_MAP
                 : attach->step == VOLUME_PREPARE ? MANYPATH_PHASE_PREPARE
                                                  : MANYPATH_PHASE_LOGIN,
                 0, "%s%s",
                 code == MANYPATH_E_TIMEOUT ? "the timeout passed" : "the attach was cancelled",
                 attach->step == VOLUME_PREPARE
                     ? " before it began: another operation on the same LUN had not ended"
                     : "");
    if (code == MANYPATH_E_TIMEOUT)
        operation->error.code = MANYPATH_E_TIMEOUT;
    volume_fail(attach);
}

/* ---- beginning and ending ---- */

static void volume_paths(struct attach *attach)
{
    attach->step = VOLUME_PATHS;
    attach->last_answer_ns = mp_now_ns();
    attach->times.prepare_ns = since_begin(attach);
    if (attach->single_path) {
        single_check(attach);
        return;
    }
    mp_engine_arm(attach->operation.handle, &attach->grace, attach->paths_deadline_ns);
    for (size_t i = 0; i < attach->path_count; i++)
        if (attach->paths[i].step == PATH_WAITING && attach->step == VOLUME_PATHS)
            path_login(&attach->paths[i]);
}

static void prepare_run(struct mp_job *base)
{
    struct attach_job *job = (struct attach_job *)base;

    job->result = mp_map_supported(job->host, &job->error);
}

static void prepare_finished(struct attach_job *job)
{
    struct attach *attach = job->attach;

    if (job->result < 0) {
        attach->operation.error = job->error;
        attach->operation.error.phase = MANYPATH_PHASE_PREPARE;
        volume_fail(attach);
        return;
    }
    atomic_store(&job->host->multipath_known, true);
    volume_paths(attach);
}

static void attach_begin(struct manypath_operation *operation)
{
    struct attach *attach = (struct attach *)operation;
    struct manypath *handle = operation->handle;

    attach->times.queue_ns = operation->begin_ns - operation->submit_ns;
    for (size_t i = 0; i < attach->path_count; i++) {
        struct attach_path *path = &attach->paths[i];

        path->session = mp_session_hold(handle->sessions, &path->target.portal, path->target.iqn);
        if (path->session == NULL) {
            mp_error(&operation->error, MANYPATH_E_SYSTEM, MANYPATH_PHASE_PREPARE, ENOMEM,
                     "out of memory");
            volume_fail(attach);
            return;
        }
    }
    if (attach->single_path || atomic_load(&handle->host->multipath_known)) {
        volume_paths(attach);
        return;
    }
    /* no session is made for nothing on a kernel without multipath; asked once, as it may load a
     * module */
    struct attach_job *job = new_job(attach, NULL, prepare_run, prepare_finished);

    if (job == NULL || !start_job(job, &attach->prepare_job)) {
        mp_error(&operation->error, MANYPATH_E_SYSTEM, MANYPATH_PHASE_PREPARE, EAGAIN,
                 "no thread for asking device-mapper");
        volume_fail(attach);
    }
}

static bool attach_idle(const struct manypath_operation *operation)
{
    const struct attach *attach = (const struct attach *)operation;

    for (size_t i = 0; i < attach->path_count; i++)
        if (attach->paths[i].step > PATH_WAITING && attach->paths[i].step < PATH_OVER)
            return false;
    return attach->jobs == 0 && attach->grace.slot == 0;
}

static void attach_free(struct manypath_operation *operation)
{
    struct attach *attach = (struct attach *)operation;

    for (size_t i = 0; i < attach->path_count; i++)
        if (attach->paths[i].fd >= 0)
            close(attach->paths[i].fd);
    mp_chap_release(attach->terms.chap);
    manypath_attachment_free(attach->attachment);
    manypath_paths_free(attach->results);
    free(attach->operation.targets);
    free(attach->paths);
    free(attach);
}

int mp_attach_new(struct manypath *handle, const struct manypath_attach_request *request,
                  struct manypath_operation **ret_operation, struct manypath_error *err)
{
    struct mp_target *targets = NULL;
    struct mp_chap *chap = NULL;
    size_t count = 0;
    int result = mp_request_timeout(request->timeout_ms, err);

    if (result == 0)
        result = mp_request_targets(request->targets, request->target_count, &targets, &count, err);
    if (result == 0 && request->min_paths > (request->single_path ? 1 : count))
        result = mp_error(err, MANYPATH_E_INVALID, MANYPATH_PHASE_REQUEST, 0,
                          "min_paths is %u, but the request asks for only %zu different paths",
                          request->min_paths, request->single_path ? 1 : count);
    if (result == 0)
        result = mp_chap_new(request->chap, &chap, err);
    if (result < 0) {
        free(targets);
        return result;
    }
    struct attach *attach = calloc(1, sizeof *attach);

    if (attach != NULL) {
        attach->terms.chap = chap;
        attach->paths = calloc(count, sizeof *attach->paths);
        attach->attachment = calloc(1, sizeof *attach->attachment);
        attach->results = calloc(count, sizeof *attach->results);
    }
    if (attach == NULL || attach->paths == NULL || attach->attachment == NULL ||
        attach->results == NULL)
        result = mp_error(err, MANYPATH_E_SYSTEM, MANYPATH_PHASE_REQUEST, ENOMEM, "out of memory");
    else
        result = mp_operation_init(&attach->operation, handle, request->timeout_ms, err);
    if (result < 0) {
        free(targets);
        if (attach != NULL)
            attach_free(&attach->operation);
        else
            mp_chap_release(chap);
        return result;
    }
    uint32_t seconds = request->timeout_ms / 2000;
    uint64_t reserve_ns = request->timeout_ms * MS / 10;

    attach->operation.begin = attach_begin;
    attach->operation.cancel = attach_cancel;
    attach->operation.yield = attach_yield;
    attach->operation.idle = attach_idle;
    attach->operation.free = attach_free;
    attach->grace.fire = grace_over;
    attach->gather.fire = gather_over;
    attach->min_paths = request->min_paths != 0 ? request->min_paths : 1;
    attach->single_path = request->single_path;
    attach->terms.replacement_timeout_s =
        request->single_path ? REPLACEMENT_TIMEOUT_SINGLE_S : REPLACEMENT_TIMEOUT_S;
    attach->terms.timeout_s = seconds < LOGIN_TIMEOUT_MIN_S   ? LOGIN_TIMEOUT_MIN_S
                              : seconds > LOGIN_TIMEOUT_MAX_S ? LOGIN_TIMEOUT_MAX_S
                                                              : seconds;
    attach->paths_deadline_ns =
        attach->operation.deadline_ns - (reserve_ns < MAP_RESERVE ? reserve_ns : MAP_RESERVE);
    attach->path_count = count;
    for (size_t i = 0; i < count; i++) {
        struct attach_path *path = &attach->paths[i];

        path->attach = attach;
        path->target = targets[i];
        path->fd = path->sid = path->host = -1;
    }
    attach->operation.targets = targets;
    attach->operation.target_count = count;
    *ret_operation = &attach->operation;
    return 0;
}

int mp_attach_result(struct manypath_operation *operation,
                     struct manypath_attachment **ret_attachment, struct manypath_path **ret_paths,
                     size_t *ret_path_count, struct manypath_error *err)
{
    struct attach *attach = (struct attach *)operation;

    if (operation->error.code == 0) {
        attach->attachment->paths = attach->results;
        *ret_attachment = attach->attachment;
        attach->attachment = NULL;
        attach->results = NULL;
        return 0;
    }
    if (err != NULL)
        *err = operation->error;
    if (ret_paths != NULL && ret_path_count != NULL) {
        *ret_paths = attach->results;
        *ret_path_count = attach->path_count;
        attach->results = NULL;
    }
    return operation->error.code;
}
