/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One event loop per handle. Everything below runs in the loop thread unless it says otherwise, so
 * nothing below is locked. Callers of the public API hand operations over and wait on the
 * operation's eventfd.
 *
 *   caller --submit--> loop --(iscsid sockets, uevents, timers)--> states of sessions and
 * operations
 *                       \--jobs--> workers (calls that block in the kernel) --done--> loop
 */
#ifndef MP_ENGINE_H
#define MP_ENGINE_H

#include "host.h"
#include "log.h"
#include "uevent.h"
#include "worker.h"

#include <manypath/manypath.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

/* A descriptor the loop watches. */
struct mp_source {
    int fd; /* -1: not watched */
    void (*ready)(struct mp_source *source, uint32_t epoll_events);
};

/* A one-shot timer. Zero-initialised is idle. */
struct mp_timer {
    uint64_t at_ns;
    size_t slot; /* 1-based place in the heap, 0: idle */
    void (*fire)(struct mp_timer *timer);
};

/* What waits for a block device to appear. */
struct mp_device_watch {
    TAILQ_ENTRY(mp_device_watch) link;
    bool linked;
    /* event NULL: events were lost, look for yourself */
    void (*seen)(struct mp_device_watch *watch, const struct mp_uevent *event);
};

struct mp_target; /* request.h: a portal, a name, a LUN */

/* One operation. Embedded first in the struct of each kind: attach, detach, discover. */
struct manypath_operation {
    TAILQ_ENTRY(manypath_operation) link;
    struct manypath *handle;
    int event_fd;
    atomic_int references; /* caller's, loop's, and what jobs hold */
    atomic_bool complete;
    atomic_bool cancel_requested;
    bool delivered; /* the result is set and belongs to the caller; what is left is cleaning up */
    struct mp_target *targets; /* what it works on: no other operation does meanwhile */
    size_t target_count;
    bool begun;
    uint64_t submit_ns;
    uint64_t begin_ns;
    uint64_t deadline_ns;
    struct mp_timer timer;       /* the deadline, later the end of the grace for undoing */
    struct manypath_error error; /* code 0: success */
    void (*begin)(struct manypath_operation *operation);
    void (*cancel)(struct manypath_operation *operation, int code); /* E_TIMEOUT or E_CANCELLED */
    /* Another operation waits for its LUNs: give up what goes on after delivery. May be NULL. */
    void (*yield)(struct manypath_operation *operation);
    bool (*idle)(const struct manypath_operation *operation); /* nothing runs for it any more */
    void (*free)(struct manypath_operation *operation);
};

TAILQ_HEAD(mp_operation_list, manypath_operation);
TAILQ_HEAD(mp_device_watch_list, mp_device_watch);

struct mp_client;   /* client.h: exchanges with iscsid */
struct mp_sessions; /* session.h: logins and logouts shared by operations */
struct mp_monitor;  /* monitor.h: failed paths of the maps that were attached */

struct manypath {
    struct mp_host *host;
    struct mp_log log;
    pid_t pid;

    pthread_mutex_t lock; /* guards the next four */
    bool started;
    bool stopping;
    bool cancels;
    struct mp_operation_list submitted;

    pthread_t thread;
    int epoll_fd;
    struct mp_source wake;
    struct mp_source uevents;
    struct mp_pool *pool;
    struct mp_timer **heap;
    size_t heap_size, heap_capacity;
    struct mp_operation_list queued;     /* an earlier one works on the same LUN */
    struct mp_operation_list operations; /* begun */
    struct mp_operation_list ending;     /* delivered, not idle yet */
    struct mp_device_watch_list watches;
    struct mp_device_watch *next_watch; /* to be told of the present event */
    struct mp_client *client;
    struct mp_sessions *sessions;
    struct mp_monitor *monitor;
};

/* Caller side, any thread. Starts the loop on first use, then queues the operation. */
int mp_engine_submit(struct manypath *handle, struct manypath_operation *operation,
                     struct manypath_error *err);
void mp_engine_cancel(struct manypath_operation *operation);
/* Stops and joins the loop thread; frees what the loop owned. */
void mp_engine_stop(struct manypath *handle);

/* Loop side. */
int mp_engine_watch(struct manypath *handle, struct mp_source *source, uint32_t epoll_events);
void mp_engine_rewatch(struct manypath *handle, struct mp_source *source, uint32_t epoll_events);
void mp_engine_unwatch(struct manypath *handle, struct mp_source *source); /* also closes the fd */
void mp_engine_arm(struct manypath *handle, struct mp_timer *timer, uint64_t at_ns);
void mp_engine_disarm(struct manypath *handle, struct mp_timer *timer);
void mp_engine_watch_device(struct manypath *handle, struct mp_device_watch *watch);
void mp_engine_unwatch_device(struct manypath *handle, struct mp_device_watch *watch);

/* The result is complete: wakes the caller. The operation lives on until it is idle, looked at
 * after each turn. */
void mp_operation_deliver(struct manypath_operation *operation);
/* One more reference. */
void mp_operation_hold(struct manypath_operation *operation);
/* Drops one reference; the last one frees, which may be a worker's when the handle is closed. */
void mp_operation_release(struct manypath_operation *operation);

#endif
