/* SPDX-License-Identifier: Apache-2.0 */
/* A scripted multipathd on an abstract socket of our own. */
#include "../src/multipathd.h"

#include "../src/text.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "test.h"
#include "tree.h"

enum { SECOND = 1000000000 };

struct script {
    const void *answer;
    size_t size;
    size_t piece;       /* bytes per send(); 0: all at once */
    bool hold;          /* keep the connection open until the client closes it */
    bool hang_up_first; /* close without reading the command */
    bool stranger;      /* the listener is not whom the caller expects */
    /* what was seen */
    char command[1024];
    size_t frame_length;
};

struct server {
    struct script *script;
    pthread_t thread;
    pthread_barrier_t ready;
    bool listening;
};

static char name[64];

static int listen_abstract(int backlog)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int length = snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "%s", name);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);

    if (fd < 0 || bind(fd, (const struct sockaddr *)&address, size) < 0 || listen(fd, backlog) < 0)
        return -1;
    return fd;
}

static bool read_exactly(int fd, void *buffer, size_t size)
{
    return recv(fd, buffer, size, MSG_WAITALL) == (ssize_t)size;
}

static void play(int fd, struct script *script)
{
    size_t piece = script->piece != 0 ? script->piece : script->size;
    size_t done = 0;
    char byte;

    if (!script->hang_up_first) {
        if (!read_exactly(fd, &script->frame_length, sizeof(size_t)) ||
            script->frame_length > sizeof script->command ||
            !read_exactly(fd, script->command, script->frame_length))
            return;
    }
    while (done < script->size) {
        size_t part = script->size - done < piece ? script->size - done : piece;

        if (send(fd, (const char *)script->answer + done, part, MSG_NOSIGNAL) != (ssize_t)part)
            return;
        done += part;
        if (script->piece != 0)
            poll(NULL, 0, 2); /* so that the client sees the pieces one by one */
    }
    if (script->hold)
        recv(fd, &byte, 1, 0);
}

static void *serve(void *argument)
{
    struct server *server = argument;

    /* the raw call changes this thread only; SO_PEERCRED shows who called listen() */
    int listener = listen_abstract(4);

    server->listening = listener >= 0;
    pthread_barrier_wait(&server->ready);
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

    if (fd >= 0)
        play(fd, server->script);
    close(fd);
    close(listener);
    return NULL;
}

static int run(struct script *script, const char *command, uint64_t within_ns, char **ret_reply)
{
    struct server server = {.script = script};

    snprintf(name, sizeof name, "manypath-test-multipathd-%d", (int)getpid());
    pthread_barrier_init(&server.ready, NULL, 2);
    pthread_create(&server.thread, NULL, serve, &server);
    pthread_barrier_wait(&server.ready);
    CHECK(server.listening);
    int r = mp_multipathd_command(name, geteuid() + script->stranger, command,
                                  mp_now_ns() + within_ns, ret_reply);

    pthread_join(server.thread, NULL);
    pthread_barrier_destroy(&server.ready);
    return r;
}

/* A frame around a text; its length counts the NUL. */
static size_t frame(unsigned char *buffer, const char *text)
{
    size_t length = strlen(text) + 1;

    memcpy(buffer, &length, sizeof length);
    memcpy(buffer + sizeof length, text, length);
    return sizeof length + length;
}

TEST(exchange)
{
    unsigned char answer[64];
    struct script script = {.answer = answer, .size = frame(answer, "ok\n")};
    char *reply = NULL;

    CHECK_EQ(run(&script, "add path sdb", 10ull * SECOND, &reply), 0);
    CHECK_STR(reply != NULL ? reply : "", "ok\n");
    CHECK_STR(script.command, "add path sdb");
    CHECK_EQ(script.frame_length, sizeof "add path sdb");
    free(reply);
}

TEST(split_frames)
{
    unsigned char answer[64];
    struct script script = {.answer = answer, .size = frame(answer, "fail\nin use\n"), .piece = 1};
    char *reply = NULL;

    CHECK_EQ(run(&script, "del map x", 10ull * SECOND, &reply), 0);
    CHECK_STR(reply != NULL ? reply : "", "fail\nin use\n");
    free(reply);
}

