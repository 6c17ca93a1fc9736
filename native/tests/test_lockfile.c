/* SPDX-License-Identifier: Apache-2.0 */
#include "../src/lockfile.h"

#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "test.h"
#include "tree.h"

#define KEY "session-10.0.0.1-3260-iqn.2010-10.org.example:vol"

static char directory[PATH_MAX];

static void begin(void)
{
    tree_begin();
    snprintf(directory, sizeof directory, "%s", tree_path("locks"));
}

static int take(bool exclusive, int *fd)
{
    return mp_lockfile_take(directory, KEY, exclusive, fd);
}

static void drop(int fd)
{
    mp_lockfile_drop(directory, KEY, fd);
}

static bool there(void)
{
    return access(tree_path("locks/" KEY), F_OK) == 0;
}

/* Another process that takes the lock and keeps it until it dies. */
static pid_t other_process(bool exclusive)
{
    int sockets[2];
    char byte = 0;

    tree_must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) == 0, "socketpair");
    pid_t pid = fork();

    tree_must(pid >= 0, "fork");
    if (pid == 0) {
        int fd = -1;

        byte = take(exclusive, &fd) == 0;
        tree_must(write(sockets[1], &byte, 1) == 1, "write");
        for (;;)
            pause();
    }
    tree_must(read(sockets[0], &byte, 1) == 1, "read");
    CHECK_EQ(byte, 1);
    close(sockets[0]);
    close(sockets[1]);
    return pid;
}

static void kill_and_wait(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

TEST(free_lock)
{
    struct stat status;
    int fd = -1;

    begin();
    CHECK_EQ(take(true, &fd), 0);
    CHECK_EQ(stat(directory, &status), 0);
    CHECK_EQ(status.st_mode & 0777, 0700);
    CHECK(there());
    CHECK_EQ(mp_lockfile_owner(fd), getpid());
    drop(fd);
    CHECK(!there());
    tree_end();
}

TEST(two_descriptors_of_one_process)
{
    int one = -1, two = -1, three = -1;

    begin();
    CHECK_EQ(take(false, &one), 0);
    CHECK_EQ(take(false, &two), 0);
    CHECK_EQ(take(true, &three), -EAGAIN);
    CHECK_EQ(mp_lockfile_owner(three), getpid());
    drop(one);
    CHECK(there()); /* the other one has it */
    CHECK_EQ(take(true, &three), -EAGAIN);
    drop(two);
    CHECK(!there());
    CHECK_EQ(take(true, &three), 0); /* and that makes it anew */
    CHECK(there());
    drop(three);
    CHECK(!there());
    tree_end();
}

TEST(changing_a_lock)
{
    int one = -1, two = -1;

    begin();
    CHECK_EQ(take(true, &one), 0);
    CHECK_EQ(take(false, &two), -EAGAIN);
    CHECK_EQ(take(false, &one), 0); /* downgraded */
    CHECK_EQ(take(false, &two), 0);
    CHECK_EQ(take(true, &one), -EAGAIN);
    CHECK_EQ(take(true, &two), -EAGAIN); /* both are stuck: who wants more must let go before */
    mp_lockfile_unlock(one);
    CHECK_EQ(take(true, &two), 0);
    CHECK_EQ(take(true, &one), -EAGAIN);
    drop(two);
    CHECK_EQ(take(true, &one), 0);
    drop(one);
    tree_end();
}

TEST(two_processes)
{
    int fd = -1;

    begin();
    pid_t pid = other_process(true);

    CHECK_EQ(take(false, &fd), -EAGAIN);
    CHECK_EQ(mp_lockfile_owner(fd), pid);
    kill_and_wait(pid);
    CHECK_EQ(take(true, &fd), 0);
    CHECK_EQ(mp_lockfile_owner(fd), getpid());
    drop(fd);
    CHECK(!there());

    pid = other_process(false);
    fd = -1;
    CHECK_EQ(take(true, &fd), -EAGAIN);
    CHECK_EQ(take(false, &fd), 0);
    drop(fd);
    CHECK(there());
    kill_and_wait(pid);
    tree_end();
}

/* A child of the host program has copies of its descriptors, for as long as it lives. */
TEST(forked_child_keeps_nothing)
{
    int fd = -1, again = -1;

    begin();
    CHECK_EQ(take(false, &fd), 0);
    CHECK_EQ(take(false, &again), 0); /* so that the file stays */
    pid_t pid = fork();

    if (pid == 0)
        for (;;)
            pause();
    drop(fd);
    CHECK_EQ(take(true, &again), 0);
    drop(again);
    kill_and_wait(pid);
    tree_end();
}

struct child {
    pid_t pid;
    bool closed; /* the lock files that its parent had open */
    bool locks;  /* one of its own */
};

/* Dies with the lock in hand, and leaves a child that lives on. */
static void holder_that_forks(int report)
{
    int held = -1, waiting = -1, dropped = -1, own = -1;

    tree_must(take(true, &held) == 0 && take(true, &waiting) == -EAGAIN, "take");
    tree_must(mp_lockfile_take(directory, "dropped", true, &dropped) == 0, "take");
    mp_lockfile_drop(directory, "dropped", dropped);
    tree_must(dup2(report, dropped) == dropped, "dup2"); /* that number is no lock file any more */
    if (fork() == 0) {
        struct child child = {.pid = getpid()};

        child.closed = fcntl(held, F_GETFD) < 0 && fcntl(waiting, F_GETFD) < 0;
        child.locks = mp_lockfile_take(directory, "own", true, &own) == 0;
        tree_must(write(dropped, &child, sizeof child) == sizeof child, "write");
    }
    for (;;)
        pause();
}

TEST(forked_child_outlives_the_holder)
{
    struct child child;
    int sockets[2];
    int fd = -1;

    begin();
    tree_must(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) == 0, "socketpair");
    pid_t holder = fork();

    if (holder == 0)
        holder_that_forks(sockets[1]);
    tree_must(read(sockets[0], &child, sizeof child) == sizeof child, "read");
    close(sockets[0]);
    close(sockets[1]);
    CHECK(child.closed);
    CHECK(child.locks);
    CHECK_EQ(take(true, &fd), -EAGAIN); /* that the child closed it has unlocked nothing */
    kill_and_wait(holder);
    CHECK_EQ(take(true, &fd), 0);
    mp_lockfile_close(fd);
    CHECK_EQ(kill(child.pid, SIGKILL), 0);
    tree_end();
}

