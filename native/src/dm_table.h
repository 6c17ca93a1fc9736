/* SPDX-License-Identifier: Apache-2.0 */
/* The multipath target's table and status lines (kernel drivers/md/dm-mpath.c). Pure; bounded
 * parsers. */
#ifndef MP_DM_TABLE_H
#define MP_DM_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { MP_TABLE_PATHS_MAX = 1024 };

struct mp_table_path {
    dev_t dev;
    bool active;         /* status only */
    uint32_t fail_count; /* status only */
    uint32_t group;      /* 1.. */
};

/*
 * A table of our own: groups in the order of their numbers (1, 2, ... without a gap, path by path in
 * ascending order), selector service-time, features "0" (never queueing: nobody may be there
 * to stop it), hardware handler "1 <handler>" or "0" when handler is "" (facts/multipath-dm 2.2). The
 * first group is used first. Of the paths only `dev` and `group` count.
 * malloc'ed. -EINVAL: no path, too many, group numbers out of order, a number that is none of a block
 * device, or a handler that is too long or has bytes other than [a-z0-9_].
 */
int mp_table_build(const struct mp_table_path *paths, size_t count, const char *handler,
                   char **ret_params);

/*
 * A table line without the paths given: features, handler, groups and selectors stay as they are, a
 * group left without a path goes, and the first group stays the first if it is still there.
 * malloc'ed. -EPROTO: not a table; -ENOENT: no path would be left.
 */
int mp_table_without(const char *params, const dev_t *paths, size_t count, char **ret_params);

struct mp_table {
    bool queue_if_no_path;
    char handler[16]; /* "" if none */
    uint32_t group_count;
    uint32_t group; /* table: used first; status: in use, or to be used next; 0: no groups */
    size_t path_count;
    struct mp_table_path *paths; /* malloc'ed */
};

/*
 * A table line with one path more: into group `group` (1..) with the arguments of that group's last
 * path, or, if `own_group`, in a group of its own before it (or behind all: group count + 1). The group
 * that is used first stays it, unless the new one comes before number 1. malloc'ed. -EPROTO: not a table, or no such group; -EINVAL: a number that is
 * none of a block device, or too many paths.
 */
int mp_table_with(const char *params, dev_t path, uint32_t group, bool own_group,
                  char **ret_params);

/* Parses a table line, or a status line. -EPROTO: not one. Free with mp_table_free(). */
int mp_table_parse(const char *params, struct mp_table *ret_table);
int mp_table_parse_status(const char *params, struct mp_table *ret_table);
void mp_table_free(struct mp_table *table);

#endif
