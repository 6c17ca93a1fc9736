/* SPDX-License-Identifier: Apache-2.0 */
#include "map.h"

#include "dm.h"
#include "dm_table.h"
#include "error.h"
#include "identity.h"
#include "multipathd.h"
#include "sysfs.h"
#include "text.h"
#include "wwids.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define MS UINT64_C(1000000) /* in nanoseconds */

enum {
    SECTOR = 512,
    POLL_MS = 20,       /* the kernel offers no event for "no longer busy" and "table swapped" */
    ATTEMPTS = 3,       /* multipathd may remove an empty map of ours between two ioctls */
    MEMBERS_MAX = 1024, /* kernel dm-mpath.c: paths per group */
};

/* udev's probing opens disks and maps for moments (60-block.rules watch): wait that long before
 * saying "busy". */
#define BUSY_LIMIT (5000 * MS)
/* How long multipathd gets to take a path by itself before it is asked to. */
#define ASK_AFTER (1000 * MS)
/* A creator between CREATE and RESUME. */
#define EMPTY_LIMIT (2000 * MS)

/* Without a semaphore, and so that udev keeps the links at the next coldplug (facts of libdm's udev
 * protocol). */
#define UDEV_FLAGS (MP_DM_UDEV_PRIMARY_SOURCE | MP_DM_UDEV_DISABLE_LIBRARY_FALLBACK)

/* Waits one poll interval; false once `until_ns` has passed. */
static bool wait_until(uint64_t until_ns)
{
    if (mp_now_ns() >= until_ns)
        return false;
    poll(NULL, 0, POLL_MS);
    return true;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* ---- errors ---- */

static int dm_unusable(int result, struct manypath_error *err)
{
    if (result == -EACCES || result == -EPERM)
        return mp_error(
            err, MANYPATH_E_PERMISSION, MANYPATH_PHASE_MAP, result,
            "device-mapper refuses this process: it must run as root with CAP_SYS_ADMIN");
    return mp_error(err, MANYPATH_E_NO_MULTIPATH, MANYPATH_PHASE_MAP, result,
                    "the kernel offers no device-mapper (errno %d); load the module dm_mod",
                    -result);
}

static int map_error(struct manypath_error *err, int phase, int result, const char *uuid,
                     const char *doing)
{
    if (result == -EACCES || result == -EPERM)
        return dm_unusable(result, err);
    return mp_error(err, MANYPATH_E_MAP, phase, result, "%s map %s failed: errno %d", doing, uuid,
                    -result);
}

/* "dm-3 (swap)": who holds a block device, for an error text. */
static void describe_holders(const struct mp_host *host, const char *name, char *text, size_t size)
{
    char holders[4][MANYPATH_DEVICE_SIZE];
    size_t count = 0;
    size_t used = 0;

    text[0] = '\0';
    if (mp_sysfs_holders(host->sysfs_root, name, holders, 4, &count) < 0)
        count = 0;
    for (size_t i = 0; i < count && i < 4 && used < size; i++) {
        char dm_name[MANYPATH_WWID_SIZE] = "";

        mp_sysfs_dm(host->sysfs_root, holders[i], NULL, 0, dm_name, sizeof dm_name);
        used += (size_t)snprintf(text + used, size - used, "%s%s%s%s%s", i > 0 ? ", " : "",
                                 holders[i], dm_name[0] != '\0' ? " (" : "", dm_name,
                                 dm_name[0] != '\0' ? ")" : "");
    }
    if (count == 0)
        snprintf(text, size, "a mounted file system, swap or an open program");
}

int mp_map_supported(struct mp_host *host, struct manypath_error *err)
{
    bool has = false;
    int fd = mp_host_dm(host);

    if (fd < 0)
        return dm_unusable(fd, err);
    int result = mp_dm_has_target(fd, "multipath", &has);

    if (result < 0)
        return dm_unusable(result, err);
    if (!has)
        return mp_error(err, MANYPATH_E_NO_MULTIPATH, MANYPATH_PHASE_MAP, 0,
                        "the kernel has no multipath target; load the module dm_multipath");
    return 0;
}

/* ---- creating ---- */

static const char *common_handler(const struct mp_map_path *paths, size_t count)
{
    for (size_t i = 1; i < count; i++)
        if (strcmp(paths[i].dh_state, paths[0].dh_state) != 0)
            return ""; /* mixed: name none, the attached ones are retained by the kernel anyway */
    return paths[0].dh_state;
}

static int build_table(const struct mp_map_path *paths, size_t count, char **ret_params)
{
    dev_t *devs = calloc(count, sizeof *devs);

    if (devs == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++)
        devs[i] = paths[i].dev;
    int result = mp_table_build(devs, count, common_handler(paths, count), ret_params);

    free(devs);
    return result;
}

static int claimed_error(const struct mp_host *host, const struct mp_map_path *paths, size_t count,
                         struct manypath_error *err)
{
    char holders[128];
    const char *name = paths[0].name;

    for (size_t i = 0; i < count; i++) {
        char path[PATH_MAX];

        snprintf(path, sizeof path, "%s/%s", host->dev_root, paths[i].name);
        int fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC);

        if (fd >= 0) {
            close(fd);
            continue;
        }
        name = paths[i].name;
        break;
    }
    describe_holders(host, name, holders, sizeof holders);
    return mp_error(err, MANYPATH_E_IN_USE, MANYPATH_PHASE_MAP, EBUSY,
                    "path %s is claimed by %s; release it and try again", name, holders);
}

