# SPDX-License-Identifier: Apache-2.0
"""Connect, extend and disconnect volumes, and look at what is on the host."""

from __future__ import annotations

import dataclasses
import math
import os
from typing import TYPE_CHECKING, Any

from manypath import _core, places, properties
from manypath._types import Detachment, DetachTimings, Flush
from manypath.address import NamedPortal, Portal, parse_portal, shorten
from manypath.errors import InvalidRequestError, ManypathError, SessionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from manypath._types import (
        Attachment,
        Credentials,
        Discovered,
        Extension,
        Inventory,
        Plan,
    )

DEFAULT_TIMEOUT = 60.0
TIMEOUT_LIMIT = 24 * 3600.0

#: The handle of this process, by process id. A dict because setdefault() is atomic: two threads
#: that come first get the same handle.
_handles: dict[int, _core.Handle] = {}


def connect(
    connection_properties: Mapping[str, Any],
    *,
    multipath: bool = True,
    strict: bool = False,
    timeout: float = DEFAULT_TIMEOUT,
    min_paths: int = 1,
    wwid: str | None = None,
    serial: str | None = None,
) -> Attachment:
    """Attach a volume and return its block device.

    What is done with the connection properties is what :func:`plan` says. Sessions and maps that
    are there already are used, so connecting again returns the same device. ``timeout`` counts for
    the whole call, in seconds.

    With ``multipath`` the device is a multipath map. The call succeeds with at least ``min_paths``
    usable paths; look at ``Attachment.paths`` for the others. A path whose portal is away is
    pending: this process goes on trying, and the path joins the map when the portal is back.

    Without ``multipath`` the device is one SCSI disk: the targets are tried in order, and the first
    that offers the volume serves.

    If it is known who the volume must be, say it: with ``wwid``, as multipathd has it
    (``3600...``; ``naa.600...`` and ``eui.00...`` are understood too), or ``serial``, the number in
    VPD page 0x80. A path that is another disk is kept out.

    Raises :class:`~manypath.errors.ManypathError`; its ``paths`` say what became of each path.
    After a failure, or a signal handler that raises, what the call made is undone.
    """
    plan = properties.plan(connection_properties, multipath, strict=strict)
    deadline = places.Deadline(_milliseconds(timeout))
    _check_min_paths(min_paths, None if plan.discovery else len(plan.targets), multipath)
    _check_expected("wwid", wwid)
    _check_expected("serial", serial)
    handle = _handle()
    where = places.to_attach(handle, plan, deadline)
    _check_min_paths(min_paths, len(where.targets) + len(where.candidates), multipath)
    attachment = handle.attach(
        where.targets,
        deadline.milliseconds(),
        min_paths,
        candidates=where.candidates,
        chap=plan.chap,
        single_path=not multipath,
        wwid=wwid,
        serial=serial,
    )
    warnings = plan.warnings + where.warnings
    if not warnings:
        return attachment
    return dataclasses.replace(attachment, warnings=warnings + attachment.warnings)


def disconnect(
    connection_properties: Mapping[str, Any],
    *,
    multipath: bool = True,
    timeout: float = DEFAULT_TIMEOUT,
    force: bool = False,
    ignore_errors: bool = False,
) -> Detachment:
    """Detach a volume: flush, remove its map and disks, log out of sessions nothing else uses.

    Disconnecting what is not connected succeeds. A volume in use is refused, and nothing is removed
    if cached data cannot be written back. Portals need not be reachable, and credentials are not
    needed. ``multipath`` is only a hint: what is there is detached, with a map or without.

    With ``force`` everything is attempted whatever fails, within the timeout; data that cannot be
    written back is given up. A volume that is in use stays, with its disks and sessions; only if
    none of its paths works are the disks deleted, and the map goes when it is closed. The first
    error is raised in the end: its ``detachment`` says what was done, whether the data was flushed,
    and what else failed. With ``ignore_errors`` too, that detachment is returned instead. Without
    ``force``, ``ignore_errors`` has no effect, as in os-brick: an error means that the volume is
    still there, or part of it, and that the same call would go on.
    """
    plan = _plan_of_attached(connection_properties, multipath)
    deadline = places.Deadline(_milliseconds(timeout))
    handle = _handle()
    where = places.to_detach(handle, plan, deadline)
    if not where.targets:  # no session, and nobody knows the portals: so it is not connected
        return _nothing_detached(plan.warnings)
    try:
        # What discovery found then is in the map now.
        detachment = handle.detach(
            where.targets,
            deadline.milliseconds(),
            whole_map=plan.discovery is not None,
            force=force,
        )
    except ManypathError as error:
        if not (force and ignore_errors and error.detachment is not None):
            raise
        detachment = error.detachment
    if not plan.warnings:
        return detachment
    return dataclasses.replace(detachment, warnings=plan.warnings + detachment.warnings)


