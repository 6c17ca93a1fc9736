/* SPDX-License-Identifier: Apache-2.0 */
/* Detach: the request, the operation, the order of the steps, the result. See detach_state.h. */
#include "detach.h"

#include "detach_state.h"
#include "error.h"
#include "fault.h"
#include "text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void abandon_jobs(struct mp_detach *detach)
{
    for (size_t i = 0; i < detach->device_count; i++)
        mp_detach_job_abandon(detach, &detach->devices[i].job);
    for (size_t i = 0; i < detach->disk_count; i++)
        mp_detach_job_abandon(detach, &detach->disks[i].job);
    mp_detach_job_abandon(detach, &detach->forget_job);
}

static void drop_sessions(struct mp_detach *detach)
{
    for (size_t i = 0; i < detach->session_count; i++) {
        struct mp_session_entry *entry = detach->sessions[i].entry;

        detach->sessions[i].entry = NULL;
        mp_session_stop_waiting(&detach->sessions[i].wait);
        if (entry != NULL)
            mp_session_drop(entry);
    }
}

int32_t mp_detach_flush_outcome(const struct mp_detach *detach)
{
    static const int32_t from_worst[] = {MANYPATH_FLUSH_FAILED, MANYPATH_FLUSH_UNKNOWN,
                                         MANYPATH_FLUSH_DONE};

    for (size_t o = 0; o < sizeof from_worst / sizeof from_worst[0]; o++) {
        if (detach->earlier_flush == from_worst[o] && detach->reached)
            return from_worst[o];
        for (size_t i = 0; i < detach->device_count; i++)
            if (detach->devices[i].flush == from_worst[o] && !detach->devices[i].mapped)
                return from_worst[o];
    }
    return MANYPATH_FLUSH_NOT_NEEDED;
}

/* Without force the caller gets one error, so that it tells of the others. */
static void tell_of_others(struct mp_detach *detach)
{
    const struct manypath_detachment *result = detach->detachment;
    struct manypath_error *error = &detach->operation.error;

    if (detach->force)
        return;
    for (size_t i = 1; i < result->error_count; i++) {
        size_t used = strlen(error->message);

        snprintf(error->message + used, sizeof error->message - used, "; and %s",
                 result->errors[i].message);
    }
}

static void finish(struct mp_detach *detach)
{
    struct manypath_detachment *result = detach->detachment;
    MP_FAULT("detach.answered");
    detach->step = DETACH_DONE;
    mp_engine_disarm(detach->operation.handle, &detach->limit);
    abandon_jobs(detach);
    mp_detach_unlock(detach);
    drop_sessions(detach);
    tell_of_others(detach);
    result->flush = detach->reached ? mp_detach_flush_outcome(detach) : MANYPATH_FLUSH_UNKNOWN;
    result->times.total_ns = mp_now_ns() - detach->operation.begin_ns + result->times.queue_ns;
    result->warning_count = detach->warnings.count;
    result->warnings = detach->warnings.texts;
    detach->warnings = (struct mp_warnings){0};
    mp_operation_deliver(&detach->operation);
}

void mp_detach_next(struct mp_detach *detach)
{
    static void (*const after[])(struct mp_detach *) = {
        [DETACH_FIND] = mp_detach_flush,    [DETACH_LOCK] = mp_detach_flush,
        [DETACH_FLUSH] = mp_detach_remove,  [DETACH_REMOVE] = mp_detach_delete,
        [DETACH_DELETE] = mp_detach_forget, [DETACH_FORGET] = mp_detach_logout,
        [DETACH_LOGOUT] = finish,
    };
    if (detach->operation.error.code != 0 && (!detach->force || detach->blind))
        finish(detach);
    else
        after[detach->step](detach);
}

static void detach_begin(struct manypath_operation *operation)
{
    struct mp_detach *detach = (struct mp_detach *)operation;

    detach->detachment->times.queue_ns = operation->begin_ns - operation->submit_ns;
    mp_detach_find(detach);
}

/* ---- cancelling, freeing ---- */

/* ": session 3 to iqn.x through portal 192.0.2.1 port 3260" */
static void name_logouts(const struct mp_detach *detach, char *text, size_t size)
{
    size_t used = 0;

    text[0] = '\0';
    for (size_t i = 0; i < detach->session_count && used < size; i++) {
        const struct mp_detach_session *session = &detach->sessions[i];
        char address[MANYPATH_ADDRESS_SIZE];

        if (!session->wait.linked)
            continue;
        mp_portal_format(&session->portal, address, sizeof address);
        used += (size_t)snprintf(
            text + used, size - used, "%s session %d to %s through portal %s port %u",
            used == 0 ? ":" : ",", session->sid, session->iqn, address, session->portal.port);
    }
}

