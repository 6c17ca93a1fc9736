/* SPDX-License-Identifier: Apache-2.0 */
/*
 * iSCSI PDUs (RFC 7143 section 11): the requests that a discovery session sends, and a reader of
 * what it is sent. No descriptors, no globals. No digests: we never negotiate them.
 */
#ifndef MP_ISCSI_PDU_H
#define MP_ISCSI_PDU_H

#include "bytes.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* RFC 7143 section 11.2.1.2. */
enum mp_iscsi_opcode {
    MP_ISCSI_NOP_OUT = 0x00,
    MP_ISCSI_LOGIN_REQUEST = 0x03,
    MP_ISCSI_TEXT_REQUEST = 0x04,
    MP_ISCSI_LOGOUT_REQUEST = 0x06,
    MP_ISCSI_NOP_IN = 0x20,
    MP_ISCSI_LOGIN_RESPONSE = 0x23,
    MP_ISCSI_TEXT_RESPONSE = 0x24,
    MP_ISCSI_LOGOUT_RESPONSE = 0x26,
    MP_ISCSI_ASYNC_MESSAGE = 0x32,
    MP_ISCSI_REJECT = 0x3f,
};

enum {
    MP_ISCSI_BHS_SIZE = 48, /* section 11.2.1 */
    MP_ISCSI_FINAL = 0x80,  /* F, and T of a login: sections 11.10.1 and 11.12.1 */
    MP_ISCSI_MORE = 0x40,   /* C: sections 11.10.2 and 11.12.2 */
};

#define MP_ISCSI_NO_TAG 0xffffffffu /* the reserved task tag */

/* The fields of our four requests lie at the same places. What is not here is reserved, or 0 for a
 * session's only connection (CID), a new session (TSIH) and the only version there is. */
struct mp_iscsi_request {
    uint8_t opcode;
    bool immediate;
    uint8_t flags;  /* byte 1 */
    uint8_t lun[8]; /* ISID and TSIH in a Login Request */
    uint32_t itt;
    uint32_t ttt; /* 0 in Login and Logout Requests: the CID lies there */
    uint32_t cmd_sn;
    uint32_t exp_stat_sn;
    const uint8_t *data;
    size_t length;
};

/* Errors as mp_bytes_append(). */
int mp_iscsi_append(struct mp_bytes *output, const struct mp_iscsi_request *request, size_t limit);

struct mp_iscsi_pdu {
    uint8_t opcode;
    bool final;       /* F, or T of a Login Response */
    bool more;        /* C */
    uint8_t csg, nsg; /* Login Response, as the next four */
    uint8_t version_active;
    uint8_t status_class, status_detail;
    uint8_t isid[6];
    uint8_t reason; /* Reject; the response of a Logout Response */
    uint8_t event;  /* Asynchronous Message */
    uint8_t lun[8]; /* NOP-In */
    uint32_t itt;
    uint32_t ttt; /* Text Response, NOP-In */
    uint32_t stat_sn;
    const uint8_t *data; /* without padding */
    size_t length;
};

void mp_iscsi_decode(const uint8_t bhs[MP_ISCSI_BHS_SIZE], struct mp_iscsi_pdu *ret_pdu);

/* Zero-initialise, and set data_max to the MaxRecvDataSegmentLength in force. */
struct mp_iscsi_reader {
    size_t data_max;
    uint8_t bhs[MP_ISCSI_BHS_SIZE];
    struct mp_bytes data;
    size_t have; /* bytes of the PDU so far */
    size_t data_begin, data_end, end;
};

/*
 * Takes bytes up to the end of one PDU and moves *bytes and *count behind them. 1: *ret_pdu is
 * complete, its data valid until the next call. 0: more bytes wanted. -EMSGSIZE: the data segment
 * is longer than data_max; -ENOMEM. After an error the reader is of no use. Additional header
 * segments are skipped, and padding is whatever it likes (section 11.1 only says that it should be
 * zero).
 */
int mp_iscsi_read(struct mp_iscsi_reader *reader, const uint8_t **bytes, size_t *count,
                  struct mp_iscsi_pdu *ret_pdu);
void mp_iscsi_reader_free(struct mp_iscsi_reader *reader);

#endif
