/* SPDX-License-Identifier: Apache-2.0 */
/* Removing a map, or letting go of a disk without one. */
#include "dm.h"
#include "error.h"
#include "fault.h"
#include "holders.h"
#include "map.h"
#include "map_heal.h"
#include "map_util.h"
#include "multipathd.h"
#include "queueing.h"
#include "sysfs.h"
#include "users.h"
#include "waiting.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define NOTHING_REMOVED "nothing was removed"

/* What one flush or removal works on. */
struct unmap {
    struct mp_host *host;
    int fd; /* device-mapper */
    const char *uuid;
    const struct mp_unmap_options *options;
    uint64_t deadline_ns;
    uint64_t until_ns; /* whoever has it open for a moment is waited for */
    struct mp_unmap_result *result;
    struct manypath_error *err;
    const char *outcome; /* of a refusal */
    struct mp_dm_info info;
    char device[MANYPATH_DEVICE_SIZE];
    struct mp_queueing queueing;
    struct mp_part_map *parts; /* MP_PART_MAPS_MAX */
    size_t part_count;
    bool parts_used;
    bool stopped_queueing;
};

static int begin(struct unmap *unmap)
{
    if (unmap->outcome == NULL)
        unmap->outcome = NOTHING_REMOVED;
    unmap->fd = mp_host_dm(unmap->host);
    if (unmap->fd < 0)
        return mp_map_unusable(unmap->fd, unmap->err);
    unmap->until_ns = mp_map_earlier(unmap->deadline_ns, mp_now_ns() + MP_MAP_BUSY_LIMIT);
    unmap->parts = calloc(MP_PART_MAPS_MAX, sizeof *unmap->parts);
    if (unmap->parts == NULL)
        return mp_error(unmap->err, MANYPATH_E_SYSTEM, MANYPATH_PHASE_UNMAP, ENOMEM,
                        "out of memory");
    return 0;
}

/* "dm-3 is in use: mounted on /mnt; 1 open; nothing was removed" */
static int in_use(struct unmap *unmap)
{
    char users[320];

    mp_users_describe(unmap->host, unmap->device, unmap->info.open_count, users, sizeof users);
    return mp_error(unmap->err, MANYPATH_E_IN_USE, MANYPATH_PHASE_UNMAP, EBUSY,
                    "%s is in use: %s; %s", unmap->device, users, unmap->outcome);
}

static int look_failed(struct unmap *unmap, int result)
{
    return mp_map_error(unmap->err, MANYPATH_PHASE_UNMAP, result, unmap->uuid, "looking up");
}

/* The map as it is now, with its partition maps. 1; 0: it is gone; or an error. */
static int look(struct unmap *unmap)
{
    struct mp_dm_info part;
    int result = mp_dm_info(unmap->fd, unmap->uuid, &unmap->info);

    if (result == 0)
        result = mp_queueing_read(unmap->fd, unmap->uuid, &unmap->queueing);
    if (result == -ENXIO)
        return 0;
    if (result < 0)
        return look_failed(unmap, result);
    snprintf(unmap->device, sizeof unmap->device, "dm-%u", minor(unmap->info.dev));
    unmap->result->dead = unmap->queueing.dead;
    unmap->part_count = 0;
    unmap->parts_used = false;
    if (unmap->info.open_count == 0)
        return 1;
    result = mp_part_maps(unmap->host, unmap->device, unmap->uuid, unmap->parts, MP_PART_MAPS_MAX,
                          &unmap->part_count);
    for (size_t i = 0; i < unmap->part_count && result == 0; i++) {
        result = mp_dm_info(unmap->fd, unmap->parts[i].uuid, &part);
        if (result == 0 && part.open_count > 0)
            unmap->parts_used = true;
        if (result == -ENXIO)
            result = 0;
    }
    return result < 0 && result != -ENOENT ? look_failed(unmap, result) : 1;
}

/* Open for its own partition maps only, which nobody has open. */
static bool unused(const struct unmap *unmap)
{
    return unmap->info.open_count <= (int32_t)unmap->part_count && !unmap->parts_used;
}

/* ---- flushing ---- */

/* Writes back what the page cache holds for this block device. Opened read-only: closing a writable
 * descriptor would make udev probe the device. */