/* "the map is gone, 2 of 3 SCSI devices are deleted, ": what is known so far. */
static void name_removed(const struct mp_detach *detach, char *text, size_t size)
{
    const struct manypath_detachment *result = detach->detachment;
    const char *map = result->map_removed ? "the map is gone, " : "";

    for (size_t i = 0; i < detach->device_count; i++) {
        const struct mp_detach_device *device = &detach->devices[i];

        if (device->uuid[0] != '\0' && device->deferred)
            map = "the map is still open and goes when it is closed, ";
        else if (device->uuid[0] != '\0' && device->kept)
            map = "the map was kept, ";
    }
    text[0] = '\0';
    if (detach->step > DETACH_REMOVE)
        snprintf(text, size, "%s%u of %zu SCSI devices are deleted, ", map, result->devices_removed,
                 detach->disk_count);
}

/* What the detach waited for at its end. */
static void waited_for(const struct mp_detach *detach, int code, struct manypath_error *ret_error)
{
    static const struct {
        int phase;
        const char *state;
    } steps[] = {
        [DETACH_FIND] = {MANYPATH_PHASE_PREPARE, "nothing was removed"},
        [DETACH_LOCK] = {MANYPATH_PHASE_PREPARE, "nothing was removed"},
        [DETACH_FLUSH] =
            {MANYPATH_PHASE_FLUSH,
             "while flushing, which goes on in the kernel; flush: unknown; nothing was "
             "removed"},
        [DETACH_REMOVE] = {MANYPATH_PHASE_UNMAP,
                           "while the map was being removed, which goes on in the kernel; its "
                           "queueing is restored if it stays"},
        [DETACH_DELETE] = {MANYPATH_PHASE_DELETE, "others were being deleted"},
        [DETACH_FORGET] = {MANYPATH_PHASE_DELETE, "multipathd was to let go of them"},
        [DETACH_LOGOUT] = {MANYPATH_PHASE_LOGOUT, "sessions were being logged out"},
        [DETACH_DONE] = {MANYPATH_PHASE_NONE, ""},
    };

    char removed[MANYPATH_MESSAGE_SIZE / 4];
    char logouts[MANYPATH_MESSAGE_SIZE / 2];

    name_removed(detach, removed, sizeof removed);
    name_logouts(detach, logouts, sizeof logouts);
    for (size_t i = 0; i < detach->lock_count && detach->step == DETACH_LOCK; i++)
        if (detach->locks[i].lock.state == MP_LOCK_WAITING) {
            mp_lock_busy(&detach->locks[i].lock, code, MANYPATH_PHASE_PREPARE, ret_error);
            return;
        }
    mp_error(ret_error, code, steps[detach->step].phase, 0,
             "%s: %s%s%s; the same call goes on from there",
             code == MANYPATH_E_TIMEOUT ? "the timeout passed" : "the detach was cancelled",
             removed, steps[detach->step].state, logouts);
}

static void detach_cancel(struct manypath_operation *operation, int code)
{
    struct mp_detach *detach = (struct mp_detach *)operation;
    struct manypath_error error;

    waited_for(detach, code, &error);
    if (code == MANYPATH_E_CANCELLED) /* who cancelled waits for that answer */
        mp_detach_error_first(detach, &error);
    else
        mp_detach_error(detach, &error);
    finish(detach);
}

static bool detach_idle(const struct manypath_operation *operation)
{
    return ((const struct mp_detach *)operation)->jobs == 0;
}

static void detach_free(struct manypath_operation *operation)
{
    struct mp_detach *detach = (struct mp_detach *)operation;

    detach->jobs = 0; /* the engine has stopped, or they are over */
    mp_detach_unlock(detach);
    mp_warnings_free(detach->warnings.count, detach->warnings.texts);
    manypath_detachment_free(detach->detachment);
    free(detach->devices);
    free(detach->operation.targets);
    free(detach->disks);
    free(detach->sessions);
    free(detach);
}

int mp_detach_new(struct manypath *handle, const struct manypath_detach_request *request,
                  struct manypath_operation **ret_operation, struct manypath_error *err)
{
    struct mp_detach *detach;
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
    detach->force = request->force;
    detach->earlier_flush = MANYPATH_FLUSH_NOT_NEEDED;
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
    struct mp_detach *detach = (struct mp_detach *)operation;

    if (operation->error.code != 0 && err != NULL)
        *err = operation->error;
    if (operation->error.code == 0 || detach->force) {
        *ret_detachment = detach->detachment;
        detach->detachment = NULL;
    }
    return operation->error.code;
}
