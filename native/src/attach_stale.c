/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attach: who a disk is, and whether it is left over. A LUN can be unmapped, and its number given to
 * another volume, while the disk that the kernel made for the old one stays, and perhaps its map.
 * So a disk that was there before our scan is compared with what the kernel, the maps above it and udev
 * took it for; and if that is another volume, if its LUN is gone, or if the kernel has given it
 * up, it is removed and scanned again, provided that nobody uses it:
 *
 *   1. the map of the old WWID that holds it, if it is not open, nobody holds it, and none of its
 *      members is that volume any more. It is not flushed, and need not be: the page cache of a block
 *      device is written back and dropped when the last one closes it (kernel blkdev_flush_mapping),
 *      so a map that is not open has nothing to write.
 *   2. the disk is set offline. Deleting a disk writes back what its page cache holds (kernel
 *      del_gendisk), and a program that opened it without claiming it may have left dirty pages there:
 *      they belong to the old volume, so they must fail rather than reach the new one.
 *   3. the disk is deleted; the path then scans its LUN again and reads its identity as of a new one.
 *
 * Only the disk of the path itself is touched; a stale disk elsewhere is not ours.
 */
#include "attach_state.h"

#include "error.h"
#include "scsi.h"
#include "sysfs.h"
#include "text.h"
#include "udevdb.h"
#include "users.h"
#include "waiting.h"
#include "wwid_locks.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum {
    MEMBERS_MAX = 64,
    STATE_SIZE = 24,
    CAPACITY_TIMEOUT_MS = 10000,
};

/* A disk comes back to "running" a moment after its session is logged in (kernel iscsi_unblock). */
#define RUNNING_PATIENCE (1000 * MP_MS)
/* udev, LVM and others claim disks for moments. */
#define CLAIM_PATIENCE (1000 * MP_MS)
/* udev has maps open for longer on a busy host. */
#define OPEN_PATIENCE (2000 * MP_MS)

/* What is wrong with a disk that was there. */
struct fault {
    bool other_volume; /* it is another disk than somebody took it for: nobody may go on with it */
    char text[MANYPATH_MESSAGE_SIZE / 2]; /* "": nothing */
};

