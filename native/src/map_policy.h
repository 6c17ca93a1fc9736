/* SPDX-License-Identifier: Apache-2.0 */
/* What multipathd's configuration says of a map. Blocks: call from a worker. */
#ifndef MP_MAP_POLICY_H
#define MP_MAP_POLICY_H

#include "map.h"
#include "multipathd_config.h"

/*
 * Asks multipathd for it. *ret_config stays NULL if it does not run. -ETIMEDOUT or
 * -EAGAIN: it is busy for longer than a second; or another error of multipathd.h.
 */
int mp_map_read_config(const struct mp_host *host, struct mp_multipathd_config **ret_config);

/* Fails if the map is still to be made and multipathd leaves all of its paths alone: it would remove the
 * map when it is reconfigured while nobody has it open. */
int mp_map_check_blacklist(struct mp_host *host, const struct mp_multipathd_config *config,
                           const char *wwid, const struct mp_map_path *paths, size_t count,
                           struct manypath_error *err);

/* udev should not map the partitions of the map, which is to be over this path. */
bool mp_map_skips_kpartx(const struct mp_host *host, const struct mp_multipathd_config *config,
                         const char *wwid, const struct mp_map_path *path);

#endif
