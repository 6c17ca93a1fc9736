/* SPDX-License-Identifier: Apache-2.0 */
#include "client.h"

#include "error.h"
#include "fault.h"
#include "iscsid.h"
#include "iscsid_codec.h"
#include "text.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    EXTRA_LAYOUTS_MAX = 16,
    SIZES_MAX = 64,
    /* A full backlog cannot be waited for: connect() says EAGAIN and offers no event. */
    BACKLOG_RETRY_NS = 10 * 1000 * 1000,
    /* After it broke off requests, iscsid is most likely being restarted: nobody listens for a
       moment. */
    RESTART_LIMIT_NS = 2000 * 1000 * 1000,
    PROBE_ROUNDS = 2, /* the second in case iscsid was restarted during the first */
};

enum kind { PROBE, LOGIN, LOGOUT };

struct mp_exchange {
    TAILQ_ENTRY(mp_exchange) link;
    struct mp_source source;
    struct mp_client *client;
    enum kind kind;
    bool resent;   /* once, after the layout was looked for again */
    bool unwanted; /* not to be sent again */
    uint64_t sent_ns;
    mp_answer_fn answer;
    void *owner;
    int32_t sid;                         /* LOGOUT */
    char address[MANYPATH_ADDRESS_SIZE]; /* LOGIN, and the next three */
    uint16_t port;
    char iqn[MANYPATH_IQN_SIZE];
    struct mp_login_terms terms;
    size_t received;
    uint8_t reply[MP_ISCSID_REPLY_SIZE];
};

TAILQ_HEAD(exchange_list, mp_exchange);

enum layout_state { LAYOUT_UNKNOWN, LAYOUT_PROBING, LAYOUT_KNOWN };

struct mp_client {
    struct manypath *handle;
    struct exchange_list waiting;
    struct exchange_list in_flight;
    struct exchange_list finished; /* freed at the end of the turn */
    unsigned in_flight_count;
    uint64_t answered_ns; /* when iscsid answered a request the last time, 0: never */
    struct mp_timer retry;

    enum layout_state layout_state;
    const struct mp_iscsid_layout *layout;
    pid_t listener;                   /* of the connection that the layout was found through */
    struct mp_iscsid_process process; /* that the layout was found for */
    bool verified;                    /* found for requests that are still to be answered */
    uint64_t broken_ns;               /* when iscsid broke off a request the last time, 0: never */
    struct mp_iscsid_layout extra[EXTRA_LAYOUTS_MAX]; /* the operator's */
    size_t extra_count;
    uint32_t sizes[SIZES_MAX]; /* probe: candidates, ascending; the answer lies in [low, high) */
    size_t size_count, low, high, at;
    unsigned round;
    uint8_t buffer[MP_ISCSID_REQUEST_MAX];
};

static void pump_later(struct mp_timer *timer)
{
    (void)timer; /* the turn ends with mp_client_turn() */
}

struct mp_client *mp_client_new(struct manypath *handle)
{
    struct mp_client *client = calloc(1, sizeof *client);

    if (client == NULL)
        return NULL;
    client->handle = handle;
    TAILQ_INIT(&client->waiting);
    TAILQ_INIT(&client->in_flight);
    TAILQ_INIT(&client->finished);
    client->retry.fire = pump_later;
    return client;
}

static void free_list(struct exchange_list *list)
{
    struct mp_exchange *exchange;

    while ((exchange = TAILQ_FIRST(list)) != NULL) {
        TAILQ_REMOVE(list, exchange, link);
        if (exchange->source.fd >= 0)
            close(exchange->source.fd);
        mp_chap_release(exchange->terms.chap);
        free(exchange);
    }
}

void mp_client_free(struct mp_client *client)
{
    if (client == NULL)
        return;
    free_list(&client->waiting);
    free_list(&client->in_flight);
    free_list(&client->finished);
    free(client);
}

/* ---- the end of an exchange ---- */

