/* SPDX-License-Identifier: Apache-2.0 */
#include "sysfs.h"

#include "text.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum {
    ENTRIES_MAX = 1 << 20, /* of one list; a directory with more is not one that the kernel made */
    LINK_SIZE = 1024,
    ENTRY_SIZE = 96, /* "connection2147483647:0/persistent_address" and the like */
};

/* The kernel (scsi_transport_iscsi.c, kernfs) answers any of these for an object in teardown. */
static int gone(int error)
{
    switch (error) {
    case ENODEV:
    case EINVAL:
    case ENOTCONN:
    case ENXIO:
    case ENOTDIR:
        return ENOENT;
    default:
        return error;
    }
}

static int open_directory_at(int at, const char *path)
{
    int fd = openat(at, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return fd >= 0 ? fd : -gone(errno);
}

static int open_dir_at(int at, const char *path, DIR **ret_dir)
{
    int fd = open_directory_at(at, path);

    if (fd < 0)
        return fd;
    DIR *dir = fdopendir(fd);

    if (dir == NULL) {
        int error = errno;

        close(fd);
        return -error;
    }
    *ret_dir = dir;
    return 0;
}

static int open_dir(const char *root, const char *rest, DIR **ret_dir)
{
    char path[PATH_MAX];
    int length = snprintf(path, sizeof path, "%s/%s", root, rest);

    if (length < 0 || (size_t)length >= sizeof path)
        return -ENAMETOOLONG;
    return open_dir_at(AT_FDCWD, path, ret_dir);
}

/* The next name that does not start with a dot. 1, 0 at the end, or a negative errno. */
static int next_name(DIR *dir, const char **ret_name)
{
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(dir);

        if (entry == NULL)
            return gone(errno) == ENOENT ? 0 : -errno;
        if (entry->d_name[0] != '.') {
            *ret_name = entry->d_name;
            return 1;
        }
    }
}

/*
 * Reads one attribute. "<NULL>" (how the iSCSI transport class prints an unset string) becomes "".
 * -ENOENT: gone. -EOVERFLOW: longer than `size` or no text: never cut a value that gets compared.
 */
static int read_at(int at, const char *path, char *buffer, size_t size)
{
    int fd = openat(at, path, O_RDONLY | O_CLOEXEC);
    ssize_t length;

    if (fd < 0)
        return -gone(errno);
    do
        length = read(fd, buffer, size);
    while (length < 0 && errno == EINTR);
    int error = errno;

    close(fd);
    if (length < 0)
        return -gone(error);
    while (length > 0 && (buffer[length - 1] == '\n' || buffer[length - 1] == ' '))
        length--;
    if ((size_t)length >= size || memchr(buffer, '\0', (size_t)length) != NULL)
        return -EOVERFLOW;
    buffer[length] = '\0';
    if (strcmp(buffer, "<NULL>") == 0)
        buffer[0] = '\0';
    return 0;
}

/* As read_at(), for attributes that may be missing or odd: those read as "". */
static int read_optional_at(int at, const char *path, char *buffer, size_t size)
{
    int r = read_at(at, path, buffer, size);

    if (r < 0)
        buffer[0] = '\0';
    return r == -ENOENT || r == -EOVERFLOW || r == -EACCES ? 0 : r;
}

/* Makes room for one more element. */
static int reserve(void **array, size_t *capacity, size_t count, size_t element)
{
    if (count < *capacity)
        return 0;
    if (count >= ENTRIES_MAX)
        return -EOVERFLOW;
    size_t wanted = *capacity == 0 ? 16 : *capacity * 2;
    void *larger = reallocarray(*array, wanted, element);

    if (larger == NULL)
        return -ENOMEM;
    *array = larger;
    *capacity = wanted;
    return 0;
}

static bool take_i32(const char **cursor, int32_t *ret_value)
{
    uint64_t value;

    if (!mp_take_u64(cursor, INT32_MAX, &value))
        return false;
    *ret_value = (int32_t)value;
    return true;
}

static bool take_text(const char **cursor, const char *text)
{
    size_t length = strlen(text);

    if (strncmp(*cursor, text, length) != 0)
        return false;
    *cursor += length;
    return true;
}

/* ---- sessions ---- */

