/* SPDX-License-Identifier: Apache-2.0 */
/* VPD page 0x83 (SPC-4 section 7.8.6) -> the WWID that udev and multipathd compute. Pure. */
#ifndef MP_VPD_H
#define MP_VPD_H

#include <manypath/manypath.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Picks the designator as multipath-tools and sg3-utils' udev rules do where they agree:
 * logical-unit NAA 6, then NAA 5, then NAA 2, then EUI-64. The result is "3"/"2" + lower-case hex.
 * (facts: other types give different answers in udev and multipathd, so only udev's database can
 * tell.) -EPROTO: truncated or malformed; -EOPNOTSUPP: well formed, but no designator of these
 * types, or two different ones of the type picked (udev keeps the last, multipathd the first), or
 * an empty number.
 */
int mp_vpd83_wwid(const uint8_t *page, size_t length, char ret_wwid[MANYPATH_WWID_SIZE]);

#endif
