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

#define KERNEL_THREAD 0x00200000 /* kernel include/linux/sched.h PF_KTHREAD */

struct search {
    const char *dev_root;
    size_t dev_root_length;
    mp_opened_match *matches;
    const void *context;
};

static bool is_gone(int error)
{
    return error == ENOENT || error == ESRCH;
}

__attribute__((weak)) int mp_opened_device(int directory, const char *number, dev_t *ret_dev)
{
    struct stat status;

    if (fstatat(directory, number, &status, 0) < 0)
        return -errno;
    *ret_dev = S_ISBLK(status.st_mode) ? status.st_rdev : 0;
    return 0;
}

/* One descriptor: 1; 0; negative errno. Nothing outside of `dev_root` is followed: it may be on a file
 * system that does not answer. */
static int is_wanted(const struct search *search, int directory, const char *number)
{
    char path[PATH_MAX];
    dev_t dev = 0;
    ssize_t length = readlinkat(directory, number, path, sizeof path - 1);

    if (length < 0) /* a path that is too long for the kernel is none of a node */
        return is_gone(errno) || errno == ENAMETOOLONG ? 0 : -errno;
    path[length] = '\0';
    if (strncmp(path, search->dev_root, search->dev_root_length) != 0 ||
        path[search->dev_root_length] != '/')
        return 0;
    int result = mp_opened_device(directory, number, &dev);

    if (result < 0)
        return is_gone(-result) ? 0 : result;
    return dev != 0 && search->matches(search->context, dev);
}

/* readdir(), with an error told from the end. 1; 0: the end; negative errno. */
static int next_entry(DIR *directory, const struct dirent **ret_entry)
{
    errno = 0;
    *ret_entry = readdir(directory);
    return *ret_entry != NULL ? 1 : -errno;
}

/* 1; 0; negative errno, -EACCES or -EPERM if this process may not be looked into. */
static int look_into(const struct search *search, int proc, const char *pid)
{
    char path[32];
    const struct dirent *entry;
    int result = 0;

    if ((size_t)snprintf(path, sizeof path, "%s/fd", pid) >= sizeof path)
        return 0;
    int fd = openat(proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return is_gone(errno) ? 0 : -errno;
    DIR *directory = fdopendir(fd);

    if (directory == NULL) {
        close(fd);
        return -ENOMEM;
    }
    while (result == 0 && (result = next_entry(directory, &entry)) > 0)
        result = entry->d_name[0] != '.' ? is_wanted(search, fd, entry->d_name) : 0;
    closedir(directory);
    return is_gone(-result) ? 0 : result;
}

/* Not of a thread of the kernel, nor of a process that has ended: those have no descriptors. Everybody may
 * read /proc/<pid>/stat (proc_pid_stat(5)), where the name is anything between the first and the last
 * bracket. */
static bool may_have_descriptors(const char *proc_root, const char *pid)
{
    char path[PATH_MAX];
    char text[256] = "";
    uint64_t flags;

    if ((size_t)snprintf(path, sizeof path, "%s/%s/stat", proc_root, pid) >= sizeof path)
        return true;
    mp_read_file(path, text, sizeof text);
    const char *at = strrchr(text, ')');

    if (at == NULL || at[1] != ' ')
        return true;
    at += 2;
    if (*at == 'Z' || *at == 'X')
        return false;
    for (int words = 0; words < 6 && at != NULL; words++) { /* state, ppid, ... tpgid */
        at = strchr(at, ' ');
        at = at != NULL ? at + 1 : NULL;
    }
    return at == NULL || !mp_take_u64(&at, UINT64_MAX, &flags) || (flags & KERNEL_THREAD) == 0;
}

static void read_opener(const char *proc_root, const char *pid, struct mp_opener *ret_opener)
{
    char path[PATH_MAX];
    char text[32] = "";
    uint64_t number = 0;

    if ((size_t)snprintf(path, sizeof path, "%s/%s/comm", proc_root, pid) < sizeof path)
        mp_read_file(path, text, sizeof text);
    mp_printable(text, ret_opener->program, sizeof ret_opener->program);
    mp_parse_u64(pid, INT_MAX, &number);
    ret_opener->pid = (pid_t)number;
}

int mp_opener_find(const char *proc_root, const char *dev_root, mp_opened_match *matches,
                   const void *context, uint64_t deadline_ns, struct mp_opener *ret_opener)
{
    struct search search = {.dev_root = dev_root,
                            .dev_root_length = strlen(dev_root),
                            .matches = matches,
                            .context = context};
    struct mp_opener opener, denied = {0};
    const struct dirent *entry;
    uint64_t pid;
    int result = 0;
    DIR *directory = opendir(proc_root);

    if (directory == NULL)
        return -errno;
    while (result == 0 && (result = next_entry(directory, &entry)) > 0) {
        result = 0;
        if (!mp_parse_u64(entry->d_name, INT_MAX, &pid))
            continue;
        result = mp_now_ns() < deadline_ns ? look_into(&search, dirfd(directory), entry->d_name)
                                           : -ETIMEDOUT;
        bool is_denied = result == -EACCES || result == -EPERM;

        if (result <= 0 && !is_denied)
            continue;
        read_opener(proc_root, entry->d_name, &opener);
        if (is_denied || strcmp(opener.program, "multipathd") == 0)
            result = 0;
        else
            *ret_opener = opener;
        if (is_denied && denied.pid == 0 && strcmp(opener.program, "multipathd") != 0 &&
            may_have_descriptors(proc_root, entry->d_name))
            denied = opener;
    }
    closedir(directory);
    if (result == 0 && denied.pid != 0) {
        *ret_opener = denied;
        return -EACCES;
    }
    return result;
}
