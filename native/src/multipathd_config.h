/* SPDX-License-Identifier: Apache-2.0 */
/* What multipathd answers to "show config local": its effective configuration, in the syntax of
 * multipath.conf. Of it, what makes it leave a volume or its partitions alone. Pure; a bounded parser. */
#ifndef MP_MULTIPATHD_CONFIG_H
#define MP_MULTIPATHD_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

struct mp_multipathd_config;

/* What it is asked about. */
struct mp_config_subject {
    const char *wwid;
    const char *devnode;  /* "sda" */
    const char *vendor;   /* of its INQUIRY data, without blanks at the end */
    const char *product;  /* the same */
    const char *protocol; /* "scsi:iscsi" */
};

/*
 * Sections, keys and values that are not known are skipped; rules that are no regular expression match
 * nothing. Free with mp_multipathd_config_free(). -E2BIG: more rules, longer values or deeper nesting
 * than any configuration has; -ENOMEM.
 */
int mp_multipathd_config_parse(const char *text, struct mp_multipathd_config **ret_config);

/*
 * Does multipathd leave this path alone? Each kind of rule is decided by itself, an exception wins (
 * multipath.conf(5), "blacklist_exceptions section"). Rules about udev's properties are not looked at.
 * `ret_rule` gets the rule, such as "wwid \"^3600\"", cut to `size`.
 */
bool mp_multipathd_blacklists(const struct mp_multipathd_config *config,
                              const struct mp_config_subject *subject, char *ret_rule, size_t size);

/* Does it keep udev from mapping the partitions of the volume's map? Of the volume's own section, the
 * overrides, the last device section that matches and the defaults the first that tells decides. */
bool mp_multipathd_skips_kpartx(const struct mp_multipathd_config *config,
                                const struct mp_config_subject *subject);

/* NULL is allowed. */
void mp_multipathd_config_free(struct mp_multipathd_config *config);

#endif
