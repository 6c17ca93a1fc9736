/* SPDX-License-Identifier: Apache-2.0 */
#include "login.h"

#include "error.h"
#include "iscsi_text.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* RFC 7143. */
enum {
    STAGE_SECURITY = 0, /* section 11.12.3 */
    STAGE_OPERATIONAL = 1,
    STAGE_FULL_FEATURE = 3,

    TASK_TAG = 1,
    TEXT_MAX = 65536, /* section 6.2: as much as anybody has to be able to receive */
    ANSWERS_MAX = 32, /* the longest honest login takes five */

    STATUS_REDIRECT = 1, /* section 11.13.5: classes, and class and detail */
    STATUS_INITIATOR = 2,
    STATUS_TARGET = 3,
    STATUS_AUTHENTICATION = 0x0201,
};

/* Section 13. discovery.c takes segments of this MaxRecvDataSegmentLength; LIO sends no longer ones
 * anyway. */
static const struct {
    const char *key, *value;
} parameters[] = {
    {"HeaderDigest", "None"},    {"DataDigest", "None"},      {"DefaultTime2Wait", "2"},
    {"DefaultTime2Retain", "0"}, {"ErrorRecoveryLevel", "0"}, {"MaxRecvDataSegmentLength", "32768"},
};

/* ---- failing ---- */

static int fail_auth(struct manypath_error *err, const char *what)
{
    return mp_error(err, MANYPATH_E_AUTH, MANYPATH_PHASE_DISCOVERY, 0, "%s", what);
}

static int auth_demanded(struct manypath_error *err)
{
    return fail_auth(err,
                     "the target demands authentication for discovery: give credentials "
                     "(discovery_auth_method, discovery_auth_username, discovery_auth_password)");
}

static int broken(struct manypath_error *err, const char *what)
{
    return mp_error(err, MANYPATH_E_PROTOCOL, MANYPATH_PHASE_DISCOVERY, 0, "the target %s", what);
}

/* The errors of mp_bytes_append(). */
static int stored(int result, struct manypath_error *err, const char *too_much)
{
    if (result == -EMSGSIZE)
        return broken(err, too_much);
    if (result < 0)
        return mp_error(err, MANYPATH_E_SYSTEM, MANYPATH_PHASE_DISCOVERY, result, "out of memory");
    return 0;
}

/* ---- requests ---- */

static const char many_keys[] = "asks for more keys than fit into an answer";

static int add(struct mp_login *login, const char *key, const char *value,
               struct manypath_error *err)
{
    return stored(mp_iscsi_text_add(&login->reply, key, value, MP_LOGIN_DATA_MAX), err, many_keys);
}

static int add_binary(struct mp_login *login, const char *key, const uint8_t *value, size_t length,
                      struct manypath_error *err)
{
    return stored(mp_iscsi_text_add_binary(&login->reply, key, value, length, MP_LOGIN_DATA_MAX),
                  err, many_keys);
}

static uint8_t next_stage(const struct mp_login *login)
{
    return login->stage == STAGE_SECURITY ? STAGE_OPERATIONAL : STAGE_FULL_FEATURE;
}

/* With the text in `reply`. The output is bounded by what the target may make us answer. */
static int send_reply(struct mp_login *login, bool transit, struct mp_bytes *output,
                      struct manypath_error *err)
{
    struct mp_iscsi_request request = {
        .opcode = MP_ISCSI_LOGIN_REQUEST,
        .immediate = true,
        .flags = (uint8_t)(login->stage << 2 | (transit ? MP_ISCSI_FINAL | next_stage(login) : 0)),
        .itt = TASK_TAG,
        .cmd_sn = login->cmd_sn,
        .exp_stat_sn = login->exp_stat_sn,
        .data = login->reply.data,
        .length = login->reply.length,
    };

    memcpy(request.lun, login->isid, sizeof login->isid);
    int result = mp_iscsi_append(output, &request, SIZE_MAX);

