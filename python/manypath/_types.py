# SPDX-License-Identifier: Apache-2.0
"""What the operations return: plain values without behaviour."""

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING, Any, NoReturn, Self

if TYPE_CHECKING:
    from manypath.address import NamedPortal, Portal
    from manypath.errors import ManypathError


class PathState(enum.StrEnum):
    """How a path stands."""

    FAILED = "failed"  #: see the path's error
    PENDING = "pending"  #: its portal is away; joins the map when it is back
    ACTIVE = "active"  #: usable: in the map, or the single path
    INACTIVE = "inactive"  #: in the map, failed by the kernel
    UNUSED = "unused"  #: without multipath: an earlier target served


class Flush(enum.StrEnum):
    """What became of the data that was cached for a volume."""

    DONE = "done"  #: all that was still cached is on the storage
    FAILED = "failed"  #: what was not written back before may be lost
    UNKNOWN = "unknown"  #: it did not end in time, or was not reached
    NOT_NEEDED = "not_needed"  #: there was neither a map nor a disk


class _Record:
    """Turns a dataclass into values that :mod:`json` can write."""

    __slots__ = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name; nested records become dicts, portals strings.

        What ``repr()`` leaves out is left out here too: it is secret.
        """
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {field.name: _plain(getattr(self, field.name)) for field in fields if field.repr}


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

    portal: Portal | NamedPortal
    iqn: str
    lun: int


class Credentials:
    """User names and passwords for CHAP.

    ``username`` and ``password`` are what we prove to the target, ``username_in`` and
    ``password_in`` what it proves to us (mutual CHAP). ``algorithms`` are offered in that order, in
    open-iscsi's spelling.

    The passwords are the caller's objects, not copies, so no more copies of them lie in memory than
    the caller made. Nothing shows them, and they cannot be pickled. This is no dataclass because
    ``dataclasses.asdict()`` of what holds it would lay them open.
    """

    __slots__ = ("algorithms", "password", "password_in", "username", "username_in")

    username: str
    password: str | bytes
    username_in: str | None
    password_in: str | bytes | None
    algorithms: tuple[str, ...]

    def __init__(
        self,
        username: str,
        password: str | bytes,
        username_in: str | None = None,
        password_in: str | bytes | None = None,
        # More than one by default would fail on old targets, which cannot read a list.
        algorithms: tuple[str, ...] = ("MD5",),
    ) -> None:
        values = (algorithms, password, password_in, username, username_in)
        for name, value in zip(self.__slots__, values, strict=True):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"cannot assign to {name!r}: credentials do not change")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"cannot delete {name!r}: credentials do not change")

    def __repr__(self) -> str:
        shown = f"username={self.username!a}, password=<hidden>"
        if self.username_in is not None:
            shown += f", username_in={self.username_in!a}, password_in=<hidden>"
        return f"Credentials({shown}, algorithms={self.algorithms!a})"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: object) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("credentials cannot be pickled: their passwords would be laid open")

    def __getstate__(self) -> NoReturn:
        self.__reduce__()


@dataclasses.dataclass(frozen=True, slots=True)
class Discovery(_Record):
    """Where to ask for the targets of a volume, and which of those found are the volume's."""

    portals: tuple[Portal | NamedPortal, ...]  #: one after the other, until one answers
    iqn: str | None  #: None: the connection properties name none
    lun: int


@dataclasses.dataclass(frozen=True, slots=True)
class Plan(_Record):
    """What connecting a volume would do.

    The credentials are neither shown nor compared, and a plan that has some cannot be pickled.
    """

    multipath: bool  #: false: the targets are tried in order, and one is enough
    targets: tuple[Target, ...]  #: in order; empty: they have to be discovered
    discovery: Discovery | None
    warnings: tuple[str, ...]
    chap: Credentials | None = dataclasses.field(default=None, repr=False, compare=False)
    discovery_chap: Credentials | None = dataclasses.field(default=None, repr=False, compare=False)


@dataclasses.dataclass(frozen=True, slots=True)
class DiscoveredTarget(_Record):
    """A target at one of its portals, as the discovered portal tells."""

    iqn: str
    portal: Portal | NamedPortal
    tag: int | None  #: portal group tag; None: not told


@dataclasses.dataclass(frozen=True, slots=True)
class Discovered(_Record):
    """The answer of a discovery."""

    portal: Portal | NamedPortal  #: that was asked
    targets: tuple[DiscoveredTarget, ...]  #: in the order of the answer


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

    path: str  #: the block device, "/dev/dm-N"; without multipath "/dev/sdX"
    device: str  #: its kernel name, "dm-N" or "sdX"
    wwid: str
    name: str  #: the map's name; without multipath ""
    size_bytes: int
    #: It takes failed paths of the map back; without it this process does, as long as it lives.
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

    map_removed: bool  #: false: there was none, or it is still there
    flush: Flush
    devices_removed: int
    sessions_removed: int
    sessions_kept: int  #: still used by another LUN or operation
    errors: tuple[ManypathError, ...]  #: as they happened; a cancellation is the first
    warnings: tuple[str, ...]
    timings: DetachTimings


@dataclasses.dataclass(frozen=True, slots=True)
class ExtendTimings(_Record):
    """Seconds that the volume spent in each phase of an extend."""

    queue: float
    prepare: float
    rescan: float
    resize: float
    total: float


@dataclasses.dataclass(frozen=True, slots=True)
class Extension(_Record):
    """A volume that is as large as it is on the storage."""

    path: str  #: the block device, "/dev/dm-N"; without a map "/dev/sdX"
    device: str  #: its kernel name, "dm-N" or "sdX"
    wwid: str
    old_size_bytes: int  #: before the operation
    size_bytes: int
    multipathd_running: bool
    paths: tuple[Path, ...]  #: all of the map; a failed one does not have the new size
    warnings: tuple[str, ...]
    timings: ExtendTimings


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
