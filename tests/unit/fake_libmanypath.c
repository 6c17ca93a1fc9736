/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stands in for the C library under _core.pyx. What an operation does is chosen by the first target's iqn:
 *   iqn.fake:ok     succeeds at once        iqn.fake:refuse  is refused by begin
 *   iqn.fake:fail   fails, with paths, or with a detachment if forced
 *   iqn.fake:slow   completes 300 ms later
 *   iqn.fake:stuck  completes only 50 ms after it was cancelled
 * Whatever was handed out and not freed yet is counted, and told as open_count of the inventory's map.
 */
#include <errno.h>
#include <manypath/manypath.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct manypath {
    char dev_root[64];
};

struct manypath_operation {
    char behaviour[16];
    struct manypath_target targets[8];
    size_t target_count;
    uint32_t timeout_ms;
    uint32_t min_paths;
    bool force;
    char request[256]; /* what else was asked for, told as a warning */
    atomic_bool cancelled;
    struct timespec complete_at;
};

static atomic_int live;

static void *make(size_t size)
{
    live++;
    return calloc(1, size);
}

static void drop(void *object)
{
    if (object != NULL)
        live--;
    free(object);
}

static int fail(struct manypath_error *err, int code, int phase, const char *message)
{
    memset(err, 0, sizeof *err);
    err->code = code;
    err->phase = phase;
    err->sys_errno = EIO;
    err->iscsid_code = 8;
    err->retryable = true;
    snprintf(err->address, sizeof err->address, "192.0.2.1");
    err->port = 3260;
    snprintf(err->message, sizeof err->message, "%s", message);
    return code;
}

const char *manypath_phase_name(int phase)
{
    return phase == MANYPATH_PHASE_LOGIN ? "login" : "request";
}

const char *manypath_version(void)
{
    return "0.0.0-fake";
}

int manypath_open(const struct manypath_options *options, struct manypath **ret_handle,
                  struct manypath_error *err)
{
    if (options->logins_in_flight > 32)
        return fail(err, MANYPATH_E_INVALID, MANYPATH_PHASE_REQUEST, "logins_in_flight");
    *ret_handle = make(sizeof **ret_handle);
    snprintf((*ret_handle)->dev_root, sizeof (*ret_handle)->dev_root, "%s",
             options->dev_root == NULL ? "" : options->dev_root);
    return 0;
}

void manypath_close(struct manypath *handle)
{
    drop(handle);
}

static struct timespec after_ms(long milliseconds)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    time.tv_nsec += milliseconds * 1000000;
    time.tv_sec += time.tv_nsec / 1000000000;
    time.tv_nsec %= 1000000000;
    return time;
}

static int begin(const struct manypath_target *targets, size_t count, uint32_t timeout_ms,
                 uint32_t min_paths, struct manypath_operation **ret_operation,
                 struct manypath_error *err)
{
    struct manypath_operation *operation;

    if (count == 0 || count > 8 || strncmp(targets[0].iqn, "iqn.fake:", 9) != 0 ||
        strcmp(targets[0].iqn, "iqn.fake:refuse") == 0)
        return fail(err, MANYPATH_E_INVALID, MANYPATH_PHASE_REQUEST, "refused");
    operation = make(sizeof *operation);
    snprintf(operation->behaviour, sizeof operation->behaviour, "%s", targets[0].iqn + 9);
    for (size_t i = 0; i < count; i++) {
        operation->targets[i] = targets[i];
        operation->targets[i].address = strdup(targets[i].address);
        operation->targets[i].iqn = strdup(targets[i].iqn);
    }
    operation->complete_at = after_ms(strcmp(operation->behaviour, "slow") == 0 ? 300 : 0);
    operation->target_count = count;
    operation->timeout_ms = timeout_ms;
    operation->min_paths = min_paths;
    *ret_operation = operation;
    return 0;
}

