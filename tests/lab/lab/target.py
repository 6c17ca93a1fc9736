"""The iSCSI target: LIO through rtslib."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from rtslib_fb import (
    LUN,
    TPG,
    ALUATargetPortGroup,
    FabricModule,
    FileIOStorageObject,
    MappedLUN,
    NetworkPortal,
    NodeACL,
    RTSRoot,
    Target,
)

from lab.network import Portal

VOLUMES = Path("/srv/volumes")
IQN_PREFIX = "iqn.2026-11.org.manypath.target"
INITIATOR = "iqn.2026-11.org.manypath:lab"
OTHER_INITIATOR = "iqn.2026-11.org.manypath:somebody-else"

Shape = Literal["per_portal", "shared"]
Access = Literal["any", "only_us", "not_us"]
LunNumber = int | Callable[[int, int], int]
AccessState = Literal["optimized", "non-optimized", "standby"]

ACCESS_STATES: dict[AccessState, int] = {"optimized": 0, "non-optimized": 1, "standby": 2}
IMPLICIT = 1
FIRST_GROUP = 100  # target port groups with lower numbers are LIO's own


@dataclass(frozen=True)
class Chap:
    """CHAP credentials; with ``mutual_*`` the target proves itself too."""

    user: str
    password: str = field(repr=False)
    mutual_user: str = ""
    mutual_password: str = field(default="", repr=False)

    def properties(self, prefix: str = "auth") -> dict[str, str]:
        """The keys of connection properties; those in ``_in`` say what the target must prove."""
        keys = {"method": "CHAP", "username": self.user, "password": self.password}
        if self.mutual_user:
            keys |= {"username_in": self.mutual_user, "password_in": self.mutual_password}
        return {f"{prefix}_{key}": value for key, value in keys.items()}

    def demand(self, holder: TPG | NodeACL) -> None:
        """Have LIO ask for them: an ACL of its initiator, a portal group of those without one."""
        holder.chap_userid = self.user
        holder.chap_password = self.password
        if self.mutual_user:
            holder.chap_mutual_userid = self.mutual_user
            holder.chap_mutual_password = self.mutual_password


@dataclass
class Volume:
    """A file-backed storage object. Two volumes of one name (one after the other) have one WWID."""

    name: str
    size: int
    backing: FileIOStorageObject = field(repr=False)

    @property
    def serial(self) -> str:
        return serial_of(self.name)

    @property
    def wwid(self) -> str:
        return wwid_of(self.name)

    @property
    def file(self) -> Path:
        return VOLUMES / self.name

    def resize(self, size_mib: int) -> None:
        """Change the size; the initiator learns it at its next READ CAPACITY."""
        self.size = size_mib << 20
        with self.file.open("r+b") as backing:
            backing.truncate(self.size)
        report_size(self.backing, self.size)


def serial_of(name: str) -> str:
    """Stable for a name, different between names in the digits the WWID is made of."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def wwid_of(name: str) -> str:
    """As multipath writes it: NAA 6, LIO's company id 001405, 25 digits of the serial."""
    return f"36001405{serial_of(name)[:25]}"


def report_size(backing: FileIOStorageObject, size: int) -> None:
    """LIO reports the size it was configured with, not the file's; rtslib has no call for it."""
    (Path(backing.path) / "control").write_text(f"fd_dev_size={size}")


