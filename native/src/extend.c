/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Extend: an attached volume has become larger on the storage.
 *
 *   FIND (the targets' disks, their map, every path of the map) -> LOCK (other processes
 *     out; then find again) -> HOLD (the map, open) -> RESCAN (each path, side by side: is it still this
 *     disk? rescan, ask again, compare the sizes) -> RESIZE (the map, proven by sysfs)
 *
 * The map is held open because multipathd refuses a map whose paths have different sizes: reconfigured
 * between two rescans, it would remove one that nobody uses (libmultipath configure.c, ACT_REJECT).
 *
 * A map is never made longer than a path that answers. Everything is read from the kernel, so the same
 * call goes on where an earlier one stopped.
 */
#include "extend.h"

#include "error.h"
#include "fault.h"
#include "holders.h"
#include "identity.h"
#include "lock.h"
#include "map.h"
#include "request.h"
#include "scsi.h"
#include "sysfs.h"
#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MS UINT64_C(1000000) /* in nanoseconds */

/* Jobs stop waiting this long before the deadline, so that their own error reaches the caller. */
#define ANSWER_RESERVE (100 * MS)
/* Of the timeout, at most this is kept for resizing the map. */
#define RESIZE_RESERVE (1000 * MS)
/* A path that has not answered this long after another one did is taken for down. */
#define STRAGGLER_GRACE (5000 * MS)
/* Between two rescans of a path whose target still tells the old size: nobody says when it will tell
 * the new one. */
#define RESCAN_AGAIN (50 * MS)
/* How long multipathd gets to take a path back, which waits for udev. */
#define JOIN_PATIENCE (10000 * MS)

enum { HOLDERS_MAX = 8, UUID_SIZE = 129, MEMBERS_MAX = 1024 };

enum extend_step {
    EXTEND_FIND,
    EXTEND_LOCK,
    EXTEND_HOLD,
    EXTEND_RESCAN,
    EXTEND_RESIZE,
    EXTEND_DONE
};

struct extend;

struct extend_path {
    struct extend *extend;
    struct mp_portal portal;
    char address[MANYPATH_ADDRESS_SIZE];
    char iqn[MANYPATH_IQN_SIZE];
    int32_t sid;
    struct mp_disk disk;
    bool member; /* of the map */
    struct mp_job *job;
    uint64_t asked_ns; /* when its last rescan was begun */
    bool answered;     /* size_bytes is the one after its last rescan */
    uint64_t size_bytes;
    int32_t state; /* in the map */
    struct manypath_path_times times;
    struct manypath_error error; /* code 0: usable */
};

struct extend {
    struct manypath_operation operation;
    enum extend_step step;
    uint64_t wanted_bytes;             /* 0: what the devices say */
    char device[MANYPATH_DEVICE_SIZE]; /* the map, or the disk where there is none */
    char uuid[UUID_SIZE];              /* of the map, "" if there is none */
    char wwid[MANYPATH_WWID_SIZE];     /* of all paths */
    uint64_t old_bytes, new_bytes;
    size_t path_count;
    struct extend_path *paths;
    char known_wwid[MANYPATH_WWID_SIZE]; /* of the map, else as the kernel has it; "" */
    struct mp_lock lock;                 /* of that WWID, until nothing runs any more */
    bool unsettled;                      /* a map that has a disk is just being made or removed */
    int map_fd;                          /* keeps the map from being removed; -1 */
    struct mp_job *map_job;              /* holding or resizing */
    unsigned jobs;                       /* not yet back, ours or abandoned: they point to us */
    unsigned outstanding;                /* paths that have not answered in this round */
    uint64_t paths_deadline_ns; /* leaves time for the map before the operation's deadline */
    struct mp_timer patience;   /* when to go on without the paths that have not answered */
    struct mp_timer again;      /* when to rescan those with the old size */
    bool multipathd_running;
    struct mp_warnings warnings;
    struct manypath_extend_times times;
    struct manypath_extension *extension; /* the result: filled at the end, then the caller's */
};

static void decide(struct extend *extend);
static void unlock(struct extend *extend);
static void let_go(struct extend *extend);

static uint64_t since_begin(const struct extend *extend)
{
    return mp_now_ns() - extend->operation.begin_ns;
}

static bool has_map(const struct extend *extend)
{
    return extend->uuid[0] != '\0';
}

/* What this path says counts: it answers, and it is one of those that make up the volume. */
static bool counts(const struct extend *extend, const struct extend_path *path)
{
    return path->error.code == 0 && path->answered && (path->member || !has_map(extend));
}

/* ---- the end ---- */

static void abandon_job(struct extend *extend, struct mp_job **slot)
{
    if (*slot == NULL)
        return;
    mp_pool_abandon(extend->operation.handle->pool, *slot);
    *slot = NULL;
}

static void fill_path(const struct extend_path *path, struct manypath_path *result)
{
    memcpy(result->address, path->address, sizeof result->address);
    result->port = path->portal.port;
    memcpy(result->iqn, path->iqn, sizeof result->iqn);
    result->lun = path->disk.lun;
    result->state = path->error.code != 0 ? MANYPATH_PATH_FAILED : path->state;
    result->sid = path->sid;
    result->host = path->disk.host;
    result->channel = path->disk.channel;
    result->target = path->disk.target;
    result->session_was_there = true;
    memcpy(result->device, path->disk.name, sizeof result->device);
    result->times = path->times;
    result->error = path->error;
}

