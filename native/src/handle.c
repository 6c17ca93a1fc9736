/* SPDX-License-Identifier: Apache-2.0 */
/* The public face: handles and operations as callers see them. */
#include "attach.h"
#include "client.h"
#include "detach.h"
#include "discover.h"
#include "engine.h"
#include "error.h"
#include "extend.h"
#include "request.h"
#include "resolve.h"
#include "session.h"
#include "text.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

enum { LOGINS_MAX = 32 }; /* iscsid's listen backlog */

const char *manypath_version(void)
{
    return MANYPATH_VERSION;
}

int manypath_open(const struct manypath_options *options, struct manypath **ret_handle,
                  struct manypath_error *err)
{
    struct manypath *handle;

    if (options != NULL && options->logins_in_flight > LOGINS_MAX)
        return mp_error(err, MANYPATH_E_INVALID, MANYPATH_PHASE_REQUEST, 0,
                        "logins_in_flight is %u; at most %d fit iscsid's backlog",
                        options->logins_in_flight, LOGINS_MAX);
    handle = calloc(1, sizeof *handle);
    if (handle != NULL) {
        pthread_mutex_init(&handle->lock, NULL);
        TAILQ_INIT(&handle->submitted);
        TAILQ_INIT(&handle->queued);
        TAILQ_INIT(&handle->operations);
        TAILQ_INIT(&handle->ending);
        TAILQ_INIT(&handle->watches);
        handle->pid = getpid();
        handle->epoll_fd = handle->wake.fd = handle->uevents.fd = -1;
        handle->host = mp_host_new(options);
        handle->client = mp_client_new(handle);
        handle->sessions = mp_sessions_new(handle);
        if (options != NULL)
            handle->log = (struct mp_log){options->log, options->log_userdata, options->log_level};
    }
    if (handle == NULL || handle->host == NULL || handle->client == NULL ||
        handle->sessions == NULL) {
        manypath_close(handle);
        return mp_error(err, MANYPATH_E_SYSTEM, MANYPATH_PHASE_REQUEST, ENOMEM, "out of memory");
    }
    *ret_handle = handle;
    return 0;
}

void manypath_close(struct manypath *handle)
{
    if (handle == NULL)
        return;
    if (handle->pid != getpid())
        return; /* the loop's state was copied in the middle of something: leave it alone */
    mp_engine_stop(handle);
    mp_sessions_free(handle->sessions);
    mp_client_free(handle->client);
    if (handle->host != NULL)
        mp_host_release(handle->host);
    pthread_mutex_destroy(&handle->lock);
    free(handle);
}

/* Hands a new operation to the loop; on failure nobody keeps it. */
static int submit(struct manypath *handle, struct manypath_operation *operation,
                  struct manypath_operation **ret_operation, struct manypath_error *err)
{
    int result = mp_engine_submit(handle, operation, err);

    if (result < 0) {
        close(operation->event_fd);
        operation->free(operation);
        return result;
    }
    *ret_operation = operation;
    return 0;
}

int manypath_attach_begin(struct manypath *handle, const struct manypath_attach_request *request,
                          struct manypath_operation **ret_operation, struct manypath_error *err)
{
    struct manypath_operation *operation;
    int result = mp_attach_new(handle, request, &operation, err);

    return result < 0 ? result : submit(handle, operation, ret_operation, err);
}

int manypath_detach_begin(struct manypath *handle, const struct manypath_detach_request *request,
                          struct manypath_operation **ret_operation, struct manypath_error *err)
{
    struct manypath_operation *operation;
    int result = mp_detach_new(handle, request, &operation, err);

    return result < 0 ? result : submit(handle, operation, ret_operation, err);
}

int manypath_extend_begin(struct manypath *handle, const struct manypath_extend_request *request,
                          struct manypath_operation **ret_operation, struct manypath_error *err)
{
    struct manypath_operation *operation;
    int result = mp_extend_new(handle, request, &operation, err);

