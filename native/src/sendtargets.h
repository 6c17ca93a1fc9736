/* SPDX-License-Identifier: Apache-2.0 */
/* The answer to SendTargets (RFC 7143 appendix C, sections 13.4 and 13.8) as a list. Pure. */
#ifndef MP_SENDTARGETS_H
#define MP_SENDTARGETS_H

#include <manypath/manypath.h>
#include <stddef.h>
#include <stdint.h>

/* Far above what arrays have, and a bound on what a hostile one can make us keep. */
enum { MP_SENDTARGETS_MAX = 16384 };

/* A TargetAddress. `host` is a numeric address in canonical form without brackets, a host name, or
 * "" if the target told the wildcard address it listens on: then the portal asked is meant, with
 * this port. */
struct mp_target_address {
    char host[MANYPATH_HOST_SIZE];
    uint16_t port;
    int32_t tag; /* portal group tag, -1: not told */
};

/* host[:port][,tag]. -EINVAL: it is none. */
int mp_target_address_parse(const char *value, struct mp_target_address *ret_address);

struct mp_sendtargets {
    struct manypath_discovered *targets; /* free() */
    size_t count;
    size_t skipped; /* entries with a name or an address that is none */
};

/*
 * In the target's order. What was told twice, with whatever tag, is there once. A target without
 * any address has host "" and port 0: the portal asked. Malformed names and addresses are skipped,
 * the rest is kept. -EPROTO: the text as such is broken; -EOPNOTSUPP: the target refuses the
 * question; -E2BIG: more than MP_SENDTARGETS_MAX entries; -ENOMEM.
 */
int mp_sendtargets_parse(const uint8_t *text, size_t length, struct mp_sendtargets *ret_list);

#endif
