/* SPDX-License-Identifier: Apache-2.0 */
/* Which program has a device open, from /proc/<pid>/fd: the kernel tells no open count of a disk without
 * a map. What it cannot tell: programs in another PID namespace; nodes that are not below `dev_root`, as in
 * a chroot or at a mount of that program's own, since what else is open may be on a file system that does
 * not answer; and descriptors that only the kernel keeps, as a loop device does. Blocks, and looks at
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

/* Is the block device of this number what is looked for? */
typedef bool mp_opened_match(const void *context, dev_t dev);

/* The first program found that has a node below `dev_root` open that matches. multipathd does not
 * count: it opens disks to look at them, and those that it uses it has in a map. 1; 0: none; -EACCES: none,
 * but there are programs that this process may not look into, and *ret_opener is the first of them;
 * -ETIMEDOUT: deadline_ns (CLOCK_MONOTONIC) passed; other negative errno: it cannot be told. */
int mp_opener_find(const char *proc_root, const char *dev_root, mp_opened_match *matches,
                   const void *context, uint64_t deadline_ns, struct mp_opener *ret_opener);

/* The number of the block device that a descriptor in /proc/<pid>/fd is of; 0: of something else. Negative
 * errno. Weak: tests have no block devices. */
int mp_opened_device(int directory, const char *number, dev_t *ret_dev);

#endif
