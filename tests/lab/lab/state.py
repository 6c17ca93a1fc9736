"""What the kernel holds, read from sysfs and procfs without starting a process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

SYS = Path("/sys")


@dataclass(frozen=True)
class Session:
    """An iSCSI session of the initiator."""

    sid: int
    iqn: str
    address: str
    port: int
    state: str
    devices: tuple[str, ...]


@dataclass(frozen=True)
class ScsiDevice:
    """An sd device that came over iSCSI."""

    name: str
    hctl: str
    sid: int
    sectors: int
    state: str


@dataclass(frozen=True)
class DmMap:
    """A device-mapper map; ``kind`` is the subsystem part of its uuid, such as ``mpath``.

    Logical volumes are not listed: in this guest they are the storage behind a target.
    """

    device: str
    name: str
    uuid: str
    suspended: bool
    members: tuple[str, ...]

    @property
    def kind(self) -> str:
        return self.uuid.partition("-")[0]


@dataclass(frozen=True)
class Snapshot:
    """What an operation could leave behind."""

    sessions: tuple[Session, ...]
    devices: tuple[ScsiDevice, ...]
    maps: tuple[DmMap, ...]
    semaphores: tuple[int, ...]  # keys


def snapshot() -> Snapshot:
    """The state now."""
    devices = _devices()
    return Snapshot(_sessions(devices), devices, _maps(), _semaphores())


def processes_created() -> int:
    """Processes and threads created since boot, in the whole guest."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("processes "):
            return int(line.split()[1])
    raise AssertionError("no processes line in /proc/stat")


def _read(path: Path) -> str:
    """A sysfs attribute; empty if it went away or is refused while its owner goes away."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _sessions(devices: tuple[ScsiDevice, ...]) -> tuple[Session, ...]:
    found = []
    for folder in (SYS / "class/iscsi_session").glob("session*"):
        sid = int(folder.name.removeprefix("session"))
        connection = SYS / f"class/iscsi_connection/connection{sid}:0"
        port = _read(connection / "persistent_port")
        session = Session(
            sid=sid,
            iqn=_read(folder / "targetname"),
            address=_read(connection / "persistent_address"),
            port=int(port) if port.isdigit() else 0,
            state=_read(folder / "state"),
            devices=tuple(device.name for device in devices if device.sid == sid),
        )
        found.append(session)
    return tuple(sorted(found, key=lambda session: session.sid))


def _devices() -> tuple[ScsiDevice, ...]:
    found = []
    for disk in (SYS / "block").glob("sd*"):
        real = disk.resolve()
        sid = next((p for p in real.parts if p.startswith("session")), None)
        if sid is None:
            continue
        sectors = _read(disk / "size")
        device = ScsiDevice(
            name=disk.name,
            hctl=(disk / "device").resolve().name,
            sid=int(sid.removeprefix("session")),
            sectors=int(sectors) if sectors else 0,
            state=_read(disk / "device/state"),
        )
        found.append(device)
    return tuple(sorted(found, key=lambda device: (len(device.name), device.name)))


def _maps() -> tuple[DmMap, ...]:
    found = []
    for disk in (SYS / "block").glob("dm-*"):
        try:
            members = tuple(sorted(slave.name for slave in (disk / "slaves").iterdir()))
        except OSError:
            members = ()
        name, uuid = _read(disk / "dm/name"), _read(disk / "dm/uuid")
        if uuid.startswith("LVM-"):
            continue
        suspended = _read(disk / "dm/suspended") == "1"
        found.append(DmMap(disk.name, name, uuid, suspended, members))
    return tuple(sorted(found, key=lambda dm: dm.device))


def _semaphores() -> tuple[int, ...]:
    lines = Path("/proc/sysvipc/sem").read_text().splitlines()[1:]
    return tuple(sorted(int(line.split()[0]) for line in lines))


def locks_held(folder: Path) -> list[str]:
    """Files below a folder that somebody holds a lock on (proc(5), /proc/locks)."""
    held = {
        line.split()[5] for line in Path("/proc/locks").read_text().splitlines() if "->" not in line
    }
    found = []
    for path in sorted(folder.rglob("*")):
        status = path.stat()
        device = status.st_dev
        if f"{os.major(device):02x}:{os.minor(device):02x}:{status.st_ino}" in held:
            found.append(str(path))
    return found