    mp_bytes_clear(&login->reply);
    login->transit_asked = transit;
    return stored(result, err, "");
}

static int begin_operational(struct mp_login *login, struct mp_bytes *output,
                             struct manypath_error *err)
{
    login->state = MP_LOGIN_OPERATIONAL;
    login->stage = STAGE_OPERATIONAL;
    for (size_t i = 0; i < sizeof parameters / sizeof parameters[0]; i++) {
        int result = add(login, parameters[i].key, parameters[i].value, err);

        if (result < 0)
            return result;
    }
    return send_reply(login, true, output, err);
}

/* ---- keys ---- */

enum role {
    TAKEN,      /* needs no answer; most change nothing for us either */
    DIGEST,     /* answers our None */
    IRRELEVANT, /* in a discovery session, says section 13 of each of them */
};

/* The keys that are looked at come first. */
enum { AUTH_METHOD, CHAP_A, CHAP_C, CHAP_I, CHAP_N, CHAP_R, KEYS = 28 };

static const struct {
    const char *name;
    enum role role;
} keys[KEYS] = {
    [AUTH_METHOD] = {"AuthMethod", TAKEN},
    [CHAP_A] = {"CHAP_A", TAKEN},
    [CHAP_C] = {"CHAP_C", TAKEN},
    [CHAP_I] = {"CHAP_I", TAKEN},
    [CHAP_N] = {"CHAP_N", TAKEN},
    [CHAP_R] = {"CHAP_R", TAKEN},
    {"HeaderDigest", DIGEST},
    {"DataDigest", DIGEST},
    {"DefaultTime2Wait", TAKEN},
    {"DefaultTime2Retain", TAKEN},
    {"ErrorRecoveryLevel", TAKEN},
    {"InitiatorName", TAKEN},
    {"MaxRecvDataSegmentLength", TAKEN},
    {"SessionType", TAKEN},
    {"TargetAddress", TAKEN},
    {"TargetAlias", TAKEN},
    {"TargetPortalGroupTag", TAKEN},
    {"X#NodeArchitecture", TAKEN},
    {"DataPDUInOrder", IRRELEVANT},
    {"DataSequenceInOrder", IRRELEVANT},
    {"FirstBurstLength", IRRELEVANT},
    {"ImmediateData", IRRELEVANT},
    {"InitialR2T", IRRELEVANT},
    {"MaxBurstLength", IRRELEVANT},
    {"MaxConnections", IRRELEVANT},
    {"MaxOutstandingR2T", IRRELEVANT},
    {"TaskReporting", IRRELEVANT},
    {"iSCSIProtocolLevel", IRRELEVANT},
};

_Static_assert(KEYS <= 32, "a set of keys fits `seen`");

/* Section 6.2: answers that say no to a key, which then keeps its default. */
static bool is_refusal(const char *value)
{
    return strcmp(value, "NotUnderstood") == 0 || strcmp(value, "Irrelevant") == 0 ||
           strcmp(value, "Reject") == 0;
}

static int answer_key(struct mp_login *login, const struct mp_iscsi_pair *pair, const char *answer,
                      struct manypath_error *err)
{
    char key[MP_ISCSI_KEY_MAX + 1];

    if (is_refusal(pair->value))
        return 0;
    memcpy(key, pair->key, pair->key_length);
    key[pair->key_length] = '\0';
    return add(login, key, answer, err);
}

static int take_pair(struct mp_login *login, const struct mp_iscsi_pair *pair,
                     const char *values[KEYS], struct manypath_error *err)
{
    size_t key = 0;

    if (!mp_iscsi_value_fits(pair))
        return broken(err, "sent a longer value than iSCSI allows");
    while (key < KEYS && !mp_iscsi_key_is(pair, keys[key].name))
        key++;
    if (key == KEYS)
        return answer_key(login, pair, "NotUnderstood", err);
    if ((login->seen & UINT32_C(1) << key) != 0) /* section 6.2 */
        return mp_error(err, MANYPATH_E_PROTOCOL, MANYPATH_PHASE_DISCOVERY, 0,
                        "the target sent %s twice", keys[key].name);
    login->seen |= UINT32_C(1) << key;
    values[key] = pair->value;
    if (keys[key].role == IRRELEVANT)
        return answer_key(login, pair, "Irrelevant", err);
    if (keys[key].role == DIGEST && strcmp(pair->value, "None") != 0 && !is_refusal(pair->value))
        return broken(err, "chose a digest that was not offered");
    return 0;
}