static void close_exchange(struct mp_exchange *exchange)
{
    struct mp_client *client = exchange->client;

    if (exchange->source.fd >= 0) {
        mp_engine_unwatch(client->handle, &exchange->source);
        TAILQ_REMOVE(&client->in_flight, exchange, link);
        client->in_flight_count--;
        if (client->in_flight_count == 0 && exchange->kind != PROBE)
            client->verified = false;
    } else {
        TAILQ_REMOVE(&client->waiting, exchange, link);
    }
}

static void finish(struct mp_exchange *exchange, const struct mp_answer *answer)
{
    close_exchange(exchange);
    TAILQ_INSERT_TAIL(&exchange->client->finished, exchange, link);
    if (exchange->answer != NULL)
        exchange->answer(exchange->owner, answer);
}

void mp_client_forget(struct mp_client *client, struct mp_exchange *exchange)
{
    exchange->answer = NULL;
    close_exchange(exchange);
    TAILQ_INSERT_TAIL(&client->finished, exchange, link);
}

static void fail(struct mp_exchange *exchange, const struct manypath_error *error)
{
    struct mp_answer answer = {.error = *error, .sent_ns = exchange->sent_ns};

    answer.error.phase = exchange->kind == LOGOUT ? MANYPATH_PHASE_LOGOUT : MANYPATH_PHASE_LOGIN;
    finish(exchange, &answer);
}

static void fail_waiting(struct mp_client *client, const struct manypath_error *error)
{
    struct exchange_list failing = TAILQ_HEAD_INITIALIZER(failing);
    struct mp_exchange *exchange;

    /* answers may queue new requests: those deserve a try of their own */
    TAILQ_CONCAT(&failing, &client->waiting, link);
    while ((exchange = TAILQ_FIRST(&failing)) != NULL) {
        TAILQ_REMOVE(&failing, exchange, link);
        TAILQ_INSERT_HEAD(&client->waiting, exchange, link);
        fail(exchange, error);
    }
}

/* Nobody could be reached now, and connect() offers no event: try again soon. */
static bool try_later(struct mp_client *client, int result)
{
    uint64_t now = mp_now_ns();
    bool restarting = client->broken_ns != 0 && now - client->broken_ns < RESTART_LIMIT_NS;

    if (result != -EAGAIN && !(result == -ECONNREFUSED && restarting))
        return false;
    mp_engine_arm(client->handle, &client->retry, now + BACKLOG_RETRY_NS);
    return true;
}

static void connect_error(struct mp_client *client, int result, struct manypath_error *ret_error)
{
    const char *name = client->handle->host->iscsid_socket;

    if (result == -ECONNREFUSED)
        mp_error(ret_error, MANYPATH_E_ISCSID_DOWN, MANYPATH_PHASE_LOGIN, result,
                 "iscsid is not running: nobody listens on the abstract socket @%s; start iscsid "
                 "(or iscsid.socket), and call from the host's network namespace",
                 name);
    else if (result == -EPERM)
        mp_error(
            ret_error, MANYPATH_E_ISCSID_UNTRUSTED, MANYPATH_PHASE_LOGIN, result,
            "the abstract socket @%s does not belong to uid %u, so it is not the host's iscsid; "
            "nothing was sent to it",
            name, client->handle->host->daemon_uid);
    else
        mp_error(ret_error, MANYPATH_E_SYSTEM, MANYPATH_PHASE_LOGIN, result,
                 "cannot talk to iscsid on the abstract socket @%s: errno %d", name, -result);
}

/* ---- finding the layout ---- */

static void probe_next(struct mp_client *client);

static void probe_failed(struct mp_client *client, const struct manypath_error *error)
{
    client->layout_state = LAYOUT_UNKNOWN;
    fail_waiting(client, error);
}

