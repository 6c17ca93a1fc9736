/* SPDX-License-Identifier: Apache-2.0 */
#include "address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

int mp_portal_parse(const char *literal, uint16_t port, struct mp_portal *ret_portal)
{
    struct mp_portal portal = {.port = port};
    char host[INET6_ADDRSTRLEN];
    const char *scope = strchr(literal, '%');
    size_t length = scope != NULL ? (size_t)(scope - literal) : strlen(literal);

    if (length == 0 || length >= sizeof host)
        return -EINVAL;
    memcpy(host, literal, length);
    host[length] = '\0';
    if (scope == NULL && inet_pton(AF_INET, host, portal.address) == 1) {
        portal.family = AF_INET;
    } else if (inet_pton(AF_INET6, host, portal.address) == 1) {
        struct in6_addr six;

        memcpy(&six, portal.address, sizeof six);
        portal.family = AF_INET6;
        if (scope != NULL) {
            if (!IN6_IS_ADDR_LINKLOCAL(&six))
                return -EINVAL;
            portal.scope_id = if_nametoindex(scope + 1);
            if (portal.scope_id == 0)
                return -EINVAL;
        }
        if (IN6_IS_ADDR_V4MAPPED(&six)) {
            portal.family = AF_INET;
            memmove(portal.address, portal.address + 12, 4);
            memset(portal.address + 4, 0, 12);
        }
    } else {
        return -EINVAL;
    }
    *ret_portal = portal;
    return 0;
}

bool mp_portal_equal(const struct mp_portal *a, const struct mp_portal *b)
{
    return a->family == b->family && a->port == b->port && a->scope_id == b->scope_id &&
           memcmp(a->address, b->address, sizeof a->address) == 0;
}

void mp_portal_format(const struct mp_portal *portal, char *text, size_t size)
{
    char host[INET6_ADDRSTRLEN];
    char scope[IF_NAMESIZE];

    if (inet_ntop(portal->family, portal->address, host, sizeof host) == NULL)
        host[0] = '\0';
    if (portal->scope_id != 0 && if_indextoname(portal->scope_id, scope) != NULL)
        snprintf(text, size, "%s%%%s", host, scope);
    else
        snprintf(text, size, "%s", host);
}

socklen_t mp_portal_sockaddr(const struct mp_portal *portal, struct sockaddr_storage *ret_address)
{
    memset(ret_address, 0, sizeof *ret_address);
    if (portal->family == AF_INET) {
        struct sockaddr_in *four = (struct sockaddr_in *)ret_address;

        four->sin_family = AF_INET;
        four->sin_port = htons(portal->port);
        memcpy(&four->sin_addr, portal->address, sizeof four->sin_addr);
        return sizeof *four;
    }
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)ret_address;

    six->sin6_family = AF_INET6;
    six->sin6_port = htons(portal->port);
    six->sin6_scope_id = portal->scope_id;
    memcpy(&six->sin6_addr, portal->address, sizeof six->sin6_addr);
    return sizeof *six;
}
