/* SPDX-License-Identifier: Apache-2.0 */
#include "iscsid_codec.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

/* RFC 7143 4.2.7.1: an iSCSI name has at most 223 bytes. */
enum { ISCSI_NAME_MAX = 223 };

/* RFC 7143 13.12 to 13.14: 512 to 2^24 - 1. */
enum { SEGMENT_MIN = 512, SEGMENT_MAX = (1 << 24) - 1 };

/* RFC 7143 13.15, 13.16. */
enum { TIME2_MAX = 3600 };

/* A day; longer is a wrong unit. iscsid keeps timers in seconds. */
enum { TIMEOUT_MAX = 86400 };

enum { CONFIG_VAR_SIZE = 255 }; /* open-iscsi include/iscsi_proto.h, VALUE_MAXLEN */
enum { CONFIG_VAR_OFFSET = 8, SESSION_STATE_OFFSET = 8, CONN_STATE_OFFSET = 12 };

/* Code defaults of open-iscsi usr/idbm.c (idbm_node_setup_defaults and its helpers), but a manual
 * scan, and no priority for the transmit thread: it costs a walk through /proc. */
void mp_iscsid_login_init(struct mp_iscsid_login *ret)
{
    *ret = (struct mp_iscsid_login){
        .port = 3260,
        .tpgt = -1,
        .chap_algs = {MP_CHAP_MD5, MP_CHAP_NONE, MP_CHAP_NONE, MP_CHAP_NONE, MP_CHAP_NONE},
        .iface_name = "default",
        .transport = "tcp",
        .login_timeout = 30,
        .logout_timeout = 15,
        .auth_timeout = 45,
        .noop_out_interval = 5,
        .noop_out_timeout = 5,
        .initial_login_retry_max = 4,
        .login_redirect_max = 8,
        .reopen_log_freq = 1,
        .replacement_timeout = 120,
        .abort_timeout = 15,
        .host_reset_timeout = 60,
        .lu_reset_timeout = 30,
        .tgt_reset_timeout = 30,
        .cmds_max = 128,
        .queue_depth = 32,
        .window_size = 524288,
        .immediate_data = 1,
        .first_burst_length = 262144,
        .max_burst_length = 16776192,
        .max_outstanding_r2t = 1,
        .default_time2wait = 2,
        .fast_abort = 1,
        .max_recv_segment = 262144,
    };
}

/* --- what iscsid would misread ---------------------------------------------------------------- */

static const char *or_empty(const char *text)
{
    return text != NULL ? text : "";
}

static int is_in(int32_t value, int32_t least, int32_t greatest)
{
    return value >= least && value <= greatest;
}

/* Bytes that end up in sysfs, log lines and file names: no control bytes, no space, no slash. */
static int check_word(const char *text, struct mp_iscsid_slot slot)
{
    size_t len = strlen(text);

    if (len == 0)
        return 0;
    if (slot.width == 0)
        return -EOPNOTSUPP;
    if (len >= slot.width)
        return -ENAMETOOLONG;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];

        if (c <= 0x20 || c == 0x7f || c == '/')
            return -EINVAL;
    }
    return 0;
}

static int check_iscsi_name(const char *text, struct mp_iscsid_slot slot)
{
    return strlen(text) > ISCSI_NAME_MAX ? -ENAMETOOLONG : check_word(text, slot);
}

/* A CHAP name may have spaces and slashes (RFC 7143 12.1.3 leaves it open), but iscsid reads it as
 * a string. */
static int check_chap_name(const char *text, struct mp_iscsid_slot slot)
{
    size_t len = strlen(text);

    if (len >= slot.width)
        return -ENAMETOOLONG;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];

        if (c < 0x20 || c == 0x7f)
            return -EINVAL;
    }
    return 0;
}

/* iscsid gives the address to getaddrinfo() in its only thread: a host name would stop the daemon
 * for as long as DNS takes. */