static void probe_unknown(struct mp_client *client)
{
    struct manypath_error error;
    char known[192] = "";
    size_t used = 0;

    if (++client->round < PROBE_ROUNDS) {
        client->low = 0;
        client->high = client->size_count;
        client->at = client->size_count / 2;
        probe_next(client);
        return;
    }
    for (size_t i = 0; i < client->size_count && used < sizeof known - 1; i++)
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%u", i > 0 ? ", " : "",
                                 client->sizes[i]);
    mp_error(
        &error, MANYPATH_E_ISCSID_LAYOUT, MANYPATH_PHASE_LOGIN, 0,
        "the running iscsid expects requests of a size that is not known (known: %s), so nothing "
        "was asked of it; add its layout to %s as docs/iscsid-layouts.md describes",
        known, client->handle->host->layout_dir);
    probe_failed(client, &error);
}

static void probe_exact(struct mp_client *client)
{
    client->layout =
        mp_iscsid_layout_find(client->extra, client->extra_count, client->sizes[client->at]);
    client->layout_state = LAYOUT_KNOWN;
    client->verified = true;
    mp_iscsid_process(client->listener, client->handle->host->iscsid_pidfile, &client->process);
    mp_log(&client->handle->log, MANYPATH_LOG_DEBUG, "iscsid layout %s, request of %u bytes",
           client->layout->name, client->layout->request_size);
}

/* `order`: how the size that was sent compares with what iscsid expects. */
static void probe_result(struct mp_client *client, int order)
{
    if (order == 0) {
        probe_exact(client);
        return;
    }
    if (order < 0)
        client->low = client->at + 1;
    else
        client->high = client->at;
    if (client->low >= client->high) {
        probe_unknown(client);
        return;
    }
    client->at = client->low + (client->high - client->low) / 2;
    probe_next(client);
}

static void probe_ended(struct mp_exchange *exchange, int result)
{
    struct mp_client *client = exchange->client;
    size_t received = exchange->received;
    struct mp_iscsid_reply reply;
    struct manypath_error error;

    mp_client_forget(client, exchange);
    if (received == 0) {
        probe_result(client, -1); /* iscsid waits for more, and saw the end of file */
    } else if (received == sizeof exchange->reply &&
               mp_iscsid_decode_reply(exchange->reply, received, MP_ISCSID_CONFIG_INAME, &reply) ==
                   0) {
        if (reply.error == MP_ISCSID_ERR_ACCESS) {
            mp_error(&error, MANYPATH_E_PERMISSION, MANYPATH_PHASE_LOGIN, EACCES,
                     "iscsid refuses this process: it must run as root");
            error.iscsid_code = reply.error;
            probe_failed(client, &error);
        } else {
            probe_result(client, result < 0 ? 1 : 0);
        }
    } else {
        mp_error(&error, MANYPATH_E_ISCSID_PROTOCOL, MANYPATH_PHASE_LOGIN, result,
                 "iscsid answered a size probe with nonsense (%zu bytes)", received);
        probe_failed(client, &error);
    }
}

static void probe_begin(struct mp_client *client)
{
    const struct mp_host *host = client->handle->host;
    uint32_t previous = client->layout != NULL ? client->layout->request_size : 0;
    char reason[256] = "";
    size_t refused = 0;
    int count = mp_iscsid_layout_load_dir(host->layout_dir, host->daemon_uid, client->extra,
                                          EXTRA_LAYOUTS_MAX, &refused, reason, sizeof reason);

    if (count < 0 || refused > 0)
        mp_log(&client->handle->log, MANYPATH_LOG_WARNING, "layout files in %s were left out: %s",
               host->layout_dir, reason);
    client->extra_count = count > 0 ? (size_t)count : 0;
    client->size_count =
        mp_iscsid_layout_sizes(client->extra, client->extra_count, client->sizes, SIZES_MAX);
    client->layout = NULL;
    client->layout_state = LAYOUT_PROBING;
    client->round = 0;
    client->low = 0;
    client->high = client->size_count;
    client->at = client->size_count / 2;
    for (size_t i = 0; i < client->size_count; i++)
        if (client->sizes[i] == previous)
            client->at = i;
    probe_next(client);
}

