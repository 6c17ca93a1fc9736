/* SPDX-License-Identifier: Apache-2.0 */
/* Detach: FLUSH and REMOVE. */
#include "detach_state.h"

#include "error.h"
#include "fault.h"
#include "text.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static const char *name_of(const struct mp_detach_device *device)
{
    return device->uuid[0] != '\0' ? device->uuid : device->disk;
}

static struct mp_detach_job *device_job(struct mp_detach *detach, size_t index,
                                        void (*run)(struct mp_job *),
                                        void (*finished)(struct mp_detach_job *))
{
    struct mp_detach_job *job = mp_detach_job_new(detach, run, finished);

    if (job == NULL)
        return NULL;
    job->index = index;
    mp_copy(job->uuid, sizeof job->uuid, detach->devices[index].uuid);
    mp_copy(job->disk.name, sizeof job->disk.name, detach->devices[index].disk);
    return job;
}

/* With force: what did not end in time is given up, and goes on in the kernel. */
static void arm_limit(struct mp_detach *detach, void (*fire)(struct mp_timer *))
{
    if (!detach->force || detach->outstanding == 0)
        return;
    detach->limit.fire = fire;
    mp_engine_arm(detach->operation.handle, &detach->limit, mp_detach_step_deadline(detach));
}

static struct mp_detach *limited(struct mp_timer *timer)
{
    return (struct mp_detach *)((char *)timer - offsetof(struct mp_detach, limit));
}

static void give_up(struct mp_detach *detach, struct mp_detach_device *device, int phase,
                    const char *doing)
{
    struct manypath_error error;

    mp_detach_job_abandon(detach, &device->job);
    mp_error(&error, MANYPATH_E_TIMEOUT, phase, ETIMEDOUT,
             "%s %s did not end in its part of the timeout; it goes on in the kernel, and the "
             "detach goes on without it",
             doing, name_of(device));
    mp_detach_error(detach, &error);
}

/* ---- REMOVE ---- */

static void remove_run(struct mp_job *base)
{
    struct mp_detach_job *job = (struct mp_detach_job *)base;

    job->result = mp_map_remove(job->host, job->uuid, &job->options, job->deadline_ns, &job->unmap,
                                &job->error);
}

static void remove_over(struct mp_detach *detach)
{
    mp_engine_disarm(detach->operation.handle, &detach->limit);
    detach->detachment->times.unmap_ns = mp_detach_phase_ns(detach);
    mp_detach_next(detach);
}

static void remove_finished(struct mp_detach_job *job)
{
    struct mp_detach *detach = job->detach;
    struct mp_detach_device *device = &detach->devices[job->index];

    if (device->open)
        device->flush = job->unmap.flush;
    if (job->unmap.flush_error.code != 0)
        mp_detach_error(detach, &job->unmap.flush_error);
    if (job->result == 0) {
        detach->detachment->map_removed = true;
    } else {
        /* The disks of a map that stays are not taken from under it, unless none of them works: then
         * they are better gone, before the LUN comes back as another volume. */
        device->dead = job->unmap.dead;
        device->deferred = job->unmap.deferred;
        device->kept = !job->unmap.deferred;
        mp_detach_error(detach, &job->error);
    }
    if (--detach->outstanding == 0)
        remove_over(detach);
}

static void remove_limit(struct mp_timer *timer)
{
    struct mp_detach *detach = limited(timer);

    for (size_t i = 0; i < detach->device_count; i++)
        if (detach->devices[i].job != NULL) {
            detach->devices[i].kept = true;
            give_up(detach, &detach->devices[i], MANYPATH_PHASE_UNMAP, "removing");
        }
    detach->outstanding = 0;
    remove_over(detach);
}

