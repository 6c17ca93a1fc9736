/* SPDX-License-Identifier: Apache-2.0 */
#include "engine.h"

#include "client.h"
#include "error.h"
#include "request.h"
#include "session.h"
#include "text.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    EVENTS_PER_TURN = 64,
    UEVENT_BYTES = 8192, /* kernel lib/kobject_uevent.c: 2 KiB of variables and the devpath */
};

/* ---- timers: a binary heap ordered by time ---- */

static void heap_put(struct manypath *handle, size_t slot, struct mp_timer *timer)
{
    handle->heap[slot - 1] = timer;
    timer->slot = slot;
}

static void heap_up(struct manypath *handle, size_t slot)
{
    struct mp_timer *timer = handle->heap[slot - 1];

    while (slot > 1 && handle->heap[slot / 2 - 1]->at_ns > timer->at_ns) {
        heap_put(handle, slot, handle->heap[slot / 2 - 1]);
        slot /= 2;
    }
    heap_put(handle, slot, timer);
}

static void heap_down(struct manypath *handle, size_t slot)
{
    struct mp_timer *timer = handle->heap[slot - 1];

    for (;;) {
        size_t child = slot * 2;

        if (child > handle->heap_size)
            break;
        if (child < handle->heap_size &&
            handle->heap[child]->at_ns < handle->heap[child - 1]->at_ns)
            child++;
        if (handle->heap[child - 1]->at_ns >= timer->at_ns)
            break;
        heap_put(handle, slot, handle->heap[child - 1]);
        slot = child;
    }
    heap_put(handle, slot, timer);
}

void mp_engine_disarm(struct manypath *handle, struct mp_timer *timer)
{
    size_t slot = timer->slot;

    if (slot == 0)
        return;
    timer->slot = 0;

    struct mp_timer *last = handle->heap[handle->heap_size - 1];

    handle->heap_size--;
    if (last == timer)
        return;
    heap_put(handle, slot, last);
    heap_up(handle, slot);
    heap_down(handle, last->slot);
}

void mp_engine_arm(struct manypath *handle, struct mp_timer *timer, uint64_t at_ns)
{
    mp_engine_disarm(handle, timer);
    timer->at_ns = at_ns;
    if (handle->heap_size == handle->heap_capacity) {
        size_t capacity = handle->heap_capacity * 2 + 64;
        struct mp_timer **heap = realloc(handle->heap, capacity * sizeof(*heap));

        if (heap == NULL)
            abort(); /* a lost deadline would hang a caller; a few KiB that are not there are the
                        end anyway */
        handle->heap = heap;
        handle->heap_capacity = capacity;
    }
    handle->heap_size++;
    heap_put(handle, handle->heap_size, timer);
    heap_up(handle, handle->heap_size);
}

static void fire_timers(struct manypath *handle)
{
    uint64_t now = mp_now_ns();

    while (handle->heap_size > 0 && handle->heap[0]->at_ns <= now) {
        struct mp_timer *timer = handle->heap[0];

        mp_engine_disarm(handle, timer);
        timer->fire(timer);
    }
}

static int wait_ms(const struct manypath *handle)
{
    if (handle->heap_size == 0)
        return -1;

    uint64_t now = mp_now_ns();
    uint64_t at = handle->heap[0]->at_ns;

    if (at <= now)
        return 0;
    uint64_t ms = (at - now + 999999) / 1000000;

    return ms > 60000 ? 60000 : (int)ms;
}

/* ---- descriptors ---- */

int mp_engine_watch(struct manypath *handle, struct mp_source *source, uint32_t epoll_events)
{
    struct epoll_event event = {.events = epoll_events, .data.ptr = source};

    return epoll_ctl(handle->epoll_fd, EPOLL_CTL_ADD, source->fd, &event) < 0 ? -errno : 0;
}

void mp_engine_rewatch(struct manypath *handle, struct mp_source *source, uint32_t epoll_events)
{
    struct epoll_event event = {.events = epoll_events, .data.ptr = source};

    epoll_ctl(handle->epoll_fd, EPOLL_CTL_MOD, source->fd, &event);
}

