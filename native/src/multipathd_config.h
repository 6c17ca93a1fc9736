/* SPDX-License-Identifier: Apache-2.0 */
/* What multipathd answers to "show config local": its effective configuration, in the syntax of
 * multipath.conf. Of it, what makes it leave a volume alone. Pure; a bounded parser. */
#ifndef MP_MULTIPATHD_CONFIG_H
#define MP_MULTIPATHD_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

/* The sections blacklist and blacklist_exceptions. */
struct mp_blacklist;

/* What the rules are about. */
struct mp_blacklist_subject {
    const char *wwid;
    const char *devnode;  /* "sda" */
    const char *vendor;   /* of its INQUIRY data, without blanks at the end */
    const char *product;  /* the same */
    const char *protocol; /* "scsi:iscsi" */
};

/*
 * Reads the rules in a configuration. Sections, keys and values that are not known are skipped; rules
 * that are no regular expression match nothing. Free with mp_blacklist_free(). -E2BIG: more rules, longer values or deeper nesting than any configuration
 * has; -ENOMEM.
 */
int mp_blacklist_parse(const char *text, struct mp_blacklist **ret_blacklist);

/*
 * Does multipathd leave this path alone? Each kind of rule is decided by itself, an exception wins (
 * multipath.conf(5), "blacklist_exceptions section"). Rules about udev's properties are not looked at.
 * `ret_rule` gets the rule, such as "wwid \"^3600\"", cut to `size`.
 */
bool mp_blacklist_matches(const struct mp_blacklist *blacklist,
                          const struct mp_blacklist_subject *subject, char *ret_rule, size_t size);

/* NULL is allowed. */
void mp_blacklist_free(struct mp_blacklist *blacklist);

#endif
