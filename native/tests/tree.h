/* SPDX-License-Identifier: Apache-2.0 */
/* A small directory tree for a test, in place of /sys or /etc. */
#ifndef MP_TREE_H
#define MP_TREE_H

#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char tree_root[64];

static inline void tree_must(int ok, const char *what)
{
    if (!ok) {
        perror(what);
        exit(1);
    }
}

static inline void tree_begin(void)
{
    snprintf(tree_root, sizeof tree_root, "/tmp/manypath-test-XXXXXX");
    tree_must(mkdtemp(tree_root) != NULL, "mkdtemp");
}

static inline int tree_remove_one(const char *path, const struct stat *status, int type,
                                  struct FTW *place)
{
    (void)status, (void)type, (void)place;
    return remove(path);
}

static inline void tree_end(void)
{
    nftw(tree_root, tree_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* The absolute path of a place in the tree. Overwritten by the next call. */
__attribute__((format(printf, 1, 2))) static inline const char *tree_path(const char *format, ...)
{
    static char path[PATH_MAX];
    size_t used = (size_t)snprintf(path, sizeof path, "%s/", tree_root);
    va_list args;

    va_start(args, format);
    vsnprintf(path + used, sizeof path - used, format, args);
    va_end(args);
    return path;
}

/* Makes the directories above `path`. */
static inline void tree_parents(const char *path)
{
    char copy[PATH_MAX];

    snprintf(copy, sizeof copy, "%s", path);
    for (char *slash = copy + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
        *slash = '\0';
        mkdir(copy, 0755);
        *slash = '/';
    }
}

static inline void tree_dir(const char *path)
{
    tree_parents(path);
    mkdir(path, 0755);
}

static inline void tree_file(const char *path, const char *text)
{
    tree_parents(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    tree_must(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text), path);
    close(fd);
}

static inline void tree_link(const char *path, const char *target)
{
    tree_parents(path);
    tree_must(symlink(target, path) == 0, path);
}

/* The text of a file. Overwritten by the next call. */
static inline const char *tree_text(const char *path)
{
    static char text[8192];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd >= 0 ? read(fd, text, sizeof text - 1) : 0;

    close(fd);
    text[length > 0 ? length : 0] = '\0';
    return text;
}

#endif