static void fill_result(struct extend *extend)
{
    struct manypath_extension *result = extend->extension;

    result->paths = calloc(extend->path_count + 1, sizeof *result->paths);
    if (result->paths == NULL) {
        mp_error(&extend->operation.error, MANYPATH_E_SYSTEM, MANYPATH_PHASE_RESIZE, ENOMEM,
                 "out of memory");
        return;
    }
    result->path_count = extend->path_count;
    for (size_t i = 0; i < extend->path_count; i++)
        fill_path(&extend->paths[i], &result->paths[i]);
    memcpy(result->device, extend->device, sizeof result->device);
    memcpy(result->wwid, extend->wwid, sizeof result->wwid);
    result->old_size_bytes = extend->old_bytes;
    result->size_bytes = extend->new_bytes;
    result->multipathd_running = extend->multipathd_running;
    result->warning_count = extend->warnings.count;
    result->warnings = extend->warnings.texts;
    extend->warnings = (struct mp_warnings){0};
    result->times = extend->times;
    result->times.total_ns = since_begin(extend) + extend->times.queue_ns;
}

static void finish(struct extend *extend)
{
    struct manypath *handle = extend->operation.handle;

    MP_FAULT("extend.answered");
    extend->step = EXTEND_DONE;
    mp_engine_disarm(handle, &extend->patience);
    mp_engine_disarm(handle, &extend->again);
    for (size_t i = 0; i < extend->path_count; i++)
        abandon_job(extend, &extend->paths[i].job);
    abandon_job(extend, &extend->map_job);
    let_go(extend);
    if (extend->operation.error.code == 0)
        fill_result(extend);
    unlock(extend);
    mp_operation_deliver(&extend->operation);
}

static void unlock(struct extend *extend)
{
    if (extend->step == EXTEND_DONE && extend->jobs == 0)
        mp_lock_release(&extend->lock);
}

static void fail(struct extend *extend, const struct manypath_error *error)
{
    extend->operation.error = *error;
    finish(extend);
}

/* What only something else than this call can change. */
static void fail_for_good(struct extend *extend, struct manypath_error *error)
{
    error->retryable = false;
    fail(extend, error);
}

static void no_resources(struct extend *extend, int phase)
{
    struct manypath_error error;

    mp_error(&error, MANYPATH_E_SYSTEM, phase, EAGAIN, "no thread or memory to go on with");
    fail(extend, &error);
}

/* ---- jobs: what runs in a worker owns copies of all it needs ---- */

struct extend_job {
    struct mp_job job;
    struct extend *extend;
    struct extend_path *path; /* NULL: holding or resizing the map */
    struct mp_host *host;
    void (*finished)(struct extend_job *job); /* not called when nobody waits any more */
    int result;
    struct manypath_error error;
    struct mp_disk disk;
    char wwid[MANYPATH_WWID_SIZE]; /* who it must be; "": not known yet */
    struct mp_identity identity;
    uint64_t rescanned_ns;
    uint64_t deadline_ns;
    int map_fd;
    char device[MANYPATH_DEVICE_SIZE];
    char uuid[UUID_SIZE];
    uint64_t size_bytes;
    bool multipathd_running;
    size_t member_count;
    size_t map_path_count; /* the members, then disks to be taken back into the map */
    struct mp_map_path *map_paths;
    struct mp_map_path *joining; /* what complete() works on, as many */
    int join_result;
    struct manypath_error join_error;
};

static void job_drop(struct mp_job *base)
{
    struct extend_job *job = (struct extend_job *)base;

    if (job->map_fd >= 0)
        close(job->map_fd);
    mp_operation_release(&job->extend->operation); /* its lock, if the handle was closed */
    mp_host_release(job->host);
    free(job->map_paths);
    free(job->joining);
    free(job);
}

static void job_done(struct mp_job *base)
{
    struct extend_job *job = (struct extend_job *)base;
    struct mp_job **slot = job->path != NULL ? &job->path->job : &job->extend->map_job;

    job->extend->jobs--;
    if (*slot == base) {
        *slot = NULL;
        job->finished(job);
    } else if (job->map_fd >= 0) { /* it was held too late */
        job->extend->map_fd = job->map_fd;
        job->map_fd = -1;
        let_go(job->extend);
    }
    unlock(job->extend);
    job_drop(base);
}

static struct extend_job *new_job(struct extend *extend, struct extend_path *path,
                                  void (*run)(struct mp_job *),
                                  void (*finished)(struct extend_job *))
{
    struct extend_job *job = calloc(1, sizeof *job);

    if (job == NULL)
        return NULL;
    job->job.run = run;
    job->job.done = job_done;
    job->job.drop = job_drop;
    job->extend = extend;
    mp_operation_hold(&extend->operation);
    job->path = path;
    job->map_fd = -1;
    job->host = mp_host_hold(extend->operation.handle->host);
    job->finished = finished;
    job->deadline_ns = extend->operation.deadline_ns - ANSWER_RESERVE;
    memcpy(job->wwid, extend->wwid, sizeof job->wwid);
    memcpy(job->device, extend->device, sizeof job->device);
    memcpy(job->uuid, extend->uuid, sizeof job->uuid);
    if (path != NULL)
        job->disk = path->disk;
    return job;
}

static bool start_job(struct extend *extend, struct extend_job *job, struct mp_job **slot)
{
    if (mp_pool_submit(extend->operation.handle->pool, &job->job) < 0) {
        job_drop(&job->job);
        return false;
    }
    extend->jobs++;
    *slot = &job->job;
    return true;
}

/* The last close of a block device writes back what is dirty, so it may block. */
static void close_run(struct mp_job *base)
{
    struct extend_job *job = (struct extend_job *)base;

    close(job->map_fd);
    job->map_fd = -1;
}

static void let_go(struct extend *extend)
{
    struct extend_job *job = extend->map_fd >= 0 ? new_job(extend, NULL, close_run, NULL) : NULL;
    struct mp_job *nobody_waits = NULL;

    if (job != NULL) {
        job->map_fd = extend->map_fd;
        start_job(extend, job, &nobody_waits);
    } else if (extend->map_fd >= 0) {
        close(extend->map_fd);
    }
    extend->map_fd = -1;
}

/* ---- paths that are not usable ---- */

