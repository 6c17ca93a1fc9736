/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Discovery: a socket and a deadline around the machine of discovery.c.
 *
 *   CONNECT -> TALK -> LINGER (the caller has the list, the target is told goodbye) -> OVER
 *   TALK -> RESOLVE (redirected to a host name) -> CONNECT
 */
#include "discover.h"

#include "discovery.h"
#include "error.h"
#include "request.h"
#include "resolve.h"
#include "text.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    REDIRECTS_MAX = 8, /* as open-iscsi's login_redirect_max */
    INITIATOR_FILE_BYTES = 16384,
    RECEIVE_BYTES = 16384,
    LOOK_BACK = 64,
};

/* How long the answer to our goodbye is waited for. */
#define LINGER_NS (UINT64_C(1000) * 1000 * 1000)

enum discover_step { STEP_CONNECT, STEP_TALK, STEP_RESOLVE, STEP_LINGER, STEP_OVER };

struct discover {
    struct manypath_operation operation;
    enum discover_step step;
    struct mp_portal portal;
    char address[MANYPATH_ADDRESS_SIZE];
    char initiator[MANYPATH_IQN_SIZE];
    struct mp_chap *chap;
    struct mp_discovery *machine;
    struct mp_source socket;
    struct mp_timer linger;
    struct mp_resolve_job *resolving;
    unsigned redirects;
    struct manypath_discovery *result;
};

/* ---- the end ---- */

static void hang_up(struct discover *discover)
{
    struct manypath *handle = discover->operation.handle;

    mp_engine_disarm(handle, &discover->linger);
    mp_engine_unwatch(handle, &discover->socket);
    mp_discovery_free(discover->machine);
    discover->machine = NULL;
}

static void over(struct discover *discover)
{
    hang_up(discover);
    discover->step = STEP_OVER;
}

static void linger_over(struct mp_timer *timer)
{
    over((struct discover *)((char *)timer - offsetof(struct discover, linger)));
}

__attribute__((format(printf, 4, 5))) static void fail(struct discover *discover, int code,
                                                       int sys_errno, const char *format, ...)
{
    struct manypath_error *error = &discover->operation.error;
    char text[MANYPATH_MESSAGE_SIZE - 128];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    mp_error(error, code, MANYPATH_PHASE_DISCOVERY, sys_errno,
             "discovery through portal %s port %u: %s", discover->address, discover->portal.port,
             text);
    mp_copy(error->address, sizeof error->address, discover->address);
    error->port = discover->portal.port;
    over(discover);
    mp_operation_deliver(&discover->operation);
}

static void fail_connection(struct discover *discover, int sys_errno)
{
    bool silent = sys_errno == ETIMEDOUT;

    fail(discover, silent ? MANYPATH_E_NO_ANSWER : MANYPATH_E_REFUSED, sys_errno, "%s",
         sys_errno == ECONNREFUSED                       ? "the portal refuses connections"
         : silent                                        ? "the portal does not answer"
         : sys_errno == ECONNRESET || sys_errno == EPIPE ? "the target broke off the connection"
                                                         : "the portal cannot be reached");
}

/* ---- the list ---- */

/* The asked portal in place of a wildcard may be there already, among the last ones: entries of one
 * target lie side by side. */
static bool is_known(const struct manypath_discovery *result, const struct manypath_discovered *one)
{
    const struct manypath_discovered *other = one;
    const struct manypath_discovered *last =
        one - result->targets > LOOK_BACK ? one - LOOK_BACK : result->targets;

    while (other-- > last && strcmp(other->iqn, one->iqn) == 0)
        if (other->port == one->port && strcmp(other->host, one->host) == 0)
            return true;
    return false;
}

