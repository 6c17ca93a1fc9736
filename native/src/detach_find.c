/* SPDX-License-Identifier: Apache-2.0 */
/* Detach: FIND and LOCK. */
#include "detach_state.h"

#include "error.h"
#include "fault.h"
#include "holders.h"
#include "identity.h"
#include "text.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HOLDERS_MAX = 8, MEMBERS_MAX = 256 };

static const char *sysfs_root(const struct mp_detach *detach)
{
    return detach->operation.handle->host->sysfs_root;
}

static int out_of_memory(struct mp_detach *detach)
{
    mp_detach_no_resources(detach, MANYPATH_PHASE_PREPARE);
    return -ENOMEM;
}

/* Only what vanished is not there; anything else is not known, and nothing may be concluded. */
static int unreadable(struct mp_detach *detach, const char *what, int result)
{
    struct manypath_error error;

    mp_error(&error, MANYPATH_E_SYSTEM, MANYPATH_PHASE_PREPARE, result,
             "cannot read %s from sysfs: errno %d; nothing was removed", what, -result);
    mp_detach_error(detach, &error);
    return result;
}

/* ---- what is there ---- */

/* The session of this portal and iqn, held. NULL: out of memory. */
static struct mp_detach_session *session_of(struct mp_detach *detach,
                                            const struct mp_portal *portal, const char *iqn)
{
    struct mp_detach_session *session;

    for (size_t i = 0; i < detach->session_count; i++) {
        session = &detach->sessions[i];
        if (mp_portal_equal(&session->portal, portal) && strcmp(session->iqn, iqn) == 0)
            return session;
    }
    session = realloc(detach->sessions, (detach->session_count + 1) * sizeof *session);
    if (session == NULL)
        return NULL;
    detach->sessions = session;
    session += detach->session_count;
    memset(session, 0, sizeof *session);
    session->detach = detach;
    session->portal = *portal;
    mp_copy(session->iqn, sizeof session->iqn, iqn);
    session->sid = session->host = -1;
    session->entry = mp_session_hold(detach->operation.handle->sessions, portal, iqn);
    if (session->entry == NULL)
        return NULL;
    detach->session_count++;
    return session;
}

static int add_disk(struct mp_detach *detach, const struct mp_disk *disk)
{
    struct mp_detach_disk *disks;

    for (size_t i = 0; i < detach->disk_count; i++)
        if (detach->disks[i].disk.host == disk->host && detach->disks[i].disk.lun == disk->lun &&
            detach->disks[i].disk.channel == disk->channel &&
            detach->disks[i].disk.target == disk->target)
            return 0;
    disks = realloc(detach->disks, (detach->disk_count + 1) * sizeof *disks);
    if (disks == NULL)
        return out_of_memory(detach);
    detach->disks = disks;
    disks[detach->disk_count++] = (struct mp_detach_disk){.disk = *disk};
    return 0;
}

/* The disk of one target; one in each session, should the host have several to this node. */
static int find_target(struct mp_detach *detach, const struct mp_target *target,
                       const struct mp_session *sessions, size_t count)
{
    struct mp_detach_session *session = session_of(detach, &target->portal, target->iqn);
    int result = 0;

    if (session == NULL)
        return out_of_memory(detach);
    for (size_t i = 0; i < count && result == 0; i++) {
        struct mp_disk disk;

        if (strcmp(sessions[i].iqn, target->iqn) != 0 ||
            !mp_portal_equal(&sessions[i].portal, &target->portal))
            continue;
        if (session->sid >= 0 && session->sid != sessions[i].sid)
            mp_session_several(session->entry);
        session->sid = sessions[i].sid;
        session->host = sessions[i].host;
        result =
            mp_sysfs_find_disk(sysfs_root(detach), session->host, session->sid, target->lun, &disk);
        if (result == 0)
            result = add_disk(detach, &disk);
        else
            result = result == -ENOENT ? 0 : unreadable(detach, "a session's disk", result);
    }
    return result;
}

