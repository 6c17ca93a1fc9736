/* SPDX-License-Identifier: Apache-2.0 */
/* Attach without multipath: one target after the other, until one has the disk. Each gets its share
 * of the time, and what it left is taken back before the next is tried. */
#include "attach_state.h"

#include "scsi.h"
#include "text.h"

/* What multipathd may do at any time, and what an earlier attach may have led to, is no reason to refuse;
 * but the caller should know. */
static void warn_of_holders(struct mp_attach *attach, const struct mp_attach_path *path)
{
    if (path->holders.map[0] != '\0')
        mp_attach_warn(attach,
                       "%s is a path of the multipath map %s, which was asked not to be used",
                       path->disk.name, path->holders.map);
    else if (path->claimed)
        mp_attach_warn(attach, "%s is in use by a mounted file system, swap or another program",
                       path->disk.name);
}

/* No map holds the disk, and this process may end at any time: the mark keeps others, whose scan may
 * have brought it, from taking it back. */
static void mark(struct mp_attach *attach, const struct mp_attach_path *path)
{
    int result = mp_scsi_mark(attach->operation.handle->host->sysfs_root, path->disk.name);

    if (result < 0)
        mp_attach_warn(attach,
                       "%s could not be marked as attached (errno %d): an attach of another "
                       "process that fails at this moment may take it away",
                       path->disk.name, -result);
}

static void finish_with(struct mp_attach *attach, struct mp_attach_path *path)
{
    struct manypath_attachment *attachment = attach->attachment;

    warn_of_holders(attach, path);
    mark(attach, path);
    mp_copy(attachment->device, sizeof attachment->device, path->disk.name);
    mp_copy(attachment->wwid, sizeof attachment->wwid, path->identity.wwid);
    attachment->size_bytes = path->identity.size_bytes;
    path->in_map = true;
    path->state = MANYPATH_PATH_ACTIVE;
    mp_path_keep(path);
    attach->usable_ns = mp_attach_since_begin(attach);
    mp_attach_finish(attach);
}

static struct mp_attach_path *ready_path(struct mp_attach *attach)
{
    for (size_t i = 0; i < attach->path_count; i++)
        if (attach->paths[i].step == MP_PATH_READY)
            return &attach->paths[i];
    return NULL;
}

static void locked(struct mp_attach *attach, const struct manypath_error *error)
{
    if (error->code != 0) {
        attach->operation.error = *error;
        mp_attach_fail(attach);
    } else if (mp_attach_lost_disks(attach)) {
        mp_lock_release(&attach->wwid_lock);
        mp_attach_paths_again(attach);
    } else {
        finish_with(attach, ready_path(attach));
        mp_lock_release(&attach->wwid_lock);
    }
}

void mp_attach_single_check(struct mp_attach *attach)
{
    struct mp_attach_path *next = NULL;
    uint64_t now = mp_now_ns();
    uint64_t waiting = 0;

    for (size_t i = 0; i < attach->path_count; i++) {
        struct mp_attach_path *path = &attach->paths[i];

        if (path->step == MP_PATH_READY) {
            attach->step = MP_VOLUME_MAP;
            attach->identity = path->identity;
            mp_engine_disarm(attach->operation.handle, &attach->grace);
            mp_attach_lock(attach, locked);
            return;
        }
        if (path->step != MP_PATH_WAITING && path->step != MP_PATH_OVER)
            return; /* at work */
        waiting += path->step == MP_PATH_WAITING;
        if (next == NULL && path->step == MP_PATH_WAITING)
            next = path;
    }
    if (next == NULL) {
        mp_attach_blame_paths(attach);
        mp_attach_fail(attach);
        return;
    }
    uint64_t share = now < attach->paths_deadline_ns ? attach->paths_deadline_ns - now : 0;

    mp_engine_arm(attach->operation.handle, &attach->grace, now + share / waiting);
    mp_path_login(next);
}

void mp_attach_single_overdue(struct mp_attach *attach)
{
    for (size_t i = 0; i < attach->path_count; i++) {
        struct mp_attach_path *path = &attach->paths[i];

        if (path->step == MP_PATH_LOGIN) {
            mp_session_pending(path->session, &path->error);
            mp_path_fail(path);
            return;
        }
        if (path->step > MP_PATH_LOGIN && path->step < MP_PATH_READY) {
            mp_path_overdue(path);
            return;
        }
    }
}
