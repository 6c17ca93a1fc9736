/* SPDX-License-Identifier: Apache-2.0 */
/* Attach: what the volume waits for, and what follows. */
#include "attach_state.h"

#include "fault.h"
#include "text.h"

#include <stddef.h>

/* With min_paths usable, portals that do not answer are waited for this much longer. */
#define STRAGGLER_GRACE (2000 * MP_MS)
/* What failed paths made is gone when the caller has its answer, unless that takes longer. */
#define TIDY_GRACE (2000 * MP_MS)

static bool all_over(const struct mp_attach *attach)
{
    for (size_t i = 0; i < attach->path_count; i++)
        if (attach->paths[i].step != MP_PATH_OVER)
            return false;
    return true;
}

static size_t count_ready(const struct mp_attach *attach)
{
    size_t ready = 0;

    for (size_t i = 0; i < attach->path_count; i++)
        ready += attach->paths[i].step == MP_PATH_READY;
    return ready;
}

/* Could the volume do with the paths that are ready? Candidates alone cannot say who it is. */
static bool is_enough(const struct mp_attach *attach)
{
    bool vouched = false;

    for (size_t i = 0; i < attach->path_count; i++)
        vouched = vouched ||
                  (attach->paths[i].step == MP_PATH_READY && !attach->paths[i].target.candidate);
    return vouched && count_ready(attach) >= attach->min_paths;
}

/* Goes on without the paths that are not there yet, if the others are enough. */
static void leave_stragglers(struct mp_attach *attach)
{
    for (size_t i = 0; i < attach->path_count; i++) {
        struct mp_attach_path *path = &attach->paths[i];

        if (path->step == MP_PATH_LOGIN) {
            mp_session_pending(path->session, &path->error);
            mp_attach_warn(attach, "%s; the path was left out", path->error.message);
        } else if (path->step < MP_PATH_READY) {
            attach->step = MP_VOLUME_MAP; /* failing paths do not decide any more */
            mp_path_overdue(path);
        }
    }
    mp_attach_choose(attach);
}

/* Are there enough paths, and is there anything left to wait for? */
static void weigh_paths(struct mp_attach *attach)
{
    size_t trying = 0, silent = 0, vouching = 0;
    uint64_t now = mp_now_ns();

    for (size_t i = 0; i < attach->path_count; i++) {
        const struct mp_attach_path *path = &attach->paths[i];

        silent += path->step == MP_PATH_LOGIN;
        trying += path->step < MP_PATH_READY;
        vouching += path->step <= MP_PATH_READY && !path->target.candidate;
    }
    if (count_ready(attach) + trying < attach->min_paths || vouching == 0) {
        mp_attach_blame_paths(attach);
        mp_attach_fail(attach);
    } else if (trying == 0) {
        mp_attach_choose(attach);
    } else if (is_enough(attach) && now >= attach->paths_deadline_ns) {
        leave_stragglers(attach); /* the last one that was needed came late */
    } else if (is_enough(attach) && trying == silent &&
               attach->grace.at_ns > now + STRAGGLER_GRACE) {
        mp_engine_arm(attach->operation.handle, &attach->grace, now + STRAGGLER_GRACE);
    }
}

static void tidy(struct mp_attach *attach)
{
    bool undoing = false;

    for (size_t i = 0; i < attach->path_count; i++)
        undoing = undoing || attach->paths[i].step == MP_PATH_UNDO;
    if (!undoing)
        mp_attach_finish(attach);
    else if (attach->grace.slot == 0)
        mp_engine_arm(attach->operation.handle, &attach->grace, mp_now_ns() + TIDY_GRACE);
}

void mp_attach_decide(struct mp_attach *attach)
{
    if (attach->step == MP_VOLUME_TIDY)
        tidy(attach);
    else if (attach->step == MP_VOLUME_DONE)
        mp_attach_late_paths(attach);
    else if (attach->step == MP_VOLUME_UNDOING && all_over(attach))
        mp_attach_finish(attach);
    else if (attach->step == MP_VOLUME_PATHS && mp_attach_refused(attach))
        ; /* nothing is decided any more */
    else if (attach->step == MP_VOLUME_PATHS && attach->single_path)
        mp_attach_single_check(attach);
    else if (attach->step == MP_VOLUME_PATHS)
        weigh_paths(attach);
}

static void grace_over(struct mp_timer *timer)
{
    struct mp_attach *attach =
        (struct mp_attach *)((char *)timer - offsetof(struct mp_attach, grace));
    uint64_t now = mp_now_ns();
    bool patient = now < attach->paths_deadline_ns;

    if (attach->step == MP_VOLUME_DONE) {
        mp_attach_late_check_map(attach);
        return;
    }
    if (attach->step == MP_VOLUME_TIDY) {
        mp_attach_finish(attach);
        return;
    }
    if (attach->step == MP_VOLUME_UNDOING) {
        mp_attach_undo_paths(attach);
        return;
    }
    if (attach->single_path) {
        mp_attach_single_overdue(attach);
        return;
    }
    for (size_t i = 0; i < attach->path_count; i++) {
        const struct mp_attach_path *path = &attach->paths[i];

        /* a login that is answered is waited for; so is a request that iscsid got only now */
        if (patient &&
            (path->step == MP_PATH_LOGIN ? mp_session_silence_ns(path->session) < STRAGGLER_GRACE
                                         : path->step < MP_PATH_READY)) {
            mp_engine_arm(attach->operation.handle, timer, now + STRAGGLER_GRACE / 4);
            return;
        }
    }
    if (is_enough(attach))
        leave_stragglers(attach);
}

void mp_attach_start(struct mp_attach *attach)
{
    MP_FAULT("attach.begun");
    attach->step = MP_VOLUME_PATHS;
    attach->grace.fire = grace_over;
    attach->last_answer_ns = mp_now_ns();
    attach->times.prepare_ns = mp_attach_since_begin(attach);
    if (attach->single_path) {
        mp_attach_single_check(attach);
        return;
    }
    mp_engine_arm(attach->operation.handle, &attach->grace, attach->paths_deadline_ns);
    for (size_t i = 0; i < attach->path_count; i++)
        if (attach->paths[i].step == MP_PATH_WAITING && attach->step == MP_VOLUME_PATHS)
            mp_path_login(&attach->paths[i]);
}
