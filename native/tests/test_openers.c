/* SPDX-License-Identifier: Apache-2.0 */
#include "../src/openers.h"

#include "../src/text.h"
#include "test.h"
#include "tree.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static const uint64_t soon = UINT64_MAX;

/* The library's is overridden: here sda is a file, and has the number 8:97. */
int mp_opened_device(int directory, const char *number, dev_t *ret_dev)
{
    char path[PATH_MAX] = "";
    struct stat status;

    if (fstatat(directory, number, &status, 0) < 0 ||
        readlinkat(directory, number, path, sizeof path - 1) <= 0)
        return -errno;
    *ret_dev = status.st_rdev;
    if (S_ISREG(status.st_mode))
        *ret_dev = makedev(8, (unsigned char)path[strlen(path) - 1]);
    return 0;
}

static bool ends_like(const void *context, dev_t dev)
{
    const char *name = context;

    return dev == makedev(8, (unsigned char)name[strlen(name) - 1]);
}

static int find(const char *name, uint64_t deadline_ns, struct mp_opener *ret_opener)
{
    char proc[PATH_MAX], dev[PATH_MAX];

    snprintf(proc, sizeof proc, "%s", tree_path("proc"));
    snprintf(dev, sizeof dev, "%s", tree_path("dev"));
    return mp_opener_find(proc, dev, ends_like, name, deadline_ns, ret_opener);
}

static void open_in(int pid, const char *program, int number, const char *node)
{
    char target[PATH_MAX];

    snprintf(target, sizeof target, "%s", tree_path("%s", node));
    tree_file(tree_path("proc/%d/comm", pid), program);
    tree_file(target, "");
    tree_dir(tree_path("proc/%d/fd", pid));
    tree_link(tree_path("proc/%d/fd/%d", pid, number), target);
}

TEST(found)
{
    struct mp_opener opener = {0};

    tree_begin();
    tree_dir(tree_path("proc"));
    CHECK_EQ(find("sda", soon, &opener), 0);
    open_in(12, "cat\n", 5, "dev/sdb");
    open_in(13, "a program\x1b[2J\n", 70000, "dev/sda");
    open_in(14, "multipathd\n", 5, "dev/sdc");
    CHECK_EQ(find("sda", soon, &opener), 1);
    CHECK_EQ(opener.pid, 13);
    CHECK_STR(opener.program, "a program?[2J");
    CHECK_EQ(find("sdc", soon, &opener), 0);
    CHECK_EQ(find("sdd", soon, &opener), 0);
    CHECK_EQ(find("sda", 1, &opener), -ETIMEDOUT);
    tree_end();
}

TEST(passed_over)
{
    struct mp_opener opener = {0};

    tree_begin();
    open_in(12, "cat\n", 5, "device/sda"); /* begins like the directory of nodes */
    open_in(13, "cat\n", 5, "home/sda");   /* a file that is named so */
    tree_dir(tree_path("proc/14"));        /* it has ended */
    tree_link(tree_path("proc/self"), "13");
    CHECK_EQ(find("sda", soon, &opener), 0);
    tree_end();
}

/* As a user who may not read everything. */
static int find_as_nobody(const char *name, struct mp_opener *ret_opener)
{
    uid_t before = geteuid();

    if (before == 0) {
        CHECK_EQ(chmod(tree_path("."), 0755), 0);
        CHECK_EQ(seteuid(65534), 0);
    }
    int result = find(name, soon, ret_opener);

    CHECK_EQ(seteuid(before), 0);
    return result;
}

TEST(denied)
{
    struct mp_opener opener = {0};

    tree_begin();
    open_in(12, "multipathd\n", 5, "dev/sdb");
    open_in(13, "kthreadd\n", 5, "dev/sdb");
    open_in(14, "ended\n", 5, "dev/sdb");
    tree_file(tree_path("proc/13/stat"), "13 (a) R (b) S 0 0 0 0 -1 2129984 0 0\n");
    tree_file(tree_path("proc/14/stat"), "14 (ended) Z 1 1 1 0 -1 4228100 0 0\n");
    for (int pid = 12; pid <= 14; pid++)
        CHECK_EQ(chmod(tree_path("proc/%d/fd", pid), 0), 0);
    CHECK_EQ(find_as_nobody("sda", &opener), 0);
    open_in(15, "cat\n", 5, "dev/sdb");
    tree_file(tree_path("proc/15/stat"), "15 (cat) S 1 15 15 0 -1 4194304 0 0\n");
    CHECK_EQ(chmod(tree_path("proc/15/fd"), 0), 0);
    CHECK_EQ(find_as_nobody("sda", &opener), -EACCES);
    CHECK_EQ(opener.pid, 15);
    CHECK_STR(opener.program, "cat");
    open_in(16, "qemu\n", 5, "dev/sda");
    CHECK_EQ(find_as_nobody("sda", &opener), 1);
    CHECK_EQ(opener.pid, 16);
    for (int pid = 12; pid <= 15; pid++)
        CHECK_EQ(chmod(tree_path("proc/%d/fd", pid), 0700), 0);
    tree_end();
}

TEST(no_proc)
{
    struct mp_opener opener = {0};

    tree_begin();
    CHECK_EQ(find("sda", soon, &opener), -ENOENT);
    tree_end();
}

/* In the real /proc, our own. */
static bool is_null(const void *context, dev_t dev)
{
    (void)context;
    return dev == makedev(1, 3);
}

TEST(real)
{
    struct mp_opener opener = {0};
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    CHECK_EQ(mp_opener_find("/proc", "/dev", is_null, NULL, soon, &opener), 1);
    CHECK(opener.pid > 0 && opener.program[0] != '\0');
    close(fd);
}

int main(void)
{
    RUN(found);
    RUN(passed_over);
    RUN(denied);
    RUN(no_proc);
    RUN(real);
    return test_end();
}
