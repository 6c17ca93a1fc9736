/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Detach, in an order that loses no write:
 *
 *   FIND (what the kernel has for these targets) -> UNMAP (refuse if in use, flush, remove the map)
 *     -> DELETE (the SCSI devices, side by side) -> LOGOUT (sessions that no other LUN uses, side
 * by side)
 *
 * Everything is read from the kernel, so the same call goes on where an earlier one stopped.
 */
#include "detach.h"

#include "error.h"
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

/* Jobs stop waiting this long before the deadline, so that their own error reaches the caller. */
#define ANSWER_RESERVE (UINT64_C(100) * 1000 * 1000)

enum { HOLDERS_MAX = 8, UUID_SIZE = 129, MEMBERS_MAX = 256 };

enum detach_step { DETACH_FIND, DETACH_UNMAP, DETACH_DELETE, DETACH_LOGOUT, DETACH_DONE };

struct detach;

/* One path's disk, if it is there. */
struct detach_disk {
    struct detach *detach;
    struct mp_disk disk;
    char map[UUID_SIZE]; /* that it was in */
    struct mp_job *job;
};

/* One session; several targets of the request may share it. */
struct detach_session {
    struct detach *detach;
    struct mp_portal portal;
    char iqn[MANYPATH_IQN_SIZE];
    int32_t sid; /* -1: not there */
    int32_t host;
    struct mp_session_entry *entry;
    struct mp_session_wait wait;
    bool waiting;
};

struct detach {
    struct manypath_operation operation;
    enum detach_step step;
    bool whole_map;
    size_t disk_count;
    struct detach_disk *disks;
    size_t session_count;
    struct detach_session *sessions;
    size_t map_count;
    char (*maps)[UUID_SIZE];
    struct mp_job *unmap_job;
    unsigned jobs;
    unsigned outstanding; /* deletes or logouts of the current step */
    struct mp_warnings warnings;
    struct manypath_detachment *detachment;
};

static uint64_t since_begin(const struct detach *detach)
{
    return mp_now_ns() - detach->operation.begin_ns;
}

/* Time since the phases before, whose sum is what has been stored so far. */
static uint64_t phase_ns(const struct detach *detach)
{
    const struct manypath_detach_times *times = &detach->detachment->times;

    return since_begin(detach) - times->prepare_ns - times->flush_ns - times->unmap_ns -
           times->delete_ns - times->logout_ns;
}

/* ---- the end ---- */

static void finish(struct detach *detach)
{
    struct manypath_detachment *result = detach->detachment;

    detach->step = DETACH_DONE;
    for (size_t i = 0; i < detach->disk_count; i++) {
        if (detach->disks[i].job != NULL)
            mp_pool_abandon(detach->operation.handle->pool, detach->disks[i].job);
        detach->disks[i].job = NULL;
    }
    if (detach->unmap_job != NULL)
        mp_pool_abandon(detach->operation.handle->pool, detach->unmap_job);
    detach->unmap_job = NULL;
    for (size_t i = 0; i < detach->session_count; i++) {
        struct mp_session_entry *entry = detach->sessions[i].entry;

        detach->sessions[i].entry = NULL;
        mp_session_stop_waiting(&detach->sessions[i].wait);
        if (entry != NULL)
            mp_session_drop(entry);
    }
    result->times.total_ns = since_begin(detach) + result->times.queue_ns;
    result->warning_count = detach->warnings.count;
    result->warnings = detach->warnings.texts;
    detach->warnings = (struct mp_warnings){0};
    mp_operation_deliver(&detach->operation);
}

static void fail(struct detach *detach, const struct manypath_error *error)
{
    detach->operation.error = *error;
    finish(detach);
}

/* ---- jobs ---- */

