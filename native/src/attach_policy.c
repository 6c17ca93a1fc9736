/* SPDX-License-Identifier: Apache-2.0 */
/* Attach: what multipathd is configured to leave alone, asked while the logins go on. */
#include "attach_state.h"

#include "map_policy.h"

static void policy_run(struct mp_job *base)
{
    struct mp_attach_job *job = (struct mp_attach_job *)base;

    job->result = mp_map_read_config(job->host, &job->config);
}

static void policy_finished(struct mp_attach_job *job)
{
    struct mp_attach *attach = job->attach;

    if (job->result < 0)
        mp_log(&attach->operation.handle->log, MANYPATH_LOG_WARNING,
               "multipathd does not tell its configuration (errno %d); should it blacklist the "
               "volume, it removes the map some day",
               -job->result);
    attach->config = job->config;
    job->config = NULL;
    if (attach->map_waits)
        mp_attach_map(attach);
}

/* Without a thread for it the attach goes on as if multipathd had not answered. */
void mp_attach_ask_policy(struct mp_attach *attach)
{
    struct mp_attach_job *job = mp_attach_job_new(attach, NULL, policy_run, policy_finished);

    if (job != NULL)
        mp_attach_job_start(job, &attach->policy_job);
}
