/* SPDX-License-Identifier: Apache-2.0 */
/* A minimal harness: TEST(name) { CHECK(...); } ... int main(void) { RUN(name); return test_end(); } */
#ifndef MP_TEST_H
#define MP_TEST_H

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static unsigned test_checks, test_failed_checks, test_passed, test_failed;

#define TEST(name) static void test_##name(void)
#define RUN(name) test_run(#name, test_##name)

#define TEST_FAIL(...)                                                                             \
    (test_failed_checks++, printf("%s:%d: ", __FILE__, __LINE__), printf(__VA_ARGS__),             \
     (void)putchar('\n'))

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        test_checks++;                                                                             \
        if (!(condition))                                                                          \
            TEST_FAIL("not true: %s", #condition);                                                 \
    } while (0)

#define CHECK_EQ(got, want)                                                                        \
    do {                                                                                           \
        intmax_t got_ = (intmax_t)(got), want_ = (intmax_t)(want);                                 \
        test_checks++;                                                                             \
        if (got_ != want_)                                                                         \
            TEST_FAIL("%s is %" PRIdMAX ", want %" PRIdMAX, #got, got_, want_);                    \
    } while (0)

#define CHECK_STR(got, want)                                                                       \
    do {                                                                                           \
        const char *got_ = (got), *want_ = (want);                                                 \
        test_checks++;                                                                             \
        if (strcmp(got_, want_) != 0)                                                              \
            TEST_FAIL("%s is \"%s\", want \"%s\"", #got, got_, want_);                             \
    } while (0)

static inline void test_run(const char *name, void (*function)(void))
{
    unsigned checks = test_checks, failed = test_failed_checks;

    function();
    *(failed == test_failed_checks ? &test_passed : &test_failed) += 1;
    printf("%s: %u checks%s\n", name, test_checks - checks,
           failed == test_failed_checks ? "" : " FAILED");
    fflush(stdout);
}

static inline int test_end(void)
{
    printf("%u passed, %u failed\n", test_passed, test_failed);
    return test_failed != 0;
}

#endif
