/* SPDX-License-Identifier: Apache-2.0 */
/* Attach: one path, from its login to a disk that is known; and back. */
#include "attach_state.h"

#include "error.h"
#include "holders.h"
#include "fault.h"
#include "scsi.h"
#include "wwid_locks.h"
#include "sysfs.h"
#include "text.h"
#include "waiting.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum {
    OPENS_MAX = 3,
    ROUNDS_MAX = 2, /* of deleting a left-over disk and scanning again */
};

/* What taking back a map that multipathd made may take, of a path that nobody waits for any more. */
#define ORPHAN_PATIENCE (5000 * MP_MS)

/* udev, LVM and others claim disks for moments. */
#define CLAIM_PATIENCE (1000 * MP_MS)

/* How often a disk is tried whose event may have been lost: nobody tells it again. */
#define DEVICE_POLL (20 * MP_MS)
/* What a late path gives udev to tell its WWID. */
#define UDEV_PATIENCE (10000 * MP_MS)
/* The job stops waiting this long before the path's time is over, so that its own error is told. */
#define ANSWER_RESERVE (100 * MP_MS)

/* ---- letting go, undoing, failing ---- */

void mp_path_let_go(struct mp_attach_path *path)
{
    struct manypath *handle = path->attach->operation.handle;

    mp_engine_unwatch_device(handle, &path->watch);
    mp_engine_disarm(handle, &path->timer);
    mp_identity_close(&path->fd);
    if (path->session != NULL) {
        struct mp_session_entry *session = path->session;

        mp_session_stop_waiting(&path->wait);
        mp_session_done_with(session, &path->wait);
        path->session = NULL;
        mp_session_drop(session);
    }
}

static void path_undone(struct mp_attach_path *path)
{
    mp_path_let_go(path);
    path->step = MP_PATH_OVER;
    path->attach->decide(path->attach);
}

static void path_logged_out(struct mp_session_wait *wait, const struct manypath_error *error)
{
    struct mp_attach_path *path =
        (struct mp_attach_path *)((char *)wait - offsetof(struct mp_attach_path, wait));

    if (error->code != 0)
        mp_attach_warn(path->attach, "undoing: %s", error->message);
    path_undone(path);
}

static void path_undo_session(struct mp_attach_path *path)
{
    if (path->session == NULL || !mp_session_to_undo(path->session)) {
        path_undone(path);
        return;
    }
    MP_FAULT("attach.undo_logout");
    path->wait.done = path_logged_out;
    mp_session_logout(path->session, &path->wait);
}

/* The disk that our scan brought, as it is by now. An address names whatever disk has it: another process
 * may have deleted ours and scanned again. -EBUSY: it has; -ENOENT: there is none. */
static int find_own_disk(struct mp_attach_job *job)
{
    dev_t dev = job->disk.dev;
    int result = mp_sysfs_find_disk(job->host->sysfs_root, job->disk.host, job->sid, job->disk.lun,
                                    &job->disk);

    return result == 0 && dev != 0 && job->disk.dev != dev ? -EBUSY : result;
}

/* A map that is just being made is no holder by name yet. */
static bool stays_claimed(const struct mp_attach_job *job)
{
    uint64_t until_ns = mp_now_ns() + CLAIM_PATIENCE;
    bool claimed;

    do
        claimed = mp_disk_is_claimed(job->host, job->disk.name);
    while (claimed && mp_wait_turn(until_ns));
    return claimed;
}

/* Another process may have found that disk, and use it by now: in a map, or, without one, as the device
 * that it gave to its caller. */
static bool somebody_has(const struct mp_attach_job *job)
{
    struct mp_holders holders;

    if (job->disk.name[0] == '\0')
        return false; /* no block device yet */
    if (mp_scsi_is_marked(job->host->sysfs_root, job->disk.name))
        return true;
    if (job->unmade)
        return false;
    int result = mp_holders_read(job->host, job->disk.name, job->wwid, &holders);

    if (result < 0)
        return result != -ENOENT; /* nobody can tell: leave it alone */
    return holders.map[0] != '\0' || holders.other_map[0] != '\0' || holders.foreign[0] != '\0' ||
           stays_claimed(job);
}

