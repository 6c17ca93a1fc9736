/* SPDX-License-Identifier: Apache-2.0 */
/* The caller's log callback. Never pass a secret. */
#ifndef MP_LOG_H
#define MP_LOG_H

#include <manypath/manypath.h>

struct mp_log {
    manypath_log_fn function;
    void *userdata;
    int level;
};

void mp_log(const struct mp_log *log, int level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
