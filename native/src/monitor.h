/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Without multipathd a path that failed once stays failed: the kernel never takes one back. So the maps
 * that this handle attached are watched while it lives. No thread, descriptor or timer of its own while
 * all paths are well: the kernel's uevent of a failed path starts it (dm-uevent.c), and it looks
 * again until none is failed (map_heal.h). While multipathd runs, that does it. In the loop thread.
 */
#ifndef MP_MONITOR_H
#define MP_MONITOR_H

#include "engine.h"

struct mp_monitor;

/* NULL: out of memory. */
struct mp_monitor *mp_monitor_new(struct manypath *handle);

/* When the engine has stopped. NULL is allowed. */
void mp_monitor_free(struct mp_monitor *monitor);

/* Watches a map until it is gone; `well` is false if a path of it is failed already. Again: no harm. */
void mp_monitor_watch(struct mp_monitor *monitor, const char *wwid, const char *device, bool well);

#endif
