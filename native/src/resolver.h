/* SPDX-License-Identifier: Apache-2.0 */
/* Host names to addresses. Blocks, for as long as the system's resolver likes: call from a worker. */
#ifndef MP_RESOLVER_H
#define MP_RESOLVER_H

#include "address.h"

#include <manypath/manypath.h>
#include <stddef.h>

enum { MP_ADDRESSES_MAX = 16 };

/* Syntax of RFC 1123 section 2.1: letters, digits, '-', '.'. An empty string is none. */
bool mp_host_name_ok(const char *host);

/* In the resolver's order (RFC 6724), without duplicates. A numeric address is resolved to itself. */
int mp_resolve(const char *host, uint16_t port, struct mp_portal ret_portals[MP_ADDRESSES_MAX],
               size_t *ret_count, struct manypath_error *err);

#endif