static int take_text(struct mp_login *login, const char *values[KEYS], struct manypath_error *err)
{
    struct mp_iscsi_text rest = {(const char *)login->text.data, login->text.length};
    struct mp_iscsi_pair pair;
    int result;

    while ((result = mp_iscsi_text_next(&rest, &pair)) > 0)
        if ((result = take_pair(login, &pair, values, err)) < 0)
            return result;
    return result < 0 ? broken(err, "sent broken login text") : 0;
}

/* ---- CHAP: section 12.1.3 ---- */

static bool is_mutual(const struct mp_login *login)
{
    return login->chap != NULL && login->chap->username_in[0] != '\0';
}

/* Offering what this host cannot compute could be accepted. */
static int select_algorithms(struct mp_login *login, struct manypath_error *err)
{
    const struct mp_chap *chap = login->chap;

    for (size_t i = 0; i < chap->algorithm_count; i++)
        if (mp_chap_available(chap->algorithms[i]))
            login->algorithms[login->algorithm_count++] = chap->algorithms[i];
    if (login->algorithm_count > 0)
        return 0;
    return mp_error(err, MANYPATH_E_AUTH, MANYPATH_PHASE_DISCOVERY, 0,
                    "this host's libcrypto forbids the CHAP algorithms wanted (%s%s), as FIPS mode "
                    "does with MD5: choose others",
                    mp_chap_algorithm_name(chap->algorithms[0]),
                    chap->algorithm_count > 1 ? ", ..." : "");
}

static int add_algorithms(struct mp_login *login, struct manypath_error *err)
{
    char list[sizeof "255," * MANYPATH_CHAP_ALGORITHMS] = "";

    for (size_t i = 0, used = 0; i < login->algorithm_count; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%u", i > 0 ? "," : "",
                                 (uint8_t)login->algorithms[i]);
    return add(login, "CHAP_A", list, err);
}

static int choose_algorithm(struct mp_login *login, const char *value, struct manypath_error *err)
{
    uint64_t number = 0; /* no algorithm */

    if (value == NULL || strcmp(value, "Reject") == 0)
        return fail_auth(err, "the target knows none of the CHAP algorithms offered for discovery");
    mp_iscsi_number(value, UINT8_MAX, &number);
    for (size_t i = 0; i < login->algorithm_count; i++)
        if (login->algorithms[i] == (int32_t)number) {
            login->algorithm = (int32_t)number;
            return 0;
        }
    return broken(err, "chose a CHAP algorithm that was not offered");
}

static int compute(const struct mp_login *login, uint8_t id, const uint8_t *secret,
                   size_t secret_length, const uint8_t *challenge, size_t challenge_length,
                   uint8_t ret_proof[MP_CHAP_DIGEST_MAX], struct manypath_error *err)
{
    int result = mp_chap_response(login->algorithm, id, secret, secret_length, challenge,
                                  challenge_length, ret_proof);

    if (result == -EOPNOTSUPP)
        return mp_error(err, MANYPATH_E_AUTH, MANYPATH_PHASE_DISCOVERY, 0,
                        "this host's libcrypto cannot compute %s",
                        mp_chap_algorithm_name(login->algorithm));
    return stored(result, err, "");
}

static int add_proof(struct mp_login *login, uint8_t id, const uint8_t *challenge, size_t length,
                     struct manypath_error *err)
{
    const struct mp_chap *chap = login->chap;
    uint8_t proof[MP_CHAP_DIGEST_MAX];
    int result =
        compute(login, id, chap->password, chap->password_length, challenge, length, proof, err);

