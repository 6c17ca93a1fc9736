# SPDX-License-Identifier: Apache-2.0
"""What the operations return: plain values without behaviour."""

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from manypath.address import Portal
    from manypath.errors import ManypathError


class PathState(enum.StrEnum):
    """How a path stands."""

    FAILED = "failed"  #: see the path's error
    PENDING = "pending"  #: no answer from the portal yet; not part of the map
    ACTIVE = "active"  #: in the map, usable
    INACTIVE = "inactive"  #: in the map, failed by the kernel


class _Record:
    """Turns a dataclass into values that :mod:`json` can write."""

    __slots__ = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name; nested records become dicts, portals strings."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {field.name: _plain(getattr(self, field.name)) for field in fields}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, enum.Enum):
        return value.value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return value.as_dict() if hasattr(value, "as_dict") else str(value)


@dataclasses.dataclass(frozen=True, slots=True)
class Target(_Record):
    """One place where a volume is offered."""

    portal: Portal
    iqn: str
    lun: int


@dataclasses.dataclass(frozen=True, slots=True)
class PathTimes(_Record):
    """When each step of a path ended, in seconds since the operation began; None: not done."""

    login_begin: float | None = None
    login_end: float | None = None
    scan_end: float | None = None
    device_end: float | None = None
    identity_end: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Path(_Record):
    """One LUN through one session."""

    portal: Portal
    iqn: str
    lun: int
    state: PathState
    sid: int | None  #: session id of the kernel
    hctl: str | None  #: SCSI address, host:channel:target:lun
    device: str | None  #: name of the SCSI disk, such as "sda"
    error: ManypathError | None
    times: PathTimes
    session_existed: bool  #: the session was there before the operation


@dataclasses.dataclass(frozen=True, slots=True)
class Timings(_Record):
    """Seconds that the volume spent in each phase of an attach."""

    queue: float
    prepare: float
    login: float
    scan: float
    device: float
    identity: float
    map: float
    total: float


@dataclasses.dataclass(frozen=True, slots=True)
class Attachment(_Record):
    """An attached volume."""

    path: str  #: the block device, "/dev/dm-N"
    device: str  #: its kernel name, "dm-N"
    wwid: str
    name: str  #: the map's name
    size_bytes: int
    multipathd_running: bool
    map_existed: bool  #: the map was there before the operation
    paths: tuple[Path, ...]
    warnings: tuple[str, ...]
    timings: Timings


@dataclasses.dataclass(frozen=True, slots=True)
class DetachTimings(_Record):
    """Seconds that the volume spent in each phase of a detach."""

    queue: float
    prepare: float
    flush: float
    unmap: float
    delete: float
    logout: float
    total: float


@dataclasses.dataclass(frozen=True, slots=True)
class Detachment(_Record):
    """What a detach removed."""

    map_removed: bool  #: false: there was none
    devices_removed: int
    sessions_removed: int
    sessions_kept: int  #: still used by another LUN or operation
    warnings: tuple[str, ...]
    timings: DetachTimings


@dataclasses.dataclass(frozen=True, slots=True)
class Session(_Record):
    """An iSCSI session of this host."""

    sid: int
    host: int
    iqn: str
    portal: Portal | None  #: None: the kernel does not tell
    state: str  #: the kernel's word


@dataclasses.dataclass(frozen=True, slots=True)
class Disk(_Record):
    """A SCSI disk behind a session."""

    device: str
    sid: int
    hctl: str
    lun: int
    state: str  #: the kernel's word
    size_bytes: int
    map: str | None  #: "dm-N" of the multipath map that holds it
    path_state: PathState | None  #: its state in that map


@dataclasses.dataclass(frozen=True, slots=True)
class Map(_Record):
    """A multipath map."""

    device: str
    name: str
    wwid: str
    size_bytes: int
    open_count: int
    path_count: int
    active_path_count: int


@dataclasses.dataclass(frozen=True, slots=True)
class Inventory(_Record):
    """What is on this host."""

    sessions: tuple[Session, ...]
    disks: tuple[Disk, ...]
    maps: tuple[Map, ...]
    maps_known: bool  #: false: device-mapper could not be asked
