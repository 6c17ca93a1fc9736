/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libmanypath: attach and detach iSCSI volumes as dm-multipath devices without starting a process.
 *
 * Conventions
 *  - Functions return 0 on success or a negative enum manypath_code. The optional `err` argument is
 *    filled on failure only, and may be NULL.
 *  - `ret_` arguments are outputs; they are not touched on failure. Two exceptions tell what was done
 *    before: ret_paths of an attach, and the detachment of a detach with `force`.
 *  - Strings are NUL-terminated UTF-8 unless a field says otherwise. Input strings and arrays are
 *    copied before a function returns; the caller keeps ownership of them.
 *  - Times are counted on CLOCK_MONOTONIC. Durations in structs are nanoseconds.
 *  - Every function may be called from any thread. No thread, descriptor or lock exists before
 *    manypath_open().
 *  - Until 1.0 a minor release may change struct layouts; the soname carries the minor number.
 *
 * The library must run in the host's network namespace (iscsid's socket and NETLINK_ISCSI are per
 * network namespace) with uid 0 and CAP_SYS_ADMIN; it reports MANYPATH_E_PERMISSION otherwise. A detach
 * of a disk without a map needs CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH as well, see
 * manypath_detach_begin().
 */
#ifndef MANYPATH_H
#define MANYPATH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define MANYPATH_API __attribute__((visibility("default")))
#else
#define MANYPATH_API
#endif

/* Capacities, each including the terminating NUL. */
enum {
    MANYPATH_ADDRESS_SIZE = 64, /* numeric address, with %scope for link-local IPv6 */
    MANYPATH_IQN_SIZE = 224,    /* RFC 7143 section 4.2.7.1: an iSCSI name is at most 223 bytes */
    MANYPATH_DEVICE_SIZE = 32,  /* kernel DISK_NAME_LEN */
    MANYPATH_WWID_SIZE = 128,   /* multipath-tools WWID_SIZE; fits dm's 128-byte name and uuid */
    MANYPATH_MESSAGE_SIZE = 512,
    MANYPATH_HOST_SIZE = 256, /* RFC 1035 section 2.3.4: a host name is at most 255 bytes */
};

enum {
    MANYPATH_TARGETS_MAX = 1024, /* targets in one request */
    MANYPATH_TIMEOUT_MAX_MS = 24 * 3600 * 1000,
    MANYPATH_CHAP_TEXT_MAX = 255, /* bytes of a CHAP name or secret: iscsid's fields */
    MANYPATH_CHAP_ALGORITHMS = 4,
};

/* What went wrong. Values are negative and below every errno, and never change meaning. */
enum manypath_code {
    MANYPATH_OK = 0,
    MANYPATH_E_INVALID = -5001,          /* a value of the request is not acceptable */
    MANYPATH_E_PERMISSION = -5002,       /* not root, or a capability is missing */
    MANYPATH_E_ISCSID_DOWN = -5003,      /* nobody listens on iscsid's socket */
    MANYPATH_E_ISCSID_UNTRUSTED = -5004, /* the socket's owner is not root */
    MANYPATH_E_ISCSID_LAYOUT = -5005,    /* iscsid's request layout is not known */
    MANYPATH_E_ISCSID_PROTOCOL = -5006,  /* iscsid broke off or answered nonsense */
    MANYPATH_E_REFUSED = -5007,          /* the portal refused the connection or is unreachable */
    MANYPATH_E_NO_ANSWER = -5008,        /* the portal does not answer */
    MANYPATH_E_LOGIN_REJECTED = -5009,   /* the target rejected the login */
    MANYPATH_E_AUTH = -5010,             /* authentication failed */
    MANYPATH_E_LOGIN = -5011,            /* another login failure; see iscsid_code */
    MANYPATH_E_SESSION = -5012,          /* the session vanished or is not logged in */
    MANYPATH_E_LUN_NOT_FOUND = -5013,    /* the target does not offer this LUN to us */
    MANYPATH_E_DEVICE = -5014,           /* the SCSI device did not appear or cannot be read */
    MANYPATH_E_IDENTITY = -5015,         /* paths are not the same disk, or cannot be identified */
    MANYPATH_E_IN_USE = -5016,           /* somebody holds the map or a path */
    MANYPATH_E_FLUSH = -5017,            /* writing back cached data failed */
    MANYPATH_E_NO_MULTIPATH = -5018, /* the kernel has no device-mapper or no multipath target */
    MANYPATH_E_MAP = -5019,          /* a device-mapper call failed */
    MANYPATH_E_LOGOUT = -5020,       /* a session could not be logged out */
    MANYPATH_E_TIMEOUT = -5021,      /* the operation's timeout passed */
    MANYPATH_E_CANCELLED = -5022,    /* manypath_operation_cancel() was called */
    MANYPATH_E_FORKED = -5023,       /* the handle belongs to the parent process */
    MANYPATH_E_SYSTEM = -5024,       /* a system call failed; see sys_errno */
    MANYPATH_E_PROTOCOL = -5025,     /* the target broke the iSCSI protocol or a limit of ours */
    MANYPATH_E_HOST_NAME = -5026,    /* a host name cannot be resolved */
};