static bool parse_session_name(const char *name, int32_t *ret_sid)
{
    int32_t sid;

    if (!take_text(&name, "session") || !take_i32(&name, &sid) || *name != '\0')
        return false;
    *ret_sid = sid;
    return true;
}

static int compare_sid(const void *left, const void *right)
{
    int32_t a = *(const int32_t *)left;
    int32_t b = *(const int32_t *)right;

    return (a > b) - (a < b);
}

/* All sids of the class directory, ascending. */
static int list_sids(DIR *class_dir, int32_t **ret_sids, size_t *ret_count)
{
    int32_t *sids = NULL;
    size_t count = 0;
    size_t capacity = 0;
    const char *name;
    int r;

    while ((r = next_name(class_dir, &name)) > 0) {
        int32_t sid;

        if (!parse_session_name(name, &sid))
            continue;
        r = reserve((void **)&sids, &capacity, count, sizeof *sids);
        if (r < 0)
            break;
        sids[count++] = sid;
    }
    if (r < 0) {
        free(sids);
        return r;
    }
    if (count > 1)
        qsort(sids, count, sizeof *sids, compare_sid);
    *ret_sids = sids;
    *ret_count = count;
    return 0;
}

static int read_session(int class_fd, int32_t sid, const char *attribute, char *buffer, size_t size)
{
    char path[ENTRY_SIZE];

    snprintf(path, sizeof path, "session%" PRId32 "/%s", sid, attribute);
    return read_at(class_fd, path, buffer, size);
}

/* The class directories are neighbours, so that no second descriptor is needed. */
static int read_connection(int class_fd, int32_t sid, const char *attribute, char *buffer,
                           size_t size)
{
    char path[ENTRY_SIZE];

    snprintf(path, sizeof path, "../iscsi_connection/connection%" PRId32 ":0/%s", sid, attribute);
    return read_optional_at(class_fd, path, buffer, size);
}

/* sessionN is a link to .../hostH/sessionN/iscsi_session/sessionN */
static int read_host(int class_fd, int32_t sid, int32_t *ret_host)
{
    char name[ENTRY_SIZE];
    char link[LINK_SIZE];

    snprintf(name, sizeof name, "session%" PRId32, sid);
    ssize_t length = readlinkat(class_fd, name, link, sizeof link);

    if (length < 0)
        return -gone(errno);
    if ((size_t)length >= sizeof link)
        return -EOVERFLOW;
    link[length] = '\0';
    for (const char *at = link; (at = strstr(at, "/host")) != NULL; at++) {
        const char *rest = at + strlen("/host");
        int32_t host;

        if (take_i32(&rest, &host) && take_text(&rest, "/") && take_text(&rest, name) &&
            *rest == '/') {
            *ret_host = host;
            return 0;
        }
    }
    return -ENOENT;
}

static enum mp_session_state parse_state(const char *text)
{
    if (strcmp(text, "LOGGED_IN") == 0)
        return MP_SESSION_LOGGED_IN;
    if (strcmp(text, "FAILED") == 0)
        return MP_SESSION_FAILED;
    if (strcmp(text, "FREE") == 0)
        return MP_SESSION_FREE;
    return MP_SESSION_OTHER;
}

/* What was asked for, before any redirect. An unreadable or odd value leaves family 0. */
static int read_portal(int class_fd, int32_t sid, struct mp_session *session)
{
    char port_text[16];
    uint64_t port;

    memset(&session->portal, 0, sizeof session->portal);
    int r = read_connection(class_fd, sid, "persistent_address", session->address_text,
                            sizeof session->address_text);

    if (r < 0 || session->address_text[0] == '\0')
        return r;
    r = read_connection(class_fd, sid, "persistent_port", port_text, sizeof port_text);
    if (r < 0)
        return r;
    if (mp_parse_u64(port_text, UINT16_MAX, &port) && port != 0)
        mp_portal_parse(session->address_text, (uint16_t)port, &session->portal);
    return 0;
}

/* State and host, the rest of a session whose name and portal are known. */
static int read_session_rest(int class_fd, int32_t sid, struct mp_session *session)
{
    int r = read_session(class_fd, sid, "state", session->state_text, sizeof session->state_text);

    if (r == -EOVERFLOW)
        session->state_text[0] = '\0';
    else if (r < 0)
        return r;
    session->state = parse_state(session->state_text);
    return read_host(class_fd, sid, &session->host);
}

