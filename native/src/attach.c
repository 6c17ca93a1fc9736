/* SPDX-License-Identifier: Apache-2.0 */
/* Attach: the request, the operation as the engine sees it, the result. What happens in between is
 * told in attach_state.h. */
#include "attach.h"

#include "attach_state.h"
#include "error.h"
#include "map.h"
#include "text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of the timeout, at most this is kept for making the map. */
#define MAP_RESERVE (1000 * MP_MS)

enum {
    LOGIN_TIMEOUT_MIN_S = 5,
    /* iscsid.conf's default; it stays with the session for its reconnects */
    LOGIN_TIMEOUT_MAX_S = 15,
    /* Of a map the other paths take over, so I/O on a lost one fails soon: multipath-tools' default
     * fast_io_fail_tmo. A single path is all there is: open-iscsi's default. */
    REPLACEMENT_TIMEOUT_S = 5,
    REPLACEMENT_TIMEOUT_SINGLE_S = 120,
};

static void prepare_run(struct mp_job *base)
{
    struct mp_attach_job *job = (struct mp_attach_job *)base;

    job->result = mp_map_supported(job->host, &job->error);
}

static void prepare_finished(struct mp_attach_job *job)
{
    struct mp_attach *attach = job->attach;

    if (job->result < 0) {
        attach->operation.error = job->error;
        attach->operation.error.phase = MANYPATH_PHASE_PREPARE;
        mp_attach_fail(attach);
        return;
    }
    atomic_store(&job->host->multipath_known, true);
    mp_attach_start(attach);
}

static void attach_begin(struct manypath_operation *operation)
{
    struct mp_attach *attach = (struct mp_attach *)operation;
    struct manypath *handle = operation->handle;

    attach->times.queue_ns = operation->begin_ns - operation->submit_ns;
    for (size_t i = 0; i < attach->path_count; i++) {
        struct mp_attach_path *path = &attach->paths[i];

        path->session = mp_session_hold(handle->sessions, &path->target.portal, path->target.iqn);
        if (path->session == NULL) {
            mp_error(&operation->error, MANYPATH_E_SYSTEM, MANYPATH_PHASE_PREPARE, ENOMEM,
                     "out of memory");
            mp_attach_fail(attach);
            return;
        }
    }
    if (!attach->single_path)
        mp_attach_ask_policy(attach);
    if (attach->single_path || atomic_load(&handle->host->multipath_known)) {
        mp_attach_start(attach);
        return;
    }
    /* no session is made for nothing on a kernel without multipath; asked once, as it may load a
     * module */
    struct mp_attach_job *job = mp_attach_job_new(attach, NULL, prepare_run, prepare_finished);

    if (job == NULL || !mp_attach_job_start(job, &attach->prepare_job)) {
        mp_error(&operation->error, MANYPATH_E_SYSTEM, MANYPATH_PHASE_PREPARE, EAGAIN,
                 "no thread for asking device-mapper");
        mp_attach_fail(attach);
    }
}

static void attach_cancel(struct manypath_operation *operation, int code)
{
    struct mp_attach *attach = (struct mp_attach *)operation;

    if (attach->step == MP_VOLUME_UNDOING) {
        if (code == MANYPATH_E_TIMEOUT) { /* the undo grace */
            snprintf(operation->error.message + strlen(operation->error.message),
                     sizeof operation->error.message - strlen(operation->error.message),
                     " (still undoing in the background)");
            mp_attach_finish(attach);
        }
        return;
    }
    if (attach->step == MP_VOLUME_TIDY) { /* too late: the volume is there */
        mp_attach_finish(attach);
        return;
    }
    for (size_t i = 0; i < attach->path_count; i++) {
        struct mp_attach_path *path = &attach->paths[i];

        if (path->step == MP_PATH_LOGIN)
            mp_session_pending(path->session, &path->error);
    }
    if (code == MANYPATH_E_TIMEOUT && attach->step == MP_VOLUME_PATHS)
        mp_attach_blame_paths(attach);
    else if (attach->wwid_lock.state == MP_LOCK_WAITING)
        mp_lock_busy(&attach->wwid_lock, code, MANYPATH_PHASE_MAP, &operation->error);
    else
        mp_error(&operation->error, code,
                 attach->step == MP_VOLUME_MAP       ? MANYPATH_PHASE_MAP
                 : attach->step == MP_VOLUME_PREPARE ? MANYPATH_PHASE_PREPARE
                                                     : MANYPATH_PHASE_LOGIN,
                 0, "%s%s",
                 code == MANYPATH_E_TIMEOUT ? "the timeout passed" : "the attach was cancelled",
                 attach->step == MP_VOLUME_PREPARE
                     ? attach->prepare_job != NULL
                           ? " while device-mapper was asked for the multipath target"
                           : " before it began: another operation on the same LUN had not ended"
                     : "");
    if (code == MANYPATH_E_TIMEOUT)
        operation->error.code = MANYPATH_E_TIMEOUT;
    mp_attach_fail(attach);
}

