/* SPDX-License-Identifier: Apache-2.0 */
/* The login phase of a discovery session, with CHAP (RFC 7143 sections 6.3, 9.2.1, 11.12, 11.13,
 * 12.1 and 13). Login Responses in, Login Requests out. */
#ifndef MP_LOGIN_H
#define MP_LOGIN_H

#include "bytes.h"
#include "chap.h"
#include "iscsi_pdu.h"
#include "secret.h"
#include "sendtargets.h"

#include <manypath/manypath.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum mp_login_result {
    MP_LOGIN_GOES_ON,    /* a request is in the output */
    MP_LOGIN_DONE,       /* full feature phase */
    MP_LOGIN_REDIRECTED, /* see `redirect` */
};

/* What the next response should answer. */
enum mp_login_state {
    MP_LOGIN_METHOD,       /* AuthMethod */
    MP_LOGIN_ALGORITHM,    /* CHAP_A */
    MP_LOGIN_PROOF,        /* CHAP_R */
    MP_LOGIN_SECURITY_END, /* the wish to leave the security stage */
    MP_LOGIN_OPERATIONAL,  /* our parameters */
};

/* Zero-initialise, set chap and isid. */
struct mp_login {
    const struct mp_chap *chap; /* NULL: none offered */
    uint8_t isid[6];

    uint32_t cmd_sn, exp_stat_sn; /* for the requests that follow the login */
    struct mp_target_address redirect;

    enum mp_login_state state;
    uint8_t stage;
    bool transit_asked;
    unsigned answers;
    uint32_t seen; /* keys that the target sent */
    size_t algorithm_count;
    int32_t algorithms[MANYPATH_CHAP_ALGORITHMS]; /* of those wanted, what this host can compute */
    int32_t algorithm;                            /* the target's choice */
    uint8_t target_proof[MP_CHAP_DIGEST_MAX];     /* mutual CHAP: what CHAP_R has to be */
    struct mp_bytes text;                         /* of the target, complete once C is clear */
    struct mp_bytes reply;                        /* for the next request */
};

enum { MP_LOGIN_DATA_MAX = 8192 }; /* section 13.12: the default, which a login cannot change */

/* Both append to `output` and return an enum mp_login_result, or a negative enum manypath_code. */
int mp_login_begin(struct mp_login *login, const char *initiator, struct mp_bytes *output,
                   struct manypath_error *err);
int mp_login_response(struct mp_login *login, const struct mp_iscsi_pdu *pdu,
                      struct mp_bytes *output, struct manypath_error *err);
void mp_login_free(struct mp_login *login); /* wipes it */

#endif
