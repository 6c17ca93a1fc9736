# SPDX-License-Identifier: Apache-2.0
"""What stands in for the extension under the Python code."""

from __future__ import annotations

from typing import Any

from manypath import Attachment, Detachment, Inventory, Target
from manypath._types import DetachTimings, Path, PathState, PathTimes, Timings


class FakeHandle:
    """Takes the place of ``_core.Handle`` above the extension; records what it is asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.error: BaseException | None = None

    def _record(self, *call: Any) -> None:
        self.calls.append(call)
        if self.error is not None:
            raise self.error

    def attach(self, targets: tuple[Target, ...], timeout_ms: int, min_paths: int) -> Attachment:
        self._record("attach", targets, timeout_ms, min_paths)
        return Attachment(
            path="/dev/dm-3",
            device="dm-3",
            wwid="36001405aaaa",
            name="mpatha",
            size_bytes=1 << 30,
            multipathd_running=True,
            map_existed=False,
            paths=tuple(make_path(target) for target in targets),
            warnings=("from the core",),
            timings=Timings(0.0, 0.001, 0.02, 0.003, 0.004, 0.0005, 0.006, 0.0345),
        )

    def detach(self, targets: tuple[Target, ...], timeout_ms: int) -> Detachment:
        self._record("detach", targets, timeout_ms)
        timings = DetachTimings(0.0, 0.001, 0.002, 0.003, 0.004, 0.005, 0.015)
        return Detachment(True, 4, 3, 1, (), timings)

    def inventory(self) -> Inventory:
        self._record("inventory")
        return Inventory((), (), (), maps_known=False)


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
