/* SPDX-License-Identifier: Apache-2.0 */
#include "../src/chap.h"

#include <errno.h>
#include <manypath/manypath.h>

#include "test.h"

static const int32_t algorithms[] = {MANYPATH_CHAP_MD5, MANYPATH_CHAP_SHA1, MANYPATH_CHAP_SHA256,
                                     MANYPATH_CHAP_SHA3_256};
enum { ALGORITHMS = sizeof algorithms / sizeof algorithms[0] };

static const char *response(int32_t algorithm, uint8_t id, const uint8_t *secret,
                            size_t secret_length, const uint8_t *challenge, size_t challenge_length)
{
    static char shown[2 * MP_CHAP_DIGEST_MAX + 1];
    uint8_t bytes[MP_CHAP_DIGEST_MAX];
    size_t size = mp_chap_digest_size(algorithm);

    if (mp_chap_response(algorithm, id, secret, secret_length, challenge, challenge_length, bytes) <
        0)
        return "error";
    for (size_t i = 0; i < size; i++)
        snprintf(shown + 2 * i, 3, "%02x", bytes[i]);
    return shown;
}

/* All wanted values are of Python's hashlib: new(name, bytes([id]) + secret + challenge). */

TEST(usual)
{
    static const char *const want[ALGORITHMS] = {
        "d4a0025e509883e14d0287a5dd493fef",
        "1d6356b517e5901320c15b7c62a374d37335d964",
        "2e6335fa1fa8e58c9d4e9822de136897d94785dc660b638e94f19446a95264ef",
        "29bea890edab7bf66c78a87a4d230607f21f24a661242ae004b43cc8c3d6d202",
    };
    uint8_t challenge[16];

    for (uint8_t i = 0; i < sizeof challenge; i++)
        challenge[i] = i;
    for (size_t i = 0; i < ALGORITHMS; i++)
        CHECK_STR(response(algorithms[i], 0x27, (const uint8_t *)"TopSecret-12345", 15, challenge,
                           sizeof challenge),
                  want[i]);
}

TEST(longest)
{
    static const char *const want[ALGORITHMS] = {
        "93126ed4bc63ec1eacce03ea6702be54",
        "4f9348d974dc3e7f297f280527ebacf19135133b",
        "f90f6aecc8e56012327e98595bd8f264071c69c871a31cda9ad5d0829ae2a2f3",
        "65a241583e7c4ba14d669db313945e627b7bc4b03032c069b4b659f91fec69f7",
    };
    uint8_t secret[MANYPATH_CHAP_TEXT_MAX], challenge[MP_CHAP_CHALLENGE_MAX];

    for (size_t i = 0; i < sizeof secret; i++)
        secret[i] = (uint8_t)i;
    for (size_t i = 0; i < sizeof challenge; i++)
        challenge[i] = (uint8_t)(i % 251);
    for (size_t i = 0; i < ALGORITHMS; i++)
        CHECK_STR(response(algorithms[i], 255, secret, sizeof secret, challenge, sizeof challenge),
                  want[i]);
}

TEST(shortest)
{
    static const char *const want[ALGORITHMS] = {
        "80a99bf1392dae5a773adc7cec57b906",
        "d87b13ea022f80afc3116fabded6e80068e50250",
        "9b51879a7a2752db4a93dfe0b5683e168e712fe051bf0ff60d4c24325b9c2673",
        "1e03ca1443d62a42e2cc729a44c262db2f6a92186b22a7723b35b4653471cae9",
    };

    for (size_t i = 0; i < ALGORITHMS; i++)
        CHECK_STR(
            response(algorithms[i], 0, (const uint8_t *)"xxxxxxxxxxxx", 12, (const uint8_t *)"", 1),
            want[i]);
}

TEST(known)
{
    CHECK_STR(mp_chap_algorithm_name(MANYPATH_CHAP_MD5), "MD5");
    CHECK_STR(mp_chap_algorithm_name(MANYPATH_CHAP_SHA3_256), "SHA3-256");
    CHECK_STR(mp_chap_algorithm_name(4), "");
    CHECK_EQ(mp_chap_digest_size(MANYPATH_CHAP_MD5), 16);
    CHECK_EQ(mp_chap_digest_size(MANYPATH_CHAP_SHA1), 20);
    CHECK_EQ(mp_chap_digest_size(9), 0);
    for (size_t i = 0; i < ALGORITHMS; i++)
        CHECK(mp_chap_available(algorithms[i]));
    CHECK(!mp_chap_available(0));
    CHECK(!mp_chap_available(-1));

    uint8_t bytes[MP_CHAP_DIGEST_MAX];

    CHECK_EQ(mp_chap_response(9, 1, bytes, 0, bytes, 0, bytes), -EOPNOTSUPP);
}

TEST(equality)
{
    CHECK(mp_chap_same_response((const uint8_t *)"abc", (const uint8_t *)"abd", 2));
    CHECK(!mp_chap_same_response((const uint8_t *)"abc", (const uint8_t *)"abd", 3));
    CHECK(!mp_chap_same_response((const uint8_t *)"xbc", (const uint8_t *)"abc", 3));
}

TEST(random_bytes)
{
    static const uint8_t zeros[1024];
    uint8_t first[1024] = {0}, second[1024] = {0};

    CHECK_EQ(mp_chap_random(first, sizeof first), 0);
    CHECK_EQ(mp_chap_random(second, sizeof second), 0);
    CHECK(memcmp(first, second, sizeof first) != 0);
    CHECK(memcmp(first + sizeof first - 32, zeros, 32) != 0); /* to the end */
    CHECK_EQ(mp_chap_random(first, 0), 0);
}

int main(void)
{
    RUN(usual);
    RUN(longest);
    RUN(shortest);
    RUN(known);
    RUN(equality);
    RUN(random_bytes);
    return test_end();
}
