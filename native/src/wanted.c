/* SPDX-License-Identifier: Apache-2.0 */
#include "wanted.h"

#include "error.h"
#include "text.h"

#include <string.h>
#include <strings.h>

/* "naa.600..." is "3600...": how the same number is spelled -> what multipathd puts before it. */
static const struct {
    const char *spelling;
    char prefix;
} spellings[] = {{"naa.", '3'}, {"eui.", '2'}};

/* How many hexadecimal digits a name of this type has (SPC-4 7.8.6.5 and 7.8.6.6). */
static bool is_number(char type, const char *digits)
{
    size_t length = strlen(digits);

    if (strspn(digits, "0123456789abcdef") != length)
        return false;
    if (type == '2')
        return length == 16 || length == 24 || length == 32;
    return length == (digits[0] == '6' ? 32 : 16);
}

/* Other designators have names of any kind; udev has put something for blanks and slashes. */
static bool is_name(const char *text)
{
    if (text[0] == '\0' || strchr("018S", text[0]) == NULL || text[1] == '\0' ||
        strncasecmp(text, "0x", 2) == 0)
        return false;
    for (; *text != '\0'; text++)
        if (*text <= ' ' || *text > '~' || *text == '/')
            return false;
    return true;
}

static bool parse_wwid(const char *text, char ret_wwid[MANYPATH_WWID_SIZE])
{
    char wwid[MANYPATH_WWID_SIZE];
    size_t used = 0;

    for (size_t i = 0; i < sizeof spellings / sizeof spellings[0]; i++) {
        size_t length = strlen(spellings[i].spelling);

        if (used == 0 && strncasecmp(text, spellings[i].spelling, length) == 0) {
            wwid[used++] = spellings[i].prefix;
            text += length;
        }
    }
    if (!mp_copy(wwid + used, sizeof wwid - used, text))
        return false;
    if (wwid[0] == '2' || wwid[0] == '3') {
        for (char *c = wwid; *c != '\0'; c++)
            if (*c >= 'A' && *c <= 'F')
                *c = (char)(*c - 'A' + 'a');
        if (!is_number(wwid[0], wwid + 1))
            return false;
    } else if (!is_name(wwid)) {
        return false;
    }
    mp_copy(ret_wwid, MANYPATH_WWID_SIZE, wwid);
    return true;
}

static bool parse_serial(const char *text, char ret_serial[MP_SERIAL_SIZE])
{
    size_t length;

    text += strspn(text, " ");
    length = strlen(text);
    while (length > 0 && text[length - 1] == ' ')
        length--;
    if (length == 0 || length >= MP_SERIAL_SIZE)
        return false;
    for (size_t i = 0; i < length; i++)
        if (text[i] < ' ' || text[i] > '~')
            return false;
    memcpy(ret_serial, text, length);
    ret_serial[length] = '\0';
    return true;
}

int mp_wanted_parse(const char *wwid, const char *serial, struct mp_wanted *ret_wanted,
                    struct manypath_error *err)
{
    struct mp_wanted wanted = {.wwid = ""};
    char buffer[160];

    if (wwid != NULL && !parse_wwid(wwid, wanted.wwid))
        return mp_error(err, MANYPATH_E_INVALID, MANYPATH_PHASE_REQUEST, 0,
                        "the expected wwid '%s' is none; give it as multipathd does, such as "
                        "36001405..., or as naa.6001405... or eui.0024..., and no name of a link",
                        mp_printable(wwid, buffer, sizeof buffer));
    if (serial != NULL && !parse_serial(serial, wanted.serial))
        return mp_error(err, MANYPATH_E_INVALID, MANYPATH_PHASE_REQUEST, 0,
                        "the expected serial '%s' is none; it is 1 to %d printable ASCII "
                        "characters, as in VPD page 0x80",
                        mp_printable(serial, buffer, sizeof buffer), MP_SERIAL_SIZE - 1);
    *ret_wanted = wanted;
    return 0;
}
