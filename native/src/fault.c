/* SPDX-License-Identifier: Apache-2.0 */
#include "fault.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { POINTS_MAX = 128, NAME_SIZE = 64 };

/* Points are passed in workers as well as in the engine's thread. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    const char *name;
    unsigned passings;
} points[POINTS_MAX];

/* The number of this passing, counted from 1. */
static unsigned count(const char *point)
{
    unsigned number = 0;

    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < POINTS_MAX && number == 0; i++) {
        if (points[i].name == NULL)
            points[i].name = point;
        if (strcmp(points[i].name, point) == 0)
            number = ++points[i].passings;
    }
    pthread_mutex_unlock(&lock);
    return number;
}

static void note(const char *name)
{
    const char *file = getenv("MANYPATH_FAULT_LOG");
    char line[NAME_SIZE + 1];
    int fd = file != NULL ? open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;

    if (fd < 0)
        return;
    int length = snprintf(line, sizeof line, "%s\n", name);

    if (length > 0 && write(fd, line, (size_t)length) != length)
        abort();
    close(fd);
}

void mp_fault(const char *point)
{
    const char *wanted = getenv("MANYPATH_FAULT");
    char name[NAME_SIZE];
    size_t length = (size_t)snprintf(name, sizeof name, "%s:%u", point, count(point));

    note(name);
    if (wanted == NULL || strncmp(wanted, name, length) != 0 || wanted[length] != '=')
        return;
    raise(strcmp(wanted + length + 1, "stop") == 0 ? SIGSTOP : SIGKILL);
}
