/* SPDX-License-Identifier: Apache-2.0 */
/* Portals as values: parsed once, compared as addresses. */
#ifndef MP_ADDRESS_H
#define MP_ADDRESS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct mp_portal {
    sa_family_t family; /* AF_INET or AF_INET6 */
    uint16_t port;      /* host order */
    uint32_t scope_id;  /* link-local IPv6 only */
    unsigned char address[16];
};

/* Parses a numeric literal without brackets; v4-mapped IPv6 becomes IPv4. -EINVAL if it is not one.
 */
int mp_portal_parse(const char *literal, uint16_t port, struct mp_portal *ret_portal);
bool mp_portal_equal(const struct mp_portal *a, const struct mp_portal *b);
/* Canonical literal, as iscsid is given it. `text` holds at least 64 bytes. */
void mp_portal_format(const struct mp_portal *portal, char *text, size_t size);
socklen_t mp_portal_sockaddr(const struct mp_portal *portal, struct sockaddr_storage *ret_address);

#endif
