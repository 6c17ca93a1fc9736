/* SPDX-License-Identifier: Apache-2.0 */
/* CHAP credentials: the one place where secrets live. */
#ifndef MP_SECRET_H
#define MP_SECRET_H

#include <manypath/manypath.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Never changed after creation, shared by reference. Lies in pages of its own, which are left out of
 * core dumps and wiped when the last reference goes. */
struct mp_chap {
    atomic_int references;
    char username[MANYPATH_CHAP_TEXT_MAX + 1];
    uint8_t password[MANYPATH_CHAP_TEXT_MAX];
    size_t password_length;
    char username_in[MANYPATH_CHAP_TEXT_MAX + 1]; /* "": not mutual */
    uint8_t password_in[MANYPATH_CHAP_TEXT_MAX];
    size_t password_in_length;
    size_t algorithm_count; /* at least 1 */
    int32_t algorithms[MANYPATH_CHAP_ALGORITHMS];
};

/* Checks and copies. `chap` NULL: *ret_chap is NULL. Messages name the field, never its value. */
int mp_chap_new(const struct manypath_chap *chap, struct mp_chap **ret_chap,
                struct manypath_error *err);
struct mp_chap *mp_chap_hold(struct mp_chap *chap); /* NULL is allowed, here and below */
void mp_chap_release(struct mp_chap *chap);
bool mp_chap_same(const struct mp_chap *a, const struct mp_chap *b);

#endif