static int flush_device(const struct mp_host *host, const char *device, struct manypath_error *err)
{
    char path[PATH_MAX];
    int result = 0;

    snprintf(path, sizeof path, "%s/%s", host->dev_root, device);
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fsync(fd) < 0)
        result = mp_error(err, MANYPATH_E_FLUSH, MANYPATH_PHASE_FLUSH, errno,
                          "flushing %s failed with errno %d; nothing was removed", path, errno);
    if (fd >= 0)
        close(fd);
    return result;
}

/* No path: what is cached cannot be written back, and trying may last for ever. */
static int no_path(struct unmap *unmap)
{
    unmap->result->flush = MANYPATH_FLUSH_FAILED;
    return mp_error(unmap->err, MANYPATH_E_FLUSH, MANYPATH_PHASE_FLUSH, EIO,
                    "no path of %s is usable%s, so that nothing can be written back; nothing was "
                    "removed; bring a path back, or give up what is not written with force",
                    unmap->device, unmap->queueing.on ? " and it queues I/O" : "");
}

/* Waits until nobody uses the map. 1; 0: it is gone; or an error. */
static int wait_unused(struct unmap *unmap)
{
    char users[320];

    for (;;) {
        int result = look(unmap);

        if (result <= 0 || (unmap->queueing.dead && unmap->options->force))
            return result;
        if (unused(unmap))
            return 1;
        if (mp_wait_turn(unmap->until_ns))
            continue;
        /* with force the writer may be one that is stuck, until the kernel gives its paths up */
        unmap->result->named = mp_users_name(unmap->host, unmap->device, users, sizeof users);
        if (!unmap->options->force || unmap->result->named || !mp_wait_turn(unmap->deadline_ns))
            return in_use(unmap);
    }
}

/* Without multipathd nobody may have taken back paths that failed for a while and work again. */
static int heal(struct unmap *unmap)
{
    struct mp_map_health health;

    if (!unmap->queueing.dead || mp_multipathd_running(unmap->host->multipathd_pidfile))
        return 1;
    mp_map_heal(unmap->host, mp_map_wwid(unmap->uuid), false, &health);
    return health.reinstated > 0 ? look(unmap) : 1;
}

static int flush(struct unmap *unmap)
{
    int result = wait_unused(unmap);

    if (result > 0)
        result = heal(unmap);
    if (result <= 0) {
        if (result == 0)
            unmap->result->flush = MANYPATH_FLUSH_NOT_NEEDED;
        return result;
    }
    if (unmap->queueing.dead && (unmap->options->force || unmap->queueing.on))
        return no_path(unmap);
    result = 0;
    for (size_t i = 0; i < unmap->part_count && result == 0; i++)
        result = flush_device(unmap->host, unmap->parts[i].device, unmap->err);
    if (result == 0)
        result = flush_device(unmap->host, unmap->device, unmap->err);
    unmap->result->flush = result == 0 ? MANYPATH_FLUSH_DONE : MANYPATH_FLUSH_FAILED;
    return result;
}

int mp_map_flush(struct mp_host *host, const char *uuid, const struct mp_unmap_options *options,
                 uint64_t deadline_ns, struct mp_unmap_result *result, struct manypath_error *err)
{
    struct unmap unmap = {.host = host,
                          .uuid = uuid,
                          .options = options,
                          .deadline_ns = deadline_ns,
                          .result = result,
                          .err = err};
    int code = begin(&unmap);

    result->flush = MANYPATH_FLUSH_UNKNOWN;
    if (code == 0)
        code = flush(&unmap);
    MP_FAULT("detach.flushed");
    result->flushed_ns = mp_now_ns();
    free(unmap.parts);
    return code;
}

/* ---- removing ---- */

/* Partition maps that nobody uses. kpartx may be making one right now: the next turn finds it. */
static void remove_parts(struct unmap *unmap)
{
    if (unmap->parts_used)
        return;
    for (size_t i = 0; i < unmap->part_count; i++)
        mp_dm_remove(unmap->fd, unmap->parts[i].uuid, MP_MAP_UDEV_FLAGS);
}

/* Nothing of the caller's is lost by failing I/O: it was flushed and nobody has the map open, or it
 * is given up. */
static bool may_stop_queueing(const struct unmap *unmap)
{
    return unmap->queueing.dead && unmap->queueing.on &&
           (unmap->options->force || unmap->info.open_count == 0);
}

/* The map stays. With force it goes at least when it is closed, if it is of no use any more. */
static int give_up(struct unmap *unmap)
{
    if (unmap->options->force && unmap->queueing.dead &&
        mp_dm_remove_deferred(unmap->fd, unmap->uuid, MP_MAP_UDEV_FLAGS) == 0) {
        unmap->result->deferred = true;
        unmap->outcome = "it has no path any more, and goes when it is closed";
    }
    return in_use(unmap);
}

