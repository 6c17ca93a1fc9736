/* SPDX-License-Identifier: Apache-2.0 */
#include "forget.h"

#include "map_util.h"
#include "multipathd.h"
#include "sysfs.h"
#include "waiting.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool mp_path_listed(const char *reply, const char *name)
{
    size_t length = strlen(name);

    while (*reply != '\0' && length > 0) {
        size_t line = strcspn(reply, "\n");
        size_t used = line;

        while (used > 0 && (reply[used - 1] == ' ' || reply[used - 1] == '\t'))
            used--; /* columns are padded */
        if (used == length && memcmp(reply, name, length) == 0)
            return true;
        reply += line + (reply[line] == '\n');
    }
    return false;
}

/* The disk that had the name is gone, so if there is one it is another. */
static bool name_is_free(const struct mp_host *host, const char *name)
{
    uint64_t ignored;

    return mp_sysfs_block_size(host->sysfs_root, name, &ignored) == -ENOENT;
}

/* Keeps the names that are still listed. */
static size_t still_listed(const struct mp_host *host, const char *reply,
                           char (*names)[MANYPATH_DEVICE_SIZE], size_t count)
{
    size_t left = 0;

    for (size_t i = 0; i < count; i++)
        if (mp_path_listed(reply, names[i]) && name_is_free(host, names[i]))
            memmove(names[left++], names[i], sizeof names[i]);
    return left;
}

/* While a busy daemon gets to it, the name may become another disk's: that one is given back. */
static void delete_path(const struct mp_host *host, const char *name, uint64_t deadline_ns)
{
    mp_map_ask_multipathd(host, "del path", name, deadline_ns);
    if (!name_is_free(host, name))
        mp_map_ask_multipathd(host, "add path", name, deadline_ns);
}

int mp_paths_forget(const struct mp_host *host, char (*names)[MANYPATH_DEVICE_SIZE], size_t count,
                    uint64_t deadline_ns)
{
    uint64_t ask_ns = mp_now_ns() + MP_MAP_ASK_AFTER;
    bool known = false;

    for (;;) {
        char *reply = NULL;

        if (count == 0 || !mp_multipathd_running(host->multipathd_pidfile))
            return 0;
        int result = mp_multipathd_command(host->multipathd_socket, host->daemon_uid,
                                           "show paths raw format \"%d\"", deadline_ns, &reply);

        if (result == -ETIMEDOUT && known)
            return (int)count;
        if (result < 0)
            return result == -ECONNREFUSED ? 0 : result;
        /* "timeout": it is busy, and nothing is known */
        if (mp_multipathd_reply_errno(reply) != -EAGAIN)
            count = still_listed(host, reply, names, count);
        known = true;
        free(reply);
        if (mp_now_ns() >= ask_ns) {
            for (size_t i = 0; i < count; i++)
                if (name_is_free(host, names[i]))
                    delete_path(host, names[i], deadline_ns);
            ask_ns = mp_now_ns() + MP_MAP_ASK_AFTER;
        }
        if (count > 0 && !mp_wait_turn(deadline_ns))
            return (int)count;
    }
}
