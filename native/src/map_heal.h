/* SPDX-License-Identifier: Apache-2.0 */
/* One look at a map that nobody else watches: takes back what works again. Blocks: call from a worker. */
#ifndef MP_MAP_HEAL_H
#define MP_MAP_HEAL_H

#include "host.h"

struct mp_map_health {
    int error; /* errno, negative: nothing could be told or done; 0: all below counts */
    bool gone; /* there is no such map any more */
    bool multipathd_running;
    bool queueing;         /* it queues, and no multipathd runs to stop that */
    bool queueing_stopped; /* it did, until now */
    size_t failed;         /* members that are failed now */
    size_t reinstated;
    uint32_t group;                     /* I/O goes through this one from now on; 0: as before */
    char other[MANYPATH_DEVICE_SIZE];   /* a failed member that is another volume now, or "" */
    char healed[MANYPATH_MESSAGE_SIZE]; /* names of the members reinstated, for a log */
};

/*
 * With multipathd only the failed members are counted. Else: the map stops queueing if wanted; a failed member is
 * reinstated if its session and disk are up, it is ready (TEST UNIT READY), and its own VPD 0x83 still
 * has the map's WWID; if a group with a better priority than the one in use has a path again, that
 * group is switched to. multipathd may start, and load another table, at any time: what a change relies
 * on is looked at once more right before it. Takes at most some seconds for each member that hangs.
 */
void mp_map_heal(struct mp_host *host, const char *wwid, bool stop_queueing,
                 struct mp_map_health *ret_health);

#endif
