/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile target for the discovery machine. First byte: which credentials, and whether the rest
 * is the raw stream or a script of PDUs that are framed well enough to get deep. Everything runs
 * twice, in whole PDUs and in fuzzed chunks, and has to end the same way.
 */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "../src/chap.h"
#include "../src/discovery.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    CREDENTIALS_MASK = 0x03, /* of the first byte: none, one-way, mutual, mutual with all */
    SCRIPTED = 0x04,
    CHUNKS_SHIFT = 3,

    PROOF = 6,       /* a kind of PDU: a Login Response with the right CHAP_R */
    OBEDIENT = 0x20, /* a reserved bit of its flags: stages and T as the request asked */
    LONG = 0x80,     /* of the kind: two bytes of length */
};

static const char password[] = "TopSecret-12345", password_in[] = "target-secret-99";

/* What an attacker cannot know has to be the same each time. */
int mp_chap_random(void *ret_bytes, size_t length)
{
    memset(ret_bytes, 0xc7, length);
    return 0;
}

struct input {
    const uint8_t *data;
    size_t size;
};

static uint8_t next(struct input *input)
{
    if (input->size == 0)
        return 0;
    input->size--;
    return *input->data++;
}

struct target {
    struct mp_discovery *machine;
    unsigned chunk_seed; /* 0: whole */
    uint8_t last[48];    /* header of the machine's last request */
    bool proved, mutual;
};

