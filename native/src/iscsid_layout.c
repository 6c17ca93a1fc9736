/* SPDX-License-Identifier: Apache-2.0 */
#include "iscsid_layout.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const struct mp_iscsid_layout mp_iscsid_layouts[] = {
#include "iscsid_layout.inc"
};
const size_t mp_iscsid_layout_count = sizeof(mp_iscsid_layouts) / sizeof(mp_iscsid_layouts[0]);

#define FIELD(name, kind, least, greatest, required)                                               \
    {#name, offsetof(struct mp_iscsid_layout, name), MP_ISCSID_##kind, least, greatest, required},
const struct mp_iscsid_field_info mp_iscsid_fields[] = {MP_ISCSID_FIELDS(FIELD)};
#undef FIELD

enum { FIELD_COUNT = sizeof(mp_iscsid_fields) / sizeof(mp_iscsid_fields[0]) };
const size_t mp_iscsid_field_count = FIELD_COUNT;

_Static_assert(MP_ISCSID_REQUEST_MAX <= UINT16_MAX, "slots are 16 bits wide");
/* A 32-bit iscsid has other places, and two of its sizes are those of other releases on 64-bit. */
_Static_assert(sizeof(void *) == 8 && sizeof(int) == 4, "the table holds 64-bit layouts");

struct mp_iscsid_slot mp_iscsid_layout_slot(const struct mp_iscsid_layout *layout,
                                            const struct mp_iscsid_field_info *field)
{
    struct mp_iscsid_slot slot;

    memcpy(&slot, (const char *)layout + field->slot, sizeof(slot));
    return slot;
}

static void set_slot(struct mp_iscsid_layout *layout, const struct mp_iscsid_field_info *field,
                     struct mp_iscsid_slot slot)
{
    memcpy((char *)layout + field->slot, &slot, sizeof(slot));
}

const struct mp_iscsid_layout *mp_iscsid_layout_find(const struct mp_iscsid_layout *extra,
                                                     size_t extra_count, uint32_t request_size)
{
    for (size_t i = 0; extra != NULL && i < extra_count; i++)
        if (extra[i].request_size == request_size)
            return &extra[i];
    for (size_t i = 0; i < mp_iscsid_layout_count; i++)
        if (mp_iscsid_layouts[i].request_size == request_size)
            return &mp_iscsid_layouts[i];
    return NULL;
}

static size_t insert_size(uint32_t *sizes, size_t count, size_t max, uint32_t size)
{
    size_t at = 0;

    while (at < count && sizes[at] < size)
        at++;
    if ((at < count && sizes[at] == size) || count == max)
        return count;
    memmove(&sizes[at + 1], &sizes[at], (count - at) * sizeof(sizes[0]));
    sizes[at] = size;
    return count + 1;
}

size_t mp_iscsid_layout_sizes(const struct mp_iscsid_layout *extra, size_t extra_count,
                              uint32_t *ret_sizes, size_t max)
{
    size_t count = 0;

    for (size_t i = 0; i < mp_iscsid_layout_count; i++)
        count = insert_size(ret_sizes, count, max, mp_iscsid_layouts[i].request_size);
    for (size_t i = 0; extra != NULL && i < extra_count; i++)
        count = insert_size(ret_sizes, count, max, extra[i].request_size);
    return count;
}

/* --- the parser ------------------------------------------------------------------------------- */

struct parser {
    struct mp_iscsid_layout layout;
    size_t line;
    size_t name_line, versions_line, size_line, static_line; /* 0: not seen yet */
    size_t field_line[FIELD_COUNT];
    char *reason;
    size_t reason_size;
};

struct word {
    const char *text;
    size_t len;
};

enum { MAX_WORDS = 4 }; /* one more than any line may have */

__attribute__((format(printf, 3, 4))) static int refuse(struct parser *p, size_t line,
                                                        const char *format, ...)
{
    va_list args;
    int used = 0;

    if (p->reason == NULL || p->reason_size == 0)
        return -EINVAL;
    if (line != 0)
        used = snprintf(p->reason, p->reason_size, "line %zu: ", line);
    if (used >= 0 && (size_t)used < p->reason_size) {
        va_start(args, format);
        vsnprintf(p->reason + used, p->reason_size - (size_t)used, format, args);
        va_end(args);
    }
    return -EINVAL;
}

static int word_is(struct word word, const char *text)
{
    return strlen(text) == word.len && memcmp(word.text, text, word.len) == 0;
}

/* Decimal without sign or leading zeros, at most max. */
static int parse_number(struct word word, uint32_t max, uint32_t *ret)
{
    uint64_t value = 0;

    if (word.len == 0 || word.len > 10 || (word.len > 1 && word.text[0] == '0'))
        return -EINVAL;
    for (size_t i = 0; i < word.len; i++) {
        if (word.text[i] < '0' || word.text[i] > '9')
            return -EINVAL;
        value = value * 10 + (uint64_t)(word.text[i] - '0');
    }
    if (value > max)
        return -EINVAL;
    *ret = (uint32_t)value;
    return 0;
}

static int is_name_byte(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("._+~,-", c) != NULL);
}

