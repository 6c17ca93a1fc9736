/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The floor: what an attach and a detach cost if nothing is checked, remembered or undone.
 *
 *   floor LUN (ADDRESS PORT IQN)...
 *
 * reads the commands "attach" and "detach" from stdin, one a line, and answers each with a line of
 * JSON: the seconds of every phase. It issues the requests, scans and ioctls that manypath issues,
 * through the same codecs and wrappers, each phase for all paths before the next one begins. It is
 * for a guest in which nothing else has iSCSI sessions: every session it sees is its own. Anything
 * unexpected ends it.
 */
#include "dm.h"
#include "dm_table.h"
#include "iscsid_codec.h"
#include "multipathd.h"
#include "scsi.h"
#include "text.h"
#include "uevent.h"
#include "vpd.h"
#include "wwids.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#define ISCSID_SOCKET "ISCSIADM_ABSTRACT_NAMESPACE"
#define MULTIPATHD_SOCKET "/org/kernel/linux/storage/multipathd"
#define SECONDS UINT64_C(1000000000) /* in nanoseconds */

enum {
    PATHS_MAX = 64,
    LOGIN_TIMEOUT_S = 15, /* what manypath asks for with its default timeout */
    PHASES_MAX = 8,
};

struct path {
    const char *address;
    uint16_t port;
    const char *iqn;
    int32_t sid, host;
    dev_t dev;
    char name[MANYPATH_DEVICE_SIZE];
    char wwid[MANYPATH_WWID_SIZE];
    int socket;
    size_t received;
    uint8_t reply[MP_ISCSID_REPLY_SIZE];
};

static struct path paths[PATHS_MAX];
static size_t path_count;
static uint64_t lun;
static const struct mp_iscsid_layout *layout;
static int dm_fd = -1;
static char uuid[MP_DM_UUID_SIZE];
static dev_t map;

static struct {
    const char *name;
    uint64_t ended_ns;
} phases[PHASES_MAX];
static size_t phase_count;
static uint64_t began_ns;

/* Negative: an errno, and the end. */
static void must(int result, const char *what)
{
    if (result >= 0)
        return;
    fprintf(stderr, "floor: %s: %s\n", what, strerror(-result));
    exit(1);
}

static void phase(const char *name)
{
    phases[phase_count].name = name;
    phases[phase_count++].ended_ns = mp_now_ns();
}

static void in_threads(void *(*work)(void *))
{
    pthread_t threads[PATHS_MAX];

    for (size_t i = 0; i < path_count; i++)
        must(-pthread_create(&threads[i], NULL, work, &paths[i]), "pthread_create");
    for (size_t i = 0; i < path_count; i++)
        pthread_join(threads[i], NULL);
}

/* ---- iscsid ---- */

static int send_request(const uint8_t *request, size_t size)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    memcpy(address.sun_path + 1, ISCSID_SOCKET, sizeof ISCSID_SOCKET - 1);
    if (connect(fd, (struct sockaddr *)&address,
                (socklen_t)(offsetof(struct sockaddr_un, sun_path) + sizeof ISCSID_SOCKET)) < 0 ||
        send(fd, request, size, MSG_NOSIGNAL) != (ssize_t)size || shutdown(fd, SHUT_WR) < 0)
        must(-errno, "iscsid");
    return fd;
}

/* Of ascending sizes, the first that is answered is the one that iscsid reads. */
static void find_layout(void)
{
    static uint8_t request[MP_ISCSID_REQUEST_MAX];

    for (size_t i = 0; i < mp_iscsid_layout_count; i++) {
        uint32_t size = mp_iscsid_layouts[i].request_size;
        char byte;

        must(mp_iscsid_encode_simple(MP_ISCSID_CONFIG_INAME, request, size), "encode");
        int fd = send_request(request, size);
        bool answered = recv(fd, &byte, 1, 0) == 1;

        close(fd);
        if (answered) {
            layout = &mp_iscsid_layouts[i];
            return;
        }
    }
    must(-ENOENT, "layout of iscsid");
}

static void encode(const struct path *path, uint32_t command, uint8_t *request)
{
    struct mp_iscsid_login login;

    if (command == MP_ISCSID_LOGOUT) {
        must(mp_iscsid_encode_sid(layout, command, (uint32_t)path->sid, request,
                                  layout->request_size),
             "encode");
        return;
    }
    mp_iscsid_login_init(&login);
    login.target = path->iqn;
    login.address = path->address;
    login.port = path->port;
    login.login_timeout = LOGIN_TIMEOUT_S;
    login.initial_login_retry_max = 1;
    login.scan_auto = 0;
    must(mp_iscsid_encode_login(layout, &login, request, layout->request_size), "encode");
}