/* Where an operation was. */
enum manypath_phase {
    MANYPATH_PHASE_NONE = 0,
    MANYPATH_PHASE_REQUEST, /* checking the request */
    MANYPATH_PHASE_PREPARE, /* reading the host's state */
    MANYPATH_PHASE_LOGIN,
    MANYPATH_PHASE_SCAN,     /* asking the kernel to probe the LUN */
    MANYPATH_PHASE_DEVICE,   /* waiting for the block device */
    MANYPATH_PHASE_IDENTITY, /* reading VPD 0x83 and the size */
    MANYPATH_PHASE_MAP,
    MANYPATH_PHASE_FLUSH,
    MANYPATH_PHASE_UNMAP,
    MANYPATH_PHASE_DELETE, /* removing SCSI devices */
    MANYPATH_PHASE_LOGOUT,
    MANYPATH_PHASE_RESOLVE,   /* host name to address */
    MANYPATH_PHASE_DISCOVERY, /* SendTargets */
    MANYPATH_PHASE_RESIZE,    /* making the map longer */
};

struct manypath_error {
    int32_t code;        /* enum manypath_code */
    int32_t phase;       /* enum manypath_phase */
    int32_t sys_errno;   /* errno of the failed system call, or 0 */
    int32_t iscsid_code; /* iscsid's answer (open-iscsi include/iscsi_err.h), or 0 */
    bool retryable;      /* the same call may succeed later without changing anything */
    char address[MANYPATH_ADDRESS_SIZE]; /* portal concerned, or "" */
    uint16_t port;
    char message[MANYPATH_MESSAGE_SIZE]; /* one sentence: what, where, and the remedy */
};

/* Short stable name of a code, such as "LUN_NOT_FOUND"; "UNKNOWN" for other values. Static. */
MANYPATH_API const char *manypath_code_name(int code);

/* Short stable name of a phase, such as "login"; "unknown" for other values. Static. */
MANYPATH_API const char *manypath_phase_name(int phase);

/* Library version, such as "0.1.0". Static. */
MANYPATH_API const char *manypath_version(void);

/* ------------------------------------------------------------------------------------------------
 * The handle: one engine (an event loop thread and a few worker threads, both started on demand).
 */
struct manypath;

enum manypath_log_level {
    MANYPATH_LOG_ERROR = 0,
    MANYPATH_LOG_WARNING,
    MANYPATH_LOG_INFO,
    MANYPATH_LOG_DEBUG,
};

/* Called from library threads; must not call back into the library. `message` is valid only during
 * the call and never holds a secret. */
typedef void (*manypath_log_fn)(void *userdata, int level, const char *message);

/* Options of a handle. Zero-initialise, then set what is needed: NULL or 0 means the default. The
 * paths exist so that tests and containers can move them. */