static int read_whole_session(int class_fd, int32_t sid, struct mp_session *session)
{
    memset(session, 0, sizeof *session);
    session->sid = sid;
    int r = read_session(class_fd, sid, "targetname", session->iqn, sizeof session->iqn);

    if (r == -EOVERFLOW)
        session->iqn[0] = '\0';
    else if (r < 0)
        return r;
    r = read_portal(class_fd, sid, session);
    return r < 0 ? r : read_session_rest(class_fd, sid, session);
}

int mp_sysfs_sessions(const char *root, struct mp_session **ret_sessions, size_t *ret_count)
{
    struct mp_session *sessions = NULL;
    int32_t *sids = NULL;
    size_t sid_count = 0;
    size_t count = 0;
    DIR *dir = NULL;
    int r = open_dir(root, "class/iscsi_session", &dir);

    if (r == -ENOENT) { /* the transport class is not loaded: no session */
        *ret_sessions = NULL;
        *ret_count = 0;
        return 0;
    }
    if (r < 0)
        return r;
    r = list_sids(dir, &sids, &sid_count);
    if (r < 0)
        goto out;
    if (sid_count > 0 && (sessions = calloc(sid_count, sizeof *sessions)) == NULL) {
        r = -ENOMEM;
        goto out;
    }
    for (size_t i = 0; i < sid_count; i++) {
        r = read_whole_session(dirfd(dir), sids[i], &sessions[count]);
        if (r == 0)
            count++;
        else if (r != -ENOENT && r != -EOVERFLOW)
            goto out;
    }
    if (count == 0) {
        free(sessions);
        sessions = NULL;
    }
    *ret_sessions = sessions;
    *ret_count = count;
    sessions = NULL;
    r = 0;
out:
    free(sessions);
    free(sids);
    closedir(dir);
    return r;
}

/* 1: this is the session asked for, 0: it is not (or it vanished). */
static int match_session(int class_fd, int32_t sid, const char *iqn, const struct mp_portal *portal,
                         struct mp_session *session)
{
    memset(session, 0, sizeof *session);
    session->sid = sid;
    int r = read_session(class_fd, sid, "targetname", session->iqn, sizeof session->iqn);

    if (r == 0) {
        if (strcmp(session->iqn, iqn) != 0)
            return 0;
        r = read_portal(class_fd, sid, session);
    }
    if (r == 0) {
        if (!mp_portal_equal(&session->portal, portal))
            return 0;
        r = read_session_rest(class_fd, sid, session);
    }
    if (r == 0)
        return 1;
    return r == -ENOENT || r == -EOVERFLOW ? 0 : r;
}

int mp_sysfs_find_session(const char *root, const char *iqn, const struct mp_portal *portal,
                          struct mp_session *ret_session)
{
    int32_t *sids = NULL;
    size_t count = 0;
    DIR *dir = NULL;
    int r = open_dir(root, "class/iscsi_session", &dir);

    if (r < 0)
        return r;
    r = list_sids(dir, &sids, &count);
    for (size_t i = count; r == 0 && i > 0; i--) { /* the newest first: it was likely just made */
        struct mp_session session;

        r = match_session(dirfd(dir), sids[i - 1], iqn, portal, &session);
        if (r == 1)
            *ret_session = session;
    }
    free(sids);
    closedir(dir);
    if (r < 0)
        return r;
    return r == 1 ? 0 : -ENOENT;
}

int mp_sysfs_session_state(const char *root, int32_t sid, enum mp_session_state *ret_state)
{
    char path[PATH_MAX];
    char text[32];
    int length =
        snprintf(path, sizeof path, "%s/class/iscsi_session/session%" PRId32 "/state", root, sid);

    if (length < 0 || (size_t)length >= sizeof path)
        return -ENAMETOOLONG;
    int r = read_at(AT_FDCWD, path, text, sizeof text);

    if (r == -EOVERFLOW)
        text[0] = '\0';
    else if (r < 0)
        return r;
    *ret_state = parse_state(text);
    return 0;
}

/* ---- SCSI devices of a session ---- */

