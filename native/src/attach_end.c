/* SPDX-License-Identifier: Apache-2.0 */
/* Attach: how it ends. The result, or taking back what was made; then the caller is told. */
#include "attach_state.h"

#include "error.h"
#include "fault.h"
#include "map.h"
#include "text.h"

#include <stdio.h>

/* What undoing may take before the caller is answered all the same: always a little, even after the
 * deadline. */
#define UNDO_GRACE (800 * MP_MS)
#define UNDO_PATIENCE (10000 * MP_MS)
/* A login that iscsid is at cannot be called off. It is waited for this long, since nobody may be there
 * to log it out again later. */
#define LOGIN_PATIENCE (2000 * MP_MS)

/* ---- the result ---- */

bool mp_path_under_map_job(const struct mp_attach_path *path)
{
    return path->in_map && path->attach->map_job != NULL;
}

bool mp_path_is_loose(const struct mp_attach_path *path)
{
    return path->step > MP_PATH_LOGIN && path->step <= MP_PATH_READY && !path->in_map;
}

/* Only the portal is missing: the path joins the map when it is back. */
static bool is_away(const struct mp_attach *attach, const struct mp_attach_path *path)
{
    if (attach->operation.error.code != 0 || attach->single_path || path->target.candidate)
        return false;
    if (path->step >= MP_PATH_LOGIN && path->step <= MP_PATH_READY)
        return !path->in_map; /* late */
    return path->step >= MP_PATH_UNDO &&
           (path->error.code == MANYPATH_E_REFUSED || path->error.code == MANYPATH_E_NO_ANSWER);
}

static void set_path_result(const struct mp_attach *attach, const struct mp_attach_path *path,
                            struct manypath_path *result)
{
    bool mapped = attach->operation.error.code == 0 && path->in_map;

