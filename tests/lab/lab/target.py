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


@dataclass(frozen=True)
class Chap:
    """CHAP credentials; with ``mutual_*`` the target proves itself too."""

    user: str
    password: str = field(repr=False)
    mutual_user: str = ""
    mutual_password: str = field(default="", repr=False)


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
        """As multipath writes it: NAA 6, LIO's company id 001405, 25 digits of the serial."""
        return f"36001405{self.serial[:25]}"

    @property
    def file(self) -> Path:
        return VOLUMES / self.name

    def resize(self, size_mib: int) -> None:
        """Change the size; the initiator learns it at its next READ CAPACITY."""
        self.size = size_mib << 20
        with self.file.open("r+b") as backing:
            backing.truncate(self.size)
        # LIO reports the size it was configured with, not the file's; rtslib has no call for it.
        control = Path(self.backing.path) / "control"
        control.write_text(f"fd_dev_size={self.size}")


def serial_of(name: str) -> str:
    """Stable for a name, different between names in the digits the WWID is made of."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]


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
                data[f"{prefix}_method"] = "CHAP"
                data[f"{prefix}_username"] = chap.user
                data[f"{prefix}_password"] = chap.password
        return data

    def swap(self, number: int, volume: Volume, target: int | None = None) -> None:
        """Put another volume behind a LUN number, of one target or of all."""
        for index, tpg in enumerate(self.tpgs):
            if target in (None, index):
                self._remove(tpg, number)
                _map(tpg, number, volume)

    def remove_lun(self, number: int, target: int | None = None) -> None:
        """Take a LUN away while the target stays, of one target or of all."""
        for index, tpg in enumerate(self.tpgs):
            if target in (None, index):
                self._remove(tpg, number)

    def _remove(self, tpg: TPG, number: int) -> None:
        LUN(tpg, number).delete()

    def _target_of(self, portal: int) -> int:
        return portal if self.shape == "per_portal" else 0


def _map(tpg: TPG, number: int, volume: Volume) -> None:
    lun = LUN(tpg, number, volume.backing)
    for acl in tpg.node_acls:
        MappedLUN(acl, number, lun)


def load_target() -> None:
    """Load LIO. Not with modprobe: rtslib must set LIO's folder before any backend is there."""
    RTSRoot()
    FabricModule("iscsi")


class TargetServer:
    """Creates and deletes everything LIO."""

    def __init__(self) -> None:
        self.volumes: list[Volume] = []
        self.exports: list[Export] = []
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
            self._discovery_auth(discovery_chap)
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
            holder.chap_userid = chap.user
            holder.chap_password = chap.password
            if chap.mutual_user:
                holder.chap_mutual_userid = chap.mutual_user
                holder.chap_mutual_password = chap.mutual_password

    def _discovery_auth(self, chap: Chap) -> None:
        self._fabric.discovery_userid = chap.user
        self._fabric.discovery_password = chap.password
        if chap.mutual_user:
            self._fabric.discovery_mutual_userid = chap.mutual_user
            self._fabric.discovery_mutual_password = chap.mutual_password
        self._fabric.discovery_enable_auth = True

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
            self._fabric.discovery_enable_auth = False
        for export in list(self.exports):
            self.unexport(export)
        for volume in list(self.volumes):
            self.delete_volume(volume)
