/* SPDX-License-Identifier: Apache-2.0 */
/* Who the caller expects the volume to be. Pure. */
#ifndef MP_WANTED_H
#define MP_WANTED_H

#include "vpd.h"

struct mp_wanted {
    char wwid[MANYPATH_WWID_SIZE]; /* in multipathd's form; "": not checked */
    char serial[MP_SERIAL_SIZE];   /* without blanks around it; "": not checked */
};

/* Takes the request's words, which may be NULL; see struct manypath_attach_request. E_INVALID. */
int mp_wanted_parse(const char *wwid, const char *serial, struct mp_wanted *ret_wanted,
                    struct manypath_error *err);

#endif