/* Of a secret only its length and the sum of its bytes. */
static size_t show_secret(char *text, size_t size, const char *name, const void *secret,
                          size_t length)
{
    const unsigned char *bytes = secret;
    unsigned sum = 0;

    for (size_t i = 0; i < length; i++)
        sum += bytes[i];
    return (size_t)snprintf(text, size, " %s %zu/%u", name != NULL ? name : "-", length, sum);
}

static void show_chap(const struct manypath_chap *chap, char *text, size_t size)
{
    size_t used;

    if (chap == NULL)
        return;
    used = (size_t)snprintf(text, size, "chap");
    used += show_secret(text + used, size - used, chap->username, chap->password,
                        chap->password_length);
    used += show_secret(text + used, size - used, chap->username_in, chap->password_in,
                        chap->password_in_length);
    for (size_t i = 0; i < MANYPATH_CHAP_ALGORITHMS && chap->algorithms[i] != 0; i++)
        used += (size_t)snprintf(text + used, size - used, " %d", chap->algorithms[i]);
}

int manypath_attach_begin(struct manypath *handle, const struct manypath_attach_request *request,
                          struct manypath_operation **ret_operation, struct manypath_error *err)
{
    int rc = begin(request->targets, request->target_count, request->timeout_ms, request->min_paths,
                   ret_operation, err);

    (void)handle;
    if (rc == 0 && (request->wwid != NULL || request->serial != NULL))
        snprintf((*ret_operation)->request, sizeof (*ret_operation)->request, "wwid %s serial %s",
                 request->wwid != NULL ? request->wwid : "-",
                 request->serial != NULL ? request->serial : "-");
    else if (rc == 0 && request->single_path)
        snprintf((*ret_operation)->request, sizeof (*ret_operation)->request, "single path");
    else if (rc == 0)
        show_chap(request->chap, (*ret_operation)->request, sizeof (*ret_operation)->request);
    return rc;
}

int manypath_detach_begin(struct manypath *handle, const struct manypath_detach_request *request,
                          struct manypath_operation **ret_operation, struct manypath_error *err)
{
    int rc = begin(request->targets, request->target_count, request->timeout_ms, 0, ret_operation,
                   err);

    (void)handle;
    if (rc == 0)
        (*ret_operation)->force = request->force;
    if (rc == 0 && request->whole_map)
        snprintf((*ret_operation)->request, sizeof (*ret_operation)->request, "whole map");
    return rc;
}

int manypath_extend_begin(struct manypath *handle, const struct manypath_extend_request *request,
                          struct manypath_operation **ret_operation, struct manypath_error *err)
{
    int rc = begin(request->targets, request->target_count, request->timeout_ms, 0, ret_operation,
                   err);

    (void)handle;
    if (rc == 0)
        snprintf((*ret_operation)->request, sizeof (*ret_operation)->request, "size %llu",
                 (unsigned long long)request->size_bytes);
    return rc;
}

int manypath_operation_wait(struct manypath_operation *operation, int timeout_ms)
{
    if (timeout_ms >= 0)
        abort();
    if (strcmp(operation->behaviour, "stuck") == 0)
        while (!operation->cancelled)
            if (poll(NULL, 0, -1) < 0)
                return -EINTR;
    return -clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &operation->complete_at, NULL);
}

void manypath_operation_cancel(struct manypath_operation *operation)
{
    if (operation->cancelled)
        abort();
    operation->complete_at = after_ms(50);
    operation->cancelled = true;
}

static void fill_paths(struct manypath_operation *operation, struct manypath_path *paths)
{
    for (size_t i = 0; i < operation->target_count; i++) {
        struct manypath_path *path = &paths[i];

        snprintf(path->address, sizeof path->address, "%s", operation->targets[i].address);
        path->port = operation->targets[i].port;
        snprintf(path->iqn, sizeof path->iqn, "%s", operation->targets[i].iqn);
        path->lun = operation->targets[i].lun;
        path->state = (int32_t)(i % 5);
        path->sid = path->host = path->channel = path->target = -1;
        if (operation->targets[i].candidate)
            snprintf(path->iqn, sizeof path->iqn, "iqn.candidate");
        if (path->state == MANYPATH_PATH_FAILED) {
            fail(&path->error, MANYPATH_E_AUTH, MANYPATH_PHASE_LOGIN, "who are you?");
        } else if (path->state == MANYPATH_PATH_ACTIVE) {
            path->sid = 7;
            path->host = 1;
            path->channel = path->target = 0;
            path->session_was_there = true;
            snprintf(path->device, sizeof path->device, "sda");
            path->times.login_begin_ns = 1500000;
            path->times.identity_end_ns = 2500000000;
        }
    }
}