@dataclass
class Export:
    """Volumes made visible through portals, by one target for all or one target per portal."""

    volumes: list[Volume]
    portals: list[Portal]
    shape: Shape
    chap: Chap | None
    discovery_chap: Chap | None
    numbers: list[list[int]]  # [target][volume]
    tpgs: list[TPG] = field(repr=False)

    @property
    def iqns(self) -> list[str]:
        """Target names, one for each target."""
        return [tpg.parent_target.wwn for tpg in self.tpgs]

    @property
    def properties(self) -> dict[str, Any]:
        """``connection_properties`` of the first (often only) volume."""
        return self.connection_properties(self.volumes[0])

    def connection_properties(self, volume: Volume) -> dict[str, Any]:
        """What Cinder would put into ``connection_info["data"]``."""
        which = self.volumes.index(volume)
        targets = [self._target_of(i) for i in range(len(self.portals))]
        portals = [str(portal) for portal in self.portals]
        iqns = [self.iqns[target] for target in targets]
        luns = [self.numbers[target][which] for target in targets]
        data: dict[str, Any] = {
            "target_discovered": False,
            "target_portal": portals[0],
            "target_iqn": iqns[0],
            "target_lun": luns[0],
            "target_portals": portals,
            "target_iqns": iqns,
            "target_luns": luns,
            "volume_id": volume.name,
            "access_mode": "rw",
            "encrypted": False,
            "qos_specs": None,
        }
        for prefix, chap in (("auth", self.chap), ("discovery_auth", self.discovery_chap)):
            if chap:
                data |= chap.properties(prefix)
        return data

    def swap(self, number: int, volume: Volume, target: int | None = None) -> None:
        """Put another volume behind a LUN number, of one target or of all."""
        for index, tpg in enumerate(self.tpgs):
            if target in (None, index):
                self._remove(tpg, number)
                _map(tpg, number, volume)

    def put(self, number: int, volume: Volume, target: int | None = None) -> None:
        """Put a volume behind a LUN number that is free, of one target or of all."""
        for index, tpg in enumerate(self.tpgs):
            if target in (None, index):
                _map(tpg, number, volume)

    def remove_lun(self, number: int, target: int | None = None) -> None:
        """Take a LUN away while the target stays, of one target or of all."""
        for index, tpg in enumerate(self.tpgs):
            if target in (None, index):
                self._remove(tpg, number)

    def set_access_state(self, state: AccessState, *targets: int) -> None:
        """Have these targets (by index) tell that ALUA state, of every volume.

        Each target is a target port group of its own; nobody but the storage changes its state.
        """
        for index in targets:
            for volume, number in zip(self.volumes, self.numbers[index], strict=True):
                name = f"group-{index}"
                there = any(group.name == name for group in volume.backing.alua_tpgs)
                tag = None if there else FIRST_GROUP + index  # rtslib: one makes it, none finds it
                group = ALUATargetPortGroup(volume.backing, name, tag)
                group.alua_access_type = IMPLICIT
                group.alua_access_state = ACCESS_STATES[state]
                LUN(self.tpgs[index], number).alua_tg_pt_gp_name = name

    def _remove(self, tpg: TPG, number: int) -> None:
        LUN(tpg, number).delete()

    def _target_of(self, portal: int) -> int:
        return portal if self.shape == "per_portal" else 0


def _map(tpg: TPG, number: int, volume: Volume) -> None:
    lun = LUN(tpg, number, volume.backing)
    for acl in tpg.node_acls:
        MappedLUN(acl, number, lun)


def demand_at_discovery(fabric: FabricModule, chap: Chap | None) -> None:
    """Have LIO ask for credentials at discovery, all of it at once; None: for none any more."""
    fabric.clear_discovery_auth_settings()
    if chap is None:
        return
    fabric.discovery_userid = chap.user
    fabric.discovery_password = chap.password
    if chap.mutual_user:
        fabric.discovery_mutual_userid = chap.mutual_user
        fabric.discovery_mutual_password = chap.mutual_password
    fabric.discovery_enable_auth = True


def load_target() -> None:
    """Load LIO. Not with modprobe: rtslib must set LIO's folder before any backend is there."""
    RTSRoot()
    FabricModule("iscsi")