struct detach_job {
    struct mp_job job;
    struct detach *detach;
    struct detach_disk *disk; /* NULL: unmapping */
    struct mp_host *host;
    void (*finished)(struct detach_job *job);
    int result;
    struct manypath_error error;
    struct mp_disk target;
    char map[UUID_SIZE];
    uint64_t deadline_ns;
    struct mp_unmap_result times;
    size_t map_count;
    char (*maps)[UUID_SIZE];
    size_t bare_count; /* disks without a map */
    char (*bare)[MANYPATH_DEVICE_SIZE];
};

static void job_drop(struct mp_job *base)
{
    struct detach_job *job = (struct detach_job *)base;

    mp_host_release(job->host);
    free(job->maps);
    free(job->bare);
    free(job);
}

static void job_done(struct mp_job *base)
{
    struct detach_job *job = (struct detach_job *)base;
    struct mp_job **slot = job->disk != NULL ? &job->disk->job : &job->detach->unmap_job;

    job->detach->jobs--;
    if (*slot == base) {
        *slot = NULL;
        job->finished(job);
    }
    job_drop(base);
}

static struct detach_job *new_job(struct detach *detach, struct detach_disk *disk,
                                  void (*run)(struct mp_job *),
                                  void (*finished)(struct detach_job *))
{
    struct detach_job *job = calloc(1, sizeof *job);

    if (job == NULL)
        return NULL;
    job->job.run = run;
    job->job.done = job_done;
    job->job.drop = job_drop;
    job->detach = detach;
    job->disk = disk;
    job->host = mp_host_hold(detach->operation.handle->host);
    job->finished = finished;
    job->deadline_ns = detach->operation.deadline_ns - ANSWER_RESERVE;
    return job;
}

static bool start_job(struct detach *detach, struct detach_job *job, struct mp_job **slot)
{
    if (mp_pool_submit(detach->operation.handle->pool, &job->job) < 0) {
        job_drop(&job->job);
        return false;
    }
    detach->jobs++;
    *slot = &job->job;
    return true;
}

static void no_resources(struct detach *detach, int phase)
{
    struct manypath_error error;

    mp_error(&error, MANYPATH_E_SYSTEM, phase, EAGAIN, "no thread or memory to go on with");
    fail(detach, &error);
}

/* ---- LOGOUT ---- */

static void logout_done(struct mp_session_wait *wait, const struct manypath_error *error)
{
    struct detach_session *session =
        (struct detach_session *)((char *)wait - offsetof(struct detach_session, wait));
    struct detach *detach = session->detach;
    struct mp_session_entry *entry = session->entry;
    enum mp_session_state state;

    session->waiting = false;
    session->entry = NULL; /* at once: others decide by who holds it */
    mp_session_drop(entry);
    if (error->code == MANYPATH_E_IN_USE) {
        mp_warn(&detach->warnings, "%s", error->message);
        detach->detachment->sessions_kept++;
    } else if (error->code != 0)
        detach->operation.error = *error; /* the others are still attempted */
    else if (mp_sysfs_session_state(detach->operation.handle->host->sysfs_root, session->sid,
                                    &state) == -ENOENT)
        detach->detachment->sessions_removed++;
    else
        detach->detachment->sessions_kept++;
    if (--detach->outstanding > 0)
        return;
    detach->detachment->times.logout_ns = phase_ns(detach);
    finish(detach);
}

static void step_logout(struct detach *detach)
{
    detach->step = DETACH_LOGOUT;
    detach->outstanding =
        1; /* ourselves, so that answers given at once do not end the step early */
    for (size_t i = 0; i < detach->session_count; i++) {
        struct detach_session *session = &detach->sessions[i];

        if (session->sid < 0)
            continue;
        if (!mp_session_exclusive(session->entry)) {
            struct mp_session_entry *entry = session->entry;

            detach->detachment->sessions_kept++;
            mp_session_leave(entry);
            session->entry = NULL; /* at once: others decide by who holds it */
            mp_session_drop(entry);
            continue;
        }
        detach->outstanding++;
        session->waiting = true;
        session->wait.done = logout_done;
        session->wait.until_ns = detach->operation.deadline_ns - ANSWER_RESERVE;
        mp_session_logout(session->entry, &session->wait);
    }
    if (--detach->outstanding > 0)
        return;
    detach->detachment->times.logout_ns = phase_ns(detach);
    finish(detach);
}