static void free_operation(struct manypath_operation *operation)
{
    for (size_t i = 0; i < operation->target_count; i++) {
        free((void *)(uintptr_t)operation->targets[i].address);
        free((void *)(uintptr_t)operation->targets[i].iqn);
    }
    drop(operation);
}

static char **make_warnings(const struct manypath_operation *operation)
{
    char **warnings = calloc(1, sizeof *warnings);

    warnings[0] =
        strdup(operation->request[0] != '\0' ? operation->request : "not UTF-8: \xff");
    return warnings;
}

int manypath_attach_finish(struct manypath_operation *operation,
                           struct manypath_attachment **ret_attachment,
                           struct manypath_path **ret_paths, size_t *ret_path_count,
                           struct manypath_error *err)
{
    struct manypath_path *paths = make(operation->target_count * sizeof *paths);
    struct manypath_attachment *attachment;
    int rc = 0;

    fill_paths(operation, paths);
    if (operation->cancelled)
        rc = fail(err, MANYPATH_E_CANCELLED, MANYPATH_PHASE_LOGIN, "cancelled");
    else if (strcmp(operation->behaviour, "fail") == 0)
        rc = fail(err, MANYPATH_E_NO_ANSWER, MANYPATH_PHASE_LOGIN, "nobody there");
    if (rc < 0) {
        *ret_paths = paths;
        *ret_path_count = operation->target_count;
    } else {
        attachment = make(sizeof *attachment);
        snprintf(attachment->device, sizeof attachment->device, "dm-%u", operation->min_paths);
        snprintf(attachment->name, sizeof attachment->name, "mpatha");
        snprintf(attachment->wwid, sizeof attachment->wwid, "36001405");
        attachment->size_bytes = (uint64_t)1 << 40;
        attachment->map_was_there = true;
        attachment->path_count = operation->target_count;
        attachment->paths = paths;
        attachment->warning_count = 1;
        attachment->warnings = make_warnings(operation);
        attachment->times.queue_ns = 1000;
        attachment->times.total_ns = operation->timeout_ms * (uint64_t)1000000;
        *ret_attachment = attachment;
    }
    free_operation(operation);
    return rc;
}

int manypath_detach_finish(struct manypath_operation *operation,
                           struct manypath_detachment **ret_detachment, struct manypath_error *err)
{
    int rc = 0;

    if (operation->cancelled)
        rc = fail(err, MANYPATH_E_CANCELLED, MANYPATH_PHASE_LOGIN, "cancelled");
    else if (strcmp(operation->behaviour, "fail") == 0)
        rc = fail(err, MANYPATH_E_IN_USE, MANYPATH_PHASE_LOGIN, "in use");
    if (rc == 0 || operation->force) {
        *ret_detachment = make(sizeof **ret_detachment);
        (*ret_detachment)->flush = rc == 0 ? MANYPATH_FLUSH_DONE : MANYPATH_FLUSH_FAILED;
        (*ret_detachment)->error_count = rc == 0 ? 0 : 2;
        (*ret_detachment)->errors = make(2 * sizeof *(*ret_detachment)->errors);
        if (rc != 0) {
            fail(&(*ret_detachment)->errors[0], MANYPATH_E_IN_USE, MANYPATH_PHASE_LOGIN, "in use");
            fail(&(*ret_detachment)->errors[1], MANYPATH_E_LOGOUT, MANYPATH_PHASE_LOGOUT, "stays");
        }
        (*ret_detachment)->map_removed = true;
        (*ret_detachment)->devices_removed = 4;
        (*ret_detachment)->sessions_removed = 3;
        (*ret_detachment)->sessions_kept = 1;
        (*ret_detachment)->warning_count = 1;
        (*ret_detachment)->warnings = make_warnings(operation);
        (*ret_detachment)->times.flush_ns = 5000000;
    }
    free_operation(operation);
    return rc;
}