/* Whoever waits for a file that is gone by now waits for nobody. */
TEST(forked_child_keeps_no_file_that_is_gone)
{
    int holder = -1, first = -1, second = -1;

    begin();
    CHECK_EQ(take(true, &holder), 0);
    CHECK_EQ(take(true, &first), -EAGAIN);
    CHECK_EQ(take(true, &second), -EAGAIN);
    unlink(tree_path("locks/" KEY));
    tree_file(tree_path("locks/" KEY), "");
    int copy = dup(first); /* as a child that was made without fork(3) has it */

    drop(holder);
    CHECK_EQ(take(true, &first), 0); /* of the new file; the old one is let go of */
    drop(first);
    CHECK_EQ(take(true, &second), 0);
    drop(second);
    close(copy);
    tree_end();
}

TEST(replaced_file)
{
    struct stat mine, named;
    int waiting = -1, holder = -1, later = -1;

    begin();
    CHECK_EQ(take(true, &holder), 0);
    CHECK_EQ(take(true, &waiting), -EAGAIN); /* has the old file open */
    drop(holder);
    CHECK_EQ(take(true, &later), 0); /* makes a new one */
    CHECK_EQ(take(true, &waiting), -EAGAIN);
    drop(later);
    CHECK_EQ(take(true, &waiting), 0);
    CHECK_EQ(fstat(waiting, &mine), 0);
    CHECK_EQ(stat(tree_path("locks/" KEY), &named), 0);
    CHECK_EQ(mine.st_ino, named.st_ino);

    /* who removed it by hand has taken the name from us, and keeps what he put there */
    unlink(tree_path("locks/" KEY));
    tree_file(tree_path("locks/" KEY), "");
    drop(waiting);
    CHECK(there());
    tree_end();
}

TEST(directories)
{
    int fd = -1;

    begin();
    tree_link(tree_path("locks"), tree_root);
    CHECK_EQ(take(true, &fd), -ENOTDIR); /* O_DIRECTORY is looked at before O_NOFOLLOW */
    CHECK_EQ(fd, -1);
    unlink(directory);
    tree_file(directory, "");
    CHECK_EQ(take(true, &fd), -ENOTDIR);
    unlink(directory);
    mkdir(directory, 0700);
    chmod(directory, 0770);
    CHECK_EQ(take(true, &fd), -EPERM);
    chmod(directory, 0700);
    tree_link(tree_path("locks/" KEY), "/dev/null");
    CHECK_EQ(take(true, &fd), -ELOOP);
    unlink(tree_path("locks/" KEY));
    mkfifo(tree_path("locks/" KEY), 0600);
    CHECK_EQ(take(true, &fd), -EPERM);
    CHECK_EQ(fd, -1);
    snprintf(directory, sizeof directory, "%s", tree_path("missing/locks"));
    CHECK_EQ(take(true, &fd), -ENOENT);
    tree_end();
}

TEST(names)
{
    char one[MP_LOCKFILE_NAME_SIZE], two[MP_LOCKFILE_NAME_SIZE], what[512];

    mp_lockfile_name("wwid", "36001405abcdef", one);
    CHECK_STR(one, "wwid-36001405abcdef");
    mp_lockfile_name("wwid", "../../etc/passwd", one);
    mp_lockfile_name("wwid", "..\n..\netc\npasswd", two);
    CHECK(strchr(one, '/') == NULL && strncmp(one, "wwid-.._.._etc_passwd-", 22) == 0);
    CHECK(strcmp(one, two) != 0);
    memset(what, 'a', sizeof what);
    what[sizeof what - 1] = '\0';
    mp_lockfile_name("session", what, one);
    what[sizeof what - 2] = 'b';
    mp_lockfile_name("session", what, two);
    CHECK(strlen(one) < MP_LOCKFILE_NAME_SIZE - 1);
    CHECK(strcmp(one, two) != 0);
    mp_lockfile_name("wwid", "", one);
    CHECK_STR(one, "wwid-");
}

TEST(owner_is_only_a_hint)
{
    int fd = -1;

    begin();
    CHECK_EQ(take(true, &fd), 0);
    CHECK_EQ(pwrite(fd, "x", 1, 3), 1);
    CHECK_EQ(mp_lockfile_owner(fd), 0);
    CHECK_EQ(ftruncate(fd, 3), 0);
    CHECK_EQ(mp_lockfile_owner(fd), 0);
    CHECK_EQ(mp_lockfile_owner(-1), 0);
    drop(fd);
    tree_end();
}

int main(void)
{
    RUN(free_lock);
    RUN(two_descriptors_of_one_process);
    RUN(changing_a_lock);
    RUN(two_processes);
    RUN(forked_child_keeps_nothing);
    RUN(forked_child_outlives_the_holder);
    RUN(forked_child_keeps_no_file_that_is_gone);
    RUN(replaced_file);
    RUN(directories);
    RUN(names);
    RUN(owner_is_only_a_hint);
    return test_end();
}
