# SPDX-License-Identifier: Apache-2.0
# cython: auto_pickle=False, autotestdict=False
"""The C library for Python: conversion of arguments and results, the GIL, errors, lifetime."""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.errno cimport EINTR
from libc.stdint cimport int32_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from libmanypath cimport *

from ipaddress import ip_address

from manypath import _types, errors
from manypath.address import NamedPortal, Portal

cdef dict _PATH_STATES = {
    MANYPATH_PATH_FAILED: _types.PathState.FAILED,
    MANYPATH_PATH_PENDING: _types.PathState.PENDING,
    MANYPATH_PATH_ACTIVE: _types.PathState.ACTIVE,
    MANYPATH_PATH_INACTIVE: _types.PathState.INACTIVE,
    MANYPATH_PATH_UNUSED: _types.PathState.UNUSED,
}

cdef dict _FLUSHES = {
    MANYPATH_FLUSH_UNKNOWN: _types.Flush.UNKNOWN,
    MANYPATH_FLUSH_DONE: _types.Flush.DONE,
    MANYPATH_FLUSH_FAILED: _types.Flush.FAILED,
    MANYPATH_FLUSH_NOT_NEEDED: _types.Flush.NOT_NEEDED,
}

# RFC 7143 section 12.1.3
cdef dict _CHAP_ALGORITHMS = {"MD5": 5, "SHA1": 6, "SHA256": 7, "SHA3-256": 8}


def version():
    """Return the version of the C library."""
    return _text(manypath_version())


