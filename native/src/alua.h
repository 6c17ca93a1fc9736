/* SPDX-License-Identifier: Apache-2.0 */
/* Asymmetric logical unit access (SPC-4 section 5.15): how well a path serves its volume. Pure. */
#ifndef MP_ALUA_H
#define MP_ALUA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* As multipath-tools weighs paths (libmultipath/prioritizers/alua.c), so that a map is grouped as it
 * would group it. Paths about which nothing is known are all alike. */
enum {
    MP_PRIORITY_UNKNOWN = -1,
    MP_PRIORITY_UNUSABLE = 0, /* unavailable, offline, in transition */
    MP_PRIORITY_STANDBY = 1,
    MP_PRIORITY_LBA_DEPENDENT = 5,
    MP_PRIORITY_NON_OPTIMIZED = 10,
    MP_PRIORITY_OPTIMIZED = 50,
    MP_PRIORITY_PREFERRED = 80, /* added to any of a path that can be used but for the best */
};

/* Which target port group the path belongs to, from its VPD page 0x83. -EPROTO: malformed; -ENOENT:
 * it does not say. */
int mp_alua_group_id(const uint8_t *page, size_t length, uint16_t *ret_group);

/* The priority of a group, from what REPORT TARGET PORT GROUPS brought; the header's format is
 * recognised. -EPROTO: malformed; -ENOENT: the group is not in it. */
int mp_alua_priority(const uint8_t *data, size_t length, uint16_t group, int *ret_priority);

/* The priority from the kernel's words in sysfs (access_state, preferred_path). */
int mp_alua_priority_of_words(const char *access_state, bool preferred);

#endif