/* ---- DELETE ---- */

static void delete_run(struct mp_job *base)
{
    struct detach_job *job = (struct detach_job *)base;

    job->result = mp_scsi_delete(job->host->sysfs_root, job->target.host, job->target.channel,
                                 job->target.target, job->target.lun);
    if (job->map[0] != '\0')
        mp_map_remove_orphan(job->host, job->map, job->deadline_ns, &job->error);
}

static void delete_finished(struct detach_job *job)
{
    struct detach *detach = job->detach;

    if (job->result == 0)
        detach->detachment->devices_removed++;
    else if (job->result != -ENOENT && job->result != -ENODEV)
        mp_error(&detach->operation.error, MANYPATH_E_DEVICE, MANYPATH_PHASE_DELETE, job->result,
                 "deleting SCSI device %s failed with errno %d", job->target.name, -job->result);
    if (job->error.code != 0)
        detach->operation.error = job->error;
    if (--detach->outstanding > 0)
        return;
    detach->detachment->times.delete_ns = phase_ns(detach);
    if (detach->operation.error.code != 0)
        finish(detach); /* sessions that still carry a device are not logged out */
    else
        step_logout(detach);
}

static void step_delete(struct detach *detach)
{
    detach->step = DETACH_DELETE;
    detach->outstanding = (unsigned)detach->disk_count;
    if (detach->disk_count == 0) {
        step_logout(detach);
        return;
    }
    for (size_t i = 0; i < detach->disk_count; i++) {
        struct detach_disk *disk = &detach->disks[i];
        struct detach_job *job = new_job(detach, disk, delete_run, delete_finished);

        if (job != NULL) {
            job->target = disk->disk;
            mp_copy(job->map, sizeof job->map, disk->map);
        }
        if (job == NULL || !start_job(detach, job, &disk->job)) {
            no_resources(detach, MANYPATH_PHASE_DELETE);
            return;
        }
    }
}

/* ---- UNMAP ---- */

static void unmap_run(struct mp_job *base)
{
    struct detach_job *job = (struct detach_job *)base;

    static const struct mp_unmap_options options = {.flush = true};

    job->times.flushed_ns = mp_now_ns();
    for (size_t i = 0; i < job->map_count && job->result == 0; i++)
        job->result = mp_map_remove(job->host, job->maps[i], &options, job->deadline_ns,
                                    &job->times, &job->error);
    for (size_t i = 0; i < job->bare_count && job->result == 0; i++)
        job->result =
            mp_disk_release(job->host, job->bare[i], job->deadline_ns, &job->times, &job->error);
}

static void unmap_finished(struct detach_job *job)
{
    struct detach *detach = job->detach;
    struct manypath_detach_times *times = &detach->detachment->times;

    if (job->result < 0) {
        fail(detach, &job->error);
        return;
    }
    times->flush_ns = job->times.flushed_ns - detach->operation.begin_ns - times->prepare_ns;
    times->unmap_ns = phase_ns(detach);
    detach->detachment->map_removed = job->map_count > 0;
    step_delete(detach);
}

static bool add_map(struct detach *detach, const char *uuid)
{
    for (size_t i = 0; i < detach->map_count; i++)
        if (strcmp(detach->maps[i], uuid) == 0)
            return true;
    char (*maps)[UUID_SIZE] = realloc(detach->maps, (detach->map_count + 1) * sizeof *maps);

    if (maps == NULL)
        return false;
    detach->maps = maps;
    mp_copy(maps[detach->map_count++], UUID_SIZE, uuid);
    return true;
}

