/* SPDX-License-Identifier: Apache-2.0 */
#include "../src/openers.h"

#include "../src/text.h"
#include "test.h"
#include "tree.h"

#include <errno.h>

static const uint64_t soon = UINT64_MAX;

static bool ends_like(const void *context, const char *path, dev_t dev)
{
    return dev == 0 && strcmp(strrchr(path, '/') + 1, context) == 0;
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

TEST(no_proc)
{
    struct mp_opener opener = {0};

    tree_begin();
    CHECK_EQ(find("sda", soon, &opener), -ENOENT);
    tree_end();
}

/* In the real /proc, our own. */
static bool is_null(const void *context, const char *path, dev_t dev)
{
    (void)context;
    return dev == 0 && strcmp(path, "/dev/null") == 0;
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
    RUN(no_proc);
    RUN(real);
    return test_end();
}
