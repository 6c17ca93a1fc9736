/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads for calls that block in the kernel. Jobs are run in a worker and handed back to the
 * engine's loop. A job owns everything its run() touches, so a caller that gives up just stops
 * looking at it.
 */
#ifndef MP_WORKER_H
#define MP_WORKER_H

#include <stdbool.h>
#include <sys/queue.h>

struct mp_job {
    STAILQ_ENTRY(mp_job) link;
    void (*run)(struct mp_job *job);  /* in a worker */
    void (*done)(struct mp_job *job); /* in the loop; owns the job from here on */
    void (*drop)(struct mp_job *job); /* instead of done, when the engine stops first: free it */
    bool running;                     /* the pool's; run() was called */
    bool abandoned;                   /* the pool's */
    bool finished;                    /* the pool's */
};

STAILQ_HEAD(mp_job_list, mp_job);

struct mp_pool;

/* `wake_fd` is an eventfd that is written when a job is finished. NULL: out of memory. */
struct mp_pool *mp_pool_new(unsigned max_threads, int wake_fd);

/* Queues a job. A thread is started when none is idle and fewer than the maximum run. Negative
 * errno only when no thread exists and none can be made; the job is then not queued. */
int mp_pool_submit(struct mp_pool *pool, struct mp_job *job);

/* The caller no longer waits for this job. If it has not begun it never does, and is handed back as it
 * is; else its thread, perhaps stuck, stops counting against the maximum. */
void mp_pool_abandon(struct mp_pool *pool, struct mp_job *job);

/* Moves the finished jobs to `ret_jobs` (initialised by the caller). */
void mp_pool_collect(struct mp_pool *pool, struct mp_job_list *ret_jobs);

/* Stops the pool; never waits for a running job. Queued and finished jobs are dropped, running ones
 * when they end; the last thread frees the pool. */
void mp_pool_stop(struct mp_pool *pool);

#endif