static int open_session_dir(const char *root, int32_t sid, DIR **ret_dir)
{
    char rest[ENTRY_SIZE];

    /* Through the class link: only iscsi_tcp and iser hosts live below devices/platform. */
    snprintf(rest, sizeof rest, "class/iscsi_session/session%" PRId32 "/device", sid);
    return open_dir(root, rest, ret_dir);
}

/* "target<host>:<channel>:<target>" */
static bool parse_target_name(const char *name, int32_t host, int32_t *ret_channel,
                              int32_t *ret_target)
{
    int32_t number;

    return take_text(&name, "target") && take_i32(&name, &number) && number == host &&
           take_text(&name, ":") && take_i32(&name, ret_channel) && take_text(&name, ":") &&
           take_i32(&name, ret_target) && *name == '\0';
}

/* "<host>:<channel>:<target>:<lun>" with the numbers known but the last */
static bool parse_device_name(const char *name, const struct mp_disk *expected, uint64_t *ret_lun)
{
    int32_t host, channel, target;

    return take_i32(&name, &host) && host == expected->host && take_text(&name, ":") &&
           take_i32(&name, &channel) && channel == expected->channel && take_text(&name, ":") &&
           take_i32(&name, &target) && target == expected->target && take_text(&name, ":") &&
           mp_parse_u64(name, UINT64_MAX, ret_lun);
}

static bool parse_dev(const char *text, dev_t *ret_dev)
{
    uint64_t major_number, minor_number;

    /* kernel include/linux/kdev_t.h: 12 bits of major, 20 bits of minor */
    if (!mp_take_u64(&text, 0xfff, &major_number) || !take_text(&text, ":") ||
        !mp_parse_u64(text, 0xfffff, &minor_number))
        return false;
    *ret_dev = makedev((unsigned)major_number, (unsigned)minor_number);
    return true;
}

static bool parse_sectors(const char *text, uint64_t *ret_bytes)
{
    uint64_t sectors;

    if (!mp_parse_u64(text, UINT64_MAX / 512, &sectors))
        return false;
    *ret_bytes = sectors * 512;
    return true;
}

/* block/<name>/{dev,size}. sd probes asynchronously, so that any of it may not be there yet. */
static int read_block(int device_fd, struct mp_disk *disk)
{
    char path[MANYPATH_DEVICE_SIZE + 8];
    char dev_text[32], size_text[32];
    const char *name = "";
    DIR *dir = NULL;
    int r = open_dir_at(device_fd, "block", &dir);

    if (r < 0)
        return r == -ENOENT ? 0 : r;
    r = next_name(dir, &name);
    if (r <= 0 || !mp_copy(disk->name, sizeof disk->name, name))
        goto out;
    snprintf(path, sizeof path, "%s/dev", disk->name);
    r = read_optional_at(dirfd(dir), path, dev_text, sizeof dev_text);
    if (r < 0)
        goto out;
    snprintf(path, sizeof path, "%s/size", disk->name);
    r = read_optional_at(dirfd(dir), path, size_text, sizeof size_text);
    if (r < 0 || !parse_sectors(size_text, &disk->size_bytes))
        goto out;
    parse_dev(dev_text, &disk->dev);
out:
    closedir(dir);
    if (disk->dev == 0) {
        disk->name[0] = '\0';
        disk->size_bytes = 0;
    }
    return r < 0 ? r : 0;
}

static int read_disk(int at, const char *path, struct mp_disk *disk)
{
    int fd = open_directory_at(at, path);

    if (fd < 0)
        return fd;
    int r = read_at(fd, "state", disk->state, sizeof disk->state);

    if (r == -EOVERFLOW) {
        disk->state[0] = '\0';
        r = 0;
    }
    if (r == 0)
        r = read_optional_at(fd, "dh_state", disk->dh_state, sizeof disk->dh_state);
    if (r == 0 && strcmp(disk->dh_state, "detached") == 0)
        disk->dh_state[0] = '\0';
    if (r == 0)
        r = read_block(fd, disk);
    close(fd);
    return r;
}

int mp_sysfs_find_disk(const char *root, int32_t host, int32_t sid, uint64_t lun,
                       struct mp_disk *ret_disk)
{
    const char *name = "";
    DIR *dir = NULL;
    int found = -ENOENT;
    int r = open_session_dir(root, sid, &dir);

