/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One discovery session as bytes in, bytes out: login (with CHAP), SendTargets=All, logout. RFC
 * 7143 sections 6, 9.2.1, 11, 12.1, 13 and appendix C. No descriptors, no clock, no globals.
 * Everything received is hostile: sizes are bounded, and memory grows only with what was received.
 */
#ifndef MP_DISCOVERY_H
#define MP_DISCOVERY_H

#include "secret.h"

#include <manypath/manypath.h>
#include <stddef.h>
#include <stdint.h>

enum mp_discovery_status {
    MP_DISCOVERY_BUSY,       /* send what is in the output, feed what arrives */
    MP_DISCOVERY_REDIRECTED, /* close; start over at the address told, with a new machine */
    MP_DISCOVERY_LISTED,     /* the list is complete; a Logout is in the output, not yet answered */
    MP_DISCOVERY_OVER,       /* listed and logged out: close */
    MP_DISCOVERY_FAILED,     /* close; the error says why */
};

struct mp_discovery_options {
    const char *initiator;      /* our iSCSI name, at most 223 bytes */
    const struct mp_chap *chap; /* NULL: none offered; borrowed until the machine is freed */
    uint32_t isid_qualifier;    /* random: 3 bytes of the ISID, so that no two sessions collide */
};

struct mp_discovery;

/* Its first login request is in the output; or it has FAILED, where this host cannot compute any
 * of the CHAP algorithms wanted. NULL: out of memory. */
struct mp_discovery *mp_discovery_new(const struct mp_discovery_options *options);
void mp_discovery_free(struct mp_discovery *discovery); /* wipes what CHAP left; NULL is allowed */

/* Bytes that wait to be sent; they stay until mp_discovery_sent(). */
size_t mp_discovery_output(const struct mp_discovery *discovery, const uint8_t **ret_bytes);
void mp_discovery_sent(struct mp_discovery *discovery, size_t count);

/* Takes all bytes. Once REDIRECTED, OVER or FAILED it ignores them. */
enum mp_discovery_status mp_discovery_input(struct mp_discovery *discovery, const uint8_t *bytes,
                                            size_t count);
/* The target closed the connection: LISTED becomes OVER, BUSY becomes FAILED. */
enum mp_discovery_status mp_discovery_closed(struct mp_discovery *discovery);
enum mp_discovery_status mp_discovery_status(const struct mp_discovery *discovery);

/* FAILED: code AUTH, LOGIN_REJECTED, LOGIN, PROTOCOL or SYSTEM; phase DISCOVERY; no portal. */
const struct manypath_error *mp_discovery_error(const struct mp_discovery *discovery);
/* REDIRECTED: where to; numeric address without brackets or a host name. */
const char *mp_discovery_redirect(const struct mp_discovery *discovery, uint16_t *ret_port);
/* LISTED and OVER: host "" means the portal that was asked, and port 0 its port. Belongs to the
 * machine. */
const struct manypath_discovered *mp_discovery_targets(const struct mp_discovery *discovery,
                                                       size_t *ret_count);
/* LISTED and OVER: how many entries were left out because their name or address is malformed. */
size_t mp_discovery_skipped(const struct mp_discovery *discovery);

#endif