void mp_engine_unwatch(struct manypath *handle, struct mp_source *source)
{
    if (source->fd < 0)
        return;
    epoll_ctl(handle->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
    close(source->fd);
    source->fd = -1;
}

/* ---- block devices ---- */

void mp_engine_watch_device(struct manypath *handle, struct mp_device_watch *watch)
{
    if (!watch->linked)
        TAILQ_INSERT_TAIL(&handle->watches, watch, link);
    watch->linked = true;
}

void mp_engine_unwatch_device(struct manypath *handle, struct mp_device_watch *watch)
{
    if (handle->next_watch == watch)
        handle->next_watch = TAILQ_NEXT(watch, link);
    if (watch->linked)
        TAILQ_REMOVE(&handle->watches, watch, link);
    watch->linked = false;
}

/* A watch may unlink itself and others while it is told: a path that fails may end its whole attach. */
static void tell_watches(struct manypath *handle, const struct mp_uevent *event)
{
    handle->next_watch = TAILQ_FIRST(&handle->watches);
    while (handle->next_watch != NULL) {
        struct mp_device_watch *watch = handle->next_watch;

        handle->next_watch = TAILQ_NEXT(watch, link);
        watch->seen(watch, event);
    }
}

static void uevents_ready(struct mp_source *source, uint32_t epoll_events)
{
    struct manypath *handle =
        (struct manypath *)((char *)source - offsetof(struct manypath, uevents));
    char buffer[UEVENT_BYTES];
    bool lost = false;

    (void)epoll_events;
    for (;;) {
        ssize_t length = mp_uevent_receive(source->fd, buffer, sizeof buffer);
        struct mp_uevent event;

        if (length == -ENOBUFS)
            lost = true;
        else if (length < 0)
            break;
        else if (length > 0 && mp_uevent_parse(buffer, (size_t)length, &event) == 0)
            tell_watches(handle, &event);
    }
    /* Last: from the overrun until the queue is empty the kernel drops what comes, and says so only once,
     * before what it had queued (kernel af_netlink.c NETLINK_S_CONGESTED). */
    if (lost)
        tell_watches(handle, NULL);
}

/* ---- operations ---- */

static bool overlap(const struct manypath_operation *a, const struct manypath_operation *b)
{
    return mp_targets_overlap(a->targets, a->target_count, b->targets, b->target_count);
}

static bool conflicts(const struct mp_operation_list *list,
                      const struct manypath_operation *operation)
{
    const struct manypath_operation *other;

    TAILQ_FOREACH(other, list, link)
    {
        if (other == operation)
            return false; /* those behind it in the queue wait for it */
        if (overlap(other, operation))
            return true;
    }
    return false;
}

/* Is something still going on for the LUNs of this operation? Says that it should come to an end. */
static bool waits_for_ending(struct manypath *handle, const struct manypath_operation *operation)
{
    struct manypath_operation *other;
    bool any = false;

    TAILQ_FOREACH(other, &handle->ending, link)
    {
        if (!overlap(other, operation))
            continue;
        if (other->yield != NULL)
            other->yield(other);
        any = any || !other->idle(other);
    }
    return any;
}

static void take_from_queue(struct manypath *handle, struct manypath_operation *operation)
{
    TAILQ_REMOVE(&handle->queued, operation, link);
    TAILQ_INSERT_TAIL(&handle->operations, operation, link);
    operation->begun = true;
    operation->begin_ns = mp_now_ns();
}

/* Two operations on one LUN would take each other's disks away: the later one begins when nothing
 * of the earlier one runs any more, not even in the background. */
static bool begin_queued(struct manypath *handle)
{
    struct manypath_operation *operation = TAILQ_FIRST(&handle->queued);
    bool any = false;

    while (operation != NULL) {
        struct manypath_operation *next = TAILQ_NEXT(operation, link);

        if (!conflicts(&handle->operations, operation) && !conflicts(&handle->queued, operation) &&
            !waits_for_ending(handle, operation)) {
            take_from_queue(handle, operation);
            operation->begin(operation);
            any = true;
        }
        operation = next;
    }
    return any;
}

static void cancel_operation(struct manypath_operation *operation, int code)
{
    if (!operation->begun)
        take_from_queue(operation->handle, operation);
    operation->cancel(operation, code);
}

static void operation_timer(struct mp_timer *timer)
{
    cancel_operation(
        (struct manypath_operation *)((char *)timer - offsetof(struct manypath_operation, timer)),
        MANYPATH_E_TIMEOUT);
}

static void queue_operation(struct manypath *handle, struct manypath_operation *operation)
{
    TAILQ_INSERT_TAIL(&handle->queued, operation, link);
    operation->timer.fire = operation_timer;
    mp_engine_arm(handle, &operation->timer, operation->deadline_ns);
}

void mp_operation_deliver(struct manypath_operation *operation)
{
    struct manypath *handle = operation->handle;
    uint64_t one = 1;

    mp_engine_disarm(handle, &operation->timer);
    TAILQ_REMOVE(&handle->operations, operation, link);
    TAILQ_INSERT_TAIL(&handle->ending, operation, link);
    operation->delivered = true;
    atomic_store(&operation->complete, true);
    ssize_t written = write(operation->event_fd, &one, sizeof one);

    (void)written; /* the first write to an eventfd cannot fail */
}

void mp_operation_hold(struct manypath_operation *operation)
{
    atomic_fetch_add(&operation->references, 1);
}

void mp_operation_release(struct manypath_operation *operation)
{
    if (atomic_fetch_sub(&operation->references, 1) > 1)
        return;
    close(operation->event_fd);
    operation->free(operation);
}

static bool release_idle(struct manypath *handle)
{
    struct manypath_operation *operation = TAILQ_FIRST(&handle->ending);
    bool any = false;

    while (operation != NULL) {
        struct manypath_operation *next = TAILQ_NEXT(operation, link);

        if (operation->idle(operation)) {
            TAILQ_REMOVE(&handle->ending, operation, link);
            mp_operation_release(operation);
            any = true;
        }
        operation = next;
    }
    return any;
}

static void take_cancels(struct mp_operation_list *list)
{
    struct manypath_operation *operation = TAILQ_FIRST(list);

    while (operation != NULL) {
        struct manypath_operation *next = TAILQ_NEXT(operation, link);

        if (atomic_load(&operation->cancel_requested))
            cancel_operation(operation, MANYPATH_E_CANCELLED);
        operation = next;
    }
}

static void wake_ready(struct mp_source *source, uint32_t epoll_events)
{
    struct manypath *handle = (struct manypath *)((char *)source - offsetof(struct manypath, wake));
    struct mp_operation_list submitted = TAILQ_HEAD_INITIALIZER(submitted);
    struct mp_job_list finished = STAILQ_HEAD_INITIALIZER(finished);
    uint64_t count;
    ssize_t length = read(source->fd, &count, sizeof count);

    (void)length; /* EAGAIN: somebody woke us for nothing */
    (void)epoll_events;
    pthread_mutex_lock(&handle->lock);
    TAILQ_CONCAT(&submitted, &handle->submitted, link);
    bool cancels = handle->cancels;

    handle->cancels = false;
    pthread_mutex_unlock(&handle->lock);

    mp_pool_collect(handle->pool, &finished);
    while (!STAILQ_EMPTY(&finished)) {
        struct mp_job *job = STAILQ_FIRST(&finished);

        STAILQ_REMOVE_HEAD(&finished, link);
        job->done(job);
    }
    while (!TAILQ_EMPTY(&submitted)) {
        struct manypath_operation *operation = TAILQ_FIRST(&submitted);

        TAILQ_REMOVE(&submitted, operation, link);
        queue_operation(handle, operation);
    }
    if (cancels) {
        take_cancels(&handle->operations);
        take_cancels(&handle->queued);
    }
}

static bool stopping(struct manypath *handle)
{
    pthread_mutex_lock(&handle->lock);
    bool result = handle->stopping;

    pthread_mutex_unlock(&handle->lock);
    return result;
}

static void *loop_main(void *argument)
{
    struct manypath *handle = argument;
    struct epoll_event events[EVENTS_PER_TURN];

    while (!stopping(handle)) {
        int count = epoll_wait(handle->epoll_fd, events, EVENTS_PER_TURN, wait_ms(handle));

        for (int i = 0; i < count; i++) {
            struct mp_source *source = events[i].data.ptr;

            /* a source closed by an earlier event of this turn has fd -1; its memory lives until
             * the turn ends */
            if (source->fd >= 0)
                source->ready(source, events[i].events);
        }
        fire_timers(handle);
        bool more = true;

        while (more) { /* what ends makes room for what is queued, and that has requests to send */
            mp_client_turn(handle->client);
            more = release_idle(handle);
            more = begin_queued(handle) || more;
        }
        mp_sessions_turn(handle->sessions);
    }
    return NULL;
}

/* ---- start and stop ---- */

static void wake(struct manypath *handle)
{
    uint64_t one = 1;
    ssize_t written = write(handle->wake.fd, &one, sizeof one);

    (void)written;
}

static void close_all(struct manypath *handle)
{
    if (handle->pool != NULL)
        mp_pool_stop(handle->pool);
    handle->pool = NULL;
    if (handle->uevents.fd >= 0)
        close(handle->uevents.fd);
    if (handle->wake.fd >= 0)
        close(handle->wake.fd);
    if (handle->epoll_fd >= 0)
        close(handle->epoll_fd);
    handle->uevents.fd = handle->wake.fd = handle->epoll_fd = -1;
}

static int start_thread(struct manypath *handle)
{
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int result = pthread_create(&handle->thread, NULL, loop_main, handle);

    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -result;
}

/* With the lock held. */
static int start(struct manypath *handle)
{
    int result;

    handle->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    handle->wake.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    handle->wake.ready = wake_ready;
    handle->uevents.ready = uevents_ready;
    if (handle->epoll_fd < 0 || handle->wake.fd < 0)
        result = -errno;
    else
        result = mp_uevent_open(&handle->uevents.fd);
    if (result == 0)
        result = mp_engine_watch(handle, &handle->wake, EPOLLIN);
    if (result == 0)
        result = mp_engine_watch(handle, &handle->uevents, EPOLLIN);
    if (result == 0) {
        handle->pool = mp_pool_new(handle->host->worker_threads, handle->wake.fd);
        if (handle->pool == NULL)
            result = -ENOMEM;
    }
    if (result == 0)
        result = start_thread(handle);
    if (result < 0)
        close_all(handle);
    else
        handle->started = true;
    return result;
}

int mp_engine_submit(struct manypath *handle, struct manypath_operation *operation,
                     struct manypath_error *err)
{
    int result = 0;

    if (handle->pid != getpid())
        return mp_error(
            err, MANYPATH_E_FORKED, MANYPATH_PHASE_REQUEST, 0,
            "this handle was opened by process %d before a fork; open a new one in the child",
            (int)handle->pid);
    pthread_mutex_lock(&handle->lock);
    if (!handle->started)
        result = start(handle);
    if (result == 0) {
        TAILQ_INSERT_TAIL(&handle->submitted, operation, link);
        wake(handle);
    }
    pthread_mutex_unlock(&handle->lock);
    if (result < 0)
        return mp_error(err, MANYPATH_E_SYSTEM, MANYPATH_PHASE_REQUEST, result,
                        "cannot start the engine (epoll, eventfd, uevent socket, thread): errno %d",
                        -result);
    return 0;
}

void mp_engine_cancel(struct manypath_operation *operation)
{
    struct manypath *handle = operation->handle;

    atomic_store(&operation->cancel_requested, true);
    pthread_mutex_lock(&handle->lock);
    handle->cancels = true;
    wake(handle);
    pthread_mutex_unlock(&handle->lock);
}

void mp_engine_stop(struct manypath *handle)
{
    struct manypath_operation *operation;

    if (!handle->started)
        return;
    pthread_mutex_lock(&handle->lock);
    handle->stopping = true;
    wake(handle);
    pthread_mutex_unlock(&handle->lock);
    pthread_join(handle->thread, NULL);
    close_all(handle);
    /* nothing fires any more; owners may still disarm what they have armed */
    for (size_t i = 0; i < handle->heap_size; i++)
        handle->heap[i]->slot = 0;
    handle->heap_size = handle->heap_capacity = 0;
    free(handle->heap);
    handle->heap = NULL;
    TAILQ_CONCAT(&handle->operations, &handle->queued, link);
    TAILQ_CONCAT(&handle->operations, &handle->submitted, link);
    while ((operation = TAILQ_FIRST(&handle->operations)) != NULL) {
        mp_error(&operation->error, MANYPATH_E_CANCELLED, MANYPATH_PHASE_NONE, 0,
                 "the handle was closed while the operation ran");
        mp_operation_deliver(operation);
    }
    while ((operation = TAILQ_FIRST(&handle->ending)) != NULL) {
        TAILQ_REMOVE(&handle->ending, operation, link);
        mp_operation_release(operation);
    }
    handle->started = false;
}