static bool copy_targets(struct discover *discover)
{
    struct manypath_discovery *result = discover->result;
    size_t count;
    const struct manypath_discovered *targets = mp_discovery_targets(discover->machine, &count);

    result->targets = calloc(count + 1, sizeof *result->targets);
    if (result->targets == NULL)
        return false;
    for (size_t i = 0; i < count; i++) {
        struct manypath_discovered *one = &result->targets[result->target_count];

        *one = targets[i];
        /* the address that was asked (RFC 7143 appendix C), or a wildcard that stands for it */
        if (one->host[0] == '\0')
            mp_copy(one->host, sizeof one->host, discover->address);
        if (one->port == 0)
            one->port = discover->portal.port;
        result->target_count += !is_known(result, one);
    }
    if (mp_discovery_skipped(discover->machine) > 0)
        mp_log(&discover->operation.handle->log, MANYPATH_LOG_WARNING,
               "discovery through portal %s port %u: %zu malformed entries were left out",
               discover->address, discover->portal.port, mp_discovery_skipped(discover->machine));
    mp_copy(result->address, sizeof result->address, discover->address);
    result->port = discover->portal.port;
    result->total_ns = mp_now_ns() - discover->operation.submit_ns;
    return true;
}

static void listed(struct discover *discover)
{
    if (!copy_targets(discover)) {
        fail(discover, MANYPATH_E_SYSTEM, ENOMEM, "out of memory");
        return;
    }
    discover->step = STEP_LINGER;
    mp_engine_arm(discover->operation.handle, &discover->linger, mp_now_ns() + LINGER_NS);
    mp_operation_deliver(&discover->operation);
}

/* ---- redirects ---- */

static void connect_portal(struct discover *discover);

static void go_to(struct discover *discover, const struct mp_portal *portal)
{
    discover->portal = *portal;
    mp_portal_format(portal, discover->address, sizeof discover->address);
    connect_portal(discover);
}

static void resolved(struct mp_job *base)
{
    struct mp_resolve_job *job = (struct mp_resolve_job *)base;
    struct discover *discover = job->owner;

    discover->resolving = NULL;
    if (discover->step == STEP_RESOLVE) {
        if (job->error.code != 0)
            fail(discover, job->error.code, 0, "redirected: %.256s", job->error.message);
        else
            go_to(discover, &job->portals[0]);
    }
    free(job);
}

static void follow(struct discover *discover)
{
    char host[MANYPATH_HOST_SIZE];
    struct mp_portal portal;
    uint16_t port;

    mp_copy(host, sizeof host, mp_discovery_redirect(discover->machine, &port));
    hang_up(discover);
    if (++discover->redirects > REDIRECTS_MAX) {
        fail(discover, MANYPATH_E_PROTOCOL, ELOOP, "redirected more than %d times", REDIRECTS_MAX);
        return;
    }
    if (mp_portal_parse(host, port, &portal) == 0) {
        go_to(discover, &portal);
        return;
    }
    discover->step = STEP_RESOLVE;
    discover->resolving =
        mp_resolve_start(discover->operation.handle, host, port, resolved, discover);
    if (discover->resolving == NULL)
        fail(discover, MANYPATH_E_SYSTEM, EAGAIN, "no thread or memory for resolving %s", host);
}

/* ---- the conversation ---- */

/* True while the conversation goes on. */
static bool heed(struct discover *discover)
{
    const struct manypath_error *error;

    switch (mp_discovery_status(discover->machine)) {
    case MP_DISCOVERY_BUSY:
        return true;
    case MP_DISCOVERY_LISTED:
        if (discover->step == STEP_TALK)
            listed(discover);
        return discover->step == STEP_LINGER;
    case MP_DISCOVERY_REDIRECTED:
        follow(discover);
        return false;
    case MP_DISCOVERY_OVER:
        if (discover->step == STEP_TALK)
            listed(discover);
        over(discover);
        return false;
    case MP_DISCOVERY_FAILED:
        break;
    }
    if (discover->step == STEP_LINGER) { /* the list was complete before */
        over(discover);
        return false;
    }
    error = mp_discovery_error(discover->machine);
    fail(discover, error->code, error->sys_errno, "%.300s", error->message);
    return false;
}

/* The connection is lost, or was closed (sys_errno 0). */
static void lost(struct discover *discover, int sys_errno)
{
    if (discover->step == STEP_LINGER) {
        over(discover);
    } else if (sys_errno == 0) {
        mp_discovery_closed(discover->machine);
        heed(discover);
    } else {
        fail_connection(discover, sys_errno);
    }
}

