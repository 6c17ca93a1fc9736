/* SPDX-License-Identifier: Apache-2.0 */
/* Attach: making the map of the paths that are ready, or joining it. */
#include "attach_state.h"

#include "error.h"
#include "map_policy.h"
#include "monitor.h"
#include "text.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/file.h>

/* The map's job stops waiting this long before the deadline, so that its own error reaches the
 * caller. */
#define ANSWER_RESERVE (100 * MP_MS)

static void map_run(struct mp_job *base)
{
    struct mp_attach_job *job = (struct mp_attach_job *)base;
    bool skip_kpartx = false;

    if (job->config != NULL) {
        job->result = mp_map_check_blacklist(job->host, job->config, job->wwid, job->map_paths,
                                             job->map_path_count, &job->error);
        if (job->result < 0)
            return;
        skip_kpartx = mp_map_skips_kpartx(job->host, job->config, job->wwid, &job->map_paths[0]);
    }
    job->result =
        mp_map_join(job->host, job->wwid, job->size_bytes, job->map_paths, job->map_path_count,
                    job->join_only, skip_kpartx, job->deadline_ns, &job->map, &job->error);
}

struct mp_attach_job *mp_attach_map_job(struct mp_attach *attach, struct mp_attach_path *path,
                                        void (*finished)(struct mp_attach_job *))
{
    struct mp_attach_job *job = mp_attach_job_new(attach, path, map_run, finished);

    if (job == NULL)
        return NULL;
    job->map_paths = calloc(attach->path_count, sizeof *job->map_paths);
    if (job->map_paths == NULL) {
        mp_attach_job_free(job);
        return NULL;
    }
    mp_copy(job->wwid, sizeof job->wwid, attach->identity.wwid);
    job->size_bytes = attach->identity.size_bytes;
    return job;
}

void mp_attach_map_add(struct mp_attach_job *job, struct mp_attach_path *path)
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

/* The map cannot change its size for it; the disk stays as it was. */
void mp_path_keep_out(struct mp_attach_path *path, const struct mp_map *map)
{
    path->in_map = false;
    mp_path_error(path, MANYPATH_E_MAP, MANYPATH_PHASE_MAP, 0,
                  "%s has %" PRIu64 " bytes and map %s %" PRIu64
                  "; it was kept out, extend the volume first",
                  path->disk.name, path->identity.size_bytes, map->device, map->size_bytes);
}

/* A candidate that comes when the map is there was tried for nothing. */
static void leave_candidates(struct mp_attach *attach)
{
    for (size_t i = 0; i < attach->path_count; i++)
        if (attach->paths[i].target.candidate && mp_path_is_loose(&attach->paths[i]))
            mp_path_undo(&attach->paths[i]);
}

static void map_finished(struct mp_attach_job *job)
{
    struct mp_attach *attach = job->attach;
    size_t at = 0;

    if (attach->step != MP_VOLUME_MAP) {
        mp_attach_map_unwanted(job);
        return;
    }
    mp_lock_release(&attach->wwid_lock);
    if (job->result < 0) {
        attach->operation.error = job->error;
        mp_attach_fail(attach);
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
        struct mp_attach_path *path = &attach->paths[i];

        if (!path->in_map)
            continue;
        const struct mp_map_path *member = &job->map_paths[at++];

        path->state = member->state;
        if (member->kept_out)
            mp_path_keep_out(path, &job->map);
        else
            mp_path_keep(path);
    }
    if (!job->map.wwid_listed)
        mp_attach_warn(
            attach,
            "the WWID could not be added to %s/wwids; a multipathd in strict mode removes the map "
            "when it is reconfigured while the map is closed",
            attach->operation.handle->host->multipath_dir);
    if (job->map.unchecked[0] != '\0')
        mp_attach_warn(attach, "%s is in the map and does not answer, so it was not checked",
                       job->map.unchecked);
    if (job->map.size_bytes != job->size_bytes)
        mp_attach_warn(attach, "the map has %" PRIu64 " bytes and its paths have %" PRIu64,
                       job->map.size_bytes, job->size_bytes);
    mp_monitor_watch(attach->operation.handle->monitor, job->wwid, job->map.device, job->map.well);
    if (!job->map.multipathd_running)
        mp_attach_warn(attach,
                       "multipathd is not running: paths of %s that fail are taken back only while "
                       "this process lives",
                       job->map.device);
    if (job->map.queueing_stopped)
        mp_attach_warn(
            attach,
            "%s queued I/O without end, left so by a multipathd that is gone; it fails I/O "
            "now when no path is left",
            job->map.device);
    attach->usable_ns = mp_attach_since_begin(attach);
    leave_candidates(attach);
    attach->step = MP_VOLUME_TIDY;
    attach->decide(attach);
}