static void path_fail(struct extend_path *path, const struct manypath_error *error)
{
    struct manypath_error *mine = &path->error;

    *mine = *error;
    if (path->address[0] != '\0')
        snprintf(mine->message, sizeof mine->message, "portal %s port %u: %.*s", path->address,
                 path->portal.port, MANYPATH_MESSAGE_SIZE - 96, error->message);
    memcpy(mine->address, path->address, sizeof mine->address);
    mine->port = path->portal.port;
    mp_log(&path->extend->operation.handle->log, MANYPATH_LOG_INFO, "path not extended: %s",
           mine->message);
}

/* For the caller: what became of the paths that are not as large as the volume. */
static void warn_of(struct extend *extend, const struct extend_path *path, bool removed)
{
    const char *outcome = removed        ? "was taken out of the map, which is longer than it now"
                          : path->member ? "stays in the map as it is"
                          : has_map(extend) ? "is not in the map"
                                            : "was left as it is";

    mp_warn(&extend->warnings, "path %s %s: extend again when it is back (%.380s)", path->disk.name,
            outcome, path->error.message);
}

/* ---- RESIZE ---- */

static bool is_member(const struct mp_host *host, const char *map, const char *name)
{
    char members[MEMBERS_MAX][MANYPATH_DEVICE_SIZE];
    size_t count = 0;

    mp_sysfs_slaves(host->sysfs_root, map, members, MEMBERS_MAX, &count);
    for (size_t i = 0; i < count && i < MEMBERS_MAX; i++)
        if (strcmp(members[i], name) == 0)
            return true;
    return false;
}

/* Usable paths the map lacks: disks that were not in it, and members multipathd threw out because it
 * saw their new size before ours (structs_vec.c, adopt_paths). */
static void complete(struct extend_job *job)
{
    uint64_t until_ns = mp_now_ns() + JOIN_PATIENCE;
    bool whole = true;
    size_t count = 0;
    struct mp_map map;

    for (size_t i = 0; i < job->map_path_count; i++) {
        if (job->map_paths[i].state == MANYPATH_PATH_FAILED || job->map_paths[i].removed)
            continue;
        job->joining[count++] = job->map_paths[i];
        whole = whole && is_member(job->host, job->device, job->map_paths[i].name);
    }
    if (whole)
        return;
    if (until_ns > job->deadline_ns)
        until_ns = job->deadline_ns;
    job->join_result = mp_map_join(job->host, job->wwid, job->size_bytes, job->joining, count, true,
                                   false, until_ns, &map, &job->join_error);
    for (size_t i = 0; i < count; i++)
        mp_identity_close(&job->joining[i].fd); /* it may have opened them to look */
    for (size_t i = 0, j = 0; i < job->map_path_count && j < count; i++)
        if (job->map_paths[i].dev == job->joining[j].dev)
            job->map_paths[i].state = job->joining[j++].state;
}

static void resize_run(struct mp_job *base)
{
    struct extend_job *job = (struct extend_job *)base;

    MP_FAULT("extend.resize");
    job->result =
        mp_map_resize(job->host, job->uuid, job->size_bytes, job->map_paths, job->member_count,
                      job->deadline_ns, &job->multipathd_running, &job->error);
    MP_FAULT("extend.resized");
    if (job->result == 0)
        complete(job);
    close_run(base);
}

static struct extend_path *path_of(struct extend *extend, dev_t dev)
{
    for (size_t i = 0; i < extend->path_count; i++)
        if (extend->paths[i].disk.dev == dev)
            return &extend->paths[i];
    return NULL;
}

static void take_states(struct extend *extend, const struct extend_job *job)
{
    for (size_t i = 0; i < job->map_path_count; i++) {
        const struct mp_map_path *result = &job->map_paths[i];
        struct extend_path *path = path_of(extend, result->dev);
        bool removed = result->removed;

        if (path == NULL)
            continue;
        path->state = result->state;
        if (path->error.code == 0 && job->join_result < 0 &&
            !is_member(extend->operation.handle->host, extend->device, path->disk.name)) {
            path_fail(path, &job->join_error);
            removed = path->member;
        }
        if (path->error.code != 0)
            warn_of(extend, path, removed);
    }
}

static void resize_finished(struct extend_job *job)
{
    struct extend *extend = job->extend;

    if (job->result < 0) {
        fail(extend, &job->error);
        return;
    }
    extend->multipathd_running = job->multipathd_running;
    extend->times.resize_ns =
        since_begin(extend) - extend->times.prepare_ns - extend->times.rescan_ns;
    take_states(extend, job);
    finish(extend);
}

/* Members first, then usable disks that are not in the map; others of those are only told. */
static void choose_map_paths(struct extend *extend, struct extend_job *job)
{
    for (int joining = 0; joining < 2; joining++)
        for (size_t i = 0; i < extend->path_count; i++) {
            const struct extend_path *path = &extend->paths[i];
            struct mp_map_path *mine = &job->map_paths[job->map_path_count];

            if (path->member == (joining != 0))
                continue;
            if (joining && path->error.code != 0) {
                warn_of(extend, path, false);
                continue;
            }
            mine->dev = path->disk.dev;
            mine->fd = -1;
            mine->state = path->error.code != 0 ? MANYPATH_PATH_FAILED : MANYPATH_PATH_ACTIVE;
            mp_copy(mine->name, sizeof mine->name, path->disk.name);
            mp_copy(mine->dh_state, sizeof mine->dh_state, path->disk.dh_state);
            job->map_path_count++;
            if (!joining)
                job->member_count++;
        }
}

static void step_resize(struct extend *extend)
{
    struct extend_job *job = new_job(extend, NULL, resize_run, resize_finished);

    extend->step = EXTEND_RESIZE;
    if (job != NULL) {
        job->map_paths = calloc(extend->path_count, sizeof *job->map_paths);
        job->joining = calloc(extend->path_count, sizeof *job->joining);
    }
    if (job == NULL || job->map_paths == NULL || job->joining == NULL) {
        if (job != NULL)
            job_drop(&job->job);
        no_resources(extend, MANYPATH_PHASE_RESIZE);
        return;
    }
    job->size_bytes = extend->new_bytes;
    job->map_fd = extend->map_fd;
    extend->map_fd = -1;
    choose_map_paths(extend, job);
    if (!start_job(extend, job, &extend->map_job))
        no_resources(extend, MANYPATH_PHASE_RESIZE);
}