static void delete_run(struct mp_job *base)
{
    struct mp_attach_job *job = (struct mp_attach_job *)base;
    char uuid[sizeof "mpath-" + MANYPATH_WWID_SIZE];
    struct mp_wwid_locks locks = {.count = 0};

    MP_FAULT("attach.undo_delete");
    /* shared: deletions of a volume's disks need not wait for each other, only for who uses it */
    job->result = job->locked ? 0
                              : mp_wwid_locks_take(job->host, &locks, job->wwid, "",
                                                   /* exclusive= */ false, job->deadline_ns);
    bool locked = job->result == 0;

    if (locked)
        job->result = find_own_disk(job);
    if (job->result == 0 && somebody_has(job))
        job->result = -EBUSY;
    if (job->result == 0)
        job->result = mp_scsi_delete(job->host->sysfs_root, job->disk.host, job->disk.channel,
                                     job->disk.target, job->disk.lun);
    if (locked && (job->result == 0 || job->result == -ENOENT)) {
        MP_FAULT("attach.undo_deleted");
        snprintf(uuid, sizeof uuid, "mpath-%s", job->wwid);
        if (job->wwid[0] != '\0')
            mp_map_remove_orphan(job->host, uuid, job->deadline_ns, &job->error);
    }
    mp_wwid_locks_drop(job->host, &locks);
}

static void delete_finished(struct mp_attach_job *job)
{
    mp_attach_unlock(job->attach);
    if (job->result == -EBUSY || job->result == -EAGAIN) {
        mp_attach_warn(job->attach, "undoing: %s stays, somebody else uses it", job->disk.name);
        mp_path_keep(job->path);
        path_undone(job->path);
        return;
    }
    if (job->result < 0 && job->result != -ENOENT && job->result != -ENODEV)
        mp_attach_warn(job->attach,
                       "undoing: deleting the disk of LUN %" PRIu64 " failed with errno %d",
                       job->path->target.lun, -job->result);
    if (job->error.code != 0)
        mp_attach_warn(job->attach, "undoing: %s", job->error.message);
    job->path->has_disk = false;
    path_undo_session(job->path);
}

/* Of a disk whose identity was not read the kernel knows it. Without it the deletion takes no lock, and
 * another process may read the disk, lock the volume and use it while the kernel keeps the deletion
 * waiting. Only once the attach has failed: one that goes on wants that lock for its map, and would wait
 * for the deletion of a path that hangs. */
static int learn_whose(struct mp_attach_path *path)
{
    if (path->identity.wwid[0] != '\0' || path->disk.name[0] == '\0' ||
        path->attach->operation.error.code == 0)
        return 0;
    return mp_identity_known(path->attach->operation.handle->host, path->disk.name,
                             path->identity.wwid);
}

static void path_undo_disk(struct mp_attach_path *path)
{
    struct mp_attach *attach = path->attach;

    /* it may have appeared since somebody looked; what cannot be read is tried once more by the job */
    if (path->disk_is_ours &&
        ((path->has_disk && path->disk.dev != 0) || mp_path_find_disk(path) != -ENOENT)) {
        int result = learn_whose(path);

        if (result < 0) {
            mp_attach_warn(attach, "undoing: %s stays, its page 0x83 cannot be read: errno %d",
                           path->disk.name, -result);
            mp_path_keep(path);
            path_undone(path);
            return;
        }
        struct mp_attach_job *job = mp_attach_job_new(attach, path, delete_run, delete_finished);

        if (job != NULL) {
            mp_copy(job->wwid, sizeof job->wwid, path->identity.wwid);
            job->deadline_ns = mp_now_ns() + ORPHAN_PATIENCE;
            job->locked = attach->wwid_lock.state == MP_LOCK_HELD &&
                          strcmp(path->identity.wwid, attach->identity.wwid) == 0;
            job->unmade = attach->unmade;
            job->sid = path->sid;
            job->disk.host = path->host;
            job->disk.lun = path->target.lun;
        }
        if (job != NULL && mp_attach_job_start(job, &path->job))
            return;
    }
    path_undo_session(path);
}

