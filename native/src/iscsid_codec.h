/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MP_ISCSID_CODEC_H
#define MP_ISCSID_CODEC_H

#include <stddef.h>
#include <stdint.h>

#include "iscsid_layout.h"

/*
 * Requests to iscsid and its replies as bytes: no descriptors, no allocation, no globals, no
 * logging, native byte order. A request buffer is exactly layout->request_size bytes; the encoder
 * checks everything first, so a failure leaves the buffer alone. Secrets are copied into the
 * buffer and nowhere else; the caller wipes it.
 */

/* open-iscsi usr/mgmt_ipc.h. Those that stop the daemon (11) or send it into an endless loop
 * (16 to 19, NOTIFY_*) are left out and cannot be encoded. */
enum mp_iscsid_command {
    MP_ISCSID_LOGIN = 1,
    MP_ISCSID_LOGOUT = 2,
    MP_ISCSID_STATS = 7,
    MP_ISCSID_CONFIG_INAME = 8,
    MP_ISCSID_CONFIG_IALIAS = 9,
    MP_ISCSID_CONFIG_FILE = 10,
    MP_ISCSID_SESSION_INFO = 13,
};

/* open-iscsi include/iscsi_err.h: those that the code, not only the text, tells apart. */
enum mp_iscsid_error {
    MP_ISCSID_OK = 0,
    MP_ISCSID_ERR_SESS_NOT_FOUND = 2,
    MP_ISCSID_ERR_ACCESS = 13,
    MP_ISCSID_ERR_SESS_EXISTS = 15,
    MP_ISCSID_ERR_FATAL_LOGIN = 19,
    MP_ISCSID_ERR_AUTH = 24,
    MP_ISCSID_ERR_BUSY = 28,
    MP_ISCSID_ERR_NOT_CONNECTED = 32,
};

/* CHAP algorithms: IANA "PPP authentication algorithms", RFC 7143 12.1.3. */
enum mp_iscsid_chap_alg {
    MP_CHAP_NONE = -1,
    MP_CHAP_MD5 = 5,
    MP_CHAP_SHA1 = 6,
    MP_CHAP_SHA256 = 7,
    MP_CHAP_SHA3_256 = 8,
};

enum { MP_ISCSID_CHAP_ALGS = 5 };

/*
 * What a login needs. Start from mp_iscsid_login_init() and set target, address and what differs.
 * Strings may be NULL for empty and are only read during the call.
 */
struct mp_iscsid_login {
    const char *target;  /* iqn. / eui. / naa. name */
    const char *address; /* numeric IPv4, or IPv6 without brackets, with %scope if link-local */
    uint16_t port;
    int32_t tpgt; /* -1: not known */

    /* CHAP is used if there is a password; *_in is what the target must prove to us. */
    const char *username;
    const uint8_t *password;
    size_t password_length;
    const char *username_in;
    const uint8_t *password_in;
    size_t password_in_length;
    int32_t chap_algs[MP_ISCSID_CHAP_ALGS]; /* in order of preference, then MP_CHAP_NONE */

    const char *iface_name; /* "default" */
    const char *transport;  /* "tcp" */
    const char *netdev;
    const char *hwaddress;
    const char *ipaddress;
    const char *initiator; /* NULL: iscsid's own */

    int32_t login_timeout; /* seconds; stays with the session for its reconnects */
    int32_t logout_timeout;
    int32_t auth_timeout;
    int32_t noop_out_interval; /* both or none */
    int32_t noop_out_timeout;
    int32_t initial_login_retry_max; /* iscsid gives up after this many login_timeouts */
    int32_t login_redirect_max;
    int32_t reopen_max; /* 0: for ever */
    int32_t reopen_log_freq;
    int32_t replacement_timeout; /* -1: never fail I/O */
    int32_t abort_timeout;
    int32_t host_reset_timeout;
    int32_t lu_reset_timeout;
    int32_t tgt_reset_timeout;

    int32_t cmds_max;
    int32_t queue_depth;
    int32_t xmit_thread_priority;
    int32_t window_size;
    int32_t type_of_service;
    int32_t initial_r2t;
    int32_t immediate_data;
    int32_t first_burst_length;
    int32_t max_burst_length;
    int32_t max_outstanding_r2t;
    int32_t default_time2wait;
    int32_t default_time2retain;
    int32_t fast_abort;
    int32_t max_recv_segment;
    int32_t max_xmit_segment; /* 0: what the target declares */
    int32_t header_digest;    /* 0 none, 1 CRC32C, 2 CRC32C then none, 3 none then CRC32C */
    int32_t data_digest;

    uint8_t scan_auto; /* 0: iscsid leaves LUN scanning to us */
    uint8_t multiple;  /* 1: a further session beside an existing one */
};

void mp_iscsid_login_init(struct mp_iscsid_login *ret);

/*
 * size has to be layout->request_size. -ENAMETOOLONG: a string or secret does not fit its field;
 * -EOPNOTSUPP: asked for something that this iscsid does not have; -EINVAL: any other value that
 * iscsid would misread or that a session cannot be made of.
 */
int mp_iscsid_encode_login(const struct mp_iscsid_layout *layout,
                           const struct mp_iscsid_login *login, uint8_t *buf, size_t size);

/* LOGOUT, SESSION_INFO and STATS. */
int mp_iscsid_encode_sid(const struct mp_iscsid_layout *layout, uint32_t command, uint32_t sid,
                         uint8_t *buf, size_t size);

/* CONFIG_*. No layout: this is what the size probe sends. */
int mp_iscsid_encode_simple(uint32_t command, uint8_t *buf, size_t size);

struct mp_iscsid_reply {
    uint32_t command; /* 0 with MP_ISCSID_ERR_ACCESS */
    int32_t error;    /* iscsid's, see mp_iscsid_error_name() */
    /* SESSION_INFO without error, else -1. Session: 0 no change, 1 cleanup, 2 reopen, 3 redirect,
     * 4 destroyed. Connection: 0 free, 1 waiting for TCP, 2 in login, 3 logged in, 4 in logout,
     * 5 logout requested, 6 waiting for cleanup. */
    int32_t session_state;
    int32_t conn_state;
    char config[256]; /* CONFIG_* without error, else "" */
};

/* -EMSGSIZE: not 2464 bytes; -EBADMSG: the answer to some other command. */
int mp_iscsid_decode_reply(const uint8_t *buf, size_t len, uint32_t expected_command,
                           struct mp_iscsid_reply *ret);

/* Never NULL; unknown codes have a name and a sentence too. */
const char *mp_iscsid_error_name(int32_t code);
const char *mp_iscsid_error_text(int32_t code);

/* 1 if the same request may succeed later without anybody changing a configuration. */
int mp_iscsid_error_retryable(int32_t code);

#endif