static void wwid_locked(struct mp_lock *lock, const struct manypath_error *error)
{
    struct mp_attach *attach =
        (struct mp_attach *)((char *)lock - offsetof(struct mp_attach, wwid_lock));

    attach->on_lock(attach, error);
}

void mp_attach_lock(struct mp_attach *attach,
                    void (*on_lock)(struct mp_attach *attach, const struct manypath_error *error))
{
    mp_lock_name_wwid(&attach->wwid_lock, attach->identity.wwid);
    attach->wwid_lock.done = wwid_locked;
    attach->on_lock = on_lock;
    mp_lock_acquire(attach->operation.handle, &attach->wwid_lock, true);
    if (attach->wwid_lock.state != MP_LOCK_WAITING)
        return;
    /* who has it may wait for udev to see these disks */
    for (size_t i = 0; i < attach->path_count; i++)
        if (attach->paths[i].fd >= 0)
            flock(attach->paths[i].fd, LOCK_UN);
}

bool mp_attach_lost_disks(struct mp_attach *attach)
{
    bool any = false;

    for (size_t i = 0; i < attach->path_count; i++) {
        struct mp_attach_path *path = &attach->paths[i];

        if (path->step != MP_PATH_READY || path->in_map || mp_path_disk_is_there(path))
            continue;
        mp_path_lost_disk(path);
        any = true;
    }
    return any;
}

static void make_map(struct mp_attach *attach)
{
    struct mp_attach_job *job = mp_attach_map_job(attach, NULL, map_finished);

    if (job != NULL) {
        for (size_t i = 0; i < attach->path_count; i++)
            if (attach->paths[i].step == MP_PATH_READY)
                mp_attach_map_add(job, &attach->paths[i]);
        job->deadline_ns = attach->operation.deadline_ns - ANSWER_RESERVE;
        job->config = attach->config;
        attach->config = NULL;
        if (mp_attach_job_start(job, &attach->map_job))
            return;
    }
    mp_error(&attach->operation.error, MANYPATH_E_SYSTEM, MANYPATH_PHASE_MAP, EAGAIN,
             "no thread or memory for making the map");
    mp_attach_fail(attach);
}

static void map_locked(struct mp_attach *attach, const struct manypath_error *error)
{
    if (error->code != 0) {
        attach->operation.error = *error;
        attach->operation.error.phase = MANYPATH_PHASE_MAP;
        mp_attach_fail(attach);
        return;
    }
    if (mp_attach_lost_disks(attach)) {
        /* not with the lock: who scans may have to log in again */
        mp_lock_release(&attach->wwid_lock);
        mp_attach_paths_again(attach);
        return;
    }
    for (size_t i = 0; i < attach->path_count; i++) /* some became ready meanwhile */
        if (attach->paths[i].step == MP_PATH_READY)
            mp_path_check_identity(&attach->paths[i]);
    if (!mp_attach_refused(attach))
        make_map(attach);
}

void mp_attach_map(struct mp_attach *attach)
{
    attach->step = MP_VOLUME_MAP;
    mp_engine_disarm(attach->operation.handle, &attach->grace);
    attach->map_waits = attach->policy_job != NULL;
    if (!attach->map_waits)
        mp_attach_lock(attach, map_locked);
}