static bool attach_idle(const struct manypath_operation *operation)
{
    const struct mp_attach *attach = (const struct mp_attach *)operation;

    for (size_t i = 0; i < attach->path_count; i++)
        if (attach->paths[i].step > MP_PATH_WAITING && attach->paths[i].step < MP_PATH_OVER)
            return false;
    return attach->jobs == 0 && attach->grace.slot == 0;
}

static void attach_free(struct manypath_operation *operation)
{
    struct mp_attach *attach = (struct mp_attach *)operation;

    for (size_t i = 0; i < attach->path_count; i++)
        mp_identity_close(&attach->paths[i].fd);
    mp_lock_release(&attach->wwid_lock);
    mp_multipathd_config_free(attach->config);
    mp_chap_release(attach->terms.chap);
    mp_warnings_free(attach->warnings.count, attach->warnings.texts);
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
    struct mp_wanted wanted;
    size_t count = 0;
    int result = mp_request_timeout(request->timeout_ms, err);

    if (result == 0)
        result = mp_request_targets(request->targets, request->target_count, &targets, &count, err);
    if (result == 0 && request->min_paths > (request->single_path ? 1 : count))
        result = mp_error(err, MANYPATH_E_INVALID, MANYPATH_PHASE_REQUEST, 0,
                          "min_paths is %u, but the request asks for only %zu different paths",
                          request->min_paths, request->single_path ? 1 : count);
    if (result == 0)
        result = mp_wanted_parse(request->wwid, request->serial, &wanted, err);
    if (result == 0)
        result = mp_chap_new(request->chap, &chap, err);
    if (result < 0) {
        free(targets);
        return result;
    }
    struct mp_attach *attach = calloc(1, sizeof *attach);

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
    uint64_t reserve_ns = request->timeout_ms * MP_MS / 10;

    attach->operation.begin = attach_begin;
    attach->operation.cancel = attach_cancel;
    attach->operation.yield = mp_attach_yield;
    attach->operation.idle = attach_idle;
    attach->operation.free = attach_free;
    attach->decide = mp_attach_decide;
    attach->min_paths = request->min_paths != 0 ? request->min_paths : 1;
    attach->single_path = request->single_path;
    attach->wanted = wanted;
    attach->terms.replacement_timeout_s =
        request->single_path ? REPLACEMENT_TIMEOUT_SINGLE_S : REPLACEMENT_TIMEOUT_S;
    attach->terms.timeout_s = seconds < LOGIN_TIMEOUT_MIN_S   ? LOGIN_TIMEOUT_MIN_S
                              : seconds > LOGIN_TIMEOUT_MAX_S ? LOGIN_TIMEOUT_MAX_S
                                                              : seconds;
    attach->paths_deadline_ns =
        attach->operation.deadline_ns - (reserve_ns < MAP_RESERVE ? reserve_ns : MAP_RESERVE);
    attach->path_count = count;
    for (size_t i = 0; i < count; i++) {
        struct mp_attach_path *path = &attach->paths[i];

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
    struct mp_attach *attach = (struct mp_attach *)operation;

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
