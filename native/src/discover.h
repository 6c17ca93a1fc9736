/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MP_DISCOVER_H
#define MP_DISCOVER_H

#include "engine.h"

/* Checks and copies the request. The operation is ready to be submitted. */
int mp_discover_new(struct manypath *handle, const struct manypath_discover_request *request,
                    struct manypath_operation **ret_operation, struct manypath_error *err);

/* Moves the result out of a complete operation. */
int mp_discover_result(struct manypath_operation *operation,
                       struct manypath_discovery **ret_discovery, struct manypath_error *err);

#endif