/* Notes the multipath map that holds this disk. Any other holder refuses the detach. */
static int check_holders(struct detach *detach, struct detach_disk *disk)
{
    const char *root = detach->operation.handle->host->sysfs_root;
    char holders[HOLDERS_MAX][MANYPATH_DEVICE_SIZE];
    struct manypath_error *error = &detach->operation.error;
    size_t count = 0;

    if (mp_sysfs_holders(root, disk->disk.name, holders, HOLDERS_MAX, &count) < 0)
        return 0; /* it vanished: nothing holds it */
    for (size_t i = 0; i < count && i < HOLDERS_MAX; i++) {
        char uuid[UUID_SIZE] = "";

        mp_sysfs_dm(root, holders[i], uuid, sizeof uuid, NULL, 0);
        if (strncmp(uuid, "mpath-", 6) != 0)
            return mp_error(error, MANYPATH_E_IN_USE, MANYPATH_PHASE_PREPARE, EBUSY,
                            "%s is held by %s, which is no multipath map; nothing was removed",
                            disk->disk.name, holders[i]);
        if (!add_map(detach, uuid))
            return mp_error(error, MANYPATH_E_SYSTEM, MANYPATH_PHASE_PREPARE, ENOMEM,
                            "out of memory");
        mp_copy(disk->map, sizeof disk->map, uuid);
    }
    return 0;
}

static void step_unmap(struct detach *detach)
{
    struct detach_job *job = new_job(detach, NULL, unmap_run, unmap_finished);

    detach->step = DETACH_UNMAP;
    if (job != NULL)
        job->bare = calloc(detach->disk_count + 1, sizeof *job->bare);
    if (job == NULL || job->bare == NULL) {
        if (job != NULL)
            job_drop(&job->job);
        no_resources(detach, MANYPATH_PHASE_UNMAP);
        return;
    }
    for (size_t i = 0; i < detach->disk_count; i++) {
        struct detach_disk *disk = &detach->disks[i];

        if (disk->disk.name[0] == '\0')
            continue;
        if (check_holders(detach, disk) < 0) {
            job_drop(&job->job);
            finish(detach);
            return;
        }
        if (disk->map[0] == '\0')
            mp_copy(job->bare[job->bare_count++], MANYPATH_DEVICE_SIZE, disk->disk.name);
    }
    job->maps = detach->maps;
    job->map_count = detach->map_count;
    detach->maps = NULL;
    detach->map_count = 0;
    detach->detachment->times.prepare_ns = since_begin(detach);
    if (job->map_count == 0 && job->bare_count == 0) {
        job_drop(&job->job);
        step_delete(detach);
    } else if (!start_job(detach, job, &detach->unmap_job)) {
        no_resources(detach, MANYPATH_PHASE_UNMAP);
    }
}

/* ---- FIND ---- */

/* The session of this portal and iqn, held. NULL: out of memory. */
static struct detach_session *session_of(struct detach *detach, const struct mp_portal *portal,
                                         const char *iqn)
{
    struct detach_session *session;

    for (size_t i = 0; i < detach->session_count; i++) {
        session = &detach->sessions[i];
        if (mp_portal_equal(&session->portal, portal) && strcmp(session->iqn, iqn) == 0)
            return session;
    }
    session = realloc(detach->sessions, (detach->session_count + 1) * sizeof *session);
    if (session == NULL)
        return NULL;
    detach->sessions = session;
    session += detach->session_count;
    memset(session, 0, sizeof *session);
    session->detach = detach;
    session->portal = *portal;
    mp_copy(session->iqn, sizeof session->iqn, iqn);
    session->sid = session->host = -1;
    session->entry = mp_session_hold(detach->operation.handle->sessions, portal, iqn);
    if (session->entry == NULL)
        return NULL;
    detach->session_count++;
    return session;
}

static bool add_disk(struct detach *detach, const struct mp_disk *disk)
{
    struct detach_disk *disks;

    for (size_t i = 0; i < detach->disk_count; i++)
        if (detach->disks[i].disk.host == disk->host && detach->disks[i].disk.lun == disk->lun &&
            detach->disks[i].disk.channel == disk->channel &&
            detach->disks[i].disk.target == disk->target)
            return true;
    disks = realloc(detach->disks, (detach->disk_count + 1) * sizeof *disks);
    if (disks == NULL)
        return false;
    detach->disks = disks;
    disks[detach->disk_count++] = (struct detach_disk){.detach = detach, .disk = *disk};
    return true;
}