static int check_address(const char *text, struct mp_iscsid_slot slot)
{
    char host[INET6_ADDRSTRLEN];
    const char *scope = strchr(text, '%');
    size_t len = scope != NULL ? (size_t)(scope - text) : strlen(text);
    unsigned char address[sizeof(struct in6_addr)];
    int rc = check_word(text, slot);

    if (rc < 0)
        return rc;
    if (len == 0 || len >= sizeof(host))
        return -EINVAL;
    memcpy(host, text, len);
    host[len] = '\0';
    if (inet_pton(AF_INET6, host, address) == 1)
        return scope == NULL || (scope[1] != '\0' && strchr(scope + 1, '%') == NULL) ? 0 : -EINVAL;
    return scope == NULL && inet_pton(AF_INET, host, address) == 1 ? 0 : -EINVAL;
}

static int check_secret(const uint8_t *secret, size_t len, struct mp_iscsid_slot slot)
{
    if (len == 0)
        return 0;
    if (secret == NULL)
        return -EINVAL;
    /* iscsid copies password_length bytes without a bound, and keeps one byte for a NUL. */
    return len < slot.width ? 0 : -ENAMETOOLONG;
}

static int check_chap_algs(const int32_t *algs, int has_list)
{
    int has_md5 = 0;

    /* An empty list is a login that is retried until its time is over. */
    if (algs[0] == MP_CHAP_NONE)
        return -EINVAL;
    for (int i = 0; i < MP_ISCSID_CHAP_ALGS; i++) {
        if (algs[i] != MP_CHAP_NONE && !is_in(algs[i], MP_CHAP_MD5, MP_CHAP_SHA3_256))
            return -EINVAL;
        if (i > 0 && algs[i] != MP_CHAP_NONE && algs[i - 1] == MP_CHAP_NONE)
            return -EINVAL;
        has_md5 |= algs[i] == MP_CHAP_MD5;
    }
    /* Before 2.1.1 iscsid offers MD5 and nothing else; do not go below what was asked for. */
    return has_list || has_md5 ? 0 : -EOPNOTSUPP;
}

static int check_chap(const struct mp_iscsid_layout *layout, const struct mp_iscsid_login *login)
{
    int has_name = or_empty(login->username)[0] != '\0';
    int has_name_in = or_empty(login->username_in)[0] != '\0';
    int has_secret = login->password_length > 0, has_secret_in = login->password_in_length > 0;
    int rc;

    if ((rc = check_chap_name(or_empty(login->username), layout->username)) < 0 ||
        (rc = check_chap_name(or_empty(login->username_in), layout->username_in)) < 0 ||
        (rc = check_secret(login->password, login->password_length, layout->password)) < 0 ||
        (rc = check_secret(login->password_in, login->password_in_length, layout->password_in)) < 0)
        return rc;
    /* Half of a pair, or the target's half without ours, makes iscsid log in WITHOUT
     * authentication (open-iscsi usr/initiator.c ignores the error). */
    if (has_name != has_secret || has_name_in != has_secret_in || (has_secret_in && !has_secret))
        return -EINVAL;
    return has_secret ? check_chap_algs(login->chap_algs, layout->chap_algs.width != 0) : 0;
}

static int check_times(const struct mp_iscsid_login *login)
{
    /* 0 means "default, and complain" to iscsid; less than 0 is a timer of 136 years. */
    if (!is_in(login->login_timeout, 1, TIMEOUT_MAX) ||
        !is_in(login->logout_timeout, 1, TIMEOUT_MAX) ||
        !is_in(login->auth_timeout, 1, TIMEOUT_MAX) ||
        !is_in(login->noop_out_interval, 0, TIMEOUT_MAX) ||
        !is_in(login->noop_out_timeout, 0, TIMEOUT_MAX) ||
        !is_in(login->replacement_timeout, -1, INT32_MAX) ||
        !is_in(login->abort_timeout, 0, TIMEOUT_MAX) ||
        !is_in(login->host_reset_timeout, 0, TIMEOUT_MAX) ||
        !is_in(login->lu_reset_timeout, 0, TIMEOUT_MAX) ||
        !is_in(login->tgt_reset_timeout, 0, TIMEOUT_MAX))
        return -EINVAL;
    if ((login->noop_out_interval == 0) != (login->noop_out_timeout == 0))
        return -EINVAL;
    if (!is_in(login->initial_login_retry_max, 0, 1000000) ||
        !is_in(login->login_redirect_max, 0, 1000000) || !is_in(login->reopen_max, 0, INT32_MAX) ||
        !is_in(login->reopen_log_freq, 1, INT32_MAX))
        return -EINVAL;
    return 0;
}

