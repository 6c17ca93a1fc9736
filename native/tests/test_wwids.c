/* SPDX-License-Identifier: Apache-2.0 */
#include "../src/wwids.h"

#include "../src/text.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>

#include "test.h"
#include "tree.h"

#define ONE "36001405abcdef0123456789abcdeff01"
#define TWO "36001405abcdef0123456789abcdeff02"

enum { SECOND = 1000000000 };

static int add(const char *wwid)
{
    return mp_wwids_add(tree_root, wwid, mp_now_ns() + SECOND);
}

TEST(new_file)
{
    struct stat status;

    tree_begin();
    CHECK_EQ(add(ONE), 0);

    const char *text = tree_text(tree_path("wwids"));
    const char *entry = strstr(text, "\n/" ONE "/\n");

    CHECK(strncmp(text, "# Multipath wwids, Version : 1.0\n", 33) == 0);
    CHECK(entry != NULL && entry[strlen("\n/" ONE "/\n")] == '\0');
    /* all before it is comment */
    for (const char *line = text; entry != NULL && line <= entry; line = strchr(line, '\n') + 1)
        CHECK_EQ(*line, '#');
    CHECK_EQ(stat(tree_path("wwids"), &status), 0);
    CHECK_EQ(status.st_mode & 0777, 0600);
    tree_end();
}

TEST(no_duplicate)
{
    tree_begin();
    tree_file(tree_path("wwids"), "# comment\n/" ONE "/\n");
    CHECK_EQ(add(ONE), 0);
    CHECK_STR(tree_text(tree_path("wwids")), "# comment\n/" ONE "/\n");
    CHECK_EQ(add(TWO), 0);
    CHECK_EQ(add(TWO), 0);
    CHECK_STR(tree_text(tree_path("wwids")), "# comment\n/" ONE "/\n/" TWO "/\n");
    tree_end();
}

TEST(similar_lines)
{
    tree_begin();
    /* a longer one, a shorter one, one that was removed, and one without its newline */
    tree_file(tree_path("wwids"),
              "/" ONE "0/\n/3600/\n#/" ONE "/\n#" ONE "/\nx/" ONE "/\n/" TWO "/");
    CHECK_EQ(add(TWO), 0);
    CHECK_EQ(add("360"), 0);
    CHECK_EQ(add(ONE), 0);
    CHECK_STR(tree_text(tree_path("wwids")), "/" ONE "0/\n/3600/\n#/" ONE "/\n#" ONE "/\nx/" ONE
                                             "/\n/" TWO "/\n/360/\n/" ONE "/\n");
    tree_end();
}

TEST(bad_wwids)
{
    char text[300];

    tree_begin();
    CHECK_EQ(add(""), -EINVAL);
    CHECK_EQ(add("36/00"), -EINVAL);
    CHECK_EQ(add("36\n/x"), -EINVAL);
    CHECK_EQ(add("36\x7f"), -EINVAL);
    memset(text, 'a', sizeof text);
    text[128] = '\0';
    CHECK_EQ(add(text), -EINVAL);
    CHECK_EQ(access(tree_path("wwids"), F_OK), -1);
    text[127] = '\0';
    CHECK_EQ(add(text), 0);
    CHECK_EQ(add("1Vendor_model with_blank \xc3\xa9"), 0);
    tree_end();
}

TEST(missing_directory)
{
    tree_begin();
    CHECK_EQ(mp_wwids_add(tree_path("etc/multipath"), ONE, UINT64_MAX), -ENOENT);
    CHECK_EQ(access(tree_path("etc"), F_OK), -1);
    CHECK_EQ(mp_wwids_add(tree_path("multipath"), ONE, UINT64_MAX), 0);
    CHECK_EQ(access(tree_path("multipath/wwids"), F_OK), 0);
    tree_file(tree_path("file"), "");
    CHECK_EQ(mp_wwids_add(tree_path("file"), ONE, UINT64_MAX), -ENOTDIR);
    tree_end();
}