static uint32_t load(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

/* Every request is well formed, and none but those of a login goes to an unproven target. */
static void read_requests(struct target *target)
{
    const uint8_t *bytes;
    size_t count;

    while ((count = mp_discovery_output(target->machine, &bytes)) > 0) {
        assert(count >= sizeof target->last);
        memcpy(target->last, bytes, sizeof target->last);
        uint8_t opcode = target->last[0] & 0x3f;
        size_t length = (load(target->last + 4) + 3) / 4 * 4;

        assert(opcode == 0x00 || opcode == 0x03 || opcode == 0x04 || opcode == 0x06);
        assert(length <= 8192 && count >= sizeof target->last + length);
        if (target->mutual && (opcode != 0x03 || (target->last[1] & 0x0c) != 0))
            assert(target->proved);
        mp_discovery_sent(target->machine, sizeof target->last + length);
    }
}

static void give(struct target *target, const uint8_t *bytes, size_t count)
{
    unsigned state = target->chunk_seed;

    for (size_t at = 0; at < count;) {
        size_t part = count - at;

        if (target->chunk_seed != 0) {
            state = state * 1103515245u + 12345u;
            size_t limit = state >> 16 & ((state >> 24 & 1) != 0 ? 3 : 63);

            part = part < limit + 1 ? part : limit + 1;
        }
        mp_discovery_input(target->machine, bytes + at, part);
        at += part;
    }
    read_requests(target);
}

/* What a target that knows the secret answers to our challenge. */
static size_t prove(uint8_t algorithm, char *text, size_t size)
{
    uint8_t challenge[MP_CHAP_DIGEST_MAX], response[MP_CHAP_DIGEST_MAX];
    size_t length = mp_chap_digest_size(algorithm);
    size_t used = (size_t)snprintf(text, size, "CHAP_N=target%cCHAP_R=0x", 0);

    mp_chap_random(challenge, sizeof challenge);
    assert(mp_chap_response(algorithm, 0xc7, (const uint8_t *)password_in, strlen(password_in),
                            challenge, length, response) == 0);
    for (size_t i = 0; i < length; i++)
        used += (size_t)snprintf(text + used, size - used, "%02x", response[i]);
    return used + 1;
}

/* <kind> <flags> <byte 36> <byte 37 and 2> <length> <text> */
static void give_pdu(struct target *target, struct input *input)
{
    static const uint8_t opcodes[8] = {0x23, 0x24, 0x20, 0x32, 0x3f, 0x26, 0x23 /* PROOF */, 0x3e};
    static uint8_t pdu[48 + 65536 + 4];
    uint8_t kind = next(input), flags = next(input);
    bool login = opcodes[kind & 7] == 0x23;
    size_t length;

    memset(pdu, 0, 48);
    pdu[0] = opcodes[kind & 7];
    pdu[1] = flags;
    pdu[36] = next(input);
    pdu[37] = pdu[2] = next(input);
    length = next(input);
    if ((kind & LONG) != 0)
        length = length << 8 | next(input);
    if (length > input->size)
        length = input->size;
    if (login && (flags & OBEDIENT) != 0) {
        pdu[1] = target->last[1];
        pdu[36] = 0;
    }
    memcpy(pdu + 8, target->last + 8, 8);
    memcpy(pdu + 16, target->last + 16, 4);
    if (pdu[0] == 0x20 || pdu[0] == 0x32 || pdu[0] == 0x3f)
        memset(pdu + 16, 0xff, 4);
    memset(pdu + 20, (flags & 1) != 0 ? 0xff : 0x11, 4);
    if ((kind & 7) == PROOF) {
        length = prove((uint8_t)(5 + (kind >> 3 & 3)), (char *)pdu + 48, 256);
        target->proved = true;
    } else if (length > 0) {
        memcpy(pdu + 48, input->data, length);
        input->data += length;
        input->size -= length;
    }
    pdu[5] = (uint8_t)(length >> 16);
    pdu[6] = (uint8_t)(length >> 8);
    pdu[7] = (uint8_t)length;
    memset(pdu + 48 + length, 'P', 3);
    give(target, pdu, 48 + (length + 3) / 4 * 4);
}

static bool is_over(const struct mp_discovery *machine)
{
    enum mp_discovery_status status = mp_discovery_status(machine);

    return status != MP_DISCOVERY_BUSY && status != MP_DISCOVERY_LISTED;
}

static void check_error(const struct manypath_error *error)
{
    assert(error->code == MANYPATH_E_AUTH || error->code == MANYPATH_E_LOGIN_REJECTED ||
           error->code == MANYPATH_E_LOGIN || error->code == MANYPATH_E_PROTOCOL);
    assert(error->phase == MANYPATH_PHASE_DISCOVERY);
    for (const char *at = error->message; *at != '\0'; at++)
        assert(*at >= ' ' && *at <= '~');
    assert(strstr(error->message, password) == NULL && strstr(error->message, password_in) == NULL);
}

static void check_end(const struct mp_discovery *machine)
{
    uint16_t port;
    size_t count;
    const struct manypath_discovered *target = mp_discovery_targets(machine, &count);

    for (size_t i = 0; i < count; i++)
        assert(target[i].iqn[0] != '\0' &&
               memchr(target[i].host, '\0', sizeof target[i].host) != NULL);
    if (mp_discovery_status(machine) == MP_DISCOVERY_FAILED)
        check_error(mp_discovery_error(machine));
    if (mp_discovery_status(machine) == MP_DISCOVERY_REDIRECTED)
        assert(mp_discovery_redirect(machine, &port)[0] != '\0' && port != 0);
}

static struct mp_discovery *run(struct input input, const struct mp_chap *chap, bool scripted,
                                unsigned chunk_seed)
{
    struct target target = {
        .machine = mp_discovery_new(&(struct mp_discovery_options){
            .initiator = "iqn.2005-03.org.open-iscsi:fuzz", .chap = chap, .isid_qualifier = 1}),
        .chunk_seed = chunk_seed,
        .mutual = chap != NULL && chap->username_in[0] != '\0',
    };

    assert(target.machine != NULL);
    read_requests(&target);
    if (scripted)
        while (input.size > 0 && !is_over(target.machine))
            give_pdu(&target, &input);
    else
        give(&target, input.data, input.size);
    mp_discovery_closed(target.machine);
    check_end(target.machine);
    return target.machine;
}

static struct mp_chap *credentials(unsigned which)
{
    struct manypath_chap chap = {
        .username = "initiator",
        .password = password,
        .password_length = sizeof password - 1,
    };
    struct mp_chap *made = NULL;

    if (which == 0)
        return NULL;
    if (which >= 2) {
        chap.username_in = "target";
        chap.password_in = password_in;
        chap.password_in_length = sizeof password_in - 1;
    }
    for (int i = 0; which == 3 && i < MANYPATH_CHAP_ALGORITHMS; i++)
        chap.algorithms[i] = MANYPATH_CHAP_MD5 + i;
    assert(mp_chap_new(&chap, &made, NULL) == 0);
    return made;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    uint8_t first = next(&input);
    bool scripted = (first & SCRIPTED) != 0;
    struct mp_chap *chap = credentials(first & CREDENTIALS_MASK);
    struct mp_discovery *whole = run(input, chap, scripted, 0);
    struct mp_discovery *chunked = run(input, chap, scripted, 1u + (first >> CHUNKS_SHIFT));
    size_t count, chunked_count;

    mp_discovery_targets(whole, &count);
    mp_discovery_targets(chunked, &chunked_count);
    assert(mp_discovery_status(whole) == mp_discovery_status(chunked));
    assert(count == chunked_count);
    assert(strcmp(mp_discovery_error(whole)->message, mp_discovery_error(chunked)->message) == 0);
    mp_discovery_free(whole);
    mp_discovery_free(chunked);
    mp_chap_release(chap);
    return 0;
}