static int check_parameters(const struct mp_iscsid_login *login)
{
    /* Linux drivers/scsi/libiscsi.c, iscsi_host_get_max_scsi_cmds(): less than 16 is refused, and
     * 4096 is the most. */
    if (!is_in(login->cmds_max, 16, 4096) || !is_in(login->queue_depth, 1, 4096) ||
        !is_in(login->xmit_thread_priority, -20, 19) || !is_in(login->window_size, 0, INT32_MAX) ||
        !is_in(login->type_of_service, 0, 255) || !is_in(login->initial_r2t, 0, 1) ||
        !is_in(login->immediate_data, 0, 1) || !is_in(login->fast_abort, 0, 1) ||
        !is_in(login->first_burst_length, SEGMENT_MIN, SEGMENT_MAX) ||
        !is_in(login->max_burst_length, SEGMENT_MIN, SEGMENT_MAX) ||
        !is_in(login->max_recv_segment, SEGMENT_MIN, SEGMENT_MAX) ||
        !is_in(login->max_outstanding_r2t, 1, 65535) ||
        !is_in(login->default_time2wait, 0, TIME2_MAX) ||
        !is_in(login->default_time2retain, 0, TIME2_MAX) || !is_in(login->header_digest, 0, 3) ||
        !is_in(login->data_digest, 0, 3))
        return -EINVAL;
    if (login->max_xmit_segment != 0 && !is_in(login->max_xmit_segment, SEGMENT_MIN, SEGMENT_MAX))
        return -EINVAL;
    /* RFC 7143 13.14. */
    return login->first_burst_length <= login->max_burst_length ? 0 : -EINVAL;
}

static int check_login(const struct mp_iscsid_layout *layout, const struct mp_iscsid_login *login)
{
    int rc;

    /* Port 0 and up to 65535 by type; an empty transport is "not found", an empty iface name makes
     * iscsid match other sessions loosely. */
    if (or_empty(login->target)[0] == '\0' || or_empty(login->address)[0] == '\0' ||
        or_empty(login->transport)[0] == '\0' || or_empty(login->iface_name)[0] == '\0' ||
        login->port == 0 || !is_in(login->tpgt, -1, UINT16_MAX) || login->multiple > 1 ||
        login->scan_auto > 1)
        return -EINVAL;
    if ((rc = check_iscsi_name(login->target, layout->target_name)) < 0 ||
        (rc = check_address(login->address, layout->address)) < 0 ||
        (rc = check_word(login->transport, layout->transport_name)) < 0 ||
        (rc = check_word(login->iface_name, layout->iface_name)) < 0 ||
        (rc = check_word(or_empty(login->netdev), layout->netdev)) < 0 ||
        (rc = check_word(or_empty(login->hwaddress), layout->hwaddress)) < 0 ||
        (rc = check_word(or_empty(login->ipaddress), layout->ipaddress)) < 0 ||
        (rc = check_iscsi_name(or_empty(login->initiator), layout->iname)) < 0 ||
        (rc = check_chap(layout, login)) < 0 || (rc = check_times(login)) < 0)
        return rc;
    return check_parameters(login);
}

/* --- writing ---------------------------------------------------------------------------------- */

/* A field that this release does not have is left out: iscsid's own default then holds. */
static void put_int(uint8_t *buf, struct mp_iscsid_slot slot, int32_t value)
{
    if (slot.width != 0)
        memcpy(buf + slot.offset, &value, sizeof(value));
}

static void put_text(uint8_t *buf, struct mp_iscsid_slot slot, const char *text)
{
    if (slot.width != 0 && text != NULL)
        memcpy(buf + slot.offset, text, strlen(text));
}

