/* SPDX-License-Identifier: Apache-2.0 */
#include "multipathd_config.h"

#include <errno.h>
#include <regex.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TEXT_MAX = 32 * 1024 * 1024, /* of an answer, as multipathd.c */
    RULES_MAX = 4096,
    VALUE_MAX = 512,
    KEY_MAX = 64,
    DEPTH_MAX = 8,
};

/* What the C library may make of an expression, in characters: it copies what is to be repeated, and what
 * is in that once more, so "((a+)+)+" doubles with each sign (glibc posix/regcomp.c duplicate_tree). */
enum { PARENTHESES_MAX = 32, EXPANSION_MAX = 16384 };

enum kind { WWID, DEVNODE, PROTOCOL, VENDOR, PRODUCT, KINDS };

static const char *const kinds[KINDS] = {
    [WWID] = "wwid",     [DEVNODE] = "devnode", [PROTOCOL] = "protocol",
    [VENDOR] = "vendor", [PRODUCT] = "product",
};

/* One line, or the two of a device section. Expressions are compiled when they are asked. */
struct rule {
    enum kind kind; /* VENDOR stands for a device */
    bool exception;
    char *text;    /* of the line; of a device its vendor's; NULL: matches all */
    char *product; /* NULL: matches all */
};

struct mp_blacklist {
    size_t count, capacity;
    struct rule *rules;
};

/* ---- rules ---- */

static void free_rule(struct rule *rule)
{
    free(rule->text);
    free(rule->product);
    rule->text = rule->product = NULL;
}

/* How often this sign has what stands before it copied; moves behind the numbers of "{2,5}". */
static uint64_t copies(const char **at)
{
    uint64_t most = 1, number = 0;

    if (**at == '+')
        return 2;
    if (**at != '{')
        return 1;
    for (; (*at)[1] == ',' || ((*at)[1] >= '0' && (*at)[1] <= '9'); (*at)++) {
        number = (*at)[1] == ',' ? 0 : number * 10 + (uint64_t)((*at)[1] - '0');
        if (number > most)
            most = number < EXPANSION_MAX ? number : EXPANSION_MAX;
    }
    return most + 1;
}

static bool is_modest(const char *expression)
{
    uint64_t expansion = strlen(expression);
    unsigned parentheses = 0;

    for (const char *at = expression; *at != '\0' && expansion <= EXPANSION_MAX; at++) {
        parentheses += *at == '(';
        expansion *= copies(&at);
    }
    /* regcomp() goes down once for each, on a worker's small stack */
    return expansion <= EXPANSION_MAX && parentheses <= PARENTHESES_MAX;
}

/* As multipath-tools reads it (libmultipath/blacklist.c): extended, and "!" before it negates. What is no
 * expression matches nothing. */
static bool matches(const char *text, const char *value)
{
    regex_t regex;

    if (text == NULL)
        return true;
    bool inverted = text[0] == '!';
    const char *expression = text + (inverted || (text[0] == '\\' && text[1] == '!'));

    if (!is_modest(expression) || regcomp(&regex, expression, REG_EXTENDED | REG_NOSUB) != 0)
        return false;
    bool found = regexec(&regex, value, 0, NULL, 0) == 0;

    regfree(&regex);
    return found != inverted;
}

static int add_rule(struct mp_blacklist *blacklist, const struct rule *rule)
{
    if (blacklist->count == RULES_MAX)
        return -E2BIG;
    if (blacklist->count == blacklist->capacity) {
        size_t capacity = blacklist->capacity == 0 ? 32 : blacklist->capacity * 2;
        struct rule *larger = reallocarray(blacklist->rules, capacity, sizeof *larger);

        if (larger == NULL)
            return -ENOMEM;
        blacklist->rules = larger;
        blacklist->capacity = capacity;
    }
    blacklist->rules[blacklist->count++] = *rule;
    return 0;
}

/* ---- the text ---- */

