# SPDX-License-Identifier: Apache-2.0
"""A host that does not exist: sysfs and /dev as files, the kernel's side of writing to them, a
device-mapper in memory (dm.py) and a scripted iscsid (iscsid.py).

    with FakeHost(library, tmp_path) as host:
        volume = host.export(iqn, lun=1)
        attachment = host.handle.attach(host.targets(volume, 4)).finish()

Every call of the library into the fake kernel passes a *point*: "scan", "delete", "rescan",
"inquiry", "capacity", "size", "open" (exclusive), "fsync", and "dm.create" and so on. At points
tests make things fail, block or happen:

    host.fail("dm.load", errno.EBUSY, times=3)
    gate = host.block("inquiry", "sda")    # ... gate.reached(); gate.release()
    host.call("dm.create", lambda: host.dm.make(...))
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fake.dm import MAJOR, Dev, FakeDm, Map
from fake.iscsid import FakeIscsid, Session
from fake.library import PATIENCE, Handle, Library, Target, ffi

IQN = "iqn.2010-10.org.example:vol"
# Tests run side by side: each process has a part of the loopback network, where a portal that it
# does not serve is closed.
NET = f"127.{os.environ.get('PYTEST_XDIST_WORKER', 'gw0').removeprefix('gw')}"
SIZE = 1 << 30
SAFETY = 30.0  # seconds after which a blocked call goes on, should a test forget it

_numbers = itertools.count()


def until(condition: Callable[[], Any], seconds: float = 5.0) -> bool:
    """Wait for something that nobody announces."""
    limit = time.monotonic() + seconds * PATIENCE
    while not condition():
        if time.monotonic() > limit:
            return bool(condition())
        time.sleep(0.002)
    return True


def designator(code_set: int, kind: int, name: bytes, association: int = 0) -> bytes:
    """SPC-4 7.8.6.1."""
    return bytes([code_set, association << 4 | kind, 0, len(name)]) + name


@dataclass(eq=False)
class Volume:
    """What a target offers: who it is, and how large. Hosts see a new size when they rescan."""

    number: str  # 32 hexadecimal digits, NAA 6
    size: int = SIZE
    serial: str = "  4711 "
    designators: bytes | None = None  # other than that number

    @property
    def wwid(self) -> str:
        return f"3{self.number}"

    @property
    def uuid(self) -> str:
        return f"mpath-{self.wwid}"

    def page_83(self, port_group: int | None = None) -> bytes:
        designators = self.designators
        if designators is None:
            designators = designator(1, 3, bytes.fromhex(self.number))
        if port_group is not None:
            designators += bytes([1, 0x15, 0, 4, 0, 0]) + port_group.to_bytes(2, "big")
        return bytes([0, 0x83, 0, len(designators)]) + designators

    def page_80(self) -> bytes:
        return bytes([0, 0x80, 0, len(self.serial)]) + self.serial.encode()


def new_volume(size: int = SIZE) -> Volume:
    return Volume(f"6001405{next(_numbers):025x}", size)


@dataclass
class Disk:
    name: str
    dev: Dev
    address: tuple[int, int, int, int]  # H:C:T:L
    session: KernelSession
    volume: Volume
    folder: Path
    claimed: bool = False  # by a file system
    present: bool = False  # its block device is there
    size: int = 0  # as the kernel has it
    told: int | None = None  # what this path tells, if not the volume's size
    gone: bool = False  # the target has no such LUN any more

    @property
    def hctl(self) -> str:
        return ":".join(map(str, self.address))


@dataclass
class KernelSession:
    sid: int
    host: int
    iqn: str
    address: str
    port: int
    folder: Path
    disks: dict[int, Disk] = field(default_factory=dict)


class OpenFile:
    """What a process of the fake host has open."""

    def __init__(self, path: Path, node: Path) -> None:
        self._path = path
        path.symlink_to(node)

    def close(self) -> None:
        self._path.unlink(missing_ok=True)


class Gate:
    """Where calls are held."""

    def __init__(self) -> None:
        self._entered = threading.Semaphore(0)
        self._open = threading.Event()

    def __call__(self) -> int:
        self._entered.release()
        self._open.wait(SAFETY)
        return 0

    def reached(self, seconds: float = 5.0) -> bool:
        return self._entered.acquire(timeout=seconds)

    def release(self) -> None:
        self._open.set()


@dataclass
class Rule:
    point: str
    subject: str | None
    action: Callable[[], object]
    times: int | None


def no_delay(disk: Disk) -> float | None:
    return 0.0


class FakeHost:
    """See the module. `device_delay(disk)` tells how long after the scan a block device appears: 0
    is within it, None is when the test calls appear().
    """

    current: FakeHost | None = None

    def __init__(self, library: Library, root: Path, **iscsid: Any) -> None:
        self.library = library
        self.root = root
        self.sys, self.dev, self.run = root / "sys", root / "dev", root / "run"
        self.lock = threading.RLock()
        self.dm = FakeDm(self)
        self.sessions: dict[int, KernelSession] = {}
        self.disks: dict[str, Disk] = {}
        self.calls: list[tuple[str, str]] = []  # points passed, and their subject
        self.failures: list[BaseException] = []
        self.device_delay: Callable[[Disk], float | None] = no_delay
        self.events = True  # tell of new block devices
        # Byte 0 of each target port group, which has the number of the portal's last byte; {}: the
        # target knows no groups.
        self.alua: dict[int, int] = {}
        self._rules: list[Rule] = []
        self._gates: list[Gate] = []
        self._exports: dict[tuple[str, int, str | None], Volume] = {}
        self._host_numbers = itertools.count(3)
        self._disk_numbers = itertools.count()
        self._sockets: list[socket.socket] = []
        self._listeners: list[socket.socket] = []
        self._served: set[tuple[str, int]] = set()
        self._timers: list[threading.Timer] = []
        self._handles: list[Handle] = []
        for name in ("iscsi_session", "iscsi_connection", "scsi_host", "scsi_device"):
            (self.sys / "class" / name).mkdir(parents=True)
        for folder in ("sys/devices/platform", "sys/devices/virtual/block", "sys/block", "run"):
            (root / folder).mkdir(parents=True)
        for folder in ("proc/self", "sys/dev/block", "dev/mapper", "layouts", "multipath"):
            (root / folder).mkdir(parents=True)
        (self.dev / "mapper" / "control").touch()
        self.name = f"mp-fake-{os.getpid()}-{next(_numbers)}"
        self.set_iscsid_pid(os.getpid())
        self.foreground = False  # "iscsid -f": the process that listens lives
        self._listening = 0
        self.iscsid = FakeIscsid(
            self.name,
            on_login=self._on_login,
            on_logout=self._on_logout,
            listen=self._listen,
            **iscsid,
        )

    # --- for tests: running ----------------------------------------------------------------------

    def __enter__(self) -> FakeHost:
        install(self.library)
        FakeHost.current = self
        self.iscsid.start()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        for gate in self._gates:
            gate.release()
        self._rules.clear()
        for timer in self._timers:
            timer.cancel()
        for handle in self._handles:
            if handle.c != ffi.NULL:
                handle.close()
        wedged = self.iscsid.blocked
        self.iscsid.__exit__(kind, error, trace)
        self._stop_listening()
        for item in self._sockets + self._listeners:
            item.close()
        # jobs that were abandoned may still be on their way out
        until(lambda: not worker_threads(), 5.0)
        FakeHost.current = None
        if error is None:
            assert not self.failures, self.failures
            assert not wedged, "iscsid was left waiting for the rest of a request"
            whole = [r for r in self.iscsid.requests if r.size and not r.extra]
            lacking = [r for r in whole if not r.eof and r.outcome not in ("reading", "cut")]
            assert not lacking, f"requests without SHUT_WR: {lacking}"

    def open(self, **options: str | int) -> Handle:
        """One more handle on this host."""
        given: dict[str, str | int] = {
            "sysfs_root": str(self.sys),
            "dev_root": str(self.dev),
            "proc_root": str(self.root / "proc"),
            "iscsid_socket": self.name,
            "iscsid_pidfile": str(self.run / "iscsid.pid"),
            "layout_dir": str(self.root / "layouts"),
            "udev_data": str(self.run / "udev"),
            "multipath_dir": str(self.root / "multipath"),
            "multipath_run_dir": str(self.run / "multipath"),
            "multipathd_socket": f"{self.name}-multipathd",
            "multipathd_pidfile": str(self.run / "multipathd.pid"),
            "runtime_dir": str(self.root / "locks"),
            "daemon_uid": os.geteuid(),
        }
        handle = Handle(self.library, **{**given, **options})
        self._handles.append(handle)
        return handle

    @property
    def handle(self) -> Handle:
        """The usual one."""
        if not self._handles:
            self.open()
        return self._handles[0]

    def set_iscsid_pid(self, pid: int) -> None:
        """A process that exists: the library takes its start time from /proc."""
        (self.run / "iscsid.pid").write_text(f"{pid}\n")

    # --- for tests: what targets offer -----------------------------------------------------------

    def export(
        self, iqn: str = IQN, lun: int = 1, volume: Volume | None = None, address: str | None = None
    ) -> Volume:
        """Offer a volume through all portals, or through one."""
        volume = volume or new_volume()
        self._exports[iqn, lun, address] = volume
        return volume

    def targets(
        self, count: int = 1, *, iqn: str = IQN, lun: int = 1, port: int = 3260
    ) -> list[Target]:
        """Portals <NET>.1.1 and so on."""
        return self.serve([Target(f"{NET}.1.{i + 1}", port, iqn, lun) for i in range(count)])

    def serve(self, targets: list[Target]) -> list[Target]:
        """Accept TCP connections there: the library asks portals itself when iscsid is slow."""
        for portal in {(target.address, target.port) for target in targets} - self._served:
            self._served.add(portal)
            with contextlib.suppress(OSError):  # in use: then somebody else does
                self._listeners.append(socket.create_server(portal))
        return targets

    def listen(self, count: int = 1, *, iqn: str = IQN, lun: int = 1) -> list[Target]:
        """Portals that accept TCP connections, for logins that take their time."""
        made = []
        for _ in range(count):
            listener = socket.create_server(("127.0.0.1", 0))
            self._listeners.append(listener)
            made.append(Target("127.0.0.1", listener.getsockname()[1], iqn, lun))
        return made

    def add_session(self, target: Target) -> KernelSession:
        """A session from before."""
        fields = {"target_name": target.iqn, "address": target.address, "port": target.port}
        session = self.iscsid.add_session(**fields, iface_name="default")
        self._on_login(session)
        return self.sessions[session.sid]

    def add_disk(self, session: KernelSession, lun: int) -> Disk:
        """A disk from before."""
        self.scan(session.host, 0, 0, lun)
        return session.disks[lun]

    def swap(self, volume: Volume, iqn: str = IQN, lun: int = 1) -> None:
        """Unmap the LUN and give its number to another volume; the kernel is not told."""
        self.export(iqn, lun, volume)
        for session in self.sessions.values():
            if session.iqn == iqn and lun in session.disks:
                session.disks[lun].volume = volume

    def udev_entry(self, disk: Disk, serial: str | None = None, at: float | None = None) -> None:
        """What udev's database has of a disk; `at` on the monotonic clock."""
        (self.run / "udev").mkdir(exist_ok=True)
        when = time.monotonic() if at is None else at
        text = f"S:disk/by-path/x\nI:{round(when * 1e6)}\nE:ID_BUS=scsi\n"
        text += "" if serial is None else f"E:ID_SERIAL={serial}\n"
        (self.run / "udev" / f"b{disk.dev[0]}:{disk.dev[1]}").write_text(f"{text}G:systemd\n")

    @property
    def clean(self) -> bool:
        return not self.sessions and not self.disks and not self.dm.maps

    @property
    def logins(self) -> int:
        return len(self.iscsid.of(1))

    def mount(self, dev: Dev, point: str) -> None:
        """In this mount namespace; `point` as the kernel escapes it."""
        with (self.root / "proc/self/mountinfo").open("a") as file:
            file.write(f"36 1 {dev[0]}:{dev[1]} / {point} rw shared:1 - ext4 /dev/x rw\n")

    def swap_to(self, path: str) -> None:
        with (self.root / "proc/swaps").open("a") as file:
            file.write(f"{path}    partition    1048572    0    -2\n")

    def open_in(self, pid: int, program: str, name: str) -> OpenFile:
        """A descriptor of some process, to a node in /dev."""
        folder = self.root / "proc" / str(pid)
        (folder / "fd").mkdir(parents=True, exist_ok=True)
        (folder / "comm").write_text(f"{program}\n")
        (self.dev / name).touch()
        return OpenFile(folder / "fd" / "3", self.dev / name)

    @contextlib.contextmanager
    def denied(self, part: str, number: int = errno.EMFILE) -> Iterator[None]:
        """The library cannot open what has this in its path, below a directory or as a whole."""
        text = ffi.new("char[]", part.encode())
        self.library.c.mp_fake_deny(text, number)
        try:
            yield
        finally:
            self.library.c.mp_fake_deny(ffi.NULL, 0)

    def make_partition(self, disk: Disk, number: int) -> Dev:
        """The kernel's; it has a number of its own."""
        dev = (disk.dev[0], disk.dev[1] + number)
        part = disk.folder / "block" / disk.name / f"{disk.name}{number}"
        part.mkdir()
        self._link(self.sys / f"dev/block/{dev[0]}:{dev[1]}", part)
        return dev

    # --- for tests: points -----------------------------------------------------------------------

    def call(
        self,
        point: str,
        action: Callable[[], object],
        subject: str | None = None,
        times: int | None = 1,
    ) -> None:
        """Run it when the library comes here; a number that it returns is the result."""
        self._rules.append(Rule(point, subject, action, times))

    def fail(
        self, point: str, number: int, subject: str | None = None, times: int | None = 1
    ) -> None:
        self.call(point, lambda: -number, subject, times)

    def block(self, point: str, subject: str | None = None, times: int | None = 1) -> Gate:
        gate = Gate()
        self._gates.append(gate)
        self.call(point, gate, subject, times)
        return gate

    def point(self, name: str, subject: str) -> int:
        with self.lock:
            self.calls.append((name, subject))
            for rule in self._rules:
                if rule.point == name and rule.subject in (None, subject):
                    break
            else:
                return 0
            if rule.times is not None:
                rule.times -= 1
                if rule.times == 0:
                    self._rules.remove(rule)
        result = rule.action()
        return result if isinstance(result, int) else 0

    def passed(self, name: str) -> list[str]:
        with self.lock:
            return [subject for point, subject in self.calls if point == name]

    # --- iscsid's processes ----------------------------------------------------------------------

    def _listen(self, listener: socket.socket, backlog: int) -> None:
        self._stop_listening()
        made = self.library.c.mp_fake_listen(listener.fileno(), backlog, self.foreground)
        assert made > 0, os.strerror(-made)
        self._listening = made if self.foreground else 0

    def _stop_listening(self) -> None:
        if self._listening:
            os.kill(self._listening, signal.SIGKILL)
            os.waitpid(self._listening, 0)
        self._listening = 0

    # --- sessions --------------------------------------------------------------------------------

    def _on_login(self, item: Session) -> None:
        fields = item.fields
        with self.lock:
            number = next(self._host_numbers)
            sid, name = item.sid, f"session{item.sid}"
            folder = self.sys / f"devices/platform/host{number}/{name}"
            session = KernelSession(
                sid, number, fields["target_name"], fields["address"], fields["port"], folder
            )
            attributes = folder / "iscsi_session" / name
            attributes.mkdir(parents=True)
            (attributes / "targetname").write_text(f"{session.iqn}\n")
            (attributes / "state").write_text("LOGGED_IN\n")
            (attributes / "recovery_tmo").write_text("120\n")
            (attributes / "device").symlink_to("../..")
            connection = folder / f"connection{sid}:0" / "iscsi_connection" / f"connection{sid}:0"
            connection.mkdir(parents=True)
            (connection / "persistent_address").write_text(f"{session.address}\n")
            (connection / "persistent_port").write_text(f"{session.port}\n")
            scsi_host = folder.parent / "scsi_host" / f"host{number}"
            scsi_host.mkdir(parents=True)
            (scsi_host / "scan").touch()
            for kind, path in (
                ("scsi_host", scsi_host),
                ("iscsi_connection", connection),
                ("iscsi_session", attributes),
            ):
                self._link(self.sys / "class" / kind / path.name, path)
            self.sessions[sid] = session

    def set_state(self, session: KernelSession, text: str) -> None:
        name = f"session{session.sid}"
        path = session.folder / "iscsi_session" / name / "state"
        new = path.with_name("state.new")
        new.write_text(f"{text}\n")
        new.replace(path)

    def state(self, session: KernelSession) -> str:
        name = f"session{session.sid}"
        return (session.folder / "iscsi_session" / name / "state").read_text().strip()

    def _on_logout(self, item: Session) -> None:
        with self.lock:
            session = self.sessions.pop(item.sid)
            for disk in list(session.disks.values()):
                self._vanish(disk)
            names = (f"session{item.sid}", f"connection{item.sid}:0", f"host{session.host}")
            for kind, name in zip(
                ("iscsi_session", "iscsi_connection", "scsi_host"), names, strict=True
            ):
                (self.sys / "class" / kind / name).unlink()
            shutil.rmtree(session.folder.parent)

    # --- disks -----------------------------------------------------------------------------------

    def scan(self, number: int, channel: int, target: int, lun: int) -> int:
        """As the kernel: nothing while the session is not logged in, nothing for what is there."""
        with self.lock:
            session = next((s for s in self.sessions.values() if s.host == number), None)
            if session is None or self.state(session) != "LOGGED_IN" or lun in session.disks:
                return 0
            volume = self._exports.get((session.iqn, lun, session.address))
            volume = volume or self._exports.get((session.iqn, lun, None))
            if volume is None:
                return 0
            index = next(self._disk_numbers)
            address = (number, channel, target, lun)
            folder = session.folder / f"target{number}:{channel}:{target}"
            folder /= f"{number}:{channel}:{target}:{lun}"
            disk = Disk(disk_name(index), (8, 16 * index), address, session, volume, folder)
            folder.mkdir(parents=True)
            for name, text in (("state", "running"), ("dh_state", "alua")):
                (folder / name).write_text(f"{text}\n")
            for name in ("delete", "rescan"):
                (folder / name).touch()
            self._read_pages(disk)
            entry = self.sys / "class" / "scsi_device" / disk.hctl
            entry.mkdir()
            self._link(entry / "device", folder)
            session.disks[lun] = disk
        delay = self.device_delay(disk)
        if delay is None:
            return 0
        if delay == 0.0:
            self.appear(disk)
            return 0
        timer = threading.Timer(delay, self.appear, (disk,))
        timer.daemon = True
        self._timers.append(timer)
        timer.start()
        return 0

    def appear(self, disk: Disk, *, event: bool | None = None) -> None:
        """The block device, and the kernel's word."""
        with self.lock:
            if disk.session.disks.get(disk.address[3]) is not disk:
                return
            block = disk.folder / "block" / disk.name
            (block / "holders").mkdir(parents=True)
            self._link(block / "device", disk.folder)
            (block / "uevent").touch()
            self._read_capacity(disk)
            new = block / "dev.new"
            new.write_text(f"{disk.dev[0]}:{disk.dev[1]}\n")
            new.rename(block / "dev")
            self._link(self.sys / "block" / disk.name, block)
            self._link(self.sys / f"dev/block/{disk.dev[0]}:{disk.dev[1]}", block)
            (self.dev / disk.name).touch()
            self.disks[disk.name] = disk
            disk.present = True
        if self.events if event is None else event:
            self.announce(disk)

    def _read_capacity(self, disk: Disk) -> None:
        disk.size = disk.volume.size if disk.told is None else disk.told
        (disk.folder / "block" / disk.name / "size").write_text(f"{disk.size // 512}\n")

    def _read_pages(self, disk: Disk) -> None:
        (disk.folder / "vpd_pg83").write_bytes(self._page_83(disk))

    def announce(self, disk: Disk, action: str = "add") -> None:
        path = f"/{(disk.folder / 'block' / disk.name).relative_to(self.sys)}"
        numbers = (f"MAJOR={disk.dev[0]}", f"MINOR={disk.dev[1]}", f"DEVNAME={disk.name}")
        pairs = (f"ACTION={action}", f"DEVPATH={path}", "SUBSYSTEM=block", *numbers, "DEVTYPE=disk")
        self.uevent("\0".join((f"{action}@{path}", *pairs)) + "\0")

    def uevent(self, text: str) -> None:
        with self.lock:
            sockets = list(self._sockets)
        for item in sockets:
            with contextlib.suppress(OSError):  # its handle is closed, or the host
                item.send(text.encode())

    def _vanish(self, disk: Disk) -> None:
        """With the lock held. The kernel tells first, when the state says so already."""
        (disk.folder / "state.new").write_text("cancel\n")
        (disk.folder / "state.new").replace(disk.folder / "state")
        path = f"/{disk.folder.relative_to(self.sys)}"
        pairs = ("ACTION=remove", f"DEVPATH={path}", "SUBSYSTEM=scsi", "DEVTYPE=scsi_device")
        self.uevent("\0".join((f"remove@{path}", *pairs)) + "\0")
        del disk.session.disks[disk.address[3]]
        shutil.rmtree(self.sys / "class" / "scsi_device" / disk.hctl)
        if disk.present:
            (self.sys / "block" / disk.name).unlink()
            (self.sys / f"dev/block/{disk.dev[0]}:{disk.dev[1]}").unlink()
            (self.dev / disk.name).unlink()
            del self.disks[disk.name]
        shutil.rmtree(disk.folder)
        with contextlib.suppress(OSError):  # another LUN of the target
            disk.folder.parent.rmdir()

    def disk_of(self, dev: Dev) -> Disk | None:
        return next((disk for disk in self.disks.values() if disk.dev == dev), None)

    def _page_83(self, disk: Disk) -> bytes:
        return disk.volume.page_83(self.port_group(disk))

    def port_group(self, disk: Disk) -> int | None:
        return int(disk.session.address.rsplit(".", 1)[1]) if self.alua else None

    # --- maps, told by dm.py with the lock held --------------------------------------------------

    def _map_folder(self, item: Map) -> Path:
        return self.sys / "devices/virtual/block" / item.device

    def map_appears(self, item: Map) -> None:
        folder = self._map_folder(item)
        (folder / "dm").mkdir(parents=True)
        (folder / "holders").mkdir()
        (folder / "slaves").mkdir()
        (folder / "dm" / "uuid").write_text(f"{item.uuid}\n")
        (folder / "dm" / "name").write_text(f"{item.name}\n")
        (folder / "dev").write_text(f"{MAJOR}:{item.minor}\n")
        (folder / "size").write_text("0\n")
        self._link(self.sys / "block" / item.device, folder)
        self._link(self.sys / f"dev/block/{MAJOR}:{item.minor}", folder)
        (self.dev / item.device).touch()

    def map_changes(self, item: Map) -> None:
        assert item.active is not None
        (self._map_folder(item) / "size").write_text(f"{item.active.sectors}\n")
        for disk in self.disks.values():
            block = disk.folder / "block" / disk.name
            holder = block / "holders" / item.device
            slave = self._map_folder(item) / "slaves" / disk.name
            if disk.dev in item.members and not holder.is_symlink():
                self._link(holder, self._map_folder(item))
                self._link(slave, block)
            elif disk.dev not in item.members and holder.is_symlink():
                holder.unlink()
                slave.unlink()

    def map_holds(self, item: Map, below: Map) -> None:
        self._link(self._map_folder(below) / "holders" / item.device, self._map_folder(item))

    def map_vanishes(self, item: Map) -> None:
        for below in self.dm.maps.values():
            (self._map_folder(below) / "holders" / item.device).unlink(missing_ok=True)
        for disk in self.disks.values():
            holder = disk.folder / "block" / disk.name / "holders" / item.device
            holder.unlink(missing_ok=True)
        (self.sys / "block" / item.device).unlink()
        (self.sys / f"dev/block/{MAJOR}:{item.minor}").unlink()
        (self.dev / item.device).unlink()
        shutil.rmtree(self._map_folder(item))
        self.map_event(item, "remove")

    def map_event(self, item: Map, action: str, *pairs: str) -> None:
        """The kernel's word about a map."""
        path = f"/{self._map_folder(item).relative_to(self.sys)}"
        words = (f"ACTION={action}", f"DEVPATH={path}", "SUBSYSTEM=block", "DEVTYPE=disk")
        numbers = (f"MAJOR={MAJOR}", f"MINOR={item.minor}", f"DEVNAME={item.device}")
        self.uevent("\0".join((f"{action}@{path}", *words, *numbers, *pairs)) + "\0")

    def _link(self, path: Path, to: Path) -> None:
        path.symlink_to(os.path.relpath(to, path.parent))

    # --- hooks: called by the library's threads --------------------------------------------------

    def dm_ioctl(self, request: int, argument: Any) -> int:
        size = int.from_bytes(ffi.buffer(argument, 16)[12:16], "little")
        return self.dm.ioctl(request, memoryview(ffi.buffer(argument, size)).cast("B"))

    def inquiry(self, path: Any, page_code: int, page: Any, size: int) -> int:
        name = self._node(path)
        result = self.point("inquiry", name)
        if result < 0:
            return result
        disk = self.disks.get(name)
        if disk is None:
            return -errno.ENODEV
        if disk.gone:
            return -errno.ENXIO
        data = (disk.volume.page_80() if page_code == 0x80 else self._page_83(disk))[:size]
        ffi.memmove(page, data, len(data))
        return len(data)

    def size(self, path: Any, ret_bytes: Any) -> int:
        name = self._node(path)
        result = self.point("size", name)
        if result == 0:
            disk = self.disks.get(name)
            if disk is None:
                return -errno.ENODEV
            ret_bytes[0] = disk.size
        return result

    def ready(self, path: Any) -> int:
        name = self._node(path)
        result = self.point("ready", name)
        return result if name in self.disks else -errno.ENODEV

    def port_groups(self, path: Any, extended: int, data: Any, size: int) -> int:
        name = self._node(path)
        result = self.point("port_groups", f"{name}{' extended' if extended else ''}")
        if result < 0:
            return result
        if not self.alua:
            return -errno.EIO
        groups = b"".join(
            bytes([state, 0x0F, *group.to_bytes(2, "big"), 0, 0, 0, 1, 0, 0, 0, group])
            for group, state in self.alua.items()
        )
        head = bytes([0x10, 30, 0, 0]) if extended else b""
        answer = (len(head + groups).to_bytes(4, "big") + head + groups)[:size]
        ffi.memmove(data, answer, len(answer))
        return len(answer)

    def capacity(self, path: Any, ret_bytes: Any) -> int:
        name = self._node(path)
        result = self.point("capacity", name)
        disk = self.disks.get(name)
        if result == 0 and disk is None:
            return -errno.ENODEV
        if result == 0 and disk is not None:
            ret_bytes[0] = disk.volume.size if disk.told is None else disk.told
        return result

    def identity_check(self, path: Any, dev: int) -> int:
        disk = self.disks.get(self._node(path))
        return 0 if disk is not None and os.makedev(*disk.dev) == dev else -errno.ENODEV

    def uevent_open(self) -> int:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.setblocking(False)
        with self.lock:
            self._sockets.append(ours)
        return theirs.detach()

    def attribute(self, path: Any, text: Any) -> int:
        """A write to scan, delete, rescan or recovery_tmo."""
        name, written = ffi.string(path).decode(), ffi.string(text).decode()
        if name.endswith("/recovery_tmo"):
            Path(name).write_text(f"{written}\n")
            return 0
        found = re.search(r"/host(\d+)/scan$", name)
        if found is not None:
            numbers = [int(word) for word in written.split()]
            result = self.point("scan", ":".join(map(str, (int(found[1]), *numbers))))
            return result or self.scan(int(found[1]), *numbers)
        assert written == "1"
        with self.lock:
            every = (d for s in self.sessions.values() for d in s.disks.values())
            disk = next((d for d in every if d.folder == Path(name).parent), None)
        if disk is None:
            return -errno.ENODEV
        point = name.rsplit("/", 1)[1]
        result = self.point(point, disk.name)
        with self.lock:
            if result == 0 and disk.session.disks.get(disk.address[3]) is not disk:
                return -errno.ENODEV
            if result == 0 and point == "delete":
                self._vanish(disk)
            elif result == 0:
                self._read_capacity(disk)
                self._read_pages(disk)
        return result

    def open_exclusive(self, path: Any) -> int:
        name = self._node(path)
        result = self.point("open", name)
        with self.lock:
            disk = self.disks.get(name)
            if result == 0 and disk is not None:
                held = any(disk.dev in item.members for item in self.dm.maps.values())
                return -errno.EBUSY if disk.claimed or held else 0
        return result

    def fsync(self, path: Any) -> int:
        name = self._node(path)
        return self.point("fsync", name)

    def opened(self, path: Any, ret_dev: Any) -> int:
        """The block device of a node; 0 of a file."""
        name = self._node(path)
        result = self.point("opened", name)
        found = re.fullmatch(r"(sd[a-z]+)(\d*)", name)
        disk = self.disks.get(found[1]) if found is not None else None
        if disk is not None and Path(ffi.string(path).decode()).parent == self.dev:
            ret_dev[0] = os.makedev(disk.dev[0], disk.dev[1] + int(found[2] or 0))
        return result

    def _node(self, path: Any) -> str:
        text: str = ffi.string(path).decode()
        return text.removesuffix(" (deleted)").rsplit("/", 1)[-1]