/* True when the answer is complete. */
static bool receive(struct path *path, uint32_t command)
{
    struct mp_iscsid_reply reply;
    ssize_t length = recv(path->socket, path->reply + path->received,
                          sizeof path->reply - path->received, MSG_DONTWAIT);

    if (length <= 0)
        must(length < 0 ? -errno : -EPIPE, "answer of iscsid");
    path->received += (size_t)length;
    if (path->received < sizeof path->reply)
        return false;
    must(mp_iscsid_decode_reply(path->reply, path->received, command, &reply), "answer of iscsid");
    if (reply.error != MP_ISCSID_OK) {
        fprintf(stderr, "floor: iscsid: %s\n", mp_iscsid_error_text(reply.error));
        exit(1);
    }
    close(path->socket);
    return true;
}

/* One request for each path, all in flight together. */
static void ask_iscsid(uint32_t command)
{
    static uint8_t request[MP_ISCSID_REQUEST_MAX];
    struct pollfd polled[PATHS_MAX];
    size_t missing = path_count;

    for (size_t i = 0; i < path_count; i++) {
        encode(&paths[i], command, request);
        paths[i].socket = send_request(request, layout->request_size);
        paths[i].received = 0;
        polled[i] = (struct pollfd){.fd = paths[i].socket, .events = POLLIN};
    }
    while (missing > 0) {
        poll(polled, path_count, -1);
        for (size_t i = 0; i < path_count; i++) {
            if (polled[i].fd >= 0 && polled[i].revents != 0 && receive(&paths[i], command)) {
                polled[i].fd = -1; /* poll() leaves it out */
                missing--;
            }
        }
    }
}

/* ---- attach ---- */

static int32_t number_after(const char *text, const char *word)
{
    const char *at = text != NULL ? strstr(text, word) : NULL;
    uint64_t number;

    if (at == NULL)
        return -1;
    at += strlen(word);
    return mp_take_u64(&at, INT32_MAX, &number) ? (int32_t)number : -1;
}

/* The link /sys/class/iscsi_session/sessionS leads through .../hostH/sessionS/... */
static void find_sessions(void)
{
    DIR *dir = opendir("/sys/class/iscsi_session");
    struct dirent *entry;
    size_t found = 0;

    if (dir == NULL)
        must(-errno, "sessions");
    while (found < path_count && (entry = readdir(dir)) != NULL) {
        char target[512];
        ssize_t length = readlinkat(dirfd(dir), entry->d_name, target, sizeof target - 1);

        if (length < 0)
            continue; /* "." and ".." */
        target[length] = '\0';
        paths[found].host = number_after(target, "/host");
        paths[found++].sid = number_after(target, "/session");
    }
    closedir(dir);
    if (found < path_count)
        must(-ENOENT, "sessions");
}

static void *scan(void *argument)
{
    const struct path *path = argument;

    must(mp_scsi_scan("/sys", path->host, 0, 0, lun), "scan");
    return NULL;
}

/* Until every host's disk has been announced. */
static void see_disks(int uevents)
{
    size_t seen = 0;

    while (seen < path_count) {
        char buffer[8192];
        struct mp_uevent event;
        ssize_t length = mp_uevent_receive(uevents, buffer, sizeof buffer);

        if (length == -EAGAIN) {
            poll(&(struct pollfd){.fd = uevents, .events = POLLIN}, 1, -1);
            continue;
        }
        must((int)length, "uevents");
        if (length == 0 || mp_uevent_parse(buffer, (size_t)length, &event) < 0 ||
            event.action != MP_UEVENT_ADD || strcmp(event.devtype, "disk") != 0)
            continue;
        for (size_t i = 0; i < path_count; i++) {
            if (paths[i].host != number_after(event.devpath, "/host"))
                continue;
            paths[i].dev = event.dev;
            mp_copy(paths[i].name, sizeof paths[i].name, event.devname);
            seen++;
        }
    }
}

static void *identify(void *argument)
{
    struct path *path = argument;
    char file[64];
    uint8_t page[1024];
    size_t length;

    snprintf(file, sizeof file, "/dev/%s", path->name);
    int fd = open(file, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0)
        must(-errno, file);
    must(mp_scsi_vpd(fd, 0x83, page, sizeof page, 10000, &length), "inquiry");
    must(mp_vpd83_wwid(page, length, path->wwid), "page 0x83");
    close(fd);
    return NULL;
}

