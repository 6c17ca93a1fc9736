/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MP_ATTACH_H
#define MP_ATTACH_H

#include "engine.h"

/* Checks and copies the request. The operation is ready to be submitted. */
int mp_attach_new(struct manypath *handle, const struct manypath_attach_request *request,
                  struct manypath_operation **ret_operation, struct manypath_error *err);

/* Moves the result out of a complete operation. */
int mp_attach_result(struct manypath_operation *operation,
                     struct manypath_attachment **ret_attachment, struct manypath_path **ret_paths,
                     size_t *ret_path_count, struct manypath_error *err);

#endif
