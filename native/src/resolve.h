/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MP_RESOLVE_H
#define MP_RESOLVE_H

#include "engine.h"
#include "resolver.h"

/* One call of the resolver in a worker. */
struct mp_resolve_job {
    struct mp_job job;
    void *owner;
    char host[MANYPATH_HOST_SIZE];
    uint16_t port;
    struct mp_portal portals[MP_ADDRESSES_MAX];
    size_t count;
    struct manypath_error error; /* code 0: resolved */
};

/* NULL: no thread or memory. `done` owns the job: it frees it. */
struct mp_resolve_job *mp_resolve_start(struct manypath *handle, const char *host, uint16_t port,
                                        void (*done)(struct mp_job *job), void *owner);

int mp_resolve_new(struct manypath *handle, const char *host, uint32_t timeout_ms,
                   struct manypath_operation **ret_operation, struct manypath_error *err);
int mp_resolve_result(struct manypath_operation *operation,
                      struct manypath_addresses **ret_addresses, struct manypath_error *err);

#endif
