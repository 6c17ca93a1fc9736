/* SPDX-License-Identifier: Apache-2.0 */
#include "request.h"

#include "error.h"
#include "text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* RFC 7143 section 4.2.7: iqn., eui. or naa.; 223 bytes. Names are compared byte by byte on the
 * wire and in sysfs, so only the characters that stringprep (RFC 3722) leaves as they are in ASCII
 * are taken. */
const char *mp_iscsi_name_fault(const char *iqn)
{
    size_t length = strlen(iqn);

    if (length == 0)
        return "is empty";
    if (length >= MANYPATH_IQN_SIZE)
        return "is longer than 223 bytes";
    for (size_t i = 0; i < length; i++) {
        char c = iqn[i];
        bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                    strchr("-.:_", c) != NULL;

        if (!good)
            return "has a character other than letters, digits, '-', '.', ':' and '_'";
    }
    if (strncmp(iqn, "iqn.", 4) != 0 && strncmp(iqn, "eui.", 4) != 0 &&
        strncmp(iqn, "naa.", 4) != 0)
        return "does not begin with iqn., eui. or naa.";
    return NULL;
}

int mp_request_portal(const struct manypath_target *target, size_t index,
                      struct mp_portal *ret_portal, struct manypath_error *err)
{
    char shown[64];

    if (target->address == NULL)
        return mp_error(err, MANYPATH_E_INVALID, MANYPATH_PHASE_REQUEST, 0,
                        "target %zu has no address", index);
    if (target->port == 0)
        return mp_error(err, MANYPATH_E_INVALID, MANYPATH_PHASE_REQUEST, 0,
                        "target %zu has port 0; ports are 1 to 65535", index);
    if (mp_portal_parse(target->address, target->port, ret_portal) < 0)
        return mp_error(
            err, MANYPATH_E_INVALID, MANYPATH_PHASE_REQUEST, 0,
            "target %zu: '%s' is not a numeric IPv4 or IPv6 address; resolve host names first",
            index, mp_printable(target->address, shown, sizeof shown));
    return 0;
}

static int check_target(const struct manypath_target *target, size_t index,
                        struct mp_target *ret_target, struct manypath_error *err)
{
    char shown[64];
    const char *fault;
    int result = mp_request_portal(target, index, &ret_target->portal, err);

    if (result < 0)
        return result;
    if (target->iqn == NULL)
        return mp_error(err, MANYPATH_E_INVALID, MANYPATH_PHASE_REQUEST, 0, "target %zu has no iqn",
                        index);
    fault = mp_iscsi_name_fault(target->iqn);
    if (fault != NULL)
        return mp_error(err, MANYPATH_E_INVALID, MANYPATH_PHASE_REQUEST, 0,
                        "target %zu: the iSCSI name '%s' %s", index,
                        mp_printable(target->iqn, shown, sizeof shown), fault);
    if (target->lun > INT64_MAX)
        return mp_error(err, MANYPATH_E_INVALID, MANYPATH_PHASE_REQUEST, 0,
                        "target %zu: LUN %llu is out of range; LUNs are 0 to 2^63-1", index,
                        (unsigned long long)target->lun);
    ret_target->lun = target->lun;
    ret_target->candidate = target->candidate;
    mp_copy(ret_target->iqn, sizeof ret_target->iqn, target->iqn);
    mp_portal_format(&ret_target->portal, ret_target->address, sizeof ret_target->address);
    return 0;
}

static bool same_target(const struct mp_target *a, const struct mp_target *b)
{
    return a->lun == b->lun && mp_portal_equal(&a->portal, &b->portal) &&
           strcmp(a->iqn, b->iqn) == 0;
}

bool mp_targets_overlap(const struct mp_target *a, size_t a_count, const struct mp_target *b,
                        size_t b_count)
{
    for (size_t i = 0; i < a_count; i++)
        for (size_t k = 0; k < b_count; k++)
            if (same_target(&a[i], &b[k]))
                return true;
    return false;
}

int mp_request_targets(const struct manypath_target *targets, size_t count,
                       struct mp_target **ret_targets, size_t *ret_count,
                       struct manypath_error *err)
{
    size_t kept = 0;

    if (targets == NULL || count == 0 || count > MANYPATH_TARGETS_MAX)
        return mp_error(err, MANYPATH_E_INVALID, MANYPATH_PHASE_REQUEST, 0,
                        "%zu targets given; 1 to %d are possible", targets == NULL ? 0 : count,
                        MANYPATH_TARGETS_MAX);
    struct mp_target *list = calloc(count, sizeof *list);

    if (list == NULL)
        return mp_error(err, MANYPATH_E_SYSTEM, MANYPATH_PHASE_REQUEST, ENOMEM, "out of memory");
    for (size_t i = 0; i < count; i++) {
        bool known = false;
        int result = check_target(&targets[i], i, &list[kept], err);

        if (result < 0) {
            free(list);
            return result;
        }
        for (size_t k = 0; k < kept; k++)
            known = known || same_target(&list[k], &list[kept]);
        kept += !known;
    }
    *ret_targets = list;
    *ret_count = kept;
    return 0;
}

int mp_request_timeout(uint32_t timeout_ms, struct manypath_error *err)
{
    if (timeout_ms == 0 || timeout_ms > MANYPATH_TIMEOUT_MAX_MS)
        return mp_error(err, MANYPATH_E_INVALID, MANYPATH_PHASE_REQUEST, 0,
                        "a timeout of %u ms is out of range; 1 ms to 24 h are possible",
                        timeout_ms);
    return 0;
}

int mp_operation_init(struct manypath_operation *operation, struct manypath *handle,
                      uint32_t timeout_ms, struct manypath_error *err)
{
    operation->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (operation->event_fd < 0)
        return mp_error(err, MANYPATH_E_SYSTEM, MANYPATH_PHASE_REQUEST, errno,
                        "cannot make an eventfd: errno %d", errno);
    operation->handle = handle;
    atomic_init(&operation->references, 2);
    atomic_init(&operation->complete, false);
    atomic_init(&operation->cancel_requested, false);
    operation->submit_ns = mp_now_ns();
    operation->deadline_ns = operation->submit_ns + (uint64_t)timeout_ms * 1000000;
    return 0;
}

void mp_warn(struct mp_warnings *warnings, const char *format, ...)
{
    char text[MANYPATH_MESSAGE_SIZE];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    char **texts = realloc(warnings->texts, (warnings->count + 1) * sizeof(*texts));

    if (texts == NULL)
        return;
    warnings->texts = texts;
    texts[warnings->count] = strdup(text);
    warnings->count += texts[warnings->count] != NULL;
}

void mp_warnings_free(size_t count, char **texts)
{
    for (size_t i = 0; i < count; i++)
        free(texts[i]);
    free(texts);
}