int manypath_extend_finish(struct manypath_operation *operation,
                           struct manypath_extension **ret_extension, struct manypath_error *err)
{
    struct manypath_extension *extension;
    int rc = 0;

    if (operation->cancelled)
        rc = fail(err, MANYPATH_E_CANCELLED, MANYPATH_PHASE_LOGIN, "cancelled");
    else if (strcmp(operation->behaviour, "fail") == 0)
        rc = fail(err, MANYPATH_E_DEVICE, MANYPATH_PHASE_LOGIN, "still old");
    if (rc == 0) {
        extension = make(sizeof *extension);
        snprintf(extension->device, sizeof extension->device, "dm-3");
        snprintf(extension->wwid, sizeof extension->wwid, "36001405");
        extension->old_size_bytes = (uint64_t)1 << 40;
        extension->size_bytes = (uint64_t)1 << 41;
        extension->multipathd_running = true;
        extension->path_count = operation->target_count;
        extension->paths = make(operation->target_count * sizeof *extension->paths);
        fill_paths(operation, extension->paths);
        extension->warning_count = 1;
        extension->warnings = make_warnings(operation);
        extension->times.rescan_ns = 5000000;
        extension->times.total_ns = 7000000;
        *ret_extension = extension;
    }
    free_operation(operation);
    return rc;
}

static void free_warnings(char **warnings)
{
    free(warnings[0]);
    free(warnings);
}

void manypath_attachment_free(struct manypath_attachment *attachment)
{
    if (attachment == NULL)
        return;
    free_warnings(attachment->warnings);
    drop(attachment->paths);
    drop(attachment);
}

void manypath_detachment_free(struct manypath_detachment *detachment)
{
    if (detachment == NULL)
        return;
    free_warnings(detachment->warnings);
    drop(detachment->errors);
    drop(detachment);
}

void manypath_extension_free(struct manypath_extension *extension)
{
    if (extension == NULL)
        return;
    free_warnings(extension->warnings);
    drop(extension->paths);
    drop(extension);
}

void manypath_paths_free(struct manypath_path *paths)
{
    drop(paths);
}

int manypath_inventory_read(struct manypath *handle, struct manypath_inventory **ret_inventory,
                            struct manypath_error *err)
{
    static struct manypath_session_info sessions[2] = {
        {.sid = 7, .host = 1, .iqn = "iqn.fake:1", .address = "2001:db8::1", .port = 3260,
         .state = "LOGGED_IN"},
        {.sid = 8, .host = 2, .iqn = "iqn.fake:2", .address = "storage.example", .port = 3260,
         .state = "FAILED"},
    };
    static struct manypath_disk_info disks[2] = {
        {.sid = 7, .host = 1, .channel = 0, .target = 2, .lun = 3, .device = "sda",
         .state = "running", .size_bytes = 512, .map = "dm-0", .path_state = MANYPATH_PATH_ACTIVE},
        {.sid = 8, .host = 2, .device = "sdb", .state = "blocked"},
    };
    static struct manypath_map_info map = {.device = "dm-0", .name = "mpatha", .wwid = "36001405",
                                           .size_bytes = 512, .path_count = 2,
                                           .active_path_count = 1};
    struct manypath_inventory *found;

    if (strcmp(handle->dev_root, "/fail") == 0)
        return fail(err, MANYPATH_E_SYSTEM, MANYPATH_PHASE_PREPARE, "no sysfs");
    map.open_count = (uint32_t)live;
    found = make(sizeof *found);
    found->session_count = found->disk_count = 2;
    found->sessions = sessions;
    found->disks = disks;
    found->map_count = 1;
    found->maps = &map;
    found->maps_known = true;
    *ret_inventory = found;
    return 0;
}

