/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MP_ISCSID_LAYOUT_H
#define MP_ISCSID_LAYOUT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * iscsid reads one fixed-size request per connection: no version, no length, native padding. Its
 * size and the places in it differ between releases, so each group of releases that share both is
 * one struct mp_iscsid_layout. All offsets count from the first byte of the request.
 * docs/iscsid-layouts.md describes the text form that the tables are made from.
 */

/* The same in every release since 2.0.873 and on every ABI that we have measured. */
#define MP_ISCSID_REPLY_SIZE 2464u
#define MP_ISCSID_HEADER_SIZE 8u /* u32 command, u32 payload_len */
#define MP_ISCSID_SID_OFFSET 8u

/* What we accept from an operator's file; the known sizes are 5144 to 16136. */
#define MP_ISCSID_REQUEST_MIN 1024u
#define MP_ISCSID_REQUEST_MAX 65532u
#define MP_ISCSID_LAYOUT_FILE_MAX 65536u
#define MP_ISCSID_LAYOUT_DIR "/etc/manypath/iscsid-layouts.d"

/* Encodings: INT 32 bits, U8 one byte, TEXT a string with its NUL, BYTES counted bytes of which the
 * last must stay zero, LIST five 32-bit integers. */
enum mp_iscsid_kind {
    MP_ISCSID_INT,
    MP_ISCSID_U8,
    MP_ISCSID_TEXT,
    MP_ISCSID_BYTES,
    MP_ISCSID_LIST,
};

/*
 * The one list of fields: X(name, kind, least width, greatest width, required).
 * native/tools/gen_layout.py compares its own list of names with this one.
 * Least widths: RFC 7143 4.2.7 (names of 223 bytes), an IPv6 address with a scope, IFNAMSIZ.
 */
#define MP_ISCSID_FIELDS(X)                                                                        \
    X(sid, INT, 4, 4, 1)                                                                           \
    X(target_name, TEXT, 224, 1024, 1)                                                             \
    X(tpgt, INT, 4, 4, 1)                                                                          \
    X(startup, INT, 4, 4, 1)                                                                       \
    X(leading_login, INT, 4, 4, 1)                                                                 \
    X(initial_cmdsn, INT, 4, 4, 1)                                                                 \
    X(reopen_max, INT, 4, 4, 1)                                                                    \
    X(xmit_thread_priority, INT, 4, 4, 1)                                                          \
    X(cmds_max, INT, 4, 4, 1)                                                                      \
    X(queue_depth, INT, 4, 4, 1)                                                                   \
    X(initial_login_retry_max, INT, 4, 4, 1)                                                       \
    X(login_redirect_max, INT, 4, 4, 0)                                                            \
    X(nr_sessions, INT, 4, 4, 1)                                                                   \
    X(scan, INT, 4, 4, 0)                                                                          \
    X(auth_method, INT, 4, 4, 1)                                                                   \
    X(username, TEXT, 64, 1024, 1)                                                                 \
    X(password, BYTES, 64, 1024, 1)                                                                \
    X(password_length, INT, 4, 4, 1)                                                               \
    X(username_in, TEXT, 64, 1024, 1)                                                              \
    X(password_in, BYTES, 64, 1024, 1)                                                             \
    X(password_in_length, INT, 4, 4, 1)                                                            \
    X(chap_algs, LIST, 20, 20, 0)                                                                  \
    X(replacement_timeout, INT, 4, 4, 1)                                                           \
    X(abort_timeout, INT, 4, 4, 1)                                                                 \
    X(host_reset_timeout, INT, 4, 4, 1)                                                            \
    X(lu_reset_timeout, INT, 4, 4, 1)                                                              \
    X(tgt_reset_timeout, INT, 4, 4, 1)                                                             \
    X(initial_r2t, INT, 4, 4, 1)                                                                   \
    X(immediate_data, INT, 4, 4, 1)                                                                \
    X(first_burst_length, INT, 4, 4, 1)                                                            \
    X(max_burst_length, INT, 4, 4, 1)                                                              \
    X(default_time2wait, INT, 4, 4, 1)                                                             \
    X(default_time2retain, INT, 4, 4, 1)                                                           \
    X(max_connections, INT, 4, 4, 1)                                                               \
    X(max_outstanding_r2t, INT, 4, 4, 1)                                                           \
    X(erl, INT, 4, 4, 1)                                                                           \
    X(fast_abort, INT, 4, 4, 1)                                                                    \
    X(multiple, U8, 1, 1, 1)                                                                       \
    X(reopen_log_freq, INT, 4, 4, 0)                                                               \
    X(conn_startup, INT, 4, 4, 1)                                                                  \
    X(address, TEXT, 64, 4096, 1)                                                                  \
    X(port, INT, 4, 4, 1)                                                                          \
    X(window_size, INT, 4, 4, 1)                                                                   \
    X(type_of_service, INT, 4, 4, 1)                                                               \
    X(login_timeout, INT, 4, 4, 1)                                                                 \
    X(logout_timeout, INT, 4, 4, 1)                                                                \
    X(auth_timeout, INT, 4, 4, 1)                                                                  \
    X(active_timeout, INT, 4, 4, 1)                                                                \
    X(noop_out_interval, INT, 4, 4, 1)                                                             \
    X(noop_out_timeout, INT, 4, 4, 1)                                                              \
    X(max_recv_segment, INT, 4, 4, 1)                                                              \
    X(max_xmit_segment, INT, 4, 4, 1)                                                              \
    X(header_digest, INT, 4, 4, 1)                                                                 \
    X(data_digest, INT, 4, 4, 1)                                                                   \
    X(iface_name, TEXT, 16, 256, 1)                                                                \
    X(netdev, TEXT, 16, 256, 1)                                                                    \
    X(ipaddress, TEXT, 64, 4096, 0)                                                                \
    X(hwaddress, TEXT, 18, 256, 1)                                                                 \
    X(transport_name, TEXT, 8, 256, 1)                                                             \
    X(iname, TEXT, 224, 1024, 1)                                                                   \
    X(disc_type, INT, 4, 4, 1)

