/* SPDX-License-Identifier: Apache-2.0 */
/* Makes, joins, resizes and removes the multipath map of one volume. Blocks: call from a worker. */
#ifndef MP_MAP_H
#define MP_MAP_H

#include "host.h"

#include <stdatomic.h>
#include <sys/types.h>

struct mp_map_path {
    dev_t dev;
    char name[MANYPATH_DEVICE_SIZE];
    char dh_state[16]; /* attached device handler, "" if none */
    int fd;            /* open and locked: udev leaves the disk alone; -1 while it is not.
                             Closed and opened by mp_map_join(); the caller closes it at last */
    int32_t state;     /* out: enum manypath_path_state */
    bool removed;      /* out: mp_map_resize() had to take it out of the map */
    bool kept_out;     /* out: mp_map_join() left it out, because the map has another size */
};

struct mp_map {
    dev_t dev;
    char device[MANYPATH_DEVICE_SIZE]; /* "dm-N" */
    char name[MANYPATH_WWID_SIZE];
    uint64_t size_bytes;
    bool existed;
    bool multipathd_running;
    bool well;             /* no member is failed */
    bool queueing_stopped; /* it queued, and nobody would have stopped that */
    bool wwid_listed; /* multipath-tools knows the WWID, and keeps the map when it reconfigures */
    char unchecked[MANYPATH_DEVICE_SIZE]; /* a member that is not ours and does not answer, or "" */
};

/* The kernel knows (or could load) the multipath target. */
int mp_map_supported(struct mp_host *host, struct manypath_error *err);

/*
 * One map with uuid "mpath-<wwid>" over exactly these paths: creates it (unless `join_only`), or
 * joins one that exists.
 * Members that are not ours are accepted only if their own VPD gives the same WWID, or if they do not
 * answer: a path that is down is no reason to refuse a map that was right when it was up. Members whose
 * disk is gone leave it when a path joins. A map that exists keeps its size, and without multipathd the
 * words of its table; it is told not to queue then. `skip_kpartx`: udev is told not to map the
 * partitions of a map made here. On failure nothing made here is left. deadline_ns bounds the waits
 * between calls, not a call that hangs in the kernel.
 */
int mp_map_join(struct mp_host *host, const char *wwid, uint64_t size_bytes,
                struct mp_map_path *paths, size_t path_count, bool join_only, bool skip_kpartx,
                uint64_t deadline_ns, struct mp_map *ret_map, struct manypath_error *err);

/*
 * Makes the map `size_bytes` long; nothing to do is a success. `paths` are its members as far as they
 * are known: those whose state is FAILED do not answer, and leave the map if they have another size.
 * The others must have the new size already. Without multipathd the table stays as it is but for its
 * length. On failure the map has the size it had, but may have lost members that do not answer.
 */
int mp_map_resize(struct mp_host *host, const char *uuid, uint64_t size_bytes,
                  struct mp_map_path *paths, size_t path_count, uint64_t deadline_ns,
                  bool *ret_multipathd, struct manypath_error *err);

struct mp_unmap_options {
    bool flush; /* write back what is cached first; false: whatever is cached is given up */
    /* A flush that fails does not stop the removal. When no path is usable, I/O that waits for one is
     * failed, and a map that stays open all the same goes when it is closed. */
    bool force;
};

/* What is told also on failure. Zero-initialise. */
struct mp_unmap_result {
    uint64_t flushed_ns; /* CLOCK_MONOTONIC, when the flush was done; 0: not tried */
    int32_t flush;       /* enum manypath_flush */
    bool dead;           /* no path of the map is usable, or the disk does not answer */
    bool named;          /* in use: by a mount, swap or a holder, not only by an open descriptor */
    bool mapped;         /* mp_disk_release(): a multipath map has the disk */
    bool unseen;         /* mp_disk_release(): some programs could not be looked into */
    atomic_bool claimed; /* mp_disk_release(): nobody uses it; known while the flush goes on */
    bool deferred;       /* the map is in use and goes when it is closed */
    struct manypath_error flush_error; /* mp_map_remove(): of a flush that did not stop it */
};

/*
 * Refuses while somebody has the map open, except for partition maps that nobody uses, and flushes
 * through those and the map. Removes nothing. A map that is not there is a success. Without `force` a
 * map that queues I/O for want of a path is refused at once: the flush would wait for ever.
 * deadline_ns bounds the waits between calls, not a call that hangs in the kernel.
 */
int mp_map_flush(struct mp_host *host, const char *uuid, const struct mp_unmap_options *options,
                 uint64_t deadline_ns, struct mp_unmap_result *result, struct manypath_error *err);

/*
 * mp_map_flush() if that is wanted; then removes the map's partition maps and the map (through
 * multipathd if that runs), and checks by uuid that it is gone. A map that is not there is a success,
 * and so is with `force` one whose flush failed: see result->flush. A map that stays queues I/O as
 * before.
 */
int mp_map_remove(struct mp_host *host, const char *uuid, const struct mp_unmap_options *options,
                  uint64_t deadline_ns, struct mp_unmap_result *result, struct manypath_error *err);

/*
 * Removes a map whose disks are all gone, which holds nothing: multipathd makes one again for an event
 * of a disk that it still had to handle when the map was removed. To be called when the disks have been
 * deleted: from then on no map of them can be made. Any other map stays; none is a success.
 */
int mp_map_remove_orphan(struct mp_host *host, const char *uuid, uint64_t deadline_ns,
                         struct manypath_error *err);

/*
 * Removes a map without flushing it, because its disks are another volume now. Refuses while it is
 * open or held. A map that is not open has nothing to write: the kernel writes back and drops its page
 * cache when the last one closes it.
 */
int mp_map_discard(struct mp_host *host, const char *uuid, uint64_t deadline_ns,
                   struct manypath_error *err);

/* mp_map_flush() for a disk without a map: refuses while it is in use, also by a program that has it open
 * without claiming it, and flushes. Programs that may not be looked into refuse it without `force`. */
int mp_disk_release(struct mp_host *host, const char *name, const struct mp_unmap_options *options,
                    uint64_t deadline_ns, struct mp_unmap_result *result,
                    struct manypath_error *err);

/* Right before such a disk is deleted: E_IN_USE if somebody has claimed it since, or if that cannot be
 * told. `claimed`: a flush that was given up may still claim it, and only who can be named counts. */
int mp_disk_recheck(struct mp_host *host, const char *name, bool claimed, uint64_t deadline_ns,
                    struct manypath_error *err);

#endif
