# SPDX-License-Identifier: Apache-2.0
"""What stands in for the extension under the Python code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from manypath import (
    Attachment,
    Credentials,
    Detachment,
    DiscoveredTarget,
    Extension,
    Flush,
    Inventory,
    ManypathError,
    Portal,
    Target,
)
from manypath._types import DetachTimings, ExtendTimings, Path, PathState, PathTimes, Timings
from manypath.errors import HostNameError


class FakeHandle:
    """Takes the place of ``_core.Handle`` above the extension; records what it is asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.options: dict[str, Any] = {}  #: of the last call that has some
        self.error: BaseException | None = None
        #: Host name to addresses, and portal to what it tells or raises.
        self.names: dict[str, tuple[str, ...]] = {}
        self.offers: dict[str, tuple[DiscoveredTarget, ...] | ManypathError] = {}
        self.host = Inventory((), (), (), maps_known=False)

    def _record(self, *call: Any) -> None:
        self.calls.append(call)
        if self.error is not None:
            raise self.error

    def attach(
        self,
        targets: Sequence[Target],
        timeout_ms: int,
        min_paths: int,
        *,
        candidates: Sequence[Target] = (),
        chap: Credentials | None = None,
        single_path: bool = False,
        wwid: str | None = None,
        serial: str | None = None,
    ) -> Attachment:
        self.options = {"candidates": candidates, "chap": chap, "single_path": single_path}
        self.options |= {"wwid": wwid, "serial": serial}
        self._record("attach", targets, timeout_ms, min_paths)
        return Attachment(
            path="/dev/sda" if single_path else "/dev/dm-3",
            device="sda" if single_path else "dm-3",
            wwid="36001405aaaa",
            name="" if single_path else "mpatha",
            size_bytes=1 << 30,
            multipathd_running=True,
            map_existed=False,
            paths=tuple(make_path(target) for target in targets),
            warnings=("from the core",),
            timings=Timings(0.0, 0.001, 0.02, 0.003, 0.004, 0.0005, 0.006, 0.0345),
        )

    def detach(
        self,
        targets: Sequence[Target],
        timeout_ms: int,
        *,
        whole_map: bool = False,
        force: bool = False,
    ) -> Detachment:
        self.options = {"whole_map": whole_map, "force": force}
        self._record("detach", targets, timeout_ms)
        return make_detachment()

    def extend(
        self, targets: Sequence[Target], timeout_ms: int, *, size_bytes: int = 0
    ) -> Extension:
        self.options = {"size_bytes": size_bytes}
        self._record("extend", targets, timeout_ms)
        return Extension(
            path="/dev/dm-3",
            device="dm-3",
            wwid="36001405aaaa",
            old_size_bytes=1 << 30,
            size_bytes=3 << 29,
            multipathd_running=True,
            paths=tuple(make_path(target, session_existed=True) for target in targets),
            warnings=("from the core",),
            timings=ExtendTimings(0.0, 0.001, 0.02, 0.003, 0.0245),
        )

    def discover(
        self,
        portal: Portal,
        timeout_ms: int,
        *,
        initiator: str | None = None,
        chap: Credentials | None = None,
    ) -> tuple[DiscoveredTarget, ...]:
        self.options = {"initiator": initiator, "chap": chap}
        self._record("discover", portal, timeout_ms)
        answer = self.offers.get(str(portal), ())
        if isinstance(answer, ManypathError):
            raise answer
        return answer

    def resolve(self, host: str, timeout_ms: int) -> tuple[str, ...]:
        self._record("resolve", host, timeout_ms)
        if host not in self.names:
            raise HostNameError(f"{host} is not known")
        return self.names[host]

    def inventory(self) -> Inventory:
        self._record("inventory")
        return self.host


def make_detachment(**changes: Any) -> Detachment:
    """One that went well, or one with other fields."""
    fields: dict[str, Any] = {
        "map_removed": True,
        "flush": Flush.DONE,
        "devices_removed": 4,
        "sessions_removed": 3,
        "sessions_kept": 1,
        "errors": (),
        "warnings": (),
        "timings": DetachTimings(0.0, 0.001, 0.002, 0.003, 0.004, 0.005, 0.015),
    }
    return Detachment(**{**fields, **changes})


def make_path(target: Target, **changes: Any) -> Path:
    """An active path, or one with other fields."""
    fields: dict[str, Any] = {
        "portal": target.portal,
        "iqn": target.iqn,
        "lun": target.lun,
        "state": PathState.ACTIVE,
        "sid": 1,
        "hctl": "2:0:0:1",
        "device": "sda",
        "error": None,
        "times": PathTimes(0.001, 0.02, 0.023, 0.027, 0.0275),
        "session_existed": False,
    }
    return Path(**{**fields, **changes})
