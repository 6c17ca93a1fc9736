/* SPDX-License-Identifier: Apache-2.0 */
#include "resolver.h"

#include "error.h"

#include <netdb.h>
#include <string.h>

bool mp_host_name_ok(const char *host)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.";
    size_t length = strlen(host);

    return length > 0 && length < MANYPATH_HOST_SIZE && host[0] != '-' && host[0] != '.' &&
           strspn(host, allowed) == length;
}

static bool known(const struct mp_portal *portals, size_t count, const struct mp_portal *portal)
{
    for (size_t i = 0; i < count; i++)
        if (mp_portal_equal(&portals[i], portal))
            return true;
    return false;
}

static size_t take(const struct addrinfo *list, uint16_t port, struct mp_portal *ret_portals)
{
    size_t count = 0;

    for (const struct addrinfo *one = list; one != NULL; one = one->ai_next) {
        char literal[MANYPATH_ADDRESS_SIZE];
        struct mp_portal portal;

        if (count < MP_ADDRESSES_MAX &&
            getnameinfo(one->ai_addr, one->ai_addrlen, literal, sizeof literal, NULL, 0,
                        NI_NUMERICHOST) == 0 &&
            mp_portal_parse(literal, port, &portal) == 0 && !known(ret_portals, count, &portal))
            ret_portals[count++] = portal;
    }
    return count;
}

int mp_resolve(const char *host, uint16_t port, struct mp_portal ret_portals[MP_ADDRESSES_MAX],
               size_t *ret_count, struct manypath_error *err)
{
    /* no AI_ADDRCONFIG: it takes ::1 away from a host with IPv6 on lo only */
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    int result = getaddrinfo(host, NULL, &hints, &list);
    size_t count = 0;

    if (result == 0) {
        count = take(list, port, ret_portals);
        freeaddrinfo(list);
        if (count == 0)
            result = EAI_NONAME;
    }
    if (result != 0)
        return mp_error(err, MANYPATH_E_HOST_NAME, MANYPATH_PHASE_RESOLVE, 0,
                        "host name %s cannot be resolved: %s; give a numeric address or mend the "
                        "name service",
                        host, gai_strerror(result));
    *ret_count = count;
    return 0;
}
