/* SPDX-License-Identifier: Apache-2.0 */
#include "users.h"

#include "holders.h"
#include "mounts.h"
#include "openers.h"
#include "sysfs.h"
#include "text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

enum {
    HOLDERS_MAX = MP_PART_MAPS_MAX,
    NAMED_MAX = 4, /* mounts of one device that are named */
};

#define LOOK_LIMIT UINT64_C(1000000000) /* for a program to be named */

bool mp_part_map_of(const char *uuid, const char *map_uuid, unsigned *ret_number)
{
    const char *at = uuid;
    uint64_t number;

    if (strncmp(at, "part", 4) != 0)
        return false;
    at += 4;
    if (!mp_take_u64(&at, UINT16_MAX, &number) || *at++ != '-' || strcmp(at, map_uuid) != 0)
        return false;
    *ret_number = (unsigned)number;
    return true;
}

int mp_part_maps(const struct mp_host *host, const char *device, const char *map_uuid,
                 struct mp_part_map *ret_maps, size_t max, size_t *ret_count)
{
    char holders[HOLDERS_MAX][MANYPATH_DEVICE_SIZE];
    size_t count = 0, found = 0;
    int result = mp_sysfs_holders(host->sysfs_root, device, holders, HOLDERS_MAX, &count);

    for (size_t i = 0; result == 0 && i < count && i < HOLDERS_MAX && found < max; i++) {
        struct mp_part_map *map = &ret_maps[found];

        result = mp_sysfs_dm(host->sysfs_root, holders[i], map->uuid, sizeof map->uuid, NULL, 0);
        if (result == 0 && mp_part_map_of(map->uuid, map_uuid, &map->number)) {
            mp_copy(map->device, sizeof map->device, holders[i]);
            found++;
        }
        if (mp_holder_comes_or_goes(holders[i], result) || result == -ENOENT ||
            result == -EOVERFLOW)
            result = 0; /* it goes, or it is no map or somebody's with a long name */
    }
    if (result == 0)
        *ret_count = found;
    return result;
}

/* ---- describing ---- */

struct sentence {
    char *text;
    size_t size;
    size_t used;
};

