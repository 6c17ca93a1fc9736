/* SPDX-License-Identifier: Apache-2.0 */
#include "discovery.h"

#include "bytes.h"
#include "error.h"
#include "iscsi_pdu.h"
#include "login.h"
#include "sendtargets.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    DATA_MAX = 32768, /* MaxRecvDataSegmentLength, as login.c declares it */
    TEXT_MAX = 4 * 1024 * 1024,
    PDUS_MAX = 16384, /* TEXT_MAX in the smallest segments (512 bytes), and as many others */
    EMPTY_MAX = 64,   /* responses without text, one after the other */

    TEXT_TAG = 2, /* task tags of our choice: one request is under way at a time */
    LOGOUT_TAG = 3,

    ISID_RANDOM = 0x80,      /* RFC 7143 section 11.12.5: type 10b, a random number */
    ASYNC_LOGOUT_WANTED = 1, /* section 11.9.1 */
    ASYNC_CONNECTION_DROPPED = 2,
    ASYNC_SESSION_DROPPED = 3,
};

/* What is under way. */
enum state {
    LOGIN,
    LIST,
    LOGOUT,
};

static const char *const state_names[] = {
    [LOGIN] = "login",
    [LIST] = "list of targets",
    [LOGOUT] = "logout",
};

struct mp_discovery {
    enum state state;
    enum mp_discovery_status status;
    struct mp_login login;
    uint32_t cmd_sn, exp_stat_sn;
    unsigned pdus;  /* after the login */
    unsigned empty; /* the last ones, without text */
    struct mp_iscsi_reader reader;
    struct mp_bytes text; /* the answer to SendTargets */
    struct mp_sendtargets list;
    struct mp_bytes output; /* its first `sent` bytes are gone */
    size_t sent;
    struct manypath_error error;
};

/* ---- failing ---- */

static void fail(struct mp_discovery *discovery, int code, const char *what)
{
    mp_error(&discovery->error, code, MANYPATH_PHASE_DISCOVERY, 0, "the target %s", what);
    discovery->status = MP_DISCOVERY_FAILED;
}

/* The errors of mp_bytes_append(). */
static bool is_stored(struct mp_discovery *discovery, int result, const char *too_much)
{
    if (result == -EMSGSIZE) {
        fail(discovery, MANYPATH_E_PROTOCOL, too_much);
    } else if (result < 0) {
        mp_error(&discovery->error, MANYPATH_E_SYSTEM, MANYPATH_PHASE_DISCOVERY, result,
                 "out of memory");
        discovery->status = MP_DISCOVERY_FAILED;
    }
    return result >= 0;
}

/* ---- requests ---- */

/* The output is bounded by PDUS_MAX: each request but three answers a PDU of the target. */
static void send_request(struct mp_discovery *discovery, struct mp_iscsi_request *request)
{
    request->flags = MP_ISCSI_FINAL; /* without further ones: reason 0 of a Logout Request */
    request->cmd_sn = discovery->cmd_sn;
    request->exp_stat_sn = discovery->exp_stat_sn;
    if (!request->immediate)
        discovery->cmd_sn++; /* section 4.2.2.1 */
    is_stored(discovery, mp_iscsi_append(&discovery->output, request, SIZE_MAX), "");
}

/* F is set even when the target's text was cut (C) and we only ask for the rest: LIO refuses a Text
 * Request without it (Linux drivers/target/iscsi/iscsi_target.c, iscsit_setup_text_cmd). */
static void send_text(struct mp_discovery *discovery, const char *text, size_t length, uint32_t ttt)
{
    struct mp_iscsi_request request = {
        .opcode = MP_ISCSI_TEXT_REQUEST,
        .itt = TEXT_TAG,
        .ttt = ttt,
        .data = (const uint8_t *)text,
        .length = length,
    };

    send_request(discovery, &request);
}

