/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor.h"

#include "map_heal.h"
#include "text.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define SECOND UINT64_C(1000000000)

/* When to look again while a path is failed. No event tells that one would work again. */
static const uint64_t delays[] = {SECOND, 2 * SECOND, 4 * SECOND, 5 * SECOND};
enum { LAST_DELAY = sizeof delays / sizeof delays[0] - 1 };

/* A failure after so long a rest is a new one, and looked at at once. One that comes earlier may be of a
 * path that is ready and yet fails I/O: it is not to go round and round. */
#define CALM (10 * SECOND)
/* A multipathd that restarts is away for a moment, and its map goes on queueing: only one that is gone
 * for so long has left it to us. */
#define RESTART (4 * SECOND)
/* A look that takes longer hangs in the kernel. */
#define PATIENCE (20 * SECOND)

struct watched_map {
    TAILQ_ENTRY(watched_map) link;
    struct mp_monitor *monitor;
    char wwid[MANYPATH_WWID_SIZE];
    char device[MANYPATH_DEVICE_SIZE];
    char other[MANYPATH_DEVICE_SIZE]; /* told in the log */
    struct mp_timer timer;            /* the next look, or when the present one is given up */
    struct look *look;                /* in a worker; never more than one */
    bool again;                       /* something happened during the look */
    unsigned step;                    /* in `delays` */
    uint64_t looked_ns;
    uint64_t queueing_ns; /* since when looks find it queueing without a multipathd; 0: not */
    int error;            /* of the last look, told in the log */
};

TAILQ_HEAD(watched_map_list, watched_map);

struct mp_monitor {
    struct manypath *handle;
    struct mp_device_watch watch;
    struct watched_map_list maps;
};

struct look {
    struct mp_job job;
    struct watched_map *map; /* the loop's; NULL once it is forgotten */
    struct mp_host *host;
    char wwid[MANYPATH_WWID_SIZE];
    bool stop_queueing;
    struct mp_map_health health;
};

static void forget(struct watched_map *map)
{
    struct mp_monitor *monitor = map->monitor;

    mp_engine_disarm(monitor->handle, &map->timer);
    if (map->look != NULL) {
        mp_pool_abandon(monitor->handle->pool, &map->look->job);
        map->look->map = NULL;
    }
    TAILQ_REMOVE(&monitor->maps, map, link);
    free(map);
    if (TAILQ_EMPTY(&monitor->maps))
        mp_engine_unwatch_device(monitor->handle, &monitor->watch);
}

/* ---- a look ---- */

static void look_soon(struct watched_map *map)
{
    uint64_t now = mp_now_ns();

    if (map->look != NULL) {
        map->again = true;
        return;
    }
    if (map->timer.slot != 0)
        return;
    if (map->looked_ns == 0 || now - map->looked_ns > CALM) {
        map->step = 0;
        mp_engine_arm(map->monitor->handle, &map->timer, now);
    } else {
        mp_engine_arm(map->monitor->handle, &map->timer, now + delays[map->step]);
    }
}

static void tell_health(struct watched_map *map, const struct mp_map_health *health)
{
    const struct mp_log *log = &map->monitor->handle->log;

    if (health->queueing_stopped)
        mp_log(log, MANYPATH_LOG_WARNING,
               "%s queued I/O without end, left so by a multipathd that is gone; it fails I/O now "
               "when no path is left",
               map->device);
    if (health->reinstated > 0)
        mp_log(log, MANYPATH_LOG_INFO, "%s of map %s works again and was taken back",
               health->healed, map->device);
    if (health->group != 0)
        mp_log(log, MANYPATH_LOG_INFO, "map %s goes back to its path group %u", map->device,
               health->group);
    if (strcmp(health->other, map->other) != 0 && health->other[0] != '\0')
        mp_log(log, MANYPATH_LOG_WARNING,
               "%s in map %s is another volume now; it stays failed, detach the volume or remove "
               "the disk",
               health->other, map->device);
    mp_copy(map->other, sizeof map->other, health->other);
}

static void tell_error(struct watched_map *map, int error)
{
    if (error == -ECANCELED) /* it never began, and tells nothing */
        return;
    if (error < 0 && map->error == 0)
        mp_log(&map->monitor->handle->log, MANYPATH_LOG_WARNING,
               "map %s cannot be looked at (errno %d); it is tried again", map->device, -error);
    map->error = error;
}

