/* SPDX-License-Identifier: Apache-2.0 */
#include "openers.h"

#include "text.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct search {
    const char *dev_root;
    size_t dev_root_length;
    mp_opened_match *matches;
    const void *context;
};

/* One descriptor. Nothing outside of `dev_root` is followed: it may be on a file system that does not
 * answer. */
static bool is_wanted(const struct search *search, int directory, const char *number)
{
    char path[PATH_MAX];
    struct stat status;
    ssize_t length = readlinkat(directory, number, path, sizeof path - 1);

    if (length < 0)
        return false;
    path[length] = '\0';
    if (strncmp(path, search->dev_root, search->dev_root_length) != 0 ||
        path[search->dev_root_length] != '/' || fstatat(directory, number, &status, 0) < 0)
        return false;
    return search->matches(search->context, path, S_ISBLK(status.st_mode) ? status.st_rdev : 0);
}

/* It ended, or is none of those that may be looked into. */
static bool is_passed_over(int error)
{
    return error == ENOENT || error == ESRCH || error == EACCES || error == EPERM;
}

static int look_into(const struct search *search, int proc, const char *pid)
{
    char path[32];
    const struct dirent *entry;
    bool found = false;

    if ((size_t)snprintf(path, sizeof path, "%s/fd", pid) >= sizeof path)
        return 0;
    int fd = openat(proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return is_passed_over(errno) ? 0 : -errno;
    DIR *directory = fdopendir(fd);

    if (directory == NULL) {
        close(fd);
        return -ENOMEM;
    }
    while (!found && (entry = readdir(directory)) != NULL)
        found = entry->d_name[0] != '.' && is_wanted(search, fd, entry->d_name);
    closedir(directory);
    return found ? 1 : 0;
}

static void read_program(const char *proc_root, const char *pid, char *program, size_t size)
{
    char path[PATH_MAX];
    char text[32] = "";

    if ((size_t)snprintf(path, sizeof path, "%s/%s/comm", proc_root, pid) < sizeof path)
        mp_read_file(path, text, sizeof text);
    mp_printable(text, program, size);
}

int mp_opener_find(const char *proc_root, const char *dev_root, mp_opened_match *matches,
                   const void *context, uint64_t deadline_ns, struct mp_opener *ret_opener)
{
    struct search search = {.dev_root = dev_root,
                            .dev_root_length = strlen(dev_root),
                            .matches = matches,
                            .context = context};
    struct mp_opener opener;
    const struct dirent *entry;
    uint64_t pid;
    int result = 0;
    DIR *directory = opendir(proc_root);

    if (directory == NULL)
        return -errno;
    while (result == 0 && (entry = readdir(directory)) != NULL) {
        if (!mp_parse_u64(entry->d_name, INT_MAX, &pid))
            continue;
        result = mp_now_ns() < deadline_ns ? look_into(&search, dirfd(directory), entry->d_name)
                                           : -ETIMEDOUT;
        if (result <= 0)
            continue;
        opener.pid = (pid_t)pid;
        read_program(proc_root, entry->d_name, opener.program, sizeof opener.program);
        if (strcmp(opener.program, "multipathd") == 0)
            result = 0;
        else
            *ret_opener = opener;
    }
    closedir(directory);
    return result;
}