/* Loads and resumes a table; waits out moments in which udev or LVM probe a path. */
static int load_and_resume(int fd, const char *uuid, uint64_t sectors, const char *params,
                           uint32_t udev_flags, bool reload, uint64_t deadline_ns)
{
    uint64_t until_ns = earlier(deadline_ns, mp_now_ns() + BUSY_LIMIT);
    bool read_only = false;
    int result;

    for (;;) {
        result = mp_dm_load(fd, uuid, sectors, "multipath", params, read_only);
        if (result == -EROFS && !read_only)
            read_only = true; /* a read-only LUN */
        else if (result != -EBUSY || !wait_until(until_ns))
            break;
    }
    if (result < 0)
        return result;
    result = mp_dm_resume(fd, uuid, udev_flags, reload);
    /* a table refused at the swap is dropped, and the map stays suspended: resuming it once more puts
     * the old table back to work (kernel do_resume) */
    if (result < 0 && reload)
        mp_dm_resume(fd, uuid, udev_flags, true);
    return result;
}

/* CREATE, LOAD, RESUME. -EEXIST: somebody else made the map; -ENXIO: somebody took ours away: both
 * start over. */
static int create(int fd, const char *wwid, const char *uuid, uint64_t sectors, const char *params,
                  uint64_t deadline_ns)
{
    struct mp_dm_info info;
    dev_t dev;
    int result = mp_dm_create(fd, wwid, uuid, &dev);

    if (result == -EBUSY) {
        if (mp_dm_info(fd, uuid, &info) == 0)
            return -EEXIST;
        result = mp_dm_create(fd, uuid, uuid, &dev); /* the name belongs to some other map */
    }
    if (result < 0)
        return result;
    result = load_and_resume(fd, uuid, sectors, params, UDEV_FLAGS, false, deadline_ns);
    if (result < 0)
        mp_dm_remove(fd, uuid, UDEV_FLAGS);
    return result;
}

/* ---- joining ---- */

static bool has_dev(const dev_t *devs, size_t count, dev_t dev)
{
    for (size_t i = 0; i < count; i++)
        if (devs[i] == dev)
            return true;
    return false;
}

/* A member that is not among our paths: its own VPD decides, if it can be read. */
static int check_foreign_member(const struct mp_host *host, dev_t dev, const char *wwid,
                                char *ret_unchecked, struct manypath_error *err)
{
    char name[MANYPATH_DEVICE_SIZE];
    struct mp_identity identity;
    int fd;

    if (mp_sysfs_block_name(host->sysfs_root, dev, name, sizeof name) < 0)
        return mp_error(
            err, MANYPATH_E_IDENTITY, MANYPATH_PHASE_MAP, ENOENT,
            "the map has a member %u:%u that does not exist any more; remove the map first",
            major(dev), minor(dev));
    int result = mp_identity_open(host, name, dev, &identity, &fd, err);

    if (result == MANYPATH_E_DEVICE) {
        mp_copy(ret_unchecked, MANYPATH_DEVICE_SIZE, name);
        return 0;
    }
    if (result < 0)
        return result;
    close(fd);
    if (strcmp(identity.wwid, wwid) != 0)
        return mp_error(err, MANYPATH_E_IDENTITY, MANYPATH_PHASE_MAP, 0,
                        "the map for %s has member %s, which is %s; it was not used", wwid, name,
                        identity.wwid);
    return 0;
}