/* ---- sending and receiving ---- */

static void encode_chap(const struct mp_chap *chap, struct mp_iscsid_login *login)
{
    login->username = chap->username;
    login->password = chap->password;
    login->password_length = chap->password_length;
    login->username_in = chap->username_in;
    login->password_in = chap->password_in;
    login->password_in_length = chap->password_in_length;
    for (size_t i = 0; i < chap->algorithm_count; i++)
        login->chap_algs[i] = chap->algorithms[i];
}

static int encode(struct mp_client *client, const struct mp_exchange *exchange, size_t *ret_size)
{
    struct mp_iscsid_login login;

    if (exchange->kind == PROBE) {
        *ret_size = client->sizes[client->at];
        return mp_iscsid_encode_simple(MP_ISCSID_CONFIG_INAME, client->buffer, *ret_size);
    }
    *ret_size = client->layout->request_size;
    if (exchange->kind == LOGOUT)
        return mp_iscsid_encode_sid(client->layout, MP_ISCSID_LOGOUT, (uint32_t)exchange->sid,
                                    client->buffer, *ret_size);
    mp_iscsid_login_init(&login);
    login.target = exchange->iqn;
    login.address = exchange->address;
    login.port = exchange->port;
    login.login_timeout = (int32_t)exchange->terms.timeout_s;
    login.initial_login_retry_max = 1;
    login.scan_auto = 0; /* we scan the one LUN that is wanted */
    login.replacement_timeout = exchange->terms.replacement_timeout_s;
    if (exchange->terms.chap != NULL)
        encode_chap(exchange->terms.chap, &login);
    return mp_iscsid_encode_login(client->layout, &login, client->buffer, *ret_size);
}

static void ended(struct mp_exchange *exchange, int result)
{
    struct mp_client *client = exchange->client;
    struct manypath_error error;

    if (exchange->kind == PROBE) {
        probe_ended(exchange, result);
        return;
    }
    /* broken off: iscsid was restarted, perhaps as another version. Look again, send once more; a
     * login that was done all the same is answered with "exists". */
    client->verified = false;
    client->broken_ns = mp_now_ns();
    if (client->layout_state == LAYOUT_KNOWN)
        client->layout_state = LAYOUT_UNKNOWN;
    if (!exchange->resent && !exchange->unwanted) {
        close_exchange(exchange);
        exchange->resent = true;
        exchange->received = 0;
        exchange->sent_ns = 0;
        TAILQ_INSERT_HEAD(&client->waiting, exchange, link);
        return;
    }
    mp_error(&error, MANYPATH_E_ISCSID_PROTOCOL, MANYPATH_PHASE_LOGIN, result,
             "iscsid broke off a request after %zu of %u answer bytes, twice", exchange->received,
             MP_ISCSID_REPLY_SIZE);
    fail(exchange, &error);
}

static void answered(struct mp_exchange *exchange)
{
    struct mp_answer answer = {.sent_ns = exchange->sent_ns};
    uint32_t command = exchange->kind == LOGIN ? MP_ISCSID_LOGIN : MP_ISCSID_LOGOUT;
    struct mp_iscsid_reply reply;
    struct manypath_error error;

    if (mp_iscsid_decode_reply(exchange->reply, exchange->received, command, &reply) < 0) {
        mp_error(&error, MANYPATH_E_ISCSID_PROTOCOL, MANYPATH_PHASE_LOGIN, EBADMSG,
                 "iscsid answered a request with the answer to another one");
        fail(exchange, &error);
        return;
    }
    answer.iscsid_code = reply.error;
    exchange->client->answered_ns = mp_now_ns();
    MP_FAULT("iscsid.answered");
    finish(exchange, &answer);
}