static bool send_output(struct discover *discover)
{
    const uint8_t *bytes;
    size_t count;

    while ((count = mp_discovery_output(discover->machine, &bytes)) > 0) {
        ssize_t sent = send(discover->socket.fd, bytes, count, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno == EAGAIN)
            break;
        if (sent < 0) {
            lost(discover, errno);
            return false;
        }
        mp_discovery_sent(discover->machine, (size_t)sent);
    }
    mp_engine_rewatch(discover->operation.handle, &discover->socket,
                      count > 0 ? EPOLLIN | EPOLLOUT : EPOLLIN);
    return true;
}

static void talk(struct discover *discover)
{
    uint8_t buffer[RECEIVE_BYTES];

    for (;;) {
        ssize_t length = recv(discover->socket.fd, buffer, sizeof buffer, MSG_DONTWAIT);

        if (length < 0 && errno == EINTR)
            continue;
        if (length < 0 && errno == EAGAIN)
            break;
        if (length <= 0) {
            lost(discover, length < 0 ? errno : 0);
            return;
        }
        mp_discovery_input(discover->machine, buffer, (size_t)length);
        if (!heed(discover))
            return;
        if ((size_t)length < sizeof buffer)
            break; /* level-triggered: told again if there is more; others have their turn */
    }
    send_output(discover);
}

static void socket_ready(struct mp_source *source, uint32_t epoll_events)
{
    struct discover *discover =
        (struct discover *)((char *)source - offsetof(struct discover, socket));
    int error = 0;
    socklen_t size = sizeof error;

    (void)epoll_events;
    if (discover->step == STEP_CONNECT) {
        getsockopt(source->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error != 0) {
            fail_connection(discover, error);
            return;
        }
        discover->step = STEP_TALK;
        send_output(discover);
        return;
    }
    talk(discover);
}

static bool new_machine(struct discover *discover)
{
    struct mp_discovery_options options = {.initiator = discover->initiator,
                                           .chap = discover->chap};

    if (getrandom(&options.isid_qualifier, sizeof options.isid_qualifier, 0) < 0)
        return false;
    discover->machine = mp_discovery_new(&options);
    return discover->machine != NULL;
}