static int check_members(const struct mp_host *host, int fd, const char *uuid, const char *wwid,
                         const struct mp_map_path *paths, size_t count, char *ret_unchecked,
                         struct manypath_error *err)
{
    dev_t *devs = NULL;
    size_t dev_count = 0;
    int result = mp_dm_deps(fd, uuid, &devs, &dev_count);

    if (result < 0)
        return map_error(err, MANYPATH_PHASE_MAP, result, uuid, "reading the members of");
    for (size_t i = 0; i < dev_count && result == 0; i++) {
        bool ours = false;

        for (size_t p = 0; p < count; p++)
            ours = ours || paths[p].dev == devs[i];
        if (!ours)
            result = check_foreign_member(host, devs[i], wwid, ret_unchecked, err);
    }
    free(devs);
    return result;
}

/* Which of our paths the map lacks; *ret_missing is their number. */
static int missing_paths(int fd, const char *uuid, const struct mp_map_path *paths, size_t count,
                         bool *missing, size_t *ret_missing)
{
    dev_t *devs = NULL;
    size_t dev_count = 0;
    size_t number = 0;
    int result = mp_dm_deps(fd, uuid, &devs, &dev_count);

    if (result < 0)
        return result;
    for (size_t i = 0; i < count; i++) {
        missing[i] = !has_dev(devs, dev_count, paths[i].dev);
        number += missing[i];
    }
    free(devs);
    *ret_missing = number;
    return 0;
}

/* No daemon owns the table: load one with the members it has and ours. */
static int reload_with(int fd, const char *uuid, uint64_t sectors, const struct mp_map_path *paths,
                       size_t count, uint64_t deadline_ns)
{
    struct mp_map_path *all;
    dev_t *devs = NULL;
    size_t dev_count = 0;
    char *params = NULL;
    int result = mp_dm_deps(fd, uuid, &devs, &dev_count);

    if (result < 0)
        return result;
    all = calloc(count + dev_count, sizeof *all);
    if (all == NULL) {
        free(devs);
        return -ENOMEM;
    }
    memcpy(all, paths, count * sizeof *all);
    size_t total = count;

    for (size_t i = 0; i < dev_count; i++) {
        bool ours = false;

        for (size_t p = 0; p < count; p++)
            ours = ours || paths[p].dev == devs[i];
        if (!ours) {
            all[total] = all[0];
            all[total].dev = devs[i];
            total++;
        }
    }
    result = build_table(all, total, &params);
    if (result == 0)
        result = load_and_resume(fd, uuid, sectors, params, UDEV_FLAGS | MP_DM_UDEV_MPATH_RELOAD,
                                 true, deadline_ns);
    free(params);
    free(all);
    free(devs);
    return result;
}

/* "add path sda" and the like; its answer as an errno. */
static int ask_multipathd(const struct mp_host *host, const char *what, const char *name,
                          uint64_t deadline_ns)
{
    char command[MANYPATH_WWID_SIZE + 16];
    char *reply = NULL;

    snprintf(command, sizeof command, "%s %s", what, name);
    int result = mp_multipathd_command(host->multipathd_socket, host->daemon_uid, command,
                                       deadline_ns, &reply);

    if (result == 0)
        result = mp_multipathd_reply_errno(reply);
    free(reply);
    return result;
}

/* Lets udev see the paths: multipathd takes only those that udev's database knows. */
static void unlock_paths(struct mp_map_path *paths, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (paths[i].fd >= 0)
            close(paths[i].fd);
        paths[i].fd = -1;
    }
}

/* multipathd owns the table and adds paths by itself when udev has announced them; asked again each
 * second, in case it had dropped one. */
static int wait_for_multipathd(const struct mp_host *host, int fd, const char *uuid,
                               struct mp_map_path *paths, size_t count, bool *missing,
                               size_t *ret_number, uint64_t deadline_ns)
{
    uint64_t ask_ns = mp_now_ns() + ASK_AFTER;
    int result;

    unlock_paths(paths, count);
    while ((result = missing_paths(fd, uuid, paths, count, missing, ret_number)) == 0 &&
           *ret_number > 0) {
        if (mp_now_ns() >= ask_ns) {
            for (size_t i = 0; i < count; i++)
                if (missing[i])
                    ask_multipathd(host, "add path", paths[i].name, deadline_ns);
            ask_ns = mp_now_ns() + ASK_AFTER;
        }
        if (!wait_until(deadline_ns))
            return -ETIMEDOUT;
    }
    return result;
}

