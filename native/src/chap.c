/* SPDX-License-Identifier: Apache-2.0 */
#include "chap.h"

#include <errno.h>
#include <manypath/manypath.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <sys/random.h>

static const struct algorithm {
    int32_t number;
    const char *name; /* also OpenSSL's */
    size_t size;
} algorithms[] = {
    {MANYPATH_CHAP_MD5, "MD5", 16},
    {MANYPATH_CHAP_SHA1, "SHA1", 20},
    {MANYPATH_CHAP_SHA256, "SHA256", 32},
    {MANYPATH_CHAP_SHA3_256, "SHA3-256", 32},
};

static const struct algorithm *find(int32_t number)
{
    for (size_t i = 0; i < sizeof algorithms / sizeof algorithms[0]; i++)
        if (algorithms[i].number == number)
            return &algorithms[i];
    return NULL;
}

size_t mp_chap_digest_size(int32_t algorithm)
{
    const struct algorithm *found = find(algorithm);

    return found != NULL ? found->size : 0;
}

const char *mp_chap_algorithm_name(int32_t algorithm)
{
    const struct algorithm *found = find(algorithm);

    return found != NULL ? found->name : "";
}

static EVP_MD *fetch(int32_t algorithm)
{
    const struct algorithm *found = find(algorithm);

    return found != NULL ? EVP_MD_fetch(NULL, found->name, NULL) : NULL;
}

bool mp_chap_available(int32_t algorithm)
{
    EVP_MD *digest = fetch(algorithm);
    bool available = digest != NULL;

    EVP_MD_free(digest);
    return available;
}

int mp_chap_response(int32_t algorithm, uint8_t id, const uint8_t *secret, size_t secret_length,
                     const uint8_t *challenge, size_t challenge_length,
                     uint8_t ret_response[MP_CHAP_DIGEST_MAX])
{
    EVP_MD *digest = fetch(algorithm);
    EVP_MD_CTX *context = EVP_MD_CTX_new(); /* OpenSSL wipes it when it is freed */
    int result = 0;

    if (context == NULL)
        result = -ENOMEM;
    else if (digest == NULL || EVP_DigestInit_ex2(context, digest, NULL) != 1 ||
             EVP_DigestUpdate(context, &id, 1) != 1 ||
             EVP_DigestUpdate(context, secret, secret_length) != 1 ||
             EVP_DigestUpdate(context, challenge, challenge_length) != 1 ||
             EVP_DigestFinal_ex(context, ret_response, NULL) != 1)
        result = -EOPNOTSUPP;
    EVP_MD_CTX_free(context);
    EVP_MD_free(digest);
    return result;
}

bool mp_chap_same_response(const uint8_t *a, const uint8_t *b, size_t length)
{
    return CRYPTO_memcmp(a, b, length) == 0;
}

__attribute__((weak)) int mp_chap_random(void *ret_bytes, size_t length)
{
    size_t have = 0;

    while (have < length) {
        ssize_t got = getrandom((char *)ret_bytes + have, length - have, GRND_NONBLOCK);

        if (got >= 0)
            have += (size_t)got;
        else if (errno != EINTR)
            return -errno;
    }
    return 0;
}