static void put_secret(uint8_t *buf, struct mp_iscsid_slot slot, const uint8_t *secret, size_t len)
{
    if (len > 0)
        memcpy(buf + slot.offset, secret, len);
}

static void put_header(uint8_t *buf, size_t size, uint32_t command)
{
    memset(buf, 0, size); /* payload_len too: iscsid would wait for that many bytes */
    memcpy(buf, &command, sizeof(command));
}

static void put_session(const struct mp_iscsid_layout *at, const struct mp_iscsid_login *login,
                        uint8_t *buf)
{
    put_text(buf, at->target_name, login->target);
    put_int(buf, at->tpgt, login->tpgt);
    put_int(buf, at->startup, 0);
    put_int(buf, at->leading_login, 0);
    put_int(buf, at->initial_cmdsn, 0);
    put_int(buf, at->reopen_max, login->reopen_max);
    put_int(buf, at->xmit_thread_priority, login->xmit_thread_priority);
    put_int(buf, at->cmds_max, login->cmds_max);
    put_int(buf, at->queue_depth, login->queue_depth);
    put_int(buf, at->initial_login_retry_max, login->initial_login_retry_max);
    put_int(buf, at->login_redirect_max, login->login_redirect_max);
    put_int(buf, at->nr_sessions, 1);
    put_int(buf, at->scan, login->scan_auto);
    put_int(buf, at->replacement_timeout, login->replacement_timeout);
    put_int(buf, at->abort_timeout, login->abort_timeout);
    put_int(buf, at->host_reset_timeout, login->host_reset_timeout);
    put_int(buf, at->lu_reset_timeout, login->lu_reset_timeout);
    put_int(buf, at->tgt_reset_timeout, login->tgt_reset_timeout);
    put_int(buf, at->initial_r2t, login->initial_r2t);
    put_int(buf, at->immediate_data, login->immediate_data);
    put_int(buf, at->first_burst_length, login->first_burst_length);
    put_int(buf, at->max_burst_length, login->max_burst_length);
    put_int(buf, at->default_time2wait, login->default_time2wait);
    put_int(buf, at->default_time2retain, login->default_time2retain);
    put_int(buf, at->max_connections, 1);
    put_int(buf, at->max_outstanding_r2t, login->max_outstanding_r2t);
    put_int(buf, at->erl, 0);
    put_int(buf, at->fast_abort, login->fast_abort);
    buf[at->multiple.offset] = login->multiple;
    put_int(buf, at->reopen_log_freq, login->reopen_log_freq);
    put_int(buf, at->disc_type, at->static_discovery);
}

static void put_chap(const struct mp_iscsid_layout *at, const struct mp_iscsid_login *login,
                     uint8_t *buf)
{
    put_int(buf, at->auth_method, login->password_length > 0);
    put_text(buf, at->username, login->username);
    put_secret(buf, at->password, login->password, login->password_length);
    put_int(buf, at->password_length, (int32_t)login->password_length);
    put_text(buf, at->username_in, login->username_in);
    put_secret(buf, at->password_in, login->password_in, login->password_in_length);
    put_int(buf, at->password_in_length, (int32_t)login->password_in_length);
    if (at->chap_algs.width != 0)
        memcpy(buf + at->chap_algs.offset, login->chap_algs, sizeof(login->chap_algs));
}

