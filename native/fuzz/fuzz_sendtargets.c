/* SPDX-License-Identifier: Apache-2.0 */
/* The answer to SendTargets. A list written down again is read as the same list. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../src/bytes.h"
#include "../src/iscsi_text.h"
#include "../src/sendtargets.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct manypath_discovered *target)
{
    size_t length = strnlen(target->iqn, sizeof target->iqn);

    assert(length > 4 && length < sizeof target->iqn);
    assert(strspn(target->iqn, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                               "0123456789-.:_") == length);
    assert(memchr(target->host, '\0', sizeof target->host) != NULL);
    assert(strspn(target->host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                "0123456789-.:_") == strlen(target->host));
    assert(target->tag >= -1 && target->tag <= 65535);
    assert(target->port != 0 || (target->host[0] == '\0' && target->tag == -1));
}

static void write_down(const struct manypath_discovered *target, struct mp_bytes *text)
{
    const char *host = target->host[0] != '\0' ? target->host : "0.0.0.0";
    char address[MANYPATH_HOST_SIZE + 16], tag[8] = "";

    assert(mp_iscsi_text_add(text, "TargetName", target->iqn, SIZE_MAX) == 0);
    if (target->port == 0)
        return;
    if (target->tag >= 0)
        snprintf(tag, sizeof tag, ",%d", target->tag);
    snprintf(address, sizeof address, strchr(host, ':') != NULL ? "[%s]:%u%s" : "%s:%u%s", host,
             target->port, tag);
    assert(mp_iscsi_text_add(text, "TargetAddress", address, SIZE_MAX) == 0);
}

static void check_again(const struct mp_sendtargets *list)
{
    struct mp_bytes text = {0};
    struct mp_sendtargets again;
    size_t too_long = 0;

    for (size_t i = 0; i < list->count; i++) {
        /* the port and tag that were not told may make it longer than an address can be */
        too_long += strlen(list->targets[i].host) > MP_ISCSI_VALUE_MAX - 12;
        write_down(&list->targets[i], &text);
    }
    assert(mp_sendtargets_parse(text.data, text.length, &again) == 0);
    if (too_long == 0) {
        assert(again.count == list->count && again.skipped == 0);
        for (size_t i = 0; i < list->count; i++) {
            assert(strcmp(again.targets[i].iqn, list->targets[i].iqn) == 0);
            assert(strcmp(again.targets[i].host, list->targets[i].host) == 0);
            assert(again.targets[i].port == list->targets[i].port);
            assert(again.targets[i].tag == list->targets[i].tag);
        }
    }
    free(again.targets);
    mp_bytes_free(&text);
}

static void check_address(const uint8_t *data, size_t size)
{
    struct mp_target_address address = {.tag = 77};
    char text[512];

    if (size >= sizeof text)
        return;
    memcpy(text, data, size);
    text[size] = '\0';
    int result = mp_target_address_parse(text, &address);

    assert(result == 0 || (result == -EINVAL && address.tag == 77));
    assert(result < 0 || address.port != 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mp_sendtargets list = {.count = 77};
    int result = mp_sendtargets_parse(data, size, &list);

    check_address(data, size);
    if (result < 0) {
        assert(result == -EPROTO || result == -EOPNOTSUPP || result == -E2BIG);
        assert(list.count == 77);
        return 0;
    }
    assert(list.count <= MP_SENDTARGETS_MAX);
    for (size_t i = 0; i < list.count; i++)
        check(&list.targets[i]);
    check_again(&list);
    free(list.targets);
    return 0;
}