    mp_copy(result->address, sizeof result->address, path->target.address);
    mp_copy(result->iqn, sizeof result->iqn, path->target.iqn);
    result->port = path->target.portal.port;
    result->lun = path->target.lun;
    result->state = mapped                          ? path->state
                    : path->away                    ? MANYPATH_PATH_PENDING
                    : path->step == MP_PATH_WAITING ? MANYPATH_PATH_UNUSED
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

/* What the volume saw of each phase: from the end of the one before to the last path of the map. */
static void set_times(struct mp_attach *attach)
{
    struct manypath_attach_times *times = &attach->times;
    uint64_t at = times->prepare_ns;
    uint64_t *into[] = {&times->login_ns, &times->scan_ns, &times->device_ns, &times->identity_ns};
    uint64_t last[4] = {at, at, at, at};

    for (size_t i = 0; i < attach->path_count; i++) {
        const struct mp_attach_path *path = &attach->paths[i];
        const uint64_t ends[] = {path->times.login_end_ns, path->times.scan_end_ns,
                                 path->times.device_end_ns, path->times.identity_end_ns};

        for (size_t p = 0; p < 4 && path->in_map; p++)
            if (ends[p] > last[p])
                last[p] = ends[p];
    }
    for (size_t p = 0; p < 4; p++) {
        *into[p] = last[p] - at;
        at = last[p];
    }
    times->map_ns = attach->usable_ns - at;
}

void mp_attach_finish(struct mp_attach *attach)
{
    struct manypath_operation *operation = &attach->operation;
    struct manypath_attachment *attachment = attach->attachment;

    mp_engine_disarm(operation->handle, &attach->grace);
    mp_engine_disarm(operation->handle, &attach->gather);
    if (operation->error.code == 0)
        set_times(attach);
    for (size_t i = 0; i < attach->path_count; i++) {
        struct mp_attach_path *path = &attach->paths[i];

        path->away = is_away(attach, path);
        set_path_result(attach, path, &attach->results[i]);
        if (path->away) {
            path->wait.patient = true;
        } else if (path->step != MP_PATH_UNDO && !mp_path_is_loose(path) &&
                   !mp_path_under_map_job(path)) {
            mp_attach_job_abandon(attach, &path->job);
            mp_path_let_go(path);
            path->step = MP_PATH_OVER;
        }
    }
    MP_FAULT("attach.answered");
    attach->step = MP_VOLUME_DONE;
    attach->times.total_ns = mp_attach_since_begin(attach) + attach->times.queue_ns;
    attachment->times = attach->times;
    attachment->path_count = attach->path_count;
    attachment->warning_count = attach->warnings.count;
    attachment->warnings = attach->warnings.texts;
    attach->warnings = (struct mp_warnings){0};
    mp_operation_deliver(operation);
    for (size_t i = 0; i < attach->path_count; i++)
        if (!attach->paths[i].away && mp_path_is_loose(&attach->paths[i]))
            mp_path_undo(&attach->paths[i]); /* its login was answered too late */
    attach->decide(attach);
}

/* ---- failure ---- */

void mp_attach_blame_paths(struct mp_attach *attach)
{
    const struct manypath_error *first = NULL;
    struct manypath_error *error = &attach->operation.error;
    size_t failed = 0, ready = 0;

    for (size_t i = 0; i < attach->path_count; i++) {
        const struct manypath_error *one = &attach->paths[i].error;

        ready += attach->paths[i].step == MP_PATH_READY;
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

static uint64_t undo_until(uint64_t deadline_ns)
{
    uint64_t now = mp_now_ns();
    uint64_t patience = now + UNDO_PATIENCE < deadline_ns ? now + UNDO_PATIENCE : deadline_ns;

    return patience > now + UNDO_GRACE ? patience : now + UNDO_GRACE;
}

static bool is_at_login(const struct mp_attach_path *path)
{
    uint64_t silence_ns = path->step == MP_PATH_LOGIN ? mp_session_silence_ns(path->session) : 0;

    return silence_ns > 0 && silence_ns < LOGIN_PATIENCE;
}

void mp_attach_undo_paths(struct mp_attach *attach)
{
    int code = attach->operation.error.code;
    bool in_a_hurry = code == MANYPATH_E_TIMEOUT || code == MANYPATH_E_CANCELLED;
    bool waiting = false;

    for (size_t i = 0; i < attach->path_count; i++) {
        struct mp_attach_path *path = &attach->paths[i];

        if (path->step >= MP_PATH_UNDO || mp_path_under_map_job(path))
            continue;
        if (!in_a_hurry && is_at_login(path))
            waiting = true;
        else
            mp_path_undo(path);
    }
    if (waiting)
        mp_engine_arm(attach->operation.handle, &attach->grace, mp_now_ns() + LOGIN_PATIENCE / 4);
    mp_attach_unlock(attach);
    attach->decide(attach);
}

/* A map that is being made is waited for: its paths must not be taken from under it, and it must
 * not be left behind. */
void mp_attach_fail(struct mp_attach *attach)
{
    struct manypath *handle = attach->operation.handle;

    attach->step = MP_VOLUME_UNDOING;
    mp_engine_disarm(handle, &attach->grace);
    mp_engine_disarm(handle, &attach->gather);
    mp_attach_job_abandon(attach, &attach->prepare_job);
    mp_attach_job_abandon(attach, &attach->policy_job);
    mp_engine_arm(handle, &attach->operation.timer, undo_until(attach->operation.deadline_ns));
    if (attach->map_job != NULL)
        mp_pool_abandon(handle->pool, attach->map_job); /* its thread may be stuck */
    if (attach->wwid_lock.state == MP_LOCK_WAITING)
        mp_lock_release(&attach->wwid_lock);
    mp_attach_undo_paths(attach);
}

/* ---- a map that nobody wants any more ---- */

/* The map stays, and with it its paths. */
static void keep_members(struct mp_attach *attach)
{
    for (size_t i = 0; i < attach->path_count; i++)
        if (attach->paths[i].in_map)
            mp_path_keep(&attach->paths[i]);
}

static void unmake_run(struct mp_job *base)
{
    struct mp_attach_job *job = (struct mp_attach_job *)base;
    static const struct mp_unmap_options options = {.flush = true};
    struct mp_unmap_result result = {0};
    char uuid[sizeof "mpath-" + MANYPATH_WWID_SIZE];

    snprintf(uuid, sizeof uuid, "mpath-%s", job->wwid);
    MP_FAULT("attach.undo_map");
    job->result = mp_map_remove(job->host, uuid, &options, job->deadline_ns, &result, &job->error);
}

static void unmake_finished(struct mp_attach_job *job)
{
    if (job->result < 0) {
        mp_attach_warn(job->attach, "undoing: %s", job->error.message);
        keep_members(job->attach);
    }
    job->attach->unmade = job->result == 0;
    mp_attach_undo_paths(job->attach);
}

void mp_attach_map_unwanted(struct mp_attach_job *job)
{
    struct mp_attach *attach = job->attach;
    struct mp_attach_job *unmake;

    if (job->result < 0 || job->map.existed) {
        if (job->result == 0)
            keep_members(attach); /* in somebody else's map */
        mp_attach_undo_paths(attach);
        return;
    }
    unmake = mp_attach_job_new(attach, NULL, unmake_run, unmake_finished);
    if (unmake != NULL) {
        mp_copy(unmake->wwid, sizeof unmake->wwid, job->wwid);
        unmake->deadline_ns = mp_now_ns() + UNDO_PATIENCE;
    }
    if (unmake == NULL || !mp_attach_job_start(unmake, &attach->map_job))
        mp_attach_undo_paths(attach);
}
