"""The sample backend: what Cinder's LVM driver with LIO does, reduced to what the spec is about."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from backend.export import Disk, Place, VolumeExport, iscsi_fabric
from backend.storage import storage_of
from lab.network import Portal
from lab.target import Chap, demand_at_discovery, wwid_of

IQN_PREFIX = "iqn.2026-11.org.manypath.sample:"

Shape = Literal["lists", "legacy"]
Targets = Literal["shared", "per_portal"]


class BackendError(Exception):
    """The backend does not do what it was asked to."""


@dataclass
class SampleVolume:
    """A volume, and how it is exported."""

    name: str
    size: int  # bytes
    path: Path
    chap: Chap | None
    places: list[Place]
    disk: Disk = field(repr=False)
    export: VolumeExport = field(repr=False)

    @property
    def wwid(self) -> str:
        return wwid_of(self.name)

    @property
    def initiators(self) -> list[str]:
        """Who is connected, as far as this side knows."""
        return self.export.initiators


class SampleBackend:
    """Volumes behind a primary portal and any number of secondary ones.

    ``volume_group``: where logical volumes are made; without it volumes are files. ``chap``: True
    generates credentials for each volume, ``Chap`` gives them, None asks for none.
    ``discovery_chap`` counts for the whole of LIO. ``shape``: "lists" follows the specification,
    "legacy" is a driver from before it, which always names one portal and expects discovery.
    ``targets``: one target on all portals, as Cinder's LVM driver has it, or one on each.
    ``luns``: the volume's LUN, everywhere or target by target.
    """

    def __init__(
        self,
        portal: Portal,
        secondary: Sequence[Portal] = (),
        *,
        volume_group: str | None = None,
        chap: bool | Chap | None = True,
        discovery_chap: Chap | None = None,
        shape: Shape = "lists",
        targets: Targets = "shared",
        luns: int | Sequence[int] = 0,
        iqn_prefix: str = IQN_PREFIX,
    ) -> None:
        self.portals = [portal, *secondary]
        self.volumes: list[SampleVolume] = []
        self._storage = storage_of(volume_group)
        self._chap = chap
        self._discovery_chap = discovery_chap
        self._shape = shape
        self._targets = targets
        self._luns = luns
        self._iqn_prefix = iqn_prefix
        if discovery_chap:
            demand_at_discovery(iscsi_fabric(), discovery_chap)

    # --- volumes ---------------------------------------------------------------------------

    def create_volume(self, name: str, size_mib: int = 64) -> SampleVolume:
        """Make a volume and its targets. Nobody may log in yet."""
        chap, places = self._credentials(), self._places(name)
        with ExitStack() as undo:
            path = self._storage.create(name, size_mib)
            undo.callback(self._storage.delete, name)
            disk = Disk(name, path)
            undo.callback(disk.delete)
            export = VolumeExport(disk, places, chap)
            undo.pop_all()
        volume = SampleVolume(name, size_mib << 20, path, chap, places, disk, export)
        self.volumes.append(volume)
        return volume

    def extend_volume(self, volume: SampleVolume, new_size_mib: int) -> None:
        """Grow a volume, connected or not. The host has to look for the new size itself."""
        if new_size_mib << 20 < volume.size:
            raise BackendError(f"{volume.name} has {volume.size >> 20} MiB; it can only grow")
        self._storage.extend(volume.name, new_size_mib)
        volume.size = new_size_mib << 20
        volume.disk.grown()

    def delete_volume(self, volume: SampleVolume) -> None:
        """Remove a volume that nobody is connected to."""
        if volume.initiators:
            raise BackendError(f"{volume.name} is connected to {', '.join(volume.initiators)}")
        volume.export.delete()
        volume.disk.delete()
        self._storage.delete(volume.name)
        self.volumes.remove(volume)

    # --- connections -----------------------------------------------------------------------

    def initialize_connection(
        self, volume: SampleVolume, connector: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Let the connector's initiator in; return the ``connection_info``. Repeatable."""
        initiator = connector.get("initiator")
        if not initiator:
            raise BackendError("the connector has no initiator, and this backend speaks iSCSI only")
        volume.export.allow(initiator)
        data = {
            "target_discovered": False,
            **self._where(volume, bool(connector.get("multipath"))),
            "volume_id": volume.name,
            "access_mode": "rw",
            "encrypted": False,
            "qos_specs": None,
        }
        if volume.chap:
            data |= volume.chap.properties("auth")
        if self._discovery_chap:
            data |= self._discovery_chap.properties("discovery_auth")
        return {"driver_volume_type": "iscsi", "data": data}

    def terminate_connection(
        self, volume: SampleVolume, connector: Mapping[str, Any] | None
    ) -> None:
        """Let the connector's initiator in no more; None: nobody. The host detaches before."""
        initiators = volume.initiators if connector is None else [connector.get("initiator", "")]
        for initiator in initiators:
            volume.export.deny(initiator)

    def close(self) -> None:
        """Remove everything, whoever is connected."""
        for volume in list(self.volumes):
            self.terminate_connection(volume, None)
            self.delete_volume(volume)
        if self._discovery_chap:
            demand_at_discovery(iscsi_fabric(), None)

    # --- the answer ------------------------------------------------------------------------

    def _where(self, volume: SampleVolume, multipath: bool) -> dict[str, Any]:
        """The keys the specification is about: lists in place of single values, or these alone."""
        found = [
            (str(portal), place.iqn, place.lun)
            for place in volume.places
            for portal in place.portals
        ]
        if multipath and self._supports_multipath:
            portals, iqns, luns = (list(column) for column in zip(*found, strict=True))
            return {"target_portals": portals, "target_iqns": iqns, "target_luns": luns}
        portal, iqn, lun = found[0]
        return {"target_portal": portal, "target_iqn": iqn, "target_lun": lun}

    @property
    def _supports_multipath(self) -> bool:
        return self._shape == "lists" and len(self.portals) > 1

    def _places(self, name: str) -> list[Place]:
        iqn = f"{self._iqn_prefix}{name}"
        if self._targets == "shared":
            return [Place(iqn, self._lun(0), tuple(self.portals))]
        return [
            Place(f"{iqn}-{index + 1}", self._lun(index), (portal,))
            for index, portal in enumerate(self.portals)
        ]

    def _lun(self, target: int) -> int:
        return self._luns if isinstance(self._luns, int) else self._luns[target]

    def _credentials(self) -> Chap | None:
        if self._chap is True:
            # LIO takes a name that begins with 0x or 0b for a number, and does not know it then.
            return Chap(f"user-{secrets.token_hex(8)}", secrets.token_hex(8))
        return self._chap or None
