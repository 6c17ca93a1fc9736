# SPDX-License-Identifier: Apache-2.0
# What manypath/manypath.h declares, as far as _core.pyx needs it. Nothing here calls Python.

from libc.stdint cimport int32_t, uint16_t, uint32_t, uint64_t


cdef extern from "<stdbool.h>" nogil:
    ctypedef bint c_bool "bool"


cdef extern from "<manypath/manypath.h>" nogil:
    struct manypath_error:
        int32_t code
        int32_t phase
        int32_t sys_errno
        int32_t iscsid_code
        c_bool retryable
        const char *address
        uint16_t port
        const char *message

    const char *manypath_phase_name(int phase)
    const char *manypath_version()

    struct manypath:
        pass

    struct manypath_options:
        const char *sysfs_root
        const char *dev_root
        const char *proc_root
        const char *iscsid_socket
        const char *iscsid_pidfile
        const char *layout_dir
        const char *multipath_dir
        const char *multipath_run_dir
        const char *multipathd_socket
        const char *multipathd_pidfile
        const char *initiator_file
        const char *runtime_dir
        const char *udev_data
        uint32_t daemon_uid
        uint32_t logins_in_flight
        uint32_t worker_threads

    int manypath_open(const manypath_options *options, manypath **ret_handle, manypath_error *err)
    void manypath_close(manypath *handle)

    struct manypath_operation:
        pass

    struct manypath_target:
        const char *address
        uint16_t port
        const char *iqn
        uint64_t lun
        c_bool candidate

    struct manypath_chap:
        const char *username
        const void *password
        size_t password_length
        const char *username_in
        const void *password_in
        size_t password_in_length
        int32_t algorithms[4]

    struct manypath_attach_request:
        const manypath_target *targets
        size_t target_count
        uint32_t timeout_ms
        uint32_t min_paths
        const manypath_chap *chap
        c_bool single_path
        const char *wwid
        const char *serial

    struct manypath_detach_request:
        const manypath_target *targets
        size_t target_count
        uint32_t timeout_ms
        c_bool whole_map
        c_bool force

    struct manypath_extend_request:
        const manypath_target *targets
        size_t target_count
        uint32_t timeout_ms
        uint64_t size_bytes

    struct manypath_path_times:
        uint64_t login_begin_ns
        uint64_t login_end_ns
        uint64_t scan_end_ns
        uint64_t device_end_ns
        uint64_t identity_end_ns

    struct manypath_path:
        const char *address
        uint16_t port
        const char *iqn
        uint64_t lun
        int32_t state
        int32_t sid
        int32_t host
        int32_t channel
        int32_t target
        c_bool session_was_there
        const char *device
        manypath_path_times times
        manypath_error error

    int MANYPATH_PATH_FAILED
    int MANYPATH_PATH_PENDING
    int MANYPATH_PATH_ACTIVE
    int MANYPATH_PATH_INACTIVE
    int MANYPATH_PATH_UNUSED

    struct manypath_attach_times:
        uint64_t queue_ns
        uint64_t prepare_ns
        uint64_t login_ns
        uint64_t scan_ns
        uint64_t device_ns
        uint64_t identity_ns
        uint64_t map_ns
        uint64_t total_ns

    struct manypath_attachment:
        const char *device
        const char *name
        const char *wwid
        uint64_t size_bytes
        c_bool map_was_there
        c_bool multipathd_running
        size_t path_count
        manypath_path *paths
        size_t warning_count
        char **warnings
        manypath_attach_times times

    struct manypath_detach_times:
        uint64_t queue_ns
        uint64_t prepare_ns
        uint64_t flush_ns
        uint64_t unmap_ns
        uint64_t delete_ns
        uint64_t logout_ns
        uint64_t total_ns

    int MANYPATH_FLUSH_UNKNOWN
    int MANYPATH_FLUSH_DONE
    int MANYPATH_FLUSH_FAILED
    int MANYPATH_FLUSH_NOT_NEEDED

    struct manypath_detachment:
        c_bool map_removed
        int32_t flush
        uint32_t devices_removed
        uint32_t sessions_removed
        uint32_t sessions_kept
        size_t error_count
        manypath_error *errors
        size_t warning_count
        char **warnings
        manypath_detach_times times

    struct manypath_extend_times:
        uint64_t queue_ns
        uint64_t prepare_ns
        uint64_t rescan_ns
        uint64_t resize_ns
        uint64_t total_ns

    struct manypath_extension:
        const char *device
        const char *wwid
        uint64_t old_size_bytes
        uint64_t size_bytes
        c_bool multipathd_running
        size_t path_count
        manypath_path *paths
        size_t warning_count
        char **warnings
        manypath_extend_times times

    int manypath_attach_begin(manypath *handle, const manypath_attach_request *request,
                              manypath_operation **ret_operation, manypath_error *err)
    int manypath_detach_begin(manypath *handle, const manypath_detach_request *request,
                              manypath_operation **ret_operation, manypath_error *err)
    int manypath_extend_begin(manypath *handle, const manypath_extend_request *request,
                              manypath_operation **ret_operation, manypath_error *err)
    int manypath_operation_wait(manypath_operation *operation, int timeout_ms)
    void manypath_operation_cancel(manypath_operation *operation)
    int manypath_attach_finish(manypath_operation *operation, manypath_attachment **ret_attachment,
                               manypath_path **ret_paths, size_t *ret_path_count,
                               manypath_error *err)
    int manypath_detach_finish(manypath_operation *operation, manypath_detachment **ret_detachment,
                               manypath_error *err)
    int manypath_extend_finish(manypath_operation *operation, manypath_extension **ret_extension,
                               manypath_error *err)
    void manypath_attachment_free(manypath_attachment *attachment)
    void manypath_detachment_free(manypath_detachment *detachment)
    void manypath_extension_free(manypath_extension *extension)
    void manypath_paths_free(manypath_path *paths)

    struct manypath_discover_request:
        const char *address
        uint16_t port
        uint32_t timeout_ms
        const char *initiator
        const manypath_chap *chap

    struct manypath_discovered:
        const char *iqn
        const char *host
        uint16_t port
        int32_t tag

    struct manypath_discovery:
        size_t target_count
        manypath_discovered *targets

    int manypath_discover_begin(manypath *handle, const manypath_discover_request *request,
                                manypath_operation **ret_operation, manypath_error *err)
    int manypath_discover_finish(manypath_operation *operation, manypath_discovery **ret_discovery,
                                 manypath_error *err)
    void manypath_discovery_free(manypath_discovery *discovery)

    struct manypath_addresses:
        size_t count
        char **addresses

    int manypath_resolve_begin(manypath *handle, const char *host, uint32_t timeout_ms,
                               manypath_operation **ret_operation, manypath_error *err)
    int manypath_resolve_finish(manypath_operation *operation, manypath_addresses **ret_addresses,
                                manypath_error *err)
    void manypath_addresses_free(manypath_addresses *addresses)

    struct manypath_session_info:
        int32_t sid
        int32_t host
        const char *iqn
        const char *address
        uint16_t port
        const char *state

    struct manypath_disk_info:
        int32_t sid
        int32_t host
        int32_t channel
        int32_t target
        uint64_t lun
        const char *device
        const char *state
        uint64_t size_bytes
        const char *map
        int32_t path_state

    struct manypath_map_info:
        const char *device
        const char *name
        const char *wwid
        uint64_t size_bytes
        uint32_t open_count
        uint32_t path_count
        uint32_t active_path_count

    struct manypath_inventory:
        size_t session_count
        manypath_session_info *sessions
        size_t disk_count
        manypath_disk_info *disks
        size_t map_count
        manypath_map_info *maps
        c_bool maps_known

    int manypath_inventory_read(manypath *handle, manypath_inventory **ret_inventory,
                                manypath_error *err)
    void manypath_inventory_free(manypath_inventory *inventory)