    if (r < 0)
        return r;
    while (found == -ENOENT && (r = next_name(dir, &name)) > 0) {
        struct mp_disk disk = {.host = host, .lun = lun};
        char path[2 * ENTRY_SIZE];

        if (!parse_target_name(name, host, &disk.channel, &disk.target))
            continue;
        /* the name is known: open it instead of listing the target */
        snprintf(path, sizeof path, "%.*s/%" PRId32 ":%" PRId32 ":%" PRId32 ":%" PRIu64, ENTRY_SIZE,
                 name, host, disk.channel, disk.target, lun);
        found = read_disk(dirfd(dir), path, &disk);
        if (found == 0)
            *ret_disk = disk;
    }
    closedir(dir);
    return r < 0 ? r : found;
}

struct disk_list {
    struct mp_disk *disks;
    size_t count;
    size_t capacity;
};

/* Adds the devices of one target directory. */
static int add_target_disks(int session_fd, const char *target_name, const struct mp_disk *expected,
                            struct disk_list *list)
{
    const char *name = "";
    DIR *dir = NULL;
    int r = open_dir_at(session_fd, target_name, &dir);

    if (r < 0)
        return r == -ENOENT ? 0 : r;
    while ((r = next_name(dir, &name)) > 0) {
        struct mp_disk disk = *expected;

        if (!parse_device_name(name, expected, &disk.lun))
            continue;
        r = read_disk(dirfd(dir), name, &disk);
        if (r == -ENOENT)
            continue;
        if (r == 0)
            r = reserve((void **)&list->disks, &list->capacity, list->count, sizeof disk);
        if (r < 0)
            break;
        list->disks[list->count++] = disk;
    }
    closedir(dir);
    return r;
}

static int compare_disk(const void *left, const void *right)
{
    const struct mp_disk *a = left;
    const struct mp_disk *b = right;

    if (a->channel != b->channel)
        return a->channel < b->channel ? -1 : 1;
    if (a->target != b->target)
        return a->target < b->target ? -1 : 1;
    return (a->lun > b->lun) - (a->lun < b->lun);
}

int mp_sysfs_session_disks(const char *root, int32_t host, int32_t sid, struct mp_disk **ret_disks,
                           size_t *ret_count)
{
    struct disk_list list = {0};
    const char *name = "";
    DIR *dir = NULL;
    int r = open_session_dir(root, sid, &dir);

    if (r < 0)
        return r;
    while ((r = next_name(dir, &name)) > 0) {
        struct mp_disk expected = {.host = host};

        if (!parse_target_name(name, host, &expected.channel, &expected.target))
            continue;
        r = add_target_disks(dirfd(dir), name, &expected, &list);
        if (r < 0)
            break;
    }
    closedir(dir);
    if (r < 0) {
        free(list.disks);
        return r;
    }
    if (list.count > 1)
        qsort(list.disks, list.count, sizeof *list.disks, compare_disk);
    *ret_disks = list.disks;
    *ret_count = list.count;
    return 0;
}

bool mp_sysfs_session_has_targets(const char *root, int32_t host, int32_t sid)
{
    const char *name = "";
    DIR *dir = NULL;
    bool found = false;
    int32_t channel, target;

    if (open_session_dir(root, sid, &dir) < 0)
        return false;
    while (!found && next_name(dir, &name) > 0)
        found = parse_target_name(name, host, &channel, &target);
    closedir(dir);
    return found;
}

/* ---- block devices ---- */

static bool is_block_name(const char *name)
{
    return name[0] != '\0' && name[0] != '.' && strchr(name, '/') == NULL &&
           strnlen(name, MANYPATH_DEVICE_SIZE) < MANYPATH_DEVICE_SIZE;
}

struct holder_list {
    char (*names)[MANYPATH_DEVICE_SIZE];
    size_t max;
    size_t count;
};

static bool holder_known(const struct holder_list *list, const char *name)
{
    for (size_t i = 0; i < list->count && i < list->max; i++)
        if (strcmp(list->names[i], name) == 0)
            return true;
    return false;
}