    if (result == 0)
        result = add(login, "CHAP_N", chap->username, err);
    if (result == 0)
        result = add_binary(login, "CHAP_R", proof, mp_chap_digest_size(login->algorithm), err);
    explicit_bzero(proof, sizeof proof);
    return result;
}

/* Asks the target to prove itself, and computes what it will have to say. */
static int add_challenge(struct mp_login *login, const uint8_t *theirs, size_t their_length,
                         struct manypath_error *err)
{
    const struct mp_chap *chap = login->chap;
    size_t length = mp_chap_digest_size(login->algorithm);
    struct {
        uint8_t id, challenge[MP_CHAP_DIGEST_MAX];
    } own;
    char id[sizeof "255"];
    int result = mp_chap_random(&own, sizeof own);

    if (result < 0)
        return mp_error(err, MANYPATH_E_SYSTEM, MANYPATH_PHASE_DISCOVERY, result,
                        "the kernel gives no random numbers");
    /* Section 9.2.1: never the challenge that the other side sent. */
    if (their_length == length && memcmp(own.challenge, theirs, length) == 0)
        return broken(err, "sent the CHAP challenge that it was about to get");
    result = compute(login, own.id, chap->password_in, chap->password_in_length, own.challenge,
                     length, login->target_proof, err);
    snprintf(id, sizeof id, "%u", own.id);
    if (result == 0)
        result = add(login, "CHAP_I", id, err);
    if (result == 0)
        result = add_binary(login, "CHAP_C", own.challenge, length, err);
    return result;
}

static bool is_proof(const struct mp_login *login, const char *name, const char *response)
{
    uint8_t proof[MP_CHAP_DIGEST_MAX];
    size_t length;
    bool right = mp_iscsi_binary(response, proof, sizeof proof, &length) &&
                 length == mp_chap_digest_size(login->algorithm) &&
                 mp_chap_same_response(proof, login->target_proof, length);

    explicit_bzero(proof, sizeof proof);
    return right && strcmp(name, login->chap->username_in) == 0;
}

/* ---- one step for each state; `transit`: the target agrees to the next stage ---- */

static int after_method(struct mp_login *login, const char *const values[KEYS], bool transit,
                        struct mp_bytes *output, struct manypath_error *err)
{
    const char *method = values[AUTH_METHOD];
    int result;

    (void)transit; /* was not asked for */
    if (method == NULL)
        return broken(err, "did not answer AuthMethod");
    if (strcmp(method, "CHAP") == 0) {
        login->state = MP_LOGIN_ALGORITHM;
        result = add_algorithms(login, err);
        return result < 0 ? result : send_reply(login, false, output, err);
    }
    if (strcmp(method, "None") == 0 && !is_mutual(login)) {
        login->state = MP_LOGIN_SECURITY_END;
        return send_reply(login, true, output, err);
    }
    if (strcmp(method, "None") == 0 || strcmp(method, "Reject") == 0)
        return fail_auth(err, is_mutual(login)
                                  ? "the target does not prove who it is by CHAP, though mutual "
                                    "discovery credentials were given"
                                  : "the target does not authenticate discovery by CHAP");
    return broken(err, "chose an AuthMethod that was not offered");
}

static int after_algorithm(struct mp_login *login, const char *const values[KEYS], bool transit,
                           struct mp_bytes *output, struct manypath_error *err)
{
    uint8_t challenge[MP_CHAP_CHALLENGE_MAX];
    size_t length;
    uint64_t id;
    int result = choose_algorithm(login, values[CHAP_A], err);