struct line {
    char key[KEY_MAX];
    char value[VALUE_MAX];
    bool opens;    /* "key {" */
    bool closes;   /* "}" */
    bool indented; /* there are blanks before it */
};

struct parser {
    const char *at;
    struct mp_blacklist *blacklist;
    unsigned depth;
    bool in_list;   /* in one of the two sections */
    bool exception; /* and in which */
    bool in_device;
    struct rule device;
};

static bool is_blank(char byte)
{
    return byte == ' ' || byte == '\t' || byte == '\r';
}

static void skip_blanks(struct parser *parser)
{
    while (is_blank(*parser->at))
        parser->at++;
}

/* A word or a quoted text, in which "" is a quote. */
static int take_value(struct parser *parser, char *value)
{
    bool quoted = *parser->at == '"';
    size_t used = 0;

    parser->at += quoted;
    for (; *parser->at != '\0' && *parser->at != '\n'; parser->at++) {
        if (quoted && *parser->at == '"') {
            if (parser->at[1] != '"')
                break;
            parser->at++;
        } else if (!quoted && (is_blank(*parser->at) || *parser->at == '#')) {
            break;
        }
        if (used == VALUE_MAX - 1)
            return -E2BIG;
        value[used++] = *parser->at;
    }
    value[used] = '\0';
    parser->at += quoted && *parser->at == '"';
    return 0;
}

static int take_line(struct parser *parser, struct line *line)
{
    size_t used = 0;
    int result = 0;

    memset(line, 0, sizeof *line);
    line->indented = is_blank(*parser->at);
    skip_blanks(parser);
    line->closes = *parser->at == '}';
    if (*parser->at != '#' && *parser->at != '!' && !line->closes) {
        for (; *parser->at != '\0' && *parser->at != '\n' && *parser->at != '{' &&
               !is_blank(*parser->at);
             parser->at++)
            if (used < KEY_MAX - 1)
                line->key[used++] = *parser->at;
        skip_blanks(parser);
        line->opens = *parser->at == '{';
        if (!line->opens)
            result = take_value(parser, line->value);
    }
    while (*parser->at != '\0' && *parser->at != '\n')
        parser->at++;
    parser->at += *parser->at == '\n';
    return result;
}

static int end_device(struct parser *parser)
{
    int result = 0;

    parser->in_device = false;
    if (parser->device.text != NULL || parser->device.product != NULL)
        result = add_rule(parser->blacklist, &parser->device);
    if (result < 0)
        free_rule(&parser->device);
    memset(&parser->device, 0, sizeof parser->device);
    return result;
}

static int open_section(struct parser *parser, const char *key)
{
    if (parser->depth++ == 0) {
        parser->exception = strcmp(key, "blacklist_exceptions") == 0;
        parser->in_list = parser->exception || strcmp(key, "blacklist") == 0;
    } else if (parser->depth == 2 && parser->in_list && strcmp(key, "device") == 0) {
        parser->in_device = true;
        parser->device = (struct rule){.kind = VENDOR, .exception = parser->exception};
    }
    return parser->depth > DEPTH_MAX ? -E2BIG : 0;
}

/* multipathd leaves out the end of a device section that has no product (0.9.4, 0.11.1); what is not
 * indented ends all. */
static int close_section(struct parser *parser, bool indented)
{
    parser->depth = indented && parser->depth > 0 ? parser->depth - 1 : 0;
    parser->in_list = parser->in_list && parser->depth > 0;
    return parser->in_device && parser->depth < 2 ? end_device(parser) : 0;
}

static int take_rule(struct parser *parser, const struct line *line, enum kind kind)
{
    struct rule rule = {.kind = kind, .exception = parser->exception, .text = strdup(line->value)};
    int result = rule.text != NULL ? add_rule(parser->blacklist, &rule) : -ENOMEM;

    if (result < 0)
        free_rule(&rule);
    return result;
}

