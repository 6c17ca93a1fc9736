/* SPDX-License-Identifier: Apache-2.0 */
#include "sendtargets.h"

#include "address.h"
#include "iscsi_text.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
    DEFAULT_PORT = 3260, /* RFC 7143 section 13.8 */
    TAG_MAX = 65535,     /* section 13.9 */
    FIRST_CAPACITY = 16,
};

/* ---- one address ---- */

static bool is_letter_or_digit(char byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
           (byte >= '0' && byte <= '9');
}

static bool is_made_of(const char *text, const char *others)
{
    for (; *text != '\0'; text++)
        if (!is_letter_or_digit(*text) && strchr(others, *text) == NULL)
            return false;
    return true;
}

/* RFC 1123 section 2.1, and '_', which is met in practice. A name whose last label is a number
 * would be a mistyped address: resolvers make strange ones of it. */
static bool is_host_name(const char *text)
{
    const char *dot = strrchr(text, '.');
    const char *last = dot != NULL ? dot + 1 : text;

    return is_letter_or_digit(text[0]) && is_made_of(text, "-._") &&
           strspn(last, "0123456789") < strlen(last);
}

static bool is_wildcard(const struct mp_portal *portal)
{
    static const unsigned char zeros[sizeof portal->address];

    return memcmp(portal->address, zeros, sizeof zeros) == 0;
}

/* A scope ("%eth0") is a name of our host, which a target cannot know. */
static bool put_numeric(const char *literal, char ret_host[MANYPATH_HOST_SIZE])
{
    struct mp_portal portal;

    if (strchr(literal, '%') != NULL || mp_portal_parse(literal, 0, &portal) < 0)
        return false;
    ret_host[0] = '\0';
    if (!is_wildcard(&portal))
        mp_portal_format(&portal, ret_host, MANYPATH_HOST_SIZE);
    return true;
}

static bool put_host(const char *host, bool bracketed, char ret_host[MANYPATH_HOST_SIZE])
{
    if (bracketed)
        return strchr(host, ':') != NULL && put_numeric(host, ret_host);
    if (put_numeric(host, ret_host))
        return true;
    if (!is_host_name(host))
        return false;
    memcpy(ret_host, host, strlen(host) + 1);
    return true;
}

/* Cuts `text` at `separator`. False: no number from `least` to `most` follows. */
static bool cut_number(char *separator, uint64_t least, uint64_t most, uint64_t *ret_number)
{
    uint64_t number;

    *separator = '\0';
    if (!mp_iscsi_number(separator + 1, most, &number) || number < least)
        return false;
    *ret_number = number;
    return true;
}

int mp_target_address_parse(const char *value, struct mp_target_address *ret_address)
{
    struct mp_target_address address = {.tag = -1};
    char text[MP_ISCSI_VALUE_MAX + 1];
    char *host = text;
    uint64_t port = DEFAULT_PORT, tag;
    size_t length = strlen(value);

    if (length >= sizeof text)
        return -EINVAL;
    memcpy(text, value, length + 1);
    char *comma = strchr(text, ',');

    if (comma != NULL) {
        if (!cut_number(comma, 0, TAG_MAX, &tag))
            return -EINVAL;
        address.tag = (int32_t)tag;
    }
    bool bracketed = text[0] == '[';
    char *colon = strchr(text, ':');

    if (bracketed) {
        char *bracket = strchr(++host, ']');

        if (bracket == NULL || (bracket[1] != '\0' && bracket[1] != ':'))
            return -EINVAL;
        *bracket = '\0';
        colon = bracket[1] == ':' ? bracket + 1 : NULL;
    } else if (colon != NULL && strchr(colon + 1, ':') != NULL) {
        colon = NULL; /* IPv6 without the brackets it should have, so without a port */
    }
    if (colon != NULL && !cut_number(colon, 1, UINT16_MAX, &port))
        return -EINVAL;
    if (!put_host(host, bracketed, address.host))
        return -EINVAL;
    address.port = (uint16_t)port;
    *ret_address = address;
    return 0;
}

/* ---- the list ---- */

struct list {
    struct mp_sendtargets result;
    size_t capacity;
    char iqn[MANYPATH_IQN_SIZE]; /* of the record that is read, "" if its name is malformed */
    bool in_record;
    bool has_address; /* the record told one, even if malformed */
};

/* RFC 7143 section 4.2.7, and '_', which is met in practice. */
static bool is_iscsi_name(const char *name)
{
    size_t length = strlen(name);

    return length > 4 && length < MANYPATH_IQN_SIZE && is_made_of(name, "-.:_") &&
           (strncmp(name, "iqn.", 4) == 0 || strncmp(name, "eui.", 4) == 0 ||
            strncmp(name, "naa.", 4) == 0);
}