static int add_holders(int at, const char *path, struct holder_list *list)
{
    const char *name = "";
    DIR *dir = NULL;
    int r = open_dir_at(at, path, &dir);

    if (r < 0)
        return r == -ENOENT ? 0 : r;
    while ((r = next_name(dir, &name)) > 0) {
        if (holder_known(list, name)) /* one map on two partitions */
            continue;
        if (list->count < list->max)
            mp_copy(list->names[list->count], MANYPATH_DEVICE_SIZE, name);
        list->count++;
    }
    closedir(dir);
    return r;
}

int mp_sysfs_holders(const char *root, const char *name, char (*ret_names)[MANYPATH_DEVICE_SIZE],
                     size_t max, size_t *ret_count)
{
    struct holder_list list = {.names = ret_names, .max = max};
    char path[MANYPATH_DEVICE_SIZE + 8];
    const char *entry = "";
    DIR *dir = NULL;

    if (!is_block_name(name))
        return -EINVAL;
    snprintf(path, sizeof path, "block/%s", name);
    int r = open_dir(root, path, &dir);

    if (r < 0)
        return r;
    r = add_holders(dirfd(dir), "holders", &list);
    while (r == 0 && (r = next_name(dir, &entry)) > 0) {
        char partition[2 * MANYPATH_DEVICE_SIZE];

        r = 0;
        if (strncmp(entry, name, strlen(name)) != 0 || !is_block_name(entry))
            continue;
        snprintf(partition, sizeof partition, "%.*s/holders", MANYPATH_DEVICE_SIZE, entry);
        r = add_holders(dirfd(dir), partition, &list);
    }
    closedir(dir);
    if (r < 0)
        return r;
    *ret_count = list.count;
    return 0;
}

int mp_sysfs_slaves(const char *root, const char *name, char (*ret_names)[MANYPATH_DEVICE_SIZE],
                    size_t max, size_t *ret_count)
{
    struct holder_list list = {.names = ret_names, .max = max};
    char path[MANYPATH_DEVICE_SIZE + 8];
    DIR *dir = NULL;

    if (!is_block_name(name))
        return -EINVAL;
    snprintf(path, sizeof path, "block/%s", name);
    int r = open_dir(root, path, &dir);

    if (r < 0)
        return r;
    r = add_holders(dirfd(dir), "slaves", &list);
    closedir(dir);
    if (r == 0)
        *ret_count = list.count;
    return r;
}

/* ".../hostH/sessionS/targetH:C:T/H:C:T:L/block/NAME" */
static bool parse_place(const char *link, int32_t *ret_sid, int32_t *ret_host, uint64_t *ret_lun)
{
    static const char session[] = "/session";
    const char *at = strstr(link, session);
    const char *block = strstr(link, "/block/");
    uint64_t sid, host, ignored;

    if (at == NULL || block == NULL)
        return false;
    at += sizeof session - 1;
    if (!mp_take_u64(&at, INT32_MAX, &sid) || *at != '/')
        return false;
    while (block > at && block[-1] != '/')
        block--;
    if (!mp_take_u64(&block, INT32_MAX, &host) || *block++ != ':' ||
        !mp_take_u64(&block, INT32_MAX, &ignored) || *block++ != ':' ||
        !mp_take_u64(&block, INT32_MAX, &ignored) || *block++ != ':' ||
        !mp_take_u64(&block, INT64_MAX, ret_lun) || *block != '/')
        return false;
    *ret_sid = (int32_t)sid;
    *ret_host = (int32_t)host;
    return true;
}

int mp_sysfs_disk_place(const char *root, const char *name, int32_t *ret_sid, int32_t *ret_host,
                        uint64_t *ret_lun)
{
    char path[PATH_MAX];
    char target[LINK_SIZE];

    if (!is_block_name(name))
        return -EINVAL;
    int length = snprintf(path, sizeof path, "%s/block/%s", root, name);

    if (length < 0 || (size_t)length >= sizeof path)
        return -ENAMETOOLONG;
    ssize_t got = readlink(path, target, sizeof target - 1);

    if (got < 0)
        return -gone(errno);
    target[got] = '\0';
    return parse_place(target, ret_sid, ret_host, ret_lun) ? 0 : -ENOENT;
}