struct manypath_options {
    const char *sysfs_root;     /* "/sys" */
    const char *dev_root;       /* "/dev" */
    const char *proc_root;      /* "/proc": who uses a device: fd of all processes, mounts, swaps */
    const char *iscsid_socket;  /* abstract name, "ISCSIADM_ABSTRACT_NAMESPACE" */
    const char *iscsid_pidfile; /* "/run/iscsid.pid" */
    const char *layout_dir;     /* "/etc/manypath/iscsid-layouts.d" */
    const char *multipath_dir;  /* "/etc/multipath" (wwids) */
    const char *multipath_run_dir;  /* "/run/multipath" (failed_wwids) */
    const char *multipathd_socket;  /* abstract name, "/org/kernel/linux/storage/multipathd" */
    const char *multipathd_pidfile; /* "/run/multipathd.pid" */
    const char *initiator_file;     /* "/etc/iscsi/initiatorname.iscsi" */
    const char *runtime_dir;        /* "/run/manypath": lock files; made if missing, mode 0700 */
    const char *udev_data;          /* "/run/udev/data" */
    uint32_t daemon_uid;            /* uid that must own iscsid's and multipathd's sockets, 0 */
    uint32_t logins_in_flight;      /* 16; at most 32 (iscsid's listen backlog) */
    uint32_t worker_threads;        /* 32: most threads for calls that block in the kernel */
    manypath_log_fn log;            /* NULL: no log */
    void *log_userdata;
    int log_level; /* most verbose enum manypath_log_level wanted */
};

/*
 * Makes a handle. Does not block, starts no thread and opens no descriptor: the first operation
 * does. options: NULL for the defaults. Errors: E_INVALID, E_SYSTEM.
 */
MANYPATH_API int manypath_open(const struct manypath_options *options, struct manypath **ret_handle,
                               struct manypath_error *err);

/*
 * Stops the handle's threads and frees it. Operations in flight are abandoned where they are:
 * collect or cancel them first. Waits for the loop thread (milliseconds), never for a worker stuck
 * in the kernel. In a forked child it only frees memory. NULL is allowed.
 */
MANYPATH_API void manypath_close(struct manypath *handle);

/* ------------------------------------------------------------------------------------------------
 * Operations: begin, wait, collect. One operation may be waited for by one thread at a time.
 */
struct manypath_operation;

/* One place where the volume is offered. */
struct manypath_target {
    const char *address; /* numeric IPv4 or IPv6 literal without brackets; host names are refused */
    uint16_t port;       /* 1..65535 */
    const char *iqn;     /* iqn., eui. or naa. name, 1..223 bytes */
    uint64_t lun;        /* as the kernel prints it (scsilun_to_int), below 2^63 */
    bool candidate;      /* perhaps another volume: joins only with the identity of the others */
};

/* CHAP algorithms: IANA "PPP authentication algorithms", RFC 7143 section 12.1.3. */
enum manypath_chap_algorithm {
    MANYPATH_CHAP_MD5 = 5,
    MANYPATH_CHAP_SHA1 = 6,
    MANYPATH_CHAP_SHA256 = 7,
    MANYPATH_CHAP_SHA3_256 = 8,
};

/*
 * CHAP credentials. Secrets are bytes, 1..MANYPATH_CHAP_TEXT_MAX; they are copied into memory that
 * is kept out of core dumps and wiped after the operation. RFC 7143 section 9.2.1 wants at least 12
 * random bytes.
 */
struct manypath_chap {
    const char *username;
    const void *password;
    size_t password_length;
    const char *username_in; /* what the target must prove to be (mutual CHAP), or NULL */
    const void *password_in; /* differs from password, as RFC 7143 section 9.2.1 demands */
    size_t password_in_length;
    /* Offered in this order, up to the first 0; none: MD5 alone, since old targets fail on a list
     * (open-iscsi issue 180). */
    int32_t algorithms[MANYPATH_CHAP_ALGORITHMS];
};

struct manypath_attach_request {
    const struct manypath_target *targets;
    size_t target_count;              /* 1..MANYPATH_TARGETS_MAX; duplicates collapse */
    uint32_t timeout_ms;              /* whole operation, 1..MANYPATH_TIMEOUT_MAX_MS */
    uint32_t min_paths;               /* usable paths wanted before success, 0 means 1 */
    const struct manypath_chap *chap; /* for every target, or NULL: no authentication */
    bool single_path; /* no map: targets are tried in order, the first usable one is the volume */
    /* Who the volume must be; NULL: not checked. A path that is another disk is kept out. */
    const char
        *wwid; /* as multipathd has it, "3600..."; also "naa.600..." and "eui.00..."; the case
                           of hexadecimal digits does not matter */
    const char *serial; /* of VPD page 0x80; blanks around it do not matter */
};

