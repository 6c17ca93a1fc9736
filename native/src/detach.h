/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MP_DETACH_H
#define MP_DETACH_H

#include "engine.h"

int mp_detach_new(struct manypath *handle, const struct manypath_detach_request *request,
                  struct manypath_operation **ret_operation, struct manypath_error *err);

int mp_detach_result(struct manypath_operation *operation,
                     struct manypath_detachment **ret_detachment, struct manypath_error *err);

#endif
