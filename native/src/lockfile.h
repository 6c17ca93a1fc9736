/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lock files that other processes honour: one file per key in a directory of ours, with an open file
 * description lock (fcntl(2)) on it. The kernel lets go of it when the process dies, since a child that
 * fork(3) makes closes these files. Two descriptors conflict within one process too. Never blocks. What
 * the file holds is only a hint: the process that took it last.
 */
#ifndef MP_LOCKFILE_H
#define MP_LOCKFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { MP_LOCKFILE_NAME_SIZE = 192 };

/* "<kind>-<what>" as a file name: whatever does not belong into one is replaced, and what is long is
 * cut; a hash of the whole then tells it from others. */
void mp_lockfile_name(const char *kind, const char *what, char name[MP_LOCKFILE_NAME_SIZE]);

/*
 * Takes the lock, or changes the one that *fd holds; *fd is -1 or what an earlier call left there.
 * Makes the directory (mode 0700) if it is missing. -EAGAIN: somebody else has it; *fd is open and
 * what was held before is still held. Shared to exclusive is refused to both of two who want it, so
 * let go before. Other errors, after which *fd is -1:
 * -EPERM: the directory is not ours alone; -ELOOP, -ENOTDIR: it is a symlink, or no directory.
 */
int mp_lockfile_take(const char *directory, const char *name, bool exclusive, int *fd);

/* From exclusive to shared. */
void mp_lockfile_share(int fd);

/* Lets go, but keeps the descriptor for another try. */
void mp_lockfile_unlock(int fd);

/* Lets go, removes the file unless somebody else has it locked, and closes. */
void mp_lockfile_drop(const char *directory, const char *name, int fd);

/* Closes a file that could not be locked. */
void mp_lockfile_close(int fd);

/* Who took it last. 0: nobody knows. */
pid_t mp_lockfile_owner(int fd);

#endif