static void make_map(void)
{
    dev_t devs[PATHS_MAX];
    char file[64];
    uint64_t bytes;
    char *params;

    for (size_t i = 0; i < path_count; i++)
        devs[i] = paths[i].dev;
    snprintf(file, sizeof file, "/dev/%s", paths[0].name);
    int fd = open(file, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

    must(mp_scsi_size(fd, &bytes), "size");
    close(fd);
    mp_wwids_add("/etc/multipath", paths[0].wwid, mp_now_ns() + SECONDS);
    snprintf(uuid, sizeof uuid, "mpath-%.120s", paths[0].wwid);
    must(mp_table_build(devs, path_count, "alua", &params), "table");
    must(mp_dm_create(dm_fd, paths[0].wwid, uuid, &map), "create");
    must(mp_dm_load(dm_fd, uuid, bytes / 512, "multipath", params, false), "load");
    must(mp_dm_resume(dm_fd, uuid, MP_DM_UDEV_PRIMARY_SOURCE | MP_DM_UDEV_DISABLE_LIBRARY_FALLBACK,
                      false),
         "resume");
    free(params);
}

static void attach(void)
{
    int uevents;

    must(mp_uevent_open(&uevents), "uevents");
    ask_iscsid(MP_ISCSID_LOGIN);
    find_sessions();
    phase("login");
    in_threads(scan);
    phase("scan");
    see_disks(uevents);
    phase("device");
    in_threads(identify);
    phase("identity");
    make_map();
    phase("map");
    close(uevents);
}

/* ---- detach ---- */

static void *delete_disk(void *argument)
{
    const struct path *path = argument;

    must(mp_scsi_delete("/sys", path->host, 0, 0, lun), "delete");
    return NULL;
}

static void detach(void)
{
    char text[MANYPATH_WWID_SIZE + 16];

    snprintf(text, sizeof text, "/dev/dm-%u", minor(map));
    int fd = open(text, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fsync(fd) < 0)
        must(-errno, text);
    close(fd);
    phase("flush");
    if (mp_multipathd_running("/run/multipathd.pid")) {
        char *reply;

        snprintf(text, sizeof text, "del map %s", paths[0].wwid);
        must(mp_multipathd_command(MULTIPATHD_SOCKET, 0, text, mp_now_ns() + 60 * SECONDS, &reply),
             text);
        must(mp_multipathd_reply_errno(reply), text);
        free(reply);
    } else {
        must(mp_dm_remove(dm_fd, uuid,
                          MP_DM_UDEV_PRIMARY_SOURCE | MP_DM_UDEV_DISABLE_LIBRARY_FALLBACK),
             "remove");
    }
    phase("unmap");
    in_threads(delete_disk);
    phase("delete");
    ask_iscsid(MP_ISCSID_LOGOUT);
    phase("logout");
}

/* ---- */

static void run(void (*operation)(void))
{
    phase_count = 0;
    began_ns = mp_now_ns();
    operation();

    uint64_t before_ns = began_ns;
    uint64_t end_ns = phases[phase_count - 1].ended_ns;

    printf("{\"total\": %.6f", (double)(end_ns - began_ns) / 1e9);
    for (size_t i = 0; i < phase_count; i++) {
        printf(", \"%s\": %.6f", phases[i].name, (double)(phases[i].ended_ns - before_ns) / 1e9);
        before_ns = phases[i].ended_ns;
    }
    printf("}\n");
    fflush(stdout);
}

static void parse(int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : "";
    bool good = argc > 4 && (argc - 2) % 3 == 0 && (argc - 2) / 3 <= PATHS_MAX &&
                mp_take_u64(&word, INT64_MAX, &lun);

    for (int i = 2; good && i < argc; i += 3) {
        uint64_t port = 0;
        const char *text = argv[i + 1];

        good = mp_take_u64(&text, UINT16_MAX, &port);
        paths[path_count++] =
            (struct path){.address = argv[i], .port = (uint16_t)port, .iqn = argv[i + 2]};
    }
    if (!good) {
        fprintf(stderr, "usage: floor LUN (ADDRESS PORT IQN)...\n");
        exit(2);
    }
}

int main(int argc, char **argv)
{
    char line[32];

    parse(argc, argv);
    find_layout();
    must(mp_dm_open("/dev/mapper/control", &dm_fd), "device-mapper");
    printf("{\"ready\": true}\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL) {
        if (strcmp(line, "attach\n") == 0)
            run(attach);
        else if (strcmp(line, "detach\n") == 0)
            run(detach);
        else
            must(-EINVAL, "command");
    }
    return 0;
}