class TargetServer:
    """Creates and deletes everything LIO."""

    def __init__(self) -> None:
        self.volumes: list[Volume] = []
        self.exports: list[Export] = []
        self._bare: list[Path] = []
        self._count = 0

    @cached_property
    def _fabric(self) -> FabricModule:
        return FabricModule("iscsi")

    def volume(self, size_mib: int = 64, name: str | None = None) -> Volume:
        """A sparse file on the guest's tmpfs. The same name gives the same WWID."""
        if name is None:
            self._count += 1
            name = f"volume-{self._count}"
        VOLUMES.mkdir(parents=True, exist_ok=True)
        file = VOLUMES / name
        size = size_mib << 20
        with file.open("wb") as backing:
            backing.truncate(size)
        storage = FileIOStorageObject(name, str(file), size, wwn=serial_of(name), write_back=True)
        volume = Volume(name, size, storage)
        self.volumes.append(volume)
        return volume

    def export(
        self,
        volumes: Volume | Sequence[Volume],
        portals: Sequence[Portal],
        shape: Shape = "per_portal",
        lun: LunNumber = 1,
        chap: Chap | None = None,
        discovery_chap: Chap | None = None,
        access: Access = "any",
    ) -> Export:
        """Make volumes visible.

        ``lun``: number of the first volume, the next ones follow; or a function of (target index,
        volume index). ``access``: "any" initiator may log in (demo mode), "only_us" has an ACL for
        our initiator name, "not_us" one for another name only, so that our login is refused.
        """
        listed = [volumes] if isinstance(volumes, Volume) else list(volumes)
        number = lun if callable(lun) else lambda _target, volume: lun + volume
        groups = [[p] for p in portals] if shape == "per_portal" else [list(portals)]
        if discovery_chap:
            demand_at_discovery(self._fabric, discovery_chap)
        self._count += 1
        export = Export(listed, list(portals), shape, chap, discovery_chap, [], [])
        self.exports.append(export)  # before anything is made: delete() must see it if this fails
        for index, group in enumerate(groups):
            target = Target(self._fabric, f"{IQN_PREFIX}:{self._count}-{index}")
            tpg = TPG(target, 1)
            export.tpgs.append(tpg)
            self._set_access(tpg, access, chap)
            export.numbers.append([number(index, i) for i in range(len(listed))])
            for volume, lun_number in zip(listed, export.numbers[-1], strict=True):
                _map(tpg, lun_number, volume)
            for portal in group:
                NetworkPortal(tpg, portal.bracketed, portal.port)
            tpg.enable = True
        return export

    def _set_access(self, tpg: TPG, access: Access, chap: Chap | None) -> None:
        demo = access == "any"
        for name, value in (
            ("authentication", bool(chap)),
            ("generate_node_acls", demo),
            ("cache_dynamic_acls", demo),
            ("demo_mode_write_protect", not demo),
        ):
            tpg.set_attribute(name, str(int(value)))
        holder = tpg
        if not demo:
            holder = NodeACL(tpg, INITIATOR if access == "only_us" else OTHER_INITIATOR)
        if chap:
            chap.demand(holder)

    def bare_targets(self, count: int, portals: Sequence[Portal]) -> list[str]:
        """Targets without a LUN, for discovery alone; their names.

        By hand, since there may be hundreds.
        """
        self._fabric._check_self()  # LIO's folder for iSCSI is made at its first use
        self._count += 1
        names = [f"{IQN_PREFIX}:{self._count}-{index:03}" for index in range(count)]
        for name in names:
            target = Path(self._fabric.path) / name
            self._bare.append(target)
            group = target / "tpgt_1"
            group.mkdir(parents=True)
            for portal in portals:
                (group / "np" / str(portal)).mkdir()
            (group / "enable").write_text("1")
        return names

    def _delete_bare(self, target: Path) -> None:
        group = target / "tpgt_1"
        if group.exists():
            (group / "enable").write_text("0")
            for portal in (group / "np").iterdir():
                portal.rmdir()
            group.rmdir()
        if target.exists():
            target.rmdir()

    def unexport(self, export: Export) -> None:
        """Remove an export's targets; the volumes stay."""
        for tpg in export.tpgs:
            tpg.parent_target.delete()
        self.exports.remove(export)

    def delete_volume(self, volume: Volume) -> None:
        """Remove a volume that is no longer exported."""
        volume.backing.delete()
        volume.file.unlink()
        self.volumes.remove(volume)

    def delete(self) -> None:
        """Remove all of it."""
        if any(export.discovery_chap for export in self.exports):
            demand_at_discovery(self._fabric, None)
        while self._bare:
            self._delete_bare(self._bare.pop())
        for export in list(self.exports):
            self.unexport(export)
        for volume in list(self.volumes):
            self.delete_volume(volume)
