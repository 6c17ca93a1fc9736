/* SPDX-License-Identifier: Apache-2.0 */
/* Attach: what all parts of it use. */
#include "attach_state.h"

#include "text.h"

#include <stdarg.h>
#include <stdio.h>

uint64_t mp_attach_since_begin(const struct mp_attach *attach)
{
    return mp_now_ns() - attach->operation.begin_ns;
}

void mp_attach_warn(struct mp_attach *attach, const char *format, ...)
{
    char text[MANYPATH_MESSAGE_SIZE];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    mp_log(&attach->operation.handle->log, MANYPATH_LOG_WARNING, "%s", text);
    if (!attach->operation.delivered)
        mp_warn(&attach->warnings, "%s", text);
}