/* After a failure, beyond the deadline if need be: it must not stay off. */
static void restore_queueing(struct unmap *unmap)
{
    struct manypath_error first = {0};

    if (!unmap->stopped_queueing || unmap->result->deferred)
        return;
    int result = mp_queueing_restore(unmap->host, unmap->fd, unmap->uuid, unmap->device,
                                     mp_now_ns() + MP_MAP_ASK_AFTER);

    if (result == 0 || result == -ENXIO || unmap->err == NULL)
        return;
    first = *unmap->err;
    mp_error(
        unmap->err, first.code, first.phase, first.sys_errno,
        "%.400s; its queueing is still off (errno %d): dmsetup message /dev/%s 0 queue_if_no_path",
        first.message, -result, unmap->device);
}

static int remove_map(struct unmap *unmap)
{
    const char *wwid = mp_map_wwid(unmap->uuid);
    uint64_t ask_ns = 0; /* multipathd, the next time */

    for (;;) {
        int result = look(unmap);

        if (result <= 0)
            return result;
        if (may_stop_queueing(unmap) && mp_queueing_stop(unmap->host, unmap->fd, unmap->uuid,
                                                         unmap->device, unmap->deadline_ns) == 0)
            unmap->stopped_queueing = true;
        bool hopeless = unmap->options->force && unmap->queueing.dead;

        if (!unused(unmap) && !hopeless) { /* opened since: it stays whole */
            if (!mp_wait_turn(unmap->until_ns))
                return give_up(unmap);
            continue;
        }
        remove_parts(unmap);
        /* through the daemon first, so that it does not mistake our removal for a fault; the map's
         * uuid decides */
        if (mp_now_ns() >= ask_ns && mp_multipathd_running(unmap->host->multipathd_pidfile)) {
            mp_map_ask_multipathd(unmap->host, "del map", wwid, unmap->deadline_ns);
            ask_ns = mp_now_ns() + MP_MAP_ASK_AFTER;
        }
        MP_FAULT("detach.remove_map");
        result = mp_dm_info(unmap->fd, unmap->uuid, &unmap->info);
        if (result == 0)
            result = mp_dm_remove(unmap->fd, unmap->uuid, MP_MAP_UDEV_FLAGS);
        if (result == 0 || result == -ENXIO)
            continue; /* look once more */
        if (result != -EBUSY)
            return mp_map_error(unmap->err, MANYPATH_PHASE_UNMAP, result, unmap->uuid, "removing");
        if (!mp_wait_turn(hopeless ? unmap->deadline_ns : unmap->until_ns))
            return give_up(unmap);
    }
}

int mp_map_remove(struct mp_host *host, const char *uuid, const struct mp_unmap_options *options,
                  uint64_t deadline_ns, struct mp_unmap_result *result, struct manypath_error *err)
{
    struct unmap unmap = {.host = host,
                          .uuid = uuid,
                          .options = options,
                          .deadline_ns = deadline_ns,
                          .result = result,
                          .err = err};
    int code = 0;

    if (options->flush)
        code = mp_map_flush(host, uuid, options, deadline_ns, result, err);
    if (code < 0 && !(options->force && code == MANYPATH_E_FLUSH))
        return code;
    if (code < 0 && err != NULL) {
        result->flush_error = *err;
        *err = (struct manypath_error){0};
    }
    if (options->flush && mp_now_ns() >= deadline_ns) /* somebody else may have it by now */
        return mp_error(err, MANYPATH_E_TIMEOUT, MANYPATH_PHASE_UNMAP, ETIMEDOUT,
                        "flushing map %s took so long that it was not removed", uuid);
    code = begin(&unmap);
    if (code == 0)
        code = remove_map(&unmap);
    if (code < 0)
        restore_queueing(&unmap);
    free(unmap.parts);
    return code;
}

/* Every disk in its table, and there is one. */
static int members_are_gone(const struct mp_host *host, int fd, const char *uuid, bool *ret_gone)
{
    char name[MANYPATH_DEVICE_SIZE];
    dev_t *devs = NULL;
    size_t count = 0;
    int result = mp_dm_deps(fd, uuid, &devs, &count);

    *ret_gone = result == 0 && count > 0;
    for (size_t i = 0; i < count && *ret_gone; i++) {
        int found = mp_sysfs_block_name(host->sysfs_root, devs[i], name, sizeof name);

        *ret_gone = found == -ENOENT;
        if (found < 0 && found != -ENOENT)
            result = found;
    }
    free(devs);
    return result;
}