TEST(large_reply)
{
    size_t size = sizeof(size_t) + 3 * 1024 * 1024;
    char *text = malloc(size);
    size_t length = size - sizeof length;

    memset(text, 'x', size);
    text[size - 1] = '\0';
    memcpy(text, &length, sizeof length);

    struct script script = {.answer = text, .size = size};
    char *reply = NULL;

    CHECK_EQ(run(&script, "show maps json", 10ull * SECOND, &reply), 0);
    CHECK_EQ(reply != NULL ? strlen(reply) : 0, length - 1);
    free(reply);
    free(text);
}

/* Not terminated by the daemon: terminated by us. */
TEST(unterminated_reply)
{
    unsigned char answer[64];
    struct script script = {.answer = answer, .size = frame(answer, "ok\nX") - 1};
    size_t length = 4;
    char *reply = NULL;

    memcpy(answer, &length, sizeof length);
    CHECK_EQ(run(&script, "x", 10ull * SECOND, &reply), 0);
    CHECK_STR(reply != NULL ? reply : "", "ok\nX");
    free(reply);
}

TEST(broken_frames)
{
    static const size_t lengths[] = {0, 32 * 1024 * 1024 + 1, SIZE_MAX, (size_t)1 << 63};
    char *reply = NULL;

    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        struct script script = {.answer = &lengths[i], .size = sizeof lengths[i], .hold = true};

        CHECK_EQ(run(&script, "x", 10ull * SECOND, &reply), -EPROTO);
    }
    unsigned char answer[64];
    size_t size = frame(answer, "ok\n");

    for (size_t cut = 0; cut < size; cut++) {
        struct script script = {.answer = answer, .size = cut};

        CHECK_EQ(run(&script, "x", 10ull * SECOND, &reply), -EPROTO);
    }
    struct script hang_up = {.answer = answer, .size = 0, .hang_up_first = true};

    CHECK_EQ(run(&hang_up, "x", 10ull * SECOND, &reply), -EPROTO);
    CHECK(reply == NULL);
}

TEST(silence)
{
    unsigned char answer[64];
    size_t size = frame(answer, "ok\n");
    struct script mute = {.answer = answer, .size = 0, .hold = true};
    struct script half = {.answer = answer, .size = size - 1, .hold = true};
    struct script head = {.answer = answer, .size = 3, .hold = true};
    uint64_t before = mp_now_ns();
    char *reply = NULL;

    CHECK_EQ(run(&mute, "x", SECOND / 20, &reply), -ETIMEDOUT);
    CHECK_EQ(run(&half, "x", SECOND / 20, &reply), -ETIMEDOUT);
    CHECK_EQ(run(&head, "x", SECOND / 20, &reply), -ETIMEDOUT);
    CHECK(mp_now_ns() - before >= 3 * (uint64_t)SECOND / 20);
    CHECK(mp_now_ns() - before < 5ull * SECOND);
    CHECK(reply == NULL);
}

/* Nobody accepts and the backlog is full: the deadline holds for connecting too. */
TEST(full_backlog)
{
    int fillers[8];
    char *reply = NULL;
    int listener;

    snprintf(name, sizeof name, "manypath-test-backlog-%d", (int)getpid());
    listener = listen_abstract(0);
    CHECK(listener >= 0);
    for (size_t i = 0; i < 8; i++) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        size_t length = strlen(name);

        memcpy(address.sun_path + 1, name, length);
        fillers[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        (void)!connect(fillers[i], (const struct sockaddr *)&address,
                       (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length));
    }
    CHECK_EQ(mp_multipathd_command(name, geteuid(), "x", mp_now_ns() + SECOND / 20, &reply),
             -ETIMEDOUT);
    for (size_t i = 0; i < 8; i++)
        close(fillers[i]);
    close(listener);
}

TEST(nobody_listens)
{
    char *reply = NULL;

    snprintf(name, sizeof name, "manypath-test-nobody-%d", (int)getpid());
    CHECK_EQ(mp_multipathd_command(name, geteuid(), "x", mp_now_ns() + SECOND, &reply),
             -ECONNREFUSED);
    CHECK_EQ(mp_multipathd_command(name, geteuid(), "x", mp_now_ns(), &reply), -ETIMEDOUT);
    CHECK_EQ(mp_multipathd_command(name, geteuid(), "x", 0, &reply), -ETIMEDOUT);
}

