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
    static const struct mp_config_subject subject = {.wwid = "36001405aabbccddeeff00112233445566",
                                                     .devnode = "sdb",
                                                     .vendor = "LIO-ORG",
                                                     .product = "vol",
                                                     .protocol = "scsi:iscsi"};
    struct mp_multipathd_config *config = NULL;
    char rule[64] = "";
    char *text = malloc(size + 1);

    memcpy(text, data, size);
    text[size] = '\0';
    int r = mp_multipathd_config_parse(text, &config);

    if (r < 0) {
        assert((r == -E2BIG || r == -ENOMEM) && config == NULL);
    } else {
        bool matched = mp_multipathd_blacklists(config, &subject, rule, sizeof rule);

        assert(matched == (rule[0] != '\0'));
        assert(memchr(rule, '\0', sizeof rule) != NULL);
        mp_multipathd_skips_kpartx(config, &subject);
        mp_multipathd_config_free(config);
    }
    free(text);
    return 0;
}
