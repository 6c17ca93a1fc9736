/* SPDX-License-Identifier: Apache-2.0 */
/* What udev knows of a block device: its database, one small text file for each device. */
#ifndef MP_UDEVDB_H
#define MP_UDEVDB_H

#include <manypath/manypath.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct mp_udevdb {
    char id_serial[MANYPATH_WWID_SIZE]; /* the WWID for multipathd; "": none */
    uint64_t initialized_us; /* CLOCK_MONOTONIC when udev first saw the device; 0: not yet */
};

/* Lines "E:KEY=value" and "I:microseconds"; the rest is passed over. -EPROTO: an ID_SERIAL that is too
 * long, or has characters that are not allowed in the name and uuid of a map. */
int mp_udevdb_parse(const char *text, size_t length, struct mp_udevdb *ret_entry);

/* <folder>/b<major>:<minor>. -ENOENT: udev has not seen the device. */
int mp_udevdb_read(const char *folder, dev_t dev, struct mp_udevdb *ret_entry);

#endif