struct manypath_detach_request {
    const struct manypath_target *targets;
    size_t target_count;
    uint32_t
        timeout_ms; /* whole operation, 1..MANYPATH_TIMEOUT_MAX_MS; see manypath_detach_begin() */
    bool whole_map; /* also the other paths of the map that these targets' disks are in */
    bool force;     /* go on after failures, and give up what cannot be written back */
};

struct manypath_extend_request {
    const struct manypath_target *targets; /* one that is attached is enough to find the map */
    size_t target_count;
    uint32_t timeout_ms;
    uint64_t size_bytes; /* wait until the devices have at least this size; 0: take what they say */
};

enum manypath_path_state {
    MANYPATH_PATH_FAILED = 0, /* see error */
    MANYPATH_PATH_PENDING,    /* the portal is not there yet; see manypath_attach_begin() */
    MANYPATH_PATH_ACTIVE,     /* usable: in the map, or the single path */
    MANYPATH_PATH_INACTIVE,   /* in the map, failed by the kernel */
    MANYPATH_PATH_UNUSED,     /* single path: an earlier target served */
};

/* When each step of a path ended, in nanoseconds since the operation began; 0: step not done. */
struct manypath_path_times {
    uint64_t login_begin_ns; /* request handed to iscsid */
    uint64_t login_end_ns;
    uint64_t scan_end_ns;
    uint64_t device_end_ns;
    uint64_t identity_end_ns;
};

struct manypath_path {
    char address[MANYPATH_ADDRESS_SIZE];
    uint16_t port;
    char iqn[MANYPATH_IQN_SIZE];
    uint64_t lun;
    int32_t state; /* enum manypath_path_state */
    int32_t sid;   /* kernel session id, -1 if none */
    int32_t host;  /* H, C, T of H:C:T:L; -1 if no device */
    int32_t channel;
    int32_t target;
    bool session_was_there;            /* the session existed before this operation */
    char device[MANYPATH_DEVICE_SIZE]; /* such as "sda"; "" if none */
    struct manypath_path_times times;
    struct manypath_error error; /* code 0 unless FAILED or PENDING */
};

/* Durations of the phases of one attach, as the volume saw them: from the end of the phase before
 * to the moment its last path left the phase. */
struct manypath_attach_times {
    uint64_t queue_ns; /* until the engine took the request */
    uint64_t prepare_ns;
    uint64_t login_ns;
    uint64_t scan_ns;
    uint64_t device_ns;
    uint64_t identity_ns;
    uint64_t map_ns;
    uint64_t total_ns;
};

struct manypath_attachment {
    char device[MANYPATH_DEVICE_SIZE]; /* the block device is <dev_root>/device: "dm-N", "sda" */
    char name[MANYPATH_WWID_SIZE];     /* the map's name, "" for a single path */
    char wwid[MANYPATH_WWID_SIZE];     /* the map's uuid is "mpath-" + wwid */
    uint64_t size_bytes;
    bool map_was_there; /* the map existed before this operation */
    /* multipathd watches the paths and takes failed ones back. If it does not run, the handle does that
     * for this map, as long as it is open and no multipathd is started; the kernel never does. */
    bool multipathd_running;
    size_t path_count;
    struct manypath_path *paths; /* in the order of the request, duplicates removed */
    size_t warning_count;
    char **warnings;
    struct manypath_attach_times times;
};

struct manypath_detach_times {
    uint64_t queue_ns;
    uint64_t prepare_ns;
    uint64_t flush_ns;
    uint64_t unmap_ns;
    uint64_t delete_ns;
    uint64_t logout_ns;
    uint64_t total_ns;
};

/* What became of the data that was cached for the volume. */
enum manypath_flush {
    MANYPATH_FLUSH_UNKNOWN = 0, /* the flush did not end in time, or was not reached */
    /* What was still cached is on the storage. Not what an earlier call failed to write with E_FLUSH:
     * the kernel tells of that once, and drops it. */
    MANYPATH_FLUSH_DONE,
    MANYPATH_FLUSH_FAILED,     /* what was not written back before may be lost */
    MANYPATH_FLUSH_NOT_NEEDED, /* there was neither a map nor a disk */
};

