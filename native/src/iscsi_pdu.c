/* SPDX-License-Identifier: Apache-2.0 */
#include "iscsi_pdu.h"

#include <errno.h>
#include <string.h>

enum {
    OPCODE_MASK = 0x3f,
    IMMEDIATE = 0x40,
    WORD = 4, /* segments are padded to it, section 11.1; AHS lengths count it, section 11.2.1.5 */
};

static uint32_t load(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static void store(uint8_t *bytes, uint32_t value)
{
    bytes[0] = (uint8_t)(value >> 24);
    bytes[1] = (uint8_t)(value >> 16);
    bytes[2] = (uint8_t)(value >> 8);
    bytes[3] = (uint8_t)value;
}

static size_t padded(size_t length)
{
    return (length + WORD - 1) / WORD * WORD;
}

int mp_iscsi_append(struct mp_bytes *output, const struct mp_iscsi_request *request, size_t limit)
{
    static const uint8_t padding[WORD];
    uint8_t bhs[MP_ISCSI_BHS_SIZE] = {0};
    size_t before = output->length;
    int result;

    bhs[0] = (uint8_t)(request->opcode | (request->immediate ? IMMEDIATE : 0));
    bhs[1] = request->flags;
    if (request->length > 0xffffff) /* 24 bits, section 11.2.1.6 */
        return -EMSGSIZE;
    store(bhs + 4, (uint32_t)request->length); /* no AHS */
    memcpy(bhs + 8, request->lun, sizeof request->lun);
    store(bhs + 16, request->itt);
    store(bhs + 20, request->ttt);
    store(bhs + 24, request->cmd_sn);
    store(bhs + 28, request->exp_stat_sn);
    if ((result = mp_bytes_append(output, bhs, sizeof bhs, limit)) < 0 ||
        (result = mp_bytes_append(output, request->data, request->length, limit)) < 0 ||
        (result = mp_bytes_append(output, padding, padded(request->length) - request->length,
                                  limit)) < 0)
        output->length = before;
    return result;
}

void mp_iscsi_decode(const uint8_t bhs[MP_ISCSI_BHS_SIZE], struct mp_iscsi_pdu *ret_pdu)
{
    *ret_pdu = (struct mp_iscsi_pdu){
        .opcode = bhs[0] & OPCODE_MASK,
        .final = (bhs[1] & MP_ISCSI_FINAL) != 0,
        .more = (bhs[1] & MP_ISCSI_MORE) != 0,
        .csg = bhs[1] >> 2 & 3,
        .nsg = bhs[1] & 3,
        .reason = bhs[2],
        .version_active = bhs[3],
        .itt = load(bhs + 16),
        .ttt = load(bhs + 20),
        .stat_sn = load(bhs + 24),
        .status_class = bhs[36],
        .status_detail = bhs[37],
        .event = bhs[36],
    };
    memcpy(ret_pdu->isid, bhs + 8, sizeof ret_pdu->isid);
    memcpy(ret_pdu->lun, bhs + 8, sizeof ret_pdu->lun);
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static int measure(struct mp_iscsi_reader *reader)
{
    size_t length = load(reader->bhs + 4) & 0xffffff; /* sections 11.2.1.5 and 11.2.1.6 */

    if (length > reader->data_max)
        return -EMSGSIZE;
    reader->data_begin = MP_ISCSI_BHS_SIZE + (size_t)reader->bhs[4] * WORD;
    reader->data_end = reader->data_begin + length;
    reader->end = reader->data_begin + padded(length);
    return 0;
}

static size_t part_end(const struct mp_iscsi_reader *reader)
{
    if (reader->have < MP_ISCSI_BHS_SIZE)
        return MP_ISCSI_BHS_SIZE;
    if (reader->have < reader->data_begin)
        return reader->data_begin;
    if (reader->have < reader->data_end)
        return reader->data_end;
    return reader->end;
}

int mp_iscsi_read(struct mp_iscsi_reader *reader, const uint8_t **bytes, size_t *count,
                  struct mp_iscsi_pdu *ret_pdu)
{
    if (reader->have >= MP_ISCSI_BHS_SIZE && reader->have == reader->end) {
        reader->have = 0;
        mp_bytes_clear(&reader->data);
    }
    while (reader->have < MP_ISCSI_BHS_SIZE || reader->have < reader->end) {
        bool in_header = reader->have < MP_ISCSI_BHS_SIZE;
        bool in_data = reader->have >= reader->data_begin && reader->have < reader->data_end;
        size_t taken = smaller(part_end(reader) - reader->have, *count);
        int result = 0;

        if (taken == 0)
            return 0;
        if (in_header)
            memcpy(reader->bhs + reader->have, *bytes, taken);
        else if (in_data)
            result = mp_bytes_append(&reader->data, *bytes, taken, reader->data_max);
        reader->have += taken;
        *bytes += taken;
        *count -= taken;
        if (in_header && reader->have == MP_ISCSI_BHS_SIZE)
            result = measure(reader);
        if (result < 0)
            return result;
    }
    mp_iscsi_decode(reader->bhs, ret_pdu);
    ret_pdu->data = reader->data.data;
    ret_pdu->length = reader->data.length;
    return 1;
}

void mp_iscsi_reader_free(struct mp_iscsi_reader *reader)
{
    mp_bytes_free(&reader->data);
}
