/* SPDX-License-Identifier: Apache-2.0 */
/* VPD page 0x83 (SPC-4 section 7.8.6) -> the WWID that udev and multipathd compute, and what else
 * tells one disk from another. Pure: bytes come from the target and are hostile. */
#ifndef MP_VPD_H
#define MP_VPD_H

#include <manypath/manypath.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Picks the designator as multipath-tools and sg3-utils' udev rules do where they agree:
 * logical-unit NAA 6, then NAA 5, then NAA 2, then EUI-64. The result is "3"/"2" + lower-case hex.
 * (facts: other types give different answers in udev and multipathd, so only udev's database can
 * tell.) -EPROTO: truncated or malformed; -EOPNOTSUPP: well formed, but no designator of these
 * types, or two different ones of the type picked (udev keeps the last, multipathd the first);
 * -ENODATA: an empty number, which every LUN of such a target has.
 */
int mp_vpd83_wwid(const uint8_t *page, size_t length, char ret_wwid[MANYPATH_WWID_SIZE]);

enum {
    MP_LUN_NAMES_SIZE = 1024,
    MP_SERIAL_SIZE = 256,
};

/*
 * The designators of the logical unit, as they are in the page, one after the other: two paths to one
 * disk tell the same. Those of ports are left out. -EPROTO: malformed page; -EOVERFLOW: more than
 * `size` bytes.
 */
int mp_vpd83_lun_names(const uint8_t *page, size_t length, uint8_t *ret_names, size_t size,
                       size_t *ret_length);

/*
 * Does udev's ID_SERIAL come from one of these designators? Its first character is the designator's
 * type; udev's helpers write blanks and odd characters in several ways, so only letters and digits
 * are compared, in either case. `names` is what mp_vpd83_lun_names() gave.
 */
bool mp_lun_names_have(const uint8_t *names, size_t length, const char *id_serial);

/* The serial number of page 0x80 (SPC-4 7.8.15), without blanks around it. -EPROTO: malformed, or bytes
 * that are no printable ASCII; -ENODATA: nothing but blanks. */
int mp_vpd80_serial(const uint8_t *page, size_t length, char ret_serial[MP_SERIAL_SIZE]);

#endif