/* Adds to an existing map what it lacks of our paths. */
static int complete_members(struct mp_host *host, int fd, const char *uuid, uint64_t sectors,
                            struct mp_map_path *paths, size_t count, bool multipathd,
                            uint64_t deadline_ns, struct manypath_error *err)
{
    bool *missing = calloc(count, sizeof *missing);
    size_t number = 0;
    int result =
        missing != NULL ? missing_paths(fd, uuid, paths, count, missing, &number) : -ENOMEM;

    if (result == 0 && number > 0)
        result = multipathd ? wait_for_multipathd(host, fd, uuid, paths, count, missing, &number,
                                                  deadline_ns)
                            : reload_with(fd, uuid, sectors, paths, count, deadline_ns);
    free(missing);
    if (result == -ETIMEDOUT)
        return mp_error(err, MANYPATH_E_MAP, MANYPATH_PHASE_MAP, result,
                        "multipathd owns map %s and did not take %zu of our paths into it", uuid,
                        number);
    if (result < 0)
        return map_error(err, MANYPATH_PHASE_MAP, result, uuid, "adding paths to");
    return 0;
}

/* An existing map: waits while its creator is not finished; removes an empty one that nobody
 * finishes. -EAGAIN: it is gone, start over. */
static int wait_for_table(int fd, const char *uuid, uint64_t deadline_ns,
                          struct mp_dm_info *ret_info)
{
    uint64_t until_ns = earlier(deadline_ns, mp_now_ns() + EMPTY_LIMIT);

    for (;;) {
        int result = mp_dm_info(fd, uuid, ret_info);

        if (result == -ENXIO)
            return -EAGAIN;
        if (result < 0 || (ret_info->active_table && !ret_info->suspended))
            return result;
        if (wait_until(until_ns))
            continue;
        if (ret_info->active_table)
            return mp_dm_resume(fd, uuid, UDEV_FLAGS,
                                true); /* left suspended by a crash: I/O would hang */
        mp_dm_remove(fd, uuid, UDEV_FLAGS);
        return -EAGAIN;
    }
}

static int check_type(int fd, const char *uuid, struct manypath_error *err)
{
    char type[16];
    char *params = NULL;
    int result = mp_dm_table(fd, uuid, type, &params);

    free(params);
    if (result < 0)
        return map_error(err, MANYPATH_PHASE_MAP, result, uuid, "reading the table of");
    if (strcmp(type, "multipath") != 0)
        return mp_error(err, MANYPATH_E_MAP, MANYPATH_PHASE_MAP, 0,
                        "map %s is of type %s, not multipath; it was not touched", uuid, type);
    return 0;
}

/* ---- the result ---- */

static void read_states(int fd, const char *uuid, struct mp_map_path *paths, size_t count)
{
    char type[16];
    char *params = NULL;
    struct mp_table table;

    if (mp_dm_status(fd, uuid, type, &params) < 0)
        return;
    if (mp_table_parse_status(params, &table) == 0) {
        for (size_t p = 0; p < count; p++)
            for (size_t i = 0; i < table.path_count; i++)
                if (table.paths[i].dev == paths[p].dev)
                    paths[p].state =
                        table.paths[i].active ? MANYPATH_PATH_ACTIVE : MANYPATH_PATH_INACTIVE;
        mp_table_free(&table);
    }
    free(params);
}

static int list_wwid(const struct mp_host *host, const char *wwid, uint64_t deadline_ns)
{
    char marker[256];

    /* left by a multipathd that once failed to make this map; it would keep udev from seeing the
     * paths as such */
    snprintf(marker, sizeof marker, "/run/multipath/failed_wwids/%s", wwid);
    unlink(marker);
    return mp_wwids_add(host->multipath_dir, wwid, deadline_ns);
}

int mp_map_join(struct mp_host *host, const char *wwid, uint64_t size_bytes,
                struct mp_map_path *paths, size_t path_count, bool join_only, uint64_t deadline_ns,
                struct mp_map *ret_map, struct manypath_error *err)
{
    char uuid[MP_DM_UUID_SIZE];
    struct mp_map map = {.existed = false};
    struct mp_dm_info info;
    char *params = NULL;
    uint64_t sectors = size_bytes / SECTOR;
    int fd = mp_host_dm(host);