/* ---- RESCAN: comparing ---- */

static void no_path(struct extend *extend)
{
    struct manypath_error error;
    const struct manypath_error *first = NULL;

    for (size_t i = 0; i < extend->path_count && first == NULL; i++)
        if (extend->paths[i].error.code != 0 && (extend->paths[i].member || !has_map(extend)))
            first = &extend->paths[i].error;
    mp_error(&error, MANYPATH_E_DEVICE, MANYPATH_PHASE_SCAN, first != NULL ? first->sys_errno : 0,
             "no path of %s answers, so nothing was changed; %.380s", extend->device,
             first != NULL ? first->message : "it has no path any more");
    fail(extend, &error);
}

static void shrunk(struct extend *extend, uint64_t bytes)
{
    struct manypath_error error;

    mp_error(&error, has_map(extend) ? MANYPATH_E_MAP : MANYPATH_E_DEVICE, MANYPATH_PHASE_IDENTITY,
             0,
             "%s has %" PRIu64 " bytes, but its disks have become smaller: %" PRIu64
             " bytes; it is not made smaller, since that would cut off data",
             extend->device, extend->old_bytes, bytes);
    fail_for_good(extend, &error);
}

static const struct extend_path *path_with(const struct extend *extend, uint64_t bytes)
{
    for (size_t i = 0; i < extend->path_count; i++)
        if (counts(extend, &extend->paths[i]) && extend->paths[i].size_bytes == bytes)
            return &extend->paths[i];
    return NULL;
}

/* The time is over, and the storage does not tell the new size on all paths. */
static void still_old(struct extend *extend, uint64_t low, uint64_t high)
{
    const struct extend_path *late = path_with(extend, low);
    const struct extend_path *ready = path_with(extend, high);
    struct manypath_error error;

    if (low < high)
        mp_error(&error, MANYPATH_E_DEVICE, MANYPATH_PHASE_IDENTITY, ETIMEDOUT,
                 "%s through portal %s port %u still has %" PRIu64 " bytes, %s through portal %s "
                 "port %u has %" PRIu64 "; %s was left with %" PRIu64,
                 late->disk.name, late->address, late->portal.port, low, ready->disk.name,
                 ready->address, ready->portal.port, high, extend->device, extend->old_bytes);
    else
        mp_error(&error, MANYPATH_E_DEVICE, MANYPATH_PHASE_IDENTITY, ETIMEDOUT,
                 "the disks of %s have %" PRIu64 " bytes, not the %" PRIu64
                 " wanted; is the volume extended on the storage?",
                 extend->device, high, extend->wanted_bytes);
    memcpy(error.address, late->address, sizeof error.address);
    error.port = late->portal.port;
    fail(extend, &error);
}

/* Disks that are not in the map have no say, but must fit to be taken back. */
static void check_joining(struct extend *extend)
{
    for (size_t i = 0; i < extend->path_count; i++) {
        struct extend_path *path = &extend->paths[i];
        struct manypath_error error;

        if (!has_map(extend) || path->member || path->error.code != 0 ||
            path->size_bytes == extend->new_bytes)
            continue;
        mp_error(&error, MANYPATH_E_DEVICE, MANYPATH_PHASE_IDENTITY, 0,
                 "%s has %" PRIu64 " bytes, %s has %" PRIu64, path->disk.name, path->size_bytes,
                 extend->device, extend->new_bytes);
        path_fail(path, &error);
    }
}

/* Every path that answers has the new size. */
static void settle(struct extend *extend, uint64_t bytes)
{
    extend->times.rescan_ns = since_begin(extend) - extend->times.prepare_ns;
    if (bytes < extend->old_bytes) {
        shrunk(extend, bytes);
        return;
    }
    extend->new_bytes = bytes;
    check_joining(extend);
    if (has_map(extend)) {
        step_resize(extend);
        return;
    }
    for (size_t i = 0; i < extend->path_count; i++)
        if (extend->paths[i].error.code != 0)
            warn_of(extend, &extend->paths[i], false);
    finish(extend);
}

/* All answered, or were given up. */
static void decide(struct extend *extend)
{
    uint64_t low = UINT64_MAX, high = 0;

    mp_engine_disarm(extend->operation.handle, &extend->patience);
    for (size_t i = 0; i < extend->path_count; i++) {
        const struct extend_path *path = &extend->paths[i];

        if (!counts(extend, path))
            continue;
        low = path->size_bytes < low ? path->size_bytes : low;
        high = path->size_bytes > high ? path->size_bytes : high;
    }
    uint64_t again_ns = mp_now_ns() + RESCAN_AGAIN;

    if (high == 0)
        no_path(extend);
    else if (low == high && high >= extend->wanted_bytes)
        settle(extend, high);
    else if (again_ns < extend->paths_deadline_ns)
        mp_engine_arm(extend->operation.handle, &extend->again, again_ns);
    else
        still_old(extend, low, high);
}

/* ---- RESCAN: asking ---- */

/* Who is this disk, and how large? It must be who it was. */
static int ask(struct extend_job *job)
{
    int result =
        mp_identity_read(job->host, job->disk.name, job->disk.dev, &job->identity, &job->error);

    if (result == 0 && job->wwid[0] != '\0' && strcmp(job->wwid, job->identity.wwid) != 0)
        result = mp_error(&job->error, MANYPATH_E_IDENTITY, MANYPATH_PHASE_IDENTITY, 0,
                          "%s is disk %s now, not %s; nothing was changed", job->disk.name,
                          job->identity.wwid, job->wwid);
    return result;
}