static bool found(struct fault *fault, bool other_volume, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static bool found(struct fault *fault, bool other_volume, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(fault->text, sizeof fault->text, format, args);
    va_end(args);
    fault->other_volume = other_volume;
    return true;
}

/* For how long to wait now: no longer than leaves time for what follows. */
static uint64_t patience(const struct mp_attach_job *job, uint64_t most_ns)
{
    uint64_t now = mp_now_ns();
    uint64_t left = job->deadline_ns > now ? (job->deadline_ns - now) / 2 : 0;

    return now + (left < most_ns ? left : most_ns);
}

/* ---- what is wrong ---- */

static bool read_state(const struct mp_attach_job *job, const char *name, char *state, size_t size)
{
    size_t length;

    if (mp_sysfs_device_attribute(job->host->sysfs_root, name, "state", state, size - 1, &length) <
        0)
        return false;
    state[length > 0 && state[length - 1] == '\n' ? length - 1 : length] = '\0';
    return true;
}

/* The kernel has given it up, although its session is logged in. */
static bool is_down(const struct mp_attach_job *job, struct fault *fault)
{
    uint64_t until_ns = patience(job, RUNNING_PATIENCE);
    char state[STATE_SIZE];

    mp_copy(state, sizeof state, job->disk.state);
    while (strcmp(state, "transport-offline") == 0 && mp_wait_turn(until_ns) &&
           read_state(job, job->disk.name, state, sizeof state))
        ;
    return (strcmp(state, "offline") == 0 || strcmp(state, "transport-offline") == 0) &&
           found(fault, false, "its state is %s although its session is logged in", state);
}

/* Who the kernel took it for when it made the disk, or scanned it last. */
static bool differs_from_kernel(const struct mp_attach_job *job, const uint8_t *names,
                                size_t names_length, struct fault *fault)
{
    uint8_t page[MP_VPD_PAGE_SIZE], then_names[MP_LUN_NAMES_SIZE];
    char then[MANYPATH_WWID_SIZE] = "a disk with other designators";
    size_t length, then_length;

    if (mp_sysfs_page83(job->host->sysfs_root, job->disk.name, page, &length) < 0 ||
        mp_vpd83_lun_names(page, length, then_names, sizeof then_names, &then_length) < 0)
        return false; /* a kernel that keeps none */
    bool named = mp_vpd83_wwid(page, length, then) == 0;

    /* a volume that keeps its number may be renamed, and one without is its names */
    if (names_length == 0
            ? named && strcmp(then, job->identity.wwid) == 0
            : names_length == then_length && memcmp(names, then_names, then_length) == 0)
        return false;
    return found(fault, true, "it is %s now, and the kernel has it as %s",
                 job->identity.wwid[0] != '\0' ? job->identity.wwid : "another disk", then);
}

/* Another volume's name in udev's database would lead multipathd to take it into that volume's map. */
static bool differs_from_udev(const struct mp_attach_job *job, struct fault *fault)
{
    uint8_t names[MP_LUN_NAMES_SIZE];
    size_t length;
    struct mp_udevdb entry;

    if (job->appeared_ns != 0 || /* udev looks at a new disk by itself */
        mp_udevdb_read(job->host->udev_data, job->disk.dev, &entry) < 0 ||
        entry.id_serial[0] == '\0' || strcmp(entry.id_serial, job->identity.wwid) == 0)
        return false;
    if (mp_identity_names(job->host, job->disk.name, job->disk.dev, names, &length) < 0 ||
        mp_lun_names_have(names, length, entry.id_serial))
        return false; /* it goes by another of its names */
    return found(fault, true, "it is %s now, and udev has it as %s", job->identity.wwid,
                 entry.id_serial);
}

static void learn(struct mp_attach_job *job, uint64_t udev_deadline_ns)
{
    struct mp_identity_terms terms = {.serial = job->wants_serial,
                                      .appeared_ns = job->appeared_ns,
                                      .deadline_ns = udev_deadline_ns};

    if (job->fd >= 0)
        close(job->fd);
    job->fd = -1;
    job->result = mp_identity_learn(job->host, job->disk.name, job->disk.dev, &terms,
                                    &job->identity, &job->fd, &job->error);
}

/* Without a map, a program that merely has the disk open is its user. Our descriptor is closed. */
static bool is_open(const struct mp_attach_job *job, char *users, size_t size)
{
    uint64_t until_ns = patience(job, CLAIM_PATIENCE);
    char program[MP_USERS_PROGRAM_SIZE] = "an unknown program";
    int found;

    do /* udev looks at disks for moments */
        found = mp_users_program(job->host, job->disk.name, job->deadline_ns, program);
    while (found == 1 && mp_wait_turn(until_ns));
    snprintf(users, size, "open in %s", program);
    return found != 0; /* nobody can tell: leave it alone */
}

/* Somebody other than the volume's own map. */
static bool is_used(const struct mp_attach_job *job, char *users, size_t size)
{
    return job->holders.map[0] == '\0' &&
           (mp_users_describe(job->host, job->disk.name, -1, users, size) || job->claimed ||
            (job->single_path && is_open(job, users, size)));
}

/* The volume has another size than the kernel knows: it was extended while nobody looked. A disk that
 * somebody uses keeps the size that he knows; so does one that has become smaller while a map holds it. */
static void correct_size(struct mp_attach_job *job)
{
    const struct mp_identity judged = job->identity;
    uint64_t before = judged.size_bytes;
    char users[MANYPATH_MESSAGE_SIZE / 4];
    uint64_t bytes;

    if (mp_scsi_capacity(job->fd, CAPACITY_TIMEOUT_MS, &bytes) < 0 || bytes == before ||
        (bytes < before && job->holders.map[0] != '\0'))
        return;
    mp_identity_close(&job->fd); /* it would look like a user's */
    if (is_used(job, users, sizeof users)) {
        snprintf(job->note, sizeof job->note,
                 "%s has %" PRIu64 " bytes now, and the kernel has it with %" PRIu64
                 ": it was not rescanned, since it is in use (%s)",
                 job->disk.name, bytes, before, users);
    } else {
        mp_scsi_rescan(job->host->sysfs_root, job->disk.host, job->disk.channel, job->disk.target,
                       job->disk.lun);
    }
    learn(job, job->deadline_ns);
    if (job->result == 0 && !mp_identity_same_disk(&job->identity, &judged))
        job->result = mp_error(&job->error, MANYPATH_E_IDENTITY, MANYPATH_PHASE_IDENTITY, 0,
                               "%s was %s, and is %s now; try again", job->disk.name, judged.wwid,
                               job->identity.wwid);
    if (job->result == 0 && job->identity.size_bytes != before)
        snprintf(job->note, sizeof job->note,
                 "%s has %" PRIu64 " bytes now, and the kernel had it with %" PRIu64
                 ": it was rescanned",
                 job->disk.name, job->identity.size_bytes, before);
}

/* Reads the identity of a disk that was there before our scan. */
static bool is_stale(struct mp_attach_job *job, struct fault *fault)
{
    struct mp_identity *identity = &job->identity;
    uint8_t names[MP_LUN_NAMES_SIZE];
    size_t length;

    if (is_down(job, fault))
        return true;
    learn(job, 0);
    if (job->result < 0 && job->error.sys_errno == ENODEV)
        return found(fault, false, "the target offers no such LUN any more");
    if (job->result == MANYPATH_E_IDENTITY) { /* udev has not seen it, or saw another disk */
        if (mp_identity_names(job->host, job->disk.name, job->disk.dev, names, &length) == 0 &&
            differs_from_kernel(job, names, length, fault))
            return true;
        learn(job, job->deadline_ns);
    }
    if (job->result < 0)
        return false;
    if (mp_holders_read(job->host, job->disk.name, identity->wwid, &job->holders) < 0)
        return false; /* gone meanwhile */
    if (job->holders.other_map[0] != '\0')
        return found(fault, true, "it is %s now, and in map %s of %s", identity->wwid,
                     job->holders.other_map, job->holders.other_wwid);
    if (job->holders.map[0] == '\0' &&
        (differs_from_kernel(job, identity->names, identity->names_length, fault) ||
         differs_from_udev(job, fault)))
        return true;
    if (job->holders.map[0] != '\0' && differs_from_udev(job, fault)) {
        /* it stays in its map: multipathd and udev look again */
        fault->text[0] = '\0';
        mp_scsi_announce(job->host->sysfs_root, job->disk.name);
    }
    return false;
}

/* ---- removing it ---- */

static bool refuse(struct mp_attach_job *job, const struct fault *fault, const char *holder)
{
    job->refuses = fault->other_volume;
    job->result = mp_error(&job->error, MANYPATH_E_IN_USE, MANYPATH_PHASE_IDENTITY, EBUSY,
                           "%s is left over: %s; it is in use (%s), so it was not replaced; "
                           "release it and try again",
                           job->disk.name, fault->text, holder);
    return false;
}

/* A member that does not answer may still be the map's volume; not so one that the kernel does not ask
 * any more, until somebody sets it running. */
static bool is_gone_or_other(const struct mp_attach_job *job, const char *name, dev_t dev)
{
    struct mp_identity identity;
    struct manypath_error error;
    char state[STATE_SIZE];

    if (read_state(job, name, state, sizeof state) && strcmp(state, "offline") == 0)
        return true;
    if (mp_identity_read(job->host, name, dev, &identity, &error) < 0)
        return error.sys_errno == ENODEV;
    return strcmp(identity.wwid, job->holders.other_wwid) != 0;
}

/* A member of the map, other than ours, that is still the map's volume. */
static bool has_right_member(const struct mp_attach_job *job, char ret_name[MANYPATH_DEVICE_SIZE])
{
    const struct mp_holders *holders = &job->holders;
    char names[MEMBERS_MAX][MANYPATH_DEVICE_SIZE];
    size_t count = 0;

    if (mp_sysfs_slaves(job->host->sysfs_root, holders->other_map, names, MEMBERS_MAX, &count) < 0)
        return false;
    for (size_t i = 0; i < count && i < MEMBERS_MAX; i++) {
        dev_t dev;

        if (strcmp(names[i], job->disk.name) == 0 ||
            mp_sysfs_block_dev(job->host->sysfs_root, names[i], &dev) < 0 ||
            is_gone_or_other(job, names[i], dev))
            continue;
        mp_copy(ret_name, MANYPATH_DEVICE_SIZE, names[i]);
        return true;
    }
    return false;
}

static bool remove_map(struct mp_attach_job *job, const struct fault *fault)
{
    struct mp_holders *holders = &job->holders;
    char uuid[sizeof "mpath-" + MANYPATH_WWID_SIZE];
    char member[MANYPATH_DEVICE_SIZE];
    char name[MANYPATH_WWID_SIZE] = "";
    char text[MANYPATH_MESSAGE_SIZE / 4];
    struct manypath_error error;

    if (has_right_member(job, member)) {
        snprintf(text, sizeof text, "map %s, whose other member %s is still its volume",
                 holders->other_map, member);
        return refuse(job, fault, text);
    }
    snprintf(uuid, sizeof uuid, "mpath-%s", holders->other_wwid);
    if (mp_map_discard(job->host, uuid, patience(job, OPEN_PATIENCE), &error) == 0)
        return true;
    mp_sysfs_dm(job->host->sysfs_root, holders->other_map, NULL, 0, name, sizeof name);
    snprintf(text, sizeof text, "map %s (%.64s)", holders->other_map, name);
    return refuse(job, fault, text);
}

static bool release(struct mp_attach_job *job, const struct fault *fault)
{
    uint64_t until_ns = patience(job, CLAIM_PATIENCE);

    do { /* multipathd may make a map once more until the disk is gone: whichever has it has to go */
        if (mp_holders_read(job->host, job->disk.name, "", &job->holders) < 0)
            return true; /* gone already */
        if (job->holders.foreign[0] != '\0')
            return refuse(job, fault, job->holders.foreign);
        if (job->holders.other_map[0] != '\0' && !remove_map(job, fault))
            return false;
        if (!mp_disk_is_claimed(job->host, job->disk.name))
            return true;
    } while (mp_wait_turn(until_ns));
    char users[MANYPATH_MESSAGE_SIZE / 4];

    mp_users_describe(job->host, job->disk.name, -1, users, sizeof users);
    return refuse(job, fault, users);
}

/* Is there still the disk that was judged? Another process may have replaced it. */
static bool still_there(const struct mp_attach_job *job)
{
    const char *root = job->host->sysfs_root;
    int32_t sid, host;
    uint64_t lun;
    dev_t dev;

    return mp_sysfs_block_dev(root, job->disk.name, &dev) == 0 && dev == job->disk.dev &&
           mp_sysfs_disk_place(root, job->disk.name, &sid, &host, &lun) == 0 &&
           host == job->disk.host && lun == job->disk.lun;
}

static void remove_disk(struct mp_attach_job *job, const struct fault *fault)
{
    const struct mp_disk *disk = &job->disk;
    const char *root = job->host->sysfs_root;

    /* the descriptor stays open: meanwhile no other disk gets the name */
    if (job->fd >= 0)
        flock(job->fd, LOCK_UN);
    if (!release(job, fault))
        return;
    if (!still_there(job)) {
        job->deleted = true; /* by somebody else */
        return;
    }
    int result = mp_scsi_offline(root, disk->host, disk->channel, disk->target, disk->lun);

    /* -EINVAL: it has another state in which the kernel sends nothing */
    if (result == 0 || result == -EINVAL)
        result = mp_scsi_delete(root, disk->host, disk->channel, disk->target, disk->lun);
    if (result < 0 && result != -ENOENT) {
        job->result = mp_error(&job->error, MANYPATH_E_DEVICE, MANYPATH_PHASE_IDENTITY, result,
                               "%s is left over: %s; deleting it failed with errno %d", disk->name,
                               fault->text, -result);
        return;
    }
    job->deleted = true;
    snprintf(job->note, sizeof job->note,
             "%s was left over: %s; nobody used it, so it was deleted%s%s, and its LUN is scanned "
             "again",
             disk->name, fault->text, job->holders.other_map[0] != '\0' ? " with map " : "",
             job->holders.other_map);
}

/* ---- the job ---- */

/* A path that somebody else has is no path of ours. The map of its own WWID is. */
static void check_holders(struct mp_attach_job *job)
{
    uint64_t until_ns = patience(job, CLAIM_PATIENCE);
    struct mp_holders *holders = &job->holders;
    char users[MANYPATH_MESSAGE_SIZE / 4];
    const char *who = holders->foreign;
    /* multipathd locks the disks that it is about to claim: ours must not be in its way */
    bool can_look = job->identity.locked;

    for (;;) {
        job->claimed = can_look ? mp_disk_is_claimed(job->host, job->disk.name)
                                : job->single_path && job->was_there &&
                                      mp_users_name(job->host, job->disk.name, users, sizeof users);
        if ((can_look && !job->claimed) ||
            mp_holders_read(job->host, job->disk.name, job->identity.wwid, holders) < 0)
            return;
        if (holders->foreign[0] != '\0' || holders->other_map[0] != '\0')
            break;
        if (holders->map[0] != '\0' || job->single_path || !can_look)
            return;
        if (!mp_wait_turn(until_ns)) {
            mp_users_describe(job->host, job->disk.name, -1, users, sizeof users);
            who = users;
            break;
        }
    }
    if (who[0] == '\0')
        who = holders->other_map;
    job->refuses = true;
    job->result = mp_error(&job->error, MANYPATH_E_IN_USE, MANYPATH_PHASE_IDENTITY, EBUSY,
                           "%s (%s) is %s %s; release it and try again", job->disk.name,
                           job->identity.wwid, who == users ? "in use:" : "held by", who);
}

/* Once more with the locks of both volumes: another process may have replaced the disk since it was
 * judged, and use it. True if the path can go on with the disk as it is. */
static bool replace(struct mp_attach_job *job, struct fault *fault)
{
    struct mp_wwid_locks locks;
    char wwid[MANYPATH_WWID_SIZE];
    bool fine = false;
    int result;

    mp_copy(wwid, sizeof wwid, job->identity.wwid);
    result = mp_wwid_locks_take(job->host, &locks, wwid, job->holders.other_wwid,
                                /* exclusive= */ true, job->deadline_ns);
    if (result < 0) {
        job->result =
            mp_error(&job->error, MANYPATH_E_IN_USE, MANYPATH_PHASE_IDENTITY, -result,
                     "%s is left over: %s; another process works on the volume (errno %d)",
                     job->disk.name, fault->text, -result);
        return false;
    }
    *fault = (struct fault){.other_volume = false};
    if (!still_there(job))
        job->deleted = true;
    else if (is_stale(job, fault))
        remove_disk(job, fault);
    else
        fine = job->result == 0;
    mp_wwid_locks_drop(job->host, &locks);
    return fine;
}

void mp_attach_identify(struct mp_job *base)
{
    struct mp_attach_job *job = (struct mp_attach_job *)base;
    struct fault fault = {.other_volume = false};

    if (job->was_there && is_stale(job, &fault)) {
        if (job->last_round) {
            job->result = mp_error(&job->error, MANYPATH_E_IDENTITY, MANYPATH_PHASE_IDENTITY, 0,
                                   "the kernel has stale data for LUN %" PRIu64
                                   " though its disk was deleted and scanned again: %s; check what "
                                   "else maps or scans it",
                                   job->disk.lun, fault.text);
            return;
        }
        if (!replace(job, &fault))
            return;
    }
    if (!job->was_there)
        learn(job, job->deadline_ns);
    if (job->result == 0)
        check_holders(job);
    if (job->result == 0 && job->was_there)
        correct_size(job);
}