static void begin_list(struct mp_discovery *discovery)
{
    static const char question[] = "SendTargets=All"; /* with its NUL */

    discovery->state = LIST;
    discovery->reader.data_max = DATA_MAX;
    discovery->cmd_sn = discovery->login.cmd_sn;
    discovery->exp_stat_sn = discovery->login.exp_stat_sn;
    send_text(discovery, question, sizeof question, MP_ISCSI_NO_TAG);
}

static void begin_logout(struct mp_discovery *discovery)
{
    struct mp_iscsi_request request = {
        .opcode = MP_ISCSI_LOGOUT_REQUEST,
        .immediate = true,
        .itt = LOGOUT_TAG,
    };

    discovery->state = LOGOUT;
    discovery->status = MP_DISCOVERY_LISTED;
    send_request(discovery, &request);
}

/* ---- what the target sends ---- */

static void after_login(struct mp_discovery *discovery, int result)
{
    if (result < 0)
        discovery->status = MP_DISCOVERY_FAILED;
    else if (result == MP_LOGIN_REDIRECTED)
        discovery->status = MP_DISCOVERY_REDIRECTED;
    else if (result == MP_LOGIN_DONE)
        begin_list(discovery);
}

static void login_response(struct mp_discovery *discovery, const struct mp_iscsi_pdu *pdu)
{
    after_login(discovery,
                mp_login_response(&discovery->login, pdu, &discovery->output, &discovery->error));
}

static void listed(struct mp_discovery *discovery)
{
    int result =
        mp_sendtargets_parse(discovery->text.data, discovery->text.length, &discovery->list);

    mp_bytes_free(&discovery->text);
    if (result == 0)
        begin_logout(discovery);
    else if (result == -E2BIG)
        fail(discovery, MANYPATH_E_PROTOCOL, "tells more than 16384 portals");
    else if (result == -EOPNOTSUPP)
        fail(discovery, MANYPATH_E_PROTOCOL, "refuses SendTargets");
    else if (result == -EPROTO)
        fail(discovery, MANYPATH_E_PROTOCOL, "sent a broken list of targets");
    else
        is_stored(discovery, result, "");
}

/* Sections 6.2 and 11.11. A response that is not marked as the last, but has no tag to ask on with,
 * is taken for the last, as iscsiadm does. */
static void text_response(struct mp_discovery *discovery, const struct mp_iscsi_pdu *pdu)
{
    bool last = pdu->final || pdu->ttt == MP_ISCSI_NO_TAG;

    discovery->exp_stat_sn = pdu->stat_sn + 1;
    if (pdu->length > 0)
        discovery->empty = 0;
    if (pdu->itt != TEXT_TAG)
        fail(discovery, MANYPATH_E_PROTOCOL, "answered a request that was not sent");
    else if (last && pdu->more)
        fail(discovery, MANYPATH_E_PROTOCOL, "broke off its list of targets");
    else if (!is_stored(discovery,
                        mp_bytes_append(&discovery->text, pdu->data, pdu->length, TEXT_MAX),
                        "sent a list of targets of more than 4 MiB"))
        return;
    else if (last)
        listed(discovery);
    else if (pdu->length == 0 && ++discovery->empty > EMPTY_MAX)
        fail(discovery, MANYPATH_E_PROTOCOL, "does not go on with its list of targets");
    else
        send_text(discovery, NULL, 0, pdu->ttt);
}

/* Section 11.19: a target that wants an answer gives a tag to answer with. */
static void nop_in(struct mp_discovery *discovery, const struct mp_iscsi_pdu *pdu)
{
    struct mp_iscsi_request request = {
        .opcode = MP_ISCSI_NOP_OUT,
        .immediate = true,
        .itt = MP_ISCSI_NO_TAG,
        .ttt = pdu->ttt,
    };

    memcpy(request.lun, pdu->lun, sizeof request.lun);
    if (pdu->itt != MP_ISCSI_NO_TAG)
        fail(discovery, MANYPATH_E_PROTOCOL, "answered a request that was not sent");
    else if (pdu->ttt != MP_ISCSI_NO_TAG)
        send_request(discovery, &request);
}