TEST(arguments)
{
    char command[600], *reply = NULL;
    char long_name[200];

    memset(command, 'a', sizeof command);
    command[sizeof command - 1] = '\0';
    memset(long_name, 'a', sizeof long_name);
    long_name[sizeof long_name - 1] = '\0';
    CHECK_EQ(mp_multipathd_command(name, geteuid(), command, UINT64_MAX, &reply), -EINVAL);
    CHECK_EQ(mp_multipathd_command(name, geteuid(), "", UINT64_MAX, &reply), -EINVAL);
    CHECK_EQ(mp_multipathd_command("", geteuid(), "x", UINT64_MAX, &reply), -EINVAL);
    CHECK_EQ(mp_multipathd_command(long_name, geteuid(), "x", UINT64_MAX, &reply), -EINVAL);
}

TEST(longest_command)
{
    unsigned char answer[64];
    struct script script = {.answer = answer, .size = frame(answer, "ok\n")};
    char command[512], *reply = NULL;

    memset(command, 'a', sizeof command);
    command[sizeof command - 1] = '\0';
    CHECK_EQ(run(&script, command, UINT64_MAX / 2, &reply), 0);
    CHECK_EQ(script.frame_length, 512);
    CHECK_STR(script.command, command);
    free(reply);
}

/* Somebody else squats on the name: not a byte of ours goes there. */
TEST(untrusted)
{
    struct script script = {.answer = "", .size = 0, .stranger = true};
    char *reply = NULL;

    CHECK_EQ(run(&script, "x", 10ull * SECOND, &reply), -EPERM);
    CHECK_STR(script.command, "");
}

TEST(running)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    tree_begin();
    CHECK(!mp_multipathd_running(tree_path("multipathd.pid")));
    tree_file(tree_path("multipathd.pid"), "123\n"); /* left by one that died */
    CHECK(!mp_multipathd_running(tree_path("multipathd.pid")));

    /* a lock of this open file description stands for the daemon's */
    int fd = open(tree_path("multipathd.pid"), O_RDWR | O_CLOEXEC);

    CHECK_EQ(fcntl(fd, F_OFD_SETLK, &lock), 0);
    CHECK(mp_multipathd_running(tree_path("multipathd.pid")));
    CHECK(mp_multipathd_running(tree_path("multipathd.pid"))); /* looking takes nothing away */
    lock.l_type = F_RDLCK;
    CHECK_EQ(fcntl(fd, F_OFD_SETLK, &lock), 0);
    CHECK(!mp_multipathd_running(tree_path("multipathd.pid")));
    close(fd);
    CHECK(!mp_multipathd_running(tree_path("multipathd.pid")));
    tree_end();
}

TEST(answers)
{
    static const struct {
        const char *reply;
        int result;
    } cases[] = {
        {"ok\n", 0},
        {"ok", 0},
        {"fail\n", -EIO},
        {"", -EIO},
        {"okay", -EIO},
        {"fail\nmap or partition in use\n", -EBUSY},
        {"timeout\n", -EAGAIN},
        {"fail\ntimeout\n", -EAGAIN},
        {"permission deny: need to be root", -EPERM},
        {"fail\npermission deny: need to be root\n", -EPERM},
        {"fail\npermission denied\n", -EPERM},
        {"blacklisted\n", -EACCES},
        {"fail\ndevice not found\n", -ENODEV},
        {"sdb: not found\n", -ENODEV},
        {"delayed\n", -EINPROGRESS},
        {"map reload error. removed\n", -EIO},
        {"frobnicate: not found\nmultipath-tools v0.9.4 (12/19, 2022)\nCLI commands reference:\n"
         " timeout in use\n",
         -EIO},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        CHECK_EQ(mp_multipathd_reply_errno(cases[i].reply), cases[i].result);
}

int main(void)
{
    RUN(exchange);
    RUN(split_frames);
    RUN(large_reply);
    RUN(unterminated_reply);
    RUN(broken_frames);
    RUN(silence);
    RUN(longest_command);
    RUN(full_backlog);
    RUN(nobody_listens);
    RUN(arguments);
    RUN(untrusted);
    RUN(running);
    RUN(answers);
    return test_end();
}