/* A member of the map, and the session it came through. Other members stay out of this: the map's
 * removal lets go of them. */
static int find_member(struct mp_detach *detach, const char *name,
                       const struct mp_session *sessions, size_t count)
{
    const char *root = sysfs_root(detach);
    struct mp_detach_session *session;
    struct mp_disk disk;
    int32_t sid, host;
    uint64_t lun;
    int result = mp_sysfs_disk_place(root, name, &sid, &host, &lun);

    if (result == 0)
        result = mp_sysfs_find_disk(root, host, sid, lun, &disk);
    if (result < 0)
        return result == -ENOENT ? 0 : unreadable(detach, name, result);
    for (size_t i = 0; i < count; i++) {
        if (sessions[i].sid != sid || sessions[i].portal.family == 0)
            continue;
        session = session_of(detach, &sessions[i].portal, sessions[i].iqn);
        if (session == NULL)
            return out_of_memory(detach);
        if (session->sid >= 0 && session->sid != sid)
            mp_session_several(session->entry);
        session->sid = sid;
        session->host = host;
        return add_disk(detach, &disk);
    }
    return 0;
}

static int held_by_other(struct mp_detach *detach, const char *name, const char *holder,
                         const char *what)
{
    char dm_name[MANYPATH_WWID_SIZE] = "";
    struct manypath_error error;

    mp_sysfs_dm(sysfs_root(detach), holder, NULL, 0, dm_name, sizeof dm_name);
    mp_error(&error, MANYPATH_E_IN_USE, MANYPATH_PHASE_PREPARE, EBUSY,
             "%s is in use: held by %s%s%s%s, which is %s; nothing was removed", name, holder,
             dm_name[0] != '\0' ? " (" : "", dm_name, dm_name[0] != '\0' ? ")" : "", what);
    mp_detach_error(detach, &error);
    return -EBUSY;
}

static int read_wwid(struct mp_detach *detach, const char *disk, char wwid[MANYPATH_WWID_SIZE])
{
    int result = mp_identity_known(detach->operation.handle->host, disk, wwid);

    return result < 0 ? unreadable(detach, disk, result) : 0;
}

/* Notes the multipath map that holds this disk, and its name in ret_map ("": none). Any other holder
 * refuses the detach. */
static int find_map(struct mp_detach *detach, struct mp_detach_disk *disk,
                    char ret_map[MANYPATH_DEVICE_SIZE])
{
    char holders[HOLDERS_MAX][MANYPATH_DEVICE_SIZE];
    size_t count = 0;
    int result =
        mp_sysfs_holders(sysfs_root(detach), disk->disk.name, holders, HOLDERS_MAX, &count);

    ret_map[0] = disk->map[0] = '\0';
    if (result == -ENOENT)
        return 0; /* it vanished: nothing holds it */
    if (result < 0)
        return unreadable(detach, disk->disk.name, result);
    for (size_t i = 0; i < count && i < HOLDERS_MAX; i++) {
        char uuid[MP_DETACH_UUID_SIZE] = "";
        char wwid[MANYPATH_WWID_SIZE];

        result = mp_sysfs_dm(sysfs_root(detach), holders[i], uuid, sizeof uuid, NULL, 0);
        if (mp_holder_comes_or_goes(holders[i], result))
            continue; /* who removes it has the lock, and is waited for */
        if (result < 0 && result != -ENOENT && result != -EOVERFLOW)
            return unreadable(detach, holders[i], result);
        if (strncmp(uuid, "mpath-", 6) != 0)
            return held_by_other(detach, disk->disk.name, holders[i], "no multipath map");
        result = read_wwid(detach, disk->disk.name, wwid);
        if (result < 0)
            return result;
        if (wwid[0] != '\0' && strcmp(uuid + sizeof "mpath-" - 1, wwid) != 0)
            return held_by_other(detach, disk->disk.name, holders[i], "another volume's map");
        mp_copy(disk->map, sizeof disk->map, uuid);
        mp_copy(ret_map, MANYPATH_DEVICE_SIZE, holders[i]);
    }
    return 0;
}

