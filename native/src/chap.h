/* SPDX-License-Identifier: Apache-2.0 */
/* The computing part of CHAP (RFC 1994; RFC 7143 section 12.1.3). Digests are OpenSSL's. */
#ifndef MP_CHAP_H
#define MP_CHAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MP_CHAP_DIGEST_MAX = 32,      /* SHA256 and SHA3-256 */
    MP_CHAP_CHALLENGE_MAX = 1024, /* RFC 7143 section 12.1.3 */
};

/* `algorithm` is one of enum manypath_chap_algorithm; others have size 0 and no name (""). */
size_t mp_chap_digest_size(int32_t algorithm);
const char *mp_chap_algorithm_name(int32_t algorithm);

/* False where policy forbids the digest, as FIPS mode does MD5. */
bool mp_chap_available(int32_t algorithm);

/* digest(id | secret | challenge). -EOPNOTSUPP: not available; -ENOMEM. The caller wipes it. */
int mp_chap_response(int32_t algorithm, uint8_t id, const uint8_t *secret, size_t secret_length,
                     const uint8_t *challenge, size_t challenge_length,
                     uint8_t ret_response[MP_CHAP_DIGEST_MAX]);

/* In constant time. */
bool mp_chap_same_response(const uint8_t *a, const uint8_t *b, size_t length);

/* From the kernel. -EAGAIN: it has gathered none yet, shortly after boot. Weak, so that tests and
 * fuzzing can foresee it. */
int mp_chap_random(void *ret_bytes, size_t length);

#endif
