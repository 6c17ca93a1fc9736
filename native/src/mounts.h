/* SPDX-License-Identifier: Apache-2.0 */
/* What is mounted and swapped on, from /proc/self/mountinfo and /proc/swaps. Mounts of other
 * namespaces are not in there: whether a device is in use is told by its open count alone, and this
 * only says by whom. */
#ifndef MP_MOUNTS_H
#define MP_MOUNTS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { MP_MOUNT_PATH_SIZE = 256 };

struct mp_mount {
    dev_t dev; /* major 0: no block device's, as btrfs has it; then `source` tells */
    char point[MP_MOUNT_PATH_SIZE];  /* cut if it is longer */
    char source[MP_MOUNT_PATH_SIZE]; /* "/dev/dm-3" and the like */
};

/* The next mount in the text of mountinfo (proc_pid_mountinfo(5)); moves *cursor behind it. Lines that
 * cannot be read are left out. False at the end. Pure. */
bool mp_mounts_next(const char **cursor, struct mp_mount *ret_mount);

/* The same for swaps (proc_swaps(5)): the path of the next partition that is swapped to. Pure. */
bool mp_swaps_next(const char **cursor, char *ret_path, size_t size);

/* The text of <proc_root>/<name>, at most 16 MiB, malloc'ed and NUL-terminated. Negative errno. */
int mp_mounts_read(const char *proc_root, const char *name, char **ret_text);

#endif
