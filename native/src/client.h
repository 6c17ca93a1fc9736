/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exchanges with iscsid on the engine's loop: finds the request layout, keeps a bounded number of
 * logins in flight, sends each request on a socket of its own.
 */
#ifndef MP_CLIENT_H
#define MP_CLIENT_H

#include "address.h"
#include "engine.h"
#include "secret.h"

struct mp_exchange;

/* How an exchange ended. error.code 0: iscsid answered, with iscsid_code (0: done). */
struct mp_answer {
    struct manypath_error error;
    int32_t iscsid_code;
    uint64_t sent_ns; /* when the request left us, 0 if it never did */
};

/* How to log in. */
struct mp_login_terms {
    uint32_t timeout_s; /* of iscsid's login; stays with the session for its reconnects */
    int32_t replacement_timeout_s; /* until I/O on a lost session fails */
    struct mp_chap *chap;          /* or NULL */
};

typedef void (*mp_answer_fn)(void *owner, const struct mp_answer *answer);

struct mp_client *mp_client_new(struct manypath *handle);
void mp_client_free(struct mp_client *client);

/* Queues a request; it is sent at the end of this turn of the loop at the earliest. NULL: out of
 * memory. The exchange is gone when `answer` has been called, or after mp_client_forget(). */
struct mp_exchange *mp_client_login(struct mp_client *client, const struct mp_portal *portal,
                                    const char *iqn, const struct mp_login_terms *terms,
                                    mp_answer_fn answer, void *owner);
struct mp_exchange *mp_client_logout(struct mp_client *client, int32_t sid, mp_answer_fn answer,
                                     void *owner);

/* 0 while it waits for its turn. */
uint64_t mp_exchange_sent_ns(const struct mp_exchange *exchange);

/* Does anybody wait for it? An unwanted request is not sent again when iscsid breaks it off. */
void mp_exchange_want(struct mp_exchange *exchange, bool wanted);

/* When iscsid answered any login or logout the last time, 0: never. */
uint64_t mp_client_answered_ns(const struct mp_client *client);

/* Closes the socket; no answer is given. iscsid finishes a request that was sent all the same. */
void mp_client_forget(struct mp_client *client, struct mp_exchange *exchange);

/* End of a turn of the loop: sends what waits, frees what is finished. */
void mp_client_turn(struct mp_client *client);

#endif