/* width 0: this release has no such field. */
struct mp_iscsid_slot {
    uint16_t offset;
    uint16_t width;
};

struct mp_iscsid_layout {
    char name[32];
    char versions[48];
    uint32_t request_size;
    int32_t static_discovery; /* number of "static" in disc_type: 4, and 3 once SLP was dropped */
#define MP_X(name, kind, least, greatest, required) struct mp_iscsid_slot name;
    MP_ISCSID_FIELDS(MP_X)
#undef MP_X
};

struct mp_iscsid_field_info {
    const char *name;
    size_t slot; /* offsetof in struct mp_iscsid_layout */
    enum mp_iscsid_kind kind;
    uint16_t least;
    uint16_t greatest;
    uint8_t required;
};

extern const struct mp_iscsid_field_info mp_iscsid_fields[];
extern const size_t mp_iscsid_field_count;

/* The layouts measured by us, ascending by request_size, sizes unique. */
extern const struct mp_iscsid_layout mp_iscsid_layouts[];
extern const size_t mp_iscsid_layout_count;

struct mp_iscsid_slot mp_iscsid_layout_slot(const struct mp_iscsid_layout *layout,
                                            const struct mp_iscsid_field_info *field);

/* Operator layouts (extra, may be NULL) win over ours: whoever put one there meant it. */
const struct mp_iscsid_layout *mp_iscsid_layout_find(const struct mp_iscsid_layout *extra,
                                                     size_t extra_count, uint32_t request_size);

/* All sizes known, ascending and unique, as a probe needs them; returns how many were written. */
size_t mp_iscsid_layout_sizes(const struct mp_iscsid_layout *extra, size_t extra_count,
                              uint32_t *ret_sizes, size_t max);

/*
 * One .layout text. 0, or -EINVAL with the line and the reason in ret_reason (may be NULL);
 * *ret is untouched on failure. No file access, no allocation.
 */
int mp_iscsid_layout_parse(const char *text, size_t len, struct mp_iscsid_layout *ret,
                           char *ret_reason, size_t reason_size);

/*
 * All *.layout files of a directory in byte order of their names. The directory and each file must
 * belong to owner (0 outside of tests) and be writable by nobody else. A file that fails is left
 * out, counted in *ret_refused, and the first reason kept. A missing directory is an empty one.
 * Returns the number of layouts written (at most max), or a negative errno if the directory itself
 * cannot be used (ret_reason says why).
 */
int mp_iscsid_layout_load_dir(const char *path, uid_t owner, struct mp_iscsid_layout *ret,
                              size_t max, size_t *ret_refused, char *ret_reason,
                              size_t reason_size);

#endif