static int read_block_attribute(const char *root, const char *name, const char *attribute,
                                char *buffer, size_t size)
{
    char path[PATH_MAX];

    if (!is_block_name(name))
        return -EINVAL;
    int length = snprintf(path, sizeof path, "%s/block/%s/%s", root, name, attribute);

    if (length < 0 || (size_t)length >= sizeof path)
        return -ENAMETOOLONG;
    return read_at(AT_FDCWD, path, buffer, size);
}

int mp_sysfs_dm(const char *root, const char *dm, char *ret_uuid, size_t uuid_size, char *ret_name,
                size_t name_size)
{
    char uuid[256] = "";
    char name[256] = "";
    int r = 0;

    if (ret_uuid != NULL)
        r = read_block_attribute(root, dm, "dm/uuid", uuid, sizeof uuid);
    if (r == 0 && ret_name != NULL)
        r = read_block_attribute(root, dm, "dm/name", name, sizeof name);
    if (r < 0)
        return r;
    if ((ret_uuid != NULL && strlen(uuid) >= uuid_size) ||
        (ret_name != NULL && strlen(name) >= name_size))
        return -EOVERFLOW;
    if (ret_uuid != NULL)
        mp_copy(ret_uuid, uuid_size, uuid);
    if (ret_name != NULL)
        mp_copy(ret_name, name_size, name);
    return 0;
}

int mp_sysfs_block_size(const char *root, const char *name, uint64_t *ret_bytes)
{
    char text[32];
    int r = read_block_attribute(root, name, "size", text, sizeof text);

    if (r < 0)
        return r;
    return parse_sectors(text, ret_bytes) ? 0 : -ENOENT;
}

int mp_sysfs_block_name(const char *root, dev_t dev, char *ret_name, size_t size)
{
    char path[PATH_MAX];
    char target[LINK_SIZE];
    int length = snprintf(path, sizeof path, "%s/dev/block/%u:%u", root, major(dev), minor(dev));

    if (length < 0 || (size_t)length >= sizeof path)
        return -ENAMETOOLONG;
    ssize_t got = readlink(path, target, sizeof target - 1);

    if (got < 0)
        return -gone(errno);
    target[got] = '\0';
    const char *slash = strrchr(target, '/');
    const char *name = slash != NULL ? slash + 1 : target;

    if (!is_block_name(name))
        return -ENOENT;
    if (strlen(name) >= size)
        return -EOVERFLOW;
    mp_copy(ret_name, size, name);
    return 0;
}

int mp_sysfs_disk_attribute(const char *root, const char *name, const char *attribute,
                            char *ret_text, size_t size)
{
    char path[64];

    if ((size_t)snprintf(path, sizeof path, "device/%s", attribute) >= sizeof path)
        return -ENAMETOOLONG;
    return read_block_attribute(root, name, path, ret_text, size);
}

int mp_sysfs_page83(const char *root, const char *name, uint8_t ret_page[MP_VPD_PAGE_SIZE],
                    size_t *ret_length)
{
    return mp_sysfs_device_attribute(root, name, "vpd_pg83", ret_page, MP_VPD_PAGE_SIZE,
                                     ret_length);
}

int mp_sysfs_block_dev(const char *root, const char *name, dev_t *ret_dev)
{
    char text[32];
    dev_t dev = 0;
    int r = read_block_attribute(root, name, "dev", text, sizeof text);

    if (r < 0)
        return r;
    parse_dev(text, &dev);
    if (dev == 0)
        return -ENOENT;
    *ret_dev = dev;
    return 0;
}

int mp_sysfs_device_attribute(const char *root, const char *name, const char *attribute,
                              void *ret_bytes, size_t size, size_t *ret_length)
{
    char path[PATH_MAX];
    ssize_t length;

    if (!is_block_name(name))
        return -EINVAL;
    int written = snprintf(path, sizeof path, "%s/block/%s/device/%s", root, name, attribute);

    if (written < 0 || (size_t)written >= sizeof path)
        return -ENAMETOOLONG;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -gone(errno);
    do
        length = read(fd, ret_bytes, size);
    while (length < 0 && errno == EINTR);
    int error = errno;

    close(fd);
    if (length < 0)
        return -gone(error);
    if ((size_t)length == size)
        return -EOVERFLOW;
    *ret_length = (size_t)length;
    return 0;
}