@cython.final
cdef class Handle:
    """An engine of the C library. It is closed when nothing refers to it any more.

    An operation holds a reference, so the engine outlives every operation. All methods may be called
    from any thread.
    """

    cdef manypath *_handle
    cdef str _dev_root

    def __cinit__(self, *, sysfs_root=None, dev_root=None, proc_root=None, iscsid_socket=None,
                  iscsid_pidfile=None, layout_dir=None, multipath_dir=None,
                  multipath_run_dir=None, multipathd_socket=None, multipathd_pidfile=None,
                  initiator_file=None, runtime_dir=None, udev_data=None, daemon_uid=0,
                  logins_in_flight=0, worker_threads=0):
        cdef manypath_options options
        cdef manypath_error err
        cdef int rc
        # Keeps the bytes alive until manypath_open() has copied them.
        texts = [None if text is None else _bytes(text)
                 for text in (sysfs_root, dev_root, iscsid_socket, iscsid_pidfile, layout_dir,
                              multipath_dir, multipath_run_dir, multipathd_socket,
                              multipathd_pidfile, initiator_file, runtime_dir, proc_root,
                              udev_data)]
        memset(&options, 0, sizeof(options))
        memset(&err, 0, sizeof(err))
        options.sysfs_root = _pointer(texts[0])
        options.dev_root = _pointer(texts[1])
        options.iscsid_socket = _pointer(texts[2])
        options.iscsid_pidfile = _pointer(texts[3])
        options.layout_dir = _pointer(texts[4])
        options.multipath_dir = _pointer(texts[5])
        options.multipath_run_dir = _pointer(texts[6])
        options.multipathd_socket = _pointer(texts[7])
        options.multipathd_pidfile = _pointer(texts[8])
        options.initiator_file = _pointer(texts[9])
        options.runtime_dir = _pointer(texts[10])
        options.proc_root = _pointer(texts[11])
        options.udev_data = _pointer(texts[12])
        options.daemon_uid = daemon_uid
        options.logins_in_flight = logins_in_flight
        options.worker_threads = worker_threads
        with nogil:
            rc = manypath_open(&options, &self._handle, &err)
        if rc < 0:
            raise _error(&err, ())
        self._dev_root = "/dev" if dev_root is None else dev_root

    def __dealloc__(self):
        with nogil:
            manypath_close(self._handle)

    def attach(self, targets, timeout_ms, min_paths, *, candidates=(), chap=None,
               single_path=False, wwid=None, serial=None):
        """Attach the volume that is offered at `targets`, and perhaps at `candidates`.

        With `wwid` or `serial` it must be that one. Return an Attachment.
        """
        cdef _Targets array = _Targets(targets, candidates)
        cdef _Chap secrets = _Chap(chap)
        cdef manypath_attach_request request
        cdef manypath_operation *operation = NULL
        cdef manypath_attachment *attachment = NULL
        cdef manypath_path *paths = NULL
        cdef size_t path_count = 0
        cdef manypath_error err
        cdef int rc
        # Keeps the bytes alive until manypath_attach_begin() has copied them.
        wanted = [None if text is None else _bytes(text) for text in (wwid, serial)]
        memset(&err, 0, sizeof(err))
        request.targets = array.items
        request.target_count = array.count
        request.timeout_ms = timeout_ms
        request.min_paths = min_paths
        request.chap = secrets.pointer
        request.single_path = single_path
        request.wwid = _pointer(wanted[0])
        request.serial = _pointer(wanted[1])
        with nogil:
            rc = manypath_attach_begin(self._handle, &request, &operation, &err)
        if rc < 0:
            raise _error(&err, ())
        interruption = _wait(operation)
        with nogil:
            rc = manypath_attach_finish(operation, &attachment, &paths, &path_count, &err)
        try:
            if interruption is not None:
                raise interruption
            if rc < 0:
                raise _error(&err, _paths(paths, path_count))
            return _attachment(attachment, self._dev_root)
        finally:
            manypath_attachment_free(attachment)
            manypath_paths_free(paths)

    def detach(self, targets, timeout_ms, *, whole_map=False, force=False):
        """Detach the volume that is offered at `targets`; return a Detachment.

        With `force` an error has it as its `detachment`.
        """
        cdef _Targets array = _Targets(targets, ())
        cdef manypath_detach_request request
        cdef manypath_operation *operation = NULL
        cdef manypath_detachment *detachment = NULL
        cdef manypath_error err
        cdef int rc
        memset(&err, 0, sizeof(err))
        request.targets = array.items
        request.target_count = array.count
        request.timeout_ms = timeout_ms
        request.whole_map = whole_map
        request.force = force
        with nogil:
            rc = manypath_detach_begin(self._handle, &request, &operation, &err)
        if rc < 0:
            raise _error(&err, ())
        interruption = _wait(operation)
        with nogil:
            rc = manypath_detach_finish(operation, &detachment, &err)
        try:
            if interruption is not None:
                raise interruption
            if rc < 0:
                raise _error(&err, (), None if detachment == NULL else _detachment(detachment))
            return _detachment(detachment)
        finally:
            manypath_detachment_free(detachment)

    def extend(self, targets, timeout_ms, *, size_bytes=0):
        """Make the volume that is offered at `targets` as large as it is on the storage.

        Return an Extension.
        """
        cdef _Targets array = _Targets(targets, ())
        cdef manypath_extend_request request
        cdef manypath_operation *operation = NULL
        cdef manypath_extension *extension = NULL
        cdef manypath_error err
        cdef int rc
        memset(&err, 0, sizeof(err))
        request.targets = array.items
        request.target_count = array.count
        request.timeout_ms = timeout_ms
        request.size_bytes = size_bytes
        with nogil:
            rc = manypath_extend_begin(self._handle, &request, &operation, &err)
        if rc < 0:
            raise _error(&err, ())
        interruption = _wait(operation)
        with nogil:
            rc = manypath_extend_finish(operation, &extension, &err)
        try:
            if interruption is not None:
                raise interruption
            if rc < 0:
                raise _error(&err, ())
            return _extension(extension, self._dev_root)
        finally:
            manypath_extension_free(extension)

    def discover(self, portal, timeout_ms, *, initiator=None, chap=None):
        """Ask the portal for its targets; return a tuple of DiscoveredTarget."""
        cdef _Chap secrets = _Chap(chap)
        cdef manypath_discover_request request
        cdef manypath_operation *operation = NULL
        cdef manypath_discovery *found = NULL
        cdef manypath_error err
        cdef int rc
        address = _bytes(str(portal.ip))
        name = None if initiator is None else _bytes(initiator)
        memset(&err, 0, sizeof(err))
        request.address = address
        request.port = portal.port
        request.timeout_ms = timeout_ms
        request.initiator = _pointer(name)
        request.chap = secrets.pointer
        with nogil:
            rc = manypath_discover_begin(self._handle, &request, &operation, &err)
        if rc < 0:
            raise _error(&err, ())
        interruption = _wait(operation)
        with nogil:
            rc = manypath_discover_finish(operation, &found, &err)
        try:
            if interruption is not None:
                raise interruption
            if rc < 0:
                raise _error(&err, ())
            return _discovered(found)
        finally:
            manypath_discovery_free(found)

    def resolve(self, host, timeout_ms):
        """Resolve a host name; return its numeric addresses as a tuple of strings."""
        cdef manypath_operation *operation = NULL
        cdef manypath_addresses *found = NULL
        cdef manypath_error err
        cdef const char *name
        cdef uint32_t limit = timeout_ms
        cdef int rc
        encoded = _bytes(host)
        name = encoded
        memset(&err, 0, sizeof(err))
        with nogil:
            rc = manypath_resolve_begin(self._handle, name, limit, &operation, &err)
        if rc < 0:
            raise _error(&err, ())
        interruption = _wait(operation)
        with nogil:
            rc = manypath_resolve_finish(operation, &found, &err)
        try:
            if interruption is not None:
                raise interruption
            if rc < 0:
                raise _error(&err, ())
            return _texts(found.addresses, found.count)
        finally:
            manypath_addresses_free(found)

    def inventory(self):
        """Read the host's state; return an Inventory."""
        cdef manypath_inventory *found = NULL
        cdef manypath_error err
        cdef int rc
        memset(&err, 0, sizeof(err))
        with nogil:
            rc = manypath_inventory_read(self._handle, &found, &err)
        if rc < 0:
            raise _error(&err, ())
        try:
            return _inventory(found)
        finally:
            manypath_inventory_free(found)


