/* SPDX-License-Identifier: Apache-2.0 */
/* Which program has a device open, from /proc/<pid>/fd: the kernel tells no open count of a disk without
 * a map. What it cannot tell: programs that this process may not look into or that are in another PID
 * namespace, and descriptors that only the kernel keeps, as a loop device does. Blocks, and looks at
 * every descriptor of the host: call from a worker. */
#ifndef MP_OPENERS_H
#define MP_OPENERS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct mp_opener {
    pid_t pid;
    char program[16]; /* printable; kernel include/linux/sched.h TASK_COMM_LEN */
};

/* Is this what is looked for? `path` is the node's; `dev` its number if it is a block device, else 0. */
typedef bool mp_opened_match(const void *context, const char *path, dev_t dev);

/* The first program found that has a node below `dev_root` open that matches. multipathd does not
 * count: it opens disks to look at them, and those that it uses it has in a map. 1; 0: none; -ETIMEDOUT:
 * deadline_ns (CLOCK_MONOTONIC) passed; other negative errno: it cannot be told. */
int mp_opener_find(const char *proc_root, const char *dev_root, mp_opened_match *matches,
                   const void *context, uint64_t deadline_ns, struct mp_opener *ret_opener);

#endif
