/* SPDX-License-Identifier: Apache-2.0 */
#include "../src/secret.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "test.h"

static struct manypath_error err;
static const void *watched;
static size_t watched_unmapped, watched_dirty;

/* Stands before libc's: the last moment to see whether pages were wiped. */
int munmap(void *address, size_t length)
{
    if (address == watched) {
        watched_unmapped++;
        for (size_t i = 0; i < length; i++)
            watched_dirty += ((const uint8_t *)address)[i] != 0;
    }
    return (int)syscall(SYS_munmap, address, length);
}

static const struct manypath_chap good = {
    .username = "initiator",
    .password = "TopSecret-12345",
    .password_length = 15,
};

/* The message, or "fine". Also proves that no message shows a value. */
static const char *fault(const struct manypath_chap *chap)
{
    struct mp_chap *made = NULL;
    int result = mp_chap_new(chap, &made, &err);

    if (result == 0) {
        mp_chap_release(made);
        return "fine";
    }
    CHECK_EQ(result, MANYPATH_E_INVALID);
    CHECK_EQ(err.phase, MANYPATH_PHASE_REQUEST);
    CHECK(made == NULL);
    CHECK(strstr(err.message, "Secret") == NULL);
    CHECK(strstr(err.message, "TTTT") == NULL);
    return err.message;
}

static bool complains(const struct manypath_chap *chap, const char *about)
{
    const char *message = fault(chap);

    return strstr(message, about) != NULL;
}

TEST(copies)
{
    char username[] = "initiator", password[] = "TopSecret-12345";
    struct manypath_chap chap = {
        .username = username,
        .password = password,
        .password_length = 15,
        .username_in = "target",
        .password_in = "other\0secret",
        .password_in_length = 12,
        .algorithms = {MANYPATH_CHAP_SHA256, MANYPATH_CHAP_MD5},
    };
    struct mp_chap *made = NULL;

    CHECK_EQ(mp_chap_new(&chap, &made, &err), 0);
    memset(username, '?', sizeof username);
    memset(password, '?', sizeof password);
    CHECK_STR(made->username, "initiator");
    CHECK_EQ(made->password_length, 15);
    CHECK(memcmp(made->password, "TopSecret-12345", 15) == 0);
    CHECK_STR(made->username_in, "target");
    CHECK_EQ(made->password_in_length, 12);
    CHECK(memcmp(made->password_in, "other\0secret", 12) == 0);
    CHECK_EQ(made->algorithm_count, 2);
    CHECK_EQ(made->algorithms[0], MANYPATH_CHAP_SHA256);
    CHECK_EQ(made->algorithms[1], MANYPATH_CHAP_MD5);
    mp_chap_release(made);
}

TEST(defaults)
{
    struct mp_chap *made = (struct mp_chap *)&err;

    CHECK_EQ(mp_chap_new(NULL, &made, &err), 0);
    CHECK(made == NULL);
    CHECK(mp_chap_hold(NULL) == NULL);
    mp_chap_release(NULL);
    CHECK_EQ(mp_chap_new(&good, &made, &err), 0);
    CHECK_STR(made->username_in, "");
    CHECK_EQ(made->algorithm_count, 1);
    CHECK_EQ(made->algorithms[0], MANYPATH_CHAP_MD5);
    mp_chap_release(made);
}

/* What iscsid would copy beyond a field, or take for "no authentication". */
TEST(traps)
{
    static char longest[MANYPATH_CHAP_TEXT_MAX + 2];
    struct manypath_chap chap = good;

    memset(longest, 'T', sizeof longest - 1);
    CHECK_STR(fault(&chap), "fine");
    chap.username = NULL;
    CHECK(complains(&chap, "username"));
    chap.username = "";
    CHECK(complains(&chap, "username"));
    chap.username = longest;
    CHECK(complains(&chap, "username"));
    chap.username = longest + 1;
    chap.password = longest;
    chap.password_length = MANYPATH_CHAP_TEXT_MAX;
    CHECK_STR(fault(&chap), "fine");
    chap.password_length++;
    CHECK(complains(&chap, "password"));
    chap.password_length = 0;
    CHECK(complains(&chap, "password"));
    chap = good;
    chap.password = NULL;
    CHECK(complains(&chap, "password"));
}