    (void)transit;
    if (result < 0)
        return result;
    if (values[CHAP_I] == NULL || !mp_iscsi_number(values[CHAP_I], UINT8_MAX, &id))
        return broken(err, "sent no valid CHAP_I");
    if (values[CHAP_C] == NULL ||
        !mp_iscsi_binary(values[CHAP_C], challenge, sizeof challenge, &length))
        return broken(err, "sent no valid CHAP_C");
    login->state = MP_LOGIN_PROOF;
    result = add_proof(login, (uint8_t)id, challenge, length, err);
    if (result == 0 && is_mutual(login))
        result = add_challenge(login, challenge, length, err);
    return result < 0 ? result : send_reply(login, true, output, err);
}

static int leave_security(struct mp_login *login, const char *const values[KEYS], bool transit,
                          struct mp_bytes *output, struct manypath_error *err)
{
    (void)values;
    if (transit)
        return begin_operational(login, output, err);
    login->state = MP_LOGIN_SECURITY_END;
    return send_reply(login, true, output, err);
}

static int after_proof(struct mp_login *login, const char *const values[KEYS], bool transit,
                       struct mp_bytes *output, struct manypath_error *err)
{
    const char *name = values[CHAP_N], *response = values[CHAP_R];

    if (is_mutual(login) && (name == NULL || response == NULL))
        return fail_auth(err, "the target did not prove who it is, though mutual discovery "
                              "credentials were given");
    if (is_mutual(login) && !is_proof(login, name, response))
        return fail_auth(err, "the target is not who it should be: its CHAP name or response does "
                              "not fit discovery_auth_username_in and discovery_auth_password_in");
    return leave_security(login, values, transit, output, err);
}

static int after_operational(struct mp_login *login, const char *const values[KEYS], bool transit,
                             struct mp_bytes *output, struct manypath_error *err)
{
    if (values[AUTH_METHOD] != NULL && login->chap == NULL)
        return auth_demanded(err);
    return transit ? MP_LOGIN_DONE : send_reply(login, true, output, err);
}

static int (*const steps[])(struct mp_login *, const char *const[KEYS], bool, struct mp_bytes *,
                            struct manypath_error *) = {
    [MP_LOGIN_METHOD] = after_method,
    [MP_LOGIN_ALGORITHM] = after_algorithm,
    [MP_LOGIN_PROOF] = after_proof,
    [MP_LOGIN_SECURITY_END] = leave_security,
    [MP_LOGIN_OPERATIONAL] = after_operational,
};

/* ---- responses ---- */

static int redirected(struct mp_login *login, const struct mp_iscsi_pdu *pdu,
                      struct manypath_error *err)
{
    struct mp_iscsi_text rest = {(const char *)pdu->data, pdu->length};
    struct mp_iscsi_pair pair;

    while (mp_iscsi_text_next(&rest, &pair) > 0)
        if (mp_iscsi_key_is(&pair, "TargetAddress") &&
            mp_target_address_parse(pair.value, &login->redirect) == 0 &&
            login->redirect.host[0] != '\0')
            return MP_LOGIN_REDIRECTED;
    return broken(err, "redirects the login, but does not say where to");
}

/* Section 11.13.5. */
static const char *initiator_error(uint8_t detail)
{
    static const char *const words[] = {
        [0x02] = "this initiator name is not allowed to",
        [0x03] = "not found",
        [0x04] = "the target was removed",
        [0x05] = "no common iSCSI version",
        [0x06] = "too many connections",
        [0x07] = "a parameter is missing",
        [0x09] = "no discovery sessions here",
        [0x0b] = "invalid request during the login",
    };
    const char *word = detail < sizeof words / sizeof words[0] ? words[detail] : NULL;

    return word != NULL ? word : "initiator error";
}

static const char *target_error(uint8_t detail)
{
    return detail == 1 ? "service unavailable" : detail == 2 ? "out of resources" : "target error";
}

static int refused(struct mp_login *login, const struct mp_iscsi_pdu *pdu,
                   struct manypath_error *err)
{
    unsigned status = (unsigned)pdu->status_class << 8 | pdu->status_detail;