/* Asked before the rescan too: a disk that is another one by now, or does not answer, is left alone,
 * and an INQUIRY has a time limit of ours. */
static void rescan_run(struct mp_job *base)
{
    struct extend_job *job = (struct extend_job *)base;

    job->result = ask(job);
    if (job->result < 0)
        return;
    MP_FAULT("extend.rescan");
    int result = mp_scsi_rescan(job->host->sysfs_root, job->disk.host, job->disk.channel,
                                job->disk.target, job->disk.lun);

    job->rescanned_ns = mp_now_ns();
    MP_FAULT("extend.rescanned");
    if (result < 0)
        job->result = mp_error(&job->error, MANYPATH_E_DEVICE, MANYPATH_PHASE_SCAN, result,
                               "%s could not be rescanned: errno %d", job->disk.name, -result);
    else
        job->result = ask(job);
}

/* A path that is another disk stops everything: the map is in doubt. Of a disk that is not in the map
 * the map need not care. */
static bool is_fatal(const struct extend *extend, const struct extend_path *path, int code)
{
    return code != MANYPATH_E_DEVICE && (path->member || !has_map(extend));
}

static void path_answers(struct extend_path *path, const struct extend_job *job)
{
    struct extend *extend = path->extend;
    struct manypath_error error;

    if (extend->wwid[0] == '\0')
        memcpy(extend->wwid, job->identity.wwid, sizeof extend->wwid);
    if (strcmp(extend->wwid, job->identity.wwid) != 0) {
        mp_error(&error, MANYPATH_E_IDENTITY, MANYPATH_PHASE_IDENTITY, 0,
                 "%s is disk %s, another path is %s: check the targets and LUNs of the request",
                 path->disk.name, job->identity.wwid, extend->wwid);
        path_fail(path, &error);
        fail(extend, &path->error);
        return;
    }
    path->answered = true;
    path->size_bytes = job->identity.size_bytes;
    path->times.scan_end_ns = job->rescanned_ns - extend->operation.begin_ns;
    path->times.identity_end_ns = since_begin(extend);
    uint64_t until_ns = mp_now_ns() + STRAGGLER_GRACE;

    if (extend->patience.slot != 0 && until_ns < extend->patience.at_ns)
        mp_engine_arm(extend->operation.handle, &extend->patience, until_ns);
}

static void rescan_finished(struct extend_job *job)
{
    struct extend *extend = job->extend;
    struct extend_path *path = job->path;

    extend->outstanding--;
    if (job->result < 0)
        path_fail(path, &job->error);
    else
        path_answers(path, job);
    if (extend->step == EXTEND_DONE)
        return;
    if (job->result < 0 && is_fatal(extend, path, job->result))
        fail(extend, &path->error);
    else if (extend->outstanding == 0)
        decide(extend);
}

static void patience_over(struct mp_timer *timer)
{
    struct extend *extend = (struct extend *)((char *)timer - offsetof(struct extend, patience));
    struct manypath_error error;

    for (size_t i = 0; i < extend->path_count; i++) {
        struct extend_path *path = &extend->paths[i];

        if (path->job == NULL)
            continue;
        abandon_job(extend, &path->job);
        if (path->answered && mp_now_ns() - path->asked_ns < STRAGGLER_GRACE)
            continue; /* asked once more just now: what it said before counts */
        mp_error(&error, MANYPATH_E_DEVICE, MANYPATH_PHASE_SCAN, ETIMEDOUT,
                 "%s has not answered INQUIRY or the rescan in time", path->disk.name);
        path_fail(path, &error);
    }
    extend->outstanding = 0;
    decide(extend);
}

/* Rescans every path that does not have `bytes` yet. */
static void rescan(struct extend *extend, uint64_t bytes)
{
    extend->outstanding = 0;
    mp_engine_arm(extend->operation.handle, &extend->patience, extend->paths_deadline_ns);
    for (size_t i = 0; i < extend->path_count; i++) {
        struct extend_path *path = &extend->paths[i];

        if (path->error.code != 0 || (path->answered && path->size_bytes == bytes))
            continue;
        struct extend_job *job = new_job(extend, path, rescan_run, rescan_finished);

        if (job == NULL || !start_job(extend, job, &path->job)) {
            no_resources(extend, MANYPATH_PHASE_SCAN);
            return;
        }
        path->asked_ns = mp_now_ns();
        extend->outstanding++;
    }
}

static void step_rescan(struct extend *extend)
{
    extend->times.prepare_ns = since_begin(extend);
    extend->step = EXTEND_RESCAN;
    rescan(extend, 0);
}

/* The largest size that was told is the new one, unless the caller knows of a larger one. */
static void again(struct mp_timer *timer)
{
    struct extend *extend = (struct extend *)((char *)timer - offsetof(struct extend, again));
    uint64_t bytes = extend->wanted_bytes;

    for (size_t i = 0; i < extend->path_count; i++)
        if (counts(extend, &extend->paths[i]) && extend->paths[i].size_bytes > bytes)
            bytes = extend->paths[i].size_bytes;
    rescan(extend, bytes);
}

/* ---- HOLD ---- */

/* Its number may have passed to another map since it was found: once open, it stays what it is. */
static void hold_run(struct mp_job *base)
{
    struct extend_job *job = (struct extend_job *)base;
    char path[PATH_MAX];
    char uuid[UUID_SIZE] = "";

    snprintf(path, sizeof path, "%s/%s", job->host->dev_root, job->device);
    job->map_fd = open(path, O_RDONLY | O_CLOEXEC);
    if (job->map_fd < 0) {
        job->result = mp_error(&job->error, MANYPATH_E_MAP, MANYPATH_PHASE_PREPARE, errno,
                               "cannot open %s: errno %d; nothing was changed", path, errno);
        return;
    }
    mp_sysfs_dm(job->host->sysfs_root, job->device, uuid, sizeof uuid, NULL, 0);
    if (strcmp(uuid, job->uuid) != 0)
        job->result =
            mp_error(&job->error, MANYPATH_E_MAP, MANYPATH_PHASE_PREPARE, ENOENT,
                     "the map %s was removed just now; attach the volume again", job->uuid);
}

