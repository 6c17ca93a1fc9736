/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MP_EXTEND_H
#define MP_EXTEND_H

#include "engine.h"

int mp_extend_new(struct manypath *handle, const struct manypath_extend_request *request,
                  struct manypath_operation **ret_operation, struct manypath_error *err);

int mp_extend_result(struct manypath_operation *operation,
                     struct manypath_extension **ret_extension, struct manypath_error *err);

#endif