    if (fd < 0)
        return dm_unusable(fd, err);
    if ((size_t)snprintf(uuid, sizeof uuid, "mpath-%s", wwid) >= sizeof uuid)
        return mp_error(err, MANYPATH_E_IDENTITY, MANYPATH_PHASE_MAP, ENAMETOOLONG,
                        "WWID %s is too long for a map", wwid);
    map.multipathd_running = mp_multipathd_running(host->multipathd_pidfile);
    if (join_only && mp_dm_info(fd, uuid, &info) == -ENXIO)
        return mp_error(err, MANYPATH_E_MAP, MANYPATH_PHASE_MAP, ENXIO,
                        "map %s is not there any more", uuid);
    map.wwid_listed = list_wwid(host, wwid, deadline_ns) == 0;
    int result = build_table(paths, path_count, &params);

    for (int attempt = 0; result == 0 && attempt < ATTEMPTS; attempt++) {
        result = mp_dm_info(fd, uuid, &info);
        if (result == -ENXIO && join_only)
            break;
        if (result == -ENXIO) {
            map.existed = false;
            result = create(fd, wwid, uuid, sectors, params, deadline_ns);
            if (result == 0)
                break;
        } else if (result == 0) {
            map.existed = true;
            result = wait_for_table(fd, uuid, deadline_ns, &info);
            if (result == 0)
                break;
        }
        if (result == -EEXIST || result == -ENXIO || result == -EAGAIN)
            result = attempt + 1 < ATTEMPTS ? 0 : result;
    }
    free(params);
    if (result == -EBUSY)
        return claimed_error(host, paths, path_count, err);
    if (result == -EINVAL && mp_map_supported(host, err) < 0)
        return MANYPATH_E_NO_MULTIPATH; /* the module went since we asked */
    if (result < 0)
        return map_error(err, MANYPATH_PHASE_MAP, result, uuid, "making");
    if (map.existed) {
        result = check_type(fd, uuid, err);
        if (result == 0)
            result = check_members(host, fd, uuid, wwid, paths, path_count, map.unchecked, err);
        if (result == 0)
            result = complete_members(host, fd, uuid, sectors, paths, path_count,
                                      map.multipathd_running, deadline_ns, err);
        if (result < 0)
            return result;
    }
    result = mp_dm_info(fd, uuid, &info);
    if (result < 0)
        return map_error(err, MANYPATH_PHASE_MAP, result, uuid, "reading back");
    read_states(fd, uuid, paths, path_count);
    map.dev = info.dev;
    mp_copy(map.name, sizeof map.name, info.name);
    snprintf(map.device, sizeof map.device, "dm-%u", minor(info.dev));
    if (mp_sysfs_block_size(host->sysfs_root, map.device, &map.size_bytes) < 0)
        map.size_bytes = size_bytes;
    *ret_map = map;
    return 0;
}

/* ---- resizing ---- */

struct resize {
    struct mp_host *host;
    int fd;
    const char *uuid;
    char device[MANYPATH_DEVICE_SIZE];
    uint64_t size_bytes;
    struct mp_map_path *paths;
    size_t path_count;
    uint64_t deadline_ns;
    size_t short_count;
    dev_t *short_members; /* they have to leave the map first */
};

static struct mp_map_path *path_of(const struct resize *resize, dev_t dev)
{
    for (size_t i = 0; i < resize->path_count; i++)
        if (resize->paths[i].dev == dev)
            return &resize->paths[i];
    return NULL;
}

/* The size as the kernel has it; "" as the name: the disk is gone. */
static uint64_t size_of_member(const struct resize *resize, dev_t dev, char *ret_name)
{
    const char *root = resize->host->sysfs_root;
    uint64_t bytes = 0;

    ret_name[0] = '\0';
    if (mp_sysfs_block_name(root, dev, ret_name, MANYPATH_DEVICE_SIZE) < 0 ||
        mp_sysfs_block_size(root, ret_name, &bytes) < 0)
        ret_name[0] = '\0';
    return bytes;
}

/* The kernel takes no table that is longer than one of its disks (dm-table.c
 * device_area_is_invalid). Members that have another size leave the map if they are down or gone; if
 * they answer, the map stays as it is. */
