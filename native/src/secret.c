/* SPDX-License-Identifier: Apache-2.0 */
#include "secret.h"

#include "error.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

static int invalid(struct manypath_error *err, const char *what)
{
    return mp_error(err, MANYPATH_E_INVALID, MANYPATH_PHASE_REQUEST, 0, "CHAP %s", what);
}

static bool text_fits(const char *text)
{
    size_t length = text != NULL ? strnlen(text, MANYPATH_CHAP_TEXT_MAX + 1) : 0;

    return length > 0 && length <= MANYPATH_CHAP_TEXT_MAX;
}

static bool secret_fits(const void *secret, size_t length)
{
    return secret != NULL && length > 0 && length <= MANYPATH_CHAP_TEXT_MAX;
}

/* What iscsid would misread or ignore silently: open-iscsi usr/initiator_common.c copies secrets
 * without a bound, and logs in without CHAP when only the target's half is given. */
static int check_names(const struct manypath_chap *chap, struct manypath_error *err)
{
    bool mutual = chap->username_in != NULL || chap->password_in != NULL;

    if (!text_fits(chap->username))
        return invalid(err, "username must have 1 to 255 bytes");
    if (!secret_fits(chap->password, chap->password_length))
        return invalid(err, "password must have 1 to 255 bytes");
    if (!mutual)
        return 0;
    if (!text_fits(chap->username_in))
        return invalid(err, "username_in must have 1 to 255 bytes for mutual authentication");
    if (!secret_fits(chap->password_in, chap->password_in_length))
        return invalid(err, "password_in must have 1 to 255 bytes for mutual authentication");
    if (chap->password_in_length == chap->password_length &&
        memcmp(chap->password_in, chap->password, chap->password_length) == 0)
        return invalid(err, "password_in must differ from password");
    return 0;
}

static int check_algorithms(const struct manypath_chap *chap, size_t *ret_count,
                            struct manypath_error *err)
{
    size_t count = 0;

    while (count < MANYPATH_CHAP_ALGORITHMS && chap->algorithms[count] != 0)
        count++;
    for (size_t i = 0; i < count; i++) {
        int32_t algorithm = chap->algorithms[i];

        if (algorithm < MANYPATH_CHAP_MD5 || algorithm > MANYPATH_CHAP_SHA3_256)
            return mp_error(err, MANYPATH_E_INVALID, MANYPATH_PHASE_REQUEST, 0,
                            "CHAP algorithm %d is not known; 5 (MD5), 6 (SHA1), 7 (SHA256) and 8 "
                            "(SHA3-256) are",
                            algorithm);
        for (size_t k = 0; k < i; k++)
            if (chap->algorithms[k] == algorithm)
                return mp_error(err, MANYPATH_E_INVALID, MANYPATH_PHASE_REQUEST, 0,
                                "CHAP algorithm %d is named twice", algorithm);
    }
    *ret_count = count;
    return 0;
}

int mp_chap_new(const struct manypath_chap *chap, struct mp_chap **ret_chap,
                struct manypath_error *err)
{
    size_t count = 0;

    *ret_chap = NULL;
    if (chap == NULL)
        return 0;
    int result = check_names(chap, err);

    if (result == 0)
        result = check_algorithms(chap, &count, err);
    if (result < 0)
        return result;
    struct mp_chap *copy =
        mmap(NULL, sizeof *copy, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (copy == MAP_FAILED)
        return mp_error(err, MANYPATH_E_SYSTEM, MANYPATH_PHASE_REQUEST, ENOMEM, "out of memory");
    madvise(copy, sizeof *copy, MADV_DONTDUMP);
    madvise(copy, sizeof *copy, MADV_WIPEONFORK); /* a child has no use for it */
    atomic_init(&copy->references, 1);
    strcpy(copy->username, chap->username);
    memcpy(copy->password, chap->password, chap->password_length);
    copy->password_length = chap->password_length;
    if (chap->username_in != NULL) {
        strcpy(copy->username_in, chap->username_in);
        memcpy(copy->password_in, chap->password_in, chap->password_in_length);
        copy->password_in_length = chap->password_in_length;
    }
    copy->algorithm_count = count != 0 ? count : 1;
    copy->algorithms[0] = MANYPATH_CHAP_MD5;
    memcpy(copy->algorithms, chap->algorithms, count * sizeof copy->algorithms[0]);
    *ret_chap = copy;
    return 0;
}

struct mp_chap *mp_chap_hold(struct mp_chap *chap)
{
    if (chap != NULL)
        atomic_fetch_add(&chap->references, 1);
    return chap;
}

void mp_chap_release(struct mp_chap *chap)
{
    if (chap == NULL || atomic_fetch_sub(&chap->references, 1) > 1)
        return;
    explicit_bzero(chap, sizeof *chap);
    munmap(chap, sizeof *chap);
}

bool mp_chap_same(const struct mp_chap *a, const struct mp_chap *b)
{
    /* all of it but the counter; unused bytes are zero */
    const size_t from = offsetof(struct mp_chap, username);

    if (a == NULL || b == NULL)
        return a == b;
    return memcmp((const char *)a + from, (const char *)b + from, sizeof *a - from) == 0;
}
