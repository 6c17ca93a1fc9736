/* SPDX-License-Identifier: Apache-2.0 */
/* Whether multipathd would keep a map. Blocks: call from a worker. */
#ifndef MP_MAP_BLACKLIST_H
#define MP_MAP_BLACKLIST_H

#include "map.h"
#include "multipathd_config.h"

/*
 * What multipathd says it leaves alone. *ret_blacklist stays NULL if it does not run. -ETIMEDOUT or
 * -EAGAIN: it is busy for longer than a second; or another error of multipathd.h.
 */
int mp_map_read_blacklist(const struct mp_host *host, struct mp_blacklist **ret_blacklist);

/* Fails if the map is still to be made and multipathd leaves all of its paths alone: it would remove the
 * map when it is reconfigured while nobody has it open. */
int mp_map_check_blacklist(struct mp_host *host, const struct mp_blacklist *blacklist,
                           const char *wwid, const struct mp_map_path *paths, size_t count,
                           struct manypath_error *err);

#endif
