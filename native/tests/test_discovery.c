/* SPDX-License-Identifier: Apache-2.0 */
/* The discovery machine against a scripted target. */
#include "../src/discovery.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>

#include "../src/chap.h"
#include "test.h"

enum {
    LOGIN_REQUEST = 0x43, /* with the immediate bit */
    TEXT_REQUEST = 0x04,
    LOGOUT_REQUEST = 0x46,
    NOP_OUT = 0x40,
    LOGIN_RESPONSE = 0x23,
    TEXT_RESPONSE = 0x24,
    LOGOUT_RESPONSE = 0x26,
    NOP_IN = 0x20,
    ASYNC_MESSAGE = 0x32,
    REJECT = 0x3f,
    F = 0x80, /* and T */
    C = 0x40,
    NO_TAG = -1,
};

static struct mp_discovery *machine;
static size_t step; /* bytes given at once, 0: all */
static uint32_t stat_sn;

/* Foreseeable: the CHAP_I and CHAP_C that the target gets are 0xc0, 0xc1, 0xc2 ... */
static int random_result;
static uint8_t random_first = 0xc0;

int mp_chap_random(void *ret_bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        ((uint8_t *)ret_bytes)[i] = (uint8_t)(random_first + i);
    return random_result;
}

/* ---- the target ---- */

/* A request of the machine, as it was on the wire. */
struct request {
    uint8_t bhs[48];
    char text[9000];
    size_t length;
};

