/* SPDX-License-Identifier: Apache-2.0 */
#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    int code;
    const char *name;
    bool retryable;
} codes[] = {
    {MANYPATH_OK, "OK", false},
    {MANYPATH_E_INVALID, "INVALID", false},
    {MANYPATH_E_PERMISSION, "PERMISSION", false},
    {MANYPATH_E_ISCSID_DOWN, "ISCSID_DOWN", true},
    {MANYPATH_E_ISCSID_UNTRUSTED, "ISCSID_UNTRUSTED", false},
    {MANYPATH_E_ISCSID_LAYOUT, "ISCSID_LAYOUT", false},
    {MANYPATH_E_ISCSID_PROTOCOL, "ISCSID_PROTOCOL", true},
    {MANYPATH_E_REFUSED, "REFUSED", true},
    {MANYPATH_E_NO_ANSWER, "NO_ANSWER", true},
    {MANYPATH_E_LOGIN_REJECTED, "LOGIN_REJECTED", false},
    {MANYPATH_E_AUTH, "AUTH", false},
    {MANYPATH_E_LOGIN, "LOGIN", true},
    {MANYPATH_E_SESSION, "SESSION", true},
    {MANYPATH_E_LUN_NOT_FOUND, "LUN_NOT_FOUND", false},
    {MANYPATH_E_DEVICE, "DEVICE", true},
    {MANYPATH_E_IDENTITY, "IDENTITY", false},
    {MANYPATH_E_IN_USE, "IN_USE", true},
    {MANYPATH_E_FLUSH, "FLUSH", true},
    {MANYPATH_E_NO_MULTIPATH, "NO_MULTIPATH", false},
    {MANYPATH_E_MAP, "MAP", true},
    {MANYPATH_E_LOGOUT, "LOGOUT", true},
    {MANYPATH_E_TIMEOUT, "TIMEOUT", true},
    {MANYPATH_E_CANCELLED, "CANCELLED", true},
    {MANYPATH_E_FORKED, "FORKED", false},
    {MANYPATH_E_SYSTEM, "SYSTEM", true},
    {MANYPATH_E_PROTOCOL, "PROTOCOL", false},
    {MANYPATH_E_HOST_NAME, "HOST_NAME", true},
};

static const char *const phases[] = {
    [MANYPATH_PHASE_NONE] = "none",         [MANYPATH_PHASE_REQUEST] = "request",
    [MANYPATH_PHASE_PREPARE] = "prepare",   [MANYPATH_PHASE_LOGIN] = "login",
    [MANYPATH_PHASE_SCAN] = "scan",         [MANYPATH_PHASE_DEVICE] = "device",
    [MANYPATH_PHASE_IDENTITY] = "identity", [MANYPATH_PHASE_MAP] = "map",
    [MANYPATH_PHASE_FLUSH] = "flush",       [MANYPATH_PHASE_UNMAP] = "unmap",
    [MANYPATH_PHASE_DELETE] = "delete",     [MANYPATH_PHASE_LOGOUT] = "logout",
    [MANYPATH_PHASE_RESOLVE] = "resolve",   [MANYPATH_PHASE_DISCOVERY] = "discovery",
    [MANYPATH_PHASE_RESIZE] = "resize",
};

const char *manypath_code_name(int code)
{
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (codes[i].code == code)
            return codes[i].name;
    return "UNKNOWN";
}

const char *manypath_phase_name(int phase)
{
    if (phase < 0 || (size_t)phase >= sizeof phases / sizeof phases[0])
        return "unknown";
    return phases[phase];
}

int mp_error(struct manypath_error *err, int code, int phase, int sys_errno, const char *format,
             ...)
{
    va_list args;

    if (err == NULL)
        return code;
    memset(err, 0, sizeof *err);
    err->code = code;
    err->phase = phase;
    err->sys_errno = abs(sys_errno);
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (codes[i].code == code)
            err->retryable = codes[i].retryable;
    va_start(args, format);
    vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    return code;
}
