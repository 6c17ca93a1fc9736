/* SPDX-License-Identifier: Apache-2.0 */
/* Attach: paths that come when the caller has its answer. */
#include "attach_state.h"

#include "error.h"
#include "sysfs.h"
#include "text.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* How long a late path waits for multipathd to take it, which waits for udev. */
#define JOIN_PATIENCE (10000 * MP_MS)
/* How often it is looked whether the map is still there that late paths are to join. */
#define MAP_CHECK (10000 * MP_MS)

static bool any_away(const struct mp_attach *attach)
{
    for (size_t i = 0; i < attach->path_count; i++)
        if (attach->paths[i].away)
            return true;
    return false;
}

static bool map_is_there(const struct mp_attach *attach)
{
    char uuid[MANYPATH_WWID_SIZE + 8] = "";
    char wanted[MANYPATH_WWID_SIZE + 8];

    snprintf(wanted, sizeof wanted, "mpath-%s", attach->identity.wwid);
    mp_sysfs_dm(attach->operation.handle->host->sysfs_root, attach->device, uuid, sizeof uuid, NULL,
                0);
    return strcmp(uuid, wanted) == 0;
}

static void join_finished(struct mp_attach_job *job)
{
    struct mp_attach_path *path = job->path;
    struct mp_attach *attach = job->attach;

    path->away = false;
    path->step = MP_PATH_READY;
    mp_attach_unlock(attach);
    if (job->result == 0 && job->map_paths[0].kept_out) {
        mp_path_keep_out(path, &job->map);
        return;
    }
    if (job->result < 0 && !map_is_there(attach)) {
        path->in_map = false;
        path->error = job->error;
        mp_path_fail(path);
        return;
    }
    if (job->result < 0)
        mp_attach_warn(attach, "%s stays beside its map until multipathd takes it: %s",
                       path->disk.name, job->error.message);
    else
        mp_log(&attach->operation.handle->log, MANYPATH_LOG_INFO,
               "portal %s port %u is back: %s joined map %s", path->target.address,
               path->target.portal.port, path->disk.name, attach->device);
    mp_path_keep(path);
    mp_path_let_go(path);
    path->step = MP_PATH_OVER;
}

/* A path that went into the map and is still the same disk. */
static bool is_member(struct mp_attach_path *path)
{
    return path->step == MP_PATH_OVER && path->in_map && mp_path_disk_is_there(path);
}

static void join(struct mp_attach_path *path)
{
    struct mp_attach *attach = path->attach;
    struct mp_attach_job *job;

    if (!mp_path_check_identity(path))
        return;
    job = mp_attach_map_job(attach, path, join_finished);
    path->step = MP_PATH_JOIN;
    if (job != NULL) {
        mp_attach_map_add(job, path); /* the first, for join_finished() */
        for (size_t i = 0; i < attach->path_count; i++)
            if (is_member(&attach->paths[i]))
                mp_attach_map_add(job, &attach->paths[i]);
        job->join_only = true;
        job->deadline_ns = mp_now_ns() + JOIN_PATIENCE;
        if (mp_attach_job_start(job, &path->job))
            return;
    }
    mp_path_error(path, MANYPATH_E_SYSTEM, MANYPATH_PHASE_MAP, EAGAIN,
                  "no thread or memory for joining the map");
}

static void join_locked(struct mp_attach *attach, const struct manypath_error *error)
{
    bool lost = error->code == 0 && mp_attach_lost_disks(attach);

    for (size_t i = 0; i < attach->path_count; i++) {
        struct mp_attach_path *path = &attach->paths[i];

        if (!path->away || path->step != MP_PATH_READY)
            continue;
        if (error->code != 0)
            mp_path_error(path, error->code, MANYPATH_PHASE_MAP, error->sys_errno, "%s",
                          error->message);
        else
            join(path);
    }
    mp_attach_unlock(attach);
    if (lost)
        mp_paths_scan(attach);
}

/* Waits, patiently, for a session through a portal that is away. */
static void wait_for_portal(struct mp_attach_path *path)
{
    path->session = mp_session_hold(path->attach->operation.handle->sessions, &path->target.portal,
                                    path->target.iqn);
    mp_path_forget_disk(path); /* that of another session */
    path->rounds = 0;
    path->disk_is_ours = false;
    if (path->session != NULL)
        mp_path_login(path);
    else
        path->away = false;
}

void mp_attach_late_paths(struct mp_attach *attach)
{
    static const struct manypath_error none;

    if (attach->grace.slot == 0 && any_away(attach))
        mp_engine_arm(attach->operation.handle, &attach->grace, mp_now_ns() + MAP_CHECK);
    bool ready = false;

    for (size_t i = 0; i < attach->path_count; i++) {
        struct mp_attach_path *path = &attach->paths[i];

        if (path->away && path->step == MP_PATH_READY)
            ready = true;
        else if (path->away && path->step == MP_PATH_OVER)
            wait_for_portal(path);
    }
    if (ready && attach->wwid_lock.state == MP_LOCK_IDLE)
        mp_attach_lock(attach, join_locked);
    else if (ready && attach->wwid_lock.state == MP_LOCK_HELD)
        join_locked(attach, &none);
}

void mp_attach_yield(struct manypath_operation *operation)
{
    struct mp_attach *attach = (struct mp_attach *)operation;

    mp_engine_disarm(operation->handle, &attach->grace);
    for (size_t i = 0; i < attach->path_count; i++)
        attach->paths[i].away = false;
    for (size_t i = 0; i < attach->path_count; i++) {
        struct mp_attach_path *path = &attach->paths[i];

        if (path->step > MP_PATH_WAITING && path->step <= MP_PATH_READY &&
            !mp_path_under_map_job(path))
            mp_path_undo(path);
    }
    if (attach->wwid_lock.state == MP_LOCK_WAITING)
        mp_lock_release(&attach->wwid_lock);
}

void mp_attach_late_check_map(struct mp_attach *attach)
{
    if (!any_away(attach))
        return;
    if (map_is_there(attach))
        mp_engine_arm(attach->operation.handle, &attach->grace, mp_now_ns() + MAP_CHECK);
    else
        mp_attach_yield(&attach->operation);
}