void mp_detach_remove(struct mp_detach *detach)
{
    MP_FAULT("detach.remove");
    detach->step = DETACH_REMOVE;
    detach->outstanding = 0;
    for (size_t i = 0; i < detach->device_count; i++) {
        struct mp_detach_device *device = &detach->devices[i];

        if (device->uuid[0] == '\0' || device->kept)
            continue;
        struct mp_detach_job *job = device_job(detach, i, remove_run, remove_finished);

        if (job != NULL)
            job->options.flush = device->open;
        if (!mp_detach_job_start(detach, job, &device->job, MANYPATH_PHASE_UNMAP))
            device->kept = true;
    }
    if (detach->outstanding == 0)
        remove_over(detach);
    else
        arm_limit(detach, remove_limit);
}

/* ---- FLUSH ---- */

static void flush_run(struct mp_job *base)
{
    struct mp_detach_job *job = (struct mp_detach_job *)base;

    if (job->uuid[0] != '\0')
        job->result = mp_map_flush(job->host, job->uuid, &job->options, job->deadline_ns,
                                   &job->unmap, &job->error);
    else
        job->result = mp_disk_release(job->host, job->disk.name, &job->options, job->deadline_ns,
                                      &job->unmap, &job->error);
}

static void flush_over(struct mp_detach *detach)
{
    bool go_on = detach->force || detach->operation.error.code == 0;

    mp_engine_disarm(detach->operation.handle, &detach->limit);
    for (size_t i = 0; i < detach->device_count && go_on; i++)
        if (detach->devices[i].mapped) {
            /* multipathd made a map of it meanwhile: that is what is to be detached */
            detach->earlier_flush = mp_detach_flush_outcome(detach);
            mp_detach_find(detach);
            return;
        }
    detach->detachment->times.flush_ns = mp_detach_phase_ns(detach);
    mp_detach_next(detach);
}

static void flush_finished(struct mp_detach_job *job)
{
    struct mp_detach *detach = job->detach;
    struct mp_detach_device *device = &detach->devices[job->index];

    device->flush = job->unmap.flush;
    device->mapped = job->unmap.mapped;
    if (job->unmap.unseen)
        mp_warn(&detach->warnings,
                "a program may have had %s open: not all can be looked into without "
                "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH",
                device->disk);
    if (job->unmap.dead)
        device->dead = true;
    if (job->result < 0 && !device->mapped) {
        bool in_use = job->result == MANYPATH_E_IN_USE && !device->dead;

        /* a device in use stays; but a program that has it open may be one that is stuck */
        device->open = detach->force && in_use && device->uuid[0] != '\0' && !job->unmap.named;
        device->kept = in_use && !device->open;
        if (!device->open)
            mp_detach_error(detach, &job->error);
    }
    if (--detach->outstanding == 0)
        flush_over(detach);
}

static void flush_limit(struct mp_timer *timer)
{
    struct mp_detach *detach = limited(timer);

    for (size_t i = 0; i < detach->device_count; i++) {
        struct mp_detach_device *device = &detach->devices[i];
        struct mp_detach_job *job = (struct mp_detach_job *)device->job;

        if (job == NULL)
            continue;
        /* of a map the kernel says who is in use when it is removed; of a disk only this tells */
        device->claimed = atomic_load(&job->unmap.claimed);
        device->kept = device->uuid[0] == '\0' && !device->dead && !device->claimed;
        give_up(detach, device, MANYPATH_PHASE_FLUSH, "flushing");
    }
    detach->outstanding = 0;
    flush_over(detach);
}

void mp_detach_flush(struct mp_detach *detach)
{
    struct manypath_detach_times *times = &detach->detachment->times;

    MP_FAULT("detach.locked");
    detach->step = DETACH_FLUSH;
    detach->reached = true;
    if (times->prepare_ns == 0)
        times->prepare_ns = mp_detach_phase_ns(detach);
    detach->outstanding = 0;
    for (size_t i = 0; i < detach->device_count; i++) {
        struct mp_detach_device *device = &detach->devices[i];

        if (!mp_detach_job_start(detach, device_job(detach, i, flush_run, flush_finished),
                                 &device->job, MANYPATH_PHASE_FLUSH))
            device->kept = device->uuid[0] == '\0' && !device->dead;
    }
    if (detach->outstanding == 0)
        flush_over(detach);
    else
        arm_limit(detach, flush_limit);
}