/* A scan that hangs is no deletion, and may hang for ever. */
static bool deletes_with_lock(const struct mp_attach_path *path)
{
    return path->step == MP_PATH_UNDO && path->job != NULL &&
           ((const struct mp_attach_job *)path->job)->locked;
}

void mp_attach_unlock(struct mp_attach *attach)
{
    if (attach->step < MP_VOLUME_UNDOING || attach->map_job != NULL ||
        attach->wwid_lock.state != MP_LOCK_HELD)
        return;
    for (size_t i = 0; i < attach->path_count; i++)
        if (attach->paths[i].step == MP_PATH_JOIN || deletes_with_lock(&attach->paths[i]))
            return;
    mp_lock_release(&attach->wwid_lock);
}

void mp_path_undo(struct mp_attach_path *path)
{
    struct manypath *handle = path->attach->operation.handle;
    bool scanning = path->step == MP_PATH_SCAN && path->job != NULL;

    mp_engine_unwatch_device(handle, &path->watch);
    mp_engine_disarm(handle, &path->timer);
    mp_session_stop_waiting(&path->wait);
    mp_identity_close(&path->fd);
    path->step = MP_PATH_UNDO;
    MP_FAULT("attach.undo");
    if (scanning) { /* what it finds is to be taken back too: goes on when it is over */
        mp_pool_abandon(handle->pool, path->job); /* its thread may be stuck */
        return;
    }
    mp_attach_job_abandon(path->attach, &path->job);
    path_undo_disk(path);
}

void mp_path_fail(struct mp_attach_path *path)
{
    mp_log(&path->attach->operation.handle->log, MANYPATH_LOG_INFO, "path failed: %s",
           path->error.message);
    if (path->attach->step == MP_VOLUME_DONE)
        path->away = false; /* it was back, and cannot be used all the same */
    mp_path_undo(path);
}

void mp_path_error(struct mp_attach_path *path, int code, int phase, int sys_errno,
                   const char *format, ...)
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
    mp_path_fail(path);
}

void mp_path_overdue(struct mp_attach_path *path)
{
    static const struct {
        int phase;
        const char *waiting_for;
    } steps[] = {
        [MP_PATH_UP] = {MANYPATH_PHASE_LOGIN, "the other logins"},
        [MP_PATH_SCAN] = {MANYPATH_PHASE_SCAN, "the kernel's scan"},
        [MP_PATH_DEVICE] = {MANYPATH_PHASE_DEVICE, "its block device"},
        [MP_PATH_IDENTITY] = {MANYPATH_PHASE_IDENTITY, "an answer to INQUIRY"},
    };

    mp_path_error(path, MANYPATH_E_DEVICE, steps[path->step].phase, ETIMEDOUT,
                  "LUN %" PRIu64 " is not usable in time: still waiting for %s", path->target.lun,
                  steps[path->step].waiting_for);
}

void mp_path_keep(struct mp_attach_path *path)
{
    MP_FAULT("attach.path_kept");
    path->disk_is_ours = false;
    mp_session_keep(path->session);
}

/* ---- identity ---- */

/* The node is made, and can be opened, a moment after sysfs shows the disk. */
static bool too_early(int sys_errno)
{
    return sys_errno == ENOENT || sys_errno == ENXIO || sys_errno == ENODEV;
}

/* Its event is still to come: of a disk that our scan brought, and of one that somebody else's scan is
 * bringing. One that is offline or on its way out cannot be opened either, and has no event to come. */
static bool coming_up(const struct mp_attach_path *path, int sys_errno)
{
    return path->disk_is_ours ||
           (sys_errno != ENODEV && path->has_disk &&
            (strcmp(path->disk.state, "running") == 0 || strcmp(path->disk.state, "created") == 0));
}

static void path_identity(struct mp_attach_path *path);
static void path_scan(struct mp_attach_path *path);