static void exchange_ready(struct mp_source *source, uint32_t epoll_events)
{
    struct mp_exchange *exchange =
        (struct mp_exchange *)((char *)source - offsetof(struct mp_exchange, source));

    (void)epoll_events;
    for (;;) {
        uint8_t surplus;
        bool full = exchange->received == sizeof exchange->reply;
        ssize_t length = full ? recv(source->fd, &surplus, 1, MSG_DONTWAIT)
                              : recv(source->fd, exchange->reply + exchange->received,
                                     sizeof exchange->reply - exchange->received, MSG_DONTWAIT);

        if (length < 0 && errno == EINTR)
            continue;
        if (length < 0 && errno == EAGAIN)
            return;
        if (length <= 0) {
            ended(exchange, length < 0 ? -errno : 0);
            return;
        }
        if (full) {
            ended(exchange, -EMSGSIZE);
            return;
        }
        exchange->received += (size_t)length;
        /* A probe reads on to the end, which tells whether its size was right. Nobody else waits
         * for the end: iscsid's scan children may hold the socket open. */
        if (exchange->received == sizeof exchange->reply && exchange->kind != PROBE) {
            answered(exchange);
            return;
        }
    }
}

/* Connects and sends an exchange of the waiting list. 0, or the errno of connecting. */
static int transmit(struct mp_client *client, struct mp_exchange *exchange)
{
    const struct mp_host *host = client->handle->host;
    struct manypath_error error;
    pid_t listener = -1;
    size_t size;
    int fd;
    /* encoded first: between connect and the end of the request iscsid's only thread waits for us
     */
    int result = encode(client, exchange, &size);

    if (result < 0) {
        mp_error(&error, MANYPATH_E_INVALID, MANYPATH_PHASE_LOGIN, result,
                 "this request cannot be put to iscsid layout %s: %s (errno %d)",
                 client->layout->name,
                 result == -EOPNOTSUPP && exchange->terms.chap != NULL
                     ? "this iscsid knows CHAP with MD5 only"
                     : "a value does not fit",
                 -result);
        fail(exchange, &error);
        return 0;
    }
    result = mp_iscsid_connect(host->iscsid_socket, host->daemon_uid, &fd, &listener);
    if (result < 0)
        return result;
    if (exchange->kind == PROBE) {
        client->listener = listener;
    } else if (listener != client->listener) { /* another iscsid since the layout was found */
        explicit_bzero(client->buffer, size);
        close(fd);
        client->layout_state = LAYOUT_UNKNOWN;
        return 0;
    }
    result = mp_iscsid_send(fd, client->buffer, size);
    if (result == -EPIPE || result == -ECONNRESET)
        result = 0; /* an answer may be there all the same: iscsid refuses a peer before it reads */
    explicit_bzero(client->buffer, size);
    exchange->sent_ns = mp_now_ns();
    MP_FAULT("iscsid.request_sent");
    TAILQ_REMOVE(&client->waiting, exchange, link);
    TAILQ_INSERT_TAIL(&client->in_flight, exchange, link);
    client->in_flight_count++;
    exchange->source.fd = fd;
    exchange->source.ready = exchange_ready;
    if (result == 0)
        result = mp_engine_watch(client->handle, &exchange->source, EPOLLIN);
    if (result < 0)
        ended(exchange, result);
    return 0;
}

static struct mp_exchange *new_exchange(struct mp_client *client, enum kind kind,
                                        mp_answer_fn answer, void *owner)
{
    struct mp_exchange *exchange = calloc(1, sizeof *exchange);

    if (exchange == NULL)
        return NULL;
    exchange->client = client;
    exchange->kind = kind;
    exchange->answer = answer;
    exchange->owner = owner;
    exchange->source.fd = -1;
    return exchange;
}