@cython.final
cdef class _Targets:
    """An array of struct manypath_target and the bytes it points to."""

    cdef manypath_target *items
    cdef size_t count
    cdef list _texts

    def __cinit__(self, targets, candidates):
        cdef size_t index
        cdef size_t certain = len(targets)
        self.count = certain + len(candidates)
        self.items = <manypath_target *>calloc(self.count + 1, sizeof(manypath_target))
        if self.items == NULL:
            raise MemoryError
        self._texts = []
        for index, target in enumerate((*targets, *candidates)):
            address, iqn = _bytes(str(target.portal.ip)), _bytes(target.iqn)
            self._texts += (address, iqn)
            self.items[index].address = address
            self.items[index].port = target.portal.port
            self.items[index].iqn = iqn
            self.items[index].lun = target.lun
            self.items[index].candidate = index >= certain

    def __dealloc__(self):
        free(self.items)


@cython.final
cdef class _Chap:
    """A struct manypath_chap that points into the caller's objects: no secret is copied here."""

    cdef manypath_chap chap
    cdef manypath_chap *pointer  # NULL: no credentials
    cdef object _credentials

    def __cinit__(self, credentials):
        cdef size_t ignored
        cdef int index
        self.pointer = NULL
        if credentials is None:
            return
        self._credentials = credentials
        memset(&self.chap, 0, sizeof(self.chap))
        self.chap.username = _secret(credentials.username, &ignored)
        self.chap.password = _secret(credentials.password, &self.chap.password_length)
        if credentials.username_in is not None:
            self.chap.username_in = _secret(credentials.username_in, &ignored)
        if credentials.password_in is not None:
            self.chap.password_in = _secret(credentials.password_in, &self.chap.password_in_length)
        for index, name in enumerate(credentials.algorithms[:4]):
            self.chap.algorithms[index] = _CHAP_ALGORITHMS[name]
        self.pointer = &self.chap


