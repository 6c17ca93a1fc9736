/* SPDX-License-Identifier: Apache-2.0 */
/* Queueing of a multipath map: whether I/O waits when no path is usable. Blocks: call from a worker. */
#ifndef MP_QUEUEING_H
#define MP_QUEUEING_H

#include "host.h"

#include <stdbool.h>

struct mp_queueing {
    bool dead; /* no path is usable, as far as the kernel knows */
    bool on;   /* I/O waits then */
};

/* Negative errno; -ENXIO: no such map. */
int mp_queueing_read(int fd, const char *uuid, struct mp_queueing *ret_queueing);

/* A map that queues stops, if no multipathd runs at the moment it would be told: nobody else would ever
 * stop it. True if it was told. */
bool mp_queueing_end(const struct mp_host *host, int fd, const char *uuid);

/* I/O fails when no path is usable, and what waits fails now. Through multipathd too if it runs, which
 * would turn it on again. `device` is "dm-N". */
int mp_queueing_stop(struct mp_host *host, int fd, const char *uuid, const char *device,
                     uint64_t deadline_ns);

/* Undoes it: as multipathd's configuration says if that runs, else on. -ENXIO: no such map. */
int mp_queueing_restore(struct mp_host *host, int fd, const char *uuid, const char *device,
                        uint64_t deadline_ns);

#endif