static void async_message(struct mp_discovery *discovery, const struct mp_iscsi_pdu *pdu)
{
    discovery->exp_stat_sn = pdu->stat_sn + 1;
    if (pdu->event == ASYNC_LOGOUT_WANTED)
        fail(discovery, MANYPATH_E_LOGIN, "wants us to log out before it told its targets");
    else if (pdu->event == ASYNC_CONNECTION_DROPPED || pdu->event == ASYNC_SESSION_DROPPED)
        fail(discovery, MANYPATH_E_LOGIN, "drops the connection before it told its targets");
}

/* Section 11.17.1. */
static void reject(struct mp_discovery *discovery, const struct mp_iscsi_pdu *pdu)
{
    static const char *const reasons[] = {
        [0x02] = "data digest error",      [0x04] = "protocol error",
        [0x05] = "command not supported",  [0x06] = "too many immediate commands",
        [0x07] = "task in progress",       [0x09] = "invalid PDU field",
        [0x0a] = "out of resources",       [0x0b] = "negotiation reset",
        [0x0c] = "waiting for the logout",
    };
    const char *reason =
        pdu->reason < sizeof reasons / sizeof reasons[0] ? reasons[pdu->reason] : NULL;

    mp_error(&discovery->error, MANYPATH_E_PROTOCOL, MANYPATH_PHASE_DISCOVERY, 0,
             "the target rejects the request for the %s: %s (iSCSI reject reason %02x)",
             state_names[discovery->state], reason != NULL ? reason : "unknown reason",
             pdu->reason);
    discovery->status = MP_DISCOVERY_FAILED;
}

static void unexpected(struct mp_discovery *discovery, const struct mp_iscsi_pdu *pdu)
{
    mp_error(&discovery->error, MANYPATH_E_PROTOCOL, MANYPATH_PHASE_DISCOVERY, 0,
             "the target sent an iSCSI PDU of type %02x, which does not belong to the %s",
             pdu->opcode, state_names[discovery->state]);
    discovery->status = MP_DISCOVERY_FAILED;
}

static void take_in_list(struct mp_discovery *discovery, const struct mp_iscsi_pdu *pdu)
{
    if (++discovery->pdus > PDUS_MAX) {
        fail(discovery, MANYPATH_E_PROTOCOL, "does not come to an end with its list of targets");
        return;
    }
    switch (pdu->opcode) {
    case MP_ISCSI_TEXT_RESPONSE:
        text_response(discovery, pdu);
        return;
    case MP_ISCSI_NOP_IN:
        nop_in(discovery, pdu);
        return;
    case MP_ISCSI_ASYNC_MESSAGE:
        async_message(discovery, pdu);
        return;
    default:
        unexpected(discovery, pdu);
    }
}

/* The list is complete: whatever comes instead of the Logout Response is an end too. */
static void take_in_logout(struct mp_discovery *discovery, const struct mp_iscsi_pdu *pdu)
{
    bool unasked = pdu->opcode == MP_ISCSI_NOP_IN || pdu->opcode == MP_ISCSI_ASYNC_MESSAGE;

    if (!unasked || ++discovery->pdus > PDUS_MAX)
        discovery->status = MP_DISCOVERY_OVER;
}

static void take(struct mp_discovery *discovery, const struct mp_iscsi_pdu *pdu)
{
    if (discovery->state == LOGOUT)
        take_in_logout(discovery, pdu);
    else if (pdu->opcode == MP_ISCSI_REJECT)
        reject(discovery, pdu);
    else if (discovery->state == LIST)
        take_in_list(discovery, pdu);
    else if (pdu->opcode == MP_ISCSI_LOGIN_RESPONSE)
        login_response(discovery, pdu);
    else
        unexpected(discovery, pdu);
}

