/* SPDX-License-Identifier: Apache-2.0 */
/* The fault points as the lab's build has them; the library under test here has none. */
#define MANYPATH_FAULTS
#include "../src/fault.c"

#include <stdbool.h>
#include <sys/wait.h>

#include "test.h"
#include "tree.h"

enum { UNHARMED = 7 };

/* What becomes of a process with this MANYPATH_FAULT that passes "one" twice, then "two". A stopped one
 * is continued. */
static int passing(const char *fault, bool *ret_stopped)
{
    int status = -1;
    pid_t pid = fork();

    *ret_stopped = false;
    if (pid == 0) {
        setenv("MANYPATH_FAULT", fault, 1);
        setenv("MANYPATH_FAULT_LOG", tree_path("log"), 1);
        MP_FAULT("one");
        MP_FAULT("one");
        MP_FAULT("two");
        _exit(UNHARMED);
    }
    CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
    if (WIFSTOPPED(status)) {
        *ret_stopped = true;
        kill(pid, SIGCONT);
        CHECK_EQ(waitpid(pid, &status, 0), pid);
    }
    return status;
}

TEST(killed_at_the_passing_named)
{
    bool stopped;

    tree_begin();
    int status = passing("one:2=kill", &stopped);

    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    CHECK_STR(tree_text(tree_path("log")), "one:1\none:2\n");
    tree_end();
}

TEST(stopped_and_continued)
{
    bool stopped;

    tree_begin();
    int status = passing("one:1=stop", &stopped);

    CHECK(stopped);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == UNHARMED);
    CHECK_STR(tree_text(tree_path("log")), "one:1\none:2\ntwo:1\n");
    tree_end();
}

TEST(nothing_at_other_points)
{
    static const char *const others[] = {"", "one=kill", "one:3=kill", "on:1=kill", "three:1=kill"};
    bool stopped;

    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        tree_begin();
        int status = passing(others[i], &stopped);

        CHECK(!stopped && WIFEXITED(status) && WEXITSTATUS(status) == UNHARMED);
        tree_end();
    }
}

int main(void)
{
    RUN(killed_at_the_passing_named);
    RUN(stopped_and_continued);
    RUN(nothing_at_other_points);
    return test_end();
}