struct manypath_detachment {
    bool map_removed;              /* false: there was none, or it is still there */
    int32_t flush;                 /* enum manypath_flush; the worst of several devices */
    uint32_t devices_removed;      /* SCSI devices */
    uint32_t sessions_removed;     /* logged out */
    uint32_t sessions_kept;        /* still used by another LUN or operation */
    size_t error_count;            /* 0 on success */
    struct manypath_error *errors; /* all of them as they happened; E_CANCELLED is the first */
    size_t warning_count;
    char **warnings;
    struct manypath_detach_times times;
};

struct manypath_extend_times {
    uint64_t queue_ns;
    uint64_t prepare_ns;
    uint64_t rescan_ns; /* until every path had the new size */
    uint64_t resize_ns;
    uint64_t total_ns;
};

struct manypath_extension {
    char device[MANYPATH_DEVICE_SIZE]; /* the map, "dm-N"; the disk where there is no map */
    char wwid[MANYPATH_WWID_SIZE];
    uint64_t old_size_bytes; /* before this operation */
    uint64_t size_bytes;     /* now, read back from the device */
    bool multipathd_running;
    size_t path_count;
    struct manypath_path
        *paths; /* those of the map, then targets' disks that are not in it; FAILED:
                                    see error, the path does not have the new size */
    size_t warning_count;
    char **warnings;
    struct manypath_extend_times times;
};

/*
 * Begins an attach: log in where no session exists, scan the LUN, read and compare each path's
 * identity, make or join the map. Idempotent. A path whose portal refuses or does not answer is
 * PENDING in the result: the handle goes on trying, and the path joins the map when it comes, until
 * another operation works on the same LUN, the map is gone or the handle is closed.
 *
 * A disk that was left over from another volume at the same LUN is deleted, with its map, and scanned
 * again. If somebody uses it, or has a path of the volume other than through the map (LVM, md, another
 * map, a mounted file system, swap), the attach fails with E_IN_USE and names both. Where udev and
 * multipathd read page 0x83 differently, the WWID is udev's, which is waited for.
 *
 * Returns at once. Errors: E_INVALID (with the value named), E_FORKED, E_SYSTEM; everything else is told
 * by manypath_attach_finish(). On success *ret_operation must be handed to manypath_attach_finish().
 */
MANYPATH_API int manypath_attach_begin(struct manypath *handle,
                                       const struct manypath_attach_request *request,
                                       struct manypath_operation **ret_operation,
                                       struct manypath_error *err);

/*
 * Begins a detach: refuse if in use, flush, remove the map, delete the SCSI devices, wait until
 * multipathd has let go of them, log out sessions that no other LUN uses. Detaching what is not
 * attached succeeds, and the same call goes on where an earlier one stopped. As manypath_attach_begin().
 *
 * timeout_ms covers everything: waiting for other operations on the volume, in this process and in
 * others; up to 5 s for whoever has the device open for a moment; the flush; the removals; the logouts.
 * When it passes, the operation completes with E_TIMEOUT; a call that is stuck in the kernel goes on
 * there, and what it flushed is UNKNOWN. Waiting for multipathd takes at most 5 s.
 *
 * Without `force` the first failure ends it. Until the map is removed that means that nothing was: a map
 * or disk in use is E_IN_USE, with its users named; a flush that fails is E_FLUSH with the errno. A map
 * without a usable path that queues I/O is E_FLUSH too, at once, since its flush would never end.
 *
 * A disk without a map is in use also by a program that only has it open, which is looked for among the
 * descriptors of all processes in /proc. If some may not be looked into, for want of CAP_SYS_PTRACE and
 * CAP_DAC_READ_SEARCH, it is E_IN_USE; with `force` the detach goes on, with a warning. Not seen are
 * programs in another PID namespace, or that opened a node outside of dev_root.
 *
 * With `force` whatever fails is collected, and each step up to the deletion gets half of the time that is
 * left. When no path of the map is usable its queueing is turned off, so that whoever waits for it gets an
 * error. A map that is open all the same is never removed, and keeps its disks and sessions: E_IN_USE. But
 * if none of its paths is usable, its disks are deleted, lest they come back as another volume, and the
 * map goes when it is closed. If the detach gives up and a map stays, it queues as before.
 */
