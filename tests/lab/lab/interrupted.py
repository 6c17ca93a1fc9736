"""One volume on two portals, and calls about it that a test interrupts.

Each round is the same: ``prepare``, an interrupted call, ``finish``. What ``finish`` asserts is
contract 7: the same call again succeeds, gives the right device, and a detach leaves nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lab.blockdev import pattern, write_direct
from lab.check import leaks
from lab.handle import Lab
from lab.state import locks_held
from lab.tools import run, wait_until
from lab.victims import Victim, Victims

RUNTIME = Path("/run/manypath")  # of the library: its locks
PATHS = 2
SIZE = 64  # MiB
MIB = 1 << 20
TIMEOUT = 60.0  # of the call that follows an interrupted one
CLEAN = 10.0
BACK = 120.0  # iscsid tries a portal that was away again now and then

# What is interrupted: the library's function, and its options.
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "attach": ("connect", {}),
    "undo": ("connect", {"min_paths": PATHS}),  # fails, since a portal refuses, and takes all back
    "detach": ("disconnect", {}),
    "extend": ("extend", {}),
}


class Interrupted:
    """The volume, and the processes that make calls about it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.volume = lab.volume(SIZE)
        self.export = lab.export(self.volume, lab.portals(PATHS))
        self.properties = self.export.properties
        self.victims = lab.keep(Victims())
        self.before = lab.snapshot()
        self._rounds = 0

    def prepare(self, call: str) -> None:
        """What has to be there before the call."""
        self._rounds += 1
        if call == "undo":
            self.lab.cut(self.export.portals[-1], "reject")
        if call in ("detach", "extend"):
            self._attach()
        if call == "extend":
            self.volume.resize(SIZE + 1)

    def start(
        self, call: str, fault: str = "", log: Path | None = None, timeout: float = TIMEOUT
    ) -> Victim:
        function, options = CALLS[call]
        return self.victims.start(
            function, self.properties, fault=fault, log=log, timeout=timeout, **options
        )

    def finish(self, call: str) -> None:
        """The same call again, undisturbed, then a detach."""
        self.lab.heal()
        if call in ("attach", "undo"):
            self._attach()
        elif call == "extend":
            self._extend()
        self._detach()
        self._nothing_left()

    def clear(self) -> list[str]:
        """After a failed round: what cannot be detached, in words."""
        self.lab.heal()
        with contextlib.suppress(AssertionError):
            self._detach()
        return self._left()

    # --- the calls, undisturbed --------------------------------------------------------------

    def _attach(self) -> None:
        attached = self.victims.call("connect", self.properties, timeout=TIMEOUT, min_paths=PATHS)
        self._is_the_volume(attached)

    def _extend(self) -> None:
        extended = self.victims.call("extend", self.properties, timeout=TIMEOUT)
        self._is_the_volume(extended)

    def _detach(self) -> None:
        self.victims.call("disconnect", self.properties, timeout=TIMEOUT)
        if self.volume.size != SIZE * MIB:
            self.volume.resize(SIZE)

    def _is_the_volume(self, result: dict[str, Any]) -> None:
        """By its WWID, its size, and what a write to it becomes on the storage."""
        device, size = result["device"], self.volume.size
        assert (result["wwid"], result["size_bytes"]) == (self.volume.wwid, size)
        (dm,) = self.lab.snapshot().maps
        assert (dm.device, dm.uuid) == (device, f"mpath-{self.volume.wwid}")
        assert not dm.suspended
        sectors = [found.sectors for found in self.lab.snapshot().devices]
        assert sectors == [size // 512] * PATHS
        if not self.lab.multipathd.pid:
            assert len(dm.members) == PATHS
            assert "queue_if_no_path" not in run("dmsetup", "table", dm.name)
        data = pattern(f"round {self._rounds}")
        write_direct(f"/dev/{device}", data, offset=size - len(data))
        with self.volume.file.open("rb") as backing:
            backing.seek(size - len(data))
            assert backing.read() == data

    # --- what is left ------------------------------------------------------------------------

    def _left(self) -> list[str]:
        found = leaks(self.before, self.lab.snapshot())
        return found + [f"lock held: {path}" for path in locks_held(RUNTIME)]

    def _nothing_left(self) -> None:
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not self._left(), "clean", CLEAN)
        assert self._left() == []


# By call and whether multipathd runs; they stay the same from test to test.
_passed: dict[tuple[str, bool], tuple[list[str], float]] = {}


def passed_points(
    target: Interrupted, folder: Path, calls: Iterable[str]
) -> tuple[dict[str, list[str]], dict[str, float]]:
    """Of each call, undisturbed: the fault points in the order of their passing, and its time."""
    points, seconds = {}, {}
    for call in calls:
        key = (call, bool(target.lab.multipathd.pid))
        if key not in _passed:
            _passed[key] = _undisturbed(target, call, folder / call)
        points[call], seconds[call] = _passed[key]
    return points, seconds


def _undisturbed(target: Interrupted, call: str, log: Path) -> tuple[list[str], float]:
    target.prepare(call)
    victim = target.start(call, log=log)
    answer = victim.returns()
    assert answer is not None and victim.ends() == 0
    assert (answer.error is None) == (call != "undo"), answer
    target.finish(call)
    return log.read_text().split(), answer.seconds


def wait_until_back(lab: Lab) -> None:
    """What sessions and disks there still are work again."""

    def back() -> bool:
        state = lab.snapshot()
        sessions = {session.state for session in state.sessions}
        devices = {device.state for device in state.devices}
        return sessions <= {"LOGGED_IN"} and devices <= {"running"}

    wait_until(back, "sessions and disks are back", BACK)


def spread(of_each: dict[str, Sequence[str]]) -> list[tuple[str, str]]:
    """All pairs of key and item, keys taking turns."""
    longest = max((len(items) for items in of_each.values()), default=0)
    return [
        (key, items[turn])
        for turn in range(longest)
        for key, items in of_each.items()
        if turn < len(items)
    ]
