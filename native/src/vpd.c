/* SPDX-License-Identifier: Apache-2.0 */
#include "vpd.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

enum {
    PAGE_DEVICE_IDENTIFICATION = 0x83,
    HEADER_SIZE = 4, /* of the page and of each designation descriptor, SPC-4 7.8.6.1 */
    CODE_SET_BINARY = 1,
    ASSOCIATION_LUN = 0,
    TYPE_EUI64 = 2, /* SPC-4 7.8.6.5 */
    TYPE_NAA = 3,   /* SPC-4 7.8.6.6 */
    DESIGNATOR_MAX = 16,
};

struct choice {
    unsigned rank; /* 0: none */
    const uint8_t *bytes;
    size_t length;
    bool ambiguous; /* two different designators of this rank */
};

static unsigned naa_rank(const uint8_t *bytes, size_t length)
{
    if (length < 1)
        return 0;
    switch (bytes[0] >> 4) {
    case 6:
        return length == 16 ? 4 : 0;
    case 5:
        return length == 8 ? 3 : 0;
    case 2:
        return length == 8 ? 2 : 0;
    default:
        return 0;
    }
}

/* 0 unless it names the logical unit in a form that udev and multipathd agree on. */
static unsigned designator_rank(const uint8_t *descriptor)
{
    unsigned code_set = descriptor[0] & 0x0fu;
    unsigned association = descriptor[1] >> 4 & 0x03u;
    unsigned type = descriptor[1] & 0x0fu;
    size_t length = descriptor[3];

    if (code_set != CODE_SET_BINARY || association != ASSOCIATION_LUN)
        return 0;
    if (type == TYPE_NAA)
        return naa_rank(descriptor + HEADER_SIZE, length);
    if (type == TYPE_EUI64 && (length == 8 || length == 12 || length == 16))
        return 1;
    return 0;
}

static void consider(struct choice *choice, const uint8_t *descriptor)
{
    unsigned rank = designator_rank(descriptor);
    const uint8_t *bytes = descriptor + HEADER_SIZE;
    size_t length = descriptor[3];

    if (rank == 0 || rank < choice->rank)
        return;
    if (rank == choice->rank) {
        if (length != choice->length || memcmp(bytes, choice->bytes, length) != 0)
            choice->ambiguous = true;
        return;
    }
    *choice = (struct choice){.rank = rank, .bytes = bytes, .length = length};
}

/* A target that leaves the number empty gives every LUN the same name: no identity at all. */
static bool is_blank(const struct choice *choice)
{
    uint8_t any = choice->rank > 1 ? choice->bytes[0] & 0x0f : choice->bytes[0];

    for (size_t i = 1; i < choice->length; i++)
        any |= choice->bytes[i];
    return any == 0;
}

static void format_wwid(const struct choice *choice, char *text)
{
    static const char digits[] = "0123456789abcdef";

    *text++ =
        choice->rank > 1 ? '3' : '2'; /* the designator type, as scsi_id has always prefixed it */
    for (size_t i = 0; i < choice->length; i++) {
        *text++ = digits[choice->bytes[i] >> 4];
        *text++ = digits[choice->bytes[i] & 0x0f];
    }
    *text = '\0';
}

_Static_assert(1 + 2 * DESIGNATOR_MAX < MANYPATH_WWID_SIZE, "a WWID fits");

int mp_vpd83_wwid(const uint8_t *page, size_t length, char ret_wwid[MANYPATH_WWID_SIZE])
{
    struct choice choice = {0};

    if (length < HEADER_SIZE || page[1] != PAGE_DEVICE_IDENTIFICATION)
        return -EPROTO;
    size_t end = HEADER_SIZE + ((size_t)page[2] << 8 | page[3]);

    if (end > length)
        return -EPROTO;
    for (size_t at = HEADER_SIZE; at < end; at += HEADER_SIZE + page[at + 3]) {
        if (end - at < HEADER_SIZE || end - at - HEADER_SIZE < page[at + 3])
            return -EPROTO;
        consider(&choice, page + at);
    }
    if (choice.rank == 0 || choice.ambiguous || is_blank(&choice))
        return -EOPNOTSUPP;
    format_wwid(&choice, ret_wwid);
    return 0;
}
