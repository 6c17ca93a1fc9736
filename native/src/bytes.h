/* SPDX-License-Identifier: Apache-2.0 */
/* A growing byte buffer with a ceiling. What it lets go of it wipes: it may have held CHAP text. */
#ifndef MP_BYTES_H
#define MP_BYTES_H

#include <stddef.h>
#include <stdint.h>

/* Zero-initialise. */
struct mp_bytes {
    uint8_t *data;
    size_t length;
    size_t capacity;
};

/* -EMSGSIZE: it would become longer than `limit`; -ENOMEM. Either way nothing is appended. */
int mp_bytes_append(struct mp_bytes *bytes, const void *data, size_t count, size_t limit);
void mp_bytes_clear(struct mp_bytes *bytes); /* empty, memory kept */
void mp_bytes_free(struct mp_bytes *bytes);

#endif