/* The maps of the disks found, and with whole_map the other paths of those. */
static int find_maps(struct mp_detach *detach, const struct mp_session *sessions, size_t count)
{
    char members[MEMBERS_MAX][MANYPATH_DEVICE_SIZE];
    int result = 0;

    /* members that are found on the way are looked at too; none is found twice */
    for (size_t i = 0; i < detach->disk_count && result == 0; i++) {
        char map[MANYPATH_DEVICE_SIZE];
        size_t member_count = 0;

        if (detach->disks[i].disk.name[0] == '\0')
            continue;
        result = find_map(detach, &detach->disks[i], map);
        if (result < 0 || map[0] == '\0' || !detach->whole_map)
            continue;
        int found = mp_sysfs_slaves(sysfs_root(detach), map, members, MEMBERS_MAX, &member_count);

        if (found < 0 && found != -ENOENT)
            result = unreadable(detach, map, found);
        for (size_t m = 0; m < member_count && m < MEMBERS_MAX && result == 0; m++)
            result = find_member(detach, members[m], sessions, count);
    }
    return result;
}

/* Maps and disks without one, each once. */
static int list_devices(struct mp_detach *detach)
{
    free(detach->devices);
    detach->device_count = 0;
    detach->devices = calloc(detach->disk_count + 1, sizeof *detach->devices);
    if (detach->devices == NULL)
        return out_of_memory(detach);
    for (size_t i = 0; i < detach->disk_count; i++) {
        const struct mp_detach_disk *disk = &detach->disks[i];
        struct mp_detach_device *device = detach->devices;

        if (disk->disk.name[0] == '\0')
            continue;
        while (device < &detach->devices[detach->device_count] &&
               (disk->map[0] == '\0' || strcmp(device->uuid, disk->map) != 0))
            device++;
        if (device < &detach->devices[detach->device_count])
            continue;
        detach->device_count++;
        mp_copy(device->uuid, sizeof device->uuid, disk->map);
        if (disk->map[0] == '\0') {
            mp_copy(device->disk, sizeof device->disk, disk->disk.name);
            device->dead = strcmp(disk->disk.state, "offline") == 0 ||
                           strcmp(disk->disk.state, "transport-offline") == 0;
        }
    }
    return 0;
}

static int find(struct mp_detach *detach)
{
    struct mp_session *sessions = NULL;
    size_t count = 0;
    int result = mp_sysfs_sessions(sysfs_root(detach), &sessions, &count);

    if (result < 0 && result != -ENOENT)
        return unreadable(detach, "the iSCSI sessions", result);
    detach->disk_count = 0;
    for (size_t i = 0; i < detach->session_count; i++)
        detach->sessions[i].sid = detach->sessions[i].host = -1;
    result = 0;
    for (size_t i = 0; i < detach->operation.target_count && result == 0; i++)
        result = find_target(detach, &detach->operation.targets[i], sessions, count);
    if (result == 0)
        result = find_maps(detach, sessions, count);
    free(sessions);
    return result == 0 ? list_devices(detach) : result;
}

/* ---- locks ---- */

static int compare_locks(const void *left, const void *right)
{
    const struct mp_detach_lock *a = left;
    const struct mp_detach_lock *b = right;

    return strcmp(a->wwid, b->wwid);
}

