/* SPDX-License-Identifier: Apache-2.0 */
#include "worker.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum {
    IDLE_SECONDS = 30,        /* an idle thread leaves after this long */
    STACK_BYTES = 256 * 1024, /* jobs are shallow; hundreds of threads must stay cheap */
};

struct mp_pool {
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct mp_job_list queue;
    struct mp_job_list finished;
    unsigned queued;
    unsigned threads;
    unsigned idle;
    unsigned abandoned;
    unsigned max;
    int wake_fd;
    bool stopping;
};

struct mp_pool *mp_pool_new(unsigned max_threads, int wake_fd)
{
    struct mp_pool *pool = calloc(1, sizeof *pool);
    pthread_condattr_t attributes;

    if (pool == NULL)
        return NULL;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&pool->work, &attributes);
    pthread_condattr_destroy(&attributes);
    STAILQ_INIT(&pool->queue);
    STAILQ_INIT(&pool->finished);
    pool->max = max_threads;
    pool->wake_fd = wake_fd;
    return pool;
}

static void pool_free(struct mp_pool *pool)
{
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

/* Waits for a job with the lock held; NULL when the thread should leave. */
static struct mp_job *next_job(struct mp_pool *pool)
{
    struct timespec until;
    int result = 0;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += IDLE_SECONDS;
    pool->idle++;
    while (STAILQ_EMPTY(&pool->queue) && !pool->stopping && result == 0)
        result = pthread_cond_timedwait(&pool->work, &pool->lock, &until);
    pool->idle--;
    if (pool->stopping || STAILQ_EMPTY(&pool->queue))
        return NULL;

    struct mp_job *job = STAILQ_FIRST(&pool->queue);

    STAILQ_REMOVE_HEAD(&pool->queue, link);
    pool->queued--;
    job->running = true;
    return job;
}

/* Hands it back to the loop; with the lock held. */
static void finish(struct mp_pool *pool, struct mp_job *job)
{
    uint64_t one = 1;

    job->finished = true;
    STAILQ_INSERT_TAIL(&pool->finished, job, link);
    ssize_t written = write(pool->wake_fd, &one, sizeof one);

    (void)written; /* a full counter is readable already */
}

static void *worker_main(void *argument)
{
    struct mp_pool *pool = argument;
    struct mp_job *job;

    pthread_mutex_lock(&pool->lock);
    while ((job = next_job(pool)) != NULL) {
        pthread_mutex_unlock(&pool->lock);
        job->run(job);
        pthread_mutex_lock(&pool->lock);
        if (job->abandoned)
            pool->abandoned--;
        if (pool->stopping) {
            job->drop(job);
            break;
        }
        finish(pool, job);
    }
    pool->threads--;

    bool last = pool->stopping && pool->threads == 0;

    pthread_mutex_unlock(&pool->lock);
    if (last)
        pool_free(pool);
    return NULL;
}

static int start_thread(struct mp_pool *pool)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;

    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    sigfillset(&all); /* signals belong to the host program's threads */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int result = pthread_create(&thread, &attributes, worker_main, pool);

    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (result == 0)
        pool->threads++;
    return -result;
}

int mp_pool_submit(struct mp_pool *pool, struct mp_job *job)
{
    int result = 0;

    pthread_mutex_lock(&pool->lock);
    if (pool->idle <= pool->queued && pool->threads < pool->max + pool->abandoned)
        result = start_thread(pool);
    if (result < 0 && pool->threads > pool->abandoned)
        result = 0; /* another thread will come to it */
    if (result == 0) {
        STAILQ_INSERT_TAIL(&pool->queue, job, link);
        pool->queued++;
        pthread_cond_signal(&pool->work);
    }
    pthread_mutex_unlock(&pool->lock);
    return result;
}

void mp_pool_abandon(struct mp_pool *pool, struct mp_job *job)
{
    pthread_mutex_lock(&pool->lock);
    if (!job->running && !job->finished) {
        /* not begun: what it would do is not wanted any more, and may harm others by then */
        STAILQ_REMOVE(&pool->queue, job, mp_job, link);
        pool->queued--;
        finish(pool, job);
    } else if (!job->abandoned && !job->finished) {
        job->abandoned = true;
        pool->abandoned++;
    }
    pthread_mutex_unlock(&pool->lock);
}

void mp_pool_collect(struct mp_pool *pool, struct mp_job_list *ret_jobs)
{
    pthread_mutex_lock(&pool->lock);
    STAILQ_CONCAT(ret_jobs, &pool->finished);
    pthread_mutex_unlock(&pool->lock);
}

static void drop_all(struct mp_job_list *jobs)
{
    while (!STAILQ_EMPTY(jobs)) {
        struct mp_job *job = STAILQ_FIRST(jobs);

        STAILQ_REMOVE_HEAD(jobs, link);
        job->drop(job);
    }
}

void mp_pool_stop(struct mp_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    pool->stopping = true;
    drop_all(&pool->queue);
    drop_all(&pool->finished);
    pthread_cond_broadcast(&pool->work);

    bool last = pool->threads == 0;

    pthread_mutex_unlock(&pool->lock);
    if (last)
        pool_free(pool);
}