static void look_finished(struct watched_map *map, const struct mp_map_health *health)
{
    bool again = map->again;

    map->look = NULL;
    map->again = false;
    mp_engine_disarm(map->monitor->handle, &map->timer);
    if (health->gone) {
        forget(map);
        return;
    }
    tell_error(map, health->error);
    map->looked_ns = mp_now_ns();
    if (health->error == 0) {
        tell_health(map, health);
        if (!health->queueing)
            map->queueing_ns = 0;
        else if (map->queueing_ns == 0)
            map->queueing_ns = map->looked_ns;
    }
    bool unwell = health->error < 0 || health->failed > 0 || health->queueing;

    if (unwell || again)
        look_soon(map);
    if (map->step < LAST_DELAY && (unwell || health->reinstated > 0))
        map->step++;
}

static void look_free(struct mp_job *base)
{
    struct look *look = (struct look *)base;

    mp_host_release(look->host);
    free(look);
}

static void look_done(struct mp_job *base)
{
    struct look *look = (struct look *)base;

    if (look->map != NULL)
        look_finished(look->map, &look->health);
    look_free(base);
}

static void look_run(struct mp_job *base)
{
    struct look *look = (struct look *)base;

    mp_map_heal(look->host, look->wwid, look->stop_queueing, &look->health);
}

static void begin_look(struct watched_map *map)
{
    struct manypath *handle = map->monitor->handle;
    struct look *look = calloc(1, sizeof *look);

    if (look != NULL) {
        look->job.run = look_run;
        look->job.done = look_done;
        look->job.drop = look_free;
        look->map = map;
        look->host = mp_host_hold(handle->host);
        look->stop_queueing = map->queueing_ns != 0 && mp_now_ns() - map->queueing_ns >= RESTART;
        look->health.error = -ECANCELED; /* should it be given up before it begins */
        mp_copy(look->wwid, sizeof look->wwid, map->wwid);
        if (mp_pool_submit(handle->pool, &look->job) < 0) {
            look_free(&look->job);
            look = NULL;
        }
    }
    map->look = look;
    mp_engine_arm(handle, &map->timer,
                  mp_now_ns() + (look != NULL ? PATIENCE : delays[LAST_DELAY]));
}

static void timer_fired(struct mp_timer *timer)
{
    struct watched_map *map =
        (struct watched_map *)((char *)timer - offsetof(struct watched_map, timer));

    if (map->look == NULL)
        begin_look(map);
    else /* its thread is not counted any more; the map is looked at again when it comes back */
        mp_pool_abandon(map->monitor->handle->pool, &map->look->job);
}

/* ---- what is watched ---- */

static void map_seen(struct watched_map *map, const struct mp_uevent *event)
{
    if (event->action == MP_UEVENT_REMOVE)
        forget(map);
    else if (event->action == MP_UEVENT_CHANGE && strcmp(event->dm_action, "PATH_FAILED") == 0)
        look_soon(map);
}

static void seen(struct mp_device_watch *watch, const struct mp_uevent *event)
{
    struct mp_monitor *monitor =
        (struct mp_monitor *)((char *)watch - offsetof(struct mp_monitor, watch));
    struct watched_map *map = TAILQ_FIRST(&monitor->maps);

    if (event != NULL && (strcmp(event->subsystem, "block") != 0 ||
                          strncmp(event->devname, "dm-", sizeof "dm-" - 1) != 0))
        return;
    while (map != NULL) {
        struct watched_map *next = TAILQ_NEXT(map, link);

        if (event == NULL)
            look_soon(map);
        else if (strcmp(event->devname, map->device) == 0)
            map_seen(map, event);
        map = next;
    }
}

void mp_monitor_watch(struct mp_monitor *monitor, const char *wwid, const char *device, bool well)
{
    struct watched_map *map;

    TAILQ_FOREACH(map, &monitor->maps, link)
    {
        if (strcmp(map->wwid, wwid) == 0)
            break;
    }
    if (map == NULL) {
        map = calloc(1, sizeof *map);
        if (map == NULL)
            return; /* as if the process had ended: the paths stay failed */
        map->monitor = monitor;
        map->timer.fire = timer_fired;
        mp_copy(map->wwid, sizeof map->wwid, wwid);
        TAILQ_INSERT_TAIL(&monitor->maps, map, link);
        mp_engine_watch_device(monitor->handle, &monitor->watch);
    }
    mp_copy(map->device, sizeof map->device, device);
    if (!well)
        look_soon(map);
}

struct mp_monitor *mp_monitor_new(struct manypath *handle)
{
    struct mp_monitor *monitor = calloc(1, sizeof *monitor);

    if (monitor == NULL)
        return NULL;
    monitor->handle = handle;
    monitor->watch.seen = seen;
    TAILQ_INIT(&monitor->maps);
    return monitor;
}

void mp_monitor_free(struct mp_monitor *monitor)
{
    struct watched_map *map;

    if (monitor == NULL)
        return;
    while ((map = TAILQ_FIRST(&monitor->maps)) != NULL) {
        TAILQ_REMOVE(&monitor->maps, map, link);
        free(map);
    }
    free(monitor);
}