/* ---- without a flush ---- */

/* Waits until the map can be judged. 1: it may be removed; 0: it stays, or is gone; or an error. */
typedef int judge(struct unmap *unmap);

static int remove_unflushed(struct mp_host *host, const char *uuid, judge *may_go,
                            const char *outcome, uint64_t deadline_ns, struct manypath_error *err)
{
    static const struct mp_unmap_options options = {.flush = false};
    struct mp_unmap_result ignored = {0};
    struct unmap unmap = {.host = host,
                          .uuid = uuid,
                          .options = &options,
                          .deadline_ns = deadline_ns,
                          .result = &ignored,
                          .err = err,
                          .outcome = outcome};
    int result = begin(&unmap);

    if (result == 0)
        result = may_go(&unmap);
    if (result == 1)
        result = remove_map(&unmap);
    free(unmap.parts);
    return result;
}

/* Its creator, between CREATE and RESUME, either finishes or finds the disks gone. */
static int is_orphan(struct unmap *unmap)
{
    uint64_t until_ns = mp_map_earlier(unmap->deadline_ns, mp_now_ns() + MP_MAP_EMPTY_LIMIT);
    bool gone = false;
    int result;

    do
        result = mp_dm_info(unmap->fd, unmap->uuid, &unmap->info);
    while (result == 0 && !unmap->info.active_table && mp_wait_turn(until_ns));
    if (result == 0 && unmap->info.active_table)
        result = members_are_gone(unmap->host, unmap->fd, unmap->uuid, &gone);
    if (result < 0)
        return result == -ENXIO ? 0 : look_failed(unmap, result);
    if (gone) /* udev's probing must not hang in it */
        mp_dm_message(unmap->fd, unmap->uuid, "fail_if_no_path");
    return gone;
}

/* Looked at before multipathd is asked, which may do more than refuse; udev opens it for moments. */
static int is_left_over(struct unmap *unmap)
{
    int result;

    do
        result = look(unmap);
    while (result == 1 && !unused(unmap) && mp_wait_turn(unmap->deadline_ns));
    if (result == 1 && unmap->info.active_table && /* one of another type is none of ours */
        mp_map_check_type(unmap->fd, unmap->uuid, unmap->err) < 0)
        return MANYPATH_E_MAP;
    return result == 1 && !unused(unmap) ? in_use(unmap) : result;
}

int mp_map_remove_orphan(struct mp_host *host, const char *uuid, uint64_t deadline_ns,
                         struct manypath_error *err)
{
    return remove_unflushed(host, uuid, is_orphan,
                            "multipathd made it again, and its disks are gone", deadline_ns, err);
}

int mp_map_discard(struct mp_host *host, const char *uuid, uint64_t deadline_ns,
                   struct manypath_error *err)
{
    return remove_unflushed(host, uuid, is_left_over, NOTHING_REMOVED, deadline_ns, err);
}

/* ---- disks ---- */

static bool in_multipath_map(const struct mp_host *host, const char *name)
{
    struct mp_holders holders;

    return mp_holders_read(host, name, /* wwid= */ "", &holders) == 0 &&
           holders.other_map[0] != '\0';
}

/* Opens it exclusively, which fails while a file system, a map or another exclusive user has it. A
 * descriptor, or negative errno. */
static int claim(const struct mp_host *host, const char *name)
{
    char path[PATH_MAX];

    if ((size_t)snprintf(path, sizeof path, "%s/%s", host->dev_root, name) >= sizeof path)
        return -ENAMETOOLONG;
    int fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC);

    return fd < 0 ? -errno : fd;
}

/* Or without a medium: nothing can be cached for it. */
static bool is_gone(int result)
{
    return result == -ENOENT || result == -ENXIO || result == -ENODEV;
}

static int disk_in_use(const struct mp_host *host, const char *name, struct manypath_error *err)
{
    char users[320];

    mp_users_describe(host, name, -1, users, sizeof users);
    return mp_error(err, MANYPATH_E_IN_USE, MANYPATH_PHASE_UNMAP, EBUSY,
                    "%s is in use: %s; nothing was removed", name, users);
}