static int parse_name(struct parser *p, struct word word, char *ret, size_t ret_size)
{
    if (word.len == 0 || word.len >= ret_size)
        return refuse(p, p->line, "want 1 to %zu characters", ret_size - 1);
    for (size_t i = 0; i < word.len; i++)
        if (!is_name_byte(word.text[i]))
            return refuse(p, p->line, "want only A-Z a-z 0-9 . _ + ~ , -");
    memcpy(ret, word.text, word.len);
    ret[word.len] = '\0';
    return 0;
}

static int parse_key(struct parser *p, const struct word *words, size_t count, size_t *seen)
{
    uint32_t value;

    if (*seen != 0)
        return refuse(p, p->line, "'%.*s' was already given in line %zu", (int)words[0].len,
                      words[0].text, *seen);
    if (count != 2)
        return refuse(p, p->line, "want '%.*s' and one value", (int)words[0].len, words[0].text);
    *seen = p->line;
    if (seen == &p->name_line)
        return parse_name(p, words[1], p->layout.name, sizeof(p->layout.name));
    if (seen == &p->versions_line)
        return parse_name(p, words[1], p->layout.versions, sizeof(p->layout.versions));
    if (seen == &p->static_line) {
        if (parse_number(words[1], 255, &value) < 0)
            return refuse(p, p->line, "static_discovery: want a number, 0 to 255");
        p->layout.static_discovery = (int32_t)value;
        return 0;
    }
    if (parse_number(words[1], MP_ISCSID_REQUEST_MAX, &value) < 0 ||
        value < MP_ISCSID_REQUEST_MIN || value % 4 != 0)
        return refuse(p, p->line, "request_size: want a multiple of 4, %u to %u",
                      MP_ISCSID_REQUEST_MIN, MP_ISCSID_REQUEST_MAX);
    p->layout.request_size = value;
    return 0;
}

static int parse_field(struct parser *p, const struct word *words, size_t count)
{
    const struct mp_iscsid_field_info *field;
    uint32_t offset, width;
    size_t i = 0;

    while (i < FIELD_COUNT && !word_is(words[0], mp_iscsid_fields[i].name))
        i++;
    if (i == FIELD_COUNT)
        return refuse(p, p->line, "unknown field '%.*s'",
                      words[0].len > 40 ? 40 : (int)words[0].len, words[0].text);
    field = &mp_iscsid_fields[i];
    if (p->field_line[i] != 0)
        return refuse(p, p->line, "'%s' was already given in line %zu", field->name,
                      p->field_line[i]);
    p->field_line[i] = p->line;
    if (count != 3 || parse_number(words[1], UINT16_MAX, &offset) < 0 ||
        parse_number(words[2], UINT16_MAX, &width) < 0)
        return refuse(p, p->line, "want '%s OFFSET WIDTH' in plain decimal", field->name);
    if (width < field->least || width > field->greatest)
        return refuse(p, p->line, "'%s' is %u bytes wide, want %u to %u", field->name, width,
                      field->least, field->greatest);
    if ((field->kind == MP_ISCSID_INT || field->kind == MP_ISCSID_LIST) && offset % 4 != 0)
        return refuse(p, p->line, "'%s' at %u is not aligned to 4", field->name, offset);
    set_slot(&p->layout, field,
             (struct mp_iscsid_slot){.offset = (uint16_t)offset, .width = (uint16_t)width});
    return 0;
}

