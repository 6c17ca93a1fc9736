/* SPDX-License-Identifier: Apache-2.0 */
/* Detach: DELETE and FORGET. */
#include "detach_state.h"

#include "error.h"
#include "fault.h"
#include "forget.h"
#include "scsi.h"
#include "text.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* How long multipathd may take to handle the events of disks that are deleted. */
#define FORGET_LIMIT (UINT64_C(5) * 1000 * 1000 * 1000)

/* ---- FORGET ---- */

static void forget_run(struct mp_job *base)
{
    struct mp_detach_job *job = (struct mp_detach_job *)base;

    job->result = mp_paths_forget(job->host, job->names, job->name_count, job->deadline_ns);
}

static void forget_over(struct mp_detach *detach)
{
    detach->detachment->times.delete_ns += mp_detach_phase_ns(detach);
    mp_detach_unlock(detach);
    mp_detach_next(detach);
}

static void forget_finished(struct mp_detach_job *job)
{
    struct mp_detach *detach = job->detach;

    if (job->result > 0)
        mp_warn(&detach->warnings, "multipathd still has %s%s in its list, though the disk is gone",
                job->names[0], job->result > 1 ? " and others" : "");
    else if (job->result < 0)
        mp_warn(&detach->warnings,
                "multipathd could not be asked whether it has let go of the disks: errno %d",
                -job->result);
    detach->outstanding = 0;
    forget_over(detach);
}

void mp_detach_forget(struct mp_detach *detach)
{
    struct mp_detach_job *job;

    MP_FAULT("detach.all_deleted");
    detach->step = DETACH_FORGET;
    detach->outstanding = 0;
    if (detach->disk_count == 0) {
        forget_over(detach);
        return;
    }
    job = mp_detach_job_new(detach, forget_run, forget_finished);
    if (job != NULL && mp_now_ns() + FORGET_LIMIT < job->deadline_ns)
        job->deadline_ns = mp_now_ns() + FORGET_LIMIT;
    if (job != NULL)
        job->names = calloc(detach->disk_count + 1, sizeof *job->names);
    for (size_t i = 0; i < detach->disk_count && job != NULL && job->names != NULL; i++)
        if (!detach->disks[i].kept && detach->disks[i].disk.name[0] != '\0')
            mp_copy(job->names[job->name_count++], sizeof *job->names, detach->disks[i].disk.name);
    if (!mp_detach_job_start(detach, job, &detach->forget_job, MANYPATH_PHASE_DELETE))
        forget_over(detach);
}

/* ---- DELETE ---- */

static void delete_run(struct mp_job *base)
{
    struct mp_detach_job *job = (struct mp_detach_job *)base;

    MP_FAULT("detach.delete");
    if (job->held_stays) /* somebody may have taken it: multipathd, or another attach */
        job->result =
            mp_disk_recheck(job->host, job->disk.name, job->claimed, job->deadline_ns, &job->error);
    if (job->held_stays && job->result < 0)
        return;
    job->result = mp_scsi_delete(job->host->sysfs_root, job->disk.host, job->disk.channel,
                                 job->disk.target, job->disk.lun);
    if (job->uuid[0] != '\0')
        mp_map_remove_orphan(job->host, job->uuid, job->deadline_ns, &job->error);
    MP_FAULT("detach.deleted");
}

static void delete_over(struct mp_detach *detach)
{
    mp_engine_disarm(detach->operation.handle, &detach->limit);
    detach->detachment->times.delete_ns = mp_detach_phase_ns(detach);
    mp_detach_next(detach);
}

static void delete_finished(struct mp_detach_job *job)
{
    struct mp_detach *detach = job->detach;
    struct manypath_error error;

    if (job->result == 0) {
        detach->detachment->devices_removed++;
    } else if (job->result == MANYPATH_E_IN_USE) {
        detach->disks[job->index].kept = true;
    } else if (job->result != -ENOENT && job->result != -ENODEV) {
        mp_error(&error, MANYPATH_E_DEVICE, MANYPATH_PHASE_DELETE, job->result,
                 "deleting SCSI device %s failed with errno %d", job->disk.name, -job->result);
        mp_detach_error(detach, &error);
        detach->disks[job->index].stuck = true;
    }
    if (job->error.code != 0)
        mp_detach_error(detach, &job->error);
    if (--detach->outstanding == 0)
        delete_over(detach);
}

static void delete_limit(struct mp_timer *timer)
{
    struct mp_detach *detach =
        (struct mp_detach *)((char *)timer - offsetof(struct mp_detach, limit));
    struct manypath_error error;

    for (size_t i = 0; i < detach->disk_count; i++) {
        if (detach->disks[i].job == NULL)
            continue;
        mp_detach_job_abandon(detach, &detach->disks[i].job);
        detach->disks[i].stuck = true;
        mp_error(
            &error, MANYPATH_E_TIMEOUT, MANYPATH_PHASE_DELETE, ETIMEDOUT,
            "deleting SCSI device %s did not end in its part of the timeout; it goes on in the "
            "kernel, and the detach goes on without it",
            detach->disks[i].disk.name);
        mp_detach_error(detach, &error);
    }
    detach->outstanding = 0;
    delete_over(detach);
}

/* What this disk belongs to: its map, or itself. NULL: its block device is not there. */
static const struct mp_detach_device *device_of(const struct mp_detach *detach,
                                                const struct mp_detach_disk *disk)
{
    for (size_t i = 0; i < detach->device_count; i++) {
        const struct mp_detach_device *device = &detach->devices[i];

        if (device->uuid[0] != '\0' ? strcmp(device->uuid, disk->map) == 0
                                    : strcmp(device->disk, disk->disk.name) == 0)
            return device;
    }
    return NULL;
}

void mp_detach_delete(struct mp_detach *detach)
{
    MP_FAULT("detach.unmapped");
    detach->step = DETACH_DELETE;
    detach->outstanding = 0;
    for (size_t i = 0; i < detach->disk_count; i++) {
        struct mp_detach_disk *disk = &detach->disks[i];
        const struct mp_detach_device *device = device_of(detach, disk);

        disk->kept = device != NULL && device->kept;
        if (disk->kept)
            continue;
        struct mp_detach_job *job = mp_detach_job_new(detach, delete_run, delete_finished);

        if (job != NULL) {
            job->index = i;
            job->disk = disk->disk;
            job->held_stays = device != NULL && device->uuid[0] == '\0' && !device->dead;
            job->claimed = device != NULL && device->claimed;
            if (device != NULL && !device->deferred) /* that one goes by itself */
                mp_copy(job->uuid, sizeof job->uuid, disk->map);
        }
        disk->stuck = !mp_detach_job_start(detach, job, &disk->job, MANYPATH_PHASE_DELETE);
    }
    if (detach->outstanding == 0) {
        delete_over(detach);
    } else if (detach->force) {
        detach->limit.fire = delete_limit;
        mp_engine_arm(detach->operation.handle, &detach->limit, mp_detach_step_deadline(detach));
    }
}
