/* SPDX-License-Identifier: Apache-2.0 */
#include "dm.h"

#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* Added to the uapi header later than the kernels that we run on. */
#ifndef DM_NAME_LIST_FLAG_HAS_UUID
#define DM_NAME_LIST_FLAG_HAS_UUID 1
#define DM_NAME_LIST_FLAG_DOESNT_HAVE_UUID 2
#endif
#ifndef DM_GET_TARGET_VERSION
#define DM_GET_TARGET_VERSION _IOWR(DM_IOCTL, 0x11, struct dm_ioctl)
#endif

enum {
    BUFFER_FIRST = 16 * 1024,
    BUFFER_MAX = 16 * 1024 * 1024,
    PARAMS_MAX = 1024 * 1024,
    MESSAGE_MAX = 4096,
    TYPE_SIZE = 16,   /* DM_MAX_TYPE_NAME */
    ALIGNMENT = 8,    /* kernel drivers/md/dm-ioctl.c align_ptr */
    LIST_NAME = 12,   /* offset of the name in struct dm_name_list */
    VERSION_NAME = 16 /* offset of the name in struct dm_target_versions */
};

_Static_assert(sizeof(struct dm_ioctl) == 312, "the kernel's ABI");
_Static_assert(sizeof(struct dm_target_spec) == 40, "the kernel's ABI");
_Static_assert(offsetof(struct dm_name_list, name) == LIST_NAME, "the kernel's ABI");
_Static_assert(offsetof(struct dm_target_versions, name) == VERSION_NAME, "the kernel's ABI");
_Static_assert(DM_NAME_LEN == MP_DM_NAME_SIZE && DM_UUID_LEN == MP_DM_UUID_SIZE,
               "the kernel's ABI");
_Static_assert(DM_MAX_TYPE_NAME == TYPE_SIZE, "the kernel's ABI");

__attribute__((weak)) int mp_dm_ioctl(int fd, unsigned long request, void *argument)
{
    return ioctl(fd, request, argument) < 0 ? -errno : 0;
}

/* ---- device numbers: kernel include/linux/kdev_t.h huge_encode_dev ---- */

static uint64_t encode_dev(dev_t dev)
{
    uint64_t low = minor(dev);

    return (low & 0xff) | (uint64_t)major(dev) << 8 | (low & ~(uint64_t)0xff) << 12;
}

static dev_t decode_dev(uint64_t dev)
{
    return makedev((unsigned)(dev >> 8 & 0xfff), (unsigned)((dev & 0xff) | (dev >> 12 & 0xfff00)));
}

/* ---- what the kernel answered ---- */

struct reply {
    const unsigned char *bytes;
    size_t end;   /* bytes that the kernel says it filled, at most the buffer */
    size_t start; /* of the payload */
    struct dm_ioctl header;
};

/* Without a payload the kernel leaves data_size at the header (ctl_ioctl): start == end then. */
static int open_reply(const void *bytes, size_t size, struct reply *reply)
{
    if (size < sizeof reply->header)
        return -EPROTO;
    memcpy(&reply->header, bytes, sizeof reply->header);
    reply->bytes = bytes;
    reply->end = reply->header.data_size < size ? reply->header.data_size : size;
    reply->start = reply->header.data_start;
    if (reply->end <= sizeof reply->header)
        reply->start = reply->end;
    else if (reply->start < sizeof reply->header || reply->start > reply->end)
        return -EPROTO;
    return 0;
}

static bool get(const struct reply *reply, size_t at, void *value, size_t size)
{
    if (at > reply->end || reply->end - at < size)
        return false;
    memcpy(value, reply->bytes + at, size);
    return true;
}

/* A terminated string of less than `max` bytes at `at`; *ret_after is the offset behind its NUL. */
static const char *get_string(const struct reply *reply, size_t at, size_t max, size_t *ret_after)
{
    if (at >= reply->end)
        return NULL;
    size_t room = reply->end - at < max ? reply->end - at : max;
    const unsigned char *nul = memchr(reply->bytes + at, '\0', room);

    if (nul == NULL)
        return NULL;
    *ret_after = (size_t)(nul - reply->bytes) + 1;
    return (const char *)reply->bytes + at;
}