static int add(struct list *list, const struct mp_target_address *address)
{
    struct mp_sendtargets *result = &list->result;

    if (result->count == MP_SENDTARGETS_MAX)
        return -E2BIG;
    if (result->count == list->capacity) {
        size_t capacity = list->capacity != 0 ? 2 * list->capacity : FIRST_CAPACITY;
        struct manypath_discovered *larger =
            reallocarray(result->targets, capacity, sizeof *larger);

        if (larger == NULL)
            return -ENOMEM;
        result->targets = larger;
        list->capacity = capacity;
    }
    struct manypath_discovered *target = &result->targets[result->count++];

    memcpy(target->iqn, list->iqn, sizeof target->iqn);
    memcpy(target->host, address->host, sizeof target->host);
    target->port = address->port;
    target->tag = address->tag;
    return 0;
}

/* Appendix C: a target without an address is reached where we asked. */
static int end_record(struct list *list)
{
    static const struct mp_target_address here = {.tag = -1};

    return list->in_record && list->iqn[0] != '\0' && !list->has_address ? add(list, &here) : 0;
}

static int begin_record(struct list *list, const char *name)
{
    int result = end_record(list);

    list->in_record = true;
    list->has_address = false;
    memset(list->iqn, 0, sizeof list->iqn);
    if (is_iscsi_name(name))
        memcpy(list->iqn, name, strlen(name));
    else
        list->result.skipped++;
    return result;
}

static int add_address(struct list *list, const char *value)
{
    struct mp_target_address address;

    if (!list->in_record)
        return -EPROTO;
    list->has_address = true;
    if (list->iqn[0] == '\0')
        return 0; /* skipped with its name */
    if (mp_target_address_parse(value, &address) < 0) {
        list->result.skipped++;
        return 0;
    }
    return add(list, &address);
}

static int read_pair(struct list *list, const struct mp_iscsi_pair *pair)
{
    if (mp_iscsi_key_is(pair, "TargetName"))
        return begin_record(list, pair->value);
    if (mp_iscsi_key_is(pair, "TargetAddress"))
        return add_address(list, pair->value);
    if (mp_iscsi_key_is(pair, "SendTargets"))
        return -EOPNOTSUPP; /* Reject, NotUnderstood or Irrelevant */
    return 0;               /* not allowed here, but nothing depends on it */
}

/* ---- duplicates ---- */

static int compare_portals(const struct manypath_discovered *a, const struct manypath_discovered *b)
{
    int order = strcmp(a->iqn, b->iqn);

    if (order == 0)
        order = strcmp(a->host, b->host);
    return order != 0 ? order : (int)a->port - (int)b->port;
}

static int compare(const void *a, const void *b)
{
    const struct manypath_discovered *const *left = a, *const *right = b;
    int order = compare_portals(*left, *right);

    return order != 0 ? order : (*left > *right) - (*left < *right);
}

static bool is_here(const struct manypath_discovered *target)
{
    return target->port == 0;
}

/* The first of equal portals stays, with the first tag told for it. "Where we asked" stays only if
 * no record of that target, before or after, tells an address; it sorts before them. */
static void mark_duplicates(struct manypath_discovered **sorted, size_t count)
{
    struct manypath_discovered *kept = NULL;

    for (size_t i = 0; i < count; i++) {
        struct manypath_discovered *target = sorted[i];

        if (kept == NULL || compare_portals(kept, target) != 0) {
            if (kept != NULL && is_here(kept) && strcmp(kept->iqn, target->iqn) == 0)
                kept->iqn[0] = '\0';
            kept = target;
            continue;
        }
        if (kept->tag < 0)
            kept->tag = target->tag;
        target->iqn[0] = '\0';
    }
}

static int remove_duplicates(struct mp_sendtargets *list)
{
    struct manypath_discovered **sorted = reallocarray(NULL, list->count + 1, sizeof *sorted);
    size_t kept = 0;

    if (sorted == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < list->count; i++)
        sorted[i] = &list->targets[i];
    qsort(sorted, list->count, sizeof *sorted, compare);
    mark_duplicates(sorted, list->count);
    free(sorted);
    for (size_t i = 0; i < list->count; i++)
        if (list->targets[i].iqn[0] != '\0')
            list->targets[kept++] = list->targets[i];
    list->count = kept;
    return 0;
}

int mp_sendtargets_parse(const uint8_t *text, size_t length, struct mp_sendtargets *ret_list)
{
    struct mp_iscsi_text rest = {.at = (const char *)text, .left = length};
    struct list list = {0};
    struct mp_iscsi_pair pair;
    int result;

    while ((result = mp_iscsi_text_next(&rest, &pair)) > 0)
        if ((result = read_pair(&list, &pair)) < 0)
            break;
    if (result == 0)
        result = end_record(&list);
    if (result == 0)
        result = remove_duplicates(&list.result);
    if (result < 0) {
        free(list.result.targets);
        return result;
    }
    *ret_list = list.result;
    return 0;
}