MANYPATH_API int manypath_detach_begin(struct manypath *handle,
                                       const struct manypath_detach_request *request,
                                       struct manypath_operation **ret_operation,
                                       struct manypath_error *err);

/*
 * Begins to make an attached volume as large as it has become on the storage: rescan every path of
 * the map that the targets' disks are in (not only the paths of the request), prove by VPD 0x83 that
 * each is still the map's disk and that all have the same new size, then make the map longer, in use
 * or not: through multipathd if that runs, else by loading its own table with the new length. Without
 * a map the disk is rescanned. No portal is logged in to. As manypath_attach_begin().
 *
 * Nothing to do is a success. A path that does not answer does not stop the others, but the kernel
 * lets no map be longer than one of its paths: it is taken out of the map, FAILED in the result, and
 * the same call takes it back once it answers. Errors, with the map as it was: E_SESSION or E_DEVICE
 * (not attached), E_IDENTITY (a path is another disk now), E_DEVICE (no path answers, or one still
 * has the old size when the time is over), E_INVALID (size_bytes is below the present size), E_MAP
 * (the devices have become smaller, or the map could not be changed).
 */
MANYPATH_API int manypath_extend_begin(struct manypath *handle,
                                       const struct manypath_extend_request *request,
                                       struct manypath_operation **ret_operation,
                                       struct manypath_error *err);

/* A descriptor that becomes readable when the operation is complete. It belongs to the operation:
 * poll it, never read or close it. */
MANYPATH_API int manypath_operation_fd(const struct manypath_operation *operation);

/* Waits until the operation is complete. Returns 0, -ETIMEDOUT after timeout_ms, or -EINTR when a
 * signal handler ran. timeout_ms < 0 waits without limit (the operation has its own timeout). */
MANYPATH_API int manypath_operation_wait(struct manypath_operation *operation, int timeout_ms);

/* Asks the engine to give up: what the operation made so far is undone, then it completes with
 * E_CANCELLED. Does not block. No effect on a complete operation. */
MANYPATH_API void manypath_operation_cancel(struct manypath_operation *operation);

/*
 * Waits for completion, hands out the result and frees the operation. On success *ret_attachment
 * must be freed with manypath_attachment_free(). On failure the error of the volume is in err, and
 * if ret_paths is not NULL the state of each path is handed out too (free with
 * manypath_paths_free()).
 */
MANYPATH_API int manypath_attach_finish(struct manypath_operation *operation,
                                        struct manypath_attachment **ret_attachment,
                                        struct manypath_path **ret_paths, size_t *ret_path_count,
                                        struct manypath_error *err);

/* The same for a detach. *ret_detachment is freed with manypath_detachment_free(). With `force` it is
 * handed out on failure too: err is the first of its errors. */
MANYPATH_API int manypath_detach_finish(struct manypath_operation *operation,
                                        struct manypath_detachment **ret_detachment,
                                        struct manypath_error *err);

/* The same for an extend. *ret_extension is freed with manypath_extension_free(). */
MANYPATH_API int manypath_extend_finish(struct manypath_operation *operation,
                                        struct manypath_extension **ret_extension,
                                        struct manypath_error *err);

/* ------------------------------------------------------------------------------------------------
 * Discovery and host names. They need neither root nor iscsid.
 */
struct manypath_discover_request {
    const char *address; /* numeric, as in struct manypath_target */
    uint16_t port;
    uint32_t timeout_ms;
    const char *initiator;            /* our iSCSI name; NULL: the one in initiator_file */
    const struct manypath_chap *chap; /* NULL: no authentication */
};

struct manypath_discovered {
    char iqn[MANYPATH_IQN_SIZE];
    char host[MANYPATH_HOST_SIZE]; /* numeric address without brackets, or a host name */
    uint16_t port;
    int32_t tag; /* portal group tag, -1 if the target told none */
};