static void connect_portal(struct discover *discover)
{
    struct sockaddr_storage address;
    socklen_t length = mp_portal_sockaddr(&discover->portal, &address);
    struct mp_source *source = &discover->socket;

    discover->step = STEP_CONNECT;
    if (!new_machine(discover)) {
        fail(discover, MANYPATH_E_SYSTEM, ENOMEM, "out of memory");
        return;
    }
    if (!heed(discover)) /* no digest that was wanted can be computed on this host */
        return;
    source->fd = socket(discover->portal.family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (source->fd < 0) {
        fail(discover, MANYPATH_E_SYSTEM, errno, "no socket: errno %d", errno);
        return;
    }
    if (connect(source->fd, (struct sockaddr *)&address, length) < 0 && errno != EINPROGRESS) {
        fail_connection(discover, errno);
        return;
    }
    int result = mp_engine_watch(discover->operation.handle, source, EPOLLIN | EPOLLOUT);

    if (result < 0)
        fail(discover, MANYPATH_E_SYSTEM, result, "epoll: errno %d", -result);
}

/* ---- the operation ---- */

static void discover_begin(struct manypath_operation *operation)
{
    connect_portal((struct discover *)operation);
}

static void discover_cancel(struct manypath_operation *operation, int code)
{
    struct discover *discover = (struct discover *)operation;

    if (discover->resolving != NULL)
        mp_pool_abandon(operation->handle->pool, &discover->resolving->job);
    if (code == MANYPATH_E_CANCELLED)
        fail(discover, code, 0, "the discovery was cancelled");
    else if (discover->step == STEP_CONNECT)
        fail_connection(discover, ETIMEDOUT);
    else
        fail(discover, code, 0, "the timeout passed before the list was complete");
}

static bool discover_idle(const struct manypath_operation *operation)
{
    const struct discover *discover = (const struct discover *)operation;

    return discover->step == STEP_OVER && discover->resolving == NULL;
}

static void discover_free(struct manypath_operation *operation)
{
    struct discover *discover = (struct discover *)operation;

    if (discover->socket.fd >= 0) /* the engine was stopped first */
        close(discover->socket.fd);
    mp_discovery_free(discover->machine);
    mp_chap_release(discover->chap);
    manypath_discovery_free(discover->result);
    free(discover);
}

void manypath_discovery_free(struct manypath_discovery *discovery)
{
    if (discovery == NULL)
        return;
    free(discovery->targets);
    free(discovery);
}

/* ---- the request ---- */

static int read_initiator(const struct mp_host *host, char *ret_name, struct manypath_error *err)
{
    static const char key[] = "InitiatorName=";
    char text[INITIATOR_FILE_BYTES];
    int length = mp_read_file(host->initiator_file, text, sizeof text);

    if (length < 0)
        return mp_error(err, length == -EACCES ? MANYPATH_E_PERMISSION : MANYPATH_E_SYSTEM,
                        MANYPATH_PHASE_REQUEST, length,
                        "cannot read %s (errno %d); run as root, or name the initiator",
                        host->initiator_file, -length);
    for (char *line = text, *next; line != NULL; line = next) {
        next = strchr(line, '\n');
        if (next != NULL)
            *next++ = '\0';
        if (strncmp(line, key, sizeof key - 1) != 0)
            continue;
        line += sizeof key - 1;
        line += strspn(line, " \t");
        line[strcspn(line, " \t\r")] = '\0';
        if (mp_iscsi_name_fault(line) == NULL) {
            mp_copy(ret_name, MANYPATH_IQN_SIZE, line);
            return 0;
        }
        break;
    }
    return mp_error(err, MANYPATH_E_INVALID, MANYPATH_PHASE_REQUEST, 0,
                    "%s has no line InitiatorName= with an iSCSI name", host->initiator_file);
}

static int check_request(struct discover *discover, const struct mp_host *host,
                         const struct manypath_discover_request *request,
                         struct manypath_error *err)
{
    struct manypath_target target = {.address = request->address, .port = request->port};
    int result = mp_request_timeout(request->timeout_ms, err);

    if (result == 0)
        result = mp_request_portal(&target, 0, &discover->portal, err);
    if (result < 0)
        return result;
    mp_portal_format(&discover->portal, discover->address, sizeof discover->address);
    if (request->initiator == NULL) {
        result = read_initiator(host, discover->initiator, err);
    } else if (mp_iscsi_name_fault(request->initiator) != NULL) {
        result = mp_error(err, MANYPATH_E_INVALID, MANYPATH_PHASE_REQUEST, 0,
                          "the initiator's name %s", mp_iscsi_name_fault(request->initiator));
    } else {
        mp_copy(discover->initiator, sizeof discover->initiator, request->initiator);
    }
    if (result == 0)
        result = mp_chap_new(request->chap, &discover->chap, err);
    return result;
}

int mp_discover_new(struct manypath *handle, const struct manypath_discover_request *request,
                    struct manypath_operation **ret_operation, struct manypath_error *err)
{
    struct discover *discover = calloc(1, sizeof *discover);
    int result;

    if (discover == NULL)
        return mp_error(err, MANYPATH_E_SYSTEM, MANYPATH_PHASE_REQUEST, ENOMEM, "out of memory");
    discover->socket.fd = -1;
    discover->socket.ready = socket_ready;
    discover->linger.fire = linger_over;
    discover->result = calloc(1, sizeof *discover->result);
    if (discover->result == NULL)
        result = mp_error(err, MANYPATH_E_SYSTEM, MANYPATH_PHASE_REQUEST, ENOMEM, "out of memory");
    else
        result = check_request(discover, handle->host, request, err);
    if (result == 0)
        result = mp_operation_init(&discover->operation, handle, request->timeout_ms, err);
    if (result < 0) {
        discover_free(&discover->operation);
        return result;
    }
    discover->operation.begin = discover_begin;
    discover->operation.cancel = discover_cancel;
    discover->operation.idle = discover_idle;
    discover->operation.free = discover_free;
    *ret_operation = &discover->operation;
    return 0;
}

int mp_discover_result(struct manypath_operation *operation,
                       struct manypath_discovery **ret_discovery, struct manypath_error *err)
{
    struct discover *discover = (struct discover *)operation;

    if (operation->error.code != 0) {
        if (err != NULL)
            *err = operation->error;
        return operation->error.code;
    }
    *ret_discovery = discover->result;
    discover->result = NULL;
    return 0;
}
