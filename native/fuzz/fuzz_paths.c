/* SPDX-License-Identifier: Apache-2.0 */
/* multipathd's list of paths; the name that is looked for is the input's first line. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../src/forget.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    char name[MANYPATH_DEVICE_SIZE];

    if (text == NULL)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    size_t length = strcspn(text, "\n");

    if (length < sizeof name) {
        memcpy(name, text, length);
        name[length] = '\0';
        bool listed = mp_path_listed(text, name);

        if (length > 0 && name[length - 1] != ' ' && name[length - 1] != '\t')
            assert(listed);
        assert(!mp_path_listed(text + length, "never\nlisted"));
    }
    free(text);
    return 0;
}