TEST(mutual_traps)
{
    struct manypath_chap chap = good;

    chap.username_in = "target";
    CHECK(complains(&chap, "password_in"));
    chap.password_in = "target-secret-99";
    CHECK(complains(&chap, "password_in"));
    chap.password_in_length = 16;
    CHECK_STR(fault(&chap), "fine");
    chap.username_in = NULL;
    CHECK(complains(&chap, "username_in"));
    chap.username_in = "";
    CHECK(complains(&chap, "username_in"));
    chap.username_in = "target";
    chap.password_in = "TopSecret-12345";
    chap.password_in_length = 15;
    CHECK(complains(&chap, "differ"));
    chap.password_in_length = 14;
    CHECK_STR(fault(&chap), "fine");
    chap.username = NULL; /* the target's half alone */
    CHECK(complains(&chap, "username"));
}

TEST(algorithm_traps)
{
    struct manypath_chap chap = good;

    for (int i = 0; i < MANYPATH_CHAP_ALGORITHMS; i++)
        chap.algorithms[i] = MANYPATH_CHAP_SHA3_256 - i;
    CHECK_STR(fault(&chap), "fine");
    chap.algorithms[3] = MANYPATH_CHAP_SHA3_256;
    CHECK(complains(&chap, "twice"));
    chap.algorithms[3] = 4;
    CHECK(complains(&chap, "4"));
    chap.algorithms[3] = -1;
    CHECK(complains(&chap, "-1"));
    chap.algorithms[0] = 0; /* ends the list */
    CHECK_STR(fault(&chap), "fine");
}

TEST(sameness)
{
    struct manypath_chap chap = good;
    struct mp_chap *first = NULL, *second = NULL, *other = NULL;

    CHECK_EQ(mp_chap_new(&chap, &first, &err), 0);
    CHECK_EQ(mp_chap_new(&chap, &second, &err), 0);
    chap.password_length = 14;
    CHECK_EQ(mp_chap_new(&chap, &other, &err), 0);
    mp_chap_hold(first);
    CHECK(mp_chap_same(first, second));
    CHECK(!mp_chap_same(first, other));
    CHECK(!mp_chap_same(first, NULL));
    CHECK(mp_chap_same(NULL, NULL));
    mp_chap_release(first);
    mp_chap_release(first);
    mp_chap_release(second);
    mp_chap_release(other);
}

TEST(wiped)
{
    struct mp_chap *made = NULL;

    CHECK_EQ(mp_chap_new(&good, &made, &err), 0);
    watched = made;
    CHECK(mp_chap_hold(made) == made);
    mp_chap_release(made);
    CHECK_EQ(watched_unmapped, 0); /* one reference is left */
    CHECK_STR(made->username, "initiator");
    mp_chap_release(made);
    CHECK_EQ(watched_unmapped, 1);
    CHECK_EQ(watched_dirty, 0);
    watched = NULL;
}

/* The VmFlags of the pages at `address` (kernel Documentation/filesystems/proc.rst). */
static bool flags_of(const void *address, char *ret_flags, size_t size)
{
    FILE *file = fopen("/proc/self/smaps", "re");
    char line[512];
    bool inside = false, found = false;

    while (file != NULL && !found && fgets(line, sizeof line, file) != NULL) {
        char *dash, *end;
        uintptr_t from = strtoul(line, &dash, 16);
        uintptr_t to = *dash == '-' ? strtoul(dash + 1, &end, 16) : 0;

        if (*dash == '-' && *end == ' ')
            inside = (uintptr_t)address >= from && (uintptr_t)address < to;
        found = inside && strncmp(line, "VmFlags:", 8) == 0;
    }
    if (found)
        snprintf(ret_flags, size, "%s", line);
    if (file != NULL)
        fclose(file);
    return found;
}

TEST(kept_from_dumps_and_children)
{
    struct mp_chap *made = NULL;
    char flags[512];

    CHECK_EQ(mp_chap_new(&good, &made, &err), 0);
    CHECK(flags_of(made, flags, sizeof flags));
    CHECK(strstr(flags, " dd") != NULL); /* MADV_DONTDUMP */
    CHECK(strstr(flags, " wf") != NULL); /* MADV_WIPEONFORK */
    CHECK(flags_of(&good, flags, sizeof flags));
    CHECK(strstr(flags, " dd") == NULL);
    mp_chap_release(made);
}

int main(void)
{
    RUN(copies);
    RUN(defaults);
    RUN(traps);
    RUN(mutual_traps);
    RUN(algorithm_traps);
    RUN(sameness);
    RUN(wiped);
    RUN(kept_from_dumps_and_children);
    return test_end();
}