def disk_name(index: int) -> str:
    name = ""
    index += 1
    while index:
        index, digit = divmod(index - 1, 26)
        name = chr(ord("a") + digit) + name
    return f"sd{name}"


def threads() -> dict[int, str]:
    """Our threads and their names, Python's and others."""
    found = {}
    for item in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found[int(item.name)] = (item / "comm").read_text().strip()
    return found


def worker_threads() -> int:
    """Threads that Python did not start."""
    known = {thread.native_id for thread in threading.enumerate()}
    return len(set(threads()) - known) - _others


_others = 0  # started by run-time libraries before the first test
_installed: list[Any] = []


def install(library: Library) -> None:
    """The hooks, once; they serve whichever host is current."""
    global _others
    if _installed:
        return
    _others = worker_threads()
    hooks = ffi.new("struct mp_fake_hooks *")
    for name, kind in ffi.typeof("struct mp_fake_hooks").fields:
        function = ffi.callback(kind.type, _hook(name))
        setattr(hooks, name, function)
        _installed.append(function)
    library.c.mp_fake_install(hooks)


def _hook(name: str) -> Callable[..., int]:
    def hook(*arguments: Any) -> int:
        host = FakeHost.current
        if host is None:
            return -errno.ENODEV
        try:
            result: int = getattr(host, name)(*arguments)
        except BaseException as error:
            host.failures.append(error)
            return -errno.EIO
        return result

    return hook


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """What is inside may take this long."""
    begin = time.monotonic()
    yield
    taken = time.monotonic() - begin
    assert taken <= seconds * PATIENCE, f"took {taken:.3f} s instead of at most {seconds} s"