static int take_device_rule(struct parser *parser, const struct line *line, enum kind kind)
{
    char **into = kind == VENDOR ? &parser->device.text : &parser->device.product;

    free(*into);
    *into = strdup(line->value);
    return *into != NULL ? 0 : -ENOMEM;
}

static int take_setting(struct parser *parser, const struct line *line)
{
    for (enum kind kind = 0; kind < KINDS; kind++) {
        if (strcmp(line->key, kinds[kind]) != 0)
            continue;
        bool of_device = kind == VENDOR || kind == PRODUCT;

        if (parser->in_device && of_device && parser->depth == 2)
            return take_device_rule(parser, line, kind);
        if (!of_device && parser->in_list && parser->depth == 1)
            return take_rule(parser, line, kind);
    }
    return 0;
}

int mp_blacklist_parse(const char *text, struct mp_blacklist **ret_blacklist)
{
    struct parser parser = {.at = text, .blacklist = calloc(1, sizeof *parser.blacklist)};
    int result = 0;

    if (parser.blacklist == NULL)
        return -ENOMEM;
    if (strnlen(text, TEXT_MAX + 1) > TEXT_MAX)
        result = -E2BIG;
    while (result == 0 && *parser.at != '\0') {
        struct line line;

        result = take_line(&parser, &line);
        if (result < 0)
            break;
        if (line.closes)
            result = close_section(&parser, line.indented);
        else if (line.opens)
            result = open_section(&parser, line.key);
        else
            result = take_setting(&parser, &line);
    }
    if (result == 0 && parser.in_device)
        result = end_device(&parser);
    if (result < 0) {
        free_rule(&parser.device);
        mp_blacklist_free(parser.blacklist);
        return result;
    }
    *ret_blacklist = parser.blacklist;
    return 0;
}

/* ---- asking ---- */

static bool rule_matches(const struct rule *rule, const struct mp_blacklist_subject *subject)
{
    switch (rule->kind) {
    case WWID:
        return matches(rule->text, subject->wwid);
    case DEVNODE:
        return matches(rule->text, subject->devnode);
    case PROTOCOL:
        return matches(rule->text, subject->protocol);
    default:
        return matches(rule->text, subject->vendor) && matches(rule->product, subject->product);
    }
}

static const struct rule *find(const struct mp_blacklist *blacklist, enum kind kind, bool exception,
                               const struct mp_blacklist_subject *subject)
{
    for (size_t i = 0; i < blacklist->count; i++) {
        const struct rule *rule = &blacklist->rules[i];

        if (rule->kind == kind && rule->exception == exception && rule_matches(rule, subject))
            return rule;
    }
    return NULL;
}

static void describe(const struct rule *rule, char *text, size_t size)
{
    const char *vendor = rule->text, *product = rule->product;

    if (rule->kind != VENDOR)
        snprintf(text, size, "%s \"%s\"", kinds[rule->kind], vendor);
    else
        snprintf(text, size, "device {%s%s%s%s%s%s }", vendor != NULL ? " vendor \"" : "",
                 vendor != NULL ? vendor : "", vendor != NULL ? "\"" : "",
                 product != NULL ? " product \"" : "", product != NULL ? product : "",
                 product != NULL ? "\"" : "");
}

bool mp_blacklist_matches(const struct mp_blacklist *blacklist,
                          const struct mp_blacklist_subject *subject, char *ret_rule, size_t size)
{
    for (enum kind kind = 0; kind < KINDS; kind++) {
        const struct rule *rule = find(blacklist, kind, false, subject);

        if (rule == NULL || find(blacklist, kind, true, subject) != NULL)
            continue;
        describe(rule, ret_rule, size);
        return true;
    }
    return false;
}

void mp_blacklist_free(struct mp_blacklist *blacklist)
{
    if (blacklist == NULL)
        return;
    for (size_t i = 0; i < blacklist->count; i++)
        free_rule(&blacklist->rules[i]);
    free(blacklist->rules);
    free(blacklist);
}