static void hold_finished(struct extend_job *job)
{
    struct extend *extend = job->extend;

    if (job->result < 0) {
        fail(extend, &job->error);
        return;
    }
    MP_FAULT("extend.held");
    extend->map_fd = job->map_fd;
    job->map_fd = -1;
    step_rescan(extend);
}

static void step_hold(struct extend *extend)
{
    struct extend_job *job = new_job(extend, NULL, hold_run, hold_finished);

    extend->step = EXTEND_HOLD;
    if (job == NULL || !start_job(extend, job, &extend->map_job))
        no_resources(extend, MANYPATH_PHASE_PREPARE);
}

/* ---- FIND ---- */

/* NULL: out of memory. */
static struct extend_path *add_path(struct extend *extend, const struct mp_session *session,
                                    const struct mp_disk *disk)
{
    struct extend_path *path;

    for (size_t i = 0; i < extend->path_count; i++)
        if (extend->paths[i].disk.dev == disk->dev)
            return &extend->paths[i];
    path = realloc(extend->paths, (extend->path_count + 1) * sizeof *path);
    if (path == NULL)
        return NULL;
    extend->paths = path;
    path += extend->path_count++;
    memset(path, 0, sizeof *path);
    path->extend = extend;
    path->portal = session->portal;
    if (session->portal.family != 0)
        mp_portal_format(&session->portal, path->address, sizeof path->address);
    else
        mp_copy(path->address, sizeof path->address, session->address_text);
    memcpy(path->iqn, session->iqn, sizeof path->iqn);
    path->sid = session->sid;
    path->disk = *disk;
    path->state = MANYPATH_PATH_ACTIVE;
    return path;
}

/* The disk of one target. *ret_sessions counts those to it. False: out of memory. */
static bool find_target(struct extend *extend, const struct mp_target *target,
                        const struct mp_session *sessions, size_t count, size_t *ret_sessions)
{
    const char *root = extend->operation.handle->host->sysfs_root;

    for (size_t i = 0; i < count; i++) {
        struct mp_disk disk;

        if (strcmp(sessions[i].iqn, target->iqn) != 0 ||
            !mp_portal_equal(&sessions[i].portal, &target->portal))
            continue;
        *ret_sessions += 1;
        if (mp_sysfs_find_disk(root, sessions[i].host, sessions[i].sid, target->lun, &disk) == 0 &&
            disk.dev != 0 && add_path(extend, &sessions[i], &disk) == NULL)
            return false;
    }
    return true;
}

static int out_of_memory(struct manypath_error *err)
{
    return mp_error(err, MANYPATH_E_SYSTEM, MANYPATH_PHASE_PREPARE, ENOMEM, "out of memory");
}

static int not_attached(const struct extend *extend, size_t session_count,
                        struct manypath_error *err)
{
    const struct mp_target *first = &extend->operation.targets[0];
    int result;

    if (session_count == 0)
        result = mp_error(err, MANYPATH_E_SESSION, MANYPATH_PHASE_PREPARE, ENOENT,
                          "the volume is not attached: no session to %s at %s port %u; attach it, "
                          "that takes the size it has now",
                          first->iqn, first->address, first->portal.port);
    else
        result = mp_error(err, MANYPATH_E_DEVICE, MANYPATH_PHASE_PREPARE, ENOENT,
                          "the volume is not attached: the sessions are there, but no disk of LUN "
                          "%" PRIu64 "; attach it, that takes the size it has now",
                          first->lun);
    err->retryable = false;
    return result;
}

static int unreadable(const char *name, int result, struct manypath_error *err)
{
    return mp_error(err, MANYPATH_E_SYSTEM, MANYPATH_PHASE_PREPARE, result,
                    "cannot read what holds %s from sysfs: errno %d; nothing was changed", name,
                    -result);
}

/* The one multipath map over the disks found. What else holds them, such as LVM on a single path, is
 * no hindrance. */
static int find_map(struct extend *extend, struct manypath_error *err)
{
    const char *root = extend->operation.handle->host->sysfs_root;

    for (size_t i = 0; i < extend->path_count; i++) {
        char holders[HOLDERS_MAX][MANYPATH_DEVICE_SIZE];
        size_t count = 0;

        int result =
            mp_sysfs_holders(root, extend->paths[i].disk.name, holders, HOLDERS_MAX, &count);

        if (result == -ENOENT)
            continue; /* the disk is gone */
        if (result < 0)
            return unreadable(extend->paths[i].disk.name, result, err);
        for (size_t h = 0; h < count && h < HOLDERS_MAX; h++) {
            char uuid[UUID_SIZE] = "";

            result = mp_sysfs_dm(root, holders[h], uuid, sizeof uuid, NULL, 0);
            if (mp_holder_comes_or_goes(holders[h], result))
                extend->unsettled = true;
            else if (result < 0 && result != -ENOENT && result != -EOVERFLOW)
                return unreadable(extend->paths[i].disk.name, result, err);
            if (strncmp(uuid, "mpath-", 6) != 0)
                continue;
            if (has_map(extend) && strcmp(extend->uuid, uuid) != 0)
                return mp_error(err, MANYPATH_E_IDENTITY, MANYPATH_PHASE_PREPARE, 0,
                                "the targets' disks are in different maps, %s and %s: check the "
                                "targets and LUNs of the request",
                                extend->device, holders[h]);
            memcpy(extend->uuid, uuid, sizeof extend->uuid);
            mp_copy(extend->device, sizeof extend->device, holders[h]);
            extend->paths[i].member = true;
        }
    }
    return 0;
}