void mp_path_forget_disk(struct mp_attach_path *path)
{
    path->has_disk = path->announced = path->missed = false;
    path->disk = (struct mp_disk){.name = ""};
    path->identity = (struct mp_identity){.wwid = ""};
    path->opens = 0;
}

/* A left-over disk was deleted: as if there had been none. */
static void scan_again(struct mp_attach_path *path)
{
    mp_path_forget_disk(path);
    path->rounds++;
    path_scan(path);
}

/* Somebody deletes it (kernel scsi_sysfs.c sdev_states): no event of it is to come, and the next scan
 * waits in the kernel until it is gone. */
static bool is_leaving(const struct mp_disk *disk)
{
    return strcmp(disk->state, "cancel") == 0 || strcmp(disk->state, "deleted") == 0;
}

static void rescan(struct mp_attach_path *path)
{
    mp_path_lost_disk(path);
    path_scan(path);
}

/* Another process has deleted the disk `dev` that was to be read, as its detach does; the next one may
 * have no block device yet. Looks at it once more. */
static bool was_taken_away(struct mp_attach_path *path, dev_t dev)
{
    return mp_path_find_disk(path) == -ENOENT || is_leaving(&path->disk) || path->disk.dev != dev;
}

/* The caller knows who the volume is. */
static bool is_wanted(struct mp_attach_path *path)
{
    const struct mp_wanted *wanted = &path->attach->wanted;
    const struct mp_identity *found = &path->identity;
    bool wwid = wanted->wwid[0] == '\0' || strcmp(wanted->wwid, found->wwid) == 0;
    bool serial = wanted->serial[0] == '\0' || strcmp(wanted->serial, found->serial) == 0;

    if (wwid && serial)
        return true;
    if (!path->target.candidate)
        mp_attach_warn(path->attach, "%s through portal %s is disk %s, not %s%s: kept out",
                       path->disk.name, path->target.address, wwid ? found->serial : found->wwid,
                       wwid ? wanted->serial : wanted->wwid, wwid ? " (serial numbers)" : "");
    mp_path_error(path, MANYPATH_E_IDENTITY, MANYPATH_PHASE_IDENTITY, 0,
                  "%s has %s %s, and %s was asked for; it was kept out. Check what the LUN is "
                  "mapped to, or what is expected",
                  path->disk.name, wwid ? "serial" : "wwid", wwid ? found->serial : found->wwid,
                  wwid ? wanted->serial : wanted->wwid);
    return false;
}

/* For its event. When events were lost, or sysfs could not be read when one came, nobody says it
 * again: then the disk is tried until the time is up. */
static void wait_for_device(struct mp_attach_path *path)
{
    uint64_t again_ns = mp_now_ns() + DEVICE_POLL;

    path->step = MP_PATH_DEVICE;
    mp_engine_arm(path->attach->operation.handle, &path->timer,
                  path->missed && again_ns < path->until_ns ? again_ns : path->until_ns);
}

/* `result` is that of mp_path_find_disk(). */
static void look_for_device(struct mp_attach_path *path, int result)
{
    if (result == -ENOENT || is_leaving(&path->disk))
        rescan(path); /* deleted before we heard of it */
    else if (result == 0 && (path->announced || path->missed))
        path_identity(path);
    else
        wait_for_device(path);
}

static void path_timer(struct mp_timer *timer)
{
    struct mp_attach_path *path =
        (struct mp_attach_path *)((char *)timer - offsetof(struct mp_attach_path, timer));

    if (mp_now_ns() >= path->until_ns)
        mp_path_overdue(path);
    else
        look_for_device(path, mp_path_find_disk(path));
}