/* Nothing is known of the programs; `program` is one that may not be looked into. */
static int programs_unknown(const struct mp_host *host, const char *name, int result,
                            const char *program, struct manypath_error *err)
{
    if (result == -EACCES)
        return mp_error(err, MANYPATH_E_IN_USE, MANYPATH_PHASE_UNMAP, EACCES,
                        "cannot look whether %s has %s open; nothing was removed; run with "
                        "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, or go on unseen with force",
                        program, name);
    return mp_error(
        err, MANYPATH_E_IN_USE, MANYPATH_PHASE_UNMAP, result,
        "cannot look in %s whether a program has %s open: errno %d; nothing was removed",
        host->proc_root, name, -result);
}

int mp_disk_release(struct mp_host *host, const char *name, const struct mp_unmap_options *options,
                    uint64_t deadline_ns, struct mp_unmap_result *result,
                    struct manypath_error *err)
{
    uint64_t until_ns = mp_map_earlier(deadline_ns, mp_now_ns() + MP_MAP_BUSY_LIMIT);
    char opener[MP_USERS_PROGRAM_SIZE];
    int fd, error, program = 0;

    result->flush = MANYPATH_FLUSH_UNKNOWN;
    do { /* udev looks at disks for moments */
        fd = claim(host, name);
        if (fd >= 0) { /* let go of meanwhile: looking at every program takes its time */
            close(fd);
            int found = mp_users_program(host, name, deadline_ns, opener);

            result->unseen = found == -EACCES && options->force;
            if (result->unseen)
                found = 0;
            if (found != -ETIMEDOUT || program == 0) /* else the last look counts */
                program = found;
            fd = program == 0 ? claim(host, name) : -EBUSY;
        } else {
            program = 0;
        }
        result->mapped = fd == -EBUSY && in_multipath_map(host, name);
    } while (fd == -EBUSY && program >= 0 && !result->mapped && mp_wait_turn(until_ns));
    if (program < 0)
        return programs_unknown(host, name, program, opener, err);
    if (program > 0)
        return mp_error(err, MANYPATH_E_IN_USE, MANYPATH_PHASE_UNMAP, EBUSY,
                        "%s is in use: open in %s; nothing was removed", name, opener);
    if (is_gone(fd)) {
        result->flush = MANYPATH_FLUSH_NOT_NEEDED;
        return 0;
    }
    if (fd == -EBUSY)
        return disk_in_use(host, name, err);
    if (fd < 0) {
        result->flush = MANYPATH_FLUSH_FAILED;
        return mp_error(err, MANYPATH_E_FLUSH, MANYPATH_PHASE_FLUSH, fd,
                        "cannot open %s to flush it: errno %d; nothing was removed", name, -fd);
    }
    atomic_store(&result->claimed, true);
    error = fsync(fd) < 0 ? errno : 0;
    close(fd);
    result->flushed_ns = mp_now_ns();
    result->flush = error == 0 ? MANYPATH_FLUSH_DONE : MANYPATH_FLUSH_FAILED;
    if (error != 0)
        return mp_error(err, MANYPATH_E_FLUSH, MANYPATH_PHASE_FLUSH, error,
                        "flushing %s failed with errno %d; nothing was removed", name, error);
    return 0;
}

int mp_disk_recheck(struct mp_host *host, const char *name, bool claimed, uint64_t deadline_ns,
                    struct manypath_error *err)
{
    uint64_t until_ns = mp_map_earlier(deadline_ns, mp_now_ns() + MP_MAP_BUSY_LIMIT);
    char users[320];
    int fd;

    do /* another process may be looking just as we do */
        fd = claim(host, name);
    while (fd == -EBUSY && !mp_users_name(host, name, users, sizeof users) && !claimed &&
           mp_wait_turn(until_ns));
    if (fd >= 0)
        close(fd);
    if (fd >= 0 || is_gone(fd) || (fd == -EBUSY && claimed && users[0] == '\0'))
        return 0;
    if (fd != -EBUSY)
        return mp_error(err, MANYPATH_E_IN_USE, MANYPATH_PHASE_DELETE, fd,
                        "cannot open %s to see whether it came into use: errno %d; it was not "
                        "deleted",
                        name, -fd);
    mp_users_describe(host, name, -1, users, sizeof users);
    return mp_error(err, MANYPATH_E_IN_USE, MANYPATH_PHASE_DELETE, EBUSY,
                    "%s came into use after it was flushed: %s; it was not deleted", name, users);
}