void manypath_inventory_free(struct manypath_inventory *inventory)
{
    drop(inventory);
}

int manypath_discover_begin(struct manypath *handle,
                            const struct manypath_discover_request *request,
                            struct manypath_operation **ret_operation, struct manypath_error *err)
{
    struct manypath_target target = {request->address, request->port, request->initiator, 0, false};
    int rc;

    (void)handle;
    if (target.iqn == NULL)
        target.iqn = "iqn.fake:ok";
    rc = begin(&target, 1, request->timeout_ms, 0, ret_operation, err);
    if (rc == 0)
        show_chap(request->chap, (*ret_operation)->request, sizeof (*ret_operation)->request);
    return rc;
}

int manypath_discover_finish(struct manypath_operation *operation,
                             struct manypath_discovery **ret_discovery, struct manypath_error *err)
{
    static const struct manypath_discovered offered[] = {
        {"iqn.one", "192.0.2.1", 3260, 1},
        {"iqn.one", "2001:db8::2", 3261, -1},
        {"iqn.two", "storage.example.org", 3262, 65535},
    };
    struct manypath_discovery *discovery;
    int rc = 0;

    if (operation->cancelled)
        rc = fail(err, MANYPATH_E_CANCELLED, MANYPATH_PHASE_DISCOVERY, "cancelled");
    else if (strcmp(operation->behaviour, "fail") == 0)
        rc = fail(err, MANYPATH_E_PROTOCOL, MANYPATH_PHASE_DISCOVERY, "nonsense");
    if (rc == 0) {
        discovery = make(sizeof *discovery);
        discovery->target_count = 3;
        discovery->targets = malloc(sizeof offered);
        memcpy(discovery->targets, offered, sizeof offered);
        if (operation->request[0] != '\0') /* so that a test sees what came with the request */
            snprintf(discovery->targets[0].iqn, sizeof discovery->targets[0].iqn, "%.200s",
                     operation->request);
        *ret_discovery = discovery;
    }
    free_operation(operation);
    return rc;
}

void manypath_discovery_free(struct manypath_discovery *discovery)
{
    if (discovery == NULL)
        return;
    free(discovery->targets);
    drop(discovery);
}

int manypath_resolve_begin(struct manypath *handle, const char *host, uint32_t timeout_ms,
                           struct manypath_operation **ret_operation, struct manypath_error *err)
{
    struct manypath_target target = {"192.0.2.1", 1, host, 0, false};

    (void)handle;
    return begin(&target, 1, timeout_ms, 0, ret_operation, err);
}

int manypath_resolve_finish(struct manypath_operation *operation,
                            struct manypath_addresses **ret_addresses, struct manypath_error *err)
{
    struct manypath_addresses *addresses;
    int rc = 0;

    if (operation->cancelled)
        rc = fail(err, MANYPATH_E_CANCELLED, MANYPATH_PHASE_RESOLVE, "cancelled");
    else if (strcmp(operation->behaviour, "fail") == 0)
        rc = fail(err, MANYPATH_E_HOST_NAME, MANYPATH_PHASE_RESOLVE, "no such name");
    if (rc == 0) {
        addresses = make(sizeof *addresses);
        addresses->count = 2;
        addresses->addresses = calloc(2, sizeof *addresses->addresses);
        addresses->addresses[0] = strdup("192.0.2.1");
        addresses->addresses[1] = strdup("2001:db8::1");
        *ret_addresses = addresses;
    }
    free_operation(operation);
    return rc;
}

void manypath_addresses_free(struct manypath_addresses *addresses)
{
    if (addresses == NULL)
        return;
    for (size_t i = 0; i < addresses->count; i++)
        free(addresses->addresses[i]);
    free(addresses->addresses);
    drop(addresses);
}