    if (status == STATUS_AUTHENTICATION && login->chap == NULL)
        return auth_demanded(err);
    if (status == STATUS_AUTHENTICATION)
        return fail_auth(err, "the target does not accept the discovery credentials: wrong CHAP "
                              "user name or password");
    switch (pdu->status_class) {
    case STATUS_REDIRECT:
        return redirected(login, pdu, err);
    case STATUS_INITIATOR:
        return mp_error(err, MANYPATH_E_LOGIN_REJECTED, MANYPATH_PHASE_DISCOVERY, 0,
                        "the target rejects the discovery login: %s (iSCSI login status %04x)",
                        initiator_error(pdu->status_detail), status);
    case STATUS_TARGET:
        return mp_error(err, MANYPATH_E_LOGIN, MANYPATH_PHASE_DISCOVERY, 0,
                        "the target cannot serve discovery now: %s (iSCSI login status %04x)",
                        target_error(pdu->status_detail), status);
    default:
        return mp_error(err, MANYPATH_E_PROTOCOL, MANYPATH_PHASE_DISCOVERY, 0,
                        "the target sent the unknown iSCSI login status %04x", status);
    }
}

/* What section 11.13 demands of the header. TSIH is needed for nothing here. StatSN is followed,
 * not checked: with one request under way nothing can be missed unnoticed. */
static int check_header(const struct mp_login *login, const struct mp_iscsi_pdu *pdu,
                        struct manypath_error *err)
{
    if (memcmp(pdu->isid, login->isid, sizeof pdu->isid) != 0)
        return broken(err, "answered the login of another session");
    if (pdu->version_active != 0)
        return broken(err, "answered in an iSCSI version that was not offered");
    if (pdu->csg == STAGE_SECURITY && login->chap == NULL)
        return auth_demanded(err);
    if (pdu->csg != login->stage)
        return broken(err, "answered in another login stage");
    if (pdu->final && (!login->transit_asked || pdu->more || pdu->nsg != next_stage(login)))
        return broken(err, "left the login stage out of turn");
    return 0;
}

int mp_login_response(struct mp_login *login, const struct mp_iscsi_pdu *pdu,
                      struct mp_bytes *output, struct manypath_error *err)
{
    const char *values[KEYS] = {NULL};
    int result;

    if (pdu->itt != TASK_TAG)
        return broken(err, "answered a request that was not sent");
    if (pdu->status_class != 0)
        return refused(login, pdu, err);
    if ((result = check_header(login, pdu, err)) < 0)
        return result;
    if (++login->answers > ANSWERS_MAX)
        return broken(err, "does not come to an end with the login");
    login->exp_stat_sn = pdu->stat_sn + 1;
    result = stored(mp_bytes_append(&login->text, pdu->data, pdu->length, TEXT_MAX), err,
                    "sent more login text than iSCSI allows");
    if (result < 0)
        return result;
    if (pdu->more) /* section 6.2: asked on with an empty request */
        return send_reply(login, false, output, err);
    if ((result = take_text(login, values, err)) == 0)
        result = steps[login->state](login, values, pdu->final, output, err);
    mp_bytes_clear(&login->text);
    return result;
}

int mp_login_begin(struct mp_login *login, const char *initiator, struct mp_bytes *output,
                   struct manypath_error *err)
{
    int result = login->chap != NULL ? select_algorithms(login, err) : 0;

    login->cmd_sn = 1;
    if (result == 0)
        result = add(login, "InitiatorName", initiator, err);
    if (result == 0)
        result = add(login, "SessionType", "Discovery", err);
    if (result < 0)
        return result;
    if (login->chap == NULL)
        return begin_operational(login, output, err);
    login->state = MP_LOGIN_METHOD;
    login->stage = STAGE_SECURITY;
    result = add(login, "AuthMethod", is_mutual(login) ? "CHAP" : "CHAP,None", err);
    return result < 0 ? result : send_reply(login, false, output, err);
}

void mp_login_free(struct mp_login *login)
{
    mp_bytes_free(&login->text);
    mp_bytes_free(&login->reply);
    explicit_bzero(login, sizeof *login);
}