/* ---- the machine ---- */

struct mp_discovery *mp_discovery_new(const struct mp_discovery_options *options)
{
    struct mp_discovery *discovery = calloc(1, sizeof *discovery);
    uint32_t qualifier = options->isid_qualifier;

    if (discovery == NULL)
        return NULL;
    discovery->login.chap = options->chap;
    discovery->login.isid[0] = ISID_RANDOM;
    discovery->login.isid[1] = (uint8_t)(qualifier >> 16);
    discovery->login.isid[2] = (uint8_t)(qualifier >> 8);
    discovery->login.isid[3] = (uint8_t)qualifier;
    discovery->reader.data_max = MP_LOGIN_DATA_MAX;
    after_login(discovery, mp_login_begin(&discovery->login, options->initiator, &discovery->output,
                                          &discovery->error));
    return discovery;
}

void mp_discovery_free(struct mp_discovery *discovery)
{
    if (discovery == NULL)
        return;
    mp_login_free(&discovery->login);
    mp_iscsi_reader_free(&discovery->reader);
    mp_bytes_free(&discovery->text);
    mp_bytes_free(&discovery->output);
    free(discovery->list.targets);
    free(discovery);
}

size_t mp_discovery_output(const struct mp_discovery *discovery, const uint8_t **ret_bytes)
{
    size_t count = discovery->output.length - discovery->sent;

    *ret_bytes = count > 0 ? discovery->output.data + discovery->sent : NULL;
    return count;
}

void mp_discovery_sent(struct mp_discovery *discovery, size_t count)
{
    discovery->sent += count;
    if (discovery->sent == discovery->output.length) {
        mp_bytes_clear(&discovery->output);
        discovery->sent = 0;
    }
}

enum mp_discovery_status mp_discovery_input(struct mp_discovery *discovery, const uint8_t *bytes,
                                            size_t count)
{
    while (discovery->status == MP_DISCOVERY_BUSY || discovery->status == MP_DISCOVERY_LISTED) {
        struct mp_iscsi_pdu pdu;
        int result = mp_iscsi_read(&discovery->reader, &bytes, &count, &pdu);

        if (result == 0)
            break;
        if (result > 0)
            take(discovery, &pdu);
        else if (discovery->state == LOGOUT)
            discovery->status = MP_DISCOVERY_OVER;
        else
            is_stored(discovery, result, "sent a longer iSCSI PDU than it may");
    }
    return discovery->status;
}

enum mp_discovery_status mp_discovery_closed(struct mp_discovery *discovery)
{
    if (discovery->status == MP_DISCOVERY_LISTED) {
        discovery->status = MP_DISCOVERY_OVER;
    } else if (discovery->status == MP_DISCOVERY_BUSY) {
        mp_error(&discovery->error, MANYPATH_E_LOGIN, MANYPATH_PHASE_DISCOVERY, 0,
                 "the target closed the connection during the %s", state_names[discovery->state]);
        discovery->status = MP_DISCOVERY_FAILED;
    }
    return discovery->status;
}

enum mp_discovery_status mp_discovery_status(const struct mp_discovery *discovery)
{
    return discovery->status;
}

const struct manypath_error *mp_discovery_error(const struct mp_discovery *discovery)
{
    return &discovery->error;
}

const char *mp_discovery_redirect(const struct mp_discovery *discovery, uint16_t *ret_port)
{
    *ret_port = discovery->login.redirect.port;
    return discovery->login.redirect.host;
}

const struct manypath_discovered *mp_discovery_targets(const struct mp_discovery *discovery,
                                                       size_t *ret_count)
{
    *ret_count = discovery->list.count;
    return discovery->list.targets;
}

size_t mp_discovery_skipped(const struct mp_discovery *discovery)
{
    return discovery->list.skipped;
}