cdef const char *_secret(object text, size_t *ret_length) except NULL:
    # CPython keeps an ASCII string as its own UTF-8, and any other's beside it, as long as it lives.
    cdef Py_ssize_t length
    cdef const char *start
    if isinstance(text, bytes):
        ret_length[0] = len(text)
        return <const char *>(<bytes>text)
    start = PyUnicode_AsUTF8AndSize(text, &length)
    ret_length[0] = length
    return start


cdef object _wait(manypath_operation *operation):
    """Wait until the operation is complete; return what a signal handler raised, or None.

    After such an exception the operation is cancelled, and complete once the engine has undone what it
    made. Further signals wait for that.
    """
    cdef int rc
    interruption = None
    while True:
        with nogil:
            rc = manypath_operation_wait(operation, -1)
        if rc != -EINTR:
            return interruption
        if interruption is None:
            try:
                PyErr_CheckSignals()
            except BaseException as error:
                interruption = error
                with nogil:
                    manypath_operation_cancel(operation)


cdef object _error(const manypath_error *err, tuple paths, object detachment=None):
    """The one place where an error of the C library becomes an exception."""
    return errors.CLASS_BY_CODE.get(err.code, errors.ManypathError)(
        _text(err.message),
        code=err.code,
        phase=_text(manypath_phase_name(err.phase)),
        errno=err.sys_errno or None,
        iscsid_code=err.iscsid_code or None,
        portal=_portal(err.address, err.port),
        retryable=err.retryable,
        paths=paths,
        detachment=detachment,
    )


cdef object _attachment(const manypath_attachment *found, str dev_root):
    cdef const manypath_attach_times *times = &found.times
    device = _text(found.device)
    return _types.Attachment(
        path=f"{dev_root}/{device}",
        device=device,
        wwid=_text(found.wwid),
        name=_text(found.name),
        size_bytes=found.size_bytes,
        multipathd_running=found.multipathd_running,
        map_existed=found.map_was_there,
        paths=_paths(found.paths, found.path_count),
        warnings=_texts(found.warnings, found.warning_count),
        timings=_types.Timings(
            queue=_seconds(times.queue_ns),
            prepare=_seconds(times.prepare_ns),
            login=_seconds(times.login_ns),
            scan=_seconds(times.scan_ns),
            device=_seconds(times.device_ns),
            identity=_seconds(times.identity_ns),
            map=_seconds(times.map_ns),
            total=_seconds(times.total_ns),
        ),
    )


cdef object _detachment(const manypath_detachment *found):
    cdef const manypath_detach_times *times = &found.times
    cdef size_t index
    return _types.Detachment(
        map_removed=found.map_removed,
        flush=_FLUSHES[found.flush],
        devices_removed=found.devices_removed,
        sessions_removed=found.sessions_removed,
        sessions_kept=found.sessions_kept,
        errors=tuple([_error(&found.errors[index], ()) for index in range(found.error_count)]),
        warnings=_texts(found.warnings, found.warning_count),
        timings=_types.DetachTimings(
            queue=_seconds(times.queue_ns),
            prepare=_seconds(times.prepare_ns),
            flush=_seconds(times.flush_ns),
            unmap=_seconds(times.unmap_ns),
            delete=_seconds(times.delete_ns),
            logout=_seconds(times.logout_ns),
            total=_seconds(times.total_ns),
        ),
    )


cdef object _extension(const manypath_extension *found, str dev_root):
    cdef const manypath_extend_times *times = &found.times
    device = _text(found.device)
    return _types.Extension(
        path=f"{dev_root}/{device}",
        device=device,
        wwid=_text(found.wwid),
        old_size_bytes=found.old_size_bytes,
        size_bytes=found.size_bytes,
        multipathd_running=found.multipathd_running,
        paths=_paths(found.paths, found.path_count),
        warnings=_texts(found.warnings, found.warning_count),
        timings=_types.ExtendTimings(
            queue=_seconds(times.queue_ns),
            prepare=_seconds(times.prepare_ns),
            rescan=_seconds(times.rescan_ns),
            resize=_seconds(times.resize_ns),
            total=_seconds(times.total_ns),
        ),
    )


