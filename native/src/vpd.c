/* SPDX-License-Identifier: Apache-2.0 */
#include "vpd.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

enum {
    PAGE_SERIAL_NUMBER = 0x80,
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

/* Where the page's content ends; 0: malformed. */
static size_t page_end(const uint8_t *page, size_t length, uint8_t code)
{
    if (length < HEADER_SIZE || page[1] != code)
        return 0;
    size_t end = HEADER_SIZE + ((size_t)page[2] << 8 | page[3]);

    return end <= length ? end : 0;
}

/* The size of the designation descriptor at `at`, header included; 0: it runs beyond the end. */
static size_t descriptor_size(const uint8_t *bytes, size_t at, size_t end)
{
    if (end - at < HEADER_SIZE || end - at - HEADER_SIZE < bytes[at + 3])
        return 0;
    return HEADER_SIZE + (size_t)bytes[at + 3];
}

int mp_vpd83_wwid(const uint8_t *page, size_t length, char ret_wwid[MANYPATH_WWID_SIZE])
{
    struct choice choice = {0};
    size_t end = page_end(page, length, PAGE_DEVICE_IDENTIFICATION);
    size_t size;

    if (end == 0)
        return -EPROTO;
    for (size_t at = HEADER_SIZE; at < end; at += size) {
        size = descriptor_size(page, at, end);
        if (size == 0)
            return -EPROTO;
        consider(&choice, page + at);
    }
    if (choice.rank == 0 || choice.ambiguous)
        return -EOPNOTSUPP;
    if (is_blank(&choice))
        return -ENODATA;
    format_wwid(&choice, ret_wwid);
    return 0;
}

int mp_vpd83_lun_names(const uint8_t *page, size_t length, uint8_t *ret_names, size_t size,
                       size_t *ret_length)
{
    size_t end = page_end(page, length, PAGE_DEVICE_IDENTIFICATION);
    size_t used = 0;
    size_t one;

    if (end == 0)
        return -EPROTO;
    for (size_t at = HEADER_SIZE; at < end; at += one) {
        one = descriptor_size(page, at, end);
        if (one == 0)
            return -EPROTO;
        if ((page[at + 1] >> 4 & 0x03u) != ASSOCIATION_LUN)
            continue;
        if (one > size - used)
            return -EOVERFLOW;
        memcpy(ret_names + used, page + at, one);
        used += one;
    }
    *ret_length = used;
    return 0;
}

/* Letters and digits, in lower case; '\0': not one. */
static char plain(char c)
{
    if (c >= 'A' && c <= 'Z')
        return (char)(c - 'A' + 'a');
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ? c : '\0';
}

/* The designator's letters and digits are those of `text`, all of them, and there are some. */
static bool says(const uint8_t *descriptor, const char *text)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *bytes = descriptor + HEADER_SIZE;
    bool binary = (descriptor[0] & 0x0fu) == CODE_SET_BINARY;
    size_t count = (size_t)descriptor[3] * (binary ? 2 : 1);
    bool any = false;

    for (size_t i = 0; i < count; i++) {
        char c = binary ? digits[i % 2 == 0 ? bytes[i / 2] >> 4 : bytes[i / 2] & 0x0f]
                        : plain((char)bytes[i]);

        if (c == '\0')
            continue;
        any = any || c != '0'; /* an empty number says nothing */
        while (*text != '\0' && plain(*text) == '\0')
            text++;
        if (plain(*text) != c)
            return false;
        text++;
    }
    while (*text != '\0' && plain(*text) == '\0')
        text++;
    return any && *text == '\0';
}

bool mp_lun_names_have(const uint8_t *names, size_t length, const char *id_serial)
{
    size_t size;

    if (id_serial[0] == '\0')
        return false;
    for (size_t at = 0; at < length; at += size) {
        size = descriptor_size(names, at, length);
        if (size == 0)
            return false;
        if (id_serial[0] == '0' + (names[at + 1] & 0x0f) && says(names + at, id_serial + 1))
            return true;
    }
    return false;
}

int mp_vpd80_serial(const uint8_t *page, size_t length, char ret_serial[MP_SERIAL_SIZE])
{
    size_t end = page_end(page, length, PAGE_SERIAL_NUMBER);
    size_t begin = HEADER_SIZE;

    if (end == 0 || end - HEADER_SIZE >= MP_SERIAL_SIZE)
        return -EPROTO;
    /* targets fill up with NUL bytes as well */
    while (end > begin && (page[end - 1] == ' ' || page[end - 1] == '\0'))
        end--;
    while (begin < end && page[begin] == ' ')
        begin++;
    for (size_t i = begin; i < end; i++)
        if (page[i] < ' ' || page[i] > '~')
            return -EPROTO;
    if (begin == end)
        return -ENODATA;
    memcpy(ret_serial, page + begin, end - begin);
    ret_serial[end - begin] = '\0';
    return 0;
}