/* A member that the request may not name: found by its place in sysfs. */
static int find_member(struct extend *extend, const char *name, const struct mp_session *sessions,
                       size_t count, struct manypath_error *err)
{
    const char *root = extend->operation.handle->host->sysfs_root;
    struct mp_disk disk;
    int32_t sid, host;
    uint64_t lun, bytes;

    if (mp_sysfs_disk_place(root, name, &sid, &host, &lun) < 0 ||
        mp_sysfs_find_disk(root, host, sid, lun, &disk) < 0 || strcmp(disk.name, name) != 0) {
        if (mp_sysfs_block_size(root, name, &bytes) == 0)
            return mp_error(err, MANYPATH_E_MAP, MANYPATH_PHASE_PREPARE, 0,
                            "%s has a member %s that is no iSCSI disk; nothing was changed",
                            extend->device, name);
        mp_warn(&extend->warnings, "%s had a path %s, which is gone", extend->device, name);
        return 0;
    }
    for (size_t i = 0; i < count; i++) {
        if (sessions[i].sid != sid)
            continue;
        struct extend_path *path = add_path(extend, &sessions[i], &disk);

        if (path == NULL)
            return out_of_memory(err);
        path->member = true;
    }
    return 0;
}

static int find_members(struct extend *extend, const struct mp_session *sessions, size_t count,
                        struct manypath_error *err)
{
    char members[MEMBERS_MAX][MANYPATH_DEVICE_SIZE];
    size_t member_count = 0;
    int result = mp_sysfs_slaves(extend->operation.handle->host->sysfs_root, extend->device,
                                 members, MEMBERS_MAX, &member_count);

    if (result < 0)
        return mp_error(err, MANYPATH_E_MAP, MANYPATH_PHASE_PREPARE, result,
                        "cannot read the members of %s: errno %d", extend->device, -result);
    for (size_t i = 0; i < member_count && i < MEMBERS_MAX && result == 0; i++)
        result = find_member(extend, members[i], sessions, count, err);
    return result;
}

/* Of disks without a map, for the lock only: who they are each path tells when it is rescanned. */
static int find_wwid(struct extend *extend, struct manypath_error *err)
{
    int result =
        mp_identity_known(extend->operation.handle->host, extend->device, extend->known_wwid);

    return result == 0 ? 0
                       : mp_error(err, MANYPATH_E_SYSTEM, MANYPATH_PHASE_PREPARE, result,
                                  "cannot read page 0x83 of %s from sysfs: errno %d; nothing was "
                                  "changed",
                                  extend->device, -result);
}

/* What there is, from the disks of the targets to all paths of the map, and its size. */
static int find(struct extend *extend, const struct mp_session *sessions, size_t count,
                struct manypath_error *err)
{
    const char *root = extend->operation.handle->host->sysfs_root;
    size_t session_count = 0;
    int result = 0;

    for (size_t i = 0; i < extend->operation.target_count; i++)
        if (!find_target(extend, &extend->operation.targets[i], sessions, count, &session_count))
            return out_of_memory(err);
    if (extend->path_count == 0)
        return not_attached(extend, session_count, err);
    result = find_map(extend, err);
    if (result == 0 && has_map(extend)) {
        mp_copy(extend->wwid, sizeof extend->wwid, extend->uuid + strlen("mpath-"));
        mp_copy(extend->known_wwid, sizeof extend->known_wwid, extend->wwid);
        result = find_members(extend, sessions, count, err);
    } else if (result == 0) {
        mp_copy(extend->device, sizeof extend->device, extend->paths[0].disk.name);
        result = find_wwid(extend, err);
        if (result == 0 && extend->unsettled &&
            (extend->step == EXTEND_LOCK || extend->known_wwid[0] == '\0'))
            return mp_error(
                err, MANYPATH_E_MAP, MANYPATH_PHASE_PREPARE, EBUSY,
                "a map of %s is just being made or removed; nothing was changed; try again",
                extend->device);
    }
    if (result < 0)
        return result;
    result = mp_sysfs_block_size(root, extend->device, &extend->old_bytes);
    if (result < 0)
        return mp_error(err, MANYPATH_E_DEVICE, MANYPATH_PHASE_PREPARE, result,
                        "cannot read the size of %s: errno %d", extend->device, -result);
    extend->new_bytes = extend->old_bytes;
    if (extend->wanted_bytes != 0 && extend->wanted_bytes < extend->old_bytes)
        return mp_error(err, MANYPATH_E_INVALID, MANYPATH_PHASE_REQUEST, 0,
                        "%s has %" PRIu64 " bytes, more than the %" PRIu64
                        " wanted; it is not made smaller, since that would cut off data",
                        extend->device, extend->old_bytes, extend->wanted_bytes);
    return 0;
}

static int find_all(struct extend *extend, struct manypath_error *err)
{
    struct mp_session *sessions = NULL;
    size_t count = 0;
    int result = mp_sysfs_sessions(extend->operation.handle->host->sysfs_root, &sessions, &count);

    if (result < 0)
        return mp_error(err, MANYPATH_E_SYSTEM, MANYPATH_PHASE_PREPARE, result,
                        "cannot read the iSCSI sessions from sysfs: errno %d", -result);
    result = find(extend, sessions, count, err);
    free(sessions);
    return result;
}

/* ---- LOCK ---- */

/* Until it was locked another process may have worked on the volume: its paths may have changed, or the map
 * come or gone. */