/* The disk of one target; one in each session, should the host have several to this node. */
static bool find_target(struct detach *detach, const struct mp_target *target,
                        const struct mp_session *sessions, size_t count)
{
    const char *root = detach->operation.handle->host->sysfs_root;
    struct detach_session *session = session_of(detach, &target->portal, target->iqn);

    if (session == NULL)
        return false;
    for (size_t i = 0; i < count; i++) {
        struct mp_disk disk;

        if (strcmp(sessions[i].iqn, target->iqn) != 0 ||
            !mp_portal_equal(&sessions[i].portal, &target->portal))
            continue;
        if (session->sid >= 0 && session->sid != sessions[i].sid)
            mp_session_several(session->entry);
        session->sid = sessions[i].sid;
        session->host = sessions[i].host;
        if (mp_sysfs_find_disk(root, session->host, session->sid, target->lun, &disk) == 0 &&
            !add_disk(detach, &disk))
            return false;
    }
    return true;
}

/* A member of the map, and the session it came through. Other members stay out of this: the map's
 * removal lets go of them. */
static bool find_member(struct detach *detach, const char *name, const struct mp_session *sessions,
                        size_t count)
{
    const char *root = detach->operation.handle->host->sysfs_root;
    struct detach_session *session;
    struct mp_disk disk;
    int32_t sid, host;
    uint64_t lun;

    if (mp_sysfs_disk_place(root, name, &sid, &host, &lun) < 0 ||
        mp_sysfs_find_disk(root, host, sid, lun, &disk) < 0)
        return true;
    for (size_t i = 0; i < count; i++) {
        if (sessions[i].sid != sid || sessions[i].portal.family == 0)
            continue;
        session = session_of(detach, &sessions[i].portal, sessions[i].iqn);
        if (session == NULL)
            return false;
        session->sid = sid;
        session->host = host;
        return add_disk(detach, &disk);
    }
    return true;
}

/* The other paths of the maps that the disks found so far are in. */
static bool find_members(struct detach *detach, const struct mp_session *sessions, size_t count)
{
    const char *root = detach->operation.handle->host->sysfs_root;
    size_t found = detach->disk_count;

    for (size_t i = 0; i < found; i++) {
        char holders[HOLDERS_MAX][MANYPATH_DEVICE_SIZE];
        char members[MEMBERS_MAX][MANYPATH_DEVICE_SIZE];
        size_t holder_count = 0, member_count = 0;

        if (mp_sysfs_holders(root, detach->disks[i].disk.name, holders, HOLDERS_MAX,
                             &holder_count) < 0)
            continue;
        for (size_t h = 0; h < holder_count && h < HOLDERS_MAX; h++) {
            char uuid[UUID_SIZE] = "";

            mp_sysfs_dm(root, holders[h], uuid, sizeof uuid, NULL, 0);
            if (strncmp(uuid, "mpath-", 6) != 0 ||
                mp_sysfs_slaves(root, holders[h], members, MEMBERS_MAX, &member_count) < 0)
                continue;
            for (size_t m = 0; m < member_count && m < MEMBERS_MAX; m++)
                if (!find_member(detach, members[m], sessions, count))
                    return false;
        }
    }
    return true;
}