    return result < 0 ? result : submit(handle, operation, ret_operation, err);
}

int manypath_discover_begin(struct manypath *handle,
                            const struct manypath_discover_request *request,
                            struct manypath_operation **ret_operation, struct manypath_error *err)
{
    struct manypath_operation *operation;
    int result = mp_discover_new(handle, request, &operation, err);

    return result < 0 ? result : submit(handle, operation, ret_operation, err);
}

int manypath_resolve_begin(struct manypath *handle, const char *host, uint32_t timeout_ms,
                           struct manypath_operation **ret_operation, struct manypath_error *err)
{
    struct manypath_operation *operation;
    int result = mp_resolve_new(handle, host, timeout_ms, &operation, err);

    return result < 0 ? result : submit(handle, operation, ret_operation, err);
}

int manypath_operation_fd(const struct manypath_operation *operation)
{
    return operation->event_fd;
}

int manypath_operation_wait(struct manypath_operation *operation, int timeout_ms)
{
    struct pollfd fd = {.fd = operation->event_fd, .events = POLLIN};

    if (atomic_load(&operation->complete))
        return 0;
    int count = poll(&fd, 1, timeout_ms);

    if (count < 0)
        return -errno;
    return count == 0 ? -ETIMEDOUT : 0;
}

void manypath_operation_cancel(struct manypath_operation *operation)
{
    if (!atomic_load(&operation->complete))
        mp_engine_cancel(operation);
}

static void wait_complete(struct manypath_operation *operation)
{
    while (!atomic_load(&operation->complete))
        manypath_operation_wait(operation, -1);
}

int manypath_attach_finish(struct manypath_operation *operation,
                           struct manypath_attachment **ret_attachment,
                           struct manypath_path **ret_paths, size_t *ret_path_count,
                           struct manypath_error *err)
{
    wait_complete(operation);
    int result = mp_attach_result(operation, ret_attachment, ret_paths, ret_path_count, err);

    mp_operation_release(operation);
    return result;
}

int manypath_detach_finish(struct manypath_operation *operation,
                           struct manypath_detachment **ret_detachment, struct manypath_error *err)
{
    wait_complete(operation);
    int result = mp_detach_result(operation, ret_detachment, err);

    mp_operation_release(operation);
    return result;
}

int manypath_extend_finish(struct manypath_operation *operation,
                           struct manypath_extension **ret_extension, struct manypath_error *err)
{
    wait_complete(operation);
    int result = mp_extend_result(operation, ret_extension, err);

    mp_operation_release(operation);
    return result;
}

int manypath_discover_finish(struct manypath_operation *operation,
                             struct manypath_discovery **ret_discovery, struct manypath_error *err)
{
    wait_complete(operation);
    int result = mp_discover_result(operation, ret_discovery, err);

    mp_operation_release(operation);
    return result;
}

int manypath_resolve_finish(struct manypath_operation *operation,
                            struct manypath_addresses **ret_addresses, struct manypath_error *err)
{
    wait_complete(operation);
    int result = mp_resolve_result(operation, ret_addresses, err);

    mp_operation_release(operation);
    return result;
}

void manypath_paths_free(struct manypath_path *paths)
{
    free(paths);
}

void manypath_attachment_free(struct manypath_attachment *attachment)
{
    if (attachment == NULL)
        return;
    mp_warnings_free(attachment->warning_count, attachment->warnings);
    free(attachment->paths);
    free(attachment);
}

void manypath_detachment_free(struct manypath_detachment *detachment)
{
    if (detachment == NULL)
        return;
    mp_warnings_free(detachment->warning_count, detachment->warnings);
    free(detachment->errors);
    free(detachment);
}

void manypath_extension_free(struct manypath_extension *extension)
{
    if (extension == NULL)
        return;
    mp_warnings_free(extension->warning_count, extension->warnings);
    free(extension->paths);
    free(extension);
}
