/* SPDX-License-Identifier: Apache-2.0 */
#include "alua.h"

#include <errno.h>
#include <string.h>

enum {
    PAGE_DEVICE_IDENTIFICATION = 0x83,
    PAGE_HEADER_SIZE = 4, /* of the page and of each designation descriptor, SPC-4 7.8.6.1 */
    CODE_SET_BINARY = 1,
    ASSOCIATION_PORT = 1,
    TYPE_PORT_GROUP = 5, /* SPC-4 7.8.6.8 */
    PORT_GROUP_LENGTH = 4,

    /* SPC-4 6.36: the parameter data of REPORT TARGET PORT GROUPS */
    LENGTH_SIZE = 4,
    FORMAT_MASK = 0x70,
    FORMAT_EXTENDED = 0x10,
    EXTENDED_SIZE = 8,
    GROUP_SIZE = 8, /* without its ports */
    PORT_SIZE = 4,
    PREFERRED = 0x80,
    STATE_MASK = 0x0f,
};

static unsigned get_16(const uint8_t *bytes)
{
    return (unsigned)bytes[0] << 8 | bytes[1];
}

int mp_alua_group_id(const uint8_t *page, size_t length, uint16_t *ret_group)
{
    if (length < PAGE_HEADER_SIZE || page[1] != PAGE_DEVICE_IDENTIFICATION)
        return -EPROTO;
    size_t end = PAGE_HEADER_SIZE + (size_t)get_16(page + 2);

    if (end > length)
        return -EPROTO;
    for (size_t at = PAGE_HEADER_SIZE; at < end; at += PAGE_HEADER_SIZE + page[at + 3]) {
        const uint8_t *descriptor = page + at;

        if (end - at < PAGE_HEADER_SIZE || end - at - PAGE_HEADER_SIZE < descriptor[3])
            return -EPROTO;
        if ((descriptor[0] & 0x0f) != CODE_SET_BINARY ||
            (descriptor[1] >> 4 & 0x03) != ASSOCIATION_PORT ||
            (descriptor[1] & 0x0f) != TYPE_PORT_GROUP || descriptor[3] != PORT_GROUP_LENGTH)
            continue;
        *ret_group = (uint16_t)get_16(descriptor + PAGE_HEADER_SIZE + 2);
        return 0;
    }
    return -ENOENT;
}

/* The states of SPC-4 table 273, which sysfs has as words (kernel drivers/scsi/scsi_sysfs.c). */
static const struct {
    const char *word;
    uint8_t state;
    int priority;
} states[] = {
    {"active/optimized", 0x0, MP_PRIORITY_OPTIMIZED},
    {"active/non-optimized", 0x1, MP_PRIORITY_NON_OPTIMIZED},
    {"standby", 0x2, MP_PRIORITY_STANDBY},
    {"lba-dependent", 0x4, MP_PRIORITY_LBA_DEPENDENT},
};

/* multipath-tools adds it to paths that cannot be used as well; they would come first. */
static int prefer(int priority, bool preferred)
{
    return preferred && priority > MP_PRIORITY_UNUSABLE && priority < MP_PRIORITY_OPTIMIZED
               ? priority + MP_PRIORITY_PREFERRED
               : priority;
}

static int priority_of_state(uint8_t byte)
{
    for (size_t i = 0; i < sizeof states / sizeof states[0]; i++)
        if (states[i].state == (byte & STATE_MASK))
            return prefer(states[i].priority, (byte & PREFERRED) != 0);
    return MP_PRIORITY_UNUSABLE;
}

int mp_alua_priority_of_words(const char *access_state, bool preferred)
{
    for (size_t i = 0; i < sizeof states / sizeof states[0]; i++)
        if (strcmp(states[i].word, access_state) == 0)
            return prefer(states[i].priority, preferred);
    return access_state[0] == '\0' ? MP_PRIORITY_UNKNOWN : MP_PRIORITY_UNUSABLE;
}

int mp_alua_priority(const uint8_t *data, size_t length, uint16_t group, int *ret_priority)
{
    if (length < LENGTH_SIZE)
        return -EPROTO;
    size_t told = (size_t)get_16(data) << 16 | get_16(data + 2);
    size_t end = told < length - LENGTH_SIZE ? LENGTH_SIZE + told : length; /* may be cut off */
    size_t at = LENGTH_SIZE;

    /* byte 4 is the format, or the state of the first group, whose bits 4 to 6 are reserved */
    if (end > LENGTH_SIZE && (data[LENGTH_SIZE] & FORMAT_MASK) == FORMAT_EXTENDED)
        at = EXTENDED_SIZE;
    while (at < end) {
        const uint8_t *entry = data + at;

        if (end - at < GROUP_SIZE)
            return -EPROTO;
        if (get_16(entry + 2) == group) {
            *ret_priority = priority_of_state(entry[0]);
            return 0;
        }
        at += GROUP_SIZE + (size_t)entry[7] * PORT_SIZE;
    }
    return -ENOENT;
}