static void identity_finished(struct mp_attach_job *job)
{
    struct mp_attach_path *path = job->path;

    if (job->note[0] != '\0')
        mp_attach_warn(path->attach, "%s", job->note);
    if (job->deleted) {
        scan_again(path);
        return;
    }
    if (job->result < 0 && was_taken_away(path, job->disk.dev)) {
        rescan(path);
        return;
    }
    if (job->result < 0 && too_early(job->error.sys_errno) && path->opens < OPENS_MAX &&
        (path->announced || coming_up(path, job->error.sys_errno))) {
        if (path->announced)
            path_identity(path);
        else
            wait_for_device(path);
        return;
    }
    if (job->result < 0) {
        path->refuses = job->refuses && !path->target.candidate;
        mp_path_error(path, job->error.code, job->error.phase, job->error.sys_errno, "%s",
                      job->error.message);
        return;
    }
    mp_engine_unwatch_device(path->attach->operation.handle, &path->watch);
    mp_engine_disarm(path->attach->operation.handle, &path->timer);
    path->fd = job->fd;
    job->fd = -1;
    path->identity = job->identity;
    MP_FAULT("attach.identity_read");
    path->holders = job->holders;
    path->claimed = job->claimed;
    if (!is_wanted(path))
        return;
    path->times.identity_end_ns = mp_attach_since_begin(path->attach);
    path->step = MP_PATH_READY;
    path->attach->decide(path->attach);
}

static void path_identity(struct mp_attach_path *path)
{
    struct mp_attach *attach = path->attach;
    struct mp_attach_job *job =
        mp_attach_job_new(attach, path, mp_attach_identify, identity_finished);

    MP_FAULT("attach.disk_there");
    if (job != NULL) {
        job->was_there = !path->disk_is_ours || path->rounds > 0;
        job->last_round = path->rounds >= ROUNDS_MAX;
        job->appeared_ns = path->disk_is_ours ? path->scan_ns : 0;
        job->single_path = attach->single_path;
        job->wants_serial = attach->wanted.serial[0] != '\0';
        job->deadline_ns = attach->step == MP_VOLUME_DONE
                               ? mp_now_ns() + UDEV_PATIENCE
                               : attach->paths_deadline_ns - ANSWER_RESERVE;
    }
    path->step = MP_PATH_IDENTITY;
    path->opens += path->announced;
    mp_engine_arm(attach->operation.handle, &path->timer, path->until_ns);
    path->times.device_end_ns = mp_attach_since_begin(path->attach);
    if (job == NULL || !mp_attach_job_start(job, &path->job))
        mp_path_error(path, MANYPATH_E_SYSTEM, MANYPATH_PHASE_IDENTITY, EAGAIN,
                      "no thread for the inquiry");
}

/* ---- device ---- */

int mp_path_find_disk(struct mp_attach_path *path)
{
    int result = mp_sysfs_find_disk(path->attach->operation.handle->host->sysfs_root, path->host,
                                    path->sid, path->target.lun, &path->disk);

    path->has_disk = result == 0;
    if (result == 0 && path->disk.dev == 0)
        result = -EAGAIN;
    return result;
}

/* A block device comes; or a SCSI device goes, perhaps before it had one. */
static bool is_telling(const struct mp_uevent *event)
{
    return (event->action == MP_UEVENT_ADD && strcmp(event->subsystem, "block") == 0) ||
           (event->action == MP_UEVENT_REMOVE && strcmp(event->subsystem, "scsi") == 0);
}

static void device_seen(struct mp_device_watch *watch, const struct mp_uevent *event)
{
    struct mp_attach_path *path =
        (struct mp_attach_path *)((char *)watch - offsetof(struct mp_attach_path, watch));
    char session[32];

    snprintf(session, sizeof session, "/session%d/", path->sid);
    if (event != NULL && (strstr(event->devpath, session) == NULL || !is_telling(event)))
        return;
    /* a job that reads the disk tells what became of it: the path stays with the one that is read */
    int result = path->step == MP_PATH_IDENTITY ? 0 : mp_path_find_disk(path);

    if (event == NULL || (result < 0 && result != -ENOENT && result != -EAGAIN))
        path->missed = true;
    else if (result == 0 && strcmp(event->devname, path->disk.name) == 0)
        path->announced = true;
    if (path->step == MP_PATH_DEVICE)
        look_for_device(path, result);
}