static void probe_next(struct mp_client *client)
{
    struct mp_exchange *exchange = new_exchange(client, PROBE, NULL, NULL);
    struct manypath_error error;
    int result = -ENOMEM;

    if (exchange != NULL) {
        TAILQ_INSERT_HEAD(&client->waiting, exchange, link);
        result = transmit(client, exchange);
        if (result < 0)
            mp_client_forget(client, exchange);
    }
    if (result < 0 && try_later(client, result)) {
        client->layout_state = LAYOUT_UNKNOWN;
    } else if (result < 0) {
        connect_error(client, result, &error);
        probe_failed(client, &error);
    }
}

/* The layout belongs to one iscsid process; packages are upgraded under running systems. While
 * requests are in flight it is the same process: its death breaks them off. */
static bool layout_is_fresh(const struct mp_client *client)
{
    struct mp_iscsid_process now;

    if (client->layout_state != LAYOUT_KNOWN || client->verified || client->in_flight_count > 0)
        return client->layout_state == LAYOUT_KNOWN;
    mp_iscsid_process(client->listener, client->handle->host->iscsid_pidfile, &now);
    return now.pid != 0 && memcmp(&now, &client->process, sizeof now) == 0;
}

static void pump(struct mp_client *client)
{
    struct manypath_error error;

    while (!TAILQ_EMPTY(&client->waiting) && client->retry.slot == 0 &&
           client->layout_state != LAYOUT_PROBING &&
           client->in_flight_count < client->handle->host->logins_in_flight) {
        if (!layout_is_fresh(client)) {
            probe_begin(client);
            continue;
        }
        int result = transmit(client, TAILQ_FIRST(&client->waiting));

        if (result < 0 && !try_later(client, result)) {
            client->layout_state = LAYOUT_UNKNOWN;
            connect_error(client, result, &error);
            fail_waiting(client, &error);
        }
    }
}

/* Those who waited for the probe gave up, so iscsid leaves it unanswered: the next request asks
 * afresh. */
static void drop_stale_probe(struct mp_client *client)
{
    struct mp_exchange *exchange;

    if (client->layout_state != LAYOUT_PROBING || !TAILQ_EMPTY(&client->waiting))
        return;
    TAILQ_FOREACH(exchange, &client->in_flight, link)
    if (exchange->kind == PROBE)
        break;
    if (exchange != NULL)
        mp_client_forget(client, exchange);
    client->layout_state = LAYOUT_UNKNOWN;
}

void mp_client_turn(struct mp_client *client)
{
    drop_stale_probe(client);
    pump(client);
    free_list(&client->finished);
}

/* ---- requests ---- */

struct mp_exchange *mp_client_login(struct mp_client *client, const struct mp_portal *portal,
                                    const char *iqn, const struct mp_login_terms *terms,
                                    mp_answer_fn answer, void *owner)
{
    struct mp_exchange *exchange = new_exchange(client, LOGIN, answer, owner);

    if (exchange == NULL)
        return NULL;
    mp_portal_format(portal, exchange->address, sizeof exchange->address);
    exchange->port = portal->port;
    mp_copy(exchange->iqn, sizeof exchange->iqn, iqn);
    exchange->terms = *terms;
    mp_chap_hold(terms->chap);
    TAILQ_INSERT_TAIL(&client->waiting, exchange, link);
    return exchange;
}

struct mp_exchange *mp_client_logout(struct mp_client *client, int32_t sid, mp_answer_fn answer,
                                     void *owner)
{
    struct mp_exchange *exchange = new_exchange(client, LOGOUT, answer, owner);

    if (exchange == NULL)
        return NULL;
    exchange->sid = sid;
    TAILQ_INSERT_TAIL(&client->waiting, exchange, link);
    return exchange;
}

uint64_t mp_exchange_sent_ns(const struct mp_exchange *exchange)
{
    return exchange->sent_ns;
}

uint64_t mp_client_answered_ns(const struct mp_client *client)
{
    return client->answered_ns;
}

void mp_exchange_want(struct mp_exchange *exchange, bool wanted)
{
    exchange->unwanted = !wanted;
}
