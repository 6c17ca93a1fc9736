# SPDX-License-Identifier: Apache-2.0
"""A device-mapper in memory that answers the ioctls of kernel include/uapi/linux/dm-ioctl.h."""

from __future__ import annotations

import errno
import functools
import itertools
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

if TYPE_CHECKING:
    from fake.host import FakeHost

T = TypeVar("T")
P = ParamSpec("P")

MAJOR = 253
HEADER = struct.Struct("=3I I I I i I I I Q 128s 129s 7s")
SPEC = struct.Struct("=Q Q i I 16s")

VERSION, LIST_DEVICES, CREATE, REMOVE, SUSPEND, STATUS = 0, 2, 3, 4, 6, 7
LOAD, DEPS, TABLE_STATUS, MESSAGE, TARGET_VERSION = 9, 11, 12, 14, 17

F_DEFERRED = 1 << 17
F_READONLY, F_SUSPEND, F_STATUS_TABLE, F_ACTIVE, F_INACTIVE, F_BUFFER_FULL = 1, 2, 16, 32, 64, 256

NAMES = {
    VERSION: "dm.version",
    LIST_DEVICES: "dm.list",
    CREATE: "dm.create",
    REMOVE: "dm.remove",
    SUSPEND: "dm.resume",
    STATUS: "dm.info",
    LOAD: "dm.load",
    DEPS: "dm.deps",
    TABLE_STATUS: "dm.status",
    MESSAGE: "dm.message",
    TARGET_VERSION: "dm.target",
}

Dev = tuple[int, int]


@dataclass
class Table:
    kind: str
    params: str
    sectors: int

    @property
    def devs(self) -> list[Dev]:
        found = re.findall(r"\b(\d+):(\d+)\b", self.params)
        return [(int(major), int(minor)) for major, minor in found]

    @property
    def features(self) -> list[str]:
        words = self.params.split()
        return words[1 : 1 + int(words[0])]

    @property
    def groups(self) -> list[list[Dev]]:
        """The paths of each group, of a multipath table."""
        words = iter(self.params.split())

        def skip(count: int) -> None:
            for _ in range(count):
                next(words)

        skip(int(next(words)))  # features
        skip(int(next(words)))  # handler
        count, found = int(next(words)), []
        skip(1)  # the first group
        for _ in range(count):
            skip(1)  # selector
            skip(int(next(words)))
            paths, arguments = int(next(words)), int(next(words))
            found.append([])
            for _ in range(paths):
                major, minor = next(words).split(":")
                found[-1].append((int(major), int(minor)))
                skip(arguments)
        return found


@dataclass
class Map:
    name: str
    uuid: str
    minor: int
    active: Table | None = None
    inactive: Table | None = None
    suspended: bool = False
    open_count: int = 0
    failed: set[Dev] = field(default_factory=set)
    current: int = 1  # the group in use
    deferred: bool = False
    below: Map | None = None  # a partition map's
    udev_flags: int = 0  # of the cookie that it was resumed with last

    @property
    def device(self) -> str:
        return f"dm-{self.minor}"

    @property
    def members(self) -> list[Dev]:
        return self.active.devs if self.active is not None else []


class DmError(Exception):
    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode[number])
        self.number = number


@dataclass
class Call:
    """What came, and the header that goes back."""

    flags: int
    size: int
    event_nr: int
    dev: int
    name: str
    uuid: str
    payload: bytes
    found: Map | None = None
    targets: int = 0


def locked(
    method: Callable[Concatenate[FakeDm, P], T],
) -> Callable[Concatenate[FakeDm, P], T]:
    """With the host's lock, which its threads take as well."""

    @functools.wraps(method)
    def wrapper(self: FakeDm, *arguments: P.args, **options: P.kwargs) -> T:
        with self.host.lock:
            return method(self, *arguments, **options)

    return wrapper