static void put_connection(const struct mp_iscsid_layout *at, const struct mp_iscsid_login *login,
                           uint8_t *buf)
{
    put_int(buf, at->conn_startup, 0);
    put_text(buf, at->address, login->address);
    put_int(buf, at->port, login->port);
    put_int(buf, at->window_size, login->window_size);
    put_int(buf, at->type_of_service, login->type_of_service);
    put_int(buf, at->login_timeout, login->login_timeout);
    put_int(buf, at->logout_timeout, login->logout_timeout);
    put_int(buf, at->auth_timeout, login->auth_timeout);
    put_int(buf, at->active_timeout, 0);
    put_int(buf, at->noop_out_interval, login->noop_out_interval);
    put_int(buf, at->noop_out_timeout, login->noop_out_timeout);
    put_int(buf, at->max_recv_segment, login->max_recv_segment);
    put_int(buf, at->max_xmit_segment, login->max_xmit_segment);
    put_int(buf, at->header_digest, login->header_digest);
    put_int(buf, at->data_digest, login->data_digest);
    put_text(buf, at->iface_name, login->iface_name);
    put_text(buf, at->netdev, login->netdev);
    put_text(buf, at->ipaddress, login->ipaddress);
    put_text(buf, at->hwaddress, login->hwaddress);
    put_text(buf, at->transport_name, login->transport);
    put_text(buf, at->iname, login->initiator);
}

_Static_assert(sizeof(((struct mp_iscsid_login *)0)->chap_algs) == 20, "LIST is 20 bytes wide");

int mp_iscsid_encode_login(const struct mp_iscsid_layout *layout,
                           const struct mp_iscsid_login *login, uint8_t *buf, size_t size)
{
    int rc;

    if (size != layout->request_size)
        return -EINVAL;
    rc = check_login(layout, login);
    if (rc < 0)
        return rc;
    put_header(buf, size, MP_ISCSID_LOGIN);
    put_session(layout, login, buf);
    put_chap(layout, login, buf);
    put_connection(layout, login, buf);
    return 0;
}

int mp_iscsid_encode_sid(const struct mp_iscsid_layout *layout, uint32_t command, uint32_t sid,
                         uint8_t *buf, size_t size)
{
    if (size != layout->request_size || sid > INT32_MAX)
        return -EINVAL;
    if (command != MP_ISCSID_LOGOUT && command != MP_ISCSID_SESSION_INFO &&
        command != MP_ISCSID_STATS)
        return -EINVAL;
    put_header(buf, size, command);
    put_int(buf, layout->sid, (int32_t)sid);
    return 0;
}

int mp_iscsid_encode_simple(uint32_t command, uint8_t *buf, size_t size)
{
    if (size < MP_ISCSID_REQUEST_MIN || size > MP_ISCSID_REQUEST_MAX)
        return -EINVAL;
    if (command != MP_ISCSID_CONFIG_INAME && command != MP_ISCSID_CONFIG_IALIAS &&
        command != MP_ISCSID_CONFIG_FILE)
        return -EINVAL;
    put_header(buf, size, command);
    return 0;
}

/* --- reading ---------------------------------------------------------------------------------- */

static int32_t get_int(const uint8_t *buf, size_t offset)
{
    int32_t value;

    memcpy(&value, buf + offset, sizeof(value));
    return value;
}

int mp_iscsid_decode_reply(const uint8_t *buf, size_t len, uint32_t expected_command,
                           struct mp_iscsid_reply *ret)
{
    struct mp_iscsid_reply reply = {.session_state = -1, .conn_state = -1};

    if (len != MP_ISCSID_REPLY_SIZE)
        return -EMSGSIZE;
    reply.command = (uint32_t)get_int(buf, 0);
    reply.error = get_int(buf, 4);
    /* A peer that is not root is refused before its request is read, hence command 0. */
    if (reply.command != expected_command &&
        !(reply.command == 0 && reply.error == MP_ISCSID_ERR_ACCESS))
        return -EBADMSG;
    if (reply.error == MP_ISCSID_OK) {
        switch (reply.command) {
        case MP_ISCSID_SESSION_INFO:
            reply.session_state = get_int(buf, SESSION_STATE_OFFSET);
            reply.conn_state = get_int(buf, CONN_STATE_OFFSET);
            break;
        case MP_ISCSID_CONFIG_INAME:
        case MP_ISCSID_CONFIG_IALIAS:
        case MP_ISCSID_CONFIG_FILE:
            /* One byte larger than iscsid's field, so always terminated. */
            memcpy(reply.config, buf + CONFIG_VAR_OFFSET,
                   strnlen((const char *)buf + CONFIG_VAR_OFFSET, CONFIG_VAR_SIZE));
            break;
        default:
            break;
        }
    }
    *ret = reply;
    return 0;
}