struct manypath_discovery {
    size_t target_count;
    struct manypath_discovered *targets; /* in the target's order, duplicates removed */
    char address[MANYPATH_ADDRESS_SIZE]; /* who answered: another portal after a redirect */
    uint16_t port;
    uint64_t total_ns;
};

/*
 * Begins a discovery: SendTargets=All through one portal (RFC 7143 appendix C) on a connection of
 * our own, with a polite logout. Reads and writes no record of open-iscsi. The names and addresses
 * of the answer are checked for syntax, but come from the network. As manypath_attach_begin().
 */
MANYPATH_API int manypath_discover_begin(struct manypath *handle,
                                         const struct manypath_discover_request *request,
                                         struct manypath_operation **ret_operation,
                                         struct manypath_error *err);
/* As manypath_detach_finish(). *ret_discovery is freed with manypath_discovery_free(). */
MANYPATH_API int manypath_discover_finish(struct manypath_operation *operation,
                                          struct manypath_discovery **ret_discovery,
                                          struct manypath_error *err);
MANYPATH_API void manypath_discovery_free(struct manypath_discovery *discovery);

struct manypath_addresses {
    size_t count;
    char **addresses; /* numeric, in the order of RFC 6724, no duplicates */
};

/* Begins to resolve a host name with the system's resolver. As manypath_attach_begin(). */
MANYPATH_API int manypath_resolve_begin(struct manypath *handle, const char *host,
                                        uint32_t timeout_ms,
                                        struct manypath_operation **ret_operation,
                                        struct manypath_error *err);
MANYPATH_API int manypath_resolve_finish(struct manypath_operation *operation,
                                         struct manypath_addresses **ret_addresses,
                                         struct manypath_error *err);
MANYPATH_API void manypath_addresses_free(struct manypath_addresses *addresses);

MANYPATH_API void manypath_attachment_free(struct manypath_attachment *attachment);
MANYPATH_API void manypath_detachment_free(struct manypath_detachment *detachment);
MANYPATH_API void manypath_extension_free(struct manypath_extension *extension);
MANYPATH_API void manypath_paths_free(struct manypath_path *paths);

/* ------------------------------------------------------------------------------------------------
 * What is on the host: sessions, their SCSI disks, and multipath maps.
 */
struct manypath_session_info {
    int32_t sid;
    int32_t host;
    char iqn[MANYPATH_IQN_SIZE];
    char address[MANYPATH_ADDRESS_SIZE]; /* the address asked for, before any redirect */
    uint16_t port;
    char state[16]; /* the kernel's word: LOGGED_IN, FAILED, FREE */
};

struct manypath_disk_info {
    int32_t sid;
    int32_t host, channel, target;
    uint64_t lun;
    char device[MANYPATH_DEVICE_SIZE];
    char state[24]; /* the kernel's word: running, transport-offline, blocked, ... */
    uint64_t size_bytes;
    char map[MANYPATH_DEVICE_SIZE]; /* "dm-N" that holds it, or "" */
    int32_t path_state;             /* enum manypath_path_state in that map; FAILED if in none */
};

struct manypath_map_info {
    char device[MANYPATH_DEVICE_SIZE]; /* "dm-N" */
    char name[MANYPATH_WWID_SIZE];
    char wwid[MANYPATH_WWID_SIZE];
    uint64_t size_bytes;
    uint32_t open_count;
    uint32_t path_count;
    uint32_t active_path_count;
};

struct manypath_inventory {
    size_t session_count;
    struct manypath_session_info *sessions;
    size_t disk_count;
    struct manypath_disk_info *disks;
    size_t map_count;
    struct manypath_map_info *maps;
    bool maps_known; /* false: device-mapper could not be asked (not root, or not in the kernel) */
};

/* Reads the host's state from sysfs and device-mapper in the calling thread. Changes nothing.
 * Free with manypath_inventory_free(). Errors: E_SYSTEM. */
MANYPATH_API int manypath_inventory_read(struct manypath *handle,
                                         struct manypath_inventory **ret_inventory,
                                         struct manypath_error *err);
MANYPATH_API void manypath_inventory_free(struct manypath_inventory *inventory);

#ifdef __cplusplus
}
#endif
#endif