static void say(struct sentence *sentence, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void say(struct sentence *sentence, const char *format, ...)
{
    va_list args;

    if (sentence->used >= sentence->size)
        return;
    va_start(args, format);
    int length =
        vsnprintf(sentence->text + sentence->used, sentence->size - sentence->used, format, args);
    va_end(args);
    sentence->used += length > 0 ? (size_t)length : 0;
}

/* A part of the sentence: "<lead> <what> <value>", where the lead names a partition map or is "". */
static void say_part(struct sentence *sentence, const char *lead, const char *what,
                     const char *value)
{
    say(sentence, "%s%s%s%s%s%s", sentence->used > 0 ? "; " : "", lead, lead[0] != '\0' ? " " : "",
        what, value[0] != '\0' ? " " : "", value);
}

/* `name` is the device, or a partition of it: "sda1" of "sda". */
static bool belongs(const char *name, const char *device)
{
    size_t length = strlen(device);

    if (strncmp(name, device, length) != 0)
        return false;
    name += length;
    return strspn(name, "0123456789") == strlen(name) &&
           (*name == '\0' || strncmp(device, "dm-", 3) != 0);
}

/* Does this path below /dev lead to the device? Its number decides; its name where there is no node,
 * as in a container. */
static bool leads_to(const struct mp_host *host, const char *path, const char *device)
{
    char name[MANYPATH_DEVICE_SIZE];
    struct stat status;

    if (strncmp(path, "/dev/", 5) != 0)
        return false; /* not asked: it may be on a file system that does not answer */
    if (stat(path, &status) == 0 && S_ISBLK(status.st_mode))
        return mp_sysfs_block_name(host->sysfs_root, status.st_rdev, name, sizeof name) == 0 &&
               belongs(name, device);
    return belongs(path + 5, device);
}

static bool mounted_from(const struct mp_host *host, const struct mp_mount *mount,
                         const char *device)
{
    char name[MANYPATH_DEVICE_SIZE];

    if (major(mount->dev) == 0)
        return leads_to(host, mount->source, device);
    return mp_sysfs_block_name(host->sysfs_root, mount->dev, name, sizeof name) == 0 &&
           belongs(name, device);
}

static void say_mounts(struct sentence *sentence, const struct mp_host *host, const char *lead,
                       const char *device)
{
    char path[MP_MOUNT_PATH_SIZE];
    struct mp_mount mount;
    char *text = NULL;
    unsigned named = 0;

    if (mp_mounts_read(host->proc_root, "self/mountinfo", &text) == 0) {
        const char *at = text;

        while (named < NAMED_MAX && mp_mounts_next(&at, &mount))
            if (mounted_from(host, &mount, device)) {
                say_part(sentence, lead, "mounted on", mount.point);
                named++;
            }
        free(text);
    }
    if (mp_mounts_read(host->proc_root, "swaps", &text) == 0) {
        const char *at = text;

        while (mp_swaps_next(&at, path, sizeof path))
            if (leads_to(host, path, device))
                say_part(sentence, lead, "used as swap", "");
        free(text);
    }
}

/* "vg0-lv" of dm-5, else the name itself: md0 */
static void say_holder(struct sentence *sentence, const struct mp_host *host, const char *lead,
                       const char *holder)
{
    char name[MANYPATH_WWID_SIZE] = "";
    char text[MANYPATH_WWID_SIZE + MANYPATH_DEVICE_SIZE + 4];

    mp_sysfs_dm(host->sysfs_root, holder, NULL, 0, name, sizeof name);
    snprintf(text, sizeof text, name[0] != '\0' ? "%s (%s)" : "%s%s",
             name[0] != '\0' ? name : holder, name[0] != '\0' ? holder : "");
    say_part(sentence, lead, "held by", text);
}

static void say_users(struct sentence *sentence, const struct mp_host *host, const char *lead,
                      const char *device)
{
    char holders[HOLDERS_MAX][MANYPATH_DEVICE_SIZE];
    char uuid[MANYPATH_WWID_SIZE + 8] = "";
    size_t count = 0;

    say_mounts(sentence, host, lead, device);
    mp_sysfs_dm(host->sysfs_root, device, uuid, sizeof uuid, NULL, 0);
    if (mp_sysfs_holders(host->sysfs_root, device, holders, HOLDERS_MAX, &count) < 0)
        return;
    for (size_t i = 0; i < count && i < HOLDERS_MAX && sentence->used < sentence->size; i++) {
        char part_uuid[MANYPATH_WWID_SIZE + 32] = "";
        char part[64];
        unsigned number;

        mp_sysfs_dm(host->sysfs_root, holders[i], part_uuid, sizeof part_uuid, NULL, 0);
        if (lead[0] == '\0' && mp_part_map_of(part_uuid, uuid, &number)) {
            snprintf(part, sizeof part, "partition map p%u (%.31s)", number, holders[i]);
            say_users(sentence, host, part,
                      holders[i]); /* once: nothing lies on a part of a part */
        } else {
            say_holder(sentence, host, lead, holders[i]);
        }
    }
}

/* ---- programs ---- */

struct device {
    const struct mp_host *host;
    const char *name;
};

static bool is_opened(const void *context, dev_t dev)
{
    const struct device *device = context;
    char name[MANYPATH_DEVICE_SIZE];

    return mp_sysfs_block_name(device->host->sysfs_root, dev, name, sizeof name) == 0 &&
           belongs(name, device->name);
}

int mp_users_program(const struct mp_host *host, const char *disk, uint64_t deadline_ns,
                     char ret_program[MP_USERS_PROGRAM_SIZE])
{
    const struct device device = {.host = host, .name = disk};
    struct mp_opener opener;
    int result =
        mp_opener_find(host->proc_root, host->dev_root, is_opened, &device, deadline_ns, &opener);

    if (result > 0 || result == -EACCES)
        snprintf(ret_program, MP_USERS_PROGRAM_SIZE, "%s (pid %d)", opener.program,
                 (int)opener.pid);
    return result;
}

/* Of a map the open count tells enough. */
static void say_program(struct sentence *sentence, const struct mp_host *host, const char *device)
{
    char program[MP_USERS_PROGRAM_SIZE];

    if (strncmp(device, "dm-", 3) != 0 &&
        mp_users_program(host, device, mp_now_ns() + LOOK_LIMIT, program) > 0)
        say(sentence, "open in %s", program);
    else
        say(sentence, "a program has it open, or another mount namespace");
}

bool mp_users_name(const struct mp_host *host, const char *device, char *text, size_t size)
{
    struct sentence sentence = {.text = text, .size = size};

    text[0] = '\0';
    say_users(&sentence, host, "", device);
    return sentence.used > 0;
}

bool mp_users_describe(const struct mp_host *host, const char *device, int open_count, char *text,
                       size_t size)
{
    bool named = mp_users_name(host, device, text, size);
    struct sentence sentence = {.text = text, .size = size, .used = strlen(text)};

    if (!named)
        say_program(&sentence, host, device);
    if (open_count >= 0)
        say(&sentence, "; %d open", open_count);
    return named;
}
