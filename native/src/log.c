/* SPDX-License-Identifier: Apache-2.0 */
#include "log.h"

#include <stdarg.h>
#include <stdio.h>

void mp_log(const struct mp_log *log, int level, const char *format, ...)
{
    char message[MANYPATH_MESSAGE_SIZE];
    va_list args;

    if (log->function == NULL || level > log->level)
        return;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    log->function(log->userdata, level, message);
}