static int find_short_members(struct resize *resize, struct manypath_error *err)
{
    size_t count = 0;

    free(resize->short_members);
    resize->short_members = NULL;
    resize->short_count = 0;
    int result = mp_dm_deps(resize->fd, resize->uuid, &resize->short_members, &count);

    if (result < 0)
        return map_error(err, MANYPATH_PHASE_RESIZE, result, resize->uuid,
                         "reading the members of");
    for (size_t i = 0; i < count; i++) {
        dev_t dev = resize->short_members[i];
        struct mp_map_path *path = path_of(resize, dev);
        char name[MANYPATH_DEVICE_SIZE];
        uint64_t bytes = size_of_member(resize, dev, name);

        if (name[0] != '\0' && bytes == resize->size_bytes)
            continue;
        if (name[0] != '\0' && (path == NULL || path->state != MANYPATH_PATH_FAILED))
            return mp_error(err, MANYPATH_E_MAP, MANYPATH_PHASE_RESIZE, 0,
                            "%s has a member %s of %" PRIu64 " bytes beside those of %" PRIu64
                            "; it was not resized, extend again",
                            resize->device, name, bytes, resize->size_bytes);
        resize->short_members[resize->short_count++] = dev;
        if (path != NULL)
            path->removed = true;
    }
    if (resize->short_count == count)
        return mp_error(err, MANYPATH_E_MAP, MANYPATH_PHASE_RESIZE, 0,
                        "%s has no member of %" PRIu64 " bytes any more; it was not resized",
                        resize->device, resize->size_bytes);
    return 0;
}

/* No daemon owns the table: the same once more, longer. udev is told to look at the map, other than
 * when paths come and go, because its size is new. */
static int load_longer(const struct resize *resize)
{
    char type[16];
    char *table = NULL, *params = NULL;
    int result = mp_dm_table(resize->fd, resize->uuid, type, &table);

    if (result == 0)
        result = mp_table_without(table, resize->short_members, resize->short_count, &params);
    if (result == 0)
        result = load_and_resume(resize->fd, resize->uuid, resize->size_bytes / SECTOR, params,
                                 UDEV_FLAGS, true, resize->deadline_ns);
    free(params);
    free(table);
    return result;
}

/* By "dm-N", since multipathd before 0.9.8 finds maps by alias or number only. It takes the size of
 * the first path (before 0.9.7) or refuses if they differ: so short members go first. */
static int ask_for_longer(const struct resize *resize)
{
    for (size_t i = 0; i < resize->short_count; i++) {
        char name[MANYPATH_DEVICE_SIZE];

        size_of_member(resize, resize->short_members[i], name);
        if (name[0] != '\0') /* multipathd takes out by itself what is gone */
            ask_multipathd(resize->host, "del path", name, resize->deadline_ns);
    }
    return ask_multipathd(resize->host, "resize map", resize->device, resize->deadline_ns);
}

static int not_longer(const struct resize *resize, int answer, struct manypath_error *err)
{
    const char *said = answer == 0            ? "it says that it did"
                       : answer == -EAGAIN    ? "it is too busy"
                       : answer == -ENODEV    ? "it does not know the map"
                       : answer == -ETIMEDOUT ? "it does not answer"
                                              : "it refuses";
    bool removed = false;

    for (size_t i = 0; i < resize->path_count; i++)
        removed = removed || resize->paths[i].removed;
    return mp_error(err, MANYPATH_E_MAP, MANYPATH_PHASE_RESIZE, answer,
                    "multipathd owns %s and did not resize it to %" PRIu64 " bytes: %s%s",
                    resize->device, resize->size_bytes, said,
                    removed ? "; paths that do not answer were taken out of it before" : "");
}

/* Until sysfs shows the size. multipathd's answer is no proof, and a failure may be a passing one
 * (it is busy, or has not taken the map over yet): it is asked again each second, and tells nobody
 * when it is ready. */