static int parse_line(struct parser *p, const char *text, size_t len)
{
    struct word words[MAX_WORDS];
    size_t count = 0;

    for (size_t i = 0; i < len && text[i] != '#';) {
        if (text[i] == ' ' || text[i] == '\t') {
            i++;
            continue;
        }
        if (count == MAX_WORDS)
            return refuse(p, p->line, "too many words");
        words[count].text = &text[i];
        while (i < len && text[i] != ' ' && text[i] != '\t' && text[i] != '#')
            i++;
        words[count].len = (size_t)(&text[i] - words[count].text);
        count++;
    }
    if (count == 0)
        return 0;
    if (word_is(words[0], "name"))
        return parse_key(p, words, count, &p->name_line);
    if (word_is(words[0], "versions"))
        return parse_key(p, words, count, &p->versions_line);
    if (word_is(words[0], "request_size"))
        return parse_key(p, words, count, &p->size_line);
    if (word_is(words[0], "static_discovery"))
        return parse_key(p, words, count, &p->static_line);
    return parse_field(p, words, count);
}

static int check_whole(struct parser *p)
{
    const struct mp_iscsid_field_info *fields = mp_iscsid_fields;

    if (p->name_line == 0 || p->versions_line == 0 || p->size_line == 0 || p->static_line == 0)
        return refuse(p, 0, "no line '%s'",
                      p->name_line == 0       ? "name"
                      : p->versions_line == 0 ? "versions"
                      : p->size_line == 0     ? "request_size"
                                              : "static_discovery");
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        struct mp_iscsid_slot slot = mp_iscsid_layout_slot(&p->layout, &fields[i]);

        if (p->field_line[i] == 0) {
            if (fields[i].required)
                return refuse(p, 0, "no line for field '%s'", fields[i].name);
            continue;
        }
        if (slot.offset < MP_ISCSID_HEADER_SIZE)
            return refuse(p, p->field_line[i], "'%s' lies in the request's header", fields[i].name);
        if ((uint32_t)slot.offset + slot.width > p->layout.request_size)
            return refuse(p, p->field_line[i], "'%s' ends at %u, behind the request of %u bytes",
                          fields[i].name, (uint32_t)slot.offset + slot.width,
                          p->layout.request_size);
        for (size_t j = 0; j < i; j++) {
            struct mp_iscsid_slot other = mp_iscsid_layout_slot(&p->layout, &fields[j]);

            if (p->field_line[j] != 0 && slot.offset < other.offset + other.width &&
                other.offset < slot.offset + slot.width)
                return refuse(p, p->field_line[i], "'%s' overlaps '%s' of line %zu", fields[i].name,
                              fields[j].name, p->field_line[j]);
        }
    }
    /* LOGOUT, SESSION_INFO and STATS need it there too, whatever the record looks like. */
    if (p->layout.sid.offset != MP_ISCSID_SID_OFFSET)
        return refuse(p, p->field_line[0], "'sid' has to be at %u", MP_ISCSID_SID_OFFSET);
    return 0;
}

int mp_iscsid_layout_parse(const char *text, size_t len, struct mp_iscsid_layout *ret,
                           char *ret_reason, size_t reason_size)
{
    struct parser p = {.reason = ret_reason, .reason_size = reason_size};
    int rc;

    if (len > MP_ISCSID_LAYOUT_FILE_MAX)
        return refuse(&p, 0, "longer than %u bytes", MP_ISCSID_LAYOUT_FILE_MAX);
    for (size_t start = 0; start < len;) {
        size_t end = start;

        p.line++;
        while (end < len && text[end] != '\n') {
            unsigned char c = (unsigned char)text[end];

            if ((c < 0x20 && c != '\t') || c > 0x7e)
                return refuse(&p, p.line, "byte 0x%02x is not plain text", c);
            end++;
        }
        rc = parse_line(&p, text + start, end - start);
        if (rc < 0)
            return rc;
        start = end + 1;
    }
    rc = check_whole(&p);
    if (rc < 0)
        return rc;
    *ret = p.layout;
    return 0;
}

/* --- the operator's directory ----------------------------------------------------------------- */

enum { DIR_MAX_FILES = 256 };

static void reason_set(char *reason, size_t size, const char *file, const char *why)
{
    if (reason != NULL && size > 0)
        snprintf(reason, size, "%s: %s", file, why);
}

/* A file that others may write would let them choose where root's daemon finds its strings. */
static const char *check_owner(const struct stat *st, uid_t owner)
{
    if (st->st_uid != owner)
        return owner == 0 ? "not owned by root" : "wrong owner";
    if ((st->st_mode & (S_IWGRP | S_IWOTH)) != 0)
        return "writable by group or others";
    return NULL;
}