static size_t align(size_t at)
{
    return (at + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* The uuid follows the event number since Linux 5.13, if asked for; before, there are zeroes. */
static int decode_uuid(const struct reply *reply, size_t after_name, size_t limit,
                       struct mp_dm_record *record)
{
    size_t at = align(after_name);
    uint32_t words[2]; /* event_nr (since 4.13), flags */

    if (at > limit || limit - at < sizeof words || !get(reply, at, words, sizeof words))
        return 0;
    if (words[1] & DM_NAME_LIST_FLAG_HAS_UUID) {
        size_t after;
        const char *uuid = get_string(reply, align(at + sizeof words), MP_DM_UUID_SIZE, &after);

        if (uuid == NULL || after > limit)
            return -EPROTO;
        mp_copy(record->uuid, sizeof record->uuid, uuid);
        record->uuid_known = true;
    } else if (words[1] & DM_NAME_LIST_FLAG_DOESNT_HAVE_UUID) {
        record->uuid_known = true;
    }
    return 0;
}

/* One record at `at`; *ret_next is its distance to the next one, 0 for the last. */
static int decode_record(const struct reply *reply, size_t at, struct mp_dm_record *record,
                         uint32_t *ret_next)
{
    uint64_t dev;
    uint32_t next;
    size_t after;

    if (!get(reply, at, &dev, sizeof dev) || !get(reply, at + sizeof dev, &next, sizeof next))
        return -EPROTO;
    const char *name = get_string(reply, at + LIST_NAME, MP_DM_NAME_SIZE, &after);

    if (name == NULL)
        return -EPROTO;
    if (next != 0 && (next < after - at || next > reply->end - at))
        return -EPROTO;
    memset(record, 0, sizeof *record);
    record->dev = decode_dev(dev);
    mp_copy(record->name, sizeof record->name, name);
    *ret_next = next;
    return decode_uuid(reply, after, next != 0 ? at + next : reply->end, record);
}

int mp_dm_decode_list(const void *bytes, size_t size, struct mp_dm_record **ret_records,
                      size_t *ret_count)
{
    struct mp_dm_record *records = NULL;
    size_t count = 0;
    size_t capacity = 0;
    struct reply reply;
    uint32_t next = 0;
    uint64_t first_dev = 0;
    int r = open_reply(bytes, size, &reply);

    if (r < 0)
        return r;
    if (reply.start < reply.end && !get(&reply, reply.start, &first_dev, sizeof first_dev))
        return -EPROTO;
    if (first_dev == 0) { /* this is how the kernel says: no map */
        *ret_records = NULL;
        *ret_count = 0;
        return 0;
    }
    size_t at = reply.start;

    do {
        if (count == capacity) {
            capacity = capacity == 0 ? 64 : capacity * 2;
            struct mp_dm_record *larger = reallocarray(records, capacity, sizeof *records);

            if (larger == NULL) {
                r = -ENOMEM;
                break;
            }
            records = larger;
        }
        r = decode_record(&reply, at, &records[count++], &next);
        at += next;
    } while (r == 0 && next != 0);
    if (r < 0) {
        free(records);
        return r;
    }
    *ret_records = records;
    *ret_count = count;
    return 0;
}

int mp_dm_decode_deps(const void *bytes, size_t size, dev_t **ret_devs, size_t *ret_count)
{
    struct reply reply;
    uint32_t count = 0;
    size_t offset = offsetof(struct dm_target_deps, dev);
    int r = open_reply(bytes, size, &reply);

    if (r < 0)
        return r;
    if (reply.start < reply.end && !get(&reply, reply.start, &count, sizeof count))
        return -EPROTO;
    if (count == 0) {
        *ret_devs = NULL;
        *ret_count = 0;
        return 0;
    }
    if (reply.end - reply.start < offset ||
        count > (reply.end - reply.start - offset) / sizeof(uint64_t))
        return -EPROTO;
    dev_t *devs = calloc(count, sizeof *devs);

    if (devs == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        uint64_t dev = 0;

        get(&reply, reply.start + offset + i * sizeof dev, &dev, sizeof dev);
        devs[i] = decode_dev(dev);
    }
    *ret_devs = devs;
    *ret_count = count;
    return 0;
}

int mp_dm_decode_target(const void *bytes, size_t size, char ret_type[16], char **ret_params)
{
    struct dm_target_spec spec;
    struct reply reply;
    size_t after;
    int r = open_reply(bytes, size, &reply);

    if (r < 0)
        return r;
    if (reply.header.target_count == 0)
        return -ENODATA;
    if (!get(&reply, reply.start, &spec, sizeof spec) ||
        memchr(spec.target_type, '\0', sizeof spec.target_type) == NULL)
        return -EPROTO;
    const char *params = get_string(&reply, reply.start + sizeof spec, SIZE_MAX, &after);

    if (params == NULL)
        return -EPROTO;
    char *copy = strdup(params);

    if (copy == NULL)
        return -ENOMEM;
    mp_copy(ret_type, TYPE_SIZE, spec.target_type);
    *ret_params = copy;
    return 0;
}

int mp_dm_decode_versions(const void *bytes, size_t size, const char *type, bool *ret_has)
{
    struct reply reply;
    uint32_t next;
    size_t after;
    int r = open_reply(bytes, size, &reply);

    if (r < 0)
        return r;
    size_t at = reply.start;

    do {
        if (reply.start == reply.end)
            break;
        const char *name = get_string(&reply, at + VERSION_NAME, SIZE_MAX, &after);

        if (name == NULL || !get(&reply, at, &next, sizeof next))
            return -EPROTO;
        if (strcmp(name, type) == 0) {
            *ret_has = true;
            return 0;
        }
        if (next != 0 && (next < after - at || next > reply.end - at))
            return -EPROTO;
        at += next;
    } while (next != 0);
    *ret_has = false;
    return 0;
}

/* ---- calls ---- */

/* The version asked for is the oldest: the kernel refuses only a newer one than its own. */
static void init_header(struct dm_ioctl *header, uint32_t flags)
{
    memset(header, 0, sizeof *header);
    header->version[0] = 4;
    header->data_size = sizeof *header;
    header->data_start = sizeof *header;
    header->flags = flags;
}

/* Maps are looked up by uuid alone: name and dev must be empty then (kernel validate_params). */
static int init_by_uuid(struct dm_ioctl *header, const char *uuid, uint32_t flags)
{
    init_header(header, flags);
    if (uuid[0] == '\0' || !mp_copy(header->uuid, sizeof header->uuid, uuid))
        return -EINVAL;
    return 0;
}

/*
 * A call with an answer of unknown length. BUFFER_FULL comes back as a flag with success: the
 * whole call is repeated with a larger buffer. Each attempt starts from `request_header`.
 */
static int call_growing(int fd, unsigned long request, const struct dm_ioctl *request_header,
                        void **ret_reply, size_t *ret_size)
{
    for (size_t size = BUFFER_FIRST; size <= BUFFER_MAX; size *= 2) {
        unsigned char *buffer =
            calloc(1, size); /* zeroed: an old kernel leaves gaps as we sent them */
        struct dm_ioctl header = *request_header;

        if (buffer == NULL)
            return -ENOMEM;
        header.data_size = (uint32_t)size;
        memcpy(buffer, &header, sizeof header);
        int r = mp_dm_ioctl(fd, request, buffer);

        if (r < 0) {
            free(buffer);
            return r;
        }
        memcpy(&header, buffer, sizeof header);
        if (!(header.flags & DM_BUFFER_FULL_FLAG)) {
            *ret_reply = buffer;
            *ret_size = size;
            return 0;
        }
        free(buffer);
    }
    return -EOVERFLOW;
}

int mp_dm_open(const char *control_path, int *ret_fd)
{
    struct dm_ioctl header;
    int fd = open(control_path, O_RDWR | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    init_header(&header, 0);
    int r = mp_dm_ioctl(fd, DM_VERSION, &header);

    /* a kernel of another major version refuses, and tells its own (kernel check_version) */
    if ((r == 0 || r == -EINVAL) && header.version[0] != 4)
        r = -EPROTONOSUPPORT;
    if (r < 0) {
        close(fd);
        return r;
    }
    *ret_fd = fd;
    return 0;
}

int mp_dm_has_target(int fd, const char *type, bool *ret_has)
{
    struct dm_ioctl header;
    void *reply;
    size_t size;

    if (type[0] == '\0' || strnlen(type, TYPE_SIZE) >= TYPE_SIZE)
        return -EINVAL;
    init_header(&header, 0);
    mp_copy(header.name, sizeof header.name, type);
    int r = call_growing(fd, DM_GET_TARGET_VERSION, &header, &reply, &size);

    if (r == -EINVAL) { /* not there, and the kernel could not load it (kernel __list_versions) */
        *ret_has = false;
        return 0;
    }
    if (r == 0) {
        free(reply);
        *ret_has = true;
        return 0;
    }
    if (r != -ENOTTY) /* Linux before 5.5 */
        return r;
    init_header(&header, 0);
    r = call_growing(fd, DM_LIST_VERSIONS, &header, &reply, &size);
    if (r < 0)
        return r;
    r = mp_dm_decode_versions(reply, size, type, ret_has);
    free(reply);
    return r;
}

int mp_dm_create(int fd, const char *name, const char *uuid, dev_t *ret_dev)
{
    struct dm_ioctl header;
    int r = init_by_uuid(&header, uuid, 0);

    if (r < 0)
        return r;
    if (name[0] == '\0' || strchr(name, '/') != NULL ||
        !mp_copy(header.name, sizeof header.name, name))
        return -EINVAL;
    r = mp_dm_ioctl(fd, DM_DEV_CREATE, &header);
    if (r < 0)
        return r;
    *ret_dev = decode_dev(header.dev);
    return 0;
}

int mp_dm_load(int fd, const char *uuid, uint64_t sectors, const char *type, const char *params,
               bool read_only)
{
    struct dm_target_spec spec = {.length = sectors};
    struct dm_ioctl header;
    size_t length = strnlen(params, PARAMS_MAX);
    int r = init_by_uuid(&header, uuid, read_only ? DM_READONLY_FLAG : 0);

    if (r < 0)
        return r;
    if (length >= PARAMS_MAX || type[0] == '\0' || sectors == 0 ||
        !mp_copy(spec.target_type, sizeof spec.target_type, type))
        return -EINVAL;
    size_t size = align(sizeof header + sizeof spec + length + 1);
    unsigned char *buffer = calloc(1, size);

    if (buffer == NULL)
        return -ENOMEM;
    header.data_size = (uint32_t)size;
    header.target_count = 1;
    spec.next = (uint32_t)(size - sizeof header);
    memcpy(buffer, &header, sizeof header);
    memcpy(buffer + sizeof header, &spec, sizeof spec);
    memcpy(buffer + sizeof header + sizeof spec, params, length);
    r = mp_dm_ioctl(fd, DM_TABLE_LOAD, buffer);
    free(buffer);
    return r;
}

/* The cookie: flags in the upper half, and base 0 so that no semaphore is needed. */
static int init_with_cookie(struct dm_ioctl *header, const char *uuid, uint32_t flags,
                            uint32_t udev_flags)
{
    int r = init_by_uuid(header, uuid, flags);

    if (r < 0)
        return r;
    if (udev_flags > UINT16_MAX)
        return -EINVAL;
    header->event_nr = udev_flags << 16;
    return 0;
}

int mp_dm_resume(int fd, const char *uuid, uint32_t udev_flags, bool reload)
{
    uint32_t flags = reload ? DM_NOFLUSH_FLAG | DM_SKIP_LOCKFS_FLAG : 0;
    struct dm_ioctl header;
    int r;

    do { /* a signal during the swap puts the new table back into its slot (kernel do_resume) */
        r = init_with_cookie(&header, uuid, flags, udev_flags);
        if (r == 0)
            r = mp_dm_ioctl(fd, DM_DEV_SUSPEND, &header);
    } while (r == -EINTR);
    return r;
}

int mp_dm_remove(int fd, const char *uuid, uint32_t udev_flags)
{
    struct dm_ioctl header;
    int r = init_with_cookie(&header, uuid, 0, udev_flags);

    return r < 0 ? r : mp_dm_ioctl(fd, DM_DEV_REMOVE, &header);
}

int mp_dm_remove_deferred(int fd, const char *uuid, uint32_t udev_flags)
{
    struct dm_ioctl header;
    int r = init_with_cookie(&header, uuid, DM_DEFERRED_REMOVE, udev_flags);

    return r < 0 ? r : mp_dm_ioctl(fd, DM_DEV_REMOVE, &header);
}

static void fill_info(const struct dm_ioctl *header, struct mp_dm_info *info)
{
    struct dm_ioctl safe = *header;

    safe.name[sizeof safe.name - 1] = '\0';
    safe.uuid[sizeof safe.uuid - 1] = '\0';
    memset(info, 0, sizeof *info);
    mp_copy(info->name, sizeof info->name, safe.name);
    mp_copy(info->uuid, sizeof info->uuid, safe.uuid);
    info->dev = decode_dev(safe.dev);
    info->open_count = safe.open_count;
    info->event_nr = safe.event_nr;
    info->active_table = safe.flags & DM_ACTIVE_PRESENT_FLAG;
    info->inactive_table = safe.flags & DM_INACTIVE_PRESENT_FLAG;
    info->suspended = safe.flags & DM_SUSPEND_FLAG;
}

int mp_dm_info(int fd, const char *uuid, struct mp_dm_info *ret_info)
{
    struct dm_ioctl header;
    int r = init_by_uuid(&header, uuid, 0);

    if (r == 0)
        r = mp_dm_ioctl(fd, DM_DEV_STATUS, &header);
    if (r == 0)
        fill_info(&header, ret_info);
    return r;
}

int mp_dm_info_by_dev(int fd, dev_t dev, struct mp_dm_info *ret_info)
{
    struct dm_ioctl header;

    init_header(&header, 0);
    header.dev = encode_dev(dev);
    int r = mp_dm_ioctl(fd, DM_DEV_STATUS, &header);

    if (r == 0)
        fill_info(&header, ret_info);
    return r;
}

static int target_text(int fd, const char *uuid, uint32_t flags, char ret_type[16],
                       char **ret_params)
{
    struct dm_ioctl header;
    void *reply;
    size_t size;
    int r = init_by_uuid(&header, uuid, flags | DM_NOFLUSH_FLAG);

    if (r == 0)
        r = call_growing(fd, DM_TABLE_STATUS, &header, &reply, &size);
    if (r < 0)
        return r;
    r = mp_dm_decode_target(reply, size, ret_type, ret_params);
    free(reply);
    return r;
}

int mp_dm_table(int fd, const char *uuid, char ret_type[16], char **ret_params)
{
    return target_text(fd, uuid, DM_STATUS_TABLE_FLAG, ret_type, ret_params);
}

int mp_dm_status(int fd, const char *uuid, char ret_type[16], char **ret_params)
{
    return target_text(fd, uuid, 0, ret_type, ret_params);
}

int mp_dm_deps(int fd, const char *uuid, dev_t **ret_devs, size_t *ret_count)
{
    struct dm_ioctl header;
    void *reply;
    size_t size;
    int r = init_by_uuid(&header, uuid, 0);

    if (r == 0)
        r = call_growing(fd, DM_TABLE_DEPS, &header, &reply, &size);
    if (r < 0)
        return r;
    r = mp_dm_decode_deps(reply, size, ret_devs, ret_count);
    free(reply);
    return r;
}

int mp_dm_message(int fd, const char *uuid, const char *message)
{
    struct dm_ioctl header;
    size_t length = strnlen(message, MESSAGE_MAX);
    int r = init_by_uuid(&header, uuid, 0);

    if (r < 0)
        return r;
    if (length == 0 || length >= MESSAGE_MAX)
        return -EINVAL;
    size_t size = align(sizeof header + offsetof(struct dm_target_msg, message) + length + 1);
    unsigned char *buffer = calloc(1, size); /* zeroes: sector 0, and the string's end */

    if (buffer == NULL)
        return -ENOMEM;
    header.data_size = (uint32_t)size;
    memcpy(buffer, &header, sizeof header);
    memcpy(buffer + sizeof header + offsetof(struct dm_target_msg, message), message, length);
    r = mp_dm_ioctl(fd, DM_TARGET_MSG, buffer);
    free(buffer);
    return r;
}

static bool has_prefix(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* The list has names only, so each map that may be meant is asked for the rest. */
static int collect_infos(int fd, const char *uuid_prefix, const struct mp_dm_record *records,
                         size_t count, struct mp_dm_info *infos, size_t *ret_count)
{
    size_t found = 0;

    for (size_t i = 0; i < count; i++) {
        struct mp_dm_info *info = &infos[found];

        if (records[i].uuid_known && !has_prefix(records[i].uuid, uuid_prefix))
            continue;
        int r = mp_dm_info_by_dev(fd, records[i].dev, info);

        if (r == -ENXIO) /* removed since */
            continue;
        if (r < 0)
            return r;
        /* it was unknown until now, or the number has a new owner */
        if (has_prefix(info->uuid, uuid_prefix))
            found++;
    }
    *ret_count = found;
    return 0;
}

int mp_dm_list(int fd, const char *uuid_prefix, struct mp_dm_info **ret_maps, size_t *ret_count)
{
    struct mp_dm_record *records = NULL;
    struct mp_dm_info *infos = NULL;
    struct dm_ioctl header;
    size_t count = 0, found = 0, size;
    void *reply = NULL;

    init_header(&header, DM_UUID_FLAG);
    if (!mp_copy(header.uuid, sizeof header.uuid, uuid_prefix)) /* filters since Linux 6.1 */
        return -EINVAL;
    int r = call_growing(fd, DM_LIST_DEVICES, &header, &reply, &size);

    if (r < 0)
        return r;
    r = mp_dm_decode_list(reply, size, &records, &count);
    if (r == 0 && count > 0 && (infos = calloc(count, sizeof *infos)) == NULL)
        r = -ENOMEM;
    if (r == 0)
        r = collect_infos(fd, uuid_prefix, records, count, infos, &found);
    if (r < 0 || found == 0) {
        free(infos);
        infos = NULL;
    }
    if (r == 0) {
        *ret_maps = infos;
        *ret_count = found;
    }
    free(records);
    free(reply);
    return r;
}
