/* SPDX-License-Identifier: Apache-2.0 */
/* Attach: what runs in a worker, and how it comes back. */
#include "attach_state.h"

#include <stdlib.h>

void mp_attach_job_free(struct mp_attach_job *job)
{
    mp_operation_release(&job->attach->operation);
    mp_host_release(job->host);
    mp_identity_close(&job->fd);
    for (size_t i = 0; i < job->map_path_count; i++)
        mp_identity_close(&job->map_paths[i].fd);
    free(job->map_paths);
    mp_multipathd_config_free(job->config);
    free(job);
}

static void job_drop(struct mp_job *base)
{
    mp_attach_job_free((struct mp_attach_job *)base);
}

static void job_done(struct mp_job *base)
{
    struct mp_attach_job *job = (struct mp_attach_job *)base;

    job->attach->jobs--;
    if (*job->slot == base) {
        *job->slot = NULL;
        job->finished(job);
    }
    mp_attach_job_free(job);
}

struct mp_attach_job *mp_attach_job_new(struct mp_attach *attach, struct mp_attach_path *path,
                                        void (*run)(struct mp_job *),
                                        void (*finished)(struct mp_attach_job *))
{
    struct mp_attach_job *job = calloc(1, sizeof *job);

    if (job == NULL)
        return NULL;
    job->job.run = run;
    job->job.done = job_done;
    job->job.drop = job_drop;
    job->attach = attach;
    mp_operation_hold(&attach->operation);
    job->path = path;
    job->host = mp_host_hold(attach->operation.handle->host);
    job->finished = finished;
    job->fd = -1;
    job->result = MANYPATH_E_CANCELLED; /* should it be given up before it begins */
    if (path != NULL)
        job->disk = path->disk;
    return job;
}

bool mp_attach_job_start(struct mp_attach_job *job, struct mp_job **slot)
{
    job->slot = slot;
    if (mp_pool_submit(job->attach->operation.handle->pool, &job->job) < 0) {
        mp_attach_job_free(job);
        return false;
    }
    job->attach->jobs++;
    *slot = &job->job;
    return true;
}

void mp_attach_job_abandon(struct mp_attach *attach, struct mp_job **slot)
{
    if (*slot == NULL)
        return;
    mp_pool_abandon(attach->operation.handle->pool, *slot);
    *slot = NULL;
}
