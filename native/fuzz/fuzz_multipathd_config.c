/* SPDX-License-Identifier: Apache-2.0 */
/* What multipathd answered to "show config local". */
#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../src/multipathd_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct mp_blacklist_subject subject = {.wwid =
                                                            "36001405aabbccddeeff00112233445566",
                                                        .devnode = "sdb",
                                                        .vendor = "LIO-ORG",
                                                        .product = "vol",
                                                        .protocol = "scsi:iscsi"};
    struct mp_blacklist *blacklist = NULL;
    char rule[64] = "";
    char *text = malloc(size + 1);

    memcpy(text, data, size);
    text[size] = '\0';
    int r = mp_blacklist_parse(text, &blacklist);

    if (r < 0) {
        assert((r == -E2BIG || r == -ENOMEM) && blacklist == NULL);
    } else {
        bool matched = mp_blacklist_matches(blacklist, &subject, rule, sizeof rule);

        assert(matched == (rule[0] != '\0'));
        assert(memchr(rule, '\0', sizeof rule) != NULL);
        mp_blacklist_free(blacklist);
    }
    free(text);
    return 0;
}