TEST(lock_held)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    uint64_t before = mp_now_ns();

    tree_begin();
    tree_file(tree_path("wwids"), "");
    int fd = open(tree_path("wwids"), O_RDWR | O_CLOEXEC);

    CHECK_EQ(fcntl(fd, F_OFD_SETLK, &lock), 0);
    CHECK_EQ(mp_wwids_add(tree_root, ONE, mp_now_ns() + SECOND / 20), -ETIMEDOUT);
    CHECK(mp_now_ns() - before >= SECOND / 20);
    CHECK(mp_now_ns() - before < 5ull * SECOND);
    CHECK_EQ(mp_wwids_add(tree_root, ONE, 0), -ETIMEDOUT);
    CHECK_STR(tree_text(tree_path("wwids")), "");
    lock.l_type = F_UNLCK;
    CHECK_EQ(fcntl(fd, F_OFD_SETLK, &lock), 0);
    /* multipath-tools lock with plain POSIX locks: those conflict too */
    lock.l_type = F_WRLCK;
    CHECK_EQ(fcntl(fd, F_SETLK, &lock), 0);
    CHECK_EQ(mp_wwids_add(tree_root, ONE, mp_now_ns() + SECOND / 20), -ETIMEDOUT);
    close(fd);
    CHECK_EQ(mp_wwids_add(tree_root, ONE, 0),
             0); /* free: no waiting, so the deadline does not count */
    tree_end();
}

/* Puts another file in the old one's place and lets go of the old one's lock. */
static void *replace_file(void *argument)
{
    const int *fd = argument;
    char to[PATH_MAX];

    poll(NULL, 0, 30);
    snprintf(to, sizeof to, "%s/wwids", tree_root);
    CHECK_EQ(rename(tree_path("other"), to), 0);
    close(*fd);
    return NULL;
}

TEST(replaced_while_waiting)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    pthread_t thread;

    tree_begin();
    tree_file(tree_path("wwids"), "# old\n");
    tree_file(tree_path("other"), "# new\n");
    int fd = open(tree_path("wwids"), O_RDWR | O_CLOEXEC);

    CHECK_EQ(fcntl(fd, F_OFD_SETLK, &lock), 0);
    pthread_create(&thread, NULL, replace_file, &fd);
    CHECK_EQ(mp_wwids_add(tree_root, ONE, mp_now_ns() + 10ull * SECOND), 0);
    pthread_join(thread, NULL);
    CHECK_STR(tree_text(tree_path("wwids")), "# new\n/" ONE "/\n");
    tree_end();
}

enum { ADDERS = 8, EACH = 20 };

static void *add_many(void *argument)
{
    intptr_t failures = 0;

    (void)argument;
    for (int i = 0; i < EACH; i++) {
        char wwid[40];

        snprintf(wwid, sizeof wwid, "3600%d", i);
        failures += mp_wwids_add(tree_root, wwid, mp_now_ns() + 20ull * SECOND) != 0;
    }
    return (void *)failures;
}

/* Eight threads add the same twenty: each is there once. */
TEST(concurrent)
{
    pthread_t threads[ADDERS];
    unsigned lines = 0;

    tree_begin();
    for (int i = 0; i < ADDERS; i++)
        pthread_create(&threads[i], NULL, add_many, NULL);
    for (int i = 0; i < ADDERS; i++) {
        void *failures;

        pthread_join(threads[i], &failures);
        CHECK(failures == NULL);
    }
    for (const char *at = tree_text(tree_path("wwids")); *at != '\0'; at++)
        lines += at[0] == '\n' && at[1] == '/';
    CHECK_EQ(lines, EACH);
    tree_end();
}

int main(void)
{
    RUN(new_file);
    RUN(no_duplicate);
    RUN(similar_lines);
    RUN(bad_wwids);
    RUN(missing_directory);
    RUN(lock_held);
    RUN(replaced_while_waiting);
    RUN(concurrent);
    return test_end();
}
