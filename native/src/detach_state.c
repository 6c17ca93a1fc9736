/* SPDX-License-Identifier: Apache-2.0 */
/* Detach: jobs, errors, time. */
#include "detach_state.h"

#include "error.h"
#include "text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void insert_error(struct manypath_detachment *result, size_t at,
                         const struct manypath_error *error)
{
    struct manypath_error *errors =
        realloc(result->errors, (result->error_count + 1) * sizeof *errors);

    if (errors == NULL)
        return; /* the list lacks it */
    memmove(&errors[at + 1], &errors[at], (result->error_count - at) * sizeof *errors);
    errors[at] = *error;
    result->errors = errors;
    result->error_count++;
}

void mp_detach_error(struct mp_detach *detach, const struct manypath_error *error)
{
    if (detach->operation.error.code == 0)
        detach->operation.error = *error;
    insert_error(detach->detachment, detach->detachment->error_count, error);
}

void mp_detach_error_first(struct mp_detach *detach, const struct manypath_error *error)
{
    detach->operation.error = *error;
    insert_error(detach->detachment, 0, error);
}

void mp_detach_no_resources(struct mp_detach *detach, int phase)
{
    struct manypath_error error;

    mp_error(&error, MANYPATH_E_SYSTEM, phase, EAGAIN, "no thread or memory to go on with");
    mp_detach_error(detach, &error);
}

uint64_t mp_detach_phase_ns(const struct mp_detach *detach)
{
    const struct manypath_detach_times *times = &detach->detachment->times;

    return mp_now_ns() - detach->operation.begin_ns - times->prepare_ns - times->flush_ns -
           times->unmap_ns - times->delete_ns - times->logout_ns;
}

uint64_t mp_detach_step_deadline(const struct mp_detach *detach)
{
    uint64_t end_ns = detach->operation.deadline_ns;
    uint64_t deadline_ns = end_ns - MP_DETACH_ANSWER_RESERVE;
    uint64_t now_ns = mp_now_ns();

    if (!detach->force)
        return deadline_ns;
    if (deadline_ns <= now_ns) /* a limit in the past would fire before the operation's own timer */
        deadline_ns = now_ns < end_ns ? end_ns : now_ns;
    return now_ns + (deadline_ns - now_ns) / 2;
}

/* ---- jobs ---- */

static void job_drop(struct mp_job *base)
{
    struct mp_detach_job *job = (struct mp_detach_job *)base;

    mp_operation_release(&job->detach->operation); /* its locks, if the handle was closed */
    mp_host_release(job->host);
    free(job->names);
    free(job);
}

static void job_done(struct mp_job *base)
{
    struct mp_detach_job *job = (struct mp_detach_job *)base;

    struct mp_detach *detach = job->detach;

    detach->jobs--;
    if (job->slot != NULL) {
        *job->slot = NULL;
        job->finished(job);
    }
    job_drop(base);
    if (detach->step >= DETACH_LOGOUT)
        mp_detach_unlock(detach);
}

struct mp_detach_job *mp_detach_job_new(struct mp_detach *detach, void (*run)(struct mp_job *),
                                        void (*finished)(struct mp_detach_job *))
{
    struct mp_detach_job *job = calloc(1, sizeof *job);

    if (job == NULL)
        return NULL;
    job->job.run = run;
    job->job.done = job_done;
    job->job.drop = job_drop;
    job->detach = detach;
    mp_operation_hold(&detach->operation);
    job->host = mp_host_hold(detach->operation.handle->host);
    job->finished = finished;
    job->result = MANYPATH_E_CANCELLED; /* should it be given up before it begins */
    job->options.force = detach->force;
    job->deadline_ns = mp_detach_step_deadline(detach);
    if (detach->force && job->deadline_ns > mp_now_ns())
        job->deadline_ns -= (job->deadline_ns - mp_now_ns()) / 4; /* to answer within its step */
    return job;
}

bool mp_detach_job_start(struct mp_detach *detach, struct mp_detach_job *job, struct mp_job **slot,
                         int phase)
{
    if (job == NULL) {
        mp_detach_no_resources(detach, phase);
        return false;
    }
    job->slot = slot;
    if (mp_pool_submit(detach->operation.handle->pool, &job->job) < 0) {
        job_drop(&job->job);
        mp_detach_no_resources(detach, phase);
        return false;
    }
    detach->jobs++;
    detach->outstanding++;
    *slot = &job->job;
    return true;
}

void mp_detach_job_abandon(struct mp_detach *detach, struct mp_job **slot)
{
    if (*slot == NULL)
        return;
    ((struct mp_detach_job *)*slot)->slot = NULL; /* it comes back, perhaps when that is gone */
    mp_pool_abandon(detach->operation.handle->pool, *slot);
    *slot = NULL;
}