/* --- words ------------------------------------------------------------------------------------ */

struct error_words {
    const char *name;
    const char *text;
    int retryable;
};

/* Numbers: open-iscsi include/iscsi_err.h. Texts say what happened from here. */
static const struct error_words error_table[] = {
    [0] = {"SUCCESS", "done", 0},
    [1] = {"ERR", "iscsid failed without saying why", 0},
    [2] = {"SESS_NOT_FOUND", "iscsid does not know this session", 0},
    [3] = {"NOMEM", "iscsid or the kernel is out of memory", 1},
    [4] = {"TRANS", "the portal could not be connected, or the connection broke", 1},
    [5] = {"LOGIN", "the session or its connection could not be set up, or the login failed", 1},
    [6] = {"IDBM", "iscsid could not use its record database", 0},
    [7] = {"INVAL", "iscsid found a value in the request invalid", 0},
    [8] = {"TRANS_TIMEOUT",
           "no login within the login timeout; the portal is silent or its target unavailable", 1},
    [9] = {"INTERNAL", "iscsid failed internally, or the session is busy with another change", 1},
    [10] = {"LOGOUT", "the logout failed", 1},
    [11] = {"PDU_TIMEOUT", "the target accepted the connection but did not answer the login", 1},
    [12] = {"TRANS_NOT_FOUND", "the iSCSI transport (kernel module) is not available", 0},
    [13] = {"ACCESS", "iscsid accepts requests from root only", 0},
    [14] = {"TRANS_CAPS", "the transport does not support this operation", 0},
    [15] = {"SESS_EXISTS", "the session exists, or a login to it is under way", 0},
    [16] = {"INVALID_MGMT_REQ", "iscsid does not know this request", 0},
    [17] = {"ISNS_UNAVAILABLE", "iSNS is not available", 0},
    [18] = {"ISCSID_COMM_ERR", "the conversation with iscsid broke", 1},
    [19] = {"FATAL_LOGIN", "the target rejected the login for good (wrong name or portal)", 0},
    [20] = {"ISCSID_NOTCONN", "iscsid is not running", 1},
    [21] = {"NO_OBJS_FOUND", "nothing matches", 0},
    [22] = {"SYSFS_LOOKUP", "iscsid could not find the session or host in sysfs", 1},
    [23] = {"HOST_NOT_FOUND", "the iSCSI host adapter is not there", 1},
    [24] = {"LOGIN_AUTH_FAILED", "authentication failed (CHAP name, secret or ACL)", 0},
    [25] = {"ISNS_QUERY", "the iSNS query failed", 1},
    [26] = {"ISNS_REG_FAILED", "the iSNS registration failed", 1},
    [27] = {"OP_NOT_SUPP", "the operation is not supported", 0},
    [28] = {"BUSY", "a device of the session is in use (iscsid.safe_logout)", 1},
    [29] = {"AGAIN", "not now; iscsid asks to try again", 1},
    [30] = {"UNKNOWN_DISCOVERY_TYPE", "the discovery type is not known", 0},
    [31] = {"CHILD_TERMINATED", "a child process of iscsid ended early", 1},
    [32] = {"SESSION_NOT_CONNECTED", "the session is being reconnected and cannot log out now", 1},
    [33] = {"REQ_TIMEDOUT", "iscsid did not answer in time", 1},
};

static const struct error_words *find_error(int32_t code)
{
    static const struct error_words unknown = {"UNKNOWN", "an error number we do not know", 0};

    if (code < 0 || (size_t)code >= sizeof(error_table) / sizeof(error_table[0]))
        return &unknown;
    return &error_table[code];
}

const char *mp_iscsid_error_name(int32_t code)
{
    return find_error(code)->name;
}

const char *mp_iscsid_error_text(int32_t code)
{
    return find_error(code)->text;
}

int mp_iscsid_error_retryable(int32_t code)
{
    return find_error(code)->retryable;
}