/* There is no disk. One that was seen a moment ago was deleted, as the detach of another process does; in
 * a session that others have, too, one may come and go unseen. */
static bool may_be_deleted(struct mp_attach_path *path)
{
    bool again = path->disk.name[0] != '\0' || (path->session_existed && !path->scanned_again);

    path->scanned_again = true;
    return again;
}

static void path_device(struct mp_attach_path *path)
{
    int result = mp_path_find_disk(path);

    path->step = MP_PATH_DEVICE;
    path->times.scan_end_ns = mp_attach_since_begin(path->attach);
    if (result == -ENOENT && may_be_deleted(path))
        rescan(path);
    else if (result == -ENOENT)
        mp_path_error(path, MANYPATH_E_LUN_NOT_FOUND, MANYPATH_PHASE_SCAN, 0,
                      "target %s offers no LUN %" PRIu64
                      " to this host; check that the volume is exported to this initiator",
                      path->target.iqn, path->target.lun);
    else if (result < 0 && result != -EAGAIN)
        mp_path_error(path, MANYPATH_E_DEVICE, MANYPATH_PHASE_DEVICE, result,
                      "the disk of LUN %" PRIu64 " cannot be read from sysfs: errno %d",
                      path->target.lun, -result);
    else if (result == 0 && (path->announced || path->missed || !path->disk_is_ours))
        path_identity(path);
    else
        wait_for_device(path);
}

/* ---- scan ---- */

static void scan_run(struct mp_job *base)
{
    struct mp_attach_job *job = (struct mp_attach_job *)base;

    MP_FAULT("attach.scan_begun");
    job->result = mp_scsi_scan(job->host->sysfs_root, job->disk.host, 0, 0, job->disk.lun);
    MP_FAULT("attach.scan_ended");
}

static void scan_finished(struct mp_attach_job *job)
{
    struct mp_attach_path *path = job->path;
    enum mp_session_state state;

    if (path->step == MP_PATH_UNDO) {
        path_undo_disk(path);
        return;
    }
    if (job->result < 0) {
        mp_path_error(path, job->result == -EACCES ? MANYPATH_E_PERMISSION : MANYPATH_E_DEVICE,
                      MANYPATH_PHASE_SCAN, job->result,
                      "scanning SCSI host %d failed with errno %d", job->disk.host, -job->result);
        return;
    }
    /* the kernel scans nothing, and says so to nobody, while the session is not logged in */
    if (mp_sysfs_session_state(job->host->sysfs_root, path->sid, &state) < 0 ||
        state != MP_SESSION_LOGGED_IN) {
        mp_path_login(path);
        return;
    }
    path_device(path);
}

static void path_scan(struct mp_attach_path *path)
{
    struct manypath_operation *operation = &path->attach->operation;

    path->step = MP_PATH_SCAN;
    path->watch.seen = device_seen;
    /* watch first, then look and scan: no event falls between */
    mp_engine_watch_device(operation->handle, &path->watch);
    path->timer.fire = path_timer;
    mp_engine_arm(operation->handle, &path->timer, path->until_ns);
    int result = mp_path_find_disk(path);

    if (result != -ENOENT && !((result == 0 || result == -EAGAIN) && is_leaving(&path->disk))) {
        path_device(path); /* which tells what cannot be read, too */
        return;
    }
    struct mp_attach_job *job = mp_attach_job_new(path->attach, path, scan_run, scan_finished);

    if (job != NULL) {
        job->disk.host = path->host;
        job->disk.lun = path->target.lun;
    }
    path->disk_is_ours = true; /* whatever appears from here on */
    path->scan_ns = mp_now_ns();
    if (job == NULL || !mp_attach_job_start(job, &path->job))
        mp_path_error(path, MANYPATH_E_SYSTEM, MANYPATH_PHASE_SCAN, EAGAIN,
                      "no thread for the scan");
}

/* ---- login ---- */

static uint64_t relative(const struct mp_attach *attach, uint64_t ns)
{
    return ns > attach->operation.begin_ns ? ns - attach->operation.begin_ns : 0;
}

