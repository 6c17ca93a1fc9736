/* SPDX-License-Identifier: Apache-2.0 */
/* key=value text of Login and Text PDUs (RFC 7143 sections 6.1 and 6.2). Pure. */
#ifndef MP_ISCSI_TEXT_H
#define MP_ISCSI_TEXT_H

#include "bytes.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MP_ISCSI_KEY_MAX = 63,      /* section 6.1, standard-label */
    MP_ISCSI_VALUE_MAX = 255,   /* section 6.1, unless a key says otherwise */
    MP_ISCSI_BINARY_MAX = 1024, /* section 12.1.3: CHAP_C and CHAP_R, decoded */
};

/* ---- writing; errors as mp_bytes_append() ---- */

int mp_iscsi_text_add(struct mp_bytes *text, const char *key, const char *value, size_t limit);
/* As a hex constant, which old targets know best. -EMSGSIZE also above MP_ISCSI_BINARY_MAX. */
int mp_iscsi_text_add_binary(struct mp_bytes *text, const char *key, const uint8_t *value,
                             size_t length, size_t limit);

/* ---- reading ---- */

struct mp_iscsi_text {
    const char *at;
    size_t left;
};

/* Points into the text. The key is not terminated, the value is. */
struct mp_iscsi_pair {
    const char *key;
    size_t key_length; /* 1..MP_ISCSI_KEY_MAX */
    const char *value;
    size_t value_length; /* any: see mp_iscsi_value_fits() */
};

/* 1: the next pair; 0: the end; -EPROTO: not a pair, or not terminated. Superfluous NULs between
 * pairs are skipped. */
int mp_iscsi_text_next(struct mp_iscsi_text *text, struct mp_iscsi_pair *ret_pair);
bool mp_iscsi_key_is(const struct mp_iscsi_pair *pair, const char *key);
/* No longer than the RFC allows for this key. */
bool mp_iscsi_value_fits(const struct mp_iscsi_pair *pair);

/* A whole decimal or hex constant that is at most `max`. */
bool mp_iscsi_number(const char *value, uint64_t max, uint64_t *ret_number);
/* A whole hex or base64 constant of 1..size bytes. ret_bytes is scratch on failure. */
bool mp_iscsi_binary(const char *value, uint8_t *ret_bytes, size_t size, size_t *ret_length);

#endif
