/* SPDX-License-Identifier: Apache-2.0 */
/* Detach: LOGOUT. */
#include "detach_state.h"

#include "fault.h"
#include "text.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

static void logout_over(struct mp_detach *detach)
{
    detach->detachment->times.logout_ns = mp_detach_phase_ns(detach);
    mp_detach_next(detach);
}

static struct mp_detach_session *session_of(const struct mp_session_wait *wait)
{
    return (struct mp_detach_session *)((uintptr_t)wait - offsetof(struct mp_detach_session, wait));
}

static void logout_done(struct mp_session_wait *wait, const struct manypath_error *error)
{
    struct mp_detach_session *session = session_of(wait);
    struct mp_detach *detach = session->detach;
    struct mp_session_entry *entry = session->entry;
    enum mp_session_state state;

    MP_FAULT("detach.logged_out");
    session->entry = NULL; /* at once: others decide by who holds it */
    mp_session_drop(entry);
    if (error->code == MANYPATH_E_IN_USE) {
        mp_warn(&detach->warnings, "%s", error->message);
        detach->detachment->sessions_kept++;
    } else if (error->code != 0) {
        mp_detach_error(detach, error); /* the others are still attempted */
    } else if (mp_sysfs_session_state(detach->operation.handle->host->sysfs_root, session->sid,
                                      &state) == -ENOENT) {
        detach->detachment->sessions_removed++;
    } else {
        detach->detachment->sessions_kept++;
    }
    if (--detach->outstanding == 0)
        logout_over(detach);
}

/* With force: a disk that was to be deleted, and could not be. One that works is somebody's who scanned
 * it since. */
static bool gives_up(const struct mp_session_wait *wait, const struct mp_disk *disk)
{
    const struct mp_detach *detach = session_of(wait)->detach;

    for (size_t i = 0; i < detach->disk_count; i++) {
        const struct mp_detach_disk *ours = &detach->disks[i];

        if (ours->stuck && !ours->kept && strcmp(disk->state, "running") != 0 &&
            strcmp(disk->state, "created") != 0 && ours->disk.host == disk->host &&
            ours->disk.lun == disk->lun && ours->disk.channel == disk->channel &&
            ours->disk.target == disk->target)
            return true;
    }
    return false;
}

void mp_detach_logout(struct mp_detach *detach)
{
    MP_FAULT("detach.forgotten");
    detach->step = DETACH_LOGOUT;
    /* ourselves, so that answers given at once do not end the step early */
    detach->outstanding = 1;
    for (size_t i = 0; i < detach->session_count; i++) {
        struct mp_detach_session *session = &detach->sessions[i];

        if (session->sid < 0)
            continue;
        if (!mp_session_exclusive(session->entry)) {
            struct mp_session_entry *entry = session->entry;

            detach->detachment->sessions_kept++;
            mp_session_leave(entry);
            session->entry = NULL; /* at once: others decide by who holds it */
            mp_session_drop(entry);
            continue;
        }
        detach->outstanding++;
        MP_FAULT("detach.logout");
        session->wait.done = logout_done;
        session->wait.gives_up = detach->force ? gives_up : NULL;
        /* a job that is stuck keeps our WWIDs locked, and who has those waits for no session */
        session->wait.until_ns = detach->jobs > 0
                                     ? mp_now_ns()
                                     : detach->operation.deadline_ns - MP_DETACH_ANSWER_RESERVE;
        mp_session_logout(session->entry, &session->wait);
    }
    if (--detach->outstanding == 0)
        logout_over(detach);
}
