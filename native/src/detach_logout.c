/* SPDX-License-Identifier: Apache-2.0 */
/* Detach: LOGOUT. */
#include "detach_state.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

static void logout_over(struct mp_detach *detach)
{
    detach->detachment->times.logout_ns = mp_detach_phase_ns(detach);
    mp_detach_next(detach);
}

static void logout_done(struct mp_session_wait *wait, const struct manypath_error *error)
{
    struct mp_detach_session *session =
        (struct mp_detach_session *)((char *)wait - offsetof(struct mp_detach_session, wait));
    struct mp_detach *detach = session->detach;
    struct mp_session_entry *entry = session->entry;
    enum mp_session_state state;

    session->entry = NULL; /* at once: others decide by who holds it */
    mp_session_drop(entry);
    if (error->code == MANYPATH_E_IN_USE) {
        mp_warn(&detach->warnings, "%s", error->message);
        detach->detachment->sessions_kept++;
    } else if (error->code != 0)
        mp_detach_error(detach, error); /* the others are still attempted */
    else if (mp_sysfs_session_state(detach->operation.handle->host->sysfs_root, session->sid,
                                    &state) == -ENOENT)
        detach->detachment->sessions_removed++;
    else
        detach->detachment->sessions_kept++;
    if (--detach->outstanding == 0)
        logout_over(detach);
}

/* A disk that this detach wanted to delete, and could not. */
static bool given_up(const struct mp_detach *detach, const struct mp_disk *disk)
{
    for (size_t i = 0; i < detach->disk_count && detach->force; i++) {
        const struct mp_detach_disk *ours = &detach->disks[i];

        if (!ours->kept && ours->disk.host == disk->host && ours->disk.lun == disk->lun &&
            ours->disk.channel == disk->channel && ours->disk.target == disk->target)
            return true;
    }
    return false;
}

/* Other SCSI devices use this session: another volume on the same target. */
static bool still_used(const struct mp_detach *detach, const struct mp_detach_session *session)
{
    struct mp_disk *disks = NULL;
    size_t count = 0;
    int result = mp_sysfs_session_disks(detach->operation.handle->host->sysfs_root, session->host,
                                        session->sid, &disks, &count);
    bool used = result < 0 && result != -ENOENT; /* unreadable: leave it alone */

    for (size_t i = 0; i < count; i++)
        if (!given_up(detach, &disks[i]))
            used = true;
    free(disks);
    return used;
}

void mp_detach_logout(struct mp_detach *detach)
{
    detach->step = DETACH_LOGOUT;
    /* ourselves, so that answers given at once do not end the step early */
    detach->outstanding = 1;
    for (size_t i = 0; i < detach->session_count; i++) {
        struct mp_detach_session *session = &detach->sessions[i];

        if (session->sid < 0)
            continue;
        if ((!session->several && still_used(detach, session)) ||
            !mp_session_exclusive(session->entry)) {
            struct mp_session_entry *entry = session->entry;

            detach->detachment->sessions_kept++;
            mp_session_leave(entry);
            session->entry = NULL; /* at once: others decide by who holds it */
            mp_session_drop(entry);
            continue;
        }
        detach->outstanding++;
        session->wait.done = logout_done;
        session->wait.until_ns = mp_detach_step_deadline(detach);
        mp_session_logout(session->entry, &session->wait);
    }
    if (--detach->outstanding == 0)
        logout_over(detach);
}
