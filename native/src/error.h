/* SPDX-License-Identifier: Apache-2.0 */
/* Filling struct manypath_error. */
#ifndef MP_ERROR_H
#define MP_ERROR_H

#include <manypath/manypath.h>

/* Fills `err` (which may be NULL) and returns `code`. sys_errno may be given negative or positive.
 * The message is formatted after the struct was cleared, so arguments must not point into `err`. */
int mp_error(struct manypath_error *err, int code, int phase, int sys_errno, const char *format,
             ...) __attribute__((format(printf, 5, 6)));

#endif