def _nothing_detached(warnings: tuple[str, ...]) -> Detachment:
    timings = DetachTimings(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    return Detachment(False, Flush.NOT_NEEDED, 0, 0, 0, (), warnings, timings)


def extend(
    connection_properties: Mapping[str, Any],
    *,
    multipath: bool = True,
    size: int | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> Extension:
    """Make a connected volume as large as it has become on the storage, in use or not.

    Every path of its map is rescanned, proven to be still this volume and to have the new size;
    then the map becomes longer. With ``size``, in bytes, the call waits until the storage tells at
    least that; else what the paths agree on is taken. Extending again succeeds. ``multipath`` is
    only a hint, as for :func:`disconnect`.

    A path that does not answer is ``failed`` in ``Extension.paths``, and taken out of the map since
    no map can be longer than one of its paths; the same call takes it back once it answers. If a
    path answers with another size or is another disk, or if the volume has become smaller, an error
    says so and the map stays as it was.
    """
    plan = _plan_of_attached(connection_properties, multipath)
    size_bytes = _check_size(size)
    deadline = places.Deadline(_milliseconds(timeout))
    handle = _handle()
    where = places.to_detach(handle, plan, deadline)
    if not where.targets:
        raise SessionError(
            "the volume is not attached: this host has no session to it, and the names of its "
            "portals cannot be resolved; connect it, that takes the size it has now",
            phase="prepare",
        )
    extension = handle.extend(where.targets, deadline.milliseconds(), size_bytes=size_bytes)
    if not plan.warnings:
        return extension
    return dataclasses.replace(extension, warnings=plan.warnings + extension.warnings)


def discover(
    portal: Portal | NamedPortal | str,
    *,
    chap: Credentials | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    initiator: str | None = None,
) -> Discovered:
    """Ask a portal for the targets that it offers (SendTargets, RFC 7143 appendix C).

    Logs in with the host's initiator name unless ``initiator`` is given. Neither root nor iscsid is
    needed, except that the file with the host's name may be readable by root only.
    """
    where = parse_portal(portal) if isinstance(portal, str) else portal
    if not isinstance(where, Portal | NamedPortal):
        raise InvalidRequestError(f"portal {shorten(portal)} is no portal", phase="request")
    if initiator is not None:
        initiator = properties.iscsi_name("initiator", initiator)
    deadline = places.Deadline(_milliseconds(timeout))
    return places.discover(_handle(), where, deadline, chap, initiator)


def inventory() -> Inventory:
    """Return the iSCSI sessions, their disks and the multipath maps of this host."""
    return _handle().inventory()


def _handle() -> _core.Handle:
    pid = os.getpid()
    handle = _handles.get(pid)
    if handle is None:
        # A child may get the process id of an ancestor that is gone, so it forgets all handles.
        os.register_at_fork(after_in_child=_handles.clear)
        handle = _handles.setdefault(pid, _core.Handle())
    return handle


def _plan_of_attached(connection_properties: Mapping[str, Any], multipath: bool) -> Plan:
    """Plan without credentials: nobody logs in, unless the target's name has to be asked for."""
    plan = properties.plan_without_chap(connection_properties, multipath)
    if plan.discovery is not None and plan.discovery.iqn is None:
        return properties.plan(connection_properties, multipath)
    return plan


def _check_size(size: int | None) -> int:
    if size is None:
        return 0
    if isinstance(size, bool) or not isinstance(size, int):
        raise InvalidRequestError(f"size {shorten(size)} is not a number of bytes", phase="request")
    if not 0 < size < 2**63:
        raise InvalidRequestError(
            f"size {shorten(size)} is not above 0 and below 2^63 bytes", phase="request"
        )
    return size


def _milliseconds(timeout: float) -> int:
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise InvalidRequestError(
            f"timeout {shorten(timeout)} is not a number of seconds", phase="request"
        )
    if not 0 < timeout <= TIMEOUT_LIMIT:
        raise InvalidRequestError(
            f"timeout {shorten(timeout)} is not above 0 and at most {TIMEOUT_LIMIT:.0f} seconds",
            phase="request",
        )
    return math.ceil(timeout * 1000)


def _check_expected(name: str, text: str | None) -> None:
    """The C library knows what is well formed, but what is no text does not get there."""
    if text is not None and (not isinstance(text, str) or "\0" in text):
        raise InvalidRequestError(f"{name} {shorten(text)} is not a text", phase="request")


def _check_min_paths(min_paths: int, path_count: int | None, multipath: bool) -> None:
    """Check against the number of paths, once that is known."""
    if isinstance(min_paths, bool) or not isinstance(min_paths, int):
        raise InvalidRequestError(
            f"min_paths {shorten(min_paths)} is not an integer", phase="request"
        )
    most = path_count if multipath else 1
    if min_paths < 1:
        raise InvalidRequestError(f"min_paths {shorten(min_paths)} is below 1", phase="request")
    if most is not None and min_paths > most:
        reason = "the volume has no more paths" if multipath else "there is one without multipath"
        raise InvalidRequestError(
            f"min_paths {shorten(min_paths)} is above {most}: {reason}", phase="request"
        )