/* A disk that appears makes udev start a dozen programs, which on a small host take the processor
 * from iscsid; so the scans of one volume begin together, when its logins are through. A login that
 * is late is not waited for: longer than any answer took so far, and the others go on. */
void mp_paths_scan(struct mp_attach *attach)
{
    mp_engine_disarm(attach->operation.handle, &attach->gather);
    for (size_t i = 0; i < attach->path_count; i++)
        if (attach->paths[i].step == MP_PATH_UP)
            path_scan(&attach->paths[i]);
}

bool mp_path_disk_is_there(struct mp_attach_path *path)
{
    dev_t dev = path->disk.dev;

    return mp_path_find_disk(path) != -ENOENT && path->disk.dev == dev;
}

void mp_path_lost_disk(struct mp_attach_path *path)
{
    mp_log(&path->attach->operation.handle->log, MANYPATH_LOG_INFO,
           "portal %s port %u: the disk of LUN %" PRIu64
           " was taken away meanwhile and is scanned for again",
           path->target.address, path->target.portal.port, path->target.lun);
    mp_identity_close(&path->fd);
    mp_path_forget_disk(path);
    path->disk_is_ours = false;
    path->step = MP_PATH_UP;
}

static void gather_over(struct mp_timer *timer)
{
    mp_paths_scan((struct mp_attach *)((char *)timer - offsetof(struct mp_attach, gather)));
}

void mp_attach_paths_again(struct mp_attach *attach)
{
    attach->step = MP_VOLUME_PATHS;
    mp_engine_arm(attach->operation.handle, &attach->grace, attach->paths_deadline_ns);
    mp_paths_scan(attach);
}

static void login_counted(struct mp_attach *attach)
{
    uint64_t now = mp_now_ns();
    uint64_t gap = now - attach->last_answer_ns;
    bool more = false;

    if (attach->step != MP_VOLUME_PATHS) { /* a late one */
        mp_paths_scan(attach);
        return;
    }
    for (size_t i = 0; i < attach->path_count; i++)
        more = more || attach->paths[i].step == MP_PATH_LOGIN ||
               (attach->paths[i].step == MP_PATH_WAITING && !attach->single_path);
    attach->last_answer_ns = now;
    if (gap > attach->longest_gap_ns)
        attach->longest_gap_ns = gap;
    if (!more) {
        mp_paths_scan(attach);
        return;
    }
    attach->gather.fire = gather_over;
    mp_engine_arm(attach->operation.handle, &attach->gather, now + attach->longest_gap_ns);
}

static void path_logged_in(struct mp_session_wait *wait, const struct manypath_error *error)
{
    struct mp_attach_path *path =
        (struct mp_attach_path *)((char *)wait - offsetof(struct mp_attach_path, wait));
    struct mp_attach *attach = path->attach;

    path->times.login_begin_ns = relative(attach, mp_session_login_begin_ns(path->session));
    if (error->code != 0) {
        path->error = *error;
        mp_path_fail(path);
        login_counted(attach);
        return;
    }
    MP_FAULT("attach.logged_in");
    path->times.login_end_ns = mp_attach_since_begin(attach);
    path->sid = mp_session_sid(path->session);
    path->host = mp_session_host(path->session);
    path->session_existed = mp_session_existed(path->session);
    if (attach->step == MP_VOLUME_UNDOING) {
        mp_path_undo(path);
        return;
    }
    path->step = MP_PATH_UP;
    path->until_ns = mp_now_ns() + attach->operation.deadline_ns - attach->operation.submit_ns;
    login_counted(attach);
}

void mp_path_login(struct mp_attach_path *path)
{
    mp_engine_disarm(path->attach->operation.handle, &path->timer);
    path->step = MP_PATH_LOGIN;
    path->wait.done = path_logged_in;
    path->wait.terms = &path->attach->terms;
    path->wait.patient = path->away;
    MP_FAULT("attach.session_wanted");
    mp_session_login(path->session, &path->wait);
}
