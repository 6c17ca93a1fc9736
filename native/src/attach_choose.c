/* SPDX-License-Identifier: Apache-2.0 */
/* Attach: which disk the volume is. Its paths vote; who disagrees with the majority stays out. */
#include "attach_state.h"

#include "error.h"

#include <inttypes.h>

static bool same_identity(const struct mp_identity *a, const struct mp_identity *b)
{
    return a->size_bytes == b->size_bytes && mp_identity_same_disk(a, b);
}

/* How many ready paths have this identity, candidates counted or not. */
static size_t votes_for(const struct mp_attach *attach, const struct mp_identity *identity,
                        bool candidates)
{
    size_t votes = 0;

    for (size_t i = 0; i < attach->path_count; i++) {
        const struct mp_attach_path *path = &attach->paths[i];

        votes += path->step == MP_PATH_READY && (candidates || !path->target.candidate) &&
                 same_identity(&path->identity, identity);
    }
    return votes;
}

/* The identity that most ready paths have; NULL when two are equally frequent: nobody can say which
 * is right. Candidates have no say. */
static const struct mp_identity *majority(const struct mp_attach *attach)
{
    const struct mp_identity *best = NULL;
    size_t best_votes = 0;
    bool tie = false;

    for (size_t i = 0; i < attach->path_count; i++) {
        const struct mp_attach_path *path = &attach->paths[i];

        if (path->step != MP_PATH_READY || path->target.candidate)
            continue;
        size_t votes = votes_for(attach, &path->identity, false);

        if (votes > best_votes) {
            best = &path->identity;
            best_votes = votes;
            tie = false;
        } else if (votes == best_votes && !same_identity(best, &path->identity)) {
            tie = true;
        }
    }
    return tie ? NULL : best;
}

/* Of a candidate it was to be expected that it disagrees. */
bool mp_path_check_identity(struct mp_attach_path *path)
{
    const struct mp_identity *chosen = &path->attach->identity;

    if (same_identity(&path->identity, chosen))
        return true;
    if (!path->target.candidate)
        mp_attach_warn(path->attach,
                       "%s through portal %s is disk %s of %" PRIu64 " bytes, not %s of %" PRIu64
                       ": kept out",
                       path->disk.name, path->target.address, path->identity.wwid,
                       path->identity.size_bytes, chosen->wwid, chosen->size_bytes);
    mp_path_error(path, MANYPATH_E_IDENTITY, MANYPATH_PHASE_IDENTITY, 0,
                  "%s is disk %s of %" PRIu64 " bytes, the other paths are %s of %" PRIu64
                  "; it was kept out of the map",
                  path->disk.name, path->identity.wwid, path->identity.size_bytes, chosen->wwid,
                  chosen->size_bytes);
    return false;
}

bool mp_attach_refused(struct mp_attach *attach)
{
    for (size_t i = 0; i < attach->path_count; i++) {
        if (!attach->paths[i].refuses)
            continue;
        attach->operation.error = attach->paths[i].error;
        mp_attach_fail(attach);
        return true;
    }
    return false;
}

void mp_attach_choose(struct mp_attach *attach)
{
    if (mp_attach_refused(attach))
        return;
    const struct mp_identity *identity = majority(attach);

    if (identity == NULL) {
        struct manypath_error *error = &attach->operation.error;

        mp_error(
            error, MANYPATH_E_IDENTITY, MANYPATH_PHASE_IDENTITY, 0,
            "the paths lead to different disks and no identity has a majority; check the targets "
            "and LUNs of the request");
        for (size_t i = 0; i < attach->path_count; i++)
            if (attach->paths[i].step == MP_PATH_READY)
                mp_error(&attach->paths[i].error, MANYPATH_E_IDENTITY, MANYPATH_PHASE_IDENTITY, 0,
                         "%s is disk %s of %" PRIu64 " bytes", attach->paths[i].disk.name,
                         attach->paths[i].identity.wwid, attach->paths[i].identity.size_bytes);
        mp_attach_fail(attach);
        return;
    }
    attach->identity = *identity;
    attach->step = MP_VOLUME_MAP; /* odd ones out report back while we go on */
    for (size_t i = 0; i < attach->path_count; i++)
        if (attach->paths[i].step == MP_PATH_READY)
            mp_path_check_identity(&attach->paths[i]);
    size_t votes = votes_for(attach, &attach->identity, true);

    if (votes < attach->min_paths) {
        mp_error(&attach->operation.error, MANYPATH_E_IDENTITY, MANYPATH_PHASE_IDENTITY, 0,
                 "only %zu paths lead to the same disk; %u were asked for", votes,
                 attach->min_paths);
        mp_attach_fail(attach);
        return;
    }
    mp_attach_map(attach);
}