static int is_layout_name(const struct dirent *entry)
{
    static const char suffix[] = ".layout";
    size_t len = strlen(entry->d_name);

    return entry->d_name[0] != '.' && len > sizeof(suffix) - 1 &&
           memcmp(entry->d_name + len - (sizeof(suffix) - 1), suffix, sizeof(suffix) - 1) == 0;
}

/* alphasort() follows the locale. */
static int by_bytes(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

/* Returns the length, or -1 with *ret_why set. buf holds one byte more than a file may have. */
static ssize_t read_file(int dir, const char *name, uid_t owner, char *buf, const char **ret_why)
{
    struct stat st;
    size_t len = 0;
    ssize_t got = 0;
    int fd;

    /* Not O_NOFOLLOW: a Kubernetes config map is made of links, and what counts is the file.
     * O_NONBLOCK: a FIFO must not hold us. */
    fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        *ret_why = "cannot be opened";
        return -1;
    }
    if (fstat(fd, &st) < 0)
        *ret_why = "cannot be examined";
    else if (!S_ISREG(st.st_mode))
        *ret_why = "not a regular file";
    else
        *ret_why = check_owner(&st, owner);
    while (*ret_why == NULL && len <= MP_ISCSID_LAYOUT_FILE_MAX) {
        got = read(fd, buf + len, MP_ISCSID_LAYOUT_FILE_MAX + 1 - len);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            *ret_why = "cannot be read";
        if (got <= 0)
            break;
        len += (size_t)got;
    }
    if (*ret_why == NULL && len > MP_ISCSID_LAYOUT_FILE_MAX)
        *ret_why = "longer than 65536 bytes";
    close(fd);
    return *ret_why == NULL ? (ssize_t)len : -1;
}

static int same_size(const struct mp_iscsid_layout *layouts, size_t count, uint32_t size)
{
    for (size_t i = 0; i < count; i++)
        if (layouts[i].request_size == size)
            return 1;
    return 0;
}

static const char *load_one(int dir, const char *name, uid_t owner, char *buf,
                            struct mp_iscsid_layout *ret, size_t count, size_t max, char *parse_why,
                            size_t parse_size)
{
    const char *why = NULL;
    struct mp_iscsid_layout layout;
    ssize_t len = read_file(dir, name, owner, buf, &why);

    if (len < 0)
        return why;
    if (mp_iscsid_layout_parse(buf, (size_t)len, &layout, parse_why, parse_size) < 0)
        return parse_why;
    if (same_size(ret, count, layout.request_size))
        return "another file has the same request_size";
    if (count == max)
        return "too many layouts";
    ret[count] = layout;
    return NULL;
}

int mp_iscsid_layout_load_dir(const char *path, uid_t owner, struct mp_iscsid_layout *ret,
                              size_t max, size_t *ret_refused, char *ret_reason, size_t reason_size)
{
    struct dirent **names = NULL;
    char parse_why[160];
    const char *why = NULL;
    char *buf = NULL;
    size_t count = 0, refused = 0;
    struct stat st;
    int dir, found = 0, rc = 0;

    dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) {
        rc = -errno;
        if (rc == -ENOENT) {
            *ret_refused = 0;
            return 0;
        }
        reason_set(ret_reason, reason_size, path, "cannot be opened");
        return rc;
    }
    if (fstat(dir, &st) < 0) {
        rc = -errno;
        why = "cannot be examined";
    } else if ((why = check_owner(&st, owner)) != NULL) {
        rc = -EPERM;
    } else if ((found = scandir(path, &names, is_layout_name, by_bytes)) < 0) {
        rc = -errno;
        why = "cannot be listed";
    } else if (found > DIR_MAX_FILES) {
        rc = -E2BIG;
        why = "too many files";
    } else if ((buf = malloc(MP_ISCSID_LAYOUT_FILE_MAX + 1)) == NULL) {
        rc = -ENOMEM;
        why = "no memory";
    }
    if (rc < 0)
        reason_set(ret_reason, reason_size, path, why);
    for (int i = 0; rc == 0 && i < found; i++) {
        why = load_one(dir, names[i]->d_name, owner, buf, ret, count, max, parse_why,
                       sizeof(parse_why));
        if (why == NULL)
            count++;
        else if (refused++ == 0)
            reason_set(ret_reason, reason_size, names[i]->d_name, why);
    }
    for (int i = 0; i < found; i++)
        free(names[i]);
    free(names);
    free(buf);
    close(dir);
    if (rc < 0)
        return rc;
    *ret_refused = refused;
    return (int)count;
}