static int find_again(struct extend *extend, struct manypath_error *err)
{
    char uuid[UUID_SIZE], locked_wwid[MANYPATH_WWID_SIZE];

    memcpy(uuid, extend->uuid, sizeof uuid);
    memcpy(locked_wwid, extend->known_wwid, sizeof locked_wwid);
    extend->uuid[0] = '\0';
    extend->unsettled = false;
    extend->path_count = 0;
    mp_warnings_free(extend->warnings.count, extend->warnings.texts);
    extend->warnings = (struct mp_warnings){0};
    int result = find_all(extend, err);

    if (result < 0)
        return result;
    if (uuid[0] != '\0' && strcmp(uuid, extend->uuid) != 0)
        return mp_error(err, MANYPATH_E_MAP, MANYPATH_PHASE_PREPARE, ENOENT,
                        "the map %s was removed just now; attach the volume again", uuid);
    if (strcmp(locked_wwid, extend->known_wwid) !=
        0) /* a map of it made since is what is extended */
        return mp_error(err, MANYPATH_E_DEVICE, MANYPATH_PHASE_PREPARE, ESTALE,
                        "%s became another volume just now; attach the volume again",
                        extend->device);
    return 0;
}

static void locked(struct mp_lock *lock, const struct manypath_error *error)
{
    struct extend *extend = (struct extend *)((char *)lock - offsetof(struct extend, lock));
    struct manypath_error again = *error;

    if (error->code == 0)
        find_again(extend, &again);
    MP_FAULT("extend.locked");
    if (again.code != 0)
        fail(extend, &again);
    else if (has_map(extend))
        step_hold(extend);
    else
        step_rescan(extend);
}

static void step_lock(struct extend *extend)
{
    extend->step = EXTEND_LOCK;
    mp_lock_name_wwid(&extend->lock, extend->known_wwid);
    extend->lock.done = locked;
    mp_lock_acquire(extend->operation.handle, &extend->lock, true);
}

static void extend_begin(struct manypath_operation *operation)
{
    struct extend *extend = (struct extend *)operation;
    struct manypath_error error;

    extend->times.queue_ns = operation->begin_ns - operation->submit_ns;
    MP_FAULT("extend.begun");
    if (find_all(extend, &error) < 0)
        fail(extend, &error);
    else if (extend->known_wwid[0] != '\0')
        step_lock(extend);
    else
        step_rescan(extend); /* a disk that only udev could name: nothing is made or taken away */
}

/* ---- cancelling, freeing ---- */

static void extend_cancel(struct manypath_operation *operation, int code)
{
    static const struct {
        int phase;
        const char *state;
    } steps[] = {
        [EXTEND_FIND] = {MANYPATH_PHASE_PREPARE, "nothing was changed"},
        [EXTEND_HOLD] = {MANYPATH_PHASE_PREPARE, "while the map was opened, nothing was changed"},
        [EXTEND_RESCAN] = {MANYPATH_PHASE_SCAN,
                           "while the paths were rescanned, the map was not changed"},
        [EXTEND_RESIZE] = {MANYPATH_PHASE_RESIZE, "while the map was resized"},
        [EXTEND_DONE] = {MANYPATH_PHASE_NONE, ""},
    };
    struct extend *extend = (struct extend *)operation;
    struct manypath_error error;

    if (extend->step == EXTEND_LOCK) {
        mp_lock_busy(&extend->lock, code, MANYPATH_PHASE_PREPARE, &error);
        fail(extend, &error);
        return;
    }
    mp_error(&error, code, steps[extend->step].phase, 0, "%s: %s; the same call goes on from there",
             code == MANYPATH_E_TIMEOUT ? "the timeout passed" : "the extend was cancelled",
             steps[extend->step].state);
    fail(extend, &error);
}

static bool extend_idle(const struct manypath_operation *operation)
{
    return ((const struct extend *)operation)->jobs == 0;
}

static void extend_free(struct manypath_operation *operation)
{
    struct extend *extend = (struct extend *)operation;

    if (extend->map_fd >= 0)
        close(extend->map_fd);
    manypath_extension_free(extend->extension);
    mp_warnings_free(extend->warnings.count, extend->warnings.texts);
    free(extend->operation.targets);
    free(extend->paths);
    mp_lock_release(&extend->lock);
    free(extend);
}

int mp_extend_new(struct manypath *handle, const struct manypath_extend_request *request,
                  struct manypath_operation **ret_operation, struct manypath_error *err)
{
    struct extend *extend;
    int result = mp_request_timeout(request->timeout_ms, err);

    if (result < 0)
        return result;
    extend = calloc(1, sizeof *extend);
    if (extend == NULL)
        return mp_error(err, MANYPATH_E_SYSTEM, MANYPATH_PHASE_REQUEST, ENOMEM, "out of memory");
    extend->map_fd = -1;
    result = mp_request_targets(request->targets, request->target_count, &extend->operation.targets,
                                &extend->operation.target_count, err);
    if (result == 0) {
        extend->extension = calloc(1, sizeof *extend->extension);
        if (extend->extension == NULL)
            result =
                mp_error(err, MANYPATH_E_SYSTEM, MANYPATH_PHASE_REQUEST, ENOMEM, "out of memory");
    }
    if (result == 0)
        result = mp_operation_init(&extend->operation, handle, request->timeout_ms, err);
    if (result < 0) {
        extend_free(&extend->operation);
        return result;
    }
    uint64_t reserve_ns = (uint64_t)request->timeout_ms * MS / 10;

    extend->wanted_bytes = request->size_bytes;
    extend->paths_deadline_ns =
        extend->operation.deadline_ns - (reserve_ns < RESIZE_RESERVE ? reserve_ns : RESIZE_RESERVE);
    extend->patience.fire = patience_over;
    extend->again.fire = again;
    extend->operation.begin = extend_begin;
    extend->operation.cancel = extend_cancel;
    extend->operation.idle = extend_idle;
    extend->operation.free = extend_free;
    *ret_operation = &extend->operation;
    return 0;
}

int mp_extend_result(struct manypath_operation *operation,
                     struct manypath_extension **ret_extension, struct manypath_error *err)
{
    struct extend *extend = (struct extend *)operation;

    if (operation->error.code != 0) {
        if (err != NULL)
            *err = operation->error;
        return operation->error.code;
    }
    *ret_extension = extend->extension;
    extend->extension = NULL;
    return 0;
}