cdef tuple _paths(const manypath_path *paths, size_t count):
    cdef size_t index
    return tuple([_path(&paths[index]) for index in range(count)])


cdef object _path(const manypath_path *path):
    cdef const manypath_path_times *times = &path.times
    return _types.Path(
        portal=_portal(path.address, path.port),
        iqn=_text(path.iqn),
        lun=path.lun,
        state=_PATH_STATES[path.state],
        sid=path.sid if path.sid >= 0 else None,
        hctl=_hctl(path.host, path.channel, path.target, path.lun) if path.host >= 0 else None,
        device=_text(path.device) or None,
        error=_error(&path.error, ()) if path.error.code != 0 else None,
        times=_types.PathTimes(
            login_begin=_moment(times.login_begin_ns),
            login_end=_moment(times.login_end_ns),
            scan_end=_moment(times.scan_end_ns),
            device_end=_moment(times.device_end_ns),
            identity_end=_moment(times.identity_end_ns),
        ),
        session_existed=path.session_was_there,
    )


cdef tuple _discovered(const manypath_discovery *found):
    cdef size_t index
    return tuple([_discovered_target(&found.targets[index])
                  for index in range(found.target_count)])


cdef object _discovered_target(const manypath_discovered *target):
    portal = _portal(target.host, target.port)
    return _types.DiscoveredTarget(
        iqn=_text(target.iqn),
        portal=NamedPortal(_text(target.host), target.port) if portal is None else portal,
        tag=target.tag if target.tag >= 0 else None,
    )


cdef object _inventory(const manypath_inventory *found):
    cdef size_t index
    return _types.Inventory(
        sessions=tuple([_session(&found.sessions[index])
                        for index in range(found.session_count)]),
        disks=tuple([_disk(&found.disks[index]) for index in range(found.disk_count)]),
        maps=tuple([_map(&found.maps[index]) for index in range(found.map_count)]),
        maps_known=found.maps_known,
    )


cdef object _session(const manypath_session_info *session):
    return _types.Session(
        sid=session.sid,
        host=session.host,
        iqn=_text(session.iqn),
        portal=_portal(session.address, session.port),
        state=_text(session.state),
    )


cdef object _disk(const manypath_disk_info *disk):
    map_device = _text(disk.map) or None
    return _types.Disk(
        device=_text(disk.device),
        sid=disk.sid,
        hctl=_hctl(disk.host, disk.channel, disk.target, disk.lun),
        lun=disk.lun,
        state=_text(disk.state),
        size_bytes=disk.size_bytes,
        map=map_device,
        path_state=_PATH_STATES[disk.path_state] if map_device is not None else None,
    )


cdef object _map(const manypath_map_info *info):
    return _types.Map(
        device=_text(info.device),
        name=_text(info.name),
        wwid=_text(info.wwid),
        size_bytes=info.size_bytes,
        open_count=info.open_count,
        path_count=info.path_count,
        active_path_count=info.active_path_count,
    )


cdef object _portal(const char *address, uint16_t port):
    # Of other people's sessions the kernel may know a host name only.
    try:
        return Portal(ip_address(_text(address)), port)
    except ValueError:
        return None


cdef str _hctl(int32_t host, int32_t channel, int32_t target, uint64_t lun):
    return f"{host}:{channel}:{target}:{lun}"


cdef object _seconds(uint64_t nanoseconds):
    return nanoseconds / 1e9


cdef object _moment(uint64_t nanoseconds):
    return nanoseconds / 1e9 if nanoseconds != 0 else None


cdef str _text(const char *text):
    # Kernel and daemons may put any byte into a name; a message must not fail because of it.
    return (<bytes>text).decode("utf-8", "backslashreplace")


cdef tuple _texts(char **texts, size_t count):
    cdef size_t index
    return tuple([_text(texts[index]) for index in range(count)])


cdef bytes _bytes(str text):
    encoded = text.encode()
    if b"\0" in encoded:
        raise ValueError(f"text holds a NUL character: {text!a}")
    return encoded


cdef const char *_pointer(bytes text) except? NULL:
    return NULL if text is None else <const char *>text