static void detach_begin(struct manypath_operation *operation)
{
    struct detach *detach = (struct detach *)operation;
    struct mp_session *sessions = NULL;
    struct manypath_error error;
    size_t count = 0;
    bool found = true;
    int result = mp_sysfs_sessions(operation->handle->host->sysfs_root, &sessions, &count);

    detach->detachment->times.queue_ns = operation->begin_ns - operation->submit_ns;
    if (result < 0 && result != -ENOENT) {
        mp_error(&error, MANYPATH_E_SYSTEM, MANYPATH_PHASE_PREPARE, result,
                 "cannot read the iSCSI sessions from sysfs: errno %d", -result);
        fail(detach, &error);
        return;
    }
    for (size_t i = 0; i < detach->operation.target_count && found; i++)
        found = find_target(detach, &detach->operation.targets[i], sessions, count);
    if (found && detach->whole_map)
        found = find_members(detach, sessions, count);
    free(sessions);
    if (found)
        step_unmap(detach);
    else
        no_resources(detach, MANYPATH_PHASE_PREPARE);
}

/* ---- cancelling, freeing ---- */

static void detach_cancel(struct manypath_operation *operation, int code)
{
    static const struct {
        int phase;
        const char *state;
    } steps[] = {
        [DETACH_FIND] = {MANYPATH_PHASE_PREPARE, "nothing was removed"},
        [DETACH_UNMAP] = {MANYPATH_PHASE_UNMAP, "while flushing or removing the map"},
        [DETACH_DELETE] = {MANYPATH_PHASE_DELETE,
                           "the map is gone, SCSI devices were being deleted"},
        [DETACH_LOGOUT] = {MANYPATH_PHASE_LOGOUT,
                           "map and devices are gone, sessions were being logged out"},
        [DETACH_DONE] = {MANYPATH_PHASE_NONE, ""},
    };
    struct detach *detach = (struct detach *)operation;
    struct manypath_error error;

    mp_error(&error, code, steps[detach->step].phase, 0, "%s: %s; the same call goes on from there",
             code == MANYPATH_E_TIMEOUT ? "the timeout passed" : "the detach was cancelled",
             steps[detach->step].state);
    fail(detach, &error);
}

static bool detach_idle(const struct manypath_operation *operation)
{
    return ((const struct detach *)operation)->jobs == 0;
}

static void detach_free(struct manypath_operation *operation)
{
    struct detach *detach = (struct detach *)operation;

    manypath_detachment_free(detach->detachment);
    free(detach->maps);
    free(detach->operation.targets);
    free(detach->disks);
    free(detach->sessions);
    free(detach);
}

int mp_detach_new(struct manypath *handle, const struct manypath_detach_request *request,
                  struct manypath_operation **ret_operation, struct manypath_error *err)
{
    struct detach *detach;
    int result = mp_request_timeout(request->timeout_ms, err);

    if (result < 0)
        return result;
    detach = calloc(1, sizeof *detach);
    if (detach == NULL)
        return mp_error(err, MANYPATH_E_SYSTEM, MANYPATH_PHASE_REQUEST, ENOMEM, "out of memory");
    result = mp_request_targets(request->targets, request->target_count, &detach->operation.targets,
                                &detach->operation.target_count, err);
    if (result == 0) {
        detach->detachment = calloc(1, sizeof *detach->detachment);
        if (detach->detachment == NULL)
            result =
                mp_error(err, MANYPATH_E_SYSTEM, MANYPATH_PHASE_REQUEST, ENOMEM, "out of memory");
    }
    if (result == 0)
        result = mp_operation_init(&detach->operation, handle, request->timeout_ms, err);
    if (result < 0) {
        detach_free(&detach->operation);
        return result;
    }
    detach->whole_map = request->whole_map;
    detach->operation.begin = detach_begin;
    detach->operation.cancel = detach_cancel;
    detach->operation.idle = detach_idle;
    detach->operation.free = detach_free;
    *ret_operation = &detach->operation;
    return 0;
}

int mp_detach_result(struct manypath_operation *operation,
                     struct manypath_detachment **ret_detachment, struct manypath_error *err)
{
    struct detach *detach = (struct detach *)operation;

    if (operation->error.code != 0) {
        if (err != NULL)
            *err = operation->error;
        return operation->error.code;
    }
    *ret_detachment = detach->detachment;
    detach->detachment = NULL;
    return 0;
}
