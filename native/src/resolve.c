/* SPDX-License-Identifier: Apache-2.0 */
/* Resolving a host name: one job, and an operation around it that has a deadline. */
#include "resolve.h"

#include "error.h"
#include "request.h"
#include "text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- the job ---- */

static void resolve_run(struct mp_job *base)
{
    struct mp_resolve_job *job = (struct mp_resolve_job *)base;

    mp_resolve(job->host, job->port, job->portals, &job->count, &job->error);
}

static void resolve_drop(struct mp_job *base)
{
    free(base);
}

struct mp_resolve_job *mp_resolve_start(struct manypath *handle, const char *host, uint16_t port,
                                        void (*done)(struct mp_job *job), void *owner)
{
    struct mp_resolve_job *job = calloc(1, sizeof *job);

    if (job == NULL)
        return NULL;
    job->job.run = resolve_run;
    job->job.done = done;
    job->job.drop = resolve_drop;
    job->owner = owner;
    job->port = port;
    mp_copy(job->host, sizeof job->host, host);
    if (mp_pool_submit(handle->pool, &job->job) < 0) {
        free(job);
        return NULL;
    }
    return job;
}

/* ---- the operation ---- */

struct resolve {
    struct manypath_operation operation;
    char host[MANYPATH_HOST_SIZE];
    struct mp_resolve_job *job; /* not back yet */
    struct manypath_addresses *addresses;
};

static void resolved(struct mp_job *base)
{
    struct mp_resolve_job *job = (struct mp_resolve_job *)base;
    struct resolve *resolve = job->owner;
    struct manypath_addresses *result = resolve->addresses;

    resolve->job = NULL;
    if (!resolve->operation.delivered) {
        resolve->operation.error = job->error;
        for (size_t i = 0; i < job->count; i++) {
            char literal[MANYPATH_ADDRESS_SIZE];

            mp_portal_format(&job->portals[i], literal, sizeof literal);
            result->addresses[i] = strdup(literal);
            result->count += result->addresses[i] != NULL;
        }
        mp_operation_deliver(&resolve->operation);
    }
    free(job);
}

static void resolve_begin(struct manypath_operation *operation)
{
    struct resolve *resolve = (struct resolve *)operation;

    /* the port is of no interest here */
    resolve->job = mp_resolve_start(operation->handle, resolve->host, 1, resolved, resolve);
    if (resolve->job != NULL)
        return;
    mp_error(&operation->error, MANYPATH_E_SYSTEM, MANYPATH_PHASE_RESOLVE, EAGAIN,
             "no thread or memory for resolving %s", resolve->host);
    mp_operation_deliver(operation);
}

static void resolve_cancel(struct manypath_operation *operation, int code)
{
    const struct resolve *resolve = (struct resolve *)operation;

    if (resolve->job != NULL)
        mp_pool_abandon(operation->handle->pool, &resolve->job->job);
    mp_error(&operation->error, code, MANYPATH_PHASE_RESOLVE, 0, "%s while resolving %s",
             code == MANYPATH_E_TIMEOUT ? "the timeout passed" : "the operation was cancelled",
             resolve->host);
    mp_operation_deliver(operation);
}

static bool resolve_idle(const struct manypath_operation *operation)
{
    return ((const struct resolve *)operation)->job == NULL;
}

static void resolve_free(struct manypath_operation *operation)
{
    struct resolve *resolve = (struct resolve *)operation;

    manypath_addresses_free(resolve->addresses);
    free(resolve);
}

void manypath_addresses_free(struct manypath_addresses *addresses)
{
    if (addresses == NULL)
        return;
    for (size_t i = 0; i < addresses->count; i++)
        free(addresses->addresses[i]);
    free(addresses->addresses);
    free(addresses);
}

int mp_resolve_new(struct manypath *handle, const char *host, uint32_t timeout_ms,
                   struct manypath_operation **ret_operation, struct manypath_error *err)
{
    struct mp_portal portal;
    int result = mp_request_timeout(timeout_ms, err);

    if (result < 0)
        return result;
    if (host == NULL || (mp_portal_parse(host, 1, &portal) < 0 && !mp_host_name_ok(host)))
        return mp_error(err, MANYPATH_E_INVALID, MANYPATH_PHASE_REQUEST, 0,
                        "the host name is no name of letters, digits, '-' and '.', 1 to 255 bytes");
    struct resolve *resolve = calloc(1, sizeof *resolve);

    if (resolve != NULL)
        resolve->addresses = calloc(1, sizeof *resolve->addresses);
    if (resolve != NULL && resolve->addresses != NULL)
        resolve->addresses->addresses =
            calloc(MP_ADDRESSES_MAX, sizeof *resolve->addresses->addresses);
    if (resolve == NULL || resolve->addresses == NULL || resolve->addresses->addresses == NULL)
        result = mp_error(err, MANYPATH_E_SYSTEM, MANYPATH_PHASE_REQUEST, ENOMEM, "out of memory");
    else
        result = mp_operation_init(&resolve->operation, handle, timeout_ms, err);
    if (result < 0) {
        if (resolve != NULL)
            resolve_free(&resolve->operation);
        return result;
    }
    mp_copy(resolve->host, sizeof resolve->host, host);
    resolve->operation.begin = resolve_begin;
    resolve->operation.cancel = resolve_cancel;
    resolve->operation.idle = resolve_idle;
    resolve->operation.free = resolve_free;
    *ret_operation = &resolve->operation;
    return 0;
}

int mp_resolve_result(struct manypath_operation *operation,
                      struct manypath_addresses **ret_addresses, struct manypath_error *err)
{
    struct resolve *resolve = (struct resolve *)operation;

    if (operation->error.code != 0) {
        if (err != NULL)
            *err = operation->error;
        return operation->error.code;
    }
    *ret_addresses = resolve->addresses;
    resolve->addresses = NULL;
    return 0;
}