/* The WWIDs of what was found, sorted, each once; malloc'ed. */
static int list_wwids(struct mp_detach *detach, struct mp_detach_lock **ret_locks,
                      size_t *ret_count)
{
    struct mp_detach_lock *locks = calloc(detach->device_count + 1, sizeof *locks);
    size_t count = 0, kept = 0;
    int result = locks != NULL ? 0 : out_of_memory(detach);

    for (size_t i = 0; i < detach->device_count && result == 0; i++) {
        const struct mp_detach_device *device = &detach->devices[i];

        if (device->uuid[0] != '\0')
            mp_copy(locks[count].wwid, sizeof locks[count].wwid,
                    device->uuid + sizeof "mpath-" - 1);
        else
            result = read_wwid(detach, device->disk, locks[count].wwid);
        if (locks[count].wwid[0] != '\0')
            count++;
    }
    if (result < 0) {
        free(locks);
        return result;
    }
    qsort(locks, count, sizeof *locks, compare_locks);
    for (size_t i = 0; i < count; i++)
        if (kept == 0 || strcmp(locks[kept - 1].wwid, locks[i].wwid) != 0)
            locks[kept++] = locks[i];
    *ret_locks = locks;
    *ret_count = kept;
    return 0;
}

/* Every WWID of `locks` is locked. */
static bool all_held(const struct mp_detach *detach, const struct mp_detach_lock *locks,
                     size_t count)
{
    size_t at = 0;

    for (size_t i = 0; i < count; i++) {
        while (at < detach->lock_count && strcmp(detach->locks[at].wwid, locks[i].wwid) != 0)
            at++;
        if (at == detach->lock_count || detach->locks[at].lock.state != MP_LOCK_HELD)
            return false;
    }
    return true;
}

static void release_locks(struct mp_detach *detach)
{
    for (size_t i = 0; i < detach->lock_count; i++)
        mp_lock_release(&detach->locks[i].lock);
    free(detach->locks);
    detach->locks = NULL;
    detach->lock_count = 0;
}

void mp_detach_unlock(struct mp_detach *detach)
{
    if (detach->jobs == 0) {
        release_locks(detach);
        return;
    }
    /* jobs that are stuck keep what is held; what is waited for must not come to a detach that is over */
    for (size_t i = 0; i < detach->lock_count; i++)
        if (detach->locks[i].lock.state == MP_LOCK_WAITING)
            mp_lock_release(&detach->locks[i].lock);
}

static void lock_done(struct mp_lock *base, const struct manypath_error *error)
{
    struct mp_detach_lock *lock =
        (struct mp_detach_lock *)((char *)base - offsetof(struct mp_detach_lock, lock));
    struct mp_detach *detach = lock->detach;

    if (error->code != 0) {
        detach->blind = true;
        mp_detach_error(detach, error);
        mp_detach_next(detach);
        return;
    }
    lock++;
    /* one after the other, in the order of the WWIDs: nobody waits in a circle */
    if (lock < &detach->locks[detach->lock_count])
        mp_lock_acquire(detach->operation.handle, &lock->lock, /* exclusive= */ true);
    else
        mp_detach_find(detach);
}

static void lock_all(struct mp_detach *detach, struct mp_detach_lock *locks, size_t count)
{
    release_locks(detach);
    detach->step = DETACH_LOCK;
    detach->locks = locks;
    detach->lock_count = count;
    for (size_t i = 0; i < count; i++) {
        locks[i].detach = detach;
        locks[i].lock.done = lock_done;
        mp_lock_name_wwid(&locks[i].lock, locks[i].wwid);
    }
    mp_lock_acquire(detach->operation.handle, &locks[0].lock, /* exclusive= */ true);
}

void mp_detach_find(struct mp_detach *detach)
{
    struct mp_detach_lock *locks = NULL;
    size_t count = 0;

    MP_FAULT("detach.begun");
    detach->step = DETACH_FIND;
    int result = find(detach);

    if (result == 0)
        result = list_wwids(detach, &locks, &count);
    if (result == 0 && !all_held(detach, locks, count)) {
        lock_all(detach, locks, count);
        return;
    }
    free(locks);
    detach->blind = result < 0;
    mp_detach_next(detach);
}