static uint32_t load(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

/* Takes the next request out, or returns false. */
static bool take(struct request *ret)
{
    const uint8_t *bytes;
    size_t count = mp_discovery_output(machine, &bytes);

    memset(ret, 0, sizeof *ret);
    if (count < 48)
        return false;
    memcpy(ret->bhs, bytes, 48);
    ret->length = load(bytes + 4);
    size_t whole = 48 + (ret->length + 3) / 4 * 4;

    if (whole > count || ret->length >= sizeof ret->text)
        return false;
    memcpy(ret->text, bytes + 48, ret->length);
    for (size_t i = 48 + ret->length; i < whole; i++)
        CHECK_EQ(bytes[i], 0);
    for (size_t at = 0; at < whole; at += at < 40 ? 40 : whole - at)
        mp_discovery_sent(machine, at < 40 ? 40 : whole - at); /* in two parts */
    return true;
}

static bool silent(void)
{
    const uint8_t *bytes;

    return mp_discovery_output(machine, &bytes) == 0;
}

/* The value of a key in a request, or "-". */
static const char *value(const struct request *request, const char *key)
{
    size_t length = strlen(key);

    for (size_t at = 0; at < request->length; at += strlen(request->text + at) + 1)
        if (strncmp(request->text + at, key, length) == 0 && request->text[at + length] == '=')
            return request->text + at + length + 1;
    return "-";
}

static size_t count_keys(const struct request *request)
{
    size_t count = 0;

    for (size_t at = 0; at < request->length; at++)
        count += request->text[at] == '\0';
    return count;
}

struct answer {
    uint8_t opcode, flags;
    uint8_t second, third; /* bytes 2 and 3 */
    uint8_t class, detail; /* bytes 36 and 37 */
    uint8_t ahs;           /* words */
    uint8_t isid;          /* makes its first byte another one */
    int64_t itt, ttt;
    const char *text;
    size_t length;
};

static enum mp_discovery_status give_bytes(const uint8_t *bytes, size_t count)
{
    for (size_t at = 0; at < count;) {
        size_t part = step != 0 && step < count - at ? step : count - at;

        mp_discovery_input(machine, bytes + at, part);
        at += part;
    }
    return mp_discovery_status(machine);
}

static enum mp_discovery_status give(struct answer answer)
{
    size_t whole = 48 + answer.ahs * 4u + (answer.length + 3) / 4 * 4;
    uint8_t *pdu = malloc(whole);
    const uint32_t itt = (uint32_t)answer.itt, ttt = (uint32_t)answer.ttt;

    memset(pdu, 0, 48);
    memset(pdu + 48, 'P', whole - 48); /* padding of a careless target */
    pdu[0] = answer.opcode;
    pdu[1] = answer.flags;
    pdu[2] = answer.second;
    pdu[3] = answer.third;
    pdu[4] = answer.ahs;
    pdu[5] = (uint8_t)(answer.length >> 16);
    pdu[6] = (uint8_t)(answer.length >> 8);
    pdu[7] = (uint8_t)answer.length;
    if (answer.opcode == LOGIN_RESPONSE)
        memcpy(pdu + 8, "\x80\x12\x34\x56\0\0\0\7", 8);
    else
        memcpy(pdu + 8, "LUNLUNLU", 8);
    pdu[8] = (uint8_t)(pdu[8] + answer.isid);
    for (int i = 0; i < 4; i++) {
        pdu[16 + i] = (uint8_t)(itt >> (24 - 8 * i));
        pdu[20 + i] = (uint8_t)(ttt >> (24 - 8 * i));
        pdu[24 + i] = (uint8_t)(stat_sn >> (24 - 8 * i));
    }
    stat_sn++;
    pdu[36] = answer.class;
    pdu[37] = answer.detail;
    if (answer.length > 0)
        memcpy(pdu + 48 + answer.ahs * 4u, answer.text, answer.length);
    enum mp_discovery_status status = give_bytes(pdu, whole);

    free(pdu);
    return status;
}

/* A string literal with its pairs terminated. */
#define TEXT(literal) .text = literal, .length = sizeof literal - 1
/* Bits of byte 1: stages of a login. */
#define STAGES(csg, nsg) ((csg) << 2 | (nsg))
#define LOGIN(bits, literal)                                                                       \
    give((struct answer){                                                                          \
        .opcode = LOGIN_RESPONSE, .flags = (uint8_t)(bits), .itt = 1, TEXT(literal)})
#define LISTING(bits, tag, literal)                                                                \
    give((struct answer){                                                                          \
        .opcode = TEXT_RESPONSE, .flags = (uint8_t)(bits), .itt = 2, .ttt = tag, TEXT(literal)})

static enum mp_discovery_status refuse(unsigned status)
{
    return give((struct answer){.opcode = LOGIN_RESPONSE,
                                .itt = 1,
                                .class = (uint8_t)(status >> 8),
                                .detail = (uint8_t)status});
}

/* ---- the initiator ---- */

static struct manypath_chap wanted;
static struct mp_chap *chap;

static void finish(void)
{
    mp_discovery_free(machine);
    machine = NULL;
    mp_chap_release(chap);
    chap = NULL;
}

static void start(const struct manypath_chap *credentials)
{
    struct manypath_error err;

    finish();
    if (mp_chap_new(credentials, &chap, &err) < 0)
        TEST_FAIL("%s", err.message);
    machine = mp_discovery_new(&(struct mp_discovery_options){
        .initiator = "iqn.2005-03.org.open-iscsi:host", .chap = chap, .isid_qualifier = 0x123456});
    stat_sn = 0xfffffffe; /* wraps */
    random_result = 0;
    random_first = 0xc0;
}

static const struct manypath_chap *one_way(int32_t algorithm)
{
    wanted = (struct manypath_chap){
        .username = "user name",
        .password = "TopSecret-12345",
        .password_length = 15,
        .algorithms = {algorithm},
    };
    return &wanted;
}

static const struct manypath_chap *mutual(int32_t algorithm)
{
    one_way(algorithm);
    wanted.username_in = "target name";
    wanted.password_in = "target-secret-99";
    wanted.password_in_length = 16;
    return &wanted;
}

/* The machine failed with this code, and its message has this in it. No message shows what an
 * eavesdropper could use. */
static bool failed(int code, const char *part)
{
    const struct manypath_error *error = mp_discovery_error(machine);

    if (mp_discovery_status(machine) != MP_DISCOVERY_FAILED || error->code != code ||
        error->phase != MANYPATH_PHASE_DISCOVERY || strstr(error->message, part) == NULL) {
        printf("status %d, %s: %s\n", (int)mp_discovery_status(machine),
               manypath_code_name(error->code), error->message);
        return false;
    }
    CHECK(strstr(error->message, "TopSecret") == NULL);
    CHECK(strstr(error->message, "target-secret") == NULL);
    CHECK(strstr(error->message, "0x") == NULL);
    return true;
}

static bool broken(const char *part)
{
    return failed(MANYPATH_E_PROTOCOL, part);
}

/* "iqn host port tag" lines. */
static const char *targets(void)
{
    static char shown[4096];
    size_t count, used = 0;
    const struct manypath_discovered *target = mp_discovery_targets(machine, &count);

    shown[0] = '\0';
    for (size_t i = 0; i < count; i++, target++)
        used += (size_t)snprintf(shown + used, sizeof shown - used, "%s %s %u %d\n", target->iqn,
                                 target->host, target->port, target->tag);
    return shown;
}

/* Without CHAP, to the question for the list. */
static void to_list(void)
{
    struct request request;

    start(NULL);
    CHECK(take(&request));
    LOGIN(F | STAGES(1, 3), "");
    CHECK(take(&request));
    CHECK_STR(request.text, "SendTargets=All");
}

/* With CHAP, to the first answer of the target. */
static void to_method(const struct manypath_chap *credentials)
{
    struct request request;

    start(credentials);
    CHECK(take(&request));
}

/* To the response, which is taken out. */
static void to_proof(const struct manypath_chap *credentials, struct request *ret)
{
    static char text[128];

    to_method(credentials);
    LOGIN(STAGES(0, 0), "AuthMethod=CHAP\0TargetPortalGroupTag=1\0");
    CHECK(take(ret));
    size_t length = (size_t)snprintf(text, sizeof text,
                                     "CHAP_A=%d%cCHAP_I=39%cCHAP_C="
                                     "0x000102030405060708090A0B0C0D0E0F%c",
                                     chap->algorithms[0], 0, 0, 0);

    give((struct answer){.opcode = LOGIN_RESPONSE, .itt = 1, .text = text, .length = length});
    CHECK(take(ret));
}

/* ---- tests ---- */

TEST(whole_session)
{
    struct request request;
    size_t count;

    start(NULL);
    CHECK_EQ(mp_discovery_status(machine), MP_DISCOVERY_BUSY);
    CHECK(take(&request));
    CHECK_EQ(request.bhs[0], LOGIN_REQUEST);
    CHECK_EQ(request.bhs[1], F | STAGES(1, 3));
    CHECK_EQ(load(request.bhs) & 0xffff, 0); /* versions */
    CHECK(memcmp(request.bhs + 8, "\x80\x12\x34\x56\0\0\0\0", 8) == 0);
    CHECK_EQ(load(request.bhs + 16), 1);
    CHECK_EQ(load(request.bhs + 20), 0);
    CHECK_EQ(load(request.bhs + 24), 1);
    CHECK_EQ(load(request.bhs + 28), 0);
    CHECK_STR(value(&request, "InitiatorName"), "iqn.2005-03.org.open-iscsi:host");
    CHECK_STR(value(&request, "SessionType"), "Discovery");
    CHECK_STR(value(&request, "HeaderDigest"), "None");
    CHECK_STR(value(&request, "DataDigest"), "None");
    CHECK_STR(value(&request, "DefaultTime2Wait"), "2");
    CHECK_STR(value(&request, "DefaultTime2Retain"), "0");
    CHECK_STR(value(&request, "ErrorRecoveryLevel"), "0");
    CHECK_STR(value(&request, "MaxRecvDataSegmentLength"), "32768");
    CHECK_EQ(count_keys(&request), 8);
    CHECK(silent());

    CHECK_EQ(LOGIN(F | STAGES(1, 3), "TargetPortalGroupTag=1\0HeaderDigest=None\0DataDigest=None\0"
                                     "DefaultTime2Wait=2\0DefaultTime2Retain=0\0"
                                     "ErrorRecoveryLevel=0\0MaxRecvDataSegmentLength=8192\0"),
             MP_DISCOVERY_BUSY);
    CHECK(take(&request));
    CHECK_EQ(request.bhs[0], TEXT_REQUEST);
    CHECK_EQ(request.bhs[1], F);
    CHECK_EQ(load(request.bhs + 16), 2);
    CHECK_EQ(load(request.bhs + 20), 0xffffffff);
    CHECK_EQ(load(request.bhs + 24), 1); /* the login, immediate, took no number */
    CHECK_EQ(load(request.bhs + 28), 0xffffffff);
    CHECK_EQ(request.length, 16);
    CHECK_STR(request.text, "SendTargets=All");

    CHECK_EQ(LISTING(F, NO_TAG,
                     "TargetName=iqn.a\0TargetAddress=10.0.0.1:3260,1\0"
                     "TargetAddress=[fd00::1]:3260,2\0TargetName=iqn.b\0"
                     "TargetAddress=what?\0TargetAddress=array.example,3\0"),
             MP_DISCOVERY_LISTED);
    CHECK_STR(targets(), "iqn.a 10.0.0.1 3260 1\niqn.a fd00::1 3260 2\n"
                         "iqn.b array.example 3260 3\n");
    CHECK_EQ(mp_discovery_skipped(machine), 1);
    CHECK(take(&request));
    CHECK_EQ(request.bhs[0], LOGOUT_REQUEST);
    CHECK_EQ(request.bhs[1], F);
    CHECK_EQ(load(request.bhs + 16), 3);
    CHECK_EQ(load(request.bhs + 20), 0);
    CHECK_EQ(load(request.bhs + 24), 2);
    CHECK_EQ(load(request.bhs + 28), 0);
    CHECK_EQ(request.length, 0);

    CHECK_EQ(give((struct answer){.opcode = LOGOUT_RESPONSE, .flags = F, .itt = 3}),
             MP_DISCOVERY_OVER);
    CHECK(silent());
    mp_discovery_targets(machine, &count);
    CHECK_EQ(count, 3);
    LISTING(F, NO_TAG, "TargetName=iqn.late\0"); /* ignored */
    CHECK_EQ(mp_discovery_status(machine), MP_DISCOVERY_OVER);
}

TEST(empty_list)
{
    to_list();
    CHECK_EQ(LISTING(F, NO_TAG, ""), MP_DISCOVERY_LISTED);
    CHECK_STR(targets(), "");
}

/* Two PDUs in one segment, and a byte of the third. */
TEST(pipelined)
{
    uint8_t bytes[97] = {0};

    to_list();
    bytes[0] = NOP_IN;
    memset(bytes + 16, 0xff, 8);
    bytes[48] = NOP_IN;
    memset(bytes + 48 + 16, 0xff, 8);
    bytes[96] = TEXT_RESPONSE;
    CHECK_EQ(give_bytes(bytes, sizeof bytes), MP_DISCOVERY_BUSY);
    bytes[1] = F; /* the rest */
    bytes[16] = bytes[17] = bytes[18] = 0;
    bytes[19] = 2;
    CHECK_EQ(give_bytes(bytes + 1, 47), MP_DISCOVERY_LISTED);
}

static const struct {
    int32_t algorithm;
    const char *offer, *own, *target, *challenge;
} proofs[] = {
    /* Python's hashlib.new(name, bytes([0x27]) + b"TopSecret-12345" + bytes(range(16))), and
     * bytes([0xc0]) + b"target-secret-99" + challenge */
    {MANYPATH_CHAP_MD5, "5", "0xd4a0025e509883e14d0287a5dd493fef",
     "0x037f0d8ccf6f578663b8e518f6eab9ee", "0xc1c2c3c4c5c6c7c8c9cacbcccdcecfd0"},
    {MANYPATH_CHAP_SHA1, "6", "0x1d6356b517e5901320c15b7c62a374d37335d964",
     "0x6894eeae600b04513852aa1b61854ea510f1bd6c", "0xc1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4"},
    {MANYPATH_CHAP_SHA256, "7",
     "0x2e6335fa1fa8e58c9d4e9822de136897d94785dc660b638e94f19446a95264ef",
     "0x8a02a9d9c7b83c39590b7fc5b5efaa0f9b0d19c4614aeced8fc86146ea12a0c9",
     "0xc1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0"},
    {MANYPATH_CHAP_SHA3_256, "8",
     "0x29bea890edab7bf66c78a87a4d230607f21f24a661242ae004b43cc8c3d6d202",
     "0x9d03f508dd07cb77929ac8038e2a793a36598708a1b17d1684ba194dbb9140d1",
     "0xc1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0"},
};

enum { PROOFS = sizeof proofs / sizeof proofs[0] };

/* The target's CHAP_N and CHAP_R. */
static enum mp_discovery_status prove(uint8_t bits, const char *name, const char *response)
{
    char text[256];
    size_t length =
        (size_t)snprintf(text, sizeof text, "CHAP_N=%s%cCHAP_R=%s%c", name, 0, response, 0);

    return give((struct answer){
        .opcode = LOGIN_RESPONSE, .flags = bits, .itt = 1, .text = text, .length = length});
}

TEST(chap_one_way)
{
    for (size_t i = 0; i < PROOFS; i++) {
        struct request request;

        start(one_way(proofs[i].algorithm));
        CHECK(take(&request));
        CHECK_EQ(request.bhs[0], LOGIN_REQUEST);
        CHECK_EQ(request.bhs[1], STAGES(0, 0));
        CHECK_STR(value(&request, "AuthMethod"), "CHAP,None");
        CHECK_STR(value(&request, "InitiatorName"), "iqn.2005-03.org.open-iscsi:host");
        CHECK_STR(value(&request, "SessionType"), "Discovery");
        CHECK_EQ(count_keys(&request), 3);
        LOGIN(STAGES(0, 0), "TargetPortalGroupTag=1\0AuthMethod=CHAP\0");
        CHECK(take(&request));
        CHECK_EQ(request.bhs[1], STAGES(0, 0));
        CHECK_EQ(load(request.bhs + 24), 1);
        CHECK_EQ(load(request.bhs + 28), 0xffffffff);
        CHECK_STR(value(&request, "CHAP_A"), proofs[i].offer);
        CHECK_EQ(count_keys(&request), 1);

        to_proof(one_way(proofs[i].algorithm), &request);
        CHECK_EQ(request.bhs[1], F | STAGES(0, 1));
        CHECK_STR(value(&request, "CHAP_N"), "user name");
        CHECK_STR(value(&request, "CHAP_R"), proofs[i].own);
        CHECK_EQ(count_keys(&request), 2);
        LOGIN(F | STAGES(0, 1), "");
        CHECK(take(&request));
        CHECK_EQ(request.bhs[1], F | STAGES(1, 3));
        CHECK_STR(value(&request, "MaxRecvDataSegmentLength"), "32768");
        CHECK_STR(value(&request, "InitiatorName"), "-");
        CHECK_EQ(count_keys(&request), 6);
        LOGIN(F | STAGES(1, 3), "");
        CHECK(take(&request));
        CHECK_STR(request.text, "SendTargets=All");
        CHECK_EQ(load(request.bhs + 24), 1);
    }
}

TEST(chap_mutual)
{
    for (size_t i = 0; i < PROOFS; i++) {
        struct request request;

        start(mutual(proofs[i].algorithm));
        CHECK(take(&request));
        CHECK_STR(value(&request, "AuthMethod"), "CHAP");
        to_proof(mutual(proofs[i].algorithm), &request);
        CHECK_STR(value(&request, "CHAP_R"), proofs[i].own);
        CHECK_STR(value(&request, "CHAP_I"), "192");
        CHECK_STR(value(&request, "CHAP_C"), proofs[i].challenge);
        CHECK_EQ(prove(F | STAGES(0, 1), "target name", proofs[i].target), MP_DISCOVERY_BUSY);
        CHECK(take(&request));
        CHECK_EQ(request.bhs[1], F | STAGES(1, 3));

        /* one way after the other: the proof first, then the next stage */
        to_proof(mutual(proofs[i].algorithm), &request);
        CHECK_EQ(prove(STAGES(0, 0), "target name", proofs[i].target), MP_DISCOVERY_BUSY);
        CHECK(take(&request));
        CHECK_EQ(request.bhs[1], F | STAGES(0, 1));
        CHECK_EQ(request.length, 0);
        LOGIN(F | STAGES(0, 1), "");
        CHECK(take(&request));
        CHECK_EQ(request.bhs[1], F | STAGES(1, 3));
    }
}

TEST(chap_wrong_target)
{
    char response[80];

    for (size_t i = 0; i < PROOFS; i++) {
        const char *right = proofs[i].target;
        struct request request;

        to_proof(mutual(proofs[i].algorithm), &request);
        prove(F | STAGES(0, 1), "target nam", right);
        CHECK(failed(MANYPATH_E_AUTH, "not who it should be"));
        to_proof(mutual(proofs[i].algorithm), &request);
        snprintf(response, sizeof response, "%s", right);
        response[strlen(right) - 1] ^= 1;
        prove(F | STAGES(0, 1), "target name", response);
        CHECK(failed(MANYPATH_E_AUTH, "not who it should be"));
        to_proof(mutual(proofs[i].algorithm), &request);
        snprintf(response, sizeof response, "%s", right);
        response[strlen(right) - 2] = '\0'; /* a byte less */
        prove(F | STAGES(0, 1), "target name", response);
        CHECK(failed(MANYPATH_E_AUTH, "not who it should be"));
        to_proof(mutual(proofs[i].algorithm), &request);
        snprintf(response, sizeof response, "%s00", right); /* a byte more */
        prove(F | STAGES(0, 1), "target name", response);
        CHECK(failed(MANYPATH_E_AUTH, "not who it should be"));
        to_proof(mutual(proofs[i].algorithm), &request);
        prove(F | STAGES(0, 1), "target name", proofs[i].own); /* ours, sent back */
        CHECK(failed(MANYPATH_E_AUTH, "not who it should be"));
        to_proof(mutual(proofs[i].algorithm), &request);
        prove(F | STAGES(0, 1), "target name", "");
        CHECK(failed(MANYPATH_E_AUTH, "not who it should be"));
    }
}

/* Nothing goes on before the target proved itself. */
TEST(chap_no_proof)
{
    struct request request;

    to_proof(mutual(MANYPATH_CHAP_MD5), &request);
    LOGIN(F | STAGES(0, 1), "");
    CHECK(failed(MANYPATH_E_AUTH, "did not prove"));
    CHECK(silent());
    to_proof(mutual(MANYPATH_CHAP_MD5), &request);
    LOGIN(STAGES(0, 0), "");
    CHECK(failed(MANYPATH_E_AUTH, "did not prove"));
    to_proof(mutual(MANYPATH_CHAP_MD5), &request);
    LOGIN(F | STAGES(0, 1), "CHAP_N=target name\0");
    CHECK(failed(MANYPATH_E_AUTH, "did not prove"));
    to_proof(mutual(MANYPATH_CHAP_MD5), &request);
    LOGIN(F | STAGES(0, 1), "CHAP_R=0x037f0d8ccf6f578663b8e518f6eab9ee\0");
    CHECK(failed(MANYPATH_E_AUTH, "did not prove"));
    to_method(mutual(MANYPATH_CHAP_MD5));
    LOGIN(STAGES(0, 0), "AuthMethod=None\0");
    CHECK(failed(MANYPATH_E_AUTH, "mutual"));
}

TEST(chap_not_wanted)
{
    struct request request;

    to_method(one_way(MANYPATH_CHAP_MD5));
    LOGIN(STAGES(0, 0), "AuthMethod=None\0");
    CHECK(take(&request));
    CHECK_EQ(request.bhs[1], F | STAGES(0, 1));
    CHECK_EQ(request.length, 0);
    LOGIN(STAGES(0, 0), ""); /* not yet */
    CHECK(take(&request));
    CHECK_EQ(request.bhs[1], F | STAGES(0, 1));
    LOGIN(F | STAGES(0, 1), "");
    CHECK(take(&request));
    CHECK_EQ(request.bhs[1], F | STAGES(1, 3));
}

TEST(chap_encodings)
{
    struct request request;

    to_method(one_way(MANYPATH_CHAP_MD5));
    LOGIN(STAGES(0, 0), "AuthMethod=CHAP\0");
    CHECK(take(&request));
    LOGIN(STAGES(0, 0), "CHAP_C=0bAAECAwQFBgcICQoLDA0ODw==\0CHAP_I=0x27\0CHAP_A=0x5\0");
    CHECK(take(&request));
    CHECK_STR(value(&request, "CHAP_R"), proofs[0].own);
}

TEST(chap_choice)
{
    struct request request;
    const int32_t list[] = {MANYPATH_CHAP_SHA3_256, MANYPATH_CHAP_SHA256, MANYPATH_CHAP_SHA1,
                            MANYPATH_CHAP_MD5};

    one_way(0);
    memcpy(wanted.algorithms, list, sizeof list);
    to_method(&wanted);
    LOGIN(STAGES(0, 0), "AuthMethod=CHAP\0");
    CHECK(take(&request));
    CHECK_STR(value(&request, "CHAP_A"), "8,7,6,5");
    LOGIN(STAGES(0, 0), "CHAP_A=5\0CHAP_I=39\0CHAP_C=0x000102030405060708090A0B0C0D0E0F\0");
    CHECK(take(&request));
    CHECK_STR(value(&request, "CHAP_R"), proofs[0].own);
}

/* The text the target answers CHAP_A=5 with, and what is said of it. */
static bool chap_fault(const char *text, size_t length, int code, const char *part)
{
    struct request request;

    to_method(mutual(MANYPATH_CHAP_MD5));
    LOGIN(STAGES(0, 0), "AuthMethod=CHAP\0");
    CHECK(take(&request));
    give((struct answer){.opcode = LOGIN_RESPONSE, .itt = 1, .text = text, .length = length});
    CHECK(silent());
    return failed(code, part);
}

#define CHAP_FAULT(text, code, part) chap_fault(text, sizeof text - 1, code, part)

TEST(chap_faults)
{
    const int protocol = MANYPATH_E_PROTOCOL;
    char text[2200] = "CHAP_A=5\0CHAP_I=1\0CHAP_C=0x";
    const size_t before = sizeof "CHAP_A=5\0CHAP_I=1\0CHAP_C=0x" - 1;
    struct request request;

    CHECK(CHAP_FAULT("", MANYPATH_E_AUTH, "none of the CHAP algorithms"));
    CHECK(CHAP_FAULT("CHAP_A=Reject\0", MANYPATH_E_AUTH, "none of the CHAP algorithms"));
    CHECK(CHAP_FAULT("CHAP_A=7\0CHAP_I=1\0CHAP_C=0x00\0", protocol, "algorithm"));
    CHECK(CHAP_FAULT("CHAP_A=261\0CHAP_I=1\0CHAP_C=0x00\0", protocol, "algorithm"));
    CHECK(CHAP_FAULT("CHAP_A=5,6\0CHAP_I=1\0CHAP_C=0x00\0", protocol, "algorithm"));
    CHECK(CHAP_FAULT("CHAP_A=0\0CHAP_I=1\0CHAP_C=0x00\0", protocol, "algorithm"));
    CHECK(CHAP_FAULT("CHAP_A=\0CHAP_I=1\0CHAP_C=0x00\0", protocol, "algorithm"));
    CHECK(CHAP_FAULT("CHAP_A=5\0CHAP_C=0x00\0", protocol, "CHAP_I"));
    CHECK(CHAP_FAULT("CHAP_A=5\0CHAP_I=256\0CHAP_C=0x00\0", protocol, "CHAP_I"));
    CHECK(CHAP_FAULT("CHAP_A=5\0CHAP_I=-1\0CHAP_C=0x00\0", protocol, "CHAP_I"));
    CHECK(CHAP_FAULT("CHAP_A=5\0CHAP_I=1\0", protocol, "CHAP_C"));
    CHECK(CHAP_FAULT("CHAP_A=5\0CHAP_I=1\0CHAP_C=\0", protocol, "CHAP_C"));
    CHECK(CHAP_FAULT("CHAP_A=5\0CHAP_I=1\0CHAP_C=0x\0", protocol, "CHAP_C"));
    CHECK(CHAP_FAULT("CHAP_A=5\0CHAP_I=1\0CHAP_C=12345\0", protocol, "CHAP_C"));
    CHECK(CHAP_FAULT("CHAP_A=5\0CHAP_I=1\0CHAP_C=0xzz\0", protocol, "CHAP_C"));
    CHECK(CHAP_FAULT("CHAP_A=5\0CHAP_I=1\0CHAP_C=0x00\0CHAP_C=0x00\0", protocol, "CHAP_C twice"));
    memset(text + before, '0', sizeof text - before);
    text[before + 2050] = '\0';
    CHECK(chap_fault(text, before + 2051, protocol, "longer value"));

    /* the most it may be */
    to_method(one_way(MANYPATH_CHAP_MD5));
    LOGIN(STAGES(0, 0), "AuthMethod=CHAP\0");
    CHECK(take(&request));
    text[before + 2048] = '\0';
    give(
        (struct answer){.opcode = LOGIN_RESPONSE, .itt = 1, .text = text, .length = before + 2049});
    CHECK(take(&request));
    CHECK_STR(value(&request, "CHAP_N"), "user name");

    /* RFC 7143 section 9.2.1: never the challenge of the other side */
    CHECK(CHAP_FAULT("CHAP_A=5\0CHAP_I=1\0CHAP_C=0xc1c2c3c4c5c6c7c8c9cacbcccdcecfd0\0", protocol,
                     "challenge"));

    to_method(mutual(MANYPATH_CHAP_MD5));
    LOGIN(STAGES(0, 0), "AuthMethod=CHAP\0");
    random_result = -EAGAIN;
    LOGIN(STAGES(0, 0), "CHAP_A=5\0CHAP_I=1\0CHAP_C=0x00\0");
    CHECK(failed(MANYPATH_E_SYSTEM, "random"));
    CHECK_EQ(mp_discovery_error(machine)->sys_errno, EAGAIN);
}

/* FIPS mode without its provider, in which no digest is left. */
TEST(chap_forbidden)
{
    const uint8_t *bytes;

    EVP_set_default_properties(NULL, "fips=yes");
    start(one_way(MANYPATH_CHAP_MD5));
    EVP_set_default_properties(NULL, "");
    CHECK(failed(MANYPATH_E_AUTH, "libcrypto forbids the CHAP algorithms wanted (MD5)"));
    CHECK_EQ(mp_discovery_output(machine, &bytes), 0); /* before anything was said */

    struct request request;

    to_method(one_way(MANYPATH_CHAP_MD5));
    LOGIN(STAGES(0, 0), "AuthMethod=CHAP\0");
    CHECK(take(&request));
    EVP_set_default_properties(NULL, "fips=yes");
    LOGIN(STAGES(0, 0), "CHAP_A=5\0CHAP_I=1\0CHAP_C=0x00\0");
    EVP_set_default_properties(NULL, "");
    CHECK(failed(MANYPATH_E_AUTH, "cannot compute MD5"));
}

TEST(methods)
{
    to_method(one_way(MANYPATH_CHAP_MD5));
    LOGIN(STAGES(0, 0), "TargetAlias=x\0");
    CHECK(broken("AuthMethod"));
    to_method(one_way(MANYPATH_CHAP_MD5));
    LOGIN(STAGES(0, 0), "AuthMethod=KRB5\0");
    CHECK(broken("AuthMethod"));
    to_method(one_way(MANYPATH_CHAP_MD5));
    LOGIN(STAGES(0, 0), "AuthMethod=Reject\0");
    CHECK(failed(MANYPATH_E_AUTH, "by CHAP"));
    to_method(one_way(MANYPATH_CHAP_MD5));
    LOGIN(STAGES(0, 0), "AuthMethod=CHAP\0AuthMethod=CHAP\0");
    CHECK(broken("AuthMethod twice"));
}

TEST(credentials_wanted)
{
    struct request request;

    start(NULL);
    refuse(0x0201);
    CHECK(failed(MANYPATH_E_AUTH, "discovery_auth_username"));
    CHECK(!mp_discovery_error(machine)->retryable);
    start(NULL);
    LOGIN(STAGES(0, 0), "AuthMethod=CHAP\0");
    CHECK(failed(MANYPATH_E_AUTH, "discovery_auth_username"));
    start(NULL);
    LOGIN(STAGES(1, 0), "AuthMethod=CHAP\0");
    CHECK(failed(MANYPATH_E_AUTH, "discovery_auth_username"));
    to_proof(one_way(MANYPATH_CHAP_MD5), &request);
    refuse(0x0201);
    CHECK(failed(MANYPATH_E_AUTH, "wrong CHAP user name or password"));
}

TEST(statuses)
{
    static const struct {
        unsigned status;
        int code;
        const char *part;
        bool retryable;
    } cases[] = {
        {0x0200, MANYPATH_E_LOGIN_REJECTED, "initiator error (iSCSI login status 0200)", false},
        {0x0202, MANYPATH_E_LOGIN_REJECTED, "initiator name is not allowed", false},
        {0x0203, MANYPATH_E_LOGIN_REJECTED, "not found", false},
        {0x0204, MANYPATH_E_LOGIN_REJECTED, "removed", false},
        {0x0206, MANYPATH_E_LOGIN_REJECTED, "too many connections", false},
        {0x0209, MANYPATH_E_LOGIN_REJECTED, "no discovery sessions", false},
        {0x02ff, MANYPATH_E_LOGIN_REJECTED, "02ff", false},
        {0x0300, MANYPATH_E_LOGIN, "target error (iSCSI login status 0300)", true},
        {0x0301, MANYPATH_E_LOGIN, "service unavailable", true},
        {0x0302, MANYPATH_E_LOGIN, "out of resources", true},
        {0x0400, MANYPATH_E_PROTOCOL, "0400", false},
        {0xffff, MANYPATH_E_PROTOCOL, "ffff", false},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        start(NULL);
        refuse(cases[i].status);
        CHECK(failed(cases[i].code, cases[i].part));
        CHECK_EQ(mp_discovery_error(machine)->retryable, cases[i].retryable);
    }
}

/* "host port" after a redirect with this text, or "none". */
static const char *redirect(const char *text, size_t length)
{
    static char shown[300];
    uint16_t port;

    start(NULL);
    if (give((struct answer){.opcode = LOGIN_RESPONSE,
                             .itt = 1,
                             .class = 1,
                             .detail = 1,
                             .text = text,
                             .length = length}) != MP_DISCOVERY_REDIRECTED) {
        CHECK(broken("where to"));
        return "none";
    }
    const char *host = mp_discovery_redirect(machine, &port);

    snprintf(shown, sizeof shown, "%s %u", host, port);
    return shown;
}

#define REDIRECT(text) redirect(text, sizeof text - 1)

TEST(redirects)
{
    CHECK_STR(REDIRECT("TargetAddress=10.0.0.9:3261,1\0"), "10.0.0.9 3261");
    CHECK_STR(REDIRECT("TargetAlias=x\0TargetAddress=[fd00::9]\0"), "fd00::9 3260");
    CHECK_STR(REDIRECT("TargetAddress=array.example\0"), "array.example 3260");
    CHECK_STR(REDIRECT("TargetAddress=0.0.0.0:3260\0"), "none");
    CHECK_STR(REDIRECT("TargetAddress=10.0.0.9:0\0"), "none");
    CHECK_STR(REDIRECT("TargetAddress=10.0.0.9"), "none");
    CHECK_STR(REDIRECT("TargetAlias=x\0"), "none");
    CHECK_STR(REDIRECT("garbage"), "none");
    CHECK_STR(REDIRECT(""), "none");

    struct request request;

    to_proof(one_way(MANYPATH_CHAP_MD5), &request);
    give((struct answer){.opcode = LOGIN_RESPONSE,
                         .itt = 1,
                         .class = 1,
                         .detail = 2,
                         TEXT("TargetAddress=10.0.0.9\0")});
    CHECK_EQ(mp_discovery_status(machine), MP_DISCOVERY_REDIRECTED);
    CHECK(silent());
}

/* What the target asks for besides, and what it is told. */
TEST(keys)
{
    struct request request;

    start(NULL);
    CHECK(take(&request));
    LOGIN(STAGES(1, 0), "HeaderDigest=None\0MaxConnections=4\0InitialR2T=Yes\0X-vendor.key=1\0"
                        "RDMAExtensions=No\0IFMarker=Reject\0TaskReporting=RFC3720\0"
                        "DefaultTime2Wait=Irrelevant\0DataDigest=NotUnderstood\0"
                        "TargetAlias=\xc3\xa4\0MaxRecvDataSegmentLength=8192\0");
    CHECK(take(&request));
    CHECK_EQ(request.bhs[1], F | STAGES(1, 3));
    CHECK_STR(value(&request, "MaxConnections"), "Irrelevant");
    CHECK_STR(value(&request, "InitialR2T"), "Irrelevant");
    CHECK_STR(value(&request, "TaskReporting"), "Irrelevant");
    CHECK_STR(value(&request, "X-vendor.key"), "NotUnderstood");
    CHECK_STR(value(&request, "RDMAExtensions"), "NotUnderstood");
    CHECK_EQ(count_keys(&request), 5);
    LOGIN(F | STAGES(1, 3), "");
    CHECK(take(&request));
    CHECK_STR(request.text, "SendTargets=All");

    start(NULL);
    LOGIN(STAGES(1, 0), "TargetAlias=x\0TargetAlias=x\0");
    CHECK(broken("TargetAlias twice"));
    start(NULL);
    LOGIN(STAGES(1, 0), "TargetAlias=x\0");
    LOGIN(STAGES(1, 0), "TargetAlias=x\0"); /* nor in another response */
    CHECK(broken("TargetAlias twice"));
    start(NULL);
    LOGIN(F | STAGES(1, 3), "HeaderDigest=CRC32C\0");
    CHECK(broken("digest"));
    start(NULL);
    LOGIN(F | STAGES(1, 3), "DataDigest=CRC32C,None\0");
    CHECK(broken("digest"));
    start(NULL);
    LOGIN(F | STAGES(1, 3), "no pair\0");
    CHECK(broken("broken login text"));
    start(NULL);
    LOGIN(F | STAGES(1, 3), "TargetAlias=x");
    CHECK(broken("broken login text"));
}

TEST(too_many_keys)
{
    char text[8192];

    for (size_t at = 0; at < sizeof text; at += 4)
        memcpy(text + at, "a=b", 4);
    start(NULL);
    give((struct answer){.opcode = LOGIN_RESPONSE,
                         .flags = STAGES(1, 0),
                         .itt = 1,
                         .text = text,
                         .length = sizeof text});
    CHECK(broken("more keys"));
    memset(text, 'v', sizeof text);
    memcpy(text, "TargetAlias=", 12);
    text[12 + 256] = '\0';
    start(NULL);
    give((struct answer){.opcode = LOGIN_RESPONSE,
                         .flags = STAGES(1, 0),
                         .itt = 1,
                         .text = text,
                         .length = 12 + 257});
    CHECK(broken("longer value"));
}

/* Text cut in two, RFC 7143 section 6.2. */
TEST(login_continued)
{
    struct request request;

    to_method(one_way(MANYPATH_CHAP_MD5));
    LOGIN(C | STAGES(0, 0), "AuthMeth");
    CHECK(take(&request));
    CHECK_EQ(request.bhs[1], STAGES(0, 0));
    CHECK_EQ(request.length, 0);
    CHECK_EQ(load(request.bhs + 28), 0xffffffff);
    LOGIN(C | STAGES(0, 0), "od=CHAP");
    CHECK(take(&request));
    CHECK_EQ(request.length, 0);
    LOGIN(STAGES(0, 0), "\0TargetAlias=x\0");
    CHECK(take(&request));
    CHECK_STR(value(&request, "CHAP_A"), "5");

    start(NULL);
    CHECK(take(&request));
    LOGIN(C | STAGES(1, 0), "TargetAl");
    CHECK(take(&request));
    CHECK_EQ(request.bhs[1], STAGES(1, 0));
    LOGIN(STAGES(1, 0), "ias=x\0"); /* T was not asked for */
    CHECK(take(&request));
    CHECK_EQ(request.bhs[1], F | STAGES(1, 3));
    LOGIN(F | STAGES(1, 3), "");
    CHECK(take(&request));
    CHECK_STR(request.text, "SendTargets=All");

    start(NULL);
    LOGIN(F | C | STAGES(1, 3), "TargetAl");
    CHECK(broken("out of turn"));
}

TEST(login_endless)
{
    static char text[8193];
    int answers = 0;

    start(NULL);
    while (mp_discovery_status(machine) == MP_DISCOVERY_BUSY && answers < 1000) {
        LOGIN(STAGES(1, 0), "");
        answers++;
    }
    CHECK(broken("come to an end"));
    CHECK_EQ(answers, 33);
    start(NULL);
    memset(text, 'v', sizeof text);
    for (answers = 0; mp_discovery_status(machine) == MP_DISCOVERY_BUSY; answers++)
        give((struct answer){.opcode = LOGIN_RESPONSE,
                             .flags = C | STAGES(1, 0),
                             .itt = 1,
                             .text = text,
                             .length = 8192});
    CHECK(broken("more login text"));
    CHECK_EQ(answers, 9);
    start(NULL);
    give((struct answer){.opcode = LOGIN_RESPONSE,
                         .flags = F | STAGES(1, 3),
                         .itt = 1,
                         .text = text,
                         .length = sizeof text});
    CHECK(broken("longer iSCSI PDU"));
}

TEST(login_headers)
{
    start(NULL);
    give((struct answer){.opcode = LOGIN_RESPONSE, .flags = F | STAGES(1, 3), .itt = 2});
    CHECK(broken("not sent"));
    start(NULL);
    give((struct answer){.opcode = LOGIN_RESPONSE, .flags = F | STAGES(1, 3), .itt = 1, .isid = 1});
    CHECK(broken("another session"));
    start(NULL);
    give(
        (struct answer){.opcode = LOGIN_RESPONSE, .flags = F | STAGES(1, 3), .itt = 1, .third = 1});
    CHECK(broken("version"));
    start(NULL);
    give((struct answer){/* the highest it knows is its own business */
                         .opcode = LOGIN_RESPONSE,
                         .flags = F | STAGES(1, 3),
                         .itt = 1,
                         .second = 9});
    CHECK_EQ(mp_discovery_status(machine), MP_DISCOVERY_BUSY);
    start(NULL);
    LOGIN(F | STAGES(1, 1), "");
    CHECK(broken("out of turn"));
    start(NULL);
    LOGIN(STAGES(3, 0), "");
    CHECK(broken("another login stage"));
    to_method(one_way(MANYPATH_CHAP_MD5));
    LOGIN(F | STAGES(0, 1), "AuthMethod=None\0"); /* not asked for */
    CHECK(broken("out of turn"));
    to_method(one_way(MANYPATH_CHAP_MD5));
    LOGIN(F | STAGES(1, 3), "");
    CHECK(broken("another login stage"));
}

TEST(wrong_opcodes)
{
    for (int opcode = 0; opcode < 0x40; opcode++) {
        if (opcode != LOGIN_RESPONSE && opcode != REJECT) {
            start(NULL);
            give((struct answer){.opcode = (uint8_t)opcode, .flags = F, .itt = 1});
            CHECK(broken("does not belong to the login"));
        }
        if (opcode != TEXT_RESPONSE && opcode != REJECT && opcode != NOP_IN &&
            opcode != ASYNC_MESSAGE) {
            to_list();
            give((struct answer){.opcode = (uint8_t)opcode, .flags = F, .itt = 2});
            CHECK(broken("does not belong to the list of targets"));
        }
    }
}

TEST(rejects)
{
    start(NULL);
    give((struct answer){.opcode = REJECT, .flags = F, .second = 4, .itt = NO_TAG});
    CHECK(broken("rejects the request for the login: protocol error"));
    to_list();
    give((struct answer){.opcode = REJECT, .flags = F, .second = 5, .itt = NO_TAG});
    CHECK(broken("list of targets: command not supported (iSCSI reject reason 05)"));
    to_list();
    give((struct answer){.opcode = REJECT, .flags = F, .second = 0xff, .itt = NO_TAG});
    CHECK(broken("unknown reason"));
}

TEST(list_in_parts)
{
    struct request request;

    to_list();
    CHECK_EQ(LISTING(C, 0x55667788, "TargetName=iqn.a\0TargetAddr"), MP_DISCOVERY_BUSY);
    CHECK(take(&request));
    CHECK_EQ(request.bhs[0], TEXT_REQUEST);
    CHECK_EQ(request.bhs[1], F);
    CHECK_EQ(request.length, 0);
    CHECK_EQ(load(request.bhs + 16), 2);
    CHECK_EQ(load(request.bhs + 20), 0x55667788);
    CHECK_EQ(load(request.bhs + 24), 2);
    CHECK_EQ(load(request.bhs + 28), 0);
    CHECK_EQ(LISTING(0, 0, "ess=10.0.0.1\0"), MP_DISCOVERY_BUSY); /* a tag may be 0 */
    CHECK(take(&request));
    CHECK_EQ(load(request.bhs + 20), 0);
    CHECK_EQ(load(request.bhs + 24), 3);
    CHECK_EQ(LISTING(0, 7, ""), MP_DISCOVERY_BUSY);
    CHECK(take(&request));
    CHECK_EQ(LISTING(F, NO_TAG, "TargetName=iqn.b\0"), MP_DISCOVERY_LISTED);
    CHECK_STR(targets(), "iqn.a 10.0.0.1 3260 -1\niqn.b  0 -1\n");

    to_list(); /* the last, though it does not say so */
    CHECK_EQ(LISTING(0, NO_TAG, "TargetName=iqn.a\0"), MP_DISCOVERY_LISTED);
    to_list();
    CHECK_EQ(LISTING(F, 7, "TargetName=iqn.a\0"), MP_DISCOVERY_LISTED);
}

TEST(list_broken)
{
    to_list();
    LISTING(F | C, NO_TAG, "TargetName=iqn.a\0");
    CHECK(broken("broke off"));
    to_list();
    LISTING(C, NO_TAG, "TargetName=iqn.a\0");
    CHECK(broken("broke off"));
    to_list();
    LISTING(F, NO_TAG, "TargetName=iqn.a");
    CHECK(broken("broken list"));
    to_list();
    LISTING(F, NO_TAG, "TargetAddress=10.0.0.1\0");
    CHECK(broken("broken list"));
    to_list();
    LISTING(F, NO_TAG, "SendTargets=NotUnderstood\0");
    CHECK(broken("refuses"));
    to_list();
    give((struct answer){.opcode = TEXT_RESPONSE, .flags = F, .itt = 1, .ttt = NO_TAG});
    CHECK(broken("not sent"));
}

TEST(list_too_long)
{
    static char text[32769];
    int parts = 0;

    to_list();
    give((struct answer){
        .opcode = TEXT_RESPONSE, .flags = F, .itt = 2, .text = text, .length = sizeof text});
    CHECK(broken("longer iSCSI PDU"));
    memset(text, 0, sizeof text);
    to_list();
    while (mp_discovery_status(machine) == MP_DISCOVERY_BUSY && parts < 1000) {
        give((struct answer){
            .opcode = TEXT_RESPONSE, .itt = 2, .ttt = 1, .text = text, .length = 32768});
        parts++;
    }
    CHECK(broken("4 MiB"));
    CHECK_EQ(parts, 129);
    to_list();
    memset(text, 0, sizeof text);
    for (size_t at = 0; at < 32768; at += 16)
        memcpy(text + at, "TargetName=iqn.", 15); /* none: an empty name */
    for (parts = 0; parts < 8; parts++)
        give((struct answer){
            .opcode = TEXT_RESPONSE, .itt = 2, .ttt = 1, .text = text, .length = 32768});
    LISTING(F, NO_TAG, "TargetName=iqn.a\0");
    CHECK_EQ(mp_discovery_status(machine), MP_DISCOVERY_LISTED);
    CHECK_STR(targets(), "iqn.a  0 -1\n");
    CHECK_EQ(mp_discovery_skipped(machine), 16384);
    to_list();
    memset(text, 0, sizeof text);
    for (size_t at = 0; at + 32 <= 32768; at += 32)
        memcpy(text + at, "TargetName=iqn.a:b", 18);
    for (parts = 0; parts < 16; parts++)
        give((struct answer){
            .opcode = TEXT_RESPONSE, .itt = 2, .ttt = 1, .text = text, .length = 32768});
    LISTING(F, NO_TAG, "TargetName=iqn.b\0");
    CHECK(broken("16384 portals"));
}

TEST(list_endless)
{
    struct request request;
    int pdus = 0;

    to_list();
    while (mp_discovery_status(machine) == MP_DISCOVERY_BUSY && pdus < 100000) {
        LISTING(0, 1, "a");
        pdus++;
    }
    CHECK(broken("come to an end"));
    CHECK_EQ(pdus, 16385);
    to_list();
    for (pdus = 0; mp_discovery_status(machine) == MP_DISCOVERY_BUSY && pdus < 100000; pdus++)
        LISTING(0, 1, "");
    CHECK(broken("does not go on"));
    CHECK_EQ(pdus, 65);
    to_list();
    for (pdus = 0; mp_discovery_status(machine) == MP_DISCOVERY_BUSY && pdus < 640; pdus++) {
        if (pdus % 64 == 63)
            LISTING(0, 1, "a");
        else
            LISTING(0, 1, "");
    }
    CHECK_EQ(mp_discovery_status(machine), MP_DISCOVERY_BUSY);
    to_list();
    for (pdus = 0; mp_discovery_status(machine) == MP_DISCOVERY_BUSY && pdus < 100000; pdus++) {
        give((struct answer){.opcode = NOP_IN, .flags = F, .itt = NO_TAG, .ttt = 1});
        take(&request);
    }
    CHECK(broken("come to an end"));
}

TEST(nop_ins)
{
    struct request request;

    to_list();
    CHECK_EQ(give((struct answer){.opcode = NOP_IN, .flags = F, .itt = NO_TAG, .ttt = 0x01020304}),
             MP_DISCOVERY_BUSY);
    CHECK(take(&request));
    CHECK_EQ(request.bhs[0], NOP_OUT);
    CHECK_EQ(request.bhs[1], F);
    CHECK(memcmp(request.bhs + 8, "LUNLUNLU", 8) == 0);
    CHECK_EQ(load(request.bhs + 16), 0xffffffff);
    CHECK_EQ(load(request.bhs + 20), 0x01020304);
    CHECK_EQ(load(request.bhs + 24), 2); /* of the next request */
    CHECK_EQ(load(request.bhs + 28), 0xffffffff);
    CHECK_EQ(request.length, 0);
    give((struct answer){.opcode = NOP_IN, .flags = F, .itt = NO_TAG, .ttt = NO_TAG, TEXT("x")});
    CHECK(silent());
    CHECK_EQ(LISTING(F, NO_TAG, "TargetName=iqn.a\0"), MP_DISCOVERY_LISTED);
    to_list();
    give((struct answer){.opcode = NOP_IN, .flags = F, .itt = 2, .ttt = NO_TAG});
    CHECK(broken("not sent"));
}

TEST(async_messages)
{
    static const uint8_t harmless[] = {0, 4, 5, 255};

    for (uint8_t event = 1; event <= 3; event++) {
        to_list();
        give((struct answer){.opcode = ASYNC_MESSAGE, .flags = F, .class = event, .itt = NO_TAG});
        CHECK(failed(MANYPATH_E_LOGIN, event == 1 ? "log out" : "drops the connection"));
        CHECK(mp_discovery_error(machine)->retryable);
    }
    to_list();
    for (size_t i = 0; i < sizeof harmless; i++)
        CHECK_EQ(give((struct answer){
                     .opcode = ASYNC_MESSAGE, .class = harmless[i], .itt = NO_TAG, TEXT("sense")}),
                 MP_DISCOVERY_BUSY);
    CHECK(silent());
    CHECK_EQ(LISTING(F, NO_TAG, "TargetName=iqn.a\0"), MP_DISCOVERY_LISTED);
}

/* The list is there: nothing spoils it any more. */
TEST(after_the_list)
{
    uint8_t garbage[48];

    memset(garbage, 0xff, sizeof garbage);
    for (int way = 0; way < 5; way++) {
        to_list();
        LISTING(F, NO_TAG, "TargetName=iqn.a\0");
        give((struct answer){.opcode = NOP_IN, .flags = F, .itt = NO_TAG, .ttt = 1});
        give((struct answer){.opcode = ASYNC_MESSAGE, .class = 1, .itt = NO_TAG});
        CHECK_EQ(mp_discovery_status(machine), MP_DISCOVERY_LISTED);
        if (way == 0)
            give((struct answer){.opcode = LOGOUT_RESPONSE, .flags = F, .second = 1, .itt = 3});
        else if (way == 1)
            give((struct answer){.opcode = REJECT, .flags = F, .second = 9, .itt = NO_TAG});
        else if (way == 2)
            give_bytes(garbage, sizeof garbage);
        else if (way == 3)
            mp_discovery_closed(machine);
        else
            for (int i = 0; i < 16384; i++)
                give((struct answer){.opcode = NOP_IN, .flags = F, .itt = NO_TAG, .ttt = 1});
        CHECK_EQ(mp_discovery_status(machine), MP_DISCOVERY_OVER);
        CHECK_STR(targets(), "iqn.a  0 -1\n");
    }
}

TEST(closed)
{
    start(NULL);
    CHECK_EQ(mp_discovery_closed(machine), MP_DISCOVERY_FAILED);
    CHECK(failed(MANYPATH_E_LOGIN, "closed the connection during the login"));
    CHECK(mp_discovery_error(machine)->retryable);
    to_list();
    LISTING(C, 1, "TargetName=iqn.a\0");
    mp_discovery_closed(machine);
    CHECK(failed(MANYPATH_E_LOGIN, "during the list of targets"));
    start(NULL);
    refuse(0x0202);
    mp_discovery_closed(machine); /* the first reason stays */
    CHECK(failed(MANYPATH_E_LOGIN_REJECTED, "not allowed"));
}

TEST(header_segments)
{
    to_list();
    CHECK_EQ(give((struct answer){.opcode = TEXT_RESPONSE,
                                  .flags = F,
                                  .itt = 2,
                                  .ttt = NO_TAG,
                                  .ahs = 255,
                                  TEXT("TargetName=iqn.a\0")}),
             MP_DISCOVERY_LISTED);
}

/* Requests pile up if nobody sends them, and none is lost. */
TEST(slow_sending)
{
    const uint8_t *bytes;
    struct request request;

    to_list();
    for (int64_t tag = 0; tag < 100; tag++)
        give((struct answer){.opcode = NOP_IN, .flags = F, .itt = NO_TAG, .ttt = tag});
    CHECK_EQ(mp_discovery_output(machine, &bytes), 4800);
    for (uint32_t tag = 0; tag < 100; tag++) {
        CHECK(take(&request));
        CHECK_EQ(load(request.bhs + 20), tag);
    }
    CHECK(silent());
}

TEST(nothing)
{
    mp_discovery_free(NULL);
    start(NULL);
    CHECK_EQ(mp_discovery_input(machine, NULL, 0), MP_DISCOVERY_BUSY);
}

int main(void)
{
    static const size_t steps[] = {0, 1, 7};

    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        step = steps[i];
        RUN(whole_session);
        RUN(empty_list);
        RUN(pipelined);
        RUN(chap_one_way);
        RUN(chap_mutual);
        RUN(chap_wrong_target);
        RUN(chap_no_proof);
        RUN(chap_not_wanted);
        RUN(chap_encodings);
        RUN(chap_choice);
        RUN(chap_faults);
        RUN(chap_forbidden);
        RUN(methods);
        RUN(credentials_wanted);
        RUN(statuses);
        RUN(redirects);
        RUN(keys);
        RUN(too_many_keys);
        RUN(login_continued);
        RUN(login_endless);
        RUN(login_headers);
        RUN(wrong_opcodes);
        RUN(rejects);
        RUN(list_in_parts);
        RUN(list_broken);
        RUN(list_too_long);
        RUN(list_endless);
        RUN(nop_ins);
        RUN(async_messages);
        RUN(after_the_list);
        RUN(closed);
        RUN(header_segments);
        RUN(slow_sending);
        RUN(nothing);
    }
    finish();
    return test_end();
}
