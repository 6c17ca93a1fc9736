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

/* From DEFAULTS on a later one wins (libmultipath/propsel.c, mp_set_mpe() and so on). */
enum section { NONE, BLACKLIST, EXCEPTIONS, DEFAULTS, DEVICES, OVERRIDES, MULTIPATHS, SECTIONS };

static const char *const sections[SECTIONS] = {
    [NONE] = "",
    [BLACKLIST] = "blacklist",
    [EXCEPTIONS] = "blacklist_exceptions",
    [DEFAULTS] = "defaults",
    [DEVICES] = "devices",
    [OVERRIDES] = "overrides",
    [MULTIPATHS] = "multipaths",
};

/* One line, or those of a device or a multipath section that count. Expressions are compiled when they
 * are asked. */
struct rule {
    enum section section;
    enum kind kind; /* VENDOR stands for a device */
    char *text;     /* of the line; of a device its vendor's; NULL: matches all */
    char *product;  /* NULL: matches all */
    bool tells_kpartx, skip_kpartx;
};

struct mp_multipathd_config {
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

static int add_rule(struct mp_multipathd_config *config, const struct rule *rule)
{
    if (config->count == RULES_MAX)
        return -E2BIG;
    if (config->count == config->capacity) {
        size_t capacity = config->capacity == 0 ? 32 : config->capacity * 2;
        struct rule *larger = reallocarray(config->rules, capacity, sizeof *larger);

        if (larger == NULL)
            return -ENOMEM;
        config->rules = larger;
        config->capacity = capacity;
    }
    config->rules[config->count++] = *rule;
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
    struct mp_multipathd_config *config;
    unsigned depth;
    enum section section;
    bool in_item; /* a device or a multipath section in it */
    struct rule item;
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

/* A list of devices is a list of expressions; of other items only what they tell counts. */
static bool counts(const struct rule *item)
{
    return item->section == BLACKLIST || item->section == EXCEPTIONS
               ? item->text != NULL || item->product != NULL
               : item->tells_kpartx;
}

static int end_item(struct parser *parser)
{
    int result = 0;

    parser->in_item = false;
    if (counts(&parser->item))
        result = add_rule(parser->config, &parser->item);
    if (result < 0 || !counts(&parser->item))
        free_rule(&parser->item);
    memset(&parser->item, 0, sizeof parser->item);
    return result;
}

static enum section find_section(const char *key)
{
    enum section section = SECTIONS - 1;

    while (section > NONE && strcmp(key, sections[section]) != 0)
        section--;
    return section;
}

static int open_section(struct parser *parser, const char *key)
{
    enum section in = parser->section;

    if (parser->depth++ == 0) {
        parser->section = find_section(key);
    } else if (parser->depth == 2 && in != NONE && in != DEFAULTS && in != OVERRIDES &&
               strcmp(key, in == MULTIPATHS ? "multipath" : "device") == 0) {
        parser->in_item = true;
        parser->item = (struct rule){.section = in, .kind = in == MULTIPATHS ? WWID : VENDOR};
    }
    return parser->depth > DEPTH_MAX ? -E2BIG : 0;
}

/* multipathd leaves out the end of a device section that has no product (0.9.4, 0.11.1); what is not
 * indented ends all. */
static int close_section(struct parser *parser, bool indented)
{
    parser->depth = indented && parser->depth > 0 ? parser->depth - 1 : 0;
    parser->section = parser->depth > 0 ? parser->section : NONE;
    return parser->in_item && parser->depth < 2 ? end_item(parser) : 0;
}

static int take_rule(struct parser *parser, const struct line *line, enum kind kind)
{
    struct rule rule = {.section = parser->section, .kind = kind, .text = strdup(line->value)};
    int result = rule.text != NULL ? add_rule(parser->config, &rule) : -ENOMEM;

    if (result < 0)
        free_rule(&rule);
    return result;
}

static int take_item_rule(struct parser *parser, const struct line *line, enum kind kind)
{
    char **into = kind == PRODUCT ? &parser->item.product : &parser->item.text;

    free(*into);
    *into = strdup(line->value);
    return *into != NULL ? 0 : -ENOMEM;
}

static int take_kpartx(struct parser *parser, const struct line *line)
{
    struct rule rule = {.section = parser->section,
                        .tells_kpartx = true,
                        .skip_kpartx = strcmp(line->value, "yes") == 0};

    if (parser->in_item && parser->depth == 2) {
        parser->item.tells_kpartx = true;
        parser->item.skip_kpartx = rule.skip_kpartx;
    } else if (parser->depth == 1 &&
               (parser->section == DEFAULTS || parser->section == OVERRIDES)) {
        return add_rule(parser->config, &rule);
    }
    return 0;
}

static int take_setting(struct parser *parser, const struct line *line)
{
    bool in_list = parser->section == BLACKLIST || parser->section == EXCEPTIONS;

    if (strcmp(line->key, "skip_kpartx") == 0)
        return take_kpartx(parser, line);
    for (enum kind kind = 0; kind < KINDS; kind++) {
        if (strcmp(line->key, kinds[kind]) != 0)
            continue;
        bool of_device = kind == VENDOR || kind == PRODUCT;
        bool of_item = parser->item.kind == VENDOR ? of_device : kind == WWID;

        if (parser->in_item && of_item && parser->depth == 2)
            return take_item_rule(parser, line, kind);
        if (!of_device && in_list && parser->depth == 1)
            return take_rule(parser, line, kind);
    }
    return 0;
}

int mp_multipathd_config_parse(const char *text, struct mp_multipathd_config **ret_config)
{
    struct parser parser = {.at = text, .config = calloc(1, sizeof *parser.config)};
    int result = 0;

    if (parser.config == NULL)
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
    if (result == 0 && parser.in_item)
        result = end_item(&parser);
    if (result < 0) {
        free_rule(&parser.item);
        mp_multipathd_config_free(parser.config);
        return result;
    }
    *ret_config = parser.config;
    return 0;
}

/* ---- asking ---- */

static bool rule_matches(const struct rule *rule, const struct mp_config_subject *subject)
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

static const struct rule *find(const struct mp_multipathd_config *config, enum section section,
                               enum kind kind, const struct mp_config_subject *subject)
{
    for (size_t i = 0; i < config->count; i++) {
        const struct rule *rule = &config->rules[i];

        if (rule->kind == kind && rule->section == section && rule_matches(rule, subject))
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

bool mp_multipathd_blacklists(const struct mp_multipathd_config *config,
                              const struct mp_config_subject *subject, char *ret_rule, size_t size)
{
    for (enum kind kind = 0; kind < KINDS; kind++) {
        const struct rule *rule = find(config, BLACKLIST, kind, subject);

        if (rule == NULL || find(config, EXCEPTIONS, kind, subject) != NULL)
            continue;
        describe(rule, ret_rule, size);
        return true;
    }
    return false;
}

static bool item_matches(const struct rule *rule, const struct mp_config_subject *subject)
{
    switch (rule->section) {
    case DEVICES:
        return rule_matches(rule, subject);
    case MULTIPATHS:
        return rule->text != NULL && strcmp(rule->text, subject->wwid) == 0;
    default:
        return rule->section == DEFAULTS || rule->section == OVERRIDES;
    }
}

bool mp_multipathd_skips_kpartx(const struct mp_multipathd_config *config,
                                const struct mp_config_subject *subject)
{
    const struct rule *last = NULL;

    for (size_t i = 0; i < config->count; i++) {
        const struct rule *rule = &config->rules[i];

        if (rule->tells_kpartx && (last == NULL || rule->section >= last->section) &&
            item_matches(rule, subject))
            last = rule;
    }
    return last != NULL && last->skip_kpartx;
}

void mp_multipathd_config_free(struct mp_multipathd_config *config)
{
    if (config == NULL)
        return;
    for (size_t i = 0; i < config->count; i++)
        free_rule(&config->rules[i]);
    free(config->rules);
    free(config);
}
