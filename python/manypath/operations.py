# SPDX-License-Identifier: Apache-2.0
"""Connect and disconnect volumes, and look at what is on the host."""

from __future__ import annotations

import dataclasses
import math
import os
from typing import TYPE_CHECKING, Any

from manypath import _core, properties
from manypath.address import shorten
from manypath.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from manypath._types import Attachment, Detachment, Inventory

DEFAULT_TIMEOUT = 60.0
TIMEOUT_LIMIT = 24 * 3600.0

#: The handle of this process, by process id. A dict because setdefault() is atomic: two threads
#: that come first get the same handle.
_handles: dict[int, _core.Handle] = {}


def connect(
    connection_properties: Mapping[str, Any],
    *,
    timeout: float = DEFAULT_TIMEOUT,
    min_paths: int = 1,
) -> Attachment:
    """Attach a volume and return its block device.

    Sessions and maps that are there already are used, so connecting again returns the same device.
    The call succeeds with at least ``min_paths`` usable paths; look at ``Attachment.paths`` for the
    others. ``timeout`` counts for the whole call, in seconds.

    Raises :class:`~manypath.errors.ManypathError`; its ``paths`` say what became of each path.
    After a failure, or a signal handler that raises, what the call made is undone.
    """
    request = properties.parse(connection_properties)
    _check_min_paths(min_paths, len(request.targets))
    attachment = _handle().attach(request.targets, _milliseconds(timeout), min_paths)
    if not request.warnings:
        return attachment
    return dataclasses.replace(attachment, warnings=request.warnings + attachment.warnings)


def disconnect(
    connection_properties: Mapping[str, Any], *, timeout: float = DEFAULT_TIMEOUT
) -> Detachment:
    """Detach a volume: flush, remove its map and disks, log out of sessions nothing else uses.

    Disconnecting what is not connected succeeds. A volume in use is refused, and nothing is removed
    if cached data cannot be written back.
    """
    request = properties.parse(connection_properties)
    detachment = _handle().detach(request.targets, _milliseconds(timeout))
    if not request.warnings:
        return detachment
    return dataclasses.replace(detachment, warnings=request.warnings + detachment.warnings)


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


def _check_min_paths(min_paths: int, target_count: int) -> None:
    if isinstance(min_paths, bool) or not isinstance(min_paths, int):
        raise InvalidRequestError(
            f"min_paths {shorten(min_paths)} is not an integer", phase="request"
        )
    if not 1 <= min_paths <= target_count:
        raise InvalidRequestError(
            f"min_paths {shorten(min_paths)} is not between 1 and {target_count}, "
            "the number of paths in the connection properties",
            phase="request",
        )