class FakeDm:
    """The host's maps. Points (host.py) are "dm.<ioctl>" with the uuid, or the target's name."""

    def __init__(self, host: FakeHost) -> None:
        self.host = host
        self.maps: dict[str, Map] = {}
        self.targets = {"multipath"}
        self.messages: list[str] = []
        self._minors = itertools.count()

    # --- for tests -------------------------------------------------------------------------------

    @locked
    def make(
        self, uuid: str, devs: list[Dev], sectors: int, *, kind: str = "multipath", name: str = ""
    ) -> Map:
        """A map of somebody else's."""
        made = self._create(name or uuid, uuid)
        paths = "".join(f" {major}:{minor} 1" for major, minor in devs)
        params = f"0 0 1 1 service-time 0 {len(devs)} 1{paths}"
        self._load(made, Table(kind, params, sectors))
        self._swap(made)
        return made

    @locked
    def fail(self, found: Map, *devs: Dev) -> None:
        """I/O through these paths failed."""
        for dev in devs:
            self._set_failed(found, dev, True)

    @locked
    def make_part(self, below: Map, number: int) -> Map:
        """A partition map as kpartx makes it: it has the map below open."""
        made = self._create(f"{below.name}-part{number}", f"part{number}-{below.uuid}")
        made.active = Table("linear", f"{MAJOR}:{below.minor} 2048", 8)
        made.below = below
        below.open_count += 1
        self.host.map_holds(made, below)
        return made

    @locked
    def queue(self, found: Map, on: bool) -> None:
        """The multipath table's feature queue_if_no_path."""
        assert found.active is not None
        rest = found.active.params.removeprefix("1 queue_if_no_path").removeprefix("0")
        found.active.params = ("1 queue_if_no_path" if on else "0") + rest

    def queues(self, found: Map) -> bool:
        return found.active is not None and found.active.params.startswith("1 queue_if_no_path")

    @locked
    def close(self, found: Map) -> None:
        """Whoever had it open is done."""
        found.open_count -= 1
        if found.deferred and not found.open_count:
            self._remove(found)

    # --- the ioctl -------------------------------------------------------------------------------

    def ioctl(self, request: int, memory: memoryview) -> int:
        """Answers in `memory`, which is the header; data_size says how far it may go beyond."""
        number = request & 0xFF
        head = HEADER.unpack(memory[: HEADER.size])
        start = head[4]
        name, uuid = (head[i].split(b"\0", 1)[0].decode() for i in (11, 12))
        call = Call(head[7], head[3], head[8], head[10], name, uuid, bytes(memory[start : head[3]]))
        result = self.host.point(NAMES[number], uuid or name)
        if result < 0:
            return result
        with self.host.lock:
            try:
                answer = self._handle(number, call)
            except DmError as error:
                return -error.number
        end = HEADER.size + len(answer)
        if end > call.size:
            end, answer, call.flags = HEADER.size, b"", call.flags | F_BUFFER_FULL
        memory[: HEADER.size] = self._header(call, end)
        memory[HEADER.size : end] = answer
        return 0

    def _header(self, call: Call, end: int) -> bytes:
        flags, dev, count = call.flags, call.dev, 0
        name, uuid = call.name, call.uuid
        found = call.found
        if found is not None:
            flags &= ~(F_SUSPEND | F_ACTIVE | F_INACTIVE)
            flags |= F_SUSPEND * found.suspended
            flags |= F_ACTIVE * (found.active is not None)
            flags |= F_INACTIVE * (found.inactive is not None)
            dev, count = encode(MAJOR, found.minor), found.open_count
            name, uuid = found.name, found.uuid
        versions = (4, 48, 0)
        sizes = (end, HEADER.size, call.targets)
        texts = (name.encode(), uuid.encode(), b"")
        return HEADER.pack(*versions, *sizes, count, flags, 0, 0, dev, *texts)

    def _handle(self, number: int, call: Call) -> bytes:
        if number == VERSION:
            return b""
        if number == TARGET_VERSION:
            if call.name not in self.targets:
                raise DmError(errno.EINVAL)
            return struct.pack("=I3I", 0, 1, 14, 0) + call.name.encode() + b"\0"
        if number == LIST_DEVICES:
            return self._list()
        if number == CREATE:
            if call.uuid in self.maps or any(m.name == call.name for m in self.maps.values()):
                raise DmError(errno.EBUSY)
            call.found = self._create(call.name, call.uuid)
            return b""
        found = call.found = self._find(call)
        if number == REMOVE:
            if not found.open_count:
                self._remove(found)
            elif call.flags & F_DEFERRED:
                found.deferred = True
            else:
                raise DmError(errno.EBUSY)
        elif number == SUSPEND:
            found.suspended = bool(call.flags & F_SUSPEND)
            if not found.suspended:
                found.udev_flags = call.event_nr >> 16
                self._swap(found)
        elif number == LOAD:
            _, sectors, _, _, kind = SPEC.unpack_from(call.payload)
            params = call.payload[SPEC.size :].split(b"\0", 1)[0].decode()
            self._load(found, Table(kind.split(b"\0", 1)[0].decode(), params, sectors))
        elif number == MESSAGE:
            self._message(found, call.payload[8:].split(b"\0", 1)[0].decode())
        elif number == DEPS:
            devs = [encode(*dev) for dev in found.members]
            return struct.pack(f"=2I{len(devs)}Q", len(devs), 0, *devs)
        elif number == TABLE_STATUS:
            return self._status(call, found)
        return b""

    def _find(self, call: Call) -> Map:
        for item in self.maps.values():
            if call.uuid in (item.uuid,) or (
                not call.uuid and (call.name == item.name or call.dev == encode(MAJOR, item.minor))
            ):
                return item
        raise DmError(errno.ENXIO)

    @locked
    def _create(self, name: str, uuid: str) -> Map:
        made = Map(name, uuid, next(self._minors))
        self.maps[uuid] = made
        self.host.map_appears(made)
        return made

    @locked
    def _load(self, found: Map, table: Table) -> None:
        for dev in table.devs:
            disk = self.host.disk_of(dev)
            if disk is None:
                raise DmError(errno.ENODEV)
            others = (m for m in self.maps.values() if m is not found)
            if disk.claimed or any(dev in m.members for m in others):
                raise DmError(errno.EBUSY)
        found.inactive = table

    @locked
    def _swap(self, found: Map) -> None:
        """A table that is too long is dropped, and the map stays suspended (kernel do_resume)."""
        disks = [self.host.disk_of(dev) for dev in (found.inactive.devs if found.inactive else ())]
        if any(d is not None and 0 < d.size < found.inactive.sectors * 512 for d in disks):
            found.suspended, found.inactive = True, None
            raise DmError(errno.EINVAL)
        found.suspended = False
        if found.inactive is not None:
            found.active, found.inactive = found.inactive, None
            self.host.map_changes(found)

    def _message(self, found: Map, text: str) -> None:
        if found.suspended:
            raise DmError(errno.EBUSY)
        assert found.active is not None
        self.messages.append(text)
        verb, *arguments = text.split()
        if verb in ("fail_path", "reinstate_path"):
            major, minor = arguments[0].split(":")
            dev = (int(major), int(minor))
            if dev not in found.members:
                raise DmError(errno.EINVAL)
            self._set_failed(found, dev, verb == "fail_path")
        elif verb == "switch_group":
            found.current = int(arguments[0])
        elif verb in ("queue_if_no_path", "fail_if_no_path"):
            features = [word for word in found.active.features if word != "queue_if_no_path"]
            features += [verb] if verb == "queue_if_no_path" else []
            words = found.active.params.split()
            rest = words[1 + int(words[0]) :]
            found.active.params = " ".join([str(len(features)), *features, *rest])
        else:
            raise DmError(errno.EINVAL)

    def _set_failed(self, found: Map, dev: Dev, failed: bool) -> None:
        """As the kernel: the next group with a path is used when one has none left."""
        (found.failed.add if failed else found.failed.discard)(dev)
        groups = found.active.groups if found.active is not None else []
        if not set(groups[found.current - 1]) - found.failed:
            left = [i for i, group in enumerate(groups) if set(group) - found.failed]
            found.current = left[0] + 1 if left else found.current
        action = "PATH_FAILED" if failed else "PATH_REINSTATED"
        self.host.map_event(found, "change", f"DM_ACTION={action}")

    @locked
    def _remove(self, found: Map) -> None:
        del self.maps[found.uuid]
        if found.below is not None:
            found.below.open_count -= 1
        self.host.map_vanishes(found)

    def _status(self, call: Call, found: Map) -> bytes:
        table = found.active
        if table is None:
            return b""
        call.targets = 1
        text = table.params
        if not call.flags & F_STATUS_TABLE and table.kind == "multipath":
            text = f"2 0 0 0 {len(table.groups)} {found.current}"
            for index, group in enumerate(table.groups):
                paths = "".join(
                    f" {major}:{minor} {'F' if (major, minor) in found.failed else 'A'} 0 0 1"
                    for major, minor in group
                )
                text += f" {'A' if index + 1 == found.current else 'E'} 0 {len(group)} 2{paths}"
        spec = SPEC.pack(0, table.sectors, 0, 0, table.kind.encode())
        return spec + text.encode() + b"\0"

    def _list(self) -> bytes:
        records = []
        for item in self.maps.values():
            record = struct.pack("=Q", encode(MAJOR, item.minor)) + bytes(4)
            record += item.name.encode() + b"\0"
            record += bytes(-len(record) % 8) + struct.pack("=2I", 0, 1)
            record += item.uuid.encode() + b"\0"
            records.append(bytearray(record + bytes(-len(record) % 8)))
        for made in records[:-1]:
            struct.pack_into("=I", made, 8, len(made))
        return b"".join(records) or bytes(16)


def encode(major: int, minor: int) -> int:
    """kernel include/linux/kdev_t.h huge_encode_dev."""
    return (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12
