"""A volume of the sample backend as seen through LIO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rtslib_fb import (
    LUN,
    TPG,
    BlockStorageObject,
    FabricModule,
    FileIOStorageObject,
    MappedLUN,
    NetworkPortal,
    NodeACL,
    Target,
)

from lab.network import Portal
from lab.target import Chap, report_size, serial_of


@dataclass(frozen=True)
class Place:
    """One target that offers the volume: its name, the volume's LUN there, and its portals."""

    iqn: str
    lun: int
    portals: tuple[Portal, ...]


def iscsi_fabric() -> FabricModule:
    """LIO's iSCSI side."""
    fabric = FabricModule("iscsi")
    # rtslib is stricter about names than iSCSI stacks are, and than the specification: the month in
    # its example, "iqn.2014-2.org.example:vol1-1", has one digit.
    fabric.wwn_types = ("free",)
    return fabric


class Disk:
    """A block device or a file, as a storage object of LIO."""

    def __init__(self, name: str, path: Path) -> None:
        self._path = path
        # The serial makes the WWID, which must be the same through every target.
        if path.is_block_device():
            self.backing = BlockStorageObject(name, str(path), wwn=serial_of(name))
        else:
            size, serial = path.stat().st_size, serial_of(name)
            self.backing = FileIOStorageObject(name, str(path), size, serial, write_back=True)

    def grown(self) -> None:
        """Have LIO report the size the device has now; of a block device it sees that itself."""
        if not self._path.is_block_device():
            report_size(self.backing, self._path.stat().st_size)

    def delete(self) -> None:
        self.backing.delete()


class VolumeExport:
    """The targets of one volume. Each has it as its only LUN, for those initiators allowed to."""

    def __init__(self, disk: Disk, places: Sequence[Place], chap: Chap | None) -> None:
        self._chap = chap
        self._groups: list[tuple[Place, TPG]] = []
        fabric = iscsi_fabric()
        try:
            for place in places:
                group = TPG(Target(fabric, place.iqn, "create"), 1)
                self._groups.append((place, group))
                self._serve(disk, place, group)
        except BaseException:
            self.delete()
            raise

    def _serve(self, disk: Disk, place: Place, group: TPG) -> None:
        closed = {"generate_node_acls": 0, "cache_dynamic_acls": 0, "demo_mode_discovery": 0}
        for name, value in (closed | {"authentication": int(bool(self._chap))}).items():
            group.set_attribute(name, str(value))
        LUN(group, place.lun, disk.backing)
        for portal in place.portals:
            NetworkPortal(group, portal.bracketed, portal.port)
        group.enable = True

    @property
    def initiators(self) -> list[str]:
        """Who may log in."""
        return sorted({acl.node_wwn for _, group in self._groups for acl in group.node_acls})

    def allow(self, initiator: str) -> None:
        """Let an initiator log in to all of the targets, with the same credentials."""
        if initiator in self.initiators:
            return
        for place, group in self._groups:
            acl = NodeACL(group, initiator)
            if self._chap:
                self._chap.demand(acl)
            MappedLUN(acl, place.lun, place.lun)

    def deny(self, initiator: str) -> None:
        """Undo ``allow``; LIO ends what sessions there are."""
        for _, group in self._groups:
            for acl in list(group.node_acls):
                if acl.node_wwn == initiator:
                    acl.delete()

    def delete(self) -> None:
        while self._groups:
            _, group = self._groups.pop()
            group.parent_target.delete()
