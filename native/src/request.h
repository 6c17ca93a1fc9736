/* SPDX-License-Identifier: Apache-2.0 */
/* What attach, detach and extend have in common: checking the targets of a request, and operations
 * as such. */
#ifndef MP_REQUEST_H
#define MP_REQUEST_H

#include "address.h"
#include "engine.h"

struct mp_target {
    struct mp_portal portal;
    char address[MANYPATH_ADDRESS_SIZE]; /* canonical */
    char iqn[MANYPATH_IQN_SIZE];
    uint64_t lun;
    bool candidate; /* perhaps another volume */
};

/* Checks every target; duplicates collapse. *ret_targets is malloc'ed. */
int mp_request_targets(const struct manypath_target *targets, size_t count,
                       struct mp_target **ret_targets, size_t *ret_count,
                       struct manypath_error *err);
/* The portal of a target alone; `index` is for the message. */
int mp_request_portal(const struct manypath_target *target, size_t index,
                      struct mp_portal *ret_portal, struct manypath_error *err);
/* What is wrong with an iSCSI name, as the end of a sentence; NULL: nothing. */
const char *mp_iscsi_name_fault(const char *name);
/* Is a LUN in both? */
bool mp_targets_overlap(const struct mp_target *a, size_t a_count, const struct mp_target *b,
                        size_t b_count);
int mp_request_timeout(uint32_t timeout_ms, struct manypath_error *err);

/* Initialises the common part: eventfd, references, deadline. */
int mp_operation_init(struct manypath_operation *operation, struct manypath *handle,
                      uint32_t timeout_ms, struct manypath_error *err);

/* A list of sentences for the caller. A warning that cannot be stored is lost. */
struct mp_warnings {
    size_t count;
    char **texts;
};

void mp_warn(struct mp_warnings *warnings, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void mp_warnings_free(size_t count, char **texts);

#endif