static int resize_map(struct resize *resize, bool *ret_multipathd, struct manypath_error *err)
{
    uint64_t ask_ns = 0;
    int answer = 0;

    for (;;) {
        uint64_t bytes = 0;
        int result = mp_sysfs_block_size(resize->host->sysfs_root, resize->device, &bytes);

        if (result < 0)
            return map_error(err, MANYPATH_PHASE_RESIZE, result, resize->uuid, "reading back");
        *ret_multipathd = mp_multipathd_running(resize->host->multipathd_pidfile);
        if (bytes == resize->size_bytes)
            return 0;
        if (bytes > resize->size_bytes)
            return mp_error(err, MANYPATH_E_MAP, MANYPATH_PHASE_RESIZE, 0,
                            "somebody else made %s %" PRIu64 " bytes long meanwhile; extend again",
                            resize->device, bytes);
        if (mp_now_ns() >= ask_ns) {
            result = find_short_members(resize, err);
            if (result < 0)
                return result;
            answer = *ret_multipathd ? ask_for_longer(resize) : load_longer(resize);
            if (!*ret_multipathd && answer < 0)
                return map_error(err, MANYPATH_PHASE_RESIZE, answer, resize->uuid, "resizing");
            ask_ns = mp_now_ns() + ASK_AFTER;
        } else if (!wait_until(resize->deadline_ns)) {
            return not_longer(resize, answer, err);
        }
    }
}

int mp_map_resize(struct mp_host *host, const char *uuid, uint64_t size_bytes,
                  struct mp_map_path *paths, size_t path_count, uint64_t deadline_ns,
                  bool *ret_multipathd, struct manypath_error *err)
{
    struct resize resize = {.host = host,
                            .uuid = uuid,
                            .size_bytes = size_bytes,
                            .paths = paths,
                            .path_count = path_count,
                            .deadline_ns = deadline_ns};
    struct mp_dm_info info;

    resize.fd = mp_host_dm(host);
    if (resize.fd < 0)
        return dm_unusable(resize.fd, err);
    int result = mp_dm_info(resize.fd, uuid, &info);

    if (result < 0)
        return map_error(err, MANYPATH_PHASE_RESIZE, result, uuid, "looking up");
    snprintf(resize.device, sizeof resize.device, "dm-%u", minor(info.dev));
    result = check_type(resize.fd, uuid, err);
    if (result == 0)
        result = resize_map(&resize, ret_multipathd, err);
    if (result == 0)
        read_states(resize.fd, uuid, paths, path_count);
    free(resize.short_members);
    return result;
}

/* ---- removing ---- */

#define NOTHING_REMOVED "nothing was removed"

static int in_use(const struct mp_host *host, const char *device, int open_count,
                  const char *outcome, struct manypath_error *err)
{
    char holders[128];

    describe_holders(host, device, holders, sizeof holders);
    return mp_error(err, MANYPATH_E_IN_USE, MANYPATH_PHASE_UNMAP, EBUSY,
                    "%s is in use (%d open) by %s; %s", device, open_count, holders, outcome);
}

/* Writes back what the page cache holds for this block device. Opened read-only: closing a writable
 * descriptor would make udev probe the device. */
static int flush(const struct mp_host *host, const char *device, struct manypath_error *err)
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

static int remove_map(struct mp_host *host, int fd, const char *uuid, const char *wwid,
                      const char *device, uint64_t until_ns, uint64_t deadline_ns,
                      const char *outcome, struct manypath_error *err)
{
    struct mp_dm_info info;
    int result;

    /* through the daemon first, so that it does not mistake our removal for a fault; the map's uuid
     * decides */
    if (mp_multipathd_running(host->multipathd_pidfile))
        ask_multipathd(host, "del map", wwid, deadline_ns);
    for (;;) {
        result = mp_dm_info(fd, uuid, &info);
        if (result == -ENXIO)
            return 0;
        if (result == 0)
            result = mp_dm_remove(fd, uuid, UDEV_FLAGS);
        if (result == 0 || result == -ENXIO)
            continue; /* look once more */
        if (result != -EBUSY)
            return map_error(err, MANYPATH_PHASE_UNMAP, result, uuid, "removing");
        if (!wait_until(until_ns))
            return in_use(host, device, info.open_count, outcome, err);
    }
}

int mp_map_remove(struct mp_host *host, const char *uuid, uint64_t deadline_ns,
                  struct mp_unmap_times *ret_times, struct manypath_error *err)
{
    const char *wwid = strncmp(uuid, "mpath-", 6) == 0 ? uuid + 6 : uuid;
    char device[MANYPATH_DEVICE_SIZE];
    uint64_t until_ns = earlier(deadline_ns, mp_now_ns() + BUSY_LIMIT);
    struct mp_dm_info info;
    int fd = mp_host_dm(host);

    if (fd < 0)
        return dm_unusable(fd, err);
    ret_times->flushed_ns = mp_now_ns();
    for (;;) {
        int result = mp_dm_info(fd, uuid, &info);

        if (result == -ENXIO)
            return 0;
        if (result < 0)
            return map_error(err, MANYPATH_PHASE_UNMAP, result, uuid, "looking up");
        snprintf(device, sizeof device, "dm-%u", minor(info.dev));
        if (info.open_count == 0)
            break;
        if (!wait_until(until_ns))
            return in_use(host, device, info.open_count, NOTHING_REMOVED, err);
    }
    int result = flush(host, device, err);

    ret_times->flushed_ns = mp_now_ns();
    if (result == 0)
        result =
            remove_map(host, fd, uuid, wwid, device, until_ns, deadline_ns, NOTHING_REMOVED, err);
    return result;
}

/* Every disk in its table, and there is one. */
static int members_are_gone(const struct mp_host *host, int fd, const char *uuid, bool *ret_gone)
{
    char name[MANYPATH_DEVICE_SIZE];
    dev_t *devs = NULL;
    size_t count = 0;
    int result = mp_dm_deps(fd, uuid, &devs, &count);

    *ret_gone = result == 0 && count > 0;
    for (size_t i = 0; i < count && *ret_gone; i++)
        *ret_gone = mp_sysfs_block_name(host->sysfs_root, devs[i], name, sizeof name) == -ENOENT;
    free(devs);
    return result;
}

int mp_map_remove_orphan(struct mp_host *host, const char *uuid, uint64_t deadline_ns,
                         struct manypath_error *err)
{
    const char *wwid = strncmp(uuid, "mpath-", 6) == 0 ? uuid + 6 : uuid;
    uint64_t until_ns = earlier(deadline_ns, mp_now_ns() + BUSY_LIMIT);
    uint64_t empty_until_ns = earlier(deadline_ns, mp_now_ns() + EMPTY_LIMIT);
    char device[MANYPATH_DEVICE_SIZE];
    struct mp_dm_info info;
    bool gone = false;
    int result, fd = mp_host_dm(host);

    if (fd < 0)
        return dm_unusable(fd, err);
    do /* its creator, between CREATE and RESUME, either finishes or finds the disks gone */
        result = mp_dm_info(fd, uuid, &info);
    while (result == 0 && !info.active_table && wait_until(empty_until_ns));
    if (result == 0 && info.active_table)
        result = members_are_gone(host, fd, uuid, &gone);
    if (result == -ENXIO || (result == 0 && !gone))
        return 0;
    if (result < 0)
        return map_error(err, MANYPATH_PHASE_UNMAP, result, uuid, "looking up");
    snprintf(device, sizeof device, "dm-%u", minor(info.dev));
    mp_dm_message(fd, uuid, "fail_if_no_path"); /* udev's probing must not hang in it */
    return remove_map(host, fd, uuid, wwid, device, until_ns, deadline_ns,
                      "multipathd made it again, and its disks are gone", err);
}

int mp_disk_release(struct mp_host *host, const char *name, uint64_t deadline_ns,
                    struct manypath_error *err)
{
    char path[PATH_MAX];
    uint64_t until_ns = earlier(deadline_ns, mp_now_ns() + BUSY_LIMIT);
    int fd;

    snprintf(path, sizeof path, "%s/%s", host->dev_root, name);
    /* exclusive: fails while a file system, a map or another exclusive user has it */
    while ((fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC)) < 0 && errno == EBUSY &&
           wait_until(until_ns))
        ;
    if (fd < 0) {
        char holders[128];

        if (errno == ENOENT || errno == ENXIO || errno == ENODEV)
            return 0; /* gone, or without a medium: nothing can be cached for it */
        if (errno != EBUSY)
            return mp_error(err, MANYPATH_E_FLUSH, MANYPATH_PHASE_FLUSH, errno,
                            "cannot open %s to flush it: errno %d; nothing was removed", path,
                            errno);
        describe_holders(host, name, holders, sizeof holders);
        return mp_error(err, MANYPATH_E_IN_USE, MANYPATH_PHASE_UNMAP, EBUSY,
                        "%s is in use by %s; nothing was removed", name, holders);
    }
    int result = fsync(fd) < 0 ? -errno : 0;

    close(fd);
    if (result < 0)
        return mp_error(err, MANYPATH_E_FLUSH, MANYPATH_PHASE_FLUSH, result,
                        "flushing %s failed with errno %d; nothing was removed", path, -result);
    return 0;
}
